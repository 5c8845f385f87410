//! The index in RocksDB: one column family, no write-ahead log (ours is the log), values sealed before they come here.

use std::ops::Bound;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use rocksdb::{
    BlockBasedIndexType, BlockBasedOptions, Cache, DB, DBCompressionType, DBRawIterator, LogLevel,
    LruCacheOptions, Options, ReadOptions, SnapshotWithThreadMode, WriteBatch, WriteOptions,
};

use super::{Batch, Index, IndexRead, Open, Visit, Write};
use crate::error::Result;
use crate::medium::make_folder;
use crate::recovery::Purpose;
use crate::{Direction, StoreError, StoreOptions};

pub(crate) struct RocksIndex(Arc<DB>);

impl From<rocksdb::Error> for StoreError {
    fn from(error: rocksdb::Error) -> Self {
        match error.kind() {
            rocksdb::ErrorKind::Corruption => StoreError::IndexDamaged(error.to_string()),
            // RocksDB has no kind for it, only the system's words.
            _ if error.as_ref().contains("No space left on device") => {
                StoreError::NoSpace { what: "the index" }
            }
            _ => StoreError::Index(error.to_string()),
        }
    }
}

/// Open files of the index at most; each costs its filter and index blocks.
const OPEN_FILES_MAX: i32 = 256;
/// The block cache has four parts. RocksDB's own choice, 64, makes each smaller than the blocks of one table's index, which
/// then push each other out: a look-up costs the reading and checking of half a megabyte.
const CACHE_SHARD_BITS: i32 = 2;
/// Ten bits a key: one absent key in a hundred costs a block read.
const BLOOM_BITS: f64 = 10.0;

/// Files that flushes have made, and that are merged into the others once there are so many: each has rows of all tables, so that a merge rewrites much of
/// what is there whatever their number. Whoever looks for a row asks all of them, or their filters.
const FRESH_FILES: i32 = 8;
/// From so many on who brings rows is slowed down, and stopped: the distances are RocksDB's own.
const FRESH_FILES_SLOW: i32 = FRESH_FILES + 16;
const FRESH_FILES_MAX: i32 = FRESH_FILES + 32;

impl RocksIndex {
    pub(crate) fn open(path: &Path, options: &StoreOptions, purpose: Purpose) -> Result<Self> {
        if !path.is_dir() && purpose == Purpose::Normal {
            make_folder(path).map_err(|error| {
                StoreError::io("create the index folder", &path.display().to_string(), error)
            })?;
        }
        let mut tables = BlockBasedOptions::default();
        let mut cache = LruCacheOptions::default();
        cache.set_capacity(options.block_cache_bytes);
        cache.set_num_shard_bits(CACHE_SHARD_BITS);
        tables.set_block_cache(&Cache::new_lru_cache_opts(&cache));
        tables.set_bloom_filter(BLOOM_BITS, false);
        // Index and filter in parts of a block's size, so that memory holds those that are used and a miss costs one of
        // them, whatever the size of the table.
        tables.set_index_type(BlockBasedIndexType::TwoLevelIndexSearch);
        tables.set_partition_filters(true);
        tables.set_cache_index_and_filter_blocks(true);
        tables.set_pin_top_level_index_and_filter(true);
        tables.set_pin_l0_filter_and_index_blocks_in_cache(true);
        tables.set_format_version(5);
        let mut settings = Options::default();
        settings.create_if_missing(true);
        settings.set_paranoid_checks(true);
        settings.set_block_based_table_factory(&tables);
        // Sealed values do not compress.
        settings.set_compression_type(DBCompressionType::None);
        settings.set_atomic_flush(true);
        settings.set_write_buffer_size(options.write_buffer_bytes);
        settings.set_max_write_buffer_number(2);
        settings.set_max_background_jobs(2);
        settings.set_max_open_files(OPEN_FILES_MAX);
        settings.set_keep_log_file_num(2);
        settings.set_max_log_file_size(1 << 20);
        settings.set_log_level(LogLevel::Warn);
        settings.set_stats_dump_period_sec(0);
        settings.set_stats_persist_period_sec(0);
        settings.set_bytes_per_sync(1 << 20);
        settings.set_level_zero_file_num_compaction_trigger(FRESH_FILES);
        settings.set_level_zero_slowdown_writes_trigger(FRESH_FILES_SLOW);
        settings.set_level_zero_stop_writes_trigger(FRESH_FILES_MAX);
        // Flushes and compaction have the priority of everybody. The lowest one gets a thousandth of the time on a machine that is never idle: fresh files
        // grow until those who write are stopped, and a thread that was lowered cannot be raised again without privileges.
        let opened = match purpose {
            Purpose::Normal => DB::open(&settings, path),
            Purpose::Reading => DB::open_for_read_only(&settings, path, false),
        };
        let database = opened.map_err(|error| match error.kind() {
            // A file that another one of the index names.
            rocksdb::ErrorKind::IOError if error.to_string().contains("No such file") => {
                StoreError::IndexDamaged(error.to_string())
            }
            _ => error.into(),
        })?;
        Ok(RocksIndex(Arc::new(database)))
    }
}

impl Index for RocksIndex {
    fn get(&self, key: &[u8], open: Open<'_>) -> Result<Option<Bytes>> {
        self.0.get_pinned(key)?.map(|value| open(&value)).transpose()
    }

    fn multi_get(&self, keys: &[&[u8]]) -> Result<Vec<Option<Vec<u8>>>> {
        self.0.multi_get(keys).into_iter().map(|found| Ok(found?)).collect()
    }

    fn snapshot(&self) -> Arc<dyn IndexRead> {
        Arc::new(RocksSnapshot::new(self.0.clone()))
    }

    fn write(&self, batch: Batch<'_>, bytes: usize) -> Result<()> {
        // At once: as it grows all of it would be copied time and again.
        let mut rows = WriteBatch::with_capacity_bytes(bytes);
        for row in batch {
            match row? {
                Write::Put(key, value) => rows.put(key, value),
                Write::Delete(key) => rows.delete(key),
                Write::DeleteRange(from, to) => rows.delete_range(from, to),
            }
        }
        let mut settings = WriteOptions::default();
        settings.disable_wal(true);
        Ok(self.0.write_opt(rows, &settings)?)
    }

    fn flush(&self) -> Result<()> {
        Ok(self.0.flush()?)
    }

    fn disk_bytes(&self) -> u64 {
        self.0.property_int_value("rocksdb.total-sst-files-size").ok().flatten().unwrap_or(0)
    }
}

struct RocksSnapshot {
    /// Before `_db`: fields are dropped in this order, and the snapshot needs the database.
    snapshot: SnapshotWithThreadMode<'static, DB>,
    _db: Arc<DB>,
}

impl RocksSnapshot {
    fn new(db: Arc<DB>) -> Self {
        // SAFETY: the reference is into the heap allocation of the `Arc`, which the struct holds as long as the snapshot
        // and drops after it; nothing hands the long lifetime out.
        let long: &'static DB = unsafe { &*Arc::as_ptr(&db) };
        RocksSnapshot { snapshot: long.snapshot(), _db: db }
    }
}

impl IndexRead for RocksSnapshot {
    fn get(&self, key: &[u8], open: Open<'_>) -> Result<Option<Bytes>> {
        self.snapshot.get_pinned(key)?.map(|value| open(&value)).transpose()
    }

    fn scan(
        &self,
        start: Bound<&[u8]>,
        end: Bound<&[u8]>,
        direction: Direction,
        visit: Visit<'_>,
    ) -> Result<()> {
        Ok(self.scan_with(ReadOptions::default(), start, end, direction, visit)?)
    }

    fn scan_unless_gone(&self, start: &[u8], end: &[u8], gone_max: u64, visit: Visit<'_>) -> Result<bool> {
        let mut settings = ReadOptions::default();
        settings.set_max_skippable_internal_keys(gone_max);
        let (start, end) = (Bound::Included(start), Bound::Excluded(end));
        match self.scan_with(settings, start, end, Direction::Forward, visit) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == rocksdb::ErrorKind::Incomplete => Ok(false),
            Err(error) => Err(error.into()),
        }
    }
}

impl RocksSnapshot {
    fn scan_with(
        &self,
        mut settings: ReadOptions,
        start: Bound<&[u8]>,
        end: Bound<&[u8]>,
        direction: Direction,
        visit: Visit<'_>,
    ) -> std::result::Result<(), rocksdb::Error> {
        if let Bound::Included(key) | Bound::Excluded(key) = start {
            settings.set_iterate_lower_bound(key);
        }
        match end {
            Bound::Excluded(key) => settings.set_iterate_upper_bound(key),
            // The least key greater than `key`.
            Bound::Included(key) => settings.set_iterate_upper_bound([key, &[0]].concat()),
            Bound::Unbounded => {}
        }
        let mut rows: DBRawIterator<'_> = self.snapshot.raw_iterator_opt(settings);
        match direction {
            Direction::Forward => rows.seek_to_first(),
            Direction::Reverse => rows.seek_to_last(),
        }
        while let Some((key, value)) = rows.item() {
            let excluded = matches!(start, Bound::Excluded(start) if start == key);
            if !excluded && !visit(key, value) {
                return Ok(());
            }
            match direction {
                Direction::Forward => rows.next(),
                Direction::Reverse => rows.prev(),
            }
        }
        rows.status()
    }
}
