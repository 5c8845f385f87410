//! `holdfast restore`: from 24 words and one provider that answers to a mounted drive.

use std::{io, path::PathBuf};

use holdfast_content::keys::Mnemonic;

use super::{
    Cli, Exit, Failure, Outcome,
    args::{RestoreArgs, Switch},
    exit, mount, print, runtime,
};
use crate::{
    control::ProgressSink,
    home::{
        Config, Home, Passphrase, Policy, ProviderAddr,
        mountpoint::{self, Mountpoint},
        passphrase::obtain_words,
    },
    restore::{self, Search},
};

pub fn run(cli: &Cli, args: &RestoreArgs, program: io::Result<PathBuf>) -> Outcome {
    let path = cli.home_path();
    Home::check_free(&path)?;
    let target = match (&args.mountpoint, args.no_mount) {
        (_, true) => None,
        (Some(target), false) => Some(target),
        (None, false) => {
            return Err(Failure::new(Exit::Usage, "where shall the drive be mounted?")
                .hint("Name an empty folder, or give --no-mount."));
        }
    };
    if target.is_some() {
        mountpoint::check_fuse()?;
    }
    let text = obtain_words(args.words_file.as_deref())?;
    let root = Mnemonic::parse(&text)
        .map_err(|error| {
            Failure::new(Exit::Secrets, error.to_string())
                .hint("Compare them with what you wrote down: 24 English words, in order.")
        })?
        .root_key();
    let passphrase = passphrase(args)?;

    eprintln!("Looking for the drive {} ...", root.drive_name());
    let search = Search { peers: &args.peers, mdns: args.mdns == Switch::On, minority: args.minority };
    let found = runtime()?.block_on(restore::find(&root, search, ProgressSink::none())).map_err(|error| {
        exit::from_search(&error).unwrap_or_else(|| {
            Failure::new(Exit::Network, format!("{error:#}")).hint(
                "One provider must answer, of the drive or not: check --peer, and that it runs. Nothing was changed.",
            )
        })
    })?;
    let mut config = Config::new(String::new());
    config.discovery.mdns = search.mdns;
    config.restore_minority = args.minority;
    // Whoever was named and keeps nothing of the drive only knows others. Who keeps it and is not named by anybody was
    // taken out of the drive.
    let is_in = |list: &[ProviderAddr], peer: &ProviderAddr| list.iter().any(|p| p.peer_id == peer.peer_id);
    let (keepers, strangers): (Vec<_>, Vec<_>) =
        args.peers.iter().cloned().partition(|peer| is_in(&found.peers, peer));
    ProviderAddr::merge(&mut config.discovery.bootstrap, strangers);
    ProviderAddr::merge(&mut config.providers, keepers);
    ProviderAddr::merge(&mut config.providers, found.providers);
    let seen: Vec<ProviderAddr> =
        found.peers.into_iter().filter(|peer| is_in(&config.providers, peer)).collect();
    ProviderAddr::merge(&mut config.providers, seen);
    if let Some(survive_losses) = found.survive_losses {
        config.policy = Policy { survive_losses, ..Policy::default() };
    }
    if let Some(target) = target {
        // Whatever would refuse the mountpoint does so before a home is made.
        drop(Mountpoint::prepare(target, &path, args.how.plain_mountpoint)?);
    }
    let home = Home::adopt(&path, &passphrase, &found.recovered, config)?;
    eprintln!("Found it: {} of {} of its providers answered.", found.answered, found.asked);
    if found.refused > 0 {
        eprintln!("{} of them showed what is no head of this drive; that was passed over.", found.refused);
    }
    match target {
        Some(target) => mount::mount(cli, Some(target.clone()), &args.how, passphrase, program),
        None => {
            let text = format!("Its home is {}. `holdfast mount FOLDER` mounts it.\n", home.path().display());
            print(cli.json, &serde_json::json!({"drive": home.config().drive, "home": home.path()}), &text)
        }
    }
}

/// A secrets file given for the words brings its passphrase along.
fn passphrase(args: &RestoreArgs) -> Result<Passphrase, Failure> {
    let stdin = |path: &PathBuf| path.as_os_str() == "-";
    if let Some(given) = Passphrase::from_files(args.passphrase.passphrase_file.as_deref())? {
        return Ok(given);
    }
    if let Some(path) = args.words_file.as_ref().filter(|path| !stdin(path))
        && let Some(found) = Passphrase::from_secrets(path)?
    {
        return Ok(found);
    }
    Ok(Passphrase::obtain_new(None)?)
}
