//! Marks: which rows differ from the last commit.
//!
//! ```text
//! changed[cut, table, key]      cut: the newest one (its LSN) when the row was changed
//! ```
//!
//! Owns: the table Changed. Promises: what a commit of the cut C has to look at are the marks under the cuts from the last commit's on, below C, and nothing
//! else is read to find them; those below C are complete when C is taken, so that they go without a lock. Refuses: marks of a newer layout.

use std::collections::VecDeque;

use holdfast_store::{Direction, KeyRange, Lsn, Reads, Store, StoreError, Table, Txn};

use super::base::{RowList, stored};
use super::{META_MARKS_FROM, ROW_VERSION, RowError};

/// What a mark holds: its version. All that it says is in its key.
pub(super) const MARK: [u8; 1] = [ROW_VERSION];
/// Marks fetched at once, under all cuts together.
const PAGE_ROWS: usize = 1024;
/// The same under one of many cuts.
const RUN_ROWS_MIN: usize = 16;
/// Marks of the first layout that one record brings over.
const MIGRATED_ROWS: usize = 4096;
/// Behind every key.
const END: [u8; 1] = [0xff];
/// Marks of the first layout begin with their table's tag, which is at least this; a cut's first byte is 0.
const FIRST_LAYOUT: [u8; 1] = [1];

/// The key of a mark under a cut.
pub(super) fn key(cut: Lsn, full_key: &[u8]) -> Vec<u8> {
    [&cut.to_be_bytes(), full_key].concat()
}

/// Under what marks stand that the commit of `cut` covers although they are written after it: those of rows that a seal made from it.
pub(super) fn under_seal(cut: Lsn) -> Lsn {
    cut.saturating_sub(1)
}

/// Keys (table tag first) of changed rows, each once, in ascending order.
pub(crate) struct ChangedKeys<'a, S> {
    source: &'a S,
    runs: Vec<Run>,
    page_rows: usize,
}

/// What is left under one cut.
struct Run {
    page: VecDeque<Vec<u8>>,
    /// Keys of marks.
    from: Vec<u8>,
    end: Vec<u8>,
    exhausted: bool,
}

impl<'a, S: Reads> ChangedKeys<'a, S> {
    /// All changed rows that the commit of the cut `after` does not cover.
    pub(crate) fn all(source: &'a S, after: Lsn) -> Result<Self, RowError> {
        Self::between(source, after, &[], &END)
    }

    /// Those of one table.
    pub(crate) fn of_table(source: &'a S, after: Lsn, table: Table) -> Result<Self, RowError> {
        Self::between(source, after, &[table as u8], &[table as u8 + 1])
    }

    /// Those with `start <= key < end`, table tags first.
    pub(crate) fn between(source: &'a S, after: Lsn, start: &[u8], end: &[u8]) -> Result<Self, RowError> {
        let cuts = cuts(source, after)?;
        let page_rows = (PAGE_ROWS / cuts.len().max(1)).max(RUN_ROWS_MIN);
        let run =
            |cut| Run { page: VecDeque::new(), from: key(cut, start), end: key(cut, end), exhausted: false };
        Ok(Self { source, runs: cuts.into_iter().map(run).collect(), page_rows })
    }

    /// The next key.
    pub(crate) fn next(&mut self) -> Result<Option<Vec<u8>>, RowError> {
        for run in &mut self.runs {
            run.fill(self.source, self.page_rows)?;
        }
        let Some(least) = self.runs.iter().filter_map(|run| run.page.front()).min().cloned() else {
            return Ok(None);
        };
        for run in &mut self.runs {
            if run.page.front() == Some(&least) {
                run.page.pop_front();
            }
        }
        Ok(Some(least))
    }
}

impl Run {
    fn fill(&mut self, source: &impl Reads, rows: usize) -> Result<(), RowError> {
        if self.exhausted || !self.page.is_empty() {
            return Ok(());
        }
        let range = KeyRange::between(self.from.as_slice(), self.end.as_slice());
        let page = source.scan_keys(Table::Changed, &range, rows, Direction::Forward)?;
        self.exhausted = page.len() < rows;
        if let Some(key) = page.last() {
            self.from.clone_from(key);
            self.from.push(0);
        }
        // All that a mark says is in its key. Its version is asked for by the page: opening the values cost more than all else about them.
        if let Some(key) = page.first()
            && let Some(value) = source.get(Table::Changed, key)?
        {
            check(&value)?;
        }
        self.page.extend(page.iter().map(|key| key.get(size_of::<Lsn>()..).unwrap_or_default().to_vec()));
        Ok(())
    }
}

fn check(value: &[u8]) -> Result<(), RowError> {
    match value {
        [ROW_VERSION] => Ok(()),
        [version, ..] if *version > ROW_VERSION => Err(RowError::Newer { what: "mark", found: *version }),
        _ => Err(RowError::Corrupt { what: "mark" }),
    }
}

/// The cuts from `after` on under which there are marks, in order: few, one for each round of a seal and each start since the last commit.
fn cuts(source: &impl Reads, after: Lsn) -> Result<Vec<Lsn>, RowError> {
    let mut found = Vec::new();
    let mut from = after;
    while let Some((key, _)) = stored(source, Table::Changed, &from.to_be_bytes(), &FIRST_LAYOUT, 1)?.first()
    {
        let cut = key.first_chunk().ok_or(RowError::Corrupt { what: "mark" })?;
        let cut = Lsn::from_be_bytes(*cut);
        found.push(cut);
        from = cut.saturating_add(1);
    }
    Ok(found)
}

/// Whether anything is marked that the commit of the cut `after` does not cover.
pub(crate) fn any(source: &impl Reads, after: Lsn) -> Result<bool, StoreError> {
    Ok(!stored(source, Table::Changed, &after.to_be_bytes(), &FIRST_LAYOUT, 1)?.is_empty())
}

/// Which rows are marked that the commit of one cut does not cover: for many questions after single ones.
pub(crate) struct Marked<'a, S> {
    source: &'a S,
    cuts: Vec<Lsn>,
}

impl<'a, S: Reads> Marked<'a, S> {
    pub(crate) fn since(source: &'a S, after: Lsn) -> Result<Self, RowError> {
        Ok(Self { source, cuts: cuts(source, after)? })
    }

    pub(crate) fn contains(&self, table: Table, row_key: &[u8]) -> Result<bool, RowError> {
        let full = super::keys::full(table, row_key);
        for cut in &self.cuts {
            if self.source.get(Table::Changed, &key(*cut, &full))?.is_some() {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// Removes the marks that the commit of `cut` covers: one record, however many they are.
///
/// Nobody writes them any more, whoever seals apart; and who seals calls this.
pub(crate) fn sweep(store: &Store, cut: Lsn) -> Result<(), RowError> {
    let swept = match store.get(Table::Meta, META_MARKS_FROM)?.as_deref() {
        Some([ROW_VERSION, number @ ..]) => {
            number.try_into().map(Lsn::from_be_bytes).map_err(|_| RowError::Corrupt { what: "mark" })?
        }
        _ => 0,
    };
    if swept < cut {
        // Begins where the sweep before ended: ranges that lie side by side cost a reader less than ranges in ranges.
        let mut txn = Txn::new();
        txn.delete_range(Table::Changed, swept.to_be_bytes(), cut.to_be_bytes());
        txn.put(Table::Meta, META_MARKS_FROM, [&MARK[..], &cut.to_be_bytes()].concat());
        store.commit(txn)?;
    }
    Ok(())
}

/// Brings marks of the first layout (key: table tag and row key, value: LSN of the change) into this one. `cut` is that of the newest commit.
///
/// Each record does its part of both sides, so that a crash leaves a mark in one of the layouts.
pub(crate) fn migrate(store: &Store, cut: Lsn) -> Result<u64, RowError> {
    let mut moved = 0;
    let mut range = KeyRange::from(FIRST_LAYOUT);
    loop {
        let page: RowList = store.scan(Table::Changed, &range, MIGRATED_ROWS, Direction::Forward)?;
        let last = page.len() < MIGRATED_ROWS;
        let mut txn = Txn::new();
        for (old, value) in &page {
            let lsn: [u8; 8] =
                value.as_ref().try_into().map_err(|_| RowError::Corrupt { what: "changed" })?;
            txn.delete(Table::Changed, old);
            if Lsn::from_be_bytes(lsn) > cut {
                txn.put(Table::Changed, key(cut, old), &MARK[..]);
            }
            moved += 1;
        }
        if let Some((key, _)) = page.last() {
            range = range.after(key.clone());
        }
        if !txn.is_empty() {
            store.commit(txn)?;
        }
        if last {
            return Ok(moved);
        }
    }
}
