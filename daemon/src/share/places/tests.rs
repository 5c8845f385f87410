#![allow(clippy::unwrap_used)]

use holdfast_content::block::{CODEC_RAW, cid_from_digest};
use holdfast_net::SigningKey;

use super::super::permits::tests::index;
use super::super::permits::{Terms, permits};
use super::*;
use crate::drive::ledger::{Holder, Imported, MemoryRows, StripePiece, StripeRow};

const MASK: [u8; 32] = [6; 32];
const STRIPE: PieceId = [8; 16];
const REMOVED: u8 = 9;

fn peer(n: u8) -> Peer {
    holdfast_net::identity::keypair([n + 50; 32]).unwrap().public().to_peer_id().to_bytes()
}

fn deal(id: &PieceId, slot: u16) -> [u8; 32] {
    let mut deal = [0; 32];
    (deal[0], deal[1]) = (id[0], slot as u8);
    deal
}

/// Has `provider` keep a slot; `failed`: but it does not.
fn held(row: &mut PieceRow, id: &PieceId, slot: u16, provider: u8, failed: bool) {
    row.slot_mut(slot).unwrap().holder = Some(Holder {
        provider: peer(provider),
        deal: deal(id, slot).to_vec(),
        entry: 0,
        confirmed_at: 1,
        proven_at: 1,
        ends_at: 9,
        failed: failed.then(|| "wrong bytes".to_owned()),
    });
}

/// Piece 1 as copies, pieces 2 to 4 in a stripe of 3+2, piece 5 as a copy.
fn ledger() -> Ledger {
    let mut found = Imported::default();
    for n in (0..6).chain([REMOVED]) {
        let mut row = ProviderRow::new(1);
        if n == REMOVED {
            row.state = ProviderState::Removed;
        }
        found.providers.insert(peer(n), row);
    }
    let mut copies = PieceRow::new(6000, 4);
    held(&mut copies, &[1; 16], 0, 0, false);
    held(&mut copies, &[1; 16], 1, 5, true);
    held(&mut copies, &[1; 16], 3, REMOVED, false);
    found.pieces.insert([1; 16], copies);
    let pieces = (2..5).map(|n| StripePiece { id: [n; 16], len: 6000 }).collect();
    let stripe = StripeRow { parity: 2, pieces, entry: 0 };
    let mut row = PieceRow::striped(stripe, vec![Vec::new(); 5]).unwrap();
    for slot in 0..5u16 {
        held(&mut row, &STRIPE, slot, slot as u8, slot == 1);
    }
    found.pieces.insert(STRIPE, row);
    for n in 2..5 {
        found.pieces.insert([n; 16], PieceRow::new(6000, 0));
    }
    let mut other = PieceRow::new(6000, 1);
    held(&mut other, &[5; 16], 0, 4, false);
    found.pieces.insert([5; 16], other);
    let ledger = Ledger::open(Arc::new(MemoryRows::default())).unwrap();
    ledger.import(found).unwrap();
    ledger
}

fn loaded(blocks: &[(u8, u64, u32)]) -> Loaded {
    Loaded::of(index(blocks).encode().unwrap()).unwrap()
}

#[test]
fn slots_that_somebody_keeps_are_named_with_their_seeds_and_no_others() {
    let places = Places::of(&ledger(), &MASK, &loaded(&[(1, 0, 9), (2, 0, 9), (3, 0, 9)]).index).unwrap();
    let ids: Vec<PieceId> = places.pieces.iter().map(|piece| piece.id).collect();
    assert_eq!(ids, [[1; 16], STRIPE], "copies, the stripe once, and nothing that is not shown");
    for (piece, kept) in
        places.pieces.iter().zip([[true, false, false, false].as_slice(), &[true, false, true, true, true]])
    {
        for ((slot, n), kept) in piece.slots.iter().zip(0u16..).zip(kept) {
            let seed = kept.then(|| *slots::seed(&MASK, piece.id, n).as_bytes());
            assert_eq!(slot.seed.as_ref().map(|seed| *seed.as_bytes()), seed, "{:?}, slot {n}", piece.id);
            let held = slot.held.as_ref();
            assert_eq!(held.map(|held| held.deal), kept.then(|| deal(&piece.id, n)));
            let who = held.map(|held| places.providers[usize::from(held.provider)].0.clone());
            assert_eq!(who, kept.then(|| peer(n as u8)));
        }
    }
    let named: Vec<Peer> = places.providers.into_iter().map(|(peer, _)| peer).collect();
    assert_eq!(named, [0, 2, 3, 4].map(peer), "nobody who keeps nothing of it, failed, or is gone");
}

#[test]
fn what_is_shown_of_a_stripe_may_be_read_of_every_slot_of_it() {
    // Of piece 2 and of piece 4, each in the middle of what codes work on.
    let loaded = loaded(&[(2, 100, 50), (4, 1000, 30)]);
    let places = Places::of(&ledger(), &MASK, &loaded.index).unwrap();
    let terms = Terms { holder: [7; 32], until: 9 };
    let keys =
        |n: u16| Some((places.providers[usize::from(n)].0.clone(), vec![SigningKey::from_bytes(&[1; 32])]));
    let all = permits(&terms, &loaded.index, &places.pieces, keys);
    let numbers = |slot: u16| places.providers.iter().position(|(who, _)| *who == peer(slot as u8));
    for slot in [0, 2, 3, 4] {
        let number = numbers(slot).unwrap() as u16;
        let body = all[&number][0].body();
        let read = |offset, len| body.reaches(&deal(&STRIPE, slot), offset, len);
        assert!(read(64, 128) && read(960, 128), "slot {slot}: both ranges, whole steps of a code");
        assert!(!read(63, 1) && !read(192, 1) && !read(959, 1) && !read(1088, 1), "slot {slot}: no more");
    }
    assert_eq!(numbers(1), None, "it failed");
}

#[test]
fn every_block_of_every_link_stays_and_nothing_is_judged_while_one_is_not_known() {
    let (one, two) = (loaded(&[(1, 0, 9), (2, 0, 9)]), loaded(&[(1, 0, 9), (1, 9, 9), (1, 18, 9)]));
    let digests = |n: u8| (0..n).map(|n| [n; 32]);
    let all = blocks([Some(one.clone()), Some(two.clone())]).unwrap();
    assert_eq!(all, digests(2).chain(digests(3)).collect::<Vec<_>>());
    assert_eq!(blocks([Some(one), None, Some(two)]), None);
    assert_eq!(blocks([]), Some(Vec::new()));
}

#[test]
fn blocks_are_followed_once_somebody_keeps_what_they_moved_to() {
    let ledger = ledger();
    let before = loaded(&[(1, 0, 9), (1, 9, 9)]);
    let look = |places: &[(u8, u64)]| {
        let locate = |digest: &[u8; 32]| {
            let at = places.get(usize::from(digest[0]));
            let cid = cid_from_digest(CODEC_RAW, digest);
            anyhow::Ok(at.map(|(piece, offset)| BlockAt {
                cid,
                piece: [*piece; 16],
                offset: *offset,
                len: 9,
            }))
        };
        Moved::look(&ledger, &before, locate).unwrap()
    };
    assert!(matches!(look(&[(1, 0), (1, 9)]), Moved::No));
    // Nobody keeps piece 6.
    assert!(matches!(look(&[(1, 0), (6, 0)]), Moved::NotYet));
    for to in [[(1, 0), (5, 70)], [(2, 0), (3, 70)]] {
        let Moved::To(found) = look(&to) else { panic!("copies and stripes are kept") };
        let at = found.index.chunks().map(|chunk| found.index.place(chunk).unwrap());
        assert_eq!(at.map(|at| (at.piece[0], at.offset)).collect::<Vec<_>>(), to);
        assert_eq!(Loaded::of(found.bytes.to_vec()).unwrap().index, found.index);
    }
}

#[test]
fn blocks_are_looked_for_with_each_head_and_until_somebody_keeps_what_they_moved_to() {
    assert!(is_to_be_looked_at(None, Some(4)), "a start may be after any commit");
    let has = |found: &Moved| Some(found.looked_at(Some(4)));
    for found in [Moved::No, Moved::To(loaded(&[(1, 0, 9)]))] {
        assert!(!is_to_be_looked_at(has(&found), Some(4)));
        assert!(is_to_be_looked_at(has(&found), Some(5)));
    }
    assert!(is_to_be_looked_at(has(&Moved::NotYet), Some(4)), "again, though no head came since");
}
