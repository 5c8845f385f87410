//! Folders with a policy of their own: which pieces their data, and what leads to it, lie in.

use std::collections::BTreeSet;
use std::sync::Mutex;

use holdfast_content::class::Class;

use super::*;
use crate::drive::PieceId;
use crate::policy::ask::Origin;
use crate::policy::{POLICIES_MAX, SURVIVE_XATTR};
use crate::vfs::{FsError, RenameMode, SetMode};

/// Until nothing is left to be looked at.
pub(super) fn walk(drive: &Drive) {
    for _ in 0..10_000 {
        if !drive.walk_step().unwrap() {
            assert_eq!(drive.walks().unwrap(), 0);
            return;
        }
    }
    panic!("walks that never end");
}

fn set(drive: &Drive, ino: Ino, losses: u8) {
    drive.set_policy(ino, Some(losses)).unwrap();
}

fn pieces(drive: &Drive, ino: Ino) -> BTreeSet<PieceId> {
    drive.holding(ino).unwrap().pieces.into_keys().collect()
}

fn classes(drive: &Drive, ino: Ino) -> Vec<Class> {
    let all = drive.classes().unwrap();
    pieces(drive, ino).iter().map(|id| all.get(id).copied().unwrap_or(Class::DRIVE)).collect()
}

fn all_cover(drive: &Drive, ino: Ino, class: Class) -> bool {
    let classes = classes(drive, ino);
    !classes.is_empty() && classes.iter().all(|has| has.covers(class))
}

fn file(drive: &Drive, dir: Ino, name: &str, seed: u64) -> Ino {
    let ino = create(drive.vfs(), dir, name);
    write(drive.vfs(), ino, 0, &noise(seed, 5 * CHUNK as usize));
    ino
}

/// A drive that nobody has looked over.
fn fresh() -> (Media, Drive) {
    let media = Media::default();
    let drive = open(&media);
    walk(&drive);
    (media, drive)
}

#[test]
fn new_data_is_packed_by_class_and_what_leads_to_it_is_as_safe_as_anything() {
    let (_, drive) = fresh();
    let vfs = drive.vfs();
    let (safe, scratch) = (mkdir(vfs, ROOT_INO, "safe"), mkdir(vfs, ROOT_INO, "scratch"));
    set(&drive, safe, 3);
    set(&drive, scratch, 0);
    let below = mkdir(vfs, safe, "below");
    let [a, b, c, d] = [(below, 1), (scratch, 2), (ROOT_INO, 3), (below, 4)]
        .map(|(dir, n)| file(&drive, dir, &n.to_string(), n));
    set(&drive, d, 5);
    let commit = drive.seal().unwrap().unwrap();
    let only = |ino| classes(&drive, ino).into_iter().reduce(Class::join).unwrap();
    assert_eq!([only(a), only(b), only(d)], [Class::of(3), Class::of(0), Class::of(5)]);
    assert_eq!(only(c), Class::DRIVE);
    let highest = Class::DRIVE.join(Class::of(5));
    let all = drive.classes().unwrap();
    assert_eq!(all[&commit.commit.at.piece], highest);
    assert_eq!(all[&commit.location_root.at.piece], highest);
    assert_eq!(drive.highest_class().unwrap(), highest);
    // The walks that setting them began find nothing that is not so.
    walk(&drive);
    assert_eq!(drive.classes().unwrap(), all);
    check(&drive);
    let of = |ino| drive.policy_of(ino).unwrap();
    assert_eq!((of(a).class, of(a).from), (Class::of(3), Origin::Folder(2)));
    assert_eq!((of(safe).from, of(c).from, of(d).from), (Origin::Itself, Origin::Drive, Origin::Itself));
    seal_and_prove(&drive);
}

#[test]
fn raising_a_folder_raises_what_is_there_and_what_leads_there() {
    let (media, drive) = fresh();
    let vfs = drive.vfs();
    let dir = mkdir(vfs, ROOT_INO, "d");
    let below = mkdir(vfs, dir, "below");
    let inos: Vec<Ino> = (0..700).map(|n| create(vfs, below, &format!("file {n}"))).collect();
    inos.iter().zip(0..).for_each(|(ino, n)| write(vfs, *ino, 0, &noise(n, 300)));
    let big = create(vfs, dir, "big");
    write(vfs, big, 0, &noise(9, 700 * CHUNK as usize));
    drive.seal().unwrap();
    // Far away, in pieces of its own.
    let other = create(vfs, ROOT_INO, "other");
    write(vfs, other, 0, &noise(10, 60 * CHUNK as usize));
    let commit = drive.seal().unwrap().unwrap();
    assert!(drive.classes().unwrap().is_empty());
    vfs.setxattr(&Caller::root(), dir, SURVIVE_XATTR, b"4", SetMode::Either).unwrap();
    assert_eq!(drive.walks().unwrap(), 2, "the folder, and the trees");
    // One step at a time, and killed after each.
    let mut drive = drive;
    let mut media = media;
    let mut steps = 0;
    while drive.walks().unwrap() > 0 {
        drive.walk_step().unwrap();
        steps += 1;
        drive.sync_all().unwrap();
        media = media.killed();
        drive = open(&media);
        assert!(steps < 20, "steps that lead nowhere");
    }
    assert!(steps >= 5, "{steps}: two pages of names, two of chunks, the trees");
    assert!(inos.iter().chain([&big]).all(|ino| all_cover(&drive, *ino, Class::of(4))));
    let all = drive.classes().unwrap();
    assert!(all[&commit.commit.at.piece].covers(Class::of(4)));
    let own: Vec<PieceId> = pieces(&drive, other).into_iter().filter(|id| !all.contains_key(id)).collect();
    assert!(own.len() >= 3, "neighbours stay as they are");
    check(&drive);
    // Taken away: what was raised stays so, and new data is as the drive is.
    drive.vfs().removexattr(dir, SURVIVE_XATTR).unwrap();
    walk(&drive);
    let new = file(&drive, below, "new", 77);
    drive.seal().unwrap();
    assert_eq!(classes(&drive, new).into_iter().reduce(Class::join), Some(Class::DRIVE));
    assert!(all_cover(&drive, big, Class::of(4)));
    check(&drive);
}

#[test]
fn whatever_comes_below_a_folder_is_raised() {
    let (_, drive) = fresh();
    let vfs = drive.vfs();
    let dir = mkdir(vfs, ROOT_INO, "d");
    set(&drive, dir, 3);
    walk(&drive);
    let away = mkdir(vfs, ROOT_INO, "away");
    let deep = mkdir(vfs, away, "deep");
    let names = ["moved", "linked", "copied", "swapped"];
    let [moved, linked, copied, swapped] = [0, 1, 2, 3].map(|n| file(&drive, ROOT_INO, names[n], n as u64));
    let in_deep = file(&drive, deep, "f", 5);
    let plain = file(&drive, ROOT_INO, "plain", 6);
    let inside = file(&drive, dir, "inside", 7);
    drive.seal().unwrap();
    for ino in [moved, linked, copied, swapped, in_deep, plain] {
        assert_eq!(classes(&drive, ino).into_iter().reduce(Class::join), Some(Class::DRIVE));
    }
    vfs.rename((ROOT_INO, b"moved"), (dir, b"moved"), RenameMode::Replace).unwrap();
    vfs.link(linked, dir, b"linked").unwrap();
    vfs.rename((ROOT_INO, b"swapped"), (dir, b"inside"), RenameMode::Exchange).unwrap();
    vfs.rename((ROOT_INO, b"away"), (dir, b"away"), RenameMode::Replace).unwrap();
    assert!(drive.walks().unwrap() >= 4);
    walk(&drive);
    for ino in [moved, linked, swapped, in_deep, inside] {
        assert!(all_cover(&drive, ino, Class::of(3)), "inode {ino}");
    }
    // Shared chunks and equal ones, with no walk: the seal sees to it. (In one piece all are raised together; so look at what is asked.)
    let (_, drive) = fresh();
    let vfs = drive.vfs();
    let dir = mkdir(vfs, ROOT_INO, "d");
    let copied = file(&drive, ROOT_INO, "copied", 1);
    drive.seal().unwrap();
    let equal = file(&drive, ROOT_INO, "equal", 2);
    drive.seal().unwrap();
    set(&drive, dir, 3);
    walk(&drive);
    let copy = create(vfs, dir, "copy");
    vfs.copy_file_range(&Caller::root(), (copied, 0), (copy, 0), 5 * CHUNK).unwrap();
    file(&drive, dir, "same", 2);
    drive.seal().unwrap();
    assert_eq!(drive.walks().unwrap(), 0);
    assert!(all_cover(&drive, copied, Class::of(3)) && all_cover(&drive, equal, Class::of(3)));
    check(&drive);
}

#[test]
fn what_asked_for_less_comes_to_ask_for_as_much_as_the_drive() {
    let (_, drive) = fresh();
    let vfs = drive.vfs();
    let scratch = mkdir(vfs, ROOT_INO, "scratch");
    set(&drive, scratch, 0);
    walk(&drive);
    let ino = file(&drive, scratch, "f", 1);
    let commit = drive.seal().unwrap().unwrap();
    let low = drive.classes().unwrap();
    assert!(pieces(&drive, ino).iter().all(|id| low.get(id) == Some(&Class::of(0))));
    // On another device that knows of the pieces by the placement log alone, a copy elsewhere asks for more.
    let retriever = Arc::new(FakeRetriever::new());
    publish(&drive, &retriever);
    let restored = attach(&Media::default(), &commit, retriever);
    restored.adopt_classes(low.clone().into_iter()).unwrap();
    assert!(pieces(&drive, ino).iter().all(|id| restored.classes().unwrap()[id] == Class::of(0)));
    walk(&restored);
    let copy = create(restored.vfs(), ROOT_INO, "copy");
    restored.vfs().copy_file_range(&Caller::root(), (ino, 0), (copy, 0), 5 * CHUNK).unwrap();
    restored.seal().unwrap();
    walk(&restored);
    let all = restored.classes().unwrap();
    assert!(pieces(&drive, ino).iter().all(|id| all[id].covers(Class::DRIVE)), "{all:?}");
    // And here, by a move.
    vfs.rename((scratch, b"f"), (ROOT_INO, b"f"), RenameMode::Replace).unwrap();
    walk(&drive);
    assert!(all_cover(&drive, ino, Class::DRIVE));
    drive.seal().unwrap();
    check(&drive);
}

#[test]
fn a_file_with_several_names_is_as_safe_as_anything() {
    let (_, drive) = fresh();
    let vfs = drive.vfs();
    let dir = mkdir(vfs, ROOT_INO, "d");
    set(&drive, dir, 3);
    let ino = file(&drive, ROOT_INO, "f", 1);
    drive.seal().unwrap();
    vfs.link(ino, dir, b"second").unwrap();
    write(vfs, ino, 0, &noise(2, 3 * CHUNK as usize));
    walk(&drive);
    drive.seal().unwrap();
    assert!(all_cover(&drive, ino, Class::of(3)));
    // The name that says which folder it is in goes; which the other is in nobody knows.
    vfs.unlink(ROOT_INO, b"f").unwrap();
    write(vfs, ino, 0, &noise(3, 5 * CHUNK as usize));
    drive.seal().unwrap();
    assert!(all_cover(&drive, ino, Class::of(3)));
    assert_eq!(drive.policy_of(ino).unwrap().from, Origin::Anywhere);
    // Moved, it is known again.
    vfs.rename((dir, b"second"), (ROOT_INO, b"back"), RenameMode::Replace).unwrap();
    write(vfs, ino, 0, &noise(4, 5 * CHUNK as usize));
    drive.seal().unwrap();
    assert_eq!(classes(&drive, ino).into_iter().reduce(Class::join), Some(Class::DRIVE));
    check(&drive);
}

#[test]
fn a_restored_drive_knows_the_policies_and_goes_on() {
    let (_, drive) = fresh();
    let vfs = drive.vfs();
    let dir = mkdir(vfs, ROOT_INO, "d");
    let old = file(&drive, dir, "old", 1);
    drive.seal().unwrap();
    // The other machine was lost before its walk had come anywhere.
    set(&drive, dir, 3);
    let commit = drive.seal().unwrap().unwrap();
    let retriever = Arc::new(FakeRetriever::new());
    publish(&drive, &retriever);
    let media = Media::default();
    let restored = attach(&media, &commit, retriever.clone());
    assert_eq!(restored.vfs().getxattr(dir, SURVIVE_XATTR).unwrap(), "3");
    restored.adopt_classes(drive.classes().unwrap().into_iter()).unwrap();
    assert!(restored.walks().unwrap() > 0);
    walk(&restored);
    let at = pieces(&drive, old);
    let known = restored.classes().unwrap();
    assert!(at.iter().all(|id| known[id].covers(Class::of(3))), "pieces that were never here");
    let new = file(&restored, dir, "new", 2);
    let copy = create(restored.vfs(), ROOT_INO, "copy");
    restored.vfs().copy_file_range(&Caller::root(), (old, 0), (copy, 0), 5 * CHUNK).unwrap();
    let second = restored.seal().unwrap().unwrap();
    assert!(all_cover(&restored, new, Class::of(3)));
    assert_eq!(restored.walks().unwrap(), 1, "where the copy's chunks lie a seal does not ask");
    walk(&restored);
    assert!(at.iter().all(|id| restored.classes().unwrap()[id].covers(Class::DRIVE)));
    publish(&restored, &retriever);
    check(&restored);
    let third = attach(&Media::default(), &second, retriever);
    walk(&third);
    assert_eq!(third.highest_class().unwrap(), Class::DRIVE.join(Class::of(3)));
}

#[test]
fn values_limits_and_ends() {
    let (media, drive) = fresh();
    let vfs = drive.vfs();
    let who = Caller::root();
    let dir = mkdir(vfs, ROOT_INO, "d");
    let put = |ino, value: &[u8], mode| vfs.setxattr(&who, ino, SURVIVE_XATTR, value, mode);
    for bad in [&b""[..], b"10", b"x", b"3 ", b"03", b"-1"] {
        assert!(matches!(put(dir, bad, SetMode::Either), Err(FsError::Invalid)), "{bad:?}");
    }
    assert!(matches!(vfs.getxattr(dir, SURVIVE_XATTR), Err(FsError::NoAttribute)));
    put(dir, b"2", SetMode::Create).unwrap();
    assert!(matches!(put(dir, b"3", SetMode::Create), Err(FsError::Exists)));
    put(dir, b"3", SetMode::Replace).unwrap();
    assert!(vfs.listxattr(&who, dir).unwrap().iter().any(|name| name == SURVIVE_XATTR));
    let link = vfs.symlink(&who, ROOT_INO, b"l", b"d").unwrap().ino;
    assert!(matches!(put(link, b"1", SetMode::Either), Err(FsError::NotPermitted)));
    // What goes takes its policy with it, by whichever way.
    let inos: Vec<Ino> = (0..4).map(|n| mkdir(vfs, ROOT_INO, &format!("x{n}"))).collect();
    inos.iter().for_each(|ino| put(*ino, b"9", SetMode::Either).unwrap());
    assert_eq!(drive.highest_class().unwrap(), Class::DRIVE.join(Class::of(9)));
    vfs.rmdir(ROOT_INO, b"x0").unwrap();
    vfs.rename((ROOT_INO, b"x1"), (ROOT_INO, b"x2"), RenameMode::Replace).unwrap();
    vfs.removexattr(inos[1], SURVIVE_XATTR).unwrap();
    assert_eq!(drive.highest_class().unwrap(), Class::DRIVE.join(Class::of(9)));
    vfs.rmdir(ROOT_INO, b"x3").unwrap();
    assert_eq!(drive.highest_class().unwrap(), Class::DRIVE.join(Class::of(3)));
    drive.sync_all().unwrap();
    let again = open(&media.killed());
    assert_eq!(again.highest_class().unwrap(), Class::DRIVE.join(Class::of(3)));
    let many = mkdir(vfs, ROOT_INO, "many");
    let made: Vec<Ino> = (0..POLICIES_MAX).map(|n| create(vfs, many, &format!("{n}"))).collect();
    made.iter().skip(1).for_each(|ino| put(*ino, b"1", SetMode::Either).unwrap());
    assert!(matches!(put(made[0], b"1", SetMode::Either), Err(FsError::NoSpace)));
    put(made[1], b"2", SetMode::Either).unwrap();
    walk(&drive);
    check(&drive);
}

/// Crashes at the edges of a walk repeat a page and lose none.
#[test]
fn a_walk_survives_a_crash_anywhere() {
    let media = Media::default();
    let images = Arc::new(Mutex::new(Vec::new()));
    let edges = {
        let (media, images) = (media.clone(), images.clone());
        Edges::with_hook(Arc::new(move |name: &'static str| {
            if name.starts_with("walk.") {
                let mut images = images.lock().unwrap();
                let nth = images.len() as u64;
                images.push(if nth.is_multiple_of(2) { media.killed() } else { media.power_cut(nth) });
            }
        }))
    };
    let drive = open_with(&media, with_edges(edges));
    let vfs = drive.vfs();
    let dir = mkdir(vfs, ROOT_INO, "d");
    let inos: Vec<Ino> = (0..600).map(|n| create(vfs, dir, &format!("{n}"))).collect();
    inos.iter().zip(0..).for_each(|(ino, n)| write(vfs, *ino, 0, &noise(n, 600)));
    drive.seal().unwrap();
    set(&drive, dir, 2);
    drive.sync_all().unwrap();
    walk(&drive);
    let images = images.lock().unwrap();
    assert!(images.len() >= 5, "{}", images.len());
    for image in images.iter() {
        let drive = open(image);
        walk(&drive);
        assert!(inos.iter().all(|ino| all_cover(&drive, *ino, Class::of(2))));
        check(&drive);
    }
}
