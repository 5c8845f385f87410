//! `holdfast-prover verify`.

use std::fs::File;
use std::io;
use std::path::Path;

use serde::Serialize;

use super::args::VerifyArgs;
use super::exit::Failure;
use super::{Outcome, print};
use crate::params::ParameterStore;
use crate::proof::{ProofFile, ProofFileError, VerifyReport};

/// Standard input.
const STDIN: &str = "-";

/// What stands before and beside every result that is not to be relied upon.
const WARNING: &str = "TEST STRENGTH: this shows that the program works, and nothing else. Whoever made the parameters \
                       can forge it. No money may rest on it.";

#[derive(Serialize)]
struct Verified<'a> {
    valid: bool,
    production: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    warning: Option<&'static str>,
    #[serde(flatten)]
    report: &'a VerifyReport,
}

pub fn run(json: bool, args: &VerifyArgs) -> Outcome {
    let report = read(&args.file)?.verify(&ParameterStore::new(args.folder.path()))?;
    let warning = (!report.is_production()).then_some(WARNING);
    let lead = warning.map_or_else(String::new, |warning| format!("{warning}\n"));
    let verified = Verified { valid: true, production: report.is_production(), warning, report: &report };
    print(json, &verified, &format!("{lead}{report}"))
}

fn read(path: &Path) -> Result<ProofFile, Failure> {
    let found = if path == Path::new(STDIN) {
        ProofFile::read(io::stdin().lock())
    } else {
        File::open(path).map_err(ProofFileError::from).and_then(ProofFile::read)
    };
    found.map_err(|error| {
        let is_of_the_file = matches!(error, ProofFileError::Io(_));
        let failure = Failure::from(error);
        if !is_of_the_file {
            return failure;
        }
        let message = format!("{}: {}", path.display(), failure.message);
        failure.worded(message)
    })
}
