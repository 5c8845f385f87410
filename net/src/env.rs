//! Time and randomness, as handles: nothing in this crate asks the system on its own.
//!
//! Deadlines of single requests run on tokio's timer, which tests can pause; [`Clock`] is for what is written down
//! or signed (deal terms, receipts, expiry).

#![expect(clippy::disallowed_methods, reason = "these wrap the system's clock and randomness")]

use std::sync::Arc;
use std::time::Instant;

/// Wall time and a monotonic one.
pub trait Clock: Send + Sync {
    /// Seconds since 1970; may jump.
    fn unix_seconds(&self) -> u64;
    /// Milliseconds since some start; never runs backward.
    fn monotonic_ms(&self) -> u64;
}

/// A source of unpredictable bytes.
pub trait Rng: Send + Sync {
    /// Fills `out`.
    fn fill(&self, out: &mut [u8]);
}

/// What a node, client or provider needs from the machine.
#[derive(Clone)]
pub struct Env {
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Randomness.
    pub rng: Arc<dyn Rng>,
}

impl Env {
    /// The machine's own clock and randomness.
    pub fn system() -> Env {
        Env { clock: Arc::new(SystemClock::new()), rng: Arc::new(SystemRng) }
    }

    /// `N` random bytes.
    pub(crate) fn random<const N: usize>(&self) -> [u8; N] {
        let mut out = [0u8; N];
        self.rng.fill(&mut out);
        out
    }
}

/// The machine's clock.
pub struct SystemClock {
    start: Instant,
}

impl SystemClock {
    /// Starts the monotonic time at zero.
    pub fn new() -> SystemClock {
        SystemClock { start: Instant::now() }
    }
}

impl Default for SystemClock {
    fn default() -> SystemClock {
        SystemClock::new()
    }
}

impl Clock for SystemClock {
    fn unix_seconds(&self) -> u64 {
        std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |d| d.as_secs())
    }

    fn monotonic_ms(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

/// The kernel's randomness.
pub struct SystemRng;

impl Rng for SystemRng {
    fn fill(&self, out: &mut [u8]) {
        // Without randomness no key, nonce or challenge may be drawn: stopping is the only safe answer, and on
        // Linux it cannot happen once the machine has booted.
        getrandom::fill(out).expect("the kernel gives random bytes");
    }
}
