#![allow(clippy::unwrap_used)]

use super::add::{AddOptions, add_path};
use super::begun::Begun;
use super::car::{export, import};
use super::write::{write_begun, write_tree};
use super::*;
use cid::Cid;
use holdfast_content::block::{Block, cid_of};
use holdfast_content::plain::{Blocks, Profile};
use std::collections::HashMap;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;

#[derive(Default)]
struct Memory(HashMap<Cid, Block>);

impl Blocks for Memory {
    fn block(&self, cid: &Cid) -> Result<Block, PlainError> {
        self.0.get(cid).cloned().ok_or(PlainError::Missing(*cid))
    }
}

fn quiet(_: u64) {}

/// A little of everything.
fn sample(dir: &Path) {
    fs::create_dir_all(dir.join("b/empty")).unwrap();
    fs::write(dir.join("a"), b"abc").unwrap();
    fs::write(dir.join("b/big"), vec![7; 700_000]).unwrap();
    fs::write(dir.join("b/zero"), b"").unwrap();
    fs::write(dir.join("ä ö\n"), b"odd").unwrap();
    fs::write(dir.join(".hidden"), b"secret").unwrap();
    symlink("../a", dir.join("b/link")).unwrap();
    symlink("nowhere", dir.join("broken")).unwrap();
}

fn listing(dir: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut out = Vec::new();
    let mut todo = vec![dir.to_owned()];
    while let Some(path) = todo.pop() {
        let about = path.symlink_metadata().unwrap();
        let what = if about.is_dir() {
            todo.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
            b"/".to_vec()
        } else if about.is_symlink() {
            fs::read_link(&path).unwrap().as_os_str().as_bytes().to_vec()
        } else {
            fs::read(&path).unwrap()
        };
        out.push((path.strip_prefix(dir).unwrap().to_owned(), what));
    }
    out.sort();
    out
}

#[test]
fn a_folder_goes_to_a_car_and_back() {
    let dir = tempfile::tempdir().unwrap();
    let (source, car, back) = (dir.path().join("s"), dir.path().join("c.car"), dir.path().join("t"));
    sample(&source);
    for profile in [Profile::V0, Profile::V1] {
        for hidden in [true, false] {
            let options = AddOptions { profile, hidden, avoid: None };
            let made = export(&source, &car, options, &mut quiet).unwrap();
            assert_eq!(made.car_bytes, fs::metadata(&car).unwrap().len());
            assert_eq!((made.counted.links, made.counted.folders), (2, 3));
            assert_eq!(made.hidden_left_out, u64::from(!hidden));
            let read = import(&car, &back, None, &mut quiet).unwrap();
            assert_eq!((&read.root, read.blocks, read.counted), (&made.root, made.blocks, made.counted));
            let mut expected = listing(&source);
            expected.retain(|(path, _)| hidden || path != Path::new(".hidden"));
            assert_eq!(listing(&back), expected);
            // What is there is not touched.
            assert!(matches!(import(&car, &back, None, &mut quiet), Err(TreeError::Exists(_))));
            assert!(matches!(export(&source, &car, options, &mut quiet), Err(TreeError::Exists(_))));
            fs::remove_file(&car).unwrap();
            fs::remove_dir_all(&back).unwrap();
        }
    }
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "something was left behind");
}

#[test]
fn one_file_and_one_link_are_enough() {
    let dir = tempfile::tempdir().unwrap();
    let (source, car, back) = (dir.path().join("s"), dir.path().join("c.car"), dir.path().join("t"));
    sample(&source);
    for (name, profile) in
        [("a", Profile::V0), ("a", Profile::V1), ("b/big", Profile::V1), ("broken", Profile::V1)]
    {
        let options = AddOptions { profile, ..AddOptions::default() };
        export(&source.join(name), &car, options, &mut quiet).unwrap();
        import(&car, &back, None, &mut quiet).unwrap();
        assert_eq!(listing(&back)[0].1, listing(&source.join(name))[0].1);
        fs::remove_file(&car).unwrap();
        fs::remove_file(&back).unwrap();
    }
}

#[test]
fn what_cannot_be_exported_leaves_nothing_behind() {
    let dir = tempfile::tempdir().unwrap();
    let source = dir.path().join("s");
    sample(&source);
    let fails = |path: &Path, car: &Path, hidden| {
        let options = AddOptions { hidden, ..AddOptions::default() };
        let before = listing(dir.path());
        let error = export(path, car, options, &mut quiet).unwrap_err();
        assert_eq!(listing(dir.path()), before);
        error
    };
    let car = dir.path().join("c.car");
    assert!(matches!(fails(&dir.path().join("none"), &car, false), TreeError::Io { .. }));
    assert!(matches!(fails(&source, &source.join("c.car"), true), TreeError::Itself(_)));
    let fifo = source.join("b/fifo");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let options = AddOptions::default();
    assert!(
        matches!(export(&source, &car, options, &mut quiet), Err(TreeError::Special(path)) if path == fifo)
    );
    fs::remove_file(&fifo).unwrap();
    let odd = source.join(std::ffi::OsStr::from_bytes(b"\xff"));
    fs::write(&odd, b"x").unwrap();
    assert!(matches!(fails(&source, &car, false), TreeError::NotUtf8(path) if path == odd));
}

#[test]
fn a_damaged_car_writes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (source, car, back) = (dir.path().join("s"), dir.path().join("c.car"), dir.path().join("t"));
    sample(&source);
    export(&source, &car, AddOptions::default(), &mut quiet).unwrap();
    let whole = fs::read(&car).unwrap();
    for at in [0, 3, 200, whole.len() / 2, whole.len() - 1] {
        let mut bytes = whole.clone();
        bytes[at] ^= 1;
        fs::write(&car, &bytes).unwrap();
        assert!(import(&car, &back, None, &mut quiet).is_err(), "byte {at}");
    }
    // Whole sections are missing: the root is, for it comes last.
    fs::write(&car, &whole[..whole.len() - 500]).unwrap();
    assert!(import(&car, &back, None, &mut quiet).is_err());
    fs::write(&car, &whole).unwrap();
    let other = cid_of(0x55, b"not there");
    let missing = import(&car, &back, Some(other), &mut quiet);
    assert!(matches!(missing, Err(TreeError::Dag { source: PlainError::Missing(cid), .. }) if cid == other));
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2, "something was left behind");
}

/// A folder of these names, as only a stranger would make it.
fn hostile_folder(names: &[&str], to: Cid) -> Block {
    let mut node = Vec::new();
    for name in names {
        let mut link = vec![0x0a, 36];
        link.extend_from_slice(&to.to_bytes());
        link.extend_from_slice(&[0x12, name.len() as u8]);
        link.extend_from_slice(name.as_bytes());
        node.extend_from_slice(&[0x12, link.len() as u8]);
        node.extend_from_slice(&link);
    }
    node.extend_from_slice(&[0x0a, 2, 8, 1]);
    Block::dag_pb(node).unwrap()
}

#[test]
fn a_strangers_dag_stays_within_its_folder() {
    let dir = tempfile::tempdir().unwrap();
    let (victim, to) = (dir.path().join("victim"), dir.path().join("to"));
    fs::create_dir(&victim).unwrap();
    let mut store = Memory::default();
    let mut put = |block: Block| {
        let cid = *block.cid();
        store.0.insert(cid, block);
        cid
    };
    let leaf = put(Block::raw(&b"evil"[..]).unwrap());
    let mut roots: Vec<Cid> = ["..", ".", "", "a/b", "/etc", "../victim/x", "a\0b"]
        .iter()
        .map(|name| put(hostile_folder(&[name], leaf)))
        .collect();
    roots.push(put(hostile_folder(&["same", "same"], leaf)));
    // A link, and then a folder of the same name, which would lead through it.
    let path = victim.as_os_str().as_bytes();
    let mut link = vec![0x08, 0x04, 0x12, path.len() as u8];
    link.extend_from_slice(path);
    let link = put(Block::dag_pb([&[0x0a, link.len() as u8][..], &link].concat()).unwrap());
    let folder = put(hostile_folder(&["x"], leaf));
    let (one, other) = (hostile_folder(&["same"], link), hostile_folder(&["same"], folder));
    let halves = |a: &Block, b: &Block| {
        let links = |block: &Block| block.bytes()[..block.bytes().len() - 4].to_vec();
        Block::dag_pb([links(a), links(b), vec![0x0a, 2, 8, 1]].concat()).unwrap()
    };
    roots.push(put(halves(&one, &other)));
    roots.push(put(halves(&other, &one)));
    for root in roots {
        let wrote = write_tree(&store, &root, &to, &mut quiet);
        assert!(
            matches!(wrote, Err(TreeError::Dag { source: PlainError::Name(_), .. })),
            "{root}: {wrote:?}"
        );
    }
    assert_eq!(fs::read_dir(&victim).unwrap().count(), 0);
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "something was left behind");
}

#[test]
fn more_bytes_than_the_disk_has_are_not_begun() {
    let dir = tempfile::tempdir().unwrap();
    let to = dir.path().join("to");
    let mut store = Memory::default();
    let leaf = Block::raw(vec![0; 1 << 20]).unwrap();
    let (mut cid, mut size) = (*leaf.cid(), 1u64 << 20);
    store.0.insert(cid, leaf);
    // 2^60 zeros in twenty blocks.
    for _ in 0..10 {
        let links: Vec<_> = (0..16).map(|_| part(&cid)).collect::<Vec<_>>().concat();
        size *= 16;
        let mut data = vec![0x08, 0x02, 0x18];
        data.extend_from_slice(&varint(size));
        for _ in 0..16 {
            data.push(0x20);
            data.extend_from_slice(&varint(size / 16));
        }
        let mut node = links;
        node.push(0x0a);
        node.extend_from_slice(&varint(data.len() as u64));
        node.extend_from_slice(&data);
        let block = Block::dag_pb(node).unwrap();
        cid = *block.cid();
        store.0.insert(cid, block);
    }
    let wrote = write_tree(&store, &cid, &to, &mut quiet);
    assert!(
        matches!(wrote, Err(TreeError::Io { source, .. }) if source.kind() == io::ErrorKind::StorageFull)
    );
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
}

fn part(cid: &Cid) -> Vec<u8> {
    let mut link = vec![0x12, 42, 0x0a, 36];
    link.extend_from_slice(&cid.to_bytes());
    link.extend_from_slice(&[0x12, 0, 0x18, 1]);
    link
}

fn varint(mut value: u64) -> Vec<u8> {
    let mut out = Vec::new();
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
    out
}

#[test]
fn adding_reads_through_no_link() {
    let dir = tempfile::tempdir().unwrap();
    let source = dir.path().join("s");
    sample(&source);
    symlink(&source, dir.path().join("way")).unwrap();
    let mut blocks = 0;
    let added = add_path(
        &dir.path().join("way"),
        &AddOptions::default(),
        &mut |_| {
            blocks += 1;
            Ok(())
        },
        &mut quiet,
    )
    .unwrap();
    assert_eq!((blocks, added.counted.links, added.counted.files), (1, 1, 0));
}

/// Blocks of which only the first so many are to be had.
struct Ends<'a> {
    blocks: &'a Memory,
    left: std::cell::Cell<u64>,
    asked: std::cell::RefCell<Vec<Cid>>,
}

impl Blocks for Ends<'_> {
    fn block(&self, cid: &Cid) -> Result<Block, PlainError> {
        if self.left.get() == 0 {
            return Err(PlainError::Missing(*cid));
        }
        self.left.set(self.left.get() - 1);
        self.asked.borrow_mut().push(*cid);
        self.blocks.block(cid)
    }
}

/// Interrupted after every block: nothing is there under its name before all of it is, and nothing whole is fetched twice.
#[test]
fn a_fetch_goes_on_where_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let source = dir.path().join("s");
    sample(&source);
    fs::write(source.join("large"), (0..3_000_000u32).map(|n| (n / 7 % 251) as u8).collect::<Vec<_>>())
        .unwrap();
    fs::write(source.join("z"), b"after it").unwrap();
    let mut store = Memory::default();
    let mut put = |block: Block| {
        store.0.insert(*block.cid(), block);
        Ok(())
    };
    let options = AddOptions { profile: Profile::V1, ..AddOptions::default() };
    let added = add_path(&source, &options, &mut put, &mut quiet).unwrap();
    let root = added.root.cid;
    let whole = write_tree(&store, &root, &dir.path().join("whole"), &mut quiet).unwrap();
    let (to, mut attempts, mut leaves) = (dir.path().join("to"), 0, Vec::new());
    let counted = loop {
        attempts += 1;
        let blocks = Ends { blocks: &store, left: 3.into(), asked: Vec::new().into() };
        // Deep down it takes a few for the folders alone.
        blocks.left.set(3 + attempts / 8);
        let begun = Begun::lasting(&to, &root.to_bytes()).unwrap();
        let wrote = write_begun(&blocks, &root, &to, begun, &mut quiet);
        leaves.extend(blocks.asked.into_inner().into_iter().filter(|cid| cid.codec() == 0x55));
        match wrote {
            Ok(counted) => break counted,
            Err(error) => {
                assert!(matches!(error, TreeError::Dag { source: PlainError::Missing(_), .. }), "{error}");
                assert!(!to.exists(), "half of it appeared");
            }
        }
        assert!(attempts < 500);
    };
    assert!(attempts > 5);
    assert_eq!(counted, whole);
    assert_eq!(listing(&dir.path().join("whole")), listing(&to));
    let fetched = leaves.len();
    leaves.sort_unstable();
    leaves.dedup();
    assert_eq!(fetched, leaves.len(), "leaves were fetched twice");
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 3, "something was left behind");
}
