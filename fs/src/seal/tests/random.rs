//! Random histories: operations, seals, crashes, restores.

use super::policy::walk;
use super::*;
use crate::policy::SURVIVE_XATTR;
use crate::vfs::{AllocateMode, FsError, RenameMode, SetMode};
use proptest::prelude::*;

#[derive(Debug, Clone)]
enum Op {
    Create(u8, u8),
    Mkdir(u8, u8),
    Write(u8, u64, u16),
    Truncate(u8, u64),
    Punch(u8, u64, u64),
    Unlink(u8),
    Rmdir(u8),
    Rename(u8, u8, u8),
    Link(u8, u8, u8),
    Copy(u8, u8, u64, u64),
    Xattr(u8, u8),
    /// Of a folder, or (odd) of a file; 10 and above takes it away.
    Policy(u8, u8),
    MoveDir(u8, u8, u8),
    Walk,
    Seal,
    Prove,
    Kill,
    PowerCut(u64),
}

fn op() -> impl Strategy<Value = Op> {
    let off = prop_oneof![0u64..3 * CHUNK, 0u64..60 * CHUNK, Just(CHUNK), Just(900 * CHUNK)];
    let len = prop_oneof![1u64..100, 1u64..5 * CHUNK, Just(CHUNK)];
    prop_oneof![
        4 => (any::<u8>(), any::<u8>()).prop_map(|(d, n)| Op::Create(d, n)),
        1 => (any::<u8>(), any::<u8>()).prop_map(|(d, n)| Op::Mkdir(d, n)),
        8 => (any::<u8>(), off.clone(), 1u16..20_000).prop_map(|(f, o, l)| Op::Write(f, o, l)),
        3 => (any::<u8>(), off.clone()).prop_map(|(f, s)| Op::Truncate(f, s)),
        2 => (any::<u8>(), off.clone(), len.clone()).prop_map(|(f, o, l)| Op::Punch(f, o, l)),
        2 => any::<u8>().prop_map(Op::Unlink),
        1 => any::<u8>().prop_map(Op::Rmdir),
        1 => (any::<u8>(), any::<u8>(), any::<u8>()).prop_map(|(f, d, n)| Op::Rename(f, d, n)),
        1 => (any::<u8>(), any::<u8>(), any::<u8>()).prop_map(|(f, d, n)| Op::Link(f, d, n)),
        1 => (any::<u8>(), any::<u8>(), off, len).prop_map(|(f, t, o, l)| Op::Copy(f, t, o, l)),
        1 => (any::<u8>(), any::<u8>()).prop_map(|(f, n)| Op::Xattr(f, n)),
        1 => (any::<u8>(), 0u8..13).prop_map(|(d, n)| Op::Policy(d, n)),
        1 => (any::<u8>(), any::<u8>(), any::<u8>()).prop_map(|(a, b, n)| Op::MoveDir(a, b, n)),
        1 => Just(Op::Walk),
        3 => Just(Op::Seal),
        1 => Just(Op::Prove),
        1 => Just(Op::Kill),
        1 => any::<u64>().prop_map(Op::PowerCut),
    ]
}

/// Paths of one kind, with what a name in them needs.
fn of_kind(vfs: &Vfs, folders: bool) -> Vec<(String, Ino)> {
    let all = dump_names(vfs);
    all.into_iter()
        .filter(|(_, _, kind)| (*kind == Kind::Dir) == folders)
        .map(|(path, ino, _)| (path, ino))
        .collect()
}

fn dump_names(vfs: &Vfs) -> Vec<(String, Ino, Kind)> {
    let mut out = vec![(String::new(), ROOT_INO, Kind::Dir)];
    let mut at = 0;
    while let Some((path, ino, kind)) = out.get(at).cloned() {
        at += 1;
        if kind == Kind::Dir {
            for entry in vfs.readdir(ino, 2, 1000).unwrap() {
                out.push((format!("{path}/{}", String::from_utf8_lossy(&entry.name)), entry.ino, entry.kind));
            }
        }
    }
    out
}

fn split(vfs: &Vfs, path: &str) -> (Ino, Vec<u8>) {
    let (dir, name) = path.rsplit_once('/').unwrap();
    (vfs.resolve(dir.as_bytes()).unwrap().ino, name.as_bytes().to_vec())
}

/// Does what can be done; what POSIX forbids is no failure of a seal.
fn step(vfs: &Vfs, op: &Op, n: usize) -> Result<(), FsError> {
    let (files, folders) = (of_kind(vfs, false), of_kind(vfs, true));
    let file = |at: u8| files.get(at as usize % files.len().max(1)).cloned().ok_or(FsError::NotFound);
    let folder = |at: u8| folders[at as usize % folders.len()].clone();
    let who = Caller::root();
    match *op {
        Op::Create(d, name) => vfs
            .create(&who, folder(d).1, format!("f{}", name % 12).as_bytes(), &NewNode::file(0o600, 0))
            .map(|_| ()),
        Op::Mkdir(d, name) => vfs
            .create(&who, folder(d).1, format!("d{}", name % 4).as_bytes(), &NewNode::dir(0o700, 0))
            .map(|_| ()),
        Op::Write(f, off, len) => {
            let data =
                if n.is_multiple_of(3) { vec![n as u8; len as usize] } else { noise(n as u64, len as usize) };
            vfs.write(file(f)?.1, off, &data, WriteMode::default()).map(|_| ())
        }
        Op::Truncate(f, size) => {
            let set = crate::vfs::SetAttr { size: Some(size), ..Default::default() };
            vfs.setattr(&who, file(f)?.1, &set).map(|_| ())
        }
        Op::Punch(f, off, len) => vfs.fallocate(&who, file(f)?.1, off, len, AllocateMode::Punch),
        Op::Unlink(f) => {
            let (dir, name) = split(vfs, &file(f)?.0);
            vfs.unlink(dir, &name)
        }
        Op::Rmdir(d) => {
            let path = folder(d).0;
            if path.is_empty() {
                return Ok(());
            }
            let (dir, name) = split(vfs, &path);
            vfs.rmdir(dir, &name)
        }
        Op::Rename(f, d, name) => {
            let (dir, old) = split(vfs, &file(f)?.0);
            vfs.rename((dir, &old), (folder(d).1, format!("f{}", name % 12).as_bytes()), RenameMode::Replace)
        }
        Op::Link(f, d, name) => {
            vfs.link(file(f)?.1, folder(d).1, format!("f{}", name % 12).as_bytes()).map(|_| ())
        }
        Op::Copy(f, t, off, len) => vfs
            .copy_file_range(&who, (file(f)?.1, off), (file(t)?.1, off.wrapping_mul(3) % (40 * CHUNK)), len)
            .map(|_| ()),
        Op::Xattr(f, name) => vfs.setxattr(
            &who,
            file(f)?.1,
            format!("user.{}", name % 3).as_bytes(),
            &noise(n as u64, 20),
            SetMode::Either,
        ),
        Op::Policy(at, losses) => {
            let ino = if at % 2 == 1 { file(at / 2)?.1 } else { folder(at / 2).1 };
            match losses {
                0..10 => vfs.setxattr(&who, ino, SURVIVE_XATTR, &[b'0' + losses], SetMode::Either),
                _ => vfs.removexattr(ino, SURVIVE_XATTR),
            }
        }
        Op::MoveDir(from, to, name) => {
            let path = folder(from).0;
            if path.is_empty() {
                return Ok(());
            }
            let (dir, old) = split(vfs, &path);
            let to = (folder(to).1, format!("d{}", name % 4).into_bytes());
            vfs.rename((dir, &old), (to.0, &to.1), RenameMode::Replace)
        }
        Op::Walk | Op::Seal | Op::Prove | Op::Kill | Op::PowerCut(_) => Ok(()),
    }
}

fn run(ops: &[Op]) {
    let mut media = Media::default();
    let mut drive = open(&media);
    for (n, op) in ops.iter().enumerate() {
        match op {
            Op::Seal => {
                let before = dump(drive.vfs());
                drive.seal().unwrap();
                assert_same(&before, &dump(drive.vfs()), "a seal changes nothing that can be seen");
            }
            Op::Prove => {
                seal_and_prove(&drive);
                assert_eq!(drive.seal().unwrap(), None);
            }
            Op::Walk => {
                walk(&drive);
                check(&drive);
            }
            Op::Kill | Op::PowerCut(_) => {
                let before = dump(drive.vfs());
                drive.sync_all().unwrap();
                media = match op {
                    Op::PowerCut(seed) => media.power_cut(*seed),
                    _ => media.killed(),
                };
                drive = open(&media);
                assert_same(&before, &dump(drive.vfs()), "what was synced is there");
                check(&drive);
            }
            _ => {
                let _ = step(drive.vfs(), op, n);
            }
        }
    }
    seal_and_prove(&drive);
    // With no walk left the check holds every chunk to its folder's policy.
    walk(&drive);
    check(&drive);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, max_shrink_iters: 400, ..ProptestConfig::default() })]
    #[test]
    fn histories(ops in prop::collection::vec(op(), 1..60)) {
        run(&ops);
    }
}
