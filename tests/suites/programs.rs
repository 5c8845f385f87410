//! Suites by others: pjdfstest (POSIX, call by call), fsx (random reads and writes against a model), stress-ng (everything
//! at once).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use holdfast_tests::harness::{Context, Finished, run, run_ok};

use super::ground::Ground;
use super::{Outcome, Tally};

/// Names by which they are asked for.
pub const NAMES: &[&str] = &["pjdfstest", "fsx", "stress-ng"];

/// Versions whose results are known.
const PJDFSTEST: &str = "0.2.2";
const FSX: &str = "0.3.2";
/// Compiling one of them, on a slow machine.
const INSTALL_LIMIT: Duration = Duration::from_secs(900);
const PJDFSTEST_LIMIT: Duration = Duration::from_secs(600);
/// Two users whom every Debian has.
const USERS: &str = r#"entries = [["nobody", "nogroup"], ["daemon", "daemon"]]"#;
/// Operations of one run of fsx.
const FSX_OPERATIONS: u32 = 20_000;
const FSX_OPERATIONS_FULL: u32 = 1_000_000;
const FSX_LIMIT: Duration = Duration::from_secs(3_600);
/// How long each stressor runs.
const STRESS_SECONDS: u32 = 1;
const STRESS_SECONDS_FULL: u32 = 10;
/// Those of stress-ng's file system class that do something to the directory they run in. What is left out works on
/// /proc, on pipes, on loop devices, or on parts of the kernel that no file system has a say in.
const STRESSORS: &[&str] = &[
    "access",
    "chdir",
    "chmod",
    "chown",
    "copy-file",
    "dentry",
    "dir",
    "dirdeep",
    "dirmany",
    "dnotify",
    "dup",
    "fallocate",
    "fcntl",
    "fiemap",
    "file-ioctl",
    "filename",
    "flock",
    "fpunch",
    "fsize",
    "fstat",
    "getdent",
    "handle",
    "hdd",
    "inotify",
    "io",
    "iomix",
    "lease",
    "link",
    "locka",
    "lockf",
    "lockofd",
    "mknod",
    "mmap",
    "open",
    "readahead",
    "rename",
    "seek",
    "sendfile",
    "splice",
    "symlink",
    "sync-file",
    "touch",
    "utime",
    "xattr",
];

pub fn run_one(name: &str, install: bool, tally: &mut Tally, ctx: &Context, ground: &Ground) {
    let start = Instant::now();
    let result = match name {
        "pjdfstest" => pjdfstest(install, tally, ctx, ground),
        "fsx" => fsx(install, tally, ctx, ground),
        _ => stress(tally, ctx, ground),
    };
    let name = format!("{}: {name}", ground.label);
    match result {
        Ok(Some(why)) => tally.add(&name, Outcome::Skipped(why), start.elapsed()),
        Ok(None) => {}
        Err(error) => tally.add(&name, Outcome::Failed(format!("{error:#}")), start.elapsed()),
    }
}

/// A program from crates.io, installed into the build folder once.
fn program(name: &str, version: &str, install: bool) -> Result<Result<PathBuf, String>> {
    let exe = std::env::current_exe()?;
    // target/release/deps/suites-…: the programs go to target/suites-programs, where `cargo clean` takes them.
    let target = exe.ancestors().nth(3).context("no target folder")?;
    let root = target.join("suites-programs");
    let path = root.join("bin").join(name);
    let stamp = root.join(format!("{name}-{version}"));
    if path.exists() && stamp.exists() {
        return Ok(Ok(path));
    }
    if !install {
        return Ok(Err(format!("{name} is not installed")));
    }
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.args(["install", "--locked", "--force", "--version", version, "--root"]).arg(&root).arg(name);
    cargo.env("CARGO_TARGET_DIR", root.join("build"));
    match run_ok(&mut cargo, INSTALL_LIMIT) {
        Ok(_) => {
            std::fs::write(stamp, b"")?;
            Ok(Ok(path))
        }
        Err(error) => Ok(Err(format!("{name} cannot be installed: {error:#}"))),
    }
}

fn pjdfstest(install: bool, tally: &mut Tally, ctx: &Context, ground: &Ground) -> Result<Option<String>> {
    if !nix::unistd::geteuid().is_root() {
        return Ok(Some("pjdfstest switches users: needs root".to_owned()));
    }
    let program = match program("pjdfstest", PJDFSTEST, install)? {
        Ok(program) => program,
        Err(why) => return Ok(Some(why)),
    };
    let ours = pjdfstest_in(&program, ctx, &ground.folder("pjdfstest")?)?;
    let native = match &ground.native {
        Some(dir) => {
            let dir = dir.join("pjdfstest");
            std::fs::create_dir_all(&dir)?;
            pjdfstest_in(&program, ctx, &dir)?
        }
        None => BTreeMap::new(),
    };
    for (test, outcome) in ours {
        let name = format!("{}: pjdfstest {test}", ground.label);
        let fails_natively = native.get(&test).is_some_and(|word| word == "FAILED");
        match outcome.as_str() {
            "ok" => tally.passed += 1,
            "skipped" => tally.skipped += 1,
            _ if fails_natively => {
                tally.add(&name, Outcome::Skipped("fails on ext4 here, too".to_owned()), Duration::ZERO);
            }
            word => tally.add(&name, Outcome::Failed(word.to_owned()), Duration::ZERO),
        }
    }
    Ok(None)
}

/// Runs all of pjdfstest; what became of each test.
fn pjdfstest_in(program: &Path, ctx: &Context, dir: &Path) -> Result<BTreeMap<String, String>> {
    let config = ctx.dir.join("pjdfstest.toml");
    let secondary = ctx.folder("pjdfstest-secondary")?;
    // The pause must be longer than a tick of the kernel's coarse clock (10 ms at most).
    let text = format!(
        "[features]\nposix_fallocate = {{}}\nrename_ctime = {{}}\nutime_now = {{}}\nutimensat = {{}}\n\
         [settings]\nnaptime = 0.02\nallow_remount = false\n[dummy_auth]\n{USERS}\n"
    );
    std::fs::write(&config, text)?;
    let mut command = Command::new(program);
    command.arg("-c").arg(&config).arg("-s").arg(&secondary).arg("-p").arg(dir);
    let done = run(&mut command, PJDFSTEST_LIMIT)?;
    let outcomes: BTreeMap<String, String> = done
        .stdout
        .lines()
        .filter_map(|line| line.split_once(char::is_whitespace))
        .filter(|(test, _)| test.contains("::"))
        .map(|(test, word)| (test.to_owned(), word.trim().to_owned()))
        .collect();
    if outcomes.is_empty() {
        bail!("pjdfstest ran no test: {}{}", done.stdout, done.stderr);
    }
    let failed = outcomes.values().filter(|word| !["ok", "skipped"].contains(&word.as_str())).count();
    ctx.note(format!("pjdfstest in {}: {} tests, {failed} failed", dir.display(), outcomes.len()));
    if failed > 0 {
        std::fs::write(ctx.dir.join("pjdfstest.out"), done.stdout)?;
    }
    Ok(outcomes)
}

/// The ways in which fsx drives a file. Weights are relative; what is not named has weight 0 or 1 as fsx has it.
const FSX_WAYS: &[(&str, &str)] = &[
    ("plain", ""),
    ("aligned", "flen = 1048576\n[opsize]\nalign = 4096\nmax = 262144\n[weights]\npunch_hole = 1.0\n"),
    (
        "everything",
        "flen = 1048576\n[opsize]\nmax = 131072\n[weights]\nclose_open = 0.3\ninvalidate = 0.3\nfsync = 0.3\n\
         fdatasync = 0.3\nposix_fallocate = 0.5\npunch_hole = 1.0\nsendfile = 0.5\nposix_fadvise = 0.3\n\
         copy_file_range = 1.0\n",
    ),
];

fn fsx(install: bool, tally: &mut Tally, ctx: &Context, ground: &Ground) -> Result<Option<String>> {
    let program = match program("fsx", FSX, install)? {
        Ok(program) => program,
        Err(why) => return Ok(Some(why)),
    };
    let operations = if ctx.full { FSX_OPERATIONS_FULL } else { FSX_OPERATIONS };
    let dir = ground.folder("fsx")?;
    // The last way alone where there is little time: its steps contain those of the others.
    let ways = if ground.whole { FSX_WAYS } else { FSX_WAYS.get(2..).unwrap_or_default() };
    for (way, text) in ways {
        let name = format!("{}: fsx {way}, {operations} operations", ground.label);
        tally.run(&name, || {
            let config = ctx.dir.join(format!("fsx-{way}.toml"));
            std::fs::write(&config, text)?;
            // A seed of its own for each run of a long test, the same one each time for a short one.
            let seed = if ctx.full { std::process::id() } else { 7 };
            let mut command = Command::new(&program);
            command.args(["-N", &operations.to_string(), "-S", &seed.to_string(), "-q"]);
            command.arg("-P").arg(&ctx.dir).arg("-f").arg(&config).arg(dir.join(way));
            passed(run(&mut command, FSX_LIMIT)?, &format!("seed {seed}"))
        });
    }
    std::fs::remove_dir_all(dir)?;
    Ok(None)
}

fn stress(tally: &mut Tally, ctx: &Context, ground: &Ground) -> Result<Option<String>> {
    if Command::new("stress-ng").arg("--version").output().is_err() {
        return Ok(Some("stress-ng is not installed".to_owned()));
    }
    let seconds = if ctx.full { STRESS_SECONDS_FULL } else { STRESS_SECONDS };
    let dir = ground.folder("stress-ng")?;
    for stressor in STRESSORS {
        let name = format!("{}: stress-ng {stressor}", ground.label);
        tally.run(&name, || {
            let mut command = Command::new("stress-ng");
            command.arg("--temp-path").arg(&dir).args([
                &format!("--{stressor}"),
                "2",
                "--timeout",
                &format!("{seconds}s"),
                "--verify",
                // Bounded by bytes, not by the size of the disk.
                "--hdd-bytes",
                "64m",
                "--fallocate-bytes",
                "64m",
                "--iomix-bytes",
                "64m",
            ]);
            let done = run(&mut command, Duration::from_secs(120 + 20 * u64::from(seconds)))?;
            // 3: there was nothing to stress here; 4: the system does not have it.
            match done.status.code() {
                Some(3 | 4) => Ok(Outcome::Skipped("stress-ng says that it cannot run here".to_owned())),
                _ => passed(done, ""),
            }
        });
    }
    std::fs::remove_dir_all(dir)?;
    Ok(None)
}

fn passed(done: Finished, context: &str) -> Result<Outcome> {
    if done.status.success() {
        return Ok(Outcome::Passed);
    }
    let told = format!("{}{}", done.stdout, done.stderr);
    let last: Vec<&str> = told.lines().rev().take(12).collect();
    let last: Vec<&str> = last.into_iter().rev().collect();
    Ok(Outcome::Failed(format!("{} {context}\n{}", done.status, last.join("\n"))))
}
