//! Rules of the namespace: every name has an inode, every inode its names.

use std::collections::HashMap;

use holdfast_store::Table;

use super::{Checker, PAGE_ROWS};
use crate::drive::error::DriveError;
use crate::drive::scan;
use crate::rows::{EntryRow, Ino, InodeRow, Kind, OrphanRow, ROOT_INO, XattrRow, keys};

/// What later rules need of an inode.
pub(super) struct Facts {
    pub(super) kind: Kind,
    pub(super) size: u64,
    pub(super) chunk_bytes: u64,
    pub(super) has_chunks: bool,
    nlink: u32,
    parent: Ino,
    has_xattrs: bool,
    names: u32,
    subfolders: u32,
    entries: u64,
    /// The folder that names it last.
    pub(super) named_in: Ino,
}

/// All inodes, and those whose rows are being taken away.
pub(super) struct Inodes {
    pub(super) facts: HashMap<Ino, Facts>,
    pub(super) orphans: HashMap<Ino, OrphanRow>,
}

impl Inodes {
    /// May rows of this inode stand here?
    pub(super) fn may_own(&self, ino: Ino) -> bool {
        self.facts.contains_key(&ino) || self.orphans.get(&ino) == Some(&OrphanRow::Unlinked)
    }
}

impl Checker<'_> {
    pub(super) fn namespace(&mut self) -> Result<Inodes, DriveError> {
        let mut inodes = Inodes { facts: self.inodes()?, orphans: self.orphans()? };
        self.entries(&mut inodes)?;
        self.counts(&inodes);
        self.tree_shape(&inodes);
        self.xattrs(&inodes)?;
        Ok(inodes)
    }

    /// Walks all rows of a table, base included.
    pub(super) fn each(
        &mut self,
        table: Table,
        mut f: impl FnMut(&mut Self, &[u8], &[u8]) -> Result<(), DriveError>,
    ) -> Result<(), DriveError> {
        let mut from = Vec::new();
        loop {
            let page = self.rows.range(table, &from, &[0xff; 33], PAGE_ROWS)?;
            let last = page.len() < PAGE_ROWS;
            for (key, value) in page {
                f(self, &key, &value)?;
                from = key;
                from.push(0);
            }
            if last {
                return Ok(());
            }
        }
    }

    fn inodes(&mut self) -> Result<HashMap<Ino, Facts>, DriveError> {
        let mut facts = HashMap::new();
        let mut highest = ROOT_INO;
        self.each(Table::Inode, |this, key, value| {
            this.report.inodes += 1;
            let ino = keys::decode_inode(key)?;
            let row = match InodeRow::decode(value) {
                Ok(row) => row,
                Err(error) => {
                    this.report.problem(format!("inode {ino}: {error}"));
                    return Ok(());
                }
            };
            highest = highest.max(ino);
            if row.lacks_data() {
                this.report.problem(format!(
                    "inode {ino}: its data is in no commit that this drive has, nor here; an older snapshot may have it"
                ));
            }
            let fact = Facts {
                kind: row.kind,
                size: row.size,
                chunk_bytes: row.chunk_bytes(),
                has_chunks: row.has_chunks(),
                nlink: row.nlink,
                parent: row.parent,
                has_xattrs: row.has_xattrs(),
                names: 0,
                subfolders: 0,
                entries: 0,
                named_in: 0,
            };
            facts.insert(ino, fact);
            Ok(())
        })?;
        if !facts.get(&ROOT_INO).is_some_and(|root| root.kind == Kind::Dir) {
            self.report.problem("there is no root folder");
        }
        if facts.len() > 1 && self.rows.next_ino()? <= highest {
            self.report.problem(format!("inode number {highest} may be given a second time"));
        }
        Ok(facts)
    }

    fn orphans(&mut self) -> Result<HashMap<Ino, OrphanRow>, DriveError> {
        let mut orphans = HashMap::new();
        let mut from = Vec::new();
        loop {
            let page = scan::range(self.snapshot, Table::Orphan, &from, &[0xff; 9], PAGE_ROWS)?;
            let last = page.len() < PAGE_ROWS;
            for (key, value) in page {
                orphans.insert(keys::decode_inode(&key)?, OrphanRow::decode(&value)?);
                from = key;
                from.push(0);
            }
            if last {
                return Ok(orphans);
            }
        }
    }

    fn entries(&mut self, inodes: &mut Inodes) -> Result<(), DriveError> {
        self.each(Table::Entry, |this, key, value| {
            let (parent, tag) = keys::decode_pair(key)?;
            let row = match EntryRow::decode(value) {
                Ok(row) => row,
                Err(error) => {
                    this.report.problem(format!("entry {tag:#x} of folder {parent}: {error}"));
                    return Ok(());
                }
            };
            let EntryRow::Name { ino, kind, name } = row else { return Ok(()) };
            this.report.entries += 1;
            let first = this.inner.parts.rows().names().first_slot(parent, &name);
            if !(first..first + keys::TAG_SLOTS).contains(&tag) {
                this.report
                    .problem(format!("entry {tag:#x} of folder {parent}: its name belongs to another slot"));
            }
            match inodes.facts.get_mut(&parent) {
                Some(folder) if folder.kind == Kind::Dir => {
                    folder.entries += 1;
                    folder.subfolders += u32::from(kind == Kind::Dir);
                }
                _ => this.report.problem(format!("entry {tag:#x}: its folder {parent} is none")),
            }
            match inodes.facts.get_mut(&ino) {
                Some(fact) => {
                    fact.names += 1;
                    fact.named_in = parent;
                    if fact.kind != kind {
                        this.report.problem(format!(
                            "entry {tag:#x} of folder {parent}: inode {ino} is of another kind"
                        ));
                    }
                }
                None => {
                    this.report.problem(format!("entry {tag:#x} of folder {parent}: inode {ino} is missing"))
                }
            }
            Ok(())
        })
    }

    fn counts(&mut self, inodes: &Inodes) {
        for (ino, fact) in &inodes.facts {
            let orphan = inodes.orphans.get(ino) == Some(&OrphanRow::Unlinked);
            let wanted = match fact.kind {
                Kind::Dir if orphan => 0,
                Kind::Dir => 2 + fact.subfolders,
                _ => fact.names,
            };
            if fact.nlink != wanted {
                self.report.problem(format!("inode {ino}: link count {} instead of {wanted}", fact.nlink));
            }
            if fact.kind == Kind::Dir && fact.size != fact.entries {
                self.report
                    .problem(format!("folder {ino}: says {} entries, has {}", fact.size, fact.entries));
            }
            if let Some(OrphanRow::Trim { from }) = inodes.orphans.get(ino)
                && fact.size > *from
            {
                self.report.problem(format!("inode {ino}: grew under the mark of a truncation"));
            }
            if orphan && fact.names > 0 {
                self.report.problem(format!("inode {ino}: an orphan with a name"));
            }
            if !orphan && fact.names == 0 && *ino != ROOT_INO {
                self.report.problem(format!("inode {ino}: no name, and no orphan"));
            }
            let only_name = fact.kind == Kind::File && fact.names == 1 && fact.nlink == 1;
            if only_name && fact.parent != 0 && fact.parent != fact.named_in {
                self.report
                    .problem(format!("file {ino}: its folder is {}, not {}", fact.named_in, fact.parent));
            }
            if fact.kind == Kind::Dir && *ino != ROOT_INO && !orphan {
                if fact.names > 1 {
                    self.report.problem(format!("folder {ino}: {} names", fact.names));
                }
                if fact.names == 1 && fact.parent != fact.named_in {
                    self.report.problem(format!(
                        "folder {ino}: its parent is {}, not {}",
                        fact.named_in, fact.parent
                    ));
                }
            }
        }
    }

    /// Every folder leads up to the root.
    fn tree_shape(&mut self, inodes: &Inodes) {
        let mut rooted: HashMap<Ino, bool> = HashMap::from([(ROOT_INO, true)]);
        for (ino, fact) in inodes.facts.iter().filter(|(_, fact)| fact.kind == Kind::Dir) {
            if fact.names == 0 {
                continue;
            }
            let mut path = Vec::new();
            let mut at = *ino;
            let verdict = loop {
                if let Some(known) = rooted.get(&at) {
                    break *known;
                }
                // Marked while it is on the path: meeting it again is a ring.
                rooted.insert(at, false);
                path.push(at);
                match inodes.facts.get(&at) {
                    Some(fact) if fact.names > 0 => at = fact.named_in,
                    _ => break false,
                }
            };
            for at in path {
                rooted.insert(at, verdict);
            }
            if !verdict {
                self.report.problem(format!("folder {ino}: no way up to the root"));
            }
        }
    }

    fn xattrs(&mut self, inodes: &Inodes) -> Result<(), DriveError> {
        self.each(Table::Xattr, |this, key, value| {
            let ino = keys::decode_inode(key.get(..8).unwrap_or_default())?;
            match XattrRow::decode(value) {
                Ok(row) => {
                    if key != keys::xattr(ino, this.inner.parts.rows().names().xattr_tag(&row.name)) {
                        this.report.problem(format!("xattr of inode {ino}: its name belongs to another key"));
                    }
                }
                Err(error) => this.report.problem(format!("xattr of inode {ino}: {error}")),
            }
            match inodes.facts.get(&ino) {
                Some(fact) if !fact.has_xattrs => {
                    this.report.problem(format!("inode {ino}: does not know its xattrs"))
                }
                Some(_) => {}
                None if inodes.may_own(ino) => {}
                None => this.report.problem(format!("xattr of inode {ino}, which is missing")),
            }
            Ok(())
        })?;
        Ok(())
    }
}
