//! Watchers in the world: `holdfast watch` as it is, over the modelled network, in a process that dies and comes back.

use std::cell::RefCell;
use std::io::Write as _;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use holdfast::control::{GrantRequest, WatchGrantedReport, WatchRequest, WatchesReport};
use holdfast::drive::Engine;
use holdfast::drive::threads::Threads;
use holdfast::watch::capability::Capability;
use holdfast::watch::reach::Reach;
use holdfast::watch::report::LookReport;
use holdfast::watch::state::Folder;
use holdfast::watch::watcher::Watcher;
use holdfast_net::{Client, ClientConfig, Env, PeerId};

use crate::beside::{Running, running};
use crate::carrier::SimCarrier;
use crate::machine::{Dice, TrueClock};
use crate::owner::ADDRESS;
use crate::rogue;
use crate::world::{Who, World};

/// Between two looks.
const LOOK: Duration = Duration::from_secs(30);
/// The same while slots are being placed, as the command does.
const BUSY: Duration = Duration::from_secs(1);

/// What a watcher said last.
#[derive(Default)]
pub struct Said {
    pub report: Option<LookReport>,
    /// It cannot go on.
    pub failed: Option<String>,
}

/// One who has a capability.
pub struct Seat {
    pub who: Who,
    file: PathBuf,
    /// By which providers know what it placed.
    pub holder: [u8; 32],
    /// It does what it wants with what it was given.
    pub rogue: bool,
    pub running: Option<Running>,
    pub said: Rc<RefCell<Said>>,
    starts: u64,
}

/// The owner makes a capability, and somebody else has its file.
pub async fn grant(
    engine: &Arc<Engine>,
    folder: &std::path::Path,
    who: Who,
    silent_seconds: u64,
    rogue: bool,
) -> Result<Seat> {
    let terms = GrantRequest {
        label: format!("watcher {who}"),
        seconds: 300 * 24 * 3600,
        bytes: 1 << 30,
        daily: 1 << 28,
        silent_seconds,
        newcomers: true,
        apart: Vec::new(),
    };
    let granted = holdfast::watch::owner::answer(engine, WatchRequest::Grant { terms }).await;
    let granted: WatchGrantedReport =
        serde_json::from_value(granted.map_err(|e| anyhow::anyhow!("grant: {}", e.message))?)?;
    let file = folder.join(format!("watcher{who}"));
    let bytes = data_encoding::HEXLOWER.decode(granted.file.as_bytes())?;
    std::fs::write(&file, &bytes)?;
    let holder = Capability::read(&bytes)?.keys().holder.verifying_key().to_bytes();
    Ok(Seat { who, file, holder, rogue, running: None, said: Rc::default(), starts: 0 })
}

/// Whether everybody who is there has what watchers need, as it is now.
pub async fn is_given(engine: &Arc<Engine>) -> Result<bool> {
    let list = holdfast::watch::owner::answer(engine, WatchRequest::List {}).await;
    let list: WatchesReport =
        serde_json::from_value(list.map_err(|e| anyhow::anyhow!("watch list: {}", e.message))?)?;
    let there = engine.ledger.providers().iter().filter(|(_, row)| row.answers()).count() as u64;
    Ok(list.watches.iter().all(|watch| watch.bundle_with >= there && watch.left_out_pieces == 0))
}

impl Seat {
    /// Its process starts.
    pub fn start(&mut self, world: &Arc<World>, seed: u64) -> Result<()> {
        self.starts += 1;
        world.note(&format!("watcher {} starts (rogue: {})", self.who, self.rogue));
        let dice = Dice::new(seed, &format!("watcher {} {}", self.who, self.starts));
        let env = Env { clock: Arc::new(TrueClock), rng: Arc::new(dice) };
        let carrier = Arc::new(SimCarrier::new(world.clone(), self.who)?);
        let client = Client::over(carrier, env.clone(), ClientConfig::default());
        let (file, said, world) = (self.file.clone(), self.said.clone(), world.clone());
        let (who, rogue) = (self.who, self.rogue);
        self.running = Some(running(async move {
            let ended = match rogue {
                true => rogue::betray(world.clone(), &file, client, env).await,
                false => watch(&world, who, &file, client, env, &said).await,
            };
            if let Err(error) = ended {
                said.borrow_mut().failed = Some(format!("watcher {who}: {error:#}"));
            }
        }));
        Ok(())
    }

    /// Its process is gone.
    pub fn dies(&mut self, world: &World) {
        self.running = None;
        world.state.lock().dies(self.who);
        world.note(&format!("watcher {} is gone", self.who));
    }

    /// Whoever runs it names a provider.
    pub fn tell(&self, peer: &[u8]) -> Result<()> {
        let mut name = self.file.file_name().context("no name")?.to_owned();
        name.push(".watch");
        let folder = self.file.with_file_name(name);
        std::fs::create_dir_all(&folder)?;
        let mut list = std::fs::File::options().append(true).create(true).open(folder.join("providers"))?;
        writeln!(list, "{ADDRESS}/p2p/{}", PeerId::from_bytes(peer)?)?;
        Ok(())
    }
}

/// As the command does it.
async fn watch(
    world: &World,
    who: Who,
    file: &std::path::Path,
    client: Client,
    env: Env,
    said: &RefCell<Said>,
) -> Result<()> {
    let (folder, capability, state) = Folder::open(file)?;
    let reach = Reach::over(client, &capability.keys(), env, Threads::Caller);
    let mut watcher = Watcher::new(folder, capability, state, reach)?;
    loop {
        let pause = match watcher.look().await {
            Ok(report) => {
                let pause = if Watcher::is_busy(&report) { BUSY } else { LOOK };
                world.note(&format!("watcher {who}: {}", told(&report)));
                said.borrow_mut().report = Some(report);
                pause
            }
            Err(error) => {
                world.note(&format!("watcher {who}: {error:#}"));
                LOOK
            }
        };
        tokio::time::sleep(pause).await;
    }
}

fn told(report: &LookReport) -> String {
    let waiting: Vec<String> =
        report.waiting.iter().map(|w| format!("{} ({}): {}", w.slot, w.why, w.waits_for)).collect();
    let done: Vec<String> = report.repaired.iter().map(|r| format!("{} ({})", r.slot, r.why)).collect();
    format!(
        "{} answered, {} slots: {} well, {} doubtful, {} lost; placed {done:?}, waiting {waiting:?}, ended {:?}",
        report.providers_answered, report.slots, report.well, report.doubtful, report.lost, report.ended
    )
}
