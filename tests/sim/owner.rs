//! The owner's machine: a home that outlives processes, and the daemon that runs on it, made of the product's own parts.
//!
//! Log, index and pieces lie on media in memory that know what a crash leaves; the workers are all of those that
//! `holdfast mount` starts. Only the kernel's mount is not there: files are written by calling the file system.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use anyhow::{Context as _, Result};
use futures::future::BoxFuture;
use holdfast::drive::head::HeadState;
use holdfast::drive::ledger::{Ledger, RowError, RowStore};
use holdfast::drive::peers::Peers;
use holdfast::drive::policy::Policy;
use holdfast::drive::term::TermState;
use holdfast::drive::threads::Threads;
use holdfast::drive::{Engine, Parts, begin, start_workers};
use holdfast::handler::ProviderList;
use holdfast::home::ProviderAddr;
use holdfast::retrieve::{Fetched, NetRetriever, Seeds, Sources, Waits};
use holdfast::wiring::{JobRows, durability_of};
use holdfast_content::keys::{DriveKeys, Keyring, Mnemonic, RootKey};
use holdfast_fs::drive::types::DriveOptions;
use holdfast_fs::drive::{Ambient, Drive};
use holdfast_fs::vfs::{SystemTime, VfsOptions};
use holdfast_net::env::SystemClock;
use holdfast_net::{Client, ClientConfig, Env, SigningKey};
use holdfast_store::{CrashMedium, IndexKind, MemoryIndex, StoreKeys, StoreOptions};

use crate::carrier::SimCarrier;
use crate::machine::Dice;
use crate::planted::Bug;
use crate::world::{OWNER, World};

/// Polls of a fetch for which time stands still.
const LOOKS_MAX: usize = 64;
/// How often the log is synced and the index flushed, as a store's own threads do.
const TICK: Duration = Duration::from_secs(1);

/// The folders of a home, in memory.
#[derive(Clone, Default)]
pub struct Media {
    log: CrashMedium,
    index: MemoryIndex,
    pieces: CrashMedium,
}

impl Media {
    fn killed(&self) -> Media {
        Media { log: self.log.killed(), index: self.index.after_crash(), pieces: self.pieces.killed() }
    }

    fn power_cut(&self, seed: u64) -> Media {
        Media {
            log: self.log.power_cut(seed),
            index: self.index.after_crash(),
            pieces: self.pieces.power_cut(!seed),
        }
    }
}

/// What stays of the owner from process to process.
pub struct Home {
    seed: u64,
    world: Arc<World>,
    media: Media,
    folder: tempfile::TempDir,
    root: RootKey,
    keys: Arc<DriveKeys>,
    keyring: Vec<u8>,
    pub policy: Policy,
    pub chunk_log2: u8,
    pub piece_bytes_max: u64,
    starts: u64,
}

/// A running daemon.
pub struct Daemon {
    pub engine: Arc<Engine>,
    ticker: tokio::task::JoinHandle<()>,
    /// Commits of rows until the process is dead, if it is about to die.
    fuse: Arc<AtomicI64>,
}

impl Home {
    pub fn new(seed: u64, world: Arc<World>, policy: Policy) -> Result<Home> {
        let root = Mnemonic::from_entropy([(seed % 251) as u8; 32]).root_key();
        let keys = Arc::new(root.generation(1).keys());
        let keyring = Keyring::first(&root, crate::machine::BEGIN_SECONDS).sign(&root)?;
        let memory = std::path::Path::new("/dev/shm");
        let folder = match memory.is_dir() {
            true => tempfile::tempdir_in(memory)?,
            false => tempfile::tempdir()?,
        };
        Ok(Home {
            seed,
            world,
            media: Media::default(),
            folder,
            root,
            keys,
            keyring,
            policy,
            chunk_log2: 12,
            piece_bytes_max: 64 << 10,
            starts: 0,
        })
    }

    fn dice(&self, of: &str) -> Dice {
        Dice::new(self.seed, &format!("{of} {}", self.starts))
    }

    pub fn drive_options(&self) -> DriveOptions {
        DriveOptions {
            piece_bytes_max: self.piece_bytes_max,
            tree_cache_bytes_max: 1 << 20,
            chunk_cache_bytes_max: 1 << 20,
            compact_gain_bytes_min: 1 << 10,
            survive_losses: self.policy.survive_losses,
            device: [7; 16],
            readahead_threads: 0,
            seal_threads: 1,
            store: StoreOptions {
                log_segment_bytes: 1 << 20,
                first_segment_bytes: 256 << 10,
                data_segment_bytes: 4 << 20,
                ballast_bytes: 0,
                background: false,
                ..StoreOptions::default()
            },
            ..DriveOptions::default()
        }
    }

    pub fn ambient(&self) -> Ambient {
        Ambient {
            now: Arc::new(SystemTime),
            clock: Arc::new(holdfast_store::SystemClock::new()),
            store_rng: Arc::new(self.dice("store")),
            rng: Arc::new(self.dice("pieces")),
        }
    }

    pub fn vfs_options(&self) -> VfsOptions {
        VfsOptions {
            chunk_log2: self.chunk_log2,
            no_atime: true,
            no_dir_atime: true,
            ..VfsOptions::default()
        }
    }

    /// A process starts; `known`: who is listed in the configuration.
    pub fn start(&mut self, known: &[Vec<u8>]) -> Result<Daemon> {
        self.starts += 1;
        let life = self.world.state.lock().life(OWNER);
        let env = Env { clock: Arc::new(SystemClock::new()), rng: Arc::new(self.dice("daemon")) };
        let carrier = Arc::new(SimCarrier::new(self.world.clone(), OWNER)?);
        let client = Client::over(carrier, env.clone(), ClientConfig::default());
        let peers = Arc::new(Peers::new(client, self.keys.clone()));
        let retriever =
            Arc::new(NetRetriever::new(AtOnce(self.world.clone()), Seeds::Key(*self.keys.mask.as_bytes())));
        let home = holdfast_fs::drive::Home {
            log: Arc::new(self.media.log.clone()),
            index: IndexKind::Shared(self.media.index.clone()),
            pieces: Arc::new(self.media.pieces.clone()),
            disk: None,
        };
        let store_keys = StoreKeys { log: [1; 32], index: [2; 32] };
        let (options, vfs) = (self.drive_options(), self.vfs_options());
        let (keys, ambient) = (self.keys.clone(), self.ambient());
        let drive = Drive::open_on(home, keys, store_keys, options, vfs, retriever.clone(), ambient)?;
        let fuse = Arc::new(AtomicI64::new(i64::MAX));
        let rows =
            SimRows { inner: JobRows(drive.jobs()), world: self.world.clone(), life, fuse: fuse.clone() };
        let ledger = Arc::new(Ledger::open(Arc::new(rows))?);
        for peer in known {
            ledger.add_provider(peer.clone(), vec![ADDRESS.to_owned()], env.clock.unix_seconds())?;
        }
        retriever.join(Sources { ledger: ledger.clone(), peers: peers.clone() });
        let parts = Parts {
            head: HeadState::open(&ledger)?,
            term: TermState::open(&ledger)?,
            drive,
            ledger,
            peers,
            retriever,
            keys: self.keys.clone(),
            writer: SigningKey::from_bytes(&[3; 32]),
            only_read: false,
            policy: self.policy.clone(),
            env,
            home: self.folder.path().to_owned(),
            drive_name: "simulated".to_owned(),
            drive_key: *self.root.drive_name().as_bytes(),
            device: [7; 16],
            restored: None,
            threads: Threads::Caller,
        };
        let engine = begin(parts).context("a start of the daemon")?;
        engine.drive.set_durability_source(durability_of(&engine));
        start_workers(&engine, self.keyring.clone(), Arc::new(Nobody));
        let ticked = engine.drive.store().clone();
        let ticker = tokio::spawn(async move {
            loop {
                tokio::time::sleep(TICK).await;
                // A store that is closed, or turned read-only, says so to its users.
                let _ = ticked.tick();
            }
        });
        Ok(Daemon { engine, ticker, fuse })
    }

    /// The process is gone, from one instruction to the next; with the machine's power, if so.
    pub async fn crash(&mut self, daemon: Daemon, power: bool) {
        self.world.state.lock().dies(OWNER);
        self.media = match power {
            true => self.media.power_cut(self.world.dice.word()),
            false => self.media.killed(),
        };
        daemon.ticker.abort();
        // What is left of it is swept away; whatever it does meanwhile leads nowhere.
        daemon.engine.supervisor.stop(Duration::ZERO).await;
    }
}

impl Daemon {
    /// The process dies at the nth commit of rows from now: that one, and all later, are not made.
    pub fn doom(&self, commits: i64) {
        self.fuse.store(commits, Ordering::Relaxed);
    }
}

/// Where every provider is said to be; the model finds them by their names.
pub const ADDRESS: &str = "/ip4/10.0.0.1/tcp/4001";

/// Nobody edits the configuration here.
struct Nobody;

impl ProviderList for Nobody {
    fn add(&self, _: &ProviderAddr) -> Result<()> {
        Ok(())
    }
    fn remove(&self, _: &str) -> Result<()> {
        Ok(())
    }
    fn list(&self) -> Vec<ProviderAddr> {
        Vec::new()
    }
}

/// The ledger's rows, of a process that may die between two of them.
struct SimRows {
    inner: JobRows,
    world: Arc<World>,
    life: u64,
    fuse: Arc<AtomicI64>,
}

impl RowStore for SimRows {
    fn scan(&self, prefix: &[u8]) -> Result<Vec<(Vec<u8>, Vec<u8>)>, RowError> {
        self.inner.scan(prefix)
    }

    fn commit(&self, mut rows: Vec<(Vec<u8>, Option<Vec<u8>>)>) -> Result<(), RowError> {
        if self.world.state.lock().life(OWNER) != self.life || self.fuse.fetch_sub(1, Ordering::Relaxed) <= 0
        {
            return Err(RowError("the process is dead".into()));
        }
        if self.world.bug == Some(Bug::RowsForgotten) {
            rows.retain(|(key, _)| {
                !key.starts_with(b"piece/") || key.last().is_some_and(|byte| byte % 3 != 0)
            });
        }
        self.inner.commit(rows)
    }
}

/// Waits for a fetch without letting time go on: messages take none meanwhile. What would have to wait for another task is late.
struct AtOnce(Arc<World>);

impl Waits for AtOnce {
    fn wait(&self, fetch: BoxFuture<'_, Fetched>) -> Option<Fetched> {
        self.0.state.lock().immediate = true;
        let mut fetch = Box::pin(tokio::task::unconstrained(fetch));
        let mut context = Context::from_waker(Waker::noop());
        let mut looks = (0..LOOKS_MAX).map(|_| fetch.as_mut().poll(&mut context));
        let found = looks.find_map(|look| match look {
            Poll::Ready(found) => Some(found),
            Poll::Pending => None,
        });
        self.0.state.lock().immediate = false;
        found
    }
}
