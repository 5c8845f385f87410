//! `holdfast get`: fetches what is public, from peers by Bitswap and from gateways by HTTP, on any machine.
//!
//! Promises: every block is hashed before a byte of it is used, so that it does not matter who sends it; several sources are used at
//! once, those that fail come last; memory holds a bounded number of blocks; under the wanted name appears what is whole, or nothing. What
//! an attempt that failed or was killed has fetched is gone on with (`plain::begun`).

mod http;

use std::collections::{HashMap, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use cid::Cid;
use futures::StreamExt;
use holdfast_content::block::{Block, CODEC_DAG_PB};
use holdfast_content::plain::node::Node;
use holdfast_content::plain::walk::resolve;
use holdfast_content::plain::{Blocks, PlainError};
use holdfast_net::bitswap::{BitswapClient, FetchError};
use holdfast_net::{Env, PeerId, identity, node::Node as NetNode, node::NodeConfig};
use parking_lot::Mutex;
use serde::Serialize;
use tokio::runtime::Handle;
use tokio::task::JoinHandle;

use crate::control::render::size;
use crate::home::ProviderAddr;
use crate::link::Link;
use crate::plain::begun::Begun;
use crate::plain::car::words;
use crate::plain::write::write_begun;
use crate::plain::{Counted, Done, TreeError};

pub use http::HttpGateway;

/// Connecting to a source.
const CONNECT: Duration = Duration::from_secs(15);
/// One block from one source.
const PATIENCE: Duration = Duration::from_secs(20);
/// Blocks that are fetched ahead.
const AHEAD_MAX: usize = 24;
/// Blocks that are remembered: a file of zeros is one of them, many times.
const REMEMBERED: usize = 32;
/// All sources are tried so often.
const ROUNDS: usize = 2;

/// `holdfast get --json`.
#[derive(Debug, Clone, Serialize)]
pub struct GetReport {
    pub root: String,
    pub path: PathBuf,
    #[serde(flatten)]
    pub counted: Counted,
    /// Who gave how many blocks.
    pub sources: Vec<SourceReport>,
}

#[derive(Debug, Clone, Serialize)]
pub struct SourceReport {
    pub source: String,
    pub blocks: u64,
}

impl GetReport {
    pub fn render(&self) -> String {
        let (bytes, what) = (size(self.counted.bytes), words(&self.counted));
        let mut out = format!("{bytes} of {what} in {}\n", self.path.display());
        for source in self.sources.iter().filter(|source| source.blocks > 0) {
            out.push_str(&format!("  {} blocks from {}\n", source.blocks, source.source));
        }
        out
    }
}

/// Why nothing was fetched.
#[derive(Debug, thiserror::Error)]
pub enum GetError {
    #[error("nobody is named who has it")]
    NoSource,
    #[error("none of those who are named can be reached: {0}")]
    Unreachable(String),
    #[error("`{0}` is not the URL of a gateway; one looks like http://127.0.0.1:8080")]
    Url(String),
    #[error("{0}")]
    Net(#[from] holdfast_net::NetError),
    #[error(transparent)]
    Tree(#[from] TreeError),
}

/// No source gave a block; why, as they said.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct SourcesFailed(String);

/// Fetches what a link names to `out`, which must not be there yet.
pub fn get(
    runtime: &tokio::runtime::Runtime,
    link: &Link,
    peers: &[ProviderAddr],
    gateways: &[String],
    out: &Path,
    done: &mut Done<'_>,
) -> Result<GetReport, GetError> {
    if out.symlink_metadata().is_ok() {
        return Err(TreeError::Exists(out.to_owned()).into());
    }
    let mut all = link.at.clone();
    ProviderAddr::merge(&mut all, peers.iter().cloned());
    let fetcher = runtime.block_on(Fetcher::connect(&all, gateways))?;
    let names = link.path.iter().map(String::as_str);
    let found = resolve(&fetcher, &link.root, names).map_err(TreeError::dag(out))?;
    let begun = Begun::lasting(out, &found.cid.to_bytes())?;
    let counted = write_begun(&fetcher, &found.cid, out, begun, done)?;
    let report = GetReport {
        root: found.cid.to_string(),
        path: out.to_owned(),
        counted,
        sources: fetcher.shared.sources.iter().map(Source::report).collect(),
    };
    if let Some(node) = &fetcher.node {
        runtime.block_on(node.shutdown());
    }
    Ok(report)
}

enum Way {
    Peer(BitswapClient, PeerId),
    Gateway(HttpGateway),
}

struct Source {
    name: String,
    way: Way,
    blocks: AtomicU64,
    failures: AtomicU64,
}

impl Source {
    fn report(&self) -> SourceReport {
        SourceReport { source: self.name.clone(), blocks: self.blocks.load(Ordering::Relaxed) }
    }

    /// A block's bytes; nothing when the source says that it does not have it.
    async fn fetch(&self, cid: &Cid) -> Result<Option<Bytes>, String> {
        match &self.way {
            Way::Peer(client, peer) => match client.fetch(*peer, *cid, PATIENCE).await {
                Ok(bytes) => Ok(Some(bytes)),
                Err(FetchError::NotThere) => Ok(None),
                Err(error) => Err(error.to_string()),
            },
            Way::Gateway(gateway) => match tokio::time::timeout(PATIENCE, gateway.fetch(cid)).await {
                Ok(fetched) => fetched,
                Err(_) => Err("no answer in time".to_owned()),
            },
        }
    }
}

struct Shared {
    sources: Vec<Source>,
    turn: AtomicU64,
}

/// Blocks from several sources.
struct Fetcher {
    handle: Handle,
    shared: Arc<Shared>,
    node: Option<NetNode>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    ahead: HashMap<Cid, JoinHandle<Result<Block, PlainError>>>,
    remembered: VecDeque<Block>,
}

impl Fetcher {
    async fn connect(peers: &[ProviderAddr], gateways: &[String]) -> Result<Fetcher, GetError> {
        let mut sources = Vec::new();
        let mut failed = Vec::new();
        let source = |name, way| Source { name, way, blocks: AtomicU64::new(0), failures: AtomicU64::new(0) };
        for url in gateways {
            let gateway = HttpGateway::new(url).ok_or_else(|| GetError::Url(url.clone()))?;
            sources.push(source(url.clone(), Way::Gateway(gateway)));
        }
        let mut node = None;
        if !peers.is_empty() {
            let mut seed = [0; 32];
            Env::system().rng.fill(&mut seed);
            let started = NetNode::start(NodeConfig::foreign_client(identity::keypair(seed)?)).await?;
            let client = BitswapClient::new(started.clone())?;
            let dialing = peers.iter().map(|peer| {
                let client = client.clone();
                async move {
                    let dialed = match peer.parts() {
                        Ok((id, addrs)) => {
                            let dialed = client.connect(id, &addrs, CONNECT).await;
                            dialed.map(|()| id).map_err(|error| error.to_string())
                        }
                        Err(error) => Err(error.to_string()),
                    };
                    (peer, dialed)
                }
            });
            let dialed: Vec<_> = futures::stream::iter(dialing).buffered(16).collect().await;
            for (peer, dialed) in dialed {
                match dialed {
                    Ok(id) => sources.push(source(peer.to_string(), Way::Peer(client.clone(), id))),
                    Err(error) => failed.push(format!("{peer}: {error}")),
                }
            }
            node = Some(started);
        }
        match (sources.is_empty(), failed.is_empty()) {
            (true, true) => Err(GetError::NoSource),
            (true, false) => Err(GetError::Unreachable(failed.join("; "))),
            (false, _) => {
                let shared = Arc::new(Shared { sources, turn: AtomicU64::new(0) });
                Ok(Fetcher { handle: Handle::current(), shared, node, state: Mutex::default() })
            }
        }
    }

    /// Begins to fetch what a node links, as far as there is room.
    fn look_ahead(&self, block: &Block) {
        if block.cid().codec() != CODEC_DAG_PB {
            return;
        }
        let Ok(node) = Node::decode(block.cid(), block.bytes().clone()) else { return };
        let mut state = self.state.lock();
        for link in node.links() {
            let Ok(cid) = holdfast_content::block::as_v1(&link) else { continue };
            if state.ahead.len() >= AHEAD_MAX {
                return;
            }
            if state.ahead.contains_key(&cid) || state.remembered.iter().any(|block| *block.cid() == cid) {
                continue;
            }
            let shared = self.shared.clone();
            let task = self.handle.spawn(async move { shared.fetch(&cid).await });
            state.ahead.insert(cid, task);
        }
    }
}

impl Drop for Fetcher {
    fn drop(&mut self) {
        self.state.lock().ahead.values().for_each(JoinHandle::abort);
    }
}

impl Shared {
    /// Asks one source after the other, those that failed least first, and those that are equal in turn.
    async fn fetch(&self, cid: &Cid) -> Result<Block, PlainError> {
        let mut said = Vec::new();
        for _ in 0..ROUNDS {
            let turn = self.turn.fetch_add(1, Ordering::Relaxed) as usize;
            let count = self.sources.len();
            let mut order: Vec<&Source> =
                (0..count).filter_map(|n| self.sources.get((n + turn) % count)).collect();
            order.sort_by_key(|source| source.failures.load(Ordering::Relaxed));
            said.clear();
            for source in order {
                match source.fetch(cid).await {
                    Ok(Some(bytes)) => match Block::verify(*cid, bytes) {
                        Ok(block) => {
                            source.blocks.fetch_add(1, Ordering::Relaxed);
                            return Ok(block);
                        }
                        Err(error) => {
                            source.failures.fetch_add(10, Ordering::Relaxed);
                            said.push(format!("{}: {error}", source.name));
                        }
                    },
                    Ok(None) => {}
                    Err(error) => {
                        source.failures.fetch_add(1, Ordering::Relaxed);
                        said.push(format!("{}: {error}", source.name));
                    }
                }
            }
            // Everybody answered, and nobody has it.
            if said.is_empty() {
                return Err(PlainError::Missing(*cid));
            }
        }
        Err(PlainError::Other(Box::new(SourcesFailed(format!("block {cid}: {}", said.join("; "))))))
    }
}

impl Blocks for Fetcher {
    fn block(&self, cid: &Cid) -> Result<Block, PlainError> {
        let (known, task) = {
            let mut state = self.state.lock();
            (state.remembered.iter().find(|block| block.cid() == cid).cloned(), state.ahead.remove(cid))
        };
        if let Some(block) = known {
            return Ok(block);
        }
        let fetched = match task {
            Some(task) => self.handle.block_on(task).map_err(|error| PlainError::Other(Box::new(error)))?,
            None => self.handle.block_on(self.shared.fetch(cid)),
        };
        let block = fetched?;
        self.look_ahead(&block);
        let mut state = self.state.lock();
        if state.remembered.len() >= REMEMBERED {
            state.remembered.pop_front();
        }
        state.remembered.push_back(block.clone());
        Ok(block)
    }
}
