//! How much freedom a witness has: the rank of the constraints' derivative at an honest witness.
//!
//! Near a witness, the solutions form a space of as many dimensions as there are variables beyond the
//! rank. That number is known: only the children of families and groups are free, and each hash, and
//! each number that an interval pins, takes one away. A constraint that is missing, of whatever kind,
//! gives one dimension more. What this cannot see are choices that are not near (other bits): the
//! attacks in the parent module are about those.

use std::collections::BTreeMap;

use bellpepper_core::{Circuit, ConstraintSystem, Index, LinearCombination, SynthesisError, Variable};

use super::*;

/// Constraints and values as they come.
struct Recorder {
    names: Vec<String>,
    /// How many constraints the challenge has, which come first.
    challenge: usize,
    inputs: Vec<Fr>,
    aux: Vec<Fr>,
    constraints: Vec<[LinearCombination<Fr>; 3]>,
}

impl Recorder {
    fn of(circuit: AuditCircuit) -> Self {
        let mut recorder = Self {
            names: Vec::new(),
            challenge: 0,
            inputs: vec![Fr::ONE],
            aux: Vec::new(),
            constraints: Vec::new(),
        };
        circuit.synthesize(&mut recorder).unwrap();
        recorder
    }

    fn value(&self, terms: &LinearCombination<Fr>) -> Fr {
        let value = |index| match index {
            Index::Input(i) => self.inputs[i],
            Index::Aux(i) => self.aux[i],
        };
        terms.iter().map(|(variable, weight)| value(variable.get_unchecked()) * weight).sum()
    }

    /// The derivative of a b - c by each variable that is not public.
    fn gradient(&self, [a, b, c]: &[LinearCombination<Fr>; 3]) -> BTreeMap<usize, Fr> {
        let mut row = BTreeMap::new();
        for (terms, factor) in [(a, self.value(b)), (b, self.value(a)), (c, -Fr::ONE)] {
            for (variable, weight) in terms.iter() {
                if let Index::Aux(i) = variable.get_unchecked() {
                    *row.entry(i).or_insert(Fr::ZERO) += *weight * factor;
                }
            }
        }
        row.retain(|_, weight| *weight != Fr::ZERO);
        row
    }

    /// The rank of these constraints' derivative.
    fn rank<'a>(&self, constraints: impl Iterator<Item = &'a [LinearCombination<Fr>; 3]>) -> usize {
        let mut pivots: BTreeMap<usize, BTreeMap<usize, Fr>> = BTreeMap::new();
        for constraint in constraints {
            let mut row = self.gradient(constraint);
            while let Some((last, weight)) = row.last_key_value().map(|(i, weight)| (*i, *weight)) {
                let Some(pivot) = pivots.get(&last) else {
                    let by = weight.invert().unwrap();
                    pivots.insert(last, row.into_iter().map(|(i, weight)| (i, weight * by)).collect());
                    break;
                };
                for (i, by) in pivot {
                    *row.entry(*i).or_insert(Fr::ZERO) -= weight * by;
                }
                row.retain(|_, weight| *weight != Fr::ZERO);
            }
        }
        pivots.len()
    }
}

impl ConstraintSystem<Fr> for Recorder {
    type Root = Self;

    fn alloc<F, A, AR>(&mut self, _: A, value: F) -> Result<Variable, SynthesisError>
    where
        F: FnOnce() -> Result<Fr, SynthesisError>,
        A: FnOnce() -> AR,
        AR: Into<String>,
    {
        self.aux.push(value()?);
        Ok(Variable::new_unchecked(Index::Aux(self.aux.len() - 1)))
    }

    fn alloc_input<F, A, AR>(&mut self, _: A, value: F) -> Result<Variable, SynthesisError>
    where
        F: FnOnce() -> Result<Fr, SynthesisError>,
        A: FnOnce() -> AR,
        AR: Into<String>,
    {
        self.inputs.push(value()?);
        Ok(Variable::new_unchecked(Index::Input(self.inputs.len() - 1)))
    }

    fn enforce<A, AR, LA, LB, LC>(&mut self, _: A, a: LA, b: LB, c: LC)
    where
        A: FnOnce() -> AR,
        AR: Into<String>,
        LA: FnOnce(LinearCombination<Fr>) -> LinearCombination<Fr>,
        LB: FnOnce(LinearCombination<Fr>) -> LinearCombination<Fr>,
        LC: FnOnce(LinearCombination<Fr>) -> LinearCombination<Fr>,
    {
        self.challenge += usize::from(self.names.iter().any(|name| name == "challenge"));
        let zero = LinearCombination::zero;
        self.constraints.push([a(zero()), b(zero()), c(zero())]);
    }

    fn push_namespace<NR, N>(&mut self, name: N)
    where
        NR: Into<String>,
        N: FnOnce() -> NR,
    {
        self.names.push(name().into());
    }

    fn pop_namespace(&mut self) {
        self.names.pop();
    }

    fn get_root(&mut self) -> &mut Self::Root {
        self
    }
}

/// Dimensions that an honest prover has: the children, less a hash for each node, less two numbers that
/// each level's interval pins.
fn freedom(shape: Shape) -> usize {
    let (depth, height) = (usize::from(shape.set_depth()), usize::from(SLOT_HEIGHT));
    usize::from(shape.draws()) * (16 * depth + 8 * height - (depth + height) - 2 * depth)
}

#[test]
fn a_witness_has_no_freedom_but_the_children() {
    let recorder = Recorder::of(Case::new(6).circuit());
    let rank = recorder.rank(recorder.constraints.iter());
    assert_eq!(recorder.aux.len() - rank, freedom(small()));
    // Every constraint takes its dimension, but for one a draw: the hash and its (discrete) bits both
    // pin the same number. `a_draw_that_is_not_the_hash_is_refused` needs each of the two; a constraint
    // that is missing from the challenge makes this number 0.
    assert_eq!(recorder.constraints.len() - rank, usize::from(small().draws()));
}

/// The test above can fail: without any one of a sample of constraints there is more freedom.
#[test]
fn each_constraint_that_is_left_out_gives_freedom() {
    let recorder = Recorder::of(Case::new(6).circuit());
    let full = recorder.rank(recorder.constraints.iter());
    let count = recorder.constraints.len();
    assert!(recorder.challenge > 0 && recorder.challenge < count / 4);
    // A step that is prime to the sizes of the parts meets every kind.
    for left_out in (recorder.challenge..count).step_by(487) {
        let others = recorder.constraints.iter().enumerate().filter(|(i, _)| *i != left_out);
        let rank = recorder.rank(others.map(|(_, constraint)| constraint));
        assert_eq!(rank + 1, full, "constraint {left_out}");
    }
}
