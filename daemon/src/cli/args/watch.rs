//! The arguments of `holdfast watch`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::{Switch, parse_size};
use crate::home::ProviderAddr;

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub struct WatchArgs {
    #[command(subcommand)]
    pub command: Option<WatchCommand>,
    #[command(flatten)]
    pub run: WatchRunArgs,
}

#[derive(Debug, Subcommand)]
pub enum WatchCommand {
    /// Let somebody repair this drive while this machine is off: makes the file that a watcher needs, once
    Grant(GrantArgs),
    /// Show who may
    List,
    /// Take it back
    Revoke {
        /// Its label, or the beginning of its id
        which: String,
    },
}

#[derive(Debug, Args)]
pub struct WatchRunArgs {
    /// The file that `holdfast watch grant` made (what the watcher has to remember goes beside it, to FILE.watch), or a folder
    /// with that file in it as `capability`
    #[arg(value_name = "FILE|DIR", required = true)]
    pub path: Option<PathBuf>,
    /// Look once, repair what can be, and end: for cron
    #[arg(long)]
    pub once: bool,
    /// Look so often
    #[arg(long, value_name = "SECONDS", default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub interval: u64,
    /// A provider that may take slots, if the owner allows newcomers; remembered in the folder's `providers`, which may be
    /// edited while the watcher runs
    #[arg(long = "provider", value_name = "ADDRESS")]
    pub providers: Vec<ProviderAddr>,
    /// Whether to look for providers that moved on the local network (mDNS) as well
    #[arg(long, env = "HOLDFAST_MDNS", value_name = "on|off", default_value = "on")]
    pub mdns: Switch,
}

#[derive(Debug, Args)]
pub struct GrantArgs {
    /// The new file: as secret as a key. Give it to whoever runs the watcher
    #[arg(long, value_name = "FILE")]
    pub out: PathBuf,
    /// What you call it
    #[arg(long, value_name = "TEXT", default_value = "watcher")]
    pub label: String,
    /// It ends after so many days
    #[arg(long, value_name = "N", default_value_t = 400, value_parser = clap::value_parser!(u64).range(1..=3650))]
    pub days: u64,
    /// At most so much of what it placed at each provider
    #[arg(long, value_name = "SIZE", value_parser = parse_size, default_value = "1T")]
    pub bytes: u64,
    /// At most so much of that in a day
    #[arg(long, value_name = "SIZE", value_parser = parse_size, default_value = "100G")]
    pub daily: u64,
    /// A provider is taken to be lost after so much silence
    #[arg(long, value_name = "SECONDS", default_value_t = 1800, value_parser = clap::value_parser!(u64).range(1..=31_536_000))]
    pub silent: u64,
    /// It may place with providers that this drive does not have; they become the drive's
    #[arg(long)]
    pub newcomers: bool,
    /// A provider that is run by whoever gets the file (12D3Koo...): the watcher is given nothing that lies there, and places
    /// nothing there
    #[arg(long, value_name = "PEER")]
    pub apart: Vec<String>,
}
