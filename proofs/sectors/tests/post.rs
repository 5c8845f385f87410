//! Proofs of spacetime of test strength, with parameters made for this run.

#![allow(clippy::unwrap_used)]

mod common;

use std::fs;
use std::path::PathBuf;

use common::{PROVER, Rig, payloads};
use holdfast_sectors::params::{KeyTrust, Origin};
use holdfast_sectors::proof::{
    KeySource, NoKeys, ProofFile, ProofFileError, PublicSector, WindowStatement, WinningStatement,
    verify_file,
};
use holdfast_sectors::sector::Phase;
use holdfast_sectors::sector::post::ProvableSector;
use holdfast_sectors::work::{Job, JobResult};
use holdfast_sectors::{Bytes32, Circuit, Profile, SealMode};

fn window(epoch: u64) -> WindowStatement {
    WindowStatement {
        profile: Profile::Test2k,
        prover: PROVER,
        beacon: Bytes32([0x64; 32]),
        epoch,
        sectors: Vec::new(),
    }
}

fn winning() -> WinningStatement {
    let sector = PublicSector { number: 0, comm_r: Bytes32::default() };
    WinningStatement {
        profile: Profile::Test2k,
        prover: PROVER,
        beacon: Bytes32([0x65; 32]),
        epoch: 9,
        sector,
    }
}

fn sealed(rig: &Rig, numbers: &[u64]) -> Vec<PathBuf> {
    let seal = |number: &u64| {
        let path = rig.sector(&format!("s{number}"), *number, SealMode::Interactive, &payloads());
        rig.seal(&path, Phase::PreCommit2);
        path
    };
    numbers.iter().map(seal).collect()
}

#[test]
fn a_window_is_proven_and_the_faulty_are_declared() {
    let rig = Rig::new();
    let made = rig.run(Job::Parameters { profile: Profile::Test2k, circuit: Circuit::WindowPost });
    assert_eq!(made, JobResult::Parameters { origin: Origin::Local });
    let sectors = sealed(&rig, &[5, 3]);
    let out = rig.dir.path().join("window.proof");
    let job =
        |epoch| Job::WindowPost { statement: window(epoch), sectors: sectors.clone(), out: out.clone() };

    // One replica is cut short: the other is proven.
    let replica = ProvableSector::load(&sectors[0]).unwrap().replica_path();
    let mut bytes = fs::read(&replica).unwrap();
    fs::write(&replica, &bytes[..2_000]).unwrap();
    let JobResult::WindowPost { proven: true, faults } = rig.run(job(1)) else {
        panic!("nothing was proven")
    };
    let numbers: Vec<_> = faults.iter().map(|fault| fault.number).collect();
    assert_eq!(numbers, [5]);

    let own = rig.launcher.workshop().parameters();
    let report = verify_file(&out, &own).unwrap();
    assert_eq!(report.key_trust, Some(KeyTrust::OwnLocal));
    assert!(report.to_string().contains("test strength") && !report.is_production());
    assert_eq!(verify_file(&out, &NoKeys).unwrap().key_trust, Some(KeyTrust::FromFile));
    let bare = ProofFile::read(fs::File::open(&out).unwrap()).unwrap().without_key();
    assert!(bare.verify(&own).is_ok());
    assert!(matches!(bare.verify(&NoKeys), Err(ProofFileError::Key(_))));
    assert!(NoKeys.find(Profile::Test2k, Circuit::WindowPost, &[0; 32]).is_none());

    // One replica rots, of the other the tree is gone: nothing is left to prove, and no proof is written.
    bytes.iter_mut().for_each(|byte| *byte ^= 1);
    fs::write(&replica, bytes).unwrap();
    let folder = ProvableSector::load(&sectors[1]).unwrap().replica_path().with_file_name("");
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.to_string_lossy().contains("tree-r-last") {
            fs::remove_file(path).unwrap();
        }
    }
    fs::remove_file(&out).unwrap();
    let JobResult::WindowPost { proven: false, faults } = rig.run(job(2)) else { panic!("proven") };
    assert_eq!(faults.len(), 2);
    assert!(!out.exists());
}

#[test]
#[ignore = "makes the committed Winning PoSt anew; the command that proves one is among the other tests"]
fn a_drawn_sector_is_proven() {
    let rig = Rig::new();
    rig.run(Job::Parameters { profile: Profile::Test2k, circuit: Circuit::WinningPost });
    let sectors = sealed(&rig, &[4]);
    let out = rig.dir.path().join("winning.proof");
    rig.run(Job::WinningPost { statement: winning(), sector: sectors[0].clone(), out: out.clone() });
    verify_file(&out, &rig.launcher.workshop().parameters()).unwrap();
    common::keep_vector("winning-2k.proof", &out);
}

#[test]
fn a_window_of_two_partitions_is_proven() {
    let rig = Rig::new();
    rig.run(Job::Parameters { profile: Profile::Test2k, circuit: Circuit::WindowPost });
    // They are named out of order.
    let sectors = sealed(&rig, &[5, 3, 9]);
    let out = rig.dir.path().join("window.proof");
    let job =
        |epoch| Job::WindowPost { statement: window(epoch), sectors: sectors.clone(), out: out.clone() };
    assert_eq!(rig.run(job(1)), JobResult::WindowPost { proven: true, faults: vec![] });
    verify_file(&out, &NoKeys).unwrap();
    common::keep_vector("window-2k.proof", &out);

    for sector in &sectors[..2] {
        let replica = ProvableSector::load(sector).unwrap().replica_path();
        let mut bytes = fs::read(&replica).unwrap();
        bytes.iter_mut().for_each(|byte| *byte ^= 1);
        fs::write(&replica, bytes).unwrap();
    }
    let JobResult::WindowPost { proven: true, faults } = rig.run(job(2)) else {
        panic!("nothing was proven")
    };
    let mut numbers: Vec<_> = faults.iter().map(|fault| fault.number).collect();
    numbers.sort_unstable();
    assert_eq!(numbers, [3, 5]);
    verify_file(&out, &NoKeys).unwrap();
}
