//! Seals with their Groth16 proofs, whole, of both test profiles. Slow: `--ignored` alone runs it.

#![allow(clippy::unwrap_used)]

mod common;

use std::fs;
use std::path::PathBuf;

use common::{PROVER, Rig, SEED, TICKET, cid, payloads};
use holdfast_sectors::proof::{PublicSector, WindowStatement, WinningStatement, verify_file};
use holdfast_sectors::sector::{Phase, Sector, SectorSpec};
use holdfast_sectors::work::{ChildEnd, Job, JobResult};
use holdfast_sectors::{Bytes32, Circuit, Profile, SealMode};

/// Parameters that an earlier run made may be used again: `HOLDFAST_PARAMETERS` names their folder.
#[allow(clippy::disallowed_methods)]
fn parameters(rig: &Rig, profile: Profile, circuits: &[Circuit]) {
    let own = rig.launcher.workshop().parameters();
    if let Ok(from) = std::env::var("HOLDFAST_PARAMETERS") {
        for entry in fs::read_dir(PathBuf::from(from)).unwrap() {
            let path = entry.unwrap().path();
            let to = own.dir().join(path.file_name().unwrap());
            fs::hard_link(&path, &to).or_else(|_| fs::copy(&path, &to).map(drop)).unwrap();
        }
    }
    for circuit in circuits {
        rig.run(Job::Parameters { profile, circuit: *circuit });
    }
}

#[test]
#[ignore = "minutes: parameters for a seal, unless HOLDFAST_PARAMETERS names some, and two Groth16 proofs"]
fn a_sector_is_sealed_and_its_proof_convinces() {
    let rig = Rig::new();
    parameters(&rig, Profile::Test2k, &[Circuit::Porep]);
    // The second kind of seal is proven under the parameters of the first: its circuit is the same.
    for (mode, vector) in
        [(SealMode::Interactive, "seal-2k.proof"), (SealMode::Synthetic, "seal-2k-synthetic.proof")]
    {
        let path = rig.sector(&mode.to_string(), 7, mode, &payloads());
        rig.seal(&path, Phase::Synthetic.min(Phase::Commit1));
        Sector::open(&path).unwrap().0.set_seed(SEED).unwrap();
        assert_eq!(rig.seal(&path, Phase::Cleared).0, Phase::Cleared);
        let proof = Sector::open(&path).unwrap().0.proof_path().unwrap();
        verify_file(&proof, &rig.launcher.workshop().parameters()).unwrap();
        common::keep_vector(vector, &proof);
    }
}

#[test]
#[ignore = "many minutes: 8 MiB with all its parameters, its seal's Groth16 proof, both proofs of spacetime, and unsealing"]
fn eight_mebibytes_are_sealed_proven_and_read_back() {
    let rig = Rig::new();
    let (profile, path) = (Profile::Test8m, rig.dir.path().join("8m"));
    // The library keeps the synthetic proofs of all candidates in memory: of 8 MiB more than the 8 GiB that a worker has here.
    let spec = SectorSpec { profile, mode: SealMode::Interactive, prover: PROVER, number: 1 };
    let payload: Vec<u8> = (0..3_000_000_u32).map(|i| (i % 253) as u8).collect();
    {
        let mut sector = Sector::create(&path, spec).unwrap();
        sector.add_piece(cid(&payload), payload.as_slice()).unwrap();
        sector.set_ticket(TICKET).unwrap();
    }
    rig.seal(&path, Phase::PreCommit2);
    Sector::open(&path).unwrap().0.set_seed(SEED).unwrap();
    assert_eq!(rig.seal(&path, Phase::Commit1).0, Phase::Commit1);
    // Without parameters commit 2 says what is missing, for good.
    let ended = rig.end(Job::Seal { sector: path.clone(), through: Phase::Commit2, seed: None });
    let ChildEnd::Failed { permanent: true, reason } = ended else { panic!("{ended:?}") };
    assert!(reason.contains("is missing"), "{reason}");

    parameters(&rig, profile, &Circuit::ALL);
    let own = rig.launcher.workshop().parameters();
    assert_eq!(rig.seal(&path, Phase::Cleared).0, Phase::Cleared);
    verify_file(&path.join("proof"), &own).unwrap();
    let (beacon, out) = (Bytes32([0x64; 32]), rig.dir.path().join("post"));
    let statement = WindowStatement { profile, prover: PROVER, beacon, epoch: 1, sectors: Vec::new() };
    let job = Job::WindowPost { statement, sectors: vec![path.clone()], out: out.clone() };
    assert_eq!(rig.run(job), JobResult::WindowPost { proven: true, faults: vec![] });
    verify_file(&out, &own).unwrap();
    let sector = PublicSector { number: 0, comm_r: Bytes32::default() };
    let statement = WinningStatement { profile, prover: PROVER, beacon, epoch: 1, sector };
    rig.run(Job::WinningPost { statement, sector: path.clone(), out: out.clone() });
    verify_file(&out, &own).unwrap();

    assert_eq!(rig.run(Job::DropUnsealed { sector: path.clone() }), JobResult::DropUnsealed);
    let (offset, len) = (1_234_567, 1_000);
    let job = Job::ReadPiece { sector: path, piece: cid(&payload), offset, len, out: out.clone() };
    assert_eq!(rig.run(job), JobResult::ReadPiece { unsealed: true });
    assert_eq!(fs::read(out).unwrap(), payload[offset as usize..(offset + len) as usize]);
}
