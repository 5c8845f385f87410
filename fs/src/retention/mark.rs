//! What is reached: from the trees of kept commits, from rows that no commit covers yet, from files that are deleted but open, and from the location
//! trees that a head may name.
//!
//! Promises: whatever is reached is marked, and so is every piece in which a restore would look for it: a piece is judged by what the newest and the
//! published location tree say, too, not by this home's rows alone (a crash leaves rows that are ahead of the trees); what is marked may be unreached (blocks are noted by 8 bytes of their digest: one in 2^64 pairs is a mistake that
//! keeps a block). A subtree that was seen is not read again, so a further commit costs its differences.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use bytes::Bytes;
use holdfast_content::block::{PieceId, digest_of};
use holdfast_content::location;
use holdfast_content::retrieve::Priority;
use holdfast_content::tree::{Namespace, NodeRef, Physical, PhysicalRef, Variant};
use holdfast_store::{Reads, Table};

use crate::drive::{DriveError, Inner};
use crate::pieces::rows::DagRow;
use crate::rows::marks::ChangedKeys;
use crate::rows::{ChunkRow, OrphanRow, is_tombstone};

/// Rows fetched at once.
const PAGE_ROWS: usize = 1024;
/// Entries of the location tree that one compaction forgets.
const FORGET_MAX: usize = 100_000;

#[derive(Default)]
pub(super) struct Marks {
    blocks: HashSet<u64>,
    pieces: HashSet<PieceId>,
    /// Tree nodes whose subtrees are marked, by the digests of their bodies. Whole, since a mistake here would lose what is below.
    nodes: HashSet<[u8; 32]>,
    /// Nodes of the newest location tree: the piece, and the first key below. Those of the published one alone go with it.
    pub(super) location_nodes: BTreeMap<[u8; 32], (PieceId, Bytes)>,
    pub(super) older_location_nodes: HashSet<[u8; 32]>,
    /// Blocks that the newest location tree lists, and that nothing reaches.
    pub(super) forgotten: BTreeSet<[u8; 32]>,
}

impl Marks {
    pub(super) fn has_block(&self, digest: &[u8; 32]) -> bool {
        self.blocks.contains(&short(digest))
    }

    /// Whether it holds something that is found by its place.
    pub(super) fn has_piece(&self, piece: &PieceId) -> bool {
        self.pieces.contains(piece)
    }

    fn block(&mut self, digest: &[u8; 32]) {
        self.blocks.insert(short(digest));
    }

    /// All that the commits whose rows are there reach.
    pub(super) fn kept_commits(&mut self, inner: &Inner) -> Result<(), DriveError> {
        let mut rows = Vec::new();
        inner.each_commit(|row| rows.push(row))?;
        for row in rows {
            self.block(&digest_of(&row.info.commit.root)?);
            self.block(&digest_of(&row.info.commit.at.cid)?);
            self.pieces.insert(row.info.commit.at.piece);
            self.namespace(inner, &row.namespace)?;
        }
        Ok(())
    }

    /// What private links show.
    pub(super) fn shared(&mut self, digests: &[[u8; 32]]) {
        digests.iter().for_each(|digest| self.block(digest));
    }

    fn namespace(&mut self, inner: &Inner, root: &NodeRef) -> Result<(), DriveError> {
        let trees = &inner.parts.trees;
        let mut todo = vec![root.clone()];
        while let Some(at) = todo.pop() {
            let body = digest_of(&at.body)?;
            if !self.nodes.insert(body) {
                continue;
            }
            self.block(&body);
            self.block(&digest_of(&at.root)?);
            let node = trees.namespace.load(&trees.source(Priority::Bulk), &at)?;
            for entry in &node.entries {
                if node.level > 0 {
                    todo.push(Namespace::from_entry(entry)?);
                    continue;
                }
                for link in &entry.links {
                    self.block(&digest_of(&link.cid)?);
                }
                if let Some((table, _)) = entry.key.split_first() {
                    self.row(*table, &entry.value)?;
                }
            }
        }
        Ok(())
    }

    /// The blocks that a row names.
    fn row(&mut self, table: u8, value: &[u8]) -> Result<(), DriveError> {
        if table == Table::Chunk as u8 {
            self.block(&ChunkRow::decode(value)?.digest);
        } else if table == Table::Dag as u8 {
            self.block(&DagRow::decode(value)?.digest);
        }
        Ok(())
    }

    /// The location trees of the newest commit and of the published one: the pieces that hold their nodes, and those in which they find what is marked.
    /// Everything else is marked before.
    pub(super) fn locations(&mut self, inner: &Inner, published: u64) -> Result<(), DriveError> {
        if let Some(row) = inner.latest() {
            self.location_tree(inner, &row.info.location_root, true)?;
        }
        if let Some(row) = inner.commit_row(published)? {
            self.location_tree(inner, &row.info.location_root, false)?;
        }
        Ok(())
    }

    fn location_tree(&mut self, inner: &Inner, root: &PhysicalRef, newest: bool) -> Result<(), DriveError> {
        let trees = &inner.parts.trees;
        let mut todo: Vec<PhysicalRef> = vec![root.clone()];
        while let Some(at) = todo.pop() {
            let body = digest_of(&at.at.cid)?;
            self.pieces.insert(at.at.piece);
            if !self.nodes.insert(body) {
                continue;
            }
            self.block(&body);
            let node = trees.location.load(&trees.source(Priority::Bulk), &at)?;
            match newest {
                true => _ = self.location_nodes.insert(body, (at.at.piece, node.first_key())),
                false => _ = self.older_location_nodes.insert(body),
            }
            for entry in &node.entries {
                if node.level > 0 {
                    todo.push(Physical::from_entry(entry)?);
                    continue;
                }
                let (digest, place) = location::read(entry)?;
                if self.has_block(&digest) {
                    self.pieces.insert(place.piece);
                } else if newest && self.forgotten.len() < FORGET_MAX {
                    self.forgotten.insert(digest);
                }
            }
        }
        Ok(())
    }

    /// What rows name that are newer than the newest commit. Under the lock of seals: whoever copies a file names only what these or the commit name.
    pub(super) fn present(&mut self, inner: &Inner) -> Result<(), DriveError> {
        let snapshot = inner.parts.store.snapshot()?;
        for table in [Table::Chunk, Table::Dag] {
            let mut changed = ChangedKeys::of_table(&snapshot, inner.latest_cut(), table)?;
            while let Some(key) = changed.next()? {
                let row = snapshot.get(table, key.get(1..).unwrap_or_default())?;
                if let Some(row) = row.filter(|row| !is_tombstone(row)) {
                    self.row(table as u8, &row)?;
                }
            }
        }
        Ok(())
    }
}

impl Marks {
    /// Chunks of files that were deleted while somebody has them open: no commit to come has them.
    pub(super) fn open_orphans(&mut self, inner: &Inner) -> Result<(), DriveError> {
        let live = inner.parts.rows().live();
        let mut from = 0;
        loop {
            let page = live.orphans(from, PAGE_ROWS)?;
            let last = page.len() < PAGE_ROWS;
            for (ino, orphan) in page {
                from = ino + 1;
                if orphan != OrphanRow::Unlinked {
                    continue;
                }
                let mut next = 0;
                loop {
                    let chunks = live.chunks(ino, next, u64::MAX, PAGE_ROWS)?;
                    let last = chunks.len() < PAGE_ROWS;
                    for (n, chunk) in chunks {
                        next = n + 1;
                        self.block(&chunk.digest);
                    }
                    if last {
                        break;
                    }
                }
            }
            if last {
                return Ok(());
            }
        }
    }
}

fn short(digest: &[u8; 32]) -> u64 {
    digest.first_chunk().map_or(0, |head| u64::from_le_bytes(*head))
}
