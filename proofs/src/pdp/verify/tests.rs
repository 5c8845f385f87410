//! `vectors/pdp.json` comes from an independent mirror of the definitions (plain Python integers and
//! hashlib), so that prover and verifier cannot share a mistake. Payload byte i is
//! (i * multiplier + i / 251) mod 256.
#![allow(clippy::unwrap_used)]

use sha2::{Digest, Sha256};

use super::*;
use crate::commp::{CommpHasher, TreeCache, TreeLevel};
use crate::pdp::{SeedInputs, prove};

fn hex(bytes: impl AsRef<[u8]>) -> String {
    bytes.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

fn payload(len: usize, multiplier: usize) -> Vec<u8> {
    (0..len).map(|i| (i * multiplier + i / 251) as u8).collect()
}

fn proven(payload: &[u8], challenge: &Challenge) -> (PieceCid, PossessionProof) {
    let mut hasher = CommpHasher::with_cache(TreeLevel::MIN);
    hasher.update(payload);
    let (piece, cache) = hasher.finish_with_cache();
    let proof = prove(payload, &TreeCache::open(cache, &piece).unwrap(), challenge).unwrap();
    (piece, proof)
}

#[test]
fn golden() {
    let vectors: serde_json::Value = serde_json::from_str(include_str!("../../../vectors/pdp.json")).unwrap();
    let vectors = vectors.as_array().unwrap();
    assert_eq!(vectors.len(), 8);
    for vector in vectors {
        let number = |name: &str| vector[name].as_u64().unwrap();
        let epoch = number("epoch");
        let deal = format!("deal-{epoch}");
        let seed = Challenge::seed_from(&SeedInputs {
            nonce: [epoch as u8 + 1; 32],
            auditor: b"auditor",
            prover: b"prover",
            deal: deal.as_bytes(),
            epoch,
        });
        assert_eq!(hex(seed), vector["seed"]);
        let challenge = Challenge::new(seed, number("count") as u16).unwrap();
        let payload = payload(number("payload_len") as usize, number("multiplier") as usize);
        let (piece, proof) = proven(&payload, &challenge);
        assert_eq!(piece.to_string(), vector["piece"]);
        assert_eq!(serde_json::json!(challenge.positions(&piece).unwrap()), vector["positions"]);
        let bytes = proof.encode().unwrap();
        assert_eq!(hex(Sha256::digest(&bytes)), vector["proof_sha256"]);
        if let Some(proof) = vector.get("proof") {
            assert_eq!(&hex(&bytes), proof);
        }
        let verdict = verify(&piece, &challenge, &PossessionProof::decode(&bytes).unwrap()).unwrap();
        assert_eq!((verdict.piece(), verdict.challenge()), (&piece, &challenge));
        assert_eq!(verdict.leaves_checked(), vector["positions"].as_array().unwrap().len());
    }
}

/// Every bit of every input: proof, challenge and piece CID.
#[test]
fn any_flipped_bit_is_refused() {
    let challenge = Challenge::new([42; 32], 3).unwrap();
    let (piece, proof) = proven(&payload(5_000, 3), &challenge);
    let accepted = |piece: &PieceCid, challenge: &Challenge, proof: &[u8]| {
        PossessionProof::decode(proof).and_then(|proof| verify(piece, challenge, &proof)).is_ok()
    };
    let bytes = proof.encode().unwrap();
    assert!(accepted(&piece, &challenge, &bytes));
    let flips = |len: usize| (0..len).flat_map(|at| (0..8).map(move |bit| (at, 1_u8 << bit)));
    for (at, bit) in flips(bytes.len()) {
        let mut bytes = bytes.clone();
        bytes[at] ^= bit;
        assert!(!accepted(&piece, &challenge, &bytes), "proof byte {at}");
    }
    let name = piece.to_bytes();
    for (at, bit) in flips(name.len()) {
        let mut name = name.clone();
        name[at] ^= bit;
        if let Ok(piece) = PieceCid::from_bytes(&name) {
            assert!(!accepted(&piece, &challenge, &bytes), "piece byte {at}");
        }
    }
    for (at, bit) in flips(32) {
        let mut seed = *challenge.seed();
        seed[at] ^= bit;
        assert!(!accepted(&piece, &Challenge::new(seed, 3).unwrap(), &bytes), "seed byte {at}");
    }
    for count in (1..20).filter(|count| *count != 3) {
        assert!(
            !accepted(&piece, &Challenge::new(*challenge.seed(), count).unwrap(), &bytes),
            "count {count}"
        );
    }
}

/// A piece that is asked whole: its proof is its data, whatever seed and count say, and the verdict says so.
#[test]
fn seed_and_count_matter_only_where_leaves_are_drawn() {
    let few = Challenge::new([42; 32], 24).unwrap();
    for (len, whole) in [(1, true), (762, true), (763, false)] {
        let (piece, proof) = proven(&payload(len, 3), &few);
        let verdict = verify(&piece, &few, &proof).unwrap();
        assert_eq!(verdict.asked_whole(), whole, "{len} bytes");
        let (shows, not) = (verdict.shows().join(" "), verdict.does_not_show().join(" "));
        assert_eq!(shows.contains("asked whole"), whole, "{shows}");
        assert_eq!(not.contains("neither the seed nor the number of draws"), whole, "{not}");
        assert_eq!(not.contains("fresh"), !whole, "{not}");
        let others =
            [Challenge::new([43; 32], 24), Challenge::new([42; 32], 25), Challenge::new([1; 32], 512)];
        for other in others.map(Result::unwrap) {
            let accepted = verify(&piece, &other, &proof).is_ok();
            // 763 bytes are 25 leaves: 25 draws ask them whole, and 24 draws of another seed others of them.
            assert_eq!(accepted, whole, "{len} bytes, {other:?}");
        }
        // The data are bound all the same.
        let bytes = proof.encode().unwrap();
        for at in 0..bytes.len() {
            for bit in 0..8 {
                let mut bytes = bytes.clone();
                bytes[at] ^= 1 << bit;
                let twin = PossessionProof::decode(&bytes).and_then(|proof| verify(&piece, &few, &proof));
                assert!(twin.is_err(), "{len} bytes, proof byte {at}");
            }
        }
    }
}

#[test]
fn what_each_fault_is_called() {
    let challenge = Challenge::new([1; 32], 4).unwrap();
    let (piece, proof) = proven(&payload(100_000, 7), &challenge);
    let check = |change: &dyn Fn(&mut PossessionProof)| {
        let mut proof = proof.clone();
        change(&mut proof);
        verify(&piece, &challenge, &proof).unwrap_err()
    };
    assert_eq!(check(&|p| p.leaves.truncate(3)), ProofError::LeafNumber { expected: 4, found: 3 });
    assert_eq!(check(&|p| p.leaves.push([0; 32])), ProofError::LeafNumber { expected: 4, found: 5 });
    let expected = proof.siblings.len();
    let found = expected - 1;
    assert_eq!(check(&|p| p.siblings.truncate(found)), ProofError::SiblingNumber { expected, found });
    let found = expected + 1;
    assert_eq!(check(&|p| p.siblings.push([0; 32])), ProofError::SiblingNumber { expected, found });
    assert_eq!(check(&|p| p.leaves.swap(0, 1)), ProofError::Root);
    assert_eq!(check(&|p| p.siblings.swap(0, 1)), ProofError::Root);
    assert!(matches!(check(&|p| p.leaves[2][31] |= 0x80), ProofError::LeafBits(_)));
    let empty = PieceCid::new(0, zero_node(2)).unwrap();
    assert_eq!(verify(&empty, &challenge, &proof), Err(ProofError::EmptyPiece));
}

/// A root over other data with the same proof shape, and the same root under another length.
#[test]
fn another_piece_is_refused() {
    let challenge = Challenge::new([1; 32], 8).unwrap();
    let (piece, proof) = proven(&payload(60_000, 7), &challenge);
    let (other, _) = proven(&payload(60_000, 9), &challenge);
    assert!(verify(&other, &challenge, &proof).is_err());
    let longer = PieceCid::new(60_001, *piece.root()).unwrap();
    assert!(verify(&longer, &challenge, &proof).is_err());
}
