//! What a watcher says it did, and is about to do: left with every provider that it reaches, for its owner and its fellows.
//!
//! ```text
//! part 0        { version 1, suite 1, first, end, intents, places }     first: entries before it were seen to by the owner
//! part 1 + k    { version 1, suite 1, from, entries }                   entries n with n / 128 mod 63 = k
//! ```
//!
//! Entries are those of the placement log (fs/format/content.md), "add" alone, chained and signed by the watcher's log key, each
//! with the holder's receipt. Promises: a log that was read is one unbroken chain of its author. Refuses entries that do
//! anything but add, and to hold more than 7,936 of them that the owner has not seen to.

use std::collections::BTreeMap;

use holdfast_content::dagcbor::{self, FormatError};
use holdfast_content::placement::{ChainEnd, PlacementAction, PlacementEntry, PlacementFacts};
use holdfast_content::watch::part::PLAIN_BYTES_MAX;
use holdfast_net::SigningKey;
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

use super::capability::Known;
use crate::drive::ledger::PieceId;

const WHAT: &str = "watch log";
const VERSION: u64 = 1;
const SUITE: u64 = 1;
/// Entries in a part: with a receipt of some hundred bytes each, about 100 KB.
const PER_PART: u64 = 128;
/// Parts that entries go round in.
const RING: u64 = 63;
/// Entries that wait for the owner: one part less than the ring has, since the first may be begun in the middle.
pub const ENTRIES_MAX: u64 = PER_PART * (RING - 1);
/// Slots that a watcher is about to place.
pub const INTENTS_MAX: usize = 64;
/// Providers whose addresses it tells.
const PLACES_MAX: usize = 512;

/// A slot of a piece or stripe.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SlotName {
    /// Piece or stripe.
    #[serde(with = "serde_bytes")]
    pub piece: PieceId,
    /// Which slot of it.
    pub slot: u16,
}

/// Part 0.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LogHead {
    version: u64,
    suite: u64,
    /// Where the entries begin.
    pub first: ChainEnd,
    /// Where they end.
    pub end: ChainEnd,
    /// Slots that are about to be placed.
    pub intents: Vec<SlotName>,
    /// Providers that the owner did not name, and where they are.
    pub places: Vec<Known>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct LogPart {
    version: u64,
    suite: u64,
    from: u64,
    entries: Vec<ByteBuf>,
}

impl LogHead {
    /// From part 0.
    pub fn decode(bytes: &[u8]) -> Result<LogHead, FormatError> {
        check(bytes)?;
        let head: LogHead = dagcbor::decode(WHAT, bytes, PLAIN_BYTES_MAX)?;
        let many = head.intents.len() > INTENTS_MAX || head.places.len() > PLACES_MAX;
        let entries = head.end.length.checked_sub(head.first.length);
        if many || entries.is_none_or(|entries| entries > ENTRIES_MAX) {
            return Err(FormatError::malformed(WHAT, "its bounds"));
        }
        Ok(head)
    }

    /// The parts that hold its entries.
    pub fn parts(&self) -> Vec<u16> {
        parts(self.first.length, self.end.length)
    }
}

fn check(bytes: &[u8]) -> Result<(), FormatError> {
    let found = dagcbor::peek_version(WHAT, bytes)?;
    dagcbor::check_version(WHAT, found.version, VERSION)?;
    dagcbor::check_version(WHAT, found.suite, SUITE)
}

fn part_of(number: u64) -> u16 {
    u16::try_from(1 + (number / PER_PART) % RING).unwrap_or(u16::MAX)
}

fn parts(from: u64, to: u64) -> Vec<u16> {
    let first = from - from % PER_PART;
    let mut all: Vec<u16> =
        (first..to).step_by(usize::try_from(PER_PART).unwrap_or(1)).map(part_of).collect();
    all.dedup();
    all
}

/// One watcher's entries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Log {
    author: [u8; 32],
    first: ChainEnd,
    entries: Vec<PlacementEntry>,
}

impl Log {
    /// One without entries.
    pub fn new(author: [u8; 32], first: ChainEnd) -> Log {
        Log { author, first, entries: Vec::new() }
    }

    /// From a head and the plain parts that it names.
    pub fn read(
        author: [u8; 32],
        head: &LogHead,
        plain: &BTreeMap<u16, Vec<u8>>,
    ) -> Result<Log, FormatError> {
        let mut entries: BTreeMap<u64, ByteBuf> = BTreeMap::new();
        for bytes in head.parts().iter().filter_map(|part| plain.get(part)) {
            check(bytes)?;
            let part: LogPart = dagcbor::decode(WHAT, bytes, PLAIN_BYTES_MAX)?;
            entries.extend((part.from..).zip(part.entries));
        }
        let mut log = Log::new(author, head.first);
        for number in head.first.length..head.end.length {
            let bytes =
                entries.get(&number).ok_or_else(|| FormatError::malformed(WHAT, "an entry is missing"))?;
            log.follow(PlacementEntry::verify(bytes)?)?;
        }
        if log.end() != head.end {
            return Err(FormatError::malformed(WHAT, "it ends elsewhere than it says"));
        }
        Ok(log)
    }

    pub(super) fn follow(&mut self, entry: PlacementEntry) -> Result<(), FormatError> {
        let (said, end) = (entry.body(), self.end());
        let next = said.author == self.author && said.number == end.length && said.prev == end.last;
        if !next || said.action != PlacementAction::Add {
            return Err(FormatError::malformed(WHAT, "an entry that does not follow, or does not add"));
        }
        self.entries.push(entry);
        Ok(())
    }

    /// Says that a slot was placed.
    pub fn add(&mut self, facts: PlacementFacts, key: &SigningKey) -> Result<&PlacementEntry, FormatError> {
        if self.entries.len() as u64 >= ENTRIES_MAX {
            return Err(FormatError::malformed(WHAT, "full until the owner comes back"));
        }
        self.follow(PlacementEntry::sign(facts, &self.end(), key)?)?;
        self.entries.last().ok_or_else(|| FormatError::malformed(WHAT, "nothing was added"))
    }

    /// The owner has seen to the entries before `taken`: they go. Whether any did.
    pub fn trim(&mut self, taken: &ChainEnd) -> bool {
        let Some(gone) = taken.length.checked_sub(self.first.length) else { return false };
        let Some(last) = usize::try_from(gone).ok().and_then(|gone| self.entries.get(gone.checked_sub(1)?))
        else {
            return false;
        };
        if last.digest() != taken.last {
            return false;
        }
        self.entries.drain(..usize::try_from(gone).unwrap_or(usize::MAX).min(self.entries.len()));
        self.first = *taken;
        true
    }

    /// Where the entries begin.
    pub fn first(&self) -> ChainEnd {
        self.first
    }

    /// Where they end: what the next one follows.
    pub fn end(&self) -> ChainEnd {
        self.entries.last().map_or(self.first, PlacementEntry::chain_end)
    }

    /// The entries.
    pub fn entries(&self) -> &[PlacementEntry] {
        &self.entries
    }

    /// Part 0.
    pub fn head(&self, intents: Vec<SlotName>, mut places: Vec<Known>) -> Result<Vec<u8>, FormatError> {
        places.truncate(PLACES_MAX);
        let (first, end) = (self.first, self.end());
        dagcbor::encode(WHAT, &LogHead { version: VERSION, suite: SUITE, first, end, intents, places })
    }

    /// The parts that hold the entries from `from` on, with their numbers.
    pub fn parts(&self, from: u64) -> Result<Vec<(u16, Vec<u8>)>, FormatError> {
        let from = from.max(self.first.length);
        parts(from, self.end().length)
            .into_iter()
            .map(|part| {
                // Of one part of the ring, the newest round.
                let within = |entry: &&PlacementEntry| part_of(entry.body().number) == part;
                let own: Vec<&PlacementEntry> = self.entries.iter().filter(within).collect();
                let begins = own.first().map_or(0, |entry| entry.body().number);
                let entries = own.iter().map(|entry| ByteBuf::from(entry.bytes())).collect();
                let value = LogPart { version: VERSION, suite: SUITE, from: begins, entries };
                Ok((part, dagcbor::encode(WHAT, &value)?))
            })
            .collect()
    }
}

/// Any bytes as either kind of part: for fuzzing.
pub(crate) fn decode_any(bytes: &[u8]) {
    if let Ok(head) = LogHead::decode(bytes) {
        let plain = head.parts().into_iter().map(|part| (part, bytes.to_vec())).collect();
        let _ = Log::read([1; 32], &head, &plain);
    }
    let _ = dagcbor::decode::<LogPart>(WHAT, bytes, PLAIN_BYTES_MAX);
}

#[cfg(test)]
pub(crate) mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn facts(n: u16) -> PlacementFacts {
        PlacementFacts {
            action: PlacementAction::Add,
            piece: [4; 16],
            raw_len: 100,
            slot: n % 100,
            holder: vec![1; 38],
            slot_cid: vec![2; 39],
            deal: vec![3; 32],
            receipt: vec![5; 30],
            time: 1_800_000_000,
        }
    }

    pub(crate) fn sample(entries: u16) -> (Log, SigningKey) {
        let key = SigningKey::from_bytes(&[7; 32]);
        let mut log = Log::new(key.verifying_key().to_bytes(), ChainEnd::default());
        for n in 0..entries {
            log.add(facts(n), &key).unwrap();
        }
        (log, key)
    }

    fn again(log: &Log) -> Result<Log, FormatError> {
        let head = LogHead::decode(&log.head(Vec::new(), Vec::new())?)?;
        Log::read(log.author, &head, &log.parts(0)?.into_iter().collect())
    }

    #[test]
    fn a_log_is_read_as_it_was_written_and_grows_in_a_ring() {
        let (mut log, key) = sample(300);
        assert_eq!(again(&log).unwrap(), log);
        assert_eq!(log.parts(299).unwrap().len(), 1, "only what changed is written");
        let taken = log.entries()[199].chain_end();
        assert!(log.trim(&taken) && !log.trim(&taken) && log.entries().len() == 100);
        assert_eq!(again(&log).unwrap(), log);
        assert!(!log.trim(&ChainEnd { length: 250, last: [1; 32] }), "another chain");
        for n in 0..8_000u16 {
            if log.add(facts(n), &key).is_err() {
                assert_eq!(log.entries().len() as u64, ENTRIES_MAX);
                break;
            }
        }
        let end = log.entries()[4_000].chain_end();
        assert!(log.trim(&end));
        assert_eq!(again(&log).unwrap(), log);
    }

    #[test]
    fn a_broken_chain_is_no_log() {
        let (log, key) = sample(3);
        let head = LogHead::decode(&log.head(Vec::new(), Vec::new()).unwrap()).unwrap();
        let plain: BTreeMap<_, _> = log.parts(0).unwrap().into_iter().collect();
        assert!(Log::read([1; 32], &head, &plain).is_err(), "another author");
        assert!(Log::read(log.author, &head, &BTreeMap::new()).is_err());
        let later = LogHead { first: log.entries()[0].chain_end(), ..head.clone() };
        assert_eq!(Log::read(log.author, &later, &plain).unwrap().entries().len(), 2);
        let other = LogHead { end: ChainEnd { length: 3, last: [0; 32] }, ..head };
        assert!(Log::read(log.author, &other, &plain).is_err());
        let remove = PlacementFacts { action: PlacementAction::Remove, ..facts(1) };
        assert!(sample(3).0.add(remove, &key).is_err(), "a watcher removes nothing");
        assert!(sample(3).0.add(facts(1), &SigningKey::from_bytes(&[8; 32])).is_err());
    }
}
