#![allow(clippy::unwrap_used)]

use proptest::prelude::*;
use sha2::{Digest, Sha256};

use super::*;
use crate::commp::{CommpHasher, hash_pair, leaves_of, zero_node};

fn cached(payload: &[u8], level: TreeLevel) -> (PieceCid, Vec<u8>) {
    let mut hasher = CommpHasher::with_cache(level);
    hasher.update(payload);
    hasher.finish_with_cache()
}

fn payload(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i * 37 + i / 251) as u8).collect()
}

#[test]
fn levels_and_sizes() {
    assert_eq!(TreeLevel::new(4), None);
    assert_eq!(TreeLevel::new(17), None);
    assert_eq!(TreeLevel::new(7), Some(TreeLevel::DEFAULT));
    // 64 MiB padded: 2^21 leaves, so 2^14 + 2^7 + 1 nodes above level 7, 128 bytes of frame.
    let slot = (64 << 20) / 128 * 127;
    assert_eq!(TreeLevel::DEFAULT.file_len(slot), 128 + 32 * (16_384 + 128 + 1));
    // 32 GiB padded: 2^23 + 2^16 + 2^9 + 4 nodes: 258 MiB.
    let sector = (32 << 30) / 128 * 127;
    assert_eq!(TreeLevel::DEFAULT.file_len(sector), 128 + 32 * ((1 << 23) + (1 << 16) + (1 << 9) + 4));
    // Less than a group: nothing is stored but the frame.
    assert_eq!(TreeLevel::DEFAULT.file_len(1), 128);
    assert_eq!(TreeLevel::DEFAULT.file_len(0), 128);
}

#[test]
fn a_budget_chooses_the_fastest_level_that_fits() {
    let sector = (32 << 30) / 128 * 127;
    for (budget, level) in [(u64::MAX, 5), (300 << 20, 7), (100 << 20, 9), (10 << 20, 12), (0, 16)] {
        assert_eq!(TreeLevel::within(sector, budget).get(), level, "{budget}");
    }
}

/// A version's bytes never change: digests of two files, one with two stored levels, as a mirror in plain
/// Python makes them.
#[test]
fn golden() {
    let digest = |bytes: &[u8]| Sha256::digest(bytes).iter().map(|b| format!("{b:02x}")).collect::<String>();
    let (_, small) = cached(&payload(5_000), TreeLevel::MIN);
    assert_eq!(small[..8], [1, 1, b'H', b'F', b'T', b'C', 5, 7]);
    assert_eq!(digest(&small), "c4b7539f80903070f5bc10e444c32e51776d897e1530450c03555b8d49217203");
    let (_, large) = cached(&payload(300_000), TreeLevel::MIN);
    assert_eq!(digest(&large), "8f8da11b2ad4dfc6205378fad4aba0440891d3a467bad27faaf6266180c964b0");
}

#[test]
fn stored_nodes_are_the_trees() {
    let bytes = payload(300_000);
    let (piece, file) = cached(&bytes, TreeLevel::MIN);
    let cache = TreeCache::open(file, &piece).unwrap();
    assert_eq!(cache.levels_down().collect::<Vec<_>>(), [12, 5]);
    let mut nodes = leaves_of(&bytes);
    nodes.truncate(piece.leaf_count() as usize);
    for level in 0..piece.height() {
        if level == 5 || level == 12 {
            let mut stored = Vec::new();
            for parent in 0..nodes.len().div_ceil(4) as u64 {
                stored.extend(cache.group(level, parent, 2).unwrap());
            }
            assert_eq!(stored, nodes);
        }
        nodes = nodes.chunks(2).map(|p| hash_pair(&p[0], p.get(1).unwrap_or(&zero_node(level)))).collect();
    }
    assert_eq!(nodes, [*piece.root()]);
    // Beyond the data nothing is stored.
    assert!(cache.group(5, 1 << 20, 7).unwrap().is_empty());
}

#[test]
fn wrong_files_are_told_apart() {
    let (piece, file) = cached(&payload(5_000), TreeLevel::MIN);
    let open = |file: Vec<u8>| TreeCache::open(file, &piece).err().unwrap();
    assert!(matches!(open(vec![]), CacheError::Length { found: 0, .. }));
    assert!(matches!(open(file[..file.len() - 1].to_vec()), CacheError::Length { .. }));
    assert!(matches!(open([file.as_slice(), &[0]].concat()), CacheError::Length { .. }));
    assert!(matches!(open(vec![0; file.len()]), CacheError::Header));
    let mut newer = file.clone();
    newer[0] = 2;
    assert!(matches!(open(newer), CacheError::Newer { version: 2, suite: 1 }));
    let mut other = payload(5_000);
    other[0] ^= 1;
    assert!(matches!(open(cached(&other, TreeLevel::MIN).1), CacheError::OtherPiece));
    // A flipped bit anywhere in the frame: in the nodes it is found when they are used.
    for at in (0..32).chain(file.len() - 96..file.len()) {
        let mut file = file.clone();
        file[at] ^= 0x10;
        assert!(open(file).needs_rebuild(), "{at}");
    }
}

proptest! {
    #[test]
    fn any_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..400), len in 0_u64..6_000) {
        let piece = PieceCid::new(len, [0; 32]).unwrap();
        prop_assert!(TreeCache::open(bytes, &piece).is_err());
    }

    #[test]
    fn the_file_is_as_long_as_foretold(len in 0_usize..70_000, level in 5_u8..=16) {
        let level = TreeLevel::new(level).unwrap();
        prop_assert_eq!(cached(&payload(len), level).1.len() as u64, level.file_len(len as u64));
    }
}
