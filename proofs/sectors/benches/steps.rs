//! What each step costs: processor seconds, peak memory and bytes, as the table in `../../SOUNDNESS.md`.
//!
//! `cargo bench -p holdfast-sectors` measures a 2 KiB sector without commit 2; `-- --8m` an 8 MiB sector too;
//! `-- --parameters FOLDER` does commit 2 with the local PoRep parameters that lie there. Every step is a worker of
//! its own, so that its processor time and its peak memory are those that the kernel counted for that process.
//! Figures of test strength: they say nothing about 32 GiB but the order of the phases.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use holdfast_proofs::CommpHasher;
use holdfast_sectors::proof::{PublicSector, WindowStatement, WinningStatement, verify_file};
use holdfast_sectors::sector::{Phase, Sector, SectorSpec};
use holdfast_sectors::work::{ChildEnd, Job, Launcher, Limits};
use holdfast_sectors::{Bytes32, Circuit, Profile, SealMode, Workshop};
use nix::sys::resource::{UsageWho, getrusage};
use nix::time::{ClockId, clock_gettime};

const LIMITS: Limits = Limits { memory_bytes: 16 << 30, cores: 2, nice: 0 };

struct Bench {
    launcher: Launcher,
    dir: tempfile::TempDir,
}

/// Processor seconds of all children so far, and the peak memory of the largest of them in KiB.
fn children() -> Result<(f64, i64)> {
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN)?;
    let seconds = |time: nix::sys::time::TimeVal| time.tv_sec() as f64 + time.tv_usec() as f64 / 1e6;
    Ok((seconds(usage.user_time()) + seconds(usage.system_time()), usage.max_rss()))
}

impl Bench {
    fn step(&self, what: &str, job: Job, output: &Path) -> Result<()> {
        let (before, _) = children()?;
        match self.launcher.start(job, LIMITS)?.wait()? {
            ChildEnd::Done(_) => {}
            other => bail!("{what}: {other:?}"),
        }
        let (after, peak) = children()?;
        // The peak is of the largest child so far: steps stand in the order of their hunger within a profile.
        println!("| {what} | {:.2} | {} | {} |", after - before, peak >> 10, size(output)?);
        Ok(())
    }
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
    {
        let mut sector = Sector::create(&path, spec)?;
        sector.add_piece(hasher.finish(), payload.as_slice())?;
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
        bench.step(
            &what,
            Job::Seal { sector: path.clone(), through: next, seed: None },
            &path.join(output),
        )?;
        phase = next;
    }
    Ok(path)
}

fn verify(bench: &Bench, file: &Path, what: &str) -> Result<()> {
    let now = || clock_gettime(ClockId::CLOCK_PROCESS_CPUTIME_ID).map(Duration::from);
    let own = bench.launcher.workshop().parameters();
    let start = now()?;
    for _ in 0..20 {
        verify_file(file, &own)?;
    }
    println!("| {what} | {:.4} | | {} |", (now()? - start).as_secs_f64() / 20.0, size(file)?);
    Ok(())
}

fn posts(bench: &Bench, profile: Profile, sector: &Path) -> Result<()> {
    let parameters = bench.launcher.workshop().parameters();
    for circuit in [Circuit::WindowPost, Circuit::WinningPost] {
        let path = parameters.params_path(profile, circuit);
        bench.step(
            &format!("{} parameters: {circuit}", profile.name()),
            Job::Parameters { profile, circuit },
            &path,
        )?;
    }
    let (prover, beacon) = (Bytes32([1; 32]), Bytes32([4; 32]));
    let out = bench.dir.path().join("window");
    let statement = WindowStatement { profile, prover, beacon, epoch: 1, sectors: Vec::new() };
    let sectors = vec![sector.to_owned()];
    bench.step(
        &format!("{} window PoSt", profile.name()),
        Job::WindowPost { statement, sectors, out: out.clone() },
        &out,
    )?;
    verify(bench, &out, "verify window PoSt")?;
    let out = bench.dir.path().join("winning");
    let none = PublicSector { number: 0, comm_r: Bytes32::default() };
    let statement = WinningStatement { profile, prover, beacon, epoch: 1, sector: none };
    let job = Job::WinningPost { statement, sector: sector.to_owned(), out: out.clone() };
    bench.step(&format!("{} winning PoSt", profile.name()), job, &out)?;
    verify(bench, &out, "verify winning PoSt")
}

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().collect();
    let folder =
        arguments.iter().position(|word| word == "--parameters").and_then(|at| arguments.get(at + 1));
    let dir = tempfile::tempdir()?;
    let workshop = Workshop::create(dir.path())?;
    for entry in folder.map(std::fs::read_dir).transpose()?.into_iter().flatten() {
        let path = entry?.path();
        let to = workshop.parameters().dir().join(path.file_name().context("a file has a name")?);
        std::fs::hard_link(&path, &to).or_else(|_| std::fs::copy(&path, &to).map(drop))?;
    }
    let prover = PathBuf::from(env!("CARGO_BIN_EXE_holdfast-prover"));
    let bench = Bench { launcher: Launcher::new(prover, vec!["worker".into()], workshop), dir };
    println!("| step (test strength) | CPU s | peak MiB, so far | bytes |\n|---|---|---|---|");
    let sector = seal(&bench, Profile::Test2k, SealMode::Interactive, false)?;
    seal(&bench, Profile::Test2k, SealMode::Synthetic, false)?;
    posts(&bench, Profile::Test2k, &sector)?;
    if arguments.iter().any(|word| word == "--8m") {
        seal(&bench, Profile::Test8m, SealMode::Interactive, false)?;
    }
    if folder.is_some() {
        std::fs::remove_dir_all(sector)?;
        let sector = seal(&bench, Profile::Test2k, SealMode::Interactive, true)?;
        verify(&bench, &sector.join("proof"), "verify seal")?;
    }
    Ok(())
}
