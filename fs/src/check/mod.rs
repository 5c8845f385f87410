//! fsck: is everything that the rows promise there?
//!
//! Owns: the one checker, used by `holdfast verify` and by every crash test. Promises: it changes nothing, reads one snapshot, and names each broken rule.
//! Bounded: about 100 bytes of memory for each inode; [`PROBLEMS_MAX`] problems are told in words, the rest are counted.
//!
//! - [`namespace`]: inodes, names, link counts, xattrs, orphans
//! - [`data`]: extents, payloads, chunks, DAGs, blocks, pieces and their files
//! - [`commits`]: the chain of commits, the newest one's trees against the rows, plain UnixFS from its root

mod commits;
mod data;
mod namespace;
mod policy;

use std::fmt;

use holdfast_store::Snapshot;

use crate::drive::error::DriveError;
use crate::drive::{Drive, Inner};
use crate::rows::View;
use crate::rows::marks::Marked;

/// Problems told in words.
pub const PROBLEMS_MAX: usize = 1000;
/// Rows fetched at once.
const PAGE_ROWS: usize = 1024;

/// How thorough.
#[derive(Debug, Clone, Copy, Default)]
pub struct CheckOptions {
    /// Read every local block: verify its CID, decrypt chunks, and walk UnixFS from the newest commit's root.
    pub deep: bool,
}

/// What was found.
#[derive(Debug, Default)]
pub struct Report {
    /// Broken rules, in words.
    pub problems: Vec<String>,
    /// All of them, also those beyond [`PROBLEMS_MAX`].
    pub problems_count: u64,
    /// Rows of each kind that were looked at.
    pub inodes: u64,
    /// Names.
    pub entries: u64,
    /// Runs of bytes in the log.
    pub extents: u64,
    /// Sealed chunks.
    pub chunks: u64,
    /// Blocks with a row here.
    pub blocks: u64,
    /// Pieces with a row here.
    pub pieces: u64,
    /// Commits with a row here.
    pub commits: u64,
    /// Blocks that were read and verified.
    pub blocks_verified: u64,
    /// Bytes of those.
    pub bytes_read: u64,
    /// Blocks that are only with the providers and were not read.
    pub blocks_remote: u64,
}

impl Report {
    /// Nothing is broken.
    pub fn is_clean(&self) -> bool {
        self.problems_count == 0
    }

    fn problem(&mut self, what: impl Into<String>) {
        self.problems_count += 1;
        if self.problems.len() < PROBLEMS_MAX {
            self.problems.push(what.into());
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{} inodes, {} names, {} extents, {} chunks, {} blocks in {} pieces, {} commits; {} blocks verified, {} only remote",
            self.inodes,
            self.entries,
            self.extents,
            self.chunks,
            self.blocks,
            self.pieces,
            self.commits,
            self.blocks_verified,
            self.blocks_remote
        )?;
        for problem in &self.problems {
            writeln!(f, "  {problem}")?;
        }
        write!(f, "{} problems", self.problems_count)
    }
}

/// What the parts of the checker share.
struct Checker<'a> {
    inner: &'a Inner,
    options: CheckOptions,
    snapshot: &'a Snapshot,
    rows: View<'a, Snapshot>,
    /// What changed since the newest commit.
    marked: Marked<'a, Snapshot>,
    report: Report,
}

impl Drive {
    /// Checks every rule. Seals are held off meanwhile; the file system goes on.
    pub fn check(&self, options: CheckOptions) -> Result<Report, DriveError> {
        let inner = &*self.inner;
        let _no_seal = inner.hold_seals();
        let snapshot = inner.parts.store.snapshot()?;
        let rows = inner.parts.rows().at(&snapshot);
        let mut report = Report::default();
        let marked = match Marked::since(&snapshot, inner.latest_cut()) {
            Ok(marked) => marked,
            Err(error) if error.is_retryable() => return Err(error.into()),
            Err(error) => {
                report.problem(format!("the check could not begin: {error}"));
                return Ok(report);
            }
        };
        let mut checker = Checker { inner, options, snapshot: &snapshot, rows, marked, report };
        if let Some(reason) = inner.parts.store.read_only() {
            checker.report.problem(format!("the log takes no more changes: {reason}"));
        }
        if let Err(error) = checker.everything() {
            checker.abandoned(error)?;
        }
        Ok(checker.report)
    }
}

impl Checker<'_> {
    fn everything(&mut self) -> Result<(), DriveError> {
        let inodes = self.namespace()?;
        self.data(&inodes)?;
        self.policies(&inodes)?;
        if let Err(error) = self.commits() {
            self.abandoned(error)?;
        }
        Ok(())
    }

    /// What cannot be read is a finding; only a failure that may pass ends the check.
    fn abandoned(&mut self, error: DriveError) -> Result<(), DriveError> {
        if error.is_retryable() && !matches!(error, DriveError::Fetch(_) | DriveError::NotLocal(_)) {
            return Err(error);
        }
        self.report.problem(format!("the check could not go on: {error}"));
        Ok(())
    }
}
