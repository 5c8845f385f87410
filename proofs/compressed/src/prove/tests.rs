use super::*;
use crate::testing::{LENS, TestSlot, parameters, payload, rng, set_of, slots, small};
use crate::tree::StoredLevel;
use crate::verify::verify;

/// Proves with the slots' payload passed through `change`.
fn prove_with(
    set: &SlotSet,
    slots: &[TestSlot],
    audit: &Audit,
    change: impl Fn(usize, &mut Vec<u8>),
) -> Result<CompressedProof, CompressError> {
    let open = |index: usize, _: &SlotEntry| {
        let mut payload = slots[index].payload.clone();
        change(index, &mut payload);
        Ok::<_, CompressError>((payload, slots[index].tree()))
    };
    prove(parameters(), set, audit, open, &mut rng(1))
}

fn asked(set: &SlotSet, audit: &Audit) -> (usize, u64) {
    set.locate(draws(audit, set.leaves())[0].leaf).unwrap()
}

/// Slots of one leaf to a thousand, whichever the draw falls on.
#[test]
fn slots_of_every_height_are_proven() {
    let slots = slots(&[20, 127, 254, 2_000, 30_000]);
    let set = set_of(small(), &slots);
    let mut seen = std::collections::BTreeSet::new();
    // Seeds until each of the larger slots was asked: draws fall on a slot as often as it has leaves.
    for fresh in (0_u8..).filter(|fresh| {
        let audit = Audit::new(small(), &set.root(), &[*fresh; 32]);
        seen.insert(asked(&set, &audit).0)
    }) {
        let audit = Audit::new(small(), &set.root(), &[fresh; 32]);
        let proof = prove_with(&set, &slots, &audit, |_, _| ()).unwrap();
        assert!(verify(&parameters().verifying_key(), &audit, &proof).is_ok());
        if asked(&set, &audit).0 == 3 {
            break;
        }
    }
}

#[test]
fn proofs_of_one_audit_differ_and_both_hold() {
    let slots = slots(&LENS);
    let set = set_of(small(), &slots);
    let audit = Audit::new(small(), &set.root(), &[9; 32]);
    let open = |index: usize, _: &SlotEntry| {
        Ok::<_, CompressError>((slots[index].payload.as_slice(), slots[index].tree()))
    };
    let first = prove(parameters(), &set, &audit, open, &mut rng(1)).unwrap();
    let second = prove(parameters(), &set, &audit, open, &mut rng(2)).unwrap();
    assert_ne!(first, second);
}

#[test]
fn a_lost_leaf_that_is_asked_is_an_error_and_another_is_not() {
    let slots = slots(&LENS);
    let set = set_of(small(), &slots);
    let audit = Audit::new(small(), &set.root(), &[9; 32]);
    let (slot, leaf) = asked(&set, &audit);
    let byte = usize::try_from(leaf * 254 / 8 + 1).unwrap();
    let lost = prove_with(&set, &slots, &audit, |index, payload| {
        if index == slot {
            payload[byte] ^= 1;
        }
    });
    let error = lost.unwrap_err();
    let CompressError::Tree { slot: found, error: TreeError::PayloadDamaged { first, end } } = error else {
        panic!("{error}")
    };
    assert!(found == slot && (first..end).contains(&leaf));
    let elsewhere = prove_with(&set, &slots, &audit, |index, payload| {
        if index != slot {
            payload.clear();
        }
    });
    assert!(elsewhere.is_ok());
}

#[test]
fn what_does_not_belong_together_is_refused() {
    let slots = slots(&LENS);
    let set = set_of(small(), &slots);
    let audit = Audit::new(small(), &set.root(), &[9; 32]);
    let other = TestSlot::new(payload(400, 99), StoredLevel::DEFAULT);
    let open = |_: usize, _: &SlotEntry| Ok::<_, CompressError>((other.payload.as_slice(), other.tree()));
    let error = prove(parameters(), &set, &audit, open, &mut rng(1)).unwrap_err();
    assert!(matches!(error, CompressError::OtherSlot(_)));
    let elsewhere = set_of(small(), &slots[1..]);
    let error = prove_with(&elsewhere, &slots[1..], &audit, |_, _| ()).unwrap_err();
    assert!(matches!(error, CompressError::OtherSet));
    let wider = Shape::new(3, 1).unwrap();
    let set = set_of(wider, &slots);
    let audit = Audit::new(wider, &set.root(), &[9; 32]);
    let error = prove_with(&set, &slots, &audit, |_, _| ()).unwrap_err();
    assert!(matches!(error, CompressError::Shape { .. }));
}

/// Parameters with a wrong point make a proof that is refused before anybody else sees it.
#[test]
fn damaged_parameters_are_found_by_the_prover() {
    let slots = slots(&LENS);
    let set = set_of(small(), &slots);
    let audit = Audit::new(small(), &set.root(), &[9; 32]);
    let damaged = parameters().with_a_wrong_point();
    let open = |index: usize, _: &SlotEntry| {
        Ok::<_, CompressError>((slots[index].payload.as_slice(), slots[index].tree()))
    };
    let error = prove(&damaged, &set, &audit, open, &mut rng(1)).unwrap_err();
    assert!(matches!(error, CompressError::Own(VerifyError::Refused)));
}

/// The shape of the product, whole: what the small one cannot show is that its size is right.
#[test]
#[ignore = "three CPU minutes, 1 GB of memory"]
fn the_products_shape_is_proven() {
    let slots = slots(&[20, 127, 254, 2_000, 30_000, 60_000, 400, 9_000, 10_000, 70_000]);
    let set = set_of(Shape::V1, &slots);
    let progress = |_| std::ops::ControlFlow::Continue(());
    let parameters = LocalParameters::generate(Shape::V1, &mut rng(3), 2, progress).unwrap();
    let audit = Audit::new(Shape::V1, &set.root(), &[1; 32]);
    let open = |index: usize, _: &SlotEntry| {
        Ok::<_, CompressError>((slots[index].payload.as_slice(), slots[index].tree()))
    };
    let proof = prove(&parameters, &set, &audit, open, &mut rng(4)).unwrap();
    let key = parameters.verifying_key();
    assert!(verify(&key, &audit, &proof).is_ok());
    let other = Audit::new(Shape::V1, &set.root(), &[2; 32]);
    assert_eq!(verify(&key, &other, &proof), Err(VerifyError::Refused));
}
