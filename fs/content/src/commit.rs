//! Commits: the drive at one LSN.
//!
//! ```text
//! body      = ChaCha20-Poly1305(key, nonce 0, canonical DAG-CBOR of CommitBody) || tag       raw leaf
//! key       = BLAKE3 keyed by the commit key over (suite u8, the DAG-CBOR)
//! directory = UnixFS directory { "00000": the namespace root's directory, "_": body }        dag-pb
//! ```
//!
//! Whoever walks UnixFS from the directory reaches every block of the namespace, and none of an older commit: those are
//! named in the body only, so that they can be dropped. Inside the body the key of the namespace is wrapped once more
//! (XChaCha20-Poly1305, synthetic nonce, the root's CID as associated data): who is given commits to follow their history
//! does not read the names.

use crate::aead::{self, OpenError};
use crate::block::{Block, BlockAt, BlockError, Link};
use crate::dagcbor::{self, FormatError};
use crate::keys::{DriveKeys, SecretKey32};
use crate::tree::NodeRef;
use crate::unixfs::{Directory, UnixfsError};
use cid::Cid;
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

const WHAT: &str = "commit";
const VERSION: u64 = 1;
const SUITE: u8 = 1;
/// No commit is larger.
pub const COMMIT_BYTES_MAX: usize = 64 << 10;
/// More pending files than this are told as a number only.
pub const PENDING_LISTED_MAX: usize = 1000;

/// Why a commit could not be written or read.
#[derive(Debug, thiserror::Error)]
pub enum CommitError {
    /// Malformed, too large or newer.
    #[error(transparent)]
    Format(#[from] FormatError),
    /// The key does not open it.
    #[error("the commit does not open: {0}")]
    Open(#[from] OpenError),
    /// It could not be made a block.
    #[error(transparent)]
    Block(#[from] BlockError),
    /// It could not be made a directory.
    #[error(transparent)]
    Unixfs(#[from] UnixfsError),
}

/// What names a commit: its directory, the place of its body, and the key.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CommitRef {
    /// The UnixFS directory from which the whole commit can be walked.
    pub root: Cid,
    /// The body.
    pub at: BlockAt,
    /// What opens the body.
    pub key: SecretKey32,
}

/// What the drive held, in numbers.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DriveStats {
    /// Inodes of all kinds.
    pub inodes: u64,
    /// Bytes of all files, as programs see them.
    pub bytes: u64,
    /// Bytes of all blocks of the namespace.
    pub blocks_bytes: u64,
}

/// The drive at one LSN.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Commit {
    /// Counts up on this drive, over all devices.
    pub sequence: u64,
    /// The namespace.
    pub namespace: NodeRef,
    /// The commit before; nothing for the first, or when history was cut here.
    pub previous: Option<CommitRef>,
    /// Who wrote it.
    pub device: [u8; 16],
    /// The writer's term.
    pub term: u64,
    /// The cut: every log record up to it is in, none after.
    pub lsn: u64,
    /// When, unix milliseconds.
    pub time_ms: u64,
    /// How many files' data is not in yet. They restore as an error, never as an older version.
    pub pending_files: u64,
    /// Their inodes, at most [`PENDING_LISTED_MAX`].
    pub pending: Vec<u64>,
    /// What is in it.
    pub stats: DriveStats,
}

/// A commit ready to be written, in this order.
#[derive(Clone, Debug)]
pub struct EncodedCommit {
    /// The body: a reader of ours needs only this.
    pub body: Block,
    /// The directory.
    pub directory: Block,
    /// What opens the body.
    pub key: SecretKey32,
}

impl EncodedCommit {
    /// The commit's reference, once it is known where the body came to lie.
    pub fn reference(&self, at: BlockAt) -> CommitRef {
        debug_assert_eq!(&at.cid, self.body.cid());
        CommitRef { root: *self.directory.cid(), at, key: self.key.clone() }
    }
}

/// A place and a key as DAG-CBOR: how structures name a block and what opens it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlaceBody {
    /// The block.
    pub cid: Cid,
    /// The piece that holds it.
    #[serde(with = "serde_bytes")]
    pub piece: [u8; 16],
    /// First byte in the piece.
    pub offset: u64,
    /// Length in bytes.
    pub len: u32,
    /// What opens it.
    pub key: SecretKey32,
}

impl PlaceBody {
    /// Of a place and a key.
    pub fn new(at: &BlockAt, key: &SecretKey32) -> Self {
        Self { cid: at.cid, piece: at.piece, offset: at.offset, len: at.len, key: key.clone() }
    }

    /// The place alone.
    pub fn at(&self) -> BlockAt {
        BlockAt { cid: self.cid, piece: self.piece, offset: self.offset, len: self.len }
    }
}

/// [`CommitRef`] as DAG-CBOR.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CommitRefBody {
    /// The directory.
    pub root: Cid,
    /// The body.
    pub at: PlaceBody,
}

impl From<&CommitRef> for CommitRefBody {
    fn from(commit: &CommitRef) -> Self {
        Self { root: commit.root, at: PlaceBody::new(&commit.at, &commit.key) }
    }
}

impl From<CommitRefBody> for CommitRef {
    fn from(body: CommitRefBody) -> Self {
        Self { root: body.root, at: body.at.at(), key: body.at.key }
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct CommitBody {
    version: u64,
    suite: u64,
    generation: u32,
    sequence: u64,
    root: Cid,
    tsize: u64,
    body: Cid,
    wrapped_key: ByteBuf,
    previous: Option<CommitRefBody>,
    #[serde(with = "serde_bytes")]
    device: [u8; 16],
    term: u64,
    lsn: u64,
    time_ms: u64,
    pending_files: u64,
    pending: Vec<u64>,
    stats: DriveStats,
}

impl Commit {
    /// Encrypts under the drive's keys.
    pub fn encode(&self, keys: &DriveKeys) -> Result<EncodedCommit, CommitError> {
        let root = &self.namespace;
        let wrapped =
            aead::seal_synthetic(keys.commit_wrap.as_bytes(), &root.root.to_bytes(), root.key.as_bytes());
        let body = CommitBody {
            version: VERSION,
            suite: SUITE.into(),
            generation: keys.generation,
            sequence: self.sequence,
            root: root.root,
            tsize: root.tsize,
            body: root.body,
            wrapped_key: ByteBuf::from(wrapped),
            previous: self.previous.as_ref().map(CommitRefBody::from),
            device: self.device,
            term: self.term,
            lsn: self.lsn,
            time_ms: self.time_ms,
            pending_files: self.pending_files,
            pending: self.pending.iter().copied().take(PENDING_LISTED_MAX).collect(),
            stats: self.stats,
        };
        let mut buffer = dagcbor::encode(WHAT, &body)?;
        let mut hasher = blake3::Hasher::new_keyed(keys.commit.as_bytes());
        hasher.update(&[SUITE]);
        hasher.update(&buffer);
        let key = SecretKey32::from_bytes(hasher.finalize().into());
        aead::seal_once(key.as_bytes(), &mut buffer);
        let body = Block::raw(buffer)?;
        let links = vec![Link { cid: root.root, tsize: root.tsize }];
        let (directory, _) = Directory { body: Link::to_leaf(&body), links }.encode()?;
        Ok(EncodedCommit { body, directory, key })
    }

    /// Opens a commit's body.
    pub fn decode(body: &Block, key: &SecretKey32, keys: &DriveKeys) -> Result<Self, CommitError> {
        if body.bytes().len() > COMMIT_BYTES_MAX {
            let (len, max) = (body.bytes().len(), COMMIT_BYTES_MAX);
            return Err(FormatError::TooLarge { what: WHAT, len, max }.into());
        }
        let mut buffer = body.bytes().to_vec();
        aead::open_once(key.as_bytes(), &mut buffer)?;
        Self::decode_plain(&buffer, keys)
    }

    /// Reads what stands inside the seal.
    pub(crate) fn decode_plain(plain: &[u8], keys: &DriveKeys) -> Result<Self, CommitError> {
        let found = dagcbor::peek_version(WHAT, plain)?;
        dagcbor::check_version(WHAT, found.version, VERSION)?;
        dagcbor::check_version(WHAT, found.suite, SUITE.into())?;
        let body: CommitBody = dagcbor::decode(WHAT, plain, COMMIT_BYTES_MAX)?;
        if body.generation != keys.generation {
            let why = format!("written under key generation {}, not {}", body.generation, keys.generation);
            return Err(FormatError::malformed(WHAT, why).into());
        }
        let unwrapped =
            aead::open_xnonce(keys.commit_wrap.as_bytes(), &body.root.to_bytes(), &body.wrapped_key)?;
        let key: [u8; 32] = unwrapped.as_slice().try_into().map_err(|_| OpenError)?;
        if body.pending.len() > PENDING_LISTED_MAX {
            return Err(FormatError::malformed(WHAT, "too many pending files").into());
        }
        let key = SecretKey32::from_bytes(key);
        Ok(Self {
            sequence: body.sequence,
            namespace: NodeRef { root: body.root, tsize: body.tsize, body: body.body, key },
            previous: body.previous.map(CommitRef::from),
            device: body.device,
            term: body.term,
            lsn: body.lsn,
            time_ms: body.time_ms,
            pending_files: body.pending_files,
            pending: body.pending,
            stats: body.stats,
        })
    }
}

#[cfg(test)]
pub(crate) mod tests;
