use holdfast_proofs::commp::leaf_count;
use holdfast_proofs::{CommpHasher, ReadAt};

use super::*;
use crate::testing::{TestSlot, payload};

fn piece_of(payload: &[u8]) -> PieceCid {
    let mut hasher = CommpHasher::new();
    hasher.update(payload);
    hasher.finish()
}

/// The definition: a node is the hash of its eight children, a leaf beyond the data is zero.
fn by_definition(leaves: &[Fr], level: u8, index: u64) -> Fr {
    if index << (3 * level) >= leaves.len() as u64 {
        return zero_root(level);
    }
    if level == 0 {
        return leaves[index as usize];
    }
    hash8(&std::array::from_fn(|child| by_definition(leaves, level - 1, index * 8 + child as u64)))
}

const LENS: [usize; 10] = [1, 31, 127, 128, 254, 255, 4_000, 16_256, 16_257, 100_000];

#[test]
fn roots_are_those_of_the_definition() {
    for len in LENS {
        let payload = payload(len, 3);
        let mut leaves = elements(&payload);
        leaves.truncate(leaf_count(len as u64) as usize);
        let slot = TestSlot::new(payload, StoredLevel::DEFAULT);
        assert_eq!(slot.commitment.root().0, by_definition(&leaves, SLOT_HEIGHT, 0), "{len}");
    }
}

#[test]
fn pieces_of_payload_and_threads_change_nothing() {
    let payload = payload(100_000, 4);
    let piece = piece_of(&payload);
    let expected = TestSlot::new(payload.clone(), StoredLevel::MIN);
    for (step, threads) in [(1_000, 1), (16_256, 2), (50_001, 3), (100_000, 0), (33, 1)] {
        let mut builder = SlotTreeBuilder::new(StoredLevel::MIN);
        let mut file = Vec::new();
        for part in payload.chunks(step) {
            builder.update(part, threads);
            file.extend(builder.drain());
        }
        let (commitment, rest) = builder.finish(&piece).unwrap();
        file.extend(rest);
        assert_eq!(commitment, expected.commitment, "{step}");
        assert_eq!(file, expected.tree);
    }
}

#[test]
fn files_have_their_length_and_open_at_every_level() {
    for level in 1..=3 {
        let level = StoredLevel::new(level).unwrap();
        for len in LENS {
            let slot = TestSlot::new(payload(len, 5), level);
            assert_eq!(slot.tree.len() as u64, level.file_len(len as u64), "{len}");
            let leaves = slot.piece.leaf_count();
            let wanted = [0, leaves / 2, leaves - 1];
            let opened = slot.tree().open_leaves(&slot.payload, &wanted).unwrap();
            let all = elements(&slot.payload);
            for leaf in wanted {
                assert_eq!(opened.node(0, leaf), Some(all[leaf as usize]));
                let mut node = opened.node(0, leaf).unwrap();
                for level in 0..SLOT_HEIGHT {
                    let group = opened.group(level, leaf).unwrap();
                    assert_eq!(group[(leaf >> (3 * level)) as usize % 8], node);
                    node = hash8(group);
                }
                assert_eq!(node, slot.commitment.root().0);
            }
            assert!(matches!(slot.tree().open_leaves(&slot.payload, &[leaves]), Err(TreeError::Position(_))));
        }
    }
    assert!(StoredLevel::new(0).is_none() && StoredLevel::new(4).is_none());
}

#[test]
fn lengths_without_a_tree_are_refused() {
    let root = TreeRoot(Fr::ZERO);
    let piece = |len| PieceCid::new(len, [0; 32]).unwrap();
    assert!(matches!(SlotCommitment::new(piece(0), root), Err(TreeError::Length(0))));
    assert!(SlotCommitment::new(piece(SLOT_PAYLOAD_MAX), root).is_ok());
    assert_eq!(leaf_count(SLOT_PAYLOAD_MAX), SLOT_LEAVES_MAX);
    assert!(matches!(SlotCommitment::new(piece(SLOT_PAYLOAD_MAX + 1), root), Err(TreeError::Length(_))));
    let empty = SlotTreeBuilder::new(StoredLevel::DEFAULT);
    assert!(matches!(empty.finish(&piece(0)), Err(TreeError::Length(0))));
    let mut builder = SlotTreeBuilder::new(StoredLevel::DEFAULT);
    builder.update(&[1; 100], 1);
    assert!(matches!(builder.finish(&piece(99)), Err(TreeError::OtherLength { built: 100, piece: 99 })));
}

/// Every byte of the file: an error when it is opened or used, never an opening.
#[test]
fn a_damaged_file_is_found() {
    let slot = TestSlot::new(payload(9_000, 6), StoredLevel::DEFAULT);
    let every: Vec<u64> = (0..slot.piece.leaf_count()).collect();
    for at in 0..slot.tree.len() {
        let mut file = slot.tree.clone();
        file[at] ^= 1 << (at % 8);
        let opened = SlotTree::open(file.as_slice(), &slot.commitment)
            .and_then(|tree| tree.open_leaves(&slot.payload, &every).map(|_| ()));
        let error = opened.unwrap_err();
        assert!(error.needs_rebuild(), "byte {at}: {error}");
    }
    for len in [0, 31, slot.tree.len() - 1] {
        assert!(SlotTree::open(&slot.tree[..len], &slot.commitment).is_err());
    }
    let other = TestSlot::new(payload(9_000, 7), StoredLevel::DEFAULT);
    let opened = SlotTree::open(other.tree.as_slice(), &slot.commitment);
    assert!(matches!(opened, Err(TreeError::OtherSlot)));
    let mut newer = slot.tree.clone();
    newer[0] = 2;
    let opened = SlotTree::open(newer.as_slice(), &slot.commitment);
    assert!(matches!(opened, Err(TreeError::Newer { version: 2, suite: 1 })));
}

#[test]
fn damaged_payload_is_told_from_a_damaged_file() {
    let slot = TestSlot::new(payload(9_000, 6), StoredLevel::DEFAULT);
    let mut damaged = slot.payload.clone();
    damaged[4_000] ^= 1;
    let leaf = 4_000 * 8 / 254;
    let error = slot.tree().open_leaves(&damaged, &[leaf]).map(|_| ()).unwrap_err();
    assert!(matches!(error, TreeError::PayloadDamaged { first, end } if (first..end).contains(&leaf)));
    assert!(!error.needs_rebuild());
    // Elsewhere the slot is whole.
    assert!(slot.tree().open_leaves(&damaged, &[0, 250]).is_ok());
    let short: &[u8] = &damaged[..8_000];
    assert!(matches!(slot.tree().open_leaves(short, &[280]), Err(TreeError::Io(_))));
    assert_eq!(short.size().unwrap(), 8_000);
}

#[test]
fn a_root_has_one_spelling() {
    let root = TreeRoot(-Fr::ONE);
    assert_eq!(TreeRoot::from_bytes(&root.to_bytes()).unwrap(), root);
    assert!(matches!(TreeRoot::from_bytes(&[0xff; 32]), Err(TreeError::Root)));
}

#[test]
fn a_commitment_is_read_back_and_a_wrong_one_is_not() {
    let slot = TestSlot::new(payload(300, 8), StoredLevel::DEFAULT).commitment;
    let bytes = serde_ipld_dagcbor::to_vec(&slot).unwrap();
    assert_eq!(serde_ipld_dagcbor::from_slice::<SlotCommitment>(&bytes).unwrap(), slot);
    let mut beyond = bytes.clone();
    *beyond.last_mut().unwrap() = 0xff;
    assert!(serde_ipld_dagcbor::from_slice::<SlotCommitment>(&beyond).is_err());
    let empty = Wire(PieceCid::new(0, [0; 32]).unwrap(), ByteArray::new([0; 32]));
    let bytes = serde_ipld_dagcbor::to_vec(&empty).unwrap();
    assert!(serde_ipld_dagcbor::from_slice::<SlotCommitment>(&bytes).is_err());
}
