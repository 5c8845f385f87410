//! The storage engine of a drive: one encrypted, checksummed, LSN-ordered log, and an index that is a cache of it.
//!
//! Owns the files of `log/` and `index/` in a home folder. Promises:
//! - `Store::commit` returns when its record and all below it are written: killing the process loses nothing answered.
//! - `Store::sync` returns when the record and all below it are on the medium: cutting the power loses nothing synced.
//! - After any crash the state is that of a prefix of the records, no shorter than what was synced.
//! - Nothing at rest shows a value; keys are opaque to the store and must be so to the reader of its files.
//! - A failed sync is made good by rewriting from memory, or the store turns read-only. It never later claims success.
//!
//! Refuses: to open over damage below the last durable mark except read-only; to begin empty where an index or a log is
//! missing; to know what rows mean.
//!
//! ```text
//! commit ─ encode, seal ─▶ log segment ─ sync ─▶ durable        get, scan ─▶ delta (active, frozen) ─▶ row cache ─▶ index
//!    └──▶ delta ─ freeze ─▶ one batch ─▶ index (RocksDB), applied_lsn ─▶ dead segments are recycled
//! stage_payload (> 64 KiB) ─▶ data segment
//! ```
//!
//! `fs/format/log.md` draws every byte. Orderings that *must* hold (or data is lost):
//! 1. a segment's header is synced before its name appears, its name before its first record;
//! 2. data segments are synced before the log that refers to them;
//! 3. the log is synced up to L before the index is flushed up to L;
//! 4. a segment is retired after the index is flushed past its last record and past the release of its last payload;
//! 5. a retired segment's new name is synced before its bytes are overwritten.

mod ambient;
mod ballast;
mod cache;
mod checkpoint;
mod cipher;
mod commit;
mod delta;
mod error;
mod failpoint;
mod forge;
#[doc(hidden)]
pub mod fuzzing;
mod index;
mod inner;
mod key;
mod ledger;
pub mod medium;
mod options;
mod payload;
mod record;
mod recovery;
mod rescue;
mod segment;
mod snapshot;
mod status;
mod store;
mod sync;
mod table;
mod txn;
mod worker;

pub use ambient::{Clock, Rng, SystemClock, SystemRng};
pub use error::StoreError;
pub use failpoint::{EDGES, FailpointHook, Failpoints};
pub use index::MemoryIndex;
pub use medium::{CrashMedium, FaultMedium, MediumFile, RealMedium, StorageMedium};
pub use options::{IndexKind, RecoveryReport, StoreKeys, StoreOptions, Usage, limits};
pub use snapshot::Snapshot;
pub use store::{Reads, Store};
pub use table::{Direction, KeyRange, Table};
pub use txn::{Payload, Txn};

/// The number of a record. They grow by one, from 1; 0 stands for "nothing yet".
pub type Lsn = u64;

/// Rows with their keys, as scans return them.
pub type Row = (Vec<u8>, bytes::Bytes);

#[cfg(test)]
mod tests;
