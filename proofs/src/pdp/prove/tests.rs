#![allow(clippy::unwrap_used)]

use std::sync::atomic::{AtomicU64, Ordering};

use proptest::prelude::*;

use super::*;
use crate::pdp::verify;

fn payload(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i * 37 + i / 251) as u8).collect()
}

fn cached(payload: &[u8], level: u8) -> (PieceCid, Vec<u8>) {
    let mut hasher = CommpHasher::with_cache(TreeLevel::new(level).unwrap());
    hasher.update(payload);
    hasher.finish_with_cache()
}

/// Bytes that count what is read of them.
struct Counted<T> {
    bytes: T,
    read: AtomicU64,
}

impl<T: ReadAt> ReadAt for Counted<T> {
    fn read_exact_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        self.read.fetch_add(buf.len() as u64, Ordering::Relaxed);
        self.bytes.read_exact_at(offset, buf)
    }

    fn size(&self) -> io::Result<u64> {
        self.bytes.size()
    }
}

/// 24 places of a 4 MiB piece: what the module's page says is read, and no more.
#[test]
fn reads_are_bounded() {
    let bytes = payload(4 << 20);
    let (piece, file) = cached(&bytes, 7);
    let source = Counted { bytes, read: AtomicU64::new(0) };
    let file = Counted { bytes: file, read: AtomicU64::new(0) };
    let cache = TreeCache::open(&file, &piece).unwrap();
    let challenge = Challenge::new([1; 32], 24).unwrap();
    let proof = prove(&source, &cache, &challenge).unwrap();
    verify(&piece, &challenge, &proof).unwrap();
    assert!(source.read.into_inner() <= 24 * 127 * 32);
    // One page a place for level 7, eight nodes of level 14, the frame.
    assert!(file.read.into_inner() <= 24 * 4096 + 16 * 32 + 128);
}

#[test]
fn a_file_proves_as_memory_does() {
    let bytes = payload(100_000);
    let (piece, cache) = cached(&bytes, 5);
    let folder = tempfile::tempdir().unwrap();
    let (data_path, cache_path) = (folder.path().join("slot"), folder.path().join("tree"));
    std::fs::write(&data_path, &bytes).unwrap();
    std::fs::write(&cache_path, &cache).unwrap();
    let data = std::fs::File::open(&data_path).unwrap();
    let tree = TreeCache::open(std::fs::File::open(&cache_path).unwrap(), &piece).unwrap();
    let challenge = Challenge::new([3; 32], 24).unwrap();
    let proof = prove(&data, &tree, &challenge).unwrap();
    assert_eq!(proof, prove(&bytes, &TreeCache::open(cache, &piece).unwrap(), &challenge).unwrap());
    verify(&piece, &challenge, &proof).unwrap();
}

#[test]
fn a_source_of_another_length_is_refused() {
    let bytes = payload(1000);
    let (piece, cache) = cached(&bytes, 5);
    let cache = TreeCache::open(cache, &piece).unwrap();
    let challenge = Challenge::new([3; 32], 2).unwrap();
    for source in [&bytes[..999], &payload(1001), &[]] {
        let error = prove(source, &cache, &challenge).unwrap_err();
        assert!(matches!(error, ProveError::SourceLength { expected: 1000, .. }));
        assert!(matches!(
            rebuild_cache(source, &piece, TreeLevel::MIN),
            Err(ProveError::SourceLength { .. })
        ));
    }
    let (empty, cache) = cached(&[], 5);
    let cache = TreeCache::open(cache, &empty).unwrap();
    let error = prove(&[][..], &cache, &challenge).unwrap_err();
    assert!(matches!(error, ProveError::Challenge(ProofError::EmptyPiece)));
}

/// A flipped byte of the cache either is found or did not matter; a proof that leaves is a proof.
#[test]
fn damaged_caches_never_make_bad_proofs() {
    let bytes = payload(200_000);
    let (piece, cache) = cached(&bytes, 5);
    assert_eq!(rebuild_cache(&bytes, &piece, TreeLevel::MIN).unwrap(), cache);
    let challenge = Challenge::new([4; 32], 12).unwrap();
    let mut found = 0;
    for at in 0..cache.len() {
        let mut damaged = cache.clone();
        damaged[at] ^= 1 << (at % 8);
        let proof = TreeCache::open(damaged, &piece)
            .map_err(ProveError::from)
            .and_then(|cache| prove(&bytes, &cache, &challenge));
        match proof {
            Ok(proof) => assert!(verify(&piece, &challenge, &proof).is_ok()),
            Err(ProveError::Cache(error)) => {
                assert!(error.needs_rebuild());
                found += 1;
            }
            Err(other) => panic!("{other}"),
        }
    }
    // Twelve places touch about ten of thirteen groups of level 5 and all of level 12.
    assert!(found > cache.len() / 2, "{found}");
}

#[test]
fn damaged_payload_is_located() {
    let bytes = payload(200_000);
    let (piece, cache) = cached(&bytes, 5);
    let cache = TreeCache::open(cache, &piece).unwrap();
    let challenge = Challenge::new([4; 32], 12).unwrap();
    let mut located = 0;
    for at in (0..bytes.len()).step_by(101) {
        let mut damaged = bytes.clone();
        damaged[at] ^= 0x20;
        match prove(&damaged, &cache, &challenge) {
            Ok(proof) => assert!(verify(&piece, &challenge, &proof).is_ok()),
            Err(ProveError::Damaged { start, end }) => {
                assert!((start..end).contains(&(at as u64)));
                located += 1;
            }
            Err(other) => panic!("{other}"),
        }
        assert!(matches!(
            rebuild_cache(&damaged, &piece, TreeLevel::MIN),
            Err(ProveError::Damaged { start: 0, end: 200_000 })
        ));
    }
    assert!(located > 0);
}

#[test]
fn a_failing_medium_is_said_to_fail() {
    struct Failing;
    impl ReadAt for Failing {
        fn read_exact_at(&self, _: u64, _: &mut [u8]) -> io::Result<()> {
            Err(io::Error::other("gone"))
        }
        fn size(&self) -> io::Result<u64> {
            Ok(200_000)
        }
    }
    let bytes = payload(200_000);
    let (piece, cache) = cached(&bytes, 5);
    let challenge = Challenge::new([4; 32], 12).unwrap();
    let error = prove(&Failing, &TreeCache::open(cache, &piece).unwrap(), &challenge).unwrap_err();
    assert!(matches!(error, ProveError::Source(_)));
    assert!(matches!(TreeCache::open(Failing, &piece), Err(CacheError::Io(_))));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn any_piece_any_challenge(len in 1_usize..300_000, level in 5_u8..=16, seed: [u8; 32], count in 1_u16..200) {
        let bytes = payload(len);
        let (piece, cache) = cached(&bytes, level);
        let challenge = Challenge::new(seed, count).unwrap();
        let proof = prove(&bytes, &TreeCache::open(cache, &piece).unwrap(), &challenge).unwrap();
        let proof = PossessionProof::decode(&proof.encode().unwrap()).unwrap();
        let verdict = verify(&piece, &challenge, &proof).unwrap();
        prop_assert_eq!(verdict.leaves_checked(), challenge.positions(&piece).unwrap().len());
    }

    /// Small pieces: every shape of an incomplete tree.
    #[test]
    fn small_pieces(len in 1_usize..5_000, seed: [u8; 32], count in 1_u16..40) {
        let bytes = payload(len);
        let (piece, cache) = cached(&bytes, 5);
        let challenge = Challenge::new(seed, count).unwrap();
        let proof = prove(&bytes, &TreeCache::open(cache, &piece).unwrap(), &challenge).unwrap();
        prop_assert!(verify(&piece, &challenge, &proof).is_ok());
    }
}
