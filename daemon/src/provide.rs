//! A provider: a folder, a node, and the net room's `Provider` between them.
//!
//! ```text
//!   DIR/ 0700
//!     config         JSON: version, capacity, what one drive may store, addresses to listen at, peers to begin with, sealing,
//!                    metrics
//!     identity       the provider's key (net)         slots/ deals/ records/   what it stores (net)
//!     peers          peers of the DHT that it knew last
//!     public/        where public blocks lie in their slots (gateway)
//!     provider.lock, provider.pid, address, provider.log
//!     control.sock   while it runs: answers `holdfast status`
//! ```
//!
//! Owns: the folder's configuration and its life. Promises: one process for each folder; the same identity and port after
//! each restart; what was receipted is there after any crash (net's promise). Refuses a folder of a newer format, and a
//! folder that holds something else.

mod desk;
mod folder;
mod known_peers;
mod listen;
mod lists;

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use holdfast_net::{
    Env,
    bitswap::{self, BITSWAP_PROTOCOL, ServerLimits},
    identity,
    node::{Node, NodeConfig},
    provider::Provider,
    settlement::NoSettlement,
    upnp,
};
use serde::Serialize;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    control,
    gateway::{Gateway, PublicIndex, server::GatewayLimits},
    home::{HomeError, ProviderAddr, write_atomically},
    local_network::{ADDRESS_FILE, PID_FILE},
    metrics::{Endpoint, MetricsError},
    process::ProcessRecord,
    prover,
    records::DriveRecords,
    sealing::{Sealer, SealingError},
};

use desk::Desk;
use folder::IDENTITY_FILE;
pub(crate) use folder::parse_config;
pub use folder::{Change, Folder, Wishes, capacity_of, is_provider, socket_path};
pub(crate) use known_peers::parse as parse_known_peers;
pub use listen::LISTEN_LOOPBACK;

/// After a signal, what is being received may finish for this long.
const STOP_SECONDS_MAX: u64 = 10;
/// A router that does not answer keeps nobody from ending: its mappings run out.
const UNMAP_TIMEOUT: Duration = Duration::from_secs(2);

/// Why a provider does not start.
#[derive(Debug, thiserror::Error)]
pub enum ProvideError {
    #[error("the folder {} is being provided already, by process {pid}", .dir.display())]
    InUse { dir: PathBuf, pid: u32 },
    #[error(
        "`{0}` is not an address to listen at; one looks like /ip4/0.0.0.0/tcp/4001 or /ip4/0.0.0.0/udp/4001/quic-v1"
    )]
    Address(String),
    #[error("a tag has 1 to {} bytes, and no control characters", holdfast_net::tags::TAG_BYTES_MAX)]
    Tags,
    #[error("the list {}: {reason}", .path.display())]
    List { path: PathBuf, reason: String },
    #[error("cannot listen at {addrs}: {reason}")]
    Listen { addrs: String, reason: String, port_in_use: bool },
    #[error(transparent)]
    Metrics(#[from] MetricsError),
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
    /// Where its metrics are read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metrics: Option<String>,
    /// Where public blocks are given by HTTP.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gateway: Option<String>,
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
    listen::check_ports_free(&folder.listen)?;
    let lists = folder.lists()?;
    let discovery = folder.discovery();
    let nat = discovery.nat;
    let config = NodeConfig::listening(key, folder.listen.clone()).with_discovery(discovery).with_bitswap();
    let node = Node::start(config).await.map_err(|error| listen_failed(&folder, &error))?;
    let bound = node.listeners();
    folder.keep_ports(&bound);
    let metrics = match folder.metrics() {
        Some(address) => Some(Endpoint::bind(address).await?),
        None => None,
    };
    let mut config = folder.provider_config();
    let sealer = match folder.seal().cloned() {
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
    lists.apply(&provider, &node).await?;

    let view = sealer.as_ref().map(Sealer::view);
    let sealing = match sealer {
        None => None,
        Some(sealer) => Some(begin_sealing(sealer, &provider, &shutdown).await?),
    };
    let serving_public = ServingPublic::begin(&mut folder, &provider, &node, &shutdown).await?;
    folder.remember()?;

    let address = ProviderAddr::new(node.peer_id(), &listen::reachable(bound));
    let desk = Desk::new(&folder, &address, provider.clone(), view);
    let metrics = metrics.map(|listener| Endpoint::serve(listener, desk.page())).transpose()?;
    desk.set_metrics(metrics.as_ref().map(Endpoint::url));
    let socket = control::Server::start(&socket_path(&folder.dir), desk)?;
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
        capacity_bytes: folder.capacity_bytes(),
        seal: folder.seal().map(|seal| seal.profile.clone()),
        metrics: metrics.as_ref().map(Endpoint::url),
        gateway: serving_public.gateway.map(|address| format!("http://{address}")),
    };
    tracing::info!(peer = %node.peer_id(), "providing");

    let watching = tokio::spawn(lists.watch(provider.clone(), node.clone(), shutdown.clone()));
    let keeping = tokio::spawn(known_peers::keep(node.clone(), folder.dir.clone(), shutdown.clone()));
    let mapping = nat.then(|| tokio::spawn(upnp::keep(node.clone(), shutdown.clone())));
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
    serving_public.end().await;
    if let Some((sealing, stop)) = sealing {
        stop.cancel();
        let _ = sealing.await;
    }
    // Where the provider ended by itself nobody has told the other tasks.
    shutdown.cancel();
    let _ = (keeping.await, watching.await);
    if let Some(mapping) = mapping {
        let _ = tokio::time::timeout(UNMAP_TIMEOUT, mapping).await;
    }
    drop((socket, metrics));
    node.shutdown().await;
    let _ = fs::remove_file(folder.dir.join(PID_FILE));
    tracing::info!("stopped");
    Ok(served?)
}

/// Public blocks, given to anybody.
struct ServingPublic {
    tasks: TaskTracker,
    stop: CancellationToken,
    gateway: Option<SocketAddr>,
}

impl ServingPublic {
    /// Indexes public slots, and answers by Bitswap and, where it is wished, by HTTP.
    async fn begin(
        folder: &mut Folder,
        provider: &Provider,
        node: &Node,
        shutdown: &CancellationToken,
    ) -> Result<ServingPublic, ProvideError> {
        let (tasks, stop) = (TaskTracker::new(), shutdown.child_token());
        let index = PublicIndex::open(&folder.dir)?;
        tasks.spawn(index.clone().follow(provider.clone(), stop.clone()));
        if let Some(incoming) = node.take_incoming(BITSWAP_PROTOCOL) {
            let (blocks, limits) = (Arc::new(index.clone()), ServerLimits::default());
            tasks.spawn(bitswap::serve(node.streams(), incoming, blocks, limits, stop.clone()));
        }
        let mut listening = None;
        if let Some(wanted) = folder.gateway() {
            let refused = |error: std::io::Error| ProvideError::Listen {
                addrs: wanted.to_string(),
                port_in_use: error.kind() == std::io::ErrorKind::AddrInUse,
                reason: error.to_string(),
            };
            let gateway = Gateway::bind(wanted, index, GatewayLimits::default()).await.map_err(refused)?;
            let address = gateway.address()?;
            // A port that the system drew is kept, as the others are.
            if wanted != address {
                folder.keep_gateway(address);
            }
            tasks.spawn(gateway.run(stop.clone()));
            listening = Some(address);
        }
        tasks.close();
        Ok(ServingPublic { tasks, stop, gateway: listening })
    }

    async fn end(self) {
        self.stop.cancel();
        let _ = tokio::time::timeout(Duration::from_secs(STOP_SECONDS_MAX), self.tasks.wait()).await;
    }
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

fn listen_failed(folder: &Folder, error: &holdfast_net::NetError) -> ProvideError {
    let reason = error.to_string();
    let port_in_use = reason.to_lowercase().contains("in use");
    ProvideError::Listen { addrs: folder.addrs(), reason, port_in_use }
}
