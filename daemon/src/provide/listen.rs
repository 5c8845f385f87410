//! Where a provider listens: TCP and QUIC, and the ports that it keeps.

use holdfast_net::Multiaddr;
use holdfast_net::addresses::{Reach, Way, reach, way};
use libp2p::multiaddr::Protocol;

use super::ProvideError;

/// Both ways, on every interface; the system draws the ports.
pub const LISTEN_DEFAULT: [&str; 2] = ["/ip4/0.0.0.0/tcp/0", "/ip4/0.0.0.0/udp/0/quic-v1"];
/// The same for this machine alone.
pub const LISTEN_LOOPBACK: [&str; 2] = ["/ip4/127.0.0.1/tcp/0", "/ip4/127.0.0.1/udp/0/quic-v1"];

/// Addresses to listen at, by what a person wrote.
pub(super) fn parse(texts: &[String]) -> Result<Vec<Multiaddr>, ProvideError> {
    let parse = |text: &String| {
        let addr = text.parse::<Multiaddr>().ok();
        let addr = addr.filter(|addr| ip(addr).is_some() && matches!(way(addr), Some(Way::Tcp | Way::Quic)));
        addr.filter(|addr| !addr.iter().any(|part| matches!(part, Protocol::P2p(_))))
            .ok_or_else(|| ProvideError::Address(text.clone()))
    };
    texts.iter().map(parse).collect()
}

/// libp2p shares ports on purpose (SO_REUSEPORT), so two providers of one user would listen at the same one and each get
/// half of the connections. A plain bind tells.
pub(super) fn check_ports_free(listen: &[Multiaddr]) -> Result<(), ProvideError> {
    for addr in listen {
        let (Some(ip), Some(port)) = (ip(addr), port(addr).filter(|port| *port != 0)) else { continue };
        let tried = match way(addr) {
            Some(Way::Quic) => std::net::UdpSocket::bind((ip, port)).map(drop),
            _ => std::net::TcpListener::bind((ip, port)).map(drop),
        };
        if let Err(error) = tried {
            let port_in_use = error.kind() == std::io::ErrorKind::AddrInUse;
            return Err(ProvideError::Listen {
                addrs: addr.to_string(),
                reason: error.to_string(),
                port_in_use,
            });
        }
    }
    Ok(())
}

/// What was wished for with the port that the system drew, if it drew one.
pub(super) fn with_port(wanted: &Multiaddr, bound: &[Multiaddr]) -> Option<Multiaddr> {
    if port(wanted) != Some(0) {
        return None;
    }
    let drawn = bound.iter().find(|bound| comes_from(wanted, bound)).and_then(port)?;
    let with_port = wanted.iter().map(|part| match part {
        Protocol::Tcp(0) => Protocol::Tcp(drawn),
        Protocol::Udp(0) => Protocol::Udp(drawn),
        part => part,
    });
    Some(with_port.collect())
}

/// What people copy should work from elsewhere where it can, and be the fastest way: loopback last, TCP before QUIC.
pub(super) fn reachable(mut bound: Vec<Multiaddr>) -> Vec<Multiaddr> {
    bound.sort_by_key(|addr| (reach(addr) == Some(Reach::Machine), way(addr)));
    bound
}

/// Whether only this machine can come here.
pub(super) fn is_private_to_machine(listen: &[Multiaddr]) -> bool {
    listen.iter().all(|addr| reach(addr) == Some(Reach::Machine))
}

fn ip(addr: &Multiaddr) -> Option<std::net::IpAddr> {
    match addr.iter().next()? {
        Protocol::Ip4(ip) => Some(ip.into()),
        Protocol::Ip6(ip) => Some(ip.into()),
        _ => None,
    }
}

fn port(addr: &Multiaddr) -> Option<u16> {
    addr.iter().find_map(|part| match part {
        Protocol::Tcp(port) | Protocol::Udp(port) => Some(port),
        _ => None,
    })
}

/// Whether a bound address came from this wish: the same family and way and, unless the wish is a wildcard, the same host.
fn comes_from(wanted: &Multiaddr, bound: &Multiaddr) -> bool {
    let same_host = match (ip(wanted), ip(bound)) {
        (Some(w), Some(b)) => w.is_ipv4() == b.is_ipv4() && (w.is_unspecified() || w == b),
        _ => false,
    };
    same_host && way(wanted) == way(bound)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn addrs(texts: &[&str]) -> Vec<Multiaddr> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn a_drawn_port_is_kept_for_its_own_way() {
        let bound =
            addrs(&["/ip4/127.0.0.1/tcp/11", "/ip4/10.0.0.1/tcp/11", "/ip4/127.0.0.1/udp/12/quic-v1"]);
        let kept: Vec<String> = addrs(&LISTEN_DEFAULT)
            .iter()
            .map(|wanted| with_port(wanted, &bound).unwrap().to_string())
            .collect();
        assert_eq!(kept, ["/ip4/0.0.0.0/tcp/11", "/ip4/0.0.0.0/udp/12/quic-v1"]);
        assert_eq!(with_port(&addrs(&["/ip4/0.0.0.0/tcp/4001"])[0], &bound), None);
        let shown: Vec<String> = reachable(bound).iter().map(ToString::to_string).collect();
        assert_eq!(shown, ["/ip4/10.0.0.1/tcp/11", "/ip4/127.0.0.1/tcp/11", "/ip4/127.0.0.1/udp/12/quic-v1"]);
    }

    #[test]
    fn what_cannot_be_listened_at_is_refused() {
        let texts = |texts: &[&str]| texts.iter().map(|t| (*t).to_owned()).collect::<Vec<_>>();
        assert_eq!(parse(&texts(&LISTEN_LOOPBACK)).unwrap().len(), 2);
        for bad in ["/ip4/0.0.0.0/udp/1", "/dns4/a.example/tcp/1", "/ip4/0.0.0.0/tcp/1/ws", "4001", ""] {
            assert!(matches!(parse(&texts(&[bad])), Err(ProvideError::Address(_))), "{bad}");
        }
        assert!(
            is_private_to_machine(&addrs(&LISTEN_LOOPBACK))
                && !is_private_to_machine(&addrs(&LISTEN_DEFAULT))
        );
    }

    #[test]
    fn a_port_in_use_is_told_for_both_ways() {
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let taken = format!("/ip4/127.0.0.1/udp/{}/quic-v1", socket.local_addr().unwrap().port());
        let refused = check_ports_free(&addrs(&[&taken]));
        assert!(matches!(refused, Err(ProvideError::Listen { port_in_use: true, .. })));
    }
}
