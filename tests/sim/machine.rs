//! The machine that the simulated daemon believes in: its clocks, its sleep, its randomness.
//!
//! What a thread that called [`begin`] asks of the system is answered from here: `clock_gettime` by a clock that stands still
//! while anything is to be done, `epoll_wait` by moving that clock on to when the runtime wanted to be woken, `getrandom` by a
//! seeded stream. So the real workers run on tokio's own runtime and sleep for hours within milliseconds; the order in which
//! hash maps are walked and `select!` looks at its branches is the seed's, too. All other threads ask the kernel, as ever.
//!
//! Refuses: to let time stand still for ever. A runtime that is polled [`SPINS_MAX`] times without sleeping is a livelock, one that
//! sleeps with no time to be woken at is dead; both end the process, and say so.

use std::cell::Cell;
use std::ffi::{c_int, c_uint, c_void};

/// When every history begins: unix seconds.
pub const BEGIN_SECONDS: u64 = 1_800_000_000;
/// Polls of the runtime at one instant of virtual time. A burst of some hundred tasks takes a few thousand.
const SPINS_MAX: u64 = 200_000;
/// What a child that met a livelock, or a standstill, exits with.
pub const STUCK_EXIT: i32 = 3;

const NANOS: u64 = 1_000_000_000;

thread_local! {
    static ON: Cell<bool> = const { Cell::new(false) };
    static NANOS_NOW: Cell<u64> = const { Cell::new(0) };
    static WALL_OFFSET_SECONDS: Cell<i64> = const { Cell::new(0) };
    static SPINS: Cell<u64> = const { Cell::new(0) };
    static RANDOM: Cell<u64> = const { Cell::new(0) };
}

/// From now on this thread lives in the simulation. To be called before anything else in it.
pub fn begin(seed: u64) {
    RANDOM.set(seed ^ 0x5eed_0000_5eed_0000);
    // Time since a boot some days ago: code that subtracts from an instant must not underflow here alone.
    NANOS_NOW.set(1_000_000 * NANOS);
    ON.set(true);
}

/// Milliseconds since the history began.
pub fn elapsed_ms() -> u64 {
    NANOS_NOW.get() / 1_000_000 - 1_000_000_000
}

/// Unix seconds as they truly are, whatever the owner's clock says.
pub fn true_seconds() -> u64 {
    BEGIN_SECONDS + elapsed_ms() / 1000
}

/// Sets how far the owner's clock on the wall is wrong.
pub fn set_wall_offset(seconds: i64) {
    WALL_OFFSET_SECONDS.set(seconds);
}

/// # Safety
/// As `clock_gettime(2)`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn clock_gettime(clock: libc::clockid_t, out: *mut libc::timespec) -> c_int {
    if !ON.get() {
        // SAFETY: the caller's arguments, as they are.
        return unsafe { libc::syscall(libc::SYS_clock_gettime, clock, out) } as c_int;
    }
    let nanos = NANOS_NOW.get();
    let (mut seconds, rest) = ((nanos / NANOS) as i64, (nanos % NANOS) as i64);
    if clock == libc::CLOCK_REALTIME || clock == libc::CLOCK_REALTIME_COARSE {
        seconds = true_seconds() as i64 + WALL_OFFSET_SECONDS.get();
    }
    // SAFETY: the caller gives room for one.
    unsafe { out.write(libc::timespec { tv_sec: seconds, tv_nsec: rest }) };
    0
}

/// # Safety
/// As `epoll_wait(2)`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn epoll_wait(
    epoll: c_int,
    events: *mut libc::epoll_event,
    events_max: c_int,
    timeout: c_int,
) -> c_int {
    let wait = |timeout: c_int| {
        let none = std::ptr::null::<libc::sigset_t>();
        // SAFETY: the caller's arguments, and no mask of signals.
        unsafe { libc::syscall(libc::SYS_epoll_pwait, epoll, events, events_max, timeout, none, 8) as c_int }
    };
    if !ON.get() {
        return wait(timeout);
    }
    let ready = wait(0);
    if ready != 0 || timeout == 0 {
        SPINS.set(SPINS.get() + 1);
        if SPINS.get() > SPINS_MAX {
            stuck("a livelock: time does not go on, so much is there to do");
        }
        return ready;
    }
    let Ok(timeout) = u64::try_from(timeout) else { stuck("a standstill: nobody waits for any time") };
    SPINS.set(0);
    NANOS_NOW.set(NANOS_NOW.get() + timeout * 1_000_000);
    0
}

fn stuck(what: &str) -> ! {
    eprintln!("{what}, {} s after the beginning", elapsed_ms() / 1000);
    std::process::exit(STUCK_EXIT)
}

/// # Safety
/// As `getrandom(2)`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn getrandom(out: *mut c_void, len: usize, flags: c_uint) -> isize {
    if !ON.get() {
        // SAFETY: the caller's arguments, as they are.
        return unsafe { libc::syscall(libc::SYS_getrandom, out, len, flags) } as isize;
    }
    // SAFETY: the caller gives room for so many bytes.
    let bytes = unsafe { std::slice::from_raw_parts_mut(out.cast::<u8>(), len) };
    for part in bytes.chunks_mut(8) {
        let (word, next) = mix(RANDOM.get());
        RANDOM.set(next);
        part.copy_from_slice(&word.to_le_bytes()[..part.len()]);
    }
    len as isize
}

/// Sealing's threads ask for idle priority, and would get no time on a machine that is busy with other histories.
///
/// # Safety
/// As `sched_setscheduler(2)`; does nothing.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sched_setscheduler(_: libc::pid_t, _: c_int, _: *const libc::sched_param) -> c_int {
    0
}

/// SplitMix64: the word that a state gives, and the next state.
fn mix(state: u64) -> (u64, u64) {
    let next = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = next;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (z ^ (z >> 31), next)
}

/// Seeded randomness, for whoever takes it as a handle.
#[derive(Debug)]
pub struct Dice(parking_lot::Mutex<u64>);

impl Dice {
    /// A stream of its own for each use of a seed.
    pub fn new(seed: u64, of: &str) -> Dice {
        let hash = blake3::hash(&[&seed.to_le_bytes()[..], of.as_bytes()].concat());
        Dice(parking_lot::Mutex::new(u64::from_le_bytes(hash.as_bytes()[..8].try_into().unwrap_or_default())))
    }

    pub fn word(&self) -> u64 {
        let mut state = self.0.lock();
        let (word, next) = mix(*state);
        *state = next;
        word
    }

    /// One of `0..n`.
    pub fn below(&self, n: u64) -> u64 {
        self.word() % n.max(1)
    }

    /// True once in so many.
    pub fn once_in(&self, n: u64) -> bool {
        self.below(n) == 0
    }

    /// One of them.
    pub fn pick<T: Copy>(&self, of: &[T]) -> Option<T> {
        of.get(usize::try_from(self.below(of.len() as u64)).unwrap_or(0)).copied()
    }

    pub fn bytes(&self, out: &mut [u8]) {
        for part in out.chunks_mut(8) {
            part.copy_from_slice(&self.word().to_le_bytes()[..part.len()]);
        }
    }
}

impl holdfast_net::Rng for Dice {
    fn fill(&self, out: &mut [u8]) {
        self.bytes(out);
    }
}

impl holdfast_store::Rng for Dice {
    fn fill(&self, out: &mut [u8]) {
        self.bytes(out);
    }
}

impl holdfast_content::rng::Rng for Dice {
    fn fill(&self, out: &mut [u8]) -> Result<(), holdfast_content::rng::RngError> {
        self.bytes(out);
        Ok(())
    }
}

/// The clock of somebody who has the right time.
pub struct TrueClock;

impl holdfast_net::Clock for TrueClock {
    fn unix_seconds(&self) -> u64 {
        true_seconds()
    }
    fn monotonic_ms(&self) -> u64 {
        elapsed_ms()
    }
}
