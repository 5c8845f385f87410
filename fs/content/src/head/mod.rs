//! The head: what a drive is now, in one encrypted body, and the signed record that names it.
//!
//! ```text
//! record = IPNS v2 record under the head key, Value = /ipfs/<CID of the sealed body>          (see [`record`])
//! sealed = version u8 = 1 | suite u8 = 1 | generation u32 BE | nonce 24 | ciphertext | tag 16    CID: raw, sha2-256
//!          XChaCha20-Poly1305 under the generation's head-body key, synthetic nonce, associated data = the first 6 bytes
//! plain  = canonical DAG-CBOR of [`HeadBody`]
//! ```
//!
//! Body and record travel together; every provider of the drive keeps the newest pair.

mod record;

pub(crate) use record::sign_data;
pub use record::{HeadRecord, IpnsRecord, RECORD_BYTES_MAX, RecordError, format_rfc3339, parse_rfc3339};

use crate::aead;
use crate::block::{Block, BlockError, CODEC_RAW, cid_of};
use crate::commit::{CommitRef, CommitRefBody, PlaceBody};
use crate::dagcbor::{self, FormatError};
use crate::keys::DriveKeys;
use crate::placement::{ChainEnd, PlacementEntry};
use crate::tree::PhysicalRef;
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;
use std::collections::BTreeMap;

const WHAT: &str = "head";
const VERSION: u8 = 1;
const SUITE: u8 = 1;
const HEADER_BYTES: usize = 6;
/// No sealed head is larger: providers keep it for nothing.
pub const HEAD_BODY_BYTES_MAX: usize = 1 << 20;
/// Placement entries since the checkpoint: with about 700 bytes each, the body stays below its limit.
pub const TAIL_ENTRIES_MAX: usize = 1000;
/// Providers named in a head.
pub const PROVIDERS_MAX: usize = 256;
/// Addresses of one provider.
pub const ADDRESSES_MAX: usize = 16;
/// Length of an address or a peer id.
pub const ADDRESS_BYTES_MAX: usize = 256;
/// Tags of one provider, one of a kind.
const TAGS_MAX: usize = 8;
/// Length of a tag or of its kind.
const TAG_BYTES_MAX: usize = 64;
/// Authors of placement chains.
const CHAINS_MAX: usize = 256;

/// A provider and how to reach it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProviderAddresses {
    /// The peer id in binary.
    pub peer: ByteBuf,
    /// Multiaddresses in text.
    pub addresses: Vec<String>,
    /// Where the owner says that it belongs (operator, network, place), so that a restored drive spreads as the lost one did;
    /// absent where nothing was said. Programs before this field refuse a head that has it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub tags: BTreeMap<String, String>,
}

/// What a drive is now.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HeadBody {
    /// Counts up with every head of this drive, over all terms.
    pub sequence: u64,
    /// The writer's term.
    pub term: u64,
    /// The writer.
    pub device: [u8; 16],
    /// When, unix seconds.
    pub time: u64,
    /// The newest commit.
    pub commit: CommitRef,
    /// The newest commit without pending files, if that is another one.
    pub complete: Option<CommitRef>,
    /// The location tree.
    pub location: PhysicalRef,
    /// The checkpoint of the placement log.
    pub checkpoint: Option<PhysicalRef>,
    /// Where the authors' chains ended at the checkpoint.
    pub checkpoint_chains: BTreeMap<[u8; 32], ChainEnd>,
    /// Placement entries since.
    pub tail: Vec<PlacementEntry>,
    /// Who has been asked to keep something.
    pub providers: Vec<ProviderAddresses>,
    /// The keyring under which this was written ([`crate::keys::Keyring::digest`]).
    pub keyring: [u8; 32],
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Chain {
    #[serde(with = "serde_bytes")]
    author: [u8; 32],
    end: ChainEnd,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Plain {
    version: u64,
    suite: u64,
    sequence: u64,
    term: u64,
    #[serde(with = "serde_bytes")]
    device: [u8; 16],
    time: u64,
    commit: CommitRefBody,
    complete: Option<CommitRefBody>,
    location: PlaceBody,
    checkpoint: Option<PlaceBody>,
    chains: Vec<Chain>,
    tail: Vec<ByteBuf>,
    providers: Vec<ProviderAddresses>,
    #[serde(with = "serde_bytes")]
    keyring: [u8; 32],
}

/// Why a head could not be made or read.
#[derive(Debug, thiserror::Error)]
pub enum HeadError {
    /// Malformed, too large or newer.
    #[error(transparent)]
    Format(#[from] FormatError),
    /// It was sealed under keys of another generation.
    #[error("the head was sealed under key generation {found}, not {known}")]
    Generation {
        /// The head's.
        found: u32,
        /// The keys'.
        known: u32,
    },
    /// It could not be made a block.
    #[error(transparent)]
    Block(#[from] BlockError),
}

impl HeadBody {
    /// Encrypts. The block's CID is the record's value.
    pub fn seal(&self, keys: &DriveKeys) -> Result<Block, HeadError> {
        self.check()?;
        let chains = self.checkpoint_chains.iter().map(|(&author, &end)| Chain { author, end }).collect();
        let place = |node: &PhysicalRef| PlaceBody::new(&node.at, &node.key);
        let plain = Plain {
            version: VERSION.into(),
            suite: SUITE.into(),
            sequence: self.sequence,
            term: self.term,
            device: self.device,
            time: self.time,
            commit: CommitRefBody::from(&self.commit),
            complete: self.complete.as_ref().map(CommitRefBody::from),
            location: place(&self.location),
            checkpoint: self.checkpoint.as_ref().map(place),
            chains,
            tail: self.tail.iter().map(|entry| ByteBuf::from(entry.bytes().to_vec())).collect(),
            providers: self.providers.clone(),
            keyring: self.keyring,
        };
        let plain = dagcbor::encode(WHAT, &plain)?;
        let mut sealed = vec![VERSION, SUITE];
        sealed.extend_from_slice(&keys.generation.to_be_bytes());
        let ciphertext = aead::seal_synthetic(keys.head_body.as_bytes(), &sealed, &plain);
        sealed.extend_from_slice(&ciphertext);
        if sealed.len() > HEAD_BODY_BYTES_MAX {
            return Err(too_large(sealed.len()).into());
        }
        Ok(Block::raw(sealed)?)
    }

    /// The key generation of a sealed head: which keys open it.
    pub fn generation(sealed: &[u8]) -> Result<u32, HeadError> {
        if sealed.len() > HEAD_BODY_BYTES_MAX {
            return Err(too_large(sealed.len()).into());
        }
        let Some((&[version, suite, a, b, c, d], _)) = sealed.split_first_chunk::<HEADER_BYTES>() else {
            return Err(FormatError::malformed(WHAT, "too short").into());
        };
        dagcbor::check_version(WHAT, version.into(), VERSION.into())?;
        dagcbor::check_version(WHAT, suite.into(), SUITE.into())?;
        Ok(u32::from_be_bytes([a, b, c, d]))
    }

    /// Opens a sealed head. That it is the one a record names is for the caller to check ([`HeadRecord::names`]).
    pub fn open(sealed: &[u8], keys: &DriveKeys) -> Result<Self, HeadError> {
        let found = Self::generation(sealed)?;
        if found != keys.generation {
            return Err(HeadError::Generation { found, known: keys.generation });
        }
        let (header, ciphertext) = sealed.split_at_checked(HEADER_BYTES).unwrap_or_default();
        let plain = aead::open_xnonce(keys.head_body.as_bytes(), header, ciphertext)
            .map_err(|_| FormatError::NotAuthentic { what: WHAT })?;
        let version = dagcbor::peek_version(WHAT, &plain)?;
        dagcbor::check_version(WHAT, version.version, VERSION.into())?;
        dagcbor::check_version(WHAT, version.suite, SUITE.into())?;
        let plain: Plain = dagcbor::decode(WHAT, &plain, HEAD_BODY_BYTES_MAX)?;
        let place = |place: PlaceBody| PhysicalRef { at: place.at(), key: place.key };
        let tail = plain.tail.iter().map(|bytes| PlacementEntry::verify(bytes)).collect::<Result<_, _>>()?;
        let body = Self {
            sequence: plain.sequence,
            term: plain.term,
            device: plain.device,
            time: plain.time,
            commit: plain.commit.into(),
            complete: plain.complete.map(CommitRef::from),
            location: place(plain.location),
            checkpoint: plain.checkpoint.map(place),
            checkpoint_chains: plain.chains.into_iter().map(|chain| (chain.author, chain.end)).collect(),
            tail,
            providers: plain.providers,
            keyring: plain.keyring,
        };
        body.check()?;
        Ok(body)
    }

    fn check(&self) -> Result<(), FormatError> {
        let provider_fits = |provider: &ProviderAddresses| {
            provider.peer.len() <= ADDRESS_BYTES_MAX
                && provider.addresses.len() <= ADDRESSES_MAX
                && provider.addresses.iter().all(|address| address.len() <= ADDRESS_BYTES_MAX)
                && provider.tags.len() <= TAGS_MAX
                && provider.tags.iter().flat_map(|(kind, tag)| [kind, tag]).all(|s| s.len() <= TAG_BYTES_MAX)
        };
        if self.tail.len() > TAIL_ENTRIES_MAX {
            return Err(FormatError::malformed(WHAT, "too many placement entries: a checkpoint is due"));
        }
        if self.providers.len() > PROVIDERS_MAX || !self.providers.iter().all(provider_fits) {
            return Err(FormatError::malformed(WHAT, "too many or too long addresses or tags of providers"));
        }
        if self.checkpoint_chains.len() > CHAINS_MAX {
            return Err(FormatError::malformed(WHAT, "too many chains"));
        }
        Ok(())
    }
}

/// The CID by which a record names sealed bytes.
pub fn sealed_cid(sealed: &[u8]) -> cid::Cid {
    cid_of(CODEC_RAW, sealed)
}

fn too_large(len: usize) -> FormatError {
    FormatError::TooLarge { what: WHAT, len, max: HEAD_BODY_BYTES_MAX }
}

#[cfg(test)]
pub(crate) mod tests;
