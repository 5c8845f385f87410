//! The inode row: everything `stat` shows, plus what the drive keeps for itself.

use bytes::Bytes;
use holdfast_store::Lsn;

use super::codec::Reader;
use super::{ROW_VERSION, RowError};

/// An inode number. 0 never occurs, 1 is the root, none is ever used twice.
pub type Ino = u64;

/// The root directory.
pub const ROOT_INO: Ino = 1;

/// Longest symlink target, as on ext4 with 4 KiB blocks.
pub const SYMLINK_TARGET_BYTES_MAX: usize = 4095;

/// What an inode is. The numbers are a format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Kind {
    File = 1,
    Dir = 2,
    Symlink = 3,
    Fifo = 4,
    CharDevice = 5,
    BlockDevice = 6,
    Socket = 7,
}

impl Kind {
    pub fn from_u8(byte: u8) -> Option<Self> {
        Some(match byte {
            1 => Self::File,
            2 => Self::Dir,
            3 => Self::Symlink,
            4 => Self::Fifo,
            5 => Self::CharDevice,
            6 => Self::BlockDevice,
            7 => Self::Socket,
            _ => return None,
        })
    }

    /// The `S_IFMT` bits of `st_mode`.
    pub fn mode_bits(self) -> u32 {
        match self {
            Self::File => libc::S_IFREG,
            Self::Dir => libc::S_IFDIR,
            Self::Symlink => libc::S_IFLNK,
            Self::Fifo => libc::S_IFIFO,
            Self::CharDevice => libc::S_IFCHR,
            Self::BlockDevice => libc::S_IFBLK,
            Self::Socket => libc::S_IFSOCK,
        }
    }

    /// The kind that `S_IFMT` bits name.
    pub fn from_mode(mode: u32) -> Option<Self> {
        Some(match mode & libc::S_IFMT {
            libc::S_IFREG => Self::File,
            libc::S_IFDIR => Self::Dir,
            libc::S_IFLNK => Self::Symlink,
            libc::S_IFIFO => Self::Fifo,
            libc::S_IFCHR => Self::CharDevice,
            libc::S_IFBLK => Self::BlockDevice,
            libc::S_IFSOCK => Self::Socket,
            _ => return None,
        })
    }
}

/// A point in time, seconds and nanoseconds since 1970; seconds may be negative.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Time {
    pub secs: i64,
    pub nanos: u32,
}

/// Bits of [`InodeRow::flags`].
pub mod inode_flags {
    /// At least one chunk row was once written for this inode.
    pub const HAS_CHUNKS: u16 = 1;
    /// At least one xattr row was once written for this inode.
    pub const HAS_XATTRS: u16 = 2;
    /// The commit that the row is from lacks the file's data: what chunks there are, are of an older age. Only in rows of version 2.
    pub const LACKS_DATA: u16 = 4;
    /// Every bit that this version knows; others are refused.
    pub const KNOWN: u16 = HAS_CHUNKS | HAS_XATTRS | LACKS_DATA;
}

/// The version of rows with [`inode_flags::LACKS_DATA`], so that a program that would show the older age refuses them.
const VERSION_LACKS_DATA: u8 = ROW_VERSION + 1;

/// One row of the inode table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InodeRow {
    pub kind: Kind,
    /// The twelve permission bits.
    pub perm: u16,
    pub uid: u32,
    pub gid: u32,
    /// Files: names. Directories: 2 + subdirectories. 0: an orphan.
    pub nlink: u32,
    /// Files: bytes. Symlinks: length of the target. Directories: number of entries.
    pub size: u64,
    /// Files: bytes that are not holes.
    pub allocated: u64,
    /// Devices only.
    pub rdev: u32,
    pub atime: Time,
    pub mtime: Time,
    pub ctime: Time,
    pub btime: Time,
    pub generation: u32,
    /// log2 of the chunk size in bytes (18 = 256 KiB); fixed once the file has chunks.
    pub chunk_log2: u8,
    pub flags: u16,
    /// The directory that holds this one (the root: itself), or a file's only name; 0: that is not known.
    pub parent: Ino,
    /// LSN of the last record that changed this inode, its data, its xattrs, or (directories) its entries.
    pub lsn: Lsn,
    /// Symlinks only.
    pub target: Bytes,
}

/// Chunks are 256 KiB unless a file says otherwise.
pub const CHUNK_LOG2_DEFAULT: u8 = 18;
/// No block may pass 2 MiB; chunks stop at 1 MiB.
pub const CHUNK_LOG2_MAX: u8 = 20;
/// Below a page a chunk makes no sense.
pub const CHUNK_LOG2_MIN: u8 = 12;

impl InodeRow {
    pub fn chunk_bytes(&self) -> u64 {
        1 << self.chunk_log2
    }

    pub fn has_chunks(&self) -> bool {
        self.flags & inode_flags::HAS_CHUNKS != 0
    }

    pub fn has_xattrs(&self) -> bool {
        self.flags & inode_flags::HAS_XATTRS != 0
    }

    /// Whether the file's data is in no commit that this drive has: nothing of it can be read.
    pub fn lacks_data(&self) -> bool {
        self.flags & inode_flags::LACKS_DATA != 0
    }

    /// It has a name in this directory now, and lost another one.
    pub(crate) fn moved_to(&mut self, dir: Ino) {
        if matches!(self.kind, Kind::Dir | Kind::File) {
            self.parent = dir;
        }
    }

    /// `st_mode`: kind and permissions.
    pub fn mode(&self) -> u32 {
        self.kind.mode_bits() | u32::from(self.perm)
    }

    /// Encodes the row as of record `lsn`.
    pub fn encode(&self, lsn: Lsn) -> Vec<u8> {
        let mut out = Vec::with_capacity(128 + self.target.len());
        out.push(if self.lacks_data() { VERSION_LACKS_DATA } else { ROW_VERSION });
        out.push(self.kind as u8);
        out.extend_from_slice(&self.perm.to_le_bytes());
        out.extend_from_slice(&self.flags.to_le_bytes());
        out.push(self.chunk_log2);
        for n in [self.uid, self.gid, self.nlink, self.rdev, self.generation] {
            out.extend_from_slice(&n.to_le_bytes());
        }
        for n in [self.size, self.allocated, self.parent, lsn] {
            out.extend_from_slice(&n.to_le_bytes());
        }
        for time in [self.atime, self.mtime, self.ctime, self.btime] {
            out.extend_from_slice(&time.secs.to_le_bytes());
            out.extend_from_slice(&time.nanos.to_le_bytes());
        }
        out.extend_from_slice(&self.target);
        out
    }

    pub fn decode(bytes: &[u8]) -> Result<Self, RowError> {
        const CORRUPT: RowError = RowError::Corrupt { what: "inode" };
        let mut r = Reader::new("inode", bytes);
        let version = r.version_up_to(VERSION_LACKS_DATA)?;
        let kind = Kind::from_u8(r.u8()?).ok_or(CORRUPT)?;
        let perm = r.u16()?;
        let flags = r.u16()?;
        let chunk_log2 = r.u8()?;
        if perm & !0o7777 != 0
            || flags & !inode_flags::KNOWN != 0
            || (flags & inode_flags::LACKS_DATA != 0) != (version == VERSION_LACKS_DATA)
            || (version == VERSION_LACKS_DATA && kind != Kind::File)
            || !(CHUNK_LOG2_MIN..=CHUNK_LOG2_MAX).contains(&chunk_log2)
        {
            return Err(CORRUPT);
        }
        let (uid, gid, nlink, rdev, generation) = (r.u32()?, r.u32()?, r.u32()?, r.u32()?, r.u32()?);
        let (size, allocated, parent, lsn) = (r.u64()?, r.u64()?, r.u64()?, r.u64()?);
        let mut times = [Time::default(); 4];
        for time in &mut times {
            *time = Time { secs: r.i64()?, nanos: r.u32()? };
            if time.nanos >= 1_000_000_000 {
                return Err(CORRUPT);
            }
        }
        let [atime, mtime, ctime, btime] = times;
        let target = r.rest();
        if target.len() > SYMLINK_TARGET_BYTES_MAX || (kind != Kind::Symlink && !target.is_empty()) {
            return Err(CORRUPT);
        }
        let target = Bytes::copy_from_slice(target);
        Ok(Self {
            kind,
            perm,
            uid,
            gid,
            nlink,
            size,
            allocated,
            rdev,
            atime,
            mtime,
            ctime,
            btime,
            generation,
            chunk_log2,
            flags,
            parent,
            lsn,
            target,
        })
    }
}
