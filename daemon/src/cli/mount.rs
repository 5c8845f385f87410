//! `holdfast mount`: in the foreground, or as the background process that the foreground one starts.

use std::{ffi::OsString, io, path::PathBuf, sync::Arc, time::Duration};

use holdfast_fs::fuse::MountOptions;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::{
    Cli, Exit, Failure, Outcome,
    args::{MountArgs, MountHow},
    background::{self, READY_FD, ReadyPipe},
    log, print, runtime,
};
use crate::{
    drive,
    home::{
        Home, HomeError, Passphrase,
        mountpoint::{self, Mountpoint},
    },
    process::ProcessRecord,
    run::RunOptions,
};

/// How long a daemon may need to end after its unmount: it syncs, and flushes the index.
const ENDING: Duration = Duration::from_secs(60);

pub fn run(cli: &Cli, args: &MountArgs, program: io::Result<PathBuf>) -> Outcome {
    let ready = ReadyPipe::adopt(args.ready_fd)?;
    let file = args.passphrase.passphrase_file.as_deref();
    let outcome =
        check(cli).and_then(|()| Passphrase::obtain(file).map_err(Failure::from)).and_then(|passphrase| {
            if args.how.background && !ready.has_parent() {
                in_background(cli, args.mountpoint.clone(), &args.how, &passphrase, program)
            } else {
                serve(cli, args.mountpoint.clone(), &args.how, passphrase, &ready)
            }
        });
    if let Err(failure) = &outcome {
        ready.failed(failure);
    }
    outcome
}

/// What is known to fail is said before a passphrase is asked for.
fn check(cli: &Cli) -> Outcome {
    Home::open(&cli.home_path())?;
    Ok(mountpoint::check_fuse()?)
}

/// Mounts as `mount` and `restore` ask for it, when the home is there.
pub fn mount(
    cli: &Cli,
    mountpoint: Option<PathBuf>,
    how: &MountHow,
    passphrase: Passphrase,
    program: io::Result<PathBuf>,
) -> Outcome {
    if how.background {
        in_background(cli, mountpoint, how, &passphrase, program)
    } else {
        serve(cli, mountpoint, how, passphrase, &ReadyPipe::default())
    }
}

fn in_background(
    cli: &Cli,
    mountpoint: Option<PathBuf>,
    how: &MountHow,
    passphrase: &Passphrase,
    program: io::Result<PathBuf>,
) -> Outcome {
    let home = Home::open(&cli.home_path())?;
    let program = program.map_err(Failure::internal)?;
    let mut arguments: Vec<OsString> = vec!["--home".into(), home.path().into(), "mount".into()];
    if let Some(path) = &mountpoint {
        arguments.push(std::path::absolute(path).map_err(Failure::internal)?.into());
    }
    for option in &how.options {
        arguments.extend(["-o".into(), option.into()]);
    }
    if let Some(address) = how.metrics {
        arguments.extend(["--metrics".into(), address.to_string().into()]);
    }
    if how.plain_mountpoint {
        arguments.push("--plain-mountpoint".into());
    }
    arguments.extend(["--passphrase-file", "-", "--ready-fd"].map(OsString::from));
    arguments.push(READY_FD.to_string().into());
    let said = background::start(&program, &arguments, Some(passphrase), &home.log_path())?;
    let text = said.get("mountpoint").and_then(|m| m.as_str()).unwrap_or_default();
    print(cli.json, &said, &format!("{text}\n"))
}

/// What a drive that is only read on a full disk can do without.
fn even_if_full(done: Result<(), HomeError>) -> Result<(), HomeError> {
    match done {
        Err(error @ HomeError::NoSpace { .. }) => {
            tracing::warn!(%error, "mounting all the same");
            Ok(())
        }
        other => other,
    }
}

/// Runs the drive in this process until it is unmounted.
fn serve(
    cli: &Cli,
    mountpoint: Option<PathBuf>,
    how: &MountHow,
    passphrase: Passphrase,
    ready: &ReadyPipe,
) -> Outcome {
    let options = accept_options(&how.options)?;
    let mut home = Home::open(&cli.home_path())?;
    home.lock_after_unmount(ENDING, |pid| eprintln!("waiting for process {pid}, which still ends"))?;
    mountpoint::check_fuse()?;
    let chosen = mountpoint.or_else(|| home.config().mountpoint.clone()).ok_or_else(|| {
        Failure::new(Exit::Usage, "where shall it be mounted?")
            .hint("holdfast mount ~/Holdfast, for instance.")
    })?;
    let unlocked = home.unlock(&passphrase)?;
    unlocked.lock_in_memory();
    drop(passphrase);
    let point = Arc::new(Mountpoint::prepare(&chosen, home.path(), how.plain_mountpoint)?);
    log::to_file(&home.log_path())?;
    let pid_path = home.pid_path();
    let record = ProcessRecord::of_this_process().map_err(Failure::internal)?;
    even_if_full(record.write(&pid_path))?;
    even_if_full(home.change_config(|config| config.mountpoint = Some(point.path().to_owned())))?;
    let mountpoint = point.path().to_owned();
    tracing::info!(version = env!("CARGO_PKG_VERSION"), mountpoint = %mountpoint.display(), "mounting");

    let announce = announcement(cli.json, point.clone(), ready.clone());
    let runtime = runtime()?;
    let outcome = runtime.block_on(async {
        let shutdown = CancellationToken::new();
        stop_on_signals(shutdown.clone())?;
        let run = RunOptions {
            home,
            unlocked,
            mountpoint,
            mount_options: options,
            metrics: how.metrics,
            ready: announce,
            shutdown,
        };
        drive::run(run).await.map_err(Failure::from)
    });
    // Closed again, if it was mounted: the file system itself may have changed the folder's mode in between.
    drop(point);
    let _ = std::fs::remove_file(pid_path);
    match &outcome {
        Ok(report) => tracing::info!(unsafe_bytes = report.unsafe_bytes, "unmounted"),
        Err(failure) => tracing::error!("{}", failure.message),
    }
    let report = outcome?;
    if !cli.json {
        eprint!("{}", report.render());
    }
    Ok(())
}

/// What is done and said once programs may write.
fn announcement(json: bool, point: Arc<Mountpoint>, ready: ReadyPipe) -> Box<dyn FnOnce() + Send> {
    Box::new(move || {
        point.close();
        let path = point.path().display();
        let value = serde_json::json!({"mountpoint": point.path(), "pid": std::process::id()});
        tracing::info!("mounted");
        if ready.has_parent() {
            ready.ready(value);
        } else if json {
            println!("{value}");
        } else {
            eprintln!("mounted on {path}; Ctrl-C or `holdfast unmount` ends it");
        }
    })
}

/// SIGTERM, SIGINT and SIGHUP unmount; a second one does not hurry it, since that would only cost a recovery.
pub(super) fn stop_on_signals(shutdown: CancellationToken) -> Outcome {
    for kind in [SignalKind::terminate(), SignalKind::interrupt(), SignalKind::hangup()] {
        let mut signals = signal(kind).map_err(Failure::internal)?;
        let shutdown = shutdown.clone();
        tokio::spawn(async move {
            while signals.recv().await.is_some() {
                tracing::info!("asked to end");
                shutdown.cancel();
            }
        });
    }
    Ok(())
}

/// The words after `-o`, refused before anything is touched where the file system does not know them.
fn accept_options(words: &[String]) -> Result<MountOptions, Failure> {
    drive::mount_options(words).map_err(|error| Failure::new(Exit::Usage, format!("-o: {error}")))
}
