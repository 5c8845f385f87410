//! What parameters are made from, and what nobody may keep.

use blstrs::{G1Affine, G1Projective, G2Affine, G2Projective};
use ff::Field;
use group::{Curve, Group};
use rand_core::{CryptoRng, RngCore};

use crate::Fr;

const SCALAR_BYTES: usize = 32;
const G1_BYTES: usize = 48;
const G2_BYTES: usize = 96;
/// Bytes of all secrets.
pub const SECRETS_BYTES: usize = G1_BYTES + G2_BYTES + 5 * SCALAR_BYTES;

/// Whoever knows one of these can prove anything. Whether it is forgotten nobody else can see, which is why parameters made
/// by one machine carry its mark.
#[derive(Clone, PartialEq, Eq)]
pub struct Secrets {
    pub g1: G1Projective,
    pub g2: G2Projective,
    pub alpha: Fr,
    pub beta: Fr,
    pub gamma: Fr,
    pub delta: Fr,
    pub tau: Fr,
}

impl Secrets {
    pub fn new<R: RngCore + CryptoRng>(rng: &mut R) -> Self {
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

    fn scalars(&self) -> [&Fr; 5] {
        [&self.alpha, &self.beta, &self.gamma, &self.delta, &self.tau]
    }

    /// For whoever must go on later with what it began.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(SECRETS_BYTES);
        out.extend(self.g1.to_affine().to_compressed());
        out.extend(self.g2.to_affine().to_compressed());
        for scalar in self.scalars() {
            out.extend(scalar.to_bytes_le());
        }
        out
    }

    /// None for bytes that are not of secrets.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (g1, rest) = bytes.split_first_chunk::<G1_BYTES>()?;
        let (g2, rest) = rest.split_first_chunk::<G2_BYTES>()?;
        let g1: G1Affine = Option::from(G1Affine::from_compressed(g1))?;
        let g2: G2Affine = Option::from(G2Affine::from_compressed(g2))?;
        let (chunks, []) = rest.as_chunks::<SCALAR_BYTES>() else { return None };
        let scalars: Option<Vec<Fr>> = chunks.iter().map(|chunk| Fr::from_bytes_le(chunk).into()).collect();
        let [alpha, beta, gamma, delta, tau] = scalars?.try_into().ok()?;
        Some(Self { g1: g1.into(), g2: g2.into(), alpha, beta, gamma, delta, tau })
    }
}
