//! Time, as far as this machine's clock can be believed: a battery dies, a person sets a date, a laptop sleeps.
//!
//! Promises: a jump of the clock, however long and either way, fails no provider, ends no deal and makes nothing count as
//! proven, so that nothing is placed anew or freed because of it:
//! - silence is measured in time that this machine was awake and this process ran, never by the clock;
//! - deals run by the clocks of those who keep them, as do private links and old snapshots, which nothing brings back: where three providers or more say their time, their median counts as
//!   soon as it is more than an hour from ours;
//! - a time in the future shows nothing: a proof from there is asked for again, a fault from there is forgiven.

use std::collections::HashMap;

use parking_lot::Mutex;

use super::ledger::{Peer, Seconds};

/// Clocks that are corrected step back a little; further in the future than this nothing happened yet.
const FUTURE_SECONDS_MAX: u64 = 300;
/// Our clock counts for deals as long as it is not further than this from the providers'.
const OFF_SECONDS_MAX: u64 = 3600;
/// Fewer could be one liar.
const CLOCKS_MIN: usize = 3;

/// Seconds since `at`. Without an end if `at` is in the future.
pub fn age(now: Seconds, at: Seconds) -> u64 {
    if at > now.saturating_add(FUTURE_SECONDS_MAX) { u64::MAX } else { now.saturating_sub(at) }
}

/// What providers' silence and their clocks tell. `ms` are milliseconds of the monotonic clock.
#[derive(Debug, Default)]
pub struct Clocks {
    silent_since: Mutex<HashMap<Peer, u64>>,
    /// What each said of its time, and when.
    told: Mutex<HashMap<Peer, (Seconds, u64)>>,
    was_off: Mutex<bool>,
}

impl Clocks {
    /// How long the provider has been silent, by time awake. Begins to count with the first call.
    pub fn silent_seconds(&self, peer: &Peer, ms: u64) -> u64 {
        let since = *self.silent_since.lock().entry(peer.clone()).or_insert(ms);
        ms.saturating_sub(since) / 1000
    }

    /// The provider answered.
    pub fn heard(&self, peer: &Peer) {
        self.silent_since.lock().remove(peer);
    }

    /// Silence begins to count now.
    pub fn forgive(&self) {
        self.silent_since.lock().clear();
    }

    /// What the provider says of its time.
    pub fn told(&self, peer: &Peer, seconds: Seconds, ms: u64) {
        self.told.lock().insert(peer.clone(), (seconds, ms));
    }

    /// The time that deals run by.
    pub fn deal_now(&self, own: Seconds, ms: u64) -> Seconds {
        match self.median(ms) {
            Some(theirs) if theirs.abs_diff(own) > OFF_SECONDS_MAX => theirs,
            _ => own,
        }
    }

    /// Whether what the time is has been shown: by enough providers, or, once they had their time to say so, by one that agrees with
    /// this machine. Where nobody answers, or the few that do contradict, it is not.
    pub fn is_known(&self, own: Seconds, ms: u64, had_their_time: bool) -> bool {
        let told = self.told.lock();
        let now = |(seconds, at): &(Seconds, u64)| seconds.saturating_add(ms.saturating_sub(*at) / 1000);
        let agrees = told.values().any(|told| now(told).abs_diff(own) <= OFF_SECONDS_MAX);
        told.len() >= CLOCKS_MIN || (had_their_time && agrees)
    }

    /// What to tell the person when the clock turns out to be wrong, or is right again; nothing while neither changes.
    pub fn news(&self, own: Seconds, ms: u64) -> Option<String> {
        let theirs = self.median(ms).filter(|theirs| theirs.abs_diff(own) > OFF_SECONDS_MAX);
        let before = std::mem::replace(&mut *self.was_off.lock(), theirs.is_some());
        match theirs {
            Some(theirs) if !before => {
                let hours = theirs.abs_diff(own) / 3600;
                let way = if theirs > own { "behind" } else { "ahead of" };
                Some(format!(
                    "this machine's clock is {hours} h {way} the providers'; deals go by theirs until it is set right"
                ))
            }
            None if before => Some("this machine's clock agrees with the providers' again".to_owned()),
            _ => None,
        }
    }

    fn median(&self, ms: u64) -> Option<Seconds> {
        let told = self.told.lock();
        let mut times: Vec<Seconds> = told
            .values()
            .map(|(seconds, at)| seconds.saturating_add(ms.saturating_sub(*at) / 1000))
            .collect();
        if times.len() < CLOCKS_MIN {
            return None;
        }
        times.sort_unstable();
        // Of an even number the later one: a deal renewed early costs little.
        times.get(times.len() / 2).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const YEAR: u64 = 365 * 24 * 3600;
    const NOW: u64 = 1_800_000_000;

    fn peer(n: u8) -> Peer {
        vec![n; 38]
    }

    #[test]
    fn silence_is_time_awake() {
        let clocks = Clocks::default();
        assert_eq!(clocks.silent_seconds(&peer(1), 5_000), 0);
        // Whatever the clock on the wall did meanwhile.
        assert_eq!(clocks.silent_seconds(&peer(1), 65_000), 60);
        assert_eq!(clocks.silent_seconds(&peer(2), 65_000), 0);
        clocks.heard(&peer(1));
        assert_eq!(clocks.silent_seconds(&peer(1), 99_000), 0);
        clocks.forgive();
        assert_eq!(clocks.silent_seconds(&peer(2), 99_000), 0);
    }

    #[test]
    fn the_future_shows_nothing() {
        assert_eq!(age(NOW, NOW - 10), 10);
        assert_eq!(age(NOW, NOW + 10), 0);
        assert_eq!(age(NOW, NOW + YEAR), u64::MAX);
        assert_eq!(age(0, u64::MAX), u64::MAX);
    }

    #[test]
    fn deals_go_by_the_providers_clocks_where_ours_is_wrong() {
        let clocks = Clocks::default();
        assert!(!clocks.is_known(NOW, 0, true), "nobody answers");
        clocks.told(&peer(1), NOW, 0);
        clocks.told(&peer(2), NOW + 5, 0);
        assert_eq!(clocks.deal_now(NOW + YEAR, 10_000), NOW + YEAR, "two could be one liar");
        assert!(!clocks.is_known(NOW + YEAR, 0, true), "but what they contradict is not known either");
        assert!(clocks.is_known(NOW, 0, true) && !clocks.is_known(NOW, 0, false));
        clocks.told(&peer(3), NOW + 50 * YEAR, 0);
        assert!(clocks.is_known(NOW + YEAR, 0, false));
        assert_eq!(clocks.deal_now(NOW + YEAR, 10_000), NOW + 15, "ahead");
        assert_eq!(clocks.deal_now(NOW - YEAR, 10_000), NOW + 15, "behind");
        assert_eq!(clocks.deal_now(NOW + 900, 10_000), NOW + 900, "right enough");
    }

    #[test]
    fn a_wrong_clock_is_told_once() {
        let clocks = Clocks::default();
        (1..=3).for_each(|n| clocks.told(&peer(n), NOW, 0));
        assert_eq!(clocks.news(NOW, 0), None);
        assert!(clocks.news(NOW + YEAR, 0).is_some_and(|text| text.contains("8760 h ahead of")));
        assert_eq!(clocks.news(NOW + YEAR, 1000), None);
        assert!(clocks.news(NOW, 1000).is_some_and(|text| text.contains("again")));
    }
}
