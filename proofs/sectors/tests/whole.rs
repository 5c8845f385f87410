//! A seal with its Groth16 proof, whole. Slow: `--ignored` alone runs it.

#![allow(clippy::unwrap_used)]

mod common;

use std::path::PathBuf;

use common::{Rig, SEED, payloads};
use holdfast_sectors::proof::verify_file;
use holdfast_sectors::sector::{Phase, Sector};
use holdfast_sectors::work::{ChildEnd, Job};
use holdfast_sectors::{Circuit, Profile, SealMode};

/// Parameters that an earlier run made may be used again: `HOLDFAST_PARAMETERS` names their folder.
#[allow(clippy::disallowed_methods)]
fn parameters(rig: &Rig) {
    let own = rig.launcher.workshop().parameters();
    if let Ok(from) = std::env::var("HOLDFAST_PARAMETERS") {
        for entry in std::fs::read_dir(PathBuf::from(from)).unwrap() {
            let path = entry.unwrap().path();
            std::fs::hard_link(&path, own.dir().join(path.file_name().unwrap()))
                .or_else(|_| std::fs::copy(&path, own.dir().join(path.file_name().unwrap())).map(drop))
                .unwrap();
        }
    }
    rig.run(Job::Parameters { profile: Profile::Test2k, circuit: Circuit::Porep });
}

#[test]
#[ignore = "130 CPU seconds a proof, and 1,500 for parameters unless HOLDFAST_PARAMETERS names some"]
fn a_sector_is_sealed_and_its_proof_convinces() {
    let rig = Rig::new();
    parameters(&rig);
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
#[ignore = "20 CPU seconds: 8 MiB through pre-commit and commit 1"]
fn eight_mebibytes_are_sealed_as_far_as_commit_1() {
    let rig = Rig::new();
    let path = rig.dir.path().join("8m");
    let spec = holdfast_sectors::sector::SectorSpec {
        profile: Profile::Test8m,
        mode: SealMode::Interactive,
        prover: common::PROVER,
        number: 1,
    };
    let payload: Vec<u8> = (0..3_000_000_u32).map(|i| (i % 253) as u8).collect();
    {
        let mut sector = Sector::create(&path, spec).unwrap();
        sector.add_piece(common::cid(&payload), payload.as_slice()).unwrap();
        sector.set_ticket(common::TICKET).unwrap();
    }
    rig.seal(&path, Phase::PreCommit2);
    Sector::open(&path).unwrap().0.set_seed(SEED).unwrap();
    assert_eq!(rig.seal(&path, Phase::Commit1).0, Phase::Commit1);
    // Without parameters commit 2 says what is missing, for good.
    let ended = rig.end(Job::Seal { sector: path, through: Phase::Commit2, seed: None });
    let ChildEnd::Failed { permanent: true, reason } = ended else { panic!("{ended:?}") };
    assert!(reason.contains("is missing"), "{reason}");
}
