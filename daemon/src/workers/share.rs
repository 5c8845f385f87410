//! The share worker: keeps what private links lead to where it is looked for, as it is now.
//!
//! ```text
//! in force          object: composed anew when placements changed, left with up to eight providers, the first part last
//!                   index: where blocks moved (compaction), once somebody keeps them there
//! ended, revoked    an empty object in the place of the old one, once; nothing after it
//! ```
//!
//! After a restore the indices come back from whoever keeps them: they are in no commit. Until they are here nothing is dropped
//! (`retention`). Permits of links that were taken back are revoked by the watch worker, with those of watchers.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use futures::StreamExt;
use holdfast_content::keys::SecretKey32;
use holdfast_content::share::{LinkKeys, ShareId, ShareNote};
use holdfast_content::watch::part::{self, Part as Signed};
use holdfast_net::client::PutOutcome;
use holdfast_net::{NetError, RecordKey, RecordKind, SigningKey};

use crate::drive::Engine;
use crate::drive::ledger::Peer;
use crate::drive::peers::peer_short;
use crate::share::object::{self, INDEX_FIRST, IndexAt, Object};
use crate::share::owner::{compose, keepers, lasting, moved, sweep};
use crate::share::places::{Moved, is_to_be_looked_at};
use crate::share::{Loaded, ShareSeen};
use crate::worker::{Context, Detail, Next, Worker};

/// Providers asked at once.
const AT_ONCE: usize = 4;
/// One part, one way.
const PATIENCE: Duration = Duration::from_secs(30);
/// How often it looks though no row changed.
const LOOK: Duration = Duration::from_secs(30);
/// An object is composed anew at most that often; one of several parts more rarely.
const COMPOSE: Duration = Duration::from_secs(5);
const COMPOSE_LARGE: Duration = Duration::from_secs(60);

/// An object on its way.
struct Offer {
    content: Object,
    number: u64,
    /// Parts by their numbers, in the order in which they are left.
    values: Vec<(u16, Vec<u8>)>,
    with: BTreeSet<Peer>,
    /// Who has its index, where that is apart.
    index_with: BTreeSet<Peer>,
    composed: Instant,
    version: u64,
    /// The commit whose places it has.
    published: Option<u64>,
}

/// See the module.
pub struct ShareWorker {
    engine: Arc<Engine>,
    offers: HashMap<ShareId, Offer>,
    /// Who was told of an end.
    told: HashMap<ShareId, BTreeSet<Peer>>,
    swept: bool,
    detail: Detail,
}

/// What a provider keeps instead of what it was to keep.
enum Given {
    Kept,
    Higher(u64),
}

impl ShareWorker {
    /// A worker over `engine`'s links.
    pub fn new(engine: Arc<Engine>) -> Self {
        let (offers, told) = (HashMap::new(), HashMap::new());
        Self { engine, offers, told, swept: false, detail: Detail::default() }
    }

    fn author(&self, note: &ShareNote) -> SigningKey {
        self.engine.keys.share().author(note.lane)
    }

    fn open_key(&self, id: &ShareId) -> SecretKey32 {
        LinkKeys::from_secret(&self.engine.keys.share().secret(id)).open
    }

    /// The index: from the home folder, else from a provider.
    async fn loaded(&self, id: &ShareId, note: &ShareNote) -> anyhow::Result<Option<Loaded>> {
        let (engine, wanted) = (self.engine.clone(), *id);
        let here = engine.blocking(move |e| e.shared.index(e.keys.share(), &wanted)).await?;
        if here.is_some() {
            return Ok(here);
        }
        for (peer, _) in engine.ledger.providers() {
            match self.fetched(&peer, id, note).await {
                Ok(Some(loaded)) => {
                    let kept = loaded.clone();
                    engine.blocking(move |e| e.shared.keep(e.keys.share(), &wanted, kept)).await??;
                    return Ok(Some(loaded));
                }
                Ok(None) => {}
                Err(error) => {
                    tracing::debug!(peer = %peer_short(&peer), %error, "a link's index was not given");
                }
            }
        }
        Ok(None)
    }

    /// What a provider keeps of a link, if it is whole.
    async fn fetched(&self, peer: &Peer, id: &ShareId, note: &ShareNote) -> anyhow::Result<Option<Loaded>> {
        let author = self.author(note).verifying_key().to_bytes();
        let key = self.open_key(id);
        let Some((number, first)) = self.part(peer, &author, 0, &key).await? else { return Ok(None) };
        let part = object::Part::decode(&first)?;
        if part.ended {
            return Ok(None);
        }
        let mut parts = vec![first];
        for n in 1..part.parts() {
            match self.part(peer, &author, n, &key).await? {
                Some((same, plain)) if same == number => parts.push(plain),
                _ => return Ok(None),
            }
        }
        let at = Object::join(&parts)?.index;
        let bytes = match &at.inline {
            Some(bytes) => bytes.to_vec(),
            None => {
                let mut parts = Vec::new();
                for n in 0..at.parts {
                    let Some((_, plain)) = self.part(peer, &author, INDEX_FIRST + n, &key).await? else {
                        return Ok(None);
                    };
                    parts.push(plain);
                }
                object::join_index(&parts)?
            }
        };
        Ok(if at.names(&bytes) { Some(Loaded::of(bytes)?) } else { None })
    }

    /// A part that a provider keeps, opened; nothing where there is none, or one of another link.
    async fn part(
        &self,
        peer: &Peer,
        author: &[u8; 32],
        n: u16,
        key: &SecretKey32,
    ) -> anyhow::Result<Option<(u64, Vec<u8>)>> {
        let engine = &self.engine;
        let name = RecordKey::new(RecordKind::Share, part::name(author, n));
        let asking = async { engine.peers.session(&engine.ledger, peer).await?.get_record(&name).await };
        let Some(value) = tokio::time::timeout(PATIENCE, asking).await?? else { return Ok(None) };
        let signed = Signed::verify(&name.name, &value)?;
        Ok(signed.open(key).ok().map(|plain| (signed.number, plain.to_vec())))
    }

    /// Composes what a link leads to, where that may have changed, and leaves it with whoever does not have it.
    async fn offer(&mut self, id: ShareId, note: &ShareNote) -> anyhow::Result<()> {
        let engine = self.engine.clone();
        let version = *engine.ledger.watch().borrow();
        let published = engine.head.published_sequence();
        let pause = |offer: &Offer| if offer.values.len() > 1 { COMPOSE_LARGE } else { COMPOSE };
        let stale = self
            .offers
            .get(&id)
            .is_none_or(|offer| offer.version != version && offer.composed.elapsed() >= pause(offer));
        if stale {
            self.renew(id, note, version, published).await?;
        }
        let chosen = keepers(&engine, &id);
        let Some(offer) = self.offers.get(&id) else { return Ok(()) };
        // Who is silent keeps nobody waiting: it is given what there is when it is back.
        let missing = chosen.iter().filter(|(peer, row)| row.answers() && !offer.with.contains(peer));
        let missing: Vec<Peer> = missing.map(|(peer, _)| peer.clone()).collect();
        let author = self.author(note).verifying_key().to_bytes();
        let given = self.give_all(missing, &author, offer).await;
        let mut higher = 0;
        let mut problem = None;
        if let Some(offer) = self.offers.get_mut(&id) {
            for (peer, given) in given {
                match given {
                    Ok(Given::Kept) => {
                        offer.index_with.insert(peer.clone());
                        offer.with.insert(peer);
                    }
                    Ok(Given::Higher(number)) => higher = higher.max(number),
                    Err(error) => problem = Some(format!("provider {}: {error}", peer_short(&peer))),
                }
            }
            let with = chosen.iter().filter(|(peer, _)| offer.with.contains(peer)).count() as u64;
            engine.shared.note(id, ShareSeen { with, wanted: chosen.len() as u64, problem });
            if higher > 0 {
                // Of an earlier link in the same place, or of an earlier life of this drive, whose clock was ahead.
                let (content, number) = (offer.content.clone(), higher.saturating_add(1));
                self.write(id, note, content, number, number)?;
            }
        }
        Ok(())
    }

    async fn renew(
        &mut self,
        id: ShareId,
        note: &ShareNote,
        version: u64,
        published: Option<u64>,
    ) -> anyhow::Result<()> {
        let engine = self.engine.clone();
        let Some(mut loaded) = self.loaded(&id, note).await? else {
            let problem = Some("what it shows is not here, and no provider that answers has it".to_owned());
            engine.shared.note(id, ShareSeen { problem, ..ShareSeen::default() });
            return Ok(());
        };
        let known = self.offers.get(&id);
        // The commit whose places it has, as far as it has them.
        let mut looked_at = published;
        let number = known.map_or(0, |offer| offer.number + 1).max(engine.now());
        if is_to_be_looked_at(known.map(|offer| offer.published), published) {
            let (before, share) = (loaded.clone(), id);
            let found = engine
                .blocking(move |e| {
                    let found = moved(e, &before)?;
                    if let Moved::To(loaded) = &found {
                        e.shared.keep(e.keys.share(), &share, loaded.clone())?;
                    }
                    anyhow::Ok(found)
                })
                .await??;
            looked_at = found.looked_at(published);
            if let Moved::To(found) = found {
                loaded = found;
            }
        }
        // The parts of an index keep their number as long as it stays.
        let index_number = known
            .filter(|offer| offer.content.index.names(&loaded.bytes))
            .map_or(number, |offer| offer.content.index.number);
        let known_index = known.map(|offer| offer.content.index.number);
        let (said, bytes) = (note.clone(), loaded.clone());
        let content = engine.blocking(move |e| compose(e, &id, &said, &bytes, index_number)).await??;
        if content.pieces.is_empty() && loaded.index.pieces().next().is_some() {
            // Nobody keeps any of it (yet): what was told before may still lead somewhere.
            return Ok(());
        }
        match self.offers.get_mut(&id).filter(|offer| offer.content == content) {
            Some(same) => {
                (same.version, same.composed, same.published) = (version, Instant::now(), looked_at);
            }
            None => {
                let same = known_index == Some(content.index.number);
                let index_with = self.offers.remove(&id).map(|offer| offer.index_with).filter(|_| same);
                let offer = Offer {
                    content: content.clone(),
                    number,
                    values: Vec::new(),
                    with: BTreeSet::new(),
                    index_with: index_with.unwrap_or_default(),
                    composed: Instant::now(),
                    version,
                    published: looked_at,
                };
                self.offers.insert(id, offer);
                self.write(id, note, content, number, index_number)?;
            }
        }
        Ok(())
    }

    /// Seals and signs an offer's parts anew under these numbers.
    fn write(
        &mut self,
        id: ShareId,
        note: &ShareNote,
        content: Object,
        number: u64,
        index_number: u64,
    ) -> anyhow::Result<()> {
        let mut content = content;
        let (author, key) = (self.author(note), self.open_key(&id));
        let mut values = Vec::new();
        if content.index.inline.is_none() {
            let loaded = self.engine.shared.index(self.engine.keys.share(), &id);
            let Some(loaded) = loaded else { return Ok(()) };
            content.index = IndexAt::of(&loaded.bytes, index_number);
            for (plain, n) in object::index_parts(&loaded.bytes)?.iter().zip(INDEX_FIRST..) {
                values.push((n, part::write(&author, n, index_number, &key, plain)?));
            }
        }
        let parts = content.parts()?;
        for (plain, n) in parts.iter().zip(0u16..) {
            values.push((n, part::write(&author, n, number, &key, plain)?));
        }
        // The first part last: whoever reads it finds the others.
        values.sort_by_key(|(n, _)| (*n < INDEX_FIRST, std::cmp::Reverse(*n)));
        if let Some(offer) = self.offers.get_mut(&id) {
            if offer.content.index.number != content.index.number {
                offer.index_with = BTreeSet::new();
            }
            (offer.content, offer.number, offer.values) = (content, number, values);
            offer.with = BTreeSet::new();
        }
        Ok(())
    }

    async fn give_all(
        &self,
        peers: Vec<Peer>,
        author: &[u8; 32],
        offer: &Offer,
    ) -> Vec<(Peer, Result<Given, NetError>)> {
        futures::stream::iter(peers)
            .map(|peer| async {
                let has = offer.index_with.contains(&peer);
                let values: Vec<_> = offer.values.iter().filter(|(n, _)| !has || *n < INDEX_FIRST).collect();
                let given = self.give(&peer, author, &values).await;
                (peer, given)
            })
            .buffer_unordered(AT_ONCE)
            .collect()
            .await
    }

    async fn give(
        &self,
        peer: &Peer,
        author: &[u8; 32],
        values: &[&(u16, Vec<u8>)],
    ) -> Result<Given, NetError> {
        let engine = &self.engine;
        let mut given = Given::Kept;
        for (n, value) in values {
            let key = RecordKey::new(RecordKind::Share, part::name(author, *n));
            let giving =
                async { engine.peers.session(&engine.ledger, peer).await?.put_record(&key, value).await };
            let put =
                tokio::time::timeout(PATIENCE, giving).await.map_err(|_| NetError::Timeout(PATIENCE))??;
            let PutOutcome::Superseded(kept) = put else { continue };
            if kept.as_ref() == value.as_slice() {
                continue;
            }
            let number = Signed::verify(&key.name, &kept).map(|part| part.number);
            // What lies there under the same number is another version's, or a broken one.
            given = Given::Higher(number.unwrap_or(0).max(engine.now()));
        }
        Ok(given)
    }

    /// Nothing is left of what a link led to; whoever has the link is told so.
    async fn end(&mut self, id: ShareId, note: &ShareNote) -> anyhow::Result<()> {
        self.offers.remove(&id);
        let engine = self.engine.clone();
        engine.blocking(move |e| e.shared.forget(&id)).await?;
        let told = self.told.entry(id).or_default().clone();
        let mut peers = keepers(&engine, &id);
        peers.retain(|(peer, row)| row.answers() && !told.contains(peer));
        let (author, key) = (self.author(note), self.open_key(&id));
        let public = author.verifying_key().to_bytes();
        for (peer, _) in peers {
            let ended = async {
                let Some((number, plain)) = self.part(&peer, &public, 0, &key).await? else {
                    // Never there, or already another link's.
                    return anyhow::Ok(());
                };
                if object::Part::decode(&plain)?.ended {
                    return Ok(());
                }
                let number = number.saturating_add(1).max(engine.now());
                // The index goes as well, where the object says how long it is.
                let index = Object::join(&[plain]).map_or(0, |object| object.index.parts);
                let mut values = Vec::new();
                for n in (INDEX_FIRST..INDEX_FIRST + index).chain([0]) {
                    values.push((n, part::write(&author, n, number, &key, &object::ended()?)?));
                }
                self.give(&peer, &public, &values.iter().collect::<Vec<_>>()).await?;
                Ok(())
            };
            match ended.await {
                Ok(()) => drop(self.told.entry(id).or_default().insert(peer)),
                Err(error) => {
                    tracing::debug!(peer = %peer_short(&peer), %error, "not told of a link's end yet");
                }
            }
        }
        Ok(())
    }
}

#[async_trait]
impl Worker for ShareWorker {
    fn name(&self) -> &'static str {
        "share"
    }

    fn status(&self) -> Detail {
        self.detail.clone()
    }

    async fn work(&mut self, _: &Context) -> anyhow::Result<Next> {
        let engine = self.engine.clone();
        if engine.read_only().is_some() {
            return Ok(Next::Idle);
        }
        if !self.swept {
            let _one = engine.shared.making.lock().await;
            engine.blocking(sweep).await??;
            self.swept = true;
        }
        let all = engine.ledger.shares();
        let now = engine.deal_now();
        let mut waiting = 0;
        for (id, note) in &all {
            if note.lasts(now) {
                self.offer(*id, note).await?;
                let seen = engine.shared.seen(id);
                waiting += u64::from(seen.with < seen.wanted || seen.wanted == 0);
            } else if note.revoked || engine.knows_time() {
                self.end(*id, note).await?;
            }
        }
        let doing = if waiting > 0 { "leaving links with providers".to_owned() } else { String::new() };
        self.detail = Detail { doing, queue: waiting, progress: None };
        Ok(Next::Idle)
    }

    async fn wait(&mut self) {
        let look = if lasting(&self.engine).is_empty() { LOOK * 4 } else { LOOK };
        self.engine.changed(if self.detail.queue > 0 { COMPOSE } else { look }).await;
        // Rows come in bursts: one object serves them all.
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
}
