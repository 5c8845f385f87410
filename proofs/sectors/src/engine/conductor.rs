//! Core, journal and executor joined: what the provider's worker calls every few hundred milliseconds.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use thiserror::Error;

use super::core::{Action, Core, SubmitError, Verdict};
use super::executor::{Executor, Polled};
use super::journal::{Journal, JournalError, Record};
use super::{
    Budget, Clock, Duty, Ending, EngineStatus, Forecast, Output, Pressure, PressurePolicy, Task, TaskId,
    UnixMillis,
};
use crate::work::Message;

/// Why the engine cannot go on, or does not take a task.
#[derive(Debug, Error)]
pub enum EngineError {
    #[error(transparent)]
    Journal(#[from] JournalError),
    #[error(transparent)]
    Submit(#[from] SubmitError),
    #[error("there is no task {}", .0.0)]
    Unknown(TaskId),
}

/// What happened, for whoever acts on results and tells people.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    Started(TaskId),
    Progress(TaskId, Message),
    Done(Task, Output),
    /// It will be tried again.
    Retried {
        id: TaskId,
        reason: String,
    },
    /// Given up for good.
    Failed {
        task: Task,
        reason: String,
    },
    /// A proof's deadline passed before it was there.
    Missed(Task),
    /// Told once for each task, while there is still time.
    AtRisk {
        id: TaskId,
        deadline: UnixMillis,
        expected: UnixMillis,
    },
}

/// The engine.
pub struct Conductor<E, C> {
    pub(super) core: Core,
    journal: Journal,
    executor: E,
    clock: C,
    /// Tasks whose risk was told.
    warned: BTreeSet<TaskId>,
    /// The last thing that each running task said.
    said: BTreeMap<TaskId, Message>,
    /// Running tasks that were cancelled or missed: their end is awaited and means nothing.
    dropped: BTreeSet<TaskId>,
    next: u64,
}

impl<E: Executor, C: Clock> Conductor<E, C> {
    /// Takes up the queue of an earlier run.
    ///
    /// # Errors
    /// `Journal`.
    pub fn open(journal: &Path, budget: Budget, executor: E, clock: C) -> Result<Self, EngineError> {
        let (journal, replay) = Journal::open(journal)?;
        Ok(Self {
            core: Core::new(budget, replay.tasks, replay.next),
            journal,
            executor,
            clock,
            warned: BTreeSet::new(),
            said: BTreeMap::new(),
            dropped: BTreeSet::new(),
            next: replay.next,
        })
    }

    /// Takes a duty. When this returns, a crash does not forget it.
    ///
    /// # Errors
    /// `Submit`, `Journal`.
    pub fn submit(&mut self, duty: Duty) -> Result<TaskId, EngineError> {
        let task = self.core.admit(duty, self.clock.now())?;
        self.journal.append(&[Record::Task(task.clone())])?;
        self.next = task.id.0 + 1;
        let id = task.id;
        self.core.insert(task);
        Ok(id)
    }

    /// Forgets a task, and stops it if it runs.
    ///
    /// # Errors
    /// `Unknown`, `Journal`.
    pub fn cancel(&mut self, id: TaskId) -> Result<(), EngineError> {
        if self.core.task(id).is_none() || self.dropped.contains(&id) {
            return Err(EngineError::Unknown(id));
        }
        self.journal.append(&[Record::Over(id)])?;
        self.let_go(id);
        Ok(())
    }

    /// Stops a task whose result nobody wants; its budget is free once it has ended.
    fn let_go(&mut self, id: TaskId) {
        if self.core.running().any(|running| running == id) {
            self.executor.stop(id);
            self.dropped.insert(id);
        } else {
            self.core.remove(id);
            self.forget(id);
        }
    }

    fn forget(&mut self, id: TaskId) {
        self.warned.remove(&id);
        self.said.remove(&id);
        self.dropped.remove(&id);
    }

    /// Looks at what runs, decides, starts and stops. Results are journaled before they are told, and told once
    /// unless there was a crash in between.
    ///
    /// # Errors
    /// `Journal`: nothing more is started until it can be written again.
    pub fn tick(&mut self) -> Result<Vec<Event>, EngineError> {
        let now = self.clock.now();
        let mut events = Vec::new();
        for id in self.core.running().collect::<Vec<_>>() {
            match self.executor.poll(id) {
                Polled::Running(heard) => {
                    for message in heard {
                        self.said.insert(id, message.clone());
                        events.push(Event::Progress(id, message));
                    }
                }
                Polled::Ended(ending) => self.end(id, ending, now, &mut events)?,
            }
        }
        for action in self.core.decide(now) {
            match action {
                Action::Stop(id) => self.executor.stop(id),
                Action::Start(id) => self.start(id, now, &mut events)?,
                Action::Miss(id) => self.miss(id, &mut events)?,
            }
        }
        let forecast = self.core.forecast(now);
        for id in forecast.at_risk() {
            if let (Some(expected), Some(task)) = (forecast.finish(*id), self.core.task(*id))
                && !self.dropped.contains(id)
                && self.warned.insert(*id)
            {
                events.push(Event::AtRisk { id: *id, deadline: task.duty.deadline, expected });
            }
        }
        let live = self.core.entries.values().map(|entry| &entry.task);
        let live = live.filter(|task| !self.dropped.contains(&task.id));
        self.journal.tidy(live, self.next)?;
        Ok(events)
    }

    fn start(&mut self, id: TaskId, now: UnixMillis, events: &mut Vec<Event>) -> Result<(), EngineError> {
        let Some(task) = self.core.task(id).cloned() else { return Ok(()) };
        match self.executor.start(&task) {
            Ok(()) => events.push(Event::Started(id)),
            Err(ending) => self.end(id, ending, now, events)?,
        }
        Ok(())
    }

    fn miss(&mut self, id: TaskId, events: &mut Vec<Event>) -> Result<(), EngineError> {
        self.journal.append(&[Record::Over(id)])?;
        if let Some(task) = self.core.task(id).cloned() {
            self.let_go(id);
            events.push(Event::Missed(task));
        }
        Ok(())
    }

    fn end(
        &mut self,
        id: TaskId,
        ending: Ending,
        now: UnixMillis,
        events: &mut Vec<Event>,
    ) -> Result<(), EngineError> {
        if self.dropped.contains(&id) {
            self.core.remove(id);
            self.forget(id);
            return Ok(());
        }
        let Some(task) = self.core.task(id).cloned() else { return Ok(()) };
        match self.core.ended(id, ending, now) {
            None => {}
            Some(Verdict::Done(output)) => {
                self.journal.append(&[Record::Over(id)])?;
                self.forget(id);
                events.push(Event::Done(task, output));
            }
            Some(Verdict::Failed { reason }) => {
                self.journal.append(&[Record::Over(id)])?;
                self.forget(id);
                events.push(Event::Failed { task, reason });
            }
            Some(Verdict::Again { reason }) => {
                if let Some(task) = self.core.task(id) {
                    self.journal.append(&[Record::Task(task.clone())])?;
                }
                self.said.remove(&id);
                events.push(Event::Retried { id, reason });
            }
        }
        Ok(())
    }

    /// Expected finishes, now.
    #[must_use]
    pub fn forecast(&self) -> Forecast {
        self.core.forecast(self.clock.now())
    }

    /// Whether to take deals that must be sealed.
    #[must_use]
    pub fn pressure(&self, policy: &PressurePolicy) -> Pressure {
        self.core.pressure(policy, self.clock.now())
    }

    /// What `holdfast status` and the metrics show.
    #[must_use]
    pub fn status(&self) -> EngineStatus {
        EngineStatus::of(&self.core, &self.said, self.clock.now())
    }

    /// The executor, for its owner's settings.
    pub fn executor_mut(&mut self) -> &mut E {
        &mut self.executor
    }
}
