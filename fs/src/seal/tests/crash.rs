//! Crashes at each edge of a seal.

use std::collections::BTreeMap;
use std::sync::Mutex;

use super::*;
use crate::drive::edges::EDGES;

/// Images of the media at each edge.
type Images = Arc<Mutex<Vec<(&'static str, Media)>>>;

fn edges(media: &Media, images: &Images, power: bool) -> Edges {
    let (media, images) = (media.clone(), images.clone());
    Edges::with_hook(Arc::new(move |name| {
        let mut images = images.lock().unwrap();
        let nth = images.len() as u64;
        let image = if power { media.power_cut(nth) } else { media.killed() };
        images.push((name, image));
    }))
}

fn sweep(power: bool) {
    let media = Media::default();
    let images = Images::default();
    let drive = open_with(&media, with_edges(edges(&media, &images, power)));
    let vfs = drive.vfs();
    let ino = create(vfs, ROOT_INO, "big");
    for n in 0..6 {
        write(vfs, ino, n * 50_000, &noise(n, 50_000));
    }
    for n in 0..40 {
        write(vfs, create(vfs, ROOT_INO, &format!("{n}")), 0, &noise(100 + n, 900));
    }
    drive.sync_all().unwrap();
    let first = dump(vfs);
    drive.seal().unwrap().unwrap();
    let first_images = images.lock().unwrap().len();
    write(vfs, ino, 70_000, b"second version");
    vfs.unlink(ROOT_INO, b"7").unwrap();
    truncate(vfs, ino, 200_000);
    drive.sync_all().unwrap();
    let second = dump(vfs);
    drive.seal().unwrap().unwrap();

    let images = images.lock().unwrap();
    let mut met: BTreeMap<&str, usize> = BTreeMap::new();
    for (nth, (edge, image)) in images.iter().enumerate() {
        *met.entry(edge).or_default() += 1;
        let drive = open(image);
        let wanted = if nth < first_images { &first } else { &second };
        assert_same(wanted, &dump(drive.vfs()), &format!("crash {nth} at {edge}"));
        check(&drive);
        seal_and_prove(&drive);
        assert_same(wanted, &dump(drive.vfs()), &format!("sealed after crash {nth} at {edge}"));
        assert_eq!(drive.seal().unwrap(), None, "crash {nth} at {edge}");
        // No piece file without a row, no unfinished one.
        let known: Vec<String> = drive
            .pieces()
            .unwrap()
            .iter()
            .map(|p| format!("{}.car", crate::drive::error::hex(&p.id)))
            .collect();
        let there: Vec<String> = image.pieces.contents().into_keys().collect();
        assert!(there.iter().all(|name| known.contains(name)), "crash {nth} at {edge}: {there:?}");
        assert_eq!(there.len(), known.len(), "crash {nth} at {edge}");
    }
    let of_seals = |edge: &&&str| edge.starts_with("seal.") || edge.starts_with("piece.");
    for edge in EDGES.iter().filter(of_seals) {
        assert!(met.contains_key(edge), "{edge} was never reached");
    }
}

#[test]
fn killed_at_each_edge() {
    sweep(false);
}

#[test]
fn power_cut_at_each_edge() {
    sweep(true);
}

/// A kill in the middle of everything, again and again, on one home.
#[test]
fn many_crashes_of_one_home() {
    let mut media = Media::default();
    let mut wanted = None;
    for round in 0..25u64 {
        let images = Images::default();
        let drive = open_with(&media, with_edges(edges(&media, &images, round % 2 == 0)));
        if let Some(wanted) = &wanted {
            assert_same(wanted, &dump(drive.vfs()), &format!("round {round}"));
        }
        let vfs = drive.vfs();
        let ino = match vfs.resolve(b"/f") {
            Ok(attr) => attr.ino,
            Err(_) => create(vfs, ROOT_INO, "f"),
        };
        write(vfs, ino, round % 7 * 9_000, &noise(round, 10_000));
        write(vfs, create(vfs, ROOT_INO, &format!("n{round}")), 0, &noise(round, 3_000));
        drive.sync_all().unwrap();
        wanted = Some(dump(vfs));
        drive.seal().unwrap();
        let images = images.lock().unwrap();
        let at = (round as usize * 7) % images.len();
        media = images[at].1.clone();
    }
    let drive = open(&media);
    check(&drive);
    seal_and_prove(&drive);
}
