//! Reads of any length out of requests of bounded ones.

use std::future::Future;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::StreamExt;
use futures::stream::FuturesOrdered;

use super::session::{Priority, Session};
use crate::deal::{ByteRange, DealId};
use crate::error::NetError;

/// Bytes that a fetch asks for ahead of its sink.
pub const FETCH_WINDOW_BYTES: u64 = 8 << 20;
/// One request of a fetch: some are under way at once, so that the stream never runs dry.
const FETCH_REQUEST_BYTES: u32 = 2 << 20;

/// Cuts ranges into batches within a provider's limits; a range longer than a batch is cut itself.
pub(super) fn batches(ranges: &[ByteRange], ranges_max: usize, bytes_max: usize) -> Vec<Vec<ByteRange>> {
    let mut out: Vec<Vec<ByteRange>> = Vec::new();
    let mut room = 0usize;
    for range in ranges {
        let mut rest = *range;
        while rest.len > 0 {
            let full = out.last().is_none_or(|batch| room == 0 || batch.len() >= ranges_max);
            if full {
                out.push(Vec::new());
                room = bytes_max;
            }
            let len = rest.len.min(u32::try_from(room).unwrap_or(u32::MAX));
            if let Some(batch) = out.last_mut() {
                batch.push(ByteRange::new(rest.offset, len));
            }
            room -= len as usize;
            rest = ByteRange::new(rest.offset.saturating_add(u64::from(len)), rest.len - len);
        }
    }
    out
}

/// Puts the parts of [`batches`] together again: one buffer for each range.
pub(super) fn rejoin(ranges: &[ByteRange], parts: Vec<Bytes>) -> Vec<Bytes> {
    let mut parts = parts.into_iter();
    let whole = |range: &ByteRange| {
        let want = range.len as usize;
        let first = parts.next().unwrap_or_default();
        if first.len() >= want {
            return first;
        }
        let mut buffer = BytesMut::with_capacity(want);
        buffer.extend_from_slice(&first);
        while buffer.len() < want {
            match parts.next() {
                Some(part) => buffer.extend_from_slice(&part),
                None => break,
            }
        }
        buffer.freeze()
    };
    ranges.iter().map(whole).collect()
}

impl Session {
    /// Reads `len` bytes from `offset` and gives them to `sink` in order, some MiB at a time; for whole slots.
    /// `stall` bounds each request, not the whole. The sink's error ends it.
    pub async fn fetch<F, Fut>(
        &self,
        deal: DealId,
        offset: u64,
        len: u64,
        stall: Duration,
        mut sink: F,
    ) -> Result<(), NetError>
    where
        F: FnMut(u64, Bytes) -> Fut,
        Fut: Future<Output = Result<(), NetError>>,
    {
        let end = offset.checked_add(len).ok_or_else(|| NetError::Invalid("a range without end".into()))?;
        let mut asked = offset;
        let mut under_way = FuturesOrdered::new();
        loop {
            while asked < end && under_way.len() as u64 * u64::from(FETCH_REQUEST_BYTES) < FETCH_WINDOW_BYTES
            {
                let part = u32::try_from(end - asked).unwrap_or(u32::MAX).min(FETCH_REQUEST_BYTES);
                let range = ByteRange::new(asked, part);
                under_way.push_back(async move {
                    (range.offset, self.read(deal, &[range], Priority::Bulk, stall).await)
                });
                asked += u64::from(part);
            }
            let Some((at, result)) = under_way.next().await else { return Ok(()) };
            for bytes in result? {
                sink(at, bytes).await?;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn batches_keep_limits_and_rejoin(
            ranges in proptest::collection::vec((0u64..1000, 1u32..300), 0..20),
            ranges_max in 1usize..5, bytes_max in 1usize..200,
        ) {
            let ranges: Vec<ByteRange> = ranges.into_iter().map(|(o, l)| ByteRange::new(o, l)).collect();
            let slot: Vec<u8> = (0..2000u32).map(|i| (i * 7 % 251) as u8).collect();
            let batches = batches(&ranges, ranges_max, bytes_max);
            let mut parts = Vec::new();
            for batch in &batches {
                prop_assert!(!batch.is_empty() && batch.len() <= ranges_max);
                prop_assert!(batch.iter().map(|r| r.len as usize).sum::<usize>() <= bytes_max);
                for r in batch {
                    let from = r.offset as usize;
                    parts.push(Bytes::copy_from_slice(&slot[from..from + r.len as usize]));
                }
            }
            let whole = rejoin(&ranges, parts);
            prop_assert_eq!(whole.len(), ranges.len());
            for (range, bytes) in ranges.iter().zip(whole) {
                let from = range.offset as usize;
                prop_assert_eq!(bytes.as_ref(), &slot[from..from + range.len as usize]);
            }
        }
    }
}
