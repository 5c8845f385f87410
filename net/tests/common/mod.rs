//! Two nodes in one process, over loopback.
#![allow(clippy::unwrap_used, dead_code)]

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use holdfast_net::client::AuditSpec;
use holdfast_net::deal::{DEAL_SUITE, DEAL_VERSION, manifest_digest};
use holdfast_net::env::{Clock, SystemClock, SystemRng};
use holdfast_net::identity::keypair;
use holdfast_net::record::NumberedRecords;
use holdfast_net::settlement::NoSettlement;
use holdfast_net::{
    Client, ClientConfig, DealProposal, Discovery, Env, Manifest, Multiaddr, Node, NodeConfig, PeerAddrs,
    PeerId, Provider, ProviderConfig, Session, SignedManifest, SignedProposal, SigningKey,
};
use holdfast_proofs::{CommpHasher, PieceCid};
use tokio::task::JoinHandle;

/// A clock that tests may move.
#[derive(Default)]
pub struct TestClock {
    real: SystemClock,
    ahead_seconds: AtomicU64,
    up_seconds: AtomicU64,
}

impl TestClock {
    pub fn advance(&self, seconds: u64) {
        self.ahead_seconds.fetch_add(seconds, Ordering::SeqCst);
        self.up_seconds.fetch_add(seconds, Ordering::SeqCst);
    }

    /// The wall clock alone: what a wrong time server does.
    pub fn jump(&self, seconds: u64) {
        self.ahead_seconds.fetch_add(seconds, Ordering::SeqCst);
    }

    pub fn jump_back(&self, seconds: u64) {
        self.ahead_seconds.fetch_sub(seconds, Ordering::SeqCst);
    }
}

impl Clock for TestClock {
    fn unix_seconds(&self) -> u64 {
        self.real.unix_seconds() + self.ahead_seconds.load(Ordering::SeqCst)
    }

    fn monotonic_ms(&self) -> u64 {
        self.real.monotonic_ms() + self.up_seconds.load(Ordering::SeqCst) * 1000
    }
}

pub struct Running {
    pub provider: Provider,
    pub node: Node,
    pub clock: Arc<TestClock>,
    task: JoinHandle<()>,
}

pub fn loopback() -> Multiaddr {
    "/ip4/127.0.0.1/tcp/0".parse().unwrap()
}

pub fn config() -> ProviderConfig {
    let mut config = ProviderConfig::with_capacity(1 << 30);
    config.disk_reserve_bytes = 0;
    config
}

impl Running {
    pub async fn start(dir: &Path) -> Running {
        Running::with(dir, 7, loopback(), config(), Arc::default()).await
    }

    pub async fn with(
        dir: &Path,
        seed: u8,
        listen: Multiaddr,
        config: ProviderConfig,
        clock: Arc<TestClock>,
    ) -> Running {
        Running::finding(dir, seed, vec![listen], Discovery::default(), config, clock).await
    }

    pub async fn finding(
        dir: &Path,
        seed: u8,
        listen: Vec<Multiaddr>,
        discovery: Discovery,
        config: ProviderConfig,
        clock: Arc<TestClock>,
    ) -> Running {
        let node = NodeConfig::listening(keypair([seed; 32]).unwrap(), listen).with_discovery(discovery);
        let node = Node::start(node).await.unwrap();
        let env = Env { clock: clock.clone(), rng: Arc::new(SystemRng) };
        // A write that the one before had begun holds the folder until it is done.
        let mut attempts = 0;
        let provider = loop {
            let (config, env) = (config.clone(), env.clone());
            let records = Arc::new(NumberedRecords);
            match Provider::open(dir, config, node.clone(), env, records, Arc::new(NoSettlement)).await {
                Err(error) if attempts < 100 && error.to_string().contains("another provider") => {
                    attempts += 1;
                    tokio::time::sleep(std::time::Duration::from_millis(100)).await;
                }
                opened => break opened.unwrap(),
            }
        };
        let runner = provider.clone();
        let task = tokio::spawn(async move { runner.run().await.unwrap() });
        Running { provider, node, clock, task }
    }

    pub fn peer(&self) -> PeerId {
        self.node.peer_id()
    }

    pub fn addr(&self) -> Multiaddr {
        self.whereabouts().addrs.remove(0)
    }

    /// All its addresses, TCP first.
    pub fn whereabouts(&self) -> PeerAddrs {
        let mut known = PeerAddrs::new(self.peer(), self.node.listeners());
        known.addrs.sort_by_key(holdfast_net::addresses::way);
        known
    }

    /// Everything ends; the folder is free soon after.
    pub async fn stop(self) {
        self.provider.stop();
        self.node.shutdown().await;
        self.task.await.unwrap();
    }
}

pub async fn client() -> Client {
    let node = Node::start(NodeConfig::client(keypair(rand32()).unwrap())).await.unwrap();
    Client::new(node, Env::system(), ClientConfig::default())
}

pub fn rand32() -> [u8; 32] {
    let mut out = [0; 32];
    holdfast_net::Rng::fill(&SystemRng, &mut out);
    out
}

pub fn key(seed: u8) -> SigningKey {
    SigningKey::from_bytes(&[seed; 32])
}

pub async fn session(client: &Client, running: &Running, key: &SigningKey) -> Session {
    let session = client.connect(running.peer(), vec![running.addr()]).await.unwrap();
    session.authenticate(key.clone()).await.unwrap();
    session
}

/// A slot with its deal.
pub struct Slot {
    pub bytes: Bytes,
    pub piece: PieceCid,
    pub proposal: SignedProposal,
    pub manifest: SignedManifest,
}

impl Slot {
    pub fn new(len: usize, seed: u8, key: &SigningKey, provider: PeerId) -> Slot {
        Slot::lasting(len, seed, key, provider, 86_400)
    }

    pub fn lasting(len: usize, seed: u8, key: &SigningKey, provider: PeerId, seconds: u64) -> Slot {
        let bytes = noise(len, seed);
        let mut hasher = CommpHasher::new();
        hasher.update(&bytes);
        let piece = hasher.finish();
        Slot::named(bytes, piece, seed, key, provider, seconds)
    }

    pub fn named(
        bytes: Bytes,
        piece: PieceCid,
        seed: u8,
        key: &SigningKey,
        provider: PeerId,
        seconds: u64,
    ) -> Slot {
        let signer = key.verifying_key().to_bytes();
        let cid = piece.to_cid().unwrap();
        let len = bytes.len() as u64;
        let manifest = Manifest::replicas([seed; 16], len, vec![cid], signer).sign(key).unwrap();
        let now = SystemClock::new().unix_seconds();
        let proposal = DealProposal {
            version: DEAL_VERSION,
            suite: DEAL_SUITE,
            client: signer,
            provider: provider.to_bytes(),
            piece_cid: cid,
            raw_len: len,
            manifest: manifest_digest(manifest.as_bytes()),
            start: now,
            end: now + seconds,
            price: vec![],
            settlement: 0,
            settlement_data: vec![],
            nonce: [seed; 16],
        }
        .sign(key)
        .unwrap();
        Slot { bytes, piece, proposal, manifest }
    }

    pub fn audit(&self) -> AuditSpec {
        AuditSpec { piece: self.piece, count: 24, epoch: 0, record: None }
    }

    pub async fn store(&self, session: &Session) -> holdfast_net::SignedReceipt {
        session.propose(&self.proposal, self.manifest.as_bytes()).await.unwrap();
        session.push(&self.proposal, Arc::new(self.bytes.clone()), |_| {}).await.unwrap()
    }
}

/// Bytes that look random and are the same each time.
pub fn noise(len: usize, seed: u8) -> Bytes {
    let mut buf = vec![0; len];
    let seed = holdfast_net::mask::SlotSeed::from_bytes([seed; 32]);
    holdfast_net::mask::apply(&seed, 0, &mut buf).unwrap();
    Bytes::from(buf)
}

pub const SOON: Duration = Duration::from_secs(20);
