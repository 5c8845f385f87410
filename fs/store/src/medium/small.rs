//! A medium of limited size: the fake of a disk that is full.
//!
//! Clones are the same disk. Another program on it may take whatever comes free, at once.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::{CrashMedium, MediumFile, StorageMedium};

/// See the module's documentation.
#[derive(Clone)]
pub struct SmallMedium {
    beneath: CrashMedium,
    size: u64,
    others: Arc<Others>,
}

/// The other program.
#[derive(Default)]
struct Others {
    bytes: AtomicU64,
    greedy: AtomicBool,
}

struct SmallFile(SmallMedium, Arc<dyn MediumFile>);

impl SmallMedium {
    pub fn new(size: u64) -> Self {
        SmallMedium { beneath: CrashMedium::new(), size, others: Arc::default() }
    }

    /// What lies on it.
    pub fn beneath(&self) -> &CrashMedium {
        &self.beneath
    }

    /// Bytes that it still takes.
    pub fn free(&self) -> u64 {
        let names = self.beneath.list().unwrap_or_default();
        let lengths =
            names.iter().filter_map(|name| self.beneath.open(name).and_then(|file| file.len()).ok());
        self.size.saturating_sub(lengths.sum()).saturating_sub(self.others.bytes.load(Ordering::SeqCst))
    }

    /// Another program takes all that is free, and from now on whatever comes free, before anybody else does.
    pub fn let_others_fill_it(&self) {
        self.others.greedy.store(true, Ordering::SeqCst);
        self.others_take();
    }

    fn others_take(&self) {
        if self.others.greedy.load(Ordering::SeqCst) {
            self.others.bytes.fetch_add(self.free(), Ordering::SeqCst);
        }
    }

    fn file(&self, file: io::Result<Arc<dyn MediumFile>>) -> io::Result<Arc<dyn MediumFile>> {
        Ok(Arc::new(SmallFile(self.clone(), file?)))
    }
}

impl StorageMedium for SmallMedium {
    fn create(&self, name: &str) -> io::Result<Arc<dyn MediumFile>> {
        self.file(self.beneath.create(name))
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn MediumFile>> {
        self.file(self.beneath.open(name))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.beneath.rename(from, to)?;
        self.others_take();
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.beneath.remove(name)?;
        self.others_take();
        Ok(())
    }

    fn list(&self) -> io::Result<Vec<String>> {
        self.beneath.list()
    }

    fn sync_dir(&self) -> io::Result<()> {
        self.beneath.sync_dir()
    }

    fn room(&self) -> Option<(u64, u64)> {
        Some((self.size, self.free()))
    }
}

impl MediumFile for SmallFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        self.1.read_at(buf, offset)
    }

    fn write_at(&self, buf: &[u8], offset: u64) -> io::Result<usize> {
        let more = (offset + buf.len() as u64).saturating_sub(self.1.len()?);
        if more > self.0.free() {
            return Err(io::Error::from_raw_os_error(libc::ENOSPC));
        }
        self.1.write_at(buf, offset)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.1.sync_data()
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.1.set_len(len)
    }

    fn len(&self) -> io::Result<u64> {
        self.1.len()
    }
}
