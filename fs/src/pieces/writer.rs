//! Writing blocks into pieces: the sink of a seal.
//!
//! Owns: the piece that is open now, and the rows of each piece as it is finished. Promises: a block that is in the drive already, and
//! can be read, is not written twice; a piece's rows are committed after its file is durable, in one record; [`PieceSink::generation`] counts finished pieces, so
//! that whoever waits for a block's piece sees when it is there; blocks of one class lie in pieces of that class, and a block that is found has its piece raised to what is
//! asked for. All open pieces are finished together, so that what was written before is whole. Refuses to go on after an error: open pieces are abandoned.

use std::collections::{BTreeSet, HashMap, HashSet};

use holdfast_content::block::{Block, BlockAt, BlockSink, PieceId, SinkError, cid_from_digest, digest_of};
use holdfast_content::car::PieceWriter;
use holdfast_content::class::Class;
use holdfast_content::rng::{Rng, random};
use holdfast_store::{Reads, Store, Table, Txn};

use super::blocks::BlockReader;
use super::classes;
use super::folder::{Folder, TmpFile};
use super::places::{Placed, Places};
use super::rows::{BlockRow, CODEC_DAG_PB, CODEC_RAW, DedupRow, PieceRow};
use crate::drive::edges::Edges;
use crate::drive::error::DriveError;

/// Blocks in one piece at most: bounds the record that installs it (about 110 bytes of rows for each) and what is pending in memory.
const PIECE_BLOCKS_MAX: u64 = 32_768;

/// Open pieces: each has a buffer.
const OPEN_MAX: usize = 8;

/// A large file's chunks go in turn to so many pieces that are filled side by side (see [`Lane`]).
pub(crate) const LANES: u64 = 4;

/// Which of the pieces that are filled side by side: 0 is where everything goes but large files.
///
/// A piece that has become a slot of a stripe is kept whole by one provider alone, so that who reads a file which lies in one piece after the other
/// reads from one provider after the other.
pub(crate) type Lane = u8;

/// What a sink needs from the drive.
#[derive(Clone, Copy)]
pub(crate) struct SinkParts<'a> {
    pub(crate) store: &'a Store,
    pub(crate) folder: &'a Folder,
    pub(crate) blocks: &'a BlockReader,
    pub(crate) rng: &'a dyn Rng,
    pub(crate) edges: &'a Edges,
    /// Unix seconds, for the rows.
    pub(crate) now: u64,
    pub(crate) piece_bytes_max: u64,
    /// The rows say that the piece is the daemon's.
    pub(crate) checkpoint: bool,
}

/// See the module's documentation.
pub(crate) struct PieceSink<'a> {
    parts: SinkParts<'a>,
    open: Vec<OpenPiece>,
    /// Of the trees: of whatever is written without saying of which class it is.
    trees_class: Class,
    finished: Vec<PieceId>,
    /// Blocks of finished pieces that no commit covers yet: what the location tree has to learn.
    placed: Places,
    /// From here on blocks are nodes of the location tree, which finds its own by their place.
    unplaced: bool,
    /// Blocks in these pieces count as not there: they are written anew.
    emptied: BTreeSet<PieceId>,
}

struct OpenPiece {
    class: Class,
    lane: Lane,
    writer: PieceWriter<TmpFile>,
    blocks: HashMap<[u8; 32], BlockRow>,
    /// Those of `blocks` that the location tree does not list.
    unplaced: HashSet<[u8; 32]>,
    dedup: Vec<([u8; 32], DedupRow)>,
}

impl<'a> PieceSink<'a> {
    /// `placed`: blocks of earlier pieces that no commit covers.
    pub(crate) fn new(parts: SinkParts<'a>, placed: Places) -> Self {
        Self {
            parts,
            open: Vec::new(),
            trees_class: Class::DRIVE,
            finished: Vec::new(),
            placed,
            unplaced: false,
            emptied: BTreeSet::new(),
        }
    }

    /// From here on the trees are written so.
    pub(crate) fn set_trees_class(&mut self, class: Class) {
        self.trees_class = class;
    }

    /// Pieces finished so far.
    pub(crate) fn generation(&self) -> usize {
        self.finished.len()
    }

    /// The finished pieces, oldest first.
    pub(crate) fn finished(&self) -> &[PieceId] {
        &self.finished
    }

    /// Where a block lies, finished or not, if it was written here or earlier and is still there.
    pub(crate) fn find(&self, digest: &[u8; 32]) -> Result<Option<BlockRow>, DriveError> {
        if let Some(row) = self.open.iter().find_map(|open| open.blocks.get(digest)) {
            return Ok(Some(*row));
        }
        let Some(row) = self.parts.store.get(Table::Block, digest)? else { return Ok(None) };
        let row = BlockRow::decode(&row)?;
        let stays = !self.emptied.contains(&row.piece) && self.parts.blocks.is_sound(&row.at(digest));
        Ok(stays.then_some(row))
    }

    /// From here on nothing is found in these pieces, so that what is written leaves them.
    pub(crate) fn empty(&mut self, pieces: BTreeSet<PieceId>) {
        self.emptied = pieces;
    }

    /// Is this one of them?
    pub(crate) fn empties(&self, piece: &PieceId) -> bool {
        self.emptied.contains(piece)
    }

    /// Writes a block of the trees unless it is there.
    pub(crate) fn write(&mut self, block: &Block) -> Result<BlockAt, DriveError> {
        self.write_as(block, self.trees_class, 0)
    }

    /// Writes a block unless it is there; its piece is as safe as `class` asks.
    pub(crate) fn write_as(
        &mut self,
        block: &Block,
        class: Class,
        lane: Lane,
    ) -> Result<BlockAt, DriveError> {
        let digest = digest_of(block.cid())?;
        if let Some(row) = self.find(&digest)? {
            self.raise(&row.piece, class)?;
            return Ok(BlockAt { cid: *block.cid(), piece: row.piece, offset: row.offset, len: row.len });
        }
        let fits = |open: &OpenPiece| open.class == class && open.lane == lane;
        let full = match self.open.iter().find(|open| fits(open)) {
            Some(open) => {
                open.writer.blocks() > 0
                    && (open.writer.position_after(block.len()) > self.parts.piece_bytes_max
                        || open.writer.blocks() >= PIECE_BLOCKS_MAX)
            }
            None => self.open.len() >= OPEN_MAX,
        };
        if full {
            self.finish()?;
        }
        if !self.open.iter().any(fits) {
            self.open.push(begin(&self.parts, class, lane)?);
        }
        let Some(open) = self.open.iter_mut().find(|open| fits(open)) else {
            return Err(DriveError::System("a piece that was begun is not there".to_owned()));
        };
        let piece = open.writer.id();
        let at =
            open.writer.write(block).map_err(|source| DriveError::Piece { op: "write", piece, source })?;
        open.blocks.insert(digest, BlockRow::of(&at));
        if self.unplaced {
            open.unplaced.insert(digest);
        }
        Ok(at)
    }

    /// The piece is as safe as `class` asks, from now on. Of an open one its row will say so.
    fn raise(&mut self, piece: &PieceId, class: Class) -> Result<(), DriveError> {
        if let Some(open) = self.open.iter_mut().find(|open| open.writer.id() == *piece) {
            open.class = open.class.join(class);
            return Ok(());
        }
        classes::raise(self.parts.store, self.parts.folder, piece, class)?;
        Ok(())
    }

    /// The same by a block in it. `false`: this home does not know where the block lies.
    pub(crate) fn raise_block(&mut self, digest: &[u8; 32], class: Class) -> Result<bool, DriveError> {
        if let Some(row) = self.open.iter().find_map(|open| open.blocks.get(digest)).copied() {
            self.raise(&row.piece, class)?;
            return Ok(true);
        }
        let Some(row) = self.parts.store.get(Table::Block, digest)? else { return Ok(false) };
        self.raise(&BlockRow::decode(&row)?.piece, class)?;
        Ok(true)
    }

    /// Remembers a chunk's plaintext tag, if its block is in an open piece.
    pub(crate) fn note_dedup(&mut self, piece: &PieceId, tag: [u8; 32], row: DedupRow) {
        if let Some(open) = self.open.iter_mut().find(|open| open.writer.id() == *piece) {
            open.dedup.push((tag, row));
        }
    }

    /// Finishes the open pieces, the trees' last: file durable, then its rows.
    pub(crate) fn finish(&mut self) -> Result<(), DriveError> {
        while !self.open.is_empty() {
            let of_trees = |open: &OpenPiece| open.class == self.trees_class && open.lane == 0;
            let next = self.open.iter().position(|open| !of_trees(open)).unwrap_or(0);
            let open = self.open.remove(next);
            self.finish_one(open)?;
        }
        Ok(())
    }

    fn finish_one(&mut self, open: OpenPiece) -> Result<(), DriveError> {
        let parts = self.parts;
        let id = open.writer.id();
        let (raw_len, blocks) = (open.writer.position(), open.writer.blocks());
        let failed = |source| DriveError::Piece { op: "write", piece: id, source };
        let done = open.writer.finish().map_err(failed).and_then(|file| {
            parts.edges.hit("piece.sync.before");
            parts.folder.finish(id, &file)
        });
        if let Err(error) = done {
            parts.folder.abandon(id);
            return Err(error);
        }
        parts.edges.hit("piece.rows.before");
        let mut txn = Txn::new();
        let row = PieceRow {
            local: true,
            checkpoint: parts.checkpoint,
            raw_len,
            created: parts.now,
            commit_sequence: 0,
            blocks: u32::try_from(blocks).unwrap_or(u32::MAX),
        };
        txn.put(Table::Piece, id, row.encode());
        classes::put(&mut txn, &id, open.class);
        for (digest, row) in &open.blocks {
            txn.put(Table::Block, digest, row.encode());
        }
        for (tag, row) in &open.dedup {
            txn.put(Table::Dedup, tag, row.encode());
        }
        parts.store.commit(txn)?;
        parts.edges.hit("piece.rows.after");
        self.finished.push(id);
        self.placed.add(id, open.blocks.into_iter().filter(|(digest, _)| !open.unplaced.contains(digest)));
        Ok(())
    }

    /// Writes the location tree: `write` is given all blocks that no commit covers, in the order of their digests, those of the open piece included. What it
    /// writes belongs to the tree itself.
    pub(crate) fn write_location<T>(
        &mut self,
        write: impl FnOnce(
            &mut dyn Iterator<Item = Result<Placed, DriveError>>,
            &mut Self,
        ) -> Result<T, DriveError>,
    ) -> Result<T, DriveError> {
        self.unplaced = true;
        let open = self.open.iter().flat_map(|open| open.blocks.iter());
        let mut open: Vec<Placed> = open.map(|(digest, row)| (*digest, *row)).collect();
        open.sort_unstable_by_key(|(digest, _)| *digest);
        let mut placed = std::mem::take(&mut self.placed);
        let written = write(&mut placed.in_order(self.parts.store, open), self);
        // Pieces that were finished meanwhile come behind. Until there is a commit, all of them are uncommitted.
        placed.append(std::mem::take(&mut self.placed));
        self.placed = placed;
        written
    }

    /// Ends: what a later seal has to put into its location tree, if this one makes no commit.
    pub(crate) fn into_placed(mut self) -> Places {
        std::mem::take(&mut self.placed)
    }
}

impl Drop for PieceSink<'_> {
    fn drop(&mut self) {
        for open in self.open.drain(..) {
            self.parts.folder.abandon(open.writer.id());
        }
    }
}

impl BlockSink for PieceSink<'_> {
    fn put(&mut self, block: Block) -> Result<BlockAt, SinkError> {
        Ok(self.write(&block)?)
    }
}

fn begin(parts: &SinkParts<'_>, class: Class, lane: Lane) -> Result<OpenPiece, DriveError> {
    let id: PieceId = random(parts.rng).map_err(|error| DriveError::System(error.to_string()))?;
    let file = parts.folder.create(id)?;
    let writer =
        PieceWriter::new(file, id).map_err(|source| DriveError::Piece { op: "write", piece: id, source })?;
    Ok(OpenPiece { class, lane, writer, blocks: HashMap::new(), unplaced: HashSet::new(), dedup: Vec::new() })
}

impl BlockRow {
    /// The block's CID.
    pub(crate) fn cid(&self, digest: &[u8; 32]) -> cid::Cid {
        cid_from_digest(if self.dag_pb { CODEC_DAG_PB } else { CODEC_RAW }, digest)
    }

    /// The block's place.
    pub(crate) fn at(&self, digest: &[u8; 32]) -> BlockAt {
        BlockAt { cid: self.cid(digest), piece: self.piece, offset: self.offset, len: self.len }
    }
}
