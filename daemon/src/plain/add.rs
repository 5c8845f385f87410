//! Adding a file, folder or link of the disk.
//!
//! As `ipfs add -r` does: names in order, links as links, modes and times left out, what begins with a dot only when asked for.
//! Reads through no link, and waits for no pipe.

use std::fs::{File, Metadata, OpenOptions};
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use holdfast_content::plain::Profile;
use holdfast_content::plain::add::{Added, FileAdder, Sink, directory, symlink};

use super::{Counted, Done, TreeError};

const READ_BYTES: usize = 1 << 20;

/// How to add.
#[derive(Debug, Clone, Copy, Default)]
pub struct AddOptions {
    pub profile: Profile,
    /// Names that begin with a dot, below what was named.
    pub hidden: bool,
    /// Device and inode of the file or folder that is being written meanwhile.
    pub avoid: Option<(u64, u64)>,
}

/// What was added.
#[derive(Debug, Clone, Copy)]
pub struct AddedTree {
    pub root: Added,
    pub counted: Counted,
    /// Entries whose names begin with a dot; what is below them is not counted.
    pub hidden_left_out: u64,
}

/// Adds what stands at `path`; its blocks go to `sink`, children before parents.
pub fn add_path(
    path: &Path,
    options: &AddOptions,
    sink: &mut Sink<'_>,
    done: &mut Done<'_>,
) -> Result<AddedTree, TreeError> {
    let mut adder = Adder { options, counted: Counted::default(), hidden_left_out: 0 };
    let root = adder.add(path, sink, done)?;
    Ok(AddedTree { root, counted: adder.counted, hidden_left_out: adder.hidden_left_out })
}

struct Adder<'a> {
    options: &'a AddOptions,
    counted: Counted,
    hidden_left_out: u64,
}

/// A folder whose entries are being added.
struct Open {
    name: String,
    path: PathBuf,
    todo: std::vec::IntoIter<(String, PathBuf)>,
    done: Vec<(String, Added)>,
}

impl Adder<'_> {
    fn add(&mut self, path: &Path, sink: &mut Sink<'_>, done: &mut Done<'_>) -> Result<Added, TreeError> {
        let Some(entries) = self.folder(path)? else { return self.leaf(path, sink, done) };
        let mut stack =
            vec![Open { name: String::new(), path: path.to_owned(), todo: entries, done: Vec::new() }];
        loop {
            let Some(open) = stack.last_mut() else {
                // The last folder returns from below.
                return Err(TreeError::Special(path.to_owned()));
            };
            if let Some((name, path)) = open.todo.next() {
                match self.folder(&path)? {
                    Some(todo) => stack.push(Open { name, path, todo, done: Vec::new() }),
                    None => {
                        let added = self.leaf(&path, sink, done)?;
                        open.done.push((name, added));
                    }
                }
                continue;
            }
            let Some(open) = stack.pop() else { continue };
            let made = directory(self.options.profile, &open.done, sink);
            let added = made.map_err(TreeError::dag(&open.path))?;
            self.counted.folders += 1;
            match stack.last_mut() {
                Some(parent) => parent.done.push((open.name, added)),
                None => return Ok(added),
            }
        }
    }

    /// The entries of a folder; nothing when it is none.
    fn folder(&mut self, path: &Path) -> Result<Option<std::vec::IntoIter<(String, PathBuf)>>, TreeError> {
        let about = path.symlink_metadata().map_err(TreeError::io("read", path))?;
        if !about.is_dir() {
            return Ok(None);
        }
        if self.options.avoid == Some((about.dev(), about.ino())) {
            return Err(TreeError::Itself(path.to_owned()));
        }
        let mut entries = Vec::new();
        for entry in std::fs::read_dir(path).map_err(TreeError::io("read", path))? {
            let entry = entry.map_err(TreeError::io("read", path))?;
            let name = entry.file_name();
            if !self.options.hidden && name.as_bytes().starts_with(b".") {
                self.hidden_left_out += 1;
                continue;
            }
            let name = name.into_string().map_err(|_| TreeError::NotUtf8(entry.path()))?;
            entries.push((name, entry.path()));
        }
        entries.sort();
        Ok(Some(entries.into_iter()))
    }

    /// A file or a link.
    fn leaf(&mut self, path: &Path, sink: &mut Sink<'_>, done: &mut Done<'_>) -> Result<Added, TreeError> {
        let about = path.symlink_metadata().map_err(TreeError::io("read", path))?;
        if about.is_symlink() {
            let target = std::fs::read_link(path).map_err(TreeError::io("read", path))?;
            self.counted.links += 1;
            let added = symlink(self.options.profile, target.as_os_str().as_bytes(), sink);
            return added.map_err(TreeError::dag(path));
        }
        let mut file = self.open(path, &about)?;
        let mut adder = FileAdder::new(self.options.profile);
        let mut buffer = vec![0; READ_BYTES];
        loop {
            let read = match file.read(&mut buffer) {
                Ok(0) => break,
                Ok(read) => read,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(TreeError::io("read", path)(error)),
            };
            let bytes = buffer.get(..read).unwrap_or_default();
            adder.push(bytes, sink).map_err(TreeError::dag(path))?;
            self.counted.bytes += read as u64;
            done(self.counted.bytes);
        }
        self.counted.files += 1;
        adder.finish(sink).map_err(TreeError::dag(path))
    }

    /// Opens a file, and only a file, even where it is exchanged meanwhile.
    fn open(&self, path: &Path, about: &Metadata) -> Result<File, TreeError> {
        if !about.is_file() {
            return Err(TreeError::Special(path.to_owned()));
        }
        let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK;
        let file = OpenOptions::new().read(true).custom_flags(flags).open(path);
        let file = file.map_err(TreeError::io("open", path))?;
        let about = file.metadata().map_err(TreeError::io("read", path))?;
        if !about.is_file() {
            return Err(TreeError::Special(path.to_owned()));
        }
        if self.options.avoid == Some((about.dev(), about.ino())) {
            return Err(TreeError::Itself(path.to_owned()));
        }
        Ok(file)
    }
}
