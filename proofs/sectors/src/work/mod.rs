//! Heavy steps in a process of their own, so that running out of memory kills a seal and not the provider.
//!
//! ```text
//! parent                                   worker (`worker_main`)
//!   one line: assignment as JSON  ------->   applies limits, works
//!   <------- lines of JSON: progress ... then exactly one: done or failed
//!   closing the worker's input (or dying) ends the worker
//! ```
//!
//! Promises: the worker limits itself before it touches data (memory, niceness, first choice of the kernel's
//! out-of-memory killer); it outlives neither its parent nor a stop; killing it loses at most one phase, since all
//! phases are crash-safe. Refuses: lines longer than `LINE_BYTES_MAX`, in either direction.

mod child;
mod worker;

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::params::{Circuit, GenerateProgress, Origin};
use crate::profile::Profile;
use crate::proof::{WindowStatement, WinningStatement};
use crate::sector::post::Fault;
use crate::sector::{Phase, SectorSpec};
use crate::types::Bytes32;
use holdfast_proofs::PieceCid;

pub use child::{Child, ChildEnd, ChildError, Launcher};
pub use worker::worker_main;

/// The longest line that parent and worker exchange: 65,536 sector paths fit.
pub const LINE_BYTES_MAX: usize = 32 << 20;

/// What a worker is to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "kebab-case")]
pub enum Job {
    /// Make a pair of parameters (test profiles only).
    Parameters { profile: Profile, circuit: Circuit },
    /// Make a sector (or take up one that was begun), put these pieces into it, and fix its ticket. A sector whose
    /// unsealed copy was damaged gets its own pieces written again.
    Fill { sector: PathBuf, spec: SectorSpec, pieces: Vec<FillPiece>, ticket: Bytes32 },
    /// Take a sector through its phases until it waits for something, or has finished `through`. The seed is fixed once
    /// the replica is made.
    Seal { sector: PathBuf, through: Phase, seed: Option<Bytes32> },
    /// Prove sectors; `statement.sectors` is filled in.
    WindowPost { statement: WindowStatement, sectors: Vec<PathBuf>, out: PathBuf },
    /// Prove one sector; `statement.sector` is filled in.
    WinningPost { statement: WinningStatement, sector: PathBuf, out: PathBuf },
    /// Read a piece's range, from the replica where the unsealed copy is gone.
    ReadPiece { sector: PathBuf, piece: PieceCid, offset: u64, len: u64, out: PathBuf },
    /// Make the unsealed copy again.
    RestoreUnsealed { sector: PathBuf },
    /// Give up the unsealed copy of a sector that is sealed.
    DropUnsealed { sector: PathBuf },
}

/// A piece and the file of its bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FillPiece {
    pub cid: PieceCid,
    pub slot: PathBuf,
}

/// What a worker may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Private memory (RLIMIT_DATA): mapped parameters do not count, since the kernel can drop them.
    pub memory_bytes: u64,
    /// Threads of computation.
    pub cores: u32,
    /// Added to the niceness, 0 to 19.
    pub nice: u8,
}

/// One job with its limits and its workshop.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Assignment {
    pub job: Job,
    pub limits: Limits,
    pub workshop: PathBuf,
    pub parameters: PathBuf,
}

/// What a sealing job waits for, if not for time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Waits {
    Ticket,
    Seed,
}

/// What a finished job came to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "result", rename_all = "kebab-case")]
pub enum JobResult {
    Parameters {
        origin: Origin,
    },
    /// The pieces that the sector has now, and those whose bytes were not theirs or could not be read.
    Fill {
        pieces: Vec<PieceCid>,
        refused: Vec<Refused>,
    },
    Seal {
        phase: Phase,
        waits: Option<Waits>,
        comm_r: Option<Bytes32>,
        setbacks: Vec<String>,
    },
    WindowPost {
        proven: bool,
        faults: Vec<Fault>,
    },
    WinningPost,
    ReadPiece {
        /// From the replica, since the unsealed copy was gone.
        unsealed: bool,
    },
    RestoreUnsealed,
    DropUnsealed,
}

/// A piece that did not go into its sector.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refused {
    pub cid: PieceCid,
    pub reason: String,
}

/// A worker's line.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Message {
    /// A phase was finished and is on disk.
    Phase(Phase),
    Parameters(GenerateProgress),
    Done(JobResult),
    /// `permanent`: trying again without somebody's help is useless.
    Failed {
        permanent: bool,
        reason: String,
    },
}
