//! Verifying keys: parsed from untrusted bytes, named by their hash, and trusted only as far as somebody vouches.

use std::fmt;

use bellperson::groth16::{PreparedVerifyingKey, VerifyingKey, prepare_verifying_key};
use blstrs::Bls12;
use group::prime::PrimeCurveAffine;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use thiserror::Error;

use super::{Circuit, Origin, manifest_digest, published_digest};
use crate::durable::hex;
use crate::profile::Profile;
use storage_proofs_core::parameter_cache::verifying_key_id;

/// Points of G1 are 96 bytes, of G2 192; three of each stand before the inputs' number and points.
const HEAD_BYTES: usize = 3 * 96 + 3 * 192 + 4;
const POINT_BYTES: usize = 96;
/// Room for the largest key: a Window PoSt of 32 GiB sectors, 25,840 points.
pub const KEY_BYTES_MAX: usize = 4 << 20;

/// Why bytes are no verifying key for a circuit.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum KeyError {
    #[error("a verifying key for {circuit} at {profile} is {expected} bytes, these are {found}")]
    Length { profile: Profile, circuit: Circuit, expected: usize, found: usize },
    #[error("the verifying key is not one: {0}")]
    Malformed(String),
    #[error("the verifying key has a point at infinity, under which anything would verify")]
    Degenerate,
    #[error("no verifying key with hash {0} is known here")]
    Unknown(String),
    #[error("the verifying key in the file has hash {found}, the proof names {named}")]
    OtherKey { named: String, found: String },
}

/// On whose word a verifying key stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum KeyTrust {
    /// Its hash is in Filecoin's published manifest.
    Published,
    /// It was made on this machine, which could forge but knows that it did not. Test strength.
    OwnLocal,
    /// It came with the proof: whoever made it could forge any proof. Test strength at best.
    FromFile,
}

impl fmt::Display for KeyTrust {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Published => "published by Filecoin's ceremony",
            Self::OwnLocal => "made on this machine (test strength: whoever made it can forge)",
            Self::FromFile => "came with the proof (test strength: whoever made it can forge)",
        })
    }
}

/// A verifying key that fits its circuit.
pub struct Key {
    profile: Profile,
    circuit: Circuit,
    bytes: Vec<u8>,
    sha256: [u8; 32],
    origin: Origin,
    prepared: PreparedVerifyingKey<Bls12>,
}

impl Key {
    /// Parses a key for a circuit; its length is compared before anything is computed.
    ///
    /// # Errors
    /// `Length`, `Malformed`, `Degenerate`.
    pub fn parse(profile: Profile, circuit: Circuit, bytes: Vec<u8>) -> Result<Self, KeyError> {
        let points = circuit.inputs(profile) + 1;
        let expected = HEAD_BYTES + points * POINT_BYTES;
        if bytes.len() != expected {
            return Err(KeyError::Length { profile, circuit, expected, found: bytes.len() });
        }
        let key = VerifyingKey::<Bls12>::read(bytes.as_slice())
            .map_err(|error| KeyError::Malformed(error.to_string()))?;
        let ones =
            [key.alpha_g1, key.beta_g1, key.delta_g1].iter().any(|point| bool::from(point.is_identity()));
        let twos =
            [key.beta_g2, key.gamma_g2, key.delta_g2].iter().any(|point| bool::from(point.is_identity()));
        if ones || twos {
            return Err(KeyError::Degenerate);
        }
        // One spelling for one key, and as many points as its own count says.
        let mut again = Vec::with_capacity(bytes.len());
        key.write(&mut again).map_err(|error| KeyError::Malformed(error.to_string()))?;
        if again != bytes {
            return Err(KeyError::Malformed("not in its canonical form".to_owned()));
        }
        let sha256 = Sha256::digest(&bytes).into();
        let name = verifying_key_id(&circuit.id(profile));
        let published = published_digest(&name).is_some_and(|digest| digest == manifest_digest(&bytes));
        let origin = if published { Origin::Published } else { Origin::Local };
        Ok(Self { profile, circuit, bytes, sha256, origin, prepared: prepare_verifying_key(&key) })
    }

    #[must_use]
    pub fn profile(&self) -> Profile {
        self.profile
    }

    #[must_use]
    pub fn circuit(&self) -> Circuit {
        self.circuit
    }

    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// What proofs name their key by.
    #[must_use]
    pub fn sha256(&self) -> &[u8; 32] {
        &self.sha256
    }

    /// Whether the manifest knows it.
    #[must_use]
    pub fn origin(&self) -> Origin {
        self.origin
    }

    pub(crate) fn prepared(&self) -> &PreparedVerifyingKey<Bls12> {
        &self.prepared
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Key")
            .field("profile", &self.profile)
            .field("circuit", &self.circuit)
            .field("sha256", &hex(&self.sha256))
            .field("origin", &self.origin)
            .finish_non_exhaustive()
    }
}
