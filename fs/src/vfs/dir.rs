//! Directories: finding names, adding and removing slots, reading with stable cookies.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;

use crate::rows::keys::TAG_SLOTS;
use crate::rows::{EntryRow, Ino, InodeRow, Kind, ROOT_INO, RowTxn, SCAN_PAGE_ROWS, Tag};

use super::attr::Attr;
use super::error::FsError;
use super::names::Names;
use super::node::{DirMap, Node, Slot, State};
use super::{Vfs, check_name};

/// Cookie of `.`, the first entry that readdir gives.
const COOKIE_DOT: u64 = 1;
/// Cookie of `..`.
const COOKIE_DOTDOT: u64 = 2;
/// Entries that are read in a row in the time of one that is looked up alone.
const ENTRIES_PER_PROBE: u64 = 32;
/// Inodes that are worth reading together, and how many others may lie between each two of them.
const PREPARED_MIN: usize = 8;
pub(super) const SPREAD_MAX: u64 = 6;
/// Times that a look-up starts anew because the name was replaced under it.
const LOOKUP_TRIES: usize = 64;

/// What readdir gives for one name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DirEntry {
    /// Give it back to go on after this entry.
    pub cookie: u64,
    pub ino: Ino,
    pub kind: Kind,
    pub name: Bytes,
}

/// A name in a directory, or the slot where it would go.
#[derive(Debug, Clone, Copy)]
pub(super) enum Found {
    Here { tag: Tag, ino: Ino, kind: Kind },
    Free { tag: Tag },
}

impl Found {
    pub(super) fn here(self) -> Option<(Tag, Ino, Kind)> {
        match self {
            Self::Here { tag, ino, kind } => Some((tag, ino, kind)),
            Self::Free { .. } => None,
        }
    }
}

impl Vfs {
    /// The inode that a name stands for, with its attributes.
    pub fn lookup(&self, parent: Ino, name: &[u8]) -> Result<Attr, FsError> {
        if name.len() > crate::rows::NAME_BYTES_MAX {
            return Err(FsError::NameTooLong);
        }
        let dir = self.node(parent)?;
        for _ in 0..LOOKUP_TRIES {
            let ino = match name {
                b"." => parent,
                b".." => dir.read().row.parent,
                _ => self.find(&dir, name)?.ok_or(FsError::NotFound)?,
            };
            // Between both steps another name may have been renamed over this one: then look again, since there
            // never was a moment without the name.
            match self.node(ino) {
                Ok(node) => {
                    let state = node.read();
                    if !state.dead && state.row.nlink > 0 {
                        return Ok(Attr::of(ino, &state.row));
                    }
                }
                Err(FsError::NotFound) => {}
                Err(other) => return Err(other),
            }
        }
        Err(FsError::Damaged(format!("an entry of directory {parent} leads nowhere")))
    }

    /// The inode number behind a name.
    pub(super) fn find(&self, dir: &Arc<Node>, name: &[u8]) -> Result<Option<Ino>, FsError> {
        {
            let state = dir.read();
            if state.row.kind != Kind::Dir {
                return Err(FsError::NotDir);
            }
            if let Some(found) = self.find_in_memory(&state, dir.ino, name) {
                return Ok(found);
            }
            if !self.is_worth_loading(&state) {
                return Ok(self.find_slot(&state, dir.ino, name)?.here().map(|(_, ino, _)| ino));
            }
        }
        let mut state = dir.write();
        self.load_dir(dir.ino, &mut state)?;
        Ok(self.find_slot(&state, dir.ino, name)?.here().map(|(_, ino, _)| ino))
    }

    /// `None`: the directory is not in memory. `Some(None)`: it is, and has no such name.
    pub(super) fn find_in_memory(&self, state: &State, parent: Ino, name: &[u8]) -> Option<Option<Ino>> {
        let map = state.dir.as_ref()?;
        let first = self.rows.names().first_slot(parent, name);
        let slots = map.range(first..first + TAG_SLOTS);
        Some(slots.into_iter().find(|(_, slot)| slot.ino != 0 && slot.name == name).map(|(_, slot)| slot.ino))
    }

    /// Whether so many names were looked for, one by one, that reading all of them would have cost no more: who looks for a
    /// few names in each of many directories must not pay for their size, and who looks for many pays twice at most.
    fn is_worth_loading(&self, state: &State) -> bool {
        let probes = u64::from(state.probes.fetch_add(1, Ordering::Relaxed)) + 1;
        state.row.size <= self.options.dir_load_entries_max.min(probes * ENTRIES_PER_PROBE)
    }

    /// For a change of one name: reads the directory into memory if that is worth it, and it is not there already.
    pub(super) fn load_dir_if_worth(&self, ino: Ino, state: &mut State) -> Result<(), FsError> {
        if state.dir.is_some() || !self.is_worth_loading(state) {
            return Ok(());
        }
        self.load_dir(ino, state)
    }

    /// Reads a directory into memory if it is small enough; does nothing if it is there already.
    pub(super) fn load_dir(&self, ino: Ino, state: &mut State) -> Result<(), FsError> {
        if state.dir.is_some() || state.row.size > self.options.dir_load_entries_max {
            return Ok(());
        }
        let mut map = DirMap::new();
        let mut from = 0;
        loop {
            let page = self.rows.live().entries(ino, from, SCAN_PAGE_ROWS)?;
            let full = page.len() == SCAN_PAGE_ROWS;
            for (tag, row) in page {
                from = tag + 1;
                map.insert(tag, Slot::of(row));
            }
            if !full {
                break;
            }
        }
        state.dir = Some(map);
        state.names = None;
        self.nodes.recount(state);
        Ok(())
    }

    fn slot(&self, state: &State, parent: Ino, tag: Tag) -> Result<Option<Slot>, FsError> {
        match (&state.dir, &state.names) {
            (Some(map), _) => Ok(map.get(&tag).cloned()),
            (None, Some(names)) if names.is_free(tag) => Ok(None),
            (None, _) => Ok(self.rows.live().entry(parent, tag)?.map(Slot::of)),
        }
    }

    /// Walks the collision chain of a name: one step unless two names of one directory share 56 bits.
    pub(super) fn find_slot(&self, state: &State, parent: Ino, name: &[u8]) -> Result<Found, FsError> {
        let first = self.rows.names().first_slot(parent, name);
        let mut free = None;
        for tag in first..first + TAG_SLOTS {
            match self.slot(state, parent, tag)? {
                None => return Ok(Found::Free { tag: free.unwrap_or(tag) }),
                Some(slot) if slot.ino == 0 => free = free.or(Some(tag)),
                Some(slot) if slot.name == name => {
                    return Ok(Found::Here { tag, ino: slot.ino, kind: slot.kind });
                }
                Some(_) => {}
            }
        }
        free.map(|tag| Found::Free { tag }).ok_or(FsError::NoSpace)
    }

    /// Takes a slot out in a record; says whether a tombstone must stay in its place.
    pub(super) fn write_slot_removal(
        &self,
        txn: &mut RowTxn<'_>,
        state: &State,
        parent: Ino,
        tag: Tag,
    ) -> Result<bool, FsError> {
        let next = tag + 1;
        let chain_goes_on = !next.is_multiple_of(TAG_SLOTS) && self.slot(state, parent, next)?.is_some();
        if chain_goes_on {
            txn.put_entry(parent, tag, &EntryRow::Tombstone);
        } else {
            txn.delete_entry(parent, tag);
        }
        Ok(chain_goes_on)
    }

    /// The same in memory, once the record is committed.
    pub(super) fn apply_slot_removal(&self, state: &mut State, tag: Tag, tombstone: bool) {
        if let Some(map) = &mut state.dir {
            if tombstone {
                map.insert(tag, Slot { ino: 0, kind: Kind::File, name: Bytes::new() });
            } else {
                map.remove(&tag);
            }
            self.nodes.recount(state);
        } else if let Some(names) = state.names.as_mut().filter(|_| !tombstone) {
            names.remove(tag);
            self.nodes.recount(state);
        }
    }

    /// Puts a name into memory, once the record is committed. `replaced`: it stands where another one stood.
    pub(super) fn apply_slot(&self, state: &mut State, tag: Tag, slot: Slot, replaced: bool) {
        if let Some(map) = &mut state.dir {
            map.insert(tag, slot);
            if map.len() > self.options.dir_keep_entries_max {
                state.names = Names::of(map.keys().copied()).map(Box::new);
                state.dir = None;
            }
        } else if !replaced && !state.names.as_mut().is_none_or(|names| names.add(tag)) {
            state.names = None;
        }
        self.nodes.recount(state);
    }

    /// Entries after `cookie` (0: from the beginning), at most `limit`, `.` and `..` first.
    ///
    /// A name that stays is given exactly once between two rewinds, whatever comes and goes beside it.
    pub fn readdir(&self, ino: Ino, cookie: u64, limit: usize) -> Result<Vec<DirEntry>, FsError> {
        let dir = self.node(ino)?;
        if !self.options.no_dir_atime {
            self.note_read(&dir);
        }
        if dir.read().dir.is_none() {
            self.load_dir(ino, &mut dir.write())?;
        }
        let state = dir.read();
        if state.row.kind != Kind::Dir {
            return Err(FsError::NotDir);
        }
        let mut out = Vec::with_capacity(limit.min(SCAN_PAGE_ROWS));
        for (at, of, name) in [
            (COOKIE_DOT, ino, &b"."[..]),
            (COOKIE_DOTDOT, if ino == ROOT_INO { ino } else { state.row.parent }, &b".."[..]),
        ] {
            if cookie < at && out.len() < limit {
                let name = Bytes::copy_from_slice(name);
                out.push(DirEntry { cookie: at, ino: of, kind: Kind::Dir, name });
            }
        }
        let after = cookie.max(COOKIE_DOTDOT);
        if let Some(map) = &state.dir {
            let wanted = limit.saturating_sub(out.len());
            let names = map.range(after + 1..).filter(|(_, slot)| slot.ino != 0).take(wanted);
            out.extend(names.map(|(tag, slot)| slot.entry(*tag)));
            return Ok(out);
        }
        let mut from = after.saturating_add(1);
        while out.len() < limit {
            let wanted = limit.saturating_sub(out.len());
            let page = self.rows.live().entries(ino, from, wanted)?;
            let full = page.len() == wanted;
            for (tag, row) in page {
                from = tag + 1;
                let slot = Slot::of(row);
                if slot.ino != 0 {
                    out.push(slot.entry(tag));
                }
            }
            if !full {
                break;
            }
        }
        Ok(out)
    }

    /// Reads what `getattr` will be asked of these entries: together, since what was made together lies together. A row alone costs several times as much.
    /// What fails here fails again, and aloud, for its own entry.
    pub fn prepare(&self, entries: &[DirEntry]) {
        self.load_nodes(entries.iter().map(|entry| entry.ino));
    }

    /// The same for inodes that are about to be needed, of which those that lie close together are read.
    pub(super) fn load_nodes(&self, inos: impl Iterator<Item = Ino>) {
        // Nothing is fetched from elsewhere before it is asked for.
        if self.rows.has_base() {
            return;
        }
        let mut missing: Vec<Ino> = inos.filter(|ino| self.nodes.peek(*ino).is_none()).collect();
        missing.sort_unstable();
        missing.dedup();
        let (Some(first), Some(last)) = (missing.first(), missing.last()) else { return };
        if missing.len() < PREPARED_MIN {
            return;
        }
        let span = last - first + 1;
        let as_of = self.rows.store().last_lsn();
        let close = span <= missing.len() as u64 * SPREAD_MAX;
        let found = if close {
            self.rows.live().inodes(*first, *last, span as usize)
        } else {
            self.rows.live().inodes_of(&missing)
        };
        let Ok(found) = found else { return };
        let wanted = |(ino, _): &(Ino, InodeRow)| missing.binary_search(ino).is_ok();
        self.nodes.offer(&self.rows, as_of, found.into_iter().filter(wanted).collect());
    }

    /// The inode at the end of a path of names, from the root. Symlinks are not followed.
    pub fn resolve(&self, path: &[u8]) -> Result<Attr, FsError> {
        let mut attr = self.getattr(ROOT_INO)?;
        for name in path.split(|b| *b == b'/').filter(|name| !name.is_empty()) {
            check_name(name)?;
            attr = self.lookup(attr.ino, name)?;
        }
        Ok(attr)
    }
}

impl Slot {
    pub(super) fn new(ino: Ino, kind: Kind, name: &[u8]) -> Self {
        Self { ino, kind, name: Bytes::copy_from_slice(name) }
    }

    pub(super) fn of(row: EntryRow) -> Self {
        match row {
            EntryRow::Name { ino, kind, name } => Self { ino, kind, name },
            EntryRow::Tombstone => Self { ino: 0, kind: Kind::File, name: Bytes::new() },
        }
    }

    fn entry(&self, tag: Tag) -> DirEntry {
        DirEntry { cookie: tag, ino: self.ino, kind: self.kind, name: self.name.clone() }
    }
}
