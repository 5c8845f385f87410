#![allow(clippy::unwrap_used)]

use super::add::{Added, FileAdder, directory, symlink};
use super::car::{CarFileError, CarReader, header, write_section};
use super::node::Node;
use super::walk::{entries, read_file, resolve};
use super::*;
use std::collections::HashMap;

/// Blocks in memory.
#[derive(Default)]
struct Memory(HashMap<Cid, Block>);

impl Memory {
    fn sink(&mut self) -> impl FnMut(Block) -> Result<(), SinkError> + '_ {
        |block| {
            self.0.insert(*block.cid(), block);
            Ok(())
        }
    }
}

impl Blocks for Memory {
    fn block(&self, cid: &Cid) -> Result<Block, PlainError> {
        self.0.get(cid).cloned().ok_or(PlainError::Missing(*cid))
    }
}

/// Bytes that differ from chunk to chunk; `tests/interop/vectors.mjs` has the same.
fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|i| ((i * 31 + (i >> 8) * 7 + (i >> 16)) & 255) as u8).collect()
}

fn add(store: &mut Memory, profile: Profile, bytes: &[u8], step: usize) -> Added {
    let mut sink = store.sink();
    let mut adder = FileAdder::new(profile);
    for part in bytes.chunks(step) {
        adder.push(part, &mut sink).unwrap();
    }
    adder.finish(&mut sink).unwrap()
}

fn folder(store: &mut Memory, profile: Profile, names: impl Iterator<Item = (String, usize)>) -> Added {
    let files: Vec<_> = names.map(|(name, len)| (name, add(store, profile, &pattern(len), 4096))).collect();
    directory(profile, &files, &mut store.sink()).unwrap()
}

fn read(store: &Memory, cid: &Cid, range: std::ops::Range<u64>) -> Result<Vec<u8>, PlainError> {
    let mut out = Vec::new();
    read_file(store, cid, load(store, cid)?, range, &mut |part| {
        out.extend_from_slice(part);
        Ok(())
    })?;
    Ok(out)
}

/// What Helia's importer (ipfs-unixfs-importer with the profile of this name) gives to the same bytes and names.
const FILES: &[(usize, &str, &str)] = &[
    (
        0,
        "QmbFMke1KXqnYyBBWxB74N4c5SBnJMVAiMNRcGu6x1AwQH",
        "bafkreihdwdcefgh4dqkjv67uzcmw7ojee6xedzdetojuzjevtenxquvyku",
    ),
    (
        256 << 10,
        "QmcpCHX3Z6p66WSh66APrP9Te8Z2shwmj3jKzX4hoDGJXR",
        "bafkreig6febf2je4comsmuz7bfvdv6uj2ombaa4lfmvojmj7ta3aju4z3i",
    ),
    (
        (256 << 10) + 1,
        "Qme42pnZncpSoksku578ejMLu1yragBxKo3xMNw7VGr6AL",
        "bafkreigpbkxvricw2an7crh7eouwd7kzosq3bpsj5j353h4febzxdxjrfa",
    ),
    (
        (1 << 20) + 1,
        "QmNU8EP9i85NBuXz1avcBdgspobZ3pQfd8itgR1iFn3kCP",
        "bafybeih3t7bqnxym7lzhctvehj4qvtxacxpei4muryk2lhldrvravdusui",
    ),
    (
        174 * (256 << 10),
        "QmUkFazcvEeks2AwSQUrNRVqHsxxnuiA9h7YYjsJxuWUQW",
        "bafybeign4q47d4ytfv5l3mljjx4qgrpgqyfkkpp4z4tlbiw5gxpoyumez4",
    ),
    (
        174 * (256 << 10) + 1,
        "QmUqGdDPq1voq8A1rVEjLenLcsFoPhwCnwCrsoimnFBRpZ",
        "bafybeibgzf4vxjcktvxkuvtsjxcnwar44wfjsv4qrzk7ae4jrncb5cwai4",
    ),
];

#[test]
fn files_have_the_cids_of_helia() {
    let hello = add(&mut Memory::default(), Profile::V0, b"hello\n", 9);
    assert_eq!(hello.cid.to_string(), "QmZULkCELmmk5XNfCgTnCyFgAVxBRBXyDHGGMVoLFLiXEN", "as everybody knows");
    for &(len, v0, v1) in FILES {
        let bytes = pattern(len);
        for (profile, expected) in [(Profile::V0, v0), (Profile::V1, v1)] {
            let mut store = Memory::default();
            let added = add(&mut store, profile, &bytes, 100_000);
            assert_eq!(added.cid.to_string(), expected, "{len} bytes, {profile}");
            assert_eq!(added.size, len as u64);
            assert!(read(&store, &added.cid, 0..u64::MAX).unwrap() == bytes, "{len} bytes, {profile}");
            for range in [0..1, 262_143..262_145, 7..8, len as u64..u64::MAX, 1_000_000..1_100_000] {
                let cut = |at: u64| usize::try_from(at).unwrap_or(usize::MAX).min(len);
                let expected = &bytes[cut(range.start)..cut(range.end)];
                assert_eq!(read(&store, &added.cid, range.clone()).unwrap(), expected, "{range:?} of {len}");
            }
        }
    }
}

#[test]
fn folders_have_the_cids_of_helia() {
    let plain = |n: usize| (format!("file-{n}"), n % 7);
    let long = |n: usize| (format!("file-{n:05}-0123456789"), n % 7);
    type Name = fn(usize) -> (String, usize);
    let sets: [(usize, Name, &str, &str); 4] = [
        (
            1000,
            plain,
            "QmYVxsz28vMk1aV8XxSn9yfkPZiNsDGT2Q7es9n72iYiga",
            "bafybeih2ueexi4hm2yztmrg44xvwz6a6xxqx3sgnheebfn7zqi6ggejggu",
        ),
        (
            6000,
            plain,
            "QmWsJdWddh5AzfA4TTJBFDPLeB8WNbCcsV3mAQjpSwLuUv",
            "bafybeiexruhmboucqijwk6trfvxnsu7uewwz7mp6cbxryqfdxk6fw67fnm",
        ),
        (
            7000,
            plain,
            "QmNfiajMp6xrdZjoYZxF5HcqREnFstK3AkE53KnFUCEF3t",
            "bafybeiak5zysczffeeeff5bxmbk3n4r47w4l5ld5xed7hibkqcz4azpkw4",
        ),
        (
            4600,
            long,
            "QmSVNpz8Dyj24dXa4LsXbKBTHpQ3ezU3RnWVynz5GgCoK4",
            "bafybeihti2efeg7yyr6wtfyx5nl23vnqjplfu5qrdwxl5nevuwo2bj5hwe",
        ),
    ];
    for (count, name, v0, v1) in sets {
        for (profile, expected) in [(Profile::V0, v0), (Profile::V1, v1)] {
            let mut store = Memory::default();
            let added = folder(&mut store, profile, (0..count).map(name));
            assert_eq!(added.cid.to_string(), expected, "{count} entries, {profile}");
            let mut found = HashMap::new();
            let node = load(&store, &added.cid).unwrap();
            entries(&store, &added.cid, node, &mut |name, cid| {
                assert!(found.insert(name.to_owned(), *cid).is_none());
                Ok(())
            })
            .unwrap();
            assert_eq!(found.len(), count);
            for n in [0, 17, count - 1] {
                let (name, len) = name(n);
                let end = resolve(&store, &added.cid, [name.as_str()]).unwrap();
                assert_eq!(end.cid, found[&name]);
                assert_eq!(read(&store, &end.cid, 0..9).unwrap(), pattern(len));
            }
            assert!(matches!(resolve(&store, &added.cid, ["nobody"]), Err(PlainError::NotFound(_))));
        }
    }
}

#[test]
fn a_tree_has_the_cid_of_helia_and_is_resolved() {
    let expected = [
        (Profile::V0, "QmP42C52btYhh2E2oZvDx7Uf5KDDBPKGsRyeLYm3KLN8uz"),
        (Profile::V1, "bafybeidehocnlqdzagjatjwh254bdkthuld5qb2pnp5ddndfb2rujzoe5a"),
    ];
    for (profile, expected) in expected {
        let mut store = Memory::default();
        let inner = folder(&mut store, profile, [("c".to_owned(), 300_000)].into_iter());
        let a = add(&mut store, profile, &pattern(3), 3);
        let empty = add(&mut store, profile, &[], 3);
        let all = [("ä ö".to_owned(), empty), ("b".to_owned(), inner), ("a".to_owned(), a)];
        let root = directory(profile, &all, &mut store.sink()).unwrap();
        assert_eq!(root.cid.to_string(), expected);
        assert_eq!(root.size, 300_003);
        let end = resolve(&store, &root.cid, ["b", "c"]).unwrap();
        assert_eq!(end.way, [root.cid, inner.cid]);
        assert_eq!(read(&store, &end.cid, 0..u64::MAX).unwrap(), pattern(300_000));
        assert!(matches!(resolve(&store, &root.cid, ["a", "x"]), Err(PlainError::NotDirectory(_))));
    }
}

/// The CID that kubo gives to a link to "b".
#[test]
fn links_are_links() {
    let mut store = Memory::default();
    let added = symlink(Profile::V0, b"b", &mut store.sink()).unwrap();
    assert_eq!(added.cid.to_string(), "QmfLJN6HLyREnWr7QQNmgmuNziUhcbwUopkHQ8gD3pMfp6");
    assert_eq!(load(&store, &added.cid).unwrap(), Node::Symlink { target: b"b".to_vec() });
    let odd = symlink(Profile::V1, b"\xff/..", &mut store.sink()).unwrap();
    assert_eq!(load(&store, &odd.cid).unwrap(), Node::Symlink { target: b"\xff/..".to_vec() });
}

#[test]
fn names_that_no_folder_has_are_refused() {
    let mut store = Memory::default();
    let file = add(&mut store, Profile::V0, b"x", 1);
    for name in ["", ".", "..", "a/b", "/", "a\0"] {
        let made = directory(Profile::V0, &[(name.to_owned(), file)], &mut store.sink());
        assert!(matches!(made, Err(PlainError::Name(_))), "{name:?}");
    }
    let twice = [("a".to_owned(), file), ("a".to_owned(), file)];
    assert!(matches!(directory(Profile::V0, &twice, &mut store.sink()), Err(PlainError::Name(_))));
}

/// dag-pb of a UnixFS file with parts of these sizes.
fn file_node(parts: &[(Cid, u64)], filesize: u64) -> Block {
    let links: Vec<_> = parts
        .iter()
        .map(|(cid, size)| rust_unixfs::file::adder::FileBranchLink { cid: *cid, blocksize: *size, tsize: 1 })
        .collect();
    let (_, bytes) = rust_unixfs::file::adder::rebuild_file_branch(
        filesize,
        &links,
        Version::V1,
        multihash_codetable::Code::Sha2_256,
    );
    Block::dag_pb(bytes).unwrap()
}

#[test]
fn what_a_dag_claims_is_checked() {
    let mut store = Memory::default();
    let mut put = |block: Block| {
        let cid = *block.cid();
        store.0.insert(cid, block);
        cid
    };
    let leaf = put(Block::raw(&b"12345"[..]).unwrap());
    let lies = put(file_node(&[(leaf, 6)], 6));
    let short = put(file_node(&[(leaf, 5), (leaf, 5)], 9));
    let folder = put(Block::dag_pb(&b"\x0a\x02\x08\x01"[..]).unwrap());
    let mixed = put(file_node(&[(folder, 5)], 5));
    // Any number of parts without bytes, over and over: nothing of it is visited.
    let mut empty = put(Block::raw(&b""[..]).unwrap());
    for _ in 0..60 {
        empty = put(file_node(&[(empty, 0); 100], 0));
    }
    let with_empty = put(file_node(&[(empty, 0), (leaf, 5)], 5));
    let mut deep = leaf;
    for _ in 0..200 {
        deep = put(file_node(&[(deep, 5)], 5));
    }
    let gone = Block::raw(&b"gone"[..]).unwrap();
    let missing = put(file_node(&[(*gone.cid(), 4)], 4));
    let all = |cid: &Cid| read(&store, cid, 0..u64::MAX);
    assert!(matches!(all(&lies), Err(PlainError::Malformed { .. })));
    assert!(matches!(all(&short), Err(PlainError::Malformed { .. })));
    assert!(matches!(all(&mixed), Err(PlainError::Malformed { .. })));
    assert!(matches!(all(&folder), Err(PlainError::Malformed { .. })));
    assert!(matches!(all(&deep), Err(PlainError::Limit { .. })));
    assert!(matches!(all(&missing), Err(PlainError::Missing(cid)) if cid == *gone.cid()));
    assert_eq!(all(&with_empty).unwrap(), b"12345");
    // A CID that holds its bytes itself needs no block.
    let inline = Cid::new_v1(0x55, cid::multihash::Multihash::wrap(0, b"within").unwrap());
    assert_eq!(all(&inline).unwrap(), b"within");
}

fn sample_car() -> (Vec<u8>, Cid, Memory) {
    let mut store = Memory::default();
    let root = folder(&mut store, Profile::V0, [("a".to_owned(), 9), ("b".to_owned(), 300_000)].into_iter());
    let mut car = header(&[root.cid]);
    for block in store.0.values() {
        write_section(&mut car, &Profile::V0.cid_of(block), block).unwrap();
    }
    (car, root.cid, store)
}

/// The same as a version 2 file.
fn in_v2(v1: &[u8]) -> Vec<u8> {
    let mut out = b"\x0a\xa1\x67version\x02".to_vec();
    out.extend_from_slice(&[0; 16]);
    let padding = 13u64;
    for field in [51 + padding, v1.len() as u64, 51 + padding + v1.len() as u64] {
        out.extend_from_slice(&field.to_le_bytes());
    }
    out.extend_from_slice(&vec![0; padding as usize]);
    out.extend_from_slice(v1);
    out
}

fn read_car(bytes: &[u8]) -> Result<(Vec<Cid>, Memory), CarFileError> {
    let mut reader = CarReader::new(bytes)?;
    let mut found = Memory::default();
    while let Some(section) = reader.next_section()? {
        let at = section.offset as usize;
        let Some(block) = section.block else { continue };
        assert_eq!(&bytes[at..at + section.len as usize], block.bytes());
        found.0.insert(*block.cid(), block);
    }
    Ok((reader.roots().to_vec(), found))
}

#[test]
fn a_car_comes_back_in_both_versions() {
    let (car, root, store) = sample_car();
    let mut v2 = in_v2(&car);
    for bytes in [&car, &v2] {
        let (roots, found) = read_car(bytes).unwrap();
        assert_eq!(roots, [root]);
        assert_eq!(found.0, store.0);
    }
    // What follows the data is the index.
    v2.extend_from_slice(b"an index that nobody reads");
    assert_eq!(read_car(&v2).unwrap().1.0, store.0);
}

#[test]
fn damaged_cars_are_refused() {
    let (car, root, _) = sample_car();
    let v2 = in_v2(&car);
    for bytes in [&car, &v2] {
        // Headers say little: another root, or the same in other words. The blocks are what must not change.
        let headers = bytes.len() - car.len() + header(&[root]).len();
        for at in (0..bytes.len()).step_by(997).chain(0..200) {
            let mut changed = bytes.clone();
            changed[at] ^= 0x40;
            match read_car(&changed) {
                Ok((_, found)) => {
                    assert!(at < headers, "byte {at}");
                    let sound = |block: &Block| Block::verify(*block.cid(), block.bytes().clone()).is_ok();
                    assert!(found.0.values().all(sound));
                }
                Err(error) => assert!(!error.to_string().is_empty()),
            }
        }
    }
    for cut in [0, 1, 20, 70, 100, car.len() - 1] {
        assert!(read_car(&car[..cut]).is_err(), "cut at {cut}");
    }
    for cut in [0, 5, 30, 51, 80, v2.len() - 1] {
        assert!(read_car(&v2[..cut]).is_err(), "cut at {cut}");
    }
    let huge = [&header(&[])[..], &[0xff, 0xff, 0xff, 0x7f]].concat();
    assert!(matches!(read_car(&huge), Err(CarFileError::Malformed { .. })));
    let newer = serde_ipld_dagcbor::to_vec(&std::collections::BTreeMap::from([("version", 3u64)])).unwrap();
    let newer = [&[newer.len() as u8][..], &newer].concat();
    assert!(matches!(read_car(&newer), Err(CarFileError::Version(3))));
}

#[test]
fn blocks_of_other_kinds_are_passed_over() {
    let cbor = Cid::new_v1(0x71, *crate::block::cid_of(0x55, b"x").hash());
    let mut car = header(&[cbor]);
    car.extend_from_slice(&super::car::section_head(&cbor, 5));
    car.extend_from_slice(b"other");
    let mut reader = CarReader::new(car.as_slice()).unwrap();
    let section = reader.next_section().unwrap().unwrap();
    assert_eq!((section.cid, section.block), (cbor, None));
    assert!(reader.next_section().unwrap().is_none());
    assert!(matches!(load(&Memory::default(), &cbor), Err(PlainError::Block(BlockError::UnsupportedCid(_)))));
}
