//! Which process is which: a record that names a process for good, and ending exactly that one.
//!
//! ```text
//!   daemon.pid, provider.pid:  "PID START BOOT\n"   START: field 22 of /proc/PID/stat, BOOT: the kernel's boot id
//! ```
//!
//! A pid alone is reused; with its start time and the boot it is not. Signals go through a pidfd, opened before the
//! record is compared, so that they cannot reach a successor.

use std::{
    fs, io,
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
    path::Path,
    time::Duration,
};

use crate::home::{HomeError, write_atomically};

/// Names one process of this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProcessRecord {
    pub pid: u32,
    start: u64,
    boot: String,
}

impl ProcessRecord {
    pub fn of_this_process() -> io::Result<ProcessRecord> {
        let pid = std::process::id();
        Ok(ProcessRecord { pid, start: start_time(pid)?, boot: boot_id()? })
    }

    /// Absent or unreadable records name nobody.
    pub fn read(path: &Path) -> Option<ProcessRecord> {
        ProcessRecord::parse(&fs::read_to_string(path).ok()?)
    }

    pub(crate) fn parse(text: &str) -> Option<ProcessRecord> {
        let mut words = text.split_whitespace();
        let record = ProcessRecord {
            pid: words.next()?.parse().ok().filter(|pid| *pid > 0)?,
            start: words.next()?.parse().ok()?,
            boot: words.next()?.to_owned(),
        };
        words.next().is_none().then_some(record)
    }

    pub fn write(&self, path: &Path) -> Result<(), HomeError> {
        write_atomically(path, format!("{} {} {}\n", self.pid, self.start, self.boot).as_bytes())
    }

    /// The process, if it still runs.
    pub fn find(&self) -> Option<ProcessHandle> {
        let pid = libc::c_long::from(i32::try_from(self.pid).ok()?);
        // SAFETY: plain system call with integers; the result is checked before it is owned.
        let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0 as libc::c_long) };
        let fd = i32::try_from(fd).ok().filter(|fd| *fd >= 0)?;
        // SAFETY: a fresh descriptor that nothing else owns.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        let same = boot_id().ok()? == self.boot && start_time(self.pid).ok()? == self.start;
        let handle = ProcessHandle { fd };
        (same && !handle.has_ended(Duration::ZERO)).then_some(handle)
    }
}

/// A running process, by a descriptor that cannot come to mean another.
#[derive(Debug)]
pub struct ProcessHandle {
    fd: OwnedFd,
}

impl ProcessHandle {
    /// SIGTERM, SIGKILL. A process that has ended is no error.
    pub fn signal(&self, signal: nix::sys::signal::Signal) -> io::Result<()> {
        // SAFETY: the descriptor is open, the information pointer may be null.
        let result = unsafe {
            libc::syscall(
                libc::SYS_pidfd_send_signal,
                libc::c_long::from(self.fd.as_raw_fd()),
                libc::c_long::from(signal as i32),
                std::ptr::null::<libc::siginfo_t>(),
                0 as libc::c_long,
            )
        };
        match result {
            0 => Ok(()),
            _ => match io::Error::last_os_error() {
                error if error.raw_os_error() == Some(libc::ESRCH) => Ok(()),
                error => Err(error),
            },
        }
    }

    /// Waits until it has ended, or the time is over.
    pub fn has_ended(&self, patience: Duration) -> bool {
        let mut poll = libc::pollfd { fd: self.fd.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        let milliseconds = i32::try_from(patience.as_millis()).unwrap_or(i32::MAX);
        // SAFETY: one valid pollfd.
        unsafe { libc::poll(&mut poll, 1, milliseconds) == 1 }
    }

    /// SIGTERM, some patience, SIGKILL. Returns whether SIGTERM was enough.
    pub fn end(&self, patience: Duration) -> io::Result<bool> {
        use nix::sys::signal::Signal::{SIGKILL, SIGTERM};
        self.signal(SIGTERM)?;
        if self.has_ended(patience) {
            return Ok(true);
        }
        self.signal(SIGKILL)?;
        self.has_ended(Duration::from_secs(10));
        Ok(false)
    }
}

fn boot_id() -> io::Result<String> {
    Ok(fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim().to_owned())
}

/// Clock ticks from boot to the start of the process.
fn start_time(pid: u32) -> io::Result<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The second field is the program's name in brackets, which may hold anything; the 22nd counts from there.
    let after = stat.rsplit_once(')').map_or("", |(_, after)| after);
    let field = after.split_whitespace().nth(19).and_then(|f| f.parse().ok());
    field.ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn record_of(pid: u32) -> ProcessRecord {
        ProcessRecord { pid, start: start_time(pid).unwrap(), boot: boot_id().unwrap() }
    }

    #[test]
    fn ends_the_right_process_only() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pid");
        let mut child = std::process::Command::new("sleep").arg("100").spawn().unwrap();
        let record = record_of(child.id());
        record.write(&path).unwrap();
        assert_eq!(ProcessRecord::read(&path).unwrap(), record);
        let mut other = record.clone();
        other.start += 1;
        assert!(other.find().is_none(), "a successor with the same pid");
        other = record.clone();
        other.boot = "another".into();
        assert!(other.find().is_none(), "the same pid before a reboot");
        let handle = record.find().unwrap();
        assert!(!handle.has_ended(Duration::ZERO));
        assert!(handle.end(Duration::from_secs(10)).unwrap());
        child.wait().unwrap();
        assert!(record.find().is_none());
        handle.signal(nix::sys::signal::Signal::SIGTERM).unwrap();
    }

    #[test]
    fn nonsense_names_nobody() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pid");
        for text in ["", "12", "0 1 x", "a b c", "1 2 3 4", "-1 2 x"] {
            fs::write(&path, text).unwrap();
            assert!(ProcessRecord::read(&path).is_none(), "{text}");
        }
        assert!(ProcessRecord::read(&dir.path().join("absent")).is_none());
    }
}
