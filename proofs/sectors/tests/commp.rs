//! Piece commitments: ours are the library's own, for payloads of any length and however the bytes arrive.

#![allow(clippy::unwrap_used)]

use std::io::{self, Read};

use filecoin_proofs::{UnpaddedBytesAmount, generate_piece_commitment};
use holdfast_proofs::{CommpHasher, PieceCid};
use proptest::prelude::*;

/// The least payload that the library names; larger ones are this times a power of two.
const UNIT: u64 = 127;

/// Height and root by the library, which wants the padding spelled out.
fn by_the_library(payload: &[u8]) -> (u8, [u8; 32]) {
    let len = payload.len() as u64;
    let units = len.div_ceil(UNIT).next_power_of_two();
    let whole = payload.chain(io::repeat(0).take(units * UNIT - len));
    let info = generate_piece_commitment(whole, UnpaddedBytesAmount(units * UNIT)).unwrap();
    // A unit is four leaves.
    (2 + u8::try_from(units.trailing_zeros()).unwrap(), info.commitment)
}

fn ours(payload: &[u8], cut: usize, threads: usize) -> PieceCid {
    let (head, tail) = payload.split_at(cut.min(payload.len()));
    let mut hasher = CommpHasher::new();
    hasher.update(head);
    hasher.update_parallel(tail, threads);
    hasher.finish()
}

fn assert_equal(payload: &[u8], cut: usize, threads: usize) {
    let piece = ours(payload, cut, threads);
    assert_eq!((piece.height(), *piece.root()), by_the_library(payload), "{} bytes", payload.len());
    assert_eq!(piece.payload_len(), payload.len() as u64);
}

#[test]
fn around_every_power_of_two() {
    let bytes: Vec<u8> = (0..(UNIT as usize) << 12).map(|i| (i * 31 % 251) as u8).collect();
    for power in 0..12 {
        let unit = (UNIT as usize) << power;
        for len in [unit - 1, unit, unit + 1] {
            assert_equal(&bytes[..len], len / 3, 2);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_payload(
        payload in prop::collection::vec(any::<u8>(), 1..70_000),
        cut in 0..70_000_usize,
        threads in 1..4_usize,
    ) {
        assert_equal(&payload, cut, threads);
    }
}
