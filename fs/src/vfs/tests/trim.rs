//! Truncations of files with more extents than go in one record.

use std::sync::atomic::AtomicBool;

use holdfast_store::medium::{Fault, FaultOp};
use holdfast_store::{Failpoints, FaultMedium};

use super::*;
use crate::rows::OrphanRow;
use crate::vfs::attr::BLOCK_BYTES;
use crate::vfs::remove::REMOVE_ROWS_MAX;

/// A file with so many extents, each of three bytes.
fn file_of(drive: &Drive, extents: u64) -> Ino {
    let ino = drive.file("f");
    for i in 0..extents {
        drive.write(ino, i * 8, &[i as u8 | 1; 3]);
    }
    ino
}

/// A drive whose log segments are smaller than one of the large records, on a medium that can be full.
fn with_small_segments() -> (Drive, Arc<FaultMedium>) {
    let medium = CrashMedium::new();
    let faulty = Arc::new(FaultMedium::new(Arc::new(medium.clone())));
    let options =
        StoreOptions { log_segment_bytes: 64 << 10, first_segment_bytes: 32 << 10, ..store_options() };
    let drive = Drive::start_on(medium, faulty.clone(), MemoryIndex::new(), Arc::default(), options);
    (drive, faulty)
}

/// Goes on until there is room for small records, and none for large ones.
fn begin_segment(drive: &Drive) {
    let store = drive.vfs.rows().store();
    let before = store.usage().segments;
    for perm in [0o755, 0o700].into_iter().cycle() {
        if store.usage().segments > before {
            break;
        }
        let set = SetAttr { perm: Some(perm), ..SetAttr::default() };
        drive.vfs.setattr(&ROOT, ROOT_INO, &set).unwrap();
    }
}

fn truncate(drive: &Drive, ino: Ino, size: u64) -> Result<Attr, FsError> {
    drive.vfs.setattr(&ROOT, ino, &SetAttr { size: Some(size), ..SetAttr::default() })
}

fn orphans(drive: &Drive) -> usize {
    drive.vfs.rows().live().orphans(0, 10).unwrap().len()
}

#[test]
fn a_truncation_that_a_crash_interrupted_cuts_once() {
    let (medium, index) = (CrashMedium::new(), MemoryIndex::new());
    let (images, armed) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicBool::new(false)));
    let hook = {
        let (medium, index, images, armed) = (medium.clone(), index.clone(), images.clone(), armed.clone());
        Arc::new(move |name: &'static str| {
            if name == "log.write.after" && armed.load(Ordering::Relaxed) {
                images.lock().push((medium.killed(), index.after_crash()));
            }
        })
    };
    let options = StoreOptions { failpoints: Failpoints::with_hook(hook), ..store_options() };
    let beneath = Arc::new(medium.clone());
    let drive = Drive::start_on(medium, beneath, index, Arc::default(), options);
    let ino = file_of(&drive, 5_000);
    armed.store(true, Ordering::Relaxed);
    truncate(&drive, ino, 4).unwrap();
    armed.store(false, Ordering::Relaxed);
    let images = std::mem::take(&mut *images.lock());
    assert!(images.len() >= 4, "a mark, two records full, and the end: {}", images.len());
    for (nth, (medium, index)) in images.into_iter().enumerate() {
        let mut after = Drive::start(medium, index, drive.chunks.clone());
        assert_eq!(after.read(ino), [1, 1, 1, 0], "after record {nth}");
        assert_eq!(orphans(&after), 0, "after record {nth}");
        assert_eq!(after.vfs.getattr(ino).unwrap().blocks * 512, BLOCK_BYTES, "after record {nth}");
        after.write(ino, 100, b"newer");
        after.vfs.fsync(ino).unwrap();
        let mut expected = vec![0; 105];
        expected[..3].fill(1);
        expected[100..].copy_from_slice(b"newer");
        for start in 1..3 {
            after = after.killed();
            assert_eq!(after.read(ino), expected, "after record {nth}, start {start}");
        }
        after.assert_nothing_left();
    }
}

#[test]
fn a_truncation_that_a_full_disk_interrupted_is_ended_before_the_file_grows() {
    let (drive, faulty) = with_small_segments();
    let ino = file_of(&drive, 5_000);
    begin_segment(&drive);
    faulty.plan(FaultOp::Create, 1, u64::MAX, Fault::Errno(libc::ENOSPC));
    assert_eq!(truncate(&drive, ino, 4).unwrap().size, 4);
    assert_eq!(orphans(&drive), 1, "the disk was not full in the middle");
    assert_eq!(drive.read(ino), [1, 1, 1, 0]);
    // Whoever would show what is behind the end has to wait until it is gone.
    assert_eq!(errno(truncate(&drive, ino, 20_000)), libc::ENOSPC);
    assert_eq!(errno(drive.vfs.write(ino, 100, b"x", WriteMode::default())), libc::ENOSPC);
    let grow = AllocateMode::Reserve { keep_size: false };
    assert_eq!(errno(drive.vfs.fallocate(&ROOT, ino, 0, 20_000, grow)), libc::ENOSPC);
    faulty.heal();
    truncate(&drive, ino, 20_000).unwrap();
    let mut expected = vec![0; 20_000];
    expected[..3].fill(1);
    assert_eq!(drive.read(ino), expected);
    assert_eq!(orphans(&drive), 0);
    let drive = drive.killed();
    assert_eq!(drive.read(ino), expected);
    drive.assert_nothing_left();
}

#[test]
fn a_truncation_that_a_full_disk_interrupted_is_ended_by_housekeeping_or_by_the_death_of_the_file() {
    for remove in [false, true] {
        let (drive, faulty) = with_small_segments();
        let ino = file_of(&drive, 5_000);
        begin_segment(&drive);
        faulty.plan(FaultOp::Create, 1, u64::MAX, Fault::Errno(libc::ENOSPC));
        truncate(&drive, ino, 4).unwrap();
        assert_eq!(orphans(&drive), 1);
        faulty.heal();
        if remove {
            drive.vfs.unlink(ROOT_INO, b"f").unwrap();
        }
        while drive.vfs.reclaim(1 << 20).unwrap() {}
        assert_eq!(orphans(&drive), 0);
        drive.assert_nothing_left();
    }
}

#[test]
fn a_mark_that_outlived_its_truncation_cuts_nothing() {
    let drive = Drive::new();
    let ino = drive.file("f");
    drive.write(ino, 0, b"content");
    let mut txn = drive.vfs.rows().begin();
    txn.put_orphan(ino, OrphanRow::Trim { from: 3 });
    txn.commit().unwrap();
    let drive = drive.killed();
    assert_eq!(drive.read(ino), b"content");
    assert_eq!(orphans(&drive), 0);
}

#[test]
fn what_fits_in_one_record_goes_in_one() {
    let drive = Drive::new();
    let ino = file_of(&drive, REMOVE_ROWS_MAX as u64);
    let last = drive.vfs.rows().store().last_lsn();
    truncate(&drive, ino, 0).unwrap();
    assert_eq!(drive.vfs.rows().store().last_lsn(), last + 1);
    drive.assert_nothing_left();
}

#[test]
fn a_name_of_many_extents_goes_without_reading_them_all() {
    let drive = Drive::new();
    let ino = file_of(&drive, 5_000);
    let drive = drive.killed();
    drive.vfs.unlink(ROOT_INO, b"f").unwrap();
    assert_eq!(orphans(&drive), 1, "it goes in steps");
    assert!(drive.vfs.nodes.peek(ino).unwrap().read().extents.is_none());
    while drive.vfs.reclaim(1).unwrap() {}
    assert_eq!(orphans(&drive), 0);
    drive.assert_nothing_left();
}

#[test]
fn a_name_that_is_gone_is_gone_whatever_becomes_of_the_rows() {
    for rename in [false, true] {
        let (drive, faulty) = with_small_segments();
        file_of(&drive, 5_000);
        drive.file("new");
        begin_segment(&drive);
        faulty.plan(FaultOp::Create, 0, u64::MAX, Fault::Errno(libc::ENOSPC));
        match rename {
            false => drive.vfs.unlink(ROOT_INO, b"f").unwrap(),
            true => drive.vfs.rename((ROOT_INO, b"new"), (ROOT_INO, b"f"), RenameMode::Replace).unwrap(),
        }
        assert_eq!(drive.names(ROOT_INO), if rename { ["f"] } else { ["new"] });
        assert!(drive.vfs.reclaim(1).is_err() && orphans(&drive) == 1, "the disk was not full");
        faulty.heal();
        while drive.vfs.reclaim(1 << 20).unwrap() {}
        assert_eq!(orphans(&drive), 0);
        drive.assert_nothing_left();
    }
}
