use bellpepper_core::test_cs::TestConstraintSystem;

use super::*;
use crate::testing::{open_ways, set_of, slots, small};

fn honest() -> AuditCircuit {
    let slots = slots(&[127, 5_000, 40_000, 300]);
    let set = set_of(small(), &slots);
    let audit = Audit::new(small(), &set.root(), &[7; 32]);
    AuditCircuit::new(&set, &audit, open_ways(&set, &slots, &audit))
}

fn synthesize(circuit: AuditCircuit) -> TestConstraintSystem<Fr> {
    let mut cs = TestConstraintSystem::new();
    circuit.synthesize(&mut cs).unwrap();
    cs
}

#[test]
fn an_honest_witness_satisfies() {
    let cs = synthesize(honest());
    assert_eq!(cs.which_is_unsatisfied(), None);
    let size = circuit_size(small()).unwrap();
    assert_eq!((cs.num_constraints(), cs.num_inputs() - 1), (size.constraints, size.public_inputs));
    println!("{size:?} {:?}", circuit_size(Shape::V1));
}
