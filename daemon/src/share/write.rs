//! Writing what a private link shows: files and folders with their names, permissions and times, below one new name.
//!
//! The index may be a stranger's. What was read of it has no name that leads elsewhere and none twice (`ShareIndex`); every entry is
//! made new, links as what they are and through none of them; set-id bits are not taken over; no more is written than the disk has.
//! Promises: it appears under its name when it is whole and synced, or not at all.

use std::ffi::OsStr;
use std::fs::{File, OpenOptions, Permissions};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use holdfast_content::block::Block;
use holdfast_content::chunk;
use holdfast_content::share::index::{EntryKind, ShareIndex, SharedEntry};
use nix::fcntl::AT_FDCWD;
use nix::sys::stat::{UtimensatFlags, utimensat};
use nix::sys::time::TimeSpec;

use super::reader::ShareError;
use crate::plain::{Counted, TreeError, appear, beside};

/// The permission bits that are taken over: nobody gains another's rights by a file that came by a link.
const MODE: u16 = 0o777;

/// What the owner called it, in the current folder.
pub fn own_name(index: &ShareIndex) -> Result<PathBuf, ShareError> {
    let first = index.entries.first().ok_or_else(|| ShareError::Internal("an index of nothing".into()))?;
    Ok(PathBuf::from(OsStr::from_bytes(&first.name)))
}

/// See the module.
pub struct Writer {
    to: PathBuf,
    folder: PathBuf,
    paths: Vec<PathBuf>,
    kinds: Vec<(EntryKind, u16, (i64, u32))>,
    counted: Counted,
    written: u64,
    open: Option<(u32, File)>,
    whole: bool,
}

impl Writer {
    /// Makes folders, links and files, all of them empty.
    pub fn begin(index: &ShareIndex, to: &Path) -> Result<Writer, TreeError> {
        if to.symlink_metadata().is_ok() {
            return Err(TreeError::Exists(to.to_owned()));
        }
        let (folder, temporary) = beside(to);
        let room =
            nix::sys::statvfs::statvfs(&folder).map_err(|e| TreeError::io("look at", &folder)(e.into()))?;
        let free = room.blocks_available().saturating_mul(room.fragment_size());
        let bytes = index.chunks().fold(0u64, |sum, chunk| sum.saturating_add(chunk.plain_len().into()));
        // The rest is for folders and names.
        if bytes > free - free / 16 {
            let full = io::Error::from(io::ErrorKind::StorageFull);
            return Err(TreeError::io("write so many bytes to", &folder)(full));
        }
        let mut writer = Writer {
            to: to.to_owned(),
            folder,
            paths: Vec::with_capacity(index.entries.len()),
            kinds: Vec::with_capacity(index.entries.len()),
            counted: Counted { bytes: index.bytes(), ..Counted::default() },
            written: 0,
            open: None,
            whole: false,
        };
        for entry in &index.entries {
            let path = match writer.paths.get(entry.parent as usize) {
                Some(parent) => parent.join(OsStr::from_bytes(&entry.name)),
                None => temporary.clone(),
            };
            // Before it is made: what fails in the middle is removed as well.
            writer.paths.push(path.clone());
            writer.kinds.push((entry.kind, entry.mode & MODE, entry.mtime));
            writer.make(entry, &path)?;
        }
        Ok(writer)
    }

    fn make(&mut self, entry: &SharedEntry, path: &Path) -> Result<(), TreeError> {
        match entry.kind {
            EntryKind::Folder => {
                std::fs::create_dir(path).map_err(TreeError::io("make the folder", path))?;
                self.counted.folders += 1;
            }
            EntryKind::Link => {
                let target = OsStr::from_bytes(&entry.target);
                std::os::unix::fs::symlink(target, path).map_err(TreeError::io("make the link", path))?;
                self.counted.links += 1;
            }
            EntryKind::File => {
                let mut options = OpenOptions::new();
                options.write(true).create_new(true).mode(0o600).custom_flags(libc::O_NOFOLLOW);
                let file = options.open(path).map_err(TreeError::io("make", path))?;
                file.set_len(entry.size).map_err(TreeError::io("make", path))?;
                self.counted.files += 1;
            }
        }
        Ok(())
    }

    /// One chunk, opened and put where it belongs. What comes in order opens each file once.
    pub fn chunk(
        &mut self,
        index: &ShareIndex,
        entry: u32,
        chunk: u32,
        block: &Block,
    ) -> Result<(), ShareError> {
        let nowhere = || ShareError::Internal("a chunk of no file".into());
        let number = entry;
        let entry = index.entries.get(entry as usize).ok_or_else(nowhere)?;
        let chunk = entry.chunks.get(chunk as usize).ok_or_else(nowhere)?;
        let codec = chunk.codec().ok_or_else(nowhere)?;
        let plain = chunk::open(block, &chunk.key(), codec, chunk.plain_len())
            .map_err(|error| ShareError::Internal(format!("a block does not open under its key: {error}")))?;
        let path = self.paths.get(number as usize).ok_or_else(nowhere)?;
        if self.open.as_ref().is_none_or(|(open, _)| *open != number) {
            let mut options = OpenOptions::new();
            let file = options.write(true).custom_flags(libc::O_NOFOLLOW).open(path);
            self.open = Some((number, file.map_err(TreeError::io("open", path))?));
        }
        let offset = chunk.number() << entry.chunk_log2;
        // A file may end in the middle of its last chunk.
        let len = usize::try_from(entry.size.saturating_sub(offset)).unwrap_or(usize::MAX).min(plain.len());
        if let (Some((_, file)), Some(plain)) = (&self.open, plain.get(..len)) {
            file.write_all_at(plain, offset).map_err(TreeError::io("write", path))?;
            self.written += plain.len() as u64;
        }
        Ok(())
    }

    /// Bytes so far.
    pub fn written(&self) -> u64 {
        self.written
    }

    /// What messages call an entry.
    pub fn name_of(&self, entry: u32) -> String {
        let (path, root) = (self.paths.get(entry as usize), self.paths.first());
        let below = path.zip(root).and_then(|(path, root)| path.strip_prefix(root).ok());
        match below.filter(|below| !below.as_os_str().is_empty()) {
            Some(below) => self.to.join(below).display().to_string(),
            None => self.to.display().to_string(),
        }
    }

    /// Permissions and times, the innermost first; then it appears.
    pub fn finish(mut self) -> Result<Counted, TreeError> {
        self.open = None;
        for (path, (kind, mode, (secs, nanos))) in self.paths.iter().zip(&self.kinds).rev() {
            if *kind != EntryKind::Link {
                let mode = Permissions::from_mode(u32::from(*mode));
                std::fs::set_permissions(path, mode)
                    .map_err(TreeError::io("set the permissions of", path))?;
            }
            let time = TimeSpec::new(*secs, i64::from(*nanos));
            utimensat(AT_FDCWD, path.as_path(), &time, &time, UtimensatFlags::NoFollowSymlink)
                .map_err(|error| TreeError::io("set the times of", path)(error.into()))?;
        }
        // One sync for all files costs less than one for each.
        let synced = File::open(&self.folder).and_then(|folder| Ok(nix::unistd::syncfs(&folder)?));
        synced.map_err(TreeError::io("sync", &self.folder))?;
        if let Some(temporary) = self.paths.first() {
            appear(temporary, &self.to, &self.folder)?;
        }
        self.whole = true;
        Ok(self.counted)
    }
}

impl Drop for Writer {
    /// Takes away what is not whole.
    fn drop(&mut self) {
        let Some(temporary) = self.paths.first().filter(|_| !self.whole) else { return };
        // A folder that nobody may write cannot be emptied.
        for (path, (kind, _, _)) in self.paths.iter().zip(&self.kinds) {
            if *kind == EntryKind::Folder {
                let _ = std::fs::set_permissions(path, Permissions::from_mode(0o700));
            }
        }
        let removed = match temporary.symlink_metadata() {
            Ok(about) if about.is_dir() => std::fs::remove_dir_all(temporary),
            Ok(_) => std::fs::remove_file(temporary),
            Err(_) => Ok(()),
        };
        if let Err(error) = removed {
            tracing::warn!(path = %temporary.display(), %error, "what was not whole could not be removed");
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use holdfast_content::chunk::seal;
    use holdfast_content::keys::{ConvergenceKey, SecretKey32};
    use holdfast_content::share::index::SharedChunk;
    use serde_bytes::{ByteArray, ByteBuf};
    use std::os::unix::fs::MetadataExt;

    fn entry(kind: EntryKind, name: &str, parent: u32, mode: u16) -> SharedEntry {
        SharedEntry {
            kind,
            name: ByteBuf::from(name),
            parent,
            mode,
            mtime: (1_600_000_000, 5),
            size: 0,
            chunk_log2: if kind == EntryKind::File { 12 } else { 0 },
            target: ByteBuf::new(),
            chunks: Vec::new(),
        }
    }

    fn tree() -> (ShareIndex, Block) {
        let mut index = ShareIndex::default();
        let piece = index.piece(&[1; 16]);
        let sealed = seal(&ConvergenceKey::from_bytes([3; 32]), &[b'x'; 3000]).unwrap();
        let digest = holdfast_content::block::digest_of(sealed.block.cid()).unwrap();
        let (digest, key) = (ByteArray::new(digest), SecretKey32::from_bytes(*sealed.key.as_bytes()));
        let len = sealed.block.len();
        let chunk = SharedChunk(2, digest, key, sealed.codec.to_byte(), 3000, piece, 0, len);
        index.entries.push(entry(EntryKind::Folder, "tree", 0, 0o555));
        let file = entry(EntryKind::File, "file", 0, 0o4755);
        index.entries.push(SharedEntry { size: 10_000, chunks: vec![chunk], ..file });
        let link = entry(EntryKind::Link, "link", 0, 0o777);
        index.entries.push(SharedEntry { target: ByteBuf::from("/etc/passwd"), ..link });
        index.encode().unwrap();
        (index, sealed.block)
    }

    #[test]
    fn what_was_shared_appears_whole_or_not_at_all() {
        let dir = tempfile::tempdir().unwrap();
        let (index, block) = tree();
        let to = dir.path().join("copy");
        let names = || std::fs::read_dir(dir.path()).unwrap().count();
        let mut writer = Writer::begin(&index, &to).unwrap();
        assert_eq!(names(), 1);
        drop(writer);
        assert_eq!(names(), 0, "what is not whole goes");
        writer = Writer::begin(&index, &to).unwrap();
        writer.chunk(&index, 1, 0, &block).unwrap();
        assert_eq!(writer.name_of(1), to.join("file").display().to_string());
        let counted = writer.finish().unwrap();
        assert_eq!((counted.files, counted.folders, counted.links, counted.bytes), (1, 1, 1, 10_000));
        let bytes = std::fs::read(to.join("file")).unwrap();
        // The chunk goes on behind the file's end, and a hole is before it.
        assert_eq!((bytes.len(), bytes[8191], bytes[8192], bytes[9999]), (10_000, 0, b'x', b'x'));
        let about = to.join("file").metadata().unwrap();
        assert_eq!((about.mode() & 0o7777, about.mtime(), about.mtime_nsec()), (0o755, 1_600_000_000, 5));
        let about = to.symlink_metadata().unwrap();
        assert_eq!((about.mode() & 0o7777, about.mtime()), (0o555, 1_600_000_000));
        assert_eq!(std::fs::read_link(to.join("link")).unwrap(), Path::new("/etc/passwd"));
        assert_eq!(to.join("link").symlink_metadata().unwrap().mtime(), 1_600_000_000);
        assert!(matches!(Writer::begin(&index, &to), Err(TreeError::Exists(_))));
        assert_eq!(own_name(&index).unwrap(), Path::new("tree"));
        std::fs::set_permissions(&to, Permissions::from_mode(0o755)).unwrap();
    }
}
