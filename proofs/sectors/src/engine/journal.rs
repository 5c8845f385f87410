//! The queue on disk: an append-only list of events, cut at a torn end, rewritten when it has grown.
//!
//! ```text
//! line = 16 hexadecimal digits, the first of SHA-256 of the event | space | 8 digits, its bytes | space | event as JSON
//!        | newline
//! ```
//!
//! Must: an event is synced before anybody acts on it. A bad last line is a torn write and is cut; a bad line
//! before good ones is damage and is reported, nothing thrown away. The length tells a line that ends from one that was
//! cut: without it a newline that rots would join two good lines into one bad last one.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use thiserror::Error;

use super::{Task, TaskId};
use crate::durable::{self, hex};

const SUM_DIGITS: usize = 16;
const LEN_DIGITS: usize = 8;
/// Sum, space, length, space.
const HEAD_BYTES: usize = SUM_DIGITS + 1 + LEN_DIGITS + 1;
/// Events after which the list is rewritten, beside those of the tasks that live.
const EVENTS_SPARE: usize = 4_096;
/// `TASKS_MAX` tasks of a few kilobytes.
const JOURNAL_BYTES_MAX: u64 = 1 << 30;

/// Why the queue's journal cannot be used.
#[derive(Debug, Error)]
pub enum JournalError {
    #[error("{}: {source}", path.display())]
    Io { path: PathBuf, source: io::Error },
    #[error("{}: line {line} is damaged ({reason}); lines after it are not", path.display())]
    Damaged { path: PathBuf, line: usize, reason: String },
    #[error("{}: {bytes} bytes are too many", path.display())]
    TooLong { path: PathBuf, bytes: u64 },
    #[error("an event cannot be written: {0}")]
    Encode(String),
}

/// What changes the queue.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Record {
    /// A task as it is now: new, or after a failure.
    Task(Task),
    /// It is over, however.
    Over(TaskId),
    /// Names below this were given out.
    Next(u64),
}

#[derive(Debug)]
pub(super) struct Journal {
    path: PathBuf,
    file: File,
    events: usize,
    live: usize,
}

/// What a journal holds.
pub(super) struct Replay {
    pub(super) tasks: Vec<Task>,
    pub(super) next: u64,
}

impl Journal {
    /// Opens or makes a journal, and rewrites it to what lives.
    pub(super) fn open(path: &Path) -> Result<(Self, Replay), JournalError> {
        let replay = read(path)?;
        let journal = Self::rewrite(path, &replay.tasks, replay.next)?;
        Ok((journal, replay))
    }

    fn rewrite(path: &Path, tasks: &[Task], next: u64) -> Result<Self, JournalError> {
        let io = |source| JournalError::Io { path: path.to_owned(), source };
        let mut text = line(&Record::Next(next))?;
        for task in tasks {
            text.extend(line(&Record::Task(task.clone()))?);
        }
        durable::replace(path, &text).map_err(io)?;
        let file = OpenOptions::new().append(true).open(path).map_err(io)?;
        Ok(Self { path: path.to_owned(), file, events: tasks.len() + 1, live: tasks.len() })
    }

    /// Appends events and syncs them, all or (after a power cut) the first few.
    pub(super) fn append(&mut self, records: &[Record]) -> Result<(), JournalError> {
        let mut text = Vec::new();
        for record in records {
            text.extend(line(record)?);
        }
        let io = |source| JournalError::Io { path: self.path.clone(), source };
        self.file.write_all(&text).map_err(io)?;
        self.file.sync_data().map_err(io)?;
        self.events += records.len();
        Ok(())
    }

    /// Rewrites the list if most of it is past.
    pub(super) fn tidy<'a>(
        &mut self,
        tasks: impl Iterator<Item = &'a Task>,
        next: u64,
    ) -> Result<(), JournalError> {
        if self.events < self.live.saturating_mul(2).saturating_add(EVENTS_SPARE) {
            return Ok(());
        }
        let tasks: Vec<Task> = tasks.cloned().collect();
        *self = Self::rewrite(&self.path, &tasks, next)?;
        Ok(())
    }
}

/// Whether a queue's journal can be used. One that is not there can be.
///
/// # Errors
/// As those of opening it.
pub fn check(path: &Path) -> Result<(), JournalError> {
    read(path).map(drop)
}

fn read(path: &Path) -> Result<Replay, JournalError> {
    let io = |source| JournalError::Io { path: path.to_owned(), source };
    let bytes = match fs::metadata(path) {
        Ok(meta) if meta.len() > JOURNAL_BYTES_MAX => {
            return Err(JournalError::TooLong { path: path.to_owned(), bytes: meta.len() });
        }
        Ok(_) => fs::read(path).map_err(io)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        Err(error) => return Err(io(error)),
    };
    replay(&bytes).map_err(|(line, reason)| JournalError::Damaged { path: path.to_owned(), line, reason })
}

fn sum(body: &[u8]) -> String {
    let mut digits = hex(&Sha256::digest(body));
    digits.truncate(SUM_DIGITS);
    digits
}

fn line(record: &Record) -> Result<Vec<u8>, JournalError> {
    let body = serde_json::to_vec(record).map_err(|error| JournalError::Encode(error.to_string()))?;
    let mut out = format!("{} {:0LEN_DIGITS$x} ", sum(&body), body.len()).into_bytes();
    out.extend(body);
    out.push(b'\n');
    Ok(out)
}

/// What stands at the beginning of some bytes.
enum Found<'a> {
    /// An event, and what follows its line.
    Event(Record, &'a [u8]),
    /// No event: cut short, or damaged.
    Bad(String),
    /// An event whose line does not end where it should: no power cut does that.
    Unended,
}

fn parse(bytes: &[u8]) -> Found<'_> {
    let bad = |reason: &str| Found::Bad(reason.to_owned());
    let Some((head, rest)) = bytes.split_at_checked(HEAD_BYTES) else { return bad("too short") };
    let digits = head.get(..SUM_DIGITS).unwrap_or_default();
    let len = head.get(SUM_DIGITS + 1..HEAD_BYTES - 1).unwrap_or_default();
    let spaces = [SUM_DIGITS, HEAD_BYTES - 1].iter().all(|at| head.get(*at) == Some(&b' '));
    if !spaces || !len.iter().all(u8::is_ascii_hexdigit) {
        return bad("no head");
    }
    let len = std::str::from_utf8(len).ok().and_then(|len| usize::from_str_radix(len, 16).ok());
    let Some((body, rest)) = len.and_then(|len| rest.split_at_checked(len)) else { return bad("too short") };
    if sum(body).as_bytes() != digits {
        return bad("wrong sum");
    }
    let record = match serde_json::from_slice(body) {
        // There is no name after it, so that it was never given out.
        Ok(Record::Task(Task { id: TaskId(u64::MAX), .. }) | Record::Next(u64::MAX)) => {
            return bad("no name");
        }
        Ok(record) => record,
        Err(error) => return Found::Bad(error.to_string()),
    };
    match rest.split_first() {
        Some((b'\n', rest)) => Found::Event(record, rest),
        Some(_) => Found::Unended,
        None => bad("no end"),
    }
}

/// Reads all events; an unreadable end is left out, an unreadable middle is an error with its line.
fn replay(bytes: &[u8]) -> Result<Replay, (usize, String)> {
    let mut tasks: BTreeMap<TaskId, Task> = BTreeMap::new();
    let mut next = 0;
    let mut torn: Option<(usize, String)> = None;
    let (mut left, mut number) = (bytes, 0);
    while !left.is_empty() {
        number += 1;
        match parse(left) {
            Found::Unended => return Err(torn.unwrap_or((number, "its line does not end".to_owned()))),
            Found::Bad(reason) => {
                torn = torn.or(Some((number, reason)));
                // Whether anything good follows is looked for behind the next newline.
                let end = left.iter().position(|byte| *byte == b'\n');
                left = end.and_then(|end| left.get(end + 1..)).unwrap_or_default();
            }
            Found::Event(record, rest) => {
                if let Some(damage) = torn {
                    return Err(damage);
                }
                left = rest;
                match record {
                    Record::Task(task) => {
                        next = next.max(task.id.0 + 1);
                        tasks.insert(task.id, task);
                    }
                    Record::Over(id) => drop(tasks.remove(&id)),
                    Record::Next(given) => next = next.max(given),
                }
            }
        }
    }
    Ok(Replay { tasks: tasks.into_values().collect(), next })
}

/// Any bytes as a queue's journal, for fuzzing: what is understood can be gone on with.
pub(crate) fn replay_any(bytes: &[u8]) {
    let Ok(Replay { tasks, next }) = replay(bytes) else { return };
    assert!(tasks.iter().all(|task| task.id.0 < next), "a name would be given out twice");
    super::core::play_any(tasks, next);
}

/// The same for lines of events whose sums are right.
pub(crate) fn replay_any_event(bytes: &[u8]) {
    let mut journal = Vec::new();
    for body in bytes.split(|byte| *byte == b'\n') {
        journal.extend(format!("{} {:0LEN_DIGITS$x} ", sum(body), body.len()).into_bytes());
        journal.extend_from_slice(body);
        journal.push(b'\n');
    }
    replay_any(&journal);
}

/// The bytes of a queue's journal, and the events in it.
#[cfg(test)]
pub(crate) fn sample() -> (Vec<u8>, Vec<u8>) {
    use crate::engine::{Class, Cost, Duty, Work};
    use crate::work::Job;
    let cost = Cost { cpu_millis: 500, memory_bytes: 1 << 30, cores: 1 };
    let work = Work::Worker(Job::RestoreUnsealed { sector: PathBuf::from("/s/7") });
    let duty = Duty { class: Class::Upkeep, deadline: 1_800_000_000_000, cost, work };
    let task = Task { id: TaskId(4), duty, attempts: 1, not_before: 5 };
    let records = [Record::Next(4), Record::Task(task), Record::Over(TaskId(2))];
    let lines = records.iter().flat_map(|record| line(record).unwrap()).collect();
    let events: Vec<Vec<u8>> = records.iter().map(|record| serde_json::to_vec(record).unwrap()).collect();
    (lines, events.join(&b'\n'))
}
