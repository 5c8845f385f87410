//! Tables, ranges of keys, directions: the vocabulary of reads.

use std::ops::Bound;

/// Which kind of row a key belongs to. The numbers are a format: fixed for ever, never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Table {
    /// Counters and single rows of the file system.
    Meta = 1,
    Inode = 2,
    Entry = 3,
    Xattr = 4,
    Extent = 5,
    Chunk = 6,
    Orphan = 7,
    Changed = 8,
    Block = 9,
    Dedup = 10,
    Piece = 11,
    Commit = 12,
    /// Rows of the daemon's workers.
    Jobs = 13,
    /// The store's own: where a payload lies and how many rows refer to it. Callers may read it, only the store writes it.
    Payload = 14,
    /// Inner nodes of files' UnixFS DAGs.
    Dag = 15,
}

impl Table {
    /// Every table, in the order of their numbers.
    pub const ALL: [Table; 15] = [
        Table::Meta,
        Table::Inode,
        Table::Entry,
        Table::Xattr,
        Table::Extent,
        Table::Chunk,
        Table::Orphan,
        Table::Changed,
        Table::Block,
        Table::Dedup,
        Table::Piece,
        Table::Commit,
        Table::Jobs,
        Table::Payload,
        Table::Dag,
    ];

    /// The number on disk.
    pub const fn tag(self) -> u8 {
        self as u8
    }

    /// Whether ranges of its rows can be deleted whole ([`crate::Txn::delete_range`]): rows to which no payloads are accounted, and of which nobody keeps
    /// copies in memory.
    pub const fn has_ranges(self) -> bool {
        matches!(self, Table::Changed)
    }

    /// Whether its rows' keys say all that the rows do, so that their values, the same in all of them, need no seal in the index: that and the room for it
    /// cost more than all else about such a row.
    pub const fn is_said_by_keys(self) -> bool {
        matches!(self, Table::Changed)
    }

    /// The table of a number read from disk.
    pub fn from_tag(tag: u8) -> Option<Table> {
        Table::ALL.iter().copied().find(|table| table.tag() == tag)
    }
}

/// A range of keys inside one table, in byte order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyRange {
    pub start: Bound<Vec<u8>>,
    pub end: Bound<Vec<u8>>,
}

impl KeyRange {
    /// The whole table.
    pub fn all() -> Self {
        KeyRange { start: Bound::Unbounded, end: Bound::Unbounded }
    }

    /// All keys that begin with `prefix`.
    pub fn prefix(prefix: impl Into<Vec<u8>>) -> Self {
        let start = prefix.into();
        let end = match successor(&start) {
            Some(end) => Bound::Excluded(end),
            None => Bound::Unbounded,
        };
        KeyRange { start: Bound::Included(start), end }
    }

    /// `start` itself and all after it.
    pub fn from(start: impl Into<Vec<u8>>) -> Self {
        KeyRange { start: Bound::Included(start.into()), end: Bound::Unbounded }
    }

    /// `start <= key < end`.
    pub fn between(start: impl Into<Vec<u8>>, end: impl Into<Vec<u8>>) -> Self {
        KeyRange { start: Bound::Included(start.into()), end: Bound::Excluded(end.into()) }
    }

    /// The same range, continued after `key` (which was the last one seen, forward).
    pub fn after(mut self, key: impl Into<Vec<u8>>) -> Self {
        self.start = Bound::Excluded(key.into());
        self
    }

    /// The same range, continued before `key` (which was the last one seen, in reverse).
    pub fn before(mut self, key: impl Into<Vec<u8>>) -> Self {
        self.end = Bound::Excluded(key.into());
        self
    }
}

/// The least byte string that is greater than all that begin with `prefix`; none if there is no such.
pub(crate) fn successor(prefix: &[u8]) -> Option<Vec<u8>> {
    let last = prefix.iter().rposition(|byte| *byte != 0xff)?;
    let mut next = prefix.get(..=last)?.to_vec();
    if let Some(byte) = next.last_mut() {
        *byte += 1;
    }
    Some(next)
}

/// The order in which a scan returns keys, and from which end its limit counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    Forward,
    Reverse,
}
