//! How quick a provider is, from the reads that were made of it.
//!
//! Owns: an estimate of when an answer will be there, counting what was asked before and is still under way; and what is late, by what was
//! seen of this provider. Promises: who was never measured is tried; who was slow is tried again after a time. Decides nothing.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Reads up to this size show the time of a round trip, larger ones the rate.
const SMALL_BYTES: u64 = 64 << 10;
/// Where nothing larger was measured yet.
const RATE_FIRST: f64 = 50e6;
/// A new sample's share in the rate and in the time of a round trip.
const SHARE: f64 = 0.25;
/// Answers that say what is usual.
const ANSWERS_KEPT: usize = 64;
/// Before so many were seen, an answer is late after this many times the estimate.
const ANSWERS_MIN: usize = 12;
const LATE_FIRST: f64 = 3.0;
/// Who was not measured yet has to be connected to first.
const LATE_UNKNOWN: Duration = Duration::from_millis(500);
/// An estimate loses half of its weight in this time, so that who was slow is asked again.
const HALF_LIFE_SECONDS: f64 = 30.0;

/// What is known of one provider.
#[derive(Debug, Default)]
pub struct Pace {
    /// Bytes a second; none: not measured.
    rate: Option<f64>,
    /// Seconds until the first byte; none: not measured.
    first: Option<f64>,
    /// Bytes asked for and not here yet.
    under_way: u64,
    /// Of the last answers, how many times the estimate each took.
    times: VecDeque<f64>,
    measured: Option<Instant>,
}

/// One read under way.
#[derive(Debug, Clone, Copy)]
pub struct Begun {
    bytes: u64,
    /// With these in front of it, and itself.
    queue: u64,
    /// Seconds that it should take.
    expected: f64,
}

impl Pace {
    /// Seconds until `bytes` that are asked for now are here. Who was not measured is expected at once.
    pub fn expected(&self, bytes: u64, now: Instant) -> f64 {
        let queue = self.under_way.saturating_add(bytes) as f64;
        let Some(measured) = self.measured else { return self.under_way as f64 / RATE_FIRST };
        let estimate = self.first.unwrap_or(0.0) + queue / self.rate.unwrap_or(RATE_FIRST);
        let age = now.saturating_duration_since(measured).as_secs_f64();
        estimate * 0.5_f64.powf(age / HALF_LIFE_SECONDS)
    }

    /// A read begins.
    pub fn begin(&mut self, bytes: u64, now: Instant) -> Begun {
        let expected = self.expected(bytes, now);
        self.under_way = self.under_way.saturating_add(bytes);
        Begun { bytes, queue: self.under_way, expected }
    }

    /// It was answered in full.
    pub fn answered(&mut self, begun: Begun, took: Duration, now: Instant) {
        self.under_way = self.under_way.saturating_sub(begun.bytes);
        if begun.bytes == 0 {
            return;
        }
        let took = took.as_secs_f64().max(1e-6);
        if begun.queue <= SMALL_BYTES {
            mix(&mut self.first, took);
        } else {
            let moving = (took - self.first.unwrap_or(0.0)).max(took / 8.0);
            mix(&mut self.rate, begun.queue as f64 / moving);
        }
        self.measured = Some(now);
        if begun.expected > 0.0 {
            if self.times.len() >= ANSWERS_KEPT {
                self.times.pop_front();
            }
            self.times.push_back(took / begun.expected);
        }
    }

    /// It was given up, or failed, after this time: so long it takes at least.
    pub fn ended(&mut self, begun: Begun, after: Duration, now: Instant) {
        if after.as_secs_f64() > begun.expected {
            self.answered(begun, after, now);
        } else {
            self.under_way = self.under_way.saturating_sub(begun.bytes);
        }
    }

    /// After this time an answer to `bytes` that are asked for now is later than 95 of 100.
    pub fn late(&self, bytes: u64, now: Instant) -> Duration {
        if self.measured.is_none() {
            return LATE_UNKNOWN;
        }
        let mut times: Vec<f64> = self.times.iter().copied().collect();
        times.sort_by(f64::total_cmp);
        let at = times.len().saturating_mul(95) / 100;
        let usual = if times.len() < ANSWERS_MIN { None } else { times.get(at.min(times.len() - 1)) };
        Duration::from_secs_f64(
            (self.expected(bytes, now) * usual.copied().unwrap_or(LATE_FIRST)).clamp(0.0, 3600.0),
        )
    }
}

fn mix(known: &mut Option<f64>, sample: f64) {
    *known = Some(known.map_or(sample, |old| old * (1.0 - SHARE) + sample * SHARE));
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const MIB: u64 = 1 << 20;

    fn seconds(s: f64) -> Duration {
        Duration::from_secs_f64(s)
    }

    /// A provider that takes 40 ms to begin and then sends `rate` bytes a second was asked `n` times.
    fn measured(rate: f64, n: usize, now: Instant) -> Pace {
        let mut pace = Pace::default();
        for _ in 0..n {
            let small = pace.begin(4096, now);
            pace.answered(small, seconds(0.04), now);
            let large = pace.begin(MIB, now);
            pace.answered(large, seconds(0.04 + MIB as f64 / rate), now);
        }
        pace
    }

    #[test]
    fn what_is_measured_is_what_is_expected() {
        let now = Instant::now();
        let pace = measured(10e6, 20, now);
        let expected = pace.expected(MIB, now);
        assert!((expected - (0.04 + MIB as f64 / 10e6)).abs() < 0.01, "{expected}");
    }

    #[test]
    fn who_has_much_to_do_is_asked_after_who_has_little() {
        let now = Instant::now();
        let (mut quick, slow) = (measured(40e6, 20, now), measured(10e6, 20, now));
        assert!(quick.expected(MIB, now) < slow.expected(MIB, now));
        // Four are under way there: a fifth would come later than the first one from elsewhere.
        for _ in 0..4 {
            let _ = quick.begin(MIB, now);
        }
        assert!(quick.expected(MIB, now) > slow.expected(MIB, now));
    }

    #[test]
    fn four_alike_share_evenly() {
        let now = Instant::now();
        let mut all: Vec<Pace> = (0..4).map(|_| measured(1e6, 10, now)).collect();
        let mut asked = [0; 4];
        for _ in 0..40 {
            let next = (0..4usize).min_by(|a, b| {
                all.get(*a).unwrap().expected(MIB, now).total_cmp(&all.get(*b).unwrap().expected(MIB, now))
            });
            let next = next.unwrap();
            let _ = all.get_mut(next).unwrap().begin(MIB, now);
            *asked.get_mut(next).unwrap() += 1;
        }
        assert_eq!(asked, [10; 4]);
    }

    #[test]
    fn who_was_slow_is_tried_again_after_a_time() {
        let now = Instant::now();
        let (slow, quick) = (measured(1e5, 10, now), measured(10e6, 10, now));
        let later = now + seconds(300.0);
        assert!(slow.expected(MIB, now) > quick.expected(MIB, now) * 10.0);
        assert!(slow.expected(MIB, later) < quick.expected(MIB, now));
    }

    #[test]
    fn late_is_what_hardly_ever_happens_with_this_provider() {
        let now = Instant::now();
        let mut pace = measured(10e6, 40, now);
        let steady = pace.late(MIB, now).as_secs_f64();
        assert!(steady < pace.expected(MIB, now) * 1.3, "always as expected: {steady}");
        // Every tenth answer takes five times as long.
        for n in 0..60 {
            let begun = pace.begin(MIB, now);
            let times = if n % 10 == 0 { 5.0 } else { 1.0 };
            pace.answered(begun, seconds(0.145 * times), now);
        }
        assert!(pace.late(MIB, now).as_secs_f64() > pace.expected(MIB, now) * 1.8);
        assert_eq!(pace.under_way, 0);
    }

    #[test]
    fn what_was_given_up_counts_as_slow_only_if_it_was_late() {
        let now = Instant::now();
        let mut pace = measured(10e6, 20, now);
        let before = pace.expected(MIB, now);
        let begun = pace.begin(MIB, now);
        pace.ended(begun, Duration::from_millis(1), now);
        assert!((pace.expected(MIB, now) - before).abs() < 1e-9, "somebody else was quicker, that is all");
        let begun = pace.begin(MIB, now);
        pace.ended(begun, seconds(3.0), now);
        assert!(pace.expected(MIB, now) > before * 1.2);
        assert_eq!(pace.under_way, 0);
    }
}
