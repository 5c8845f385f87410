//! The drive's sessions with its providers, and what was measured of each.
//!
//! Owns one shared session for each provider, authenticated with the key that the drive made for that provider; or with that of a
//! private link, whose permits are shown then.
//! Promises: a provider that fails is asked later than the others within seconds; one good answer brings it back; one that is
//! found at another address than it was is told of, once, when a connection has stood there.
//! Refuses to decide whether a provider is lost: the ledger and the audit worker do.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use data_encoding::HEXLOWER;
use holdfast_content::keys::DriveKeys;
use holdfast_net::client::{Client, Session};
use holdfast_net::{Multiaddr, NetError, PeerAddrs, PeerId, SignedPermit, SigningKey};
use parking_lot::Mutex;

use super::ledger::{Ledger, Peer};

mod pace;

use pace::{Begun, Pace};

/// A provider that failed is passed over for reads for so long, if another one has the bytes.
const DEMOTED: Duration = Duration::from_secs(10);
/// Who answered so lately counts as connected.
const CONNECTED: Duration = Duration::from_secs(120);
/// A peer id's text when its bytes are no peer id.
fn raw_text(peer: &[u8]) -> String {
    HEXLOWER.encode(peer)
}

/// The usual text form of a peer id.
pub fn peer_text(peer: &Peer) -> String {
    PeerId::from_bytes(peer).map_or_else(|_| raw_text(peer), |p| p.to_string())
}

/// A peer id short enough for a sentence, long enough to be found in the list.
pub fn peer_short(peer: &Peer) -> String {
    let text = peer_text(peer);
    let cut = text.len().saturating_sub(8);
    format!("…{}", text.get(cut..).unwrap_or(&text))
}

#[derive(Clone)]
struct Link {
    session: Session,
    /// Where the drive knows it to be.
    addrs: Vec<Multiaddr>,
    authenticated: bool,
    failed_at: Option<Instant>,
    last_ok: Option<Instant>,
}

/// As who providers are asked.
enum Whose {
    /// The drive's owner: a key for each provider.
    Drive(Arc<DriveKeys>),
    /// Somebody who has a private link: one key, and what it may read.
    Link { holder: SigningKey, permits: HashMap<Peer, Vec<SignedPermit>> },
}

/// A read under way, as its provider's pace counts it.
#[must_use]
pub struct Asking {
    pace: Arc<Mutex<Pace>>,
    begun: Option<Begun>,
    started: Instant,
}

impl Asking {
    /// All of it is here.
    pub fn answered(mut self) {
        if let Some(begun) = self.begun.take() {
            self.pace.lock().answered(begun, self.started.elapsed(), Instant::now());
        }
    }
}

impl Drop for Asking {
    fn drop(&mut self) {
        if let Some(begun) = self.begun.take() {
            self.pace.lock().ended(begun, self.started.elapsed(), Instant::now());
        }
    }
}

/// Every provider's session.
pub struct Peers {
    client: Client,
    whose: Whose,
    links: Mutex<HashMap<Peer, Link>>,
    /// How quick each is; kept when its link is made anew.
    paces: Mutex<HashMap<Peer, Arc<Mutex<Pace>>>>,
    /// Watchers may place slots of this drive: their deals are under a key of their own.
    watched: AtomicBool,
}

impl Peers {
    /// Nothing is dialled yet.
    pub fn new(client: Client, keys: Arc<DriveKeys>) -> Self {
        Self::of(client, Whose::Drive(keys))
    }

    /// For whoever has a private link.
    pub fn of_link(client: Client, holder: SigningKey, permits: HashMap<Peer, Vec<SignedPermit>>) -> Self {
        Self::of(client, Whose::Link { holder, permits })
    }

    fn of(client: Client, whose: Whose) -> Self {
        Self {
            client,
            whose,
            links: Mutex::default(),
            paces: Mutex::default(),
            watched: AtomicBool::new(false),
        }
    }

    /// The node's client, for connections beside the shared ones.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// The key that this drive shows to that provider and to nobody else.
    pub fn key_for(&self, peer: &Peer) -> SigningKey {
        match &self.whose {
            Whose::Drive(keys) => keys.provider_auth(peer),
            Whose::Link { holder, .. } => holder.clone(),
        }
    }

    /// The shared session, proven once; it reconnects and proves itself again by itself.
    pub async fn session(&self, ledger: &Ledger, peer: &Peer) -> Result<Session, NetError> {
        let row = ledger.provider(peer).ok_or_else(|| NetError::Invalid("unknown provider".into()))?;
        let (session, authenticated) = {
            let mut links = self.links.lock();
            match links.get(peer) {
                Some(link) => (link.session.clone(), link.authenticated),
                None => {
                    let (id, addrs) = parse(peer, &row.addrs)?;
                    let session = self.client.session(id, addrs.clone());
                    links.insert(peer.clone(), Link::new(session.clone(), addrs));
                    (session, false)
                }
            }
        };
        if !authenticated {
            self.prove(&session, peer).await.inspect_err(|_| self.failed(peer))?;
            if let Some(link) = self.links.lock().get_mut(peer) {
                link.authenticated = true;
            }
        }
        Ok(session)
    }

    /// A session over a connection of its own, which shares nothing with the shared one: for the re-check.
    pub async fn fresh(&self, ledger: &Ledger, peer: &Peer) -> Result<Session, NetError> {
        let row = ledger.provider(peer).ok_or_else(|| NetError::Invalid("unknown provider".into()))?;
        let (id, addrs) = parse(peer, &row.addrs)?;
        let session = self.client.connect_fresh(id, addrs).await?;
        self.prove(&session, peer).await?;
        Ok(session)
    }

    async fn prove(&self, session: &Session, peer: &Peer) -> Result<(), NetError> {
        session.authenticate(self.key_for(peer)).await?;
        match &self.whose {
            Whose::Drive(keys) if self.watched.load(Ordering::Relaxed) => {
                session.authenticate(keys.watch().client()).await
            }
            Whose::Drive(_) => Ok(()),
            Whose::Link { permits, .. } => {
                for permit in permits.get(peer).into_iter().flatten() {
                    session.present(permit.clone()).await?;
                }
                Ok(())
            }
        }
    }

    /// From now on sessions prove the key of watchers' deals as well.
    pub fn set_watched(&self) {
        if !self.watched.swap(true, Ordering::Relaxed) {
            self.links.lock().values_mut().for_each(|link| link.authenticated = false);
        }
    }

    /// Addresses changed: the next session is made anew.
    pub fn forget(&self, peer: &Peer) {
        self.links.lock().remove(peer);
    }

    /// Addresses of a provider that stood a connection elsewhere than where it was known to be, that one first; told once.
    pub fn moved(&self, peer: &Peer) -> Option<Vec<String>> {
        let mut links = self.links.lock();
        let link = links.get_mut(peer)?;
        let addrs = link.session.addrs();
        if addrs == link.addrs {
            return None;
        }
        link.addrs = addrs.clone();
        Some(addrs.iter().map(ToString::to_string).collect())
    }

    /// A read or a call failed.
    pub fn failed(&self, peer: &Peer) {
        if let Some(link) = self.links.lock().get_mut(peer) {
            link.failed_at = Some(Instant::now());
        }
    }

    /// Smaller is better: recently failed last, then by when `bytes` that are asked for now should be here; a peer not measured yet goes first once.
    pub fn rank(&self, peer: &Peer, bytes: u64) -> (bool, Duration) {
        let demoted = self.links.lock().get(peer).and_then(|link| link.failed_at);
        let demoted = demoted.is_some_and(|at| at.elapsed() < DEMOTED);
        let expected = self.pace(peer).lock().expected(bytes, Instant::now());
        (demoted, Duration::try_from_secs_f64(expected).unwrap_or(Duration::MAX))
    }

    fn pace(&self, peer: &Peer) -> Arc<Mutex<Pace>> {
        self.paces.lock().entry(peer.clone()).or_default().clone()
    }

    /// A read of so many bytes begins. Dropped without [`Asking::answered`] it was given up.
    pub fn asking(&self, peer: &Peer, bytes: u64) -> Asking {
        let (pace, started) = (self.pace(peer), Instant::now());
        let begun = pace.lock().begin(bytes, started);
        Asking { pace, begun: Some(begun), started }
    }

    /// After this time a read of so many bytes that is asked for now would be later than usual with this provider.
    pub fn late(&self, peer: &Peer, bytes: u64) -> Duration {
        self.pace(peer).lock().late(bytes, Instant::now())
    }

    /// It answered.
    pub fn heard(&self, peer: &Peer) {
        if let Some(link) = self.links.lock().get_mut(peer) {
            link.last_ok = Some(Instant::now());
            link.failed_at = None;
        }
    }

    /// Whether it answered within the last `time` and did not fail since.
    pub fn heard_within(&self, peer: &Peer, time: Duration) -> bool {
        let links = self.links.lock();
        links
            .get(peer)
            .is_some_and(|l| l.failed_at.is_none() && l.last_ok.is_some_and(|t| t.elapsed() < time))
    }

    /// Whether it answered within the last two minutes and did not fail since.
    pub fn is_connected(&self, peer: &Peer) -> bool {
        self.heard_within(peer, CONNECTED)
    }
}

impl Link {
    fn new(session: Session, addrs: Vec<Multiaddr>) -> Self {
        Self { session, addrs, authenticated: false, failed_at: None, last_ok: None }
    }
}

/// A provider as peers of the DHT are named; none where nothing of it can be dialled.
pub fn whereabouts(peer: &Peer, addrs: &[String]) -> Option<PeerAddrs> {
    let (peer, addrs) = parse(peer, addrs).ok()?;
    Some(PeerAddrs::new(peer, addrs)).filter(|known| !known.addrs.is_empty())
}

fn parse(peer: &Peer, addrs: &[String]) -> Result<(PeerId, Vec<Multiaddr>), NetError> {
    let id = PeerId::from_bytes(peer).map_err(|e| NetError::Invalid(format!("peer id: {e}")))?;
    let addrs: Vec<Multiaddr> = addrs.iter().filter_map(|a| a.parse().ok()).collect();
    if addrs.is_empty() {
        return Err(NetError::Unreachable("no usable address is known".into()));
    }
    Ok((id, addrs))
}
