//! From rows to a commit: the second half of a seal.
//!
//! Owns: the file DAGs, the namespace tree, the commit's block and the location tree of one cut. Promises: blocks are written children first, the
//! location tree last; nothing is installed here, so that a crash leaves only a piece that is swept.

use std::collections::BTreeSet;
use std::ops::Bound;

use holdfast_content::class::Class;
use holdfast_content::commit::{Commit, CommitRef, DriveStats};
use holdfast_content::location;
use holdfast_content::retrieve::Priority;
use holdfast_content::tree::{Edit, NodeRef, PhysicalRef};
use holdfast_store::{Lsn, Table};

use super::classes::Classes;
use super::commit_row::CommitRow;
use super::data::Cut;
use super::edits::{Edits, Gone, with_chunks_flag};
use super::overlay::{Overlaid, Overlay};
use super::{SealParts, dag};
use crate::drive::error::DriveError;
use crate::pieces::places::Placed;
use crate::pieces::writer::PieceSink;
use crate::rows::marks::ChangedKeys;
use crate::rows::{ChunkRow, Ino, InodeRow, inode_flags, keys};

/// What the blocks of a commit say.
pub(crate) struct Written {
    pub(crate) commit: CommitRef,
    pub(crate) namespace: NodeRef,
    pub(crate) location_root: PhysicalRef,
    pub(crate) stats: DriveStats,
}

/// Brings the DAGs of all files up to date whose chunks changed since the last commit, flags inodes that have chunks now, and sees to it that the pieces
/// of those chunks are as safe as the files want. Gives the files of which a chunk lies where this home does not know.
pub(crate) fn file_dags(
    cut: &Cut<'_>,
    after: Lsn,
    classes: &mut Classes,
    new: &mut Overlay,
    gone: &Gone,
    sink: &mut PieceSink<'_>,
) -> Result<Vec<Ino>, DriveError> {
    let mut unknown = Vec::new();
    let mut changed = ChangedKeys::of_table(cut.snapshot, after, Table::Chunk)?;
    let mut next_changed = changed.next()?;
    let mut last_new = vec![Table::Chunk as u8];
    let mut file: Option<(Ino, BTreeSet<u64>)> = None;
    loop {
        let next_new = new
            .next_after(Bound::Excluded(&last_new))
            .filter(|key| key.first() == Some(&(Table::Chunk as u8)));
        let next_new = next_new.map(<[u8]>::to_vec);
        let Some(key) = [&next_changed, &next_new].into_iter().flatten().min().cloned() else { break };
        if next_changed.as_ref() == Some(&key) {
            next_changed = changed.next()?;
        }
        if next_new.as_ref() == Some(&key) {
            last_new.clone_from(&key);
        }
        let (ino, n) = keys::decode_pair(key.get(1..).unwrap_or_default())?;
        if gone.contains(ino) {
            continue;
        }
        match &mut file {
            Some((current, numbers)) if *current == ino => {
                numbers.insert(n);
            }
            _ => {
                if let Some((ino, numbers)) = file.replace((ino, BTreeSet::from([n]))) {
                    one_file(cut, classes, new, ino, &numbers, sink, &mut unknown)?;
                }
            }
        }
    }
    if let Some((ino, numbers)) = file {
        one_file(cut, classes, new, ino, &numbers, sink, &mut unknown)?;
    }
    Ok(unknown)
}

fn one_file(
    cut: &Cut<'_>,
    classes: &mut Classes,
    new: &mut Overlay,
    ino: Ino,
    numbers: &BTreeSet<u64>,
    sink: &mut PieceSink<'_>,
    unknown: &mut Vec<Ino>,
) -> Result<(), DriveError> {
    let Some(row) = cut.view.get(Table::Inode, &keys::inode(ino))? else { return Ok(()) };
    if classes.any() {
        let class = classes.of_file(&cut.view, ino, &InodeRow::decode(&row)?)?;
        if !raise(cut, new, (ino, numbers), class, sink)? {
            unknown.push(ino);
        }
    }
    if let Some(flagged) = with_chunks_flag(&row)? {
        new.put(Table::Inode, &keys::inode(ino), flagged);
    }
    dag::update(&cut.view, new, ino, numbers, sink)
}

/// The pieces of these chunks, wherever a chunk came from: packed now, found, or shared by a copy. `false`: not of all of them is it known here.
fn raise(
    cut: &Cut<'_>,
    new: &Overlay,
    (ino, numbers): (Ino, &BTreeSet<u64>),
    class: Class,
    sink: &mut PieceSink<'_>,
) -> Result<bool, DriveError> {
    let mut all = true;
    for n in numbers {
        let row = Overlaid { cut: &cut.view, new }.get(Table::Chunk, &keys::chunk(ino, *n))?;
        if let Some(row) = row {
            all &= sink.raise_block(&ChunkRow::decode(&row)?.digest, class)?;
        }
    }
    Ok(all)
}

/// Says of files in the tree itself that their data is not in it: so that whoever reads the commit meets an error, not an older age.
pub(crate) fn flag_lacking(
    cut: &Cut<'_>,
    new: &mut Overlay,
    without_data: &BTreeSet<Ino>,
) -> Result<(), DriveError> {
    for ino in without_data {
        let key = keys::inode(*ino);
        let row = Overlaid { cut: &cut.view, new }.get(Table::Inode, &key)?;
        // One that went meanwhile leaves the tree.
        let Some(row) = row else { continue };
        let mut row = InodeRow::decode(&row)?;
        row.flags |= inode_flags::LACKS_DATA;
        new.put(Table::Inode, &key, row.encode(row.lsn));
    }
    Ok(())
}

/// Writes the namespace tree, the commit and the location tree. `None`: the cut holds what the last commit holds.
pub(crate) fn write(
    parts: &SealParts,
    cut: &Cut<'_>,
    last: Option<&CommitRow>,
    new: &Overlay,
    gone: &Gone,
    pending: &BTreeSet<Ino>,
    sink: &mut PieceSink<'_>,
) -> Result<Option<Written>, DriveError> {
    let trees = &parts.trees;
    let after = last.map_or(0, CommitRow::cut);
    let old_root = last.map(|row| &row.namespace);
    let source = trees.source(Priority::Bulk);
    let mut failed = None;
    let mut stats = Stats::new(last.map(|row| row.stats).unwrap_or_default());
    let edits = Edits::new(cut, after, new, gone, &trees.namespace, &source, old_root, &mut failed)?;
    let edits = edits.inspect(|edit| stats.count(parts, old_root, edit));
    let applied = trees.namespace.apply(&source, old_root, edits, sink);
    if let Some(error) = stats.failed.take() {
        return Err(error);
    }
    if let Some(error) = failed {
        return Err(error);
    }
    let namespace = applied?.root;
    if old_root == Some(&namespace) && last.is_some_and(|row| row.info.pending.iter().eq(pending.iter())) {
        return Ok(None);
    }
    let mut stats = stats.now;
    stats.blocks_bytes = namespace.tsize;
    let commit = Commit {
        sequence: last.map_or(0, |row| row.info.sequence) + 1,
        namespace: namespace.clone(),
        previous: last.map(|row| row.info.commit.clone()),
        device: parts.options.device,
        term: parts.options.term,
        lsn: cut.lsn,
        time_ms: parts.now_ms(),
        pending_files: pending.len() as u64,
        pending: pending.iter().copied().collect(),
        stats,
    };
    let encoded = commit.encode(&parts.keys).map_err(|error| DriveError::damaged("commit", error))?;
    let at = sink.write(&encoded.body)?;
    sink.write(&encoded.directory)?;
    let location_root = write_location(parts, last, sink)?;
    Ok(Some(Written { commit: encoded.reference(at), namespace, location_root, stats }))
}

/// Adds the places of all blocks that no commit covers.
fn write_location(
    parts: &SealParts,
    last: Option<&CommitRow>,
    sink: &mut PieceSink<'_>,
) -> Result<PhysicalRef, DriveError> {
    let source = parts.trees.source(Priority::Bulk);
    let old_root = last.map(|row| &row.info.location_root);
    sink.write_location(|places, sink| {
        let mut failed = None;
        let edit = |placed: Result<Placed, DriveError>| -> Result<Edit, DriveError> {
            let (digest, row) = placed?;
            Ok(location::put(&row.at(&digest))?)
        };
        let edits = places.map_while(|placed| edit(placed).map_err(|error| failed = Some(error)).ok());
        let applied = parts.trees.location.apply(&source, old_root, edits, sink);
        match failed {
            Some(error) => Err(error),
            None => Ok(applied?.root),
        }
    })
}

/// The drive's numbers, carried from commit to commit by what the edits change.
struct Stats {
    now: DriveStats,
    failed: Option<DriveError>,
}

impl Stats {
    fn new(now: DriveStats) -> Self {
        Self { now, failed: None }
    }

    fn count(&mut self, parts: &SealParts, old_root: Option<&NodeRef>, edit: &Edit) {
        if edit.key.first() != Some(&(Table::Inode as u8)) || self.failed.is_some() {
            return;
        }
        if let Err(error) = self.inode(parts, old_root, edit) {
            self.failed = Some(error);
        }
    }

    fn inode(
        &mut self,
        parts: &SealParts,
        old_root: Option<&NodeRef>,
        edit: &Edit,
    ) -> Result<(), DriveError> {
        let source = parts.trees.source(Priority::Bulk);
        let old = match old_root {
            Some(root) => parts.trees.namespace.get(&source, root, &edit.key)?,
            None => None,
        };
        if let Some(old) = old {
            self.now.inodes = self.now.inodes.saturating_sub(1);
            self.now.bytes = self.now.bytes.saturating_sub(InodeRow::decode(&old.value)?.size);
        }
        if let Some((value, _)) = &edit.change {
            self.now.inodes = self.now.inodes.saturating_add(1);
            self.now.bytes = self.now.bytes.saturating_add(InodeRow::decode(value)?.size);
        }
        Ok(())
    }
}
