//! The prover as a provider starts it: told of deals, it seals, proves on schedule, mends, extends and expires, over kills.

// Deadlines of real time, with the real clock.
#![allow(clippy::disallowed_methods)]
#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::time::{Duration, Instant};

use holdfast_proofs::sealing::{Order, SealingStatus, SectorStatus, StoredPiece};
use holdfast_proofs::{CommpHasher, PieceCid};

/// Seconds on an idle machine.
const PATIENCE: Duration = Duration::from_mins(4);
const FAR: u64 = 4_000_000_000;
/// Of the keeper, each with whatever worker it has.
const KILLS: u64 = 16;
/// Seconds in which all sectors that came meanwhile are proven, also on a busy machine.
const WINDOW: u64 = 30;

struct Keeper {
    process: Child,
    input: Option<ChildStdin>,
    statuses: Receiver<SealingStatus>,
}

impl Keeper {
    fn start(dir: &Path, parameters: &Path, deadline: u64) -> Self {
        let mut process = Command::new(env!("CARGO_BIN_EXE_holdfast-prover"))
            .arg("keep")
            .arg(dir)
            .args(["--profile", "test-2k", "--prover", &"61".repeat(32)])
            .args(["--cores", "2", "--memory", &(5_u64 << 30).to_string()])
            .args(["--period", &deadline.to_string(), "--deadline", &deadline.to_string(), "--gather", "1"])
            .arg("--parameters")
            .arg(parameters)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let output = process.stdout.take().unwrap();
        let (send, statuses) = mpsc::channel();
        std::thread::spawn(move || {
            for line in BufReader::new(output).lines() {
                let status = serde_json::from_str(&line.unwrap()).unwrap();
                if send.send(status).is_err() {
                    break;
                }
            }
        });
        Self { input: process.stdin.take(), process, statuses }
    }

    fn tell(&mut self, order: &Order) {
        let line = serde_json::to_string(order).unwrap();
        writeln!(self.input.as_mut().unwrap(), "{line}").unwrap();
    }

    fn list(&mut self, deals: &[StoredPiece]) {
        self.tell(&Order::List);
        for deal in deals {
            self.tell(&Order::Stored(deal.clone()));
        }
        self.tell(&Order::Listed);
    }

    fn until(&self, what: &str, is: impl Fn(&SealingStatus) -> bool) -> SealingStatus {
        let started = Instant::now();
        let mut last = None;
        while started.elapsed() < PATIENCE {
            let Ok(status) = self.statuses.recv_timeout(PATIENCE) else { break };
            if is(&status) {
                return status;
            }
            last = Some(status);
        }
        panic!("not reached: {what}\n{}", last.map_or_else(String::new, |status| status.to_string()));
    }

    fn kill(mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }

    /// Ends it as the provider does.
    fn close(mut self) {
        self.input = None;
        assert!(self.process.wait().unwrap().success());
    }
}

fn deal(dir: &Path, number: u8, len: usize) -> StoredPiece {
    let payload: Vec<u8> = (0..len).map(|i| (i * usize::from(number + 3) % 251) as u8).collect();
    let slot = dir.join(format!("slot-{number}"));
    fs::write(&slot, &payload).unwrap();
    let mut hasher = CommpHasher::new();
    hasher.update(&payload);
    StoredPiece { deal: format!("d{number}"), piece: hasher.finish(), slot, until: FAR }
}

fn verify(file: &Path, parameters: &Path) -> (i32, serde_json::Value) {
    let output = Command::new(env!("CARGO_BIN_EXE_holdfast-prover"))
        .args(["--json", "verify"])
        .arg(file)
        .arg("--parameters")
        .arg(parameters)
        .output()
        .unwrap();
    (output.status.code().unwrap(), serde_json::from_slice(&output.stdout).unwrap())
}

fn replica(dir: &Path) -> PathBuf {
    let sector = dir.join("sectors/1");
    ["final", "synthetic", "pc2"]
        .iter()
        .map(|name| sector.join(name).join("sealed"))
        .find(|p| p.exists())
        .unwrap()
}

#[test]
fn deals_become_sectors_that_are_proven_mended_and_ended() {
    let home = tempfile::tempdir().unwrap();
    let (dir, parameters) = (home.path().join("sealing"), home.path().join("parameters"));
    let mut deals = vec![deal(home.path(), 1, 500), deal(home.path(), 2, 100), deal(home.path(), 3, 900)];
    deals.push(deal(home.path(), 4, 3_000));
    // The slot of one is not what its deal says.
    deals.push(StoredPiece { piece: PieceCid::new(200, [3; 32]).unwrap(), ..deal(home.path(), 5, 200) });

    let mut keeper = Keeper::start(&dir, &parameters, 20);
    keeper.list(&deals);
    let status = keeper.until("a Window PoSt", |status| status.windows.proven > 0);
    assert!(status.warning.as_ref().unwrap().contains("TEST STRENGTH"), "{status}");
    assert_eq!((status.pieces.in_sectors, status.pieces.too_large), (3, 1), "{status}");
    assert!(status.events.iter().any(|event| event.warning && event.text.contains("is not sealed")));
    let file = status.windows.newest_proof.clone().unwrap();
    let (code, report) = verify(&file, &parameters);
    assert_eq!((code, &report["production"], &report["key_trust"]), (0, &false.into(), &"own-local".into()));
    assert!(report["warning"].as_str().unwrap().contains("TEST STRENGTH"));

    // Up to commit 1 with a later window's seed; the seal's own proof waits for its parameters.
    let status = keeper.until("commit 1", |status| {
        status.sectors.iter().any(|sector| sector.phase == "commit 1" && sector.waits.is_some())
    });
    assert!(status.sectors[0].waits.as_ref().unwrap().contains("--circuit porep --make"), "{status}");

    // Killed in the middle, it goes on where it was; the replica rots meanwhile, and the unsealed copy as well.
    keeper.kill();
    let rot = |path: &Path| {
        let mut bytes = fs::read(path).unwrap();
        bytes.iter_mut().for_each(|byte| *byte ^= 1);
        fs::write(path, bytes).unwrap();
    };
    rot(&replica(&dir));
    rot(&dir.join("sectors/1/unsealed"));
    let mut keeper = Keeper::start(&dir, &parameters, 20);
    deals.truncate(4);
    keeper.list(&deals);
    let status = keeper.until("a declared fault", |status| status.sectors_faulty == 1);
    assert!(status.sectors[0].fault.is_some() && status.to_string().contains("FAULTY"), "{status}");
    let status = keeper.until("a recovery", |status| status.sectors_faulty == 0);
    assert!(status.events.iter().any(|event| event.text == "sector 1 is recovered"), "{status}");

    // Renewed, it stays; without its deals, it ends.
    keeper.tell(&Order::Stored(StoredPiece { deal: "again".to_owned(), until: FAR + 9, ..deals[0].clone() }));
    keeper.until("an extension", |status| status.sectors[0].until == FAR + 9);
    for deal in ["d1", "d2", "d3"] {
        keeper.tell(&Order::Ended { deal: deal.to_owned() });
    }
    let status = keeper.until("a window after that", |status| status.windows.proven >= 3);
    assert_eq!(status.sectors_total, 1, "{status}");
    keeper.tell(&Order::Ended { deal: "again".to_owned() });
    keeper.until("its end", |status| status.sectors_total == 0);
    assert!(!dir.join("sectors/1").exists());
    keeper.close();
}

/// What the journals of all sectors say: phase and replica by number. A folder that is set aside has no number.
fn journals(dir: &Path) -> Vec<(u64, String, Option<String>)> {
    let entries = fs::read_dir(dir.join("sectors")).into_iter().flatten();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let read = |name: String| {
        let number = name.parse().unwrap_or_else(|_| panic!("{name} was set aside"));
        let journal = fs::read(dir.join("sectors").join(name).join("journal.json")).ok()?;
        let journal: serde_json::Value = serde_json::from_slice(&journal).unwrap();
        let finished = journal["finished"].as_array().unwrap();
        let phase = finished.last().map_or("none yet".to_owned(), |last| last["phase"].to_string());
        Some((number, phase, journal["comm_r"].as_str().map(str::to_owned)))
    };
    names.filter_map(read).collect()
}

/// Killed at moments that fall into every phase, while new pieces come, it seals them all to the end; nothing is set aside,
/// and a number never has a second replica.
#[test]
fn killed_at_any_moment_it_goes_on() {
    let home = tempfile::tempdir().unwrap();
    let (dir, parameters) = (home.path().join("sealing"), home.path().join("parameters"));
    // The parameters first: what is killed then is filling, sealing and proving.
    let mut keeper = Keeper::start(&dir, &parameters, WINDOW);
    keeper.list(&[]);
    keeper.until("parameters", |status| status.accepts);
    keeper.kill();
    let mut deals = Vec::new();
    let (mut phases, mut replicas) = (BTreeSet::new(), BTreeMap::new());
    // How long a phase takes depends on the machine: killed sooner and later, and on until the kills met enough of them.
    for round in 0..KILLS * 4 {
        if round >= KILLS && phases.len() >= 3 {
            break;
        }
        if round % 4 == 0 && round < KILLS {
            deals.push(deal(home.path(), deals.len() as u8 + 1, 1_900));
        }
        let mut keeper = Keeper::start(&dir, &parameters, WINDOW);
        keeper.list(&deals);
        std::thread::sleep(Duration::from_millis(80 + round * 397 % 2500));
        keeper.kill();
        for (number, phase, comm_r) in journals(&dir) {
            phases.insert(phase);
            if let Some(comm_r) = comm_r {
                assert_eq!(
                    replicas.entry(number).or_insert_with(|| comm_r.clone()),
                    &comm_r,
                    "sector {number}"
                );
            }
        }
    }
    assert!(phases.len() >= 3, "the kills met too little: {phases:?}");
    let mut keeper = Keeper::start(&dir, &parameters, WINDOW);
    keeper.list(&deals);
    let status = keeper.until("commit 1 and a Window PoSt of all", |status| {
        let done = |sector: &SectorStatus| sector.phase == "commit 1" && sector.proven_at.is_some();
        status.sectors_total == deals.len() && status.sectors.iter().all(done)
    });
    assert_eq!((status.sectors_faulty, status.pieces.in_sectors), (0, deals.len()), "{status}");
    for (number, _, comm_r) in journals(&dir) {
        assert!(replicas.get(&number).is_none_or(|first| Some(first) == comm_r.as_ref()), "sector {number}");
    }
    let (code, _) = verify(&status.windows.newest_proof.clone().unwrap(), &parameters);
    assert_eq!(code, 0);
    keeper.close();
}

#[test]
fn production_says_all_that_is_missing_and_does_not_begin() {
    let home = tempfile::tempdir().unwrap();
    let run = |profile: &str, memory: u64, deadline: &str| {
        Command::new(env!("CARGO_BIN_EXE_holdfast-prover"))
            .arg("keep")
            .arg(home.path().join(profile))
            .args(["--profile", profile, "--prover", &"61".repeat(32), "--cores", "2", "--json"])
            .args(["--memory", &memory.to_string(), "--deadline", deadline])
            .arg("--parameters")
            .arg(home.path())
            .stdin(Stdio::null())
            .output()
            .unwrap()
    };
    let output = run("production-32g", 300 << 30, "1800");
    assert_eq!(output.status.code(), Some(15), "{output:?}");
    let error: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let message = error["error"]["message"].as_str().unwrap();
    for lack in ["parameters", "a public beacon"] {
        assert!(message.contains(lack), "{message}");
    }
    // Too little memory for a proof, and a period that is no number of windows.
    assert_eq!(run("test-2k", 1 << 20, "1800").status.code(), Some(2));
    assert_eq!(run("test-2k", 4 << 30, "7").status.code(), Some(2));
}
