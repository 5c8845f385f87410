//! `holdfast doctor`: everything that can be wrong on this machine and with the drive, mounted or not, and what to do about it.
//!
//! ```text
//!   facts    what the checks look at: gathered from this machine (`machine`), from the daemon by its socket or, where none runs,
//!            from the providers under a throw-away identity (`ask`)
//!   checks   one pure function each: facts in, findings out
//! ```
//!
//! Promises: changes nothing, asks for no passphrase, and says of each finding what it is, what it means for the data, and what
//! to do. Refuses to guess: what could not be looked at is no finding of its own, unless that is one.

pub mod ask;
mod checks;
pub mod facts;
mod machine;
#[cfg(test)]
mod tests;

use std::fmt::Write as _;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

pub use facts::{DriveFacts, Facts, HomeFacts, ProviderFacts};
pub use machine::{home, machine};

use crate::control::render::count;

pub const DOCTOR_SCHEMA: u32 = 1;

/// How much a finding matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// Good to know; nothing has to be done.
    Note,
    /// Something has to change, or data will be less safe than it should be.
    Warning,
    /// Data is damaged or lost, here or with the providers.
    Damage,
}

/// One thing that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// Which check found it.
    pub check: String,
    pub level: Level,
    /// What it is.
    pub what: String,
    /// What that means for the data.
    pub means: String,
    /// What to do.
    pub todo: String,
}

/// The verdict over all of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Nothing but notes.
    Well,
    Warned,
    Damaged,
}

/// `holdfast doctor --json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DoctorReport {
    pub schema: u32,
    /// Of this program.
    pub version: String,
    pub home: PathBuf,
    /// A daemon answered for the drive.
    pub mounted: bool,
    pub verdict: Verdict,
    /// The names of all checks that were made.
    pub checks: Vec<String>,
    /// The gravest first.
    pub findings: Vec<Finding>,
}

/// Makes every check.
pub fn examine(facts: &Facts) -> DoctorReport {
    let mut findings: Vec<Finding> = Vec::new();
    for (name, check) in checks::ALL {
        findings.extend(check(facts).into_iter().map(|found| Finding {
            check: (*name).to_owned(),
            level: found.level,
            what: found.what,
            means: found.means,
            todo: found.todo,
        }));
    }
    findings.sort_by_key(|finding| std::cmp::Reverse(finding.level));
    let verdict = match findings.first().map(|finding| finding.level) {
        None | Some(Level::Note) => Verdict::Well,
        Some(Level::Warning) => Verdict::Warned,
        Some(Level::Damage) => Verdict::Damaged,
    };
    DoctorReport {
        schema: DOCTOR_SCHEMA,
        version: facts.version.clone(),
        home: facts.home.path.clone(),
        mounted: facts.drive.is_some(),
        verdict,
        checks: checks::ALL.iter().map(|(name, _)| (*name).to_owned()).collect(),
        findings,
    }
}

impl DoctorReport {
    /// What `holdfast doctor` prints.
    pub fn render(&self) -> String {
        let of = |level| self.findings.iter().filter(|finding| finding.level == level).count() as u64;
        let verdict = match self.verdict {
            Verdict::Well => "Nothing is wrong.",
            Verdict::Warned => "Something has to change.",
            Verdict::Damaged => "There is damage.",
        };
        let mut out = format!(
            "{verdict} ({}: {} of damage, {}, {})\n",
            count(self.checks.len() as u64, "check"),
            of(Level::Damage),
            count(of(Level::Warning), "warning"),
            count(of(Level::Note), "note")
        );
        for finding in &self.findings {
            let mark = match finding.level {
                Level::Damage => "DAMAGE",
                Level::Warning => "warning",
                Level::Note => "note",
            };
            let _ = write!(
                out,
                "\n{mark:<8}{} ({})\n        {}\n        {}\n",
                finding.what, finding.check, finding.means, finding.todo
            );
        }
        out
    }
}
