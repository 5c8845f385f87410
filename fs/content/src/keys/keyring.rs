//! The keyring: what cannot be derived from the words, signed by the root key, kept beside the head at every provider.
//!
//! ```text
//! envelope = canonical DAG-CBOR { b: body bytes, s: Ed25519 signature by the root key over "holdfast-keyring:" || b }
//! body     = canonical DAG-CBOR of [`Keyring`]
//! ```
//!
//! Anyone may read it: it tells which head keys are valid, never a secret. The highest verified version wins.

use super::words::{DriveName, RootKey};
use crate::dagcbor::{self, FormatError};
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

const WHAT: &str = "keyring";
const VERSION: u64 = 1;
const SUITE: u64 = 1;
const SIGNING_DOMAIN: &[u8] = b"holdfast-keyring:";
/// No keyring is larger.
pub const KEYRING_BYTES_MAX: usize = 64 << 10;
/// A generation is opened by a person, seldom.
pub const GENERATIONS_MAX: usize = 256;

/// A generation of keys, as others may know it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyringGeneration {
    /// Its number, from 1.
    pub number: u32,
    /// When it was opened, unix seconds.
    pub opened: u64,
    /// The public half of its head key.
    #[serde(with = "serde_bytes")]
    pub head_key: [u8; 32],
}

/// A head key that was replaced.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RetiredHead {
    /// Whose key it was.
    pub generation: u32,
    /// The last sequence number that is accepted under it.
    pub last_sequence: u64,
}

/// A drive's public keys and their history.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Keyring {
    version: u64,
    suite: u64,
    /// The drive's name.
    #[serde(with = "serde_bytes")]
    drive: [u8; 32],
    /// Counts up with every change; the highest wins.
    pub sequence: u64,
    /// When it was signed, unix seconds.
    pub time: u64,
    /// All generations, oldest first; the last one is current.
    pub generations: Vec<KeyringGeneration>,
    /// Head keys that are valid no longer.
    pub retired: Vec<RetiredHead>,
    /// Secrets that cannot be derived, encrypted for the root key; empty so far.
    pub sealed: ByteBuf,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Envelope {
    b: ByteBuf,
    s: ByteBuf,
}

impl Keyring {
    /// The first keyring of a new drive: one generation.
    pub fn first(root: &RootKey, now: u64) -> Self {
        let generation = root.generation(1);
        Self {
            version: VERSION,
            suite: SUITE,
            drive: *root.drive_name().as_bytes(),
            sequence: 1,
            time: now,
            generations: vec![KeyringGeneration {
                number: 1,
                opened: now,
                head_key: generation.keys().head_signing().verifying_key().to_bytes(),
            }],
            retired: Vec::new(),
            sealed: ByteBuf::new(),
        }
    }

    /// The drive that it belongs to.
    pub fn drive(&self) -> DriveName {
        DriveName::from_bytes(self.drive)
    }

    /// The generation in use.
    pub fn current(&self) -> Result<&KeyringGeneration, FormatError> {
        self.generations.last().ok_or_else(|| FormatError::malformed(WHAT, "no generation"))
    }

    /// Whether a head with this key and sequence is acceptable, and of which generation it is.
    pub fn accepts_head(&self, head_key: &[u8; 32], sequence: u64) -> Option<u32> {
        let number = self.generations.iter().find(|known| &known.head_key == head_key)?.number;
        let retired = self.retired.iter().find(|retired| retired.generation == number);
        (retired.is_none_or(|retired| sequence <= retired.last_sequence)).then_some(number)
    }

    /// Signs; the bytes are what providers keep.
    pub fn sign(&self, root: &RootKey) -> Result<Vec<u8>, FormatError> {
        if root.drive_name() != self.drive() {
            return Err(FormatError::malformed(WHAT, "these words open another drive"));
        }
        self.check()?;
        let body = dagcbor::encode(WHAT, self)?;
        let signature = root.sign(&signed_message(&body)).to_vec();
        let bytes = dagcbor::encode(WHAT, &Envelope { b: ByteBuf::from(body), s: ByteBuf::from(signature) })?;
        if bytes.len() > KEYRING_BYTES_MAX {
            return Err(FormatError::TooLarge { what: WHAT, len: bytes.len(), max: KEYRING_BYTES_MAX });
        }
        Ok(bytes)
    }

    /// Verifies bytes from anyone against the drive's name.
    pub fn verify(bytes: &[u8], drive: &DriveName) -> Result<Self, FormatError> {
        let envelope: Envelope = dagcbor::decode(WHAT, bytes, KEYRING_BYTES_MAX)?;
        let signature: &[u8; 64] =
            envelope.s.as_slice().try_into().map_err(|_| FormatError::NotAuthentic { what: WHAT })?;
        if !drive.verify(&signed_message(&envelope.b), signature) {
            return Err(FormatError::NotAuthentic { what: WHAT });
        }
        let keyring = Self::decode_body(&envelope.b)?;
        if keyring.drive() != *drive {
            return Err(FormatError::NotAuthentic { what: WHAT });
        }
        Ok(keyring)
    }

    /// Reads what is signed.
    pub(crate) fn decode_body(body: &[u8]) -> Result<Self, FormatError> {
        let version = dagcbor::peek_version(WHAT, body)?;
        dagcbor::check_version(WHAT, version.version, VERSION)?;
        dagcbor::check_version(WHAT, version.suite, SUITE)?;
        let keyring: Self = dagcbor::decode(WHAT, body, KEYRING_BYTES_MAX)?;
        keyring.check()?;
        Ok(keyring)
    }

    /// The digest by which a head names the keyring that it was written under (BLAKE3 of the signed bytes).
    pub fn digest(bytes: &[u8]) -> [u8; 32] {
        blake3::hash(bytes).into()
    }

    fn check(&self) -> Result<(), FormatError> {
        let ordered = self.generations.windows(2).all(|pair| match pair {
            [a, b] => a.number < b.number,
            _ => false,
        });
        if self.generations.is_empty() || self.generations.len() > GENERATIONS_MAX || !ordered {
            return Err(FormatError::malformed(WHAT, "generations"));
        }
        if self.retired.len() > GENERATIONS_MAX {
            return Err(FormatError::malformed(WHAT, "retired keys"));
        }
        Ok(())
    }
}

fn signed_message(body: &[u8]) -> Vec<u8> {
    [SIGNING_DOMAIN, body].concat()
}
