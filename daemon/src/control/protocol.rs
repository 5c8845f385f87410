//! Requests and answers, line by line.

use serde::{Deserialize, Serialize};

use super::{PolicyChange, PublicRequest, ShareRequest, WatchRequest};
use crate::home::ProviderAddr;

/// A request line is at most this long.
pub const REQUEST_BYTES_MAX: usize = 64 * 1024;
/// An answer line is at most this long: a status with a thousand providers fits many times.
pub const RESPONSE_BYTES_MAX: usize = 16 * 1024 * 1024;

/// What a client may ask.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case", deny_unknown_fields)]
pub enum Request {
    /// Answer: `StatusReport`.
    Status {},
    /// Everything that was written before this request is made durable locally and, with `wait`, Placed up to the
    /// policy. Answer: `SyncReport`.
    Sync {
        wait: bool,
        timeout_seconds: Option<u64>,
    },
    /// Seals what is dirty now, without waiting for idleness. Answer: `SealReport`.
    Seal {},
    /// Unmounts and ends the daemon. Without `lazy` an open file makes it fail with `busy`. Answer: `UnmountReport`,
    /// sent when the drive is unmounted and closed.
    Unmount {
        lazy: bool,
    },
    /// Checks the drive; with `remote` every copy is read whole instead of challenged. Answer: `VerifyReport`.
    Verify {
        deep: bool,
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        remote: bool,
    },
    /// What `holdfast doctor` looks at; all providers are asked for it. Answer: `DriveFacts`.
    Doctor {},
    /// What stays here, and what was here once. Answer: as each says.
    Keep {
        what: KeepRequest,
    },
    /// What is published. Answer: as each says.
    Public {
        what: PublicRequest,
    },
    /// What is shared by private links. Answer: as each says.
    Share {
        what: ShareRequest,
    },
    /// Who may repair with this machine off. Answer: as each says.
    Watch {
        what: WatchRequest,
    },
    /// Answer: `ProvidersReport`.
    ProviderList {},
    ProviderAdd {
        provider: ProviderAddr,
    },
    /// No new pieces go there, and what it holds is copied elsewhere.
    ProviderRemove {
        peer_id: String,
    },
}

/// A file or folder of the drive, as the client found it at its path.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Target {
    pub ino: u64,
    /// The path as it was given, for people.
    pub path: String,
}

/// Parts of the retention rule, for once.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RuleChange {
    pub all_hours: Option<u64>,
    pub hourly: Option<u64>,
    pub daily: Option<u64>,
    pub weekly: Option<u64>,
}

/// Requests about local copies and about snapshots.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "snake_case", deny_unknown_fields)]
pub enum KeepRequest {
    /// Drops local copies of what is safe: of all, or of these. Answer: `EvictReport`.
    Evict { targets: Vec<Target> },
    /// Answer: `PinsReport`.
    Pin { target: Target },
    /// Answer: `PinsReport`; `invalid` where it was not pinned.
    Unpin { target: Target },
    /// Answer: `PinsReport`.
    Pins {},
    /// Makes a commit of what is there now; with a name it is kept. Answer: `SnapshotReport`.
    Snapshot { name: Option<String> },
    /// Answer: `SnapshotReport`, of the commit that had the name.
    ForgetSnapshot { name: String },
    /// Answer: `SnapshotsReport`.
    Snapshots {},
    /// Drops the snapshots that the rule does not keep, now; what is given here stands in for the configured rule. Answer: `PruneReport`.
    Prune { rule: RuleChange },
    /// What holds for a file or folder, or (without one) for the drive; with `change` it is set before. Answer: `PathPolicyReport`, in which `folder` is how
    /// many levels above the one that says so is.
    Policy { target: Option<Target>, change: Option<PolicyChange> },
    /// From one snapshot to another, or to now. Answer: `DiffReport`.
    Diff { from: String, to: Option<String> },
}

/// One line of an answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Response {
    Progress(ProgressLine),
    Ok(serde_json::Value),
    Error(ControlError),
}

/// How far a long request is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProgressLine {
    /// `sealing`, `placing`, `publishing`, `checking`, `fetching`, ...
    pub phase: String,
    pub done: u64,
    /// 0 while it is not known.
    pub total: u64,
    /// `bytes`, `pieces`, `files`, `rows`.
    pub unit: String,
    /// What it waits for, when it waits: "no provider answers", ...
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

/// Why a request failed; the CLI maps the kind to its exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorKind {
    /// A file on the drive is open, or a program stands in one of its folders.
    Busy,
    /// The time given by the client ran out.
    Timeout,
    /// What was asked cannot succeed until something else changes (too few providers, ...).
    Unavailable,
    /// The request is malformed or asks for what does not exist.
    Invalid,
    /// The drive is read-only.
    ReadOnly,
    NoSpace,
    Internal,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct ControlError {
    pub kind: ErrorKind,
    pub message: String,
}

impl ControlError {
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> ControlError {
        ControlError { kind, message: message.into() }
    }

    /// For errors without a kind of their own.
    pub fn internal(error: impl std::fmt::Display) -> ControlError {
        ControlError::new(ErrorKind::Internal, format!("{error:#}"))
    }
}
