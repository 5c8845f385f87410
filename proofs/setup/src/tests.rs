//! Small circuits of every awkward kind; the large ones are compared where they are at home.

use std::ops::ControlFlow;

use bellpepper_core::{Circuit, ConstraintSystem, SynthesisError};
use bellperson::groth16::{Parameters, generate_parameters};
use blstrs::Bls12;
use ff::Field;
use rand_chacha::ChaCha8Rng;
use rand_core::SeedableRng;

use super::*;

fn secrets() -> Secrets {
    Secrets::new(&mut ChaCha8Rng::from_seed([4; 32]))
}

/// A chain of products, with inputs that stand on no right side, terms that repeat and terms that cancel each other.
#[derive(Clone, Copy)]
struct Chain {
    links: usize,
    inputs: usize,
    loose: bool,
}

impl Circuit<Fr> for Chain {
    fn synthesize<CS: ConstraintSystem<Fr>>(self, cs: &mut CS) -> Result<(), SynthesisError> {
        let missing = || Err::<Fr, _>(SynthesisError::AssignmentMissing);
        let inputs = (0..self.inputs)
            .map(|i| cs.alloc_input(|| format!("input {i}"), missing))
            .collect::<Result<Vec<_>, _>>()?;
        let mut last = cs.alloc(|| "first", missing)?;
        for link in 0..self.links {
            let next = cs.alloc(|| format!("link {link}"), missing)?;
            let input = inputs.get(link % self.inputs.max(1)).copied();
            cs.enforce(
                || format!("product {link}"),
                |lc| {
                    let lc = lc + last + last + (Fr::from(7), next) - (Fr::from(7), next);
                    input.map_or(lc.clone(), |input| lc + (Fr::from(link as u64), input))
                },
                |lc| lc + (Fr::from(3), last) + CS::one(),
                |lc| lc + next,
            );
            last = next;
        }
        if self.loose {
            cs.alloc(|| "nowhere", missing)?;
        }
        Ok(())
    }
}

fn bellpersons(circuit: Chain, secrets: &Secrets) -> Result<Parameters<Bls12>, SynthesisError> {
    let Secrets { g1, g2, alpha, beta, gamma, delta, tau } = secrets.clone();
    generate_parameters(circuit, g1, g2, alpha, beta, gamma, delta, tau)
}

#[test]
fn parameters_and_their_bytes_are_bellpersons() {
    let secrets = secrets();
    // Fewer and more than a domain, and more points than a portion.
    for (links, inputs) in [(1, 0), (2, 1), (7, 3), (8, 3), (100, 5), (20_000, 2)] {
        let circuit = Chain { links, inputs, loose: false };
        let theirs = bellpersons(circuit, &secrets).unwrap();
        for threads in [1, 3] {
            let setup = Setup::new(|| circuit, &secrets, threads).unwrap();
            let mut bytes = Vec::new();
            theirs.write(&mut bytes).unwrap();
            // From the last to the first: no portion depends on another.
            let mut portions: Vec<_> =
                (0..setup.portions()).rev().map(|index| setup.bytes(index).unwrap().unwrap()).collect();
            portions.reverse();
            assert!(portions.concat() == bytes, "{links} links, {inputs} inputs");
            assert!(setup.bytes(setup.portions()).unwrap().is_none());
            let mut seen = Vec::new();
            let ours = setup
                .parameters(&mut |progress| {
                    seen.push(progress);
                    ControlFlow::Continue(())
                })
                .unwrap();
            assert!(ours == theirs, "{links} links, {inputs} inputs");
            assert!(seen.is_sorted_by(|a, b| a.done <= b.done && a.total == b.total), "{seen:?}");
            assert!(seen.last().is_some_and(|last| last.done == last.total));
        }
    }
}

#[test]
fn a_variable_without_constraint_is_refused_as_by_bellperson() {
    let circuit = Chain { links: 3, inputs: 1, loose: true };
    assert!(matches!(bellpersons(circuit, &secrets()), Err(SynthesisError::UnconstrainedVariable)));
    let ours = Setup::new(|| circuit, &secrets(), 1).map(drop);
    assert!(matches!(ours, Err(SetupError::Synthesis(SynthesisError::UnconstrainedVariable))));
    let zero = Secrets { delta: Fr::ZERO, ..secrets() };
    let circuit = Chain { loose: false, ..circuit };
    assert!(matches!(Setup::new(|| circuit, &zero, 1).map(drop), Err(SetupError::Secrets)));
}

#[test]
fn a_making_can_be_broken_off() {
    let circuit = Chain { links: 20_000, inputs: 2, loose: false };
    let mut asked = 0;
    let ended = Setup::new(|| circuit, &secrets(), 2).unwrap().parameters(&mut |_| {
        asked += 1;
        if asked == 3 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    assert!(matches!(ended, Err(SetupError::Cancelled)) && asked == 3);
}

#[test]
fn secrets_are_kept_and_read_back() {
    let secrets = secrets();
    let bytes = secrets.to_bytes();
    assert_eq!(bytes.len(), SECRETS_BYTES);
    assert!(Secrets::from_bytes(&bytes).is_some_and(|again| again == secrets));
    assert!(Secrets::from_bytes(&bytes[1..]).is_none());
    assert!(Secrets::from_bytes(&[bytes.as_slice(), &[0]].concat()).is_none());
    assert!(Secrets::from_bytes(&[0xff; SECRETS_BYTES]).is_none());
}
