//! A few threads for requests that may wait.
//!
//! Promises: a job runs as soon as a thread is idle or may be started; none is lost. A queue of our own, because a
//! channel's receiver yields the processor many times before it sleeps, which costs as much as a synced write's own work.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use holdfast_store::Clock;
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;
use parking_lot::{Condvar, Mutex};

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
pub(super) struct Pool(Arc<Shared>);

struct Shared {
    name: &'static str,
    threads_max: usize,
    /// A job that waited longer is late.
    patience: Duration,
    clock: Arc<dyn Clock>,
    /// Where the pool was made, before any thread was held on a CPU: a new thread would stay where the one that starts it is held.
    cpus: Option<CpuSet>,
    queue: Mutex<Queue>,
    work: Condvar,
    room: Condvar,
}

#[derive(Default)]
struct Queue {
    jobs: VecDeque<(Duration, Job)>,
    threads: usize,
    /// Threads that wait for work, those included that are being woken.
    idle: usize,
}

impl Pool {
    pub(super) fn new(
        name: &'static str,
        threads_max: usize,
        patience: Duration,
        clock: Arc<dyn Clock>,
    ) -> Self {
        Self(Arc::new(Shared {
            name,
            threads_max,
            patience,
            clock,
            cpus: sched_getaffinity(Pid::from_raw(0)).ok(),
            queue: Mutex::default(),
            work: Condvar::new(),
            room: Condvar::new(),
        }))
    }

    pub(super) fn run(&self, job: impl FnOnce(Late) + Send + 'static) {
        let shared = &self.0;
        let since = shared.clock.now();
        let mut queue = shared.queue.lock();
        while queue.jobs.len() >= QUEUE_JOBS_MAX {
            shared.room.wait(&mut queue);
        }
        queue.jobs.push_back((since, Box::new(job)));
        if queue.idle >= queue.jobs.len() {
            drop(queue);
            shared.work.notify_one();
        } else if queue.threads < shared.threads_max {
            queue.threads += 1;
            drop(queue);
            self.grow();
        }
    }

    fn grow(&self) {
        let shared = self.0.clone();
        let spawned = std::thread::Builder::new().name(shared.name.to_owned()).spawn(move || {
            if let Some(Err(error)) = shared.cpus.map(|cpus| sched_setaffinity(Pid::from_raw(0), &cpus)) {
                tracing::debug!(%error, "a thread stays where it was started");
            }
            shared.serve(Some(IDLE));
        });
        if let Err(error) = spawned {
            tracing::warn!(%error, "no thread for a request that may wait");
            let alone = {
                let queue = self.0.queue.lock();
                queue.threads == 1
            };
            // Without any thread, whoever came with the job does what there is.
            if alone {
                self.0.serve(None);
            } else {
                self.0.queue.lock().threads -= 1;
            }
        }
    }
}

impl Shared {
    /// Runs jobs, and ends when there was none for as long as `idle` (with none: at once). The caller has counted this
    /// thread.
    fn serve(&self, idle: Option<Duration>) {
        let mut queue = self.queue.lock();
        loop {
            if let Some((since, job)) = queue.jobs.pop_front() {
                if queue.jobs.len() + 1 == QUEUE_JOBS_MAX {
                    self.room.notify_all();
                }
                drop(queue);
                job(Late(self.clock.now().saturating_sub(since) > self.patience));
                queue = self.queue.lock();
                continue;
            }
            queue.idle += 1;
            let ended = match idle {
                Some(idle) => self.work.wait_for(&mut queue, idle).timed_out(),
                None => true,
            };
            queue.idle -= 1;
            if ended && queue.jobs.is_empty() {
                queue.threads -= 1;
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::sync::Barrier;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::mpsc::channel;

    use super::*;

    /// Moves when it is told to.
    #[derive(Default)]
    struct Hands(Mutex<Duration>);

    impl Clock for Hands {
        fn now(&self) -> Duration {
            *self.0.lock()
        }
    }

    #[test]
    fn jobs_run_beside_each_other_and_none_is_lost() {
        let pool = Arc::new(Pool::new("test", 4, Duration::MAX, Arc::new(Hands::default())));
        // Four that wait for each other need four threads.
        let (barrier, done) = (Arc::new(Barrier::new(4)), Arc::new(AtomicUsize::new(0)));
        for _ in 0..4 {
            let (barrier, done) = (barrier.clone(), done.clone());
            pool.run(move |_| {
                barrier.wait();
                done.fetch_add(1, Ordering::Relaxed);
            });
        }
        std::thread::scope(|scope| {
            for _ in 0..3 {
                let (pool, done) = (pool.clone(), done.clone());
                scope.spawn(move || {
                    for _ in 0..5_000 {
                        let done = done.clone();
                        pool.run(move |_| {
                            done.fetch_add(1, Ordering::Relaxed);
                        });
                    }
                });
            }
        });
        while done.load(Ordering::Relaxed) < 15_004 {
            std::thread::yield_now();
        }
        assert!(pool.0.queue.lock().threads <= 4);
    }

    #[test]
    fn who_waited_too_long_is_told() {
        let clock = Arc::new(Hands::default());
        let pool = Pool::new("test", 1, Duration::from_secs(2), clock.clone());
        let (go, gate) = channel::<()>();
        let (say, told) = channel();
        for _ in 0..2 {
            let say = say.clone();
            pool.run(move |late| say.send(late).unwrap());
        }
        assert_eq!((told.recv().unwrap(), told.recv().unwrap()), (Late(false), Late(false)));
        pool.run(move |_| gate.recv().unwrap());
        pool.run(move |late| say.send(late).unwrap());
        *clock.0.lock() = Duration::from_secs(3);
        go.send(()).unwrap();
        assert_eq!(told.recv().unwrap(), Late(true));
        assert!(Late(true).in_time().is_err());
    }

    /// As the serving threads are while they follow a program (see `affinity`).
    #[test]
    fn who_is_held_on_a_cpu_starts_threads_that_are_not() {
        let pool = Pool::new("test", 1, Duration::MAX, Arc::new(Hands::default()));
        std::thread::spawn(move || {
            let me = Pid::from_raw(0);
            let free = sched_getaffinity(me).unwrap();
            let mut one = CpuSet::new();
            one.set((0..CpuSet::count()).find(|cpu| free.is_set(*cpu).unwrap()).unwrap()).unwrap();
            sched_setaffinity(me, &one).unwrap();
            let (say, told) = channel();
            pool.run(move |_| say.send(sched_getaffinity(me).unwrap()).unwrap());
            assert_eq!(told.recv().unwrap(), free);
        })
        .join()
        .unwrap();
    }
}
