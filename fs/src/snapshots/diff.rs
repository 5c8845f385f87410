//! What differs between two commits, as paths.
//!
//! Owns: the way from differing rows to names. Promises: only subtrees that differ are read, and the folders that the names are in; a file that was
//! moved is told as moved. Where the content of files changed that kept their names, one pass over the names of the newer commit finds them, since
//! an inode does not know its names. Bounded: at most so many lines as the caller takes.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::ControlFlow;

use holdfast_content::retrieve::Priority;
use holdfast_content::tree::Difference;
use holdfast_store::Table;

use crate::drive::{Drive, DriveError};
use crate::rows::{EntryRow, Ino, InodeRow, Kind, ROOT_INO, keys};
use crate::vfs::{FsError, Vfs};

/// Rows fetched at once.
const PAGE_ROWS: usize = 1024;
/// Folders above one another, at most; a guard against damaged rows that form a ring.
const DEPTH_MAX: usize = 4096;

/// How a path differs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ChangeKind {
    /// Only in the newer one.
    Added,
    /// Only in the older one.
    Removed,
    /// In both, with other data or attributes.
    Changed,
    /// The same file under another name.
    Moved,
}

/// One line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// How.
    pub kind: ChangeKind,
    /// From the drive's root, without a slash in front.
    pub path: Vec<u8>,
    /// Of [`ChangeKind::Moved`]: where it was.
    pub from: Option<Vec<u8>>,
}

/// Names that came or went: (folder, name) by inode.
type Names = BTreeMap<Ino, BTreeSet<(Ino, Vec<u8>)>>;

#[derive(Default)]
struct Rows {
    added: Names,
    removed: Names,
    changed: BTreeSet<Ino>,
}

impl Drive {
    /// The differences from commit `old` to commit `new`, at most `max` of them, ordered by path; and whether there are more.
    pub fn diff(&self, old: u64, new: u64, max: usize) -> Result<(Vec<Change>, bool), DriveError> {
        let row = |sequence| self.inner.commit_row(sequence)?.ok_or(DriveError::Fs(FsError::NotFound));
        let (old_row, new_row) = (row(old)?, row(new)?);
        let trees = &self.inner.parts.trees;
        let source = trees.source(Priority::Bulk);
        let mut rows = Rows::default();
        let mut failed = None;
        let mut visit = |difference: Difference| match rows.note(&difference) {
            Ok(()) => ControlFlow::Continue(()),
            Err(error) => {
                failed = Some(error);
                ControlFlow::Break(())
            }
        };
        trees.namespace.diff(&source, Some(&old_row.namespace), Some(&new_row.namespace), &mut visit)?;
        if let Some(error) = failed {
            return Err(error);
        }
        let (old, new) = (self.snapshot_vfs(old)?, self.snapshot_vfs(new)?);
        rows.name(&mut Paths::new(&old), &mut Paths::new(&new), max)
    }
}

impl Rows {
    fn note(&mut self, difference: &Difference) -> Result<(), DriveError> {
        let entry = match difference {
            Difference::Added(entry)
            | Difference::Removed(entry)
            | Difference::Changed { new: entry, .. } => entry,
        };
        let Some((&table, key)) = entry.key.split_first() else { return Ok(()) };
        if table == Table::Entry as u8 {
            let (folder, _) = keys::decode_pair(key)?;
            if let Difference::Removed(row) | Difference::Changed { old: row, .. } = difference {
                note_name(&mut self.removed, folder, &row.value)?;
            }
            if let Difference::Added(row) | Difference::Changed { new: row, .. } = difference {
                note_name(&mut self.added, folder, &row.value)?;
            }
        } else if table == Table::Inode as u8 {
            if let Difference::Changed { old, new } = difference
                && differs(&InodeRow::decode(&old.value)?, &InodeRow::decode(&new.value)?)
            {
                self.changed.insert(keys::decode_inode(key)?);
            }
        } else if (table == Table::Chunk as u8 || table == Table::Xattr as u8)
            && let Some(ino) = key.get(..8)
        {
            self.changed.insert(keys::decode_inode(ino)?);
        }
        Ok(())
    }

    fn name(
        mut self,
        old: &mut Paths<'_>,
        new: &mut Paths<'_>,
        max: usize,
    ) -> Result<(Vec<Change>, bool), DriveError> {
        let mut changes = Vec::new();
        // An entry row that was rewritten with the same name says nothing.
        for (ino, names) in &mut self.added {
            if let Some(gone) = self.removed.get_mut(ino) {
                let both: Vec<_> = names.intersection(gone).cloned().collect();
                for name in both {
                    names.remove(&name);
                    gone.remove(&name);
                }
            }
        }
        for (ino, names) in &self.added {
            let mut was = self.removed.remove(ino).unwrap_or_default();
            for (folder, name) in names {
                let path = new.join(*folder, name)?;
                let (kind, from) = match was.pop_first() {
                    Some((folder, name)) => (ChangeKind::Moved, Some(old.join(folder, &name)?)),
                    None => (ChangeKind::Added, None),
                };
                changes.push(Change { kind, path, from });
            }
            self.removed.insert(*ino, was);
        }
        for (folder, name) in self.removed.values().flatten() {
            changes.push(Change { kind: ChangeKind::Removed, path: old.join(*folder, name)?, from: None });
        }
        let told: BTreeSet<Vec<u8>> = changes.iter().map(|change| change.path.clone()).collect();
        let mut files = BTreeSet::new();
        for ino in &self.changed {
            match new.view(*ino)? {
                Some(row) if row.kind == Kind::Dir => {
                    let path = new.folder(*ino)?;
                    if told.contains(&path) {
                        continue;
                    }
                    changes.push(Change { kind: ChangeKind::Changed, path, from: None });
                }
                Some(_) => _ = files.insert(*ino),
                None => {}
            }
        }
        if !files.is_empty() {
            for (folder, name) in new.names_of(&files)? {
                let path = new.join(folder, &name)?;
                // Of what came or moved nobody asks whether it changed as well.
                if !told.contains(&path) {
                    changes.push(Change { kind: ChangeKind::Changed, path, from: None });
                }
            }
        }
        changes.sort_by(|a, b| (&a.path, a.kind).cmp(&(&b.path, b.kind)));
        let more = changes.len() > max;
        changes.truncate(max);
        Ok((changes, more))
    }
}

fn note_name(names: &mut Names, folder: Ino, row: &[u8]) -> Result<(), DriveError> {
    if let EntryRow::Name { ino, name, .. } = EntryRow::decode(row)? {
        names.entry(ino).or_default().insert((folder, name.to_vec()));
    }
    Ok(())
}

/// What a person would call a change. A folder's times and size follow from its names, which are told by themselves.
fn differs(old: &InodeRow, new: &InodeRow) -> bool {
    let same = (old.perm, old.uid, old.gid, old.rdev) == (new.perm, new.uid, new.gid, new.rdev);
    !same || (new.kind != Kind::Dir && (old.size, old.mtime) != (new.size, new.mtime))
}

/// From inodes to paths within one commit.
struct Paths<'a> {
    vfs: &'a Vfs,
    folders: HashMap<Ino, Vec<u8>>,
}

impl<'a> Paths<'a> {
    fn new(vfs: &'a Vfs) -> Self {
        Self { vfs, folders: HashMap::from([(ROOT_INO, Vec::new())]) }
    }

    fn view(&self, ino: Ino) -> Result<Option<InodeRow>, DriveError> {
        Ok(self.vfs.rows().live().inode(ino)?)
    }

    /// A name in a folder.
    fn join(&mut self, folder: Ino, name: &[u8]) -> Result<Vec<u8>, DriveError> {
        let mut path = self.folder(folder)?;
        if !path.is_empty() {
            path.push(b'/');
        }
        path.extend_from_slice(name);
        Ok(path)
    }

    /// A folder's path.
    fn folder(&mut self, folder: Ino) -> Result<Vec<u8>, DriveError> {
        let damaged = || DriveError::damaged("folder", "it is in none");
        let mut below: Vec<(Ino, Vec<u8>)> = Vec::new();
        let mut at = folder;
        let mut path = loop {
            if let Some(known) = self.folders.get(&at) {
                break known.clone();
            }
            if below.len() >= DEPTH_MAX {
                return Err(damaged());
            }
            let parent = self.view(at)?.ok_or_else(damaged)?.parent;
            below.push((at, self.name_in(parent, at)?.ok_or_else(damaged)?));
            at = parent;
        };
        for (ino, name) in below.into_iter().rev() {
            if !path.is_empty() {
                path.push(b'/');
            }
            path.extend_from_slice(&name);
            self.folders.insert(ino, path.clone());
        }
        Ok(path)
    }

    fn name_in(&self, folder: Ino, wanted: Ino) -> Result<Option<Vec<u8>>, DriveError> {
        let mut from = 0;
        loop {
            let page = self.vfs.rows().live().entries(folder, from, PAGE_ROWS)?;
            let last = page.len() < PAGE_ROWS;
            for (tag, entry) in page {
                from = tag + 1;
                if let EntryRow::Name { ino, name, .. } = entry
                    && ino == wanted
                {
                    return Ok(Some(name.to_vec()));
                }
            }
            if last {
                return Ok(None);
            }
        }
    }

    /// Every name of these inodes: a pass over all names.
    fn names_of(&self, wanted: &BTreeSet<Ino>) -> Result<Vec<(Ino, Vec<u8>)>, DriveError> {
        let mut found = Vec::new();
        let mut from = Vec::new();
        loop {
            let page = self.vfs.rows().live().range(Table::Entry, &from, &[0xff; 17], PAGE_ROWS)?;
            let last = page.len() < PAGE_ROWS;
            for (key, row) in page {
                let (folder, _) = keys::decode_pair(&key)?;
                if let EntryRow::Name { ino, name, .. } = EntryRow::decode(&row)?
                    && wanted.contains(&ino)
                {
                    found.push((folder, name.to_vec()));
                }
                from = key;
                from.push(0);
            }
            if last {
                return Ok(found);
            }
        }
    }
}
