//! Tree caches on the disk: how large they may be, and how they get there without passing through memory as a whole.
//!
//! A cache may be lost or damaged at any time and is made again; so it is renamed when it is whole, and not synced.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};

use holdfast_proofs::{PieceCid, TreeLevel};

use super::{Outcome, Store, disk, storage};
use crate::deal::DealId;

/// A cache may always have so many bytes: less saves nothing on a disk.
const TREE_BYTES_MIN: u64 = 4 << 10;
const DRAFT_BUFFER_BYTES: usize = 64 << 10;

/// Two makers of one cache never write to the same file.
static DRAFTS: AtomicU64 = AtomicU64::new(0);

/// A cache that is being made. Dropped before it is done, it leaves nothing.
pub(super) struct TreeDraft {
    /// None where it cannot be written: then there is no cache, and nothing else is the worse for it.
    file: Option<BufWriter<File>>,
    draft: PathBuf,
    path: PathBuf,
}

impl TreeDraft {
    /// Appends what the hasher gives.
    pub(super) fn put(&mut self, bytes: &[u8]) {
        if let Some(file) = &mut self.file
            && let Err(error) = file.write_all(bytes)
        {
            tracing::warn!("no tree cache, {}: {error}", self.draft.display());
            self.file = None;
        }
    }

    /// Puts the whole cache in its place; says whether it is there.
    pub(super) fn install(&mut self) -> bool {
        let whole = self.file.take().is_some_and(|mut file| file.flush().is_ok());
        whole && std::fs::rename(&self.draft, &self.path).is_ok()
    }
}

impl Drop for TreeDraft {
    fn drop(&mut self) {
        // After a rename there is nothing of that name.
        let _ = std::fs::remove_file(&self.draft);
    }
}

impl Store {
    /// The fastest cache within the share of the slot that it may take.
    pub(super) fn tree_level(&self, piece: &PieceCid) -> TreeLevel {
        let share = u128::from(piece.payload_len()) * u128::from(self.tree_permille) / 1000;
        let bytes = u64::try_from(share).unwrap_or(u64::MAX).max(TREE_BYTES_MIN);
        TreeLevel::within(piece.payload_len(), bytes)
    }

    /// Begins a slot's cache.
    pub(super) fn draft_tree(&self, id: &DealId) -> TreeDraft {
        let number = DRAFTS.fetch_add(1, Ordering::Relaxed);
        let draft = self.trees.join(format!("{}{id}-{number}", disk::TMP_PREFIX));
        let file = File::create(&draft)
            .inspect_err(|error| tracing::warn!("no tree cache, {}: {error}", draft.display()))
            .ok();
        let file = file.map(|file| BufWriter::with_capacity(DRAFT_BUFFER_BYTES, file));
        TreeDraft { file, draft, path: self.trees.join(id.to_string()) }
    }

    /// Makes a slot's cache from its bytes, which it checks on the way.
    pub(super) fn make_tree(
        &self,
        id: &DealId,
        piece: &PieceCid,
        slot: &File,
    ) -> Result<TreeDraft, holdfast_proofs::ProveError> {
        let mut tree = self.draft_tree(id);
        holdfast_proofs::rebuild_cache_into(slot, piece, self.tree_level(piece), |bytes| tree.put(&bytes))?;
        Ok(tree)
    }

    /// Makes a slot's cache again, and opens it.
    pub(in crate::provider) fn rebuild_tree(
        &self,
        id: &DealId,
        piece: &PieceCid,
        slot: &File,
    ) -> Outcome<super::TreeFile> {
        use crate::error::ErrorCode;
        use crate::wire::message::WireError;
        let mut tree = self.make_tree(id, piece, slot).map_err(|e| {
            tracing::error!(deal = %id, "the slot is damaged: {e}");
            WireError::new(ErrorCode::Corrupt, "the slot is damaged")
        })?;
        if !tree.install() {
            return Err(WireError::new(ErrorCode::Storage, "the tree cache cannot be written"));
        }
        let file = File::open(self.trees.join(id.to_string())).map_err(|e| storage(&e))?;
        holdfast_proofs::TreeCache::open(file, piece).map_err(|e| {
            tracing::error!(deal = %id, "the tree cache is of no use: {e}");
            WireError::new(ErrorCode::Storage, "the tree cache is of no use")
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::Steps;
    use super::*;
    use holdfast_proofs::{CommpHasher, rebuild_cache};

    #[test]
    fn a_cache_takes_its_share_and_no_more() {
        let dir = tempfile::tempdir().unwrap();
        let mut store = Store::open(dir.path(), Steps::default()).unwrap();
        let piece = |len: u64| PieceCid::new(len, [3; 32]).unwrap();
        let gib = |n: u64| n * (1 << 30) / 128 * 127;
        // The share that a proof of 32 GiB within its bounds needs.
        assert_eq!(store.tree_level(&piece(gib(32))), TreeLevel::DEFAULT);
        assert_eq!(store.tree_level(&piece(64 << 20)), TreeLevel::DEFAULT);
        for permille in [1, 3, 10, 20, 1000] {
            store.tree_permille = permille;
            for len in [1, 1000, 1 << 20, 64 << 20, gib(32)] {
                let bytes = store.tree_level(&piece(len)).file_len(len);
                let share = (len * u64::from(permille) / 1000).max(TREE_BYTES_MIN);
                assert!(bytes <= share, "{bytes} bytes for {len} at {permille}");
            }
        }
        assert_eq!(store.tree_level(&piece(gib(32))), TreeLevel::MIN, "the fastest there is");
    }

    #[test]
    fn a_draft_is_whole_or_absent() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path(), Steps::default()).unwrap();
        let bytes = vec![7; 3 << 20];
        let mut hasher = CommpHasher::new();
        hasher.update(&bytes);
        let (piece, id) = (hasher.finish(), DealId([9; 32]));
        let slot = dir.path().join("slot");
        std::fs::write(&slot, &bytes).unwrap();
        let slot = File::open(&slot).unwrap();
        let names = || std::fs::read_dir(dir.path().join("trees")).unwrap().count();

        drop(store.make_tree(&id, &piece, &slot).unwrap());
        assert_eq!(names(), 0);
        let (mut first, second) = (store.make_tree(&id, &piece, &slot).unwrap(), store.draft_tree(&id));
        assert!(first.install());
        drop(second);
        assert_eq!(names(), 1);
        let whole = std::fs::read(dir.path().join("trees").join(id.to_string())).unwrap();
        assert_eq!(whole, rebuild_cache(&bytes, &piece, store.tree_level(&piece)).unwrap());
        assert!(store.make_tree(&id, &PieceCid::new(3 << 20, [3; 32]).unwrap(), &slot).is_err());
        assert!(store.rebuild_tree(&id, &piece, &slot).is_ok());
        assert_eq!(names(), 1);
    }
}
