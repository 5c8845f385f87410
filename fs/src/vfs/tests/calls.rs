//! One rule at a time.

use super::*;
use crate::vfs::attr::BLOCK_BYTES;

#[test]
fn a_new_drive_has_an_empty_root() {
    let drive = Drive::new();
    let root = drive.vfs.getattr(ROOT_INO).unwrap();
    assert_eq!((root.kind, root.nlink, root.perm), (Kind::Dir, 2, 0o755));
    assert!(drive.names(ROOT_INO).is_empty());
    let dots = drive.vfs.readdir(ROOT_INO, 0, 10).unwrap();
    assert_eq!(dots.iter().map(|e| e.name.as_ref()).collect::<Vec<_>>(), [&b"."[..], b".."]);
}

#[test]
fn what_was_answered_survives_a_kill() {
    let drive = Drive::new();
    let dir = drive.dir("d");
    let file = drive.vfs.create(&USER, dir, b"f", &NewNode::file(0o666, 0o022)).unwrap();
    assert_eq!((file.perm, file.uid, file.gid), (0o644, 7, 8));
    drive.write(file.ino, 3, b"hello");
    drive.write(file.ino, 100_000, &[7; 200_000]);
    drive.vfs.symlink(&ROOT, dir, b"s", b"../d/f").unwrap();
    drive.vfs.link(file.ino, ROOT_INO, b"other").unwrap();
    let before =
        (drive.vfs.getattr(file.ino).unwrap(), drive.read(file.ino), drive.vfs.getattr(dir).unwrap());
    let drive = drive.killed();
    assert_eq!(
        (drive.vfs.getattr(file.ino).unwrap(), drive.read(file.ino), drive.vfs.getattr(dir).unwrap()),
        before
    );
    let link = drive.vfs.resolve(b"/d/s").unwrap();
    assert_eq!(drive.vfs.readlink(link.ino).unwrap().as_ref(), b"../d/f");
    assert_eq!(drive.vfs.resolve(b"other").unwrap().ino, file.ino);
    // Inode numbers are not given twice.
    assert!(drive.file("later") > link.ino);
    drive.assert_nothing_left();
}

#[test]
fn an_unlinked_file_lives_while_it_is_open() {
    let drive = Drive::new();
    let ino = drive.vfs.create_open(&ROOT, ROOT_INO, b"f", &NewNode::file(0o600, 0)).unwrap().ino;
    drive.write(ino, 0, b"before");
    drive.vfs.unlink(ROOT_INO, b"f").unwrap();
    assert_eq!(errno(drive.vfs.lookup(ROOT_INO, b"f")), libc::ENOENT);
    drive.write(ino, 6, b" and after");
    drive.vfs.fsync(ino).unwrap();
    let set = SetAttr { perm: Some(0o4711), size: Some(9), ..SetAttr::default() };
    let attr = drive.vfs.setattr(&ROOT, ino, &set).unwrap();
    assert_eq!((attr.nlink, attr.perm, attr.size), (0, 0o4711, 9));
    assert_eq!(drive.read(ino), b"before an");
    assert_eq!(errno(drive.vfs.link(ino, ROOT_INO, b"back")), libc::ENOENT);
    drive.vfs.release_file(ino).unwrap();
    drive.assert_nothing_left();
}

#[test]
fn orphans_of_a_crash_are_reclaimed() {
    let drive = Drive::new();
    let ino = drive.vfs.create_open(&ROOT, ROOT_INO, b"f", &NewNode::file(0o600, 0)).unwrap().ino;
    drive.write(ino, 0, &[1; 300_000]);
    drive.vfs.unlink(ROOT_INO, b"f").unwrap();
    let drive = drive.killed();
    assert_eq!(drive.vfs.rows().live().orphans(0, 10).unwrap().len(), 1);
    drive.assert_nothing_left();
}

#[test]
fn a_round_takes_small_orphans_by_the_thousand() {
    let drive = Drive::new();
    for n in 0..1_500 {
        let name = format!("{n}");
        drive.vfs.create_open(&ROOT, ROOT_INO, name.as_bytes(), &NewNode::file(0o600, 0)).unwrap();
        drive.vfs.unlink(ROOT_INO, name.as_bytes()).unwrap();
    }
    let drive = drive.killed();
    let orphans = || drive.vfs.rows().live().orphans(0, 2_000).unwrap().len();
    assert_eq!(orphans(), 1_500);
    assert!(!drive.vfs.reclaim(65_536).unwrap());
    assert_eq!(orphans(), 0);
}

#[test]
fn files_of_many_extents_go_in_bounded_records() {
    let drive = Drive::new();
    for (name, end) in [("cut", Some(10)), ("removed", None)] {
        let ino = drive.file(name);
        for i in 0..5_000u64 {
            drive.write(ino, i * 8, &[i as u8; 3]);
        }
        match end {
            Some(size) => {
                let set = SetAttr { size: Some(size), ..SetAttr::default() };
                drive.vfs.setattr(&ROOT, ino, &set).unwrap();
                let set = SetAttr { size: Some(40), ..SetAttr::default() };
                drive.vfs.setattr(&ROOT, ino, &set).unwrap();
                let mut expected = vec![0; 40];
                expected[8..10].fill(1);
                assert_eq!(drive.read(ino), expected);
            }
            None => drive.vfs.unlink(ROOT_INO, name.as_bytes()).unwrap(),
        }
    }
    drive.assert_nothing_left();
}

#[test]
fn what_is_dead_leaves_memory_when_the_kernel_has_let_go() {
    let drive = Drive::new();
    let is_known = |ino| drive.vfs.nodes.peek(ino).is_some();
    // Told before, between and after: of a file that was closed, of a large one that goes in steps, and of one that waits.
    let closed = drive.vfs.create_open(&ROOT, ROOT_INO, b"closed", &NewNode::file(0o600, 0)).unwrap().ino;
    drive.vfs.unlink(ROOT_INO, b"closed").unwrap();
    drive.vfs.forget(closed);
    assert!(is_known(closed), "it is open");
    drive.vfs.release_file(closed).unwrap();
    assert!(!is_known(closed));
    let large = drive.file("large");
    for i in 0..3_000u64 {
        drive.write(large, i * 8, b"x");
    }
    drive.vfs.unlink(ROOT_INO, b"large").unwrap();
    drive.vfs.forget(large);
    while drive.vfs.reclaim(1).unwrap() {}
    assert!(!is_known(large));
    // Not told yet: whoever holds it sees what it was, however much comes after.
    let (held, dir) = (drive.file("held"), drive.dir("dir"));
    // An earlier time says nothing: whoever unlinks it knows it again.
    drive.vfs.forget(held);
    drive.vfs.unlink(ROOT_INO, b"held").unwrap();
    drive.vfs.rmdir(ROOT_INO, b"dir").unwrap();
    for n in 0..500 {
        drive.file(&format!("{n}"));
    }
    assert_eq!(drive.vfs.getattr(held).unwrap().nlink, 0);
    assert_eq!(drive.vfs.getattr(dir).unwrap().nlink, 0);
    drive.vfs.forget(held);
    drive.vfs.forget(dir);
    assert!(!is_known(held) && !is_known(dir));
    drive.assert_nothing_left();
}

#[test]
fn orphans_from_before_the_start_leave_memory() {
    let drive = Drive::new();
    let inos: Vec<Ino> = (0..200)
        .map(|n| {
            let name = format!("{n}");
            let new = NewNode::file(0o600, 0);
            let ino = drive.vfs.create_open(&ROOT, ROOT_INO, name.as_bytes(), &new).unwrap().ino;
            drive.vfs.unlink(ROOT_INO, name.as_bytes()).unwrap();
            ino
        })
        .collect();
    let drive = drive.killed();
    while drive.vfs.reclaim(1 << 20).unwrap() {}
    assert!(inos.iter().all(|ino| drive.vfs.nodes.peek(*ino).is_none()));
    drive.assert_nothing_left();
}

#[test]
fn rename_follows_posix() {
    let drive = Drive::new();
    let (a, b) = (drive.dir("a"), drive.dir("b"));
    let f = drive.vfs.create(&ROOT, a, b"f", &NewNode::file(0o644, 0)).unwrap().ino;
    let g = drive.vfs.create(&ROOT, b, b"g", &NewNode::file(0o644, 0)).unwrap().ino;
    let rename = |from: (Ino, &str), to: (Ino, &str), mode| {
        drive.vfs.rename((from.0, from.1.as_bytes()), (to.0, to.1.as_bytes()), mode)
    };
    let replace = RenameMode::Replace;
    assert_eq!(errno(rename((a, "f"), (b, "g"), RenameMode::NoReplace)), libc::EEXIST);
    rename((a, "f"), (b, "g"), RenameMode::Exchange).unwrap();
    assert_eq!(drive.vfs.lookup(a, b"f").unwrap().ino, g);
    assert_eq!(drive.vfs.lookup(b, b"g").unwrap().ino, f);
    rename((a, "f"), (b, "g"), replace).unwrap();
    assert_eq!((drive.names(a), drive.names(b)), (vec![], vec!["g".to_owned()]));
    assert_eq!(drive.vfs.lookup(b, b"g").unwrap().ino, g);
    // Directories and files do not replace each other, and full directories stay.
    assert_eq!(errno(rename((ROOT_INO, "a"), (b, "g"), replace)), libc::ENOTDIR);
    assert_eq!(errno(rename((b, "g"), (ROOT_INO, "a"), replace)), libc::EISDIR);
    assert_eq!(errno(rename((ROOT_INO, "a"), (ROOT_INO, "b"), replace)), libc::ENOTEMPTY);
    // No directory below itself.
    assert_eq!(errno(rename((ROOT_INO, "b"), (b, "x"), replace)), libc::EINVAL);
    rename((ROOT_INO, "b"), (a, "b"), replace).unwrap();
    assert_eq!(errno(rename((ROOT_INO, "a"), (b, "a"), replace)), libc::EINVAL);
    assert_eq!(errno(rename((ROOT_INO, "a"), (b, "g"), RenameMode::Exchange)), libc::EINVAL);
    assert_eq!(drive.vfs.getattr(a).unwrap().nlink, 3);
    assert_eq!(drive.vfs.getattr(ROOT_INO).unwrap().nlink, 3);
    assert_eq!(drive.vfs.lookup(b, b"..").unwrap().ino, a);
    // Two names of one file: nothing happens.
    drive.vfs.link(g, ROOT_INO, b"h").unwrap();
    rename((ROOT_INO, "h"), (b, "g"), replace).unwrap();
    assert_eq!(drive.vfs.getattr(g).unwrap().nlink, 2);
    drive.assert_nothing_left();
}

#[test]
fn a_rename_leaves_a_whiteout_where_one_is_asked_for() {
    let drive = Drive::new();
    let dir = drive.dir("d");
    let set = SetAttr { perm: Some(0o2777), gid: Some(5), ..SetAttr::default() };
    drive.vfs.setattr(&ROOT, dir, &set).unwrap();
    let f = drive.vfs.create(&ROOT, dir, b"f", &NewNode::file(0o644, 0)).unwrap().ino;
    let sub = drive.vfs.create(&ROOT, dir, b"sub", &NewNode::dir(0o755, 0)).unwrap().ino;
    let left = |replace| RenameMode::Whiteout { owner: (7, 8), replace };
    let rename = |from: &[u8], to: (Ino, &[u8]), replace| drive.vfs.rename((dir, from), to, left(replace));
    assert_eq!(errno(rename(b"f", (dir, b"sub"), false)), libc::EEXIST);
    rename(b"f", (dir, b"g"), false).unwrap();
    rename(b"sub", (ROOT_INO, b"sub"), true).unwrap();
    let drive = drive.killed();
    assert_eq!(drive.names(dir), ["f", "g", "sub"]);
    assert_eq!(drive.vfs.lookup(dir, b"g").unwrap().ino, f);
    assert_eq!(drive.vfs.lookup(ROOT_INO, b"sub").unwrap().ino, sub);
    for name in [b"f".as_slice(), b"sub"] {
        let attr = drive.vfs.lookup(dir, name).unwrap();
        // In a setgid folder it is of the folder's group, as whatever is made there.
        let seen = (attr.kind, attr.perm, attr.rdev, attr.uid, attr.gid, attr.nlink);
        assert_eq!(seen, (Kind::CharDevice, 0, 0, 7, 5, 1));
    }
    assert_eq!((drive.vfs.getattr(dir).unwrap().nlink, drive.vfs.getattr(ROOT_INO).unwrap().nlink), (2, 4));
    // What was left counts as an entry.
    drive.vfs.unlink(dir, b"f").unwrap();
    drive.vfs.unlink(dir, b"g").unwrap();
    assert_eq!(errno(drive.vfs.rmdir(ROOT_INO, b"d")), libc::ENOTEMPTY);
    drive.assert_nothing_left();
}

#[test]
fn pages_of_the_kernel_that_do_not_fit_are_an_error() {
    let drive = Drive::new();
    let ino = drive.file("f");
    let at = FILE_BYTES_MAX - 3;
    assert_eq!(drive.vfs.write(ino, at, b"abcde", WriteMode::default()).unwrap(), 3);
    let cached = WriteMode { from_cache: true, ..WriteMode::default() };
    assert_eq!(errno(drive.vfs.write(ino, at, b"ABCDE", cached)), libc::EFBIG);
    let mut end = [0; 4];
    assert_eq!(drive.vfs.read(ino, at, &mut end).unwrap(), 3);
    assert_eq!(&end, b"ABC\0");
}

#[test]
fn setuid_and_setgid_go_when_they_must() {
    let drive = Drive::new();
    let ino = drive.file("f");
    let chmod = |perm| {
        let set = SetAttr { perm: Some(perm), ..SetAttr::default() };
        drive.vfs.setattr(&ROOT, ino, &set).unwrap();
    };
    let perm = || drive.vfs.getattr(ino).unwrap().perm;
    chmod(0o6755);
    drive.write(ino, 0, b"root may");
    assert_eq!(perm(), 0o6755);
    let kill = WriteMode { kill_privileges: Some(USER.gid), ..WriteMode::default() };
    drive.vfs.write(ino, 0, b"x", kill).unwrap();
    assert_eq!(perm(), 0o755);
    chmod(0o6745);
    // Without group execution setgid goes, too, unless who takes it away might set it anew.
    let empty = SetAttr { size: Some(0), ..SetAttr::default() };
    drive.vfs.setattr(&USER, ino, &empty).unwrap();
    assert_eq!(perm(), 0o745);
    chmod(0o6745);
    let member = Caller { gid: ROOT.gid, ..USER };
    drive.vfs.setattr(&member, ino, &empty).unwrap();
    assert_eq!(perm(), 0o2745);
    let kill = WriteMode { kill_privileges: Some(member.gid), ..WriteMode::default() };
    chmod(0o6745);
    drive.vfs.write(ino, 0, b"x", kill).unwrap();
    assert_eq!(perm(), 0o2745);
    drive.vfs.setattr(&USER, ino, &SetAttr { uid: Some(7), ..SetAttr::default() }).unwrap();
    assert_eq!(perm(), 0o745);
    chmod(0o6745);
    drive.vfs.setattr(&ROOT, ino, &SetAttr { uid: Some(0), ..SetAttr::default() }).unwrap();
    assert_eq!(perm(), 0o2745);
    chmod(0o6755);
    drive.vfs.setattr(&ROOT, ino, &SetAttr { uid: Some(3), ..SetAttr::default() }).unwrap();
    assert_eq!(perm(), 0o755);
    // A chown to whom it belongs already.
    let attr = drive.vfs.getattr(ino).unwrap();
    let times =
        SetAttr { mtime: Some(TimeSet::To(attr.mtime)), ctime: Some(attr.ctime), ..SetAttr::default() };
    for ctime in [None, Some(attr.ctime)] {
        chmod(0o6755);
        drive.vfs.setattr(&ROOT, ino, &times).unwrap();
        assert_eq!(perm(), 0o6755);
        drive.vfs.setattr(&ROOT, ino, &SetAttr { ctime, ..SetAttr::default() }).unwrap();
        assert_eq!(perm(), 0o755);
    }
    let dir = drive.dir("d");
    let set = SetAttr { perm: Some(0o6755), ..SetAttr::default() };
    drive.vfs.setattr(&ROOT, dir, &set).unwrap();
    assert_eq!(drive.vfs.setattr(&ROOT, dir, &SetAttr::default()).unwrap().perm, 0o6755);
}

#[test]
fn setgid_directories_hand_down_their_group() {
    let drive = Drive::new();
    let dir = drive.dir("d");
    let set = SetAttr { perm: Some(0o2775), gid: Some(42), ..SetAttr::default() };
    drive.vfs.setattr(&ROOT, dir, &set).unwrap();
    let file = drive.vfs.create(&USER, dir, b"f", &NewNode::file(0o644, 0)).unwrap();
    let below = drive.vfs.create(&USER, dir, b"b", &NewNode::dir(0o755, 0)).unwrap();
    assert_eq!((file.gid, file.perm, below.gid, below.perm), (42, 0o644, 42, 0o2755));
}

#[test]
fn cookies_hold_while_the_directory_changes() {
    let drive = Drive::new();
    for i in 0..300 {
        drive.file(&format!("stay{i}"));
    }
    let mut seen = Vec::new();
    let mut cookie = 0;
    let mut n = 0;
    loop {
        let page = drive.vfs.readdir(ROOT_INO, cookie, 7).unwrap();
        let Some(last) = page.last() else { break };
        cookie = last.cookie;
        seen.extend(page.into_iter().map(|e| String::from_utf8(e.name.to_vec()).unwrap()));
        drive.file(&format!("come{n}"));
        if n > 0 {
            drive.vfs.unlink(ROOT_INO, format!("come{}", n - 1).as_bytes()).unwrap();
        }
        n += 1;
    }
    seen.retain(|name| name.starts_with("stay"));
    seen.sort();
    let count = seen.len();
    seen.dedup();
    assert_eq!((count, seen.len()), (300, 300));
}

#[test]
fn holes_are_found_punched_and_shared() {
    let drive = Drive::new();
    let (ino, copy) = (drive.file("f"), drive.file("copy"));
    drive.write(ino, 10_000, &[1; 5_000]);
    let seek = |off, to| drive.vfs.seek(ino, off, to);
    assert_eq!(seek(0, SeekTo::Data).unwrap(), 10_000);
    assert_eq!(seek(10_000, SeekTo::Hole).unwrap(), 15_000);
    assert_eq!(errno(seek(15_000, SeekTo::Data)), libc::ENXIO);
    drive.vfs.fallocate(&ROOT, ino, 11_000, 1_000, AllocateMode::Punch).unwrap();
    assert_eq!(seek(10_500, SeekTo::Hole).unwrap(), 11_000);
    assert_eq!(seek(11_500, SeekTo::Data).unwrap(), 12_000);
    assert_eq!(drive.vfs.getattr(ino).unwrap().blocks * 512, 4_000u64.next_multiple_of(BLOCK_BYTES));
    drive.vfs.fallocate(&ROOT, ino, 14_000, 10_000, AllocateMode::Reserve { keep_size: false }).unwrap();
    assert_eq!(drive.vfs.copy_file_range(&ROOT, (ino, 0), (copy, 0), u64::MAX).unwrap(), 24_000);
    assert_eq!(drive.read(copy), drive.read(ino));
    // The copy stands by itself.
    drive.write(ino, 0, &[9; 24_000]);
    assert_eq!(drive.read(copy)[12_000..15_000], [1; 3_000]);
    assert_eq!(errno(drive.vfs.write(ino, FILE_BYTES_MAX, b"x", WriteMode::default())), libc::EFBIG);
    assert_eq!(drive.vfs.write(ino, FILE_BYTES_MAX - 1, b"xyz", WriteMode::default()).unwrap(), 1);
    drive.assert_nothing_left();
}

#[test]
fn appends_never_overwrite_each_other() {
    let drive = Drive::new();
    let ino = drive.file("log");
    std::thread::scope(|scope| {
        for t in 0..4u8 {
            let vfs = drive.vfs.clone();
            scope.spawn(move || {
                for _ in 0..100 {
                    let append = WriteMode { append: true, ..WriteMode::default() };
                    vfs.write(ino, 0, &[t; 10], append).unwrap();
                }
            });
        }
    });
    let bytes = drive.read(ino);
    assert_eq!(bytes.len(), 4_000);
    assert!(bytes.chunks(10).all(|line| line.iter().all(|b| *b == line[0])));
}

#[test]
fn a_name_that_is_replaced_is_never_missing() {
    let drive = Drive::new();
    drive.file("name");
    std::thread::scope(|scope| {
        let vfs = drive.vfs.clone();
        let writer = scope.spawn(move || {
            for _ in 0..2_000 {
                vfs.create(&ROOT, ROOT_INO, b"new", &NewNode::file(0o644, 0)).unwrap();
                vfs.rename((ROOT_INO, b"new"), (ROOT_INO, b"name"), RenameMode::Replace).unwrap();
            }
        });
        while !writer.is_finished() {
            drive.vfs.lookup(ROOT_INO, b"name").unwrap();
        }
    });
}

#[test]
fn renames_in_all_directions_neither_deadlock_nor_lose_anything() {
    let drive = Drive::new();
    let dirs: Vec<Ino> = (0..4).map(|i| drive.dir(&format!("d{i}"))).collect();
    for (i, dir) in dirs.iter().enumerate() {
        drive.vfs.create(&ROOT, *dir, format!("sub{i}").as_bytes(), &NewNode::dir(0o755, 0)).unwrap();
    }
    std::thread::scope(|scope| {
        for t in 0..4usize {
            let (vfs, dirs) = (drive.vfs.clone(), dirs.clone());
            scope.spawn(move || {
                for i in 0..500usize {
                    let name = format!("sub{}", (t + i) % 4);
                    let (from, to) = (dirs[(t + i / 3) % 4], dirs[(t * 3 + i) % 4]);
                    let _ = vfs.rename((from, name.as_bytes()), (to, name.as_bytes()), RenameMode::Replace);
                }
            });
        }
    });
    let total: usize = dirs.iter().map(|dir| drive.names(*dir).len()).sum();
    assert_eq!(total, 4);
    for dir in dirs {
        let subdirs = u32::try_from(drive.names(dir).len()).unwrap();
        assert_eq!(drive.vfs.getattr(dir).unwrap().nlink, 2 + subdirs);
    }
    drive.assert_nothing_left();
}

#[test]
fn xattrs_are_kept_and_obey_their_flags() {
    let drive = Drive::new();
    let ino = drive.file("f");
    let set = |name: &[u8], value: &[u8], mode| drive.vfs.setxattr(&ROOT, ino, name, value, mode);
    assert_eq!(errno(set(b"user.a", b"1", SetMode::Replace)), libc::ENODATA);
    set(b"user.a", b"1", SetMode::Create).unwrap();
    assert_eq!(errno(set(b"user.a", b"2", SetMode::Create)), libc::EEXIST);
    set(b"user.b", &[7; 60_000], SetMode::Either).unwrap();
    set(b"trusted.c", b"", SetMode::Either).unwrap();
    assert_eq!(errno(set(b"user.holdfast.durability", b"2", SetMode::Either)), libc::EPERM);
    assert_eq!(errno(drive.vfs.getxattr(ino, b"user.holdfast.durability")), libc::ENODATA);
    let drive = drive.killed();
    let names = |caller| {
        let mut names = drive.vfs.listxattr(caller, ino).unwrap();
        names.sort();
        names
    };
    assert_eq!(names(&ROOT), [&b"trusted.c"[..], b"user.a", b"user.b"]);
    assert_eq!(names(&USER), [&b"user.a"[..], b"user.b"]);
    assert_eq!(drive.vfs.getxattr(ino, b"user.b").unwrap().len(), 60_000);
    drive.vfs.removexattr(ino, b"user.a").unwrap();
    assert_eq!(errno(drive.vfs.removexattr(ino, b"user.a")), libc::ENODATA);
    drive.assert_nothing_left();
}

#[test]
fn default_acls_are_handed_down_and_follow_chmod() {
    let drive = Drive::new();
    let dir = drive.dir("d");
    let acl = |entries: &[(u16, u16, u32)]| {
        let mut out = 2u32.to_le_bytes().to_vec();
        for (tag, perm, id) in entries {
            out.extend_from_slice(&tag.to_le_bytes());
            out.extend_from_slice(&perm.to_le_bytes());
            out.extend_from_slice(&id.to_le_bytes());
        }
        out
    };
    let none = u32::MAX;
    let default = acl(&[(1, 7, none), (2, 6, 99), (4, 5, none), (0x10, 7, none), (0x20, 0, none)]);
    drive.vfs.setxattr(&ROOT, dir, b"system.posix_acl_default", &default, SetMode::Either).unwrap();
    let file = drive.vfs.create(&ROOT, dir, b"f", &NewNode::file(0o666, 0o077)).unwrap();
    assert_eq!(file.perm, 0o660, "a default ACL takes the umask's place");
    let refused = drive.vfs.setxattr(&ROOT, file.ino, b"system.posix_acl_default", &default, SetMode::Either);
    assert_eq!(errno(refused), libc::EACCES);
    let access = acl(&[(1, 6, none), (2, 6, 99), (4, 5, none), (0x10, 6, none), (0x20, 0, none)]);
    assert_eq!(drive.vfs.getxattr(file.ino, b"system.posix_acl_access").unwrap(), access);
    let set = SetAttr { perm: Some(0o604), ..SetAttr::default() };
    drive.vfs.setattr(&ROOT, file.ino, &set).unwrap();
    let access = acl(&[(1, 6, none), (2, 6, 99), (4, 5, none), (0x10, 0, none), (0x20, 4, none)]);
    assert_eq!(drive.vfs.getxattr(file.ino, b"system.posix_acl_access").unwrap(), access);
    let minimal = acl(&[(1, 7, none), (4, 1, none), (0x20, 2, none)]);
    drive.vfs.setxattr(&ROOT, file.ino, b"system.posix_acl_access", &minimal, SetMode::Either).unwrap();
    assert_eq!(drive.vfs.getattr(file.ino).unwrap().perm, 0o712);
    assert_eq!(errno(drive.vfs.getxattr(file.ino, b"system.posix_acl_access")), libc::ENODATA);
}

#[test]
fn refusals_have_their_errno() {
    let drive = Drive::new();
    let (dir, file) = (drive.dir("d"), drive.file("f"));
    let long = [b'x'; 256];
    let create = |parent, name: &[u8]| drive.vfs.create(&ROOT, parent, name, &NewNode::file(0o644, 0));
    assert_eq!(errno(create(dir, &long)), libc::ENAMETOOLONG);
    assert_eq!(errno(drive.vfs.lookup(dir, &long)), libc::ENAMETOOLONG);
    create(dir, &long[..255]).unwrap();
    assert_eq!(errno(create(ROOT_INO, b"f")), libc::EEXIST);
    assert_eq!(errno(create(file, b"x")), libc::ENOTDIR);
    assert_eq!(errno(drive.vfs.lookup(file, b"x")), libc::ENOTDIR);
    assert_eq!(errno(drive.vfs.rmdir(ROOT_INO, b"f")), libc::ENOTDIR);
    assert_eq!(errno(drive.vfs.unlink(ROOT_INO, b"d")), libc::EISDIR);
    assert_eq!(errno(drive.vfs.rmdir(ROOT_INO, b"d")), libc::ENOTEMPTY);
    assert_eq!(errno(drive.vfs.link(dir, ROOT_INO, b"x")), libc::EPERM);
    assert_eq!(errno(drive.vfs.symlink(&ROOT, dir, b"s", &[b'a'; 4096])), libc::ENAMETOOLONG);
    assert_eq!(errno(drive.vfs.readlink(file)), libc::EINVAL);
    assert_eq!(errno(drive.vfs.read(dir, 0, &mut [0; 8])), libc::EISDIR);
    drive.vfs.unlink(dir, &long[..255]).unwrap();
    drive.vfs.rmdir(ROOT_INO, b"d").unwrap();
    assert_eq!(errno(create(dir, b"x")), libc::ENOENT, "nothing is made in a directory that is gone");
    drive.vfs.set_read_only(true);
    assert_eq!(errno(create(ROOT_INO, b"y")), libc::EROFS);
}

#[test]
fn who_comes_too_late_to_open_a_replaced_file_does_not_come_too_late_twice() {
    let drive = Drive::new();
    let (old, new) = (drive.file("name"), drive.file("new"));
    drive.write(new, 0, b"newer");
    // Looked up, then replaced, then opened.
    drive.vfs.rename((ROOT_INO, b"new"), (ROOT_INO, b"name"), RenameMode::Replace).unwrap();
    assert_eq!(errno(drive.vfs.open_file(old)), libc::ESTALE);
    let again = drive.vfs.lookup(ROOT_INO, b"name").unwrap().ino;
    assert_eq!(again, new);
    drive.file("newest");
    drive.vfs.rename((ROOT_INO, b"newest"), (ROOT_INO, b"name"), RenameMode::Replace).unwrap();
    drive.vfs.unlink(ROOT_INO, b"name").unwrap();
    // It has no name any more, and can be opened all the same.
    drive.vfs.open_file(again).unwrap();
    assert_eq!(drive.read(again), b"newer");
    drive.vfs.release_file(again).unwrap();
    for _ in 0..4 {
        drive.vfs.begin_round();
    }
    drive.assert_nothing_left();
}

#[test]
fn times_that_are_there_already_cost_no_record() {
    let drive = Drive::new();
    let ino = drive.file("f");
    drive.write(ino, 0, b"content");
    let attr = drive.vfs.getattr(ino).unwrap();
    let last = drive.vfs.rows().store().last_lsn();
    // What the kernel's writeback cache sends when it lets go of a file.
    let times =
        SetAttr { mtime: Some(TimeSet::To(attr.mtime)), ctime: Some(attr.ctime), ..SetAttr::default() };
    assert_eq!(drive.vfs.setattr(&ROOT, ino, &times).unwrap(), attr);
    assert_eq!(drive.vfs.rows().store().last_lsn(), last);
    let later = Time { secs: attr.mtime.secs + 1, ..attr.mtime };
    let times = SetAttr { mtime: Some(TimeSet::To(later)), ..times };
    assert_eq!(drive.vfs.setattr(&ROOT, ino, &times).unwrap().mtime, later);
    assert_eq!(drive.vfs.rows().store().last_lsn(), last + 1);
}

#[test]
fn cached_writes_leave_the_times_to_the_kernel() {
    let drive = Drive::new();
    let ino = drive.file("f");
    let before = drive.vfs.getattr(ino).unwrap();
    let cached = WriteMode { from_cache: true, times_follow: true, ..WriteMode::default() };
    drive.vfs.write(ino, 0, b"late", cached).unwrap();
    let after = drive.vfs.getattr(ino).unwrap();
    assert_eq!((after.mtime, after.ctime, after.size), (before.mtime, before.ctime, 4));
    drive.write(ino, 0, b"now");
    assert!(drive.vfs.getattr(ino).unwrap().mtime > before.mtime);
}

#[test]
fn who_does_not_want_to_be_noted_is_not() {
    let drive = Drive::new();
    let ino = drive.file("f");
    drive.write(ino, 0, b"content");
    let (before, mut buf) = (drive.vfs.getattr(ino).unwrap(), [0; 7]);
    assert_eq!(drive.vfs.read_noting(ino, 0, &mut buf, Atime::Stays).unwrap(), 7);
    assert_eq!(drive.vfs.read_without_waiting(ino, 0, &mut buf, Atime::Stays).unwrap(), Some(7));
    assert_eq!(drive.vfs.getattr(ino).unwrap(), before);
    drive.vfs.read(ino, 0, &mut buf).unwrap();
    assert!(drive.vfs.getattr(ino).unwrap().atime > before.atime);
}
