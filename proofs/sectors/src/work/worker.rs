//! The worker's side: read one assignment, accept its limits, work, say how it went.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, BufWriter, Read, Write};
use std::path::Path;
use std::process::ExitCode;

use nix::sys::resource::{Resource, setrlimit};
use thiserror::Error;

use holdfast_proofs::PieceCid;

use super::{Assignment, FillPiece, Job, JobResult, LINE_BYTES_MAX, Limits, Message, Refused, Waits};
use crate::durable;
use crate::entropy::SystemRng;
use crate::params::ParamsError;
use crate::proof::{ProofFile, ProofFileError};
use crate::sector::post::{ProvableSector, prove_window, prove_winning};
use crate::sector::{Phase, Sector, SectorError, SectorSpec, Step};
use crate::types::Bytes32;
use crate::workshop::{Workshop, WorkshopError};

/// The kernel's out-of-memory killer takes the highest score first; this is the most there is.
const OOM_SCORE: &[u8] = b"1000";

#[derive(Debug, Error)]
enum WorkError {
    #[error(transparent)]
    Sector(#[from] SectorError),
    #[error(transparent)]
    Params(#[from] ParamsError),
    #[error(transparent)]
    Proof(#[from] ProofFileError),
    #[error(transparent)]
    Workshop(#[from] WorkshopError),
    #[error("the assignment cannot be read: {0}")]
    Assignment(String),
    #[error("limits cannot be set: {0}")]
    Limits(io::Error),
    #[error("{path}: {source}")]
    Io { path: String, source: io::Error },
}

impl WorkError {
    fn is_permanent(&self) -> bool {
        match self {
            Self::Sector(error) => error.is_permanent(),
            Self::Params(error) => error.is_permanent(),
            Self::Workshop(error) => matches!(error, WorkshopError::NotPrepared { .. }),
            Self::Proof(_) | Self::Assignment(_) => true,
            Self::Limits(_) | Self::Io { .. } => false,
        }
    }
}

/// A worker's whole life: what the program does when it is called as one.
#[must_use]
pub fn worker_main() -> ExitCode {
    let message = match assignment().and_then(work) {
        Ok(result) => Message::Done(result),
        Err(error) => Message::Failed { permanent: error.is_permanent(), reason: error.to_string() },
    };
    let failed = matches!(message, Message::Failed { .. });
    say(&message);
    if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

fn say(message: &Message) {
    let Ok(mut line) = serde_json::to_vec(message) else { return };
    line.push(b'\n');
    let mut out = io::stdout().lock();
    // A parent that no longer listens has closed our input too, which ends us.
    let _ = out.write_all(&line).and_then(|()| out.flush());
}

fn assignment() -> Result<Assignment, WorkError> {
    let mut line = Vec::new();
    let mut input = BufReader::new(io::stdin()).take(LINE_BYTES_MAX as u64);
    input.read_until(b'\n', &mut line).map_err(|error| WorkError::Assignment(error.to_string()))?;
    std::thread::spawn(|| {
        // The parent says no more; its end of the pipe closes when it stops us or dies.
        let _ = io::copy(&mut io::stdin(), &mut io::sink());
        std::process::exit(1);
    });
    serde_json::from_slice(&line).map_err(|error| WorkError::Assignment(error.to_string()))
}

fn limit(limits: Limits) -> io::Result<()> {
    setrlimit(Resource::RLIMIT_DATA, limits.memory_bytes, limits.memory_bytes)?;
    // Raising one's own score needs no privilege; where there is no procfs there is no such killer to guide.
    match fs::write("/proc/self/oom_score_adj", OOM_SCORE) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    // SAFETY: nice(2) takes an integer, touches no memory of ours, and lowers priority only.
    unsafe { libc::nice(i32::from(limits.nice.min(19))) };
    Ok(())
}

fn work(assignment: Assignment) -> Result<JobResult, WorkError> {
    limit(assignment.limits).map_err(WorkError::Limits)?;
    let workshop = Workshop::create(&assignment.workshop)?.with_parameters(assignment.parameters);
    match assignment.job {
        Job::Parameters { profile, circuit } => {
            let mut tell = |progress| say(&Message::Parameters(progress));
            let checked = workshop.parameters().generate(profile, circuit, &mut SystemRng, &mut tell)?;
            Ok(JobResult::Parameters { origin: checked.origin() })
        }
        Job::Fill { sector, spec, pieces, ticket } => fill(&sector, spec, &pieces, ticket),
        Job::Seal { sector, through, seed } => seal(&workshop, &sector, through, seed),
        Job::WindowPost { statement, sectors, out } => {
            let sectors =
                sectors.iter().map(|dir| ProvableSector::load(dir)).collect::<Result<Vec<_>, _>>()?;
            let outcome = prove_window(&workshop.parameters(), statement, &sectors)?;
            if let Some(proof) = &outcome.proof {
                write_proof(&out, proof)?;
            }
            Ok(JobResult::WindowPost { proven: outcome.proof.is_some(), faults: outcome.faults })
        }
        Job::WinningPost { statement, sector, out } => {
            let sector = ProvableSector::load(&sector)?;
            let proof = prove_winning(&workshop.parameters(), statement, &sector)?;
            write_proof(&out, &proof)?;
            Ok(JobResult::WinningPost)
        }
        Job::ReadPiece { sector, piece, offset, len, out } => {
            let sector = Sector::open_to_read(&sector)?;
            let beside = durable::partial(&out);
            let io = |source| WorkError::Io { path: beside.display().to_string(), source };
            let mut file = BufWriter::new(File::create(&beside).map_err(io)?);
            let unsealed = sector.read_piece(&workshop, &piece, offset, len, &mut file)?;
            file.flush().map_err(io)?;
            file.get_ref().sync_all().map_err(io)?;
            fs::rename(&beside, &out).map_err(io)?;
            Ok(JobResult::ReadPiece { unsealed })
        }
        Job::RestoreUnsealed { sector } => {
            let (mut sector, _) = Sector::open(&sector)?;
            sector.restore_unsealed(&workshop)?;
            Ok(JobResult::RestoreUnsealed)
        }
        Job::DropUnsealed { sector } => {
            let (mut sector, _) = Sector::open(&sector)?;
            sector.drop_unsealed()?;
            Ok(JobResult::DropUnsealed)
        }
    }
}

fn write_proof(out: &Path, proof: &ProofFile) -> Result<(), WorkError> {
    durable::replace(out, &proof.encode()?)
        .map_err(|source| WorkError::Io { path: out.display().to_string(), source })
}

/// Idempotent: pieces that are there already stay, so that an interrupted filling is gone on with.
fn fill(dir: &Path, spec: SectorSpec, pieces: &[FillPiece], ticket: Bytes32) -> Result<JobResult, WorkError> {
    let mut sector = match Sector::create(dir, spec) {
        Err(SectorError::Exists { .. }) => match Sector::open(dir) {
            // Its pieces are here.
            Err(SectorError::Lost) => Sector::begin_again(dir)?,
            other => other?.0,
        },
        other => other?,
    };
    let mut refused = Vec::new();
    if sector.phase() == Phase::Filling {
        let there: Vec<PieceCid> = sector.pieces().map(|(cid, _)| *cid).collect();
        for piece in pieces {
            let at = there.iter().position(|cid| *cid == piece.cid);
            let wrote = File::open(&piece.slot).map_err(SectorError::Payload).and_then(|slot| match at {
                Some(index) => sector.rewrite_piece(index, BufReader::new(slot)),
                None => sector.add_piece(piece.cid, BufReader::new(slot)).map(drop),
            });
            match wrote {
                Ok(()) => {}
                // One bad slot must not keep the others from being sealed.
                Err(
                    error @ (SectorError::OtherPiece { .. }
                    | SectorError::Packing(_)
                    | SectorError::Payload(_)),
                ) => {
                    refused.push(Refused { cid: piece.cid, reason: error.to_string() });
                }
                Err(error) => return Err(error.into()),
            }
        }
        sector.set_ticket(sector.ticket().unwrap_or(ticket))?;
    }
    Ok(JobResult::Fill { pieces: sector.pieces().map(|(cid, _)| *cid).collect(), refused })
}

fn seal(
    workshop: &Workshop,
    dir: &Path,
    through: Phase,
    seed: Option<Bytes32>,
) -> Result<JobResult, WorkError> {
    let (mut sector, setbacks) = Sector::open(dir)?;
    let mut waits = None;
    while sector.phase() < through && waits.is_none() {
        match sector.advance(workshop)? {
            Step::Finished(phase) => say(&Message::Phase(phase)),
            Step::NeedsTicket => waits = Some(Waits::Ticket),
            Step::NeedsSeed => match seed {
                Some(seed) => sector.set_seed(seed)?,
                None => waits = Some(Waits::Seed),
            },
            Step::Complete => break,
        }
    }
    let setbacks = setbacks
        .into_iter()
        .map(|setback| {
            format!("{} was damaged, resumed after {}", setback.damaged, setback.resumes_after.name())
        })
        .collect();
    Ok(JobResult::Seal { phase: sector.phase(), waits, comm_r: sector.comm_r(), setbacks })
}
