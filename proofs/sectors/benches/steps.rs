//! What each step costs: processor seconds, peak memory and bytes, as the table in `../../SOUNDNESS.md`.
//!
//! `cargo bench --manifest-path proofs/sectors/Cargo.toml` measures a 2 KiB sector without commit 2; `-- --groth` makes the parameters
//! for it too and does it, in both modes; `--8m` does the same with 8 MiB instead, in the second mode with `--synthetic` alone, since the
//! library keeps the proofs of all candidates in memory, more than 8 GiB of them. Every step is a worker that a process of its own
//! started, so that processor time and peak memory are what the kernel counted for that worker alone.
//! Figures of test strength: they say nothing about 32 GiB but the order of the phases.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use holdfast_proofs::CommpHasher;
use holdfast_sectors::proof::{PublicSector, WindowStatement, WinningStatement, verify_file};
use holdfast_sectors::sector::{Phase, Sector, SectorSpec};
use holdfast_sectors::work::{ChildEnd, Job, Launcher, Limits};
use holdfast_sectors::{Bytes32, Circuit, Profile, SealMode, Workshop};
use nix::sys::resource::{UsageWho, getrusage};
use nix::time::{ClockId, clock_gettime};

/// A process of one step.
const ALONE: &str = "--alone";
const LIMITS: Limits = Limits { memory_bytes: 16 << 30, cores: 2, nice: 0 };

struct Bench {
    launcher: Launcher,
    dir: tempfile::TempDir,
}

/// Processor seconds of this process's children, and the peak memory of the largest of them in KiB.
fn children() -> Result<(f64, i64)> {
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN)?;
    let seconds = |time: nix::sys::time::TimeVal| time.tv_sec() as f64 + time.tv_usec() as f64 / 1e6;
    Ok((seconds(usage.user_time()) + seconds(usage.system_time()), usage.max_rss()))
}

/// Processor seconds of this process so far.
fn own() -> Result<f64> {
    Ok(clock_gettime(ClockId::CLOCK_PROCESS_CPUTIME_ID).map(Duration::from)?.as_secs_f64())
}

fn launcher(workshop: &Path) -> Result<Launcher> {
    let prover = PathBuf::from(env!("CARGO_BIN_EXE_holdfast-prover"));
    Ok(Launcher::new(prover, vec!["worker".into()], Workshop::create(workshop)?))
}

/// One step, in a process that does nothing else: what it and its worker took.
fn alone(job: &str, workshop: &str) -> Result<()> {
    match launcher(Path::new(workshop))?.start(serde_json::from_str(job)?, LIMITS)?.wait()? {
        ChildEnd::Done(_) => {}
        other => bail!("{other:?}"),
    }
    let (seconds, peak) = children()?;
    println!("{seconds} {peak}");
    Ok(())
}

impl Bench {
    fn step(&self, what: &str, job: &Job, output: &Path) -> Result<()> {
        let mut process = Command::new(std::env::current_exe()?);
        process.arg(ALONE).arg(serde_json::to_string(job)?).arg(self.launcher.workshop().dir());
        let done = process.stderr(Stdio::inherit()).output()?;
        let said = String::from_utf8_lossy(&done.stdout);
        let (seconds, peak) = said.trim().split_once(' ').with_context(|| format!("{what}: {said}"))?;
        let (seconds, peak): (f64, u64) = (seconds.parse()?, peak.parse()?);
        println!("| {what} | {seconds:.2} | {} | {} |", peak >> 10, size(output)?);
        Ok(())
    }
}

/// Payload MB a processor second, by the library and by us, on one thread's worth of bytes.
fn commitments() -> Result<()> {
    let payload = vec![7; 127 << 17];
    let speed = |work: &dyn Fn() -> Result<()>| -> Result<f64> {
        let mut best = 0.0_f64;
        for _ in 0..5 {
            let before = own()?;
            work()?;
            best = best.max(payload.len() as f64 / (own()? - before) / 1e6);
        }
        Ok(best)
    };
    let library = speed(&|| {
        let size = filecoin_proofs::UnpaddedBytesAmount(payload.len() as u64);
        filecoin_proofs::generate_piece_commitment(payload.as_slice(), size).map(drop)
    })?;
    let ours = speed(&|| {
        let mut hasher = CommpHasher::new();
        hasher.update(&payload);
        std::hint::black_box(hasher.finish());
        Ok(())
    })?;
    println!(
        "piece commitment, payload MB a CPU second: library {library:.0}, ours {ours:.0}, {:.1} times\n",
        ours / library
    );
    Ok(())
}

/// Bytes of a file or folder.
fn size(path: &Path) -> Result<u64> {
    if path.is_dir() {
        return std::fs::read_dir(path)?.map(|entry| size(&entry?.path())).sum();
    }
    // What a step does not write costs nothing.
    Ok(std::fs::metadata(path).map_or(0, |meta| meta.len()))
}

fn seal(bench: &Bench, profile: Profile, mode: SealMode, commit_2: bool) -> Result<PathBuf> {
    let path = bench.dir.path().join(format!("{}-{mode}", profile.name()));
    let spec = SectorSpec { profile, mode, prover: Bytes32([1; 32]), number: 1 };
    let payload: Vec<u8> = (0..profile.payload_bytes_max()).map(|i| (i % 251) as u8).collect();
    let mut hasher = CommpHasher::new();
    hasher.update(&payload);
    let piece = hasher.finish();
    {
        let mut sector = Sector::create(&path, spec)?;
        sector.add_piece(piece, payload.as_slice())?;
        sector.set_ticket(Bytes32([2; 32]))?;
    }
    let mut phase = Phase::Filling;
    while let Some(next) = phase.next(mode) {
        if next == Phase::Commit1 {
            Sector::open(&path)?.0.set_seed(Bytes32([3; 32]))?;
        }
        if next == Phase::Commit2 && !commit_2 {
            break;
        }
        let output = match next {
            Phase::Packed | Phase::Filling => "unsealed",
            Phase::PreCommit1 => "pc1",
            Phase::PreCommit2 => "pc2",
            Phase::Synthetic => "synthetic",
            Phase::Commit1 => "commit1.json",
            Phase::Commit2 => "proof",
            Phase::Cleared => "final",
        };
        let what = format!("{} {mode}: {}", profile.name(), next.name());
        let job = Job::Seal { sector: path.clone(), through: next, seed: None };
        bench.step(&what, &job, &path.join(output))?;
        phase = next;
    }
    let unsealed = path.join("unsealed");
    if mode == SealMode::Interactive {
        std::fs::remove_file(&unsealed)?;
        let (out, len) = (bench.dir.path().join("read"), payload.len() as u64 / 2);
        let job = Job::ReadPiece { sector: path.clone(), piece, offset: len / 2, len, out: out.clone() };
        bench.step(&format!("{}: unseal half of it", profile.name()), &job, &out)?;
        let job = Job::RestoreUnsealed { sector: path.clone() };
        bench.step(&format!("{}: unseal all of it", profile.name()), &job, &unsealed)?;
    }
    Ok(path)
}

fn verify(bench: &Bench, file: &Path, what: &str) -> Result<()> {
    let parameters = bench.launcher.workshop().parameters();
    let start = own()?;
    for _ in 0..20 {
        verify_file(file, &parameters)?;
    }
    println!("| {what} | {:.4} | | {} |", (own()? - start) / 20.0, size(file)?);
    Ok(())
}

fn make(bench: &Bench, profile: Profile, circuits: &[Circuit]) -> Result<()> {
    let parameters = bench.launcher.workshop().parameters();
    for circuit in circuits {
        let path = parameters.params_path(profile, *circuit);
        let job = Job::Parameters { profile, circuit: *circuit };
        bench.step(&format!("{} parameters: {circuit}", profile.name()), &job, &path)?;
    }
    Ok(())
}

fn posts(bench: &Bench, profile: Profile, sector: &Path) -> Result<()> {
    make(bench, profile, &[Circuit::WindowPost, Circuit::WinningPost])?;
    let (prover, beacon) = (Bytes32([1; 32]), Bytes32([4; 32]));
    let out = bench.dir.path().join("window");
    let statement = WindowStatement { profile, prover, beacon, epoch: 1, sectors: Vec::new() };
    let sectors = vec![sector.to_owned()];
    bench.step(
        &format!("{} window PoSt", profile.name()),
        &Job::WindowPost { statement, sectors, out: out.clone() },
        &out,
    )?;
    verify(bench, &out, &format!("{} verify window PoSt", profile.name()))?;
    let out = bench.dir.path().join("winning");
    let none = PublicSector { number: 0, comm_r: Bytes32::default() };
    let statement = WinningStatement { profile, prover, beacon, epoch: 1, sector: none };
    let job = Job::WinningPost { statement, sector: sector.to_owned(), out: out.clone() };
    bench.step(&format!("{} winning PoSt", profile.name()), &job, &out)?;
    verify(bench, &out, &format!("{} verify winning PoSt", profile.name()))
}

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().collect();
    if let [_, word, job, workshop] = arguments.as_slice()
        && word == ALONE
    {
        return alone(job, workshop);
    }
    let asked = |word: &str| arguments.iter().any(|argument| argument == word);
    let dir = tempfile::tempdir()?;
    let workshop = Workshop::create(dir.path())?;
    let bench = Bench { launcher: launcher(workshop.dir())?, dir };
    println!("{}\n", machine()?);
    commitments()?;
    println!("| step (test strength) | CPU s | peak MiB | bytes |\n|---|---|---|---|");
    let groth = asked("--groth");
    let profile = if asked("--8m") { Profile::Test8m } else { Profile::Test2k };
    if groth {
        make(&bench, profile, &[Circuit::Porep])?;
    }
    let sector = seal(&bench, profile, SealMode::Interactive, groth)?;
    if groth {
        verify(&bench, &sector.join("proof"), &format!("{} verify seal", profile.name()))?;
    }
    if profile == Profile::Test2k || asked("--synthetic") {
        let synthetic = seal(&bench, profile, SealMode::Synthetic, groth)?;
        if groth {
            verify(&bench, &synthetic.join("proof"), &format!("{} verify synthetic seal", profile.name()))?;
        }
    }
    posts(&bench, profile, &sector)
}

/// What the figures are of.
fn machine() -> Result<String> {
    let (cpu, memory) =
        (std::fs::read_to_string("/proc/cpuinfo")?, std::fs::read_to_string("/proc/meminfo")?);
    let field = |text: &str, name: &str| {
        let line = text.lines().find(|line| line.split(':').next().map(str::trim) == Some(name));
        line.and_then(|line| Some(line.split_once(':')?.1.trim().to_owned())).unwrap_or_default()
    };
    let flag = |name: &'static str| {
        if field(&cpu, "flags").split(' ').any(|flag| flag == name) { name } else { "-" }
    };
    let cores = std::thread::available_parallelism()?;
    Ok(format!(
        "{} (family {}, model {}; {} {}), {cores} cores, memory {}, kernel {}",
        field(&cpu, "model name"),
        field(&cpu, "cpu family"),
        field(&cpu, "model"),
        flag("sha_ni"),
        flag("avx512f"),
        field(&memory, "MemTotal"),
        std::fs::read_to_string("/proc/sys/kernel/osrelease")?.trim()
    ))
}
