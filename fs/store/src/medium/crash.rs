//! A medium in memory that knows what a power cut would leave.
//!
//! Each file keeps its live bytes and its durable bytes apart, with the list of writes between them; the folder keeps its
//! live and durable names apart, with the list of changes. `power_cut(seed)` makes the medium of the next boot: durable
//! state, plus a random part of what was not synced, in random order, torn at sectors. The cut medium itself goes on, so a
//! test can take images at every edge of one run.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use parking_lot::Mutex;

use super::{MediumFile, StorageMedium};

/// The unit that a disk writes whole.
const SECTOR_BYTES: usize = 512;

/// See the module's documentation. Clones share the same files.
#[derive(Clone, Default)]
pub struct CrashMedium(Arc<Mutex<Folder>>);

#[derive(Default)]
struct Folder {
    live: BTreeMap<String, Arc<CrashFile>>,
    durable: BTreeMap<String, Arc<CrashFile>>,
    changes: Vec<NameChange>,
}

#[derive(Clone)]
enum NameChange {
    Create(String, Arc<CrashFile>),
    Rename(String, String, Arc<CrashFile>),
    Remove(String),
}

#[derive(Default)]
struct CrashFile(Mutex<Content>);

#[derive(Default, Clone)]
struct Content {
    live: Vec<u8>,
    durable: Vec<u8>,
    pending: Vec<Change>,
}

#[derive(Clone)]
enum Change {
    Write(u64, Vec<u8>),
    SetLen(u64),
}

impl CrashMedium {
    pub fn new() -> Self {
        CrashMedium::default()
    }

    /// The medium after the power was cut now. The seed chooses what of the unsynced survived.
    pub fn power_cut(&self, seed: u64) -> CrashMedium {
        let mut dice = Dice::new(seed);
        let folder = self.0.lock();
        let mut names = folder.durable.clone();
        let all_in_order = dice.below(2) == 0;
        let kept = dice.below(folder.changes.len() as u64 + 1) as usize;
        for (nth, change) in folder.changes.iter().enumerate() {
            // Journals keep a prefix of the changes; other file systems promise less.
            let survives = if all_in_order { nth < kept } else { dice.below(2) == 0 };
            if survives {
                apply_name(&mut names, change.clone());
            }
        }
        let files =
            names.into_iter().map(|(name, file)| (name, Arc::new(file.after_cut(&mut dice)))).collect();
        CrashMedium::from_files(files)
    }

    /// The medium as the next process finds it when only this one was killed: everything that was written.
    pub fn killed(&self) -> CrashMedium {
        let folder = self.0.lock();
        // A file that has a live and a durable name is one file.
        let mut copies: BTreeMap<*const CrashFile, Arc<CrashFile>> = BTreeMap::new();
        let mut copy = |file: &Arc<CrashFile>| {
            let fresh = || Arc::new(CrashFile(Mutex::new(file.0.lock().clone())));
            copies.entry(Arc::as_ptr(file)).or_insert_with(fresh).clone()
        };
        CrashMedium(Arc::new(Mutex::new(Folder {
            live: folder.live.iter().map(|(name, file)| (name.clone(), copy(file))).collect(),
            durable: folder.durable.iter().map(|(name, file)| (name.clone(), copy(file))).collect(),
            changes: Vec::new(),
        })))
    }

    /// Live bytes of all files, for searching planted plaintext and for flipping bits.
    pub fn contents(&self) -> BTreeMap<String, Vec<u8>> {
        let folder = self.0.lock();
        folder.live.iter().map(|(name, file)| (name.clone(), file.0.lock().live.clone())).collect()
    }

    fn from_files(files: BTreeMap<String, Arc<CrashFile>>) -> Self {
        CrashMedium(Arc::new(Mutex::new(Folder { durable: files.clone(), live: files, changes: Vec::new() })))
    }
}

fn apply_name(names: &mut BTreeMap<String, Arc<CrashFile>>, change: NameChange) {
    match change {
        NameChange::Create(name, file) => {
            names.insert(name, file);
        }
        NameChange::Rename(from, to, file) => {
            names.remove(&from);
            names.insert(to, file);
        }
        NameChange::Remove(name) => {
            names.remove(&name);
        }
    }
}

impl CrashFile {
    fn after_cut(&self, dice: &mut Dice) -> CrashFile {
        let content = self.0.lock();
        let mut bytes = content.durable.clone();
        // Three kinds of cut: nothing survives, everything does, or each sector for itself.
        let mode = dice.below(4);
        for change in &content.pending {
            match change {
                Change::SetLen(len) if mode == 1 || (mode > 1 && dice.below(2) == 0) => {
                    bytes.resize(*len as usize, 0)
                }
                Change::SetLen(_) => {}
                Change::Write(_, _) if mode == 0 => {}
                Change::Write(offset, data) if mode == 1 => put(&mut bytes, *offset, data),
                Change::Write(offset, data) => {
                    for (start, sector) in sectors(*offset, data) {
                        if dice.below(2) == 0 {
                            put(&mut bytes, start, sector);
                        }
                    }
                }
            }
        }
        CrashFile(Mutex::new(Content { live: bytes.clone(), durable: bytes, pending: Vec::new() }))
    }
}

/// The parts of a write that the disk writes whole.
fn sectors(offset: u64, data: &[u8]) -> Vec<(u64, &[u8])> {
    let mut parts = Vec::new();
    let mut rest = data;
    let mut at = offset;
    while !rest.is_empty() {
        let room = SECTOR_BYTES - (at as usize % SECTOR_BYTES);
        let (part, tail) = rest.split_at(room.min(rest.len()));
        parts.push((at, part));
        at += part.len() as u64;
        rest = tail;
    }
    parts
}

fn put(bytes: &mut Vec<u8>, offset: u64, data: &[u8]) {
    let end = offset as usize + data.len();
    if bytes.len() < end {
        bytes.resize(end, 0);
    }
    bytes[offset as usize..end].copy_from_slice(data);
}

impl StorageMedium for CrashMedium {
    fn create(&self, name: &str) -> io::Result<Arc<dyn MediumFile>> {
        let mut folder = self.0.lock();
        if folder.live.contains_key(name) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let file = Arc::new(CrashFile::default());
        folder.live.insert(name.to_owned(), file.clone());
        folder.changes.push(NameChange::Create(name.to_owned(), file.clone()));
        Ok(file)
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn MediumFile>> {
        match self.0.lock().live.get(name) {
            Some(file) => Ok(file.clone()),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut folder = self.0.lock();
        let Some(file) = folder.live.remove(from) else { return Err(io::ErrorKind::NotFound.into()) };
        folder.live.insert(to.to_owned(), file.clone());
        folder.changes.push(NameChange::Rename(from.to_owned(), to.to_owned(), file));
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut folder = self.0.lock();
        if folder.live.remove(name).is_none() {
            return Err(io::ErrorKind::NotFound.into());
        }
        folder.changes.push(NameChange::Remove(name.to_owned()));
        Ok(())
    }

    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.0.lock().live.keys().cloned().collect())
    }

    fn sync_dir(&self) -> io::Result<()> {
        let mut folder = self.0.lock();
        folder.durable = folder.live.clone();
        folder.changes.clear();
        Ok(())
    }
}

impl MediumFile for CrashFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        let content = self.0.lock();
        let Some(rest) = content.live.get(offset as usize..) else { return Ok(0) };
        let len = rest.len().min(buf.len());
        buf[..len].copy_from_slice(&rest[..len]);
        Ok(len)
    }

    fn write_at(&self, buf: &[u8], offset: u64) -> io::Result<usize> {
        let mut content = self.0.lock();
        put(&mut content.live, offset, buf);
        content.pending.push(Change::Write(offset, buf.to_vec()));
        Ok(buf.len())
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut content = self.0.lock();
        let pending = std::mem::take(&mut content.pending);
        for change in pending {
            match change {
                Change::Write(offset, data) => put(&mut content.durable, offset, &data),
                Change::SetLen(len) => content.durable.resize(len as usize, 0),
            }
        }
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut content = self.0.lock();
        content.live.resize(len as usize, 0);
        content.pending.push(Change::SetLen(len));
        Ok(())
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.0.lock().live.len() as u64)
    }
}

/// SplitMix64: enough chance for a test, and the same on every machine.
struct Dice(u64);

impl Dice {
    fn new(seed: u64) -> Self {
        Dice(seed)
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % limit
    }
}
