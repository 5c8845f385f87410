//! What commitments and possession proofs cost, against what SHA-256 alone would cost here.
//!
//! `cargo bench -p holdfast-proofs` (or with `-- --check`, which fails below the targets).
//! The bound is measured in the same run, alternating with what it bounds, in time of the processor (wall
//! time for several threads), best of several rounds. The bound's work is the tree's: for each 31.75 payload
//! bytes one pair of nodes, two compressions, operands in the first-level cache.

use std::hint::black_box;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use holdfast_proofs::commp::{self, Node, hash_pairs, hash_pairs_portable};
use holdfast_proofs::{Challenge, CommpHasher, PieceCid, ReadAt, TreeCache, TreeLevel, prove, verify};
use nix::time::{ClockId, clock_gettime};
use sha2::{Digest, Sha256};

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

/// A payload of any length without memory: byte 0 everywhere, counting what is read.
struct Zeros {
    len: u64,
    read: AtomicU64,
}

impl ReadAt for Zeros {
    fn read_exact_at(&self, _: u64, buf: &mut [u8]) -> io::Result<()> {
        self.read.fetch_add(buf.len() as u64, Ordering::Relaxed);
        buf.fill(0);
        Ok(())
    }

    fn size(&self) -> io::Result<u64> {
        Ok(self.len)
    }
}

/// The tree cache of a payload of zeros, made up on the fly: each stored node is its level's constant.
struct ZeroTree {
    file: Vec<(u64, Node)>,
    head: Vec<u8>,
    tail: Vec<u8>,
    len: u64,
    read: AtomicU64,
}

impl ReadAt for ZeroTree {
    fn read_exact_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        self.read.fetch_add(buf.len() as u64, Ordering::Relaxed);
        if offset < 32 {
            buf.copy_from_slice(&self.head[..buf.len()]);
        } else if offset >= self.len - 96 {
            buf.copy_from_slice(&self.tail);
        } else {
            let level = self.file.iter().rev().find(|(start, _)| *start <= offset);
            let node = level.map_or([0; 32], |(_, node)| *node);
            buf.as_chunks_mut::<32>().0.fill(node);
        }
        Ok(())
    }

    fn size(&self) -> io::Result<u64> {
        Ok(self.len)
    }
}

/// 32 GiB of zeros: the tree's shape, reads and hashing are those of any 32 GiB; the bytes are constant.
fn zero_tree(piece: &PieceCid, level: TreeLevel) -> ZeroTree {
    let (_, small) = {
        // The frame of a cache: any hasher of this level makes the first bytes.
        let mut hasher = CommpHasher::with_cache(level);
        hasher.update(&[0]);
        hasher.finish_with_cache()
    };
    let mut file = Vec::new();
    let mut at = 32;
    for stored in (level.get()..=piece.height()).step_by(7) {
        file.push((at, commp::zero_node(stored)));
        at += piece.leaf_count().div_ceil(1 << stored) * 32;
    }
    let mut tail = vec![0; 64];
    tail[..8].copy_from_slice(&piece.payload_len().to_le_bytes());
    tail[8..40].copy_from_slice(piece.root());
    let head = small[..32].to_vec();
    let check = Sha256::new().chain_update(&head).chain_update(&tail).finalize();
    tail.extend_from_slice(&check);
    ZeroTree { file, head, tail, len: level.file_len(piece.payload_len()), read: AtomicU64::new(0) }
}

fn possession(check: bool) {
    let len = (32_u64 << 30) / 128 * 127;
    let Ok(piece) = PieceCid::new(len, commp::zero_node(30)) else { return };
    let Ok(challenge) = Challenge::new([7; 32], holdfast_proofs::pdp::DEFAULT_CHALLENGES) else { return };
    println!("\npossession of 32 GiB, {} places", challenge.count());
    println!("  level    cache MiB   read KiB   prove ms   verify ms   proof KiB");
    for level in [5, 6, 7, 8, 10, 12].into_iter().filter_map(TreeLevel::new) {
        let source = Zeros { len, read: AtomicU64::new(0) };
        let tree = zero_tree(&piece, level);
        let (mut proving, mut verifying, mut bytes, mut read) = (f64::MAX, f64::MAX, 0, 0);
        for _ in 0..ROUNDS {
            source.read.store(0, Ordering::Relaxed);
            tree.read.store(0, Ordering::Relaxed);
            let mut proof = None;
            proving = proving.min(seconds(|| {
                let cache = TreeCache::open(&tree, &piece);
                proof = cache.ok().and_then(|cache| prove(&source, &cache, &challenge).ok());
            }));
            let Some(proof) = proof else { panic!("no proof") };
            verifying = verifying.min(seconds(|| assert!(verify(&piece, &challenge, &proof).is_ok())));
            bytes = proof.encode().map_or(0, |bytes| bytes.len());
            read = source.read.load(Ordering::Relaxed) + tree.read.load(Ordering::Relaxed);
        }
        println!(
            "  {:5} {:12.1} {:10} {:10.2} {:11.3} {:11.1}",
            level.get(),
            tree.len as f64 / MIB as f64,
            read / 1024,
            proving * 1e3,
            verifying * 1e3,
            bytes as f64 / 1024.0
        );
        if check && level == TreeLevel::DEFAULT {
            assert!(proving < 0.020, "a proof takes {proving} s");
            assert!(read < 400 << 10, "a proof reads {read} bytes");
        }
    }
}

fn main() {
    let check = std::env::args().any(|argument| argument == "--check");
    commitments(check);
    possession(check);
}
