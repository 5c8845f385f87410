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
//! Small pieces have lanes of their own, so that they do not wait behind large ones.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use holdfast_net::deal::{DEAL_SUITE, DEAL_VERSION, manifest_digest};
use holdfast_net::{DealProposal, ErrorCode, Manifest, NetError, SignedProposal};
use tokio::task::JoinSet;

use crate::drive::Engine;
use crate::drive::events::Level;
use crate::drive::ledger::{Holder, Intent, Peer, PieceId, PieceRow};
use crate::drive::peers::peer_short;
use crate::drive::select::{Candidate, choose};
use crate::drive::slots::{self, MaskedSlot, PieceBytes};
use crate::worker::{Context, Detail, Next, Progress, Worker};

pub(crate) mod confirm;
pub(crate) mod source;

pub use confirm::short_id;

/// Pieces up to this size take the lanes for small ones.
const SMALL_BYTES_MAX: u64 = 4 << 20;
/// Small pieces on their way at once, besides the large ones.
const SMALL_LANES: usize = 4;
/// How often a piece that nobody takes is tried again, at least.
const LOOK: Duration = Duration::from_secs(2);
/// A provider that refused or failed a placement is not asked for the next one for so long.
const REFUSED: Duration = Duration::from_secs(20);

/// Shared by the worker and the pieces on their way.
#[derive(Default)]
struct Lanes {
    /// Slots on their way by provider.
    in_flight: HashMap<Peer, usize>,
    refused: HashMap<Peer, Instant>,
}

/// Places slots; see the module.
pub struct PlaceWorker {
    engine: Arc<Engine>,
    lanes: Arc<parking_lot::Mutex<Lanes>>,
    running: JoinSet<PieceId>,
    busy: HashMap<PieceId, u64>,
    /// Pieces that could not be helped, and when to look again.
    later: HashMap<PieceId, Instant>,
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
            detail: Detail::default(),
        }
    }

    /// Pieces that lack a live copy, those nearest to loss first, then the smallest.
    fn wanting(&self) -> Vec<(PieceId, PieceRow)> {
        let ledger = &self.engine.ledger;
        let mut all: Vec<_> =
            ledger.pieces().into_iter().filter(|(_, row)| open_slots(row).next().is_some()).collect();
        all.sort_by_cached_key(|(id, row)| {
            let live = ledger.live_copies(id);
            // A piece that never had a copy is new; one that lost copies is nearer to loss than its number says.
            (row.raw_len > SMALL_BYTES_MAX, live, row.raw_len)
        });
        all
    }

    fn start(&mut self, wanting: &[(PieceId, PieceRow)]) {
        let now = Instant::now();
        self.later.retain(|_, at| *at > now);
        let large_max = self.engine.policy.place_parallel.div_ceil(3).max(1);
        for (id, row) in wanting {
            let small = row.raw_len <= SMALL_BYTES_MAX;
            let same = self.busy.values().filter(|len| (**len <= SMALL_BYTES_MAX) == small).count();
            let free = if small { same < SMALL_LANES } else { same < large_max };
            if !free || self.busy.contains_key(id) || self.later.contains_key(id) {
                continue;
            }
            self.busy.insert(*id, row.raw_len);
            let (engine, lanes, id) = (self.engine.clone(), self.lanes.clone(), *id);
            self.running.spawn(async move {
                if let Err(error) = place_piece(&engine, &lanes, id).await {
                    engine.events.add(
                        engine.now(),
                        Level::Warning,
                        format!("a piece could not be placed: {error:#}"),
                    );
                }
                id
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

/// Slots that nobody keeps yet, and those whose holder is to be replaced.
fn open_slots(row: &PieceRow) -> impl Iterator<Item = u16> {
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
        let wanting = self.wanting();
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
            done = self.running.join_next() => match done {
                Some(Ok(id)) => {
                    self.busy.remove(&id);
                    if self.wanting().iter().any(|(w, _)| *w == id) {
                        self.later.insert(id, Instant::now() + LOOK);
                    }
                }
                // A task that panicked cannot say which piece it was: the whole picture is taken anew.
                Some(Err(error)) => {
                    self.running.abort_all();
                    self.busy.clear();
                    anyhow::bail!("a placement ended badly: {error}");
                }
                None => {}
            },
        }
        Ok(Next::Again)
    }

    async fn wait(&mut self) {
        self.engine.changed(Duration::from_secs(10)).await;
    }
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
    let piece = source::open(engine, id, &row).await?;
    let cids = ensure_cids(engine, id, &row, piece.clone()).await?;
    let placing = claims.into_iter().map(|c| place_slot(engine, lanes, id, c, piece.clone(), &cids));
    futures::future::join_all(placing).await.into_iter().collect()
}

struct Claim {
    slot: u16,
    peer: Peer,
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
        for (_, h) in piece.holders().filter(|(_, h)| h.failed.is_none()) {
            *kept.entry(h.provider.clone()).or_default() += piece.raw_len;
        }
    }
    state.refused.retain(|_, at| at.elapsed() < REFUSED);
    let candidates: Vec<Candidate> = engine
        .ledger
        .providers()
        .into_iter()
        .filter(|(peer, _)| !state.refused.contains_key(peer))
        .map(|(peer, row)| Candidate {
            kept_bytes: kept.get(&peer).copied().unwrap_or(0),
            in_flight: state.in_flight.get(&peer).copied().unwrap_or(0),
            peer,
            row,
        })
        .collect();
    // A deal that was proposed before a crash is finished rather than begun with somebody else.
    let again =
        earlier.as_ref().map(|i| i.provider.clone()).filter(|p| candidates.iter().any(|c| &c.peer == p));
    let peer = again.or_else(|| choose(&candidates, &row, slot, engine.now()))?;
    if earlier.as_ref().is_none_or(|i| i.provider != peer) {
        let intent = Intent { provider: peer.clone(), proposal: Vec::new(), since: engine.now() };
        engine.ledger.set_intent(id, slot, Some(intent)).ok()?;
    }
    *state.in_flight.entry(peer.clone()).or_default() += 1;
    Some(Claim { slot, peer, lanes: lanes.clone() })
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
    let slots = u16::try_from(row.slots.len())?;
    let cids = engine
        .blocking(move |e| {
            let seeds: Vec<_> = (0..slots).map(|n| slots::seed(e.keys.mask.as_bytes(), id, n)).collect();
            slots::slot_cids(piece.as_ref(), &seeds)
        })
        .await??;
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
    let proposal = proposal(engine, id, &claim, piece.len(), cids)?;
    match deal(engine, id, &claim, &proposal, piece).await {
        Ok(placed) => {
            engine.provider_answered(&claim.peer)?;
            confirm::record(engine, id, claim.slot, placed)
        }
        Err(error) => {
            let short = peer_short(&claim.peer);
            tracing::warn!(peer = %short, %error, "placement failed");
            engine.peers.note(&claim.peer, None);
            lanes.lock().refused.insert(claim.peer.clone(), Instant::now());
            // The space was not given or the bytes did not arrive: another provider is asked next time. What this one
            // may still keep of it expires with the deal that was never pushed.
            engine.ledger.set_intent(id, claim.slot, None)?;
            match &error {
                NetError::Unreachable(_) | NetError::Disconnected(_) | NetError::Timeout(_) => {
                    engine.provider_silent(&claim.peer, &error.to_string())?;
                }
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

struct Proposal {
    signed: SignedProposal,
    manifest: Vec<u8>,
}

/// The deal that the intent names, or a new one, committed before it is sent.
fn proposal(
    engine: &Engine,
    id: PieceId,
    claim: &Claim,
    raw_len: u64,
    cids: &[cid::Cid],
) -> anyhow::Result<Proposal> {
    let key = engine.peers.key_for(&claim.peer);
    let client = key.verifying_key().to_bytes();
    let manifest = Manifest::replicas(id, raw_len, cids.to_vec(), client).sign(&key)?;
    let row = engine.ledger.piece(&id);
    let intent =
        row.as_ref().and_then(|r| r.slots.get(usize::from(claim.slot))).and_then(|s| s.intent.clone());
    if let Some(intent) = intent.filter(|i| i.provider == claim.peer && !i.proposal.is_empty())
        && let Ok(signed) = SignedProposal::from_bytes(&intent.proposal)
        && signed.proposal().manifest == manifest_digest(manifest.as_bytes())
    {
        return Ok(Proposal { signed, manifest: manifest.as_bytes().to_vec() });
    }
    let piece_cid =
        *cids.get(usize::from(claim.slot)).ok_or_else(|| anyhow::anyhow!("slot without a piece CID"))?;
    let mut nonce = [0; 16];
    engine.env.rng.fill(&mut nonce);
    let now = engine.deal_now();
    let signed = DealProposal {
        version: DEAL_VERSION,
        suite: DEAL_SUITE,
        client,
        provider: claim.peer.clone(),
        piece_cid,
        raw_len,
        manifest: manifest_digest(manifest.as_bytes()),
        start: now,
        end: now.saturating_add(engine.policy.deal_seconds),
        price: Vec::new(),
        settlement: 0,
        settlement_data: Vec::new(),
        nonce,
    }
    .sign(&key)?;
    let intent = Intent { provider: claim.peer.clone(), proposal: signed.to_bytes(), since: now };
    engine.ledger.set_intent(id, claim.slot, Some(intent))?;
    Ok(Proposal { signed, manifest: manifest.as_bytes().to_vec() })
}

/// What a finished deal leaves for the placement row.
pub(crate) struct Placed {
    holder: Holder,
    receipt: Vec<u8>,
    piece_cid: Vec<u8>,
    raw_len: u64,
}

async fn deal(
    engine: &Arc<Engine>,
    id: PieceId,
    claim: &Claim,
    proposal: &Proposal,
    piece: Arc<dyn PieceBytes>,
) -> Result<Placed, NetError> {
    let session = engine.peers.session(&engine.ledger, &claim.peer).await?;
    let signed = &proposal.signed;
    session.propose(signed, &proposal.manifest).await?;
    let seed = slots::seed(engine.keys.mask.as_bytes(), id, claim.slot);
    let masked = Arc::new(MaskedSlot::new(piece.clone(), seed.clone()));
    let pushed = AtomicU64::new(0);
    let count = |at: u64| {
        let more = at.saturating_sub(pushed.swap(at, Ordering::Relaxed));
        engine.sent_bytes.fetch_add(more, Ordering::Relaxed);
    };
    let receipt = session.push(signed, masked, count).await?;
    let proven_at = confirm::recheck(engine, &claim.peer, signed, piece, &seed).await?;
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
