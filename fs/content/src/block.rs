//! Blocks, their CIDs, and where they lie.
//!
//! Owns [`Block`]: bytes that are known to match their CID, because they were hashed here. There is no other way to
//! get one. Only CIDv1 with sha2-256, codecs raw and dag-pb, up to [`BLOCK_BYTES_MAX`]: what any IPFS implementation
//! transfers. Other CIDs are refused.

use bytes::Bytes;
use cid::Cid;
use cid::multihash::Multihash;
use sha2::{Digest as _, Sha256};

/// The multicodec of a leaf: bytes without structure.
pub const CODEC_RAW: u64 = 0x55;
/// The multicodec of an inner node.
pub const CODEC_DAG_PB: u64 = 0x70;
/// The multihash code of sha2-256.
pub const HASH_SHA2_256: u64 = 0x12;
/// No block is larger: Bitswap's and the trustless gateway's common limit.
pub const BLOCK_BYTES_MAX: usize = 2 << 20;
/// A CIDv1 of ours in binary: version, codec, hash code, hash length, digest.
pub const CID_BYTES: usize = 36;

/// The random identity of a piece, drawn when its file is created.
pub type PieceId = [u8; 16];

/// Why bytes are not a block.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum BlockError {
    /// The bytes hash to something else: corrupt, or not what was asked for.
    #[error("the bytes do not match {0}")]
    Mismatch(Box<Cid>),
    /// Not CIDv1, sha2-256, raw or dag-pb.
    #[error("unsupported CID {0}")]
    UnsupportedCid(Box<Cid>),
    /// Larger than [`BLOCK_BYTES_MAX`].
    #[error("a block of {0} bytes exceeds the limit of {BLOCK_BYTES_MAX}")]
    TooLarge(usize),
    /// Bytes that are no CID at all.
    #[error("malformed CID")]
    MalformedCid,
}

/// Bytes that match their CID.
#[derive(Clone, PartialEq, Eq)]
pub struct Block {
    cid: Cid,
    bytes: Bytes,
}

impl Block {
    /// Hashes bytes into a raw leaf.
    pub fn raw(bytes: impl Into<Bytes>) -> Result<Self, BlockError> {
        Self::hash(CODEC_RAW, bytes.into())
    }

    /// Hashes the encoding of a dag-pb node.
    pub fn dag_pb(bytes: impl Into<Bytes>) -> Result<Self, BlockError> {
        Self::hash(CODEC_DAG_PB, bytes.into())
    }

    fn hash(codec: u64, bytes: Bytes) -> Result<Self, BlockError> {
        if bytes.len() > BLOCK_BYTES_MAX {
            return Err(BlockError::TooLarge(bytes.len()));
        }
        Ok(Self { cid: cid_of(codec, &bytes), bytes })
    }

    /// Accepts foreign bytes if they match `cid`.
    pub fn verify(cid: Cid, bytes: impl Into<Bytes>) -> Result<Self, BlockError> {
        let bytes = bytes.into();
        check_cid(&cid)?;
        if bytes.len() > BLOCK_BYTES_MAX {
            return Err(BlockError::TooLarge(bytes.len()));
        }
        if cid.hash().digest() != Sha256::digest(&bytes).as_slice() {
            return Err(BlockError::Mismatch(Box::new(cid)));
        }
        Ok(Self { cid, bytes })
    }

    /// The block's CID.
    pub fn cid(&self) -> &Cid {
        &self.cid
    }

    /// The block's bytes.
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// The bytes alone.
    pub fn into_bytes(self) -> Bytes {
        self.bytes
    }

    /// Length in bytes; fits, since a block is at most [`BLOCK_BYTES_MAX`].
    #[allow(clippy::len_without_is_empty)]
    pub fn len(&self) -> u32 {
        self.bytes.len() as u32
    }
}

impl std::fmt::Debug for Block {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Block({}, {} bytes)", self.cid, self.bytes.len())
    }
}

/// The CID of bytes under a codec.
pub fn cid_of(codec: u64, bytes: &[u8]) -> Cid {
    cid_from_digest(codec, &Sha256::digest(bytes).into())
}

/// The CIDv1 of a sha2-256 digest.
pub fn cid_from_digest(codec: u64, digest: &[u8; 32]) -> Cid {
    // A 32-byte digest always fits the 64 bytes of `Multihash<64>`; the fallback is never taken.
    Cid::new_v1(codec, Multihash::wrap(HASH_SHA2_256, digest).unwrap_or_default())
}

/// The sha2-256 digest in one of our CIDs: the key of the location tree and of the store's block table.
pub fn digest_of(cid: &Cid) -> Result<[u8; 32], BlockError> {
    check_cid(cid)?;
    cid.hash().digest().try_into().map_err(|_| BlockError::UnsupportedCid(Box::new(*cid)))
}

/// Refuses a CID that no block of ours can have.
pub fn check_cid(cid: &Cid) -> Result<(), BlockError> {
    let ours = cid.version() == cid::Version::V1
        && matches!(cid.codec(), CODEC_RAW | CODEC_DAG_PB)
        && cid.hash().code() == HASH_SHA2_256
        && cid.hash().digest().len() == 32;
    if ours { Ok(()) } else { Err(BlockError::UnsupportedCid(Box::new(*cid))) }
}

/// A CID as DAGs of the given version write it: CIDv0 and CIDv1 of a dag-pb node name the same bytes; a raw leaf has no CIDv0.
pub fn written_as(cid: &Cid, version: cid::Version) -> Cid {
    match version {
        cid::Version::V0 if cid.codec() == CODEC_DAG_PB => Cid::new_v0(*cid.hash()).unwrap_or(*cid),
        _ => *cid,
    }
}

/// The CIDv1 that names the same block as `cid`, which may be a CIDv0. Refuses what no block of ours can have.
pub fn as_v1(cid: &Cid) -> Result<Cid, BlockError> {
    let v1 = match cid.version() {
        cid::Version::V0 => Cid::new_v1(CODEC_DAG_PB, *cid.hash()),
        cid::Version::V1 => *cid,
    };
    check_cid(&v1).map_err(|_| BlockError::UnsupportedCid(Box::new(*cid)))?;
    Ok(v1)
}

/// Reads a binary CID of ours, exactly [`CID_BYTES`] long.
pub fn cid_from_bytes(bytes: &[u8]) -> Result<Cid, BlockError> {
    if bytes.len() != CID_BYTES {
        return Err(BlockError::MalformedCid);
    }
    let cid = Cid::try_from(bytes).map_err(|_| BlockError::MalformedCid)?;
    check_cid(&cid)?;
    Ok(cid)
}

/// A link of a UnixFS node: what it names and the cumulative encoded size of all below it (dag-pb's `Tsize`).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Link {
    /// The root of the DAG.
    pub cid: Cid,
    /// Bytes of the block and of every block below it, counted once for each link.
    pub tsize: u64,
}

impl Link {
    /// The link to a block that has no links itself.
    pub fn to_leaf(block: &Block) -> Self {
        Self { cid: *block.cid(), tsize: u64::from(block.len()) }
    }
}

/// Where a block lies: `offset` is that of its bytes (not of its CAR section) in the unmasked piece.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct BlockAt {
    /// The block.
    pub cid: Cid,
    /// The piece that holds it.
    pub piece: PieceId,
    /// First byte in the piece.
    pub offset: u64,
    /// Length in bytes.
    pub len: u32,
}

/// Why a block could not be written.
#[derive(Debug, thiserror::Error)]
pub enum SinkError {
    /// The sink has reached its size: begin another one.
    #[error("the piece is full")]
    Full,
    /// The medium failed.
    #[error("writing a block: {0}")]
    Io(#[from] std::io::Error),
    /// Whatever the sink's owner has to say.
    #[error("writing a block: {0}")]
    Other(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// Where new blocks go: a piece being written. It knows where each one comes to lie.
///
/// A block that is there already may be answered with its known place, without a second copy.
pub trait BlockSink {
    /// Stores a block and says where.
    fn put(&mut self, block: Block) -> Result<BlockAt, SinkError>;
}

impl<S: BlockSink + ?Sized> BlockSink for &mut S {
    fn put(&mut self, block: Block) -> Result<BlockAt, SinkError> {
        (**self).put(block)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn known_cids() {
        // The CIDs that every IPFS implementation gives to nothing and to "hello".
        let empty = Block::raw(&b""[..]).unwrap();
        assert_eq!(empty.cid().to_string(), "bafkreihdwdcefgh4dqkjv67uzcmw7ojee6xedzdetojuzjevtenxquvyku");
        let hello = Block::raw(&b"hello"[..]).unwrap();
        assert_eq!(hello.cid().to_string(), "bafkreibm6jg3ux5qumhcn2b3flc3tyu6dmlb4xa7u5bf44yegnrjhc4yeq");
        assert_eq!(cid_from_bytes(&hello.cid().to_bytes()).unwrap(), *hello.cid());
    }

    #[test]
    fn only_matching_bytes_become_a_block() {
        let block = Block::raw(&b"hello"[..]).unwrap();
        assert!(Block::verify(*block.cid(), &b"hello"[..]).is_ok());
        assert!(matches!(Block::verify(*block.cid(), &b"hellp"[..]), Err(BlockError::Mismatch(_))));
        assert!(matches!(Block::raw(vec![0; BLOCK_BYTES_MAX + 1]), Err(BlockError::TooLarge(_))));
        let identity = Cid::new_v1(CODEC_RAW, Multihash::wrap(0, b"x").unwrap());
        assert!(matches!(Block::verify(identity, &b"x"[..]), Err(BlockError::UnsupportedCid(_))));
        let v0 = Cid::new_v0(*block.cid().hash()).unwrap();
        assert!(check_cid(&v0).is_err());
    }
}
