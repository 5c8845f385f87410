//! Where `fs` and `net` meet: the adapters between their traits, and nothing else.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use holdfast_fs::drive::jobs::Jobs;
use holdfast_fs::drive::types::{DurabilitySource, PieceDurability};

use crate::drive::Engine;
use crate::drive::clock::age;
use crate::drive::ledger::{PieceId, RowError, RowStore};

/// The ledger's rows in the drive's own log.
pub struct JobRows(pub Jobs);

impl RowStore for JobRows {
    fn scan(&self, prefix: &[u8]) -> Result<Vec<(Vec<u8>, Vec<u8>)>, RowError> {
        let rows = self.0.scan(prefix).map_err(|e| RowError(e.to_string()))?;
        Ok(rows.into_iter().map(|(k, v)| (k, v.to_vec())).collect())
    }

    fn commit(&self, rows: Vec<(Vec<u8>, Option<Vec<u8>>)>) -> Result<(), RowError> {
        self.0.commit(&rows).map_err(|e| RowError(e.to_string()))
    }
}

/// What the network holds, for the durability ladder of the file system. Weak: the engine owns the drive that asks.
pub struct EngineDurability(pub std::sync::Weak<Engine>);

impl DurabilitySource for EngineDurability {
    fn piece(&self, piece: PieceId) -> PieceDurability {
        let Some(engine) = self.0.upgrade() else { return PieceDurability::default() };
        let (counting, proven_at) = engine.ledger.counting(&piece);
        let counting = counting.min(engine.ledger.head_copies());
        let (now, fresh) = (engine.now(), engine.audit_interval().saturating_mul(2));
        PieceDurability {
            holders_counting: u8::try_from(counting).unwrap_or(u8::MAX),
            proven_at: proven_at.filter(|at| age(now, *at) <= fresh),
        }
    }

    fn published_sequence(&self) -> Option<u64> {
        self.0.upgrade()?.head.published_sequence()
    }

    fn shared_blocks(&self) -> Option<Vec<[u8; 32]>> {
        crate::share::owner::blocks(&*self.0.upgrade()?)
    }

    fn sent_bytes(&self) -> u64 {
        self.0.upgrade().map_or(0, |engine| engine.sent_bytes.load(Ordering::Relaxed))
    }
}

/// The source for `engine`.
pub fn durability_of(engine: &Arc<Engine>) -> Arc<EngineDurability> {
    Arc::new(EngineDurability(Arc::downgrade(engine)))
}
