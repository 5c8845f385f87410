//! What a seal looks at: all that changed, however many rounds and cuts it is spread over, and nothing else.

use std::collections::BTreeSet;
use std::sync::OnceLock;

use holdfast_store::{Direction, KeyRange, Lsn, Reads, Store, Table, Txn};

use super::*;
use crate::rows::marks::{ChangedKeys, any};

fn all_marks(store: &Store) -> Vec<Vec<u8>> {
    let page = store.scan(Table::Changed, &KeyRange::all(), usize::MAX, Direction::Forward).unwrap();
    page.into_iter().map(|(key, _)| key).collect()
}

fn changed(store: &Store, after: Lsn) -> Vec<Vec<u8>> {
    let mut keys = ChangedKeys::all(store, after).unwrap();
    std::iter::from_fn(|| keys.next().unwrap()).collect()
}

#[test]
fn marks_under_several_cuts_come_once_and_in_order() {
    let drive = open(&Media::default());
    let (vfs, store) = (drive.vfs(), drive.store());
    let ino = create(vfs, ROOT_INO, "a");
    let first = store.cut().unwrap().lsn();
    write(vfs, ino, 0, b"one");
    let other = create(vfs, ROOT_INO, "b");
    let second = store.cut().unwrap().lsn();
    write(vfs, ino, 0, b"two");
    assert!(any(store, second).unwrap());
    let all = changed(store, 0);
    assert!(all.is_sorted_by(|a, b| a < b), "each once");
    let inode = |ino| crate::rows::keys::full(Table::Inode, &crate::rows::keys::inode(ino));
    assert!(all.contains(&inode(ino)) && all.contains(&inode(other)));
    assert!(changed(store, first).contains(&inode(other)));
    assert_eq!(changed(store, second), [inode(ino)]);
    let third = store.cut().unwrap().lsn();
    assert_eq!(changed(store, third), Vec::<Vec<u8>>::new());
    assert!(!any(store, third).unwrap());
}

#[test]
fn after_a_commit_no_mark_is_left() {
    let drive = open(&Media::default());
    let vfs = drive.vfs();
    for n in 0..20 {
        write(vfs, create(vfs, ROOT_INO, &format!("{n}")), 0, &noise(n, 9000));
        if n % 7 == 0 {
            seal_and_prove(&drive).unwrap();
            assert_eq!(all_marks(drive.store()), Vec::<Vec<u8>>::new());
        }
    }
    let before = drive.store().last_lsn();
    write(vfs, create(vfs, ROOT_INO, "last"), 0, b"x");
    let marked = all_marks(drive.store());
    assert!(!marked.is_empty());
    assert!(marked.iter().all(|key| Lsn::from_be_bytes(*key.first_chunk().unwrap()) <= before));
}

/// While a seal takes many rounds, files before and behind the point that it has reached change, come and go.
#[test]
fn what_changes_between_the_rounds_is_in_the_commit() {
    for seed in 0..8u64 {
        let media = Media::default();
        let vfs_of_drive: Arc<OnceLock<Arc<Vfs>>> = Arc::default();
        let (rounds, vfs_in_hook) = (Arc::new(AtomicU64::new(0)), vfs_of_drive.clone());
        let counted = rounds.clone();
        let edges = Edges::with_hook(Arc::new(move |name| {
            let (Some(vfs), "seal.cut") = (vfs_in_hook.get(), name) else { return };
            let nth = counted.fetch_add(1, Ordering::Relaxed);
            if nth >= 6 {
                return;
            }
            let at = |n: u64| (seed * 5 + nth * 11 + n * 7) % 24;
            let ino = |n: u64| vfs.lookup(ROOT_INO, format!("{n:02}").as_bytes()).map(|attr| attr.ino);
            for n in 0..3 {
                if let Ok(ino) = ino(at(n)) {
                    write(vfs, ino, (nth * 1000) % 9000, &noise(seed + nth, 3000));
                }
            }
            let _ = vfs.unlink(ROOT_INO, format!("{:02}", at(3)).as_bytes());
            write(vfs, create(vfs, ROOT_INO, &format!("new {nth}")), 0, &noise(nth, 5000));
            if let Ok(ino) = ino(at(4)) {
                truncate(vfs, ino, 100);
            }
        }));
        let options = DriveOptions { seal_round_bytes_max: 20_000, edges, ..options() };
        let drive = open_with(&media, options);
        let vfs = drive.vfs();
        for n in 0..24 {
            write(vfs, create(vfs, ROOT_INO, &format!("{n:02}")), 0, &noise(100 + n, 9000));
        }
        vfs_of_drive.set(vfs.clone()).ok().unwrap();
        drive.seal().unwrap().unwrap();
        check(&drive);
        assert!(rounds.load(Ordering::Relaxed) > 6, "{rounds:?} rounds");
        // What came after the last cut.
        seal_and_prove(&drive);
        assert_eq!(drive.usage().unwrap().staged_bytes, 0, "nothing was passed over");
        assert_eq!(drive.seal().unwrap(), None);
    }
}

/// A home of the first layout: marks by table and key, with the LSN of the change.
#[test]
fn marks_of_the_first_layout_are_brought_over() {
    let media = Media::default();
    let drive = open(&media);
    let vfs = drive.vfs();
    let old = create(vfs, ROOT_INO, "committed");
    write(vfs, old, 0, &noise(1, 9000));
    let commit = drive.seal().unwrap().unwrap();
    write(vfs, create(vfs, ROOT_INO, "in the log"), 0, &noise(2, 9000));
    write(vfs, old, 100, b"changed");
    let seen = dump(vfs);
    let mut txn = Txn::new();
    let marked: BTreeSet<Vec<u8>> = all_marks(drive.store()).into_iter().collect();
    let last = drive.store().last_lsn();
    for key in &marked {
        txn.delete(Table::Changed, key).put(Table::Changed, &key[8..], last.to_be_bytes().to_vec());
    }
    // One that a commit covers, left by a crash.
    let covered = [&[Table::Inode as u8][..], &99u64.to_be_bytes()].concat();
    txn.put(Table::Changed, &covered, commit.cut.to_be_bytes().to_vec());
    drive.store().commit(txn).unwrap();
    drop(drive);

    let drive = open(&media.killed());
    let brought: Vec<Vec<u8>> = all_marks(drive.store()).iter().map(|key| key[8..].to_vec()).collect();
    assert_eq!(brought, marked.iter().map(|key| key[8..].to_vec()).collect::<Vec<_>>());
    assert!(drive.dirty().unwrap().is_dirty());
    assert_same(&seen, &dump(drive.vfs()), "nothing else changes");
    seal_and_prove(&drive).unwrap();
    assert_eq!(drive.usage().unwrap().staged_bytes, 0);
    assert_eq!(all_marks(drive.store()), Vec::<Vec<u8>>::new());
}
