//! Peers that were seen on the local network (mDNS), of whatever kind they are.
//!
//! Anybody on that network can say anything here; so it is bounded, and whoever is found is believed only after Noise
//! has shown that it is the peer.

use std::collections::HashMap;

use libp2p::{Multiaddr, PeerId};

use crate::addresses::{ADDRS_MAX, PeerAddrs, way};

/// Peers that are remembered.
const PEERS_MAX: usize = 256;

/// See the module.
#[derive(Default)]
pub(super) struct Nearby {
    peers: HashMap<PeerId, Vec<Multiaddr>>,
}

impl Nearby {
    /// Notes what was seen; returns the peers that are new, with what is known of them.
    pub(super) fn seen(&mut self, found: Vec<(PeerId, Multiaddr)>) -> Vec<PeerAddrs> {
        let mut new: Vec<PeerId> = Vec::new();
        for (peer, addr) in found {
            let addr = crate::addresses::plain(&addr, &peer);
            if way(&addr).is_none() || (self.peers.len() >= PEERS_MAX && !self.peers.contains_key(&peer)) {
                continue;
            }
            let addrs = self.peers.entry(peer).or_default();
            if addrs.is_empty() {
                new.push(peer);
            }
            if addrs.len() < ADDRS_MAX && !addrs.contains(&addr) {
                addrs.push(addr);
            }
        }
        new.into_iter().map(|peer| PeerAddrs::new(peer, self.addrs_of(&peer))).collect()
    }

    /// Forgets what was not heard of for its time.
    pub(super) fn gone(&mut self, gone: &[(PeerId, Multiaddr)]) {
        for (peer, addr) in gone {
            let addr = crate::addresses::plain(addr, peer);
            if let Some(addrs) = self.peers.get_mut(peer) {
                addrs.retain(|known| *known != addr);
                if addrs.is_empty() {
                    self.peers.remove(peer);
                }
            }
        }
    }

    /// Where a peer was seen.
    pub(super) fn addrs_of(&self, peer: &PeerId) -> Vec<Multiaddr> {
        self.peers.get(peer).cloned().unwrap_or_default()
    }

    /// Everybody.
    pub(super) fn all(&self) -> Vec<PeerAddrs> {
        self.peers.iter().map(|(peer, addrs)| PeerAddrs::new(*peer, addrs.clone())).collect()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn peer(n: u16) -> PeerId {
        let mut seed = [0; 32];
        seed[..2].copy_from_slice(&n.to_be_bytes());
        crate::identity::keypair(seed).unwrap().public().to_peer_id()
    }

    #[test]
    fn what_the_network_says_is_bounded_and_forgotten() {
        let addr = |port: u16| -> Multiaddr { format!("/ip4/10.0.0.1/tcp/{port}").parse().unwrap() };
        let mut nearby = Nearby::default();
        let new = nearby.seen(vec![(peer(1), addr(1)), (peer(1), addr(2)), (peer(1), addr(1))]);
        assert_eq!(new, [PeerAddrs { peer: peer(1), addrs: vec![addr(1), addr(2)] }]);
        assert!(nearby.seen(vec![(peer(1), addr(3))]).is_empty(), "it is known already");
        nearby.seen((1..100).map(|port| (peer(1), addr(port))).collect());
        assert_eq!(nearby.addrs_of(&peer(1)).len(), ADDRS_MAX);
        nearby.seen((0..400).map(|n| (peer(n), addr(1))).collect());
        assert_eq!(nearby.all().len(), PEERS_MAX);
        let all: Vec<_> =
            nearby.all().into_iter().flat_map(|p| p.addrs.into_iter().map(move |a| (p.peer, a))).collect();
        nearby.gone(&all);
        assert!(nearby.all().is_empty());
    }
}
