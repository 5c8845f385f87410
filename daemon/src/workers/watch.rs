//! The watch worker: gives watchers what they need, and takes over what they did while this machine was off.
//!
//! ```text
//! bundles       composed anew when placements changed, left with every provider of the drive
//! revocations   likewise, under every key of the drive's deals, until each provider has them; of private links as well
//! logs          read at the start, before anything is repaired, and now and then: each entry is adopted, dismissed, or waits
//! ```
//!
//! An entry alone makes nothing count. *Adopted*: the slot's own holder is lost, and the new one answers a ranged read and a fresh
//! challenge of this machine's; the owner's own entry then says so, in one commit with the row. *Dismissed*: the holder is well, or
//! the entry is not what it should be; its deal is ended, which only the owner can.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::StreamExt;
use holdfast_content::placement::{PlacementAction, PlacementEntry, PlacementFacts};
use holdfast_content::watch::part;
use holdfast_content::watch::{CapabilityId, GrantNote, WatcherKeys};
use holdfast_net::permit::Revocations;
use holdfast_net::{ErrorCode, NetError, RecordKey, RecordKind};
use tokio::time::Instant;

use super::place::short_id;
use crate::drive::Engine;
use crate::drive::clock::age;
use crate::drive::events::Level;
use crate::drive::ledger::{GrantRow, Holder, Peer, ProviderState};
use crate::drive::peers::{peer_short, peer_text};
use crate::drive::policy::DEAL_SECONDS;
use crate::handler::ProviderList;
use crate::home::ProviderAddr;
use crate::watch::bundle::Bundle;
use crate::watch::capability::Known;
use crate::watch::log::SlotName;
use crate::watch::logs::{Logs, hearsay};
use crate::watch::owner::{compose, lasting, taken_back};
use crate::worker::{Context, Detail, Next, Worker};

mod asking;
mod given;

use asking::{AT_ONCE, CHALLENGE, PATIENCE, check, deal_of, give, receipt_fits};
use given::Offer;

/// How often logs are read.
const LOOK: Duration = Duration::from_secs(60);
/// While entries wait.
const SOON: Duration = Duration::from_secs(2);
/// Otherwise.
const CALM: Duration = Duration::from_secs(10);
/// After so many tries a repair no longer waits for an entry; after so many more it is dismissed.
const TRIES_HELD: u32 = 3;
const TRIES_MAX: u32 = 30;

/// An entry of a watcher's that is neither adopted nor dismissed.
struct Open {
    entry: PlacementEntry,
    /// When it was read first.
    since: Instant,
    tries: u32,
    done: bool,
}

/// What becomes of an entry.
#[derive(Debug, PartialEq, Eq)]
enum Fate {
    Adopt,
    Dismiss(&'static str),
    /// It is in the owner's log already.
    Done,
    Wait,
}

/// See the module.
pub struct WatchWorker {
    engine: Arc<Engine>,
    list: Arc<dyn ProviderList>,
    offers: HashMap<CapabilityId, Offer>,
    /// The list of revocations that was last left, and with whom.
    revoked: (u64, BTreeSet<Peer>),
    open: BTreeMap<CapabilityId, BTreeMap<u64, Open>>,
    places: HashMap<Peer, Known>,
    next_look: Option<Instant>,
    /// Who was asked last.
    asked: Vec<Peer>,
    /// The ledger's version that the last step gave.
    seen: u64,
    detail: Detail,
}

impl WatchWorker {
    /// A worker over `engine`'s ledger; providers that watchers found go into `list`.
    pub fn new(engine: Arc<Engine>, list: Arc<dyn ProviderList>) -> Self {
        Self {
            engine,
            list,
            offers: HashMap::new(),
            revoked: (0, BTreeSet::new()),
            open: BTreeMap::new(),
            places: HashMap::new(),
            next_look: None,
            asked: Vec::new(),
            seen: 0,
            detail: Detail::default(),
        }
    }

    fn providers(&self) -> Vec<Peer> {
        let all = self.engine.ledger.providers().into_iter();
        all.filter(|(_, row)| !matches!(row.state, ProviderState::Removed)).map(|(peer, _)| peer).collect()
    }

    // ---- what watchers are given ---------------------------------------------------------------------------

    async fn offer(&mut self, id: CapabilityId, row: &GrantRow, note: &GrantNote) -> anyhow::Result<()> {
        let engine = self.engine.clone();
        let version = *engine.ledger.watch().borrow();
        let now = lasting(&engine);
        // Nobody waits for what comes next when this machine is about to go.
        let hurry = engine.is_unmounting();
        if self.offers.get(&id).is_none_or(|offer| offer.is_stale(version, &now, hurry)) {
            let (given, said) = (row.clone(), note.clone());
            let content = engine.blocking(move |e| compose(e, &id, &given, &said)).await??;
            match self.offers.get_mut(&id) {
                Some(same) if same.content == content => same.is_right(version, now),
                Some(other) if other.lasting == now && !hurry && !other.may_be_renewed() => other.is_behind(),
                _ => {
                    let number = self.offers.get(&id).map_or(0, |offer| offer.number + 1).max(engine.now());
                    self.renew(id, content, number, (version, now))?;
                }
            }
        }
        let Some(offer) = self.offers.get(&id) else { return Ok(()) };
        let author = engine.keys.watch().bundle(&id).verifying_key().to_bytes();
        let missing: Vec<Peer> = self.providers().into_iter().filter(|p| !offer.with.contains(p)).collect();
        let values = &offer.values;
        let given: Vec<(Peer, Result<Option<u64>, NetError>)> = futures::stream::iter(missing)
            .map(|peer| {
                let engine = engine.clone();
                async move {
                    let named = |(value, n): (&'_ Vec<u8>, u16)| {
                        (RecordKey::new(RecordKind::WatchBundle, part::name(&author, n)), value.clone())
                    };
                    let mut parts: Vec<(RecordKey, Vec<u8>)> = values.iter().zip(0..).map(named).collect();
                    // The first part last: whoever reads it finds the others.
                    parts.reverse();
                    let given = give(&engine, &peer, parts).await;
                    (peer, given)
                }
            })
            .buffer_unordered(AT_ONCE)
            .collect()
            .await;
        let mut higher = 0;
        if let Some(offer) = self.offers.get_mut(&id) {
            for (peer, given) in given {
                match given {
                    Ok(None) => drop(offer.with.insert(peer)),
                    Ok(Some(number)) => higher = higher.max(number),
                    Err(error) => {
                        tracing::debug!(peer = %peer_short(&peer), %error, "a bundle was not taken")
                    }
                }
            }
            let current = offer.lasting == lasting(&engine) && !offer.behind;
            let with = if current { offer.with.len() as u64 } else { 0 };
            let left_out = offer.left_out as u64;
            engine.watched.note(id, |seen| (seen.with, seen.left_out) = (with, left_out));
            if higher > 0 {
                // Of an earlier life of this drive, whose clock was ahead.
                let (content, version) = (offer.content.clone(), (offer.version, offer.lasting.clone()));
                self.renew(id, content, higher.saturating_add(1), version)?;
            }
        }
        Ok(())
    }

    fn renew(
        &mut self,
        id: CapabilityId,
        content: Bundle,
        number: u64,
        of: (u64, Vec<CapabilityId>),
    ) -> anyhow::Result<()> {
        let mut bundle = Bundle { number, ..content.clone() };
        bundle.head.time = self.engine.now();
        let (parts, left_out) = bundle.parts()?;
        let keys = self.engine.keys.watch();
        let (author, open) = (keys.bundle(&id), WatcherKeys::from_secret(&keys.secret(&id)).open);
        let write = |(plain, n): (&Vec<u8>, u16)| part::write(&author, n, number, &open, plain);
        let values = parts.iter().zip(0u16..).map(write).collect::<Result<Vec<_>, _>>()?;
        self.offers.insert(id, Offer::new(content, number, values, left_out, of));
        Ok(())
    }

    /// Tells every provider whose permits count no more.
    async fn take_back(&mut self, grants: &[(CapabilityId, GrantRow)]) -> anyhow::Result<()> {
        let engine = self.engine.clone();
        let keys = engine.keys.watch();
        let revoked = grants.iter().filter(|(_, row)| row.said().is_some_and(|note| note.revoked.is_some()));
        // A client has one list: private links that were taken back stand in it, too. Its number counts all that ever were, whose time is
        // over or not: it must never fall.
        let (mut holders, (links, ever)) = (taken_back(&engine), crate::share::owner::taken_back(&engine));
        let number = revoked.count() as u64 + ever;
        holders.extend(links);
        if holders.is_empty() {
            return Ok(());
        }
        if self.revoked.0 != number {
            self.revoked = (number, BTreeSet::new());
        }
        for peer in self.providers() {
            if self.revoked.1.contains(&peer) {
                continue;
            }
            let mut records = Vec::new();
            for client in [engine.peers.key_for(&peer), keys.client()] {
                let public = client.verifying_key().to_bytes();
                let list = Revocations::new(public, holders.iter().copied(), number);
                records.push((Revocations::key(&public), list.sign(&client)?));
            }
            match give(&engine, &peer, records).await {
                Ok(_) => drop(self.revoked.1.insert(peer)),
                Err(error) => {
                    tracing::debug!(peer = %peer_short(&peer), %error, "not told of a revocation yet")
                }
            }
        }
        Ok(())
    }

    // ---- what watchers did ---------------------------------------------------------------------------------

    /// Reads the logs of all watchers whose word counts. Whether there was anybody to read them from.
    async fn look(&mut self, grants: &[(CapabilityId, GrantRow)]) -> bool {
        let engine = self.engine.clone();
        let (peers, ledger, keys) = (engine.peers.clone(), engine.ledger.clone(), engine.keys.clone());
        let logs = Logs { peers, ledger, keys };
        let silent = |row: &GrantRow| row.said().is_none_or(|note| note.revoked.is_some());
        let mut heard = grants.iter().all(|(_, row)| silent(row));
        for (id, row) in grants {
            if silent(row) {
                self.open.remove(id);
                continue;
            }
            match logs.read(id, &self.providers()).await {
                Ok((answered, Some((head, log)))) => {
                    heard |= answered > 0;
                    for place in &head.places {
                        self.places.insert(place.peer.to_vec(), place.clone());
                    }
                    // After a restore: what the watcher says the owner had seen to is not there to be seen any more.
                    if head.first.length > row.taken.length
                        && let Err(error) = engine.ledger.set_taken(id, head.first)
                    {
                        tracing::warn!(%error, "where a watcher's log begins could not be noted");
                    }
                    let from = row.taken.length.max(head.first.length);
                    let known = self.open.entry(*id).or_default();
                    known.retain(|number, _| *number >= from);
                    for entry in log.entries().iter().filter(|entry| entry.body().number >= from) {
                        let number = entry.body().number;
                        let open =
                            Open { entry: entry.clone(), since: Instant::now(), tries: 0, done: false };
                        known.entry(number).or_insert(open);
                    }
                }
                Ok((answered, None)) => heard |= answered > 0,
                Err(error) => tracing::warn!(error = %format!("{error:#}"), "a watcher's log cannot be read"),
            }
        }
        heard
    }

    /// What is not adopted yet is read all the same, where nobody else gives it.
    fn tell_retriever(&self) {
        let open = self.open.values().flat_map(BTreeMap::values).filter(|open| !open.done);
        self.engine.ledger.set_hearsay(open.map(|open| hearsay(&open.entry)).collect());
    }

    fn pending(&self) -> HashMap<SlotName, Peer> {
        let waiting = self.open.values().flat_map(BTreeMap::values);
        waiting
            .filter(|open| !open.done && open.tries < TRIES_HELD)
            .map(|open| {
                let body = open.entry.body();
                (SlotName { piece: body.piece, slot: body.slot }, body.holder.to_vec())
            })
            .collect()
    }

    /// Every open entry once.
    async fn settle(&mut self, grants: &[(CapabilityId, GrantRow)]) -> anyhow::Result<()> {
        let notes: HashMap<CapabilityId, GrantNote> =
            grants.iter().filter_map(|(id, row)| Some((*id, row.said()?))).collect();
        let waiting: Vec<(CapabilityId, u64)> = self
            .open
            .iter()
            .flat_map(|(id, open)| open.iter().filter(|(_, o)| !o.done).map(|(number, _)| (*id, *number)))
            .collect();
        for (id, number) in waiting {
            let (Some(note), Some(open)) = (notes.get(&id), self.open.get(&id).and_then(|o| o.get(&number)))
            else {
                continue;
            };
            let (entry, since, tries) = (open.entry.clone(), open.since, open.tries);
            let fate = self.fate(&entry, note, since);
            let tried = u32::from(matches!(fate, Fate::Adopt | Fate::Dismiss(_)));
            let done = match fate {
                Fate::Done => true,
                Fate::Wait => false,
                Fate::Dismiss(why) => self.dismiss(&entry, why, tries).await,
                Fate::Adopt => match self.adopt(&entry).await {
                    Ok(()) => true,
                    Err(error) if error.is_fault_of_provider() => {
                        self.dismiss(&entry, "its holder does not have the slot", TRIES_MAX).await
                    }
                    Err(error) => {
                        tracing::debug!(%error, "what a watcher placed cannot be reached yet");
                        tries >= TRIES_MAX
                    }
                },
            };
            if let Some(open) = self.open.get_mut(&id).and_then(|o| o.get_mut(&number)) {
                open.done = done;
                open.tries = open.tries.saturating_add(tried);
            }
            self.engine.watched.set_pending(self.pending());
        }
        self.tell_retriever();
        for (id, row) in grants {
            self.advance(id, row)?;
        }
        Ok(())
    }

    /// What stands at the beginning of a watcher's log and is done goes out of it.
    fn advance(&mut self, id: &CapabilityId, row: &GrantRow) -> anyhow::Result<()> {
        let Some(open) = self.open.get_mut(id) else { return Ok(()) };
        let mut taken = row.taken;
        while let Some(first) = open.first_entry().filter(|first| first.get().done) {
            taken = first.get().entry.chain_end();
            first.remove();
        }
        let left = open.len() as u64;
        self.engine.watched.note(*id, |seen| seen.open = left);
        if taken.length > row.taken.length {
            self.engine.ledger.set_taken(id, taken)?;
        }
        Ok(())
    }

    fn fate(&self, entry: &PlacementEntry, note: &GrantNote, since: Instant) -> Fate {
        let (engine, said) = (&self.engine, entry.body());
        let holder = said.holder.to_vec();
        let Some(row) = engine.ledger.piece(&said.piece) else { return Fate::Dismiss("the piece is gone") };
        let Some(slot) = row.slots.get(usize::from(said.slot)) else {
            return Fate::Dismiss("the slot is gone");
        };
        if row.holders().any(|(_, held)| held.deal == *said.deal) {
            return Fate::Done;
        }
        if slot.cid.as_ref() != Some(&said.slot_cid) || said.raw_len != row.slot_len(said.slot) {
            return Fate::Dismiss("it is of other bytes than the slot's");
        }
        if !receipt_fits(engine, entry) {
            return Fate::Dismiss("its receipt is not the holder's");
        }
        let known = engine.ledger.provider(&holder);
        if note.apart.iter().any(|apart| *apart == holder)
            || known.as_ref().is_some_and(|row| matches!(row.state, ProviderState::Removed))
            || (known.is_none() && !note.newcomers)
        {
            return Fate::Dismiss("nothing was to be placed there");
        }
        let others: Vec<&Peer> = row
            .holders()
            .filter(|(n, held)| *n != said.slot && held.failed.is_none())
            .map(|(_, held)| &held.provider)
            .chain([&holder])
            .collect();
        let domains = engine.ledger.domains(&others);
        if domains.split_last().is_some_and(|(own, others)| others.contains(own)) {
            return Fate::Dismiss("its holder fails together with another one");
        }
        match &slot.holder {
            None => Fate::Adopt,
            Some(held) if held.failed.is_some() || slot.lost.is_some() => Fate::Adopt,
            Some(held) => {
                let answers = engine.ledger.provider(&held.provider).is_some_and(|row| row.answers());
                let anyone =
                    engine.ledger.providers().iter().any(|(_, row)| row.answers() && row.last_ok > 0);
                let silent = engine.silent_seconds(&held.provider);
                match answers {
                    true if self.is_well(held, since) => Fate::Dismiss("the slot is well where it is"),
                    // A watcher may know better: whom it says to have lost the slot is read and challenged before its word is dismissed, or both would
                    // go on for ever, the one placing what the other ends.
                    true => {
                        let at = (said.piece, said.slot);
                        engine.retriever.suspicions.lock().insert(at);
                        engine.retriever.to_read.lock().insert(at);
                        Fate::Wait
                    }
                    false if anyone && silent >= engine.policy.urgent_after_seconds => Fate::Adopt,
                    _ => Fate::Wait,
                }
            }
        }
    }

    /// Whether a holder has shown since then that it has the slot, and gives what it has.
    fn is_well(&self, held: &Holder, since: Instant) -> bool {
        // By time that passed: a clock that was set meanwhile would have it wait for what it took for the present.
        let proven = age(self.engine.now(), held.proven_at) < since.elapsed().as_secs();
        proven && !self.engine.retriever.readings.is_doubtful(&held.deal)
    }

    /// Those with whom watchers placed something that waits, where the owner allows newcomers.
    fn introduce_all(&self, grants: &[(CapabilityId, GrantRow)]) -> anyhow::Result<()> {
        for (id, row) in grants {
            let newcomers = row.said().is_some_and(|note| note.newcomers);
            for open in self.open.get(id).into_iter().flat_map(BTreeMap::values).filter(|_| newcomers) {
                let peer = open.entry.body().holder.to_vec();
                let known = self.engine.ledger.provider(&peer);
                if !open.done && receipt_fits(&self.engine, &open.entry) && known.is_none() {
                    self.introduce(&peer)?;
                }
            }
        }
        Ok(())
    }

    /// A provider that a watcher found becomes one of the drive's.
    fn introduce(&self, peer: &Peer) -> anyhow::Result<()> {
        let text = peer_text(peer);
        let listed = self.list.list().iter().any(|provider| provider.peer_id == text);
        if listed && self.engine.ledger.provider(peer).is_some() {
            return Ok(());
        }
        let Some(place) = self.places.get(peer) else { return Ok(()) };
        let addr = ProviderAddr { peer_id: peer_text(peer), addrs: place.addrs.clone(), tags: None };
        addr.parts()?;
        self.list.add(&addr)?;
        self.engine.ledger.add_provider(peer.clone(), place.addrs.clone(), self.engine.now())?;
        let text = format!("provider {} was found by a watcher, and keeps slots now", peer_short(peer));
        self.engine.events.add(self.engine.now(), Level::Info, text);
        Ok(())
    }

    async fn adopt(&self, entry: &PlacementEntry) -> Result<(), NetError> {
        let (engine, said) = (&self.engine, entry.body());
        let peer = said.holder.to_vec();
        let local = |e: &dyn std::fmt::Display| NetError::Local(e.to_string());
        self.introduce(&peer).map_err(|e| local(&e))?;
        let deal = deal_of(entry).ok_or_else(|| NetError::Invalid("deal id".into()))?;
        let checking = check(engine, &peer, deal, &said.slot_cid, said.raw_len);
        tokio::time::timeout(CHALLENGE * 3, checking).await.map_err(|_| NetError::Timeout(CHALLENGE))??;
        engine.provider_answered(&peer).map_err(|e| local(&e))?;
        let now = engine.now();
        let holder = Holder {
            provider: peer.clone(),
            deal: said.deal.to_vec(),
            entry: 0,
            confirmed_at: now,
            proven_at: now,
            ends_at: said.time.min(now).saturating_add(DEAL_SECONDS.min(engine.policy.deal_seconds)),
            failed: None,
        };
        let facts = PlacementFacts {
            action: PlacementAction::Add,
            piece: said.piece,
            raw_len: said.raw_len,
            slot: said.slot,
            holder: peer.clone(),
            slot_cid: said.slot_cid.to_vec(),
            deal: said.deal.to_vec(),
            receipt: said.receipt.to_vec(),
            time: now,
        };
        let sign = |chain: &_| {
            let own = PlacementEntry::sign(facts, chain, engine.keys.placement_signing())
                .map_err(|e| e.to_string())?;
            Ok((own.bytes().to_vec(), own.chain_end()))
        };
        engine.ledger.set_holder(said.piece, said.slot, holder, sign).map_err(|e| local(&e))?;
        let (piece, short) = (short_id(&said.piece), peer_short(&peer));
        let text =
            format!("a watcher has placed slot {} of {piece} with provider {short}: taken over", said.slot);
        engine.events.add(now, Level::Info, text);
        Ok(())
    }

    /// Ends the deal of an entry that is not taken over; whether it is done with.
    async fn dismiss(&self, entry: &PlacementEntry, why: &str, tries: u32) -> bool {
        let (engine, said) = (&self.engine, entry.body());
        let peer = said.holder.to_vec();
        let (piece, short) = (short_id(&said.piece), peer_short(&peer));
        tracing::info!(%piece, slot = said.slot, peer = %short, why, "a watcher's entry is dismissed");
        let Some(deal) = deal_of(entry).filter(|_| receipt_fits(engine, entry)) else { return true };
        // Of a provider that this drive does not know there is no address that was ever stood at: its deal ends by itself.
        if engine.ledger.provider(&peer).is_none() {
            return true;
        }
        let telling = async { engine.peers.session(&engine.ledger, &peer).await?.release(deal).await };
        match tokio::time::timeout(PATIENCE, telling).await {
            Ok(Ok(())) => true,
            Ok(Err(error)) if error.code() == Some(ErrorCode::NotFound) => true,
            _ => tries >= TRIES_HELD,
        }
    }
}

#[async_trait]
impl Worker for WatchWorker {
    fn name(&self) -> &'static str {
        "watch"
    }

    fn status(&self) -> Detail {
        self.detail.clone()
    }

    async fn work(&mut self, _: &Context) -> anyhow::Result<Next> {
        let engine = self.engine.clone();
        self.seen = *engine.ledger.watch().borrow();
        let grants = engine.ledger.grants();
        if grants.is_empty() || engine.read_only().is_some() {
            engine.watched.set_looked();
            if engine.read_only().is_none() {
                self.take_back(&grants).await?;
            }
            return Ok(Next::Idle);
        }
        let asked = self.providers();
        if self.next_look.is_none_or(|at| Instant::now() >= at) || asked != self.asked {
            let heard = self.look(&grants).await;
            self.introduce_all(&grants)?;
            self.tell_retriever();
            engine.watched.set_pending(self.pending());
            if heard {
                engine.watched.set_looked();
            }
            self.next_look = Some(Instant::now() + if heard { LOOK } else { CALM });
            self.asked = asked;
        }
        self.settle(&engine.ledger.grants()).await?;
        self.seen = *engine.ledger.watch().borrow();
        let now = engine.now();
        for (id, row) in &engine.ledger.grants() {
            match row.said().filter(|note| note.lasts(now)) {
                Some(note) => self.offer(*id, row, &note).await?,
                None => drop(self.offers.remove(id)),
            }
        }
        self.take_back(&grants).await?;
        if self.offers.values().all(|offer| offer.version >= self.seen) {
            engine.watched.set_told(self.seen);
        }
        let open: usize = self.open.values().map(|open| open.values().filter(|o| !o.done).count()).sum();
        let doing = if open > 0 { "taking over what watchers placed".to_owned() } else { String::new() };
        self.detail = Detail { doing, queue: open as u64, progress: None };
        Ok(if open > 0 { Next::After(SOON) } else { Next::Idle })
    }

    async fn wait(&mut self) {
        // Who is behind has its pause before it; a change that was seen already brings nothing new.
        let again = self.offers.values().filter_map(Offer::renewed_in).min();
        self.engine.changed_since(self.seen, again.map_or(CALM, |again| again.min(CALM))).await;
        // Rows come in bursts: one bundle serves them all.
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}
