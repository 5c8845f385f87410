//! What goes with dropped commits, and what must not.

use std::sync::Arc;

use super::cases::Network;
use super::*;
use crate::drive::{DriveError, PieceId};
use crate::retention::rule::RetentionRule;

const NOTHING: RetentionRule = RetentionRule { all_hours: 0, hourly: 0, daily: 0, weekly: 0 };

fn published(drive: &Drive, network: &Network) {
    let pieces = drive.pieces().unwrap();
    network.holders.lock().unwrap().extend(pieces.iter().map(|piece| piece.id));
    *network.published.lock().unwrap() = drive.latest_commit().unwrap().map(|commit| commit.sequence);
}

fn with_network(media: &Media) -> (Drive, Arc<Network>) {
    let drive = open(media);
    let network = Arc::new(Network::default());
    drive.set_durability_source(network.clone());
    (drive, network)
}

/// Pieces with data of this file alone: several of them are full of chunks.
fn big(drive: &Drive, name: &str, seed: u64) -> Ino {
    let ino = create(drive.vfs(), ROOT_INO, name);
    write(drive.vfs(), ino, 0, &noise(seed, 600_000));
    ino
}

#[test]
fn what_only_dropped_commits_reached_is_condemned_and_forgotten() {
    let media = Media::default();
    let (drive, network) = with_network(&media);
    let stays = big(&drive, "stays", 1);
    big(&drive, "goes", 2);
    drive.seal().unwrap();
    drive.vfs().unlink(ROOT_INO, b"goes").unwrap();
    drive.seal().unwrap();
    assert_eq!(drive.prune(&NOTHING, 1 << 40).unwrap().commits, 0, "no head is published");
    published(&drive, &network);
    let before = dump(drive.vfs());
    let total = drive.usage().unwrap().piece_bytes_local;
    let pruned = drive.prune(&NOTHING, 1 << 40).unwrap();
    assert_eq!(pruned.commits, 1);
    assert!(pruned.bytes > 400_000, "{pruned:?} of {total}");
    let condemned = drive.condemned().unwrap();
    assert_eq!(condemned.len() as u64, pruned.pieces);
    assert_eq!(drive.prune(&NOTHING, 1 << 40).unwrap().pieces, 0, "condemned once");
    let kept: Vec<PieceId> = drive.holding(stays).unwrap().pieces.into_keys().collect();
    assert!(kept.iter().all(|id| condemned.iter().all(|gone| gone.piece != *id)));
    assert!(matches!(drive.forget_piece(kept[0]), Err(DriveError::NotEvictable { .. })));
    check(&drive);
    drop(drive);
    let (drive, _) = with_network(&media.killed());
    for gone in drive.condemned().unwrap() {
        drive.forget_piece(gone.piece).unwrap();
        drive.forget_piece(gone.piece).unwrap();
        drive.forgotten(gone.piece).unwrap();
        assert!(drive.piece(gone.piece).unwrap().is_none());
    }
    assert!(drive.usage().unwrap().piece_bytes_local + pruned.bytes == total);
    assert_same(&before, &dump(drive.vfs()), "all that is there");
    // The same content again is written again: what is condemned is never referenced.
    let again = big(&drive, "again", 2);
    seal_and_prove(&drive).unwrap();
    assert!(drive.usage().unwrap().piece_bytes_local > total - pruned.bytes + 400_000);
    assert!(drive.holding(again).unwrap().pieces.keys().all(|id| drive.piece(*id).unwrap().is_some()));
    check(&drive);
}

#[test]
fn names_and_the_published_head_keep_their_commits() {
    let (drive, network) = with_network(&Media::default());
    big(&drive, "goes", 3);
    let first = drive.seal().unwrap().unwrap().sequence;
    let was = dump(drive.vfs());
    drive.vfs().unlink(ROOT_INO, b"goes").unwrap();
    drive.seal().unwrap();
    create(drive.vfs(), ROOT_INO, "x");
    drive.seal().unwrap();
    drive.name_snapshot("kept", first).unwrap();
    published(&drive, &network);
    *network.published.lock().unwrap() = Some(first + 1);
    assert_eq!(drive.prune(&NOTHING, 1 << 40).unwrap().commits, 0, "named, published, newest");
    published(&drive, &network);
    let pruned = drive.prune(&NOTHING, 1 << 40).unwrap();
    assert_eq!(pruned.commits, 1);
    assert_same(&was, &dump(&drive.snapshot_vfs(first).unwrap()), "the named one");
    drive.forget_snapshot_name("kept").unwrap();
    let pruned = drive.prune(&NOTHING, 1 << 40).unwrap();
    assert!(pruned.commits == 1 && pruned.bytes > 400_000, "{pruned:?}");
    assert!(drive.snapshot_vfs(first).is_err());
    check(&drive);
}

/// A file that came back to what a dropped commit had refers to the old blocks before any commit says so.
#[test]
fn rows_that_no_commit_covers_yet_keep_their_blocks() {
    let (drive, network) = with_network(&Media::default());
    let ino = big(&drive, "a", 4);
    drive.seal().unwrap();
    drive.vfs().rename((ROOT_INO, b"a"), (ROOT_INO, b"b"), crate::vfs::RenameMode::Replace).unwrap();
    drive.seal().unwrap();
    published(&drive, &network);
    // A copy shares chunks: its rows are newer than the newest commit, and the original goes.
    let copy = create(drive.vfs(), ROOT_INO, "copy");
    let copied = drive.vfs().copy_file_range(&Caller::root(), (ino, 0), (copy, 0), 600_000).unwrap();
    assert_eq!(copied, 600_000);
    drive.vfs().unlink(ROOT_INO, b"b").unwrap();
    let before = dump(drive.vfs());
    drive.prune(&NOTHING, 1 << 40).unwrap();
    assert_eq!(drive.condemned().unwrap(), []);
    assert_same(&before, &dump(drive.vfs()), "the copy");
    seal_and_prove(&drive).unwrap();
    check(&drive);
}
