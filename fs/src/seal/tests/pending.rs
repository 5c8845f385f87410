//! What a commit lacks: files whose data could not be sealed are an error to whoever reads the commit, and never an older version.

use holdfast_content::block::{Block, CODEC_RAW, cid_from_digest};
use holdfast_content::commit::{Commit, CommitRef};
use holdfast_store::{StorageMedium, Table};

use super::*;
use crate::restore::CommitTree;
use crate::retention::rule::RetentionRule;
use crate::rows::{BaseTree as _, InodeRow, keys};
use crate::vfs::{AllocateMode, FsError, RenameMode, SeekTo};

fn attach_at(commit: &CommitInfo, complete: Option<&CommitInfo>, retriever: &Arc<FakeRetriever>) -> Drive {
    let point = RestorePoint {
        commit: commit.commit.clone(),
        complete: complete.map(|complete| complete.commit.clone()),
        location_root: commit.location_root.clone(),
    };
    let (home, ambient) = (Media::default().home(), ambient());
    Drive::attach_on(home, keys(), store_keys(), options(), vfs_options(), point, retriever.clone(), ambient)
        .unwrap()
}

/// A drive whose disk lost what was written to `bad` since its first commit; both commits are published. The second lacks that file's data.
struct Lost {
    drive: Drive,
    bad: Ino,
    old: Vec<u8>,
    complete: CommitInfo,
    commit: CommitInfo,
    retriever: Arc<FakeRetriever>,
}

fn lost() -> Lost {
    let media = Media::default();
    let drive = open(&media);
    let vfs = drive.vfs();
    let (bad, good) = (create(vfs, ROOT_INO, "bad"), create(vfs, ROOT_INO, "good"));
    let old = noise(1, 100_000);
    write(vfs, bad, 0, &old);
    write(vfs, good, 0, b"good");
    let complete = drive.seal().unwrap().unwrap();
    let before = media.log.contents();
    write(vfs, bad, 0, &noise(2, 90_000));
    let after = media.log.contents();
    let (name, bytes) = after
        .iter()
        .find(|(name, bytes)| name.starts_with("data-") && before.get(*name) != Some(*bytes))
        .unwrap();
    let at = bytes.len() - 500;
    media.log.open(name).unwrap().write_at(&[!bytes[at]], at as u64).unwrap();
    let commit = drive.seal().unwrap().unwrap();
    assert_eq!(commit.pending, [bad]);
    let retriever = Arc::new(FakeRetriever::new());
    publish(&drive, &retriever);
    Lost { drive, bad, old, complete, commit, retriever }
}

fn lacks_data(result: Result<impl Sized, FsError>) {
    let Err(error) = result else { panic!("it has data") };
    assert!(matches!(error, FsError::LacksData(_)), "{error}");
    assert_eq!(error.errno(), libc::EIO);
}

/// Whether the commit's tree says that it lacks the file's data, whatever its list says: that is cut short.
fn says_so_itself(drive: &Drive, commit: &CommitInfo, ino: Ino) -> bool {
    let mut row = drive.inner.commit_row(commit.sequence).unwrap().unwrap();
    row.info.pending.clear();
    let tree = CommitTree::new(drive.inner.parts.trees.clone(), &row);
    let row = tree.get(Table::Inode, &keys::inode(ino)).unwrap().unwrap();
    InodeRow::decode(&row).unwrap().lacks_data()
}

fn nothing_is_shown(vfs: &Vfs, ino: Ino) {
    for off in [0, 5000, 89_999, 95_000, 100_000] {
        lacks_data(vfs.read(ino, off, &mut [0; 10]));
    }
    for to in [SeekTo::Data, SeekTo::Hole] {
        lacks_data(vfs.seek(ino, 0, to));
    }
    assert_eq!(vfs.getxattr(ino, b"user.holdfast.durability").unwrap(), "missing");
    assert_eq!(vfs.getattr(ino).unwrap().size, 100_000);
}

#[test]
fn what_a_commit_lacks_is_an_error_and_never_an_older_version() {
    let lost = lost();
    let bad = lost.bad;
    assert!(says_so_itself(&lost.drive, &lost.commit, bad));
    assert!(!says_so_itself(&lost.drive, &lost.complete, bad));
    let restored = attach_at(&lost.commit, Some(&lost.complete), &lost.retriever);
    let vfs = restored.vfs();
    nothing_is_shown(vfs, bad);
    assert_eq!(restored.durability("/").unwrap(), crate::drive::Durability::Missing);
    // Nothing is written over it in part.
    lacks_data(vfs.write(bad, 0, b"new", WriteMode::default()));
    let size = crate::vfs::SetAttr { size: Some(50), ..Default::default() };
    lacks_data(vfs.setattr(&Caller::root(), bad, &size));
    lacks_data(vfs.fallocate(&Caller::root(), bad, 0, 10, AllocateMode::Punch));
    let good = vfs.resolve(b"/good").unwrap().ino;
    lacks_data(vfs.copy_file_range(&Caller::root(), (bad, 0), (good, 0), 10));
    lacks_data(vfs.copy_file_range(&Caller::root(), (good, 0), (bad, 0), 10));
    let mut buf = [0; 4];
    vfs.read(good, 0, &mut buf).unwrap();
    assert_eq!(&buf, b"good");
    // The checker names it.
    let report = restored.check(CheckOptions { deep: true }).unwrap();
    assert_eq!(report.problems_count, 1, "{report}");
    assert!(report.problems[0].contains(&format!("inode {bad}:")), "{report}");
    // The snapshots: the newest lacks it, too; the one before has it.
    let (newest, older) = (lost.commit.sequence, lost.complete.sequence);
    let shown: Vec<_> = restored.snapshots().unwrap().iter().map(|at| at.sequence).collect();
    assert_eq!(shown, [older, newest]);
    nothing_is_shown(&restored.snapshot_vfs(newest).unwrap(), bad);
    let mut content = vec![0; 100_000];
    restored.snapshot_vfs(older).unwrap().read(bad, 0, &mut content).unwrap();
    assert!(content == lost.old);
    let (changes, _) = restored.diff(older, newest, 9).unwrap();
    assert_eq!(changes.iter().map(|change| change.path.as_slice()).collect::<Vec<_>>(), [b"bad"]);
    // Where it was sealed, the same holds of the snapshot.
    nothing_is_shown(&lost.drive.snapshot_vfs(newest).unwrap(), bad);
}

#[test]
fn a_restored_drive_goes_on_without_what_it_lacks() {
    let lost = lost();
    let bad = lost.bad;
    let restored = attach_at(&lost.commit, Some(&lost.complete), &lost.retriever);
    let vfs = restored.vfs();
    assert_eq!(restored.unsealed_files().unwrap(), 0, "there is nothing to wait for");
    write(vfs, vfs.resolve(b"/good").unwrap().ino, 0, b"better");
    // Its attributes may change, and its name.
    let perm = crate::vfs::SetAttr { perm: Some(0o600), ..Default::default() };
    vfs.setattr(&Caller::root(), bad, &perm).unwrap();
    vfs.rename((ROOT_INO, b"bad"), (ROOT_INO, b"moved"), RenameMode::Replace).unwrap();
    let second = restored.seal().unwrap().unwrap();
    assert_eq!(second.pending, [bad]);
    assert!(!restored.dirty().unwrap().is_dirty());
    assert_eq!(restored.complete_commit().unwrap().unwrap().commit, lost.complete.commit);
    publish(&restored, &lost.retriever);
    // It stays whatever the rule.
    restored.set_durability_source(Arc::new(Published(second.sequence)));
    let rule = RetentionRule { all_hours: 0, hourly: 0, daily: 0, weekly: 0 };
    restored.prune(&rule, u64::MAX >> 1).unwrap();
    assert!(restored.snapshots().unwrap().iter().any(|at| at.sequence == lost.complete.sequence));
    let third = attach_at(&second, Some(&lost.complete), &lost.retriever);
    nothing_is_shown(third.vfs(), third.vfs().resolve(b"/moved").unwrap().ino);
    // Emptied it is a file like any other.
    for drive in [&restored, &third] {
        let vfs = drive.vfs();
        truncate(vfs, bad, 0);
        vfs.seek(bad, 0, SeekTo::Data).unwrap_err();
        write(vfs, bad, 3, b"new");
        truncate(vfs, bad, 20_000);
        let commit = drive.seal().unwrap().unwrap();
        assert_eq!(commit.pending, []);
        assert_eq!(drive.complete_commit().unwrap(), Some(commit));
        check(drive);
    }
    let commit = third.latest_commit().unwrap().unwrap();
    publish(&third, &lost.retriever);
    let last = attach_at(&commit, None, &lost.retriever);
    assert_same(&dump(third.vfs()), &dump(last.vfs()), "restored whole");
    let mut content = [9; 20_000];
    last.vfs().read(bad, 0, &mut content).unwrap();
    assert_eq!(&content[..7], b"\0\0\0new\0");
    assert!(content[6..].iter().all(|byte| *byte == 0));
}

struct Published(u64);

impl crate::drive::DurabilitySource for Published {
    fn piece(&self, _: crate::drive::PieceId) -> crate::drive::PieceDurability {
        crate::drive::PieceDurability { holders_counting: 3, proven_at: None }
    }

    fn published_sequence(&self) -> Option<u64> {
        Some(self.0)
    }

    fn shared_blocks(&self) -> Option<Vec<[u8; 32]>> {
        Some(Vec::new())
    }
}

/// Out of reach for a while: a later commit has it whole, without anybody's help.
#[test]
fn what_can_be_had_again_is_sealed_again() {
    let drive = open(&Media::default());
    let big = create(drive.vfs(), ROOT_INO, "big");
    write(drive.vfs(), big, 0, &noise(1, 20 * CHUNK as usize));
    let first = drive.seal().unwrap().unwrap();
    let retriever = Arc::new(FakeRetriever::new());
    publish(&drive, &retriever);
    let restored = attach_at(&first, None, &retriever);
    let vfs = restored.vfs();
    write(vfs, big, 5 * CHUNK + 1, b"partial");
    let row = vfs.rows().live().chunk(big, 5).unwrap().unwrap();
    let block = restored.inner.parts.trees.blocks.clone();
    let want = block.want(holdfast_content::retrieve::Priority::Bulk, Duration::from_secs(1));
    let at = block.locate(&cid_from_digest(CODEC_RAW, &row.digest), want).unwrap().unwrap();
    retriever.set_unreachable(at.piece, true);
    let second = restored.seal().unwrap().unwrap();
    assert_eq!(second.pending, [big]);
    assert_eq!(restored.unsealed_files().unwrap(), 1);
    publish(&restored, &retriever);
    nothing_of(&attach_at(&second, Some(&first), &retriever), big);
    retriever.set_unreachable(at.piece, false);
    let third = restored.seal().unwrap().unwrap();
    assert_eq!(third.pending, []);
    assert_eq!(restored.unsealed_files().unwrap(), 0);
    publish(&restored, &retriever);
    let whole = attach_at(&third, None, &retriever);
    assert_same(&dump(vfs), &dump(whole.vfs()), "whole again");
    check(&restored);
}

fn nothing_of(drive: &Drive, ino: Ino) {
    lacks_data(drive.vfs().read(ino, 0, &mut [0; 10]));
    lacks_data(drive.vfs().read(ino, 19 * CHUNK, &mut [0; 10]));
}

/// Earlier versions listed such files and said nothing in their rows; and of more than a thousand the list does not tell.
#[test]
fn commits_of_earlier_versions_are_believed() {
    let drive = open(&Media::default());
    let vfs = drive.vfs();
    let (bad, good) = (create(vfs, ROOT_INO, "bad"), create(vfs, ROOT_INO, "good"));
    write(vfs, bad, 0, b"of an older age");
    write(vfs, good, 0, b"good");
    let first = drive.seal().unwrap().unwrap();
    let body = drive.read_block(&first.commit.at).unwrap();
    let commit = Commit::decode(&body, &first.commit.key, &keys()).unwrap();
    let commit = Commit { pending: vec![bad], pending_files: 7, sequence: 2, ..commit };
    let encoded = commit.encode(&keys()).unwrap();
    let blocks: [Block; 2] = [encoded.directory.clone(), encoded.body.clone()];
    let (_, at) = drive
        .put_checkpoint_piece(|sink| {
            let mut last = None;
            for block in blocks {
                last = Some(sink.put(block)?);
            }
            Ok(last.unwrap())
        })
        .unwrap();
    let reference: CommitRef = encoded.reference(at);
    let second = CommitInfo { commit: reference, sequence: 2, ..first.clone() };
    let retriever = Arc::new(FakeRetriever::new());
    publish(&drive, &retriever);
    let restored = attach_at(&second, Some(&first), &retriever);
    lacks_data(restored.vfs().read(bad, 0, &mut [0; 10]));
    assert_eq!(restored.latest_commit().unwrap().unwrap().pending, [crate::seal::UNLISTED, bad]);
    // The next commit says so in the row.
    write(restored.vfs(), good, 0, b"better");
    let third = restored.seal().unwrap().unwrap();
    assert_eq!(third.pending, [crate::seal::UNLISTED, bad]);
    publish(&restored, &retriever);
    assert!(says_so_itself(&restored, &third, bad));
    let again = attach_at(&third, Some(&first), &retriever);
    lacks_data(again.vfs().read(bad, 0, &mut [0; 10]));
    truncate(again.vfs(), bad, 0);
    assert_eq!(
        again.seal().unwrap().unwrap().pending,
        [crate::seal::UNLISTED],
        "others are not known by number"
    );
    assert_eq!(again.complete_commit().unwrap().unwrap().sequence, first.sequence);
}
