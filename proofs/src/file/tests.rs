use proptest::prelude::*;

use super::*;
use crate::commp::{CommpHasher, TreeCache, TreeLevel};
use crate::pdp::prove;

fn file() -> PossessionFile {
    let payload: Vec<u8> = (0..5_000_u32).map(|i| (i % 251) as u8).collect();
    let mut hasher = CommpHasher::with_cache(TreeLevel::MIN);
    hasher.update(&payload);
    let (piece, tree) = hasher.finish_with_cache();
    let challenge = Challenge::new([7; 32], 3).unwrap();
    let proof = prove(&payload, &TreeCache::open(tree, &piece).unwrap(), &challenge).unwrap();
    PossessionFile { piece, challenge, proof }
}

#[test]
fn a_file_is_read_back_and_verifies() {
    let file = file();
    let bytes = file.encode().unwrap();
    assert_eq!(ProofFile::decode(&bytes).unwrap(), ProofFile::Possession(file.clone()));
    assert_eq!(file.verify().unwrap().leaves_checked(), 3);
    let mut newer = bytes.clone();
    newer[7] = 2;
    assert_eq!(ProofFile::decode(&newer), Err(FileError::Version(2)));
    assert_eq!(ProofFile::decode(b"HFPROO"), Err(FileError::Magic));
    let long = vec![0; PROOF_FILE_BYTES_MAX + 1];
    assert_eq!(ProofFile::decode(&long), Err(FileError::TooLong(long.len())));
}

/// The committed file is this one: its format has not changed. `HOLDFAST_BLESS=1` writes it.
#[test]
#[allow(clippy::disallowed_methods)]
fn the_committed_file_is_still_read() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/vectors/possession.proof");
    if std::env::var("HOLDFAST_BLESS").is_ok() {
        std::fs::write(path, file().encode().unwrap()).unwrap();
    }
    assert_eq!(std::fs::read(path).unwrap(), file().encode().unwrap());
}

#[test]
fn any_damage_is_refused() {
    let bytes = file().encode().unwrap();
    for bit in 0..bytes.len() * 8 {
        let mut twin = bytes.clone();
        twin[bit / 8] ^= 1 << (bit % 8);
        let accepted = match ProofFile::decode(&twin) {
            Ok(ProofFile::Possession(file)) => file.verify().is_ok(),
            Ok(ProofFile::Sealed(_)) => true,
            Err(_) => false,
        };
        assert!(!accepted, "bit {bit}");
    }
    for cut in 0..bytes.len() {
        assert!(ProofFile::decode(&bytes[..cut]).is_err(), "cut at {cut}");
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
        let mut framed = b"HFPROOF\x01".to_vec();
        framed.extend(bytes);
        let _ = ProofFile::decode(&framed);
    }
}
