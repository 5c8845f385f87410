//! Which public slot of a provider holds which block.
//!
//! ```text
//! public/<deal, hex>   "HFPI" | version u8 = 1 | count u32 LE | { sha2-256 32 | offset u64 LE | length u32 LE } ... | BLAKE3 of all before 32
//! ```
//!
//! A slot's blocks are hashed once, when it is stored; the file says where they lie, and is made anew where it is missing or damaged. Served
//! is only what hashes right again. Memory: about 70 bytes for each block.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::BufReader;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use cid::Cid;
use holdfast_content::block::{Block, as_v1, digest_of};
use holdfast_content::car::{CarError, PieceReader};
use holdfast_content::plain::{Blocks, PlainError};
use holdfast_net::DealId;
use holdfast_net::bitswap::PublicBlocks;
use holdfast_net::provider::{Provider, StoredDeal};
use parking_lot::RwLock;
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
/// Blocks of all slots: about a gigabyte of memory.
const BLOCKS_MAX: usize = 16 << 20;
/// How often deals are looked at.
const SYNC_EVERY: Duration = Duration::from_secs(1);
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
    next: u32,
}

/// See the module. Clones are the same one.
#[derive(Clone)]
pub struct PublicIndex {
    dir: PathBuf,
    state: Arc<RwLock<State>>,
}

impl PublicIndex {
    /// Of the provider in `folder`; knows nothing yet.
    pub fn open(folder: &Path) -> Result<PublicIndex, HomeError> {
        let dir = folder.join(FOLDER);
        create_private_dir(&dir)?;
        Ok(PublicIndex { dir, state: Arc::default() })
    }

    /// Follows the provider's deals until `stop`.
    pub async fn follow(self, provider: Provider, stop: CancellationToken) {
        let mut seen = None;
        loop {
            let changes = provider.deals_changes();
            if seen != Some(changes) {
                let (index, provider, ending) = (self.clone(), provider.clone(), stop.clone());
                let done =
                    tokio::task::spawn_blocking(move || index.sync(&provider.stored_deals(), &ending)).await;
                match done {
                    Ok(Ok(())) => seen = Some(changes),
                    Ok(Err(error)) => tracing::warn!(%error, "the index of public blocks"),
                    Err(error) => tracing::error!(%error, "the index of public blocks"),
                }
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(SYNC_EVERY) => {}
            }
        }
    }

    /// Takes in what is new, and forgets what is gone.
    pub(crate) fn sync(&self, deals: &[StoredDeal], stop: &CancellationToken) -> Result<(), HomeError> {
        let public: HashMap<DealId, &StoredDeal> =
            deals.iter().filter(|deal| deal.public).map(|deal| (deal.deal, deal)).collect();
        let known: HashSet<DealId> = self.state.read().by_deal.keys().copied().collect();
        let gone: Vec<DealId> = known.iter().filter(|deal| !public.contains_key(*deal)).copied().collect();
        if !gone.is_empty() {
            self.forget(&gone);
            for deal in gone {
                let _ = std::fs::remove_file(self.dir.join(deal.to_string()));
            }
        }
        for (deal, stored) in public.iter().filter(|(deal, _)| !known.contains(*deal)) {
            if stop.is_cancelled() {
                return Ok(());
            }
            let path = self.dir.join(deal.to_string());
            let bytes_max = (HEAD_BYTES + SLOT_BLOCKS_MAX * ENTRY_BYTES + DIGEST_BYTES) as u64;
            let kept = read_limited(&path, bytes_max).ok().and_then(|bytes| decode(&bytes));
            let entries = match kept {
                Some(entries) => entries,
                None => {
                    let entries = hash_slot(&stored.slot);
                    write_atomically(&path, &encode(&entries))?;
                    entries
                }
            };
            self.take(*deal, &stored.slot, &entries);
        }
        Ok(())
    }

    fn take(&self, deal: DealId, slot: &Path, entries: &[Entry]) {
        let mut state = self.state.write();
        if state.blocks.len().saturating_add(entries.len()) > BLOCKS_MAX {
            tracing::warn!(%deal, "more than {BLOCKS_MAX} public blocks: a slot is kept and not served");
            return;
        }
        let number = state.next;
        state.next = state.next.wrapping_add(1);
        state.slots.insert(number, (deal, slot.to_owned()));
        state.by_deal.insert(deal, number);
        for entry in entries {
            let place = Place { slot: number, offset: entry.offset, len: entry.len };
            match state.blocks.get(&entry.digest) {
                Some(_) => state.others.entry(entry.digest).or_default().push(place),
                None => _ = state.blocks.insert(entry.digest, place),
            }
        }
    }

    fn forget(&self, deals: &[DealId]) {
        let mut state = self.state.write();
        let State { slots, by_deal, blocks, others, .. } = &mut *state;
        let gone: HashSet<u32> = deals.iter().filter_map(|deal| by_deal.remove(deal)).collect();
        slots.retain(|number, _| !gone.contains(number));
        others.retain(|_, places| {
            places.retain(|place| !gone.contains(&place.slot));
            !places.is_empty()
        });
        blocks.retain(|digest, place| {
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
    fn block(&self, cid: &Cid) -> Result<Block, PlainError> {
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
