//! What this node keeps of the DHT for others: who said that he keeps the record of which key. No values at all.
//!
//! ```text
//!   key (32 bytes) -> up to HOLDERS_PER_KEY_MAX holders, each until its time is over
//! ```
//!
//! Promises: bounded in all ([`DhtLimits::records_max`]), for each key and for each holder, whatever strangers send. When
//! it is full, what is new is refused and what is there stays until it expires: nobody can push out another's record.
//! Refuses values, keys of another length than ours, and addresses of private networks, which would send others astray:
//! a holder without addresses is looked up in the routing table.

use std::borrow::Cow;
use std::collections::{BTreeSet, HashMap};
use std::time::Instant;

use libp2p::PeerId;
use libp2p::kad::store::{Error, RecordStore, Result};
use libp2p::kad::{ProviderRecord, Record, RecordKey as Key};

use super::dht::DHT_KEY_BYTES;
use crate::addresses::{Reach, reach, way};

/// As many as Kademlia asks for copies.
pub(super) const HOLDERS_PER_KEY_MAX: usize = 20;
/// Addresses kept of a holder.
const ADDRS_OF_HOLDER_MAX: usize = 4;

/// Bounds on the part of the DHT that strangers fill.
#[derive(Debug, Clone)]
pub struct DhtLimits {
    /// Records in all, about 200 bytes each.
    pub records_max: usize,
    /// Records of one holder.
    pub records_per_peer_max: usize,
}

impl Default for DhtLimits {
    fn default() -> DhtLimits {
        DhtLimits { records_max: 65_536, records_per_peer_max: 4096 }
    }
}

/// See the module.
pub(super) struct HolderIndex {
    local: PeerId,
    limits: DhtLimits,
    keys: HashMap<Key, Vec<ProviderRecord>>,
    of_peer: HashMap<PeerId, usize>,
    /// Our own: they cost nothing of the others' room.
    ours: BTreeSet<Vec<u8>>,
    count: usize,
}

impl HolderIndex {
    pub(super) fn new(local: PeerId, limits: DhtLimits) -> HolderIndex {
        HolderIndex {
            local,
            limits,
            keys: HashMap::new(),
            of_peer: HashMap::new(),
            ours: BTreeSet::new(),
            count: 0,
        }
    }

    #[cfg(test)]
    fn len(&self) -> usize {
        self.count
    }

    /// Forgets what is over.
    pub(super) fn expire(&mut self, now: Instant) {
        self.keys.retain(|_, records| {
            records.retain(|record| {
                let stays = !record.is_expired(now);
                if !stays {
                    self.count -= 1;
                    give_back(&mut self.of_peer, &record.provider);
                }
                stays
            });
            !records.is_empty()
        });
    }

    fn ours(&self, key: &Key) -> Option<ProviderRecord> {
        let there = self.ours.contains(bytes(key));
        there.then(|| ProviderRecord::new(key.clone(), self.local, Vec::new()))
    }
}

fn bytes(key: &Key) -> &[u8] {
    key.as_ref()
}

fn give_back(of_peer: &mut HashMap<PeerId, usize>, peer: &PeerId) {
    if let Some(count) = of_peer.get_mut(peer) {
        *count = count.saturating_sub(1);
        if *count == 0 {
            of_peer.remove(peer);
        }
    }
}

impl RecordStore for HolderIndex {
    type RecordsIter<'a> = std::iter::Empty<Cow<'a, Record>>;
    type ProvidedIter<'a> = std::vec::IntoIter<Cow<'a, ProviderRecord>>;

    fn get(&self, _: &Key) -> Option<Cow<'_, Record>> {
        None
    }

    fn put(&mut self, _: Record) -> Result<()> {
        Err(Error::ValueTooLarge)
    }

    fn remove(&mut self, _: &Key) {}

    fn records(&self) -> Self::RecordsIter<'_> {
        std::iter::empty()
    }

    fn add_provider(&mut self, mut record: ProviderRecord) -> Result<()> {
        if bytes(&record.key).len() != DHT_KEY_BYTES {
            return Err(Error::ValueTooLarge);
        }
        if record.provider == self.local {
            self.ours.insert(record.key.to_vec());
            return Ok(());
        }
        record.addresses.retain(|addr| reach(addr) == Some(Reach::World) && way(addr).is_some());
        record.addresses.truncate(ADDRS_OF_HOLDER_MAX);
        let holders = self.keys.get_mut(&record.key);
        if let Some(known) =
            holders.and_then(|list| list.iter_mut().find(|known| known.provider == record.provider))
        {
            *known = record;
            return Ok(());
        }
        let of_peer = self.of_peer.get(&record.provider).copied().unwrap_or(0);
        let of_key = self.keys.get(&record.key).map_or(0, Vec::len);
        let full = self.count >= self.limits.records_max
            || of_peer >= self.limits.records_per_peer_max
            || of_key >= HOLDERS_PER_KEY_MAX;
        if full {
            return Err(Error::MaxProvidedKeys);
        }
        self.count += 1;
        *self.of_peer.entry(record.provider).or_default() += 1;
        self.keys.entry(record.key.clone()).or_default().push(record);
        Ok(())
    }

    fn providers(&self, key: &Key) -> Vec<ProviderRecord> {
        let mut found: Vec<ProviderRecord> = self.ours(key).into_iter().collect();
        found.extend(self.keys.get(key).into_iter().flatten().cloned());
        found
    }

    fn provided(&self) -> Self::ProvidedIter<'_> {
        // Announcing again is the node's, which knows when it pays.
        Vec::new().into_iter()
    }

    fn remove_provider(&mut self, key: &Key, peer: &PeerId) {
        if *peer == self.local {
            self.ours.remove(bytes(key));
            return;
        }
        let Some(records) = self.keys.get_mut(key) else { return };
        let before = records.len();
        records.retain(|record| record.provider != *peer);
        if records.len() < before {
            self.count -= 1;
            give_back(&mut self.of_peer, peer);
        }
        if records.is_empty() {
            self.keys.remove(key);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::time::Duration;

    fn peer(n: u16) -> PeerId {
        let mut seed = [0; 32];
        seed[..2].copy_from_slice(&n.to_be_bytes());
        crate::identity::keypair(seed).unwrap().public().to_peer_id()
    }

    fn record(key: u8, n: u16) -> ProviderRecord {
        let addresses = ["/ip4/8.8.8.8/tcp/1", "/ip4/192.168.0.1/tcp/1", "/memory/1"];
        let addresses = addresses.map(|addr| addr.parse().unwrap()).to_vec();
        ProviderRecord { addresses, ..ProviderRecord::new([key; DHT_KEY_BYTES].to_vec(), peer(n), vec![]) }
    }

    #[test]
    fn strangers_fill_it_up_to_its_bounds_and_push_nobody_out() {
        let limits = DhtLimits { records_max: 30, records_per_peer_max: 3 };
        let mut index = HolderIndex::new(peer(0), limits);
        index.add_provider(record(1, 1)).unwrap();
        for n in 2..100 {
            let _ = index.add_provider(record(1, n));
        }
        assert_eq!(index.providers(&record(1, 1).key).len(), HOLDERS_PER_KEY_MAX);
        assert_eq!(index.providers(&record(1, 1).key)[0].provider, peer(1));
        assert!(index.providers(&record(1, 1).key).iter().all(|found| found.addresses.len() == 1));
        let of_one = (2..20).filter(|key| index.add_provider(record(*key, 1)).is_ok()).count();
        assert_eq!(of_one, 2, "one of its three is under the first key");
        for n in 100..200 {
            let _ = index.add_provider(record(50, n));
        }
        assert_eq!(index.len(), 30);
        // The same again takes no room.
        index.add_provider(record(1, 1)).unwrap();
        assert_eq!(index.len(), 30);
        // Ours have room in any case.
        index.add_provider(record(60, 0)).unwrap();
        assert_eq!(index.providers(&record(60, 0).key)[0].provider, peer(0));
    }

    #[test]
    fn what_is_over_makes_room() {
        let limits = DhtLimits { records_max: 1, records_per_peer_max: 1 };
        let mut index = HolderIndex::new(peer(0), limits);
        let now = tokio::time::Instant::now().into_std();
        index.add_provider(ProviderRecord { expires: Some(now), ..record(1, 1) }).unwrap();
        assert!(index.add_provider(record(2, 1)).is_err());
        index.expire(now + Duration::from_secs(1));
        assert_eq!(index.len(), 0);
        index.add_provider(record(2, 1)).unwrap();
        index.remove_provider(&record(2, 1).key, &peer(1));
        assert_eq!((index.len(), index.of_peer.len(), index.keys.len()), (0, 0, 0));
    }

    #[test]
    fn values_and_other_keys_are_refused() {
        let mut index = HolderIndex::new(peer(0), DhtLimits::default());
        assert!(index.put(Record::new(vec![1; DHT_KEY_BYTES], vec![1])).is_err());
        let other = ProviderRecord::new(vec![1; 8], peer(1), vec![]);
        assert!(index.add_provider(other).is_err());
        assert_eq!(index.len(), 0);
    }
}
