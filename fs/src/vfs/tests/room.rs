//! A full disk on which a large file is deleted: the very next write finds its room, whatever the file took and whoever else wants it.

use holdfast_store::medium::SmallMedium;

use super::*;
use crate::vfs::remove::REMOVE_ROWS_MAX;

const DISK: u64 = 24 << 20;
const SEGMENT: u64 = 4 << 20;
const PART: usize = 100 << 10;

fn start(disk: &SmallMedium) -> Drive {
    let options = StoreOptions {
        data_segment_bytes: SEGMENT,
        recycled_segments_max: 1,
        ballast_bytes: 1 << 20,
        ..store_options()
    };
    let (beneath, index) = (Arc::new(disk.clone()), MemoryIndex::new());
    Drive::start_on(disk.beneath().clone(), beneath, index, Arc::default(), options)
}

fn part(n: u64) -> Vec<u8> {
    (0..PART as u64).map(|i| (i * 7 + n) as u8).collect()
}

/// Data until the disk has no room for more, then extents of three bytes: far too many to go with the name.
fn large_file(drive: &Drive) -> Ino {
    let ino = drive.file("large");
    let mut at = 1 << 30;
    for i in 0..3 * REMOVE_ROWS_MAX as u64 {
        drive.write(ino, i * 8, b"abc");
    }
    loop {
        match drive.vfs.write(ino, at, &part(at), WriteMode::default()) {
            Ok(written) => at += written as u64,
            Err(error) => {
                assert_eq!(error.errno(), libc::ENOSPC);
                return ino;
            }
        }
    }
}

#[test]
fn what_a_large_deleted_file_held_is_there_for_the_very_next_write() {
    for others_want_it in [false, true] {
        let disk = SmallMedium::new(DISK);
        let drive = start(&disk);
        let kept = drive.file("kept");
        drive.write(kept, 0, b"kept");
        drive.vfs.rows().store().tick().unwrap();
        large_file(&drive);
        if others_want_it {
            disk.let_others_fill_it();
        }
        drive.vfs.unlink(ROOT_INO, b"large").unwrap();
        assert!(!drive.vfs.rows().live().orphans(0, 10).unwrap().is_empty(), "it went at once");
        let next = drive.file("next");
        for n in 0..20 {
            drive.write(next, n * PART as u64, &part(n));
        }
        drive.vfs.fsync(next).unwrap();
        let expected: Vec<u8> = (0..20).flat_map(part).collect();
        assert_eq!(drive.read(next), expected, "others: {others_want_it}");
        assert_eq!(drive.read(kept), b"kept");
        drive.assert_nothing_left();
    }
}
