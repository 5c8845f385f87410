//! The policy worker: raises what was there before a folder asked for more, or before it came below one that does.
//!
//! Each step is a bounded page of names or chunks, while no seal runs; the file system keeps what is left in rows, so that a restart goes on where it was.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use crate::drive::Engine;
use crate::worker::{Context, Detail, Next, Worker};

/// How often it is looked whether there is anything to do.
const LOOK: Duration = Duration::from_secs(2);
/// The same where what leads to the data cannot be read just now.
const LOOK_HINDERED: Duration = Duration::from_secs(15);

/// See the module.
pub struct PolicyWorker {
    engine: Arc<Engine>,
    detail: Detail,
}

impl PolicyWorker {
    /// A worker over `engine`'s folders.
    pub fn new(engine: Arc<Engine>) -> Self {
        Self { engine, detail: Detail::default() }
    }
}

#[async_trait]
impl Worker for PolicyWorker {
    fn name(&self) -> &'static str {
        "policy"
    }

    fn status(&self) -> Detail {
        self.detail.clone()
    }

    async fn work(&mut self, context: &Context) -> anyhow::Result<Next> {
        self.detail = Detail::default();
        if self.engine.overtaken().is_some() {
            return Ok(Next::After(LOOK));
        }
        let left = self.engine.blocking(|e| e.drive.walks()).await??;
        if left == 0 {
            return Ok(Next::After(LOOK));
        }
        let doing = "looking for data that is less safe than its folder asks".to_owned();
        self.detail = Detail { doing, queue: left, progress: None };
        context.report(self.detail.clone());
        match self.engine.blocking(|e| e.drive.walk_step()).await? {
            Ok(_) => {
                self.engine.wake.notify_waiters();
                Ok(Next::Again)
            }
            Err(error) if error.is_retryable() => {
                tracing::info!(%error, "policies are looked at later");
                Ok(Next::After(LOOK_HINDERED))
            }
            Err(error) => Err(error.into()),
        }
    }

    async fn wait(&mut self) {
        tokio::time::sleep(LOOK).await;
    }
}
