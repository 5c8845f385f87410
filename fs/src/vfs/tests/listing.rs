//! What a listing reads ahead of the questions that follow it.

use super::*;

fn attributes(drive: &Drive, entries: &[DirEntry]) -> Vec<Attr> {
    entries.iter().map(|entry| drive.vfs.getattr(entry.ino).unwrap()).collect()
}

#[test]
fn what_is_read_together_is_what_is_read_alone() {
    let drive = Drive::new();
    let dir = drive.dir("d");
    for n in 0..40u16 {
        let new = NewNode::file(0o600 | (n % 8), 0);
        let made = drive.vfs.create(&ROOT, dir, format!("f{n}").as_bytes(), &new).unwrap();
        drive.write(made.ino, 0, &vec![1; usize::from(n)]);
    }
    let drive = drive.killed();
    let entries = drive.vfs.readdir(dir, 0, 100).unwrap();
    drive.vfs.prepare(&entries);
    assert!(
        entries[2..].iter().all(|entry| drive.vfs.nodes.peek(entry.ino).is_some()),
        "nothing was read ahead"
    );
    let together = attributes(&drive, &entries);
    let drive = drive.killed();
    assert_eq!(together, attributes(&drive, &drive.vfs.readdir(dir, 0, 100).unwrap()));
}

#[test]
fn a_row_that_was_read_before_a_change_is_not_taken() {
    let drive = Drive::new();
    let ino = drive.file("f");
    drive.write(ino, 0, b"old");
    let drive = drive.killed();
    let rows = drive.vfs.rows();
    let as_of = rows.store().last_lsn();
    let old = rows.live().inode(ino).unwrap().unwrap();
    // Changed, and let go of by the cache.
    drive.write(ino, 0, b"newer");
    for n in 0..2000 {
        drive.file(&format!("other {n}"));
    }
    assert!(drive.vfs.nodes.peek(ino).is_none(), "the cache is larger than this test believes");
    drive.vfs.nodes.offer(rows, as_of, vec![(ino, old.clone())]);
    assert_eq!(drive.vfs.getattr(ino).unwrap().size, 5);
    // One that is newest is.
    let newest = rows.live().inode(ino).unwrap().unwrap();
    for n in 0..2000 {
        drive.file(&format!("another {n}"));
    }
    drive.vfs.nodes.offer(rows, rows.store().last_lsn(), vec![(ino, newest)]);
    assert!(drive.vfs.nodes.peek(ino).is_some());
    // And never over what is loaded.
    drive.vfs.nodes.offer(rows, rows.store().last_lsn(), vec![(ino, old)]);
    assert_eq!(drive.vfs.getattr(ino).unwrap().size, 5);
}

#[test]
fn inodes_far_apart_are_read_together_too() {
    let drive = Drive::new();
    let (dir, other) = (drive.dir("d"), drive.dir("other"));
    for n in 0..20 {
        drive.vfs.create(&ROOT, dir, format!("f{n}").as_bytes(), &NewNode::file(0o600 | n, 0)).unwrap();
        for m in 0..2 * super::super::dir::SPREAD_MAX {
            drive.vfs.create(&ROOT, other, format!("{n} {m}").as_bytes(), &NewNode::file(0o644, 0)).unwrap();
        }
    }
    let drive = drive.killed();
    let entries = drive.vfs.readdir(dir, 0, 100).unwrap();
    drive.vfs.prepare(&entries);
    assert!(entries[2..].iter().all(|entry| drive.vfs.nodes.peek(entry.ino).is_some()));
    let together = attributes(&drive, &entries);
    let drive = drive.killed();
    assert_eq!(together, attributes(&drive, &drive.vfs.readdir(dir, 0, 100).unwrap()));
}

/// A file that was never written to is deleted without a look for what was written to it; one that was is not.
#[test]
fn what_has_no_extents_is_known_when_it_comes_back() {
    let drive = Drive::new();
    let (empty, written) = (drive.file("empty"), drive.file("written"));
    drive.write(written, 0, b"bytes");
    let push_out = |name: &str| (0..2000).for_each(|n| _ = drive.file(&format!("{name} {n}")));
    push_out("a");
    let known = |ino| {
        assert!(drive.vfs.nodes.peek(ino).is_none(), "the cache is larger than this test believes");
        drive.vfs.getattr(ino).unwrap();
        drive.vfs.nodes.peek(ino).unwrap().read().extents.as_ref().map(|extents| extents.len())
    };
    assert_eq!((known(empty), known(written)), (Some(0), None));
    // And not for longer than it is so.
    drive.write(empty, 0, b"no more");
    push_out("b");
    assert_eq!(known(empty), None);
    drive.vfs.unlink(ROOT_INO, b"empty").unwrap();
    drive.vfs.unlink(ROOT_INO, b"written").unwrap();
    drive.assert_nothing_left();
}

/// A directory that is too large to be kept whole: what is free in it is known, and what is not is found, whatever came and went.
#[test]
fn names_of_a_large_directory_come_and_go() {
    let drive = Drive::new().reading_no_more_than(0);
    let dir = drive.dir("d");
    let name = |n: u64| format!("f{n}").into_bytes();
    let state_of = |drive: &Drive| {
        let node = drive.vfs.nodes.peek(dir).unwrap();
        let state = node.read();
        (state.dir.is_some(), state.names.is_some())
    };
    for n in 0..50 {
        drive.vfs.create(&ROOT, dir, &name(n), &NewNode::file(0o644, 0)).unwrap();
    }
    assert_eq!(state_of(&drive), (false, true));
    for n in 0..50 {
        assert_eq!(errno(drive.vfs.create(&ROOT, dir, &name(n), &NewNode::file(0o644, 0))), libc::EEXIST);
        assert_eq!(errno(drive.vfs.lookup(dir, &name(n + 50))), libc::ENOENT);
    }
    assert_eq!(state_of(&drive), (false, true));
    for n in (0..40).step_by(2) {
        drive.vfs.unlink(dir, &name(n)).unwrap();
        drive.vfs.rename((dir, &name(n + 1)), (dir, &name(n)), RenameMode::Replace).unwrap();
        drive.vfs.rename((dir, &name(n)), (dir, &name(49)), RenameMode::Replace).unwrap();
        assert_eq!(errno(drive.vfs.lookup(dir, &name(n))), libc::ENOENT);
        drive.vfs.create(&ROOT, dir, &name(n), &NewNode::file(0o644, 0)).unwrap();
    }
    let mut wanted: Vec<String> = (0..40).step_by(2).chain(40..50).map(|n| format!("f{n}")).collect();
    wanted.sort();
    assert_eq!(drive.names(dir), wanted);
    for n in (0..40).step_by(2).chain(40..50) {
        drive.vfs.lookup(dir, &name(n)).unwrap();
        drive.vfs.unlink(dir, &name(n)).unwrap();
    }
    drive.vfs.rmdir(ROOT_INO, b"d").unwrap();
    drive.assert_nothing_left();
}
