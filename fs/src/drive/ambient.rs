//! Time and randomness, as a drive is given them.

use std::sync::Arc;

use crate::vfs::{Now, SystemTime};

/// Handles to everything that differs from run to run. Tests bring their own.
#[derive(Clone)]
pub struct Ambient {
    /// The time of day, for inodes and commits.
    pub now: Arc<dyn Now>,
    /// Monotonic time, for deadlines and ages.
    pub clock: Arc<dyn holdfast_store::Clock>,
    /// Randomness of the log (segment keys, nonces).
    pub store_rng: Arc<dyn holdfast_store::Rng>,
    /// Randomness of pieces (their ids).
    pub rng: Arc<dyn holdfast_content::rng::Rng>,
}

impl Ambient {
    /// The machine's own.
    pub fn system() -> Self {
        Self {
            now: Arc::new(SystemTime),
            clock: Arc::new(holdfast_store::SystemClock::new()),
            store_rng: Arc::new(holdfast_store::SystemRng),
            rng: Arc::new(holdfast_content::rng::SystemRng),
        }
    }
}

impl std::fmt::Debug for Ambient {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Ambient")
    }
}
