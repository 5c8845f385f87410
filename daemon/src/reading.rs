//! Reads of what providers keep: what the last ones of each deal showed, and the reads that audits make of their own.
//!
//! Owns the counting (whoever proves a slot and gives it to nobody is at fault, and a bad line blames nobody) and the choice of what an
//! audit reads. proofs/SOUNDNESS.md, section 3, says how soon what is noticed by it.
//!
//! ```text
//! challenge drawn, known to nobody else ─► some of its leaves read, within ranges as a reader's ─► challenge sent ─► proof verified
//!                                                                       the leaves of the two compared: other bytes, or the same
//! ```
//!
//! Promises: a read that cannot be held against a proof which came right after it counts for nothing, for then it may be our line;
//! nor does anything count before enough others of the same piece gave right bytes *since*. Refuses to read much: [`RANGES_MAX`]
//! ranges of [`RANGE_BYTES_MAX`] an audit, in one request over the session's own stream.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use bytes::Bytes;
use holdfast_net::client::{Audit, DrawnAudit, Priority, Session};
use holdfast_net::env::Rng;
use holdfast_net::{ByteRange, DealId, ErrorCode, NetError};
use holdfast_proofs::PieceCid;
use holdfast_proofs::commp::leaf_span;
use parking_lot::Mutex;

/// So many reads of a deal in a row that brought other bytes, or were refused for good, are a fault, whatever its challenges show: a
/// proof of some leaves says nothing of the others, and one who proves everything and gives nothing keeps the data from its owner.
pub const WRONG_READS_MAX: u32 = 3;
/// The same for reads that were put off or not answered in time while challenges were, if they go on for so long: a provider may
/// be busy, and a line may be good enough for a challenge alone.
pub const WITHHELD_MIN: Duration = Duration::from_secs(3600);
/// Ranges that one audit reads.
pub const RANGES_MAX: u64 = 2;
/// Bytes of the longest range, and of the shortest: those of the blocks that readers ask for, from a small file's to a chunk of 256 KiB.
pub const RANGE_BYTES_MAX: u64 = 256 << 10;
const RANGE_BYTES_MIN: u64 = 128;
/// A read that takes longer is of no use to a program that reads a file.
pub const READ_PATIENCE: Duration = Duration::from_secs(10);

/// What a read showed that an audit made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Look {
    /// The bytes are those of the proof, as far as it shows them.
    Right,
    /// They are not, or were refused for good.
    Other,
    /// They were not given in time, and the challenge was answered all the same.
    Withheld,
}

/// What the reads of one deal showed.
#[derive(Clone, Copy, Debug, Default)]
struct Shown {
    /// Reads whose blocks were others, in a row.
    blocks: u32,
    /// Reads beside audits that were others, in a row.
    leaves: u32,
    withheld: u32,
    /// When the first of those that count was.
    bad_since: Option<Instant>,
    /// When `withheld` began to count.
    withheld_since: Option<Instant>,
    right_at: Option<Instant>,
    /// Right ones in a row, and whether one was bad before them.
    rights: u32,
    was_bad: bool,
    /// Others were asked for, to see whether they give what it does not.
    compared: bool,
}

impl Shown {
    fn is_doubtful(&self) -> bool {
        self.blocks > 0 || self.leaves > 0 || self.withheld > 0
    }

    fn is_bad(&self, now: Instant) -> bool {
        let long =
            self.withheld_since.is_some_and(|since| now.saturating_duration_since(since) >= WITHHELD_MIN);
        self.blocks >= WRONG_READS_MAX
            || self.leaves >= WRONG_READS_MAX
            || (self.withheld >= WRONG_READS_MAX && long)
    }

    fn bad(&mut self, now: Instant) {
        self.bad_since.get_or_insert(now);
        (self.rights, self.was_bad) = (0, true);
    }

    fn right(&mut self, now: Instant) {
        self.right_at = Some(now);
        self.rights = self.rights.saturating_add(1);
        if !self.is_doubtful() {
            self.bad_since = None;
            self.compared = false;
        }
    }
}

/// Whether a deal's reads are a fault of its holder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Judged {
    /// No.
    Nothing,
    /// Yes: enough others gave right bytes since.
    Fault,
    /// Too few others were read since; these may be. `first`: it was not said before.
    Unsure { others: Vec<Vec<u8>>, first: bool },
}

/// See the module.
#[derive(Default)]
pub struct Readings {
    of: Mutex<HashMap<Vec<u8>, Shown>>,
}

impl Readings {
    fn change(&self, deal: &[u8], what: impl FnOnce(&mut Shown)) {
        what(self.of.lock().entry(deal.to_vec()).or_default());
    }

    /// A reader got other bytes, or was refused for good.
    pub fn wrong(&self, deal: &[u8], now: Instant) {
        self.change(deal, |shown| {
            shown.blocks = shown.blocks.saturating_add(1);
            shown.bad(now);
        });
    }

    /// A reader got what it asked for, to the last byte.
    pub fn right(&self, deal: &[u8], now: Instant) {
        self.change(deal, |shown| {
            (shown.blocks, shown.leaves, shown.withheld, shown.withheld_since) = (0, 0, 0, None);
            shown.right(now);
        });
    }

    /// What a read beside an audit showed. A right one compared some leaves, and takes nothing back of what readers met with.
    pub fn looked(&self, deal: &[u8], look: Look, now: Instant) {
        self.change(deal, |shown| match look {
            Look::Right => {
                (shown.leaves, shown.withheld, shown.withheld_since) = (0, 0, None);
                shown.right(now);
            }
            Look::Other => {
                shown.leaves = shown.leaves.saturating_add(1);
                shown.bad(now);
            }
            Look::Withheld => {
                shown.withheld = shown.withheld.saturating_add(1);
                shown.withheld_since.get_or_insert(now);
                shown.bad(now);
            }
        });
    }

    /// Whether something was wrong since the last right read: it is read again at every challenge.
    pub fn is_doubtful(&self, deal: &[u8]) -> bool {
        self.of.lock().get(deal).is_some_and(Shown::is_doubtful)
    }

    /// Whether it was read since then, and the last read brought the right bytes; so did those before it, as many as make a fault, where one had
    /// not: a read beside an audit compares some leaves only.
    pub fn right_since(&self, deal: &[u8], since: Instant) -> bool {
        let right = |shown: &Shown| {
            let trusted = !shown.was_bad || shown.rights >= WRONG_READS_MAX;
            shown.right_at.is_some_and(|at| at >= since) && !shown.is_doubtful() && trusted
        };
        self.of.lock().get(deal).is_some_and(right)
    }

    /// Whether a deal gave other bytes, or none, so often in a row that asking it for a whole slot is a waste.
    pub fn is_given_up(&self, deal: &[u8], now: Instant) -> bool {
        self.of.lock().get(deal).is_some_and(|shown| shown.is_bad(now))
    }

    /// Whether this deal's reads are its holder's fault. `others` are deals of the same piece or stripe with other holders, which count;
    /// of those `need` give the piece without it. If they did not give right bytes since, the fault may be nearer to this machine.
    pub fn judge(&self, deal: &[u8], others: &[Vec<u8>], need: usize, now: Instant) -> Judged {
        let mut of = self.of.lock();
        let Some(since) = of.get(deal).filter(|shown| shown.is_bad(now)).and_then(|shown| shown.bad_since)
        else {
            return Judged::Nothing;
        };
        let right = |other: &&Vec<u8>| {
            of.get(*other).is_some_and(|s| !s.is_doubtful() && s.right_at.is_some_and(|at| at >= since))
        };
        let (gave, not): (Vec<&Vec<u8>>, Vec<&Vec<u8>>) = others.iter().partition(right);
        if gave.len() >= need.max(1) {
            return Judged::Fault;
        }
        let others = not.into_iter().cloned().collect();
        let first = of.get_mut(deal).is_some_and(|shown| !std::mem::replace(&mut shown.compared, true));
        Judged::Unsure { others, first }
    }

    /// Forgets deals that are no more.
    pub fn keep(&self, is_known: impl Fn(&[u8]) -> bool) {
        self.of.lock().retain(|deal, _| is_known(deal));
    }
}

/// Whether a failed read is a reason to challenge the slot: its holder broke the protocol, or refused for a reason that time does not
/// mend. A read that we cancelled ourselves is none.
pub fn is_suspicious(error: &NetError) -> bool {
    let refused = |code: ErrorCode| !code.is_retryable() && code != ErrorCode::Cancelled;
    error.is_fault_of_provider() || error.code().is_some_and(refused)
}

/// A number below `below`, which is not zero.
fn draw(rng: &dyn Rng, below: u64) -> u64 {
    let mut random = [0; 8];
    rng.fill(&mut random);
    u64::from_le_bytes(random).checked_rem(below).unwrap_or(0)
}

/// Ranges around some of the leaves that a challenge asks: as long as a reader's, by powers of two with equal chances, and beginning
/// anywhere, so that nothing in them says where in them the leaf is.
fn ranges(rng: &dyn Rng, positions: &[u64], payload_len: u64) -> Vec<ByteRange> {
    let count = 1 + draw(rng, RANGES_MAX);
    let doublings = u64::from((RANGE_BYTES_MAX / RANGE_BYTES_MIN).ilog2());
    let chosen = (0..count).filter_map(|_| {
        let position = positions.get(usize::try_from(draw(rng, positions.len() as u64)).ok()?)?;
        let (from, to) = leaf_span(payload_len, *position, 1);
        let least = RANGE_BYTES_MIN << draw(rng, doublings);
        let len = (least + draw(rng, least)).max(to - from).min(payload_len);
        let (first, last) = (to.saturating_sub(len), from.min(payload_len - len));
        let offset = first + draw(rng, last.saturating_sub(first) + 1);
        Some(ByteRange::new(offset, u32::try_from(len).ok()?))
    });
    chosen.collect()
}

/// A read that was made beside an audit, before it was asked.
pub struct Beside {
    ranges: Vec<ByteRange>,
    read: Result<Vec<Bytes>, NetError>,
}

impl Beside {
    /// Reads what a drawn challenge will ask, as any reader would: nothing that this sends tells it from one.
    pub async fn read(
        session: &Session,
        deal: DealId,
        drawn: &DrawnAudit,
        piece: &PieceCid,
        rng: &dyn Rng,
    ) -> Result<Beside, NetError> {
        let ranges = ranges(rng, &drawn.positions()?, piece.payload_len());
        let priority = if draw(rng, 2) == 0 { Priority::Interactive } else { Priority::Bulk };
        let reading = session.read(deal, &ranges, priority, READ_PATIENCE);
        // The session bounds the request; this bounds dialling as well.
        let read = match tokio::time::timeout(READ_PATIENCE * 2, reading).await {
            Ok(read) => read,
            Err(_) => Err(NetError::Timeout(READ_PATIENCE)),
        };
        Ok(Beside { ranges, read })
    }

    /// What it shows, once the challenge was answered; nothing where it says nothing of the provider.
    pub fn held_against(&self, audit: &Audit) -> Option<Look> {
        self.compared(|offset, part| audit.beside(offset, part).is_ok_and(|found| found.other == 0))
    }

    /// Why it failed, if it did.
    pub fn error(&self) -> Option<&NetError> {
        self.read.as_ref().err()
    }

    fn compared(&self, is_same: impl Fn(u64, &[u8]) -> bool) -> Option<Look> {
        match &self.read {
            Ok(parts) => {
                let whole = |(range, part): (&ByteRange, &Bytes)| {
                    part.len() as u64 == u64::from(range.len) && is_same(range.offset, part)
                };
                let same = parts.len() == self.ranges.len() && self.ranges.iter().zip(parts).all(whole);
                Some(if same { Look::Right } else { Look::Other })
            }
            Err(error) if is_suspicious(error) => Some(Look::Other),
            Err(NetError::Invalid(_) | NetError::Local(_) | NetError::Closed) => None,
            Err(error) if error.code() == Some(ErrorCode::Cancelled) => None,
            Err(_) => Some(Look::Withheld),
        }
    }
}

/// When copies are read, whatever their challenges: at times that follow from nothing, so that no provider can be honest in time.
#[derive(Default)]
pub struct Times {
    next: Option<Instant>,
}

impl Times {
    /// How many of `copies` copies are to be read now, if each is every `mean` on average. What a pause left out is not made up for.
    pub fn due(&mut self, rng: &dyn Rng, now: Instant, mean: Duration, copies: u64, max: usize) -> usize {
        if copies == 0 || mean.is_zero() {
            self.next = None;
            return 0;
        }
        let gap = || {
            // From 2^-53 to 1: a logarithm of it is a number.
            let one = (draw(rng, 1 << 53) + 1) as f64 / (1u64 << 53) as f64;
            mean.mul_f64(-one.ln() / copies as f64)
        };
        let mut next = *self.next.get_or_insert_with(|| now + gap());
        let mut due = 0;
        while next <= now && due < max {
            due += 1;
            next += gap();
        }
        self.next = Some(if next <= now { now + gap() } else { next });
        due
    }

    /// Which: numbers below `copies`, each once.
    pub fn which(rng: &dyn Rng, count: usize, copies: u64) -> Vec<u64> {
        let mut chosen: Vec<u64> = (0..count).map(|_| draw(rng, copies.max(1))).collect();
        chosen.sort_unstable();
        chosen.dedup();
        chosen
    }
}

#[cfg(test)]
mod tests;
