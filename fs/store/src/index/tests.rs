#![allow(clippy::unwrap_used)]

use std::ops::Bound;

use bytes::Bytes;

use super::{Index, IndexRead, MemoryIndex, Open, RocksIndex};
use crate::recovery::Purpose;
use crate::{Direction, StoreOptions};

fn write(index: &dyn Index, rows: &[(&[u8], Option<&[u8]>)]) {
    let mut rows = rows.iter().map(|(key, value)| Ok((key.to_vec(), value.map(<[u8]>::to_vec))));
    index.write(&mut rows).unwrap();
}

fn keys(read: &dyn IndexRead, start: Bound<&[u8]>, end: Bound<&[u8]>, direction: Direction) -> Vec<Vec<u8>> {
    let mut found = Vec::new();
    let visit = &mut |key: &[u8], _: &[u8]| {
        found.push(key.to_vec());
        true
    };
    read.scan(start, end, direction, visit).unwrap();
    found
}

/// Values here are not sealed.
fn get(ask: &dyn Fn(&[u8], Open<'_>) -> crate::error::Result<Option<Bytes>>, key: &[u8]) -> Option<Bytes> {
    ask(key, &|value| Ok(Bytes::copy_from_slice(value))).unwrap()
}

/// What every index must do.
fn conformance(index: &dyn Index) {
    assert_eq!(get(&|key, open| index.get(key, open), b"a"), None);
    write(index, &[(b"a", Some(b"1")), (b"b", Some(b"2")), (b"ba", Some(b"3")), (b"c", Some(b"4"))]);
    assert_eq!(get(&|key, open| index.get(key, open), b"b").as_deref(), Some(&b"2"[..]));
    assert_eq!(
        index.multi_get(&[b"c", b"x", b"a"]).unwrap(),
        [Some(b"4".to_vec()), None, Some(b"1".to_vec())]
    );
    let before = index.snapshot();
    write(index, &[(b"a", None), (b"b", Some(b"new"))]);
    index.flush().unwrap();
    assert_eq!(
        get(&|key, open| before.get(key, open), b"a").as_deref(),
        Some(&b"1"[..]),
        "a snapshot does not change"
    );
    assert_eq!(get(&|key, open| index.get(key, open), b"a"), None);
    assert_eq!(get(&|key, open| index.get(key, open), b"b").as_deref(), Some(&b"new"[..]));
    let (free, all) = (Bound::Unbounded, [&b"a"[..], b"b", b"ba", b"c"]);
    assert_eq!(keys(&*before, free, free, Direction::Forward), all);
    let reversed: Vec<_> = all.iter().rev().copied().collect();
    assert_eq!(keys(&*before, free, free, Direction::Reverse), reversed);
    let (included, excluded) = (Bound::Included(&b"b"[..]), Bound::Excluded(&b"b"[..]));
    assert_eq!(keys(&*before, included, free, Direction::Forward), all[1..]);
    assert_eq!(keys(&*before, excluded, free, Direction::Forward), all[2..]);
    assert_eq!(keys(&*before, free, included, Direction::Reverse), [&b"b"[..], b"a"]);
    assert_eq!(keys(&*before, free, excluded, Direction::Reverse), [b"a"]);
    assert_eq!(keys(&*before, included, Bound::Included(b"ba"), Direction::Forward), all[1..3]);
    let mut seen = 0;
    let visit = &mut |_: &[u8], _: &[u8]| {
        seen += 1;
        false
    };
    before.scan(free, free, Direction::Forward, visit).unwrap();
    assert_eq!(seen, 1, "a visitor ends the scan");
}

#[test]
fn every_index_conforms() {
    conformance(&MemoryIndex::new());
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("index");
    conformance(&RocksIndex::open(&path, &StoreOptions::default(), Purpose::Normal).unwrap());
    let again = RocksIndex::open(&path, &StoreOptions::default(), Purpose::Normal).unwrap();
    let found = get(&|key, open| again.get(key, open), b"b");
    assert_eq!(found.as_deref(), Some(&b"new"[..]), "flushed rows survive");
}

#[test]
fn a_crash_takes_what_was_not_flushed() {
    let index = MemoryIndex::new();
    write(&index, &[(b"a", Some(b"1"))]);
    index.flush().unwrap();
    write(&index, &[(b"a", Some(b"2")), (b"b", Some(b"2"))]);
    let after = index.after_crash();
    assert_eq!(get(&|key, open| after.get(key, open), b"a").as_deref(), Some(&b"1"[..]));
    assert_eq!(get(&|key, open| after.get(key, open), b"b"), None);
}
