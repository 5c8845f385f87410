//! A piece of 32 GiB: what a proof of possession reads of it, and of its tree.
#![allow(clippy::unwrap_used)]
#![allow(dead_code)]

#[path = "../benches/shared/zeros.rs"]
mod zeros;

use holdfast_proofs::pdp::DEFAULT_CHALLENGES;
use holdfast_proofs::{Challenge, PieceCid, TreeCache, TreeLevel, commp, prove, verify};
use zeros::{ZeroTree, Zeros};

const PAYLOAD: u64 = (32 << 30) / 128 * 127;
/// "A few hundred KiB".
const READ_BYTES_MAX: u64 = 400 << 10;

/// The time is the benchmark's (`benches/engine.rs`, under 20 ms with `--check`).
#[test]
fn a_proof_of_32_gib_reads_a_few_hundred_kib() {
    let piece = PieceCid::new(PAYLOAD, commp::zero_node(30)).unwrap();
    let mut last = 0;
    for level in [TreeLevel::MIN, TreeLevel::DEFAULT, TreeLevel::new(10).unwrap()] {
        let (source, tree) = (Zeros::new(PAYLOAD), ZeroTree::new(&piece, level));
        for seed in 0..5 {
            let challenge = Challenge::new([seed; 32], DEFAULT_CHALLENGES).unwrap();
            let cache = TreeCache::open(&tree, &piece).unwrap();
            let proof = prove(&source, &cache, &challenge).unwrap();
            verify(&piece, &challenge, &proof).unwrap();
        }
        let read = (source.read() + tree.read()) / 5;
        assert!(read >= last, "a smaller cache reads less: {read} at level {}", level.get());
        if level <= TreeLevel::DEFAULT {
            assert!(read <= READ_BYTES_MAX, "{read} bytes at level {}", level.get());
        }
        assert!(tree.bytes() * 100 <= PAYLOAD * 4, "{} bytes at level {}", tree.bytes(), level.get());
        last = read;
    }
}
