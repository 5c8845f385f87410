#![allow(clippy::unwrap_used)]

use super::*;
use crate::block::{Block, BlockSink};
use crate::keys::{Mnemonic, TreeDomain};
use crate::retrieve::FetchError;
use crate::rng::{Rng, SeededRng};
use crate::unixfs::{self, Directory};
use proptest::prelude::*;
use std::collections::{BTreeMap, HashSet};
use std::ops::ControlFlow;

type Row = (Vec<u8>, Vec<Link>);
type Model = BTreeMap<Vec<u8>, Row>;
type Changes = BTreeMap<Vec<u8>, Option<Row>>;

fn tree<V: Variant>() -> Tree<V> {
    let keys = Mnemonic::from_entropy([1; 32]).root_key().generation(1).keys();
    Tree::new(keys.tree(TreeDomain::Namespace), 32 << 20)
}

/// A leaf that exists nowhere: links are only names here.
fn link(n: u32) -> Link {
    Link { cid: *Block::raw(n.to_le_bytes().to_vec()).unwrap().cid(), tsize: u64::from(n) }
}

fn row(n: u32, version: u32) -> (Vec<u8>, Vec<u8>, Vec<Link>) {
    let mut key = vec![2];
    key.extend_from_slice(&u64::from(n.wrapping_mul(2_654_435_761) >> 3).to_be_bytes());
    let mut value = vec![0; 40 + (n as usize * 7) % 90];
    SeededRng::new(u64::from(n) << 32 | u64::from(version)).fill(&mut value).unwrap();
    let links = if n.is_multiple_of(3) { vec![link(n)] } else { Vec::new() };
    (key, value, links)
}

fn edits_of(changes: &Changes) -> Vec<Edit> {
    let edit = |(key, change): (&Vec<u8>, &Option<Row>)| Edit {
        key: key.clone().into(),
        change: change.clone().map(|(value, links)| (value.into(), links)),
    };
    changes.iter().map(edit).collect()
}

fn apply_to_model(model: &mut Model, changes: &Changes) {
    for (key, change) in changes {
        match change {
            Some(change) => model.insert(key.clone(), change.clone()),
            None => model.remove(key),
        };
    }
}

fn all_edits(model: &Model) -> Vec<Edit> {
    model.iter().map(|(key, (value, links))| Edit::put(key.clone(), value.clone(), links.clone())).collect()
}

/// Writes into a copy of the store's handle: a source and a sink at once.
struct Scratch(MemorySource);

impl Scratch {
    fn apply<V: Variant>(
        &mut self,
        tree: &Tree<V>,
        root: Option<&V::Ref>,
        edits: Vec<Edit>,
    ) -> Applied<V::Ref> {
        let mut written = Vec::new();
        struct Collect<'a>(&'a mut Vec<Block>, u64);
        impl BlockSink for Collect<'_> {
            fn put(&mut self, block: Block) -> Result<crate::BlockAt, SinkError> {
                self.1 += 1;
                let (cid, len) = (*block.cid(), block.len());
                self.0.push(block);
                Ok(crate::BlockAt { cid, piece: [1; 16], offset: self.1, len })
            }
        }
        let done = tree.apply(&self.0, root, edits, &mut Collect(&mut written, 0)).unwrap();
        for block in written {
            self.0.put(block).unwrap();
        }
        done
    }
}

fn rows<V: Variant>(tree: &Tree<V>, source: &MemorySource, root: &V::Ref) -> Vec<Entry> {
    tree.range(source, root, &[], None, usize::MAX).unwrap()
}

fn expected(model: &Model) -> Vec<Entry> {
    all_edits(model)
        .into_iter()
        .map(|edit| {
            let (value, links) = edit.change.unwrap();
            Entry { key: edit.key, value, links }
        })
        .collect()
}

#[test]
fn an_empty_tree_has_a_root() {
    let tree = tree::<Namespace>();
    let mut store = Scratch(MemorySource::new());
    let empty = store.apply(&tree, None, Vec::new()).root;
    assert!(rows(&tree, &store.0, &empty).is_empty());
    assert_eq!(tree.get(&store.0, &empty, b"x").unwrap(), None);
    let one = store.apply(&tree, Some(&empty), vec![Edit::put(&b"x"[..], &b"1"[..], vec![])]).root;
    assert_eq!(tree.get(&store.0, &one, b"x").unwrap().unwrap().value.as_ref(), b"1");
    let again = store.apply(&tree, Some(&one), vec![Edit::delete(&b"x"[..])]).root;
    assert_eq!(again, empty);
}

#[test]
fn a_large_tree_is_history_independent_bounded_and_cheap_to_change() {
    let tree = tree::<Namespace>();
    let mut store = Scratch(MemorySource::new());
    let mut model = Model::new();
    for n in 0..20_000 {
        let (key, value, links) = row(n, 0);
        model.insert(key, (value, links));
    }
    let whole = store.apply(&tree, None, all_edits(&model));
    assert_eq!(rows(&tree, &store.0, &whole.root), expected(&model));

    // The same rows, in three portions.
    let mut root = None;
    for part in 0..3usize {
        let edits =
            all_edits(&model).into_iter().enumerate().filter(|(n, _)| n * 7 % 3 == part).map(|(_, e)| e);
        root = Some(store.apply(&tree, root.as_ref(), edits.collect()).root);
    }
    assert_eq!(root.as_ref(), Some(&whole.root));

    // Bounds and sizes of nodes.
    let mut sizes = Vec::new();
    tree.walk(&store.0, &whole.root, &mut |reference, node| {
        let len = store.0.block(&reference.body).unwrap().len();
        assert!(len as usize <= Shape::NAMESPACE.max + 4096);
        if node.level == 0 {
            sizes.push(len);
        }
        ControlFlow::Continue(())
    })
    .unwrap();
    let mean = sizes.iter().map(|&len| len as usize).sum::<usize>() / sizes.len();
    assert!((10_000..24_000).contains(&mean), "mean leaf {mean} bytes of {} leaves", sizes.len());

    // One change writes a path and perhaps neighbours.
    let (mut most, mut sum) = (0, 0);
    for n in 0..200 {
        let (key, value, links) = row(n * 97, 1);
        let done = store.apply(&tree, Some(&whole.root), vec![Edit::put(key, value, links)]);
        most = most.max(done.nodes_written);
        sum += done.nodes_written;
        assert_ne!(done.root, whole.root);
    }
    assert!(most <= 12 && sum <= 200 * 5, "at most {most}, {sum} nodes in 200 changes");

    // A change that changes nothing writes nothing.
    let (key, value, links) = row(5, 0);
    let absent = vec![Edit::put(key, value, links), Edit::delete(vec![0xff; 9])];
    let same = store.apply(&tree, Some(&whole.root), absent);
    assert_eq!((same.root, same.nodes_written), (whole.root.clone(), 0));

    // All gone, by halves.
    let keys: Vec<_> = model.keys().cloned().collect();
    let half =
        |at: usize| keys.iter().skip(at).step_by(2).map(|key| Edit::delete(key.clone())).collect::<Vec<_>>();
    let left = store.apply(&tree, Some(&whole.root), half(0)).root;
    assert_eq!(rows(&tree, &store.0, &left).len(), 10_000);
    let none = store.apply(&tree, Some(&left), half(1)).root;
    assert_eq!(none, store.apply(&tree, None, Vec::new()).root);
}

#[test]
fn one_root_reaches_every_block_as_plain_unixfs() {
    let tree = tree::<Namespace>();
    let mut store = Scratch(MemorySource::new());
    let mut edits: Vec<Edit> =
        (0..3000).map(|n| row(n, 0)).map(|(key, value, links)| Edit::put(key, value, links)).collect();
    edits.sort_by(|a, b| a.key.cmp(&b.key));
    let linked: HashSet<Cid> = edits
        .iter()
        .flat_map(|e| e.change.iter().flat_map(|(_, links)| links))
        .map(|link| link.cid)
        .collect();
    let root = store.apply(&tree, None, edits).root;
    let mut pending = vec![root.root];
    let mut met = HashSet::new();
    while let Some(cid) = pending.pop() {
        if !met.insert(cid) || linked.contains(&cid) {
            continue;
        }
        let block = store.0.block(&cid).unwrap();
        if cid.codec() == crate::block::CODEC_DAG_PB {
            let directory = Directory::decode(block.bytes()).unwrap();
            let text = String::from_utf8_lossy(block.bytes()).into_owned();
            assert!(!text.contains("key"));
            let below: u64 = directory.links.iter().map(|link| link.tsize).sum();
            let tsize = below + directory.body.tsize + u64::from(block.len());
            if cid == root.root {
                assert_eq!(root.tsize, tsize);
            }
        }
        pending.extend(unixfs::links(&block).unwrap());
    }
    assert!(linked.iter().all(|cid| met.contains(cid)), "every row's link is reached");
    assert_eq!(met.len() - linked.len(), store.0.len(), "every written block is reached");
}

#[test]
fn a_physical_tree_is_single_blocks() {
    let tree = tree::<Physical>();
    let mut store = Scratch(MemorySource::new());
    let edits: Vec<Edit> =
        (0..5000u32).map(|n| Edit::put(n.to_be_bytes().to_vec(), vec![7; 30], Vec::new())).collect();
    let done = store.apply(&tree, None, edits);
    assert_eq!(done.nodes_written as usize, store.0.len());
    assert_eq!(rows(&tree, &store.0, &done.root).len(), 5000);
    let changed =
        store.apply(&tree, Some(&done.root), vec![Edit::put(77u32.to_be_bytes().to_vec(), vec![8], vec![])]);
    assert!(changed.nodes_written <= 4, "{}", changed.nodes_written);
    let found = tree.get(&store.0, &changed.root, &77u32.to_be_bytes()).unwrap().unwrap();
    assert_eq!(found.value.as_ref(), [8]);
}

#[test]
fn diff_reads_only_differences() {
    struct Counting<'a>(&'a MemorySource, std::cell::Cell<usize>);
    impl NodeSource<Namespace> for Counting<'_> {
        fn node(&self, node: &NodeRef) -> Result<Block, SourceError> {
            self.1.set(self.1.get() + 1);
            NodeSource::<Namespace>::node(self.0, node)
        }
    }
    let mut store = Scratch(MemorySource::new());
    let mut edits: Vec<Edit> =
        (0..30_000).map(|n| row(n, 0)).map(|(key, value, links)| Edit::put(key, value, links)).collect();
    edits.sort_by(|a, b| a.key.cmp(&b.key));
    let old = store.apply(&tree::<Namespace>(), None, edits.clone()).root;
    let (key, value, links) = row(17, 9);
    let changes = vec![Edit::put(key.clone(), value, links)];
    let new = store.apply(&tree::<Namespace>(), Some(&old), changes).root;
    let source = Counting(&store.0, std::cell::Cell::new(0));
    let mut found = Vec::new();
    tree::<Namespace>()
        .diff(&source, Some(&old), Some(&new), &mut |difference| {
            found.push(difference);
            ControlFlow::Continue(())
        })
        .unwrap();
    assert!(matches!(found.as_slice(), [Difference::Changed { new, .. }] if new.key == key));
    assert!(source.1.get() <= 12, "{} nodes read", source.1.get());
}

#[test]
fn missing_and_foreign_nodes_are_errors() {
    let mut store = Scratch(MemorySource::new());
    let mut edits: Vec<Edit> =
        (0..2000).map(|n| row(n, 0)).map(|(key, value, links)| Edit::put(key, value, links)).collect();
    edits.sort_by(|a, b| a.key.cmp(&b.key));
    let root = store.apply(&tree::<Namespace>(), None, edits.clone()).root;
    let reader = tree::<Namespace>();
    let wrong = NodeRef { key: crate::keys::SecretKey32::from_bytes([0; 32]), ..root.clone() };
    assert!(matches!(reader.get(&store.0, &wrong, b"x"), Err(TreeError::WrongKey(_))));
    let reader = tree::<Namespace>();
    let first =
        reader.load(&store.0, &root).unwrap().entries.first().map(Namespace::from_entry).unwrap().unwrap();
    store.0.remove(&first.body);
    let error = reader.range(&store.0, &root, &[], None, 10).unwrap_err();
    assert!(matches!(error, TreeError::Source { source: SourceError::Missing, .. }), "{error}");
    assert!(!error.is_retryable());
    struct Stalled;
    impl NodeSource<Namespace> for Stalled {
        fn node(&self, _: &NodeRef) -> Result<Block, SourceError> {
            Err(FetchError::Timeout.into())
        }
    }
    assert!(tree::<Namespace>().get(&Stalled, &root, b"x").unwrap_err().is_retryable());
    let unsorted = vec![edits[1].clone(), edits[0].clone()];
    let source = MemorySource::new();
    let mut sink = MemorySource::new();
    let error = tree::<Namespace>().apply(&source, None, unsorted, &mut sink).unwrap_err();
    assert!(matches!(error, TreeError::Unsorted));
    let large = vec![Edit::put(vec![0; KEY_BYTES_MAX + 1], vec![], vec![])];
    let error = tree::<Namespace>().apply(&source, None, large, &mut sink).unwrap_err();
    assert!(matches!(error, TreeError::TooLarge { .. }));
}

#[test]
fn golden() {
    let edits = || -> Vec<Edit> {
        let mut edits: Vec<Edit> =
            (0..1000).map(|n| row(n, 0)).map(|(key, value, links)| Edit::put(key, value, links)).collect();
        edits.sort_by(|a, b| a.key.cmp(&b.key));
        edits
    };
    let mut store = Scratch(MemorySource::new());
    let root = store.apply(&tree::<Namespace>(), None, edits()).root;
    let node = Node {
        level: 0,
        entries: vec![
            Entry { key: b"ab".as_ref().into(), value: b"v".as_ref().into(), links: vec![link(1)] },
            Entry { key: b"abc".as_ref().into(), value: Bytes::new(), links: vec![] },
        ],
    };
    let encoded = data_encoding::HEXLOWER.encode(&node.encode::<Namespace>().unwrap());
    crate::golden::check("tree", &format!("{}\n{}\n{encoded}", root.root, root.body));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    /// Any edits in any portions: the tree is the model, and its root depends on the rows alone.
    #[test]
    fn equals_the_model(steps in prop::collection::vec(
        prop::collection::btree_map(0u32..3000, prop::option::weighted(0.7, 0u32..4), 0..400), 1..8)) {
        let tree = tree::<Namespace>();
        let mut store = Scratch(MemorySource::new());
        let mut model = Model::new();
        let mut root = None;
        let mut roots = Vec::new();
        for step in &steps {
            let changes: BTreeMap<_, _> = step.iter().map(|(&n, version)| {
                let (key, _, _) = row(n, 0);
                (key, version.map(|version| { let (_, value, links) = row(n, version); (value, links) }))
            }).collect();
            apply_to_model(&mut model, &changes);
            root = Some(store.apply(&tree, root.as_ref(), edits_of(&changes)).root);
            roots.push((root.clone().unwrap(), model.clone()));
        }
        let root = root.unwrap();
        prop_assert_eq!(rows(&tree, &store.0, &root), expected(&model));
        prop_assert_eq!(&store.apply(&tree, None, all_edits(&model)).root, &root);
        for n in (0..3000).step_by(61) {
            let (key, _, _) = row(n, 0);
            let found = tree.get(&store.0, &root, &key).unwrap().map(|entry| (entry.value.to_vec(), entry.links));
            prop_assert_eq!(found.as_ref(), model.get(&key));
            let (end, _, _) = row(n + 1, 0);
            let range = tree.range(&store.0, &root, &key, Some(&end), 50).unwrap();
            let wanted: Vec<_> = if key < end {
                model.range(key..end).take(50).map(|(key, _)| key.clone()).collect()
            } else { Vec::new() };
            prop_assert_eq!(range.iter().map(|entry| entry.key.to_vec()).collect::<Vec<_>>(), wanted);
        }
        let (first, before) = &roots[0];
        let mut patched = before.clone();
        tree.diff(&store.0, Some(first), Some(&root), &mut |difference| {
            match difference {
                Difference::Added(e) | Difference::Changed { new: e, .. } => {
                    patched.insert(e.key.to_vec(), (e.value.to_vec(), e.links));
                }
                Difference::Removed(e) => { patched.remove(e.key.as_ref()); }
            }
            ControlFlow::Continue(())
        }).unwrap();
        prop_assert_eq!(patched, model);
    }

    /// Small keys and large values: forced cuts, single entries above the soft limit, levels that come and go.
    #[test]
    fn odd_sizes(entries in prop::collection::btree_map(
        prop::collection::vec(any::<u8>(), 0..40), (0usize..70_000, any::<u8>()), 1..60), drop in any::<u64>()) {
        let tree = tree::<Namespace>();
        let mut store = Scratch(MemorySource::new());
        let put = |(key, (len, byte)): (&Vec<u8>, &(usize, u8))| Edit::put(key.clone(), vec![*byte; *len], vec![]);
        let whole = store.apply(&tree, None, entries.iter().map(put).collect()).root;
        let gone: Vec<_> = entries.keys().enumerate()
            .filter(|(n, _)| drop >> (n % 64) & 1 == 1).map(|(_, key)| key.clone()).collect();
        let less = store.apply(&tree, Some(&whole), gone.iter().map(|key| Edit::delete(key.clone())).collect()).root;
        let kept: Vec<_> = entries.iter().filter(|(key, _)| !gone.contains(key)).map(put).collect();
        prop_assert_eq!(&store.apply(&tree, None, kept).root, &less);
        let back = entries.iter().filter(|(key, _)| gone.contains(key)).map(put).collect();
        prop_assert_eq!(&store.apply(&tree, Some(&less), back).root, &whole);
    }

    /// Decoding is total, and what it accepts encodes to the same bytes.
    #[test]
    fn node_decoding_is_total(bytes in prop::collection::vec(any::<u8>(), 0..300), level in 0u8..3, count in 0u8..9) {
        let mut framed = vec![1, 1, level, count];
        framed.extend_from_slice(&bytes);
        for input in [bytes, framed] {
            if let Ok(node) = Node::decode::<Namespace>(input.clone().into()) {
                prop_assert_eq!(node.encode::<Namespace>().unwrap(), input);
            }
        }
    }

    /// Damage to a real node gives an error or another canonical node, never a panic.
    #[test]
    fn damaged_nodes(at in any::<prop::sample::Index>(), flip in 1u8..=255, cut in any::<prop::sample::Index>()) {
        let mut entries: Vec<Entry> = (0..50).map(|n| row(n, 0))
            .map(|(key, value, links)| Entry { key: key.into(), value: value.into(), links }).collect();
        entries.sort_by(|a, b| a.key.cmp(&b.key));
        let mut bytes = Node { level: 0, entries }.encode::<Namespace>().unwrap();
        prop_assert!(Node::decode::<Namespace>(bytes[..cut.index(bytes.len())].to_vec().into()).is_err());
        let at = at.index(bytes.len());
        bytes[at] ^= flip;
        if let Ok(node) = Node::decode::<Namespace>(bytes.clone().into()) {
            prop_assert_eq!(node.encode::<Namespace>().unwrap(), bytes);
        }
    }
}
