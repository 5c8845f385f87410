//! Whole drives with real programs: what the product promises, shown from outside.
//!
//! A runner of our own: each test is a process with a folder, a time limit and, as root, a network of its own; what a
//! test leaves running is ended by its number. Tests that mostly wait run three at a time, after the others, each one's
//! output in one piece. Output is for a person who watches; the last line is `N passed, N failed, N skipped`.
//!
//! ```text
//! e2e [--full] [--list] [--keep] [NAME...]      those whose names contain one of NAME
//! e2e --exec NAME DIR                           one test, in this process
//! ```

mod badly;
mod crash;
mod examined;
mod full;
mod inputs;
mod ipfs;
mod itself;
mod lasting;
mod links;
mod machine;
mod moving;
mod nat;
mod policy;
mod providers;
mod proving;
mod public;
mod quota;
mod reference;
mod retention;
mod rogue;
mod roundtrip;
mod share;
mod small;
mod snapshots;
mod standing;
mod stranger;
mod stripes;
mod troubles;
mod verifying;
mod watch;
mod writers;

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use holdfast_tests::harness::{Context, clean_up, wire};

/// What a test cannot do without.
#[derive(Clone, Copy)]
enum Needs {
    /// Mounting file systems.
    Fuse,
    /// Being root: mounting a small disk.
    Root,
    /// A program in the PATH.
    Program(&'static str),
    /// Something that the runner can fetch or make, before the test has a network of its own.
    Prepared(fn() -> Result<()>),
}

struct Test {
    name: &'static str,
    needs: &'static [Needs],
    /// Run only with --full.
    only_full: bool,
    /// It waits most of its time and measures nothing that another one beside it could spoil.
    waits: bool,
    limit: Duration,
    run: fn(&Context) -> Result<()>,
}

const fn test(
    name: &'static str,
    needs: &'static [Needs],
    limit_seconds: u64,
    run: fn(&Context) -> Result<()>,
) -> Test {
    Test { name, needs, only_full: false, waits: false, limit: Duration::from_secs(limit_seconds), run }
}

const fn waiting(test: Test) -> Test {
    Test { waits: true, ..test }
}

/// Tests that wait, at a time.
const LANES: usize = 3;

/// They wait for providers that are gone; `drive::claim::tests` has the same in one process.
const fn only_full(test: Test) -> Test {
    Test { only_full: true, ..test }
}

const FUSE: &[Needs] = &[Needs::Fuse];
const FIRST_FORMAT: &[Needs] = &[Needs::Fuse, Needs::Program("getfattr")];
const ROOT: &[Needs] = &[Needs::Fuse, Needs::Root];
const HELIA: &[Needs] = &[Needs::Fuse, Needs::Program("npm"), Needs::Prepared(ipfs::install)];
const MODULES: &[Needs] = &[Needs::Program("npm"), Needs::Prepared(ipfs::install)];
const PROVER: &[Needs] = &[Needs::Prepared(proving::prover_is_there)];
const MACHINES: &[Needs] = &[Needs::Fuse, Needs::Root, Needs::Program("ip")];
const NATS: &[Needs] = &[Needs::Fuse, Needs::Root, Needs::Program("nft"), Needs::Program("ip")];

const CLOCK: &[Needs] = &[Needs::Fuse, Needs::Prepared(lasting::can_move_the_clock)];
const TOOLS: &[Needs] = &[Needs::Fuse, Needs::Program("git"), Needs::Program("restic")];

/// In the order in which they run, those that wait after the others: the quick ones that say most come first, and of those
/// that wait the longest, so that nothing waits for it at the end.
const TESTS: &[Test] = &[
    test("the_power_cut_disk_itself", FUSE, 120, itself::power_cut_disk),
    test("a_home_of_the_first_format_is_mounted", FIRST_FORMAT, 180, machine::first_format),
    test("fstab_mounts_and_umount_ends", FUSE, 180, machine::fstab),
    test("another_passphrase_and_a_newer_program", FUSE, 180, machine::passphrase_and_upgrade),
    test("damaged_files_are_named", &[], 600, badly::damaged_files),
    test("damage_is_mounted_read_only", FUSE, 120, badly::damage_is_mounted_read_only),
    test("mounts_that_cannot_be_are_refused", FUSE, 180, badly::refused_mounts),
    test("a_machine_that_cannot_mount_says_why", FUSE, 120, badly::machine_cannot_mount),
    test("a_full_disk_loses_nothing", FUSE, 180, badly::no_space),
    test("histories_through_a_mount_agree_with_the_model", FUSE, 900, reference::through_a_mount),
    test("one_small_file_is_placed_within_a_minute", FUSE, 180, small::placed_within_a_minute),
    test("a_real_tree_comes_back_from_words_and_one_peer", TOOLS, 900, roundtrip::real_tree),
    test("a_cold_read_of_a_large_drive_moves_little", FUSE, 900, roundtrip::cold_read),
    test("kill_9_loses_nothing_that_was_answered", FUSE, 600, crash::kill_9),
    test("a_power_cut_loses_nothing_that_was_synced", FUSE, 600, crash::power_cut),
    test("a_lying_fsync_is_noticed", FUSE, 300, crash::lying_fsync),
    test("a_full_disk_is_lived_through", ROOT, 300, full::full_disk),
    waiting(test("through_two_nats_by_relays_and_holes", NATS, 900, nat::through_two_nats)),
    waiting(test("troubles_of_networks_are_lived_through", NATS, 900, troubles::are_lived_through)),
    waiting(test("a_drive_and_its_providers_say_how_they_stand", FUSE, 180, standing::told)),
    test("a_prover_that_cannot_is_refused", PROVER, 300, proving::refused),
    test("what_is_no_proof_is_refused", PROVER, 600, verifying::no_proof),
    test("compressed_proofs_are_made_and_checked_by_hand", &[], 900, verifying::compressed),
    test("sealing_under_load_misses_no_deadline", PROVER, 1_500, proving::under_load),
    waiting(test("two_of_five_providers_are_lost", FUSE, 600, providers::two_of_five_lost)),
    waiting(test("a_provider_that_flips_bits_is_replaced", FUSE, 600, providers::flipped_bits)),
    waiting(test("the_doctor_finds_what_is_wrong", FUSE, 180, examined::doctor)),
    waiting(test("everything_is_read_from_the_providers", FUSE, 300, examined::read_whole)),
    waiting(test("silent_and_lying_providers_cost_bounded_time", FUSE, 600, providers::gone_bad)),
    waiting(test(
        "whoever_proves_and_gives_nothing_is_replaced",
        FUSE,
        600,
        providers::proves_and_gives_nothing,
    )),
    waiting(test("providers_that_move_are_found_again", FUSE, 600, moving::found_again)),
    waiting(test("a_drive_is_found_on_the_local_network", MACHINES, 300, moving::found_nearby)),
    waiting(test("copies_become_stripes_and_are_repaired", FUSE, 600, stripes::become_cheaper)),
    waiting(test("deals_are_renewed_in_time", CLOCK, 400, lasting::deals_are_renewed)),
    waiting(test("a_spoiled_piece_is_healed_and_never_coded", FUSE, 400, lasting::a_spoiled_piece_is_healed)),
    waiting(test("a_folder_survives_more_than_its_drive", FUSE, 600, policy::folder_survives_more)),
    waiting(test("a_stripe_without_providers_becomes_copies_again", FUSE, 400, stripes::become_copies_again)),
    waiting(test("watchers_repair_while_the_owner_is_away", FUSE, 400, watch::owner_is_away)),
    waiting(test("a_capability_that_was_taken_back_does_nothing", FUSE, 200, watch::taken_back)),
    waiting(test(
        "a_rogue_watcher_reads_nothing_and_moves_nothing",
        FUSE,
        300,
        rogue::reads_and_moves_nothing,
    )),
    waiting(test("words_lead_to_what_watchers_placed", FUSE, 300, watch::words_are_enough)),
    waiting(test("a_private_link_leads_to_what_was_shared", FUSE, 400, share::leads_to_what_was_shared)),
    waiting(test("words_bring_private_links_back", FUSE, 300, share::words_bring_them_back)),
    test("a_fetch_that_was_killed_goes_on", FUSE, 600, links::fetch_goes_on),
    waiting(test("a_private_link_outlives_its_copies", FUSE, 500, links::outlives_its_copies)),
    waiting(test("a_private_link_follows_its_blocks", FUSE, 500, links::follows_its_blocks)),
    test("a_quota_smaller_than_the_data", FUSE, 900, quota::smaller_than_the_data),
    test("what_is_pinned_stays_here", FUSE, 300, quota::pinned),
    test("snapshots_show_what_was_and_give_it_back", FUSE, 300, snapshots::past_and_back),
    waiting(test("what_a_commit_lacks_is_an_error_after_a_restore", FUSE, 300, snapshots::what_is_lacking)),
    waiting(test("room_that_old_snapshots_held_comes_free", FUSE, 600, retention::room_comes_free)),
    waiting(test("a_second_writer_is_refused", FUSE, 300, writers::second_writer)),
    waiting(test("two_restores_at_once_have_two_terms", FUSE, 300, writers::two_at_once)),
    only_full(waiting(test("too_few_anchors_let_a_drive_be_read", FUSE, 300, writers::too_few))),
    only_full(waiting(test("an_anchor_that_forgets_is_found_out", FUSE, 300, writers::forgetful_anchor))),
    test("a_stranger_finds_nothing", FUSE, 300, stranger::finds_nothing),
    test("helia_walks_the_drive", HELIA, 300, ipfs::walked_by_helia),
    test("folders_have_the_cids_that_helia_gives", MODULES, 300, ipfs::same_cids_as_helia),
    test("what_is_published_is_for_everybody", HELIA, 900, public::for_everybody),
];

struct Arguments {
    full: bool,
    list: bool,
    keep: bool,
    names: Vec<String>,
}

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    if let [flag, name, dir, rest @ ..] = words.as_slice()
        && flag == "--exec"
    {
        return exec(name, Path::new(dir), rest.iter().any(|word| word == "--full"));
    }
    let mut arguments = Arguments { full: false, list: false, keep: false, names: Vec::new() };
    for word in words {
        match word.as_str() {
            "--full" => arguments.full = true,
            "--list" => arguments.list = true,
            "--keep" => arguments.keep = true,
            _ if word.starts_with("--") => {
                eprintln!("unknown option {word}; there are --full, --list, --keep and names");
                return ExitCode::from(2);
            }
            _ => arguments.names.push(word),
        }
    }
    run_all(&arguments)
}

fn run_all(arguments: &Arguments) -> ExitCode {
    let wanted = |test: &&Test| {
        let named = arguments.names.is_empty()
            || arguments.names.iter().any(|name| test.name.contains(name.as_str()));
        named && (!test.only_full || arguments.full)
    };
    let (waiting, alone): (Vec<&Test>, Vec<&Test>) = TESTS.iter().filter(wanted).partition(|test| test.waits);
    if arguments.list {
        alone.iter().chain(&waiting).for_each(|test| println!("{}", test.name));
        return ExitCode::SUCCESS;
    }
    let tally = Mutex::new(Tally::default());
    for test in alone {
        println!("test {} ...", test.name);
        tally.lock().expect("no holder panics").add(test, run_if_possible(test, arguments, None), "");
    }
    let queue = Mutex::new(waiting.into_iter());
    std::thread::scope(|scope| {
        for _ in 0..LANES {
            scope.spawn(|| {
                let next = || queue.lock().expect("no holder panics").next();
                while let Some(test) = next() {
                    let story = work_folder().join(format!("e2e-{}-{}.out", std::process::id(), test.name));
                    let outcome = run_if_possible(test, arguments, Some(&story));
                    let text = std::fs::read(&story).unwrap_or_default();
                    // It may be missing: a test that was skipped has none.
                    let _ = std::fs::remove_file(&story);
                    let text = format!("test {} ...\n{}", test.name, String::from_utf8_lossy(&text));
                    tally.lock().expect("no holder panics").add(test, outcome, &text);
                }
            });
        }
    });
    let tally = tally.into_inner().expect("no holder panics");
    println!("\n{} passed, {} failed, {} skipped", tally.passed, tally.failed, tally.skipped);
    if tally.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

#[derive(Default)]
struct Tally {
    passed: u32,
    failed: u32,
    skipped: u32,
}

impl Tally {
    /// Counts it, and tells of it after its `story`.
    fn add(&mut self, test: &Test, (outcome, took): (Outcome, Duration), story: &str) {
        let seconds = took.as_secs_f64();
        print!("{story}");
        match outcome {
            Outcome::Passed => {
                self.passed += 1;
                println!("test {} ... ok ({seconds:.1} s)", test.name);
            }
            Outcome::Skipped(why) => {
                self.skipped += 1;
                println!("test {} ... skipped: {why}", test.name);
            }
            Outcome::Failed(why) => {
                self.failed += 1;
                println!("test {} ... FAILED ({seconds:.1} s): {why}", test.name);
            }
        }
    }
}

fn run_if_possible(test: &Test, arguments: &Arguments, story: Option<&Path>) -> (Outcome, Duration) {
    let start = Instant::now();
    let outcome = match missing(test) {
        Some(what) => Outcome::Skipped(what),
        None => run_one(test, arguments, story).unwrap_or_else(|error| Outcome::Failed(format!("{error:#}"))),
    };
    (outcome, start.elapsed())
}

enum Outcome {
    Passed,
    Skipped(String),
    Failed(String),
}

/// What the machine lacks for this test.
fn missing(test: &Test) -> Option<String> {
    test.needs.iter().find_map(|need| match need {
        Needs::Fuse => (!Path::new("/dev/fuse").exists()).then(|| "no /dev/fuse".to_owned()),
        Needs::Root => (!nix::unistd::geteuid().is_root()).then(|| "not root".to_owned()),
        Needs::Program(name) => (!in_path(name)).then(|| format!("no {name}")),
        Needs::Prepared(prepare) => prepare().err().map(|error| {
            let text = format!("{error:#}");
            text.lines().next().unwrap_or_default().to_owned()
        }),
    })
}

pub fn in_path(name: &str) -> bool {
    std::env::var_os("PATH")
        .is_some_and(|path| std::env::split_paths(&path).any(|dir| dir.join(name).is_file()))
}

/// Where the tests work: on the disk that the build is on, which has room; not in memory.
fn work_folder() -> PathBuf {
    std::env::var_os("HOLDFAST_TEST_DIR")
        .map_or_else(|| PathBuf::from(env!("CARGO_TARGET_TMPDIR")), PathBuf::from)
}

/// Its output goes to the file `story`, or where that of the runner goes.
fn run_one(test: &Test, arguments: &Arguments, story: Option<&Path>) -> Result<Outcome> {
    let dir = work_folder().join(format!("e2e-{}", std::process::id())).join(test.name);
    std::fs::create_dir_all(&dir)?;
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("--exec").arg(test.name).arg(&dir).stdin(Stdio::null());
    if arguments.full {
        command.arg("--full");
    }
    if let Some(story) = story {
        let file = std::fs::File::create(story)?;
        command.stdout(file.try_clone()?).stderr(file);
    }
    let mut child = command.spawn()?;
    let start = Instant::now();
    let limit = if arguments.full { test.limit * 4 } else { test.limit };
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break Some(status);
        }
        if start.elapsed() > limit {
            break None;
        }
        std::thread::sleep(Duration::from_millis(50));
    };
    // First what it started, since the test itself may hang in one of its mounts.
    clean_up(&dir);
    let outcome = match status {
        None => {
            let _ = child.kill();
            let _ = child.wait();
            Outcome::Failed(format!("not done within {} s", limit.as_secs()))
        }
        Some(status) if status.success() => Outcome::Passed,
        Some(status) => Outcome::Failed(format!("{status}")),
    };
    let keep = arguments.keep && matches!(outcome, Outcome::Failed(_));
    if keep {
        println!("    kept: {}", dir.display());
    } else if let Err(error) = remove_tree(&dir) {
        println!("    cannot remove {}: {error:#}", dir.display());
    }
    Ok(outcome)
}

/// A bare mountpoint may be marked unwritable (chattr +i), which stands in the way of removing it.
pub fn remove_tree(dir: &Path) -> Result<()> {
    if std::fs::remove_dir_all(dir).is_ok() {
        return Ok(());
    }
    let _ = Command::new("chattr").args(["-R", "-i"]).arg(dir).output();
    let _ = Command::new("chmod").args(["-R", "u+rwX"]).arg(dir).output();
    std::fs::remove_dir_all(dir).with_context(|| dir.display().to_string())
}

/// The test itself, in its own process.
fn exec(name: &str, dir: &Path, full: bool) -> ExitCode {
    let Some(test) = TESTS.iter().find(|test| test.name == name) else {
        eprintln!("no test {name}");
        return ExitCode::from(2);
    };
    if !wire::enter_own_network() {
        println!("    (not root: no network of its own, byte counts include other programs)");
    }
    let result = Context::new(dir, full).and_then(|ctx| (test.run)(&ctx));
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("    error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Fails with what differs, if anything does.
pub fn ensure_same(what: &str, differences: &[String]) -> Result<()> {
    if differences.is_empty() {
        return Ok(());
    }
    bail!("{what}: {} differences\n        {}", differences.len(), differences.join("\n        "))
}
