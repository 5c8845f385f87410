//! Commitments against other implementations:
//! `cc.csv`: filecoin-project/go-fil-commp-hashhash, testdata/0xCC.txt (made there with Lotus 1.5.2);
//! `sha512.csv`: storacha/data-segment, test/commp/vector.csv at 7436224 (bytes: chained SHA-512 digests, as
//! its test/util.js makes them). Both list payload length, padded length and v1 piece CID.
#![allow(clippy::unwrap_used)]

use std::str::FromStr;

use cid::Cid;
use proptest::prelude::*;
use sha2::{Digest, Sha512};

use super::*;
use crate::commp::{TreeCache, leaves_of};

fn commit(payload: &[u8]) -> PieceCid {
    let mut hasher = CommpHasher::new();
    hasher.update(payload);
    hasher.finish()
}

/// Level by level over all leaves, padding included: the definition.
fn slow(payload: &[u8]) -> PieceCid {
    let mut nodes = leaves_of(payload);
    nodes.resize(nodes.len().next_power_of_two().max(4), [0; 32]);
    while nodes.len() > 1 {
        nodes = nodes.chunks(2).map(|pair| hash_pair(&pair[0], &pair[1])).collect();
    }
    PieceCid::new(payload.len() as u64, nodes[0]).unwrap()
}

fn check_vectors(csv: &str, payload: impl Fn(usize) -> Vec<u8>) {
    assert!(csv.lines().count() > 15);
    for line in csv.lines() {
        let [len, padded, cid] = line.split(',').collect::<Vec<_>>().try_into().unwrap();
        let piece = commit(&payload(len.parse().unwrap()));
        assert_eq!(piece.payload_len().to_string(), len);
        assert_eq!(piece.padded_len().to_string(), padded);
        assert_eq!(piece.root(), Cid::from_str(cid).unwrap().hash().digest(), "{line}");
    }
}

#[test]
fn lotus_vectors() {
    check_vectors(include_str!("cc.csv"), |len| vec![0xcc; len]);
}

#[test]
fn data_segment_vectors() {
    check_vectors(include_str!("sha512.csv"), |len| {
        let mut bytes: Vec<u8> = Vec::new();
        let mut last: Vec<u8> = Vec::new();
        while bytes.len() < len {
            last = Sha512::digest(&last).to_vec();
            bytes.extend_from_slice(&last);
        }
        bytes.truncate(len);
        bytes
    });
}

#[test]
fn specification_payloads() {
    let mut payload = [[0; 127], [1; 127], [2; 127], [3; 127]].concat();
    assert_eq!(
        commit(&payload).to_string(),
        "bafkzcibcaaces3nobte6ezpp4wqan2age2s5yxcatzotcvobhgcmv5wi2xh5mbi"
    );
    payload.resize(512, 0);
    assert_eq!(
        commit(&payload).to_string(),
        "bafkzcibd7abqlxticxolgseegik2stpfgkkuwyf6kufex3doorkvmzpjuxwe4dz4"
    );
    payload.push(0);
    assert_eq!(
        commit(&payload).to_string(),
        "bafkzcibd64bqlxticxolgseegik2stpfgkkuwyf6kufex3doorkvmzpjuxwe4dz4"
    );
    assert_eq!(commit(&[]).to_string(), "bafkzcibcp4bdomn3tgwgrh3g532zopskstnbrd2n3sxfqbze7rxt7vqn7veigmy");
    assert_eq!(
        commit(b"test data").to_string(),
        "bafkzcibcoybm2jlqsbekq6uluyl7xm5ffemw7iuzni5ez3a27iwy4qu3ssebqdq"
    );
}

/// Lengths around every edge: quads, batches, powers of two.
#[test]
fn edges_equal_the_definition() {
    let payload: Vec<u8> = (0..BATCH_BYTES * 5 + 300).map(|i| (i * 31 + i / 7) as u8).collect();
    for around in
        [0, 31, 63, 95, 127, 254, 508, BATCH_BYTES, BATCH_BYTES * 2, BATCH_BYTES * 3, BATCH_BYTES * 4]
    {
        for len in around.saturating_sub(2)..around + 3 {
            assert_eq!(commit(&payload[..len]), slow(&payload[..len]), "{len}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// However the bytes arrive, on however many threads, name and cache are the same.
    #[test]
    fn any_split(len in 0..BATCH_BYTES * 40, cuts in proptest::collection::vec(1..BATCH_BYTES * 20, 0..8),
                 level in 5_u8..=16, threads in 1_usize..4, seed: u8) {
        let payload: Vec<u8> = (0..len).map(|i| (i as u64).wrapping_mul(0x9e37_79b9).to_le_bytes()[2] ^ seed).collect();
        let level = TreeLevel::new(level).unwrap();
        let mut whole = CommpHasher::with_cache(level);
        whole.update(&payload);
        let (piece, cache) = whole.finish_with_cache();
        prop_assert_eq!(cache.len() as u64, level.file_len(len as u64));
        prop_assert!(TreeCache::open(cache.clone(), &piece).is_ok());

        let mut hasher = CommpHasher::with_cache(level);
        let (mut rest, mut drained) = (payload.as_slice(), Vec::new());
        for (turn, cut) in cuts.into_iter().enumerate() {
            let (part, tail) = rest.split_at(cut.min(rest.len()));
            if turn % 2 == 0 { hasher.update_parallel(part, threads) } else { hasher.update(part) }
            drained.extend(hasher.drain_cache());
            rest = tail;
        }
        hasher.update_parallel(rest, threads);
        prop_assert_eq!(hasher.payload_len(), len as u64);
        let (again, end) = hasher.finish_with_cache();
        drained.extend(end);
        prop_assert_eq!(again, piece);
        prop_assert_eq!(drained, cache);
        if len < BATCH_BYTES * 4 {
            prop_assert_eq!(slow(&payload), piece);
        }
    }
}
