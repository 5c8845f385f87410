//! `holdfast export` and `holdfast import`: a folder to a CAR file, and back.

use std::collections::{HashMap, HashSet};
use std::fs::{File, OpenOptions};
use std::io::{self, BufReader, BufWriter, Write};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use cid::Cid;
use holdfast_content::block::{Block, SinkError, digest_of};
use holdfast_content::plain::car::{CarReader, header, write_section};
use holdfast_content::plain::{Blocks, PlainError};
use serde::Serialize;

use super::add::{AddOptions, add_path};
use super::write::write_tree;
use super::{Counted, Done, TreeError, appear, beside, hidden_words};
use crate::control::render::{count, size};

const BUFFER_BYTES: usize = 1 << 20;
/// Blocks of a CAR that is imported, at most: their places take about 4 GiB of memory then.
const BLOCKS_MAX: usize = 64 << 20;

/// `holdfast export --json`.
#[derive(Debug, Clone, Serialize)]
pub struct ExportReport {
    /// What `ipfs add -r` under the same profile calls it.
    pub root: String,
    pub profile: &'static str,
    pub car: PathBuf,
    pub car_bytes: u64,
    /// Each counted once.
    pub blocks: u64,
    #[serde(flatten)]
    pub counted: Counted,
    pub hidden_left_out: u64,
}

/// `holdfast import --json`.
#[derive(Debug, Clone, Serialize)]
pub struct ImportReport {
    pub root: String,
    pub path: PathBuf,
    pub blocks: u64,
    #[serde(flatten)]
    pub counted: Counted,
}

impl ExportReport {
    pub fn render(&self) -> String {
        format!(
            "{}\n{} of {} in {} ({})\n{}",
            self.root,
            size(self.counted.bytes),
            words(&self.counted),
            self.car.display(),
            size(self.car_bytes),
            hidden_words(self.hidden_left_out)
        )
    }
}

impl ImportReport {
    pub fn render(&self) -> String {
        let (bytes, what) = (size(self.counted.bytes), words(&self.counted));
        format!("{}\n{bytes} of {what} in {}\n", self.root, self.path.display())
    }
}

/// How many of each, as people say it.
pub fn words(counted: &Counted) -> String {
    let all = [(counted.files, "file"), (counted.folders, "folder"), (counted.links, "link")];
    let some: Vec<String> = all.iter().filter(|(n, _)| *n > 0).map(|(n, what)| count(*n, what)).collect();
    some.join(", ")
}

/// Writes what stands at `path` to a new CAR file.
pub fn export(
    path: &Path,
    car: &Path,
    options: AddOptions,
    done: &mut Done<'_>,
) -> Result<ExportReport, TreeError> {
    if car.symlink_metadata().is_ok() {
        return Err(TreeError::Exists(car.to_owned()));
    }
    let (folder, temporary) = beside(car);
    let file = OpenOptions::new().read(true).write(true).create_new(true).open(&temporary);
    let file = file.map_err(TreeError::io("make", car))?;
    let written = write_car(path, &file, car, options, done);
    let finished = written.and_then(|report| {
        file.sync_all().map_err(TreeError::io("sync", car))?;
        appear(&temporary, car, &folder)?;
        Ok(report)
    });
    finished.inspect_err(|_| {
        // What is left of it has a name that says so.
        let _ = std::fs::remove_file(&temporary);
    })
}

fn write_car(
    path: &Path,
    file: &File,
    car: &Path,
    options: AddOptions,
    done: &mut Done<'_>,
) -> Result<ExportReport, TreeError> {
    let profile = options.profile;
    let about = file.metadata().map_err(TreeError::io("read", car))?;
    let options = AddOptions { avoid: Some((about.dev(), about.ino())), ..options };
    let mut out = BufWriter::with_capacity(BUFFER_BYTES, file);
    // The root is known at the end; its length is known now.
    let placeholder = header(&[profile.sample_root()]);
    out.write_all(&placeholder).map_err(TreeError::io("write", car))?;
    let mut written = placeholder.len() as u64;
    let mut known: HashSet<[u8; 32]> = HashSet::new();
    let mut sink = |block: Block| {
        let digest = digest_of(block.cid()).map_err(|error| SinkError::Other(Box::new(error)))?;
        if known.insert(digest) {
            let wrote = write_section(&mut out, &profile.cid_of(&block), &block);
            written +=
                wrote.map_err(|source| SinkError::Other(Box::new(TreeError::io("write", car)(source))))?;
        }
        Ok(())
    };
    let added = add_path(path, &options, &mut sink, done).map_err(of_the_car)?;
    out.flush().map_err(TreeError::io("write", car))?;
    drop(out);
    // The root of a small file under the newer profile is a raw leaf: as long as any.
    let real = header(&[added.root.cid]);
    if real.len() != placeholder.len() {
        let why = "its header has another length than was foreseen".to_owned();
        return Err(TreeError::Roots { path: car.to_owned(), why });
    }
    file.write_all_at(&real, 0).map_err(TreeError::io("write", car))?;
    Ok(ExportReport {
        root: added.root.cid.to_string(),
        profile: profile.name(),
        car: car.to_owned(),
        car_bytes: written,
        blocks: known.len() as u64,
        counted: added.counted,
        hidden_left_out: added.hidden_left_out,
    })
}

/// An error in writing the CAR is no error of the file that was read meanwhile.
fn of_the_car(error: TreeError) -> TreeError {
    match error {
        TreeError::Dag { path, source: PlainError::Sink(SinkError::Other(error)) } => {
            match error.downcast::<TreeError>() {
                Ok(own) => *own,
                Err(error) => TreeError::Dag { path, source: PlainError::Sink(SinkError::Other(error)) },
            }
        }
        error => error,
    }
}

/// A CAR file whose blocks were all checked once, and are again when they are read.
pub struct CarFile {
    file: File,
    path: PathBuf,
    roots: Vec<Cid>,
    places: HashMap<[u8; 32], (u64, u32)>,
}

impl CarFile {
    /// Reads it through.
    pub fn open(path: &Path, done: &mut Done<'_>) -> Result<CarFile, TreeError> {
        let file = File::open(path).map_err(TreeError::io("open", path))?;
        let car = |source| TreeError::Car { path: path.to_owned(), source };
        let mut reader = CarReader::new(BufReader::with_capacity(BUFFER_BYTES, &file)).map_err(car)?;
        let mut places = HashMap::new();
        while let Some(section) = reader.next_section().map_err(car)? {
            if let Some(block) = section.block {
                let digest = digest_of(block.cid()).map_err(|e| TreeError::dag(path)(e.into()))?;
                places.insert(digest, (section.offset, section.len));
            }
            if places.len() > BLOCKS_MAX {
                return Err(TreeError::Limit { what: "blocks", max: BLOCKS_MAX as u64 });
            }
            done(reader.position());
        }
        let roots = reader.roots().to_vec();
        Ok(CarFile { file, path: path.to_owned(), roots, places })
    }

    /// The root that is asked for, or the only one.
    pub fn root(&self, wanted: Option<Cid>) -> Result<Cid, TreeError> {
        let why = match (wanted, self.roots.as_slice()) {
            (Some(root), _) => return Ok(root),
            (None, [root]) => return Ok(*root),
            (None, []) => "it names no root; --root CID says which one is meant".to_owned(),
            (None, roots) => {
                let roots: Vec<String> = roots.iter().take(20).map(Cid::to_string).collect();
                format!("it has several roots; --root CID says which one is meant: {}", roots.join(" "))
            }
        };
        Err(TreeError::Roots { path: self.path.clone(), why })
    }
}

impl Blocks for CarFile {
    fn block(&self, cid: &Cid) -> Result<Block, PlainError> {
        let &(offset, len) = self.places.get(&digest_of(cid)?).ok_or(PlainError::Missing(*cid))?;
        let mut bytes = vec![0; len as usize];
        self.file.read_exact_at(&mut bytes, offset).map_err(|error: io::Error| {
            PlainError::Other(Box::new(TreeError::io("read", &self.path)(error)))
        })?;
        Ok(Block::verify(*cid, bytes)?)
    }
}

/// Writes what a CAR file holds to `to`, which must not be there yet.
pub fn import(
    car: &Path,
    to: &Path,
    root: Option<Cid>,
    done: &mut Done<'_>,
) -> Result<ImportReport, TreeError> {
    if to.symlink_metadata().is_ok() {
        return Err(TreeError::Exists(to.to_owned()));
    }
    let file = CarFile::open(car, done)?;
    let root = file.root(root)?;
    let counted = write_tree(&file, &root, to, done)?;
    Ok(ImportReport {
        root: root.to_string(),
        path: to.to_owned(),
        blocks: file.places.len() as u64,
        counted,
    })
}
