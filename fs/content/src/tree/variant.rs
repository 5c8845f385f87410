//! The two kinds of tree: what a reference to a node is, and which blocks a node becomes.

use super::{Entry, Node, Shape, TreeError};
use crate::block::{Block, BlockAt, BlockSink, CODEC_DAG_PB, CODEC_RAW, Link, cid_from_digest, digest_of};
use crate::keys::SecretKey32;
use crate::unixfs::Directory;
use bytes::Bytes;
use cid::Cid;
use serde::{Deserialize, Serialize};

/// A kind of tree. Only [`Namespace`] and [`Physical`] exist.
pub trait Variant: sealed::Sealed + Sized + 'static {
    /// How a node is named.
    type Ref: Clone + PartialEq + std::fmt::Debug + Send + Sync;
    /// The variant's number in nodes.
    const KIND: u8;
    /// How large nodes are.
    const SHAPE: Shape;

    /// The block that holds the node's ciphertext: all that a reader of ours needs.
    fn body(node: &Self::Ref) -> &Cid;
    /// The node's key.
    fn key(node: &Self::Ref) -> &SecretKey32;
    /// The entry by which a parent lists the node.
    fn to_entry(first_key: Bytes, node: &Self::Ref) -> Result<Entry, TreeError>;
    /// Reads such an entry.
    fn from_entry(entry: &Entry) -> Result<Self::Ref, TreeError>;
    /// Writes the blocks of a new node, whose ciphertext is `body`.
    fn write(
        sink: &mut dyn BlockSink,
        body: Block,
        key: SecretKey32,
        node: &Node,
    ) -> Result<Self::Ref, TreeError>;
}

mod sealed {
    pub trait Sealed {}
    impl Sealed for super::Namespace {}
    impl Sealed for super::Physical {}
}

/// Nodes are UnixFS directories; references are CIDs.
#[derive(Debug, Clone, Copy)]
pub enum Namespace {}

/// A node of a namespace tree.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NodeRef {
    /// The UnixFS directory: whoever walks from here reaches every block below.
    pub root: Cid,
    /// Cumulative size below it, as its links' `Tsize`.
    pub tsize: u64,
    /// The directory's entry `_`: the node's ciphertext. A reader of ours fetches only this.
    pub body: Cid,
    /// What opens it.
    pub key: SecretKey32,
}

impl Variant for Namespace {
    type Ref = NodeRef;
    const KIND: u8 = 1;
    const SHAPE: Shape = Shape::NAMESPACE;

    fn body(node: &NodeRef) -> &Cid {
        &node.body
    }

    fn key(node: &NodeRef) -> &SecretKey32 {
        &node.key
    }

    /// `value = body digest 32 | key 32`, `links = [directory]`.
    fn to_entry(first_key: Bytes, node: &NodeRef) -> Result<Entry, TreeError> {
        let value = [digest_of(&node.body)?, *node.key.as_bytes()].concat();
        Ok(Entry {
            key: first_key,
            value: value.into(),
            links: vec![Link { cid: node.root, tsize: node.tsize }],
        })
    }

    fn from_entry(entry: &Entry) -> Result<NodeRef, TreeError> {
        let malformed = || TreeError::Malformed("a child of a namespace node".to_owned());
        let (body, key) = entry.value.split_first_chunk::<32>().ok_or_else(malformed)?;
        let key: [u8; 32] = key.try_into().map_err(|_| malformed())?;
        let &[root] = entry.links.as_slice() else { return Err(malformed()) };
        if root.cid.codec() != CODEC_DAG_PB {
            return Err(malformed());
        }
        Ok(NodeRef {
            root: root.cid,
            tsize: root.tsize,
            body: cid_from_digest(CODEC_RAW, body),
            key: SecretKey32::from_bytes(key),
        })
    }

    fn write(
        sink: &mut dyn BlockSink,
        body: Block,
        key: SecretKey32,
        node: &Node,
    ) -> Result<NodeRef, TreeError> {
        let links = node.entries.iter().flat_map(|entry| entry.links.iter().copied()).collect();
        let (directory, link) = Directory { body: Link::to_leaf(&body), links }.encode()?;
        let body_cid = *body.cid();
        sink.put(body)?;
        sink.put(directory)?;
        Ok(NodeRef { root: link.cid, tsize: link.tsize, body: body_cid, key })
    }
}

/// Nodes are single blocks; references are places in pieces.
#[derive(Debug, Clone, Copy)]
pub enum Physical {}

/// A node of a physical tree.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PhysicalRef {
    /// Where the node's ciphertext lies.
    pub at: BlockAt,
    /// What opens it.
    pub key: SecretKey32,
}

impl Variant for Physical {
    type Ref = PhysicalRef;
    const KIND: u8 = 2;
    const SHAPE: Shape = Shape::PHYSICAL;

    fn body(node: &PhysicalRef) -> &Cid {
        &node.at.cid
    }

    fn key(node: &PhysicalRef) -> &SecretKey32 {
        &node.key
    }

    /// `value = body digest 32 | key 32 | piece 16 | offset varint | len varint`, no links.
    fn to_entry(first_key: Bytes, node: &PhysicalRef) -> Result<Entry, TreeError> {
        let mut value = digest_of(&node.at.cid)?.to_vec();
        value.extend_from_slice(node.key.as_bytes());
        value.extend_from_slice(&place::encode(node.at.piece, node.at.offset, node.at.len));
        Ok(Entry { key: first_key, value: value.into(), links: Vec::new() })
    }

    fn from_entry(entry: &Entry) -> Result<PhysicalRef, TreeError> {
        let malformed = || TreeError::Malformed("a child of a physical node".to_owned());
        let (body, rest) = entry.value.split_first_chunk::<32>().ok_or_else(malformed)?;
        let (key, rest) = rest.split_first_chunk::<32>().ok_or_else(malformed)?;
        let (piece, offset, len) = place::decode(rest).ok_or_else(malformed)?;
        if !entry.links.is_empty() {
            return Err(malformed());
        }
        let at = BlockAt { cid: cid_from_digest(CODEC_RAW, body), piece, offset, len };
        Ok(PhysicalRef { at, key: SecretKey32::from_bytes(*key) })
    }

    fn write(
        sink: &mut dyn BlockSink,
        body: Block,
        key: SecretKey32,
        _: &Node,
    ) -> Result<PhysicalRef, TreeError> {
        Ok(PhysicalRef { at: sink.put(body)?, key })
    }
}

/// `piece 16 | offset varint | len varint`.
pub(crate) mod place {
    use crate::block::PieceId;
    use crate::varint;
    use unsigned_varint::encode as write;

    pub(crate) fn encode(piece: PieceId, offset: u64, len: u32) -> Vec<u8> {
        let mut out = piece.to_vec();
        out.extend_from_slice(write::u64(offset, &mut write::u64_buffer()));
        out.extend_from_slice(write::u32(len, &mut write::u32_buffer()));
        out
    }

    /// Reverses [`encode`], exactly.
    pub(crate) fn decode(bytes: &[u8]) -> Option<(PieceId, u64, u32)> {
        let (piece, rest) = bytes.split_first_chunk::<16>()?;
        let (offset, rest) = varint::take(rest)?;
        let (len, rest) = varint::take(rest)?;
        rest.is_empty().then_some((*piece, offset, u32::try_from(len).ok()?))
    }
}
