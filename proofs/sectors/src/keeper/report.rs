//! The keeper in figures and words.

use std::collections::BTreeMap;

use holdfast_proofs::sealing::{
    Room, SCHEMA, SECTORS_SHOWN_MAX, SealingStatus, SectorStatus, TaskLine, WindowCounts,
};

use super::{Keeper, costs};
use crate::engine::{Budget, Clock, Executor, PressurePolicy};
use crate::params::Circuit;

/// What stands before and beside everything of a test profile.
const WARNING: &str = "TEST STRENGTH: these sectors and proofs show that the program works, and nothing else. No money may rest \
                       on them.";
/// Share of all cores' time that proofs of spacetime may take before no more deals are taken.
const PROOF_PERCENT_MAX: u8 = 50;

fn room(budget: Budget) -> Room {
    Room { cores: budget.cores, memory_bytes: budget.memory_bytes }
}

impl<E: Executor, C: Clock + Clone> Keeper<E, C> {
    /// Back-pressure to whoever makes deals: why no more are to be taken now. Nothing where there is none.
    fn reasons(&self) -> Vec<String> {
        let policy = PressurePolicy {
            seal: costs::seal(&self.settings),
            seal_millis_max: self.settings.seal_seconds_max.saturating_mul(1_000),
            horizon_millis: self.settings.period_seconds.saturating_mul(1_000),
            proof_percent_max: PROOF_PERCENT_MAX,
        };
        let mut reasons = self.engine.pressure(&policy).reasons;
        // What one sector more would make of every period to come; the engine only sees windows that are open.
        let proofs = costs::window(&self.settings, self.sectors.len() + 1).cpu_millis;
        let cores = u64::from(self.settings.budget.cores);
        let all = policy.horizon_millis.saturating_mul(cores).max(1);
        let percent = u128::from(proofs) * 100 / u128::from(all);
        if percent > u128::from(PROOF_PERCENT_MAX) {
            reasons.push(format!("proofs of spacetime would take {percent} % of the cores"));
        }
        reasons.extend(self.lacks_disk());
        if self.pieces.is_full() {
            reasons.push("more deals than a prover knows".to_owned());
        }
        if !self.pieces.is_listed() {
            reasons.push("the prover does not know the deals yet".to_owned());
        }
        if !self.has_parameters(Circuit::WindowPost) {
            reasons.push("parameters for Window PoSt are not there yet".to_owned());
        }
        reasons
    }

    fn sector_line(&self, number: u64) -> Option<SectorStatus> {
        let kept = self.sectors.get(&number)?;
        let declared = self.book.faults.get(&number);
        let stuck = kept.stuck.as_ref().map(|(reason, _)| format!("somebody: {reason}"));
        Some(SectorStatus {
            number,
            phase: kept.phase.name().to_owned(),
            pieces: kept.pieces.len(),
            until: self.sector_until(number),
            comm_r: kept.comm_r.map(|comm_r| comm_r.to_string()),
            waits: stuck.or_else(|| kept.waits.clone()),
            faulty_since: declared.map(|declared| declared.since),
            fault: declared.map(|declared| declared.reason.clone()),
            proven_at: kept.proven_at,
        })
    }

    /// How everything stands.
    #[must_use]
    pub fn status(&self) -> SealingStatus {
        let engine = self.engine.status();
        let reasons = self.reasons();
        let profile = self.settings.profile;
        let trouble = |number: &u64| !self.book.faults.contains_key(number);
        let mut shown: Vec<u64> = self.sectors.keys().copied().collect();
        shown.sort_by_key(|number| (trouble(number), *number));
        shown.truncate(SECTORS_SHOWN_MAX);
        let tasks = engine.tasks.into_iter().map(|task| TaskLine {
            id: task.id.0,
            class: task.class.name().to_owned(),
            what: task.what,
            state: task.state,
            deadline: task.deadline / 1_000,
            expected_finish: task.expected_finish.map(|at| at / 1_000),
            at_risk: task.at_risk,
            attempts: task.attempts,
        });
        let mut phases = BTreeMap::new();
        for kept in self.sectors.values() {
            *phases.entry(kept.phase.name().to_owned()).or_default() += 1;
        }
        let newest = self.book.last_window.into_iter().flat_map(|last| {
            let oldest =
                last.saturating_sub(self.settings.period_seconds / self.settings.deadline_seconds + 1);
            (oldest..=last).rev()
        });
        SealingStatus {
            schema: SCHEMA,
            now: self.now(),
            pid: std::process::id(),
            profile: profile.name().to_owned(),
            strength: profile.strength().to_owned(),
            warning: (!profile.is_production()).then(|| WARNING.to_owned()),
            budget: room(engine.budget),
            used: room(engine.used),
            accepts: reasons.is_empty(),
            reasons,
            piece_bytes_max: profile.payload_bytes_max(),
            pieces: self.pieces.counts(),
            sectors: shown.into_iter().filter_map(|number| self.sector_line(number)).collect(),
            sectors_total: self.sectors.len(),
            sectors_faulty: self.book.faults.len(),
            phases,
            windows: WindowCounts {
                period_seconds: self.settings.period_seconds,
                deadline_seconds: self.settings.deadline_seconds,
                proven: self.book.proven,
                missed: self.book.missed,
                newest_proof: newest.map(|window| self.proof_path(window)).find(|path| path.exists()),
            },
            tasks: tasks.collect(),
            events: self.events.iter().cloned().collect(),
        }
    }
}
