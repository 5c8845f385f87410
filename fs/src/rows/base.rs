//! Reading rows: the store first, then the base tree beneath it.
//!
//! A restored drive begins with an empty store above the namespace tree of a commit. A row that the store
//! lacks is looked for in that tree; a row deleted here while a base is attached leaves a tombstone (one
//! zero byte), which ends the search.

use std::cmp::Ordering;
use std::sync::Arc;

use bytes::Bytes;
use holdfast_store::{Direction, KeyRange, Reads, StoreError, Table};

use super::RowError;

/// What a tombstone row holds. Row versions begin at 1, so no row is equal to it.
pub const TOMBSTONE: [u8; 1] = [0];

/// Whether a stored value says "deleted here, look no further".
pub fn is_tombstone(value: &[u8]) -> bool {
    value == TOMBSTONE
}

/// Rows in key order.
pub type RowList = Vec<(Vec<u8>, Bytes)>;

/// The namespace tree of a commit, keys (table tag, row key) in byte order, values as in the store.
pub trait BaseTree: Send + Sync {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>, BaseError>;

    /// Rows with `start <= key < end`, at most `limit`, in key order.
    fn range(&self, table: Table, start: &[u8], end: &[u8], limit: usize) -> Result<RowList, BaseError>;
}

/// Why the base tree did not answer.
#[derive(Debug, Clone, thiserror::Error)]
pub enum BaseError {
    /// Nobody who holds the node answered in time; asking again later may help.
    #[error("the network did not answer in time: {0}")]
    Unreachable(String),
    /// The node came and is not what its name says, or does not decode.
    #[error("damaged: {0}")]
    Damaged(String),
}

/// Rows of the store itself with `start <= key < end`, at most `limit`.
pub(crate) fn stored(
    source: &impl Reads,
    table: Table,
    start: &[u8],
    end: &[u8],
    limit: usize,
) -> Result<RowList, StoreError> {
    source.scan(table, &KeyRange::between(start, end), limit, Direction::Forward)
}

/// One row, falling through to the base.
pub(super) fn get(
    source: &impl Reads,
    base: Option<&Arc<dyn BaseTree>>,
    table: Table,
    key: &[u8],
) -> Result<Option<Bytes>, RowError> {
    match source.get(table, key)? {
        Some(value) if is_tombstone(&value) => Ok(None),
        Some(value) => Ok(Some(value)),
        None => match base {
            Some(base) => Ok(base.get(table, key)?),
            None => Ok(None),
        },
    }
}

/// Rows of a range, falling through to the base row by row; tombstones are left out.
///
/// Fewer than `limit` rows mean that the range ends; so pages are filled across runs of tombstones.
pub(super) fn range(
    source: &impl Reads,
    base: Option<&Arc<dyn BaseTree>>,
    table: Table,
    start: &[u8],
    end: &[u8],
    limit: usize,
) -> Result<RowList, RowError> {
    let Some(base) = base else {
        return Ok(stored(source, table, start, end, limit)?);
    };
    let mut out = RowList::new();
    let mut from = start.to_vec();
    while out.len() < limit && from.as_slice() < end {
        // One more than asked for, so that `limit` 1 makes progress past a tombstone in one step.
        let page = limit.saturating_sub(out.len()).saturating_add(1).max(16);
        let upper = stored(source, table, &from, end, page)?;
        let lower = base.range(table, &from, end, page)?;
        // Beyond the last key of a full page one side is unknown: merge only up to there.
        let upper_end = (upper.len() >= page).then(|| upper.last().map(|(key, _)| key.clone())).flatten();
        let lower_end = (lower.len() >= page).then(|| lower.last().map(|(key, _)| key.clone())).flatten();
        let known_to = match (upper_end, lower_end) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
        merge(upper, lower, known_to.as_deref(), &mut out);
        match known_to {
            Some(mut key) => {
                key.push(0);
                from = key;
            }
            None => break,
        }
    }
    out.truncate(limit);
    Ok(out)
}

/// Appends the union of both lists up to and including `known_to`; `upper` wins, its tombstones erase.
fn merge(upper: RowList, lower: RowList, known_to: Option<&[u8]>, out: &mut RowList) {
    let known = |key: &Vec<u8>| known_to.is_none_or(|end| key.as_slice() <= end);
    let mut upper = upper.into_iter().filter(|(key, _)| known(key)).peekable();
    let mut lower = lower.into_iter().filter(|(key, _)| known(key)).peekable();
    loop {
        let order = match (upper.peek(), lower.peek()) {
            (Some((a, _)), Some((b, _))) => a.cmp(b),
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (None, None) => return,
        };
        if order == Ordering::Equal {
            lower.next();
        }
        let next = if order == Ordering::Greater { lower.next() } else { upper.next() };
        if let Some((key, value)) = next
            && !is_tombstone(&value)
        {
            out.push((key, value));
        }
    }
}
