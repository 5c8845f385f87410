//! Counting what goes over the sockets.
//!
//! A test that runs as root has a network of its own (the runner makes it), in which the loopback device carries the
//! test's bytes and nothing else; each byte is counted once, headers included, in both directions.

use std::ffi::CString;

use anyhow::{Context as _, Result};

/// Bytes that the loopback device has carried.
pub fn loopback_bytes() -> Result<u64> {
    let table = std::fs::read_to_string("/proc/net/dev")?;
    let line =
        table.lines().find_map(|line| line.trim().strip_prefix("lo:")).context("no loopback device")?;
    Ok(line.split_whitespace().next().context("/proc/net/dev")?.parse()?)
}

/// Puts this process, and all that it starts, into a new network with only a loopback device. False where that is not
/// allowed: then the counts hold what other programs send, too.
pub fn enter_own_network() -> bool {
    // SAFETY: a plain system call; it changes what this process sees and nothing in its memory.
    let entered = unsafe { libc::unshare(libc::CLONE_NEWNET) == 0 };
    entered && raise_loopback().is_ok()
}

fn raise_loopback() -> Result<()> {
    let name = CString::new("lo")?;
    // SAFETY: plain socket and ioctl calls on a zeroed request whose name is shorter than its field.
    unsafe {
        let socket = libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0);
        anyhow::ensure!(socket >= 0, "socket: {}", std::io::Error::last_os_error());
        let mut request: libc::ifreq = std::mem::zeroed();
        std::ptr::copy_nonoverlapping(name.as_ptr(), request.ifr_name.as_mut_ptr(), 2);
        request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
        let result = libc::ioctl(socket, libc::SIOCSIFFLAGS, &request);
        let error = std::io::Error::last_os_error();
        libc::close(socket);
        anyhow::ensure!(result == 0, "raising the loopback device: {error}");
    }
    Ok(())
}
