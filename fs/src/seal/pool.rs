//! The threads that do a seal's arithmetic: tag, compress, encrypt, hash.
//!
//! Owns: a few threads at idle priority, one spare at normal priority, and the order of their results. Promises: results are
//! handed out in the order in which the work was given; some [`Pool::IN_FLIGHT_MAX`] chunks are in memory at once; the
//! threads hold no lock while they compute, so that their low priority delays nobody. The spare joins in when somebody waits
//! ([`Haste`]) or the seal takes longer than [`PATIENCE`]: on a machine that is never idle, idle priority would never end, and
//! data is promised to be Placed within a minute. Refuses: to outlive the seal (they are scoped).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::Scope;
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};

/// So long a seal is left to the idle time of the machine.
const PATIENCE: Duration = Duration::from_secs(5);
/// How often the spare looks whether somebody waits.
const LOOK: Duration = Duration::from_millis(50);
/// So long the oldest job may take, many times what the largest chunk needs, before it is taken for one that the machine gives no time to.
const STUCK: Duration = Duration::from_millis(20);

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
    jobs: Sender<(u64, Arc<J>)>,
    results: Receiver<(u64, R)>,
    early: BTreeMap<u64, R>,
    /// What was given and did not come back yet.
    flying: BTreeMap<u64, Arc<J>>,
    next_in: u64,
    next_out: u64,
    /// Results below this are wanted by nobody any more.
    done: Arc<AtomicU64>,
    work: Box<dyn Fn(&J) -> R + Send>,
    /// Its end ends the spare's waiting.
    _open: Sender<()>,
}

impl<J: Send + Sync + 'static, R: Send + 'static> Pool<J, R> {
    /// Chunks in memory at once: enough to keep two threads busy while one block is written, 8 MiB at the largest chunk size.
    pub(crate) const IN_FLIGHT_MAX: u64 = 8;

    /// Starts `threads` threads within `scope`; they end when the pool is dropped. `work` may be done twice.
    pub(crate) fn start<'scope, F>(
        scope: &'scope Scope<'scope, '_>,
        threads: usize,
        haste: Haste,
        work: F,
    ) -> std::io::Result<Self>
    where
        F: Fn(&J) -> R + Send + Clone + 'static,
    {
        let threads = threads.max(1);
        // Room for all that is in flight, and for what each thread was too late with, so that none waits to hand over.
        let room = Self::IN_FLIGHT_MAX as usize + threads + 1;
        let (jobs, job_queue) = bounded::<(u64, Arc<J>)>(room);
        let (result_queue, results) = bounded::<(u64, R)>(room);
        let done = Arc::new(AtomicU64::new(0));
        let (wanted, made) = (done.clone(), work.clone());
        let labour = move || {
            while let Ok((ticket, job)) = job_queue.recv() {
                let late = ticket < wanted.load(Ordering::Relaxed);
                if !late && result_queue.send((ticket, made(&job))).is_err() {
                    break;
                }
            }
        };
        for i in 0..threads {
            let labour = labour.clone();
            std::thread::Builder::new().name(format!("seal-{i}")).spawn_scoped(scope, move || {
                idle_priority();
                labour();
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
            labour();
        })?;
        let (early, flying) = (BTreeMap::new(), BTreeMap::new());
        let work = Box::new(work);
        Ok(Self { jobs, results, early, flying, next_in: 0, next_out: 0, done, work, _open: open })
    }

    /// Is there room for one more job?
    pub(crate) fn has_room(&self) -> bool {
        self.next_in - self.next_out < Self::IN_FLIGHT_MAX
    }

    /// Gives a job. The caller takes results first while [`has_room`](Self::has_room) is false.
    pub(crate) fn give(&mut self, job: J) {
        debug_assert!(self.has_room());
        let (ticket, job) = (self.next_in, Arc::new(job));
        // Full (of jobs that were done elsewhere) or closed: `take` does the job itself.
        let _ = self.jobs.try_send((ticket, job.clone()));
        self.flying.insert(ticket, job);
        self.next_in += 1;
    }

    /// Puts a result in line that needs no thread: handing it over would cost more than the work.
    pub(crate) fn give_made(&mut self, result: R) {
        debug_assert!(self.has_room());
        self.early.insert(self.next_in, result);
        self.next_in += 1;
    }

    /// Does a small job in this thread, its result in line with the others.
    pub(crate) fn give_here(&mut self, job: J) {
        let result = (self.work)(&job);
        self.give_made(result);
    }

    /// The oldest job's result, waiting for it; `None` when nothing is in flight.
    ///
    /// A thread of idle priority that has the job may get no time at all while others are busy, and all results wait for this one. Then the job is done here,
    /// and what the thread makes of it is thrown away.
    pub(crate) fn take(&mut self) -> Option<R> {
        if self.next_out == self.next_in {
            return None;
        }
        loop {
            if let Some(result) = self.early.remove(&self.next_out) {
                self.next_out += 1;
                self.done.store(self.next_out, Ordering::Relaxed);
                return Some(result);
            }
            match self.results.recv_timeout(STUCK) {
                Ok((ticket, result)) if ticket >= self.next_out => {
                    self.flying.remove(&ticket);
                    self.early.insert(ticket, result);
                }
                Ok(_late) => {}
                Err(_) => {
                    let job = self.flying.remove(&self.next_out)?;
                    self.early.insert(self.next_out, (self.work)(&job));
                }
            }
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
            let mut pool = Pool::start(scope, 1, haste, |(): &()| {
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
            let mut pool = Pool::start(scope, 3, Haste::default(), |n: &u64| {
                std::thread::sleep(std::time::Duration::from_micros(997 * (n % 5)));
                n * n
            })
            .unwrap();
            let mut got = Vec::new();
            for n in 0..100 {
                while !pool.has_room() {
                    got.push(pool.take().unwrap());
                }
                match n % 7 {
                    5 => pool.give_here(n),
                    6 => pool.give_made(n * n),
                    _ => pool.give(n),
                }
            }
            while pool.is_busy() {
                got.push(pool.take().unwrap());
            }
            assert_eq!(got, (0..100).map(|n| n * n).collect::<Vec<_>>());
            assert_eq!(pool.take(), None);
        });
    }

    #[test]
    fn a_job_that_gets_no_time_is_done_by_who_waits_for_it() {
        let first = AtomicBool::new(true);
        let held = Arc::new((AtomicU64::new(0), first));
        std::thread::scope(|scope| {
            let within = held.clone();
            let mut pool = Pool::start(scope, 2, Haste::default(), move |n: &u64| {
                // Whoever comes first to one of these is held up for long.
                if n % 20 == 3 && within.1.swap(false, Ordering::Relaxed) {
                    std::thread::sleep(STUCK * 8);
                    within.1.store(true, Ordering::Relaxed);
                    within.0.fetch_add(1, Ordering::Relaxed);
                }
                n + 1
            })
            .unwrap();
            let mut got = Vec::new();
            for n in 0..200 {
                while !pool.has_room() {
                    got.push(pool.take().unwrap());
                }
                pool.give(n);
            }
            while pool.is_busy() {
                got.push(pool.take().unwrap());
            }
            assert_eq!(got, (1..201).collect::<Vec<_>>());
            drop(pool);
        });
        assert!(held.0.load(Ordering::Relaxed) > 0, "somebody was held up");
    }
}
