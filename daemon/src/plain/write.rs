//! Writing a DAG to the disk: files, folders and links, as it says, below one new name.
//!
//! The DAG may be a stranger's. So every name is checked, every entry is made new and through no link (a name that stands twice
//! ends it), and bytes and entries are bounded.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use cid::Cid;
use holdfast_content::plain::add::check_name;
use holdfast_content::plain::node::Node;
use holdfast_content::plain::{Blocks, PlainError, load, walk};

use super::{Counted, Done, TreeError, appear, beside};

/// Files, folders and links together.
const ENTRIES_MAX: u64 = 10_000_000;

/// Writes what `root` names to `to`, which must not be there yet. It appears when it is whole and synced.
pub fn write_tree(
    blocks: &dyn Blocks,
    root: &Cid,
    to: &Path,
    done: &mut Done<'_>,
) -> Result<Counted, TreeError> {
    if to.symlink_metadata().is_ok() {
        return Err(TreeError::Exists(to.to_owned()));
    }
    let (folder, temporary) = beside(to);
    let room =
        nix::sys::statvfs::statvfs(&folder).map_err(|e| TreeError::io("look at", &folder)(e.into()))?;
    let free = room.blocks_available().saturating_mul(room.fragment_size());
    // The rest is for folders and names.
    let bytes_max = free - free / 16;
    let mut writer = Writer { blocks, done, counted: Counted::default(), bytes_max, entries: 0, to };
    let written = writer.write(root, &temporary).and_then(|()| {
        // One sync for all files costs less than one for each.
        let synced = File::open(&folder).and_then(|folder| Ok(nix::unistd::syncfs(&folder)?));
        synced.map_err(TreeError::io("sync", &folder))?;
        appear(&temporary, to, &folder)
    });
    let counted = writer.counted;
    if let Err(error) = written {
        remove(&temporary);
        return Err(error);
    }
    Ok(counted)
}

/// Takes away what is not whole.
fn remove(temporary: &Path) {
    let removed = match temporary.symlink_metadata() {
        Ok(about) if about.is_dir() => std::fs::remove_dir_all(temporary),
        Ok(_) => std::fs::remove_file(temporary),
        Err(_) => Ok(()),
    };
    if let Err(error) = removed {
        tracing::warn!(path = %temporary.display(), %error, "what was not whole could not be removed");
    }
}

struct Writer<'a, 'b> {
    blocks: &'a dyn Blocks,
    done: &'a mut Done<'b>,
    counted: Counted,
    bytes_max: u64,
    entries: u64,
    /// What messages call it.
    to: &'a Path,
}

impl Writer<'_, '_> {
    fn write(&mut self, root: &Cid, at: &Path) -> Result<(), TreeError> {
        let mut todo: Vec<(Cid, PathBuf)> = vec![(*root, at.to_owned())];
        self.entries = 1;
        while let Some((cid, path)) = todo.pop() {
            let node = load(self.blocks, &cid).map_err(TreeError::dag(self.to))?;
            match node {
                Node::File { .. } => self.file(&cid, node, &path)?,
                Node::Symlink { target } => {
                    let target = std::ffi::OsStr::from_bytes(&target);
                    std::os::unix::fs::symlink(target, &path).map_err(made("make the link", &path))?;
                    self.counted.links += 1;
                }
                Node::Directory { .. } | Node::Shard(_) => {
                    std::fs::create_dir(&path).map_err(made("make the folder", &path))?;
                    self.counted.folders += 1;
                    let entries = &mut self.entries;
                    let below = todo.len();
                    let mut take = |name: &str, cid: &Cid| {
                        check_name(name)?;
                        *entries += 1;
                        if *entries > ENTRIES_MAX {
                            return Err(PlainError::Limit { what: "entries", max: ENTRIES_MAX });
                        }
                        todo.push((*cid, path.join(name)));
                        Ok(())
                    };
                    let read = walk::entries(self.blocks, &cid, node, &mut take);
                    read.map_err(TreeError::dag(self.to))?;
                    // In order, so that whoever fetches can look ahead.
                    if let Some(entries) = todo.get_mut(below..) {
                        entries.reverse();
                    }
                }
            }
        }
        Ok(())
    }

    fn file(&mut self, cid: &Cid, node: Node, path: &Path) -> Result<(), TreeError> {
        let Node::File { size, .. } = &node else { return Ok(()) };
        let size = *size;
        if size > self.bytes_max.saturating_sub(self.counted.bytes) {
            let full = io::Error::from(io::ErrorKind::StorageFull);
            return Err(TreeError::io("write so many bytes to", path)(full));
        }
        let file = OpenOptions::new().write(true).create_new(true).custom_flags(libc::O_NOFOLLOW).open(path);
        let mut file = file.map_err(made("make", path))?;
        let (counted, done) = (&mut self.counted, &mut self.done);
        let mut take = |bytes: &[u8]| {
            let wrote = file.write_all(bytes).map_err(TreeError::io("write", path));
            wrote.map_err(|error| PlainError::Other(Box::new(error)))?;
            counted.bytes = counted.bytes.saturating_add(bytes.len() as u64);
            done(counted.bytes);
            Ok(())
        };
        let read = walk::read_file(self.blocks, cid, node, 0..size, &mut take);
        read.map_err(TreeError::dag(self.to))?;
        self.counted.files += 1;
        Ok(())
    }
}

/// An entry that is there was made by an earlier one of the same name.
fn made(op: &'static str, path: &Path) -> impl FnOnce(io::Error) -> TreeError {
    let path = path.to_owned();
    move |error| match error.kind() {
        io::ErrorKind::AlreadyExists => {
            let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
            TreeError::Dag { path, source: PlainError::Name(name) }
        }
        _ => TreeError::io(op, &path)(error),
    }
}
