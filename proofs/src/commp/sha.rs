//! SHA-256 over pairs of nodes: the only cost of a commitment that matters.
//!
//! A pair is 64 bytes, so each parent costs two compressions; the second one's block is constant.
//! The digest's last byte loses its top two bits (254-bit nodes).

use sha2::digest::generic_array::GenericArray;

use super::node::Node;

pub(super) const INITIAL: [u32; 8] =
    [0x6a09_e667, 0xbb67_ae85, 0x3c6e_f372, 0xa54f_f53a, 0x510e_527f, 0x9b05_688c, 0x1f83_d9ab, 0x5be0_cd19];

/// What follows 64 bytes of message: a one bit, zeros, the length of 512 bits.
pub(super) const PADDING: [u8; 64] = {
    let mut block = [0_u8; 64];
    block[0] = 0x80;
    block[62] = 0x02;
    block
};

/// Which implementation `hash_pairs` uses on this machine, for benchmarks and bug reports.
#[must_use]
pub fn backend_name() -> &'static str {
    #[cfg(target_arch = "x86_64")]
    if super::sha_ni::available() {
        return "SHA-NI, two lanes";
    }
    "sha2::compress256"
}

/// Hashes `pairs` two by two into `parents`; what is beyond the shorter of both is left alone.
pub fn hash_pairs(pairs: &[Node], parents: &mut [Node]) {
    debug_assert_eq!(pairs.len(), parents.len() * 2);
    #[cfg(target_arch = "x86_64")]
    if super::sha_ni::available() {
        return super::sha_ni::hash_pairs(pairs, parents);
    }
    portable(pairs, parents);
}

/// One pair after the other with the `sha2` crate: everywhere, and the measure of the other way.
pub fn portable(pairs: &[Node], parents: &mut [Node]) {
    for (pair, parent) in pairs.as_chunks::<2>().0.iter().zip(parents) {
        let mut state = INITIAL;
        let mut block = [0_u8; 64];
        block[..32].copy_from_slice(&pair[0]);
        block[32..].copy_from_slice(&pair[1]);
        sha2::compress256(&mut state, &[GenericArray::from(block), GenericArray::from(PADDING)]);
        for (bytes, word) in parent.as_chunks_mut::<4>().0.iter_mut().zip(state) {
            *bytes = word.to_be_bytes();
        }
        parent[31] &= 0x3f;
    }
}

#[cfg(test)]
mod tests;
