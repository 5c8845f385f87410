//! The commands about local copies and snapshots: `evict`, `pin`, `unpin`, `snapshot`, `snapshots`, `prune`, `diff`.
//!
//! A path on the mounted drive is sent as the inode that stands there, so that names of any encoding can be given.

use std::os::unix::fs::MetadataExt;
use std::path::Path;

use serde::de::DeserializeOwned;

use super::{
    Cli, Exit, Failure, Outcome,
    args::{DiffArgs, EvictArgs, PinArgs, PruneArgs, SnapshotArgs, UnpinArgs},
    print,
};
use crate::{
    control::{
        Client, DiffReport, EvictReport, KeepRequest, PinsReport, PruneReport, Request, RuleChange,
        SnapshotReport, SnapshotsReport, Target,
    },
    home::Home,
};

pub(super) fn call<T: DeserializeOwned>(home: &Home, what: KeepRequest) -> Result<T, Failure> {
    Ok(Client::new(&home.socket_path()).call(&Request::Keep { what }, |_| {})?)
}

/// What stands at `path`, which must be on the mounted drive.
pub(super) fn target(home: &Home, path: &Path) -> Result<Target, Failure> {
    let found = |path: &Path| {
        std::fs::symlink_metadata(path)
            .map_err(|error| Failure::new(Exit::Failed, format!("{}: {error}", path.display())))
    };
    let at = found(path)?;
    let outside = || {
        let text = format!("{} is not on the mounted drive", path.display());
        Failure::new(Exit::Usage, text)
    };
    let mountpoint = home.config().mountpoint.as_ref().ok_or_else(outside)?;
    if found(mountpoint)?.dev() != at.dev() {
        return Err(outside());
    }
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    Ok(Target { ino: at.ino(), path: path.display().to_string() })
}

pub fn evict(cli: &Cli, args: &EvictArgs) -> Outcome {
    let home = Home::open(&cli.home_path())?;
    let targets = args.paths.iter().map(|path| target(&home, path)).collect::<Result<_, _>>()?;
    let report: EvictReport = call(&home, KeepRequest::Evict { targets })?;
    print(cli.json, &report, &report.render())?;
    if report.is_complete() {
        return Ok(());
    }
    let failure = Failure::new(Exit::NotSafe, "not everything could be dropped");
    Err(failure.hint("`holdfast sync --wait` makes it safe; what is pinned stays in any case."))
}

pub fn pin(cli: &Cli, args: &PinArgs) -> Outcome {
    let home = Home::open(&cli.home_path())?;
    let what = match &args.path {
        Some(path) => KeepRequest::Pin { target: target(&home, path)? },
        None => KeepRequest::Pins {},
    };
    let report: PinsReport = call(&home, what)?;
    print(cli.json, &report, &report.render())
}

pub fn unpin(cli: &Cli, args: &UnpinArgs) -> Outcome {
    let home = Home::open(&cli.home_path())?;
    let target = target(&home, &args.path)?;
    let report: PinsReport =
        call(&home, KeepRequest::Unpin { target }).map_err(|failure| match failure.exit {
            // The path is a good one; it was not pinned.
            Exit::Usage => Failure { exit: Exit::Failed, ..failure },
            _ => failure,
        })?;
    print(cli.json, &report, &report.render())
}

/// What the kernel still holds of open files belongs to now.
fn flush(home: &Home) -> Outcome {
    let Some(at) = &home.config().mountpoint else { return Ok(()) };
    let flushed = std::fs::File::open(at).and_then(|root| Ok(nix::unistd::syncfs(&root)?));
    flushed.map_err(|error| Failure::new(Exit::Failed, format!("{}: {error}", at.display())))
}

pub fn snapshot(cli: &Cli, args: &SnapshotArgs) -> Outcome {
    let home = Home::open(&cli.home_path())?;
    if !args.forget {
        flush(&home)?;
    }
    let what = match (&args.name, args.forget) {
        (Some(name), true) => KeepRequest::ForgetSnapshot { name: name.clone() },
        (name, _) => KeepRequest::Snapshot { name: name.clone() },
    };
    let report: SnapshotReport = call(&home, what)?;
    print(cli.json, &report, &report.render())
}

pub fn snapshots(cli: &Cli) -> Outcome {
    let home = Home::open(&cli.home_path())?;
    let report: SnapshotsReport = call(&home, KeepRequest::Snapshots {})?;
    print(cli.json, &report, &report.render())
}

pub fn prune(cli: &Cli, args: &PruneArgs) -> Outcome {
    let home = Home::open(&cli.home_path())?;
    let rule =
        RuleChange { all_hours: args.all_hours, hourly: args.hourly, daily: args.daily, weekly: args.weekly };
    let report: PruneReport = call(&home, KeepRequest::Prune { rule })?;
    print(cli.json, &report, &report.render())
}

pub fn diff(cli: &Cli, args: &DiffArgs) -> Outcome {
    let home = Home::open(&cli.home_path())?;
    if args.to.is_none() {
        flush(&home)?;
    }
    let what = KeepRequest::Diff { from: args.from.clone(), to: args.to.clone() };
    let report: DiffReport = call(&home, what)?;
    print(cli.json, &report, &report.render())
}
