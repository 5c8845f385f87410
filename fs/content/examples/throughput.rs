//! How fast the content crate is on this machine, one core: `cargo run --release -p holdfast-content --example throughput`.
//! Printed are megabytes (10^6) of plain bytes, or operations, for each second of processor time.

#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

use holdfast_content::block::{Block, BlockAt, BlockSink, SinkError};
use holdfast_content::car::PieceWriter;
use holdfast_content::chunk;
use holdfast_content::keys::{Mnemonic, TreeDomain};
use holdfast_content::rng::{Rng as _, SeededRng};
use holdfast_content::tree::{Edit, MemorySource, Namespace, Physical, Tree};
use holdfast_content::unixfs::FileBuilder;

/// Processor time of this thread: wall time says little on a busy machine.
fn cpu_seconds() -> f64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    text.split(' ').next().unwrap().parse::<f64>().unwrap() / 1e9
}

fn timed<T>(work: impl FnOnce() -> T) -> (T, f64) {
    let start = cpu_seconds();
    let result = work();
    (result, cpu_seconds() - start)
}

struct Forget;
impl BlockSink for Forget {
    fn put(&mut self, block: Block) -> Result<BlockAt, SinkError> {
        Ok(BlockAt { cid: *block.cid(), piece: [0; 16], offset: 0, len: block.len() })
    }
}

fn chunks() {
    let keys = Mnemonic::from_entropy([1; 32]).root_key().generation(1).keys();
    let mut noise = vec![0; 256 << 10];
    SeededRng::new(1).fill(&mut noise).unwrap();
    let words: Vec<String> =
        (0..40_000u32).map(|n| format!("word{} ", n.wrapping_mul(2_654_435_761) % 997)).collect();
    let text = words.concat().into_bytes()[..256 << 10].to_vec();
    for (name, plain) in [("incompressible", noise), ("text", text)] {
        let rounds = 400;
        let mb = (rounds * plain.len()) as f64 / 1e6;
        let (sealed, seal) = timed(|| {
            let mut last = None;
            for _ in 0..rounds {
                last = Some(chunk::seal(&keys.convergence, &plain).unwrap());
            }
            last.unwrap()
        });
        let (_, open) = timed(|| {
            for _ in 0..rounds {
                chunk::open(sealed.block.clone(), &sealed.key, sealed.codec, sealed.plain_len).unwrap();
            }
        });
        let (_, verify) = timed(|| {
            for _ in 0..rounds {
                Block::verify(*sealed.block.cid(), sealed.block.bytes().clone()).unwrap();
            }
        });
        let (_, tag) =
            timed(|| (0..rounds).for_each(|_| drop(chunk::dedup_tag(&keys.dedup, &plain).to_vec())));
        let stored = f64::from(sealed.block.len()) / plain.len() as f64;
        println!(
            "chunk {name:<15} {:?} stored {:.2}  seal {:.0} MB/s  open {:.0}  verify {:.0}  dedup tag {:.0}",
            sealed.codec,
            stored,
            mb / seal,
            mb / open,
            mb * stored / verify,
            mb / tag
        );
    }
}

fn trees() {
    let keys = Mnemonic::from_entropy([1; 32]).root_key().generation(1).keys();
    let rows = 1_000_000u64;
    let value = |n: u64| {
        let mut value = vec![0; 80];
        value[..8].copy_from_slice(&n.to_be_bytes());
        value
    };
    let edits =
        (0..rows).map(|n| Edit::put([&[2], &(n * 3).to_be_bytes()[..]].concat(), value(n), Vec::new()));
    let tree = Tree::<Namespace>::new(keys.tree(TreeDomain::Namespace), 256);
    let mut store = MemorySource::new();
    let (done, build) = timed(|| tree.apply(&MemorySource::new(), None, edits, &mut store).unwrap());
    println!(
        "namespace tree of {rows} rows: {} nodes, {:.1} MB, built at {:.0} rows/s",
        done.nodes_written,
        done.bytes_written as f64 / 1e6,
        rows as f64 / build
    );
    let root = done.root;
    let key = |n: u64| [&[2], &(n * 3).to_be_bytes()[..]].concat();
    for (name, cache) in [("cold", 1), ("warm", 100_000)] {
        let tree = Tree::<Namespace>::new(keys.tree(TreeDomain::Namespace), cache);
        let get = |n: u64| tree.get(&store, &root, &key(n * 7919 % rows)).unwrap().unwrap();
        (0..20_000).for_each(|n| drop(get(n)));
        let (_, seconds) = timed(|| (0..20_000).for_each(|n| drop(get(n))));
        println!("  get, {name} cache: {:.0} /s", 20_000.0 / seconds);
    }
    let tree = Tree::<Namespace>::new(keys.tree(TreeDomain::Namespace), 4096);
    let (count, seconds) = timed(|| tree.iter(&store, &root, &[], None).unwrap().map(Result::unwrap).count());
    println!("  iterate: {:.0} rows/s", count as f64 / seconds);
    for changes in [1, 100, 10_000u64] {
        let edits: Vec<Edit> =
            (0..changes).map(|n| Edit::put(key(n * (rows / changes) + 5), vec![9; 90], Vec::new())).collect();
        let (done, seconds) = timed(|| tree.apply(&store, Some(&root), edits, &mut Forget).unwrap());
        println!(
            "  apply {changes} scattered changes: {} nodes, {:.2} MB, {:.2} ms",
            done.nodes_written,
            done.bytes_written as f64 / 1e6,
            seconds * 1e3
        );
    }
    let mut digests: Vec<[u8; 32]> = (0..rows).map(|n| blake3::hash(&n.to_be_bytes()).into()).collect();
    digests.sort_unstable();
    let location = Tree::<Physical>::new(keys.tree(TreeDomain::Location), 4096);
    let edits = digests.iter().map(|digest| Edit::put(digest.to_vec(), vec![7; 23], Vec::new()));
    let mut store = MemorySource::new();
    let (done, build) = timed(|| location.apply(&MemorySource::new(), None, edits, &mut store).unwrap());
    println!(
        "location tree of {rows} blocks: {} nodes, {:.1} MB, built at {:.0} rows/s",
        done.nodes_written,
        done.bytes_written as f64 / 1e6,
        rows as f64 / build
    );
}

fn files() {
    let leaf = Block::raw(vec![1; 1000]).unwrap();
    let leaves = 1_000_000;
    let (_, seconds) = timed(|| {
        let mut builder = FileBuilder::new(Forget);
        (0..leaves).for_each(|_| builder.push(*leaf.cid(), leaf.len()).unwrap());
        builder.finish().unwrap()
    });
    println!("file DAG: {:.0} leaves/s", f64::from(leaves) / seconds);
    let block = Block::raw(vec![1; 256 << 10]).unwrap();
    let mut copy = Vec::with_capacity(1100 << 20);
    let (_, seconds) = timed(|| {
        let mut piece = PieceWriter::new(&mut copy, [0; 16]).unwrap();
        for _ in 0..4000 {
            piece.write(&block).unwrap();
        }
    });
    println!("piece: {:.0} MB/s into memory", 4000.0 * f64::from(block.len()) / 1e6 / seconds);
}

fn main() {
    chunks();
    trees();
    files();
}
