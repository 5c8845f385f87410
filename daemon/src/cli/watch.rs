//! `holdfast watch`: granting, listing and taking back on the owner's machine; the watcher itself on any other.

use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::time::Duration;

use holdfast_net::Env;
use serde::de::DeserializeOwned;
use tokio_util::sync::CancellationToken;

use super::{
    Cli, Exit, Failure, Outcome,
    args::{GrantArgs, Switch, WatchArgs, WatchCommand, WatchRunArgs},
    log,
    mount::stop_on_signals,
    print, runtime,
};
use crate::{
    control::{Client, GrantRequest, Request, WatchGrantedReport, WatchRequest, WatchesReport},
    home::Home,
    watch::{reach::Reach, state::Folder, watcher::Watcher},
};

const LOG_FILE: &str = "watch.log";
/// Between two looks while slots are being placed.
const BUSY: Duration = Duration::from_secs(1);

pub fn run(cli: &Cli, args: &WatchArgs) -> Outcome {
    match (&args.command, &args.run.path) {
        (Some(WatchCommand::Grant(grant)), _) => self::grant(cli, grant),
        (Some(WatchCommand::List), _) => {
            let report: WatchesReport = call(cli, WatchRequest::List {})?;
            print(cli.json, &report, &report.render())
        }
        (Some(WatchCommand::Revoke { which }), _) => {
            let report: WatchesReport = call(cli, WatchRequest::Revoke { which: which.clone() })?;
            print(cli.json, &report, &report.render())
        }
        (None, Some(path)) => watch(cli.json, path, &args.run),
        (None, None) => Err(Failure::new(Exit::Usage, "the capability's file is not named")),
    }
}

fn call<T: DeserializeOwned>(cli: &Cli, what: WatchRequest) -> Result<T, Failure> {
    let home = Home::open(&cli.home_path())?;
    Ok(Client::new(&home.socket_path()).call(&Request::Watch { what }, |_| {})?)
}

fn grant(cli: &Cli, args: &GrantArgs) -> Outcome {
    let refused = |error: std::io::Error| {
        Failure::new(Exit::Failed, format!("cannot make {}: {error}", args.out.display()))
    };
    // Before anything is granted: the file must be new, and nobody else's to read.
    let mut file = std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&args.out)
        .map_err(refused)?;
    let granted = granted(cli, args).and_then(|report| {
        let bytes = data_encoding::HEXLOWER.decode(report.file.as_bytes()).map_err(Failure::internal)?;
        file.write_all(&bytes).and_then(|()| file.sync_all()).map_err(refused)?;
        Ok(report)
    });
    let report = granted.inspect_err(|_| drop(std::fs::remove_file(&args.out)))?;
    let text = format!(
        "{} lets a watcher repair this drive for {} days. Copy it to the machine that shall watch, and run there:\n\n  \
         holdfast watch FILE\n\nIt is a secret: who has it can unmask what providers keep (still encrypted), read sizes and links, and \
         place slots within the limits; not read, and not delete. `holdfast watch revoke {}` takes it back.\n\
         Providers that list their clients list {}.\n",
        args.out.display(),
        args.days,
        args.label,
        report.peer_id
    );
    let shown = serde_json::json!({
        "id": report.id, "label": args.label, "until": report.until, "peer_id": report.peer_id, "file": args.out,
    });
    print(cli.json, &shown, &text)
}

fn granted(cli: &Cli, args: &GrantArgs) -> Result<WatchGrantedReport, Failure> {
    let terms = GrantRequest {
        label: args.label.clone(),
        seconds: args.days.saturating_mul(24 * 3600),
        bytes: args.bytes,
        daily: args.daily,
        silent_seconds: args.silent,
        newcomers: args.newcomers,
        apart: args.apart.clone(),
    };
    call(cli, WatchRequest::Grant { terms })
}

/// In the foreground, until a signal comes, or once.
fn watch(json: bool, path: &Path, args: &WatchRunArgs) -> Outcome {
    let (folder, capability, state) = Folder::open(path).map_err(|error| {
        Failure::new(Exit::Failed, format!("{error:#}")).hint("`holdfast watch grant` makes the file.")
    })?;
    log::to_file(&folder.dir().join(LOG_FILE))?;
    let shutdown = CancellationToken::new();
    runtime()?.block_on(async {
        stop_on_signals(shutdown.clone())?;
        let reach = Reach::start(&capability.keys(), Env::system(), args.mdns == Switch::On).await?;
        tracing::info!(peer = %reach.peer_id(), label = capability.label, "watching");
        let mut watcher = Watcher::new(folder, capability, state, reach)?;
        watcher.add_providers(&args.providers)?;
        loop {
            let looked = tokio::select! {
                looked = watcher.look() => looked,
                () = shutdown.cancelled() => break,
            };
            match looked {
                Ok(report) => {
                    shown(json, &report)?;
                    if args.once {
                        watcher.shutdown().await;
                        return outcome(&report);
                    }
                    let pause = match Watcher::is_busy(&report) {
                        true => BUSY,
                        false => Duration::from_secs(args.interval),
                    };
                    if shutdown.run_until_cancelled(tokio::time::sleep(pause)).await.is_none() {
                        break;
                    }
                }
                Err(error) if args.once => return Err(Failure::internal(format!("{error:#}"))),
                Err(error) => {
                    tracing::warn!(error = %format!("{error:#}"), "a look ended badly");
                    let pause = Duration::from_secs(args.interval);
                    if shutdown.run_until_cancelled(tokio::time::sleep(pause)).await.is_none() {
                        break;
                    }
                }
            }
        }
        watcher.shutdown().await;
        Ok(())
    })
}

/// A line of JSON for each look, or text.
fn shown(json: bool, report: &crate::watch::report::LookReport) -> Outcome {
    let mut out = std::io::stdout().lock();
    let written = match json {
        true => {
            let line = serde_json::to_string(report).map_err(Failure::internal)?;
            writeln!(out, "{line}")
        }
        false => write!(out, "{}", report.render()),
    };
    match written.and_then(|()| out.flush()) {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        other => other.map_err(Failure::internal),
    }
}

/// What a single look says with its exit code.
fn outcome(report: &crate::watch::report::LookReport) -> Outcome {
    if report.providers_answered == 0 {
        return Err(Failure::new(Exit::Network, "no provider answers"));
    }
    match report.ended.is_some() || report.lost > report.repaired.len() as u64 {
        true => Err(Failure::new(Exit::NotSafe, "not everything is with enough providers").silent()),
        false => Ok(()),
    }
}
