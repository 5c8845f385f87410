#![allow(clippy::unwrap_used)]

use super::*;
use crate::commp::{CommpHasher, PieceCid, TreeCache, TreeLevel};
use crate::pdp::{Challenge, prove};

fn payload(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i * 7 + i / 251) as u8).collect()
}

fn proven(payload: &[u8], count: u16) -> (PieceCid, Verdict, PossessionProof) {
    let challenge = Challenge::new([9; 32], count).unwrap();
    let mut hasher = CommpHasher::with_cache(TreeLevel::MIN);
    hasher.update(payload);
    let (piece, cache) = hasher.finish_with_cache();
    let proof = prove(payload, &TreeCache::open(cache, &piece).unwrap(), &challenge).unwrap();
    let verdict = verify(&piece, &challenge, &proof).unwrap();
    (piece, verdict, proof)
}

/// Leaves of these positions that a read of `[from, to)` has to be compared with, leaf by leaf.
fn covered(positions: &[u64], len: u64, from: u64, to: u64) -> usize {
    let whole = |p: &&u64| {
        let (start, end) = (**p / 4 * 127, (**p / 4 * 127 + 127).min(len));
        start >= from && end <= to
    };
    positions.iter().filter(whole).count()
}

#[test]
fn right_bytes_are_equal_wherever_they_were_read() {
    for len in [1, 31, 126, 127, 128, 4_000, 100_003] {
        let payload = payload(len);
        let (piece, verdict, proof) = proven(&payload, 64);
        let positions = verdict.challenge().positions(&piece).unwrap();
        for (from, to) in [(0, len), (len / 3, len), (len / 2, len / 2 + 700), (5, 9), (len, len)] {
            let to = to.min(len);
            let from = from.min(to);
            let found = beside(&verdict, &proof, from as u64, &payload[from..to]).unwrap();
            let leaves = covered(&positions, len as u64, from as u64, to as u64);
            assert_eq!(found, Beside { leaves, other: 0 }, "{len}: {from}..{to}");
        }
        assert_eq!(beside(&verdict, &proof, 0, &payload).unwrap().leaves, positions.len());
    }
}

#[test]
fn every_bit_of_a_compared_leaf_counts() {
    let len = 20_000;
    let payload = payload(len);
    let (piece, verdict, proof) = proven(&payload, 5);
    let positions = verdict.challenge().positions(&piece).unwrap();
    for position in &positions {
        let (from, to) = leaf_span(len as u64, *position, 1);
        for bit in 0..(to - from) * 8 {
            let mut read = payload[from as usize..to as usize].to_vec();
            read[(bit / 8) as usize] ^= 1 << (bit % 8);
            let found = beside(&verdict, &proof, from, &read).unwrap();
            let in_quad: Vec<&u64> = positions.iter().filter(|p| *p / 4 == position / 4).collect();
            let hit = in_quad.iter().filter(|p| bit / 254 == ***p % 4).count();
            assert_eq!(found, Beside { leaves: in_quad.len(), other: hit }, "leaf {position}, bit {bit}");
        }
    }
}

#[test]
fn too_few_bytes_compare_nothing_and_shifted_ones_are_others() {
    let payload = payload(50_000);
    let (piece, verdict, proof) = proven(&payload, 64);
    let (from, to) = leaf_span(50_000, verdict.challenge().positions(&piece).unwrap()[0], 1);
    let short = &payload[from as usize..to as usize - 1];
    assert_eq!(beside(&verdict, &proof, from, short).unwrap().leaves, 0);
    let shifted = beside(&verdict, &proof, 0, &payload[1..]).unwrap();
    assert!(shifted.leaves > 60 && shifted.other == shifted.leaves, "{shifted:?}");
    let beyond = beside(&verdict, &proof, u64::MAX - 3, &payload).unwrap();
    assert_eq!(beyond, Beside { leaves: 0, other: 0 });
}

#[test]
fn a_proof_of_something_else_compares_nothing() {
    let (_, verdict, _) = proven(&payload(50_000), 64);
    let (_, _, other) = proven(&payload(50_001), 64);
    assert!(beside(&verdict, &other, 0, &payload(50_000)).is_err());
}
