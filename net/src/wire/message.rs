//! The structures inside request, reply, go and error frames.

use serde::{Deserialize, Serialize};

use super::Frame;
use super::frame::FrameKind;
use super::limits::{FRAME_PAYLOAD_BYTES_MAX, TEXT_CHARS_MAX};
use crate::codec::{self, CodecError};
use crate::deal::{ByteRange, DealId};
use crate::error::{ErrorCode, NetError};
use crate::record::RecordKey;
use crate::tags::Tags;

/// Opens data streams of a session.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Ticket(#[serde(with = "serde_bytes")] pub [u8; 16]);

impl std::fmt::Debug for Ticket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Ticket(..)")
    }
}

/// What a data stream is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "u8", into = "u8")]
pub enum Lane {
    /// Somebody waits.
    Interactive,
    /// Nobody does.
    Bulk,
    /// Toward the provider.
    Push,
}

impl From<Lane> for u8 {
    fn from(lane: Lane) -> u8 {
        match lane {
            Lane::Interactive => 1,
            Lane::Bulk => 2,
            Lane::Push => 3,
        }
    }
}

impl TryFrom<u8> for Lane {
    type Error = CodecError;

    fn try_from(number: u8) -> Result<Lane, CodecError> {
        match number {
            1 => Ok(Lane::Interactive),
            2 => Ok(Lane::Bulk),
            3 => Ok(Lane::Push),
            _ => Err(CodecError::Inconsistent("an unknown lane")),
        }
    }
}

/// Requests of control streams.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Request {
    /// The first one.
    Hello {
        /// Who asks, for logs.
        agent: String,
        /// Version of the protocol within its name.
        v: u8,
    },
    /// Proves a key.
    Auth {
        /// The key.
        #[serde(with = "serde_bytes")]
        key: [u8; 32],
        /// By that key, over both peers and the nonce.
        #[serde(with = "serde_bytes")]
        sig: Vec<u8>,
    },
    /// What do you take?
    Info {},
    /// Will you take this?
    Propose {
        /// A signed proposal.
        #[serde(with = "serde_bytes")]
        proposal: Vec<u8>,
        /// Its signed manifest.
        #[serde(with = "serde_bytes")]
        manifest: Vec<u8>,
    },
    /// Do you have it, for sure?
    Receipt {
        /// Which.
        deal: DealId,
    },
    /// Show that you have it.
    Audit(AuditRequest),
    /// What do you keep for me?
    Holdings {
        /// Where the last page ended.
        after: Option<DealId>,
        /// At most so many.
        max: u16,
    },
    /// Keep this record.
    Put {
        /// Its name.
        key: RecordKey,
        /// Its bytes.
        #[serde(with = "serde_bytes")]
        value: Vec<u8>,
    },
    /// Which record do you have?
    Get {
        /// Its name.
        key: RecordKey,
    },
    /// May this writer have this term?
    Claim {
        /// A [`SignedClaim`](crate::term::SignedClaim).
        #[serde(with = "serde_bytes")]
        claim: Vec<u8>,
        /// Digest of the head that the claimant has.
        head: Option<serde_bytes::ByteArray<32>>,
    },
    /// I do not need it any more.
    Release {
        /// Which.
        deal: DealId,
    },
    /// Where do you belong?
    Tags {},
    /// I may do this in another's name.
    Permit {
        /// A signed permit.
        #[serde(with = "serde_bytes")]
        permit: Vec<u8>,
    },
}

/// An audit's question.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditRequest {
    /// Leaves asked.
    pub count: u16,
    /// Which deal.
    pub deal: DealId,
    /// Number of the audit within the deal.
    pub epoch: u64,
    /// Fresh.
    #[serde(with = "serde_bytes")]
    pub nonce: [u8; 32],
    /// A record to be countersigned.
    pub record: Option<RecordKey>,
}

/// Requests of data streams.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DataRequest {
    /// The first one.
    Attach {
        /// What the stream is for.
        lane: Lane,
        /// Of the session that it joins.
        ticket: Ticket,
    },
    /// Send me these.
    Read {
        /// Which slot.
        deal: DealId,
        /// In this order.
        ranges: Vec<ByteRange>,
    },
    /// Take these.
    Push {
        /// Which slot.
        deal: DealId,
    },
}

/// What a provider takes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProviderInfo {
    /// Its program, for people.
    pub agent: String,
    /// Whether it takes new deals from this client.
    pub accepting: bool,
    /// Bytes that it would still take.
    pub free: u64,
    /// The longest slot.
    pub len_max: u64,
    /// Its clock, unix seconds.
    pub now: u64,
    /// For each GiB and 30 days; big endian, empty for nothing.
    #[serde(with = "serde_bytes")]
    pub price: Vec<u8>,
    /// Its settlement backend.
    #[serde(rename = "settle")]
    pub settlement: u8,
    /// The longest term, seconds from now.
    pub term_max: u64,
}

/// A deal in a page of holdings.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HoldingWire {
    /// Which.
    pub deal: DealId,
    /// Its manifest.
    #[serde(with = "serde_bytes")]
    pub manifest: Vec<u8>,
    /// Its signed proposal.
    #[serde(with = "serde_bytes")]
    pub proposal: Vec<u8>,
    /// Its receipt, once there is one.
    pub receipt: Option<serde_bytes::ByteBuf>,
}

/// Replies of control and data streams, and what `go` carries.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reply {
    /// To hello.
    Hello {
        /// Who answers, for logs.
        agent: String,
        /// Requests that may be under way on a stream.
        inflight: u16,
        /// To prove keys over.
        #[serde(with = "serde_bytes")]
        nonce: [u8; 32],
        /// Ranges in a read.
        ranges: u16,
        /// Bytes of a read.
        read: u32,
        /// For data streams.
        ticket: Ticket,
        /// Version.
        v: u8,
    },
    /// Done.
    Ok {},
    /// To info.
    Info(ProviderInfo),
    /// To propose.
    Answer {
        /// A signed answer.
        #[serde(with = "serde_bytes")]
        answer: Vec<u8>,
    },
    /// To receipt and push.
    Receipt {
        /// A signed receipt.
        #[serde(with = "serde_bytes")]
        receipt: Vec<u8>,
    },
    /// To audit.
    Audit {
        /// An [`AuditBody`].
        #[serde(with = "serde_bytes")]
        body: Vec<u8>,
        /// The proof.
        #[serde(with = "serde_bytes")]
        proof: Vec<u8>,
        /// By the provider, over the body.
        #[serde(with = "serde_bytes")]
        sig: Vec<u8>,
    },
    /// To holdings.
    Holdings {
        /// In order of their ids.
        list: Vec<HoldingWire>,
        /// Where to go on, if there is more.
        next: Option<DealId>,
    },
    /// To put.
    Put {
        /// What is kept instead, if it is.
        kept: Option<serde_bytes::ByteBuf>,
    },
    /// To get.
    Record {
        /// The highest that is kept.
        value: Option<serde_bytes::ByteBuf>,
    },
    /// To claim.
    Claimed {
        /// The claim that was granted instead.
        claim: Option<serde_bytes::ByteBuf>,
        /// The signature of a [`Grant`](crate::term::Grant).
        grant: Option<serde_bytes::ByteBuf>,
        /// The head that is kept, if it is another one than the claimant's.
        head: Option<serde_bytes::ByteBuf>,
    },
    /// To tags.
    Tags(Tags),
    /// A push may begin here (in a `go` frame).
    Go {
        /// First byte wanted.
        offset: u64,
    },
}

/// What a provider signs of an audit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditBody {
    /// Unix seconds of its clock.
    pub at: u64,
    /// Leaves asked.
    pub count: u16,
    /// Which deal.
    pub deal: DealId,
    /// Digest of the proof.
    #[serde(with = "serde_bytes")]
    pub proof: [u8; 32],
    /// Digest of the record that was named, if it is kept.
    pub record: Option<serde_bytes::ByteArray<32>>,
    /// The challenge's seed.
    #[serde(with = "serde_bytes")]
    pub seed: [u8; 32],
    /// Version, 1.
    pub v: u8,
}

/// The longest encoded audit body.
pub const AUDIT_BODY_BYTES_MAX: usize = 512;

/// The digest of a proof in an [`AuditBody`].
pub fn proof_digest(proof: &[u8]) -> [u8; 32] {
    blake3::derive_key("holdfast 2026 audit proof v1", proof)
}

/// The digest of a record in an [`AuditBody`].
pub fn record_digest(value: &[u8]) -> [u8; 32] {
    blake3::derive_key("holdfast 2026 record digest v1", value)
}

/// What the provider signs for an audit's answer.
pub fn audit_message(body: &[u8]) -> Vec<u8> {
    crate::deal::message(b"holdfast audit answer v1\0", body)
}

/// What the owner of `key` signs to prove it in a session.
pub fn session_key_message(client: &[u8], provider: &[u8], nonce: &[u8; 32], key: &[u8; 32]) -> Vec<u8> {
    let mut out = b"holdfast session key v1\0".to_vec();
    for peer in [client, provider] {
        // Ed25519 peer ids are 38 bytes long, hashed ones 34.
        out.push(u8::try_from(peer.len()).unwrap_or(u8::MAX));
        out.extend_from_slice(peer);
    }
    out.extend_from_slice(nonce);
    out.extend_from_slice(key);
    out
}

/// A refusal, in an error frame.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WireError {
    /// [`ErrorCode`], as a number: a later version may have more.
    pub code: u16,
    /// For people.
    pub text: String,
}

impl WireError {
    /// A refusal.
    pub fn new(code: ErrorCode, text: impl AsRef<str>) -> WireError {
        WireError { code: code.number(), text: codec::shorten(text.as_ref()) }
    }

    /// As the caller sees it.
    pub fn into_net_error(self) -> NetError {
        match ErrorCode::from_number(self.code) {
            Some(code) => NetError::Refused { code, message: codec::shorten(&self.text) },
            // A newer provider's reason, which is no proof of anything: it is asked again later.
            None => NetError::Refused {
                code: ErrorCode::Busy,
                message: format!("unknown error {}: {}", self.code, codec::shorten(&self.text)),
            },
        }
    }
}

/// Puts a structure into a frame; too long a one becomes an error frame (only a reply of this program can be).
pub fn frame_of<T: Serialize>(kind: FrameKind, request: u32, value: &T) -> Frame {
    let bytes = codec::encode(value);
    Frame::new(kind, request, &bytes).unwrap_or_else(|| {
        error_frame(request, &WireError::new(ErrorCode::Storage, "the answer is too long"))
    })
}

/// An error frame.
pub fn error_frame(request: u32, error: &WireError) -> Frame {
    let text: String = error.text.chars().take(TEXT_CHARS_MAX).collect();
    let bytes = codec::encode(&WireError { code: error.code, text });
    // At most 200 characters of four bytes and a few more.
    Frame::new(FrameKind::Error, request, &bytes).expect("an error fits a frame")
}

/// Decodes a structure from a frame's payload.
pub fn decode<T: Serialize + serde::de::DeserializeOwned>(payload: &[u8]) -> Result<T, CodecError> {
    codec::decode(payload, FRAME_PAYLOAD_BYTES_MAX)
}

#[cfg(test)]
pub(crate) mod tests;
