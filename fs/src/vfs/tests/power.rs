//! Power cuts and restarts: what was synced is there, and what is there is a prefix of what was done.

use super::*;
use crate::rows::OrphanRow;

/// Ways in which each cut falls.
const SEEDS: u64 = 4;

/// What a start after a power cut at this moment finds.
fn after_cut(drive: &Drive, seed: u64) -> Drive {
    Drive::start(drive.medium.power_cut(seed), drive.index.after_crash(), drive.chunks.clone())
}

fn version(n: u8) -> Vec<u8> {
    vec![n; 1_000 + 40_000 * usize::from(n)]
}

#[test]
fn what_was_synced_survives_a_power_cut() {
    let drive = Drive::new();
    let dir = drive.dir("d");
    // At each moment the document is one of these versions, whole.
    let check = |allowed: std::ops::RangeInclusive<u8>, moment: &str| {
        for seed in 0..SEEDS {
            let after = after_cut(&drive, seed);
            let found = after.vfs.resolve(b"d/document").map(|attr| after.read(attr.ino));
            let found = found.unwrap_or_else(|error| panic!("{moment}, cut {seed}: {error}"));
            assert!(
                allowed.clone().any(|n| version(n) == found),
                "{moment}, cut {seed}: {} bytes",
                found.len()
            );
        }
    };
    for n in 1..6u8 {
        let new = drive.vfs.create(&ROOT, dir, b"new", &NewNode::file(0o644, 0)).unwrap().ino;
        drive.write(new, 0, &version(n));
        if n > 1 {
            check(n - 1..=n - 1, "written beside");
        }
        drive.vfs.fsync(new).unwrap();
        drive.vfs.rename((dir, b"new"), (dir, b"document"), RenameMode::Replace).unwrap();
        if n > 1 {
            check(n - 1..=n, "renamed over");
        }
        // Either of both syncs makes the name durable.
        drive.vfs.fsync(if n % 2 == 0 { dir } else { new }).unwrap();
        check(n..=n, "synced");
    }
}

#[test]
fn a_power_cut_leaves_a_prefix() {
    let drive = Drive::new();
    for n in 0..40u8 {
        let ino = drive.file(&format!("{n:02}"));
        drive.write(ino, 0, &version(n % 3));
        if n == 11 {
            drive.vfs.fsync(ino).unwrap();
        }
    }
    for seed in 0..4 * SEEDS {
        let after = after_cut(&drive, seed);
        let names = after.names(ROOT_INO);
        assert!(names.len() >= 12, "cut {seed}: {names:?}");
        for (n, name) in names.iter().enumerate() {
            assert_eq!(*name, format!("{n:02}"), "cut {seed}");
            let found = after.read(after.vfs.lookup(ROOT_INO, name.as_bytes()).unwrap().ino);
            let whole = found == version(u8::try_from(n).unwrap() % 3);
            // The last one may have been cut between its two records.
            assert!(whole || (n + 1 == names.len() && found.is_empty()), "cut {seed}: {name}");
        }
    }
}

#[test]
fn positions_hold_across_a_restart() {
    let mut drive = Drive::new();
    for n in 0..100 {
        drive.file(&format!("f{n}"));
    }
    let (mut seen, mut cookie) = (Vec::new(), 2);
    loop {
        let page = drive.vfs.readdir(ROOT_INO, cookie, 9).unwrap();
        let Some(last) = page.last() else { break };
        cookie = last.cookie;
        seen.extend(page.iter().map(|entry| entry.name.clone()));
        drive = drive.killed();
    }
    seen.sort();
    seen.dedup();
    assert_eq!(seen.len(), 100);
}

/// A start over a damaged log can finish nothing, and must show what is there.
#[test]
fn a_damaged_log_is_shown_with_whatever_a_crash_left_unfinished() {
    let drive = Drive::new();
    let (cut, gone) = (drive.file("cut"), drive.file("gone"));
    drive.write(cut, 0, b"content");
    drive.vfs.open_file(gone).unwrap();
    drive.vfs.unlink(ROOT_INO, b"gone").unwrap();
    drive.vfs.setattr(&ROOT, cut, &SetAttr { size: Some(3), ..SetAttr::default() }).unwrap();
    let mut txn = drive.vfs.rows().begin();
    txn.put_orphan(cut, OrphanRow::Trim { from: 3 });
    txn.put_orphan(1 << 30, OrphanRow::Trim { from: 0 });
    txn.commit().unwrap();
    let before = drive.medium.contents();
    drive.file("damaged");
    let after = drive.medium.contents();
    drive.file("behind");
    let store = drive.vfs.rows().store();
    store.sync(store.last_lsn()).unwrap();
    store.tick().unwrap();
    let medium = drive.medium.killed();
    let (name, at) = after
        .iter()
        .find_map(|(name, bytes)| {
            let at = bytes.iter().zip(&before[name]).position(|(new, old)| new != old)?;
            Some((name, at + 60))
        })
        .unwrap();
    medium.open(name).unwrap().write_at(&[!after[name][at]], at as u64).unwrap();
    let drive = Drive::start(medium, drive.index.after_crash(), drive.chunks.clone());
    assert!(drive.vfs.rows().store().read_only().is_some(), "the damage was not met");
    assert_eq!(drive.names(ROOT_INO), ["cut"]);
    assert_eq!(drive.read(cut), b"con");
    assert_eq!(errno(drive.vfs.unlink(ROOT_INO, b"cut")), libc::EROFS);
}

/// What `sync` and `dirsync` ask of a mount.
#[test]
fn changes_that_are_synced_by_themselves_are_durable_when_they_return() {
    let drive = Drive::new();
    let (vfs, store) = (&drive.vfs, drive.vfs.rows().store());
    let mut n = 0;
    let mut check = |kind: Synced, names: bool, all: bool| {
        vfs.set_synced(kind);
        n += 1;
        let durable = |what: &str, expected: bool| {
            assert_eq!(store.durable_lsn() == store.last_lsn(), expected, "{what} under {kind:?}");
        };
        let dir = drive.dir(&format!("d{n}"));
        durable("mkdir", names);
        let ino = vfs.create(&ROOT, dir, b"f", &NewNode::file(0o644, 0)).unwrap().ino;
        durable("create", names);
        vfs.symlink(&ROOT, dir, b"s", b"x").unwrap();
        durable("symlink", names);
        vfs.link(ino, dir, b"g").unwrap();
        durable("link", names);
        vfs.rename((dir, b"g"), (dir, b"h"), RenameMode::Replace).unwrap();
        durable("rename", names);
        vfs.unlink(dir, b"h").unwrap();
        durable("unlink", names);
        vfs.setattr(&ROOT, ino, &SetAttr { perm: Some(0o600), ..SetAttr::default() }).unwrap();
        durable("chmod", all);
        vfs.setxattr(&ROOT, ino, b"user.a", b"1", SetMode::Either).unwrap();
        durable("setxattr", all);
        vfs.removexattr(ino, b"user.a").unwrap();
        durable("removexattr", all);
        vfs.fallocate(&ROOT, ino, 0, 100, AllocateMode::Reserve { keep_size: false }).unwrap();
        durable("fallocate", all);
    };
    check(Synced::Asked, false, false);
    check(Synced::Names, true, false);
    check(Synced::All, true, true);
}
