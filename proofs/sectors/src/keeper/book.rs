//! What a keeper must not forget, beside what its sectors' journals say: numbers given out, faults declared, windows past.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::KeeperError;
use crate::durable;

const FILE: &str = "book.json";
const VERSION: u32 = 1;
/// A fault is a hundred bytes, and there is one for each sector at most.
const BOOK_BYTES_MAX: u64 = 64 << 20;

/// A sector that was declared faulty.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Declared {
    /// Unix seconds.
    pub(super) since: u64,
    pub(super) reason: String,
}

/// One small file, replaced as a whole.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Book {
    version: u32,
    /// Sectors below this were numbered; a number is never used twice.
    pub(super) next_sector: u64,
    pub(super) faults: BTreeMap<u64, Declared>,
    /// The last window that was opened, with the length that numbers windows.
    pub(super) last_window: Option<u64>,
    pub(super) deadline_seconds: u64,
    pub(super) proven: u64,
    pub(super) missed: u64,
}

impl Book {
    /// Reads the folder's book, or begins one.
    pub(super) fn open(dir: &Path, deadline_seconds: u64) -> Result<Self, KeeperError> {
        let path = dir.join(FILE);
        let fresh = Self {
            version: VERSION,
            next_sector: 1,
            faults: BTreeMap::new(),
            last_window: None,
            deadline_seconds,
            proven: 0,
            missed: 0,
        };
        let bytes = match fs::metadata(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(fresh),
            Err(error) => return Err(KeeperError::io(&path)(error)),
            Ok(meta) if meta.len() > BOOK_BYTES_MAX => {
                return Err(KeeperError::Book { path, reason: format!("{} bytes are too many", meta.len()) });
            }
            Ok(_) => fs::read(&path).map_err(KeeperError::io(&path))?,
        };
        let mut book: Self = serde_json::from_slice(&bytes)
            .map_err(|error| KeeperError::Book { path: path.clone(), reason: error.to_string() })?;
        if book.version != VERSION {
            let reason = format!("version {} is newer than this program", book.version);
            return Err(KeeperError::Book { path, reason });
        }
        // Windows of another length have other numbers: which of them passed unproven cannot be said.
        if book.deadline_seconds != deadline_seconds {
            book.last_window = None;
            book.deadline_seconds = deadline_seconds;
        }
        Ok(book)
    }

    pub(super) fn store(&self, dir: &Path) -> Result<(), KeeperError> {
        let path: PathBuf = dir.join(FILE);
        let bytes = serde_json::to_vec_pretty(self)
            .map_err(|error| KeeperError::Book { path: path.clone(), reason: error.to_string() })?;
        durable::replace(&path, &bytes).map_err(KeeperError::io(&path))
    }
}
