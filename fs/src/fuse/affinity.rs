//! Keeps the threads that serve on the CPU of a program that asks one thing after the other.
//!
//! While such a program waits, its CPU is free; the scheduler all the same wakes the serving thread on another one that is
//! idle, which costs an interrupt and a cold cache for each request and again for each answer, more than most answers
//! cost themselves. Served on the program's own CPU, unpacking an archive takes about half the time.
//!
//! Requests are looked at in windows. Some windows in a row that one thread fills nearly alone, without large reads and
//! writes (those run beside the program, and shall), set the CPU; any other window lets the threads go where they want.
//! Nothing depends on it but time: where the system refuses, the threads stay free.

use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::{Pid, gettid};
use parking_lot::Mutex;

/// Requests in a window. At a window's end the program's CPU is asked for (some µs), in case it has moved.
const WINDOW: u32 = 64;
/// So many of them by one thread are "nearly alone".
const ALONE_MIN: u32 = 60;
/// So many windows of one thread, one after the other, before it is followed: programs that take turns fill one alone now
/// and then.
const STREAK_MIN: u32 = 3;
/// A read or write of so many bytes is large.
const LARGE_BYTES: usize = 64 << 10;

/// Where the serving threads are.
pub(super) struct Affinity {
    state: Option<Mutex<State>>,
}

#[derive(Default)]
struct State {
    threads: Vec<Thread>,
    window: Window,
    /// Whose the last windows were, and how many.
    streak: (u32, u32),
    /// Where all threads are held, if they are.
    held: Option<usize>,
}

struct Thread {
    id: Pid,
    /// Where it may run when it is free.
    free: CpuSet,
}

/// What the requests of a window have in common.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Window {
    seen: u32,
    client: u32,
    by_client: u32,
}

#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    /// The window is not full.
    Open,
    /// One thread asks for one thing after the other.
    Alone(u32),
    /// Several do, or large data moves.
    Mixed,
}

impl Window {
    fn add(&mut self, client: u32, large: bool) -> Verdict {
        if self.by_client == 0 {
            self.client = client;
        }
        self.seen += 1;
        if self.client == client && !large {
            self.by_client += 1;
        }
        // One that can no more be filled by one alone ends early, so that nobody is held back for long.
        let others = self.seen - self.by_client;
        if self.seen < WINDOW && others <= WINDOW - ALONE_MIN {
            return Verdict::Open;
        }
        let full = std::mem::take(self);
        if full.by_client >= ALONE_MIN { Verdict::Alone(full.client) } else { Verdict::Mixed }
    }
}

impl Affinity {
    pub(super) fn new(follow: bool) -> Affinity {
        Affinity { state: follow.then(Mutex::default) }
    }

    /// A request that moves no data, by the thread `client` (0: the kernel itself).
    pub(super) fn note(&self, client: u32) {
        self.note_data(client, 0);
    }

    /// A request that moves `bytes`.
    pub(super) fn note_data(&self, client: u32, bytes: usize) {
        // What comes at the same time is one of many; which one is missed does not matter.
        let Some(mut state) = self.state.as_ref().and_then(Mutex::try_lock) else { return };
        state.meet_thread();
        let large = bytes >= LARGE_BYTES;
        if client == 0 && !large {
            return;
        }
        match state.window.add(client, large) {
            Verdict::Open => {}
            Verdict::Alone(client) => {
                let windows = if state.streak.0 == client { state.streak.1.saturating_add(1) } else { 1 };
                state.streak = (client, windows);
                let cpu = if windows >= STREAK_MIN { cpu_of(client) } else { None };
                state.hold(cpu);
            }
            Verdict::Mixed => {
                state.streak = (0, 0);
                state.hold(None);
            }
        }
    }
}

thread_local! {
    static MET: std::cell::Cell<bool> = const { std::cell::Cell::new(false) };
}

impl State {
    fn meet_thread(&mut self) {
        if MET.replace(true) {
            return;
        }
        let id = gettid();
        let Ok(free) = sched_getaffinity(id) else { return };
        self.threads.push(Thread { id, free });
        if let Some(cpu) = self.held.take() {
            self.hold(Some(cpu));
        }
    }

    /// Holds all threads on a CPU that each of them may use, or lets them go.
    fn hold(&mut self, cpu: Option<usize>) {
        let allowed = |cpu: &usize| self.threads.iter().all(|thread| thread.free.is_set(*cpu) == Ok(true));
        let cpu = cpu.filter(allowed);
        if cpu == self.held {
            return;
        }
        let mut one = CpuSet::new();
        if cpu.is_some_and(|cpu| one.set(cpu).is_err()) {
            return;
        }
        self.held = cpu;
        for thread in &self.threads {
            let set = if cpu.is_some() { &one } else { &thread.free };
            if let Err(error) = sched_setaffinity(thread.id, set) {
                tracing::debug!(%error, "the serving threads stay where they are");
            }
        }
    }
}

/// Where a thread ran last, as the system tells it: the 39th field of its stat, counted behind the name.
fn cpu_of(thread: u32) -> Option<usize> {
    let stat = std::fs::read_to_string(format!("/proc/{thread}/stat")).ok()?;
    stat.rsplit_once(')')?.1.split_ascii_whitespace().nth(36)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Verdicts of a run of requests, open windows left out.
    fn verdicts(requests: impl IntoIterator<Item = (u32, bool)>) -> Vec<Verdict> {
        let mut window = Window::default();
        requests
            .into_iter()
            .map(|(client, large)| window.add(client, large))
            .filter(|v| *v != Verdict::Open)
            .collect()
    }

    #[test]
    fn one_that_asks_alone_is_followed() {
        assert_eq!(verdicts((0..64).map(|_| (7, false))), [Verdict::Alone(7)]);
        assert_eq!(
            verdicts((0..128).map(|n| (7 + u32::from(n % 32 == 5), false))),
            [Verdict::Alone(7), Verdict::Alone(7)]
        );
    }

    #[test]
    fn several_or_large_data_are_not() {
        assert!(verdicts((0..64).map(|n| (n % 2, false))).iter().all(|v| *v == Verdict::Mixed));
        assert!(verdicts((0..64).map(|_| (7, true))).iter().all(|v| *v == Verdict::Mixed));
        // Told at once, not at the window's end.
        assert_eq!(verdicts((0..16).map(|n| (n % 2, false))).first(), Some(&Verdict::Mixed));
    }

    #[test]
    fn threads_are_held_and_let_go() {
        let state = Affinity::new(true);
        std::thread::spawn(move || {
            let before = sched_getaffinity(gettid()).ok();
            let (me, count) = (gettid().as_raw() as u32, |set: &CpuSet| {
                (0..CpuSet::count()).filter(|cpu| set.is_set(*cpu) == Ok(true)).count()
            });
            (0..WINDOW).for_each(|_| state.note(me));
            assert_eq!(sched_getaffinity(gettid()).ok(), before, "one window is not enough");
            (0..WINDOW * (STREAK_MIN - 1)).for_each(|_| state.note(me));
            let held = sched_getaffinity(gettid()).ok();
            assert_eq!(held.as_ref().map(count), Some(1));
            (0..WINDOW).for_each(|n| state.note(me + n % 2));
            assert_eq!(sched_getaffinity(gettid()).ok(), before);
        })
        .join()
        .expect("the thread ends in order");
    }

    #[test]
    fn the_system_tells_where_a_thread_runs() {
        assert!(cpu_of(gettid().as_raw() as u32).is_some());
        assert_eq!(cpu_of(u32::MAX), None);
    }
}
