//! Rules of data: every byte of every file is somewhere.

use std::collections::HashMap;

use holdfast_content::block::{CODEC_RAW, cid_from_digest};
use holdfast_content::car::PieceReader;
use holdfast_content::chunk::{self, ChunkKey, Codec};
use holdfast_content::retrieve::Priority;
use holdfast_store::{Lsn, Reads, Table};

use super::namespace::Inodes;
use super::{Checker, PAGE_ROWS};
use crate::drive::error::{DriveError, hex};
use crate::drive::scan;
use crate::drive::types::PieceId;
use crate::pieces::rows::{BlockRow, DagRow, PieceRow};
use crate::rows::{ChunkRow, ExtentRow, ExtentSource, Ino, Kind, OrphanRow, keys};

/// No file has bytes beyond.
const EXTENT_END: u64 = i64::MAX as u64;

/// Of a payload, so much is read at once.
const PAYLOAD_READ_BYTES: u64 = 1 << 20;

impl Checker<'_> {
    pub(super) fn data(&mut self, inodes: &Inodes) -> Result<(), DriveError> {
        let pieces = self.pieces()?;
        self.blocks(&pieces)?;
        self.extents(inodes)?;
        self.chunks(inodes)?;
        self.dags(inodes)
    }

    /// Walks all local rows of a table that is never in a base.
    fn each_local(
        &mut self,
        table: Table,
        mut f: impl FnMut(&mut Self, &[u8], &[u8]) -> Result<(), DriveError>,
    ) -> Result<(), DriveError> {
        let mut from = Vec::new();
        loop {
            let page = scan::range(self.snapshot, table, &from, &[0xff; 33], PAGE_ROWS)?;
            let last = page.len() < PAGE_ROWS;
            for (key, value) in page {
                f(self, &key, &value)?;
                from = key;
                from.push(0);
            }
            if last {
                return Ok(());
            }
        }
    }

    fn pieces(&mut self) -> Result<HashMap<PieceId, PieceRow>, DriveError> {
        let mut pieces = HashMap::new();
        self.each_local(Table::Piece, |this, key, value| {
            this.report.pieces += 1;
            let id = PieceId::try_from(key).map_err(|_| DriveError::damaged("piece row", "its key"))?;
            let row = PieceRow::decode(value)?;
            if row.local {
                this.piece_file(id, &row);
            }
            pieces.insert(id, row);
            Ok(())
        })?;
        Ok(pieces)
    }

    /// A local piece's file is there, as long as it should be, and (deep) each block in it is what its CID says.
    fn piece_file(&mut self, id: PieceId, row: &PieceRow) {
        let file = match self.inner.parts.folder.open(id) {
            Ok(file) => file,
            Err(error) => return self.report.problem(error.to_string()),
        };
        if file.len() != row.raw_len {
            self.report.problem(format!(
                "piece {}: {} bytes instead of {}",
                hex(&id),
                file.len(),
                row.raw_len
            ));
            return;
        }
        if !self.options.deep {
            return;
        }
        let mut blocks = 0;
        let walked = PieceReader::new(file.reader(), id).and_then(|mut reader| {
            while reader.next_block()?.is_some() {
                blocks += 1;
            }
            Ok(())
        });
        self.report.blocks_verified += u64::from(blocks);
        self.report.bytes_read += file.len();
        if let Err(error) = walked {
            self.report.problem(format!("piece {}: {error}", hex(&id)));
        } else if blocks != row.blocks {
            self.report.problem(format!("piece {}: {blocks} blocks instead of {}", hex(&id), row.blocks));
        }
    }

    fn blocks(&mut self, pieces: &HashMap<PieceId, PieceRow>) -> Result<(), DriveError> {
        self.each_local(Table::Block, |this, key, value| {
            this.report.blocks += 1;
            let row = BlockRow::decode(value)?;
            match pieces.get(&row.piece) {
                None => this.report.problem(format!("a block's piece {} has no row", hex(&row.piece))),
                Some(piece) if row.offset.saturating_add(u64::from(row.len)) > piece.raw_len => {
                    this.report.problem(format!("a block lies beyond the end of piece {}", hex(&row.piece)));
                }
                Some(_) => {}
            }
            if key.len() != 32 {
                this.report.problem("a block row's key is no digest");
            }
            Ok(())
        })
    }

    fn extents(&mut self, inodes: &Inodes) -> Result<(), DriveError> {
        let mut last: (Ino, u64) = (0, 0);
        let mut looked_at: Ino = 0;
        let mut lengths: HashMap<Lsn, Option<u64>> = HashMap::new();
        self.each_local(Table::Extent, |this, key, value| {
            this.report.extents += 1;
            let (ino, off) = keys::decode_pair(key)?;
            let row = match ExtentRow::decode(value) {
                Ok(row) => row,
                Err(error) => {
                    this.report.problem(format!("extent {off} of inode {ino}: {error}"));
                    return Ok(());
                }
            };
            let end = off.saturating_add(row.len);
            // Zeros that lie over holes may stay for ever.
            if row.source != ExtentSource::Zero && looked_at != ino && inodes.facts.contains_key(&ino) {
                looked_at = ino;
                let orphan = matches!(inodes.orphans.get(&ino), Some(OrphanRow::Unlinked));
                if !orphan && !this.marked.contains(Table::Inode, &keys::inode(ino))? {
                    this.report.problem(format!("inode {ino}: data in the log that no seal will look for"));
                }
            }
            if last.0 == ino && off < last.1 {
                this.report.problem(format!("extent {off} of inode {ino}: overlaps the one before"));
            }
            last = (ino, end);
            if end > EXTENT_END {
                this.report.problem(format!("extent {off} of inode {ino}: ends beyond any file"));
            }
            match inodes.facts.get(&ino) {
                Some(fact) if fact.kind != Kind::File => {
                    this.report.problem(format!("inode {ino}: extents, but no file"))
                }
                Some(fact) => {
                    let trimmed = matches!(
                        inodes.orphans.get(&ino),
                        Some(OrphanRow::Trim { .. } | OrphanRow::Unlinked)
                    );
                    if row.source != ExtentSource::Zero && end > fact.size && !trimmed {
                        this.report.problem(format!("extent {off} of inode {ino}: beyond the file's end"));
                    }
                }
                None if inodes.may_own(ino) => {}
                None => this.report.problem(format!("extent {off} of inode {ino}, which is missing")),
            }
            if let ExtentSource::Payload { payload, skip } = row.source {
                if lengths.len() > PAGE_ROWS * 64 {
                    lengths.clear();
                }
                let len = match lengths.get(&payload) {
                    Some(len) => *len,
                    None => {
                        let len = this.snapshot.payload_len(payload)?;
                        if let (true, Some(len)) = (this.options.deep, len) {
                            this.payload(payload, len);
                        }
                        lengths.insert(payload, len);
                        len
                    }
                };
                if len.is_none_or(|len| skip.saturating_add(row.len) > len) {
                    this.report.problem(format!(
                        "extent {off} of inode {ino}: payload {payload} does not hold its bytes"
                    ));
                }
            }
            Ok(())
        })
    }

    /// Reads a payload of the log, whose frames are authenticated.
    fn payload(&mut self, payload: Lsn, len: u64) {
        let mut buffer = vec![0; len.min(PAYLOAD_READ_BYTES) as usize];
        let mut at = 0;
        while at < len {
            let part = (len - at).min(PAYLOAD_READ_BYTES) as usize;
            let Some(buffer) = buffer.get_mut(..part) else { return };
            if let Err(error) = self.snapshot.read_payload(payload, at, buffer) {
                return self.report.problem(format!("payload {payload}, from byte {at}: {error}"));
            }
            at += part as u64;
        }
        self.report.bytes_read += len;
    }

    fn chunks(&mut self, inodes: &Inodes) -> Result<(), DriveError> {
        self.each(Table::Chunk, |this, key, value| {
            this.report.chunks += 1;
            let (ino, n) = keys::decode_pair(key)?;
            let row = match ChunkRow::decode(value) {
                Ok(row) => row,
                Err(error) => {
                    this.report.problem(format!("chunk {n} of inode {ino}: {error}"));
                    return Ok(());
                }
            };
            match inodes.facts.get(&ino) {
                Some(fact) if fact.kind != Kind::File => {
                    this.report.problem(format!("inode {ino}: chunks, but no file"))
                }
                Some(fact) if !fact.has_chunks => {
                    this.report.problem(format!("inode {ino}: does not know its chunks"))
                }
                Some(fact) if u64::from(row.plain_len) > fact.chunk_bytes => {
                    this.report.problem(format!("chunk {n} of inode {ino}: longer than a chunk"));
                }
                Some(_) => {}
                None if inodes.may_own(ino) => return Ok(()),
                None => this.report.problem(format!("chunk {n} of inode {ino}, which is missing")),
            }
            this.chunk_block(ino, n, &row)
        })
    }

    /// A chunk's block is known, and (deep, local) opens under the chunk's key.
    fn chunk_block(&mut self, ino: Ino, n: u64, row: &ChunkRow) -> Result<(), DriveError> {
        let blocks = &self.inner.parts.trees.blocks;
        let cid = cid_from_digest(CODEC_RAW, &row.digest);
        let Some(at) =
            blocks.locate(&cid, blocks.want(Priority::Bulk, self.inner.parts.options.fetch_deadline))?
        else {
            self.report.problem(format!("chunk {n} of inode {ino}: nobody knows where its block is"));
            return Ok(());
        };
        if at.len != row.block_len {
            self.report.problem(format!(
                "chunk {n} of inode {ino}: its block is {} bytes, not {}",
                at.len, row.block_len
            ));
        }
        if !blocks.is_local(&at) {
            self.report.blocks_remote += 1;
            return Ok(());
        }
        if !self.options.deep {
            return Ok(());
        }
        let opened = blocks.read_local(&at).and_then(|block| {
            let block = block.ok_or(DriveError::NotLocal(at.piece))?;
            let codec =
                Codec::from_byte(row.codec).ok_or_else(|| DriveError::damaged("chunk", "its codec"))?;
            chunk::open(block, &ChunkKey::from_bytes(row.key), codec, row.plain_len)
                .map_err(|error| DriveError::damaged("chunk", error))
        });
        if let Err(error) = opened {
            self.report.problem(format!("chunk {n} of inode {ino}: {error}"));
        }
        Ok(())
    }

    fn dags(&mut self, inodes: &Inodes) -> Result<(), DriveError> {
        self.each(Table::Dag, |this, key, value| {
            let ino = keys::decode_inode(key.get(..8).unwrap_or_default())?;
            let row = DagRow::decode(value)?;
            if !inodes.may_own(ino) {
                // Only a seal writes these rows; the next one that sees the inode gone takes them away.
                return Ok(());
            }
            let blocks = &this.inner.parts.trees.blocks;
            let want = blocks.want(Priority::Bulk, this.inner.parts.options.fetch_deadline);
            if blocks.locate(&row.link().cid, want)?.is_none() {
                this.report.problem(format!("inode {ino}: nobody knows where a node of its DAG is"));
            }
            Ok(())
        })
    }
}
