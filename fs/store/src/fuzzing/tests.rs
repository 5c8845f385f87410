#![allow(clippy::unwrap_used)]

use super::*;
use crate::Table;
use crate::key::{Key, Span};
use crate::ledger::Ledger;
use bytes::Bytes;

/// The first seeds of each decoder are valid values: they must still be among the committed ones, and still be accepted as
/// what they are. `HOLDFAST_BLESS=1` adds what is missing.
fn seed(name: &str, bytes: &[u8]) {
    let path = format!("{}/../../tests/fuzz/seeds/{name}.hex", env!("CARGO_MANIFEST_DIR"));
    let line: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    let mut seeds = std::fs::read_to_string(&path).unwrap_or_default();
    if !seeds.lines().any(|seed| seed == line) && std::env::var_os("HOLDFAST_BLESS").is_some() {
        seeds.push_str(&format!("{line}\n"));
        std::fs::write(&path, &seeds).unwrap();
    }
    assert!(seeds.lines().any(|seed| seed == line), "{path} lacks a valid value: its format has changed");
    let decoder = DECODERS.iter().find(|(known, _)| *known == name).unwrap().1;
    decoder(bytes);
}

#[test]
fn valid_values_are_seeds() {
    let mut header = Header {
        version: segment::VERSION,
        kind: Kind::Data,
        suite: Suite::Aes256Gcm,
        store_id: [1; 16],
        number: 3,
        epoch: 2,
        epoch_first_lsn: 9,
        size: 1 << 20,
    };
    let nonces = NoncePool::new(Arc::new(SystemRng));
    let (bytes, _) = segment::seal_header(&header, &LongCipher::new(&KEY), &nonces).unwrap();
    // What follows the clear part is random.
    seed("store-segment-header", &bytes[..64]);
    header.version = 1;
    let (bytes, _) = segment::seal_header(&header, &LongCipher::new(&KEY), &nonces).unwrap();
    seed("store-segment-header", &bytes[..64]);
    seed("store-segment-name", b"log-00000000000000ff");
    seed("store-segment-name", b"free-data-0000000000000001");

    let place = Place { segment: 2, offset: 4096, len: 70_000, refs: 2, nonce: [5; 12], lsn: 8 };
    seed("store-place", &place.encode());
    let changes = vec![
        (Key::new(Table::Inode, &[1; 8]), Some(Bytes::from_static(b"value"))),
        (Key::new(Table::Entry, &[2; 16]), None),
        (Key::new(Table::Meta, b"k"), Some(Bytes::new())),
    ];
    let mut ledger = Ledger::default();
    ledger.record(2, 8);
    ledger.born(&place);
    seed("store-index-state", &IndexState { store_id: [1; 16], applied: 8, ledger }.encode());
    let ends = |from: &[u8], to: &[u8]| (Key::new(Table::Changed, from), Key::new(Table::Changed, to));
    let spans = [ends(b"", &[0; 8]), ends(&[3; 8], &[4; 8])].map(|(from, to)| Span::new(from, to).unwrap());
    let kinds: [(_, _, &[Span]); 3] = [
        (RecordKind::Rows, None, &[]),
        (RecordKind::Placed, Some(&place), &[]),
        (RecordKind::Ranges, None, &spans),
    ];
    for (kind, place, ranges) in kinds {
        let changes = &changes;
        let draft = Draft { lsn: 8, durable: 7, kind, ranges, changes, place, inline: &[], inline_refs: 0 };
        let segment = SEGMENT.as_ref().unwrap();
        let mut sealed = Vec::new();
        draft.seal(segment, 4096, [0; 12], &mut sealed);
        let header = record::parse_header(segment, sealed.first_chunk().unwrap()).unwrap();
        assert!(record::open_rows(&segment.cipher, &header, &mut sealed).is_some());
        // Opening was in place: these are a header and its rows, in clear.
        sealed.truncate(RECORD_HEADER_BYTES + header.rows as usize);
        seed("store-record", &sealed);
        seed("store-rows", &sealed[RECORD_HEADER_BYTES..]);
    }
    seed("store-index-value", &[1; 45]);
    seed("store-index-value", &[2]);
}
