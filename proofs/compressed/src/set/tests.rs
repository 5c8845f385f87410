use proptest::prelude::*;

use super::*;
use crate::field::hash16;

fn entry(root: u64, leaves: u64) -> SlotEntry {
    SlotEntry { root: TreeRoot(Fr::from(root)), leaves }
}

fn shape() -> Shape {
    Shape::new(2, 1).unwrap()
}

fn set(leaves: &[u64]) -> SlotSet {
    SlotSet::new(shape(), (1..).zip(leaves).map(|(root, leaves)| entry(root, *leaves)).collect()).unwrap()
}

#[test]
fn roots_are_those_of_the_definition() {
    let set = set(&[5, 9, 1, 7, 3, 2, 8, 6, 4, 10]);
    let flat = |children: [(Fr, u64); 8]| {
        let flat: Vec<Fr> = children.iter().flat_map(|(hash, n)| [*hash, Fr::from(*n)]).collect();
        hash16(&flat.try_into().unwrap())
    };
    let zero = (Fr::ZERO, 0);
    let first = flat([5, 9, 1, 7, 3, 2, 8, 6].map({
        let mut root = 0;
        move |n| {
            root += 1;
            (Fr::from(root), n)
        }
    }));
    let second = flat([(Fr::from(9), 4), (Fr::from(10), 10), zero, zero, zero, zero, zero, zero]);
    let nothing = (flat([zero; 8]), 0);
    let top = flat([(first, 41), (second, 14), nothing, nothing, nothing, nothing, nothing, nothing]);
    assert_eq!(set.root(), SetRoot(top));
    assert_eq!(set.leaves(), 55);
}

#[test]
fn leaves_lie_in_their_slots() {
    let set = set(&[5, 9, 1]);
    let slots: Vec<_> = (0..15).map(|leaf| set.locate(leaf).unwrap()).collect();
    assert_eq!((slots[0], slots[4], slots[5]), ((0, 0), (0, 4), (1, 0)));
    assert_eq!((slots[13], slots[14]), ((1, 8), (2, 0)));
    assert_eq!(set.locate(15), None);
}

#[test]
fn what_is_no_set() {
    let new = |slots| SlotSet::new(shape(), slots).unwrap_err();
    assert_eq!(new(vec![]), SetError::Slots { max: 64, found: 0 });
    let many: Vec<_> = (0..65).map(|root| entry(root, 1)).collect();
    assert_eq!(new(many), SetError::Slots { max: 64, found: 65 });
    assert_eq!(new(vec![entry(1, 4), entry(2, 4), entry(1, 5)]), SetError::Twice(2));
    assert_eq!(new(vec![entry(1, 4), entry(2, 0)]), SetError::Leaves(1));
    assert_eq!(new(vec![entry(1, SLOT_LEAVES_MAX + 1)]), SetError::Leaves(0));
}

#[test]
fn a_path_shows_its_slot_and_nothing_else() {
    let leaves: Vec<u64> = (1..=20).collect();
    let set = set(&leaves);
    for slot in 0..leaves.len() {
        let path = set.path(slot).unwrap();
        let path = SetPath::decode(&path.encode().unwrap()).unwrap();
        let share = path.verify(shape(), &set.root(), &set.slots()[slot]).unwrap();
        let first = leaves[..slot].iter().sum();
        assert_eq!(share, SlotShare { first, leaves: leaves[slot], total: 210 });
        let other = &set.slots()[(slot + 1) % leaves.len()];
        assert_eq!(path.verify(shape(), &set.root(), other), Err(SetError::Root));
        let longer = SlotEntry { leaves: leaves[slot] + 1, ..set.slots()[slot] };
        assert_eq!(path.verify(shape(), &set.root(), &longer), Err(SetError::Root));
    }
    assert_eq!(set.path(20), None);
    let path = set.path(3).unwrap();
    assert_eq!(
        path.verify(Shape::new(3, 1).unwrap(), &set.root(), &set.slots()[3]),
        Err(SetError::Malformed)
    );
}

/// A tree whose node claims more leaves than its children have would hide the leaves of the slots behind.
#[test]
fn sums_that_do_not_add_up_are_refused() {
    let set = set(&[4, 5, 6]);
    let mut path = set.path(1).unwrap();
    path.families[0][0].leaves = 14;
    let root = SetRoot(node(&path.families[0]).hash);
    assert_eq!(path.verify(shape(), &root, &set.slots()[1]), Err(SetError::Sum));
    let mut path = set.path(1).unwrap();
    path.families[0][1].leaves = u64::MAX;
    assert_eq!(path.verify(shape(), &set.root(), &set.slots()[1]), Err(SetError::Sum));
    path.families[0][1].leaves = 1 << COUNT_BITS;
    assert_eq!(path.verify(shape(), &set.root(), &set.slots()[1]), Err(SetError::Sum));
}

#[test]
fn any_flipped_bit_of_a_path_is_refused() {
    let set = set(&[4, 5, 6]);
    let bytes = set.path(1).unwrap().encode().unwrap();
    let accepted = |bytes: &[u8]| {
        SetPath::decode(bytes).and_then(|path| path.verify(shape(), &set.root(), &set.slots()[1])).is_ok()
    };
    assert!(accepted(&bytes));
    for bit in 0..bytes.len() * 8 {
        let mut bytes = bytes.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        assert!(!accepted(&bytes), "bit {bit}");
    }
    let mut newer = bytes.clone();
    newer[1] = 2;
    assert_eq!(SetPath::decode(&newer), Err(SetError::Newer(2)));
}

proptest! {
    #[test]
    fn decoding_is_total(bytes in proptest::collection::vec(any::<u8>(), 0..800)) {
        let _ = SetPath::decode(&bytes);
    }

    #[test]
    fn a_damaged_path_is_an_error(at in 0_usize..650, bytes in proptest::collection::vec(any::<u8>(), 1..40)) {
        let set = set(&[4, 5, 6]);
        let mut path = set.path(1).unwrap().encode().unwrap();
        let at = at.min(path.len());
        let end = (at + bytes.len()).min(path.len());
        path.splice(at..end, bytes);
        if let Ok(decoded) = SetPath::decode(&path) {
            let verdict = decoded.verify(shape(), &set.root(), &set.slots()[1]);
            prop_assert!(verdict.is_err() || decoded == set.path(1).unwrap());
        }
    }
}
