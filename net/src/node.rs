//! The libp2p node: an identity, listeners, connections.
//!
//! One task owns the swarm; everything else talks to it through bounded channels. A connection whose peer stops
//! answering pings is closed, so no stream outlives a dead peer by more than about a minute.
//! QUIC, Kademlia, mDNS and relays are further transports and behaviours of the same swarm.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures::StreamExt;
use libp2p::connection_limits::{self, ConnectionLimits};
use libp2p::core::transport::ListenerId;
use libp2p::identity::Keypair;
use libp2p::multiaddr::Protocol;
use libp2p::swarm::dial_opts::{DialOpts, PeerCondition};
use libp2p::swarm::{DialError, NetworkBehaviour, SwarmEvent};
use libp2p::{Multiaddr, PeerId, StreamProtocol, Swarm, SwarmBuilder, identify, noise, ping, tcp, yamux};
use libp2p_stream::IncomingStreams;
use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use crate::bitswap::BITSWAP_PROTOCOL;
use crate::error::NetError;
use crate::wire::{CONTROL_PROTOCOL, DATA_PROTOCOL};

/// How identify names the protocol family.
const IDENTIFY_PROTOCOL: &str = "/holdfast/1";
/// Program and version, as peers see it in logs.
pub const AGENT: &str = concat!("holdfast/", env!("CARGO_PKG_VERSION"));
const PING_INTERVAL: Duration = Duration::from_secs(15);
const PING_TIMEOUT: Duration = Duration::from_secs(20);
/// A connection without streams is closed after this.
const IDLE_CONNECTION_TIMEOUT: Duration = Duration::from_secs(120);
const LISTEN_TIMEOUT: Duration = Duration::from_secs(10);
/// A connection that does not close in order within this is dropped when the node stops.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);
/// The connection's receive window, 1 GiB, divided by the 256 KiB that a stream begins with.
const FOREIGN_STREAMS_MAX: usize = 4096;
const COMMANDS_MAX: usize = 64;
const DIAL_WAITERS_MAX: usize = 256;

/// What strangers and friends may cause.
#[derive(Debug, Clone)]
pub struct NodeLimits {
    /// Connections opened by others.
    pub incoming_connections_max: u32,
    /// Connections opened by others that are not yet authenticated.
    pub pending_incoming_max: u32,
    /// Connections with one peer.
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
    /// Whether it takes Bitswap streams, from its first moment on.
    pub bitswap: bool,
}

impl NodeConfig {
    /// A node that only dials.
    pub fn client(identity: Keypair) -> NodeConfig {
        NodeConfig { identity, listen: Vec::new(), limits: NodeLimits::default(), bitswap: false }
    }

    /// A node that listens.
    pub fn listening(identity: Keypair, listen: Vec<Multiaddr>) -> NodeConfig {
        NodeConfig { identity, listen, limits: NodeLimits::default(), bitswap: false }
    }

    /// For whoever serves public blocks.
    pub fn with_bitswap(mut self) -> NodeConfig {
        self.bitswap = true;
        self
    }

    /// A node that only dials, peers of other programs among them.
    ///
    /// Their multiplexers send frames as large as our window is, and ours takes none above 1 MiB. A window grows only while
    /// the connection's share is not used up: with so many streams allowed each one's share is what it begins with.
    pub fn foreign_client(identity: Keypair) -> NodeConfig {
        let limits = NodeLimits { streams_per_connection_max: FOREIGN_STREAMS_MAX, ..NodeLimits::default() };
        NodeConfig { limits, ..NodeConfig::client(identity) }
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

#[derive(NetworkBehaviour)]
struct Behaviour {
    limits: connection_limits::Behaviour,
    ping: ping::Behaviour,
    identify: identify::Behaviour,
    stream: libp2p_stream::Behaviour,
}

enum Command {
    Dial { peer: PeerId, addrs: Vec<Multiaddr>, done: oneshot::Sender<Result<(), NetError>> },
    Disconnect { peer: PeerId, done: oneshot::Sender<()> },
    IsConnected { peer: PeerId, done: oneshot::Sender<bool> },
}

struct Shared {
    identity: Keypair,
    peer_id: PeerId,
    commands: mpsc::Sender<Command>,
    control: libp2p_stream::Control,
    /// Streams that peers open, until a provider takes them.
    incoming: Mutex<HashMap<StreamProtocol, IncomingStreams>>,
    listeners: Mutex<Vec<Multiaddr>>,
    counters: Arc<Counters>,
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
        let mut swarm = build_swarm(&config)?;
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
        let bound = tokio::time::timeout(LISTEN_TIMEOUT, wait_for_listeners(&mut swarm, config.listen.len()))
            .await
            .map_err(|_| NetError::Timeout(LISTEN_TIMEOUT))??;
        let (commands, receiver) = mpsc::channel(COMMANDS_MAX);
        let shared = Arc::new(Shared {
            identity: config.identity,
            peer_id,
            commands,
            control,
            incoming: Mutex::new(incoming),
            listeners: Mutex::new(bound),
            counters: Arc::default(),
            stop: CancellationToken::new(),
            stopped: CancellationToken::new(),
        });
        let task = Task {
            swarm,
            listening,
            commands: receiver,
            waiters: HashMap::new(),
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

fn build_swarm(config: &NodeConfig) -> Result<Swarm<Behaviour>, NetError> {
    let local = |e: &dyn std::fmt::Display| NetError::Local(format!("cannot start the network: {e}"));
    let limits = config.limits.clone();
    let yamux = move || {
        let mut yamux = yamux::Config::default();
        yamux.set_max_num_streams(limits.streams_per_connection_max);
        yamux
    };
    let with_tcp = || {
        SwarmBuilder::with_existing_identity(config.identity.clone()).with_tokio().with_tcp(
            tcp::Config::default().nodelay(true),
            noise::Config::new,
            yamux,
        )
    };
    let limits = &config.limits;
    let behaviour = |key: &Keypair| Behaviour {
        limits: connection_limits::Behaviour::new(
            ConnectionLimits::default()
                .with_max_pending_incoming(Some(limits.pending_incoming_max))
                .with_max_established_incoming(Some(limits.incoming_connections_max))
                .with_max_established_per_peer(Some(limits.connections_per_peer_max)),
        ),
        ping: ping::Behaviour::new(
            ping::Config::new().with_interval(PING_INTERVAL).with_timeout(PING_TIMEOUT),
        ),
        identify: identify::Behaviour::new(
            identify::Config::new(IDENTIFY_PROTOCOL.into(), key.public()).with_agent_version(AGENT.into()),
        ),
        stream: libp2p_stream::Behaviour::new(),
    };
    let negotiating = limits.negotiating_streams_max;
    let tune = |c: libp2p::swarm::Config| {
        c.with_idle_connection_timeout(IDLE_CONNECTION_TIMEOUT)
            .with_max_negotiating_inbound_streams(negotiating)
    };
    // A machine without a resolver configuration can still dial numeric addresses.
    match with_tcp().map_err(|e| local(&e))?.with_dns() {
        Ok(builder) => {
            let builder = builder.with_behaviour(behaviour).map_err(|e| local(&e))?;
            Ok(builder.with_swarm_config(tune).build())
        }
        Err(e) => {
            tracing::warn!("names of hosts cannot be resolved: {e}");
            let builder = with_tcp().map_err(|e| local(&e))?;
            let builder = builder.with_behaviour(behaviour).map_err(|e| local(&e))?;
            Ok(builder.with_swarm_config(tune).build())
        }
    }
}

/// Waits until `count` listeners told an address; one that listens on every interface tells more, later.
async fn wait_for_listeners(swarm: &mut Swarm<Behaviour>, count: usize) -> Result<Vec<Multiaddr>, NetError> {
    let mut seen = std::collections::HashSet::new();
    let mut bound = Vec::new();
    while seen.len() < count {
        match swarm.select_next_some().await {
            SwarmEvent::NewListenAddr { listener_id, address } => {
                seen.insert(listener_id);
                bound.push(address);
            }
            SwarmEvent::ListenerClosed { reason: Err(e), .. }
            | SwarmEvent::ListenerError { error: e, .. } => {
                return Err(NetError::Local(format!("cannot listen: {e}")));
            }
            _ => {}
        }
    }
    Ok(bound)
}

struct Task {
    swarm: Swarm<Behaviour>,
    listening: Vec<ListenerId>,
    commands: mpsc::Receiver<Command>,
    waiters: HashMap<PeerId, Vec<oneshot::Sender<Result<(), NetError>>>>,
    shared: std::sync::Weak<Shared>,
    stop: CancellationToken,
    _stopped: tokio_util::sync::DropGuard,
}

impl Task {
    async fn run(mut self) {
        loop {
            tokio::select! {
                () = self.stop.cancelled() => break,
                command = self.commands.recv() => match command {
                    Some(command) => self.on_command(command),
                    None => break,
                },
                event = self.swarm.select_next_some() => self.on_event(event),
            }
        }
        self.close_connections().await;
    }

    /// Connections are tasks of their own, and outlive the swarm: a peer could still ask one of them for a stream and
    /// would be told that this node serves nothing.
    async fn close_connections(&mut self) {
        for listener in self.listening.drain(..) {
            self.swarm.remove_listener(listener);
        }
        let peers: Vec<PeerId> = self.swarm.connected_peers().copied().collect();
        for peer in peers {
            let _ = self.swarm.disconnect_peer_id(peer);
        }
        let closing = async {
            while self.swarm.network_info().num_peers() > 0 {
                self.swarm.select_next_some().await;
            }
        };
        if tokio::time::timeout(CLOSE_TIMEOUT, closing).await.is_err() {
            tracing::debug!("some connections did not close in order");
        }
    }

    fn on_command(&mut self, command: Command) {
        match command {
            Command::Dial { peer, addrs, done } => self.dial(peer, addrs, done),
            Command::Disconnect { peer, done } => {
                // An error says that there was no connection, which is what was asked for.
                let _ = self.swarm.disconnect_peer_id(peer);
                let _ = done.send(());
            }
            Command::IsConnected { peer, done } => {
                let _ = done.send(self.swarm.is_connected(&peer));
            }
        }
    }

    fn dial(&mut self, peer: PeerId, addrs: Vec<Multiaddr>, done: oneshot::Sender<Result<(), NetError>>) {
        if self.swarm.is_connected(&peer) {
            let _ = done.send(Ok(()));
            return;
        }
        let waiters = self.waiters.entry(peer).or_default();
        waiters.retain(|w| !w.is_closed());
        if waiters.len() >= DIAL_WAITERS_MAX {
            let _ = done.send(Err(NetError::Unreachable("too many wait for this peer".into())));
            return;
        }
        waiters.push(done);
        let opts = DialOpts::peer_id(peer)
            .condition(PeerCondition::DisconnectedAndNotDialing)
            .addresses(addrs)
            .extend_addresses_through_behaviour()
            .build();
        match self.swarm.dial(opts) {
            // A dial under way answers for this one too.
            Ok(()) | Err(DialError::DialPeerConditionFalse(_)) => {}
            Err(e) => self.answer_dial(&peer, Err(NetError::Unreachable(dial_text(&e)))),
        }
    }

    fn answer_dial(&mut self, peer: &PeerId, result: Result<(), NetError>) {
        for waiter in self.waiters.remove(peer).unwrap_or_default() {
            let _ = waiter.send(result.clone());
        }
    }

    fn on_event(&mut self, event: SwarmEvent<BehaviourEvent>) {
        match event {
            SwarmEvent::ConnectionEstablished { peer_id, .. } => self.answer_dial(&peer_id, Ok(())),
            SwarmEvent::OutgoingConnectionError { peer_id: Some(peer), error, .. }
                if !self.swarm.is_connected(&peer) =>
            {
                self.answer_dial(&peer, Err(NetError::Unreachable(dial_text(&error))));
            }
            // A peer of another program need not know what a ping is: its streams have limits of their own.
            SwarmEvent::Behaviour(BehaviourEvent::Ping(ping::Event { peer, connection, result: Err(e) }))
                if !matches!(e, ping::Failure::Unsupported) =>
            {
                tracing::debug!(%peer, "no answer to pings, closing: {e}");
                self.swarm.close_connection(connection);
            }
            SwarmEvent::NewListenAddr { address, .. } => self.with_listeners(|l| l.push(address)),
            SwarmEvent::ExpiredListenAddr { address, .. } => {
                self.with_listeners(|l| l.retain(|a| *a != address))
            }
            _ => {}
        }
    }

    fn with_listeners(&self, change: impl FnOnce(&mut Vec<Multiaddr>)) {
        if let Some(shared) = self.shared.upgrade() {
            change(&mut shared.listeners.lock());
        }
    }
}

/// Why nobody answered, as a person reads it: what the system said of each address, each once.
fn dial_text(error: &DialError) -> String {
    let DialError::Transport(tried) = error else { return crate::codec::shorten(&error.to_string()) };
    let mut said: Vec<String> = Vec::new();
    for (address, error) in tried {
        let mut root: &dyn std::error::Error = error;
        while let Some(deeper) = root.source() {
            root = deeper;
        }
        let host: Multiaddr =
            address.iter().filter(|p| !matches!(p, libp2p::multiaddr::Protocol::P2p(_))).collect();
        said.push(format!("{host}: {}", system_words(&root.to_string())));
    }
    said.sort_unstable();
    said.dedup();
    crate::codec::shorten(&said.join("; "))
}

/// libp2p wraps the system's error in sentences that repeat it; the innermost is the one that helps.
fn system_words(text: &str) -> &str {
    let Some(end) = text.find(" (os error") else { return text.trim() };
    let before = text.get(..end).unwrap_or(text);
    let start = [": ", "- "].iter().filter_map(|mark| before.rfind(mark).map(|at| at + mark.len())).max();
    before.get(start.unwrap_or(0)..).unwrap_or(before).trim()
}

#[cfg(test)]
mod tests {
    use super::system_words;

    #[test]
    fn of_a_wrapped_error_the_systems_own_words_are_left() {
        let wrapped =
            ": Multiple dial errors occurred:\n - Connection refused (os error 111): Multiple dial errors";
        assert_eq!(system_words(wrapped), "Connection refused");
        assert_eq!(system_words("Handshake failed: input error"), "Handshake failed: input error");
        assert_eq!(system_words("No route to host (os error 113)"), "No route to host");
    }
}
