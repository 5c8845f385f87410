#![allow(clippy::unwrap_used)]

use super::*;
use crate::block::{BlockAt, Link};
use crate::commit::tests::{commit as sample, keys, reference};
use crate::dagcbor;
use crate::keyfile::{ArgonParams, HomeSecrets};
use crate::keys::TreeDomain;
use crate::placement::{PlacementAction, PlacementFacts, STRIPE_ITSELF};
use crate::rng::SeededRng;
use crate::tree::{Entry, MemorySource, Tree};
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
    let mnemonic = Mnemonic::from_entropy([1; 32]);
    let root = mnemonic.root_key();
    seed("content-words", mnemonic.phrase().as_bytes());
    seed("content-drive-name", root.drive_name().to_string().as_bytes());
    let leaf = Block::raw(&b"hello"[..]).unwrap();
    seed("content-cid", &leaf.cid().to_bytes());
    let ring = Keyring::first(&root, 1_800_000_000);
    seed("content-keyring", &dagcbor::encode("keyring", &ring).unwrap());
    let signed = ring.sign(&root).unwrap();
    let secrets =
        HomeSecrets::new(root.drive_name(), &root.generation(1), signed, &SeededRng::new(1)).unwrap();
    let weak = ArgonParams::weak_for_tests();
    seed("content-keyfile", &crate::keyfile::seal(b"p", &secrets, weak, &SeededRng::new(2)).unwrap());
    seed("content-keyfile-plain", &dagcbor::encode("keyfile", &secrets).unwrap());
    seed("content-chunk", b"\0\0\0\0\x05hello");
    let frame = zstd::bulk::compress(&[7; 300], 1).unwrap();
    seed("content-chunk", &[&[1, 0, 0, 1, 44], frame.as_slice()].concat());

    let link = Link::to_leaf(&leaf);
    let (block, directory) = Directory { body: link, links: vec![link, link] }.encode().unwrap();
    seed("content-directory", block.bytes());
    seed("content-file-node", unixfs::inner_node(&[(link, 5), (link, 5)]).unwrap().bytes());
    let entry = |key: &'static [u8], links| Entry { key: Bytes::from(key), value: Bytes::from("v"), links };
    let entries = vec![entry(b"aab", vec![]), entry(b"aac", vec![directory])];
    seed("content-tree-node", &Node { level: 0, entries }.encode::<Namespace>().unwrap());
    let at = BlockAt { cid: *leaf.cid(), piece: [3; 16], offset: 1 << 30, len: 5 };
    seed("content-location", &Location::from(at).encode());
    let tree = Tree::<Physical>::new(keys().tree(TreeDomain::Location), 8);
    let edit = crate::location::put(&at).unwrap();
    let applied = tree.apply(&MemorySource::new(), None, vec![edit], &mut MemorySource::new()).unwrap();
    let child = Physical::to_entry(Bytes::from("k"), &applied.root).unwrap();
    seed("content-tree-node", &Node { level: 1, entries: vec![child] }.encode::<Physical>().unwrap());

    let encoded = sample(None).encode(&keys()).unwrap();
    let later = sample(Some(reference(&encoded))).encode(&keys()).unwrap();
    for commit in [encoded, later] {
        let mut plain = commit.body.bytes().to_vec();
        aead::open_once(commit.key.as_bytes(), &mut plain).unwrap();
        assert!(Commit::decode_plain(&plain, &KEYS).is_ok());
        seed("content-commit", &plain);
    }
    heads();
    let mut writer = crate::car::PieceWriter::new(Vec::new(), [1; 16]).unwrap();
    writer.write(&leaf).unwrap();
    writer.write(&block).unwrap();
    seed("content-piece", &writer.finish().unwrap());
    plain();
    seed("content-time", b"2026-11-25T03:28:51.000000001Z");
}

fn plain() {
    use crate::plain::{Profile, add, car};
    for profile in [Profile::V0, Profile::V1] {
        let mut blocks = Vec::new();
        let mut sink = |block: Block| {
            blocks.push(block);
            Ok(())
        };
        let mut adder = add::FileAdder::new(profile);
        adder.push(b"hello", &mut sink).unwrap();
        let file = adder.finish(&mut sink).unwrap();
        let link = add::symlink(profile, b"../a", &mut sink).unwrap();
        let entries = [("a".to_owned(), file), ("b".to_owned(), link)];
        let root = add::directory(profile, &entries, &mut sink).unwrap();
        let mut bytes = car::header(&[root.cid]);
        for block in &blocks {
            seed("content-plain-node", block.bytes());
            car::write_section(&mut bytes, &profile.cid_of(block), block).unwrap();
        }
        seed("content-car-file", &bytes);
        let fields = [0, 0, 51, bytes.len() as u64, 0];
        let mut v2 = b"\x0a\xa1\x67version\x02".to_vec();
        fields.iter().for_each(|field| v2.extend_from_slice(&u64::to_le_bytes(*field)));
        v2.extend_from_slice(&bytes);
        seed("content-car-file", &v2);
    }
    // Two names, in a folder that is sharded.
    let hash = [0x08, 0x05, 0x12, 0x01, 0x03, 0x28, 0x22, 0x30, 0x80, 0x02];
    let cid = crate::block::cid_of(0x55, b"x").to_bytes();
    let mut node = Vec::new();
    for name in ["00a", "01"] {
        let len = cid.len() + name.len() + 6;
        node.extend_from_slice(&[0x12, len as u8, 0x0a, cid.len() as u8]);
        node.extend_from_slice(&cid);
        node.extend_from_slice(&[0x12, name.len() as u8]);
        node.extend_from_slice(name.as_bytes());
        node.extend_from_slice(&[0x18, 0x01]);
    }
    node.extend_from_slice(&[0x0a, hash.len() as u8]);
    node.extend_from_slice(&hash);
    seed("content-plain-node", &node);
    let sharded = PlainNode::decode(&crate::block::cid_of(CODEC_DAG_PB, &node), node.into()).unwrap();
    assert_eq!(sharded.links().len(), 2);
}

fn heads() {
    let body = crate::head::tests::body();
    let sealed = body.seal(&keys()).unwrap();
    seed("content-head-body", sealed.bytes());
    let (header, ciphertext) = sealed.bytes().split_at(6);
    let plain = aead::open_xnonce(KEYS.head_body.as_bytes(), header, ciphertext).unwrap();
    seed("content-head-body", &plain);
    let record = HeadRecord::sign(sealed.cid(), 7, 1, None, 1_900_000_000, KEYS.head_signing()).unwrap();
    seed("content-head-record", record.bytes());
    // Behind a signature of 64 bytes, and the tag and length of the data.
    seed("content-head-record", &record.bytes()[69..]);
    let standing = Some([9; 32]);
    let record = HeadRecord::sign(sealed.cid(), 7, 1, standing, 1_900_000_000, KEYS.head_signing()).unwrap();
    seed("content-head-record", record.bytes());
    seed("content-head-record", &record.bytes()[69..]);
    let entry = &body.tail[0];
    seed("content-placement", entry.bytes());
    seed("content-placement", &dagcbor::encode("placement entry", entry.body()).unwrap());
    let stripe = PlacementFacts {
        action: PlacementAction::Stripe,
        piece: [6; 16],
        raw_len: 64 << 20,
        slot: STRIPE_ITSELF,
        holder: Vec::new(),
        slot_cid: Vec::new(),
        deal: Vec::new(),
        receipt: vec![4; 300],
        time: 1_800_000_000,
    };
    let stripe = PlacementEntry::sign(stripe, &entry.chain_end(), KEYS.placement_signing()).unwrap();
    seed("content-placement", stripe.bytes());
    let public = crate::publication::tests::sample().encode().unwrap();
    seed("content-public-piece", &public);
    let public = PlacementFacts {
        action: PlacementAction::Public,
        piece: [7; 16],
        raw_len: 1 << 20,
        slot: STRIPE_ITSELF,
        holder: Vec::new(),
        slot_cid: Vec::new(),
        deal: Vec::new(),
        receipt: public,
        time: 1_800_000_000,
    };
    let public = PlacementEntry::sign(public, &entry.chain_end(), KEYS.placement_signing()).unwrap();
    seed("content-placement", public.bytes());
    let class = crate::class::ClassNote { class: crate::class::Class::of(3), drive: 1 }.encode();
    seed("content-class-note", &class);
    let class = PlacementFacts {
        action: PlacementAction::Class,
        piece: [8; 16],
        raw_len: 0,
        slot: STRIPE_ITSELF,
        holder: Vec::new(),
        slot_cid: Vec::new(),
        deal: Vec::new(),
        receipt: class,
        time: 1_800_000_000,
    };
    let class = PlacementEntry::sign(class, &entry.chain_end(), KEYS.placement_signing()).unwrap();
    seed("content-placement", class.bytes());
    let grant = crate::watch::tests::sample().encode().unwrap();
    seed("content-watch-grant", &grant);
    seed("content-watch-part", &crate::watch::part::sample());
    seed("content-watch-part", &crate::watch::part::sample_body());
    let watch = PlacementFacts {
        action: PlacementAction::Watch,
        piece: [8; 16],
        raw_len: 0,
        slot: STRIPE_ITSELF,
        holder: Vec::new(),
        slot_cid: Vec::new(),
        deal: Vec::new(),
        receipt: grant,
        time: 1_800_000_000,
    };
    let watch = PlacementEntry::sign(watch, &entry.chain_end(), KEYS.placement_signing()).unwrap();
    seed("content-placement", watch.bytes());
    let note = crate::share::tests::sample().encode().unwrap();
    seed("content-share-note", &note);
    seed("content-share-index", &crate::share::index::tests::sample().encode().unwrap());
    let share = PlacementFacts {
        action: PlacementAction::Share,
        piece: [9; 16],
        raw_len: 0,
        slot: STRIPE_ITSELF,
        holder: Vec::new(),
        slot_cid: Vec::new(),
        deal: Vec::new(),
        receipt: note,
        time: 1_800_000_000,
    };
    let share = PlacementEntry::sign(share, &entry.chain_end(), KEYS.placement_signing()).unwrap();
    seed("content-placement", share.bytes());
}

/// What nests without end must run out of patience before it runs out of stack.
#[test]
fn deep_nesting_is_an_error() {
    for opening in [0x81, 0xa1, 0xd8] {
        let bytes = vec![opening; 60_000];
        for name in ["content-keyring", "content-keyfile-plain", "content-commit", "content-head-body"] {
            DECODERS.iter().find(|(known, _)| *known == name).unwrap().1(&bytes);
        }
        let mut map = vec![0xa1, 0x61, b'x'];
        map.extend_from_slice(&bytes);
        assert!(Commit::decode_plain(&map, &KEYS).is_err());
    }
}
