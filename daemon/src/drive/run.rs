//! A drive's life in one process: open (or attach), mount, work, unmount, close.
//!
//! Promises: `ready` is called only when a program may write; on any way out the mount is gone, the workers have ended and
//! the log is synced and closed. Refuses to publish from a home that is known to be behind its drive.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use holdfast_content::head::HeadBody;
use holdfast_fs::drive::types::{DriveOptions, RestorePoint};
use holdfast_fs::drive::{Ambient, Drive};
use holdfast_fs::fuse::{self, MountError, MountHandle, MountOptions};
use holdfast_fs::vfs::VfsOptions;
use holdfast_net::addresses::ADDRS_MAX;
use holdfast_net::client::{Client, ClientConfig};
use holdfast_net::node::{Node, NodeConfig};
use holdfast_net::term::Standing;
use holdfast_net::{Env, Finder, PeerAddrs, SigningKey, identity};
use parking_lot::Mutex;
use serde_bytes::ByteBuf;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::head::{HeadState, Published};
use super::ledger::{Hearsay, Imported, Ledger, MemoryRows, ProviderRow, ProviderState};
use super::peers::Peers;
use super::policy::Policy;
use super::term::{self, TermState};
use super::threads::Threads;
use super::{Engine, Parts, takeover};
use crate::control::{
    self, ControlError, ControlHandler as _, ErrorKind, ProgressSink, RestoredReport, UnmountReport,
    VerifyReport,
};
use crate::handler::{Handler, ProviderList, UnmountRequest};
use crate::home::{CONFIG_VERSION, Home, ProviderAddr, Unlocked};
use crate::metrics::{self, Endpoint, Page};
use crate::restore::{self, Newest};
use crate::retrieve::{NetRetriever, Seeds, Sources};
use crate::run::RunOptions;
use crate::watch::logs::Logs;
use crate::wiring::{JobRows, durability_of};
use crate::workers;

/// Workers end their step within this time, or are cut off (which loses nothing: a crash does the same).
const STOP_PATIENCE: Duration = Duration::from_secs(8);
/// Watchers are told of the last placements for at most so long.
const TELL_PATIENCE: Duration = Duration::from_secs(5);
/// How often the mount is looked at for having been taken down from outside (`fusermount3 -u`, `umount`).
const MOUNT_LOOK: Duration = Duration::from_millis(300);

/// The words after `-o`, understood; to be asked before anything is begun.
pub fn mount_options(words: &[String]) -> Result<MountOptions, MountError> {
    let mut options = MountOptions::default();
    for list in words {
        options.parse(list)?;
    }
    Ok(options)
}

/// Whoever makes a drive owns its root folder.
fn vfs_options(mount: &MountOptions) -> VfsOptions {
    VfsOptions {
        root_owner: (nix::unistd::geteuid().as_raw(), nix::unistd::getegid().as_raw()),
        read_only: mount.read_only,
        no_atime: !mount.atime,
        no_dir_atime: !mount.dir_atime,
        ..VfsOptions::default()
    }
}

/// The home's configuration, changed by the control socket while the drive runs.
struct Providers(Mutex<Home>);

impl ProviderList for Providers {
    fn add(&self, provider: &ProviderAddr) -> anyhow::Result<()> {
        Ok(self.0.lock().change_config(|c| ProviderAddr::merge(&mut c.providers, [provider.clone()]))?)
    }
    fn remove(&self, peer_id: &str) -> anyhow::Result<()> {
        Ok(self.0.lock().change_config(|c| c.providers.retain(|p| p.peer_id != peer_id))?)
    }
    fn list(&self) -> Vec<ProviderAddr> {
        self.0.lock().config().providers.clone()
    }
}

/// Runs a drive until it is unmounted.
pub async fn run(options: RunOptions) -> anyhow::Result<UnmountReport> {
    let mut home = options.home;
    // An address that is in use is told before anything is opened.
    let metrics = match options.metrics {
        Some(address) => Some(Endpoint::bind(address).await?),
        None => None,
    };
    let engine = open(&mut home, &options.unlocked, &options.mount_options).await?;
    let providers = Arc::new(Providers(Mutex::new(home)));
    engine.drive.set_durability_source(durability_of(&engine));
    let mounted = {
        let (mountpoint, how) = (options.mountpoint.clone(), options.mount_options);
        engine.blocking(move |e| fuse::mount(e.drive.vfs().clone(), &mountpoint, &how)).await?
    };
    let mount = match mounted {
        Ok(mount) => mount,
        Err(error) => {
            close(&engine).await;
            return Err(error).context(format!("mounting at {}", options.mountpoint.display()));
        }
    };
    engine.set_mountpoint(Some(options.mountpoint.clone()));
    start_workers(&engine, options.unlocked.keyring().to_vec(), providers.clone());
    let (ask, asked) = mpsc::channel(4);
    let socket = providers.0.lock().socket_path();
    let handler = Arc::new(Handler::new(engine.clone(), ask, providers));
    let server = control::Server::start(&socket, handler.clone())
        .with_context(|| format!("listening at {}", socket.display()));
    let metrics = metrics.map(|listener| Endpoint::serve(listener, page(handler))).transpose();
    let result = match server.and_then(|server| Ok((server, metrics?))) {
        Ok((server, _metrics)) => {
            (options.ready)();
            serve(&engine, mount, asked, &options.shutdown, options.mountpoint, server).await
        }
        Err(error) => {
            drop(mount);
            Err(error)
        }
    };
    close(&engine).await;
    result
}

/// What `holdfast status` says, as metrics.
fn page(handler: Arc<Handler>) -> Page {
    Arc::new(move || {
        let handler = handler.clone();
        Box::pin(async move {
            let mut status = handler.status().await;
            status.judge();
            Some(metrics::drive_page(&status))
        })
    })
}

/// Starts every worker of a drive.
pub fn start_workers(engine: &Arc<Engine>, keyring: Vec<u8>, list: Arc<dyn ProviderList>) {
    let s = &engine.supervisor;
    s.spawn(workers::watch::WatchWorker::new(engine.clone(), list));
    s.spawn(workers::seal::SealWorker::new(engine.clone()));
    s.spawn(workers::policy::PolicyWorker::new(engine.clone()));
    s.spawn(workers::place::PlaceWorker::new(engine.clone()));
    s.spawn(workers::publish::PublishWorker::new(engine.clone(), keyring));
    s.spawn(workers::audit::AuditWorker::new(engine.clone()));
    s.spawn(workers::repair::RepairWorker::new(engine.clone()));
    s.spawn(workers::evict::EvictWorker::new(engine.clone()));
    s.spawn(workers::pin::PinWorker::new(engine.clone()));
    s.spawn(workers::stripe::StripeWorker::new(engine.clone()));
    s.spawn(workers::retain::RetainWorker::new(engine.clone()));
    s.spawn(workers::public::PublicWorker::new(engine.clone()));
    s.spawn(workers::share::ShareWorker::new(engine.clone()));
}

/// Until something ends the mount. Answers the one who asked for it, if somebody did.
async fn serve(
    engine: &Arc<Engine>,
    mut mount: MountHandle,
    mut asked: mpsc::Receiver<UnmountRequest>,
    shutdown: &CancellationToken,
    mountpoint: PathBuf,
    server: control::Server,
) -> anyhow::Result<UnmountReport> {
    let mut waiting = None;
    loop {
        let lazy = tokio::select! {
            () = shutdown.cancelled() => true,
            Some(request) = asked.recv() => {
                let lazy = request.lazy;
                waiting = Some(request.done);
                lazy
            }
            () = tokio::time::sleep(MOUNT_LOOK) => {
                if !mount.is_mounted() {
                    break;
                }
                continue;
            }
        };
        engine.set_unmounting();
        match tokio::task::spawn_blocking(move || mount.unmount(lazy)).await? {
            Ok(()) => break,
            Err((_, error)) if lazy => {
                tracing::warn!(%error, "the mount could not be detached");
                break;
            }
            Err((still, error)) => {
                mount = still;
                engine.set_mounted_again();
                if let Some(done) = waiting.take() {
                    let at = mountpoint.display();
                    let refused = match error {
                        MountError::Busy(_) => {
                            ControlError::new(ErrorKind::Busy, format!("{at} is in use: {error}"))
                        }
                        // The drive is well and stays mounted.
                        error => ControlError::internal(format!("{at} cannot be unmounted: {error}")),
                    };
                    let _ = done.send(Err(refused));
                }
            }
        }
    }
    tell_watchers(engine).await;
    let report = report(engine, &mountpoint).await;
    close(engine).await;
    if let Some(done) = waiting {
        let _ = done.send(Ok(report.clone()));
        // The answer leaves through a task of the server's; it is given a moment before the process ends.
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    drop(server);
    Ok(report)
}

async fn report(engine: &Arc<Engine>, mountpoint: &std::path::Path) -> UnmountReport {
    let gathered = engine.blocking(crate::status::gather).await.map_err(anyhow::Error::from).and_then(|r| r);
    let mountpoint = Some(mountpoint.to_owned());
    match gathered {
        Ok(status) => UnmountReport {
            mountpoint,
            unsafe_bytes: status.durability.unsafe_bytes(),
            unknown: false,
            below_policy_bytes: status.durability.placed_below_policy.bytes,
            unasked_bytes: status.pieces.unasked_bytes,
            safe_bytes: status.durability.safe_bytes(),
            oldest_unsafe_seconds: status.durability.oldest_unsafe_seconds,
        },
        Err(error) => {
            tracing::error!(error = %format!("{error:#}"), "the drive's state cannot be read at its end");
            UnmountReport {
                mountpoint,
                unsafe_bytes: 0,
                unknown: true,
                below_policy_bytes: 0,
                unasked_bytes: 0,
                safe_bytes: 0,
                oldest_unsafe_seconds: None,
            }
        }
    }
}

/// Watchers repair what they have been told of, so that the last placements are told before this machine goes.
async fn tell_watchers(engine: &Arc<Engine>) {
    if crate::watch::owner::lasting(engine).is_empty() || engine.read_only().is_some() {
        return;
    }
    let version = *engine.ledger.watch().borrow();
    engine.supervisor.poke_all();
    if !engine.watched.told(version, TELL_PATIENCE).await {
        tracing::info!("watchers were not told of the last placements; they are after the next mount");
    }
}

/// Workers end, the log is synced and closed. Safe to call twice.
async fn close(engine: &Arc<Engine>) {
    let late = engine.supervisor.stop(STOP_PATIENCE).await;
    if !late.is_empty() {
        tracing::info!(workers = ?late, "cut off in the middle of a step; it is done again at the next start");
    }
    match engine.blocking(|e| e.drive.clone().close()).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::error!(%error, "closing the drive"),
        Err(error) => tracing::error!(%error, "closing the drive"),
    }
    engine.peers.client().shutdown().await;
}

fn drive_options(home: &Home, unlocked: &Unlocked, policy: &Policy) -> DriveOptions {
    let options = DriveOptions {
        device: unlocked.device(),
        survive_losses: policy.survive_losses,
        disk_free_bytes_min: home.config().limits.disk_free_bytes_min,
        ..DriveOptions::default()
    }
    .with_memory(home.config().limits.memory_bytes);
    match policy.quota_bytes {
        Some(bytes) => options.with_quota(bytes),
        None => options,
    }
}

/// Opens the home's drive, or attaches the newest head of one that is being restored.
async fn open(home: &mut Home, unlocked: &Unlocked, mount: &MountOptions) -> anyhow::Result<Arc<Engine>> {
    if home.config().version < CONFIG_VERSION {
        // Before anything of the newer format is written: older programs read this first.
        home.change_config(|config| config.version = CONFIG_VERSION)?;
    }
    let vfs = vfs_options(mount).with_memory(home.config().limits.memory_bytes);
    let env = Env::system();
    let keys = Arc::new(unlocked.drive_keys());
    crate::memory::lock(&*keys);
    let policy = Policy::of(home.config());
    let node = Node::start(NodeConfig::client(client_identity(unlocked)?))
        .await
        .context("starting the network node")?;
    let finder = finder(home, &env);
    let client = Client::with_finder(node, env.clone(), ClientConfig::default(), finder);
    let peers = Arc::new(Peers::new(client, keys.clone()));
    let seeds = Seeds::Key(*keys.mask.as_bytes());
    let retriever = Arc::new(NetRetriever::new(tokio::runtime::Handle::current(), seeds));
    let options = drive_options(home, unlocked, &policy);
    let place = (home.path().to_owned(), unlocked.store_keys());

    let writer = writer_key(unlocked);
    let (newest, standing) = if home.config().restore_pending {
        let (newest, standing) = takeover::take_over(home.config(), &peers, &keys, &writer, &env).await?;
        (Some(newest), standing)
    } else {
        (None, None)
    };
    let imported = match &newest {
        Some(newest) => {
            let known = home.config().providers.as_slice();
            Some(placements(&newest.body, &keys, &retriever, &peers, known, &policy, &env).await?)
        }
        None => None,
    };
    let point = newest.as_ref().map(|n| RestorePoint {
        commit: n.body.commit.clone(),
        complete: n.body.complete.clone(),
        location_root: n.body.location.clone(),
    });
    let drive = {
        let (keys, retriever) = (keys.clone(), retriever.clone());
        tokio::task::spawn_blocking(move || {
            let (path, store_keys) = place;
            let ambient = Ambient::system();
            match point {
                Some(point) => {
                    Drive::attach(&path, keys, store_keys, options, vfs, point, retriever, ambient)
                }
                None => Drive::open(&path, keys, store_keys, options, vfs, retriever, ambient),
            }
        })
        .await??
    };
    let ledger = Arc::new(Ledger::open(Arc::new(JobRows(drive.jobs())))?);
    let restored = match newest.zip(imported) {
        Some((newest, (imported, said))) => {
            ledger.set_hearsay(said);
            if let Some(standing) = &standing {
                term::keep(&ledger, standing)?;
            }
            Some(adopt(home, &ledger, &keys, &retriever, newest, imported, &env).await?)
        }
        None => None,
    };
    if restored.is_none() {
        // Taken out while the drive was not mounted.
        let listed: Vec<_> = home.config().providers.iter().map(|p| p.peer_id.clone()).collect();
        for (peer, _) in ledger.providers() {
            if !listed.contains(&super::peers::peer_text(&peer)) {
                ledger.update_provider(&peer, |row| row.state = ProviderState::Removed)?;
            }
        }
    }
    for provider in &home.config().providers {
        let (peer, _) = provider.parts()?;
        let addrs = with_found(provider, ledger.provider(&peer.to_bytes()));
        ledger.add_provider(peer.to_bytes(), addrs, env.clock.unix_seconds())?;
        let tags = provider.tags.clone().unwrap_or_default();
        ledger.update_provider(&peer.to_bytes(), |row| row.tagged = tags)?;
    }
    retriever.join(Sources { ledger: ledger.clone(), peers: peers.clone() });
    let head = HeadState::open(&ledger)?;
    let term = TermState::open(&ledger)?;
    let parts = Parts {
        drive,
        ledger,
        peers,
        retriever,
        keys,
        head,
        term,
        writer,
        only_read: mount.read_only,
        policy: Policy::of(home.config()),
        env,
        home: home.path().to_owned(),
        drive_name: home.config().drive.clone(),
        drive_key: *unlocked.drive().as_bytes(),
        device: unlocked.device(),
        restored,
        threads: Threads::Others,
    };
    begin(parts)
}

/// An engine of these parts, with what every start does before a worker runs.
pub fn begin(parts: Parts) -> anyhow::Result<Arc<Engine>> {
    let engine = Arc::new(Engine::new(parts));
    // What another machine packed has its class in the placement log alone.
    engine.drive.adopt_classes(engine.ledger.classes().into_iter())?;
    engine.forgive_silence()?;
    engine.recall_read_only()?;
    engine.wait_for_term();
    workers::place::shards::sweep(&engine)?;
    tell_recovery(&engine);
    Ok(engine)
}

/// Who is asked where a provider is that is not where it was: the others, and whom the owner names.
fn finder(home: &Home, env: &Env) -> Finder {
    let config = home.config();
    let known = config.discovery.bootstrap.iter().chain(&config.providers);
    let known = known.filter_map(|p| p.parts().ok()).map(|(peer, addrs)| PeerAddrs::new(peer, addrs));
    let finder = Finder::new(env.clone(), Vec::new(), config.discovery.mdns);
    finder.add_bootstrap(known);
    finder
}

/// A provider's addresses: where it was found last, and what the configuration says.
fn with_found(configured: &ProviderAddr, row: Option<super::ledger::ProviderRow>) -> Vec<String> {
    let mut addrs = row.map(|row| row.addrs).unwrap_or_default();
    addrs.truncate(ADDRS_MAX / 2);
    for addr in &configured.addrs {
        if !addrs.contains(addr) && addrs.len() < ADDRS_MAX {
            addrs.push(addr.clone());
        }
    }
    addrs
}

/// What the person has to know of what opening found.
fn tell_recovery(engine: &Engine) {
    use super::events::Level;
    let found = engine.drive.recovery();
    if let Some(what) = &found.index_set_aside {
        let text = format!(
            "the index was damaged ({what}) and was made again from the log; the old one is beside it and may be removed"
        );
        engine.events.add(engine.now(), Level::Warning, text);
    }
    if found.no_room {
        let text =
            "the disk has no room left, the drive is read-only: make some, then unmount and mount it again";
        tracing::warn!("{text}");
        engine.events.add(engine.now(), Level::Error, text);
    }
    if let Some(what) = &found.corruption {
        let text = format!("the log is damaged, the drive is read-only: {what}");
        tracing::error!("{text}");
        engine.events.add(engine.now(), Level::Error, text);
    }
}

/// Where everything lies, by a head: its tail leads to the checkpoint, and both together to every slot. From then on
/// `retriever` reads the whole drive, the commit itself included.
async fn placements(
    body: &HeadBody,
    keys: &Arc<holdfast_content::keys::DriveKeys>,
    retriever: &Arc<NetRetriever>,
    peers: &Arc<Peers>,
    known: &[ProviderAddr],
    policy: &Policy,
    env: &Env,
) -> anyhow::Result<(Imported, Vec<Hearsay>)> {
    let (now, copies) = (env.clock.unix_seconds(), policy.copies());
    let join = async |mut found: Imported| {
        for provider in known {
            let row = ProviderRow { addrs: provider.addrs.clone(), ..ProviderRow::new(now) };
            found.providers.entry(provider.parts()?.0.to_bytes()).or_insert(row);
        }
        let ledger = Arc::new(Ledger::open(Arc::new(MemoryRows::default()))?);
        ledger.import(found.clone())?;
        let mut said = Vec::new();
        if !found.grants.is_empty() {
            // What watchers placed since the head was published is where the data may be.
            peers.set_watched();
            let logs = Logs { peers: peers.clone(), ledger: ledger.clone(), keys: keys.clone() };
            let (overheard, places) = logs.overheard().await;
            for place in places {
                let row = ProviderRow { addrs: place.addrs, ..ProviderRow::new(now) };
                found.providers.entry(place.peer.into_vec()).or_insert(row);
            }
            ledger.import(found.clone())?;
            ledger.set_hearsay(overheard.clone());
            said = overheard;
        }
        retriever.join(Sources { ledger, peers: peers.clone() });
        anyhow::Ok((found, said))
    };
    join(restore::from_tail(keys, body, now, copies)?).await?;
    let (read_keys, read_body) = (keys.clone(), body.clone());
    let reader = retriever.clone();
    let whole = tokio::task::spawn_blocking(move || {
        restore::from_checkpoint(&read_keys, &read_body, &reader, now, copies)
    })
    .await??;
    join(whole).await
}

/// The restored head's placements and the head itself become rows; then the restore is no longer pending.
async fn adopt(
    home: &mut Home,
    ledger: &Arc<Ledger>,
    keys: &Arc<holdfast_content::keys::DriveKeys>,
    retriever: &Arc<NetRetriever>,
    newest: Newest,
    imported: Imported,
    env: &Env,
) -> anyhow::Result<RestoredReport> {
    let now = env.clock.unix_seconds();
    let survive = restore::survive_losses(&imported);
    if survive > home.config().policy.survive_losses {
        home.change_config(|config| config.policy.survive_losses = survive)?;
    }
    let log_next = imported.chain.length;
    ledger.import(imported)?;
    workers::retain::note_term(ledger, now)?;
    let commit = commit_of(keys, retriever, &newest.body).await?;
    let published = Published {
        sequence: newest.body.sequence,
        term: newest.body.term,
        commit_sequence: commit.sequence,
        commit_time: commit.time_ms / 1000,
        commit_cid: newest.body.commit.root.to_string(),
        log_next,
        pair: ByteBuf::from(newest.value),
        checkpoint: super::head::CheckpointRow::of(&newest.body),
        taken_over: true,
        standing: newest.head.standing().map(|s| ByteBuf::from(Standing::digest(&s.encode()).to_vec())),
    };
    // The head may name providers that the search did not know of.
    let named: Vec<ProviderAddr> = restore::providers(&newest.body);
    home.change_config(|config| ProviderAddr::merge(&mut config.providers, named))?;
    let (sequence, missing_files) = (published.commit_sequence, commit.pending_files);
    term::note_known(ledger, sequence)?;
    HeadState::open(ledger)?.set(ledger, published)?;
    home.change_config(|c| {
        c.restore_pending = false;
        c.restore_minority = false;
    })?;
    Ok(RestoredReport { at: now, sequence, answered: newest.answered, asked: newest.asked, missing_files })
}

async fn commit_of(
    keys: &Arc<holdfast_content::keys::DriveKeys>,
    retriever: &Arc<NetRetriever>,
    body: &HeadBody,
) -> anyhow::Result<holdfast_content::commit::Commit> {
    use holdfast_content::retrieve::Priority;
    let found =
        retriever.fetch_async(&[body.commit.at], Priority::Interactive, Duration::from_secs(30)).await;
    let block = found.into_iter().next().context("no answer")?.context("fetching the commit")?;
    Ok(holdfast_content::commit::Commit::decode(&block, &body.commit.key, keys)?)
}

/// The client's identity on the network: this device's own, from a secret that is in the keyfile only.
fn client_identity(unlocked: &Unlocked) -> anyhow::Result<holdfast_net::Keypair> {
    let seed = blake3::derive_key("holdfast 2026 device network identity v1", &unlocked.store_keys().index);
    Ok(identity::keypair(seed)?)
}

/// By which this home's heads are known. A copy of the home has the same: the two are told apart by their heads' sequences.
fn writer_key(unlocked: &Unlocked) -> SigningKey {
    let seed = blake3::derive_key("holdfast 2026 device writer key v1", &unlocked.store_keys().index);
    SigningKey::from_bytes(&seed)
}

/// `holdfast verify` on a drive that is not mounted.
pub async fn verify_unmounted(
    home: Home,
    unlocked: Unlocked,
    (deep, whole): (bool, bool),
    progress: ProgressSink,
) -> anyhow::Result<VerifyReport> {
    let mut home = home;
    let engine = open(&mut home, &unlocked, &MountOptions::default()).await?;
    let checked = engine.blocking(move |e| e.drive.check(holdfast_fs::check::CheckOptions { deep })).await;
    let remote = engine.verify_remote(whole, &progress).await;
    close(&engine).await;
    Ok(crate::handler::verify_report(checked??, remote?))
}
