//! Transactions: lists of after-images that become one record, all or nothing.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;

use crate::key::{Key, Span};
use crate::payload::Staged;
use crate::{Lsn, Table};

/// A value that is known only once the record has its number.
pub(crate) type LsnValue = Box<dyn FnOnce(Lsn) -> Vec<u8> + Send>;

/// What becomes of one key.
pub(crate) enum Image {
    Delete,
    Put(Bytes),
    WithLsn(LsnValue),
    /// The key is completed by the newest cut.
    AfterCut(Bytes),
}

/// Changes that are committed together. Where a key appears twice, the later image counts.
///
/// Rows are after-images, never increments: a record may be replayed any number of times. Only payload reference counts
/// are given as changes, and the store turns them into after-images in the order of records.
#[derive(Default)]
pub struct Txn {
    pub(crate) ops: Vec<(Key, Image)>,
    pub(crate) ranges: Vec<Span>,
    pub(crate) payload: Option<(Payload, u32)>,
    pub(crate) refs: BTreeMap<Lsn, i64>,
}

impl Txn {
    pub fn new() -> Self {
        Txn::default()
    }

    /// Sets a row. `Table::Payload` is the store's own and is refused at commit.
    pub fn put(&mut self, table: Table, key: impl AsRef<[u8]>, value: impl Into<Bytes>) -> &mut Self {
        self.ops.push((Key::new(table, key.as_ref()), Image::Put(value.into())));
        self
    }

    /// Removes a row; removing an absent one is no error.
    pub fn delete(&mut self, table: Table, key: impl AsRef<[u8]>) -> &mut Self {
        self.ops.push((Key::new(table, key.as_ref()), Image::Delete));
        self
    }

    /// Removes all rows from the key `from` on and below `to`, in one step however many there are. It comes before all single rows of the transaction,
    /// wherever it is said: a row of it in the range stands. Only of tables that allow it ([`Table::has_ranges`]), beside no payload, and not more than
    /// `limits::TXN_RANGES_MAX` of them.
    pub fn delete_range(&mut self, table: Table, from: impl AsRef<[u8]>, to: impl AsRef<[u8]>) -> &mut Self {
        self.ranges.extend(Span::new(Key::new(table, from.as_ref()), Key::new(table, to.as_ref())));
        self
    }

    /// Sets a row whose value contains the record's own LSN. `f` runs while no other record can be made: it must be short
    /// and must not call the store.
    pub fn put_with_lsn(
        &mut self,
        table: Table,
        key: impl AsRef<[u8]>,
        f: impl FnOnce(Lsn) -> Vec<u8> + Send + 'static,
    ) -> &mut Self {
        self.ops.push((Key::new(table, key.as_ref()), Image::WithLsn(Box::new(f))));
        self
    }

    /// Sets a row whose key begins with the LSN of the newest cut (`Store::cut`), 8 bytes, big-endian; `key` follows. So rows of
    /// records up to a cut and rows of records after it never share a key: the former are one range, and nobody adds to it.
    pub fn put_after_cut(
        &mut self,
        table: Table,
        key: impl AsRef<[u8]>,
        value: impl Into<Bytes>,
    ) -> &mut Self {
        self.ops.push((Key::new(table, key.as_ref()), Image::AfterCut(value.into())));
        self
    }

    /// Attaches the record's payload, with one reference. A record has at most one; the last call counts.
    pub fn payload(&mut self, payload: Payload) -> &mut Self {
        self.payload_with_refs(payload, 1)
    }

    /// Attaches the record's payload with `refs` references (1 to 2^24 - 1), for a write that makes several extents at once.
    pub fn payload_with_refs(&mut self, payload: Payload, refs: u32) -> &mut Self {
        self.payload = Some((payload, refs.clamp(1, (1 << 24) - 1)));
        self
    }

    /// One more row refers to the payload of record `lsn`.
    pub fn retain(&mut self, lsn: Lsn) -> &mut Self {
        *self.refs.entry(lsn).or_insert(0) += 1;
        self
    }

    /// One row less refers to the payload of record `lsn`; the last release lets its space go.
    pub fn release(&mut self, lsn: Lsn) -> &mut Self {
        *self.refs.entry(lsn).or_insert(0) -= 1;
        self
    }

    /// Appends all that `other` holds. At most one of both may have a payload; that of `other` wins.
    pub fn append(&mut self, other: Txn) -> &mut Self {
        self.ops.extend(other.ops);
        self.ranges.extend(other.ranges);
        for (lsn, change) in other.refs {
            *self.refs.entry(lsn).or_insert(0) += change;
        }
        if other.payload.is_some() {
            self.payload = other.payload;
        }
        self
    }

    /// Whether a commit would write nothing.
    pub fn is_empty(&self) -> bool {
        self.ops.is_empty()
            && self.ranges.is_empty()
            && self.payload.is_none()
            && self.refs.values().all(|change| *change == 0)
    }

    /// Number of row changes so far.
    pub fn len(&self) -> usize {
        self.ops.len()
    }

    /// Whether a payload is attached.
    pub fn has_payload(&self) -> bool {
        self.payload.is_some()
    }
}

/// File data on its way into a record: made by `Store::stage_payload`, spent by `Txn::payload`.
///
/// Small ones travel inside the record. Large ones already lie in a data segment; if the transaction never comes, their
/// space returns with the segment.
#[derive(Clone)]
pub struct Payload(pub(crate) PayloadKind);

#[derive(Clone)]
pub(crate) enum PayloadKind {
    Inline(Bytes),
    Staged(Arc<Staged>),
}

impl Payload {
    /// Length of the plaintext.
    pub fn len(&self) -> usize {
        match &self.0 {
            PayloadKind::Inline(bytes) => bytes.len(),
            PayloadKind::Staged(staged) => staged.place.len as usize,
        }
    }

    /// Never true: empty payloads are refused when staged.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}
