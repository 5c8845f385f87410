#![allow(clippy::unwrap_used)]

use proptest::prelude::*;

use super::*;
use crate::commp::CommpHasher;

const INPUTS: SeedInputs<'static> =
    SeedInputs { nonce: [9; 32], auditor: b"auditor", prover: b"prover", deal: b"deal", epoch: 7 };

fn piece(len: u64) -> PieceCid {
    let mut root = [3; 32];
    root[31] = 1;
    PieceCid::new(len, root).unwrap()
}

#[test]
fn every_input_of_the_seed_counts() {
    let base = Challenge::seed_from(&INPUTS);
    let others = [
        SeedInputs { nonce: [8; 32], ..INPUTS },
        SeedInputs { auditor: b"auditoR", ..INPUTS },
        SeedInputs { prover: b"proveR", ..INPUTS },
        SeedInputs { deal: b"deaL", ..INPUTS },
        SeedInputs { epoch: 8, ..INPUTS },
        // The same bytes, split elsewhere.
        SeedInputs { auditor: b"auditorp", prover: b"rover", ..INPUTS },
        SeedInputs { prover: b"proverd", deal: b"eal", ..INPUTS },
    ];
    for other in &others {
        assert_ne!(Challenge::seed_from(other), base, "{other:?}");
    }
}

#[test]
fn limits() {
    assert_eq!(Challenge::new([0; 32], 0), Err(ProofError::Count(0)));
    assert_eq!(Challenge::new([0; 32], CHALLENGES_MAX + 1), Err(ProofError::Count(CHALLENGES_MAX + 1)));
    let all = Challenge::new([0; 32], CHALLENGES_MAX).unwrap();
    assert_eq!(all.positions(&piece(0)), Err(ProofError::EmptyPiece));
    assert_eq!(all.positions(&piece(1)).unwrap(), [0]);
    // 128 leaves, all of them.
    assert_eq!(all.positions(&piece(127 * 32)).unwrap(), (0..128).collect::<Vec<_>>());
}

#[test]
fn wire() {
    let challenge = Challenge::new([5; 32], 24).unwrap();
    let bytes = serde_ipld_dagcbor::to_vec(&challenge).unwrap();
    assert_eq!(bytes, [&[0x82, 0x58, 32], [5; 32].as_slice(), &[0x18, 24]].concat());
    assert_eq!(serde_ipld_dagcbor::from_slice::<Challenge>(&bytes).unwrap(), challenge);
    for count in [0, 513, 65_535] {
        let bytes = serde_ipld_dagcbor::to_vec(&(serde_bytes::ByteArray::new([5; 32]), count)).unwrap();
        assert!(serde_ipld_dagcbor::from_slice::<Challenge>(&bytes).is_err(), "{count}");
    }
}

/// Two pieces, one seed: different places.
#[test]
fn a_piece_draws_its_own_places() {
    let challenge = Challenge::new([1; 32], 24).unwrap();
    let first = challenge.positions(&piece(1 << 30)).unwrap();
    let longer = challenge.positions(&piece((1 << 30) + 1)).unwrap();
    assert_ne!(first, longer);
}

/// 2000 draws over 8 equal parts: 250 each, deviation 15; six deviations.
#[test]
fn places_are_spread() {
    let piece = piece(1_000_000_000);
    let mut parts = [0_u32; 8];
    for seed in 0..80_u8 {
        let challenge = Challenge::new([seed; 32], 25).unwrap();
        for position in challenge.positions(&piece).unwrap() {
            parts[(position * 8 / piece.leaf_count()) as usize] += 1;
        }
    }
    assert!(parts.iter().all(|count| (160..340).contains(count)), "{parts:?}");
}

proptest! {
    #[test]
    fn ascending_distinct_and_inside(seed: [u8; 32], count in 1..=CHALLENGES_MAX, len in 1_u64..=127 << 55) {
        let piece = piece(len);
        let positions = Challenge::new(seed, count).unwrap().positions(&piece).unwrap();
        prop_assert!(!positions.is_empty() && positions.len() <= usize::from(count));
        prop_assert!(positions.is_sorted_by(|a, b| a < b));
        prop_assert!(positions.iter().all(|position| *position < piece.leaf_count()));
    }

    #[test]
    fn modulo_is_long_division(number: [u8; 32], divisor in 1_u64..) {
        let slow = number.iter().fold(0_u128, |rest, byte| (rest * 256 + u128::from(*byte)) % u128::from(divisor));
        prop_assert_eq!(u128::from(modulo(&number, divisor)), slow);
    }

    #[test]
    fn any_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..60)) {
        let _ = serde_ipld_dagcbor::from_slice::<Challenge>(&bytes);
    }
}

#[test]
fn a_hashed_piece_is_challenged_only_where_it_has_data() {
    let mut hasher = CommpHasher::new();
    hasher.update(&[0xff; 33_000]);
    let piece = hasher.finish();
    assert_eq!((piece.leaf_count(), 1_u64 << piece.height()), (1040, 2048));
    let positions = Challenge::new([1; 32], 512).unwrap().positions(&piece).unwrap();
    assert!(positions.iter().all(|position| *position < 1040));
}
