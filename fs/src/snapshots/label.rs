//! Names of snapshots by time: `2026-11-25T03.15.00Z`.
//!
//! UTC, in the order of time when sorted, without a colon (which other systems do not take in a name). Two commits of one second are told
//! apart by the second one's sequence: `2026-11-25T03.15.00Z-7`. Days are counted by the proleptic Gregorian calendar; no leap seconds.

const SECONDS_PER_DAY: u64 = 86_400;
/// Days from 0000-03-01 to 1970-01-01.
const DAYS_TO_EPOCH: u64 = 719_468;
/// Days of 400 years, and of 100, 4 and 1 within them.
const ERA_DAYS: u64 = 146_097;
/// Years beyond need five digits.
const YEAR_MAX: u64 = 9999;

/// A time of unix seconds as a name. Times beyond the year 9999 all get its last second.
pub fn of_time(seconds: u64) -> String {
    let last = seconds_of(YEAR_MAX, 12, 31).saturating_add(SECONDS_PER_DAY - 1);
    let seconds = seconds.min(last);
    let (year, month, day) = civil(seconds / SECONDS_PER_DAY);
    let rest = seconds % SECONDS_PER_DAY;
    let (hour, minute, second) = (rest / 3600, rest / 60 % 60, rest % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}.{minute:02}.{second:02}Z")
}

/// The unix seconds of such a name, and the sequence behind it. `None`: it is none.
pub fn parse(name: &str) -> Option<(u64, Option<u64>)> {
    let (time, sequence) = match name.split_once("Z-") {
        Some((time, sequence)) => (time, Some(digits(sequence)?)),
        None => (name.strip_suffix('Z')?, None),
    };
    let (date, clock) = time.split_once('T')?;
    let mut date = date.splitn(3, '-').map(digits);
    let (year, month, day) = (date.next()??, date.next()??, date.next()??);
    let mut clock = clock.splitn(3, '.').map(digits);
    let (hour, minute, second) = (clock.next()??, clock.next()??, clock.next()??);
    let valid = (1970..=YEAR_MAX).contains(&year)
        && (1..=12).contains(&month)
        && (1..=31).contains(&day)
        && hour < 24
        && minute < 60
        && second < 60;
    let seconds = valid.then(|| seconds_of(year, month, day) + hour * 3600 + minute * 60 + second)?;
    // The one spelling of a time is its own.
    (of_time(seconds) == format!("{time}Z")).then_some((seconds, sequence))
}

fn digits(text: &str) -> Option<u64> {
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) { None } else { text.parse().ok() }
}

/// Year, month and day of a day since 1970. Years are counted from March, so that the leap day is the last of one.
fn civil(days: u64) -> (u64, u64, u64) {
    let days = days + DAYS_TO_EPOCH;
    let (era, of_era) = (days / ERA_DAYS, days % ERA_DAYS);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let march_month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * march_month + 2) / 5 + 1;
    let month = if march_month < 10 { march_month + 3 } else { march_month - 9 };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}

fn seconds_of(year: u64, month: u64, day: u64) -> u64 {
    let year = year - u64::from(month <= 2);
    let (era, year_of_era) = (year / 400, year % 400);
    let march_month = if month > 2 { month - 3 } else { month + 9 };
    let of_year = (153 * march_month + 2) / 5 + day - 1;
    let days = era * ERA_DAYS + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + of_year;
    days.saturating_sub(DAYS_TO_EPOCH) * SECONDS_PER_DAY
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_known_from_elsewhere() {
        // `date -u -d @N`
        for (seconds, name) in [
            (0, "1970-01-01T00.00.00Z"),
            (951_782_399, "2000-02-28T23.59.59Z"),
            (951_782_400, "2000-02-29T00.00.00Z"),
            (1_795_576_500, "2026-11-25T03.15.00Z"),
            (4_107_542_400, "2100-03-01T00.00.00Z"),
            (253_402_300_799, "9999-12-31T23.59.59Z"),
        ] {
            assert_eq!(of_time(seconds), name);
            assert_eq!(parse(name), Some((seconds, None)));
            assert_eq!(parse(&format!("{name}-42")), Some((seconds, Some(42))));
        }
        assert_eq!(of_time(u64::MAX), "9999-12-31T23.59.59Z");
    }

    #[test]
    fn every_day_of_two_centuries_comes_back() {
        for day in 0..73_000 {
            let seconds = day * SECONDS_PER_DAY + day % SECONDS_PER_DAY;
            assert_eq!(parse(&of_time(seconds)), Some((seconds, None)));
        }
    }

    #[test]
    fn what_is_no_time() {
        for name in [
            "",
            "Z",
            "2026",
            "2026-11-25",
            "2026-11-25T03.15.00",
            "2026-11-25T03:15:00Z",
            "2026-13-01T00.00.00Z",
            "2026-02-30T00.00.00Z",
            "2026-1-1T0.0.0Z",
            "+026-11-25T03.15.00Z",
            "2026-11-25T24.00.00Z",
            "2026-11-25T03.15.00Z-",
            "2026-11-25T03.15.00Z-x",
            "1969-12-31T00.00.00Z",
        ] {
            assert_eq!(parse(name), None, "{name}");
        }
    }
}
