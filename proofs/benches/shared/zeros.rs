//! Pieces of many GiB that take no room: zeros, and their tree cache, made up as they are read. The tree's shape, its reads and
//! its hashing are those of any payload.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};

use holdfast_proofs::commp::{self, Node};
use holdfast_proofs::{CommpHasher, PieceCid, ReadAt, TreeLevel};
use sha2::{Digest, Sha256};

/// A payload of any length without memory: byte 0 everywhere, counting what is read.
pub struct Zeros {
    len: u64,
    read: AtomicU64,
}

impl Zeros {
    pub fn new(len: u64) -> Zeros {
        Zeros { len, read: AtomicU64::new(0) }
    }

    /// Bytes read so far.
    pub fn read(&self) -> u64 {
        self.read.load(Ordering::Relaxed)
    }

    pub fn forget(&self) {
        self.read.store(0, Ordering::Relaxed);
    }
}

impl ReadAt for Zeros {
    fn read_exact_at(&self, _: u64, buf: &mut [u8]) -> io::Result<()> {
        self.read.fetch_add(buf.len() as u64, Ordering::Relaxed);
        buf.fill(0);
        Ok(())
    }

    fn size(&self) -> io::Result<u64> {
        Ok(self.len)
    }
}

/// The tree cache of a payload of zeros, made up on the fly: each stored node is its level's constant.
pub struct ZeroTree {
    file: Vec<(u64, Node)>,
    head: Vec<u8>,
    tail: Vec<u8>,
    len: u64,
    read: AtomicU64,
}

impl ReadAt for ZeroTree {
    fn read_exact_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        self.read.fetch_add(buf.len() as u64, Ordering::Relaxed);
        if offset < 32 {
            buf.copy_from_slice(&self.head[..buf.len()]);
        } else if offset >= self.len - 96 {
            buf.copy_from_slice(&self.tail);
        } else {
            let level = self.file.iter().rev().find(|(start, _)| *start <= offset);
            let node = level.map_or([0; 32], |(_, node)| *node);
            buf.as_chunks_mut::<32>().0.fill(node);
        }
        Ok(())
    }

    fn size(&self) -> io::Result<u64> {
        Ok(self.len)
    }
}

impl ZeroTree {
    /// 32 GiB of zeros: the tree's shape, reads and hashing are those of any 32 GiB; the bytes are constant.
    pub fn new(piece: &PieceCid, level: TreeLevel) -> ZeroTree {
        let (_, small) = {
            // The frame of a cache: any hasher of this level makes the first bytes.
            let mut hasher = CommpHasher::with_cache(level);
            hasher.update(&[0]);
            hasher.finish_with_cache()
        };
        let mut file = Vec::new();
        let mut at = 32;
        for stored in (level.get()..=piece.height()).step_by(7) {
            file.push((at, commp::zero_node(stored)));
            at += piece.leaf_count().div_ceil(1 << stored) * 32;
        }
        let mut tail = vec![0; 64];
        tail[..8].copy_from_slice(&piece.payload_len().to_le_bytes());
        tail[8..40].copy_from_slice(piece.root());
        let head = small[..32].to_vec();
        let check = Sha256::new().chain_update(&head).chain_update(&tail).finalize();
        tail.extend_from_slice(&check);
        ZeroTree { file, head, tail, len: level.file_len(piece.payload_len()), read: AtomicU64::new(0) }
    }

    /// Bytes of the cache.
    pub fn bytes(&self) -> u64 {
        self.len
    }

    /// Bytes read so far.
    pub fn read(&self) -> u64 {
        self.read.load(Ordering::Relaxed)
    }

    pub fn forget(&self) {
        self.read.store(0, Ordering::Relaxed);
    }
}
