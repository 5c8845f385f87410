//! A drive whose rows lie in a committed tree beneath an empty store.

use std::collections::BTreeMap;

use bytes::Bytes;
use holdfast_store::{Direction, KeyRange, Reads, Table};

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

/// Seals everything and starts anew with an empty store above what a commit would hold.
fn restored(drive: Drive) -> Drive {
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
    let base: Arc<dyn BaseTree> = Arc::new(FakeTree(tree));
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
