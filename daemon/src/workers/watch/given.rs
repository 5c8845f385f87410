//! A bundle on its way to the providers, and when it is to be another one.

use std::collections::BTreeSet;
use std::time::Duration;

use holdfast_content::watch::CapabilityId;
use tokio::time::Instant;

use crate::drive::ledger::Peer;
use crate::watch::bundle::Bundle;

/// Other bundles are given at most that often; large ones more rarely.
const RENEW: Duration = Duration::from_secs(5);
const RENEW_LARGE: Duration = Duration::from_secs(60);
/// Whether it has to be another one is looked at more often, for a bundle of one part.
const LOOK: Duration = Duration::from_secs(1);

/// See the module.
pub(super) struct Offer {
    pub(super) content: Bundle,
    pub(super) number: u64,
    pub(super) values: Vec<Vec<u8>>,
    pub(super) left_out: usize,
    pub(super) with: BTreeSet<Peer>,
    /// The ledger's version that it is of.
    pub(super) version: u64,
    /// The watchers that it tells of: two that do not know each other place twice.
    pub(super) lasting: Vec<CapabilityId>,
    /// It is known that the next one will say something else.
    pub(super) behind: bool,
    renewed: Instant,
    looked: Instant,
}

impl Offer {
    pub(super) fn new(
        content: Bundle,
        number: u64,
        values: Vec<Vec<u8>>,
        left_out: usize,
        (version, lasting): (u64, Vec<CapabilityId>),
    ) -> Offer {
        let (with, now) = (BTreeSet::new(), Instant::now());
        Offer {
            content,
            number,
            values,
            left_out,
            with,
            version,
            lasting,
            behind: false,
            renewed: now,
            looked: now,
        }
    }

    fn pause(&self) -> Duration {
        if self.values.len() > 1 { RENEW_LARGE } else { RENEW }
    }

    /// Whether it has to be composed again to know what it should be.
    pub(super) fn is_stale(&self, version: u64, lasting: &[CapabilityId], hurry: bool) -> bool {
        let look = if self.values.len() > 1 { RENEW_LARGE } else { LOOK };
        let due = self.looked.elapsed() >= look || (self.behind && self.may_be_renewed());
        self.lasting != lasting || (self.version != version && (due || hurry))
    }

    /// It says what is to be said.
    pub(super) fn is_right(&mut self, version: u64, lasting: Vec<CapabilityId>) {
        (self.version, self.lasting, self.behind, self.looked) = (version, lasting, false, Instant::now());
    }

    /// It does not, and its time has not come.
    pub(super) fn is_behind(&mut self) {
        (self.behind, self.looked) = (true, Instant::now());
    }

    pub(super) fn may_be_renewed(&self) -> bool {
        self.renewed.elapsed() >= self.pause()
    }

    /// When it is to be renewed, of one that is behind.
    pub(super) fn renewed_in(&self) -> Option<Duration> {
        self.behind.then(|| self.pause().saturating_sub(self.renewed.elapsed()))
    }
}
