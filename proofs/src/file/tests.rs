use proptest::prelude::*;

use super::*;
use crate::commp::{CommpHasher, TreeCache, TreeLevel};
use crate::pdp::{ProveError, prove, prove_set};

fn file() -> PossessionFile {
    let payload: Vec<u8> = (0..5_000_u32).map(|i| (i % 251) as u8).collect();
    let mut hasher = CommpHasher::with_cache(TreeLevel::MIN);
    hasher.update(&payload);
    let (piece, tree) = hasher.finish_with_cache();
    let challenge = Challenge::new([7; 32], 3).unwrap();
    let proof = prove(&payload, &TreeCache::open(tree, &piece).unwrap(), &challenge).unwrap();
    PossessionFile { piece, challenge, proof }
}

fn set_file() -> SetFile {
    let payloads = [700_usize, 3_000, 90].map(|len| (0..len).map(|i| (i % 241) as u8).collect::<Vec<u8>>());
    let named = payloads.each_ref().map(|payload| {
        let mut hasher = CommpHasher::with_cache(TreeLevel::MIN);
        hasher.update(payload);
        hasher.finish_with_cache()
    });
    let set = ProvingSet::new(named.iter().map(|(piece, _)| *piece).collect()).unwrap();
    let challenge = Challenge::new([7; 32], 5).unwrap();
    let proof = prove_set(&set, &challenge, |index, piece| {
        Ok::<_, ProveError>((&payloads[index], TreeCache::open(&named[index].1, piece)?))
    });
    SetFile { set, challenge, proof: proof.unwrap() }
}

#[test]
fn a_file_is_read_back_and_verifies() {
    let file = file();
    let bytes = file.encode().unwrap();
    assert_eq!(ProofFile::decode(&bytes).unwrap(), ProofFile::Possession(file.clone()));
    assert_eq!(file.verify().unwrap().leaves_checked(), 3);
    let mut newer = bytes.clone();
    newer[7] = 3;
    assert_eq!(ProofFile::decode(&newer), Err(FileError::Version(3)));
    let set = set_file();
    let bytes = set.encode().unwrap();
    assert_eq!(bytes[7], 2, "older programs refuse it by its version");
    assert_eq!(ProofFile::decode(&bytes).unwrap(), ProofFile::Set(set.clone()));
    let verdict = set.verify().unwrap();
    assert_eq!((verdict.leaves_checked(), verdict.asked_whole()), (5, false));
    assert!(verdict.shows()[0].contains("5 leaves, drawn from all 3 piece(s)"));
    assert_eq!(ProofFile::decode(b"HFPROO"), Err(FileError::Magic));
    let long = vec![0; PROOF_FILE_BYTES_MAX + 1];
    assert_eq!(ProofFile::decode(&long), Err(FileError::TooLong(long.len())));
}

/// The committed files are these: their format has not changed. `HOLDFAST_BLESS=1` writes them.
#[test]
#[allow(clippy::disallowed_methods)]
fn the_committed_files_are_still_read() {
    for (name, bytes) in [
        ("possession.proof", file().encode().unwrap()),
        ("possession-set.proof", set_file().encode().unwrap()),
    ] {
        let path = format!("{}/vectors/{name}", env!("CARGO_MANIFEST_DIR"));
        if std::env::var("HOLDFAST_BLESS").is_ok() {
            std::fs::write(&path, &bytes).unwrap();
        }
        assert_eq!(std::fs::read(path).unwrap(), bytes, "{name}");
    }
}

#[test]
fn any_damage_is_refused() {
    for bytes in [file().encode().unwrap(), set_file().encode().unwrap()] {
        for bit in 0..bytes.len() * 8 {
            let mut twin = bytes.clone();
            twin[bit / 8] ^= 1 << (bit % 8);
            let accepted = match ProofFile::decode(&twin) {
                Ok(ProofFile::Possession(file)) => file.verify().is_ok(),
                Ok(ProofFile::Set(file)) => file.verify().is_ok(),
                Ok(ProofFile::Sealed(_)) => true,
                Err(_) => false,
            };
            assert!(!accepted, "bit {bit}");
        }
        for cut in 0..bytes.len() {
            assert!(ProofFile::decode(&bytes[..cut]).is_err(), "cut at {cut}");
        }
    }
}

#[test]
fn sealed_proofs_are_told_by_name() {
    let vectors = concat!(env!("CARGO_MANIFEST_DIR"), "/sectors/vectors");
    for (name, kind) in [
        ("seal-2k.proof", "a sealed sector"),
        ("window-2k.proof", "a Window PoSt"),
        ("winning-2k.proof", "a Winning PoSt"),
    ] {
        let bytes = std::fs::read(format!("{vectors}/{name}")).unwrap();
        assert_eq!(ProofFile::decode(&bytes), Ok(ProofFile::Sealed(kind)), "{name}");
    }
}

proptest! {
    #[test]
    fn decoding_is_total(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _ = ProofFile::decode(&bytes);
        for version in [1, 2] {
            let mut framed = b"HFPROOF".to_vec();
            framed.push(version);
            framed.extend(&bytes);
            let _ = ProofFile::decode(&framed);
        }
    }
}
