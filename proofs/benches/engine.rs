//! What commitments and possession proofs cost, against what SHA-256 alone would cost here.
//!
//! `cargo bench -p holdfast-proofs` (or with `-- --check`, which fails below the targets, or `-- --plot FILE`, which draws
//! time against space as `tree-cache.svg` beside this file shows it).
//! The bound is measured in the same run, alternating with what it bounds, in time of the processor (wall
//! time for several threads), best of several rounds. The bound's work is the tree's: for each 31.75 payload
//! bytes one pair of nodes, two compressions, operands in the first-level cache.

/// The tests' own plotter, by its path: this crate depends on none of ours.
#[path = "../../tests/src/plot.rs"]
mod plot;
#[path = "shared/zeros.rs"]
mod zeros;

use std::hint::black_box;
use std::time::{Duration, Instant};

use holdfast_proofs::commp::{self, Node, hash_pairs, hash_pairs_portable};
use holdfast_proofs::{Challenge, CommpHasher, PieceCid, TreeCache, TreeLevel, prove, verify};
use nix::time::{ClockId, clock_gettime};
use zeros::{ZeroTree, Zeros};

const MIB: usize = 1 << 20;
/// Payload of one round: short enough that some rounds are undisturbed, too long for the caches.
const SLOT: usize = 16 * MIB / 128 * 127;
const ROUNDS: usize = 25;
/// The project's target for a commitment against the bound.
const BOUND_SHARE_MIN: f64 = 0.9;

/// Seconds that this thread (or the process) has run: what other programs take of the machine does not
/// count.
fn cpu(clock: ClockId, work: impl FnOnce()) -> f64 {
    let now = || clock_gettime(clock).map(Duration::from).unwrap_or_default().as_secs_f64();
    let start = now();
    work();
    now() - start
}

fn seconds(work: impl FnOnce()) -> f64 {
    cpu(ClockId::CLOCK_THREAD_CPUTIME_ID, work)
}

// A benchmark is the one place that reads the clock itself.
#[allow(clippy::disallowed_methods)]
fn wall_seconds(work: impl FnOnce()) -> f64 {
    let start = Instant::now();
    work();
    start.elapsed().as_secs_f64()
}

fn noise(len: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut out = Vec::with_capacity(len + 8);
    while out.len() < len {
        // xorshift64: fast, and incompressible enough that no branch predictor learns it.
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        out.extend_from_slice(&state.to_le_bytes());
    }
    out.truncate(len);
    out
}

/// Payload MB/s at which a function that hashes pairs could do a tree, were there nothing else to do.
fn bound(hash: fn(&[Node], &mut [Node])) -> f64 {
    const PAIRS: usize = 128;
    const REPEATS: usize = 4_000;
    let pairs = vec![[7; 32]; PAIRS * 2];
    let mut parents = vec![[0; 32]; PAIRS];
    let time = seconds(|| {
        for _ in 0..REPEATS {
            hash(black_box(&pairs), black_box(&mut parents));
        }
    });
    (PAIRS * REPEATS) as f64 * 31.75 / time / 1e6
}

fn speed(len: usize, seconds: f64) -> f64 {
    len as f64 / seconds / 1e6
}

fn commitments(check: bool) {
    let payload = noise(SLOT);
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let [mut portable, mut best, mut one, mut cached, mut many, mut wall] = [0.0_f64; 6];
    for _ in 0..ROUNDS {
        portable = portable.max(bound(hash_pairs_portable));
        best = best.max(bound(hash_pairs));
        one = one.max(speed(
            SLOT,
            seconds(|| {
                let mut hasher = CommpHasher::new();
                hasher.update(black_box(&payload));
                black_box(hasher.finish());
            }),
        ));
        cached = cached.max(speed(
            SLOT,
            seconds(|| {
                let mut hasher = CommpHasher::with_cache(TreeLevel::DEFAULT);
                hasher.update(black_box(&payload));
                black_box(hasher.finish_with_cache());
            }),
        ));
        let mut spent = 0.0;
        let passed = wall_seconds(|| {
            spent = cpu(ClockId::CLOCK_PROCESS_CPUTIME_ID, || {
                let mut hasher = CommpHasher::new();
                hasher.update_parallel(black_box(&payload), threads);
                black_box(hasher.finish());
            });
        });
        many = many.max(speed(SLOT, spent));
        wall = wall.max(speed(SLOT, passed));
    }
    println!("piece commitments, payload MB a CPU second ({})", commp::backend_name());
    println!("  bound, sha2::compress256, one core      {portable:8.0}");
    println!("  bound, this machine's best, one core    {best:8.0}");
    println!("  hasher, one core                        {one:8.0}   {:.2} of the bound", one / best);
    println!("  hasher with a tree cache, one core      {cached:8.0}   {:.2}", cached / best);
    println!("  hasher, {threads} threads, a core's share       {many:8.0}   {:.2}", many / best);
    println!("  hasher, {threads} threads, by the wall clock    {wall:8.0}   (idle machine only)");
    if check {
        assert!(one / best >= BOUND_SHARE_MIN, "the hasher reaches {:.3} of its bound", one / best);
    }
}

/// What one level of the cache costs, and what a proof costs with it.
struct Trade {
    cache_mib: f64,
    read_mib: f64,
    prove_ms: f64,
}

fn possession(check: bool) -> Vec<Trade> {
    let len = (32_u64 << 30) / 128 * 127;
    let Ok(piece) = PieceCid::new(len, commp::zero_node(30)) else { panic!("no piece") };
    let challenge = Challenge::new([7; 32], holdfast_proofs::pdp::DEFAULT_CHALLENGES);
    let Ok(challenge) = challenge else { panic!("no challenge") };
    let mut trades = Vec::new();
    println!("\npossession of 32 GiB, {} places", challenge.count());
    println!("  level    cache MiB   read KiB   prove ms   verify ms   proof KiB");
    for level in [5, 6, 7, 8, 10, 12, 14, 16].into_iter().filter_map(TreeLevel::new) {
        let (source, tree) = (Zeros::new(len), ZeroTree::new(&piece, level));
        let (mut proving, mut verifying, mut bytes, mut read) = (f64::MAX, f64::MAX, 0, 0);
        for _ in 0..ROUNDS {
            source.forget();
            tree.forget();
            let mut proof = None;
            proving = proving.min(seconds(|| {
                let cache = TreeCache::open(&tree, &piece);
                proof = cache.ok().and_then(|cache| prove(&source, &cache, &challenge).ok());
            }));
            let Some(proof) = proof else { panic!("no proof") };
            verifying = verifying.min(seconds(|| assert!(verify(&piece, &challenge, &proof).is_ok())));
            bytes = proof.encode().map_or(0, |bytes| bytes.len());
            read = source.read() + tree.read();
        }
        println!(
            "  {:5} {:12.1} {:10} {:10.2} {:11.3} {:11.1}",
            level.get(),
            tree.bytes() as f64 / MIB as f64,
            read / 1024,
            proving * 1e3,
            verifying * 1e3,
            bytes as f64 / 1024.0
        );
        trades.push(Trade {
            cache_mib: tree.bytes() as f64 / MIB as f64,
            read_mib: read as f64 / MIB as f64,
            prove_ms: proving * 1e3,
        });
        if check && level == TreeLevel::DEFAULT {
            assert!(proving < 0.020, "a proof takes {proving} s");
            assert!(read < 400 << 10, "a proof reads {read} bytes");
        }
    }
    trades
}

/// Time against space. Both measures stand on one axis, since their numbers are of one size.
fn chart(trades: &[Trade]) -> plot::Chart {
    let marks = |values: &[f64]| values.iter().map(|value| (*value, value.to_string())).collect();
    let line = |name: &str, of: fn(&Trade) -> f64| {
        (name.to_owned(), trades.iter().map(|trade| (trade.cache_mib, of(trade))).collect())
    };
    plot::Chart {
        title: "A proof of possession of 32 GiB (24 places) against the size of its tree cache".to_owned(),
        x: plot::Axis {
            title: "tree cache, MiB (1 is 0.003 % of the piece, 1000 are 3 %)".to_owned(),
            from: 2_000.0,
            to: 0.4,
            marks: marks(&[1000.0, 300.0, 100.0, 30.0, 10.0, 3.0, 1.0]),
            logarithmic: true,
        },
        y: plot::Axis {
            title: "ms of one core, warm; MiB read".to_owned(),
            from: 0.1,
            to: 200.0,
            marks: marks(&[0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0]),
            logarithmic: true,
        },
        lines: vec![line("time, ms", |trade| trade.prove_ms), line("read, MiB", |trade| trade.read_mib)],
    }
}

fn main() {
    let words: Vec<String> = std::env::args().collect();
    let check = words.iter().any(|word| word == "--check");
    let plot = words.iter().position(|word| word == "--plot").and_then(|at| words.get(at + 1));
    commitments(check);
    let trades = possession(check);
    if let Some(path) = plot
        && let Err(error) = std::fs::write(path, chart(&trades).svg())
    {
        panic!("{path}: {error}");
    }
}
