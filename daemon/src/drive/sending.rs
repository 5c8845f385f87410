//! How fast providers take bytes: what estimates of "safe in" rest on.

use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// The rate is that of about the last so long.
const WINDOW: Duration = Duration::from_secs(120);
/// Not measured more often.
const SAMPLE: Duration = Duration::from_secs(1);

/// A smoothed rate. Time in which nothing was on its way does not count.
#[derive(Default)]
pub struct Sending(Mutex<State>);

#[derive(Default)]
struct State {
    last: Option<(Instant, u64)>,
    bytes_per_second: f64,
}

impl Sending {
    /// `sent`: bytes that were taken so far; `busy`: something was on its way since the last call.
    pub fn sample(&self, sent: u64, busy: bool) {
        self.sample_at(Instant::now(), sent, busy);
    }

    fn sample_at(&self, now: Instant, sent: u64, busy: bool) {
        let mut state = self.0.lock();
        let Some((at, before)) = state.last.filter(|_| busy) else {
            state.last = Some((now, sent));
            return;
        };
        let time = now.saturating_duration_since(at);
        if time < SAMPLE {
            return;
        }
        let rate = sent.saturating_sub(before) as f64 / time.as_secs_f64();
        let weight = (time.as_secs_f64() / WINDOW.as_secs_f64()).min(1.0);
        let first = state.bytes_per_second == 0.0;
        state.bytes_per_second =
            if first { rate } else { state.bytes_per_second * (1.0 - weight) + rate * weight };
        state.last = Some((now, sent));
    }

    /// 0 before anything was sent.
    pub fn bytes_per_second(&self) -> u64 {
        self.0.lock().bytes_per_second as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_time_in_which_something_is_sent_counts() {
        let sending = Sending::default();
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        sending.sample_at(at(0), 0, false);
        assert_eq!(sending.bytes_per_second(), 0);
        sending.sample_at(at(2), 2000, true);
        assert_eq!(sending.bytes_per_second(), 1000);
        sending.sample_at(at(1000), 2000, false);
        assert_eq!(sending.bytes_per_second(), 1000);
        sending.sample_at(at(1120), 2000, true);
        assert_eq!(sending.bytes_per_second(), 0, "two minutes of nothing");
    }
}
