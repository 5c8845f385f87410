//! Workers: their limits hold, and they end with their parent.

// Deadlines of real time, with the real clock.
#![allow(clippy::disallowed_methods)]
#![allow(clippy::unwrap_used)]

mod common;

use std::io::{Read, Write};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use common::{LIMITS, Rig};
use holdfast_sectors::sector::Phase;
use holdfast_sectors::work::{ChildEnd, Job, Launcher, Limits};
use holdfast_sectors::{Circuit, Profile};
use serde_json::json;

const MIB: u64 = 1 << 20;
/// A worker begins with less, and the tables of points alone are larger.
const MEMORY_TOO_LITTLE: u64 = 24 * MIB;
/// Milliseconds on an idle machine; the job that is given up would take a quarter of an hour.
const ENDED_WITHIN: Duration = Duration::from_mins(1);

#[test]
fn a_worker_that_wants_more_memory_dies_and_we_live() {
    let rig = Rig::new();
    let job = Job::Parameters { profile: Profile::Test2k, circuit: Circuit::WindowPost };
    let limits = Limits { memory_bytes: MEMORY_TOO_LITTLE, ..LIMITS };
    let end = rig.launcher.start(job, limits).unwrap().wait().unwrap();
    assert_eq!(end, ChildEnd::OutOfMemory);
    // What it left is no parameter, and no lock.
    let report = rig.launcher.workshop().parameters().report(Profile::Test2k);
    assert!(!report.ready());
}

#[test]
fn a_stopped_worker_is_gone_and_its_sector_goes_on() {
    let rig = Rig::new();
    let job = Job::Parameters { profile: Profile::Test2k, circuit: Circuit::Porep };
    let mut child = rig.launcher.start(job, LIMITS).unwrap();
    while child.progress().is_empty() {
        std::thread::sleep(Duration::from_millis(10));
    }
    child.stop();
    assert_eq!(child.wait().unwrap(), ChildEnd::Stopped);
    // The folder is not locked any more.
    let again = rig.launcher.workshop().parameters().report(Profile::Test2k);
    assert!(!again.ready());
}

#[test]
fn a_worker_ends_when_its_parent_does() {
    let rig = Rig::new();
    let workshop = rig.launcher.workshop();
    let mut worker = Command::new(env!("CARGO_BIN_EXE_holdfast-prover"))
        .arg("worker")
        .current_dir(workshop.run_dir())
        .envs(workshop.environment())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let job = Job::Parameters { profile: Profile::Test2k, circuit: Circuit::Porep };
    let assignment = json!({ "job": job, "limits": LIMITS, "workshop": workshop.dir(), "parameters": workshop.parameters().dir() });
    let mut input = worker.stdin.take().unwrap();
    writeln!(input, "{assignment}").unwrap();
    let mut first = [0; 1];
    worker.stdout.as_mut().unwrap().read_exact(&mut first).unwrap();
    drop(input);
    let started = Instant::now();
    assert_eq!(worker.wait().unwrap().code(), Some(1));
    assert!(started.elapsed() < ENDED_WITHIN);
}

#[test]
fn nonsense_is_an_error_and_not_a_crash() {
    for input in ["", "\n", "{}\n", "nonsense\n", "{\"job\":{\"do\":\"dance\"}}\n"] {
        let mut worker = Command::new(env!("CARGO_BIN_EXE_holdfast-prover"))
            .arg("worker")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        worker.stdin.as_mut().unwrap().write_all(input.as_bytes()).unwrap();
        drop(worker.stdin.take());
        let output = worker.wait_with_output().unwrap();
        assert!(!output.status.success(), "{input}");
    }
    let rig = Rig::new();
    let ended = rig.end(Job::Seal { sector: PathBuf::from("/nowhere"), through: Phase::Packed, seed: None });
    assert!(matches!(ended, ChildEnd::Failed { .. }), "{ended:?}");
    let nobody = Launcher::new(PathBuf::from("/nowhere"), Vec::new(), rig.launcher.workshop().clone());
    assert!(nobody.start(Job::RestoreUnsealed { sector: PathBuf::new() }, LIMITS).is_err());
}
