//! One audit with everything that checks it, in one file: anybody can verify it, offline.
//!
//! ```text
//! DAG-CBOR [1, shape [3], set root [32], fresh [32], verifying key, proof]: version, then byte strings
//! ```
//!
//! It shows that *some* maker of parameters stands behind the proof, and names the key; who that is, and
//! whether the set's root is the one that was agreed on, is for the reader to know.

use serde::{Deserialize, Serialize};
use serde_bytes::{ByteArray, ByteBuf};
use thiserror::Error;

use crate::draw::Audit;
use crate::params::{LocalVerifyingKey, ParamsError, VERIFYING_KEY_LEN};
use crate::proof::{CompressedProof, DecodeError, PROOF_LEN};
use crate::set::SetRoot;
use crate::shape::Shape;
use crate::verify::{LocalVerdict, VerifyError, verify};

const VERSION: u8 = 1;
/// Exact parts, and the few bytes around each.
pub const REPORT_BYTES_MAX: usize = 3 + 32 + 32 + VERIFYING_KEY_LEN + PROOF_LEN + 32;

/// Why a report is refused.
#[derive(Debug, Error)]
pub enum ReportError {
    #[error("a report of {0} bytes is longer than any valid one ({REPORT_BYTES_MAX})")]
    TooLong(usize),
    #[error("not a report of a compressed audit")]
    Malformed,
    #[error("a report of version {0}: newer than this program")]
    Newer(u8),
    #[error(transparent)]
    Key(#[from] ParamsError),
    #[error(transparent)]
    Proof(#[from] DecodeError),
    #[error(transparent)]
    Verify(#[from] VerifyError),
}

/// An audit, its proof and the key that checks it; says nothing until `verify` has accepted it.
#[derive(Debug, Clone)]
pub struct AuditReport {
    pub shape: Shape,
    pub set: SetRoot,
    /// The bytes that the prover could not foresee.
    pub fresh: [u8; 32],
    pub key: LocalVerifyingKey,
    pub proof: CompressedProof,
}

#[derive(Serialize, Deserialize)]
struct Wire(u8, ByteArray<3>, ByteArray<32>, ByteArray<32>, ByteBuf, ByteBuf);

impl AuditReport {
    /// The report's bytes.
    ///
    /// # Errors
    /// None in practice: byte strings in memory always encode.
    pub fn encode(&self) -> Result<Vec<u8>, ReportError> {
        serde_ipld_dagcbor::to_vec(&Wire(
            VERSION,
            ByteArray::new(self.shape.to_bytes()),
            ByteArray::new(self.set.to_bytes()),
            ByteArray::new(self.fresh),
            ByteBuf::from(self.key.encode()),
            ByteBuf::from(self.proof.encode()),
        ))
        .map_err(|_| ReportError::Malformed)
    }

    /// Reads a report from untrusted bytes; it has one spelling.
    ///
    /// # Errors
    /// Says which part is wrong.
    pub fn decode(bytes: &[u8]) -> Result<Self, ReportError> {
        if bytes.len() > REPORT_BYTES_MAX {
            return Err(ReportError::TooLong(bytes.len()));
        }
        if let [0x86, version @ 2..=23, ..] = bytes {
            return Err(ReportError::Newer(*version));
        }
        let Wire(version, shape, set, fresh, key, proof) =
            serde_ipld_dagcbor::from_slice(bytes).map_err(|_| ReportError::Malformed)?;
        let report = Self {
            shape: Shape::from_bytes(shape.into_array()).ok_or(ReportError::Malformed)?,
            set: SetRoot::from_bytes(&set).ok_or(ReportError::Malformed)?,
            fresh: fresh.into_array(),
            key: LocalVerifyingKey::decode(&key)?,
            proof: CompressedProof::decode(&proof)?,
        };
        if version != VERSION || report.encode()? != bytes {
            return Err(ReportError::Malformed);
        }
        Ok(report)
    }

    /// Accepts the proof only if it holds for this audit under this key.
    ///
    /// # Errors
    /// `Verify`.
    pub fn verify(&self) -> Result<LocalVerdict, ReportError> {
        let audit = Audit::new(self.shape, &self.set, &self.fresh);
        Ok(verify(&self.key, &audit, &self.proof)?)
    }
}

#[cfg(test)]
mod tests;
