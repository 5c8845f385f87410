#![allow(clippy::unwrap_used)]

use super::*;

fn at(ip: &str) -> Multiaddr {
    let family = if ip.contains(':') { "ip6" } else { "ip4" };
    format!("/{family}/{ip}/tcp/5").parse().unwrap()
}

fn peer(n: u16) -> PeerId {
    let mut seed = [0; 32];
    seed[..2].copy_from_slice(&n.to_be_bytes());
    crate::identity::keypair(seed).unwrap().public().to_peer_id()
}

fn gate() -> Gate {
    Gate::new(NodeLimits {
        incoming_connections_max: 8,
        pending_incoming_max: 6,
        pending_per_address_max: 2,
        connections_per_address_max: 4,
        connections_per_peer_max: 2,
        ..NodeLimits::default()
    })
}

fn next() -> ConnectionId {
    static NEXT: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(1);
    ConnectionId::new_unchecked(NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed))
}

impl Gate {
    fn come(&mut self, peer: PeerId, ip: &str) -> Result<ConnectionId, Denied> {
        let id = next();
        self.let_begin(id, &at(ip))?;
        self.let_in(id, peer, &at(ip))?;
        self.stands(id, peer, &at(ip));
        Ok(id)
    }

    fn is_empty(&self) -> bool {
        self.pending.is_empty()
            && self.incoming.is_empty()
            && self.of_address.is_empty()
            && self.of_peer.is_empty()
    }
}

#[test]
fn one_address_cannot_take_everybodys_room() {
    let mut gate = gate();
    let mut begun = Vec::new();
    for _ in 0..10_000 {
        let id = next();
        if gate.let_begin(id, &at("10.0.0.1")).is_ok() {
            begun.push(id);
        }
    }
    assert_eq!(begun.len(), 2, "unfinished ones of one address");
    gate.come(peer(1), "10.0.0.2").unwrap();
    for id in begun {
        gate.ended_pending(id);
    }
    let mut stood = Vec::new();
    for n in 10..20 {
        stood.extend(gate.come(peer(n), "10.0.0.1"));
    }
    assert_eq!(stood.len(), 4);
    assert_eq!(gate.come(peer(30), "10.0.0.1"), Err(Denied::TooManyOfAddress));
    // Those of one customer are one.
    for n in 0..3 {
        gate.come(peer(40 + n), &format!("2001:db8:1:2::{n}")).unwrap();
    }
    assert_eq!(gate.come(peer(60), "10.0.0.9"), Err(Denied::TooMany), "eight in all");
    let all: Vec<ConnectionId> = gate.incoming.keys().copied().collect();
    for id in all {
        gate.closed(id);
    }
    assert!(gate.is_empty(), "who is gone costs nothing");
}

#[test]
fn one_peer_has_few_connections_and_who_is_denied_leaves_nothing() {
    let mut gate = gate();
    let first = gate.come(peer(1), "10.0.0.1").unwrap();
    gate.come(peer(1), "10.0.0.2").unwrap();
    assert_eq!(gate.come(peer(1), "10.0.0.3"), Err(Denied::TooManyOfPeer));
    assert_eq!((gate.pending.len(), gate.of_address.len()), (0, 2));
    gate.closed(first);
    gate.come(peer(1), "10.0.0.3").unwrap();
}

#[test]
fn who_is_blocked_does_not_come_in() {
    let mut gate = gate();
    gate.block(PeerSet::parse(&format!("10.9.0.0/16\n{}\n", peer(7))).unwrap());
    assert_eq!(gate.come(peer(1), "10.9.4.4"), Err(Denied::Blocked));
    assert_eq!(gate.come(peer(7), "10.0.0.1"), Err(Denied::Blocked));
    assert!(gate.is_empty());
    let id = gate.come(peer(1), "10.0.0.1").unwrap();
    assert!(!gate.is_blocked(&peer(1), &at("10.0.0.1")));
    gate.block(PeerSet::parse("10.0.0.1\n").unwrap());
    assert!(gate.is_blocked(&peer(1), &at("10.0.0.1")));
    gate.closed(id);
}

#[test]
fn this_machine_shares_only_the_limits_of_all() {
    let mut gate = gate();
    for n in 0..8 {
        gate.come(peer(n), ["127.0.0.1", "::1"][usize::from(n % 2)]).unwrap();
    }
    assert_eq!(gate.come(peer(9), "127.0.0.1"), Err(Denied::TooMany));
}

#[test]
fn counts_of_an_unknown_address_are_left_alone() {
    let mut gate = gate();
    gate.closed(next());
    gate.ended_pending(next());
    assert!(gate.is_empty());
}
