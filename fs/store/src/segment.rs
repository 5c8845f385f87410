//! Segments: files of the log, their headers, names and keys.
//!
//! A segment is made under a temporary name, its header is synced, then it gets its name: a file with a segment's name has
//! a whole header, or was damaged since. Its key is new and wrapped in the header under the store's log key.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::{Mutex, RwLock};
use zeroize::Zeroize;

use crate::ambient::NoncePool;
use crate::cipher::{LongCipher, SegmentCipher, Suite};
use crate::error::Result;
use crate::medium::{MediumFile, StorageMedium, read_exact_at, write_all_at};
use crate::{Lsn, StoreError};

/// Room of the header; records begin after it.
pub(crate) const HEADER_BYTES: usize = 4096;
const HEADER_USED: usize = CLEAR_BYTES + WRAPPED_BYTES;
const CLEAR_BYTES: usize = 64;
const WRAPPED_BYTES: usize = 32 + crate::cipher::LONG_OVERHEAD;
const MAGIC: [u8; 4] = *b"HFsg";
pub(crate) const VERSION: u8 = 2;
/// From this version on records may delete ranges of keys. All else is as it was in version 1.
pub(crate) const VERSION_WITH_RANGES: u8 = 2;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub(crate) enum Kind {
    /// Records, in order.
    Log = 1,
    /// Payloads that were too large for a record.
    Data = 2,
}

impl Kind {
    pub(crate) fn prefix(self) -> &'static str {
        match self {
            Kind::Log => "log",
            Kind::Data => "data",
        }
    }
}

/// What the clear part of a header says. The wrapped key authenticates it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) version: u8,
    pub(crate) kind: Kind,
    pub(crate) suite: Suite,
    pub(crate) store_id: [u8; 16],
    pub(crate) number: u64,
    /// Which start of the store made it. Grows by one with each.
    pub(crate) epoch: u64,
    /// The first record of that epoch: records of earlier epochs from here on were never recovered and are void.
    pub(crate) epoch_first_lsn: Lsn,
    pub(crate) size: u64,
}

/// A segment in use.
pub(crate) struct Segment {
    pub(crate) header: Header,
    pub(crate) cipher: SegmentCipher,
    /// Marks the beginning of a record, so that intact ones are found behind a damaged one. Differs by segment: what an
    /// earlier use of the file left behind does not carry it.
    pub(crate) mark: [u8; 4],
    /// Exchanged when a failed sync made us write the segment anew.
    pub(crate) file: RwLock<Arc<dyn MediumFile>>,
    /// What was written and is not known to be durable, in order of writing.
    pub(crate) retained: Mutex<Vec<Retained>>,
    /// Payloads that lie here and whose record does not exist yet.
    pub(crate) in_flight: AtomicUsize,
    /// Threads that are writing here now.
    pub(crate) writers: AtomicUsize,
}

/// Bytes that a failed sync would need again.
pub(crate) struct Retained {
    pub(crate) offset: u64,
    pub(crate) bytes: Vec<u8>,
    /// The file took them all: a sync that begins from here on covers them.
    pub(crate) written: bool,
}

impl Segment {
    pub(crate) fn number(&self) -> u64 {
        self.header.number
    }

    pub(crate) fn name(&self) -> String {
        file_name(self.header.kind, self.header.number)
    }

    pub(crate) fn file(&self) -> Arc<dyn MediumFile> {
        self.file.read().clone()
    }

    pub(crate) fn read(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        let file = self.file();
        read_exact_at(&*file, buf, offset).map_err(|error| StoreError::io("read", &self.name(), error))
    }

    pub(crate) fn is_in_flight(&self) -> bool {
        self.in_flight.load(Ordering::Acquire) > 0
    }
}

pub(crate) fn file_name(kind: Kind, number: u64) -> String {
    format!("{}-{number:016x}", kind.prefix())
}

/// A dead segment, kept for its blocks.
pub(crate) fn free_name(kind: Kind, number: u64) -> String {
    format!("free-{}-{number:016x}", kind.prefix())
}

/// A segment that is being made. Its remains are removed at the next start.
pub(crate) fn new_name(kind: Kind, number: u64) -> String {
    format!("new-{}-{number:016x}", kind.prefix())
}

/// What a file name in the log folder stands for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum FileName {
    Segment(Kind, u64),
    Free(Kind, u64),
    Unfinished,
    Foreign,
}

pub(crate) fn parse_name(name: &str) -> FileName {
    let parse = |rest: &str| {
        let (prefix, digits) = rest.split_once('-')?;
        let kind = [Kind::Log, Kind::Data].into_iter().find(|kind| kind.prefix() == prefix)?;
        if digits.len() != 16 || digits.bytes().any(|b| !matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
            return None;
        }
        Some((kind, u64::from_str_radix(digits, 16).ok()?))
    };
    if name.starts_with("new-") {
        return FileName::Unfinished;
    }
    if let Some(rest) = name.strip_prefix("free-") {
        return parse(rest).map_or(FileName::Foreign, |(kind, number)| FileName::Free(kind, number));
    }
    parse(name).map_or(FileName::Foreign, |(kind, number)| FileName::Segment(kind, number))
}

/// Encodes a header with a fresh key; gives both.
pub(crate) fn seal_header(
    header: &Header,
    wrap: &LongCipher,
    nonces: &NoncePool,
) -> Result<(Vec<u8>, [u8; 32])> {
    let mut bytes = Vec::with_capacity(HEADER_BYTES);
    bytes.extend_from_slice(&MAGIC);
    bytes.extend_from_slice(&[header.version, header.suite as u8, header.kind as u8, 0]);
    bytes.extend_from_slice(&header.store_id);
    for number in [header.number, header.epoch, header.epoch_first_lsn, header.size] {
        bytes.extend_from_slice(&number.to_le_bytes());
    }
    bytes.resize(CLEAR_BYTES, 0);
    let clear = bytes.clone();
    let key = nonces.key();
    wrap.seal(nonces.take(), &clear, &key, &mut bytes)?;
    bytes.resize(HEADER_BYTES, 0);
    Ok((bytes, key))
}

/// Why a header could not be read.
#[derive(Debug)]
pub(crate) enum HeaderError {
    Newer(u8),
    /// The clear part is well-formed, the key does not open: another key, or damage.
    Sealed,
    Malformed,
}

pub(crate) fn open_header(bytes: &[u8], wrap: &LongCipher) -> Result<(Header, [u8; 32]), HeaderError> {
    let clear = bytes.get(..CLEAR_BYTES).ok_or(HeaderError::Malformed)?;
    let wrapped = bytes.get(CLEAR_BYTES..HEADER_USED).ok_or(HeaderError::Malformed)?;
    if clear[..4] != MAGIC {
        return Err(HeaderError::Malformed);
    }
    let version = clear[4];
    if version > VERSION {
        return Err(HeaderError::Newer(version));
    }
    let opened = wrap.open(clear, wrapped).ok_or(HeaderError::Sealed)?;
    let key = <[u8; 32]>::try_from(opened.as_slice()).map_err(|_| HeaderError::Malformed)?;
    let number_at = |at: usize| {
        let mut number = [0; 8];
        number.copy_from_slice(&clear[at..at + 8]);
        u64::from_le_bytes(number)
    };
    let mut store_id = [0; 16];
    store_id.copy_from_slice(&clear[8..24]);
    let header = Header {
        version,
        suite: Suite::from_number(clear[5]).ok_or(HeaderError::Newer(clear[5]))?,
        kind: match clear[6] {
            1 => Kind::Log,
            2 => Kind::Data,
            _ => return Err(HeaderError::Malformed),
        },
        store_id,
        number: number_at(24),
        epoch: number_at(32),
        epoch_first_lsn: number_at(40),
        size: number_at(48),
    };
    Ok((header, key))
}

/// A segment of which header and file are at hand.
pub(crate) fn assemble(header: Header, mut key: [u8; 32], file: Arc<dyn MediumFile>) -> Segment {
    let mark_key = blake3::derive_key("holdfast store 2026 record mark v1", &key);
    let cipher = SegmentCipher::new(header.suite, &key);
    key.zeroize();
    Segment {
        cipher,
        mark: [mark_key[0], mark_key[1], mark_key[2], mark_key[3]],
        file: RwLock::new(file),
        retained: Mutex::new(Vec::new()),
        in_flight: AtomicUsize::new(0),
        writers: AtomicUsize::new(0),
        header,
    }
}

/// Writes zeros over `from..to`: blocks that exist and were written cost a sync no journal commit.
pub(crate) fn write_zeros(file: &dyn MediumFile, from: u64, to: u64) -> std::io::Result<()> {
    let zeros = vec![0; 1 << 20];
    let mut at = from;
    while at < to {
        let len = (to - at).min(zeros.len() as u64) as usize;
        write_all_at(file, &zeros[..len], at)?;
        at += len as u64;
    }
    Ok(())
}

/// Removes a file of which nothing is needed; one that is not there is fine.
pub(crate) fn remove_quietly(medium: &dyn StorageMedium, name: &str) {
    if let Err(error) = medium.remove(name) {
        tracing::debug!(name, %error, "a leftover of the log could not be removed");
    }
}
