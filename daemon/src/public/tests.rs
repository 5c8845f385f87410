#![allow(clippy::unwrap_used)]

use super::batch::{BatchReader, BatchWriter, check_whole};
use super::*;
use crate::plain::add::{AddOptions, add_path};
use holdfast_content::plain::Profile;
use std::fs;

fn batch(home: &Path, source: &Path) -> (BatchWriter, Cid, String) {
    let mut writer = BatchWriter::begin(home, [7; 16]).unwrap();
    let options = AddOptions { profile: Profile::V0, ..AddOptions::default() };
    let added = add_path(source, &options, &mut |block| writer.put(&block), &mut |_| {}).unwrap();
    let (name, blocks) = writer.finish().unwrap();
    assert!(blocks > 0);
    (writer, added.root.cid, name)
}

#[test]
fn a_batch_is_read_back_whole_or_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (home, source) = (dir.path().join("home"), dir.path().join("source"));
    fs::create_dir_all(source.join("a")).unwrap();
    // 80 MiB of bytes that differ: more than one piece.
    for n in 0..40u8 {
        let mut bytes = vec![0; 2 << 20];
        blake3::Hasher::new().update(&[n]).finalize_xof().fill(&mut bytes);
        fs::write(source.join(format!("a/{n}")), bytes).unwrap();
    }
    let (writer, root, name) = batch(&home, &source);
    let reader = BatchReader::open(&home, &name).unwrap();
    check_whole(&reader, &root).unwrap();
    assert_eq!(reader.files().len(), 2);
    let total: u64 = reader.files().iter().map(|(_, len)| len).sum();
    let on_disk: u64 = reader.files().iter().map(|(path, _)| fs::metadata(path).unwrap().len()).sum();
    assert_eq!(total, on_disk);
    let other = holdfast_content::block::cid_of(0x55, b"another root");
    assert!(check_whole(&reader, &other).is_err());
    for bad in ["", "..", "../../etc", "7", "zz070707070707070707070707070707"] {
        assert!(BatchReader::open(&home, bad).is_err(), "{bad}");
    }
    // A byte of a block is another one.
    let (path, len) = reader.files()[0].clone();
    let mut bytes = fs::read(&path).unwrap();
    bytes[len as usize / 2] ^= 1;
    fs::write(&path, bytes).unwrap();
    assert!(BatchReader::open(&home, &name).is_err());
    drop(writer);
    assert!(BatchReader::open(&home, &name).is_err(), "what was not taken over is gone");
    assert_eq!(fs::read_dir(folder(&home)).unwrap().count(), 0);
}

#[test]
fn names_of_files_are_told_apart() {
    let home = Path::new("/h");
    assert_eq!(piece_of(&piece_path(home, &[9; 16])), Some([9; 16]));
    for other in
        ["new-09090909090909090909090909090909", "x.car", "09.car", "0909090909090909090909090909090g.car"]
    {
        assert_eq!(piece_of(&folder(home).join(other)), None);
    }
}
