//! Chunks that come in beneath a file that goes on changing.

use super::*;

const CHUNK: u64 = 4096;

impl Drive {
    /// What a seal would make of a file as of now.
    pub(super) fn cut(&self, ino: Ino) -> SealedFile {
        let cut = self.vfs.rows().store().last_lsn();
        let bytes = self.read(ino);
        let mut chunks = Vec::new();
        for (n, plain) in bytes.chunks(CHUNK as usize).enumerate() {
            let all_zero = plain.iter().all(|b| *b == 0);
            chunks.push((n as u64, (!all_zero).then(|| self.chunks.seal(plain, cut))));
        }
        let end = (bytes.len() as u64).div_ceil(CHUNK);
        for (n, _) in self.vfs.rows().live().chunks(ino, end, u64::MAX, 100_000).unwrap() {
            chunks.push((n, None));
        }
        SealedFile { ino, cut, chunks, empty_from: Some(end * CHUNK), rows: 0 }
    }

    pub(super) fn install(&self, files: &[SealedFile]) {
        self.vfs.install_sealed(self.vfs.begin(), files).unwrap();
    }
}

#[test]
fn a_sealed_file_reads_the_same_and_needs_no_extents() {
    let drive = Drive::new();
    let ino = drive.file("f");
    let bytes: Vec<u8> = (0..50_000u32).map(|i| (i / 7) as u8).collect();
    drive.write(ino, 0, &bytes);
    drive.install(&[drive.cut(ino)]);
    assert_eq!(drive.read(ino), bytes);
    assert_eq!(drive.vfs.rows().live().extents(ino, 0, 10).unwrap(), vec![]);
    assert_eq!(drive.vfs.rows().store().usage().live_payloads, 0);
    let drive = drive.killed();
    assert_eq!(drive.read(ino), bytes);
    drive.write(ino, 5_000, b"over a chunk");
    let mut expected = bytes;
    expected[5_000..5_012].copy_from_slice(b"over a chunk");
    assert_eq!(drive.read(ino), expected);
    drive.assert_nothing_left();
}

#[test]
fn changes_after_the_cut_stay_on_top() {
    let drive = Drive::new();
    let ino = drive.file("f");
    drive.write(ino, 0, &[1; 20_000]);
    let sealed = drive.cut(ino);
    drive.write(ino, 6_000, &[2; 100]);
    drive.vfs.fallocate(&ROOT, ino, 9_000, 500, AllocateMode::Punch).unwrap();
    for size in [15_000, 30_000] {
        drive.vfs.setattr(&ROOT, ino, &SetAttr { size: Some(size), ..SetAttr::default() }).unwrap();
    }
    let expected = drive.read(ino);
    drive.install(&[sealed]);
    assert_eq!(drive.read(ino), expected);
    let drive = drive.killed();
    assert_eq!(drive.read(ino), expected);
    drive.install(&[drive.cut(ino)]);
    assert_eq!(drive.read(ino), expected);
    assert_eq!(drive.vfs.rows().live().extents(ino, 0, 10).unwrap(), vec![]);
    drive.assert_nothing_left();
}

#[test]
fn an_older_cut_never_replaces_a_newer_chunk() {
    let drive = Drive::new();
    let (ino, other) = (drive.file("f"), drive.file("g"));
    drive.write(other, 0, &[5; 8192]);
    drive.install(&[drive.cut(other)]);
    drive.write(ino, 0, &[1; 8192]);
    let old = drive.cut(ino);
    // Shares the other file's chunks; no extent is left that could hide the old cut's.
    assert_eq!(drive.vfs.copy_file_range(&ROOT, (other, 0), (ino, 0), 8192).unwrap(), 8192);
    assert_eq!(drive.vfs.rows().live().extents(ino, 0, 10).unwrap(), vec![]);
    drive.install(&[old]);
    assert_eq!(drive.read(ino), [5; 8192]);
    // A file that went before its seal came is passed over.
    let gone = drive.cut(ino);
    drive.vfs.unlink(ROOT_INO, b"f").unwrap();
    drive.install(&[gone]);
    drive.assert_nothing_left();
}

#[test]
fn a_read_that_must_not_wait_says_so() {
    let drive = Drive::new();
    let ino = drive.file("f");
    drive.write(ino, 0, &[1; 5_000]);
    drive.install(&[drive.cut(ino)]);
    let mut buf = [0; 100];
    assert_eq!(drive.vfs.read_without_waiting(ino, 0, &mut buf, Atime::Moves).unwrap(), Some(100));
    drive.chunks.0.lock().clear();
    assert_eq!(drive.vfs.read_without_waiting(ino, 0, &mut buf, Atime::Moves).unwrap(), None);
    assert_eq!(errno(drive.vfs.read(ino, 0, &mut buf)), libc::ETIMEDOUT);
}

#[test]
fn a_copy_that_must_not_wait_shares_what_is_elsewhere_and_reads_what_is_here() {
    let drive = Drive::new();
    let (ino, copy) = (drive.file("f"), drive.file("copy"));
    drive.write(ino, 0, &[1; 5_000]);
    drive.install(&[drive.cut(ino)]);
    let copied = |from, to, len| drive.vfs.copy_without_waiting(&ROOT, (ino, from), (copy, to), len).unwrap();
    assert_eq!(copied(10, 10_000, 100), Some(100), "a part of a chunk that is here");
    let known = std::mem::take(&mut *drive.chunks.0.lock());
    assert_eq!(copied(0, 0, CHUNK), Some(CHUNK), "a whole chunk needs no bytes");
    assert_eq!(copied(10, 20_000, 100), None);
    *drive.chunks.0.lock() = known;
    let mut expected = vec![0; 10_100];
    expected[..CHUNK as usize].fill(1);
    expected[10_000..].fill(1);
    assert_eq!(drive.read(copy), expected);
}
