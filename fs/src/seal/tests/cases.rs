//! One case each of what a seal has to get right.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use holdfast_content::retrieve::FakeRetriever;
use holdfast_store::{Reads, StorageMedium, Table};

use super::*;
use crate::drive::error::hex;
use crate::drive::scan;
use crate::drive::{DriveError, Durability, DurabilitySource, PieceDurability, PieceId};
use crate::vfs::{AllocateMode, RenameMode, SetMode};

#[test]
fn a_new_drive_and_a_quiet_one() {
    let media = Media::default();
    let drive = open(&media);
    assert!(drive.dirty().unwrap().is_dirty(), "the root is new");
    let first = seal_and_prove(&drive).expect("a commit of the root");
    assert_eq!(first.sequence, 1);
    assert!(!drive.dirty().unwrap().is_dirty());
    assert_eq!(drive.seal().unwrap(), None, "nothing changed");
    // Made and unmade: marks, but no difference.
    create(drive.vfs(), ROOT_INO, "x");
    drive.vfs().unlink(ROOT_INO, b"x").unwrap();
    let pieces = drive.pieces().unwrap().len();
    seal_and_prove(&drive);
    seal_and_prove(&drive);
    assert_eq!(drive.seal().unwrap(), None);
    assert!(drive.pieces().unwrap().len() <= pieces + 1);
    assert!(!drive.dirty().unwrap().is_dirty());
}

#[test]
fn files_of_all_sizes() {
    let drive = open(&Media::default());
    let vfs = drive.vfs();
    for (n, len) in
        [0, 1, 100, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK, 200 * CHUNK + 77].into_iter().enumerate()
    {
        let ino = create(vfs, ROOT_INO, &format!("file {n}"));
        write_all(vfs, ino, &noise(n as u64, len as usize));
    }
    let dir = mkdir(vfs, ROOT_INO, "folder");
    let ino = create(vfs, dir, "within");
    write(vfs, ino, 0, b"hello");
    vfs.symlink(&Caller::root(), dir, b"link", b"../file 1").unwrap();
    vfs.link(ino, ROOT_INO, b"second name").unwrap();
    vfs.setxattr(&Caller::root(), ino, b"user.colour", b"green", SetMode::Either).unwrap();
    seal_and_prove(&drive).unwrap();
    let usage = drive.usage().unwrap();
    assert_eq!(usage.staged_bytes, 0, "the log holds no payload that a chunk replaces: {usage:?}");
    assert_eq!(drive.seal().unwrap(), None);
}

fn write_all(vfs: &Vfs, ino: Ino, data: &[u8]) {
    for (n, part) in data.chunks(100_000).enumerate() {
        write(vfs, ino, n as u64 * 100_000, part);
    }
}

#[test]
fn a_small_change_costs_little() {
    let drive = open(&Media::default());
    let vfs = drive.vfs();
    let ino = create(vfs, ROOT_INO, "big");
    write_all(vfs, ino, &noise(1, 400 * CHUNK as usize));
    for n in 0..300 {
        write(vfs, create(vfs, ROOT_INO, &format!("small {n}")), 0, &noise(n, 50));
    }
    seal_and_prove(&drive).unwrap();
    let before = drive.usage().unwrap().piece_bytes_total;
    write(vfs, ino, 123 * CHUNK + 5, b"patched");
    seal_and_prove(&drive).unwrap();
    let cost = drive.usage().unwrap().piece_bytes_total - before;
    assert!(cost < 120_000, "{cost} bytes for seven");
}

#[test]
fn overwriting_truncating_and_punching_sealed_files() {
    let drive = open(&Media::default());
    let vfs = drive.vfs();
    let ino = create(vfs, ROOT_INO, "f");
    write_all(vfs, ino, &noise(1, 10 * CHUNK as usize + 100));
    seal_and_prove(&drive).unwrap();
    write(vfs, ino, CHUNK + 10, b"across a chunk's middle");
    write(vfs, ino, 3 * CHUNK - 2, b"over an edge");
    seal_and_prove(&drive).unwrap();
    truncate(vfs, ino, 5 * CHUNK + 7);
    seal_and_prove(&drive).unwrap();
    truncate(vfs, ino, 8 * CHUNK);
    seal_and_prove(&drive).unwrap();
    vfs.fallocate(&Caller::root(), ino, CHUNK + 1, 2 * CHUNK, AllocateMode::Punch).unwrap();
    seal_and_prove(&drive).unwrap();
    truncate(vfs, ino, 1);
    seal_and_prove(&drive).unwrap();
    truncate(vfs, ino, 0);
    seal_and_prove(&drive).unwrap();
    write(vfs, ino, 20 * CHUNK, b"far out");
    seal_and_prove(&drive).unwrap();
    assert_eq!(count(&drive, Table::Extent), 0, "nothing of it is left in the log");
    assert_eq!(count(&drive, Table::Chunk), 1);
}

fn count(drive: &Drive, table: Table) -> usize {
    scan::range(drive.store(), table, &[], &[0xff; 33], 1_000_000).unwrap().len()
}

#[test]
fn sparse_and_huge_files() {
    let drive = open(&Media::default());
    let vfs = drive.vfs();
    let ino = create(vfs, ROOT_INO, "sparse");
    write(vfs, ino, 1 << 40, b"at a terabyte");
    write(vfs, ino, 12 * CHUNK, &noise(4, 3 * CHUNK as usize));
    drive.seal().unwrap().unwrap();
    check(&drive);
    vfs.fallocate(&Caller::root(), ino, 0, 1 << 39, AllocateMode::Punch).unwrap();
    write(vfs, ino, 5, b"x");
    drive.seal().unwrap().unwrap();
    check(&drive);
    let mut buf = [1; 20];
    assert_eq!(vfs.read(ino, 1 << 40, &mut buf).unwrap(), 13);
    assert_eq!(&buf[..13], b"at a terabyte");
    vfs.read(ino, 12 * CHUNK, &mut buf).unwrap();
    assert_eq!(buf, [0; 20]);
    truncate(vfs, ino, 100);
    seal_and_prove(&drive).unwrap();
    assert_eq!(count(&drive, Table::Chunk), 1);
    assert_eq!(count(&drive, Table::Dag), 0);
}

#[test]
fn equal_chunks_are_one_block() {
    let drive = open(&Media::default());
    let vfs = drive.vfs();
    let data = noise(7, 5 * CHUNK as usize);
    for name in ["a", "b"] {
        write_all(vfs, create(vfs, ROOT_INO, name), &data);
    }
    seal_and_prove(&drive).unwrap();
    let size = drive.usage().unwrap().piece_bytes_total;
    write_all(vfs, create(vfs, ROOT_INO, "c"), &data);
    seal_and_prove(&drive).unwrap();
    assert!(
        drive.usage().unwrap().piece_bytes_total - size < 3 * CHUNK,
        "the third copy costs its names only"
    );
}

#[test]
fn an_unlinked_open_file_is_in_no_commit() {
    let drive = open(&Media::default());
    let vfs = drive.vfs();
    let ino = create(vfs, ROOT_INO, "going");
    write_all(vfs, ino, &noise(1, 3 * CHUNK as usize));
    seal_and_prove(&drive).unwrap();
    vfs.open_file(ino).unwrap();
    vfs.unlink(ROOT_INO, b"going").unwrap();
    write(vfs, ino, 10, b"still written");
    seal_and_prove(&drive).unwrap();
    let mut buf = [0; 13];
    vfs.read(ino, 10, &mut buf).unwrap();
    assert_eq!(&buf, b"still written");
    vfs.release_file(ino).unwrap();
    vfs.reclaim(1_000_000).unwrap();
    seal_and_prove(&drive);
    assert_eq!(count(&drive, Table::Chunk), 0);
}

#[test]
fn many_files_in_rounds_and_a_folder_that_goes() {
    let drive = open(&Media::default());
    let vfs = drive.vfs();
    let dir = mkdir(vfs, ROOT_INO, "d");
    for n in 0..2000 {
        let ino = create(vfs, dir, &format!("{n}"));
        write(vfs, ino, 0, format!("content of {n}").as_bytes());
    }
    seal_and_prove(&drive).unwrap();
    vfs.rename((dir, b"7"), (ROOT_INO, b"kept"), RenameMode::Replace).unwrap();
    for n in (0..2000).filter(|n| *n != 7) {
        vfs.unlink(dir, format!("{n}").as_bytes()).unwrap();
    }
    vfs.rmdir(ROOT_INO, b"d").unwrap();
    vfs.reclaim(1_000_000).unwrap();
    let commit = seal_and_prove(&drive).unwrap();
    assert_eq!(commit.sequence, 2);
    assert_eq!(dump(vfs).len(), 2);
}

/// A writer changes `a`, then `b`, always to the same number: every commit shows `a == b` or `a == b + 1`.
#[test]
fn a_commit_is_one_moment_of_a_busy_drive() {
    let drive = open(&Media::default());
    let vfs = drive.vfs().clone();
    let (a, b) = (create(&vfs, ROOT_INO, "a"), create(&vfs, ROOT_INO, "b"));
    let bulk = create(&vfs, ROOT_INO, "bulk");
    for ino in [a, b] {
        write(&vfs, ino, CHUNK / 2, &0u64.to_le_bytes());
    }
    let stop = Arc::new(AtomicBool::new(false));
    let writer = std::thread::spawn({
        let (vfs, stop) = (vfs.clone(), stop.clone());
        move || {
            let mut n = 1u64;
            while !stop.load(Ordering::Relaxed) {
                write(&vfs, a, CHUNK / 2, &n.to_le_bytes());
                write(&vfs, b, CHUNK / 2, &n.to_le_bytes());
                write(&vfs, bulk, n % 50 * 1000, &n.to_le_bytes().repeat(100));
                if n.is_multiple_of(64) {
                    truncate(&vfs, bulk, n % 7000);
                }
                n += 1;
            }
        }
    });
    let mut commits = Vec::new();
    while commits.len() < 12 {
        commits.extend(drive.seal().unwrap());
    }
    stop.store(true, Ordering::Relaxed);
    writer.join().unwrap();
    check(&drive);
    let retriever = Arc::new(FakeRetriever::new());
    publish(&drive, &retriever);
    for commit in &commits {
        let restored = attach(&Media::default(), commit, retriever.clone());
        let number = |ino| {
            let mut buf = [0; 8];
            restored.vfs().read(ino, CHUNK / 2, &mut buf).unwrap();
            u64::from_le_bytes(buf)
        };
        let (a, b) = (number(a), number(b));
        assert!(a == b || a == b + 1, "{a} and {b}");
    }
    seal_and_prove(&drive);
}

pub(super) struct Network {
    pub(super) published: std::sync::Mutex<Option<u64>>,
    pub(super) holders: std::sync::Mutex<BTreeSet<PieceId>>,
    pub(super) sent: std::sync::atomic::AtomicU64,
    pub(super) shared: std::sync::Mutex<Option<Vec<[u8; 32]>>>,
}

impl Default for Network {
    fn default() -> Self {
        Self {
            published: Default::default(),
            holders: Default::default(),
            sent: Default::default(),
            shared: std::sync::Mutex::new(Some(Vec::new())),
        }
    }
}

impl DurabilitySource for Network {
    fn piece(&self, piece: PieceId) -> PieceDurability {
        let held = self.holders.lock().unwrap().contains(&piece);
        PieceDurability {
            holders_counting: if held { 3 } else { 0 },
            proven_at: held.then_some(1_700_000_000),
        }
    }

    fn published_sequence(&self) -> Option<u64> {
        *self.published.lock().unwrap()
    }

    fn shared_blocks(&self) -> Option<Vec<[u8; 32]>> {
        self.shared.lock().unwrap().clone()
    }

    fn sent_bytes(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }
}

#[test]
fn the_ladder_and_eviction() {
    let media = Media::default();
    let drive = open(&media);
    let vfs = drive.vfs();
    let dir = mkdir(vfs, ROOT_INO, "d");
    let ino = create(vfs, dir, "f");
    write_all(vfs, ino, &noise(3, 3 * CHUNK as usize));
    assert_eq!(drive.durability("/d/f").unwrap(), Durability::Staged);
    drive.seal().unwrap();
    assert_eq!(drive.durability("/d/f").unwrap(), Durability::Packed);
    let ids: Vec<PieceId> = drive.pieces().unwrap().iter().map(|piece| piece.id).collect();
    let refused = |id| matches!(drive.evict_piece(id), Err(DriveError::NotEvictable { .. }));
    assert!(refused(ids[0]), "nobody knows who holds it");
    let network = Arc::new(Network::default());
    drive.set_durability_source(network.clone());
    network.holders.lock().unwrap().extend(&ids);
    assert_eq!(drive.durability("/").unwrap(), Durability::Packed, "no head names the commit");
    assert!(refused(ids[0]), "no head names the commit");
    *network.published.lock().unwrap() = Some(1);
    assert_eq!(drive.durability("/").unwrap(), Durability::Proven { survives: 2, at: 1_700_000_000 });
    assert_eq!(vfs.getxattr(ino, b"user.holdfast.durability").unwrap(), "proven survives=2 at=1700000000");
    write(vfs, ino, 0, b"!");
    assert_eq!(drive.durability("/d").unwrap(), Durability::Staged);
    drive.seal().unwrap();
    assert_eq!(drive.durability("/d").unwrap(), Durability::Packed);
    let reading = drive.open_piece(ids[0]).unwrap();
    assert!(refused(ids[0]), "it is being read");
    drop(reading);
    let before = dump(vfs);
    let retriever = FakeRetriever::new();
    publish(&drive, &retriever);
    drive.evict_piece(ids[0]).unwrap();
    assert!(!drive.piece(ids[0]).unwrap().unwrap().local);
    assert!(matches!(drive.open_piece(ids[0]), Err(DriveError::NotLocal(_))));
    check(&drive);
    drop(drive);
    let home = media.killed().home();
    let drive =
        Drive::open_on(home, keys(), store_keys(), options(), vfs_options(), Arc::new(retriever), ambient())
            .unwrap();
    assert_same(&before, &dump(drive.vfs()), "evicted pieces are read from the network");
    write(drive.vfs(), ino, 1, b"?");
    seal_and_prove_remote(&drive);
}

fn seal_and_prove_remote(drive: &Drive) {
    let before = dump(drive.vfs());
    drive.seal().unwrap().unwrap();
    assert_same(&before, &dump(drive.vfs()), "a seal over evicted pieces");
    check(drive);
}

/// The disk lost or spoiled pieces: who writes the same content again writes it anew, and must not be given what is no longer there.
#[test]
fn what_the_disk_lost_is_written_anew_and_not_referred_to() {
    const LEN: usize = 290_000;
    for rotten in [false, true] {
        let media = Media::default();
        let drive = open(&media);
        let first = create(drive.vfs(), ROOT_INO, "first");
        write_all(drive.vfs(), first, &noise(1, LEN));
        drive.seal().unwrap();
        // The last one holds nodes of the trees, too.
        let pieces = drive.holding(first).unwrap().pieces;
        let lost: Vec<PieceId> =
            pieces.into_iter().filter(|(_, bytes)| *bytes > 55_000).map(|(id, _)| id).collect();
        assert!(lost.len() >= 3, "{lost:?}");
        drop(drive);
        let media = media.killed();
        for id in &lost {
            let name = format!("{}.car", crate::drive::error::hex(id));
            if rotten {
                let file = holdfast_store::StorageMedium::open(&media.pieces, &name).unwrap();
                let len = file.len().unwrap();
                (200..len)
                    .step_by(1_000)
                    .for_each(|at| assert_eq!(file.write_at(&[0x5a; 8], at).unwrap(), 8));
            } else {
                holdfast_store::StorageMedium::remove(&media.pieces, &name).unwrap();
            }
        }
        let drive = open(&media);
        let vfs = drive.vfs();
        let mut buf = vec![0; LEN];
        assert!(vfs.read(first, 0, &mut buf).is_err(), "nothing was lost");
        let second = create(vfs, ROOT_INO, "second");
        write_all(vfs, second, &noise(1, LEN));
        let commit = drive.seal().unwrap().unwrap();
        drop(drive);
        let drive = open(&media.killed());
        // Equal chunks are one block: the first file is whole again, too.
        for ino in [first, second] {
            assert_eq!(drive.vfs().read(ino, 0, &mut buf).unwrap(), buf.len());
            assert!(buf == noise(1, LEN));
        }
        let retriever = Arc::new(FakeRetriever::new());
        publish_except(&drive, &retriever, &lost);
        let restored = attach(&Media::default(), &commit, retriever);
        assert_eq!(restored.vfs().read(second, 0, &mut buf).unwrap(), buf.len());
        assert!(buf == noise(1, LEN));
    }
}

fn publish_except(drive: &Drive, retriever: &FakeRetriever, lost: &[PieceId]) {
    for piece in drive.pieces().unwrap().iter().filter(|piece| !lost.contains(&piece.id)) {
        let file = drive.open_piece(piece.id).unwrap();
        let mut bytes = vec![0; file.len() as usize];
        file.read_at(0, &mut bytes).unwrap();
        retriever.insert_piece(piece.id, bytes);
    }
}

/// A bad sector under one file keeps that file out of the commits, and no other.
#[test]
fn a_payload_that_cannot_be_read_holds_up_its_file_alone() {
    let media = Media::default();
    let drive = open(&media);
    let vfs = drive.vfs();
    let (bad, good) = (create(vfs, ROOT_INO, "bad"), create(vfs, ROOT_INO, "good"));
    let before = media.log.contents();
    write(vfs, bad, 0, &noise(1, 100_000));
    let after = media.log.contents();
    let (name, bytes) = after
        .iter()
        .find(|(name, bytes)| name.starts_with("data-") && before.get(*name) != Some(*bytes))
        .unwrap();
    let at = bytes.len() - 500;
    let file = holdfast_store::StorageMedium::open(&media.log, name).unwrap();
    file.write_at(&[!bytes[at]], at as u64).unwrap();
    write(vfs, good, 0, &noise(2, 100_000));
    let commit = drive.seal().unwrap().unwrap();
    assert_eq!(commit.pending, [bad]);
    let retriever = Arc::new(FakeRetriever::new());
    publish(&drive, &retriever);
    let restored = attach(&Media::default(), &commit, retriever);
    let mut buf = vec![0; 100_000];
    assert_eq!(restored.vfs().read(good, 0, &mut buf).unwrap(), buf.len());
    assert!(buf == noise(2, 100_000));
    // Written anew, it is like any other.
    write(vfs, bad, 0, &noise(3, 100_000));
    assert_eq!(seal_and_prove(&drive).unwrap().pending, []);
}

#[test]
fn a_spoiled_piece_is_noticed_and_healed() {
    let media = Media::default();
    let drive = open(&media);
    let ino = create(drive.vfs(), ROOT_INO, "f");
    write_all(drive.vfs(), ino, &noise(3, 3 * CHUNK as usize));
    drive.seal().unwrap();
    let id = drive.pieces().unwrap()[0].id;
    drive.check_piece(id).unwrap();
    let name = media.pieces.list().unwrap().into_iter().find(|name| name.starts_with(&hex(&id))).unwrap();
    let good = media.pieces.contents()[&name].clone();
    let old = media.pieces.open(&name).unwrap();
    for at in [0, 30, good.len() / 2, good.len() - 1] {
        let file = media.pieces.open(&name).unwrap();
        file.write_at(&[good[at] ^ 1], at as u64).unwrap();
        assert!(matches!(drive.check_piece(id), Err(DriveError::Damaged { .. })), "byte {at}");
        let mut wrong = good.clone();
        wrong[at] ^= 2;
        assert!(drive.heal_piece(id, &mut &wrong[..]).is_err(), "byte {at}");
        assert!(drive.heal_piece(id, &mut &good[..good.len() - 1]).is_err(), "cut short");
        assert!(drive.heal_piece(id, &mut &[&good[..], b"x"].concat()[..]).is_err(), "longer");
        drive.heal_piece(id, &mut &good[..]).unwrap();
        drive.check_piece(id).unwrap();
        let file = media.pieces.open(&name).unwrap();
        file.write_at(&[good[at] ^ 1], at as u64).unwrap();
        assert!(drive.check_piece(id).is_err(), "the healed file is the one that is read");
        drive.heal_piece(id, &mut &good[..]).unwrap();
    }
    // What was healed is on the disk.
    assert!(media.power_cut(7).pieces.contents()[&name] == good);
    old.set_len(5).unwrap();
    drive.check_piece(id).unwrap();
    check(&drive);
}

#[test]
fn checkpoint_pieces() {
    let drive = open(&Media::default());
    let block = holdfast_content::block::Block::raw(noise(1, 1000)).unwrap();
    let cid = *block.cid();
    let (info, at) = drive.put_checkpoint_piece(|sink| Ok(sink.put(block)?)).unwrap();
    assert!(info.checkpoint && info.local && info.id == at.piece);
    assert_eq!(drive.read_block(&at).unwrap().cid(), &cid);
    seal_and_prove(&drive).unwrap();
    assert!(drive.commits_after(0).unwrap()[0].new_pieces.iter().all(|id| *id != info.id));
    drive.drop_checkpoint_piece(info.id).unwrap();
    assert!(drive.piece(info.id).unwrap().is_none());
    check(&drive);
    assert!(drive.store().get(Table::Block, &[0; 32]).unwrap().is_none());
}

#[test]
fn jobs_survive() {
    let media = Media::default();
    let drive = open(&media);
    let jobs = drive.jobs();
    jobs.commit(&[(b"p/1".to_vec(), Some(b"one".to_vec())), (b"p/2".to_vec(), Some(b"two".to_vec()))])
        .unwrap();
    jobs.commit(&[(b"p/1".to_vec(), None), (b"q".to_vec(), Some(b"three".to_vec()))]).unwrap();
    let drive = open(&media.power_cut(3));
    assert_eq!(drive.jobs().scan(b"p/").unwrap(), vec![(b"p/2".to_vec(), "two".into())]);
    assert_eq!(drive.jobs().get(b"q").unwrap(), Some("three".into()));
}

/// Whose data fills four pieces and more: what is read in order, or ahead, lies with several providers once pieces are slots of stripes.
#[test]
fn large_files_lie_side_by_side_in_pieces() {
    let drive = open_with(&Media::default(), DriveOptions { piece_bytes_max: 16 * CHUNK, ..options() });
    let vfs = drive.vfs();
    let (small, large) = (create(vfs, ROOT_INO, "small"), create(vfs, ROOT_INO, "large"));
    write_all(vfs, small, &noise(1, 60 * CHUNK as usize));
    write_all(vfs, large, &noise(2, 135 * CHUNK as usize));
    seal_and_prove(&drive).unwrap();
    let piece_of = |ino, n: u64| -> PieceId {
        let chunk = drive.store().get(Table::Chunk, &keys_of_chunk(ino, n)).unwrap().unwrap();
        let chunk = crate::rows::ChunkRow::decode(&chunk).unwrap();
        let block = drive.store().get(Table::Block, &chunk.digest).unwrap().unwrap();
        crate::pieces::rows::BlockRow::decode(&block).unwrap().piece
    };
    let apart = |ino, from: u64| (from..from + 4).map(|n| piece_of(ino, n)).collect::<BTreeSet<_>>().len();
    assert!((0..120).all(|n| apart(large, n) >= 4), "four chunks in a row lie in four pieces");
    assert!((128..131).all(|n| apart(large, n) <= 2), "the rest lies in order");
    assert!((0..56).all(|n| apart(small, n) <= 2), "as small files do");
    // What changes later is not spread out.
    write(vfs, large, 10 * CHUNK, &noise(3, 8 * CHUNK as usize));
    seal_and_prove(&drive).unwrap();
    assert!((10..14).all(|n| apart(large, n) <= 2));
}

fn keys_of_chunk(ino: Ino, n: u64) -> Vec<u8> {
    crate::rows::keys::chunk(ino, n).to_vec()
}
