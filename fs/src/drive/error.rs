//! What can go wrong with a drive, typed.
//!
//! Owns the one error of sealing, pieces, restore and checking, and the judgement whether trying again can help.

use std::io;

use holdfast_content::block::{BlockError, PieceId, SinkError};
use holdfast_content::retrieve::FetchError;
use holdfast_store::StoreError;
use thiserror::Error;

use crate::pieces::rows::RowError as PieceRowError;
use crate::rows::{BaseError, RowError};
use crate::vfs::{ChunkError, FsError};

/// Every failure of a drive that is not a POSIX answer.
#[derive(Debug, Error)]
pub enum DriveError {
    /// The log or the index.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A namespace row.
    #[error(transparent)]
    Row(#[from] RowError),
    /// The file system refused to install what was sealed.
    #[error("file system: {0}")]
    Fs(#[from] FsError),
    /// A row of a block, piece or commit.
    #[error(transparent)]
    PieceRow(#[from] PieceRowError),
    /// A piece file.
    #[error("{op} of piece {}: {source}", hex(.piece))]
    Piece {
        /// What was tried.
        op: &'static str,
        /// Which piece.
        piece: PieceId,
        /// What happened.
        #[source]
        source: io::Error,
    },
    /// The folder of pieces.
    #[error("{op} in the folder of pieces: {source}")]
    PieceFolder {
        /// What was tried.
        op: &'static str,
        /// What happened.
        #[source]
        source: io::Error,
    },
    /// No such piece was ever finished here.
    #[error("piece {} is unknown", hex(.0))]
    UnknownPiece(PieceId),
    /// Its row is there, its file is not.
    #[error("piece {} is not in the home folder", hex(.0))]
    NotLocal(PieceId),
    /// Evicting it could lose data, or break something that is under way.
    #[error("piece {} cannot be evicted: {reason}", hex(.piece))]
    NotEvictable {
        /// Which piece.
        piece: PieceId,
        /// Why.
        reason: &'static str,
    },
    /// Nobody knows where this block lies.
    #[error("block {0} has no known place")]
    NoPlace(Box<cid::Cid>),
    /// The network did not bring a block.
    #[error(transparent)]
    Fetch(#[from] FetchError),
    /// Bytes that are not what they should be.
    #[error("damaged {what}: {why}")]
    Damaged {
        /// What was read.
        what: &'static str,
        /// What is wrong with it.
        why: String,
    },
    /// A limit of a format was exceeded by our own doing.
    #[error("{0}")]
    Limit(String),
    /// Mounting or unmounting.
    #[error("mount: {0}")]
    Mount(String),
    /// A thread could not be started, randomness could not be had, and the like.
    #[error("system: {0}")]
    System(String),
}

impl DriveError {
    /// Whether the same call may succeed later without anybody repairing anything.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Store(error) => error.is_retryable(),
            Self::Row(error) => error.is_retryable(),
            Self::Fetch(error) => error.is_retryable() || *error == FetchError::NotFound,
            Self::Piece { source, .. } | Self::PieceFolder { source, .. } => {
                source.kind() == io::ErrorKind::StorageFull || source.kind() == io::ErrorKind::Interrupted
            }
            Self::Fs(error) => matches!(error, FsError::TimedOut | FsError::NoSpace),
            Self::NotEvictable { .. } | Self::NotLocal(_) | Self::System(_) | Self::Mount(_) => true,
            Self::PieceRow(_)
            | Self::UnknownPiece(_)
            | Self::NoPlace(_)
            | Self::Damaged { .. }
            | Self::Limit(_) => false,
        }
    }

    /// Bytes that do not decode.
    pub(crate) fn damaged(what: &'static str, why: impl ToString) -> Self {
        Self::Damaged { what, why: why.to_string() }
    }
}

impl From<BaseError> for DriveError {
    fn from(error: BaseError) -> Self {
        Self::Row(RowError::Base(error))
    }
}

impl From<BlockError> for DriveError {
    fn from(error: BlockError) -> Self {
        Self::damaged("block", error)
    }
}

impl From<DriveError> for SinkError {
    fn from(error: DriveError) -> Self {
        Self::Other(Box::new(error))
    }
}

impl From<SinkError> for DriveError {
    /// Unwraps what went in as a [`DriveError`].
    fn from(error: SinkError) -> Self {
        match error {
            SinkError::Other(inner) => match inner.downcast::<Self>() {
                Ok(inner) => *inner,
                Err(other) => Self::System(other.to_string()),
            },
            SinkError::Io(source) => Self::PieceFolder { op: "write", source },
            SinkError::Full => Self::Limit("a block does not fit an empty piece".to_owned()),
        }
    }
}

impl From<DriveError> for ChunkError {
    fn from(error: DriveError) -> Self {
        match error {
            DriveError::Fetch(FetchError::Corrupt) => Self::Damaged("every provider's copy".to_owned()),
            DriveError::Fetch(_) => Self::Unreachable,
            DriveError::Row(RowError::Base(BaseError::Unreachable(_))) => Self::Unreachable,
            DriveError::Damaged { .. } | DriveError::NoPlace(_) => Self::Damaged(error.to_string()),
            other => Self::Local(other.to_string()),
        }
    }
}

impl From<DriveError> for BaseError {
    fn from(error: DriveError) -> Self {
        match error {
            DriveError::Fetch(FetchError::Corrupt) => Self::Damaged("every provider's copy".to_owned()),
            DriveError::Fetch(error) => Self::Unreachable(error.to_string()),
            DriveError::Row(RowError::Base(error)) => error,
            other => Self::Damaged(other.to_string()),
        }
    }
}

/// A piece's name as its file has it.
pub(crate) fn hex(id: &PieceId) -> String {
    id.iter().map(|byte| format!("{byte:02x}")).collect()
}
