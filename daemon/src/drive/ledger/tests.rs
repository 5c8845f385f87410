#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::sync::Arc;

use super::memory::MemoryRows as Memory;
use super::*;
use crate::drive::domains::Tags;
use holdfast_content::placement::STRIPE_ITSELF;

fn link(chain: &ChainEnd) -> Result<(Vec<u8>, ChainEnd), String> {
    Ok((chain.length.to_be_bytes().to_vec(), ChainEnd { length: chain.length + 1, last: [1; 32] }))
}

const PIECE_A: PieceId = [7; 16];

fn holder(provider: &[u8]) -> Holder {
    Holder {
        provider: provider.to_vec(),
        deal: vec![1; 32],
        entry: 0,
        confirmed_at: 10,
        proven_at: 10,
        ends_at: 1000,
        failed: None,
    }
}

fn ledger(rows: &Arc<Memory>) -> Ledger {
    let ledger = Ledger::open(rows.clone()).unwrap();
    for p in [b"a", b"b", b"c"] {
        ledger.add_provider(p.to_vec(), vec!["/ip4/127.0.0.1/tcp/1".into()], 1).unwrap();
    }
    ledger.add_piece(PIECE_A, 100, 3).unwrap();
    ledger
}

#[test]
fn a_copy_counts_only_once_the_published_head_names_it() {
    let rows = Arc::new(Memory::default());
    let l = ledger(&rows);
    l.set_holder(PIECE_A, 0, holder(b"a"), link).unwrap();
    assert_eq!(l.live_copies(&PIECE_A), 1);
    assert_eq!(l.counting(&PIECE_A), (0, None));
    l.set_published(1, BTreeSet::from([b"a".to_vec()]));
    assert_eq!(l.counting(&PIECE_A), (1, Some(10)));
    assert_eq!(l.head_copies(), 1);
}

#[test]
fn a_provider_that_stops_answering_stops_counting_at_once_and_comes_back() {
    let l = ledger(&Arc::new(Memory::default()));
    l.set_holder(PIECE_A, 0, holder(b"a"), link).unwrap();
    l.set_published(1, BTreeSet::new());
    l.update_provider(&b"a".to_vec(), |p| p.state = ProviderState::Suspect { since: 5 }).unwrap();
    assert_eq!(l.counting(&PIECE_A).0, 0);
    l.update_provider(&b"a".to_vec(), |p| p.state = ProviderState::Active).unwrap();
    assert_eq!(l.counting(&PIECE_A).0, 1);
}

#[test]
fn one_provider_never_keeps_two_slots_of_a_piece() {
    let l = ledger(&Arc::new(Memory::default()));
    l.set_holder(PIECE_A, 0, holder(b"a"), link).unwrap();
    let again = l.set_holder(PIECE_A, 1, holder(b"a"), link);
    assert!(matches!(again, Err(LedgerError::SameProvider(_))));
    let intent = Intent { provider: b"a".to_vec(), proposal: vec![], since: 1 };
    assert!(matches!(l.set_intent(PIECE_A, 2, Some(intent)), Err(LedgerError::SameProvider(_))));
}

#[test]
fn everything_is_there_after_a_restart() {
    let rows = Arc::new(Memory::default());
    let before = ledger(&rows);
    before.set_slot_cids(PIECE_A, vec![vec![1], vec![2], vec![3]]).unwrap();
    before.set_holder(PIECE_A, 1, holder(b"b"), link).unwrap();
    let after = Ledger::open(rows).unwrap();
    assert_eq!(after.pieces(), before.pieces());
    assert_eq!(after.providers(), before.providers());
    assert_eq!(after.chain().length, 1);
    assert_eq!(after.log_from(0).unwrap(), vec![(0, 0u64.to_be_bytes().to_vec())]);
}

#[test]
fn a_refused_row_changes_nothing_in_memory() {
    let rows = Arc::new(Memory::default());
    let l = ledger(&rows);
    rows.refuse(true);
    assert!(l.set_holder(PIECE_A, 0, holder(b"a"), link).is_err());
    assert_eq!(l.live_copies(&PIECE_A), 0);
    assert_eq!(l.chain().length, 0);
}

#[test]
fn a_verdict_about_an_older_deal_is_passed_over() {
    let l = ledger(&Arc::new(Memory::default()));
    l.set_holder(PIECE_A, 0, holder(b"a"), link).unwrap();
    let verdict = |deal: u8, fault: Option<&str>| Verdict {
        piece: PIECE_A,
        slot: 0,
        deal: vec![deal; 32],
        at: 99,
        fault: fault.map(str::to_owned),
    };
    l.record_verdicts(&[verdict(2, Some("wrong bytes"))]).unwrap();
    assert_eq!(l.live_copies(&PIECE_A), 1);
    l.record_verdicts(&[verdict(1, None)]).unwrap();
    assert_eq!(l.piece(&PIECE_A).unwrap().slots[0].holder.as_ref().unwrap().proven_at, 99);
    l.record_verdicts(&[verdict(1, Some("wrong bytes"))]).unwrap();
    assert_eq!(l.live_copies(&PIECE_A), 0);
}

#[test]
fn a_damaged_row_is_an_error_and_no_panic() {
    let rows = Arc::new(Memory::default());
    drop(ledger(&rows));
    rows.commit(vec![([PIECE, &PIECE_A].concat(), Some(vec![0xff, 1, 2]))]).unwrap();
    assert!(matches!(Ledger::open(rows), Err(LedgerError::BadRow(..))));
}

#[test]
fn a_row_of_a_newer_version_is_refused_by_name() {
    let rows = Arc::new(Memory::default());
    drop(ledger(&rows));
    let newer = encode(&PieceRow { v: 5, ..PieceRow::new(10, 1) });
    rows.commit(vec![([PIECE, &PIECE_A].concat(), Some(newer))]).unwrap();
    assert!(matches!(Ledger::open(rows), Err(LedgerError::Newer { found: 5, known: 4, .. })));
}

fn note(number: u32) -> Vec<u8> {
    use holdfast_content::{block::cid_of, publication::PublicPiece};
    let root = cid_of(0x70, b"root");
    PublicPiece::new(root, "name".into(), "unixfs-v1-2025".into(), 7, 9, (number, 2))
        .unwrap()
        .encode()
        .unwrap()
}

#[test]
fn public_pieces_are_declared_placed_and_withdrawn() {
    let rows = Arc::new(Memory::default());
    let l = ledger(&rows);
    let new = |n: u8| NewPublic { id: [n; 16], raw_len: 100, note: note(n.into()) };
    let mut said = Vec::new();
    let mut recorded = |s: Said<'_>, chain: &ChainEnd| {
        said.push((s.id, s.slot, s.holder.is_some()));
        link(chain)
    };
    let before = l.chain().length;
    l.add_public(&[new(0), new(1)], 3, &mut recorded).unwrap();
    assert_eq!(l.chain().length, before + 2);
    assert!(l.add_public(&[new(1)], 3, &mut recorded).is_err(), "twice");
    let held = Holder {
        provider: b"a".to_vec(),
        deal: vec![7; 32],
        entry: 0,
        confirmed_at: 1,
        proven_at: 1,
        ends_at: 99,
        failed: None,
    };
    l.set_holder([0; 16], 0, held, link).unwrap();
    // They are the same after a restart, and no stripe takes them.
    let l = ledger(&rows);
    let public = l.public_pieces();
    assert_eq!(public.iter().map(|(id, _)| *id).collect::<Vec<_>>(), [[0; 16], [1; 16]]);
    assert_eq!(public[1].1.public.as_ref().and_then(PublicRow::piece).map(|piece| piece.number), Some(1));
    let pieces = [0u8, 1].map(|n| StripePiece { id: [n; 16], len: 100 }).to_vec();
    let stripe = StripeRow { parity: 1, pieces, entry: 0 };
    assert!(matches!(
        l.add_stripe(STRIPE, stripe, vec![vec![1]; 3], &mut sign),
        Err(LedgerError::Stripe(..))
    ));
    let before = l.chain().length;
    l.withdraw_public(&[[0; 16], [1; 16], PIECE_A], &mut recorded).unwrap();
    assert_eq!(
        said[2..],
        [([0; 16], 0, true), ([0; 16], STRIPE_ITSELF, false), ([1; 16], STRIPE_ITSELF, false)]
    );
    assert_eq!(l.chain().length, before + 3);
    assert_eq!(l.releases_all().unwrap().iter().map(|r| r.deal.clone()).collect::<Vec<_>>(), [vec![7; 32]]);
    assert!(l.public_pieces().is_empty() && ledger(&rows).public_pieces().is_empty());
    assert!(l.piece(&PIECE_A).is_some(), "it is not public");
}

const STRIPE: PieceId = [9; 16];
const PIECES: [PieceId; 2] = [PIECE_A, [8; 16]];

fn sign(_: Said<'_>, chain: &ChainEnd) -> Result<(Vec<u8>, ChainEnd), String> {
    link(chain)
}

/// Two pieces with a copy at each of a, b, c, published; and a stripe of them with two parity slots, nowhere yet.
fn striped(rows: &Arc<Memory>) -> Ledger {
    let l = ledger(rows);
    l.add_provider(b"d".to_vec(), vec!["/ip4/127.0.0.1/tcp/1".into()], 1).unwrap();
    l.add_piece(PIECES[1], 70, 3).unwrap();
    for piece in PIECES {
        for (slot, peer) in [b"a", b"b", b"c"].into_iter().enumerate() {
            l.set_holder(piece, u16::try_from(slot).unwrap(), holder(peer), link).unwrap();
        }
    }
    let pieces = vec![StripePiece { id: PIECES[0], len: 100 }, StripePiece { id: PIECES[1], len: 70 }];
    let stripe = StripeRow { parity: 2, pieces, entry: 0 };
    l.add_stripe(STRIPE, stripe, vec![vec![1]; 4], &mut sign).unwrap();
    l.set_published(l.chain().length, BTreeSet::new());
    l
}

fn place_slots(l: &Ledger) {
    for (slot, peer) in [b"a", b"b", b"c", b"d"].into_iter().enumerate() {
        let deal = vec![100 + u8::try_from(slot).unwrap(); 32];
        let holder = Holder { deal, ..holder(peer) };
        l.set_holder(STRIPE, u16::try_from(slot).unwrap(), holder, link).unwrap();
    }
}

#[test]
fn copies_go_only_when_the_published_stripe_is_enough() {
    let rows = Arc::new(Memory::default());
    let l = striped(&rows);
    assert_eq!(l.stripe_of(&PIECES[1]).unwrap().2, 1);
    assert_eq!((l.counting(&PIECE_A).0, l.counting_as(&PIECE_A, Form::Stripe)), (3, 0));
    assert!(!l.drop_copies(PIECE_A, 3, &mut sign).unwrap(), "no slot is placed");
    place_slots(&l);
    assert!(!l.drop_copies(PIECE_A, 3, &mut sign).unwrap(), "no head names the slots");
    assert_eq!(l.counting(&PIECE_A), (3, Some(10)), "what no head names lowers nothing");
    l.set_published(l.chain().length, BTreeSet::new());
    assert_eq!(l.counting_as(&PIECE_A, Form::Stripe), 3);
    // With a, b and c all copies are gone, and one slot of two that are needed is left.
    assert_eq!(l.counting(&PIECE_A).0, 3);
    l.update_provider(&b"d".to_vec(), |p| p.state = ProviderState::Suspect { since: 5 }).unwrap();
    assert!(!l.drop_copies(PIECE_A, 3, &mut sign).unwrap(), "a slot is silent");
    l.update_provider(&b"d".to_vec(), |p| p.state = ProviderState::Active).unwrap();
    assert!(l.drop_copies(PIECE_A, 3, &mut sign).unwrap());
    assert!(!l.drop_copies(PIECE_A, 3, &mut sign).unwrap(), "they are gone already");
    assert_eq!(l.counting(&PIECE_A), (3, Some(10)));
    assert_eq!(l.releases().unwrap(), vec![], "no head says so yet");
    l.set_published(l.chain().length, BTreeSet::new());
    let due = l.releases().unwrap();
    assert_eq!(due.len(), 1, "three copies under one deal's name, in this test");
    l.released(&due[0].deal).unwrap();
    assert_eq!(l.releases().unwrap(), vec![]);
    // And all of that after a restart.
    let again = Ledger::open(rows).unwrap();
    assert_eq!(again.pieces(), l.pieces());
    assert_eq!(again.stripe_of(&PIECE_A).map(|(id, _, slot)| (id, slot)), Some((STRIPE, 0)));
    assert_eq!(again.chain(), l.chain());
}

#[test]
fn a_stripe_goes_only_when_copies_are_enough() {
    let l = striped(&Arc::new(Memory::default()));
    place_slots(&l);
    l.set_published(l.chain().length, BTreeSet::new());
    assert!(l.drop_copies(PIECE_A, 3, &mut sign).unwrap());
    assert!(!l.dissolve(STRIPE, 3, &mut sign).unwrap(), "it alone keeps a piece");
    l.want_copies(PIECE_A, 3).unwrap();
    assert_eq!(l.piece(&PIECE_A).unwrap().slots.len(), 3);
    for (slot, peer) in [b"a", b"b", b"c"].into_iter().enumerate() {
        l.set_holder(PIECE_A, u16::try_from(slot).unwrap(), holder(peer), link).unwrap();
    }
    assert!(!l.dissolve(STRIPE, 3, &mut sign).unwrap(), "the new copies are not published");
    l.set_published(l.chain().length, BTreeSet::new());
    assert!(l.dissolve(STRIPE, 3, &mut sign).unwrap());
    assert!(l.stripe_of(&PIECE_A).is_none() && l.piece(&STRIPE).is_none());
    assert_eq!(l.counting(&PIECE_A).0, 3);
    // A slot that was on its way when the stripe went is no holder of anything.
    assert!(matches!(l.set_holder(STRIPE, 0, holder(b"a"), link), Err(LedgerError::UnknownPiece(_))));
}

#[test]
fn a_copy_that_arrives_late_is_refused() {
    let l = striped(&Arc::new(Memory::default()));
    place_slots(&l);
    l.set_published(l.chain().length, BTreeSet::new());
    assert!(l.drop_copies(PIECE_A, 3, &mut sign).unwrap());
    let before = l.chain();
    assert!(matches!(l.set_holder(PIECE_A, 0, holder(b"a"), link), Err(LedgerError::UnknownSlot(_, 0))));
    assert_eq!(l.chain(), before, "and the log does not name it");
}

#[test]
fn a_holder_that_was_replaced_is_told_once_a_head_says_so() {
    let l = ledger(&Arc::new(Memory::default()));
    l.set_holder(PIECE_A, 0, holder(b"a"), link).unwrap();
    l.set_holder(PIECE_A, 0, Holder { deal: vec![2; 32], ..holder(b"b") }, link).unwrap();
    l.set_published(1, BTreeSet::new());
    assert_eq!(l.releases().unwrap(), vec![]);
    l.set_published(2, BTreeSet::new());
    let due = l.releases().unwrap();
    assert_eq!((due.len(), due[0].provider.as_slice(), due[0].entry), (1, &b"a"[..], 1));
    // The same deal again is no other holder.
    l.set_holder(PIECE_A, 0, Holder { deal: vec![2; 32], ..holder(b"b") }, link).unwrap();
    l.set_published(9, BTreeSet::new());
    assert_eq!(l.releases().unwrap().len(), 1);
}

#[test]
fn a_piece_is_in_one_stripe() {
    let l = striped(&Arc::new(Memory::default()));
    let one = |id, len| StripeRow { parity: 1, pieces: vec![StripePiece { id, len }], entry: 0 };
    let add = |id, stripe| l.add_stripe(id, stripe, vec![vec![1]; 2], &mut sign);
    assert!(matches!(add([10; 16], one(PIECE_A, 100)), Err(LedgerError::Stripe(..))));
    l.add_piece([4; 16], 5, 3).unwrap();
    assert!(matches!(add([10; 16], one([4; 16], 6)), Err(LedgerError::Stripe(..))), "of another length");
    assert!(matches!(add(STRIPE, one([4; 16], 5)), Err(LedgerError::Stripe(..))), "a name that is taken");
    assert!(matches!(add([10; 16], one([5; 16], 5)), Err(LedgerError::Stripe(..))), "a piece nobody knows");
    add([10; 16], one([4; 16], 5)).unwrap();
}

#[test]
fn what_fails_together_counts_once() {
    let l = ledger(&Arc::new(Memory::default()));
    for (slot, peer) in [b"a", b"b", b"c"].into_iter().enumerate() {
        l.set_holder(PIECE_A, u16::try_from(slot).unwrap(), holder(peer), link).unwrap();
    }
    l.set_published(3, BTreeSet::new());
    assert_eq!(l.counting(&PIECE_A).0, 3);
    let acme = Tags { operator: Some("acme".into()), ..Tags::default() };
    l.update_provider(&b"a".to_vec(), |p| p.declared = acme.clone()).unwrap();
    assert_eq!(l.counting(&PIECE_A).0, 3);
    l.update_provider(&b"c".to_vec(), |p| p.tagged = acme).unwrap();
    assert_eq!(l.counting(&PIECE_A).0, 2);
    assert_eq!(l.live_copies(&PIECE_A), 2);
}

#[test]
fn a_stripe_row_whose_parts_do_not_fit_is_refused() {
    let rows = Arc::new(Memory::default());
    let l = striped(&rows);
    let good = l.piece(&STRIPE).unwrap();
    let short = PieceRow { slots: good.slots[1..].to_vec(), ..good.clone() };
    let older = PieceRow { v: 1, ..good.clone() };
    let longer = PieceRow { raw_len: 1 << 20, ..good };
    for bad in [short, older, longer] {
        rows.commit(vec![([PIECE, &STRIPE].concat(), Some(encode(&bad)))]).unwrap();
        assert!(matches!(Ledger::open(rows.clone()), Err(LedgerError::BadRow(..))));
    }
}

#[test]
fn what_is_given_up_is_told_once_a_head_says_so_and_does_not_come_back() {
    let rows = Arc::new(Memory::default());
    let l = ledger(&rows);
    l.set_holder(PIECE_A, 0, holder(b"a"), link).unwrap();
    l.set_holder(PIECE_A, 1, Holder { deal: vec![2; 32], ..holder(b"b") }, link).unwrap();
    l.give_up(PIECE_A, |_, _, _, chain| link(chain)).unwrap();
    l.give_up(PIECE_A, |_, _, _, chain| link(chain)).unwrap();
    assert_eq!((l.piece(&PIECE_A), l.chain().length), (None, 4));
    // Somebody had listed the drive's pieces before.
    l.add_piece(PIECE_A, 100, 3).unwrap();
    assert_eq!(l.piece(&PIECE_A), None);
    let l = Ledger::open(rows).unwrap();
    assert_eq!((l.piece(&PIECE_A), l.releases_all().unwrap().len()), (None, 2));
    assert!(l.releases().unwrap().is_empty(), "no head says that they do not count");
    l.set_published(3, BTreeSet::new());
    let due = l.releases().unwrap();
    assert_eq!((due.len(), due[0].provider.as_slice()), (1, &b"a"[..]));
    l.released(&due[0].deal).unwrap();
    l.set_published(4, BTreeSet::new());
    assert_eq!(l.releases().unwrap().iter().map(|r| r.deal[0]).collect::<Vec<_>>(), [2]);
}

#[test]
fn a_proof_from_the_future_shows_nothing_once_the_clock_is_right() {
    let l = ledger(&Arc::new(Memory::default()));
    l.set_holder(PIECE_A, 0, holder(b"a"), link).unwrap();
    let proven = |at| {
        let verdict = Verdict { piece: PIECE_A, slot: 0, deal: vec![1; 32], at, fault: None };
        l.record_verdicts(&[verdict]).unwrap();
        l.piece(&PIECE_A).unwrap().slots[0].holder.as_ref().unwrap().proven_at
    };
    assert_eq!(proven(1_000_000), 1_000_000);
    assert_eq!(proven(2000), 2000);
    assert_eq!(proven(1990), 2000, "verdicts come in no order");
}

#[test]
fn what_was_proposed_and_not_gone_on_with_is_ended() {
    let rows = Arc::new(Memory::default());
    let l = ledger(&rows);
    let key = holdfast_net::SigningKey::from_bytes(&[3; 32]);
    let provider = holdfast_net::identity::keypair([7; 32]).unwrap().public().to_peer_id().to_bytes();
    let proposal = |nonce: u8| {
        let mut hasher = holdfast_proofs::commp::CommpHasher::new();
        hasher.update(&[1; 100]);
        let cid = hasher.finish().to_cid().unwrap();
        holdfast_net::DealProposal {
            version: holdfast_net::deal::DEAL_VERSION,
            suite: holdfast_net::deal::DEAL_SUITE,
            client: key.verifying_key().to_bytes(),
            provider: provider.clone(),
            piece_cid: cid,
            raw_len: 100,
            manifest: [0; 32],
            start: 1,
            end: 900,
            price: Vec::new(),
            settlement: 0,
            settlement_data: Vec::new(),
            nonce: [nonce; 16],
        }
        .sign(&key)
        .unwrap()
    };
    let intent = |signed: &holdfast_net::SignedProposal| {
        Some(Intent { provider: b"a".to_vec(), proposal: signed.to_bytes(), since: 1 })
    };
    let ended = || -> Vec<Vec<u8>> { l.releases_all().unwrap().into_iter().map(|r| r.deal).collect() };
    let deals: Vec<_> = (1..=4).map(proposal).collect();
    let id = |n: usize| deals[n].deal_id().0.to_vec();

    l.set_intent(PIECE_A, 0, Some(Intent { provider: b"a".to_vec(), proposal: Vec::new(), since: 1 }))
        .unwrap();
    l.set_intent(PIECE_A, 0, intent(&deals[0])).unwrap();
    l.set_intent(PIECE_A, 0, intent(&deals[0])).unwrap();
    assert!(ended().is_empty());
    l.set_intent(PIECE_A, 0, intent(&deals[1])).unwrap();
    assert_eq!(ended(), [id(0)], "another deal instead");
    l.set_holder(PIECE_A, 0, Holder { deal: id(1), ..holder(b"a") }, link).unwrap();
    assert_eq!(ended(), [id(0)], "the deal that became the copy");
    l.set_intent(PIECE_A, 0, intent(&deals[1])).unwrap();
    l.set_intent(PIECE_A, 0, None).unwrap();
    assert_eq!(ended(), [id(0)], "what holds the copy is not ended by an intent");
    assert!(l.set_intent(PIECE_A, 1, intent(&deals[2])).is_err());
    l.set_intent(PIECE_A, 0, intent(&deals[3])).unwrap();
    l.give_up(PIECE_A, |_, _, _, chain| link(chain)).unwrap();
    let all: BTreeSet<Vec<u8>> = ended().into_iter().collect();
    assert_eq!(
        all,
        BTreeSet::from([id(0), id(1), id(3)]),
        "with the piece its copies and what was asked for go"
    );
}

#[test]
fn a_piece_wants_as_many_copies_as_its_class_and_a_class_only_rises() {
    use holdfast_content::class::Class;
    let rows = Arc::new(Memory::default());
    let l = ledger(&rows);
    l.add_piece([8; 16], 100, 1).unwrap();
    assert_eq!((l.wanted(&PIECE_A, 3), l.highest_class()), (3, Class::DRIVE));
    let raise = |id, class| l.raise(id, class, 3, |_, chain| link(chain)).unwrap();
    assert!(raise(PIECE_A, Class::of(4)) && !raise(PIECE_A, Class::of(2)) && !raise(PIECE_A, Class::DRIVE));
    assert_eq!(l.piece(&PIECE_A).unwrap().slots.len(), 5);
    // Joined with what it was: the drive's policy still counts, should it come to ask for more.
    assert_eq!((l.wanted(&PIECE_A, 3), l.wanted(&PIECE_A, 8)), (5, 8));
    assert_eq!(l.chain().length, 1, "one word in the log");
    assert_eq!(l.highest_class(), Class::DRIVE.join(Class::of(4)));
    let again = Ledger::open(rows.clone()).unwrap();
    assert_eq!(
        (again.pieces(), again.classes()),
        (l.pieces(), vec![(PIECE_A, Class::DRIVE.join(Class::of(4)))])
    );
    assert!(!l.raise([99; 16], Class::of(4), 3, |_, chain| link(chain)).unwrap(), "nobody knows it");
    // It goes, and the log says so of the class as well.
    let mut said = Vec::new();
    l.give_up(PIECE_A, |_, slot, holder, chain| {
        said.push((slot, holder.is_some()));
        link(chain)
    })
    .unwrap();
    assert_eq!(said, [(STRIPE_ITSELF, false)]);
    let damaged = encode(&PieceRow { class: Some(0x7f), ..PieceRow::new(10, 1) });
    rows.commit(vec![([PIECE, &PIECE_A].concat(), Some(damaged))]).unwrap();
    assert!(matches!(Ledger::open(rows), Err(LedgerError::BadRow(..))));
}

#[test]
fn a_piece_may_want_less_than_the_drive_and_come_to_want_as_much() {
    use holdfast_content::class::Class;
    let rows = Arc::new(Memory::default());
    let l = Ledger::open(rows.clone()).unwrap();
    let add = |id, class| l.add_classed(id, 100, class, 3, |_, chain| link(chain)).unwrap();
    add(PIECE_A, Class::of(0));
    add([9; 16], Class::DRIVE);
    assert_eq!((l.wanted(&PIECE_A, 3), l.piece(&PIECE_A).unwrap().slots.len()), (1, 1));
    assert_eq!((l.chain().length, l.classes()), (1, vec![(PIECE_A, Class::of(0))]));
    add(PIECE_A, Class::of(5));
    assert_eq!(l.class(&PIECE_A), Class::of(0), "what is known is left as it is");
    assert!(l.raise(PIECE_A, Class::DRIVE, 3, |_, chain| link(chain)).unwrap());
    assert_eq!((l.class(&PIECE_A), l.wanted(&PIECE_A, 3)), (Class::DRIVE, 3));
    assert_eq!(l.piece(&PIECE_A).unwrap().slots.len(), 3);
    assert_eq!(Ledger::open(rows).unwrap().pieces(), l.pieces());
    let mut said = 0;
    l.give_up(PIECE_A, |_, _, _, chain| {
        said += 1;
        link(chain)
    })
    .unwrap();
    assert_eq!(said, 1, "the log's word of it goes, too");
}

#[test]
fn a_stripe_wants_what_the_piece_in_it_that_wants_most_does() {
    use holdfast_content::class::Class;
    let l = striped(&Arc::new(Memory::default()));
    place_slots(&l);
    l.set_published(l.chain().length, BTreeSet::new());
    assert_eq!(l.wanted(&STRIPE, 3), 3);
    l.raise(PIECES[1], Class::of(3), 3, |_, chain| link(chain)).unwrap();
    assert_eq!((l.wanted(&STRIPE, 3), l.wanted(&PIECES[0], 3), l.wanted(&PIECES[1], 3)), (4, 3, 4));
    assert_eq!(l.piece(&PIECES[1]).unwrap().slots.len(), 4, "it has copies still, and wants one more");
    assert!(!l.drop_copies(PIECES[1], 3, &mut sign).unwrap(), "the stripe is not enough for it");
    assert!(l.drop_copies(PIECES[0], 3, &mut sign).unwrap(), "and is for the other");
    // Kept by the stripe alone: what is to become of it the stripe's rule says.
    l.raise(PIECES[0], Class::of(5), 3, |_, chain| link(chain)).unwrap();
    assert!(l.piece(&PIECES[0]).unwrap().slots.is_empty());
    assert_eq!(l.wanted(&STRIPE, 3), 6);
}
