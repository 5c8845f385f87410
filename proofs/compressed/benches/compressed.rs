//! What the compressed possession proof costs: trees, bindings, parameters, proofs, verification.
//!
//! `cargo bench -p holdfast-compressed` measures trees, bindings and a small shape;
//! `cargo bench -p holdfast-compressed -- --full FOLDER` the product's shape as well, with its parameters kept in
//! FOLDER (made there first, where there are none). Time is the processor's; each step that is asked for its peak of
//! memory runs in a process of its own.

use std::hint::black_box;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use holdfast_compressed::{
    Audit, CompressError, CompressedProof, LocalParameters, Shape, SlotCommitment, SlotEntry, SlotSet,
    SlotTree, SlotTreeBuilder, StoredLevel, Verifier, check_binding, circuit_size, open_binding, prove,
};
use holdfast_proofs::{Challenge, CommpHasher, PieceCid, TreeCache, TreeLevel};
use nix::time::{ClockId, clock_gettime};
use rand_chacha::ChaCha20Rng;
use rand_core::{RngCore, SeedableRng};

const MB: f64 = 1e6;

/// Seconds that this process has run on all its threads.
fn cpu_seconds(work: impl FnOnce()) -> f64 {
    let clock = ClockId::CLOCK_PROCESS_CPUTIME_ID;
    let now = || clock_gettime(clock).map(Duration::from).unwrap_or_default().as_secs_f64();
    let start = now();
    work();
    now() - start
}

/// The most memory that this process has held, in MiB.
fn peak_mib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok()).unwrap_or_default() / 1024
}

struct Slot {
    payload: Vec<u8>,
    piece: PieceCid,
    cache: Vec<u8>,
    commitment: SlotCommitment,
    tree: Vec<u8>,
}

fn slot(len: usize, seed: u8, threads: usize) -> Slot {
    let mut payload = vec![0; len];
    ChaCha20Rng::from_seed([seed; 32]).fill_bytes(&mut payload);
    let mut hasher = CommpHasher::with_cache(TreeLevel::DEFAULT);
    hasher.update(&payload);
    let mut cache = hasher.drain_cache();
    let (piece, rest) = hasher.finish_with_cache();
    cache.extend(rest);
    let mut builder = SlotTreeBuilder::new(StoredLevel::DEFAULT);
    builder.update(&payload, threads);
    let mut tree = builder.drain();
    let Ok((commitment, rest)) = builder.finish(&piece) else { panic!("a slot of {len} bytes has a tree") };
    tree.extend(rest);
    Slot { payload, piece, cache, commitment, tree }
}

fn trees() {
    println!("| tree, 8 MB | MB a CPU second |\n|---|---|");
    for threads in [1, 2] {
        let best = (0..3)
            .map(|_| cpu_seconds(|| drop(black_box(slot(8_000_000, 1, threads)))))
            .fold(f64::INFINITY, f64::min);
        println!("| {threads} thread(s) | {:.2} |", 8.0 / best);
    }
}

fn bindings() {
    let slot = slot(16_000_000, 2, 2);
    println!("\n| binding of 16 MB, openings | bytes | open, CPU ms | check, CPU ms |\n|---|---|---|---|");
    for count in [24, 128, 512] {
        let Ok(challenge) = Challenge::new([7; 32], count) else { continue };
        let (Ok(cache), Ok(tree)) = (
            TreeCache::open(slot.cache.as_slice(), &slot.piece),
            SlotTree::open(slot.tree.as_slice(), &slot.commitment),
        ) else {
            panic!("trees of a moment ago open")
        };
        let mut proof = None;
        let open = cpu_seconds(|| proof = open_binding(&slot.payload, &cache, &tree, &challenge).ok());
        let Some(proof) = proof else { panic!("an honest slot can be opened") };
        let check = cpu_seconds(|| assert!(check_binding(&slot.commitment, &challenge, &proof).is_ok()));
        let len = proof.encode().map_or(0, |bytes| bytes.len());
        println!("| {count} | {len} | {:.1} | {:.1} |", open * 1e3, check * 1e3);
    }
}

fn generate(shape: Shape, folder: &Path) -> PathBuf {
    let mut out = None;
    let mut shown = 0;
    let time = cpu_seconds(|| {
        // A benchmark's parameters are worth nothing, and these say so: everybody can make them again.
        let made = LocalParameters::generate(shape, &mut ChaCha20Rng::from_seed([1; 32]), 2, |progress| {
            let percent = progress.done * 100 / progress.total;
            if percent >= shown + 10 {
                shown = percent;
                eprintln!("{percent} %");
            }
            ControlFlow::Continue(())
        });
        out = made.and_then(|made| made.store(folder)).ok();
    });
    let Some(path) = out else { panic!("parameters can be made and stored") };
    let len = std::fs::metadata(&path).map_or(0, |meta| meta.len());
    println!("| make parameters | {time:.1} CPU s, peak {} MiB, {:.1} MB |", peak_mib(), len as f64 / MB);
    path
}

fn prove_once(shape: Shape, folder: &Path) {
    let Ok(Some(path)) = LocalParameters::find(folder, shape) else { panic!("no parameters in {folder:?}") };
    let mut parameters = None;
    let load = cpu_seconds(|| parameters = LocalParameters::load(&path, shape).ok());
    let Some(parameters) = parameters else { panic!("parameters of a moment ago can be read") };
    println!("| load and check parameters | {load:.2} CPU s, peak {} MiB |", peak_mib());
    let slots: Vec<Slot> = (1..=8).map(|seed| slot(usize::from(seed) * 200_000, seed, 2)).collect();
    let entries = slots.iter().map(|slot| SlotEntry::from(&slot.commitment)).collect();
    let Ok(set) = SlotSet::new(shape, entries) else { panic!("eight slots are a set") };
    let audit = Audit::new(shape, &set.root(), &[9; 32]);
    let open = |index: usize, _: &SlotEntry| {
        let slot = &slots[index];
        let tree = SlotTree::open(slot.tree.as_slice(), &slot.commitment);
        Ok::<_, CompressError>((
            slot.payload.as_slice(),
            tree.map_err(|error| CompressError::Tree { slot: index, error })?,
        ))
    };
    let mut proof: Option<CompressedProof> = None;
    let time = cpu_seconds(|| {
        proof = prove(&parameters, &set, &audit, open, &mut ChaCha20Rng::from_seed([2; 32])).ok();
    });
    let Some(proof) = proof else { panic!("an honest provider can prove") };
    println!("| prove | {time:.1} CPU s, peak {} MiB, {} bytes |", peak_mib(), proof.encode().len());
    let key = parameters.verifying_key();
    let prepare = cpu_seconds(|| drop(black_box(Verifier::new(&key))));
    let verifier = Verifier::new(&key);
    const ROUNDS: u32 = 50;
    let verify = cpu_seconds(|| {
        for _ in 0..ROUNDS {
            assert!(verifier.verify(&audit, black_box(&proof)).is_ok());
        }
    });
    let decode = cpu_seconds(|| assert!(CompressedProof::decode(&proof.encode()).is_ok()));
    println!(
        "| prepare key, decode, verify | {:.1}, {:.2}, {:.2} CPU ms |",
        prepare * 1e3,
        decode * 1e3,
        verify * 1e3 / f64::from(ROUNDS)
    );
}

fn shape(name: &str) -> Shape {
    let small = Shape::new(2, 1).unwrap_or(Shape::V1);
    if name == "product" { Shape::V1 } else { small }
}

/// Each step of a shape in a process of its own.
fn steps(name: &str, folder: &Path) {
    let shape = shape(name);
    let Ok(size) = circuit_size(shape) else { panic!("the circuit can be laid out") };
    println!(
        "\n| {name}: {} slots, {} draws | parameters made locally: no money may rest on them |\n|---|---|",
        shape.slots_max(),
        shape.draws()
    );
    println!("| circuit | {} constraints, domain {} |", size.constraints, size.domain());
    let Ok(own) = std::env::current_exe() else { panic!("this program has a path") };
    let made = matches!(LocalParameters::find(folder, shape), Ok(Some(_)));
    for step in ["--generate", "--prove"].into_iter().skip(usize::from(made)) {
        let status = Command::new(&own).args([step, name]).arg(folder).status();
        assert!(status.is_ok_and(|status| status.success()), "{step}");
    }
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments.as_slice() {
        ["--generate", name, folder] => drop(generate(shape(name), Path::new(folder))),
        ["--prove", name, folder] => prove_once(shape(name), Path::new(folder)),
        rest => {
            trees();
            bindings();
            let Ok(folder) = tempfile::tempdir() else { panic!("no folder for parameters") };
            steps("small", folder.path());
            if let ["--full", folder] = rest {
                steps("product", Path::new(folder));
            }
        }
    }
}
