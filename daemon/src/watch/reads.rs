//! A watcher's reads: some of its challenges read first what they are about to ask, as the owner's do (`crate::reading`).
//!
//! Under a permit that is to read and audit alike, a provider that proves a slot and does not give it has no excuse. What was counted
//! is kept for as long as the watcher runs; a single look (`--once`) finds nothing of it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use holdfast_proofs::ReadPlan;

use super::log::SlotName;
use super::picture::{Deal, Picture};
use super::state::State;
use super::watcher::{CHALLENGED, Watcher};
use crate::drive::ledger::Peer;
use crate::drive::peers::peer_short;
use crate::reading::{Judged, Look, Readings, Times};

/// One of so many challenges of a slot reads some of it first.
const READ_ONE_IN: u64 = 8;
/// Reads in a second, on average; with more slots each is read less often.
const READS_PER_SECOND_MAX: u64 = 1;
/// Slots that are drawn in one look.
const DRAWN_MAX: usize = 64;
/// Why a slot is lost that is there, as a person reads it.
const GIVES_NOTHING: &str = "it proves the slot, and gives other bytes, or none, to who reads it";

/// How each of `slots` slots is read.
fn plan(slots: u64) -> ReadPlan {
    let often = CHALLENGED.as_secs() * READ_ONE_IN;
    ReadPlan { mean_seconds: often.max(slots / READS_PER_SECOND_MAX) }
}

impl Watcher {
    /// Draws which slots are read at this look.
    pub(super) fn draw_reads(&mut self, deals: &[Deal]) {
        let slots = deals.len() as u64;
        let mean = Duration::from_secs(plan(slots).mean_seconds);
        let rng = self.reach.env.rng.clone();
        let count = self.times.due(rng.as_ref(), Instant::now(), mean, slots, DRAWN_MAX);
        let chosen = Times::which(rng.as_ref(), count, slots);
        let drawn = chosen.into_iter().filter_map(|n| deals.get(usize::try_from(n).ok()?));
        self.to_read.extend(drawn);
        self.readings.keep(|deal| deals.iter().any(|known| known == deal));
    }

    /// Puts down what a read showed that came before a passed challenge.
    pub(super) fn looked(&mut self, peer: &Peer, deal: Deal, look: Look) {
        self.readings.looked(&deal, look, Instant::now());
        if look != Look::Right {
            tracing::info!(peer = %peer_short(peer), ?look, "a slot was proven and not given");
        }
        if look == Look::Other && !self.readings.is_given_up(&deal, Instant::now()) {
            self.to_read.insert(deal);
        }
    }
}

/// Slots that are proven and not given, while others of their piece are; of what is not known yet more is read.
pub(super) fn not_given(
    picture: &Picture<'_>,
    state: &State,
    proven: &BTreeMap<Deal, Instant>,
    readings: &Readings,
    to_read: &mut BTreeSet<Deal>,
) -> Vec<(Peer, Deal, &'static str)> {
    let mut lost = Vec::new();
    let is_sound = |deal: &Deal| proven.contains_key(deal) && state.faults.iter().all(|f| f.deal != *deal);
    for (slot, keeper) in picture.all() {
        if !is_sound(&keeper.deal) || !readings.is_given_up(&keeper.deal, Instant::now()) {
            continue;
        }
        let Some(piece) = picture.piece(&slot.piece) else { continue };
        let names = (0..u16::try_from(piece.slots.len()).unwrap_or(u16::MAX)).filter(|n| *n != slot.slot);
        let others: Vec<Vec<u8>> = names
            .flat_map(|n| picture.keepers(&SlotName { piece: slot.piece, slot: n }))
            .filter(|other| is_sound(&other.deal))
            .map(|other| other.deal.to_vec())
            .collect();
        match readings.judge(&keeper.deal, &others, piece.shards.len(), Instant::now()) {
            Judged::Nothing => {}
            Judged::Fault => lost.push((keeper.peer.clone(), keeper.deal, GIVES_NOTHING)),
            Judged::Unsure { others, first } => {
                to_read.extend(others.iter().filter_map(|deal| Deal::try_from(deal.as_slice()).ok()));
                if first {
                    to_read.insert(keeper.deal);
                }
            }
        }
    }
    lost
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::picture::tests::bundle;
    use super::*;

    #[test]
    fn what_is_proven_and_given_to_nobody_is_lost_while_its_fellows_are_given() {
        let bundle = bundle();
        let picture = Picture::new(&bundle, [], []);
        let (readings, mut to_read, now) = (Readings::default(), BTreeSet::new(), Instant::now());
        let proven: BTreeMap<Deal, Instant> = (0..3).map(|n| ([n; 32], now)).collect();
        let mut state = State::default();
        let lost = |state: &State, to_read: &mut BTreeSet<Deal>| {
            let lost = not_given(&picture, state, &proven, &readings, to_read);
            lost.into_iter().map(|(_, deal, _)| deal).collect::<Vec<_>>()
        };
        for _ in 0..2 {
            readings.looked(&[1; 32], Look::Other, now);
            assert_eq!(lost(&state, &mut to_read), Vec::<Deal>::new());
        }
        assert!(to_read.is_empty());
        readings.looked(&[1; 32], Look::Other, now);
        assert_eq!(lost(&state, &mut to_read), Vec::<Deal>::new(), "it may be this machine's line");
        assert_eq!(to_read, (0..3).map(|n| [n; 32]).collect(), "all three are read");
        readings.looked(&[2; 32], Look::Right, Instant::now());
        assert_eq!(lost(&state, &mut to_read), [[1; 32]]);
        // Once that is known there is nothing more to say of it.
        let peer = serde_bytes::ByteBuf::from(vec![2; 38]);
        state.faults.push(super::super::state::Fault { deal: [1; 32], peer, why: GIVES_NOTHING.to_owned() });
        assert_eq!(lost(&state, &mut to_read), Vec::<Deal>::new());
    }

    #[test]
    fn a_few_slots_are_read_within_hours_and_many_one_a_second() {
        assert!(plan(10).read_within(1, 0.99).is_some_and(|seconds| seconds < 7 * 3600));
        assert_eq!(plan(100_000).mean_seconds, 100_000);
    }
}
