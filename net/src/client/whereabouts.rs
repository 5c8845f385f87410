//! Where a provider is dialled: what was given, what was found, and where a connection stood.
//!
//! What a look-up brings are hints by strangers: they are dialled, and kept only if a connection stood there (which Noise
//! allows to nobody but the provider).

use libp2p::{Multiaddr, PeerId};
use parking_lot::Mutex;

use crate::addresses::{ADDRS_MAX, PeerAddrs, plain};
use crate::finder::Finder;

/// See the module.
pub(super) struct Whereabouts {
    peer: PeerId,
    known: Mutex<Vec<Multiaddr>>,
    found: Mutex<Vec<Multiaddr>>,
    finder: Option<Finder>,
    /// Held by whoever is looking: the others wait for what he finds.
    looking: tokio::sync::Mutex<()>,
}

impl Whereabouts {
    pub(super) fn new(peer: PeerId, addrs: Vec<Multiaddr>, finder: Option<Finder>) -> Whereabouts {
        let looking = tokio::sync::Mutex::default();
        let known = Mutex::new(addrs.iter().map(|addr| plain(addr, &peer)).collect());
        Whereabouts { peer, known, found: Mutex::default(), finder, looking }
    }

    /// Addresses by the owner; whether they are others than before.
    pub(super) fn set(&self, addrs: Vec<Multiaddr>) -> bool {
        let addrs: Vec<Multiaddr> = addrs.iter().map(|addr| plain(addr, &self.peer)).collect();
        let mut known = self.known.lock();
        let news = *known != addrs;
        *known = addrs;
        news
    }

    pub(super) fn known(&self) -> Vec<Multiaddr> {
        self.known.lock().clone()
    }

    /// Everything that is worth a try.
    pub(super) fn to_dial(&self) -> Vec<Multiaddr> {
        let found = self.found.lock().clone();
        let mut addrs = self.known.lock().clone();
        addrs.truncate(ADDRS_MAX.saturating_sub(found.len()).max(ADDRS_MAX / 2));
        addrs.extend(found);
        addrs
    }

    /// A connection stands; at an address that was not known it is the first from now on.
    pub(super) fn stood_at(&self, addr: Option<Multiaddr>) {
        let Some(addr) = addr else { return };
        let mut known = self.known.lock();
        if !known.contains(&addr) {
            known.insert(0, addr);
            known.truncate(ADDRS_MAX);
        }
    }

    pub(super) fn can_ask(&self) -> bool {
        self.finder.as_ref().is_some_and(Finder::can_ask)
    }

    /// Asks; whether there is something that was found and did not stand a connection yet.
    pub(super) async fn locate(&self) -> bool {
        let Some(finder) = &self.finder else { return false };
        let _turn = self.looking.lock().await;
        let found = match finder.locate(self.peer).await {
            Ok(found) => PeerAddrs::new(self.peer, found).addrs,
            Err(e) => {
                tracing::debug!(peer = %self.peer, "looked for in vain: {e}");
                Vec::new()
            }
        };
        let known = self.known.lock().clone();
        let news: Vec<Multiaddr> = found.into_iter().filter(|addr| !known.contains(addr)).collect();
        let mut found = self.found.lock();
        if !news.is_empty() {
            tracing::info!(peer = %self.peer, ?news, "said to be elsewhere now");
            *found = news;
        }
        found.iter().any(|addr| !known.contains(addr))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn an_address_is_kept_only_where_a_connection_stood() {
        let addr = |port: u16| -> Multiaddr { format!("/ip4/10.0.0.1/tcp/{port}").parse().unwrap() };
        let peer = crate::identity::keypair([1; 32]).unwrap().public().to_peer_id();
        let at = Whereabouts::new(peer, vec![addr(1)], None);
        *at.found.lock() = vec![addr(2), addr(3)];
        assert_eq!(at.to_dial(), [addr(1), addr(2), addr(3)]);
        assert_eq!(at.known(), [addr(1)]);
        at.stood_at(Some(addr(3)));
        assert_eq!(at.known(), [addr(3), addr(1)]);
        at.stood_at(None);
        at.stood_at(Some(addr(1)));
        assert_eq!(at.known(), [addr(3), addr(1)]);
        for port in 10..100 {
            at.stood_at(Some(addr(port)));
        }
        assert_eq!(at.known().len(), ADDRS_MAX);
        assert!(at.set(vec![addr(7)]) && !at.set(vec![addr(7)]));
    }
}
