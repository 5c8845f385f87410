//! The keeper against a clock that is turned by hand and an executor that only pretends: what has rotted, what a clock does,
//! and what follows from failures. With real workers it is in `tests/keeper.rs`.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use holdfast_proofs::sealing::StoredPiece;

use super::*;
use crate::engine::{Ending, Output, Polled, Task};
use crate::params::{Circuit, Origin};
use crate::work::JobResult;

const DEADLINE: u64 = 60;
/// In windows.
const NOW: u64 = 30_000_000;

#[derive(Clone)]
struct Hand(Rc<Cell<u64>>);

impl Hand {
    fn at_window(&self, window: u64) {
        self.0.set(window * DEADLINE * 1_000);
    }
}

impl Clock for Hand {
    fn now(&self) -> UnixMillis {
        self.0.get()
    }
}

/// How jobs end; none while they run.
type Fate = fn(&Job) -> Option<Ending>;

/// What was started, and its fate.
#[derive(Clone)]
struct Pretend(Rc<RefCell<(BTreeMap<TaskId, Job>, Fate)>>);

impl Pretend {
    fn fate(&self, fate: Fate) {
        self.0.borrow_mut().1 = fate;
    }

    /// The windows that were proven, or tried.
    fn windows(&self) -> Vec<u64> {
        let state = self.0.borrow();
        let window = |job: &Job| match job {
            Job::WindowPost { statement, .. } => Some(statement.epoch),
            _ => None,
        };
        state.0.values().filter_map(window).collect()
    }

    /// How often parameters were made.
    fn made(&self) -> usize {
        self.0.borrow().0.values().filter(|job| matches!(job, Job::Parameters { .. })).count()
    }
}

impl Executor for Pretend {
    fn start(&mut self, task: &Task) -> Result<(), Ending> {
        let Work::Worker(job) = &task.duty.work;
        self.0.borrow_mut().0.insert(task.id, job.clone());
        Ok(())
    }

    fn stop(&mut self, _: TaskId) {}

    fn poll(&mut self, id: TaskId) -> Polled {
        let state = self.0.borrow();
        let ending = state.0.get(&id).and_then(state.1);
        ending.map_or(Polled::Running(Vec::new()), Polled::Ended)
    }
}

fn failed(reason: &str) -> Option<Ending> {
    Some(Ending::Failed { permanent: true, reason: reason.to_owned() })
}

struct Counting(u8);

impl Rng for Counting {
    fn fill(&mut self, out: &mut [u8]) {
        out.iter_mut().for_each(|byte| {
            self.0 = self.0.wrapping_add(1);
            *byte = self.0;
        });
    }
}

struct Rig {
    home: tempfile::TempDir,
    hand: Hand,
    pretend: Pretend,
}

impl Rig {
    fn new() -> Self {
        let hand = Hand(Rc::default());
        hand.at_window(NOW);
        let pretend = Pretend(Rc::new(RefCell::new((BTreeMap::new(), |_| None))));
        let rig = Self { home: tempfile::tempdir().unwrap(), hand, pretend };
        let stamp = rig.workshop().parameters().stamp_path(Profile::Test2k, Circuit::WindowPost);
        fs::create_dir_all(stamp.parent().unwrap()).unwrap();
        fs::write(stamp, crate::params::sample_stamp()).unwrap();
        rig
    }

    fn dir(&self) -> PathBuf {
        self.home.path().join("sealing")
    }

    fn workshop(&self) -> Workshop {
        Workshop::create(&self.home.path().join("workshop")).unwrap()
    }

    /// A sector with a replica, as far as its journal goes.
    fn with_sector(self) -> Self {
        let dir = self.dir().join(SECTORS).join("4");
        fs::create_dir_all(&dir).unwrap();
        fs::write(dir.join("journal.json"), crate::sector::sample_journal()).unwrap();
        self
    }

    fn open(&self) -> Result<Keeper<Pretend, Hand>, KeeperError> {
        let settings = Settings {
            profile: Profile::Test2k,
            mode: SealMode::Synthetic,
            keep_unsealed: true,
            prover: Bytes32([1; 32]),
            budget: Budget { cores: 2, memory_bytes: 4 << 30 },
            period_seconds: DEADLINE,
            deadline_seconds: DEADLINE,
            gather_seconds: 1,
            seal_seconds_max: 100,
        };
        fs::create_dir_all(self.dir()).unwrap();
        let (pretend, hand) = (self.pretend.clone(), self.hand.clone());
        Keeper::open(&self.dir(), self.workshop(), settings, pretend, hand, &mut Counting(0))
    }
}

fn warnings<E: Executor, C: Clock + Clone>(keeper: &Keeper<E, C>) -> Vec<String> {
    let warnings = keeper.events.iter().filter(|event| event.warning);
    warnings.map(|event| event.text.clone()).collect()
}

#[test]
fn what_has_rotted_is_set_aside_and_does_not_end_the_proving() {
    let rig = Rig::new();
    drop(rig.open().unwrap());
    let (queue, book, beacon) =
        (rig.dir().join(QUEUE), rig.dir().join(book::FILE), rig.dir().join(beacon::FILE));
    use std::os::unix::fs::PermissionsExt as _;
    let mode = fs::metadata(&beacon).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode, 0o600, "who reads it knows the challenges to come");
    let line = fs::read(&queue).unwrap();
    fs::write(&queue, [&b"rotten\n"[..], &line].concat()).unwrap();
    let mut text = fs::read_to_string(&book).unwrap();
    text = text.replace("\"next_sector\": 1", "\"next_sector\": 0");
    fs::write(&book, text).unwrap();
    fs::write(&beacon, [7; 31]).unwrap();
    let keeper = rig.open().unwrap();
    let said = warnings(&keeper);
    assert_eq!(said.len(), 3, "{said:?}");
    for name in [QUEUE, book::FILE, beacon::FILE] {
        assert!(said.iter().any(|text| text.starts_with(&format!("{name} is set aside"))), "{said:?}");
        assert!(rig.dir().join(format!("{name}.{DAMAGED}")).exists(), "{name}");
    }
    assert!(keeper.book.next_sector >= NOW, "a number may be given out twice");
    drop(keeper);
    assert_eq!(warnings(&rig.open().unwrap()), Vec::<String>::new());
}

#[test]
fn what_a_newer_program_wrote_is_left_to_it() {
    let rig = Rig::new().with_sector();
    drop(rig.open().unwrap());
    for (file, first) in [
        (rig.dir().join(book::FILE), "\"version\": 2"),
        (rig.dir().join(SECTORS).join("4/journal.json"), "\"version\": 2"),
    ] {
        let good = fs::read_to_string(&file).unwrap();
        fs::write(&file, good.replacen(first, "\"version\": 9", 1)).unwrap();
        let error = rig.open().err().unwrap();
        assert!(error.to_string().contains("version 9"), "{error}");
        assert!(file.exists());
        fs::write(&file, good).unwrap();
    }
    assert!(rig.open().is_ok());
}

#[test]
fn folders_whose_names_are_no_numbers_of_sectors_are_left_alone() {
    let rig = Rig::new().with_sector();
    let sectors = rig.dir().join(SECTORS);
    let names = ["04", "+4", "18446744073709551615", "notes"];
    for name in names {
        fs::create_dir(sectors.join(name)).unwrap();
    }
    let keeper = rig.open().unwrap();
    assert_eq!(keeper.sectors.keys().copied().collect::<Vec<_>>(), [4]);
    assert_eq!(keeper.book.next_sector, 5);
    assert!(names.iter().all(|name| sectors.join(name).is_dir()));
}

fn tick(keeper: &mut Keeper<Pretend, Hand>) {
    // What is handed in by one look is started by the next, and heard of by the one after.
    (0..3).for_each(|_| keeper.tick().unwrap());
}

/// A window is opened once; a clock that ran ahead and was set back costs a beginning, not years without a proof.
#[test]
fn a_clock_that_is_set_back_leaves_no_sector_unproven() {
    let rig = Rig::new().with_sector();
    let ahead = NOW + 1_000_000;
    rig.hand.at_window(ahead);
    let mut keeper = rig.open().unwrap();
    tick(&mut keeper);
    assert_eq!(rig.pretend.windows(), [ahead]);
    // To and fro over the edge of a window is nothing.
    rig.hand.at_window(ahead - 1);
    tick(&mut keeper);
    rig.hand.at_window(ahead);
    tick(&mut keeper);
    assert_eq!(rig.pretend.windows(), [ahead]);
    rig.hand.at_window(NOW);
    let error = keeper.tick().err().unwrap();
    assert!(matches!(error, KeeperError::Clock { seconds } if seconds == 1_000_000 * DEADLINE), "{error}");
    drop(keeper);
    let mut keeper = rig.open().unwrap();
    assert!(warnings(&keeper).iter().any(|text| text.contains("the clock was set back")));
    tick(&mut keeper);
    assert_eq!((rig.pretend.windows(), keeper.book.last_window), (vec![ahead, NOW], Some(NOW)));
}

/// A window that fails may have failed for its parameters: they are looked at, and made again where they are damaged.
#[test]
fn damaged_parameters_cost_one_window_and_no_storm() {
    let rig = Rig::new().with_sector();
    let mut keeper = rig.open().unwrap();
    // They cannot be made either: not tried again at once, and told once.
    rig.pretend.fate(|_| failed("the disk is rotten"));
    (0..5).for_each(|_| tick(&mut keeper));
    assert_eq!((keeper.book.missed, rig.pretend.made()), (1, 1));
    assert_eq!(warnings(&keeper).iter().filter(|text| text.contains("cannot be made")).count(), 1);
    rig.pretend.fate(|job| match job {
        Job::Parameters { .. } => {
            Some(Ending::Done(Output::Worker(JobResult::Parameters { origin: Origin::Local })))
        }
        Job::WindowPost { .. } => {
            let proven = JobResult::WindowPost { proven: true, faults: Vec::new() };
            Some(Ending::Done(Output::Worker(proven)))
        }
        _ => failed("another time"),
    });
    let patience = STUCK_SECONDS / DEADLINE;
    for later in 1..=patience {
        rig.hand.at_window(NOW + later);
        tick(&mut keeper);
    }
    tick(&mut keeper);
    assert_eq!((keeper.book.missed, keeper.book.proven, rig.pretend.made()), (1, patience, 2));
    assert!(!keeper.parameters_doubted);
}

/// A seal that the disk has no room for is not begun, and deals are refused before it is.
#[test]
fn a_full_disk_begins_no_seal_and_takes_no_deals() {
    let rig = Rig::new();
    let mut keeper = rig.open().unwrap();
    keeper.disk_free = |_| Ok(0);
    keeper.order(Order::List);
    let piece = PieceCid::new(1_900, [3; 32]).unwrap();
    let until = rig.hand.now() / 1_000 + 99_999;
    let deal = StoredPiece { deal: "d".to_owned(), piece, slot: PathBuf::from("/slot"), until };
    keeper.order(Order::Stored(deal));
    keeper.order(Order::Listed);
    rig.hand.at_window(NOW + 1);
    keeper.tick().unwrap();
    keeper.tick().unwrap();
    let status = keeper.status();
    assert!(!status.accepts && status.reasons.iter().any(|reason| reason.contains("no room")), "{status}");
    assert_eq!((status.sectors_total, status.pieces.waiting), (0, 1));
    keeper.disk_free = |_| Err(io::Error::other("it does not tell"));
    keeper.tick().unwrap();
    assert_eq!(keeper.status().sectors_total, 1);
    keeper.disk_free = |_| Ok(1 << 20);
    assert!(keeper.status().accepts, "{}", keeper.status());
}
