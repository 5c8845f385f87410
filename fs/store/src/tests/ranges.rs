//! Ranges of keys that go in one record: in memory, in the index, in the log, and in a log of an earlier version.

use std::sync::Arc;

use super::support::{fresh, keys, open, open_on, small};
use crate::cipher::LongCipher;
use crate::{
    CrashMedium, Direction, IndexKind, KeyRange, MemoryIndex, Reads, Store, StoreError, Table, Txn, limits,
};

fn put(store: &Store, rows: impl IntoIterator<Item = u8>) {
    let mut txn = Txn::new();
    rows.into_iter().for_each(|n| _ = txn.put(Table::Changed, [n], vec![n; 3]));
    store.commit(txn).unwrap();
}

fn delete(store: &Store, from: u8, to: u8) {
    let mut txn = Txn::new();
    txn.delete_range(Table::Changed, [from], [to]);
    store.commit(txn).unwrap();
}

/// All answers that there are, compared with each other.
fn rows(reads: &dyn Reads) -> Vec<u8> {
    let all = KeyRange::all();
    let found = reads.scan(Table::Changed, &all, usize::MAX, Direction::Forward).unwrap();
    assert!(found.iter().all(|(key, value)| value[..] == [key[0]; 3]));
    let found: Vec<u8> = found.iter().map(|(key, _)| key[0]).collect();
    for limit in [1, 3, 50, usize::MAX] {
        for way in [Direction::Forward, Direction::Reverse] {
            let mut wanted: Vec<Vec<u8>> = found.iter().map(|n| vec![*n]).collect();
            if way == Direction::Reverse {
                wanted.reverse();
            }
            wanted.truncate(limit);
            assert_eq!(reads.scan_keys(Table::Changed, &all, limit, way).unwrap(), wanted);
        }
    }
    for n in 0..=u8::MAX {
        let wanted = found.contains(&n).then(|| vec![n; 3]);
        assert_eq!(reads.get(Table::Changed, &[n]).unwrap().as_deref(), wanted.as_deref());
        let several = reads.multi_get(Table::Changed, &[&[n]]).unwrap();
        assert_eq!(several[0].as_deref(), wanted.as_deref());
    }
    found
}

/// Rows below the range in the index, in a frozen layer and in the active one, and rows that came after it.
#[test]
fn what_is_below_a_range_is_gone_and_what_comes_later_stands() {
    let (medium, index, store) = fresh();
    put(&store, 0..60);
    store.checkpoint().unwrap();
    assert_eq!(rows(&store), (0..60).collect::<Vec<u8>>(), "read once, they may be kept");
    put(&store, 60..120);
    let before = store.snapshot().unwrap();
    put(&store, 120..180);
    let mut txn = Txn::new();
    // Said after a row of it, the range goes before it all the same.
    txn.put(Table::Changed, [41], vec![41; 3]).delete_range(Table::Changed, [10], [170]);
    store.commit(txn).unwrap();
    put(&store, [40, 100, 169]);
    let wanted: Vec<u8> = (0..10).chain([40, 41, 100, 169]).chain(170..180).collect();
    let after = store.snapshot().unwrap();
    assert_eq!(rows(&store), wanted);
    delete(&store, 40, 42);
    assert_eq!(rows(&store), (0..10).chain([100, 169]).chain(170..180).collect::<Vec<u8>>());
    store.checkpoint().unwrap();
    let left: Vec<u8> = (0..10).chain([100, 169]).chain(170..180).collect();
    assert_eq!(rows(&store), left);
    assert_eq!(rows(&before), (0..120).collect::<Vec<u8>>(), "a snapshot does not change");
    assert_eq!(rows(&after), wanted);
    put(&store, [50]);
    delete(&store, 169, 171);
    drop((before, after, store));
    let (store, report) = open(&medium.killed(), &index.after_crash());
    assert_eq!(report.replayed_records, 2);
    let left: Vec<u8> = (0..10).chain([50, 100]).chain(171..180).collect();
    assert_eq!(rows(&store), left);
    store.checkpoint().unwrap();
    assert_eq!(rows(&store), left);
}

/// However many rows it hides that the index still has: a reader does not pass them.
#[test]
fn other_tables_keep_theirs() {
    let (_, _, store) = fresh();
    let mut txn = Txn::new();
    txn.put(Table::Orphan, [5], vec![1]).put(Table::Block, [5], vec![2]).put(Table::Changed, [5], vec![5; 3]);
    store.commit(txn).unwrap();
    store.checkpoint().unwrap();
    delete(&store, 0, 255);
    assert_eq!(rows(&store), Vec::<u8>::new());
    store.checkpoint().unwrap();
    assert_eq!(rows(&store), Vec::<u8>::new());
    assert!(store.get(Table::Orphan, &[5]).unwrap().is_some());
    assert!(store.get(Table::Block, &[5]).unwrap().is_some());
}

#[test]
fn ranges_that_are_refused() {
    let (_, _, store) = fresh();
    put(&store, [1, 2]);
    let refused = |txn| matches!(store.commit(txn), Err(StoreError::RangesRefused));
    for table in Table::ALL.into_iter().filter(|table| !table.has_ranges()) {
        let mut txn = Txn::new();
        txn.delete_range(table, [1], [2]);
        assert!(refused(txn), "{table:?}");
    }
    let mut beside = Txn::new();
    beside.delete_range(Table::Changed, [1], [2]).payload(store.stage_payload(b"bytes").unwrap());
    assert!(refused(beside));
    let mut many = Txn::new();
    for _ in 0..=limits::TXN_RANGES_MAX {
        many.delete_range(Table::Changed, [1], [2]);
    }
    assert!(refused(many));
    let last = store.last_lsn();
    delete(&store, 2, 2);
    delete(&store, 2, 1);
    assert_eq!(store.last_lsn(), last, "nothing lies between these");
    assert_eq!(rows(&store), [1, 2]);
}

/// The same medium with other versions in the headers of its segments, each under a seal that fits.
fn of_version(medium: &CrashMedium, version: u8) -> CrashMedium {
    use crate::StorageMedium;
    let other = medium.killed();
    let wrap = LongCipher::new(&keys().log);
    for (name, bytes) in medium.contents() {
        if bytes.starts_with(b"HFsg") {
            let mut clear = bytes[..64].to_vec();
            let key = wrap.open(&clear, &bytes[64..136]).unwrap();
            clear[4] = version;
            let ad = clear.clone();
            wrap.seal([3; 24], &ad, &key, &mut clear).unwrap();
            let file = other.open(&name).unwrap();
            assert_eq!(file.write_at(&clear, 0).unwrap(), clear.len());
        }
    }
    other
}

/// A home of the version before opens and goes on; one of a version to come is refused by name, and nothing is touched.
#[test]
fn earlier_segments_are_read_and_newer_ones_refused() {
    let (medium, index, store) = fresh();
    put(&store, 0..20);
    drop(store);
    let first = of_version(&medium, 1);
    let (store, report) = open(&first, &index.after_crash());
    assert_eq!((report.last_lsn, report.corruption), (1, None));
    delete(&store, 5, 20);
    assert_eq!(rows(&store), [0, 1, 2, 3, 4]);
    store.sync(store.last_lsn()).unwrap();
    drop(store);
    // Segments of both versions beside each other.
    let (store, report) = open(&first.power_cut(1), &index.after_crash());
    assert_eq!((report.last_lsn, report.corruption), (2, None));
    assert_eq!(rows(&store), [0, 1, 2, 3, 4]);
    drop(store);

    let newer = of_version(&medium, 3);
    let before = newer.contents();
    let index = MemoryIndex::new();
    let error = open_on(Arc::new(newer.clone()), IndexKind::Shared(index), small()).unwrap_err();
    let wanted =
        matches!(&error, StoreError::NewerFormat { what, found: 3, known: 2 } if what.starts_with("log-"));
    assert!(wanted, "{error}");
    assert_eq!(newer.contents(), before);
}

/// No program of the version before made a record of ranges: in its segments one is no record.
#[test]
fn no_ranges_in_segments_of_the_first_version() {
    let (medium, index, store) = fresh();
    put(&store, 0..20);
    delete(&store, 5, 20);
    drop(store);
    let (store, report) = open(&of_version(&medium, 1), &index.after_crash());
    assert_eq!(report.last_lsn, 1);
    assert_eq!(rows(&store), (0..20).collect::<Vec<u8>>());
}
