//! The audit: each path against its history. What is found becomes the new history, so that a second crash can be judged.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::content::{RECORD, claimed_version, record, stream};
use super::{Crash, History, Ledger, Marks, State};

/// What an audit found.
#[derive(Clone, Debug, Default)]
pub struct Findings {
    /// Each a path and what is wrong with it; empty when the promise was kept.
    pub broken: Vec<String>,
    pub paths: usize,
    /// Paths that are not as they were last asked to be: what the crash was allowed to take.
    pub rolled_back: usize,
}

/// What stands at a path now.
enum Found {
    Absent,
    Folder,
    Link(String),
    File(Vec<u8>),
}

/// Audits every path of the books below `root`, and that nothing else is there.
pub fn check(ledger: &mut Ledger, root: &Path, crash: Crash) -> io::Result<Findings> {
    let mut findings = Findings { paths: ledger.paths.len(), ..Findings::default() };
    for (path, history) in &mut ledger.paths {
        let found = match look(&root.join(path)) {
            Ok(found) => found,
            Err(error) => {
                findings.broken.push(format!("{}: {error}", path.display()));
                continue;
            }
        };
        match settle(history, &found, crash) {
            Some((state, last)) => {
                findings.rolled_back += usize::from(!last);
                *history = History { states: vec![state], marks: Marks::default() };
            }
            None => findings.broken.push(explain(path, history, &found, crash)),
        }
    }
    strangers(ledger, root, &mut findings)?;
    ledger.paths.retain(|_, history| history.states.len() > 1 || history.states != [State::Absent]);
    Ok(findings)
}

fn look(path: &Path) -> io::Result<Found> {
    let meta = match path.symlink_metadata() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Found::Absent),
        other => other?,
    };
    if meta.is_dir() {
        return Ok(Found::Folder);
    }
    if meta.is_symlink() {
        return Ok(Found::Link(
            String::from_utf8_lossy(std::fs::read_link(path)?.as_os_str().as_bytes()).into_owned(),
        ));
    }
    let mut bytes = Vec::new();
    File::open(path)?.read_to_end(&mut bytes)?;
    if bytes.len() as u64 != meta.len() {
        return Err(io::Error::other(format!("stat says {} bytes, {} were read", meta.len(), bytes.len())));
    }
    Ok(Found::File(bytes))
}

/// The admissible state that was found, settled at what it is now, and whether it is the last one asked for.
fn settle(history: &History, found: &Found, crash: Crash) -> Option<(State, bool)> {
    let first = history.marks.floor(crash) as usize;
    let last = history.states.len() - 1;
    // Later states first: a file replaced by one with the same beginning settles as the later one.
    (first..=last).rev().find_map(|index| {
        let (state, whole) = settle_one(history.states.get(index)?, found, crash)?;
        Some((state, whole && index == last))
    })
}

fn settle_one(state: &State, found: &Found, crash: Crash) -> Option<(State, bool)> {
    match (state, found) {
        (State::Absent, Found::Absent) => Some((State::Absent, true)),
        (State::Folder, Found::Folder) => Some((State::Folder, true)),
        (State::Link(target), Found::Link(is)) if target == is => Some((state.clone(), true)),
        (State::Bytes { seed, len }, Found::File(bytes)) => {
            let size = bytes.len() as u64;
            if !len.admits(crash, size) || *bytes != stream(*seed, bytes.len()) {
                return None;
            }
            Some((State::Bytes { seed: *seed, len: Marks::settled(size) }, size == len.issued))
        }
        (State::Records { seed, versions }, Found::File(bytes)) => {
            settle_records(*seed, versions, bytes, crash)
        }
        _ => None,
    }
}

/// A record past the end of the file is one that was never written.
fn settle_records(seed: u64, versions: &[Marks], bytes: &[u8], crash: Crash) -> Option<(State, bool)> {
    if !bytes.len().is_multiple_of(RECORD) || bytes.len() > versions.len() * RECORD {
        return None;
    }
    let mut whole = true;
    let mut settled = Vec::with_capacity(versions.len());
    for (number, marks) in versions.iter().enumerate() {
        let version = match bytes.get(number * RECORD..(number + 1) * RECORD) {
            Some(bytes) => {
                let version = claimed_version(bytes);
                if bytes != record(seed, number, version) {
                    return None;
                }
                version
            }
            None => 0,
        };
        if !marks.admits(crash, version) {
            return None;
        }
        whole &= version == marks.issued;
        settled.push(Marks::settled(version));
    }
    Some((State::Records { seed, versions: settled }, whole))
}

fn explain(path: &Path, history: &History, found: &Found, crash: Crash) -> String {
    let found_text = match found {
        Found::Absent => "is absent".to_owned(),
        Found::Folder => "is a folder".to_owned(),
        Found::Link(target) => format!("is a link to {target}"),
        Found::File(bytes) => {
            let zeros = bytes.iter().filter(|byte| **byte == 0).count();
            format!("is a file of {} bytes, {zeros} of them zero", bytes.len())
        }
    };
    let first = history.marks.floor(crash) as usize;
    let allowed: Vec<String> = history.states.iter().skip(first).map(|state| brief(state, crash)).collect();
    let mut text = format!("{} {found_text}; admissible: {}", path.display(), allowed.join(" or "));
    if let (Found::File(bytes), Some(State::Records { seed, versions })) = (found, history.states.last()) {
        for (number, marks) in versions.iter().enumerate() {
            let bytes = bytes.get(number * RECORD..(number + 1) * RECORD).unwrap_or(&[]);
            let version = claimed_version(bytes);
            if !marks.admits(crash, version) || bytes != record(*seed, number, version) {
                text += &format!("; record {number} claims version {version}, admissible {marks:?}");
                break;
            }
        }
    }
    text
}

fn brief(state: &State, crash: Crash) -> String {
    match state {
        State::Absent => "absent".into(),
        State::Folder => "a folder".into(),
        State::Link(target) => format!("a link to {target}"),
        State::Bytes { seed, len } => {
            format!("{}..={} bytes of stream {seed:x}", len.floor(crash), len.issued)
        }
        State::Records { versions, .. } => format!("{} records", versions.len()),
    }
}

/// What lies below the root without being in the books.
fn strangers(ledger: &Ledger, root: &Path, findings: &mut Findings) -> io::Result<()> {
    let mut todo: Vec<PathBuf> = vec![PathBuf::new()];
    while let Some(folder) = todo.pop() {
        let entries = match std::fs::read_dir(root.join(&folder)) {
            // The writer's own folder may itself be what was lost.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            other => other?,
        };
        for entry in entries {
            let entry = entry?;
            let path = folder.join(entry.file_name());
            if !ledger.paths.contains_key(&path) {
                findings.broken.push(format!("{} is there and nobody asked for it", path.display()));
            } else if entry.file_type()?.is_dir() {
                todo.push(path);
            }
        }
    }
    Ok(())
}
