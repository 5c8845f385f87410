//! From the words to the drive: which steps, in which order, and what is believed of whom.
//!
//! ```text
//! find    words ─► drive name ─► keyring from the given peers (the highest that verifies under the name)
//! newest  head key ─► heads from the known peers ─► the highest ─► its providers are asked again ─► the highest of all
//! adopt   head ─► tail (in memory) ─► checkpoint, read through the tail ─► where every slot lies
//! ```
//!
//! Promises: nothing unsigned is believed; how many providers answered is said; a provider can withhold a newer head but not
//! invent one. Refuses to guess: with no head that verifies there is no drive to mount.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use futures::StreamExt;
use holdfast_content::block::Block;
use holdfast_content::head::HeadBody;
use holdfast_content::keys::{DriveKeys, Keyring, RootKey, TreeDomain};
use holdfast_content::placement::{Log, PlacementAction, PlacementEntry, PlacementTree};
use holdfast_content::retrieve::{Priority, Retriever};
use holdfast_content::tree::{NodeSource, Physical, PhysicalRef, SourceError};
use holdfast_net::client::{Client, ClientConfig};
use holdfast_net::node::{Node, NodeConfig};
use holdfast_net::{Env, PeerId, RecordKey, identity};
use serde_bytes::ByteBuf;

use crate::control::ProgressSink;
use crate::drive::ledger::{Holder, Imported, PieceId, PieceRow, ProviderRow};
use crate::home::{ProviderAddr, Recovered};
use crate::records::{HeadValue, head_key, keyring_key};
use crate::retrieve::NetRetriever;

/// One peer's answer to one question.
const PATIENCE: Duration = Duration::from_secs(10);
/// Peers asked at once.
const AT_ONCE: usize = 16;
/// Nodes of the placement checkpoint are fetched with that much patience.
const FETCH: Duration = Duration::from_secs(60);

/// What the words and the given peers led to.
#[derive(Debug)]
pub struct Found {
    /// Keys and keyring: enough to make a home.
    pub recovered: Recovered,
    /// The providers that the head names.
    pub providers: Vec<ProviderAddr>,
    /// The policy, as far as the head shows it.
    pub survive_losses: Option<u8>,
    /// Providers that answered when the newest head was asked for.
    pub answered: u32,
    /// Providers that were asked.
    pub asked: u32,
}

/// A client node under a throw-away identity, for the time of the search.
async fn searcher(env: &Env) -> anyhow::Result<Client> {
    let mut seed = [0; 32];
    env.rng.fill(&mut seed);
    let node = Node::start(NodeConfig::client(identity::keypair(seed)?)).await?;
    Ok(Client::new(node, env.clone(), ClientConfig::default()))
}

/// Finds the drive of `root` at `peers`: the keyring, and who keeps the drive.
pub async fn find(root: &RootKey, peers: &[ProviderAddr], progress: ProgressSink) -> anyhow::Result<Found> {
    let env = Env::system();
    let client = searcher(&env).await?;
    let drive = root.drive_name();
    progress.send(crate::control::ProgressLine { phase: "asking".into(), ..Default::default() });
    let answers = ask(&client, peers, &keyring_key(&drive)).await;
    if answers.iter().all(|a| a.is_err()) {
        let reasons: Vec<String> = answers.iter().filter_map(|a| a.as_ref().err().cloned()).collect();
        bail!("none of the given providers answers: {}", reasons.join("; "));
    }
    let keyrings = answers.into_iter().flatten().flatten();
    let best = keyrings
        .filter_map(|bytes| Keyring::verify(&bytes, &drive).ok().map(|k| (k.sequence, k, bytes)))
        .max_by_key(|(sequence, ..)| *sequence);
    let Some((_, keyring, bytes)) = best else {
        bail!("the providers that answered know no drive of these words ({drive})");
    };
    let generation = root.generation(keyring.current()?.number);
    let keys = generation.keys();
    let newest = newest(&client, &keys, peers).await?;
    let copies = newest.body.tail.iter().map(|e| e.body().slot).max();
    let found = Found {
        recovered: Recovered { drive, generation, keyring: bytes },
        providers: providers(&newest.body),
        // With a checkpoint the tail shows only what changed since; the whole picture comes with the mount.
        survive_losses: copies
            .and_then(|c| u8::try_from(c).ok())
            .filter(|_| newest.body.checkpoint.is_none()),
        answered: newest.answered,
        asked: newest.asked,
    };
    client.node().clone().shutdown().await;
    Ok(found)
}

/// The newest head that anybody known shows.
pub struct Newest {
    /// Opened with the drive's keys.
    pub body: HeadBody,
    /// As it travels.
    pub value: Vec<u8>,
    /// Providers that answered.
    pub answered: u32,
    /// Providers that were asked.
    pub asked: u32,
}

/// Asks `peers`, then everybody whom the best head names.
pub async fn newest(client: &Client, keys: &DriveKeys, peers: &[ProviderAddr]) -> anyhow::Result<Newest> {
    let public = keys.head_signing().verifying_key().to_bytes();
    let key = head_key(&public);
    let mut asked: Vec<ProviderAddr> = peers.to_vec();
    let mut answers = ask(client, peers, &key).await;
    let best = |answers: &[Result<Option<Vec<u8>>, String>]| {
        let heads = answers.iter().flatten().flatten();
        heads
            .filter_map(|bytes| HeadValue::verify(bytes, &public).ok())
            .max_by(|a, b| a.record().compare(b.record()))
    };
    let Some(first) = best(&answers) else {
        let reasons: Vec<String> = answers.iter().filter_map(|a| a.as_ref().err().cloned()).collect();
        if reasons.is_empty() {
            bail!("the drive is known there, but nothing was ever placed from it");
        }
        bail!("no provider that answers keeps the drive's head: {}", reasons.join("; "));
    };
    let body = HeadBody::open(first.sealed(), keys)?;
    let others: Vec<ProviderAddr> =
        providers(&body).into_iter().filter(|p| !asked.iter().any(|a| a.peer_id == p.peer_id)).collect();
    answers.extend(ask(client, &others, &key).await);
    asked.extend(others);
    let head = best(&answers).unwrap_or(first);
    Ok(Newest {
        body: HeadBody::open(head.sealed(), keys)?,
        value: head.encode()?,
        answered: u32::try_from(answers.iter().filter(|a| a.is_ok()).count()).unwrap_or(u32::MAX),
        asked: u32::try_from(asked.len()).unwrap_or(u32::MAX),
    })
}

async fn ask(
    client: &Client,
    peers: &[ProviderAddr],
    key: &RecordKey,
) -> Vec<Result<Option<Vec<u8>>, String>> {
    futures::stream::iter(peers)
        .map(|provider| async move {
            let asking = async {
                let (peer, addrs) = provider.parts().map_err(|e| e.to_string())?;
                let session = client.connect(peer, addrs).await.map_err(|e| e.to_string())?;
                session.get_record(key).await.map_err(|e| e.to_string())
            };
            match tokio::time::timeout(PATIENCE, asking).await {
                Ok(answer) => answer.map(|v| v.map(|b| b.to_vec())),
                Err(_) => Err("no answer in time".to_owned()),
            }
            .map_err(|e: String| format!("{}: {e}", provider.peer_id))
        })
        .buffered(AT_ONCE)
        .collect()
        .await
}

/// Those that a head names.
pub fn providers(body: &HeadBody) -> Vec<ProviderAddr> {
    let named = body.providers.iter().filter_map(|p| {
        let peer = PeerId::from_bytes(&p.peer).ok()?;
        Some(ProviderAddr { peer_id: peer.to_string(), addrs: p.addresses.clone() })
    });
    named.collect()
}

struct Remote<'a>(&'a NetRetriever);

impl NodeSource<Physical> for Remote<'_> {
    fn node(&self, node: &PhysicalRef) -> Result<Block, SourceError> {
        let mut blocks = self.0.fetch(&[node.at], Priority::Interactive, FETCH);
        match blocks.pop() {
            Some(Ok(block)) => Ok(block),
            Some(Err(error)) => Err(SourceError::Fetch(error)),
            None => Err(SourceError::Missing),
        }
    }
}

/// What the head's tail alone says: enough to read the checkpoint.
pub fn from_tail(keys: &DriveKeys, body: &HeadBody, now: u64, copies: u16) -> anyhow::Result<Imported> {
    let owner = keys.placement_signing().verifying_key().to_bytes();
    let log = Log::from_checkpoint(owner, Vec::new(), body.checkpoint_chains.clone(), Vec::new());
    import(log, body, owner, now, copies)
}

/// The whole picture: the checkpoint, read through `retriever`, and the tail on top.
pub fn from_checkpoint(
    keys: &DriveKeys,
    body: &HeadBody,
    retriever: &Arc<NetRetriever>,
    now: u64,
    copies: u16,
) -> anyhow::Result<Imported> {
    let owner = keys.placement_signing().verifying_key().to_bytes();
    let Some(root) = &body.checkpoint else { return from_tail(keys, body, now, copies) };
    let tree = PlacementTree::new(keys.tree(TreeDomain::Placement), 64);
    let remote = Remote(retriever);
    let mut entries = Vec::new();
    for row in tree.iter(&remote, root, &[], None)? {
        entries.push(PlacementEntry::verify(&row?.value)?);
    }
    let log = Log::from_checkpoint(owner, Vec::new(), body.checkpoint_chains.clone(), entries);
    import(log, body, owner, now, copies)
}

fn import(mut log: Log, body: &HeadBody, owner: [u8; 32], now: u64, copies: u16) -> anyhow::Result<Imported> {
    let mut found = Imported::default();
    for entry in &body.tail {
        log.merge(entry.clone()).context("the head's placement log")?;
        found.log.insert(entry.body().number, entry.bytes().to_vec());
    }
    // A slot that moved has an entry for each holder that it had: the newest one is in force.
    let mut newest: BTreeMap<(PieceId, u16), &PlacementEntry> = BTreeMap::new();
    for (_, entry) in log.in_force() {
        let slot = newest.entry((entry.body().piece, entry.body().slot)).or_insert(entry);
        if entry.body().number > slot.body().number {
            *slot = entry;
        }
    }
    // Where the newest one says "removed", the older holders do not count either.
    for ((piece, slot), entry) in newest {
        if entry.body().action != PlacementAction::Add {
            continue;
        }
        let said = entry.body();
        let row = found.pieces.entry(piece).or_insert_with(|| PieceRow::new(said.raw_len, copies));
        while row.slots.len() <= usize::from(slot) {
            row.slots.push(Default::default());
        }
        if let Some(place) = row.slot_mut(slot) {
            place.cid = Some(said.slot_cid.clone());
            place.holder = Some(holder(entry));
        }
    }
    for p in &body.providers {
        let row = ProviderRow { addrs: p.addresses.clone(), ..ProviderRow::new(now) };
        found.providers.insert(ByteBuf::into_vec(p.peer.clone()), row);
    }
    found.chain = log.chain_end(&owner);
    Ok(found)
}

fn holder(entry: &PlacementEntry) -> Holder {
    let said = entry.body();
    Holder {
        provider: said.holder.to_vec(),
        deal: said.deal.to_vec(),
        entry: said.number,
        confirmed_at: said.time,
        // Nothing counts on this machine's word before it was challenged from here.
        proven_at: 0,
        // The deal itself is in the provider's books; ours are made for this time.
        ends_at: said.time.saturating_add(crate::drive::policy::DEAL_SECONDS),
        failed: None,
    }
}
