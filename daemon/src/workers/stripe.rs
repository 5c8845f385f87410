//! The stripe worker: turns copies into stripes, slowly, and gives up what is surplus then.
//!
//! ```text
//! make      k safe pieces ─► parity, piece CIDs (idle priority) ─► stripe row, "stripe" in the log ─► the place worker fills its slots
//! surplus   enough by the published stripe alone, for the whole grace ─► "remove" in the log, rel/ rows
//!                ─► a published head says so ─► the retain worker ends the deals
//! ```
//!
//! Each arrow is committed rows; a crash repeats a step. One stripe is made at a time, and none while anything else is to be
//! placed. What is surplus is decided under the ledger's own lock by what counts there and then; the grace only delays it. Nothing is given
//! up for what only proves itself: each slot that is to be enough alone was read through its holder since it was.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use async_trait::async_trait;
use holdfast_content::placement::{ChainEnd, PlacementAction, PlacementEntry, PlacementFacts, STRIPE_ITSELF};
use holdfast_net::stripe::StripeShape;

use super::place::{open_slots, proposal, shards, short_id, source};
use crate::drive::Engine;
use crate::drive::clock::age;
use crate::drive::events::Level;
use crate::drive::ledger::{
    Form, Holder, Peer, PieceId, PieceRow, ProviderRow, Said, StripePiece, StripeRow,
};
use crate::drive::stripe_plan::{self, Candidate, Seen, Todo};
use crate::worker::{Context, Detail, Next, Worker};

/// How often stripes are looked at while something is to be done about one.
const LOOK: Duration = Duration::from_secs(2);
/// And otherwise: a look counts every stripe of the drive.
const LOOK_IDLE: Duration = Duration::from_secs(60);

/// See the module.
pub struct StripeWorker {
    engine: Arc<Engine>,
    /// Since when something is surplus, by a clock that never jumps. Lost at a restart: the grace begins anew.
    surplus: HashMap<PieceId, Instant>,
    /// When the slots that are to be enough alone were last asked to be read.
    asked: HashMap<PieceId, Instant>,
    /// Deals that waited to be ended at the last look.
    releases: usize,
    detail: Detail,
}

impl StripeWorker {
    /// A worker over `engine`'s ledger.
    pub fn new(engine: Arc<Engine>) -> Self {
        Self {
            engine,
            surplus: HashMap::new(),
            asked: HashMap::new(),
            releases: 0,
            detail: Detail::default(),
        }
    }

    /// Looks after the stripes that there are. Returns how many are not as they should be, or on their way to it.
    async fn tend(&mut self) -> anyhow::Result<u64> {
        let engine = &self.engine;
        let found = engine.blocking(|e| {
            let stripes = e.ledger.stripes().into_iter();
            stripes.map(|(id, row)| (id, e.todo_of(id, &row), row)).collect::<Vec<_>>()
        });
        let found = found.await?;
        let grace = Duration::from_secs(engine.policy.surplus_grace_seconds);
        let mut open = 0;
        let (mut surplus, mut to_read, mut read_next) = (HashMap::new(), HashMap::new(), false);
        for (id, todo, row) in found {
            open += u64::from(todo != Todo::Nothing || open_slots(&row).next().is_some());
            match todo {
                Todo::Nothing => {}
                Todo::WantCopies => {
                    engine.blocking(move |e| e.want_copies(&row)).await??;
                }
                Todo::DropCopies | Todo::Dissolve => {
                    let since = self.surplus.get(&id).copied().unwrap_or_else(Instant::now);
                    surplus.insert(id, since);
                    if since.elapsed() >= grace {
                        let unread = engine.blocking(move |e| e.give_up(id, todo, &row, since)).await??;
                        let asked = self.asked.get(&id).copied().filter(|at| at.elapsed() < LOOK_IDLE);
                        if !unread.is_empty() {
                            read_next |= asked.is_none();
                            to_read.insert(id, asked.unwrap_or_else(Instant::now));
                        }
                        if asked.is_none() {
                            engine.retriever.to_read.lock().extend(unread);
                        }
                    }
                }
            }
        }
        // Whatever stopped being surplus begins anew.
        (self.surplus, self.asked) = (surplus, to_read);
        if read_next {
            engine.supervisor.poke("audit");
        }
        Ok(open)
    }

    /// Deals wait to be ended that were not waiting before: the retain worker looks again, as soon as a head says so.
    async fn tell_retain(&mut self) -> anyhow::Result<()> {
        let waiting = self.engine.blocking(|e| e.ledger.releases()).await??.len();
        if waiting > self.releases {
            self.engine.supervisor.poke("retain");
        }
        self.releases = waiting;
        Ok(())
    }

    /// Makes a stripe, if one can be filled and nothing else is to be placed.
    async fn make(&mut self, context: &Context) -> anyhow::Result<bool> {
        let engine = self.engine.clone();
        let Some((losses, pieces)) = engine.blocking(|e| e.next_stripe()).await?? else { return Ok(false) };
        self.detail.doing = format!("coding a stripe of {} pieces", pieces.len());
        context.report(self.detail.clone());
        let parity = u16::from(losses);
        let shape = StripeShape::new(pieces.iter().map(|piece| piece.len).collect(), parity)?;
        let mut bytes = Vec::new();
        for piece in &pieces {
            let row = engine.ledger.piece(&piece.id).context("a piece that went away")?;
            bytes.push(source::open(&engine, piece.id, &row).await?);
        }
        let mut id = [0; 16];
        engine.env.rng.fill(&mut id);
        let (started, len) = (Instant::now(), shape.shard_len());
        let cids = {
            let engine = engine.clone();
            engine.clone().threads.unhurried(move || shards::make(&engine, id, &shape, &bytes)).await??
        };
        let (stripe, data, took) = (short_id(&id), pieces.len(), started.elapsed());
        tracing::info!(%stripe, data, parity, shard_bytes = len, ?took, "a stripe was coded");
        let stripe = StripeRow {
            parity,
            pieces: pieces.iter().map(|piece| StripePiece { id: piece.id, len: piece.len }).collect(),
            entry: 0,
        };
        engine
            .blocking(move |e| {
                e.ledger.add_stripe(id, stripe, cids, &mut |said, chain| {
                    sign(e, PlacementAction::Stripe, &said, chain).map_err(|error| format!("{error:#}"))
                })
            })
            .await??;
        Ok(true)
    }
}

#[async_trait]
impl Worker for StripeWorker {
    fn name(&self) -> &'static str {
        "stripe"
    }

    fn status(&self) -> Detail {
        self.detail.clone()
    }

    async fn work(&mut self, context: &Context) -> anyhow::Result<Next> {
        self.detail = Detail::default();
        if self.engine.read_only().is_some() {
            return Ok(Next::After(LOOK));
        }
        let open = self.tend().await?;
        self.tell_retain().await?;
        let made = tokio::select! {
            made = self.make(context) => made?,
            () = context.stopping().cancelled() => return Ok(Next::Idle),
        };
        self.detail = Detail { doing: String::new(), queue: open, progress: None };
        let soon = open > 0 || self.engine.policy.stripe_after_seconds < LOOK_IDLE.as_secs();
        Ok(match made {
            true => Next::Again,
            false => Next::After(if soon { LOOK } else { LOOK_IDLE }),
        })
    }

    async fn wait(&mut self) {
        tokio::time::sleep(LOOK).await;
    }
}

impl Engine {
    /// What is to be done about a stripe, by what counts now.
    fn todo_of(&self, id: PieceId, row: &PieceRow) -> Todo {
        let Some(stripe) = &row.stripe else { return Todo::Nothing };
        let ledger = &self.ledger;
        let known: Vec<&StripePiece> =
            stripe.pieces.iter().filter(|piece| ledger.piece(&piece.id).is_some()).collect();
        // A piece that wants less than another in the stripe counts as if it wanted as much, and had the difference.
        let wanted = self.wanted(&id);
        let ahead = |piece: &PieceId| wanted.saturating_sub(self.wanted(piece));
        let fewest = |count: &dyn Fn(&PieceId) -> usize| {
            let counts = known.iter().map(|p| match count(&p.id) {
                0 => 0,
                losses => losses.saturating_add(ahead(&p.id)),
            });
            counts.min().unwrap_or(0)
        };
        let has_copies =
            |piece: &&&StripePiece| ledger.piece(&piece.id).is_some_and(|row| !row.slots.is_empty());
        todo_logged(
            id,
            Seen {
                pieces: known.len(),
                with_copies: known.iter().filter(has_copies).count(),
                by_stripe: fewest(&|id| ledger.counting_as(id, Form::Stripe)),
                by_stripe_live: ledger.live_copies(&id),
                by_copies: fewest(&|id| ledger.counting_as(id, Form::Copies)),
                slots: row.slots.len(),
                parity: stripe.parity.into(),
                domains: self.domains_for(Some(row)),
                wanted,
            },
        )
    }

    /// Failure domains that can be given something now, or, for a stripe that is there, that keep a slot of it or may come back.
    pub(super) fn domains_for(&self, row: Option<&PieceRow>) -> usize {
        let now = self.now();
        let fits = |peer: &Peer, provider: &ProviderRow| match row {
            None => provider.answers() && provider.last_ok > 0 && !provider.is_barred(now),
            Some(row) => {
                let keeps = |(_, h): (u16, &Holder)| h.failed.is_none() && &h.provider == peer;
                !provider.lost() && (!provider.is_barred(now) || row.holders().any(keeps))
            }
        };
        let providers = self.ledger.providers();
        let fit: Vec<&Peer> =
            providers.iter().filter(|(peer, row)| fits(peer, row)).map(|(peer, _)| peer).collect();
        let domains: HashSet<usize> = self.ledger.domains(&fit).into_iter().collect();
        domains.len()
    }

    fn want_copies(&self, row: &PieceRow) -> anyhow::Result<()> {
        for piece in row.stripe.iter().flat_map(|stripe| &stripe.pieces) {
            self.ledger.want_copies(piece.id, self.copies_of(&piece.id))?;
        }
        Ok(())
    }

    /// Slots of these that count, and that nobody here has read since then.
    fn unread(&self, rows: &[(PieceId, PieceRow)], since: Instant) -> Vec<(PieceId, u16)> {
        let sound = |h: &Holder| h.failed.is_none();
        let slots = rows.iter().flat_map(|(id, row)| row.holders().map(|(slot, holder)| (*id, slot, holder)));
        let unread = |h: &Holder| !self.retriever.readings.right_since(&h.deal, since);
        slots.filter(|(.., h)| sound(h) && unread(h)).map(|(id, slot, _)| (id, slot)).collect()
    }

    /// Gives up one of the two forms; the ledger looks again whether the other is enough. Returns the slots that have to be read before.
    fn give_up(
        &self,
        id: PieceId,
        todo: Todo,
        row: &PieceRow,
        since: Instant,
    ) -> anyhow::Result<Vec<(PieceId, u16)>> {
        let wanted = usize::from(self.policy.copies());
        if self.ledger.head_copies() < self.head_wanted() {
            return Ok(Vec::new());
        }
        let mut signed = |said: Said<'_>, chain: &ChainEnd| {
            sign(self, PlacementAction::Remove, &said, chain).map_err(|error| format!("{error:#}"))
        };
        if todo == Todo::Dissolve {
            let pieces = row.stripe.iter().flat_map(|stripe| &stripe.pieces);
            let copies: Vec<_> =
                pieces.filter_map(|piece| Some((piece.id, self.ledger.piece(&piece.id)?))).collect();
            let unread = self.unread(&copies, since);
            if !unread.is_empty() {
                return Ok(unread);
            }
            if self.ledger.dissolve(id, wanted, &mut signed)? {
                let text = format!("stripe {} is kept as copies again, or not needed", short_id(&id));
                self.events.add(self.now(), Level::Info, text);
            }
            return Ok(Vec::new());
        }
        let fresh = self.audit_interval().saturating_mul(2);
        let proven = |(_, h): (u16, &Holder)| age(self.now(), h.proven_at) <= fresh;
        let Some(now) = self.ledger.piece(&id).filter(|row| row.holders().all(proven)) else {
            return Ok(Vec::new());
        };
        let unread = self.unread(&[(id, now)], since);
        if !unread.is_empty() {
            return Ok(unread);
        }
        let mut dropped = 0;
        for piece in row.stripe.iter().flat_map(|stripe| &stripe.pieces) {
            dropped += u64::from(self.ledger.drop_copies(piece.id, wanted, &mut signed)?);
        }
        if dropped > 0 {
            let text =
                format!("stripe {} keeps {dropped} pieces now; their copies are given up", short_id(&id));
            self.events.add(self.now(), Level::Info, text);
        }
        Ok(Vec::new())
    }

    /// The pieces of the next stripe, if it is time for one, and the losses that it has to survive: of pieces that have to survive as many.
    fn next_stripe(&self) -> anyhow::Result<Option<(u8, Vec<Candidate>)>> {
        let (ledger, policy) = (&self.ledger, &self.policy);
        let domains = self.domains_for(None);
        let data = |losses: u8| stripe_plan::data_slots(domains, losses, policy.stripe_data_max);
        if (0..=self.highest_losses()).all(|losses| data(losses).is_none()) {
            return Ok(None);
        }
        let rows: HashMap<PieceId, PieceRow> = ledger.pieces().into_iter().collect();
        // Whatever is to be placed comes first, and a stripe that was begun before the next.
        let waits = |(id, row): (&PieceId, &PieceRow)| {
            let open = open_slots(row).next().is_some();
            open && (row.stripe.is_some() || ledger.counting_as(id, Form::Stripe) < self.wanted(id))
        };
        if rows.iter().any(waits) {
            return Ok(None);
        }
        let published = self.head.published_sequence().unwrap_or(0);
        let now = self.now();
        let ripe = |piece: &holdfast_fs::drive::types::PieceInfo| {
            // What is public never gets here: its providers serve it, and each has it whole.
            !piece.checkpoint
                && piece.commit_sequence != 0
                && piece.commit_sequence <= published
                && age(now, piece.created) >= policy.stripe_after_seconds
                && !ledger.is_striped(&piece.id)
                && rows.contains_key(&piece.id)
                && ledger.counting_as(&piece.id, Form::Copies) >= self.wanted(&piece.id)
        };
        let mut candidates: BTreeMap<u8, Vec<Candidate>> = BTreeMap::new();
        for piece in self.all_pieces()?.into_iter().filter(ripe) {
            let losses = ledger.class(&piece.id).losses(policy.survive_losses);
            let (len, local, created) = (piece.raw_len, piece.local, piece.created);
            candidates.entry(losses).or_default().push(Candidate { id: piece.id, len, local, created });
        }
        let picked = |(losses, all)| Some((losses, stripe_plan::pick(all, data(losses)?)?));
        Ok(candidates.into_iter().rev().find_map(picked))
    }
}

fn todo_logged(id: PieceId, seen: Seen) -> Todo {
    let todo = stripe_plan::todo(seen);
    if todo != Todo::Nothing {
        tracing::debug!(stripe = %short_id(&id), ?todo, ?seen, "a stripe is not as it should be");
    }
    todo
}

/// Signs what a batch of the ledger says.
pub(crate) fn sign(
    engine: &Engine,
    action: PlacementAction,
    said: &Said<'_>,
    chain: &ChainEnd,
) -> anyhow::Result<(Vec<u8>, ChainEnd)> {
    let key = engine.keys.placement_signing();
    let cid = said.row.slots.get(usize::from(said.slot)).and_then(|slot| slot.cid.clone());
    let receipt = match (&said.row.stripe, action) {
        (Some(stripe), PlacementAction::Stripe) => {
            let cids = said.row.slots.iter().filter_map(|slot| slot.cid.as_ref());
            let cids = cids.map(|cid| cid::Cid::try_from(cid.as_slice())).collect::<Result<Vec<_>, _>>()?;
            let manifest = proposal::striped(said.id, stripe, cids, key.verifying_key().to_bytes())?;
            manifest.sign(key)?.as_bytes().to_vec()
        }
        _ => match (&said.row.public, action) {
            (Some(public), PlacementAction::Public) => public.note.to_vec(),
            _ => Vec::new(),
        },
    };
    let itself = said.slot == STRIPE_ITSELF;
    let facts = PlacementFacts {
        action,
        piece: said.id,
        raw_len: said.row.slot_len(said.slot),
        slot: said.slot,
        holder: said.holder.map(|h| h.provider.clone()).unwrap_or_default(),
        slot_cid: cid.filter(|_| !itself).map(|cid| cid.into_vec()).unwrap_or_default(),
        deal: said.holder.map(|h| h.deal.clone()).unwrap_or_default(),
        receipt,
        time: engine.now(),
    };
    let entry = PlacementEntry::sign(facts, chain, key)?;
    Ok((entry.bytes().to_vec(), entry.chain_end()))
}
