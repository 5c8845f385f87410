//! What calls mean, on maps.

use std::collections::BTreeMap;

use super::{Allocate, HANDLES_MAX, How, Op, Outcome, bytes, path};

/// An inode.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    pub kind: Kind,
    pub mode: u32,
    pub xattrs: BTreeMap<u8, Vec<u8>>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    File(Vec<u8>),
    Dir(BTreeMap<String, u64>),
    Symlink(String),
    Fifo,
}

/// The file system. Nodes are never dropped: a history is short.
#[derive(Debug)]
pub struct Model {
    pub nodes: BTreeMap<u64, Node>,
    /// Open files, and whether they append.
    open: Vec<(u64, bool)>,
}

/// The folder itself.
pub const ROOT: u64 = 1;

type Found<T> = Result<T, i32>;

impl Default for Model {
    fn default() -> Self {
        let root = Node { kind: Kind::Dir(BTreeMap::new()), mode: 0o755, xattrs: BTreeMap::new() };
        Self { nodes: BTreeMap::from([(ROOT, root)]), open: Vec::new() }
    }
}

impl Model {
    /// All handles are gone, as after a remount.
    pub fn close_all(&mut self) {
        self.open.clear();
    }

    pub fn call(&mut self, op: &Op) -> Outcome {
        let nothing = |done: Found<()>| done.map(|()| Vec::new());
        match op {
            Op::Create { at } => nothing(self.make(*at, Kind::File(Vec::new()), 0o644)),
            Op::Mkdir { at } => nothing(self.make(*at, Kind::Dir(BTreeMap::new()), 0o755)),
            Op::Mkfifo { at } => nothing(self.make(*at, Kind::Fifo, 0o644)),
            Op::Symlink { at, target } => {
                nothing(self.make(*at, Kind::Symlink(format!("to-{target}")), 0o777))
            }
            Op::Link { from, to } => nothing(self.link(*from, *to)),
            Op::Unlink { at } => nothing(self.unlink(*at, false)),
            Op::Rmdir { at } => nothing(self.unlink(*at, true)),
            Op::Rename { from, to, how } => nothing(self.rename(&path(*from), &path(*to), *how)),
            Op::Chmod { at, mode } => nothing(self.chmod(*at, *mode)),
            Op::SetXattr { at, name, value, how } => nothing(self.set_xattr(*at, *name, value, *how)),
            Op::RemoveXattr { at, name } => {
                let id = self.attributed(*at)?;
                let gone = self.node(id)?.xattrs.remove(name);
                gone.map(|_| Vec::new()).ok_or(libc::ENODATA)
            }
            Op::Open { at, append } => nothing(self.open(*at, *append)),
            Op::Close { handle } => {
                if *handle < self.open.len() {
                    self.open.remove(*handle);
                }
                Ok(Vec::new())
            }
            _ => self.data(op),
        }
    }

    fn node(&mut self, id: u64) -> Found<&mut Node> {
        self.nodes.get_mut(&id).ok_or(libc::ENOENT)
    }

    fn dir(&mut self, id: u64) -> Found<&mut BTreeMap<String, u64>> {
        match &mut self.node(id)?.kind {
            Kind::Dir(names) => Ok(names),
            _ => Err(libc::ENOTDIR),
        }
    }

    /// The inode at a path; no symlink leads anywhere.
    fn walk(&mut self, names: &[&str]) -> Found<u64> {
        let mut at = ROOT;
        for (nth, name) in names.iter().enumerate() {
            if nth > 0 && matches!(self.node(at)?.kind, Kind::Symlink(_)) {
                return Err(libc::ENOENT);
            }
            at = *self.dir(at)?.get(*name).ok_or(libc::ENOENT)?;
        }
        Ok(at)
    }

    /// The folder of a path and the last name. A symlink in the middle leads nowhere.
    fn parent(&mut self, names: &[&'static str]) -> Found<(u64, &'static str)> {
        let (name, dir) = names.split_last().ok_or(libc::ENOENT)?;
        let dir = self.walk(dir)?;
        if matches!(self.node(dir)?.kind, Kind::Symlink(_)) {
            return Err(libc::ENOENT);
        }
        self.dir(dir)?;
        Ok((dir, name))
    }

    fn is_dir(&self, id: u64) -> bool {
        matches!(self.nodes.get(&id), Some(Node { kind: Kind::Dir(_), .. }))
    }

    fn is_full(&self, id: u64) -> bool {
        matches!(self.nodes.get(&id), Some(Node { kind: Kind::Dir(names), .. }) if !names.is_empty())
    }

    fn is_within(&self, id: u64, of: u64) -> bool {
        let below = match self.nodes.get(&of) {
            Some(Node { kind: Kind::Dir(names), .. }) => names.values().copied().collect(),
            _ => Vec::new(),
        };
        id == of || below.into_iter().any(|child| self.is_within(id, child))
    }

    fn make(&mut self, at: usize, kind: Kind, mode: u32) -> Found<()> {
        let (dir, name) = self.parent(&path(at))?;
        let id = self.nodes.len() as u64 + 1;
        let names = self.dir(dir)?;
        if names.contains_key(name) {
            return Err(libc::EEXIST);
        }
        names.insert(name.to_owned(), id);
        self.nodes.insert(id, Node { kind, mode, xattrs: BTreeMap::new() });
        Ok(())
    }

    fn link(&mut self, from: usize, to: usize) -> Found<()> {
        let id = self.walk(&path(from))?;
        let (dir, name) = self.parent(&path(to))?;
        if self.dir(dir)?.contains_key(name) {
            return Err(libc::EEXIST);
        }
        if self.is_dir(id) {
            return Err(libc::EPERM);
        }
        self.dir(dir)?.insert(name.to_owned(), id);
        Ok(())
    }

    fn unlink(&mut self, at: usize, as_dir: bool) -> Found<()> {
        let (dir, name) = self.parent(&path(at))?;
        let id = *self.dir(dir)?.get(name).ok_or(libc::ENOENT)?;
        match (self.is_dir(id), as_dir) {
            (true, false) => return Err(libc::EISDIR),
            (false, true) => return Err(libc::ENOTDIR),
            (true, true) if self.is_full(id) => return Err(libc::ENOTEMPTY),
            _ => {}
        }
        self.dir(dir)?.remove(name);
        Ok(())
    }

    fn rename(&mut self, from: &[&'static str], to: &[&'static str], how: How) -> Found<()> {
        let (from_dir, from_name) = self.parent(from)?;
        let (to_dir, to_name) = self.parent(to)?;
        let source = *self.dir(from_dir)?.get(from_name).ok_or(libc::ENOENT)?;
        let target = self.dir(to_dir)?.get(to_name).copied();
        match (how, target) {
            (How::New, Some(_)) => return Err(libc::EEXIST),
            (How::Old, None) => return Err(libc::ENOENT),
            _ => {}
        }
        // Into itself, and onto what it lies in.
        if self.is_dir(source) && self.is_within(to_dir, source) {
            return Err(libc::EINVAL);
        }
        let exchange = how == How::Old;
        if let Some(target) = target {
            if self.is_dir(target) && self.is_within(from_dir, target) {
                return Err(if exchange { libc::EINVAL } else { libc::ENOTEMPTY });
            }
            if source == target {
                return Ok(());
            }
            match (self.is_dir(source), self.is_dir(target)) {
                _ if exchange => {}
                (true, false) => return Err(libc::ENOTDIR),
                (false, true) => return Err(libc::EISDIR),
                (true, true) if self.is_full(target) => return Err(libc::ENOTEMPTY),
                _ => {}
            }
        }
        self.dir(from_dir)?.remove(from_name);
        self.dir(to_dir)?.insert(to_name.to_owned(), source);
        if let (true, Some(target)) = (exchange, target) {
            self.dir(from_dir)?.insert(from_name.to_owned(), target);
        }
        Ok(())
    }

    fn chmod(&mut self, at: usize, mode: u32) -> Found<()> {
        let id = self.walk(&path(at))?;
        match &mut *self.node(id)? {
            // It is followed, and leads nowhere.
            Node { kind: Kind::Symlink(_), .. } => Err(libc::ENOENT),
            node => {
                node.mode = mode;
                Ok(())
            }
        }
    }

    /// Files and folders take user attributes.
    fn attributed(&mut self, at: usize) -> Found<u64> {
        let id = self.walk(&path(at))?;
        match self.node(id)?.kind {
            Kind::File(_) | Kind::Dir(_) => Ok(id),
            Kind::Symlink(_) => Err(libc::ENOENT),
            Kind::Fifo => Err(libc::EPERM),
        }
    }

    fn set_xattr(&mut self, at: usize, name: u8, value: &[u8], how: How) -> Found<()> {
        let id = self.attributed(at)?;
        let xattrs = &mut self.node(id)?.xattrs;
        match (how, xattrs.contains_key(&name)) {
            (How::New, true) => return Err(libc::EEXIST),
            (How::Old, false) => return Err(libc::ENODATA),
            _ => {}
        }
        xattrs.insert(name, value.to_vec());
        Ok(())
    }

    fn open(&mut self, at: usize, append: bool) -> Found<()> {
        let id = self.walk(&path(at))?;
        match self.node(id)?.kind {
            Kind::File(_) => {}
            Kind::Dir(_) => return Err(libc::EISDIR),
            Kind::Symlink(_) => return Err(libc::ENOENT),
            // A pipe is opened by nobody here.
            Kind::Fifo => return Err(libc::ENXIO),
        }
        if self.open.len() == HANDLES_MAX {
            self.open.remove(0);
        }
        self.open.push((id, append));
        Ok(())
    }

    fn opened(&mut self, handle: usize) -> Found<(&mut Vec<u8>, bool)> {
        let (id, append) = *self.open.get(handle).ok_or(libc::EBADF)?;
        match &mut self.node(id)?.kind {
            Kind::File(bytes) => Ok((bytes, append)),
            _ => Err(libc::EISDIR),
        }
    }

    fn data(&mut self, op: &Op) -> Outcome {
        match op {
            Op::Write { handle, off, len, byte } => {
                let (file, append) = self.opened(*handle)?;
                let off = if append { file.len() } else { *off as usize };
                patch(file, off, &bytes(*len, *byte));
            }
            Op::Truncate { handle, size } => self.opened(*handle)?.0.resize(*size as usize, 0),
            Op::Allocate { handle, off, len, how } => {
                let file = self.opened(*handle)?.0;
                let (off, end) = (*off as usize, (off + len) as usize);
                if matches!(how, Allocate::Grow | Allocate::Zero) && end > file.len() {
                    file.resize(end, 0);
                }
                if matches!(how, Allocate::Punch | Allocate::Zero) {
                    let end = end.min(file.len());
                    file[off.min(end)..end].fill(0);
                }
            }
            Op::Copy { from, to, src, dst, len } => {
                let source = self.opened(*from)?.0.clone();
                let (_, append) = self.opened(*to)?;
                if append {
                    return Err(libc::EBADF);
                }
                let start = (*src as usize).min(source.len());
                let end = (start + *len as usize).min(source.len());
                let same = self.open.get(*from).map(|open| open.0) == self.open.get(*to).map(|open| open.0);
                if same && src.abs_diff(*dst) < (end - start) as u64 {
                    return Err(libc::EINVAL);
                }
                let (file, _) = self.opened(*to)?;
                if start < end {
                    patch(file, *dst as usize, &source[start..end]);
                }
            }
            Op::Read { handle, off, len } => {
                let file = self.opened(*handle)?.0;
                let start = (*off as usize).min(file.len());
                return Ok(file[start..(start + len).min(file.len())].to_vec());
            }
            _ => {
                if let Op::Fsync { handle } = op {
                    self.opened(*handle)?;
                }
            }
        }
        Ok(Vec::new())
    }
}

fn patch(file: &mut Vec<u8>, off: usize, data: &[u8]) {
    if file.len() < off + data.len() {
        file.resize(off + data.len(), 0);
    }
    file[off..off + data.len()].copy_from_slice(data);
}
