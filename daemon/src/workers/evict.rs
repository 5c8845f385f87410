//! The evict worker: drops local copies of what is safe once they take more room than the owner allows, or a writer needs theirs.
//!
//! Only a piece that is Placed up to the policy, and whose every counting holder proved possession lately, may go; the drive
//! checks both again in the transaction that removes it, the row first and the file second.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use holdfast_fs::drive::{DriveError, PieceInfo};

use crate::control::{EvictReport, KeptReport};
use crate::drive::Engine;
use crate::drive::clock::age;
use crate::worker::{Context, Detail, Next, Worker};

/// Room is looked at this often.
const LOOK: Duration = Duration::from_secs(15);
/// The same under a quota, where writers may wait for it.
const LOOK_QUOTA: Duration = Duration::from_millis(500);

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
        // What the machine that took the drive over gives up is in the snapshot of this one still.
        if self.engine.overtaken().is_some() {
            return Ok(Next::After(LOOK));
        }
        let dropped = self.engine.blocking(make_room).await??;
        if dropped > 0 {
            tracing::info!(dropped, "local copies of what is safe were dropped");
        }
        Ok(Next::After(if self.engine.policy.quota_bytes.is_some() { LOOK_QUOTA } else { LOOK }))
    }

    async fn wait(&mut self) {
        tokio::time::sleep(LOOK).await;
    }
}

/// Oldest pieces first, until the owner's limits are kept. Returns how many went.
fn make_room(engine: &Engine) -> anyhow::Result<u64> {
    let mut excess = match engine.policy.local_bytes_max {
        Some(max) => engine.drive.usage()?.piece_bytes_local.saturating_sub(max),
        None => 0,
    };
    if let Some((low, high)) = engine.policy.evict_between() {
        let free = engine.drive.pressure().free_bytes;
        if free < low {
            excess = excess.max(high.saturating_sub(free));
        }
    }
    let mut dropped = 0;
    if excess == 0 {
        return Ok(dropped);
    }
    for piece in engine.drive.pieces()?.into_iter().filter(|piece| piece.local) {
        if excess == 0 {
            break;
        }
        match evict(engine, &piece)? {
            None => {
                excess = excess.saturating_sub(piece.raw_len);
                dropped += 1;
            }
            Some(reason) => tracing::debug!(reason, "piece stays"),
        }
    }
    Ok(dropped)
}

/// Drops one local copy, or says why it stays.
fn evict(engine: &Engine, piece: &PieceInfo) -> anyhow::Result<Option<&'static str>> {
    let wanted = engine.wanted(&piece.id);
    let (counting, proven_at) = engine.ledger.counting(&piece.id);
    let published = engine.head.published_sequence().unwrap_or(0);
    if piece.checkpoint {
        return Ok(Some("the head needs it at each change"));
    }
    if piece.commit_sequence == 0 || piece.commit_sequence > published {
        return Ok(Some("no published head reaches it"));
    }
    if counting < wanted || engine.ledger.head_copies() < wanted {
        return Ok(Some("too few providers hold it"));
    }
    let now = engine.now();
    if proven_at.is_none_or(|at| age(now, at) > engine.policy.evict_proven_seconds_max) {
        return Ok(Some("its providers were not audited of late"));
    }
    match engine.drive.evict_piece(piece.id) {
        Ok(()) => Ok(None),
        Err(DriveError::NotEvictable { reason, .. }) => Ok(Some(reason)),
        Err(error) => Err(error.into()),
    }
}

/// What the owner asked for: local copies of all that is safe, or of the pieces that hold the data of `inos`.
pub fn evict_now(engine: &Engine, inos: &[u64]) -> anyhow::Result<EvictReport> {
    let mut report = EvictReport::default();
    let mut only: Option<BTreeMap<_, u64>> = None;
    for ino in inos {
        let holding = engine.drive.holding(*ino)?;
        report.staged_files += holding.staged_files;
        only.get_or_insert_default().extend(holding.pieces);
    }
    let mut kept: BTreeMap<&'static str, KeptReport> = BTreeMap::new();
    for piece in engine.drive.pieces()? {
        if !piece.local || only.as_ref().is_some_and(|only| !only.contains_key(&piece.id)) {
            continue;
        }
        // Nobody asks for the daemon's own.
        if piece.checkpoint {
            continue;
        }
        match evict(engine, &piece)? {
            None => {
                report.evicted_pieces += 1;
                report.evicted_bytes += piece.raw_len;
            }
            Some(reason) => {
                let kept = kept.entry(reason).or_insert_with(|| KeptReport {
                    reason: reason.to_owned(),
                    pieces: 0,
                    bytes: 0,
                });
                kept.pieces += 1;
                kept.bytes += piece.raw_len;
            }
        }
    }
    report.kept = kept.into_values().collect();
    report.local_bytes = engine.drive.usage()?.piece_bytes_local;
    Ok(report)
}
