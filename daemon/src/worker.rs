//! Background work has one shape, and this file owns it.
//!
//! A [`Worker`] does one bounded step at a time and says what comes next; the [`Supervisor`] runs each worker on its
//! own task, publishes what it is doing, backs off after errors, and stops all of them gracefully.
//!
//! Promises: an error never ends a worker, it is retried for ever with a bounded wait and is visible in
//! `holdfast status` all the while; a stop lets the running step end (or notice `Context::stopping`) before its deadline.
//! Refuses: to hand work from one worker to another. Stages meet through committed rows only; [`Supervisor::poke`]
//! merely says "look again now".

use std::{
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use async_trait::async_trait;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::{sync::Notify, task::JoinHandle, time::Instant};
use tokio_util::sync::CancellationToken;

/// The first wait after an error; it doubles with each further one.
const BACKOFF_FIRST: Duration = Duration::from_millis(500);
/// The longest wait after an error: half of the 60 s within which idle data shall be Placed.
const BACKOFF_MAX: Duration = Duration::from_secs(30);
/// An error's text is kept up to this length, since a peer may have written part of it.
const ERROR_CHARS_MAX: usize = 400;

/// What a worker wants after a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// More is to be done now.
    Again,
    /// Nothing to do until `Worker::wait` returns or somebody pokes.
    Idle,
    /// Nothing to do before this much time has passed (a poke ends it early).
    After(Duration),
}

/// How far a worker is with what it does at the moment.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    pub done: u64,
    pub total: u64,
    /// `bytes`, `pieces`, `files`: what `done` and `total` count.
    pub unit: String,
}

/// What a worker says about itself.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Detail {
    /// In plain words: "placing piece 3f.. with 12D3.."; empty when idle.
    pub doing: String,
    /// Units of work known to wait.
    pub queue: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub progress: Option<Progress>,
}

/// One kind of background work.
#[async_trait]
pub trait Worker: Send + 'static {
    /// A fixed lower-case word: `seal`, `place`, `audit`, `repair`, ...
    fn name(&self) -> &'static str;
    /// Read after each step, and published; cheap.
    fn status(&self) -> Detail;
    /// One bounded step. Whatever it achieved must be committed when it returns: it may be the last one.
    async fn work(&mut self, context: &Context) -> anyhow::Result<Next>;
    /// Returns when there may be work again, after `Next::Idle`. It is dropped at any await when a poke or a stop comes.
    async fn wait(&mut self);
}

/// What a step is given.
#[derive(Clone)]
pub struct Context {
    stop: CancellationToken,
    slot: Arc<Slot>,
}

impl Context {
    /// A context that is not supervised, for tests and one-time runs of a worker's step.
    pub fn detached(name: &'static str) -> Context {
        Context { stop: CancellationToken::new(), slot: Arc::new(Slot::new(name)) }
    }

    /// Ends when the daemon is to stop; long steps select on it.
    pub fn stopping(&self) -> &CancellationToken {
        &self.stop
    }

    /// Shows progress within a long step.
    pub fn report(&self, detail: Detail) {
        self.slot.report.lock().detail = detail;
    }
}

/// Where a worker stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    Working,
    Idle,
    /// Waits for a time of its own choosing.
    Waiting,
    /// The last step failed; it will be tried again.
    Retrying,
    Stopped,
    /// A programmer's invariant broke; the worker does not run any more and the daemon should be restarted.
    Crashed,
}

/// A failed step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastError {
    pub message: String,
    /// Unix seconds.
    pub at: u64,
}

/// A worker as `holdfast status` shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkerReport {
    pub name: String,
    pub state: State,
    #[serde(flatten)]
    pub detail: Detail,
    /// Steps done without an error since the start.
    pub steps: u64,
    /// Errors since the last step that went well.
    pub errors_in_a_row: u64,
    /// Kept after recovery: `errors_in_a_row` tells whether it still holds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_error: Option<LastError>,
}

struct Slot {
    report: Mutex<WorkerReport>,
    poke: Notify,
}

impl Slot {
    fn new(name: &'static str) -> Slot {
        Slot {
            report: Mutex::new(WorkerReport {
                name: name.to_owned(),
                state: State::Idle,
                detail: Detail::default(),
                steps: 0,
                errors_in_a_row: 0,
                last_error: None,
            }),
            poke: Notify::new(),
        }
    }

    fn set_state(&self, state: State) {
        self.report.lock().state = state;
    }
}

/// Runs workers. Dropping it without [`Supervisor::stop`] aborts them, which is safe (a crash is) but ungraceful.
#[derive(Default)]
pub struct Supervisor {
    stop: CancellationToken,
    workers: Mutex<Vec<(Arc<Slot>, JoinHandle<()>)>>,
}

impl Supervisor {
    pub fn new() -> Supervisor {
        Supervisor::default()
    }

    /// Starts a worker on the current runtime.
    pub fn spawn(&self, worker: impl Worker) {
        let slot = Arc::new(Slot::new(worker.name()));
        let context = Context { stop: self.stop.clone(), slot: slot.clone() };
        let task = tokio::spawn(run(worker, context));
        self.workers.lock().push((slot, task));
    }

    /// All workers, in the order in which they were started.
    pub fn reports(&self) -> Vec<WorkerReport> {
        let workers = self.workers.lock();
        workers
            .iter()
            .map(|(slot, task)| {
                let mut report = slot.report.lock().clone();
                if task.is_finished() && report.state != State::Stopped {
                    report.state = State::Crashed;
                }
                report
            })
            .collect()
    }

    /// Every worker looks for work now, whatever it waits for.
    pub fn poke_all(&self) {
        for (slot, _) in self.workers.lock().iter() {
            slot.poke.notify_one();
        }
    }

    /// The worker of that name looks for work now.
    pub fn poke(&self, name: &str) {
        for (slot, _) in self.workers.lock().iter() {
            if slot.report.lock().name == name {
                slot.poke.notify_one();
            }
        }
    }

    /// Asks all to stop, waits until they have or the time is over, then aborts what is left.
    /// Returns the names of those that had to be aborted.
    pub async fn stop(&self, patience: Duration) -> Vec<String> {
        self.stop.cancel();
        let deadline = Instant::now() + patience;
        let workers: Vec<_> = self.workers.lock().drain(..).collect();
        let mut late = Vec::new();
        for (slot, mut task) in workers {
            if tokio::time::timeout_at(deadline, &mut task).await.is_err() {
                task.abort();
                late.push(slot.report.lock().name.clone());
            }
        }
        late
    }
}

impl Drop for Supervisor {
    fn drop(&mut self) {
        self.stop.cancel();
        for (_, task) in self.workers.lock().iter() {
            task.abort();
        }
    }
}

async fn run(mut worker: impl Worker, context: Context) {
    let (stop, slot) = (context.stop.clone(), context.slot.clone());
    let mut backoff = BACKOFF_FIRST;
    while !stop.is_cancelled() {
        slot.set_state(State::Working);
        let outcome = worker.work(&context).await;
        slot.report.lock().detail = worker.status();
        match outcome {
            Ok(next) => {
                backoff = BACKOFF_FIRST;
                {
                    let mut report = slot.report.lock();
                    report.steps += 1;
                    report.errors_in_a_row = 0;
                }
                match next {
                    // A worker that never waits still lets others of its thread run.
                    Next::Again => tokio::task::yield_now().await,
                    Next::Idle => pause(&slot, &stop, State::Idle, worker.wait()).await,
                    Next::After(time) => pause(&slot, &stop, State::Waiting, tokio::time::sleep(time)).await,
                }
            }
            Err(error) => {
                note_error(&slot, &error);
                pause(&slot, &stop, State::Retrying, tokio::time::sleep(backoff)).await;
                backoff = (backoff * 2).min(BACKOFF_MAX);
            }
        }
    }
    slot.set_state(State::Stopped);
}

async fn pause(slot: &Slot, stop: &CancellationToken, state: State, until: impl Future<Output = ()>) {
    slot.set_state(state);
    tokio::select! {
        () = until => {}
        () = slot.poke.notified() => {}
        () = stop.cancelled() => {}
    }
}

fn note_error(slot: &Slot, error: &anyhow::Error) {
    let message: String =
        format!("{error:#}").chars().filter(|c| !c.is_control()).take(ERROR_CHARS_MAX).collect();
    let mut report = slot.report.lock();
    report.errors_in_a_row += 1;
    tracing::warn!(worker = %report.name, errors_in_a_row = report.errors_in_a_row, "{message}");
    report.last_error = Some(LastError { message, at: unix_now() });
}

/// Unix seconds by the system's clock.
pub fn unix_now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::sync::atomic::{AtomicU64, Ordering};

    struct Script {
        steps: Arc<AtomicU64>,
        fail_first: u64,
    }

    #[async_trait]
    impl Worker for Script {
        fn name(&self) -> &'static str {
            "script"
        }
        fn status(&self) -> Detail {
            Detail { doing: String::new(), queue: 7, progress: None }
        }
        async fn work(&mut self, _: &Context) -> anyhow::Result<Next> {
            let step = self.steps.fetch_add(1, Ordering::SeqCst);
            if step < self.fail_first {
                anyhow::bail!("step {step} failed\n");
            }
            Ok(if step < 5 { Next::Again } else { Next::Idle })
        }
        async fn wait(&mut self) {
            std::future::pending().await
        }
    }

    async fn until(what: impl Fn() -> bool) {
        for _ in 0..2000 {
            if what() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        panic!("did not happen");
    }

    #[tokio::test]
    async fn errors_are_retried_and_shown_and_a_stop_is_graceful() {
        let steps = Arc::new(AtomicU64::new(0));
        let supervisor = Supervisor::new();
        supervisor.spawn(Script { steps: steps.clone(), fail_first: 1 });
        until(|| supervisor.reports()[0].errors_in_a_row == 1).await;
        let report = supervisor.reports().remove(0);
        assert_eq!(report.state, State::Retrying);
        assert_eq!(report.last_error.unwrap().message, "step 0 failed");
        supervisor.poke("script");
        until(|| supervisor.reports()[0].state == State::Idle).await;
        let report = supervisor.reports().remove(0);
        assert_eq!((report.errors_in_a_row, report.detail.queue, report.steps), (0, 7, 5));
        let before = steps.load(Ordering::SeqCst);
        supervisor.poke_all();
        until(|| steps.load(Ordering::SeqCst) == before + 1).await;
        assert!(supervisor.stop(Duration::from_secs(5)).await.is_empty());
    }

    struct Panics;
    #[async_trait]
    impl Worker for Panics {
        fn name(&self) -> &'static str {
            "panics"
        }
        fn status(&self) -> Detail {
            Detail::default()
        }
        async fn work(&mut self, _: &Context) -> anyhow::Result<Next> {
            panic!("broken invariant")
        }
        async fn wait(&mut self) {}
    }

    #[tokio::test]
    async fn a_crashed_worker_is_visible() {
        let supervisor = Supervisor::new();
        supervisor.spawn(Panics);
        until(|| supervisor.reports()[0].state == State::Crashed).await;
    }
}
