//! Every decoder of rows and of what programs hand over, as a function of any bytes: what fuzzing and the seeds of
//! `tests/fuzz` call. "One value has one encoding": what decodes is encoded to the same bytes, or this panics.

use crate::fuse::MountOptions;
use crate::pieces::rows::{BlockRow, DagRow, DedupRow, PieceRow};
use crate::policy::walk;
use crate::retention::Condemned;
use crate::rows::keys::{decode_inode, decode_pair};
use crate::rows::{ChunkRow, EntryRow, ExtentRow, InodeRow, OrphanRow, XattrRow};
use crate::seal::commit_row::CommitRow;
use crate::vfs::acl::Acl;

/// Name and entry of each decoder.
pub const DECODERS: &[(&str, fn(&[u8]))] = &[
    ("rows-inode", |bytes| same(bytes, InodeRow::decode(bytes).map(|row| row.encode(row.lsn)))),
    ("rows-entry", |bytes| same(bytes, EntryRow::decode(bytes).map(|row| row.encode()))),
    ("rows-xattr", |bytes| same(bytes, XattrRow::decode(bytes).map(|row| row.encode()))),
    ("rows-extent", |bytes| same(bytes, ExtentRow::decode(bytes).map(|row| row.encode()))),
    ("rows-chunk", |bytes| same(bytes, ChunkRow::decode(bytes).map(|row| row.encode()))),
    ("rows-orphan", |bytes| same(bytes, OrphanRow::decode(bytes).map(|row| row.encode()))),
    ("rows-keys", keys),
    ("rows-block", |bytes| same(bytes, BlockRow::decode(bytes).map(|row| row.encode()))),
    ("rows-dedup", |bytes| same(bytes, DedupRow::decode(bytes).map(|row| row.encode()))),
    ("rows-piece", |bytes| same(bytes, PieceRow::decode(bytes).map(|row| row.encode()))),
    ("rows-dag", |bytes| same(bytes, DagRow::decode(bytes).map(|row| row.encode()))),
    ("rows-commit", commit),
    ("rows-condemned", |bytes| {
        same(bytes, Condemned::decode([0; 16], bytes).ok_or(()).map(|row| row.encode()))
    }),
    ("rows-class", |bytes| {
        same(bytes, crate::pieces::classes::decode(bytes).map(crate::pieces::classes::encode))
    }),
    ("rows-walk", |bytes| same(bytes, walk::decode(bytes).map(walk::encode))),
    ("vfs-acl", |bytes| same(bytes, Acl::decode(bytes).ok_or(()).map(|acl| acl.encode()))),
    ("fuse-options", options),
];

fn same<E>(bytes: &[u8], encoded: Result<impl AsRef<[u8]>, E>) {
    if let Ok(encoded) = encoded {
        assert_eq!(encoded.as_ref(), bytes, "two encodings of one value");
    }
}

fn keys(bytes: &[u8]) {
    let _ = (decode_inode(bytes), decode_pair(bytes));
}

fn commit(bytes: &[u8]) {
    if let Ok(row) = CommitRow::decode(bytes) {
        assert!(row.encode().is_ok_and(|again| CommitRow::decode(&again).is_ok_and(|again| again == row)));
    }
}

fn options(bytes: &[u8]) {
    let mut options = MountOptions::default();
    let parsed = options.parse(std::str::from_utf8(bytes).unwrap_or_default());
    assert!(parsed.is_ok() || options == MountOptions::default(), "a refused list changed something");
}

#[cfg(test)]
mod tests;
