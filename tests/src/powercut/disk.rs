//! The whole disk: inodes, folder entries, and the entry changes that no fsync covers yet.
//!
//! Invariant: `durable` of all folders, with the pending changes applied in order, is `live`. A change is one or two
//! edits of names; of the changes to one name, what survives a cut is a beginning.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::ffi::{OsStr, OsString};
use std::time::SystemTime;

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};

use super::file::{Odds, PagedFile};

pub type Ino = u64;
pub const ROOT: Ino = 1;

/// One dirty page in this many is written back by the kernel before it is written to again.
const EARLY_WRITEBACK_ONE_IN: u32 = 8;

pub type Result<T> = std::result::Result<T, i32>;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attributes {
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub rdev: u32,
    pub atime: SystemTime,
    pub mtime: SystemTime,
    pub ctime: SystemTime,
    pub xattrs: BTreeMap<OsString, Vec<u8>>,
}

#[derive(Clone, Debug)]
pub enum Kind {
    File(PagedFile),
    Folder,
    Symlink(Vec<u8>),
    Special,
}

#[derive(Debug)]
pub struct Node {
    pub kind: Kind,
    pub attributes: Attributes,
    durable_attributes: Attributes,
    pub nlink: u32,
    lookups: u64,
}

/// A name of a folder.
type Name = (Ino, OsString);

/// The name now stands for this inode, or for none.
#[derive(Clone, Debug)]
struct Edit {
    name: Name,
    to: Option<Ino>,
}

/// What one system call changed: all of it survives or none.
type Change = Vec<Edit>;

/// What a cut did; printed by the tests, so that a run shows that it lost something.
#[derive(Clone, Copy, Debug, Default)]
pub struct CutReport {
    pub pages_dropped: u64,
    pub pages_torn: u64,
    pub changes_dropped: u64,
    pub changes_kept: u64,
    pub files_lost: u64,
}

#[derive(Debug)]
pub struct Disk {
    nodes: HashMap<Ino, Node>,
    live: BTreeMap<Ino, BTreeMap<OsString, Ino>>,
    durable: BTreeMap<Ino, BTreeMap<OsString, Ino>>,
    pending: Vec<Change>,
    next_ino: Ino,
    rng: ChaCha8Rng,
    /// The power is gone but nobody has noticed yet: every change is refused with EIO.
    pub frozen: bool,
    /// A lying disk: fsync answers and does nothing.
    pub ignore_fsync: bool,
    pub fsyncs: u64,
}

impl Disk {
    pub fn new(seed: u64) -> Disk {
        let now = SystemTime::UNIX_EPOCH;
        let attributes = Attributes {
            mode: libc::S_IFDIR | 0o755,
            uid: nix::unistd::getuid().as_raw(),
            gid: nix::unistd::getgid().as_raw(),
            rdev: 0,
            atime: now,
            mtime: now,
            ctime: now,
            xattrs: BTreeMap::new(),
        };
        let root = Node {
            kind: Kind::Folder,
            durable_attributes: attributes.clone(),
            attributes,
            nlink: 2,
            lookups: 1,
        };
        Disk {
            nodes: HashMap::from([(ROOT, root)]),
            live: BTreeMap::from([(ROOT, BTreeMap::new())]),
            durable: BTreeMap::from([(ROOT, BTreeMap::new())]),
            pending: Vec::new(),
            next_ino: ROOT + 1,
            rng: ChaCha8Rng::seed_from_u64(seed),
            frozen: false,
            ignore_fsync: false,
            fsyncs: 0,
        }
    }

    // ---- looking ----

    pub fn node(&self, ino: Ino) -> Result<&Node> {
        self.nodes.get(&ino).ok_or(libc::ESTALE)
    }

    fn node_mut(&mut self, ino: Ino) -> Result<&mut Node> {
        self.nodes.get_mut(&ino).ok_or(libc::ESTALE)
    }

    fn folder(&self, ino: Ino) -> Result<&BTreeMap<OsString, Ino>> {
        self.live.get(&ino).ok_or(libc::ENOTDIR)
    }

    pub fn lookup(&self, parent: Ino, name: &OsStr) -> Result<Ino> {
        self.folder(parent)?.get(name).copied().ok_or(libc::ENOENT)
    }

    pub fn list(&self, folder: Ino) -> Result<Vec<(OsString, Ino)>> {
        Ok(self.folder(folder)?.iter().map(|(name, ino)| (name.clone(), *ino)).collect())
    }

    pub fn file(&self, ino: Ino) -> Result<&PagedFile> {
        match &self.node(ino)?.kind {
            Kind::File(file) => Ok(file),
            Kind::Folder => Err(libc::EISDIR),
            _ => Err(libc::EINVAL),
        }
    }

    pub fn dirty_pages(&self) -> u64 {
        self.nodes
            .values()
            .map(|node| if let Kind::File(file) = &node.kind { file.dirty_pages() } else { 0 })
            .sum()
    }

    pub fn pending_changes(&self) -> u64 {
        self.pending.len() as u64
    }

    // ---- changing ----

    fn writable(&self) -> Result<()> {
        if self.frozen { Err(libc::EIO) } else { Ok(()) }
    }

    /// The file for changing it, and a source of early writeback decisions.
    fn file_mut(&mut self, ino: Ino) -> Result<(&mut PagedFile, &mut ChaCha8Rng)> {
        self.writable()?;
        let node = self.nodes.get_mut(&ino).ok_or(libc::ESTALE)?;
        let now = SystemTime::now();
        (node.attributes.mtime, node.attributes.ctime) = (now, now);
        match &mut node.kind {
            Kind::File(file) => Ok((file, &mut self.rng)),
            Kind::Folder => Err(libc::EISDIR),
            _ => Err(libc::EINVAL),
        }
    }

    pub fn write(&mut self, ino: Ino, offset: u64, data: &[u8]) -> Result<()> {
        let (file, rng) = self.file_mut(ino)?;
        file.write(offset, data, || rng.next_u32() % EARLY_WRITEBACK_ONE_IN == 0);
        Ok(())
    }

    pub fn set_len(&mut self, ino: Ino, len: u64) -> Result<()> {
        self.file_mut(ino)?.0.set_len(len);
        Ok(())
    }

    pub fn zero(&mut self, ino: Ino, offset: u64, len: u64) -> Result<()> {
        self.file_mut(ino)?.0.zero(offset, len);
        Ok(())
    }

    pub fn set_attributes(&mut self, ino: Ino, set: impl FnOnce(&mut Attributes)) -> Result<()> {
        self.writable()?;
        let node = self.node_mut(ino)?;
        set(&mut node.attributes);
        node.attributes.ctime = SystemTime::now();
        Ok(())
    }

    /// A new inode under a new name.
    pub fn create(&mut self, parent: Ino, name: &OsStr, kind: Kind, attributes: Attributes) -> Result<Ino> {
        self.writable()?;
        if self.folder(parent)?.contains_key(name) {
            return Err(libc::EEXIST);
        }
        let ino = self.next_ino;
        self.next_ino += 1;
        if matches!(kind, Kind::Folder) {
            self.live.insert(ino, BTreeMap::new());
            self.durable.insert(ino, BTreeMap::new());
        }
        let nlink = if matches!(kind, Kind::Folder) { 2 } else { 0 };
        let durable_attributes = attributes.clone();
        self.nodes.insert(ino, Node { kind, attributes, durable_attributes, nlink, lookups: 0 });
        self.change(vec![Edit { name: (parent, name.to_owned()), to: Some(ino) }]);
        Ok(ino)
    }

    pub fn link(&mut self, ino: Ino, parent: Ino, name: &OsStr) -> Result<()> {
        self.writable()?;
        if matches!(self.node(ino)?.kind, Kind::Folder) {
            return Err(libc::EPERM);
        }
        if self.folder(parent)?.contains_key(name) {
            return Err(libc::EEXIST);
        }
        self.change(vec![Edit { name: (parent, name.to_owned()), to: Some(ino) }]);
        Ok(())
    }

    pub fn remove(&mut self, parent: Ino, name: &OsStr, folder: bool) -> Result<()> {
        self.writable()?;
        let ino = self.lookup(parent, name)?;
        match (folder, self.live.get(&ino)) {
            (true, None) => return Err(libc::ENOTDIR),
            (false, Some(_)) => return Err(libc::EISDIR),
            (true, Some(entries)) if !entries.is_empty() => return Err(libc::ENOTEMPTY),
            _ => {}
        }
        self.change(vec![Edit { name: (parent, name.to_owned()), to: None }]);
        Ok(())
    }

    pub fn rename(&mut self, from: (Ino, &OsStr), to: (Ino, &OsStr), flags: u32) -> Result<()> {
        self.writable()?;
        let source = self.lookup(from.0, from.1)?;
        let target = self.folder(to.0)?.get(to.1).copied();
        let exchange = flags & libc::RENAME_EXCHANGE != 0;
        if flags & libc::RENAME_NOREPLACE != 0 && target.is_some() {
            return Err(libc::EEXIST);
        }
        if exchange && target.is_none() {
            return Err(libc::ENOENT);
        }
        if target == Some(source) && !exchange {
            return Ok(());
        }
        if let (Some(target), false) = (target, exchange) {
            match (self.live.contains_key(&source), self.live.get(&target)) {
                (true, None) => return Err(libc::ENOTDIR),
                (false, Some(_)) => return Err(libc::EISDIR),
                (true, Some(entries)) if !entries.is_empty() => return Err(libc::ENOTEMPTY),
                _ => {}
            }
        }
        self.change(vec![
            Edit { name: (from.0, from.1.to_owned()), to: if exchange { target } else { None } },
            Edit { name: (to.0, to.1.to_owned()), to: Some(source) },
        ]);
        Ok(())
    }

    fn change(&mut self, change: Change) {
        let now = SystemTime::now();
        for edit in &change {
            let old = apply(&mut self.live, edit);
            for (ino, by) in [(old, -1), (edit.to, 1)] {
                if let Some(node) = ino.and_then(|ino| self.nodes.get_mut(&ino)) {
                    if !matches!(node.kind, Kind::Folder) {
                        node.nlink = node.nlink.saturating_add_signed(by);
                    }
                    node.attributes.ctime = now;
                }
            }
            if let Some(folder) = self.nodes.get_mut(&edit.name.0) {
                (folder.attributes.mtime, folder.attributes.ctime) = (now, now);
            }
        }
        self.pending.push(change);
    }

    // ---- what the kernel holds ----

    pub fn remember(&mut self, ino: Ino) {
        if let Some(node) = self.nodes.get_mut(&ino) {
            node.lookups += 1;
        }
    }

    pub fn forget(&mut self, ino: Ino, count: u64) {
        if let Some(node) = self.nodes.get_mut(&ino) {
            node.lookups = node.lookups.saturating_sub(count);
            if node.lookups == 0 && node.nlink == 0 {
                self.collect();
            }
        }
    }

    /// Drops inodes that neither a name, live or durable or pending, nor the kernel refers to.
    fn collect(&mut self) {
        let mut used: HashSet<Ino> = HashSet::from([ROOT]);
        used.extend(self.live.values().chain(self.durable.values()).flat_map(|entries| entries.values()));
        used.extend(self.pending.iter().flatten().filter_map(|edit| edit.to));
        self.nodes.retain(|ino, node| node.lookups > 0 || used.contains(ino));
        let nodes = &self.nodes;
        self.live.retain(|ino, _| nodes.contains_key(ino));
        self.durable.retain(|ino, _| nodes.contains_key(ino));
    }

    // ---- durability ----

    pub fn sync_file(&mut self, ino: Ino) -> Result<()> {
        self.writable()?;
        self.fsyncs += 1;
        if self.ignore_fsync {
            return Ok(());
        }
        let node = self.node_mut(ino)?;
        node.durable_attributes = node.attributes.clone();
        if let Kind::File(file) = &mut node.kind {
            file.sync();
        }
        Ok(())
    }

    /// The entries of the folder become durable, and with them the earlier changes that they build on.
    pub fn sync_folder(&mut self, ino: Ino) -> Result<()> {
        self.sync_file(ino)?;
        if self.ignore_fsync {
            return Ok(());
        }
        // Backward, so that a rename out of another folder pulls in that other name's earlier changes.
        let mut names: HashSet<Name> = HashSet::new();
        let mut chosen: BTreeSet<usize> = BTreeSet::new();
        for (index, change) in self.pending.iter().enumerate().rev() {
            if change.iter().any(|edit| edit.name.0 == ino || names.contains(&edit.name)) {
                names.extend(change.iter().map(|edit| edit.name.clone()));
                chosen.insert(index);
            }
        }
        let mut index = 0;
        let durable = &mut self.durable;
        self.pending.retain(|change| {
            let take = chosen.contains(&index);
            index += 1;
            if take {
                for edit in change {
                    apply(durable, edit);
                }
            }
            !take
        });
        self.collect();
        Ok(())
    }

    /// Everything becomes durable, as at a clean shutdown.
    pub fn sync_all(&mut self) {
        for node in self.nodes.values_mut() {
            node.durable_attributes = node.attributes.clone();
            if let Kind::File(file) = &mut node.kind {
                file.sync();
            }
        }
        self.pending.clear();
        self.durable = self.live.clone();
        self.collect();
    }

    /// The power goes and comes back: what survived becomes the live state.
    pub fn cut(&mut self, seed: u64) -> CutReport {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        // Some cuts lose all that they may, some nearly nothing: the edges are where code is wrong.
        let odds = match seed % 5 {
            0 => Odds { keep: 0, tear: 0 },
            1 => Odds { keep: 250, tear: 3 },
            2 => Odds { keep: 128, tear: 0 },
            _ => Odds { keep: 112, tear: 32 },
        };
        let mut report = CutReport::default();
        self.cut_entries(odds, &mut rng, &mut report);
        let mut inos: Vec<Ino> = self.nodes.keys().copied().collect();
        inos.sort_unstable();
        for ino in inos {
            if let Some(node) = self.nodes.get_mut(&ino) {
                node.lookups = u64::from(ino == ROOT);
                if !odds.keeps(&mut rng) {
                    node.attributes = node.durable_attributes.clone();
                }
                node.durable_attributes = node.attributes.clone();
                if let Kind::File(file) = &mut node.kind {
                    let loss = file.cut(odds, &mut rng);
                    report.pages_dropped += loss.pages_dropped;
                    report.pages_torn += loss.pages_torn;
                }
            }
        }
        self.keep_reachable(&mut report);
        self.frozen = false;
        report
    }

    fn cut_entries(&mut self, odds: Odds, rng: &mut ChaCha8Rng, report: &mut CutReport) {
        let mut stopped: HashSet<Name> = HashSet::new();
        for change in std::mem::take(&mut self.pending) {
            let builds_on_lost = change.iter().any(|edit| stopped.contains(&edit.name));
            if !builds_on_lost && odds.keeps(rng) {
                report.changes_kept += 1;
                for edit in &change {
                    apply(&mut self.durable, edit);
                }
            } else {
                report.changes_dropped += 1;
                stopped.extend(change.into_iter().map(|edit| edit.name));
            }
        }
        self.live = self.durable.clone();
    }

    /// As a file system check would: what no name leads to is gone, link counts are those of the names.
    fn keep_reachable(&mut self, report: &mut CutReport) {
        let mut links: HashMap<Ino, u32> = HashMap::from([(ROOT, 2)]);
        let mut todo = vec![ROOT];
        while let Some(folder) = todo.pop() {
            for ino in self.live.get(&folder).into_iter().flat_map(|entries| entries.values()) {
                let count = links.entry(*ino).or_insert(0);
                *count += 1;
                if *count == 1 && self.live.contains_key(ino) {
                    *count = 2;
                    todo.push(*ino);
                }
            }
        }
        let before = self.nodes.len();
        self.nodes.retain(|ino, _| links.contains_key(ino));
        report.files_lost = (before - self.nodes.len()) as u64;
        for (ino, node) in &mut self.nodes {
            node.nlink = links.get(ino).copied().unwrap_or(0);
        }
        let nodes = &self.nodes;
        self.live.retain(|ino, _| nodes.contains_key(ino));
        self.durable = self.live.clone();
    }
}

/// Returns what the name stood for before.
fn apply(folders: &mut BTreeMap<Ino, BTreeMap<OsString, Ino>>, edit: &Edit) -> Option<Ino> {
    let entries = folders.get_mut(&edit.name.0)?;
    match edit.to {
        Some(ino) => entries.insert(edit.name.1.clone(), ino),
        None => entries.remove(&edit.name.1),
    }
}
