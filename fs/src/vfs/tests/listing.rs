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
