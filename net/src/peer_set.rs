//! Sets of peers and networks, as an operator writes them down.
//!
//! ```text
//!   # the office, and a friend
//!   192.0.2.0/24
//!   2001:db8::/32
//!   12D3KooWEyoppNCUx8Yx66oV9fJnriXwCcXwDDUA2kj6vnc6iDEp
//! ```
//!
//! One peer, address or network a line; what follows a `#` is for people. A line that is none of them makes the whole text
//! invalid: half a block list would be worse than the older one.

use std::collections::HashSet;
use std::net::IpAddr;

use libp2p::PeerId;

/// The longest text.
pub const PEER_SET_BYTES_MAX: usize = 4 << 20;
/// Networks of a set; peers are looked up at once, networks one by one.
pub const NETWORKS_MAX: usize = 4096;

/// See the module.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PeerSet {
    peers: HashSet<PeerId>,
    networks: Vec<Network>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Network {
    address: IpAddr,
    bits: u8,
}

/// Why a text is no set.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PeerSetError {
    /// A line that is nothing of what may stand there.
    #[error(
        "line {line}: `{text}` is neither a peer's identity nor an address or network; lines look like 192.0.2.0/24 or 12D3Koo..."
    )]
    Line {
        /// Counted from 1.
        line: usize,
        /// What stands there.
        text: String,
    },
    /// More than is looked through for each connection.
    #[error("more than {NETWORKS_MAX} networks")]
    TooManyNetworks,
    /// Longer than anybody writes.
    #[error("longer than {PEER_SET_BYTES_MAX} bytes")]
    TooLong,
}

impl PeerSet {
    /// From a text of the form above.
    pub fn parse(text: &str) -> Result<PeerSet, PeerSetError> {
        if text.len() > PEER_SET_BYTES_MAX {
            return Err(PeerSetError::TooLong);
        }
        let mut set = PeerSet::default();
        for (number, line) in text.lines().enumerate() {
            let entry = line.split('#').next().unwrap_or_default().trim();
            if entry.is_empty() {
                continue;
            }
            if let Ok(peer) = entry.parse::<PeerId>() {
                set.peers.insert(peer);
            } else if let Some(network) = Network::parse(entry) {
                if set.networks.len() >= NETWORKS_MAX {
                    return Err(PeerSetError::TooManyNetworks);
                }
                set.networks.push(network);
            } else {
                let text = crate::codec::shorten(entry);
                return Err(PeerSetError::Line { line: number + 1, text });
            }
        }
        Ok(set)
    }

    /// These peers.
    pub fn of_peers(peers: impl IntoIterator<Item = PeerId>) -> PeerSet {
        PeerSet { peers: peers.into_iter().collect(), networks: Vec::new() }
    }

    /// Whether the peer is in it by name.
    pub fn has_peer(&self, peer: &PeerId) -> bool {
        self.peers.contains(peer)
    }

    /// Whether the address is in one of its networks.
    pub fn has_address(&self, address: IpAddr) -> bool {
        self.networks.iter().any(|network| network.has(address))
    }

    /// How many entries it has.
    pub fn len(&self) -> usize {
        self.peers.len() + self.networks.len()
    }

    /// Whether nobody is in it.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Network {
    fn parse(text: &str) -> Option<Network> {
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) => (address, Some(bits)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().ok()?;
        let longest = if address.is_ipv4() { 32 } else { 128 };
        let bits = match bits {
            Some(bits) => bits.parse::<u8>().ok().filter(|bits| *bits <= longest)?,
            None => longest,
        };
        Some(Network { address, bits })
    }

    fn has(&self, address: IpAddr) -> bool {
        match (self.address, address.to_canonical()) {
            (IpAddr::V4(ours), IpAddr::V4(theirs)) => {
                let apart = u32::from(ours) ^ u32::from(theirs);
                apart.checked_shr(32 - u32::from(self.bits)).unwrap_or(0) == 0
            }
            (IpAddr::V6(ours), IpAddr::V6(theirs)) => {
                let apart = u128::from(ours) ^ u128::from(theirs);
                apart.checked_shr(128 - u32::from(self.bits)).unwrap_or(0) == 0
            }
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const PEER: &str = "12D3KooWEyoppNCUx8Yx66oV9fJnriXwCcXwDDUA2kj6vnc6iDEp";

    #[test]
    fn peers_addresses_and_networks() {
        let set =
            PeerSet::parse(&format!("# all\n\n {PEER} # a friend\n10.1.0.0/16\n::1\n2001:db8::/33\r\n"))
                .unwrap();
        assert_eq!(set.len(), 4);
        assert!(set.has_peer(&PEER.parse().unwrap()));
        let has = |ip: &str| set.has_address(ip.parse().unwrap());
        assert!(has("10.1.255.3") && has("::ffff:10.1.2.3") && has("::1") && has("2001:db8:7fff::1"));
        assert!(!has("10.2.0.0") && !has("::2") && !has("2001:db8:8000::"));
        assert!(PeerSet::parse("0.0.0.0/0").unwrap().has_address("9.9.9.9".parse().unwrap()));
        assert!(!PeerSet::parse("0.0.0.0/0").unwrap().has_address("::9".parse().unwrap()));
        assert!(PeerSet::parse("").unwrap().is_empty());
    }

    #[test]
    fn a_line_that_is_nothing_makes_the_whole_invalid() {
        for bad in ["10.0.0.0/33", "::/129", "10.0.0.0/", "10.0.0", "a.example", "12D3KooW", "10.0.0.0/-1"] {
            let text = format!("10.0.0.1\n{bad}\n");
            assert_eq!(PeerSet::parse(&text), Err(PeerSetError::Line { line: 2, text: bad.into() }));
        }
        let many: String = (0..=NETWORKS_MAX).map(|n| format!("10.0.{}.{}\n", n / 256, n % 256)).collect();
        assert_eq!(PeerSet::parse(&many), Err(PeerSetError::TooManyNetworks));
    }
}
