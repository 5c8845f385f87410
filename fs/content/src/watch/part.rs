//! The records that owner and watchers leave with providers for each other: signed parts of sealed bytes.
//!
//! ```text
//! name    the author's key 32 | part u16 BE
//! value   DAG-CBOR { b: DAG-CBOR { number, sealed, suite 1, version 1 },
//!                    s: Ed25519 by the author over "holdfast watch part v1\0" | name | b }
//! sealed  XChaCha20-Poly1305 (synthetic nonce) under the reader's key; associated data: name | number u64 BE
//! ```
//!
//! Promises: of each part the one with the highest number is told from all others, and learnt of it no more than its length;
//! nobody passes one part, or an older one, off as another.

use super::{open, seal};
use crate::dagcbor::{self, FormatError};
use crate::keys::SecretKey32;
use ed25519_dalek::{Signature, Signer as _, SigningKey, VerifyingKey};
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;
use zeroize::Zeroizing;

const WHAT: &str = "watch part";
const VERSION: u64 = 1;
const SUITE: u64 = 1;
const DOMAIN: &[u8] = b"holdfast watch part v1\0";
/// The author's key and the part's number.
pub const NAME_BYTES: usize = 34;
/// The longest value: what providers take as a record.
pub const VALUE_BYTES_MAX: usize = 512 << 10;
/// Plain bytes of a part: what is sealed, signed and named around them is less than the rest.
pub const PLAIN_BYTES_MAX: usize = VALUE_BYTES_MAX - 1024;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Body {
    version: u64,
    suite: u64,
    number: u64,
    sealed: ByteBuf,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Envelope {
    b: ByteBuf,
    s: ByteBuf,
}

/// A part whose author's signature was verified; still sealed.
#[derive(Debug)]
pub struct Part {
    name: Vec<u8>,
    /// The higher one is the newer one.
    pub number: u64,
    sealed: ByteBuf,
}

/// The name of an author's part.
pub fn name(author: &[u8; 32], part: u16) -> Vec<u8> {
    [&author[..], &part.to_be_bytes()].concat()
}

fn signed(name: &[u8], body: &[u8]) -> Vec<u8> {
    [DOMAIN, name, body].concat()
}

fn about(name: &[u8], number: u64) -> Vec<u8> {
    [name, &number.to_be_bytes()].concat()
}

/// Seals and signs a part: its record's value.
pub fn write(
    author: &SigningKey,
    part: u16,
    number: u64,
    key: &SecretKey32,
    plain: &[u8],
) -> Result<Vec<u8>, FormatError> {
    if plain.len() > PLAIN_BYTES_MAX {
        return Err(FormatError::TooLarge { what: WHAT, len: plain.len(), max: PLAIN_BYTES_MAX });
    }
    let name = name(&author.verifying_key().to_bytes(), part);
    let sealed = ByteBuf::from(seal(key, &about(&name, number), plain));
    let body = dagcbor::encode(WHAT, &Body { version: VERSION, suite: SUITE, number, sealed })?;
    let signature = author.sign(&signed(&name, &body)).to_bytes().to_vec();
    dagcbor::encode(WHAT, &Envelope { b: ByteBuf::from(body), s: ByteBuf::from(signature) })
}

impl Part {
    /// From anyone: what the author of `name` signed.
    pub fn verify(name: &[u8], value: &[u8]) -> Result<Part, FormatError> {
        let author = name.first_chunk::<32>().filter(|_| name.len() == NAME_BYTES);
        let author = author.ok_or_else(|| FormatError::malformed(WHAT, "its name"))?;
        let envelope: Envelope = dagcbor::decode(WHAT, value, VALUE_BYTES_MAX)?;
        let body = decode_body(&envelope.b)?;
        let not_authentic = FormatError::NotAuthentic { what: WHAT };
        let Ok(signature) = Signature::from_slice(&envelope.s) else { return Err(not_authentic) };
        let verified = VerifyingKey::from_bytes(author)
            .is_ok_and(|key| key.verify_strict(&signed(name, &envelope.b), &signature).is_ok());
        if !verified {
            return Err(not_authentic);
        }
        Ok(Part { name: name.to_vec(), number: body.number, sealed: body.sealed })
    }

    /// What is in it.
    pub fn open(&self, key: &SecretKey32) -> Result<Zeroizing<Vec<u8>>, FormatError> {
        let about = about(&self.name, self.number);
        open(key, &about, &self.sealed).map_err(|_| FormatError::NotAuthentic { what: WHAT })
    }
}

fn decode_body(bytes: &[u8]) -> Result<Body, FormatError> {
    let found = dagcbor::peek_version(WHAT, bytes)?;
    dagcbor::check_version(WHAT, found.version, VERSION)?;
    dagcbor::check_version(WHAT, found.suite, SUITE)?;
    dagcbor::decode(WHAT, bytes, VALUE_BYTES_MAX)
}

/// Any bytes as a part, its signature taken as right: for fuzzing.
pub(crate) fn decode_any(bytes: &[u8]) {
    let _ = Part::verify(&[1; NAME_BYTES], bytes);
    let _ = decode_body(bytes);
}

#[cfg(test)]
pub(crate) use tests::{body as sample_body, sample};

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn parts_are_their_authors_alone_and_open_under_their_key() {
        let author = SigningKey::from_bytes(&[1; 32]);
        let (sealing, other) = (SecretKey32::from_bytes([2; 32]), SecretKey32::from_bytes([3; 32]));
        let value = write(&author, 0, 7, &sealing, b"plain").unwrap();
        let named = name(&author.verifying_key().to_bytes(), 0);
        let part = Part::verify(&named, &value).unwrap();
        assert_eq!((part.number, part.open(&sealing).unwrap().as_slice()), (7, &b"plain"[..]));
        assert!(part.open(&other).is_err());
        for wrong in [name(&author.verifying_key().to_bytes(), 1), name(&[9; 32], 0), named[..33].to_vec()] {
            assert!(Part::verify(&wrong, &value).is_err(), "{wrong:?}");
        }
        for at in 0..value.len() {
            let mut changed = value.clone();
            changed[at] ^= 1;
            assert!(Part::verify(&named, &changed).is_err(), "byte {at}");
        }
        let longest = vec![0; PLAIN_BYTES_MAX];
        assert!(write(&author, 0, u64::MAX, &sealing, &longest).unwrap().len() <= VALUE_BYTES_MAX);
        assert!(write(&author, 0, 1, &sealing, &[longest, vec![0]].concat()).is_err());
        let newer = Body { version: 2, suite: 1, number: 1, sealed: ByteBuf::new() };
        let newer = dagcbor::encode(WHAT, &newer).unwrap();
        assert!(matches!(decode_body(&newer), Err(FormatError::Newer { found: 2, .. })));
    }

    pub(crate) fn sample() -> Vec<u8> {
        let author = SigningKey::from_bytes(&[1; 32]);
        write(&author, 0, 7, &SecretKey32::from_bytes([2; 32]), b"plain").unwrap()
    }

    pub(crate) fn body() -> Vec<u8> {
        let value: Envelope = dagcbor::decode(WHAT, &sample(), VALUE_BYTES_MAX).unwrap();
        value.b.into_vec()
    }
}
