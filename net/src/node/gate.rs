//! Who may come in, and how many: the door of the node.
//!
//! ```text
//!   a connection comes ──► its network blocked? too many of this address unfinished, or in all? ──► handshakes
//!   its peer is known  ──► the peer blocked? too many of the peer, of the address, in all? ───────► it stands
//! ```
//!
//! Promises: what strangers open is bounded in all, for each peer and for each address (of IPv6, each /64), before and
//! after the handshakes (loopback: in all only); whoever is not connected costs no memory. One address that opens thousands keeps nobody else
//! out. Refuses nothing that this node dials, except who is blocked.

use std::collections::HashMap;
use std::convert::Infallible;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::task::{Context, Poll};

use libp2p::core::transport::PortUse;
use libp2p::core::{ConnectedPoint, Endpoint};
use libp2p::swarm::behaviour::{ConnectionClosed, ConnectionEstablished, ListenFailure};
use libp2p::swarm::{
    ConnectionDenied, ConnectionId, FromSwarm, NetworkBehaviour, THandler, THandlerInEvent, THandlerOutEvent,
    ToSwarm, dummy,
};
use libp2p::{Multiaddr, PeerId};

use super::NodeLimits;
use crate::addresses::ip_of;
use crate::peer_set::PeerSet;

/// Why somebody is not let in; never sent to anybody.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Denied {
    Blocked,
    TooManyPending,
    TooManyOfAddress,
    TooManyOfPeer,
    TooMany,
}

impl fmt::Display for Denied {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Denied::Blocked => "the peer or its network is on the block list",
            Denied::TooManyPending => "too many connections are being made",
            Denied::TooManyOfAddress => "too many connections of one address",
            Denied::TooManyOfPeer => "too many connections of one peer",
            Denied::TooMany => "too many connections",
        })
    }
}

impl std::error::Error for Denied {}

/// Who shares a limit: an IPv4 address, or an IPv6 network of one customer. This machine's own address is nobody's:
/// behind it are its other programs, and whatever a tunnel brings.
fn neighbourhood(addr: &Multiaddr) -> Option<IpAddr> {
    Some(match ip_of(addr)? {
        IpAddr::V4(Ipv4Addr::LOCALHOST) | IpAddr::V6(Ipv6Addr::LOCALHOST) => return None,
        IpAddr::V6(ip) => {
            let [a, b, c, d, ..] = ip.segments();
            Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
        }
        ip => ip,
    })
}

#[derive(Default)]
struct Count {
    pending: u32,
    standing: u32,
}

/// See the module.
pub(super) struct Gate {
    limits: NodeLimits,
    blocked: PeerSet,
    pending: HashMap<ConnectionId, Option<IpAddr>>,
    incoming: HashMap<ConnectionId, (PeerId, Option<IpAddr>)>,
    of_address: HashMap<IpAddr, Count>,
    of_peer: HashMap<PeerId, u32>,
}

impl Gate {
    pub(super) fn new(limits: NodeLimits) -> Gate {
        Gate {
            limits,
            blocked: PeerSet::default(),
            pending: HashMap::new(),
            incoming: HashMap::new(),
            of_address: HashMap::new(),
            of_peer: HashMap::new(),
        }
    }

    /// Replaces the block list.
    pub(super) fn block(&mut self, blocked: PeerSet) {
        self.blocked = blocked;
    }

    /// Whether a standing connection would not be let in now.
    pub(super) fn is_blocked(&self, peer: &PeerId, addr: &Multiaddr) -> bool {
        self.blocked.has_peer(peer) || ip_of(addr).is_some_and(|ip| self.blocked.has_address(ip))
    }

    fn let_begin(&mut self, id: ConnectionId, remote: &Multiaddr) -> Result<(), Denied> {
        if ip_of(remote).is_some_and(|ip| self.blocked.has_address(ip)) {
            return Err(Denied::Blocked);
        }
        if self.pending.len() >= self.limits.pending_incoming_max as usize {
            return Err(Denied::TooManyPending);
        }
        let address = neighbourhood(remote);
        if let Some(address) = address {
            let count = self.of_address.entry(address).or_default();
            let pending_max = self.limits.pending_per_address_max;
            if count.pending >= pending_max
                || count.pending + count.standing >= self.limits.connections_per_address_max
            {
                return Err(Denied::TooManyOfAddress);
            }
            count.pending += 1;
        }
        self.pending.insert(id, address);
        Ok(())
    }

    fn let_in(&mut self, id: ConnectionId, peer: PeerId, remote: &Multiaddr) -> Result<(), Denied> {
        self.ended_pending(id);
        if self.is_blocked(&peer, remote) {
            return Err(Denied::Blocked);
        }
        if self.incoming.len() >= self.limits.incoming_connections_max as usize {
            return Err(Denied::TooMany);
        }
        let of_address = neighbourhood(remote).and_then(|address| self.of_address.get(&address));
        if of_address.is_some_and(|count| count.standing >= self.limits.connections_per_address_max) {
            return Err(Denied::TooManyOfAddress);
        }
        if self.of_peer.get(&peer).is_some_and(|count| *count >= self.limits.connections_per_peer_max) {
            return Err(Denied::TooManyOfPeer);
        }
        Ok(())
    }

    fn ended_pending(&mut self, id: ConnectionId) {
        if let Some(Some(address)) = self.pending.remove(&id) {
            self.change(address, |count| count.pending = count.pending.saturating_sub(1));
        }
    }

    fn change(&mut self, address: IpAddr, change: impl FnOnce(&mut Count)) {
        let count = self.of_address.entry(address).or_default();
        change(count);
        if count.pending == 0 && count.standing == 0 {
            self.of_address.remove(&address);
        }
    }

    fn stands(&mut self, id: ConnectionId, peer: PeerId, remote: &Multiaddr) {
        let address = neighbourhood(remote);
        self.incoming.insert(id, (peer, address));
        *self.of_peer.entry(peer).or_default() += 1;
        if let Some(address) = address {
            self.change(address, |count| count.standing += 1);
        }
    }

    fn closed(&mut self, id: ConnectionId) {
        let Some((peer, address)) = self.incoming.remove(&id) else { return };
        if let Some(count) = self.of_peer.get_mut(&peer) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                self.of_peer.remove(&peer);
            }
        }
        if let Some(address) = address {
            self.change(address, |count| count.standing = count.standing.saturating_sub(1));
        }
    }
}

impl NetworkBehaviour for Gate {
    type ConnectionHandler = dummy::ConnectionHandler;
    type ToSwarm = Infallible;

    fn handle_pending_inbound_connection(
        &mut self,
        id: ConnectionId,
        _: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<(), ConnectionDenied> {
        self.let_begin(id, remote).map_err(ConnectionDenied::new)
    }

    fn handle_established_inbound_connection(
        &mut self,
        id: ConnectionId,
        peer: PeerId,
        _: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.let_in(id, peer, remote).map_err(ConnectionDenied::new)?;
        Ok(dummy::ConnectionHandler)
    }

    fn handle_established_outbound_connection(
        &mut self,
        _: ConnectionId,
        peer: PeerId,
        remote: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        if self.is_blocked(&peer, remote) {
            return Err(ConnectionDenied::new(Denied::Blocked));
        }
        Ok(dummy::ConnectionHandler)
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        match event {
            FromSwarm::ConnectionEstablished(ConnectionEstablished {
                peer_id,
                connection_id,
                endpoint: ConnectedPoint::Listener { send_back_addr, .. },
                ..
            }) => self.stands(connection_id, peer_id, send_back_addr),
            FromSwarm::ConnectionClosed(ConnectionClosed { connection_id, .. }) => self.closed(connection_id),
            FromSwarm::ListenFailure(ListenFailure { connection_id, .. }) => {
                self.ended_pending(connection_id)
            }
            _ => {}
        }
    }

    fn on_connection_handler_event(&mut self, _: PeerId, _: ConnectionId, event: THandlerOutEvent<Self>) {
        match event {}
    }

    fn poll(&mut self, _: &mut Context<'_>) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        Poll::Pending
    }
}

#[cfg(test)]
mod tests;
