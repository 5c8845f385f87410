//! The arguments of commands about public data.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
};

use clap::{Args, ValueEnum};
use holdfast_content::plain::Profile;

use crate::{home::ProviderAddr, link::AnyLink, provide::Change};

#[derive(Debug, Args)]
pub struct ExportArgs {
    /// A file, folder or link, on the drive or anywhere else
    pub path: PathBuf,
    /// The CAR file, which must not be there yet
    #[arg(long, value_name = "FILE")]
    pub car: PathBuf,
    #[command(flatten)]
    pub add: AddArgs,
}

/// What decides the CID.
#[derive(Debug, Args)]
pub struct AddArgs {
    /// How it is cut and linked: unixfs-v0-2015 (what `ipfs add` does by default) or unixfs-v1-2025
    #[arg(long, value_name = "PROFILE", default_value_t = Profile::V0)]
    pub profile: Profile,
    /// Take along what begins with a dot
    #[arg(long)]
    pub hidden: bool,
}

#[derive(Debug, Args)]
pub struct ImportArgs {
    /// A CAR file of version 1 or 2
    pub car: PathBuf,
    /// Where to write it: what is not there yet
    pub path: PathBuf,
    /// Which of its files and folders [default: its only root]
    #[arg(long, value_name = "CID")]
    pub root: Option<cid::Cid>,
}

#[derive(Debug, Args)]
pub struct PublishArgs {
    /// A file or folder, as it is now: later changes are not published
    pub path: PathBuf,
    #[command(flatten)]
    pub add: AddArgs,
    /// Return when as many providers have it as the policy wants
    #[arg(long)]
    pub wait: bool,
    /// Give up waiting after this many seconds (exit code 10)
    #[arg(long, value_name = "SECONDS", requires = "wait")]
    pub timeout: Option<u64>,
}

#[derive(Debug, Args)]
pub struct UnpublishArgs {
    /// The CID or the path, as `holdfast published` shows it
    pub which: String,
}

/// What a provider does with public data.
#[derive(Debug, Args)]
pub struct ServeArgs {
    /// Give public blocks by HTTP as well, at this address: 127.0.0.1:8080, [::]:8080, ...; off ends it. Remembered
    #[arg(long, value_name = "ADDRESS", value_parser = parse_gateway)]
    pub gateway: Option<Change<SocketAddr>>,
    /// Whether public data is taken at all, which anybody may then fetch from here [default: what the folder was last given, else on]
    #[arg(long, value_name = "on|off")]
    pub public: Option<Switch>,
}

/// On or off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Switch {
    On,
    Off,
}

fn parse_gateway(text: &str) -> Result<Change<SocketAddr>, String> {
    match text {
        "off" => Ok(Change::Off),
        address => address
            .parse()
            .map(Change::On)
            .map_err(|_| format!("`{address}` is not an address; one looks like 127.0.0.1:8080")),
    }
}

#[derive(Debug, Args)]
pub struct GetArgs {
    /// A link, as `holdfast publish` or `holdfast share` shows it (in quotes); or a CID, ipfs://CID/path, /ipfs/CID/path
    pub link: AnyLink,
    /// Where to write it: what is not there yet [default, of a private link: its name, in the current folder]
    #[arg(value_name = "DEST", conflicts_with = "out")]
    pub dest: Option<PathBuf>,
    /// The same
    #[arg(long, value_name = "PATH")]
    pub out: Option<PathBuf>,
    /// A provider, or any peer that speaks Bitswap, besides those in the link; may be given several times
    #[arg(long = "peer", value_name = "ADDRESS")]
    pub peers: Vec<ProviderAddr>,
    /// A trustless gateway: http://HOST:PORT; may be given several times
    #[arg(long = "gateway", value_name = "URL")]
    pub gateways: Vec<String>,
    /// Whether to look for providers of a private link that moved on the local network (mDNS) as well
    #[arg(long, env = "HOLDFAST_MDNS", value_name = "on|off", default_value = "on")]
    pub mdns: Switch,
}

impl GetArgs {
    /// Where it is to be written.
    pub fn destination(&self) -> Option<&Path> {
        self.dest.as_deref().or(self.out.as_deref())
    }
}
