#![allow(clippy::unwrap_used)]

use std::ops::Bound;

use bytes::Bytes;

use super::{Index, IndexRead, MemoryIndex, Open, RocksIndex, Write};
use crate::recovery::Purpose;
use crate::{Direction, StoreOptions};

fn write(index: &dyn Index, rows: &[(&[u8], Option<&[u8]>)]) {
    let mut rows = rows.iter().map(|(key, value)| {
        Ok(match value {
            Some(value) => Write::Put(key, value.to_vec()),
            None => Write::Delete(key),
        })
    });
    index.write(&mut rows, 0).unwrap();
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

    let before = index.snapshot();
    // In the order of the batch: a row that comes after the range stands, one that came before it does not.
    let mut batch = (0..4).map(|nth| {
        Ok(match nth {
            0 => Write::Put(b"bb", b"5".to_vec()),
            1 => Write::DeleteRange(b"b", b"c"),
            2 => Write::Put(b"b", b"new".to_vec()),
            _ => Write::Put(b"d", b"6".to_vec()),
        })
    });
    index.write(&mut batch, 0).unwrap();
    index.flush().unwrap();
    let all: [&[u8]; 3] = [b"b", b"c", b"d"];
    assert_eq!(keys(&*index.snapshot(), free, free, Direction::Forward), all);
    assert_eq!(get(&|key, open| index.get(key, open), b"ba"), None);
    assert_eq!(get(&|key, open| index.get(key, open), b"bb"), None);
    assert_eq!(get(&|key, open| before.get(key, open), b"ba").as_deref(), Some(&b"3"[..]));
    assert_eq!(keys(&*before, free, free, Direction::Forward), [&b"b"[..], b"ba", b"c"]);
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

/// Who reads ahead gives up among deleted rows, and finds the same as ever among others.
#[test]
fn a_guess_does_not_pass_what_was_deleted_by_the_thousand() {
    let folder = tempfile::tempdir().unwrap();
    let index =
        RocksIndex::open(&folder.path().join("index"), &StoreOptions::default(), Purpose::Normal).unwrap();
    let all: Vec<Vec<u8>> = (0..5000u32).map(|n| n.to_be_bytes().to_vec()).collect();
    let each = |change: &dyn Fn(usize, &[u8]) -> Vec<u8>| {
        index
            .write(&mut all.iter().enumerate().map(|(n, key)| Ok(Write::Put(key, change(n, key)))), 0)
            .unwrap();
    };
    each(&|_, key| key.to_vec());
    index.flush().unwrap();
    let look = |from: usize| {
        let mut found = Vec::new();
        let visit = &mut |key: &[u8], _: &[u8]| {
            found.push(key.to_vec());
            found.len() < 3
        };
        let whole = index.snapshot().scan_unless_gone(&all[from], &[0xff], 100, visit).unwrap();
        (whole, found)
    };
    assert_eq!(look(4000), (true, all[4000..4003].to_vec()));
    index.write(&mut all[1000..4500].iter().map(|key| Ok(Write::Delete(key))), 0).unwrap();
    assert_eq!(look(100), (true, all[100..103].to_vec()));
    assert_eq!(look(999), (false, vec![all[999].clone()]));
    assert_eq!(look(2000), (false, vec![]));
    assert_eq!(look(4450), (true, all[4500..4503].to_vec()), "so few are passed");
    assert_eq!(look(4998), (true, all[4998..].to_vec()), "the end is no reason to give up");
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
