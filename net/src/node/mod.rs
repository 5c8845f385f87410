//! The libp2p node: an identity, listeners, connections, and a part in finding peers.
//!
//! ```text
//!   swarm     transports and behaviours        task      the loop that owns them
//!   dialing   one peer over several ways       dht       looking up and announcing; `index` is what is kept for others
//!   nat       being reached from behind one
//!   nearby    who was seen by mDNS             gate      who may come in, and how many
//! ```
//!
//! One task owns the swarm; everything else talks to it through bounded channels. A connection whose peer stops
//! answering pings is closed, so no stream outlives a dead peer by more than about a minute.

mod buffered;
mod dht;
mod dialing;
mod gate;
mod index;
mod nat;
mod nearby;
mod swarm;
mod task;
mod text;

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use libp2p::identity::Keypair;
use libp2p::multiaddr::Protocol;
use libp2p::{Multiaddr, PeerId, StreamProtocol};
use libp2p_stream::IncomingStreams;
use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use crate::addresses::PeerAddrs;
use crate::bitswap::BITSWAP_PROTOCOL;
use crate::error::NetError;
use crate::peer_set::PeerSet;
use crate::wire::{CONTROL_PROTOCOL, DATA_PROTOCOL};

pub use dht::{ANNOUNCED_MAX, DHT_KEY_BYTES, DHT_PROTOCOL, DhtKey, DhtRole, QUERY_TIMEOUT};
pub use index::DhtLimits;
pub use nat::Reachable;

/// How identify names the protocol family.
const IDENTIFY_PROTOCOL: &str = "/holdfast/1";
/// Program and version, as peers see it in logs.
pub const AGENT: &str = concat!("holdfast/", env!("CARGO_PKG_VERSION"));
const LISTEN_TIMEOUT: Duration = Duration::from_secs(10);
const COMMANDS_MAX: usize = 64;
/// The connection's receive window (yamux), 1 GiB, divided by the 256 KiB that a stream begins with.
const FOREIGN_STREAMS_MAX: usize = 4096;

/// What strangers and friends may cause.
#[derive(Debug, Clone)]
pub struct NodeLimits {
    /// Connections opened by others.
    pub incoming_connections_max: u32,
    /// Connections opened by others that are not yet authenticated.
    pub pending_incoming_max: u32,
    /// The same, of one IPv4 address or one IPv6 /64.
    pub pending_per_address_max: u32,
    /// Connections of one IPv4 address or one IPv6 /64, unfinished ones included.
    pub connections_per_address_max: u32,
    /// Connections opened by one peer.
    pub connections_per_peer_max: u32,
    /// Streams of a connection (yamux), both ways.
    pub streams_per_connection_max: usize,
    /// Streams of a connection whose protocol is being negotiated.
    pub negotiating_streams_max: usize,
}

impl Default for NodeLimits {
    fn default() -> NodeLimits {
        NodeLimits {
            incoming_connections_max: 1024,
            pending_incoming_max: 128,
            pending_per_address_max: 16,
            connections_per_address_max: 64,
            connections_per_peer_max: 8,
            streams_per_connection_max: 64,
            negotiating_streams_max: 32,
        }
    }
}

/// How a node is started.
#[derive(Clone)]
pub struct NodeConfig {
    /// Who it is.
    pub identity: Keypair,
    /// Where it listens; nowhere for a mere client.
    pub listen: Vec<Multiaddr>,
    /// What it bears.
    pub limits: NodeLimits,
    /// How it finds others, and is found.
    pub discovery: Discovery,
    /// Whether it takes Bitswap streams, from its first moment on.
    pub bitswap: bool,
}

/// How a node finds others. By default it does not.
#[derive(Debug, Clone, Default)]
pub struct Discovery {
    /// Its part in the DHT.
    pub dht: DhtRole,
    /// Peers to begin with.
    pub bootstrap: Vec<PeerAddrs>,
    /// Whether it calls and answers on the local network.
    pub mdns: bool,
    /// Whether it finds out if it is behind a NAT, asks the router and relays where it is, and relays for others where it
    /// is not.
    pub nat: bool,
    /// What it keeps of the DHT for others.
    pub limits: DhtLimits,
}

impl NodeConfig {
    /// A node that only dials.
    pub fn client(identity: Keypair) -> NodeConfig {
        NodeConfig {
            identity,
            listen: Vec::new(),
            limits: NodeLimits::default(),
            discovery: Discovery::default(),
            bitswap: false,
        }
    }

    /// A node that only dials, peers of other programs among them.
    ///
    /// Their multiplexers send frames as large as our window is, and ours takes none above 1 MiB. A window grows only while
    /// the connection's share is not used up: with so many streams allowed each one's share is what it begins with.
    pub fn foreign_client(identity: Keypair) -> NodeConfig {
        let limits = NodeLimits { streams_per_connection_max: FOREIGN_STREAMS_MAX, ..NodeLimits::default() };
        NodeConfig { limits, ..NodeConfig::client(identity) }
    }

    /// A node that listens.
    pub fn listening(identity: Keypair, listen: Vec<Multiaddr>) -> NodeConfig {
        NodeConfig { listen, ..NodeConfig::client(identity) }
    }

    /// The same, finding others like this.
    pub fn with_discovery(self, discovery: Discovery) -> NodeConfig {
        NodeConfig { discovery, ..self }
    }

    /// For whoever serves public blocks.
    pub fn with_bitswap(self) -> NodeConfig {
        NodeConfig { bitswap: true, ..self }
    }
}

/// Payload bytes of our own protocols since the node started, frames included, libp2p's own overhead not.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Traffic {
    /// To peers.
    pub sent: u64,
    /// From peers.
    pub received: u64,
}

#[derive(Default)]
pub(crate) struct Counters {
    sent: AtomicU64,
    received: AtomicU64,
}

impl Counters {
    pub(crate) fn add_sent(&self, bytes: usize) {
        self.sent.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub(crate) fn add_received(&self, bytes: usize) {
        self.received.fetch_add(bytes as u64, Ordering::Relaxed);
    }
}

enum Command {
    Dial { peer: PeerId, addrs: Vec<Multiaddr>, done: oneshot::Sender<Result<(), NetError>> },
    Disconnect { peer: PeerId, done: oneshot::Sender<()> },
    IsConnected { peer: PeerId, done: oneshot::Sender<bool> },
    DialledAt { peer: PeerId, done: oneshot::Sender<Option<Multiaddr>> },
    FindPeer { peer: PeerId, done: oneshot::Sender<Result<Vec<Multiaddr>, NetError>> },
    FindHolders { key: DhtKey, max: usize, done: oneshot::Sender<Result<Vec<PeerId>, NetError>> },
    Announce { keys: Vec<DhtKey> },
    KnownPeers { max: usize, done: oneshot::Sender<Vec<PeerAddrs>> },
    Nearby { done: oneshot::Sender<Vec<PeerAddrs>> },
    Block { blocked: PeerSet, done: oneshot::Sender<usize> },
    External { addr: Multiaddr, there: bool },
    Reachable { done: oneshot::Sender<Reachable> },
    Ips { peer: PeerId, done: oneshot::Sender<Vec<IpAddr>> },
}

struct Shared {
    identity: Keypair,
    peer_id: PeerId,
    dht: DhtRole,
    commands: mpsc::Sender<Command>,
    control: libp2p_stream::Control,
    /// Streams that peers open, until a provider takes them.
    incoming: Mutex<HashMap<StreamProtocol, IncomingStreams>>,
    listeners: Mutex<Vec<Multiaddr>>,
    counters: Arc<Counters>,
    /// Ended when a connection to the peer ends; see [`Node::way`].
    ways: Mutex<HashMap<PeerId, CancellationToken>>,
    stop: CancellationToken,
    stopped: CancellationToken,
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// A running node; clones are the same node. It stops when the last clone is dropped or on [`Node::shutdown`].
#[derive(Clone)]
pub struct Node {
    shared: Arc<Shared>,
}

impl std::fmt::Debug for Node {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Node({})", self.shared.peer_id)
    }
}

impl Node {
    /// Starts a node; when this returns, it listens at every address that was given.
    pub async fn start(config: NodeConfig) -> Result<Node, NetError> {
        let mut swarm = swarm::build(&config)?;
        let control = swarm.behaviour().stream.new_control();
        let mut incoming = HashMap::new();
        if !config.listen.is_empty() {
            // Before anybody can connect: a peer that is told "unsupported protocol" takes this for no provider at all.
            let public = config.bitswap.then_some(BITSWAP_PROTOCOL);
            for protocol in [CONTROL_PROTOCOL, DATA_PROTOCOL].into_iter().chain(public) {
                let streams = control.clone().accept(protocol.clone());
                let streams =
                    streams.map_err(|_| NetError::Local(format!("{protocol} is served already")))?;
                incoming.insert(protocol, streams);
            }
        }
        let mut listening = Vec::with_capacity(config.listen.len());
        for addr in &config.listen {
            let listener = swarm.listen_on(addr.clone());
            listening.push(listener.map_err(|e| NetError::Local(format!("cannot listen at {addr}: {e}")))?);
        }
        let peer_id = *swarm.local_peer_id();
        let bound =
            tokio::time::timeout(LISTEN_TIMEOUT, task::wait_for_listeners(&mut swarm, config.listen.len()))
                .await
                .map_err(|_| NetError::Timeout(LISTEN_TIMEOUT))??;
        let (commands, receiver) = mpsc::channel(COMMANDS_MAX);
        let shared = Arc::new(Shared {
            identity: config.identity,
            peer_id,
            dht: config.discovery.dht,
            commands,
            control,
            incoming: Mutex::new(incoming),
            listeners: Mutex::new(bound),
            counters: Arc::default(),
            ways: Mutex::default(),
            stop: CancellationToken::new(),
            stopped: CancellationToken::new(),
        });
        let task = task::Task {
            swarm,
            listening,
            commands: receiver,
            dialing: dialing::Dialing::default(),
            dht: dht::Dht::new(config.discovery.dht, config.discovery.bootstrap),
            nearby: nearby::Nearby::default(),
            nat: nat::Nat::default(),
            ends: HashMap::new(),
            closing: HashSet::new(),
            spare: HashSet::new(),
            shared: Arc::downgrade(&shared),
            stop: shared.stop.clone(),
            _stopped: shared.stopped.clone().drop_guard(),
        };
        tokio::spawn(task.run());
        Ok(Node { shared })
    }

    /// The node's name.
    pub fn peer_id(&self) -> PeerId {
        self.shared.peer_id
    }

    /// Where it listens now, each address ending in `/p2p/<peer id>`.
    pub fn listeners(&self) -> Vec<Multiaddr> {
        let mut out = self.shared.listeners.lock().clone();
        out.iter_mut().for_each(|addr| addr.push(Protocol::P2p(self.shared.peer_id)));
        out
    }

    /// Bytes moved so far.
    pub fn traffic(&self) -> Traffic {
        Traffic {
            sent: self.shared.counters.sent.load(Ordering::Relaxed),
            received: self.shared.counters.received.load(Ordering::Relaxed),
        }
    }

    /// Connects to a peer, unless it is connected already.
    pub async fn dial(&self, peer: PeerId, addrs: &[Multiaddr], timeout: Duration) -> Result<(), NetError> {
        let addrs = addrs.to_vec();
        self.command(timeout, |done| Command::Dial { peer, addrs, done }).await?
    }

    /// Closes every connection to a peer.
    pub async fn disconnect(&self, peer: PeerId) -> Result<(), NetError> {
        self.command(LISTEN_TIMEOUT, |done| Command::Disconnect { peer, done }).await
    }

    /// Whether a connection to the peer stands.
    pub async fn is_connected(&self, peer: PeerId) -> Result<bool, NetError> {
        self.command(LISTEN_TIMEOUT, |done| Command::IsConnected { peer, done }).await
    }

    /// Where the peer was dialled, if a connection to it stands that this node dialled.
    pub async fn dialled_at(&self, peer: PeerId) -> Result<Option<Multiaddr>, NetError> {
        self.command(LISTEN_TIMEOUT, |done| Command::DialledAt { peer, done }).await
    }

    /// Looks up where a peer is now; nothing where nobody knows it. What comes may be wrong: dialling shows.
    pub async fn find_peer(&self, peer: PeerId) -> Result<Vec<Multiaddr>, NetError> {
        self.check_dht()?;
        self.command(QUERY_TIMEOUT * 2, |done| Command::FindPeer { peer, done }).await?
    }

    /// Looks up at most `max` peers that say they hold a record. Whether they do shows when they are asked for it.
    pub async fn find_holders(&self, key: DhtKey, max: usize) -> Result<Vec<PeerId>, NetError> {
        self.check_dht()?;
        self.command(QUERY_TIMEOUT * 2, |done| Command::FindHolders { key, max, done }).await?
    }

    /// Tells the DHT which records this node holds, in place of what it was told before, now and for as long as the
    /// node runs. At most [`ANNOUNCED_MAX`].
    pub async fn announce(&self, keys: Vec<DhtKey>) -> Result<(), NetError> {
        self.check_dht()?;
        self.shared.commands.send(Command::Announce { keys }).await.map_err(|_| NetError::Closed)
    }

    /// Peers of the DHT that this node knows: where it can begin at the next start.
    pub async fn known_peers(&self, max: usize) -> Result<Vec<PeerAddrs>, NetError> {
        self.command(LISTEN_TIMEOUT, |done| Command::KnownPeers { max, done }).await
    }

    /// Peers that were seen on the local network, of whatever kind.
    pub async fn nearby(&self) -> Result<Vec<PeerAddrs>, NetError> {
        self.command(LISTEN_TIMEOUT, |done| Command::Nearby { done }).await
    }

    /// From now on nobody of this set is let in or dialled; connections with them are closed. Returns how many were.
    pub async fn block(&self, blocked: PeerSet) -> Result<usize, NetError> {
        self.command(LISTEN_TIMEOUT, |done| Command::Block { blocked, done }).await
    }

    /// Tells others of an address at which a router forwards to this node, or that it does no longer.
    pub(crate) async fn set_external(&self, addr: Multiaddr, there: bool) -> Result<(), NetError> {
        self.shared.commands.send(Command::External { addr, there }).await.map_err(|_| NetError::Closed)
    }

    /// Whether others reach it, as far as anybody has said.
    pub async fn reachable(&self) -> Result<Reachable, NetError> {
        self.command(LISTEN_TIMEOUT, |done| Command::Reachable { done }).await
    }

    /// The addresses that a connected peer is seen at.
    pub(crate) async fn ips_of(&self, peer: PeerId) -> Result<Vec<IpAddr>, NetError> {
        self.command(LISTEN_TIMEOUT, |done| Command::Ips { peer, done }).await
    }

    /// Its part in the DHT.
    pub fn dht_role(&self) -> DhtRole {
        self.shared.dht
    }

    fn check_dht(&self) -> Result<(), NetError> {
        match self.shared.dht {
            DhtRole::Off => Err(NetError::Invalid("this node takes no part in the DHT".into())),
            DhtRole::Client | DhtRole::Server => Ok(()),
        }
    }

    /// Stops: every connection is closed when this returns.
    pub async fn shutdown(&self) {
        self.shared.stop.cancel();
        self.shared.stopped.cancelled().await;
    }

    pub(crate) fn identity(&self) -> &Keypair {
        &self.shared.identity
    }

    /// Opens and accepts raw streams; for this crate's protocols use the client and the provider.
    pub fn streams(&self) -> libp2p_stream::Control {
        self.shared.control.clone()
    }

    /// The way to a peer, for who opens a stream: it ends when a connection to the peer ends or is being closed. The streams of
    /// one that this node closes itself are not woken, so whoever waits on a stream waits for this as well, and asks again
    /// over the connection that is left.
    pub(crate) fn way(&self, peer: PeerId) -> CancellationToken {
        self.shared.ways.lock().entry(peer).or_default().clone()
    }

    /// The streams that peers open under a protocol; once, and only on a node that listens.
    pub fn take_incoming(&self, protocol: StreamProtocol) -> Option<IncomingStreams> {
        self.shared.incoming.lock().remove(&protocol)
    }

    /// Gives back what [`take_incoming`](Self::take_incoming) gave. While the node closes, peers wait for an answer
    /// instead of being told that it serves no such protocol.
    pub(crate) fn give_back_incoming(&self, protocol: StreamProtocol, streams: IncomingStreams) {
        self.shared.incoming.lock().insert(protocol, streams);
    }

    pub(crate) fn counters(&self) -> Arc<Counters> {
        self.shared.counters.clone()
    }

    pub(crate) fn stop_token(&self) -> CancellationToken {
        self.shared.stop.clone()
    }

    async fn command<T>(
        &self,
        timeout: Duration,
        make: impl FnOnce(oneshot::Sender<T>) -> Command,
    ) -> Result<T, NetError> {
        let (done, answer) = oneshot::channel();
        let exchange = async {
            self.shared.commands.send(make(done)).await.map_err(|_| NetError::Closed)?;
            answer.await.map_err(|_| NetError::Closed)
        };
        tokio::time::timeout(timeout, exchange).await.map_err(|_| NetError::Timeout(timeout))?
    }
}
