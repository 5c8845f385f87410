//! Small stores on media that crash, with time and chance under control.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use rand_chacha::ChaCha12Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};

use crate::{
    Clock, CrashMedium, IndexKind, MemoryIndex, RecoveryReport, Rng, StorageMedium, Store, StoreError,
    StoreKeys, StoreOptions,
};

pub(super) struct SeededRng(Mutex<ChaCha12Rng>);

impl SeededRng {
    pub(super) fn new(seed: u64) -> Self {
        SeededRng(Mutex::new(ChaCha12Rng::seed_from_u64(seed)))
    }
}

impl Rng for SeededRng {
    fn fill(&self, bytes: &mut [u8]) {
        self.0.lock().fill_bytes(bytes)
    }
}

/// Time that stands still.
#[derive(Default)]
pub(super) struct HandClock(Mutex<Duration>);

impl Clock for HandClock {
    fn now(&self) -> Duration {
        *self.0.lock()
    }
}

pub(super) fn keys() -> StoreKeys {
    StoreKeys { log: [1; 32], index: [2; 32] }
}

/// Everything small, so that segments roll and layers freeze within a few records.
pub(super) fn small() -> StoreOptions {
    StoreOptions {
        log_segment_bytes: 64 << 10,
        first_segment_bytes: 32 << 10,
        data_segment_bytes: 512 << 10,
        recycled_segments_max: 2,
        row_cache_bytes: 64 << 10,
        background: false,
        ..StoreOptions::default()
    }
}

pub(super) fn open_on(
    medium: Arc<dyn StorageMedium>,
    index: IndexKind,
    options: StoreOptions,
) -> Result<(Store, RecoveryReport), StoreError> {
    // Another seed at each opening, as a machine has.
    #[allow(clippy::disallowed_methods)]
    let seed = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_nanos() as u64;
    Store::open(
        medium,
        index,
        keys(),
        options,
        Arc::new(HandClock::default()),
        Arc::new(SeededRng::new(seed)),
    )
}

pub(super) fn open(medium: &CrashMedium, index: &MemoryIndex) -> (Store, RecoveryReport) {
    open_on(Arc::new(medium.clone()), IndexKind::Shared(index.clone()), small()).unwrap()
}

pub(super) fn fresh() -> (CrashMedium, MemoryIndex, Store) {
    let (medium, index) = (CrashMedium::new(), MemoryIndex::new());
    let (store, report) = open(&medium, &index);
    assert!(report.created);
    (medium, index, store)
}

/// Bytes that do not repeat within a payload.
pub(super) fn pattern(seed: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    ChaCha12Rng::seed_from_u64(seed).fill_bytes(&mut bytes);
    bytes
}
