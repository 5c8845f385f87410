//! One history: a drive, its providers, what its owner writes, and what befalls them all, drawn from a seed.

use anyhow::{Result, anyhow, bail};
use holdfast::drive::Engine;
use holdfast::drive::ledger::ProviderState;
use holdfast::drive::policy::Policy;
use holdfast_fs::drive::Drive;
use holdfast_fs::policy::ask::Origin;
use holdfast_fs::retention::rule::RetentionRule;
use holdfast_fs::rows::ROOT_INO;
use holdfast_fs::vfs::{Caller, FsError, NewNode, RenameMode, WriteMode};
use holdfast_net::tags::Tags;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::beside;
use crate::checker::{Checker, HEAD_UNKEPT, Left};
use crate::faults::Until;
use crate::links::Links;
use crate::machine::{self, Dice};
use crate::owner::{ADDRESS, Daemon, Home};
use crate::planted::{Bug, Kind};
use crate::provider::{Lie, Provider};
use crate::truth::{Domain, Truth, domain, losses};
use crate::watching::{self, Seat};
use crate::world::World;

/// How often the world is looked at.
pub const STEP_SECONDS: u64 = 5;
/// Everything is to be as it should be within so long after the last fault.
const REST_SECONDS_MAX: u64 = 4 * 3600;
/// Until the owner looks after a drive whose head has no majority.
const OWNER_LOOKS_SECONDS: u64 = 1800;
/// Files at once; older ones are written over or removed.
const FILES_MAX: u64 = 12;
/// The same of large ones, and how many are written at first.
const LARGE_MAX: u64 = 8;
const LARGE_AT_FIRST: u64 = 6;

/// Before the names of files in the folder.
pub const IN_FOLDER: &str = "safe/";

/// The folder, made where there is none (or a crash took it): it has to survive so many losses.
fn folder(drive: &Drive, losses: u8) -> Result<u64> {
    let vfs = drive.vfs();
    let ino = match vfs.lookup(ROOT_INO, b"safe") {
        Ok(attr) => attr.ino,
        Err(FsError::NotFound) => {
            let made = vfs.create(&Caller::root(), ROOT_INO, b"safe", &NewNode::dir(0o755, 0));
            made.map_err(|e| anyhow!("the folder: {e}"))?.ino
        }
        Err(error) => bail!("the folder: {error}"),
    };
    if drive.policy_of(ino)?.from != Origin::Itself {
        drive.set_policy(ino, Some(losses))?;
    }
    Ok(ino)
}

/// What a history has that not every one has.
fn kind_of(seed: u64) -> Option<Kind> {
    match seed % 8 {
        1 => Some(Kind::Watched),
        4 if seed % 16 == 4 => Some(Kind::Betrayed),
        3 | 7 => Some(Kind::Linked),
        _ => None,
    }
}

fn is_watched(kind: Option<Kind>) -> bool {
    matches!(kind, Some(Kind::Watched | Kind::Betrayed))
}

/// What came out.
pub struct Told {
    pub trace: String,
    pub faults: usize,
    pub acknowledged: usize,
    pub seconds: u64,
    pub wrong: Option<String>,
}

/// How long a history is, and how much befalls it.
#[derive(Clone, Copy, Debug)]
pub struct Length {
    pub faults_seconds: u64,
    /// A fault every so many seconds, on average.
    pub fault_each_seconds: u64,
}

/// A history under way.
pub struct History {
    pub seed: u64,
    pub world: Arc<World>,
    pub dice: Dice,
    pub home: Home,
    pub daemon: Option<Daemon>,
    pub checker: Checker,
    /// Faults that end by themselves, and when.
    pub until: Vec<(u64, Until)>,
    pub known: Vec<Vec<u8>>,
    /// Those of them that the owner does not list.
    pub hidden: BTreeSet<usize>,
    /// Providers whose disk lost something: watchers never give them the same slot again.
    pub spoiled: BTreeSet<usize>,
    /// Who has a capability.
    pub seats: Vec<Seat>,
    pub folder_of_watchers: tempfile::TempDir,
    /// The owner is away, and left this.
    pub left: Option<Left>,
    /// With the owner away: everything is as safe as it was to be.
    pub whole: bool,
    pub links: Links,
    kind: Option<Kind>,
    pub files: BTreeMap<String, Vec<u8>>,
    written: u64,
    /// Large files, which become stripes.
    large: bool,
    /// There is a folder that has to survive so many losses, more than the drive.
    folder: Option<u8>,
    pub faults: usize,
}

/// Plays the history of a seed to its end.
pub fn play(seed: u64, bug: Option<Bug>, length: Length, told: bool) -> Told {
    machine::begin(seed);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let world = World::new(seed, bug, told);
    let played = runtime.map_err(anyhow::Error::from).and_then(|runtime| {
        runtime.block_on(async {
            let mut history = History::new(seed, world.clone())?;
            let result = history.run(length).await;
            let (faults, most) = (history.faults, history.checker.most_acknowledged);
            anyhow::Ok((result, faults, most))
        })
    });
    let (result, faults, acknowledged) = played.unwrap_or_else(|error| (Err(error), 0, 0));
    Told {
        trace: world.trace(),
        faults,
        acknowledged,
        seconds: machine::elapsed_ms() / 1000,
        wrong: result.err().map(|error| format!("{error:#}")),
    }
}

impl History {
    fn new(seed: u64, world: Arc<World>) -> Result<History> {
        let dice = Dice::new(seed, "history");
        let kind = world.bug.map_or_else(|| kind_of(seed), Bug::wants);
        // One of six has large files: stripes are made of nothing smaller than a MiB.
        let large = seed % 6 == 5;
        let survive_losses = 1 + u8::try_from(dice.below(2))?;
        let policy = Policy {
            survive_losses,
            stripe_data_max: 2 + u16::try_from(dice.below(2))?,
            stripe_after_seconds: 120,
            surplus_grace_seconds: 300,
            audit_interval_seconds: 120 + 60 * dice.below(8),
            // Rare reads would need more virtual hours than a history has.
            read_one_in: if world.bug == Some(Bug::NeverReads) { 0 } else { 2 },
            // A renewal reads, too: it would find in time what audits are to find.
            // And watchers place anew what is about to end: with the owner away for hours that would be everything.
            deal_seconds: match world.bug == Some(Bug::NeverReads) || is_watched(kind) {
                true => 200 * 3600,
                false => 3 * 3600,
            },
            barred_seconds: 1800,
            grace_seconds: 600,
            local_bytes_max: (dice.below(4) > 0).then_some(0),
            retention: RetentionRule { all_hours: 0, hourly: 1, daily: 0, weekly: 0 },
            ..Policy::default()
        };
        let folder = (!large && seed % 3 == 1).then_some(survive_losses + 1);
        let mut home = Home::new(seed, world.clone(), policy)?;
        if large {
            home.chunk_log2 = 18;
            home.piece_bytes_max = 2 << 20;
        }
        let mut history = History {
            seed,
            world,
            dice,
            home,
            daemon: None,
            checker: Checker::default(),
            until: Vec::new(),
            known: Vec::new(),
            hidden: BTreeSet::new(),
            spoiled: BTreeSet::new(),
            seats: Vec::new(),
            folder_of_watchers: tempfile::tempdir()?,
            left: None,
            whole: false,
            links: Links::new()?,
            kind,
            files: BTreeMap::new(),
            written: 0,
            large,
            folder,
            faults: 0,
        };
        history.people()?;
        history.start()?;
        // A stripe needs so many pieces at once that are large enough.
        if large {
            for _ in 0..LARGE_AT_FIRST {
                history.write()?;
            }
        }
        Ok(history)
    }

    /// Copies of what has to survive most.
    fn most_copies(&self) -> usize {
        usize::from(self.home.policy.survive_losses.max(self.folder.unwrap_or(0))) + 1
    }

    /// The providers of the beginning: some of them belong together, some say so, some lie.
    fn people(&mut self) -> Result<()> {
        let alone = self.most_copies() as u64 + 2 + self.dice.below(3);
        for _ in 0..alone {
            self.join(None, None)?;
        }
        let together = self.dice.below(3);
        for _ in 0..together {
            self.join(Some(1), None)?;
        }
        // Behind one disk, and lying about it.
        if self.dice.once_in(3) {
            for _ in 0..1 + self.dice.below(3) {
                self.join(Some(2), Some(Lie::AnswersFromNeighbour))?;
            }
        }
        if self.dice.once_in(4) {
            let lie = self.dice.pick(&crate::provider::LIES);
            self.join(None, lie)?;
        }
        Ok(())
    }

    /// A provider more; the owner lists it.
    pub fn join(&mut self, group: Option<u32>, lie: Option<Lie>) -> Result<usize> {
        let mut seed = [0; 32];
        self.dice.bytes(&mut seed);
        let hidden = self.world.bug == Some(Bug::TagsHidden);
        let tags = match group {
            Some(n) if !hidden => Tags { operator: Some(format!("operator {n}")), ..Tags::default() },
            _ => Tags::default(),
        };
        let mut provider = Provider::new(seed, group, tags)?;
        provider.lie = lie;
        provider.bug = self.world.bug;
        let peer = provider.peer.clone();
        if self.left.is_some() {
            self.hidden.insert(self.known.len());
            self.tell_a_watcher(&peer)?;
        }
        let n = {
            let mut state = self.world.state.lock();
            state.providers.push(provider);
            state.providers.len() - 1
        };
        self.world.note(&format!("p{n} joins (group {group:?}, lie {lie:?})"));
        self.known.push(peer.clone());
        if let Some(daemon) = &self.daemon {
            let ledger = &daemon.engine.ledger;
            // A process that is about to die learns of it at its next start.
            let _ = ledger.add_provider(peer, vec![ADDRESS.to_owned()], daemon.engine.now());
        }
        Ok(n)
    }

    pub fn start(&mut self) -> Result<()> {
        self.world.note("the owner's daemon starts");
        let known = self.known.iter().enumerate().filter(|(n, _)| !self.hidden.contains(n));
        let known: Vec<Vec<u8>> = known.map(|(_, peer)| peer.clone()).collect();
        self.daemon = Some(self.home.start(&known)?);
        if self.world.bug == Some(Bug::Livelock)
            && self.faults > 2
            && let Some(daemon) = &self.daemon
        {
            let engine = daemon.engine.clone();
            tokio::spawn(async move {
                loop {
                    engine.wake.notify_waiters();
                    tokio::task::yield_now().await;
                }
            });
        }
        Ok(())
    }

    async fn run(&mut self, length: Length) -> Result<()> {
        // With the owner away for hours later a beginning is enough.
        let faults_seconds =
            if is_watched(self.kind) { length.faults_seconds / 3 } else { length.faults_seconds };
        while machine::elapsed_ms() / 1000 < faults_seconds {
            self.step().await?;
            if self.dice.once_in(length.fault_each_seconds / STEP_SECONDS)
                && let Some(fault) = self.draw()
            {
                self.faults += 1;
                self.world.note(&format!("fault: {fault:?}"));
                self.befall(fault).await?;
            }
            if self.dice.once_in(if self.large { 40 } else { 24 }) {
                self.write()?;
            }
            if self.kind == Some(Kind::Linked) {
                self.link_now_and_then().await?;
            }
        }
        if is_watched(self.kind) {
            self.away(self.kind == Some(Kind::Betrayed)).await?;
        }
        self.rest().await
    }

    /// Some seconds pass.
    pub async fn step(&mut self) -> Result<()> {
        let running = self.seats.iter_mut().filter_map(|seat| seat.running.as_mut());
        beside::pass(STEP_SECONDS, running.chain(self.links.running()).collect()).await;
        for provider in &mut self.world.state.lock().providers {
            provider.sweep(STEP_SECONDS);
        }
        let now = machine::elapsed_ms() / 1000;
        let (over, under_way): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.until).into_iter().partition(|(at, _)| *at <= now);
        self.until = under_way;
        for (_, what) in over {
            self.end(what).await?;
        }
        self.check()
    }

    fn check(&mut self) -> Result<()> {
        for seat in &self.seats {
            if let Some(why) = seat.said.borrow_mut().failed.take().filter(|_| !seat.rogue) {
                bail!(why);
            }
        }
        self.links.check(&self.world)?;
        if let Some(left) = &self.left {
            self.whole = self.checker.look_away(&self.world, left).map_err(|why| anyhow!(why))?;
        }
        let Some(daemon) = &self.daemon else { return Ok(()) };
        let reports = daemon.engine.supervisor.reports();
        if let Some(crashed) = reports.iter().find(|r| r.state == holdfast::worker::State::Crashed) {
            bail!("worker {} panicked", crashed.name);
        }
        self.checker.look(&self.world, &daemon.engine).map_err(|why| anyhow!(why))
    }

    /// The owner's programs write a file, over another one, or remove one.
    fn write(&mut self) -> Result<()> {
        let Some(daemon) = &self.daemon else { return Ok(()) };
        let vfs = daemon.engine.drive.vfs();
        self.written += 1;
        let name = format!("file {}", self.dice.below(if self.large { LARGE_MAX } else { FILES_MAX }));
        let caller = Caller::root();
        let mut dir = ROOT_INO;
        let mut key = name.clone();
        if let Some(losses) = self.folder {
            let folder = folder(&daemon.engine.drive, losses)?;
            let other = format!("{IN_FOLDER}{name}");
            if self.dice.once_in(4) && self.files.contains_key(&name) != self.files.contains_key(&other) {
                return self.move_over(folder, &name);
            }
            if self.dice.once_in(2) {
                (dir, key) = (folder, other);
            }
        }
        if self.files.remove(&key).is_some() {
            vfs.unlink(dir, name.as_bytes()).map_err(|e| anyhow!("unlink: {e}"))?;
            if self.dice.once_in(3) {
                return Ok(());
            }
        }
        let len = match self.large {
            true => (1 << 20) + self.dice.below(200_000),
            false => 500 + self.dice.below(24_000),
        };
        let mut content = vec![0; usize::try_from(len)?];
        Dice::new(self.seed, &format!("content {}", self.written)).bytes(&mut content);
        let attr = vfs
            .create(&caller, dir, name.as_bytes(), &NewNode::file(0o644, 0))
            .map_err(|e| anyhow!("create: {e}"))?;
        let wrote =
            vfs.write(attr.ino, 0, &content, WriteMode::default()).map_err(|e| anyhow!("write: {e}"))?;
        if wrote != content.len() {
            bail!("a short write");
        }
        // As a program that calls fsync: what it was told is safe survives the machine.
        daemon.engine.drive.sync_all().map_err(|e| anyhow!("sync: {e}"))?;
        self.files.insert(key, content);
        Ok(())
    }

    /// A file goes into the folder, or out of it.
    fn move_over(&mut self, folder: u64, name: &str) -> Result<()> {
        let Some(daemon) = &self.daemon else { return Ok(()) };
        let inside = format!("{IN_FOLDER}{name}");
        let (from, to) = match self.files.contains_key(name) {
            true => ((ROOT_INO, name.to_owned()), (folder, inside)),
            false => ((folder, inside), (ROOT_INO, name.to_owned())),
        };
        let drive = &daemon.engine.drive;
        let ends = ((from.0, name.as_bytes()), (to.0, name.as_bytes()));
        drive.vfs().rename(ends.0, ends.1, RenameMode::Replace).map_err(|e| anyhow!("rename: {e}"))?;
        drive.sync_all().map_err(|e| anyhow!("sync: {e}"))?;
        if let Some(content) = self.files.remove(&from.1) {
            self.files.insert(to.1, content);
        }
        Ok(())
    }

    /// Too many anchors are gone for ever: which of them will not come back is for the owner to say, as `holdfast doctor` advises.
    fn take_out_the_gone(&mut self) -> Result<()> {
        let Some(daemon) = &self.daemon else { return Ok(()) };
        let gone: Vec<bool> = self.world.state.lock().providers.iter().map(|p| p.destroyed).collect();
        let known = |peer: &Vec<u8>| daemon.engine.ledger.provider(peer).is_some();
        for (peer, _) in self.known.iter().zip(gone).filter(|(peer, gone)| *gone && known(peer)) {
            daemon.engine.ledger.update_provider(peer, |row| row.state = ProviderState::Removed)?;
        }
        daemon.engine.supervisor.poke_all();
        Ok(())
    }

    /// No more faults: everything is to come to rest, and then to be what was written.
    async fn rest(&mut self) -> Result<()> {
        self.world.note("faults are over");
        self.calm(false).await?;
        self.world.note("at rest");
        self.read_back()?;
        self.links_lead_there().await
    }

    /// What ends by itself ends now.
    pub async fn all_over(&mut self) -> Result<()> {
        for (_, what) in std::mem::take(&mut self.until) {
            self.end(what).await?;
        }
        Ok(())
    }

    /// Nothing befalls anybody, until everything is as it should be; with `given`, watchers have what they need, too.
    pub async fn calm(&mut self, given: bool) -> Result<()> {
        self.all_over().await?;
        self.enough()?;
        let begun = machine::elapsed_ms() / 1000;
        let (mut quiet, mut before) = (0, None);
        loop {
            self.step().await?;
            let unrest = match &self.daemon {
                Some(daemon) => match self.checker.unrest(&self.world, &daemon.engine) {
                    None if given && !watching::is_given(&daemon.engine).await? => {
                        Some("watchers do not have what they need".to_owned())
                    }
                    other => other,
                },
                None => Some("the owner's daemon does not run yet".to_owned()),
            };
            if unrest != before {
                self.world.note(&format!("unrest: {unrest:?}"));
                before = unrest.clone();
            }
            quiet = if unrest.is_none() { quiet + STEP_SECONDS } else { 0 };
            if quiet >= 60 {
                return Ok(());
            }
            let anchors = unrest.as_ref().is_some_and(|why| why.starts_with(HEAD_UNKEPT));
            if anchors && machine::elapsed_ms() / 1000 - begun > OWNER_LOOKS_SECONDS {
                self.take_out_the_gone()?;
            }
            let waited = machine::elapsed_ms() / 1000 - begun;
            if waited > REST_SECONDS_MAX {
                bail!("not at rest {waited} s after the last fault: {}", unrest.unwrap_or_default());
            }
        }
    }

    /// Honest providers that live, by what fails together.
    pub fn honest(&self) -> BTreeSet<Domain> {
        let state = self.world.state.lock();
        // Of those whom the owner does not know it has nothing once it is back.
        let there = |n: &usize| match self.left.is_some() {
            true => !self.spoiled.contains(n),
            false => !self.hidden.contains(n),
        };
        let all = state.providers.iter().enumerate();
        let fit = all.filter(|(n, p)| there(n) && !p.destroyed && p.lie.is_none());
        fit.map(|(n, p)| domain(n, p)).collect()
    }

    /// Sees to it that there are as many as the policy needs, and one more.
    pub fn enough(&mut self) -> Result<()> {
        let need = self.most_copies() + if self.large { 4 } else { 2 };
        while self.honest().len() < need {
            self.join(None, None)?;
        }
        Ok(())
    }

    /// By truth, and not by what the product believes of it.
    fn survives(&self, engine: &Engine, ino: u64, wanted: usize) -> Result<()> {
        let state = self.world.state.lock();
        for id in engine.drive.holding(ino)?.pieces.into_keys() {
            let real = losses(engine, &id, &Truth::of(&state));
            if real < wanted {
                bail!("its folder asks for {wanted} losses, and {real} take it");
            }
        }
        Ok(())
    }

    /// Every file is what was written to it, whatever of it is only with providers by now.
    fn read_back(&self) -> Result<()> {
        let Some(daemon) = &self.daemon else { bail!("no daemon to read with") };
        let vfs = daemon.engine.drive.vfs();
        for (name, content) in &self.files {
            let attr = vfs.resolve(format!("/{name}").as_bytes()).map_err(|e| anyhow!("{name}: {e}"))?;
            if let Some(losses) = self.folder.filter(|_| name.starts_with(IN_FOLDER)) {
                self.survives(&daemon.engine, attr.ino, usize::from(losses) + 1)
                    .map_err(|e| anyhow!("{name}: {e}"))?;
            }
            let mut read = vec![0; content.len() + 1];
            let mut at = 0;
            while at < content.len() {
                let part = read.get_mut(at..).unwrap_or_default();
                match vfs.read(attr.ino, at as u64, part).map_err(|e| anyhow!("reading {name}: {e}"))? {
                    0 => break,
                    n => at += n,
                }
            }
            if read.get(..at) != Some(content.as_slice()) {
                bail!("{name} has other bytes than were written");
            }
        }
        Ok(())
    }
}
