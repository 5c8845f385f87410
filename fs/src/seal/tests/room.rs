//! Room under a quota, and what stays whatever the quota says.

use std::collections::BTreeSet;
use std::sync::Arc;

use holdfast_content::retrieve::FakeRetriever;

use super::cases::Network;
use super::*;
use crate::drive::{DriveError, PieceId};
use crate::vfs::{FsError, Room};

const QUOTA: u64 = DriveOptions::QUOTA_BYTES_MIN;
const PART: usize = 1 << 20;

/// Writes until there is no room at once; how many bytes that took.
fn fill(drive: &Drive, ino: Ino, seed: u64) -> u64 {
    let mut at = 0;
    while drive.vfs().room(PART as u64) == Room::Free {
        write(drive.vfs(), ino, at, &noise(seed + at, PART));
        at += PART as u64;
        assert!(at < QUOTA, "more went in than the quota holds");
    }
    at
}

fn everything_is_held(drive: &Drive, network: &Network) -> Vec<PieceId> {
    let pieces = drive.pieces().unwrap();
    network.holders.lock().unwrap().extend(pieces.iter().map(|piece| piece.id));
    *network.published.lock().unwrap() = drive.latest_commit().unwrap().map(|commit| commit.sequence);
    pieces.iter().filter(|piece| piece.local && !piece.checkpoint).map(|piece| piece.id).collect()
}

#[test]
fn a_full_quota_waits_while_it_drains_and_refuses_when_nothing_moves() {
    let drive = open_with(&Media::default(), options().with_quota(QUOTA));
    let vfs = drive.vfs();
    let network = Arc::new(Network::default());
    drive.set_durability_source(network.clone());
    let ino = create(vfs, ROOT_INO, "f");
    let written = fill(&drive, ino, 1);
    assert!(written > QUOTA / 6, "only {written} bytes went in");
    assert_eq!(vfs.room(PART as u64), Room::Waits);
    assert!(drive.pressure().waiting);
    drive.seal().unwrap().unwrap();
    let usage = drive.usage().unwrap();
    assert!(usage.log_bytes < QUOTA / 4, "the log gave back what was sealed: {usage:?}");
    assert!(usage.log_bytes + usage.piece_bytes_local <= QUOTA, "{usage:?}");
    for id in everything_is_held(&drive, &network) {
        drive.evict_piece(id).unwrap();
    }
    // A figure is 100 ms old at most, and a look at the clock takes one.
    assert!((0..200).any(|_| vfs.room(PART as u64) == Room::Free), "evicted pieces made no room");
    assert!(!drive.pressure().waiting);

    let ino = create(vfs, ROOT_INO, "g");
    // Until a figure taken anew shows no room either.
    let mut at = 0;
    while (0..300).any(|_| vfs.room(PART as u64) == Room::Free) {
        write(vfs, ino, at, &noise((1 << 40) + at, PART));
        at += PART as u64;
        assert!(at < QUOTA, "more went in than the quota holds");
    }
    let stalled = (0..200_000).find(|_| vfs.room(PART as u64) == Room::Stalled);
    assert!(stalled.is_some_and(|looks| looks > 10_000), "it gave up after {stalled:?} looks");
    let refused = vfs.write(ino, at, &noise(1 << 50, PART), WriteMode::default());
    assert!(matches!(refused, Err(FsError::NoSpace)), "{refused:?}");
    // What the kernel accepted from a program is let in all the same.
    let accepted = WriteMode { from_cache: true, ..WriteMode::default() };
    assert_eq!(vfs.write(ino, 0, b"late", accepted).unwrap(), 4);
    network.sent.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    assert!((0..300).any(|_| vfs.room(PART as u64) == Room::Waits), "a provider took something");
}

#[test]
fn what_is_pinned_stays_and_what_went_comes_back_verified() {
    let drive = open(&Media::default());
    let vfs = drive.vfs();
    let network = Arc::new(Network::default());
    drive.set_durability_source(network.clone());
    let dir = mkdir(vfs, ROOT_INO, "keep");
    let ino = create(vfs, dir, "f");
    write(vfs, ino, 0, &noise(5, 300_000));
    drive.seal().unwrap();
    let other = create(vfs, ROOT_INO, "other");
    write(vfs, other, 0, &noise(6, 300_000));
    assert_eq!(drive.holding(other).unwrap().staged_files, 1);
    drive.seal().unwrap();
    let before = dump(vfs);
    let mut bytes = std::collections::HashMap::new();
    for piece in drive.pieces().unwrap() {
        let file = drive.open_piece(piece.id).unwrap();
        let mut all = vec![0; file.len() as usize];
        file.read_at(0, &mut all).unwrap();
        bytes.insert(piece.id, all);
    }
    let held = everything_is_held(&drive, &network);
    drive.pin(dir, "/keep").unwrap();
    let kept: BTreeSet<PieceId> = drive.holding(dir).unwrap().pieces.into_keys().collect();
    assert!(!kept.is_empty() && drive.holding(other).unwrap().pieces.keys().all(|id| !kept.contains(id)));
    for id in &held {
        let evicted = drive.evict_piece(*id);
        assert_eq!(evicted.is_err(), kept.contains(id), "{evicted:?}");
    }
    assert_eq!(drive.pins().unwrap()[0].path, "/keep");
    assert!(drive.unpin(dir).unwrap() && !drive.unpin(dir).unwrap());
    for id in &kept {
        drive.evict_piece(*id).unwrap();
    }
    for id in &held {
        let all = &bytes[id];
        let mut spoiled = all.clone();
        let middle = spoiled.len() / 2;
        spoiled[middle] ^= 1;
        let read = |from: &[u8], at: u64, buf: &mut [u8]| {
            buf.copy_from_slice(&from[at as usize..at as usize + buf.len()]);
            Ok(())
        };
        let lied = drive.bring_back(*id, all.len() as u64, |at, buf| read(&spoiled, at, buf));
        assert!(matches!(lied, Err(DriveError::Damaged { .. })), "{lied:?}");
        assert!(!drive.piece(*id).unwrap().unwrap().local);
        drive.bring_back(*id, all.len() as u64, |at, buf| read(all, at, buf)).unwrap();
    }
    assert_same(&before, &dump(vfs), "after all came back");
    check(&drive);
}

#[test]
fn a_restored_drive_takes_pieces_that_it_never_had() {
    let drive = open(&Media::default());
    let ino = create(drive.vfs(), ROOT_INO, "f");
    write(drive.vfs(), ino, 0, &noise(7, 200_000));
    let commit = drive.seal().unwrap().unwrap();
    let retriever = FakeRetriever::new();
    publish(&drive, &retriever);
    let before = dump(drive.vfs());
    let restored = attach(&Media::default(), &commit, Arc::new(retriever));
    let ids: Vec<PieceId> = restored.holding(ino).unwrap().pieces.into_keys().collect();
    assert!(!ids.is_empty());
    for id in ids {
        let file = drive.open_piece(id).unwrap();
        restored.bring_back(id, file.len(), |at, buf| file.read_at(at, buf)).unwrap();
        assert!(restored.piece(id).unwrap().unwrap().local);
    }
    assert_same(&before, &dump(restored.vfs()), "from pieces that came whole");
    check(&restored);
}
