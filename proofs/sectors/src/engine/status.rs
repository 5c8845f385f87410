//! The engine in figures and words: what the keeper's status, and with it `holdfast status` and the metrics, is made of.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::core::{Core, State};
use super::{Budget, Class, TaskId, UnixMillis, Work};
use crate::work::{Job, Message};

/// One task.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TaskStatus {
    pub id: TaskId,
    pub class: Class,
    /// What is done, and its strength where it has one.
    pub what: String,
    pub state: String,
    pub deadline: UnixMillis,
    pub expected_finish: Option<UnixMillis>,
    pub at_risk: bool,
    pub attempts: u32,
}

/// The queue and its budget.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EngineStatus {
    pub now: UnixMillis,
    pub budget: Budget,
    pub used: Budget,
    /// In the order of the queue.
    pub tasks: Vec<TaskStatus>,
}

impl EngineStatus {
    pub(super) fn of(core: &Core, said: &BTreeMap<TaskId, Message>, now: UnixMillis) -> Self {
        let forecast = core.forecast(now);
        let mut used = Budget { memory_bytes: 0, cores: 0 };
        let mut entries: Vec<_> = core.entries.values().collect();
        entries.sort_unstable_by_key(|entry| entry.order());
        let tasks = entries
            .into_iter()
            .map(|entry| {
                let task = &entry.task;
                if entry.state.since().is_some() {
                    used.cores += task.duty.cost.cores;
                    used.memory_bytes += task.duty.cost.memory_bytes;
                }
                TaskStatus {
                    id: task.id,
                    class: task.duty.class,
                    what: what(&task.duty.work),
                    state: state(entry.state, said.get(&task.id), task.not_before > now),
                    deadline: task.duty.deadline,
                    expected_finish: forecast.finish(task.id),
                    at_risk: forecast.at_risk().contains(&task.id),
                    attempts: task.attempts,
                }
            })
            .collect();
        Self { now, budget: core.budget, used, tasks }
    }
}

fn what(work: &Work) -> String {
    match work {
        Work::Worker(Job::Parameters { profile, circuit }) => format!("parameters for {circuit}, {profile}"),
        Work::Worker(Job::Fill { sector, pieces, .. }) => {
            format!("fill {} with {} piece(s)", sector.display(), pieces.len())
        }
        Work::Worker(Job::Seal { sector, through, .. }) => {
            format!("seal {} through {}", sector.display(), through.name())
        }
        Work::Worker(Job::WindowPost { statement, sectors, .. }) => {
            format!("window PoSt of {} sector(s), {}", sectors.len(), statement.profile)
        }
        Work::Worker(Job::WinningPost { statement, .. }) => format!("winning PoSt, {}", statement.profile),
        Work::Worker(Job::ReadPiece { piece, .. }) => format!("read {piece}"),
        Work::Worker(Job::RestoreUnsealed { sector }) => format!("unseal {}", sector.display()),
        Work::Worker(Job::DropUnsealed { sector }) => {
            format!("drop the unsealed copy of {}", sector.display())
        }
    }
}

fn state(state: State, said: Option<&Message>, paused: bool) -> String {
    match (state, said) {
        (State::Queued, _) if paused => "waiting to be tried again".to_owned(),
        (State::Queued, _) => "queued".to_owned(),
        (State::Missed, _) => "missed".to_owned(),
        (State::Stopping { .. }, _) => "stopping".to_owned(),
        (State::Running { .. }, Some(Message::Phase(phase))) => format!("running, past {}", phase.name()),
        (State::Running { .. }, Some(Message::Parameters(progress))) => {
            match (progress.points * 100).checked_div(progress.points_total) {
                Some(percent) => format!("running, {percent} % of the points"),
                None => format!("running, {:.0} CPU s", progress.cpu_seconds),
            }
        }
        (State::Running { .. }, _) => "running".to_owned(),
    }
}

impl fmt::Display for EngineStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "proving: {} task(s), {} of {} cores, {} of {} MiB",
            self.tasks.len(),
            self.used.cores,
            self.budget.cores,
            self.used.memory_bytes >> 20,
            self.budget.memory_bytes >> 20
        )?;
        for task in &self.tasks {
            let seconds = |at: UnixMillis| (at / 1_000).cast_signed() - (self.now / 1_000).cast_signed();
            write!(
                f,
                "  {:>6}  {}: {}, due in {} s",
                task.id.0,
                task.what,
                task.state,
                seconds(task.deadline)
            )?;
            if let Some(expected) = task.expected_finish {
                write!(f, ", expected in {} s", seconds(expected))?;
            }
            writeln!(f, "{}", if task.at_risk { ", AT RISK" } else { "" })?;
        }
        Ok(())
    }
}

/// What a worker says, as a status shows it: for fuzzing.
pub(crate) fn tell_any(message: Message) {
    let running = State::Running { since: 0 };
    let _ = state(running, Some(&message), false);
}
