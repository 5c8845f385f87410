//! A watcher's way to providers: one shared session with each, in which its key was proven and its permits were shown.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use anyhow::Context as _;
use holdfast_content::watch::WatcherKeys;
use holdfast_net::client::{AuditSpec, Client, ClientConfig, Priority, PutOutcome, Session};
use holdfast_net::node::{Node, NodeConfig};
use holdfast_net::permit::Revocations;
use holdfast_net::{
    ByteRange, DealId, Env, Finder, Multiaddr, NetError, PeerAddrs, PeerId, RecordKey, SignedPermit,
    SigningKey, identity,
};
use holdfast_proofs::PieceCid;
use parking_lot::Mutex;

use super::bundle::Bundle;
use crate::drive::ledger::Peer;
use crate::drive::threads::Threads;
use crate::reading::{Beside, Look, READ_PATIENCE};

/// One answer to something small.
pub const PATIENCE: Duration = Duration::from_secs(10);
/// A challenge, or a read in a re-check.
const CHALLENGE: Duration = Duration::from_secs(30);
/// Leaves asked in one challenge.
const LEAVES: u16 = 64;
/// Bytes of the ranged read in the re-check.
const RANGE_BYTES: u64 = 4096;

/// What the owner permits, by provider.
#[derive(Default)]
struct Permits {
    number: u64,
    of: BTreeMap<Peer, Vec<SignedPermit>>,
    anybody: Option<SignedPermit>,
}

struct Link {
    session: Session,
    /// The bundle whose permits were shown.
    shown: Option<u64>,
}

/// See the module.
pub struct Reach {
    client: Client,
    holder: SigningKey,
    /// Time and randomness.
    pub env: Env,
    /// Where work that blocks is done.
    pub threads: Threads,
    places: Mutex<BTreeMap<Peer, Vec<Multiaddr>>>,
    permits: Mutex<Permits>,
    links: Mutex<HashMap<Peer, Link>>,
}

impl Reach {
    /// A node of its own, under the capability's identity.
    pub async fn start(keys: &WatcherKeys, env: Env, mdns: bool) -> anyhow::Result<Reach> {
        let node = NodeConfig::client(identity::keypair(*keys.network.as_bytes())?);
        let node = Node::start(node).await.context("starting the network node")?;
        let finder = Finder::new(env.clone(), Vec::new(), mdns);
        let client = Client::with_finder(node, env.clone(), ClientConfig::default(), finder);
        Ok(Reach::over(client, keys, env, Threads::Others))
    }

    /// Over a client that is there.
    pub fn over(client: Client, keys: &WatcherKeys, env: Env, threads: Threads) -> Reach {
        Reach {
            client,
            holder: keys.holder.clone(),
            env,
            threads,
            places: Mutex::default(),
            permits: Mutex::default(),
            links: Mutex::default(),
        }
    }

    /// This watcher as a peer: a provider that lists its clients lists it.
    pub fn peer_id(&self) -> PeerId {
        self.client.peer_id()
    }

    /// The connections end.
    pub async fn shutdown(&self) {
        self.client.shutdown().await;
    }

    /// Where a provider may be, beside what is known of it.
    pub fn add_place(&self, peer: &Peer, addrs: &[String]) {
        let addrs: Vec<Multiaddr> = addrs.iter().filter_map(|addr| addr.parse().ok()).collect();
        let Ok(id) = PeerId::from_bytes(peer) else { return };
        if addrs.is_empty() {
            return;
        }
        let mut places = self.places.lock();
        let known = places.entry(peer.clone()).or_default();
        let before = known.len();
        for addr in addrs {
            if !known.contains(&addr) && known.len() < holdfast_net::addresses::ADDRS_MAX {
                known.push(addr);
            }
        }
        if known.len() > before {
            let found = PeerAddrs::new(id, known.clone());
            drop(places);
            self.links.lock().remove(peer);
            if let Some(finder) = self.client.finder() {
                finder.add_bootstrap([found]);
            }
        }
    }

    /// Everybody whose place is known.
    pub fn peers(&self) -> Vec<Peer> {
        self.places.lock().keys().cloned().collect()
    }

    /// Where one is.
    pub fn addrs(&self, peer: &Peer) -> Vec<String> {
        let places = self.places.lock();
        places.get(peer).map(|addrs| addrs.iter().map(ToString::to_string).collect()).unwrap_or_default()
    }

    /// From now on these permits are shown.
    pub fn set_permits(&self, bundle: &Bundle) -> anyhow::Result<()> {
        let mut of: BTreeMap<Peer, Vec<SignedPermit>> = BTreeMap::new();
        for provider in &bundle.head.providers {
            let permits = provider.permits.iter().map(|permit| SignedPermit::from_bytes(permit));
            of.insert(provider.known.peer.to_vec(), permits.collect::<Result<_, _>>()?);
        }
        let anybody =
            bundle.head.anybody.as_ref().map(|permit| SignedPermit::from_bytes(permit)).transpose()?;
        *self.permits.lock() = Permits { number: bundle.number, of, anybody };
        Ok(())
    }

    /// The permit to place with a provider, if there is one.
    pub fn place_permit(&self, peer: &Peer) -> Option<SignedPermit> {
        let permits = self.permits.lock();
        match permits.of.get(peer) {
            // Of those that it named the owner says itself where nothing new is to go.
            Some(own) => own.iter().find(|permit| permit.body().place.is_some()).cloned(),
            None => permits.anybody.clone(),
        }
    }

    /// What is shown to a provider, and of which bundle it is.
    fn permits(&self, peer: &Peer) -> (u64, Vec<SignedPermit>) {
        let permits = self.permits.lock();
        let own = permits.of.get(peer).cloned();
        (permits.number, own.unwrap_or_else(|| permits.anybody.iter().cloned().collect()))
    }

    fn parts(&self, peer: &Peer) -> Result<(PeerId, Vec<Multiaddr>), NetError> {
        let id = PeerId::from_bytes(peer).map_err(|e| NetError::Invalid(format!("peer id: {e}")))?;
        Ok((id, self.places.lock().get(peer).cloned().unwrap_or_default()))
    }

    /// The session, proven; nothing is shown yet.
    pub async fn greeted(&self, peer: &Peer) -> Result<Session, NetError> {
        let known = self.links.lock().get(peer).map(|link| link.session.clone());
        if let Some(session) = known {
            return Ok(session);
        }
        let (id, addrs) = self.parts(peer)?;
        let session = self.client.session(id, addrs);
        session.authenticate(self.holder.clone()).await?;
        self.links.lock().insert(peer.clone(), Link { session: session.clone(), shown: None });
        Ok(session)
    }

    /// The same, with the permits of the newest bundle shown.
    pub async fn session(&self, peer: &Peer) -> Result<Session, NetError> {
        let session = self.greeted(peer).await?;
        let (number, permits) = self.permits(peer);
        if self.links.lock().get(peer).is_some_and(|link| link.shown == Some(number)) {
            return Ok(session);
        }
        for permit in permits {
            session.present(permit).await?;
        }
        if let Some(link) = self.links.lock().get_mut(peer) {
            link.shown = Some(number);
        }
        Ok(session)
    }

    /// Shows them again before the next request: the provider seems not to know them.
    pub fn show_again(&self, peer: &Peer) {
        if let Some(link) = self.links.lock().get_mut(peer) {
            link.shown = None;
        }
    }

    /// A challenge; with `read` some of what it asks is read before it is sent, and the result says what that showed.
    pub async fn audit(
        &self,
        peer: &Peer,
        deal: [u8; 32],
        cid: &[u8],
        read: bool,
    ) -> Result<Option<Look>, NetError> {
        let piece = PieceCid::from_bytes(cid).map_err(|e| NetError::Invalid(e.to_string()))?;
        let epoch = self.env.clock.unix_seconds();
        let (deal, spec) = (DealId(deal), AuditSpec { piece, count: LEAVES, epoch, record: None });
        let asking = async {
            let session = self.session(peer).await?;
            let drawn = session.draw_audit(deal, &spec)?;
            let beside = match read {
                true => Some(Beside::read(&session, deal, &drawn, &piece, self.env.rng.as_ref()).await?),
                false => None,
            };
            let audit = session.audit_drawn(drawn, CHALLENGE).await?;
            Ok::<_, NetError>(beside.and_then(|beside| beside.held_against(&audit)))
        };
        let patience = CHALLENGE * 2 + READ_PATIENCE * 2;
        tokio::time::timeout(patience, asking).await.map_err(|_| NetError::Timeout(CHALLENGE))?
    }

    /// A ranged read and a challenge over a connection that shares nothing with any other, as whoever places counts.
    pub async fn recheck(
        &self,
        peer: &Peer,
        deal: [u8; 32],
        cid: &[u8],
        expected: impl FnOnce(u64, &mut [u8]) -> std::io::Result<()>,
        len: u64,
    ) -> Result<(), NetError> {
        let (id, addrs) = self.parts(peer)?;
        let session = self.client.connect_fresh(id, addrs).await?;
        session.authenticate(self.holder.clone()).await?;
        for permit in self.permits(peer).1 {
            session.present(permit).await?;
        }
        let mut random = [0; 8];
        self.env.rng.fill(&mut random);
        let take = len.min(RANGE_BYTES);
        let offset = u64::from_le_bytes(random).checked_rem(len - take + 1).unwrap_or(0);
        let range = ByteRange::new(offset, u32::try_from(take).unwrap_or(u32::MAX));
        let parts = session.read(DealId(deal), &[range], Priority::Interactive, CHALLENGE).await?;
        let mut bytes = vec![0; usize::try_from(take).unwrap_or(0)];
        expected(offset, &mut bytes).map_err(|e| NetError::Local(e.to_string()))?;
        if parts.len() != 1 || parts.first().is_none_or(|part| part.as_ref() != bytes.as_slice()) {
            return Err(NetError::Protocol(
                "it answered a read of what it just stored with other bytes".into(),
            ));
        }
        let piece = PieceCid::from_bytes(cid).map_err(|e| NetError::Invalid(e.to_string()))?;
        let epoch = self.env.clock.unix_seconds();
        session
            .audit(DealId(deal), &AuditSpec { piece, count: LEAVES, epoch, record: None }, CHALLENGE)
            .await?;
        session.close().await;
        Ok(())
    }

    /// A record.
    pub async fn get(&self, peer: &Peer, key: &RecordKey) -> Result<Option<Vec<u8>>, NetError> {
        let asking = async { self.greeted(peer).await?.get_record(key).await };
        let value =
            tokio::time::timeout(PATIENCE, asking).await.map_err(|_| NetError::Timeout(PATIENCE))??;
        Ok(value.map(|value| value.to_vec()))
    }

    /// Whether a provider has the list by which an owner took the permits back that are shown to it. It is signed: a provider that
    /// only says so shows nothing.
    pub async fn is_taken_back(&self, peer: &Peer) -> bool {
        let clients: Vec<[u8; 32]> = self.permits(peer).1.iter().map(|permit| permit.body().client).collect();
        for client in clients {
            if let Ok(Some(value)) = self.get(peer, &Revocations::key(&client)).await
                && names(&value, &client, &self.holder)
            {
                return true;
            }
        }
        false
    }

    /// Leaves a record; whether it is the newest there.
    pub async fn put(&self, peer: &Peer, key: &RecordKey, value: &[u8]) -> Result<bool, NetError> {
        // A client of the drive, as the permits show, is no stranger to the provider.
        let putting = async { self.session(peer).await?.put_record(key, value).await };
        let put =
            tokio::time::timeout(PATIENCE, putting).await.map_err(|_| NetError::Timeout(PATIENCE))??;
        Ok(match put {
            PutOutcome::Stored => true,
            PutOutcome::Superseded(kept) => kept.as_ref() == value,
        })
    }
}

/// Whether a record is this client's list, and takes this holder's permits back.
fn names(value: &[u8], client: &[u8; 32], holder: &SigningKey) -> bool {
    let list = Revocations::from_bytes(value).ok().filter(|list| list.client == *client);
    list.is_some_and(|list| list.names(&holder.verifying_key().to_bytes()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn only_the_owners_own_list_takes_a_permit_back() {
        let key = |n: u8| SigningKey::from_bytes(&[n; 32]);
        let public = |n: u8| key(n).verifying_key().to_bytes();
        let list = |client: u8, holder: u8| {
            Revocations::new(public(client), [public(holder)], 1).sign(&key(client)).unwrap()
        };
        assert!(names(&list(1, 7), &public(1), &key(7)));
        assert!(!names(&list(1, 8), &public(1), &key(7)), "somebody else's permits");
        assert!(!names(&list(2, 7), &public(1), &key(7)), "a list that anybody can sign");
        let mut forged = list(1, 7);
        *forged.last_mut().unwrap() ^= 1;
        assert!(!names(&forged, &public(1), &key(7)) && !names(b"", &public(1), &key(7)));
    }
}
