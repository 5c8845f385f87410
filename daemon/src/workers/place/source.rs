//! Where the plain bytes of a piece come from: the drive's own file, else a copy with a provider, else the piece's slot in a
//! stripe, else the stripe's other slots, decoded.
//!
//! Promises: whatever is given on was verified: the drive's own file to its last byte by the CIDs of its blocks, what comes over
//! the network against its slot's piece CID. Else one flipped bit of this disk would be coded into a stripe, or named as the
//! piece, and the good copies be given up for it. What is fetched lies in a file without a name, so that no crash leaves it
//! behind; a damaged file of the drive's own is healed with it.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use anyhow::{Context as _, bail};
use holdfast_net::{DealId, NetError};
use holdfast_proofs::commp::CommpHasher;

use super::shards;
use crate::drive::Engine;
use crate::drive::events::Level;
use crate::drive::ledger::{Holder, PieceId, PieceRow};
use crate::drive::peers::peer_short;
use crate::drive::slots::{self, Cover, PieceBytes};

/// A holder that sends nothing for so long is given up for the next one.
const STALL: std::time::Duration = std::time::Duration::from_secs(30);
/// Names in the folder of a repair, until they are taken away.
static TEMPORARY: AtomicU64 = AtomicU64::new(0);

/// Bytes of a piece or a shard in a file of the repair folder; ciphertext as every piece, and gone with the last handle.
pub(super) struct Fetched {
    file: File,
    len: u64,
}

impl Fetched {
    /// An empty one. Its name goes at once.
    pub(super) fn new(engine: &Engine, len: u64) -> std::io::Result<Self> {
        let folder = folder(engine)?;
        let number = temporary();
        let path = folder.join(format!(".fetched-{}-{number}", std::process::id()));
        let file = File::options().read(true).write(true).create(true).truncate(true).open(&path)?;
        std::fs::remove_file(&path)?;
        Ok(Self { file, len })
    }

    /// One that keeps its name.
    pub(super) fn at(file: File, len: u64) -> Self {
        Self { file, len }
    }
}

impl PieceBytes for Fetched {
    fn len(&self) -> u64 {
        self.len
    }
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> std::io::Result<()> {
        self.file.read_exact_at(buf, offset)
    }
}

/// A number that no other file of this process has in its name.
pub(super) fn temporary() -> u64 {
    TEMPORARY.fetch_add(1, Ordering::Relaxed)
}

/// Where repairs work.
pub(super) fn folder(engine: &Engine) -> std::io::Result<std::path::PathBuf> {
    let folder = engine.home.join("repair");
    std::fs::create_dir_all(&folder)?;
    Ok(folder)
}

/// A slot that somebody keeps, and what its bytes must be.
#[derive(Clone)]
pub(super) struct Kept {
    /// Piece or stripe.
    pub id: PieceId,
    pub slot: u16,
    pub len: u64,
    pub holder: Holder,
    pub cid: Vec<u8>,
    /// Nothing lies over its bytes.
    pub public: bool,
}

/// Slots of a row that somebody has or had: what failed an audit is asked last, since it may be all that is left, and is compared with its
/// name like any other.
pub(super) fn kept(id: PieceId, row: &PieceRow) -> Vec<Kept> {
    let slots = row.slots.iter().zip(0u16..);
    slots
        .filter_map(|(s, slot)| {
            let (holder, cid) = (s.holder.clone()?, s.cid.clone()?.into_vec());
            let (len, public) = (row.slot_len(slot), row.public.is_some());
            Some(Kept { id, slot, len, holder, cid, public })
        })
        .collect()
}

/// The piece's bytes.
pub(crate) async fn open(
    engine: &Arc<Engine>,
    id: PieceId,
    row: &PieceRow,
) -> anyhow::Result<Arc<dyn PieceBytes>> {
    if let Some(bytes) = whole(engine, id, row).await? {
        return Ok(bytes);
    }
    if let Some((stripe, striped, slot)) = engine.ledger.stripe_of(&id) {
        let mut rebuilt = shards::rebuild(engine, stripe, &striped, &[slot]).await?;
        // Nobody looks for it under its name here.
        shards::forget(engine, stripe, slot);
        if let Some(bytes) = rebuilt.remove(&slot) {
            return Ok(bytes);
        }
    }
    bail!("fetching piece {}: no copy of it is known to be left", super::confirm::short_id(&id))
}

/// The same without decoding anything; `None`: nobody gives the whole of it.
pub(super) async fn whole(
    engine: &Arc<Engine>,
    id: PieceId,
    row: &PieceRow,
) -> anyhow::Result<Option<Arc<dyn PieceBytes>>> {
    let local = match row.public.is_some() {
        true => local_public(engine, id, row).await?,
        false => local(engine, id).await?,
    };
    if let Local::Whole(file) = local {
        return Ok(Some(file));
    }
    let mut all = kept(id, row);
    if let Some((stripe, striped, slot)) = engine.ledger.stripe_of(&id) {
        all.extend(kept(stripe, &striped).into_iter().filter(|k| k.slot == slot));
    }
    let found = first(engine, all).await;
    if let (Local::Damaged, Some(bytes), None) = (&local, &found, &row.public) {
        heal(engine, id, bytes.clone()).await?;
    }
    Ok(found)
}

/// What this machine has of a piece.
pub(crate) enum Local {
    /// The file, verified.
    Whole(Arc<dyn PieceBytes>),
    /// A file that is not what it was.
    Damaged,
    /// Nothing.
    None,
}

/// The drive's own file.
pub(crate) async fn local(engine: &Arc<Engine>, id: PieceId) -> anyhow::Result<Local> {
    let opened = engine
        .blocking(move |e| match e.drive.piece(id)? {
            Some(info) if info.local => {
                // Open first: it is not evicted between the look and its use.
                let file = e.drive.open_piece(id)?;
                e.drive.check_piece(id).map(|()| Some(file))
            }
            _ => Ok(None),
        })
        .await?;
    Ok(match opened {
        Ok(Some(file)) => Local::Whole(Arc::new(file)),
        Ok(None) => Local::None,
        // The others have it, if anybody has.
        Err(error) => {
            damaged(engine, id, &error.to_string());
            Local::Damaged
        }
    })
}

fn damaged(engine: &Engine, id: PieceId, why: &str) {
    let text = format!(
        "the file of piece {} on this disk is damaged ({why}); it is fetched from its providers, if any has it",
        super::confirm::short_id(&id)
    );
    engine.events.add(engine.now(), Level::Error, text);
}

/// The file of a public piece, if it is still here.
async fn local_public(engine: &Arc<Engine>, id: PieceId, row: &PieceRow) -> anyhow::Result<Local> {
    let Ok(file) = File::open(crate::public::piece_path(&engine.home, &id)) else { return Ok(Local::None) };
    let Ok(len) = file.metadata().map(|metadata| metadata.len()) else { return Ok(Local::None) };
    let Some(cid) = row.slots.first().and_then(|slot| slot.cid.clone()) else {
        // Its blocks were hashed when it was published, and nobody has been told a name of it yet.
        return Ok(Local::Whole(Arc::new(Fetched::at(file, len))));
    };
    engine
        .blocking(move |e| {
            let bytes = Fetched::at(file, len);
            let found = slots::slot_cids(&bytes, &[Cover::Nothing]);
            match found.map(|cids| cids.first().is_some_and(|found| found.to_bytes() == *cid)) {
                Ok(true) => Local::Whole(Arc::new(bytes) as Arc<dyn PieceBytes>),
                Ok(false) => {
                    damaged(e, id, "not the bytes that were published");
                    Local::Damaged
                }
                Err(error) => {
                    damaged(e, id, &error.to_string());
                    Local::Damaged
                }
            }
        })
        .await
        .map_err(Into::into)
}

/// Puts verified bytes in the place of a damaged file.
pub(crate) async fn heal(
    engine: &Arc<Engine>,
    id: PieceId,
    bytes: Arc<dyn PieceBytes>,
) -> anyhow::Result<()> {
    let healed =
        engine.blocking(move |e| e.drive.heal_piece(id, &mut Reading { bytes: &*bytes, at: 0 })).await?;
    let short = super::confirm::short_id(&id);
    match healed {
        Ok(()) => {
            let text = format!("healed: the file of piece {short} on this disk is whole again");
            engine.events.add(engine.now(), Level::Info, text);
        }
        Err(error) => tracing::warn!(piece = %short, %error, "a damaged piece could not be healed"),
    }
    Ok(())
}

/// A piece from its beginning.
struct Reading<'a> {
    bytes: &'a dyn PieceBytes,
    at: u64,
}

impl std::io::Read for Reading<'_> {
    fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
        let left = self.bytes.len().saturating_sub(self.at);
        let take = usize::try_from(left).unwrap_or(usize::MAX).min(buf.len());
        let part = buf.get_mut(..take).unwrap_or_default();
        self.bytes.read_at(self.at, part)?;
        self.at += take as u64;
        Ok(take)
    }
}

/// The first of these slots that comes whole and right, the quickest providers first; those that failed last, unless they gave other
/// bytes time and again.
pub(super) async fn first(engine: &Arc<Engine>, mut all: Vec<Kept>) -> Option<Arc<dyn PieceBytes>> {
    all.retain(|k| is_worth_asking(engine, k));
    all.sort_by_cached_key(|k| {
        (
            k.holder.failed.is_some(),
            !engine.ledger.provider(&k.holder.provider).is_some_and(|p| p.answers()),
            engine.peers.rank(&k.holder.provider, k.len),
        )
    });
    for kept in all {
        match fetch(engine, &kept).await {
            Ok(bytes) => return Some(Arc::new(bytes)),
            Err(error) => {
                let peer = peer_short(&kept.holder.provider);
                tracing::warn!(%peer, error = %format!("{error:#}"), "source of a repair failed");
                engine.peers.failed(&kept.holder.provider);
            }
        }
    }
    None
}

/// A holder that failed, and whose bytes were wrong again and again, would cost a whole slot at every attempt.
pub(super) fn is_worth_asking(engine: &Engine, kept: &Kept) -> bool {
    kept.holder.failed.is_none() || !engine.retriever.is_given_up(&kept.holder.deal)
}

/// A whole slot, unmasked, if it has the piece CID that it must have.
pub(super) async fn fetch(engine: &Arc<Engine>, kept: &Kept) -> anyhow::Result<Fetched> {
    let deal = DealId(<[u8; 32]>::try_from(kept.holder.deal.as_slice()).context("deal id")?);
    let fetched = Fetched::new(engine, kept.len)?;
    let session = engine.peers.session(&engine.ledger, &kept.holder.provider).await?;
    let cover = match kept.public {
        true => Cover::Nothing,
        false => Cover::Mask(crate::drive::slots::seed(engine.keys.mask.as_bytes(), kept.id, kept.slot)),
    };
    let mut hasher = CommpHasher::new();
    session
        .fetch(deal, 0, kept.len, STALL, |offset, bytes| {
            hasher.update(&bytes);
            let mut plain = Vec::from(bytes);
            let wrote = cover
                .apply(offset, &mut plain)
                .map_err(|e| e.to_string())
                .and_then(|()| fetched.file.write_all_at(&plain, offset).map_err(|e| e.to_string()));
            std::future::ready(wrote.map_err(|e| NetError::Local(format!("writing the fetched piece: {e}"))))
        })
        .await?;
    if hasher.finish().to_bytes() != kept.cid {
        engine.retriever.gave_other_bytes(kept.id, kept.slot, &kept.holder.deal);
        bail!("provider {} sent other bytes than it was given", peer_short(&kept.holder.provider));
    }
    engine.retriever.readings.right(&kept.holder.deal, Instant::now());
    Ok(fetched)
}
