//! What `holdfast policy` reports, and how it is shown. Stable as `report.rs`; documented in daemon/CLI.md.

use std::fmt::Write as _;

use serde::{Deserialize, Serialize};

use super::render::count;

/// What becomes of a policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum PolicyChange {
    /// Survive so many losses.
    Survive(u8),
    /// What the folder above has.
    Inherit,
}

/// `holdfast policy --json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PathPolicyReport {
    /// As it was given; absent: the drive as a whole.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// What holds there.
    pub survive_losses: u8,
    pub from: PolicyFrom,
    /// The folder that says so, where it is another one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub folder: Option<String>,
    /// The drive's own policy, and the highest that anything on it has.
    pub drive_survive_losses: u8,
    pub survive_losses_most: u8,
    /// Folders and files to be looked at before all that is below is as safe as asked.
    pub to_raise: u64,
}

/// Where a policy comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PolicyFrom {
    /// The file or folder itself.
    Itself,
    /// A folder above.
    Folder,
    /// The drive.
    Drive,
    /// It has several names, or it is not known which folder has it: it gets the highest policy on the drive.
    Anywhere,
}

impl PathPolicyReport {
    pub fn render(&self) -> String {
        let losses = count(u64::from(self.survive_losses), "provider");
        let mut out = match &self.path {
            Some(path) => format!("{path}: survives the loss of any {losses}, "),
            None => format!("The drive survives the loss of any {losses}, "),
        };
        match (self.from, &self.folder) {
            (PolicyFrom::Itself, _) => out.push_str("as it says itself.\n"),
            (PolicyFrom::Folder, folder) => {
                let _ = writeln!(out, "as {} says.", folder.as_deref().unwrap_or("a folder above"));
            }
            (PolicyFrom::Drive, _) => out.push_str("as the drive's own policy says.\n"),
            (PolicyFrom::Anywhere, _) => out.push_str(
                "the highest policy on the drive: it has several names, or it is not known which folder has it.\n",
            ),
        }
        if self.path.is_none() && self.survive_losses_most != self.drive_survive_losses {
            let most = self.survive_losses_most;
            let _ = writeln!(
                out,
                "Some folders ask for another number, at most {most}; all that leads to them is as safe."
            );
        }
        if self.to_raise > 0 {
            let left = self.to_raise;
            let _ = writeln!(
                out,
                "{left} folders or files are still to be looked at: what is there may be less safe. `holdfast sync --wait` returns when it is."
            );
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_says_where_a_policy_comes_from() {
        let report = PathPolicyReport {
            path: Some("/d/photos/a".into()),
            survive_losses: 3,
            from: PolicyFrom::Folder,
            folder: Some("/d/photos".into()),
            drive_survive_losses: 1,
            survive_losses_most: 3,
            to_raise: 0,
        };
        assert_eq!(
            report.render(),
            "/d/photos/a: survives the loss of any 3 providers, as /d/photos says.\n"
        );
        let drive = PathPolicyReport {
            path: None,
            survive_losses: 1,
            from: PolicyFrom::Drive,
            folder: None,
            to_raise: 4,
            ..report
        };
        let text = drive.render();
        assert!(
            text.contains("any 1 provider, as the drive's own policy says") && text.contains("at most 3")
        );
        assert!(text.contains("4 folders or files are still to be looked at"), "{text}");
    }
}
