//! The capability's file: what the owner gives to whoever runs a watcher, once.
//!
//! ```text
//! DAG-CBOR { b: DAG-CBOR body, s: Ed25519 by the drive's placement key over "holdfast watch capability v1\0" | b }
//! ```
//!
//! It holds the watcher's secret, so it is as private as a key (mode 0600). Everything that changes comes later, sealed, from
//! the providers ([`super::bundle`]). Promises: what was read is what one owner signed, as a whole.

use holdfast_content::dagcbor::{self, FormatError};
use holdfast_content::keys::SecretKey32;
use holdfast_content::watch::{CapabilityId, WatcherKeys};
use holdfast_net::SigningKey;
use holdfast_net::deal::{sign_message, verify_message};
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

const WHAT: &str = "watch capability";
const VERSION: u64 = 1;
const SUITE: u64 = 1;
const DOMAIN: &[u8] = b"holdfast watch capability v1\0";
/// The longest file.
pub const CAPABILITY_BYTES_MAX: usize = 64 << 10;
/// Providers that it names, to begin with.
pub const KNOWN_MAX: usize = 64;

/// A provider and where it may be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Known {
    /// Its peer id in binary.
    pub peer: ByteBuf,
    /// Multiaddresses.
    pub addrs: Vec<String>,
}

/// What the file says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Capability {
    version: u64,
    suite: u64,
    /// Its name.
    #[serde(with = "serde_bytes")]
    pub id: CapabilityId,
    /// The drive's name.
    #[serde(with = "serde_bytes")]
    pub drive: [u8; 32],
    /// The owner's placement key: signed this.
    #[serde(with = "serde_bytes")]
    pub owner: [u8; 32],
    /// Signs what the watcher is given.
    #[serde(with = "serde_bytes")]
    pub bundle: [u8; 32],
    /// Owns the deals that it makes.
    #[serde(with = "serde_bytes")]
    pub client: [u8; 32],
    /// Its secret.
    pub secret: SecretKey32,
    /// What the owner calls it.
    pub label: String,
    /// When it ends, unix seconds.
    pub until: u64,
    /// Providers to begin with.
    pub providers: Vec<Known>,
}

/// What an owner puts into a file.
pub struct New {
    /// Its name.
    pub id: CapabilityId,
    /// The drive's name.
    pub drive: [u8; 32],
    /// What the owner calls it.
    pub label: String,
    /// When it ends.
    pub until: u64,
    /// Providers to begin with.
    pub providers: Vec<Known>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Envelope {
    b: ByteBuf,
    s: ByteBuf,
}

impl Capability {
    /// The file's bytes.
    pub fn sign(new: New, keys: &holdfast_content::keys::DriveKeys) -> Result<Vec<u8>, FormatError> {
        let (watch, owner) = (keys.watch(), keys.placement_signing());
        let public = |key: &SigningKey| key.verifying_key().to_bytes();
        let mut providers = new.providers;
        providers.truncate(KNOWN_MAX);
        let body = Capability {
            version: VERSION,
            suite: SUITE,
            id: new.id,
            drive: new.drive,
            owner: public(owner),
            bundle: public(&watch.bundle(&new.id)),
            client: public(&watch.client()),
            secret: watch.secret(&new.id),
            label: new.label,
            until: new.until,
            providers,
        };
        let encoded = dagcbor::encode(WHAT, &body)?;
        let signature = sign_message(owner, DOMAIN, &encoded);
        dagcbor::encode(WHAT, &Envelope { b: ByteBuf::from(encoded), s: ByteBuf::from(signature) })
    }

    /// From a file.
    pub fn read(bytes: &[u8]) -> Result<Capability, FormatError> {
        let envelope: Envelope = dagcbor::decode(WHAT, bytes, CAPABILITY_BYTES_MAX)?;
        let body = Self::decode(&envelope.b)?;
        verify_message(&body.owner, DOMAIN, &envelope.b, &envelope.s)
            .map_err(|_| FormatError::NotAuthentic { what: WHAT })?;
        Ok(body)
    }

    /// What is signed; the signature comes after.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Capability, FormatError> {
        let found = dagcbor::peek_version(WHAT, bytes)?;
        dagcbor::check_version(WHAT, found.version, VERSION)?;
        dagcbor::check_version(WHAT, found.suite, SUITE)?;
        dagcbor::decode(WHAT, bytes, CAPABILITY_BYTES_MAX)
    }

    /// The watcher's keys.
    pub fn keys(&self) -> WatcherKeys {
        WatcherKeys::from_secret(&self.secret)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use holdfast_content::keys::Mnemonic;

    pub(crate) fn sample() -> Vec<u8> {
        let keys = Mnemonic::from_entropy([1; 32]).root_key().generation(1).keys();
        let known = Known { peer: ByteBuf::from(vec![7; 38]), addrs: vec!["/ip4/192.0.2.7/tcp/4001".into()] };
        let new = New {
            id: [5; 16],
            drive: [6; 32],
            label: "attic".into(),
            until: 1_900_000_000,
            providers: vec![known],
        };
        Capability::sign(new, &keys).unwrap()
    }

    #[test]
    fn a_file_is_read_as_it_was_signed_and_shows_no_secret() {
        let bytes = sample();
        let capability = Capability::read(&bytes).unwrap();
        let keys = Mnemonic::from_entropy([1; 32]).root_key().generation(1).keys();
        assert_eq!(capability.client, keys.watch().client().verifying_key().to_bytes());
        assert_eq!(capability.keys().holder, WatcherKeys::from_secret(&keys.watch().secret(&[5; 16])).holder);
        assert!(!format!("{capability:?}").contains("secret: SecretKey32(["));
        for at in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[at] ^= 1;
            assert!(Capability::read(&changed).is_err(), "byte {at}");
        }
    }
}
