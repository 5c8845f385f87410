#![allow(clippy::unwrap_used)]

use super::*;
use crate::drive::types::CommitInfo;
use crate::pieces::rows;
use crate::rows::{ExtentSource, Kind, Time, keys as row_keys};
use bytes::Bytes;
use holdfast_content::block::{Block, BlockAt};
use holdfast_content::commit::{CommitRef, DriveStats};
use holdfast_content::keys::SecretKey32;
use holdfast_content::tree::{NodeRef, PhysicalRef};

/// The first seeds of each decoder are valid values: they must still be among the committed ones, and still be accepted as
/// what they are. `HOLDFAST_BLESS=1` adds what is missing.
fn seed(name: &str, bytes: &[u8]) {
    let path = format!("{}/../tests/fuzz/seeds/{name}.hex", env!("CARGO_MANIFEST_DIR"));
    let line: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    let mut seeds = std::fs::read_to_string(&path).unwrap_or_default();
    if !seeds.lines().any(|seed| seed == line) && std::env::var_os("HOLDFAST_BLESS").is_some() {
        seeds.push_str(&format!("{line}\n"));
        std::fs::write(&path, &seeds).unwrap();
    }
    assert!(seeds.lines().any(|seed| seed == line), "{path} lacks a valid value: its format has changed");
    let decoder = DECODERS.iter().find(|(known, _)| *known == name).unwrap().1;
    decoder(bytes);
}

#[test]
fn valid_values_are_seeds() {
    let time = Time { secs: 1_800_000_000, nanos: 5 };
    let inode = InodeRow {
        kind: Kind::Symlink,
        perm: 0o777,
        uid: 1000,
        gid: 1000,
        nlink: 1,
        size: 6,
        allocated: 0,
        rdev: 0,
        atime: time,
        mtime: time,
        ctime: time,
        btime: time,
        generation: 1,
        chunk_log2: 18,
        flags: 0,
        parent: 0,
        lsn: 9,
        target: Bytes::from("target"),
    };
    seed("rows-inode", &inode.encode(9));
    let file = InodeRow { kind: Kind::File, size: 1 << 20, flags: 3, target: Bytes::new(), ..inode };
    seed("rows-inode", &file.encode(10));
    seed("rows-inode", &InodeRow { flags: 7, ..file.clone() }.encode(11));
    seed("rows-entry", &EntryRow::Name { ino: 2, kind: Kind::Dir, name: Bytes::from("name") }.encode());
    seed("rows-entry", &EntryRow::Tombstone.encode());
    let xattr = XattrRow { name: Bytes::from("user.a"), value: Bytes::from("b") };
    seed("rows-xattr", &xattr.encode());
    for source in [ExtentSource::Zero, ExtentSource::Payload { payload: 7, skip: 4096 }] {
        seed("rows-extent", &ExtentRow { len: 4096, lsn: 8, source }.encode());
    }
    let chunk = ChunkRow { digest: [1; 32], key: [2; 32], codec: 1, plain_len: 9, block_len: 25, cut: 3 };
    seed("rows-chunk", &chunk.encode());
    seed("rows-orphan", &OrphanRow::Unlinked.encode());
    seed("rows-orphan", &OrphanRow::Trim { from: 4096 }.encode());
    seed("rows-keys", &row_keys::chunk(2, 3));
    seed("rows-keys", &row_keys::inode(2));
    seed("rows-block", &BlockRow { dag_pb: true, piece: [1; 16], offset: 99, len: 9 }.encode());
    let dedup = DedupRow { codec: 0, digest: [1; 32], key: [2; 32], block_len: 25, plain_len: 9 };
    seed("rows-dedup", &dedup.encode());
    let piece = PieceRow {
        local: true,
        checkpoint: false,
        raw_len: 1 << 20,
        created: 1_800_000_000,
        commit_sequence: 4,
        blocks: 12,
    };
    seed("rows-piece", &piece.encode());
    let dag = rows::DagRow { dag_pb: true, levels: 1, digest: [1; 32], cumulative: 99, data: 50 };
    seed("rows-dag", &dag.encode());
    seed("rows-condemned", &Condemned { piece: [0; 16], at: 1_800_000_000, sequence: 4 }.encode());
    seed("rows-class", &crate::pieces::classes::encode(holdfast_content::class::Class::of(3)));
    seed("rows-walk", &walk::encode(4096));
    seed("rows-commit", &commit().encode().unwrap());
    let acl: Vec<u8> = [(1u16, 7u16), (2, 5), (4, 5), (16, 5), (32, 0)]
        .iter()
        .flat_map(|(tag, perm)| {
            [&tag.to_le_bytes()[..], &perm.to_le_bytes(), &1000u32.to_le_bytes()].concat()
        })
        .collect();
    seed("vfs-acl", &[&2u32.to_le_bytes()[..], &acl].concat());
    seed("fuse-options", b"ro,allow_other,noatime,max_read=131072,fsname=a b,x-systemd.automount");
}

fn commit() -> CommitRow {
    let block = Block::raw(vec![1; 10]).unwrap();
    let key = SecretKey32::from_bytes([6; 32]);
    let at = BlockAt { cid: *block.cid(), piece: [3; 16], offset: 99, len: 10 };
    let info = CommitInfo {
        sequence: 4,
        cut: 77,
        commit: CommitRef { root: *block.cid(), at, key: key.clone() },
        location_root: PhysicalRef { at, key: key.clone() },
        new_pieces: vec![[3; 16]],
        pending: vec![12],
        time: 1_800_000_000,
    };
    let namespace = NodeRef { root: *block.cid(), tsize: 10, body: *block.cid(), key };
    CommitRow { info, namespace, stats: DriveStats { inodes: 1, bytes: 2, blocks_bytes: 3 } }
}
