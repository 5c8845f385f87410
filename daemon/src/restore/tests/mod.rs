#![allow(clippy::unwrap_used)]

mod heads;
pub(crate) mod keeper;

use super::*;
use crate::drive::ledger::{Ledger, MemoryRows};
use crate::workers::place::proposal;
use holdfast_content::block::{BlockAt, CODEC_RAW, cid_of};
use holdfast_content::commit::CommitRef;
use holdfast_content::keys::{Mnemonic, SecretKey32};
use holdfast_content::placement::{ChainEnd, PlacementFacts, STRIPE_ITSELF};
use holdfast_proofs::PieceCid;

const STRIPE: PieceId = [9; 16];

pub(crate) fn keys() -> DriveKeys {
    Mnemonic::from_entropy([1; 32]).root_key().generation(1).keys()
}

fn slot_cid(n: u8, len: u64) -> cid::Cid {
    PieceCid::new(len, [n; 32]).unwrap().to_cid().unwrap()
}

/// A head of nothing.
pub(crate) fn empty_head() -> HeadBody {
    Chain::new().head(0)
}

/// Entries one after the other, as the owner signs them.
struct Chain {
    keys: DriveKeys,
    end: ChainEnd,
    entries: Vec<PlacementEntry>,
}

impl Chain {
    fn new() -> Self {
        Self { keys: keys(), end: ChainEnd::default(), entries: Vec::new() }
    }

    fn say(&mut self, action: PlacementAction, piece: PieceId, slot: u16, holder: &[u8], receipt: Vec<u8>) {
        let itself = slot == STRIPE_ITSELF;
        let facts = PlacementFacts {
            action,
            piece,
            raw_len: 1000,
            slot,
            holder: holder.to_vec(),
            slot_cid: if itself { Vec::new() } else { vec![u8::try_from(slot).unwrap(); 40] },
            deal: if itself { Vec::new() } else { vec![7; 32] },
            receipt,
            time: 5,
        };
        let entry = PlacementEntry::sign(facts, &self.end, self.keys.placement_signing()).unwrap();
        self.end = entry.chain_end();
        self.entries.push(entry);
    }

    /// Declares 2+1 over pieces of 1000 and 990 bytes.
    fn declare(&mut self, signer: &holdfast_net::SigningKey) {
        let pieces = vec![StripePiece { id: [1; 16], len: 1000 }, StripePiece { id: [2; 16], len: 990 }];
        let stripe = StripeRow { parity: 1, pieces, entry: 0 };
        let cids = vec![slot_cid(1, 1000), slot_cid(2, 990), slot_cid(3, 1024)];
        let manifest = proposal::striped(STRIPE, &stripe, cids, signer.verifying_key().to_bytes()).unwrap();
        let signed = manifest.sign(signer).unwrap().as_bytes().to_vec();
        self.say(PlacementAction::Stripe, STRIPE, STRIPE_ITSELF, &[], signed);
    }

    fn head(&self, covers: usize) -> HeadBody {
        let at = BlockAt { cid: cid_of(CODEC_RAW, b"x"), piece: [1; 16], offset: 0, len: 1 };
        let key = SecretKey32::from_bytes([0; 32]);
        let place = PhysicalRef { at, key: key.clone() };
        HeadBody {
            sequence: 1,
            term: 1,
            device: [0; 16],
            time: 1,
            commit: CommitRef { root: at.cid, at, key },
            complete: None,
            location: place,
            checkpoint: None,
            checkpoint_chains: BTreeMap::new(),
            tail: self.entries.iter().skip(covers).cloned().collect(),
            providers: Vec::new(),
            keyring: [0; 32],
        }
    }

    /// What a restore makes of it, when a checkpoint covers the first entries.
    fn imported(&self, covers: usize) -> anyhow::Result<Imported> {
        let owner = self.keys.placement_signing().verifying_key().to_bytes();
        let (mut newest, mut chains) = (BTreeMap::new(), BTreeMap::new());
        for entry in self.entries.iter().take(covers) {
            newest.insert((entry.body().piece, entry.body().slot), entry.clone());
            chains.insert(owner, entry.chain_end());
        }
        let held = newest.into_values().filter(|entry| entry.body().action != PlacementAction::Remove);
        let log = Log::from_checkpoint(owner, Vec::new(), chains, held);
        import(log, &self.head(covers), owner, 10, 3)
    }
}

#[test]
fn stripes_and_what_only_they_keep_come_back_from_the_log() {
    use PlacementAction::{Add, Remove};
    let mut chain = Chain::new();
    for (slot, peer) in [b"a", b"b", b"c"].into_iter().enumerate() {
        chain.say(Add, [1; 16], u16::try_from(slot).unwrap(), peer, vec![1]);
        chain.say(Add, [3; 16], u16::try_from(slot).unwrap(), peer, vec![1]);
    }
    let owner = keys().placement_signing().clone();
    chain.declare(&owner);
    for (slot, peer) in [b"a", b"b", b"c"].into_iter().enumerate() {
        chain.say(Add, STRIPE, u16::try_from(slot).unwrap(), peer, vec![1]);
    }
    // The first piece's copies are surplus; its second slot had moved before.
    chain.say(Add, [1; 16], 1, b"d", vec![1]);
    for (slot, peer) in [b"a", b"d", b"c"].into_iter().enumerate() {
        chain.say(Remove, [1; 16], u16::try_from(slot).unwrap(), peer, Vec::new());
    }
    for covers in 0..=chain.entries.len() {
        let found = chain.imported(covers).unwrap();
        assert_eq!(found.pieces.len(), 4, "with {covers} entries in the checkpoint");
        let stripe = &found.pieces[&STRIPE];
        assert!(stripe.is_sound() && stripe.holders().count() == 3);
        let held = found.pieces[&[3; 16]].holders().count();
        assert_eq!((found.pieces[&[1; 16]].holders().count(), held), (0, 3), "{covers} entries");
        assert_eq!((found.pieces[&[2; 16]].raw_len, found.pieces[&[2; 16]].slots.len()), (990, 0));
        assert_eq!(survive_losses(&found), 2);
        let ledger = Ledger::open(Arc::new(MemoryRows::default())).unwrap();
        ledger.import(found).unwrap();
        assert_eq!(ledger.stripe_of(&[2; 16]).map(|(id, _, slot)| (id, slot)), Some((STRIPE, 1)));
        assert_eq!(ledger.chain(), chain.end);
    }
    // Dissolved: what it was is no row any more.
    for (slot, peer) in [b"a", b"b", b"c"].into_iter().enumerate() {
        chain.say(Remove, STRIPE, u16::try_from(slot).unwrap(), peer, Vec::new());
    }
    chain.say(Remove, STRIPE, STRIPE_ITSELF, &[], Vec::new());
    for covers in [0, 8, chain.entries.len()] {
        let found = chain.imported(covers).unwrap();
        assert_eq!(found.pieces.get(&STRIPE), None, "with {covers} entries in the checkpoint");
    }
}

#[test]
fn a_manifest_that_the_owner_did_not_sign_declares_nothing() {
    let mut chain = Chain::new();
    chain.declare(&holdfast_net::SigningKey::from_bytes(&[5; 32]));
    assert!(chain.imported(0).is_err());
    let mut chain = Chain::new();
    chain.say(PlacementAction::Stripe, STRIPE, STRIPE_ITSELF, &[], vec![1, 2, 3]);
    assert!(chain.imported(0).is_err());
}

#[test]
fn the_policy_is_read_from_copies_and_not_from_stripes() {
    let mut chain = Chain::new();
    let owner = keys().placement_signing().clone();
    chain.say(PlacementAction::Add, [3; 16], 1, b"a", vec![1]);
    chain.declare(&owner);
    chain.say(PlacementAction::Add, STRIPE, 2, b"a", vec![1]);
    assert_eq!(survived(&chain.head(0)), Some(1));
}

#[test]
fn classes_come_back_from_the_log_and_say_nothing_of_the_drives_own_policy() {
    use PlacementAction::{Add, Class as Said, Remove};
    let mut chain = Chain::new();
    let note = |class| ClassNote { class, drive: 1 }.encode();
    let (safe, scratch) = (Class::DRIVE.join(Class::of(4)), Class::of(0));
    chain.say(Said, [1; 16], STRIPE_ITSELF, &[], note(Class::of(3)));
    for slot in 0..5 {
        chain.say(Add, [1; 16], slot, &[b'a' + u8::try_from(slot).unwrap()], vec![1]);
    }
    chain.say(Add, [2; 16], 0, b"a", vec![1]);
    chain.say(Add, [2; 16], 1, b"b", vec![1]);
    chain.say(Said, [3; 16], STRIPE_ITSELF, &[], note(scratch));
    chain.say(Add, [3; 16], 0, b"a", vec![1]);
    chain.say(Said, [1; 16], STRIPE_ITSELF, &[], note(safe));
    assert_eq!(survived(&chain.head(0)), Some(1));
    let owner = keys().placement_signing().verifying_key().to_bytes();
    let log = Log::from_checkpoint(owner, Vec::new(), BTreeMap::new(), Vec::new());
    let found = import(log, &chain.head(0), owner, 10, 2).unwrap();
    assert_eq!(survive_losses(&found), 1);
    for covers in 0..=chain.entries.len() {
        let found = chain.imported(covers).unwrap();
        let row = |n: u8| &found.pieces[&[n; 16]];
        assert!(found.pieces.values().all(PieceRow::is_sound), "{covers} entries in the checkpoint");
        assert_eq!([row(1).class(), row(2).class(), row(3).class()], [safe, Class::DRIVE, scratch]);
        assert_eq!([row(1).slots.len(), row(3).slots.len()], [5, 1]);
        assert_eq!(found.drive_losses, Some(1));
    }
    chain.say(Remove, [3; 16], 0, b"a", Vec::new());
    chain.say(Remove, [3; 16], STRIPE_ITSELF, &[], Vec::new());
    for covers in 0..=chain.entries.len() {
        assert_eq!(chain.imported(covers).unwrap().pieces.get(&[3; 16]), None);
    }
}
