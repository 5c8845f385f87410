//! The extents of one file in memory, and how a range is cut out of them.
//!
//! Pure. An edit is planned first, written into a record, and applied to the map only when the record is
//! committed, so that a failed commit leaves memory as it was.

use std::collections::BTreeMap;
use std::ops::Range;

use holdfast_store::Lsn;

use crate::rows::{ExtentRow, ExtentSource, Ino, RowTxn};

/// One past the last byte that any file can have; where the extent of zeros behind a truncation ends.
pub(crate) const EXTENT_END: u64 = i64::MAX as u64;

/// Extents by offset; they never overlap.
pub(crate) type ExtentMap = BTreeMap<u64, ExtentRow>;

/// What cutting a range changes.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Edits {
    pub(crate) delete: Vec<u64>,
    /// Pieces of old extents that stay.
    pub(crate) put: Vec<(u64, ExtentRow)>,
    /// Payloads that have one reference more (an extent was split).
    pub(crate) retain: Vec<Lsn>,
    /// Payloads that have one reference less.
    pub(crate) release: Vec<Lsn>,
    /// Bytes that payload extents covered in what was cut.
    pub(crate) data_bytes: u64,
    /// Whether anything was cut at all.
    pub(crate) any: bool,
}

/// The extents that reach into `range`, in order.
pub(crate) fn overlapping(map: &ExtentMap, range: Range<u64>) -> impl Iterator<Item = (u64, &ExtentRow)> {
    let first = map
        .range(..range.start)
        .next_back()
        .filter(|(off, row)| off.saturating_add(row.len) > range.start)
        .map_or(range.start, |(off, _)| *off);
    // An empty range would make `first..end` run backwards when an extent spans it.
    let end = range.end.max(first);
    map.range(first..end).map(|(off, row)| (*off, row))
}

/// The parts of `range` that no extent covers.
pub(crate) fn gaps(map: &ExtentMap, range: Range<u64>) -> Vec<Range<u64>> {
    let mut out = Vec::new();
    let mut pos = range.start;
    for (off, row) in overlapping(map, range.clone()) {
        if off > pos {
            out.push(pos..off.min(range.end));
        }
        pos = pos.max(off.saturating_add(row.len));
    }
    if pos < range.end {
        out.push(pos..range.end);
    }
    out
}

/// Plans to cut `range` out of every extent that `which` selects.
pub(crate) fn cut(map: &ExtentMap, range: Range<u64>, which: impl Fn(&ExtentRow) -> bool) -> Edits {
    let mut edits = Edits::default();
    for (off, row) in overlapping(map, range.clone()) {
        if which(row) {
            cut_one(off, row, &range, &mut edits);
        }
    }
    edits
}

/// Plans to cut `range` out of one extent that reaches into it.
pub(crate) fn cut_one(off: u64, row: &ExtentRow, range: &Range<u64>, edits: &mut Edits) {
    let end = off.saturating_add(row.len);
    let (from, to) = (range.start.max(off), range.end.min(end));
    if from >= to {
        return;
    }
    edits.any = true;
    let before = (off < from).then(|| row.truncated(from - off));
    let after = (to < end).then(|| row.without_front(to - off));
    match (&before, &after) {
        (Some(_), Some(_)) => edits.retain.extend(row.payload()),
        (None, None) => edits.release.extend(row.payload()),
        _ => {}
    }
    if row.payload().is_some() {
        edits.data_bytes += to - from;
    }
    match before {
        Some(before) => edits.put.push((off, before)),
        None => edits.delete.push(off),
    }
    if let Some(after) = after {
        edits.put.push((to, after));
    }
}

impl Edits {
    pub(crate) fn write(&self, txn: &mut RowTxn<'_>, ino: Ino) {
        for off in &self.delete {
            txn.delete_extent(ino, *off);
        }
        for (off, row) in &self.put {
            txn.put_extent(ino, *off, row);
        }
        for payload in &self.retain {
            txn.retain(*payload);
        }
        for payload in &self.release {
            txn.release(*payload);
        }
    }

    pub(crate) fn apply(self, map: &mut ExtentMap) {
        for off in self.delete {
            map.remove(&off);
        }
        for (off, row) in self.put {
            map.insert(off, row);
        }
    }
}

/// An extent of zeros made by record `lsn`.
pub(crate) fn zeros(len: u64, lsn: Lsn) -> ExtentRow {
    ExtentRow { len, lsn, source: ExtentSource::Zero }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]

    use proptest::prelude::*;

    use super::*;

    /// Every byte of a small file as (payload, position in it), the plain way.
    type Bytes = Vec<Option<(Lsn, u64)>>;

    fn flatten(map: &ExtentMap) -> Bytes {
        let mut out = vec![None; 256];
        for (off, row) in map {
            for i in 0..row.len {
                if let ExtentSource::Payload { payload, skip } = row.source {
                    let at = usize::try_from(off + i).unwrap();
                    assert!(out[at].is_none(), "extents overlap at {at}");
                    out[at] = Some((payload, skip + i));
                }
            }
        }
        out
    }

    proptest! {
        #[test]
        fn cuts_and_writes_are_those_of_plain_bytes(
            steps in proptest::collection::vec((0u64..200, 1u64..50, any::<bool>()), 1..40)
        ) {
            let mut map = ExtentMap::new();
            let mut model: Bytes = vec![None; 256];
            let mut refs: BTreeMap<Lsn, i64> = BTreeMap::new();
            for (n, (off, len, write)) in steps.into_iter().enumerate() {
                let lsn = n as Lsn + 1;
                let edits = cut(&map, off..off + len, |_| true);
                for p in &edits.retain { *refs.entry(*p).or_default() += 1; }
                for p in &edits.release { *refs.entry(*p).or_default() -= 1; }
                edits.apply(&mut map);
                let mut expected: Vec<Option<(Lsn, u64)>> = vec![None; usize::try_from(len).unwrap()];
                if write {
                    let source = ExtentSource::Payload { payload: lsn, skip: 0 };
                    map.insert(off, ExtentRow { len, lsn, source });
                    refs.insert(lsn, 1);
                    expected = (0..len).map(|i| Some((lsn, i))).collect();
                }
                let at = usize::try_from(off).unwrap();
                model[at..at + expected.len()].copy_from_slice(&expected);
                prop_assert_eq!(flatten(&map), model.clone());
                // References are exactly the extents that name a payload.
                let mut counted: BTreeMap<Lsn, i64> = BTreeMap::new();
                for row in map.values() { *counted.entry(row.payload().unwrap()).or_default() += 1; }
                refs.retain(|_, n| *n != 0);
                prop_assert_eq!(&refs, &counted);
                let uncovered: u64 = gaps(&map, 0..256).iter().map(|gap| gap.end - gap.start).sum();
                prop_assert_eq!(uncovered, model.iter().filter(|b| b.is_none()).count() as u64);
            }
        }
    }
}
