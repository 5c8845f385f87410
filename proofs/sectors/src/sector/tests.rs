//! What needs no worker: making, filling and opening sectors. Sealing is in `tests/`, with real workers.

use holdfast_proofs::CommpHasher;

use super::*;
use crate::profile::{Profile, SealMode, TEST_STRENGTH};

const SPEC: SectorSpec =
    SectorSpec { profile: Profile::Test2k, mode: SealMode::Interactive, prover: Bytes32([1; 32]), number: 4 };

fn piece(len: usize) -> (PieceCid, Vec<u8>) {
    let payload: Vec<u8> = (0..len).map(|i| (i % 249) as u8).collect();
    let mut hasher = CommpHasher::new();
    hasher.update(&payload);
    (hasher.finish(), payload)
}

#[test]
fn pieces_stay_and_packing_hashes_them() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s");
    let workshop = Workshop::create(dir.path()).unwrap();
    let (first, second) = (piece(300), piece(127));
    {
        let mut sector = Sector::create(&path, SPEC).unwrap();
        assert_eq!(sector.add_piece(first.0, first.1.as_slice()).unwrap(), 0);
    }
    assert!(matches!(Sector::create(&path, SPEC), Err(SectorError::Exists { .. })));
    let (mut sector, setbacks) = Sector::open(&path).unwrap();
    assert!(setbacks.is_empty());
    assert_eq!(sector.add_piece(second.0, second.1.as_slice()).unwrap(), 512);
    assert_eq!(sector.advance(&workshop).unwrap(), Step::Finished(Phase::Packed));
    assert!(sector.check_unsealed());
    assert_eq!(sector.advance(&workshop).unwrap(), Step::NeedsTicket);
    assert!(matches!(sector.set_seed(Bytes32::default()), Err(SectorError::WrongPhase { .. })));
    assert!(matches!(sector.drop_unsealed(), Err(SectorError::WrongPhase { .. })));
    assert!(fs::read_to_string(path.join(JOURNAL)).unwrap().contains(TEST_STRENGTH));
    let mut out = Vec::new();
    sector.read_piece(&workshop, &first.0, 3, 200, &mut out).unwrap();
    assert_eq!(out, first.1[3..203]);
    sector.set_ticket(Bytes32::default()).unwrap();
    // This process was not started as a worker.
    assert!(matches!(sector.advance(&workshop), Err(SectorError::Workshop(_))));
}

#[test]
fn bytes_of_a_piece_that_was_not_entered_do_not_stay() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s");
    let workshop = Workshop::create(dir.path()).unwrap();
    let small = piece(100);
    let mut sector = Sector::create(&path, SPEC).unwrap();
    sector.add_piece(small.0, small.1.as_slice()).unwrap();
    // As if power had failed before the journal: bytes in the gap and behind.
    let mut bytes = fs::read(path.join(UNSEALED)).unwrap();
    bytes[128..2_048].fill(9);
    fs::write(path.join(UNSEALED), bytes).unwrap();
    let large = piece(600);
    assert_eq!(sector.add_piece(large.0, large.1.as_slice()).unwrap(), 1_024);
    sector.advance(&workshop).unwrap();
    let bytes = fs::read(path.join(UNSEALED)).unwrap();
    assert!(bytes[128..1_024].iter().all(|byte| *byte == 0));
}

#[test]
fn journals_that_are_not_ours_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s");
    drop(Sector::create(&path, SPEC).unwrap());
    let good = fs::read_to_string(path.join(JOURNAL)).unwrap();
    let edits: [(&str, &str); 5] = [
        // A sum that is there must be right, whatever the version.
        ("\"version\": 2", "\"version\": 1"),
        ("\"number\": 4", "\"number\": 5"),
        ("\"finished\": []", "\"finished\": [{\"phase\": \"pre-commit1\", \"outputs\": []}]"),
        ("\"finished\": []", "\"finished\": [], \"more\": 1"),
        ("test-2k", "test-3k"),
    ];
    for (from, to) in edits {
        let bad = good.replacen(from, to, 1);
        assert_ne!(bad, good, "{from}");
        fs::write(path.join(JOURNAL), bad).unwrap();
        assert!(matches!(Sector::open(&path), Err(SectorError::Journal { .. })), "{to}");
    }
    fs::write(path.join(JOURNAL), &good[..good.len() / 2]).unwrap();
    assert!(matches!(Sector::open(&path), Err(SectorError::Journal { .. })));
    let newer = good.replacen("\"version\": 2", "\"version\": 3", 1);
    fs::write(path.join(JOURNAL), newer.replacen('{', "{\"what\": 1,", 1)).unwrap();
    assert!(matches!(Sector::open(&path), Err(SectorError::Newer { version: 3, .. })));
    fs::write(path.join(JOURNAL), good).unwrap();
    assert!(Sector::open(&path).is_ok());
}

#[test]
fn a_turned_bit_of_a_journal_is_noticed() {
    let journal = Journal::new(SPEC);
    let good = journal.encode().unwrap();
    let read = |bytes: &[u8]| Journal::parse(bytes).map(|read| (read.spec, read.pieces, read.finished));
    let ours = read(&good).unwrap();
    for bit in 0..good.len() * 8 {
        let mut rotten = good.clone();
        rotten[bit / 8] ^= 1 << (bit % 8);
        // Spaces may turn into tabs.
        assert!(read(&rotten).is_err() || read(&rotten).as_ref() == Ok(&ours), "bit {bit}");
    }
}

#[test]
fn journals_of_the_first_version_are_read_and_become_of_the_newest() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s");
    drop(Sector::create(&path, SPEC).unwrap());
    let newest = fs::read_to_string(path.join(JOURNAL)).unwrap();
    let mut first: serde_json::Value = serde_json::from_str(&newest).unwrap();
    first["version"] = 1.into();
    first.as_object_mut().unwrap().remove("sum").unwrap();
    fs::write(path.join(JOURNAL), first.to_string()).unwrap();
    Sector::open(&path).unwrap().0.set_ticket(Bytes32([7; 32])).unwrap();
    let text = fs::read_to_string(path.join(JOURNAL)).unwrap();
    assert!(text.contains("\"version\": 2") && text.contains("\"sum\""), "{text}");
    assert_eq!(Sector::open(&path).unwrap().0.ticket(), Some(Bytes32([7; 32])));
}

#[test]
fn a_slot_that_cannot_be_read_is_told_from_a_sector_that_cannot_be_written() {
    struct Rotten;
    impl io::Read for Rotten {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            Err(io::Error::other("rotten"))
        }
    }
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s");
    let mut sector = Sector::create(&path, SPEC).unwrap();
    let (cid, payload) = piece(300);
    assert!(matches!(sector.add_piece(cid, Rotten), Err(SectorError::Payload(_))));
    assert!(matches!(sector.add_piece(cid, &payload[..200]), Err(SectorError::Payload(_))));
    // Nobody can write there: as little as where the disk is full.
    fs::remove_file(path.join(UNSEALED)).unwrap();
    fs::create_dir(path.join(UNSEALED)).unwrap();
    assert!(matches!(sector.add_piece(cid, payload.as_slice()), Err(SectorError::Io { .. })));
}
