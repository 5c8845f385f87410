//! Which providers grant the next term, and when others take their place. Pure.
//!
//! ```text
//! {a b c d}  ─► c failed, e is ready ─►  {a b d e}, former {a b c d}  ─► a majority of both keeps that head ─►  {a b d e}
//! {a b c d}  ─► the owner takes c out ─►  {a b d}                          at once: the owner's word is c's vote
//! ```
//!
//! Promises: no change but by a majority of the old and of the new, or by the owner; one change at a time.

use holdfast_content::head::HeadBody;
use holdfast_net::term::{ANCHORS_MAX, Anchors};

use super::ledger::Peer;

/// With M losses, M + 2 of 2M + 2 are left, which is a majority; and two majorities have two anchors in common, so that one
/// that lies is not the only one.
pub fn wanted(survive_losses: u8) -> usize {
    (2 * usize::from(survive_losses) + 2).min(ANCHORS_MAX)
}

/// Of a head that names no anchors: whoever reads it has to come to the same ones, and knows no policy.
const OF_OLD_HEADS: usize = 6;

/// Who grants the term after a head that names no anchors.
pub fn of_old_head(body: &HeadBody) -> Option<Anchors> {
    let first = body.providers.iter().take(OF_OLD_HEADS).map(|p| p.peer.to_vec());
    Anchors::new(first, []).ok()
}

/// How an anchor is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fit {
    /// It may stay.
    Well,
    /// It is to be replaced.
    Failing,
    /// The owner took it out of the drive.
    Gone,
}

/// The anchors that the next head has to name, if it is time for others. `ready`: who may become one, the best first.
/// `keeps`: who keeps a head that names `current`.
pub fn next(
    current: &Anchors,
    wanted: usize,
    fit: impl Fn(&[u8]) -> Fit,
    ready: &[Peer],
    keeps: impl Fn(&[u8]) -> bool,
) -> Option<Anchors> {
    let Some(left) = current.without(|peer| fit(peer) == Fit::Gone) else {
        // The owner took all of them out.
        return Anchors::new(ready.iter().take(wanted).cloned(), []).ok();
    };
    let changed = (left != *current).then(|| left.clone());
    if !left.former().is_empty() {
        return match left.is_majority(keeps) {
            true => Anchors::new(left.now().clone(), []).ok(),
            false => changed,
        };
    }
    let mut chosen: Vec<Peer> = left.now().iter().filter(|peer| fit(peer) == Fit::Well).cloned().collect();
    let others = ready.iter().filter(|peer| !left.now().contains(*peer));
    let open = wanted.saturating_sub(chosen.len());
    chosen.extend(others.take(open).cloned());
    let chosen = Anchors::new(chosen, left.now().clone()).ok();
    match chosen.filter(|chosen| chosen.now() != left.now()) {
        Some(chosen) => Some(chosen),
        None => changed,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn peer(n: u8) -> Peer {
        holdfast_net::identity::keypair([n; 32]).unwrap().public().to_peer_id().to_bytes()
    }

    fn peers(numbers: &[u8]) -> Vec<Peer> {
        numbers.iter().map(|n| peer(*n)).collect()
    }

    fn anchors(now: &[u8], former: &[u8]) -> Anchors {
        Anchors::new(peers(now), peers(former)).unwrap()
    }

    struct Case<'a> {
        current: Anchors,
        failing: &'a [u8],
        gone: &'a [u8],
        ready: &'a [u8],
        keeps: &'a [u8],
    }

    impl Case<'_> {
        fn next(&self) -> Option<Anchors> {
            let any = |list: &[u8], peer: &[u8]| peers(list).iter().any(|p| p == peer);
            let fit = |peer: &[u8]| match (any(self.gone, peer), any(self.failing, peer)) {
                (true, _) => Fit::Gone,
                (_, true) => Fit::Failing,
                _ => Fit::Well,
            };
            next(&self.current, wanted(1), fit, &peers(self.ready), |peer| any(self.keeps, peer))
        }
    }

    #[test]
    fn anchors_change_by_a_majority_of_both() {
        let calm = Case {
            current: anchors(&[1, 2, 3, 4], &[]),
            failing: &[],
            gone: &[],
            ready: &[1, 5],
            keeps: &[],
        };
        assert_eq!(calm.next(), None, "as many as are wanted, and all are well");
        let failing = Case { failing: &[3], ..calm };
        let changing = anchors(&[1, 2, 4, 5], &[1, 2, 3, 4]);
        assert_eq!(failing.next(), Some(changing.clone()));
        // Nothing else happens before both have it.
        let under_way =
            Case { current: changing, failing: &[1, 3], gone: &[], ready: &[6], keeps: &[1, 2, 5] };
        assert_eq!(under_way.next(), None);
        let agreed = Case { keeps: &[1, 2, 4], ..under_way };
        assert_eq!(agreed.next(), Some(anchors(&[1, 2, 4, 5], &[])));
        // Fewer are better than ones that fail; and more, when there are.
        let alone =
            Case { current: anchors(&[1, 2, 3], &[]), failing: &[3], gone: &[], ready: &[], keeps: &[] };
        assert_eq!(alone.next(), Some(anchors(&[1, 2], &[1, 2, 3])));
        let grows = Case { failing: &[], ready: &[7, 8], ..alone };
        assert_eq!(grows.next(), Some(anchors(&[1, 2, 3, 7], &[1, 2, 3])));
        let hopeless = Case { failing: &[1, 2, 3], ready: &[], ..grows };
        assert_eq!(hopeless.next(), None);
    }

    #[test]
    fn the_owner_takes_out_whom_he_likes() {
        let left =
            Case { current: anchors(&[1, 2, 3], &[]), failing: &[], gone: &[2, 3], ready: &[], keeps: &[] };
        assert_eq!(left.next(), Some(anchors(&[1], &[])));
        let replaced = Case { ready: &[4, 5, 6], ..left };
        assert_eq!(replaced.next(), Some(anchors(&[1, 4, 5, 6], &[1])));
        let under_way = Case {
            current: anchors(&[1, 4], &[1, 2, 3]),
            failing: &[],
            gone: &[2, 3],
            ready: &[],
            keeps: &[4],
        };
        assert_eq!(under_way.next(), Some(anchors(&[1, 4], &[1])));
        let all =
            Case { current: anchors(&[1, 2], &[]), failing: &[], gone: &[1, 2], ready: &[4], keeps: &[] };
        assert_eq!(all.next(), Some(anchors(&[4], &[])));
        assert_eq!(Case { ready: &[], ..all }.next(), None);
    }

    #[test]
    fn so_many_are_wanted() {
        for (losses, expected) in [(0, 2), (1, 4), (2, 6), (9, 20), (200, ANCHORS_MAX)] {
            assert_eq!(wanted(losses), expected);
        }
    }
}
