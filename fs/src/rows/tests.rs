#![allow(clippy::unwrap_used)]

use proptest::prelude::*;

use super::*;

fn times() -> impl Strategy<Value = Time> {
    (any::<i64>(), 0u32..1_000_000_000).prop_map(|(secs, nanos)| Time { secs, nanos })
}

prop_compose! {
    fn inodes()(
        (kind, perm, uid, gid, nlink, size) in (1u8..=7, 0u16..=0o7777, any::<u32>(), any::<u32>(), any::<u32>(), any::<u64>()),
        (allocated, rdev, generation, chunk_log2, flags, parent) in (any::<u64>(), any::<u32>(), any::<u32>(), 12u8..=20, 0u16..=7, any::<u64>()),
        (atime, mtime, ctime, btime) in (times(), times(), times(), times()),
        (lsn, target) in (any::<u64>(), proptest::collection::vec(any::<u8>(), 0..64)),
    ) -> InodeRow {
        let kind = Kind::from_u8(kind).unwrap();
        let target = if kind == Kind::Symlink { Bytes::from(target) } else { Bytes::new() };
        let flags = if kind == Kind::File { flags } else { flags & !inode_flags::LACKS_DATA };
        InodeRow {
            kind, perm, uid, gid, nlink, size, allocated, rdev, atime, mtime, ctime, btime, generation,
            chunk_log2, flags, parent, lsn, target,
        }
    }
}

proptest! {
    #[test]
    fn inode_rows_return(row in inodes()) {
        prop_assert_eq!(InodeRow::decode(&row.encode(row.lsn)).unwrap(), row);
    }

    #[test]
    fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = InodeRow::decode(&bytes);
        let _ = EntryRow::decode(&bytes);
        let _ = XattrRow::decode(&bytes);
        let _ = ExtentRow::decode(&bytes);
        let _ = ChunkRow::decode(&bytes);
        let _ = OrphanRow::decode(&bytes);
    }

    #[test]
    fn what_decodes_encodes_to_the_same_bytes(mut bytes in proptest::collection::vec(any::<u8>(), 2..120)) {
        bytes[0] = ROW_VERSION + bytes[0] % 2;
        bytes[1] %= 8;
        if let Ok(row) = InodeRow::decode(&bytes) { prop_assert_eq!(row.encode(row.lsn), bytes.clone()); }
        if let Ok(row) = EntryRow::decode(&bytes) { prop_assert_eq!(row.encode(), bytes.clone()); }
        if let Ok(row) = XattrRow::decode(&bytes) { prop_assert_eq!(row.encode(), bytes.clone()); }
        if let Ok(row) = ExtentRow::decode(&bytes) { prop_assert_eq!(row.encode(), bytes.clone()); }
        if let Ok(row) = OrphanRow::decode(&bytes) { prop_assert_eq!(row.encode(), bytes); }
    }

    #[test]
    fn entries_return(ino in 1u64.., name in "[a-z]{1,255}") {
        let row = EntryRow::Name { ino, kind: Kind::File, name: Bytes::from(name) };
        prop_assert_eq!(EntryRow::decode(&row.encode()).unwrap(), row);
    }

    #[test]
    fn first_slots_avoid_the_reserved_cookies(parent: u64, name in proptest::collection::vec(any::<u8>(), 1..255)) {
        let slot = NameKey::new([7; 32]).first_slot(parent, &name);
        prop_assert!(slot >= 128 && slot.is_multiple_of(128) && slot <= i64::MAX as u64);
    }
}

#[test]
fn a_newer_row_is_refused_by_name() {
    let error = OrphanRow::decode(&[2, 1]).unwrap_err();
    assert!(matches!(error, RowError::Newer { found: 2, .. }), "{error}");
}

/// The bytes of one row of each kind, fixed for ever.
#[test]
fn golden_rows() {
    let hex = |bytes: Vec<u8>| bytes.iter().map(|b| format!("{b:02x}")).collect::<String>();
    let entry = EntryRow::Name { ino: 258, kind: Kind::Dir, name: Bytes::from_static(b"ab") };
    assert_eq!(hex(entry.encode()), "010202010000000000006162");
    let extent = ExtentRow { len: 5, lsn: 9, source: ExtentSource::Payload { payload: 9, skip: 1 } };
    assert_eq!(hex(extent.encode()), "01010500000000000000090000000000000009000000000000000100000000000000");
    let xattr = XattrRow { name: Bytes::from_static(b"user.a"), value: Bytes::from_static(b"v") };
    assert_eq!(hex(xattr.encode()), "0106757365722e6176");
    assert_eq!(hex(OrphanRow::Trim { from: 7 }.encode()), "01020700000000000000");
}
