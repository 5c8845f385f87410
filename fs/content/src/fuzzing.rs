//! Every decoder of the content's formats, as a function of any bytes: what fuzzing and the seeds of `tests/fuzz` call.
//!
//! Seals and signatures are no obstacle here: what is inside is decoded as if whoever wrote it had the key. A violated
//! promise (a panic, two encodings of one value, a value that does not come back) panics.

use crate::aead;
use crate::block::{self, Block, CODEC_DAG_PB};
use crate::car::PieceReader;
use crate::chunk::{self, ChunkKey, Codec};
use crate::commit::Commit;
use crate::head::{
    HeadBody, HeadRecord, IpnsRecord, RECORD_BYTES_MAX, format_rfc3339, parse_rfc3339, sign_data,
};
use crate::keyfile;
use crate::keys::{DriveKeys, DriveName, Keyring, Mnemonic};
use crate::location::Location;
use crate::placement::{PlacementBody, PlacementEntry};
use crate::plain::car::CarReader;
use crate::plain::node::Node as PlainNode;
use crate::tree::{Namespace, Node, Physical, Variant};
use crate::unixfs::{self, Directory};
use std::sync::LazyLock;

/// Name and entry of each decoder.
pub const DECODERS: &[(&str, fn(&[u8]))] = &[
    ("content-words", words),
    ("content-drive-name", drive_name),
    ("content-cid", cid),
    ("content-keyfile", keyfile),
    ("content-keyfile-plain", keyfile_plain),
    ("content-keyring", keyring),
    ("content-chunk", chunk),
    ("content-directory", directory),
    ("content-file-node", file_node),
    ("content-tree-node", tree_node),
    ("content-location", location),
    ("content-commit", commit),
    ("content-placement", placement),
    ("content-public-piece", |bytes| {
        if let Ok(piece) = crate::publication::PublicPiece::decode(bytes) {
            assert!(piece.encode().is_ok_and(|again| again == bytes), "two encodings of one public piece");
        }
    }),
    ("content-class-note", |bytes| {
        if let Ok(note) = crate::class::ClassNote::decode(bytes) {
            assert_eq!(note.encode(), bytes, "two encodings of one class");
        }
    }),
    ("content-watch-grant", |bytes| {
        if let Ok(note) = crate::watch::GrantNote::decode(bytes) {
            assert!(note.encode().is_ok_and(|again| again == bytes), "two encodings of one capability");
        }
    }),
    ("content-watch-part", crate::watch::part::decode_any),
    ("content-share-note", |bytes| {
        if let Ok(note) = crate::share::ShareNote::decode(bytes) {
            assert!(note.encode().is_ok_and(|again| again == bytes), "two encodings of one link");
        }
    }),
    ("content-share-index", share_index),
    ("content-head-record", head_record),
    ("content-head-body", head_body),
    ("content-time", time),
    ("content-piece", piece),
    ("content-plain-node", plain_node),
    ("content-car-file", car_file),
];

static KEYS: LazyLock<DriveKeys> =
    LazyLock::new(|| Mnemonic::from_entropy([1; 32]).root_key().generation(1).keys());

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap_or_default()
}

fn share_index(bytes: &[u8]) {
    let Ok(index) = crate::share::index::ShareIndex::decode(bytes) else { return };
    assert!(index.encode().is_ok_and(|again| again == bytes), "two encodings of one index");
    for chunk in index.chunks() {
        assert!(index.place(chunk).is_some() && chunk.codec().is_some(), "a chunk that lies nowhere");
    }
}

fn words(bytes: &[u8]) {
    if let Ok(mnemonic) = Mnemonic::parse(text(bytes)) {
        let phrase = mnemonic.phrase();
        assert!(Mnemonic::parse(&phrase).is_ok_and(|again| *again.phrase() == *phrase));
    }
}

fn drive_name(bytes: &[u8]) {
    if let Ok(name) = text(bytes).parse::<DriveName>() {
        assert_eq!(name.to_string().parse::<DriveName>().ok(), Some(name));
    }
}

fn cid(bytes: &[u8]) {
    if let Ok(cid) = block::cid_from_bytes(bytes) {
        assert_eq!(cid.to_bytes(), bytes);
    }
}

/// The clear part; the passphrase's stretching is what makes opening slow, and is left out.
fn keyfile(bytes: &[u8]) {
    if let Ok((_, header, sealed)) = keyfile::parse(bytes) {
        assert_eq!(header.len() + sealed.len(), bytes.len());
    }
}

fn keyfile_plain(bytes: &[u8]) {
    let _ = keyfile::decode_plain(bytes);
}

fn keyring(bytes: &[u8]) {
    let _ = Keyring::verify(bytes, &DriveName::from_bytes([1; 32]));
    if let Ok(keyring) = Keyring::decode_body(bytes) {
        let _ = (keyring.current(), keyring.accepts_head(&[1; 32], 1));
    }
}

/// `codec u8 | plain length u32 | payload`, sealed.
fn chunk(bytes: &[u8]) {
    let Some((&[codec, a, b, c, d], payload)) = bytes.split_first_chunk::<5>() else { return };
    let codec = if codec & 1 == 0 { Codec::Plain } else { Codec::Zstd };
    let plain_len = u32::from_be_bytes([a, b, c, d]);
    let mut sealed = payload.to_vec();
    aead::seal_once(&[3; 32], &mut sealed);
    let Ok(block) = Block::raw(sealed) else { return };
    if let Ok(plain) = chunk::open(block.clone(), &ChunkKey::from_bytes([3; 32]), codec, plain_len) {
        assert_eq!(plain.len(), plain_len as usize);
    }
}

fn directory(bytes: &[u8]) {
    if let Ok(directory) = Directory::decode(bytes) {
        assert!(directory.encode().is_ok_and(|(block, _)| block.bytes() == bytes));
    }
}

fn file_node(bytes: &[u8]) {
    let Ok(block) = Block::dag_pb(bytes.to_vec()) else { return };
    assert_eq!(block.cid().codec(), CODEC_DAG_PB);
    let _ = (unixfs::links(&block), unixfs::decode_branch(&block));
}

fn tree_node(bytes: &[u8]) {
    fn check<V: Variant>(bytes: &[u8]) {
        let Ok(node) = Node::decode::<V>(bytes.to_vec().into()) else { return };
        assert!(node.encode::<V>().is_ok_and(|again| again == bytes), "two encodings of one node");
        for entry in &node.entries {
            let _ = V::from_entry(entry);
        }
    }
    check::<Namespace>(bytes);
    check::<Physical>(bytes);
}

fn location(bytes: &[u8]) {
    if let Ok(location) = Location::decode(bytes) {
        assert_eq!(location.encode(), bytes, "two encodings of one place");
    }
}

fn commit(bytes: &[u8]) {
    let _ = Commit::decode_plain(bytes, &KEYS);
}

fn placement(bytes: &[u8]) {
    let _ = PlacementEntry::verify(bytes);
    if let Ok(body) = PlacementBody::decode(bytes) {
        let _ = body.check();
    }
}

/// The record as it is, and its data under a signature that fits.
fn head_record(bytes: &[u8]) {
    let key = KEYS.head_signing();
    let name = key.verifying_key().to_bytes();
    let _ = IpnsRecord::verify(bytes, &name, 0);
    if bytes.len() <= RECORD_BYTES_MAX {
        let signed = sign_data(bytes, key);
        if let Ok(record) = HeadRecord::verify(&signed, &name, 0) {
            assert_eq!(record.bytes(), signed);
        }
    }
}

/// The sealed body as it is, and as the plain of one.
fn head_body(bytes: &[u8]) {
    let _ = HeadBody::open(bytes, &KEYS);
    let mut sealed = vec![1, 1];
    sealed.extend_from_slice(&KEYS.generation.to_be_bytes());
    let plain = aead::seal_synthetic(KEYS.head_body.as_bytes(), &sealed, bytes);
    sealed.extend_from_slice(&plain);
    let _ = HeadBody::open(&sealed, &KEYS);
}

fn time(bytes: &[u8]) {
    if let Some(seconds) = parse_rfc3339(text(bytes)) {
        assert_eq!(parse_rfc3339(&format_rfc3339(seconds)), Some(seconds));
    }
}

/// A piece, by its blocks and by its places, which agree as long as the blocks are sound.
fn piece(bytes: &[u8]) {
    let (Ok(mut blocks), Ok(mut places)) =
        (PieceReader::new(bytes, [1; 16]), PieceReader::new(bytes, [1; 16]))
    else {
        return;
    };
    while let Ok(Some((block, at))) = blocks.next_block() {
        assert_eq!((at.cid, at.len), (*block.cid(), block.len()));
        assert!(places.next_place().is_ok_and(|place| place == Some(at)), "two readings of one piece");
    }
    while let Ok(Some(_)) = places.next_place() {}
}

/// A node of anybody's UnixFS, under each of the two codecs.
fn plain_node(bytes: &[u8]) {
    for codec in [block::CODEC_RAW, CODEC_DAG_PB] {
        let cid = block::cid_of(codec, bytes);
        if let Ok(node) = PlainNode::decode(&cid, bytes.to_vec().into()) {
            let links = node.links().len();
            assert!(links <= bytes.len(), "more links than bytes");
            if let PlainNode::File { data, size, .. } = &node {
                assert!(*size >= data.len() as u64, "a file shorter than its own bytes");
            }
        }
    }
}

/// Anybody's CAR file: what comes out lies where it says, and has the hash that it should.
fn car_file(bytes: &[u8]) {
    let Ok(mut reader) = CarReader::new(bytes) else { return };
    while let Ok(Some(section)) = reader.next_section() {
        let at = usize::try_from(section.offset).unwrap_or(usize::MAX);
        let found = at.checked_add(section.len as usize).and_then(|end| bytes.get(at..end));
        if let Some(block) = section.block {
            assert_eq!(found, Some(&block.bytes()[..]), "a block lies elsewhere");
        }
    }
}

#[cfg(test)]
mod tests;
