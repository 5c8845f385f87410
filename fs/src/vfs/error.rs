//! Why a call failed, and the errno that says so.

use holdfast_store::StoreError;

use crate::rows::{BaseError, Ino, RowError};

use super::seams::ChunkError;

/// One variant for each meaning; [`FsError::errno`] is the only place where errno numbers are chosen.
#[derive(Debug, thiserror::Error)]
pub enum FsError {
    #[error("no such file or directory")]
    NotFound,
    /// The inode died after its name was looked up. The kernel then looks the name up again, and finds what took its place.
    #[error("gone since it was looked up")]
    Stale,
    #[error("exists already")]
    Exists,
    #[error("not a directory")]
    NotDir,
    #[error("is a directory")]
    IsDir,
    #[error("directory not empty")]
    NotEmpty,
    #[error("not permitted")]
    NotPermitted,
    /// What this kind of inode cannot have, whoever asks.
    #[error("denied")]
    Denied,
    #[error("invalid argument")]
    Invalid,
    #[error("name too long")]
    NameTooLong,
    #[error("too many links")]
    TooManyLinks,
    #[error("file too large")]
    TooBig,
    #[error("no space left on the drive")]
    NoSpace,
    #[error("read-only")]
    ReadOnly,
    #[error("no such attribute")]
    NoAttribute,
    #[error("result does not fit")]
    Range,
    #[error("a number does not fit")]
    Overflow,
    #[error("not supported")]
    Unsupported,
    #[error("no data there")]
    NoSuchOffset,
    #[error("no provider answered in time")]
    TimedOut,
    #[error("damaged: {0}")]
    Damaged(String),
    /// What there is of it is older than its attributes say: it is never shown.
    #[error(
        "inode {0}: the commit lacks its data, which had not been sealed or could not be read when the commit was made"
    )]
    LacksData(Ino),
    #[error(transparent)]
    Rows(RowError),
}

impl FsError {
    /// The errno of this error, as ext4 would choose it.
    pub fn errno(&self) -> i32 {
        match self {
            Self::NotFound => libc::ENOENT,
            Self::Stale => libc::ESTALE,
            Self::Exists => libc::EEXIST,
            Self::NotDir => libc::ENOTDIR,
            Self::IsDir => libc::EISDIR,
            Self::NotEmpty => libc::ENOTEMPTY,
            Self::NotPermitted => libc::EPERM,
            Self::Denied => libc::EACCES,
            Self::Invalid => libc::EINVAL,
            Self::NameTooLong => libc::ENAMETOOLONG,
            Self::TooManyLinks => libc::EMLINK,
            Self::TooBig => libc::EFBIG,
            Self::NoSpace => libc::ENOSPC,
            Self::ReadOnly => libc::EROFS,
            Self::NoAttribute => libc::ENODATA,
            Self::Range => libc::ERANGE,
            Self::Overflow => libc::EOVERFLOW,
            Self::Unsupported => libc::EOPNOTSUPP,
            Self::NoSuchOffset => libc::ENXIO,
            Self::TimedOut => libc::ETIMEDOUT,
            Self::Damaged(_) | Self::LacksData(_) | Self::Rows(_) => libc::EIO,
        }
    }
}

impl From<RowError> for FsError {
    fn from(error: RowError) -> Self {
        match error {
            RowError::Base(BaseError::Unreachable(_)) => Self::TimedOut,
            RowError::Store(StoreError::NoSpace { .. }) => Self::NoSpace,
            RowError::Store(StoreError::ReadOnly { .. }) => Self::ReadOnly,
            other => Self::Rows(other),
        }
    }
}

impl From<StoreError> for FsError {
    fn from(error: StoreError) -> Self {
        RowError::Store(error).into()
    }
}

impl From<ChunkError> for FsError {
    fn from(error: ChunkError) -> Self {
        match error {
            ChunkError::Unreachable => Self::TimedOut,
            ChunkError::Damaged(what) | ChunkError::Local(what) => Self::Damaged(what),
        }
    }
}
