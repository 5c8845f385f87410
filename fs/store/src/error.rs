//! What can go wrong in the store, typed.
//!
//! Owns the one error type of this crate and the judgement whether trying again can help. errno is chosen by the caller,
//! who knows what was asked for.

use std::io;
use std::sync::Arc;

use crate::Lsn;

/// Every failure of the store. `Clone`, because one failed sync answers all who waited for it.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// The medium failed. `op` says at which step, `name` on which file.
    #[error("{op} of {name}: {source}")]
    Io {
        op: &'static str,
        name: String,
        #[source]
        source: Arc<io::Error>,
    },
    /// No room for another segment. Nothing of the transaction happened.
    #[error("no space left for {what}")]
    NoSpace { what: &'static str },
    /// The store takes no more changes; reads go on. It stays so until it is opened again.
    #[error("the store is read-only: {reason}")]
    ReadOnly { reason: String },
    /// Bytes at rest are not what was written there.
    #[error("corrupt store: {what}")]
    Corrupt { what: String },
    /// No segment header, or not the index, opens under the given key.
    #[error("the store does not open under this key")]
    WrongKey,
    /// Written by a newer version of this program.
    #[error("{what} has format {found}, this program knows up to {known}: use a newer version")]
    NewerFormat { what: String, found: u8, known: u8 },
    /// The index is gone and the log does not reach back to the first record.
    #[error("the index is missing and the log begins only at record {log_from}")]
    IndexMissing { log_from: Lsn },
    /// The index belongs to another store than the log.
    #[error("the index and the log belong to different stores")]
    IndexForeign,
    /// The log lacks records that the index does not have yet.
    #[error("the index stands at record {applied}, the log begins only at {log_from}")]
    IndexBehind { applied: Lsn, log_from: Lsn },
    /// The index has records, but there is no log.
    #[error("the log is missing, the index stands at record {applied}")]
    LogMissing { applied: Lsn },
    /// The index's files are damaged; the text is the index's own. The log is not, as far as is known.
    #[error("the index is damaged: {0}")]
    IndexDamaged(String),
    /// The index failed; the text is the index's own.
    #[error("index: {0}")]
    Index(String),
    /// The payload was released (or never was). Whoever raced with a release reads its rows again.
    #[error("payload {0} is not in the store")]
    PayloadGone(Lsn),
    /// More references were released than are held. The transaction was refused whole.
    #[error("payload {0} would fall below zero references")]
    OverRelease(Lsn),
    /// A read beyond the end of a payload.
    #[error("read of {len} bytes at {skip} is outside payload {lsn}")]
    PayloadRange { lsn: Lsn, skip: u64, len: usize },
    /// One of the limits in `limits` was exceeded; nothing happened.
    #[error("{what} of {size} bytes is over the limit of {max}")]
    TooLarge { what: &'static str, size: usize, max: usize },
    /// A transaction wrote to the table that the store keeps for itself.
    #[error("the payload table is written by the store alone")]
    ReservedTable,
    /// A transaction deletes ranges of a table of which only single rows go, more ranges than the limit, or ranges beside a payload. Nothing happened.
    #[error("such ranges of rows are not deleted in one transaction")]
    RangesRefused,
    /// `sync` was asked for a record that does not exist yet.
    #[error("record {0} does not exist")]
    UnknownLsn(Lsn),
    /// Another process has this store open.
    #[error("{0} is in use by another process")]
    InUse(String),
    /// The store was closed.
    #[error("the store is closed")]
    Closed,
}

impl StoreError {
    /// Whether the same call may succeed later without anybody repairing anything.
    pub fn is_retryable(&self) -> bool {
        matches!(self, StoreError::NoSpace { .. } | StoreError::PayloadGone(_) | StoreError::InUse(_))
    }

    pub(crate) fn io(op: &'static str, name: &str, source: io::Error) -> Self {
        if is_no_space(&source) {
            return StoreError::NoSpace { what: op };
        }
        StoreError::Io { op, name: name.to_owned(), source: Arc::new(source) }
    }

    pub(crate) fn corrupt(what: impl Into<String>) -> Self {
        StoreError::Corrupt { what: what.into() }
    }
}

/// ENOSPC and EDQUOT: the disk is full, not broken.
pub(crate) fn is_no_space(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOSPC) | Some(libc::EDQUOT))
        || error.kind() == io::ErrorKind::StorageFull
}

pub(crate) type Result<T, E = StoreError> = std::result::Result<T, E>;
