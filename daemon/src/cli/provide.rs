//! `holdfast provide` and `holdfast local-network`.

use std::{
    ffi::OsString,
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use holdfast_proofs::sealing::{PROFILES, piece_bytes_max};
use tokio_util::sync::CancellationToken;

use super::{
    Exit, Failure, Outcome,
    args::{LocalNetworkArgs, LocalNetworkCommand, ProvideArgs, SealArgs, Switch},
    background::{self, READY_FD, ReadyPipe},
    log,
    mount::stop_on_signals,
    print, runtime,
};
use crate::{
    control::{
        Client, ClientError, ProviderStatusReport, Request, STATUS_SECONDS_MAX, StoppedProviderReport,
        render::{count, size},
    },
    home::create_private_dir,
    local_network::{self, LOG_FILE, LocalProvider, provider_dir},
    provide::{self, Change, LISTEN_LOOPBACK, Started, Wishes},
    sealing::{self, LastStatus, SealConfig},
    worker::unix_now,
};

/// Providers of a local network that a new one begins with.
const BOOTSTRAP_MAX: usize = 8;
/// What ends sealing, and a list.
const OFF: &str = "off";
/// Where the system does not tell how much memory there is.
const SEAL_MEMORY_DEFAULT: u64 = 4 << 30;

/// In the foreground, until a signal comes.
pub fn run(json: bool, args: &ProvideArgs, program: io::Result<PathBuf>) -> Outcome {
    let ready = ReadyPipe::adopt(args.ready_fd)?;
    let outcome = serve(json, args, &ready, program.ok().as_deref());
    if let Err(failure) = &outcome {
        ready.failed(failure);
    }
    outcome
}

/// What is asked about sealing, with this machine's own figures where nothing is said.
fn seal_change(args: &SealArgs) -> Result<Change<SealConfig>, Failure> {
    let Some(profile) = &args.seal else { return Ok(Change::Keep) };
    if profile == OFF {
        return Ok(Change::Off);
    }
    if piece_bytes_max(profile).is_none() {
        let known = PROFILES.map(|(name, _)| name).join(", ");
        let message = format!("unknown profile `{profile}`; there are {known}, and {OFF}");
        return Err(Failure::new(Exit::Usage, message));
    }
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let half = crate::memory::total_bytes().map_or(SEAL_MEMORY_DEFAULT, |bytes| bytes / 2);
    let parameters = args.parameters.as_ref().map(std::path::absolute).transpose()?;
    Ok(Change::On(SealConfig {
        profile: profile.clone(),
        cores: args.seal_cores.unwrap_or(u32::try_from(cores).unwrap_or(1)),
        memory_bytes: args.seal_memory.unwrap_or(half),
        period_seconds: args.seal_period,
        deadline_seconds: args.seal_deadline,
        gather_seconds: args.seal_gather,
        synthetic: args.seal_synthetic,
        drop_unsealed: args.seal_drop_unsealed,
        parameters,
    }))
}

/// The daemon changes its working folder; a file's name must hold all the same.
fn list_change(file: Option<&Path>) -> Result<Change<PathBuf>, Failure> {
    match file {
        None => Ok(Change::Keep),
        Some(off) if off.as_os_str() == OFF => Ok(Change::Off),
        Some(file) => Ok(Change::On(std::path::absolute(file)?)),
    }
}

fn serve(json: bool, args: &ProvideArgs, ready: &ReadyPipe, program: Option<&Path>) -> Outcome {
    let wishes = Wishes {
        capacity: args.capacity,
        client_quota: args.client_quota,
        listen: args.listen.clone(),
        bootstrap: args.bootstrap.clone(),
        mdns: args.mdns.map(|mdns| mdns == Switch::On),
        nat: args.nat.map(|nat| nat == Switch::On),
        allow: list_change(args.allow.as_deref())?,
        block: list_change(args.block.as_deref())?,
        tags: args.tags.tags(),
        seal: seal_change(&args.seal)?,
        metrics: args.metrics.clone().unwrap_or_default(),
        tree_permille: args.tree_cache,
        scrub_days: args.scrub_days,
        gateway: args.public.gateway.clone().unwrap_or_default(),
        public: args.public.public.map(|switch| switch == Switch::On),
    };
    let folder = provide::Folder::open(&args.dir, wishes)?;
    log::to_file(&args.dir.join(LOG_FILE))?;
    let announce = |started: &Started| {
        if ready.has_parent() {
            ready.ready(serde_json::json!(started));
        } else if json {
            println!("{}", serde_json::json!(started));
        } else {
            println!("Providing up to {} in {}.", size(started.capacity_bytes), started.dir.display());
            if let Some(profile) = &started.seal {
                let worth = if profile.starts_with("test") { " (TEST STRENGTH: worth nothing)" } else { "" };
                println!("Sealing at {profile}{worth}.");
            }
            if let Some(url) = &started.metrics {
                println!("Metrics at {url}.");
            }
            if let Some(url) = &started.gateway {
                println!("Public blocks, for anybody: {url}/ipfs/CID?format=raw (or format=car)");
            }
            println!("How it stands: `holdfast status {}`.", started.dir.display());
            println!("Its address, for `holdfast provider add`:");
            for addr in started.address.full_addrs() {
                println!("  {addr}");
            }
        }
    };
    runtime()?.block_on(async {
        let shutdown = CancellationToken::new();
        stop_on_signals(shutdown.clone())?;
        Ok(provide::run(folder, shutdown, program, announce).await?)
    })
}

/// How the provider of a folder stands.
pub(super) fn status(json: bool, watch: bool, dir: &Path) -> Outcome {
    let socket = provide::socket_path(dir);
    let client = Client::new(&socket).patience(Duration::from_secs(STATUS_SECONDS_MAX));
    loop {
        let report: ProviderStatusReport = match client.call(&Request::Status {}, |_| {}) {
            Ok(report) => report,
            Err(ClientError::NotRunning(_)) => return stopped(json, dir),
            Err(ClientError::Silent) => {
                return Err(Failure::new(Exit::Failed, "the provider does not answer").hint(
                    "See provider.log in its folder. Ending it loses nothing that it has signed for.",
                ));
            }
            Err(error) => return Err(error.into()),
        };
        if !watch {
            return print(json, &report, &report.render());
        }
        // Clears the terminal and starts at its top.
        print(false, &report, &format!("\x1b[2J\x1b[H{}", report.render()))?;
        std::thread::sleep(Duration::from_secs(1));
    }
}

/// A provider that does not run has a status too, for programs; the exit code says that nothing runs.
fn stopped(json: bool, dir: &Path) -> Outcome {
    if local_network::process(dir).is_some() {
        let failure = Failure::new(Exit::InUse, "the provider runs, but cannot be asked");
        return Err(
            failure.hint("It is just starting, or ending, or of an older version: try again in a moment.")
        );
    }
    let sealing = sealing::last_status(dir, unix_now())?;
    let text = sealing.as_ref().map_or_else(String::new, LastStatus::render);
    let capacity = provide::capacity_of(dir)?;
    let report = StoppedProviderReport::new(dir.to_owned(), local_network::address(dir), capacity, sealing);
    print(json, &report, &text)?;
    let failure =
        Failure::new(Exit::NotMounted, format!("the provider in {} does not run", dir.display())).hint(
            "`holdfast provide DIR` starts it; until then nothing is served or proven, and drives put their copies elsewhere.",
        );
    if json { Err(failure.silent()) } else { Err(failure) }
}

pub fn local_network(json: bool, args: &LocalNetworkArgs, program: io::Result<PathBuf>) -> Outcome {
    match &args.command {
        LocalNetworkCommand::Start { dir, providers, capacity, only } => {
            let program = program.map_err(Failure::internal)?;
            let dir = std::path::absolute(&dir.dir).map_err(Failure::internal)?;
            create_private_dir(&dir)?;
            let numbers = match only {
                Some(number) => *number..=*number,
                None => 1..=*providers,
            };
            for number in numbers {
                start_one(&program, &dir, number, *capacity)?;
            }
            show(json, &dir, false)
        }
        LocalNetworkCommand::Stop { dir, only } => {
            let stopped = local_network::stop(&dir.dir, *only)?;
            let text = match stopped.len() {
                0 => "No provider was running.\n".to_owned(),
                n => format!("Stopped {}. Their folders stay.\n", count(n as u64, "provider")),
            };
            print(json, &serde_json::json!({"stopped": stopped}), &text)
        }
        LocalNetworkCommand::Status { dir, addresses } => show(json, &dir.dir, *addresses),
    }
}

fn start_one(program: &Path, dir: &Path, number: u16, capacity: Option<u64>) -> Outcome {
    let folder = provider_dir(dir, number);
    if local_network::process(&folder).is_some() {
        return Ok(());
    }
    create_private_dir(&folder)?;
    let mut arguments: Vec<OsString> = vec!["provide".into(), folder.clone().into()];
    if local_network::address(&folder).is_none() {
        // The first time; afterwards the folder knows its port.
        for addr in LISTEN_LOOPBACK {
            arguments.extend(["--listen", addr].map(OsString::from));
        }
    }
    // They find each other: by those that were there before.
    for other in local_network::addresses(dir)?.iter().take(BOOTSTRAP_MAX) {
        if let Some(addr) = other.full_addrs().first() {
            arguments.extend(["--bootstrap".into(), addr.into()]);
        }
    }
    if let Some(bytes) = capacity {
        arguments.extend(["--capacity".into(), bytes.to_string().into()]);
    }
    arguments.extend(["--ready-fd".into(), READY_FD.to_string().into()]);
    match background::start(program, &arguments, None, &folder.join(LOG_FILE)) {
        Ok(_) => Ok(()),
        // Somebody else was quicker: what was wanted is there.
        Err(failure) if failure.exit == Exit::InUse && local_network::process(&folder).is_some() => Ok(()),
        Err(mut failure) => {
            failure.message = format!("provider {number}: {}", failure.message);
            Err(failure)
        }
    }
}

fn show(json: bool, dir: &Path, only_addresses: bool) -> Outcome {
    let providers = local_network::list(dir)?;
    let text: String =
        providers.iter().map(|p| if only_addresses { addresses(p) } else { line(p) }).collect();
    let text = if providers.is_empty() { format!("No providers in {}.\n", dir.display()) } else { text };
    print(json, &serde_json::json!({"providers": providers}), &text)
}

fn addresses(provider: &LocalProvider) -> String {
    provider.address.iter().flat_map(|a| a.full_addrs()).map(|a| a + "\n").collect()
}

fn line(provider: &LocalProvider) -> String {
    let state = match provider.pid {
        Some(pid) => format!("running, process {pid}"),
        None => "stopped".to_owned(),
    };
    let address = provider.address.as_ref().map_or_else(|| "no address yet".to_owned(), ToString::to_string);
    format!("provider {:>2}  {state:<24}  {address}\n", provider.number)
}
