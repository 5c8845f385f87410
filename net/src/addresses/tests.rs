#![allow(clippy::unwrap_used)]

use super::*;

fn addr(text: &str) -> Multiaddr {
    text.parse().unwrap()
}

fn peer() -> PeerId {
    "12D3KooWEyoppNCUx8Yx66oV9fJnriXwCcXwDDUA2kj6vnc6iDEp".parse().unwrap()
}

#[test]
fn ways_are_told_apart_and_what_cannot_be_dialled_has_none() {
    assert_eq!(way(&addr("/ip4/1.2.3.4/tcp/1")), Some(Way::Tcp));
    assert_eq!(way(&addr(&format!("/dns4/a.example/tcp/1/p2p/{}", peer()))), Some(Way::Tcp));
    assert_eq!(way(&addr("/ip6/::1/udp/1/quic-v1")), Some(Way::Quic));
    assert_eq!(way(&addr(&format!("/ip4/1.2.3.4/tcp/1/p2p/{}/p2p-circuit", peer()))), Some(Way::Relayed));
    for no in ["/ip4/1.2.3.4/tcp/1/ws", "/ip4/1.2.3.4/udp/1", "/ip4/1.2.3.4", "/tcp/1", "/memory/7"] {
        assert_eq!(way(&addr(no)), None, "{no}");
    }
    assert_eq!(way(&addr(&format!("/dns4/{}/tcp/1", "a".repeat(300)))), None);
    assert!(Way::Tcp < Way::Quic && Way::Quic < Way::Relayed, "they are tried in this order");
}

#[test]
fn nobody_sends_us_to_a_network_that_he_was_not_seen_in() {
    let told =
        ["/ip4/127.0.0.1/tcp/1", "/ip4/192.168.0.9/tcp/1", "/ip4/100.64.1.1/tcp/1", "/ip4/8.8.8.8/tcp/1"];
    let believed = |seen: &str| {
        let told = told.iter().map(|text| addr(text));
        believable(told, &addr(seen), peer()).addrs.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    assert_eq!(believed("/ip4/9.9.9.9/tcp/5"), told[3..]);
    assert_eq!(believed("/ip4/10.0.0.7/tcp/5"), told[1..]);
    assert_eq!(believed("/ip6/fe80::7/tcp/5"), told[1..]);
    assert_eq!(believed("/ip4/127.0.0.1/tcp/5"), told);
    assert!(believed("/memory/5").is_empty());
}

#[test]
fn lists_are_plain_without_doubles_and_bounded() {
    let one = addr("/ip4/8.8.8.8/tcp/1");
    let with = one.clone().with(Protocol::P2p(peer()));
    assert_eq!(PeerAddrs::new(peer(), [one.clone(), with, addr("/memory/1")]).addrs, [one]);
    let many = (1..100u16).map(|port| addr(&format!("/ip4/8.8.8.8/tcp/{port}")));
    assert_eq!(PeerAddrs::new(peer(), many).addrs.len(), ADDRS_MAX);
}

#[test]
fn a_mapped_address_is_what_it_maps() {
    assert_eq!(reach(&addr("/ip6/::ffff:127.0.0.1/tcp/1")), Some(Reach::Machine));
    assert_eq!(ip_of(&addr("/ip6/::ffff:10.0.0.1/tcp/1")), Some("10.0.0.1".parse().unwrap()));
    assert_eq!(reach(&addr("/ip4/0.0.0.0/tcp/1")), None);
}
