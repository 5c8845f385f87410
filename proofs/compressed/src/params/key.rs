//! The verifying key: what everybody who checks a proof has.
//!
//! ```text
//! version 1 | suite 1 | "HFCK" | origin 1 (made locally) | shape [3] | 22 zeros
//! alpha G1, beta G1, beta G2, gamma G2, delta G1, delta G2, 3 u32 BE, IC0, IC1, IC2: uncompressed
//! ```

use bellperson::groth16::VerifyingKey;
use blstrs::Bls12;
use group::prime::PrimeCurveAffine;
use sha2::{Digest, Sha256};

use super::ParamsError;
use crate::shape::Shape;

const MAGIC: [u8; 4] = *b"HFCK";
const HEADER_LEN: usize = 32;
/// Three points of the first group, three of the second, a count, three of the first.
const POINTS_LEN: usize = 3 * 96 + 3 * 192 + 4 + 3 * 96;
/// Exact bytes of an encoded key.
pub const VERIFYING_KEY_LEN: usize = HEADER_LEN + POINTS_LEN;

/// The key of parameters that were made locally.
#[derive(Debug, Clone)]
pub struct LocalVerifyingKey {
    shape: Shape,
    groth: VerifyingKey<Bls12>,
    digest: [u8; 32],
}

impl LocalVerifyingKey {
    pub(super) fn new(shape: Shape, groth: VerifyingKey<Bls12>) -> Self {
        let mut key = Self { shape, groth, digest: [0; 32] };
        key.digest = Sha256::digest(key.encode()).into();
        key
    }

    #[must_use]
    pub fn shape(&self) -> Shape {
        self.shape
    }

    /// SHA-256 of the encoded key: its name.
    #[must_use]
    pub fn digest(&self) -> &[u8; 32] {
        &self.digest
    }

    pub(crate) fn groth(&self) -> &VerifyingKey<Bls12> {
        &self.groth
    }

    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = super::file::header(MAGIC, self.shape).to_vec();
        out.reserve(POINTS_LEN);
        // Writing into memory does not fail; a short key would be refused by `decode`.
        let _ = self.groth.write(&mut out);
        out
    }

    /// Reads a key; its points are checked to lie in their groups.
    ///
    /// # Errors
    /// `Newer`, `Header`, or `Io` where a point is none.
    pub fn decode(bytes: &[u8]) -> Result<Self, ParamsError> {
        let (header, points) = bytes.split_first_chunk::<HEADER_LEN>().ok_or(ParamsError::Header)?;
        let shape = super::file::read_header(MAGIC, header)?;
        if points.len() != POINTS_LEN {
            return Err(ParamsError::Header);
        }
        let groth = VerifyingKey::<Bls12>::read(points)?;
        let neutral = [groth.alpha_g1, groth.beta_g1, groth.delta_g1].iter().any(|p| p.is_identity().into())
            || [groth.beta_g2, groth.gamma_g2, groth.delta_g2].iter().any(|p| p.is_identity().into());
        let key = Self::new(shape, groth);
        if neutral || key.encode() != bytes {
            return Err(ParamsError::Header);
        }
        Ok(key)
    }
}
