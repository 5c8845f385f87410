//! The store's public face: decodes nothing, decides nothing.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64};

use bytes::Bytes;
use parking_lot::{Condvar, Mutex, RwLock};

use crate::ambient::{Clock, NoncePool, Rng};
use crate::ballast::{Ballast, give_unopened, write_buffer_bytes};
use crate::cache::RowCache;
use crate::cipher::{LongCipher, ValueCipher};
use crate::delta::View;
use crate::error::Result;
use crate::forge::Forge;
use crate::index::{Index, RocksIndex, aside};
use crate::inner::{Inner, Log, Mode};
use crate::medium::StorageMedium;
use crate::payload::DataTail;
use crate::record::RecordKind;
use crate::recovery::{self, Purpose, Recovered, Tools};
use crate::segment::{HEADER_BYTES, Kind};
use crate::worker::{Bell, Workers};
use crate::{
    Direction, IndexKind, KeyRange, Lsn, MemoryIndex, Payload, RecoveryReport, Row, Snapshot, StoreError,
    StoreKeys, StoreOptions, Table, Txn, Usage,
};

/// Why the store takes no changes that was opened without room.
const NO_ROOM: &str = "the disk has no room left, and had none when the drive was opened";

/// Reads, of the store as it is (`Store`) or as it was at one record (`Snapshot`).
pub trait Reads: Send + Sync {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>, StoreError>;
    /// Whether there is such a row. On a `Snapshot` its value is not opened, as with [`Reads::scan_keys`].
    fn contains(&self, table: Table, key: &[u8]) -> Result<bool, StoreError> {
        Ok(self.get(table, key)?.is_some())
    }
    /// Values in the order of `keys`.
    fn multi_get(&self, table: Table, keys: &[&[u8]]) -> Result<Vec<Option<Bytes>>, StoreError>;
    /// At most `limit` rows of `range`, in byte order or its reverse. On a `Store`, changes made meanwhile may or may not
    /// be seen; each row is whole. On a `Snapshot` there are none.
    fn scan(
        &self,
        table: Table,
        range: &KeyRange,
        limit: usize,
        way: Direction,
    ) -> Result<Vec<Row>, StoreError>;
    /// The keys alone, which costs a tenth of it: values of the index are not opened. So a row counts whose value somebody changed on the disk.
    fn scan_keys(
        &self,
        table: Table,
        range: &KeyRange,
        limit: usize,
        way: Direction,
    ) -> Result<Vec<Vec<u8>>, StoreError>;
    /// Length of the payload of record `lsn`, if it is still referred to.
    fn payload_len(&self, lsn: Lsn) -> Result<Option<u64>, StoreError>;
    /// Fills `buf` from the payload of record `lsn`, beginning `skip` bytes into it. `PayloadGone` if it was released:
    /// whoever raced with the release reads the rows again.
    fn read_payload(&self, lsn: Lsn, skip: u64, buf: &mut [u8]) -> Result<(), StoreError>;
}

/// The storage engine of a drive. Clones are handles of the same store; all calls may come from many threads at once.
/// Transactions that touch the same keys are ordered by the caller's own locks.
#[derive(Clone)]
pub struct Store {
    pub(crate) inner: Arc<Inner>,
    workers: Arc<Workers>,
}

impl Store {
    /// Opens the store, recovering what an earlier run left, or makes a new one on an empty medium.
    ///
    /// An index that does not open because its files are damaged is set aside and made again, if the log reaches back to the
    /// first record; else nothing is changed. Damage below the last durable mark opens read-only and is reported. Dropping the last handle without `close` is
    /// like killing the process: nothing answered is lost.
    pub fn open(
        medium: Arc<dyn StorageMedium>,
        index: IndexKind,
        keys: StoreKeys,
        options: StoreOptions,
        clock: Arc<dyn Clock>,
        rng: Arc<dyn Rng>,
    ) -> Result<(Store, RecoveryReport), StoreError> {
        let open = |purpose| {
            let (medium, index, keys) = (medium.clone(), index.clone(), keys.clone());
            Self::open_once(purpose, medium, index, keys, options.clone(), clock.clone(), rng.clone())
        };
        let opened = match open(Purpose::Normal) {
            Err(StoreError::NoSpace { .. }) if give_unopened(&*medium) => open(Purpose::Normal),
            other => other,
        };
        match opened {
            // What is there can be read all the same.
            Err(StoreError::NoSpace { what }) if recovery::has_segments(&*medium)? => {
                tracing::warn!(what, "the disk is full, and nothing was kept for that: opening read-only");
                open(Purpose::Reading)
            }
            other => other,
        }
    }

    fn open_once(
        purpose: Purpose,
        medium: Arc<dyn StorageMedium>,
        index: IndexKind,
        keys: StoreKeys,
        options: StoreOptions,
        clock: Arc<dyn Clock>,
        rng: Arc<dyn Rng>,
    ) -> Result<(Store, RecoveryReport), StoreError> {
        let index: Arc<dyn Index> = match index {
            IndexKind::Rocks(path) => {
                let write_buffer_bytes = write_buffer_bytes(&*medium, &options);
                let index_options = StoreOptions { write_buffer_bytes, ..options.clone() };
                match RocksIndex::open(&path, &index_options, purpose) {
                    Ok(index) => Arc::new(index),
                    Err(StoreError::IndexDamaged(what)) if recovery::has_segments(&*medium)? => {
                        let open = || {
                            let index = Arc::new(RocksIndex::open(&path, &index_options, purpose)?);
                            Store::open_over(purpose, medium, index, &keys, options.clone(), clock, rng)
                        };
                        return aside::open_without(&path, what, open);
                    }
                    Err(error) => return Err(error),
                }
            }
            IndexKind::Memory => Arc::new(MemoryIndex::new()),
            IndexKind::Shared(index) => Arc::new(index),
        };
        Store::open_over(purpose, medium, index, &keys, options, clock, rng)
    }

    fn open_over(
        purpose: Purpose,
        medium: Arc<dyn StorageMedium>,
        index: Arc<dyn Index>,
        keys: &StoreKeys,
        options: StoreOptions,
        clock: Arc<dyn Clock>,
        rng: Arc<dyn Rng>,
    ) -> Result<(Store, RecoveryReport), StoreError> {
        let nonces = Arc::new(NoncePool::new(rng));
        let wrap = LongCipher::new(&keys.log);
        let values = ValueCipher::new(&keys.index, nonces.clone());
        let tools = Tools { medium: &*medium, index: &*index, wrap: &wrap, nonces: &nonces, values: &values };
        let recovered = recovery::recover(&tools, purpose)?;
        let report = recovered.report.clone();
        let parts = Parts { medium, index, options, clock, nonces, wrap, values };
        let inner = Arc::new(parts.assemble(recovered)?);
        let workers =
            Workers::start(&inner).map_err(|error| StoreError::io("start threads", "store", error))?;
        Ok((Store { inner, workers: Arc::new(workers) }, report))
    }

    /// Makes the transaction's record. Returns its LSN when it and every lower one are written: the death of the process
    /// does not lose it. Readers see it before that. An empty transaction makes no record and returns `last_lsn`.
    ///
    /// After an error nothing happened, except after `ReadOnly`: then rows may be visible that the next start will not have.
    pub fn commit(&self, txn: Txn) -> Result<Lsn, StoreError> {
        self.inner.commit(txn)
    }

    /// Prepares file data (1 byte to 16 MiB) for a transaction. Above 64 KiB it is written now, before any LSN is taken.
    pub fn stage_payload(&self, plain: &[u8]) -> Result<Payload, StoreError> {
        self.inner.stage_payload(plain)
    }

    /// Returns when record `up_to` and all below it survive a power cut. Many callers share one sync of the medium.
    pub fn sync(&self, up_to: Lsn) -> Result<(), StoreError> {
        self.inner.sync(up_to)
    }

    /// The last record made.
    pub fn last_lsn(&self) -> Lsn {
        self.inner.log.lock().last_lsn()
    }

    /// The last record that survives a power cut.
    pub fn durable_lsn(&self) -> Lsn {
        self.inner.log.lock().durable_lsn
    }

    /// The store as of the last record. Costs writers nothing to speak of; keeps its rows in memory and its payloads on
    /// disk until dropped.
    pub fn snapshot(&self) -> Result<Snapshot, StoreError> {
        self.inner.snapshot(false)
    }

    /// A snapshot that later records know of (see [`Txn::put_after_cut`]): rows under cuts below its LSN are those of the records
    /// that it contains, and no later record adds to them. A start of the store is a cut, too.
    pub fn cut(&self) -> Result<Snapshot, StoreError> {
        self.inner.snapshot(true)
    }

    /// Brings the index up to the last record and retires dead segments. The background does it in time by itself.
    pub fn checkpoint(&self) -> Result<(), StoreError> {
        self.inner.checkpoint()
    }

    /// Somebody was turned away for want of room: has dead segments freed at once. Whether there are any.
    pub fn want_room(&self) -> bool {
        self.inner.want_room()
    }

    /// Who brings data was turned away: frees what is dead before it returns, for which it waits for the disk. Whether that was anything.
    pub fn make_room(&self) -> bool {
        self.inner.free_dead()
    }

    /// One round of background work, for stores opened without it.
    pub fn tick(&self) -> Result<(), StoreError> {
        self.inner.sync_tick()?;
        self.inner.index_tick()
    }

    /// Why the store takes no changes, if it does not.
    pub fn read_only(&self) -> Option<String> {
        match &self.inner.log.lock().mode {
            Mode::Normal => None,
            Mode::ReadOnly(reason) => Some(reason.clone()),
            Mode::Closed => Some("closed".to_owned()),
        }
    }

    pub fn usage(&self) -> Usage {
        self.inner.usage()
    }

    /// Reads every payload that a row refers to. Gives the records whose payloads do not open.
    pub fn scrub(&self) -> Result<Vec<Lsn>, StoreError> {
        self.inner.scrub()
    }

    /// Syncs, brings the index up to date and takes no more changes. Other handles get `Closed` from then on.
    pub fn close(self) -> Result<(), StoreError> {
        self.workers.stop();
        {
            let mut log = self.inner.log.lock();
            match &log.mode {
                Mode::Normal => {}
                Mode::ReadOnly(_) | Mode::Closed => {
                    log.mode = Mode::Closed;
                    return Ok(());
                }
            }
        }
        self.inner.checkpoint()?;
        let last = self.last_lsn();
        self.inner.sync(last)?;
        self.inner.write_mark(RecordKind::Close)?;
        self.inner.sync_all()?;
        self.inner.log.lock().mode = Mode::Closed;
        Ok(())
    }
}

impl Reads for Store {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>> {
        self.inner.get(table, key)
    }

    fn multi_get(&self, table: Table, keys: &[&[u8]]) -> Result<Vec<Option<Bytes>>> {
        self.inner.multi_get(table, keys)
    }

    fn scan(&self, table: Table, range: &KeyRange, limit: usize, way: Direction) -> Result<Vec<Row>> {
        self.inner.scan(table, range, limit, way)
    }

    fn scan_keys(
        &self,
        table: Table,
        range: &KeyRange,
        limit: usize,
        way: Direction,
    ) -> Result<Vec<Vec<u8>>> {
        self.inner.scan_keys(table, range, limit, way)
    }

    fn payload_len(&self, lsn: Lsn) -> Result<Option<u64>> {
        Ok(self.inner.place(lsn)?.map(|place| u64::from(place.len)))
    }

    fn read_payload(&self, lsn: Lsn, skip: u64, buf: &mut [u8]) -> Result<()> {
        let place = self.inner.place(lsn)?.ok_or(StoreError::PayloadGone(lsn))?;
        self.inner.read_place(&place, skip, buf)
    }
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Store(last {}, durable {})", self.last_lsn(), self.durable_lsn())
    }
}

/// What a store is made of besides what recovery found.
struct Parts {
    medium: Arc<dyn StorageMedium>,
    index: Arc<dyn Index>,
    options: StoreOptions,
    clock: Arc<dyn Clock>,
    nonces: Arc<NoncePool>,
    wrap: LongCipher,
    values: ValueCipher,
}

impl Parts {
    fn assemble(self, recovered: Recovered) -> Result<Inner> {
        let last = recovered.last_lsn;
        let no_room = || NO_ROOM.to_owned();
        let read_only =
            recovered.report.corruption.clone().or_else(|| recovered.report.no_room.then(no_room));
        let forge = Forge {
            medium: self.medium.clone(),
            nonces: self.nonces.clone(),
            wrap: self.wrap,
            store_id: recovered.store_id,
            epoch: recovered.epoch,
            epoch_first_lsn: last + 1,
            next_number: AtomicU64::new(recovered.next_segment),
            free: Mutex::new(recovered.free),
            failpoints: self.options.failpoints.clone(),
        };
        let mut segments = recovered.segments;
        let active = if read_only.is_none() {
            let active = forge.make(Kind::Log, first_size(&forge, &self.options))?;
            segments.insert(active.number(), active.clone());
            active
        } else {
            // Never appended to: the store is read-only.
            let last = recovery::logs(&segments).pop();
            last.ok_or_else(|| StoreError::corrupt("no log segment has a readable header"))?
        };
        let log = Log {
            mode: read_only.map_or(Mode::Normal, Mode::ReadOnly),
            next_lsn: last + 1,
            written_lsn: last,
            durable_lsn: last,
            marked_lsn: last,
            unsynced_logs: vec![active.clone()],
            active,
            offset: HEADER_BYTES as u64,
            spare: None,
            runs: VecDeque::new(),
            writing: false,
            syncing: false,
            ledger: recovered.ledger,
            cut: last,
            records_since_flush: recovered.report.replayed_records,
            bytes_since_flush: 0,
            flushed_at: self.clock.now(),
        };
        let ballast = Ballast::find(&*self.medium, self.options.ballast_bytes);
        Ok(Inner {
            delta_bytes: AtomicU64::new(recovered.layer.bytes as u64),
            view: RwLock::new(View { active: recovered.layer, frozen: Vec::new() }),
            cache: RowCache::new(self.options.row_cache_bytes),
            medium: self.medium,
            index: self.index,
            clock: self.clock,
            nonces: self.nonces,
            ballast,
            flush_again: AtomicBool::new(false),
            forge,
            values: self.values,
            checkpoint: Mutex::new(()),
            log: Mutex::new(log),
            log_changed: Condvar::new(),
            data: Mutex::new(DataTail::default()),
            segments: RwLock::new(segments),
            snapshots: Mutex::new(BTreeMap::new()),
            written: AtomicU64::new(last),
            applied: AtomicU64::new(recovered.applied),
            unsynced: AtomicU64::new(0),
            syncs: AtomicU64::new(0),
            syncs_failed: AtomicU64::new(0),
            bell: Arc::new(Bell::default()),
            options: self.options,
        })
    }
}

/// Of the first log segment of a start: a used one is there at once, a new one must not be large.
fn first_size(forge: &Forge, options: &StoreOptions) -> u64 {
    let usual = options.log_segment_bytes;
    if forge.has_free(Kind::Log, usual) { usual } else { usual.min(options.first_segment_bytes) }
}
