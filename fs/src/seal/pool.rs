//! The threads that do a seal's arithmetic: tag, compress, encrypt, hash.
//!
//! Owns: a few threads at idle priority, one spare at normal priority, and the order of their results. Promises: results are
//! handed out in the order in which the work was given; at most [`Pool::IN_FLIGHT_MAX`] chunks are in memory at once; the
//! threads hold no lock while they compute, so that their low priority delays nobody. The spare joins in when somebody waits
//! ([`Haste`]) or the seal takes longer than [`PATIENCE`]: on a machine that is never idle, idle priority would never end, and
//! data is promised to be Placed within a minute. Refuses: to outlive the seal (they are scoped).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::Scope;
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};

/// So long a seal is left to the idle time of the machine.
const PATIENCE: Duration = Duration::from_secs(5);
/// How often the spare looks whether somebody waits.
const LOOK: Duration = Duration::from_millis(50);

/// Set while somebody waits for a seal.
#[derive(Clone, Default)]
pub(crate) struct Haste(Arc<AtomicBool>);

impl Haste {
    pub(crate) fn set(&self, on: bool) {
        self.0.store(on, Ordering::Relaxed);
    }

    fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// Hands jobs to threads and gives results back in order.
pub(crate) struct Pool<J, R> {
    jobs: Sender<(u64, J)>,
    results: Receiver<(u64, R)>,
    early: BTreeMap<u64, R>,
    next_in: u64,
    next_out: u64,
    /// Its end ends the spare's waiting.
    _open: Sender<()>,
}

impl<J: Send, R: Send> Pool<J, R> {
    /// Chunks in memory at once: enough to keep two threads busy while one block is written, 8 MiB at the largest chunk size.
    pub(crate) const IN_FLIGHT_MAX: u64 = 8;

    /// Starts `threads` threads within `scope`; they end when the pool is dropped.
    pub(crate) fn start<'scope, 'env, F>(
        scope: &'scope Scope<'scope, 'env>,
        threads: usize,
        haste: Haste,
        work: F,
    ) -> std::io::Result<Self>
    where
        F: Fn(J) -> R + Send + Clone + 'scope,
        J: 'scope,
        R: 'scope,
    {
        // Both channels can hold all that is in flight, so that no thread ever waits to hand over.
        let room = Self::IN_FLIGHT_MAX as usize;
        let (jobs, job_queue) = bounded::<(u64, J)>(room);
        let (result_queue, results) = bounded::<(u64, R)>(room);
        for i in 0..threads.max(1) {
            let (job_queue, result_queue, work) = (job_queue.clone(), result_queue.clone(), work.clone());
            std::thread::Builder::new().name(format!("seal-{i}")).spawn_scoped(scope, move || {
                idle_priority();
                while let Ok((ticket, job)) = job_queue.recv() {
                    if result_queue.send((ticket, work(job))).is_err() {
                        break;
                    }
                }
            })?;
        }
        let (open, closed) = bounded::<()>(1);
        std::thread::Builder::new().name("seal-spare".to_owned()).spawn_scoped(scope, move || {
            let mut waited = Duration::ZERO;
            while waited < PATIENCE && !haste.is_set() {
                match closed.recv_timeout(LOOK) {
                    Err(RecvTimeoutError::Timeout) => waited += LOOK,
                    _ => return,
                }
            }
            while let Ok((ticket, job)) = job_queue.recv() {
                if result_queue.send((ticket, work(job))).is_err() {
                    break;
                }
            }
        })?;
        Ok(Self { jobs, results, early: BTreeMap::new(), next_in: 0, next_out: 0, _open: open })
    }

    /// Is there room for one more job?
    pub(crate) fn has_room(&self) -> bool {
        self.next_in - self.next_out < Self::IN_FLIGHT_MAX
    }

    /// Gives a job. The caller takes results first while [`has_room`](Self::has_room) is false.
    pub(crate) fn give(&mut self, job: J) {
        debug_assert!(self.has_room());
        // Fails only when every thread is gone; `take` then says so.
        let _ = self.jobs.send((self.next_in, job));
        self.next_in += 1;
    }

    /// The oldest job's result, waiting for it; `None` when nothing is in flight (or the threads died).
    pub(crate) fn take(&mut self) -> Option<R> {
        if self.next_out == self.next_in {
            return None;
        }
        loop {
            if let Some(result) = self.early.remove(&self.next_out) {
                self.next_out += 1;
                return Some(result);
            }
            let (ticket, result) = self.results.recv().ok()?;
            self.early.insert(ticket, result);
        }
    }

    /// Is a job in flight?
    pub(crate) fn is_busy(&self) -> bool {
        self.next_out != self.next_in
    }
}

/// Gives this thread only what nobody else wants. Failing to is no error: it is slower for others, not wrong.
fn idle_priority() {
    let param = libc::sched_param { sched_priority: 0 };
    // SAFETY: pid 0 is the calling thread; `param` lives through the call.
    unsafe {
        libc::sched_setscheduler(0, libc::SCHED_IDLE, &raw const param);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn in_haste_a_thread_of_normal_priority_joins_in() {
        let haste = Haste::default();
        haste.set(true);
        let policies = std::thread::scope(|scope| {
            let mut pool = Pool::start(scope, 1, haste, |(): ()| {
                std::thread::sleep(Duration::from_millis(5));
                // SAFETY: asks the kernel about the calling thread.
                unsafe { libc::sched_getscheduler(0) }
            })
            .unwrap();
            let mut policies = Vec::new();
            for _ in 0..50 {
                while !pool.has_room() {
                    policies.push(pool.take().unwrap());
                }
                pool.give(());
            }
            policies
        });
        assert!(policies.iter().any(|policy| *policy != libc::SCHED_IDLE), "{policies:?}");
    }

    #[test]
    fn results_come_in_order() {
        std::thread::scope(|scope| {
            let mut pool = Pool::start(scope, 3, Haste::default(), |n: u64| {
                std::thread::sleep(std::time::Duration::from_micros(997 * (n % 5)));
                n * n
            })
            .unwrap();
            let mut got = Vec::new();
            for n in 0..100 {
                while !pool.has_room() {
                    got.push(pool.take().unwrap());
                }
                pool.give(n);
            }
            while pool.is_busy() {
                got.push(pool.take().unwrap());
            }
            assert_eq!(got, (0..100).map(|n| n * n).collect::<Vec<_>>());
            assert_eq!(pool.take(), None);
        });
    }
}
