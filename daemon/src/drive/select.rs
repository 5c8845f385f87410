//! Which provider gets a slot: pure, so that simulation and tests run the same rule as the daemon.

use super::ledger::{Peer, PieceRow, ProviderRow, ProviderState, Seconds};

/// What the rule looks at, for one provider.
#[derive(Clone, Debug)]
pub struct Candidate {
    /// The provider.
    pub peer: Peer,
    /// Its row.
    pub row: ProviderRow,
    /// Bytes of this drive that it already keeps.
    pub kept_bytes: u64,
    /// Slots on their way to it now.
    pub in_flight: usize,
    /// It is one failure domain with a provider of another slot.
    pub together: bool,
}

/// The best provider for slot `slot` of `piece`, or `None` when nobody is fit.
///
/// Never one that keeps, or is being asked for, another slot of the piece, or fails together with one that does; never one
/// that is silent, or lost this slot; one that was caught only after its time. Who keeps the slot, and whose deal is about to end, comes first:
/// it has the bytes. Among the rest the one with the least to do, then the one that keeps the least, so
/// that a drive spreads by itself; the peer id breaks ties, so that the rule is a function.
pub fn choose(candidates: &[Candidate], piece: &PieceRow, slot: u16, now: Seconds) -> Option<Peer> {
    let taken = |peer: &Peer| {
        piece.slots.iter().zip(0u16..).any(|(s, n)| {
            let keeps =
                s.holder.as_ref().is_some_and(|h| &h.provider == peer && (h.failed.is_none() != (n == slot)));
            let asked = n != slot && s.intent.as_ref().is_some_and(|i| &i.provider == peer);
            keeps || asked
        })
    };
    let renews = |peer: &Peer| {
        let holder = piece.slots.get(usize::from(slot)).and_then(|s| s.holder.as_ref());
        holder.is_some_and(|h| &h.provider == peer && h.failed.is_none())
    };
    candidates
        .iter()
        .filter(|c| matches!(c.row.state, ProviderState::Active) && !c.row.is_barred(now))
        .filter(|c| !c.together && !taken(&c.peer))
        .min_by_key(|c| (!renews(&c.peer), c.in_flight, c.kept_bytes, c.peer.clone()))
        .map(|c| c.peer.clone())
}

#[cfg(test)]
mod tests {
    use super::super::ledger::{Holder, Intent};
    use super::*;

    fn candidate(name: &str, kept_bytes: u64) -> Candidate {
        Candidate { peer: name.into(), row: ProviderRow::new(0), kept_bytes, in_flight: 0, together: false }
    }

    fn kept_by(name: &str) -> Option<Holder> {
        let provider = name.into();
        Some(Holder {
            provider,
            deal: vec![],
            entry: 0,
            confirmed_at: 1,
            proven_at: 1,
            ends_at: 9,
            failed: None,
        })
    }

    #[test]
    fn the_emptiest_provider_without_a_slot_of_the_piece() {
        let all = [candidate("a", 1), candidate("b", 2), candidate("c", 3), candidate("d", 4)];
        let mut piece = PieceRow::new(10, 3);
        assert_eq!(choose(&all, &piece, 0, 0), Some(b"a".to_vec()));
        piece.slots[0].holder = kept_by("a");
        piece.slots[1].intent = Some(Intent { provider: b"b".to_vec(), proposal: vec![], since: 0 });
        assert_eq!(choose(&all, &piece, 2, 0), Some(b"c".to_vec()));
        assert_eq!(choose(&all[..2], &piece, 2, 0), None);
    }

    #[test]
    fn a_slot_never_returns_to_the_provider_that_lost_it_while_others_remain_or_not() {
        let mut piece = PieceRow::new(10, 1);
        piece.slots[0].holder = kept_by("a").map(|h| Holder { failed: Some("wrong bytes".into()), ..h });
        assert_eq!(choose(&[candidate("a", 0)], &piece, 0, 0), None);
        assert_eq!(choose(&[candidate("a", 0), candidate("b", 9)], &piece, 0, 0), Some(b"b".to_vec()));
    }

    #[test]
    fn a_deal_that_ends_is_renewed_with_who_has_the_bytes() {
        let mut piece = PieceRow::new(10, 3);
        for (slot, name) in piece.slots.iter_mut().zip(["a", "b", "c"]) {
            slot.holder = kept_by(name);
        }
        let all = [candidate("a", 9), candidate("b", 9), candidate("c", 9)];
        assert_eq!(choose(&all, &piece, 1, 0), Some(b"b".to_vec()), "there is nobody else");
        let more = [&all[..], &[candidate("d", 0)]].concat();
        assert_eq!(choose(&more, &piece, 1, 0), Some(b"b".to_vec()), "nobody else has the bytes");
        piece.slots[1].holder = kept_by("b").map(|h| Holder { failed: Some("gone".into()), ..h });
        assert_eq!(choose(&more, &piece, 1, 0), Some(b"d".to_vec()));
        assert_eq!(choose(&all, &piece, 1, 0), None);
    }

    #[test]
    fn silent_and_caught_providers_are_passed_over() {
        let mut silent = candidate("a", 0);
        silent.row.state = ProviderState::Suspect { since: 1 };
        let mut caught = candidate("b", 0);
        caught.row.barred_until = 100;
        let piece = PieceRow::new(10, 3);
        let same_house = Candidate { together: true, ..candidate("c", 0) };
        assert_eq!(choose(&[same_house], &piece, 0, 50), None);
        assert_eq!(choose(&[silent.clone(), caught.clone()], &piece, 0, 50), None);
        assert_eq!(choose(&[silent, caught.clone()], &piece, 0, 100), Some(b"b".to_vec()));
        // Caught under a clock that was years ahead, and was set right since.
        caught.row.fault_at = Some(1_000_000);
        caught.row.barred_until = 1_086_400;
        assert_eq!(choose(&[caught], &piece, 0, 100), Some(b"b".to_vec()));
    }
}
