//! Proof files: public data and a proof in one, for anybody to check offline.
//!
//! ```text
//! "HFPROOF" | version u8 | DAG-CBOR { key, proof, statement, strength }
//! ```
//!
//! Promises: one spelling for one file; every bit of it is bound: by the proof's equation, by a hash, or by the one
//! spelling. A file of another version is refused as such. What a file claims is in its `Statement` and nowhere
//! else; `strength` repeats the profile's words for whoever opens it, and a wrong word is refused.
//! Refuses: to be believed for its own key (`KeyTrust`), and a production statement under a key that Filecoin did
//! not publish.

mod groth;
mod report;
mod statement;

use std::fs;
use std::io::{self, Read};
use std::path::Path;

use holdfast_proofs::{PieceCid, PossessionProof, verify};
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;
use sha2::{Digest, Sha256};
use thiserror::Error;

use crate::packing::PackingError;
use crate::params::{Circuit, KEY_BYTES_MAX, Key, KeyError, KeyTrust, Origin, ParameterStore};
use crate::profile::{PRODUCTION_STRENGTH, Profile};
use crate::types::Bytes32;

pub(crate) use groth::in_field;
pub use report::VerifyReport;
pub(crate) use statement::check_sectors;
pub use statement::{
    PossessionStatement, PublicSector, SealStatement, Statement, WINDOW_SECTORS_MAX, WindowStatement,
    WinningStatement, draw_sector,
};

const MAGIC: &[u8; 7] = b"HFPROOF";
const VERSION: u8 = 1;
/// A key of the largest circuit, a possession proof or 192 bytes a partition, and 65,536 sectors or pieces.
pub const PROOF_FILE_BYTES_MAX: usize = KEY_BYTES_MAX + (12 << 20);
/// Bytes of one Groth16 proof: two points of G1 and one of G2, compressed.
pub const GROTH_PROOF_BYTES: usize = 192;

/// Why a proof file is not accepted.
#[derive(Debug, Error)]
pub enum ProofFileError {
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
    #[error("the file calls itself '{found}', its profile is of {expected}")]
    Strength { expected: &'static str, found: String },
    #[error("{0} is not an element of the field")]
    NotInField(&'static str),
    #[error("a proof here is {expected} bytes, this one {found}")]
    ProofLength { expected: usize, found: usize },
    #[error("sectors must be 1 to {WINDOW_SECTORS_MAX}, each once, in the order of their numbers")]
    Sectors,
    #[error("a sealed proof must name its key, a possession proof has none")]
    KeyPresence,
    #[error("{0} rests on parameters published by Filecoin; this key is not one")]
    KeyNotPublished(Profile),
    #[error("the proof does not hold for what it claims")]
    Rejected,
    #[error("the possession proof does not hold: {0}")]
    Possession(#[from] holdfast_proofs::ProofError),
    #[error(transparent)]
    Key(#[from] KeyError),
    #[error(transparent)]
    Packing(#[from] PackingError),
    #[error("the circuit library failed: {0}")]
    Library(String),
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// A verifying key as a proof file has it: by hash, and usually whole.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct KeyRef {
    bytes: Option<ByteBuf>,
    sha256: Bytes32,
}

/// A statement and its proof.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProofFile {
    key: Option<KeyRef>,
    proof: ByteBuf,
    statement: Statement,
    strength: String,
}

/// Where a verifier finds keys that it relies on by itself.
pub trait KeySource {
    /// The key with this hash, if the verifier vouches for it.
    fn find(&self, profile: Profile, circuit: Circuit, sha256: &[u8; 32]) -> Option<Vec<u8>>;
}

/// A verifier without keys of its own.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoKeys;

impl KeySource for NoKeys {
    fn find(&self, _: Profile, _: Circuit, _: &[u8; 32]) -> Option<Vec<u8>> {
        None
    }
}

impl KeySource for ParameterStore {
    /// Keys that are published or stamped as made here; only the key is hashed, which is all that verifying needs.
    fn find(&self, profile: Profile, circuit: Circuit, sha256: &[u8; 32]) -> Option<Vec<u8>> {
        let path = self.key_path(profile, circuit);
        if fs::metadata(&path).ok()?.len() > KEY_BYTES_MAX as u64 {
            return None;
        }
        let bytes = fs::read(path).ok()?;
        let key = Key::parse(profile, circuit, bytes).ok()?;
        let vouched = key.origin() == Origin::Published || self.stamps_key(profile, circuit, sha256);
        (key.sha256() == sha256 && vouched).then(|| key.bytes().to_vec())
    }
}

impl ProofFile {
    /// A possession proof with its public data.
    ///
    /// # Errors
    /// `Possession` where the proof cannot be encoded.
    pub fn possession(
        piece: &PieceCid,
        seed: [u8; 32],
        count: u16,
        proof: &PossessionProof,
    ) -> Result<Self, ProofFileError> {
        Ok(Self {
            key: None,
            proof: ByteBuf::from(proof.encode()?),
            statement: Statement::Possession(PossessionStatement::new(piece, seed, count)),
            strength: PRODUCTION_STRENGTH.to_owned(),
        })
    }

    pub(crate) fn seal(statement: SealStatement, key: &Key, proof: Vec<u8>) -> Self {
        Self::groth(Statement::Seal(statement), key, proof)
    }

    pub(crate) fn groth(statement: Statement, key: &Key, proof: Vec<u8>) -> Self {
        let strength = statement.strength().to_owned();
        let key = KeyRef { bytes: Some(ByteBuf::from(key.bytes())), sha256: Bytes32(*key.sha256()) };
        Self { key: Some(key), proof: ByteBuf::from(proof), statement, strength }
    }

    /// The file without its key, for those who have it: a series of proofs need not repeat megabytes.
    #[must_use]
    pub fn without_key(mut self) -> Self {
        if let Some(key) = &mut self.key {
            key.bytes = None;
        }
        self
    }

    /// The same with a key, whatever it named before.
    pub(crate) fn with_key(self, key: &Key) -> Self {
        Self { key: Some(KeyRef { bytes: None, sha256: Bytes32(*key.sha256()) }), ..self }
    }

    /// The key that the file carries, if it does.
    ///
    /// # Errors
    /// Where it is none of its circuit.
    pub(crate) fn own_key(&self) -> Result<Option<Key>, KeyError> {
        let carried = self.key.as_ref().and_then(|key| key.bytes.as_ref());
        let (Some((profile, circuit)), Some(bytes)) = (self.statement.circuit(), carried) else {
            return Ok(None);
        };
        Key::parse(profile, circuit, bytes.to_vec()).map(Some)
    }

    /// What the file claims. Unverified.
    #[must_use]
    pub fn statement(&self) -> &Statement {
        &self.statement
    }

    /// Whether the file is for this seal and its proof holds under its own key.
    pub(crate) fn is_for(&self, statement: &SealStatement) -> bool {
        self.statement == Statement::Seal(statement.clone())
            && self.own_key().is_ok_and(|key| key.is_some_and(|key| self.verify_with(&key).is_ok()))
    }

    /// # Errors
    /// `Encoding`, which no file that this program made gives.
    pub fn encode(&self) -> Result<Vec<u8>, ProofFileError> {
        let mut out = Vec::from(MAGIC.as_slice());
        out.push(VERSION);
        serde_ipld_dagcbor::to_writer(&mut out, self)
            .map_err(|error| ProofFileError::Encoding(error.to_string()))?;
        Ok(out)
    }

    /// Reads a file's bytes; nothing of it is verified yet.
    ///
    /// # Errors
    /// `TooLong`, `Magic`, `Version`, `Encoding`, `NotCanonical`, `Strength`, `KeyPresence`, `Sectors`.
    pub fn decode(bytes: &[u8]) -> Result<Self, ProofFileError> {
        if bytes.len() > PROOF_FILE_BYTES_MAX {
            return Err(ProofFileError::TooLong(bytes.len()));
        }
        let (version, body) = bytes
            .strip_prefix(MAGIC.as_slice())
            .and_then(<[u8]>::split_first)
            .ok_or(ProofFileError::Magic)?;
        if *version != VERSION {
            return Err(ProofFileError::Version(*version));
        }
        let file: Self = serde_ipld_dagcbor::from_slice(body)
            .map_err(|error| ProofFileError::Encoding(error.to_string()))?;
        if file.encode()? != bytes {
            return Err(ProofFileError::NotCanonical);
        }
        let expected = file.statement.strength();
        if file.strength != expected {
            return Err(ProofFileError::Strength { expected, found: file.strength });
        }
        if file.key.is_some() != file.statement.circuit().is_some() {
            return Err(ProofFileError::KeyPresence);
        }
        file.statement.check()?;
        Ok(file)
    }

    /// Reads a file; nothing of it is verified yet. No more is read than a proof file may have: the length that a path
    /// tells beforehand says nothing of a device or a pipe.
    ///
    /// # Errors
    /// As `decode`, and `Io`.
    pub fn read(source: impl Read) -> Result<Self, ProofFileError> {
        let mut bytes = Vec::new();
        source.take(PROOF_FILE_BYTES_MAX as u64 + 1).read_to_end(&mut bytes)?;
        Self::decode(&bytes)
    }

    /// Checks the claim, and says on whose word the key stands.
    ///
    /// # Errors
    /// Says what is wrong. `Key` where the key is not in the file and `keys` has it not.
    pub fn verify(&self, keys: &dyn KeySource) -> Result<VerifyReport, ProofFileError> {
        let Some((profile, circuit)) = self.statement.circuit() else {
            return self.verify_possession();
        };
        let Some(named) = &self.key else { return Err(ProofFileError::KeyPresence) };
        // Before any point is computed with: bytes that are not the named key cost one hash.
        if let Some(bytes) = &named.bytes {
            let found: [u8; 32] = Sha256::digest(bytes).into();
            if found != named.sha256.0 {
                let (named, found) = (named.sha256.to_string(), Bytes32(found).to_string());
                return Err(KeyError::OtherKey { named, found }.into());
            }
        }
        let own = keys.find(profile, circuit, &named.sha256.0);
        let vouched = own.is_some();
        let bytes = own
            .or_else(|| named.bytes.as_ref().map(|bytes| bytes.to_vec()))
            .ok_or_else(|| KeyError::Unknown(named.sha256.to_string()))?;
        let key = Key::parse(profile, circuit, bytes)?;
        self.verify_with(&key)?;
        let trust = match key.origin() {
            Origin::Published => KeyTrust::Published,
            Origin::Local if vouched => KeyTrust::OwnLocal,
            Origin::Local => KeyTrust::FromFile,
        };
        Ok(VerifyReport::groth(&self.statement, trust, named.sha256))
    }

    /// Checks the claim under a given key.
    ///
    /// # Errors
    /// Says what is wrong.
    pub(crate) fn verify_with(&self, key: &Key) -> Result<(), ProofFileError> {
        let (Some((profile, circuit)), Some(named)) = (self.statement.circuit(), &self.key) else {
            return Err(ProofFileError::KeyPresence);
        };
        let other = |found: String| KeyError::OtherKey { named: named.sha256.to_string(), found };
        let carried = named.bytes.as_ref().is_none_or(|bytes| bytes.as_slice() == key.bytes());
        if key.sha256() != &named.sha256.0 || !carried {
            return Err(other(Bytes32(*key.sha256()).to_string()).into());
        }
        if key.profile() != profile || key.circuit() != circuit {
            return Err(other(format!("{} at {}", key.circuit(), key.profile())).into());
        }
        if profile.is_production() && key.origin() != Origin::Published {
            return Err(ProofFileError::KeyNotPublished(profile));
        }
        groth::verify(&self.statement, key, &self.proof)
    }

    fn verify_possession(&self) -> Result<VerifyReport, ProofFileError> {
        let Statement::Possession(statement) = &self.statement else {
            return Err(ProofFileError::KeyPresence);
        };
        let (piece, challenge) = statement.parts()?;
        let proof = PossessionProof::decode(&self.proof)?;
        let verdict = verify(&piece, &challenge, &proof)?;
        Ok(VerifyReport::possession(&self.statement, &verdict))
    }
}

/// Checks any proof from the public data in its file.
///
/// # Errors
/// Says why the proof is not accepted.
pub fn verify_file(path: &Path, keys: &dyn KeySource) -> Result<VerifyReport, ProofFileError> {
    ProofFile::read(fs::File::open(path)?)?.verify(keys)
}

#[cfg(test)]
mod tests;
