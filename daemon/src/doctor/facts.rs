//! What the checks look at. Plain values, so that every check is tested without a machine that is ill.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::control::StatusReport;

/// Everything.
#[derive(Debug, Clone)]
pub struct Facts {
    /// Of this program.
    pub version: String,
    pub machine: Machine,
    pub home: HomeFacts,
    /// What the daemon says; none where none runs or it does not answer.
    pub drive: Option<DriveFacts>,
    /// From the daemon, or asked from here.
    pub providers: Vec<ProviderFacts>,
}

/// This machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Machine {
    /// Why it cannot mount.
    pub no_fuse: Option<String>,
    /// The most open files that a process may have.
    pub open_files_max: Option<u64>,
}

/// The home folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HomeFacts {
    pub path: PathBuf,
    pub state: HomeState,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HomeState {
    Unusable { what: String, why: Unusable },
    There(Box<HomeThere>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unusable {
    Missing,
    Newer,
    Damaged,
    Other,
}

/// A home whose configuration was read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HomeThere {
    /// Files and folders of it that others may read or change.
    pub open_to_others: Vec<PathBuf>,
    /// It belongs to this user id, which is not ours.
    pub foreign: Option<u32>,
    /// Why nothing can be written there.
    pub unwritable: Option<String>,
    /// Bytes free on its disk, and what the drive leaves free whatever happens.
    pub free: u64,
    pub free_min: u64,
    /// Files that the disk has room for; some file systems do not count them.
    pub free_files: Option<u64>,
    /// The keyfile has no length that one has.
    pub keyfile_length: Option<u64>,
    /// The index is there and its log is not.
    pub log_missing: bool,
    /// Damaged indexes that were set aside.
    pub set_aside: Vec<String>,
    pub restore_pending: bool,
    /// Where it was mounted last, and what is there now.
    pub mountpoint: Option<PathBuf>,
    pub mount: Mount,
    pub daemon: Daemon,
    /// Providers that the policy asks for.
    pub copies_wanted: u8,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Mount {
    #[default]
    Nothing,
    /// A Holdfast drive.
    Drive,
    /// An ordinary folder with something in it.
    Files,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Daemon {
    #[default]
    Absent,
    /// It runs and does not listen.
    Deaf,
    /// It listens and does not answer.
    Silent,
    Answers,
}

/// What a running daemon says of its drive.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct DriveFacts {
    /// As `holdfast status` has it, with its verdict.
    pub status: StatusReport,
    /// Damage of the log that opening found.
    pub corruption: Option<String>,
    /// Open files of the daemon, and how many it may have.
    pub open_files: Option<(u64, u64)>,
    /// Under a quota: a writer was told to wait and there is no room.
    pub writers_wait: bool,
    /// The home's limit and what is left of it.
    pub quota: Option<Quota>,
    pub deals: DealFacts,
    pub providers: Vec<ProviderFacts>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quota {
    pub bytes: u64,
    pub free: u64,
}

/// Deals that should have been renewed by now.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DealFacts {
    pub ending: u64,
    /// Seconds until the first of them ends.
    pub first_in: u64,
}

/// One provider of the drive.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProviderFacts {
    pub peer_id: String,
    /// What it says of itself now.
    pub said: Option<Said>,
    /// Why it says nothing.
    pub silence: Option<String>,
    /// Providers with the same number fail together.
    pub domain: usize,
    /// It was caught at a fault and gets nothing new until then, unix seconds.
    pub barred_until: Option<u64>,
    /// Why it is in this state.
    pub reason: Option<String>,
    /// Bytes of the drive that it keeps.
    pub bytes: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Said {
    /// Its clock less ours.
    pub ahead_seconds: i64,
    pub free: u64,
    /// Whether it takes new deals of this drive; not known to a stranger.
    pub accepting: Option<bool>,
}
