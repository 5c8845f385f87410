//! `holdfast policy`: how many losses a folder's data survives, and who says so.

use std::path::Path;

use super::{Cli, Exit, Failure, Outcome, args::PolicyArgs, keep, print};
use crate::{
    control::{KeepRequest, PathPolicyReport, PolicyChange},
    home::Home,
};

pub fn run(cli: &Cli, args: &PolicyArgs) -> Outcome {
    let home = Home::open(&cli.home_path())?;
    let change = match (args.survive, args.inherit) {
        (Some(losses), _) => Some(PolicyChange::Survive(losses)),
        (None, true) => Some(PolicyChange::Inherit),
        (None, false) => None,
    };
    if change.is_some() && args.path.is_none() {
        let failure = Failure::new(Exit::Usage, "of which folder?");
        return Err(
            failure.hint("The drive's own policy is set when it is made, and stands in the home's `config`.")
        );
    }
    let target = args.path.as_deref().map(|path| keep::target(&home, path)).transpose()?;
    let mut report: PathPolicyReport = keep::call(&home, KeepRequest::Policy { target, change })?;
    // The daemon knows how far above, and this program how the path is called here.
    let above = report.folder.take().and_then(|levels| levels.parse().ok());
    report.folder = report.path.as_deref().zip(above).and_then(|(path, levels)| folder(path, levels));
    print(cli.json, &report, &report.render())
}

fn folder(path: &str, levels: usize) -> Option<String> {
    let path = std::fs::canonicalize(path).unwrap_or_else(|_| Path::new(path).to_owned());
    path.ancestors().nth(levels).map(|folder| folder.display().to_string())
}
