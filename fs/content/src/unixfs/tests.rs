#![allow(clippy::unwrap_used)]

use super::*;
use crate::block::BlockSink;
use crate::rng::{SeededRng, random};
use crate::tree::MemorySource;
use multihash_codetable::Code;
use proptest::prelude::*;
use rust_unixfs::file::adder::{Chunker, FileAdder, FileBranchLink, build_file_from_leaves};
use rust_unixfs::walk::{ContinuedWalk, Walker};

fn leaf(n: u64) -> Block {
    Block::raw(n.to_le_bytes().repeat(1 + n as usize % 5)).unwrap()
}

fn build(count: u64) -> (MemorySource, Option<FileDag>) {
    let mut store = MemorySource::new();
    let mut builder = FileBuilder::new(&mut store);
    for n in 0..count {
        let leaf = leaf(n);
        builder.push(*leaf.cid(), leaf.len()).unwrap();
    }
    let dag = builder.finish().unwrap();
    (store, dag)
}

#[test]
fn files_are_what_another_implementation_makes() {
    for count in [1, 2, 173, 174, 175, 347, 348, 349, 30_276, 30_277, 30_451, 60_000] {
        let (store, dag) = build(count);
        let dag = dag.unwrap();
        let links: Vec<FileBranchLink> = (0..count)
            .map(leaf)
            .map(|leaf| FileBranchLink {
                cid: *leaf.cid(),
                blocksize: u64::from(leaf.len()),
                tsize: u64::from(leaf.len()),
            })
            .collect();
        let (root, tsize, blocks) = build_file_from_leaves(&links, cid::Version::V1, Code::Sha2_256);
        assert_eq!((dag.root.cid, dag.root.tsize), (root, tsize), "{count} leaves");
        assert_eq!(dag.leaves, count);
        assert_eq!(dag.filesize, links.iter().map(|link| link.blocksize).sum::<u64>());
        assert_eq!(store.written(), blocks.len() as u64);
        assert!(blocks.iter().all(|(cid, _)| store.block(cid).is_some()));
    }
    assert!(build(0).1.is_none());
}

/// The root that kubo and Helia give to the same bytes, by the adder that was compared with them.
#[test]
fn same_root_as_a_file_adder() {
    let bytes: Vec<u8> = (0..100_000u32).flat_map(u32::to_le_bytes).collect();
    let mut adder = FileAdder::builder()
        .with_chunker(Chunker::Size(1000))
        .with_raw_leaves(true)
        .with_cid_version(cid::Version::V1)
        .build();
    let mut last = None;
    let mut total = 0;
    while total < bytes.len() {
        let (blocks, consumed) = adder.push(&bytes[total..]);
        last = blocks.last().map(|(cid, _)| cid).or(last);
        total += consumed;
    }
    last = adder.finish().last().map(|(cid, _)| cid).or(last);
    let mut store = MemorySource::new();
    let mut builder = FileBuilder::new(&mut store);
    for chunk in bytes.chunks(1000) {
        let leaf = Block::raw(chunk.to_vec()).unwrap();
        builder.push(*leaf.cid(), leaf.len()).unwrap();
    }
    assert_eq!(Some(builder.finish().unwrap().unwrap().root.cid), last);
}

#[test]
fn a_foreign_walker_walks_a_directory_with_a_file() {
    let mut store = MemorySource::new();
    let mut builder = FileBuilder::new(&mut store);
    for n in 0..400 {
        let leaf = leaf(n);
        builder.push(*leaf.cid(), leaf.len()).unwrap();
    }
    let file = builder.finish().unwrap().unwrap();
    for n in 0..400 {
        store.put(leaf(n)).unwrap();
    }
    let body = Block::raw(vec![5; 1000]).unwrap();
    let directory = Directory { body: Link::to_leaf(&body), links: vec![file.root, Link::to_leaf(&leaf(7))] };
    let (block, link) = directory.encode().unwrap();
    assert_eq!(link.tsize, 1000 + file.root.tsize + u64::from(leaf(7).len()) + u64::from(block.len()));
    store.put(body).unwrap();
    store.put(block).unwrap();

    let mut walker = Walker::new(link.cid, String::new());
    let mut cache = None;
    let (mut names, mut bytes) = (Vec::new(), 0);
    while walker.should_continue() {
        let (next, _) = walker.pending_links();
        let block = store.block(next).unwrap();
        match walker.next(block.bytes(), &mut cache).unwrap() {
            ContinuedWalk::File(segment, _, path, _, size) => {
                if segment.is_first() {
                    names.push((path.display().to_string(), size));
                }
                bytes += segment.as_bytes().len() as u64;
            }
            ContinuedWalk::Directory(..) | ContinuedWalk::RootDirectory(..) => {}
            other => panic!("{other:?}"),
        }
    }
    let expected = [("00000", file.filesize), ("00001", u64::from(leaf(7).len())), ("_", 1000)];
    assert_eq!(names.iter().map(|(name, size)| (name.as_str(), *size)).collect::<Vec<_>>(), expected);
    assert_eq!(bytes, file.filesize + u64::from(leaf(7).len()) + 1000);
}

#[test]
fn update_equals_building_anew_and_reads_one_path() {
    for (count, changed) in
        [(1, vec![0]), (174, vec![3]), (175, vec![174]), (40_000, vec![0, 1, 20_000, 39_999])]
    {
        let (mut store, dag) = build(count);
        let changes: Vec<LeafChange> = changed
            .iter()
            .map(|&at| {
                let leaf = leaf(1_000_000 + at);
                LeafChange { at, cid: *leaf.cid(), len: leaf.len() }
            })
            .collect();
        let mut anew = MemorySource::new();
        let mut builder = FileBuilder::new(&mut anew);
        for n in 0..count {
            let leaf = if changed.contains(&n) { leaf(1_000_000 + n) } else { leaf(n) };
            builder.push(*leaf.cid(), leaf.len()).unwrap();
        }
        let blocks = std::mem::take(&mut store);
        let mut reads = 0;
        let mut read = |cid: &Cid| {
            reads += 1;
            blocks.block(cid).ok_or_else(|| "missing".into())
        };
        let updated = update(&dag.unwrap(), &changes, &mut read, &mut store).unwrap();
        assert_eq!(updated, builder.finish().unwrap().unwrap(), "{count} leaves");
        assert!(reads <= 3 * changed.len(), "{reads} reads");
        let beyond = [LeafChange { at: count, ..changes[0] }];
        assert!(update(&updated, &beyond, &mut |_| Err("".into()), &mut store).is_err());
    }
}

#[test]
fn directories_decode_canonically_only() {
    let body = Link::to_leaf(&leaf(1));
    let links: Vec<Link> = (0..300).map(|n| Link::to_leaf(&leaf(n))).collect();
    let directory = Directory { body, links };
    let (block, _) = directory.encode().unwrap();
    assert_eq!(Directory::decode(block.bytes()).unwrap(), directory);
    assert_eq!(unixfs_links(&block), 301);
    for at in 0..block.bytes().len() {
        let mut changed = block.bytes().to_vec();
        changed[at] ^= 1;
        if let Ok(other) = Directory::decode(&changed) {
            assert_eq!(other.encode().unwrap().0.bytes(), &changed, "byte {at}");
        }
    }
    crate::golden::check("directory", &block.cid().to_string());
    let many = Directory { body, links: vec![body; DIRECTORY_LINKS_MAX + 1] };
    assert!(matches!(many.encode(), Err(UnixfsError::TooManyLinks(_))));
    let most = Directory {
        body: Link { tsize: u64::MAX / 2, ..body },
        links: vec![Link { tsize: u64::MAX, ..body }; DIRECTORY_LINKS_MAX],
    };
    assert!(most.encode().unwrap().0.bytes().len() < 1 << 20);
}

fn unixfs_links(block: &Block) -> usize {
    links(block).unwrap().len()
}

/// Real nodes, damaged in a few places at a time: lengths that lie are what a decoder trips over.
#[test]
fn damaged_nodes_are_errors_or_other_nodes() {
    let (store, dag) = build(200);
    let inner = store.block(&dag.unwrap().root.cid).unwrap();
    let body = Link::to_leaf(&leaf(1));
    let (directory, _) = Directory { body, links: vec![body; 20] }.encode().unwrap();
    let rng = SeededRng::new(5);
    for sample in [inner, directory] {
        for _ in 0..20_000 {
            let mut bytes = sample.bytes().to_vec();
            let [count, cut, ..]: [u8; 4] = random(&rng).unwrap();
            for _ in 0..=count % 6 {
                let [a, b, value, _]: [u8; 4] = random(&rng).unwrap();
                let at = usize::from(u16::from_le_bytes([a, b])) % bytes.len();
                bytes[at] = if value % 3 == 0 { 0xff } else { value };
            }
            if cut == 0 {
                bytes.truncate(bytes.len() / 2);
            }
            let _ = Directory::decode(&bytes);
            let block = Block::dag_pb(bytes).unwrap();
            let _ = links(&block);
            let dag = FileDag { root: Link::to_leaf(&block), filesize: 1, leaves: 200 };
            let change = LeafChange { at: 0, cid: *leaf(1).cid(), len: 1 };
            let _ = update(&dag, &[change], &mut |_| Ok(block.clone()), &mut MemorySource::new());
        }
    }
}

proptest! {
    #[test]
    fn decoding_is_total(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = Directory::decode(&bytes);
        let _ = links(&Block::dag_pb(bytes).unwrap());
    }
}
