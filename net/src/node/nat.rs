//! Being reached from behind a NAT.
//!
//! ```text
//!   AutoNAT: others dial back ──► reached: this node helps others as a relay
//!                            └──► not reached: UPnP asks the router for a port
//!                                              up to RELAYS_WANTED relays are asked to listen for us
//!   a peer comes through a relay ──► DCUtR: both ends dial each other at once ──► the way through the relay is closed
//! ```
//!
//! Promises: what this node does for others as a relay is bounded; a relay that dies is replaced; no way through a relay is
//! used longer than a direct one can be had. Refuses to help while nobody has reached this node itself.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use libp2p::core::transport::ListenerId;
use libp2p::multiaddr::Protocol;
use libp2p::{Multiaddr, PeerId, autonat, relay};
use tokio::time::Instant;

/// Relays that listen for a node behind a NAT.
const RELAYS_WANTED: usize = 2;
/// Relays that are remembered.
const KNOWN_MAX: usize = 64;
/// One that failed is not asked again for so long.
const AGAIN: Duration = Duration::from_secs(60);
/// One that listened and ended is asked again after this: as a rule it was this node's own line that broke, and with it all of them.
const AGAIN_AFTER_WORK: Duration = Duration::from_secs(2);
/// From the start until others are asked to dial back.
const BOOT_DELAY: Duration = Duration::from_secs(3);
/// How often they are, until the answer is the same three times; and then.
const RETRY_INTERVAL: Duration = Duration::from_secs(30);
const REFRESH_INTERVAL: Duration = Duration::from_secs(600);

/// Whether others reach this node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Reachable {
    /// Nobody has said.
    #[default]
    Unknown,
    /// By a direct connection.
    Directly,
    /// Only through relays.
    Relayed,
}

/// How AutoNAT is run, on both sides of it.
pub(super) fn autonat_config() -> autonat::Config {
    autonat::Config {
        boot_delay: BOOT_DELAY,
        retry_interval: RETRY_INTERVAL,
        refresh_interval: REFRESH_INTERVAL,
        throttle_server_period: RETRY_INTERVAL / 2,
        ..autonat::Config::default()
    }
}

/// What this node does for others as a relay.
pub(super) fn relay_config() -> relay::Config {
    relay::Config {
        max_reservations: 128,
        max_reservations_per_peer: 2,
        max_circuits: 32,
        max_circuits_per_peer: 4,
        max_circuit_duration: Duration::from_secs(600),
        max_circuit_bytes: 64 << 20,
        ..relay::Config::default()
    }
}

/// See the module.
#[derive(Default)]
pub(super) struct Nat {
    reachable: Reachable,
    /// Peers that offer to relay, and where they were dialled.
    known: HashMap<PeerId, Multiaddr>,
    /// Listeners through relays.
    used: HashMap<ListenerId, PeerId>,
    /// Of these relays, those that listen.
    listening: HashSet<PeerId>,
    /// Relays that rest, and until when.
    resting: HashMap<PeerId, Instant>,
}

impl Nat {
    pub(super) fn reachable(&self) -> Reachable {
        self.reachable
    }

    /// What AutoNAT found out; returns the listeners that are not needed any more.
    pub(super) fn found(&mut self, status: &autonat::NatStatus) -> Vec<ListenerId> {
        self.reachable = match status {
            autonat::NatStatus::Public(_) => Reachable::Directly,
            autonat::NatStatus::Private => Reachable::Relayed,
            autonat::NatStatus::Unknown => return Vec::new(),
        };
        match self.reachable {
            Reachable::Directly => {
                self.listening.clear();
                self.used.drain().map(|(listener, _)| listener).collect()
            }
            _ => Vec::new(),
        }
    }

    /// A peer that was dialled offers to relay.
    pub(super) fn offers(&mut self, relay: PeerId, at: Multiaddr) {
        if self.known.len() < KNOWN_MAX || self.known.contains_key(&relay) {
            self.known.insert(relay, at);
        }
    }

    /// Where to listen next, if a relay is wanted.
    pub(super) fn wanted(&self, now: Instant) -> Option<(PeerId, Multiaddr)> {
        if self.reachable != Reachable::Relayed || self.used.len() >= RELAYS_WANTED {
            return None;
        }
        let rested = |relay: &PeerId| self.resting.get(relay).is_none_or(|until| now >= *until);
        let free = |relay: &PeerId| !self.used.values().any(|used| used == relay);
        // In the order of their names: whoever is asked is not up to chance.
        let (relay, at) =
            self.known.iter().filter(|(relay, _)| free(relay) && rested(relay)).min_by_key(|(r, _)| **r)?;
        Some((*relay, at.clone().with(Protocol::P2p(*relay)).with(Protocol::P2pCircuit)))
    }

    /// A listener was begun, or could not be.
    pub(super) fn asked(&mut self, relay: PeerId, listener: Option<ListenerId>, now: Instant) {
        match listener {
            Some(listener) => {
                self.used.insert(listener, relay);
            }
            None => self.rests(relay, AGAIN, now),
        }
    }

    /// A relay listens for this node now.
    pub(super) fn listens(&mut self, relay: PeerId) {
        self.listening.insert(relay);
    }

    /// A listener has ended; whether it was through a relay.
    pub(super) fn ended(&mut self, listener: ListenerId, now: Instant) -> bool {
        let Some(relay) = self.used.remove(&listener) else { return false };
        tracing::info!(%relay, "a relay listens for this node no longer");
        let worked = self.listening.remove(&relay);
        self.rests(relay, if worked { AGAIN_AFTER_WORK } else { AGAIN }, now);
        true
    }

    fn rests(&mut self, relay: PeerId, time: Duration, now: Instant) {
        if self.resting.len() >= KNOWN_MAX {
            self.resting.retain(|_, until| now < *until);
        }
        self.resting.insert(relay, now + time);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn peer(n: u8) -> PeerId {
        crate::identity::keypair([n; 32]).unwrap().public().to_peer_id()
    }

    #[test]
    fn a_relay_that_fails_gives_way_to_another_and_rests() {
        let at: Multiaddr = "/ip4/8.8.8.8/tcp/1".parse().unwrap();
        let (mut nat, now) = (Nat::default(), Instant::now());
        (1..4).for_each(|n| nat.offers(peer(n), at.clone()));
        assert_eq!(nat.wanted(now), None, "nobody has said that it is needed");
        assert!(nat.found(&autonat::NatStatus::Private).is_empty());
        let mut listeners = Vec::new();
        while let Some((relay, addr)) = nat.wanted(now) {
            assert!(addr.to_string().ends_with("/p2p-circuit"), "{addr}");
            let listener = ListenerId::next();
            nat.asked(relay, Some(listener), now);
            listeners.push((listener, relay));
        }
        assert_eq!(listeners.len(), RELAYS_WANTED);
        assert!(nat.ended(listeners[0].0, now) && !nat.ended(listeners[0].0, now));
        let (third, _) = nat.wanted(now).unwrap();
        assert!(listeners.iter().all(|(_, used)| *used != third));
        nat.asked(third, None, now);
        assert_eq!(nat.wanted(now), None, "both rest");
        let now = now + AGAIN;
        let (relay, _) = nat.wanted(now).unwrap();
        let listener = ListenerId::next();
        nat.asked(relay, Some(listener), now);
        nat.listens(relay);
        assert_eq!(nat.wanted(now), None, "two listen");
        // The line broke: one that has worked is asked again soon.
        assert!(nat.ended(listener, now));
        assert_ne!(nat.wanted(now).unwrap().0, relay);
        nat.asked(nat.wanted(now).unwrap().0, None, now);
        assert_eq!(nat.wanted(now), None);
        assert_eq!(nat.wanted(now + AGAIN_AFTER_WORK).unwrap().0, relay);
        let rest = nat.found(&autonat::NatStatus::Public(at));
        assert_eq!((rest, nat.wanted(now)), (vec![listeners[1].0], None));
    }
}
