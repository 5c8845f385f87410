//! Mounting and unmounting.
//!
//! Root mounts by mount(2), everybody else by fusermount3. fuser's own mounting is not used because it ties the option
//! `allow_other` to a check of the caller of each request, and the kernel's flusher (which is root) would then fail
//! to write a user's file times.

use std::ffi::CString;
use std::fs::{File, OpenOptions};
use std::io::{self, IoSliceMut, Read};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use fuser::{Config, Session, SessionACL};
use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags};
use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};

use crate::vfs::{Synced, Vfs};

use super::edge::Edge;
use super::serving::Serving;
use super::{MountError, MountOptions};

/// How often leftovers are looked for: orphans that wait for their rows to go, access times to be written.
const HOUSEKEEPING: Duration = Duration::from_secs(5);
/// Rows that one round of housekeeping takes away.
const RECLAIM_ROWS: usize = 65_536;
/// How long an unmount waits for the last answers: so many looks, so far apart.
const UNMOUNT_LOOKS: u32 = 2_000;
const UNMOUNT_LOOK: Duration = Duration::from_millis(5);

/// A mounted file system. Dropping it unmounts (lazily, if it is in use).
pub struct MountHandle {
    mountpoint: PathBuf,
    /// "major:minor" of the mount, by which it is told from one that came after it.
    device: Option<String>,
    session: Option<JoinHandle<io::Result<()>>>,
    housekeeping: Option<JoinHandle<()>>,
    ended: Arc<AtomicBool>,
}

/// Mounts `vfs` at `mountpoint` and serves it until [`MountHandle::unmount`], or until somebody else unmounts it.
pub fn mount(vfs: Arc<Vfs>, mountpoint: &Path, options: &MountOptions) -> Result<MountHandle, MountError> {
    let mountpoint = clear_mountpoint(mountpoint)?;
    let fd = if nix::unistd::geteuid().is_root() {
        mount_as_root(&mountpoint, options)?
    } else {
        mount_as_user(&mountpoint, options)?
    };
    let mut config = Config::default();
    config.n_threads = Some(
        options
            .threads
            .unwrap_or_else(|| std::thread::available_parallelism().map_or(2, |n| n.get()).clamp(2, 16)),
    );
    config.clone_fd = true;
    // The kernel sees to data alone.
    vfs.set_synced(match (options.sync, options.dirsync) {
        (true, _) => Synced::All,
        (false, true) => Synced::Names,
        (false, false) => Synced::Asked,
    });
    let edge = Edge::new(vfs.clone(), options);
    let notifier = edge.notifier();
    let started = Session::from_fd(Serving::new(edge, options.follow), fd, SessionACL::All, config).and_then(
        |session| {
            // Nobody has set it before: the edge was made here.
            let _ = notifier.set(session.notifier());
            std::thread::Builder::new().name("holdfast-fuse".to_owned()).spawn(move || session.run())
        },
    );
    let session = match started {
        Ok(session) => session,
        Err(source) => {
            let _ = unmount_path(&mountpoint, true);
            return Err(MountError::Io { what: "the first words with the kernel", source });
        }
    };
    let ended = Arc::new(AtomicBool::new(false));
    let housekeeping = {
        let ended = ended.clone();
        std::thread::Builder::new().name("holdfast-keep".to_owned()).spawn(move || keep_house(&vfs, &ended))
    };
    let housekeeping = housekeeping.map_err(|error| tracing::warn!(%error, "no housekeeping thread")).ok();
    let device = mounted_device(&mountpoint);
    Ok(MountHandle { mountpoint, device, session: Some(session), housekeeping, ended })
}

fn keep_house(vfs: &Vfs, ended: &AtomicBool) {
    vfs.set_keeper();
    while !ended.load(Ordering::Acquire) {
        std::thread::park_timeout(HOUSEKEEPING);
        // Who wants room does not shorten the time that files outlive their names.
        if !vfs.was_hastened() {
            vfs.begin_round();
        }
        if let Err(error) = vfs.reclaim(RECLAIM_ROWS).and_then(|_| vfs.write_atimes()) {
            tracing::warn!(%error, "housekeeping");
        }
    }
}

impl MountHandle {
    pub fn mountpoint(&self) -> &Path {
        &self.mountpoint
    }

    /// Whether requests are still being served; false once anybody has unmounted it.
    pub fn is_serving(&self) -> bool {
        self.session.as_ref().is_some_and(|session| !session.is_finished())
    }

    /// Unmounts and waits until the last request is answered. A busy mount is refused, unless `lazy`: then it leaves
    /// the tree at once and ends when its last user does, who is served until then.
    pub fn unmount(mut self, lazy: bool) -> Result<(), (Self, MountError)> {
        if self.is_serving()
            && self.is_mounted()
            && let Err(error) = unmount_path(&self.mountpoint, lazy)
        {
            return Err((self, error));
        }
        for _ in 0..UNMOUNT_LOOKS {
            if !self.is_serving() {
                break;
            }
            std::thread::sleep(UNMOUNT_LOOK);
        }
        self.finish();
        Ok(())
    }

    /// Waits until the file system is unmounted, by whomever.
    pub fn wait(mut self) -> io::Result<()> {
        let result = self.session.take().map(JoinHandle::join);
        self.finish();
        match result {
            Some(Ok(result)) => result,
            Some(Err(_)) => Err(io::Error::other("a thread that served requests panicked")),
            None => Ok(()),
        }
    }

    /// Whether this very mount is still at its place in the tree.
    pub fn is_mounted(&self) -> bool {
        self.device.is_none() || mounted_device(&self.mountpoint) == self.device
    }

    fn finish(&mut self) {
        self.ended.store(true, Ordering::Release);
        if let Some(housekeeping) = self.housekeeping.take() {
            housekeeping.thread().unpark();
            let _ = housekeeping.join();
        }
        if self.session.as_ref().is_some_and(JoinHandle::is_finished)
            && let Some(session) = self.session.take()
        {
            let _ = session.join();
        }
    }
}

impl Drop for MountHandle {
    fn drop(&mut self) {
        if self.is_serving() && self.is_mounted() {
            let _ = unmount_path(&self.mountpoint, true);
        }
        self.finish();
    }
}

/// The mountpoint's real path; a mount whose daemon died there is taken away first.
fn clear_mountpoint(path: &Path) -> Result<PathBuf, MountError> {
    let at = |source| MountError::Mountpoint { path: path.to_owned(), source };
    if let Err(error) = std::fs::metadata(path)
        && error.raw_os_error() == Some(libc::ENOTCONN)
    {
        unmount_path(path, true)?;
    }
    let path = path.canonicalize().map_err(at)?;
    if !path.is_dir() {
        return Err(at(io::Error::from_raw_os_error(libc::ENOTDIR)));
    }
    Ok(path)
}

fn mount_as_root(mountpoint: &Path, options: &MountOptions) -> Result<OwnedFd, MountError> {
    let device = OpenOptions::new().read(true).write(true).custom_flags(libc::O_CLOEXEC).open("/dev/fuse");
    let device = device.map_err(|source| match source.raw_os_error() {
        Some(libc::ENOENT | libc::ENODEV | libc::ENXIO) => MountError::NoDevice,
        _ => MountError::Io { what: "/dev/fuse", source },
    })?;
    let mut data = format!(
        "fd={},rootmode=40000,user_id={},group_id={},default_permissions",
        device.as_raw_fd(),
        nix::unistd::getuid(),
        nix::unistd::getgid()
    );
    if options.allow_other {
        data.push_str(",allow_other");
    }
    if let Some(bytes) = options.max_read {
        data.push_str(&format!(",max_read={bytes}"));
    }
    let flags = [
        (options.read_only, MsFlags::MS_RDONLY),
        (!options.suid, MsFlags::MS_NOSUID),
        (!options.dev, MsFlags::MS_NODEV),
        (!options.exec, MsFlags::MS_NOEXEC),
        (!options.atime, MsFlags::MS_NOATIME),
        (!options.dir_atime, MsFlags::MS_NODIRATIME),
        (options.sync, MsFlags::MS_SYNCHRONOUS),
        (options.dirsync, MsFlags::MS_DIRSYNC),
    ];
    let flags = flags.into_iter().filter(|(on, _)| *on).fold(MsFlags::empty(), |all, (_, flag)| all | flag);
    let kind = format!("fuse.{}", options.subtype);
    nix::mount::mount(
        Some(options.fsname.as_str()),
        mountpoint,
        Some(kind.as_str()),
        flags,
        Some(data.as_str()),
    )
    .map_err(|error| MountError::Io { what: "mount", source: error.into() })?;
    Ok(File::into(device))
}

fn mount_as_user(mountpoint: &Path, options: &MountOptions) -> Result<OwnedFd, MountError> {
    if !Path::new("/dev/fuse").exists() {
        return Err(MountError::NoDevice);
    }
    let io = |what| move |source| MountError::Io { what, source };
    let (ours, theirs) = UnixStream::pair().map_err(io("a socket for fusermount3"))?;
    let mut list = vec![
        format!("fsname={}", options.fsname),
        format!("subtype={}", options.subtype),
        "default_permissions".to_owned(),
    ];
    let words = [
        (options.read_only, "ro"),
        (options.allow_other, "allow_other"),
        (!options.exec, "noexec"),
        (!options.atime, "noatime"),
        (options.sync, "sync"),
        (options.dirsync, "dirsync"),
        // A user gets these only if root may give them.
        (options.suid, "suid"),
        (options.dev, "dev"),
    ];
    list.extend(words.into_iter().filter(|(on, _)| *on).map(|(_, word)| word.to_owned()));
    list.extend(options.max_read.map(|bytes| format!("max_read={bytes}")));
    let inherited = nix::fcntl::fcntl(&theirs, nix::fcntl::FcntlArg::F_SETFD(nix::fcntl::FdFlag::empty()));
    inherited.map_err(|error| MountError::Io { what: "a socket for fusermount3", source: error.into() })?;
    let mut child = Command::new("fusermount3")
        .args(["-o", &list.join(","), "--"])
        .arg(mountpoint)
        .env("_FUSE_COMMFD", theirs.as_raw_fd().to_string())
        .stdin(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|source| match source.kind() {
            io::ErrorKind::NotFound => MountError::NoFusermount,
            _ => MountError::Io { what: "fusermount3", source },
        })?;
    drop(theirs);
    let received = receive_fd(&ours);
    let mut words = String::new();
    if let Some(stderr) = child.stderr.take() {
        // Bounded, and only for a message.
        let _ = stderr.take(4096).read_to_string(&mut words);
    }
    let _ = child.wait();
    received.ok_or_else(|| MountError::Fusermount(words.trim().to_owned()))
}

/// The descriptor of /dev/fuse that fusermount3 sends when it has mounted.
fn receive_fd(socket: &UnixStream) -> Option<OwnedFd> {
    let mut byte = [0u8; 1];
    let mut parts = [IoSliceMut::new(&mut byte)];
    let mut control = nix::cmsg_space!([RawFd; 1]);
    let message =
        recvmsg::<()>(socket.as_raw_fd(), &mut parts, Some(&mut control), MsgFlags::MSG_CMSG_CLOEXEC).ok()?;
    for part in message.cmsgs().ok()? {
        if let ControlMessageOwned::ScmRights(fds) = part
            && let Some(fd) = fds.first()
        {
            // SAFETY: the kernel has just made this descriptor for us; nobody else knows it.
            return Some(unsafe { OwnedFd::from_raw_fd(*fd) });
        }
    }
    None
}

fn unmount_path(mountpoint: &Path, lazy: bool) -> Result<(), MountError> {
    let flags = if lazy { MntFlags::MNT_DETACH } else { MntFlags::empty() };
    match nix::mount::umount2(mountpoint, flags | MntFlags::UMOUNT_NOFOLLOW) {
        // EINVAL: nothing is mounted there any more.
        Ok(()) | Err(Errno::EINVAL) => Ok(()),
        Err(Errno::EBUSY) => Err(MountError::Busy(mountpoint.to_owned())),
        Err(Errno::EPERM) => unmount_as_user(mountpoint, lazy),
        Err(error) => Err(MountError::Io { what: "unmount", source: error.into() }),
    }
}

fn unmount_as_user(mountpoint: &Path, lazy: bool) -> Result<(), MountError> {
    let mut command = Command::new("fusermount3");
    command.arg("-u").args(lazy.then_some("-z")).arg("--").arg(mountpoint).stdin(Stdio::null());
    let output = command.output().map_err(|source| match source.kind() {
        io::ErrorKind::NotFound => MountError::NoFusermount,
        _ => MountError::Io { what: "fusermount3", source },
    })?;
    if output.status.success() {
        return Ok(());
    }
    let words = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    if words.contains("busy") {
        return Err(MountError::Busy(mountpoint.to_owned()));
    }
    let words = match words.contains("/etc/mtab") && !Path::new("/etc/mtab").exists() {
        true => format!("{words}; as root: `ln -s /proc/self/mounts /etc/mtab`"),
        false => words,
    };
    Err(MountError::Fusermount(words))
}

/// "major:minor" of what is mounted exactly at `path`, without asking the file system itself.
fn mounted_device(path: &Path) -> Option<String> {
    let table = std::fs::read("/proc/self/mountinfo").ok()?;
    let wanted = escape(path)?;
    // id parent major:minor root mountpoint ...; the last one at a place lies on top.
    let at = |line: &[u8]| {
        let mut fields = line.split(|b| *b == b' ').skip(2);
        let device = fields.next()?;
        (fields.nth(1)? == wanted.as_bytes()).then(|| String::from_utf8_lossy(device).into_owned())
    };
    table.split(|b| *b == b'\n').filter_map(at).next_back()
}

/// A path as mountinfo writes it.
fn escape(path: &Path) -> Option<CString> {
    let mut out = Vec::new();
    for byte in path.as_os_str().as_bytes() {
        match byte {
            b' ' | b'\t' | b'\n' | b'\\' => out.extend_from_slice(format!("\\{byte:03o}").as_bytes()),
            _ => out.push(*byte),
        }
    }
    CString::new(out).ok()
}
