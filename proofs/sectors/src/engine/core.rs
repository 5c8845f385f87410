//! The queue and its decisions, as a pure function of tasks, budget and time.

use std::collections::BTreeMap;

use thiserror::Error;

use super::{Budget, Cost, Duty, Ending, Output, Task, TaskId, UnixMillis};

/// Tasks at once: two years of daily audits of ninety deals.
pub const TASKS_MAX: usize = 1 << 16;
/// Runs of a task before it is given up.
pub(super) const ATTEMPTS_MAX: u32 = 8;
/// The first pause after a failure; each further one is twice as long.
const BACKOFF_MILLIS: u64 = 1_000;
const BACKOFF_MILLIS_MAX: u64 = 300_000;

/// Why a duty is not taken.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum SubmitError {
    #[error("{TASKS_MAX} tasks are queued already")]
    Full,
    #[error("the task needs {needed:?}, the provider's whole budget is {budget:?}")]
    OverBudget { needed: Cost, budget: Budget },
    #[error("the deadline has passed")]
    Late,
}

/// What the engine must do now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    Start(TaskId),
    /// Make room for a proof.
    Stop(TaskId),
    /// Its deadline has passed and it is worth nothing any more: take it out, and stop it if it runs.
    Miss(TaskId),
}

/// What becomes of a task after a run.
#[derive(Debug, Clone, PartialEq)]
pub enum Verdict {
    Done(Output),
    /// Given up.
    Failed {
        reason: String,
    },
    /// Back in the queue, with the cost and pause that it has now.
    Again {
        reason: String,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    Queued,
    Running {
        since: UnixMillis,
    },
    /// Told to stop, not yet ended: still using what it uses.
    Stopping {
        since: UnixMillis,
    },
    /// Too late before it began.
    Missed,
}

impl State {
    /// Since when it runs, if it does.
    pub(super) fn since(self) -> Option<UnixMillis> {
        match self {
            Self::Queued | Self::Missed => None,
            Self::Running { since } | Self::Stopping { since } => Some(since),
        }
    }
}

#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub(super) task: Task,
    pub(super) state: State,
}

impl Entry {
    /// Its place in the order: proofs, then seals, then the rest; the earlier deadline first.
    pub(super) fn order(&self) -> (u8, UnixMillis, TaskId) {
        (self.task.duty.class.rank(), self.task.duty.deadline, self.task.id)
    }
}

/// The queue.
#[derive(Debug)]
pub struct Core {
    pub(super) budget: Budget,
    pub(super) entries: BTreeMap<TaskId, Entry>,
    next: u64,
}

impl Core {
    /// A queue with the tasks of an earlier run, all of them to be started again. A task that a smaller budget no
    /// longer admits is cut down to it: it may fail for want of memory, but it is not forgotten.
    #[must_use]
    pub fn new(budget: Budget, tasks: Vec<Task>, next: u64) -> Self {
        let entries = tasks
            .into_iter()
            .map(|mut task| {
                let cost = &mut task.duty.cost;
                cost.cores = cost.cores.min(budget.cores);
                cost.memory_bytes = cost.memory_bytes.min(budget.memory_bytes);
                (task.id, Entry { task, state: State::Queued })
            })
            .collect();
        Self { budget, entries, next }
    }

    /// The task that a duty would become. It is in the queue only after `insert`.
    ///
    /// # Errors
    /// `Full`, `OverBudget`, `Late`.
    pub fn admit(&mut self, duty: Duty, now: UnixMillis) -> Result<Task, SubmitError> {
        if self.entries.len() >= TASKS_MAX {
            return Err(SubmitError::Full);
        }
        let cost = duty.cost;
        if cost.cores > self.budget.cores || cost.memory_bytes > self.budget.memory_bytes {
            return Err(SubmitError::OverBudget { needed: cost, budget: self.budget });
        }
        if duty.class.is_proof() && duty.deadline <= now {
            return Err(SubmitError::Late);
        }
        let id = TaskId(self.next);
        self.next += 1;
        Ok(Task { id, duty, attempts: 0, not_before: 0 })
    }

    pub fn insert(&mut self, task: Task) {
        self.entries.insert(task.id, Entry { task, state: State::Queued });
    }

    #[must_use]
    pub fn task(&self, id: TaskId) -> Option<&Task> {
        self.entries.get(&id).map(|entry| &entry.task)
    }

    /// Takes a task out, wherever it stands.
    pub fn remove(&mut self, id: TaskId) -> Option<Task> {
        self.entries.remove(&id).map(|entry| entry.task)
    }

    /// All tasks that use budget now.
    pub fn running(&self) -> impl Iterator<Item = TaskId> {
        self.entries.values().filter(|entry| entry.state.since().is_some()).map(|entry| entry.task.id)
    }

    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// What is free of the budget.
    fn free(&self) -> Budget {
        let mut free = self.budget;
        for entry in self.entries.values().filter(|entry| entry.state.since().is_some()) {
            take(&mut free, &entry.task.duty.cost);
        }
        free
    }

    /// What must happen now; the states are changed as if it had. No task overtakes one before it in the order:
    /// what waits for room keeps it.
    pub fn decide(&mut self, now: UnixMillis) -> Vec<Action> {
        let mut actions = Vec::new();
        let missed: Vec<TaskId> = self
            .entries
            .values()
            .filter(|entry| entry.task.duty.class.is_proof() && entry.task.duty.deadline <= now)
            .filter(|entry| !matches!(entry.state, State::Stopping { .. } | State::Missed))
            .map(|entry| entry.task.id)
            .collect();
        for id in missed {
            actions.push(Action::Miss(id));
            if let Some(entry) = self.entries.get_mut(&id) {
                // Whether it runs or not, it is not started any more; it uses its budget until it has ended.
                entry.state = match entry.state.since() {
                    Some(since) => State::Stopping { since },
                    None => State::Missed,
                };
            }
        }
        let mut free = self.free();
        let mut queued: Vec<&Entry> = self
            .entries
            .values()
            .filter(|entry| entry.state == State::Queued && entry.task.not_before <= now)
            .collect();
        queued.sort_unstable_by_key(|entry| entry.order());
        let (mut starts, mut stops) = (Vec::new(), Vec::new());
        for entry in queued {
            let cost = &entry.task.duty.cost;
            if fits(&free, cost) {
                take(&mut free, cost);
                starts.push(entry.task.id);
                continue;
            }
            if entry.task.duty.class.is_proof() {
                stops = self.victims(free, cost);
            }
            break;
        }
        for id in starts {
            if let Some(entry) = self.entries.get_mut(&id) {
                entry.state = State::Running { since: now };
                actions.push(Action::Start(id));
            }
        }
        for id in stops {
            if let Some(entry) = self.entries.get_mut(&id) {
                entry.state = State::Stopping { since: entry.state.since().unwrap_or(now) };
                actions.push(Action::Stop(id));
            }
        }
        actions
    }

    /// Which running tasks other than proofs must end for a proof to fit: the least urgent first. None if what is
    /// ending already is enough, or if all of them were not.
    fn victims(&self, mut free: Budget, cost: &Cost) -> Vec<TaskId> {
        let mut stops = Vec::new();
        for entry in self.entries.values().filter(|entry| matches!(entry.state, State::Stopping { .. })) {
            give(&mut free, &entry.task.duty.cost);
        }
        let mut running: Vec<&Entry> = self
            .entries
            .values()
            .filter(|entry| matches!(entry.state, State::Running { .. }))
            .filter(|entry| !entry.task.duty.class.is_proof())
            .collect();
        running.sort_unstable_by_key(|entry| std::cmp::Reverse(entry.order()));
        for entry in running {
            if fits(&free, cost) {
                break;
            }
            give(&mut free, &entry.task.duty.cost);
            stops.push(entry.task.id);
        }
        if fits(&free, cost) { stops } else { Vec::new() }
    }

    /// Enters the end of a run, and says what becomes of the task. None for a task that is no longer here.
    pub fn ended(&mut self, id: TaskId, ending: Ending, now: UnixMillis) -> Option<Verdict> {
        let budget = self.budget;
        let entry = self.entries.get_mut(&id)?;
        let verdict = match ending {
            Ending::Done(output) => Verdict::Done(output),
            Ending::Failed { permanent: true, reason } => Verdict::Failed { reason },
            Ending::Stopped => {
                entry.state = State::Queued;
                return Some(Verdict::Again { reason: "stopped".to_owned() });
            }
            Ending::Failed { permanent: false, reason } => Verdict::Again { reason },
            Ending::OutOfMemory => {
                let had = entry.task.duty.cost.memory_bytes;
                entry.task.duty.cost.memory_bytes = had.saturating_mul(2).min(budget.memory_bytes);
                let reason = format!("ran out of {had} bytes of memory");
                if had >= budget.memory_bytes {
                    Verdict::Failed { reason }
                } else {
                    Verdict::Again { reason }
                }
            }
        };
        let Verdict::Again { reason } = verdict else {
            self.entries.remove(&id);
            return Some(verdict);
        };
        entry.task.attempts += 1;
        if entry.task.attempts >= ATTEMPTS_MAX {
            self.entries.remove(&id);
            return Some(Verdict::Failed { reason: format!("{reason} (tried {ATTEMPTS_MAX} times)") });
        }
        let pause =
            BACKOFF_MILLIS.saturating_mul(1 << entry.task.attempts.saturating_sub(1)).min(BACKOFF_MILLIS_MAX);
        // Never so long that waiting itself misses the deadline.
        let duty = &entry.task.duty;
        let latest = duty.deadline.saturating_sub(duty.cost.wall_millis()).max(now);
        entry.task.not_before = now.saturating_add(pause).min(latest);
        entry.state = State::Queued;
        Some(Verdict::Again { reason })
    }
}

pub(super) fn fits(free: &Budget, cost: &Cost) -> bool {
    cost.cores <= free.cores && cost.memory_bytes <= free.memory_bytes
}

pub(super) fn take(free: &mut Budget, cost: &Cost) {
    free.cores = free.cores.saturating_sub(cost.cores);
    free.memory_bytes = free.memory_bytes.saturating_sub(cost.memory_bytes);
}

pub(super) fn give(free: &mut Budget, cost: &Cost) {
    free.cores = free.cores.saturating_add(cost.cores);
    free.memory_bytes = free.memory_bytes.saturating_add(cost.memory_bytes);
}

/// A queue of any tasks, at times before and after all of them: nothing overflows, and no more runs than the budget has.
pub(super) fn play_any(tasks: Vec<Task>, next: u64) {
    let budget = Budget { memory_bytes: 4 << 30, cores: 2 };
    for now in [0, 1_800_000_000_000, UnixMillis::MAX] {
        let mut core = Core::new(budget, tasks.clone(), next);
        core.decide(now);
        let status = super::EngineStatus::of(&core, &BTreeMap::new(), now);
        assert!(status.used.cores <= budget.cores && status.used.memory_bytes <= budget.memory_bytes);
        let _ = (status.to_string(), core.forecast(now));
        let policy = super::PressurePolicy {
            seal: Cost { cpu_millis: 500, memory_bytes: 1 << 30, cores: 1 },
            seal_millis_max: 1_000,
            horizon_millis: u64::MAX,
            proof_percent_max: 50,
        };
        let _ = core.pressure(&policy, now);
        for id in core.running().collect::<Vec<_>>() {
            core.ended(id, Ending::Failed { permanent: false, reason: String::new() }, now);
            core.ended(id, Ending::OutOfMemory, now);
        }
    }
}
