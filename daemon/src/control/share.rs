//! Requests and reports about private links. Stable as those of `report.rs`; documented in daemon/CLI.md.

use std::fmt::Write as _;

use serde::{Deserialize, Serialize};

use super::Target;
use super::render::{count, size};

/// Requests about private links.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "snake_case", deny_unknown_fields)]
pub enum ShareRequest {
    /// What is there in the published commit. Answer: `ShareReport`.
    Make { target: Target, seconds: u64 },
    /// Answer: `SharesReport`.
    List {},
    /// By link, path, or the beginning of its id. Answer: `ShareReport`, as it is from then on.
    End { which: String },
}

/// One link: `holdfast share --json`, `holdfast unshare --json`, and each of `holdfast shares --json`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShareReport {
    pub id: String,
    /// As it was given when it was shared.
    pub path: String,
    /// When it was shared, and as what it is shown.
    pub at: u64,
    pub until: u64,
    /// `in_force`, `ended`, `revoked`.
    pub state: String,
    /// Of its files.
    pub bytes: u64,
    /// Files, folders and links.
    pub entries: u64,
    /// Devices, pipes and sockets that are not shown; told when it is made.
    pub left_out: u64,
    /// Providers that keep what the link leads to, as it is now.
    pub with: u64,
    /// How many shall.
    pub wanted: u64,
    /// What is in the way.
    pub problem: Option<String>,
    /// While it is in force. Whoever has it reads what is shared: a secret.
    pub link: Option<String>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SharesReport {
    /// Oldest first.
    pub shares: Vec<ShareReport>,
}

impl ShareReport {
    /// The newest state is where readers look for it.
    pub fn is_kept(&self) -> bool {
        self.wanted > 0 && self.with >= self.wanted.min(3)
    }

    pub fn render(&self) -> String {
        let id = self.id.get(..8).unwrap_or(&self.id);
        let state = match self.state.as_str() {
            "in_force" => format!("with {} of {}", self.with, count(self.wanted, "provider")),
            "revoked" => "taken back".to_owned(),
            other => other.to_owned(),
        };
        let what = format!("{} in {} entries", size(self.bytes), self.entries);
        let mut out = format!("{id}  {what}, {state}\n  {}\n", self.path);
        if let Some(problem) = &self.problem {
            let _ = writeln!(out, "  {problem}");
        }
        if let Some(link) = &self.link {
            let _ = writeln!(out, "  {link}");
        }
        out
    }
}

impl SharesReport {
    pub fn render(&self) -> String {
        let mut out = String::new();
        for share in &self.shares {
            out.push_str(&share.render());
        }
        if self.shares.is_empty() {
            out.push_str("Nothing is shared by a link.\n");
        }
        out
    }
}
