//! Suites that others wrote for file systems in general, and our own checks of what fs/SEMANTICS.md promises, on a mounted
//! directory.
//!
//! Without `--dir` a file system is mounted over a store that lies on a disk image of limited size, once with the kernel's
//! writeback cache and once without; with it, everything runs below the directory given (a mounted drive, or another
//! file system to compare with). What fails in the same way on the ext4 beside it is no failure of ours.
//!
//! ```text
//! suites [--full] [--no-install] [--list] [--dir DIR] [NAME...]     those whose names contain one of NAME
//! suites --exec NAME DIR                                            one check, in this process
//! ```

mod checks;
mod ground;
mod programs;

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use ground::Ground;
use holdfast_tests::harness::{Context, clean_up, run};

/// One check ends within this time.
const CHECK_LIMIT: Duration = Duration::from_secs(300);

/// What is asked for.
struct Arguments {
    full: bool,
    install: bool,
    list: bool,
    dir: Option<PathBuf>,
    names: Vec<String>,
}

/// What came of one test.
enum Outcome {
    Passed,
    Skipped(String),
    Failed(String),
}

/// Counts, and tells as it goes.
#[derive(Default)]
struct Tally {
    passed: usize,
    failed: usize,
    skipped: usize,
}

impl Tally {
    fn add(&mut self, name: &str, outcome: Outcome, took: Duration) {
        let took = took.as_secs_f64();
        match outcome {
            Outcome::Passed => {
                self.passed += 1;
                println!("test {name} ... ok ({took:.1} s)");
            }
            Outcome::Skipped(why) => {
                self.skipped += 1;
                println!("test {name} ... skipped: {why}");
            }
            Outcome::Failed(why) => {
                self.failed += 1;
                println!("test {name} ... FAILED ({took:.1} s): {why}");
            }
        }
    }

    /// Runs `f`, whose error is a failure.
    fn run(&mut self, name: &str, f: impl FnOnce() -> Result<Outcome>) {
        let start = Instant::now();
        let outcome = f().unwrap_or_else(|error| Outcome::Failed(format!("{error:#}")));
        self.add(name, outcome, start.elapsed());
    }
}

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    if let [flag, name, dir] = words.as_slice()
        && flag == "--exec"
    {
        return exec(name, Path::new(dir));
    }
    let arguments = match parse(words) {
        Ok(arguments) => arguments,
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::from(2);
        }
    };
    if arguments.list {
        checks::ALL.iter().for_each(|check| println!("{}", check.name));
        programs::NAMES.iter().for_each(|name| println!("{name}"));
        return ExitCode::SUCCESS;
    }
    let mut tally = Tally::default();
    if let Err(error) = run_all(&arguments, &mut tally) {
        tally.add("suites", Outcome::Failed(format!("{error:#}")), Duration::ZERO);
    }
    println!("{} passed, {} failed, {} skipped", tally.passed, tally.failed, tally.skipped);
    if tally.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn parse(words: Vec<String>) -> Result<Arguments> {
    let mut arguments = Arguments { full: false, install: true, list: false, dir: None, names: Vec::new() };
    let mut words = words.into_iter();
    while let Some(word) = words.next() {
        match word.as_str() {
            "--full" => arguments.full = true,
            "--no-install" => arguments.install = false,
            "--list" => arguments.list = true,
            "--dir" => {
                let dir = words.next().context("--dir needs a directory")?;
                arguments.dir = Some(PathBuf::from(dir).canonicalize().context("--dir")?);
            }
            _ if word.starts_with("--") => {
                bail!("unknown option {word}; there are --full, --no-install, --list, --dir DIR and names")
            }
            _ => arguments.names.push(word),
        }
    }
    Ok(arguments)
}

fn run_all(arguments: &Arguments, tally: &mut Tally) -> Result<()> {
    let base = std::env::current_exe()?.parent().context("no folder")?.join("suites");
    let ctx = Context::new(&base.join(std::process::id().to_string()), arguments.full)?;
    // Short paths: the name of a socket has 108 bytes.
    let places = std::env::temp_dir().join(format!("holdfast-suites-{}", std::process::id()));
    std::fs::create_dir_all(&places)?;
    let result = run_on_grounds(arguments, tally, &ctx, &places);
    clean_up(&ctx.dir);
    // The image's content, if that is still mounted, is of no use to anybody.
    let _ = std::fs::remove_dir_all(places.join("disk"));
    for entry in std::fs::read_dir(&places)?.flatten() {
        // Only what is empty: something may still be mounted there.
        let _ = std::fs::remove_dir(entry.path());
    }
    let _ = std::fs::remove_dir(&places);
    if tally.failed == 0 && result.is_ok() {
        let _ = std::fs::remove_dir_all(&ctx.dir);
    } else {
        println!("what was left behind is in {}", ctx.dir.display());
    }
    result
}

fn run_on_grounds(arguments: &Arguments, tally: &mut Tally, ctx: &Context, places: &Path) -> Result<()> {
    if let Some(dir) = &arguments.dir {
        let ground = Ground::given(dir.clone())?;
        run_on(arguments, tally, ctx, &ground);
        return ground.clear();
    }
    if !Path::new("/dev/fuse").exists() {
        tally.add("suites", Outcome::Skipped("no /dev/fuse here".to_owned()), Duration::ZERO);
        return Ok(());
    }
    // Names and attributes do not depend on the cache: the second time, only what does runs, unless there is time.
    for (options, whole) in [("writeback", true), ("nowriteback", arguments.full)] {
        let ground = Ground::mount(ctx, places, options, whole)?;
        run_on(arguments, tally, ctx, &ground);
        let remount = "all_is_there_after_a_remount";
        if arguments.names.is_empty() || arguments.names.iter().any(|part| remount.contains(part.as_str())) {
            let name = format!("{options}: {remount}");
            tally.run(&name, || ground.remount(ctx).map(|()| Outcome::Passed));
        }
        ground.end()?;
    }
    Ok(())
}

fn run_on(arguments: &Arguments, tally: &mut Tally, ctx: &Context, ground: &Ground) {
    let wanted = |name: &str| {
        arguments.names.is_empty() || arguments.names.iter().any(|part| name.contains(part.as_str()))
    };
    for check in checks::ALL {
        if wanted(check.name) && (arguments.full || !check.only_full) {
            let name = format!("{}: {}", ground.label, check.name);
            tally.run(&name, || run_check(check, ctx, ground));
        }
    }
    for name in programs::NAMES {
        if wanted(name) && (ground.whole || *name == "fsx") {
            programs::run_one(name, arguments.install, tally, ctx, ground);
        }
    }
}

/// One check, in a process of its own and a folder of its own.
fn run_check(check: &checks::Check, ctx: &Context, ground: &Ground) -> Result<Outcome> {
    if check.needs_root && !nix::unistd::geteuid().is_root() {
        return Ok(Outcome::Skipped("needs root".to_owned()));
    }
    let dir = ground.folder(check.name)?;
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("--exec").arg(check.name).arg(&dir);
    let done = run(&mut command, CHECK_LIMIT)?;
    if !done.status.success() {
        bail!("{}", done.stderr.trim());
    }
    if let Some(why) = done.stdout.lines().find_map(|line| line.strip_prefix("skipped: ")) {
        return Ok(Outcome::Skipped(why.to_owned()));
    }
    if let Some(told) = done.stdout.lines().find_map(|line| line.strip_prefix("note: ")) {
        ctx.note(told);
    }
    std::fs::remove_dir_all(&dir).context("taking the check's folder away")?;
    Ok(Outcome::Passed)
}

fn exec(name: &str, dir: &Path) -> ExitCode {
    let Some(check) = checks::ALL.iter().find(|check| check.name == name) else {
        eprintln!("no check {name}");
        return ExitCode::from(2);
    };
    match (check.run)(dir) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}
