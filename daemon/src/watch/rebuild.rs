//! The bytes of a lost slot, out of what others keep: another copy under its own mask, or k slots of the stripe, decoded.
//!
//! Promises: a source is compared with its piece CID before a byte of it is used, and what comes out with the lost slot's; what is
//! on its way lies in a file without a name. Nothing is decrypted: there are no keys for that here.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context as _, bail};
use holdfast_net::mask::SlotSeed;
use holdfast_net::stripe;
use holdfast_net::{DealId, NetError};
use holdfast_proofs::commp::CommpHasher;

use super::bundle::{Piece, Slot};
use super::log::SlotName;
use super::picture::{Health, Keeper, Picture, Seen};
use super::reach::Reach;
use crate::drive::slots::{Cover, MaskedSlot, PieceBytes, slot_cids};

/// A holder that sends nothing for so long is given up for the next one.
const STALL: Duration = Duration::from_secs(30);
/// Bytes of every shard that are coded at once.
const STEP: u64 = 256 << 10;
/// Left free on the watcher's disk, at least.
const DISK_FREE_BYTES_MIN: u64 = 64 << 20;

static TEMPORARY: AtomicU64 = AtomicU64::new(0);

/// Plain bytes of a piece or a shard, gone with the last handle.
struct Scratch {
    file: File,
    len: u64,
}

impl Scratch {
    fn new(work: &Path, len: u64) -> std::io::Result<Scratch> {
        let number = TEMPORARY.fetch_add(1, Ordering::Relaxed);
        let path: PathBuf = work.join(format!("{number}"));
        let file = File::options().read(true).write(true).create(true).truncate(true).open(&path)?;
        std::fs::remove_file(&path)?;
        Ok(Scratch { file, len })
    }
}

impl PieceBytes for Scratch {
    fn len(&self) -> u64 {
        self.len
    }
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> std::io::Result<()> {
        self.file.read_exact_at(buf, offset)
    }
}

/// What lies over a slot.
fn cover(slot: &Slot) -> Cover {
    match &slot.seed {
        Some(seed) => Cover::Mask(SlotSeed::from_bytes(*seed.as_bytes())),
        None => Cover::Nothing,
    }
}

/// A whole slot, unmasked, if it has the piece CID that it must have.
async fn fetch(
    reach: &Reach,
    work: &Path,
    slot: &Slot,
    len: u64,
    keeper: &Keeper,
) -> anyhow::Result<Arc<dyn PieceBytes>> {
    let scratch = Scratch::new(work, len)?;
    let (cover, mut hasher) = (cover(slot), CommpHasher::new());
    let session = reach.session(&keeper.peer).await?;
    session
        .fetch(DealId(keeper.deal), 0, len, STALL, |offset, bytes| {
            hasher.update(&bytes);
            let mut plain = Vec::from(bytes);
            let wrote = cover
                .apply(offset, &mut plain)
                .map_err(|e| e.to_string())
                .and_then(|()| scratch.file.write_all_at(&plain, offset).map_err(|e| e.to_string()));
            std::future::ready(wrote.map_err(NetError::Local))
        })
        .await?;
    if hasher.finish().to_bytes() != *slot.cid {
        bail!("it sent other bytes than it was given");
    }
    Ok(Arc::new(scratch))
}

/// The lost slot's bytes as they are to be pushed.
pub async fn slot(
    reach: &Reach,
    work: &Path,
    picture: &Picture<'_>,
    seen: &Seen,
    wanted: &SlotName,
) -> anyhow::Result<Arc<MaskedSlot>> {
    let piece = picture.piece(&wanted.piece).context("a piece that the owner did not give")?;
    let lost = piece.slots.get(usize::from(wanted.slot)).context("a slot that there is not")?.clone();
    let need = piece.shards.len().max(1) + 1;
    let room = piece.len.saturating_mul(need as u64).saturating_add(DISK_FREE_BYTES_MIN);
    let free = nix::sys::statvfs::statvfs(work)?;
    let free = free.blocks_available().saturating_mul(free.fragment_size());
    if free < room {
        bail!("rebuilding a slot takes {room} bytes of this disk for a while, and {free} are free");
    }
    let sources = sources(reach, work, picture, seen, piece, wanted.slot).await?;
    let (piece, work, number) = (piece.clone(), work.to_owned(), wanted.slot);
    let coding = move || {
        let plain = match piece.shards.is_empty() {
            true => sources.into_values().next().context("no copy is left")?,
            false => decode(&piece, &work, &sources, number)?,
        };
        let cover = cover(&lost);
        let found = slot_cids(plain.as_ref(), std::slice::from_ref(&cover))?;
        if found.first().is_none_or(|found| found.to_bytes() != *lost.cid) {
            bail!("what was rebuilt is not what was lost");
        }
        Ok(Arc::new(MaskedSlot::new(plain, cover)))
    };
    reach.threads.run(coding).await?
}

/// One copy, or k slots of a stripe (the slot itself, where its old holder still gives it), verified and unmasked.
async fn sources(
    reach: &Reach,
    work: &Path,
    picture: &Picture<'_>,
    seen: &Seen,
    piece: &Piece,
    lost: u16,
) -> anyhow::Result<BTreeMap<u16, Arc<dyn PieceBytes>>> {
    let mut all: Vec<(u8, u64, u16, &Keeper)> = Vec::new();
    for n in 0..u16::try_from(piece.slots.len()).unwrap_or(u16::MAX) {
        for keeper in picture.keepers(&SlotName { piece: piece.id, slot: n }) {
            let rank = match picture.health(keeper, seen) {
                Health::Well => 0,
                Health::Doubt => 1,
                Health::Lost(_) => 2,
            };
            all.push((rank, piece.slot_len(n), n, keeper));
        }
    }
    all.sort_by_key(|(rank, len, n, _)| (*rank, *len, *n));
    let mut have = BTreeMap::new();
    for (_, len, n, keeper) in all {
        let enough = have.len() >= piece.shards.len().max(1) || have.contains_key(&lost);
        if enough {
            break;
        }
        let (false, Some(slot)) = (have.contains_key(&n), piece.slots.get(usize::from(n))) else { continue };
        match fetch(reach, work, slot, len, keeper).await {
            Ok(bytes) => drop(have.insert(n, bytes)),
            Err(error) => {
                let peer = crate::drive::peers::peer_short(&keeper.peer);
                tracing::warn!(%peer, error = %format!("{error:#}"), "source of a repair failed");
            }
        }
    }
    Ok(have)
}

/// One shard out of k others.
fn decode(
    piece: &Piece,
    work: &Path,
    sources: &BTreeMap<u16, Arc<dyn PieceBytes>>,
    lost: u16,
) -> anyhow::Result<Arc<dyn PieceBytes>> {
    if let Some(itself) = sources.get(&lost) {
        return Ok(itself.clone());
    }
    let shape = piece.shape().context("not a stripe")?;
    if sources.len() < usize::from(shape.data()) {
        bail!("{} of the {} slots that are needed are within reach", sources.len(), shape.data());
    }
    let scratch = Scratch::new(work, shape.slot_len(lost))?;
    let mut offset = 0;
    while offset < shape.shard_len() {
        let len = STEP.min(shape.shard_len() - offset);
        let mut have = Vec::new();
        for (n, bytes) in sources {
            let mut buffer = vec![0; usize::try_from(len)?];
            let stored = usize::try_from(shape.stored(*n, offset, len))?;
            if let Some(buffer) = buffer.get_mut(..stored).filter(|buffer| !buffer.is_empty()) {
                bytes.read_at(offset, buffer)?;
            }
            have.push((*n, buffer));
        }
        let have: Vec<(u16, &[u8])> = have.iter().map(|(n, bytes)| (*n, &bytes[..])).collect();
        let rebuilt = stripe::rebuild(shape.data(), shape.parity(), &have, &[lost])?;
        let stored = usize::try_from(shape.stored(lost, offset, len))?;
        let bytes = rebuilt.first().and_then(|bytes| bytes.get(..stored)).context("nothing was rebuilt")?;
        scratch.file.write_all_at(bytes, offset)?;
        offset += len;
    }
    Ok(Arc::new(scratch))
}
