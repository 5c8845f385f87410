//! Who runs tasks: a worker for each.

use std::collections::HashMap;

use super::{Ending, Output, Task, TaskId, Work};
use crate::work::{Child, ChildEnd, Launcher, Limits, Message};

/// What a running task says of itself.
#[derive(Debug, Clone, PartialEq)]
pub enum Polled {
    /// Still at it; what it said since the last look.
    Running(Vec<Message>),
    Ended(Ending),
}

/// Something that can run tasks, several at a time.
pub trait Executor {
    /// Begins a task.
    ///
    /// # Errors
    /// How the run ended before it began.
    fn start(&mut self, task: &Task) -> Result<(), Ending>;

    /// Asks a task to stop; its end is polled like any other.
    fn stop(&mut self, id: TaskId);

    /// Looks at a task that was started and whose end was not polled yet.
    fn poll(&mut self, id: TaskId) -> Polled;
}

/// Runs each task in a process of its own.
pub struct WorkerExecutor {
    launcher: Launcher,
    nice: u8,
    running: HashMap<TaskId, Child>,
}

impl WorkerExecutor {
    /// `nice` is what seals and the like add to their niceness; proofs run with none.
    #[must_use]
    pub fn new(launcher: Launcher, nice: u8) -> Self {
        Self { launcher, nice, running: HashMap::new() }
    }
}

impl Executor for WorkerExecutor {
    fn start(&mut self, task: &Task) -> Result<(), Ending> {
        let Work::Worker(job) = &task.duty.work;
        let limits = Limits {
            memory_bytes: task.duty.cost.memory_bytes,
            cores: task.duty.cost.cores,
            nice: if task.duty.class.is_proof() { 0 } else { self.nice },
        };
        let child = self
            .launcher
            .start(job.clone(), limits)
            .map_err(|error| Ending::Failed { permanent: false, reason: error.to_string() })?;
        self.running.insert(task.id, child);
        Ok(())
    }

    fn stop(&mut self, id: TaskId) {
        if let Some(child) = self.running.get_mut(&id) {
            child.stop();
        }
    }

    fn poll(&mut self, id: TaskId) -> Polled {
        let failed = |permanent, reason: String| Polled::Ended(Ending::Failed { permanent, reason });
        let polled = match self.running.get_mut(&id) {
            None => failed(false, "it was never started".to_owned()),
            Some(child) => {
                let heard = child.progress();
                match child.try_end() {
                    Ok(None) => Polled::Running(heard),
                    Ok(Some(end)) => Polled::Ended(ending(end)),
                    Err(error) => failed(false, error.to_string()),
                }
            }
        };
        if matches!(polled, Polled::Ended(_)) {
            self.running.remove(&id);
        }
        polled
    }
}

fn ending(end: ChildEnd) -> Ending {
    match end {
        ChildEnd::Done(result) => Ending::Done(Output::Worker(result)),
        ChildEnd::Failed { permanent, reason } => Ending::Failed { permanent, reason },
        ChildEnd::OutOfMemory => Ending::OutOfMemory,
        ChildEnd::Stopped => Ending::Stopped,
        ChildEnd::Crashed { reason } => Ending::Failed { permanent: false, reason },
    }
}
