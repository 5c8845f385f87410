#![allow(clippy::unwrap_used)]

use super::*;
use crate::keys::{Mnemonic, TreeDomain};
use crate::tree::MemorySource;
use proptest::prelude::*;

fn owner() -> SigningKey {
    Mnemonic::from_entropy([1; 32]).root_key().generation(1).keys().placement_signing().clone()
}

fn facts(n: u8, action: PlacementAction) -> PlacementFacts {
    PlacementFacts {
        action,
        piece: [n; 16],
        raw_len: 64 << 20,
        slot: u16::from(n),
        holder: vec![n; 38],
        slot_cid: vec![2; 39],
        deal: vec![3; 32],
        receipt: vec![4; 300],
        time: 1_800_000_000,
    }
}

#[test]
fn chains_merge_by_union() {
    let (owner, friend, stranger) =
        (owner(), SigningKey::from_bytes(&[7; 32]), SigningKey::from_bytes(&[8; 32]));
    let mut end = ChainEnd::default();
    let mut chain = Vec::new();
    for n in 0..3 {
        let entry = PlacementEntry::sign(facts(n, PlacementAction::Add), &end, &owner).unwrap();
        end = entry.chain_end();
        chain.push(entry);
    }
    chain.push(PlacementEntry::sign(facts(1, PlacementAction::Remove), &end, &owner).unwrap());
    let added = PlacementEntry::sign(facts(9, PlacementAction::Add), &ChainEnd::default(), &friend).unwrap();

    let keys = |key: &SigningKey| key.verifying_key().to_bytes();
    let mut log = Log::new(keys(&owner), vec![keys(&friend)]);
    assert_eq!(log.merge(chain[1].clone()), Err(LogError::Gap { have: 0, found: 1 }));
    log.merge(added.clone()).unwrap();
    for entry in &chain {
        log.merge(entry.clone()).unwrap();
    }
    let placed = |log: &Log| log.placed().map(|(at, _)| at.slot).collect::<Vec<_>>();
    assert_eq!(placed(&log), [0, 2, 9]);
    for entry in chain.iter().chain([&added]) {
        log.merge(entry.clone()).unwrap();
    }
    assert_eq!(placed(&log), [0, 2, 9], "merging twice changes nothing");

    let mut other = Log::new(keys(&owner), vec![keys(&friend)]);
    chain.iter().chain([&added]).for_each(|entry| other.merge(entry.clone()).unwrap());
    assert!(log.placed().eq(other.placed()), "the order of chains does not matter");

    // The friend adds again what the owner has removed, or had not: either way the owner's word stands.
    let again = PlacementEntry::sign(facts(1, PlacementAction::Add), &added.chain_end(), &friend).unwrap();
    let mut late = log.clone();
    late.merge(again.clone()).unwrap();
    let mut early = Log::new(keys(&owner), vec![keys(&friend)]);
    [&added, &again].into_iter().chain(&chain).for_each(|entry| early.merge(entry.clone()).unwrap());
    assert_eq!(placed(&late), [0, 2, 9]);
    assert!(late.in_force().eq(early.in_force()));

    let fork = PlacementEntry::sign(facts(5, PlacementAction::Add), &chain[2].chain_end(), &owner).unwrap();
    assert_eq!(log.merge(fork), Err(LogError::Fork(3)));
    let removal =
        PlacementEntry::sign(facts(0, PlacementAction::Remove), &added.chain_end(), &friend).unwrap();
    assert_eq!(log.merge(removal), Err(LogError::NotOwner));
    let foreign =
        PlacementEntry::sign(facts(0, PlacementAction::Add), &ChainEnd::default(), &stranger).unwrap();
    assert_eq!(log.merge(foreign), Err(LogError::UnknownAuthor));
}

#[test]
fn a_checkpoint_carries_the_log_on() {
    let owner = owner();
    let keys = Mnemonic::from_entropy([1; 32]).root_key().generation(1).keys();
    let name = owner.verifying_key().to_bytes();
    let mut log = Log::new(name, Vec::new());
    for n in 0..200 {
        let entry =
            PlacementEntry::sign(facts(n, PlacementAction::Add), &log.chain_end(&name), &owner).unwrap();
        log.merge(entry).unwrap();
    }
    let tree = PlacementTree::new(keys.tree(TreeDomain::Placement), 2 << 20);
    let mut store = MemorySource::new();
    let mut edits: Vec<Edit> = log.placed().map(|(_, entry)| checkpoint_put(entry)).collect();
    edits.sort_by(|a, b| a.key.cmp(&b.key));
    let root = tree.apply(&MemorySource::new(), None, edits, &mut store).unwrap().root;
    let entries: Vec<PlacementEntry> = tree
        .iter(&store, &root, &[], None)
        .unwrap()
        .map(|row| PlacementEntry::verify(&row.unwrap().value).unwrap())
        .collect();
    let mut restored = Log::from_checkpoint(name, Vec::new(), log.chains().clone(), entries);
    assert!(restored.placed().eq(log.placed()));
    let next =
        PlacementEntry::sign(facts(200, PlacementAction::Add), &restored.chain_end(&name), &owner).unwrap();
    restored.merge(next).unwrap();
    assert_eq!(restored.placed().count(), 201);
}

#[test]
fn golden_and_every_changed_byte() {
    let entry = PlacementEntry::sign(facts(1, PlacementAction::Add), &ChainEnd::default(), &owner()).unwrap();
    assert_eq!(PlacementEntry::verify(entry.bytes()).unwrap(), entry);
    crate::golden::check("placement", &data_encoding::HEXLOWER.encode(entry.bytes()));
    for at in 0..entry.bytes().len() {
        let mut changed = entry.bytes().to_vec();
        changed[at] ^= 1;
        assert!(PlacementEntry::verify(&changed).is_err(), "byte {at}");
    }
    let long = PlacementFacts { receipt: vec![0; RECEIPT_BYTES_MAX + 1], ..facts(1, PlacementAction::Add) };
    assert!(PlacementEntry::sign(long, &ChainEnd::default(), &owner()).is_err());
}

proptest! {
    #[test]
    fn verification_is_total(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        prop_assert!(PlacementEntry::verify(&bytes).is_err());
    }
}

#[test]
fn stripes_are_declared_by_the_owner_and_removed_again() {
    let (owner, friend) = (owner(), SigningKey::from_bytes(&[7; 32]));
    let declared = |author: &SigningKey, end: &ChainEnd| {
        let none = Vec::new;
        let facts = PlacementFacts {
            holder: none(),
            slot_cid: none(),
            deal: none(),
            slot: STRIPE_ITSELF,
            ..facts(5, PlacementAction::Stripe)
        };
        PlacementEntry::sign(facts, end, author).unwrap()
    };
    let keys = |key: &SigningKey| key.verifying_key().to_bytes();
    let mut log = Log::new(keys(&owner), vec![keys(&friend)]);
    assert_eq!(log.merge(declared(&friend, &ChainEnd::default())), Err(LogError::NotOwner));
    let stripe = declared(&owner, &ChainEnd::default());
    assert_eq!(PlacementEntry::verify(stripe.bytes()).unwrap(), stripe);
    log.merge(stripe.clone()).unwrap();
    assert_eq!(log.stripes().count(), 1);
    assert_eq!(log.placed().count(), 0, "a stripe is no slot");
    let gone =
        PlacementFacts { holder: Vec::new(), slot: STRIPE_ITSELF, ..facts(5, PlacementAction::Remove) };
    log.merge(PlacementEntry::sign(gone, &stripe.chain_end(), &owner).unwrap()).unwrap();
    assert_eq!(log.stripes().count(), 0);
}

#[test]
fn public_pieces_are_declared_by_the_owner_and_withdrawn_again() {
    let (owner, friend) = (owner(), SigningKey::from_bytes(&[7; 32]));
    let note = crate::publication::tests::sample().encode().unwrap();
    let declared = |receipt: Vec<u8>| {
        let (holder, slot_cid, deal) = (Vec::new(), Vec::new(), Vec::new());
        let slot = STRIPE_ITSELF;
        PlacementFacts { holder, slot_cid, deal, slot, receipt, ..facts(5, PlacementAction::Public) }
    };
    let keys = |key: &SigningKey| key.verifying_key().to_bytes();
    let mut log = Log::new(keys(&owner), vec![keys(&friend)]);
    let of_friend = PlacementEntry::sign(declared(note.clone()), &ChainEnd::default(), &friend).unwrap();
    assert_eq!(log.merge(of_friend), Err(LogError::NotOwner));
    assert!(PlacementEntry::sign(declared(b"no note".to_vec()), &ChainEnd::default(), &owner).is_err());
    let public = PlacementEntry::sign(declared(note), &ChainEnd::default(), &owner).unwrap();
    assert_eq!(PlacementEntry::verify(public.bytes()).unwrap(), public);
    log.merge(public.clone()).unwrap();
    assert_eq!((log.public().count(), log.stripes().count(), log.placed().count()), (1, 0, 0));
    let gone =
        PlacementFacts { holder: Vec::new(), slot: STRIPE_ITSELF, ..facts(5, PlacementAction::Remove) };
    log.merge(PlacementEntry::sign(gone, &public.chain_end(), &owner).unwrap()).unwrap();
    assert_eq!(log.public().count(), 0);
}

#[test]
fn capabilities_are_declared_by_the_owner_and_changed_by_a_later_word() {
    let (owner, friend) = (owner(), SigningKey::from_bytes(&[7; 32]));
    let mut note = crate::watch::tests::sample();
    let declared = |receipt: Vec<u8>| {
        let (holder, slot_cid, deal) = (Vec::new(), Vec::new(), Vec::new());
        let slot = STRIPE_ITSELF;
        PlacementFacts { holder, slot_cid, deal, slot, receipt, ..facts(5, PlacementAction::Watch) }
    };
    let keys = |key: &SigningKey| key.verifying_key().to_bytes();
    let mut log = Log::new(keys(&owner), vec![keys(&friend)]);
    let first = declared(note.encode().unwrap());
    let of_friend = PlacementEntry::sign(first.clone(), &ChainEnd::default(), &friend).unwrap();
    assert_eq!(log.merge(of_friend), Err(LogError::NotOwner));
    assert!(PlacementEntry::sign(declared(b"no note".to_vec()), &ChainEnd::default(), &owner).is_err());
    let first = PlacementEntry::sign(first, &ChainEnd::default(), &owner).unwrap();
    note.revoked = Some(9);
    let second = declared(note.encode().unwrap());
    let second = PlacementEntry::sign(second, &first.chain_end(), &owner).unwrap();
    log.merge(first).unwrap();
    log.merge(second.clone()).unwrap();
    assert_eq!(log.watches().collect::<Vec<_>>(), [&second]);
    assert_eq!((log.public().count(), log.stripes().count(), log.placed().count()), (0, 0, 0));
}

#[test]
fn links_are_declared_by_the_owner_and_taken_back_by_a_later_word() {
    let (owner, friend) = (owner(), SigningKey::from_bytes(&[7; 32]));
    let mut note = crate::share::tests::sample();
    let declared = |receipt: Vec<u8>| {
        let (holder, slot_cid, deal) = (Vec::new(), Vec::new(), Vec::new());
        let slot = STRIPE_ITSELF;
        PlacementFacts { holder, slot_cid, deal, slot, receipt, ..facts(5, PlacementAction::Share) }
    };
    let keys = |key: &SigningKey| key.verifying_key().to_bytes();
    let mut log = Log::new(keys(&owner), vec![keys(&friend)]);
    let first = declared(note.encode().unwrap());
    let of_friend = PlacementEntry::sign(first.clone(), &ChainEnd::default(), &friend).unwrap();
    assert_eq!(log.merge(of_friend), Err(LogError::NotOwner));
    assert!(PlacementEntry::sign(declared(b"no note".to_vec()), &ChainEnd::default(), &owner).is_err());
    let held = PlacementFacts { holder: vec![1], ..first.clone() };
    assert!(PlacementEntry::sign(held, &ChainEnd::default(), &owner).is_err());
    let first = PlacementEntry::sign(first, &ChainEnd::default(), &owner).unwrap();
    note.revoked = true;
    let second = declared(note.encode().unwrap());
    let second = PlacementEntry::sign(second, &first.chain_end(), &owner).unwrap();
    log.merge(first).unwrap();
    log.merge(second.clone()).unwrap();
    assert_eq!(log.shares().collect::<Vec<_>>(), [&second]);
    assert_eq!((log.watches().count(), log.public().count(), log.placed().count()), (0, 0, 0));
}

#[test]
fn the_last_word_about_a_class_counts_and_only_the_owners() {
    use crate::class::{Class, ClassNote};
    let (owner, friend) = (owner(), SigningKey::from_bytes(&[9; 32]));
    let declared = |receipt: Vec<u8>| {
        let (holder, slot_cid, deal, slot) = (Vec::new(), Vec::new(), Vec::new(), STRIPE_ITSELF);
        PlacementFacts { holder, slot_cid, deal, slot, receipt, ..facts(5, PlacementAction::Class) }
    };
    let of = |losses| declared(ClassNote { class: Class::of(losses), drive: 1 }.encode());
    let mut log = Log::new(owner.verifying_key().to_bytes(), vec![friend.verifying_key().to_bytes()]);
    let of_friend = PlacementEntry::sign(of(0), &ChainEnd::default(), &friend).unwrap();
    assert_eq!(log.merge(of_friend), Err(LogError::NotOwner));
    assert!(PlacementEntry::sign(declared(vec![1, 77, 0]), &ChainEnd::default(), &owner).is_err());
    let held = PlacementFacts { holder: vec![1], ..of(3) };
    assert!(PlacementEntry::sign(held, &ChainEnd::default(), &owner).is_err());
    let first = PlacementEntry::sign(of(3), &ChainEnd::default(), &owner).unwrap();
    let second = PlacementEntry::sign(of(4), &first.chain_end(), &owner).unwrap();
    log.merge(first).unwrap();
    log.merge(second.clone()).unwrap();
    assert_eq!(log.classes().collect::<Vec<_>>(), [&second]);
    assert_eq!((log.stripes().count(), log.placed().count()), (0, 0));
    let (holder, slot) = (Vec::new(), STRIPE_ITSELF);
    let gone = PlacementFacts { holder, slot, ..facts(5, PlacementAction::Remove) };
    log.merge(PlacementEntry::sign(gone, &second.chain_end(), &owner).unwrap()).unwrap();
    assert_eq!(log.classes().count(), 0);
}

#[test]
fn contradicting_entries_are_refused() {
    let owner = owner();
    let sign = |facts| PlacementEntry::sign(facts, &ChainEnd::default(), &owner);
    let held = PlacementFacts { slot: STRIPE_ITSELF, ..facts(5, PlacementAction::Stripe) };
    assert!(sign(held).is_err(), "a stripe with a holder");
    assert!(sign(PlacementFacts { slot: STRIPE_ITSELF, ..facts(5, PlacementAction::Add) }).is_err());
    // A declaration that says it is of the version that has none.
    let mut body = sign(facts(1, PlacementAction::Add)).unwrap().body().clone();
    body.version = 2;
    assert!(body.check().is_err());
    body.version = 7;
    let bytes = dagcbor::encode(WHAT, &body).unwrap();
    assert!(matches!(PlacementBody::decode(&bytes), Err(FormatError::Newer { .. })));
}
