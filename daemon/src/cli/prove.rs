//! `holdfast proofs prove`: names the bytes of files, and proves possession of one piece or of a set.

use std::{
    fs::File,
    io::Read,
    path::{Path, PathBuf},
};

use holdfast_proofs::{
    Challenge, CommpHasher, PieceCid, ProveError, TreeCache, TreeLevel,
    file::{PossessionFile, SetFile},
    pdp::{ProvingSet, prove_set},
    prove as prove_piece,
};
use serde::Serialize;

use super::{
    Exit, Failure, Outcome,
    args::ProofsProveArgs,
    print,
    proofs::{hex32, publish, spares},
};

/// Memory for the trees of what is proven, over all files.
const TREE_BYTES_MAX: u64 = 64 << 20;
const READ_BYTES: usize = 4 << 20;

#[derive(Serialize)]
struct Proven {
    file: PathBuf,
    #[serde(skip_serializing_if = "Option::is_none")]
    piece: Option<PieceCid>,
    /// Of a set: its digest, and its pieces in their order.
    #[serde(skip_serializing_if = "Option::is_none")]
    set: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pieces: Vec<PieceCid>,
    challenges: u16,
    bytes: usize,
}

/// A file that was read once: its name, and the tree to prove with.
struct Named {
    path: PathBuf,
    piece: PieceCid,
    tree: Vec<u8>,
}

pub(super) fn prove(json: bool, args: &ProofsProveArgs) -> Outcome {
    let seed =
        hex32(&args.seed).ok_or_else(|| Failure::new(Exit::Usage, "a seed is 64 hexadecimal digits"))?;
    let challenge =
        Challenge::new(seed, args.count).map_err(|error| Failure::new(Exit::Usage, error.to_string()))?;
    spares(&args.out, &args.files)?;
    let tree_bytes = TREE_BYTES_MAX / args.files.len().max(1) as u64;
    let named = args.files.iter().map(|path| name(path, tree_bytes)).collect::<Result<Vec<_>, _>>()?;
    match named.as_slice() {
        [one] => one_piece(json, args, challenge, one),
        several => set(json, args, challenge, several),
    }
}

fn name(path: &Path, tree_bytes: u64) -> Result<Named, Failure> {
    let refused = |why: &str| Failure::new(Exit::Usage, format!("{} {why}", path.display()));
    let named = |error: std::io::Error| {
        let failure = Failure::from(error);
        let message = format!("{}: {}", path.display(), failure.message);
        Failure { message, ..failure }
    };
    // Looked at before it is opened: a pipe would be waited for.
    let meta = std::fs::metadata(path).map_err(named)?;
    if !meta.is_file() {
        // It is read twice, the second time at the drawn places.
        return Err(refused("is no regular file"));
    }
    if meta.len() == 0 {
        return Err(refused("has no bytes, and nothing can be asked of it"));
    }
    let mut file = File::open(path).map_err(named)?;
    let mut hasher = CommpHasher::with_cache(TreeLevel::within(meta.len(), tree_bytes));
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let (mut chunk, mut tree) = (vec![0; READ_BYTES], Vec::new());
    loop {
        let read = file.read(&mut chunk).map_err(named)?;
        let Some(bytes) = chunk.get(..read).filter(|bytes| !bytes.is_empty()) else { break };
        hasher.update_parallel(bytes, threads);
        tree.extend(hasher.drain_cache());
    }
    let (piece, rest) = hasher.finish_with_cache();
    tree.extend(rest);
    Ok(Named { path: path.to_owned(), piece, tree })
}

fn one_piece(json: bool, args: &ProofsProveArgs, challenge: Challenge, named: &Named) -> Outcome {
    let piece = named.piece;
    let tree = TreeCache::open(&named.tree, &piece).map_err(Failure::internal)?;
    let proof = prove_piece(&File::open(&named.path)?, &tree, &challenge).map_err(Failure::internal)?;
    let bytes = PossessionFile { piece, challenge, proof }.encode()?;
    let file = publish(&args.out, &bytes)?;
    let (challenges, bytes) = (args.count, bytes.len());
    let text = format!("piece {piece}\nproof {} ({bytes} bytes, {challenges} challenges)\n", file.display());
    let proven = Proven { file, piece: Some(piece), set: None, pieces: Vec::new(), challenges, bytes };
    print(json, &proven, &text)
}

fn set(json: bool, args: &ProofsProveArgs, challenge: Challenge, named: &[Named]) -> Outcome {
    let pieces: Vec<PieceCid> = named.iter().map(|named| named.piece).collect();
    let set = ProvingSet::new(pieces.clone())
        .map_err(|error| Failure::new(Exit::Usage, format!("these files are no set: {error}")))?;
    let proof = prove_set(&set, &challenge, |index, piece| {
        let named = named.get(index).ok_or_else(|| Failure::internal("a piece that is not in the set"))?;
        let internal = |error| Failure::internal(ProveError::from(error));
        Ok::<_, Failure>((File::open(&named.path)?, TreeCache::open(&named.tree, piece).map_err(internal)?))
    })?;
    let digest = data_encoding::HEXLOWER.encode(set.digest());
    let bytes = SetFile { set, challenge, proof }.encode()?;
    let file = publish(&args.out, &bytes)?;
    let (challenges, bytes) = (args.count, bytes.len());
    let mut text: String =
        named.iter().map(|named| format!("piece {}  {}\n", named.piece, named.path.display())).collect();
    text += &format!("set   {digest}\nproof {} ({bytes} bytes, {challenges} challenges)\n", file.display());
    print(json, &Proven { file, piece: None, set: Some(digest), pieces, challenges, bytes }, &text)
}

impl From<ProveError> for Failure {
    fn from(error: ProveError) -> Failure {
        Failure::internal(error)
    }
}
