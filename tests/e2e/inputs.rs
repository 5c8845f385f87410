//! What is put on the drives: real trees, real repositories, and the odd things that real trees rarely have all of.

use std::ffi::{CString, OsStr};
use std::fs::{File, FileTimes};
use std::io::{Seek, SeekFrom, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, Result, bail};
use holdfast_tests::harness::{Context, run_ok};
use holdfast_tests::ledger::stream;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};

/// What the real tree has at least.
pub const TREE_FILES_MIN: usize = 1_000;
pub const TREE_BYTES_MIN: u64 = 200 << 20;

const COPY_LIMIT: Duration = Duration::from_secs(300);

/// A real tree of this machine (cargo's sources of other people's crates, else /usr/share), copied to `into` with
/// `cp -a`, and a folder of oddities.
pub fn real_tree(into: &Path) -> Result<()> {
    std::fs::create_dir_all(into)?;
    let (mut files, mut bytes) = (0, 0);
    for source in sources() {
        if files >= TREE_FILES_MIN && bytes >= TREE_BYTES_MIN {
            break;
        }
        let (more_files, more_bytes) = size_of(&source);
        // A single folder that is huge would only make the test long.
        if more_bytes < TREE_BYTES_MIN / 2 {
            run_ok(Command::new("cp").arg("-a").arg(&source).arg(into), COPY_LIMIT)?;
            (files, bytes) = (files + more_files, bytes + more_bytes);
        }
    }
    if files < TREE_FILES_MIN || bytes < TREE_BYTES_MIN {
        bail!(
            "this machine has no tree of {TREE_FILES_MIN} files and {TREE_BYTES_MIN} bytes: {files} files, {bytes} bytes"
        );
    }
    oddities(&into.join("oddities"))
}

/// Folders of other people's files, in an order that does not change.
fn sources() -> Vec<PathBuf> {
    let cargo = std::env::var_os("CARGO_HOME")
        .map(PathBuf::from)
        .or_else(|| std::env::var_os("HOME").map(|home| Path::new(&home).join(".cargo")));
    let mut found = Vec::new();
    for registry in cargo.iter().flat_map(|cargo| folders_in(&cargo.join("registry/src"))) {
        found.extend(folders_in(&registry));
    }
    found.extend(folders_in(Path::new("/usr/share")));
    found.extend(folders_in(Path::new("/usr/lib/python3")));
    found
}

fn folders_in(dir: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let mut found: Vec<PathBuf> =
        entries.map(|entry| entry.path()).filter(|path| path.is_dir() && !path.is_symlink()).collect();
    found.sort_unstable();
    found
}

/// Files and their bytes.
fn size_of(dir: &Path) -> (usize, u64) {
    let (mut files, mut bytes) = (0, 0);
    let mut todo = vec![dir.to_owned()];
    while let Some(dir) = todo.pop() {
        for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
            match entry.metadata() {
                Ok(meta) if meta.is_dir() => todo.push(entry.path()),
                Ok(meta) => (files, bytes) = (files + 1, bytes + meta.len()),
                Err(_) => {}
            }
        }
    }
    (files, bytes)
}

/// Everything that a copying program can be asked to keep.
pub fn oddities(dir: &Path) -> Result<()> {
    std::fs::create_dir_all(dir.join("empty folder"))?;
    std::fs::write(dir.join("empty"), b"")?;
    std::fs::write(dir.join(OsStr::from_bytes(b"not \xff utf-8 \n with a line break")), b"name")?;
    std::fs::write(dir.join("n".repeat(255)), b"the longest name")?;
    std::fs::write(dir.join("three names"), stream(1, 70_000))?;
    std::fs::hard_link(dir.join("three names"), dir.join("empty folder/second"))?;
    std::fs::hard_link(dir.join("three names"), dir.join("third"))?;
    std::os::unix::fs::symlink("nowhere/at/all", dir.join("dangling"))?;
    std::os::unix::fs::symlink("t".repeat(1000), dir.join("long link"))?;
    nix::unistd::mkfifo(&dir.join("pipe"), nix::sys::stat::Mode::from_bits_truncate(0o640))?;
    for (name, mode) in [("setuid", 0o4755), ("no rights", 0o000), ("all rights", 0o777)] {
        std::fs::write(dir.join(name), name)?;
        std::fs::set_permissions(dir.join(name), std::fs::Permissions::from_mode(mode))?;
    }
    sparse(&dir.join("sparse"))?;
    attributes(&dir.join("three names"))?;
    let old = File::options().write(true).open(dir.join("all rights"))?;
    let long_ago = SystemTime::UNIX_EPOCH + Duration::new(86_400, 123_456_789);
    old.set_times(FileTimes::new().set_modified(long_ago).set_accessed(long_ago))?;
    if nix::unistd::geteuid().is_root() {
        std::os::unix::fs::chown(dir.join("all rights"), Some(1234), Some(56_789))?;
    }
    Ok(())
}

/// 40 MiB of which three pages are there.
fn sparse(path: &Path) -> Result<()> {
    let mut file = File::create(path)?;
    for (at, byte) in [(0u64, 1u8), (17 << 20, 2), ((40 << 20) - 4096, 3)] {
        file.seek(SeekFrom::Start(at))?;
        file.write_all(&[byte; 4096])?;
    }
    Ok(())
}

fn attributes(path: &Path) -> Result<()> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    for (name, value) in [("user.short", &b"value"[..]), ("user.empty", b""), ("user.long", &[7; 3000])] {
        let name = CString::new(name)?;
        // SAFETY: both strings end with a zero, the value is valid for its length.
        let result =
            unsafe { libc::setxattr(path.as_ptr(), name.as_ptr(), value.as_ptr().cast(), value.len(), 0) };
        let error = std::io::Error::last_os_error();
        // The file system that the tests run on may have none; then there are none to keep.
        if result != 0 && error.raw_os_error() != Some(libc::EOPNOTSUPP) {
            return Err(error).context("setxattr");
        }
    }
    Ok(())
}

/// git, whoever owns the folders.
pub fn git(dir: &Path) -> Command {
    let mut command = Command::new("git");
    command.arg("-C").arg(dir);
    for (name, value) in
        [("GIT_CONFIG_COUNT", "1"), ("GIT_CONFIG_KEY_0", "safe.directory"), ("GIT_CONFIG_VALUE_0", "*")]
    {
        command.env(name, value);
    }
    for role in ["AUTHOR", "COMMITTER"] {
        command.env(format!("GIT_{role}_NAME"), "Test").env(format!("GIT_{role}_EMAIL"), "test@localhost");
    }
    command
}

/// A repository to clone from: some commits over real files.
pub fn repository(at: &Path, tree: &Path) -> Result<()> {
    std::fs::create_dir_all(at)?;
    run_ok(git(at).args(["init", "-q", "-b", "main"]), COPY_LIMIT)?;
    for folder in folders_in(tree).iter().filter(|folder| !folder.ends_with("oddities")).take(12) {
        run_ok(Command::new("cp").arg("-a").arg(folder).arg(at), COPY_LIMIT)?;
        run_ok(git(at).args(["add", "-A", "-f"]), COPY_LIMIT)?;
        run_ok(git(at).args(["commit", "-q", "-m", "More of it"]), COPY_LIMIT)?;
    }
    Ok(())
}

pub fn restic(repository: &Path) -> Command {
    let mut command = Command::new("restic");
    command.env("RESTIC_PASSWORD", "only for the test").env("RESTIC_REPOSITORY", repository);
    command.args(["--quiet", "--no-cache"]);
    command
}

/// `files` files of `size` bytes that no compression makes smaller, in folders of 64.
pub fn random_files(dir: &Path, files: usize, size: usize, seed: u64) -> Result<()> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut bytes = vec![0; size];
    for number in 0..files {
        let folder = dir.join(format!("{:03}", number / 64));
        std::fs::create_dir_all(&folder)?;
        rng.fill_bytes(&mut bytes);
        std::fs::write(folder.join(format!("file-{number:05}")), &bytes)?;
    }
    Ok(())
}

/// A folder of the test's own that holds a real tree, read-only from here on.
pub fn staged_tree(ctx: &Context) -> Result<PathBuf> {
    let path = ctx.dir.join("source");
    real_tree(&path)?;
    Ok(path)
}
