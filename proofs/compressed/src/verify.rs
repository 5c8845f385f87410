//! The verifier: one equation of four pairings, whatever the set.
//!
//! ```text
//! e(A, B) = e(alpha, beta) + e(IC0 + root IC1 + seed IC2, gamma) + e(C, delta)
//! ```
//!
//! Pure: key, set root, seed and proof in, verdict out.

use bellperson::groth16::{PreparedVerifyingKey, prepare_verifying_key, verify_proof};
use blstrs::Bls12;
use thiserror::Error;

use crate::draw::Audit;
use crate::params::LocalVerifyingKey;
use crate::proof::CompressedProof;
use crate::shape::Shape;

/// Why a proof is refused.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum VerifyError {
    #[error("the proof does not show this seed's leaves of this set")]
    Refused,
    #[error("the verifying key is of another circuit")]
    Key,
}

/// That a proof was accepted under parameters *made locally*: whoever made them could have made the
/// proof without any data. Only `verify` makes one. There is no other verdict yet, and no money may
/// rest on this one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocalVerdict {
    audit: Audit,
    key: [u8; 32],
}

impl LocalVerdict {
    #[must_use]
    pub fn audit(&self) -> &Audit {
        &self.audit
    }

    /// SHA-256 of the verifying key.
    #[must_use]
    pub fn key(&self) -> &[u8; 32] {
        &self.key
    }

    /// The verdict in words, for every report that mentions it.
    #[must_use]
    pub fn in_words(&self) -> String {
        format!(
            "{} draws of the set were shown, under parameters that were made locally: whoever made them can \
             forge this, and no money may rest on it",
            self.audit.shape().draws()
        )
    }
}

/// A key with what does not depend on the proof computed once.
pub struct Verifier {
    prepared: PreparedVerifyingKey<Bls12>,
    shape: Shape,
    digest: [u8; 32],
}

impl Verifier {
    #[must_use]
    pub fn new(key: &LocalVerifyingKey) -> Self {
        Self { prepared: prepare_verifying_key(key.groth()), shape: key.shape(), digest: *key.digest() }
    }

    /// Accepts a proof only if it shows this seed's leaves of this set.
    ///
    /// # Errors
    /// `Refused`, or `Key` where the key is of another circuit.
    pub fn verify(&self, audit: &Audit, proof: &CompressedProof) -> Result<LocalVerdict, VerifyError> {
        if audit.shape() != self.shape {
            return Err(VerifyError::Key);
        }
        match verify_proof(&self.prepared, &proof.0, &audit.inputs()) {
            Ok(true) => Ok(LocalVerdict { audit: *audit, key: self.digest }),
            Ok(false) => Err(VerifyError::Refused),
            Err(_) => Err(VerifyError::Key),
        }
    }
}

/// As `Verifier::verify`, for one proof.
///
/// # Errors
/// As there.
pub fn verify(
    key: &LocalVerifyingKey,
    audit: &Audit,
    proof: &CompressedProof,
) -> Result<LocalVerdict, VerifyError> {
    Verifier::new(key).verify(audit, proof)
}

#[cfg(test)]
mod tests;
