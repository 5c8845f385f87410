//! `undelete`: out of `.snapshots`, back to where it was.
//!
//! It works through the mount, as a person would by hand: names, attributes and data are what `.snapshots` shows, and the kernel hears of each
//! new name. Copying is `cp -a`'s. Refuses to overwrite what is there.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde::Serialize;

use super::{Cli, Exit, Failure, Outcome, args::UndeleteArgs, keep, print};
use crate::{
    control::{KeepRequest, SnapshotsReport},
    home::Home,
};

/// The folder of snapshots in the drive's root.
const SNAPSHOTS: &str = ".snapshots";

/// `holdfast undelete --json`.
#[derive(Debug, Serialize)]
struct UndeleteReport {
    /// The snapshot's name in `.snapshots`, or as it was given.
    from: String,
    /// Where it is now.
    path: PathBuf,
}

pub fn run(cli: &Cli, args: &UndeleteArgs) -> Outcome {
    let home = Home::open(&cli.home_path())?;
    let known: SnapshotsReport = keep::call(&home, KeepRequest::Snapshots {})?;
    let root = home.config().mountpoint.clone();
    let root = root.ok_or_else(|| Failure::new(Exit::NotMounted, "the drive is not mounted"))?;
    let root = root.canonicalize().map_err(|e| failed(&root, &e))?;
    let path = resolve(&args.path)?;
    let outside = || Failure::new(Exit::Usage, format!("{} is not on the mounted drive", path.display()));
    let inner = path.strip_prefix(&root).map_err(|_| outside())?;
    let exists = |path: &Path| path.symlink_metadata().is_ok();
    let to = args.to.as_ref().map_or_else(|| Ok(path.clone()), |to| resolve(to))?;
    if exists(&to) {
        return Err(Failure::new(Exit::Failed, format!("{} is there already", to.display()))
            .hint("--to names another place."));
    }
    let labels = match &args.from {
        Some(from) => vec![from.clone()],
        None => known.snapshots.into_iter().rev().map(|at| at.label).collect(),
    };
    let at = |label: &String| root.join(SNAPSHOTS).join(label).join(inner);
    let from = labels.into_iter().find(|label| exists(&at(label)));
    let from = from.ok_or_else(|| {
        Failure::new(Exit::Failed, format!("no snapshot has {}", inner.display()))
            .hint("`holdfast snapshots` lists them; each is a folder in .snapshots.")
    })?;
    if let Some(parent) = to.parent() {
        std::fs::create_dir_all(parent).map_err(|e| failed(parent, &e))?;
    }
    let copied = Command::new("cp").arg("-a").arg("--").arg(at(&from)).arg(&to).status();
    if !copied.map_err(|e| failed(Path::new("cp"), &e))?.success() {
        return Err(Failure::new(Exit::Failed, format!("not all of {} could be copied", inner.display()))
            .hint("What that snapshot lacks an older one may have: --from names it."));
    }
    let report = UndeleteReport { from, path: to };
    let text = format!("{} is back, as of {}.\n", report.path.display(), report.from);
    print(cli.json, &report, &text)
}

fn failed(path: &Path, error: &std::io::Error) -> Failure {
    Failure::new(Exit::Failed, format!("{}: {error}", path.display()))
}

/// The path without links in what exists of it; the rest need not exist.
fn resolve(path: &Path) -> Result<PathBuf, Failure> {
    let path = std::path::absolute(path).map_err(|e| failed(path, &e))?;
    let mut rest = Vec::new();
    let mut base = path.as_path();
    loop {
        // The last part may be a link that is to come back itself.
        if base != path
            && let Ok(real) = base.canonicalize()
        {
            return Ok(rest.iter().rev().fold(real, |real, name| real.join(name)));
        }
        match (base.parent(), base.file_name()) {
            (Some(parent), Some(name)) => {
                rest.push(name.to_owned());
                base = parent;
            }
            _ => return Ok(path),
        }
    }
}
