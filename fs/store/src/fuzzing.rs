//! Every decoder of the store, as a function of any bytes: what fuzzing and the seeds of `tests/fuzz` call.
//!
//! A seal is no obstacle here: bytes that an attacker could not seal are sealed for the decoder, so that damage that an
//! attacker *with* the key could do is tried too. No file, no thread, no index. A violated promise panics.

use std::sync::{Arc, LazyLock};

use crate::StoreError;
use crate::ambient::{NoncePool, SystemRng};
use crate::checkpoint::IndexState;
use crate::cipher::{LongCipher, META_FRAME, Suite, ValueCipher};
use crate::medium::{CrashMedium, StorageMedium};
use crate::payload::Place;
use crate::record::{self, Draft, RECORD_HEADER_BYTES, RecordKind};
use crate::segment::{self, Header, HeaderError, Kind, Segment};

/// Name and entry of each decoder.
pub const DECODERS: &[(&str, fn(&[u8]))] = &[
    ("store-segment-header", segment_header),
    ("store-segment-name", segment_name),
    ("store-record", record),
    ("store-rows", rows),
    ("store-place", place),
    ("store-index-state", index_state),
    ("store-index-value", index_value),
];

const KEY: [u8; 32] = [7; 32];

/// A log segment whose key and mark never change, so that seeds stay what they are.
static SEGMENT: LazyLock<Option<Segment>> = LazyLock::new(|| {
    let header = Header {
        version: segment::VERSION,
        kind: Kind::Log,
        suite: Suite::ChaCha20Poly1305,
        store_id: [1; 16],
        number: 1,
        epoch: 1,
        epoch_first_lsn: 1,
        size: 1 << 20,
    };
    let file = CrashMedium::new().create("segment").ok()?;
    Some(segment::assemble(header, KEY, file))
});

fn segment_header(bytes: &[u8]) {
    let wrap = LongCipher::new(&KEY);
    let _ = segment::open_header(bytes, &wrap);
    // The same clear part under a seal that fits.
    let mut sealed = bytes.get(..64).unwrap_or_default().to_vec();
    if sealed.len() == 64 && wrap.seal([0; 24], &sealed.clone(), &KEY, &mut sealed).is_ok() {
        let opened = segment::open_header(&sealed, &wrap);
        assert!(!matches!(opened, Err(HeaderError::Sealed)), "a seal that fits does not open");
        if let Ok((_, key)) = opened {
            assert_eq!(key, KEY);
        }
    }
}

fn segment_name(bytes: &[u8]) {
    let Ok(name) = std::str::from_utf8(bytes) else { return };
    match segment::parse_name(name) {
        segment::FileName::Segment(kind, number) => assert_eq!(segment::file_name(kind, number), name),
        segment::FileName::Free(kind, number) => assert_eq!(segment::free_name(kind, number), name),
        segment::FileName::Unfinished | segment::FileName::Foreign => {}
    }
}

/// A record's header, taken as it is but for the mark, and what follows as its rows, sealed.
fn record(bytes: &[u8]) {
    let Some(segment) = SEGMENT.as_ref() else { return };
    let Some((clear, body)) = bytes.split_first_chunk::<RECORD_HEADER_BYTES>() else { return };
    let mut clear = *clear;
    clear[..4].copy_from_slice(&segment.mark);
    let Some(header) = record::parse_header(segment, &clear) else { return };
    let mut sealed = clear.to_vec();
    sealed.extend_from_slice(body);
    assert!(header.total as usize >= RECORD_HEADER_BYTES, "lengths that do not fit each other");
    let _ = record::open_rows(&segment.cipher, &header, &mut sealed.clone());
    sealed.resize(RECORD_HEADER_BYTES + header.rows as usize, 0);
    segment.cipher.seal_tail(header.nonce, META_FRAME, &clear, &mut sealed, RECORD_HEADER_BYTES);
    let _ = record::open_rows(&segment.cipher, &header, &mut sealed);
    let _ = record::check_inline(segment, &header, &mut sealed, 4096);
}

/// Opened rows. What decodes is encoded to a record that decodes to the same.
fn rows(bytes: &[u8]) {
    let Some(segment) = SEGMENT.as_ref() else { return };
    let kinds =
        [RecordKind::Rows, RecordKind::Placed, RecordKind::Mark, RecordKind::Close, RecordKind::Ranges];
    for kind in kinds {
        let Some(body) = record::decode_rows(kind, bytes) else { continue };
        let draft = Draft {
            lsn: 1,
            durable: 0,
            kind,
            ranges: &body.ranges,
            changes: &body.changes,
            place: body.place.as_ref(),
            inline: &[],
            inline_refs: 0,
        };
        let mut sealed = Vec::new();
        draft.seal(segment, 4096, [0; 12], &mut sealed);
        let Some(clear) = sealed.first_chunk::<RECORD_HEADER_BYTES>().copied() else { continue };
        let header = record::parse_header(segment, &clear);
        let again = header.and_then(|header| record::open_rows(&segment.cipher, &header, &mut sealed));
        assert_eq!(again, Some(body), "another value comes back");
    }
}

fn place(bytes: &[u8]) {
    if let Some(place) = Place::decode(bytes) {
        assert_eq!(place.encode().as_slice(), bytes, "two encodings of one place");
    }
}

fn index_state(bytes: &[u8]) {
    if let Ok(state) = IndexState::decode(bytes) {
        let encoded = state.encode();
        assert!(IndexState::decode(&encoded).is_ok_and(|again| again.encode() == encoded));
    }
}

fn index_value(bytes: &[u8]) {
    let cipher = ValueCipher::new(&KEY, Arc::new(NoncePool::new(Arc::new(SystemRng))));
    if let Err(error) = cipher.open(b"key", bytes) {
        assert!(matches!(error, StoreError::Corrupt { .. } | StoreError::NewerFormat { .. }));
    }
}

#[cfg(test)]
mod tests;
