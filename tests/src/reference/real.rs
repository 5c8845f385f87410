//! The history on a real folder, by the calls that a program would make.

use std::collections::BTreeSet;
use std::ffi::{CStr, CString};
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use super::model::{Kind, Model, Node, ROOT};
use super::{Allocate, HANDLES_MAX, How, Op, Outcome, bytes, path};

/// A folder, and the files that the history has open in it.
#[derive(Debug)]
pub struct Real {
    root: PathBuf,
    open: Vec<File>,
}

fn errno(error: io::Error) -> i32 {
    error.raw_os_error().unwrap_or(libc::EIO)
}

fn told(result: libc::c_int) -> Result<(), i32> {
    if result < 0 { Err(errno(io::Error::last_os_error())) } else { Ok(()) }
}

fn c(path: &Path) -> CString {
    CString::new(path.as_os_str().as_bytes()).unwrap_or_default()
}

fn attribute(name: u8) -> CString {
    CString::new(format!("user.model-{name}")).unwrap_or_default()
}

impl Real {
    /// An empty folder.
    pub fn new(root: PathBuf) -> Self {
        Self { root, open: Vec::new() }
    }

    /// As before a remount.
    pub fn close_all(&mut self) {
        self.open.clear();
    }

    fn at(&self, at: usize) -> PathBuf {
        path(at).into_iter().fold(self.root.clone(), |dir, name| dir.join(name))
    }

    pub fn call(&mut self, op: &Op) -> Outcome {
        self.answer(op).map_err(errno)
    }

    fn answer(&mut self, op: &Op) -> io::Result<Vec<u8>> {
        let failed = |errno: i32| io::Error::from_raw_os_error(errno);
        match op {
            Op::Create { at } => {
                OpenOptions::new().write(true).create_new(true).mode(0o644).open(self.at(*at)).map(drop)?
            }
            Op::Mkdir { at } => fs::create_dir(self.at(*at))?,
            // SAFETY: the path ends with a zero.
            Op::Mkfifo { at } => {
                told(unsafe { libc::mkfifo(c(&self.at(*at)).as_ptr(), 0o644) }).map_err(failed)?
            }
            Op::Symlink { at, target } => std::os::unix::fs::symlink(format!("to-{target}"), self.at(*at))?,
            Op::Link { from, to } => fs::hard_link(self.at(*from), self.at(*to))?,
            Op::Unlink { at } => fs::remove_file(self.at(*at))?,
            Op::Rmdir { at } => fs::remove_dir(self.at(*at))?,
            Op::Rename { from, to, how } => self.rename(*from, *to, *how).map_err(failed)?,
            Op::Chmod { at, mode } => fs::set_permissions(self.at(*at), fs::Permissions::from_mode(*mode))?,
            Op::SetXattr { at, name, value, how } => {
                let flags = match how {
                    How::Any => 0,
                    How::New => libc::XATTR_CREATE,
                    How::Old => libc::XATTR_REPLACE,
                };
                let (path, name) = (c(&self.at(*at)), attribute(*name));
                // SAFETY: both names end with a zero, the value is valid for its length.
                let done = unsafe {
                    libc::setxattr(path.as_ptr(), name.as_ptr(), value.as_ptr().cast(), value.len(), flags)
                };
                told(done).map_err(failed)?;
            }
            Op::RemoveXattr { at, name } => {
                let (path, name) = (c(&self.at(*at)), attribute(*name));
                // SAFETY: both names end with a zero.
                told(unsafe { libc::removexattr(path.as_ptr(), name.as_ptr()) }).map_err(failed)?;
            }
            Op::Open { at, append } => self.open(*at, *append)?,
            Op::Close { handle } => {
                if *handle < self.open.len() {
                    self.open.remove(*handle);
                }
            }
            _ => return self.data(op),
        }
        Ok(Vec::new())
    }

    fn rename(&self, from: usize, to: usize, how: How) -> Result<(), i32> {
        let flags = match how {
            How::Any => 0,
            How::New => libc::RENAME_NOREPLACE,
            How::Old => libc::RENAME_EXCHANGE,
        };
        let (from, to) = (c(&self.at(from)), c(&self.at(to)));
        // SAFETY: both paths end with a zero.
        told(unsafe { libc::renameat2(libc::AT_FDCWD, from.as_ptr(), libc::AT_FDCWD, to.as_ptr(), flags) })
    }

    fn open(&mut self, at: usize, append: bool) -> io::Result<()> {
        use std::os::unix::fs::FileTypeExt;
        let path = self.at(at);
        // Opening a pipe would wait for the other side, or not, as pipes do.
        if fs::symlink_metadata(&path)?.file_type().is_fifo() {
            return Err(io::Error::from_raw_os_error(libc::ENXIO));
        }
        let file = OpenOptions::new().read(true).write(!append).append(append).open(&path)?;
        if self.open.len() == HANDLES_MAX {
            self.open.remove(0);
        }
        self.open.push(file);
        Ok(())
    }

    fn opened(&self, handle: usize) -> io::Result<&File> {
        self.open.get(handle).ok_or_else(|| io::Error::from_raw_os_error(libc::EBADF))
    }

    fn data(&mut self, op: &Op) -> io::Result<Vec<u8>> {
        match op {
            Op::Write { handle, off, len, byte } => {
                self.opened(*handle)?.write_all_at(&bytes(*len, *byte), *off)?
            }
            Op::Truncate { handle, size } => self.opened(*handle)?.set_len(*size)?,
            Op::Allocate { handle, off, len, how } => {
                let mode = match how {
                    Allocate::Grow => 0,
                    Allocate::Keep => libc::FALLOC_FL_KEEP_SIZE,
                    Allocate::Punch => libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE,
                    Allocate::Zero => libc::FALLOC_FL_ZERO_RANGE,
                };
                let file = self.opened(*handle)?;
                // SAFETY: a call on numbers.
                let done = unsafe { libc::fallocate(file.as_raw_fd(), mode, *off as i64, *len as i64) };
                told(done).map_err(io::Error::from_raw_os_error)?;
            }
            Op::Copy { from, to, src, dst, len } => self.copy(*from, *to, (*src, *dst), *len)?,
            Op::Fsync { handle } => self.opened(*handle)?.sync_all()?,
            Op::Read { handle, off, len } => {
                let mut buffer = vec![0; *len];
                let mut done = 0;
                while done < *len {
                    match self.opened(*handle)?.read_at(&mut buffer[done..], off + done as u64)? {
                        0 => break,
                        read => done += read,
                    }
                }
                buffer.truncate(done);
                return Ok(buffer);
            }
            _ => {}
        }
        Ok(Vec::new())
    }

    /// All of it, as `cp` would go on after a part.
    fn copy(&self, from: usize, to: usize, at: (u64, u64), len: u64) -> io::Result<()> {
        let (source, target) = (self.opened(from)?, self.opened(to)?);
        let (mut src, mut dst) = (at.0 as i64, at.1 as i64);
        let mut left = len as usize;
        while left > 0 {
            // SAFETY: both offsets live on this stack.
            let done = unsafe {
                libc::copy_file_range(source.as_raw_fd(), &mut src, target.as_raw_fd(), &mut dst, left, 0)
            };
            match done {
                ..0 => return Err(io::Error::last_os_error()),
                0 => break,
                done => left -= done as usize,
            }
        }
        Ok(())
    }

    /// Where the folder and the model differ, if they do.
    pub fn compare(&self, model: &Model) -> Result<(), String> {
        self.compare_at(model, ROOT, &self.root)
    }

    fn compare_at(&self, model: &Model, id: u64, at: &Path) -> Result<(), String> {
        let node = model.nodes.get(&id).ok_or("a name without an inode")?;
        let wrong = |what: &str| Err(format!("{}: {what}", at.display()));
        let meta = fs::symlink_metadata(at).map_err(|error| format!("{}: {error}", at.display()))?;
        if id != ROOT && !matches!(node.kind, Kind::Symlink(_)) && meta.mode() & 0o7777 != node.mode {
            return wrong(&format!("mode {:o}, expected {:o}", meta.mode() & 0o7777, node.mode));
        }
        match &node.kind {
            Kind::File(bytes) => match fs::read(at) {
                Ok(found) if found == *bytes && meta.len() == bytes.len() as u64 => {}
                Ok(found) => {
                    let differ = found.iter().zip(bytes).position(|(a, b)| a != b);
                    return wrong(&format!(
                        "{} bytes, expected {}, differ at {differ:?}",
                        found.len(),
                        bytes.len()
                    ));
                }
                Err(error) => return wrong(&error.to_string()),
            },
            Kind::Symlink(target) => {
                if fs::read_link(at).ok().as_deref() != Some(Path::new(target)) {
                    return wrong("another target");
                }
            }
            Kind::Fifo => {
                use std::os::unix::fs::FileTypeExt;
                if !meta.file_type().is_fifo() {
                    return wrong("no pipe");
                }
            }
            Kind::Dir(names) => {
                let listed = fs::read_dir(at).map_err(|error| format!("{}: {error}", at.display()))?;
                let found: Result<BTreeSet<String>, _> = listed
                    .map(|entry| entry.map(|entry| entry.file_name().to_string_lossy().into_owned()))
                    .collect();
                if found.as_ref().ok() != Some(&names.keys().cloned().collect()) {
                    return wrong(&format!("{found:?}, expected {:?}", names.keys()));
                }
                for (name, id) in names {
                    self.compare_at(model, *id, &at.join(name))?;
                }
            }
        }
        let names = model.nodes.values().map(|node| names_of(node, id)).sum::<u64>();
        if matches!(node.kind, Kind::File(_)) && meta.nlink() != names {
            return wrong(&format!("{} names, expected {names}", meta.nlink()));
        }
        if matches!(node.kind, Kind::File(_) | Kind::Dir(_)) {
            for name in 0..3 {
                if get_attribute(at, &attribute(name)) != node.xattrs.get(&name).cloned() {
                    return wrong(&format!("attribute {name}"));
                }
            }
        }
        Ok(())
    }
}

/// A folder that was removed has no names left in it.
fn names_of(dir: &Node, id: u64) -> u64 {
    match &dir.kind {
        Kind::Dir(names) => names.values().filter(|at| **at == id).count() as u64,
        _ => 0,
    }
}

fn get_attribute(at: &Path, name: &CStr) -> Option<Vec<u8>> {
    let mut buffer = [0u8; 256];
    let path = c(at);
    // SAFETY: both names end with a zero, the buffer is valid for its length.
    let size =
        unsafe { libc::getxattr(path.as_ptr(), name.as_ptr(), buffer.as_mut_ptr().cast(), buffer.len()) };
    usize::try_from(size).ok().map(|size| buffer[..size].to_vec())
}
