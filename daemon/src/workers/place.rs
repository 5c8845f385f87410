//! The place worker: gives every piece the copies that the policy wants, each with another provider.
//!
//! The order is fixed, and each arrow is a committed row (*must*, or a copy would be counted that is not there):
//!
//! ```text
//! slot CIDs ─► intent ─► deal countersigned ─► pushed ─► receipt ─► ranged read + fresh challenge on a new connection ─► placement
//! ```
//!
//! A crash anywhere repeats at most one step: the intent keeps the signed proposal, and asking again with the same bytes
//! gives the same deal, the same receipt. Repair is the same work: a slot whose holder failed is a slot without a holder.
//! Small pieces have lanes of their own, so that they do not wait behind large ones. A stripe that is being made of pieces
//! which are safe already comes after everything else, and alone.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use holdfast_net::client::Session;
use holdfast_net::{ErrorCode, NetError};
use tokio::task::{JoinError, JoinSet};

use crate::drive::Engine;
use crate::drive::events::Level;
use crate::drive::ledger::{Form, Holder, Intent, Peer, PieceId, PieceRow, SlotRow};
use crate::drive::peers::peer_short;
use crate::drive::select::{Candidate, choose};
use crate::drive::slots::{self, Cover, MaskedSlot, PieceBytes};
use crate::worker::{Context, Detail, Next, Progress, Worker};

pub(crate) mod confirm;
pub(crate) mod proposal;
pub(crate) mod shards;
pub(crate) mod source;

pub use confirm::short_id;

/// Pieces up to this size take the lanes for small ones.
const SMALL_BYTES_MAX: u64 = 4 << 20;
/// Small pieces on their way at once, besides the large ones.
const SMALL_LANES: usize = 4;
/// How often a piece that nobody takes is tried again, at least.
const LOOK: Duration = Duration::from_secs(2);
/// The same where this machine is what stands in the way: its disk, or that nobody has the bytes.
const LOOK_HINDERED: Duration = Duration::from_secs(60);
/// A provider that refused or failed a placement is not asked for the next one for so long.
const REFUSED: Duration = Duration::from_secs(20);
/// Where somebody else could take the slot, who has not countersigned a deal within this time is passed over: several who were cut off would else cost
/// more than the minute in which data is to be safe.
const COUNTERSIGNED_MAX: Duration = Duration::from_secs(6);
/// One whose connection broke refused nothing: it is asked again as soon as there may be another connection.
const BROKEN: Duration = Duration::from_secs(1);
/// A deal is gone on with after broken connections for so long; then somebody else is asked.
const BROKEN_SECONDS_MAX: u64 = 600;

/// Shared by the worker and the pieces on their way.
#[derive(Default)]
struct Lanes {
    /// Slots on their way by provider.
    in_flight: HashMap<Peer, usize>,
    /// Who is not asked, and until when.
    refused: HashMap<Peer, Instant>,
    /// Pieces whose holders want the bytes although their deals were to be renewed only.
    wanted_whole: HashSet<PieceId>,
}

/// Places slots; see the module.
pub struct PlaceWorker {
    engine: Arc<Engine>,
    lanes: Arc<parking_lot::Mutex<Lanes>>,
    /// Pieces on their way, and how long they rest if something is left to do.
    running: JoinSet<(PieceId, Duration)>,
    busy: HashMap<PieceId, u64>,
    /// Pieces that could not be helped, and when to look again.
    later: HashMap<PieceId, Instant>,
    /// The ledger's version that the last step saw.
    seen: u64,
    detail: Detail,
}

impl PlaceWorker {
    /// A worker over `engine`'s ledger.
    pub fn new(engine: Arc<Engine>) -> Self {
        Self {
            engine,
            lanes: Arc::default(),
            running: JoinSet::new(),
            busy: HashMap::new(),
            later: HashMap::new(),
            seen: 0,
            detail: Detail::default(),
        }
    }

    /// Pieces and stripes that lack a live slot, those nearest to loss first, then the smallest; what only becomes cheaper last.
    fn wanting(&self) -> Vec<Wanting> {
        let ledger = &self.engine.ledger;
        let open = ledger.pieces().into_iter().filter(|(_, row)| open_slots(row).next().is_some());
        // What a watcher may have placed already is looked at first.
        let open = open.filter(|(id, row)| !self.engine.watched.holds_back(id, row));
        // Copies are not made of what a stripe keeps as well as the policy asks.
        let needed = open.filter(|(id, row)| {
            row.stripe.is_some() || ledger.counting_as(id, Form::Stripe) < self.engine.wanted(id)
        });
        let mut all: Vec<Wanting> =
            needed.map(|(id, row)| Wanting { id, spare: self.is_spare(&row), row }).collect();
        all.sort_by_cached_key(|w| {
            let live = ledger.live_copies(&w.id);
            // A piece that never had a copy is new; one that lost copies is nearer to loss than its number says.
            (w.spare, w.row.raw_len > SMALL_BYTES_MAX, live, w.row.raw_len)
        });
        all
    }

    /// A stripe whose pieces are safe without it.
    fn is_spare(&self, row: &PieceRow) -> bool {
        let engine = &self.engine;
        row.stripe.as_ref().is_some_and(|stripe| {
            let safe = |id: &PieceId| engine.ledger.counting_as(id, Form::Copies) >= engine.wanted(id);
            stripe.pieces.iter().all(|piece| safe(&piece.id))
        })
    }

    /// Whom a slot was to be placed with before its holder answered again takes nothing for it any more, and may be given other slots.
    fn drop_idle_intents(&self) -> anyhow::Result<()> {
        let ledger = &self.engine.ledger;
        for (id, row) in ledger.pieces().into_iter().filter(|(id, _)| !self.busy.contains_key(id)) {
            let asked = row.slots.iter().zip(0u16..).filter(|(s, _)| s.intent.is_some()).map(|(_, n)| n);
            let open: Vec<u16> = open_slots(&row).collect();
            for slot in asked.filter(|slot| !open.contains(slot)) {
                ledger.set_intent(id, slot, None)?;
            }
        }
        Ok(())
    }

    fn start(&mut self, wanting: &[Wanting]) {
        let now = Instant::now();
        self.later.retain(|_, at| *at > now);
        let large_max = self.engine.policy.place_parallel.div_ceil(3).max(1);
        let urgent = wanting.iter().any(|w| !w.spare && !self.later.contains_key(&w.id));
        for Wanting { id, row, spare } in wanting {
            let small = row.raw_len <= SMALL_BYTES_MAX;
            let same = self.busy.values().filter(|len| (**len <= SMALL_BYTES_MAX) == small).count();
            let free = match spare {
                true => self.busy.is_empty() && !urgent,
                false if small => same < SMALL_LANES,
                false => same < large_max,
            };
            if !free || self.busy.contains_key(id) || self.later.contains_key(id) {
                continue;
            }
            self.busy.insert(*id, row.raw_len);
            let (engine, lanes, id) = (self.engine.clone(), self.lanes.clone(), *id);
            self.running.spawn(async move {
                let Err(error) = place_piece(&engine, &lanes, id).await else { return (id, LOOK) };
                let text = format!("a piece could not be placed: {error:#}");
                engine.events.add(engine.now(), Level::Warning, text);
                (id, LOOK_HINDERED)
            });
        }
    }

    fn describe(&mut self, waiting: usize) {
        let doing = match self.busy.len() {
            0 if waiting > 0 => "waiting for providers that can take a copy".to_owned(),
            0 => String::new(),
            n => format!("placing {n} pieces"),
        };
        let total = self.busy.values().sum();
        let progress = (total > 0).then(|| Progress { done: 0, total, unit: "bytes".into() });
        self.detail = Detail { doing, queue: waiting as u64, progress };
    }
}

/// A piece or a stripe with open slots.
struct Wanting {
    id: PieceId,
    row: PieceRow,
    /// Its data is safe without them.
    spare: bool,
}

/// Slots that nobody keeps yet, and those whose holder is to be replaced.
pub(crate) fn open_slots(row: &PieceRow) -> impl Iterator<Item = u16> {
    row.slots.iter().zip(0u16..).filter_map(|(s, n)| (s.holder.is_none() || s.lost.is_some()).then_some(n))
}

#[async_trait]
impl Worker for PlaceWorker {
    fn name(&self) -> &'static str {
        "place"
    }

    fn status(&self) -> Detail {
        self.detail.clone()
    }

    async fn work(&mut self, context: &Context) -> anyhow::Result<Next> {
        self.engine.adopt_pieces().await?;
        let sent = self.engine.sent_bytes.load(Ordering::Relaxed);
        self.engine.sending.sample(sent, !self.busy.is_empty());
        self.seen = *self.engine.ledger.watch().borrow();
        // Nobody would know of what a machine placed that publishes nothing.
        let idle = self.engine.read_only().is_some();
        if !idle {
            self.drop_idle_intents()?;
        }
        let wanting = if idle { Vec::new() } else { self.wanting() };
        self.start(&wanting);
        self.describe(wanting.len());
        context.report(self.detail.clone());
        if self.running.is_empty() {
            return Ok(if wanting.is_empty() { Next::Idle } else { Next::After(LOOK) });
        }
        tokio::select! {
            () = context.stopping().cancelled() => {
                self.running.abort_all();
                return Ok(Next::Idle);
            }
            () = tokio::time::sleep(LOOK) => {}
            done = ended(&mut self.running) => match done {
                Some(Ok((id, rest))) => {
                    self.busy.remove(&id);
                    if self.wanting().iter().any(|w| w.id == id) {
                        self.later.insert(id, Instant::now() + rest);
                    }
                }
                // A task that panicked cannot say which piece it was: the whole picture is taken anew.
                Some(Err(error)) => {
                    self.busy.clear();
                    anyhow::bail!("a placement ended badly: {error}");
                }
                None => {}
            },
        }
        Ok(Next::Again)
    }

    async fn wait(&mut self) {
        self.engine.changed_since(self.seen, Duration::from_secs(10)).await;
    }
}

/// The next that is done. With one that panicked all others go, too: what is left of them must not be taken for panics of those that
/// come after.
async fn ended<T: 'static>(running: &mut JoinSet<T>) -> Option<Result<T, JoinError>> {
    let done = running.join_next().await;
    if matches!(done, Some(Err(_))) {
        *running = JoinSet::new();
    }
    done
}

/// Every open slot of one piece, side by side.
async fn place_piece(
    engine: &Arc<Engine>,
    lanes: &Arc<parking_lot::Mutex<Lanes>>,
    id: PieceId,
) -> anyhow::Result<()> {
    let Some(row) = engine.ledger.piece(&id) else { return Ok(()) };
    let open: Vec<u16> = open_slots(&row).collect();
    let claims: Vec<Claim> = open.into_iter().filter_map(|slot| claim(engine, lanes, id, slot)).collect();
    if claims.is_empty() {
        return Ok(());
    }
    let mut sources: BTreeMap<u16, Arc<dyn PieceBytes>> = BTreeMap::new();
    let mut cids = Vec::new();
    if claims.iter().all(|claim| claim.renews) && !lanes.lock().wanted_whole.remove(&id) {
        // Whose deals are only renewed have the bytes: nobody reads them here.
        let elsewhere = |slot| Arc::new(slots::Elsewhere(row.slot_len(slot))) as Arc<dyn PieceBytes>;
        sources.extend(claims.iter().map(|claim| (claim.slot, elsewhere(claim.slot))));
    } else if row.stripe.is_some() {
        let slots: Vec<u16> = claims.iter().map(|claim| claim.slot).collect();
        sources = shards::open(engine, id, &row, &slots).await?;
    } else {
        let piece = source::open(engine, id, &row).await?;
        cids = ensure_cids(engine, id, &row, piece.clone()).await?;
        sources.extend(claims.iter().map(|claim| (claim.slot, piece.clone())));
    }
    if cids.is_empty() {
        let cid = |s: &SlotRow| s.cid.as_ref().and_then(|cid| cid::Cid::try_from(cid.as_slice()).ok());
        cids = row.slots.iter().filter_map(cid).collect();
    }
    let placing = claims.into_iter().filter_map(|claim| {
        let bytes = sources.get(&claim.slot)?.clone();
        Some(place_slot(engine, lanes, id, claim, bytes, &cids))
    });
    let done = futures::future::join_all(placing).await;
    if let Some(after) = engine.ledger.piece(&id).filter(|row| row.stripe.is_some()) {
        let open: Vec<u16> = open_slots(&after).collect();
        sources.keys().filter(|slot| !open.contains(slot)).for_each(|slot| shards::forget(engine, id, *slot));
    }
    done.into_iter().collect()
}

struct Claim {
    slot: u16,
    peer: Peer,
    /// The provider keeps the slot, and its deal is about to end.
    renews: bool,
    /// Somebody else could take it.
    alternative: bool,
    lanes: Arc<parking_lot::Mutex<Lanes>>,
}

impl Drop for Claim {
    fn drop(&mut self) {
        if let Some(n) = self.lanes.lock().in_flight.get_mut(&self.peer) {
            *n = n.saturating_sub(1);
        }
    }
}

/// Chooses the provider of a slot and writes a first intent, so that no other slot of the piece takes the same one.
fn claim(engine: &Engine, lanes: &Arc<parking_lot::Mutex<Lanes>>, id: PieceId, slot: u16) -> Option<Claim> {
    let mut state = lanes.lock();
    let row = engine.ledger.piece(&id)?;
    let earlier = row.slots.get(usize::from(slot)).and_then(|s| s.intent.clone());
    let mut kept: HashMap<Peer, u64> = HashMap::new();
    for (_, piece) in engine.ledger.pieces() {
        for (slot, h) in piece.holders().filter(|(_, h)| h.failed.is_none()) {
            *kept.entry(h.provider.clone()).or_default() += piece.slot_len(slot);
        }
    }
    let now = Instant::now();
    state.refused.retain(|_, until| *until > now);
    let others = others(&row, slot);
    let together = |peer: &Peer| {
        let all: Vec<&Peer> = others.iter().copied().chain([peer]).collect();
        let domains = engine.ledger.domains(&all);
        domains.split_last().is_some_and(|(own, others)| others.contains(own))
    };
    let candidates: Vec<Candidate> = engine
        .ledger
        .providers()
        .into_iter()
        .filter(|(peer, _)| !state.refused.contains_key(peer))
        .map(|(peer, row)| Candidate {
            kept_bytes: kept.get(&peer).copied().unwrap_or(0),
            in_flight: state.in_flight.get(&peer).copied().unwrap_or(0),
            together: together(&peer),
            peer,
            row,
        })
        .collect();
    // A deal that was proposed before a crash, or a broken connection, is finished rather than begun with somebody else.
    let again = earlier.as_ref().filter(|i| {
        let fresh = engine.deal_now().saturating_sub(i.since) < BROKEN_SECONDS_MAX;
        fresh && engine.ledger.provider(&i.provider).is_some_and(|row| row.answers())
    });
    let peer = match again {
        Some(intent) if state.refused.contains_key(&intent.provider) => return None,
        Some(intent) => intent.provider.clone(),
        None => choose(&candidates, &row, slot, engine.now())?,
    };
    if earlier.as_ref().is_none_or(|i| i.provider != peer) {
        let intent = Intent { provider: peer.clone(), proposal: Vec::new(), since: engine.now() };
        engine.ledger.set_intent(id, slot, Some(intent)).ok()?;
    }
    *state.in_flight.entry(peer.clone()).or_default() += 1;
    let holder = row.slots.get(usize::from(slot)).and_then(|s| s.holder.as_ref());
    let renews = holder.is_some_and(|h| h.provider == peer && h.failed.is_none());
    let rest: Vec<Candidate> = candidates.into_iter().filter(|other| other.peer != peer).collect();
    let alternative = !renews && choose(&rest, &row, slot, engine.now()).is_some();
    Some(Claim { slot, peer, renews, alternative, lanes: lanes.clone() })
}

/// Who keeps another slot, or is asked to.
fn others(row: &PieceRow, slot: u16) -> Vec<&Peer> {
    let slots = row.slots.iter().zip(0u16..).filter(|(_, n)| *n != slot);
    slots
        .flat_map(|(s, _)| {
            let holder = s.holder.as_ref().filter(|h| h.failed.is_none()).map(|h| &h.provider);
            holder.into_iter().chain(s.intent.as_ref().map(|intent| &intent.provider))
        })
        .collect()
}

/// The piece CIDs of all slots, hashed once and kept.
async fn ensure_cids(
    engine: &Arc<Engine>,
    id: PieceId,
    row: &PieceRow,
    piece: Arc<dyn PieceBytes>,
) -> anyhow::Result<Vec<cid::Cid>> {
    let known: Option<Vec<cid::Cid>> = row
        .slots
        .iter()
        .map(|s| s.cid.as_ref().and_then(|c| cid::Cid::try_from(c.as_slice()).ok()))
        .collect();
    if let Some(cids) = known {
        return Ok(cids);
    }
    // All slots of a public piece have the same bytes.
    let different = if row.public.is_some() { 1 } else { u16::try_from(row.slots.len())? };
    let (covered, slots) = (row.clone(), row.slots.len());
    let mut cids = engine
        .blocking(move |e| {
            let cover = |n| Cover::of(e.keys.mask.as_bytes(), id, n, &covered);
            slots::slot_cids(piece.as_ref(), &(0..different).map(cover).collect::<Vec<_>>())
        })
        .await??;
    if row.public.is_some() {
        cids = cids.repeat(slots);
    }
    engine.ledger.set_slot_cids(id, cids.iter().map(cid::Cid::to_bytes).collect())?;
    Ok(cids)
}

/// One slot with one provider, from the deal to the placement row. Only failures of our own side are errors.
async fn place_slot(
    engine: &Arc<Engine>,
    lanes: &Arc<parking_lot::Mutex<Lanes>>,
    id: PieceId,
    claim: Claim,
    piece: Arc<dyn PieceBytes>,
    cids: &[cid::Cid],
) -> anyhow::Result<()> {
    let proposal = proposal::proposal(engine, id, &claim, piece.len(), cids)?;
    let here = piece.is_here();
    let Some(countersigned) = countersigned(engine, &claim, &proposal).await else {
        tracing::warn!(peer = %peer_short(&claim.peer), "it has not countersigned a deal in time: another provider is asked");
        engine.peers.failed(&claim.peer);
        lanes.lock().refused.insert(claim.peer.clone(), Instant::now() + REFUSED);
        return Ok(engine.ledger.set_intent(id, claim.slot, None)?);
    };
    let placed = match countersigned {
        Ok(session) => deal(engine, id, &claim, &proposal, piece, &session).await,
        Err(error) => Err(error),
    };
    match placed {
        Ok(placed) => {
            engine.provider_answered(&claim.peer)?;
            confirm::record(engine, id, claim.slot, placed)
        }
        Err(NetError::Local(_)) if !here => {
            lanes.lock().wanted_whole.insert(id);
            Ok(())
        }
        Err(error) => {
            let short = peer_short(&claim.peer);
            tracing::warn!(peer = %short, %error, "placement failed");
            engine.peers.failed(&claim.peer);
            let broken = matches!(error, NetError::Disconnected(_) | NetError::Timeout(_));
            let pause = if broken { BROKEN } else { REFUSED };
            lanes.lock().refused.insert(claim.peer.clone(), Instant::now() + pause);
            if !broken {
                // The space was not given or the bytes did not arrive: another provider is asked next time, and this one is
                // told that nothing comes of the deal.
                engine.ledger.set_intent(id, claim.slot, None)?;
            }
            match &error {
                // What is on the way stays a deal with this provider while it answers at all: whether it does the audit
                // worker asks next.
                NetError::Disconnected(_) | NetError::Timeout(_) => {}
                NetError::Unreachable(_) => engine.provider_silent(&claim.peer, &error.to_string())?,
                NetError::Local(what) => anyhow::bail!("{what}"),
                // Before there is a receipt a refusal breaks no promise.
                _ if error.is_fault_of_provider() && error.code() != Some(ErrorCode::Storage) => {
                    engine.provider_caught(&claim.peer, &error.to_string())?
                }
                _ => {
                    let text = format!("provider {short} did not take a copy: {error}");
                    engine.events.add(engine.now(), Level::Warning, text);
                }
            }
            Ok(())
        }
    }
}

/// What a finished deal leaves for the placement row.
pub(crate) struct Placed {
    holder: Holder,
    receipt: Vec<u8>,
    piece_cid: Vec<u8>,
    raw_len: u64,
}

/// A session in which the deal stands; `None` where that took too long and somebody else could be asked.
async fn countersigned(
    engine: &Arc<Engine>,
    claim: &Claim,
    proposal: &proposal::Proposal,
) -> Option<Result<Session, NetError>> {
    let asking = async {
        let session = engine.peers.session(&engine.ledger, &claim.peer).await?;
        session.propose(&proposal.signed, &proposal.manifest).await?;
        Ok(session)
    };
    if !claim.alternative {
        return Some(asking.await);
    }
    tokio::time::timeout(COUNTERSIGNED_MAX, asking).await.ok()
}

async fn deal(
    engine: &Arc<Engine>,
    id: PieceId,
    claim: &Claim,
    proposal: &proposal::Proposal,
    piece: Arc<dyn PieceBytes>,
    session: &Session,
) -> Result<Placed, NetError> {
    let signed = &proposal.signed;
    let row = engine.ledger.piece(&id).ok_or_else(|| NetError::Local("the piece was given up".into()))?;
    let cover = Cover::of(engine.keys.mask.as_bytes(), id, claim.slot, &row);
    let masked = Arc::new(MaskedSlot::new(piece.clone(), cover.clone()));
    let pushed = AtomicU64::new(0);
    let count = |at: u64| {
        let more = at.saturating_sub(pushed.swap(at, Ordering::Relaxed));
        engine.sent_bytes.fetch_add(more, Ordering::Relaxed);
    };
    let receipt = session.push(signed, masked, count).await?;
    let proven_at = confirm::recheck(engine, &claim.peer, signed, piece, &cover).await?;
    let holder = Holder {
        provider: claim.peer.clone(),
        deal: signed.deal_id().0.to_vec(),
        entry: 0,
        confirmed_at: proven_at,
        proven_at,
        ends_at: signed.proposal().end,
        failed: None,
    };
    let body = signed.proposal();
    Ok(Placed {
        holder,
        receipt: receipt.to_bytes(),
        piece_cid: body.piece_cid.to_bytes(),
        raw_len: body.raw_len,
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[tokio::test]
    async fn a_task_that_panicked_ends_the_others_once() {
        let mut running = JoinSet::new();
        running.spawn(async { panic!("one of three") });
        for _ in 0..2 {
            running.spawn(std::future::pending::<u8>());
        }
        assert!(ended(&mut running).await.unwrap().is_err());
        // Those that were ended with it have had their time to end.
        tokio::task::yield_now().await;
        running.spawn(async { 7 });
        assert_eq!(ended(&mut running).await.unwrap().unwrap(), 7);
        assert!(ended(&mut running).await.is_none());
    }
}
