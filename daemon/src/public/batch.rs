//! Blocks on their way from the command to the daemon: a folder of CAR files, each a piece to be.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs::File;
use std::io::{BufReader, BufWriter};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail, ensure};
use cid::Cid;
use holdfast_content::block::{Block, SinkError, as_v1, digest_of};
use holdfast_content::car::{PIECE_BYTES_TARGET, PieceReader, PieceWriter};
use holdfast_content::plain::{Blocks, PlainError, load};

use super::folder;
use crate::home::create_private_dir;

/// Blocks in one piece at most, as in private ones.
const PIECE_BLOCKS_MAX: u64 = 32_768;
/// Blocks of a publication, at most.
const BLOCKS_MAX: usize = 64 << 20;
const BUFFER_BYTES: usize = 1 << 20;

/// Writes a batch; what is not finished is removed when it is dropped.
pub struct BatchWriter {
    name: String,
    dir: PathBuf,
    open: Option<PieceWriter<BufWriter<File>>>,
    pieces: u32,
    known: HashSet<[u8; 32]>,
    kept: bool,
}

impl BatchWriter {
    /// In a home's folder, under a name that was drawn.
    pub fn begin(home: &Path, random: [u8; 16]) -> anyhow::Result<BatchWriter> {
        let name = data_encoding::HEXLOWER.encode(&random);
        let dir = folder(home).join(format!("new-{name}"));
        create_private_dir(&folder(home))?;
        std::fs::create_dir(&dir).with_context(|| format!("making {}", dir.display()))?;
        Ok(BatchWriter { name, dir, open: None, pieces: 0, known: HashSet::new(), kept: false })
    }

    /// Its folder.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Writes a block, unless it is there.
    pub fn put(&mut self, block: &Block) -> Result<(), SinkError> {
        let failed = |error: anyhow::Error| SinkError::Other(error.into());
        let digest = digest_of(block.cid()).map_err(|error| failed(error.into()))?;
        if !self.known.insert(digest) {
            return Ok(());
        }
        let full = |open: &PieceWriter<_>| {
            open.position_after(block.len()) > PIECE_BYTES_TARGET || open.blocks() >= PIECE_BLOCKS_MAX
        };
        if self.open.as_ref().is_some_and(|open| open.blocks() > 0 && full(open)) {
            self.close_piece().map_err(failed)?;
        }
        let open = match self.open.as_mut() {
            Some(open) => open,
            None => {
                let path = self.dir.join(format!("{:05}.car", self.pieces));
                let file = File::create_new(path)?;
                // The daemon names pieces.
                self.open.insert(PieceWriter::new(BufWriter::with_capacity(BUFFER_BYTES, file), [0; 16])?)
            }
        };
        open.write(block)?;
        Ok(())
    }

    fn close_piece(&mut self) -> anyhow::Result<()> {
        if let Some(open) = self.open.take() {
            let file = open.finish()?.into_inner().map_err(|error| error.into_error())?;
            file.sync_all()?;
            self.pieces += 1;
        }
        Ok(())
    }

    /// Syncs it; its name, and how many blocks it has.
    pub fn finish(&mut self) -> anyhow::Result<(String, u64)> {
        self.close_piece()?;
        File::open(&self.dir)?.sync_all()?;
        Ok((self.name.clone(), self.known.len() as u64))
    }

    /// The daemon has taken it over.
    pub fn keep(mut self) {
        self.kept = true;
    }
}

impl Drop for BatchWriter {
    fn drop(&mut self) {
        if !self.kept {
            let _ = std::fs::remove_dir_all(&self.dir);
        }
    }
}

/// A batch whose blocks were all hashed.
pub(super) struct BatchReader {
    dir: PathBuf,
    files: Vec<(PathBuf, u64)>,
    open: Vec<File>,
    places: HashMap<[u8; 32], (u32, u64, u32)>,
}

impl BatchReader {
    /// Reads and checks all of it.
    pub(super) fn open(home: &Path, name: &str) -> anyhow::Result<BatchReader> {
        let hex = name.len() == 32 && name.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
        ensure!(hex, "`{name}` is not the name of a batch");
        let dir = folder(home).join(format!("new-{name}"));
        let mut paths = BTreeMap::new();
        for entry in std::fs::read_dir(&dir).with_context(|| format!("reading {}", dir.display()))? {
            let entry = entry?;
            let number =
                entry.file_name().to_str().and_then(|name| name.strip_suffix(".car")?.parse::<u32>().ok());
            paths.insert(number.context("a batch with a file of another kind")?, entry.path());
        }
        let mut batch = BatchReader { dir, files: Vec::new(), open: Vec::new(), places: HashMap::new() };
        for (number, path) in (0u32..).zip(paths.into_values()) {
            let file = File::open(&path)?;
            let mut reader = PieceReader::new(BufReader::with_capacity(BUFFER_BYTES, &file), [0; 16])?;
            while let Some((block, at)) = reader.next_block()? {
                batch.places.insert(digest_of(block.cid())?, (number, at.offset, at.len));
                ensure!(batch.places.len() <= BLOCKS_MAX, "a publication has at most {BLOCKS_MAX} blocks");
            }
            batch.files.push((path, reader.position()));
            batch.open.push(file);
        }
        Ok(batch)
    }

    /// The pieces to be, in order, and their bytes.
    pub(super) fn files(&self) -> &[(PathBuf, u64)] {
        &self.files
    }

    /// Takes away what is left of it.
    pub(super) fn remove(&self) {
        if let Err(error) = std::fs::remove_dir_all(&self.dir) {
            tracing::warn!(dir = %self.dir.display(), %error, "a batch could not be removed");
        }
    }
}

impl Blocks for BatchReader {
    fn block(&self, cid: &Cid) -> Result<Block, PlainError> {
        let &(number, offset, len) = self.places.get(&digest_of(cid)?).ok_or(PlainError::Missing(*cid))?;
        let file = self.open.get(number as usize).ok_or(PlainError::Missing(*cid))?;
        let mut bytes = vec![0; len as usize];
        file.read_exact_at(&mut bytes, offset).map_err(|error| PlainError::Other(Box::new(error)))?;
        Ok(Block::verify(*cid, bytes)?)
    }
}

/// Whether every block below the root is there and sound UnixFS.
pub(super) fn check_whole(batch: &BatchReader, root: &Cid) -> anyhow::Result<()> {
    let mut seen = HashSet::new();
    let mut todo = vec![*root];
    while let Some(cid) = todo.pop() {
        let v1 = as_v1(&cid)?;
        if !seen.insert(v1) {
            continue;
        }
        // Raw leaves need not be read again: they link nothing.
        if v1.codec() == holdfast_content::block::CODEC_RAW {
            if !batch.places.contains_key(&digest_of(&v1)?) {
                bail!("block {cid} is missing");
            }
            continue;
        }
        todo.extend(load(batch, &cid).context("what was to be published is not whole")?.links());
    }
    Ok(())
}
