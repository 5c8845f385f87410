//! Index keys: the table's number and the row's key in one byte string.
//!
//! Keys of the file system have at most 29 bytes (table, inode, offset and the like), and the delta compares millions of
//! them. So short ones live inside the struct, beside their length, and a comparison follows no pointer.

use std::borrow::Borrow;
use std::cmp::Ordering;
use std::hash::{Hash, Hasher};

use crate::{Lsn, Table};

/// The longest key that is kept without an allocation: what fits into 32 bytes beside a tag and a length.
const INLINE_MAX: usize = 30;

/// A full key: `table tag, row key`.
#[derive(Clone)]
pub(crate) enum Key {
    Inline(u8, [u8; INLINE_MAX]),
    Heap(Box<[u8]>),
}

impl Key {
    pub(crate) fn new(table: Table, row: &[u8]) -> Self {
        let len = row.len() + 1;
        if len <= INLINE_MAX {
            let mut bytes = [0; INLINE_MAX];
            bytes[0] = table.tag();
            bytes[1..len].copy_from_slice(row);
            return Key::Inline(len as u8, bytes);
        }
        let mut bytes = Vec::with_capacity(len);
        bytes.push(table.tag());
        bytes.extend_from_slice(row);
        Key::Heap(bytes.into_boxed_slice())
    }

    /// A key as it stands in the index or in a record: its first byte is the table's number.
    pub(crate) fn from_full(full: &[u8]) -> Self {
        if full.len() <= INLINE_MAX {
            let mut bytes = [0; INLINE_MAX];
            bytes[..full.len()].copy_from_slice(full);
            return Key::Inline(full.len() as u8, bytes);
        }
        Key::Heap(full.into())
    }

    /// The same row under a cut: the cut's number (8 bytes, big-endian) before the row's key.
    pub(crate) fn after_cut(&self, cut: Lsn) -> Self {
        let (table, row) = self.as_slice().split_at(1);
        Key::from_full(&[table, &cut.to_be_bytes(), row].concat())
    }

    pub(crate) fn table(&self) -> Option<Table> {
        self.as_slice().first().and_then(|tag| Table::from_tag(*tag))
    }

    pub(crate) fn as_slice(&self) -> &[u8] {
        match self {
            Key::Inline(len, bytes) => &bytes[..usize::from(*len)],
            Key::Heap(bytes) => bytes,
        }
    }

    /// Bytes outside the struct.
    pub(crate) fn heap_len(&self) -> usize {
        match self {
            Key::Inline(..) => 0,
            Key::Heap(bytes) => bytes.len(),
        }
    }
}

/// Keys of one table, from the first one on and below the second.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Span {
    from: Key,
    to: Key,
}

impl Span {
    /// `None`: nothing can lie between these, or they are of two tables.
    pub(crate) fn new(from: Key, to: Key) -> Option<Self> {
        let is_span = from < to && from.as_slice().first() == to.as_slice().first();
        is_span.then_some(Span { from, to })
    }

    pub(crate) fn from(&self) -> &Key {
        &self.from
    }

    pub(crate) fn to(&self) -> &Key {
        &self.to
    }

    pub(crate) fn contains(&self, key: &[u8]) -> bool {
        self.from.as_slice() <= key && key < self.to.as_slice()
    }
}

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        self.as_slice() == other.as_slice()
    }
}
impl Eq for Key {}
impl PartialOrd for Key {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Key {
    fn cmp(&self, other: &Self) -> Ordering {
        self.as_slice().cmp(other.as_slice())
    }
}
impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.as_slice().hash(state)
    }
}
impl Borrow<[u8]> for Key {
    fn borrow(&self) -> &[u8] {
        self.as_slice()
    }
}
impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Key({:02x?})", self.as_slice())
    }
}
