//! Local pieces that the disk spoiled.
//!
//! Owns: finding out whether a piece's file is what it was, and putting a good one in its place. Promises: what is put there was verified to the last
//! byte and is on the disk before it has the name; a crash leaves the one or the other. Refuses: pieces that are not local.

use std::io::{Read, Write};

use holdfast_content::car::PieceReader;

use super::{Drive, DriveError, PieceId};
use crate::pieces::folder::piece_error;
use crate::pieces::rows::PieceRow;

impl Drive {
    /// Whether a local piece's file is byte for byte what was finished: every block by its CID, and nothing else.
    pub fn check_piece(&self, id: PieceId) -> Result<(), DriveError> {
        let row = self.local_piece(id)?;
        let file = self.inner.parts.folder.open(id)?;
        whole(id, &row, file.reader())
    }

    /// Puts `bytes` in the place of a local piece's damaged file, if they are what it was.
    pub fn heal_piece(&self, id: PieceId, bytes: &mut dyn Read) -> Result<(), DriveError> {
        let folder = &self.inner.parts.folder;
        let row = self.local_piece(id)?;
        let mut file = folder.create(id)?;
        let written = std::io::copy(&mut bytes.take(row.raw_len.saturating_add(1)), &mut file)
            .and_then(|_| file.flush())
            .map_err(|source| piece_error("write", id, source))
            .and_then(|()| whole(id, &row, file.reader()))
            .and_then(|()| {
                // An eviction that came first has nothing to be healed.
                let _guard = folder.rows_lock();
                self.local_piece(id)?;
                folder.replace(id, &file)
            });
        if written.is_err() {
            folder.abandon(id);
        }
        written
    }

    fn local_piece(&self, id: PieceId) -> Result<PieceRow, DriveError> {
        let row = self.inner.piece_row(id)?.ok_or(DriveError::UnknownPiece(id))?;
        if row.local { Ok(row) } else { Err(DriveError::NotLocal(id)) }
    }
}

fn whole(id: PieceId, row: &PieceRow, bytes: impl Read) -> Result<(), DriveError> {
    let mut reader = PieceReader::new(bytes, id).map_err(|error| DriveError::damaged("piece", error))?;
    let mut blocks = 0u32;
    while reader.next_block().map_err(|error| DriveError::damaged("piece", error))?.is_some() {
        blocks = blocks.saturating_add(1);
    }
    match (reader.position(), blocks) == (row.raw_len, row.blocks) {
        true => Ok(()),
        false => Err(DriveError::damaged("piece", "its file has another length than the piece")),
    }
}
