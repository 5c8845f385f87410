//! How old is what is not committed yet?
//!
//! Owns: a few samples of (last LSN that changed anything, time). Promises: an age is wrong by no more than the interval between two calls of `dirty`; what an earlier process
//! left dirty counts from the start of this one.

use std::collections::VecDeque;
use std::time::Duration;

use holdfast_store::Lsn;

/// Samples kept. Beyond, every other one is dropped: ages of old changes become coarser.
const SAMPLES_MAX: usize = 1024;

/// See the module's documentation.
#[derive(Default)]
pub(crate) struct Activity {
    /// At this time, this was the last change.
    samples: VecDeque<(Lsn, Duration)>,
}

impl Activity {
    /// Notes the present.
    pub(crate) fn note(&mut self, last: Lsn, now: Duration) {
        if self.samples.back().is_none_or(|(lsn, _)| *lsn < last) {
            self.samples.push_back((last, now));
        }
        if self.samples.len() > SAMPLES_MAX {
            let mut keep = false;
            self.samples.retain(|_| {
                keep = !keep;
                keep
            });
        }
    }

    /// Forgets what a commit covers.
    pub(crate) fn forget(&mut self, cut: Lsn) {
        while self.samples.front().is_some_and(|(lsn, _)| *lsn <= cut) {
            self.samples.pop_front();
        }
    }

    /// How long ago the record was seen first.
    pub(crate) fn age(&self, lsn: Lsn, now: Duration) -> Duration {
        let at = self.samples.partition_point(|(seen, _)| *seen < lsn);
        self.samples.get(at).map_or(Duration::ZERO, |(_, time)| now.saturating_sub(*time))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_are_those_of_the_first_sight() {
        let mut activity = Activity::default();
        let s = Duration::from_secs;
        activity.note(10, s(1));
        activity.note(10, s(2));
        activity.note(20, s(3));
        assert_eq!(activity.age(5, s(10)), s(9));
        assert_eq!(activity.age(10, s(10)), s(9));
        assert_eq!(activity.age(11, s(10)), s(7));
        assert_eq!(activity.age(21, s(10)), s(0));
        activity.forget(10);
        assert_eq!(activity.age(5, s(10)), s(7));
        for n in 0..10_000 {
            activity.note(100 + n, s(n));
        }
        assert!(activity.samples.len() <= SAMPLES_MAX);
    }
}
