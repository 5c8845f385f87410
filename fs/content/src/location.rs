//! The location tree: where each block lies.
//!
//! ```text
//! Physical tree, key = sha2-256 digest of the block (32), value = piece 16 | offset varint | len varint
//! ```
//!
//! It alone changes when compaction moves blocks. The codec of a CID is not part of the key: bytes are bytes.

use crate::block::{BlockAt, BlockError, PieceId, digest_of};
use crate::tree::{Edit, Entry, NodeSource, Physical, PhysicalRef, Tree, TreeError, variant_place};
use cid::Cid;

/// The location tree: keys from [`crate::keys::TreeDomain::Location`].
pub type LocationTree = Tree<Physical>;

/// Where a block's bytes lie.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Location {
    /// The piece.
    pub piece: PieceId,
    /// First byte in the unmasked piece.
    pub offset: u64,
    /// Length.
    pub len: u32,
}

impl Location {
    /// Together with the CID: what a retriever is asked for.
    pub fn at(&self, cid: Cid) -> BlockAt {
        BlockAt { cid, piece: self.piece, offset: self.offset, len: self.len }
    }

    /// The row's value.
    pub fn encode(&self) -> Vec<u8> {
        variant_place::encode(self.piece, self.offset, self.len)
    }

    /// Reads a row's value.
    pub fn decode(bytes: &[u8]) -> Result<Self, TreeError> {
        variant_place::decode(bytes)
            .map(|(piece, offset, len)| Self { piece, offset, len })
            .ok_or_else(|| TreeError::Malformed("a block's location".to_owned()))
    }
}

impl From<BlockAt> for Location {
    fn from(at: BlockAt) -> Self {
        Self { piece: at.piece, offset: at.offset, len: at.len }
    }
}

/// The edit that records a block's place. Edits of [`Tree::apply`] come sorted by digest.
pub fn put(at: &BlockAt) -> Result<Edit, BlockError> {
    Ok(Edit::put(digest_of(&at.cid)?.to_vec(), Location::from(*at).encode(), Vec::new()))
}

/// The edit that forgets a block.
pub fn delete(digest: &[u8; 32]) -> Edit {
    Edit::delete(digest.to_vec())
}

/// Reads a row: digest and place.
pub fn read(entry: &Entry) -> Result<([u8; 32], Location), TreeError> {
    let digest =
        entry.key.as_ref().try_into().map_err(|_| TreeError::Malformed("a location's key".to_owned()))?;
    Ok((digest, Location::decode(&entry.value)?))
}

/// Finds a block.
pub fn find(
    tree: &LocationTree,
    source: &dyn NodeSource<Physical>,
    root: &PhysicalRef,
    cid: &Cid,
) -> Result<Option<BlockAt>, TreeError> {
    let Some(entry) = tree.get(source, root, &digest_of(cid)?)? else { return Ok(None) };
    Ok(Some(Location::decode(&entry.value)?.at(*cid)))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::block::Block;
    use crate::keys::{Mnemonic, TreeDomain};
    use crate::tree::MemorySource;

    #[test]
    fn finds_what_was_recorded() {
        let keys = Mnemonic::from_entropy([1; 32]).root_key().generation(1).keys();
        let tree = LocationTree::new(keys.tree(TreeDomain::Location), 2 << 20);
        let mut store = MemorySource::new();
        let places: Vec<BlockAt> = (0..5000u32)
            .map(|n| {
                let block = Block::raw(n.to_le_bytes().to_vec()).unwrap();
                BlockAt { cid: *block.cid(), piece: [7; 16], offset: u64::from(n) << 20, len: n }
            })
            .collect();
        let mut edits: Vec<Edit> = places.iter().map(|at| put(at).unwrap()).collect();
        edits.sort_by(|a, b| a.key.cmp(&b.key));
        let source = MemorySource::new();
        let root = tree.apply(&source, None, edits, &mut store).unwrap().root;
        for at in &places {
            assert_eq!(find(&tree, &store, &root, &at.cid).unwrap(), Some(*at));
        }
        let absent = Block::raw(&b"absent"[..]).unwrap();
        assert_eq!(find(&tree, &store, &root, absent.cid()).unwrap(), None);
        let first = tree.range(&store, &root, &[], None, 1).unwrap();
        let (digest, location) = read(&first[0]).unwrap();
        assert!(
            places.iter().any(|at| digest_of(&at.cid).unwrap() == digest && Location::from(*at) == location)
        );
        assert!(Location::decode(&[0; 17]).is_err());
    }
}
