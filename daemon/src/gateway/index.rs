//! Which public slot of a provider holds which block.
//!
//! ```text
//! public/<deal, hex>   "HFPI" | version u8 = 1 | count u32 LE | { sha2-256 32 | offset u64 LE | length u32 LE } ... | BLAKE3 of all before 32
//! ```
//!
//! A slot's blocks are hashed once, when it is stored; the file says where they lie, and is made anew where it is missing or damaged. Served
//! is only what hashes right again. Memory: about 70 bytes for each place, at most three places of a block and `PLACES_MAX` in all; the
//! files count in the provider's capacity.
//!
//! Deals are looked at every [`SYNC_EVERY`]; whoever misses a block has them looked at sooner ([`PublicBlocks::settled`]), so that what was
//! stored before it was asked for is found.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::BufReader;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use cid::Cid;
use futures::future::BoxFuture;
use holdfast_content::block::{Block, as_v1, digest_of};
use holdfast_content::car::{CarError, PieceReader};
use holdfast_content::plain::{Blocks, PlainError};
use holdfast_net::DealId;
use holdfast_net::bitswap::PublicBlocks;
use holdfast_net::provider::{Provider, StoredDeal};
use parking_lot::RwLock;
use tokio::runtime::Handle;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use crate::home::{HomeError, create_private_dir, read_limited, write_atomically};

/// The index's folder within the provider's.
const FOLDER: &str = "public";
const MAGIC: &[u8] = b"HFPI";
const VERSION: u8 = 1;
const HEAD_BYTES: usize = 9;
const ENTRY_BYTES: usize = 44;
const DIGEST_BYTES: usize = 32;
/// Blocks of one slot in its file; a longer one is none of ours.
const SLOT_BLOCKS_MAX: usize = 1 << 20;
/// Places of all blocks in all slots: about a gigabyte of memory.
const PLACES_MAX: usize = 16 << 20;
/// Places of one block, each in another slot. When one of them goes, slots that had a further one are asked again.
const PLACES_OF_BLOCK_MAX: usize = 3;
/// How often deals are looked at.
const SYNC_EVERY: Duration = Duration::from_secs(1);
/// How often at most, however many blocks are missed.
const SYNC_PACE: Duration = Duration::from_millis(50);
/// Who missed a block waits so long for what was stored before.
const SETTLE_MAX: Duration = Duration::from_secs(5);
const BUFFER_BYTES: usize = 1 << 20;

/// Where a block lies in its slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) digest: [u8; 32],
    pub(crate) offset: u64,
    pub(crate) len: u32,
}

#[derive(Debug, Clone, Copy)]
struct Place {
    slot: u32,
    offset: u64,
    len: u32,
}

#[derive(Default)]
struct State {
    slots: HashMap<u32, (DealId, PathBuf)>,
    by_deal: HashMap<DealId, u32>,
    blocks: HashMap<[u8; 32], Place>,
    /// Further places of blocks that lie in several slots.
    others: HashMap<[u8; 32], Vec<Place>>,
    /// In both.
    places: usize,
    /// Slots with blocks that have places enough in others.
    partly: HashSet<DealId>,
    /// Slots for whose blocks there was no room.
    passed_over: HashSet<DealId>,
    /// Bytes of the files.
    files: HashMap<DealId, u64>,
    /// What earlier runs left of deals that are gone was deleted.
    swept: bool,
    next: u32,
}

impl State {
    /// Enters a slot's blocks; whether each of them has a place there now.
    fn enter(&mut self, slot: u32, entries: &[Entry]) -> bool {
        let mut all = true;
        for entry in entries {
            let place = Place { slot, offset: entry.offset, len: entry.len };
            let Some(first) = self.blocks.get(&entry.digest).copied() else {
                self.blocks.insert(entry.digest, place);
                self.places += 1;
                continue;
            };
            let others = self.others.get(&entry.digest).map_or(&[][..], Vec::as_slice);
            if first.slot == slot || others.iter().any(|other| other.slot == slot) {
                continue;
            }
            if others.len() + 1 >= PLACES_OF_BLOCK_MAX {
                all = false;
                continue;
            }
            self.others.entry(entry.digest).or_default().push(place);
            self.places += 1;
        }
        all
    }

    fn forget(&mut self, deals: &[DealId]) {
        let gone: HashSet<u32> = deals.iter().filter_map(|deal| self.by_deal.remove(deal)).collect();
        for deal in deals {
            self.partly.remove(deal);
            self.passed_over.remove(deal);
            self.files.remove(deal);
        }
        self.slots.retain(|number, _| !gone.contains(number));
        let others = &mut self.others;
        others.retain(|_, places| {
            places.retain(|place| !gone.contains(&place.slot));
            !places.is_empty()
        });
        self.blocks.retain(|digest, place| {
            if !gone.contains(&place.slot) {
                return true;
            }
            let other = others.get_mut(digest).and_then(Vec::pop);
            if let Some(other) = other {
                *place = other;
            }
            other.is_some()
        });
        others.retain(|_, places| !places.is_empty());
        self.places = self.blocks.len() + others.values().map(Vec::len).sum::<usize>();
    }
}

/// Whose public slots are indexed.
pub trait Deals: Clone + Send + Sync + 'static {
    /// Grows whenever a deal comes, changes or goes.
    fn changes(&self) -> u64;
    /// All deals whose slots are stored.
    fn stored(&self) -> Vec<StoredDeal>;
    /// The index's files take so much.
    fn counts(&self, bytes: u64);
}

impl Deals for Provider {
    fn changes(&self) -> u64 {
        self.deals_changes()
    }

    fn stored(&self) -> Vec<StoredDeal> {
        self.stored_deals()
    }

    fn counts(&self, bytes: u64) {
        self.set_beside_bytes(bytes);
    }
}

/// How far the deals have been followed.
struct Followed {
    changes: OnceLock<Box<dyn Fn() -> u64 + Send + Sync>>,
    seen: watch::Sender<Option<u64>>,
    /// Somebody waits.
    missed: Notify,
}

/// See the module. Clones are the same one.
#[derive(Clone)]
pub struct PublicIndex {
    dir: PathBuf,
    state: Arc<RwLock<State>>,
    followed: Arc<Followed>,
}

impl PublicIndex {
    /// Of the provider in `folder`; knows nothing yet.
    pub fn open(folder: &Path) -> Result<PublicIndex, HomeError> {
        let dir = folder.join(FOLDER);
        create_private_dir(&dir)?;
        let followed =
            Followed { changes: OnceLock::new(), seen: watch::Sender::new(None), missed: Notify::new() };
        Ok(PublicIndex { dir, state: Arc::default(), followed: Arc::new(followed) })
    }

    /// Follows the deals until `stop`.
    pub async fn follow(self, deals: impl Deals, stop: CancellationToken) {
        let followed = self.followed.clone();
        let of = deals.clone();
        let _ = followed.changes.set(Box::new(move || of.changes()));
        loop {
            let changes = deals.changes();
            if *followed.seen.borrow() != Some(changes) {
                let (index, of, ending) = (self.clone(), deals.clone(), stop.clone());
                let done = tokio::task::spawn_blocking(move || index.sync(&of.stored(), &ending)).await;
                deals.counts(self.file_bytes());
                match done {
                    Ok(()) => drop(followed.seen.send_replace(Some(changes))),
                    Err(error) => tracing::error!(%error, "the index of public blocks"),
                }
            }
            let missed = async {
                followed.missed.notified().await;
                tokio::time::sleep(SYNC_PACE).await;
            };
            tokio::select! {
                () = stop.cancelled() => return,
                () = missed => {}
                () = tokio::time::sleep(SYNC_EVERY) => {}
            }
        }
    }

    /// Takes in what is new, and forgets what is gone.
    pub(crate) fn sync(&self, deals: &[StoredDeal], stop: &CancellationToken) {
        let public: HashMap<DealId, &StoredDeal> =
            deals.iter().filter(|deal| deal.public).map(|deal| (deal.deal, deal)).collect();
        self.sweep(&public);
        let known = |state: &State| -> HashSet<DealId> {
            state.by_deal.keys().chain(&state.passed_over).copied().collect()
        };
        let before = known(&self.state.read());
        let gone: Vec<DealId> = before.into_iter().filter(|deal| !public.contains_key(deal)).collect();
        if !gone.is_empty() {
            self.state.write().forget(&gone);
            for deal in &gone {
                let _ = std::fs::remove_file(self.dir.join(deal.to_string()));
            }
            self.take_again(&public, stop);
        }
        let known = known(&self.state.read());
        for (deal, stored) in public.iter().filter(|(deal, _)| !known.contains(*deal)) {
            if stop.is_cancelled() {
                return;
            }
            let entries = self.entries(stored);
            self.take(*deal, &stored.slot, &entries, PLACES_MAX);
        }
    }

    /// Once: files of deals that ended while nobody looked.
    fn sweep(&self, public: &HashMap<DealId, &StoredDeal>) {
        if std::mem::replace(&mut self.state.write().swept, true) {
            return;
        }
        let Ok(files) = std::fs::read_dir(&self.dir) else { return };
        for file in files.flatten() {
            let deal = file.file_name().to_str().and_then(|name| name.parse::<DealId>().ok());
            if deal.is_some_and(|deal| !public.contains_key(&deal)) {
                let _ = std::fs::remove_file(file.path());
            }
        }
    }

    /// Slots went, and others may have room, or be the only ones that are left with a block.
    fn take_again(&self, public: &HashMap<DealId, &StoredDeal>, stop: &CancellationToken) {
        let partly = {
            let mut state = self.state.write();
            state.passed_over.clear();
            std::mem::take(&mut state.partly)
        };
        for deal in partly {
            let slot = self.state.read().by_deal.get(&deal).copied();
            let (Some(slot), Some(stored), false) = (slot, public.get(&deal), stop.is_cancelled()) else {
                continue;
            };
            let entries = self.entries(stored);
            let mut state = self.state.write();
            if !state.enter(slot, &entries) {
                state.partly.insert(deal);
            }
        }
    }

    /// From the slot's file; where there is none, from the slot itself.
    fn entries(&self, stored: &StoredDeal) -> Vec<Entry> {
        let path = self.dir.join(stored.deal.to_string());
        let bytes_max = (HEAD_BYTES + SLOT_BLOCKS_MAX * ENTRY_BYTES + DIGEST_BYTES) as u64;
        let kept = read_limited(&path, bytes_max).ok();
        let (entries, bytes) = match kept.and_then(|bytes| Some((decode(&bytes)?, bytes.len()))) {
            Some(kept) => kept,
            None => {
                let entries = hash_slot(&stored.slot);
                let bytes = encode(&entries);
                // Without its file the slot is hashed again after the next start, and served all the same.
                match write_atomically(&path, &bytes) {
                    Ok(()) => (entries, bytes.len()),
                    Err(error) => {
                        tracing::warn!(%error, "an index of public blocks is not kept");
                        (entries, 0)
                    }
                }
            }
        };
        self.state.write().files.insert(stored.deal, bytes as u64);
        entries
    }

    fn take(&self, deal: DealId, path: &Path, entries: &[Entry], places_max: usize) {
        let mut state = self.state.write();
        if state.places.saturating_add(entries.len()) > places_max {
            tracing::warn!(%deal, "more than {places_max} places of public blocks: a slot is kept and not served");
            state.passed_over.insert(deal);
            return;
        }
        let slot = state.next;
        state.next = state.next.wrapping_add(1);
        state.slots.insert(slot, (deal, path.to_owned()));
        state.by_deal.insert(deal, slot);
        if !state.enter(slot, entries) {
            state.partly.insert(deal);
        }
    }

    /// Bytes that its files take.
    pub fn file_bytes(&self) -> u64 {
        self.state.read().files.values().sum()
    }

    /// How many blocks it knows.
    pub fn blocks(&self) -> usize {
        self.state.read().blocks.len()
    }

    fn place(&self, digest: &[u8; 32]) -> Option<(PathBuf, Place)> {
        let state = self.state.read();
        let place = *state.blocks.get(digest)?;
        let (_, path) = state.slots.get(&place.slot)?;
        Some((path.clone(), place))
    }

    /// The block, hashed just now; nothing when it is not here, or no longer what it was.
    pub fn read(&self, cid: &Cid) -> Option<Block> {
        let v1 = as_v1(cid).ok()?;
        let (path, place) = self.place(&digest_of(&v1).ok()?)?;
        let mut bytes = vec![0; place.len as usize];
        let read = File::open(&path).and_then(|file| file.read_exact_at(&mut bytes, place.offset));
        if let Err(error) = read {
            tracing::warn!(path = %path.display(), %error, "a public block cannot be read");
            return None;
        }
        match Block::verify(v1, bytes) {
            Ok(block) => Some(block),
            Err(error) => {
                tracing::error!(path = %path.display(), %error, "a public slot is damaged");
                None
            }
        }
    }
}

impl Blocks for PublicIndex {
    /// For threads that may block: what is missed is waited for, as `settled` does.
    fn block(&self, cid: &Cid) -> Result<Block, PlainError> {
        if let Some(block) = self.read(cid) {
            return Ok(block);
        }
        if let Ok(runtime) = Handle::try_current() {
            runtime.block_on(self.settled());
        }
        self.read(cid).ok_or(PlainError::Missing(*cid))
    }
}

impl PublicBlocks for PublicIndex {
    fn len_of(&self, cid: &Cid) -> Option<u32> {
        let digest = digest_of(&as_v1(cid).ok()?).ok()?;
        self.state.read().blocks.get(&digest).map(|place| place.len)
    }

    fn get(&self, cid: &Cid) -> Option<Bytes> {
        self.read(cid).map(Block::into_bytes)
    }

    fn settled(&self) -> BoxFuture<'_, ()> {
        Box::pin(async {
            let Some(changes) = self.followed.changes.get() else { return };
            let (wanted, mut seen) = (changes(), self.followed.seen.subscribe());
            let is_seen = |seen: &Option<u64>| seen.is_some_and(|seen| seen >= wanted);
            if !is_seen(&seen.borrow()) {
                self.followed.missed.notify_one();
                // Whatever it is that takes longer: the block is not here now.
                let _ = tokio::time::timeout(SETTLE_MAX, seen.wait_for(is_seen)).await;
            }
        })
    }
}

/// The sound blocks of a slot, up to the first section that is none.
fn hash_slot(slot: &Path) -> Vec<Entry> {
    let mut entries = Vec::new();
    let mut walk = || -> Result<(), CarError> {
        let file = BufReader::with_capacity(BUFFER_BYTES, File::open(slot)?);
        let mut reader = PieceReader::new(file, [0; 16])?;
        while entries.len() < SLOT_BLOCKS_MAX {
            let Some((block, at)) = reader.next_block()? else { break };
            if let Ok(digest) = digest_of(block.cid()) {
                entries.push(Entry { digest, offset: at.offset, len: at.len });
            }
        }
        Ok(())
    };
    let walked = walk();
    if let Err(error) = walked {
        tracing::warn!(slot = %slot.display(), %error, "a public slot is no piece of plain blocks");
    }
    entries
}

pub(crate) fn encode(entries: &[Entry]) -> Vec<u8> {
    let mut out = Vec::with_capacity(HEAD_BYTES + entries.len() * ENTRY_BYTES + DIGEST_BYTES);
    out.extend_from_slice(MAGIC);
    out.push(VERSION);
    out.extend_from_slice(&u32::try_from(entries.len()).unwrap_or(u32::MAX).to_le_bytes());
    for entry in entries {
        out.extend_from_slice(&entry.digest);
        out.extend_from_slice(&entry.offset.to_le_bytes());
        out.extend_from_slice(&entry.len.to_le_bytes());
    }
    let digest = blake3::hash(&out);
    out.extend_from_slice(digest.as_bytes());
    out
}

/// Nothing for anything but what [`encode`] made.
pub(crate) fn decode(bytes: &[u8]) -> Option<Vec<Entry>> {
    let (body, digest) = bytes.split_at_checked(bytes.len().checked_sub(DIGEST_BYTES)?)?;
    let rest = body.strip_prefix(MAGIC)?.strip_prefix(&[VERSION])?;
    let (count, rest) = rest.split_first_chunk::<4>()?;
    let count = u32::from_le_bytes(*count) as usize;
    if count.checked_mul(ENTRY_BYTES)? != rest.len() || *blake3::hash(body).as_bytes() != *digest {
        return None;
    }
    let entry = |bytes: &[u8]| {
        let (digest, rest) = bytes.split_first_chunk::<32>()?;
        let (offset, len) = rest.split_first_chunk::<8>()?;
        let len = u32::from_le_bytes(len.try_into().ok()?);
        Some(Entry { digest: *digest, offset: u64::from_le_bytes(*offset), len })
    };
    rest.chunks_exact(ENTRY_BYTES).map(entry).collect()
}

#[cfg(test)]
pub(crate) mod tests;
