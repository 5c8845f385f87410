//! A full disk on which something was deleted: its room is free for the next who asks, not some time later.

use std::sync::Arc;

use super::support::{open_on, pattern, small};
use crate::Reads as _;
use crate::medium::SmallMedium;
use crate::{IndexKind, MemoryIndex, StorageMedium, Store, StoreError, StoreOptions, Table, Txn};

const DISK: u64 = 8 << 20;
const PART: usize = 200 << 10;

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
    let disk = SmallMedium::new(DISK);
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
    let disk = SmallMedium::new(DISK);
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

/// Segments as large as the default ones are beside a small disk: what is removed instead of used again is the other program's.
#[test]
fn what_was_deleted_is_for_the_next_write_and_not_for_another_program() {
    let disk = SmallMedium::new(DISK);
    let options = StoreOptions {
        ballast_bytes: 256 << 10,
        data_segment_bytes: 2 << 20,
        recycled_segments_max: 1,
        ..small()
    };
    let (store, _) = open_on(Arc::new(disk.clone()), IndexKind::Memory, options).unwrap();
    store.tick().unwrap();
    let old = fill(&store, 0);
    disk.let_others_fill_it();
    assert!(matches!(write(&store, 1 << 40), Err(StoreError::NoSpace { .. })), "nothing was deleted yet");
    delete(&store, &old);
    for n in 0..8 {
        let payload = write(&store, (1 << 32) + n).unwrap();
        store.sync(payload).unwrap();
        let mut buf = vec![0; PART];
        store.read_payload(payload, 0, &mut buf).unwrap();
        assert_eq!(buf, pattern((1 << 32) + n, PART));
    }
}

#[test]
fn room_that_a_snapshot_keeps_is_worth_waiting_for() {
    let disk = SmallMedium::new(DISK);
    let options = StoreOptions { ballast_bytes: 256 << 10, ..small() };
    let (store, _) = open_on(Arc::new(disk.clone()), IndexKind::Memory, options).unwrap();
    store.tick().unwrap();
    let old = fill(&store, 0);
    let snapshot = store.snapshot().unwrap();
    delete(&store, &old);
    store.checkpoint().unwrap();
    store.make_room();
    assert!(!store.make_room(), "the snapshot reads it");
    assert!(store.want_room(), "seconds, and it is free");
    drop(snapshot);
    store.tick().unwrap();
    assert!(!store.want_room(), "nothing is left to free");
    assert!(fill(&store, 1 << 32).len() > 25);
}

#[test]
fn without_any_room_what_is_there_is_read() {
    let disk = SmallMedium::new(DISK);
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
    let before = disk.beneath().contents();
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
    assert!(disk.beneath().contents() == before, "it wrote");
    disk.remove("else").unwrap();
    let (store, report) = open();
    assert!(!report.no_room && store.read_only().is_none());
    store.read_payload(two, 0, &mut buf).unwrap();
    write(&store, 3).unwrap();
}
