//! Deals: what is promised, by whom, and the proof that it was.
//!
//! ```text
//! client                                                provider
//!   DealProposal, signed by the deal's client key   ->
//!                                                   <-  SignedAnswer: countersigned, the space is set aside
//!   the slot's bytes                                ->  written, hashed as they come; synced
//!                                                   <-  SignedReceipt: the slot is on its disk
//! ```
//!
//! All three are canonical DAG-CBOR. What is signed is a domain string, a zero byte, and the encoded body; so a
//! signature on one kind of thing is never one on another. The deal's id is a hash of the signed body: the same
//! proposal sent twice is the same deal, which makes every step repeatable.

use bytes::Bytes;
use cid::Cid;
use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
use holdfast_proofs::PieceCid;
use libp2p::PeerId;
use libp2p::identity::Keypair;
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

use crate::codec::{self, CodecError, check_version};
use crate::error::NetError;
use crate::identity::verify_by_peer;
use crate::permit::SignedPermit;

/// Version of the three structures here.
pub const DEAL_VERSION: u8 = 1;
/// Ed25519 signatures, BLAKE3 digests, CommP v2 piece CIDs.
pub const DEAL_SUITE: u8 = 1;
/// The longest encoded proposal, answer or receipt.
pub const DEAL_BYTES_MAX: usize = 4096;
/// The longest settlement annex in a proposal.
pub const SETTLEMENT_DATA_BYTES_MAX: usize = 2048;

const PROPOSAL_DOMAIN: &[u8] = b"holdfast deal proposal v1\0";
const PERMITTED_DOMAIN: &[u8] = b"holdfast deal proposal by permit v1\0";
const ANSWER_DOMAIN: &[u8] = b"holdfast deal answer v1\0";
const RECEIPT_DOMAIN: &[u8] = b"holdfast deal receipt v1\0";
const ID_CONTEXT: &str = "holdfast 2026 deal id v1";
const MANIFEST_CONTEXT: &str = "holdfast 2026 manifest digest v1";

/// Names a deal: BLAKE3 (derive-key mode) of the encoded proposal body.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct DealId(#[serde(with = "serde_bytes")] pub [u8; 32]);

impl std::fmt::Display for DealId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&data_encoding::HEXLOWER.encode(&self.0))
    }
}

impl std::fmt::Debug for DealId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "DealId({self})")
    }
}

impl std::str::FromStr for DealId {
    type Err = CodecError;

    fn from_str(text: &str) -> Result<DealId, CodecError> {
        let bytes = data_encoding::HEXLOWER
            .decode(text.as_bytes())
            .map_err(|_| CodecError::Malformed("a deal id is 64 hex digits".into()))?;
        let id = bytes.try_into().map_err(|_| CodecError::Malformed("a deal id is 64 hex digits".into()))?;
        Ok(DealId(id))
    }
}

/// The digest under which a proposal names its manifest.
pub fn manifest_digest(manifest: &[u8]) -> [u8; 32] {
    blake3::derive_key(MANIFEST_CONTEXT, manifest)
}

/// A range of a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ByteRange {
    /// First byte.
    #[serde(rename = "o")]
    pub offset: u64,
    /// How many.
    #[serde(rename = "l")]
    pub len: u32,
}

impl ByteRange {
    /// `len` bytes from `offset`.
    pub fn new(offset: u64, len: u32) -> ByteRange {
        ByteRange { offset, len }
    }

    /// One past the last byte; `None` if that does not fit a `u64`.
    pub fn end(&self) -> Option<u64> {
        self.offset.checked_add(u64::from(self.len))
    }
}

/// What a client offers a provider.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DealProposal {
    /// [`DEAL_VERSION`].
    #[serde(rename = "v")]
    pub version: u8,
    /// [`DEAL_SUITE`].
    pub suite: u8,
    /// Ed25519 key that owns the deal: it signs this, and reads and releases need it. Made for this provider alone.
    #[serde(rename = "client", with = "serde_bytes")]
    pub client: [u8; 32],
    /// The provider's peer id, as bytes.
    #[serde(with = "serde_bytes")]
    pub provider: Vec<u8>,
    /// CommP v2 of the slot's raw bytes.
    #[serde(rename = "piece")]
    pub piece_cid: Cid,
    /// Length of the slot as stored.
    #[serde(rename = "len")]
    pub raw_len: u64,
    /// [`manifest_digest`] of the manifest sent with the proposal.
    #[serde(rename = "manifest", with = "serde_bytes")]
    pub manifest: [u8; 32],
    /// Unix seconds; not later than [`end`](Self::end).
    pub start: u64,
    /// Unix seconds; the provider may free the space a grace period later.
    pub end: u64,
    /// For each GiB and 30 days, in the settlement's smallest unit; big endian without leading zeros, at most 32
    /// bytes (a chain's 256-bit word); empty for nothing.
    #[serde(with = "serde_bytes")]
    pub price: Vec<u8>,
    /// Which settlement backend: 0 is none.
    #[serde(rename = "settle")]
    pub settlement: u8,
    /// What that backend needs, in its own format (for a chain: typed data and its signature).
    #[serde(rename = "annex", with = "serde_bytes")]
    pub settlement_data: Vec<u8>,
    /// Random: two deals over the same slot differ.
    #[serde(with = "serde_bytes")]
    pub nonce: [u8; 16],
}

impl DealProposal {
    /// What the slot's piece CID says, checked against the length.
    pub fn piece(&self) -> Result<PieceCid, CodecError> {
        let piece = PieceCid::from_bytes(&self.piece_cid.to_bytes())
            .map_err(|_| CodecError::Inconsistent("the piece CID is not CommP v2"))?;
        if piece.payload_len() != self.raw_len {
            return Err(CodecError::Inconsistent("the piece CID is of another length"));
        }
        Ok(piece)
    }

    /// Checks what can be checked without knowing either side.
    pub fn validate(&self) -> Result<(), CodecError> {
        check_version(self.version, DEAL_VERSION)?;
        if self.suite != DEAL_SUITE {
            return Err(CodecError::UnknownSuite(self.suite));
        }
        if self.start > self.end {
            return Err(CodecError::Inconsistent("a deal that ends before it starts"));
        }
        if self.raw_len == 0 || self.raw_len > crate::mask::SLOT_BYTES_MAX {
            return Err(CodecError::Inconsistent("the slot's length"));
        }
        self.piece()?;
        if self.price.len() > 32 || self.price.first() == Some(&0) {
            return Err(CodecError::Inconsistent("the price's encoding"));
        }
        if self.settlement_data.len() > SETTLEMENT_DATA_BYTES_MAX {
            return Err(CodecError::Inconsistent("the settlement annex's length"));
        }
        PeerId::from_bytes(&self.provider).map_err(|_| CodecError::Inconsistent("the provider's peer id"))?;
        Ok(())
    }

    /// Signs with the key whose public half is [`client`](Self::client).
    pub fn sign(self, key: &SigningKey) -> Result<SignedProposal, CodecError> {
        self.validate()?;
        if key.verifying_key().to_bytes() != self.client {
            return Err(CodecError::Inconsistent("signed by another key than the client's"));
        }
        let body = codec::encode(&self);
        let signature = key.sign(&message(PROPOSAL_DOMAIN, &body)).to_bytes();
        let id = DealId(blake3::derive_key(ID_CONTEXT, &body));
        Ok(SignedProposal { id, body: self, signature, permit: None })
    }

    /// Signs in the client's name, with the key that the permit is for.
    pub fn sign_by(self, permit: SignedPermit, key: &SigningKey) -> Result<SignedProposal, CodecError> {
        self.validate()?;
        self.is_permitted(&permit)?;
        if key.verifying_key().to_bytes() != permit.body().holder {
            return Err(CodecError::Inconsistent("signed by another key than the permit's"));
        }
        let body = codec::encode(&self);
        let signature = key.sign(&message(PERMITTED_DOMAIN, &body)).to_bytes();
        let id = DealId(blake3::derive_key(ID_CONTEXT, &body));
        Ok(SignedProposal { id, body: self, signature, permit: Some(permit) })
    }

    /// Whether the permit lets its holder propose this. Its time, and how much there is already, are the provider's to know.
    fn is_permitted(&self, permit: &SignedPermit) -> Result<(), CodecError> {
        let may = permit.body();
        let Some(place) = may.place.filter(|_| may.client == self.client) else {
            return Err(CodecError::Inconsistent("the permit is for no deals of this client"));
        };
        if may.provider.as_ref().is_some_and(|peer| *peer != self.provider) {
            return Err(CodecError::Inconsistent("the permit is for another provider"));
        }
        if self.end - self.start > place.term || !self.price.is_empty() {
            return Err(CodecError::Inconsistent("a longer or dearer deal than the permit allows"));
        }
        Ok(())
    }
}

/// A proposal whose signature was made or verified here: no other way leads to one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedProposal {
    id: DealId,
    body: DealProposal,
    signature: [u8; 64],
    permit: Option<SignedPermit>,
}

impl SignedProposal {
    /// The deal's name.
    pub fn deal_id(&self) -> DealId {
        self.id
    }

    /// What was proposed.
    pub fn proposal(&self) -> &DealProposal {
        &self.body
    }

    /// By which it was signed in the client's name; absent: the client signed.
    pub fn permit(&self) -> Option<&SignedPermit> {
        self.permit.as_ref()
    }

    /// The provider, as a peer id.
    pub fn provider(&self) -> Result<PeerId, CodecError> {
        PeerId::from_bytes(&self.body.provider)
            .map_err(|_| CodecError::Inconsistent("the provider's peer id"))
    }

    /// For storage and the wire.
    pub fn to_bytes(&self) -> Vec<u8> {
        let permit = self.permit.as_ref().map(|permit| ByteBuf::from(permit.as_bytes()));
        codec::encode(&Proposed {
            body: codec::encode(&self.body),
            permit,
            signature: self.signature.to_vec(),
        })
    }

    /// Decodes and verifies.
    pub fn from_bytes(bytes: &[u8]) -> Result<SignedProposal, CodecError> {
        let Proposed { body: encoded, permit, signature } = codec::decode(bytes, DEAL_BYTES_MAX)?;
        let body: DealProposal = codec::decode(&encoded, DEAL_BYTES_MAX)?;
        body.validate()?;
        let permit = permit.map(|permit| SignedPermit::from_bytes(&permit)).transpose()?;
        let (key, domain) = match &permit {
            None => (body.client, PROPOSAL_DOMAIN),
            Some(permit) => {
                body.is_permitted(permit)?;
                (permit.body().holder, PERMITTED_DOMAIN)
            }
        };
        let signature: [u8; 64] = signature.try_into().map_err(|_| CodecError::BadSignature("proposal"))?;
        verify_key_signature(&key, &message(domain, &encoded), &signature, "proposal")?;
        Ok(SignedProposal { id: DealId(blake3::derive_key(ID_CONTEXT, &encoded)), body, signature, permit })
    }
}

/// The provider's yes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AnswerBody {
    /// [`DEAL_VERSION`].
    #[serde(rename = "v")]
    pub version: u8,
    /// [`DEAL_SUITE`].
    pub suite: u8,
    /// Which deal.
    pub deal: DealId,
    /// Unix seconds of the provider's clock.
    pub accepted_at: u64,
    /// Until when (its clock) the provider keeps the space for a push that has not come.
    pub push_until: u64,
}

/// A countersigned deal, verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedAnswer {
    body: AnswerBody,
    signature: [u8; 64],
}

impl SignedAnswer {
    /// Signs as the provider.
    pub fn sign(body: AnswerBody, provider: &Keypair) -> Result<SignedAnswer, NetError> {
        let signature = sign_as_peer(provider, ANSWER_DOMAIN, &codec::encode(&body))?;
        Ok(SignedAnswer { body, signature })
    }

    /// What was answered.
    pub fn body(&self) -> &AnswerBody {
        &self.body
    }

    /// For storage and the wire.
    pub fn to_bytes(&self) -> Vec<u8> {
        codec::encode(&Envelope::new(codec::encode(&self.body), &self.signature))
    }

    /// Decodes and verifies against the proposal that it answers.
    pub fn from_bytes(bytes: &[u8], proposal: &SignedProposal) -> Result<SignedAnswer, CodecError> {
        let envelope: Envelope = codec::decode(bytes, DEAL_BYTES_MAX)?;
        let body: AnswerBody = codec::decode(&envelope.body, DEAL_BYTES_MAX)?;
        check_version(body.version, DEAL_VERSION)?;
        if body.suite != DEAL_SUITE {
            return Err(CodecError::UnknownSuite(body.suite));
        }
        if body.deal != proposal.id {
            return Err(CodecError::Inconsistent("an answer to another deal"));
        }
        let signature = verify_as_peer(&proposal.provider()?, ANSWER_DOMAIN, &envelope, "answer")?;
        Ok(SignedAnswer { body, signature })
    }
}

/// The provider's word that the slot is on its disk, synced.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReceiptBody {
    /// [`DEAL_VERSION`].
    #[serde(rename = "v")]
    pub version: u8,
    /// [`DEAL_SUITE`].
    pub suite: u8,
    /// Which deal.
    pub deal: DealId,
    /// What was stored: equal to the proposal's.
    #[serde(rename = "piece")]
    pub piece_cid: Cid,
    /// How many bytes.
    #[serde(rename = "len")]
    pub raw_len: u64,
    /// The deal's owner.
    #[serde(with = "serde_bytes")]
    pub client: [u8; 32],
    /// The signer's peer id.
    #[serde(with = "serde_bytes")]
    pub provider: Vec<u8>,
    /// Unix seconds of the provider's clock.
    pub stored_at: u64,
}

/// A receipt whose signature was made or verified here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedReceipt {
    body: ReceiptBody,
    signature: [u8; 64],
}

impl SignedReceipt {
    /// Signs as the provider.
    pub fn sign(body: ReceiptBody, provider: &Keypair) -> Result<SignedReceipt, NetError> {
        let signature = sign_as_peer(provider, RECEIPT_DOMAIN, &codec::encode(&body))?;
        Ok(SignedReceipt { body, signature })
    }

    /// What was received.
    pub fn body(&self) -> &ReceiptBody {
        &self.body
    }

    /// For the placement log and the wire.
    pub fn to_bytes(&self) -> Vec<u8> {
        codec::encode(&Envelope::new(codec::encode(&self.body), &self.signature))
    }

    /// Decodes and verifies the signature by the provider that the receipt names. Whether it is the receipt of a
    /// certain deal is for [`matches`](Self::matches).
    pub fn from_bytes(bytes: &[u8]) -> Result<SignedReceipt, CodecError> {
        let envelope: Envelope = codec::decode(bytes, DEAL_BYTES_MAX)?;
        let body: ReceiptBody = codec::decode(&envelope.body, DEAL_BYTES_MAX)?;
        check_version(body.version, DEAL_VERSION)?;
        if body.suite != DEAL_SUITE {
            return Err(CodecError::UnknownSuite(body.suite));
        }
        let provider = PeerId::from_bytes(&body.provider)
            .map_err(|_| CodecError::Inconsistent("the provider's peer id"))?;
        let signature = verify_as_peer(&provider, RECEIPT_DOMAIN, &envelope, "receipt")?;
        Ok(SignedReceipt { body, signature })
    }

    /// Checks that this is the receipt for that proposal.
    pub fn matches(&self, proposal: &SignedProposal) -> Result<(), CodecError> {
        let (ours, theirs) = (&self.body, &proposal.body);
        let same = ours.deal == proposal.id
            && ours.piece_cid == theirs.piece_cid
            && ours.raw_len == theirs.raw_len
            && ours.client == theirs.client
            && ours.provider == theirs.provider;
        if same { Ok(()) } else { Err(CodecError::Inconsistent("a receipt for something else")) }
    }
}

/// The bytes of a slot that is to be pushed: read at any place, more than once, from a blocking thread.
pub trait PieceSource: Send + Sync {
    /// The slot's length.
    fn len(&self) -> u64;

    /// Whether there is nothing in it.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Fills `buf` from `offset`, whole or not at all.
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> std::io::Result<()>;
}

impl PieceSource for Bytes {
    fn len(&self) -> u64 {
        self.as_ref().len() as u64
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> std::io::Result<()> {
        let short = || std::io::Error::from(std::io::ErrorKind::UnexpectedEof);
        let from = usize::try_from(offset).map_err(|_| short())?;
        let to = from.checked_add(buf.len()).ok_or_else(short)?;
        buf.copy_from_slice(self.get(from..to).ok_or_else(short)?);
        Ok(())
    }
}

/// A proposal as it travels.
#[derive(Serialize, Deserialize)]
struct Proposed {
    #[serde(rename = "b", with = "serde_bytes")]
    body: Vec<u8>,
    #[serde(rename = "p", default, skip_serializing_if = "Option::is_none")]
    permit: Option<ByteBuf>,
    #[serde(rename = "s", with = "serde_bytes")]
    signature: Vec<u8>,
}

#[derive(Serialize, Deserialize)]
struct Envelope {
    #[serde(rename = "b", with = "serde_bytes")]
    body: Vec<u8>,
    #[serde(rename = "s", with = "serde_bytes")]
    signature: Vec<u8>,
}

impl Envelope {
    fn new(body: Vec<u8>, signature: &[u8; 64]) -> Envelope {
        Envelope { body, signature: signature.to_vec() }
    }
}

pub(crate) fn message(domain: &[u8], body: &[u8]) -> Vec<u8> {
    [domain, body].concat()
}

pub(crate) fn sign_as_peer(key: &Keypair, domain: &[u8], body: &[u8]) -> Result<[u8; 64], NetError> {
    let signature = key.sign(&message(domain, body)).map_err(|e| NetError::Local(e.to_string()))?;
    signature.try_into().map_err(|_| NetError::Local("the identity is not an Ed25519 key".into()))
}

fn verify_as_peer(
    peer: &PeerId,
    domain: &[u8],
    envelope: &Envelope,
    what: &'static str,
) -> Result<[u8; 64], CodecError> {
    if !verify_by_peer(peer, &message(domain, &envelope.body), &envelope.signature) {
        return Err(CodecError::BadSignature(what));
    }
    envelope.signature.as_slice().try_into().map_err(|_| CodecError::BadSignature(what))
}

/// Signs a body in a domain: as everything here is signed.
pub fn sign_message(key: &SigningKey, domain: &[u8], body: &[u8]) -> Vec<u8> {
    key.sign(&message(domain, body)).to_bytes().to_vec()
}

/// Reverses [`sign_message`], strictly.
pub fn verify_message(
    key: &[u8; 32],
    domain: &[u8],
    body: &[u8],
    signature: &[u8],
) -> Result<(), CodecError> {
    let signature = signature.try_into().map_err(|_| CodecError::BadSignature("message"))?;
    verify_key_signature(key, &message(domain, body), signature, "message")
}

/// Strict Ed25519: no small-order keys, no malleable signatures.
pub(crate) fn verify_key_signature(
    key: &[u8; 32],
    message: &[u8],
    signature: &[u8; 64],
    what: &'static str,
) -> Result<(), CodecError> {
    let key = VerifyingKey::from_bytes(key).map_err(|_| CodecError::BadSignature(what))?;
    key.verify_strict(message, &Signature::from_bytes(signature)).map_err(|_| CodecError::BadSignature(what))
}

#[cfg(test)]
pub(crate) mod tests;
