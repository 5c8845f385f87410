//! What a crash, a power cut and a failing disk leave: one load, one checker.
//!
//! The load is drawn from a seed; the state after each record is known. Whatever happened, the next start has to find the state after some record that is
//! not below what was promised (written records for a kill, synced ones for a power cut), whole, and go on from there. `HOLDFAST_FULL=1` draws many more.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use super::support::{SeededRng, open_on, pattern, small};
use crate::failpoint::{EDGES, Failpoints};
use crate::medium::{Fault, FaultMedium, FaultOp};
use crate::record::RecordKind;
use crate::{
    CrashMedium, Direction, IndexKind, KeyRange, Lsn, MediumFile, MemoryIndex, Reads, Rng, StorageMedium,
    Store, StoreError, Table, Txn,
};

fn full() -> bool {
    std::env::var_os("HOLDFAST_FULL").is_some()
}

/// All that a program sees of a store.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
struct State {
    rows: BTreeMap<Vec<u8>, Vec<u8>>,
    /// Rows of the table that also loses whole ranges.
    marks: BTreeMap<Vec<u8>, Vec<u8>>,
    payloads: BTreeMap<Lsn, Arc<Vec<u8>>>,
}

/// What was promised so far.
#[derive(Default)]
struct Promises {
    /// By LSN; the last may be under way.
    states: Mutex<Vec<State>>,
    written: AtomicU64,
    synced: AtomicU64,
}

impl Promises {
    fn begin() -> Arc<Self> {
        let promises = Arc::new(Self::default());
        promises.states.lock().push(State::default());
        promises
    }
}

/// Chance of the load.
struct Draw(SeededRng);

impl Draw {
    fn below(&self, limit: u64) -> u64 {
        let mut bytes = [0; 8];
        self.0.fill(&mut bytes);
        u64::from_le_bytes(bytes) % limit
    }
}

/// Puts marks, and now and then takes a range of them away; whether it did.
fn mark(txn: &mut Txn, next: &mut State, draw: &Draw) -> bool {
    let ranged = draw.below(5) == 0;
    let puts: Vec<u8> = (0..draw.below(3)).map(|_| draw.below(40) as u8).collect();
    // Said after the rows or before them, it goes before them.
    puts.iter().for_each(|key| _ = txn.put(Table::Changed, [*key], vec![*key; 9]));
    for _ in 0..if ranged { 1 + draw.below(2) } else { 0 } {
        let from = draw.below(40) as u8;
        let to = from + 1 + draw.below(20) as u8;
        txn.delete_range(Table::Changed, [from], [to]);
        next.marks.retain(|key, _| key[0] < from || key[0] >= to);
    }
    next.marks.extend(puts.into_iter().map(|key| (vec![key], vec![key; 9])));
    ranged
}

/// One step of the load. After an error that leaves the store writable, nothing happened.
fn step(store: &Store, promises: &Promises, draw: &Draw) -> Result<(), StoreError> {
    let mut next = promises.states.lock().last().unwrap().clone();
    let lsn = promises.written.load(Ordering::Relaxed) + 1;
    let mut txn = Txn::new();
    for _ in 0..=draw.below(3) {
        let key = vec![draw.below(40) as u8];
        if draw.below(4) == 0 {
            txn.delete(Table::Meta, &key);
            next.rows.remove(&key);
        } else {
            let value = pattern(draw.below(1 << 40), 1 + draw.below(600) as usize);
            txn.put(Table::Meta, &key, value.clone());
            next.rows.insert(key, value);
        }
    }
    let ranged = mark(&mut txn, &mut next, draw);
    if draw.below(3) == 0 && !ranged {
        let len = if draw.below(4) == 0 { 66_000 + draw.below(60_000) } else { 1 + draw.below(9_000) };
        let bytes = pattern(lsn, len as usize);
        txn.payload(store.stage_payload(&bytes)?);
        next.payloads.insert(lsn, Arc::new(bytes));
    }
    if next.payloads.len() > 6 {
        let oldest = *next.payloads.keys().next().unwrap();
        txn.release(oldest);
        next.payloads.remove(&oldest);
    }
    promises.states.lock().push(next);
    match store.commit(txn) {
        Ok(made) => {
            assert_eq!(made, lsn);
            promises.written.store(lsn, Ordering::Relaxed);
        }
        // Of the record under way the next start may find all or nothing.
        Err(error @ StoreError::ReadOnly { .. }) => return Err(error),
        Err(error) => {
            promises.states.lock().pop();
            return Err(error);
        }
    }
    match draw.below(12) {
        0..4 => {
            store.sync(lsn)?;
            promises.synced.fetch_max(lsn, Ordering::Relaxed);
        }
        4 => store.tick()?,
        5 => store.checkpoint()?,
        _ => {}
    }
    Ok(())
}

/// What is seen at the moment of a crash.
struct Image {
    medium: CrashMedium,
    index: MemoryIndex,
    at_least: Lsn,
    why: String,
}

/// The checker: opens the image and compares all of it.
fn check(image: &Image, promises: &Promises) {
    let why = &image.why;
    let medium: Arc<dyn StorageMedium> = Arc::new(image.medium.clone());
    let opened = open_on(medium, IndexKind::Shared(image.index.clone()), small());
    let (store, report) = opened.unwrap_or_else(|error| panic!("{why}: {error}"));
    assert_eq!(report.corruption, None, "{why}");
    assert!(report.last_lsn >= image.at_least, "{why}: {} < {}", report.last_lsn, image.at_least);
    let states = promises.states.lock();
    let wanted = &states[report.last_lsn as usize];
    assert_eq!(see(&store, wanted), *wanted, "{why}: not the state after record {}", report.last_lsn);
    assert!(store.scrub().unwrap().is_empty(), "{why}");
    let mut txn = Txn::new();
    txn.put(Table::Inode, b"after", why.clone().into_bytes());
    let lsn = store.commit(txn).unwrap_or_else(|error| panic!("{why}: {error}"));
    store.sync(lsn).unwrap();
    drop(store);
    let after = CrashMedium::power_cut(&image.medium, 7);
    let opened = open_on(Arc::new(after), IndexKind::Shared(image.index.after_crash()), small());
    let (store, _) = opened.unwrap_or_else(|error| panic!("{why}, then once more: {error}"));
    assert_eq!(see(&store, wanted), *wanted, "{why}, then once more");
    assert_eq!(store.get(Table::Inode, b"after").unwrap().unwrap(), why.as_bytes());
}

fn see(store: &Store, wanted: &State) -> State {
    let all = |table, way| {
        let rows = store.scan(table, &KeyRange::all(), usize::MAX, way).unwrap();
        rows.into_iter().map(|(key, value)| (key, value.to_vec())).collect::<Vec<_>>()
    };
    let marks = all(Table::Changed, Direction::Forward);
    let backwards = all(Table::Changed, Direction::Reverse);
    assert!(marks.iter().eq(backwards.iter().rev()), "{marks:?}, {backwards:?}");
    let mut seen = State {
        rows: all(Table::Meta, Direction::Forward).into_iter().collect(),
        marks: marks.into_iter().collect(),
        ..State::default()
    };
    let live = store.scan(Table::Payload, &KeyRange::all(), usize::MAX, Direction::Forward).unwrap();
    for (key, _) in live {
        let lsn = u64::from_be_bytes(key.as_slice().try_into().unwrap());
        let len = store.payload_len(lsn).unwrap().unwrap();
        let mut bytes = vec![0; len as usize];
        let known = wanted.payloads.get(&lsn).map_or(0, |bytes| bytes.len());
        store
            .read_payload(lsn, 0, &mut bytes)
            .unwrap_or_else(|error| panic!("payload {lsn} of {known}: {error}"));
        seen.payloads.insert(lsn, Arc::new(bytes));
    }
    seen
}

/// A store on a medium that tells of each call, and of each edge inside the store, before it happens.
type Watch = Arc<dyn Fn(&str) + Send + Sync>;

struct Watched {
    inner: CrashMedium,
    watch: Watch,
}

struct WatchedFile {
    inner: Arc<dyn MediumFile>,
    watch: Watch,
}

impl Watched {
    fn file(&self, inner: Arc<dyn MediumFile>) -> Arc<dyn MediumFile> {
        Arc::new(WatchedFile { inner, watch: self.watch.clone() })
    }
}

impl StorageMedium for Watched {
    fn create(&self, name: &str) -> io::Result<Arc<dyn MediumFile>> {
        (self.watch)("create");
        Ok(self.file(self.inner.create(name)?))
    }
    fn open(&self, name: &str) -> io::Result<Arc<dyn MediumFile>> {
        Ok(self.file(self.inner.open(name)?))
    }
    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        (self.watch)("rename");
        self.inner.rename(from, to)
    }
    fn remove(&self, name: &str) -> io::Result<()> {
        (self.watch)("remove");
        self.inner.remove(name)
    }
    fn list(&self) -> io::Result<Vec<String>> {
        self.inner.list()
    }
    fn sync_dir(&self) -> io::Result<()> {
        (self.watch)("sync_dir");
        self.inner.sync_dir()
    }
}

impl MediumFile for WatchedFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        self.inner.read_at(buf, offset)
    }
    fn write_at(&self, buf: &[u8], offset: u64) -> io::Result<usize> {
        (self.watch)("write");
        self.inner.write_at(buf, offset)
    }
    fn sync_data(&self) -> io::Result<()> {
        (self.watch)("sync");
        self.inner.sync_data()
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        (self.watch)("set_len");
        self.inner.set_len(len)
    }
    fn len(&self) -> io::Result<u64> {
        self.inner.len()
    }
}

/// Runs the load, and at each call and edge checks what a kill and what a power cut there would leave. How often each was met.
fn crash_everywhere(seed: u64, steps: usize) -> BTreeMap<String, u64> {
    let (medium, index) = (CrashMedium::new(), MemoryIndex::new());
    let promises = Promises::begin();
    let met = Arc::new(Mutex::new(BTreeMap::new()));
    let watch: Watch = {
        let (medium, index, promises, met) = (medium.clone(), index.clone(), promises.clone(), met.clone());
        Arc::new(move |name: &str| {
            let nth = {
                let mut met = met.lock();
                *met.entry(name.to_owned()).or_insert(0u64) += 1;
                met.values().sum::<u64>()
            };
            let why = |kind| format!("seed {seed}: {kind} at {name}, call {nth}");
            let synced = promises.synced.load(Ordering::Relaxed);
            check(
                &Image {
                    medium: medium.power_cut(seed ^ nth),
                    index: index.after_crash(),
                    at_least: synced,
                    why: why("power cut"),
                },
                &promises,
            );
            if nth.is_multiple_of(3) {
                let written = promises.written.load(Ordering::Relaxed);
                let image = Image {
                    medium: medium.killed(),
                    index: index.after_crash(),
                    at_least: written,
                    why: why("kill"),
                };
                check(&image, &promises);
            }
        })
    };
    let hook = watch.clone();
    let options = crate::StoreOptions {
        failpoints: Failpoints::with_hook(Arc::new(move |name| hook(name))),
        ..small()
    };
    let watched = Arc::new(Watched { inner: medium.clone(), watch });
    let (store, _) = open_on(watched, IndexKind::Shared(index.clone()), options).unwrap();
    let draw = Draw(SeededRng::new(seed));
    for _ in 0..steps {
        step(&store, &promises, &draw).unwrap();
    }
    store.close().unwrap();
    // The lock goes before what it is of.
    #[allow(clippy::let_and_return)]
    let met = met.lock().clone();
    met
}

#[test]
fn every_prefix_of_what_the_medium_is_told_and_every_edge() {
    let mut met = BTreeMap::new();
    let seeds = if full() { 60 } else { 2 };
    for seed in 0..seeds {
        for (name, times) in crash_everywhere(seed, 60) {
            *met.entry(name).or_insert(0) += times;
        }
    }
    let cuts: u64 = met.values().sum();
    println!("{cuts} places of a crash: {met:?}");
    for edge in EDGES {
        assert!(met.contains_key(edge), "{edge} was never reached");
    }
    assert!(!full() || cuts >= 10_000, "{cuts}");
}

/// Power is cut in the middle of a recovery from a power cut, at each call.
#[test]
fn power_cuts_during_recovery() {
    for seed in 0..if full() { 200 } else { 12 } {
        let (medium, index) = (CrashMedium::new(), MemoryIndex::new());
        let promises = Promises::begin();
        let opened = open_on(Arc::new(medium.clone()), IndexKind::Shared(index.clone()), small());
        let (store, _) = opened.unwrap();
        let draw = Draw(SeededRng::new(seed));
        for _ in 0..20 + draw.below(60) {
            step(&store, &promises, &draw).unwrap();
        }
        let (cut, index) = (medium.power_cut(seed), index.after_crash());
        let at_least = promises.synced.load(Ordering::Relaxed);
        let nth = AtomicU64::new(0);
        let watch: Watch = {
            let (cut, index, promises) = (cut.clone(), index.clone(), promises.clone());
            Arc::new(move |name: &str| {
                let nth = nth.fetch_add(1, Ordering::Relaxed);
                let why = format!("seed {seed}: second cut at {name}, call {nth}");
                let image = Image { medium: cut.power_cut(nth), index: index.after_crash(), at_least, why };
                check(&image, &promises);
            })
        };
        let watched = Arc::new(Watched { inner: cut, watch });
        open_on(watched, IndexKind::Shared(index), small()).unwrap();
    }
}

/// Runs the load while one call (or every one from there on) fails; what was promised is there at the next start. `false`: the fault was not reached.
fn with_fault(op: FaultOp, after: u64, times: u64, fault: Fault) -> bool {
    let why = format!("{op:?} {after}, {times} times {fault:?}");
    let (medium, index) = (CrashMedium::new(), MemoryIndex::new());
    let faulty = Arc::new(FaultMedium::new(Arc::new(medium.clone())));
    let promises = Promises::begin();
    let (store, _) = open_on(faulty.clone(), IndexKind::Shared(index.clone()), small()).unwrap();
    faulty.plan(op, after, times, fault);
    let draw = Draw(SeededRng::new(after));
    let mut failed = 0;
    for _ in 0..50 {
        match step(&store, &promises, &draw) {
            Ok(()) => {}
            Err(StoreError::ReadOnly { .. }) => break,
            Err(_) => failed += 1,
        }
    }
    let reached = failed > 0 || store.read_only().is_some() || faulty.left() < times;
    faulty.heal();
    let image = |medium: CrashMedium, at_least: &AtomicU64, kind: &str| Image {
        medium,
        index: index.after_crash(),
        at_least: at_least.load(Ordering::Relaxed),
        why: format!("{why}, then {kind}"),
    };
    check(&image(medium.power_cut(after), &promises.synced, "a power cut"), &promises);
    if store.read_only().is_none() {
        // It healed, and goes on as if nothing had been.
        let last = store.last_lsn();
        store.sync(last).unwrap_or_else(|error| panic!("{why}: {error}"));
        promises.synced.store(last, Ordering::Relaxed);
        check(&image(medium.power_cut(!after), &promises.synced, "healed, and a power cut"), &promises);
    }
    check(&image(medium.killed(), &promises.synced, "a kill"), &promises);
    reached
}

fn sweep(op: FaultOp, faults: &[Fault]) {
    let stride = if full() { 1 } else { 3 };
    for fault in faults {
        for times in [1, 3, u64::MAX] {
            let mut after = 0;
            while with_fault(op, after, times, *fault) {
                after += stride;
                assert!(after < 5_000, "{op:?} is called without end");
            }
            assert!(after > 0, "{op:?} was never called");
        }
    }
}

#[test]
fn writes_that_fail_are_short_or_torn_and_a_full_disk_at_each() {
    sweep(FaultOp::Write, &[Fault::Errno(libc::EIO), Fault::Errno(libc::ENOSPC), Fault::Short, Fault::Torn]);
}

#[test]
fn syncs_that_fail() {
    sweep(FaultOp::Sync, &[Fault::Errno(libc::EIO)]);
    sweep(FaultOp::SyncDir, &[Fault::Errno(libc::EIO)]);
}

#[test]
fn names_that_cannot_be_made() {
    sweep(FaultOp::Create, &[Fault::Errno(libc::EIO), Fault::Errno(libc::ENOSPC)]);
    sweep(FaultOp::Rename, &[Fault::Errno(libc::EIO)]);
}

/// A mark has no number of its own: one that is written while a sync runs is not covered by it.
#[test]
fn a_mark_that_is_written_during_a_sync_is_kept_until_the_next() {
    let medium = CrashMedium::new();
    let during: Arc<Mutex<Option<Store>>> = Arc::default();
    let hook = {
        let during = during.clone();
        Arc::new(move |name: &'static str| {
            if name == "sync.log.synced"
                && let Some(store) = during.lock().take()
            {
                store.inner.write_mark(RecordKind::Close).unwrap();
            }
        })
    };
    let options = crate::StoreOptions { failpoints: Failpoints::with_hook(hook), ..small() };
    let (store, _) = open_on(Arc::new(medium), IndexKind::Memory, options).unwrap();
    let mut txn = Txn::new();
    txn.put(Table::Meta, b"a", b"1".to_vec());
    let lsn = store.commit(txn).unwrap();
    *during.lock() = Some(store.clone());
    store.sync(lsn).unwrap();
    assert!(during.lock().is_none(), "the edge was not met");
    let active = store.inner.log.lock().active.clone();
    assert_eq!(active.retained.lock().len(), 1, "the mark");
    store.sync(lsn).unwrap();
    store.inner.sync_all().unwrap();
    assert_eq!(active.retained.lock().len(), 0);
}

/// Who commits and cuts while a checkpoint waits for its sync freezes layers that the sync does not cover.
#[test]
fn the_index_never_has_what_the_log_may_lose() {
    for edge in ["sync.before", "sync.log.done"] {
        let (medium, index) = (CrashMedium::new(), MemoryIndex::new());
        let during: Arc<Mutex<Option<Store>>> = Arc::default();
        let hook = {
            let during = during.clone();
            Arc::new(move |name: &'static str| {
                if name == edge
                    && let Some(store) = during.lock().take()
                {
                    let mut txn = Txn::new();
                    txn.put(Table::Meta, b"b", b"2".to_vec());
                    txn.payload(store.stage_payload(&pattern(2, 5_000)).unwrap());
                    store.commit(txn).unwrap();
                    drop(store.cut().unwrap());
                }
            })
        };
        let options = crate::StoreOptions { failpoints: Failpoints::with_hook(hook), ..small() };
        let (store, _) =
            open_on(Arc::new(medium.clone()), IndexKind::Shared(index.clone()), options).unwrap();
        let mut txn = Txn::new();
        txn.put(Table::Meta, b"a", b"1".to_vec());
        store.commit(txn).unwrap();
        *during.lock() = Some(store.clone());
        store.checkpoint().unwrap();
        assert!(during.lock().is_none(), "{edge} was not met");
        let usage = store.usage();
        assert!(usage.applied_lsn <= usage.durable_lsn, "{edge}: {usage:?}");
        for seed in 0..16 {
            let cut = Arc::new(medium.power_cut(seed));
            let (after, report) = open_on(cut, IndexKind::Shared(index.after_crash()), small()).unwrap();
            assert_eq!(report.corruption, None, "{edge}, cut {seed}");
            assert_eq!(after.get(Table::Meta, b"a").unwrap().unwrap(), "1", "{edge}, cut {seed}");
            assert!(after.scrub().unwrap().is_empty(), "{edge}, cut {seed}: a payload is lost");
        }
    }
}

/// On media that copy what they overwrite, a full disk fails writes into segments that are there already.
#[test]
fn a_full_disk_under_a_segment_is_met_with_what_is_kept() {
    for faults in [1, 2] {
        let (medium, index) = (CrashMedium::new(), MemoryIndex::new());
        let faulty = Arc::new(FaultMedium::new(Arc::new(medium.clone())));
        let (store, _) = open_on(faulty.clone(), IndexKind::Shared(index.clone()), small()).unwrap();
        for round in 0..6 {
            let mut txn = Txn::new();
            txn.payload(store.stage_payload(&pattern(round, 40_000)).unwrap());
            let lsn = store.commit(txn).unwrap();
            let mut txn = Txn::new();
            txn.release(lsn);
            store.commit(txn).unwrap();
            store.checkpoint().unwrap();
        }
        let kept = |medium: &CrashMedium| medium.contents().keys().any(|name| name.starts_with("free-"));
        assert!(kept(&medium), "nothing is kept");
        faulty.plan(FaultOp::Write, 0, faults, Fault::Errno(libc::ENOSPC));
        let mut txn = Txn::new();
        txn.put(Table::Meta, b"a", b"1".to_vec());
        let lsn = store.commit(txn).unwrap();
        assert_eq!(faulty.left(), 0);
        assert!(!kept(&medium));
        store.sync(lsn).unwrap();
        assert_eq!(store.read_only(), None);
        let index = IndexKind::Shared(index.after_crash());
        let (after, _) = open_on(Arc::new(medium.power_cut(1)), index, small()).unwrap();
        assert_eq!(after.get(Table::Meta, b"a").unwrap().unwrap(), "1");
    }
}
