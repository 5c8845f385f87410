//! A constraint system that only counts: how large a circuit is, and so how long each list of its
//! parameters.

use bellpepper_core::{Circuit, ConstraintSystem, Index, LinearCombination, SynthesisError, Variable};
use ff::Field;

use crate::Fr;

/// How large a circuit is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CircuitSize {
    /// Those of the statement; Groth16 adds one for each public input and the constant.
    pub constraints: usize,
    /// Variables that are not public.
    pub variables: usize,
    /// Without the constant one.
    pub public_inputs: usize,
    /// Variables, public ones included, on the left side of a constraint.
    pub left: usize,
    /// Variables, public ones included, on the right side of a constraint.
    pub right: usize,
}

impl CircuitSize {
    /// Points of the evaluation domain: the least power of two that holds every constraint.
    #[must_use]
    pub fn domain(&self) -> usize {
        (self.constraints + self.public_inputs + 1).next_power_of_two()
    }
}

/// The size of a circuit, by counting.
///
/// # Errors
/// What the circuit says; a blank one needs no witness.
pub fn size_of(circuit: impl Circuit<Fr>) -> Result<CircuitSize, SynthesisError> {
    let mut count = Count { inputs: vec![(false, false)], ..Count::default() };
    circuit.synthesize(&mut count)?;
    let right = count.inputs.iter().chain(&count.variables).filter(|(_, right)| *right).count();
    // The constraints that Groth16 adds have every public input on their left.
    let left = count.inputs.len() + count.variables.iter().filter(|(left, _)| *left).count();
    Ok(CircuitSize {
        constraints: count.constraints,
        variables: count.variables.len(),
        public_inputs: count.inputs.len() - 1,
        left,
        right,
    })
}

/// For each variable, whether it stands on the left and on the right side of some constraint.
#[derive(Default)]
struct Count {
    constraints: usize,
    inputs: Vec<(bool, bool)>,
    variables: Vec<(bool, bool)>,
}

impl Count {
    fn mark(&mut self, terms: &LinearCombination<Fr>, mark: fn(&mut (bool, bool))) {
        for (variable, weight) in terms.iter() {
            let place = match variable.get_unchecked() {
                Index::Input(i) => self.inputs.get_mut(i),
                Index::Aux(i) => self.variables.get_mut(i),
            };
            if let Some(place) = place.filter(|_| !weight.is_zero_vartime()) {
                mark(place);
            }
        }
    }
}

impl ConstraintSystem<Fr> for Count {
    type Root = Self;

    fn alloc<F, A, AR>(&mut self, _: A, _: F) -> Result<Variable, SynthesisError>
    where
        F: FnOnce() -> Result<Fr, SynthesisError>,
        A: FnOnce() -> AR,
        AR: Into<String>,
    {
        self.variables.push((false, false));
        Ok(Variable::new_unchecked(Index::Aux(self.variables.len() - 1)))
    }

    fn alloc_input<F, A, AR>(&mut self, _: A, _: F) -> Result<Variable, SynthesisError>
    where
        F: FnOnce() -> Result<Fr, SynthesisError>,
        A: FnOnce() -> AR,
        AR: Into<String>,
    {
        self.inputs.push((false, false));
        Ok(Variable::new_unchecked(Index::Input(self.inputs.len() - 1)))
    }

    fn enforce<A, AR, LA, LB, LC>(&mut self, _: A, a: LA, b: LB, _: LC)
    where
        A: FnOnce() -> AR,
        AR: Into<String>,
        LA: FnOnce(LinearCombination<Fr>) -> LinearCombination<Fr>,
        LB: FnOnce(LinearCombination<Fr>) -> LinearCombination<Fr>,
        LC: FnOnce(LinearCombination<Fr>) -> LinearCombination<Fr>,
    {
        self.constraints += 1;
        self.mark(&a(LinearCombination::zero()), |(left, _)| *left = true);
        self.mark(&b(LinearCombination::zero()), |(_, right)| *right = true);
    }

    fn push_namespace<NR, N>(&mut self, _: N)
    where
        NR: Into<String>,
        N: FnOnce() -> NR,
    {
    }

    fn pop_namespace(&mut self) {}

    fn get_root(&mut self) -> &mut Self::Root {
        self
    }
}
