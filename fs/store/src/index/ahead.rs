//! Reading ahead: who asks a snapshot of the index for row after row, in order, gets them by the page.
//!
//! A seal passes its changed rows several times, each time in the order of keys. A row asked for alone costs a search through the index's files,
//! microseconds; in a page it costs a tenth of that. Promises: the answers are the snapshot's, which never changes; where questions are far apart, pages are
//! not read, or rarely, to see whether that has changed. Bounded: one page for each table.

use std::ops::Bound;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;

use super::{IndexRead, Open, Visit};
use crate::error::Result;
use crate::{Direction, Table};

/// Rows of the first page, and of one that is only to show how close together questions are.
const PROBE_ROWS: usize = 8;
const PAGE_ROWS_MAX: usize = 512;
const PAGE_BYTES_MAX: usize = 256 << 10;
/// Deleted rows in a row that a page may pass: their time is that of a few rows that were read for nothing.
const GONE_MAX: u64 = 256;
/// Questions that go by alone after pages that were read for nothing.
const PAUSE_MAX: usize = 255;

pub(crate) struct Ahead {
    index: Arc<dyn IndexRead>,
    pages: [Mutex<Page>; Table::ALL.len()],
}

/// Consecutive rows of one table, keys and sealed values in one piece of memory.
#[derive(Default)]
struct Rows {
    bytes: Vec<u8>,
    /// Where the key and where the value of each row ends.
    ends: Vec<(usize, usize)>,
}

/// Rows that are known, and what the questions after them were like.
#[derive(Default)]
struct Page {
    /// Shared with whoever is passing them.
    rows: Arc<Rows>,
    /// All rows from here on are known, up to and including `to`; without `to` all of the table. Without `from` nothing.
    from: Option<Vec<u8>>,
    to: Option<Vec<u8>>,
    /// Questions that it answered.
    answered: usize,
    /// Rows of the next one.
    size: usize,
    /// Questions that still go by alone, and how many will after the next page for nothing.
    pause: usize,
    pause_next: usize,
}

impl Ahead {
    pub(crate) fn new(index: Arc<dyn IndexRead>) -> Self {
        Ahead { index, pages: std::array::from_fn(|_| Mutex::default()) }
    }

    fn page(&self, key: &[u8]) -> Option<(&Mutex<Page>, Table)> {
        let table = Table::from_tag(*key.first()?)?;
        Some((self.pages.get(usize::from(table.tag()).checked_sub(1)?)?, table))
    }
}

impl Rows {
    fn push(&mut self, key: &[u8], value: &[u8]) {
        self.bytes.extend_from_slice(key);
        let key_end = self.bytes.len();
        self.bytes.extend_from_slice(value);
        self.ends.push((key_end, self.bytes.len()));
    }

    fn len(&self) -> usize {
        self.ends.len()
    }

    fn get(&self, nth: usize) -> Option<(&[u8], &[u8])> {
        let &(key_end, end) = self.ends.get(nth)?;
        let start = nth.checked_sub(1).and_then(|before| self.ends.get(before)).map_or(0, |(_, end)| *end);
        Some((self.bytes.get(start..key_end)?, self.bytes.get(key_end..end)?))
    }

    /// The place of the first row whose key is not below `key`.
    fn first_from(&self, key: &[u8]) -> usize {
        let (mut low, mut high) = (0, self.len());
        while low < high {
            let middle = low + (high - low) / 2;
            match self.get(middle) {
                Some((row, _)) if row < key => low = middle + 1,
                _ => high = middle,
            }
        }
        low
    }
}

impl Page {
    fn knows(&self, from: &[u8], to: &[u8]) -> bool {
        self.from.as_deref().is_some_and(|known| known <= from)
            && self.to.as_deref().is_none_or(|known| to <= known)
    }

    /// Whether a page is to be read for a question that this one does not answer.
    fn turn(&mut self) -> bool {
        if self.pause > 0 {
            self.pause -= 1;
            return false;
        }
        if self.from.take().is_none() {
            self.size = PROBE_ROWS;
            return true;
        }
        let close = self.answered * 2 >= self.rows.len();
        if close {
            self.size = (self.size * 4).min(PAGE_ROWS_MAX);
            self.pause_next = 0;
        } else {
            self.pause_next = (self.pause_next * 2 + 1).min(PAUSE_MAX);
            self.pause = self.pause_next;
            self.rows = Arc::default();
        }
        close
    }

    /// Reads the page that begins with `from`; gives whether it did. Where much was deleted there is none, as if it had been read for nothing.
    fn read(&mut self, index: &dyn IndexRead, table: Table, from: &[u8]) -> Result<bool> {
        self.answered = 0;
        // The memory of the last page, if nobody is passing its rows.
        let mut rows = Arc::into_inner(std::mem::take(&mut self.rows)).unwrap_or_default();
        rows.bytes.clear();
        rows.ends.clear();
        let (size, mut full) = (self.size, false);
        let end = [table.tag() + 1];
        let whole = index.scan_unless_gone(from, &end, GONE_MAX, &mut |key, value| {
            rows.push(key, value);
            full = rows.len() >= size || rows.bytes.len() >= PAGE_BYTES_MAX;
            !full
        })?;
        if !whole {
            self.pause_next = (self.pause_next * 2 + 1).min(PAUSE_MAX);
            self.pause = self.pause_next;
            return Ok(false);
        }
        let last = rows.len().checked_sub(1).and_then(|last| rows.get(last));
        self.to = last.filter(|_| full).map(|(key, _)| key.to_vec());
        self.from = Some(from.to_vec());
        self.rows = Arc::new(rows);
        Ok(true)
    }
}

impl IndexRead for Ahead {
    fn get(&self, key: &[u8], open: Open<'_>) -> Result<Option<Bytes>> {
        let Some((page, table)) = self.page(key) else { return self.index.get(key, open) };
        let mut page = page.lock();
        if !page.knows(key, key) {
            if !page.turn() {
                drop(page);
                return self.index.get(key, open);
            }
            if !page.read(&*self.index, table, key)? {
                drop(page);
                return self.index.get(key, open);
            }
        }
        page.answered += 1;
        let rows = page.rows.clone();
        drop(page);
        let found = rows.get(rows.first_from(key)).filter(|(row, _)| *row == key);
        found.map(|(_, value)| open(value)).transpose()
    }

    fn scan(
        &self,
        start: Bound<&[u8]>,
        end: Bound<&[u8]>,
        direction: Direction,
        visit: Visit<'_>,
    ) -> Result<()> {
        let (Bound::Included(from), Bound::Excluded(to), Direction::Forward) = (start, end, direction) else {
            return self.index.scan(start, end, direction, visit);
        };
        let Some((page, table)) = self.page(from) else {
            return self.index.scan(start, end, direction, visit);
        };
        let mut page = page.lock();
        if !page.knows(from, to) {
            if !page.turn() {
                drop(page);
                return self.index.scan(start, end, direction, visit);
            }
            let _ = page.read(&*self.index, table, from)?;
        }
        if !page.knows(from, to) {
            // More than a page: it goes by itself.
            drop(page);
            return self.index.scan(start, end, direction, visit);
        }
        let rows = page.rows.clone();
        let (first, behind) = (rows.first_from(from), rows.first_from(to));
        page.answered += 1 + behind.saturating_sub(first);
        // Out of the lock: who is called may ask for more.
        drop(page);
        for (key, value) in (first..behind).filter_map(|nth| rows.get(nth)) {
            if !visit(key, value) {
                break;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::index::{Index, MemoryIndex, Write};

    /// Numbers that look random, the same in each run.
    fn chance(state: &mut u64) -> u64 {
        *state ^= *state << 13;
        *state ^= *state >> 7;
        *state ^= *state << 17;
        *state
    }

    fn key(table: Table, n: u64) -> Vec<u8> {
        [&[table.tag()][..], &n.to_be_bytes()].concat()
    }

    /// Values here are not sealed.
    fn copied(value: &[u8]) -> Result<Bytes> {
        Ok(Bytes::copy_from_slice(value))
    }

    fn filled() -> MemoryIndex {
        let index = MemoryIndex::new();
        let mut rows = Vec::new();
        for (table, step) in [(Table::Inode, 1), (Table::Extent, 3), (Table::Payload, 7)] {
            rows.extend((0..3000u64).step_by(step).map(|n| (key(table, n), vec![n as u8; 9])));
        }
        index.write(&mut rows.iter().map(|(key, value)| Ok(Write::Put(key, value.clone()))), 0).unwrap();
        index
    }

    fn list(read: &dyn IndexRead, from: &[u8], to: &[u8], limit: usize) -> Vec<(Vec<u8>, Vec<u8>)> {
        let mut out = Vec::new();
        read.scan(Bound::Included(from), Bound::Excluded(to), Direction::Forward, &mut |key, value| {
            out.push((key.to_vec(), value.to_vec()));
            out.len() < limit
        })
        .unwrap();
        out
    }

    #[test]
    fn it_answers_what_the_index_does() {
        let index = filled();
        let (plain, ahead) = (index.snapshot(), Ahead::new(index.snapshot()));
        let mut state = 88_172_645_463_325_252;
        let mut at = 0;
        for step in 0..30_000 {
            let table = [Table::Inode, Table::Extent, Table::Payload, Table::Orphan][step % 4];
            // Runs in order, close together or far apart, and jumps.
            at = match chance(&mut state) % 50 {
                0 => chance(&mut state) % 3100,
                jump => at + [1, 1, 1, 2, 40][(jump % 5) as usize],
            };
            let from = key(table, at);
            if chance(&mut state).is_multiple_of(3) {
                let to = key(table, at + chance(&mut state) % 600);
                let limit = 1 + (chance(&mut state) % 20) as usize;
                assert_eq!(list(&ahead, &from, &to, limit), list(&*plain, &from, &to, limit));
            } else {
                assert_eq!(ahead.get(&from, &copied).unwrap(), plain.get(&from, &copied).unwrap());
            }
        }
    }

    /// Counts how often it is asked.
    struct Counted(Arc<dyn IndexRead>, Mutex<usize>);

    impl IndexRead for Counted {
        fn get(&self, key: &[u8], open: Open<'_>) -> Result<Option<Bytes>> {
            *self.1.lock() += 1;
            self.0.get(key, open)
        }
        fn scan(
            &self,
            start: Bound<&[u8]>,
            end: Bound<&[u8]>,
            way: Direction,
            visit: Visit<'_>,
        ) -> Result<()> {
            *self.1.lock() += 1;
            let mut rows = 0;
            let scanned = self.0.scan(start, end, way, &mut |key, value| {
                rows += 1;
                visit(key, value)
            });
            *self.1.lock() += rows;
            scanned
        }
    }

    #[test]
    fn rows_in_order_come_by_the_page_and_others_alone() {
        let index = filled();
        let asked = |numbers: &mut dyn Iterator<Item = u64>, table: Table| {
            let counted = Arc::new(Counted(index.snapshot(), Mutex::new(0)));
            let ahead = Ahead::new(counted.clone());
            numbers.for_each(|n| drop(ahead.get(&key(table, n), &copied).unwrap()));
            *counted.1.lock()
        };
        // Each row once, and a call for each page.
        assert!(asked(&mut (0..3000), Table::Inode) < 3000 + 20);
        // What is not there costs nothing at all.
        assert!(asked(&mut (0..3000), Table::Orphan) < 5);
        // Far apart: hardly more than one row for each question.
        let far = asked(&mut (0..3000).step_by(100), Table::Inode);
        assert!(far < 30 + 5 * (PROBE_ROWS + 1), "{far}");
    }
}
