use blstrs::{G1Projective, Gt};
use ff::Field;
use group::{Curve, Group};
use pairing::{MillerLoopResult, MultiMillerLoop};

use super::*;
use crate::testing::{parameters, proven, small};

#[test]
fn an_honest_proof_is_accepted_and_its_verdict_says_what_it_is_worth() {
    let (audit, proof) = proven();
    let key = parameters().verifying_key();
    let verdict = verify(&key, audit, proof).unwrap();
    assert_eq!((verdict.audit(), verdict.key()), (audit, key.digest()));
    assert!(verdict.in_words().contains("made locally") && verdict.in_words().contains("no money"));
}

/// Every bit of the proof.
#[test]
fn any_flipped_bit_of_a_proof_is_refused() {
    let (audit, proof) = proven();
    let verifier = Verifier::new(&parameters().verifying_key());
    let bytes = proof.encode();
    let accepted = |bytes: &[u8]| {
        CompressedProof::decode(bytes).is_ok_and(|proof| verifier.verify(audit, &proof).is_ok())
    };
    assert!(accepted(&bytes));
    for bit in 0..bytes.len() * 8 {
        let mut bytes = bytes;
        bytes[bit / 8] ^= 1 << (bit % 8);
        assert!(!accepted(&bytes), "bit {bit}");
    }
}

/// Every bit of both public inputs, as the circuit gets them, and of the bytes that an audit starts from.
#[test]
fn any_flipped_bit_of_what_is_public_is_refused() {
    let (audit, proof) = proven();
    let verifier = Verifier::new(&parameters().verifying_key());
    let groth = |inputs: &[crate::field::Fr]| verify_proof(&verifier.prepared, &proof.0, inputs).unwrap();
    let inputs = audit.inputs();
    assert!(groth(&inputs));
    for bit in 0..256 {
        for which in 0..2 {
            let mut twin = audit.public_inputs()[which];
            twin[bit / 8] ^= 1 << (bit % 8);
            let Some(twin) = crate::field::from_node(&twin) else { continue };
            let mut inputs = inputs;
            inputs[which] = twin;
            assert!(!groth(&inputs), "input {which} bit {bit}");
        }
        let mut fresh = [7; 32];
        fresh[bit / 8] ^= 1 << (bit % 8);
        let twin = Audit::new(small(), audit.set(), &fresh);
        assert_eq!(verifier.verify(&twin, proof), Err(VerifyError::Refused), "fresh bit {bit}");
    }
    let other = Audit::new(Shape::new(3, 1).unwrap(), audit.set(), &[7; 32]);
    assert_eq!(verifier.verify(&other, proof), Err(VerifyError::Key));
}

/// The equation as SOUNDNESS.md has it for a contract: one product of four pairings is one.
#[test]
fn the_documented_equation_is_the_verifiers() {
    let (audit, proof) = proven();
    let key = parameters().verifying_key();
    let (vk, proof) = (key.groth(), &proof.0);
    let holds = |inputs: [crate::field::Fr; 2]| {
        let sum = G1Projective::from(vk.ic[0]) + vk.ic[1] * inputs[0] + vk.ic[2] * inputs[1];
        let minus_a = (-G1Projective::from(proof.a)).to_affine();
        let pairs = [
            (&minus_a, &proof.b.into()),
            (&vk.alpha_g1, &vk.beta_g2.into()),
            (&sum.to_affine(), &vk.gamma_g2.into()),
            (&proof.c, &vk.delta_g2.into()),
        ];
        Bls12::multi_miller_loop(&pairs).final_exponentiation() == Gt::identity()
    };
    let inputs = audit.inputs();
    assert!(holds(inputs));
    assert!(!holds([inputs[1], inputs[0]]));
}

/// A statement has many proofs: what SOUNDNESS.md says of names.
#[test]
fn a_proof_can_be_made_another_and_still_holds() {
    let (audit, proof) = proven();
    let key = parameters().verifying_key();
    let r = crate::field::Fr::from(5);
    let inverse = r.invert().unwrap();
    let twin = CompressedProof(bellperson::groth16::Proof {
        a: (proof.0.a * r).to_affine(),
        b: (proof.0.b * inverse).to_affine(),
        c: proof.0.c,
    });
    assert_ne!(twin.encode(), proof.encode());
    assert!(verify(&key, audit, &twin).is_ok());
}
