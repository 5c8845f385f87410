//! How long something is left alone that came to nothing: twice as long each time.

use std::time::{Duration, Instant};

/// See the module.
#[derive(Clone, Debug)]
pub(super) struct Pause {
    first: Duration,
    most: Duration,
    times: u32,
    since: Option<Instant>,
}

impl Pause {
    /// Of `first` the first time, and never of more than `most`.
    pub(super) fn new((first, most): (Duration, Duration)) -> Pause {
        Pause { first: first.min(most), most, times: 0, since: None }
    }

    pub(super) fn again(&mut self) {
        self.times = self.times.saturating_add(1);
        self.since = Some(Instant::now());
    }

    fn lasts(&self) -> Duration {
        let doubled = 1u32.checked_shl(self.times.saturating_sub(1)).filter(|factor| *factor > 0);
        self.first.saturating_mul(doubled.unwrap_or(u32::MAX)).min(self.most)
    }

    pub(super) fn stands(&self) -> bool {
        self.since.is_some_and(|since| since.elapsed() < self.lasts())
    }

    /// As long as it may last at most has gone by after it without another time.
    pub(super) fn is_forgotten(&self) -> bool {
        self.since.is_none_or(|since| since.elapsed() >= self.lasts() + self.most)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_refuses_time_and_again_lets_others_have_their_turn() {
        let most = Duration::from_secs(3600);
        let mut pause = Pause::new((Duration::from_secs(60), most));
        assert!(!pause.stands() && pause.is_forgotten());
        let lasts: Vec<u64> = (0..8)
            .map(|_| {
                pause.again();
                pause.lasts().as_secs()
            })
            .collect();
        assert_eq!(lasts, [60, 120, 240, 480, 960, 1920, 3600, 3600]);
        assert!(pause.stands() && !pause.is_forgotten());
        (0..40).for_each(|_| pause.again());
        assert_eq!(pause.lasts(), most);
    }
}
