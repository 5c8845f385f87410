#![allow(clippy::unwrap_used)]

use proptest::prelude::*;

use super::*;

/// Bit by bit, as the definition says.
fn slow(payload: &[u8]) -> Vec<Node> {
    let mut leaves = vec![[0_u8; 32]; payload.len().div_ceil(127) * 4];
    for bit in 0..payload.len() * 8 {
        if payload[bit / 8] >> (bit % 8) & 1 == 1 {
            let (leaf, at) = (bit / 254, bit % 254);
            leaves[leaf][at / 8] |= 1 << (at % 8);
        }
    }
    leaves
}

#[test]
fn counts() {
    // Sizes around the ends of the four leaves of a quad: 254 bits are 31.75 bytes.
    for (len, leaves) in
        [(0, 0), (1, 1), (31, 1), (32, 2), (63, 2), (64, 3), (95, 3), (96, 4), (127, 4), (128, 5), (254, 8)]
    {
        assert_eq!(leaf_count(len), leaves, "{len}");
    }
    assert_eq!(leaf_count(u64::MAX), u64::MAX / 127 * 4 + 1);
}

#[test]
fn spans() {
    assert_eq!(leaf_span(1000, 0, 4), (0, 127));
    assert_eq!(leaf_span(1000, 5, 1), (127, 254));
    assert_eq!(leaf_span(1000, 4, 32), (127, 1000));
    assert_eq!(leaf_span(1000, 1 << 57, 32), (1000, 1000));
    assert_eq!(leaf_span(100, 0, u64::MAX), (0, 100));
}

proptest! {
    #[test]
    fn as_defined(payload in proptest::collection::vec(any::<u8>(), 0..900)) {
        let leaves = leaves_of(&payload);
        prop_assert_eq!(&leaves, &slow(&payload));
        prop_assert!(leaves.iter().all(|leaf| leaf[31] & 0xc0 == 0));
        let full = leaf_count(payload.len() as u64) as usize;
        prop_assert!(leaves[full..].iter().all(|leaf| *leaf == [0; 32]));
    }
}
