//! Commits as they are shown: by name, as trees, by what differs.

use super::*;
use crate::snapshots::diff::{Change, ChangeKind};
use crate::snapshots::is_name;
use crate::vfs::{FsError, RenameMode};

fn read(vfs: &Vfs, path: &str) -> Option<Vec<u8>> {
    let found = vfs.resolve(path.as_bytes()).ok()?;
    let mut bytes = vec![0; found.size as usize];
    vfs.read(found.ino, 0, &mut bytes).unwrap();
    Some(bytes)
}

#[test]
fn each_commit_stays_as_it_was() {
    let drive = open(&Media::default());
    let vfs = drive.vfs();
    let dir = mkdir(vfs, ROOT_INO, "d");
    let ino = create(vfs, dir, "f");
    let first_bytes = noise(1, 5 * CHUNK as usize);
    write(vfs, ino, 0, &first_bytes);
    let first = drive.seal().unwrap().unwrap();
    let shown_first = dump(vfs);
    write(vfs, ino, 10, b"changed");
    create(vfs, dir, "second");
    let second = drive.seal().unwrap().unwrap();
    vfs.unlink(dir, b"f").unwrap();
    let third = drive.seal().unwrap().unwrap();

    let was = drive.snapshot_vfs(first.sequence).unwrap();
    assert_same(&shown_first, &dump(&was), "the first commit");
    assert_eq!(read(&was, "/d/f").unwrap(), first_bytes);
    assert_eq!(read(&was, "/d/second"), None);
    let was = drive.snapshot_vfs(second.sequence).unwrap();
    assert_eq!(&read(&was, "/d/f").unwrap()[10..17], b"changed");
    assert!(read(&was, "/d/second").is_some());
    assert_eq!(read(&drive.snapshot_vfs(third.sequence).unwrap(), "/d/f"), None);
    let refused = was.unlink(was.resolve(b"/d").unwrap().ino, b"f");
    assert!(matches!(refused, Err(FsError::ReadOnly)));
    let refused = was.write(was.resolve(b"/d/f").unwrap().ino, 0, b"x", WriteMode::default());
    assert!(matches!(refused, Err(FsError::ReadOnly)));
    assert!(matches!(drive.snapshot_vfs(99), Err(crate::drive::DriveError::Fs(FsError::NotFound))));
    check(&drive);
}

#[test]
fn a_commit_has_many_names() {
    let media = Media::default();
    let drive = open(&media);
    for n in 0..3 {
        create(drive.vfs(), ROOT_INO, &format!("{n}"));
        drive.seal().unwrap().unwrap();
    }
    let all = drive.snapshots().unwrap();
    assert_eq!(all.iter().map(|at| at.sequence).collect::<Vec<_>>(), [1, 2, 3]);
    let mut labels: Vec<&String> = all.iter().map(|at| &at.label).collect();
    labels.dedup();
    assert_eq!(labels.len(), 3, "{labels:?}");
    for at in &all {
        for name in [&at.label, &at.sequence.to_string(), &at.cid] {
            assert_eq!(drive.resolve_snapshot(name).unwrap(), Some(at.sequence), "{name}");
        }
    }
    for name in ["", "0", "4", "01", "+1", "2026-11-25T03.15.00Z", "before", ".."] {
        assert_eq!(drive.resolve_snapshot(name).unwrap(), None, "{name}");
    }
    drive.name_snapshot("before", 2).unwrap();
    assert!(matches!(drive.name_snapshot("before", 3), Err(crate::drive::DriveError::Fs(FsError::Exists))));
    assert!(drive.name_snapshot("after", 9).is_err(), "a commit that is none");
    for name in ["", ".", ".x", "a/b", "-v", "7", &all[0].label, &all[0].cid, &"x".repeat(101)] {
        assert!(!is_name(name) && drive.name_snapshot(name, 1).is_err(), "{name}");
    }
    drop(drive);
    let drive = open(&media.killed());
    assert_eq!(drive.resolve_snapshot("before").unwrap(), Some(2));
    assert_eq!(drive.snapshots().unwrap()[1].names, ["before"]);
    assert!(drive.forget_snapshot_name("before").unwrap() && !drive.forget_snapshot_name("before").unwrap());
    assert_eq!(drive.resolve_snapshot("before").unwrap(), None);
}

fn lines(changes: &[Change]) -> Vec<String> {
    let text = |path: &[u8]| String::from_utf8_lossy(path).into_owned();
    let line = |change: &Change| match (change.kind, &change.from) {
        (ChangeKind::Added, _) => format!("+{}", text(&change.path)),
        (ChangeKind::Removed, _) => format!("-{}", text(&change.path)),
        (ChangeKind::Changed, _) => format!("M{}", text(&change.path)),
        (ChangeKind::Moved, from) => format!("R{}>{}", text(from.as_ref().unwrap()), text(&change.path)),
    };
    changes.iter().map(line).collect()
}

#[test]
fn differences_as_paths() {
    let drive = open(&Media::default());
    let vfs = drive.vfs();
    let (a, b) = (mkdir(vfs, ROOT_INO, "a"), mkdir(vfs, ROOT_INO, "b"));
    for n in 0..200 {
        create(vfs, a, &format!("quiet {n}"));
    }
    let (changed, moved, gone) = (create(vfs, a, "changed"), create(vfs, a, "moved"), mkdir(vfs, a, "gone"));
    create(vfs, gone, "within");
    write(vfs, changed, 0, b"one");
    let first = drive.seal().unwrap().unwrap().sequence;
    write(vfs, changed, 0, b"two");
    vfs.link(changed, b, b"other name").unwrap();
    vfs.rename((a, b"moved"), (b, b"moved too"), RenameMode::Replace).unwrap();
    vfs.unlink(gone, b"within").unwrap();
    vfs.rmdir(a, b"gone").unwrap();
    let new = mkdir(vfs, b, "new");
    create(vfs, new, "file");
    let second = drive.seal().unwrap().unwrap().sequence;
    let (changes, more) = drive.diff(first, second, 100).unwrap();
    assert!(!more);
    let expected = [
        "Ma/changed",
        "-a/gone",
        "-a/gone/within",
        "Ra/moved>b/moved too",
        "+b/new",
        "+b/new/file",
        "+b/other name",
    ];
    assert_eq!(lines(&changes), expected);
    let (back, _) = drive.diff(second, first, 100).unwrap();
    assert!(lines(&back).contains(&"+a/gone/within".to_owned()));
    assert_eq!(drive.diff(second, second, 100).unwrap().0, []);
    let (some, more) = drive.diff(first, second, 2).unwrap();
    assert!(more && some.len() == 2);
    write(vfs, changed, 0, b"three");
    write(vfs, moved, 0, b"data");
    let third = drive.seal().unwrap().unwrap().sequence;
    let (changes, _) = drive.diff(second, third, 100).unwrap();
    assert_eq!(lines(&changes), ["Ma/changed", "Mb/moved too", "Mb/other name"]);
}
