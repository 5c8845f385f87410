//! `commit[sequence]`: what this home remembers of a commit.
//!
//! Owns: the row's DAG-CBOR. Promises: strict both ways. It repeats what the commit's block says where opening the block at every start would be
//! waste, and adds what only this device needs: the pieces that came with it.

use cid::Cid;
use holdfast_content::block::{BlockAt, PieceId};
use holdfast_content::commit::{CommitRef, DriveStats};
use holdfast_content::keys::SecretKey32;
use holdfast_content::tree::{NodeRef, PhysicalRef};
use holdfast_store::Lsn;
use serde::{Deserialize, Serialize};
use serde_ipld_dagcbor as dagcbor;

use crate::drive::error::DriveError;
use crate::drive::types::CommitInfo;

const VERSION: u64 = 1;

/// A commit as this home remembers it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct CommitRow {
    pub(crate) info: CommitInfo,
    /// Root of the namespace tree.
    pub(crate) namespace: NodeRef,
    pub(crate) stats: DriveStats,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Place {
    cid: Cid,
    piece: serde_bytes::ByteBuf,
    offset: u64,
    len: u32,
    key: SecretKey32,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Body {
    version: u64,
    sequence: u64,
    cut: u64,
    root: Cid,
    commit: Place,
    location: Place,
    namespace: NodeRef,
    pieces: Vec<serde_bytes::ByteBuf>,
    pending: Vec<u64>,
    time: u64,
    stats: DriveStats,
}

impl Place {
    fn new(at: &BlockAt, key: &SecretKey32) -> Self {
        let piece = serde_bytes::ByteBuf::from(at.piece.to_vec());
        Self { cid: at.cid, piece, offset: at.offset, len: at.len, key: key.clone() }
    }

    fn at(&self) -> Result<BlockAt, DriveError> {
        Ok(BlockAt { cid: self.cid, piece: piece_id(&self.piece)?, offset: self.offset, len: self.len })
    }
}

fn piece_id(bytes: &[u8]) -> Result<PieceId, DriveError> {
    bytes.try_into().map_err(|_| DriveError::damaged("commit row", "a piece id"))
}

impl CommitRow {
    /// The table's key.
    pub(crate) fn key(sequence: u64) -> [u8; 8] {
        sequence.to_be_bytes()
    }

    /// Everything at or below this LSN is in the commit.
    pub(crate) fn cut(&self) -> Lsn {
        self.info.cut
    }

    /// Bytes at rest.
    pub(crate) fn encode(&self) -> Result<Vec<u8>, DriveError> {
        let info = &self.info;
        let body = Body {
            version: VERSION,
            sequence: info.sequence,
            cut: info.cut,
            root: info.commit.root,
            commit: Place::new(&info.commit.at, &info.commit.key),
            location: Place::new(&info.location_root.at, &info.location_root.key),
            namespace: self.namespace.clone(),
            pieces: info.new_pieces.iter().map(|id| serde_bytes::ByteBuf::from(id.to_vec())).collect(),
            pending: info.pending.clone(),
            time: info.time,
            stats: self.stats,
        };
        dagcbor::to_vec(&body).map_err(|error| DriveError::damaged("commit row", error))
    }

    /// From bytes at rest.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, DriveError> {
        let body: Body =
            dagcbor::from_slice(bytes).map_err(|error| DriveError::damaged("commit row", error))?;
        if body.version != VERSION {
            return Err(DriveError::damaged(
                "commit row",
                format!("version {}: update Holdfast", body.version),
            ));
        }
        let commit = CommitRef { root: body.root, at: body.commit.at()?, key: body.commit.key };
        let location_root = PhysicalRef { at: body.location.at()?, key: body.location.key };
        let info = CommitInfo {
            sequence: body.sequence,
            cut: body.cut,
            commit,
            location_root,
            new_pieces: body.pieces.iter().map(|id| piece_id(id)).collect::<Result<_, _>>()?,
            pending: body.pending,
            time: body.time,
        };
        Ok(Self { info, namespace: body.namespace, stats: body.stats })
    }
}
