//! Making folders public, and taking that back: between the command, which reads the folder, and the workers, which place pieces.
//!
//! ```text
//! publish     the command: folder ─► blocks ─► home/public/new-<random>/<number>.car
//!             the daemon:  every block hashed, the DAG whole ─► home/public/<piece>.car ─► rows and "public" in the log
//!             place worker: unmasked copies, as the policy says ─► a head that names them ─► the local file goes
//! unpublish   "remove" in the log ─► a published head says so ─► the deals are ended
//! ```
//!
//! Owns: home/public, and what `publish`, `unpublish` and `published` answer. Promises: rows are written only for files that are
//! synced and in their place; a crash leaves files without rows, which are swept. Public pieces are in no commit and no
//! stripe: retention, eviction and striping do not know them, audits and repair treat them as all others.

mod batch;

use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use cid::Cid;
use holdfast_content::placement::PlacementAction;
use holdfast_content::publication::{PIECES_MAX, PublicPiece};
use holdfast_net::PeerId;

pub use batch::BatchWriter;
use batch::{BatchReader, check_whole};

use crate::control::{ControlError, ErrorKind, PublicRequest, PublicationReport, PublicationsReport};
use crate::drive::Engine;
use crate::drive::ledger::{NewPublic, Peer, PieceId, PieceRow, Said};
use crate::home::{ProviderAddr, sync_dir};
use crate::link::Link;
use crate::workers::stripe::sign;

/// The folder of a home that holds public pieces on their way to providers.
const FOLDER: &str = "public";
/// What a command that was cut off left is swept after so long.
const BATCH_SECONDS_MAX: Duration = Duration::from_secs(24 * 3600);

/// Providers that a link names.
const LINK_HOLDERS_MAX: usize = 5;

/// Where a home keeps public pieces until providers have them.
pub fn folder(home: &Path) -> PathBuf {
    home.join(FOLDER)
}

/// A public piece's file.
pub fn piece_path(home: &Path, id: &PieceId) -> PathBuf {
    folder(home).join(format!("{}.car", data_encoding::HEXLOWER.encode(id)))
}

/// One request.
pub async fn answer(engine: &Arc<Engine>, what: PublicRequest) -> Result<serde_json::Value, ControlError> {
    let report = match what {
        PublicRequest::List {} => engine.blocking(|e| serde_json::to_value(list(e))).await,
        change => {
            if let Some(reason) = engine.read_only() {
                return Err(ControlError::new(ErrorKind::ReadOnly, reason));
            }
            let changed = engine.blocking(move |e| match change {
                PublicRequest::Publish { batch, root, name, profile, size } => {
                    let publication = Publication { root, name, profile, size, at: e.now() };
                    publish(e, &batch, publication)
                }
                PublicRequest::Unpublish { which } => unpublish(e, &which),
                PublicRequest::List {} => Ok(PublicationReport::default()),
            });
            let changed = changed.await.map_err(ControlError::internal)?;
            let report = changed.map_err(|error| match error.downcast::<Unknown>() {
                Ok(unknown) => ControlError::new(ErrorKind::Invalid, unknown.to_string()),
                Err(error) => ControlError::internal(error),
            })?;
            engine.supervisor.poke_all();
            Ok(serde_json::to_value(report))
        }
    };
    report.map_err(ControlError::internal)?.map_err(ControlError::internal)
}

/// Nothing like it is published.
#[derive(Debug, thiserror::Error)]
#[error(
    "`{0}` is neither the CID nor the path of anything that is published (`holdfast published` lists it)"
)]
struct Unknown(String);

/// What a command wants to be public.
struct Publication {
    root: Cid,
    name: String,
    profile: String,
    size: u64,
    at: u64,
}

/// Takes a batch over.
fn publish(engine: &Engine, batch: &str, new: Publication) -> anyhow::Result<PublicationReport> {
    let reader = BatchReader::open(&engine.home, batch)?;
    let count = u32::try_from(reader.files().len()).unwrap_or(u32::MAX);
    if count == 0 || count > PIECES_MAX {
        bail!("a publication has 1 to {PIECES_MAX} pieces of 64 MiB, and not {count}");
    }
    check_whole(&reader, &new.root)?;
    let known = publications(engine).into_iter().find(|known| known.report.root == new.root.to_string());
    if let Some(known) = known.filter(|known| known.report.complete) {
        reader.remove();
        return Ok(known.report);
    }
    let mut pieces = Vec::new();
    for (number, (path, raw_len)) in (0..count).zip(reader.files()) {
        let mut id = [0; 16];
        engine.env.rng.fill(&mut id);
        let (root, name, profile) = (new.root, new.name.clone(), new.profile.clone());
        let said = PublicPiece::new(root, name, profile, new.size, new.at, (number, count))?;
        let to = piece_path(&engine.home, &id);
        std::fs::rename(path, &to).with_context(|| format!("renaming {}", path.display()))?;
        pieces.push(NewPublic { id, raw_len: *raw_len, note: said.encode()? });
    }
    sync_dir(&folder(&engine.home))?;
    reader.remove();
    engine.ledger.add_public(&pieces, engine.policy.copies(), &mut |said: Said<'_>, chain| {
        sign(engine, PlacementAction::Public, &said, chain).map_err(|error| format!("{error:#}"))
    })?;
    let root = new.root.to_string();
    let report = publications(engine).into_iter().find(|made| made.report.root == root && made.at == new.at);
    Ok(report.context("what was just published is not there")?.report)
}

/// Takes back what is published under a CID, or under a path.
fn unpublish(engine: &Engine, which: &str) -> anyhow::Result<PublicationReport> {
    let named = which.parse::<Cid>().ok().and_then(|cid| holdfast_content::block::as_v1(&cid).ok());
    let is_it = |known: &Known| {
        let root = known.report.root.parse::<Cid>().ok();
        let root = root.and_then(|root| holdfast_content::block::as_v1(&root).ok());
        known.report.path == which || (named.is_some() && root == named)
    };
    let found: Vec<Known> = publications(engine).into_iter().filter(is_it).collect();
    let ids: Vec<PieceId> = found.iter().flat_map(|known| known.pieces.iter().map(|(id, _)| *id)).collect();
    let report = found.into_iter().next().ok_or_else(|| Unknown(which.to_owned()))?.report;
    engine.ledger.withdraw_public(&ids, &mut |said: Said<'_>, chain| {
        sign(engine, PlacementAction::Remove, &said, chain).map_err(|error| format!("{error:#}"))
    })?;
    for id in ids {
        // What stays is swept at the next start.
        let _ = std::fs::remove_file(piece_path(&engine.home, &id));
    }
    Ok(report)
}

/// A publication, as its pieces say.
struct Known {
    report: PublicationReport,
    at: u64,
    pieces: Vec<(PieceId, PieceRow)>,
}

fn publications(engine: &Engine) -> Vec<Known> {
    let mut all: BTreeMap<(u64, Vec<u8>), (PublicPiece, Vec<(u32, PieceId, PieceRow)>)> = BTreeMap::new();
    for (id, row) in engine.ledger.public_pieces() {
        let Some(said) = row.public.as_ref().and_then(|public| public.piece()) else { continue };
        let group = all.entry((said.at, said.root.to_bytes())).or_insert_with(|| (said.clone(), Vec::new()));
        group.1.push((said.number, id, row));
    }
    let wanted = usize::from(engine.policy.copies());
    let known = all.into_values().map(|(said, pieces)| {
        let numbers: HashSet<u32> = pieces.iter().map(|(number, ..)| *number).collect();
        let copies = pieces.iter().map(|(_, id, _)| engine.ledger.counting(id).0).min().unwrap_or(0);
        let report = PublicationReport {
            root: said.root.to_string(),
            path: said.name,
            profile: said.profile,
            bytes: said.size,
            stored_bytes: pieces.iter().map(|(_, _, row)| row.raw_len).sum(),
            at: said.at,
            pieces: pieces.len() as u64,
            complete: numbers.len() == said.count as usize,
            copies: copies as u64,
            copies_wanted: wanted as u64,
            head_published: copies > 0 && engine.ledger.head_copies() >= wanted,
            link: link(engine, said.root, &pieces).to_string(),
        };
        Known { report, at: said.at, pieces: pieces.into_iter().map(|(_, id, row)| (id, row)).collect() }
    });
    known.collect()
}

/// A link that names who keeps most of it.
fn link(engine: &Engine, root: Cid, pieces: &[(u32, PieceId, PieceRow)]) -> Link {
    let mut kept: BTreeMap<Peer, usize> = BTreeMap::new();
    for (_, holder) in pieces.iter().flat_map(|(_, _, row)| row.holders()) {
        if holder.failed.is_none() {
            *kept.entry(holder.provider.clone()).or_default() += 1;
        }
    }
    let mut holders: Vec<(Peer, usize)> = kept.into_iter().collect();
    holders.sort_by_key(|(peer, count)| (std::cmp::Reverse(*count), peer.clone()));
    let address = |(peer, _): &(Peer, usize)| {
        let row = engine.ledger.provider(peer)?;
        let address = row.addrs.first()?.parse().ok()?;
        Some(ProviderAddr::new(PeerId::from_bytes(peer).ok()?, &[address]))
    };
    Link { root, path: Vec::new(), at: holders.iter().filter_map(address).take(LINK_HOLDERS_MAX).collect() }
}

/// What is published, the oldest first.
fn list(engine: &Engine) -> PublicationsReport {
    PublicationsReport { publications: publications(engine).into_iter().map(|known| known.report).collect() }
}

/// Local files of public pieces that enough providers have, or that no row knows. Returns how many went.
pub fn tidy(engine: &Engine, starting: bool) -> anyhow::Result<u64> {
    let folder = folder(&engine.home);
    let entries = match std::fs::read_dir(&folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(0),
        Err(error) => return Err(error).context(format!("reading {}", folder.display())),
    };
    let wanted = usize::from(engine.policy.copies());
    let safe = engine.ledger.head_copies() >= wanted;
    let mut gone = 0;
    for entry in entries {
        let path = entry?.path();
        let Some(id) = piece_of(&path) else {
            if starting && is_old_batch(&path) {
                std::fs::remove_dir_all(&path)?;
            }
            continue;
        };
        let goes = match engine.ledger.piece(&id) {
            // Files get their names before their rows: only a start knows that nobody is between the two.
            None => starting,
            Some(_) => safe && engine.ledger.counting(&id).0 >= wanted,
        };
        if goes {
            std::fs::remove_file(&path)?;
            gone += 1;
        }
    }
    Ok(gone)
}

fn piece_of(path: &Path) -> Option<PieceId> {
    let stem = path.file_name()?.to_str()?.strip_suffix(".car")?;
    data_encoding::HEXLOWER.decode(stem.as_bytes()).ok()?.try_into().ok()
}

fn is_old_batch(path: &Path) -> bool {
    let named = path.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.starts_with("new-"));
    let changed = path.metadata().and_then(|about| about.modified()).ok();
    named && changed.and_then(|at| at.elapsed().ok()).is_some_and(|age| age > BATCH_SECONDS_MAX)
}

#[cfg(test)]
mod tests;
