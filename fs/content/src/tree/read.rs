//! Reading: single rows, ranges, whole trees.

use super::{Entry, LEVELS_MAX, Node, Tree, TreeError, Variant};
use crate::block::{Block, BlockAt, BlockSink, PieceId, SinkError};
use crate::retrieve::FetchError;
use bytes::Bytes;
use cid::Cid;
use std::collections::HashMap;
use std::ops::ControlFlow;
use std::sync::Arc;

/// Children announced ahead to [`NodeSource::hint`] while a range is read.
const HINT_CHILDREN: usize = 8;

/// Why a node's block did not come.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// It is nowhere, by what this machine knows.
    #[error("the block is not known here")]
    Missing,
    /// The network did not give it.
    #[error(transparent)]
    Fetch(#[from] FetchError),
    /// Whatever the source's owner has to say.
    #[error(transparent)]
    Other(Box<dyn std::error::Error + Send + Sync>),
}

/// Where nodes come from: the local pieces, then the network.
pub trait NodeSource<V: Variant> {
    /// The block `V::body(node)`.
    fn node(&self, node: &V::Ref) -> Result<Block, SourceError>;

    /// These will probably be read soon. A source may fetch them ahead.
    fn hint(&self, _nodes: &[V::Ref]) {}
}

impl<V: Variant, S: NodeSource<V> + ?Sized> NodeSource<V> for &S {
    fn node(&self, node: &V::Ref) -> Result<Block, SourceError> {
        (**self).node(node)
    }

    fn hint(&self, nodes: &[V::Ref]) {
        (**self).hint(nodes);
    }
}

impl<V: Variant, S: NodeSource<V> + ?Sized> NodeSource<V> for Arc<S> {
    fn node(&self, node: &V::Ref) -> Result<Block, SourceError> {
        (**self).node(node)
    }

    fn hint(&self, nodes: &[V::Ref]) {
        (**self).hint(nodes);
    }
}

impl<V: Variant> Tree<V> {
    /// A node, decoded; from the cache if it was read lately.
    pub fn load(&self, source: &dyn NodeSource<V>, node: &V::Ref) -> Result<Arc<Node>, TreeError> {
        let cid = V::body(node);
        if let Some(found) = self.cache.lock().get(cid) {
            return Ok(found);
        }
        let failed = |source| TreeError::Source { cid: Box::new(*cid), source };
        let block = source.node(node).map_err(failed)?;
        if block.cid() != cid {
            return Err(failed(SourceError::Fetch(FetchError::Corrupt)));
        }
        let decoded = Arc::new(Node::open::<V>(&block, V::key(node))?);
        self.cache.lock().put(*cid, decoded.clone());
        Ok(decoded)
    }

    /// A child of an inner node. That levels descend by one bounds every walk.
    pub(super) fn child(
        &self,
        source: &dyn NodeSource<V>,
        parent: &Node,
        at: usize,
    ) -> Result<Option<Arc<Node>>, TreeError> {
        let Some(entry) = parent.entries.get(at) else { return Ok(None) };
        let child = self.load(source, &V::from_entry(entry)?)?;
        if child.level + 1 != parent.level || child.first_key() != entry.key {
            return Err(TreeError::Malformed("a child that does not fit its parent".to_owned()));
        }
        Ok(Some(child))
    }

    /// One row.
    pub fn get(
        &self,
        source: &dyn NodeSource<V>,
        root: &V::Ref,
        key: &[u8],
    ) -> Result<Option<Entry>, TreeError> {
        let mut node = self.load(source, root)?;
        loop {
            let Some(at) = node.position_not_above(key) else { return Ok(None) };
            if node.level == 0 {
                return Ok(node.entries.get(at).filter(|entry| entry.key == key).cloned());
            }
            match self.child(source, &node, at)? {
                Some(child) => node = child,
                None => return Ok(None),
            }
        }
    }

    /// Rows from `start` (included) on, in order, until `end` (excluded) or the last.
    pub fn iter<'a>(
        &'a self,
        source: &'a dyn NodeSource<V>,
        root: &V::Ref,
        start: &[u8],
        end: Option<&[u8]>,
    ) -> Result<TreeIter<'a, V>, TreeError> {
        let mut path = Vec::new();
        let mut node = self.load(source, root)?;
        loop {
            let at = match node.level {
                0 => node.entries.partition_point(|entry| entry.key.as_ref() < start),
                _ => node.position_not_above(start).unwrap_or(0),
            };
            let child = if node.level > 0 { self.child(source, &node, at)? } else { None };
            path.push((node, at));
            match child {
                Some(child) => node = child,
                None => break,
            }
        }
        Ok(TreeIter { tree: self, source, path, end: end.map(Bytes::copy_from_slice), failed: false })
    }

    /// At most `limit` rows from `start` (included) to `end` (excluded).
    pub fn range(
        &self,
        source: &dyn NodeSource<V>,
        root: &V::Ref,
        start: &[u8],
        end: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<Entry>, TreeError> {
        self.iter(source, root, start, end)?.take(limit).collect()
    }

    /// Every node, parents first. `visit` may stop the walk.
    pub fn walk(
        &self,
        source: &dyn NodeSource<V>,
        root: &V::Ref,
        visit: &mut dyn FnMut(&V::Ref, &Node) -> ControlFlow<()>,
    ) -> Result<(), TreeError> {
        let mut pending = vec![(root.clone(), None::<(u8, Bytes)>)];
        while let Some((reference, expected)) = pending.pop() {
            let node = self.load(source, &reference)?;
            let fits = expected.is_none_or(|(level, key)| node.level == level && node.first_key() == key);
            if !fits {
                return Err(TreeError::Malformed("a child that does not fit its parent".to_owned()));
            }
            if visit(&reference, &node).is_break() {
                return Ok(());
            }
            if let Some(below) = node.level.checked_sub(1) {
                for entry in node.entries.iter().rev() {
                    pending.push((V::from_entry(entry)?, Some((below, entry.key.clone()))));
                }
            }
        }
        Ok(())
    }
}

/// Rows in order. After an error it ends.
pub struct TreeIter<'a, V: Variant> {
    tree: &'a Tree<V>,
    source: &'a dyn NodeSource<V>,
    /// From the root to a leaf: nodes and the next place in the leaf, the present place above it.
    path: Vec<(Arc<Node>, usize)>,
    end: Option<Bytes>,
    failed: bool,
}

impl<V: Variant> TreeIter<'_, V> {
    fn step(&mut self) -> Result<Option<Entry>, TreeError> {
        loop {
            let Some((node, at)) = self.path.last_mut() else { return Ok(None) };
            if node.level == 0 {
                if let Some(entry) = node.entries.get(*at) {
                    let inside = self.end.as_ref().is_none_or(|end| entry.key < end);
                    *at += 1;
                    return Ok(inside.then(|| entry.clone()));
                }
                self.path.pop();
                if let Some((_, at)) = self.path.last_mut() {
                    *at += 1;
                }
                continue;
            }
            if node.level == 1 && *at % HINT_CHILDREN == 1 {
                self.hint();
            }
            self.descend()?;
        }
    }

    /// From the inner node at the path's end into its present child, or up when there is none.
    fn descend(&mut self) -> Result<(), TreeError> {
        let Some((node, at)) = self.path.last() else { return Ok(()) };
        debug_assert!(self.path.len() <= usize::from(LEVELS_MAX) + 1);
        match self.tree.child(self.source, node, *at)? {
            Some(child) => self.path.push((child, 0)),
            None => {
                self.path.pop();
                if let Some((_, at)) = self.path.last_mut() {
                    *at += 1;
                }
            }
        }
        Ok(())
    }

    fn hint(&self) {
        let Some((node, at)) = self.path.last() else { return };
        let ahead = node.entries.iter().skip(*at).take(HINT_CHILDREN);
        let wanted = ahead.take_while(|entry| self.end.as_ref().is_none_or(|end| entry.key < end));
        let references: Vec<V::Ref> = wanted.filter_map(|entry| V::from_entry(entry).ok()).collect();
        self.source.hint(&references);
    }
}

impl<V: Variant> Iterator for TreeIter<'_, V> {
    type Item = Result<Entry, TreeError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed {
            return None;
        }
        match self.step() {
            Ok(Some(entry)) => Some(Ok(entry)),
            Ok(None) => {
                self.failed = true;
                None
            }
            Err(error) => {
                self.failed = true;
                Some(Err(error))
            }
        }
    }
}

/// Blocks in memory: the sink and the source of tests and of small trees.
#[derive(Debug, Default)]
pub struct MemorySource {
    blocks: parking_lot::RwLock<HashMap<Cid, Block>>,
    written: u64,
}

impl MemorySource {
    /// Empty.
    pub fn new() -> Self {
        Self::default()
    }

    /// A block by CID.
    pub fn block(&self, cid: &Cid) -> Option<Block> {
        self.blocks.read().get(cid).cloned()
    }

    /// How many different blocks it holds.
    pub fn len(&self) -> usize {
        self.blocks.read().len()
    }

    /// Whether it holds none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many blocks were put, repetitions included.
    pub fn written(&self) -> u64 {
        self.written
    }

    /// Forgets a block.
    pub fn remove(&self, cid: &Cid) {
        self.blocks.write().remove(cid);
    }
}

impl<V: Variant> NodeSource<V> for MemorySource {
    fn node(&self, node: &V::Ref) -> Result<Block, SourceError> {
        self.block(V::body(node)).ok_or(SourceError::Missing)
    }
}

impl BlockSink for MemorySource {
    /// A block's place is made from its number, in one endless piece.
    fn put(&mut self, block: Block) -> Result<BlockAt, SinkError> {
        const PIECE: PieceId = [0x4d; 16];
        let at = BlockAt { cid: *block.cid(), piece: PIECE, offset: self.written << 24, len: block.len() };
        self.written += 1;
        self.blocks.write().insert(*block.cid(), block);
        Ok(at)
    }
}
