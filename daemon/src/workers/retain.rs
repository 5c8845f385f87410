//! The retain worker: drops commits that the owner's rule does not keep, and gives up what only they reached.
//!
//! ```text
//! prune (commit rows go, pieces are condemned) ─► grace, and a published head that is newer ─► forgotten here, "removed" in the placement log
//!     ─► a published head says so ─► the deals are ended
//! ```
//!
//! Each arrow is a committed row; a crash repeats a step. A piece is condemned by the drive alone, in the transaction that looks at what is reached.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use holdfast_content::placement::{PlacementAction, PlacementEntry, PlacementFacts};
use holdfast_fs::drive::DriveError;
use holdfast_net::DealId;

use crate::drive::Engine;
use crate::drive::clock::age;
use crate::drive::events::Level;
use crate::drive::ledger::{ProviderState, Release};
use crate::worker::{Context, Detail, Next, Worker};

/// How often commits are looked at.
const PRUNE: Duration = Duration::from_secs(3600);
/// How often what waits is looked at.
const LOOK: Duration = Duration::from_secs(30);
/// One provider's answer.
const PATIENCE: Duration = Duration::from_secs(15);

/// See the module.
pub struct RetainWorker {
    engine: Arc<Engine>,
    /// Monotonic seconds of the last look at commits.
    pruned: Option<std::time::Instant>,
    detail: Detail,
}

impl RetainWorker {
    /// A worker over `engine`'s commits.
    pub fn new(engine: Arc<Engine>) -> Self {
        Self { engine, pruned: None, detail: Detail::default() }
    }

    async fn release(&self, release: &Release) -> anyhow::Result<()> {
        let engine = &self.engine;
        let gone = engine
            .ledger
            .provider(&release.provider)
            .is_none_or(|row| matches!(row.state, ProviderState::Removed))
            || release.ends_at <= engine.now();
        if !gone {
            let deal: [u8; 32] = release.deal.as_slice().try_into()?;
            let telling = async {
                let session = engine.peers.session(&engine.ledger, &release.provider).await?;
                session.release(DealId(deal)).await
            };
            tokio::time::timeout(PATIENCE, telling).await??;
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
        if self.engine.read_only().is_some() {
            return Ok(Next::After(LOOK));
        }
        if self.pruned.is_none_or(|at| at.elapsed() >= PRUNE) {
            context.report(Detail { doing: "looking at what is kept".into(), ..Detail::default() });
            let pruned = self.engine.blocking(|e| e.drive.prune(&e.policy.retention, e.now())).await??;
            self.pruned = Some(std::time::Instant::now());
            if pruned.commits > 0 || pruned.pieces > 0 {
                let text = format!(
                    "{} old commits were dropped; {} bytes in {} pieces are no longer needed",
                    pruned.commits, pruned.bytes, pruned.pieces
                );
                self.engine.events.add(self.engine.now(), Level::Info, text);
            }
        }
        self.engine.blocking(give_up_due).await??;
        let releases = self.engine.blocking(|e| e.ledger.releases()).await??;
        let mut waiting = 0;
        for release in &releases {
            if let Err(error) = self.release(release).await {
                // It is asked again; the deal ends by itself at last.
                tracing::debug!(error = %format!("{error:#}"), "a copy could not be given up");
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

/// Condemned pieces whose grace is over, and that a published head has left behind.
fn give_up_due(engine: &Engine) -> anyhow::Result<()> {
    let published = engine.head.published_sequence().unwrap_or(0);
    let now = engine.now();
    for gone in engine.drive.condemned()? {
        if age(now, gone.at) < engine.policy.grace_seconds || published < gone.sequence {
            continue;
        }
        match engine.drive.forget_piece(gone.piece) {
            Ok(()) => {}
            Err(DriveError::NotEvictable { reason, .. }) => {
                tracing::debug!(reason, "a piece is forgotten later");
                continue;
            }
            Err(error) => return Err(error.into()),
        }
        engine.ledger.give_up(gone.piece, |row, slot, holder, chain| {
            let facts = PlacementFacts {
                action: PlacementAction::Remove,
                piece: gone.piece,
                raw_len: row.raw_len,
                slot,
                holder: holder.provider.clone(),
                slot_cid: row
                    .slots
                    .get(usize::from(slot))
                    .and_then(|slot| slot.cid.clone())
                    .map(|cid| cid.into_vec())
                    .unwrap_or_default(),
                deal: holder.deal.clone(),
                receipt: Vec::new(),
                time: now,
            };
            let signing = engine.keys.placement_signing();
            let entry = PlacementEntry::sign(facts, chain, signing).map_err(|e| e.to_string())?;
            Ok((entry.bytes().to_vec(), entry.chain_end()))
        })?;
        engine.drive.forgotten(gone.piece)?;
    }
    Ok(())
}
