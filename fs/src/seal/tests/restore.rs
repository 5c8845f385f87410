//! A drive on an empty home: reads fall through, writes stay on top, commits go on.

use super::*;
use crate::vfs::FsError;

fn filled() -> (Drive, CommitInfo, Arc<FakeRetriever>) {
    let drive = open(&Media::default());
    let vfs = drive.vfs();
    let dir = mkdir(vfs, ROOT_INO, "d");
    for n in 0..400u64 {
        let ino = create(vfs, dir, &format!("file {n}"));
        write(vfs, ino, 0, &noise(n, 100 + n as usize * 7));
    }
    let big = create(vfs, ROOT_INO, "big");
    for n in 0..20 {
        write(vfs, big, n * 40_000, &noise(1000 + n, 40_000));
    }
    let commit = drive.seal().unwrap().unwrap();
    let retriever = Arc::new(FakeRetriever::new());
    publish(&drive, &retriever);
    (drive, commit, retriever)
}

#[test]
fn mounting_moves_little() {
    let (drive, commit, retriever) = filled();
    let all = drive.usage().unwrap().piece_bytes_total;
    let restored = attach(&Media::default(), &commit, retriever.clone());
    assert!(retriever.bytes_served() < 60_000, "{} of {all}", retriever.bytes_served());
    let big = restored.vfs().resolve(b"/big").unwrap();
    let mut buf = [0; 4096];
    restored.vfs().read(big.ino, 300_000, &mut buf).unwrap();
    assert!(retriever.bytes_served() < 200_000, "{} of {all}", retriever.bytes_served());
    assert_eq!(drive.vfs().resolve(b"/big").unwrap().size, big.size);
}

#[test]
fn writing_on_a_restored_drive() {
    let (drive, commit, retriever) = filled();
    let media = Media::default();
    let restored = attach(&media, &commit, retriever.clone());
    let vfs = restored.vfs();
    assert_eq!(restored.seal().unwrap(), None, "nothing has changed");
    let dir = vfs.resolve(b"/d").unwrap().ino;
    for n in 0..100 {
        vfs.unlink(dir, format!("file {n}").as_bytes()).unwrap();
    }
    vfs.reclaim(1_000_000).unwrap();
    let big = vfs.resolve(b"/big").unwrap().ino;
    write(vfs, big, 100_001, b"changed after the restore");
    truncate(vfs, vfs.resolve(b"/d/file 200").unwrap().ino, 50);
    let new = create(vfs, dir, "new");
    assert!(drive.vfs().getattr(new).is_err(), "a number that was never used");
    write(vfs, new, 0, b"new");
    let before = dump(vfs);
    let second = restored.seal().unwrap().unwrap();
    assert_eq!(second.sequence, commit.sequence + 1);
    assert_same(&before, &dump(vfs), "sealed on top of a base");
    publish(&restored, &retriever);
    check(&restored);
    let third = attach(&Media::default(), &second, retriever.clone());
    assert_same(&before, &dump(third.vfs()), "restored a second time");
    drop(restored);
    let home = media.killed().home();
    let again =
        Drive::open_on(home, keys(), store_keys(), options(), vfs_options(), retriever.clone(), ambient())
            .unwrap();
    assert_same(&before, &dump(again.vfs()), "opened again");
    assert_eq!(again.seal().unwrap(), None);
    vfs_edit_and_seal(&again, &retriever);
}

fn vfs_edit_and_seal(drive: &Drive, retriever: &Arc<FakeRetriever>) {
    let vfs = drive.vfs();
    let dir = vfs.resolve(b"/d").unwrap().ino;
    write(vfs, vfs.resolve(b"/d/file 300").unwrap().ino, 3, b"third device");
    vfs.unlink(dir, b"file 301").unwrap();
    let before = dump(vfs);
    let commit = drive.seal().unwrap().unwrap();
    publish(drive, retriever);
    let last = attach(&Media::default(), &commit, retriever.clone());
    assert_same(&before, &dump(last.vfs()), "the third commit");
}

#[test]
fn a_dead_network_costs_errors_not_data() {
    let (_, commit, retriever) = filled();
    let restored = attach(&Media::default(), &commit, retriever.clone());
    let vfs = restored.vfs();
    let big = vfs.resolve(b"/big").unwrap().ino;
    write(vfs, big, 5000, b"on top");
    retriever.set_stalled(true);
    let mut buf = [0; 100];
    assert!(matches!(vfs.read(big, 0, &mut buf), Err(FsError::TimedOut)));
    assert!(matches!(vfs.resolve(b"/d/file 17"), Err(FsError::TimedOut)));
    // A partial overwrite needs the old chunk: it stays in the log, and the commit (if one can be made at all) says so.
    match restored.seal() {
        Ok(commit) => assert_eq!(commit.unwrap().pending, vec![big]),
        Err(error) => assert!(error.is_retryable(), "{error}"),
    }
    retriever.set_stalled(false);
    vfs.read(big, 5000, &mut buf).unwrap();
    assert_eq!(&buf[..6], b"on top");
    let sealed = restored.seal().unwrap().unwrap();
    assert!(sealed.pending.is_empty());
    publish(&restored, &retriever);
    check(&restored);
}

#[test]
fn a_chunk_out_of_reach_is_pending() {
    let (drive, commit, retriever) = filled();
    let restored = attach(&Media::default(), &commit, retriever.clone());
    let vfs = restored.vfs();
    let big = vfs.resolve(b"/big").unwrap().ino;
    write(vfs, big, 5 * CHUNK + 1, b"partial");
    let row = drive.vfs().rows().live().chunk(big, 5).unwrap().unwrap();
    retriever
        .corrupt(holdfast_content::block::cid_from_digest(holdfast_content::block::CODEC_RAW, &row.digest));
    let sealed = restored.seal().unwrap().unwrap();
    assert_eq!(sealed.pending, vec![big]);
    assert!(restored.dirty().unwrap().is_dirty());
    assert_eq!(restored.seal().unwrap(), None, "still pending, nothing new");
    // Overwritten whole it needs the old chunk no more.
    write(vfs, big, 5 * CHUNK, &noise(5, CHUNK as usize));
    let sealed = restored.seal().unwrap().unwrap();
    assert!(sealed.pending.is_empty());
    assert_eq!(restored.seal().unwrap(), None);
    assert!(!restored.dirty().unwrap().is_dirty());
}
