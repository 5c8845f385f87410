//! Deterministic simulation: the daemon's real workers over a modelled network, under virtual time, with every fault that a seed
//! brings. README.md beside this says what is modelled, what is checked, and how a history is replayed.
//!
//! ```text
//! sim [NAME...]                                      all tests, or those whose names contain one of NAME
//! sim --seed N [--bug NAME] [--planted] [--tell]       one history in this process, as it was in the tests; told line by line
//! sim --from N --seeds COUNT                         many histories
//! ```
//!
//! A history is a process: nothing of an earlier one can change it. HOLDFAST_FULL=1 runs thousands.

mod away;
mod beside;
mod carrier;
mod checker;
mod faults;
mod history;
mod links;
mod machine;
mod objects;
mod owner;
mod permitted;
mod planted;
mod provider;
mod rogue;
mod truth;
mod watching;
mod world;

use std::process::{Command, ExitCode, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use anyhow::{Context as _, Result, bail};
use parking_lot::Mutex;

use history::{Length, Told};
use planted::Bug;

/// Histories of a change, and of a full run.
const SEEDS: u64 = 200;
const SEEDS_FULL: u64 = 5_000;
/// What befalls each, and for how long: as much as 200 of them have time for within a minute.
const LENGTH: Length = Length { faults_seconds: 1_200, fault_each_seconds: 50 };
/// Histories with a planted bug: its kind shows soon.
const LENGTH_PLANTED: Length = Length { faults_seconds: 2_000, fault_each_seconds: 50 };
/// So many seeds are run twice and compared.
const TWICE: u64 = 6;
const STACK_BYTES: usize = 64 << 20;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let has = |flag: &str| words.iter().any(|word| word == flag);
    let value = |flag: &str| -> Option<String> {
        words.iter().position(|word| word == flag).and_then(|at| words.get(at + 1)).cloned()
    };
    if let Some(seed) = value("--seed").and_then(|n| n.parse().ok()) {
        let bug = value("--bug").and_then(|name| planted::named(&name));
        return one(seed, bug, if has("--planted") { LENGTH_PLANTED } else { LENGTH }, has("--tell"));
    }
    if let Some(count) = value("--seeds").and_then(|n| n.parse().ok()) {
        let from = value("--from").and_then(|n| n.parse().ok()).unwrap_or(1);
        return verdict(&[("histories".to_owned(), histories(from, count))]);
    }
    if let Some(word) = words.iter().find(|word| word.starts_with('-')) {
        eprintln!(
            "unknown option {word}; there are --seed N [--bug NAME] [--planted] [--tell], --seeds N [--from N] and names"
        );
        return ExitCode::from(2);
    }
    let names = &words;
    let wanted = |name: &str| names.is_empty() || names.iter().any(|part| name.contains(part.as_str()));
    let mut done = Vec::new();
    let mut test = |name: &str, run: &dyn Fn() -> Result<()>| {
        if !wanted(name) {
            return;
        }
        let (start, result) = (Instant::now(), run());
        let said = if result.is_ok() { "ok" } else { "FAILED" };
        println!("test sim::{name} ... {said} ({:.1} s)", start.elapsed().as_secs_f32());
        done.push((name.to_owned(), result));
    };
    let full = std::env::var_os("HOLDFAST_FULL").is_some();
    test("the_checker_counts_as_it_says", &|| truth::check_itself().map_err(anyhow::Error::msg));
    test("a_seed_replays_exactly", &replays);
    test("histories", &|| histories(1, if full { SEEDS_FULL } else { SEEDS }));
    for (bug, name, within) in planted::ALL {
        test(&format!("a_planted_bug_is_found_{}", name.replace('-', "_")), &|| found(bug, name, within));
    }
    verdict(&done)
}

/// As cargo's own runner ends.
fn verdict(done: &[(String, Result<()>)]) -> ExitCode {
    let failed = done.iter().filter(|(_, result)| result.is_err()).count();
    for (name, result) in done {
        if let Err(error) = result {
            println!("\n---- sim::{name}\n{error:#}");
        }
    }
    let word = if failed == 0 { "ok" } else { "FAILED" };
    println!(
        "\ntest result: {word}. {} passed; {failed} failed; 0 ignored; 0 measured; 0 filtered out\n",
        done.len() - failed
    );
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// One history, on a thread that nothing was done on yet.
fn one(seed: u64, bug: Option<Bug>, length: Length, told: bool) -> ExitCode {
    if let Ok(filter) = tracing_subscriber::EnvFilter::try_from_env("HOLDFAST_LOG") {
        let log = tracing_subscriber::fmt().with_env_filter(filter).with_ansi(false);
        log.with_writer(std::io::stdout).init();
    }
    let thread = std::thread::Builder::new().stack_size(STACK_BYTES);
    let played =
        thread.spawn(move || history::play(seed, bug, length, told)).map(std::thread::JoinHandle::join);
    match played {
        Ok(Ok(Told { trace, faults, acknowledged, seconds, wrong })) => {
            println!("{trace} faults {faults}, pieces acknowledged at once {acknowledged}, {seconds} s");
            match wrong {
                None => ExitCode::SUCCESS,
                Some(wrong) => {
                    println!("seed {seed}: {wrong}");
                    ExitCode::FAILURE
                }
            }
        }
        _ => {
            println!("seed {seed}: the history ended badly");
            ExitCode::FAILURE
        }
    }
}

/// What a child said of its history.
struct Ended {
    ok: bool,
    text: String,
}

fn child(seed: u64, bug: Option<&str>) -> Result<Ended> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["--seed", &seed.to_string()]);
    if let Some(bug) = bug {
        command.args(["--bug", bug, "--planted"]);
    }
    let output = command.stdin(Stdio::null()).output().context("starting a history")?;
    let text =
        [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
    Ok(Ended { ok: output.status.success(), text })
}

/// The same seed, another process: the same trace.
fn replays() -> Result<()> {
    for seed in 1..=TWICE {
        let (first, second) = (child(seed, None)?, child(seed, None)?);
        if first.text != second.text {
            bail!("seed {seed} went\n{}\nand then\n{}", first.text, second.text);
        }
    }
    Ok(())
}

fn histories(from: u64, count: u64) -> Result<()> {
    let next = AtomicU64::new(from);
    let failed: Mutex<Vec<(u64, String)>> = Mutex::default();
    let sum = Mutex::new((0u64, 0u64, 0u64));
    let run = || {
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= from + count {
                return;
            }
            let ended = child(seed, None).unwrap_or_else(|e| Ended { ok: false, text: format!("{e:#}") });
            let numbers: Vec<u64> = ended
                .text
                .lines()
                .next()
                .unwrap_or_default()
                .split([' ', ','])
                .filter_map(|word| word.parse().ok())
                .collect();
            if let [faults, pieces, seconds] = numbers[..] {
                let mut sum = sum.lock();
                *sum = (sum.0 + faults, sum.1 + pieces, sum.2 + seconds);
            }
            if !ended.ok {
                failed.lock().push((seed, ended.text));
            }
        }
    };
    std::thread::scope(|scope| {
        (0..std::thread::available_parallelism().map_or(2, usize::from)).for_each(|_| drop(scope.spawn(run)));
    });
    let (faults, pieces, seconds) = *sum.lock();
    println!(
        "{count} histories: {faults} faults, {pieces} pieces acknowledged, {} h of virtual time",
        seconds / 3600
    );
    let mut failed = failed.into_inner();
    failed.sort();
    match failed.is_empty() {
        true => Ok(()),
        false => {
            let told: Vec<String> = failed.iter().map(|(_, text)| text.trim().to_owned()).collect();
            let seeds: Vec<String> = failed.iter().map(|(seed, _)| seed.to_string()).collect();
            bail!(
                "{}\nfailing seeds: {}; replay one with `--seed N --tell`",
                told.join("\n"),
                seeds.join(" ")
            )
        }
    }
}

fn found(_: Bug, name: &str, within: u64) -> Result<()> {
    for seed in 1..=within {
        let ended = child(seed, Some(name))?;
        if !ended.ok {
            println!("  {name}: {}", ended.text.lines().last().unwrap_or_default());
            return Ok(());
        }
    }
    bail!("{within} seeds did not find it")
}
