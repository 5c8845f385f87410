//! Reading what a private link leads to, on any machine: the record, the index, and blocks of the slots that it permits.
//!
//! Promises: nothing is believed but what the link's author signed and what hashes to the index's CIDs; of several records the newest
//! counts; a holder that is late is joined by the next, and a lost slot decoded from its stripe (`crate::retrieve`, under the link's
//! keys); where blocks do not come, the record is read anew before anything is given up, since slots move. Memory holds a bounded
//! number of blocks. An attempt goes on where the last one of the same link ended (`write`). Needs no drive.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use holdfast_content::block::Block;
use holdfast_content::dagcbor::FormatError;
use holdfast_content::retrieve::{FetchError, Priority};
use holdfast_content::share::LinkKeys;
use holdfast_content::share::index::{EntryKind, ShareIndex};
use holdfast_content::watch::part::{self, Part as Signed};
use holdfast_net::client::{Client, ClientConfig};
use holdfast_net::mask::SlotSeed;
use holdfast_net::node::{Node, NodeConfig};
use holdfast_net::{
    DhtKey, Env, Finder, NetError, PeerAddrs, PeerId, RecordKey, RecordKind, SignedPermit, identity,
};
use parking_lot::Mutex;
use serde::Serialize;

use super::link::PrivateLink;
use super::object::{INDEX_FIRST, Object, Part, join_index};
use super::write::Writer;
use crate::drive::ledger::{
    Holder, Imported, Ledger, MemoryRows, PieceId, PieceRow, ProviderRow, StripePiece, StripeRow,
};
use crate::drive::peers::Peers;
use crate::drive::threads::Threads;
use crate::home::ProviderAddr;
use crate::plain::{Counted, Done, TreeError};
use crate::retrieve::{NetRetriever, Seeds, Sources};

/// One answer to something small.
const PATIENCE: Duration = Duration::from_secs(15);
/// After the first record the others are waited for so long: one of them may be newer.
const GATHER: Duration = Duration::from_millis(1500);
/// One group of blocks.
const FETCH: Duration = Duration::from_secs(30);
/// The same once something did not come.
const FETCH_AFTER_FAILURE: Duration = Duration::from_secs(5);
/// How often a group is tried, the record read anew before each further time.
const ROUNDS: usize = 4;
const PAUSE: Duration = Duration::from_secs(2);
/// Blocks in a group, and their bytes.
const GROUP_BLOCKS: usize = 64;
const GROUP_BYTES: u64 = 4 << 20;
/// Groups on their way at once.
const GROUPS_AT_ONCE: usize = 4;
/// Names in a message.
const NAMED_MAX: usize = 10;

/// `holdfast get --json` of a private link.
#[derive(Debug, Clone, Serialize)]
pub struct SharedReport {
    pub path: PathBuf,
    #[serde(flatten)]
    pub counted: Counted,
    /// What is shown is as it was then, unix seconds.
    pub shared_at: u64,
    /// When the link ends.
    pub until: u64,
    /// Providers that keep some of it.
    pub providers: u64,
}

impl SharedReport {
    pub fn render(&self) -> String {
        let (bytes, what) =
            (crate::control::render::size(self.counted.bytes), crate::plain::car::words(&self.counted));
        format!("{bytes} of {what} in {}\n", self.path.display())
    }
}

/// Why nothing was fetched.
#[derive(Debug, thiserror::Error)]
pub enum ShareError {
    #[error("the link names nobody, and nobody was named beside it")]
    NoSource,
    #[error("none of the {asked} providers that the link names can be reached: {said}")]
    Unreachable { asked: usize, said: String },
    #[error("{answered} of {asked} providers answered, and none of them has what the link leads to")]
    NotKept { answered: usize, asked: usize },
    #[error("the link has ended: who shared this took it back, or its time is over")]
    Ended,
    #[error("what the link leads to was not whole with anybody; it may have been renewed just now")]
    NotWhole,
    #[error("what the link leads to: {0}")]
    Format(#[from] FormatError),
    #[error("{files} files could not be fetched, {bytes} bytes ({why}): {named}")]
    Missing { files: usize, bytes: u64, why: FetchError, named: String },
    #[error("the link's providers: {0}")]
    Net(#[from] NetError),
    #[error(transparent)]
    Tree(#[from] TreeError),
    #[error("{0}")]
    Internal(String),
}

/// What was found, and who may have the rest.
struct Found {
    object: Object,
    index: ShareIndex,
}

struct State {
    retriever: Arc<NetRetriever>,
    index: Arc<ShareIndex>,
    /// How often the record was read.
    read: u64,
}

/// Where it runs.
#[derive(Clone)]
pub struct Around {
    /// Time and randomness.
    pub env: Env,
    /// Where work that blocks is done.
    pub threads: Threads,
}

/// See the module.
pub struct Reader {
    client: Client,
    around: Around,
    link: PrivateLink,
    keys: LinkKeys,
    state: Mutex<State>,
    reading: tokio::sync::Mutex<()>,
    failed: AtomicBool,
    /// What the link shows, as it was found first.
    pub at: (u64, u64),
    providers: u64,
}

/// A client of this process alone: everybody who has a link would else be the same peer.
pub async fn client(known: &[ProviderAddr], mdns: bool, env: Env) -> Result<Client, NetError> {
    let mut seed = [0; 32];
    env.rng.fill(&mut seed);
    let node = Node::start(NodeConfig::client(identity::keypair(seed)?)).await?;
    let known = known.iter().filter_map(|p| p.parts().ok()).map(|(peer, addrs)| PeerAddrs::new(peer, addrs));
    let finder = Finder::new(env.clone(), known.collect(), mdns);
    Ok(Client::with_finder(node, env, ClientConfig::default(), finder))
}

/// Fetches what a link shows to `out`, or to a new name in the current folder; it must not be there yet.
pub async fn get(
    client: Client,
    link: PrivateLink,
    peers: &[ProviderAddr],
    out: Option<&Path>,
    done: &mut Done<'_>,
    around: Around,
) -> Result<SharedReport, ShareError> {
    let mut link = link;
    ProviderAddr::merge(&mut link.at, peers.iter().cloned());
    let reader = Reader::open(client, link, around).await?;
    let index = reader.state.lock().index.clone();
    let out = match out {
        Some(out) => out.to_owned(),
        None => super::write::own_name(&index)?,
    };
    let mut writer = Writer::begin(&index, &out)?;
    let fetched = reader.fetch(&index, &mut writer, done).await;
    let counted = match fetched {
        Ok(()) => reader
            .around
            .threads
            .run(move || writer.finish())
            .await
            .map_err(|error| ShareError::Internal(error.to_string()))??,
        Err(error) => {
            match error {
                // It may come the next time.
                ShareError::Missing { .. } | ShareError::Net(_) => writer.keep()?,
                ShareError::Ended => writer.discard(),
                _ => drop(writer),
            }
            return Err(error);
        }
    };
    let (shared_at, until) = reader.at;
    reader.client.shutdown().await;
    Ok(SharedReport { path: out, counted, shared_at, until, providers: reader.providers })
}

impl Reader {
    /// Finds the record, and reaches nobody else yet.
    pub async fn open(client: Client, link: PrivateLink, around: Around) -> Result<Reader, ShareError> {
        let keys = link.keys();
        let found = find(&client, &link, &keys, &around.env).await?;
        let (at, providers) = ((found.object.at, found.object.until), found.object.providers.len() as u64);
        let state = Mutex::new(State::of(&client, &keys, found, 0)?);
        let (reading, failed) = (tokio::sync::Mutex::new(()), AtomicBool::new(false));
        Ok(Reader { client, around, link, keys, state, reading, failed, at, providers })
    }

    /// All chunks, a few groups at a time, in order.
    async fn fetch(
        &self,
        index: &ShareIndex,
        writer: &mut Writer,
        done: &mut Done<'_>,
    ) -> Result<(), ShareError> {
        let (mut number, groups) = (writer.whole(), groups(index, writer.whole()));
        done(writer.written());
        let mut coming = futures::stream::iter(groups)
            .map(|group| async {
                let blocks = self.group(&group).await;
                (group, blocks)
            })
            .buffered(GROUPS_AT_ONCE);
        let mut missing: Option<(Vec<u32>, u64, FetchError)> = None;
        while let Some((group, blocks)) = coming.next().await {
            for ((entry, chunk), block) in group.into_iter().zip(blocks?) {
                let place = number;
                number += 1;
                match block {
                    Ok(block) => writer.chunk(index, (entry, chunk), place, block)?,
                    Err(error) => {
                        let (files, bytes, _) = missing.get_or_insert((Vec::new(), 0, error));
                        if files.last() != Some(&entry) {
                            files.push(entry);
                        }
                        let entry = index.entries.get(entry as usize);
                        let chunk = entry.and_then(|entry| entry.chunks.get(chunk as usize));
                        *bytes += chunk.map_or(0, |chunk| u64::from(chunk.plain_len()));
                    }
                }
            }
            done(writer.written());
        }
        let Some((files, bytes, why)) = missing else { return Ok(()) };
        let mut named: Vec<String> = files.iter().take(NAMED_MAX).map(|file| writer.name_of(*file)).collect();
        if files.len() > NAMED_MAX {
            named.push(format!("and {} more", files.len() - NAMED_MAX));
        }
        Err(ShareError::Missing { files: files.len(), bytes, why, named: named.join(", ") })
    }

    /// One group: what does not come is asked for again, where the newest record says that it lies.
    async fn group(&self, group: &[(u32, u32)]) -> Result<Vec<Result<Block, FetchError>>, ShareError> {
        let mut out: Vec<Result<Block, FetchError>> =
            group.iter().map(|_| Err(FetchError::NotFound)).collect();
        for round in 0..ROUNDS {
            let (retriever, index, read) = {
                let state = self.state.lock();
                (state.retriever.clone(), state.index.clone(), state.read)
            };
            let mut asked = Vec::new();
            let mut wants = Vec::new();
            for (n, (entry, chunk)) in group.iter().enumerate() {
                let chunk = index.entries.get(*entry as usize).and_then(|e| e.chunks.get(*chunk as usize));
                if out.get(n).is_some_and(Result::is_err)
                    && let Some(at) = chunk.and_then(|chunk| index.place(chunk))
                {
                    asked.push(n);
                    wants.push(at);
                }
            }
            let patience = if self.failed.load(Ordering::Relaxed) { FETCH_AFTER_FAILURE } else { FETCH };
            let blocks = retriever.fetch_async(&wants, Priority::Bulk, patience).await;
            for (n, block) in asked.into_iter().zip(blocks) {
                if let Some(place) = out.get_mut(n) {
                    *place = block;
                }
            }
            if out.iter().all(Result::is_ok) {
                return Ok(out);
            }
            if round + 1 < ROUNDS {
                self.read_anew(read, &index).await?;
            }
        }
        self.failed.store(true, Ordering::Relaxed);
        Ok(out)
    }

    /// Reads the record again, once for all that wait for it.
    async fn read_anew(&self, read: u64, before: &ShareIndex) -> Result<(), ShareError> {
        let _one = self.reading.lock().await;
        if self.state.lock().read > read {
            return Ok(());
        }
        tokio::time::sleep(PAUSE).await;
        let found = match find(&self.client, &self.link, &self.keys, &self.around.env).await {
            Ok(found) => found,
            // Who is out of reach now may be there the next time; what is known until then may do.
            Err(ShareError::Unreachable { .. } | ShareError::NotKept { .. } | ShareError::NotWhole) => {
                self.state.lock().read += 1;
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        let digests = |index: &ShareIndex| index.chunks().map(|chunk| *chunk.digest()).collect::<Vec<_>>();
        if digests(&found.index) != digests(before) {
            return Err(ShareError::Internal("the link shows something else than it did".into()));
        }
        let state = State::of(&self.client, &self.keys, found, read + 1)?;
        *self.state.lock() = state;
        Ok(())
    }
}

impl State {
    fn of(client: &Client, keys: &LinkKeys, found: Found, read: u64) -> Result<State, ShareError> {
        let internal = |error: &dyn std::fmt::Display| ShareError::Internal(error.to_string());
        let (imported, seeds) = placements(&found.object);
        let mut permits: HashMap<Vec<u8>, Vec<SignedPermit>> = HashMap::new();
        for reached in &found.object.providers {
            let signed = reached.permits.iter().filter_map(|permit| SignedPermit::from_bytes(permit).ok());
            permits.insert(reached.known.peer.to_vec(), signed.collect());
        }
        let ledger = Ledger::open(Arc::new(MemoryRows::default())).map_err(|error| internal(&error))?;
        ledger.import(imported).map_err(|error| internal(&error))?;
        let peers = Peers::of_link(client.clone(), keys.holder.clone(), permits);
        let retriever = NetRetriever::new(tokio::runtime::Handle::current(), Seeds::Given(seeds));
        retriever.join(Sources { ledger: Arc::new(ledger), peers: Arc::new(peers) });
        Ok(State { retriever: Arc::new(retriever), index: Arc::new(found.index), read })
    }
}

/// Where slots lie, as an object says, and the seeds of these.
pub(crate) fn placements(object: &Object) -> (Imported, HashMap<(PieceId, u16), SlotSeed>) {
    let (mut found, mut seeds) = (Imported::default(), HashMap::new());
    for reached in &object.providers {
        let row = ProviderRow { addrs: reached.known.addrs.clone(), ..ProviderRow::new(object.at) };
        found.providers.insert(reached.known.peer.to_vec(), row);
    }
    for piece in &object.pieces {
        let row = match piece.shape() {
            Some(shape) => {
                let pieces = piece.shards.iter().map(|shard| StripePiece { id: shard.id, len: shard.len });
                let row = StripeRow { parity: shape.parity(), pieces: pieces.collect(), entry: 0 };
                PieceRow::striped(row, vec![Vec::new(); piece.slots.len()])
            }
            None => u16::try_from(piece.slots.len()).ok().map(|slots| PieceRow::new(piece.len, slots)),
        };
        let Some(mut row) = row else { continue };
        for (slot, n) in piece.slots.iter().zip(0u16..) {
            let (Some(held), Some(seed)) = (&slot.held, &slot.seed) else { continue };
            let Some(reached) = object.providers.get(usize::from(held.provider)) else { continue };
            seeds.insert((piece.id, n), SlotSeed::from_bytes(*seed.as_bytes()));
            if let Some(place) = row.slot_mut(n) {
                place.holder = Some(Holder {
                    provider: reached.known.peer.to_vec(),
                    deal: held.deal.to_vec(),
                    entry: 0,
                    confirmed_at: object.at,
                    proven_at: 0,
                    ends_at: held.ends,
                    failed: None,
                });
            }
        }
        found.pieces.insert(piece.id, row);
    }
    (found, seeds)
}

/// Numbers of entries and of their chunks, but for the first `whole` ones, so many as are fetched together.
fn groups(index: &ShareIndex, whole: u64) -> Vec<Vec<(u32, u32)>> {
    let mut groups: Vec<Vec<(u32, u32)>> = Vec::new();
    let mut left_out = 0;
    let mut bytes = u64::MAX;
    for (entry, n) in index.entries.iter().zip(0u32..) {
        if entry.kind != EntryKind::File {
            continue;
        }
        for (chunk, m) in entry.chunks.iter().zip(0u32..) {
            if left_out < whole {
                left_out += 1;
                continue;
            }
            let len = index.place(chunk).map_or(0, |at| u64::from(at.len));
            let full = groups.last().is_none_or(|group| group.len() >= GROUP_BLOCKS);
            if full || bytes.saturating_add(len) > GROUP_BYTES {
                groups.push(Vec::new());
                bytes = 0;
            }
            bytes += len;
            if let Some(group) = groups.last_mut() {
                group.push((n, m));
            }
        }
    }
    groups
}

/// The newest record that anybody has, opened.
async fn find(client: &Client, link: &PrivateLink, keys: &LinkKeys, env: &Env) -> Result<Found, ShareError> {
    let name = |n| RecordKey::new(RecordKind::Share, part::name(&link.author, n));
    let mut peers: Vec<PeerAddrs> = Vec::new();
    for (peer, addrs) in link.at.iter().filter_map(|p| p.parts().ok()) {
        peers.push(PeerAddrs::new(peer, addrs));
    }
    let mut answers = ask(client, &peers, &name(0)).await;
    if answers.newest.is_none()
        && let Some(finder) = client.finder().filter(|finder| finder.can_ask())
    {
        // Those that the link names are gone, or have nothing: who else says that he keeps it?
        let more = finder.holders(DhtKey::of_record(&name(0))).await.unwrap_or_default();
        let known: Vec<PeerId> = peers.iter().map(|known| known.peer).collect();
        let more: Vec<PeerAddrs> = more.into_iter().filter(|more| !known.contains(&more.peer)).collect();
        let found = ask(client, &more, &name(0)).await;
        answers.answered += found.answered;
        (answers.newest, answers.said) = (found.newest, [answers.said, found.said].concat());
        peers.extend(more);
    }
    let Some((number, first)) = answers.newest else {
        return Err(match (peers.is_empty(), answers.answered) {
            (true, _) => ShareError::NoSource,
            (false, 0) => ShareError::Unreachable { asked: peers.len(), said: answers.said.join("; ") },
            (false, answered) => ShareError::NotKept { answered, asked: peers.len() },
        });
    };
    // The key is the link's, as its check shows: what it does not open is of another link, which came after this one.
    let plain = first.open(&keys.open).map_err(|_| ShareError::Ended)?;
    let part = Part::decode(&plain)?;
    if part.ended {
        return Err(ShareError::Ended);
    }
    let mut parts = vec![plain.to_vec()];
    for n in 1..part.parts() {
        parts.push(one_of(client, &peers, keys, &name(n), number).await?);
    }
    let object = Object::join(&parts)?;
    if object.until <= env.clock.unix_seconds() {
        return Err(ShareError::Ended);
    }
    let bytes = match &object.index.inline {
        Some(bytes) => bytes.to_vec(),
        None => {
            let mut parts = Vec::new();
            for n in 0..object.index.parts {
                parts.push(one_of(client, &peers, keys, &name(INDEX_FIRST + n), object.index.number).await?);
            }
            join_index(&parts)?
        }
    };
    if !object.index.names(&bytes) {
        return Err(ShareError::NotWhole);
    }
    let index = ShareIndex::decode(&bytes)?;
    Ok(Found { object, index })
}

#[derive(Default)]
struct Answers {
    newest: Option<(u64, Signed)>,
    answered: usize,
    said: Vec<String>,
}

/// Asks all at once; soon after the first has answered with something nobody is waited for any more.
async fn ask(client: &Client, peers: &[PeerAddrs], key: &RecordKey) -> Answers {
    let mut answers = Answers::default();
    let mut asking: FuturesUnordered<_> =
        peers.iter().map(|known| async move { (known.peer, record(client, known, key).await) }).collect();
    let mut until = tokio::time::Instant::now() + PATIENCE;
    while let Ok(Some((peer, answer))) = tokio::time::timeout_at(until, asking.next()).await {
        match answer {
            Ok(value) => {
                answers.answered += 1;
                let signed = value.and_then(|value| Signed::verify(&key.name, &value).ok());
                let Some(signed) = signed else { continue };
                if answers.newest.is_none() {
                    until = until.min(tokio::time::Instant::now() + GATHER);
                }
                if answers.newest.as_ref().is_none_or(|(number, _)| *number < signed.number) {
                    answers.newest = Some((signed.number, signed));
                }
            }
            Err(error) => answers.said.push(format!("{peer}: {error}")),
        }
    }
    answers
}

async fn record(client: &Client, known: &PeerAddrs, key: &RecordKey) -> Result<Option<Vec<u8>>, NetError> {
    let session = client.session(known.peer, known.addrs.clone());
    let asking = session.get_record(key);
    let value = tokio::time::timeout(PATIENCE, asking).await.map_err(|_| NetError::Timeout(PATIENCE))??;
    Ok(value.map(|value| value.to_vec()))
}

/// A part of this number, opened, from whoever has it.
async fn one_of(
    client: &Client,
    peers: &[PeerAddrs],
    keys: &LinkKeys,
    key: &RecordKey,
    number: u64,
) -> Result<Vec<u8>, ShareError> {
    for known in peers {
        let Ok(Some(value)) = record(client, known, key).await else { continue };
        let Ok(signed) = Signed::verify(&key.name, &value) else { continue };
        if signed.number == number {
            return Ok(signed.open(&keys.open)?.to_vec());
        }
    }
    Err(ShareError::NotWhole)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn an_object_says_where_slots_lie_and_what_takes_their_masks_off() {
        let object = super::super::object::tests::sample(b"index");
        let (found, seeds) = placements(&object);
        assert_eq!((found.pieces.len(), found.providers.len(), seeds.len()), (3, 3, 9));
        let stripe = &found.pieces[&[8; 16]];
        assert!(stripe.is_sound() && stripe.stripe.is_some() && stripe.holders().count() == 3);
        let ledger = Ledger::open(Arc::new(MemoryRows::default())).unwrap();
        ledger.import(found).unwrap();
        assert_eq!(ledger.stripe_of(&[2; 16]).map(|(id, _, slot)| (id, slot)), Some(([8; 16], 1)));
        let copies = object.pieces.iter().find(|piece| piece.shards.is_empty()).unwrap();
        assert_eq!(ledger.piece(&copies.id).unwrap().holders().count(), 3);
    }
}
