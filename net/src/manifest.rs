//! Manifests: how a piece was cut into slots.
//!
//! Every holder keeps the manifest beside its slot and gives it back to the deal's owner. It says which pieces, in
//! which code, with which raw lengths and slot piece CIDs; never where the slots lie. For now the one code is
//! replicas; the code's tag leaves the room for stripes.

use std::collections::BTreeSet;

use cid::Cid;
use ed25519_dalek::{Signer, SigningKey};
use serde::{Deserialize, Serialize};

use crate::codec::{self, CodecError, check_version};
use crate::deal::{message, verify_key_signature};
use crate::stripe::{StripeError, StripeShape};

/// Version of the manifest.
pub const MANIFEST_VERSION: u8 = 1;
/// Slots are masked as [`crate::mask`] says.
pub const SUITE_MASKED: u8 = 1;
/// Slots hold the piece's own bytes.
pub const SUITE_PLAIN: u8 = 2;
/// Slots hold the piece's own bytes, a CAR of plain blocks that the holder may give to anybody.
pub const SUITE_PUBLIC: u8 = 3;
/// The longest encoded manifest: 1,024 slots of about 60 bytes.
pub const MANIFEST_BYTES_MAX: usize = 64 << 10;
/// The most slots of one manifest.
pub const MANIFEST_SLOTS_MAX: usize = 1024;

const DOMAIN: &[u8] = b"holdfast manifest v1\0";

/// How pieces became slots.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Code {
    /// Each slot is the whole piece (masked apart).
    #[serde(rename = "replicas")]
    Replicas,
    /// Reed-Solomon: `data` pieces and `parity` slots more ([`crate::stripe`]).
    #[serde(rename = "rs")]
    ReedSolomon {
        /// Data slots.
        data: u16,
        /// Parity slots.
        parity: u16,
        /// The padded shard length.
        shard_len: u64,
    },
}

/// A piece in a manifest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ManifestPiece {
    /// The piece's random id.
    #[serde(with = "serde_bytes")]
    pub id: [u8; 16],
    /// Its length before any padding.
    #[serde(rename = "len")]
    pub raw_len: u64,
}

/// A slot in a manifest; its number is its place in the list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ManifestSlot {
    /// CommP v2 of the slot as stored.
    #[serde(rename = "piece")]
    pub piece_cid: Cid,
    /// Its length as stored.
    #[serde(rename = "len")]
    pub raw_len: u64,
}

/// What is signed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// [`MANIFEST_VERSION`].
    #[serde(rename = "v")]
    pub version: u8,
    /// [`SUITE_MASKED`], [`SUITE_PLAIN`] or [`SUITE_PUBLIC`].
    pub suite: u8,
    /// The id that slot seeds are derived from: of the piece when the code is replicas, else of the stripe.
    #[serde(with = "serde_bytes")]
    pub id: [u8; 16],
    /// The code.
    pub code: Code,
    /// The pieces, in the code's order.
    pub pieces: Vec<ManifestPiece>,
    /// The slots, in order.
    pub slots: Vec<ManifestSlot>,
    /// The Ed25519 key that signs: one that the drive made for this provider, or its head key.
    #[serde(with = "serde_bytes")]
    pub signer: [u8; 32],
}

impl Manifest {
    /// Replicas of one piece, masked.
    pub fn replicas(id: [u8; 16], raw_len: u64, slots: Vec<Cid>, signer: [u8; 32]) -> Manifest {
        Manifest {
            version: MANIFEST_VERSION,
            suite: SUITE_MASKED,
            id,
            code: Code::Replicas,
            pieces: vec![ManifestPiece { id, raw_len }],
            slots: slots.into_iter().map(|piece_cid| ManifestSlot { piece_cid, raw_len }).collect(),
            signer,
        }
    }

    /// Replicas of a public piece: so many slots with the same bytes, and so the same piece CID.
    pub fn published(id: [u8; 16], raw_len: u64, piece_cid: Cid, slots: usize, signer: [u8; 32]) -> Manifest {
        let suite = SUITE_PUBLIC;
        Manifest { suite, ..Manifest::replicas(id, raw_len, vec![piece_cid; slots], signer) }
    }

    /// A stripe over `pieces`, masked: their slots first, then the parity. `slots` are the piece CIDs of all of them.
    pub fn stripe(
        id: [u8; 16],
        pieces: Vec<ManifestPiece>,
        parity: u16,
        slots: Vec<Cid>,
        signer: [u8; 32],
    ) -> Result<Manifest, StripeError> {
        let shape = StripeShape::new(pieces.iter().map(|piece| piece.raw_len).collect(), parity)?;
        let slots = slots
            .into_iter()
            .zip(0u16..)
            .map(|(piece_cid, slot)| ManifestSlot { piece_cid, raw_len: shape.slot_len(slot) })
            .collect();
        let code = Code::ReedSolomon { data: shape.data(), parity, shard_len: shape.shard_len() };
        let (version, suite) = (MANIFEST_VERSION, SUITE_MASKED);
        Ok(Manifest { version, suite, id, code, pieces, slots, signer })
    }

    /// The stripe's shape, if it is one.
    pub fn shape(&self) -> Option<StripeShape> {
        let Code::ReedSolomon { parity, .. } = self.code else { return None };
        StripeShape::new(self.pieces.iter().map(|piece| piece.raw_len).collect(), parity).ok()
    }

    pub(crate) fn validate(&self) -> Result<(), CodecError> {
        check_version(self.version, MANIFEST_VERSION)?;
        if !matches!(self.suite, SUITE_MASKED | SUITE_PLAIN | SUITE_PUBLIC) {
            return Err(CodecError::UnknownSuite(self.suite));
        }
        if self.suite == SUITE_PUBLIC && self.code != Code::Replicas {
            return Err(CodecError::Inconsistent("public data in a code that nobody can read alone"));
        }
        if self.slots.is_empty() || self.slots.len() > MANIFEST_SLOTS_MAX {
            return Err(CodecError::Inconsistent("the number of slots"));
        }
        match self.code {
            Code::Replicas => {
                let [piece] = self.pieces.as_slice() else {
                    return Err(CodecError::Inconsistent("replicas are of one piece"));
                };
                if piece.id != self.id || self.slots.iter().any(|s| s.raw_len != piece.raw_len) {
                    return Err(CodecError::Inconsistent("a replica that differs from its piece"));
                }
            }
            Code::ReedSolomon { data, shard_len, .. } => {
                let shape = self.shape().ok_or(CodecError::Inconsistent("the code's counts"))?;
                if shape.data() != data || self.slots.len() != usize::from(shape.slots()) {
                    return Err(CodecError::Inconsistent("the code's counts"));
                }
                let fits = |(slot, n): (&ManifestSlot, u16)| slot.raw_len == shape.slot_len(n);
                if shape.shard_len() != shard_len || !self.slots.iter().zip(0u16..).all(fits) {
                    return Err(CodecError::Inconsistent("the lengths of a stripe's slots"));
                }
                let ids: BTreeSet<&[u8; 16]> = self.pieces.iter().map(|piece| &piece.id).collect();
                if ids.len() != self.pieces.len() {
                    return Err(CodecError::Inconsistent("a piece twice in a stripe"));
                }
            }
        }
        Ok(())
    }

    /// Signs with the key whose public half is [`signer`](Self::signer).
    pub fn sign(self, key: &SigningKey) -> Result<SignedManifest, CodecError> {
        self.validate()?;
        if key.verifying_key().to_bytes() != self.signer {
            return Err(CodecError::Inconsistent("signed by another key than the signer's"));
        }
        let body = codec::encode(&self);
        let signature = key.sign(&message(DOMAIN, &body)).to_bytes();
        let bytes = codec::encode(&Signed { body, signature: signature.to_vec() });
        if bytes.len() > MANIFEST_BYTES_MAX {
            return Err(CodecError::TooLong { len: bytes.len(), max: MANIFEST_BYTES_MAX });
        }
        Ok(SignedManifest { body: self, bytes })
    }
}

/// A manifest whose signature was made or verified here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedManifest {
    body: Manifest,
    bytes: Vec<u8>,
}

impl SignedManifest {
    /// What was signed.
    pub fn manifest(&self) -> &Manifest {
        &self.body
    }

    /// For storage and the wire; [`crate::deal::manifest_digest`] of these goes into the proposal.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Decodes and verifies the signature by the key that the manifest names. Whether that key is the right one is
    /// for the owner to know.
    pub fn from_bytes(bytes: &[u8]) -> Result<SignedManifest, CodecError> {
        let signed: Signed = codec::decode(bytes, MANIFEST_BYTES_MAX)?;
        let body: Manifest = codec::decode(&signed.body, MANIFEST_BYTES_MAX)?;
        body.validate()?;
        let signature =
            signed.signature.as_slice().try_into().map_err(|_| CodecError::BadSignature("manifest"))?;
        verify_key_signature(&body.signer, &message(DOMAIN, &signed.body), signature, "manifest")?;
        Ok(SignedManifest { body, bytes: bytes.to_vec() })
    }

    /// Whether a manifest that was verified when it came says that its slot is public.
    pub(crate) fn is_public(bytes: &[u8]) -> bool {
        let signed = codec::decode::<Signed>(bytes, MANIFEST_BYTES_MAX);
        let body = signed.and_then(|signed| codec::decode::<Manifest>(&signed.body, MANIFEST_BYTES_MAX));
        body.is_ok_and(|manifest| manifest.suite == SUITE_PUBLIC)
    }

    /// The number of the slot with this piece CID; the first one of them where they are all the same.
    pub fn slot_of(&self, piece_cid: &Cid) -> Option<u16> {
        let place = self.body.slots.iter().position(|s| s.piece_cid == *piece_cid)?;
        u16::try_from(place).ok()
    }
}

#[derive(Serialize, Deserialize)]
struct Signed {
    #[serde(rename = "b", with = "serde_bytes")]
    body: Vec<u8>,
    #[serde(rename = "s", with = "serde_bytes")]
    signature: Vec<u8>,
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::deal::tests::{piece_cid, signing_key};

    fn manifest() -> Manifest {
        let signer = signing_key(4).verifying_key().to_bytes();
        Manifest::replicas([5; 16], 1 << 20, vec![piece_cid(1), piece_cid(2), piece_cid(3)], signer)
    }

    #[test]
    fn round_trip_and_slot_numbers() {
        let signed = manifest().sign(&signing_key(4)).unwrap();
        let again = SignedManifest::from_bytes(signed.as_bytes()).unwrap();
        assert_eq!(signed, again);
        assert_eq!(again.slot_of(&piece_cid(3)), Some(2));
        assert_eq!(again.slot_of(&piece_cid(9)), None);
    }

    #[test]
    fn public_slots_are_all_the_same() {
        let signer = signing_key(4).verifying_key().to_bytes();
        let public = Manifest::published([5; 16], 1 << 20, piece_cid(1), 3, signer);
        assert_eq!(public.slots.len(), 3);
        let signed = public.clone().sign(&signing_key(4)).unwrap();
        assert_eq!(SignedManifest::from_bytes(signed.as_bytes()).unwrap().manifest(), &public);
        assert!(SignedManifest::is_public(signed.as_bytes()));
        assert!(!SignedManifest::is_public(manifest().sign(&signing_key(4)).unwrap().as_bytes()));
        assert!(!SignedManifest::is_public(b"no manifest"));
        let pieces =
            vec![ManifestPiece { id: [1; 16], raw_len: 64 }, ManifestPiece { id: [2; 16], raw_len: 64 }];
        let cids = vec![piece_cid(1), piece_cid(2), piece_cid(3)];
        let mut stripe = Manifest::stripe([5; 16], pieces, 1, cids, signer).unwrap();
        stripe.suite = SUITE_PUBLIC;
        assert!(stripe.sign(&signing_key(4)).is_err());
        let unknown = Manifest { suite: 4, ..public };
        assert_eq!(unknown.sign(&signing_key(4)).unwrap_err(), CodecError::UnknownSuite(4));
    }

    #[test]
    fn tampering_is_refused() {
        let signed = manifest().sign(&signing_key(4)).unwrap();
        for at in 0..signed.as_bytes().len() {
            let mut bytes = signed.as_bytes().to_vec();
            bytes[at] ^= 1;
            assert!(SignedManifest::from_bytes(&bytes).is_err(), "byte {at}");
        }
        assert!(manifest().sign(&signing_key(5)).is_err());
    }

    #[test]
    fn contradictions_are_refused() {
        let mut none = manifest();
        none.slots.clear();
        assert!(none.sign(&signing_key(4)).is_err());
        let mut two = manifest();
        two.pieces.push(two.pieces[0].clone());
        assert!(two.sign(&signing_key(4)).is_err());
        let mut newer = manifest();
        newer.version = 2;
        assert_eq!(newer.sign(&signing_key(4)).unwrap_err(), CodecError::Newer { found: 2, known: 1 });
    }

    #[test]
    fn stripes_say_what_their_slots_are() {
        let signer = signing_key(4).verifying_key().to_bytes();
        let piece = |n: u8, raw_len| ManifestPiece { id: [n; 16], raw_len };
        let pieces = vec![piece(1, 1 << 20), piece(2, 1000)];
        let cids = vec![piece_cid(1), piece_cid(2), piece_cid(3)];
        let stripe = Manifest::stripe([5; 16], pieces, 1, cids, signer).unwrap();
        assert_eq!(stripe.slots.iter().map(|s| s.raw_len).collect::<Vec<_>>(), [1 << 20, 1000, 1 << 20]);
        let signed = stripe.clone().sign(&signing_key(4)).unwrap();
        assert_eq!(SignedManifest::from_bytes(signed.as_bytes()).unwrap(), signed);
        let broken: [fn(&mut Manifest); 6] = [
            |m| m.code = Code::ReedSolomon { data: 2, parity: 2, shard_len: 1 << 20 },
            |m| m.code = Code::ReedSolomon { data: 1, parity: 2, shard_len: 1 << 20 },
            |m| m.code = Code::ReedSolomon { data: 2, parity: 1, shard_len: 1 << 21 },
            |m| m.slots[1].raw_len = 1 << 20,
            |m| m.pieces[1].id = [1; 16],
            |m| m.pieces.clear(),
        ];
        for breaks in broken {
            let mut manifest = stripe.clone();
            breaks(&mut manifest);
            assert!(manifest.sign(&signing_key(4)).is_err());
        }
    }
}
