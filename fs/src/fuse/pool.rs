//! A few threads for requests that may wait.

#![expect(clippy::disallowed_methods, reason = "the edge to the kernel lives in the kernel's time")]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded};

/// A job; told whether it waited so long that it should only say so.
type Job = Box<dyn FnOnce(Late) + Send>;

/// Whether a job began too late to do its work before its answer is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Late(pub(super) bool);

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
    send: Sender<(Instant, Job)>,
    receive: Receiver<(Instant, Job)>,
    /// A job that waited longer is late.
    patience: Duration,
}

impl Pool {
    pub(super) fn new(name: &'static str, threads_max: usize, patience: Duration) -> Self {
        let (send, receive) = bounded(QUEUE_JOBS_MAX);
        let count = || Arc::new(AtomicUsize::new(0));
        Self { name, threads_max, threads: count(), idle: count(), send, receive, patience }
    }

    pub(super) fn run(&self, job: impl FnOnce(Late) + Send + 'static) {
        if self.idle.load(Ordering::Acquire) <= self.send.len() {
            self.grow();
        }
        // The pool holds a receiver, so the channel is never closed.
        if let Err(refused) = self.send.send((Instant::now(), Box::new(job))) {
            (refused.0.1)(Late(false));
        }
    }

    fn grow(&self) {
        if self.threads.fetch_add(1, Ordering::AcqRel) >= self.threads_max {
            self.threads.fetch_sub(1, Ordering::AcqRel);
            return;
        }
        let (threads, idle) = (self.threads.clone(), self.idle.clone());
        let (receive, patience) = (self.receive.clone(), self.patience);
        let spawned = std::thread::Builder::new().name(self.name.to_owned()).spawn(move || {
            loop {
                idle.fetch_add(1, Ordering::AcqRel);
                let next = receive.recv_timeout(IDLE);
                idle.fetch_sub(1, Ordering::AcqRel);
                match next {
                    Ok((since, job)) => job(Late(since.elapsed() > patience)),
                    Err(_) => break,
                }
            }
            threads.fetch_sub(1, Ordering::AcqRel);
            // A job that was sent while this thread made up its mind must not wait for the next one.
            while let Ok((since, job)) = receive.try_recv() {
                job(Late(since.elapsed() > patience));
            }
        });
        if let Err(error) = spawned {
            self.threads.fetch_sub(1, Ordering::AcqRel);
            tracing::warn!(%error, "no thread for a request that may wait");
        }
    }
}
