use bellpepper_core::test_cs::TestConstraintSystem;

use super::*;
use crate::draw::low_bits;
use crate::field::hash2;
use crate::testing::{LENS, TestSlot, open_ways, set_of, slots, small};

mod jacobian;

struct Case {
    slots: Vec<TestSlot>,
    set: SlotSet,
    audit: Audit,
}

impl Case {
    fn new(fresh: u8) -> Self {
        let slots = slots(&LENS);
        let set = set_of(small(), &slots);
        let audit = Audit::new(small(), &set.root(), &[fresh; 32]);
        Self { slots, set, audit }
    }

    fn circuit(&self) -> AuditCircuit {
        AuditCircuit::new(&self.set, &self.audit, open_ways(&self.set, &self.slots, &self.audit))
    }

    /// What an attacker puts in who has the data: the witness of the only draw, changed.
    fn with(&self, change: impl FnOnce(&mut DrawWitness)) -> TestConstraintSystem<Fr> {
        let mut circuit = self.circuit();
        change(circuit.draws[0].as_mut().unwrap());
        synthesize(circuit)
    }
}

fn synthesize(circuit: AuditCircuit) -> TestConstraintSystem<Fr> {
    let mut cs = TestConstraintSystem::new();
    circuit.synthesize(&mut cs).unwrap();
    cs
}

fn refused_by(cs: &TestConstraintSystem<Fr>, constraint: &str) {
    let found = cs.which_is_unsatisfied().expect("the attack satisfies every constraint");
    assert!(found.contains(constraint), "refused by {found:?}, not by {constraint:?}");
}

#[test]
fn honest_witnesses_satisfy_and_the_circuit_is_the_pinned_one() {
    for fresh in 0..4 {
        let cs = synthesize(Case::new(fresh).circuit());
        assert_eq!(cs.which_is_unsatisfied(), None, "{fresh}");
        let size = circuit_size(small()).unwrap();
        assert_eq!((cs.num_constraints(), cs.num_inputs() - 1), (size.constraints, size.public_inputs));
        // Another hash is another circuit: parameters of this one do not fit it, so `VERSION` of proofs,
        // keys and files must go up with it.
        assert_eq!(cs.hash(), "18c7ef781c181d444781dc1452efd47bc0b938f73981cd75c42d783a0dab39bb");
    }
    let size = circuit_size(Shape::V1).unwrap();
    assert_eq!((size.constraints, size.variables, size.public_inputs), (235_456, 239_296, 2));
    assert_eq!(size.domain(), 1 << 18);
}

#[test]
fn more_draws_and_full_sets_satisfy() {
    let shape = Shape::new(1, 3).unwrap();
    let slots = slots(&[40, 70, 130, 260, 520, 1_040, 2_080, 50_000]);
    let set = set_of(shape, &slots);
    for fresh in 0..3 {
        let audit = Audit::new(shape, &set.root(), &[fresh; 32]);
        let circuit = AuditCircuit::new(&set, &audit, open_ways(&set, &slots, &audit));
        assert_eq!(synthesize(circuit).which_is_unsatisfied(), None);
    }
}

#[test]
fn another_slot_is_no_answer() {
    let case = Case::new(1);
    let draw = draws(&case.audit, case.set.leaves())[0];
    let (asked, _) = case.set.locate(draw.leaf).unwrap();
    for other in (0..LENS.len()).filter(|slot| *slot != asked) {
        // A whole way through the other slot, to its first group.
        let tree = case.slots[other].tree();
        let opened = tree.open_leaves(&case.slots[other].payload, &[0]).unwrap();
        let cs = case.with(|witness| {
            witness.families.last_mut().unwrap().1 = other as u8;
            witness.groups = (0..SLOT_HEIGHT).rev().map(|l| *opened.group(l, 0).unwrap()).collect();
        });
        let side = if other > asked { "not before the child" } else { "not behind the child" };
        refused_by(&cs, &format!("level 1/{side}/bits make the number"));
    }
    // An empty place, and an empty branch of the set.
    for level in 0..2 {
        let cs = case.with(|witness| witness.families[level].1 = 7);
        refused_by(&cs, &format!("level {level}/not "));
    }
}

#[test]
fn another_leaf_is_no_answer() {
    let case = Case::new(1);
    let (slot, leaf) = case.set.locate(draws(&case.audit, case.set.leaves())[0].leaf).unwrap();
    let other = if leaf < 8 { leaf + 8 } else { leaf - 8 };
    let opened = case.slots[slot].tree().open_leaves(&case.slots[slot].payload, &[other]).unwrap();
    let cs = case.with(|witness| {
        witness.groups = (0..SLOT_HEIGHT).rev().map(|level| *opened.group(level, other).unwrap()).collect();
    });
    refused_by(&cs, "group hashes to its node");
}

#[test]
fn another_quotient_is_no_other_draw() {
    let case = Case::new(2);
    for change in [|q: u128| q - 1, |q: u128| q + 1, |q: u128| q ^ (1 << 90), |_: u128| 0] {
        refused_by(&case.with(|witness| witness.quotient = change(witness.quotient)), "level 0/not b");
    }
}

#[test]
fn children_that_do_not_hash_to_their_node_are_refused() {
    let case = Case::new(3);
    for depth in 0..usize::from(SLOT_HEIGHT) {
        for child in 0..ARITY {
            let cs = case.with(|witness| witness.groups[depth][child] += Fr::ONE);
            refused_by(&cs, &format!("depth {depth}/group hashes to its node"));
        }
    }
    for level in 0..2 {
        for (child, part) in (0..ARITY).flat_map(|child| [(child, 0), (child, 1)]) {
            let cs = case.with(|witness| witness.families[level].0[child][part] += Fr::ONE);
            refused_by(&cs, &format!("level {level}/family/family hashes to its node"));
        }
    }
}

#[test]
fn other_public_inputs_are_refused() {
    let case = Case::new(3);
    let mut cs = synthesize(case.circuit());
    cs.set("set root/input num", case.set.root().0 + Fr::ONE);
    refused_by(&cs, "level 0/family/family hashes to its node");
    let mut cs = synthesize(case.circuit());
    cs.set("seed/input num", Fr::from(5));
    refused_by(&cs, "challenge/hash");
}

/// A draw of one's own choice: the number and its bits agree with each other and not with the hash.
#[test]
fn a_draw_that_is_not_the_hash_is_refused() {
    let case = Case::new(3);
    let mut cs = synthesize(case.circuit());
    let whole = cs.get("draw 0/challenge/whole/num");
    let bit = "draw 0/challenge/bits/bit 254/boolean";
    let lowest = cs.get(bit);
    let flipped = if lowest == Fr::ZERO { Fr::ONE } else { Fr::ZERO };
    cs.set(bit, flipped);
    refused_by(&cs, "unpacking");
    cs.set("draw 0/challenge/whole/num", whole + flipped - lowest);
    refused_by(&cs, "whole is the hash");
}

/// The hash plus the modulus has other low bits and is the same element.
#[test]
fn a_second_spelling_of_the_hash_is_refused() {
    // r, as four words from the lowest.
    const R: [u64; 4] =
        [0xffff_ffff_0000_0001, 0x53bd_a402_fffe_5bfe, 0x3339_d808_09a1_d805, 0x73ed_a753_299d_7d48];
    let mut tried = 0;
    for fresh in 0.. {
        let case = Case::new(fresh);
        let hash = hash2(&[case.audit.inputs()[1], Fr::ZERO]);
        let words = hash.to_bytes_le();
        let words: Vec<u64> = words.as_chunks::<8>().0.iter().map(|word| u64::from_le_bytes(*word)).collect();
        let mut carry = 0_u128;
        let sum: Vec<u64> = words
            .iter()
            .zip(R)
            .map(|(a, b)| {
                let sum = u128::from(*a) + u128::from(b) + carry;
                carry = sum >> 64;
                sum as u64
            })
            .collect();
        if carry != 0 || sum[3] >> 63 != 0 {
            continue;
        }
        let mut cs = synthesize(case.circuit());
        for bit in 0..255 {
            let value = Fr::from(sum[bit / 64] >> (bit % 64) & 1);
            cs.set(&format!("draw 0/challenge/bits/bit {}/boolean", 254 - bit), value);
        }
        // The bits do make the number; only the comparison with the modulus is in the way.
        let found = cs.which_is_unsatisfied().unwrap();
        assert!(found.contains("challenge/bits/") && !found.contains("unpacking"), "{found}");
        tried += 1;
        if tried == 3 {
            return;
        }
    }
}

#[test]
fn bits_are_bits() {
    let case = Case::new(4);
    for name in [
        "draw 0/set/level 0/remainder/quotient bit 3/boolean",
        "draw 0/set/level 0/child/bit 1/boolean",
        "draw 0/set/level 0/not before the child/bit 47/boolean",
        "draw 0/set/level 1/not behind the child/bit 0/boolean",
        "draw 0/set/level 1/not before the child/bit 23/boolean",
    ] {
        for value in [Fr::from(2), -Fr::ONE] {
            let mut cs = synthesize(case.circuit());
            cs.set(name, value);
            refused_by(&cs, &format!("{}/boolean constraint", name.trim_end_matches("/boolean")));
        }
    }
}

/// Two bits changed so that their sum, and so every packing, stays: 2 * 1 + 1 * 0 = 2 * 0 + 1 * 2.
#[test]
fn a_packing_is_not_enough() {
    let case = Case::new(4);
    let mut cs = synthesize(case.circuit());
    let name = |bit| format!("draw 0/set/level 1/not before the child/bit {bit}/boolean");
    let bits: Vec<Fr> = (0..24).map(|bit| cs.get(&name(bit))).collect();
    let at = (0..23).find(|bit| bits[bit + 1] == Fr::ONE && bits[*bit] == Fr::ZERO).unwrap();
    cs.set(&name(at), Fr::from(2));
    cs.set(&name(at + 1), Fr::ZERO);
    refused_by(&cs, "boolean constraint");
}

/// A set whose other branches are nonsense: what an honest family says of its children holds.
#[test]
fn a_lying_branch_catches_no_draw_of_an_honest_slot() {
    let case = Case::new(1);
    let draw = draws(&case.audit, case.set.leaves())[0];
    let total = Fr::from(case.set.leaves());
    // Under the root's second child, which claims no leaves, lies a family that claims all of them.
    let mut circuit = case.circuit();
    let witness = circuit.draws[0].as_mut().unwrap();
    let honest = witness.families[1].0;
    let mut lying = honest;
    lying[0][1] = total;
    witness.families[0].0[1] = [crate::field::hash16(lying.as_flattened().try_into().unwrap()), Fr::ZERO];
    let root = crate::field::hash16(witness.families[0].0.as_flattened().try_into().unwrap());
    witness.families[0].1 = 1;
    witness.families[1] = (lying, 0);
    circuit.set = Some(root);
    assert!(draw.leaf < case.set.leaves());
    refused_by(&synthesize(circuit), "level 0/not ");
}

#[test]
fn draws_are_those_of_the_circuit() {
    for fresh in 0..3 {
        let case = Case::new(fresh);
        let mut cs = synthesize(case.circuit());
        let whole = cs.get("draw 0/challenge/whole/num");
        let draw = draws(&case.audit, case.set.leaves())[0];
        let total = u128::from(case.set.leaves());
        assert_eq!(low_bits(&whole), draw.quotient * total + u128::from(draw.leaf));
    }
}
