//! Requests and reports about repair capabilities. Stable as those of `report.rs`; documented in daemon/CLI.md.

use std::fmt::Write as _;

use serde::{Deserialize, Serialize};

use super::render::{count, size};

/// Requests about capabilities.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "snake_case", deny_unknown_fields)]
pub enum WatchRequest {
    /// Answer: `WatchGrantedReport`.
    Grant { terms: GrantRequest },
    /// Answer: `WatchesReport`.
    List {},
    /// By label, or the beginning of its id. Answer: `WatchesReport`.
    Revoke { which: String },
}

/// What a capability shall be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GrantRequest {
    pub label: String,
    pub seconds: u64,
    pub bytes: u64,
    pub daily: u64,
    pub silent_seconds: u64,
    pub newcomers: bool,
    /// Peer ids of providers that the holder runs.
    pub apart: Vec<String>,
}

/// The capability that was made; the command writes `file` and shows the rest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WatchGrantedReport {
    pub id: String,
    /// Who the watcher is on the network, for providers that list their clients.
    pub peer_id: String,
    pub until: u64,
    /// The file's bytes, hexadecimal: a secret.
    pub file: String,
}

/// One capability.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WatchReport {
    pub id: String,
    pub label: String,
    pub at: u64,
    pub until: u64,
    /// `in_force`, `ended`, `revoked`.
    pub state: String,
    pub bytes: u64,
    pub daily_bytes: u64,
    pub silent_seconds: u64,
    pub newcomers: bool,
    pub apart: Vec<String>,
    /// Providers that keep what the watcher needs, as it is now.
    pub bundle_with: u64,
    /// Pieces for which there was no room in it.
    pub left_out_pieces: u64,
    /// What it placed and this drive has adopted or dismissed.
    pub entries_seen_to: u64,
    /// What waits for that.
    pub entries_open: u64,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WatchesReport {
    /// Oldest first.
    pub watches: Vec<WatchReport>,
}

impl WatchesReport {
    pub fn render(&self) -> String {
        let mut out = String::new();
        for watch in &self.watches {
            let id = watch.id.get(..8).unwrap_or(&watch.id);
            let _ = writeln!(
                out,
                "{id}  {}  {}: up to {} at one provider, {} a day, after {} s of silence",
                watch.label,
                watch.state.replace('_', " "),
                size(watch.bytes),
                size(watch.daily_bytes),
                watch.silent_seconds
            );
            let _ = writeln!(
                out,
                "  known to {}; {} placed by it seen to, {} open",
                count(watch.bundle_with, "provider"),
                count(watch.entries_seen_to, "slot"),
                watch.entries_open
            );
            if watch.left_out_pieces > 0 {
                let _ = writeln!(
                    out,
                    "  {} are not watched: there is no room for them",
                    count(watch.left_out_pieces, "piece")
                );
            }
        }
        if self.watches.is_empty() {
            out.push_str("Nobody but this machine may repair this drive (`holdfast watch grant`).\n");
        }
        out
    }
}
