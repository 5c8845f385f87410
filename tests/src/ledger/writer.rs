//! Writers that do what programs do (new files, atomic saves, logs, databases, tidying up) and keep their books.
//!
//! A system call's entry is made before it (issued) and after it (answered), so the books are right whenever the world
//! ends in between. A writer stops at the first error: that is the crash, seen from inside.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::Mutex;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};

use super::content::{RECORD, record, stream};
use super::{Ledger, Marks, State};

const FILE_BYTES_MAX: u64 = 300_000;
const LOG_APPEND_BYTES_MAX: u64 = 3_000;
const RECORDS: usize = 64;
/// Names are reused, so that files are replaced, removed and made anew.
const NAMES: u64 = 40;
/// Between operations, so that a run does not fill memory.
const PAUSE: Duration = Duration::from_millis(2);

#[derive(Clone, Copy, Debug, Default)]
pub struct WriterStats {
    pub operations: u64,
    pub syncs: u64,
}

/// Writers at work below one folder, each in its own.
pub struct Load {
    root: PathBuf,
    pub ledgers: Vec<Arc<Mutex<Ledger>>>,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<(WriterStats, Option<io::Error>)>>,
}

impl Load {
    /// `ledgers` are those of the run before, or empty for a new one.
    pub fn start(root: &Path, ledgers: Vec<Ledger>, seed: u64) -> Load {
        let stop = Arc::new(AtomicBool::new(false));
        let ledgers: Vec<_> = ledgers.into_iter().map(|ledger| Arc::new(Mutex::new(ledger))).collect();
        let threads = ledgers
            .iter()
            .enumerate()
            .map(|(n, ledger)| {
                let mut writer = Writer {
                    root: root.join(writer_folder(n)),
                    ledger: ledger.clone(),
                    rng: ChaCha8Rng::seed_from_u64(seed ^ ((n as u64) << 32)),
                    stats: WriterStats::default(),
                };
                let stop = stop.clone();
                std::thread::spawn(move || {
                    let mut error = None;
                    while !stop.load(Ordering::Relaxed) && error.is_none() {
                        error = writer.step().err();
                        std::thread::sleep(PAUSE);
                    }
                    (writer.stats, error)
                })
            })
            .collect();
        Load { root: root.to_owned(), ledgers, stop, threads }
    }

    /// Waits for the writers, which by now have met an error or are told to stop; returns their books and the errors.
    pub fn finish(self) -> (Vec<Ledger>, WriterStats, Vec<io::Error>) {
        self.stop.store(true, Ordering::Relaxed);
        let (mut total, mut errors) = (WriterStats::default(), Vec::new());
        for thread in self.threads {
            match thread.join() {
                Ok((stats, error)) => {
                    total.operations += stats.operations;
                    total.syncs += stats.syncs;
                    errors.extend(error);
                }
                Err(_) => errors.push(io::Error::other("a writer panicked")),
            }
        }
        let ledgers = self.ledgers.iter().map(|ledger| ledger.lock().clone()).collect();
        (ledgers, total, errors)
    }

    /// The folder of the nth writer.
    pub fn folder(&self, n: usize) -> PathBuf {
        self.root.join(writer_folder(n))
    }
}

pub fn writer_folder(n: usize) -> String {
    format!("writer-{n}")
}

struct Writer {
    root: PathBuf,
    ledger: Arc<Mutex<Ledger>>,
    rng: ChaCha8Rng,
    stats: WriterStats,
}

impl Writer {
    fn below(&mut self, limit: u64) -> u64 {
        self.rng.next_u64() % limit
    }

    fn step(&mut self) -> io::Result<()> {
        self.stats.operations += 1;
        match self.below(100) {
            0..25 => self.new_file(),
            25..40 => self.atomic_save(),
            40..60 => self.append(),
            60..80 => self.update_records(),
            80..88 => self.remove(),
            88..92 => self.rename(),
            92..96 => self.link_or_folder(),
            _ => self.sync_folder(),
        }
    }

    fn sync(&mut self, file: &File, path: &Path) -> io::Result<()> {
        self.stats.syncs += 1;
        if self.below(2) == 0 {
            file.sync_all()?
        } else {
            file.sync_data()?
        }
        // It sent first what the kernel still held.
        self.flushed(path);
        self.ledger.lock().file_synced(path);
        Ok(())
    }

    fn sync_folder(&mut self) -> io::Result<()> {
        self.stats.syncs += 1;
        File::open(&self.root)?.sync_all()?;
        self.ledger.lock().folder_synced(Path::new(""));
        Ok(())
    }

    fn name(&mut self) -> PathBuf {
        PathBuf::from(format!("file-{}", self.below(NAMES)))
    }

    /// Writes a new file in pieces; the books follow each.
    fn write_new(&mut self, path: &Path, len: u64, sync: bool) -> io::Result<()> {
        let seed = self.rng.next_u64();
        self.ledger.lock().issue(path, State::Bytes { seed, len: Marks::default() });
        let mut file = OpenOptions::new().write(true).create_new(true).open(self.root.join(path))?;
        self.ledger.lock().answered(path);
        let bytes = stream(seed, len as usize);
        let piece = 1 + self.below(100_000) as usize;
        for piece in bytes.chunks(piece) {
            self.grow(path, piece.len() as u64, |len| &mut len.issued);
            file.write_all(piece)?;
        }
        if sync {
            self.sync(&file, path)?;
        }
        close(file)?;
        self.flushed(path);
        Ok(())
    }

    fn grow(&mut self, path: &Path, by: u64, mark: impl Fn(&mut Marks) -> &mut u64) {
        if let Some(State::Bytes { len, .. }) = self.ledger.lock().current(path) {
            *mark(len) += by;
        }
    }

    /// The file was closed or synced: all of its writes count as answered.
    fn flushed(&mut self, path: &Path) {
        match self.ledger.lock().current(path) {
            Some(State::Bytes { len, .. }) => len.answered = len.issued,
            Some(State::Records { versions, .. }) => versions.iter_mut().for_each(|v| v.answered = v.issued),
            _ => {}
        }
    }

    fn new_file(&mut self) -> io::Result<()> {
        let path = self.name();
        if *self.ledger.lock().last(&path) != State::Absent {
            return self.remove_path(&path);
        }
        // Most files are small.
        let max = if self.below(4) == 0 { FILE_BYTES_MAX } else { 6_000 };
        let (len, sync) = (self.below(max), self.below(3) == 0);
        self.write_new(&path, len, sync)
    }

    /// The way of editors and databases: a temporary file, fsync, rename over, and sometimes fsync of the folder.
    fn atomic_save(&mut self) -> io::Result<()> {
        let temporary = PathBuf::from("saved.tmp");
        if *self.ledger.lock().last(&temporary) != State::Absent {
            self.remove_path(&temporary)?;
        }
        let len = self.below(40_000);
        self.write_new(&temporary, len, true)?;
        self.move_over(&temporary, Path::new("saved"))?;
        if self.below(2) == 0 { self.sync_folder() } else { Ok(()) }
    }

    fn move_over(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        {
            let mut ledger = self.ledger.lock();
            let state = ledger.last(from).clone();
            ledger.issue(to, state);
            ledger.issue(from, State::Absent);
        }
        std::fs::rename(self.root.join(from), self.root.join(to))?;
        let mut ledger = self.ledger.lock();
        ledger.answered(from);
        ledger.answered(to);
        Ok(())
    }

    fn rename(&mut self) -> io::Result<()> {
        let (from, to) = (self.name(), self.name());
        let is_file = matches!(self.ledger.lock().last(&from), State::Bytes { .. });
        let fits = matches!(self.ledger.lock().last(&to), State::Bytes { .. } | State::Absent);
        if is_file && fits && from != to { self.move_over(&from, &to) } else { Ok(()) }
    }

    fn append(&mut self) -> io::Result<()> {
        let path = Path::new("log");
        if *self.ledger.lock().last(path) == State::Absent {
            return self.write_new(path, 0, true);
        }
        let State::Bytes { seed, len } = *self.ledger.lock().last(path) else { return Ok(()) };
        let by = 1 + self.below(LOG_APPEND_BYTES_MAX);
        let start = len.issued;
        let bytes = stream(seed, (start + by) as usize);
        let mut file = OpenOptions::new().append(true).open(self.root.join(path))?;
        self.grow(path, by, |len| &mut len.issued);
        file.write_all(&bytes[start as usize..])?;
        if self.below(3) == 0 {
            self.sync(&file, path)?;
        }
        close(file)?;
        self.flushed(path);
        Ok(())
    }

    /// The way of databases: some pages in place, then fsync.
    fn update_records(&mut self) -> io::Result<()> {
        let path = Path::new("records");
        if *self.ledger.lock().last(path) == State::Absent {
            let (seed, versions) = (self.rng.next_u64(), vec![Marks::default(); RECORDS]);
            self.ledger.lock().issue(path, State::Records { seed, versions });
            File::create_new(self.root.join(path))?;
            self.ledger.lock().answered(path);
        }
        let file = OpenOptions::new().write(true).open(self.root.join(path))?;
        for _ in 0..1 + self.below(6) {
            let number = self.below(RECORDS as u64) as usize;
            let Some((seed, version)) = self.next_version(path, number) else { return Ok(()) };
            file.write_all_at(&record(seed, number, version), (number * RECORD) as u64)?;
        }
        if self.below(2) == 0 {
            self.sync(&file, path)?;
        }
        close(file)?;
        self.flushed(path);
        Ok(())
    }

    fn next_version(&mut self, path: &Path, number: usize) -> Option<(u64, u64)> {
        match self.ledger.lock().current(path) {
            Some(State::Records { seed, versions }) => {
                let marks = versions.get_mut(number)?;
                marks.issued += 1;
                Some((*seed, marks.issued))
            }
            _ => None,
        }
    }

    fn remove(&mut self) -> io::Result<()> {
        let path = self.name();
        self.remove_path(&path)
    }

    fn remove_path(&mut self, path: &Path) -> io::Result<()> {
        let folder = match self.ledger.lock().last(path) {
            State::Absent => return Ok(()),
            State::Folder => true,
            _ => false,
        };
        self.ledger.lock().issue(path, State::Absent);
        let full = self.root.join(path);
        if folder {
            std::fs::remove_dir(full)?
        } else {
            std::fs::remove_file(full)?
        }
        self.ledger.lock().answered(path);
        Ok(())
    }

    fn link_or_folder(&mut self) -> io::Result<()> {
        let path = self.name();
        if *self.ledger.lock().last(&path) != State::Absent {
            return Ok(());
        }
        if self.below(2) == 0 {
            let target = format!("target-{}", self.rng.next_u64());
            self.ledger.lock().issue(&path, State::Link(target.clone()));
            std::os::unix::fs::symlink(target, self.root.join(&path))?;
        } else {
            self.ledger.lock().issue(&path, State::Folder);
            std::fs::create_dir(self.root.join(&path))?;
        }
        self.ledger.lock().answered(&path);
        Ok(())
    }
}

/// Drop would hide the error, and close is where a file system tells about writes that failed late.
fn close(file: File) -> io::Result<()> {
    nix::unistd::close(file).map_err(io::Error::from)
}
