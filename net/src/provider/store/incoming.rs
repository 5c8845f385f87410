//! A slot on its way in: written and hashed as it comes, synced, signed for.

use std::fs::{File, OpenOptions};
use std::io::ErrorKind;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use holdfast_proofs::CommpHasher;

use super::row::DealState;
use super::tree::TreeDraft;
use super::{Entry, Outcome, Store, disk, ended, storage};
use crate::deal::{DealId, SignedReceipt};
use crate::error::{ErrorCode, NetError};
use crate::wire::message::WireError;

const REHASH_BYTES: usize = 1 << 20;

/// What a push finds.
pub(in crate::provider) enum Begin {
    /// The slot is stored: its receipt.
    Receipt(Vec<u8>),
    /// Send from [`Incoming::offset`].
    Receive(Incoming),
}

/// A slot being received. Dropped, it keeps what it has for the next push.
pub(in crate::provider) struct Incoming {
    store: Arc<Store>,
    id: DealId,
    entry: Entry,
    file: File,
    hasher: CommpHasher,
    tree: TreeDraft,
    offset: u64,
}

/// Marks the deal as being received until dropped.
struct Receiving<'a> {
    store: &'a Store,
    id: DealId,
    kept: bool,
}

impl Drop for Receiving<'_> {
    fn drop(&mut self) {
        if !self.kept {
            self.store.index.lock().change(&self.id, |entry| entry.receiving = false);
        }
    }
}

impl Drop for Incoming {
    fn drop(&mut self) {
        self.store.index.lock().change(&self.id, |entry| entry.receiving = false);
    }
}

impl Store {
    /// Begins or resumes a push. `sign` makes the receipt if the slot turns out to be whole.
    pub(in crate::provider) fn begin(
        self: &Arc<Store>,
        id: &DealId,
        sign: &dyn Fn(&Entry) -> Result<SignedReceipt, NetError>,
    ) -> Outcome<Begin> {
        let entry = {
            let mut index = self.index.lock();
            let entry = index.deals.get_mut(id).filter(|e| !e.reserving);
            let entry = entry.ok_or_else(|| WireError::new(ErrorCode::NotFound, "no such deal"))?;
            match entry.state {
                DealState::Released => return Err(ended()),
                DealState::Stored => None,
                DealState::Taken if entry.receiving => {
                    return Err(WireError::new(
                        ErrorCode::PushRunning,
                        "another push of this deal is running",
                    ));
                }
                DealState::Taken => {
                    entry.receiving = true;
                    Some(entry.clone())
                }
            }
        };
        let Some(entry) = entry else {
            let receipt = self.row(id)?.receipt.map(serde_bytes::ByteBuf::into_vec);
            return receipt
                .map(Begin::Receipt)
                .ok_or_else(|| WireError::new(ErrorCode::Storage, "no receipt"));
        };
        let mut receiving = Receiving { store: self, id: *id, kept: false };
        if let Some(receipt) = self.finish_renamed(id, &entry, sign)? {
            return Ok(Begin::Receipt(receipt));
        }
        let (file, hasher, tree, offset) = self.resume(id, &entry).map_err(|e| storage(&e))?;
        receiving.kept = true;
        Ok(Begin::Receive(Incoming { store: self.clone(), id: *id, entry, file, hasher, tree, offset }))
    }

    /// A crash between the rename and the row left a whole slot without its receipt.
    fn finish_renamed(
        &self,
        id: &DealId,
        entry: &Entry,
        sign: &dyn Fn(&Entry) -> Result<SignedReceipt, NetError>,
    ) -> Outcome<Option<Vec<u8>>> {
        let path = self.slots.join(id.to_string());
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(storage(&e)),
        };
        match self.make_tree(id, &entry.piece, &file) {
            Ok(mut tree) => self.install(id, entry, &file, &mut tree, sign).map(Some),
            Err(e) => {
                tracing::warn!(deal = %id, "a slot without a receipt is not whole, receiving it again: {e}");
                disk::remove(&path).map_err(|e| storage(&e))?;
                Ok(None)
            }
        }
    }

    /// Opens what is there of a slot and hashes it. Its bytes were never synced: after a power cut they may be
    /// anything, and the piece CID will tell.
    fn resume(&self, id: &DealId, entry: &Entry) -> std::io::Result<(File, CommpHasher, TreeDraft, u64)> {
        let path = self.incoming.join(id.to_string());
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
        if file.metadata()?.len() > entry.raw_len {
            file.set_len(0)?;
        }
        if file.metadata()?.len() == 0 {
            self.copy_stored(id, entry, &file)?;
        }
        let len = file.metadata()?.len();
        let mut hasher = CommpHasher::with_cache(self.tree_level(&entry.piece));
        let mut tree = self.draft_tree(id);
        let mut buffer = vec![0u8; REHASH_BYTES.min(usize::try_from(len).unwrap_or(REHASH_BYTES))];
        let mut at = 0;
        while at < len {
            let want = usize::try_from(len - at).unwrap_or(usize::MAX).min(REHASH_BYTES);
            let part = buffer.split_at_mut(want).0;
            file.read_exact_at(part, at)?;
            hasher.update(part);
            tree.put(&hasher.drain_cache());
            at += want as u64;
        }
        Ok((file, hasher, tree, len))
    }

    /// A deal that renews another one of the same client is not sent its bytes again: they are copied from the slot that is
    /// here, if that is what it should be. Not shared with it: a slot that is damaged later would be damaged twice.
    fn copy_stored(&self, id: &DealId, entry: &Entry, to: &File) -> std::io::Result<()> {
        let Some(stored) = self.same_slot(id, entry) else { return Ok(()) };
        let from = match File::open(self.slots.join(stored.to_string())) {
            Ok(from) => from,
            Err(e) => {
                tracing::warn!(deal = %stored, "a slot that is to be renewed cannot be opened: {e}");
                return Ok(());
            }
        };
        let mut hasher = CommpHasher::new();
        let mut buffer = vec![0u8; REHASH_BYTES.min(usize::try_from(entry.raw_len).unwrap_or(REHASH_BYTES))];
        let mut at = 0;
        while at < entry.raw_len {
            let want = usize::try_from(entry.raw_len - at).unwrap_or(usize::MAX).min(REHASH_BYTES);
            let part = buffer.split_at_mut(want).0;
            if let Err(e) = from.read_exact_at(part, at) {
                tracing::error!(deal = %stored, "a slot that is to be renewed cannot be read: {e}");
                return to.set_len(0);
            }
            hasher.update(part);
            to.write_all_at(part, at)?;
            at += want as u64;
        }
        if hasher.finish() != entry.piece {
            tracing::error!(deal = %stored, "a slot that is to be renewed is damaged");
            return to.set_len(0);
        }
        Ok(())
    }

    /// Another stored deal of this client over the same bytes.
    fn same_slot(&self, id: &DealId, entry: &Entry) -> Option<DealId> {
        let index = self.index.lock();
        let mut of_client = index.by_client.get(&entry.client)?.iter();
        let same = |other: &Entry| {
            other.state == DealState::Stored
                && !other.damaged
                && other.piece == entry.piece
                && other.raw_len == entry.raw_len
        };
        of_client.find(|other| *other != id && index.deals.get(other).is_some_and(same)).copied()
    }

    /// The last steps of storing: everything synced before the receipt is, the receipt synced before it is told.
    fn install(
        &self,
        id: &DealId,
        entry: &Entry,
        file: &File,
        tree: &mut TreeDraft,
        sign: &dyn Fn(&Entry) -> Result<SignedReceipt, NetError>,
    ) -> Outcome<Vec<u8>> {
        let name = id.to_string();
        let durable = || -> std::io::Result<()> {
            self.steps.edge("store.sync.before")?;
            file.sync_all()?;
            self.steps.edge("store.rename.before")?;
            let from = self.incoming.join(&name);
            match std::fs::rename(&from, self.slots.join(&name)) {
                // It was renamed before a crash.
                Err(e) if e.kind() == ErrorKind::NotFound && self.slots.join(&name).exists() => {}
                result => result?,
            }
            self.steps.edge("store.rename.after")?;
            disk::sync_dir(&self.slots)?;
            self.steps.edge("store.row.before")
        };
        durable().map_err(|e| storage(&e))?;
        if !tree.install() {
            tracing::warn!(deal = %id, "no tree cache: the first audit will make it");
        }
        let receipt = sign(entry).map_err(|e| WireError::new(ErrorCode::Storage, e.to_string()))?.to_bytes();
        let stored = self.change_row(id, |row| {
            // Given up while its last bytes came.
            if row.state == DealState::Released {
                return Err(ended());
            }
            row.state = DealState::Stored;
            row.receipt = Some(serde_bytes::ByteBuf::from(receipt.clone()));
            Ok(())
        });
        if let Err(e) = stored {
            if e.code == ErrorCode::Ended.number() {
                self.delete_slot(id).map_err(|e| storage(&e))?;
            }
            return Err(e);
        }
        self.steps.edge("store.row.after").map_err(|e| storage(&e))?;
        Ok(receipt)
    }
}

impl Incoming {
    /// Where the next byte goes.
    pub(in crate::provider) fn offset(&self) -> u64 {
        self.offset
    }

    /// Takes the next bytes.
    pub(in crate::provider) fn write(&mut self, bytes: &[u8]) -> Outcome<()> {
        let end = self.offset.saturating_add(bytes.len() as u64);
        if end > self.entry.raw_len {
            return Err(WireError::new(ErrorCode::Malformed, "more bytes than the slot has"));
        }
        self.file.write_all_at(bytes, self.offset).map_err(|e| storage(&e))?;
        self.hasher.update(bytes);
        self.tree.put(&self.hasher.drain_cache());
        self.offset = end;
        Ok(())
    }

    /// All bytes came: checks them against the deal, makes them durable, signs.
    pub(in crate::provider) fn finish(
        mut self,
        sign: &dyn Fn(&Entry) -> Result<SignedReceipt, NetError>,
    ) -> Outcome<Vec<u8>> {
        if self.offset != self.entry.raw_len {
            return Err(WireError::new(ErrorCode::Malformed, "the push ended before the slot did"));
        }
        let (piece, rest) = std::mem::replace(&mut self.hasher, CommpHasher::new()).finish_with_cache();
        if piece != self.entry.piece {
            // The next push begins at zero.
            self.file.set_len(0).map_err(|e| storage(&e))?;
            return Err(WireError::new(
                ErrorCode::PieceMismatch,
                "the bytes do not have the deal's piece CID",
            ));
        }
        self.tree.put(&rest);
        self.store.install(&self.id, &self.entry, &self.file, &mut self.tree, sign)
    }
}
