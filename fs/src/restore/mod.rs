//! Restore by fall-through: a commit's trees as a drive's base.
//!
//! Owns: reading the namespace tree (the [`BaseTree`] beneath a restored drive's rows) and the location tree (the [`Locator`] of blocks that have
//! no row here). Promises: one time budget for all nodes of an operation; nothing is fetched that is not asked for. Refuses: nodes that do not match
//! their CID or their key.
//!
//!     row absent in the store ─► namespace tree ─► node ─► its place: block row, or location tree ─► Retriever

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use bytes::Bytes;
use cid::Cid;
use holdfast_content::block::{Block, BlockAt};
use holdfast_content::keys::{DriveKeys, TreeDomain};
use holdfast_content::location::{self, LocationTree};
use holdfast_content::retrieve::Priority;
use holdfast_content::tree::{
    Namespace, NodeRef, NodeSource, Physical, PhysicalRef, SourceError, Tree, TreeError,
};
use holdfast_store::Table;

use crate::drive::error::DriveError;
use crate::pieces::blocks::{BlockReader, Locator, Want};
use crate::rows::{BaseError, BaseTree, ChunkRow, Ino, InodeRow, Kind, RowError, RowList, inode_flags, keys};
use crate::seal::commit_row::CommitRow;

/// The readers of both trees, with their decoded nodes.
pub(crate) struct Trees {
    pub(crate) namespace: Tree<Namespace>,
    pub(crate) location: LocationTree,
    pub(crate) blocks: Arc<BlockReader>,
    deadline: Duration,
}

impl Trees {
    pub(crate) fn new(
        keys: &DriveKeys,
        blocks: Arc<BlockReader>,
        cache_bytes_max: usize,
        deadline: Duration,
    ) -> Self {
        Self {
            namespace: Tree::new(keys.tree(TreeDomain::Namespace), cache_bytes_max),
            location: LocationTree::new(keys.tree(TreeDomain::Location), cache_bytes_max),
            blocks,
            deadline,
        }
    }

    /// A source of nodes for one operation.
    pub(crate) fn source(&self, priority: Priority) -> Source<'_> {
        Source { blocks: &self.blocks, want: self.blocks.want(priority, self.deadline) }
    }
}

/// Nodes for one operation, within its budget.
pub(crate) struct Source<'a> {
    blocks: &'a BlockReader,
    want: Want,
}

impl<'a> Source<'a> {
    pub(crate) fn new(blocks: &'a BlockReader, want: Want) -> Self {
        Self { blocks, want }
    }
}

impl NodeSource<Namespace> for Source<'_> {
    fn node(&self, node: &NodeRef) -> Result<Block, SourceError> {
        self.blocks.read(&node.body, self.want).map_err(source_error)
    }

    /// Siblings come in one fetch. What fails here fails again, and aloud, when it is needed.
    fn hint(&self, nodes: &[NodeRef]) {
        if !self.blocks.has_locator() {
            return;
        }
        let places = nodes.iter().filter_map(|node| self.blocks.locate(&node.body, self.want).ok().flatten());
        let places: Vec<BlockAt> = places.collect();
        self.blocks.prefetch(&places, self.want);
    }
}

impl NodeSource<Physical> for Source<'_> {
    fn node(&self, node: &PhysicalRef) -> Result<Block, SourceError> {
        self.blocks.read_at(&node.at, self.want).map_err(source_error)
    }
}

fn source_error(error: DriveError) -> SourceError {
    match error {
        DriveError::Fetch(error) => SourceError::Fetch(error),
        DriveError::NoPlace(_) => SourceError::Missing,
        other => SourceError::Other(Box::new(other)),
    }
}

impl From<TreeError> for DriveError {
    fn from(error: TreeError) -> Self {
        match error {
            TreeError::Source { source: SourceError::Fetch(error), .. } => Self::Fetch(error),
            TreeError::Source { source: SourceError::Other(inner), .. } => match inner.downcast::<Self>() {
                Ok(inner) => *inner,
                Err(other) => Self::damaged("tree node", other),
            },
            TreeError::Sink(error) => error.into(),
            other => Self::damaged("tree", other),
        }
    }
}

/// The location tree of the newest commit, as what [`BlockReader`] asks last.
pub(crate) struct LocationRoot {
    trees: std::sync::Weak<Trees>,
    root: ArcSwapOption<PhysicalRef>,
}

impl LocationRoot {
    pub(crate) fn new(trees: &Arc<Trees>, root: Option<PhysicalRef>) -> Self {
        Self { trees: Arc::downgrade(trees), root: ArcSwapOption::from_pointee(root) }
    }

    /// A newer commit's tree knows all that the older one's did.
    pub(crate) fn set(&self, root: PhysicalRef) {
        self.root.store(Some(Arc::new(root)));
    }
}

impl Locator for LocationRoot {
    fn locate(&self, cid: &Cid, want: Want) -> Result<Option<BlockAt>, DriveError> {
        let (Some(trees), Some(root)) = (self.trees.upgrade(), self.root.load_full()) else {
            return Ok(None);
        };
        let source = Source::new(&trees.blocks, want);
        Ok(location::find(&trees.location, &source, &root, cid)?)
    }
}

/// A commit's namespace tree, as the rows beneath a store.
///
/// LSNs number the records of one device's log. Those in a commit's rows mean nothing here and are read as 0: older than anything.
/// Files that the commit calls pending lack their data here, also where the program that sealed it did not say so in their rows.
pub(crate) struct CommitTree {
    trees: Arc<Trees>,
    root: NodeRef,
    pending: BTreeSet<Ino>,
}

impl CommitTree {
    pub(crate) fn new(trees: Arc<Trees>, commit: &CommitRow) -> Self {
        Self { trees, root: commit.namespace.clone(), pending: commit.info.pending.iter().copied().collect() }
    }

    /// A row as it reads here.
    fn row(&self, table: Table, key: &[u8], value: Bytes) -> Result<Bytes, BaseError> {
        let damaged = |error: RowError| BaseError::Damaged(error.to_string());
        Ok(match table {
            Table::Inode => {
                let mut row = InodeRow::decode(&value).map_err(damaged)?;
                if row.kind == Kind::File
                    && !self.pending.is_empty()
                    && self.pending.contains(&keys::decode_inode(key).map_err(damaged)?)
                {
                    row.flags |= inode_flags::LACKS_DATA;
                }
                row.encode(0).into()
            }
            Table::Chunk => ChunkRow { cut: 0, ..ChunkRow::decode(&value).map_err(damaged)? }.encode().into(),
            _ => value,
        })
    }
}

impl BaseTree for CommitTree {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>, BaseError> {
        let source = self.trees.source(Priority::Interactive);
        let entry =
            self.trees.namespace.get(&source, &self.root, &keys::full(table, key)).map_err(base_error)?;
        entry.map(|entry| self.row(table, key, entry.value)).transpose()
    }

    fn range(&self, table: Table, start: &[u8], end: &[u8], limit: usize) -> Result<RowList, BaseError> {
        let source = self.trees.source(Priority::Interactive);
        let (start, end) = (keys::full(table, start), keys::full(table, end));
        let entries =
            self.trees.namespace.range(&source, &self.root, &start, Some(&end), limit).map_err(base_error)?;
        entries
            .into_iter()
            .map(|entry| {
                let key = entry.key.get(1..).unwrap_or_default().to_vec();
                let row = self.row(table, &key, entry.value)?;
                Ok((key, row))
            })
            .collect()
    }
}

fn base_error(error: TreeError) -> BaseError {
    BaseError::from(DriveError::from(error))
}
