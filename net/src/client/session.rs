//! What can be asked of one provider.

use std::future::Future;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use ed25519_dalek::SigningKey;
use libp2p::{Multiaddr, PeerId};
use parking_lot::Mutex;
use tokio::time::Instant;

use super::carrier::{Carrier, Wire};
use super::link::unexpected;
use super::whereabouts::Whereabouts;
use super::{ClientConfig, permits};
use crate::deal::{ByteRange, DealId, SignedAnswer, SignedProposal, SignedReceipt};
use crate::env::Env;
use crate::error::{ErrorCode, NetError};
use crate::finder::Finder;
use crate::manifest::SignedManifest;
use crate::permit::SignedPermit;
use crate::tags::Tags;
use crate::wire::limits::HOLDINGS_MAX;
use crate::wire::message::{DataRequest, HoldingWire, Lane as LaneKind, ProviderInfo, Reply, Request};

/// Dials of one attempt to connect, where the connection goes away again at once.
const DIALS_MAX: u32 = 3;
/// Links that one request is asked over, where each ends under it: while a direct way is found, connections come and go.
const LINKS_MAX: u32 = 3;

/// Who waits for a read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Priority {
    /// A person or a program: a stream of its own.
    Interactive,
    /// Nobody: restore, repair, readahead.
    Bulk,
}

impl From<Priority> for LaneKind {
    fn from(priority: Priority) -> LaneKind {
        match priority {
            Priority::Interactive => LaneKind::Interactive,
            Priority::Bulk => LaneKind::Bulk,
        }
    }
}

/// How a session stands.
#[derive(Debug, Clone)]
pub enum SessionState {
    /// Never used, or closed.
    Idle,
    /// Linked.
    Connected,
    /// The last attempts failed.
    Failing {
        /// How many in a row.
        failures: u32,
        /// The last one.
        error: NetError,
    },
}

/// A deal that the provider keeps for us.
#[derive(Debug, Clone)]
pub struct Holding {
    /// What was agreed.
    pub proposal: SignedProposal,
    /// How the piece was cut; signed by whom it names, which the owner must check.
    pub manifest: SignedManifest,
    /// There once the slot is stored.
    pub receipt: Option<SignedReceipt>,
}

/// Some of the deals, in order of their ids.
#[derive(Debug, Clone)]
pub struct HoldingsPage {
    /// The deals.
    pub holdings: Vec<Holding>,
    /// Where to go on, if there are more.
    pub next: Option<DealId>,
}

struct Backoff {
    failures: u32,
    not_before: Option<Instant>,
    error: Option<NetError>,
}

pub(super) struct Inner {
    pub(super) carrier: Arc<dyn Carrier>,
    pub(super) env: Env,
    pub(super) config: ClientConfig,
    pub(super) peer: PeerId,
    whereabouts: Whereabouts,
    keys: Mutex<Vec<SigningKey>>,
    pub(super) permits: Mutex<Vec<SignedPermit>>,
    link: tokio::sync::Mutex<Option<Arc<dyn Wire>>>,
    current: Mutex<Option<Weak<dyn Wire>>>,
    backoff: Mutex<Backoff>,
    /// The last link was given up for its silence.
    silent: AtomicBool,
}

/// A provider, as a client sees it. Clones are the same session.
#[derive(Clone)]
pub struct Session {
    pub(super) inner: Arc<Inner>,
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Session({})", self.inner.peer)
    }
}

impl Session {
    pub(super) fn create(
        carrier: Arc<dyn Carrier>,
        env: Env,
        config: ClientConfig,
        finder: Option<Finder>,
        peer: PeerId,
        addrs: Vec<Multiaddr>,
    ) -> (Session, Weak<Inner>) {
        let inner = Arc::new(Inner {
            carrier,
            env,
            config,
            peer,
            whereabouts: Whereabouts::new(peer, addrs, finder),
            keys: Mutex::default(),
            permits: Mutex::default(),
            link: tokio::sync::Mutex::default(),
            current: Mutex::new(None),
            backoff: Mutex::new(Backoff { failures: 0, not_before: None, error: None }),
            silent: AtomicBool::new(false),
        });
        let weak = Arc::downgrade(&inner);
        (Session { inner }, weak)
    }

    pub(super) fn from_inner(inner: Arc<Inner>) -> Session {
        Session { inner }
    }

    /// Whose session it is.
    pub fn peer_id(&self) -> PeerId {
        self.inner.peer
    }

    /// Where to dial from now on; lifts the pause after failures.
    pub fn set_addrs(&self, addrs: Vec<Multiaddr>) {
        if self.inner.whereabouts.set(addrs) {
            self.lift_backoff();
        }
    }

    /// Where it is dialled: the address at which a connection stood last comes first.
    pub fn addrs(&self) -> Vec<Multiaddr> {
        self.inner.whereabouts.known()
    }

    /// Looks for the provider; whether it may be somewhere else than was known.
    pub(super) async fn locate(&self) -> bool {
        let news = self.inner.whereabouts.locate().await;
        if news {
            self.lift_backoff();
        }
        news
    }

    fn lift_backoff(&self) {
        self.inner.backoff.lock().not_before = None;
    }

    /// How it stands, without asking anybody.
    pub fn state(&self) -> SessionState {
        let current = self.inner.current.lock().as_ref().and_then(Weak::upgrade);
        if current.is_some_and(|link| link.is_open()) {
            return SessionState::Connected;
        }
        let backoff = self.inner.backoff.lock();
        match &backoff.error {
            Some(error) => SessionState::Failing { failures: backoff.failures, error: error.clone() },
            None => SessionState::Idle,
        }
    }

    /// Connects, if it is not connected; also during the pause after a failure.
    pub async fn ensure_connected(&self) -> Result<(), NetError> {
        self.lift_backoff();
        let timeout = self.inner.config.connect_timeout;
        self.link(Instant::now() + timeout, timeout).await.map(|_| ())
    }

    /// Ends the link; the next call makes another.
    pub async fn close(&self) {
        if let Some(link) = self.inner.link.lock().await.take() {
            link.close();
        }
    }

    /// What the provider takes.
    pub async fn info(&self) -> Result<ProviderInfo, NetError> {
        match self.call(Request::Info {}).await? {
            Reply::Info(info) => Ok(info),
            _ => Err(unexpected("info")),
        }
    }

    /// Where the provider says that it belongs. One of an older version does not know the question.
    pub async fn tags(&self) -> Result<Tags, NetError> {
        match self.call(Request::Tags {}).await? {
            Reply::Tags(tags) if tags.is_valid() => Ok(tags),
            _ => Err(unexpected("tags")),
        }
    }

    /// Proves a key, now and on every later link.
    pub async fn authenticate(&self, key: SigningKey) -> Result<(), NetError> {
        {
            let mut keys = self.inner.keys.lock();
            if !keys.contains(&key) {
                keys.push(key.clone());
            }
        }
        let timeout = self.inner.config.request_timeout;
        self.with_link(timeout, |link| {
            let key = key.clone();
            async move { link.authenticate(&key).await }
        })
        .await
    }

    /// Offers a deal; the answer's signature was verified. Repeating it is harmless.
    pub async fn propose(
        &self,
        proposal: &SignedProposal,
        manifest: &[u8],
    ) -> Result<SignedAnswer, NetError> {
        let request = Request::Propose { proposal: proposal.to_bytes(), manifest: manifest.to_vec() };
        match self.call(request).await? {
            Reply::Answer { answer } => Ok(SignedAnswer::from_bytes(&answer, proposal)?),
            _ => Err(unexpected("propose")),
        }
    }

    /// The deal's receipt, if the slot is stored.
    pub async fn receipt(&self, proposal: &SignedProposal) -> Result<Option<SignedReceipt>, NetError> {
        match self.call(Request::Receipt { deal: proposal.deal_id() }).await {
            Ok(Reply::Receipt { receipt }) => verified_receipt(&receipt, proposal).map(Some),
            Ok(_) => Err(unexpected("receipt")),
            Err(e) if e.code() == Some(ErrorCode::NotStored) => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// Ranges of a slot, in order, as stored (masked). Whole or an error.
    pub async fn read(
        &self,
        deal: DealId,
        ranges: &[ByteRange],
        priority: Priority,
        deadline: Duration,
    ) -> Result<Vec<Bytes>, NetError> {
        if ranges.iter().any(|r| r.len == 0 || r.end().is_none()) {
            return Err(NetError::Invalid("an empty or endless range".into()));
        }
        let ranges: Arc<[ByteRange]> = ranges.into();
        self.with_link(deadline, |link| {
            let ranges = ranges.clone();
            async move { read_over(link.as_ref(), deal, &ranges, priority.into()).await }
        })
        .await
    }

    /// Deals of the keys proven in this session, beginning after `after`; each was verified.
    pub async fn holdings(&self, after: Option<DealId>) -> Result<HoldingsPage, NetError> {
        match self.call(Request::Holdings { after, max: HOLDINGS_MAX }).await? {
            Reply::Holdings { list, next } => {
                let holdings =
                    list.into_iter().map(|h| self.verified_holding(h)).collect::<Result<Vec<_>, _>>()?;
                let ascending = holdings.is_sorted_by(|a, b| a.proposal.deal_id() < b.proposal.deal_id());
                let last = holdings.last().map(|h| h.proposal.deal_id());
                // A list that does not move forward would be asked for ever.
                if !ascending || (next.is_some() && (next != last || last <= after)) {
                    return Err(NetError::Protocol("holdings out of order".into()));
                }
                Ok(HoldingsPage { holdings, next })
            }
            _ => Err(unexpected("holdings")),
        }
    }

    fn verified_holding(&self, wire: HoldingWire) -> Result<Holding, NetError> {
        let proposal = SignedProposal::from_bytes(&wire.proposal)?;
        if proposal.deal_id() != wire.deal || proposal.provider()? != self.inner.peer {
            return Err(NetError::Protocol("a holding under another deal's name".into()));
        }
        if crate::deal::manifest_digest(&wire.manifest) != proposal.proposal().manifest {
            return Err(NetError::Protocol("a holding with another manifest".into()));
        }
        let manifest = SignedManifest::from_bytes(&wire.manifest)?;
        let receipt = wire.receipt.map(|r| verified_receipt(&r, &proposal)).transpose()?;
        Ok(Holding { proposal, manifest, receipt })
    }

    /// Gives a deal up; its slot is deleted. Repeating it is harmless.
    pub async fn release(&self, deal: DealId) -> Result<(), NetError> {
        match self.call(Request::Release { deal }).await? {
            Reply::Ok {} => Ok(()),
            _ => Err(unexpected("release")),
        }
    }

    pub(super) async fn call(&self, request: Request) -> Result<Reply, NetError> {
        self.call_within(request, self.inner.config.request_timeout).await
    }

    pub(super) async fn call_within(&self, request: Request, deadline: Duration) -> Result<Reply, NetError> {
        let request = Arc::new(request);
        self.with_link(deadline, |link| {
            let request = request.clone();
            async move { link.call(&request).await }
        })
        .await
    }

    /// Runs a request on the link, making one if need be; once more when the link broke under it.
    pub(super) async fn with_link<T, F, Fut>(&self, timeout: Duration, run: F) -> Result<T, NetError>
    where
        F: Fn(Arc<dyn Wire>) -> Fut,
        Fut: Future<Output = Result<T, NetError>>,
    {
        let deadline = Instant::now() + timeout;
        for links in 1..=LINKS_MAX {
            let link = self.link(deadline, timeout).await?;
            link.asked();
            match tokio::time::timeout_at(deadline, run(link.clone())).await {
                Err(_) => {
                    if link.silent() >= self.inner.config.silence_timeout {
                        self.give_up(link.as_ref());
                    }
                    return Err(NetError::Timeout(timeout));
                }
                Ok(Err(NetError::Disconnected(_))) if links < LINKS_MAX => {}
                // No stream of a peer that is mad is of use any more.
                Ok(Err(e @ NetError::Protocol(_))) => {
                    link.close();
                    return Err(e);
                }
                Ok(result) => return result,
            }
        }
        Err(NetError::Closed)
    }

    /// Silent where something should have come. The connection may be dead, which pings would show within a minute: whoever
    /// makes the next link closes it before.
    fn give_up(&self, link: &dyn Wire) {
        link.close();
        self.inner.silent.store(true, Ordering::Relaxed);
    }

    pub(super) async fn link(&self, deadline: Instant, timeout: Duration) -> Result<Arc<dyn Wire>, NetError> {
        let connect = async {
            let mut slot = self.inner.link.lock().await;
            if let Some(link) = slot.as_ref().filter(|link| link.is_open()) {
                return Ok(link.clone());
            }
            self.check_backoff()?;
            let result = self.connect().await;
            self.note(&result);
            let link = result?;
            *self.inner.current.lock() = Some(Arc::downgrade(&link));
            *slot = Some(link.clone());
            Ok(link)
        };
        match tokio::time::timeout_at(deadline, connect).await {
            Ok(result) => result,
            Err(_) => {
                let error = NetError::Timeout(timeout);
                self.note(&Err(error.clone()));
                Err(error)
            }
        }
    }

    async fn connect(&self) -> Result<Arc<dyn Wire>, NetError> {
        let timeout = self.inner.config.connect_timeout;
        let addrs = self.inner.whereabouts.to_dial();
        let connecting = async {
            if self.inner.silent.swap(false, Ordering::Relaxed) {
                self.inner.carrier.disconnect(self.inner.peer).await?;
            }
            for links in 1..=LINKS_MAX {
                let link = self.dial_and_open(&addrs, timeout).await?;
                match self.introduce(&link).await {
                    Err(NetError::Disconnected(_)) if links < LINKS_MAX => {}
                    introduced => return introduced.map(|()| link),
                }
            }
            Err(NetError::Closed)
        };
        tokio::time::timeout(timeout, connecting).await.map_err(|_| NetError::Timeout(timeout))?
    }

    /// Proves the keys and shows the permits of this session.
    async fn introduce(&self, link: &Arc<dyn Wire>) -> Result<(), NetError> {
        let keys = self.inner.keys.lock().clone();
        for key in &keys {
            link.authenticate(key).await?;
        }
        let permits = self.inner.permits.lock().clone();
        permits::present_again(link.as_ref(), &permits).await
    }

    /// A connection that stood when it was asked for may close before a stream is opened on it: its peer restarts.
    async fn dial_and_open(&self, addrs: &[Multiaddr], timeout: Duration) -> Result<Arc<dyn Wire>, NetError> {
        let (carrier, peer) = (&self.inner.carrier, self.inner.peer);
        let mut dials = 1;
        loop {
            self.inner.whereabouts.stood_at(carrier.dial(peer, addrs, timeout).await?);
            match carrier.open(peer).await {
                Err(NetError::Disconnected(_))
                    if dials < DIALS_MAX && !carrier.is_connected(peer).await? =>
                {
                    dials += 1;
                }
                result => return result,
            }
        }
    }

    fn check_backoff(&self) -> Result<(), NetError> {
        let backoff = self.inner.backoff.lock();
        match (&backoff.not_before, &backoff.error) {
            (Some(time), Some(error)) if Instant::now() < *time => Err(error.clone()),
            _ => Ok(()),
        }
    }

    fn note(&self, result: &Result<Arc<dyn Wire>, NetError>) {
        let mut backoff = self.inner.backoff.lock();
        match result {
            Ok(_) => *backoff = Backoff { failures: 0, not_before: None, error: None },
            Err(error) => {
                self.look_elsewhere(error);
                let config = &self.inner.config;
                let factor = 1u32 << backoff.failures.min(10);
                let pause = config.backoff_min.saturating_mul(factor).min(config.backoff_max);
                backoff.failures = backoff.failures.saturating_add(1);
                backoff.not_before = Some(Instant::now() + pause);
                backoff.error = Some(error.clone());
            }
        }
    }
}

impl Session {
    /// Not where it was: it is looked for beside whatever else goes on. Who calls meanwhile fails as before.
    fn look_elsewhere(&self, error: &NetError) {
        let lost =
            matches!(error, NetError::Unreachable(_) | NetError::Timeout(_) | NetError::Disconnected(_));
        if !lost || !self.inner.whereabouts.can_ask() {
            return;
        }
        let inner = Arc::downgrade(&self.inner);
        tokio::spawn(async move {
            if let Some(inner) = inner.upgrade() {
                Session::from_inner(inner).locate().await;
            }
        });
    }
}

pub(super) fn verified_receipt(bytes: &[u8], proposal: &SignedProposal) -> Result<SignedReceipt, NetError> {
    let receipt = SignedReceipt::from_bytes(bytes)?;
    receipt.matches(proposal)?;
    Ok(receipt)
}

/// One read, cut into as many requests as the provider's limits ask for, all under way at once.
async fn read_over(
    link: &dyn Wire,
    deal: DealId,
    ranges: &[ByteRange],
    lane: LaneKind,
) -> Result<Vec<Bytes>, NetError> {
    let batches = super::fetch::batches(ranges, link.limits().ranges, link.limits().read_bytes);
    let reads = batches.into_iter().map(|batch| async move {
        let wants: Vec<usize> = batch.iter().map(|r| r.len as usize).collect();
        link.read(lane, &DataRequest::Read { deal, ranges: batch }, &wants).await
    });
    let parts: Vec<Bytes> = futures::future::try_join_all(reads).await?.into_iter().flatten().collect();
    Ok(super::fetch::rejoin(ranges, parts))
}
