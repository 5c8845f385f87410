//! Where the plain bytes of a piece come from: the drive's own file, or another holder when it was evicted or never here.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context as _, bail};
use holdfast_net::{DealId, NetError, mask};
use holdfast_proofs::commp::CommpHasher;

use crate::drive::Engine;
use crate::drive::ledger::{Holder, PieceId, PieceRow};
use crate::drive::peers::peer_short;
use crate::drive::slots::{self, PieceBytes};

/// A holder that sends nothing for so long is given up for the next one.
const STALL: std::time::Duration = std::time::Duration::from_secs(30);

/// A piece fetched for a repair, or to stay; ciphertext as every piece, and gone when dropped.
struct Fetched {
    file: File,
    path: PathBuf,
    len: u64,
}

impl PieceBytes for Fetched {
    fn len(&self) -> u64 {
        self.len
    }
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> std::io::Result<()> {
        self.file.read_exact_at(buf, offset)
    }
}

impl Drop for Fetched {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

/// The piece's bytes. A copy from the network is verified against its slot's piece CID before a byte of it is used.
pub(crate) async fn open(
    engine: &Arc<Engine>,
    id: PieceId,
    row: &PieceRow,
) -> anyhow::Result<Arc<dyn PieceBytes>> {
    let local = engine
        .blocking(move |e| match e.drive.piece(id)? {
            Some(info) if info.local => e.drive.open_piece(id).map(Some),
            _ => Ok(None),
        })
        .await?;
    match local {
        Ok(Some(file)) => return Ok(Arc::new(file)),
        Ok(None) => {}
        // The others have it, if anybody has.
        Err(error) => tracing::error!(%error, "a local piece cannot be read"),
    }
    let mut holders: Vec<(u16, Holder, Vec<u8>)> = row
        .slots
        .iter()
        .zip(0u16..)
        .filter_map(|(s, n)| Some((n, s.holder.clone()?, s.cid.clone()?.into_vec())))
        .filter(|(_, h, _)| h.failed.is_none())
        .collect();
    holders.sort_by_cached_key(|(_, h, _)| engine.peers.rank(&h.provider));
    let mut last = None;
    for (slot, holder, cid) in holders {
        match fetch(engine, id, row.raw_len, slot, &holder, &cid).await {
            Ok(piece) => return Ok(Arc::new(piece)),
            Err(error) => {
                tracing::warn!(peer = %peer_short(&holder.provider), error = %format!("{error:#}"), "source of a repair failed");
                engine.peers.note(&holder.provider, None);
                last = Some(error);
            }
        }
    }
    Err(last.unwrap_or_else(|| anyhow::anyhow!("no copy of it is known to be left")))
        .with_context(|| format!("fetching piece {}", super::confirm::short_id(&id)))
}

async fn fetch(
    engine: &Arc<Engine>,
    id: PieceId,
    raw_len: u64,
    slot: u16,
    holder: &Holder,
    cid: &[u8],
) -> anyhow::Result<Fetched> {
    let deal = DealId(<[u8; 32]>::try_from(holder.deal.as_slice()).context("deal id")?);
    let folder = engine.home.join("repair");
    std::fs::create_dir_all(&folder)?;
    let path = folder.join(data_encoding::HEXLOWER.encode(&id));
    let file = File::options().read(true).write(true).create(true).truncate(true).open(&path)?;
    let fetched = Fetched { file, path, len: raw_len };
    let session = engine.peers.session(&engine.ledger, &holder.provider).await?;
    let seed = slots::seed(engine.keys.mask.as_bytes(), id, slot);
    let mut hasher = CommpHasher::new();
    session
        .fetch(deal, 0, raw_len, STALL, |offset, bytes| {
            hasher.update(&bytes);
            let mut plain = Vec::from(bytes);
            let wrote = mask::apply(&seed, offset, &mut plain)
                .map_err(|e| e.to_string())
                .and_then(|()| fetched.file.write_all_at(&plain, offset).map_err(|e| e.to_string()));
            std::future::ready(wrote.map_err(|e| NetError::Local(format!("writing the fetched piece: {e}"))))
        })
        .await?;
    if hasher.finish().to_bytes() != cid {
        engine.retriever.suspicions.lock().insert((id, slot));
        bail!("provider {} sent other bytes than it was given", peer_short(&holder.provider));
    }
    Ok(fetched)
}
