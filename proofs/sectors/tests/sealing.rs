//! A sector of test strength through its phases, in real workers.

#![allow(clippy::unwrap_used)]

mod common;

use std::fs;
use std::path::Path;

use common::{PROVER, Rig, SEED, TICKET, cid, payloads};
use holdfast_sectors::sector::{Phase, Sector, SectorError};
use holdfast_sectors::work::{ChildEnd, Job, JobResult, Waits};
use holdfast_sectors::{Bytes32, SealMode};

fn read(rig: &Rig, sector: &Path, payload: &[u8], offset: u64, len: u64) -> Vec<u8> {
    let out = rig.dir.path().join("read");
    rig.run(Job::ReadPiece { sector: sector.to_owned(), piece: cid(payload), offset, len, out: out.clone() });
    fs::read(out).unwrap()
}

#[test]
fn a_sector_is_sealed_as_far_as_commit_1_and_read_back() {
    let rig = Rig::new();
    let pieces = payloads();
    let path = rig.sector("s", 1, SealMode::Interactive, &pieces);
    let (phase, waits, setbacks) = rig.seal(&path, Phase::Commit1);
    assert_eq!((phase, waits, setbacks), (Phase::PreCommit2, Some(Waits::Seed), vec![]));
    {
        let (mut sector, _) = Sector::open(&path).unwrap();
        assert!(sector.comm_r().is_some());
        sector.set_seed(SEED).unwrap();
        let again = sector.set_seed(TICKET).unwrap_err();
        assert!(matches!(again, SectorError::AlreadySet { .. }), "{again}");
        let late = sector.add_piece(cid(&pieces[0]), pieces[0].as_slice()).unwrap_err();
        assert!(matches!(late, SectorError::WrongPhase { .. }), "{late}");
    }
    assert_eq!(rig.seal(&path, Phase::Commit1), (Phase::Commit1, None, vec![]));
    let journal = fs::read_to_string(path.join("journal.json")).unwrap();
    assert!(journal.contains("test strength"));

    // From the unsealed copy, then from the replica: every byte, and ranges that begin and end anywhere.
    for unsealed in [true, false] {
        for payload in &pieces {
            let len = payload.len() as u64;
            for (offset, len) in [(0, len), (1, len - 2), (len - 1, 1), (len / 2, 0)] {
                let want = &payload[offset as usize..(offset + len) as usize];
                assert_eq!(read(&rig, &path, payload, offset, len), want, "{offset}+{len} {unsealed}");
            }
        }
        if unsealed {
            let mut bytes = fs::read(path.join("unsealed")).unwrap();
            bytes[3] ^= 1;
            fs::write(path.join("unsealed"), bytes).unwrap();
        }
    }
    let (sector, setbacks) = Sector::open(&path).unwrap();
    assert!(setbacks.is_empty() && !sector.check_unsealed());
    drop(sector);
    assert_eq!(rig.run(Job::RestoreUnsealed { sector: path.clone() }), JobResult::RestoreUnsealed);
    assert!(Sector::open(&path).unwrap().0.check_unsealed());

    let outside = Job::ReadPiece {
        sector: path.clone(),
        piece: cid(&pieces[1]),
        offset: 60,
        len: 41,
        out: rig.dir.path().join("x"),
    };
    let ChildEnd::Failed { permanent: true, .. } = rig.end(outside) else { panic!("outside was read") };
}

#[test]
fn a_synthetic_seal_drops_its_layers_before_the_seed_is_known() {
    let rig = Rig::new();
    let path = rig.sector("s", 2, SealMode::Synthetic, &payloads());
    let (phase, waits, _) = rig.seal(&path, Phase::Commit1);
    assert_eq!((phase, waits), (Phase::Synthetic, Some(Waits::Seed)));
    assert!(!path.join("pc1").exists() && !path.join("pc2").exists());
    let layers = fs::read_dir(path.join("synthetic")).unwrap();
    assert!(
        !layers
            .map(|entry| entry.unwrap().file_name())
            .any(|name| { name.to_string_lossy().contains("layer") })
    );
    Sector::open(&path).unwrap().0.set_seed(SEED).unwrap();
    assert_eq!(rig.seal(&path, Phase::Commit1).0, Phase::Commit1);
}

#[test]
fn replicas_differ_by_prover_number_ticket_and_mode_only() {
    let rig = Rig::new();
    let comm_r = |name: &str, number, mode| {
        let path = rig.sector(name, number, mode, &payloads());
        rig.seal(&path, Phase::PreCommit2);
        Sector::open(&path).unwrap().0.comm_r().unwrap()
    };
    let first = comm_r("a", 1, SealMode::Interactive);
    assert_eq!(first, comm_r("b", 1, SealMode::Interactive));
    assert_ne!(first, comm_r("c", 2, SealMode::Interactive));
    assert_ne!(first, comm_r("d", 1, SealMode::Synthetic));
    assert_ne!(first, Bytes32::default());
    assert_ne!(PROVER, TICKET);
}

#[test]
fn other_bytes_than_the_pieces_own_are_never_sealed() {
    let rig = Rig::new();
    let pieces = payloads();
    let path = rig.sector("s", 3, SealMode::Interactive, &pieces[..2]);
    {
        let (mut sector, _) = Sector::open(&path).unwrap();
        let error = sector.add_piece(cid(&pieces[1]), pieces[0].as_slice()).unwrap_err();
        assert!(matches!(error, SectorError::OtherPiece { .. }), "{error}");
        let error = sector.add_piece(cid(&pieces[0]), &pieces[0][..9]).unwrap_err();
        assert!(matches!(error, SectorError::Payload(_)), "{error}");
        let error = sector.add_piece(cid(&vec![1; 1_100]), vec![1; 1_100].as_slice()).unwrap_err();
        assert!(matches!(error, SectorError::Packing(_)), "{error}");
    }
    // A bit that rotted before packing is found by the piece's name, and the piece can be written again.
    let mut bytes = fs::read(path.join("unsealed")).unwrap();
    bytes[600] ^= 4;
    fs::write(path.join("unsealed"), &bytes).unwrap();
    let ended = rig.end(Job::Seal { sector: path.clone(), through: Phase::Packed, seed: None });
    let ChildEnd::Failed { permanent: true, reason } = ended else { panic!("{ended:?}") };
    assert!(reason.contains(&cid(&pieces[1]).to_string()), "{reason}");
    Sector::open(&path).unwrap().0.rewrite_piece(1, pieces[1].as_slice()).unwrap();
    assert_eq!(rig.seal(&path, Phase::Packed).0, Phase::Packed);
}

#[test]
fn a_damaged_table_of_parents_does_not_spoil_a_seal() {
    let rig = Rig::new();
    let comm_r = |name: &str| {
        let path = rig.sector(name, 1, SealMode::Interactive, &payloads());
        rig.seal(&path, Phase::PreCommit2);
        Sector::open(&path).unwrap().0.comm_r().unwrap()
    };
    let before = comm_r("a");
    let parents = fs::read_dir(rig.launcher.workshop().dir().join("parents")).unwrap();
    let mut damaged = 0;
    for entry in parents {
        let path = entry.unwrap().path();
        let mut bytes = fs::read(&path).unwrap();
        bytes.iter_mut().for_each(|byte| *byte ^= 1);
        fs::write(&path, bytes).unwrap();
        damaged += 1;
    }
    assert!(damaged > 0);
    assert_eq!(comm_r("b"), before);
}
