//! The bytes of one file, live and durable, by page.
//!
//! Invariant: a page that is in `dirty` may differ between `live` and `durable`; any other page is the same in both, as
//! the same allocation. A page that is absent reads as zeros.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::RngCore;

/// The unit in which a kernel writes file data back.
pub const PAGE: usize = 4096;
/// The unit that a disk writes whole.
const SECTOR: usize = 512;

type Page = Arc<[u8; PAGE]>;

/// How the parts that no fsync covered are dealt with at one cut, in 256ths.
#[derive(Clone, Copy, Debug)]
pub struct Odds {
    pub keep: u32,
    pub tear: u32,
}

impl Odds {
    pub fn keeps(self, rng: &mut ChaCha8Rng) -> bool {
        rng.next_u32() % 256 < self.keep
    }
}

/// What one cut did to one file.
#[derive(Clone, Copy, Debug, Default)]
pub struct FileLoss {
    pub pages_dropped: u64,
    pub pages_torn: u64,
}

#[derive(Clone, Debug, Default)]
pub struct PagedFile {
    live: BTreeMap<u64, Page>,
    durable: BTreeMap<u64, Page>,
    dirty: BTreeSet<u64>,
    live_len: u64,
    durable_len: u64,
}

impl PagedFile {
    pub fn len(&self) -> u64 {
        self.live_len
    }

    pub fn is_empty(&self) -> bool {
        self.live_len == 0
    }

    /// Bytes that are allocated, for `st_blocks`.
    pub fn allocated(&self) -> u64 {
        (self.live.len() * PAGE) as u64
    }

    /// Pages that no fsync covers yet.
    pub fn dirty_pages(&self) -> u64 {
        self.dirty.len() as u64
    }

    pub fn read(&self, offset: u64, len: usize) -> Vec<u8> {
        let end = self.live_len.min(offset.saturating_add(len as u64));
        let mut out = vec![0; end.saturating_sub(offset) as usize];
        for (number, at, range) in pieces(offset, out.len()) {
            if let Some(page) = self.live.get(&number) {
                let n = range.len();
                out[range].copy_from_slice(&page[at..at + n]);
            }
        }
        out
    }

    /// `early` says of a page that is already dirty whether the kernel wrote it back before this write: then the version
    /// in between becomes the one that a cut falls back to.
    pub fn write(&mut self, offset: u64, data: &[u8], mut early: impl FnMut() -> bool) {
        for (number, at, range) in pieces(offset, data.len()) {
            if self.dirty.contains(&number) && early() {
                set(&mut self.durable, number, self.live.get(&number).cloned());
            }
            self.dirty.insert(number);
            let page = self.live.entry(number).or_insert_with(|| Arc::new([0; PAGE]));
            let n = range.len();
            Arc::make_mut(page)[at..at + n].copy_from_slice(&data[range]);
        }
        self.live_len = self.live_len.max(offset + data.len() as u64);
    }

    pub fn set_len(&mut self, len: u64) {
        if len < self.live_len {
            let first_gone = len.div_ceil(PAGE as u64);
            let gone: Vec<u64> = self.live.range(first_gone..).map(|(n, _)| *n).collect();
            for number in gone {
                self.live.remove(&number);
                self.dirty.insert(number);
            }
            self.zero_within_page(len, (first_gone * PAGE as u64).saturating_sub(len) as usize);
        }
        self.live_len = len;
    }

    /// Zeros without changing the size: a punched hole or a zeroed range.
    pub fn zero(&mut self, offset: u64, len: u64) {
        let end =
            offset.saturating_add(len).min(self.live.keys().next_back().map_or(0, |n| (n + 1) * PAGE as u64));
        let mut at = offset;
        while at < end {
            let page_end = (at / PAGE as u64 + 1) * PAGE as u64;
            let n = page_end.min(end) - at;
            if n == PAGE as u64 {
                if self.live.remove(&(at / PAGE as u64)).is_some() {
                    self.dirty.insert(at / PAGE as u64);
                }
            } else {
                self.zero_within_page(at, n as usize);
            }
            at += n;
        }
    }

    fn zero_within_page(&mut self, offset: u64, len: usize) {
        let number = offset / PAGE as u64;
        if let (Some(page), true) = (self.live.get_mut(&number), len > 0) {
            let at = (offset % PAGE as u64) as usize;
            Arc::make_mut(page)[at..at + len].fill(0);
            self.dirty.insert(number);
        }
    }

    /// The next page at or after `offset` that is allocated, or that is not.
    pub fn seek(&self, offset: u64, data: bool) -> Option<u64> {
        if offset >= self.live_len {
            return None;
        }
        let mut number = offset / PAGE as u64;
        while self.live.contains_key(&number) != data {
            number += 1;
            if number * PAGE as u64 >= self.live_len {
                return if data { None } else { Some(self.live_len) };
            }
        }
        Some(offset.max(number * PAGE as u64))
    }

    /// fsync: what is live becomes durable.
    pub fn sync(&mut self) {
        for number in std::mem::take(&mut self.dirty) {
            set(&mut self.durable, number, self.live.get(&number).cloned());
        }
        self.durable_len = self.live_len;
    }

    /// The power goes: what survives becomes both the live and the durable state.
    pub fn cut(&mut self, odds: Odds, rng: &mut ChaCha8Rng) -> FileLoss {
        let mut loss = FileLoss::default();
        for number in std::mem::take(&mut self.dirty) {
            let (old, new) = (self.durable.get(&number).cloned(), self.live.get(&number).cloned());
            if rng.next_u32() % 256 < odds.tear {
                loss.pages_torn += 1;
                set(&mut self.durable, number, Some(torn(old.as_ref(), new.as_ref(), rng)));
            } else if odds.keeps(rng) {
                set(&mut self.durable, number, new);
            } else {
                loss.pages_dropped += 1;
            }
        }
        if odds.keeps(rng) {
            self.durable_len = self.live_len;
        }
        // Bytes past the end are never seen again, as a kernel zeroes them when it writes the last page.
        let mut survivor =
            PagedFile { live: self.durable.clone(), live_len: u64::MAX, ..PagedFile::default() };
        survivor.set_len(self.durable_len);
        self.live = survivor.live;
        self.durable = self.live.clone();
        self.live_len = self.durable_len;
        loss
    }
}

fn set(pages: &mut BTreeMap<u64, Page>, number: u64, page: Option<Page>) {
    match page {
        Some(page) => pages.insert(number, page),
        None => pages.remove(&number),
    };
}

/// A page of which some sectors are old and some new.
fn torn(old: Option<&Page>, new: Option<&Page>, rng: &mut ChaCha8Rng) -> Page {
    let zeros = Arc::new([0; PAGE]);
    let (old, new) = (old.unwrap_or(&zeros), new.unwrap_or(&zeros));
    let mut page = **old;
    for start in (0..PAGE).step_by(SECTOR) {
        if rng.next_u32().is_multiple_of(2) {
            page[start..start + SECTOR].copy_from_slice(&new[start..start + SECTOR]);
        }
    }
    Arc::new(page)
}

/// Splits a range of a file at page borders: (page, offset within it, range within the caller's buffer).
fn pieces(offset: u64, len: usize) -> impl Iterator<Item = (u64, usize, std::ops::Range<usize>)> {
    let mut done = 0;
    std::iter::from_fn(move || {
        let position = offset + done as u64;
        let at = (position % PAGE as u64) as usize;
        let n = (PAGE - at).min(len - done);
        let piece = (position / PAGE as u64, at, done..done + n);
        done += n;
        (n > 0).then_some(piece)
    })
}
