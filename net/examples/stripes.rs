//! How fast stripes are coded on this machine, one core: `cargo run --release -p holdfast-net --example stripes`.
//! Printed are megabytes (10^6) of data shards for each second of processor time, in steps of 256 KiB a shard as the daemon
//! takes them: parity alone; m data shards out of the others; and the piece CIDs of all masked slots, which cost the most.

#![allow(clippy::unwrap_used)]

use holdfast_net::{mask, stripe};
use holdfast_proofs::commp::CommpHasher;

const STEP: usize = 256 << 10;
const ROUNDS: u64 = 64;

/// Processor time of this thread: wall time says little on a busy machine.
fn cpu_seconds() -> f64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    text.split(' ').next().unwrap().parse::<f64>().unwrap() / 1e9
}

fn rate(data: u16, mut work: impl FnMut(u64)) -> f64 {
    let start = cpu_seconds();
    (0..ROUNDS).for_each(&mut work);
    let mb = (ROUNDS * u64::from(data)) as f64 * STEP as f64 / 1e6;
    mb / (cpu_seconds() - start)
}

fn main() {
    println!("{:>6} {:>10} {:>10} {:>12}", "k+m", "parity", "rebuild", "piece CIDs");
    for (data, parity) in [(2, 2), (3, 2), (4, 2), (8, 2), (20, 2)] {
        let mut shards: Vec<Vec<u8>> = (0..data)
            .map(|n| (0..STEP).map(|i| (i as u32).wrapping_mul(2_654_435_761 + u32::from(n)) as u8).collect())
            .collect();
        let coded = stripe::encode(&shards, parity).unwrap();
        let encode = rate(data, |_| drop(stripe::encode(&shards, parity).unwrap()));
        shards.extend(coded);
        let lost: Vec<u16> = (0..parity.min(data)).collect();
        let have: Vec<(u16, &[u8])> = (0u16..)
            .zip(&shards)
            .filter(|(slot, _)| !lost.contains(slot))
            .map(|(slot, shard)| (slot, &shard[..]))
            .collect();
        let rebuild = rate(data, |_| drop(stripe::rebuild(data, parity, &have, &lost).unwrap()));
        let mut hashers: Vec<CommpHasher> = shards.iter().map(|_| CommpHasher::new()).collect();
        let seed = mask::slot_seed(&[1; 32], [2; 16], 0);
        let cids = rate(data, |round| {
            for (hasher, shard) in hashers.iter_mut().zip(&shards) {
                let mut masked = shard.clone();
                mask::apply(&seed, round * STEP as u64, &mut masked).unwrap();
                hasher.update(&masked);
            }
        });
        println!("{:>6} {encode:>10.0} {rebuild:>10.0} {cids:>12.0}", format!("{data}+{parity}"));
    }
}
