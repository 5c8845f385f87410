//! What goes with dropped commits, and what must not.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, OnceLock};

use super::cases::Network;
use super::*;
use crate::drive::{DriveError, PieceId};
use crate::retention::Pruned;
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

/// A link shows what no kept commit reaches any more.
#[test]
fn what_links_show_stays_as_long_as_they_do() {
    let (drive, network) = with_network(&Media::default());
    let shown = big(&drive, "shown", 1);
    big(&drive, "other", 2);
    drive.seal().unwrap();
    let blocks = |ino| {
        let rows = drive.vfs().rows().live();
        (0..).map_while(|n| Some(rows.chunk(ino, n).unwrap()?.digest)).collect::<Vec<[u8; 32]>>()
    };
    let of_shown = blocks(shown);
    assert!(of_shown.len() > 20);
    *network.shared.lock().unwrap() = None;
    for name in ["shown", "other"] {
        drive.vfs().unlink(ROOT_INO, name.as_bytes()).unwrap();
    }
    drive.seal().unwrap();
    published(&drive, &network);
    let pruned = drive.prune(&NOTHING, 1 << 40).unwrap();
    assert_eq!((pruned.commits, pruned.pieces), (1, 0), "what links show is not known");
    *network.shared.lock().unwrap() = Some(of_shown.clone());
    let pruned = drive.prune(&NOTHING, 1 << 40).unwrap();
    assert!(pruned.bytes > 400_000 && pruned.bytes < 900_000, "{pruned:?}");
    let there = |digests: &[[u8; 32]]| {
        digests.iter().filter(|digest| drive.locate_chunk(digest).unwrap().is_some()).count()
    };
    assert_eq!(there(&of_shown), of_shown.len());
    *network.shared.lock().unwrap() = Some(Vec::new());
    let pruned = drive.prune(&NOTHING, 1 << 40).unwrap();
    assert!(pruned.bytes > 400_000, "{pruned:?}");
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

/// Pieces are mostly dead: what lives in them goes into new ones, and they go whole once a head is there that does not need them.
#[test]
fn what_lives_in_mostly_dead_pieces_is_moved_and_then_they_go() {
    let (media, images) = (Media::default(), Arc::new(Mutex::new(Vec::new())));
    let hook = {
        let (media, images) = (media.clone(), images.clone());
        Edges::with_hook(Arc::new(move |name| images.lock().unwrap().push((name, media.killed()))))
    };
    let options = || DriveOptions { compact_gain_bytes_min: 50_000, ..options() };
    let drive = open_with(&media, DriveOptions { edges: hook, ..options() });
    let network = Arc::new(Network::default());
    drive.set_durability_source(network.clone());
    // Small and large alternate, so that each piece holds of both.
    for n in 0..60 {
        write(drive.vfs(), create(drive.vfs(), ROOT_INO, &format!("stays{n}")), 0, &noise(n, 2_000));
        write(drive.vfs(), create(drive.vfs(), ROOT_INO, &format!("goes{n}")), 0, &noise(1000 + n, 12_000));
    }
    drive.seal().unwrap();
    let old: BTreeSet<PieceId> = drive.pieces().unwrap().iter().map(|piece| piece.id).collect();
    for n in 0..60 {
        drive.vfs().unlink(ROOT_INO, format!("goes{n}").as_bytes()).unwrap();
    }
    let kept = drive.seal().unwrap().unwrap().sequence;
    drive.name_snapshot("kept", kept).unwrap();
    published(&drive, &network);
    let before = dump(drive.vfs());
    let total = drive.usage().unwrap().piece_bytes_total;
    images.lock().unwrap().clear();
    let pruned = drive.prune(&NOTHING, 1 << 40).unwrap();
    // Pieces of large files alone went at once.
    let whole = drive.condemned().unwrap();
    assert!(pruned.moved_bytes > 100_000 && pruned.moved_bytes < 400_000, "{pruned:?} of {total}");
    check(&drive);
    assert_eq!(drive.prune(&NOTHING, 1 << 40).unwrap().moved_bytes, 0, "what was moved is not published yet");
    assert_eq!(drive.condemned().unwrap(), whole, "the published head needs the others still");
    published(&drive, &network);
    let pruned = drive.prune(&NOTHING, 1 << 40).unwrap();
    assert!(pruned.bytes > total / 2, "{pruned:?} of {total}");
    let latest = drive.latest_commit().unwrap().unwrap();
    for gone in drive.condemned().unwrap() {
        assert!(old.contains(&gone.piece) || gone.sequence <= latest.sequence);
        drive.forget_piece(gone.piece).unwrap();
        drive.forgotten(gone.piece).unwrap();
    }
    assert!(drive.usage().unwrap().piece_bytes_local < total / 2, "{:?} of {total}", drive.usage());
    assert_same(&before, &dump(drive.vfs()), "what lives");
    assert_same(&before, &dump(&drive.snapshot_vfs(kept).unwrap()), "a kept snapshot");
    assert_eq!(drive.prune(&NOTHING, 1 << 40).unwrap(), Pruned::default(), "nothing more to do");
    check(&drive);
    // The words alone give it back, from what is left.
    let retriever = Arc::new(FakeRetriever::new());
    publish(&drive, &retriever);
    let restored = attach(&Media::default(), &latest, retriever);
    assert_same(&before, &dump(restored.vfs()), "restored");
    check(&restored);
    // Whatever goes on from here finds what it refers to.
    for n in 0..60 {
        write(drive.vfs(), create(drive.vfs(), ROOT_INO, &format!("again{n}")), 0, &noise(1000 + n, 12_000));
    }
    seal_and_prove(&drive).unwrap();
    let images = std::mem::take(&mut *images.lock().unwrap());
    let mut met = BTreeSet::new();
    for (nth, (edge, image)) in images.iter().enumerate() {
        met.insert(*edge);
        let drive = open_with(image, options());
        let network = Arc::new(Network::default());
        drive.set_durability_source(network.clone());
        let why = format!("crash {nth} at {edge}");
        // What came after is the last step's: "again".
        let now = dump(drive.vfs());
        for (path, seen) in before.iter().filter(|(path, _)| path.starts_with("/stays")) {
            assert!(now.get(path) == Some(seen), "{why}: {path}");
        }
        check(&drive);
        seal_and_prove(&drive);
        published(&drive, &network);
        drive.prune(&NOTHING, 1 << 40).unwrap();
        published(&drive, &network);
        drive.prune(&NOTHING, 1 << 40).unwrap();
        for gone in drive.condemned().unwrap() {
            drive.forget_piece(gone.piece).unwrap();
            drive.forgotten(gone.piece).unwrap();
        }
        assert_same(&now, &dump(drive.vfs()), &why);
        check(&drive);
        seal_and_prove(&drive);
    }
    for edge in [
        "prune.commits.after",
        "compact.blocks.after",
        "compact.commit.after",
        "condemn.after",
        "forget.row.after",
    ] {
        assert!(met.contains(edge), "{edge} was never reached");
    }
}

/// A deleted file that somebody has open reads on, though no commit has it any more.
#[test]
fn an_open_deleted_file_keeps_its_blocks() {
    let (drive, network) = with_network(&Media::default());
    let ino = big(&drive, "a", 5);
    drive.seal().unwrap();
    drive.vfs().open_file(ino).unwrap();
    drive.vfs().unlink(ROOT_INO, b"a").unwrap();
    drive.seal().unwrap();
    published(&drive, &network);
    let pruned = drive.prune(&NOTHING, 1 << 40).unwrap();
    assert!(pruned.commits == 1 && pruned.bytes < 100_000, "more than nodes: {pruned:?}");
    let mut bytes = vec![0; 600_000];
    assert_eq!(drive.vfs().read(ino, 0, &mut bytes).unwrap(), bytes.len());
    assert!(bytes == noise(5, 600_000));
}

/// The chunks of a deleted file get another name, and the file is closed, in the middle of a look.
#[test]
fn what_is_copied_out_of_a_deleted_file_during_a_look_keeps_its_blocks() {
    let moving: Arc<OnceLock<(Arc<Vfs>, Ino, Ino)>> = Arc::default();
    let hook = {
        let moving = moving.clone();
        Edges::with_hook(Arc::new(move |name| {
            if name == "prune.orphans.after"
                && let Some((vfs, from, to)) = moving.get()
            {
                let copied = vfs.copy_file_range(&Caller::root(), (*from, 0), (*to, 0), 600_000).unwrap();
                assert_eq!(copied, 600_000);
                vfs.release_file(*from).unwrap();
                while vfs.reclaim(1 << 20).unwrap() {}
            }
        }))
    };
    let drive = open_with(&Media::default(), with_edges(hook));
    let network = Arc::new(Network::default());
    drive.set_durability_source(network.clone());
    let (ino, copy) = (big(&drive, "a", 6), create(drive.vfs(), ROOT_INO, "copy"));
    drive.seal().unwrap();
    drive.vfs().open_file(ino).unwrap();
    drive.vfs().unlink(ROOT_INO, b"a").unwrap();
    drive.seal().unwrap();
    published(&drive, &network);
    assert!(moving.set((drive.vfs().clone(), ino, copy)).is_ok());
    assert_eq!(drive.prune(&NOTHING, 1 << 40).unwrap().commits, 1);
    let mut bytes = vec![0; 600_000];
    assert_eq!(drive.vfs().read(copy, 0, &mut bytes).unwrap(), bytes.len());
    assert!(bytes == noise(6, 600_000));
    check(&drive);
    seal_and_prove(&drive).unwrap();
}

/// A piece comes back from the network while it is forgotten: what is forgotten stays so.
#[test]
fn a_piece_that_is_forgotten_while_it_comes_back_stays_forgotten() {
    let media = Media::default();
    let (drive, network) = with_network(&media);
    big(&drive, "goes", 7);
    drive.seal().unwrap();
    drive.vfs().unlink(ROOT_INO, b"goes").unwrap();
    drive.seal().unwrap();
    published(&drive, &network);
    drive.prune(&NOTHING, 1 << 40).unwrap();
    let id = drive.condemned().unwrap()[0].piece;
    let bytes = {
        let file = drive.open_piece(id).unwrap();
        let mut bytes = vec![0; file.len() as usize];
        file.read_at(0, &mut bytes).unwrap();
        bytes
    };
    drive.evict_piece(id).unwrap();
    let mut forgotten = false;
    let back = drive.bring_back(id, bytes.len() as u64, |at, buf| {
        if !std::mem::replace(&mut forgotten, true) {
            drive.forget_piece(id).unwrap();
        }
        buf.copy_from_slice(&bytes[at as usize..at as usize + buf.len()]);
        Ok(())
    });
    assert!(matches!(back, Err(DriveError::UnknownPiece(_))), "{back:?}");
    assert!(drive.piece(id).unwrap().is_none());
    let name = format!("{}.car", crate::drive::error::hex(&id));
    assert!(!media.pieces.contents().contains_key(&name));
    check(&drive);
}
