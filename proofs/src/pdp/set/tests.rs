#![allow(clippy::unwrap_used)]

use proptest::prelude::*;

use super::*;
use crate::commp::{CommpHasher, TreeLevel};

struct Held {
    bytes: Vec<u8>,
    piece: PieceCid,
    cache: Vec<u8>,
}

fn hold(len: usize, salt: u8) -> Held {
    let bytes: Vec<u8> = (0..len).map(|i| (i * 29 + i / 253) as u8 ^ salt).collect();
    let mut hasher = CommpHasher::with_cache(TreeLevel::MIN);
    hasher.update(&bytes);
    let (piece, cache) = hasher.finish_with_cache();
    Held { bytes, piece, cache }
}

fn set_of(held: &[Held]) -> ProvingSet {
    ProvingSet::new(held.iter().map(|held| held.piece).collect()).unwrap()
}

fn proof_of(held: &[Held], challenge: &Challenge) -> Result<PossessionProof, ProveError> {
    prove_set(&set_of(held), challenge, |index, piece| {
        Ok((&held[index].bytes, TreeCache::open(&held[index].cache, piece)?))
    })
}

#[test]
fn draws_fall_by_size() {
    let held = [hold(1_000, 1), hold(90_000, 2), hold(9_000, 3)];
    let set = set_of(&held);
    let total: u64 = held.iter().map(|held| held.piece.leaf_count()).sum();
    assert_eq!(set.leaf_count(), total);
    let mut drawn = [0; 3];
    for seed in 0..20 {
        for (piece, positions) in set.positions(&Challenge::new([seed; 32], 100).unwrap()) {
            drawn[piece] += positions.len();
            assert!(positions.is_sorted_by(|a, b| a < b));
            assert!(positions.iter().all(|position| *position < held[piece].piece.leaf_count()));
        }
    }
    // 1 %, 90 %, 9 % of about 1,970 distinct draws.
    assert!((4..50).contains(&drawn[0]) && drawn[1] > 1_600 && (110..260).contains(&drawn[2]), "{drawn:?}");
}

#[test]
fn a_set_of_one_is_not_that_piece() {
    let held = [hold(50_000, 1)];
    let challenge = Challenge::new([1; 32], 10).unwrap();
    let proof = proof_of(&held, &challenge).unwrap();
    verify_set(&set_of(&held), &challenge, &proof).unwrap();
    // Own domain: a proof for the set answers no challenge of the piece.
    assert!(crate::pdp::verify(&held[0].piece, &challenge, &proof).is_err());
}

#[test]
fn tampering_is_refused() {
    let held = [hold(3_000, 1), hold(7_000, 2), hold(5_000, 3)];
    let set = set_of(&held);
    let challenge = Challenge::new([8; 32], 6).unwrap();
    let proof = proof_of(&held, &challenge).unwrap();
    assert!(set.positions(&challenge).len() > 1);
    let verdict = verify_set(&set, &challenge, &proof).unwrap();
    assert_eq!((verdict.set(), verdict.challenge()), (set.digest(), &challenge));
    every_bit_is_bound(&set, &challenge, &proof);
    let mut reordered: Vec<PieceCid> = set.pieces().to_vec();
    reordered.swap(0, 2);
    assert!(verify_set(&ProvingSet::new(reordered).unwrap(), &challenge, &proof).is_err());
    for change in [
        |proof: &mut PossessionProof| proof.siblings.push([0; 32]),
        |proof: &mut PossessionProof| proof.siblings.truncate(3),
        |proof: &mut PossessionProof| proof.leaves.truncate(3),
        |proof: &mut PossessionProof| proof.leaves.push([0; 32]),
    ] {
        let mut proof = proof.clone();
        change(&mut proof);
        assert!(verify_set(&set, &challenge, &proof).is_err());
    }
}

/// Every bit of every input: proof, seed, count, and the name of each piece, whether a draw falls on it or not.
fn every_bit_is_bound(set: &ProvingSet, challenge: &Challenge, proof: &PossessionProof) {
    let flips = |len: usize| (0..len).flat_map(|at| (0..8).map(move |bit| (at, 1_u8 << bit)));
    let bytes = proof.encode().unwrap();
    for (at, bit) in flips(bytes.len()) {
        let mut bytes = bytes.clone();
        bytes[at] ^= bit;
        let accepted = PossessionProof::decode(&bytes).and_then(|proof| verify_set(set, challenge, &proof));
        assert!(accepted.is_err(), "proof byte {at}");
    }
    for (at, bit) in flips(32) {
        let mut seed = *challenge.seed();
        seed[at] ^= bit;
        let other = Challenge::new(seed, challenge.count()).unwrap();
        assert!(verify_set(set, &other, proof).is_err(), "seed byte {at}");
    }
    for count in (1..=64).filter(|count| *count != challenge.count()) {
        let other = Challenge::new(*challenge.seed(), count).unwrap();
        assert!(verify_set(set, &other, proof).is_err(), "count {count}");
    }
    for (index, piece) in set.pieces().iter().enumerate() {
        let name = piece.to_bytes();
        for (at, bit) in flips(name.len()) {
            let mut name = name.clone();
            name[at] ^= bit;
            let Ok(piece) = PieceCid::from_bytes(&name) else { continue };
            let mut pieces = set.pieces().to_vec();
            pieces[index] = piece;
            let Ok(other) = ProvingSet::new(pieces) else { continue };
            assert!(verify_set(&other, challenge, proof).is_err(), "piece {index}, byte {at}");
        }
    }
}

#[test]
fn refused_sets() {
    assert_eq!(ProvingSet::new(vec![]), Err(ProofError::EmptyPiece));
    assert_eq!(ProvingSet::new(vec![hold(0, 0).piece]), Err(ProofError::EmptyPiece));
    let huge = PieceCid::new(127 << 55, [0; 32]).unwrap();
    assert_eq!(ProvingSet::new(vec![huge; 200]), Err(ProofError::SetTooLarge));
    assert_eq!(ProvingSet::new(vec![huge; SET_PIECES_MAX + 1]), Err(ProofError::SetTooLarge));
}

#[test]
fn the_wrong_cache_is_named() {
    let held = [hold(3_000, 1), hold(3_000, 2)];
    let challenge = Challenge::new([8; 32], 12).unwrap();
    let error: ProveError = prove_set(&set_of(&held), &challenge, |_, _| {
        Ok((&held[0].bytes, TreeCache::open(&held[0].cache, &held[0].piece)?))
    })
    .unwrap_err();
    assert!(matches!(error, ProveError::Cache(crate::commp::CacheError::OtherPiece)));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_set(lens in proptest::collection::vec(1_usize..20_000, 1..8), seed: [u8; 32], count in 1_u16..80) {
        let held: Vec<Held> = lens.iter().enumerate().map(|(i, len)| hold(*len, i as u8)).collect();
        let challenge = Challenge::new(seed, count).unwrap();
        let proof = proof_of(&held, &challenge).unwrap();
        prop_assert!(verify_set(&set_of(&held), &challenge, &proof).is_ok());
    }
}
