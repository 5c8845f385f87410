//! Time and randomness, as handles.
//!
//! The store never asks the machine for either: whoever opens it says what they are, so that a test can replay a run.

#![expect(clippy::disallowed_methods, reason = "these wrap the system's clock and randomness")]

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// Monotonic time since an arbitrary origin.
pub trait Clock: Send + Sync {
    fn now(&self) -> Duration;
}

/// Secure random bytes.
pub trait Rng: Send + Sync {
    fn fill(&self, bytes: &mut [u8]);
}

/// The machine's monotonic clock.
pub struct SystemClock(Instant);

impl SystemClock {
    pub fn new() -> Self {
        SystemClock(Instant::now())
    }
}

impl Default for SystemClock {
    fn default() -> Self {
        SystemClock::new()
    }
}

impl Clock for SystemClock {
    fn now(&self) -> Duration {
        self.0.elapsed()
    }
}

/// The kernel's random numbers.
pub struct SystemRng;

impl Rng for SystemRng {
    fn fill(&self, bytes: &mut [u8]) {
        // getrandom(2) fails only where the kernel has no such call; going on with predictable keys would be worse than
        // ending here.
        if let Err(error) = getrandom::fill(bytes) {
            panic!("the kernel gives no random numbers: {error}");
        }
    }
}

/// Random bytes fetched by the page: a system call for every 12-byte nonce would cost as much as the sealing.
pub(crate) struct NoncePool {
    rng: Arc<dyn Rng>,
    pool: Mutex<(usize, Box<[u8; POOL_BYTES]>)>,
}

const POOL_BYTES: usize = 4096;

impl NoncePool {
    pub(crate) fn new(rng: Arc<dyn Rng>) -> Self {
        NoncePool { rng, pool: Mutex::new((POOL_BYTES, Box::new([0; POOL_BYTES]))) }
    }

    /// `N` bytes that were never given before. N is at most 64.
    pub(crate) fn take<const N: usize>(&self) -> [u8; N] {
        let mut guard = self.pool.lock();
        let (used, bytes) = &mut *guard;
        if *used + N > POOL_BYTES {
            self.rng.fill(&mut bytes[..]);
            *used = 0;
        }
        let mut out = [0; N];
        out.copy_from_slice(&bytes[*used..*used + N]);
        bytes[*used..*used + N].fill(0);
        *used += N;
        out
    }

    /// Straight from the source, for keys.
    pub(crate) fn key(&self) -> [u8; 32] {
        let mut key = [0; 32];
        self.rng.fill(&mut key);
        key
    }
}
