//! A drive whose rows lie in a committed tree beneath an empty store.

use std::collections::BTreeMap;
use std::sync::mpsc::channel;
use std::time::Duration;

use bytes::Bytes;
use holdfast_store::{Direction, KeyRange, Reads, Table};
use parking_lot::RwLock;

use super::*;
use crate::rows::{BaseError, BaseTree, RowList};

struct FakeTree(BTreeMap<(u8, Vec<u8>), Bytes>);

impl BaseTree for FakeTree {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>, BaseError> {
        Ok(self.0.get(&(table.tag(), key.to_vec())).cloned())
    }

    fn range(&self, table: Table, start: &[u8], end: &[u8], limit: usize) -> Result<RowList, BaseError> {
        let range = (table.tag(), start.to_vec())..(table.tag(), end.to_vec());
        Ok(self.0.range(range).take(limit).map(|((_, key), value)| (key.clone(), value.clone())).collect())
    }
}

/// A tree that answers while nobody holds its gate.
struct SlowTree {
    tree: Arc<dyn BaseTree>,
    gate: Arc<RwLock<()>>,
}

impl BaseTree for SlowTree {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>, BaseError> {
        let _open = self.gate.read();
        self.tree.get(table, key)
    }

    fn range(&self, table: Table, start: &[u8], end: &[u8], limit: usize) -> Result<RowList, BaseError> {
        let _open = self.gate.read();
        self.tree.range(table, start, end, limit)
    }
}

fn restored(drive: Drive) -> Drive {
    restored_over(drive, |tree| tree)
}

/// Seals everything and starts anew with an empty store above what a commit would hold.
fn restored_over(drive: Drive, wrap: impl FnOnce(Arc<dyn BaseTree>) -> Arc<dyn BaseTree>) -> Drive {
    let store = drive.vfs.rows().store();
    let inos = store.scan(Table::Inode, &KeyRange::all(), 100_000, Direction::Forward).unwrap();
    for (key, _) in inos {
        let ino = u64::from_be_bytes(key.try_into().unwrap());
        if drive.vfs.getattr(ino).unwrap().kind == Kind::File {
            drive.install(&[drive.cut(ino)]);
        }
    }
    let mut tree = BTreeMap::new();
    for table in [Table::Meta, Table::Inode, Table::Entry, Table::Xattr, Table::Chunk] {
        for (key, value) in store.scan(table, &KeyRange::all(), 100_000, Direction::Forward).unwrap() {
            tree.insert((table.tag(), key), value);
        }
    }
    let base = wrap(Arc::new(FakeTree(tree)));
    let fresh = Drive::new();
    // The store of a restored drive is empty: not even a root.
    let options = StoreOptions { background: false, ..StoreOptions::default() };
    let (store, _) = Store::open(
        Arc::new(CrashMedium::new()),
        IndexKind::Memory,
        StoreKeys { log: [1; 32], index: [2; 32] },
        options,
        Arc::new(SystemClock::new()),
        Arc::new(SystemRng),
    )
    .unwrap();
    let rows = Rows::new(store, NameKey::new([3; 32]), Some(base));
    let options = VfsOptions { chunk_log2: 12, dir_keep_entries_max: 6, ..VfsOptions::default() };
    let hooks = Arc::new(PlainHooks { space: ROOM });
    let vfs = Vfs::open(rows, drive.chunks.clone(), hooks, Arc::new(Ticks::default()), options).unwrap();
    Drive { vfs: Arc::new(vfs), chunks: drive.chunks.clone(), ..fresh }
}

#[test]
fn a_restored_drive_shows_and_changes_what_was_committed() {
    let drive = Drive::new();
    let dir = drive.dir("d");
    for i in 0..20 {
        let name = format!("f{i}");
        let ino = drive.vfs.create(&ROOT, dir, name.as_bytes(), &NewNode::file(0o644, 0)).unwrap().ino;
        drive.write(ino, 0, name.repeat(1_000).as_bytes());
        drive.vfs.setxattr(&ROOT, ino, b"user.n", name.as_bytes(), SetMode::Either).unwrap();
    }
    let last = drive.file("last");
    let drive = restored(drive);
    assert_eq!(drive.names(dir).len(), 20);
    let f3 = drive.vfs.lookup(dir, b"f3").unwrap();
    assert_eq!(drive.read(f3.ino), "f3".repeat(1_000).into_bytes());
    assert_eq!(drive.vfs.getxattr(f3.ino, b"user.n").unwrap().as_ref(), b"f3");
    assert_eq!(errno(drive.vfs.lookup(dir, b"f20")), libc::ENOENT);
    // Changes hide what lies beneath.
    drive.write(f3.ino, 2, b"new");
    assert_eq!(&drive.read(f3.ino)[..6], b"f3new3");
    drive.vfs.setattr(&ROOT, f3.ino, &SetAttr { size: Some(0), ..SetAttr::default() }).unwrap();
    drive.vfs.setattr(&ROOT, f3.ino, &SetAttr { size: Some(9_000), ..SetAttr::default() }).unwrap();
    assert_eq!(drive.read(f3.ino), [0; 9_000]);
    drive.vfs.unlink(dir, b"f4").unwrap();
    assert_eq!(errno(drive.vfs.lookup(dir, b"f4")), libc::ENOENT);
    drive.vfs.rename((dir, b"f5"), (ROOT_INO, b"moved"), RenameMode::Replace).unwrap();
    let mut expected: Vec<_> = (0..20).filter(|i| ![4, 5].contains(i)).map(|i| format!("f{i}")).collect();
    expected.sort();
    assert_eq!(drive.names(dir), expected);
    assert_eq!(drive.names(ROOT_INO), ["d", "last", "moved"]);
    drive.vfs.removexattr(f3.ino, b"user.n").unwrap();
    assert_eq!(errno(drive.vfs.getxattr(f3.ino, b"user.n")), libc::ENODATA);
    assert!(drive.file("new") > last, "inode numbers go on where the commit stood");
    drive.assert_nothing_left();
}

/// The threads that serve ask first, and must not wait for the answer: there are few of them.
#[test]
fn who_asks_whether_to_wait_does_not_wait() {
    let drive = Drive::new();
    let (dir, name) = (drive.dir("d"), |i| format!("f{i}"));
    let files: Vec<Ino> = (0..20)
        .map(|i| drive.vfs.create(&ROOT, dir, name(i).as_bytes(), &NewNode::file(0o644, 0)).unwrap().ino)
        .collect();
    let gate = Arc::new(RwLock::new(()));
    let drive = restored_over(drive, |tree| Arc::new(SlowTree { tree, gate: gate.clone() }));
    let vfs = drive.vfs.clone();
    for ino in [dir, files[3]] {
        vfs.getattr(ino).unwrap();
    }
    assert!(!vfs.may_block(dir, None) && vfs.may_block(dir, Some(b"f3")), "the list is not here");
    let closed = gate.write();
    let reader = std::thread::spawn({
        let vfs = vfs.clone();
        move || vfs.readdir(dir, 0, 100).unwrap().len()
    });
    while vfs.nodes.peek(dir).unwrap().try_write().is_some() {
        std::thread::yield_now();
    }
    let (say, told) = channel();
    let asked = vfs.clone();
    std::thread::spawn(move || {
        let blocks = [asked.may_block(dir, None), asked.may_block(dir, Some(b"f3"))];
        say.send((blocks, asked.may_block_for_xattrs(dir), asked.has_set_ids(dir), asked.is_durable(dir)))
    });
    let told = told.recv_timeout(Duration::from_secs(10)).expect("who asked waits with it");
    assert_eq!(told, ([true, true], true, true, false));
    drop(closed);
    assert_eq!(reader.join().unwrap(), 22);
    assert!(!vfs.may_block(dir, Some(b"f3")) && !vfs.may_block(dir, Some(b"none")));
    assert!(vfs.may_block(dir, Some(b"f4")), "its row is not here");
}
