//! The owner's rules for the drive's workers: how many losses to survive, and how soon each step is taken.
//!
//! The owner's part of it stands in the home's `config` (`policy`, `limits`); the rest are constants of the design.

use holdfast_fs::retention::rule::RetentionRule;
use holdfast_proofs::{AuditPlan, ReadPlan, pdp::CHALLENGES_MAX};

/// How long deals are made for, unless the owner says otherwise.
pub const DEAL_SECONDS: u64 = 180 * 24 * 3600;

/// Whoever keeps less of a copy than this ...
const AUDIT_KEPT: f64 = 0.99;
/// ... is noticed within this time ...
const AUDIT_NOTICED_SECONDS: u64 = 24 * 3600;
/// ... but for this chance.
const AUDIT_RISK: f64 = 0.01;

/// Named limits and intervals; units and qualifiers come last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// The drive survives the loss of any so many providers; one more copy than that is placed.
    pub survive_losses: u8,
    /// Stripes have at most so many data slots; 0 or 1: no stripes are made.
    pub stripe_data_max: u16,
    /// A piece stays copies for so long before it goes into a stripe.
    pub stripe_after_seconds: u64,
    /// What is surplus, after pieces became a stripe or a stripe copies, is kept for so long.
    pub surplus_grace_seconds: u64,
    /// A change is sealed once nothing was written for so long. 60 s from idle to Placed leave most of it to the uplink.
    pub seal_idle_seconds: u64,
    /// A drive that is never idle is sealed this often: Placed within 5 min, as the design promises, leaves 4 for the uplink.
    pub seal_age_seconds_max: u64,
    /// With more unsealed bytes than that a seal starts at once.
    pub seal_bytes_max: u64,
    /// Every copy is challenged this often, as far as `audits_per_second_max` allows.
    pub audit_interval_seconds: u64,
    /// A challenge costs a provider about a hundred reads of a page and the line 40 KB: a large drive asks each copy less often.
    pub audits_per_second_max: u64,
    /// One of so many challenges of a copy reads some of it first, as far as `reads_per_second_max` allows; zero: none does.
    pub read_one_in: u64,
    /// A read costs the line some 50 KB on average: a large drive reads each copy less often.
    pub reads_per_second_max: u64,
    /// Leaves asked in one challenge, at least; proofs/SOUNDNESS.md says what they show.
    pub audit_leaves: u16,
    /// A provider that stays silent for so long, while others answer, is replaced.
    pub failed_after_seconds: u64,
    /// The same for a piece of which only one live copy is left: the next loss would be the last.
    pub urgent_after_seconds: u64,
    /// A provider that was not heard of for so long is greeted.
    pub greet_seconds: u64,
    /// A provider that was caught gets no new copies for so long.
    pub barred_seconds: u64,
    /// Deals are made for this time and renewed in their last third.
    pub deal_seconds: u64,
    /// Local copies of what is safe are dropped above this; `None` keeps them all.
    pub local_bytes_max: Option<u64>,
    /// What the home folder may hold; beyond, writers wait and safe local copies go.
    pub quota_bytes: Option<u64>,
    /// Which commits stay.
    pub retention: RetentionRule,
    /// What nothing reaches any more is kept for so long before its copies are given up.
    pub grace_seconds: u64,
    /// A local copy goes only if every holder proved possession within this time.
    pub evict_proven_seconds_max: u64,
    /// Slots on their way at once. Two keep a link busy while one waits for a receipt.
    pub place_parallel: usize,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            survive_losses: 2,
            stripe_data_max: 8,
            stripe_after_seconds: 900,
            surplus_grace_seconds: 3600,
            seal_idle_seconds: 10,
            seal_age_seconds_max: 60,
            seal_bytes_max: 256 << 20,
            audit_interval_seconds: 600,
            audits_per_second_max: 4,
            read_one_in: 8,
            reads_per_second_max: 1,
            audit_leaves: 64,
            failed_after_seconds: 180,
            urgent_after_seconds: 20,
            greet_seconds: 30,
            barred_seconds: 24 * 3600,
            deal_seconds: DEAL_SECONDS,
            local_bytes_max: None,
            quota_bytes: None,
            retention: RetentionRule { all_hours: 24, hourly: 48, daily: 30, weekly: 52 },
            grace_seconds: 24 * 3600,
            evict_proven_seconds_max: 24 * 3600,
            place_parallel: 6,
        }
    }
}

impl Policy {
    /// As the home's configuration has it.
    pub fn of(config: &crate::home::Config) -> Self {
        let limits = &config.limits;
        Self {
            survive_losses: config.policy.survive_losses,
            stripe_data_max: config.policy.stripe_data_max,
            stripe_after_seconds: limits.stripe_after_seconds,
            surplus_grace_seconds: limits.surplus_grace_seconds,
            seal_idle_seconds: limits.seal_after_idle_seconds,
            seal_age_seconds_max: limits.seal_after_seconds_max,
            audit_interval_seconds: limits.audit_interval_seconds,
            failed_after_seconds: limits.provider_silent_seconds_max,
            local_bytes_max: (limits.local_pieces_bytes_max > 0).then_some(limits.local_pieces_bytes_max),
            retention: RetentionRule {
                all_hours: config.policy.retention.all_hours,
                hourly: config.policy.retention.hourly,
                daily: config.policy.retention.daily,
                weekly: config.policy.retention.weekly,
            },
            grace_seconds: config.policy.retention.grace_hours.saturating_mul(3600),
            quota_bytes: (limits.quota_bytes > 0).then_some(limits.quota_bytes),
            ..Self::default()
        }
    }

    /// How often each of `copies` copies is challenged.
    pub fn audit_interval(&self, copies: u64) -> u64 {
        self.audit_interval_seconds.max(copies.checked_div(self.audits_per_second_max).unwrap_or(0))
    }

    /// How each of `copies` copies is audited. Where audits are far apart each asks more leaves, so that a loss of a hundredth of
    /// a copy is noticed within a day with 99 % (as far as one challenge has room for).
    pub fn audit_plan(&self, copies: u64) -> AuditPlan {
        let period_seconds = self.audit_interval(copies);
        let needed = AuditPlan::challenges_for(period_seconds, AUDIT_KEPT, AUDIT_NOTICED_SECONDS, AUDIT_RISK);
        let challenges = needed.unwrap_or(CHALLENGES_MAX).max(self.audit_leaves).min(CHALLENGES_MAX);
        AuditPlan { challenges, period_seconds }
    }

    /// How each of `copies` copies is read beside its audits.
    pub fn read_plan(&self, copies: u64) -> ReadPlan {
        let often = self.audit_interval_seconds.saturating_mul(self.read_one_in);
        let allowed = copies.checked_div(self.reads_per_second_max).unwrap_or(0);
        ReadPlan { mean_seconds: if self.read_one_in == 0 { 0 } else { often.max(allowed) } }
    }

    /// Unsealed bytes with which a seal starts at once; `waiting`: somebody waits for room.
    pub fn seal_bytes(&self, waiting: bool) -> u64 {
        match self.quota_bytes {
            // A commit has blocks of its own: smaller ones would cost more than they free.
            Some(quota) if waiting => self.seal_bytes_max.min(quota / 64),
            Some(quota) => self.seal_bytes_max.min(quota / 16),
            None => self.seal_bytes_max,
        }
    }

    /// Under a quota local copies go once less than the first is free, until the second is.
    pub fn evict_between(&self) -> Option<(u64, u64)> {
        self.quota_bytes.map(|quota| (quota / 4, quota / 8 * 3))
    }

    /// Copies of every piece, each with another provider.
    pub fn copies(&self) -> u16 {
        u16::from(self.survive_losses) + 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rarer_audits_ask_more() {
        let policy = Policy::default();
        let plan = |copies| policy.audit_plan(copies);
        // Small drives: every ten minutes, and far better than a day.
        assert_eq!((plan(0).challenges, plan(2_400).period_seconds), (policy.audit_leaves, 600));
        assert!(plan(2_400).noticed_within(AUDIT_KEPT, 0.99).is_some_and(|seconds| seconds < 2 * 3600));
        let mut last = 0;
        for copies in [0, 10_000, 50_000, 100_000, 172_800, 345_600] {
            let plan = plan(copies);
            assert!(plan.challenges >= last, "{copies}: {plan:?}");
            assert!(plan.unnoticed(AUDIT_KEPT, AUDIT_NOTICED_SECONDS) <= AUDIT_RISK, "{copies}: {plan:?}");
            last = plan.challenges;
        }
        assert!(last > policy.audit_leaves);
        // So much for what is kept; what is given is read, within a day up to some 18,000 copies.
        let read = |copies| policy.read_plan(copies).read_within(1, 0.99).unwrap_or(u64::MAX);
        assert!(read(1) < 7 * 3600 && read(4_800) == read(1), "{} s", read(1));
        assert!(read(18_000) < AUDIT_NOTICED_SECONDS && read(20_000) > AUDIT_NOTICED_SECONDS);
        assert_eq!(Policy { read_one_in: 0, ..policy.clone() }.read_plan(1).read_within(1, 0.99), None);
        // Once in several days: as many as a challenge takes.
        assert_eq!(plan(10_000_000).challenges, CHALLENGES_MAX);
    }
}
