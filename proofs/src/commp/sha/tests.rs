#![allow(clippy::unwrap_used)]

use proptest::prelude::*;
use sha2::{Digest, Sha256};

use super::*;

fn plain(pair: &[Node; 2]) -> Node {
    let mut out: Node = Sha256::digest(pair.as_flattened()).into();
    out[31] &= 0x3f;
    out
}

proptest! {
    /// Odd numbers of pairs exercise what is left of the interleaved lanes.
    #[test]
    fn equals_sha256(pairs in proptest::collection::vec(any::<[[u8; 32]; 2]>(), 0..19)) {
        let expected: Vec<Node> = pairs.iter().map(plain).collect();
        let mut found = vec![[0; 32]; pairs.len()];
        hash_pairs(pairs.as_flattened(), &mut found);
        prop_assert_eq!(&found, &expected);
        portable(pairs.as_flattened(), &mut found);
        prop_assert_eq!(&found, &expected);
    }
}
