//! The arguments of every command, and the help that goes with them.

mod proofs;
mod provide;

use std::{net::SocketAddr, path::PathBuf};

use clap::{Args, Parser, Subcommand};
use holdfast_net::tags::Tags;

use crate::{home::ProviderAddr, metrics};

pub use proofs::*;
pub use provide::*;

mod plain;
mod share;
mod watch;

pub use share::*;
pub use watch::*;

pub use plain::{ExportArgs, GetArgs, ImportArgs, PublishArgs, ServeArgs, Switch, UnpublishArgs};

const EXAMPLES: &str = "\
A first drive, with providers on this machine to try it out:

  holdfast local-network start --dir ~/providers
  holdfast init --secrets ~/holdfast-secrets --local-network ~/providers
  holdfast mount ~/Holdfast --background --passphrase-file ~/holdfast-secrets
  cp -r ~/Pictures ~/Holdfast && holdfast sync --wait && holdfast status

Exit codes: 0 done, 1 failed, 2 wrong usage, 3 wrong passphrase or words, 4 not mounted, 5 home folder, 6 mountpoint,
7 this machine cannot mount, 8 in use, 9 network, 10 not safe in time, 11 damage found, 12 disk full,
13 no permission, 14 written by a newer version, 15 a program or parameters that are needed are missing.";

/// A drive that lives on many machines: encrypted here, kept by independent providers, back on any machine from 24 words.
#[derive(Debug, Parser)]
#[command(name = "holdfast", version, after_help = EXAMPLES, propagate_version = true)]
pub struct Cli {
    /// The drive's home folder on this machine [default: ~/.local/share/holdfast]
    #[arg(long, global = true, env = "HOLDFAST_HOME", value_name = "DIR")]
    pub home: Option<PathBuf>,
    /// Print the result, or the error, as JSON
    #[arg(long, global = true)]
    pub json: bool,
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Make a new drive: 24 words and a home folder
    Init(InitArgs),
    /// Mount the drive on a folder
    Mount(MountArgs),
    /// Unmount the drive, and say what is not safe yet
    #[command(visible_alias = "umount")]
    Unmount(UnmountArgs),
    /// Make everything written so far durable; with --wait, until the providers have it
    Sync(SyncArgs),
    /// Show where the data stands, what happened and what to do; of a provider, what it keeps, proves and seals
    Status(StatusArgs),
    /// Drop local copies of what is safe with the providers
    Evict(EvictArgs),
    /// Keep a folder's data on this disk; without a path, show what is kept
    Pin(PinArgs),
    /// Keep it no longer
    Unpin(UnpinArgs),
    /// Show how many losses a file's or folder's data survives, and who says so; set it for a folder
    Policy(PolicyArgs),
    /// Make a snapshot now, and give it a name
    Snapshot(SnapshotArgs),
    /// List the snapshots; each is a folder in .snapshots
    Snapshots,
    /// Drop old snapshots now, as the rule in the configuration says, and give up what only they needed
    Prune(PruneArgs),
    /// Show which files differ between two snapshots, or a snapshot and now
    Diff(DiffArgs),
    /// Bring a file or folder back from the newest snapshot that has it
    Undelete(UndeleteArgs),
    /// Make a file or folder public: not encrypted, kept by the drive's providers, who give it to anybody
    Publish(PublishArgs),
    /// Take that back; who has it may keep it
    Unpublish(UnpublishArgs),
    /// List what is published
    Published,
    /// Let whoever gets a link read a file or folder, as it is now: the link has the key in it
    Share(ShareArgs),
    /// List what is shared by links, and the links
    Shares,
    /// End a link; who has read what it shows may keep it
    Unshare(UnshareArgs),
    /// Fetch what a link leads to, public or private, on any machine: every block is checked. Needs no drive
    Get(GetArgs),
    /// Write a file or folder to a CAR file, as IPFS programs read it: not encrypted, under the CID that `ipfs add` gives it
    Export(ExportArgs),
    /// Write what a CAR file holds to the disk
    Import(ImportArgs),
    /// Repair a drive whose owner is away; on the owner's machine: say who may (grant, list, revoke)
    Watch(WatchArgs),
    /// Check the drive for damage
    Verify(VerifyArgs),
    /// Look at everything that can be wrong on this machine and with the drive, and say what to do
    Doctor,
    /// Change the passphrase that unlocks the drive on this machine
    Passphrase(ChangePassphraseArgs),
    /// The providers of this drive
    Provider(ProviderArgs),
    /// Store other people's encrypted pieces in a folder of this machine
    Provide(ProvideArgs),
    /// Check proofs of storage, offline, and make proofs of possession
    Proofs(ProofsArgs),
    /// Bring a drive back on this machine from its 24 words
    Restore(RestoreArgs),
    /// Run several providers on this machine, to try Holdfast out
    LocalNetwork(LocalNetworkArgs),
}

#[derive(Debug, Args)]
pub struct InitArgs {
    /// Write the words and the passphrase to this new file (mode 0600) instead of showing the words; without
    /// --passphrase-file the passphrase is drawn at random
    #[arg(long, value_name = "FILE")]
    pub secrets: Option<PathBuf>,
    #[command(flatten)]
    pub passphrase: PassphraseArgs,
    /// A provider's address, as `holdfast provide` prints it; may be given several times
    #[arg(long = "provider", value_name = "ADDRESS")]
    pub providers: Vec<ProviderAddr>,
    /// Use the providers of this local network
    #[arg(long, value_name = "DIR")]
    pub local_network: Option<PathBuf>,
    /// Survive the loss of any M providers: M+1 copies at first, stripes with M parity slots later
    #[arg(long, value_name = "M", default_value_t = 2, value_parser = clap::value_parser!(u8).range(0..=9))]
    pub survive: u8,
    /// Data slots of a stripe, at most; with 0 everything is kept as copies
    #[arg(long, value_name = "K", default_value_t = 8, value_parser = clap::value_parser!(u16).range(0..=20))]
    pub stripe: u16,
    /// Whether to look for lost providers on the local network (mDNS) as well
    #[arg(long, env = "HOLDFAST_MDNS", value_name = "on|off", default_value = "on")]
    pub mdns: Switch,
}

#[derive(Debug, Args)]
pub struct PassphraseArgs {
    /// Read the passphrase from this file (`-`: standard input) instead of asking; a secrets file will do.
    /// The variable HOLDFAST_PASSPHRASE_FILE names one too
    #[arg(long, value_name = "FILE")]
    pub passphrase_file: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub struct ChangePassphraseArgs {
    #[command(flatten)]
    pub passphrase: PassphraseArgs,
    /// Read the new passphrase from this file (`-`: standard input) instead of asking twice
    #[arg(long, value_name = "FILE")]
    pub new_passphrase_file: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub struct MountArgs {
    /// An empty folder (made where it is missing) [default: where it was mounted last]
    pub mountpoint: Option<PathBuf>,
    #[command(flatten)]
    pub how: MountHow,
    #[command(flatten)]
    pub passphrase: PassphraseArgs,
    /// Set by --background on the process that it starts
    #[arg(long, hide = true, value_name = "FD")]
    pub ready_fd: Option<i32>,
}

#[derive(Debug, Args)]
pub struct MountHow {
    /// Options as other FUSE programs take them: allow_other, default_permissions, ro, noatime, ...
    #[arg(short = 'o', value_name = "OPTION,...", value_delimiter = ',')]
    pub options: Vec<String>,
    /// Return when the drive is mounted and writable; the daemon goes on in the background
    #[arg(long, visible_alias = "daemonize")]
    pub background: bool,
    /// Offer metrics for Prometheus at http://ADDRESS/metrics while it is mounted: a port of this machine only (9465), or an
    /// address that others reach as well (192.0.2.7:9465)
    #[arg(long, value_name = "ADDRESS", value_parser = metrics::parse_address)]
    pub metrics: Option<SocketAddr>,
    /// Leave the bare folder writable while the drive is not mounted
    #[arg(long)]
    pub plain_mountpoint: bool,
}

#[derive(Debug, Args)]
pub struct UnmountArgs {
    /// Unmount even while files are open; they are cut off
    #[arg(long)]
    pub lazy: bool,
    /// First wait until everything is safe with the providers
    #[arg(long)]
    pub wait: bool,
    /// End the daemon by force where it does not answer (what it has acknowledged is kept)
    #[arg(long)]
    pub force: bool,
    /// Make the bare mountpoint an ordinary, writable folder again
    #[arg(long)]
    pub free_mountpoint: bool,
}

#[derive(Debug, Args)]
pub struct SyncArgs {
    /// Wait until everything written so far survives the loss of this machine and of M providers
    #[arg(long)]
    pub wait: bool,
    /// Give up after this many seconds (exit code 10)
    #[arg(long, value_name = "SECONDS", requires = "wait")]
    pub timeout: Option<u64>,
}

#[derive(Debug, Args)]
pub struct EvictArgs {
    /// Files and folders on the mounted drive [default: everything]
    pub paths: Vec<PathBuf>,
}

#[derive(Debug, Args)]
pub struct PinArgs {
    /// A file or folder on the mounted drive
    pub path: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub struct PolicyArgs {
    /// A file or folder on the mounted drive; without one: the drive
    pub path: Option<PathBuf>,
    /// Have it, and all that is below, survive the loss of any N providers (the extended attribute user.holdfast.survive)
    #[arg(long, value_name = "N", conflicts_with = "inherit", value_parser = clap::value_parser!(u8).range(0..=9))]
    pub survive: Option<u8>,
    /// Leave it to the folder above again
    #[arg(long)]
    pub inherit: bool,
}

#[derive(Debug, Args)]
pub struct UnpinArgs {
    /// A file or folder on the mounted drive
    pub path: PathBuf,
}

#[derive(Debug, Args)]
pub struct SnapshotArgs {
    /// Its name, beside its time
    pub name: Option<String>,
    /// Take this name away again
    #[arg(long, requires = "name")]
    pub forget: bool,
}

/// What is given stands in for the configured rule, this once. Named snapshots always stay.
#[derive(Debug, Args)]
pub struct PruneArgs {
    /// Keep all snapshots of so many hours
    #[arg(long, value_name = "N")]
    pub all_hours: Option<u64>,
    /// Then the newest of each of so many hours
    #[arg(long, value_name = "N")]
    pub hourly: Option<u64>,
    /// Of each of so many days
    #[arg(long, value_name = "N")]
    pub daily: Option<u64>,
    /// Of each of so many weeks
    #[arg(long, value_name = "N")]
    pub weekly: Option<u64>,
}

#[derive(Debug, Args)]
pub struct DiffArgs {
    /// A snapshot: its time as listed, its sequence, its CID, or the name that it is kept under
    pub from: String,
    /// Another one [default: now]
    pub to: Option<String>,
}

#[derive(Debug, Args)]
pub struct UndeleteArgs {
    /// Where it was on the mounted drive
    pub path: PathBuf,
    /// From this snapshot [default: the newest that has it]
    #[arg(long, value_name = "SNAPSHOT")]
    pub from: Option<String>,
    /// Put it there instead
    #[arg(long, value_name = "PATH")]
    pub to: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub struct StatusArgs {
    /// A provider's folder, or a drive's home [default: the drive of --home]
    pub dir: Option<PathBuf>,
    /// Show it again every second
    #[arg(long, conflicts_with = "json")]
    pub watch: bool,
}

#[derive(Debug, Args)]
pub struct VerifyArgs {
    /// Read and hash every local block as well
    #[arg(long)]
    pub deep: bool,
    /// Read every copy whole from its provider, instead of asking it for a proof of possession
    #[arg(long)]
    pub remote: bool,
    #[command(flatten)]
    pub passphrase: PassphraseArgs,
}

#[derive(Debug, Args)]
pub struct ProviderArgs {
    #[command(subcommand)]
    pub command: ProviderCommand,
}

#[derive(Debug, Subcommand)]
pub enum ProviderCommand {
    /// Use these providers as well (a known one gets a new address)
    Add {
        /// Addresses, as `holdfast provide` prints them
        #[arg(required = true, value_name = "ADDRESS")]
        addresses: Vec<ProviderAddr>,
        #[command(flatten)]
        tags: TagArgs,
        /// Forget the tags that were given before
        #[arg(long, conflicts_with_all = ["operator", "network", "place"])]
        untagged: bool,
    },
    /// Use this provider no longer; what it holds is copied to others
    Remove {
        /// Its identity (12D3Koo...)
        peer: String,
    },
    /// Show the providers
    List,
}

/// Whatever has an equal tag is taken to fail together.
#[derive(Debug, Args)]
pub struct TagArgs {
    /// Who runs it
    #[arg(long, value_name = "NAME")]
    pub operator: Option<String>,
    /// Whose lines it hangs on
    #[arg(long, value_name = "NAME")]
    pub network: Option<String>,
    /// Where it stands: a building, a town, a country
    #[arg(long, value_name = "NAME")]
    pub place: Option<String>,
}

impl TagArgs {
    /// All three, as they were given.
    pub fn tags(&self) -> Tags {
        Tags { operator: self.operator.clone(), network: self.network.clone(), place: self.place.clone() }
    }
}

#[derive(Debug, Args)]
pub struct RestoreArgs {
    /// Where to mount the drive: an empty folder (made where it is missing)
    pub mountpoint: Option<PathBuf>,
    /// Read the 24 words from this file (`-`: standard input) instead of asking; a secrets file will do
    #[arg(long, value_name = "FILE")]
    pub words_file: Option<PathBuf>,
    /// The address of any provider, as `holdfast provide` prints it: one that answers is enough, of the drive or not, since
    /// the others are found by it. Without one the local network is asked
    #[arg(long = "peer", value_name = "ADDRESS")]
    pub peers: Vec<ProviderAddr>,
    /// Whether to ask on the local network (mDNS) as well; also kept in the home's configuration
    #[arg(long, env = "HOLDFAST_MDNS", value_name = "on|off", default_value = "on")]
    pub mdns: Switch,
    /// Take the newest state of those that answer, and the right to write from them, though they are too few to be sure that
    /// there is no newer state, nor another machine that writes: say so only of providers that will not come back
    #[arg(long)]
    pub minority: bool,
    #[command(flatten)]
    pub passphrase: PassphraseArgs,
    #[command(flatten)]
    pub how: MountHow,
    /// Only make the home folder; `holdfast mount` does the rest
    #[arg(long, conflicts_with = "mountpoint")]
    pub no_mount: bool,
}

#[derive(Debug, Args)]
pub struct LocalNetworkArgs {
    #[command(subcommand)]
    pub command: LocalNetworkCommand,
}

#[derive(Debug, Subcommand)]
pub enum LocalNetworkCommand {
    /// Start the providers that do not run yet
    Start {
        #[command(flatten)]
        dir: NetworkDir,
        /// How many there shall be
        #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..=100))]
        providers: u16,
        /// How much each stores at most
        #[arg(long, value_name = "SIZE", value_parser = parse_size)]
        capacity: Option<u64>,
        /// Start only the one of this number
        #[arg(long, value_name = "NUMBER")]
        only: Option<u16>,
    },
    /// Stop them; their folders stay
    Stop {
        #[command(flatten)]
        dir: NetworkDir,
        /// Stop only the one of this number
        #[arg(long, value_name = "NUMBER")]
        only: Option<u16>,
    },
    /// Show which run, and their addresses
    Status {
        #[command(flatten)]
        dir: NetworkDir,
        /// Print nothing but the addresses, one on each line
        #[arg(long)]
        addresses: bool,
    },
}

#[derive(Debug, Args)]
pub struct NetworkDir {
    /// The folder that holds the providers' folders
    #[arg(long, value_name = "DIR")]
    pub dir: PathBuf,
}

impl Cli {
    pub fn wants_json(&self) -> bool {
        self.json
    }

    /// The home folder that was asked for, made absolute: the daemon changes its working folder.
    pub fn home_path(&self) -> PathBuf {
        let path = self.home.clone().unwrap_or_else(default_home);
        std::path::absolute(&path).unwrap_or(path)
    }
}

fn default_home() -> PathBuf {
    data_folder().join("holdfast")
}

/// Where this user's programs keep their data.
fn data_folder() -> PathBuf {
    let variable = |name| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    variable("XDG_DATA_HOME")
        .filter(|p| p.is_absolute())
        .or_else(|| variable("HOME").map(|h| h.join(".local/share")))
        .unwrap_or_else(|| PathBuf::from("."))
}

/// `500`, `64k`, `10M`, `10MB`, `2TiB`: letters mean powers of 1024, as they do for `dd` and `du`.
pub fn parse_size(text: &str) -> Result<u64, String> {
    let text = text.trim();
    let split = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (digits, unit) = text.split_at(split);
    let number: u64 = digits.parse().map_err(|_| format!("`{text}` is not a size; one looks like 500G"))?;
    let shift = match unit.trim().to_ascii_lowercase().trim_end_matches('b').trim_end_matches('i') {
        "" => 0,
        "k" => 10,
        "m" => 20,
        "g" => 30,
        "t" => 40,
        "p" => 50,
        _ => return Err(format!("`{unit}` is not a unit of size; use k, M, G or T")),
    };
    number.checked_mul(1 << shift).ok_or_else(|| format!("`{text}` is too much"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_definitions_hold_together() {
        Cli::command().debug_assert();
    }

    #[test]
    fn sizes() {
        assert_eq!(parse_size("500").unwrap(), 500);
        assert_eq!(parse_size("64k").unwrap(), 64 << 10);
        assert_eq!(parse_size("2TiB").unwrap(), 2 << 40);
        assert_eq!(parse_size("3 GB").unwrap(), 3 << 30);
        for bad in ["", "G", "1x", "-1", "99999999999T"] {
            assert!(parse_size(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn mount_options_are_split() {
        let cli = Cli::try_parse_from(["holdfast", "mount", "/m", "-o", "ro,allow_other", "-o", "noatime"])
            .unwrap();
        let Command::Mount(args) = cli.command else { panic!() };
        assert_eq!(args.how.options, ["ro", "allow_other", "noatime"]);
    }
}
