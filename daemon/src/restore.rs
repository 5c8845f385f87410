//! From the words to the drive: which steps, in which order, and what is believed of whom.
//!
//! ```text
//! find    words ─► drive name ─► keyring from the given peers, else from whom they, and the local network, know
//! newest  head key ─► heads from the known peers ─► the highest ─► its providers are asked again ─► the highest of all,
//!         if enough of those that it names showed a head of this drive
//! adopt   head ─► tail (in memory) ─► checkpoint, read through the tail ─► where every slot lies
//! ```
//!
//! Promises: nothing unsigned is believed; how many providers answered is said; a provider can withhold a newer head but not
//! invent one, and a minority of them cannot pass an older state off as the newest, unless the owner lets them. Refuses to
//! guess: with no head that verifies there is no drive to mount.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use futures::StreamExt;
use holdfast_content::block::Block;
use holdfast_content::class::{Class, ClassNote};
use holdfast_content::head::HeadBody;
use holdfast_content::keys::{DriveKeys, DriveName, Keyring, RootKey, TreeDomain};
use holdfast_content::placement::{Log, PlacementAction, PlacementEntry, PlacementTree};
use holdfast_content::retrieve::{Priority, Retriever};
use holdfast_content::tree::{NodeSource, Physical, PhysicalRef, SourceError};
use holdfast_net::client::{Client, ClientConfig};
use holdfast_net::manifest::{Code, ManifestPiece};
use holdfast_net::node::{Node, NodeConfig};
use holdfast_net::tags::Tags;
use holdfast_net::{DhtKey, Env, Finder, PeerAddrs, PeerId, RecordKey, SignedManifest, identity};
use serde_bytes::ByteBuf;

use crate::control::ProgressSink;
use crate::drive::ledger::{
    self, GrantRow, Holder, Imported, PieceId, PieceRow, ProviderRow, ShareRow, StripePiece, StripeRow,
};
use crate::home::{Policy, ProviderAddr, Recovered};
use crate::records::{HeadValue, head_key, keyring_key};
use crate::retrieve::NetRetriever;

mod not_found;
mod policy;

pub use not_found::NotFound;
use not_found::{Refusal, refusal};
pub use policy::survive_losses;
use policy::survived;

/// One peer's answer to one question.
const PATIENCE: Duration = Duration::from_secs(10);
/// The same of one that has to be found first.
const SEEK_PATIENCE: Duration = Duration::from_secs(40);
/// A newer head may name providers that the older one did not, and so on.
const HEADS_FOLLOWED_MAX: usize = 4;
/// Peers asked at once.
const AT_ONCE: usize = 16;
/// Peers that are asked because somebody said they keep the drive, or because they are near.
const FOUND_MAX: usize = 64;
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
    /// Answers that were no head of this drive.
    pub refused: u32,
    /// Whom they were found by.
    pub peers: Vec<ProviderAddr>,
}

/// Where a drive is looked for.
#[derive(Debug, Clone, Copy)]
pub struct Search<'a> {
    /// Providers of the drive, or any others.
    pub peers: &'a [ProviderAddr],
    /// Whether the local network is asked as well.
    pub mdns: bool,
    /// Whether the newest state of too few providers will do.
    pub minority: bool,
}

/// Fewer of the drive's providers answer than it takes to know that there is no newer head.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "only {shown} of the {named} providers that decide over the drive's head showed one, and {needed} are needed: a newer state may \
     be with the others, and would be lost as soon as this machine writes"
)]
pub struct TooFew {
    pub shown: u32,
    pub named: u32,
    pub needed: u32,
}

/// How many of `named` anchors, or providers where a head names no anchors, have to show a head before the newest of them is taken for the newest of all: a
/// majority, or all but those whose loss the drive survives, where that is less (with three copies on three providers one
/// is enough, or their loss would not be survived).
pub fn needed(named: u32, survive_losses: u8) -> u32 {
    let majority = named / 2 + 1;
    majority.min(named.saturating_sub(u32::from(survive_losses))).max(1)
}

/// A client node under a throw-away identity, for the time of the search.
pub(crate) async fn searcher(env: &Env, finder: Finder) -> anyhow::Result<Client> {
    let mut seed = [0; 32];
    env.rng.fill(&mut seed);
    let node = Node::start(NodeConfig::client(identity::keypair(seed)?)).await?;
    Ok(Client::with_finder(node, env.clone(), ClientConfig::default(), finder))
}

fn whereabouts(peers: &[ProviderAddr]) -> impl Iterator<Item = PeerAddrs> {
    peers.iter().filter_map(|p| p.parts().ok()).map(|(peer, addrs)| PeerAddrs::new(peer, addrs))
}

/// Whoever is said to keep the record, by the DHT, and whoever is near.
async fn seek(finder: &Finder, key: &RecordKey, asked: &[ProviderAddr]) -> Vec<ProviderAddr> {
    let mut found = finder.nearby().await.unwrap_or_default();
    // They lead to the others as well.
    finder.add_bootstrap(found.iter().cloned());
    if finder.can_ask() {
        match finder.holders(DhtKey::of_record(key)).await {
            Ok(holders) => found = [holders, found].concat(),
            Err(error) => tracing::debug!(%error, "nobody was found by the DHT"),
        }
    }
    let mut new: Vec<ProviderAddr> = Vec::new();
    for found in found {
        let found = ProviderAddr::new(found.peer, &found.addrs);
        let known = asked.iter().chain(&new).any(|known| known.peer_id == found.peer_id);
        if !known && new.len() < FOUND_MAX {
            new.push(found);
        }
    }
    new
}

/// The highest keyring of those that verify.
fn highest(answers: &[Answer], drive: &DriveName) -> Option<(Keyring, Vec<u8>)> {
    let keyrings = answers.iter().flatten().flatten();
    let verified = keyrings.filter_map(|bytes| Some((Keyring::verify(bytes, drive).ok()?, bytes.clone())));
    verified.max_by_key(|(keyring, _)| keyring.sequence)
}

/// Finds the drive of `root`: the keyring, and who keeps the drive.
pub async fn find(root: &RootKey, search: Search<'_>, progress: ProgressSink) -> anyhow::Result<Found> {
    let env = Env::system();
    let finder = Finder::new(env.clone(), whereabouts(search.peers).collect(), search.mdns);
    let client = searcher(&env, finder.clone()).await?;
    let drive = root.drive_name();
    let key = keyring_key(&drive);
    progress.send(crate::control::ProgressLine { phase: "asking".into(), ..Default::default() });
    let mut peers = search.peers.to_vec();
    let mut answers = ask(&client, &peers, &key, Where::Known).await;
    if highest(&answers, &drive).is_none() {
        progress.send(crate::control::ProgressLine { phase: "searching".into(), ..Default::default() });
        let found = seek(&finder, &key, &peers).await;
        answers.extend(ask(&client, &found, &key, Where::Known).await);
        peers.extend(found);
    }
    if peers.is_empty() {
        bail!("nobody answers on the local network, and no provider was named");
    }
    if answers.iter().all(|a| a.is_err()) {
        let reasons: Vec<String> = answers.iter().filter_map(|a| a.as_ref().err().cloned()).collect();
        bail!("none of the given providers answers: {}", reasons.join("; "));
    }
    let judge = |bytes: &[u8]| Keyring::verify(bytes, &drive).map(drop).map_err(Refusal::from);
    let refused = refusal("keyring", &answers, judge);
    let (keyring, bytes) = match (highest(&answers, &drive), refused) {
        // The version of a keyring is under its signature: whoever shows an older one is late.
        (_, Some(newer @ NotFound::Newer { .. })) => return Err(newer.into()),
        (Some(found), _) => found,
        (None, Some(damaged)) => return Err(damaged.into()),
        (None, None) => {
            let answered = count(answers.iter().filter(|a| a.is_ok()).count());
            return Err(NotFound::Unknown { drive: drive.to_string(), answered }.into());
        }
    };
    // Those that are none of the drive's have nothing more to say.
    let keeps = |answer: &Answer| {
        let bytes = answer.as_ref().ok().and_then(Option::as_ref);
        bytes.is_some_and(|bytes| Keyring::verify(bytes, &drive).is_ok())
    };
    let keepers: Vec<ProviderAddr> =
        peers.into_iter().zip(&answers).filter(|(_, answer)| keeps(answer)).map(|(peer, _)| peer).collect();
    let generation = root.generation(keyring.current()?.number);
    let keys = generation.keys();
    let newest = newest(&client, &keys, &keepers).await?;
    // With a checkpoint the tail shows only what changed since; the whole picture comes with the mount.
    let survive_losses = survived(&newest.body).filter(|_| newest.body.checkpoint.is_none());
    if !search.minority {
        newest.enough(survive_losses.unwrap_or(Policy::default().survive_losses))?;
    }
    let found = Found {
        recovered: Recovered { drive, generation, keyring: bytes },
        providers: providers(&newest.body),
        survive_losses,
        answered: newest.answered,
        asked: newest.asked,
        refused: newest.refused,
        peers: keepers,
    };
    client.shutdown().await;
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
    /// Answers that were no head of this drive.
    pub refused: u32,
    /// Those whose word counts, and of them those that showed a head of this drive; former anchors apart.
    pub deciding: Vec<Deciding>,
    /// Verified.
    pub head: HeadValue,
    /// The version of a head that somebody showed and this program cannot read. Nothing says that it is genuine.
    pub newer: Option<u64>,
}

/// Providers that decide over a head together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deciding {
    pub named: u32,
    pub shown: u32,
}

impl Newest {
    /// [`Newest::check`], where those that lack may be those that a newer program has written to.
    pub fn enough(&self, survive_losses: u8) -> anyhow::Result<()> {
        match (self.check(survive_losses), self.newer) {
            (Ok(()), _) => Ok(()),
            (Err(_), Some(version)) => Err(NotFound::Newer { what: "head", version }.into()),
            (Err(few), None) => Err(few.into()),
        }
    }

    /// Whether enough of the anchors showed a head.
    pub fn check(&self, survive_losses: u8) -> Result<(), TooFew> {
        for Deciding { named, shown } in self.deciding.iter().copied() {
            let needed = needed(named, survive_losses);
            if shown < needed {
                return Err(TooFew { shown, named, needed });
            }
        }
        Ok(())
    }

    /// The same by a higher head, which somebody showed since.
    pub fn follow(self, head: HeadValue, keys: &DriveKeys) -> anyhow::Result<Newest> {
        Ok(Newest { body: HeadBody::open(head.sealed(), keys)?, value: head.encode()?, head, ..self })
    }
}

/// Whose word counts for a head: its anchors, and the former ones; where it names none, its providers.
fn deciding(head: &HeadValue, body: &HeadBody, showed: impl Fn(&[u8]) -> bool) -> Vec<Deciding> {
    let of = |peers: &[&[u8]]| Deciding {
        named: count(peers.len()),
        shown: count(peers.iter().filter(|peer| showed(peer)).count()),
    };
    match head.standing() {
        Some(standing) => {
            let sets = standing.anchors.sets();
            sets.map(|set| of(&set.iter().map(Vec::as_slice).collect::<Vec<_>>())).collect()
        }
        None => vec![of(&body.providers.iter().map(|p| p.peer.as_slice()).collect::<Vec<_>>())],
    }
}

type Answer = Result<Option<Vec<u8>>, String>;

fn count(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}

/// Asks `peers`, then everybody whom the best head names.
pub async fn newest(client: &Client, keys: &DriveKeys, peers: &[ProviderAddr]) -> anyhow::Result<Newest> {
    let public = keys.head_signing().verifying_key().to_bytes();
    let key = head_key(&public);
    let mut asked: Vec<ProviderAddr> = peers.to_vec();
    let mut answers = ask(client, peers, &key, Where::Known).await;
    let verified = |answer: &Answer| {
        let bytes = answer.as_ref().ok().and_then(Option::as_ref)?;
        HeadValue::verify(bytes, &public).ok()
    };
    let best = |answers: &[Answer]| answers.iter().filter_map(verified).max_by_key(HeadValue::rank);
    let refused = |answers: &[Answer]| {
        refusal("head", answers, |bytes| HeadValue::verify(bytes, &public).map(drop).map_err(Refusal::from))
    };
    let Some(mut head) = best(&answers) else {
        if let Some(refused) = refused(&answers) {
            return Err(refused.into());
        }
        let reasons: Vec<String> = answers.iter().filter_map(|a| a.as_ref().err().cloned()).collect();
        if reasons.is_empty() {
            return Err(NotFound::NothingPlaced.into());
        }
        bail!("no provider that answers keeps the drive's head: {}", reasons.join("; "));
    };
    // A newer head may name others again.
    for _ in 0..HEADS_FOLLOWED_MAX {
        let body = HeadBody::open(head.sealed(), keys)?;
        let others: Vec<ProviderAddr> =
            providers(&body).into_iter().filter(|p| !asked.iter().any(|a| a.peer_id == p.peer_id)).collect();
        if others.is_empty() {
            break;
        }
        answers.extend(ask(client, &others, &key, Where::Known).await);
        asked.extend(others);
        head = best(&answers).unwrap_or(head);
    }
    let mut body = HeadBody::open(head.sealed(), keys)?;
    let decide = |head: &HeadValue, body: &HeadBody, asked: &[ProviderAddr], answers: &[Answer]| {
        let showing: BTreeSet<Vec<u8>> = asked
            .iter()
            .zip(answers)
            .filter(|(_, answer)| verified(answer).is_some())
            .filter_map(|(peer, _)| Some(peer.parts().ok()?.0.to_bytes()))
            .collect();
        deciding(head, body, |peer| showing.contains(peer))
    };
    let enough = |all: &[Deciding]| all.iter().all(|d| d.shown >= needed(d.named, 0));
    if !enough(&decide(&head, &body, &asked, &answers)) {
        // Too few: those that are not where they were are looked for.
        let silent: Vec<usize> =
            (0..asked.len()).filter(|n| answers.get(*n).is_some_and(Result::is_err)).collect();
        let lost: Vec<ProviderAddr> = silent.iter().filter_map(|n| asked.get(*n)).cloned().collect();
        let again = ask(client, &lost, &key, Where::Anywhere).await;
        for (n, answer) in silent.into_iter().zip(again) {
            if let Some(place) = answers.get_mut(n) {
                *place = answer;
            }
        }
        head = best(&answers).unwrap_or(head);
        body = HeadBody::open(head.sealed(), keys)?;
    }
    Ok(Newest {
        deciding: decide(&head, &body, &asked, &answers),
        body,
        value: head.encode()?,
        head,
        answered: count(answers.iter().filter(|a| a.is_ok()).count()),
        asked: count(asked.len()),
        refused: count(answers.iter().filter(|a| matches!(a, Ok(Some(_))) && verified(a).is_none()).count()),
        newer: match refused(&answers) {
            Some(NotFound::Newer { version, .. }) => Some(version),
            _ => None,
        },
    })
}

/// Where a provider is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Where {
    /// Where it is known to be.
    Known,
    /// Where it is found, if it is not there.
    Anywhere,
}

async fn ask(client: &Client, peers: &[ProviderAddr], key: &RecordKey, at: Where) -> Vec<Answer> {
    let patience = if at == Where::Known { PATIENCE } else { SEEK_PATIENCE };
    futures::stream::iter(peers)
        .map(|provider| async move {
            let asking = async {
                let (peer, addrs) = provider.parts().map_err(|e| e.to_string())?;
                let session = match at {
                    Where::Known => client.session(peer, addrs),
                    Where::Anywhere => client.connect(peer, addrs).await.map_err(|e| e.to_string())?,
                };
                session.get_record(key).await.map_err(|e| e.to_string())
            };
            match tokio::time::timeout(patience, asking).await {
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
        let tags = Some(Tags::from_map(&p.tags)).filter(|tags| !tags.is_empty());
        Some(ProviderAddr { peer_id: peer.to_string(), addrs: p.addresses.clone(), tags })
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
    let tree = PlacementTree::new(keys.tree(TreeDomain::Placement), 2 << 20);
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
    // What was removed since the checkpoint: older holders of the same slot do not count either.
    let mut removed: BTreeMap<(PieceId, u16), u64> = BTreeMap::new();
    for entry in &body.tail {
        log.merge(entry.clone()).context("the head's placement log")?;
        let said = entry.body();
        if said.action == PlacementAction::Remove {
            removed.insert((said.piece, said.slot), said.number);
        }
        found.log.insert(said.number, entry.bytes().to_vec());
    }
    for entry in log.stripes() {
        found.pieces.insert(entry.body().piece, stripe(entry, &owner)?);
    }
    for entry in log.public() {
        let said = entry.body();
        let row = PieceRow::public(said.raw_len, copies, said.receipt.to_vec());
        found.pieces.insert(said.piece, row);
    }
    for entry in log.shares() {
        found.shares.insert(entry.body().piece, ShareRow::new(entry.body().receipt.to_vec()));
    }
    for entry in log.watches() {
        found.grants.insert(entry.body().piece, GrantRow::new(entry.body().receipt.to_vec()));
    }
    let mut classes: BTreeMap<PieceId, Class> = BTreeMap::new();
    let mut newest_class = 0;
    for entry in log.classes() {
        let said = entry.body();
        let note = ClassNote::decode(&said.receipt).context("the class of a piece")?;
        classes.insert(said.piece, note.class);
        if said.number >= newest_class {
            newest_class = said.number;
            found.drive_losses = Some(note.drive);
        }
    }
    let class_of = |piece: &PieceId| classes.get(piece).copied().unwrap_or(Class::DRIVE);
    // A slot that moved has an entry for each holder that it had: the newest one is in force.
    let mut newest: BTreeMap<(PieceId, u16), &PlacementEntry> = BTreeMap::new();
    for (_, entry) in log.placed() {
        let at = (entry.body().piece, entry.body().slot);
        if removed.get(&at).is_some_and(|number| *number > entry.body().number) {
            continue;
        }
        let slot = newest.entry(at).or_insert(entry);
        if entry.body().number > slot.body().number {
            *slot = entry;
        }
    }
    for ((piece, slot), entry) in newest {
        let said = entry.body();
        let class = class_of(&piece);
        let new = || PieceRow::new(said.raw_len, ledger::copies(class, copies)).of_class(class);
        let row = found.pieces.entry(piece).or_insert_with(new);
        while row.stripe.is_none() && row.slots.len() <= usize::from(slot) {
            row.slots.push(Default::default());
        }
        if let Some(place) = row.slot_mut(slot) {
            place.cid = Some(said.slot_cid.clone());
            place.holder = Some(holder(entry));
        }
    }
    // Pieces that only a stripe keeps.
    let striped: Vec<StripePiece> =
        found.pieces.values().filter_map(|row| row.stripe.as_ref()).flat_map(|s| s.pieces.clone()).collect();
    for piece in striped {
        let new = || PieceRow::new(piece.len, 0).of_class(class_of(&piece.id));
        found.pieces.entry(piece.id).or_insert_with(new);
    }
    for p in &body.providers {
        let tagged = Tags::from_map(&p.tags);
        let row = ProviderRow { addrs: p.addresses.clone(), tagged, ..ProviderRow::new(now) };
        found.providers.insert(ByteBuf::into_vec(p.peer.clone()), row);
    }
    found.chain = log.chain_end(&owner);
    Ok(found)
}

/// A stripe as its declaration has it. The owner signed both the entry and the manifest in it.
fn stripe(entry: &PlacementEntry, owner: &[u8; 32]) -> anyhow::Result<PieceRow> {
    let said = entry.body();
    let signed = SignedManifest::from_bytes(&said.receipt).context("a stripe's manifest")?;
    let manifest = signed.manifest();
    let (Code::ReedSolomon { parity, .. }, true) =
        (&manifest.code, manifest.id == said.piece && &manifest.signer == owner)
    else {
        bail!("a stripe is declared by a manifest that is not its own");
    };
    let piece = |piece: &ManifestPiece| StripePiece { id: piece.id, len: piece.raw_len };
    let row = StripeRow {
        parity: *parity,
        pieces: manifest.pieces.iter().map(piece).collect(),
        entry: said.number,
    };
    let cids = manifest.slots.iter().map(|slot| slot.piece_cid.to_bytes()).collect();
    PieceRow::striped(row, cids).context("a stripe that is none")
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

#[cfg(test)]
pub(crate) mod tests;
