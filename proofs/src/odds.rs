//! What a series of audits implies: how likely a loss goes unnoticed.
//!
//! The model is `SOUNDNESS.md`'s: each challenged leaf is drawn independently and uniformly; whoever
//! keeps a fraction `kept` of the leaves answers an audit of `challenges` leaves with probability
//! kept^challenges, and audits are independent because their seeds are. Nothing here knows the time:
//! periods are numbers of seconds.

use std::fmt;

/// How a piece is audited.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AuditPlan {
    /// Leaves a challenge.
    pub challenges: u16,
    /// Seconds from one audit to the next.
    pub period_seconds: u64,
}

/// A fraction outside 0 to 1 counts as the nearer end; what is not a number counts as everything kept,
/// so that nonsense never makes an audit look better than it is.
fn clamp(kept: f64) -> f64 {
    if kept.is_nan() { 1.0 } else { kept.clamp(0.0, 1.0) }
}

/// Probability that one audit is passed by someone who keeps the fraction `kept` of the leaves.
#[must_use]
pub fn passes_one_audit(challenges: u16, kept: f64) -> f64 {
    clamp(kept).powi(i32::from(challenges))
}

/// As `passes_one_audit` for a piece of `leaves` leaves, `missing` of which are lost: exact, also where
/// the piece is so small that every leaf is asked.
#[must_use]
pub fn passes_one_audit_of(challenges: u16, leaves: u64, missing: u64) -> f64 {
    if missing == 0 {
        return 1.0;
    }
    if missing >= leaves || leaves <= u64::from(challenges) {
        return 0.0;
    }
    passes_one_audit(challenges, (leaves - missing) as f64 / leaves as f64)
}

impl AuditPlan {
    /// Whole audits within a time. A period of zero counts as one second.
    #[must_use]
    pub fn audits_within(&self, seconds: u64) -> u64 {
        seconds / self.period_seconds.max(1)
    }

    /// Probability that keeping only the fraction `kept` is still unnoticed after `seconds`.
    #[must_use]
    pub fn unnoticed(&self, kept: f64, seconds: u64) -> f64 {
        let draws = f64::from(self.challenges) * self.audits_within(seconds) as f64;
        clamp(kept).powf(draws)
    }

    /// Seconds after which keeping only `kept` is noticed with probability `confidence`; none where it
    /// never is (everything kept, nothing asked, or certainty wanted of a game of chance).
    #[must_use]
    pub fn noticed_within(&self, kept: f64, confidence: f64) -> Option<u64> {
        let once = passes_one_audit(self.challenges, kept);
        let audits = if confidence <= 0.0 || once == 0.0 {
            1.0
        } else if once >= 1.0 || confidence.is_nan() || confidence >= 1.0 {
            return None;
        } else {
            ((1.0 - confidence).ln() / once.ln()).ceil().max(1.0)
        };
        let seconds = audits * self.period_seconds.max(1) as f64;
        // Beyond a u64 is never.
        (seconds < u64::MAX as f64).then_some(seconds as u64)
    }

    /// The fewest leaves a challenge so that losing more than `1 - kept` is unnoticed after `seconds`
    /// with at most the probability `risk`; none where no number within `u16` does.
    #[must_use]
    pub fn challenges_for(period_seconds: u64, kept: f64, seconds: u64, risk: f64) -> Option<u16> {
        let plan = Self { challenges: 1, period_seconds };
        let audits = plan.audits_within(seconds) as f64;
        let kept = clamp(kept);
        if audits < 1.0 || kept >= 1.0 || risk.is_nan() || risk <= 0.0 {
            return None;
        }
        if kept == 0.0 || risk >= 1.0 {
            return Some(1);
        }
        let needed = (risk.ln() / (audits * kept.ln())).ceil().max(1.0);
        (needed.is_finite() && needed <= f64::from(u16::MAX)).then_some(needed as u16)
    }

    /// The plan's meaning for a person.
    #[must_use]
    pub fn in_words(&self) -> String {
        let losses = [0.5, 0.1, 0.01].map(|lost| {
            let when = match self.noticed_within(1.0 - lost, 0.99) {
                Some(seconds) => Span(seconds).to_string(),
                None => "never".into(),
            };
            format!("a loss of {} % within {when}", lost * 100.0)
        });
        let period = Span(self.period_seconds);
        format!("{} places every {period}; noticed with 99 %: {}", self.challenges, losses.join(", "))
    }
}

/// How copies are read beside their audits: each at times that nobody foresees, so often on average (a Poisson process).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ReadPlan {
    /// Seconds from one read of a copy to its next, on average; zero: nothing is read.
    pub mean_seconds: u64,
}

impl ReadPlan {
    /// Probability that a copy is not read once in `seconds`.
    #[must_use]
    pub fn unread(&self, seconds: u64) -> f64 {
        match self.mean_seconds {
            0 => 1.0,
            mean => (-(seconds as f64) / mean as f64).exp(),
        }
    }

    /// Seconds after which one of `copies` copies of one keeper was read with probability `confidence`; none where that is never.
    #[must_use]
    pub fn read_within(&self, copies: u64, confidence: f64) -> Option<u64> {
        if self.mean_seconds == 0 || copies == 0 || confidence.is_nan() || confidence >= 1.0 {
            return None;
        }
        let seconds = -(1.0 - confidence.max(0.0)).ln() * self.mean_seconds as f64 / copies as f64;
        // Beyond a u64 is never.
        (seconds < u64::MAX as f64).then_some(seconds.ceil() as u64)
    }

    /// The plan's meaning for a person.
    #[must_use]
    pub fn in_words(&self) -> String {
        let Some(one) = self.read_within(1, 0.99) else { return "copies are not read".into() };
        let (mean, one) = (Span(self.mean_seconds), Span(one));
        format!(
            "each is read in part about every {mean}, when nobody expects it; one that is kept and not given is noticed with 99 % \
             within {one}"
        )
    }
}

/// Seconds in the largest unit that keeps them readable, rounded up.
struct Span(u64);

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let units = [(86_400, "day"), (3_600, "hour"), (60, "minute"), (1, "second")];
        let (size, name) = units.into_iter().find(|(size, _)| self.0 >= 2 * size).unwrap_or((1, "second"));
        let number = self.0.div_ceil(size);
        write!(f, "{number} {name}{}", if number == 1 { "" } else { "s" })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use proptest::prelude::*;

    use super::*;

    const DAILY: AuditPlan = AuditPlan { challenges: 24, period_seconds: 86_400 };

    #[test]
    fn known_values() {
        assert!((passes_one_audit(24, 0.9) - 0.079_766).abs() < 1e-6);
        assert!((passes_one_audit(5, 0.5) - 0.031_25).abs() < 1e-12);
        assert!((DAILY.unnoticed(0.99, 30 * 86_400) - 0.000_719_6).abs() < 1e-6);
        // 0.9^24 = 0.08: two audits for 99 %. 0.99^24 = 0.786: twenty.
        assert_eq!(DAILY.noticed_within(0.9, 0.99), Some(2 * 86_400));
        assert_eq!(DAILY.noticed_within(0.99, 0.99), Some(20 * 86_400));
        assert_eq!(AuditPlan::challenges_for(86_400, 0.99, 86_400, 0.01), Some(459));
        assert_eq!(
            DAILY.in_words(),
            "24 places every 24 hours; noticed with 99 %: a loss of 50 % within 24 hours, \
             a loss of 10 % within 2 days, a loss of 1 % within 20 days"
        );
    }

    #[test]
    fn ends_of_the_range() {
        assert_eq!(passes_one_audit(24, 1.0), 1.0);
        assert_eq!(passes_one_audit(24, 0.0), 0.0);
        assert_eq!(passes_one_audit(24, f64::NAN), 1.0);
        assert_eq!(DAILY.noticed_within(1.0, 0.99), None);
        assert_eq!(DAILY.noticed_within(0.5, 1.0), None);
        assert_eq!(DAILY.noticed_within(0.0, 0.99), Some(86_400));
        assert_eq!(DAILY.unnoticed(0.5, 86_399), 1.0);
        assert_eq!(AuditPlan::challenges_for(86_400, 1.0, 86_400, 0.01), None);
        assert_eq!(AuditPlan::challenges_for(86_400, 0.5, 1, 0.01), None);
        assert_eq!(passes_one_audit_of(24, 20, 1), 0.0);
        assert_eq!(passes_one_audit_of(24, 2_000, 0), 1.0);
        assert!((passes_one_audit_of(24, 2_000, 200) - passes_one_audit(24, 0.9)).abs() < 1e-12);
    }

    #[test]
    fn reads_come_when_nobody_expects_them() {
        let plan = ReadPlan { mean_seconds: 4_800 };
        assert!((plan.unread(4_800) - 0.367_879).abs() < 1e-6);
        // ln 100 = 4.605: of one copy so many means, of ten a tenth of it.
        assert_eq!(plan.read_within(1, 0.99), Some(22_105));
        assert_eq!(plan.read_within(10, 0.99), Some(2_211));
        assert_eq!(plan.read_within(1, 0.0), Some(0));
        assert_eq!(plan.unread(0), 1.0);
        for none in [plan.read_within(0, 0.5), plan.read_within(1, 1.0), plan.read_within(1, f64::NAN)] {
            assert_eq!(none, None);
        }
        let never = ReadPlan { mean_seconds: 0 };
        assert_eq!((never.unread(u64::MAX), never.read_within(9, 0.5)), (1.0, None));
        assert_eq!(never.in_words(), "copies are not read");
        assert_eq!(
            plan.in_words(),
            "each is read in part about every 80 minutes, when nobody expects it; one that is kept and not given is noticed with \
             99 % within 7 hours"
        );
    }

    proptest! {
        #[test]
        fn never_outside_zero_to_one_and_never_rising(
            challenges in 1_u16..600, period in 0_u64..1 << 40, kept in -1.0_f64..2.0, seconds in 0_u64..1 << 50
        ) {
            let plan = AuditPlan { challenges, period_seconds: period };
            let now = plan.unnoticed(kept, seconds);
            prop_assert!((0.0..=1.0).contains(&now));
            prop_assert!(plan.unnoticed(kept, seconds * 2) <= now);
            prop_assert!(plan.unnoticed(kept - 0.1, seconds) <= now);
            let _ = plan.noticed_within(kept, 0.999);
        }

        /// The two directions agree: what is noticed within a time is not, one period before.
        #[test]
        fn inverse(challenges in 1_u16..200, kept in 0.05_f64..0.999, confidence in 0.01_f64..0.999) {
            let plan = AuditPlan { challenges, period_seconds: 60 };
            let seconds = plan.noticed_within(kept, confidence).unwrap();
            prop_assert!(plan.unnoticed(kept, seconds) <= 1.0 - confidence + 1e-9);
            if seconds > 60 {
                prop_assert!(plan.unnoticed(kept, seconds - 60) >= 1.0 - confidence - 1e-9);
            }
        }
    }
}
