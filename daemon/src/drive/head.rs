//! The drive's head: composing it from the newest commit and the placements, and remembering what was published.
//!
//! Owns the published head's row. Promises: sequences only go up, also over restarts and restores; what is published names
//! only pieces of which at least one copy was confirmed. Refuses to go on when providers keep a higher head by another device.

use std::collections::{BTreeMap, HashMap};

use holdfast_content::commit::PlaceBody;
use holdfast_content::head::{
    ADDRESS_BYTES_MAX, ADDRESSES_MAX, HeadBody, HeadRecord, PROVIDERS_MAX, ProviderAddresses,
    TAIL_ENTRIES_MAX,
};
use holdfast_content::placement::{ChainEnd, PlacementEntry};
use holdfast_content::tree::PhysicalRef;
use holdfast_fs::drive::types::CommitInfo;
use holdfast_net::term::{Anchors, Standing};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

use super::ledger::{Ledger, Peer, ProviderState};
use super::{Engine, ledger::Seconds};
use crate::control::CommitReport;
use crate::records::HeadValue;

/// A record stays valid so long without its owner; providers keep it on disk in any case.
const VALID_SECONDS: u64 = 10 * 365 * 24 * 3600;
const NOTE: &str = "head";
/// Of the 512 KiB that providers take: a tail of 400 entries has about 280.
const PROVIDERS_BYTES_MAX: usize = 128 << 10;

/// The note beside the published head, and the head itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Published {
    /// Sequence of the record.
    pub sequence: u64,
    /// Term of the record.
    pub term: u64,
    /// The commit that it names.
    pub commit_sequence: u64,
    /// When that commit was cut.
    pub commit_time: Seconds,
    /// Its CID.
    pub commit_cid: String,
    /// Placement entries with a lower number are in it.
    pub log_next: u64,
    /// The pair as providers keep it, so that a new provider can be given it.
    pub pair: ByteBuf,
    /// The placement checkpoint that the head names.
    pub checkpoint: Option<CheckpointRow>,
    /// It is another machine's head, which this one took over: one of its own is due, whatever changed.
    #[serde(default)]
    pub taken_over: bool,
    /// Digest of the standing that it was published with.
    #[serde(default)]
    pub standing: Option<ByteBuf>,
}

impl Published {
    /// Whether it was published with this standing.
    pub fn stands(&self, standing: &Standing) -> bool {
        let digest = Standing::digest(&standing.encode());
        self.standing.as_ref().is_some_and(|known| known.as_slice() == digest)
    }
}

/// A placement checkpoint: a tree in a piece of its own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckpointRow {
    /// The root's place and key, as the head's own encoding has them.
    pub root: PlaceBody,
    /// Entries with a lower number are in it.
    pub covers: ChainEnd,
    /// The piece that holds its newest nodes.
    #[serde(with = "serde_bytes")]
    pub piece: [u8; 16],
}

impl CheckpointRow {
    /// The checkpoint that a head names. Its piece is the one where the root lies.
    pub fn of(body: &HeadBody) -> Option<Self> {
        let root = body.checkpoint.as_ref()?;
        let covers = body.checkpoint_chains.values().next().copied().unwrap_or_default();
        Some(Self { root: PlaceBody::new(&root.at, &root.key), covers, piece: root.at.piece })
    }

    /// The root of the tree.
    pub fn root(&self) -> PhysicalRef {
        PhysicalRef { at: self.root.at(), key: self.root.key.clone() }
    }
}

/// What was published, in memory and in its row.
pub struct HeadState {
    published: Mutex<Option<Published>>,
}

impl HeadState {
    /// Reads the row.
    pub fn open(ledger: &Ledger) -> anyhow::Result<Self> {
        let row = ledger.note(NOTE)?;
        let published = row.map(|bytes| serde_ipld_dagcbor::from_slice(&bytes)).transpose()?;
        Ok(Self { published: Mutex::new(published) })
    }

    /// What was published last.
    pub fn published(&self) -> Option<Published> {
        self.published.lock().clone()
    }

    /// The commit that a restore would bring.
    pub fn published_sequence(&self) -> Option<u64> {
        self.published.lock().as_ref().map(|p| p.commit_sequence)
    }

    /// The same, as `status` shows it.
    pub fn published_report(&self) -> Option<CommitReport> {
        self.published.lock().as_ref().map(|p| CommitReport {
            sequence: p.commit_sequence,
            at: p.commit_time,
            cid: p.commit_cid.clone(),
        })
    }

    /// Writes the row, then the memory.
    pub fn set(&self, ledger: &Ledger, published: Published) -> anyhow::Result<()> {
        ledger.set_note(NOTE, serde_ipld_dagcbor::to_vec(&published)?)?;
        *self.published.lock() = Some(published);
        Ok(())
    }
}

/// The providers that a head names: the anchors, then those with the most slots, as many as fit. What a restore cannot dial it
/// cannot ask, nor read.
fn named(ledger: &Ledger, anchors: Option<&Anchors>) -> Vec<ProviderAddresses> {
    let mut slots: HashMap<Peer, usize> = HashMap::new();
    for (_, row) in ledger.pieces() {
        for (_, holder) in row.holders().filter(|(_, h)| h.failed.is_none()) {
            *slots.entry(holder.provider.clone()).or_default() += 1;
        }
    }
    let mut all = ledger.providers();
    all.retain(|(_, row)| !matches!(row.state, ProviderState::Removed));
    all.sort_by_cached_key(|(peer, row)| {
        let kept = slots.get(peer).copied().unwrap_or(0);
        let grants = anchors.is_some_and(|anchors| anchors.contains(peer));
        (!grants, std::cmp::Reverse(kept), !row.answers(), peer.clone())
    });
    if all.len() > PROVIDERS_MAX {
        tracing::warn!(
            all = all.len(),
            "a head names {PROVIDERS_MAX} providers only: those that keep the most"
        );
    }
    let mut room = PROVIDERS_BYTES_MAX;
    let mut named = Vec::new();
    for (peer, row) in all.into_iter().take(PROVIDERS_MAX) {
        let mut addresses = row.addrs;
        addresses.retain(|address| address.len() <= ADDRESS_BYTES_MAX);
        addresses.truncate(ADDRESSES_MAX);
        let tags = row.tagged.to_map();
        let tag_bytes: usize = tags.iter().map(|(kind, tag)| kind.len() + tag.len() + 4).sum();
        let bytes = |addresses: &[String]| {
            addresses.iter().map(|a| a.len() + 4).sum::<usize>() + tag_bytes + peer.len() + 32
        };
        // Where it is tight one address has to do.
        if bytes(&addresses) > room {
            addresses.truncate(1);
        }
        let Some(left) = room.checked_sub(bytes(&addresses)) else { continue };
        room = left;
        named.push(ProviderAddresses { peer: ByteBuf::from(peer), addresses, tags });
    }
    named
}

/// The entries that a head's tail needs: of each slot the newest one, since an older holder no longer counts.
pub fn tail(log: &[(u64, Vec<u8>)]) -> anyhow::Result<Vec<PlacementEntry>> {
    let mut entries = Vec::new();
    for (_, bytes) in log {
        entries.push(PlacementEntry::verify(bytes)?);
    }
    Ok(entries)
}

impl Engine {
    /// Signs the head for `commit`. The row is written before the head is shown to anybody: after a crash the same
    /// sequence is never signed for something else.
    pub fn compose_head(
        &self,
        commit: &CommitInfo,
        keyring: &[u8],
        checkpoint: Option<CheckpointRow>,
        standing: &Standing,
    ) -> anyhow::Result<Published> {
        let before = self.head.published().unwrap_or_default();
        let chain = self.ledger.chain();
        let covers = checkpoint.as_ref().map_or(0, |c| c.covers.length);
        let log = self.ledger.log_from(covers)?;
        anyhow::ensure!(
            log.len() <= TAIL_ENTRIES_MAX,
            "the placement log is too long for a head without a checkpoint"
        );
        let author = self.keys.placement_signing().verifying_key().to_bytes();
        let checkpoint_chains =
            checkpoint.as_ref().map(|c| BTreeMap::from([(author, c.covers)])).unwrap_or_default();
        let providers = named(&self.ledger, Some(&standing.anchors));
        let sequence = before.sequence.saturating_add(1);
        let term = standing.certificate.claim().term;
        let digest = Standing::digest(&standing.encode());
        let complete = match commit.pending.is_empty() {
            true => None,
            false => self.drive.complete_commit()?.map(|complete| complete.commit),
        };
        let body = HeadBody {
            sequence,
            term,
            device: self.device,
            time: self.now(),
            commit: commit.commit.clone(),
            complete,
            location: commit.location_root.clone(),
            checkpoint: checkpoint.as_ref().map(CheckpointRow::root),
            checkpoint_chains,
            tail: tail(&log)?,
            providers,
            keyring: holdfast_content::keys::Keyring::digest(keyring),
        };
        let sealed = body.seal(&self.keys)?;
        let until = self.now().saturating_add(VALID_SECONDS);
        let key = self.keys.head_signing();
        let record = HeadRecord::sign(sealed.cid(), sequence, term, Some(digest), until, key)?;
        let pair = HeadValue::sign(record, standing, &self.writer, sealed.bytes().to_vec())?.encode()?;
        let published = Published {
            sequence,
            term,
            commit_sequence: commit.sequence,
            commit_time: commit.time,
            commit_cid: commit.commit.root.to_string(),
            log_next: chain.length,
            pair: ByteBuf::from(pair),
            checkpoint,
            taken_over: false,
            standing: Some(ByteBuf::from(digest.to_vec())),
        };
        Ok(published)
    }
}

#[cfg(test)]
mod tests {
    use super::super::ledger::{Holder, MemoryRows};
    use super::*;
    use std::sync::Arc;

    #[test]
    fn a_head_names_as_many_providers_as_it_may_and_the_holders_first() -> anyhow::Result<()> {
        let ledger = Ledger::open(Arc::new(MemoryRows::default()))?;
        let long =
            |n: u16| (0..16).map(|a| format!("/dns4/{n}.{a}.{}/tcp/1", "x".repeat(300 * (a % 2)))).collect();
        for n in 0..600u16 {
            ledger.add_provider(n.to_be_bytes().to_vec(), long(n), 1)?;
        }
        ledger.add_piece([1; 16], 9, 1)?;
        let last = 599u16.to_be_bytes().to_vec();
        let holder = Holder {
            provider: last.clone(),
            deal: vec![1; 32],
            entry: 0,
            confirmed_at: 1,
            proven_at: 1,
            ends_at: 9,
            failed: None,
        };
        ledger.set_holder([1; 16], 0, holder, |end| Ok((vec![], *end)))?;
        let named = named(&ledger, None);
        assert_eq!(named.len(), PROVIDERS_MAX);
        assert_eq!(named[0].peer.as_slice(), last);
        assert!(named.iter().all(|p| !p.addresses.is_empty() && p.addresses.iter().all(|a| a.len() <= 256)));
        let bytes: usize = named.iter().flat_map(|p| &p.addresses).map(String::len).sum();
        assert!(bytes < PROVIDERS_BYTES_MAX);
        Ok(())
    }
}
