//! A few threads for requests that may wait.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, bounded};
use holdfast_store::Clock;

use crate::vfs::FsError;

/// A job; told whether it waited so long that it should only say so.
type Job = Box<dyn FnOnce(Late) + Send>;

/// Whether a job began too late to do its work before its answer is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Late(pub(super) bool);

impl Late {
    /// Refuses to begin what could not be answered in time any more.
    pub(super) fn in_time(self) -> Result<(), FsError> {
        if self.0 { Err(FsError::TimedOut) } else { Ok(()) }
    }
}

/// An idle thread goes after this time.
const IDLE: Duration = Duration::from_secs(30);
/// Jobs that wait for a thread; who comes after them waits with the request in hand, which slows the kernel down.
const QUEUE_JOBS_MAX: usize = 1024;

/// Threads are started as jobs need them, up to a bound, and end when idle.
pub(super) struct Pool {
    name: &'static str,
    threads_max: usize,
    threads: Arc<AtomicUsize>,
    idle: Arc<AtomicUsize>,
    send: Sender<(Duration, Job)>,
    receive: Receiver<(Duration, Job)>,
    /// A job that waited longer is late.
    patience: Duration,
    clock: Arc<dyn Clock>,
}

impl Pool {
    pub(super) fn new(
        name: &'static str,
        threads_max: usize,
        patience: Duration,
        clock: Arc<dyn Clock>,
    ) -> Self {
        let (send, receive) = bounded(QUEUE_JOBS_MAX);
        let count = || Arc::new(AtomicUsize::new(0));
        Self { name, threads_max, threads: count(), idle: count(), send, receive, patience, clock }
    }

    pub(super) fn run(&self, job: impl FnOnce(Late) + Send + 'static) {
        if self.idle.load(Ordering::Acquire) <= self.send.len() {
            self.grow();
        }
        // The pool holds a receiver, so the channel is never closed.
        if let Err(refused) = self.send.send((self.clock.now(), Box::new(job))) {
            (refused.0.1)(Late(false));
        }
    }

    fn grow(&self) {
        if self.threads.fetch_add(1, Ordering::AcqRel) >= self.threads_max {
            self.threads.fetch_sub(1, Ordering::AcqRel);
            return;
        }
        let (threads, idle) = (self.threads.clone(), self.idle.clone());
        let (receive, patience, clock) = (self.receive.clone(), self.patience, self.clock.clone());
        let late = move |since: Duration| Late(clock.now().saturating_sub(since) > patience);
        let spawned = std::thread::Builder::new().name(self.name.to_owned()).spawn(move || {
            loop {
                idle.fetch_add(1, Ordering::AcqRel);
                let next = receive.recv_timeout(IDLE);
                idle.fetch_sub(1, Ordering::AcqRel);
                match next {
                    Ok((since, job)) => job(late(since)),
                    Err(_) => break,
                }
            }
            threads.fetch_sub(1, Ordering::AcqRel);
            // A job that was sent while this thread made up its mind must not wait for the next one.
            while let Ok((since, job)) = receive.try_recv() {
                job(late(since));
            }
        });
        if let Err(error) = spawned {
            self.threads.fetch_sub(1, Ordering::AcqRel);
            tracing::warn!(%error, "no thread for a request that may wait");
        }
    }
}
