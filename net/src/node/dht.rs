//! The node's part in the DHT: looking up peers and holders, and announcing what this node holds.
//!
//! Kademlia under a name of our own ([`DHT_PROTOCOL`]): neither IPFS nodes nor their records mix in. Keys are hashes
//! ([`DhtKey`]) under which nobody finds a drive who does not know its name already.
//!
//! Promises: every look-up ends within [`QUERY_TIMEOUT`]; look-ups and announcements under way are bounded; an address is
//! entered for others only if the peer told it itself and was seen from where it makes sense; a peer's entry holds what
//! it told last, and nothing older. Refuses to say who is right: a holder that was found may lie, and has to be asked.

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::time::Duration;

use libp2p::kad::{
    self, BucketInserts, GetClosestPeersError, GetClosestPeersOk, GetProvidersOk, Mode, QueryId, QueryResult,
};
use libp2p::{Multiaddr, PeerId, StreamProtocol};
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::index::{DhtLimits, HolderIndex};
use crate::addresses::PeerAddrs;
use crate::error::NetError;
use crate::record::RecordKey;

/// The protocol's name; a DHT of others has another one.
pub const DHT_PROTOCOL: StreamProtocol = StreamProtocol::new("/holdfast/kad/1");
/// Length of every key.
pub const DHT_KEY_BYTES: usize = 32;

/// From a look-up's begin to its answer.
pub const QUERY_TIMEOUT: Duration = Duration::from_secs(12);
/// One peer's answer within a look-up.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);
/// Records are forgotten after this, unless their holder announces them again.
const RECORD_TTL: Duration = Duration::from_secs(24 * 3600);
/// How often a holder does.
const ANNOUNCE_INTERVAL: Duration = Duration::from_secs(8 * 3600);
/// Announcements under way.
const ANNOUNCING_MAX: usize = 8;
/// Records that one node announces.
pub const ANNOUNCED_MAX: usize = 4096;
/// Look-ups under way.
const LOOKUPS_MAX: usize = 64;
/// Until some peer of the DHT has answered, the known ones are tried so often.
const JOIN_INTERVAL: Duration = Duration::from_secs(10);
/// Afterwards so often.
const REFRESH_INTERVAL: Duration = Duration::from_secs(300);

/// A key of the DHT.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DhtKey(pub [u8; DHT_KEY_BYTES]);

impl DhtKey {
    /// Under which holders of this record are found. Whoever sees the key learns nothing of the record's name, which is a
    /// public key and cannot be guessed.
    pub fn of_record(key: &RecordKey) -> DhtKey {
        let mut named = vec![u8::from(key.kind)];
        named.extend_from_slice(&key.name);
        DhtKey(blake3::derive_key("holdfast 2026 dht record key v1", &named))
    }

    fn wire(&self) -> kad::RecordKey {
        kad::RecordKey::new(&self.0)
    }
}

/// A node's part in the DHT.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum DhtRole {
    /// None.
    #[default]
    Off,
    /// Asks others.
    Client,
    /// Answers as well, and keeps records for others.
    Server,
}

/// Kademlia as this program runs it.
pub(super) type Kademlia = kad::Behaviour<HolderIndex>;

/// The behaviour for a role; none for none.
pub(super) fn behaviour(peer: PeerId, role: DhtRole, limits: &DhtLimits) -> Option<Kademlia> {
    let mode = match role {
        DhtRole::Off => return None,
        DhtRole::Client => Mode::Client,
        DhtRole::Server => Mode::Server,
    };
    let mut config = kad::Config::new(DHT_PROTOCOL);
    config
        .set_query_timeout(QUERY_TIMEOUT)
        .set_substreams_timeout(REQUEST_TIMEOUT)
        .set_kbucket_inserts(BucketInserts::Manual)
        .set_provider_record_ttl(Some(RECORD_TTL))
        .set_provider_publication_interval(None)
        .set_publication_interval(None)
        .set_replication_interval(None)
        .set_caching(kad::Caching::Disabled)
        .set_periodic_bootstrap_interval(None);
    let mut kademlia = Kademlia::with_config(peer, HolderIndex::new(peer, limits.clone()), config);
    kademlia.set_mode(Some(mode));
    Some(kademlia)
}

type Found<T> = oneshot::Sender<Result<T, NetError>>;

enum Lookup {
    Peer { peer: PeerId, done: Found<Vec<Multiaddr>> },
    Holders { found: HashSet<PeerId>, max: usize, done: Found<Vec<PeerId>> },
    Announcing,
}

/// What is under way, and what is to be done. The behaviour itself lies in the swarm.
pub(super) struct Dht {
    role: DhtRole,
    bootstrap: Vec<PeerAddrs>,
    lookups: HashMap<QueryId, Lookup>,
    /// What this node holds.
    announced: BTreeSet<DhtKey>,
    due: VecDeque<DhtKey>,
    announced_at: Instant,
    /// How many peers were known when everything was announced last.
    announced_to: usize,
    /// Whether some peer of the DHT has told its addresses since the start.
    joined: bool,
    next_join: Instant,
}

impl Dht {
    pub(super) fn new(role: DhtRole, bootstrap: Vec<PeerAddrs>) -> Dht {
        let now = Instant::now();
        Dht {
            role,
            bootstrap,
            lookups: HashMap::new(),
            announced: BTreeSet::new(),
            due: VecDeque::new(),
            announced_at: now,
            announced_to: 0,
            joined: false,
            next_join: now,
        }
    }

    /// What is to be done from time to time; called about once a second.
    pub(super) fn tick(&mut self, kad: &mut Kademlia) {
        let now = Instant::now();
        if now >= self.next_join {
            self.join(kad);
            kad.store_mut().expire(now.into_std());
        }
        let peers = peers_known(kad);
        let grown = peers >= self.announced_to.saturating_mul(2).max(1);
        if now.duration_since(self.announced_at) >= ANNOUNCE_INTERVAL || (self.joined && grown) {
            self.announced_at = now;
            self.announced_to = peers;
            self.due = self.announced.iter().copied().collect();
        }
        self.pump(kad);
    }

    /// Enters the peers that are known from elsewhere, and looks around from them.
    pub(super) fn join(&mut self, kad: &mut Kademlia) {
        self.next_join = Instant::now() + if self.joined { REFRESH_INTERVAL } else { JOIN_INTERVAL };
        for known in &self.bootstrap {
            // One that is there already has told better addresses itself.
            if !knows(kad, &known.peer) {
                enter(kad, known);
            }
        }
        if self.role == DhtRole::Server {
            // An error says that nobody is known yet.
            let _ = kad.bootstrap();
        }
    }

    /// This node is somewhere else now: who knows it has to hear of it.
    pub(super) fn moved(&mut self) {
        self.next_join = Instant::now();
    }

    /// A peer of the DHT told where it is.
    pub(super) fn told(&mut self, kad: &mut Kademlia, told: &PeerAddrs) {
        if enter(kad, told) {
            self.joined = true;
        }
    }

    /// Replaces what this node announces; beyond [`ANNOUNCED_MAX`] the rest is left out.
    pub(super) fn announce(&mut self, kad: &mut Kademlia, keys: Vec<DhtKey>) {
        let wanted: BTreeSet<DhtKey> = keys.into_iter().take(ANNOUNCED_MAX).collect();
        for gone in self.announced.difference(&wanted) {
            kad.stop_providing(&gone.wire());
        }
        self.due.retain(|key| wanted.contains(key));
        self.due.extend(wanted.difference(&self.announced));
        self.announced = wanted;
        self.pump(kad);
    }

    fn pump(&mut self, kad: &mut Kademlia) {
        let mut under_way = self.lookups.values().filter(|l| matches!(l, Lookup::Announcing)).count();
        while under_way < ANNOUNCING_MAX {
            let Some(key) = self.due.pop_front() else { return };
            match kad.start_providing(key.wire()) {
                Ok(query) => {
                    self.lookups.insert(query, Lookup::Announcing);
                    under_way += 1;
                }
                Err(e) => tracing::warn!("a record cannot be announced: {e}"),
            }
        }
    }

    /// Looks for a peer's addresses; `done` gets none where nobody knows it.
    pub(super) fn find_peer(&mut self, kad: &mut Kademlia, peer: PeerId, done: Found<Vec<Multiaddr>>) {
        let Some(done) = self.admit(done) else { return };
        let query = kad.get_closest_peers(peer);
        self.lookups.insert(query, Lookup::Peer { peer, done });
    }

    /// Looks for peers that say they hold a record.
    pub(super) fn find_holders(
        &mut self,
        kad: &mut Kademlia,
        key: &DhtKey,
        max: usize,
        done: Found<Vec<PeerId>>,
    ) {
        let Some(done) = self.admit(done) else { return };
        let query = kad.get_providers(key.wire());
        self.lookups.insert(query, Lookup::Holders { found: HashSet::new(), max, done });
    }

    fn admit<T>(&self, done: Found<T>) -> Option<Found<T>> {
        if self.lookups.len() < LOOKUPS_MAX {
            return Some(done);
        }
        let _ = done.send(Err(NetError::Unreachable("too many look-ups are under way".into())));
        None
    }

    /// A peer that is sought was seen on the local network.
    pub(super) fn nearby(&mut self, found: &PeerAddrs) {
        let sought = |lookup: &Lookup| matches!(lookup, Lookup::Peer { peer, .. } if *peer == found.peer);
        let queries: Vec<QueryId> =
            self.lookups.iter().filter(|(_, l)| sought(l)).map(|(query, _)| *query).collect();
        for query in queries {
            if let Some(Lookup::Peer { done, .. }) = self.lookups.remove(&query) {
                let _ = done.send(Ok(found.addrs.clone()));
            }
        }
    }

    /// A query went on or ended.
    pub(super) fn progressed(&mut self, kad: &mut Kademlia, id: QueryId, result: QueryResult, last: bool) {
        match result {
            QueryResult::GetProviders(Ok(GetProvidersOk::FoundProviders { providers, .. })) => {
                if let Some(Lookup::Holders { found, max, .. }) = self.lookups.get_mut(&id) {
                    let room = max.saturating_sub(found.len());
                    found.extend(providers.into_iter().take(room));
                    if found.len() >= *max
                        && let Some(mut query) = kad.query_mut(&id)
                    {
                        query.finish();
                    }
                }
            }
            QueryResult::GetClosestPeers(
                Ok(GetClosestPeersOk { peers, .. }) | Err(GetClosestPeersError::Timeout { peers, .. }),
            ) => {
                if let Some(Lookup::Peer { peer, .. }) = self.lookups.get(&id) {
                    let addrs = peers.into_iter().filter(|p| p.peer_id == *peer).flat_map(|p| p.addrs);
                    let found = PeerAddrs::new(*peer, addrs);
                    if let Some(Lookup::Peer { done, .. }) = self.lookups.remove(&id) {
                        let _ = done.send(Ok(found.addrs));
                    }
                }
            }
            _ => {}
        }
        if last {
            if let Some(Lookup::Holders { found, done, .. }) = self.lookups.remove(&id) {
                let _ = done.send(Ok(found.into_iter().collect()));
            }
            self.pump(kad);
        }
    }
}

/// Replaces what the table has of a peer; whether there was room for it.
fn enter(kad: &mut Kademlia, told: &PeerAddrs) -> bool {
    let mut there = false;
    for addr in &told.addrs {
        there |= kad.add_address(&told.peer, addr.clone()) != kad::RoutingUpdate::Failed;
    }
    if there {
        for old in addrs_of(kad, &told.peer) {
            if !told.addrs.contains(&crate::addresses::plain(&old, &told.peer)) {
                kad.remove_address(&told.peer, &old);
            }
        }
    }
    there
}

fn addrs_of(kad: &mut Kademlia, peer: &PeerId) -> Vec<Multiaddr> {
    let Some(bucket) = kad.kbucket(*peer) else { return Vec::new() };
    for entry in bucket.iter() {
        if entry.node.key.preimage() == peer {
            return entry.node.value.iter().cloned().collect();
        }
    }
    Vec::new()
}

fn knows(kad: &mut Kademlia, peer: &PeerId) -> bool {
    !addrs_of(kad, peer).is_empty()
}

fn peers_known(kad: &mut Kademlia) -> usize {
    kad.kbuckets().map(|bucket| bucket.num_entries()).sum()
}

/// Peers of the table, those that are connected first: where to begin at the next start.
pub(super) fn known_peers(kad: &mut Kademlia, max: usize) -> Vec<PeerAddrs> {
    let mut all: Vec<(bool, PeerAddrs)> = Vec::new();
    for bucket in kad.kbuckets() {
        for entry in bucket.iter() {
            let peer = *entry.node.key.preimage();
            let known = PeerAddrs::new(peer, entry.node.value.iter().cloned());
            all.push((entry.status != kad::NodeStatus::Connected, known));
        }
    }
    all.sort_by_key(|(gone, known)| (*gone, known.peer));
    all.into_iter().map(|(_, known)| known).take(max).collect()
}
