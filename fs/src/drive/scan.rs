//! Reading a range of one table, in pages.

use bytes::Bytes;
use holdfast_store::{Direction, KeyRange, Reads, StoreError, Table};

/// Rows with `start <= key < end`, at most `limit`, in key order; fewer mean that the range ends.
pub(crate) fn range(
    source: &impl Reads,
    table: Table,
    start: &[u8],
    end: &[u8],
    limit: usize,
) -> Result<Vec<(Vec<u8>, Bytes)>, StoreError> {
    source.scan(table, &KeyRange::between(start, end), limit, Direction::Forward)
}
