//! How many losses data survives: the one count behind the ladder, eviction, repair and release.
//!
//! ```text
//!   piece P   copies at R            lost when every domain of R and of P's data slot is gone,
//!   stripe S  slots, P's among them  and so many others that fewer than k slots are left
//! ```
//!
//! A loss takes a whole failure domain. The count is the fewest losses after which the bytes cannot be read: 0 for what
//! nobody has, one more than the losses survived otherwise. The domains that must go come first; of the others those with the
//! most slots go first, which no other order beats. Domains are told among the holders of one piece, so that a provider
//! which keeps nothing of it merges nobody.

use std::collections::{BTreeMap, BTreeSet};

use super::{Holder, Ledger, Peer, PieceId, PieceRow, ProviderRow, Seconds, State};
use crate::drive::domains::{self, Tags};

/// Which of the two forms of a piece is asked about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// Whatever there is.
    Any,
    /// Its copies alone.
    Copies,
    /// Its stripe alone.
    Stripe,
}

/// Where bytes are, as domains.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Spread {
    /// Domains that have the whole: copies, and the data slot.
    whole: BTreeSet<usize>,
    /// Slots by domain, those of `whole` not among them.
    slots: BTreeMap<usize, usize>,
    /// Slots that are enough; 0: there is no stripe.
    need: usize,
}

impl Spread {
    /// Fewest domains whose loss takes the bytes.
    fn losses(&self) -> usize {
        let mut by_size: Vec<usize> = self.slots.values().copied().collect();
        by_size.sort_unstable_by(|a, b| b.cmp(a));
        let mut left: usize = by_size.iter().sum();
        let mut losses = self.whole.len();
        for slots in by_size {
            if self.need == 0 || left < self.need {
                break;
            }
            left -= slots;
            losses += 1;
        }
        losses
    }
}

impl State {
    fn provider_answers(&self, peer: &Peer) -> bool {
        self.providers.get(peer).is_some_and(ProviderRow::answers)
    }

    fn counts(&self, h: &Holder) -> bool {
        h.failed.is_none()
            && h.proven_at > 0
            && h.entry < self.log_published
            && self.provider_answers(&h.provider)
    }

    fn lives(&self, h: &Holder) -> bool {
        h.failed.is_none() && self.provider_answers(&h.provider)
    }

    /// The stripe that a piece is in, and its slot there.
    fn stripe_of(&self, id: &PieceId) -> Option<(PieceId, &PieceRow, u16)> {
        let (stripe, slot) = self.striped.get(id)?;
        Some((*stripe, self.pieces.get(stripe)?, *slot))
    }

    /// The fewest losses that take the piece, or the stripe, of this id; `counts` says which holders are looked at.
    fn losses(&self, id: &PieceId, form: Form, counts: &dyn Fn(&Holder) -> bool) -> usize {
        let held = |row: &'_ PieceRow| -> Vec<(u16, Peer)> {
            let counting = row.holders().filter(|(_, h)| counts(h));
            counting.map(|(slot, h)| (slot, h.provider.clone())).collect()
        };
        let Some(row) = self.pieces.get(id) else { return 0 };
        let mut copies = Vec::new();
        let mut slots = Vec::new();
        let (mut own, mut need) = (None, 0);
        if let Some(stripe) = &row.stripe {
            slots = held(row);
            need = usize::from(stripe.data());
        } else {
            if form != Form::Stripe {
                copies = held(row);
            }
            if form != Form::Copies
                && let Some((_, row, slot)) = self.stripe_of(id)
            {
                slots = held(row);
                need = row.stripe.as_ref().map_or(0, |stripe| stripe.data().into());
                own = Some(slot);
            }
        }
        let peers: Vec<&Peer> = copies.iter().chain(&slots).map(|(_, peer)| peer).collect();
        let domains = self.domains(&peers);
        let (of_copies, of_slots) = domains.split_at(copies.len().min(domains.len()));
        let mut spread = Spread { whole: of_copies.iter().copied().collect(), need, ..Spread::default() };
        for ((slot, _), domain) in slots.iter().zip(of_slots) {
            if own == Some(*slot) {
                spread.whole.insert(*domain);
            }
        }
        for domain in of_slots.iter().filter(|domain| !spread.whole.contains(domain)) {
            *spread.slots.entry(*domain).or_default() += 1;
        }
        spread.losses()
    }

    /// The failure domain of each of these providers; one that stands there twice is one.
    pub(super) fn domains(&self, peers: &[&Peer]) -> Vec<usize> {
        static NONE: Tags = Tags { operator: None, network: None, place: None };
        let tags = |peer: &&Peer| match self.providers.get(*peer) {
            Some(row) => [&row.declared, &row.tagged],
            None => [&NONE, &NONE],
        };
        let grouped = domains::group(&peers.iter().map(tags).collect::<Vec<_>>());
        let first: BTreeMap<&Peer, usize> =
            peers.iter().zip(&grouped).rev().map(|(peer, domain)| (*peer, *domain)).collect();
        peers.iter().map(|peer| first.get(*peer).copied().unwrap_or(0)).collect()
    }
}

impl Ledger {
    /// The losses that take `id`, by what counts: confirmed, named by the published head, with a provider that answers; and
    /// the oldest of their last proofs, if every holder that the head names is among them.
    pub fn counting(&self, id: &PieceId) -> (usize, Option<Seconds>) {
        let state = self.state.read();
        let losses = state.losses(id, Form::Any, &|h| state.counts(h));
        let rows = [state.pieces.get(id), state.stripe_of(id).map(|(_, row, _)| row)];
        let named = rows.iter().flatten().flat_map(|row| row.holders()).map(|(_, h)| h);
        let mut oldest: Option<Seconds> = None;
        for holder in named.filter(|h| h.failed.is_none() && h.entry < state.log_published) {
            if !state.counts(holder) {
                return (losses, None);
            }
            oldest = Some(oldest.map_or(holder.proven_at, |at| at.min(holder.proven_at)));
        }
        (losses, oldest.filter(|_| losses > 0))
    }

    /// The same of one form alone.
    pub fn counting_as(&self, id: &PieceId, form: Form) -> usize {
        let state = self.state.read();
        state.losses(id, form, &|h| state.counts(h))
    }

    /// The losses that take `id`, by what lies with live providers, whether the head names it yet or not.
    pub fn live_copies(&self, id: &PieceId) -> usize {
        let state = self.state.read();
        state.losses(id, Form::Any, &|h| state.lives(h))
    }

    /// Whether a stripe holds the piece, or is to.
    pub fn is_striped(&self, id: &PieceId) -> bool {
        self.state.read().striped.contains_key(id)
    }

    /// The stripe that keeps a piece, and the piece's slot in it.
    pub fn stripe_of(&self, id: &PieceId) -> Option<(PieceId, PieceRow, u16)> {
        let state = self.state.read();
        state.stripe_of(id).map(|(stripe, row, slot)| (stripe, row.clone(), slot))
    }

    /// Slots that somebody keeps and did not lose, of all pieces and stripes.
    pub fn copies(&self) -> u64 {
        let state = self.state.read();
        let kept = |row: &PieceRow| row.holders().filter(|(_, h)| h.failed.is_none()).count() as u64;
        state.pieces.values().map(kept).sum()
    }

    /// Whether the provider keeps a slot of anything that can be asked for.
    pub fn keeps_something(&self, peer: &Peer) -> bool {
        let state = self.state.read();
        let asked = |h: &Holder| h.failed.is_none() && &h.provider == peer;
        state.pieces.values().any(|row| row.holders().any(|(_, h)| asked(h)))
    }

    /// The failure domain of each of these providers.
    pub fn domains(&self, peers: &[&Peer]) -> Vec<usize> {
        self.state.read().domains(peers)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spread(whole: &[usize], slots: &[(usize, usize)], need: usize) -> usize {
        let (whole, slots) = (whole.iter().copied().collect(), slots.iter().copied().collect());
        Spread { whole, slots, need }.losses()
    }

    #[test]
    fn copies_stripes_and_mixtures_survive_what_they_can() {
        assert_eq!(spread(&[], &[], 0), 0, "nobody has it");
        assert_eq!(spread(&[1, 2, 3], &[], 0), 3, "three copies");
        // 3+2, whole: the data slot and two of the four others must go.
        assert_eq!(spread(&[0], &[(1, 1), (2, 1), (3, 1), (4, 1)], 3), 3);
        assert_eq!(spread(&[], &[(1, 1), (2, 1), (3, 1), (4, 1)], 3), 2, "its data slot is lost");
        assert_eq!(spread(&[], &[(1, 1), (2, 1), (3, 1)], 3), 1);
        assert_eq!(spread(&[], &[(1, 1), (2, 1)], 3), 0);
        assert_eq!(spread(&[0], &[(1, 1), (2, 1)], 3), 1, "the data slot alone");
        // Two copies beside the stripe, one of them where a slot is.
        assert_eq!(spread(&[0, 1, 9], &[(2, 1), (3, 1), (4, 1)], 3), 4);
        // Slots of one domain go together.
        assert_eq!(spread(&[0], &[(1, 2), (2, 1), (3, 1)], 3), 2);
    }
}
