//! What a private link shows: a file or folder of a commit, as an index of its names, attributes and blocks.
//!
//! Promises: the index is of one commit; every block in it has a place. Leaves out what no other machine could use (devices, pipes,
//! sockets) and counts it; attributes beyond permissions and times are not taken along. Refuses files whose data is not in yet,
//! and more than an index holds.

use holdfast_content::block::{BlockAt, CODEC_RAW, cid_from_digest};
use holdfast_content::dagcbor::FormatError;
use holdfast_content::keys::SecretKey32;
use holdfast_content::retrieve::Priority;
use holdfast_content::share::index::{EntryKind, INDEX_BYTES_MAX, ShareIndex, SharedChunk, SharedEntry};
use serde_bytes::{ByteArray, ByteBuf};

use super::PAGE_ROWS;
use crate::drive::{Drive, DriveError};
use crate::rows::{EntryRow, Ino, InodeRow, Kind};
use crate::vfs::Vfs;

/// What an entry and a chunk take in an index, at least.
const ENTRY_BYTES: usize = 40;
const CHUNK_BYTES: usize = 80;

/// Why nothing can be shared.
#[derive(Debug, thiserror::Error)]
pub enum SharedError {
    /// The drive could not be read.
    #[error(transparent)]
    Drive(#[from] DriveError),
    /// It is not in the commit.
    #[error("it is not there, or was made a moment ago")]
    NotThere,
    /// A device, a pipe or a socket.
    #[error("it is neither a file nor a folder nor a link")]
    Special,
    /// A file's data is not all there.
    #[error("a part of {0} is out of reach, so that it cannot be shared")]
    Pending(String),
    /// More than an index holds.
    #[error(
        "it is too much for one link: about 100,000 files, or 25 GB in large ones, fit; share parts of it"
    )]
    TooMuch,
    /// The index could not be made.
    #[error(transparent)]
    Format(#[from] FormatError),
}

/// What is shown, and what is not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SharedTree {
    /// What is.
    pub index: ShareIndex,
    /// Devices, pipes and sockets.
    pub left_out: u64,
}

impl Drive {
    /// What is at inode `ino` in commit `sequence`, to be called `name`.
    pub fn shared_tree(&self, sequence: u64, ino: Ino, name: &[u8]) -> Result<SharedTree, SharedError> {
        let row = self.inner.commit_row(sequence)?.ok_or(SharedError::NotThere)?;
        let vfs = self.snapshot_vfs(sequence)?;
        let top = inode(&vfs, ino)?.filter(|row| row.nlink > 0).ok_or(SharedError::NotThere)?;
        let mut walk = Walk {
            drive: self,
            vfs: &vfs,
            pending: &row.info.pending,
            index: ShareIndex::default(),
            left_out: 0,
            bytes: 0,
        };
        if !walk.add(ino, &top, name, 0)? {
            return Err(SharedError::Special);
        }
        // Of each folder that is still to be read: its number and its inode.
        let mut todo: Vec<(u32, Ino)> = match top.kind {
            Kind::Dir => vec![(0, ino)],
            _ => Vec::new(),
        };
        while let Some((number, folder)) = todo.pop() {
            walk.folder(number, folder, &mut todo)?;
        }
        Ok(SharedTree { index: walk.index, left_out: walk.left_out })
    }

    /// Where a chunk's block lies now.
    pub fn locate_chunk(&self, digest: &[u8; 32]) -> Result<Option<BlockAt>, DriveError> {
        let parts = &self.inner.parts;
        let want = parts.trees.blocks.want(Priority::Bulk, parts.options.fetch_deadline);
        parts.trees.blocks.locate(&cid_from_digest(CODEC_RAW, digest), want)
    }
}

struct Walk<'a> {
    drive: &'a Drive,
    vfs: &'a Vfs,
    pending: &'a [Ino],
    index: ShareIndex,
    left_out: u64,
    /// What the index takes, at least.
    bytes: usize,
}

impl Walk<'_> {
    fn folder(&mut self, number: u32, folder: Ino, todo: &mut Vec<(u32, Ino)>) -> Result<(), SharedError> {
        let mut from = 0;
        loop {
            let page = self.vfs.rows().live().entries(folder, from, PAGE_ROWS).map_err(DriveError::from)?;
            let last = page.len() < PAGE_ROWS;
            for (tag, entry) in page {
                from = tag + 1;
                let EntryRow::Name { ino, name, .. } = entry else { continue };
                let row = inode(self.vfs, ino)?.ok_or(SharedError::NotThere)?;
                let below = self.index.entries.len();
                if self.add(ino, &row, &name, number)? && row.kind == Kind::Dir {
                    todo.push((u32::try_from(below).map_err(|_| SharedError::TooMuch)?, ino));
                }
            }
            if last {
                return Ok(());
            }
        }
    }

    /// `false`: it is nothing that could be shown.
    fn add(&mut self, ino: Ino, row: &InodeRow, name: &[u8], parent: u32) -> Result<bool, SharedError> {
        let kind = match row.kind {
            Kind::File => EntryKind::File,
            Kind::Dir => EntryKind::Folder,
            Kind::Symlink => EntryKind::Link,
            Kind::Fifo | Kind::CharDevice | Kind::BlockDevice | Kind::Socket => {
                self.left_out += 1;
                return Ok(false);
            }
        };
        let is_file = kind == EntryKind::File;
        if self.pending.contains(&ino) {
            return Err(SharedError::Pending(String::from_utf8_lossy(name).into_owned()));
        }
        self.grow(ENTRY_BYTES + name.len() + row.target.len())?;
        let chunks = if is_file { self.chunks(ino, row)? } else { Vec::new() };
        self.index.entries.push(SharedEntry {
            kind,
            name: ByteBuf::from(name),
            parent,
            mode: row.perm,
            mtime: (row.mtime.secs, row.mtime.nanos.min(999_999_999)),
            size: if is_file { row.size } else { 0 },
            chunk_log2: if is_file { row.chunk_log2 } else { 0 },
            target: ByteBuf::from(row.target.to_vec()),
            chunks,
        });
        Ok(true)
    }

    fn chunks(&mut self, ino: Ino, row: &InodeRow) -> Result<Vec<SharedChunk>, SharedError> {
        let mut chunks = Vec::new();
        // What lies behind the end of the file is nobody's.
        let end = row.size.div_ceil(row.chunk_bytes());
        let mut from = 0;
        while from < end {
            let page = self.vfs.rows().live().chunks(ino, from, end, PAGE_ROWS).map_err(DriveError::from)?;
            let last = page.len() < PAGE_ROWS;
            for (n, chunk) in page {
                from = n + 1;
                self.grow(CHUNK_BYTES)?;
                let at = self.drive.locate_chunk(&chunk.digest)?;
                let at = at.ok_or_else(|| {
                    DriveError::NoPlace(Box::new(cid_from_digest(CODEC_RAW, &chunk.digest)))
                })?;
                let piece = self.index.piece(&at.piece);
                let (digest, key) = (ByteArray::new(chunk.digest), SecretKey32::from_bytes(chunk.key));
                let (codec, plain) = (chunk.codec, chunk.plain_len);
                chunks.push(SharedChunk(n, digest, key, codec, plain, piece, at.offset, at.len));
            }
            if last {
                break;
            }
        }
        Ok(chunks)
    }

    fn grow(&mut self, bytes: usize) -> Result<(), SharedError> {
        self.bytes += bytes;
        if self.bytes > INDEX_BYTES_MAX { Err(SharedError::TooMuch) } else { Ok(()) }
    }
}

fn inode(vfs: &Vfs, ino: Ino) -> Result<Option<InodeRow>, DriveError> {
    Ok(vfs.rows().live().inode(ino)?)
}
