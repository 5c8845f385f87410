//! The checks. Each looks at facts and gives what it finds: nothing where all is well or nothing could be looked at.

mod drive;
mod home;
mod providers;

use super::Level;
use super::facts::{DriveFacts, Facts, HomeState, HomeThere};

/// Fewer than this and a large drive runs out: RocksDB, segments, pieces and FUSE handles each hold a descriptor.
const OPEN_FILES_MIN: u64 = 4096;

/// What a check found; its name is put to it by whoever called it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Found {
    pub level: Level,
    pub what: String,
    pub means: String,
    pub todo: String,
}

fn found(
    level: Level,
    what: impl Into<String>,
    means: impl Into<String>,
    todo: impl Into<String>,
) -> Vec<Found> {
    vec![Found { level, what: what.into(), means: means.into(), todo: todo.into() }]
}

pub(super) type Check = fn(&Facts) -> Vec<Found>;

/// All of them, in the order in which a person would look: this machine, the home folder, the drive, its providers.
pub(super) const ALL: &[(&str, Check)] = &[
    ("fuse", fuse),
    ("open_files", open_files),
    ("home", home::usable),
    ("permissions", home::permissions),
    ("owner", home::owner),
    ("writable", home::writable),
    ("space", home::space),
    ("keyfile", home::keyfile),
    ("log", home::log),
    ("set_aside", home::set_aside),
    ("daemon", home::daemon),
    ("mount", home::mount),
    ("restore", home::restore),
    ("version", drive::version),
    ("corruption", drive::corruption),
    ("read_only", drive::read_only),
    ("lost", drive::lost),
    ("safety", drive::safety),
    ("unpublished", drive::unpublished),
    ("workers", drive::workers),
    ("quota", drive::quota),
    ("descriptors", drive::descriptors),
    ("deals", drive::deals),
    ("provider_count", providers::enough),
    ("silent", providers::silent),
    ("barred", providers::barred),
    ("room", providers::room),
    ("domains", providers::domains),
    ("clock", providers::clock),
];

fn there(facts: &Facts) -> Option<&HomeThere> {
    match &facts.home.state {
        HomeState::There(there) => Some(there),
        HomeState::Unusable { .. } => None,
    }
}

fn running(facts: &Facts) -> Option<&DriveFacts> {
    facts.drive.as_ref()
}

fn fuse(facts: &Facts) -> Vec<Found> {
    let Some(why) = &facts.machine.no_fuse else { return Vec::new() };
    found(
        Level::Warning,
        why.clone(),
        "No drive can be mounted here. Data that is with the providers is as safe as before; what is only in the home folder stays there.",
        "Do what is said above, then `holdfast mount`. `holdfast verify` and `holdfast restore --no-mount` need no FUSE.",
    )
}

fn open_files(facts: &Facts) -> Vec<Found> {
    let Some(most) = facts.machine.open_files_max.filter(|most| *most < OPEN_FILES_MIN) else {
        return Vec::new();
    };
    found(
        Level::Warning,
        format!("a process may have {most} open files here, and a drive wants {OPEN_FILES_MIN} or more"),
        "A drive with many files in use answers \"too many open files\"; nothing that was written is lost by it.",
        "Raise the hard limit: `LimitNOFILE=65536` in a systemd unit, `nofile` in /etc/security/limits.conf, `--ulimit nofile=65536` in a container.",
    )
}
