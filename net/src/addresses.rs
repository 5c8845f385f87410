//! Where peers are: which addresses can be dialled, in which order, and which ones somebody may tell us of.
//!
//! Promises: an address that a peer tells of itself is believed only within the reach from which that peer was seen, so
//! that nobody on the internet can make this machine knock at its own home network; no list is longer than
//! [`ADDRS_MAX`]. Refuses nothing that the owner typed: these rules are for what comes from others.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use libp2p::multiaddr::Protocol;
use libp2p::{Multiaddr, PeerId};

/// Addresses of one peer that are kept.
pub const ADDRS_MAX: usize = 16;
/// The longest address, in bytes of its binary form.
pub const ADDR_BYTES_MAX: usize = 256;

/// A peer and where it may be dialled, each address without `/p2p/` at its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerAddrs {
    /// Who.
    pub peer: PeerId,
    /// Where, the best first.
    pub addrs: Vec<Multiaddr>,
}

impl PeerAddrs {
    /// From addresses in any form; what cannot be dialled is left out.
    pub fn new(peer: PeerId, addrs: impl IntoIterator<Item = Multiaddr>) -> PeerAddrs {
        let mut kept: Vec<Multiaddr> = Vec::new();
        for addr in addrs {
            let addr = plain(&addr, &peer);
            if kept.len() < ADDRS_MAX && way(&addr).is_some() && !kept.contains(&addr) {
                kept.push(addr);
            }
        }
        PeerAddrs { peer, addrs: kept }
    }
}

/// How an address is reached. In the order in which they are tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Way {
    /// TCP, Noise, Yamux: the fastest wherever it gets through.
    Tcp,
    /// QUIC: where TCP is blocked, and through NATs.
    Quic,
    /// Through another peer, which sees that we talk and not what.
    Relayed,
}

/// The way of an address; none for one that this program cannot dial.
pub fn way(addr: &Multiaddr) -> Option<Way> {
    if addr.len() > ADDR_BYTES_MAX {
        return None;
    }
    let parts: Vec<Protocol<'_>> = addr.iter().collect();
    if parts.iter().any(|part| matches!(part, Protocol::P2pCircuit)) {
        return Some(Way::Relayed);
    }
    let host = parts.first().is_some_and(|part| {
        use Protocol::{Dns, Dns4, Dns6, Ip4, Ip6};
        matches!(part, Ip4(_) | Ip6(_) | Dns(_) | Dns4(_) | Dns6(_))
    });
    match parts.get(1..) {
        _ if !host => None,
        Some([Protocol::Tcp(_)] | [Protocol::Tcp(_), Protocol::P2p(_)]) => Some(Way::Tcp),
        Some(
            [Protocol::Udp(_), Protocol::QuicV1] | [Protocol::Udp(_), Protocol::QuicV1, Protocol::P2p(_)],
        ) => Some(Way::Quic),
        _ => None,
    }
}

/// The same without the peer's own name at its end.
pub fn plain(addr: &Multiaddr, peer: &PeerId) -> Multiaddr {
    let mut addr = addr.clone();
    if matches!(addr.iter().last(), Some(Protocol::P2p(last)) if last == *peer) {
        addr.pop();
    }
    addr
}

/// From how far away an address makes sense.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reach {
    /// On this machine.
    Machine,
    /// On this network: private and link-local addresses, and the shared ones of carriers.
    Network,
    /// From everywhere; names count as such, since a resolver decides.
    World,
}

/// The reach of an address; none for one that nobody can be at. A relayed one reaches as far as its relay.
pub fn reach(addr: &Multiaddr) -> Option<Reach> {
    match addr.iter().next()? {
        Protocol::Ip4(ip) => reach_of(ip.into()),
        Protocol::Ip6(ip) => reach_of(ip.into()),
        Protocol::Dns(_) | Protocol::Dns4(_) | Protocol::Dns6(_) => Some(Reach::World),
        _ => None,
    }
}

fn reach_of(ip: IpAddr) -> Option<Reach> {
    match ip.to_canonical() {
        IpAddr::V4(ip) if ip.is_loopback() => Some(Reach::Machine),
        IpAddr::V4(ip) if ip.is_unspecified() || ip.is_multicast() || ip.is_broadcast() => None,
        IpAddr::V4(ip) if ip.is_private() || ip.is_link_local() || is_shared(ip) => Some(Reach::Network),
        IpAddr::V6(ip) if ip.is_loopback() => Some(Reach::Machine),
        IpAddr::V6(ip) if ip.is_unspecified() || ip.is_multicast() => None,
        IpAddr::V6(ip) if is_local(ip) => Some(Reach::Network),
        _ => Some(Reach::World),
    }
}

/// 100.64.0.0/10: between a carrier and its customers.
fn is_shared(ip: Ipv4Addr) -> bool {
    let [a, b, ..] = ip.octets();
    a == 100 && b & 0xc0 == 0x40
}

fn is_local(ip: Ipv6Addr) -> bool {
    ip.is_unique_local() || ip.is_unicast_link_local()
}

/// Of what a peer tells of itself, that which may be believed of somebody who was seen at `seen`.
pub fn believable(told: impl IntoIterator<Item = Multiaddr>, seen: &Multiaddr, peer: PeerId) -> PeerAddrs {
    let Some(from) = reach(seen) else { return PeerAddrs { peer, addrs: Vec::new() } };
    PeerAddrs::new(peer, told.into_iter().filter(|addr| reach(addr).is_some_and(|reach| reach >= from)))
}

/// The IP address of a connection's other end, if it has one of its own.
pub fn ip_of(addr: &Multiaddr) -> Option<IpAddr> {
    if matches!(way(addr), Some(Way::Relayed)) {
        return None;
    }
    match addr.iter().next()? {
        Protocol::Ip4(ip) => Some(ip.into()),
        Protocol::Ip6(ip) => Some(IpAddr::from(ip).to_canonical()),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
