//! What a drive's content is made of, as bytes: keys, encrypted blocks, UnixFS DAGs, the search tree, commits,
//! the head record, placement entries and pieces.
//!
//! Owns every format between the log (`holdfast-store`) and the wire (`holdfast-net`): `fs/format/content.md` is its
//! description, and the vectors in `testdata/` pin it. Pure functions and codecs: no files, no threads, no clock, no
//! ambient randomness (see [`rng`]). Promises that every decoder is total (any bytes give a value or an `Err`), bounded
//! by a named limit, and that only verification yields a [`block::Block`].
//! Refuses newer versions and suites with an error that says so.
//!
//! ```text
//! words -> RootKey -> DriveName, Generation(n) -> DriveKeys { chunks, trees, head, placement, mask, provider_auth }
//!
//! chunk::Sealer        plain -> SealedChunk { block, key, codec, plain_len }         chunk::open(block, key, codec, len) -> plain
//! unixfs::FileDag      leaves (Link) -> root Link + inner blocks                     balanced, 174 links, raw leaves
//! tree::Tree<V>        get / range / iter / diff / walk over a NodeSource<V>; apply(sorted edits) into a BlockSink -> root
//!    Namespace         Ref = NodeRef { root: Link (UnixFS directory), body: Cid, key }
//!    Physical          Ref = PhysicalRef { at: BlockAt, key }                        location and placement trees
//!    Entry { key, value, links: Vec<Link> }    Edit { key, change: Option<(value, links)> }    Link { cid, tsize }
//! location             LocationTree = Tree<Physical>: sha2-256 digest -> Place { piece, offset, len }
//! commit::Commit       -> EncodedCommit { directory: Block, body: Block, key }; CommitRef { root: Cid, at: BlockAt, key }
//! placement            PlacementEntry, Chain, PlacementTree (checkpoint)
//! publication          PublicPiece: of which publication a public piece is
//! class                Class: the losses that a piece has to survive; ClassNote
//! watch                WatchKeys, WatcherKeys, GrantNote: who may repair with the owner away
//! head                 HeadBody, HeadRecord (IPNS v2)
//! car                  PieceWriter (a BlockSink over Write), PieceReader
//! plain                public data: add (profiles of `ipfs add`), node, walk, CAR files of others
//! retrieve             Retriever, FetchError, Priority
//! ```
//!
//! A namespace node costs two blocks: the directory (links, for anyone who walks UnixFS) and its `_` (the ciphertext).
//! A reader of ours fetches only `_`: [`tree::NodeRef`] names both.

pub mod aead;
pub mod block;
pub mod car;
pub mod chunk;
pub mod class;
pub mod commit;
pub mod dagcbor;
#[doc(hidden)]
pub mod fuzzing;
pub mod head;
pub mod keyfile;
pub mod keys;
pub mod location;
pub mod placement;
pub mod plain;
pub mod publication;
pub mod retrieve;
pub mod rng;
pub mod share;
pub mod tree;
pub mod unixfs;
mod varint;
pub mod watch;

pub use block::{Block, BlockAt, BlockSink, Link, PieceId, SinkError};
pub use dagcbor::FormatError;
pub use retrieve::{FetchError, Priority, Retriever};

/// Golden vectors: what each format made of fixed input when it was fixed. A difference means that drives of today could
/// not be read tomorrow. `HOLDFAST_BLESS=1` writes them anew, for a new format only.
#[cfg(test)]
mod golden {
    pub(crate) fn check(name: &str, found: &str) {
        let path = format!("{}/testdata/{name}.txt", env!("CARGO_MANIFEST_DIR"));
        if std::env::var_os("HOLDFAST_BLESS").is_some() {
            assert!(std::fs::write(&path, format!("{found}\n")).is_ok(), "cannot write {path}");
        }
        let golden = std::fs::read_to_string(&path).unwrap_or_default();
        assert_eq!(found, golden.trim_end(), "{name}: the format has changed");
    }
}
