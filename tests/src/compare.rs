//! Whether two trees are equal to all that a program can ask about them.
//!
//! Compared: names, kinds, mode, owner, mtime to the nanosecond, xattrs, link targets, device numbers, which names are
//! one inode, and every byte. Not compared: atime and ctime (no copy keeps them), inode numbers, and the attributes
//! that the drive shows about itself (`user.holdfast.*`).

use std::collections::{BTreeMap, HashMap};
use std::ffi::{CString, OsString};
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

/// At most this many differences are told.
const DIFFERENCES_MAX: usize = 40;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub mode: u32,
    pub owner: (u32, u32),
    pub mtime: (i64, i64),
    pub size: u64,
    pub rdev: u64,
    /// The first name, in order, of the inode that several names share.
    pub same_as: Option<PathBuf>,
    pub xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    /// BLAKE3 of a file's bytes or of a link's target.
    pub content: Option<blake3::Hash>,
}

#[derive(Clone, Debug, Default)]
pub struct Tree {
    pub entries: BTreeMap<PathBuf, Entry>,
    pub bytes: u64,
}

impl Tree {
    /// Reads everything below `root`; the root itself is not an entry.
    pub fn read(root: &Path) -> io::Result<Tree> {
        let mut tree = Tree::default();
        let mut todo = vec![PathBuf::new()];
        while let Some(folder) = todo.pop() {
            let mut names: Vec<OsString> = Vec::new();
            for entry in std::fs::read_dir(root.join(&folder))? {
                names.push(entry?.file_name());
            }
            names.sort_unstable();
            for name in names {
                let path = folder.join(name);
                let entry = tree
                    .entry(root, &path)
                    .map_err(|e| io::Error::new(e.kind(), format!("{}: {e}", path.display())))?;
                if entry.mode & libc::S_IFMT == libc::S_IFDIR {
                    todo.push(path.clone());
                }
                tree.entries.insert(path, entry);
            }
        }
        tree.join_links(root)?;
        Ok(tree)
    }

    fn entry(&mut self, root: &Path, path: &Path) -> io::Result<Entry> {
        let full = root.join(path);
        let meta = full.symlink_metadata()?;
        let kind = meta.file_type();
        let content = if kind.is_file() {
            self.bytes += meta.len();
            Some(hash_file(&full)?)
        } else if kind.is_symlink() {
            Some(blake3::hash(std::fs::read_link(&full)?.as_os_str().as_bytes()))
        } else {
            None
        };
        let device = kind.is_char_device() || kind.is_block_device();
        Ok(Entry {
            mode: meta.mode(),
            owner: (meta.uid(), meta.gid()),
            mtime: (meta.mtime(), meta.mtime_nsec()),
            size: if meta.is_dir() { 0 } else { meta.len() },
            rdev: if device { meta.rdev() } else { 0 },
            same_as: None,
            xattrs: xattrs(&full)?,
            content,
        })
    }

    /// Names of one inode are joined under the first of them in path order, so that it does not depend on the walk.
    fn join_links(&mut self, root: &Path) -> io::Result<()> {
        let mut first: HashMap<(u64, u64), PathBuf> = HashMap::new();
        for (path, entry) in &mut self.entries {
            if entry.mode & libc::S_IFMT == libc::S_IFDIR {
                continue;
            }
            let meta = root.join(path).symlink_metadata()?;
            if meta.nlink() > 1 {
                let of = first.entry((meta.dev(), meta.ino())).or_insert_with(|| path.clone());
                entry.same_as = (&*of != path).then(|| of.clone());
            }
        }
        Ok(())
    }

    /// What is in one and not the other, or differs, in words; empty when they are equal.
    pub fn differences(&self, other: &Tree) -> Vec<String> {
        let mut found = Vec::new();
        for (path, entry) in &self.entries {
            match other.entries.get(path) {
                None => found.push(format!("{}: missing", path.display())),
                Some(theirs) if theirs != entry => {
                    found.push(format!("{}: {}", path.display(), differ(entry, theirs)))
                }
                Some(_) => {}
            }
        }
        let added = other.entries.keys().filter(|path| !self.entries.contains_key(*path));
        found.extend(added.map(|path| format!("{}: not there before", path.display())));
        if found.len() > DIFFERENCES_MAX {
            let more = found.len() - DIFFERENCES_MAX;
            found.truncate(DIFFERENCES_MAX);
            found.push(format!("... and {more} more"));
        }
        found
    }
}

fn differ(a: &Entry, b: &Entry) -> String {
    let mut parts = Vec::new();
    let mut part = |name: &str, differs: bool, was: String, is: String| {
        if differs {
            parts.push(format!("{name} was {was}, is {is}"));
        }
    };
    part("mode", a.mode != b.mode, format!("{:o}", a.mode), format!("{:o}", b.mode));
    part("owner", a.owner != b.owner, format!("{:?}", a.owner), format!("{:?}", b.owner));
    part("mtime", a.mtime != b.mtime, format!("{:?}", a.mtime), format!("{:?}", b.mtime));
    part("size", a.size != b.size, a.size.to_string(), b.size.to_string());
    part("device", a.rdev != b.rdev, a.rdev.to_string(), b.rdev.to_string());
    part("link", a.same_as != b.same_as, format!("{:?}", a.same_as), format!("{:?}", b.same_as));
    part("xattrs", a.xattrs != b.xattrs, format!("{:?}", a.xattrs.keys()), format!("{:?}", b.xattrs.keys()));
    part("content", a.content != b.content, "one thing".into(), "another".into());
    parts.join("; ")
}

pub fn hash_file(path: &Path) -> io::Result<blake3::Hash> {
    let mut file = std::fs::File::open(path)?;
    let mut hasher = blake3::Hasher::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(hasher.finalize()),
            n => hasher.update(&buffer[..n]),
        };
    }
}

/// All extended attributes but those that the drive shows about itself. A file system without any has none.
pub fn xattrs(path: &Path) -> io::Result<BTreeMap<Vec<u8>, Vec<u8>>> {
    let name = CString::new(path.as_os_str().as_bytes())?;
    let list = grow(|buffer, size| {
        // SAFETY: `buffer` is valid for `size` bytes, `name` ends with a zero.
        unsafe { libc::llistxattr(name.as_ptr(), buffer.cast(), size) }
    })?;
    let mut found = BTreeMap::new();
    for key in
        list.split(|byte| *byte == 0).filter(|key| !key.is_empty() && !key.starts_with(b"user.holdfast."))
    {
        let key_name = CString::new(key)?;
        let value = grow(|buffer, size| {
            // SAFETY: as above.
            unsafe { libc::lgetxattr(name.as_ptr(), key_name.as_ptr(), buffer.cast(), size) }
        })?;
        found.insert(key.to_vec(), value);
    }
    Ok(found)
}

/// Asks for the size, then for the value.
fn grow(call: impl Fn(*mut u8, usize) -> isize) -> io::Result<Vec<u8>> {
    let size = call(std::ptr::null_mut(), 0);
    if size < 0 {
        let error = io::Error::last_os_error();
        return if error.raw_os_error() == Some(libc::EOPNOTSUPP) { Ok(Vec::new()) } else { Err(error) };
    }
    let mut buffer = vec![0; size as usize];
    let size = call(buffer.as_mut_ptr(), buffer.len());
    if size < 0 {
        return Err(io::Error::last_os_error());
    }
    buffer.truncate(size as usize);
    Ok(buffer)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn equal_trees_are_equal_and_each_change_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let a = dir.path().join("a");
        std::fs::create_dir_all(a.join("sub")).unwrap();
        std::fs::write(a.join("sub/file"), b"content").unwrap();
        std::fs::hard_link(a.join("sub/file"), a.join("other-name")).unwrap();
        std::os::unix::fs::symlink("sub/file", a.join("link")).unwrap();
        let b = dir.path().join("b");
        let copied = std::process::Command::new("cp").arg("-a").args([&a, &b]).status().unwrap();
        assert!(copied.success());
        let before = Tree::read(&a).unwrap();
        assert_eq!(before.differences(&Tree::read(&b).unwrap()), Vec::<String>::new());
        assert_eq!(before.entries.len(), 4);
        let told = |expected: &str| {
            let found = before.differences(&Tree::read(&b).unwrap());
            assert!(found.iter().any(|line| line.contains(expected)), "{expected}: {found:?}");
        };
        std::fs::write(b.join("new"), b"").unwrap();
        told("new: not there before");
        std::fs::write(b.join("sub/file"), b"CONTENT").unwrap();
        told("content was");
        std::fs::remove_file(b.join("other-name")).unwrap();
        told("other-name: missing");
        std::fs::copy(b.join("sub/file"), b.join("other-name")).unwrap();
        told("sub/file: mtime");
        told("link was");
    }
}
