//! Reports about local copies and snapshots, and how they are shown. Stable as those of `report.rs`; documented in daemon/CLI.md.

use std::fmt::Write as _;

use serde::{Deserialize, Serialize};

use super::render::{count, size};

/// `holdfast evict --json`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EvictReport {
    pub evicted_pieces: u64,
    pub evicted_bytes: u64,
    /// What was asked for and stays, by reason.
    pub kept: Vec<KeptReport>,
    /// Files asked for with data that no commit holds yet.
    pub staged_files: u64,
    /// Local pieces after it.
    pub local_bytes: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptReport {
    pub reason: String,
    pub pieces: u64,
    pub bytes: u64,
}

impl EvictReport {
    /// Whether all that was asked for went.
    pub fn is_complete(&self) -> bool {
        self.kept.is_empty() && self.staged_files == 0
    }

    pub fn render(&self) -> String {
        let pieces = count(self.evicted_pieces, "piece");
        let mut out = format!(
            "{} in {pieces} dropped from this disk; the providers have them. {} of pieces are left here.\n",
            size(self.evicted_bytes),
            size(self.local_bytes)
        );
        for kept in &self.kept {
            let pieces = count(kept.pieces, "piece");
            let _ = writeln!(out, "  kept: {} in {pieces}, {}", size(kept.bytes), kept.reason);
        }
        if self.staged_files > 0 {
            let _ = writeln!(
                out,
                "  kept: data of {} that is in no commit yet",
                count(self.staged_files, "file")
            );
        }
        out
    }
}

/// `holdfast pin --json` and `holdfast unpin --json`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PinsReport {
    pub pins: Vec<PinReport>,
    /// Pieces of what is pinned that are not here yet.
    pub missing_pieces: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PinReport {
    pub ino: u64,
    /// The path as it was given when it was pinned.
    pub path: String,
}

impl PinsReport {
    pub fn render(&self) -> String {
        let mut out = String::new();
        for pin in &self.pins {
            let _ = writeln!(out, "{}", pin.path);
        }
        if self.pins.is_empty() {
            out.push_str("Nothing is pinned.\n");
        }
        if self.missing_pieces > 0 {
            let _ = writeln!(out, "{} of it on the way here.", count(self.missing_pieces, "piece"));
        }
        out
    }
}

/// A commit, as `holdfast snapshots --json` lists it and `holdfast snapshot --json` shows it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotReport {
    pub sequence: u64,
    pub at: u64,
    /// Its name in `.snapshots`.
    pub label: String,
    pub cid: String,
    /// Of all files.
    pub bytes: u64,
    /// Kept under these names.
    pub names: Vec<String>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotsReport {
    /// Oldest first.
    pub snapshots: Vec<SnapshotReport>,
}

impl SnapshotReport {
    pub fn render(&self) -> String {
        let names = self.names.join(" ");
        format!("{}  {:>8}  {}  {names}", self.label, self.sequence, size(self.bytes)).trim_end().to_owned()
            + "\n"
    }
}

impl SnapshotsReport {
    pub fn render(&self) -> String {
        self.snapshots.iter().map(SnapshotReport::render).collect()
    }
}

/// `holdfast prune --json`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PruneReport {
    pub dropped_snapshots: u64,
    /// What this look found that nothing kept needs, in whole pieces.
    pub unneeded_pieces: u64,
    pub unneeded_bytes: u64,
    /// What lives in pieces that were mostly unneeded, and was packed anew so that they can go.
    pub moved_bytes: u64,
    /// There are more such pieces.
    pub more: bool,
    /// What is not needed and is still here: its grace period runs, or what is needed is not with enough providers.
    pub waiting_pieces: u64,
    pub waiting_bytes: u64,
    /// Copies that providers are yet to be told to drop.
    pub waiting_copies: u64,
    /// This machine took the drive over: nothing goes before this time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kept_until: Option<u64>,
}

impl PruneReport {
    pub fn render(&self) -> String {
        let mut out = String::new();
        if self.kept_until.is_some() {
            out.push_str(
                "This machine took the drive over less than 30 days ago: nothing is given up yet.\n",
            );
        } else {
            let snapshots = count(self.dropped_snapshots, "snapshot");
            let pieces = count(self.unneeded_pieces, "piece");
            let bytes = size(self.unneeded_bytes);
            let _ = writeln!(out, "{snapshots} dropped; {bytes} in {pieces} no longer needed.");
            if self.moved_bytes > 0 {
                let _ =
                    writeln!(out, "{} packed anew out of mostly unneeded pieces.", size(self.moved_bytes));
            }
        }
        if self.waiting_pieces > 0 {
            let (bytes, pieces) = (size(self.waiting_bytes), count(self.waiting_pieces, "piece"));
            let _ = writeln!(out, "{bytes} in {pieces} wait for the grace period, or for providers.");
        }
        if self.waiting_copies > 0 {
            let _ = writeln!(out, "Providers are being told to drop {}.", count(self.waiting_copies, "copy"));
        }
        out
    }
}

/// `holdfast diff --json`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiffReport {
    /// Sequences.
    pub from: u64,
    pub to: u64,
    /// Ordered by path.
    pub changes: Vec<ChangeReport>,
    /// There are more.
    pub truncated: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChangeReport {
    pub kind: ChangeWord,
    /// From the drive's root. Bytes that are no UTF-8 are shown as U+FFFD.
    pub path: String,
    /// Of what was moved: where it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ChangeWord {
    Added,
    Removed,
    Changed,
    Moved,
}

impl DiffReport {
    pub fn render(&self) -> String {
        let mut out = String::new();
        for change in &self.changes {
            let _ = match (change.kind, &change.from) {
                (ChangeWord::Added, _) => writeln!(out, "+ {}", change.path),
                (ChangeWord::Removed, _) => writeln!(out, "- {}", change.path),
                (ChangeWord::Changed, _) => writeln!(out, "M {}", change.path),
                (ChangeWord::Moved, from) => {
                    writeln!(out, "R {} -> {}", from.as_deref().unwrap_or_default(), change.path)
                }
            };
        }
        if self.truncated {
            out.push_str("... and more\n");
        }
        out
    }
}
