//! SHA-256 of node pairs with the processor's SHA instructions, several pairs at once.
//!
//! `sha256rnds2` answers after four cycles but can begin every second one, so a single chain leaves
//! half the unit idle; two chains side by side fill it. The second block of a pair (padding) is the
//! same for all, so its message schedule is a constant of the program: what remains of it is rounds.
//!
//! Owns the only `unsafe` of this crate: the call into code compiled for these instructions, made after
//! the processor was asked for them.

use core::arch::x86_64::{
    __m128i, _mm_add_epi32, _mm_alignr_epi8, _mm_and_si128, _mm_blend_epi16, _mm_cvtsi128_si64,
    _mm_extract_epi64, _mm_set_epi32, _mm_set_epi64x, _mm_sha256msg1_epu32, _mm_sha256msg2_epu32,
    _mm_sha256rnds2_epu32, _mm_shuffle_epi8, _mm_shuffle_epi32,
};

use super::node::Node;
use super::sha::{INITIAL, PADDING, portable};

/// Chains side by side. Two fill the unit on AMD Zen 3; a third spills registers.
const LANES: usize = 2;

#[rustfmt::skip]
const K: [u32; 64] = [
    0x428a_2f98, 0x7137_4491, 0xb5c0_fbcf, 0xe9b5_dba5, 0x3956_c25b, 0x59f1_11f1, 0x923f_82a4, 0xab1c_5ed5,
    0xd807_aa98, 0x1283_5b01, 0x2431_85be, 0x550c_7dc3, 0x72be_5d74, 0x80de_b1fe, 0x9bdc_06a7, 0xc19b_f174,
    0xe49b_69c1, 0xefbe_4786, 0x0fc1_9dc6, 0x240c_a1cc, 0x2de9_2c6f, 0x4a74_84aa, 0x5cb0_a9dc, 0x76f9_88da,
    0x983e_5152, 0xa831_c66d, 0xb003_27c8, 0xbf59_7fc7, 0xc6e0_0bf3, 0xd5a7_9147, 0x06ca_6351, 0x1429_2967,
    0x27b7_0a85, 0x2e1b_2138, 0x4d2c_6dfc, 0x5338_0d13, 0x650a_7354, 0x766a_0abb, 0x81c2_c92e, 0x9272_2c85,
    0xa2bf_e8a1, 0xa81a_664b, 0xc24b_8b70, 0xc76c_51a3, 0xd192_e819, 0xd699_0624, 0xf40e_3585, 0x106a_a070,
    0x19a4_c116, 0x1e37_6c08, 0x2748_774c, 0x34b0_bcb5, 0x391c_0cb3, 0x4ed8_aa4a, 0x5b9c_ca4f, 0x682e_6ff3,
    0x748f_82ee, 0x78a5_636f, 0x84c8_7814, 0x8cc7_0208, 0x90be_fffa, 0xa450_6ceb, 0xbef9_a3f7, 0xc671_78f2,
];

/// Round constants with the padding block's schedule added.
const K_PADDING: [u32; 64] = {
    let mut w = [0_u32; 64];
    let mut t = 0;
    while t < 16 {
        let at = 4 * t;
        w[t] = u32::from_be_bytes([PADDING[at], PADDING[at + 1], PADDING[at + 2], PADDING[at + 3]]);
        t += 1;
    }
    while t < 64 {
        let (a, b) = (w[t - 15], w[t - 2]);
        let s0 = a.rotate_right(7) ^ a.rotate_right(18) ^ (a >> 3);
        let s1 = b.rotate_right(17) ^ b.rotate_right(19) ^ (b >> 10);
        w[t] = w[t - 16].wrapping_add(s0).wrapping_add(w[t - 7]).wrapping_add(s1);
        t += 1;
    }
    t = 0;
    while t < 64 {
        w[t] = w[t].wrapping_add(K[t]);
        t += 1;
    }
    w
};

/// Whether this processor has all that `hash_pairs` uses; the answer is cached by the library.
pub(super) fn available() -> bool {
    is_x86_feature_detected!("sha") && is_x86_feature_detected!("ssse3") && is_x86_feature_detected!("sse4.1")
}

/// As `super::sha::hash_pairs`, on a processor where `available`; elsewhere the portable way.
pub(super) fn hash_pairs(pairs: &[Node], parents: &mut [Node]) {
    let (lanes, rest) = pairs.as_chunks::<2>().0.as_chunks::<LANES>();
    let (above, above_rest) = parents.as_chunks_mut::<LANES>();
    if !available() {
        return portable(pairs, parents);
    }
    // SAFETY: the processor has the instructions; the function has no other requirement.
    unsafe { hash_all(lanes, above) };
    // What is left of the lanes is one pair at most: filled up with itself.
    if let (Some(pair), Some(parent)) = (rest.first(), above_rest.first_mut()) {
        let mut both = [[0; 32]; LANES];
        // SAFETY: as above.
        unsafe { hash_all(&[[*pair; LANES]], std::slice::from_mut(&mut both)) };
        *parent = both[0];
    }
}

#[target_feature(enable = "sha,sse2,ssse3,sse4.1")]
fn hash_all(lanes: &[[[Node; 2]; LANES]], parents: &mut [[Node; LANES]]) {
    for (pairs, above) in lanes.iter().zip(parents) {
        hash_lanes(pairs, above);
    }
}

/// Four rounds on every lane; `$wk` is what they add.
macro_rules! rounds {
    ($state:ident, $lane:ident, $wk:expr) => {
        for $lane in 0..LANES {
            let wk = $wk;
            let (abef, cdgh) = $state[$lane];
            let cdgh = _mm_sha256rnds2_epu32(cdgh, abef, wk);
            let abef = _mm_sha256rnds2_epu32(abef, cdgh, _mm_shuffle_epi32(wk, 0x0e));
            $state[$lane] = (abef, cdgh);
        }
    };
}

#[target_feature(enable = "sha,sse2,ssse3,sse4.1")]
fn hash_lanes(pairs: &[[Node; 2]; LANES], parents: &mut [Node; LANES]) {
    let [a, b, c, d, e, f, g, h] = INITIAL.map(u32::cast_signed);
    let initial = (_mm_set_epi32(a, b, e, f), _mm_set_epi32(c, d, g, h));
    let mut state = [initial; LANES];
    let mut w = pairs.map(|pair| load(pair.as_flattened()));

    macro_rules! message_step {
        ($($i:literal)*) => {$(
            rounds!(state, lane, _mm_add_epi32(w[lane][$i % 4], words(&K, $i)));
            if $i < 12 {
                for w in &mut w {
                    let [now, next, third, last] = [w[$i % 4], w[($i + 1) % 4], w[($i + 2) % 4], w[($i + 3) % 4]];
                    let early = _mm_add_epi32(_mm_sha256msg1_epu32(now, next), _mm_alignr_epi8(last, third, 4));
                    w[$i % 4] = _mm_sha256msg2_epu32(early, last);
                }
            }
        )*};
    }
    message_step!(0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15);
    let middle = state.map(|state| add(state, initial));

    state = middle;
    macro_rules! padding_step {
        ($($i:literal)*) => {$( rounds!(state, _lane_of, words(&K_PADDING, $i)); )*};
    }
    padding_step!(0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15);
    for lane in 0..LANES {
        parents[lane] = digest(add(state[lane], middle[lane]));
    }
}

#[target_feature(enable = "sse2")]
fn add(a: (__m128i, __m128i), b: (__m128i, __m128i)) -> (__m128i, __m128i) {
    (_mm_add_epi32(a.0, b.0), _mm_add_epi32(a.1, b.1))
}

#[target_feature(enable = "sse2")]
fn words(table: &[u32; 64], four: usize) -> __m128i {
    let at = |word: usize| table[four * 4 + word].cast_signed();
    _mm_set_epi32(at(3), at(2), at(1), at(0))
}

/// Reverses the bytes of each 32-bit word: SHA-256 is big-endian, the processor is not.
#[target_feature(enable = "sse2,ssse3")]
fn swap(words: __m128i) -> __m128i {
    _mm_shuffle_epi8(words, _mm_set_epi64x(0x0c0d_0e0f_0809_0a0b, 0x0405_0607_0001_0203))
}

#[target_feature(enable = "sse2,ssse3")]
fn load(pair: &[u8]) -> [__m128i; 4] {
    let mut out = [_mm_set_epi64x(0, 0); 4];
    for (words, bytes) in out.iter_mut().zip(pair.as_chunks::<16>().0) {
        let both = u128::from_le_bytes(*bytes);
        *words = swap(_mm_set_epi64x((both >> 64) as i64, both as i64));
    }
    out
}

#[target_feature(enable = "sse2,ssse3,sse4.1")]
fn digest((abef, cdgh): (__m128i, __m128i)) -> Node {
    let feba = _mm_shuffle_epi32(abef, 0x1b);
    let dchg = _mm_shuffle_epi32(cdgh, 0xb1);
    let first = swap(_mm_blend_epi16(feba, dchg, 0xf0));
    // The top two bits of the last byte go: a node has 254.
    let truncate = _mm_set_epi64x(0x3fff_ffff_ffff_ffff, -1);
    let second = _mm_and_si128(swap(_mm_alignr_epi8(dchg, feba, 8)), truncate);
    let mut out = [0_u8; 32];
    let words = [
        _mm_cvtsi128_si64(first),
        _mm_extract_epi64(first, 1),
        _mm_cvtsi128_si64(second),
        _mm_extract_epi64(second, 1),
    ];
    for (bytes, word) in out.as_chunks_mut::<8>().0.iter_mut().zip(words) {
        *bytes = word.to_le_bytes();
    }
    out
}
