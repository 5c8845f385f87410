//! A watcher that lies: with a capability that is real it places what nobody lost, says that it placed what it did not, claims
//! everything for itself without end, and tries to end deals. What it may do with providers is what its permits allow.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use bytes::Bytes;
use holdfast::drive::threads::Threads;
use holdfast::watch::bundle::{Bundle, Held, Piece};
use holdfast::watch::capability::Capability;
use holdfast::watch::log::{INTENTS_MAX, Log, SlotName};
use holdfast::watch::reach::Reach;
use holdfast_content::placement::{ChainEnd, PlacementAction, PlacementFacts};
use holdfast_content::watch::WatcherKeys;
use holdfast_content::watch::part::{self, Part};
use holdfast_net::client::Priority;
use holdfast_net::deal::{DEAL_SUITE, DEAL_VERSION, manifest_digest};
use holdfast_net::{
    ByteRange, Client, DealId, DealProposal, Env, Manifest, PieceSource, RecordKey, RecordKind,
};

use crate::world::World;

const EVERY: Duration = Duration::from_secs(40);
const READ: Duration = Duration::from_secs(20);
/// Entries that it invents at most: the log has an end.
const ENTRIES_MAX: usize = 400;

struct Rogue {
    world: Arc<World>,
    capability: Capability,
    keys: WatcherKeys,
    reach: Reach,
    env: Env,
    log: Log,
    number: u64,
}

/// A slot's bytes.
struct Slot(Vec<u8>);

impl PieceSource for Slot {
    fn len(&self) -> u64 {
        self.0.len() as u64
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> std::io::Result<()> {
        let at = usize::try_from(offset).unwrap_or(usize::MAX);
        let part = self.0.get(at..at.saturating_add(buf.len()));
        buf.copy_from_slice(part.ok_or(std::io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }
}

/// Does so until its process ends.
pub async fn betray(world: Arc<World>, file: &Path, client: Client, env: Env) -> Result<()> {
    let capability = Capability::read(&std::fs::read(file)?)?;
    let keys = capability.keys();
    let reach = Reach::over(client, &keys, env.clone(), Threads::Caller);
    for known in &capability.providers {
        reach.add_place(&known.peer, &known.addrs);
    }
    let log = Log::new(keys.log.verifying_key().to_bytes(), ChainEnd::default());
    let mut rogue = Rogue { world, capability, keys, reach, env, log, number: 0 };
    loop {
        tokio::time::sleep(EVERY).await;
        if let Err(error) = rogue.once().await {
            rogue.world.note(&format!("the rogue: {error:#}"));
        }
    }
}

impl Rogue {
    fn below(&self, n: usize) -> usize {
        let mut random = [0; 8];
        self.env.rng.fill(&mut random);
        usize::try_from(u64::from_le_bytes(random) % n.max(1) as u64).unwrap_or(0)
    }

    async fn bundle(&self) -> Result<Bundle> {
        let key = RecordKey::new(RecordKind::WatchBundle, part::name(&self.capability.bundle, 0));
        let mut newest: Option<Part> = None;
        for peer in self.reach.peers() {
            let Ok(Some(value)) = self.reach.get(&peer, &key).await else { continue };
            let part = Part::verify(&key.name, &value)?;
            if newest.as_ref().is_none_or(|known| known.number < part.number) {
                newest = Some(part);
            }
        }
        let part = newest.context("nobody has the bundle")?;
        let plain = BTreeMap::from([(0, part.open(&self.keys.open)?.to_vec())]);
        Ok(Bundle::join(part.number, &plain)?)
    }

    async fn once(&mut self) -> Result<()> {
        let bundle = self.bundle().await?;
        self.reach.set_permits(&bundle)?;
        for provider in &bundle.head.providers {
            self.reach.add_place(&provider.known.peer, &provider.known.addrs);
        }
        let held: Vec<(&Piece, u16, &Held)> = bundle
            .pieces
            .iter()
            .flat_map(|piece| piece.slots.iter().zip(0..).map(move |(slot, n)| (piece, n, slot)))
            .filter_map(|(piece, n, slot)| Some((piece, n, slot.held.as_ref()?)))
            .collect();
        let Some(&(piece, n, held)) = held.get(self.below(held.len())) else { return Ok(()) };
        let from = bundle.peers().get(usize::from(held.provider)).context("no such provider")?.clone();
        let mut intents: Vec<SlotName> = Vec::new();
        match self.below(5) {
            0 => self.needless(&bundle, piece, n, (held, &from), true).await?,
            1 => self.needless(&bundle, piece, n, (held, &from), false).await?,
            2 => {
                let session = self.reach.session(&from).await?;
                let ended = session.release(DealId(held.deal)).await;
                self.world.note(&format!("the rogue wants a deal to end: {}", ended.is_ok()));
            }
            // Everything is its own to place, for ever; and what it was to place is placed, it says.
            _ => {
                for piece in &bundle.pieces {
                    for slot in 0..u16::try_from(piece.slots.len()).unwrap_or(0) {
                        intents.push(SlotName { piece: piece.id, slot });
                        if self.below(4) == 0 {
                            self.invent(&bundle, piece, slot)?;
                        }
                    }
                }
                intents.truncate(INTENTS_MAX);
            }
        }
        self.say(&bundle, intents).await
    }

    /// An entry with a receipt that nobody signed, and a deal that there is not.
    fn invent(&mut self, bundle: &Bundle, piece: &Piece, slot: u16) -> Result<()> {
        if self.log.entries().len() > ENTRIES_MAX {
            return Ok(());
        }
        let mut deal = [0; 32];
        self.env.rng.fill(&mut deal);
        let peers = bundle.peers();
        let holder = peers.get(self.below(peers.len())).context("no provider")?.clone();
        self.add(piece, slot, holder, deal, vec![1; 64])
    }

    fn add(
        &mut self,
        piece: &Piece,
        slot: u16,
        holder: Vec<u8>,
        deal: [u8; 32],
        receipt: Vec<u8>,
    ) -> Result<()> {
        let facts = PlacementFacts {
            action: PlacementAction::Add,
            piece: piece.id,
            raw_len: piece.slot_len(slot),
            slot,
            holder,
            slot_cid: piece.slots.get(usize::from(slot)).context("no such slot")?.cid.to_vec(),
            deal: deal.to_vec(),
            receipt,
            time: self.env.clock.unix_seconds(),
        };
        self.log.add(facts, &self.keys.log)?;
        Ok(())
    }

    /// A copy that nobody lacks, with somebody who keeps nothing of the piece; told, or not.
    async fn needless(
        &mut self,
        bundle: &Bundle,
        piece: &Piece,
        n: u16,
        (held, from): (&Held, &Vec<u8>),
        tells: bool,
    ) -> Result<()> {
        if !piece.shards.is_empty() {
            return Ok(());
        }
        let has = |peer: &Vec<u8>| {
            let world = self.world.state.lock();
            let keeps = |p: &crate::provider::Provider| {
                p.peer == *peer && (p.group.is_some() || p.deals.values().any(|deal| deal.of == piece.id))
            };
            world.providers.iter().any(keeps)
        };
        let free: Vec<Vec<u8>> = bundle.peers().into_iter().filter(|peer| !has(peer)).collect();
        let Some(to) = free.get(self.below(free.len())).cloned() else { return Ok(()) };
        let session = self.reach.session(from).await?;
        let len = u32::try_from(piece.len)?;
        let deal = DealId(held.deal);
        let parts: Vec<Bytes> = session.read(deal, &[ByteRange::new(0, len)], Priority::Bulk, READ).await?;
        let slot = piece.slots.get(usize::from(n)).context("no such slot")?;
        let holder = &self.keys.holder;
        let signer = holder.verifying_key().to_bytes();
        let manifest = Manifest::replicas(piece.id, piece.len, piece.cids()?, signer).sign(holder)?;
        let permit = self.reach.place_permit(&to).context("nothing may go there")?;
        let now = self.env.clock.unix_seconds();
        let mut nonce = [0; 16];
        self.env.rng.fill(&mut nonce);
        let proposal = DealProposal {
            version: DEAL_VERSION,
            suite: DEAL_SUITE,
            client: permit.body().client,
            provider: to.clone(),
            piece_cid: cid::Cid::try_from(slot.cid.as_slice())?,
            raw_len: piece.len,
            manifest: manifest_digest(manifest.as_bytes()),
            start: now,
            end: now + bundle.head.deal_seconds,
            price: Vec::new(),
            settlement: 0,
            settlement_data: Vec::new(),
            nonce,
        };
        let signed = proposal.sign_by(permit, holder)?;
        self.world.state.lock().untold.insert(signed.deal_id());
        let session = self.reach.session(&to).await?;
        session.propose(&signed, manifest.as_bytes()).await?;
        let source = Arc::new(Slot(parts.iter().flat_map(|part| part.to_vec()).collect()));
        let receipt = session.push(&signed, source, |_| {}).await?;
        self.world.note(&format!("the rogue placed slot {n} of a piece that lacks none (told: {tells})"));
        if tells {
            self.add(piece, n, to, signed.deal_id().0, receipt.to_bytes())?;
        }
        Ok(())
    }

    async fn say(&mut self, bundle: &Bundle, intents: Vec<SlotName>) -> Result<()> {
        let author = self.keys.log.verifying_key().to_bytes();
        let mut plain = self.log.parts(0)?;
        plain.push((0, self.log.head(intents, Vec::new())?));
        let mut told = false;
        for (n, plain) in plain {
            self.number += 1;
            let value = part::write(&self.keys.log, n, self.number, &bundle.head.shared, &plain)?;
            let key = RecordKey::new(RecordKind::WatchLog, part::name(&author, n));
            for peer in self.reach.peers() {
                told |= self.reach.put(&peer, &key, &value).await.is_ok() && n == 0;
            }
        }
        if told {
            let mut state = self.world.state.lock();
            for entry in self.log.entries() {
                if let Ok(deal) = entry.body().deal.as_slice().try_into() {
                    state.untold.remove(&DealId(deal));
                }
            }
        }
        Ok(())
    }
}
