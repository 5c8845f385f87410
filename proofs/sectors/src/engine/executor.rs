//! Who runs tasks: workers for what is heavy, threads for what is light.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, TryRecvError};

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

/// The provider's own light work: it gets the data that it put into `Work::Light`, and gives a result or a reason.
pub type LightWork = Arc<dyn Fn(&serde_json::Value) -> Result<serde_json::Value, String> + Send + Sync>;

enum Running {
    Child(Box<Child>),
    Thread(Receiver<Result<serde_json::Value, String>>),
    /// Stopped threads cannot be killed; what they find is not listened to.
    Given,
}

/// Runs `Work::Worker` in a process each and `Work::Light` in a thread each.
pub struct WorkerExecutor {
    launcher: Launcher,
    light: LightWork,
    nice: u8,
    running: HashMap<TaskId, Running>,
}

impl WorkerExecutor {
    /// `nice` is what seals and the like add to their niceness; proofs run with none.
    #[must_use]
    pub fn new(launcher: Launcher, nice: u8, light: LightWork) -> Self {
        Self { launcher, light, nice, running: HashMap::new() }
    }
}

impl Executor for WorkerExecutor {
    fn start(&mut self, task: &Task) -> Result<(), Ending> {
        let running = match &task.duty.work {
            Work::Worker(job) => {
                let limits = Limits {
                    memory_bytes: task.duty.cost.memory_bytes,
                    cores: task.duty.cost.cores,
                    nice: if task.duty.class.is_proof() { 0 } else { self.nice },
                };
                let child = self
                    .launcher
                    .start(job.clone(), limits)
                    .map_err(|error| Ending::Failed { permanent: false, reason: error.to_string() })?;
                Running::Child(Box::new(child))
            }
            Work::Light(data) => {
                let (send, receive) = mpsc::sync_channel(1);
                let (light, data) = (Arc::clone(&self.light), data.clone());
                std::thread::spawn(move || {
                    // Nobody listens to a task that was stopped.
                    let _ = send.send(light(&data));
                });
                Running::Thread(receive)
            }
        };
        self.running.insert(task.id, running);
        Ok(())
    }

    fn stop(&mut self, id: TaskId) {
        match self.running.get_mut(&id) {
            Some(Running::Child(child)) => child.stop(),
            Some(thread @ Running::Thread(_)) => *thread = Running::Given,
            Some(Running::Given) | None => {}
        }
    }

    fn poll(&mut self, id: TaskId) -> Polled {
        let failed = |permanent, reason: String| Polled::Ended(Ending::Failed { permanent, reason });
        let polled = match self.running.get_mut(&id) {
            None => failed(false, "it was never started".to_owned()),
            Some(Running::Given) => Polled::Ended(Ending::Stopped),
            Some(Running::Thread(result)) => match result.try_recv() {
                Ok(Ok(value)) => Polled::Ended(Ending::Done(Output::Light(value))),
                Ok(Err(reason)) => failed(false, reason),
                Err(TryRecvError::Empty) => Polled::Running(Vec::new()),
                Err(TryRecvError::Disconnected) => failed(false, "it broke off".to_owned()),
            },
            Some(Running::Child(child)) => {
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
