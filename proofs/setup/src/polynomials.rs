//! Every variable's three polynomials at the secret point, added up in one pass over the constraints.

use bellpepper_core::{Circuit, ConstraintSystem, Index, LinearCombination, SynthesisError, Variable};
use ff::{Field, PrimeField};

use crate::{Fr, SetupError};

pub(crate) fn inverse(element: &Fr) -> Result<Fr, SetupError> {
    // A zero among random elements: the caller's randomness is broken.
    Option::from(element.invert()).ok_or(SetupError::Secrets)
}

/// `first`, and on with each the product of the one before and `factor`.
pub(crate) fn powers(first: Fr, factor: Fr) -> impl Iterator<Item = Fr> {
    std::iter::successors(Some(first), move |power| Some(*power * factor))
}

/// L_j(tau) = (tau^m - 1) / m * w^j / (tau - w^j) for every j below m, a power of two.
pub(crate) fn lagrange(tau: &Fr, domain: usize) -> Result<Vec<Fr>, SetupError> {
    let mut omega = Fr::ROOT_OF_UNITY;
    for _ in domain.trailing_zeros()..Fr::S {
        omega = omega.square();
    }
    let scale = (tau.pow_vartime([domain as u64]) - Fr::ONE) * inverse(&Fr::from(domain as u64))?;
    // One inversion for all: each quotient is the product of what stands before and behind it. First the products of what
    // stands before, in the list that the values will be in.
    let mut product = Fr::ONE;
    let mut values = Vec::with_capacity(domain);
    for point in powers(Fr::ONE, omega).take(domain) {
        values.push(product);
        product *= *tau - point;
    }
    let mut rest = inverse(&product)? * scale;
    let back = inverse(&omega)?;
    for (value, point) in values.iter_mut().rev().zip(powers(back, back)) {
        *value *= rest * point;
        rest *= *tau - point;
    }
    Ok(values)
}

/// A variable's three polynomials at tau.
#[derive(Clone, Copy)]
pub(crate) struct Polynomials {
    pub(crate) a: Fr,
    pub(crate) b: Fr,
    pub(crate) c: Fr,
}

const NOTHING: Polynomials = Polynomials { a: Fr::ZERO, b: Fr::ZERO, c: Fr::ZERO };

/// Adds up every variable's polynomials, constraint by constraint.
pub(crate) struct Sums {
    lagrange: std::vec::IntoIter<Fr>,
    pub(crate) inputs: Vec<Polynomials>,
    pub(crate) variables: Vec<Polynomials>,
}

impl Sums {
    /// Of a circuit whose constraints, and those that Groth16 adds, are no more than the Lagrange values.
    pub(crate) fn of(circuit: impl Circuit<Fr>, lagrange: Vec<Fr>) -> Result<Self, SynthesisError> {
        // The first input is the constant one.
        let mut sums = Self { lagrange: lagrange.into_iter(), inputs: vec![NOTHING], variables: Vec::new() };
        circuit.synthesize(&mut sums)?;
        // x * 0 = 0 for every input, so that their polynomials are independent.
        for (input, at) in sums.inputs.iter_mut().zip(sums.lagrange.by_ref()) {
            input.a += at;
        }
        sums.lagrange = Vec::new().into_iter();
        Ok(sums)
    }

    fn add(&mut self, terms: &LinearCombination<Fr>, at: Fr, side: fn(&mut Polynomials) -> &mut Fr) {
        for (variable, weight) in terms.iter() {
            let polynomials = match variable.get_unchecked() {
                Index::Input(i) => self.inputs.get_mut(i),
                Index::Aux(i) => self.variables.get_mut(i),
            };
            if let Some(polynomials) = polynomials {
                *side(polynomials) += *weight * at;
            }
        }
    }
}

impl ConstraintSystem<Fr> for Sums {
    type Root = Self;

    fn alloc<F, A, AR>(&mut self, _: A, _: F) -> Result<Variable, SynthesisError>
    where
        F: FnOnce() -> Result<Fr, SynthesisError>,
        A: FnOnce() -> AR,
        AR: Into<String>,
    {
        self.variables.push(NOTHING);
        Ok(Variable::new_unchecked(Index::Aux(self.variables.len() - 1)))
    }

    fn alloc_input<F, A, AR>(&mut self, _: A, _: F) -> Result<Variable, SynthesisError>
    where
        F: FnOnce() -> Result<Fr, SynthesisError>,
        A: FnOnce() -> AR,
        AR: Into<String>,
    {
        self.inputs.push(NOTHING);
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
        // The domain was measured by a pass over the same constraints.
        let at = self.lagrange.next().unwrap_or(Fr::ZERO);
        self.add(&a(LinearCombination::zero()), at, |p| &mut p.a);
        self.add(&b(LinearCombination::zero()), at, |p| &mut p.b);
        self.add(&c(LinearCombination::zero()), at, |p| &mut p.c);
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
