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
    /// The highest claim of a term that the provider granted ([`crate::term`]); under the head's name. Claimed, never put.
    Claim,
    /// What a watcher is given: a part of it, under its key and the part's number.
    WatchBundle,
    /// What a watcher did and is about to do: a part of it, likewise.
    WatchLog,
    /// Whose permits a client has taken back ([`crate::permit::Revocations`]), under the client's key.
    Revocations,
    /// What a private link leads to: a part of it, under the key that the link names and the part's number.
    Share,
}

impl From<RecordKind> for u8 {
    fn from(kind: RecordKind) -> u8 {
        match kind {
            RecordKind::Keyring => 1,
            RecordKind::Head => 2,
            RecordKind::Claim => 3,
            RecordKind::WatchBundle => 4,
            RecordKind::WatchLog => 5,
            RecordKind::Revocations => 6,
            RecordKind::Share => 7,
        }
    }
}

impl TryFrom<u8> for RecordKind {
    type Error = CodecError;

    fn try_from(number: u8) -> Result<RecordKind, CodecError> {
        match number {
            1 => Ok(RecordKind::Keyring),
            2 => Ok(RecordKind::Head),
            3 => Ok(RecordKind::Claim),
            4 => Ok(RecordKind::WatchBundle),
            5 => Ok(RecordKind::WatchLog),
            6 => Ok(RecordKind::Revocations),
            7 => Ok(RecordKind::Share),
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

    /// Of which term a head is, and by whom; `None` where the rules know no terms, or the value is none. Of a head that was kept
    /// the answer may be had without verifying it again.
    fn term(&self, _key: &RecordKey, _head: &[u8]) -> Option<HeadTerm> {
        None
    }
}

/// Of which term a head is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeadTerm {
    /// Counts up with every machine that takes the drive over.
    pub term: u64,
    /// Who holds it; `None` for a head of a program that knew no claims.
    pub writer: Option<[u8; 32]>,
}

/// Rules for tests and tools: a record is an 8-byte big-endian number and anything after; the greater number wins. Of a head the
/// upper half of the number is the term, and the 32 bytes after it, if there are so many, the writer.
#[derive(Debug, Default, Clone, Copy)]
pub struct NumberedRecords;

impl RecordRules for NumberedRecords {
    fn judge(&self, _key: &RecordKey, new: &[u8], kept: Option<&[u8]>) -> RecordVerdict {
        match (number(new), kept.and_then(number)) {
            (None, _) => RecordVerdict::Invalid("shorter than its number".into()),
            (Some(new), Some(kept)) if new <= kept => RecordVerdict::NotHigher,
            _ => RecordVerdict::Higher,
        }
    }

    fn term(&self, _key: &RecordKey, head: &[u8]) -> Option<HeadTerm> {
        let writer = head.get(8..40).and_then(|w| w.try_into().ok());
        number(head).map(|number| HeadTerm { term: number >> 32, writer })
    }
}

fn number(bytes: &[u8]) -> Option<u64> {
    bytes.first_chunk::<8>().map(|b| u64::from_be_bytes(*b))
}
