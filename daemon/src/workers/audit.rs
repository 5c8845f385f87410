//! The audit worker: challenges every copy on a schedule and writes verdicts.
//!
//! Needs no copy of the data: the slot's piece CID and the deal are enough. A wrong proof, a refusal or "I do not have it"
//! fails the copy at once; silence fails nothing, it makes the provider stop counting, and lost after a time. What a series of
//! challenges shows is derived in proofs/SOUNDNESS.md.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::StreamExt;
use holdfast_net::client::AuditSpec;
use holdfast_net::{DealId, NetError};
use holdfast_proofs::PieceCid;

use super::place::short_id;
use crate::drive::Engine;
use crate::drive::clock::age;
use crate::drive::ledger::{Holder, Peer, PieceId, ProviderState, Verdict};
use crate::worker::{Context, Detail, Next, Worker};

/// Providers that are challenged side by side.
const PROVIDERS_AT_ONCE: usize = 8;
/// Challenges of one provider in one step: what was learned is committed at least that often.
const BATCH: usize = 64;
/// How long one challenge may take; a disk that is busy is no fault, a minute of silence is.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long a greeting may take.
const GREETING: Duration = Duration::from_secs(10);
/// How often a silent provider is tried again.
const RETRY: Duration = Duration::from_secs(5);

/// One challenge to be sent.
#[derive(Clone)]
struct Due {
    piece: PieceId,
    slot: u16,
    cid: PieceCid,
    holder: Holder,
}

/// See the module.
pub struct AuditWorker {
    engine: Arc<Engine>,
    detail: Detail,
}

/// What one provider's challenges showed.
struct Heard {
    peer: Peer,
    verdicts: Vec<Verdict>,
    silent: Option<String>,
}

impl AuditWorker {
    /// A worker over `engine`'s ledger.
    pub fn new(engine: Arc<Engine>) -> Self {
        Self { engine, detail: Detail::default() }
    }

    /// What is due now, by provider: suspicions first, then the oldest proofs. A silent provider is asked one thing.
    fn due(&self) -> (BTreeMap<Peer, Vec<Due>>, usize) {
        let engine = &self.engine;
        let now = engine.now();
        let interval = engine.audit_interval();
        let suspicions: Vec<(PieceId, u16)> = engine.retriever.suspicions.lock().drain().collect();
        let mut by_peer: BTreeMap<Peer, Vec<Due>> = BTreeMap::new();
        for (piece, row) in engine.ledger.pieces() {
            for (slot, n) in row.slots.iter().zip(0u16..) {
                let (Some(holder), Some(cid)) = (&slot.holder, &slot.cid) else { continue };
                let Ok(cid) = PieceCid::from_bytes(cid) else { continue };
                let age = age(now, holder.proven_at);
                let asked = age >= interval || suspicions.contains(&(piece, n));
                let silent = !engine.ledger.provider(&holder.provider).is_some_and(|p| p.answers());
                if holder.failed.is_none() && (asked || silent) {
                    let due = Due { piece, slot: n, cid, holder: holder.clone() };
                    by_peer.entry(holder.provider.clone()).or_default().push(due);
                }
            }
        }
        let queue = by_peer.values().map(Vec::len).sum();
        for (peer, list) in &mut by_peer {
            list.sort_by_key(|d| (!suspicions.contains(&(d.piece, d.slot)), d.holder.proven_at));
            let answers = engine.ledger.provider(peer).is_some_and(|p| p.answers());
            let left = list.split_off(list.len().min(if answers { BATCH } else { 1 }));
            // What does not fit this step stays suspect.
            let left = left.iter().map(|d| (d.piece, d.slot)).filter(|at| suspicions.contains(at));
            engine.retriever.suspicions.lock().extend(left);
        }
        (by_peer, queue)
    }

    fn commit(&self, heard: Vec<Heard>) -> anyhow::Result<()> {
        let engine = &self.engine;
        let verdicts: Vec<Verdict> = heard.iter().flat_map(|h| h.verdicts.clone()).collect();
        engine.ledger.record_verdicts(&verdicts)?;
        for h in heard {
            if h.verdicts.iter().any(|v| v.fault.is_none()) {
                engine.provider_answered(&h.peer)?;
            }
            for v in &h.verdicts {
                if let Some(fault) = &v.fault {
                    engine.provider_caught(&h.peer, &format!("piece {}: {fault}", short_id(&v.piece)))?;
                    self.suspect_all(&h.peer);
                }
            }
            if let Some(why) = h.silent {
                engine.provider_silent(&h.peer, &why)?;
            }
        }
        Ok(())
    }
}

#[async_trait]
impl Worker for AuditWorker {
    fn name(&self) -> &'static str {
        "audit"
    }

    fn status(&self) -> Detail {
        self.detail.clone()
    }

    async fn work(&mut self, context: &Context) -> anyhow::Result<Next> {
        let (due, queue) = self.due();
        let doing = if queue > 0 { format!("challenging {} providers", due.len()) } else { String::new() };
        self.detail = Detail { doing, queue: queue as u64, progress: None };
        context.report(self.detail.clone());
        self.greet().await?;
        if due.is_empty() {
            return Ok(Next::After(RETRY));
        }
        let engine = &self.engine;
        let asking = futures::stream::iter(due)
            .map(|(peer, list)| challenge_all(engine, peer, list))
            .buffer_unordered(PROVIDERS_AT_ONCE)
            .collect::<Vec<Heard>>();
        let heard = tokio::select! {
            heard = asking => heard,
            () = context.stopping().cancelled() => return Ok(Next::Idle),
        };
        let all_answered = heard.iter().all(|h| h.silent.is_none());
        self.commit(heard)?;
        Ok(if all_answered { Next::Again } else { Next::After(RETRY) })
    }

    async fn wait(&mut self) {
        tokio::time::sleep(RETRY).await;
    }
}

impl AuditWorker {
    /// Who lost one copy may have lost others: all that it keeps is challenged next.
    fn suspect_all(&self, peer: &Peer) {
        let mut suspicions = self.engine.retriever.suspicions.lock();
        for (piece, row) in self.engine.ledger.pieces() {
            suspicions
                .extend(row.holders().filter(|(_, h)| &h.provider == peer).map(|(slot, _)| (piece, slot)));
        }
    }

    /// Asks those that were not heard of lately whether they are there: one that went away stops counting within a minute
    /// and not at its next audit, and a new one counts as there before anything is placed with it.
    async fn greet(&self) -> anyhow::Result<()> {
        let engine = &self.engine;
        let lately = Duration::from_secs(engine.policy.greet_seconds);
        let quiet = engine.ledger.providers().into_iter().filter(|(peer, row)| {
            let heard = row.answers() && row.last_ok > 0 && engine.peers.heard_within(peer, lately);
            !matches!(row.state, ProviderState::Removed) && !heard
        });
        let greeted: Vec<(Peer, Result<u64, String>)> = futures::stream::iter(quiet)
            .map(|(peer, _)| async move {
                let greeting = async { engine.peers.session(&engine.ledger, &peer).await?.info().await };
                let said = match tokio::time::timeout(GREETING, greeting).await {
                    Ok(answer) => answer.map(|info| info.now).map_err(|error| error.to_string()),
                    Err(_) => Err("no answer in time".to_owned()),
                };
                (peer, said)
            })
            .buffer_unordered(PROVIDERS_AT_ONCE)
            .collect()
            .await;
        for (peer, said) in greeted {
            match said {
                Ok(their_time) => {
                    engine.provider_told_time(&peer, their_time);
                    engine.provider_answered(&peer)?;
                }
                Err(why) => {
                    engine.peers.note(&peer, None);
                    engine.provider_silent(&peer, &why)?;
                }
            }
        }
        Ok(())
    }
}

/// One provider's challenges, one after the other; the first silence ends them.
async fn challenge_all(engine: &Engine, peer: Peer, list: Vec<Due>) -> Heard {
    let mut heard = Heard { peer, verdicts: Vec::new(), silent: None };
    for due in list {
        match challenge(engine, &due).await {
            Ok(()) => heard.verdicts.push(verdict(engine, &due, None)),
            Err(error) if error.is_fault_of_provider() => {
                heard.verdicts.push(verdict(engine, &due, Some(fault_text(&error))));
            }
            Err(error) => {
                engine.peers.note(&heard.peer, None);
                heard.silent = Some(error.to_string());
                break;
            }
        }
    }
    heard
}

async fn challenge(engine: &Engine, due: &Due) -> Result<(), NetError> {
    let deal = <[u8; 32]>::try_from(due.holder.deal.as_slice());
    let deal = DealId(deal.map_err(|_| NetError::Invalid("deal id".into()))?);
    let spec =
        AuditSpec { piece: due.cid, count: engine.policy.audit_leaves, epoch: engine.now(), record: None };
    let asking = async {
        let session = engine.peers.session(&engine.ledger, &due.holder.provider).await?;
        session.audit(deal, &spec, PATIENCE).await
    };
    // The session bounds the challenge; this bounds dialling and proving the key as well.
    tokio::time::timeout(PATIENCE * 2, asking).await.map_err(|_| NetError::Timeout(PATIENCE))??;
    Ok(())
}

fn verdict(engine: &Engine, due: &Due, fault: Option<String>) -> Verdict {
    Verdict { piece: due.piece, slot: due.slot, deal: due.holder.deal.clone(), at: engine.now(), fault }
}

fn fault_text(error: &NetError) -> String {
    match error {
        NetError::Refused { code, .. } => format!("it refused a challenge ({code:?})"),
        _ => format!("its proof of possession is wrong: {error}"),
    }
}

impl Engine {
    /// Challenges every copy now; `holdfast verify` shows what comes out. Returns asked, passed, and what was wrong.
    pub async fn audit_everything(self: &Arc<Self>) -> anyhow::Result<(u64, u64, Vec<String>)> {
        let mut by_peer: BTreeMap<Peer, Vec<Due>> = BTreeMap::new();
        for (piece, row) in self.ledger.pieces() {
            for (slot, n) in row.slots.iter().zip(0u16..) {
                if let (Some(holder), Some(cid)) = (&slot.holder, &slot.cid)
                    && holder.failed.is_none()
                {
                    let cid = PieceCid::from_bytes(cid)?;
                    let due = Due { piece, slot: n, cid, holder: holder.clone() };
                    by_peer.entry(holder.provider.clone()).or_default().push(due);
                }
            }
        }
        let asked: usize = by_peer.values().map(Vec::len).sum();
        let heard: Vec<Heard> = futures::stream::iter(by_peer)
            .map(|(peer, list)| challenge_all(self, peer, list))
            .buffer_unordered(PROVIDERS_AT_ONCE)
            .collect()
            .await;
        let passed = heard.iter().flat_map(|h| &h.verdicts).filter(|v| v.fault.is_none()).count();
        let mut problems = Vec::new();
        for h in &heard {
            let short = crate::drive::peers::peer_short(&h.peer);
            problems.extend(h.silent.iter().map(|why| format!("provider {short} does not answer: {why}")));
            problems.extend(h.verdicts.iter().filter_map(|v| {
                v.fault.as_ref().map(|f| format!("provider {short}, piece {}: {f}", short_id(&v.piece)))
            }));
        }
        AuditWorker::new(self.clone()).commit(heard)?;
        Ok((asked as u64, passed as u64, problems))
    }
}
