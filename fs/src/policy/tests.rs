#![allow(clippy::unwrap_used)]
use std::convert::Infallible;

use super::*;
use crate::rows::{Kind, Time};

fn file() -> InodeRow {
    let at = Time::default();
    let (kind, target) = (Kind::File, bytes::Bytes::new());
    let (perm, flags, chunk_log2, nlink) = (0o644, 0, 18, 1);
    let (uid, gid, rdev, generation, size, allocated, parent, lsn) = (0, 0, 0, 0, 0, 0, 0, 0);
    let (atime, mtime, ctime, btime) = (at, at, at, at);
    InodeRow {
        kind,
        perm,
        uid,
        gid,
        nlink,
        size,
        allocated,
        rdev,
        atime,
        mtime,
        ctime,
        btime,
        generation,
        chunk_log2,
        flags,
        parent,
        lsn,
        target,
    }
}

fn policies(all: &[(Ino, u8)]) -> Policies {
    Policies(all.iter().copied().collect())
}

/// 1 ─ 2 ─ 3 ─ 4, and 5 that nobody knows.
fn up(ino: Ino) -> Result<Ino, Infallible> {
    Ok(if ino == 5 { 0 } else { ino - 1 })
}

#[test]
fn values_are_one_digit() {
    assert_eq!([parse(b"0"), parse(b"3"), parse(b"9")], [Some(0), Some(3), Some(9)]);
    for bad in [&b""[..], b"10", b"03", b"+3", b" 3", b"3\n", b"-1", b"three", b"\xff"] {
        assert_eq!(parse(bad), None, "{bad:?}");
    }
}

#[test]
fn the_nearest_wins_and_what_is_not_known_is_as_safe_as_anything() {
    let all = policies(&[(2, 3), (4, 1)]);
    let of = |ino| all.class(ino, up).unwrap();
    assert_eq!([of(1), of(2), of(3), of(4)], [Class::DRIVE, Class::of(3), Class::of(3), Class::of(1)]);
    assert_eq!(of(5), all.highest());
    assert_eq!(all.highest(), Class::DRIVE.join(Class::of(3)));
    assert_eq!(policies(&[]).class(5, up).unwrap(), Class::DRIVE, "nobody asks for anything else");
    assert_eq!(policies(&[(1, 0)]).class(3, up).unwrap(), Class::of(0));
    // A ring, which only damage makes.
    assert_eq!(policies(&[(9, 4)]).class(7, Ok::<_, Infallible>).unwrap(), Class::DRIVE.join(Class::of(4)));
}

#[test]
fn files_follow_their_only_folder() {
    let all = policies(&[(2, 3), (40, 5)]);
    let of = |ino, nlink, parent| {
        let row = InodeRow { nlink, parent, ..file() };
        all.class_of_file(ino, &row, up).unwrap()
    };
    assert_eq!(of(30, 1, 3), Class::of(3));
    assert_eq!(of(30, 1, 1), Class::DRIVE);
    assert_eq!(of(40, 1, 3), Class::of(5), "its own attribute");
    assert_eq!(of(40, 2, 3), Class::of(5));
    assert_eq!([of(30, 2, 3), of(30, 1, 0)], [all.highest(); 2]);
}
