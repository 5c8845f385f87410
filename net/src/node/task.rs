//! The one task that owns the swarm: commands in, events out.

use std::collections::{HashMap, HashSet};
use std::sync::Weak;
use std::time::Duration;

use futures::StreamExt;
use libp2p::core::ConnectedPoint;
use libp2p::core::transport::ListenerId;
use libp2p::swarm::{ConnectionId, SwarmEvent};
use libp2p::{Multiaddr, PeerId, Swarm, autonat, dcutr, identify, kad, mdns, ping, relay};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::dht::{self, DHT_PROTOCOL, Dht};
use super::dialing::Dialing;
use super::nat::Nat;
use super::nearby::Nearby;
use super::swarm::{Behaviour, BehaviourEvent};
use super::{Command, Shared};
use crate::addresses::{PeerAddrs, believable, ip_of};
use crate::error::NetError;
use crate::peer_set::PeerSet;

/// A connection that does not close in order within this is dropped when the node stops.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);
/// How often the DHT's upkeep looks whether there is something to do.
const TICK: Duration = Duration::from_secs(1);

pub(super) struct Task {
    pub(super) swarm: Swarm<Behaviour>,
    pub(super) listening: Vec<ListenerId>,
    pub(super) commands: mpsc::Receiver<Command>,
    pub(super) dialing: Dialing,
    pub(super) dht: Dht,
    pub(super) nearby: Nearby,
    pub(super) nat: Nat,
    /// Where the other ends of connections are.
    pub(super) ends: HashMap<ConnectionId, (PeerId, ConnectedPoint)>,
    /// Of these, those that were closed and are not gone: to a peer that is, that may take a quarter of an hour.
    pub(super) closing: HashSet<ConnectionId>,
    /// Of the closing ones, those that stood beside another from their first moment: nothing goes over them.
    pub(super) spare: HashSet<ConnectionId>,
    pub(super) shared: Weak<Shared>,
    pub(super) stop: CancellationToken,
    pub(super) _stopped: tokio_util::sync::DropGuard,
}

impl Task {
    pub(super) async fn run(mut self) {
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        // Whoever asks at once shall find the peers that are known.
        let has_dht = self.with_dht(|dht, kad| dht.join(kad)).is_some();
        loop {
            tokio::select! {
                () = self.stop.cancelled() => break,
                command = self.commands.recv() => match command {
                    Some(command) => self.on_command(command),
                    None => break,
                },
                due = self.dialing.due() => self.dialing.on_due(&mut self.swarm, due),
                _ = tick.tick(), if has_dht => self.on_tick(),
                event = self.swarm.select_next_some() => self.on_event(event),
            }
        }
        self.close_connections().await;
    }

    fn on_tick(&mut self) {
        self.with_dht(|dht, kad| dht.tick(kad));
        if let Some((relay, addr)) = self.nat.wanted(Instant::now()) {
            let listener = self.swarm.listen_on(addr.clone());
            let listener = listener.inspect_err(|e| tracing::debug!(%relay, "cannot listen at {addr}: {e}"));
            self.nat.asked(relay, listener.ok(), Instant::now());
        }
    }

    fn with_dht<T>(&mut self, work: impl FnOnce(&mut Dht, &mut dht::Kademlia) -> T) -> Option<T> {
        let kad = self.swarm.behaviour_mut().kad.as_mut()?;
        Some(work(&mut self.dht, kad))
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
            Command::Dial { peer, done, .. } if self.is_connected(&peer) => {
                let _ = done.send(Ok(()));
            }
            Command::Dial { peer, mut addrs, done } => {
                addrs.extend(self.nearby.addrs_of(&peer));
                let addrs = PeerAddrs::new(peer, addrs).addrs;
                self.dialing.dial(&mut self.swarm, peer, addrs, done);
            }
            Command::Disconnect { peer, done } => {
                let of_peer = self.ends.iter().filter(|(_, (known, _))| *known == peer);
                let ids: Vec<ConnectionId> = of_peer.map(|(id, _)| *id).collect();
                for id in ids {
                    self.close(id);
                }
                let _ = done.send(());
            }
            Command::IsConnected { peer, done } => {
                let _ = done.send(self.is_connected(&peer));
            }
            Command::DialledAt { peer, done } => {
                let _ = done.send(self.dialled_at(&peer));
            }
            Command::FindPeer { peer, done } => {
                let near = self.nearby.addrs_of(&peer);
                if near.is_empty() {
                    self.with_dht(|dht, kad| dht.find_peer(kad, peer, done));
                } else {
                    let _ = done.send(Ok(near));
                }
            }
            Command::FindHolders { key, max, done } => {
                self.with_dht(|dht, kad| dht.find_holders(kad, &key, max, done));
            }
            Command::Announce { keys } => {
                self.with_dht(|dht, kad| dht.announce(kad, keys));
            }
            Command::KnownPeers { max, done } => {
                let known = self.with_dht(|_, kad| dht::known_peers(kad, max));
                let _ = done.send(known.unwrap_or_default());
            }
            Command::Nearby { done } => {
                let _ = done.send(self.nearby.all());
            }
            Command::Block { blocked, done } => {
                let _ = done.send(self.block(blocked));
            }
            Command::External { addr, there } => {
                if there {
                    self.swarm.add_external_address(addr);
                } else {
                    self.swarm.remove_external_address(&addr);
                }
                self.dht.moved();
            }
            Command::Reachable { done } => {
                let _ = done.send(self.nat.reachable());
            }
            Command::Ips { peer, done } => {
                let ends = self.ends.values().filter(|(known, _)| *known == peer);
                let _ = done.send(ends.filter_map(|(_, end)| ip_of(end.get_remote_address())).collect());
            }
        }
    }

    /// A connection stands, and is not being closed.
    fn is_connected(&self, peer: &PeerId) -> bool {
        self.ends.iter().any(|(id, (known, _))| known == peer && !self.closing.contains(id))
    }

    fn close(&mut self, id: ConnectionId) -> bool {
        let closing = self.swarm.close_connection(id);
        if closing {
            self.closing.insert(id);
            if let Some((peer, _)) = self.ends.get(&id) {
                self.end_way(*peer);
            }
        }
        closing
    }

    fn end_way(&self, peer: PeerId) {
        let Some(shared) = self.shared.upgrade() else { return };
        let way = shared.ways.lock().remove(&peer);
        if let Some(way) = way {
            way.cancel();
        }
    }

    fn block(&mut self, blocked: PeerSet) -> usize {
        self.swarm.behaviour_mut().gate.block(blocked);
        let gate = &self.swarm.behaviour().gate;
        let ends = self.ends.iter();
        let out: Vec<ConnectionId> = ends
            .filter(|(_, (peer, end))| gate.is_blocked(peer, end.get_remote_address()))
            .map(|(id, _)| *id)
            .collect();
        out.into_iter().filter(|id| self.close(*id)).count()
    }

    fn dialled_at(&self, peer: &PeerId) -> Option<Multiaddr> {
        let of_peer =
            self.ends.iter().filter(|(id, (known, _))| known == peer && !self.closing.contains(*id));
        let dialled = of_peer.filter_map(|(_, (_, end))| match end {
            ConnectedPoint::Dialer { address, .. } => Some(address),
            ConnectedPoint::Listener { .. } => None,
        });
        dialled.map(|addr| crate::addresses::plain(addr, peer)).min_by_key(crate::addresses::way)
    }

    fn on_event(&mut self, event: SwarmEvent<BehaviourEvent>) {
        match event {
            SwarmEvent::ConnectionEstablished { peer_id, connection_id, endpoint, .. } => {
                self.ends.insert(connection_id, (peer_id, endpoint));
                if self.dialing.established(&peer_id, connection_id)
                    && self.swarm.close_connection(connection_id)
                {
                    self.closing.insert(connection_id);
                    self.spare.insert(connection_id);
                }
            }
            SwarmEvent::ConnectionClosed { peer_id, connection_id, .. } => {
                self.ends.remove(&connection_id);
                self.closing.remove(&connection_id);
                // Also of one that was being closed: something may have been asked over it since.
                if !self.spare.remove(&connection_id) {
                    self.end_way(peer_id);
                }
            }
            SwarmEvent::OutgoingConnectionError { peer_id: Some(peer), connection_id, error } => {
                self.dialing.failed(&mut self.swarm, &peer, connection_id, &error);
            }
            // A peer of another program need not know what a ping is: its streams have limits of their own.
            SwarmEvent::Behaviour(BehaviourEvent::Ping(ping::Event { peer, connection, result: Err(e) }))
                if !matches!(e, ping::Failure::Unsupported) =>
            {
                tracing::debug!(%peer, "no answer to pings, closing: {e}");
                self.close(connection);
            }
            SwarmEvent::Behaviour(BehaviourEvent::Identify(identify::Event::Received {
                connection_id,
                peer_id,
                info,
            })) => self.on_told(peer_id, connection_id, info),
            SwarmEvent::Behaviour(BehaviourEvent::Kad(kad::Event::OutboundQueryProgressed {
                id,
                result,
                step,
                ..
            })) => {
                self.with_dht(|dht, kad| dht.progressed(kad, id, result, step.last));
            }
            SwarmEvent::Behaviour(BehaviourEvent::Mdns(event)) => self.on_mdns(event),
            SwarmEvent::Behaviour(BehaviourEvent::Autonat(autonat::Event::StatusChanged { new, .. })) => {
                self.on_nat_status(&new);
            }
            SwarmEvent::Behaviour(BehaviourEvent::Relayed(
                relay::client::Event::ReservationReqAccepted { relay_peer_id, renewal: false, .. },
            )) => {
                self.nat.listens(relay_peer_id);
                tracing::info!(relay = %relay_peer_id, "a relay listens for this node");
            }
            SwarmEvent::Behaviour(BehaviourEvent::Dcutr(dcutr::Event { remote_peer_id, result })) => {
                match result {
                    Ok(_) => self.close_relayed(&remote_peer_id),
                    Err(e) => tracing::debug!(peer = %remote_peer_id, "no direct way: {e}"),
                }
            }
            SwarmEvent::ListenerClosed { listener_id, reason, .. } => {
                self.nat.ended(listener_id, Instant::now());
                tracing::debug!("a listener ended: {reason:?}");
            }
            SwarmEvent::NewListenAddr { address, .. } => {
                self.with_listeners(|l| l.push(address));
                self.dht.moved();
            }
            SwarmEvent::ExpiredListenAddr { address, .. } => {
                self.with_listeners(|l| l.retain(|a| *a != address));
                self.dht.moved();
            }
            _ => {}
        }
    }

    fn on_nat_status(&mut self, status: &autonat::NatStatus) {
        tracing::info!(?status, "whether others reach this node");
        for listener in self.nat.found(status) {
            self.swarm.remove_listener(listener);
        }
        let helps = match status {
            autonat::NatStatus::Public(_) => relay::Status::Enable,
            autonat::NatStatus::Private | autonat::NatStatus::Unknown => relay::Status::Disable,
        };
        if let Some(relay) = self.swarm.behaviour_mut().relay.as_mut() {
            relay.set_status(Some(helps));
        }
    }

    /// A direct connection stands: what goes through a relay goes on over it, as after any connection that broke.
    fn close_relayed(&mut self, peer: &PeerId) {
        let of_peer = self.ends.iter().filter(|(_, (known, end))| known == peer && end.is_relayed());
        let relayed: Vec<ConnectionId> = of_peer.map(|(id, _)| *id).collect();
        tracing::info!(%peer, connections = relayed.len(), "a direct way was found");
        for id in relayed {
            self.close(id);
        }
    }

    /// A peer told what it speaks and where it listens.
    fn on_told(&mut self, peer: PeerId, connection: ConnectionId, info: identify::Info) {
        let Some((_, end)) = self.ends.get(&connection) else { return };
        if let ConnectedPoint::Dialer { address, .. } = end
            && info.protocols.contains(&relay::HOP_PROTOCOL_NAME)
            && !end.is_relayed()
        {
            self.nat.offers(peer, crate::addresses::plain(address, &peer));
        }
        if !info.protocols.contains(&DHT_PROTOCOL) {
            return;
        }
        let seen = end.get_remote_address().clone();
        let mut told = info.listen_addrs;
        // Where it was dialled it certainly is.
        if let ConnectedPoint::Dialer { address, .. } = end {
            told.insert(0, address.clone());
        }
        let told = believable(told, &seen, peer);
        self.with_dht(|dht, kad| dht.told(kad, &told));
    }

    fn on_mdns(&mut self, event: mdns::Event) {
        match event {
            mdns::Event::Discovered(found) => {
                for found in self.nearby.seen(found) {
                    // Whether it is one of ours it tells when it is connected.
                    if self.swarm.behaviour().kad.is_enabled() && !self.swarm.is_connected(&found.peer) {
                        let (done, _) = tokio::sync::oneshot::channel();
                        self.dialing.dial(&mut self.swarm, found.peer, found.addrs.clone(), done);
                    }
                    self.dht.nearby(&found);
                }
            }
            mdns::Event::Expired(gone) => self.nearby.gone(&gone),
        }
    }

    fn with_listeners(&self, change: impl FnOnce(&mut Vec<Multiaddr>)) {
        if let Some(shared) = self.shared.upgrade() {
            change(&mut shared.listeners.lock());
        }
    }
}

/// Waits until `count` listeners told an address; one that listens on every interface tells more, later.
pub(super) async fn wait_for_listeners(
    swarm: &mut Swarm<Behaviour>,
    count: usize,
) -> Result<Vec<Multiaddr>, NetError> {
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
