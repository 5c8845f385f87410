use proptest::prelude::*;

use super::*;
use crate::testing::{TestSlot, payload};
use crate::tree::{SlotTreeBuilder, StoredLevel, TreeRoot};

fn slot(len: usize) -> TestSlot {
    TestSlot::new(payload(len, 9), StoredLevel::DEFAULT)
}

fn bound(slot: &TestSlot, challenge: &Challenge) -> BindingProof {
    open_binding(&slot.payload, &slot.cache(), &slot.tree(), challenge).unwrap()
}

/// The commitment of a cheater: the piece is the slot's, the tree is over other bytes.
fn false_commitment(slot: &TestSlot, change: impl Fn(&mut Vec<u8>)) -> (SlotCommitment, Vec<u8>) {
    let mut bytes = slot.payload.clone();
    change(&mut bytes);
    let mut builder = SlotTreeBuilder::new(StoredLevel::DEFAULT);
    builder.update(&bytes, 1);
    let mut file = builder.drain();
    let (commitment, rest) = builder.finish(&slot.piece).unwrap();
    file.extend(rest);
    (commitment, file)
}

#[test]
fn honest_openings_are_accepted() {
    for (len, count) in [(20, 1), (127, 4), (762, 24), (5_000, 24), (100_000, 512)] {
        let slot = slot(len);
        let challenge = Challenge::new([3; 32], count).unwrap();
        let bytes = bound(&slot, &challenge).encode().unwrap();
        assert!(bytes.len() <= BINDING_BYTES_MAX);
        let binding =
            check_binding(&slot.commitment, &challenge, &BindingProof::decode(&bytes).unwrap()).unwrap();
        assert_eq!((binding.slot(), binding.openings()), (&slot.commitment, count));
        assert_eq!(binding.exhaustive(), slot.piece.leaf_count() <= u64::from(count), "{len}");
    }
}

/// A tree over other bytes: every challenge that meets a differing leaf fails, every other passes.
#[test]
fn a_tree_over_other_bytes_is_found_where_it_is_asked() {
    let slot = slot(20_000);
    let (commitment, _) = false_commitment(&slot, |bytes| bytes[10_000..].fill(0));
    let changed = 10_000 * 8 / 254;
    let mut passed = 0;
    for seed in 0..60 {
        let challenge = Challenge::new([seed; 32], 2).unwrap();
        let positions = challenge.positions(&slot.piece).unwrap();
        // The cheater keeps the slot too; it lacks nothing, and its tree is still not the slot's.
        let (_, file) = false_commitment(&slot, |bytes| bytes[10_000..].fill(0));
        let tree = SlotTree::open(file.as_slice(), &commitment).unwrap();
        let mut bytes = slot.payload.clone();
        bytes[10_000..].fill(0);
        let opened = tree.open_leaves(&bytes, &positions).unwrap();
        let siblings = siblings(&opened, &positions, slot.piece.leaf_count()).unwrap();
        let proof = BindingProof {
            possession: prove(&slot.payload, &slot.cache(), &challenge).unwrap(),
            siblings: siblings.iter().map(to_node).collect(),
        };
        let verdict = check_binding(&commitment, &challenge, &proof);
        let meets = positions.iter().any(|position| *position >= changed);
        assert_eq!(verdict.is_ok(), !meets, "{positions:?}");
        passed += usize::from(verdict.is_ok());
    }
    // A half passes two openings with a quarter.
    assert!((5..=27).contains(&passed), "{passed}");
}

#[test]
fn any_flipped_bit_is_refused() {
    let slot = slot(1_500);
    let challenge = Challenge::new([5; 32], 2).unwrap();
    let bytes = bound(&slot, &challenge).encode().unwrap();
    let accepted = |commitment: &SlotCommitment, challenge: &Challenge, bytes: &[u8]| {
        BindingProof::decode(bytes).and_then(|proof| check_binding(commitment, challenge, &proof)).is_ok()
    };
    assert!(accepted(&slot.commitment, &challenge, &bytes));
    for bit in 0..bytes.len() * 8 {
        let mut bytes = bytes.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        assert!(!accepted(&slot.commitment, &challenge, &bytes), "bit {bit}");
    }
    for bit in 0..256 {
        let mut root = slot.commitment.root().to_bytes();
        root[bit / 8] ^= 1 << (bit % 8);
        if let Ok(root) = TreeRoot::from_bytes(&root) {
            let commitment = SlotCommitment::new(slot.piece, root).unwrap();
            assert!(!accepted(&commitment, &challenge, &bytes), "root bit {bit}");
        }
        let mut seed = *challenge.seed();
        seed[bit / 8] ^= 1 << (bit % 8);
        let other = Challenge::new(seed, 2).unwrap();
        let same = other.positions(&slot.piece) == challenge.positions(&slot.piece);
        assert!(same || !accepted(&slot.commitment, &other, &bytes), "seed bit {bit}");
    }
}

#[test]
fn what_each_fault_is_called() {
    let slot = slot(5_000);
    let challenge = Challenge::new([1; 32], 4).unwrap();
    let proof = bound(&slot, &challenge);
    let check = |change: &dyn Fn(&mut BindingProof)| {
        let mut proof = proof.clone();
        change(&mut proof);
        check_binding(&slot.commitment, &challenge, &proof).unwrap_err()
    };
    assert!(matches!(check(&|p| p.siblings.truncate(3)), BindingError::Root));
    assert!(matches!(check(&|p| p.siblings.push([0; 32])), BindingError::Root));
    assert!(matches!(check(&|p| p.siblings.swap(0, 1)), BindingError::Root));
    assert!(matches!(check(&|p| p.siblings[0] = [0xff; 32]), BindingError::Malformed));
    let other = Challenge::new([2; 32], 4).unwrap();
    let error = check_binding(&slot.commitment, &other, &proof).unwrap_err();
    assert!(matches!(error, BindingError::Possession(_)));
    let mut newer = proof.encode().unwrap();
    newer[1] = 2;
    assert!(matches!(BindingProof::decode(&newer), Err(BindingError::Newer(2))));
    let long = vec![0; BINDING_BYTES_MAX + 1];
    assert!(matches!(BindingProof::decode(&long), Err(BindingError::TooLong(_))));
    let neighbour = TestSlot::new(payload(5_000, 10), StoredLevel::DEFAULT);
    let mixed = open_binding(&slot.payload, &slot.cache(), &neighbour.tree(), &challenge);
    assert!(matches!(mixed, Err(BindingError::OtherPiece)));
}

proptest! {
    #[test]
    fn decoding_is_total(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        let _ = BindingProof::decode(&bytes);
        let mut framed = vec![0x83, 1];
        framed.extend(bytes);
        let _ = BindingProof::decode(&framed);
    }
}
