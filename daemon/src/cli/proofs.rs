//! `holdfast proofs`: checks proofs of every kind, and hands over what the prover does.
//!
//! Possession and compressed proofs are checked here. What rests on Filecoin's circuits is handed to `holdfast-prover`,
//! whose output and exit code are ours.

use std::{
    ffi::OsString,
    fs::{self, File},
    io::{self, Read, Write},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use holdfast_compressed::{AuditReport, BoundAudits, OpeningError, OpeningFile, ReportError};
use holdfast_proofs::file::{FileError, PROOF_FILE_BYTES_MAX, PossessionFile, ProofFile, SetFile};
use serde::Serialize;

use super::{
    Exit, Failure, Outcome,
    args::{
        ParameterFolder, ProofsArgs, ProofsCommand, ProofsParamsArgs, ProofsUnsealArgs, ProofsVerifyArgs,
        ProofsWinningArgs,
    },
    print,
};
use crate::{
    home::{HomeError, write_atomically},
    prover, sealing,
    worker::unix_now,
};

/// What stands before and beside every result that is not to be relied upon.
pub(super) const WARNING: &str = "TEST STRENGTH: the parameters were made locally, and whoever made them can forge this. No money may \
                       rest on it.";
/// Pieces of a set that are named.
const PIECES_SHOWN_MAX: usize = 16;
/// Standard input, as a file's name.
const STDIN: &str = "-";

/// What a verification says; the shape is `holdfast-prover`'s.
#[derive(Serialize)]
struct Verified {
    valid: bool,
    production: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    warning: Option<&'static str>,
    kind: &'static str,
    strength: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    key_sha256: Option<String>,
    shows: Vec<String>,
    does_not_show: Vec<String>,
}

pub fn run(json: bool, args: &ProofsArgs, program: io::Result<PathBuf>) -> Outcome {
    match &args.command {
        ProofsCommand::Verify(args) => verify(json, args, program),
        ProofsCommand::Params(args) => params(json, args, program),
        ProofsCommand::Prove(args) => super::prove::prove(json, args),
        ProofsCommand::Winning(args) => winning(json, args, program),
        ProofsCommand::Unseal(args) => unseal(json, args, program),
        ProofsCommand::Compress(args) => super::compress::compress(json, args),
        ProofsCommand::Open(args) => super::compress::open(json, args),
        ProofsCommand::Status { dir } => status(json, dir),
    }
}

fn verify(json: bool, args: &ProofsVerifyArgs, program: io::Result<PathBuf>) -> Outcome {
    let bytes = read(&args.file)?;
    // A compressed report is an array of DAG-CBOR, any other proof file begins with its name.
    let verified = if OpeningFile::is_one(&bytes) {
        openings(&bytes)?
    } else if bytes.first().is_some_and(|byte| byte >> 5 == 4) {
        compressed(&bytes)?
    } else {
        match ProofFile::decode(&bytes)? {
            ProofFile::Possession(file) => possession(&file)?,
            ProofFile::Set(file) => set(&file)?,
            // What was read is what is checked: a pipe gives its bytes once.
            ProofFile::Sealed(_) => {
                let words: Vec<OsString> = vec!["verify".into(), STDIN.into()];
                return hand_over(json, words, Some(&args.folder), program, Some(&bytes));
            }
        }
    };
    print(json, &verified, &verified.text())
}

/// The file, if it is no longer than any proof.
fn read(path: &Path) -> Result<Vec<u8>, Failure> {
    let named = |error: io::Error| {
        let mut failure = Failure::from(anyhow::Error::from(error));
        failure.message = format!("{}: {}", path.display(), failure.message);
        failure
    };
    let mut bytes = Vec::new();
    let limit = PROOF_FILE_BYTES_MAX as u64 + 1;
    let read = if path == Path::new(STDIN) {
        io::stdin().lock().take(limit).read_to_end(&mut bytes)
    } else {
        File::open(path).and_then(|file| file.take(limit).read_to_end(&mut bytes))
    };
    read.map_err(named)?;
    Ok(bytes)
}

fn possession(file: &PossessionFile) -> Result<Verified, Failure> {
    let verdict = file.verify()?;
    Ok(Verified {
        valid: true,
        production: true,
        warning: None,
        kind: "possession",
        strength: "production strength",
        key_sha256: None,
        shows: verdict.shows(),
        does_not_show: verdict.does_not_show(),
    })
}

fn set(file: &SetFile) -> Result<Verified, Failure> {
    let verdict = file.verify()?;
    let mut shows = verdict.shows();
    shows.push(format!("the set's digest is {}", data_encoding::HEXLOWER.encode(verdict.set())));
    shows.extend(file.set.pieces().iter().take(PIECES_SHOWN_MAX).map(|piece| format!("in it: {piece}")));
    if let Some(more) = file.set.pieces().len().checked_sub(PIECES_SHOWN_MAX).filter(|more| *more > 0) {
        shows.push(format!("and {more} more"));
    }
    Ok(Verified {
        valid: true,
        production: true,
        warning: None,
        kind: "possession-set",
        strength: "production strength",
        key_sha256: None,
        shows,
        does_not_show: verdict.does_not_show(),
    })
}

fn compressed(bytes: &[u8]) -> Result<Verified, Failure> {
    let report = AuditReport::decode(bytes)?;
    let verdict = report.verify()?;
    Ok(Verified {
        valid: true,
        production: false,
        warning: Some(WARNING),
        kind: "compressed-possession",
        strength: "test strength",
        key_sha256: Some(data_encoding::HEXLOWER.encode(verdict.key())),
        shows: vec![
            verdict.in_words(),
            format!("the set's root is {}", data_encoding::HEXLOWER.encode(&report.set.to_bytes())),
        ],
        does_not_show: vec![
            "that this is the set that was agreed on: compare its root".to_owned(),
            "anything to whoever does not trust the maker of the parameters: it could forge".to_owned(),
        ],
    })
}

/// The chance with which a cheater passes, for the figure that is told.
const CHANCE: f64 = 0.001;

fn openings(bytes: &[u8]) -> Result<Verified, Failure> {
    let file = OpeningFile::decode(bytes)?;
    let binding = file.verify()?;
    let (piece, root) = (binding.slot().piece(), binding.slot().root());
    let asked = BoundAudits { openings: u64::from(binding.openings()), draws: 0 };
    let rest = if binding.exhaustive() {
        "every leaf was opened: both trees are over the same bytes".to_owned()
    } else {
        let percent = asked.differing_at_most(CHANCE) * 100.0;
        format!(
            "where more than {percent:.1} % of the leaves differ, this passes less than once in a thousand times"
        )
    };
    Ok(Verified {
        valid: true,
        production: true,
        warning: None,
        kind: "openings",
        strength: "production strength",
        key_sha256: None,
        shows: vec![
            format!(
                "{} drawn leaves of {piece} are the same in the tree with the root {root}",
                binding.openings()
            ),
            rest,
        ],
        does_not_show: vec![
            "that this is the root that was agreed on: compare it".to_owned(),
            "that the seed was fresh: only who drew it, or a beacon, knows that".to_owned(),
        ],
    })
}

impl Verified {
    fn text(&self) -> String {
        let mut text = self.warning.map_or_else(String::new, |warning| format!("{warning}\n"));
        text += &match self.warning {
            Some(_) => format!("valid: {} ({})\n", self.kind, self.strength),
            None => format!("valid: {}\n", self.kind),
        };
        if let Some(key) = &self.key_sha256 {
            text += &format!("  key            {key}\n");
        }
        for line in &self.shows {
            text += &format!("  shows          {line}\n");
        }
        for line in &self.does_not_show {
            text += &format!("  does not show  {line}\n");
        }
        text
    }
}

fn params(json: bool, args: &ProofsParamsArgs, program: io::Result<PathBuf>) -> Outcome {
    let mut words: Vec<OsString> = vec!["params".into(), "--profile".into(), args.profile.clone().into()];
    for circuit in &args.circuits {
        words.extend(["--circuit".into(), circuit.into()]);
    }
    if args.make {
        words.push("--make".into());
    }
    hand_over(json, words, Some(&args.folder), program, None)
}

/// A provider's folder has its sectors in one of its own.
fn sectors_of(dir: &Path) -> OsString {
    dir.join(sealing::FOLDER).into()
}

fn winning(json: bool, args: &ProofsWinningArgs, program: io::Result<PathBuf>) -> Outcome {
    let mut words: Vec<OsString> = vec!["winning".into(), sectors_of(&args.dir)];
    words.extend(["--beacon".into(), args.beacon.clone().into()]);
    words.extend(["--epoch".into(), args.epoch.to_string().into()]);
    if let Some(sector) = args.sector {
        words.extend(["--sector".into(), sector.to_string().into()]);
    }
    words.extend(["--out".into(), args.out.clone().into()]);
    hand_over(json, words, Some(&args.folder), program, None)
}

fn unseal(json: bool, args: &ProofsUnsealArgs, program: io::Result<PathBuf>) -> Outcome {
    let mut words: Vec<OsString> = vec!["unseal".into(), sectors_of(&args.dir), args.piece.clone().into()];
    words.extend(["--offset".into(), args.offset.to_string().into()]);
    if let Some(length) = args.length {
        words.extend(["--length".into(), length.to_string().into()]);
    }
    words.extend(["--out".into(), args.out.clone().into()]);
    hand_over(json, words, None, program, None)
}

/// Runs the prover in our place: its output is ours, and so is its exit code. It is given `input`, or ours.
fn hand_over(
    json: bool,
    words: Vec<OsString>,
    folder: Option<&ParameterFolder>,
    program: io::Result<PathBuf>,
    input: Option<&[u8]>,
) -> Outcome {
    let prover = prover::find(program.ok().as_deref(), std::env::var_os("PATH").as_deref())?;
    let mut command = Command::new(prover);
    if json {
        command.arg("--json");
    }
    command.args(words);
    if let Some(parameters) = folder.and_then(|folder| folder.parameters.as_ref()) {
        command.arg("--parameters").arg(parameters);
    }
    if input.is_some() {
        command.stdin(Stdio::piped());
    }
    let failed = |error: io::Error| Failure::internal(format!("holdfast-prover: {error}"));
    let mut child = command.spawn().map_err(failed)?;
    if let (Some(bytes), Some(mut pipe)) = (input, child.stdin.take()) {
        // One that ends before it has read all of it says why by its exit code.
        let _ = pipe.write_all(bytes);
    }
    let status = child.wait().map_err(failed)?;
    match status.code() {
        Some(0) => Ok(()),
        Some(code) => Err(Failure::new(Exit::from_code(code), "").silent()),
        None => Err(Failure::new(Exit::Failed, format!("holdfast-prover was ended: {status}"))),
    }
}

fn status(json: bool, dir: &Path) -> Outcome {
    let last = sealing::last_status(dir, unix_now())?.ok_or_else(|| {
        Failure::new(Exit::Home, format!("nothing was ever sealed in {}", dir.display()))
            .hint("`holdfast provide DIR --seal PROFILE` begins.")
    })?;
    print(json, &last, &last.render())
}

/// 64 hexadecimal digits.
pub(super) fn hex32(text: &str) -> Option<[u8; 32]> {
    data_encoding::HEXLOWER_PERMISSIVE.decode(text.as_bytes()).ok()?.try_into().ok()
}

/// Refuses to put what is made of files in the place of one of them.
pub(super) fn spares(out: &Path, files: &[PathBuf]) -> Outcome {
    let Ok(there) = fs::canonicalize(out) else { return Ok(()) };
    match files.iter().find(|file| fs::canonicalize(file).is_ok_and(|file| file == there)) {
        Some(file) => {
            Err(Failure::new(Exit::Usage, format!("--out would replace {} itself", file.display())))
        }
        None => Ok(()),
    }
}

/// Writes what somebody else may be to check; its absolute path.
pub(super) fn publish(out: &Path, bytes: &[u8]) -> Result<PathBuf, Failure> {
    let out = std::path::absolute(out)?;
    write_atomically(&out, bytes).map_err(|error| match error {
        // No home folder is meant.
        error @ HomeError::Io { .. } => Failure::new(Exit::Failed, error.to_string()),
        other => other.into(),
    })?;
    fs::set_permissions(&out, std::os::unix::fs::PermissionsExt::from_mode(0o644))?;
    Ok(out)
}

impl From<OpeningError> for Failure {
    fn from(error: OpeningError) -> Failure {
        match error {
            OpeningError::Newer(_) => Failure::new(Exit::NewerFormat, error.to_string())
                .hint("Update this program; nothing was changed."),
            _ => Failure::new(Exit::Damage, error.to_string()),
        }
    }
}

impl From<FileError> for Failure {
    fn from(error: FileError) -> Failure {
        match error {
            FileError::Version(_) => Failure::new(Exit::NewerFormat, error.to_string())
                .hint("Update this program; nothing was changed."),
            _ => Failure::new(Exit::Damage, error.to_string()),
        }
    }
}

impl From<ReportError> for Failure {
    fn from(error: ReportError) -> Failure {
        match error {
            ReportError::Newer(_) => Failure::new(Exit::NewerFormat, error.to_string())
                .hint("Update this program; nothing was changed."),
            _ => Failure::new(Exit::Damage, error.to_string()),
        }
    }
}

impl From<prover::Missing> for Failure {
    fn from(error: prover::Missing) -> Failure {
        Failure::new(Exit::Missing, error.to_string()).hint(prover::Missing::HINT)
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Failure {
        anyhow::Error::from(error).into()
    }
}
