//! `holdfast proofs compress` and `holdfast proofs open`: compressed possession proofs by hand, from files.
//!
//! ```text
//! provider   compress FILE...   trees (kept), the set's root, one proof over draws from all of them -> a report
//! auditor    seed -> provider: open FILE -> leaves in both trees -> auditor: verify, against the piece CID that it knows
//! auditor    verify REPORT, and compares the set's root and the key
//! ```
//!
//! A tree costs minutes of a core for each GiB, so it is kept under its piece's and its root's name; it is checked from the
//! root downward wherever it is used. Parameters are made here where there are none, and said to be worth nothing.

use std::{
    fs::{self, File},
    io::{BufWriter, Read, Write},
    ops::ControlFlow,
    path::{Path, PathBuf},
};

use holdfast_compressed::{
    Audit, AuditReport, BindingError, CompressError, LocalParameters, OpeningFile, ParamsError, Shape,
    SlotCommitment, SlotEntry, SlotSet, SlotTree, SlotTreeBuilder, StoredLevel, TreeError, TreeRoot,
    open_binding, prove,
};
use holdfast_proofs::{Challenge, CommpHasher, PieceCid, TreeCache, TreeLevel};
use serde::Serialize;

use super::{
    Exit, Failure, Outcome,
    args::{ParameterFolder, ProofsCompressArgs, ProofsOpenArgs},
    print, proofs,
};
use crate::{control::ProgressLine, progress::Progress};

const READ_BYTES: usize = 4 << 20;
/// Memory for the piece's own tree, of a file that is opened.
const TREE_BYTES_MAX: u64 = 64 << 20;
const ENDING: &str = "poseidon";
/// The domain of the randomness of parameters and proofs.
const STREAM: &str = "holdfast 2026-11 randomness of compressed proofs";

/// A file with its commitment; both trees can be had.
struct Slot {
    path: PathBuf,
    commitment: SlotCommitment,
    /// The file of its Poseidon tree.
    tree: PathBuf,
    /// The tree of its piece CID, in memory.
    cache: Vec<u8>,
}

#[derive(Serialize)]
struct SlotLine {
    file: PathBuf,
    piece: PieceCid,
    root: String,
}

impl Slot {
    fn line(&self) -> SlotLine {
        let (piece, root) = (*self.commitment.piece(), self.commitment.root().to_string());
        SlotLine { file: self.path.clone(), piece, root }
    }

    fn source(&self) -> Result<File, Failure> {
        Ok(File::open(&self.path)?)
    }

    fn poseidon(&self) -> Result<SlotTree<File>, Failure> {
        Ok(SlotTree::open(File::open(&self.tree)?, &self.commitment)?)
    }
}

/// Names a file's bytes, and builds its Poseidon tree where the folder has none of them.
fn slot(path: &Path, trees: &Path, progress: &mut Progress) -> Result<Slot, Failure> {
    let named = |error: std::io::Error| Failure::internal(format!("{}: {error}", path.display()));
    let file = File::open(path).map_err(named)?;
    let meta = file.metadata().map_err(named)?;
    if !meta.is_file() {
        return Err(Failure::new(Exit::Usage, format!("{} is no regular file", path.display())));
    }
    let mut hasher = CommpHasher::with_cache(TreeLevel::within(meta.len(), TREE_BYTES_MAX));
    let mut cache = Vec::new();
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    read_all(&file, |bytes| {
        hasher.update_parallel(bytes, threads);
        cache.extend(hasher.drain_cache());
        Ok(())
    })?;
    let (piece, rest) = hasher.finish_with_cache();
    cache.extend(rest);
    let (commitment, tree) = match known_tree(trees, &piece)? {
        Some(known) => known,
        None => build_tree(path, &piece, trees, threads, progress)?,
    };
    Ok(Slot { path: path.to_owned(), commitment, tree, cache })
}

fn read_all(mut file: &File, mut take: impl FnMut(&[u8]) -> Outcome) -> Outcome {
    let mut chunk = vec![0; READ_BYTES];
    loop {
        let read = file.read(&mut chunk)?;
        let Some(bytes) = chunk.get(..read).filter(|bytes| !bytes.is_empty()) else { return Ok(()) };
        take(bytes)?;
    }
}

/// `PIECE-ROOT.poseidon`
fn tree_path(trees: &Path, slot: &SlotCommitment) -> PathBuf {
    trees.join(format!("{}-{}.{ENDING}", slot.piece(), slot.root()))
}

/// A tree of this piece that an earlier run has kept. One that does not open is made again.
fn known_tree(trees: &Path, piece: &PieceCid) -> Result<Option<(SlotCommitment, PathBuf)>, Failure> {
    let prefix = format!("{piece}-");
    for entry in fs::read_dir(trees)? {
        let path = entry?.path();
        let root = path.file_stem().and_then(|name| name.to_str()?.strip_prefix(&prefix));
        let root = root.and_then(proofs::hex32).and_then(|root| TreeRoot::from_bytes(&root).ok());
        let Some(root) = root.filter(|_| path.extension().is_some_and(|ending| ending == ENDING)) else {
            continue;
        };
        let commitment = SlotCommitment::new(*piece, root)?;
        if SlotTree::open(File::open(&path)?, &commitment).is_ok() {
            return Ok(Some((commitment, path)));
        }
    }
    Ok(None)
}

fn build_tree(
    path: &Path,
    piece: &PieceCid,
    trees: &Path,
    threads: usize,
    progress: &mut Progress,
) -> Result<(SlotCommitment, PathBuf), Failure> {
    // Refused before minutes are spent on it.
    SlotCommitment::new(*piece, TreeRoot::from_bytes(&[0; 32])?)?;
    let aside = trees.join(format!("{piece}.{}.part", std::process::id()));
    let mut out = BufWriter::new(File::create(&aside)?);
    let mut builder = SlotTreeBuilder::new(StoredLevel::DEFAULT);
    let mut done = 0;
    read_all(&File::open(path)?, |bytes| {
        builder.update(bytes, threads);
        out.write_all(&builder.drain())?;
        done += bytes.len() as u64;
        let (total, unit) = (piece.payload_len(), "bytes".to_owned());
        progress.show(ProgressLine { phase: "building the tree".to_owned(), done, total, unit, note: None });
        Ok(())
    })?;
    let (commitment, rest) = builder.finish(piece)?;
    out.write_all(&rest)?;
    out.into_inner().map_err(|error| Failure::from(error.into_error()))?.sync_all()?;
    let path = tree_path(trees, &commitment);
    fs::rename(&aside, &path)?;
    Ok((commitment, path))
}

/// The folder's parameters, or new ones.
fn parameters(folder: &ParameterFolder, progress: &mut Progress) -> Result<LocalParameters, Failure> {
    let folder = folder.path();
    fs::create_dir_all(&folder)?;
    if let Some(path) = LocalParameters::find(&folder, Shape::V1)? {
        return Ok(LocalParameters::load(&path, Shape::V1)?);
    }
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let made = LocalParameters::generate(Shape::V1, &mut Drawn::new()?, threads, |step| {
        let phase = "making parameters (their maker can forge)".to_owned();
        let (done, total) = (step.done, step.total);
        progress.show(ProgressLine { phase, done, total, unit: "points".to_owned(), note: None });
        ControlFlow::Continue(())
    })?;
    made.store(&folder)?;
    Ok(made)
}

#[derive(Serialize)]
struct Compressed {
    file: PathBuf,
    bytes: usize,
    set: String,
    key_sha256: String,
    warning: &'static str,
    slots: Vec<SlotLine>,
}

pub(super) fn compress(json: bool, args: &ProofsCompressArgs) -> Outcome {
    let fresh = proofs::hex32(&args.fresh)
        .ok_or_else(|| Failure::new(Exit::Usage, "fresh bytes are 64 hexadecimal digits"))?;
    proofs::spares(&args.out, &args.files)?;
    fs::create_dir_all(&args.trees)?;
    let mut progress = Progress::new(json);
    let slots = args.files.iter().map(|path| slot(path, &args.trees, &mut progress));
    let slots = slots.collect::<Result<Vec<_>, _>>()?;
    let entries = slots.iter().map(|slot| SlotEntry::from(&slot.commitment)).collect();
    let set =
        SlotSet::new(Shape::V1, entries).map_err(|error| Failure::new(Exit::Usage, error.to_string()))?;
    let parameters = parameters(&args.folder, &mut progress)?;
    let audit = Audit::new(Shape::V1, &set.root(), &fresh);
    let open = |index: usize, _: &SlotEntry| -> Result<(File, SlotTree<File>), Failure> {
        let slot = slots.get(index).ok_or_else(|| Failure::internal("a slot that is none"))?;
        Ok((slot.source()?, slot.poseidon()?))
    };
    let proof = prove(&parameters, &set, &audit, open, &mut Drawn::new()?)?;
    let key = parameters.verifying_key();
    let key_sha256 = data_encoding::HEXLOWER.encode(key.digest());
    let report = AuditReport { shape: Shape::V1, set: set.root(), fresh, key, proof };
    let bytes = report.encode()?;
    let file = proofs::publish(&args.out, &bytes)?;
    drop(progress);
    let root = data_encoding::HEXLOWER.encode(&set.root().to_bytes());
    let slots: Vec<SlotLine> = slots.iter().map(Slot::line).collect();
    let mut text = format!("{}\nset    {root}\nkey    {key_sha256}\n", proofs::WARNING);
    for slot in &slots {
        text += &format!("slot   {} root {}  {}\n", slot.piece, slot.root, slot.file.display());
    }
    text += &format!("report {} ({} bytes, {} draws)\n", file.display(), bytes.len(), Shape::V1.draws());
    let bytes = bytes.len();
    print(json, &Compressed { file, bytes, set: root, key_sha256, warning: proofs::WARNING, slots }, &text)
}

#[derive(Serialize)]
struct Opened {
    file: PathBuf,
    bytes: usize,
    piece: PieceCid,
    root: String,
    openings: u16,
}

pub(super) fn open(json: bool, args: &ProofsOpenArgs) -> Outcome {
    let seed = proofs::hex32(&args.seed)
        .ok_or_else(|| Failure::new(Exit::Usage, "a seed is 64 hexadecimal digits"))?;
    let challenge =
        Challenge::new(seed, args.count).map_err(|error| Failure::new(Exit::Usage, error.to_string()))?;
    proofs::spares(&args.out, std::slice::from_ref(&args.file))?;
    fs::create_dir_all(&args.trees)?;
    let slot = slot(&args.file, &args.trees, &mut Progress::new(json))?;
    let cache = TreeCache::open(slot.cache.as_slice(), slot.commitment.piece()).map_err(Failure::internal)?;
    let binding = open_binding(&slot.source()?, &cache, &slot.poseidon()?, &challenge)?;
    let opened = OpeningFile { slot: slot.commitment, challenge, binding };
    let bytes = opened.encode().map_err(Failure::internal)?;
    let file = proofs::publish(&args.out, &bytes)?;
    let line = slot.line();
    let text = format!(
        "piece    {}\nroot     {}\nopenings {} ({} bytes, {} draws)\n",
        line.piece,
        line.root,
        file.display(),
        bytes.len(),
        args.count
    );
    let (bytes, openings) = (bytes.len(), args.count);
    print(json, &Opened { file, bytes, piece: line.piece, root: line.root, openings }, &text)
}

/// A stream from 32 bytes of the system's randomness, which may fail once, at the beginning.
struct Drawn(blake3::OutputReader);

impl Drawn {
    fn new() -> Result<Drawn, Failure> {
        let mut seed = [0; 32];
        getrandom::fill(&mut seed).map_err(|error| Failure::internal(format!("no randomness: {error}")))?;
        Ok(Drawn(blake3::Hasher::new_derive_key(STREAM).update(&seed).finalize_xof()))
    }
}

impl rand_core::RngCore for Drawn {
    fn next_u32(&mut self) -> u32 {
        rand_core::impls::next_u32_via_fill(self)
    }

    fn next_u64(&mut self) -> u64 {
        rand_core::impls::next_u64_via_fill(self)
    }

    fn fill_bytes(&mut self, bytes: &mut [u8]) {
        self.0.fill(bytes);
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), rand_core::Error> {
        self.fill_bytes(bytes);
        Ok(())
    }
}

impl rand_core::CryptoRng for Drawn {}

impl From<TreeError> for Failure {
    fn from(error: TreeError) -> Failure {
        let message = error.to_string();
        match error {
            TreeError::Io(error) => error.into(),
            TreeError::Length(_) => Failure::new(Exit::Usage, message),
            TreeError::PayloadDamaged { .. } => Failure::new(Exit::Damage, message),
            _ => {
                Failure::new(Exit::Damage, message).hint("Remove the tree: it is made again from the bytes.")
            }
        }
    }
}

impl From<BindingError> for Failure {
    fn from(error: BindingError) -> Failure {
        match error {
            BindingError::Tree(error) => error.into(),
            // Both trees are of bytes that were read a moment ago: the file changed meanwhile, or its tree is damaged.
            other => Failure::new(Exit::Damage, other.to_string()),
        }
    }
}

impl From<ParamsError> for Failure {
    fn from(error: ParamsError) -> Failure {
        let message = error.to_string();
        match error {
            ParamsError::Io(error) => error.into(),
            ParamsError::Newer { .. } => Failure::new(Exit::NewerFormat, message),
            ParamsError::Header | ParamsError::Damaged | ParamsError::Name(_) | ParamsError::OtherCircuit => {
                Failure::new(Exit::Missing, message)
                    .hint("Remove the file of parameters: they are made again.")
            }
            _ => Failure::internal(message),
        }
    }
}

impl From<CompressError> for Failure {
    fn from(error: CompressError) -> Failure {
        match error {
            CompressError::Tree { error, .. } => error.into(),
            other => Failure::internal(other),
        }
    }
}
