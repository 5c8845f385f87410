//! The prover as a provider starts it: told of deals, it seals, proves on schedule, mends, extends and expires, over kills.

// Deadlines of real time, with the real clock.
#![allow(clippy::disallowed_methods)]
#![allow(clippy::unwrap_used)]

mod common;

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
/// A proof takes some seconds of a core, more where others use it, and what is no duty waits for it.
const LONG_WINDOW: u64 = 20;
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
        Self::with(dir, parameters, deadline, &[])
    }

    fn with(dir: &Path, parameters: &Path, deadline: u64, flags: &[&str]) -> Self {
        let mut process = Command::new(env!("CARGO_BIN_EXE_holdfast-prover"))
            .arg("keep")
            .arg(dir)
            .args(["--profile", "test-2k", "--prover", &"61".repeat(32)])
            .args(["--cores", "2", "--memory", &(5_u64 << 30).to_string()])
            .args(["--period", &deadline.to_string(), "--deadline", &deadline.to_string(), "--gather", "1"])
            .arg("--parameters")
            .arg(parameters)
            .args(flags)
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

fn prover(words: &[&str], paths: &[(&str, &Path)]) -> (Option<i32>, serde_json::Value) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_holdfast-prover"));
    command.arg("--json").args(words);
    for (flag, path) in paths {
        command.args((!flag.is_empty()).then_some(flag)).arg(path);
    }
    let output = command.output().unwrap();
    (output.status.code(), serde_json::from_slice(&output.stdout).unwrap())
}

/// A sector that was sealed to its end, in a keeper's folder, with the deals of its pieces.
fn sealed(rig: &common::Rig, dir: &Path) -> Vec<StoredPiece> {
    use holdfast_sectors::SealMode;
    use holdfast_sectors::sector::{Phase, Sector};
    fs::create_dir_all(dir.join("sectors")).unwrap();
    let made = rig.sector("sector", 7, SealMode::Synthetic, &common::payloads());
    rig.seal(&made, Phase::Synthetic);
    Sector::open(&made).unwrap().0.set_seed(common::SEED).unwrap();
    // Its committed proof, where the phase that makes one looks for one that holds.
    let vectors = Path::new(env!("CARGO_MANIFEST_DIR")).join("vectors");
    fs::copy(vectors.join("seal-2k-synthetic.proof"), made.join("proof")).unwrap();
    assert_eq!(rig.seal(&made, Phase::Cleared).0, Phase::Cleared);
    fs::rename(made, dir.join("sectors/7")).unwrap();
    let deal = |(number, payload): (usize, Vec<u8>)| {
        let slot = rig.dir.path().join(format!("slot-{number}"));
        fs::write(&slot, &payload).unwrap();
        StoredPiece { deal: format!("d{number}"), piece: common::cid(&payload), slot, until: FAR }
    };
    common::payloads().into_iter().enumerate().map(deal).collect()
}

/// Its unsealed copy is given up and made again as the flag says; pieces are read from the replica; and a replica that is lost
/// then is made again from the deals' slots.
#[test]
fn a_sector_without_its_copy_is_read_from_the_replica_and_mended_from_the_slots() {
    let rig = common::Rig::new();
    let (dir, parameters) = (rig.dir.path().join("sealing"), rig.dir.path().join("parameters"));
    let deals = sealed(&rig, &dir);
    let copy = dir.join("sectors/7/unsealed");
    let before = fs::read(&copy).unwrap();
    let until = |there: bool| {
        let started = Instant::now();
        while copy.exists() != there {
            assert!(started.elapsed() < PATIENCE, "the copy is not {there}");
            std::thread::sleep(Duration::from_millis(20));
        }
    };
    let out = rig.dir.path().join("read");
    let piece = &deals[2].piece.to_string();
    let payload = &common::payloads()[2];
    let read = |words: &[&str], from: usize, to: usize, unsealed: bool| {
        let words = [&["unseal", dir.to_str().unwrap(), piece][..], words].concat();
        let (code, said) = prover(&words, &[("--out", &out)]);
        // The keeper may be at the sector right now.
        if code == Some(8) {
            return false;
        }
        assert_eq!(
            (code, &said["unsealed"], &said["sector"]),
            (Some(0), &unsealed.into(), &7.into()),
            "{said}"
        );
        assert_eq!(fs::read(&out).unwrap(), payload[from..to]);
        true
    };
    let surely = |words: &[&str], from, to, unsealed| while !read(words, from, to, unsealed) {};
    surely(&[], 0, 1_000, false);

    // A keeper of another mode of sealing keeps it all the same.
    let mut keeper = Keeper::with(&dir, &parameters, LONG_WINDOW, &["--drop-unsealed"]);
    keeper.list(&deals);
    until(false);
    surely(&[], 0, 1_000, true);
    surely(&["--offset", "301", "--length", "77"], 301, 378, true);
    let outside = ["unseal", dir.to_str().unwrap(), piece, "--offset", "1", "--length", "1000"];
    assert_eq!(prover(&outside, &[("--out", &out)]).0, Some(2));
    let nobodys = common::cid(b"nobody has this").to_string();
    assert_eq!(prover(&["unseal", dir.to_str().unwrap(), &nobodys], &[("--out", &out)]).0, Some(15));
    keeper.until("a window", |status| status.windows.proven > 0);
    keeper.close();

    let mut keeper = Keeper::with(&dir, &parameters, LONG_WINDOW, &["--synthetic"]);
    keeper.list(&deals);
    until(true);
    keeper.close();
    assert_eq!(fs::read(&copy).unwrap(), before);

    let mut keeper = Keeper::with(&dir, &parameters, LONG_WINDOW, &["--synthetic", "--drop-unsealed"]);
    keeper.list(&deals);
    until(false);
    let replica = dir.join("sectors/7/final/sealed");
    let mut bytes = fs::read(&replica).unwrap();
    bytes.iter_mut().for_each(|byte| *byte ^= 1);
    fs::write(&replica, bytes).unwrap();
    fs::remove_file(&out).unwrap();
    let words = ["unseal", dir.to_str().unwrap(), piece];
    let (code, said) = prover(&words, &[("--out", &out)]);
    assert!(code != Some(0) && !out.exists(), "bytes of a rotten replica came out: {said}");
    keeper.until("a declared fault", |status| status.sectors_faulty == 1);
    let status = keeper.until("a recovery", |status| status.sectors_faulty == 0);
    assert!(status.events.iter().any(|event| event.text == "sector 7 is recovered"), "{status}");
    keeper.close();
}

#[test]
fn the_sector_that_a_beacon_draws_is_proven_by_command() {
    let rig = common::Rig::new();
    let (dir, parameters) = (rig.dir.path().join("sealing"), rig.dir.path().join("parameters"));
    let (beacon, out) = ("64".repeat(32), rig.dir.path().join("winning.proof"));
    let words = ["winning", dir.to_str().unwrap(), "--beacon", &beacon, "--epoch", "9"];
    let paths = [("--out", out.as_path()), ("--parameters", parameters.as_path())];
    assert_eq!(prover(&words, &paths).0, Some(15), "there are no sectors");
    sealed(&rig, &dir);
    let (code, said) = prover(&words, &paths);
    assert_eq!(code, Some(15), "{said}");
    assert!(said["error"]["hint"].as_str().unwrap().contains("--circuit winning-post --make"), "{said}");
    let make = ["params", "--profile", "test-2k", "--circuit", "winning-post", "--make"];
    assert_eq!(prover(&make, &[("--parameters", &parameters)]).0, Some(0));
    let (code, said) = prover(&words, &paths);
    assert_eq!((code, &said["sector"], &said["drawn"]), (Some(0), &7.into(), &true.into()), "{said}");
    assert!(said["warning"].as_str().unwrap().starts_with("TEST STRENGTH"), "{said}");
    let (code, report) = verify(&out, &parameters);
    assert_eq!((code, &report["kind"], &report["production"]), (0, &"winning-post".into(), &false.into()));
    let mut bytes = fs::read(&out).unwrap();
    let last = bytes.len() - 300;
    bytes[last] ^= 1;
    fs::write(&out, bytes).unwrap();
    assert_eq!(verify(&out, &parameters).0, 11);
    let other = [&words[..], &["--sector", "8"]].concat();
    assert_eq!(prover(&other, &paths).0, Some(2), "there is no sector 8");
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
