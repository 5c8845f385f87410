//! Transports and behaviours, put together.
//!
//! ```text
//!   TCP, Noise, Yamux ─┐
//!   QUIC ──────────────┴─ names resolved ─┐
//!   through a relay, Noise, Yamux ────────┴─ ten seconds to connect ─► the swarm
//! ```

use std::time::Duration;

use libp2p::core::muxing::StreamMuxerBox;
use libp2p::core::transport::timeout::TransportTimeout;
use libp2p::core::transport::{Boxed, OrTransport};
use libp2p::core::upgrade::Version;
use libp2p::identity::Keypair;
use libp2p::swarm::NetworkBehaviour;
use libp2p::swarm::behaviour::toggle::Toggle;
use libp2p::{
    PeerId, Swarm, Transport, autonat, dcutr, dns, identify, mdns, noise, ping, quic, relay, tcp, yamux,
};

use super::buffered::Buffered;
use super::dht::{self, Kademlia};
use super::gate::Gate;
use super::nat;
use super::{AGENT, IDENTIFY_PROTOCOL, NodeConfig, NodeLimits};
use crate::error::NetError;

const PING_INTERVAL: Duration = Duration::from_secs(15);
const PING_TIMEOUT: Duration = Duration::from_secs(20);
/// A connection without streams is closed after this.
const IDLE_CONNECTION_TIMEOUT: Duration = Duration::from_secs(120);
/// From the first packet of a connection to its end of handshakes, either way.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Of QUIC, whose ports do not say that they are closed.
const QUIC_HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// Bytes under way to us over one QUIC connection, and over one stream of it: what 100 Mbit/s have under way in 600 ms.
const QUIC_CONNECTION_WINDOW_BYTES: u32 = 8 << 20;
const QUIC_STREAM_WINDOW_BYTES: u32 = 8 << 20;

#[derive(NetworkBehaviour)]
pub(super) struct Behaviour {
    /// First, so that nobody else sees whom it does not let in.
    pub(super) gate: Gate,
    ping: ping::Behaviour,
    identify: identify::Behaviour,
    pub(super) stream: libp2p_stream::Behaviour,
    pub(super) kad: Toggle<Kademlia>,
    mdns: Toggle<mdns::tokio::Behaviour>,
    relayed: relay::client::Behaviour,
    dcutr: dcutr::Behaviour,
    pub(super) relay: Toggle<relay::Behaviour>,
    autonat: Toggle<autonat::Behaviour>,
}

/// The swarm of a node; it listens nowhere yet.
pub(super) fn build(config: &NodeConfig) -> Result<Swarm<Behaviour>, NetError> {
    let local = |e: &dyn std::fmt::Display| NetError::Local(format!("cannot start the network: {e}"));
    let key = &config.identity;
    let peer = key.public().to_peer_id();
    let direct = || direct_transport(key, &config.limits).map_err(|e| local(&e));
    // A machine without a resolver's configuration can still dial numeric addresses.
    let transport = match dns::tokio::Transport::system(direct()?) {
        Ok(transport) => transport.boxed(),
        Err(e) => {
            tracing::warn!("names of hosts cannot be resolved: {e}");
            direct()?
        }
    };
    let (relayed, relay_client) = relay::client::new(peer);
    let relayed = relayed
        .upgrade(Version::V1Lazy)
        .authenticate(noise::Config::new(key).map_err(|e| local(&e))?)
        .multiplex(yamux_config(&config.limits))
        .map(|(peer, muxer), _| (peer, StreamMuxerBox::new(muxer)));
    let transport = OrTransport::new(relayed, transport).map(|either, _| either.into_inner());
    let transport = TransportTimeout::new(transport, CONNECT_TIMEOUT).boxed();
    let nat = config.discovery.nat;
    let limits = &config.limits;
    let mdns = config.discovery.mdns.then(|| mdns::tokio::Behaviour::new(mdns::Config::default(), peer));
    // Without a network there is nobody near, which is no reason not to start.
    let mdns = mdns
        .and_then(|made| made.inspect_err(|e| tracing::warn!("no look-out on the local network: {e}")).ok());
    let behaviour = Behaviour {
        gate: Gate::new(limits.clone()),
        ping: ping::Behaviour::new(
            ping::Config::new().with_interval(PING_INTERVAL).with_timeout(PING_TIMEOUT),
        ),
        identify: identify::Behaviour::new(
            identify::Config::new(IDENTIFY_PROTOCOL.into(), key.public())
                .with_agent_version(AGENT.into())
                .with_push_listen_addr_updates(true)
                .with_cache_size(0),
        ),
        stream: libp2p_stream::Behaviour::new(),
        kad: Toggle::from(dht::behaviour(peer, config.discovery.dht, &config.discovery.limits)),
        mdns: Toggle::from(mdns),
        relayed: relay_client,
        dcutr: dcutr::Behaviour::new(peer),
        relay: Toggle::from(nat.then(|| {
            let mut relay = relay::Behaviour::new(peer, nat::relay_config());
            relay.set_status(Some(relay::Status::Disable));
            relay
        })),
        autonat: Toggle::from(nat.then(|| autonat::Behaviour::new(peer, nat::autonat_config()))),
    };
    let tune = libp2p::swarm::Config::with_tokio_executor()
        .with_idle_connection_timeout(IDLE_CONNECTION_TIMEOUT)
        .with_max_negotiating_inbound_streams(limits.negotiating_streams_max);
    Ok(Swarm::new(transport, behaviour, peer, tune))
}

fn yamux_config(limits: &NodeLimits) -> yamux::Config {
    let mut yamux = yamux::Config::default();
    yamux.set_max_num_streams(limits.streams_per_connection_max);
    yamux
}

/// Everything that needs no other peer's help.
fn direct_transport(
    key: &Keypair,
    limits: &NodeLimits,
) -> Result<Boxed<(PeerId, StreamMuxerBox)>, noise::Error> {
    let tcp = tcp::tokio::Transport::new(tcp::Config::default().nodelay(true))
        .map(|stream, _| Buffered::new(stream))
        .upgrade(Version::V1Lazy)
        .authenticate(noise::Config::new(key)?)
        .multiplex(yamux_config(limits))
        .map(|(peer, muxer), _| (peer, StreamMuxerBox::new(muxer)));
    let mut quic = quic::Config::new(key);
    quic.handshake_timeout = QUIC_HANDSHAKE_TIMEOUT;
    quic.max_concurrent_stream_limit = u32::try_from(limits.streams_per_connection_max).unwrap_or(u32::MAX);
    quic.max_connection_data = QUIC_CONNECTION_WINDOW_BYTES;
    quic.max_stream_data = QUIC_STREAM_WINDOW_BYTES;
    let quic = quic::tokio::Transport::new(quic)
        .map(|(peer, connection), _| (peer, StreamMuxerBox::new(connection)));
    Ok(OrTransport::new(tcp, quic).map(|either, _| either.into_inner()).boxed())
}
