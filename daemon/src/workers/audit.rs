//! The audit worker: challenges every copy on a schedule and writes verdicts.
//!
//! Needs no copy of the data: the slot's piece CID and the deal are enough. A wrong proof, a refusal or "I do not have it"
//! fails the copy at once; silence fails nothing, it makes the provider stop counting, and lost after a time. "Busy" is
//! neither: the challenge is due again, and a provider that is too busy for too long is treated as one that refuses. Challenges
//! keep a distance from each other, whatever was suspected. What a series of them shows is derived in proofs/SOUNDNESS.md; how
//! many leaves each asks follows from it (`Policy::audit_plan`), and `holdfast status` says it in words. The first answer of each
//! provider in a step is a countersignature of the head that it keeps: so a machine that writes nothing learns that it was overtaken.
//! Some challenges, at times that nobody foresees, read first what they are about to ask (`reads`): who proves what it gives to nobody
//! is found out without a reader.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use futures::StreamExt;
use holdfast_net::client::AuditSpec;
use holdfast_net::wire::message::record_digest;
use holdfast_net::{DealId, NetError};
use holdfast_proofs::PieceCid;

use super::place::short_id;
use crate::drive::Engine;
use crate::drive::clock::age;
use crate::drive::domains::Tags;
use crate::drive::head::Published;
use crate::drive::ledger::{Holder, Peer, PieceId, ProviderState, Verdict};
use crate::reading::{Beside, Look, READ_PATIENCE, Times};
use crate::records::head_key;
use crate::worker::{Context, Detail, Next, Worker};

mod reads;
mod whole;

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

/// `holdfast verify` asks so many in a second.
const EVERYTHING_PER_SECOND_MAX: u64 = 200;
/// Who has proven nothing for so many intervals, but is busy each time, refuses.
const BUSY_INTERVALS_MAX: u64 = 6;
/// And for so many seconds at least: a restart or a scrub of a large disk is no fault.
const BUSY_SECONDS_MIN: u64 = 3600;

/// The distance between challenges, of all providers together.
pub(crate) struct Pace {
    next: parking_lot::Mutex<Instant>,
    distance: Duration,
}

impl Pace {
    /// At most so many in a second.
    pub(crate) fn new(per_second_max: u64) -> Self {
        let distance = Duration::from_millis(1000u64.div_ceil(per_second_max.max(1)));
        Self { next: parking_lot::Mutex::new(Instant::now()), distance }
    }

    /// Returns when the next challenge may be sent.
    pub(crate) async fn step(&self) {
        let at = self.take(Instant::now());
        tokio::time::sleep_until(at.into()).await;
    }

    /// The next free time from `now` on.
    fn take(&self, now: Instant) -> Instant {
        let mut next = self.next.lock();
        let at = (*next).max(now);
        *next = at + self.distance;
        at
    }
}

/// One challenge to be sent.
#[derive(Clone)]
struct Due {
    piece: PieceId,
    slot: u16,
    cid: PieceCid,
    holder: Holder,
    /// Some of it is read before it is challenged.
    read: bool,
}

/// See the module.
pub struct AuditWorker {
    engine: Arc<Engine>,
    pace: Arc<Pace>,
    times: Times,
    detail: Detail,
}

/// What one provider's challenges showed.
struct Heard {
    peer: Peer,
    verdicts: Vec<Verdict>,
    silent: Option<String>,
    /// It answered, but not to the challenge.
    busy: bool,
}

impl AuditWorker {
    /// A worker over `engine`'s ledger.
    pub fn new(engine: Arc<Engine>) -> Self {
        let pace = Arc::new(Pace::new(engine.policy.audits_per_second_max));
        Self { engine, pace, times: Times::default(), detail: Detail::default() }
    }

    /// What is due now, by provider: what is to be read and suspicions first, then the oldest proofs. A silent provider is asked one thing.
    fn due(&mut self) -> (BTreeMap<Peer, Vec<Due>>, usize) {
        self.draw_reads();
        let engine = &self.engine;
        let now = engine.now();
        let interval = engine.audit_interval();
        let suspicions: HashSet<(PieceId, u16)> = engine.retriever.suspicions.lock().drain().collect();
        let to_read: HashSet<(PieceId, u16)> = engine.retriever.to_read.lock().drain().collect();
        let mut by_peer: BTreeMap<Peer, Vec<(Due, bool)>> = BTreeMap::new();
        for (piece, row) in engine.ledger.pieces() {
            for (slot, n) in row.slots.iter().zip(0u16..) {
                let (Some(holder), Some(cid)) = (&slot.holder, &slot.cid) else { continue };
                let Ok(cid) = PieceCid::from_bytes(cid) else { continue };
                let at = (piece, n);
                let silent = !engine.ledger.provider(&holder.provider).is_some_and(|p| p.answers());
                let due = age(now, holder.proven_at) >= interval || suspicions.contains(&at) || silent;
                let doubtful = due && engine.retriever.readings.is_doubtful(&holder.deal);
                let read = !silent && (to_read.contains(&at) || doubtful);
                if holder.failed.is_none() && (due || read) {
                    let asked = Due { piece, slot: n, cid, holder: holder.clone(), read };
                    by_peer.entry(holder.provider.clone()).or_default().push((asked, due));
                }
            }
        }
        let queue = by_peer.values().map(Vec::len).sum();
        let by_peer = by_peer.into_iter().map(|(peer, list)| {
            let answers = engine.ledger.provider(&peer).is_some_and(|p| p.answers());
            let (mut list, later) = reads::a_few(list);
            engine.retriever.to_read.lock().extend(later.into_iter().filter(|at| to_read.contains(at)));
            list.sort_by_key(|d| (!d.read, !suspicions.contains(&(d.piece, d.slot)), d.holder.proven_at));
            let left = list.split_off(list.len().min(if answers { BATCH } else { 1 }));
            // What does not fit this step stays suspect.
            let left = left.iter().map(|d| (d.piece, d.slot)).filter(|at| suspicions.contains(at));
            engine.retriever.suspicions.lock().extend(left);
            (peer, list)
        });
        (by_peer.collect(), queue)
    }

    fn commit(&self, mut heard: Vec<Heard>) -> anyhow::Result<()> {
        let engine = &self.engine;
        // After all of a step: one provider's reads are judged by what others gave.
        heard.iter_mut().flat_map(|h| &mut h.verdicts).for_each(|verdict| reads::judge(engine, verdict));
        let verdicts: Vec<Verdict> = heard.iter().flat_map(|h| h.verdicts.clone()).collect();
        engine.ledger.record_verdicts(&verdicts)?;
        for h in heard {
            if h.busy || h.verdicts.iter().any(|v| v.fault.is_none()) {
                engine.provider_answered(&h.peer)?;
            }
            for v in &h.verdicts {
                if let Some(fault) = &v.fault {
                    engine.provider_caught(&h.peer, &format!("piece {}: {fault}", short_id(&v.piece)))?;
                    self.suspect_all(&h.peer, fault);
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
            .map(|(peer, list)| challenge_all(engine, &self.pace, peer, list))
            .buffer_unordered(PROVIDERS_AT_ONCE)
            .collect::<Vec<Heard>>();
        let heard = tokio::select! {
            heard = asking => heard,
            () = context.stopping().cancelled() => return Ok(Next::Idle),
        };
        let all_answered = heard.iter().all(|h| h.silent.is_none() && !h.busy);
        self.commit(heard)?;
        Ok(if all_answered { Next::Again } else { Next::After(RETRY) })
    }

    async fn wait(&mut self) {
        tokio::time::sleep(RETRY).await;
    }
}

impl AuditWorker {
    /// Who lost one copy may have lost others: all that it keeps is challenged next; and read, if it did not give what it has.
    fn suspect_all(&self, peer: &Peer, fault: &str) {
        let retriever = &self.engine.retriever;
        for (piece, row) in self.engine.ledger.pieces() {
            let held = row.holders().filter(|(_, h)| &h.provider == peer && h.failed.is_none());
            for (slot, _) in held {
                retriever.suspicions.lock().insert((piece, slot));
                if fault == reads::GIVES_NOTHING {
                    retriever.to_read.lock().insert((piece, slot));
                }
            }
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
        let greeted: Vec<(Peer, Result<(u64, Option<Tags>), String>)> = futures::stream::iter(quiet)
            .map(|(peer, _)| async move {
                let greeting = async {
                    let session = engine.peers.session(&engine.ledger, &peer).await?;
                    let now = session.info().await?.now;
                    // An older one does not know the question, and says nothing of it.
                    Ok::<_, NetError>((now, session.tags().await.ok()))
                };
                let said = match tokio::time::timeout(GREETING, greeting).await {
                    Ok(answer) => answer.map_err(|error| error.to_string()),
                    Err(_) => Err("no answer in time".to_owned()),
                };
                (peer, said)
            })
            .buffer_unordered(PROVIDERS_AT_ONCE)
            .collect()
            .await;
        for (peer, said) in greeted {
            match said {
                Ok((their_time, tags)) => {
                    engine.provider_told_time(&peer, their_time);
                    if let Some(tags) = tags {
                        engine.ledger.update_provider(&peer, |row| row.declared = tags)?;
                    }
                    engine.provider_greeted(&peer)?;
                }
                Err(why) => {
                    engine.peers.failed(&peer);
                    engine.provider_silent(&peer, &why)?;
                }
            }
        }
        Ok(())
    }
}

/// One provider's challenges, one after the other; the first silence, or "busy", ends them.
async fn challenge_all(engine: &Engine, pace: &Pace, peer: Peer, list: Vec<Due>) -> Heard {
    let mut heard = Heard { peer, verdicts: Vec::new(), silent: None, busy: false };
    // Each costs its whole patience: one a step is enough.
    let mut withheld = false;
    for (n, due) in list.into_iter().enumerate() {
        pace.step().await;
        let error = match challenge(engine, &due, n == 0, due.read && !withheld).await {
            Ok(look) => {
                withheld |= look == Some(Look::Withheld);
                heard.verdicts.push(verdict(engine, &due, None));
                continue;
            }
            Err(error) => error,
        };
        let overdue = age(engine.now(), due.holder.proven_at);
        match blame(&error, overdue, engine.audit_interval()) {
            Blame::Fault(text) => heard.verdicts.push(verdict(engine, &due, Some(text))),
            Blame::Busy => {
                heard.busy = true;
                break;
            }
            // Our own doing says nothing of the provider.
            Blame::Nobody => tracing::warn!(%error, "a challenge could not be asked"),
            Blame::Silence => {
                engine.peers.failed(&heard.peer);
                heard.silent = Some(error.to_string());
                break;
            }
        }
    }
    heard
}

/// What an unanswered challenge says of its provider.
#[derive(Debug, PartialEq, Eq)]
enum Blame {
    /// The copy is not there, as a person reads it.
    Fault(String),
    /// It answers, and will be asked again.
    Busy,
    /// Nothing was heard.
    Silence,
    /// Nothing: it was never asked.
    Nobody,
}

/// `overdue`: seconds since its last proof.
fn blame(error: &NetError, overdue: u64, interval: u64) -> Blame {
    let patience = interval.saturating_mul(BUSY_INTERVALS_MAX).max(BUSY_SECONDS_MIN);
    match error {
        error if error.is_fault_of_provider() => Blame::Fault(fault_text(error)),
        NetError::Refused { code, .. } if code.is_retryable() => {
            match overdue > patience && overdue != u64::MAX {
                true => Blame::Fault("it was too busy for a challenge for too long".to_owned()),
                false => Blame::Busy,
            }
        }
        NetError::Invalid(_) | NetError::Local(_) | NetError::Closed => Blame::Nobody,
        _ => Blame::Silence,
    }
}

/// With `countersigned` the answer says which head the provider keeps; with `read` some of the leaves are read before they are asked,
/// and the result says what that showed.
async fn challenge(
    engine: &Engine,
    due: &Due,
    countersigned: bool,
    read: bool,
) -> Result<Option<Look>, NetError> {
    let deal = <[u8; 32]>::try_from(due.holder.deal.as_slice());
    let deal = DealId(deal.map_err(|_| NetError::Invalid("deal id".into()))?);
    let spec = AuditSpec {
        piece: due.cid,
        count: engine.audit_plan().challenges,
        epoch: engine.now(),
        record: countersigned.then(|| head_key(&engine.head_name())),
    };
    let asking = async {
        let session = engine.peers.session(&engine.ledger, &due.holder.provider).await?;
        let drawn = session.draw_audit(deal, &spec)?;
        let beside = match read {
            true => Some(Beside::read(&session, deal, &drawn, &due.cid, engine.env.rng.as_ref()).await?),
            false => None,
        };
        Ok::<_, NetError>((session.audit_drawn(drawn, PATIENCE).await?, beside))
    };
    // The session bounds the challenge; this bounds dialling and proving the key as well.
    let shown = engine.head.published();
    let (audit, beside) = tokio::time::timeout(PATIENCE * 2 + READ_PATIENCE * 2, asking)
        .await
        .map_err(|_| NetError::Timeout(PATIENCE))??;
    let same = |published: &Published| audit.record == Some(record_digest(&published.pair));
    // Another head than it was given last: it is offered ours again, and says why.
    if countersigned && shown.is_some_and(|published| !same(&published)) {
        engine.doubted.lock().insert(due.holder.provider.clone());
        engine.wake.notify_waiters();
    }
    Ok(beside.and_then(|beside| reads::note(engine, due, &beside, &audit)))
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
                    let due = Due { piece, slot: n, cid, holder: holder.clone(), read: false };
                    by_peer.entry(holder.provider.clone()).or_default().push(due);
                }
            }
        }
        let asked: usize = by_peer.values().map(Vec::len).sum();
        // Somebody waits for these.
        let pace = Pace::new(EVERYTHING_PER_SECOND_MAX);
        let mut heard: Vec<Heard> = futures::stream::iter(by_peer)
            .map(|(peer, list)| challenge_all(self, &pace, peer, list))
            .buffer_unordered(PROVIDERS_AT_ONCE)
            .collect()
            .await;
        heard.iter_mut().flat_map(|h| &mut h.verdicts).for_each(|verdict| reads::judge(self, verdict));
        let passed = heard.iter().flat_map(|h| &h.verdicts).filter(|v| v.fault.is_none()).count();
        let mut problems = Vec::new();
        for h in &heard {
            let short = crate::drive::peers::peer_short(&h.peer);
            if h.busy {
                problems.push(format!("provider {short} is too busy to be challenged"));
            }
            problems.extend(h.silent.iter().map(|why| format!("provider {short} does not answer: {why}")));
            problems.extend(h.verdicts.iter().filter_map(|v| {
                v.fault.as_ref().map(|f| format!("provider {short}, piece {}: {f}", short_id(&v.piece)))
            }));
        }
        AuditWorker::new(self.clone()).commit(heard)?;
        Ok((asked as u64, passed as u64, problems))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use holdfast_net::ErrorCode;

    fn refused(code: ErrorCode) -> NetError {
        NetError::Refused { code, message: String::new() }
    }

    #[test]
    fn busy_is_no_silence_and_our_own_mistakes_are_nobodys() {
        let blame = |error: NetError, overdue| super::blame(&error, overdue, 600);
        assert_eq!(blame(refused(ErrorCode::Busy), 700), Blame::Busy);
        assert_eq!(blame(refused(ErrorCode::ShuttingDown), 3600), Blame::Busy);
        assert!(matches!(blame(refused(ErrorCode::Busy), 3601), Blame::Fault(_)), "for ever is refusing");
        assert_eq!(
            blame(refused(ErrorCode::Busy), u64::MAX),
            Blame::Busy,
            "a proof from the future shows nothing"
        );
        assert!(matches!(blame(refused(ErrorCode::NotFound), 1), Blame::Fault(_)));
        assert!(matches!(blame(NetError::Protocol("wrong".into()), 1), Blame::Fault(_)));
        assert_eq!(blame(NetError::Invalid("deal id".into()), 1), Blame::Nobody);
        assert_eq!(blame(NetError::Timeout(PATIENCE), 1), Blame::Silence);
        assert_eq!(blame(refused(ErrorCode::Unauthorized), 1), Blame::Silence);
    }

    #[test]
    fn challenges_keep_their_distance() {
        let pace = Pace::new(4);
        let start = Instant::now() + Duration::from_secs(1);
        let took: Vec<Duration> = (0..9).map(|_| pace.take(start) - start).collect();
        assert_eq!(took.last(), Some(&Duration::from_secs(2)));
        let later = start + Duration::from_secs(60);
        let took: Vec<Duration> = (0..5).map(|_| pace.take(later) - later).collect();
        assert_eq!(took.last(), Some(&Duration::from_secs(1)), "a pause saves nothing up");
    }
}
