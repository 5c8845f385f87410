//! `holdfast-prover verify`.

use serde::Serialize;

use super::args::VerifyArgs;
use super::{Outcome, print};
use crate::params::ParameterStore;
use crate::proof::{VerifyReport, verify_file};

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
    let report = verify_file(&args.file, &ParameterStore::new(args.folder.path()))?;
    let warning = (!report.is_production()).then_some(WARNING);
    let lead = warning.map_or_else(String::new, |warning| format!("{warning}\n"));
    let verified = Verified { valid: true, production: report.is_production(), warning, report: &report };
    print(json, &verified, &format!("{lead}{report}"))
}
