//! Raising what was there before a policy, page by page.
//!
//! ```text
//! walk/ | ino u64      version u8 = 1 | from u64      of a folder the names, of a file the chunks from there on are still to be looked at
//! walk/ | 0            version u8 = 1 | 0             the trees themselves: all that leads to files
//! policy/walked        version u8 = 1                 this home knows which walks are needed
//! ```
//!
//! Owns: these rows. Promises: bounded work in a step, while no seal runs; what a crash interrupts goes on where it was. The trees are read as a whole, as
//! retention does, and again from the beginning after a crash. A home that was restored begins with every policy that the namespace has, since nobody
//! knows how far the other machine came.

use std::collections::{BTreeSet, HashSet};

use cid::Cid;
use holdfast_content::block::{CODEC_RAW, PieceId, cid_from_digest};
use holdfast_content::class::Class;
use holdfast_content::retrieve::Priority;
use holdfast_content::tree::{Namespace, NodeRef, Physical, PhysicalRef, Variant};
use holdfast_store::{Direction, KeyRange, Reads, Table, Txn};

use super::Policies;
use crate::drive::{Drive, DriveError, Inner};
use crate::pieces::classes;
use crate::rows::{EntryRow, Ino, InodeRow, Kind};

const PREFIX: &[u8] = b"walk/";
const WALKED: &[u8] = b"policy/walked";
const VERSION: u8 = 1;
/// In place of an inode: the trees.
pub(crate) const TREES: Ino = 0;
/// Names or chunks of one step: some milliseconds where all is here.
const STEP_ROWS: usize = 512;
/// A file with no more chunks is looked at with its folder.
const FILE_CHUNKS_MAX: usize = 16;
/// Walks that are counted; nobody cares for the exact number beyond.
const COUNTED_MAX: usize = 10_000;

fn key(ino: Ino) -> Vec<u8> {
    [PREFIX, &ino.to_be_bytes()].concat()
}

/// At rest.
pub(crate) fn encode(from: u64) -> Vec<u8> {
    [&[VERSION][..], &from.to_be_bytes()].concat()
}

/// The record that makes a walk needed says so.
pub(crate) fn begin(txn: &mut Txn, ino: Ino) {
    txn.put(Table::Jobs, key(ino), encode(0));
}

/// From rest.
pub(crate) fn decode(row: &[u8]) -> Result<u64, DriveError> {
    let from = row.strip_prefix(&[VERSION]).and_then(|from| from.try_into().ok());
    from.map(u64::from_be_bytes).ok_or_else(|| DriveError::damaged("walk", "its row"))
}

/// What a step came to.
struct Page {
    /// Where the next one begins; `None`: that was all.
    next: Option<u64>,
    /// Folders and large files that want walks of their own.
    below: Vec<Ino>,
}

impl Drive {
    /// Every piece that has a class of its own.
    pub fn classes(&self) -> Result<std::collections::BTreeMap<PieceId, Class>, DriveError> {
        classes::all(&self.inner.parts.store)
    }

    /// What another device knew of these pieces.
    pub fn adopt_classes(&self, known: impl Iterator<Item = (PieceId, Class)>) -> Result<(), DriveError> {
        for (piece, class) in known {
            classes::adopt(&self.inner.parts.store, &self.inner.parts.folder, &piece, class)?;
        }
        Ok(())
    }

    /// The highest class that a folder asks for, the drive's own policy included.
    pub fn highest_class(&self) -> Result<Class, DriveError> {
        Ok(self.inner.parts.vfs.policies()?.highest())
    }

    /// How many folders and files there are whose data may be less safe than they ask.
    pub fn walks(&self) -> Result<u64, DriveError> {
        let store = &self.inner.parts.store;
        let begun = store.get(Table::Jobs, WALKED)?.is_some();
        let rows = store.scan(Table::Jobs, &KeyRange::prefix(PREFIX), COUNTED_MAX, Direction::Forward)?;
        Ok(rows.len() as u64 + u64::from(!begun))
    }

    /// Looks at the next page of what may be less safe than it should be. `false`: there was none.
    pub fn walk_step(&self) -> Result<bool, DriveError> {
        let inner = &*self.inner;
        let store = &inner.parts.store;
        if store.get(Table::Jobs, WALKED)?.is_none() {
            self.begin_walks()?;
        }
        // The highest inode first, so that the trees, which take long, come last.
        let page = store.scan(Table::Jobs, &KeyRange::prefix(PREFIX), 1, Direction::Reverse)?;
        let Some((key, row)) = page.first() else { return Ok(false) };
        let ino = key.get(PREFIX.len()..).and_then(|ino| ino.try_into().ok()).map(u64::from_be_bytes);
        let (ino, from) = (ino.ok_or_else(|| DriveError::damaged("walk", "its key"))?, decode(row)?);
        match ino {
            TREES => inner.walk_trees()?,
            ino => inner.walk_page(ino, from)?,
        }
        Ok(true)
    }

    fn begin_walks(&self) -> Result<(), DriveError> {
        let policies = self.inner.parts.vfs.policies()?;
        let mut txn = Txn::new();
        if !policies.is_empty() {
            policies.inodes().chain([TREES]).for_each(|ino| begin(&mut txn, ino));
        }
        txn.put(Table::Jobs, WALKED, vec![VERSION]);
        self.inner.parts.store.commit(txn)?;
        Ok(())
    }
}

impl Inner {
    fn walk_page(&self, ino: Ino, from: u64) -> Result<(), DriveError> {
        let _seals = self.hold_seals();
        let live = self.parts.rows().live();
        let policies = Policies::read(&live)?;
        let page = match live.inode(ino)? {
            Some(row) if row.kind == Kind::Dir => self.walk_names(&policies, ino, from)?,
            Some(row) if row.kind == Kind::File => {
                self.walk_chunks(&policies, ino, &row, (from, STEP_ROWS))?
            }
            _ => Page { next: None, below: Vec::new() },
        };
        self.parts.options.edges.hit("walk.page.before");
        let mut txn = Txn::new();
        page.below.into_iter().for_each(|ino| begin(&mut txn, ino));
        match page.next {
            Some(next) => txn.put(Table::Jobs, key(ino), encode(next)),
            None => txn.delete(Table::Jobs, key(ino)),
        };
        self.parts.store.commit(txn)?;
        self.parts.options.edges.hit("walk.page.after");
        Ok(())
    }

    fn walk_names(&self, policies: &Policies, dir: Ino, from: u64) -> Result<Page, DriveError> {
        let live = self.parts.rows().live();
        let rows = live.entries(dir, from, STEP_ROWS)?;
        let next = (rows.len() == STEP_ROWS).then(|| rows.last().map(|(tag, _)| tag + 1)).flatten();
        let mut below = Vec::new();
        for (_, entry) in rows {
            let EntryRow::Name { ino, kind, .. } = entry else { continue };
            match kind {
                Kind::Dir => below.push(ino),
                Kind::File => {
                    let Some(row) = live.inode(ino)? else { continue };
                    if row.has_chunks()
                        && self.walk_chunks(policies, ino, &row, (0, FILE_CHUNKS_MAX))?.next.is_some()
                    {
                        below.push(ino);
                    }
                }
                _ => {}
            }
        }
        Ok(Page { next, below })
    }

    /// So many chunks of a file.
    fn walk_chunks(
        &self,
        policies: &Policies,
        ino: Ino,
        row: &InodeRow,
        (from, limit): (u64, usize),
    ) -> Result<Page, DriveError> {
        let live = self.parts.rows().live();
        let parent_of = |ino| Ok::<_, DriveError>(live.inode(ino)?.map_or(0, |row| row.parent));
        let class = policies.class_of_file(ino, row, parent_of)?;
        let chunks = live.chunks(ino, from, u64::MAX, limit)?;
        let next = (chunks.len() == limit).then(|| chunks.last().map(|(n, _)| n + 1)).flatten();
        for (_, chunk) in chunks {
            self.raise_block(&cid_from_digest(CODEC_RAW, &chunk.digest), class)?;
        }
        Ok(Page { next, below: Vec::new() })
    }

    /// The piece in which a block lies, wherever that is.
    fn raise_block(&self, cid: &Cid, class: Class) -> Result<(), DriveError> {
        let blocks = &self.parts.trees.blocks;
        let want = blocks.want(Priority::Bulk, self.parts.options.fetch_deadline);
        // A block that nothing can find is told by whoever needs it.
        if let Some(at) = blocks.locate(cid, want)? {
            classes::raise(&self.parts.store, &self.parts.folder, &at.piece, class)?;
        }
        Ok(())
    }

    /// All nodes of both trees, and the daemon's own pieces. A node that a later commit adds is packed with the rest of that class.
    fn walk_trees(&self) -> Result<(), DriveError> {
        // Not in the middle of a seal, whose cut may be older than the policy.
        let latest = {
            let _seals = self.hold_seals();
            self.latest()
        };
        let class = self.parts.vfs.policies()?.highest();
        let mut pieces = BTreeSet::new();
        if let Some(row) = latest {
            pieces.insert(row.info.commit.at.piece);
            self.namespace_pieces(&row.namespace, &mut pieces)?;
            self.location_pieces(&row.info.location_root, &mut pieces)?;
        }
        self.each_piece(|id, row| {
            if row.checkpoint {
                pieces.insert(id);
            }
        })?;
        for piece in &pieces {
            classes::raise(&self.parts.store, &self.parts.folder, piece, class)?;
        }
        self.parts.options.edges.hit("walk.trees.before");
        // A policy that came meanwhile and asks for more wants them once more.
        let policies = self.parts.vfs.policies()?;
        if class.covers(policies.highest()) {
            let mut txn = Txn::new();
            txn.delete(Table::Jobs, key(TREES));
            self.parts.store.commit(txn)?;
        }
        Ok(())
    }

    fn namespace_pieces(&self, root: &NodeRef, pieces: &mut BTreeSet<PieceId>) -> Result<(), DriveError> {
        let trees = &self.parts.trees;
        let mut seen = HashSet::new();
        let mut todo = vec![root.clone()];
        while let Some(at) = todo.pop() {
            if !seen.insert(at.body) {
                continue;
            }
            let want = trees.blocks.want(Priority::Bulk, self.parts.options.fetch_deadline);
            for cid in [&at.body, &at.root] {
                pieces.extend(trees.blocks.locate(cid, want)?.map(|at| at.piece));
            }
            let node = trees.namespace.load(&trees.source(Priority::Bulk), &at)?;
            for entry in node.entries.iter() {
                if node.level > 0 {
                    todo.push(Namespace::from_entry(entry)?);
                } else if entry.key.first() == Some(&(Table::Dag as u8)) {
                    let row = crate::pieces::rows::DagRow::decode(&entry.value)?;
                    pieces.extend(trees.blocks.locate(&row.link().cid, want)?.map(|at| at.piece));
                }
            }
        }
        Ok(())
    }

    fn location_pieces(&self, root: &PhysicalRef, pieces: &mut BTreeSet<PieceId>) -> Result<(), DriveError> {
        let trees = &self.parts.trees;
        let mut todo = vec![root.clone()];
        while let Some(at) = todo.pop() {
            pieces.insert(at.at.piece);
            let node = trees.location.load(&trees.source(Priority::Bulk), &at)?;
            if node.level > 0 {
                for entry in &node.entries {
                    todo.push(Physical::from_entry(entry)?);
                }
            }
        }
        Ok(())
    }
}

/// Walks that a seal finds to be needed, in a record of their own: before the commit that needs them.
pub(crate) fn begin_all(store: &holdfast_store::Store, inodes: &[Ino]) -> Result<(), DriveError> {
    for part in inodes.chunks(STEP_ROWS) {
        let mut txn = Txn::new();
        part.iter().for_each(|ino| begin(&mut txn, *ino));
        store.commit(txn)?;
    }
    Ok(())
}

/// Whether any walk is needed.
pub(crate) fn any(store: &impl Reads) -> Result<bool, DriveError> {
    let walked = store.get(Table::Jobs, WALKED)?.is_some();
    Ok(!walked || !store.scan(Table::Jobs, &KeyRange::prefix(PREFIX), 1, Direction::Forward)?.is_empty())
}
