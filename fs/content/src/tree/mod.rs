//! The search tree: sorted rows in encrypted nodes whose shape depends on the rows alone.
//!
//! ```text
//! root (level 2)   [first key -> node] [..]
//!                     |
//! level 1          [first key -> node] ... [first key -> node]
//!                     |
//! level 0          [key -> value, links] ...
//! ```
//!
//! A node ends after an entry whose keyed hash says so ([`Shape`]); each level is cut anew from left to right, and a cut
//! depends only on the entries since the last one. So equal rows give an equal tree, whatever the order of edits
//! (*history independence*), an edit rewrites one path and perhaps a neighbour, and two trees are compared by their
//! differences alone.
//!
//! Two variants: [`Namespace`], whose nodes are UnixFS directories that link children and whatever rows refer to, and
//! [`Physical`], whose nodes are single blocks found by their place. In a physical tree the *shape* is history independent;
//! its CIDs depend on where nodes lie.
//!
//! Promises: bounded nodes ([`NODE_BYTES_MAX`]), O(changes) nodes read and written by [`Tree::apply`], iterative walks of
//! bounded depth, no panic on any bytes. Refuses rows over [`KEY_BYTES_MAX`], [`VALUE_BYTES_MAX`], [`ENTRY_LINKS_MAX`].

mod apply;
mod cache;
mod diff;
mod node;
mod read;
mod shape;
mod variant;

pub use apply::Applied;
pub use diff::Difference;
pub use node::Node;
pub use read::{MemorySource, NodeSource, SourceError, TreeIter};
pub use shape::Shape;
pub use variant::{Namespace, NodeRef, Physical, PhysicalRef, Variant};

pub(crate) use variant::place as variant_place;

use crate::block::{BlockError, Link, SinkError};
use crate::keys::TreeKeys;
use crate::unixfs::UnixfsError;
use bytes::Bytes;
use cache::NodeCache;
use cid::Cid;
use parking_lot::Mutex;

/// Longest key: table tag, inode and a name's hash are far below; a separator takes little room.
pub const KEY_BYTES_MAX: usize = 1 << 10;
/// Longest value: an extended attribute of 64 KiB (the kernel's limit) with its row around it.
pub const VALUE_BYTES_MAX: usize = 80 << 10;
/// Most links of one row: a file's DAG, and DAGs of attributes or patches.
pub const ENTRY_LINKS_MAX: usize = 64;
/// No node is larger: the soft limit of the larger shape and one entry of the largest kind.
pub const NODE_BYTES_MAX: usize = 256 << 10;
/// 75^8 leaves are more than anyone has; a deeper tree is hostile.
pub const LEVELS_MAX: u8 = 24;

/// A row.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Entry {
    /// The sort key.
    pub key: Bytes,
    /// What the row says.
    pub value: Bytes,
    /// DAGs that the row refers to: they become links of the node's UnixFS directory, under numbers.
    pub links: Vec<Link>,
}

/// A change of one row.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Edit {
    /// Which row.
    pub key: Bytes,
    /// Its new value and links; nothing removes it.
    pub change: Option<(Bytes, Vec<Link>)>,
}

impl Edit {
    /// Inserts or replaces a row.
    pub fn put(key: impl Into<Bytes>, value: impl Into<Bytes>, links: Vec<Link>) -> Self {
        Self { key: key.into(), change: Some((value.into(), links)) }
    }

    /// Removes a row, if it is there.
    pub fn delete(key: impl Into<Bytes>) -> Self {
        Self { key: key.into(), change: None }
    }
}

/// Why a tree could not be read or changed.
#[derive(Debug, thiserror::Error)]
pub enum TreeError {
    /// A node did not come.
    #[error("reading tree node {cid}: {source}")]
    Source {
        /// The node's ciphertext.
        cid: Box<Cid>,
        /// Why.
        source: SourceError,
    },
    /// A node does not open under its key.
    #[error("tree node {0} does not open under its key")]
    WrongKey(Box<Cid>),
    /// A node is not what it must be.
    #[error("malformed tree node: {0}")]
    Malformed(String),
    /// A node of a newer version.
    #[error("tree node of version {0}, which is newer than this program; update Holdfast")]
    Newer(u8),
    /// Edits must come in strictly ascending order of keys.
    #[error("edits out of order")]
    Unsorted,
    /// A row exceeds a limit.
    #[error("a row of {key} key bytes, {value} value bytes and {links} links exceeds a limit")]
    TooLarge {
        /// Its key's length.
        key: usize,
        /// Its value's length.
        value: usize,
        /// Its links.
        links: usize,
    },
    /// A new node could not be written.
    #[error(transparent)]
    Sink(#[from] SinkError),
    /// A node could not be encoded as UnixFS.
    #[error(transparent)]
    Unixfs(#[from] UnixfsError),
    /// A node could not be made a block.
    #[error(transparent)]
    Block(#[from] BlockError),
}

impl TreeError {
    /// Whether the same call may succeed later.
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Source { source: SourceError::Fetch(error), .. } if error.is_retryable())
    }
}

/// A search tree's keys and its cache of decoded nodes. Roots are values of their own: one `Tree` reads them all.
pub struct Tree<V: Variant> {
    keys: TreeKeys,
    cache: Mutex<NodeCache>,
    variant: std::marker::PhantomData<fn() -> V>,
}

impl<V: Variant> Tree<V> {
    /// A tree that keeps decoded nodes in memory, up to this many bytes of them.
    pub fn new(keys: TreeKeys, cache_bytes_max: usize) -> Self {
        let cache = Mutex::new(NodeCache::new(cache_bytes_max));
        Self { keys, cache, variant: std::marker::PhantomData }
    }
}

impl<V: Variant> std::fmt::Debug for Tree<V> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Tree")
    }
}

#[cfg(test)]
mod tests;
