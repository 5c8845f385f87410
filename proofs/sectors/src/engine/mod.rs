//! The duty scheduler: what must be proven or sealed, by when, within which memory and cores.
//!
//! ```text
//! submit -> journal -> Core (pure: queue, order, budget) -> Executor (workers) -> ended -> journal
//! ```
//!
//! Promises: earliest deadline first, and every proof before any seal; a proof that lacks room stops seals, which
//! go on after their last finished phase; no worker outside the budget; a task survives a crash from the moment that
//! `submit` returns until its end is in the journal, and may then be done once more, which all jobs bear. A deadline
//! at risk is told once, before it is missed. Refuses: to read a clock by itself, to hold more than `TASKS_MAX` tasks,
//! to run what can never fit. Audits do not pass here: the provider answers them itself, at once, ahead of all workers.

mod clock;
mod conductor;
mod core;
mod executor;
mod forecast;
mod journal;
mod status;

use serde::{Deserialize, Serialize};

use crate::work::{Job, JobResult};

pub use clock::{Clock, SystemClock};
pub use conductor::{Conductor, EngineError, Event};
pub use core::{Action, Core, SubmitError, TASKS_MAX, Verdict};
pub use executor::{Executor, Polled, WorkerExecutor};
pub use forecast::{Forecast, Pressure, PressurePolicy};
#[cfg(test)]
pub(crate) use journal::sample as sample_journal;
pub use journal::{JournalError, check as check_journal};
pub(crate) use journal::{replay_any, replay_any_event};
pub(crate) use status::tell_any;
pub use status::{EngineStatus, TaskStatus};

/// Milliseconds since 1970, UTC.
pub type UnixMillis = u64;

/// A task's name within an engine; never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct TaskId(pub u64);

/// What a task is for. Proofs outrank everything else.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Class {
    /// Window or Winning PoSt.
    Spacetime,
    Seal,
    /// Reading sealed pieces, making parameters: whenever there is room.
    Upkeep,
}

impl Class {
    /// Whether it is a proof, which a missed deadline makes worthless.
    #[must_use]
    pub fn is_proof(self) -> bool {
        self == Self::Spacetime
    }

    /// As statuses and metrics call it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Spacetime => "spacetime",
            Self::Seal => "seal",
            Self::Upkeep => "upkeep",
        }
    }

    /// Smaller goes first; within a rank the deadline decides.
    fn rank(self) -> u8 {
        match self {
            Self::Spacetime => 0,
            Self::Seal => 1,
            Self::Upkeep => 2,
        }
    }
}

/// What a task takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cost {
    /// Processor time, summed over cores.
    pub cpu_millis: u64,
    pub memory_bytes: u64,
    pub cores: u32,
}

impl Cost {
    /// Time by the clock, undisturbed.
    fn wall_millis(&self) -> u64 {
        self.cpu_millis.div_ceil(u64::from(self.cores.max(1)))
    }
}

/// What the provider lets proofs and seals take.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Budget {
    pub memory_bytes: u64,
    pub cores: u32,
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Work {
    /// In a process of its own.
    Worker(Job),
}

/// A duty, as it is handed in.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Duty {
    pub class: Class,
    pub deadline: UnixMillis,
    pub cost: Cost,
    pub work: Work,
}

/// A duty with its name and its history.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Task {
    pub id: TaskId,
    pub duty: Duty,
    /// Times that it was tried and failed.
    pub attempts: u32,
    /// Not to be tried again before.
    pub not_before: UnixMillis,
}

/// How one run of a task ended.
#[derive(Debug, Clone, PartialEq)]
pub enum Ending {
    Done(Output),
    Failed {
        permanent: bool,
        reason: String,
    },
    /// It needs more than it was given.
    OutOfMemory,
    /// We stopped it.
    Stopped,
}

/// What a finished task gave.
#[derive(Debug, Clone, PartialEq)]
pub enum Output {
    Worker(JobResult),
}

#[cfg(test)]
mod tests;
