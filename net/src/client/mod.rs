//! The client: sessions with providers.
//!
//! A [`Session`] is a handle that outlives connections: it dials when it is used, says hello, proves the keys it was
//! given, and opens data streams as they are wanted. When the link breaks it makes another, and repeats the call
//! that was cut once, which every request of the protocol allows. A provider that cannot be reached is asked again
//! after a pause that grows to some seconds; calls meanwhile fail at once.
//!
//! Where a [`Finder`] is given, a provider that cannot be reached where it was is looked for meanwhile, and the session goes on
//! at the address at which it is found. An address is kept only after a connection stood there.
//!
//! Every call ends by its deadline. A link on which a call waited in vain for some seconds while nothing at all moved, on no
//! stream, is given up with its connection; a slow answer beside a push costs nothing but the call.

mod audit;
mod carrier;
mod fetch;
mod lane;
mod link;
mod permits;
mod push;
mod records;
mod session;
mod whereabouts;

use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use libp2p::{Multiaddr, PeerId};
use parking_lot::Mutex;

use crate::env::Env;
use crate::error::NetError;
use crate::finder::Finder;
use crate::node::Node;

pub use audit::{Audit, AuditSpec, DrawnAudit};
use carrier::NodeCarrier;
pub use carrier::{Carrier, PushTimes, Wire, WireLimits};
pub use fetch::FETCH_WINDOW_BYTES;
pub use records::{ClaimAnswer, PutOutcome, Said};
pub use session::{Holding, HoldingsPage, Priority, Session, SessionState};

/// Times of a client.
#[derive(Debug, Clone)]
pub struct ClientConfig {
    /// To connect, say hello and prove keys.
    pub connect_timeout: Duration,
    /// Control requests.
    pub request_timeout: Duration,
    /// A link whose requests stay unanswered for so long, with nothing else moving on it, is given up when a call ends.
    pub silence_timeout: Duration,
    /// A push during which no byte could be sent, or whose next word does not come.
    pub push_stall_timeout: Duration,
    /// From a push's last byte to the receipt: the provider hashes and syncs.
    pub receipt_timeout: Duration,
    /// Broken connections that a push survives without having come any further.
    pub push_attempts_max: u32,
    /// The first pause after a failed connection; it doubles.
    pub backoff_min: Duration,
    /// The longest pause.
    pub backoff_max: Duration,
}

impl Default for ClientConfig {
    fn default() -> ClientConfig {
        ClientConfig {
            connect_timeout: Duration::from_secs(10),
            request_timeout: Duration::from_secs(20),
            silence_timeout: Duration::from_secs(10),
            push_stall_timeout: Duration::from_secs(60),
            receipt_timeout: Duration::from_secs(120),
            push_attempts_max: 4,
            backoff_min: Duration::from_millis(100),
            backoff_max: Duration::from_secs(5),
        }
    }
}

struct Inner {
    carrier: Arc<dyn Carrier>,
    node: Option<Node>,
    env: Env,
    config: ClientConfig,
    finder: Option<Finder>,
    sessions: Mutex<HashMap<PeerId, Weak<session::Inner>>>,
}

/// Talks to providers through a node. Clones are the same client.
#[derive(Clone)]
pub struct Client {
    inner: Arc<Inner>,
}

impl Client {
    /// A client over this node.
    pub fn new(node: Node, env: Env, config: ClientConfig) -> Client {
        Client::over_node(node, env, config, None)
    }

    /// The same, which looks for providers that are not where they were.
    pub fn with_finder(node: Node, env: Env, config: ClientConfig, finder: Finder) -> Client {
        Client::over_node(node, env, config, Some(finder))
    }

    /// A client over connections that are no node's.
    pub fn over(carrier: Arc<dyn Carrier>, env: Env, config: ClientConfig) -> Client {
        let inner = Inner { carrier, node: None, env, config, finder: None, sessions: Mutex::default() };
        Client { inner: Arc::new(inner) }
    }

    fn over_node(node: Node, env: Env, config: ClientConfig, finder: Option<Finder>) -> Client {
        let carrier = Arc::new(NodeCarrier { node: node.clone(), env: env.clone() });
        let inner = Inner { carrier, node: Some(node), env, config, finder, sessions: Mutex::default() };
        Client { inner: Arc::new(inner) }
    }

    /// As whom it connects.
    pub fn peer_id(&self) -> PeerId {
        self.inner.carrier.peer_id()
    }

    /// Ends the node below, if there is one.
    pub async fn shutdown(&self) {
        if let Some(node) = &self.inner.node {
            node.shutdown().await;
        }
    }

    /// What looks for providers that moved.
    pub fn finder(&self) -> Option<&Finder> {
        self.inner.finder.as_ref()
    }

    /// The node below; none where it is over other connections.
    pub fn node(&self) -> Option<&Node> {
        self.inner.node.as_ref()
    }

    /// The session with a provider: the same for everybody who asks while one of them keeps it. No I/O yet.
    /// Addresses, if any are given, replace the known ones.
    pub fn session(&self, peer: PeerId, addrs: Vec<Multiaddr>) -> Session {
        let mut sessions = self.inner.sessions.lock();
        if let Some(inner) = sessions.get(&peer).and_then(Weak::upgrade) {
            let session = Session::from_inner(inner);
            if !addrs.is_empty() {
                session.set_addrs(addrs);
            }
            return session;
        }
        sessions.retain(|_, s| s.strong_count() > 0);
        let (session, weak) = Session::create(
            self.inner.carrier.clone(),
            self.inner.env.clone(),
            self.inner.config.clone(),
            self.inner.finder.clone(),
            peer,
            addrs,
        );
        sessions.insert(peer, weak);
        session
    }

    /// The same, connected; where the provider is not where it was, it is looked for first.
    pub async fn connect(&self, peer: PeerId, addrs: Vec<Multiaddr>) -> Result<Session, NetError> {
        let session = self.session(peer, addrs);
        match session.ensure_connected().await {
            Ok(()) => Ok(session),
            Err(error) if session.locate().await => match session.ensure_connected().await {
                Ok(()) => Ok(session),
                Err(_) => Err(error),
            },
            Err(error) => Err(error),
        }
    }

    /// A session on a connection of its own, under a peer id that is thrown away with it: the provider cannot tell
    /// it from a stranger until a key is proven. For checking that what was stored is really served.
    pub async fn connect_fresh(&self, peer: PeerId, addrs: Vec<Multiaddr>) -> Result<Session, NetError> {
        let carrier = self.inner.carrier.fresh().await?;
        let (session, _) =
            Session::create(carrier, self.inner.env.clone(), self.inner.config.clone(), None, peer, addrs);
        session.ensure_connected().await?;
        Ok(session)
    }
}
