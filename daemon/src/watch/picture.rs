//! Who keeps which slot, as a watcher sees it, and which slots nobody keeps any more: pure, no network.
//!
//! A slot is *lost* only when everybody who was said to keep it is: proven not to have it, silent for longer than the owner
//! allows while others answer, or at the end of its deal. Whoever only might be lost is waited for. What another watcher says
//! it placed counts once it answered a challenge of this one's.

use std::collections::{BTreeMap, BTreeSet};

use holdfast_content::placement::PlacementEntry;
use holdfast_net::tags::Tags;

use super::bundle::{Bundle, Piece};
use super::log::SlotName;
use crate::drive::domains;
use crate::drive::ledger::{Peer, PieceId};

/// Why a slot is lost that a fellow says it placed.
const NEVER_SHOWN: &str = "another watcher says that it placed it, and nobody has shown that";
/// Why a slot is to move that a watcher placed.
const CROWDED: &str = "it fails together with another slot of the piece";

/// A deal's id.
pub type Deal = [u8; 32];

/// What this watcher knows of providers and deals.
#[derive(Default)]
pub struct Seen {
    /// Silent providers, and for how long.
    pub silent: BTreeMap<Peer, u64>,
    /// Providers that answered at this look.
    pub answered: BTreeSet<Peer>,
    /// Providers that ever did.
    pub met: BTreeSet<Peer>,
    /// Deals whose slot was proven to this watcher.
    pub proven: BTreeSet<Deal>,
    /// Deals whose slot is known to be gone, and why.
    pub faults: BTreeMap<Deal, String>,
    /// Slots of which a fellow's word counts no more: it had its time, and nobody has shown that he keeps one.
    pub weary: BTreeSet<SlotName>,
    /// Tags by provider.
    pub tags: BTreeMap<Peer, [Tags; 2]>,
    /// What time it is for deals.
    pub now: u64,
}

/// Somebody who is said to keep a slot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Keeper {
    /// Who.
    pub peer: Peer,
    /// The deal.
    pub deal: Deal,
    /// When it ends.
    pub ends: u64,
    /// Another watcher says so; else the owner, or this one.
    pub hearsay: bool,
}

/// How a keeper stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Health {
    /// It answers, and has proven the slot.
    Well,
    /// Not known yet.
    Doubt,
    /// It does not keep the slot any more, and why.
    Lost(String),
}

/// Keepers by slot.
pub struct Picture<'a> {
    /// What the owner gave.
    pub bundle: &'a Bundle,
    pieces: BTreeMap<PieceId, &'a Piece>,
    keepers: BTreeMap<SlotName, Vec<Keeper>>,
}

/// A slot that is to be placed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// Which.
    pub slot: SlotName,
    /// Why, as a person reads it.
    pub why: String,
    /// Slots of the piece that are left beyond what it takes to read it.
    pub spare: usize,
    /// Its bytes.
    pub bytes: u64,
}

impl<'a> Picture<'a> {
    /// By the owner's bundle, this watcher's entries, and those of others.
    pub fn new<'e>(
        bundle: &'a Bundle,
        own: impl IntoIterator<Item = &'e PlacementEntry>,
        others: impl IntoIterator<Item = &'e PlacementEntry>,
    ) -> Picture<'a> {
        let peers = bundle.peers();
        let pieces: BTreeMap<PieceId, &Piece> = bundle.pieces.iter().map(|piece| (piece.id, piece)).collect();
        let mut keepers: BTreeMap<SlotName, Vec<Keeper>> = BTreeMap::new();
        for piece in &bundle.pieces {
            for (slot, n) in piece.slots.iter().zip(0u16..) {
                let all = keepers.entry(SlotName { piece: piece.id, slot: n }).or_default();
                let held = slot.held.as_ref().and_then(|held| {
                    let peer = peers.get(usize::from(held.provider))?.clone();
                    Some(Keeper { peer, deal: held.deal, ends: held.ends, hearsay: false })
                });
                all.extend(held);
            }
        }
        let said = own.into_iter().map(|e| (e, false)).chain(others.into_iter().map(|e| (e, true)));
        for (entry, hearsay) in said {
            let body = entry.body();
            let slot = SlotName { piece: body.piece, slot: body.slot };
            let Ok(deal) = Deal::try_from(body.deal.as_slice()) else { continue };
            // Slots that the owner did not give, and other bytes than the slot's, are nobody's business here.
            let known = pieces.get(&body.piece).and_then(|piece| piece.slots.get(usize::from(body.slot)));
            if known.is_none_or(|known| known.cid != body.slot_cid) {
                continue;
            }
            let Some(all) = keepers.get_mut(&slot).filter(|all| all.iter().all(|k| k.deal != deal)) else {
                continue;
            };
            let ends = body.time.saturating_add(bundle.head.deal_seconds);
            all.push(Keeper { peer: body.holder.to_vec(), deal, ends, hearsay });
        }
        Picture { bundle, pieces, keepers }
    }

    /// Who is said to keep a slot.
    pub fn keepers(&self, slot: &SlotName) -> &[Keeper] {
        self.keepers.get(slot).map_or(&[], Vec::as_slice)
    }

    /// Every keeper, with its slot.
    pub fn all(&self) -> impl Iterator<Item = (&SlotName, &Keeper)> {
        self.keepers.iter().flat_map(|(slot, all)| all.iter().map(move |keeper| (slot, keeper)))
    }

    /// How a keeper stands.
    pub fn health(&self, keeper: &Keeper, seen: &Seen) -> Health {
        if let Some(why) = seen.faults.get(&keeper.deal) {
            return Health::Lost(why.clone());
        }
        let head = &self.bundle.head;
        let others_answer = seen.answered.iter().any(|peer| *peer != keeper.peer);
        if let Some(seconds) = seen.silent.get(&keeper.peer).filter(|_| !seen.answered.contains(&keeper.peer))
        {
            // Hearsay of somebody whom this watcher never reached holds nothing up.
            let unheard = keeper.hearsay && !seen.met.contains(&keeper.peer);
            return match others_answer && (*seconds >= head.silent_seconds || unheard) {
                true => Health::Lost(format!("silent for {seconds} s")),
                false => Health::Doubt,
            };
        }
        if keeper.ends.saturating_sub(seen.now) < head.deal_seconds / 6 {
            return Health::Lost("its deal is about to end".to_owned());
        }
        match seen.proven.contains(&keeper.deal) && seen.answered.contains(&keeper.peer) {
            true => Health::Well,
            false => Health::Doubt,
        }
    }

    /// Slots that nobody keeps whose word counts, and whether a fellow says that somebody does who is yet to be seen.
    pub fn unkept(&self, seen: &Seen) -> BTreeMap<SlotName, bool> {
        let of = |(slot, keepers): (&SlotName, &Vec<Keeper>)| {
            let mut said = false;
            for keeper in keepers {
                match self.health(keeper, seen) {
                    Health::Lost(_) => {}
                    Health::Doubt if keeper.hearsay => said = true,
                    _ => return None,
                }
            }
            Some((*slot, said))
        };
        self.keepers.iter().filter_map(of).collect()
    }

    /// Slots that nobody keeps any more, those nearest to loss first.
    pub fn wanted(&self, seen: &Seen) -> Vec<Wanted> {
        let mut all = Vec::new();
        // What was never placed is on its way as long as the owner says something.
        let head = &self.bundle.head;
        let owner_is_silent = seen.now.abs_diff(head.time) >= head.silent_seconds;
        for piece in &self.bundle.pieces {
            let need = piece.shards.len().max(1);
            let mut left = 0usize;
            let crowded = self.crowded(piece, seen);
            let mut gone = Vec::new();
            for n in 0..u16::try_from(piece.slots.len()).unwrap_or(u16::MAX) {
                let slot = SlotName { piece: piece.id, slot: n };
                let weary = seen.weary.contains(&slot);
                let stands = |keeper: &Keeper| match self.health(keeper, seen) {
                    Health::Doubt if keeper.hearsay && weary => Health::Lost(NEVER_SHOWN.to_owned()),
                    health => health,
                };
                let health: Vec<Health> = self.keepers(&slot).iter().map(stands).collect();
                let reasons: Option<Vec<&str>> = health
                    .iter()
                    .map(|health| if let Health::Lost(why) = health { Some(why.as_str()) } else { None })
                    .collect();
                match reasons {
                    Some(reasons) if reasons.is_empty() && !owner_is_silent => {}
                    Some(reasons) => {
                        let why = reasons.last().copied().unwrap_or("it was never placed");
                        gone.push((slot, why.to_owned(), piece.slot_len(n)));
                    }
                    None => {
                        left += usize::from(health.contains(&Health::Well));
                        if crowded.contains(&n) {
                            gone.push((slot, CROWDED.to_owned(), piece.slot_len(n)));
                        }
                    }
                }
            }
            let spare = left.saturating_sub(need);
            all.extend(gone.into_iter().map(|(slot, why, bytes)| Wanted { slot, why, spare, bytes }));
        }
        all.sort_by_key(|wanted| (wanted.spare, wanted.bytes, wanted.slot));
        all
    }

    /// Slots that only watchers placed, each with nobody but such as fail together with who keeps another slot.
    fn crowded(&self, piece: &Piece, seen: &Seen) -> BTreeSet<u16> {
        let (mut used, mut placed) = (Vec::new(), Vec::new());
        for (slot, n) in piece.slots.iter().zip(0u16..) {
            let all = self.keepers(&SlotName { piece: piece.id, slot: n });
            let sound: Vec<&Keeper> =
                all.iter().filter(|k| !matches!(self.health(k, seen), Health::Lost(_))).collect();
            let owners = |k: &&&Keeper| slot.held.as_ref().is_some_and(|held| held.deal == k.deal);
            match sound.iter().find(owners) {
                Some(keeper) => used.push(&keeper.peer),
                None if sound.iter().any(|k| self.health(k, seen) != Health::Well) => {}
                None => placed.push((n, sound)),
            }
        }
        let mut crowded = BTreeSet::new();
        for (n, sound) in placed.into_iter().filter(|(_, sound)| !sound.is_empty()) {
            match sound.into_iter().find(|keeper| !fails_with(&keeper.peer, &used, seen)) {
                Some(keeper) => used.push(&keeper.peer),
                None => drop(crowded.insert(n)),
            }
        }
        crowded
    }

    /// A piece by its name.
    pub fn piece(&self, id: &PieceId) -> Option<&'a Piece> {
        self.pieces.get(id).copied()
    }

    /// Who shall take a slot: of `candidates` that fail together with no keeper of another slot, and keep none themselves, the
    /// one that the slot's own secret draws. Every watcher draws the same; no provider can make itself be drawn. `taken` are
    /// those that another slot of the piece is on its way to.
    pub fn draw(&self, slot: &SlotName, candidates: &[Peer], taken: &[Peer], seen: &Seen) -> Option<Peer> {
        let piece = self.piece(&slot.piece)?;
        let mut others: Vec<&Peer> = taken.iter().collect();
        let mut had: BTreeSet<&Peer> = BTreeSet::new();
        for n in 0..u16::try_from(piece.slots.len()).unwrap_or(u16::MAX) {
            let name = SlotName { piece: piece.id, slot: n };
            for keeper in self.keepers(&name) {
                match self.health(keeper, seen) {
                    Health::Lost(_) if n == slot.slot => drop(had.insert(&keeper.peer)),
                    Health::Lost(_) => {}
                    _ => others.push(&keeper.peer),
                }
            }
        }
        let key = self.lot(piece, slot.slot);
        let fit = |peer: &&Peer| {
            let apart = self.bundle.head.apart.iter().any(|apart| apart == *peer);
            !apart && !had.contains(peer) && seen.answered.contains(*peer) && !fails_with(peer, &others, seen)
        };
        candidates.iter().filter(fit).min_by_key(|peer| *blake3::keyed_hash(&key, peer).as_bytes()).cloned()
    }

    fn lot(&self, piece: &Piece, slot: u16) -> [u8; 32] {
        let slot = piece.slots.get(usize::from(slot));
        let seed = slot.and_then(|slot| slot.seed.as_ref());
        match seed {
            Some(seed) => blake3::derive_key("holdfast 2026 watch draw v1", seed.as_bytes()),
            // What is public has no secret of its own.
            None => {
                let shared =
                    blake3::derive_key("holdfast 2026 watch draw v1", self.bundle.head.shared.as_bytes());
                blake3::keyed_hash(&shared, &slot.map(|slot| slot.cid.to_vec()).unwrap_or_default()).into()
            }
        }
    }
}

fn fails_with(peer: &Peer, others: &[&Peer], seen: &Seen) -> bool {
    if others.contains(&peer) {
        return true;
    }
    let none = [Tags::default(), Tags::default()];
    let all: Vec<&[Tags; 2]> =
        others.iter().copied().chain([peer]).map(|peer| seen.tags.get(peer).unwrap_or(&none)).collect();
    let tags: Vec<[&Tags; 2]> = all.iter().map(|tags| [&tags[0], &tags[1]]).collect();
    let domains = domains::group(&tags);
    domains.split_last().is_some_and(|(own, others)| others.contains(own))
}

#[cfg(test)]
pub(super) mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::bundle::{Held, tests::sample};
    use super::*;
    use holdfast_content::placement::{PlacementAction, PlacementFacts};
    use holdfast_net::SigningKey;

    fn peer(n: u8) -> Peer {
        vec![n; 38]
    }

    /// Copies of one piece with the providers 1, 2 and 3, the fourth never placed.
    pub(in crate::watch) fn bundle() -> Bundle {
        let mut bundle = sample(1);
        bundle.pieces.remove(0);
        for (slot, n) in bundle.pieces[0].slots.iter_mut().zip(0..) {
            slot.held = (n < 3).then_some(Held { provider: n, deal: [n as u8; 32], ends: 1_850_000_000 });
        }
        for provider in &mut bundle.head.providers {
            provider.tags = Default::default();
        }
        bundle
    }

    fn all_well() -> Seen {
        let answered = (1..=3).map(peer).chain([peer(20), peer(21), peer(22)]).collect();
        let proven = (0..3).map(|n| [n; 32]).collect();
        Seen { answered, proven, now: 1_800_001_800, ..Seen::default() }
    }

    fn slot(bundle: &Bundle, n: u16) -> SlotName {
        SlotName { piece: bundle.pieces[0].id, slot: n }
    }

    fn fellow_says(bundle: &Bundle, n: u16, holder: u8, cid: u8) -> PlacementEntry {
        let facts = PlacementFacts {
            action: PlacementAction::Add,
            piece: bundle.pieces[0].id,
            raw_len: 64 << 20,
            slot: n,
            holder: peer(holder),
            slot_cid: vec![cid; 39],
            deal: vec![holder; 32],
            receipt: vec![1],
            time: 1_800_000_000,
        };
        PlacementEntry::sign(facts, &Default::default(), &SigningKey::from_bytes(&[1; 32])).unwrap()
    }

    #[test]
    fn only_what_is_surely_lost_is_wanted() {
        let bundle = bundle();
        let picture = Picture::new(&bundle, [], []);
        let wanted = |seen: &Seen| picture.wanted(seen).iter().map(|w| w.slot.slot).collect::<Vec<_>>();
        assert_eq!(wanted(&all_well()), [3], "it was never placed");
        let lately = Seen { now: 1_800_001_799, ..all_well() };
        assert!(wanted(&lately).is_empty(), "the owner may be at it");
        let mut seen = all_well();
        seen.answered.remove(&peer(2));
        seen.silent.insert(peer(2), 1799);
        assert_eq!(wanted(&seen), [3], "silent, but not for long");
        seen.silent.insert(peer(2), 1800);
        assert_eq!(wanted(&seen), [1, 3]);
        // Nobody answers: the silence is this machine's.
        let silent = (1..=3).map(|n| (peer(n), 9_999)).collect();
        let alone = Seen { silent, now: all_well().now, ..Seen::default() };
        assert_eq!(wanted(&alone), [3]);
        let mut seen = all_well();
        seen.faults.insert([0; 32], "it said no".into());
        assert_eq!(picture.wanted(&seen)[0].why, "it said no");
        seen.now = 1_849_000_000;
        assert_eq!(wanted(&seen), [0, 1, 2, 3], "deals that are about to end");
    }

    #[test]
    fn what_a_fellow_placed_counts_once_it_is_proven() {
        let bundle = bundle();
        let entry = fellow_says(&bundle, 3, 20, 3);
        let picture = Picture::new(&bundle, [], [&entry]);
        let mut seen = all_well();
        assert_eq!(picture.wanted(&seen), [], "it may be there: it is waited for");
        seen.proven.insert([20; 32]);
        assert_eq!(picture.health(&picture.keepers(&slot(&bundle, 3))[0], &seen), Health::Well);
        seen.proven.remove(&[20; 32]);
        seen.answered.remove(&peer(20));
        seen.silent.insert(peer(20), 0);
        assert_eq!(picture.wanted(&seen).len(), 1, "a holder that was never reached holds nothing up");
        seen.met.insert(peer(20));
        assert_eq!(picture.wanted(&seen), [], "one that was reached before has its time");
        // A slot that is well stays where it is, whatever a rogue fellow says; other bytes are passed over.
        let more = [fellow_says(&bundle, 0, 21, 0), fellow_says(&bundle, 3, 22, 9)];
        let picture = Picture::new(&bundle, [], &more);
        assert_eq!(picture.keepers(&slot(&bundle, 0)).len(), 2);
        assert_eq!(picture.wanted(&all_well()).len(), 1);
        assert!(picture.keepers(&slot(&bundle, 3)).is_empty());
    }

    #[test]
    fn what_watchers_placed_in_one_domain_moves_and_what_the_owner_did_stays() {
        let bundle = bundle();
        let wanted = |entries: &[PlacementEntry], seen: &Seen| -> Vec<(u16, String)> {
            let picture = Picture::new(&bundle, [], entries);
            picture.wanted(seen).into_iter().map(|w| (w.slot.slot, w.why)).collect()
        };
        let mut seen = all_well();
        seen.proven.insert([1; 32]);
        seen.proven.insert([20; 32]);
        let entries = [fellow_says(&bundle, 3, 20, 3)];
        assert_eq!(wanted(&entries, &seen), [], "by itself");
        let tag = |name: &str| [Tags { operator: Some(name.into()), ..Tags::default() }, Tags::default()];
        seen.tags.insert(peer(20), tag("acme"));
        seen.tags.insert(peer(2), tag("acme"));
        assert_eq!(wanted(&entries, &seen), [(3, CROWDED.to_owned())], "with one of the owner's");
        let picture = Picture::new(&bundle, [], &entries);
        let drawn = picture.draw(&slot(&bundle, 3), &[peer(20), peer(21)], &[], &seen);
        assert_eq!(drawn, Some(peer(21)), "it goes to somebody else");
        let moved = [entries[0].clone(), fellow_says(&bundle, 3, 21, 3)];
        assert_eq!(wanted(&moved, &seen), [], "who is yet to be seen is waited for");
        seen.proven.insert([21; 32]);
        assert_eq!(wanted(&moved, &seen), [], "one of two is enough");
        // Two of the owner's are the owner's business.
        seen.tags.clear();
        seen.tags.insert(peer(1), tag("acme"));
        seen.tags.insert(peer(2), tag("acme"));
        assert_eq!(wanted(&entries, &seen), []);
    }

    #[test]
    fn a_fellows_word_holds_a_slot_up_for_its_time_and_no_longer() {
        let bundle = bundle();
        let entry = fellow_says(&bundle, 3, 20, 3);
        let picture = Picture::new(&bundle, [], [&entry]);
        let mut seen = all_well();
        let unkept = |seen: &Seen| picture.unkept(seen).into_iter().map(|(s, said)| (s.slot, said)).collect();
        let left: Vec<(u16, bool)> = unkept(&seen);
        assert_eq!(left, [(3, true)], "those that are well are left to nobody");
        assert_eq!(picture.wanted(&seen), []);
        seen.weary = (0..4).map(|n| slot(&bundle, n)).collect();
        assert_eq!(picture.wanted(&seen).iter().map(|w| w.slot.slot).collect::<Vec<_>>(), [3]);
        seen.proven.insert([20; 32]);
        assert_eq!(picture.wanted(&seen), [], "what was shown counts, however late");
        let left: Vec<(u16, bool)> = unkept(&seen);
        assert!(left.is_empty());
        // The owner's own holder that is only not known yet is waited for as ever.
        seen.proven.remove(&[0; 32]);
        assert_eq!(picture.wanted(&seen), []);
    }

    #[test]
    fn every_watcher_draws_the_same_and_nobody_twice_in_a_domain() {
        let bundle = bundle();
        let picture = Picture::new(&bundle, [], []);
        let mut seen = all_well();
        let candidates: Vec<Peer> = (1..=3).map(peer).chain([peer(20), peer(21)]).collect();
        let first = picture.draw(&slot(&bundle, 3), &candidates, &[], &seen).unwrap();
        let turned: Vec<Peer> = candidates.iter().rev().cloned().collect();
        assert_eq!(picture.draw(&slot(&bundle, 3), &turned, &[], &seen), Some(first.clone()));
        assert!([peer(20), peer(21)].contains(&first), "who keeps another copy gets none");
        let second =
            picture.draw(&slot(&bundle, 3), &candidates, std::slice::from_ref(&first), &seen).unwrap();
        assert_ne!(first, second);
        let tag = |name: &str| [Tags { operator: Some(name.into()), ..Tags::default() }, Tags::default()];
        seen.tags.insert(first.clone(), tag("acme"));
        seen.tags.insert(peer(1), tag("acme"));
        assert_eq!(picture.draw(&slot(&bundle, 3), &candidates, &[], &seen), Some(second.clone()));
        // Whom the capability is kept apart from, and who lost this very slot.
        let mut apart = bundle.clone();
        apart.head.apart = vec![serde_bytes::ByteBuf::from(second.clone())];
        assert_eq!(Picture::new(&apart, [], []).draw(&slot(&bundle, 3), &candidates, &[], &seen), None);
        let mut seen = all_well();
        seen.faults.insert([0; 32], "gone".into());
        let drawn = picture.draw(&slot(&bundle, 0), &[peer(1)], &[], &seen);
        assert_eq!(drawn, None, "a slot never returns to the provider that lost it");
    }
}
