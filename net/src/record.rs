//! Records: the few bytes that lead from the words to the drive (its keyring, its head), kept by every provider of
//! the drive under the drive's name.
//!
//! This crate moves and stores them; what makes one valid, and which of two is higher, [`RecordRules`] decides. A
//! provider keeps exactly one value for each key, the highest that it was ever shown.

use serde::{Deserialize, Serialize};

use crate::codec::CodecError;

/// The longest record. A head's body travels in it, with the tail of the placement log.
pub const RECORD_BYTES_MAX: usize = 512 << 10;
/// The longest name.
pub const RECORD_NAME_BYTES_MAX: usize = 64;

/// What a record is. The numbers are the wire's and the disk's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "u8", into = "u8")]
pub enum RecordKind {
    /// The signed keyring: what cannot be derived from the words.
    Keyring,
    /// The head: which commit is the newest, and where.
    Head,
    /// What a watcher is given: a part of it, under its key and the part's number.
    WatchBundle,
    /// What a watcher did and is about to do: a part of it, likewise.
    WatchLog,
    /// Whose permits a client has taken back ([`crate::permit::Revocations`]), under the client's key.
    Revocations,
}

impl From<RecordKind> for u8 {
    fn from(kind: RecordKind) -> u8 {
        match kind {
            RecordKind::Keyring => 1,
            RecordKind::Head => 2,
            RecordKind::WatchBundle => 3,
            RecordKind::WatchLog => 4,
            RecordKind::Revocations => 5,
        }
    }
}

impl TryFrom<u8> for RecordKind {
    type Error = CodecError;

    fn try_from(number: u8) -> Result<RecordKind, CodecError> {
        match number {
            1 => Ok(RecordKind::Keyring),
            2 => Ok(RecordKind::Head),
            3 => Ok(RecordKind::WatchBundle),
            4 => Ok(RecordKind::WatchLog),
            5 => Ok(RecordKind::Revocations),
            _ => Err(CodecError::Inconsistent("an unknown kind of record")),
        }
    }
}

/// Names a record.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct RecordKey {
    /// What it is.
    #[serde(rename = "k")]
    pub kind: RecordKind,
    /// Whose it is: the drive's name (its public key).
    #[serde(rename = "n", with = "serde_bytes")]
    pub name: Vec<u8>,
}

impl RecordKey {
    /// A key; its name is checked where it is used.
    pub fn new(kind: RecordKind, name: impl Into<Vec<u8>>) -> RecordKey {
        RecordKey { kind, name: name.into() }
    }

    /// Checks the name's length.
    pub fn validate(&self) -> Result<(), CodecError> {
        match self.name.len() {
            1..=RECORD_NAME_BYTES_MAX => Ok(()),
            len => Err(CodecError::TooLong { len, max: RECORD_NAME_BYTES_MAX }),
        }
    }
}

/// What the rules say about a new value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RecordVerdict {
    /// Valid, and higher than what is there (or nothing is).
    Higher,
    /// Valid, and the same as what is there, or lower: what is there stays, and is the answer.
    NotHigher,
    /// Not a record of that name: a bad signature, a wrong format.
    Invalid(String),
}

/// Decides about records. Given by the daemon, which knows the formats; must be pure and quick.
pub trait RecordRules: Send + Sync {
    /// Judges `new` for `key`, beside the value kept now. What is kept was judged [`RecordVerdict::Higher`] once.
    fn judge(&self, key: &RecordKey, new: &[u8], kept: Option<&[u8]>) -> RecordVerdict;
}

/// Rules for tests and tools: a record is an 8-byte big-endian number and anything after; the greater number wins.
#[derive(Debug, Default, Clone, Copy)]
pub struct NumberedRecords;

impl RecordRules for NumberedRecords {
    fn judge(&self, _key: &RecordKey, new: &[u8], kept: Option<&[u8]>) -> RecordVerdict {
        let number = |bytes: &[u8]| bytes.first_chunk::<8>().map(|b| u64::from_be_bytes(*b));
        match (number(new), kept.and_then(number)) {
            (None, _) => RecordVerdict::Invalid("shorter than its number".into()),
            (Some(new), Some(kept)) if new <= kept => RecordVerdict::NotHigher,
            _ => RecordVerdict::Higher,
        }
    }
}
