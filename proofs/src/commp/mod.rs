//! Piece commitments: the name of a piece is the root of its tree (CommP, FRC-0069).
//!
//! ```text
//! payload bytes --fr32--> 32-byte leaves, 254 payload bits each, top two bits of byte 31 zero
//! node = SHA-256(left || right) with the top two bits of byte 31 cleared
//! height h = the smallest with 2^h leaves >= the payload's (at least 2); what is missing is zero
//! ```
//!
//! The zeros are virtual: they are never hashed, stored or challenged; a subtree of zeros is a
//! constant of its level (`zero_node`).

mod cache;
mod checkpoint;
mod cid;
mod fr32;
mod hasher;
mod node;
mod parallel;
mod sha;
#[cfg(target_arch = "x86_64")]
mod sha_ni;

pub use cache::{CacheError, TreeCache, TreeLevel};
pub use checkpoint::{Checkpoint, CheckpointError};
pub use cid::{FR32_SHA256_TRUNC254_PADBINTREE, HEIGHT_MAX, HEIGHT_MIN, PieceCid, PieceCidError, RAW};
pub use fr32::{LEAF_PAYLOAD_BITS, leaf_count, leaf_span, leaves_of};
pub use hasher::CommpHasher;
pub use node::{Node, hash_pair, zero_node};
pub use sha::{backend_name, hash_pairs, portable as hash_pairs_portable};
