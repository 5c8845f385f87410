//! The public worker: takes away local files of public pieces once enough providers have them, and what nobody knows.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use crate::drive::Engine;
use crate::public::tidy;
use crate::worker::{Context, Detail, Next, Worker};

/// How often files are looked at.
const LOOK: Duration = Duration::from_secs(15);

/// See the module.
pub struct PublicWorker {
    engine: Arc<Engine>,
    starting: bool,
}

impl PublicWorker {
    /// A worker over `engine`'s public folder.
    pub fn new(engine: Arc<Engine>) -> Self {
        Self { engine, starting: true }
    }
}

#[async_trait]
impl Worker for PublicWorker {
    fn name(&self) -> &'static str {
        "public"
    }

    fn status(&self) -> Detail {
        Detail::default()
    }

    async fn work(&mut self, _: &Context) -> anyhow::Result<Next> {
        let starting = std::mem::take(&mut self.starting);
        self.engine.blocking(move |e| tidy(e, starting)).await??;
        Ok(Next::After(LOOK))
    }

    async fn wait(&mut self) {
        tokio::time::sleep(LOOK).await;
    }
}
