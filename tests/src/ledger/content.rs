//! Bytes that tell what they are: any range of a stream, any record can be made again from its name.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};

/// A record's size: a page, as a database's.
pub const RECORD: usize = 4096;

/// The first `len` bytes of the stream with this seed. Half of it is text, so that compression has something to do.
pub fn stream(seed: u64, len: usize) -> Vec<u8> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut out = Vec::with_capacity(len + 128);
    while out.len() < len {
        let mut noise = [0; 64];
        rng.fill_bytes(&mut noise);
        out.extend_from_slice(&noise);
        out.extend_from_slice(b"-- the same words again and again, as in most files of the world");
    }
    out.truncate(len);
    out
}

/// Version 0 is a record that was never written.
pub fn record(seed: u64, number: usize, version: u64) -> Vec<u8> {
    if version == 0 {
        return vec![0; RECORD];
    }
    let mut out = version.to_le_bytes().to_vec();
    out.extend(stream(seed ^ ((number as u64) << 40) ^ version.rotate_left(20), RECORD - 8));
    out
}

/// The version that a record's first bytes claim.
pub fn claimed_version(bytes: &[u8]) -> u64 {
    bytes.first_chunk().map_or(0, |head| u64::from_le_bytes(*head))
}
