//! Reading past a slot that is out of reach: the same range of `k` other slots of its stripe gives the lost one's.
//!
//! Ranges are coded by themselves (net/PROTOCOL.md, "Stripes"), so a block costs `k` times its own bytes and no more. A code
//! does not tell which of its sources was wrong; the block's CID does: on a mismatch other sources are asked, and other
//! choices of `k` tried, until one gives the block. Whatever does not fit that choice is told to the audit worker.

use std::collections::VecDeque;
use std::time::Instant;

use bytes::Bytes;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use holdfast_content::block::{Block, BlockAt};
use holdfast_content::retrieve::{FetchError, Priority};
use holdfast_net::stripe::{self, StripeShape};
use holdfast_net::{ByteRange, DealId, NetError, mask};

use super::{HEDGE_MAX, HEDGE_MIN, NetRetriever, Sources, is_suspicious, net_priority};
use crate::drive::ledger::{Holder, PieceId, PieceRow};

/// Choices of `k` sources that are tried for one block.
const CHOICES_MAX: usize = 64;

/// A piece's place in a stripe.
#[derive(Clone)]
pub(super) struct Striped {
    pub(super) stripe: PieceId,
    pub(super) row: PieceRow,
    pub(super) slot: u16,
}

/// One source: its ranges, unmasked and extended with zeros, in the order of the wants.
struct Shard {
    slot: u16,
    /// Under which it was given.
    deal: Vec<u8>,
    ranges: Vec<Vec<u8>>,
}

/// What one source said.
struct Said {
    slot: u16,
    holder: Holder,
    ranges: Result<Vec<Vec<u8>>, NetError>,
}

impl NetRetriever {
    /// Decodes blocks of `at.slot` out of the stripe's other slots. Gives the blocks that came out, by number.
    pub(super) async fn decode(
        &self,
        sources: &Sources,
        at: Striped,
        wants: Vec<(usize, BlockAt)>,
        priority: Priority,
        until: Instant,
    ) -> (Vec<(usize, Block)>, FetchError) {
        let Some(shape) = at.row.stripe.as_ref().and_then(|stripe| stripe.shape()) else {
            return (Vec::new(), FetchError::NotFound);
        };
        let ranges: Vec<(u64, u64)> =
            wants.iter().map(|(_, want)| shape.aligned(want.offset, want.len.into())).collect();
        let mut left = others(sources, &at, ranges.iter().map(|(_, len)| *len).sum());
        let mut shards: Vec<Shard> = Vec::new();
        let mut running = FuturesUnordered::new();
        let mut blocks: Vec<(usize, Block)> = Vec::new();
        let mut worst = FetchError::Unreachable;
        let need = usize::from(shape.data());
        let mut hedge_at = Instant::now() + HEDGE_MAX;
        loop {
            // `k` at first, one more for each that failed, was late, or did not help.
            while shards.len() + running.len() < need
                && let Some((slot, holder)) = left.pop_front()
            {
                running.push(self.shard(sources, &at, &shape, slot, holder, &ranges, priority, until));
                hedge_at = Instant::now() + HEDGE_MIN.max(HEDGE_MAX / 4);
            }
            if shards.len() >= need {
                self.solve(&at, &shape, &wants, &ranges, &shards, &mut blocks);
                if blocks.len() == wants.len() {
                    break;
                }
                worst = FetchError::Corrupt;
                if let Some((slot, holder)) = left.pop_front() {
                    running.push(self.shard(sources, &at, &shape, slot, holder, &ranges, priority, until));
                }
            }
            if running.is_empty() {
                break;
            }
            let wake = if left.is_empty() { until } else { hedge_at.min(until) };
            tokio::select! {
                Some(said) = running.next() => match said.ranges {
                    Ok(ranges) => {
                        sources.peers.heard(&said.holder.provider);
                        shards.push(Shard { slot: said.slot, deal: said.holder.deal, ranges });
                    }
                    Err(error) => {
                        tracing::debug!(peer = %crate::drive::peers::peer_short(&said.holder.provider), %error, "read failed");
                        sources.peers.failed(&said.holder.provider);
                        if is_suspicious(&error) {
                            self.gave_other_bytes(at.stripe, said.slot, &said.holder.deal);
                        }
                        if let Some((slot, holder)) = left.pop_front() {
                            running.push(self.shard(sources, &at, &shape, slot, holder, &ranges, priority, until));
                        }
                    }
                },
                () = tokio::time::sleep_until(wake.into()) => {
                    if Instant::now() >= until {
                        worst = FetchError::Timeout;
                        break;
                    }
                    if let Some((slot, holder)) = left.pop_front() {
                        running.push(self.shard(sources, &at, &shape, slot, holder, &ranges, priority, until));
                    }
                    hedge_at = Instant::now() + HEDGE_MAX;
                }
            }
        }
        (blocks, worst)
    }

    /// One source's ranges.
    #[allow(clippy::too_many_arguments)]
    async fn shard(
        &self,
        sources: &Sources,
        at: &Striped,
        shape: &StripeShape,
        slot: u16,
        holder: Holder,
        ranges: &[(u64, u64)],
        priority: Priority,
        until: Instant,
    ) -> Said {
        let started = Instant::now();
        // Behind the end of its piece a shard is zeros that nobody stores.
        let asked: Vec<(usize, ByteRange)> = ranges
            .iter()
            .enumerate()
            .filter_map(|(n, (offset, len))| {
                let stored = u32::try_from(shape.stored(slot, *offset, *len)).ok()?;
                (stored > 0).then(|| (n, ByteRange::new(*offset, stored)))
            })
            .collect();
        let reading = async {
            if asked.is_empty() {
                return Ok(Vec::new());
            }
            let deal = <[u8; 32]>::try_from(holder.deal.as_slice());
            let deal = DealId(deal.map_err(|_| NetError::Invalid("deal id".into()))?);
            let session = sources.peers.session(&sources.ledger, &holder.provider).await?;
            let left = until.saturating_duration_since(Instant::now());
            let list: Vec<ByteRange> = asked.iter().map(|(_, range)| *range).collect();
            session.read(deal, &list, net_priority(priority), left).await
        };
        let bytes = asked.iter().map(|(_, range)| u64::from(range.len)).sum();
        let asking = sources.peers.asking(&holder.provider, bytes);
        let parts = match tokio::time::timeout_at(until.into(), reading).await {
            Ok(result) => result,
            Err(_) => Err(NetError::Timeout(until.saturating_duration_since(started))),
        };
        if parts.is_ok() {
            asking.answered();
        }
        let seed = self.seeds.of(at.stripe, slot);
        let seed = seed.ok_or_else(|| NetError::Invalid("a slot whose seed is not known".into()));
        let ranges = parts.and_then(|parts| fill(&seed?, &asked, ranges, parts));
        Said { slot, holder, ranges }
    }

    /// Tries choices of `k` shards until each block that is missing came out, and reports whoever does not fit.
    fn solve(
        &self,
        at: &Striped,
        shape: &StripeShape,
        wants: &[(usize, BlockAt)],
        ranges: &[(u64, u64)],
        shards: &[Shard],
        blocks: &mut Vec<(usize, Block)>,
    ) {
        for (place, ((n, want), (from, _))) in wants.iter().zip(ranges).enumerate() {
            if blocks.iter().any(|(done, _)| done == n) {
                continue;
            }
            let have: Vec<(u16, &[u8])> = shards
                .iter()
                .filter_map(|shard| Some((shard.slot, shard.ranges.get(place)?.as_slice())))
                .collect();
            let Some((block, wrong)) = solve_one(shape, at.slot, want, *from, &have) else { continue };
            blocks.push((*n, block));
            for slot in wrong {
                let mut givers = shards.iter().filter(|shard| shard.slot == slot);
                match (givers.next(), givers.next()) {
                    (Some(giver), None) => self.gave_other_bytes(at.stripe, slot, &giver.deal),
                    // Which of two it was is not known.
                    _ => drop(self.suspicions.lock().insert((at.stripe, slot))),
                }
            }
        }
    }
}

/// Holders of the stripe's other slots: those that answer first, then data before parity, then the quickest; those that failed last.
fn others(sources: &Sources, at: &Striped, bytes: u64) -> VecDeque<(u16, Holder)> {
    let mut all: Vec<(u16, Holder)> = at
        .row
        .holders()
        .filter(|(slot, _)| *slot != at.slot)
        .map(|(slot, h)| (slot, h.clone()))
        .chain(sources.ledger.hearsay(&at.stripe).into_iter().filter(|(slot, _)| *slot != at.slot))
        .collect();
    all.sort_by_cached_key(|(slot, h)| {
        let lost = h.failed.is_some();
        let answers = sources.ledger.provider(&h.provider).is_some_and(|p| p.answers());
        let (failed, expected) = sources.peers.rank(&h.provider, bytes);
        let data = at.row.stripe.as_ref().is_some_and(|stripe| *slot < stripe.data());
        (lost, !answers, failed, !data, expected)
    });
    all.into()
}

/// Unmasks what came, and puts it where it belongs among zeros.
fn fill(
    seed: &mask::SlotSeed,
    asked: &[(usize, ByteRange)],
    ranges: &[(u64, u64)],
    parts: Vec<Bytes>,
) -> Result<Vec<Vec<u8>>, NetError> {
    let other = || NetError::Protocol("it answered a read with another number of bytes".into());
    if parts.len() != asked.len() {
        return Err(other());
    }
    let whole = |(_, len): &(u64, u64)| usize::try_from(*len).map(|len| vec![0; len]).map_err(|_| other());
    let mut out: Vec<Vec<u8>> = ranges.iter().map(whole).collect::<Result<_, _>>()?;
    for ((n, range), part) in asked.iter().zip(parts) {
        let place =
            out.get_mut(*n).and_then(|buffer| buffer.get_mut(..range.len as usize)).ok_or_else(other)?;
        if part.len() != place.len() {
            return Err(other());
        }
        place.copy_from_slice(&part);
        mask::apply(seed, range.offset, place).map_err(|_| other())?;
    }
    Ok(out)
}

/// The block out of some `k` of these shards, and the slots of those that are wrong.
fn solve_one(
    shape: &StripeShape,
    slot: u16,
    want: &BlockAt,
    from: u64,
    have: &[(u16, &[u8])],
) -> Option<(Block, Vec<u16>)> {
    let need = usize::from(shape.data());
    let skip = usize::try_from(want.offset.checked_sub(from)?).ok()?;
    let len = usize::try_from(want.len).ok()?;
    for choice in choices(have.len(), need).take(CHOICES_MAX) {
        let chosen: Vec<(u16, &[u8])> = choice.iter().filter_map(|n| have.get(*n).copied()).collect();
        let Ok(rebuilt) = stripe::rebuild(shape.data(), shape.parity(), &chosen, &[slot]) else { continue };
        let bytes = rebuilt.first()?.get(skip..skip.checked_add(len)?)?;
        let Ok(block) = Block::verify(want.cid, Bytes::copy_from_slice(bytes)) else { continue };
        let rest: Vec<(u16, &[u8])> =
            have.iter().filter(|(slot, _)| !chosen.iter().any(|(c, _)| c == slot)).copied().collect();
        let slots: Vec<u16> = rest.iter().map(|(slot, _)| *slot).collect();
        let right = stripe::rebuild(shape.data(), shape.parity(), &chosen, &slots).unwrap_or_default();
        let wrong = rest.iter().zip(right).filter(|((_, is), should)| *is != should.as_slice());
        return Some((block, wrong.map(|((slot, _), _)| *slot).collect()));
    }
    None
}

/// Every choice of `k` of `n`, in order; none where `k > n`.
fn choices(n: usize, k: usize) -> impl Iterator<Item = Vec<usize>> {
    let first = (k <= n).then(|| (0..k).collect::<Vec<usize>>());
    std::iter::successors(first, move |last| {
        let mut next = last.clone();
        // The last place that can still move.
        let at = (0..k).rev().find(|at| last.get(*at).is_some_and(|value| *value < n - k + at))?;
        let base = *last.get(at)?;
        for (more, value) in next.iter_mut().skip(at).enumerate() {
            *value = base + 1 + more;
        }
        Some(next)
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::drive::slots;
    use holdfast_content::block::{CODEC_RAW, cid_of};

    #[test]
    fn every_choice_comes_once() {
        let all: Vec<Vec<usize>> = choices(4, 2).collect();
        assert_eq!(all, [[0, 1], [0, 2], [0, 3], [1, 2], [1, 3], [2, 3]].map(|c| c.to_vec()));
        assert_eq!(choices(3, 3).count(), 1);
        assert_eq!(choices(2, 3).count(), 0);
        assert_eq!(choices(7, 4).count(), 35);
    }

    #[test]
    fn a_wrong_shard_costs_a_choice_and_is_named() {
        let shape = StripeShape::new(vec![1000, 990, 1000], 2).unwrap();
        let mut shards: Vec<Vec<u8>> = (0..3u8)
            .map(|n| (0..1024u32).map(|i| if i < 990 { (i as u8) ^ n } else { 0 }).collect())
            .collect();
        shards.extend(stripe::encode(&shards, 2).unwrap());
        let plain = shards[0][70..300].to_vec();
        let want = BlockAt { cid: cid_of(CODEC_RAW, &plain), piece: [1; 16], offset: 70, len: 230 };
        let (from, len) = shape.aligned(want.offset, want.len.into());
        assert_eq!((from, len), (64, 256));
        let cut = |n: usize| shards[n][64..320].to_vec();
        let mut wrong = cut(2);
        wrong[100] ^= 1;
        let (one, three, four) = (cut(1), cut(3), cut(4));
        let few = [(1, &one[..]), (2, &wrong[..]), (3, &three[..])];
        assert!(solve_one(&shape, 0, &want, from, &few).is_none(), "nobody can tell which is wrong");
        let all = [few[0], few[1], few[2], (4, &four[..])];
        let (block, named) = solve_one(&shape, 0, &want, from, &all).unwrap();
        assert_eq!((block.bytes().as_ref(), named), (&plain[..], vec![2]));
    }

    #[test]
    fn what_nobody_stores_is_zeros() {
        let seed = slots::seed(&[1; 32], [2; 16], 1);
        let mut stored = vec![7u8; 36];
        mask::apply(&seed, 64, &mut stored).unwrap();
        let asked = [(1, ByteRange::new(64, 36))];
        let out = fill(&seed, &asked, &[(128, 64), (64, 64)], vec![Bytes::from(stored.clone())]).unwrap();
        assert_eq!(out[0], [0; 64]);
        assert_eq!((&out[1][..36], &out[1][36..]), (&[7u8; 36][..], &[0u8; 28][..]));
        assert!(fill(&seed, &asked, &[(128, 64), (64, 64)], vec![Bytes::from(vec![0; 35])]).is_err());
        assert!(fill(&seed, &asked, &[(128, 64), (64, 64)], vec![]).is_err());
    }
}
