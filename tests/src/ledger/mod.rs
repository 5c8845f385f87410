//! A writing load that keeps books, and the audit of a file system against them after a crash.
//!
//! Owns: what each path may look like after a crash (`Ledger`), the programs-like writers that fill it (`writer`).
//!
//! For each path the books hold the states that it went through. Two marks stand in that history: what was *answered*
//! (the system call returned) and what was *synced* (an fsync that covers it returned). After a crash of
//!
//! ```text
//! the process     the answered state, or one that was under way then
//! the power       the synced state, or any later one
//! ```
//!
//! is admissible, nothing else. Of a file's bytes a beginning is admissible, at least as long as its own mark says;
//! of a file of records each record by itself.
//!
//! The promises that the writers count on: fsync of a file keeps its bytes and, for a new one, its name; fsync of a folder
//! keeps what happened to its names.

mod check;
mod content;
mod writer;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

pub use check::{Findings, check};
pub use content::{RECORD, record, stream};
pub use writer::{Load, WriterStats};

/// What went down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Crash {
    /// kill -9 of the daemon: the kernel and its page cache live on.
    Process,
    /// What no fsync covered may be gone.
    Power,
}

/// How far something got, by each kind of crash's measure.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Marks {
    pub answered: u64,
    pub synced: u64,
    /// Asked for, perhaps not answered.
    pub issued: u64,
}

impl Marks {
    pub fn settled(at: u64) -> Marks {
        Marks { answered: at, synced: at, issued: at }
    }

    pub fn floor(self, crash: Crash) -> u64 {
        match crash {
            Crash::Process => self.answered,
            Crash::Power => self.synced,
        }
    }

    pub fn admits(self, crash: Crash, value: u64) -> bool {
        (self.floor(crash)..=self.issued).contains(&value)
    }
}

#[derive(Clone, Debug, PartialEq)]
pub enum State {
    Absent,
    Folder,
    Link(String),
    /// The first `len` bytes of `stream(seed)`.
    Bytes {
        seed: u64,
        len: Marks,
    },
    /// `records[n]` holds `record(seed, n, version)`; version 0 is zeros.
    Records {
        seed: u64,
        versions: Vec<Marks>,
    },
}

/// The states that a path went through. `states[marks.answered]` was answered, `states[marks.synced]` synced; the last
/// one was issued.
#[derive(Clone, Debug)]
pub struct History {
    pub states: Vec<State>,
    pub marks: Marks,
}

impl History {
    fn new() -> History {
        History { states: vec![State::Absent], marks: Marks::default() }
    }
}

/// The books of one writer, for the folder that it works in.
#[derive(Clone, Debug, Default)]
pub struct Ledger {
    pub paths: BTreeMap<PathBuf, History>,
}

impl Ledger {
    /// About to ask for this state.
    pub fn issue(&mut self, path: &Path, state: State) {
        let history = self.paths.entry(path.to_owned()).or_insert_with(History::new);
        history.states.push(state);
        history.marks.issued = history.states.len() as u64 - 1;
    }

    /// All that was issued for the path was answered.
    pub fn answered(&mut self, path: &Path) {
        if let Some(history) = self.paths.get_mut(path) {
            history.marks.answered = history.marks.issued;
        }
    }

    /// The state under way, to move its inner marks.
    pub fn current(&mut self, path: &Path) -> Option<&mut State> {
        self.paths.get_mut(path)?.states.last_mut()
    }

    pub fn last(&self, path: &Path) -> &State {
        self.paths.get(path).and_then(|history| history.states.last()).unwrap_or(&State::Absent)
    }

    /// fsync of a file was answered: its bytes and its name.
    pub fn file_synced(&mut self, path: &Path) {
        self.name_synced(path);
        match self.current(path) {
            Some(State::Bytes { len, .. }) => len.synced = len.answered,
            Some(State::Records { versions, .. }) => {
                versions.iter_mut().for_each(|version| version.synced = version.answered);
            }
            _ => {}
        }
    }

    /// fsync of a folder was answered: its names.
    pub fn folder_synced(&mut self, folder: &Path) {
        let names: Vec<PathBuf> =
            self.paths.keys().filter(|path| path.parent() == Some(folder)).cloned().collect();
        names.iter().for_each(|path| self.name_synced(path));
    }

    fn name_synced(&mut self, path: &Path) {
        if let Some(history) = self.paths.get_mut(path) {
            history.marks.synced = history.marks.answered;
        }
    }
}

#[cfg(test)]
mod tests;
