//! Records: how a transaction looks in a log segment.
//!
//! ```text
//!  0  mark (4)          of the segment
//!  4  total (4)         of the whole record, padding included; a multiple of 16
//!  8  lsn (8)           from 1
//! 16  durable mark (8)  all records up to here were durable when this one was made
//! 24  kind (1)  references of the inline payload at its birth (3)
//! 28  rows (4)          length of the sealed rows without their tag
//! 32  payload (4)       length of the inline payload, 0 if there is none
//! 36  nonce (12)
//! 48  sealed rows, tag (16)      ad = the 48 bytes above
//!     payload frames             ad = place (see payload.rs)
//!     zeros up to `total`
//! ```
//! All integers are little endian. Rows: `count`, then for each `length of key, key, 0 | 1 + length of value, value`, numbers
//! as LEB128. A record whose payload lies in a data segment has the place before the rows, one that deletes ranges has these: their count, then for each
//! `length of key, first key, length of key, the key behind it`.

use bytes::Bytes;

use crate::cipher::{META_FRAME, NONCE_BYTES, SegmentCipher, TAG_BYTES, framed_len};
use crate::key::{Key, Span};
use crate::options::limits;
use crate::payload::{PLACE_BYTES, Place, place_ad};
use crate::segment::{Kind, Segment, VERSION_WITH_RANGES};
use crate::{Lsn, Table};

pub(crate) const RECORD_HEADER_BYTES: usize = 48;
pub(crate) const ALIGN: usize = 16;

/// A row's key with its new value; none deletes.
pub(crate) type Change = (Key, Option<Bytes>);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum RecordKind {
    /// Rows, and a payload if its length says so.
    Rows = 1,
    /// Rows and a payload in a data segment.
    Placed = 2,
    /// Only says how far the log is durable. Takes no number: its lsn is that of the record before it.
    Mark = 3,
    /// A mark that ends the log of a clean close: nothing follows in this epoch.
    Close = 4,
    /// Rows, and ranges of keys that go before these come. In segments of version 2.
    Ranges = 5,
}

/// The clear part, which the seal of the rows authenticates.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RecordHeader {
    pub(crate) total: u32,
    pub(crate) lsn: Lsn,
    pub(crate) durable: Lsn,
    pub(crate) kind: RecordKind,
    pub(crate) rows: u32,
    pub(crate) payload: u32,
    pub(crate) payload_refs: u32,
    pub(crate) nonce: [u8; NONCE_BYTES],
}

/// What a record is made of, before sealing.
pub(crate) struct Draft<'a> {
    pub(crate) lsn: Lsn,
    pub(crate) durable: Lsn,
    pub(crate) kind: RecordKind,
    /// For `Ranges`, and at least one then: what goes before the changes.
    pub(crate) ranges: &'a [Span],
    pub(crate) changes: &'a [Change],
    /// For `Placed`: where the payload lies.
    pub(crate) place: Option<&'a Place>,
    pub(crate) inline: &'a [u8],
    /// References with which the inline payload begins.
    pub(crate) inline_refs: u32,
}

fn varint_len(value: usize) -> usize {
    (usize::BITS - (value | 1).leading_zeros()).div_ceil(7) as usize
}

fn put_varint(out: &mut Vec<u8>, mut value: usize) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn take_varint(bytes: &mut &[u8]) -> Option<usize> {
    let mut value = 0usize;
    for shift in (0..35).step_by(7) {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= usize::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

fn take<'a>(bytes: &mut &'a [u8], len: usize) -> Option<&'a [u8]> {
    let (head, rest) = bytes.split_at_checked(len)?;
    *bytes = rest;
    Some(head)
}

fn put_key(out: &mut Vec<u8>, key: &Key) {
    put_varint(out, key.as_slice().len());
    out.extend_from_slice(key.as_slice());
}

fn take_key(bytes: &mut &[u8]) -> Option<Key> {
    let len = take_varint(bytes)?;
    let key = take(bytes, len)?;
    (!key.is_empty() && len <= limits::KEY_BYTES_MAX + 1).then(|| Key::from_full(key))
}

fn key_len(key: &Key) -> usize {
    let len = key.as_slice().len();
    varint_len(len) + len
}

impl Draft<'_> {
    pub(crate) fn rows_len(&self) -> usize {
        let place = if self.place.is_some() { PLACE_BYTES } else { 0 };
        let ranges = match self.kind {
            RecordKind::Ranges => {
                let each = self.ranges.iter().map(|span| key_len(span.from()) + key_len(span.to()));
                varint_len(self.ranges.len()) + each.sum::<usize>()
            }
            _ => 0,
        };
        let rows: usize = self.changes.iter().map(|(key, value)| change_len(key, value.as_ref())).sum();
        place + ranges + varint_len(self.changes.len()) + rows
    }

    /// Length of the record on disk.
    pub(crate) fn total_len(&self) -> usize {
        record_len(self.rows_len(), self.inline.len())
    }

    /// Where the inline payload begins, from the beginning of the record.
    pub(crate) fn inline_offset(&self) -> usize {
        RECORD_HEADER_BYTES + self.rows_len() + TAG_BYTES
    }

    /// Appends the sealed record, which will stand at `offset` of `segment`. Gives the place of an inline payload.
    pub(crate) fn seal(&self, segment: &Segment, offset: u64, nonce: [u8; NONCE_BYTES], out: &mut Vec<u8>) {
        let begin = out.len();
        let rows = self.rows_len();
        let total = record_len(rows, self.inline.len());
        out.reserve(total);
        out.extend_from_slice(&segment.mark);
        out.extend_from_slice(&(total as u32).to_le_bytes());
        out.extend_from_slice(&self.lsn.to_le_bytes());
        out.extend_from_slice(&self.durable.to_le_bytes());
        let [r0, r1, r2, _] = self.inline_refs.to_le_bytes();
        out.extend_from_slice(&[self.kind as u8, r0, r1, r2]);
        out.extend_from_slice(&(rows as u32).to_le_bytes());
        out.extend_from_slice(&(self.inline.len() as u32).to_le_bytes());
        out.extend_from_slice(&nonce);
        let mut header = [0; RECORD_HEADER_BYTES];
        header.copy_from_slice(&out[begin..]);
        let body = out.len();
        if let Some(place) = self.place {
            out.extend_from_slice(&place.encode());
        }
        if self.kind == RecordKind::Ranges {
            put_varint(out, self.ranges.len());
            for span in self.ranges {
                put_key(out, span.from());
                put_key(out, span.to());
            }
        }
        put_varint(out, self.changes.len());
        for (key, value) in self.changes {
            put_key(out, key);
            match value {
                None => put_varint(out, 0),
                Some(value) => {
                    put_varint(out, value.len() + 1);
                    out.extend_from_slice(value);
                }
            }
        }
        debug_assert_eq!(out.len() - body, rows);
        segment.cipher.seal_tail(nonce, META_FRAME, &header, out, body);
        if !self.inline.is_empty() {
            let at = offset + (out.len() - begin) as u64;
            let ad = place_ad(segment.number(), at, self.inline.len() as u32);
            segment.cipher.seal_frames(nonce, &ad, self.inline, out);
        }
        out.resize(begin + total, 0);
    }
}

fn change_len(key: &Key, value: Option<&Bytes>) -> usize {
    let value = value.map_or(1, |value| varint_len(value.len() + 1) + value.len());
    key_len(key) + value
}

fn record_len(rows: usize, payload: usize) -> usize {
    (RECORD_HEADER_BYTES + rows + TAG_BYTES + framed_len(payload)).next_multiple_of(ALIGN)
}

/// Reads the clear part of what may be a record of `segment`. Believe nothing of it before `open_rows` succeeded, except
/// that its lengths fit each other.
pub(crate) fn parse_header(segment: &Segment, bytes: &[u8; RECORD_HEADER_BYTES]) -> Option<RecordHeader> {
    if segment.header.kind != Kind::Log || bytes[..4] != segment.mark {
        return None;
    }
    let u32_at = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
    let u64_at = |at: usize| u64::from(u32_at(at)) | u64::from(u32_at(at + 4)) << 32;
    let kind = match bytes[24] {
        1 => RecordKind::Rows,
        2 => RecordKind::Placed,
        3 => RecordKind::Mark,
        4 => RecordKind::Close,
        5 if segment.header.version >= VERSION_WITH_RANGES => RecordKind::Ranges,
        _ => return None,
    };
    let mut nonce = [0; NONCE_BYTES];
    nonce.copy_from_slice(&bytes[36..48]);
    let header = RecordHeader {
        total: u32_at(4),
        lsn: u64_at(8),
        durable: u64_at(16),
        kind,
        rows: u32_at(28),
        payload: u32_at(32),
        payload_refs: u32_at(24) >> 8,
        nonce,
    };
    let (rows, payload) = (header.rows as usize, header.payload as usize);
    let fits = rows <= limits::TXN_BYTES_MAX + PLACE_BYTES + limits::VALUE_BYTES_MAX
        && payload <= limits::INLINE_PAYLOAD_BYTES_MAX
        && (kind != RecordKind::Ranges || payload == 0)
        && record_len(rows, payload) == header.total as usize;
    fits.then_some(header)
}

/// What the sealed part of a record says.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Body {
    pub(crate) place: Option<Place>,
    pub(crate) ranges: Vec<Span>,
    pub(crate) changes: Vec<Change>,
}

/// Opens the rows of a record (the whole of it is in `record`). `None` if it is not intact.
pub(crate) fn open_rows(cipher: &SegmentCipher, header: &RecordHeader, record: &mut [u8]) -> Option<Body> {
    let (clear, body) = record.split_first_chunk_mut::<RECORD_HEADER_BYTES>()?;
    let sealed = body.get_mut(..header.rows as usize + TAG_BYTES)?;
    let rows = cipher.open(header.nonce, META_FRAME, clear, sealed)?;
    decode_rows(header.kind, rows)
}

/// Opens the frames of the inline payload, which stands at `at` of its segment; whether all are intact.
pub(crate) fn check_inline(segment: &Segment, header: &RecordHeader, record: &mut [u8], offset: u64) -> bool {
    let from = RECORD_HEADER_BYTES + header.rows as usize + TAG_BYTES;
    let ad = place_ad(segment.number(), offset + from as u64, header.payload);
    let Some(framed) = record.get_mut(from..from + framed_len(header.payload as usize)) else { return false };
    framed
        .chunks_mut(limits::FRAME_BYTES + TAG_BYTES)
        .enumerate()
        .all(|(number, frame)| segment.cipher.open(header.nonce, number as u32, &ad, frame).is_some())
}

/// Total: any bytes give a value or `None`.
pub(crate) fn decode_rows(kind: RecordKind, mut bytes: &[u8]) -> Option<Body> {
    let place = match kind {
        RecordKind::Placed => Some(Place::decode(take(&mut bytes, PLACE_BYTES)?)?),
        RecordKind::Rows | RecordKind::Mark | RecordKind::Close | RecordKind::Ranges => None,
    };
    let mut ranges = Vec::new();
    if kind == RecordKind::Ranges {
        let count = take_varint(&mut bytes)?;
        if !(1..=limits::TXN_RANGES_MAX).contains(&count) {
            return None;
        }
        for _ in 0..count {
            let span = Span::new(take_key(&mut bytes)?, take_key(&mut bytes)?)?;
            ranges.push(span.from().table().is_some_and(Table::has_ranges).then_some(span)?);
        }
    }
    let count = take_varint(&mut bytes)?;
    // A row takes at least two bytes: a false count cannot make us allocate.
    let mut changes = Vec::with_capacity(count.min(bytes.len() / 2));
    for _ in 0..count {
        let key = take_key(&mut bytes)?;
        let value = match take_varint(&mut bytes)? {
            0 => None,
            len => Some(Bytes::copy_from_slice(take(&mut bytes, len - 1)?)),
        };
        changes.push((key, value));
    }
    bytes.is_empty().then_some(Body { place, ranges, changes })
}
