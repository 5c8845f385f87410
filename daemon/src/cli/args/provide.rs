//! The arguments of `holdfast provide`.

use std::{net::SocketAddr, path::PathBuf};

use clap::Args;

use super::{ServeArgs, Switch, TagArgs, parse_size};
use crate::{home::ProviderAddr, metrics, provide::Change};

#[derive(Debug, Args)]
pub struct ProvideArgs {
    /// The provider's folder (made where it is missing)
    pub dir: PathBuf,
    /// How much it stores at most: 500G, 2TiB, ... [default: what the folder was last given, else 100G]
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    pub capacity: Option<u64>,
    /// How much one drive may store at most: 50G, 1TiB, ...
    /// [default: what the folder was last given, else no limit but the capacity]
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    pub client_quota: Option<u64>,
    /// An address to listen at: /ip4/0.0.0.0/tcp/4001, /ip4/0.0.0.0/udp/4001/quic-v1; may be given several times
    /// [default: what the folder was last given, else TCP and QUIC on every interface; port 0 draws one and keeps it]
    #[arg(long, value_name = "ADDRESS")]
    pub listen: Vec<String>,
    /// A peer by which this one is found, and finds others: any other provider; may be given several times
    /// [default: what the folder was last given, and the peers that it knew last]
    #[arg(long, value_name = "ADDRESS")]
    pub bootstrap: Vec<ProviderAddr>,
    /// Whether to call and answer on the local network (mDNS) [default: what the folder was last given, else on]
    #[arg(long, env = "HOLDFAST_MDNS", value_name = "on|off")]
    pub mdns: Option<Switch>,
    /// Whether to ask the router (UPnP) and other providers for a way in where a NAT is in the way, and to be such a way for
    /// others [default: what the folder was last given, else on]
    #[arg(long, value_name = "on|off")]
    pub nat: Option<Switch>,
    /// Take new deals only from the peers and networks in this file; it is read again when it changes; `off` ends it
    #[arg(long, value_name = "FILE")]
    pub allow: Option<PathBuf>,
    /// Let nobody in who is in this file; likewise
    #[arg(long, value_name = "FILE")]
    pub block: Option<PathBuf>,
    #[command(flatten)]
    pub tags: TagArgs,
    /// Disk for the trees that proofs of possession are made with, in thousandths of what is stored and beside the capacity:
    /// with 10 a proof of 32 GiB reads 300 KiB, with 1 it reads 1 MiB
    /// [default: what the folder was last given, else 10]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=100))]
    pub tree_cache: Option<u16>,
    /// Read everything that is stored once in so many days and hash it, so that what the disk has damaged is known before it is
    /// needed; 0: never [default: what the folder was last given, else 30]
    #[arg(long, value_name = "DAYS", value_parser = clap::value_parser!(u16).range(0..=3650))]
    pub scrub_days: Option<u16>,
    /// Offer metrics for Prometheus at http://ADDRESS/metrics: a port of this machine only (9464), an address that others
    /// reach as well (192.0.2.7:9464), or off [default: what the folder was last given, else off]
    #[arg(long, value_name = "ADDRESS", value_parser = parse_metrics)]
    pub metrics: Option<Change<SocketAddr>>,
    #[command(flatten)]
    pub seal: SealArgs,
    #[command(flatten)]
    pub public: ServeArgs,
    /// Return when it listens; the provider goes on in the background
    #[arg(long, hide = true, value_name = "FD")]
    pub ready_fd: Option<i32>,
}

#[derive(Debug, Args)]
pub struct SealArgs {
    /// Seal the pieces into sectors of this profile and prove them on schedule: test-2k or test-8m (both of TEST STRENGTH),
    /// production-32g, production-64g; off ends it [default: what the folder was last given, else off]
    #[arg(long, value_name = "PROFILE")]
    pub seal: Option<String>,
    /// Cores that sealing and proving may use [default: all]
    #[arg(long, value_name = "N", requires = "seal", value_parser = clap::value_parser!(u32).range(1..=4096))]
    pub seal_cores: Option<u32>,
    /// Memory that they may use: 8G, ... [default: half of the machine's]
    #[arg(long, value_name = "SIZE", requires = "seal", value_parser = parse_size)]
    pub seal_memory: Option<u64>,
    /// Every sector is proven once in so many seconds
    #[arg(long, value_name = "SECONDS", requires = "seal", default_value_t = 86_400)]
    pub seal_period: u64,
    /// Within so many seconds from its challenge; the period is a multiple of it
    #[arg(long, value_name = "SECONDS", requires = "seal", default_value_t = 1_800)]
    pub seal_deadline: u64,
    /// How many seconds a piece waits for others to fill a sector with
    #[arg(long, value_name = "SECONDS", requires = "seal", default_value_t = 3_600)]
    pub seal_gather: u64,
    /// Answer all candidate challenges of a seal at once, so that its layers can go before the seed is known (synthetic PoRep,
    /// FIP-0059); sectors that were begun otherwise stay what they are
    #[arg(long, requires = "seal")]
    pub seal_synthetic: bool,
    /// Give up a sector's unsealed copy once it is sealed; the slots of deals stay, and `proofs unseal` reads from replicas
    #[arg(long, requires = "seal")]
    pub seal_drop_unsealed: bool,
    /// The folder of parameters [default: ~/.local/share/holdfast-parameters]
    #[arg(long, value_name = "DIR", requires = "seal")]
    pub parameters: Option<PathBuf>,
}

fn parse_metrics(text: &str) -> Result<Change<SocketAddr>, String> {
    if text == "off" { Ok(Change::Off) } else { metrics::parse_address(text).map(Change::On) }
}
