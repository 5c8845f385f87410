//! Deals and their pieces: which wait for a sector, and how long each is wanted.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use holdfast_proofs::PieceCid;
use holdfast_proofs::sealing::{DEALS_MAX, Order, PieceCounts, StoredPiece};

use crate::packing::{Layout, PieceRoot};
use crate::profile::Profile;

/// Where a piece stands.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Place {
    /// Since so many unix seconds.
    Waiting(u64),
    In(u64),
    TooLarge,
    /// Its slot is not what it should be; audits will say so too.
    Bad,
}

#[derive(Debug, Clone)]
struct Piece {
    /// Deal and its end in unix seconds.
    deals: BTreeMap<String, u64>,
    slot: PathBuf,
    place: Place,
}

/// All pieces that deals are about.
#[derive(Debug, Default)]
pub(super) struct Pieces {
    pieces: BTreeMap<PieceCid, Piece>,
    deals: BTreeMap<String, PieceCid>,
    /// Told since the list began; none outside a list.
    listing: Option<BTreeSet<String>>,
    /// Whether a whole list was told since the start: before that, nothing is known to have ended.
    listed: bool,
}

impl Pieces {
    pub(super) fn begin_list(&mut self) {
        self.listing = Some(BTreeSet::new());
    }

    /// Ends the list: what was not told has ended.
    pub(super) fn end_list(&mut self) {
        let Some(told) = self.listing.take() else { return };
        self.listed = true;
        let gone: Vec<String> = self.deals.keys().filter(|deal| !told.contains(*deal)).cloned().collect();
        for deal in gone {
            self.ended(&deal);
        }
    }

    pub(super) fn is_listed(&self) -> bool {
        self.listed
    }

    pub(super) fn is_full(&self) -> bool {
        self.deals.len() >= DEALS_MAX
    }

    /// Takes a deal; `sector` is where its piece is already. False where there is no more room.
    pub(super) fn stored(
        &mut self,
        stored: StoredPiece,
        sector: Option<u64>,
        profile: Profile,
        now: u64,
    ) -> bool {
        if let Some(told) = &mut self.listing {
            told.insert(stored.deal.clone());
        }
        if self.is_full() && !self.deals.contains_key(&stored.deal) {
            return false;
        }
        let StoredPiece { deal, piece: cid, slot, until } = stored;
        let fits = Layout::new(profile).fits(&cid);
        let piece = self.pieces.entry(cid).or_insert_with(|| Piece {
            deals: BTreeMap::new(),
            slot: slot.clone(),
            place: match sector {
                Some(number) => Place::In(number),
                None if fits => Place::Waiting(now),
                None => Place::TooLarge,
            },
        });
        piece.slot = slot;
        piece.deals.insert(deal.clone(), until);
        self.deals.insert(deal, cid);
        true
    }

    pub(super) fn ended(&mut self, deal: &str) {
        let Some(cid) = self.deals.remove(deal) else { return };
        let Some(piece) = self.pieces.get_mut(&cid) else { return };
        piece.deals.remove(deal);
        // In a sector it stays where it is until the sector expires.
        if piece.deals.is_empty() && !matches!(piece.place, Place::In(_)) {
            self.pieces.remove(&cid);
        }
    }

    /// When the last deal about a piece ends; 0 where there is none.
    pub(super) fn until(&self, cid: &PieceCid) -> u64 {
        self.pieces.get(cid).and_then(|piece| piece.deals.values().max()).copied().unwrap_or(0)
    }

    pub(super) fn slot(&self, cid: &PieceCid) -> Option<&PathBuf> {
        self.pieces.get(cid).map(|piece| &piece.slot)
    }

    /// Which waiting pieces would make a sector now: as many as fit, the largest first, once one has no room or the
    /// oldest has waited long enough.
    pub(super) fn plan(&self, profile: Profile, now: u64, gather_seconds: u64) -> Option<Vec<PieceCid>> {
        let mut waiting: Vec<(&PieceCid, u64)> = self
            .pieces
            .iter()
            .filter(|(_, piece)| piece.deals.values().any(|until| *until > now))
            .filter_map(|(cid, piece)| match piece.place {
                Place::Waiting(since) => Some((cid, since)),
                _ => None,
            })
            .collect();
        let oldest = waiting.iter().map(|(_, since)| *since).min()?;
        waiting.sort_by_key(|(cid, since)| (std::cmp::Reverse(cid.height()), *since));
        let (mut layout, mut planned) = (Layout::new(profile), Vec::new());
        for (cid, _) in &waiting {
            if layout.push(PieceRoot::of(cid)).is_ok() {
                planned.push(**cid);
            }
        }
        let full = planned.len() < waiting.len() || layout.used_bytes() >= profile.sector_bytes();
        let patient = now < oldest.saturating_add(gather_seconds);
        (!planned.is_empty() && (full || !patient)).then_some(planned)
    }

    pub(super) fn put(&mut self, cid: &PieceCid, sector: u64) {
        if let Some(piece) = self.pieces.get_mut(cid) {
            piece.place = Place::In(sector);
        }
    }

    /// Its bytes are not its own: not tried again before it is stored anew.
    pub(super) fn refuse(&mut self, cid: &PieceCid) {
        if let Some(piece) = self.pieces.get_mut(cid) {
            piece.place = Place::Bad;
        }
    }

    /// The sector is gone: pieces that deals still want wait for another.
    pub(super) fn leave(&mut self, sector: u64, now: u64) {
        self.pieces.retain(|_, piece| {
            if piece.place == Place::In(sector) {
                piece.place = Place::Waiting(now);
            }
            !piece.deals.is_empty()
        });
    }

    pub(super) fn counts(&self) -> PieceCounts {
        let mut counts = PieceCounts::default();
        for piece in self.pieces.values() {
            match piece.place {
                Place::Waiting(_) | Place::Bad => counts.waiting += 1,
                Place::In(_) => counts.in_sectors += 1,
                Place::TooLarge => counts.too_large += 1,
            }
        }
        counts
    }
}

/// Lines of any orders, for fuzzing: whatever was said, a sector is planned of what fits in one.
pub(crate) fn take_any_orders(bytes: &[u8]) {
    for profile in Profile::ALL {
        let mut pieces = Pieces::default();
        for (sector, line) in bytes.split(|byte| *byte == b'\n').enumerate() {
            match serde_json::from_slice(line) {
                Ok(Order::List) => pieces.begin_list(),
                Ok(Order::Listed) => pieces.end_list(),
                Ok(Order::Ended { deal }) => pieces.ended(&deal),
                Ok(Order::Stored(stored)) => drop(pieces.stored(stored, None, profile, 7)),
                Err(_) => continue,
            }
            let Some(planned) = pieces.plan(profile, 7, 0) else { continue };
            let layout = Layout::of(profile, planned.iter().map(PieceRoot::of));
            assert!(layout.is_ok(), "a plan that does not fit");
            if sector % 3 == 0 {
                planned.iter().for_each(|cid| pieces.put(cid, sector as u64));
            }
            if sector % 5 == 0 {
                pieces.leave(sector as u64, 8);
            }
            let _ = pieces.counts();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn deal(number: u64, len: u64, until: u64) -> StoredPiece {
        let piece = PieceCid::new(len, [u8::try_from(number).unwrap(); 32]).unwrap();
        StoredPiece { deal: format!("d{number}"), piece, slot: PathBuf::from("/slot"), until }
    }

    #[test]
    fn pieces_gather_until_a_sector_is_full_or_the_oldest_has_waited() {
        let mut pieces = Pieces::default();
        let profile = Profile::Test2k;
        for number in 1..=3 {
            assert!(pieces.stored(deal(number, 500, 9_000), None, profile, 100 + number));
        }
        assert_eq!(pieces.plan(profile, 110, 60), None);
        assert_eq!(pieces.plan(profile, 161, 60).unwrap().len(), 3);
        // A fourth fills it, a fifth has no room.
        pieces.stored(deal(4, 500, 9_000), None, profile, 105);
        assert_eq!(pieces.plan(profile, 106, 60).unwrap().len(), 4);
        pieces.stored(deal(5, 500, 9_000), None, profile, 105);
        assert_eq!(pieces.plan(profile, 106, 60).unwrap().len(), 4);
        // What has ended is not sealed any more, what is too long never.
        assert_eq!(pieces.plan(profile, 9_000, 60), None);
        pieces.stored(deal(6, 3_000, 9_000), None, profile, 105);
        assert_eq!(pieces.counts(), PieceCounts { waiting: 5, in_sectors: 0, too_large: 1 });
    }

    #[test]
    fn a_renewal_extends_and_a_list_ends_what_it_does_not_name() {
        let mut pieces = Pieces::default();
        let profile = Profile::Test2k;
        let first = deal(1, 500, 1_000);
        let cid = first.piece;
        pieces.stored(first.clone(), None, profile, 10);
        pieces.put(&cid, 7);
        let renewal = StoredPiece { deal: "again".to_owned(), until: 5_000, ..first.clone() };
        pieces.stored(renewal.clone(), None, profile, 20);
        assert_eq!((pieces.until(&cid), pieces.counts().in_sectors), (5_000, 1));
        assert!(!pieces.is_listed());
        pieces.begin_list();
        pieces.stored(first, None, profile, 30);
        pieces.end_list();
        assert_eq!(pieces.until(&cid), 1_000);
        pieces.ended("d1");
        assert_eq!(pieces.until(&cid), 0);
        pieces.leave(7, 40);
        assert_eq!(pieces.counts(), PieceCounts::default());
    }
}
