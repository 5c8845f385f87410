//! Repair capabilities: the keys that each side of one has, and the note by which the owner's log declares it.
//!
//! ```text
//! generation secret -> watch secret w
//!   client       signs permits, owns the deals that watchers make                       the owner alone
//!   bundle(id)   signs what the watcher is given                                        the owner alone
//!   shared       seals watchers' logs                                                   the owner, and every watcher of the drive
//!   secret(id)   -> holder   proves the watcher to providers, signs its proposals       the owner, and this watcher
//!                -> log      signs its placement entries and its log
//!                -> open     seals what the watcher is given
//!                -> network  the seed of its identity as a peer
//! note = canonical DAG-CBOR { version 1, suite 1, label, at, until, bytes, daily, silent_seconds, newcomers, apart, revoked }
//! ```
//!
//! The note stands in the placement log (action "watch", the capability's id in the place of a piece's), so that the words bring
//! back who may repair, and who may no more: `revoked` names how many of its entries were accepted. Nothing of it reaches a
//! provider.

pub mod part;

use crate::aead::{self, OpenError};
use crate::dagcbor::{self, FormatError};
use crate::keys::SecretKey32;
use ed25519_dalek::SigningKey;
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;
use zeroize::Zeroizing;

const WHAT: &str = "repair capability";
const VERSION: u64 = 1;
const SUITE: u64 = 1;
/// The longest label.
pub const LABEL_BYTES_MAX: usize = 128;
/// Providers that the capability is kept apart from.
pub const APART_MAX: usize = 16;
/// The longest note.
pub const NOTE_BYTES_MAX: usize = 2048;
/// No peer id is longer.
const PEER_BYTES_MAX: usize = 64;

const CLIENT: &str = "holdfast 2026 watch client v1";
const BUNDLE: &str = "holdfast 2026 watch bundle v1";
const SHARED: &str = "holdfast 2026 watch shared v1";
const SECRET: &str = "holdfast 2026 watch secret v1";
const HOLDER: &str = "holdfast 2026 watcher holder v1";
const LOG: &str = "holdfast 2026 watcher log v1";
const OPEN: &str = "holdfast 2026 watcher open v1";
const NETWORK: &str = "holdfast 2026 watcher network v1";

/// A capability's random name.
pub type CapabilityId = [u8; 16];

/// The owner's side of all capabilities of a generation.
#[derive(Clone, Debug)]
pub struct WatchKeys(SecretKey32);

impl WatchKeys {
    pub(crate) fn new(secret: SecretKey32) -> Self {
        Self(secret)
    }

    fn derive(&self, context: &str) -> Zeroizing<[u8; 32]> {
        Zeroizing::new(blake3::derive_key(context, self.0.as_bytes()))
    }

    fn of(&self, context: &str, id: &CapabilityId) -> Zeroizing<[u8; 32]> {
        Zeroizing::new(blake3::keyed_hash(&self.derive(context), id).into())
    }

    /// Signs permits; owns the deals that watchers make.
    pub fn client(&self) -> SigningKey {
        SigningKey::from_bytes(&self.derive(CLIENT))
    }

    /// Signs what one watcher is given.
    pub fn bundle(&self, id: &CapabilityId) -> SigningKey {
        SigningKey::from_bytes(&self.of(BUNDLE, id))
    }

    /// Seals the logs of all watchers of the drive.
    pub fn shared(&self) -> SecretKey32 {
        SecretKey32::from_bytes(*self.derive(SHARED))
    }

    /// What one watcher keeps.
    pub fn secret(&self, id: &CapabilityId) -> SecretKey32 {
        SecretKey32::from_bytes(*self.of(SECRET, id))
    }
}

/// A watcher's side of its capability.
#[derive(Clone)]
pub struct WatcherKeys {
    /// Proves it to providers, signs its proposals.
    pub holder: SigningKey,
    /// Signs its placement entries and its log.
    pub log: SigningKey,
    /// Seals what it is given.
    pub open: SecretKey32,
    /// Seed of its identity as a peer.
    pub network: SecretKey32,
}

impl WatcherKeys {
    /// From the secret of a capability.
    pub fn from_secret(secret: &SecretKey32) -> Self {
        let derive = |context| Zeroizing::new(blake3::derive_key(context, secret.as_bytes()));
        Self {
            holder: SigningKey::from_bytes(&derive(HOLDER)),
            log: SigningKey::from_bytes(&derive(LOG)),
            open: SecretKey32::from_bytes(*derive(OPEN)),
            network: SecretKey32::from_bytes(*derive(NETWORK)),
        }
    }
}

impl std::fmt::Debug for WatcherKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("WatcherKeys(..)")
    }
}

/// Seals a part of a bundle or of a log; the same bytes are sealed the same.
pub fn seal(key: &SecretKey32, about: &[u8], plain: &[u8]) -> Vec<u8> {
    aead::seal_synthetic(key.as_bytes(), about, plain)
}

/// Reverses [`seal`].
pub fn open(key: &SecretKey32, about: &[u8], sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, OpenError> {
    aead::open_xnonce(key.as_bytes(), about, sealed)
}

/// What the owner's log says of a capability.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GrantNote {
    version: u64,
    suite: u64,
    /// What the owner calls it.
    pub label: String,
    /// When it was granted, unix seconds.
    pub at: u64,
    /// When it ends.
    pub until: u64,
    /// Bytes that its deals may come to at one provider.
    pub bytes: u64,
    /// The same of a day.
    pub daily: u64,
    /// A provider is taken to be lost after so much silence.
    pub silent_seconds: u64,
    /// Whether providers will do that the owner did not name.
    pub newcomers: bool,
    /// Providers of whoever holds the capability: it is given nothing of what they keep, and gives them nothing.
    pub apart: Vec<ByteBuf>,
    /// Taken back, after so many of its entries were accepted.
    pub revoked: Option<u64>,
}

/// What a capability may do.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct GrantTerms {
    /// What the owner calls it.
    pub label: String,
    /// When it was granted, unix seconds.
    pub at: u64,
    /// When it ends.
    pub until: u64,
    /// Bytes that its deals may come to at one provider.
    pub bytes: u64,
    /// The same of a day.
    pub daily: u64,
    /// A provider is taken to be lost after so much silence.
    pub silent_seconds: u64,
    /// Whether providers will do that the owner did not name.
    pub newcomers: bool,
    /// Providers that it is kept apart from, as peer ids in binary.
    pub apart: Vec<Vec<u8>>,
}

impl GrantNote {
    /// A capability that was just granted.
    pub fn new(terms: GrantTerms) -> Result<Self, FormatError> {
        let note = Self {
            version: VERSION,
            suite: SUITE,
            label: terms.label,
            at: terms.at,
            until: terms.until,
            bytes: terms.bytes,
            daily: terms.daily,
            silent_seconds: terms.silent_seconds,
            newcomers: terms.newcomers,
            apart: terms.apart.into_iter().map(ByteBuf::from).collect(),
            revoked: None,
        };
        note.check()?;
        Ok(note)
    }

    fn check(&self) -> Result<(), FormatError> {
        if self.label.len() > LABEL_BYTES_MAX || self.label.chars().any(char::is_control) {
            return Err(FormatError::malformed(WHAT, "its label"));
        }
        let long = self.apart.iter().any(|peer| peer.len() > PEER_BYTES_MAX);
        if long || self.apart.len() > APART_MAX {
            return Err(FormatError::malformed(WHAT, "the providers that it is kept apart from"));
        }
        Ok(())
    }

    /// Whether it may do anything at that time.
    pub fn lasts(&self, now: u64) -> bool {
        self.revoked.is_none() && self.until > now
    }

    /// For the placement entry.
    pub fn encode(&self) -> Result<Vec<u8>, FormatError> {
        dagcbor::encode(WHAT, self)
    }

    /// From one.
    pub fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        if bytes.len() > NOTE_BYTES_MAX {
            return Err(FormatError::TooLarge { what: WHAT, len: bytes.len(), max: NOTE_BYTES_MAX });
        }
        let found = dagcbor::peek_version(WHAT, bytes)?;
        dagcbor::check_version(WHAT, found.version, VERSION)?;
        dagcbor::check_version(WHAT, found.suite, SUITE)?;
        let note: Self = dagcbor::decode(WHAT, bytes, NOTE_BYTES_MAX)?;
        note.check()?;
        Ok(note)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::keys::Mnemonic;

    pub(crate) fn sample() -> GrantNote {
        GrantNote::new(GrantTerms {
            label: "attic".into(),
            at: 1_800_000_000,
            until: 1_900_000_000,
            bytes: 1 << 40,
            daily: 1 << 36,
            silent_seconds: 1800,
            newcomers: true,
            apart: vec![vec![7; 38]],
        })
        .unwrap()
    }

    #[test]
    fn notes_come_back_and_only_as_they_are() {
        let note = sample();
        let bytes = note.encode().unwrap();
        assert_eq!(GrantNote::decode(&bytes).unwrap(), note);
        for at in 0..bytes.len() {
            assert!(GrantNote::decode(&bytes[..at]).is_err());
        }
        let refused = [
            GrantNote { label: "x".repeat(LABEL_BYTES_MAX + 1), ..note.clone() },
            GrantNote { label: "a\nb".into(), ..note.clone() },
            GrantNote { apart: vec![ByteBuf::from(vec![1; 38]); APART_MAX + 1], ..note.clone() },
            GrantNote { suite: 2, ..note.clone() },
        ];
        for note in refused {
            assert!(GrantNote::decode(&note.encode().unwrap()).is_err(), "{note:?}");
        }
        assert!(note.lasts(1_850_000_000) && !note.lasts(1_900_000_000));
        assert!(!GrantNote { revoked: Some(3), ..note }.lasts(1_850_000_000));
    }

    #[test]
    fn every_key_is_another_and_each_capability_has_its_own() {
        let keys = Mnemonic::from_entropy([1; 32]).root_key().generation(1).keys();
        let watch = keys.watch();
        let mut all: Vec<[u8; 32]> = vec![watch.client().to_bytes(), *watch.shared().as_bytes()];
        for id in [[1; 16], [2; 16]] {
            let secret = watch.secret(&id);
            let own = WatcherKeys::from_secret(&secret);
            all.extend([watch.bundle(&id).to_bytes(), *secret.as_bytes()]);
            all.extend([own.holder.to_bytes(), own.log.to_bytes()]);
            all.extend([*own.open.as_bytes(), *own.network.as_bytes()]);
        }
        let different: std::collections::BTreeSet<_> = all.iter().collect();
        assert_eq!(different.len(), all.len());
        let hex: Vec<String> = all.iter().map(|key| data_encoding::HEXLOWER.encode(key)).collect();
        crate::golden::check("watch-keys", &hex.join("\n"));
        let sealed = seal(&watch.shared(), b"part 1", b"what");
        assert_eq!(open(&watch.shared(), b"part 1", &sealed).unwrap().as_slice(), b"what");
        assert!(open(&watch.shared(), b"part 2", &sealed).is_err());
    }
}
