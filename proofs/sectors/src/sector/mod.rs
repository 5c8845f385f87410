//! A sector's folder, and its way from pieces to a sealed, proven replica.
//!
//! ```text
//! sector/journal.json   which phases are finished, with the hashes of their outputs
//!        unsealed       fr32-expanded pieces; kept for reading while the provider's policy says so
//!        pc1/           layers and data tree                 until cleared
//!        pc2/           those (hard links), replica, trees   until cleared
//!        synthetic/     replica, its tree, all candidates    synthetic seals, until cleared
//!        commit1.json   answers to the challenges            until cleared
//!        proof          the seal's proof, for anybody (a proof file)
//!        final/         replica and the tree that later proofs need
//! ```
//!
//! Promises: every phase writes beside, syncs, renames, and only then enters the journal; `open` hashes whatever
//! later phases need and goes back to the last phase that is whole, so power may fail anywhere; a replica that is
//! made again is the same replica. One process works on a sector at a time.
//! Refuses: to choose ticket or seed (they come from a beacon), to seal bytes that are not the pieces' own.

mod fill;
mod journal;
mod phases;
pub mod post;
mod unseal;

use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};

use holdfast_proofs::PieceCid;
use nix::fcntl::{Flock, FlockArg};
use thiserror::Error;

use crate::durable::{self, PARTIAL};
use crate::packing::{Layout, PackingError, PieceRoot};
use crate::params::ParamsError;
use crate::proof::ProofFileError;
use crate::types::Bytes32;
use crate::workshop::{Workshop, WorkshopError};

pub(crate) use journal::decode_any as decode_any_journal;
#[cfg(test)]
pub(crate) use journal::sample as sample_journal;
use journal::{Finished, JOURNAL, Journal, Output};
pub use journal::{Phase, SectorSpec};

pub(crate) const UNSEALED: &str = "unsealed";
const PC1: &str = "pc1";
const PC2: &str = "pc2";
const SYNTHETIC: &str = "synthetic";
const COMMIT1: &str = "commit1.json";
const PROOF: &str = "proof";
const FINAL: &str = "final";
/// The replica within a folder of outputs.
const SEALED: &str = "sealed";
const LOCK: &str = "lock";

/// Why work on a sector stopped.
#[derive(Debug, Error)]
pub enum SectorError {
    #[error("{}: {source}", path.display())]
    Io { path: PathBuf, source: io::Error },
    #[error("{} is not a journal of ours: {reason}", path.display())]
    Journal { path: PathBuf, reason: String },
    #[error("{} is of version {version}, which this program does not know", path.display())]
    Newer { path: PathBuf, version: u32 },
    #[error("another process works on the sector in {}", dir.display())]
    Busy { dir: PathBuf },
    #[error("there is a sector in {} already", dir.display())]
    Exists { dir: PathBuf },
    #[error("the sector is at '{at}', which does not allow this", at = at.name())]
    WrongPhase { at: Phase },
    #[error("the {what} was set before, to another value")]
    AlreadySet { what: &'static str },
    #[error("the bytes are of piece {found}, not of {expected}")]
    OtherPiece { expected: PieceCid, found: PieceCid },
    #[error("the piece's bytes cannot be read: {0}")]
    Payload(io::Error),
    #[error("the unsealed bytes of piece {piece} are not its own: write them again")]
    PieceDamaged { piece: PieceCid },
    #[error("the unsealed bytes are gone and the replica is damaged: the sector is lost")]
    Lost,
    #[error("the replica made again has another commitment ({found}, before {before})")]
    OtherReplica { before: Bytes32, found: Bytes32 },
    #[error("the range {offset}+{len} is not within the piece")]
    Range { offset: u64, len: u64 },
    #[error("{phase}: the proof library failed: {reason}")]
    Library { phase: &'static str, reason: String },
    #[error(transparent)]
    Packing(#[from] PackingError),
    #[error(transparent)]
    Params(#[from] ParamsError),
    #[error(transparent)]
    Proof(#[from] ProofFileError),
    #[error(transparent)]
    Workshop(#[from] WorkshopError),
}

impl SectorError {
    /// Whether trying again without somebody's help is useless.
    #[must_use]
    pub fn is_permanent(&self) -> bool {
        match self {
            Self::Io { .. } | Self::Busy { .. } | Self::Library { .. } => false,
            Self::Params(error) => error.is_permanent(),
            Self::Workshop(error) => matches!(error, WorkshopError::NotPrepared { .. }),
            _ => true,
        }
    }

    fn io(path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { path, source }
    }

    fn library(phase: &'static str) -> impl FnOnce(anyhow::Error) -> Self {
        move |error| Self::Library { phase, reason: format!("{error:#}") }
    }
}

/// What `advance` did, or waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    Finished(Phase),
    /// `set_ticket` first.
    NeedsTicket,
    /// `set_seed` first, from a beacon later than the replica's commitment.
    NeedsSeed,
    /// All phases are finished.
    Complete,
}

/// What `open` found wrong, and how far it went back for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setback {
    pub damaged: String,
    /// The last phase that still stands.
    pub resumes_after: Phase,
}

/// What a sector's journal says, read without its lock: nothing of it is hashed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Glance {
    pub spec: SectorSpec,
    pub phase: Phase,
    pub pieces: Vec<PieceCid>,
    pub comm_r: Option<Bytes32>,
    pub has_ticket: bool,
    pub has_seed: bool,
    /// Whether the unsealed copy was given up on purpose.
    pub unsealed_dropped: bool,
}

/// Looks at a sector's folder; none where its journal was never written.
///
/// # Errors
/// `Journal`, `Io`.
pub fn glance(dir: &Path) -> Result<Option<Glance>, SectorError> {
    if !dir.join(JOURNAL).exists() {
        return Ok(None);
    }
    let journal = Journal::load(dir)?;
    Ok(Some(Glance {
        spec: journal.spec,
        phase: journal.phase(),
        pieces: journal.pieces.iter().map(|piece| piece.cid).collect(),
        comm_r: journal.comm_r,
        has_ticket: journal.ticket.is_some(),
        has_seed: journal.seed.is_some(),
        unsealed_dropped: journal.unsealed_dropped,
    }))
}

/// A sector that this process works on.
#[derive(Debug)]
pub struct Sector {
    dir: PathBuf,
    journal: Journal,
    _lock: Flock<File>,
}

impl Sector {
    /// Makes an empty sector in a folder that has none.
    ///
    /// # Errors
    /// `Exists`, `Busy`, `Io`.
    pub fn create(dir: &Path, spec: SectorSpec) -> Result<Self, SectorError> {
        fs::create_dir_all(dir).map_err(SectorError::io(dir))?;
        let lock = lock(dir)?;
        if dir.join(JOURNAL).exists() {
            return Err(SectorError::Exists { dir: dir.to_owned() });
        }
        let journal = Journal::new(spec);
        let unsealed = dir.join(UNSEALED);
        let file = File::create(&unsealed).map_err(SectorError::io(&unsealed))?;
        file.set_len(spec.profile.sector_bytes()).map_err(SectorError::io(&unsealed))?;
        file.sync_all().map_err(SectorError::io(&unsealed))?;
        journal.store(dir)?;
        Ok(Self { dir: dir.to_owned(), journal, _lock: lock })
    }

    /// Opens a sector, hashes what later phases need, and goes back as far as something is missing or damaged.
    ///
    /// # Errors
    /// `Journal`, `Busy`, `Io`, and `Lost` where nothing is left to go back to.
    pub fn open(dir: &Path) -> Result<(Self, Vec<Setback>), SectorError> {
        let lock = lock(dir)?;
        let mut journal = Journal::load(dir)?;
        let mut setbacks = Vec::new();
        while let Some((phase, damaged)) = journal.first_damage(dir) {
            if phase == Phase::Packed && journal.unsealed_dropped {
                return Err(SectorError::Lost);
            }
            journal.roll_back(phase);
            setbacks.push(Setback { damaged, resumes_after: journal.phase() });
        }
        if !setbacks.is_empty() {
            journal.store(dir)?;
        }
        let sector = Self { dir: dir.to_owned(), journal, _lock: lock };
        sector.sweep()?;
        Ok((sector, setbacks))
    }

    /// Opens a sector to read pieces from it: nothing is hashed, nothing is changed.
    ///
    /// # Errors
    /// `Journal`, `Busy`, `Io`.
    pub fn open_to_read(dir: &Path) -> Result<Self, SectorError> {
        let lock = lock(dir)?;
        Ok(Self { dir: dir.to_owned(), journal: Journal::load(dir)?, _lock: lock })
    }

    /// Takes a sector back to its filling, for one whose bytes are to be had elsewhere: replica and unsealed copy are lost.
    /// Pieces, ticket, seed and the replica's commitment stay, so that what is made again is the same, and so does its proof.
    ///
    /// # Errors
    /// `Journal`, `Busy`, `Io`.
    pub fn begin_again(dir: &Path) -> Result<Self, SectorError> {
        let mut sector = Self::open_to_read(dir)?;
        sector.journal.finished.clear();
        sector.journal.unsealed_dropped = false;
        sector.journal.store(dir)?;
        sector.sweep()?;
        Ok(sector)
    }

    /// Removes what no finished phase needs: outputs of interrupted phases, and of those that are cleared.
    fn sweep(&self) -> Result<(), SectorError> {
        let at = self.journal.phase();
        let mut gone: Vec<String> = Vec::new();
        for entry in fs::read_dir(&self.dir).map_err(SectorError::io(&self.dir))? {
            let name = entry.map_err(SectorError::io(&self.dir))?.file_name().to_string_lossy().into_owned();
            if name.ends_with(PARTIAL) {
                gone.push(name);
            }
        }
        let cleared = at == Phase::Cleared;
        let layers_gone = cleared || (self.finished(Phase::Synthetic) && at >= Phase::Synthetic);
        for (name, unneeded) in [
            (PC1, layers_gone || at < Phase::PreCommit1),
            (PC2, layers_gone || at < Phase::PreCommit2),
            (SYNTHETIC, cleared || !self.finished(Phase::Synthetic)),
            (COMMIT1, cleared || at < Phase::Commit1),
            (FINAL, !cleared),
            (UNSEALED, self.journal.unsealed_dropped),
        ] {
            if unneeded {
                gone.push(name.to_owned());
            }
        }
        for name in gone {
            let path = self.dir.join(name);
            durable::remove(&path).map_err(SectorError::io(&path))?;
        }
        Ok(())
    }

    fn finished(&self, phase: Phase) -> bool {
        self.journal.finished.iter().any(|finished| finished.phase == phase)
    }

    #[must_use]
    pub fn spec(&self) -> &SectorSpec {
        &self.journal.spec
    }

    /// The last finished phase.
    #[must_use]
    pub fn phase(&self) -> Phase {
        self.journal.phase()
    }

    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The sector's pieces, in order, with the padded offset at which each begins.
    pub fn pieces(&self) -> impl Iterator<Item = (&PieceCid, u64)> {
        self.journal.pieces.iter().map(|piece| (&piece.cid, piece.offset))
    }

    /// Where the pieces lie.
    ///
    /// # Errors
    /// None in practice: `open` checked it.
    pub fn layout(&self) -> Result<Layout, SectorError> {
        Ok(self.journal.layout()?)
    }

    /// The replica's commitment, once pre-commit 2 is finished.
    #[must_use]
    pub fn comm_r(&self) -> Option<Bytes32> {
        self.journal.comm_r.filter(|_| self.phase() >= Phase::PreCommit2)
    }

    #[must_use]
    pub fn ticket(&self) -> Option<Bytes32> {
        self.journal.ticket
    }

    #[must_use]
    pub fn seed(&self) -> Option<Bytes32> {
        self.journal.seed
    }

    /// Path of the seal's proof file, once commit 2 is finished.
    #[must_use]
    pub fn proof_path(&self) -> Option<PathBuf> {
        self.finished(Phase::Commit2).then(|| self.dir.join(PROOF))
    }

    /// Fixes the randomness that makes the replica this one and no earlier one.
    ///
    /// # Errors
    /// `AlreadySet` to another value.
    pub fn set_ticket(&mut self, ticket: Bytes32) -> Result<(), SectorError> {
        if self.journal.ticket.is_some_and(|before| before != ticket) {
            return Err(SectorError::AlreadySet { what: "ticket" });
        }
        self.journal.ticket = Some(ticket);
        self.journal.store(&self.dir)
    }

    /// Fixes the randomness that draws the challenges. It must not have been known when the replica's commitment
    /// was made public, or the seal shows nothing.
    ///
    /// # Errors
    /// `WrongPhase` before there is a commitment, `AlreadySet` to another value.
    pub fn set_seed(&mut self, seed: Bytes32) -> Result<(), SectorError> {
        if self.phase() < Phase::PreCommit2 {
            return Err(SectorError::WrongPhase { at: self.phase() });
        }
        if self.journal.seed.is_some_and(|before| before != seed) {
            return Err(SectorError::AlreadySet { what: "seed" });
        }
        self.journal.seed = Some(seed);
        self.journal.store(&self.dir)
    }

    /// Does the next phase, or says what it waits for.
    ///
    /// # Errors
    /// What stopped the phase; the sector stands where it stood before.
    pub fn advance(&mut self, workshop: &Workshop) -> Result<Step, SectorError> {
        let Some(next) = self.phase().next(self.journal.spec.mode) else { return Ok(Step::Complete) };
        match next {
            Phase::PreCommit1 if self.journal.ticket.is_none() => return Ok(Step::NeedsTicket),
            Phase::Commit1 if self.journal.seed.is_none() => return Ok(Step::NeedsSeed),
            _ => {}
        }
        let outputs = match next {
            Phase::Filling => Vec::new(),
            Phase::Packed => self.pack()?,
            _ => self.heavy(next, workshop)?,
        };
        self.journal.finished.push(Finished { phase: next, outputs });
        self.journal.store(&self.dir)?;
        self.sweep()?;
        Ok(Step::Finished(next))
    }

    /// Gives up the unsealed copy: reading a piece then unseals the replica.
    ///
    /// # Errors
    /// `WrongPhase` before the sector is cleared: until then it may be needed to seal again.
    pub fn drop_unsealed(&mut self) -> Result<(), SectorError> {
        if self.phase() != Phase::Cleared {
            return Err(SectorError::WrongPhase { at: self.phase() });
        }
        self.journal.unsealed_dropped = true;
        self.journal.store(&self.dir)?;
        self.sweep()
    }

    /// The folder that holds replica and trees now.
    fn replica_dir(&self) -> Result<PathBuf, SectorError> {
        let folder = match self.phase() {
            Phase::Cleared => FINAL,
            at if at < Phase::PreCommit2 => return Err(SectorError::WrongPhase { at }),
            _ if self.finished(Phase::Synthetic) => SYNTHETIC,
            _ => PC2,
        };
        Ok(self.dir.join(folder))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    fn roots(&self) -> Vec<PieceRoot> {
        self.journal.pieces.iter().map(|piece| PieceRoot::of(&piece.cid)).collect()
    }
}

fn lock(dir: &Path) -> Result<Flock<File>, SectorError> {
    let path = dir.join(LOCK);
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)
        .map_err(SectorError::io(&path))?;
    Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|_| SectorError::Busy { dir: dir.to_owned() })
}

#[cfg(test)]
mod tests;
