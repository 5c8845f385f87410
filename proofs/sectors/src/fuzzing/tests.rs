use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::*;
use crate::durable::hex;
use crate::params::{GenerateProgress, GenerateStage};
use crate::profile::SealMode;
use crate::proof::WindowStatement;
use crate::sector::{Phase, SectorSpec};
use crate::work::{FillPiece, Job, JobResult, Limits, Waits};
use holdfast_proofs::PieceCid;
use holdfast_proofs::sealing::{Order, StoredPiece};

const SEEDS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/fuzz/prover/seeds");

/// The first seeds of each decoder are valid values: they must still be among the committed ones, and still be accepted as
/// what they are. `HOLDFAST_BLESS=1` adds what is missing.
#[allow(clippy::disallowed_methods)]
fn seed(name: &str, bytes: &[u8]) {
    let path = format!("{SEEDS}/{name}.hex");
    let line = hex(bytes);
    let mut seeds = std::fs::read_to_string(&path).unwrap_or_default();
    if !seeds.lines().any(|seed| seed == line) && std::env::var_os("HOLDFAST_BLESS").is_some() {
        seeds.push_str(&format!("{line}\n"));
        std::fs::write(&path, &seeds).unwrap();
    }
    assert!(seeds.lines().any(|seed| seed == line), "{path} lacks a valid value: its format has changed");
    let decoder = DECODERS.iter().find(|(known, _)| *known == name).unwrap().1;
    decoder(bytes);
}

#[test]
fn valid_values_are_seeds() {
    seed("prover-book", &crate::keeper::sample_book());
    seed("prover-bytes32", "0a".repeat(32).as_bytes());
    seed("prover-bytes32", b"production-32g");
    seed("prover-bytes32", b"window-post");
    seed("prover-key", &[0, 0, 0]);
    seed("prover-key", &[2, 3, 64, 0, 0, 0, 9]);
    seed("prover-making", &crate::params::sample_making());
    seed("prover-sector-journal", &crate::sector::sample_journal());
    seed("prover-stamp", &crate::params::sample_stamp());
    let (queue, events) = crate::engine::sample_journal();
    seed("prover-queue", &queue);
    seed("prover-queue-event", &events);
    // With their keys they are longer than what is fuzzed.
    let committed = committed();
    assert_eq!(committed.len(), COMMITTED.len());
    for (file, key) in committed {
        assert!(file.clone().with_key(key).verify_with(key).is_ok());
        seed("prover-proof", &file.encode().unwrap());
    }
}

#[test]
fn what_processes_say_is_a_seed() {
    let (prover, ticket) = (Bytes32([1; 32]), Bytes32([2; 32]));
    let spec = SectorSpec { profile: Profile::Test2k, mode: SealMode::Interactive, prover, number: 4 };
    let cid = PieceCid::new(500, [3; 32]).unwrap();
    let (sector, out) = (PathBuf::from("/s/4"), PathBuf::from("/out"));
    let pieces = vec![FillPiece { cid, slot: PathBuf::from("/slot") }];
    let statement =
        WindowStatement { profile: Profile::Test2k, prover, beacon: ticket, epoch: 7, sectors: Vec::new() };
    let jobs = [
        Job::Parameters { profile: Profile::Test8m, circuit: Circuit::Porep },
        Job::Fill { sector: sector.clone(), spec, pieces, ticket },
        Job::Seal { sector: sector.clone(), through: Phase::Commit1, seed: Some(ticket) },
        Job::WindowPost { statement, sectors: vec![sector.clone()], out: out.clone() },
        Job::ReadPiece { sector, piece: cid, offset: 1, len: 2, out },
    ];
    for job in jobs {
        let limits = Limits { memory_bytes: 9, cores: 2, nice: 1 };
        let (workshop, parameters) = (PathBuf::from("/w"), PathBuf::from("/p"));
        let assignment = Assignment { job, limits, workshop, parameters };
        seed("prover-assignment", &serde_json::to_vec(&assignment).unwrap());
    }
    let progress = GenerateProgress {
        profile: Profile::Test2k,
        circuit: Circuit::Porep,
        stage: GenerateStage::Computing,
        cpu_seconds: 1.5,
        points: 3,
        points_total: 7,
    };
    let sealed = JobResult::Seal {
        phase: Phase::PreCommit2,
        waits: Some(Waits::Seed),
        comm_r: Some(ticket),
        setbacks: vec!["x".to_owned()],
    };
    let messages = [
        Message::Phase(Phase::Synthetic),
        Message::Parameters(progress),
        Message::Done(sealed),
        Message::Done(JobResult::WindowPost { proven: true, faults: Vec::new() }),
        Message::Failed { permanent: true, reason: "x".to_owned() },
    ];
    for message in messages {
        seed("prover-message", &serde_json::to_vec(&message).unwrap());
    }
    let deal = |number: u64| StoredPiece {
        deal: format!("d{number}"),
        piece: PieceCid::new(400 + number, [3; 32]).unwrap(),
        slot: PathBuf::from("/slot"),
        until: 9,
    };
    let mut orders = vec![Order::List];
    orders.extend((1..6).map(|number| Order::Stored(deal(number))));
    orders.extend([Order::Listed, Order::Ended { deal: "d2".to_owned() }]);
    let lines: Vec<Vec<u8>> = orders.iter().map(|order| serde_json::to_vec(order).unwrap()).collect();
    seed("prover-orders", &lines.join(&b'\n'));
}

fn unhex(text: &str) -> Vec<u8> {
    assert!(text.len().is_multiple_of(2) && text.bytes().all(|digit| digit.is_ascii_hexdigit()), "{text}");
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
}

/// The committed seeds: valid values, and what fuzzing found worth keeping. Each is decoded, cut short and with a bit turned
/// at as many places as are quick.
#[test]
fn every_decoder_stands_its_seeds() {
    let mut found = BTreeSet::new();
    for (name, decoder) in DECODERS {
        assert!(found.insert(format!("{name}.hex")), "two decoders are called {name}");
        let seeds = std::fs::read_to_string(format!("{SEEDS}/{name}.hex")).unwrap_or_default();
        assert!(!seeds.trim().is_empty(), "no seeds for {name}");
        // An equation or a key takes a thousand times what a decoder does.
        let places = if matches!(*name, "prover-proof" | "prover-key") { 24 } else { 300 };
        for line in seeds.lines() {
            let bytes = unhex(line);
            decoder(&bytes);
            for at in (0..bytes.len()).step_by(bytes.len().div_ceil(places).max(1)) {
                decoder(&bytes[..at]);
                let mut changed = bytes.clone();
                changed[at] ^= 1 << (at % 8);
                decoder(&changed);
            }
        }
    }
    let files: BTreeSet<String> = std::fs::read_dir(Path::new(SEEDS))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    assert_eq!(files, found, "seeds without a decoder, or the other way round");
}
