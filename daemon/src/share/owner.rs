//! The owner's side of private links: making them, taking them back, and what each leads to.

use std::sync::Arc;

use holdfast_content::placement::PlacementAction;
use holdfast_content::share::{LANES, LinkKeys, ShareId, ShareNote};
use holdfast_fs::drive::DriveError;
use holdfast_fs::snapshots::shared::SharedError;
use holdfast_net::PeerId;
use holdfast_net::permit::REVOKED_MAX;
use serde_bytes::ByteBuf;

use super::Loaded;
use super::link::PrivateLink;
use super::object::{IndexAt, Object, Reached};
use super::permits::{Terms, permits};
use super::places::{self, Moved, Places};
use crate::control::{ControlError, ErrorKind, ShareReport, ShareRequest, SharesReport};
use crate::drive::Engine;
use crate::drive::ledger::{Peer, ProviderRow, ProviderState};
use crate::home::ProviderAddr;
use crate::watch::capability::Known;
use crate::watch::owner::GRANTS_MAX;

/// Providers that keep a link's record.
pub const KEEPERS_MAX: usize = 8;
/// Of these a link names so many, with so many addresses each: whoever is found tells of the others.
const NAMED_MAX: usize = 4;
const NAMED_ADDRS_MAX: usize = 2;
/// The name under which a commit is kept while it is being shared.
const HOLDING: &str = "sharing-";

/// One request.
pub async fn answer(engine: &Arc<Engine>, what: ShareRequest) -> Result<serde_json::Value, ControlError> {
    if !matches!(what, ShareRequest::List {})
        && let Some(reason) = engine.read_only()
    {
        return Err(ControlError::new(ErrorKind::ReadOnly, reason));
    }
    let _one = engine.shared.making.lock().await;
    let report = engine.blocking(move |e| match what {
        ShareRequest::Make { target, seconds } => {
            make(e, target.ino, &target.path, seconds).map(serde_json::to_value)
        }
        ShareRequest::List {} => Ok(serde_json::to_value(list(e))),
        ShareRequest::End { which } => end(e, &which).map(serde_json::to_value),
    });
    let report =
        report.await.map_err(ControlError::internal)?.map_err(|error| match error.downcast::<Refused>() {
            Ok(refused) => ControlError::new(refused.0, refused.1),
            Err(error) => ControlError::internal(error),
        })?;
    engine.supervisor.poke_all();
    report.map_err(ControlError::internal)
}

/// What was asked cannot be.
#[derive(Debug, thiserror::Error)]
#[error("{1}")]
struct Refused(ErrorKind, String);

fn refuse<T>(kind: ErrorKind, why: impl Into<String>) -> anyhow::Result<T> {
    Err(Refused(kind, why.into()).into())
}

fn make(engine: &Engine, ino: u64, path: &str, seconds: u64) -> anyhow::Result<ShareReport> {
    let now = engine.deal_now();
    let known = engine.ledger.shares();
    let used: Vec<u16> =
        known.iter().filter(|(_, note)| note.lasts(now)).map(|(_, note)| note.lane).collect();
    // So many capabilities can be made still.
    if !has_room(now, outstanding(engine), GRANTS_MAX) {
        return refuse(ErrorKind::Invalid, NO_ROOM);
    }
    let Some(lane) = (0..LANES).find(|lane| !used.contains(lane)) else {
        return refuse(ErrorKind::Invalid, format!("{LANES} links are in force: end one first"));
    };
    // Whoever asks has waited until what it shall show is in this one.
    let Some(commit) = engine.head.published_sequence() else {
        return refuse(ErrorKind::Unavailable, "nothing was published yet");
    };
    let mut id = [0; 16];
    engine.env.rng.fill(&mut id);
    // Until its blocks are listed, no look drops the commit that has them.
    let holding = format!("{HOLDING}{}", data_encoding::HEXLOWER.encode(&id));
    engine.drive.name_snapshot(&holding, commit)?;
    let made = shared(engine, commit, ino, path).and_then(|(loaded, left_out)| {
        let (bytes, entries) = (loaded.index.bytes(), loaded.index.entries.len() as u64);
        let until = now.saturating_add(seconds);
        let note = ShareNote::new(path, now, until, lane, bytes, entries)?;
        engine.shared.keep(engine.keys.share(), &id, loaded)?;
        engine
            .ledger
            .set_share(id, &note, |note, chain| engine.sign_note(PlacementAction::Share, id, note, chain))?;
        Ok(ShareReport { left_out, ..report(engine, &id, &note) })
    });
    engine.drive.forget_snapshot_name(&holding)?;
    made.inspect_err(|_| engine.shared.forget(&id))
}

/// Names that a crash has left behind.
pub fn sweep(engine: &Engine) -> anyhow::Result<()> {
    for (name, _) in engine.drive.snapshot_names()? {
        if name.strip_prefix(HOLDING).is_some_and(|id| id.len() == 32) {
            engine.drive.forget_snapshot_name(&name)?;
        }
    }
    Ok(())
}

fn shared(engine: &Engine, sequence: u64, ino: u64, path: &str) -> anyhow::Result<(Loaded, u64)> {
    let name = path.rsplit('/').find(|name| !name.is_empty()).unwrap_or("drive");
    let tree = match engine.drive.shared_tree(sequence, ino, name.as_bytes()) {
        Ok(tree) => tree,
        Err(SharedError::Drive(error)) if !matches!(error, DriveError::Fetch(_)) => return Err(error.into()),
        Err(error) => return refuse(ErrorKind::Invalid, format!("{path}: {error}")),
    };
    let bytes = match tree.index.encode() {
        Ok(bytes) => bytes,
        Err(holdfast_content::FormatError::TooLarge { .. }) => {
            return refuse(ErrorKind::Invalid, format!("{path}: {}", SharedError::TooMuch));
        }
        Err(error) => return Err(error.into()),
    };
    Ok((Loaded { index: Arc::new(tree.index), bytes: Arc::new(bytes) }, tree.left_out))
}

fn report(engine: &Engine, id: &ShareId, note: &ShareNote) -> ShareReport {
    let lasts = note.lasts(engine.deal_now());
    let seen = engine.shared.seen(id);
    ShareReport {
        id: data_encoding::HEXLOWER.encode(id),
        path: note.path.clone(),
        at: note.at,
        until: note.until,
        state: match (note.revoked, lasts) {
            (true, _) => "revoked".to_owned(),
            (false, false) => "ended".to_owned(),
            (false, true) => "in_force".to_owned(),
        },
        bytes: note.bytes,
        entries: note.entries,
        left_out: 0,
        with: seen.with,
        wanted: seen.wanted,
        problem: seen.problem,
        link: lasts.then(|| link(engine, id, note).to_string()),
    }
}

/// The link: the same words give the same, but for the addresses.
fn link(engine: &Engine, id: &ShareId, note: &ShareNote) -> PrivateLink {
    let keys = engine.keys.share();
    let author = keys.author(note.lane).verifying_key().to_bytes();
    let mut named = keepers(engine, id);
    named.sort_by_key(|(_, row)| !row.answers());
    let at = named.into_iter().filter_map(|(peer, row)| {
        let peer = PeerId::from_bytes(&peer).ok()?;
        let addrs: Vec<String> = row.addrs.into_iter().take(NAMED_ADDRS_MAX).collect();
        (!addrs.is_empty()).then(|| ProviderAddr { peer_id: peer.to_string(), addrs, tags: None })
    });
    PrivateLink { author, secret: keys.secret(id), at: at.take(NAMED_MAX).collect() }
}

/// Who keeps a link's record: the same ones as long as they are there, whichever others come and go.
pub fn keepers(engine: &Engine, id: &ShareId) -> Vec<(Peer, ProviderRow)> {
    let mut all = engine.ledger.providers();
    all.retain(|(_, row)| !matches!(row.state, ProviderState::Removed));
    all.sort_by_cached_key(|(peer, row)| {
        let drawn: [u8; 32] = *blake3::hash(&[&id[..], peer].concat()).as_bytes();
        (!row.answers(), drawn)
    });
    all.truncate(KEEPERS_MAX);
    all
}

fn list(engine: &Engine) -> SharesReport {
    let mut shares: Vec<ShareReport> =
        engine.ledger.shares().iter().map(|(id, note)| report(engine, id, note)).collect();
    shares.sort_by_key(|share| share.at);
    SharesReport { shares }
}

fn end(engine: &Engine, which: &str) -> anyhow::Result<ShareReport> {
    let now = engine.deal_now();
    let by_link = which.parse::<PrivateLink>().ok();
    let is_it = |(id, note): &(ShareId, ShareNote)| match &by_link {
        Some(link) => engine.keys.share().secret(id) == link.secret,
        None => note.path == which || data_encoding::HEXLOWER.encode(id).starts_with(which),
    };
    let mut named: Vec<_> = engine.ledger.shares().into_iter().filter(is_it).collect();
    if named.len() > 1 {
        // Of what was shared more than once what has ended is not meant.
        named.retain(|(_, note)| note.lasts(now));
    }
    let [(id, note)] = named.as_slice() else {
        return refuse(
            ErrorKind::Invalid,
            match named.len() {
                0 => format!("no link is called `{which}` (`holdfast shares` shows them)"),
                n => format!("{n} links are called `{which}`: say the id, or the link itself"),
            },
        );
    };
    let mut note = note.clone();
    if !note.revoked {
        note.revoked = true;
        engine.ledger.set_share(*id, &note, |note, chain| {
            engine.sign_note(PlacementAction::Share, *id, note, chain)
        })?;
        engine.shared.forget(id);
    }
    Ok(report(engine, id, &note))
}

/// Links that show something now: by the time that deals run by, since what has ended is given up for good, whatever this
/// machine's clock says later.
pub fn lasting(engine: &Engine) -> Vec<(ShareId, ShareNote)> {
    let now = engine.deal_now();
    engine.ledger.shares().into_iter().filter(|(_, note)| note.lasts(now)).collect()
}

/// Keys of links that were taken back before their time, as far as permits for them may still be about, and how many ever were.
pub fn taken_back(engine: &Engine) -> (Vec<[u8; 32]>, u64) {
    let now = engine.deal_now();
    let revoked: Vec<_> = engine.ledger.shares().into_iter().filter(|(_, note)| note.revoked).collect();
    let count = revoked.len() as u64;
    let holder = |id: &ShareId| {
        LinkKeys::from_secret(&engine.keys.share().secret(id)).holder.verifying_key().to_bytes()
    };
    let about = revoked.iter().filter(|(_, note)| is_about(note.until, now));
    (about.map(|(id, _)| holder(id)).collect(), count)
}

/// A provider's clock may be behind by so much.
const CLOCK_SECONDS: u64 = 24 * 3600;

/// Whether some provider may still take a permit that ends then.
pub fn is_about(until: u64, now: u64) -> bool {
    until.saturating_add(CLOCK_SECONDS) > now
}

/// Why there is no room.
pub const NO_ROOM: &str = "too many links and capabilities were made whose time is not over, or ended within a day: each may be taken back, \
                           and what was taken back has to be known to providers until then";

/// Whether one more link or capability may be made, with room for so many others. Each may be taken back, those that have just ended included, and all that were
/// have to fit into a provider's list. `untils`: when those end that there are, whether they were taken back or not.
pub fn has_room(now: u64, untils: impl IntoIterator<Item = u64>, others: usize) -> bool {
    untils.into_iter().filter(|until| is_about(*until, now)).count() + others < REVOKED_MAX
}

/// When each link and each capability ends.
pub fn outstanding(engine: &Engine) -> Vec<u64> {
    let links = engine.ledger.shares().into_iter().map(|(_, note)| note.until);
    let grants = engine.ledger.grants().into_iter().filter_map(|(_, row)| Some(row.said()?.until));
    links.chain(grants).collect()
}

/// Blocks that links in force show; nothing where an index is not here yet.
pub fn blocks(engine: &Engine) -> Option<Vec<[u8; 32]>> {
    let keys = engine.keys.share();
    places::blocks(lasting(engine).iter().map(|(id, _)| engine.shared.index(keys, id)))
}

/// The index with its blocks where they lie now, if they moved.
pub fn moved(engine: &Engine, loaded: &Loaded) -> anyhow::Result<Moved> {
    Moved::look(&engine.ledger, loaded, |digest| engine.drive.locate_chunk(digest))
}

/// What a link leads to now.
pub fn compose(
    engine: &Engine,
    id: &ShareId,
    note: &ShareNote,
    loaded: &Loaded,
    index_number: u64,
) -> anyhow::Result<Object> {
    let Places { providers, pieces } =
        Places::of(&engine.ledger, engine.keys.mask.as_bytes(), &loaded.index)?;
    let holder = LinkKeys::from_secret(&engine.keys.share().secret(id)).holder.verifying_key().to_bytes();
    let terms = Terms { holder, until: note.until };
    // What watchers placed belongs to a key of theirs.
    let watched = (!engine.ledger.grants().is_empty()).then(|| engine.keys.watch().client());
    let keys = |number: u16| {
        let (peer, _) = providers.get(usize::from(number))?;
        let own = engine.peers.key_for(peer);
        Some((peer.clone(), std::iter::once(own).chain(watched.clone()).collect()))
    };
    let mut permits = permits(&terms, &loaded.index, &pieces, keys);
    let reached = providers.iter().zip(0u16..).map(|((peer, row), number)| {
        let permits = permits.remove(&number).unwrap_or_default();
        Reached {
            known: Known { peer: ByteBuf::from(peer.clone()), addrs: row.addrs.clone() },
            permits: permits.iter().map(|permit| ByteBuf::from(permit.as_bytes())).collect(),
        }
    });
    let index = IndexAt::of(&loaded.bytes, index_number);
    Ok(Object::new((note.at, note.until), reached.collect(), pieces, index))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use holdfast_net::SigningKey;
    use holdfast_net::permit::Revocations;

    #[test]
    fn all_that_may_be_taken_back_fits_into_a_list() {
        const NOW: u64 = 1_000_000;
        assert!(
            is_about(NOW - 3600, NOW),
            "a provider's clock may be behind: that one may be taken back still"
        );
        assert!(!is_about(NOW - CLOCK_SECONDS, NOW));
        // In turn: ended an hour ago, in force, ended long ago.
        let ends = |n: usize| [NOW - 3600, NOW + 9, NOW - CLOCK_SECONDS][n % 3];
        let mut untils: Vec<u64> = Vec::new();
        for others in [GRANTS_MAX, 0] {
            while has_room(NOW, untils.iter().copied(), others) {
                untils.push(ends(untils.len()));
            }
            let about = untils.iter().filter(|until| is_about(**until, NOW)).count();
            assert_eq!(about + others, REVOKED_MAX);
        }
        let key = SigningKey::from_bytes(&[1; 32]);
        let list = |count: u16| {
            let holder = |n: u16| std::array::from_fn(|at| n.to_be_bytes()[at % 2]);
            Revocations::new(key.verifying_key().to_bytes(), (0..count).map(holder), 1).sign(&key)
        };
        assert!(list(REVOKED_MAX as u16).is_ok());
        assert!(list(REVOKED_MAX as u16 + 1).is_err(), "nobody would be told of any");
    }
}
