//! The daemon's rows: intents, deals, placement, whatever must survive a restart.
//!
//! Owns: access to `Table::Jobs`. Promises: a commit is all or nothing, and durable when it returns. Knows nothing of what the rows mean.

use bytes::Bytes;
use holdfast_store::{Direction, KeyRange, Reads, Store, Table, Txn};

use super::error::DriveError;

/// Rows of one scan at most in memory at once.
const PAGE_ROWS: usize = 1024;

/// A durable map from bytes to bytes.
#[derive(Clone)]
pub struct Jobs(pub(super) Store);

impl Jobs {
    /// One row.
    pub fn get(&self, key: &[u8]) -> Result<Option<Bytes>, DriveError> {
        Ok(self.0.get(Table::Jobs, key)?)
    }

    /// All rows whose keys begin with `prefix`, in order.
    pub fn scan(&self, prefix: &[u8]) -> Result<Vec<(Vec<u8>, Bytes)>, DriveError> {
        let mut range = KeyRange::prefix(prefix);
        let mut out = Vec::new();
        loop {
            let page = self.0.scan(Table::Jobs, &range, PAGE_ROWS, Direction::Forward)?;
            let last = page.len() < PAGE_ROWS;
            if let Some((key, _)) = page.last() {
                range = range.after(key.clone());
            }
            out.extend(page);
            if last {
                return Ok(out);
            }
        }
    }

    /// Sets rows (or removes those with `None`) together; on disk when this returns.
    pub fn commit(&self, rows: &[(Vec<u8>, Option<Vec<u8>>)]) -> Result<(), DriveError> {
        let mut txn = Txn::new();
        for (key, value) in rows {
            match value {
                Some(value) => txn.put(Table::Jobs, key, value.clone()),
                None => txn.delete(Table::Jobs, key),
            };
        }
        if txn.is_empty() {
            return Ok(());
        }
        let lsn = self.0.commit(txn)?;
        Ok(self.0.sync(lsn)?)
    }
}
