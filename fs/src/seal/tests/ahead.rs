//! Reading from the network: what is asked for together, ahead, and once.

use std::collections::HashMap;

use holdfast_content::block::{Block, BlockAt, cid_from_digest};
use holdfast_content::retrieve::{FetchError, Priority, Retriever};
use parking_lot::{Condvar, Mutex};

use super::*;

/// Chunks of the file that is read.
const CHUNKS: u64 = 120;
/// Looks of a millisecond; nothing here takes so many but on a machine that stands still.
const LOOKS_MAX: usize = 30_000;

/// A retriever that remembers what it was asked, and can hold back what nobody waits for.
#[derive(Default)]
struct Told {
    inner: FakeRetriever,
    /// Blocks asked in one call, and how urgently.
    calls: Mutex<Vec<(Vec<BlockAt>, Priority)>>,
    held: Mutex<bool>,
    released: Condvar,
}

impl Retriever for Told {
    fn fetch(
        &self,
        wants: &[BlockAt],
        priority: Priority,
        deadline: Duration,
    ) -> Vec<Result<Block, FetchError>> {
        self.calls.lock().push((wants.to_vec(), priority));
        if priority == Priority::Readahead {
            let mut held = self.held.lock();
            while *held {
                self.released.wait(&mut held);
            }
        }
        self.inner.fetch(wants, priority, deadline)
    }
}

impl Told {
    /// How often each of these blocks was asked for, with this priority.
    fn asked(&self, of: &[cid::Cid], priority: Priority) -> HashMap<cid::Cid, usize> {
        let mut counts = HashMap::new();
        for (wants, _) in self.calls.lock().iter().filter(|(_, said)| *said == priority) {
            for want in wants.iter().filter(|want| of.contains(&want.cid)) {
                *counts.entry(want.cid).or_default() += 1;
            }
        }
        counts
    }
}

struct Far {
    told: Arc<Told>,
    drive: Drive,
    ino: Ino,
    plain: Vec<u8>,
    cids: Vec<cid::Cid>,
}

/// A restored drive with one file whose chunks are elsewhere.
fn far(threads: usize) -> Far {
    let first = open(&Media::default());
    let ino = create(first.vfs(), ROOT_INO, "film");
    let plain = noise(7, (CHUNKS * CHUNK) as usize);
    write(first.vfs(), ino, 0, &plain);
    let commit = first.seal().unwrap().unwrap();
    let told = Arc::new(Told::default());
    publish(&first, &told.inner);
    let point = RestorePoint {
        commit: commit.commit.clone(),
        complete: None,
        location_root: commit.location_root.clone(),
    };
    let options = DriveOptions {
        readahead_threads: threads,
        chunk_cache_bytes_max: (4 * 16 * CHUNK) as usize,
        ..options()
    };
    let home = Media::default().home();
    let drive =
        Drive::attach_on(home, keys(), store_keys(), options, vfs_options(), point, told.clone(), ambient())
            .unwrap();
    let rows = first.vfs().rows().live().chunks(ino, 0, u64::MAX, usize::MAX).unwrap();
    let cids = rows
        .iter()
        .map(|(_, row)| cid_from_digest(holdfast_content::block::CODEC_RAW, &row.digest))
        .collect::<Vec<_>>();
    assert_eq!(cids.len() as u64, CHUNKS);
    Far { told, drive, ino, plain, cids }
}

fn wait(mut done: impl FnMut() -> bool) {
    let came = (0..LOOKS_MAX).any(|_| {
        std::thread::sleep(Duration::from_millis(1));
        done()
    });
    assert!(came, "it never came");
}

impl Far {
    fn read(&self, chunk: u64, chunks: u64) {
        let mut buf = vec![0; (chunks * CHUNK) as usize];
        let at = chunk * CHUNK;
        assert_eq!(self.drive.vfs().read(self.ino, at, &mut buf).unwrap(), buf.len());
        assert!(buf == self.plain[at as usize..][..buf.len()], "chunk {chunk}");
    }

    /// Waits until a chunk is here without anybody having waited for it.
    fn comes(&self, chunk: u64) {
        let vfs = self.drive.vfs();
        let at = chunk * CHUNK;
        wait(|| {
            vfs.read_without_waiting(self.ino, at, &mut [0], crate::vfs::Atime::Stays).unwrap().is_some()
        });
    }
}

#[test]
fn who_reads_in_order_waits_twice_and_each_chunk_is_asked_for_once() {
    let far = far(3);
    for chunk in 0..CHUNKS {
        if chunk > 1 {
            far.comes(chunk);
        }
        far.read(chunk, 1);
    }
    let waited = far.told.asked(&far.cids, Priority::Interactive);
    let ahead = far.told.asked(&far.cids, Priority::Readahead);
    assert_eq!(waited.len(), 2, "{waited:?}");
    assert_eq!(ahead.len() as u64, CHUNKS - 2);
    assert!(waited.values().chain(ahead.values()).all(|times| *times == 1));
}

#[test]
fn who_jumps_about_moves_what_he_reads_and_nothing_else() {
    let far = far(3);
    for chunk in [60, 3, 111, 40, 85, 20, 97, 11, 70, 50] {
        far.read(chunk, 1);
    }
    assert!(far.told.asked(&far.cids, Priority::Readahead).is_empty());
    assert_eq!(far.told.asked(&far.cids, Priority::Interactive).len(), 10);
}

#[test]
fn what_one_read_needs_is_asked_for_together() {
    let far = far(0);
    far.read(30, 8);
    let calls = far.told.calls.lock();
    let of_file: Vec<usize> = calls
        .iter()
        .map(|(wants, _)| wants.iter().filter(|want| far.cids.contains(&want.cid)).count())
        .filter(|count| *count > 0)
        .collect();
    assert_eq!(of_file, [8]);
}

#[test]
fn who_waits_is_served_before_what_nobody_waits_for() {
    let far = far(3);
    *far.told.held.lock() = true;
    // The second read has the next chunks fetched ahead, which never ends.
    far.read(0, 1);
    far.read(1, 1);
    wait(|| far.told.calls.lock().iter().any(|(_, priority)| *priority == Priority::Readahead));
    far.read(2, 1);
    assert_eq!(far.told.asked(&far.cids, Priority::Interactive).len(), 3);
    *far.told.held.lock() = false;
    far.told.released.notify_all();
}

#[test]
fn what_cannot_be_fetched_ahead_is_no_error_until_somebody_asks() {
    let far = far(3);
    far.told.inner.corrupt(far.cids[3]);
    far.read(0, 1);
    far.read(1, 1);
    far.comes(2);
    let mut buf = [0; 16];
    let failed = far.drive.vfs().read(far.ino, 3 * CHUNK, &mut buf);
    assert!(
        matches!(failed, Err(crate::vfs::FsError::Damaged(_) | crate::vfs::FsError::TimedOut)),
        "{failed:?}"
    );
    far.read(4, 1);
}
