//! A folder of the machine's file system.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nix::fcntl::{Flock, FlockArg};

use super::{MediumFile, StorageMedium};
use crate::StoreError;

/// A folder that this process alone uses: the lock on it is held until the medium is dropped.
pub struct RealMedium {
    path: PathBuf,
    folder: Flock<File>,
}

impl RealMedium {
    /// Opens `path`, making it (mode 0700) if it is missing.
    pub fn open(path: impl Into<PathBuf>) -> Result<Self, StoreError> {
        let path = path.into();
        let failed = |op| {
            let name = path.display().to_string();
            move |error| StoreError::io(op, &name, error)
        };
        if !path.is_dir() {
            make_folder(&path).map_err(failed("create the folder"))?;
        }
        let folder = File::open(&path).map_err(failed("open the folder"))?;
        let folder =
            Flock::lock(folder, FlockArg::LockExclusiveNonblock).map_err(|(_, errno)| match errno {
                nix::errno::Errno::EWOULDBLOCK => StoreError::InUse(path.display().to_string()),
                errno => StoreError::io("lock the folder", &path.display().to_string(), errno.into()),
            })?;
        Ok(RealMedium { path, folder })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    fn file(&self, name: &str, new: bool) -> io::Result<Arc<dyn MediumFile>> {
        let path = self.full(name)?;
        let file = OpenOptions::new().read(true).write(true).create_new(new).mode(0o600).open(path)?;
        Ok(Arc::new(RealFile(file)))
    }

    fn full(&self, name: &str) -> io::Result<PathBuf> {
        if name.is_empty() || name.contains('/') || name == "." || name == ".." {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        Ok(self.path.join(name))
    }
}

/// Makes a folder whose name survives a power cut.
pub(crate) fn make_folder(path: &Path) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path)?;
    if let Some(parent) = path.parent() {
        let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
        File::open(parent)?.sync_all()?;
    }
    Ok(())
}

impl StorageMedium for RealMedium {
    fn create(&self, name: &str) -> io::Result<Arc<dyn MediumFile>> {
        self.file(name, true)
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn MediumFile>> {
        self.file(name, false)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        std::fs::rename(self.full(from)?, self.full(to)?)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        std::fs::remove_file(self.full(name)?)
    }

    fn list(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in std::fs::read_dir(&self.path)? {
            // A name that is not UTF-8 is not ours.
            if let Ok(name) = entry?.file_name().into_string() {
                names.push(name);
            }
        }
        Ok(names)
    }

    fn sync_dir(&self) -> io::Result<()> {
        self.folder.sync_all()
    }

    fn room(&self) -> Option<(u64, u64)> {
        let disk = nix::sys::statvfs::fstatvfs(&*self.folder).ok()?;
        let bytes = |blocks: u64| blocks.saturating_mul(disk.fragment_size());
        Some((bytes(disk.blocks()), bytes(disk.blocks_available())))
    }
}

struct RealFile(File);

impl MediumFile for RealFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        retry(|| self.0.read_at(buf, offset))
    }

    fn write_at(&self, buf: &[u8], offset: u64) -> io::Result<usize> {
        retry(|| self.0.write_at(buf, offset))
    }

    fn push(&self, offset: u64, len: u64) {
        let (Ok(offset), Ok(len)) = (i64::try_from(offset), i64::try_from(len)) else { return };
        // SAFETY: a system call on a descriptor that is open as long as `self`; no memory is involved. Of an error in the writing
        // that it begins the next `sync_data` hears: only who waits for the pages takes it off.
        unsafe { libc::sync_file_range(self.0.as_raw_fd(), offset, len, libc::SYNC_FILE_RANGE_WRITE) };
    }

    fn sync_data(&self) -> io::Result<()> {
        // Not retried on EINTR: a sync that failed once may have dropped the pages, the next would lie.
        self.0.sync_data()
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }
}

fn retry(mut call: impl FnMut() -> io::Result<usize>) -> io::Result<usize> {
    loop {
        match call() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            other => return other,
        }
    }
}
