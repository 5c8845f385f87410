//! A provider: a folder, a node, and the net room's `Provider` between them.
//!
//! ```text
//!   DIR/ 0700
//!     config         JSON: version, capacity, what one drive may store, addresses to listen at
//!     identity       the provider's key (net)         slots/ deals/ records/   what it stores (net)
//!     provider.lock, provider.pid, address, provider.log
//! ```
//!
//! Owns: the folder's configuration and its life. Promises: one process for each folder; the same identity and port after
//! each restart; what was receipted is there after any crash (net's promise). Refuses a folder of a newer format, and a
//! folder that holds something else.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use holdfast_net::{
    Env, Multiaddr, identity,
    node::{Node, NodeConfig},
    provider::{Provider, ProviderConfig},
    settlement::NoSettlement,
    tags::Tags,
};
use libp2p::multiaddr::Protocol;
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use crate::{
    home::{HomeError, LockGuard, ProviderAddr, create_private_dir, write_atomically},
    local_network::{ADDRESS_FILE, LOG_FILE, PID_FILE},
    process::ProcessRecord,
    prover,
    records::DriveRecords,
    sealing::{SealConfig, Sealer, SealingError},
};

const CONFIG_FILE: &str = "config";
/// Not `lock`: that is the net room's, for the slots.
const LOCK_FILE: &str = "provider.lock";
const IDENTITY_FILE: &str = "identity";
const CONFIG_VERSION: u64 = 1;
const CAPACITY_DEFAULT: u64 = 100 << 30;
const LISTEN_DEFAULT: &str = "/ip4/0.0.0.0/tcp/0";
/// After a signal, what is being received may finish for this long.
const STOP_SECONDS_MAX: u64 = 10;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct FolderConfig {
    version: u64,
    capacity_bytes: u64,
    /// What one drive may store; without it, as much as there is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    client_bytes_max: Option<u64>,
    listen: Vec<String>,
    /// Where it belongs, for its clients.
    #[serde(default, skip_serializing_if = "Tags::is_empty")]
    tags: Tags,
    /// How its pieces are sealed; without it, they are not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    seal: Option<SealConfig>,
}

/// Why a provider does not start.
#[derive(Debug, thiserror::Error)]
pub enum ProvideError {
    #[error("the folder {} is being provided already, by process {pid}", .dir.display())]
    InUse { dir: PathBuf, pid: u32 },
    #[error("`{0}` is not an address to listen at; one looks like /ip4/0.0.0.0/tcp/4001")]
    Address(String),
    #[error("a tag has 1 to {} bytes, and no control characters", holdfast_net::tags::TAG_BYTES_MAX)]
    Tags,
    #[error("cannot listen at {addrs}: {reason}")]
    Listen { addrs: String, reason: String, port_in_use: bool },
    #[error(transparent)]
    Prover(#[from] crate::prover::Missing),
    #[error(transparent)]
    Sealing(#[from] SealingError),
    #[error(transparent)]
    Folder(#[from] HomeError),
    #[error("{0}")]
    Net(#[from] holdfast_net::NetError),
    #[error(transparent)]
    Io(#[from] std::io::Error),
}

/// A provider's folder, taken by this process.
pub struct Folder {
    dir: PathBuf,
    config: FolderConfig,
    listen: Vec<Multiaddr>,
    _lock: LockGuard,
}

/// What a provider says once it listens.
#[derive(Debug, Clone, Serialize)]
pub struct Started {
    pub dir: PathBuf,
    pub pid: u32,
    pub address: ProviderAddr,
    pub capacity_bytes: u64,
    /// The profile that pieces are sealed at.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seal: Option<String>,
}

/// What is to become of a folder's sealing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SealChange {
    Keep,
    Off,
    On(SealConfig),
}

impl Folder {
    /// Opens or makes the folder; what is given here is remembered in it.
    pub fn open(
        dir: &Path,
        capacity: Option<u64>,
        client_quota: Option<u64>,
        listen: &[String],
        tags: &Tags,
        seal: SealChange,
    ) -> Result<Folder, ProvideError> {
        create_private_dir(dir)?;
        let dir = dir.canonicalize().map_err(|error| HomeError::io("open", dir, error))?;
        let path = dir.join(CONFIG_FILE);
        let known = read_config(&dir, &path)?;
        let lock = LockGuard::take(&dir.join(LOCK_FILE)).map_err(|error| match error {
            HomeError::InUse { path, pid } => ProvideError::InUse { dir: path, pid },
            other => other.into(),
        })?;
        let mut config = known.clone().unwrap_or(FolderConfig {
            version: CONFIG_VERSION,
            capacity_bytes: CAPACITY_DEFAULT,
            client_bytes_max: None,
            listen: vec![LISTEN_DEFAULT.to_owned()],
            tags: Tags::default(),
            seal: None,
        });
        if !tags.is_empty() {
            config.tags = tags.clone();
        }
        if !config.tags.is_valid() {
            return Err(ProvideError::Tags);
        }
        match seal {
            SealChange::Keep => {}
            SealChange::Off => config.seal = None,
            SealChange::On(seal) => config.seal = Some(seal),
        }
        config.capacity_bytes = capacity.unwrap_or(config.capacity_bytes);
        config.client_bytes_max = client_quota.or(config.client_bytes_max);
        if !listen.is_empty() {
            config.listen = listen.to_vec();
        }
        let listen = parse_listen(&config.listen)?;
        let folder = Folder { dir, config, listen, _lock: lock };
        if known.as_ref() != Some(&folder.config) {
            folder.write_config()?;
        }
        Ok(folder)
    }

    fn write_config(&self) -> Result<(), ProvideError> {
        let mut bytes = serde_json::to_vec_pretty(&self.config).map_err(std::io::Error::from)?;
        bytes.push(b'\n');
        Ok(write_atomically(&self.dir.join(CONFIG_FILE), &bytes)?)
    }

    /// A port that the system drew is kept: drives remember the address.
    fn keep_ports(&mut self, bound: &[Multiaddr]) -> Result<(), ProvideError> {
        let mut changed = false;
        for (text, wanted) in self.config.listen.iter_mut().zip(&self.listen) {
            if tcp_port(wanted) != Some(0) {
                continue;
            }
            let same_kind = |b: &&Multiaddr| wildcard_matches(wanted, b);
            if let Some(port) = bound.iter().find(same_kind).and_then(tcp_port) {
                let with_port =
                    wanted.iter().map(|p| if let Protocol::Tcp(0) = p { Protocol::Tcp(port) } else { p });
                *text = with_port.collect::<Multiaddr>().to_string();
                changed = true;
            }
        }
        if changed { self.write_config() } else { Ok(()) }
    }
}

/// Serves until `shutdown`; `announce` is called once, when it listens. `program` is this one: the prover may be beside it.
pub async fn run(
    mut folder: Folder,
    shutdown: CancellationToken,
    program: Option<&Path>,
    announce: impl FnOnce(&Started),
) -> Result<(), ProvideError> {
    let env = Env::system();
    let key = identity::load_or_create(&folder.dir.join(IDENTITY_FILE), &env)?;
    check_ports_free(&folder)?;
    let node = Node::start(NodeConfig::listening(key, folder.listen.clone()))
        .await
        .map_err(|error| listen_failed(&folder, &error))?;
    let bound = node.listeners();
    folder.keep_ports(&bound)?;
    let mut config = ProviderConfig::with_capacity(folder.config.capacity_bytes);
    config.tags = folder.config.tags.clone();
    config.limits.key_bytes_max = folder.config.client_bytes_max.unwrap_or(config.limits.key_bytes_max);
    let sealer = match folder.config.seal.clone() {
        None => None,
        Some(seal) => {
            let prover = prover::find(program, std::env::var_os("PATH").as_deref())?;
            let sealer = Sealer::new(prover, &folder.dir, seal, &node.peer_id().to_bytes());
            config.gate = sealer.gate();
            Some(sealer)
        }
    };
    let (rules, settlement) = (Arc::new(DriveRecords), Arc::new(NoSettlement));
    let provider = Provider::open(&folder.dir, config, node.clone(), env, rules, settlement).await?;

    let sealing = match sealer {
        None => None,
        Some(sealer) => Some(begin_sealing(sealer, &provider, &shutdown).await?),
    };

    let address = ProviderAddr::new(node.peer_id(), &reachable(bound));
    write_atomically(
        &folder.dir.join(ADDRESS_FILE),
        &serde_json::to_vec(&address).map_err(std::io::Error::from)?,
    )?;
    let record = ProcessRecord::of_this_process()?;
    record.write(&folder.dir.join(PID_FILE))?;
    let started = Started {
        dir: folder.dir.clone(),
        pid: record.pid,
        address,
        capacity_bytes: folder.config.capacity_bytes,
        seal: folder.config.seal.as_ref().map(|seal| seal.profile.clone()),
    };
    tracing::info!(peer = %node.peer_id(), "providing");

    let serving = provider.run();
    tokio::pin!(serving);
    let served = tokio::select! {
        served = async { announce(&started); (&mut serving).await } => served,
        () = shutdown.cancelled() => {
            provider.stop();
            // What is being received may finish; what does not is resumed by its client.
            tokio::time::timeout(Duration::from_secs(STOP_SECONDS_MAX), serving).await.unwrap_or(Ok(()))
        }
    };
    if let Some((sealing, stop)) = sealing {
        stop.cancel();
        let _ = sealing.await;
    }
    node.shutdown().await;
    let _ = fs::remove_file(folder.dir.join(PID_FILE));
    tracing::info!("stopped");
    Ok(served?)
}

/// Starts the prover and waits for its first word: what it refuses is told before anybody is served.
async fn begin_sealing(
    sealer: Sealer,
    provider: &Provider,
    shutdown: &CancellationToken,
) -> Result<(tokio::task::JoinHandle<()>, CancellationToken), ProvideError> {
    let stop = shutdown.child_token();
    let (tell, began) = tokio::sync::oneshot::channel();
    let task = tokio::spawn(sealer.run(provider.clone(), stop.clone(), tell));
    // Nobody tells where the shutdown came first.
    began.await.unwrap_or(Ok(()))?;
    Ok((task, stop))
}

fn read_config(dir: &Path, path: &Path) -> Result<Option<FolderConfig>, HomeError> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return check_new(dir).map(|()| None),
        Err(error) => return Err(HomeError::io("read", path, error)),
    };
    parse_config(&bytes, path).map(Some)
}

/// From the file's bytes; `path` is for messages.
pub(crate) fn parse_config(bytes: &[u8], path: &Path) -> Result<FolderConfig, HomeError> {
    let damaged = |reason: String| HomeError::Damaged { path: path.to_owned(), reason };
    let value: serde_json::Value = serde_json::from_slice(bytes).map_err(|e| damaged(e.to_string()))?;
    match value.get("version").and_then(serde_json::Value::as_u64) {
        Some(found) if found > CONFIG_VERSION => {
            Err(HomeError::NewerFormat { path: path.to_owned(), found, known: CONFIG_VERSION })
        }
        _ => serde_json::from_value(value).map_err(|e| damaged(e.to_string())),
    }
}

/// A folder without a configuration must be empty, but for what an earlier start may have left.
fn check_new(dir: &Path) -> Result<(), HomeError> {
    let ours = [LOG_FILE, LOCK_FILE, "config.new", IDENTITY_FILE];
    for entry in fs::read_dir(dir).map_err(|error| HomeError::io("read", dir, error))? {
        let name = entry.map_err(|error| HomeError::io("read", dir, error))?.file_name();
        if !ours.iter().any(|known| name == *known) {
            return Err(HomeError::NotEmpty(dir.to_owned()));
        }
    }
    Ok(())
}

fn parse_listen(texts: &[String]) -> Result<Vec<Multiaddr>, ProvideError> {
    let parse = |text: &String| {
        let addr = text.parse::<Multiaddr>().ok().filter(|addr| tcp_port(addr).is_some());
        addr.ok_or_else(|| ProvideError::Address(text.clone()))
    };
    texts.iter().map(parse).collect()
}

/// libp2p shares ports on purpose (SO_REUSEPORT), so two providers of one user would listen at the same one and each get
/// half of the connections. A plain bind tells.
fn check_ports_free(folder: &Folder) -> Result<(), ProvideError> {
    for addr in &folder.listen {
        let ip: std::net::IpAddr = match addr.iter().next() {
            Some(Protocol::Ip4(ip)) => ip.into(),
            Some(Protocol::Ip6(ip)) => ip.into(),
            _ => continue,
        };
        let Some(port) = tcp_port(addr).filter(|port| *port != 0) else { continue };
        if let Err(error) = std::net::TcpListener::bind((ip, port)) {
            let port_in_use = error.kind() == std::io::ErrorKind::AddrInUse;
            return Err(ProvideError::Listen {
                addrs: addr.to_string(),
                reason: error.to_string(),
                port_in_use,
            });
        }
    }
    Ok(())
}

fn tcp_port(addr: &Multiaddr) -> Option<u16> {
    addr.iter().find_map(|p| if let Protocol::Tcp(port) = p { Some(port) } else { None })
}

/// Whether a bound address came from this wish: the same family and, unless the wish is a wildcard, the same host.
fn wildcard_matches(wanted: &Multiaddr, bound: &Multiaddr) -> bool {
    match (wanted.iter().next(), bound.iter().next()) {
        (Some(Protocol::Ip4(w)), Some(Protocol::Ip4(b))) => w.is_unspecified() || w == b,
        (Some(Protocol::Ip6(w)), Some(Protocol::Ip6(b))) => w.is_unspecified() || w == b,
        _ => false,
    }
}

/// Loopback last: what people copy should work from elsewhere where it can.
fn reachable(mut bound: Vec<Multiaddr>) -> Vec<Multiaddr> {
    bound.sort_by_key(|addr| match addr.iter().next() {
        Some(Protocol::Ip4(ip)) => ip.is_loopback(),
        Some(Protocol::Ip6(ip)) => ip.is_loopback(),
        _ => false,
    });
    bound
}

fn listen_failed(folder: &Folder, error: &holdfast_net::NetError) -> ProvideError {
    let reason = error.to_string();
    let port_in_use = reason.to_lowercase().contains("in use");
    ProvideError::Listen { addrs: folder.config.listen.join(", "), reason, port_in_use }
}
