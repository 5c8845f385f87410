//! Writing what a private link shows: files and folders with their names, permissions and times, below one new name.
//!
//! The index may be a stranger's. What was read of it has no name that leads elsewhere and none twice (`ShareIndex`); every entry is
//! made new, links as what they are and through none of them; set-id bits are not taken over; no more is written than the disk has.
//! Promises: it appears under its name when it is whole and synced, or not at all. What did not become whole is kept as far as it came, and
//! gone on with by whoever fetches the same once more (`crate::plain::begun`; a part is a chunk, in the order of the index).

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
use crate::plain::begun::{Begun, Progress};
use crate::plain::{Counted, TreeError, beside};

/// The permission bits that are taken over: nobody gains another's rights by a file that came by a link.
const MODE: u16 = 0o777;

/// What the owner called it, in the current folder.
pub fn own_name(index: &ShareIndex) -> Result<PathBuf, ShareError> {
    let first = index.entries.first().ok_or_else(|| ShareError::Internal("an index of nothing".into()))?;
    Ok(PathBuf::from(OsStr::from_bytes(&first.name)))
}

fn make(entry: &SharedEntry, path: &Path) -> Result<(), TreeError> {
    match entry.kind {
        EntryKind::Folder => std::fs::create_dir(path).map_err(TreeError::io("make the folder", path)),
        EntryKind::Link => {
            let target = OsStr::from_bytes(&entry.target);
            std::os::unix::fs::symlink(target, path).map_err(TreeError::io("make the link", path))
        }
        EntryKind::File => {
            let mut options = OpenOptions::new();
            options.write(true).create_new(true).mode(0o600).custom_flags(libc::O_NOFOLLOW);
            let file = options.open(path).map_err(TreeError::io("make", path))?;
            file.set_len(entry.size).map_err(TreeError::io("make", path))
        }
    }
}

/// Whether an entry is there as it was made.
fn is_made(entry: &SharedEntry, path: &Path) -> bool {
    path.symlink_metadata().is_ok_and(|about| match entry.kind {
        EntryKind::Folder => about.is_dir(),
        EntryKind::Link => about.is_symlink(),
        EntryKind::File => about.is_file() && about.len() == entry.size,
    })
}

/// See the module.
pub struct Writer {
    to: PathBuf,
    begun: Begun,
    paths: Vec<PathBuf>,
    kinds: Vec<(EntryKind, u16, (i64, u32))>,
    counted: Counted,
    written: u64,
    /// Chunks that are written, from the first on.
    whole: u64,
    open: Option<(u32, File)>,
}

/// What an index shows, wherever it says that it lies.
fn identity(index: &ShareIndex) -> Vec<u8> {
    let mut hash = blake3::Hasher::new();
    for entry in &index.entries {
        let numbers = [entry.parent.into(), entry.size, entry.chunk_log2.into(), entry.chunks.len() as u64];
        for number in numbers {
            hash.update(&number.to_be_bytes());
        }
        hash.update(&[entry.kind as u8]);
        for field in [&entry.name, &entry.target] {
            hash.update(&(field.len() as u64).to_be_bytes());
            hash.update(field);
        }
        for chunk in &entry.chunks {
            hash.update(&chunk.number().to_be_bytes());
            hash.update(chunk.digest());
        }
    }
    hash.finalize().as_bytes().to_vec()
}

impl Writer {
    /// Makes folders, links and files, all of them empty; or goes on with those that are there.
    pub fn begin(index: &ShareIndex, to: &Path) -> Result<Writer, TreeError> {
        let mut begun = Begun::lasting(to, &identity(index))?;
        let (tree, mut paths) = (begun.tree(), Vec::with_capacity(index.entries.len()));
        for entry in &index.entries {
            let parent: Option<&PathBuf> = paths.get(entry.parent as usize);
            let path =
                parent.map_or_else(|| tree.clone(), |parent| parent.join(OsStr::from_bytes(&entry.name)));
            paths.push(path);
        }
        if begun.kept() != Progress::default()
            && !index.entries.iter().zip(&paths).all(|(entry, path)| is_made(entry, path))
        {
            begun.anew()?;
        }
        let whole = begun.kept().whole;
        let mut written = 0u64;
        let mut rest = 0u64;
        for (chunk, number) in index.chunks().zip(0u64..) {
            let sum = if number < whole { &mut written } else { &mut rest };
            *sum = sum.saturating_add(chunk.plain_len().into());
        }
        let (folder, _) = beside(to);
        let room =
            nix::sys::statvfs::statvfs(&folder).map_err(|e| TreeError::io("look at", &folder)(e.into()))?;
        let free = room.blocks_available().saturating_mul(room.fragment_size());
        // The rest is for folders and names.
        if rest > free - free / 16 {
            let full = io::Error::from(io::ErrorKind::StorageFull);
            return Err(TreeError::io("write so many bytes to", &folder)(full));
        }
        let kinds = index.entries.iter().map(|entry| (entry.kind, entry.mode & MODE, entry.mtime)).collect();
        let counted = Counted { bytes: index.bytes(), ..Counted::default() };
        let mut writer =
            Writer { to: to.to_owned(), begun, paths, kinds, counted, written, whole, open: None };
        for (entry, n) in index.entries.iter().zip(0usize..) {
            writer.count(entry);
            if whole == 0
                && let Some(path) = writer.paths.get(n)
            {
                make(entry, path)?;
            }
        }
        Ok(writer)
    }

    fn count(&mut self, entry: &SharedEntry) {
        match entry.kind {
            EntryKind::Folder => self.counted.folders += 1,
            EntryKind::Link => self.counted.links += 1,
            EntryKind::File => self.counted.files += 1,
        }
    }

    /// Chunks that an earlier attempt wrote, from the first on: they need not be fetched.
    pub fn whole(&self) -> u64 {
        self.whole
    }

    /// One chunk, opened and put where it belongs; `number` counts those of all files. What comes in order opens each file once, and
    /// is kept from the first on.
    pub fn chunk(
        &mut self,
        index: &ShareIndex,
        (entry, chunk): (u32, u32),
        number: u64,
        block: Block,
    ) -> Result<(), ShareError> {
        let place = number;
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
        self.whole += u64::from(place == self.whole);
        Ok(self.begun.wrote(len as u64, Progress { whole: self.whole, bytes: 0 })?)
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

    /// What could not be fetched may be there the next time: what came so far is kept.
    pub fn keep(mut self) -> Result<(), TreeError> {
        self.begun.keep(Progress { whole: self.whole, bytes: 0 })
    }

    /// What the link led to is not to be had any more.
    pub fn discard(self) {
        self.begun.discard();
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
        self.begun.appear(&self.to)?;
        Ok(self.counted)
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

    /// Two files of a chunk each, in a folder that nobody may write to.
    fn two_files() -> (ShareIndex, Block) {
        let (mut index, block) = tree();
        let mut second = index.entries[1].clone();
        second.name = ByteBuf::from("second");
        index.entries.push(second);
        (index, block)
    }

    #[test]
    fn what_came_so_far_is_gone_on_with() {
        let dir = tempfile::tempdir().unwrap();
        let (index, block) = two_files();
        let to = dir.path().join("copy");
        let names = || std::fs::read_dir(dir.path()).unwrap().count();
        let mut writer = Writer::begin(&index, &to).unwrap();
        writer.chunk(&index, (3, 0), 1, block.clone()).unwrap();
        writer.keep().unwrap();
        assert_eq!(names(), 0, "the first chunk is not there: it would begin with that");
        let mut writer = Writer::begin(&index, &to).unwrap();
        writer.chunk(&index, (1, 0), 0, block.clone()).unwrap();
        writer.keep().unwrap();
        assert!(names() == 2 && !to.exists());
        // Moved blocks are the same; another name is another thing.
        let mut moved = index.clone();
        moved.piece(&[2; 16]);
        let writer = Writer::begin(&moved, &to).unwrap();
        assert_eq!((writer.whole(), writer.written()), (1, 3_000));
        drop(writer);
        let mut renamed = index.clone();
        renamed.entries[3].name = ByteBuf::from("other");
        assert_eq!(Writer::begin(&renamed, &to).unwrap().whole(), 0);
        assert_eq!(names(), 2, "and leaves the first one as it was");
        let mut writer = Writer::begin(&index, &to).unwrap();
        assert_eq!(writer.whole(), 1);
        writer.chunk(&index, (3, 0), 1, block.clone()).unwrap();
        let counted = writer.finish().unwrap();
        assert_eq!((counted.files, counted.folders, counted.links, names()), (2, 1, 1, 1));
        assert_eq!(std::fs::read(to.join("file")).unwrap(), std::fs::read(to.join("second")).unwrap());
        std::fs::set_permissions(&to, Permissions::from_mode(0o755)).unwrap();
        // Somebody took a file away meanwhile: it is begun anew.
        let to = dir.path().join("again");
        let mut writer = Writer::begin(&index, &to).unwrap();
        let first = writer.paths[1].clone();
        writer.chunk(&index, (1, 0), 0, block.clone()).unwrap();
        writer.keep().unwrap();
        std::fs::remove_file(first).unwrap();
        assert_eq!(Writer::begin(&index, &to).unwrap().whole(), 0);
    }

    #[test]
    fn what_was_shared_appears_whole_or_not_at_all() {
        let dir = tempfile::tempdir().unwrap();
        let (index, block) = tree();
        let to = dir.path().join("copy");
        let names = || std::fs::read_dir(dir.path()).unwrap().count();
        let mut writer = Writer::begin(&index, &to).unwrap();
        assert_eq!(names(), 2);
        drop(writer);
        assert_eq!(names(), 0, "what is not whole goes");
        writer = Writer::begin(&index, &to).unwrap();
        writer.chunk(&index, (1, 0), 0, block.clone()).unwrap();
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
