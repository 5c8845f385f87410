#![allow(clippy::unwrap_used)]

use std::ffi::OsStr;
use std::time::SystemTime;

use proptest::prelude::*;

use super::*;

const SEEDS: std::ops::Range<u64> = 0..200;

fn attributes(mode: u32) -> Attributes {
    let now = SystemTime::UNIX_EPOCH;
    Attributes {
        mode,
        uid: 0,
        gid: 0,
        rdev: 0,
        atime: now,
        mtime: now,
        ctime: now,
        xattrs: Default::default(),
    }
}

fn create(disk: &mut Disk, parent: Ino, name: &str) -> Ino {
    let kind = Kind::File(PagedFile::default());
    disk.create(parent, OsStr::new(name), kind, attributes(libc::S_IFREG | 0o644)).unwrap()
}

fn mkdir(disk: &mut Disk, parent: Ino, name: &str) -> Ino {
    disk.create(parent, OsStr::new(name), Kind::Folder, attributes(libc::S_IFDIR | 0o755)).unwrap()
}

fn rename(disk: &mut Disk, from: (Ino, &str), to: (Ino, &str)) {
    disk.rename((from.0, OsStr::new(from.1)), (to.0, OsStr::new(to.1)), 0).unwrap();
}

fn content(disk: &Disk, parent: Ino, name: &str) -> Option<Vec<u8>> {
    let ino = disk.lookup(parent, OsStr::new(name)).ok()?;
    let file = disk.file(ino).ok()?;
    Some(file.read(0, file.len() as usize))
}

#[test]
fn what_was_synced_survives_every_cut() {
    for seed in SEEDS {
        let mut disk = Disk::new(seed);
        let folder = mkdir(&mut disk, ROOT, "folder");
        let file = create(&mut disk, folder, "file");
        disk.write(file, 100, b"kept").unwrap();
        disk.sync_file(file).unwrap();
        disk.sync_folder(folder).unwrap();
        disk.sync_folder(ROOT).unwrap();
        disk.cut(seed);
        let bytes = content(&disk, folder, "file").unwrap();
        assert_eq!((bytes.len(), &bytes[100..]), (104, &b"kept"[..]));
    }
}

#[test]
fn what_was_not_synced_is_old_new_or_absent_and_all_three_happen() {
    let (mut absent, mut old, mut new) = (0, 0, 0);
    for seed in SEEDS {
        let mut disk = Disk::new(seed);
        let file = create(&mut disk, ROOT, "file");
        disk.write(file, 0, b"old").unwrap();
        disk.sync_file(file).unwrap();
        disk.write(file, 0, b"new").unwrap();
        disk.cut(seed);
        match content(&disk, ROOT, "file").as_deref() {
            None => absent += 1,
            Some(b"old") => old += 1,
            Some(b"new") => new += 1,
            other => panic!("seed {seed}: {other:?}"),
        }
    }
    assert!(absent > 20 && old > 5 && new > 5, "absent {absent}, old {old}, new {new}");
}

#[test]
fn fsync_of_a_file_does_not_keep_its_name() {
    let lost = SEEDS
        .filter(|seed| {
            let mut disk = Disk::new(*seed);
            let file = create(&mut disk, ROOT, "file");
            disk.sync_file(file).unwrap();
            disk.cut(*seed);
            content(&disk, ROOT, "file").is_none()
        })
        .count();
    assert!(lost > 20, "{lost}");
}

#[test]
fn a_synced_folder_without_its_own_name_is_lost() {
    let mut disk = Disk::new(0);
    let folder = mkdir(&mut disk, ROOT, "folder");
    create(&mut disk, folder, "file");
    disk.sync_folder(folder).unwrap();
    disk.cut(0);
    assert_eq!(disk.lookup(ROOT, OsStr::new("folder")), Err(libc::ENOENT));
}

#[test]
fn a_rename_over_happens_wholly_or_not_at_all() {
    let (mut old, mut new) = (0, 0);
    for seed in SEEDS {
        let mut disk = Disk::new(seed);
        let first = create(&mut disk, ROOT, "name");
        disk.write(first, 0, b"old").unwrap();
        disk.sync_file(first).unwrap();
        disk.sync_folder(ROOT).unwrap();
        let second = create(&mut disk, ROOT, "name.tmp");
        disk.write(second, 0, b"new").unwrap();
        disk.sync_file(second).unwrap();
        rename(&mut disk, (ROOT, "name.tmp"), (ROOT, "name"));
        disk.cut(seed);
        match content(&disk, ROOT, "name").as_deref() {
            Some(b"old") => old += 1,
            Some(b"new") => new += 1,
            other => panic!("seed {seed}: {other:?}"),
        }
    }
    assert!(old > 20 && new > 20, "old {old}, new {new}");
}

#[test]
fn a_rename_between_folders_is_synced_with_either_and_brings_the_creation_along() {
    for sync_target in [false, true] {
        let mut disk = Disk::new(0);
        let (from, to) = (mkdir(&mut disk, ROOT, "from"), mkdir(&mut disk, ROOT, "to"));
        disk.sync_folder(ROOT).unwrap();
        create(&mut disk, from, "file");
        rename(&mut disk, (from, "file"), (to, "file"));
        disk.sync_folder(if sync_target { to } else { from }).unwrap();
        disk.cut(0);
        assert!(content(&disk, from, "file").is_none());
        assert!(content(&disk, to, "file").is_some());
    }
}

#[test]
fn pages_are_torn_by_sector_and_dropped_apart_from_each_other() {
    let (mut torn, mut mixed) = (0, 0);
    for seed in SEEDS {
        let mut disk = Disk::new(seed);
        let file = create(&mut disk, ROOT, "file");
        disk.write(file, 0, &[1; 8 * PAGE]).unwrap();
        disk.sync_file(file).unwrap();
        disk.sync_folder(ROOT).unwrap();
        disk.write(file, 0, &[2; 8 * PAGE]).unwrap();
        disk.cut(seed);
        let bytes = content(&disk, ROOT, "file").unwrap();
        let sectors: Vec<u8> = bytes.chunks(512).map(|sector| sector[0]).collect();
        assert!(bytes.chunks(512).all(|sector| sector.iter().all(|byte| *byte == sector[0])));
        torn += usize::from(sectors.chunks(8).any(|page| page.iter().any(|sector| *sector != page[0])));
        mixed += usize::from(sectors.contains(&1) && sectors.contains(&2));
    }
    assert!(torn > 20 && mixed > 40, "torn {torn}, mixed {mixed}");
}

#[test]
fn a_lying_fsync_loses_what_it_acknowledged() {
    let mut disk = Disk::new(0);
    disk.ignore_fsync = true;
    let file = create(&mut disk, ROOT, "file");
    disk.sync_file(file).unwrap();
    disk.sync_folder(ROOT).unwrap();
    disk.cut(0);
    assert!(content(&disk, ROOT, "file").is_none());
}

#[test]
fn a_frozen_disk_acknowledges_nothing() {
    let mut disk = Disk::new(0);
    let file = create(&mut disk, ROOT, "file");
    disk.frozen = true;
    assert_eq!(disk.write(file, 0, b"x"), Err(libc::EIO));
    assert_eq!(disk.sync_file(file), Err(libc::EIO));
    assert_eq!(disk.sync_folder(ROOT), Err(libc::EIO));
    assert_eq!(disk.remove(ROOT, OsStr::new("file"), false), Err(libc::EIO));
    disk.cut(1);
    assert!(!disk.frozen);
}

#[test]
fn an_unlinked_file_stays_for_who_has_it_open_and_goes_with_the_last() {
    let mut disk = Disk::new(0);
    let file = create(&mut disk, ROOT, "file");
    disk.remember(file);
    disk.write(file, 0, b"still here").unwrap();
    disk.remove(ROOT, OsStr::new("file"), false).unwrap();
    assert_eq!(disk.file(file).unwrap().read(0, 64), b"still here");
    disk.sync_folder(ROOT).unwrap();
    disk.forget(file, 1);
    assert!(disk.node(file).is_err());
}

#[derive(Clone, Debug)]
enum Op {
    Write(u64, Vec<u8>),
    SetLen(u64),
    Zero(u64, u64),
    Sync,
}

fn op() -> impl Strategy<Value = Op> {
    let at = 0..5 * PAGE as u64;
    prop_oneof![
        (at.clone(), prop::collection::vec(any::<u8>(), 1..2 * PAGE))
            .prop_map(|(at, data)| Op::Write(at, data)),
        at.clone().prop_map(Op::SetLen),
        (at.clone(), at).prop_map(|(at, len)| Op::Zero(at, len)),
        Just(Op::Sync),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// Against a plain vector: reads are right, and a cut right after a sync changes nothing.
    #[test]
    fn a_file_is_its_bytes(ops in prop::collection::vec(op(), 1..30), seed in any::<u64>()) {
        let mut disk = Disk::new(seed);
        let file = create(&mut disk, ROOT, "file");
        let mut model: Vec<u8> = Vec::new();
        for op in ops {
            match op {
                Op::Write(at, data) => {
                    disk.write(file, at, &data).unwrap();
                    model.resize(model.len().max(at as usize + data.len()), 0);
                    model[at as usize..at as usize + data.len()].copy_from_slice(&data);
                }
                Op::SetLen(len) => {
                    disk.set_len(file, len).unwrap();
                    model.resize(len as usize, 0);
                }
                Op::Zero(at, len) => {
                    disk.zero(file, at, len).unwrap();
                    let end = (at + len).min(model.len() as u64);
                    if at < end {
                        model[at as usize..end as usize].fill(0);
                    }
                }
                Op::Sync => disk.sync_file(file).unwrap(),
            }
            prop_assert_eq!(content(&disk, ROOT, "file").unwrap(), model.clone());
        }
        disk.sync_file(file).unwrap();
        disk.sync_folder(ROOT).unwrap();
        disk.cut(seed);
        prop_assert_eq!(content(&disk, ROOT, "file").unwrap(), model);
    }
}
