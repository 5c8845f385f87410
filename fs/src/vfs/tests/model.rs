//! Random histories against a file system that is only a map, with kills and seals in between.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

#[derive(Debug, Clone)]
enum Op {
    Create {
        at: usize,
        kind: u8,
    },
    Unlink {
        at: usize,
    },
    Rename {
        from: usize,
        to: usize,
        mode: u8,
    },
    Link {
        from: usize,
        to: usize,
    },
    Write {
        at: usize,
        off: u64,
        len: usize,
        byte: u8,
    },
    Resize {
        at: usize,
        size: u64,
    },
    Punch {
        at: usize,
        off: u64,
        len: u64,
    },
    Copy {
        from: usize,
        to: usize,
        src: u64,
        dst: u64,
        len: u64,
    },
    /// Cut now; installed by a later `Install`, if at all.
    Cut {
        at: usize,
    },
    Install,
    Kill,
}

fn ops() -> impl Strategy<Value = Op> {
    let at = || 0usize..40;
    let off = || prop_oneof![0u64..20_000, (0u64..5).prop_map(|n| n * 4096)];
    prop_oneof![
        4 => (at(), 0u8..4).prop_map(|(at, kind)| Op::Create { at, kind }),
        2 => at().prop_map(|at| Op::Unlink { at }),
        3 => (at(), at(), 0u8..6).prop_map(|(from, to, mode)| Op::Rename { from, to, mode }),
        1 => (at(), at()).prop_map(|(from, to)| Op::Link { from, to }),
        6 => (at(), off(), 1usize..9_000, any::<u8>()).prop_map(|(at, off, len, byte)| Op::Write { at, off, len, byte }),
        2 => (at(), off()).prop_map(|(at, size)| Op::Resize { at, size }),
        2 => (at(), off(), 1u64..9_000).prop_map(|(at, off, len)| Op::Punch { at, off, len }),
        2 => (at(), at(), off(), off(), 1u64..20_000).prop_map(|(from, to, src, dst, len)| Op::Copy { from, to, src, dst, len }),
        2 => at().prop_map(|at| Op::Cut { at }),
        1 => Just(Op::Install),
        1 => Just(Op::Kill),
    ]
}

/// Paths of at most three names out of three: enough to collide all the time.
fn path(at: usize) -> Vec<&'static str> {
    const NAMES: [&str; 3] = ["a", "b", "c"];
    match at {
        0..3 => vec![NAMES[at]],
        3..12 => vec![NAMES[(at - 3) / 3], NAMES[at % 3]],
        _ => vec![NAMES[(at - 12) / 9 % 3], NAMES[(at - 12) / 3 % 3], NAMES[at % 3]],
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Node {
    File(Vec<u8>),
    Dir(BTreeMap<String, u64>),
    Symlink(Vec<u8>),
    Whiteout,
}

#[derive(Debug, Default)]
struct Model {
    nodes: BTreeMap<u64, Node>,
    next: u64,
}

type Outcome<T = ()> = Result<T, i32>;

impl Model {
    fn new() -> Self {
        Self { nodes: BTreeMap::from([(1, Node::Dir(BTreeMap::new()))]), next: 2 }
    }

    fn dir(&mut self, id: u64) -> Outcome<&mut BTreeMap<String, u64>> {
        match self.nodes.get_mut(&id) {
            Some(Node::Dir(names)) => Ok(names),
            Some(_) => Err(libc::ENOTDIR),
            None => Err(libc::ENOENT),
        }
    }

    fn walk(&mut self, names: &[&str]) -> Outcome<u64> {
        let mut at = 1;
        for name in names {
            at = *self.dir(at)?.get(*name).ok_or(libc::ENOENT)?;
        }
        Ok(at)
    }

    fn is_dir(&self, id: u64) -> bool {
        matches!(self.nodes.get(&id), Some(Node::Dir(_)))
    }

    fn is_full(&self, id: u64) -> bool {
        matches!(self.nodes.get(&id), Some(Node::Dir(names)) if !names.is_empty())
    }

    fn file(&mut self, names: &[&str]) -> Option<(u64, &mut Vec<u8>)> {
        let id = self.walk(names).ok()?;
        match self.nodes.get_mut(&id) {
            Some(Node::File(bytes)) => Some((id, bytes)),
            _ => None,
        }
    }

    /// Whether directory `id` is `of` or lies below it.
    fn is_within(&mut self, id: u64, of: u64) -> bool {
        if id == of {
            return true;
        }
        let below: Vec<u64> = match self.nodes.get(&of) {
            Some(Node::Dir(names)) => names.values().copied().collect(),
            _ => vec![],
        };
        below.into_iter().any(|child| self.is_dir(child) && self.is_within(id, child))
    }

    fn rename(&mut self, from: &[&str], to: &[&str], mode: RenameMode) -> Outcome {
        let ((from_name, from_dir), (to_name, to_dir)) =
            (from.split_last().unwrap(), to.split_last().unwrap());
        let (from_dir, to_dir) = (self.walk(from_dir)?, self.walk(to_dir)?);
        let source = self.dir(from_dir)?.get(*from_name).copied();
        let target = self.dir(to_dir)?.get(*to_name).copied();
        let source = source.ok_or(libc::ENOENT)?;
        let exchange = mode == RenameMode::Exchange;
        if from_dir != to_dir && self.is_dir(source) && self.is_within(to_dir, source) {
            return Err(libc::EINVAL);
        }
        match (mode, target) {
            (RenameMode::NoReplace | RenameMode::Whiteout { replace: false, .. }, Some(_)) => {
                return Err(libc::EEXIST);
            }
            (RenameMode::Exchange, None) => return Err(libc::ENOENT),
            _ => {}
        }
        if let Some(target) = target {
            if exchange && from_dir != to_dir && self.is_dir(target) && self.is_within(from_dir, target) {
                return Err(libc::EINVAL);
            }
            if source == target {
                return Ok(());
            }
            if !exchange {
                match (self.is_dir(source), self.is_dir(target)) {
                    (true, false) => return Err(libc::ENOTDIR),
                    (false, true) => return Err(libc::EISDIR),
                    (true, true) if self.is_full(target) => return Err(libc::ENOTEMPTY),
                    _ => {}
                }
            }
        }
        self.dir(from_dir)?.remove(*from_name);
        self.dir(to_dir)?.insert((*to_name).to_owned(), source);
        if let (true, Some(target)) = (exchange, target) {
            self.dir(from_dir)?.insert((*from_name).to_owned(), target);
        }
        if let RenameMode::Whiteout { .. } = mode {
            let id = self.next;
            self.next += 1;
            self.nodes.insert(id, Node::Whiteout);
            self.dir(from_dir)?.insert((*from_name).to_owned(), id);
        }
        Ok(())
    }
}

const RENAMES: [RenameMode; 6] = [
    RenameMode::Replace,
    RenameMode::Replace,
    RenameMode::NoReplace,
    RenameMode::Exchange,
    RenameMode::Whiteout { owner: (7, 8), replace: true },
    RenameMode::Whiteout { owner: (7, 8), replace: false },
];

fn patch(bytes: &mut Vec<u8>, off: u64, data: &[u8]) {
    let off = usize::try_from(off).unwrap();
    if bytes.len() < off + data.len() {
        bytes.resize(off + data.len(), 0);
    }
    bytes[off..off + data.len()].copy_from_slice(data);
}

struct Pair {
    model: Model,
    drive: Option<Drive>,
    cuts: Vec<SealedFile>,
}

impl Pair {
    fn drive(&self) -> &Drive {
        self.drive.as_ref().unwrap()
    }

    /// The real inode behind a path.
    fn ino(&self, names: &[&str]) -> Outcome<Ino> {
        let path = names.join("/");
        self.drive().vfs.resolve(path.as_bytes()).map(|attr| attr.ino).map_err(|error| error.errno())
    }

    fn parent(&self, names: &[&'static str]) -> Outcome<(Ino, &'static [u8])> {
        let (name, dir) = names.split_last().unwrap();
        Ok((self.ino(dir)?, name.as_bytes()))
    }

    fn run(&mut self, op: Op) {
        let (expected, found) = match op.clone() {
            Op::Create { at, kind } => self.create(&path(at), kind),
            Op::Unlink { at } => self.unlink(&path(at)),
            Op::Rename { from, to, mode } => {
                let (from, to) = (path(from), path(to));
                let mode = RENAMES[usize::from(mode)];
                let found = self.parent(&from).and_then(|f| Ok((f, self.parent(&to)?)));
                let found = found.and_then(|(f, t)| {
                    self.drive().vfs.rename((f.0, f.1), (t.0, t.1), mode).map_err(|error| error.errno())
                });
                (self.model.rename(&from, &to, mode), found)
            }
            Op::Link { from, to } => self.link(&path(from), &path(to)),
            Op::Cut { at } => {
                if self.model.file(&path(at)).is_some() {
                    let cut = self.drive().cut(self.ino(&path(at)).unwrap());
                    self.cuts.retain(|old| old.ino != cut.ino);
                    self.cuts.push(cut);
                }
                return;
            }
            Op::Install => {
                let cuts = std::mem::take(&mut self.cuts);
                self.drive().install(&cuts);
                return;
            }
            Op::Kill => {
                self.drive = self.drive.take().map(Drive::killed);
                return;
            }
            other => return self.change(other),
        };
        assert_eq!(found, expected, "{op:?}");
    }

    fn create(&mut self, names: &[&'static str], kind: u8) -> (Outcome, Outcome) {
        let found = self.parent(names).and_then(|(parent, name)| {
            let vfs = &self.drive().vfs;
            match kind {
                0 => vfs.create(&ROOT, parent, name, &NewNode::dir(0o755, 0)),
                1 => vfs.symlink(&ROOT, parent, name, b"target"),
                _ => vfs.create(&ROOT, parent, name, &NewNode::file(0o644, 0)),
            }
            .map(drop)
            .map_err(|error| error.errno())
        });
        let (name, dir) = names.split_last().unwrap();
        let expected = self.model.walk(dir).and_then(|dir| {
            let id = self.model.next;
            let names = self.model.dir(dir)?;
            if names.contains_key(*name) {
                return Err(libc::EEXIST);
            }
            names.insert((*name).to_owned(), id);
            self.model.next += 1;
            let node = match kind {
                0 => Node::Dir(BTreeMap::new()),
                1 => Node::Symlink(b"target".to_vec()),
                _ => Node::File(Vec::new()),
            };
            self.model.nodes.insert(id, node);
            Ok(())
        });
        (expected, found)
    }

    fn unlink(&mut self, names: &[&'static str]) -> (Outcome, Outcome) {
        let (name, dir) = names.split_last().unwrap();
        let is_dir = self.model.walk(names).is_ok_and(|id| self.model.is_dir(id));
        let found = self.parent(names).and_then(|(parent, name)| {
            let vfs = &self.drive().vfs;
            let done = if is_dir { vfs.rmdir(parent, name) } else { vfs.unlink(parent, name) };
            done.map_err(|error| error.errno())
        });
        let expected = self.model.walk(dir).and_then(|dir| {
            let id = *self.model.dir(dir)?.get(*name).ok_or(libc::ENOENT)?;
            if self.model.is_full(id) {
                return Err(libc::ENOTEMPTY);
            }
            self.model.dir(dir)?.remove(*name);
            Ok(())
        });
        (expected, found)
    }

    fn link(&mut self, from: &[&'static str], to: &[&'static str]) -> (Outcome, Outcome) {
        let found = self.ino(from).and_then(|ino| {
            let (parent, name) = self.parent(to)?;
            self.drive().vfs.link(ino, parent, name).map(drop).map_err(|error| error.errno())
        });
        let (name, dir) = to.split_last().unwrap();
        let expected = self.model.walk(from).and_then(|id| {
            let dir = self.model.walk(dir)?;
            if id == dir {
                return Err(libc::EPERM);
            }
            if self.model.is_dir(id) {
                return Err(libc::EPERM);
            }
            let names = self.model.dir(dir)?;
            if names.contains_key(*name) {
                return Err(libc::EEXIST);
            }
            names.insert((*name).to_owned(), id);
            Ok(())
        });
        (expected, found)
    }

    /// Changes of a file's bytes; nothing where there is no file.
    fn change(&mut self, op: Op) {
        let at = match op {
            Op::Write { at, .. } | Op::Resize { at, .. } | Op::Punch { at, .. } => at,
            Op::Copy { to, .. } => to,
            _ => unreachable!("handled by run"),
        };
        let Ok(ino) = self.ino(&path(at)) else { return };
        let drive = self.drive.as_ref().unwrap();
        let Some((id, bytes)) = self.model.file(&path(at)) else { return };
        match op {
            Op::Write { off, len, byte, .. } => {
                let data: Vec<u8> = (0..len).map(|i| byte ^ (i / 100) as u8).collect();
                drive.write(ino, off, &data);
                patch(bytes, off, &data);
            }
            Op::Resize { size, .. } => {
                drive.vfs.setattr(&ROOT, ino, &SetAttr { size: Some(size), ..SetAttr::default() }).unwrap();
                bytes.resize(usize::try_from(size).unwrap(), 0);
            }
            Op::Punch { off, len, .. } => {
                drive.vfs.fallocate(&ROOT, ino, off, len, AllocateMode::Punch).unwrap();
                let end = (off + len).min(bytes.len() as u64);
                if off < end {
                    bytes[usize::try_from(off).unwrap()..usize::try_from(end).unwrap()].fill(0);
                }
            }
            Op::Copy { from, src, dst, len, .. } => {
                let Some((source, from_bytes)) = self.model.file(&path(from)) else { return };
                let from_bytes = from_bytes.clone();
                let apart = src + len <= dst || dst + len <= src;
                if source == id && !apart {
                    return;
                }
                let from_ino = drive.vfs.resolve(path(from).join("/").as_bytes()).unwrap().ino;
                let done = drive.vfs.copy_file_range(&ROOT, (from_ino, src), (ino, dst), len).unwrap();
                let (start, end) = (usize::try_from(src).unwrap(), usize::try_from(src + done).unwrap());
                assert!(done > 0 || start >= from_bytes.len());
                if done > 0 {
                    let Some((_, bytes)) = self.model.file(&path(at)) else { return };
                    patch(bytes, dst, &from_bytes[start..end]);
                }
            }
            _ => unreachable!("handled by run"),
        }
    }

    /// The whole tree is the same.
    fn compare(&mut self, id: u64, ino: Ino) {
        let drive = self.drive.as_ref().unwrap();
        let attr = drive.vfs.getattr(ino).unwrap();
        match self.model.nodes[&id].clone() {
            Node::File(bytes) => assert!(drive.read(ino) == bytes, "contents of {ino} differ"),
            Node::Symlink(target) => assert_eq!(drive.vfs.readlink(ino).unwrap(), target),
            Node::Whiteout => {
                assert_eq!((attr.kind, attr.perm, attr.rdev), (Kind::CharDevice, 0, 0));
                assert_eq!((attr.uid, attr.gid), (7, 8));
            }
            Node::Dir(names) => {
                assert_eq!(drive.names(ino), names.keys().cloned().collect::<Vec<_>>());
                let subdirs = names.values().filter(|id| self.model.is_dir(**id)).count();
                assert_eq!(attr.nlink as usize, 2 + subdirs);
                for (name, id) in names {
                    let child = self.drive().vfs.lookup(ino, name.as_bytes()).unwrap().ino;
                    self.compare(id, child);
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]
    #[test]
    fn histories_agree_with_the_model(history in proptest::collection::vec(ops(), 1..80), small in any::<bool>()) {
        // Directories that are read into memory, or that are too large for that.
        let drive = if small { Drive::new() } else { Drive::new().reading_no_more_than(0) };
        let mut pair = Pair { model: Model::new(), drive: Some(drive), cuts: vec![] };
        for op in history {
            pair.run(op);
        }
        pair.compare(1, ROOT_INO);
        pair.drive = pair.drive.take().map(Drive::killed);
        pair.compare(1, ROOT_INO);
        pair.drive().assert_nothing_left();
    }
}
