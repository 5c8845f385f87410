//! Files and folders as all of IPFS sees them: plain UnixFS, not encrypted.
//!
//! Owns what a folder becomes when it is made public or exported, and how such DAGs are read: adding ([`add`]: bytes, names and
//! link targets to blocks), reading ([`node`]: one block; [`walk`]: a whole DAG), and CAR files ([`car`]). Promises: the CIDs are
//! those that `ipfs add` gives ([`Profile`]); reading is total, and bounded in depth and in nodes, whatever a DAG claims. Refuses
//! names that are no UTF-8, and blocks of other codecs and hashes than UnixFS over sha2-256.
//!
//! ```text
//! add::FileAdder, add::directory, add::symlink  ->  Block ...  ->  Added { cid, tsize, size }
//! Blocks (any store) -> walk::read_file, walk::entries, walk::resolve -> bytes, (name, CID), CID
//! ```

pub mod add;
pub mod car;
pub mod node;
pub mod walk;

use crate::block::{Block, BlockError, CODEC_DAG_PB, SinkError, as_v1, written_as};
use crate::unixfs::UnixfsError;
use cid::{Cid, Version};
use std::fmt;
use std::str::FromStr;

/// What decides which CID a file or folder gets.
///
/// | | `unixfs-v0-2015` (kubo's default) | `unixfs-v1-2025` |
/// |---|---|---|
/// | CIDs of nodes | version 0 | version 1 |
/// | chunks | 256 KiB | 1 MiB |
/// | leaves | UnixFS in dag-pb | raw |
/// | links of an inner node, at most | 174 | 1,024 |
/// | a folder is sharded (HAMT of 256) when | names and CIDs are over 256 KiB | its block would be over 256 KiB |
///
/// Both: sha2-256, balanced, no modes, no times, links as links. (IPIP-499; kubo's `config/import.go`.)
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Profile {
    /// `unixfs-v0-2015`: what `ipfs add` does.
    #[default]
    V0,
    /// `unixfs-v1-2025`: what `ipfs add` does in a repository with the profile of this name.
    V1,
}

impl Profile {
    /// The name that IPIP-499 gives it.
    pub fn name(self) -> &'static str {
        match self {
            Self::V0 => "unixfs-v0-2015",
            Self::V1 => "unixfs-v1-2025",
        }
    }

    fn version(self) -> Version {
        match self {
            Self::V0 => Version::V0,
            Self::V1 => Version::V1,
        }
    }

    fn chunk_bytes(self) -> usize {
        match self {
            Self::V0 => 256 << 10,
            Self::V1 => 1 << 20,
        }
    }

    fn file_links_max(self) -> usize {
        match self {
            Self::V0 => 174,
            Self::V1 => 1024,
        }
    }

    /// A block's CID as DAGs of this profile, and their users, write it.
    pub fn cid_of(self, block: &Block) -> Cid {
        written_as(block.cid(), self.version())
    }

    /// A CID of the length that a root under this profile has: what a header is sized with before the root is known.
    pub fn sample_root(self) -> Cid {
        written_as(&crate::block::cid_of(CODEC_DAG_PB, b""), self.version())
    }
}

impl fmt::Display for Profile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Profile {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        [Self::V0, Self::V1]
            .into_iter()
            .find(|profile| profile.name() == text)
            .ok_or_else(|| format!("`{text}` is not a profile; there are {} and {}", Self::V0, Self::V1))
    }
}

/// Why a plain DAG could not be made or read.
#[derive(Debug, thiserror::Error)]
pub enum PlainError {
    /// The store has no such block.
    #[error("block {0} is missing")]
    Missing(Cid),
    /// Another hash, codec or length than can be.
    #[error(transparent)]
    Block(#[from] BlockError),
    /// A block that is no UnixFS, or does not fit the node above it.
    #[error("block {cid} is no sound UnixFS: {why}")]
    Malformed {
        /// Which.
        cid: Cid,
        /// In what way.
        why: String,
    },
    /// A name that no folder can have.
    #[error("{0:?} cannot be the name of an entry")]
    Name(String),
    /// There is no such entry.
    #[error("there is no {0:?} in it")]
    NotFound(String),
    /// An entry below something that is no folder.
    #[error("{0:?} is looked for in what is no folder")]
    NotDirectory(String),
    /// The DAG is larger than whoever reads it allows.
    #[error("the data has more than {max} {what}")]
    Limit {
        /// Of what.
        what: &'static str,
        /// How many are allowed.
        max: u64,
    },
    /// A new block could not be written.
    #[error(transparent)]
    Sink(#[from] SinkError),
    /// The store, or who takes what is read, failed.
    #[error(transparent)]
    Other(Box<dyn std::error::Error + Send + Sync>),
}

impl PlainError {
    fn malformed(cid: &Cid, why: impl Into<String>) -> Self {
        Self::Malformed { cid: *cid, why: why.into() }
    }

    fn unixfs(cid: &Cid, error: UnixfsError) -> Self {
        match error {
            UnixfsError::Block(error) => error.into(),
            UnixfsError::Sink(error) => error.into(),
            error => Self::malformed(cid, error.to_string()),
        }
    }
}

/// Whoever has blocks: a CAR file, providers, a folder of pieces.
pub trait Blocks {
    /// The block of this CID, which is a CIDv1 of ours ([`as_v1`]).
    fn block(&self, cid: &Cid) -> Result<Block, PlainError>;
}

/// Multihash code of the hash that is no hash: the bytes stand in the CID itself.
const HASH_IDENTITY: u64 = 0;

/// The bytes that a CID stands for, if it holds them itself.
pub(crate) fn inline(cid: &Cid) -> Option<&[u8]> {
    (cid.hash().code() == HASH_IDENTITY).then(|| cid.hash().digest())
}

/// A node by its CID in whatever form, read and understood.
pub fn load(blocks: &dyn Blocks, cid: &Cid) -> Result<node::Node, PlainError> {
    if let Some(bytes) = inline(cid) {
        return node::Node::decode(cid, bytes::Bytes::copy_from_slice(bytes));
    }
    let block = blocks.block(&as_v1(cid)?)?;
    node::Node::decode(cid, block.into_bytes())
}

#[cfg(test)]
mod tests;
