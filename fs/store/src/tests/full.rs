//! A full disk on which something was deleted: its room is free for the next who asks, not some time later.

use std::io;
use std::sync::Arc;

use super::support::{open_on, pattern, small};
use crate::Reads as _;
use crate::{
    CrashMedium, IndexKind, MediumFile, MemoryIndex, StorageMedium, Store, StoreError, StoreOptions, Table,
    Txn,
};

const DISK: u64 = 8 << 20;
const PART: usize = 200 << 10;

/// A disk of [`DISK`] bytes.
#[derive(Clone)]
struct SmallDisk(CrashMedium);

struct SmallFile(SmallDisk, Arc<dyn MediumFile>);

impl SmallDisk {
    fn free(&self) -> u64 {
        DISK.saturating_sub(self.0.contents().values().map(|bytes| bytes.len() as u64).sum())
    }

    fn file(&self, file: io::Result<Arc<dyn MediumFile>>) -> io::Result<Arc<dyn MediumFile>> {
        Ok(Arc::new(SmallFile(self.clone(), file?)))
    }
}

impl StorageMedium for SmallDisk {
    fn create(&self, name: &str) -> io::Result<Arc<dyn MediumFile>> {
        self.file(self.0.create(name))
    }
    fn open(&self, name: &str) -> io::Result<Arc<dyn MediumFile>> {
        self.file(self.0.open(name))
    }
    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.0.rename(from, to)
    }
    fn remove(&self, name: &str) -> io::Result<()> {
        self.0.remove(name)
    }
    fn list(&self) -> io::Result<Vec<String>> {
        self.0.list()
    }
    fn sync_dir(&self) -> io::Result<()> {
        self.0.sync_dir()
    }
    fn room(&self) -> Option<(u64, u64)> {
        Some((DISK, self.free()))
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

fn write(store: &Store, n: u64) -> Result<u64, StoreError> {
    let payload = store.stage_payload(&pattern(n, PART))?;
    let mut txn = Txn::new();
    txn.put(Table::Meta, n.to_be_bytes(), vec![1]).payload(payload);
    store.commit(txn)
}

fn delete(store: &Store, payloads: &[u64]) {
    for payload in payloads {
        let mut txn = Txn::new();
        txn.delete(Table::Meta, b"x").release(*payload);
        store.commit(txn).unwrap();
    }
}

fn fill(store: &Store, from: u64) -> Vec<u64> {
    let mut payloads = Vec::new();
    loop {
        match write(store, from + payloads.len() as u64) {
            Ok(payload) => payloads.push(payload),
            Err(StoreError::NoSpace { .. }) => return payloads,
            Err(other) => panic!("{other}"),
        }
        assert!((payloads.len() * PART) as u64 <= DISK, "more went in than the disk holds");
    }
}

#[test]
fn what_was_deleted_makes_room_for_the_very_next_write() {
    let disk = SmallDisk(CrashMedium::new());
    let options = StoreOptions { ballast_bytes: 256 << 10, ..small() };
    let (store, _) = open_on(Arc::new(disk.clone()), IndexKind::Memory, options).unwrap();
    store.tick().unwrap();
    let mut old = fill(&store, 0);
    assert!(old.len() > 25, "only {} went in", old.len());
    for round in 1..4 {
        // No tick: nothing in the background helps.
        delete(&store, &old);
        old = fill(&store, round << 32);
        assert!(old.len() > 25, "round {round}: only {} went in again", old.len());
    }
    let last = *old.last().unwrap();
    let mut buf = vec![0; PART];
    store.read_payload(last, 0, &mut buf).unwrap();
    assert_eq!(buf, pattern((3 << 32) + old.len() as u64 - 1, PART));
}

#[test]
fn who_asks_for_room_has_what_is_dead_freed_by_the_next_tick() {
    let disk = SmallDisk(CrashMedium::new());
    let options = StoreOptions { ballast_bytes: 256 << 10, ..small() };
    let (store, _) = open_on(Arc::new(disk.clone()), IndexKind::Memory, options).unwrap();
    store.tick().unwrap();
    assert!(!store.want_room(), "nothing is dead");
    // A single one, in the segment that is being written.
    let one = write(&store, 1).unwrap();
    store.sync(one).unwrap();
    let free = disk.free();
    delete(&store, &[one]);
    store.tick().unwrap();
    assert_eq!(disk.free(), free, "nobody asked");
    assert!(store.want_room());
    store.tick().unwrap();
    assert!(disk.free() >= free + PART as u64, "{} and {free}", disk.free());
    assert!(!store.want_room(), "nothing is left to free");
}

#[test]
fn without_any_room_what_is_there_is_read() {
    let disk = SmallDisk(CrashMedium::new());
    let index = MemoryIndex::new();
    let open = || {
        let options = StoreOptions { ballast_bytes: 0, ..small() };
        open_on(Arc::new(disk.clone()), IndexKind::Shared(index.clone()), options).unwrap()
    };
    let (store, _) = open();
    let one = write(&store, 1).unwrap();
    store.checkpoint().unwrap();
    let two = write(&store, 2).unwrap();
    store.sync(two).unwrap();
    drop(store);
    let rest = disk.create("else").unwrap();
    rest.write_at(&vec![1; disk.free() as usize], 0).unwrap();
    let before = disk.0.contents();
    let (store, report) = open();
    assert!(report.no_room && report.corruption.is_none());
    assert!(store.read_only().is_some());
    let mut buf = vec![0; PART];
    for (n, payload) in [(1, one), (2, two)] {
        store.read_payload(payload, 0, &mut buf).unwrap();
        assert_eq!(buf, pattern(n, PART));
    }
    assert!(matches!(write(&store, 3), Err(StoreError::ReadOnly { .. } | StoreError::NoSpace { .. })));
    drop(store);
    assert!(disk.0.contents() == before, "it wrote");
    disk.remove("else").unwrap();
    let (store, report) = open();
    assert!(!report.no_room && store.read_only().is_none());
    store.read_payload(two, 0, &mut buf).unwrap();
    write(&store, 3).unwrap();
}
