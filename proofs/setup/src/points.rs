//! From scalars to points: five lists, cut into portions that are made one by one.
//!
//! ```text
//! key | length u32 BE, points of H | length, L | length, A | length, B in G1 | length, B in G2      as bellperson writes them
//! ```

use std::ops::{AddAssign, ControlFlow, Range};
use std::sync::Arc;

use bellpepper_core::{Circuit, SynthesisError};
use bellperson::groth16::{Parameters, VerifyingKey};
use blstrs::{Bls12, G1Affine, G1Projective, G2Affine, G2Projective};
use ff::Field;
use group::Curve;
use group::prime::PrimeCurveAffine;

use crate::polynomials::{Polynomials, Sums, inverse, lagrange, powers};
use crate::{Fr, Secrets, SetupError, size_of};

/// Points of a portion: a tenth of a second of a core in the first group, and a mebibyte and a half.
const PORTION: usize = 1 << 14;
/// What a point of the second group takes, in points of the first.
const G2_WEIGHT: u64 = 3;
const LISTS: usize = 5;

/// How far a making has come, in points of the first group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    pub done: u64,
    pub total: u64,
}

/// Parameters as scalars: what is left is to multiply.
pub struct Setup {
    key: VerifyingKey<Bls12>,
    /// t(tau) / delta and tau: H are its products with tau's powers.
    h: (Fr, Fr),
    h_len: usize,
    l: Vec<Fr>,
    a: Vec<Fr>,
    b: Vec<Fr>,
    g1: Table<G1Projective>,
    g2: Table<G2Projective>,
    threads: usize,
}

/// A run of one of the lists.
struct Portion {
    list: usize,
    range: Range<usize>,
}

/// Points of a portion.
enum Points {
    One(Vec<G1Affine>),
    Two(Vec<G2Affine>),
}

impl Setup {
    /// Lays out a circuit, which is asked for twice, and computes its scalars. Points are made on `threads` threads.
    ///
    /// # Errors
    /// `Synthesis` where the circuit cannot be laid out or leaves a variable without constraint; `Secrets`.
    pub fn new<C: Circuit<Fr>>(
        circuit: impl Fn() -> C,
        secrets: &Secrets,
        threads: usize,
    ) -> Result<Self, SetupError> {
        let domain = size_of(circuit())?.domain();
        let sums = Sums::of(circuit(), lagrange(&secrets.tau, domain)?)?;
        let shifted = |polynomials: &[Polynomials], divisor: &Fr| -> Result<Vec<Fr>, SetupError> {
            let by = inverse(divisor)?;
            Ok(polynomials.iter().map(|p| (p.a * secrets.beta + p.b * secrets.alpha + p.c) * by).collect())
        };
        let all = || sums.inputs.iter().chain(&sums.variables);
        let ic = shifted(&sums.inputs, &secrets.gamma)?;
        let l = shifted(&sums.variables, &secrets.delta)?;
        if l.iter().any(|l| l.is_zero_vartime()) {
            return Err(SynthesisError::UnconstrainedVariable.into());
        }
        // Neutral elements do not stand in the lists of A and B; the prover skips the same variables.
        let a = all().map(|p| p.a).filter(|a| !a.is_zero_vartime()).collect();
        let b = all().map(|p| p.b).filter(|b| !b.is_zero_vartime()).collect();
        drop(sums);
        let first = (secrets.tau.pow_vartime([domain as u64]) - Fr::ONE) * inverse(&secrets.delta)?;
        let g1 = Table::new(secrets.g1);
        let key = VerifyingKey {
            alpha_g1: (secrets.g1 * secrets.alpha).to_affine(),
            beta_g1: (secrets.g1 * secrets.beta).to_affine(),
            beta_g2: (secrets.g2 * secrets.beta).to_affine(),
            gamma_g2: (secrets.g2 * secrets.gamma).to_affine(),
            delta_g1: (secrets.g1 * secrets.delta).to_affine(),
            delta_g2: (secrets.g2 * secrets.delta).to_affine(),
            ic: g1.multiples(&ic, threads),
        };
        let h = (first, secrets.tau);
        Ok(Self { key, h, h_len: domain - 1, l, a, b, g1, g2: Table::new(secrets.g2), threads })
    }

    #[must_use]
    pub fn key(&self) -> &VerifyingKey<Bls12> {
        &self.key
    }

    fn lengths(&self) -> [usize; LISTS] {
        [self.h_len, self.l.len(), self.a.len(), self.b.len(), self.b.len()]
    }

    /// Portions of the whole file.
    #[must_use]
    pub fn portions(&self) -> usize {
        self.lengths().iter().map(|len| portions(*len)).sum()
    }

    fn portion(&self, mut index: usize) -> Option<Portion> {
        for (list, len) in self.lengths().into_iter().enumerate() {
            let Some(later) = index.checked_sub(portions(len)) else {
                let from = index * PORTION;
                return Some(Portion { list, range: from..len.min(from + PORTION) });
            };
            index = later;
        }
        None
    }

    /// How far it is when so many portions are made.
    #[must_use]
    pub fn progress(&self, portions_done: usize) -> Progress {
        let weight = |portions: usize| -> u64 {
            let of = |portion: Portion| {
                let points = portion.range.len() as u64;
                if portion.list + 1 == LISTS { points * G2_WEIGHT } else { points }
            };
            (0..portions).filter_map(|index| self.portion(index)).map(of).sum()
        };
        Progress { done: weight(portions_done), total: weight(self.portions()) }
    }

    fn points(&self, portion: &Portion) -> Points {
        let range = portion.range.clone();
        let scalars = |list: &[Fr]| list.get(range.clone()).unwrap_or_default().to_vec();
        let scalars = match portion.list {
            0 => {
                let (first, tau) = self.h;
                let start = first * tau.pow_vartime([range.start as u64]);
                powers(start, tau).take(range.len()).collect()
            }
            1 => scalars(&self.l),
            2 => scalars(&self.a),
            _ => scalars(&self.b),
        };
        if portion.list + 1 == LISTS {
            Points::Two(self.g2.multiples(&scalars, self.threads))
        } else {
            Points::One(self.g1.multiples(&scalars, self.threads))
        }
    }

    /// A portion's bytes in the file: one after the other they are what `bellperson` writes. None behind the last.
    ///
    /// # Errors
    /// None in practice: the key always encodes.
    pub fn bytes(&self, index: usize) -> Result<Option<Vec<u8>>, SetupError> {
        let Some(portion) = self.portion(index) else { return Ok(None) };
        let mut out = Vec::new();
        if index == 0 {
            self.key.write(&mut out)?;
        }
        if portion.range.start == 0 {
            let len = self.lengths().get(portion.list).copied().unwrap_or_default();
            out.extend(
                u32::try_from(len).map_err(|_| SynthesisError::PolynomialDegreeTooLarge)?.to_be_bytes(),
            );
        }
        match self.points(&portion) {
            Points::One(points) => points.iter().for_each(|point| out.extend(point.to_uncompressed())),
            Points::Two(points) => points.iter().for_each(|point| out.extend(point.to_uncompressed())),
        }
        Ok(Some(out))
    }

    /// All of it in memory. `progress` is asked between portions and may break off.
    ///
    /// # Errors
    /// `Cancelled`.
    pub fn parameters(
        self,
        progress: &mut dyn FnMut(Progress) -> ControlFlow<()>,
    ) -> Result<Parameters<Bls12>, SetupError> {
        let mut one: [Vec<G1Affine>; LISTS - 1] = Default::default();
        let mut two = Vec::new();
        for index in 0..self.portions() {
            if progress(self.progress(index)).is_break() {
                return Err(SetupError::Cancelled);
            }
            let Some(portion) = self.portion(index) else { break };
            match (self.points(&portion), one.get_mut(portion.list)) {
                (Points::One(points), Some(list)) => list.extend(points),
                (Points::Two(points), _) => two.extend(points),
                (Points::One(_), None) => {}
            }
        }
        // `is_break` at the end would throw finished work away.
        let _ = progress(self.progress(self.portions()));
        let [h, l, a, b_g1] = one.map(Arc::new);
        Ok(Parameters { vk: self.key, h, l, a, b_g1, b_g2: Arc::new(two) })
    }
}

/// A list without points has a length in the file all the same.
fn portions(len: usize) -> usize {
    len.div_ceil(PORTION).max(1)
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
    G::AffineRepr: PrimeCurveAffine<Curve = G, Scalar = Fr> + Send + Sync,
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

    fn multiples(&self, scalars: &[Fr], threads: usize) -> Vec<G::AffineRepr> {
        let run = |scalars: &[Fr]| {
            let points: Vec<G> = scalars.iter().map(|scalar| self.times(scalar)).collect();
            let mut affine = vec![G::AffineRepr::identity(); points.len()];
            G::batch_normalize(&points, &mut affine);
            affine
        };
        let part = scalars.len().div_ceil(threads.max(1)).max(1);
        std::thread::scope(|scope| {
            let run = &run;
            let runs: Vec<_> = scalars.chunks(part).map(|part| scope.spawn(move || run(part))).collect();
            let mut out = Vec::with_capacity(scalars.len());
            for part in runs {
                match part.join() {
                    Ok(part) => out.extend(part),
                    Err(panic) => std::panic::resume_unwind(panic),
                }
            }
            out
        })
    }
}

/// Bits 12 w to 12 w + 12 of a little-endian number.
fn digit(bytes: &[u8; 32], window: usize) -> usize {
    let bit = window * WINDOW_BITS;
    let byte = |at: usize| usize::from(bytes.get(at).copied().unwrap_or(0));
    ((byte(bit / 8) | byte(bit / 8 + 1) << 8) >> (bit % 8)) & ((1 << WINDOW_BITS) - 1)
}
