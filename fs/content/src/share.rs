//! Private links: the keys of each, the note by which the owner's log declares it, and the index of what it shows ([`index`]).
//!
//! ```text
//! generation secret -> share secret s
//!   author(lane)  signs the record that a link names                                    the owner alone
//!   secret(id)    stands in the link's fragment                                         the owner, and whoever has the link
//!                 -> holder   proves a reader to providers; permits are for it
//!                 -> open     seals the record
//! note = canonical DAG-CBOR { version 1, suite 1, path, at, until, lane, bytes, files, revoked }
//! ```
//!
//! A *lane* is a place for records at providers, used again when its link has ended: records are never deleted, and so their
//! number is bounded by that of the links in force. The note stands in the placement log (action "share", the link's id in the
//! place of a piece's), so that the words bring every link back.

pub mod index;

use crate::dagcbor::{self, FormatError};
use crate::keys::SecretKey32;
use ed25519_dalek::SigningKey;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

const WHAT: &str = "private link";
const VERSION: u64 = 1;
const SUITE: u64 = 1;
/// The longest path: longer ones are told by their end.
pub const PATH_BYTES_MAX: usize = 1024;
/// The longest note.
pub const NOTE_BYTES_MAX: usize = 2048;
/// Links in force at once: each costs up to eight providers its record.
pub const LANES: u16 = 32;

const AUTHOR: &str = "holdfast 2026 share author v1";
const SECRET: &str = "holdfast 2026 share secret v1";
const HOLDER: &str = "holdfast 2026 share holder v1";
const OPEN: &str = "holdfast 2026 share open v1";
const CHECK: &str = "holdfast 2026 share check v1";

/// A link's random name.
pub type ShareId = [u8; 16];

/// The owner's side of all links of a generation.
#[derive(Clone, Debug)]
pub struct ShareKeys(SecretKey32);

impl ShareKeys {
    pub(crate) fn new(secret: SecretKey32) -> Self {
        Self(secret)
    }

    fn of(&self, context: &str, about: &[u8]) -> Zeroizing<[u8; 32]> {
        let key = Zeroizing::new(blake3::derive_key(context, self.0.as_bytes()));
        Zeroizing::new(blake3::keyed_hash(&key, about).into())
    }

    /// Signs the records of a lane.
    pub fn author(&self, lane: u16) -> SigningKey {
        SigningKey::from_bytes(&self.of(AUTHOR, &lane.to_be_bytes()))
    }

    /// What a link's fragment is.
    pub fn secret(&self, id: &ShareId) -> SecretKey32 {
        SecretKey32::from_bytes(*self.of(SECRET, id))
    }
}

/// What follows from a link's fragment.
#[derive(Clone)]
pub struct LinkKeys {
    /// Proves a reader to providers.
    pub holder: SigningKey,
    /// Seals the record.
    pub open: SecretKey32,
    /// Shows whether a fragment came through whole; tells nothing else.
    pub check: [u8; 4],
}

impl LinkKeys {
    /// From the fragment.
    pub fn from_secret(secret: &SecretKey32) -> Self {
        let derive = |context| Zeroizing::new(blake3::derive_key(context, secret.as_bytes()));
        let [a, b, c, d, ..] = *derive(CHECK);
        Self {
            holder: SigningKey::from_bytes(&derive(HOLDER)),
            open: SecretKey32::from_bytes(*derive(OPEN)),
            check: [a, b, c, d],
        }
    }
}

impl std::fmt::Debug for LinkKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("LinkKeys(..)")
    }
}

/// What the owner's log says of a link.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ShareNote {
    version: u64,
    suite: u64,
    /// What it shows, as the owner named it.
    pub path: String,
    /// When it was made, unix seconds: what it shows is as it was then.
    pub at: u64,
    /// When it ends.
    pub until: u64,
    /// Where its record lies.
    pub lane: u16,
    /// Of its files.
    pub bytes: u64,
    /// Files, folders and links in it.
    pub entries: u64,
    /// Taken back.
    pub revoked: bool,
}

impl ShareNote {
    /// A link that is being made. Of a long path the end is kept.
    pub fn new(
        path: &str,
        at: u64,
        until: u64,
        lane: u16,
        bytes: u64,
        entries: u64,
    ) -> Result<Self, FormatError> {
        let clean: String = path.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect();
        let mut from = clean.len().saturating_sub(PATH_BYTES_MAX);
        while !clean.is_char_boundary(from) {
            from += 1;
        }
        let path = clean.get(from..).unwrap_or_default().to_owned();
        let note =
            Self { version: VERSION, suite: SUITE, path, at, until, lane, bytes, entries, revoked: false };
        note.check()?;
        Ok(note)
    }

    fn check(&self) -> Result<(), FormatError> {
        if self.path.len() > PATH_BYTES_MAX || self.path.chars().any(char::is_control) {
            return Err(FormatError::malformed(WHAT, "its path"));
        }
        if self.lane >= LANES {
            return Err(FormatError::malformed(WHAT, "its lane"));
        }
        Ok(())
    }

    /// Whether it leads anywhere at that time.
    pub fn lasts(&self, now: u64) -> bool {
        !self.revoked && self.until > now
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

    pub(crate) fn sample() -> ShareNote {
        ShareNote::new("/home/a/Holdfast/Pictures", 1_800_000_000, 1_900_000_000, 3, 1 << 30, 300).unwrap()
    }

    #[test]
    fn notes_come_back_and_only_as_they_are() {
        let note = sample();
        let bytes = note.encode().unwrap();
        assert_eq!(ShareNote::decode(&bytes).unwrap(), note);
        for at in 0..bytes.len() {
            assert!(ShareNote::decode(&bytes[..at]).is_err());
        }
        let refused = [
            ShareNote { path: "x".repeat(PATH_BYTES_MAX + 1), ..note.clone() },
            ShareNote { path: "a\nb".into(), ..note.clone() },
            ShareNote { lane: LANES, ..note.clone() },
            ShareNote { suite: 2, ..note.clone() },
        ];
        for note in refused {
            assert!(ShareNote::decode(&note.encode().unwrap()).is_err(), "{note:?}");
        }
        assert!(note.lasts(1_850_000_000) && !note.lasts(1_900_000_000));
        assert!(!ShareNote { revoked: true, ..note }.lasts(1_850_000_000));
        let long = ShareNote::new(&"ä".repeat(PATH_BYTES_MAX), 1, 2, 0, 0, 0).unwrap();
        assert!(long.path.len() <= PATH_BYTES_MAX && long.path.ends_with('ä'));
    }

    #[test]
    fn every_key_is_another_and_each_link_has_its_own() {
        let keys = Mnemonic::from_entropy([1; 32]).root_key().generation(1).keys();
        let share = keys.share();
        let mut all: Vec<Vec<u8>> = Vec::new();
        for lane in [0, 1] {
            all.push(share.author(lane).to_bytes().to_vec());
        }
        for id in [[1; 16], [2; 16]] {
            let secret = share.secret(&id);
            let own = LinkKeys::from_secret(&secret);
            all.push(secret.as_bytes().to_vec());
            all.push(own.holder.to_bytes().to_vec());
            all.push(own.open.as_bytes().to_vec());
            all.push(own.check.to_vec());
        }
        let different: std::collections::BTreeSet<_> = all.iter().collect();
        assert_eq!(different.len(), all.len());
        let hex: Vec<String> = all.iter().map(|key| data_encoding::HEXLOWER.encode(key)).collect();
        crate::golden::check("share-keys", &hex.join("\n"));
    }
}
