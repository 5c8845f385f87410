//! A possession proof as a file that anybody can check offline; and what other proof files call themselves.
//!
//! ```text
//! "HFPROOF" | version u8 | DAG-CBOR { key: null, proof, statement: { possession: { count, piece, seed } }, strength }
//! ```
//!
//! Promises: one spelling for one file; what it claims is in its statement and nowhere else. Seals, Window and Winning
//! PoSts have the same envelope and are told apart here; their circuits are not known to this crate.
//! Refuses: another version, as such.

use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};
use serde_bytes::{ByteArray, ByteBuf};
use thiserror::Error;

use crate::commp::PieceCid;
use crate::pdp::{Challenge, PossessionProof, ProofError, Verdict, verify};

const MAGIC: &[u8; 7] = b"HFPROOF";
const VERSION: u8 = 1;
/// Possession needs neither parameters nor a profile.
const STRENGTH: &str = "production strength";
/// A verifying key of the largest circuit, the longest proof and 65,536 sectors: no file of any kind is longer.
pub const PROOF_FILE_BYTES_MAX: usize = 16 << 20;

/// Why bytes are no proof file, or its proof is refused.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum FileError {
    #[error("{0} bytes are more than any proof file has")]
    TooLong(usize),
    #[error("not a proof file")]
    Magic,
    #[error("a proof file of version {0}, which this program does not know")]
    Version(u8),
    #[error("the proof file cannot be read: {0}")]
    Encoding(String),
    #[error("the proof file is not in its one spelling")]
    NotCanonical,
    #[error("the possession proof does not hold: {0}")]
    Possession(#[from] ProofError),
}

/// What a proof file is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProofFile {
    Possession(PossessionFile),
    /// Of a sealed sector, in words: its circuit decides, and this crate has none.
    Sealed(&'static str),
}

/// That drawn leaves of a piece could be produced after the seed was known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PossessionFile {
    pub piece: PieceCid,
    pub challenge: Challenge,
    pub proof: PossessionProof,
}

#[derive(Serialize, Deserialize)]
struct Wire<K, S> {
    key: K,
    proof: ByteBuf,
    statement: S,
    strength: String,
}

#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
enum StatementOut<'a> {
    Possession(&'a Possession),
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
enum StatementIn {
    Possession(Possession),
    Seal(IgnoredAny),
    WindowPost(IgnoredAny),
    WinningPost(IgnoredAny),
}

#[derive(Serialize, Deserialize)]
struct Possession {
    count: u16,
    piece: ByteBuf,
    seed: ByteArray<32>,
}

impl ProofFile {
    /// Reads a file's bytes; nothing of it is verified yet.
    ///
    /// # Errors
    /// Says what is wrong; a sealed proof is looked at no further than its name.
    pub fn decode(bytes: &[u8]) -> Result<Self, FileError> {
        if bytes.len() > PROOF_FILE_BYTES_MAX {
            return Err(FileError::TooLong(bytes.len()));
        }
        let (version, body) =
            bytes.strip_prefix(MAGIC.as_slice()).and_then(<[u8]>::split_first).ok_or(FileError::Magic)?;
        if *version != VERSION {
            return Err(FileError::Version(*version));
        }
        let wire: Wire<Option<IgnoredAny>, StatementIn> =
            serde_ipld_dagcbor::from_slice(body).map_err(|error| FileError::Encoding(error.to_string()))?;
        let possession = match wire.statement {
            StatementIn::Possession(possession) => possession,
            StatementIn::Seal(_) => return Ok(Self::Sealed("a sealed sector")),
            StatementIn::WindowPost(_) => return Ok(Self::Sealed("a Window PoSt")),
            StatementIn::WinningPost(_) => return Ok(Self::Sealed("a Winning PoSt")),
        };
        let piece = PieceCid::from_bytes(&possession.piece)
            .map_err(|error| FileError::Encoding(error.to_string()))?;
        let file = PossessionFile {
            piece,
            challenge: Challenge::new(possession.seed.into_array(), possession.count)?,
            proof: PossessionProof::decode(&wire.proof)?,
        };
        // A key, another strength or another spelling of any part does not come back.
        if file.encode()? != bytes {
            return Err(FileError::NotCanonical);
        }
        Ok(Self::Possession(file))
    }
}

impl PossessionFile {
    /// The file's bytes.
    ///
    /// # Errors
    /// None in practice: what is in memory always encodes.
    pub fn encode(&self) -> Result<Vec<u8>, FileError> {
        let possession = Possession {
            count: self.challenge.count(),
            piece: ByteBuf::from(self.piece.to_bytes()),
            seed: ByteArray::new(*self.challenge.seed()),
        };
        let wire = Wire {
            key: None::<()>,
            proof: ByteBuf::from(self.proof.encode()?),
            statement: StatementOut::Possession(&possession),
            strength: STRENGTH.to_owned(),
        };
        let mut out = Vec::from(MAGIC.as_slice());
        out.push(VERSION);
        serde_ipld_dagcbor::to_writer(&mut out, &wire)
            .map_err(|error| FileError::Encoding(error.to_string()))?;
        Ok(out)
    }

    /// Accepts the proof only if it shows the challenged leaves of the piece.
    ///
    /// # Errors
    /// Says why not.
    pub fn verify(&self) -> Result<Verdict, FileError> {
        Ok(verify(&self.piece, &self.challenge, &self.proof)?)
    }
}

#[cfg(test)]
mod tests;
