//! What a keeper must not forget, beside what its sectors' journals say: numbers given out, faults declared, windows past.
//!
//! A book that rots must not end the proving: it is set aside, and the next number is one that cannot have been given out
//! (`Keeper::open`). What else was in it is found again: the faulty fail their next window.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::KeeperError;
use crate::durable;

pub(super) const FILE: &str = "book.json";
const VERSION: u32 = 2;
/// Books of the first version carry no sum of themselves; they are read, and written as of the newest.
const UNSUMMED: u32 = 1;
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
    /// Of all the rest.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    sum: String,
}

/// What a folder has of a book.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Found {
    Book(Book),
    None,
    /// No book: why.
    Damaged(String),
    Newer(u32),
}

/// As far as any version goes.
#[derive(Deserialize)]
struct Versioned {
    version: u32,
}

impl Book {
    pub(super) fn new(deadline_seconds: u64) -> Self {
        Self {
            version: VERSION,
            next_sector: 1,
            faults: BTreeMap::new(),
            last_window: None,
            deadline_seconds,
            proven: 0,
            missed: 0,
            sum: String::new(),
        }
    }

    /// Reads the folder's book.
    pub(super) fn find(dir: &Path) -> Result<Found, KeeperError> {
        let path = dir.join(FILE);
        match fs::metadata(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Found::None),
            Err(error) => Err(KeeperError::io(&path)(error)),
            Ok(meta) if meta.len() > BOOK_BYTES_MAX => {
                Ok(Found::Damaged(format!("{} bytes are too many", meta.len())))
            }
            Ok(_) => Ok(Self::parse(&fs::read(&path).map_err(KeeperError::io(&path))?)),
        }
    }

    /// Reads a book's bytes.
    fn parse(text: &[u8]) -> Found {
        let version = match serde_json::from_slice(text) {
            Ok(Versioned { version }) => version,
            Err(error) => return Found::Damaged(error.to_string()),
        };
        if version > VERSION {
            return Found::Newer(version);
        }
        let read = || {
            let book: Self = serde_json::from_slice(text)?;
            let sum = if version == UNSUMMED { String::new() } else { book.own_sum()? };
            Ok::<_, serde_json::Error>((sum == book.sum && version >= UNSUMMED).then_some(book))
        };
        match read() {
            // A number beyond it could not be given out any more.
            Ok(Some(book)) if book.next_sector < u64::MAX => Found::Book(book),
            Ok(_) => Found::Damaged("its sum is wrong".to_owned()),
            Err(error) => Found::Damaged(error.to_string()),
        }
    }

    fn own_sum(&self) -> serde_json::Result<String> {
        durable::json_sum(&Self { sum: String::new(), ..self.clone() })
    }

    /// Its bytes, as of the newest version.
    fn encode(&self) -> serde_json::Result<Vec<u8>> {
        let mut newest = Self { version: VERSION, ..self.clone() };
        newest.sum = newest.own_sum()?;
        serde_json::to_vec_pretty(&newest)
    }

    pub(super) fn store(&self, dir: &Path) -> Result<(), KeeperError> {
        let path: PathBuf = dir.join(FILE);
        let bytes = self.encode().map_err(|error| KeeperError::io(&path)(error.into()))?;
        durable::replace(&path, &bytes).map_err(KeeperError::io(&path))
    }
}

/// Any bytes as a book, for fuzzing: what is understood comes back.
pub(crate) fn decode_any(bytes: &[u8]) {
    if let Found::Book(book) = Book::parse(bytes) {
        let again = book.encode().map(|bytes| Book::parse(&bytes));
        let Ok(Found::Book(again)) = again else { panic!("no book comes back: {again:?}") };
        let again = Book { version: book.version, sum: book.sum.clone(), ..again };
        assert_eq!(again, book, "another book comes back");
    }
}

/// The bytes of a book.
#[cfg(test)]
pub(crate) fn sample() -> Vec<u8> {
    let fault = Declared { since: 7, reason: "rotten".to_owned() };
    let faults = BTreeMap::from([(3, fault)]);
    Book { next_sector: 9, faults, last_window: Some(4), ..Book::new(60) }.encode().unwrap()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn book() -> Book {
        let fault = Declared { since: 7, reason: "rotten".to_owned() };
        let faults = BTreeMap::from([(3, fault)]);
        Book { next_sector: 9, faults, last_window: Some(4), proven: 5, missed: 1, ..Book::new(60) }
    }

    #[test]
    fn a_book_comes_back_and_a_turned_bit_is_noticed() {
        let good = book().encode().unwrap();
        let read = |bytes: &[u8]| match Book::parse(bytes) {
            Found::Book(book) => Some(Book { sum: String::new(), ..book }),
            _ => None,
        };
        assert_eq!(read(&good), Some(book()));
        for bit in 0..good.len() * 8 {
            let mut rotten = good.clone();
            rotten[bit / 8] ^= 1 << (bit % 8);
            // Spaces may turn into tabs.
            assert!(read(&rotten).is_none_or(|read| read == book()), "bit {bit}");
        }
        assert!(matches!(Book::parse(&good[..good.len() - 2]), Found::Damaged(_)));
        let newer = String::from_utf8(good).unwrap().replace("\"version\": 2", "\"what\": 1, \"version\": 3");
        assert_eq!(Book::parse(newer.as_bytes()), Found::Newer(3));
    }

    #[test]
    fn books_of_the_first_version_are_read() {
        let mut first = serde_json::to_value(book()).unwrap();
        first["version"] = 1.into();
        assert_eq!(Book::parse(first.to_string().as_bytes()), Found::Book(Book { version: 1, ..book() }));
    }
}
