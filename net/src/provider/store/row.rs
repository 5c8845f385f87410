//! A deal as it is written down: one small file for each, replaced as a whole.

use serde::{Deserialize, Serialize};

use crate::codec::{self, CodecError, check_version};
use crate::deal::{DEAL_BYTES_MAX, SignedProposal};
use crate::manifest::MANIFEST_BYTES_MAX;

/// Version of the row.
const ROW_VERSION: u8 = 1;
/// The longest row.
pub(super) const ROW_BYTES_MAX: usize = MANIFEST_BYTES_MAX + 3 * DEAL_BYTES_MAX + 256;

/// How far a deal has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "u8", into = "u8")]
pub enum DealState {
    /// Countersigned; its slot is on its way.
    Taken,
    /// The receipt is signed.
    Stored,
    /// Given up or ended; the slot is gone or about to be.
    Released,
}

impl From<DealState> for u8 {
    fn from(state: DealState) -> u8 {
        match state {
            DealState::Taken => 1,
            DealState::Stored => 2,
            DealState::Released => 3,
        }
    }
}

impl TryFrom<u8> for DealState {
    type Error = CodecError;

    fn try_from(number: u8) -> Result<DealState, CodecError> {
        match number {
            1 => Ok(DealState::Taken),
            2 => Ok(DealState::Stored),
            3 => Ok(DealState::Released),
            _ => Err(CodecError::Inconsistent("an unknown state of a deal")),
        }
    }
}

/// What `deals/<id>` holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct DealRow {
    #[serde(with = "serde_bytes")]
    pub(crate) answer: Vec<u8>,
    /// The provider's uptime, in seconds, when the deal's end was first seen to have passed.
    pub(crate) gone: Option<u64>,
    #[serde(with = "serde_bytes")]
    pub(crate) manifest: Vec<u8>,
    #[serde(with = "serde_bytes")]
    pub(crate) proposal: Vec<u8>,
    pub(crate) receipt: Option<serde_bytes::ByteBuf>,
    pub(crate) state: DealState,
    #[serde(rename = "v")]
    version: u8,
}

impl DealRow {
    /// A deal just taken.
    pub(crate) fn taken(proposal: &SignedProposal, manifest: Vec<u8>, answer: Vec<u8>) -> DealRow {
        DealRow {
            answer,
            gone: None,
            manifest,
            proposal: proposal.to_bytes(),
            receipt: None,
            state: DealState::Taken,
            version: ROW_VERSION,
        }
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        codec::encode(self)
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<DealRow, CodecError> {
        let row: DealRow = codec::decode(bytes, ROW_BYTES_MAX)?;
        check_version(row.version, ROW_VERSION)?;
        if row.state == DealState::Stored && row.receipt.is_none() {
            return Err(CodecError::Inconsistent("stored without a receipt"));
        }
        Ok(row)
    }
}
