//! The prover: a few small reads of the payload and of its tree cache.
//!
//! It goes from the root downward: each group of cached nodes must hash to a node that is already
//! known, the payload's leaves to the lowest of them. So a damaged cache and damaged payload are told
//! apart, and no proof leaves that would be refused.

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use thiserror::Error;

use super::challenge::Challenge;
use super::plan::given;
use super::proof::{PossessionProof, ProofError};
use crate::commp::{
    CacheError, CommpHasher, Node, PieceCid, TreeCache, TreeLevel, hash_pairs, leaf_span, leaves_of,
    zero_node,
};
use crate::read_at::ReadAt;

/// Bytes that `rebuild_cache` reads at once.
const REBUILD_READ_BYTES: u64 = 1 << 20;

/// Why no proof can be made.
#[derive(Debug, Error)]
pub enum ProveError {
    #[error(transparent)]
    Challenge(#[from] ProofError),
    /// The remedy is `rebuild_cache`, where `CacheError::needs_rebuild`.
    #[error(transparent)]
    Cache(#[from] CacheError),
    #[error("the payload cannot be read: {0}")]
    Source(#[from] io::Error),
    #[error("the payload has {found} bytes, the piece {expected}")]
    SourceLength { expected: u64, found: u64 },
    /// The piece is lost here, in these bytes at least.
    #[error("the payload's bytes {start} to {end} are not the piece's")]
    Damaged { start: u64, end: u64 },
}

/// Answers a challenge about the cache's piece from the payload that `source` reads.
///
/// # Errors
/// Tells damaged payload (`Damaged`) from a damaged cache (`Cache`) and from a medium that fails.
pub fn prove<S, C>(
    source: &S,
    cache: &TreeCache<C>,
    challenge: &Challenge,
) -> Result<PossessionProof, ProveError>
where
    S: ReadAt + ?Sized,
    C: ReadAt,
{
    prove_at(source, cache, &challenge.positions(cache.piece())?)
}

/// Proves these leaves of the cache's piece: ascending, each once.
pub(super) fn prove_at<S, C>(
    source: &S,
    cache: &TreeCache<C>,
    positions: &[u64],
) -> Result<PossessionProof, ProveError>
where
    S: ReadAt + ?Sized,
    C: ReadAt,
{
    let piece = cache.piece();
    check_length(source, piece)?;
    let wanted = given(positions, piece.leaf_count(), piece.height());
    let mut found = Found::new(positions, &wanted);

    // Nodes that are known to be right, by index, at the level `at`.
    let mut trusted = BTreeMap::from([(0_u64, *piece.root())]);
    let mut at = piece.height();
    for level in cache.levels_down() {
        let mut below = BTreeMap::new();
        for parent in parents(positions, at) {
            let nodes = cache.group(level, parent, at - level)?;
            let first = parent << (at - level);
            if !found.climb(&nodes, level, at, first, trusted.get(&parent)) {
                return Err(CacheError::Damaged { level, first }.into());
            }
            below.extend((first..).zip(nodes));
        }
        (trusted, at) = (below, level);
    }
    for parent in parents(positions, at) {
        let (nodes, start, end) = read_leaves(source, piece, parent, at)?;
        if !found.climb(&nodes, 0, at, parent << at, trusted.get(&parent)) {
            return Err(ProveError::Damaged { start, end });
        }
    }
    Ok(found.proof(positions, &wanted))
}

/// Makes the cache file of a piece again from its payload, and checks the payload on the way.
///
/// # Errors
/// `Damaged` (the whole payload) where it is not the piece's.
pub fn rebuild_cache<S: ReadAt + ?Sized>(
    source: &S,
    piece: &PieceCid,
    level: TreeLevel,
) -> Result<Vec<u8>, ProveError> {
    let mut cache = Vec::new();
    rebuild_cache_into(source, piece, level, |bytes| cache.extend(bytes))?;
    Ok(cache)
}

/// The same in parts, each to be appended, so that a large cache is never in memory as a whole.
///
/// # Errors
/// As above; what was given before is then of no use.
pub fn rebuild_cache_into<S: ReadAt + ?Sized>(
    source: &S,
    piece: &PieceCid,
    level: TreeLevel,
    mut put: impl FnMut(Vec<u8>),
) -> Result<(), ProveError> {
    check_length(source, piece)?;
    let mut hasher = CommpHasher::with_cache(level);
    let mut buffer = vec![0_u8; REBUILD_READ_BYTES.min(piece.payload_len()) as usize];
    let mut offset = 0;
    while offset < piece.payload_len() {
        let part = (piece.payload_len() - offset).min(REBUILD_READ_BYTES);
        let bytes = &mut buffer[..part as usize];
        source.read_exact_at(offset, bytes)?;
        hasher.update(bytes);
        put(hasher.drain_cache());
        offset += part;
    }
    match hasher.finish_with_cache() {
        (found, rest) if found == *piece => {
            put(rest);
            Ok(())
        }
        _ => Err(ProveError::Damaged { start: 0, end: piece.payload_len() }),
    }
}

fn check_length<S: ReadAt + ?Sized>(source: &S, piece: &PieceCid) -> Result<(), ProveError> {
    let (expected, found) = (piece.payload_len(), source.size()?);
    if found == expected { Ok(()) } else { Err(ProveError::SourceLength { expected, found }) }
}

/// The nodes of `level` above these leaves, each once.
fn parents(positions: &[u64], level: u8) -> BTreeSet<u64> {
    positions.iter().map(|position| position >> level).collect()
}

fn read_leaves<S: ReadAt + ?Sized>(
    source: &S,
    piece: &PieceCid,
    parent: u64,
    level: u8,
) -> Result<(Vec<Node>, u64, u64), ProveError> {
    let (start, end) = leaf_span(piece.payload_len(), parent << level, 1 << level);
    let mut bytes = vec![0_u8; group_len(end - start)?];
    source.read_exact_at(start, &mut bytes)?;
    Ok((leaves_of(&bytes), start, end))
}

fn group_len(bytes: u64) -> Result<usize, io::Error> {
    usize::try_from(bytes).map_err(|_| io::ErrorKind::OutOfMemory.into())
}

/// Nodes of the tree that the proof will carry, gathered while groups pass by.
struct Found {
    nodes: BTreeMap<(u8, u64), Option<Node>>,
}

impl Found {
    fn new(positions: &[u64], wanted: &[(u8, u64)]) -> Self {
        let leaves = positions.iter().map(|position| (0, *position));
        Self { nodes: leaves.chain(wanted.iter().copied()).map(|at| (at, None)).collect() }
    }

    /// Hashes a group of nodes of `level` that begins at `first` up to its parent at `top`, and keeps
    /// what the proof wants of it. Says whether the group leads to the node that is known there.
    fn climb(&mut self, nodes: &[Node], level: u8, top: u8, first: u64, known: Option<&Node>) -> bool {
        let mut nodes = nodes.to_vec();
        let mut first = first;
        self.keep(&nodes, level, first);
        for level in level..top {
            if !nodes.len().is_multiple_of(2) {
                nodes.push(zero_node(level));
            }
            let mut above = vec![[0_u8; 32]; nodes.len() / 2];
            hash_pairs(&nodes, &mut above);
            (nodes, first) = (above, first / 2);
            self.keep(&nodes, level + 1, first);
        }
        known.is_some() && nodes.first() == known
    }

    fn keep(&mut self, nodes: &[Node], level: u8, first: u64) {
        let end = first + nodes.len() as u64;
        for ((_, index), slot) in self.nodes.range_mut((level, first)..(level, end)) {
            *slot = usize::try_from(index - first).ok().and_then(|i| nodes.get(i)).copied();
        }
    }

    fn proof(&self, positions: &[u64], wanted: &[(u8, u64)]) -> PossessionProof {
        // Every wanted node lies in a group that was climbed; a gap would be refused by `verify`.
        let node = |at: &(u8, u64)| self.nodes.get(at).copied().flatten().unwrap_or_default();
        PossessionProof {
            leaves: positions.iter().map(|position| node(&(0, *position))).collect(),
            siblings: wanted.iter().map(node).collect(),
        }
    }
}

#[cfg(test)]
mod tests;
