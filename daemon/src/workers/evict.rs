//! The evict worker: drops local copies of what is safe once they take more room than the owner allows.
//!
//! Only a piece that is Placed up to the policy, and whose every counting holder proved possession lately, may go; the drive
//! checks both again in the transaction that removes it, the row first and the file second.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use crate::drive::Engine;
use crate::drive::clock::age;
use crate::worker::{Context, Detail, Next, Worker};

/// Room is looked at this often.
const LOOK: Duration = Duration::from_secs(15);

/// See the module.
pub struct EvictWorker {
    engine: Arc<Engine>,
    detail: Detail,
}

impl EvictWorker {
    /// A worker over `engine`'s pieces.
    pub fn new(engine: Arc<Engine>) -> Self {
        Self { engine, detail: Detail::default() }
    }
}

#[async_trait]
impl Worker for EvictWorker {
    fn name(&self) -> &'static str {
        "evict"
    }

    fn status(&self) -> Detail {
        self.detail.clone()
    }

    async fn work(&mut self, _: &Context) -> anyhow::Result<Next> {
        let Some(max) = self.engine.policy.local_bytes_max else { return Ok(Next::After(LOOK)) };
        let dropped = self.engine.blocking(move |e| evict_down_to(e, max)).await??;
        if dropped > 0 {
            tracing::info!(dropped, "local copies of what is safe were dropped");
        }
        Ok(Next::After(LOOK))
    }

    async fn wait(&mut self) {
        tokio::time::sleep(LOOK).await;
    }
}

/// Oldest pieces first, until the local ones take at most `max` bytes. Returns how many went.
fn evict_down_to(engine: &Engine, max: u64) -> anyhow::Result<u64> {
    let mut local = engine.drive.usage()?.piece_bytes_local;
    let mut dropped = 0;
    let wanted = usize::from(engine.policy.copies());
    let now = engine.now();
    let published = engine.head.published_sequence().unwrap_or(0);
    for piece in engine.drive.pieces()? {
        if local <= max {
            break;
        }
        let (counting, proven_at) = engine.ledger.counting(&piece.id);
        let reached = piece.checkpoint || (piece.commit_sequence != 0 && piece.commit_sequence <= published);
        let safe = reached
            && counting >= wanted
            && engine.ledger.head_copies() >= wanted
            && proven_at.is_some_and(|t| age(now, t) <= engine.policy.evict_proven_seconds_max);
        if piece.local && safe {
            match engine.drive.evict_piece(piece.id) {
                Ok(()) => {
                    local = local.saturating_sub(piece.raw_len);
                    dropped += 1;
                }
                Err(error) => tracing::debug!(%error, "piece stays"),
            }
        }
    }
    Ok(dropped)
}
