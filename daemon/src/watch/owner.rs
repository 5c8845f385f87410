//! The owner's side of repair capabilities: granting them, taking them back, and what each watcher is given.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use holdfast_content::placement::PlacementAction;
use holdfast_content::watch::{CapabilityId, GrantNote, GrantTerms, WatcherKeys};
use holdfast_net::permit::{PERMIT_SUITE, PERMIT_VERSION, PermitBody, Place};
use holdfast_net::{PeerId, SigningKey};
use parking_lot::Mutex;
use serde_bytes::ByteBuf;
use tokio::sync::watch;

use super::bundle::{Bundle, Fellow, Head, Held, Piece, Provider, Shard, Slot};
use super::capability::{Capability, Known, New};
use super::log::SlotName;
use crate::control::{
    ControlError, ErrorKind, GrantRequest, WatchGrantedReport, WatchReport, WatchRequest, WatchesReport,
};
use crate::drive::Engine;
use crate::drive::ledger::{Form, GrantRow, Peer, PieceId, PieceRow, ProviderState};
use crate::drive::peers::peer_text;
use crate::drive::slots;
use crate::share::owner::{NO_ROOM, has_room, is_about, outstanding};
use crate::workers::place::open_slots;

/// Capabilities in force at once: each costs every provider its bundle.
pub const GRANTS_MAX: usize = 8;
/// A repair after a start waits so long for what watchers did meanwhile.
const LOOK_PATIENCE: Duration = Duration::from_secs(60);

/// What is known of one watcher.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WatchSeen {
    /// Providers that keep the newest bundle.
    pub with: u64,
    /// Pieces that did not fit into it.
    pub left_out: u64,
    /// Entries of its log that are neither adopted nor dismissed.
    pub open: u64,
}

/// What the engine's workers know of watchers.
pub struct Watched {
    started: Instant,
    looked: AtomicBool,
    pending: Mutex<HashMap<SlotName, Peer>>,
    seen: Mutex<BTreeMap<CapabilityId, WatchSeen>>,
    /// The ledger's version that all bundles are of, each offered to everybody.
    told: watch::Sender<u64>,
}

impl Watched {
    /// `any`: there are capabilities.
    pub fn new(any: bool) -> Watched {
        Watched {
            started: Instant::now(),
            looked: AtomicBool::new(!any),
            pending: Mutex::default(),
            seen: Mutex::default(),
            told: watch::Sender::new(0),
        }
    }

    /// What watchers did meanwhile is known.
    pub fn set_looked(&self) {
        self.looked.store(true, Ordering::Relaxed);
    }

    /// Slots that a watcher says it placed, and that are being looked at.
    pub fn set_pending(&self, pending: HashMap<SlotName, Peer>) {
        *self.pending.lock() = pending;
    }

    /// Whether a repair waits: for what watchers did while this machine was off, or for what is being adopted.
    pub fn holds_back(&self, id: &PieceId, row: &PieceRow) -> bool {
        let lost = row.slots.iter().any(|slot| slot.holder.is_some() && slot.lost.is_some());
        if lost && !self.looked.load(Ordering::Relaxed) && self.started.elapsed() < LOOK_PATIENCE {
            return true;
        }
        let pending = self.pending.lock();
        open_slots(row).any(|slot| pending.contains_key(&SlotName { piece: *id, slot }))
    }

    /// All bundles are of this version of the ledger, and were offered.
    pub fn set_told(&self, version: u64) {
        self.told.send_replace(version);
    }

    /// Waits until watchers have been told of the ledger as it is at `version`, for `at_most`. Whether they have.
    pub async fn told(&self, version: u64, at_most: Duration) -> bool {
        let mut told = self.told.subscribe();
        let known = tokio::time::timeout(at_most, told.wait_for(|told| *told >= version));
        known.await.is_ok_and(|known| known.is_ok())
    }

    /// Every watcher has to be told of the others anew: nobody has what it needs.
    pub fn outdated(&self) {
        self.seen.lock().values_mut().for_each(|seen| seen.with = 0);
    }

    /// What is known of one watcher changed.
    pub fn note(&self, id: CapabilityId, change: impl FnOnce(&mut WatchSeen)) {
        change(self.seen.lock().entry(id).or_default());
    }
}

/// One request.
pub async fn answer(engine: &Arc<Engine>, what: WatchRequest) -> Result<serde_json::Value, ControlError> {
    if !matches!(what, WatchRequest::List {})
        && let Some(reason) = engine.read_only()
    {
        return Err(ControlError::new(ErrorKind::ReadOnly, reason));
    }
    let report = engine.blocking(move |e| match what {
        WatchRequest::Grant { terms } => grant(e, terms).map(serde_json::to_value),
        WatchRequest::List {} => Ok(serde_json::to_value(list(e))),
        WatchRequest::Revoke { which } => revoke(e, &which).map(serde_json::to_value),
    });
    let report =
        report.await.map_err(ControlError::internal)?.map_err(|error| match error.downcast::<Refused>() {
            Ok(refused) => ControlError::new(ErrorKind::Invalid, refused.0),
            Err(error) => ControlError::internal(error),
        })?;
    engine.supervisor.poke_all();
    report.map_err(ControlError::internal)
}

/// What was asked cannot be.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Refused(String);

fn refuse<T>(why: impl Into<String>) -> anyhow::Result<T> {
    Err(Refused(why.into()).into())
}

fn grant(engine: &Engine, asked: GrantRequest) -> anyhow::Result<WatchGrantedReport> {
    let now = engine.now();
    let lasting = engine.ledger.grants().into_iter().filter_map(|(_, row)| row.said());
    if lasting.filter(|note| note.lasts(now)).count() >= GRANTS_MAX {
        return refuse(format!("{GRANTS_MAX} capabilities are in force: take one back first"));
    }
    if !has_room(engine.deal_now(), outstanding(engine), 0) {
        return refuse(NO_ROOM);
    }
    let peer = |text: &String| match text.parse::<PeerId>() {
        Ok(peer) => Ok(peer.to_bytes()),
        Err(_) => refuse(format!("`{text}` is no peer id")),
    };
    let terms = GrantTerms {
        label: asked.label.clone(),
        at: now,
        until: now.saturating_add(asked.seconds),
        bytes: asked.bytes,
        daily: asked.daily,
        silent_seconds: asked.silent_seconds,
        newcomers: asked.newcomers,
        apart: asked.apart.iter().map(peer).collect::<Result<_, _>>()?,
    };
    let note = GrantNote::new(terms).map_err(|error| Refused(error.to_string()))?;
    let mut id = [0; 16];
    engine.env.rng.fill(&mut id);
    engine
        .ledger
        .set_grant(id, &note, |note, chain| engine.sign_note(PlacementAction::Watch, id, note, chain))?;
    engine.peers.set_watched();
    engine.watched.outdated();
    // Those that answer first, since there is room for some; where none does just now, the others: with nobody it would find nobody.
    let mut providers = engine.ledger.providers();
    providers.retain(|(_, row)| !matches!(row.state, ProviderState::Removed));
    providers.sort_by_key(|(_, row)| !row.answers());
    let known =
        providers.into_iter().map(|(peer, row)| Known { peer: ByteBuf::from(peer), addrs: row.addrs });
    let new = New {
        id,
        drive: engine.drive_key,
        label: asked.label,
        until: note.until,
        providers: known.collect(),
    };
    let file = Capability::sign(new, &engine.keys)?;
    let identity = holdfast_net::identity::keypair(
        *WatcherKeys::from_secret(&engine.keys.watch().secret(&id)).network.as_bytes(),
    )?;
    Ok(WatchGrantedReport {
        id: data_encoding::HEXLOWER.encode(&id),
        peer_id: identity.public().to_peer_id().to_string(),
        until: note.until,
        file: data_encoding::HEXLOWER.encode(&file),
    })
}

/// Keys of capabilities that were taken back, as far as permits for them may still be about.
pub fn taken_back(engine: &Engine) -> Vec<[u8; 32]> {
    let (now, watch) = (engine.deal_now(), engine.keys.watch());
    let about = |note: &GrantNote| note.revoked.is_some() && is_about(note.until, now);
    let revoked = engine.ledger.grants().into_iter().filter(|(_, row)| row.said().is_some_and(|n| about(&n)));
    let holder = |id| WatcherKeys::from_secret(&watch.secret(&id)).holder.verifying_key().to_bytes();
    revoked.map(|(id, _)| holder(id)).collect()
}

/// The capabilities that may do anything now.
pub fn lasting(engine: &Engine) -> Vec<CapabilityId> {
    let now = engine.now();
    let lasts = |row: &GrantRow| row.said().is_some_and(|note| note.lasts(now));
    engine.ledger.grants().into_iter().filter(|(_, row)| lasts(row)).map(|(id, _)| id).collect()
}

fn list(engine: &Engine) -> WatchesReport {
    let seen = engine.watched.seen.lock().clone();
    let watches = engine.ledger.grants().into_iter().filter_map(|(id, row)| {
        let note = row.said()?;
        let seen = seen.get(&id).copied().unwrap_or_default();
        let peer = |peer: &ByteBuf| peer_text(&peer.to_vec());
        Some(WatchReport {
            id: data_encoding::HEXLOWER.encode(&id),
            label: note.label.clone(),
            at: note.at,
            until: note.until,
            state: match (note.revoked, note.lasts(engine.now())) {
                (Some(_), _) => "revoked".to_owned(),
                (None, false) => "ended".to_owned(),
                (None, true) => "in_force".to_owned(),
            },
            bytes: note.bytes,
            daily_bytes: note.daily,
            silent_seconds: note.silent_seconds,
            newcomers: note.newcomers,
            apart: note.apart.iter().map(peer).collect(),
            bundle_with: seen.with,
            left_out_pieces: seen.left_out,
            entries_seen_to: row.taken.length,
            entries_open: seen.open,
        })
    });
    let mut watches: Vec<WatchReport> = watches.collect();
    watches.sort_by_key(|watch| watch.at);
    WatchesReport { watches }
}

fn revoke(engine: &Engine, which: &str) -> anyhow::Result<WatchesReport> {
    let named: Vec<(CapabilityId, GrantRow, GrantNote)> = engine
        .ledger
        .grants()
        .into_iter()
        .filter_map(|(id, row)| row.said().map(|note| (id, row, note)))
        .filter(|(id, _, note)| note.label == which || data_encoding::HEXLOWER.encode(id).starts_with(which))
        .collect();
    let [(id, row, note)] = named.as_slice() else {
        return refuse(match named.len() {
            0 => format!("no capability is called `{which}` (`holdfast watch list` shows them)"),
            n => format!("{n} capabilities are called `{which}`: say its id"),
        });
    };
    if note.revoked.is_none() {
        let mut note = note.clone();
        note.revoked = Some(row.taken.length);
        engine.ledger.set_grant(*id, &note, |note, chain| {
            engine.sign_note(PlacementAction::Watch, *id, note, chain)
        })?;
        engine.watched.outdated();
    }
    Ok(list(engine))
}

/// What a watcher is given now; `number` and time are the caller's.
pub fn compose(
    engine: &Engine,
    id: &CapabilityId,
    row: &GrantRow,
    note: &GrantNote,
) -> anyhow::Result<Bundle> {
    let watch = engine.keys.watch();
    let own = WatcherKeys::from_secret(&watch.secret(id));
    let holder = own.holder.verifying_key().to_bytes();
    let now = engine.now();
    let place = Place { bytes: note.bytes, daily: note.daily, term: engine.policy.deal_seconds };
    let permit =
        |client: &SigningKey, provider: Option<&Peer>, place: Option<Place>| -> anyhow::Result<ByteBuf> {
            let body = PermitBody {
                client: client.verifying_key().to_bytes(),
                deals: None,
                holder,
                place,
                provider: provider.map(|peer| ByteBuf::from(peer.clone())),
                suite: PERMIT_SUITE,
                until: note.until,
                v: PERMIT_VERSION,
            };
            Ok(ByteBuf::from(body.sign(client)?.as_bytes()))
        };
    let apart = |peer: &Peer| note.apart.iter().any(|apart| apart == peer);
    let client = watch.client();
    let mut providers = Vec::new();
    let mut index: HashMap<Peer, u16> = HashMap::new();
    for (peer, row) in engine.ledger.providers() {
        if matches!(row.state, ProviderState::Removed) {
            continue;
        }
        let takes = (!row.is_barred(now) && !apart(&peer)).then_some(place);
        let read = permit(&engine.peers.key_for(&peer), Some(&peer), None)?;
        let permits = vec![read, permit(&client, Some(&peer), takes)?];
        index.insert(peer.clone(), u16::try_from(providers.len()).context("too many providers")?);
        let known = Known { peer: ByteBuf::from(peer), addrs: row.addrs };
        providers.push(Provider { known, tags: [row.declared, row.tagged], permits });
    }
    let fellows = engine
        .ledger
        .grants()
        .into_iter()
        .filter(|(other, row)| other != id && row.said().is_some_and(|note| note.lasts(now)));
    let fellow = |id: CapabilityId| Fellow {
        id,
        log: WatcherKeys::from_secret(&watch.secret(&id)).log.verifying_key().to_bytes(),
    };
    let head = Head {
        time: 0,
        until: note.until,
        bytes: note.bytes,
        daily: note.daily,
        silent_seconds: note.silent_seconds,
        deal_seconds: engine.policy.deal_seconds,
        anybody: note.newcomers.then(|| permit(&client, None, Some(place))).transpose()?,
        apart: note.apart.clone(),
        taken: row.taken,
        shared: watch.shared(),
        fellows: fellows.map(|(id, _)| fellow(id)).collect(),
        head_name: engine.keys.head_signing().verifying_key().to_bytes(),
        providers,
    };
    let mut pieces = Vec::new();
    for (id, row) in engine.ledger.pieces() {
        // Surplus copies are not replaced, by nobody.
        let surplus =
            row.stripe.is_none() && engine.ledger.counting_as(&id, Form::Stripe) >= engine.wanted(&id);
        let given =
            !surplus && !row.holders().any(|(_, holder)| holder.failed.is_none() && apart(&holder.provider));
        pieces.extend(given.then(|| piece(engine, id, &row, &index)).flatten());
    }
    Ok(Bundle { number: 0, head, pieces })
}

/// A piece or a stripe with at least one slot that somebody keeps, and all of its slots' CIDs.
fn piece(engine: &Engine, id: PieceId, row: &PieceRow, index: &HashMap<Peer, u16>) -> Option<Piece> {
    let mut any = false;
    let slots: Option<Vec<Slot>> = row
        .slots
        .iter()
        .zip(0u16..)
        .map(|(slot, n)| {
            let holder = slot.holder.as_ref().filter(|holder| holder.failed.is_none());
            let held = holder.and_then(|holder| {
                let deal = <[u8; 32]>::try_from(holder.deal.as_slice()).ok()?;
                Some(Held { provider: *index.get(&holder.provider)?, deal, ends: holder.ends_at })
            });
            any |= held.is_some();
            let masked = row.public.is_none();
            let seed = masked.then(|| slots::seed(engine.keys.mask.as_bytes(), id, n));
            let seed = seed.map(|seed| holdfast_content::keys::SecretKey32::from_bytes(*seed.as_bytes()));
            Some(Slot { cid: slot.cid.clone()?, seed, held })
        })
        .collect();
    let shards = row.stripe.iter().flat_map(|stripe| &stripe.pieces);
    let shards = shards.map(|piece| Shard { id: piece.id, len: piece.len }).collect();
    let slots = slots.filter(|slots| any && !slots.is_empty())?;
    Some(Piece { id, len: row.raw_len, shards, slots })
}
