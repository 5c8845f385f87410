//! When tasks will finish if all goes as estimated, which deadlines that endangers, and whether to take more deals.
//!
//! The queue is played forward in its own order: running proofs, queued proofs, then the rest. A task begins when
//! cores and memory suffice, never before one that stands ahead of it. Seals that run now may be stopped for a
//! proof, so they are played after the proofs, with what is left of them.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

use serde::{Deserialize, Serialize};

use super::core::{Core, Entry, fits, give, take};
use super::{Budget, Cost, TaskId, UnixMillis};

/// A deadline is at risk when less than one part in this many of the time until then would be to spare.
const SPARE_PARTS: u64 = 8;

/// Expected finishes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Forecast {
    finishes: BTreeMap<TaskId, UnixMillis>,
    at_risk: Vec<TaskId>,
}

/// When a provider stops taking deals that must be sealed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PressurePolicy {
    /// What one more seal takes.
    pub seal: Cost,
    /// The longest wait for a new seal to be finished that deals may promise.
    pub seal_millis_max: u64,
    /// Window in which proofs are added up.
    pub horizon_millis: u64,
    /// Share of all cores' time in that window, in percent, which proofs may take.
    pub proof_percent_max: u8,
}

/// Back-pressure, for whoever makes deals.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Pressure {
    /// Whether one more sector may be promised.
    pub accepts: bool,
    /// Why not.
    pub reasons: Vec<String>,
    /// How long a seal that is handed in now would take to be finished.
    pub new_seal_millis: u64,
    /// Percent of all cores' time within the horizon that proofs take.
    pub proof_percent: u8,
}

/// Capacity over time.
struct Play {
    now: UnixMillis,
    free: Budget,
    /// Ends to come, with what they give back.
    ends: BinaryHeap<Reverse<(UnixMillis, u64, u32)>>,
}

impl Play {
    fn place(&mut self, cost: &Cost, wall: u64) -> UnixMillis {
        while !fits(&self.free, cost) {
            let Some(Reverse((end, memory_bytes, cores))) = self.ends.pop() else { break };
            self.now = self.now.max(end);
            give(&mut self.free, &Cost { cpu_millis: 0, memory_bytes, cores });
        }
        let finish = self.now.saturating_add(wall);
        take(&mut self.free, cost);
        self.ends.push(Reverse((finish, cost.memory_bytes, cost.cores)));
        finish
    }
}

impl Forecast {
    /// When a task is expected to finish.
    #[must_use]
    pub fn finish(&self, id: TaskId) -> Option<UnixMillis> {
        self.finishes.get(&id).copied()
    }

    /// Tasks whose deadline is at risk, in the order of the queue.
    #[must_use]
    pub fn at_risk(&self) -> &[TaskId] {
        &self.at_risk
    }
}

impl Core {
    fn play(&self, now: UnixMillis) -> (Play, Forecast) {
        let mut play = Play { now, free: self.budget, ends: BinaryHeap::new() };
        let mut order: Vec<&Entry> = self.entries.values().collect();
        order.sort_unstable_by_key(|entry| {
            let (rank, deadline, id) = entry.order();
            (rank, entry.state.since().is_none(), deadline, id)
        });
        let (mut finishes, mut at_risk) = (BTreeMap::new(), Vec::new());
        for entry in order {
            let duty = &entry.task.duty;
            let spent = entry.state.since().map_or(0, |since| now.saturating_sub(since));
            let wall = duty.cost.wall_millis().saturating_sub(spent);
            let finish = play.place(&duty.cost, wall).max(entry.task.not_before.saturating_add(wall));
            finishes.insert(entry.task.id, finish);
            let spare = duty.deadline.saturating_sub(now) / SPARE_PARTS;
            if finish > duty.deadline.saturating_sub(spare) {
                at_risk.push(entry.task.id);
            }
        }
        (play, Forecast { finishes, at_risk })
    }

    /// Plays the queue forward from now.
    #[must_use]
    pub fn forecast(&self, now: UnixMillis) -> Forecast {
        self.play(now).1
    }

    /// Whether one more seal may be promised.
    #[must_use]
    pub fn pressure(&self, policy: &PressurePolicy, now: UnixMillis) -> Pressure {
        let (mut play, forecast) = self.play(now);
        let new_seal = play.place(&policy.seal, policy.seal.wall_millis()).saturating_sub(now);
        let until = now.saturating_add(policy.horizon_millis);
        let proofs: u64 = self
            .entries
            .values()
            .map(|entry| &entry.task.duty)
            .filter(|duty| duty.class.is_proof() && duty.deadline <= until)
            .map(|duty| duty.cost.cpu_millis)
            .fold(0, u64::saturating_add);
        let capacity = policy.horizon_millis.saturating_mul(u64::from(self.budget.cores)).max(1);
        let percent = u128::from(proofs) * 100 / u128::from(capacity);
        let proof_percent = u8::try_from(percent).unwrap_or(u8::MAX);
        let mut reasons = Vec::new();
        let risky = forecast
            .at_risk
            .iter()
            .filter(|id| self.task(**id).is_some_and(|task| task.duty.class.is_proof()))
            .count();
        if risky > 0 {
            reasons.push(format!("{risky} proof(s) may miss their deadline"));
        }
        if proof_percent > policy.proof_percent_max {
            reasons.push(format!("proofs take {proof_percent} % of the cores"));
        }
        if new_seal > policy.seal_millis_max {
            reasons.push(format!("a new seal would be finished in {} s", new_seal / 1_000));
        }
        if !fits(&self.budget, &policy.seal) {
            reasons.push("the budget does not admit a seal".to_owned());
        }
        if self.len() >= super::TASKS_MAX {
            reasons.push("the queue is full".to_owned());
        }
        Pressure { accepts: reasons.is_empty(), reasons, new_seal_millis: new_seal, proof_percent }
    }
}
