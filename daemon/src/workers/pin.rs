//! The pin worker: brings back what the owner wants on this machine.
//!
//! A pinned folder's pieces are never evicted; those that were, or that a restored drive never had, are fetched one by one. Under a quota a
//! piece comes only while there is room for it: a pin does not make writers wait.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use crate::drive::Engine;
use crate::drive::ledger::PieceId;
use crate::worker::{Context, Detail, Next, Worker};
use crate::workers::place::source;

/// Pins are looked at this often.
const LOOK: Duration = Duration::from_secs(5);

/// See the module.
pub struct PinWorker {
    engine: Arc<Engine>,
    detail: Detail,
}

impl PinWorker {
    /// A worker over `engine`'s pins.
    pub fn new(engine: Arc<Engine>) -> Self {
        Self { engine, detail: Detail::default() }
    }
}

/// Pinned pieces that are not here.
pub fn missing(engine: &Engine) -> anyhow::Result<Vec<PieceId>> {
    let mut missing = Vec::new();
    for id in engine.drive.pinned_pieces()?.iter() {
        if engine.drive.piece(*id)?.is_none_or(|piece| !piece.local) {
            missing.push(*id);
        }
    }
    Ok(missing)
}

#[async_trait]
impl Worker for PinWorker {
    fn name(&self) -> &'static str {
        "pin"
    }

    fn status(&self) -> Detail {
        self.detail.clone()
    }

    async fn work(&mut self, context: &Context) -> anyhow::Result<Next> {
        let missing = self.engine.blocking(missing).await??;
        let queue = missing.len() as u64;
        let Some(id) = missing.first().copied() else {
            self.detail = Detail::default();
            return Ok(Next::After(LOOK));
        };
        let row = self.engine.ledger.piece(&id);
        let Some(row) = row else { anyhow::bail!("a pinned piece is in no placement that is known") };
        let free = self.engine.blocking(|e| e.drive.pressure().free_bytes).await?;
        if self.engine.policy.quota_bytes.is_some() && free < row.raw_len.saturating_mul(2) {
            let doing = "waiting for room for what is pinned".to_owned();
            self.detail = Detail { doing, queue, progress: None };
            return Ok(Next::After(LOOK));
        }
        self.detail = Detail { doing: "fetching what is pinned".into(), queue, progress: None };
        context.report(self.detail.clone());
        let bytes = source::open(&self.engine, id, &row).await?;
        self.engine
            .blocking(move |e| e.drive.bring_back(id, row.raw_len, |at, buf| bytes.read_at(at, buf)))
            .await??;
        Ok(Next::Again)
    }

    async fn wait(&mut self) {
        tokio::time::sleep(LOOK).await;
    }
}
