//! What each call promises, without crashes.

use std::sync::Arc;

use super::support::{fresh, keys, open, open_on, pattern, small};
use crate::{
    CrashMedium, Direction, IndexKind, KeyRange, MemoryIndex, Reads, Store, StoreError, StoreKeys,
    StoreOptions, SystemClock, SystemRng, Table, Txn,
};

fn put(store: &Store, key: &[u8], value: &[u8]) -> u64 {
    let mut txn = Txn::new();
    txn.put(Table::Meta, key, value.to_vec());
    store.commit(txn).unwrap()
}

fn get(reads: &dyn Reads, key: &[u8]) -> Option<Vec<u8>> {
    reads.get(Table::Meta, key).unwrap().map(|value| value.to_vec())
}

#[test]
fn rows_come_back_from_delta_index_and_log() {
    let (medium, index, store) = fresh();
    assert_eq!(put(&store, b"a", b"1"), 1);
    assert_eq!(put(&store, b"b", b"2"), 2);
    let check = |store: &Store| {
        assert_eq!(get(store, b"a"), Some(b"1".to_vec()));
        assert_eq!(get(store, b"b"), Some(b"2".to_vec()));
        assert_eq!(get(store, b"c"), None);
        let found = store.multi_get(Table::Meta, &[b"b", b"c", b"a"]).unwrap();
        assert_eq!(
            found.iter().map(|f| f.as_deref()).collect::<Vec<_>>(),
            [Some(&b"2"[..]), None, Some(&b"1"[..])]
        );
    };
    check(&store);
    store.checkpoint().unwrap();
    check(&store);
    check(&store);
    drop(store);
    let (store, report) = open(&medium.killed(), &index.after_crash());
    assert_eq!((report.applied_lsn, report.last_lsn, report.replayed_records), (2, 2, 0));
    check(&store);
    let mut txn = Txn::new();
    txn.delete(Table::Meta, b"a").put_with_lsn(Table::Meta, b"lsn", |lsn| lsn.to_be_bytes().to_vec());
    assert_eq!(store.commit(txn).unwrap(), 3);
    assert_eq!(get(&store, b"a"), None);
    assert_eq!(get(&store, b"lsn"), Some(3u64.to_be_bytes().to_vec()));
}

#[test]
fn scans_merge_layers_in_both_directions() {
    let (_, _, store) = fresh();
    for n in 0..100u8 {
        put(&store, &[n], &[n]);
    }
    store.checkpoint().unwrap();
    for n in (0..100u8).step_by(3) {
        let mut txn = Txn::new();
        txn.delete(Table::Meta, [n]);
        store.commit(txn).unwrap();
    }
    let snapshot = store.snapshot().unwrap();
    for n in (0..100u8).step_by(5) {
        put(&store, &[n], &[n, n]);
    }
    let model = |keep: &dyn Fn(u8) -> Option<Vec<u8>>, range: std::ops::Range<u8>| {
        range.filter_map(|n| Some((vec![n], bytes::Bytes::from(keep(n)?)))).collect::<Vec<_>>()
    };
    let old = |n: u8| (!n.is_multiple_of(3)).then(|| vec![n]);
    let new = |n: u8| if n.is_multiple_of(5) { Some(vec![n, n]) } else { old(n) };
    for (reads, keep) in
        [(&store as &dyn Reads, &new as &dyn Fn(u8) -> Option<Vec<u8>>), (&snapshot as &dyn Reads, &old)]
    {
        for limit in [1, 2, 7, 40, 1000] {
            for (range, rows) in [
                (KeyRange::all(), 0..100),
                (KeyRange::between([10], [20]), 10..20),
                (KeyRange::from([90]), 90..100),
                (KeyRange::all().after([50]), 51..100),
                (KeyRange::prefix([33]), 33..34),
            ] {
                let mut wanted = model(keep, rows);
                let mut reverse: Vec<_> = wanted.iter().rev().cloned().collect();
                wanted.truncate(limit);
                reverse.truncate(limit);
                assert_eq!(reads.scan(Table::Meta, &range, limit, Direction::Forward).unwrap(), wanted);
                assert_eq!(reads.scan(Table::Meta, &range, limit, Direction::Reverse).unwrap(), reverse);
            }
        }
    }
    assert!(store.scan(Table::Inode, &KeyRange::all(), 10, Direction::Forward).unwrap().is_empty());
    assert!(
        store.scan(Table::Meta, &KeyRange::between([9], [3]), 10, Direction::Forward).unwrap().is_empty()
    );
}

#[test]
fn payloads_are_read_in_parts_until_released() {
    let (medium, index, store) = fresh();
    let mut lsns = Vec::new();
    for (nth, len) in [1usize, 100, 16 << 10, (16 << 10) + 1, 30_000, 64 << 10, (64 << 10) + 1, 300_000]
        .into_iter()
        .enumerate()
    {
        let bytes = pattern(nth as u64, len);
        let mut txn = Txn::new();
        txn.payload(store.stage_payload(&bytes).unwrap());
        lsns.push((store.commit(txn).unwrap(), bytes));
    }
    let check = |reads: &dyn Reads| {
        for (lsn, bytes) in &lsns {
            assert_eq!(reads.payload_len(*lsn).unwrap(), Some(bytes.len() as u64));
            for (skip, len) in
                [(0, bytes.len()), (bytes.len() / 2, bytes.len() / 3), (bytes.len() - 1, 1), (0, 1)]
            {
                let mut buf = vec![0; len];
                reads.read_payload(*lsn, skip as u64, &mut buf).unwrap();
                assert!(buf == bytes[skip..skip + len], "payload {lsn} at {skip}");
            }
            let over = reads.read_payload(*lsn, bytes.len() as u64, &mut [0]);
            assert!(matches!(over, Err(StoreError::PayloadRange { .. })));
        }
    };
    check(&store);
    let snapshot = store.snapshot().unwrap();
    store.checkpoint().unwrap();
    check(&store);
    drop(store);
    let (store, _) = open(&medium.killed(), &index.after_crash());
    check(&store);
    assert_eq!(store.scrub().unwrap(), Vec::<u64>::new());
    let mut txn = Txn::new();
    for (lsn, _) in &lsns {
        txn.retain(*lsn);
    }
    store.commit(txn).unwrap();
    for round in 0..2 {
        let mut txn = Txn::new();
        lsns.iter().for_each(|(lsn, _)| {
            txn.release(*lsn);
        });
        store.commit(txn).unwrap();
        let gone = store.read_payload(lsns[0].0, 0, &mut [0]);
        assert_eq!(matches!(gone, Err(StoreError::PayloadGone(_))), round == 1);
    }
    let mut txn = Txn::new();
    txn.release(lsns[0].0);
    assert!(matches!(store.commit(txn), Err(StoreError::PayloadGone(_))));
    assert_eq!(store.usage().live_payloads, 0);
    check(&snapshot);
}

#[test]
fn dead_segments_are_recycled_and_snapshots_hold_them() {
    let (medium, _, store) = fresh();
    let write = |seed: u64, len: usize| {
        let mut txn = Txn::new();
        txn.payload(store.stage_payload(&pattern(seed, len)).unwrap());
        store.commit(txn).unwrap()
    };
    let first = write(1, 200_000);
    let snapshot = store.snapshot().unwrap();
    for round in 0..40 {
        let large = write(round, 200_000);
        let small = write(round, 40_000);
        let mut txn = Txn::new();
        txn.release(large).release(small);
        if round == 0 {
            txn.release(first);
        }
        store.commit(txn).unwrap();
        store.checkpoint().unwrap();
    }
    let usage = store.usage();
    assert_eq!((usage.live_payloads, usage.live_payload_bytes), (0, 0));
    assert!(usage.disk_bytes < 4 << 20, "40 rounds of 240 KB leave {} bytes", usage.disk_bytes);
    let mut buf = vec![0; 200_000];
    snapshot.read_payload(first, 0, &mut buf).unwrap();
    assert!(buf == pattern(1, 200_000));
    drop(snapshot);
    store.checkpoint().unwrap();
    assert!(store.usage().segments <= usage.segments);
    assert!(medium.contents().keys().any(|name| name.starts_with("free-")), "something was kept for reuse");
}

#[test]
fn a_snapshot_is_one_moment() {
    let (_, _, store) = fresh();
    put(&store, b"k", b"old");
    let snapshot = store.snapshot().unwrap();
    assert_eq!(snapshot.lsn(), 1);
    put(&store, b"k", b"new");
    store.checkpoint().unwrap();
    put(&store, b"k", b"newer");
    assert_eq!(get(&snapshot, b"k"), Some(b"old".to_vec()));
    assert_eq!(get(&store, b"k"), Some(b"newer".to_vec()));
    store.checkpoint().unwrap();
    assert_eq!(get(&store, b"k"), Some(b"newer".to_vec()));
    assert_eq!(get(&snapshot, b"k"), Some(b"old".to_vec()));
}

#[test]
fn limits_and_reserved_rows_are_refused_without_effect() {
    let (_, _, store) = fresh();
    let mut txn = Txn::new();
    txn.put(Table::Payload, b"x", b"y".to_vec());
    assert!(matches!(store.commit(txn), Err(StoreError::ReservedTable)));
    let mut txn = Txn::new();
    txn.put(Table::Meta, vec![0; 2000], b"y".to_vec());
    assert!(matches!(store.commit(txn), Err(StoreError::TooLarge { .. })));
    assert!(store.stage_payload(&[]).is_err());
    assert!(store.stage_payload(&vec![0; (16 << 20) + 1]).is_err());
    assert_eq!(store.commit(Txn::new()).unwrap(), 0);
    assert!(matches!(store.sync(1), Err(StoreError::UnknownLsn(1))));
    assert_eq!(put(&store, b"a", &vec![7; 1 << 20]), 1, "a record larger than a segment gets one of its own");
    assert_eq!(put(&store, b"b", b"after"), 2);
    assert_eq!(get(&store, b"a").map(|value| value.len()), Some(1 << 20));
}

#[test]
fn another_key_another_store_or_a_lost_part_is_told() {
    let (medium, index, store) = fresh();
    put(&store, b"a", b"1");
    store.checkpoint().unwrap();
    put(&store, b"b", b"2");
    store.close().unwrap();
    let open_with = |medium: &CrashMedium, index: &MemoryIndex, keys: StoreKeys| {
        let index = IndexKind::Shared(index.clone());
        let (clock, rng) = (Arc::new(SystemClock::new()), Arc::new(SystemRng));
        Store::open(Arc::new(medium.killed()), index, keys, small(), clock, rng).map(|(_, report)| report)
    };
    let other = StoreKeys { log: [9; 32], ..keys() };
    assert!(matches!(open_with(&medium, &index, other), Err(StoreError::WrongKey)));
    let other = StoreKeys { index: [9; 32], ..keys() };
    assert!(matches!(open_with(&medium, &index, other), Err(StoreError::WrongKey)));
    let lost = open_with(&CrashMedium::new(), &index, keys());
    assert!(matches!(lost, Err(StoreError::LogMissing { applied: 2 })), "{lost:?}");
    let (_, foreign, store) = fresh();
    store.close().unwrap();
    assert!(matches!(open_with(&medium, &foreign, keys()), Err(StoreError::IndexForeign)));
    let rebuilt = open_with(&medium, &MemoryIndex::new(), keys());
    assert!(
        rebuilt.as_ref().is_ok_and(|report| report.index_rebuilt && report.replayed_records == 2),
        "{rebuilt:?}"
    );
    // A second start retires the first log segment; then the index is needed.
    let (store, _) = open(&medium, &index);
    put(&store, b"c", b"3");
    store.checkpoint().unwrap();
    store.close().unwrap();
    let lost = open_with(&medium, &MemoryIndex::new(), keys());
    assert!(matches!(lost, Err(StoreError::IndexMissing { .. })), "{lost:?}");
}

#[test]
fn nothing_readable_lies_on_the_medium() {
    let (medium, index, store) = fresh();
    let secret = pattern(77, 64);
    let mut txn = Txn::new();
    txn.put(Table::Meta, b"key", secret.clone());
    let inline = [&secret[..], &[0; 100]].concat();
    txn.payload(store.stage_payload(&inline).unwrap());
    store.commit(txn).unwrap();
    let mut txn = Txn::new();
    txn.payload(store.stage_payload(&secret.repeat(2000)).unwrap());
    store.commit(txn).unwrap();
    store.checkpoint().unwrap();
    let planted = |bytes: &[u8]| bytes.windows(16).any(|window| window == &secret[..16]);
    for (name, bytes) in medium.contents() {
        assert!(!planted(&bytes), "{name} shows plaintext");
    }
    assert!(!index.contents().values().any(|value| planted(value)));
}

#[test]
fn many_threads_commit_sync_and_read() {
    let medium = CrashMedium::new();
    let index = MemoryIndex::new();
    let options = StoreOptions { background: true, flush_delta_bytes: 20_000, ..small() };
    let (store, _) = open_on(Arc::new(medium.clone()), IndexKind::Shared(index.clone()), options).unwrap();
    std::thread::scope(|scope| {
        for thread in 0..4u8 {
            let store = store.clone();
            scope.spawn(move || {
                let mut kept: Option<(u64, Vec<u8>)> = None;
                for n in 0..300u16 {
                    let key = [&[thread][..], &n.to_be_bytes()].concat();
                    let mut txn = Txn::new();
                    txn.put(Table::Meta, &key, key.clone());
                    let bytes = pattern(u64::from(n), if n % 50 == 0 { 100_000 } else { 500 });
                    txn.payload(store.stage_payload(&bytes).unwrap());
                    let lsn = store.commit(txn).unwrap();
                    assert_eq!(get(&store, &key), Some(key));
                    if let Some((old, bytes)) = kept.replace((lsn, bytes)) {
                        let mut buf = vec![0; bytes.len()];
                        store.read_payload(old, 0, &mut buf).unwrap();
                        assert!(buf == bytes);
                        let mut txn = Txn::new();
                        txn.release(old);
                        store.commit(txn).unwrap();
                    }
                    if n % 10 == 0 {
                        store.sync(lsn).unwrap();
                        assert!(store.durable_lsn() >= lsn);
                    }
                }
            });
        }
    });
    let rows = store.scan(Table::Meta, &KeyRange::all(), usize::MAX, Direction::Forward).unwrap();
    assert_eq!(rows.len(), 1200);
    assert_eq!(store.usage().live_payloads, 4);
    let last = store.last_lsn();
    store.close().unwrap();
    let (store, report) = open(&medium.killed(), &index.after_crash());
    assert_eq!((report.last_lsn, report.replayed_records, report.torn_tail), (last, 0, None));
    assert_eq!(store.scan(Table::Meta, &KeyRange::all(), usize::MAX, Direction::Forward).unwrap(), rows);
}

/// Rows under a cut are those of the records up to the next one, also after a crash.
#[test]
fn rows_under_a_cut_are_complete_with_the_next_one() {
    let (medium, index, store) = fresh();
    let mark = |store: &Store, name: &[u8]| {
        let mut txn = Txn::new();
        txn.put_after_cut(Table::Changed, name, &b"m"[..]);
        store.commit(txn).unwrap()
    };
    let marks = |reads: &dyn Reads| -> Vec<(u64, Vec<u8>)> {
        let rows = reads.scan(Table::Changed, &KeyRange::all(), 100, Direction::Forward).unwrap();
        rows.into_iter()
            .map(|(key, _)| (u64::from_be_bytes(key[..8].try_into().unwrap()), key[8..].to_vec()))
            .collect()
    };
    mark(&store, b"a");
    mark(&store, b"a");
    let snapshot = store.snapshot().unwrap();
    mark(&store, b"b");
    assert_eq!(marks(&snapshot), [(0, b"a".to_vec())], "a snapshot is no cut");
    let cut = store.cut().unwrap();
    let last = mark(&store, b"a");
    assert_eq!(cut.lsn(), 3);
    assert_eq!(marks(&cut), [(0, b"a".to_vec()), (0, b"b".to_vec())]);
    assert_eq!(marks(&store).last().unwrap(), &(3, b"a".to_vec()));
    store.sync(last).unwrap();
    drop((cut, snapshot, store));
    let (store, _) = open(&medium.killed(), &index.after_crash());
    mark(&store, b"c");
    assert_eq!(marks(&store).last().unwrap(), &(4, b"c".to_vec()), "a start is one, too");
    let long = vec![b'x'; crate::limits::KEY_BYTES_MAX - 7];
    let mut txn = Txn::new();
    txn.put_after_cut(Table::Changed, &long, &b"m"[..]);
    assert!(matches!(store.commit(txn), Err(StoreError::TooLarge { what: "key", .. })));
}

#[test]
fn a_layer_does_not_outgrow_its_bound() {
    let (medium, index) = (CrashMedium::new(), MemoryIndex::new());
    let options = StoreOptions { layer_bytes_max: 20_000, ..small() };
    let kind = IndexKind::Shared(index.clone());
    let (store, _) = open_on(Arc::new(medium.clone()), kind, options).unwrap();
    for n in 0..200u64 {
        put(&store, &n.to_be_bytes(), &[n as u8; 1000]);
    }
    {
        let view = store.inner.view.read();
        assert!(view.frozen.len() >= 9);
        assert!(view.frozen.iter().all(|layer| layer.bytes < 22_000));
        assert!(view.active.bytes < 20_000);
    }
    store.checkpoint().unwrap();
    drop(store);
    let (store, report) = open(&medium.killed(), &index.after_crash());
    assert_eq!((report.applied_lsn, report.replayed_records), (200, 0));
    for n in 0..200u64 {
        assert_eq!(get(&store, &n.to_be_bytes()), Some(vec![n as u8; 1000]));
    }
}
