//! Bytes of a stripe's slots: coded when the stripe is made, rebuilt when a slot is lost.
//!
//! ```text
//! make      k pieces ─► parity in repair/<stripe>-<slot>, piece CIDs of all k + m masked slots      one pass
//! rebuild   the k cheapest slots that are left, each fetched whole and verified ─► the lost ones     one pass for all of them
//! ```
//!
//! Promises: memory is bounded by a step of each shard, whatever the pieces' length; a source is compared with its piece CID
//! before it is decoded, and what comes out with the lost slot's, so a wrong shard is never stored. A rebuilt shard keeps its
//! file until its slot is placed: a restart goes on with the push. Refuses to begin without room on the disk.
//!
//! Cheapest means: on this machine, then the shortest, then from the provider that answers soonest.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context as _, bail};
use holdfast_net::mask::{self, SlotSeed};
use holdfast_net::stripe::{self, StripeShape};
use holdfast_proofs::commp::CommpHasher;

use super::source::{self, Fetched, Kept};
use crate::drive::Engine;
use crate::drive::ledger::{PieceId, PieceRow};
use crate::drive::peers::peer_short;
use crate::drive::slots::{self, PieceBytes};

/// Bytes of every shard that are coded at once.
const STEP: u64 = 256 << 10;
/// Left free on the home's disk by a repair, at least.
const DISK_FREE_BYTES_MIN: u64 = 256 << 20;

type Shard = Arc<dyn PieceBytes>;

/// The bytes of these slots, from wherever they are cheapest.
pub(super) async fn open(
    engine: &Arc<Engine>,
    id: PieceId,
    row: &PieceRow,
    wanted: &[u16],
) -> anyhow::Result<BTreeMap<u16, Shard>> {
    let stripe = row.stripe.as_ref().context("not a stripe")?;
    let mut found = BTreeMap::new();
    let mut missing = Vec::new();
    for slot in wanted.iter().copied() {
        let bytes = match (kept_file(engine, id, row, slot).await?, stripe.pieces.get(usize::from(slot))) {
            (Some(bytes), _) => Some(bytes),
            // A piece's own copies, or the slot itself where its holder still gives it.
            (None, Some(piece)) => {
                let copies = engine.ledger.piece(&piece.id).unwrap_or_else(|| PieceRow::new(piece.len, 0));
                source::whole(engine, piece.id, &copies).await?
            }
            (None, None) => {
                let itself = source::kept(id, row).into_iter().filter(|kept| kept.slot == slot);
                source::first(engine, itself.collect()).await
            }
        };
        match bytes {
            Some(bytes) => drop(found.insert(slot, bytes)),
            None => missing.push(slot),
        }
    }
    if !missing.is_empty() {
        found.extend(rebuild(engine, id, row, &missing).await?);
    }
    Ok(found)
}

/// The bytes of these slots, decoded from the others.
pub(super) async fn rebuild(
    engine: &Arc<Engine>,
    id: PieceId,
    row: &PieceRow,
    wanted: &[u16],
) -> anyhow::Result<BTreeMap<u16, Shard>> {
    let shape = row.stripe.as_ref().and_then(|stripe| stripe.shape()).context("not a stripe")?;
    let sources = sources(engine, id, row, &shape, wanted).await?;
    let mut outputs = Vec::new();
    for slot in wanted.iter().copied() {
        let cid =
            row.slots.get(usize::from(slot)).and_then(|s| s.cid.clone()).context("a slot's piece CID")?;
        outputs.push((slot, cid.into_vec(), Part::create(engine, id, slot)?));
    }
    let (data, parity) = (shape.data(), shape.parity());
    engine
        .blocking(move |e| -> anyhow::Result<BTreeMap<u16, Shard>> {
            let slots: Vec<u16> = outputs.iter().map(|(slot, ..)| *slot).collect();
            let mut hashers: Vec<_> =
                slots.iter().map(|slot| Masked::new(e.keys.mask.as_bytes(), id, *slot)).collect();
            steps(&shape, |offset, len| {
                let mut have = Vec::new();
                for (slot, bytes) in &sources {
                    have.push((*slot, read(bytes.as_ref(), &shape, *slot, offset, len)?));
                }
                let have: Vec<(u16, &[u8])> = have.iter().map(|(slot, bytes)| (*slot, &bytes[..])).collect();
                let rebuilt = stripe::rebuild(data, parity, &have, &slots)?;
                for (((slot, _, part), bytes), hasher) in outputs.iter().zip(rebuilt).zip(&mut hashers) {
                    let stored = usize::try_from(shape.stored(*slot, offset, len))?;
                    let bytes = bytes.get(..stored).unwrap_or_default();
                    part.file.write_all_at(bytes, offset)?;
                    hasher.update(offset, bytes)?;
                }
                Ok(())
            })?;
            let mut found = BTreeMap::new();
            for ((slot, cid, part), hasher) in outputs.into_iter().zip(hashers) {
                if hasher.finish()? != cid {
                    bail!("what was rebuilt of slot {slot} is not what was lost");
                }
                let bytes: Shard = Arc::new(part.keep(shape.slot_len(slot))?);
                found.insert(slot, bytes);
            }
            Ok(found)
        })
        .await?
        .with_context(|| format!("rebuilding slots of stripe {}", super::confirm::short_id(&id)))
}

/// `k` slots that are left, whole and verified, the cheapest first.
async fn sources(
    engine: &Arc<Engine>,
    id: PieceId,
    row: &PieceRow,
    shape: &StripeShape,
    wanted: &[u16],
) -> anyhow::Result<Vec<(u16, Shard)>> {
    let stripe = row.stripe.as_ref().context("not a stripe")?;
    let need = usize::from(shape.data());
    let room = shape.shard_len().saturating_mul((need + wanted.len()) as u64);
    let free = nix::sys::statvfs::statvfs(&engine.home)?;
    let free = free.blocks_available().saturating_mul(free.fragment_size());
    if free < room.saturating_add(DISK_FREE_BYTES_MIN) {
        bail!("repairing a stripe takes {room} bytes of this disk for a while, and {free} are free");
    }
    let mut have: Vec<(u16, Shard)> = Vec::new();
    let mut left: Vec<Kept> = Vec::new();
    for slot in (0..shape.slots()).filter(|slot| !wanted.contains(slot)) {
        if have.len() == need {
            break;
        }
        let piece = stripe.pieces.get(usize::from(slot));
        if let Some(piece) = piece
            && let source::Local::Whole(bytes) = source::local(engine, piece.id).await?
        {
            have.push((slot, bytes));
            continue;
        }
        left.extend(source::kept(id, row).into_iter().filter(|kept| kept.slot == slot));
        // A copy stands for the slot; it is the same shard.
        if let Some(piece) = piece
            && let Some(copies) = engine.ledger.piece(&piece.id)
        {
            let copies = source::kept(piece.id, &copies).into_iter();
            left.extend(copies.map(|kept| Kept { slot: kept.slot, ..kept }));
        }
    }
    let answers =
        |kept: &Kept| engine.ledger.provider(&kept.holder.provider).is_some_and(|row| row.answers());
    left.retain(|kept| source::is_worth_asking(engine, kept));
    left.sort_by_cached_key(|k| {
        (k.holder.failed.is_some(), !answers(k), k.len, engine.peers.rank(&k.holder.provider, k.len))
    });
    let mut left = std::collections::VecDeque::from(left);
    while have.len() < need {
        // As many at once as are lacking, no shard twice.
        let mut batch: Vec<(u16, Kept)> = Vec::new();
        let mut again = Vec::new();
        while batch.len() < need - have.len()
            && let Some(kept) = left.pop_front()
        {
            let Some(shard) = shard_of(id, row, &kept) else { continue };
            if have.iter().any(|(slot, _)| *slot == shard) {
                continue;
            }
            if batch.iter().any(|(slot, _)| *slot == shard) {
                again.push(kept);
                continue;
            }
            batch.push((shard, kept));
        }
        if batch.is_empty() {
            bail!("{} of the {need} slots that are needed are within reach", have.len());
        }
        for kept in again.into_iter().rev() {
            left.push_front(kept);
        }
        let fetching = batch
            .into_iter()
            .map(|(shard, kept)| async move { (shard, source::fetch(engine, &kept).await, kept) });
        for (shard, fetched, kept) in futures::future::join_all(fetching).await {
            match fetched {
                Ok(bytes) => have.push((shard, Arc::new(bytes))),
                Err(error) => {
                    let peer = peer_short(&kept.holder.provider);
                    tracing::warn!(%peer, error = %format!("{error:#}"), "source of a repair failed");
                    engine.peers.failed(&kept.holder.provider);
                }
            }
        }
    }
    Ok(have)
}

/// Which shard of the stripe a slot, of the stripe or a copy of a piece in it, is.
fn shard_of(id: PieceId, row: &PieceRow, kept: &Kept) -> Option<u16> {
    if kept.id == id {
        return Some(kept.slot);
    }
    let pieces = row.stripe.as_ref()?.pieces.iter();
    pieces.zip(0u16..).find(|(piece, _)| piece.id == kept.id).map(|(_, slot)| slot)
}

/// Codes a new stripe: writes its parity, and gives the piece CIDs of all slots. For a thread that may take its time.
pub(crate) fn make(
    engine: &Engine,
    id: PieceId,
    shape: &StripeShape,
    pieces: &[Shard],
) -> anyhow::Result<Vec<Vec<u8>>> {
    let mask_key = engine.keys.mask.as_bytes();
    let mut hashers: Vec<_> = (0..shape.slots()).map(|slot| Masked::new(mask_key, id, slot)).collect();
    let parts: Vec<Part> = (shape.data()..shape.slots())
        .map(|slot| Part::create(engine, id, slot))
        .collect::<anyhow::Result<_>>()?;
    steps(shape, |offset, len| {
        let mut data = Vec::new();
        for (piece, slot) in pieces.iter().zip(0u16..) {
            data.push(read(piece.as_ref(), shape, slot, offset, len)?);
        }
        let parity = stripe::encode(&data, shape.parity())?;
        for (part, bytes) in parts.iter().zip(&parity) {
            part.file.write_all_at(bytes, offset)?;
        }
        for ((bytes, slot), hasher) in data.iter().chain(&parity).zip(0u16..).zip(&mut hashers) {
            let stored = usize::try_from(shape.stored(slot, offset, len))?;
            hasher.update(offset, bytes.get(..stored).unwrap_or_default())?;
        }
        Ok(())
    })?;
    for part in parts {
        part.keep(shape.shard_len())?;
    }
    hashers.into_iter().map(Masked::finish).collect()
}

/// A shard that waits in its file for its slot to be placed; one that is not what it must be is removed.
async fn kept_file(
    engine: &Arc<Engine>,
    id: PieceId,
    row: &PieceRow,
    slot: u16,
) -> anyhow::Result<Option<Shard>> {
    let Some(cid) = row.slots.get(usize::from(slot)).and_then(|s| s.cid.clone()) else { return Ok(None) };
    let len = row.slot_len(slot);
    engine
        .blocking(move |e| {
            let path = path(e, id, slot)?;
            let file = match File::open(&path) {
                Ok(file) => Fetched::at(file, len),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
                Err(error) => return Err(error.into()),
            };
            let cover = slots::Cover::Mask(slots::seed(e.keys.mask.as_bytes(), id, slot));
            match slots::slot_cids(&file, &[cover]) {
                Ok(cids) if cids.first().is_some_and(|found| found.to_bytes() == *cid) => {
                    Ok(Some(Arc::new(file) as Shard))
                }
                _ => {
                    std::fs::remove_file(&path)?;
                    Ok(None)
                }
            }
        })
        .await?
}

fn path(engine: &Engine, id: PieceId, slot: u16) -> anyhow::Result<PathBuf> {
    Ok(source::folder(engine)?.join(format!("{}-{slot}", data_encoding::HEXLOWER.encode(&id))))
}

/// Placed slots need their files no more.
pub(super) fn forget(engine: &Engine, id: PieceId, slot: u16) {
    if let Ok(path) = path(engine, id, slot) {
        let _ = std::fs::remove_file(path);
    }
}

/// At the start: what no open slot of a stripe waits for is removed from the folder of repairs.
pub(crate) fn sweep(engine: &Engine) -> anyhow::Result<()> {
    let folder = source::folder(engine)?;
    for entry in std::fs::read_dir(&folder)? {
        let entry = entry?;
        let name = entry.file_name();
        let parts = name.to_str().and_then(|name| name.split_once('-'));
        let waits = parts.and_then(|(id, slot)| {
            let id = data_encoding::HEXLOWER.decode(id.as_bytes()).ok()?;
            let row = engine.ledger.piece(&PieceId::try_from(id.as_slice()).ok()?)?;
            let slot = row.slots.get(slot.parse::<usize>().ok()?)?;
            Some(slot.holder.is_none() || slot.lost.is_some())
        });
        if waits != Some(true) {
            std::fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

/// A file that gets its name once it is whole.
struct Part {
    file: File,
    path: PathBuf,
    part: PathBuf,
    whole: bool,
}

impl Part {
    fn create(engine: &Engine, id: PieceId, slot: u16) -> anyhow::Result<Self> {
        let path = path(engine, id, slot)?;
        let part = path.with_extension(format!("part{}", source::temporary()));
        let file = File::options().read(true).write(true).create(true).truncate(true).open(&part)?;
        Ok(Self { file, path, part, whole: false })
    }

    fn keep(mut self, len: u64) -> anyhow::Result<Fetched> {
        std::fs::rename(&self.part, &self.path)?;
        self.whole = true;
        Ok(Fetched::at(self.file.try_clone()?, len))
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        if !self.whole {
            let _ = std::fs::remove_file(&self.part);
        }
    }
}

/// The piece CID of a slot, out of its plain bytes.
struct Masked {
    seed: SlotSeed,
    hasher: CommpHasher,
    buffer: Vec<u8>,
}

impl Masked {
    fn new(mask_key: &[u8; 32], id: PieceId, slot: u16) -> Self {
        Self { seed: slots::seed(mask_key, id, slot), hasher: CommpHasher::new(), buffer: Vec::new() }
    }

    fn update(&mut self, offset: u64, plain: &[u8]) -> anyhow::Result<()> {
        self.buffer.clear();
        self.buffer.extend_from_slice(plain);
        mask::apply(&self.seed, offset, &mut self.buffer)?;
        self.hasher.update(&self.buffer);
        Ok(())
    }

    fn finish(self) -> anyhow::Result<Vec<u8>> {
        Ok(self.hasher.finish().to_cid()?.to_bytes())
    }
}

/// Every step of the code over a stripe, from the beginning.
fn steps(shape: &StripeShape, mut step: impl FnMut(u64, u64) -> anyhow::Result<()>) -> anyhow::Result<()> {
    let mut offset = 0;
    while offset < shape.shard_len() {
        let len = STEP.min(shape.shard_len() - offset);
        step(offset, len)?;
        offset += len;
    }
    Ok(())
}

/// One step of a shard, with the zeros behind its piece.
fn read(
    bytes: &dyn PieceBytes,
    shape: &StripeShape,
    slot: u16,
    offset: u64,
    len: u64,
) -> anyhow::Result<Vec<u8>> {
    let mut buffer = vec![0; usize::try_from(len)?];
    let stored = usize::try_from(shape.stored(slot, offset, len))?;
    if let Some(buffer) = buffer.get_mut(..stored).filter(|buffer| !buffer.is_empty()) {
        bytes.read_at(offset, buffer)?;
    }
    Ok(buffer)
}
