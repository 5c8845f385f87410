//! The commands that ask a mounted drive: `status`, `sync`, `unmount`, `verify`.

use std::time::Duration;

use super::{
    Cli, Exit, Failure, Outcome,
    args::{StatusArgs, SyncArgs, UnmountArgs, VerifyArgs},
    print, runtime,
};
use crate::{
    control::{
        Client, ClientError, ProgressSink, Request, STATUS_SECONDS_MAX, StatusReport, SyncReport,
        UnmountReport, UnmountedReport, VerifyReport,
    },
    drive,
    home::{Home, HomeError, Passphrase, mountpoint},
    process::{ProcessHandle, ProcessRecord},
    progress::Progress,
    provide::is_provider,
};

/// How long the daemon may take to end once it has said that the drive is unmounted.
const END_SECONDS_MAX: u64 = 60;
/// How long `unmount --force` waits for an answer, and again after SIGTERM.
const FORCE_SECONDS: u64 = 20;

/// Of a drive, or of a provider: the folder says which it is.
pub fn status(cli: &Cli, args: &StatusArgs) -> Outcome {
    let path = match &args.dir {
        Some(dir) => std::path::absolute(dir)?,
        None => cli.home_path(),
    };
    if is_provider(&path) {
        return super::provide::status(cli.json, args.watch, &path);
    }
    let home = Home::open(&path).map_err(|error| match error {
        HomeError::Missing(_) => Failure::new(Exit::Home, format!("{error}, and no provider's folder either"))
            .hint("`holdfast status DIR` shows the drive or the provider whose folder that is; `holdfast init` makes a drive."),
        other => other.into(),
    })?;
    let socket = home.socket_path();
    let client = Client::new(&socket).patience(Duration::from_secs(STATUS_SECONDS_MAX));
    loop {
        let status: StatusReport = match client.call(&Request::Status {}, |_| {}) {
            Ok(status) => status,
            Err(ClientError::NotRunning(_)) => return not_running(cli, &home),
            Err(error) => return Err(error.into()),
        };
        if !args.watch {
            return print(cli.json, &status, &status.render());
        }
        // Clears the terminal and starts at its top.
        print(false, &status, &format!("\x1b[2J\x1b[H{}", status.render()))?;
        std::thread::sleep(Duration::from_secs(1));
    }
}

/// A drive that is not mounted has a status too, for programs; the exit code says that nothing runs.
fn not_running(cli: &Cli, home: &Home) -> Outcome {
    let report = UnmountedReport::new(home.path(), home.config());
    print(cli.json, &report, "")?;
    let place = report.mountpoint.map_or_else(String::new, |m| format!(" (last on {})", m.display()));
    let failure = Failure::new(Exit::NotMounted, format!("the drive {} is not mounted{place}", report.drive));
    let failure = failure.hint("`holdfast mount` mounts it; until then nothing more goes to the providers.");
    if cli.json { Err(failure.silent()) } else { Err(failure) }
}

pub fn sync(cli: &Cli, args: &SyncArgs) -> Outcome {
    let home = Home::open(&cli.home_path())?;
    let report = sync_call(cli, &home, args.wait, args.timeout)?;
    print(cli.json, &report, &report.render(args.wait))?;
    if args.wait && !report.placed {
        return Err(
            Failure::new(Exit::NotSafe, "not everything is safe").hint("`holdfast status` tells why.")
        );
    }
    Ok(())
}

fn sync_call(
    cli: &Cli,
    home: &Home,
    wait: bool,
    timeout_seconds: Option<u64>,
) -> Result<SyncReport, Failure> {
    let mut progress = Progress::new(cli.json);
    let socket = home.socket_path();
    let request = Request::Sync { wait, timeout_seconds };
    Ok(Client::new(&socket).call(&request, |line| progress.show(line))?)
}

pub fn unmount(cli: &Cli, args: &UnmountArgs) -> Outcome {
    let home = Home::open(&cli.home_path())?;
    let daemon = ProcessRecord::read(&home.pid_path()).and_then(|record| record.find());
    let mut unwaited = None;
    if args.wait
        && let Err(failure) = sync_call(cli, &home, true, None)
    {
        // There may be the dead mount of a daemon that was killed, which nobody has to wait for.
        if failure.exit != Exit::NotMounted || daemon.is_some() {
            return Err(failure);
        }
        unwaited = Some(failure);
    }
    let socket = home.socket_path();
    let mut client = Client::new(&socket);
    if args.force {
        client = client.patience(Duration::from_secs(FORCE_SECONDS));
    }
    let answer: Result<UnmountReport, ClientError> =
        client.call(&Request::Unmount { lazy: args.lazy || args.force }, |_| {});
    let text = match (answer, daemon) {
        (Ok(report), daemon) => {
            wait_for_end(daemon)?;
            (serde_json::to_value(&report).map_err(Failure::internal)?, report.render())
        }
        (Err(ClientError::Refused(error)), _) if !args.force => return Err(error.into()),
        (Err(ClientError::NotRunning(_)), None) => without_daemon(&home, args.free_mountpoint)?,
        (Err(_), Some(daemon)) if args.force => by_force(&home, &daemon)?,
        (Err(ClientError::NotRunning(_)), Some(_)) => {
            return Err(Failure::new(
                Exit::InUse,
                "the daemon runs, but does not listen (is it just starting?)",
            )
            .hint("Try again in a moment; `holdfast unmount --force` ends it."));
        }
        (Err(error), _) => return Err(error.into()),
    };
    if args.free_mountpoint
        && let Some(path) = &home.config().mountpoint
    {
        mountpoint::free(path)
            .map_err(|e| Failure::internal(format!("cannot free {}: {e}", path.display())))?;
    }
    print(cli.json, &text.0, &text.1)?;
    match unwaited {
        None => Ok(()),
        Some(_) if text.0.get("daemon_was_gone").is_some() => {
            let failure = Failure::new(Exit::NotSafe, "there was no daemon to wait for: whether everything is safe is not known")
                .hint("`holdfast mount` brings back what it had acknowledged; then `holdfast sync --wait` waits for it.");
            Err(if cli.json { failure.silent() } else { failure })
        }
        Some(failure) => Err(failure),
    }
}

/// The answer comes when the drive is closed; the process needs a moment more, and only then may the home be moved,
/// deleted or mounted again.
fn wait_for_end(daemon: Option<ProcessHandle>) -> Outcome {
    match daemon {
        Some(daemon) if !daemon.has_ended(Duration::from_secs(END_SECONDS_MAX)) => {
            Err(Failure::new(Exit::Failed, "the drive is unmounted, but its daemon does not end")
                .hint("`holdfast unmount --force` ends it."))
        }
        _ => Ok(()),
    }
}

/// No daemon: there may still be the dead mount of one that was killed.
fn without_daemon(home: &Home, freeing: bool) -> Result<(serde_json::Value, String), Failure> {
    let Some(path) = home.config().mountpoint.as_ref().filter(|path| mountpoint::is_ours(path)) else {
        // To make the bare folder ordinary again is a reason of its own to come here.
        if freeing {
            return Ok((serde_json::json!({"mountpoint": home.config().mountpoint}), String::new()));
        }
        return Err(Failure::new(Exit::NotMounted, "the drive is not mounted"));
    };
    mountpoint::detach(path)?;
    let text = format!(
        "The daemon was gone already; its dead mount on {} is removed. Nothing that was synced is lost.\n",
        path.display()
    );
    Ok((serde_json::json!({"mountpoint": path, "daemon_was_gone": true}), text))
}

fn by_force(home: &Home, daemon: &ProcessHandle) -> Result<(serde_json::Value, String), Failure> {
    let gently = daemon.end(Duration::from_secs(FORCE_SECONDS)).map_err(Failure::internal)?;
    if let Some(path) = home.config().mountpoint.as_ref().filter(|path| mountpoint::is_ours(path)) {
        mountpoint::detach(path)?;
    }
    let text = "The daemon was ended by force. What it had acknowledged is in the home folder and comes back with the \
                next mount.\n";
    Ok((serde_json::json!({"mountpoint": home.config().mountpoint, "killed": !gently}), text.to_owned()))
}

pub fn verify(cli: &Cli, args: &VerifyArgs) -> Outcome {
    let mut home = Home::open(&cli.home_path())?;
    let socket = home.socket_path();
    let mut progress = Progress::new(cli.json);
    let request = Request::Verify { deep: args.deep, remote: args.remote };
    let report: VerifyReport = match Client::new(&socket).call(&request, |line| progress.show(line)) {
        Ok(report) => report,
        Err(ClientError::NotRunning(_)) => {
            home.lock()?;
            let passphrase = Passphrase::obtain(args.passphrase.passphrase_file.as_deref())?;
            let unlocked = home.unlock(&passphrase)?;
            unlocked.lock_in_memory();
            runtime()?.block_on(async {
                let (sink, mut lines) = ProgressSink::channel();
                let work = drive::verify_unmounted(home, unlocked, (args.deep, args.remote), sink);
                tokio::pin!(work);
                loop {
                    tokio::select! {
                        biased;
                        Some(line) = lines.recv() => progress.show(line),
                        report = &mut work => break report,
                    }
                }
            })?
        }
        Err(error) => return Err(error.into()),
    };
    drop(progress);
    print(cli.json, &report, &report.render())?;
    if report.ok {
        return Ok(());
    }
    let failure = Failure::new(Exit::Damage, format!("{} problems", report.problems.len())).hint(
        "What is Placed comes back from the providers; `holdfast restore` into another home shows how much.",
    );
    Err(if cli.json { failure.silent() } else { failure })
}
