//! Terms: the right to write a drive's heads, given to one machine by a majority of the drive's anchors.
//!
//! ```text
//! SignedClaim    head key and writer key: "this writer wants this term"       to every anchor
//! Grant          anchor: "I gave it that term"                                 once for each term
//! Certificate    who was asked, and the grants: a majority of them             checked by anybody
//! Standing       the certificate, and who grants the next term                 beside the head, under its signature
//! ```
//!
//! Promises: only verifying (or making) leads to a [`SignedClaim`], a [`Grant`] or a [`Standing`]. [`decide`] and [`admits`] are
//! the whole of what an anchor goes by, [`Round`] of what a claimant does; providers, drives and the model in the tests run the
//! same. Refuses to know what a head is.

mod round;

use std::collections::{BTreeMap, BTreeSet};

use ed25519_dalek::{Signer, SigningKey};
use libp2p::PeerId;
use libp2p::identity::Keypair;
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

use crate::codec::{self, CodecError, check_version};
use crate::deal::{message, sign_as_peer, verify_key_signature};
use crate::error::NetError;
use crate::identity::verify_by_peer;
use crate::record::HeadTerm;

pub use round::{Outcome, Round};

/// Anchors of a drive, of either kind.
pub const ANCHORS_MAX: usize = 32;
/// The longest encoded claim.
pub const CLAIM_BYTES_MAX: usize = 512;
/// The longest encoded standing.
pub const STANDING_BYTES_MAX: usize = 16 << 10;

const VERSION: u8 = 1;
const CLAIM_DOMAIN: &[u8] = b"holdfast term claim v1\0";
const WRITER_DOMAIN: &[u8] = b"holdfast term writer v1\0";
const GRANT_DOMAIN: &[u8] = b"holdfast term grant v1\0";
const HEAD_DOMAIN: &[u8] = b"holdfast head writer v1\0";
const STANDING_CONTEXT: &str = "holdfast 2026 standing digest v1";

/// What a machine asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claim {
    /// The public half of the head key.
    #[serde(with = "serde_bytes")]
    pub name: [u8; 32],
    /// Which term.
    pub term: u64,
    #[serde(rename = "v")]
    version: u8,
    /// The public half of the writer key.
    #[serde(with = "serde_bytes")]
    pub writer: [u8; 32],
}

impl Claim {
    /// A claim of `term`.
    pub fn new(name: [u8; 32], term: u64, writer: [u8; 32]) -> Claim {
        Claim { name, term, version: VERSION, writer }
    }
}

#[derive(Serialize, Deserialize)]
struct ClaimWire {
    b: ByteBuf,
    s: ByteBuf,
    w: ByteBuf,
}

/// A claim by whoever has the drive's keys and the writer's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedClaim {
    claim: Claim,
    bytes: Vec<u8>,
}

impl SignedClaim {
    /// Claims a term.
    pub fn sign(term: u64, head_key: &SigningKey, writer: &SigningKey) -> SignedClaim {
        let claim = Claim::new(head_key.verifying_key().to_bytes(), term, writer.verifying_key().to_bytes());
        let body = codec::encode(&claim);
        let sign =
            |key: &SigningKey, domain| ByteBuf::from(key.sign(&message(domain, &body)).to_bytes().to_vec());
        let (s, w) = (sign(head_key, CLAIM_DOMAIN), sign(writer, WRITER_DOMAIN));
        SignedClaim { claim, bytes: codec::encode(&ClaimWire { b: ByteBuf::from(body), s, w }) }
    }

    /// Decodes and verifies.
    pub fn from_bytes(bytes: &[u8]) -> Result<SignedClaim, CodecError> {
        let wire: ClaimWire = codec::decode(bytes, CLAIM_BYTES_MAX)?;
        let claim: Claim = codec::decode(&wire.b, CLAIM_BYTES_MAX)?;
        check_version(claim.version, VERSION)?;
        let parts = [(&claim.name, CLAIM_DOMAIN, &wire.s), (&claim.writer, WRITER_DOMAIN, &wire.w)];
        for (key, domain, signature) in parts {
            let signature = signature.as_slice().try_into().map_err(|_| CodecError::BadSignature("claim"))?;
            verify_key_signature(key, &message(domain, &wire.b), signature, "claim")?;
        }
        Ok(SignedClaim { claim, bytes: bytes.to_vec() })
    }

    /// What is claimed.
    pub fn claim(&self) -> &Claim {
        &self.claim
    }

    /// For the wire and the disk.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

#[derive(Serialize)]
struct GrantBody<'a> {
    #[serde(with = "serde_bytes")]
    anchor: &'a [u8],
    #[serde(with = "serde_bytes")]
    name: [u8; 32],
    term: u64,
    #[serde(rename = "v")]
    version: u8,
    #[serde(with = "serde_bytes")]
    writer: [u8; 32],
}

fn grant_body(anchor: &[u8], claim: &Claim) -> Vec<u8> {
    let Claim { name, term, version, writer } = *claim;
    codec::encode(&GrantBody { anchor, name, term, version, writer })
}

/// An anchor's yes to a claim.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    anchor: Vec<u8>,
    signature: [u8; 64],
}

impl Grant {
    /// Signs as the anchor, which must have the claim on its disk by then.
    pub fn sign(claim: &Claim, anchor: &Keypair) -> Result<Grant, NetError> {
        let peer = anchor.public().to_peer_id().to_bytes();
        let signature = sign_as_peer(anchor, GRANT_DOMAIN, &grant_body(&peer, claim))?;
        Ok(Grant { anchor: peer, signature })
    }

    /// From an anchor, or from whoever shows it.
    pub fn verify(signature: &[u8], claim: &Claim, anchor: &[u8]) -> Result<Grant, CodecError> {
        let bad = || CodecError::BadSignature("grant");
        let peer = PeerId::from_bytes(anchor).map_err(|_| bad())?;
        let signature: [u8; 64] = signature.try_into().map_err(|_| bad())?;
        let message = message(GRANT_DOMAIN, &grant_body(anchor, claim));
        if !verify_by_peer(&peer, &message, &signature) {
            return Err(bad());
        }
        Ok(Grant { anchor: anchor.to_vec(), signature })
    }

    /// Who granted, as a peer id in binary.
    pub fn anchor(&self) -> &[u8] {
        &self.anchor
    }

    /// What travels: the rest is known.
    pub fn signature(&self) -> &[u8; 64] {
        &self.signature
    }
}

/// What an anchor answers to a claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// The claim goes to the disk, then the grant is made.
    Grant,
    /// It is on the disk: the same grant again.
    Again,
    /// An equal or higher term was granted to another.
    Taken,
    /// The head that is kept is of that term or a higher one.
    Passed,
}

/// Whether `claim` is granted by an anchor that granted `granted` last, and keeps a head of `head`'s term.
pub fn decide(granted: Option<&Claim>, head: Option<&HeadTerm>, claim: &Claim) -> Decision {
    let own = granted.is_some_and(|g| g.term == claim.term && g.writer == claim.writer);
    if !own && granted.is_some_and(|g| g.term >= claim.term) {
        return Decision::Taken;
    }
    let passed =
        head.is_some_and(|h| h.term > claim.term || (h.term == claim.term && h.writer != Some(claim.writer)));
    match (passed, own) {
        (true, _) => Decision::Passed,
        (false, true) => Decision::Again,
        (false, false) => Decision::Grant,
    }
}

/// Whether an anchor that granted `granted` last may keep a head of `term`. One that is of no writer, of a program that knows no
/// terms, is as good as overtaken where any was granted up to its own.
pub fn admits(granted: Option<&Claim>, term: u64, writer: Option<&[u8; 32]>) -> bool {
    granted.is_none_or(|g| g.term < term || (g.term == term && writer.is_some()))
}

/// Who may grant a term: peer ids in binary.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Anchors {
    now: BTreeSet<Vec<u8>>,
    former: BTreeSet<Vec<u8>>,
}

/// More than half.
pub fn majority(of: usize) -> usize {
    of / 2 + 1
}

impl Anchors {
    /// Anchors, and those whose majority is needed as well while the change is under way.
    pub fn new(
        now: impl IntoIterator<Item = Vec<u8>>,
        former: impl IntoIterator<Item = Vec<u8>>,
    ) -> Result<Anchors, CodecError> {
        let anchors = Anchors { now: now.into_iter().collect(), former: former.into_iter().collect() };
        if anchors.now.is_empty() {
            return Err(CodecError::Inconsistent("no anchors"));
        }
        for set in [&anchors.now, &anchors.former] {
            if set.len() > ANCHORS_MAX {
                return Err(CodecError::TooLong { len: set.len(), max: ANCHORS_MAX });
            }
            if set.iter().any(|peer| PeerId::from_bytes(peer).is_err()) {
                return Err(CodecError::Inconsistent("an anchor's peer id"));
            }
        }
        Ok(anchors)
    }

    /// The anchors.
    pub fn now(&self) -> &BTreeSet<Vec<u8>> {
        &self.now
    }

    /// Those before, while they count.
    pub fn former(&self) -> &BTreeSet<Vec<u8>> {
        &self.former
    }

    /// The sets of which a majority is needed.
    pub fn sets(&self) -> impl Iterator<Item = &BTreeSet<Vec<u8>>> {
        [&self.now, &self.former].into_iter().filter(|set| !set.is_empty())
    }

    /// Everybody.
    pub fn all(&self) -> BTreeSet<Vec<u8>> {
        self.now.union(&self.former).cloned().collect()
    }

    /// Whether it is among either.
    pub fn contains(&self, peer: &[u8]) -> bool {
        self.now.contains(peer) || self.former.contains(peer)
    }

    /// Whether those that `has` says yes to are a majority.
    pub fn is_majority(&self, has: impl Fn(&[u8]) -> bool) -> bool {
        let enough =
            |set: &BTreeSet<Vec<u8>>| set.iter().filter(|peer| has(peer)).count() >= majority(set.len());
        !self.now.is_empty() && self.sets().all(enough)
    }

    /// Without those whom `gone` says yes to: the owner took them out. `None`: nobody would be left.
    pub fn without(&self, gone: impl Fn(&[u8]) -> bool) -> Option<Anchors> {
        let left = |set: &BTreeSet<Vec<u8>>| set.iter().filter(|peer| !gone(peer)).cloned().collect();
        let anchors = Anchors { now: left(&self.now), former: left(&self.former) };
        (!anchors.now.is_empty()).then_some(anchors)
    }

    fn wire(set: &BTreeSet<Vec<u8>>) -> Vec<ByteBuf> {
        set.iter().cloned().map(ByteBuf::from).collect()
    }

    fn from_wire(now: Vec<ByteBuf>, former: Vec<ByteBuf>) -> Result<Anchors, CodecError> {
        if ![&now, &former].iter().all(|list| list.is_sorted_by(|a, b| a < b)) {
            return Err(CodecError::NotCanonical);
        }
        let bytes = |list: Vec<ByteBuf>| list.into_iter().map(ByteBuf::into_vec);
        Anchors::new(bytes(now), bytes(former))
    }
}

/// Who holds a term, and by whose grants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Certificate {
    claim: Claim,
    by: Anchors,
    grants: BTreeMap<Vec<u8>, [u8; 64]>,
    forced: bool,
}

impl Certificate {
    /// Grants that are a majority; `forced`: the owner says that the others will not come back.
    pub fn new(claim: Claim, by: Anchors, grants: &[Grant], forced: bool) -> Result<Certificate, CodecError> {
        let grants = grants.iter().map(|g| (g.anchor.clone(), g.signature)).collect();
        let certificate = Certificate { claim, by, grants, forced };
        certificate.check()?;
        Ok(certificate)
    }

    fn check(&self) -> Result<(), CodecError> {
        if self.claim.term == 0 {
            return Err(CodecError::Inconsistent("term 0"));
        }
        for (anchor, signature) in &self.grants {
            if !self.by.contains(anchor) {
                return Err(CodecError::Inconsistent("a grant by nobody who was asked"));
            }
            Grant::verify(signature, &self.claim, anchor)?;
        }
        let enough = match self.forced {
            true => !self.grants.is_empty(),
            false => self.by.is_majority(|peer| self.grants.contains_key(peer)),
        };
        if enough { Ok(()) } else { Err(CodecError::Inconsistent("a term that no majority granted")) }
    }

    /// Which term, of which head name, for which writer.
    pub fn claim(&self) -> &Claim {
        &self.claim
    }

    /// Whether it is by the owner's word.
    pub fn is_forced(&self) -> bool {
        self.forced
    }

    /// Who granted it.
    pub fn granted_by(&self) -> impl Iterator<Item = &Vec<u8>> {
        self.grants.keys()
    }

    /// Those that granted the same term to another writer as well.
    pub fn granted_twice(&self, other: &Certificate) -> Vec<Vec<u8>> {
        let (ours, theirs) = (&self.claim, &other.claim);
        if ours.name != theirs.name || ours.term != theirs.term || ours.writer == theirs.writer {
            return Vec::new();
        }
        self.grants.keys().filter(|anchor| other.grants.contains_key(*anchor)).cloned().collect()
    }
}

#[derive(Serialize, Deserialize)]
struct ByWire {
    anchors: Vec<ByteBuf>,
    former: Vec<ByteBuf>,
}

#[derive(Serialize, Deserialize)]
struct GrantWire {
    a: ByteBuf,
    s: ByteBuf,
}

#[derive(Serialize, Deserialize)]
struct StandingWire {
    anchors: Vec<ByteBuf>,
    by: ByWire,
    forced: bool,
    former: Vec<ByteBuf>,
    grants: Vec<GrantWire>,
    #[serde(with = "serde_bytes")]
    name: [u8; 32],
    term: u64,
    #[serde(rename = "v")]
    version: u8,
    #[serde(with = "serde_bytes")]
    writer: [u8; 32],
}

/// What stands beside a head: by whose grants it was written, and who grants the next term.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// Of this term.
    pub certificate: Certificate,
    /// Of the next one.
    pub anchors: Anchors,
}

impl Standing {
    /// For the head and for a drive's row.
    pub fn encode(&self) -> Vec<u8> {
        let Certificate { claim, by, grants, forced } = &self.certificate;
        let grants = grants.iter().map(|(anchor, signature)| GrantWire {
            a: ByteBuf::from(anchor.clone()),
            s: ByteBuf::from(signature.to_vec()),
        });
        codec::encode(&StandingWire {
            anchors: Anchors::wire(&self.anchors.now),
            by: ByWire { anchors: Anchors::wire(&by.now), former: Anchors::wire(&by.former) },
            forced: *forced,
            former: Anchors::wire(&self.anchors.former),
            grants: grants.collect(),
            name: claim.name,
            term: claim.term,
            version: VERSION,
            writer: claim.writer,
        })
    }

    /// From anyone: every grant is verified.
    pub fn decode(bytes: &[u8]) -> Result<Standing, CodecError> {
        let wire: StandingWire = codec::decode(bytes, STANDING_BYTES_MAX)?;
        check_version(wire.version, VERSION)?;
        if wire.grants.len() > 2 * ANCHORS_MAX {
            return Err(CodecError::TooLong { len: wire.grants.len(), max: 2 * ANCHORS_MAX });
        }
        if !wire.grants.is_sorted_by(|a, b| a.a < b.a) {
            return Err(CodecError::NotCanonical);
        }
        let mut grants = BTreeMap::new();
        for grant in wire.grants {
            let signature = grant.s.as_slice().try_into().map_err(|_| CodecError::BadSignature("grant"))?;
            grants.insert(grant.a.into_vec(), signature);
        }
        let certificate = Certificate {
            claim: Claim::new(wire.name, wire.term, wire.writer),
            by: Anchors::from_wire(wire.by.anchors, wire.by.former)?,
            grants,
            forced: wire.forced,
        };
        certificate.check()?;
        Ok(Standing { certificate, anchors: Anchors::from_wire(wire.anchors, wire.former)? })
    }

    /// By which a head's record names it.
    pub fn digest(bytes: &[u8]) -> [u8; 32] {
        blake3::derive_key(STANDING_CONTEXT, bytes)
    }
}

/// What the writer signs of a head.
pub fn head_message(record: &[u8]) -> Vec<u8> {
    message(HEAD_DOMAIN, record)
}

/// Whether the holder of a term signed a head's record.
pub fn signed_by_writer(record: &[u8], writer: &[u8; 32], signature: &[u8; 64]) -> Result<(), CodecError> {
    verify_key_signature(writer, &head_message(record), signature, "head")
}

#[cfg(test)]
pub(crate) mod tests;
