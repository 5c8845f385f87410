//! Which commits stay.
//!
//! Pure: the rule, the commits' times, the time now. All of the last hours; then the newest of each hour, each day and each week (of UTC, weeks
//! beginning on Monday), so many of them as the rule says. A commit that a clock put into the future stays.

use std::collections::BTreeSet;

const HOUR: u64 = 3600;
const DAY: u64 = 24 * HOUR;
const WEEK: u64 = 7 * DAY;
/// 1970 began on a Thursday: Monday is four days on.
const MONDAY: u64 = 4 * DAY;

/// How many of each kind stay.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RetentionRule {
    /// Every commit younger than so many hours; with 0 none, not even one of this second.
    pub all_hours: u64,
    /// The newest commit of each of the last so many hours that have one.
    pub hourly: u64,
    /// The same of days.
    pub daily: u64,
    /// The same of weeks.
    pub weekly: u64,
}

impl RetentionRule {
    /// The sequences that stay, of `commits` (sequence, unix seconds), oldest first. The newest one and those in `always` do in any case.
    pub fn kept(&self, commits: &[(u64, u64)], now: u64, always: &BTreeSet<u64>) -> BTreeSet<u64> {
        let all = self.all_hours.saturating_mul(HOUR);
        let young = |time: u64| time > now || now - time < all;
        let mut kept: BTreeSet<u64> = commits
            .iter()
            .filter(|(sequence, time)| young(*time) || always.contains(sequence))
            .map(|(sequence, _)| *sequence)
            .collect();
        kept.extend(commits.last().map(|(sequence, _)| *sequence));
        for (count, length, shift) in
            [(self.hourly, HOUR, 0), (self.daily, DAY, 0), (self.weekly, WEEK, WEEK - MONDAY)]
        {
            let mut spans = BTreeSet::new();
            for (sequence, time) in commits.iter().rev() {
                let span = time.saturating_add(shift) / length;
                if spans.contains(&span) {
                    continue;
                }
                if spans.len() as u64 >= count {
                    break;
                }
                spans.insert(span);
                kept.insert(*sequence);
            }
        }
        kept
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 2026-11-25T00.00.00Z, a Wednesday.
    const MIDNIGHT: u64 = 1_795_564_800;

    fn kept(rule: &RetentionRule, times: &[u64], now: u64) -> Vec<u64> {
        let commits: Vec<(u64, u64)> = (1..).zip(times.iter().copied()).collect();
        rule.kept(&commits, now, &BTreeSet::new()).into_iter().collect()
    }

    const NONE: RetentionRule = RetentionRule { all_hours: 0, hourly: 0, daily: 0, weekly: 0 };

    #[test]
    fn the_newest_stays_whatever_the_rule() {
        assert_eq!(kept(&NONE, &[1, 2, 3], MIDNIGHT), [3]);
        assert_eq!(kept(&NONE, &[], MIDNIGHT), [0; 0]);
        let always = BTreeSet::from([1]);
        assert_eq!(NONE.kept(&[(1, 1), (2, 2), (3, 3)], MIDNIGHT, &always), BTreeSet::from([1, 3]));
    }

    #[test]
    fn all_of_the_last_hours_and_the_future() {
        let rule = RetentionRule { all_hours: 2, ..NONE };
        let times = [MIDNIGHT - 7200, MIDNIGHT - 7199, MIDNIGHT, MIDNIGHT + 99_999];
        assert_eq!(kept(&rule, &times, MIDNIGHT), [2, 3, 4]);
        assert_eq!(
            kept(&NONE, &[MIDNIGHT, MIDNIGHT], MIDNIGHT),
            [2],
            "who keeps none means those of this second too"
        );
        assert_eq!(kept(&NONE, &[MIDNIGHT + 1, MIDNIGHT], MIDNIGHT), [1, 2], "the future stays");
    }

    #[test]
    fn the_newest_of_each_span() {
        let hours: Vec<u64> =
            (0..48).flat_map(|h| [MIDNIGHT + h * HOUR, MIDNIGHT + h * HOUR + 600]).collect();
        let now = MIDNIGHT + 48 * HOUR;
        assert_eq!(kept(&RetentionRule { hourly: 3, ..NONE }, &hours, now), [92, 94, 96]);
        assert_eq!(kept(&RetentionRule { daily: 9, ..NONE }, &hours, now), [48, 96]);
        // Sunday and Monday are of two weeks, Monday and the Sunday after it of one.
        let sunday = MIDNIGHT - 3 * DAY;
        let days: Vec<u64> = (0..9).map(|d| sunday + d * DAY).collect();
        assert_eq!(kept(&RetentionRule { weekly: 9, ..NONE }, &days, now + WEEK), [1, 8, 9]);
        // Spans without a commit do not count: what is old stays on a drive that was not used for long.
        let sparse = [MIDNIGHT - 900 * DAY, MIDNIGHT - 500 * DAY, MIDNIGHT];
        assert_eq!(kept(&RetentionRule { daily: 2, ..NONE }, &sparse, now), [2, 3]);
    }
}
