//! Writing a DAG to the disk: files, folders and links, as it says, below one new name.
//!
//! The DAG may be a stranger's. So every name is checked, every entry is made new and through no link (a name that stands twice
//! ends it), and bytes and entries are bounded. What comes from elsewhere may take long: it goes on where an earlier attempt ended,
//! files that are whole are not fetched again, and of one that is not only the rest.

use std::collections::HashSet;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use cid::Cid;
use holdfast_content::plain::add::check_name;
use holdfast_content::plain::node::Node;
use holdfast_content::plain::{Blocks, PlainError, load, walk};

use super::begun::{self, Begun, Progress};
use super::{Counted, Done, TreeError, beside};

/// Files, folders and links together.
const ENTRIES_MAX: u64 = 10_000_000;

/// Writes what `root` names to `to`, which must not be there yet. It appears when it is whole and synced.
pub fn write_tree(
    blocks: &dyn Blocks,
    root: &Cid,
    to: &Path,
    done: &mut Done<'_>,
) -> Result<Counted, TreeError> {
    write_begun(blocks, root, to, Begun::passing(to)?, done)
}

/// The same, which goes on with what was begun, and keeps what it has if blocks do not come.
pub fn write_begun(
    blocks: &dyn Blocks,
    root: &Cid,
    to: &Path,
    begun: Begun,
    done: &mut Done<'_>,
) -> Result<Counted, TreeError> {
    let (folder, _) = beside(to);
    let room =
        nix::sys::statvfs::statvfs(&folder).map_err(|e| TreeError::io("look at", &folder)(e.into()))?;
    let free = room.blocks_available().saturating_mul(room.fragment_size());
    // The rest is for folders and names.
    let bytes_max = free - free / 16;
    let (from, temporary) = (begun.kept(), begun.tree());
    let counted = Counted::default();
    let mut writer =
        Writer { blocks, done, counted, bytes_max, entries: 0, to, begun, from, at: Progress::default() };
    match writer.write(root, &temporary) {
        Ok(()) => {
            let counted = writer.counted;
            writer.begun.appear(to)?;
            Ok(counted)
        }
        // What somebody else has, or the same one later, is worth going on for.
        Err(error @ TreeError::Dag { source: PlainError::Missing(_) | PlainError::Other(_), .. }) => {
            let at = writer.at;
            writer.begun.keep(at)?;
            Err(error)
        }
        Err(error) => {
            writer.begun.discard();
            Err(error)
        }
    }
}

struct Writer<'a, 'b> {
    blocks: &'a dyn Blocks,
    done: &'a mut Done<'b>,
    counted: Counted,
    /// Of what is not written yet.
    bytes_max: u64,
    entries: u64,
    /// What messages call it.
    to: &'a Path,
    begun: Begun,
    /// Where an earlier attempt ended: entries, and bytes of the next one, in the order in which they are written.
    from: Progress,
    at: Progress,
}

impl Writer<'_, '_> {
    fn write(&mut self, root: &Cid, at: &Path) -> Result<(), TreeError> {
        let mut todo: Vec<(Cid, PathBuf)> = vec![(*root, at.to_owned())];
        self.entries = 1;
        while let Some((cid, path)) = todo.pop() {
            if self.is_whole(&path) {
                self.at.whole += 1;
                continue;
            }
            let node = load(self.blocks, &cid).map_err(TreeError::dag(self.to))?;
            if !matches!(node, Node::File { .. }) {
                self.clear(&path, !matches!(node, Node::Symlink { .. }))?;
            }
            match node {
                Node::File { .. } => self.file(&cid, node, &path)?,
                Node::Symlink { target } => {
                    let target = std::ffi::OsStr::from_bytes(&target);
                    std::os::unix::fs::symlink(target, &path).map_err(made("make the link", &path))?;
                    self.counted.links += 1;
                }
                Node::Directory { .. } | Node::Shard(_) => {
                    if !path.symlink_metadata().is_ok_and(|about| about.is_dir()) {
                        std::fs::create_dir(&path).map_err(made("make the folder", &path))?;
                    }
                    self.counted.folders += 1;
                    let mut names: HashSet<String> = HashSet::new();
                    let entries = &mut self.entries;
                    let below = todo.len();
                    let mut take = |name: &str, cid: &Cid| {
                        check_name(name)?;
                        // Of an earlier attempt's entries it cannot be told whose they are.
                        if !names.insert(name.to_owned()) {
                            return Err(PlainError::Name(name.to_owned()));
                        }
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
            self.at = Progress { whole: self.at.whole + 1, bytes: 0 };
        }
        Ok(())
    }

    /// Whether an earlier attempt wrote and synced this entry, and it needs no further look: a file, or a link.
    fn is_whole(&mut self, path: &Path) -> bool {
        if self.at.whole >= self.from.whole {
            return false;
        }
        match path.symlink_metadata() {
            Ok(about) if about.is_file() => {
                self.counted.files += 1;
                self.counted.bytes = self.counted.bytes.saturating_add(about.len());
                (self.done)(self.counted.bytes);
                true
            }
            Ok(about) if about.is_symlink() => {
                self.counted.links += 1;
                true
            }
            _ => false,
        }
    }

    /// Takes away what an earlier attempt left under this name after it had said how far it was; a folder may stay one.
    fn clear(&self, path: &Path, folder: bool) -> Result<(), TreeError> {
        if self.from == Progress::default()
            || (folder && path.symlink_metadata().is_ok_and(|about| about.is_dir()))
        {
            return Ok(());
        }
        begun::remove(path).map_err(TreeError::io("remove", path))
    }

    /// A new file, or the one that an earlier attempt was at, and from where it goes on.
    fn open(&self, path: &Path, size: u64) -> Result<(File, u64), TreeError> {
        let mut options = OpenOptions::new();
        options.write(true).custom_flags(libc::O_NOFOLLOW);
        if self.at.whole == self.from.whole && self.from.bytes > 0 && self.from.bytes <= size {
            let file = options.open(path).map_err(TreeError::io("open", path))?;
            let about = file.metadata().map_err(TreeError::io("look at", path))?;
            if about.is_file() && about.len() >= self.from.bytes {
                file.set_len(self.from.bytes).map_err(TreeError::io("cut", path))?;
                return Ok((file, self.from.bytes));
            }
        }
        if self.from != Progress::default() {
            begun::remove(path).map_err(TreeError::io("remove", path))?;
        }
        Ok((options.create_new(true).open(path).map_err(made("make", path))?, 0))
    }

    fn file(&mut self, cid: &Cid, node: Node, path: &Path) -> Result<(), TreeError> {
        let Node::File { size, .. } = &node else { return Ok(()) };
        let size = *size;
        let (file, from) = self.open(path, size)?;
        if size.saturating_sub(from) > self.bytes_max {
            let full = io::Error::from(io::ErrorKind::StorageFull);
            return Err(TreeError::io("write so many bytes to", path)(full));
        }
        self.bytes_max -= size.saturating_sub(from);
        self.at.bytes = from;
        self.counted.bytes = self.counted.bytes.saturating_add(from);
        let (counted, done, at, begun) = (&mut self.counted, &mut self.done, &mut self.at, &mut self.begun);
        let mut take = |bytes: &[u8]| {
            let wrote = file.write_all_at(bytes, at.bytes).map_err(TreeError::io("write", path));
            at.bytes = at.bytes.saturating_add(bytes.len() as u64);
            let kept = wrote.and_then(|()| begun.wrote(bytes.len() as u64, *at));
            kept.map_err(|error| PlainError::Other(Box::new(error)))?;
            counted.bytes = counted.bytes.saturating_add(bytes.len() as u64);
            done(counted.bytes);
            Ok(())
        };
        let read = walk::read_file(self.blocks, cid, node, from..size, &mut take);
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
