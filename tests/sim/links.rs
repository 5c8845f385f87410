//! Private links: made while slots move, read by strangers at any time, and at the end; taken back.
//!
//! Who reads is `holdfast get` as it is, over the modelled network. At any time it gets what was shared, to the last byte, or is told that
//! it cannot be had now; once everything is at rest it gets it.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;

use anyhow::{Context as _, Result, anyhow, bail};
use holdfast::control::{ShareReport, ShareRequest, Target};
use holdfast::drive::Engine;
use holdfast::drive::threads::Threads;
use holdfast::home::ProviderAddr;
use holdfast::share::link::PrivateLink;
use holdfast::share::reader::{self, Around, ShareError};
use holdfast::workers::retain::prune_now;
use holdfast_fs::rows::ROOT_INO;
use holdfast_net::{Client, ClientConfig, Env, PeerId};

use crate::beside::{self, Running, running};
use crate::carrier::SimCarrier;
use crate::history::{History, IN_FOLDER, STEP_SECONDS};
use crate::machine::{self, Dice, TrueClock};
use crate::objects;
use crate::owner::ADDRESS;
use crate::world::{Who, World};

/// Links of one history.
const LINKS_MAX: usize = 3;
/// Whoever reads is somebody else each time.
const READERS_FROM: Who = 1_000;
/// A link is read at last within so long.
const READ_SECONDS_MAX: u64 = 600;
/// It says that it was taken back within so long.
const ENDED_SECONDS_MAX: u64 = 600;
/// After its grace what is given up is gone within so long.
const RELEASED_SECONDS: u64 = 120;
/// So long a link lasts: longer than any history.
const LASTS_SECONDS: u64 = 60 * 24 * 3600;

struct Shared {
    id: String,
    link: PrivateLink,
    /// What was there, by path below what was shared; of a file that was shared itself, under no name.
    files: BTreeMap<String, Vec<u8>>,
}

type Outcome = Rc<RefCell<Option<Result<(), ShareError>>>>;

/// Somebody reads.
struct Reading {
    link: usize,
    out: PathBuf,
    running: Running,
    outcome: Outcome,
}

/// See the module.
pub struct Links {
    folder: tempfile::TempDir,
    all: Vec<Shared>,
    reading: Vec<Reading>,
    readers: Who,
    /// Readings that ended well, and those that did not.
    pub counted: (u64, u64),
}

impl Links {
    pub fn new() -> Result<Links> {
        let memory = Path::new("/dev/shm");
        let folder = if memory.is_dir() { tempfile::tempdir_in(memory)? } else { tempfile::tempdir()? };
        Ok(Links { folder, all: Vec::new(), reading: Vec::new(), readers: READERS_FROM, counted: (0, 0) })
    }

    pub fn running(&mut self) -> impl Iterator<Item = &mut Running> {
        self.reading.iter_mut().map(|reading| &mut reading.running)
    }

    /// A stranger begins to read. `finds`: it finds everybody who is there, as it would in the DHT; else those whom the link names.
    fn read(&mut self, world: &Arc<World>, seed: u64, link: usize, finds: bool) -> Result<()> {
        let Some(shared) = self.all.get(link) else { return Ok(()) };
        self.readers += 1;
        let dice = Dice::new(seed, &format!("reader {}", self.readers));
        let env = Env { clock: Arc::new(TrueClock), rng: Arc::new(dice) };
        let carrier = Arc::new(SimCarrier::new(world.clone(), self.readers)?);
        let client = Client::over(carrier, env.clone(), ClientConfig::default());
        let around = Around { env, threads: Threads::Caller };
        let (out, outcome) = (self.folder.path().join(self.readers.to_string()), Outcome::default());
        let (to, told, from) = (out.clone(), outcome.clone(), shared.link.clone());
        let there: Vec<ProviderAddr> = match finds {
            true => {
                let state = world.state.lock();
                let there = state.providers.iter().filter(|provider| !provider.destroyed);
                there.filter_map(|p| addr(&p.peer)).collect()
            }
            false => Vec::new(),
        };
        world.note(&format!("{} reads link {link}", self.readers));
        let running = running(async move {
            let got = reader::get(client, from, &there, Some(&to), &mut |_| {}, around).await;
            *told.borrow_mut() = Some(got.map(drop));
        });
        self.reading.push(Reading { link, out, running, outcome });
        Ok(())
    }

    /// Readings that came to an end: what was read is what was shared, and nothing is said that is not so.
    pub fn check(&mut self, world: &World) -> Result<()> {
        let (over, going): (Vec<Reading>, Vec<Reading>) =
            std::mem::take(&mut self.reading).into_iter().partition(|r| r.outcome.borrow().is_some());
        self.reading = going;
        for reading in over {
            let Some(outcome) = reading.outcome.borrow_mut().take() else { continue };
            let said = outcome.as_ref().map_or_else(ToString::to_string, |()| "read".to_owned());
            world.note(&format!("link {}: {said}", reading.link));
            match outcome {
                Ok(()) => {
                    let shared = self.all.get(reading.link).context("a link that there is not")?;
                    same(&shared.files, &reading.out)?;
                    self.counted.0 += 1;
                    remove(&reading.out)?;
                }
                Err(
                    ShareError::Unreachable { .. }
                    | ShareError::NotKept { .. }
                    | ShareError::NotWhole
                    | ShareError::Missing { .. }
                    | ShareError::Net(_),
                ) => self.counted.1 += 1,
                Err(error) => bail!("link {} in force was read, and said: {error}", reading.link),
            }
        }
        Ok(())
    }
}

fn addr(peer: &[u8]) -> Option<ProviderAddr> {
    let peer_id = PeerId::from_bytes(peer).ok()?.to_string();
    Some(ProviderAddr { peer_id, addrs: vec![ADDRESS.to_owned()], tags: None })
}

fn same(files: &BTreeMap<String, Vec<u8>>, at: &Path) -> Result<()> {
    for (name, content) in files {
        let path = if name.is_empty() { at.to_owned() } else { at.join(name) };
        let read = std::fs::read(&path).with_context(|| format!("a link does not show {name}"))?;
        if read != *content {
            bail!("a link shows other bytes of {name} than were shared");
        }
    }
    Ok(())
}

fn remove(at: &Path) -> Result<()> {
    match at.is_dir() {
        true => Ok(std::fs::remove_dir_all(at)?),
        false => Ok(std::fs::remove_file(at)?),
    }
}

async fn ask(engine: &Arc<Engine>, what: ShareRequest) -> Result<ShareReport> {
    let told = holdfast::share::owner::answer(engine, what).await;
    Ok(serde_json::from_value(told.map_err(|error| anyhow!(error.message))?)?)
}

impl History {
    /// Now and then something is shared, or somebody reads.
    pub async fn link_now_and_then(&mut self) -> Result<()> {
        if self.links.all.len() < LINKS_MAX && self.dice.once_in(12) {
            self.share().await?;
        }
        if self.links.reading.is_empty() && self.dice.once_in(16) {
            let link = usize::try_from(self.dice.below(self.links.all.len() as u64))?;
            self.links.read(&self.world, self.seed, link, false)?;
        }
        Ok(())
    }

    /// The whole drive, or one file, if what is there is in the published commit.
    pub async fn share(&mut self) -> Result<()> {
        let Some(engine) = self.daemon.as_ref().map(|daemon| daemon.engine.clone()) else { return Ok(()) };
        let latest = engine.drive.latest_commit()?.map(|commit| commit.sequence);
        let published = latest.is_some() && engine.head.published_sequence() == latest;
        if !published || engine.drive.dirty()?.is_dirty() || self.files.is_empty() {
            return Ok(());
        }
        let names: Vec<&String> = self.files.keys().collect();
        let one = self.dice.pick(&names).filter(|_| self.dice.once_in(2)).cloned();
        let (target, files) = match one {
            None => (Target { ino: ROOT_INO, path: "/".into() }, self.files.clone()),
            Some(name) => {
                let path = format!("/{name}");
                let ino =
                    engine.drive.vfs().resolve(path.as_bytes()).map_err(|e| anyhow!("{name}: {e}"))?.ino;
                let content = self.files.get(&name).cloned().unwrap_or_default();
                (Target { ino, path }, BTreeMap::from([(String::new(), content)]))
            }
        };
        match ask(&engine, ShareRequest::Make { target, seconds: LASTS_SECONDS }).await {
            Ok(report) => {
                let link = report.link.context("a link without its text")?.parse()?;
                self.world.note(&format!(
                    "link {} is made: {} entries",
                    self.links.all.len(),
                    report.entries
                ));
                self.links.all.push(Shared { id: report.id, link, files });
            }
            // Its process may be about to die, or a tree's node with nobody who answers.
            Err(error) => self.world.note(&format!("nothing is shared: {error:#}")),
        }
        Ok(())
    }

    /// The owner removes what was shared, and everything that only the drive itself needed goes: links show it all the same.
    async fn remove_what_was_shared(&mut self) -> Result<()> {
        let engine = self.daemon.as_ref().context("no daemon that could remove anything")?.engine.clone();
        let vfs = engine.drive.vfs();
        for name in std::mem::take(&mut self.files).into_keys() {
            let (dir, name) = match name.strip_prefix(IN_FOLDER) {
                Some(name) => {
                    (vfs.lookup(ROOT_INO, b"safe").map_err(|e| anyhow!("the folder: {e}"))?.ino, name)
                }
                None => (ROOT_INO, name.as_str()),
            };
            vfs.unlink(dir, name.as_bytes()).map_err(|e| anyhow!("unlink: {e}"))?;
        }
        engine.drive.sync_all().map_err(|e| anyhow!("sync: {e}"))?;
        self.calm(false).await?;
        // Twice: what is mostly dead is packed anew first.
        for _ in 0..2 {
            prune_now(&engine, engine.policy.retention.clone()).await?;
            for _ in 0..(engine.policy.grace_seconds + RELEASED_SECONDS) / STEP_SECONDS {
                self.step().await?;
            }
            self.calm(false).await?;
        }
        Ok(())
    }

    /// With everything at rest every link shows what it showed; one that is taken back, nothing.
    pub async fn links_lead_there(&mut self) -> Result<()> {
        // Who gives nothing to readers is found within hours: with such liars time may not go on for as long as this takes.
        if !self.links.all.is_empty() {
            self.remove_what_was_shared().await?;
        }
        for link in 0..self.links.all.len() {
            let (begun, before) = (machine::elapsed_ms() / 1000, self.links.counted.0);
            while self.links.counted.0 == before {
                if self.links.reading.is_empty() {
                    self.links.read(&self.world, self.seed, link, true)?;
                }
                self.step().await?;
                if machine::elapsed_ms() / 1000 - begun > READ_SECONDS_MAX {
                    bail!("link {link} shows nothing, with everything at rest");
                }
            }
        }
        let engine = self.daemon.as_ref().context("no daemon that could take a link back")?.engine.clone();
        for (n, shared) in self.links.all.iter().enumerate() {
            objects::is_so(&self.world, &engine, &shared.link).map_err(|e| anyhow!("link {n}: {e:#}"))?;
        }
        let Some(shared) = self.links.all.last() else { return Ok(()) };
        let (link, id, text) = (self.links.all.len() - 1, shared.id.clone(), shared.link.clone());
        ask(&engine, ShareRequest::End { which: id }).await?;
        let begun = machine::elapsed_ms() / 1000;
        loop {
            self.links.read(&self.world, self.seed, link, true)?;
            let Some(reading) = self.links.reading.pop() else { bail!("nobody reads") };
            let over = ended(reading).await;
            let permitted = objects::still_permitted(&self.world, &engine, &text);
            if over && permitted.is_none() {
                return Ok(());
            }
            if machine::elapsed_ms() / 1000 - begun > ENDED_SECONDS_MAX {
                bail!(permitted.unwrap_or_else(|| "a link that was taken back still leads somewhere".into()));
            }
        }
    }
}

/// Lets somebody read, and tells whether he hears that the link has ended.
async fn ended(mut reading: Reading) -> bool {
    loop {
        beside::pass(STEP_SECONDS, vec![&mut reading.running]).await;
        if let Some(outcome) = reading.outcome.borrow_mut().take() {
            return matches!(outcome, Err(ShareError::Ended));
        }
    }
}
