//! Reads beside audits: which, and what follows from them. How they are made and counted is `crate::reading`.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use holdfast_net::client::Audit;

use super::{AuditWorker, Due};
use crate::drive::Engine;
use crate::drive::ledger::{PieceId, Verdict};
use crate::drive::peers::peer_short;
use crate::reading::{Beside, Look, Times};

/// Reads of one provider in one step.
const READS_MAX: usize = 4;
/// Copies that are drawn in one step, of all providers together.
const DRAWN_MAX: usize = 64;
/// What is wrong with a slot that is proven and not given, as a person reads it.
pub(super) const GIVES_NOTHING: &str = "it proves the slot, and gives other bytes, or none, to who reads it";

impl AuditWorker {
    /// Draws which copies are read now.
    pub(super) fn draw_reads(&mut self) {
        let engine = &self.engine;
        let copies = engine.ledger.copies();
        let mean = Duration::from_secs(engine.policy.read_plan(copies).mean_seconds);
        let rng = engine.env.rng.as_ref();
        let count = self.times.due(rng, Instant::now(), mean, copies, DRAWN_MAX);
        if count == 0 {
            return;
        }
        let chosen = Times::which(rng, count, copies);
        let pieces = engine.ledger.pieces();
        let holders =
            || pieces.iter().flat_map(|(id, row)| row.holders().map(|(slot, held)| (*id, slot, held)));
        let known: HashSet<&[u8]> = holders().map(|(.., held)| held.deal.as_slice()).collect();
        engine.retriever.readings.keep(|deal| known.contains(deal));
        // As they were counted.
        let held = holders().filter(|(.., held)| held.failed.is_none()).map(|(id, slot, _)| (id, slot));
        let read = held.zip(0u64..).filter(|(_, n)| chosen.binary_search(n).is_ok()).map(|(at, _)| at);
        engine.retriever.to_read.lock().extend(read);
    }
}

/// Of one provider's slots (and whether each is due anyway) those for this step, of which a few are read; and those that wait.
pub(super) fn a_few(list: Vec<(Due, bool)>) -> (Vec<Due>, Vec<(PieceId, u16)>) {
    let (mut now, mut later, mut reads) = (Vec::new(), Vec::new(), 0);
    for (mut asked, due) in list {
        if asked.read && reads == READS_MAX {
            asked.read = false;
            later.push((asked.piece, asked.slot));
            if !due {
                continue;
            }
        }
        reads += usize::from(asked.read);
        now.push(asked);
    }
    (now, later)
}

/// Puts down what a read beside a passed audit showed.
pub(super) fn note(engine: &Engine, due: &Due, beside: &Beside, audit: &Audit) -> Option<Look> {
    let look = beside.held_against(audit)?;
    let (retriever, deal) = (&engine.retriever, &due.holder.deal);
    retriever.readings.looked(deal, look, Instant::now());
    if look == Look::Right {
        return Some(look);
    }
    engine.peers.failed(&due.holder.provider);
    let (peer, error) = (peer_short(&due.holder.provider), beside.error().map(ToString::to_string));
    tracing::info!(%peer, ?look, ?error, "a slot was proven and not given");
    // Again at once, until it is enough; of what is put off, the next challenge is soon enough.
    if look == Look::Other && !retriever.is_given_up(deal) {
        retriever.to_read.lock().insert((due.piece, due.slot));
    }
    Some(look)
}

/// A slot that was proven fails all the same if its holder gives it to nobody.
pub(super) fn judge(engine: &Engine, verdict: &mut Verdict) {
    if verdict.fault.is_some() {
        return;
    }
    let Some(row) = engine.ledger.piece(&verdict.piece) else { return };
    if engine.retriever.gives_other_bytes(verdict.piece, &row, verdict.slot, &verdict.deal) {
        verdict.fault = Some(GIVES_NOTHING.to_owned());
    }
}
