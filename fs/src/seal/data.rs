//! From extents to chunks: the first half of a seal.
//!
//! Owns: the walk over the changed files of a cut, and what becomes of their extents. Promises: the chunks show each file as of the cut; what is written is
//! installed as its pieces are finished; memory holds a few chunks and the rows of one round; each file that changed is looked at once, in however many
//! rounds, and again only if it changes meanwhile. Refuses: inodes without a name (they are in no commit), and chunks whose old content is out of reach
//! or whose payload the medium lost (their inode is pending).
//!
//!     marked inodes ─► extents by offset ─► Planner ─► old chunk + payloads ─► Pool (tag, compress, encrypt, hash) ─► PieceSink ─► install

use std::collections::BTreeSet;
use std::thread::Scope;

use holdfast_content::block::digest_of;
use holdfast_content::chunk::{self, SealedChunk};
use holdfast_content::class::Class;
use holdfast_content::keys::DriveKeys;
use holdfast_store::{Lsn, Reads, Snapshot, Store, StoreError, Table};

use super::classes::Classes;
use super::lanes::Lanes;
use super::overlay::Overlay;
use super::plan::{Part, Planner, Work};
use super::pool::Pool;
use super::{INSTALL_ROWS, ROUND_CHUNKS_MAX, SealParts};
use crate::drive::error::DriveError;
use crate::pieces::blocks::BlockReader;
use crate::pieces::rows::{BlockRow, DedupRow};
use crate::pieces::writer::{Lane, PieceSink};
use crate::rows::marks::ChangedKeys;
use crate::rows::{ChunkRow, ExtentSource, Ino, InodeRow, Kind, OrphanRow, View, keys};
use crate::vfs::seams::{ChunkError, SealedFile};

/// Rows read from the cut at once.
const PAGE_ROWS: usize = 512;
/// Rows that the installation of a chunk changes: its own and its mark; and of each extent under it: its own and its payload's.
const CHUNK_ROWS: usize = 2;
const EXTENT_ROWS: usize = 2;
/// Chunks up to this size are made at once, some microseconds: a thread would have to be woken for each.
const SMALL_BYTES: usize = 8 << 10;

/// The drive at one LSN.
pub(crate) struct Cut<'a> {
    pub(crate) snapshot: &'a Snapshot,
    pub(crate) view: View<'a, Snapshot>,
    pub(crate) lsn: Lsn,
}

/// What a round found.
#[derive(Default)]
pub(crate) struct Round {
    /// New chunk rows, to be laid over the cut.
    pub(crate) overlay: Overlay,
    /// Chunks made (or found) in this round.
    pub(crate) chunks: u64,
    /// Their plain bytes.
    pub(crate) bytes: u64,
    /// All was looked at. If not, the round stopped at its limit: there is more to do, under a new cut.
    pub(crate) complete: bool,
}

/// Where the rounds of one seal are on their way around the changed files, in the order of inodes.
///
/// ```text
/// round 1, cut 1   |=====>                  marked since the last commit
/// round 2, cut 2         |=======>          the same, from where round 1 stopped
/// round 3, cut 3   ==|           |=====>    ... and then, up to there, what was marked since cut 1: complete
/// ```
pub(crate) struct Lap {
    /// Marks from this cut on are looked at, from `from` on.
    after: Lsn,
    from: Ino,
    /// The cut of the round that began this lap: below `from`, only what was marked since then is left.
    begun: Option<Lsn>,
    /// Inodes whose data could not be sealed.
    pub(crate) pending: BTreeSet<Ino>,
    /// Inodes whose data is neither here nor in any commit.
    pub(crate) lacking: BTreeSet<Ino>,
}

impl Lap {
    /// A seal's first, after the commit of the cut `after`, which did without the data of `lacking`: those that are marked are looked at anew.
    pub(crate) fn begin(after: Lsn, lacking: BTreeSet<Ino>) -> Self {
        Self { after, from: 0, begun: None, pending: BTreeSet::new(), lacking }
    }
}

/// What goes through the threads: a chunk to be made.
struct Job {
    ino: Ino,
    n: u64,
    class: Class,
    lane: Lane,
    plain: Vec<u8>,
    extents: usize,
}

/// What comes out, in the order of files and chunks.
enum Made {
    Chunk {
        ino: Ino,
        n: u64,
        class: Class,
        lane: Lane,
        plain_len: u64,
        extents: usize,
        outcome: Result<Outcome, DriveError>,
    },
    /// A chunk row that goes.
    Gone { ino: Ino, n: u64 },
    /// That were all of a file's chunks.
    End { ino: Ino, empty_from: u64 },
}

enum Outcome {
    /// Nothing but zeros.
    Hole,
    /// A block that the drive has already.
    Known(DedupRow),
    /// A new one.
    New { tag: [u8; 32], chunk: SealedChunk },
}

/// One round over the extents of a cut.
struct DataRound<'a, 'k> {
    parts: &'a SealParts,
    cut: &'a Cut<'a>,
    classes: &'a mut Classes,
    /// Of the file that is looked at.
    class: Class,
    lanes: Lanes,
    sink: &'a mut PieceSink<'k>,
    lap: &'a mut Lap,
    unlimited: bool,
    pool: Pool<Job, Made>,
    round: Round,
    /// The round's limit is reached.
    full: bool,
    /// Chunks whose pieces are not finished yet, by file, in order.
    waiting: Vec<SealedFile>,
    seen_generation: usize,
}

/// Runs a round. With `unlimited` it covers the whole cut whatever it takes.
pub(crate) fn run(
    parts: &SealParts,
    cut: &Cut<'_>,
    classes: &mut Classes,
    sink: &mut PieceSink<'_>,
    lap: &mut Lap,
    unlimited: bool,
) -> Result<(Round, Vec<SealedFile>), DriveError> {
    let threads = parts.options.seal_threads;
    std::thread::scope(|scope: &Scope<'_, '_>| {
        let (keys, store, blocks) = (parts.keys.clone(), parts.store.clone(), parts.trees.blocks.clone());
        let work = move |job: &Job| make(&keys, &store, &blocks, job);
        let pool = Pool::start(scope, threads, parts.haste.clone(), work)
            .map_err(|error| DriveError::System(format!("a sealing thread: {error}")))?;
        let seen_generation = sink.generation();
        let mut data = DataRound {
            parts,
            cut,
            classes,
            class: Class::DRIVE,
            lanes: Lanes::default(),
            sink,
            lap,
            pool,
            round: Round::default(),
            full: false,
            waiting: Vec::new(),
            seen_generation,
            unlimited,
        };
        data.walk()?;
        Ok((data.round, data.waiting))
    })
}

impl DataRound<'_, '_> {
    fn walk(&mut self) -> Result<(), DriveError> {
        let (after, from, begun) = (self.lap.after, self.lap.from, self.lap.begun);
        let mut stopped = self.files(after, from, Ino::MAX)?;
        if let (None, Some(begun)) = (stopped, begun) {
            stopped = self.files(begun, 0, from)?;
            if stopped.is_some() {
                // A new lap: what is at or behind `from` was looked at in this round.
                self.lap.after = begun;
                self.lap.begun = None;
            }
        }
        if let Some(at) = stopped {
            self.lap.from = at;
            self.lap.begun.get_or_insert(self.cut.lsn);
        }
        while self.pool.is_busy() {
            self.take_one()?;
        }
        self.round.complete = stopped.is_none();
        Ok(())
    }

    /// The files `from..to` that were marked since the cut `after`; where the round's limit was reached, if it was.
    fn files(&mut self, after: Lsn, from: Ino, to: Ino) -> Result<Option<Ino>, DriveError> {
        let range = |ino: Ino| keys::full(Table::Inode, &keys::inode(ino));
        let mut marked = ChangedKeys::between(self.cut.snapshot, after, &range(from), &range(to))?;
        while let Some(key) = marked.next()? {
            let ino = keys::decode_inode(key.get(1..).unwrap_or_default())?;
            if self.is_full() {
                return Ok(Some(ino));
            }
            self.lap.pending.remove(&ino);
            self.lap.lacking.remove(&ino);
            match self.sealable(ino)? {
                Some(row) if row.lacks_data() => _ = self.lap.lacking.insert(ino),
                Some(row) => self.file(ino, &row)?,
                None => {}
            }
            if self.full {
                return Ok(Some(ino));
            }
        }
        Ok(None)
    }

    /// Has this round done enough? Then there is more to do under a new cut.
    fn is_full(&mut self) -> bool {
        let bytes_max = self.parts.options.seal_round_bytes_max;
        let full = self.round.chunks >= ROUND_CHUNKS_MAX || self.round.bytes >= bytes_max;
        self.full |= full && !self.unlimited;
        self.full
    }

    /// The file's row, if it belongs into a commit.
    fn sealable(&self, ino: Ino) -> Result<Option<InodeRow>, DriveError> {
        if let Some(row) = self.cut.snapshot.get(Table::Orphan, &keys::inode(ino))?
            && OrphanRow::decode(&row)? == OrphanRow::Unlinked
        {
            return Ok(None);
        }
        Ok(self.cut.view.inode(ino)?.filter(|row| row.kind == Kind::File))
    }

    /// How a file's chunks are spread over pieces.
    fn lanes_of(&self, ino: Ino, row: &InodeRow) -> Result<Lanes, DriveError> {
        let options = &self.parts.options;
        if Lanes::bytes_min(options).is_none_or(|min| row.size.min(row.allocated) < min) {
            return Ok(Lanes::default());
        }
        let (mut bytes, mut from) = (0u64, 0);
        loop {
            let page = self.cut.view.extents(ino, from, PAGE_ROWS)?;
            for (off, extent) in &page {
                from = off + 1;
                let holds = matches!(extent.source, ExtentSource::Payload { .. });
                bytes = bytes.saturating_add(if holds { extent.len } else { 0 });
            }
            if page.len() < PAGE_ROWS {
                return Ok(Lanes::of(bytes, row.chunk_bytes(), options));
            }
        }
    }

    /// All chunks of one file that its extents touch, and those behind its end.
    fn file(&mut self, ino: Ino, row: &InodeRow) -> Result<(), DriveError> {
        self.class = self.classes.of_file(&self.cut.view, ino, row)?;
        self.lanes = self.lanes_of(ino, row)?;
        // A base's rows may be from before their chunks.
        let has_chunks = row.has_chunks() || self.parts.rows().has_base();
        let mut planner = Planner::new(row.chunk_bytes(), row.size);
        let mut from = 0;
        let mut last = false;
        while !last {
            let page = self.cut.view.extents(ino, from, PAGE_ROWS)?;
            last = page.len() < PAGE_ROWS;
            if last && from == 0 && page.is_empty() {
                // Not its data has changed: a truncation leaves an extent, too.
                return Ok(());
            }
            for (off, extent) in page {
                from = off + 1;
                planner.push(off, extent);
            }
            if last {
                planner.finish();
            }
            while let Some(work) = planner.next() {
                if self.is_full() {
                    return Ok(());
                }
                self.work(ino, has_chunks, work)?;
            }
        }
        if row.has_chunks() {
            self.no_chunks(ino, row.size.div_ceil(row.chunk_bytes()), u64::MAX)?;
        }
        if !self.lap.pending.contains(&ino) {
            self.give_made(Made::End { ino, empty_from: row.size })?;
        }
        Ok(())
    }

    fn work(&mut self, ino: Ino, has_chunks: bool, work: Work) -> Result<(), DriveError> {
        match work {
            Work::Hole { from, to } => self.no_chunks(ino, from, to),
            Work::Chunk { n, len, covered, parts } => {
                let old = if covered || !has_chunks { None } else { self.cut.view.chunk(ino, n)? };
                if parts.is_empty() && old.as_ref().is_none_or(|old| old.plain_len <= len) {
                    return Ok(());
                }
                match self.plain(old.as_ref(), len, &parts) {
                    Ok(plain) => {
                        let (class, lane) = (self.class, self.lanes.next());
                        self.give(Job { ino, n, class, lane, plain, extents: parts.len() })
                    }
                    Err(Missing::Pending(error)) => {
                        tracing::warn!(ino, n, %error, "a chunk stays in the log: its old content is out of reach");
                        self.lap.pending.insert(ino);
                        Ok(())
                    }
                    Err(Missing::Unreadable(error)) => {
                        tracing::error!(ino, n, %error, "a chunk stays in the log: what was written cannot be read back");
                        self.lap.pending.insert(ino);
                        Ok(())
                    }
                    Err(Missing::Failed(error)) => Err(error),
                }
            }
        }
    }

    /// The chunk's bytes as of the cut.
    fn plain(&self, old: Option<&ChunkRow>, len: u32, parts: &[Part]) -> Result<Vec<u8>, Missing> {
        let mut plain = vec![0; len as usize];
        if let Some(old) = old {
            let content = self.parts.chunks.read_for_seal(old, self.parts.options.fetch_deadline)?;
            for (to, from) in plain.iter_mut().zip(content.iter()) {
                *to = *from;
            }
        }
        for part in parts {
            let range = part.at as usize..part.at as usize + part.len as usize;
            let Some(slot) = plain.get_mut(range) else {
                return Err(Missing::Failed(DriveError::damaged("extent", "it leaves its chunk")));
            };
            match part.source {
                ExtentSource::Zero => slot.fill(0),
                ExtentSource::Payload { payload, skip } => {
                    self.cut.snapshot.read_payload(payload, skip, slot)?;
                }
            }
        }
        Ok(plain)
    }

    /// The chunk rows of `from..to` go.
    fn no_chunks(&mut self, ino: Ino, from: u64, to: u64) -> Result<(), DriveError> {
        let mut next = from;
        loop {
            let page = self.cut.view.chunks(ino, next, to, PAGE_ROWS)?;
            let last = page.len() < PAGE_ROWS;
            for (n, _) in page {
                next = n + 1;
                self.give_made(Made::Gone { ino, n })?;
            }
            if last {
                return Ok(());
            }
        }
    }

    fn give(&mut self, job: Job) -> Result<(), DriveError> {
        self.make_room()?;
        if job.plain.len() <= SMALL_BYTES {
            self.pool.give_here(job)
        } else {
            self.pool.give(job)
        }
        Ok(())
    }

    fn give_made(&mut self, made: Made) -> Result<(), DriveError> {
        self.make_room()?;
        self.pool.give_made(made);
        Ok(())
    }

    fn make_room(&mut self) -> Result<(), DriveError> {
        while !self.pool.has_room() {
            self.take_one()?;
        }
        Ok(())
    }

    /// Writes the oldest chunk that the threads have made.
    fn take_one(&mut self) -> Result<(), DriveError> {
        let made = self.pool.take().ok_or_else(|| DriveError::System("a sealing thread ended".to_owned()))?;
        let (ino, n, class, lane, extents, outcome) = match made {
            Made::Chunk { ino, n, class, lane, plain_len, extents, outcome } => {
                self.round.bytes += plain_len;
                (ino, n, class, lane, extents, outcome?)
            }
            Made::Gone { ino, n } => return self.place(ino, n, 0, None),
            Made::End { ino, empty_from } => {
                self.waiting_for(ino).empty_from = Some(empty_from);
                return Ok(());
            }
        };
        let cut = self.cut.lsn;
        let row = match outcome {
            Outcome::Hole => None,
            Outcome::Known(known) => Some(known.chunk_row(cut)),
            Outcome::New { tag, chunk } => {
                let at = self.sink.write_as(&chunk.block, class, lane)?;
                let known = DedupRow {
                    codec: chunk.codec.to_byte(),
                    digest: digest_of(&at.cid)?,
                    key: *chunk.key.as_bytes(),
                    block_len: at.len,
                    plain_len: chunk.plain_len,
                };
                self.sink.note_dedup(&at.piece, tag, known);
                Some(known.chunk_row(cut))
            }
        };
        self.place(ino, n, extents, row)
    }

    /// Notes a chunk's new row; installs what lies in pieces that are finished meanwhile.
    fn place(&mut self, ino: Ino, n: u64, extents: usize, row: Option<ChunkRow>) -> Result<(), DriveError> {
        if self.sink.generation() != self.seen_generation {
            // All that waits was written before this chunk's piece was begun.
            self.seen_generation = self.sink.generation();
            let waiting = std::mem::take(&mut self.waiting);
            super::install(self.parts, waiting)?;
        }
        self.round.chunks += 1;
        match &row {
            Some(row) => self.round.overlay.put(Table::Chunk, &keys::chunk(ino, n), row.encode()),
            None => self.round.overlay.delete(Table::Chunk, &keys::chunk(ino, n)),
        }
        let part = self.waiting_for(ino);
        part.chunks.push((n, row));
        part.rows += CHUNK_ROWS + extents * EXTENT_ROWS;
        Ok(())
    }

    fn waiting_for(&mut self, ino: Ino) -> &mut SealedFile {
        if self.waiting.last().is_none_or(|file| file.ino != ino || file.rows >= INSTALL_ROWS) {
            let cut = self.cut.lsn;
            self.waiting.push(SealedFile { ino, cut, chunks: Vec::new(), empty_from: None, rows: 0 });
        }
        // Pushed above if there was none.
        let last = self.waiting.len() - 1;
        &mut self.waiting[last]
    }
}

/// Why a chunk could not be put together.
enum Missing {
    /// The old chunk may be had another time.
    Pending(ChunkError),
    /// The medium lost a payload: that file's trouble, and no other's.
    Unreadable(StoreError),
    Failed(DriveError),
}

impl From<StoreError> for Missing {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Corrupt { .. } | StoreError::Io { .. } => Self::Unreadable(error),
            other => Self::Failed(other.into()),
        }
    }
}

impl From<ChunkError> for Missing {
    fn from(error: ChunkError) -> Self {
        match error {
            ChunkError::Local(what) => Self::Failed(DriveError::System(what)),
            other => Self::Pending(other),
        }
    }
}

/// The arithmetic, on a thread of the pool.
fn make(keys: &DriveKeys, store: &Store, blocks: &BlockReader, job: &Job) -> Made {
    let plain_len = job.plain.len() as u64;
    let outcome = outcome(keys, store, blocks, &job.plain);
    let Job { ino, n, class, lane, extents, .. } = *job;
    Made::Chunk { ino, n, class, lane, plain_len, extents, outcome }
}

fn outcome(
    keys: &DriveKeys,
    store: &Store,
    blocks: &BlockReader,
    plain: &[u8],
) -> Result<Outcome, DriveError> {
    if plain.iter().all(|byte| *byte == 0) {
        return Ok(Outcome::Hole);
    }
    let tag = chunk::dedup_tag(&keys.dedup, plain);
    if let Some(row) = store.get(Table::Dedup, &tag)? {
        let known = DedupRow::decode(&row)?;
        if known.plain_len as usize == plain.len()
            && let Some(row) = store.get(Table::Block, &known.digest)?
            && blocks.is_sound(&BlockRow::decode(&row)?.at(&known.digest))
        {
            return Ok(Outcome::Known(known));
        }
    }
    let chunk = chunk::seal(&keys.convergence, plain).map_err(|error| DriveError::damaged("chunk", error))?;
    Ok(Outcome::New { tag, chunk })
}

impl DedupRow {
    fn chunk_row(&self, cut: Lsn) -> ChunkRow {
        ChunkRow {
            digest: self.digest,
            key: self.key,
            codec: self.codec,
            plain_len: self.plain_len,
            block_len: self.block_len,
            cut,
        }
    }
}
