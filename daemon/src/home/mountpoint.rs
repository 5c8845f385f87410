//! The folder that the drive is mounted on: checked before, and unwritable while the drive is not there.
//!
//! A program that writes below an unmounted mountpoint fills the local disk and believes it has made a backup. So the
//! bare folder gets mode 0555; and because modes do not stop root, a daemon that runs as root sets the immutable flag
//! too, where the file system has one. fusermount3 refuses folders that its user cannot write to, so the folder is opened
//! up for the moment of mounting and closed again through a descriptor of the bare folder, under the mount.
//!
//! Refuses: folders that hold something, that are mounted on already, that contain the home or lie in it.

use std::{
    fs::{self, File, Permissions},
    io,
    os::fd::AsRawFd,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
    process::Command,
    sync::atomic::{AtomicBool, Ordering},
};

const BARE_MODE: u32 = 0o555;
const OPEN_MODE: u32 = 0o755;
/// `FS_IMMUTABLE_FL` of linux/fs.h.
const IMMUTABLE: libc::c_long = 0x10;

nix::ioctl_read!(get_flags, b'f', 1, libc::c_long);
nix::ioctl_write_ptr!(set_flags, b'f', 2, libc::c_long);

#[derive(Debug, thiserror::Error)]
pub enum MountpointError {
    #[error("{} is not empty: the drive is mounted on an empty folder", .0.display())]
    NotEmpty(PathBuf),
    #[error("{} is not a folder", .0.display())]
    NotFolder(PathBuf),
    #[error("something is mounted on {} already ({what})", .path.display())]
    Mounted { path: PathBuf, what: String },
    #[error("{} lies in the drive's home folder {}", .path.display(), .home.display())]
    InHome { path: PathBuf, home: PathBuf },
    #[error("the drive's home folder {} lies in {}: the drive cannot hold its own storage", .home.display(), .path.display())]
    HoldsHome { path: PathBuf, home: PathBuf },
    #[error("cannot {action} {}: {source}", .path.display())]
    Io { action: &'static str, path: PathBuf, source: io::Error },
    #[error("a dead mount on {} cannot be removed: {reason}", .path.display())]
    Stale { path: PathBuf, reason: String },
    #[error("this machine cannot mount: {0}")]
    NoFuse(String),
}

/// A checked mountpoint, open for mounting until it is closed. Dropped without that, as after a passphrase that was wrong, it
/// is what it was before.
#[derive(Debug)]
pub struct Mountpoint {
    path: PathBuf,
    bare: File,
    /// The owner wants an ordinary folder.
    plain: bool,
    before: Before,
    /// Something was mounted.
    used: AtomicBool,
}

/// A folder as it was found.
#[derive(Debug)]
struct Before {
    /// It was not there.
    made: bool,
    mode: u32,
    immutable: bool,
}

impl Mountpoint {
    /// Makes the folder where it is missing, checks it, takes a dead mount of ours away, opens it up.
    pub fn prepare(path: &Path, home: &Path, plain: bool) -> Result<Mountpoint, MountpointError> {
        let failed = |action, source| MountpointError::Io { action, path: path.to_owned(), source };
        remove_dead_mount(path)?;
        let mut made = false;
        if fs::symlink_metadata(path).is_err_and(|e| e.kind() == io::ErrorKind::NotFound) {
            // Checked before it is made, so that a refusal leaves nothing behind.
            check_places(&absolute(path).map_err(|e| failed("resolve", e))?, home)?;
            fs::create_dir_all(path).map_err(|e| failed("make", e))?;
            made = true;
        }
        let path = path.canonicalize().map_err(|e| failed("open", e))?;
        let metadata = fs::metadata(&path).map_err(|e| failed("open", e))?;
        if !metadata.is_dir() {
            return Err(MountpointError::NotFolder(path));
        }
        check_places(&path, home)?;
        if let Some(what) = mounted_on(&path) {
            return Err(MountpointError::Mounted { path, what });
        }
        if fs::read_dir(&path).map_err(|e| failed("read", e))?.next().is_some() {
            return Err(MountpointError::NotEmpty(path));
        }
        let bare = File::open(&path).map_err(|e| failed("open", e))?;
        let before = Before { made, mode: metadata.mode() & 0o7777, immutable: is_immutable(&bare) };
        let mountpoint = Mountpoint { path, bare, plain, before, used: AtomicBool::new(false) };
        mountpoint.open_up(metadata.uid()).map_err(|e| failed("open up", e))?;
        Ok(mountpoint)
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    fn open_up(&self, owner: u32) -> io::Result<()> {
        set_immutable(&self.bare, false);
        let me = nix::unistd::geteuid().as_raw();
        // Somebody else's folder that we may write to is left as it is.
        if owner == me && self.bare.metadata()?.mode() & 0o200 == 0 {
            self.bare.set_permissions(Permissions::from_mode(OPEN_MODE))?;
        }
        Ok(())
    }

    /// Makes the bare folder unwritable; called once the drive is mounted over it, and again when it is not any more.
    pub fn close(&self) {
        self.used.store(true, Ordering::Relaxed);
        if self.plain {
            return;
        }
        // The flag of the time before forbids changing the mode, too.
        set_immutable(&self.bare, false);
        if let Err(error) = self.bare.set_permissions(Permissions::from_mode(BARE_MODE)) {
            tracing::warn!(%error, "the bare mountpoint stays writable");
        }
        set_immutable(&self.bare, true);
    }

    /// Nothing was mounted: as it was found. Where it cannot be, it is an open folder.
    fn undo(&self) {
        if self.before.made {
            let _ = fs::remove_dir(&self.path);
            return;
        }
        if self.bare.metadata().is_ok_and(|now| now.mode() & 0o7777 != self.before.mode) {
            let _ = self.bare.set_permissions(Permissions::from_mode(self.before.mode));
        }
        if self.before.immutable {
            set_immutable(&self.bare, true);
        }
    }
}

impl Drop for Mountpoint {
    fn drop(&mut self) {
        if *self.used.get_mut() { self.close() } else { self.undo() }
    }
}

/// Makes a bare mountpoint an ordinary folder again.
pub fn free(path: &Path) -> io::Result<()> {
    let bare = File::open(path)?;
    set_immutable(&bare, false);
    bare.set_permissions(Permissions::from_mode(OPEN_MODE))
}

fn is_immutable(folder: &File) -> bool {
    let mut flags: libc::c_long = 0;
    // SAFETY: `flags` is a valid long, which is what the request takes, and the descriptor is open.
    let known = unsafe { get_flags(folder.as_raw_fd(), &mut flags) }.is_ok();
    known && flags & IMMUTABLE != 0
}

/// Root only, and only where the file system knows the flag; elsewhere the mode must do.
fn set_immutable(folder: &File, on: bool) {
    if !nix::unistd::geteuid().is_root() {
        return;
    }
    let fd = folder.as_raw_fd();
    let mut flags: libc::c_long = 0;
    // SAFETY: `flags` is a valid long, which is what both requests take, and the descriptor is open.
    let known = unsafe { get_flags(fd, &mut flags) }.is_ok();
    let wanted = if on { flags | IMMUTABLE } else { flags & !IMMUTABLE };
    if known && wanted != flags {
        // SAFETY: as above.
        if let Err(error) = unsafe { set_flags(fd, &wanted) } {
            tracing::debug!(%error, on, "the immutable flag of the mountpoint cannot be changed");
        }
    }
}

fn absolute(path: &Path) -> io::Result<PathBuf> {
    let path = std::path::absolute(path)?;
    // The longest part that exists is resolved: a link may lead into the home folder.
    let mut rest = Vec::new();
    let mut base = path.as_path();
    loop {
        match base.canonicalize() {
            Ok(real) => return Ok(rest.iter().rev().fold(real, |p, name| p.join(name))),
            Err(error) => match (base.parent(), base.file_name()) {
                (Some(parent), Some(name)) => {
                    rest.push(name.to_owned());
                    base = parent;
                }
                _ => return Err(error),
            },
        }
    }
}

fn check_places(path: &Path, home: &Path) -> Result<(), MountpointError> {
    let (path, home) = (path.to_owned(), home.to_owned());
    if home.starts_with(&path) {
        return Err(MountpointError::HoldsHome { path, home });
    }
    if path.starts_with(&home) {
        return Err(MountpointError::InHome { path, home });
    }
    Ok(())
}

/// One line of /proc/self/mountinfo, as far as we need it.
struct MountLine {
    path: PathBuf,
    kind: String,
    source: String,
}

fn mount_table() -> Vec<MountLine> {
    let text = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let parse = |line: &str| {
        let (before, after) = line.split_once(" - ")?;
        let path = PathBuf::from(unescape(before.split(' ').nth(4)?));
        let mut after = after.split(' ');
        Some(MountLine { path, kind: after.next()?.to_owned(), source: unescape(after.next()?) })
    };
    text.lines().filter_map(parse).collect()
}

/// The kernel writes blanks, tabs, newlines and backslashes in paths as three octal digits.
fn unescape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('\\') {
        out.push_str(before);
        let code = after.get(..3).and_then(|digits| u8::from_str_radix(digits, 8).ok());
        match code {
            Some(code) => {
                out.push(char::from(code));
                rest = after.get(3..).unwrap_or_default();
            }
            None => {
                out.push('\\');
                rest = after;
            }
        }
    }
    out + rest
}

/// What is mounted on exactly this path, if anything.
pub fn mounted_on(path: &Path) -> Option<String> {
    let line = mount_table().into_iter().rfind(|line| line.path == path)?;
    Some(format!("{}, {}", line.kind, line.source))
}

/// Whether a Holdfast drive is mounted on this path.
pub fn is_ours(path: &Path) -> bool {
    mount_table().iter().rfind(|line| line.path == path).is_some_and(|line| {
        line.kind.starts_with("fuse") && (line.kind.contains("holdfast") || line.source.contains("holdfast"))
    })
}

/// After a daemon was killed its mount stays and answers "not connected"; nobody can use it, so it goes.
fn remove_dead_mount(path: &Path) -> Result<(), MountpointError> {
    for _ in 0..8 {
        match fs::metadata(path) {
            Err(error) if error.raw_os_error() == Some(libc::ENOTCONN) => {}
            _ => return Ok(()),
        }
        // The mountpoint itself cannot be resolved, its parent can.
        let real = match (
            path.parent().map(|p| if p.as_os_str().is_empty() { Path::new(".") } else { p }),
            path.file_name(),
        ) {
            (Some(parent), Some(name)) => {
                parent.canonicalize().map(|p| p.join(name)).unwrap_or_else(|_| path.to_owned())
            }
            _ => path.to_owned(),
        };
        if !is_ours(&real) {
            return Err(MountpointError::Mounted {
                path: real,
                what: "a dead mount of another program".into(),
            });
        }
        tracing::info!(path = %real.display(), "removing the mount that a killed daemon left");
        detach(&real)?;
    }
    Err(MountpointError::Stale { path: path.to_owned(), reason: "it comes back".into() })
}

/// Unmounts lazily: open files go on, the name is free at once.
pub fn detach(path: &Path) -> Result<(), MountpointError> {
    let stale = |reason: String| MountpointError::Stale { path: path.to_owned(), reason };
    if nix::unistd::geteuid().is_root() {
        return nix::mount::umount2(path, nix::mount::MntFlags::MNT_DETACH).map_err(|e| stale(e.to_string()));
    }
    let Some(program) = fusermount() else { return Err(stale("fusermount3 is not installed".into())) };
    let run = Command::new(program).args(["-u", "-z", "--"]).arg(path).output();
    match run {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => Err(stale(String::from_utf8_lossy(&output.stderr).trim().to_owned())),
        Err(error) => Err(stale(error.to_string())),
    }
}

fn fusermount() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_else(|| "/usr/bin:/bin".into());
    let found = |name: &str| std::env::split_paths(&path).map(|dir| dir.join(name)).find(|p| p.is_file());
    found("fusermount3").or_else(|| found("fusermount"))
}

/// Whether this machine can mount at all; says what is missing and how to get it.
pub fn check_fuse() -> Result<(), MountpointError> {
    let no = |text: &str| Err(MountpointError::NoFuse(text.to_owned()));
    let root = nix::unistd::geteuid().is_root();
    match fs::OpenOptions::new().read(true).write(true).open("/dev/fuse") {
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return no("there is no /dev/fuse. As root: `modprobe fuse`; in a container: start it with \
                       `--device /dev/fuse --cap-add SYS_ADMIN`");
        }
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied && root => {
            return no(
                "this container may not use /dev/fuse: start it with `--device /dev/fuse --cap-add SYS_ADMIN`",
            );
        }
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            return no("you may not open /dev/fuse: as root, `chmod 666 /dev/fuse` (what most systems have)");
        }
        Err(error) => {
            return no(&format!("/dev/fuse cannot be opened ({error}); is the kernel's FUSE there?"));
        }
    }
    if !root && fusermount().is_none() {
        return no("fusermount3 is not installed (Debian and Ubuntu: `apt-get install fuse3`)");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn refuses_what_would_hurt() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap();
        let home = root.join("a/home");
        fs::create_dir_all(&home).unwrap();
        let prepare = |p: &Path| Mountpoint::prepare(p, &home, true);
        assert!(matches!(prepare(&root.join("a")), Err(MountpointError::HoldsHome { .. })));
        assert!(matches!(prepare(&home), Err(MountpointError::HoldsHome { .. })));
        assert!(matches!(prepare(&home.join("x/y")), Err(MountpointError::InHome { .. })));
        assert!(!home.join("x").exists());
        std::os::unix::fs::symlink(&home, root.join("link")).unwrap();
        assert!(matches!(prepare(&root.join("link/m")), Err(MountpointError::InHome { .. })));
        fs::write(root.join("file"), b"x").unwrap();
        assert!(matches!(prepare(&root.join("file")), Err(MountpointError::NotFolder(_))));
        fs::create_dir(root.join("full")).unwrap();
        fs::write(root.join("full/x"), b"x").unwrap();
        assert!(matches!(prepare(&root.join("full")), Err(MountpointError::NotEmpty(_))));
        assert!(matches!(prepare(Path::new("/proc")), Err(MountpointError::Mounted { .. })));
    }

    #[test]
    fn the_bare_folder_is_unwritable_and_can_be_freed() {
        let dir = tempfile::tempdir().unwrap();
        let home = dir.path().join("home");
        let path = dir.path().join("m n");
        for _ in 0..2 {
            let mountpoint = Mountpoint::prepare(&path, &home, false).unwrap();
            assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o755);
            mountpoint.close();
            assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o555);
        }
        free(&path).unwrap();
        fs::write(path.join("x"), b"x").unwrap();
    }

    #[test]
    fn a_folder_that_nothing_was_mounted_on_stays_as_it_was() {
        let dir = tempfile::tempdir().unwrap();
        let (home, path) = (dir.path().join("home"), dir.path().join("m"));
        let mode = || fs::metadata(&path).unwrap().mode() & 0o777;
        drop(Mountpoint::prepare(&path, &home, false).unwrap());
        assert!(!path.exists(), "it was made for nothing");
        fs::create_dir(&path).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o750)).unwrap();
        drop(Mountpoint::prepare(&path, &home, false).unwrap());
        assert_eq!(mode(), 0o750);
        Mountpoint::prepare(&path, &home, false).unwrap().close();
        let immutable = || is_immutable(&File::open(&path).unwrap());
        // Only root sets it, and only where the file system has it.
        let closed = immutable();
        for plain in [false, true] {
            drop(Mountpoint::prepare(&path, &home, plain).unwrap());
            assert_eq!(mode(), 0o555, "it was closed before");
            assert_eq!(immutable(), closed);
        }
        free(&path).unwrap();
    }

    #[test]
    fn octal_escapes() {
        assert_eq!(unescape(r"/a\040b\134c"), r"/a b\c");
        assert_eq!(unescape(r"\9"), r"\9");
    }
}
