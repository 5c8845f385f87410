//! A provider's identity and where it may be reached, as people write it: `/ip4/192.0.2.7/tcp/4001/p2p/12D3Koo...`.

use std::{fmt, str::FromStr};

use holdfast_net::tags::Tags;
use libp2p::{Multiaddr, PeerId, multiaddr::Protocol};
use serde::{Deserialize, Deserializer, Serialize};

/// Addresses of one provider that are kept.
pub const ADDRS_MAX: usize = 16;

/// A provider as the configuration names it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ProviderAddr {
    pub peer_id: String,
    /// Without the final `/p2p/...`.
    pub addrs: Vec<String>,
    /// Where the owner says that it belongs; absent where nothing is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tags: Option<Tags>,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProviderAddrError {
    #[error("`{0}` is not an address; one looks like /ip4/192.0.2.7/tcp/4001/p2p/12D3KooW...")]
    Multiaddr(String),
    #[error("`{0}` does not end with /p2p/ and the provider's identity, which `holdfast provide` prints")]
    NoPeer(String),
    #[error("`{0}` is not a peer's identity")]
    PeerId(String),
    #[error("a provider has at most {ADDRS_MAX} addresses")]
    TooMany,
}

impl ProviderAddr {
    pub fn new(peer: PeerId, addrs: &[Multiaddr]) -> ProviderAddr {
        // libp2p reports addresses with and without the identity at the end; ours never have it.
        let plain = |addr: &Multiaddr| {
            addr.iter().filter(|part| !matches!(part, Protocol::P2p(_))).collect::<Multiaddr>().to_string()
        };
        let mut plain: Vec<String> = addrs.iter().map(plain).collect();
        plain.truncate(ADDRS_MAX);
        ProviderAddr { peer_id: peer.to_string(), addrs: plain, tags: None }
    }

    /// Its parts as libp2p knows them. It cannot fail for a value that was parsed or deserialized.
    pub fn parts(&self) -> Result<(PeerId, Vec<Multiaddr>), ProviderAddrError> {
        if self.addrs.len() > ADDRS_MAX {
            return Err(ProviderAddrError::TooMany);
        }
        let peer = self.peer_id.parse().map_err(|_| ProviderAddrError::PeerId(self.peer_id.clone()))?;
        let addr = |a: &String| a.parse().map_err(|_| ProviderAddrError::Multiaddr(a.clone()));
        Ok((peer, self.addrs.iter().map(addr).collect::<Result<_, _>>()?))
    }

    /// The addresses as people exchange them, with the identity at the end.
    pub fn full_addrs(&self) -> Vec<String> {
        self.addrs.iter().map(|a| format!("{a}/p2p/{}", self.peer_id)).collect()
    }

    /// Adds providers to a list: one that is there already gets the new addresses in front.
    pub fn merge(list: &mut Vec<ProviderAddr>, more: impl IntoIterator<Item = ProviderAddr>) {
        for new in more {
            match list.iter_mut().find(|p| p.peer_id == new.peer_id) {
                None => list.push(new),
                Some(known) => {
                    let mut addrs = new.addrs;
                    addrs.extend(
                        known.addrs.iter().filter(|a| !addrs.contains(a)).cloned().collect::<Vec<_>>(),
                    );
                    addrs.truncate(ADDRS_MAX);
                    known.addrs = addrs;
                    // Saying nothing leaves what was said.
                    if let Some(tags) = new.tags {
                        known.tags = Some(tags).filter(|tags| !tags.is_empty());
                    }
                }
            }
        }
    }
}

impl FromStr for ProviderAddr {
    type Err = ProviderAddrError;

    fn from_str(text: &str) -> Result<ProviderAddr, ProviderAddrError> {
        let mut addr: Multiaddr =
            text.trim().parse().map_err(|_| ProviderAddrError::Multiaddr(text.trim().to_owned()))?;
        let peer = addr.pop();
        // A way through another peer, which nobody here can go; without it the address would be another one.
        if addr.iter().any(|part| matches!(part, Protocol::P2p(_))) {
            return Err(ProviderAddrError::Multiaddr(text.trim().to_owned()));
        }
        match peer {
            Some(Protocol::P2p(peer)) if !addr.is_empty() => Ok(ProviderAddr::new(peer, &[addr])),
            _ => Err(ProviderAddrError::NoPeer(text.trim().to_owned())),
        }
    }
}

impl fmt::Display for ProviderAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.addrs.first() {
            Some(addr) => write!(f, "{addr}/p2p/{}", self.peer_id),
            None => write!(f, "/p2p/{}", self.peer_id),
        }
    }
}

impl<'de> Deserialize<'de> for ProviderAddr {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<ProviderAddr, D::Error> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Raw {
            peer_id: String,
            addrs: Vec<String>,
            #[serde(default)]
            tags: Option<Tags>,
        }
        let raw = Raw::deserialize(deserializer)?;
        let provider = ProviderAddr { peer_id: raw.peer_id, addrs: raw.addrs, tags: raw.tags };
        if provider.tags.as_ref().is_some_and(|tags| !tags.is_valid()) {
            return Err(serde::de::Error::custom("a tag is empty, too long, or cannot be shown"));
        }
        provider.parts().map_err(serde::de::Error::custom)?;
        Ok(provider)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const PEER: &str = "12D3KooWEyoppNCUx8Yx66oV9fJnriXwCcXwDDUA2kj6vnc6iDEp";

    #[test]
    fn text_and_json_round_trip() {
        let text = format!("/ip4/127.0.0.1/tcp/4001/p2p/{PEER}");
        let provider: ProviderAddr = format!(" {text}\n").parse().unwrap();
        assert_eq!(provider.to_string(), text);
        assert_eq!(provider.addrs, ["/ip4/127.0.0.1/tcp/4001"]);
        let json = serde_json::to_string(&provider).unwrap();
        assert_eq!(serde_json::from_str::<ProviderAddr>(&json).unwrap(), provider);
        for bad in ["", "/ip4/1.2.3.4/tcp/1", "/p2p/x", "127.0.0.1:40", &format!("/p2p/{PEER}")] {
            assert!(bad.parse::<ProviderAddr>().is_err(), "{bad}");
        }
        let relayed = format!("/ip4/1.2.3.4/tcp/1/p2p/{PEER}/p2p-circuit/p2p/{PEER}");
        assert!(relayed.parse::<ProviderAddr>().is_err(), "a way that nobody here can go");
        assert!(serde_json::from_str::<ProviderAddr>(r#"{"peer_id":"x","addrs":[]}"#).is_err());
    }

    #[test]
    fn merging_keeps_one_entry_for_each_peer() {
        let a: ProviderAddr = format!("/ip4/127.0.0.1/tcp/1/p2p/{PEER}").parse().unwrap();
        let b: ProviderAddr = format!("/ip4/127.0.0.1/tcp/2/p2p/{PEER}").parse().unwrap();
        let mut list = vec![a.clone()];
        let tags = Some(Tags { place: Some("oslo".into()), ..Tags::default() });
        ProviderAddr::merge(&mut list, [ProviderAddr { tags: tags.clone(), ..b }, a.clone()]);
        assert_eq!(list.len(), 1);
        assert_eq!(list[0].tags, tags, "saying nothing leaves what was said");
        assert_eq!(list[0].addrs, ["/ip4/127.0.0.1/tcp/1", "/ip4/127.0.0.1/tcp/2"]);
        ProviderAddr::merge(&mut list, [ProviderAddr { tags: Some(Tags::default()), ..a }]);
        assert_eq!(list[0].tags, None);
    }
}
