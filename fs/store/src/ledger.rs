//! The ledger: what each segment still holds that somebody needs.
//!
//! Kept in the order of records, frozen with the delta and written with its batch, so that it is exact as of `applied_lsn`
//! and the replay of later records carries it on.

use std::collections::BTreeMap;

use crate::Lsn;
use crate::payload::Place;

/// The account of one segment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Account {
    pub(crate) live_payloads: u64,
    pub(crate) live_bytes: u64,
    /// The record that brought the first payload here.
    pub(crate) first_birth: Lsn,
    /// The record with which the last payload died here: a snapshot between both may still read one.
    pub(crate) last_release: Lsn,
    /// The last record that stands here (log segments).
    pub(crate) last_lsn: Lsn,
}

impl Account {
    /// Whether one of these snapshots knows a payload that has died here since.
    pub(crate) fn is_readable_from(&self, snapshots: &BTreeMap<Lsn, usize>) -> bool {
        self.first_birth < self.last_release
            && snapshots.range(self.first_birth..self.last_release).next().is_some()
    }
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Ledger(pub(crate) BTreeMap<u64, Account>);

const ACCOUNT_BYTES: usize = 48;

impl Ledger {
    pub(crate) fn record(&mut self, segment: u64, lsn: Lsn) {
        let account = self.0.entry(segment).or_default();
        account.last_lsn = account.last_lsn.max(lsn);
    }

    pub(crate) fn born(&mut self, place: &Place) {
        let account = self.0.entry(place.segment).or_default();
        account.live_payloads += 1;
        if account.first_birth == 0 {
            account.first_birth = place.lsn;
        }
        account.live_bytes += u64::from(place.len);
    }

    pub(crate) fn died(&mut self, place: &Place, lsn: Lsn) {
        let account = self.0.entry(place.segment).or_default();
        account.live_payloads = account.live_payloads.saturating_sub(1);
        account.live_bytes = account.live_bytes.saturating_sub(u64::from(place.len));
        account.last_release = lsn;
    }

    pub(crate) fn account(&self, segment: u64) -> Account {
        self.0.get(&segment).copied().unwrap_or_default()
    }

    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        for (segment, account) in &self.0 {
            for number in [
                *segment,
                account.live_payloads,
                account.live_bytes,
                account.first_birth,
                account.last_release,
                account.last_lsn,
            ] {
                out.extend_from_slice(&number.to_le_bytes());
            }
        }
    }

    pub(crate) fn decode(bytes: &[u8]) -> Option<Ledger> {
        if !bytes.len().is_multiple_of(ACCOUNT_BYTES) {
            return None;
        }
        let mut ledger = Ledger::default();
        for entry in bytes.chunks_exact(ACCOUNT_BYTES) {
            let mut numbers = entry
                .chunks_exact(8)
                .map(|part| part.iter().rev().fold(0u64, |acc, byte| acc << 8 | u64::from(*byte)));
            let segment = numbers.next()?;
            let account = Account {
                live_payloads: numbers.next()?,
                live_bytes: numbers.next()?,
                first_birth: numbers.next()?,
                last_release: numbers.next()?,
                last_lsn: numbers.next()?,
            };
            ledger.0.insert(segment, account);
        }
        Some(ledger)
    }
}
