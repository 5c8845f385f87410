//! Tree caches on the disk: how large they may be, and how they get there without passing through memory as a whole.
//!
//! A cache may be lost or damaged at any time and is made again; so it is renamed when it is whole, and not synced. Where
//! the disk takes none, a coarser one in memory serves one proof: a slot that is well is proven on a full disk as well.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};

use holdfast_proofs::{PieceCid, ProveError, ReadAt, TreeLevel};

use super::{Outcome, Store, TreeFile, disk, not_now, storage};
use crate::deal::DealId;
use crate::error::ErrorCode;
use crate::wire::message::WireError;

/// A cache may always have so many bytes: less saves nothing on a disk.
const TREE_BYTES_MIN: u64 = 4 << 10;
const DRAFT_BUFFER_BYTES: usize = 64 << 10;
/// Of a cache that is only in memory; a few are at once (`audits_max`). For 32 GiB a proof then reads 3 MiB.
const MEMORY_TREE_BYTES_MAX: u64 = 8 << 20;

/// Two makers of one cache never write to the same file.
static DRAFTS: AtomicU64 = AtomicU64::new(0);

/// Where a cache's bytes are.
pub(in crate::provider) enum TreeBytes {
    File(File),
    Memory(Vec<u8>),
}

impl ReadAt for TreeBytes {
    fn read_exact_at(&self, offset: u64, buf: &mut [u8]) -> std::io::Result<()> {
        match self {
            TreeBytes::File(file) => ReadAt::read_exact_at(file, offset, buf),
            TreeBytes::Memory(bytes) => bytes.read_exact_at(offset, buf),
        }
    }

    fn size(&self) -> std::io::Result<u64> {
        match self {
            TreeBytes::File(file) => file.size(),
            TreeBytes::Memory(bytes) => bytes.size(),
        }
    }
}

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
    ) -> Result<TreeDraft, ProveError> {
        self.fill_tree(self.draft_tree(id), piece, slot)
    }

    fn fill_tree(&self, mut tree: TreeDraft, piece: &PieceCid, slot: &File) -> Result<TreeDraft, ProveError> {
        holdfast_proofs::rebuild_cache_into(slot, piece, self.tree_level(piece), |bytes| tree.put(&bytes))?;
        Ok(tree)
    }

    /// Makes a slot's cache again, and opens it.
    pub(in crate::provider) fn rebuild_tree(
        &self,
        id: &DealId,
        piece: &PieceCid,
        slot: &File,
    ) -> Outcome<TreeFile> {
        let failed = |e| no_tree(id, e);
        let draft = self.draft_tree(id);
        if draft.file.is_some() {
            let mut tree = self.fill_tree(draft, piece, slot).map_err(failed)?;
            if tree.install()
                && let Ok(file) = File::open(self.trees.join(id.to_string()))
                && let Ok(tree) = TreeFile::open(TreeBytes::File(file), piece)
            {
                return Ok(tree);
            }
        }
        tracing::warn!(deal = %id, "no tree cache on the disk: one is made for this proof alone");
        let level = TreeLevel::within(piece.payload_len(), MEMORY_TREE_BYTES_MAX);
        let bytes = holdfast_proofs::rebuild_cache(slot, piece, level).map_err(failed)?;
        TreeFile::open(TreeBytes::Memory(bytes), piece).map_err(|e| {
            tracing::error!(deal = %id, "the tree cache is of no use: {e}");
            not_now()
        })
    }
}

/// Tells what is wrong with the slot from what is wrong beside it.
pub(in crate::provider) fn no_tree(id: &DealId, error: ProveError) -> WireError {
    tracing::error!(deal = %id, "no proof: {error}");
    match error {
        ProveError::Challenge(e) => WireError::new(ErrorCode::Malformed, e.to_string()),
        ProveError::Damaged { .. } | ProveError::SourceLength { .. } => {
            WireError::new(ErrorCode::Corrupt, "the slot is damaged")
        }
        ProveError::Source(e) => storage(&e),
        ProveError::Cache(_) => not_now(),
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

    #[test]
    fn a_slot_is_proven_where_no_cache_can_be_written() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path(), Steps::default()).unwrap();
        let bytes = vec![7; 3 << 20];
        let mut hasher = CommpHasher::new();
        hasher.update(&bytes);
        let (piece, id) = (hasher.finish(), DealId([9; 32]));
        let path = store.slots.join(id.to_string());
        std::fs::write(&path, &bytes).unwrap();
        std::fs::remove_dir(dir.path().join("trees")).unwrap();
        std::fs::write(dir.path().join("trees"), b"").unwrap();

        let slot = store.open_slot(&id).unwrap();
        let tree = store.open_tree(&id, &piece, &slot).unwrap();
        let challenge = holdfast_proofs::Challenge::new([5; 32], 24).unwrap();
        let proof = holdfast_proofs::prove(&slot, &tree, &challenge).unwrap();
        assert_eq!(holdfast_proofs::verify(&piece, &challenge, &proof).unwrap().piece(), &piece);

        // What is damaged is still told from what cannot be done.
        std::fs::write(&path, vec![8; 3 << 20]).unwrap();
        let code = |error: WireError| ErrorCode::from_number(error.code).unwrap();
        let damaged = store.open_tree(&id, &piece, &store.open_slot(&id).unwrap()).err().unwrap();
        assert_eq!(code(damaged), ErrorCode::Corrupt);
        std::fs::remove_file(&path).unwrap();
        assert_eq!(code(store.open_slot(&id).unwrap_err()), ErrorCode::Corrupt);
        std::fs::remove_dir(&store.slots).unwrap();
        std::fs::write(&store.slots, b"").unwrap();
        let closed = code(store.open_slot(&id).unwrap_err());
        assert_eq!(closed, ErrorCode::Busy);
        assert!(closed.is_retryable() && !closed.is_fault());
        let exhausted = storage(&std::io::Error::from_raw_os_error(nix::errno::Errno::EMFILE as i32));
        assert_eq!(code(exhausted), ErrorCode::Busy);
    }
}
