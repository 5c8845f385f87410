//! Looking up peers and records for somebody who serves nobody.
//!
//! Every look-up runs on a node of its own under a throw-away identity, which is gone afterwards: the DHT's nodes see that
//! somebody asks, not which machine of which owner; and the connections that carry data never come from it, so that the
//! DHT's dials do not decide over which way they go.
//!
//! ```text
//!   locate   a peer id ──► mDNS, the DHT ──► addresses that somebody says it has     (dialling shows whether they are right)
//!   holders  a record ───► the DHT ────────► peers that say they keep it             (asking shows whether they do)
//!   nearby   ────────────► mDNS ───────────► whoever answers on the local network
//! ```
//!
//! Promises: every look-up ends within [`LOOKUP_TIMEOUT`]; few run at once; a peer that was not found is not looked for
//! again for some seconds. Refuses to believe: nothing that is found is more than a hint.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use libp2p::{Multiaddr, PeerId};
use parking_lot::Mutex;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use crate::addresses::PeerAddrs;
use crate::env::Env;
use crate::error::NetError;
use crate::identity;
use crate::node::{DhtKey, DhtRole, Discovery, Node, NodeConfig};

/// From the question to the answer.
pub const LOOKUP_TIMEOUT: Duration = Duration::from_secs(25);
/// Holders of a record that are looked for.
pub const HOLDERS_MAX: usize = 16;
/// Whoever is near and awake has answered by then.
const NEARBY_PATIENCE: Duration = Duration::from_millis(2500);
const NEARBY_LOOK: Duration = Duration::from_millis(100);
/// Peers to begin with that are remembered.
const BOOTSTRAP_MAX: usize = 1024;
/// Look-ups at once.
const LOOKUPS_MAX: usize = 2;
/// A peer that was looked for is not looked for again for so long.
const AGAIN: Duration = Duration::from_secs(15);
/// Peers of which that is remembered.
const ASKED_MAX: usize = 4096;

struct Inner {
    env: Env,
    mdns: bool,
    bootstrap: Mutex<Vec<PeerAddrs>>,
    turns: Semaphore,
    asked: Mutex<HashMap<PeerId, Instant>>,
}

/// See the module. Clones are the same one.
#[derive(Clone)]
pub struct Finder {
    inner: Arc<Inner>,
}

impl Finder {
    /// Nothing is asked yet. `bootstrap` are peers of the DHT to begin with, `mdns` whether the local network is asked.
    pub fn new(env: Env, bootstrap: Vec<PeerAddrs>, mdns: bool) -> Finder {
        let inner = Inner {
            env,
            mdns,
            bootstrap: Mutex::new(bootstrap),
            turns: Semaphore::new(LOOKUPS_MAX),
            asked: Mutex::default(),
        };
        Finder { inner: Arc::new(inner) }
    }

    /// More peers to begin with; of one that is there already these are the addresses.
    pub fn add_bootstrap(&self, more: impl IntoIterator<Item = PeerAddrs>) {
        let mut bootstrap = self.inner.bootstrap.lock();
        for new in more {
            if let Some(known) = bootstrap.iter_mut().find(|known| known.peer == new.peer) {
                *known = new;
            } else if bootstrap.len() < BOOTSTRAP_MAX {
                bootstrap.push(new);
            }
        }
    }

    /// Whether there is anybody to ask.
    pub fn can_ask(&self) -> bool {
        self.inner.mdns || !self.inner.bootstrap.lock().is_empty()
    }

    /// Where a peer is said to be now. Empty where nobody knows it, and when it was looked for moments ago.
    pub async fn locate(&self, peer: PeerId) -> Result<Vec<Multiaddr>, NetError> {
        if !self.can_ask() || !self.may_ask(peer) {
            return Ok(Vec::new());
        }
        let looking = async {
            // A look-up that begins with the peer itself, where it is not, takes it for gone whatever others say.
            let (_turn, node) = self.node(Some(peer)).await?;
            let found = node.find_peer(peer).await;
            let found = match found {
                Ok(addrs) if addrs.is_empty() && self.inner.mdns => self.near(&node, peer).await,
                found => found,
            };
            node.shutdown().await;
            found
        };
        tokio::time::timeout(LOOKUP_TIMEOUT, looking).await.map_err(|_| NetError::Timeout(LOOKUP_TIMEOUT))?
    }

    /// Peers that say they keep a record, and where they are said to be.
    pub async fn holders(&self, key: DhtKey) -> Result<Vec<PeerAddrs>, NetError> {
        let looking = async {
            let (_turn, node) = self.node(None).await?;
            let peers = node.find_holders(key, HOLDERS_MAX).await?;
            let found = futures::stream::iter(peers)
                .map(|peer| {
                    let node = node.clone();
                    async move { PeerAddrs::new(peer, node.find_peer(peer).await.unwrap_or_default()) }
                })
                .buffer_unordered(HOLDERS_MAX);
            let found: Vec<PeerAddrs> =
                found.filter(|p| std::future::ready(!p.addrs.is_empty())).collect().await;
            node.shutdown().await;
            Ok::<_, NetError>(found)
        };
        tokio::time::timeout(LOOKUP_TIMEOUT, looking).await.map_err(|_| NetError::Timeout(LOOKUP_TIMEOUT))?
    }

    /// Whoever answers on the local network, of whatever kind.
    pub async fn nearby(&self) -> Result<Vec<PeerAddrs>, NetError> {
        if !self.inner.mdns {
            return Ok(Vec::new());
        }
        let (_turn, node) = self.node(None).await?;
        tokio::time::sleep(NEARBY_PATIENCE).await;
        let found = node.nearby().await;
        node.shutdown().await;
        found
    }

    async fn near(&self, node: &Node, wanted: PeerId) -> Result<Vec<Multiaddr>, NetError> {
        let start = Instant::now();
        while start.elapsed() < NEARBY_PATIENCE {
            let near = node.nearby().await?;
            if let Some(found) = near.into_iter().find(|near| near.peer == wanted) {
                return Ok(found.addrs);
            }
            tokio::time::sleep(NEARBY_LOOK).await;
        }
        Ok(Vec::new())
    }

    fn may_ask(&self, peer: PeerId) -> bool {
        let mut asked = self.inner.asked.lock();
        let now = Instant::now();
        if asked.len() >= ASKED_MAX {
            asked.retain(|_, at| now.duration_since(*at) < AGAIN);
        }
        let may = asked.get(&peer).is_none_or(|at| now.duration_since(*at) >= AGAIN);
        if may {
            asked.insert(peer, now);
        }
        may
    }

    async fn node(
        &self,
        sought: Option<PeerId>,
    ) -> Result<(tokio::sync::SemaphorePermit<'_>, Node), NetError> {
        let turn = self.inner.turns.acquire().await.map_err(|_| NetError::Closed)?;
        let mut bootstrap = self.inner.bootstrap.lock().clone();
        bootstrap.retain(|known| Some(known.peer) != sought);
        let discovery =
            Discovery { dht: DhtRole::Client, bootstrap, mdns: self.inner.mdns, ..Discovery::default() };
        let identity = identity::keypair(self.inner.env.random())?;
        let node = Node::start(NodeConfig::client(identity).with_discovery(discovery)).await?;
        Ok((turn, node))
    }
}
