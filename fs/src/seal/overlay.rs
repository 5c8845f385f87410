//! Rows that a seal has made but not written yet, laid over the cut.
//!
//! Owns: the new chunk, DAG and inode rows of the commit that is being made, in memory. Promises: reads see the rows of the cut with the new
//! ones on top, in key order. Bounded by [`super::ROUND_CHUNKS_MAX`]: what is beyond is installed in earlier rounds and part of the cut.

use std::collections::BTreeMap;
use std::ops::Bound;

use bytes::Bytes;
use holdfast_store::{Snapshot, Table};

use crate::rows::{RowError, RowList, View, keys};

/// More rows than any node of a DAG has children.
const FEW_ROWS_MAX: usize = 1024;

/// New rows by (table tag, key); `None`: the row goes.
#[derive(Default)]
pub(crate) struct Overlay {
    rows: BTreeMap<Vec<u8>, Option<Bytes>>,
}

impl Overlay {
    pub(crate) fn put(&mut self, table: Table, key: &[u8], value: Vec<u8>) {
        self.rows.insert(keys::full(table, key), Some(value.into()));
    }

    pub(crate) fn delete(&mut self, table: Table, key: &[u8]) {
        self.rows.insert(keys::full(table, key), None);
    }

    /// The new row, if it is one: `Some(None)` is a deletion.
    pub(crate) fn get(&self, table: Table, key: &[u8]) -> Option<Option<&Bytes>> {
        self.rows.get(&keys::full(table, key)).map(Option::as_ref)
    }

    /// The first new row after `full_key` (table tag and key).
    pub(crate) fn next_after(&self, full_key: Bound<&[u8]>) -> Option<&[u8]> {
        self.rows.range::<[u8], _>((full_key, Bound::Unbounded)).next().map(|(key, _)| key.as_slice())
    }

    /// All rows of one table, `(key, row)`.
    pub(crate) fn table(&self, table: Table) -> impl Iterator<Item = (&[u8], Option<&Bytes>)> {
        let (start, end) = ([table as u8], [table as u8 + 1]);
        self.rows
            .range::<[u8], _>((Bound::Included(&start[..]), Bound::Excluded(&end[..])))
            .map(|(key, row)| (key.get(1..).unwrap_or_default(), row.as_ref()))
    }
}

/// The cut with the new rows on top.
pub(crate) struct Overlaid<'a> {
    pub(crate) cut: &'a View<'a, Snapshot>,
    pub(crate) new: &'a Overlay,
}

impl Overlaid<'_> {
    pub(crate) fn get(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>, RowError> {
        match self.new.get(table, key) {
            Some(row) => Ok(row.cloned()),
            None => self.cut.get(table, key),
        }
    }

    /// All rows with `start <= key < end`; the caller knows that they are few.
    pub(crate) fn all(&self, table: Table, start: &[u8], end: &[u8]) -> Result<RowList, RowError> {
        let mut merged: BTreeMap<Vec<u8>, Bytes> =
            self.cut.range(table, start, end, FEW_ROWS_MAX)?.into_iter().collect();
        self.lay_over(table, start, Some(end), &mut merged);
        Ok(merged.into_iter().collect())
    }

    /// Is there a row with `start <= key < end`?
    pub(crate) fn any(&self, table: Table, start: &[u8], end: &[u8]) -> Result<bool, RowError> {
        const PAGE: usize = 64;
        let mut from = start.to_vec();
        loop {
            let page = self.cut.range(table, &from, end, PAGE)?;
            let exhausted = page.len() < PAGE;
            let last = page.last().map(|(key, _)| key.clone());
            let upto = if exhausted { Some(end) } else { last.as_deref() };
            let mut merged: BTreeMap<Vec<u8>, Bytes> = page.into_iter().collect();
            self.lay_over(table, &from, upto, &mut merged);
            if !merged.is_empty() {
                return Ok(true);
            }
            match last {
                Some(mut key) if !exhausted => {
                    key.push(0);
                    from = key;
                }
                _ => return Ok(false),
            }
        }
    }

    fn lay_over(&self, table: Table, start: &[u8], end: Option<&[u8]>, rows: &mut BTreeMap<Vec<u8>, Bytes>) {
        let first = keys::full(table, start);
        let last = end.map(|end| keys::full(table, end));
        let last = last.as_deref().map_or(Bound::Unbounded, Bound::Included);
        if matches!(last, Bound::Included(last) if last < first.as_slice()) {
            return;
        }
        for (key, row) in self.new.rows.range::<[u8], _>((Bound::Included(first.as_slice()), last)) {
            let key = key.get(1..).unwrap_or_default();
            match row {
                // `end` itself is outside where it is a bound, and no row's key where it is the last key of a page
                // that stays in `rows` whatever the overlay says of it.
                Some(row) if end != Some(key) || rows.contains_key(key) => {
                    rows.insert(key.to_vec(), row.clone());
                }
                Some(_) => {}
                None => {
                    rows.remove(key);
                }
            }
        }
    }
}
