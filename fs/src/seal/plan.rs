//! Which chunks of a file a seal has to make anew: pure arithmetic over the extents of one inode.
//!
//! Owns: cutting a sorted run of extents into per-chunk work. Promises: every byte of every extent below the file's size is in exactly one
//! [`Work`]; work comes in ascending chunk order; a hole of any length costs one item, not one for each chunk. Refuses nothing: extents
//! beyond the end of the file are ignored (they are the remains of a truncation).

use std::collections::VecDeque;

use crate::rows::{ExtentRow, ExtentSource};

/// What one chunk, or a run of chunks, becomes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Work {
    /// Chunk `n`: its old content (unless `covered`), cut off at `len`, with these parts laid over it. No parts: only the cut counts.
    Chunk {
        /// Chunk number.
        n: u64,
        /// Bytes of the chunk below the file's end.
        len: u32,
        /// The parts hide all old content.
        covered: bool,
        /// In ascending order, without overlap.
        parts: Vec<Part>,
    },
    /// Chunks `from..to` are zeros only.
    Hole {
        /// First chunk.
        from: u64,
        /// Behind the last one; `u64::MAX` never occurs.
        to: u64,
    },
}

/// A run of bytes within a chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Part {
    /// Offset in the chunk.
    pub(crate) at: u32,
    /// Bytes.
    pub(crate) len: u32,
    /// Where they come from.
    pub(crate) source: ExtentSource,
}

/// Cuts extents into work, as they come.
pub(crate) struct Planner {
    chunk_bytes: u64,
    size: u64,
    /// Extents (offset, row) that are not in any work yet.
    queue: VecDeque<(u64, ExtentRow)>,
    /// No more will come.
    complete: bool,
    /// Something lies behind the end of the file but within its last chunk: a truncation, which the old chunk may not know.
    tail_cut: bool,
    /// The chunks below this number have had their work.
    done: u64,
}

impl Planner {
    pub(crate) fn new(chunk_bytes: u64, size: u64) -> Self {
        Self { chunk_bytes, size, queue: VecDeque::new(), complete: false, tail_cut: false, done: 0 }
    }

    /// Adds the next extent; ascending offsets, no overlaps.
    pub(crate) fn push(&mut self, off: u64, row: ExtentRow) {
        let last_chunk_end = self.size.div_ceil(self.chunk_bytes).saturating_mul(self.chunk_bytes);
        self.tail_cut |= off < last_chunk_end && off.saturating_add(row.len) > self.size;
        if off >= self.size {
            return;
        }
        self.queue.push_back((off, row.truncated(self.size - off)));
    }

    /// No more extents will come.
    pub(crate) fn finish(&mut self) {
        self.complete = true;
    }

    /// The next piece of work, or `None`: more extents are needed (or, when finished, none is left).
    pub(crate) fn next(&mut self) -> Option<Work> {
        let Some(&(off, row)) = self.queue.front() else { return self.tail() };
        let n = off / self.chunk_bytes;
        let start = n * self.chunk_bytes;
        let end = off.saturating_add(row.len);
        if row.source == ExtentSource::Zero && off == start {
            // The last chunk counts as whole when the extent reaches the file's end.
            let to =
                if end >= self.size { self.size.div_ceil(self.chunk_bytes) } else { end / self.chunk_bytes };
            if to > n {
                self.drop_front(to.saturating_mul(self.chunk_bytes).min(end));
                self.done = to;
                return Some(Work::Hole { from: n, to });
            }
        }
        let chunk_end = start.saturating_add(self.chunk_bytes).min(self.size);
        if !self.complete
            && self.queue.back().is_none_or(|(at, last)| at.saturating_add(last.len) < chunk_end)
        {
            return None;
        }
        Some(self.chunk(n, start, chunk_end))
    }

    /// The last chunk, when all that touches it lies behind the file's end.
    fn tail(&mut self) -> Option<Work> {
        let n = self.size.checked_sub(1)? / self.chunk_bytes;
        if !self.complete || !std::mem::take(&mut self.tail_cut) || self.done > n {
            return None;
        }
        let len = (self.size - n * self.chunk_bytes) as u32;
        Some(Work::Chunk { n, len, covered: false, parts: Vec::new() })
    }

    fn chunk(&mut self, n: u64, start: u64, end: u64) -> Work {
        self.done = n + 1;
        let mut parts = Vec::new();
        let mut reach = start;
        let mut covered = true;
        while let Some(&(off, row)) = self.queue.front() {
            if off >= end {
                break;
            }
            let stop = off.saturating_add(row.len).min(end);
            covered &= off == reach;
            reach = stop;
            // Chunks are at most 1 MiB, so that both fit.
            parts.push(Part { at: (off - start) as u32, len: (stop - off) as u32, source: row.source });
            self.drop_front(stop);
        }
        Work::Chunk { n, len: (end - start) as u32, covered: covered && reach == end, parts }
    }

    /// Takes everything below `to` off the front extent.
    fn drop_front(&mut self, to: u64) {
        if let Some((off, row)) = self.queue.pop_front() {
            let end = off.saturating_add(row.len);
            if end > to {
                self.queue.push_front((to, row.without_front(to - off)));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    const CHUNK: u64 = 4096;

    fn data(payload: u64, len: u64) -> ExtentRow {
        ExtentRow { len, lsn: payload, source: ExtentSource::Payload { payload, skip: 0 } }
    }

    fn zero(len: u64) -> ExtentRow {
        ExtentRow { len, lsn: 9, source: ExtentSource::Zero }
    }

    fn run(size: u64, extents: &[(u64, ExtentRow)]) -> Vec<Work> {
        let mut planner = Planner::new(CHUNK, size);
        let mut out = Vec::new();
        for &(off, row) in extents {
            planner.push(off, row);
            out.extend(std::iter::from_fn(|| planner.next()));
        }
        planner.finish();
        out.extend(std::iter::from_fn(|| planner.next()));
        out
    }

    #[test]
    fn a_small_file_is_one_covered_chunk() {
        let work = run(10, &[(0, data(1, 10))]);
        let Work::Chunk { n: 0, len: 10, covered: true, parts } = &work[0] else { panic!("{work:?}") };
        assert_eq!(parts.len(), 1);
        assert_eq!(work.len(), 1);
    }

    #[test]
    fn an_extent_over_three_chunks() {
        let work = run(3 * CHUNK, &[(100, data(1, 2 * CHUNK))]);
        assert_eq!(work.len(), 3);
        assert!(matches!(&work[0], Work::Chunk { n: 0, covered: false, parts, .. } if parts[0].at == 100));
        assert!(matches!(&work[1], Work::Chunk { n: 1, covered: true, .. }));
        assert!(matches!(&work[2], Work::Chunk { n: 2, covered: false, parts, .. } if parts[0].len == 100));
    }

    #[test]
    fn a_terabyte_of_zeros_is_one_hole() {
        let size = 1 << 40;
        assert_eq!(run(size, &[(0, zero(size))]), vec![Work::Hole { from: 0, to: size / CHUNK }]);
        let work = run(size, &[(10, zero(size - 20))]);
        assert_eq!(work.len(), 3, "{work:?}");
        assert_eq!(work[1], Work::Hole { from: 1, to: size / CHUNK - 1 });
    }

    #[test]
    fn what_lies_beyond_the_end_only_cuts_the_last_chunk() {
        assert!(run(0, &[(0, data(1, 5))]).is_empty());
        assert!(run(CHUNK, &[(CHUNK, zero(1 << 40))]).is_empty());
        let work = run(CHUNK + 10, &[(CHUNK + 10, zero(1 << 40))]);
        assert_eq!(work, vec![Work::Chunk { n: 1, len: 10, covered: false, parts: Vec::new() }]);
        assert!(matches!(&run(3, &[(0, data(1, 5))])[..], [Work::Chunk { len: 3, covered: true, .. }]));
    }

    proptest! {
        /// A model file of bytes: the planner's work, applied to old content, gives what the extents say.
        #[test]
        fn work_covers_each_byte_once(
            size in 1u64..40_000,
            runs in prop::collection::vec((0u64..3000, 1u64..9000, any::<bool>()), 0..30),
        ) {
            let mut at = 0;
            let mut extents = Vec::new();
            let mut want = vec![0u8; size as usize];
            for (i, (gap, len, is_zero)) in runs.into_iter().enumerate() {
                at += gap;
                extents.push((at, if is_zero { zero(len) } else { data(i as u64, len) }));
                for b in at..at + len {
                    if let Some(slot) = want.get_mut(b as usize) { *slot = if is_zero { 1 } else { 2 } }
                }
                at += len;
            }
            let mut got = vec![0u8; size as usize];
            let mut last = None;
            for work in run(size, &extents) {
                match work {
                    Work::Hole { from, to } => {
                        prop_assert!(last.is_none_or(|l| from > l));
                        last = Some(to - 1);
                        for b in from * CHUNK..(to * CHUNK).min(size) {
                            prop_assert_eq!(got[b as usize], 0);
                            got[b as usize] = 1;
                        }
                    }
                    Work::Chunk { n, len, covered, parts } => {
                        if parts.is_empty() {
                            prop_assert!(at > size && n == (size - 1) / CHUNK);
                        }
                        prop_assert!(last.is_none_or(|l| n > l));
                        last = Some(n);
                        prop_assert_eq!(u64::from(len), CHUNK.min(size - n * CHUNK));
                        prop_assert_eq!(covered, parts.iter().map(|p| p.len).sum::<u32>() == len);
                        for part in parts {
                            for b in 0..u64::from(part.len) {
                                let at = (n * CHUNK + u64::from(part.at) + b) as usize;
                                prop_assert_eq!(got[at], 0);
                                got[at] = if part.source == ExtentSource::Zero { 1 } else { 2 };
                            }
                        }
                    }
                }
            }
            prop_assert_eq!(got, want);
        }
    }
}
