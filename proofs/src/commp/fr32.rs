//! fr32: payload bits to field-sized leaves, 254 bits each, on the fly.
//!
//! ```text
//! quad: 127 payload bytes = 1016 bits -> 4 leaves of 254 bits, each in 32 bytes, little-endian
//! leaf k = bits [254k, 254k + 254) of the quad; bits 254 and 255 are zero
//! ```
//!
//! Owns the arithmetic between payload offsets and leaves; everything else asks here.

use super::node::Node;

/// Payload bits in one leaf.
pub const LEAF_PAYLOAD_BITS: u64 = 254;
/// Payload bytes in four leaves.
pub(crate) const QUAD_BYTES: usize = 127;
/// Leaves in a quad.
pub(crate) const QUAD_LEAVES: usize = 4;

/// Leaves that hold at least one bit of a payload of this length.
#[must_use]
pub fn leaf_count(payload_len: u64) -> u64 {
    // By quads first: eight times the length could overflow.
    let (quads, rest) = (payload_len / 127, payload_len % 127);
    quads * 4 + (rest * 8).div_ceil(LEAF_PAYLOAD_BITS)
}

/// The payload bytes `[start, end)` that leaves `first..first + count` draw from, cut at the payload's
/// end. Always begins at a quad, so `leaves_of` can expand it.
#[must_use]
pub fn leaf_span(payload_len: u64, first: u64, count: u64) -> (u64, u64) {
    let quads_end = first.saturating_add(count).div_ceil(4);
    let start = (first / 4).saturating_mul(127).min(payload_len);
    (start, quads_end.saturating_mul(127).min(payload_len))
}

/// Expands payload bytes that begin at a quad; a last short quad is completed with zeros.
#[must_use]
pub fn leaves_of(payload: &[u8]) -> Vec<Node> {
    let quads = payload.len().div_ceil(QUAD_BYTES);
    let mut out = vec![[0_u8; 32]; quads * QUAD_LEAVES];
    expand(payload, &mut out);
    out
}

/// Expands into `out`, which has room for every quad begun.
pub(crate) fn expand(payload: &[u8], out: &mut [Node]) {
    debug_assert!(out.len() >= payload.len().div_ceil(QUAD_BYTES) * QUAD_LEAVES);
    for (quad, leaves) in payload.chunks(QUAD_BYTES).zip(out.chunks_exact_mut(QUAD_LEAVES)) {
        let mut words = [0_u64; 16];
        match quad.first_chunk::<QUAD_BYTES>() {
            Some(full) => load_full(full, &mut words),
            None => load_short(quad, &mut words),
        }
        expand_quad(&words, leaves);
    }
}

fn load_full(quad: &[u8; QUAD_BYTES], words: &mut [u64; 16]) {
    for (word, bytes) in words.iter_mut().zip(quad.as_chunks::<8>().0) {
        *word = u64::from_le_bytes(*bytes);
    }
    // Seven bytes are left: read with the one before them, not copied to where eight are read from.
    words[15] = u64::from_le_bytes(*quad.last_chunk::<8>().unwrap_or(&[0; 8])) >> 8;
}

fn load_short(quad: &[u8], words: &mut [u64; 16]) {
    let mut full = [0_u8; QUAD_BYTES];
    full[..quad.len()].copy_from_slice(quad);
    load_full(&full, words);
}

/// Shifts: leaf 1 begins 62 bits into word 3, leaf 2 at 60 of word 7, leaf 3 at 58 of word 11.
#[inline(always)]
fn expand_quad(w: &[u64; 16], leaves: &mut [Node]) {
    const TOP: u64 = (1 << 62) - 1;
    let [l0, l1, l2, l3] = leaves else { return };
    store(l0, [w[0], w[1], w[2], w[3] & TOP]);
    store(
        l1,
        [
            join::<62>(w[3], w[4]),
            join::<62>(w[4], w[5]),
            join::<62>(w[5], w[6]),
            join::<62>(w[6], w[7]) & TOP,
        ],
    );
    store(
        l2,
        [
            join::<60>(w[7], w[8]),
            join::<60>(w[8], w[9]),
            join::<60>(w[9], w[10]),
            join::<60>(w[10], w[11]) & TOP,
        ],
    );
    store(
        l3,
        [
            join::<58>(w[11], w[12]),
            join::<58>(w[12], w[13]),
            join::<58>(w[13], w[14]),
            join::<58>(w[14], w[15]) & TOP,
        ],
    );
}

#[inline(always)]
fn join<const BIT: u32>(low: u64, high: u64) -> u64 {
    (low >> BIT) | (high << (64 - BIT))
}

#[inline(always)]
fn store(leaf: &mut Node, words: [u64; 4]) {
    for (bytes, word) in leaf.as_chunks_mut::<8>().0.iter_mut().zip(words) {
        *bytes = word.to_le_bytes();
    }
}

#[cfg(test)]
mod tests;
