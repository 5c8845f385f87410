//! The repair worker: turns evidence of a lost copy into the row that the place worker picks up.
//!
//! The single edge backward of the pipeline. A copy is lost when its holder failed an audit, when its provider was silent for
//! too long (not long at all where it was the last but one) or was taken out, or when its deal is about to end. The old holder stays in the row until the new one is confirmed,
//! so that a copy which is merely about to be replaced still counts and still serves.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use crate::drive::Engine;
use crate::drive::events::Level;
use crate::drive::ledger::{Form, Holder, Lost, Peer, PieceId, PieceRow, ProviderState};
use crate::drive::peers::peer_short;
use crate::worker::{Context, Detail, Next, Worker};

/// See the module.
pub struct RepairWorker {
    engine: Arc<Engine>,
    detail: Detail,
}

impl RepairWorker {
    /// A worker over `engine`'s ledger.
    pub fn new(engine: Arc<Engine>) -> Self {
        Self { engine, detail: Detail::default() }
    }

    /// Why a copy has to be replaced, if it has to.
    fn why(&self, piece: &PieceId, holder: &Holder) -> Option<String> {
        let engine = &self.engine;
        let short = peer_short(&holder.provider);
        if let Some(fault) = &holder.failed {
            return Some(format!("provider {short} lost ({fault})"));
        }
        let row = engine.ledger.provider(&holder.provider);
        match row.map(|r| r.state) {
            None | Some(ProviderState::Removed) => {
                return Some(format!("provider {short} kept before it was taken out"));
            }
            Some(ProviderState::Failed { .. }) => {
                return Some(format!("provider {short} kept before it fell silent"));
            }
            Some(ProviderState::Suspect { .. })
                if engine.wanted(piece) > 1
                    && engine.silent_seconds(&holder.provider) >= engine.policy.urgent_after_seconds
                    && engine.ledger.live_copies(piece) == 1 =>
            {
                return Some(format!("provider {short} does not give, with one copy left elsewhere"));
            }
            Some(ProviderState::Active | ProviderState::Suspect { .. }) => {}
        }
        let left = holder.ends_at.saturating_sub(engine.deal_now());
        (left < engine.policy.deal_seconds / 3).then(|| format!("provider {short} keeps until its deal ends"))
    }

    /// Slots in a failure domain that keeps an earlier one, if there are domains that could take them: tags became known later.
    fn crowded(&self, row: &PieceRow) -> Vec<u16> {
        let held: Vec<(u16, &Peer)> =
            row.holders().filter(|(_, h)| h.failed.is_none()).map(|(n, h)| (n, &h.provider)).collect();
        let domains = self.engine.ledger.domains(&held.iter().map(|(_, peer)| *peer).collect::<Vec<_>>());
        let mut used = HashSet::new();
        let crowded: Vec<u16> = held
            .iter()
            .zip(domains)
            .filter(|(_, domain)| !used.insert(*domain))
            .map(|((n, _), _)| *n)
            .collect();
        match crowded.is_empty() || self.engine.domains_for(Some(row)) <= used.len() {
            true => Vec::new(),
            false => crowded,
        }
    }

    fn look(&self) -> (Vec<(PieceId, u16, Option<String>)>, u64) {
        let mut changes = Vec::new();
        let mut open = 0;
        let engine = &self.engine;
        for (id, row) in engine.ledger.pieces() {
            // Surplus copies are not replaced.
            if row.stripe.is_none() && engine.ledger.counting_as(&id, Form::Stripe) >= engine.wanted(&id) {
                continue;
            }
            let crowded = self.crowded(&row);
            for (slot, n) in row.slots.iter().zip(0u16..) {
                let Some(holder) = &slot.holder else { continue };
                let why = self.why(&id, holder).or_else(|| {
                    let short = peer_short(&holder.provider);
                    crowded
                        .contains(&n)
                        .then(|| format!("provider {short} keeps, which fails together with another"))
                });
                open += u64::from(why.is_some());
                if why.is_some() != slot.lost.is_some() {
                    changes.push((id, n, why));
                }
            }
        }
        (changes, open)
    }
}

#[async_trait]
impl Worker for RepairWorker {
    fn name(&self) -> &'static str {
        "repair"
    }

    fn status(&self) -> Detail {
        self.detail.clone()
    }

    async fn work(&mut self, _: &Context) -> anyhow::Result<Next> {
        let (changes, open) = self.look();
        let lost = changes.iter().filter(|(_, _, why)| why.is_some()).count();
        let now = self.engine.now();
        for (id, slot, why) in changes {
            self.engine.ledger.set_lost(id, slot, why.map(|why| Lost { at: now, why }))?;
        }
        if lost > 0 {
            let text =
                format!("{lost} copies have to be made anew; the data is read from the others meanwhile");
            self.engine.events.add(now, Level::Warning, text);
        }
        let doing = if open > 0 { format!("{open} copies are being replaced") } else { String::new() };
        self.detail = Detail { doing, queue: open, progress: None };
        Ok(Next::Idle)
    }

    async fn wait(&mut self) {
        self.engine.changed(Duration::from_secs(10)).await;
        // Rows come in bursts (one for each verdict): one look serves them all.
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}
