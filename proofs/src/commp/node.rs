//! Nodes of the tree and the constants of its empty part.

use std::sync::OnceLock;

/// A leaf or an inner node: 254 bits in 32 bytes.
pub type Node = [u8; 32];

/// Levels that a tree can have, leaves included.
const LEVELS: usize = super::cid::HEIGHT_MAX as usize + 1;

/// The parent of two nodes: truncated SHA-256 of their 64 bytes.
#[must_use]
pub fn hash_pair(left: &Node, right: &Node) -> Node {
    let mut out = [[0_u8; 32]; 1];
    super::sha::hash_pairs(&[*left, *right], &mut out);
    out[0]
}

/// Root of a subtree of zeros, `level` above the leaves. Levels beyond any tree answer as the highest.
#[must_use]
pub fn zero_node(level: u8) -> Node {
    static ZEROS: OnceLock<[Node; LEVELS]> = OnceLock::new();
    let zeros = ZEROS.get_or_init(|| {
        let mut nodes = [[0_u8; 32]; LEVELS];
        for level in 1..LEVELS {
            nodes[level] = hash_pair(&nodes[level - 1], &nodes[level - 1]);
        }
        nodes
    });
    zeros[usize::from(level).min(LEVELS - 1)]
}
