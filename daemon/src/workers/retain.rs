//! The retain worker: drops commits that the owner's rule does not keep, and gives up what only they reached.
//!
//! ```text
//! prune (commit rows go, pieces are condemned or emptied) ─► grace, and a newer head with all its pieces Placed to policy
//!     ─► forgotten here, "removed" in the placement log ─► a published head says so ─► the deals are ended
//! ```
//!
//! Each arrow is a committed row; a crash repeats a step. A piece is condemned by the drive alone, in the transaction that looks at what is reached. For
//! 30 days after this machine took the drive over nothing is dropped and nothing is given up: the other machine may have what this one does not know of.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use async_trait::async_trait;
use holdfast_content::placement::{ChainEnd, PlacementAction, PlacementEntry, PlacementFacts};
use holdfast_fs::drive::DriveError;
use holdfast_fs::retention::Pruned;
use holdfast_fs::retention::rule::RetentionRule;
use holdfast_net::{DealId, ErrorCode};

use crate::control::PruneReport;
use crate::drive::Engine;
use crate::drive::events::Level;
use crate::drive::ledger::{Holder, Ledger, LedgerError, Peer, PieceId, PieceRow, ProviderState, Release};
use crate::worker::{Context, Detail, Next, Worker};

/// How often commits are looked at.
const PRUNE: Duration = Duration::from_secs(3600);
/// Of the time that passes, no more than one part in so many is spent on looking: the look reads every node of the kept trees.
const PRUNE_SHARE: u32 = 50;
/// The same while pieces are being emptied, a bounded part at a time.
const PRUNE_MORE: Duration = Duration::from_secs(300);
/// How often what waits is looked at.
const LOOK: Duration = Duration::from_secs(30);
/// One provider's answer.
const PATIENCE: Duration = Duration::from_secs(15);
/// After a change of term nothing is released for so long.
const TERM_SECONDS: u64 = 30 * 24 * 3600;
/// A begin that is further ahead than this was noted under a wrong clock.
const CLOCK_SECONDS: u64 = 24 * 3600;
/// When this machine took the drive over: unix seconds, big endian.
const TERM_NOTE: &str = "term-since";

/// See the module.
pub struct RetainWorker {
    engine: Arc<Engine>,
    /// When commits are looked at next.
    next: Option<std::time::Instant>,
    detail: Detail,
}

impl RetainWorker {
    /// A worker over `engine`'s commits.
    pub fn new(engine: Arc<Engine>) -> Self {
        Self { engine, next: None, detail: Detail::default() }
    }

    async fn release(&self, release: &Release) -> anyhow::Result<()> {
        let engine = &self.engine;
        let gone = engine
            .ledger
            .provider(&release.provider)
            .is_none_or(|row| matches!(row.state, ProviderState::Removed))
            || release.ends_at <= engine.deal_now();
        if !gone {
            let deal: [u8; 32] = release.deal.as_slice().try_into()?;
            let telling = async {
                let session = engine.peers.session(&engine.ledger, &release.provider).await?;
                session.release(DealId(deal)).await
            };
            match tokio::time::timeout(PATIENCE, telling).await? {
                // It was told before, and this machine did not hear the answer.
                Err(error) if error.code() == Some(ErrorCode::NotFound) => {}
                told => told?,
            }
        }
        let (engine, deal) = (engine.clone(), release.deal.clone());
        engine.blocking(move |e| e.ledger.released(&deal)).await??;
        Ok(())
    }
}

#[async_trait]
impl Worker for RetainWorker {
    fn name(&self) -> &'static str {
        "retain"
    }

    fn status(&self) -> Detail {
        self.detail.clone()
    }

    async fn work(&mut self, context: &Context) -> anyhow::Result<Next> {
        let until = self.engine.blocking(kept_until).await??;
        if self.engine.read_only().is_some() || until.is_some() || !self.engine.knows_time() {
            return Ok(Next::After(LOOK));
        }
        if self.next.is_none_or(|at| std::time::Instant::now() >= at) {
            context.report(Detail { doing: "looking at what is kept".into(), ..Detail::default() });
            let start = std::time::Instant::now();
            let pruned = self.engine.blocking(|e| prune(e, &e.policy.retention)).await??;
            let rest = if pruned.more { PRUNE_MORE } else { PRUNE };
            self.next = Some(std::time::Instant::now() + rest.max(start.elapsed() * PRUNE_SHARE));
        }
        self.engine.blocking(give_up_due).await??;
        let releases = self.engine.blocking(may_be_told).await??;
        let mut waiting = 0;
        // Who does not answer keeps nobody waiting: it is told when it is back, or never, and the deal ends by itself at last.
        let mut failing: HashSet<&Peer> = HashSet::new();
        for release in &releases {
            let row = self.engine.ledger.provider(&release.provider);
            let silent =
                row.is_some_and(|row| !row.answers() && !matches!(row.state, ProviderState::Removed));
            if (silent && release.ends_at > self.engine.deal_now()) || failing.contains(&release.provider) {
                waiting += 1;
                continue;
            }
            if let Err(error) = self.release(release).await {
                tracing::debug!(error = %format!("{error:#}"), "a copy could not be given up");
                failing.insert(&release.provider);
                waiting += 1;
            }
        }
        self.detail = Detail { doing: String::new(), queue: waiting, progress: None };
        Ok(Next::After(LOOK))
    }

    async fn wait(&mut self) {
        tokio::time::sleep(LOOK).await;
    }
}

/// Deals that may be ended: a head that says so is with as many providers as the policy asks for, so that whichever of them a
/// restore meets, none names what is gone.
fn may_be_told(engine: &Engine) -> Result<Vec<Release>, LedgerError> {
    match engine.ledger.head_copies() < engine.head_wanted() {
        true => Ok(Vec::new()),
        false => engine.ledger.releases(),
    }
}

/// Notes that this machine took the drive over.
pub fn note_term(ledger: &Ledger, now: u64) -> Result<(), LedgerError> {
    ledger.set_note(TERM_NOTE, now.to_be_bytes().to_vec())
}

/// Until when nothing is given up, if so.
pub fn kept_until(engine: &Engine) -> anyhow::Result<Option<u64>> {
    let Some(note) = engine.ledger.note(TERM_NOTE)? else { return Ok(None) };
    let since = u64::from_be_bytes(note.as_slice().try_into().context("the note of the term's begin")?);
    let now = engine.deal_now();
    if since > now.saturating_add(CLOCK_SECONDS) {
        // It was noted under a clock that was ahead: the 30 days begin now.
        note_term(&engine.ledger, now)?;
    }
    let until = since.min(now.saturating_add(CLOCK_SECONDS)).saturating_add(TERM_SECONDS);
    Ok((now < until).then_some(until))
}

/// One look at what is kept.
pub fn prune(engine: &Engine, rule: &RetentionRule) -> anyhow::Result<Pruned> {
    let before = engine.drive.latest_commit()?.map(|commit| commit.sequence);
    let pruned = engine.drive.prune(rule, engine.deal_now())?;
    if engine.drive.latest_commit()?.map(|commit| commit.sequence) != before {
        engine.wake.notify_waiters();
    }
    if pruned.commits > 0 || pruned.pieces > 0 || pruned.moved_bytes > 0 {
        let text = format!(
            "{} old snapshots were dropped; {} bytes in {} pieces are no longer needed, {} bytes were packed anew",
            pruned.commits, pruned.bytes, pruned.pieces, pruned.moved_bytes
        );
        engine.events.add(engine.now(), Level::Info, text);
    }
    Ok(pruned)
}

/// `holdfast prune`: one look now, and what waits after it.
pub async fn prune_now(engine: &Arc<Engine>, rule: RetentionRule) -> anyhow::Result<PruneReport> {
    let report = engine
        .blocking(move |e| {
            if let Some(until) = kept_until(e)? {
                return anyhow::Ok(PruneReport { kept_until: Some(until), ..waiting(e)? });
            }
            let pruned = prune(e, &rule)?;
            give_up_due(e)?;
            Ok(PruneReport {
                dropped_snapshots: pruned.commits,
                unneeded_pieces: pruned.pieces,
                unneeded_bytes: pruned.bytes,
                moved_bytes: pruned.moved_bytes,
                more: pruned.more,
                ..waiting(e)?
            })
        })
        .await??;
    engine.supervisor.poke_all();
    Ok(report)
}

fn waiting(engine: &Engine) -> anyhow::Result<PruneReport> {
    let mut report = PruneReport::default();
    for gone in engine.drive.condemned()? {
        report.waiting_pieces += 1;
        report.waiting_bytes += engine.drive.piece(gone.piece)?.map_or(0, |piece| piece.raw_len);
    }
    report.waiting_copies = engine.ledger.releases_all()?.len() as u64;
    Ok(report)
}

/// Condemned pieces whose grace is over, and that a published head has left behind with everything in it Placed to policy.
fn give_up_due(engine: &Engine) -> anyhow::Result<()> {
    let now = engine.deal_now();
    let mut due = engine.drive.condemned()?;
    // By the providers' clocks where ours is wrong; what was condemned in the future waits until that time has come.
    due.retain(|gone| now.saturating_sub(gone.at) >= engine.policy.grace_seconds);
    let Some(newest) = due.iter().map(|gone| gone.sequence).max() else { return Ok(()) };
    let behind = engine.behind(newest)?;
    if !behind.published || behind.pieces.0 != behind.pieces.1 {
        return Ok(());
    }
    for gone in due {
        match engine.drive.forget_piece(gone.piece) {
            Ok(()) => {}
            Err(DriveError::NotEvictable { reason, .. }) => {
                tracing::debug!(reason, "a piece is forgotten later");
                continue;
            }
            Err(error) => return Err(error.into()),
        }
        engine.ledger.give_up(gone.piece, |row, slot, holder, chain| {
            removal(engine, gone.piece, row, slot, holder, chain, now)
        })?;
        engine.drive.forgotten(gone.piece)?;
    }
    Ok(())
}

/// The signed entry that says that a copy no longer counts, or a class.
fn removal(
    engine: &Engine,
    piece: PieceId,
    row: &PieceRow,
    slot: u16,
    holder: Option<&Holder>,
    chain: &ChainEnd,
    time: u64,
) -> Result<(Vec<u8>, ChainEnd), String> {
    let cid = row.slots.get(usize::from(slot)).and_then(|slot| slot.cid.clone());
    let facts = PlacementFacts {
        action: PlacementAction::Remove,
        piece,
        raw_len: row.raw_len,
        slot,
        holder: holder.map(|holder| holder.provider.clone()).unwrap_or_default(),
        slot_cid: cid.map(|cid| cid.into_vec()).unwrap_or_default(),
        deal: holder.map(|holder| holder.deal.clone()).unwrap_or_default(),
        receipt: Vec::new(),
        time,
    };
    let entry =
        PlacementEntry::sign(facts, chain, engine.keys.placement_signing()).map_err(|e| e.to_string())?;
    Ok((entry.bytes().to_vec(), entry.chain_end()))
}
