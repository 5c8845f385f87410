//! Time, given from outside.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::UnixMillis;

/// Where deadlines are compared with.
pub trait Clock {
    fn now(&self) -> UnixMillis;
}

/// The system's clock: deadlines are agreed with others and survive restarts, so they are of the wall.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[allow(clippy::disallowed_methods)]
    fn now(&self) -> UnixMillis {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    }
}
