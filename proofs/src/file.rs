//! A possession proof as a file that anybody can check offline; and what other proof files call themselves.
//!
//! ```text
//! "HFPROOF" | 1 | DAG-CBOR { key: null, proof, statement: { possession: { count, piece, seed } }, strength }
//! "HFPROOF" | 2 | DAG-CBOR { key: null, proof, statement: { possession-set: { count, pieces, seed } }, strength }
//! ```
//!
//! Promises: one spelling for one file; what it claims is in its statement and nowhere else. Seals, Window and Winning
//! PoSts have the envelope of version 1 and are told apart here; their circuits are not known to this crate. Sets came later:
//! a program that does not know them says so by their version.
//! Refuses: another version, as such.

use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};
use serde_bytes::{ByteArray, ByteBuf};
use thiserror::Error;

use crate::commp::PieceCid;
use crate::pdp::{
    Challenge, PossessionProof, ProofError, ProvingSet, SetVerdict, Verdict, verify, verify_set,
};

const MAGIC: &[u8; 7] = b"HFPROOF";
const VERSION: u8 = 1;
/// Of a set's file.
const VERSION_SET: u8 = 2;
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
    Set(SetFile),
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

/// That leaves drawn from all pieces of a set together could be produced after the seed was known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SetFile {
    pub set: ProvingSet,
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
    PossessionSet(&'a PossessionSet),
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
enum StatementIn {
    Possession(Possession),
    Seal(IgnoredAny),
    WindowPost(IgnoredAny),
    WinningPost(IgnoredAny),
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
enum SetStatementIn {
    PossessionSet(PossessionSet),
}

#[derive(Serialize, Deserialize)]
struct PossessionSet {
    count: u16,
    pieces: Vec<ByteBuf>,
    seed: ByteArray<32>,
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
        match *version {
            VERSION => {}
            VERSION_SET => return SetFile::decode(bytes, body).map(Self::Set),
            newer => return Err(FileError::Version(newer)),
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
        envelope(VERSION, StatementOut::Possession(&possession), &self.proof)
    }

    /// Accepts the proof only if it shows the challenged leaves of the piece.
    ///
    /// # Errors
    /// Says why not.
    pub fn verify(&self) -> Result<Verdict, FileError> {
        Ok(verify(&self.piece, &self.challenge, &self.proof)?)
    }
}

impl SetFile {
    fn decode(bytes: &[u8], body: &[u8]) -> Result<Self, FileError> {
        let malformed = |error: String| FileError::Encoding(error);
        let wire: Wire<Option<IgnoredAny>, SetStatementIn> =
            serde_ipld_dagcbor::from_slice(body).map_err(|error| malformed(error.to_string()))?;
        let SetStatementIn::PossessionSet(stated) = wire.statement;
        let pieces = stated
            .pieces
            .iter()
            .map(|piece| PieceCid::from_bytes(piece).map_err(|error| malformed(error.to_string())))
            .collect::<Result<_, _>>()?;
        let file = Self {
            set: ProvingSet::new(pieces)?,
            challenge: Challenge::new(stated.seed.into_array(), stated.count)?,
            proof: PossessionProof::decode(&wire.proof)?,
        };
        if file.encode()? == bytes { Ok(file) } else { Err(FileError::NotCanonical) }
    }

    /// The file's bytes.
    ///
    /// # Errors
    /// `TooLong` for a set of more pieces than a file has room for: some 380,000.
    pub fn encode(&self) -> Result<Vec<u8>, FileError> {
        let stated = PossessionSet {
            count: self.challenge.count(),
            pieces: self.set.pieces().iter().map(|piece| ByteBuf::from(piece.to_bytes())).collect(),
            seed: ByteArray::new(*self.challenge.seed()),
        };
        let bytes = envelope(VERSION_SET, StatementOut::PossessionSet(&stated), &self.proof)?;
        if bytes.len() > PROOF_FILE_BYTES_MAX { Err(FileError::TooLong(bytes.len())) } else { Ok(bytes) }
    }

    /// Accepts the proof only if it shows the challenged leaves of the set.
    ///
    /// # Errors
    /// Says why not.
    pub fn verify(&self) -> Result<SetVerdict, FileError> {
        Ok(verify_set(&self.set, &self.challenge, &self.proof)?)
    }
}

fn envelope(version: u8, statement: StatementOut<'_>, proof: &PossessionProof) -> Result<Vec<u8>, FileError> {
    let (proof, strength) = (ByteBuf::from(proof.encode()?), STRENGTH.to_owned());
    let wire = Wire { key: None::<()>, proof, statement, strength };
    let mut out = Vec::from(MAGIC.as_slice());
    out.push(version);
    serde_ipld_dagcbor::to_writer(&mut out, &wire).map_err(|error| FileError::Encoding(error.to_string()))?;
    Ok(out)
}

#[cfg(test)]
mod tests;
