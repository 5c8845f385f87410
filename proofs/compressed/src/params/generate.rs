//! Making parameters: the circuit's polynomials at a secret point, then a multiple of a generator for
//! each.
//!
//! The same parameters as `bellperson`'s own generator from the same secrets (the tests compare them),
//! by another way: the values of the Lagrange polynomials at the secret point are computed first, so
//! that a pass over the constraints adds up each variable's polynomials and no matrix is ever held; and
//! multiples come from a table for each window of twelve bits of a scalar.

use std::ops::{AddAssign, ControlFlow};
use std::sync::Arc;

use bellpepper_core::{Circuit, ConstraintSystem, Index, LinearCombination, SynthesisError, Variable};
use bellperson::groth16::{Parameters, VerifyingKey};
use blstrs::{Bls12, G1Projective, G2Projective};
use ff::{Field, PrimeField};
use group::prime::PrimeCurveAffine;
use group::{Curve, Group};
use rand_core::{CryptoRng, RngCore};

use super::ParamsError;
use crate::circuit::{AuditCircuit, circuit_size};
use crate::field::Fr;
use crate::shape::Shape;

/// How far a generation has come: points made, of how many.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    pub done: usize,
    pub total: usize,
}

/// Whoever knows one of these can prove anything. Whether it is forgotten nobody else can see, which is
/// why parameters made by one machine carry its mark.
pub(super) struct Secrets {
    pub(super) g1: G1Projective,
    pub(super) g2: G2Projective,
    pub(super) alpha: Fr,
    pub(super) beta: Fr,
    pub(super) gamma: Fr,
    pub(super) delta: Fr,
    pub(super) tau: Fr,
}

impl Secrets {
    pub(super) fn new<R: RngCore + CryptoRng>(rng: &mut R) -> Self {
        Self {
            g1: G1Projective::random(&mut *rng),
            g2: G2Projective::random(&mut *rng),
            alpha: Fr::random(&mut *rng),
            beta: Fr::random(&mut *rng),
            gamma: Fr::random(&mut *rng),
            delta: Fr::random(&mut *rng),
            tau: Fr::random(&mut *rng),
        }
    }
}

fn inverse(element: &Fr) -> Result<Fr, ParamsError> {
    // A zero among random elements: the caller's randomness is broken.
    Option::from(element.invert()).ok_or(ParamsError::Secrets)
}

/// The parameters of a shape from these secrets, on `threads` threads.
pub(super) fn derive(
    shape: Shape,
    secrets: &Secrets,
    threads: usize,
    progress: &mut dyn FnMut(Progress) -> ControlFlow<()>,
) -> Result<Parameters<Bls12>, ParamsError> {
    let size = circuit_size(shape)?;
    let domain = size.domain();
    let mut sums = Sums::new(lagrange(&secrets.tau, domain)?);
    AuditCircuit::blank(shape).synthesize(&mut sums)?;
    sums.constrain_inputs();
    let (inputs, variables) = (sums.inputs, sums.variables);
    let all = || inputs.iter().chain(&variables);
    let shifted = |polynomials: &[Polynomials], divisor: &Fr| -> Result<Vec<Fr>, ParamsError> {
        let by = inverse(divisor)?;
        Ok(polynomials.iter().map(|p| (p.a * secrets.beta + p.b * secrets.alpha + p.c) * by).collect())
    };
    // Neutral elements do not stand in the lists of A and B; the prover skips the same variables.
    let a: Vec<Fr> = all().map(|p| p.a).filter(|a| !a.is_zero_vartime()).collect();
    let b: Vec<Fr> = all().map(|p| p.b).filter(|b| !b.is_zero_vartime()).collect();
    let ic = shifted(&inputs, &secrets.gamma)?;
    let l = shifted(&variables, &secrets.delta)?;
    let first = (secrets.tau.pow_vartime([domain as u64]) - Fr::ONE) * inverse(&secrets.delta)?;
    let h: Vec<Fr> = powers(first, secrets.tau).take(domain - 1).collect();
    if l.iter().any(|l| l.is_zero_vartime()) {
        return Err(SynthesisError::UnconstrainedVariable.into());
    }
    let total = h.len() + l.len() + a.len() + 2 * b.len() + ic.len();
    let mut work = Work { threads, progress, state: Progress { done: 0, total } };
    let table = Table::new(secrets.g1);
    let (h, l) = (work.multiples(&table, &h)?, work.multiples(&table, &l)?);
    let (a, b_g1) = (work.multiples(&table, &a)?, work.multiples(&table, &b)?);
    let ic = work.multiples(&table, &ic)?;
    drop(table);
    let b_g2 = work.multiples(&Table::new(secrets.g2), &b)?;
    let vk = VerifyingKey {
        alpha_g1: (secrets.g1 * secrets.alpha).to_affine(),
        beta_g1: (secrets.g1 * secrets.beta).to_affine(),
        beta_g2: (secrets.g2 * secrets.beta).to_affine(),
        gamma_g2: (secrets.g2 * secrets.gamma).to_affine(),
        delta_g1: (secrets.g1 * secrets.delta).to_affine(),
        delta_g2: (secrets.g2 * secrets.delta).to_affine(),
        ic,
    };
    let (h, l, a) = (Arc::new(h), Arc::new(l), Arc::new(a));
    Ok(Parameters { vk, h, l, a, b_g1: Arc::new(b_g1), b_g2: Arc::new(b_g2) })
}

/// `first`, and on with each the product of the one before and `factor`.
fn powers(first: Fr, factor: Fr) -> impl Iterator<Item = Fr> {
    std::iter::successors(Some(first), move |power| Some(*power * factor))
}

/// L_j(tau) = (tau^m - 1) / m * w^j / (tau - w^j) for every j below m, a power of two.
fn lagrange(tau: &Fr, domain: usize) -> Result<Vec<Fr>, ParamsError> {
    let exponent = domain.trailing_zeros();
    let mut omega = Fr::ROOT_OF_UNITY;
    for _ in exponent..Fr::S {
        omega = omega.square();
    }
    let scale = (tau.pow_vartime([domain as u64]) - Fr::ONE) * inverse(&Fr::from(domain as u64))?;
    let points: Vec<Fr> = powers(Fr::ONE, omega).take(domain).collect();
    // One inversion for all: each quotient is the product of what stands before and behind it.
    let mut product = Fr::ONE;
    let mut before = Vec::with_capacity(domain);
    for w in &points {
        before.push(product);
        product *= *tau - w;
    }
    let mut rest = inverse(&product)? * scale;
    let mut out = vec![Fr::ZERO; domain];
    for ((value, w), before) in out.iter_mut().zip(&points).zip(&before).rev() {
        *value = rest * before * w;
        rest *= *tau - w;
    }
    Ok(out)
}

/// A variable's three polynomials at tau.
#[derive(Clone, Copy)]
struct Polynomials {
    a: Fr,
    b: Fr,
    c: Fr,
}

const NOTHING: Polynomials = Polynomials { a: Fr::ZERO, b: Fr::ZERO, c: Fr::ZERO };

/// Adds up every variable's polynomials, constraint by constraint.
struct Sums {
    lagrange: std::vec::IntoIter<Fr>,
    inputs: Vec<Polynomials>,
    variables: Vec<Polynomials>,
}

impl Sums {
    fn new(lagrange: Vec<Fr>) -> Self {
        // The first input is the constant one.
        Self { lagrange: lagrange.into_iter(), inputs: vec![NOTHING], variables: Vec::new() }
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

    /// x * 0 = 0 for every input, so that their polynomials are independent.
    fn constrain_inputs(&mut self) {
        for (input, at) in self.inputs.iter_mut().zip(self.lagrange.by_ref()) {
            input.a += at;
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

/// Bits of a window: 22 tables of 4,095 points, 8 MB in the first group.
const WINDOW_BITS: usize = 12;
const WINDOWS: usize = 255_usize.div_ceil(WINDOW_BITS);

/// `points[w][d - 1]` is the base times d 2^(12 w).
struct Table<G: Curve> {
    points: Vec<Vec<G::AffineRepr>>,
}

impl<G> Table<G>
where
    G: Curve<Scalar = Fr> + AddAssign<G::AffineRepr>,
    G::AffineRepr: PrimeCurveAffine<Curve = G, Scalar = Fr>,
{
    fn new(base: G) -> Self {
        let mut base = base;
        let mut points = Vec::with_capacity(WINDOWS);
        for _ in 0..WINDOWS {
            let mut multiple = G::identity();
            let window: Vec<G> = (1..=1 << WINDOW_BITS)
                .map(|_| {
                    multiple += base;
                    multiple
                })
                .collect();
            let mut affine = vec![G::AffineRepr::identity(); window.len()];
            G::batch_normalize(&window, &mut affine);
            // The last, 2^12 times the base, is the next window's.
            affine.pop();
            points.push(affine);
            base = multiple;
        }
        Self { points }
    }

    fn times(&self, scalar: &Fr) -> G {
        let mut out = G::identity();
        let bytes = scalar.to_bytes_le();
        for (window, points) in self.points.iter().enumerate() {
            if let Some(point) = digit(&bytes, window).checked_sub(1).and_then(|at| points.get(at)) {
                out += *point;
            }
        }
        out
    }
}

/// Bits 12 w to 12 w + 12 of a little-endian number.
fn digit(bytes: &[u8; 32], window: usize) -> usize {
    let bit = window * WINDOW_BITS;
    let byte = |at: usize| usize::from(bytes.get(at).copied().unwrap_or(0));
    ((byte(bit / 8) | byte(bit / 8 + 1) << 8) >> (bit % 8)) & ((1 << WINDOW_BITS) - 1)
}

/// Scalars that a thread multiplies between two reports of progress.
const RUN: usize = 1 << 10;

struct Work<'a> {
    threads: usize,
    progress: &'a mut dyn FnMut(Progress) -> ControlFlow<()>,
    state: Progress,
}

impl Work<'_> {
    fn multiples<G>(&mut self, table: &Table<G>, scalars: &[Fr]) -> Result<Vec<G::AffineRepr>, ParamsError>
    where
        G: Curve<Scalar = Fr> + AddAssign<G::AffineRepr>,
        G::AffineRepr: PrimeCurveAffine<Curve = G, Scalar = Fr> + Send + Sync,
    {
        let mut out = Vec::with_capacity(scalars.len());
        for round in scalars.chunks(RUN * self.threads.max(1)) {
            if (self.progress)(self.state).is_break() {
                return Err(ParamsError::Cancelled);
            }
            let run = |scalars: &[Fr]| {
                let points: Vec<G> = scalars.iter().map(|scalar| table.times(scalar)).collect();
                let mut affine = vec![G::AffineRepr::identity(); points.len()];
                G::batch_normalize(&points, &mut affine);
                affine
            };
            std::thread::scope(|scope| {
                let run = &run;
                let runs: Vec<_> = round.chunks(RUN).map(|part| scope.spawn(move || run(part))).collect();
                for part in runs {
                    match part.join() {
                        Ok(part) => out.extend(part),
                        Err(panic) => std::panic::resume_unwind(panic),
                    }
                }
            });
            self.state.done += round.len();
        }
        // `is_break` at the end would throw finished work away.
        let _ = (self.progress)(self.state);
        Ok(out)
    }
}
