//! When pieces become stripes, and when stripes become copies again: pure, so that simulation and tests run the same rule.
//!
//! ```text
//! k = domains - M, at most the owner's limit       with five providers and M = 2: 3+2
//!
//! the stripe alone is enough                       ─► its pieces' copies are surplus
//! it cannot be (too few domains, too little parity)  ─► copies are wanted; once they are enough the stripe is surplus
//! nothing is left in it                            ─► it is given up
//! ```

use holdfast_net::stripe::STRIPE_DATA_MAX;

use super::ledger::{PieceId, Seconds};

/// Fewer data slots than this save nothing worth the work.
const DATA_MIN: u16 = 2;
/// Smaller pieces stay copies: a manifest and an audit for each of its slots would cost more than is saved.
pub const PIECE_BYTES_MIN: u64 = 1 << 20;

/// How many data slots stripes have with so many failure domains; `None`: none are made.
pub fn data_slots(domains: usize, survive_losses: u8, data_max: u16) -> Option<u16> {
    let most = data_max.min(STRIPE_DATA_MAX);
    let spread = domains.checked_sub(survive_losses.into())?;
    let data = u16::try_from(spread).unwrap_or(u16::MAX).min(most);
    (survive_losses > 0 && data >= DATA_MIN).then_some(data)
}

/// A piece that may go into a stripe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Which.
    pub id: PieceId,
    /// Its bytes.
    pub len: u64,
    /// Its file is on this machine.
    pub local: bool,
    /// When it was finished.
    pub created: Seconds,
}

/// The pieces of the next stripe, if one can be filled: of nearly one length, since parity is as long as the longest; those
/// that need not be fetched first, then the largest.
pub fn pick(mut candidates: Vec<Candidate>, data: u16) -> Option<Vec<Candidate>> {
    candidates.retain(|c| c.len >= PIECE_BYTES_MIN);
    candidates.sort_by_key(|c| (!c.local, std::cmp::Reverse(c.len), c.created, c.id));
    let fits = |window: &&[Candidate]| {
        let longest = window.iter().map(|c| c.len).max().unwrap_or(0);
        let sum: u64 = window.iter().map(|c| c.len).sum();
        // The longest is at most half as long again as they are on average.
        longest.saturating_mul(u64::from(data)).saturating_mul(2) <= sum.saturating_mul(3)
    };
    candidates.windows(data.into()).find(fits).map(<[Candidate]>::to_vec)
}

/// What is seen of a stripe. Losses are those of [`super::ledger::Ledger::counting`]: one more than are survived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Pieces in it that the drive still has.
    pub pieces: usize,
    /// Of these, those that have copies beside it, or want some.
    pub with_copies: usize,
    /// Fewest losses that take a piece by the stripe alone, among what counts.
    pub by_stripe: usize,
    /// The same among what is with live providers.
    pub by_stripe_live: usize,
    /// Fewest losses that take a piece by its copies alone, among what counts.
    pub by_copies: usize,
    /// Slots of the stripe.
    pub slots: usize,
    /// Parity slots among them.
    pub parity: usize,
    /// Failure domains that keep a slot of it or may be given one.
    pub domains: usize,
    /// Losses that the policy wants it to take.
    pub wanted: usize,
}

/// What is to be done about a stripe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Todo {
    /// It is as it should be, or the place worker is at it.
    Nothing,
    /// Its pieces' copies are surplus.
    DropCopies,
    /// Its pieces want copies, since it cannot be made whole.
    WantCopies,
    /// It is surplus, or empty.
    Dissolve,
}

/// The rule.
pub fn todo(seen: Seen) -> Todo {
    if seen.pieces == 0 {
        return Todo::Dissolve;
    }
    if seen.by_stripe >= seen.wanted {
        return if seen.with_copies > 0 { Todo::DropCopies } else { Todo::Nothing };
    }
    let hopeless = seen.domains < seen.slots || seen.parity.saturating_add(1) < seen.wanted;
    if hopeless && seen.by_copies >= seen.wanted {
        Todo::Dissolve
    } else if hopeless && seen.domains.min(seen.wanted) > seen.by_stripe_live {
        Todo::WantCopies
    } else {
        Todo::Nothing
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn k_follows_the_number_of_domains() {
        let k = |domains| data_slots(domains, 2, 8);
        assert_eq!(
            [k(0), k(3), k(4), k(5), k(6), k(10), k(99)],
            [None, None, Some(2), Some(3), Some(4), Some(8), Some(8)]
        );
        assert_eq!(data_slots(9, 2, 1), None, "the owner wants copies");
        assert_eq!(data_slots(9, 0, 8), None, "one copy is all that is asked for");
        assert_eq!(data_slots(99, 2, 1000), Some(STRIPE_DATA_MAX));
    }

    fn candidate(n: u8, mib: u64, local: bool) -> Candidate {
        Candidate { id: [n; 16], len: mib << 20, local, created: n.into() }
    }

    fn picked(candidates: &[Candidate], data: u16) -> Option<Vec<u8>> {
        pick(candidates.to_vec(), data).map(|all| all.iter().map(|c| c.id[0]).collect())
    }

    #[test]
    fn a_stripe_is_filled_with_pieces_of_one_length() {
        let all = [
            candidate(1, 64, true),
            candidate(2, 3, true),
            candidate(3, 60, true),
            candidate(4, 64, false),
            candidate(5, 2, true),
        ];
        assert_eq!(picked(&all, 2), Some(vec![1, 3]));
        assert_eq!(picked(&all, 3), None, "64, 60 and 3 MiB would be mostly zeros");
        assert_eq!(picked(&[candidate(1, 64, false), candidate(2, 0, true)], 2), None, "too small");
        assert_eq!(picked(&[all[0], all[3], all[2], candidate(6, 64, false)], 3), Some(vec![1, 3, 4]));
        assert_eq!(picked(&[], 2), None);
    }

    const WELL: Seen = Seen {
        pieces: 3,
        with_copies: 0,
        by_stripe: 3,
        by_stripe_live: 3,
        by_copies: 0,
        slots: 5,
        parity: 2,
        domains: 5,
        wanted: 3,
    };

    #[test]
    fn one_form_goes_only_when_the_other_is_enough() {
        assert_eq!(todo(WELL), Todo::Nothing);
        assert_eq!(todo(Seen { with_copies: 3, by_copies: 3, ..WELL }), Todo::DropCopies);
        // It is being made, or waits for a head that names it.
        let made = Seen { with_copies: 3, by_copies: 3, by_stripe: 0, by_stripe_live: 3, ..WELL };
        assert_eq!(todo(made), Todo::Nothing);
        assert_eq!(todo(Seen { pieces: 0, by_stripe: 0, ..WELL }), Todo::Dissolve);
    }

    #[test]
    fn a_stripe_that_cannot_be_whole_becomes_copies() {
        let two_lost = Seen { by_stripe: 1, by_stripe_live: 1, ..WELL };
        assert_eq!(todo(two_lost), Todo::Nothing, "others can take over");
        let three_left = Seen { domains: 3, ..two_lost };
        assert_eq!(todo(three_left), Todo::WantCopies);
        assert_eq!(todo(Seen { with_copies: 3, by_copies: 2, ..three_left }), Todo::WantCopies);
        assert_eq!(todo(Seen { with_copies: 3, by_copies: 3, ..three_left }), Todo::Dissolve);
        // With one domain a copy there is no better than what is left.
        assert_eq!(todo(Seen { domains: 1, ..two_lost }), Todo::Nothing);
        // The owner asks for more than the parity gives.
        let more = Seen { wanted: 4, ..WELL };
        assert_eq!(todo(more), Todo::WantCopies);
        assert_eq!(todo(Seen { by_copies: 4, with_copies: 3, ..more }), Todo::Dissolve);
    }
}
