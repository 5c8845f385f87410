//! The keeper: a provider's archival tier, from deals to sectors that are proven on schedule.
//!
//! ```text
//! deals -> pieces that wait -> a sector's plan -> filled -> sealed up to commit 1 -> seed -> commit 2 -> kept
//!          window w: the sectors of slot w mod (period / deadline), once there is a replica -> a proof file
//!          faulty: declared -> mended (from the slots, if need be) -> proven again
//!          the last deal of a sector ends: it expires; a deal is renewed: it is extended
//! ```
//!
//! Owns: one folder, taken with a lock. Promises: what must be done follows from the sectors' journals, the deals that the
//! provider tells and the clock, so that a crash repeats at most one phase; a sector's number is never used twice; every
//! heavy step runs in a worker within the budget; a sector is proven from the moment that its replica is there, and its
//! seal's own proof follows once its parameters are.
//! Refuses: a production profile on a machine, with parameters or with a beacon that are not fit for it.

mod beacon;
mod book;
mod costs;
mod events;
mod pieces;
mod report;
mod run;
mod sectors;
mod windows;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};

use holdfast_proofs::PieceCid;
use holdfast_proofs::sealing::{EVENTS_SHOWN_MAX, Order, SealingEvent};
use nix::fcntl::{Flock, FlockArg};
use thiserror::Error;

use crate::engine::{
    Budget, Class, Clock, Conductor, Cost, Duty, EngineError, Executor, JournalError, SubmitError, TaskId,
    UnixMillis, Work,
};
use crate::entropy::Rng;
use crate::machine::{MachineError, MachineReport};
use crate::profile::{Profile, SealMode};
use crate::sector::SectorError;
use crate::types::Bytes32;
use crate::work::Job;
use crate::workshop::{Workshop, WorkshopError};

use beacon::OwnBeacon;
use book::{Book, Found};
use pieces::Pieces;
use sectors::Kept;

pub(crate) use book::decode_any as decode_any_book;
#[cfg(test)]
pub(crate) use book::sample as sample_book;
pub(crate) use pieces::take_any_orders;
pub use run::run;

pub(crate) const SECTORS: &str = "sectors";
const PROOFS: &str = "proofs";
const QUEUE: &str = "queue";
const LOCK: &str = "lock";
/// Sectors that are filled or sealed at once: their layers and trees take many times a sector's room.
const PIPELINE_MAX: usize = 8;
/// A shorter window would be over before a proof of the smallest sectors is made.
const DEADLINE_SECONDS_MIN: u64 = 5;
/// How long a sector that failed for good is left alone.
const STUCK_SECONDS: u64 = 600;
/// Ending of a file or of a sector's folder that cannot be read: kept for whoever wants to look at it.
const DAMAGED: &str = "damaged";

/// Why there is no keeper, or no more.
#[derive(Debug, Error)]
pub enum KeeperError {
    #[error("{}: {source}", path.display())]
    Io { path: PathBuf, source: io::Error },
    #[error("{} is of version {version}, which this program does not know", path.display())]
    Newer { path: PathBuf, version: u32 },
    #[error("the clock was set back by {seconds} s: windows and pauses are reckoned anew")]
    Clock { seconds: u64 },
    #[error("another prover keeps {}", .0.display())]
    Busy(PathBuf),
    #[error("this machine cannot seal {profile}; it lacks: {}", missing.join("; "))]
    Unfit { profile: Profile, missing: Vec<String> },
    #[error(
        "windows of {0} s: they must be {DEADLINE_SECONDS_MIN} s or longer, and the period a multiple of them"
    )]
    Schedule(u64),
    #[error(
        "a budget of {} cores and {} MiB does not admit a proof of spacetime, which needs {} and {} MiB",
        budget.cores, budget.memory_bytes >> 20, needed.cores, needed.memory_bytes >> 20
    )]
    Budget { budget: Budget, needed: Cost },
    #[error(transparent)]
    Engine(#[from] EngineError),
    #[error(transparent)]
    Sector(#[from] SectorError),
    #[error(transparent)]
    Workshop(#[from] WorkshopError),
    #[error(transparent)]
    Machine(#[from] MachineError),
}

impl KeeperError {
    fn io(path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { path, source }
    }
}

/// What a provider settles for its archival tier.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    pub profile: Profile,
    /// Of new sectors; those that were begun stay what they are.
    pub mode: SealMode,
    /// Whether a sealed sector keeps its unsealed copy, beside the slots of its deals.
    pub keep_unsealed: bool,
    /// Who seals: bound into every replica.
    pub prover: Bytes32,
    pub budget: Budget,
    /// Each sector is proven once in so many seconds ...
    pub period_seconds: u64,
    /// ... within so many from the moment that its challenges are known.
    pub deadline_seconds: u64,
    /// How long a piece waits for others to fill a sector with.
    pub gather_seconds: u64,
    /// How long a new seal may take to be finished before no more deals are taken.
    pub seal_seconds_max: u64,
}

/// What a task of the engine is for.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Doing {
    Parameters,
    /// A sector's pieces; again for a faulty one, which looks for damage and begins to mend it.
    Fill(u64),
    Seal(u64),
    /// A sealed sector's unsealed copy is given up, or made again.
    Copy(u64),
    Window(windows::Window),
}

/// The keeper of a folder.
pub struct Keeper<E, C> {
    dir: PathBuf,
    settings: Settings,
    workshop: Workshop,
    engine: Conductor<E, C>,
    clock: C,
    beacon: OwnBeacon,
    book: Book,
    book_changed: bool,
    pieces: Pieces,
    sectors: BTreeMap<u64, Kept>,
    /// In which sector a piece is.
    places: BTreeMap<PieceCid, u64>,
    tasks: BTreeMap<TaskId, Doing>,
    /// Parameters that are there were not enough for a window: they are hashed, and made again where they are damaged.
    parameters_doubted: bool,
    /// Making parameters has failed: not tried again before (unix seconds).
    parameters_from: u64,
    /// Tells what is free where a folder is.
    disk_free: fn(&Path) -> io::Result<u64>,
    events: VecDeque<SealingEvent>,
    _lock: Flock<File>,
}

impl<E: Executor, C: Clock + Clone> Keeper<E, C> {
    /// Takes a folder and looks at what is in it.
    ///
    /// # Errors
    /// `Busy`, `Unfit`, `Schedule`, `Budget`, `Newer`, `Io`, `Engine`.
    pub fn open(
        dir: &Path,
        workshop: Workshop,
        settings: Settings,
        executor: E,
        clock: C,
        rng: &mut dyn Rng,
    ) -> Result<Self, KeeperError> {
        // What the machine lacks comes before what of it is given: it is the longer list.
        check_machine(settings.profile, &workshop)?;
        settings.check()?;
        for name in [SECTORS, PROOFS] {
            let path = dir.join(name);
            fs::create_dir_all(&path).map_err(KeeperError::io(&path))?;
        }
        let lock = lock(dir)?;
        let mut damaged = Vec::new();
        let queue = dir.join(QUEUE);
        // Every duty follows from what is on disk; an earlier run's queue says nothing that is not derived again, so that one
        // that has rotted stops nobody.
        if let Some(reason) = damage(&queue)? {
            damaged.push((QUEUE, reason));
            aside(&queue)?;
        }
        let mut engine = Conductor::open(&queue, settings.budget, executor, clock.clone())?;
        for task in engine.status().tasks {
            engine.cancel(task.id)?;
        }
        let (book, bad_book) = open_book(dir, settings.deadline_seconds, clock.now())?;
        damaged.extend(bad_book.map(|reason| (book::FILE, reason)));
        let (beacon, bad_beacon) = OwnBeacon::open(dir, rng).map_err(KeeperError::io(dir))?;
        damaged.extend(bad_beacon.map(|reason| (beacon::FILE, reason)));
        let mut keeper = Self {
            book,
            beacon,
            dir: dir.to_owned(),
            settings,
            workshop,
            engine,
            clock,
            book_changed: true,
            pieces: Pieces::default(),
            sectors: BTreeMap::new(),
            places: BTreeMap::new(),
            tasks: BTreeMap::new(),
            parameters_doubted: false,
            parameters_from: 0,
            disk_free: crate::machine::disk_free,
            events: VecDeque::new(),
            _lock: lock,
        };
        for (name, reason) in damaged {
            keeper.tell(true, format!("{name} is set aside as {name}.{DAMAGED} and begun anew: {reason}"));
        }
        keeper.check_clock();
        keeper.scan()?;
        keeper.save()?;
        Ok(keeper)
    }

    /// Takes a line of the provider.
    pub fn order(&mut self, order: Order) {
        match order {
            Order::List => self.pieces.begin_list(),
            Order::Listed => self.pieces.end_list(),
            Order::Ended { deal } => self.pieces.ended(&deal),
            Order::Stored(stored) => {
                let (cid, until, deal) = (stored.piece, stored.until, stored.deal.clone());
                let sector = self.places.get(&cid).copied();
                let before = sector.map(|_| self.pieces.until(&cid));
                let now = self.now();
                if !self.pieces.stored(stored, sector, self.settings.profile, now) {
                    self.tell(true, format!("deal {deal} is one too many: its piece is not sealed"));
                }
                if let (Some(number), Some(before)) = (sector, before)
                    && before > 0
                    && until > before
                {
                    self.tell(false, format!("sector {number} is extended by deal {deal}"));
                }
            }
        }
    }

    /// Looks at what has ended, and begins what is due.
    ///
    /// # Errors
    /// `Engine` and `Io`: what cannot be written down is not begun. `Clock`: whoever opens the folder again goes on.
    pub fn tick(&mut self) -> Result<(), KeeperError> {
        for event in self.engine.tick()? {
            self.heard(event)?;
        }
        self.open_windows()?;
        self.make_parameters()?;
        self.expire()?;
        self.plan()?;
        for number in self.sectors.keys().copied().collect::<Vec<_>>() {
            self.drive(number)?;
        }
        self.save()
    }

    /// Unix seconds.
    fn now(&self) -> u64 {
        self.clock.now() / 1_000
    }

    fn save(&mut self) -> Result<(), KeeperError> {
        if self.book_changed {
            self.book.store(&self.dir)?;
            self.book_changed = false;
        }
        Ok(())
    }

    fn tell(&mut self, warning: bool, text: String) {
        self.events.push_back(SealingEvent { at: self.now(), warning, text });
        while self.events.len() > EVENTS_SHOWN_MAX {
            self.events.pop_front();
        }
    }

    /// Hands a task to the engine. A budget that does not admit it is no failure of the keeper: the reason.
    fn submit(&mut self, class: Class, deadline: u64, cost: Cost, job: Job, doing: Doing) -> Submitted {
        let duty = Duty { class, deadline: deadline.saturating_mul(1_000), cost, work: Work::Worker(job) };
        match self.engine.submit(duty) {
            Ok(id) => {
                self.tasks.insert(id, doing);
                Ok(None)
            }
            Err(EngineError::Submit(error @ SubmitError::OverBudget { .. })) => Ok(Some(error.to_string())),
            Err(EngineError::Submit(error)) => Ok(Some(error.to_string())),
            Err(error) => Err(error.into()),
        }
    }

    fn is_busy(&self, doing: impl Fn(&Doing) -> bool) -> bool {
        self.tasks.values().any(doing)
    }

    /// Window PoSt parameters of a test profile are made at once: seconds of work, without which nothing is proven.
    fn make_parameters(&mut self) -> Result<(), KeeperError> {
        use crate::params::Circuit::WindowPost;
        let profile = self.settings.profile;
        let busy = self.is_busy(|doing| *doing == Doing::Parameters);
        let enough = self.has_parameters(WindowPost) && !self.parameters_doubted;
        if profile.is_production() || busy || enough || self.now() < self.parameters_from {
            return Ok(());
        }
        let job = Job::Parameters { profile, circuit: WindowPost };
        let cost = costs::parameters(&self.settings);
        self.submit(Class::Seal, self.now(), cost, job, Doing::Parameters).map(drop)
    }

    /// Whether a circuit's parameters seem to be there; whoever uses them hashes them.
    fn has_parameters(&self, circuit: crate::params::Circuit) -> bool {
        let (store, profile) = (self.workshop.parameters(), self.settings.profile);
        let published = || store.params_path(profile, circuit).exists() && profile.is_production();
        store.stamp_path(profile, circuit).exists() || published()
    }

    /// Sectors in the pipeline, and those whose folder is about to be made.
    fn in_pipeline(&self) -> BTreeSet<u64> {
        self.sectors.iter().filter(|(_, kept)| kept.in_pipeline()).map(|(number, _)| *number).collect()
    }
}

/// None where the task was taken, else why it was not.
type Submitted = Result<Option<String>, KeeperError>;

impl Settings {
    fn check(&self) -> Result<(), KeeperError> {
        // The period is a whole number of windows, at least one.
        let whole = self.deadline_seconds >= DEADLINE_SECONDS_MIN
            && self.period_seconds >= self.deadline_seconds
            && self.period_seconds.is_multiple_of(self.deadline_seconds);
        if !whole {
            return Err(KeeperError::Schedule(self.deadline_seconds));
        }
        let needed = costs::window(self, 1);
        if needed.cores > self.budget.cores || needed.memory_bytes > self.budget.memory_bytes {
            return Err(KeeperError::Budget { budget: self.budget, needed });
        }
        Ok(())
    }
}

/// Production needs everything; tests need room, and make their parameters themselves.
fn check_machine(profile: Profile, workshop: &Workshop) -> Result<(), KeeperError> {
    let mut report = MachineReport::look(profile, workshop)?;
    if profile.is_production() {
        report
            .missing
            .push("a public beacon for tickets, seeds and challenges: none is there yet".to_owned());
    } else {
        report.missing.retain(|line| !line.starts_with("parameters"));
    }
    if report.missing.is_empty() {
        Ok(())
    } else {
        Err(KeeperError::Unfit { profile, missing: report.missing })
    }
}

/// Why a queue that is there cannot be used.
fn damage(queue: &Path) -> Result<Option<String>, KeeperError> {
    match crate::engine::check_journal(queue) {
        Ok(()) => Ok(None),
        Err(error @ (JournalError::Damaged { .. } | JournalError::TooLong { .. })) => {
            Ok(Some(error.to_string()))
        }
        Err(error) => Err(EngineError::from(error).into()),
    }
}

/// Puts a file that cannot be read out of the way.
fn aside(path: &Path) -> Result<(), KeeperError> {
    let mut to = path.as_os_str().to_owned();
    to.push(format!(".{DAMAGED}"));
    fs::rename(path, to).map_err(KeeperError::io(path))
}

/// The folder's book, or a new one; why the old one could not be read.
fn open_book(
    dir: &Path,
    deadline_seconds: u64,
    now: UnixMillis,
) -> Result<(Book, Option<String>), KeeperError> {
    let path = dir.join(book::FILE);
    match Book::find(dir)? {
        Found::Newer(version) => Err(KeeperError::Newer { path, version }),
        Found::None => Ok((Book::new(deadline_seconds), None)),
        Found::Damaged(reason) => {
            aside(&path)?;
            // Numbers are given out one by one, never one a millisecond: this one was not.
            let mut book = Book::new(deadline_seconds);
            book.next_sector = now.max(1);
            Ok((book, Some(reason)))
        }
        Found::Book(mut book) => {
            // Windows of another length have other numbers: which of them passed unproven cannot be said.
            if book.deadline_seconds != deadline_seconds {
                book.last_window = None;
                book.deadline_seconds = deadline_seconds;
            }
            Ok((book, None))
        }
    }
}

fn lock(dir: &Path) -> Result<Flock<File>, KeeperError> {
    let path = dir.join(LOCK);
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)
        .map_err(KeeperError::io(&path))?;
    Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|_| KeeperError::Busy(dir.to_owned()))
}

#[cfg(test)]
mod tests;
