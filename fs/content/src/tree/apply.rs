//! Changing rows.
//!
//! Each level is done in one pass from left to right: the old nodes that hold an edited key are cut anew, together with
//! the edits, until a cut falls on an old node's end; from there on the old nodes stand. What a pass removed and added
//! are the edits of the level above. From the old root's level upwards the pass yields the whole level, and levels are
//! added until one node is left, or removed while the root has a single child.

use super::shape::entry_weight;
use super::{
    ENTRY_LINKS_MAX, Edit, Entry, KEY_BYTES_MAX, LEVELS_MAX, Node, NodeSource, Tree, TreeError,
    VALUE_BYTES_MAX, Variant,
};
use crate::block::BlockSink;
use bytes::Bytes;
use cid::Cid;
use std::collections::BTreeMap;
use std::sync::Arc;

/// What [`Tree::apply`] did.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Applied<R> {
    /// The new root.
    pub root: R,
    /// Nodes written.
    pub nodes_written: u64,
    /// Bytes of their ciphertexts.
    pub bytes_written: u64,
}

impl<V: Variant> Tree<V> {
    /// Applies edits, in strictly ascending order of keys, to `root` (nothing: the empty tree) and writes the new nodes,
    /// children first. Edits that change nothing write nothing. The empty tree is a leaf without rows.
    pub fn apply(
        &self,
        source: &dyn NodeSource<V>,
        root: Option<&V::Ref>,
        edits: impl IntoIterator<Item = Edit>,
        sink: &mut dyn BlockSink,
    ) -> Result<Applied<V::Ref>, TreeError> {
        Job::new(self, source, sink, false).apply(root, &mut edits.into_iter())
    }

    /// The same, and every node on the way to an edit is given to the sink, changed or not: the sink decides where it lies. Edits that repeat a row
    /// as it is move the nodes above it.
    pub fn apply_anew(
        &self,
        source: &dyn NodeSource<V>,
        root: Option<&V::Ref>,
        edits: impl IntoIterator<Item = Edit>,
        sink: &mut dyn BlockSink,
    ) -> Result<Applied<V::Ref>, TreeError> {
        Job::new(self, source, sink, true).apply(root, &mut edits.into_iter())
    }
}

struct Job<'a, V: Variant> {
    tree: &'a Tree<V>,
    source: &'a dyn NodeSource<V>,
    sink: &'a mut dyn BlockSink,
    /// For each level the last new node, and its child if it has only one: new nodes cannot be read back yet.
    latest: Vec<Option<(Cid, Option<Entry>)>>,
    /// An old node that comes out equal is written all the same.
    anew: bool,
    nodes: u64,
    bytes: u64,
}

/// What a pass did to its level.
#[derive(Default)]
struct Done {
    /// For the level above: removed nodes (nothing) and added ones, by first key.
    edits: BTreeMap<Bytes, Option<Entry>>,
    /// All nodes that the pass ended, old ones that stand included.
    nodes: Vec<Entry>,
    /// The level would be one node with one child: it is not written, the child is the root.
    only_child: Option<Entry>,
}

/// A level being cut.
struct Cut {
    level: u8,
    /// Whether the pass yields the level whole.
    whole: bool,
    /// The unfinished node.
    entries: Vec<Entry>,
    weight: usize,
    /// The old node that begins where the unfinished one does: if they come out equal, it stands.
    old: Option<(Entry, Arc<Node>)>,
    done: Done,
}

impl<'a, V: Variant> Job<'a, V> {
    fn new(
        tree: &'a Tree<V>,
        source: &'a dyn NodeSource<V>,
        sink: &'a mut dyn BlockSink,
        anew: bool,
    ) -> Self {
        Self { tree, source, sink, latest: Vec::new(), anew, nodes: 0, bytes: 0 }
    }

    fn apply(
        mut self,
        root: Option<&V::Ref>,
        edits: &mut dyn Iterator<Item = Edit>,
    ) -> Result<Applied<V::Ref>, TreeError> {
        let root = self.run(root, edits)?;
        Ok(Applied { root, nodes_written: self.nodes, bytes_written: self.bytes })
    }

    fn run(
        &mut self,
        root: Option<&V::Ref>,
        edits: &mut dyn Iterator<Item = Edit>,
    ) -> Result<V::Ref, TreeError> {
        let old = match root {
            Some(root) => Some((root, self.tree.load(self.source, root)?)),
            None => None,
        };
        let height = old.as_ref().map_or(0, |(_, node)| node.level);
        let mut edits = Edits::new(edits);
        for level in 0..=LEVELS_MAX {
            let old = old.as_ref().filter(|_| level <= height);
            let whole = level >= height;
            let mut done = self.pass(level, whole, old, &mut edits)?;
            if let (Some((root, _)), true) = (old, done.edits.is_empty()) {
                return Ok((*root).clone());
            }
            if let Some(child) = done.only_child {
                return self.collapse(level.saturating_sub(1), child);
            }
            let next: Vec<Edit> = match (whole, done.nodes.len()) {
                (true, 0) => return self.write(Node { level: 0, entries: Vec::new() }),
                (true, 1) => {
                    let only = done.nodes.pop().ok_or_else(|| malformed("no node"))?;
                    return V::from_entry(&only);
                }
                (true, _) => done
                    .nodes
                    .into_iter()
                    .map(|e| Edit { key: e.key, change: Some((e.value, e.links)) })
                    .collect(),
                (false, _) => {
                    let changed = done.edits.into_iter();
                    changed.map(|(key, e)| Edit { key, change: e.map(|e| (e.value, e.links)) }).collect()
                }
            };
            edits = Edits::owned(next);
        }
        Err(malformed("too many levels"))
    }

    /// The root is the lowest node that holds everything: descends through nodes with a single child.
    fn collapse(&mut self, mut level: u8, mut top: Entry) -> Result<V::Ref, TreeError> {
        loop {
            let reference = V::from_entry(&top)?;
            let below = match self.latest.get(usize::from(level)) {
                Some(Some((cid, child))) if cid == V::body(&reference) => child.clone(),
                _ => match self.tree.load(self.source, &reference)?.entries.as_slice() {
                    [child] if level > 0 => Some(child.clone()),
                    _ => None,
                },
            };
            match below {
                Some(child) if level > 0 => top = child,
                _ => return Ok(reference),
            }
            level -= 1;
        }
    }

    fn write(&mut self, node: Node) -> Result<V::Ref, TreeError> {
        let (body, key) = node.seal::<V>(&self.tree.keys.node)?;
        self.nodes += 1;
        self.bytes += u64::from(body.len());
        let reference = V::write(self.sink, body, key, &node)?;
        let child = match node.entries.as_slice() {
            [only] if node.level > 0 => Some(only.clone()),
            _ => None,
        };
        let level = usize::from(node.level);
        if self.latest.len() <= level {
            self.latest.resize(level + 1, None);
        }
        if let Some(slot) = self.latest.get_mut(level) {
            *slot = Some((*V::body(&reference), child));
        }
        self.tree.cache.lock().put(*V::body(&reference), Arc::new(node));
        Ok(reference)
    }

    /// Cuts one level anew where `edits` touch it.
    fn pass(
        &mut self,
        level: u8,
        whole: bool,
        root: Option<&(&V::Ref, Arc<Node>)>,
        edits: &mut Edits<'_>,
    ) -> Result<Done, TreeError> {
        let mut cut = Cut { level, whole, entries: Vec::new(), weight: 0, old: None, done: Done::default() };
        while let Some(key) = edits.peek()?.cloned() {
            // Here a node has just ended, so the old node that holds the key may be cut from its beginning.
            let Some(root) = root else {
                self.merge(&mut cut, &[], None, edits)?;
                continue;
            };
            let mut place = Place::seek(self, root, level, &key)?;
            loop {
                let upper = place.upper().cloned();
                cut.open(place.entry.clone(), place.node.clone());
                self.merge(&mut cut, &place.node.entries, upper.as_ref(), edits)?;
                let Some(upper) = upper else { break };
                let in_step = cut.entries.is_empty();
                if in_step && edits.peek()?.is_none_or(|key| *key >= upper) {
                    break;
                }
                place.advance(self)?;
            }
        }
        self.finish(&mut cut)?;
        Ok(cut.done)
    }

    /// Feeds an old node's entries and the edits below `upper`.
    fn merge(
        &mut self,
        cut: &mut Cut,
        old: &[Entry],
        upper: Option<&Bytes>,
        edits: &mut Edits<'_>,
    ) -> Result<(), TreeError> {
        let mut old = old.iter().peekable();
        loop {
            let edit = edits.peek()?.filter(|key| upper.is_none_or(|upper| *key < upper));
            let take_edit = match (old.peek(), edit) {
                (None, None) => return Ok(()),
                (Some(entry), Some(key)) => *key <= entry.key,
                (None, Some(_)) => true,
                (Some(_), None) => false,
            };
            if take_edit {
                let Some(edit) = edits.next() else { return Ok(()) };
                old.next_if(|entry| entry.key == edit.key);
                if let Some((value, links)) = edit.change {
                    self.push(cut, Entry { key: edit.key, value, links })?;
                }
            } else if let Some(entry) = old.next() {
                self.push(cut, entry.clone())?;
            }
        }
    }

    fn push(&mut self, cut: &mut Cut, entry: Entry) -> Result<(), TreeError> {
        cut.weight += entry_weight(&entry);
        cut.entries.push(entry);
        let boundary = self.tree.keys.boundary.as_bytes();
        let ends = cut
            .entries
            .last()
            .is_some_and(|entry| V::SHAPE.ends(boundary, cut.level, entry, cut.weight, cut.entries.len()));
        if ends { self.end_node(cut) } else { Ok(()) }
    }

    /// Ends the level.
    fn finish(&mut self, cut: &mut Cut) -> Result<(), TreeError> {
        match cut.entries.as_slice() {
            [] => Ok(()),
            [only] if cut.whole && cut.level > 0 && cut.done.nodes.is_empty() => {
                cut.done.only_child = Some(only.clone());
                Ok(())
            }
            _ => self.end_node(cut),
        }
    }

    fn end_node(&mut self, cut: &mut Cut) -> Result<(), TreeError> {
        cut.weight = 0;
        let entries = std::mem::take(&mut cut.entries);
        let stands = |old: &Node| !self.anew && old.entries == entries;
        if let Some((entry, _)) = cut.old.take().filter(|(_, old)| stands(old)) {
            cut.done.edits.remove(&entry.key);
            cut.done.nodes.push(entry);
            return Ok(());
        }
        let node = Node { level: cut.level, entries };
        let first_key = node.first_key();
        let entry = V::to_entry(first_key.clone(), &self.write(node)?)?;
        cut.done.edits.insert(first_key, Some(entry.clone()));
        cut.done.nodes.push(entry);
        Ok(())
    }
}

impl Cut {
    /// Begins with an old node's entries: the node is gone unless it comes out unchanged.
    fn open(&mut self, entry: Entry, node: Arc<Node>) {
        self.done.edits.entry(entry.key.clone()).or_insert(None);
        self.old = self.entries.is_empty().then_some((entry, node));
    }
}

/// An old node of the level being cut, and the way to it.
struct Place {
    /// Inner nodes above it, from the root, with the place of the child taken.
    path: Vec<(Arc<Node>, usize)>,
    /// How a parent lists it.
    entry: Entry,
    node: Arc<Node>,
}

impl Place {
    /// The node of `level` that holds `key`, or would.
    fn seek<V: Variant>(
        job: &Job<'_, V>,
        root: &(&V::Ref, Arc<Node>),
        level: u8,
        key: &[u8],
    ) -> Result<Self, TreeError> {
        let (reference, node) = root;
        let entry = V::to_entry(node.first_key(), reference)?;
        let mut place = Self { path: Vec::new(), entry, node: node.clone() };
        place.descend(job, level, |node| node.position_not_above(key).unwrap_or(0))?;
        Ok(place)
    }

    fn descend<V: Variant>(
        &mut self,
        job: &Job<'_, V>,
        level: u8,
        choose: impl Fn(&Node) -> usize,
    ) -> Result<(), TreeError> {
        while self.node.level > level {
            let at = choose(&self.node);
            let entry = self
                .node
                .entries
                .get(at)
                .cloned()
                .ok_or_else(|| malformed("an inner node without entries"))?;
            let child = job.tree.child(job.source, &self.node, at)?;
            let child = child.ok_or_else(|| malformed("an inner node without entries"))?;
            self.path.push((std::mem::replace(&mut self.node, child), at));
            self.entry = entry;
        }
        Ok(())
    }

    /// The first key of the next node of the level; nothing at the last.
    fn upper(&self) -> Option<&Bytes> {
        self.path.iter().rev().find_map(|(node, at)| node.entries.get(at + 1)).map(|entry| &entry.key)
    }

    /// To the next node of the level, which [`Self::upper`] has shown to exist.
    fn advance<V: Variant>(&mut self, job: &Job<'_, V>) -> Result<(), TreeError> {
        let level = self.node.level;
        while let Some((node, at)) = self.path.pop() {
            let Some(entry) = node.entries.get(at + 1).cloned() else { continue };
            let child = job.tree.child(job.source, &node, at + 1)?;
            self.node = child.ok_or_else(|| malformed("an inner node without entries"))?;
            self.entry = entry;
            self.path.push((node, at + 1));
            return self.descend(job, level, |_| 0);
        }
        Err(malformed("no further node"))
    }
}

/// Edits in order, checked as they come.
struct Edits<'a> {
    rest: Box<dyn Iterator<Item = Edit> + 'a>,
    head: Option<Edit>,
    last: Option<Bytes>,
}

impl<'a> Edits<'a> {
    fn new(edits: &'a mut dyn Iterator<Item = Edit>) -> Self {
        Self { rest: Box::new(edits), head: None, last: None }
    }

    fn owned(edits: Vec<Edit>) -> Self {
        Self { rest: Box::new(edits.into_iter()), head: None, last: None }
    }

    fn peek(&mut self) -> Result<Option<&Bytes>, TreeError> {
        if self.head.is_none() {
            self.head = self.rest.next();
            if let Some(edit) = &self.head {
                check(edit)?;
                if self.last.as_ref().is_some_and(|last| *last >= edit.key) {
                    return Err(TreeError::Unsorted);
                }
                self.last = Some(edit.key.clone());
            }
        }
        Ok(self.head.as_ref().map(|edit| &edit.key))
    }

    /// The edit that was peeked at.
    fn next(&mut self) -> Option<Edit> {
        self.head.take()
    }
}

fn check(edit: &Edit) -> Result<(), TreeError> {
    let (value, links) = edit.change.as_ref().map_or((0, 0), |(value, links)| (value.len(), links.len()));
    if edit.key.len() > KEY_BYTES_MAX || value > VALUE_BYTES_MAX || links > ENTRY_LINKS_MAX {
        return Err(TreeError::TooLarge { key: edit.key.len(), value, links });
    }
    Ok(())
}

fn malformed(why: &str) -> TreeError {
    TreeError::Malformed(why.to_owned())
}
