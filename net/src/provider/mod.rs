//! The provider: keeps slots for others and proves it.
//!
//! ```text
//! accept -> session (hello, keys) -> control requests          one task for each stream, one for each request
//!                                 -> data streams: reads, pushes
//! store: slots/ deals/ records/    blocking, on tokio's blocking threads
//! sweep: ended deals, once a minute
//! scrub: every slot read whole, once a month
//! announce: which drives' records are here, to the DHT
//! ```
//!
//! Everything that a client can make it do is bounded by [`ProviderLimits`]; audits have workers of their own, since
//! a missed proof is worse than a slow read. Who has not proven a deal's key learns nothing of it, not even that it
//! exists.

mod announce;
mod audit;
mod config;
mod control;
mod data;
mod scrub;
mod session;
pub(crate) mod store;

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures::StreamExt;
use libp2p::{PeerId, Stream};
use libp2p_stream::IncomingStreams;
use parking_lot::{Mutex, RwLock};
use tokio::sync::{Notify, Semaphore, mpsc};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::deal::{ByteRange, DEAL_SUITE, DEAL_VERSION, DealId, ReceiptBody, SignedReceipt};
use crate::env::Env;
use crate::error::{ErrorCode, NetError};
use crate::node::Node;
use crate::record::RecordRules;
use crate::settlement::Settlement;
use crate::wire::limits::{DATA_FRAME_BYTES, FRAME_PAYLOAD_BYTES_MAX};
use crate::wire::message::WireError;
use crate::wire::{CONTROL_PROTOCOL, DATA_PROTOCOL};

pub use config::{Allow, Gate, ProviderConfig, ProviderLimits};
pub use store::{DealState, StoreUsage, StoredDeal};

use session::{ClientSession, Sessions};
use store::{Entry, Steps, Store};

/// Streams that were taken from libp2p and have no task yet.
const ARRIVED_MAX: usize = 256;
/// After a stop, requests under way may take this long.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);

/// How a provider stands.
#[derive(Debug, Clone, Default)]
pub struct ProviderStatus {
    /// What it keeps.
    pub store: StoreUsage,
    /// Its limit.
    pub capacity_bytes: u64,
    /// What it would still take.
    pub free_bytes: u64,
    /// Records kept.
    pub records: usize,
    /// Clients with a session.
    pub sessions: usize,
    /// Bytes of slots served since it started.
    pub served_bytes: u64,
    /// Bytes of slots received since it started.
    pub received_bytes: u64,
    /// Audits passed since it started.
    pub audits_answered: u64,
    /// Audits that it could not answer since it started: damaged or missing slots.
    pub audits_failed: u64,
}

#[derive(Default)]
struct Tallies {
    served: AtomicU64,
    received: AtomicU64,
    audits_answered: AtomicU64,
    audits_failed: AtomicU64,
}

struct Inner {
    config: ProviderConfig,
    node: Node,
    env: Env,
    store: Arc<Store>,
    rules: Arc<dyn RecordRules>,
    settlement: Arc<dyn Settlement>,
    sessions: Sessions,
    /// Bytes on their way from disk to stream.
    serving: Arc<Semaphore>,
    /// Bytes of control requests that are not small, from their headers on.
    asked: Arc<Semaphore>,
    /// Bytes of control replies that may be long, until they are written.
    answered: Arc<Semaphore>,
    /// The same of answers to audits.
    proofs: Arc<Semaphore>,
    audits: Arc<Semaphore>,
    pushes: Arc<Semaphore>,
    /// Who is pushing what: a newer push of a deal ends the older one.
    pushing: Mutex<HashMap<DealId, CancellationToken>>,
    /// Held by whoever frees ended deals.
    sweeping: Mutex<()>,
    allow: RwLock<Allow>,
    /// Streams under way of each peer.
    streams: Mutex<HashMap<PeerId, usize>>,
    tallies: Tallies,
    tasks: TaskTracker,
    /// What is announced may have changed.
    announcing: Notify,
    stop: CancellationToken,
    uptime_before: u64,
    started_ms: u64,
}

/// A provider. Clones are the same one.
#[derive(Clone)]
pub struct Provider {
    inner: Arc<Inner>,
}

impl Provider {
    /// Opens the folder (making it if need be) and ends what a crash left half done. Serves nobody before
    /// [`run`](Self::run).
    pub async fn open(
        dir: &Path,
        config: ProviderConfig,
        node: Node,
        env: Env,
        rules: Arc<dyn RecordRules>,
        settlement: Arc<dyn Settlement>,
    ) -> Result<Provider, NetError> {
        let dir = dir.to_path_buf();
        let mut store = tokio::task::spawn_blocking(move || Store::open(&dir, Steps::default()))
            .await
            .map_err(|e| NetError::Local(e.to_string()))??;
        let limits = &config.limits;
        store.tree_permille = limits.tree_permille;
        let room =
            |bytes: usize, least: usize| Arc::new(Semaphore::new(bytes.clamp(least, Semaphore::MAX_PERMITS)));
        let inner = Inner {
            serving: room(limits.serving_bytes_max, DATA_FRAME_BYTES),
            asked: room(limits.requests_bytes_max, FRAME_PAYLOAD_BYTES_MAX),
            answered: room(limits.replies_bytes_max, FRAME_PAYLOAD_BYTES_MAX),
            proofs: room(limits.proofs_bytes_max, FRAME_PAYLOAD_BYTES_MAX),
            audits: Arc::new(Semaphore::new(limits.audits_max)),
            pushes: Arc::new(Semaphore::new(limits.pushes_max)),
            uptime_before: store.uptime(),
            started_ms: env.clock.monotonic_ms(),
            stop: node.stop_token().child_token(),
            store: Arc::new(store),
            sessions: Sessions::default(),
            pushing: Mutex::default(),
            sweeping: Mutex::default(),
            allow: RwLock::new(config.allow.clone()),
            streams: Mutex::default(),
            tallies: Tallies::default(),
            tasks: TaskTracker::new(),
            announcing: Notify::new(),
            config,
            node,
            env,
            rules,
            settlement,
        };
        Ok(Provider { inner: Arc::new(inner) })
    }

    /// Serves until [`stop`](Self::stop) or the node's shutdown; requests under way may end.
    pub async fn run(&self) -> Result<(), NetError> {
        let node = &self.inner.node;
        let (Some(control), Some(data)) =
            (node.take_incoming(CONTROL_PROTOCOL), node.take_incoming(DATA_PROTOCOL))
        else {
            return Err(NetError::Invalid("this node does not listen, or has a provider already".into()));
        };
        let period = Duration::from_secs(self.inner.config.limits.sweep_seconds.max(1));
        let mut sweep = tokio::time::interval_at(tokio::time::Instant::now() + period, period);
        sweep.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        self.inner.tasks.spawn(announce::run(self.inner.clone()));
        self.inner.tasks.spawn(scrub::run(self.inner.clone()));
        let (arrived, mut controls) = mpsc::channel(ARRIVED_MAX);
        let control = tokio::spawn(hand_over(control, arrived, self.inner.stop.clone()));
        let (arrived, mut datas) = mpsc::channel(ARRIVED_MAX);
        let data = tokio::spawn(hand_over(data, arrived, self.inner.stop.clone()));
        loop {
            tokio::select! {
                () = self.inner.stop.cancelled() => break,
                Some((peer, stream)) = controls.recv() => self.spawn(peer, stream, true),
                Some((peer, stream)) = datas.recv() => self.spawn(peer, stream, false),
                _ = sweep.tick() => {
                    let provider = self.clone();
                    self.inner.tasks.spawn(async move {
                        if let Err(e) = provider.sweep().await {
                            tracing::warn!("ended deals are not freed: {e}");
                        }
                    });
                }
            }
        }
        self.inner.tasks.close();
        let _ = tokio::time::timeout(DRAIN_TIMEOUT, self.inner.tasks.wait()).await;
        for (protocol, taking) in [(CONTROL_PROTOCOL, control), (DATA_PROTOCOL, data)] {
            if let Ok(streams) = taking.await {
                node.give_back_incoming(protocol, streams);
            }
        }
        Ok(())
    }

    /// Ends [`run`](Self::run).
    pub fn stop(&self) {
        self.inner.stop.cancel();
    }

    /// Frees what has ended, as `run` does from time to time; returns how many deals went.
    pub async fn sweep(&self) -> Result<usize, NetError> {
        let inner = self.inner.clone();
        let sweep = move || {
            // One at a time: two would free the same slot, and the later one would find it gone.
            let _turn = inner.sweeping.lock();
            let up = inner.env.clock.monotonic_ms().saturating_sub(inner.started_ms) / 1000;
            let uptime = inner.uptime_before.saturating_add(up);
            // Losing it only lengthens a grace, and a full disk must not keep itself full.
            if let Err(e) = inner.store.set_uptime(uptime) {
                tracing::warn!("the uptime is not written down: {}", e.text);
            }
            inner.store.sweep(&inner.config, inner.env.clock.unix_seconds(), uptime)
        };
        tokio::task::spawn_blocking(sweep).await.map_err(|e| NetError::Local(e.to_string()))
    }

    /// How it stands.
    pub fn status(&self) -> ProviderStatus {
        let inner = &self.inner;
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        ProviderStatus {
            store: inner.store.usage(),
            capacity_bytes: inner.config.capacity_bytes,
            free_bytes: inner.store.room(&inner.config),
            records: inner.store.records.len(),
            sessions: inner.sessions.count(),
            served_bytes: read(&inner.tallies.served),
            received_bytes: read(&inner.tallies.received),
            audits_answered: read(&inner.tallies.audits_answered),
            audits_failed: read(&inner.tallies.audits_failed),
        }
    }

    /// What is kept in the folder beyond slots and records, for whoever does more with slots: it counts in the capacity.
    pub fn set_beside_bytes(&self, bytes: u64) {
        self.inner.store.beside.store(bytes, Ordering::Relaxed);
    }

    /// Changes whose deals are taken, from the next one on.
    pub fn set_allow(&self, allow: Allow) {
        *self.inner.allow.write() = allow;
    }

    /// Grows whenever a deal comes, changes or goes.
    pub fn deals_changes(&self) -> u64 {
        self.inner.store.changes()
    }

    /// All deals whose slots are stored, ended ones in their grace included. Walks all deals.
    pub fn stored_deals(&self) -> Vec<StoredDeal> {
        self.inner.store.stored_deals()
    }

    fn spawn(&self, peer: PeerId, stream: Stream, control: bool) {
        // Streams that have not said hello are bounded as well: by the connections, and by this.
        let streams_max = self.inner.config.limits.sessions_max.saturating_mul(4);
        if self.inner.tasks.len() >= streams_max {
            tracing::debug!(%peer, "too many streams");
            return;
        }
        let Some(turn) = StreamOf::begin(&self.inner, peer) else {
            tracing::debug!(%peer, "too many streams of this peer");
            return;
        };
        let inner = self.inner.clone();
        self.inner.tasks.spawn(async move {
            let _turn = turn;
            let stop = inner.stop.clone();
            let serve = async {
                if control {
                    control::serve(&inner, peer, stream).await
                } else {
                    data::serve(&inner, peer, stream).await
                }
            };
            tokio::select! {
                result = serve => {
                    if let Err(e) = result {
                        tracing::debug!(%peer, "stream ended: {e}");
                    }
                }
                () = stop.cancelled() => {}
            }
        });
    }
}

/// Takes streams the moment they come: libp2p's queue holds one of each protocol, over all connections, and drops the next.
async fn hand_over(
    mut incoming: IncomingStreams,
    arrived: mpsc::Sender<(PeerId, Stream)>,
    stop: CancellationToken,
) -> IncomingStreams {
    loop {
        let next = tokio::select! {
            () = stop.cancelled() => return incoming,
            next = incoming.next() => next,
        };
        let Some((peer, stream)) = next else { return incoming };
        if arrived.try_send((peer, stream)).is_err() {
            tracing::debug!(%peer, "more streams at once than can be taken");
        }
    }
}

/// A stream of a peer, counted while it lasts.
struct StreamOf {
    inner: Arc<Inner>,
    peer: PeerId,
}

impl StreamOf {
    fn begin(inner: &Arc<Inner>, peer: PeerId) -> Option<StreamOf> {
        let mut streams = inner.streams.lock();
        let count = streams.get(&peer).copied().unwrap_or(0);
        if count >= inner.config.limits.streams_per_peer_max {
            return None;
        }
        streams.insert(peer, count + 1);
        Some(StreamOf { inner: inner.clone(), peer })
    }
}

impl Drop for StreamOf {
    fn drop(&mut self) {
        let mut streams = self.inner.streams.lock();
        if let Some(count) = streams.get_mut(&self.peer) {
            *count -= 1;
            if *count == 0 {
                streams.remove(&self.peer);
            }
        }
    }
}

impl Inner {
    /// Whether this peer's deals are taken.
    async fn allows(&self, peer: &PeerId) -> bool {
        let listed = match &*self.allow.read() {
            Allow::Anyone => return true,
            Allow::Listed(set) if set.has_peer(peer) => return true,
            Allow::Listed(set) => set.clone(),
        };
        let seen_at = self.node.ips_of(*peer).await.unwrap_or_default();
        seen_at.into_iter().any(|ip| listed.has_address(ip))
    }

    /// A deal, if the session may know of it.
    fn owned(&self, session: &ClientSession, deal: &DealId) -> Result<Entry, WireError> {
        let entry = self.store.entry(deal).filter(|entry| session.has(&entry.client));
        entry.ok_or_else(|| WireError::new(ErrorCode::NotFound, "no such deal"))
    }

    /// A deal that the session's own keys, or a permit, let it read; with `push`, let it fill.
    fn permitted(&self, session: &ClientSession, deal: &DealId, push: bool) -> Result<Entry, WireError> {
        let may = |entry: &Entry| {
            let (peer, now) = (self.node.peer_id().to_bytes(), self.env.clock.unix_seconds());
            let permit = session.permitted(&entry.client, &peer, now);
            permit.is_some_and(|permit| {
                permit.body().deals.is_none() && (!push || permit.body().place.is_some())
            })
        };
        let entry = self.store.entry(deal).filter(|entry| session.has(&entry.client) || may(entry));
        entry.ok_or_else(|| WireError::new(ErrorCode::NotFound, "no such deal"))
    }

    /// The same, if its slot is stored.
    fn stored(&self, session: &ClientSession, deal: &DealId) -> Result<Entry, WireError> {
        Self::is_stored(self.permitted(session, deal, false)?)
    }

    /// A deal that may be read, if its slot is stored; by a permit for ranges no others than these. The ranges lie in the slot.
    fn readable(
        &self,
        session: &ClientSession,
        deal: &DealId,
        ranges: &[ByteRange],
    ) -> Result<Entry, WireError> {
        let found = match self.stored(session, deal) {
            Err(error) if error.code == ErrorCode::NotFound.number() => error,
            other => return other,
        };
        let Some(entry) = self.store.entry(deal) else { return Err(found) };
        let (peer, now) = (self.node.peer_id().to_bytes(), self.env.clock.unix_seconds());
        let permit = session.permitted(&entry.client, &peer, now);
        let Some(permit) = permit.filter(|permit| permit.body().names(&deal.0)) else { return Err(found) };
        if !ranges.iter().all(|range| permit.body().reaches(&deal.0, range.offset, range.len)) {
            return Err(WireError::new(ErrorCode::Unauthorized, "the permit does not reach there"));
        }
        Self::is_stored(entry)
    }

    fn is_stored(entry: Entry) -> Result<Entry, WireError> {
        match entry.state {
            DealState::Stored => Ok(entry),
            DealState::Taken => Err(WireError::new(ErrorCode::NotStored, "the slot has not been stored")),
            DealState::Released => {
                Err(WireError::new(ErrorCode::Ended, "the deal was given up or has ended"))
            }
        }
    }

    /// Signs for a slot.
    fn receipt(&self, deal: DealId, entry: &Entry) -> Result<SignedReceipt, NetError> {
        let piece_cid = entry.piece.to_cid().map_err(|e| NetError::Local(e.to_string()))?;
        let body = ReceiptBody {
            version: DEAL_VERSION,
            suite: DEAL_SUITE,
            deal,
            piece_cid,
            raw_len: entry.raw_len,
            client: entry.client,
            provider: self.node.peer_id().to_bytes(),
            stored_at: self.env.clock.unix_seconds(),
        };
        SignedReceipt::sign(body, self.node.identity())
    }
}

/// Runs blocking work; a panic there is a storage error here.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, WireError> + Send + 'static,
) -> Result<T, WireError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(e) => {
            tracing::error!("a worker of the provider failed: {e}");
            Err(WireError::new(ErrorCode::Storage, "the provider failed"))
        }
    }
}

#[cfg(test)]
mod tests;
