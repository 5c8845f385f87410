//! `holdfast-prover winning` and `unseal`: what can be asked of a folder of sectors, whether a keeper keeps it or not.

use std::path::{Path, PathBuf};

use holdfast_proofs::PieceCid;
use serde::Serialize;

use super::args::{UnsealArgs, WinningArgs};
use super::exit::{Exit, Failure};
use super::keep::WORKSHOP;
use super::{Outcome, print};
use crate::keeper::{KeeperError, SECTORS};
use crate::machine::Has;
use crate::params::Circuit;
use crate::proof::{PublicSector, WinningStatement, draw_sector};
use crate::sector::{Glance, Phase, Sector, SectorError, glance};
use crate::types::Bytes32;
use crate::work::{ChildEnd, Job, JobResult, Launcher, Limits};
use crate::workshop::Workshop;

/// What stands before and beside proofs of a test profile.
const WARNING: &str =
    "TEST STRENGTH: this shows that the program works, and nothing else. No money may rest on it.";

/// A sector, its folder, and what its journal says.
struct Found {
    dir: PathBuf,
    glance: Glance,
}

/// All sectors of a folder, in the order of their numbers.
fn sectors(dir: &Path) -> Result<Vec<Found>, Failure> {
    let folder = dir.join(SECTORS);
    let missing = |_| Failure::new(Exit::Missing, format!("there are no sectors in {}", dir.display()));
    let mut found = Vec::new();
    for entry in std::fs::read_dir(&folder).map_err(missing)? {
        let dir = entry?.path();
        // One that is set aside, or was never begun, is none.
        if let Ok(Some(glance)) = glance(&dir)
            && dir.file_name().and_then(|name| name.to_str()) == Some(&glance.spec.number.to_string())
        {
            found.push(Found { dir, glance });
        }
    }
    found.sort_by_key(|found| found.glance.spec.number);
    Ok(found)
}

/// One job in a worker, with all that the machine has.
fn work(workshop: Workshop, job: Job) -> Result<JobResult, Failure> {
    let has = Has::look(workshop.dir()).map_err(|error| Failure::new(Exit::Failed, error.to_string()))?;
    let launcher = Launcher::new(std::env::current_exe()?, vec!["worker".into()], workshop);
    let limits = Limits { memory_bytes: has.memory_bytes, cores: has.cores, nice: 0 };
    let failed = |message: String| Failure::new(Exit::Failed, message);
    match launcher.start(job, limits).and_then(|mut child| child.wait()) {
        Ok(ChildEnd::Done(result)) => Ok(result),
        Ok(ChildEnd::Failed { reason, .. } | ChildEnd::Crashed { reason }) => Err(failed(reason)),
        Ok(ChildEnd::OutOfMemory) => Err(Failure::new(Exit::Missing, "there is too little memory")),
        Ok(ChildEnd::Stopped) => Err(failed("it was stopped".to_owned())),
        Err(error) => Err(failed(error.to_string())),
    }
}

fn workshop(dir: &Path) -> Result<Workshop, Failure> {
    Ok(Workshop::create(&dir.join(WORKSHOP)).map_err(KeeperError::from)?)
}

#[derive(Serialize)]
struct Won {
    file: PathBuf,
    sector: u64,
    /// Sectors that it was drawn from.
    of: usize,
    drawn: bool,
    prover: Bytes32,
    strength: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    warning: Option<&'static str>,
}

pub fn winning(json: bool, args: &WinningArgs) -> Outcome {
    let mut sectors = sectors(&args.dir)?;
    sectors.retain(|found| found.glance.phase >= Phase::PreCommit2);
    let of = sectors.len();
    let Some(first) = sectors.first() else {
        return Err(Failure::new(Exit::Missing, "there is no sealed sector here yet"));
    };
    let prover = first.glance.spec.prover;
    let drawn = draw_sector(&args.beacon, args.epoch, &prover, of as u64);
    let chosen = match args.sector {
        Some(number) => sectors.iter().find(|found| found.glance.spec.number == number),
        None => drawn.and_then(|at| sectors.get(usize::try_from(at).ok()?)),
    };
    let Some(chosen) = chosen else {
        let message = format!("there is no sealed sector {} here", args.sector.unwrap_or_default());
        return Err(Failure::new(Exit::Usage, message));
    };
    let profile = chosen.glance.spec.profile;
    let workshop = workshop(&args.dir)?.with_parameters(args.folder.path());
    // Before a process is started for it: its own words, and its own exit code.
    workshop.parameters().check(profile, Circuit::WinningPost).map_err(|error| {
        let make =
            format!("holdfast proofs params --profile {} --circuit winning-post --make", profile.name());
        let failure = Failure::from(error);
        if profile.is_production() { failure } else { failure.hint(format!("`{make}` makes them.")) }
    })?;
    let number = chosen.glance.spec.number;
    let out = std::path::absolute(&args.out)?;
    let sector = PublicSector { number, comm_r: chosen.glance.comm_r.unwrap_or_default() };
    let statement = WinningStatement { profile, prover, beacon: args.beacon, epoch: args.epoch, sector };
    work(workshop, Job::WinningPost { statement, sector: chosen.dir.clone(), out: out.clone() })?;
    let warning = (!profile.is_production()).then_some(WARNING);
    let lead = warning.map_or_else(String::new, |warning| format!("{warning}\n"));
    let text = format!("{lead}sector {number} of {of}\nproof {}\n", out.display());
    let won = Won {
        file: out,
        sector: number,
        of,
        drawn: args.sector.is_none(),
        prover,
        strength: profile.strength(),
        warning,
    };
    print(json, &won, &text)
}

#[derive(Serialize)]
struct Unsealed {
    file: PathBuf,
    piece: PieceCid,
    sector: u64,
    offset: u64,
    length: u64,
    /// From the replica, since the unsealed copy was gone.
    unsealed: bool,
}

pub fn unseal(json: bool, args: &UnsealArgs) -> Outcome {
    let usage = |message: String| Failure::new(Exit::Usage, message);
    let piece: PieceCid = args.piece.parse().map_err(|error| usage(format!("{}: {error}", args.piece)))?;
    let sectors = sectors(&args.dir)?;
    let holding = sectors
        .iter()
        .find(|found| found.glance.phase >= Phase::Packed && found.glance.pieces.contains(&piece));
    let Some(found) = holding else {
        return Err(Failure::new(Exit::Missing, format!("no sector here has piece {piece}")));
    };
    let whole = piece.payload_len();
    let length = args.length.unwrap_or(whole.saturating_sub(args.offset));
    if args.offset.checked_add(length).is_none_or(|end| end > whole) {
        return Err(usage(format!("the piece has {whole} bytes")));
    }
    let in_use = "It is being sealed: try again when that phase is over.";
    match Sector::open_to_read(&found.dir) {
        Err(error @ SectorError::Busy { .. }) => {
            return Err(Failure::new(Exit::InUse, error.to_string()).hint(in_use));
        }
        other => drop(other),
    }
    let out = std::path::absolute(&args.out)?;
    let sector = found.dir.clone();
    let job = Job::ReadPiece { sector, piece, offset: args.offset, len: length, out: out.clone() };
    let JobResult::ReadPiece { unsealed } = work(workshop(&args.dir)?, job)? else {
        return Err(Failure::new(Exit::Failed, "the worker did something else"));
    };
    let number = found.glance.spec.number;
    let from = if unsealed { "unsealed from the replica" } else { "from the unsealed copy" };
    let text = format!("{length} bytes of {piece}, sector {number}, {from}\nin {}\n", out.display());
    let read = Unsealed { file: out, piece, sector: number, offset: args.offset, length, unsealed };
    print(json, &read, &text)
}
