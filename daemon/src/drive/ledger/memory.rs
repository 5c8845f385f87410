//! Rows in memory: the fake of [`RowStore`], and what a restore reads through before it has a home to write to.

use std::collections::BTreeMap;

use parking_lot::Mutex;

use super::{RowError, RowStore};

/// See the module. `refuse` makes commits fail, as a full disk would.
#[derive(Default)]
pub struct MemoryRows {
    rows: Mutex<BTreeMap<Vec<u8>, Vec<u8>>>,
    refuse: Mutex<bool>,
}

impl MemoryRows {
    /// From now on every commit fails, or works again.
    pub fn refuse(&self, yes: bool) {
        *self.refuse.lock() = yes;
    }
}

impl RowStore for MemoryRows {
    fn scan(&self, prefix: &[u8]) -> Result<Vec<(Vec<u8>, Vec<u8>)>, RowError> {
        let rows = self.rows.lock();
        let from = rows.range(prefix.to_vec()..);
        Ok(from.take_while(|(k, _)| k.starts_with(prefix)).map(|(k, v)| (k.clone(), v.clone())).collect())
    }

    fn commit(&self, rows: Vec<(Vec<u8>, Option<Vec<u8>>)>) -> Result<(), RowError> {
        if *self.refuse.lock() {
            return Err(RowError("no space is left".into()));
        }
        let mut all = self.rows.lock();
        for (key, value) in rows {
            match value {
                Some(value) => all.insert(key, value),
                None => all.remove(&key),
            };
        }
        Ok(())
    }
}
