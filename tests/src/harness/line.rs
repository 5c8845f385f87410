//! A line with a length: packets between two namespaces come after a time.
//!
//! ```text
//!   bridge's namespace ── TUN lineN ── [queue, half a round trip] ── TUN eth0 ── the host's namespace
//! ```
//!
//! This kernel has no netem. The queues are threads of this process, so the line ends with it. What rate a line has is tbf's matter ([`Host::limit`]).

use std::fs::{File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::os::fd::AsRawFd as _;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, ensure};

const PACKET_BYTES_MAX: usize = 65_536;

/// A TUN device, made in another network namespace.
pub(super) fn tun(namespace: File, name: &str) -> Result<File> {
    let name = name.to_owned();
    // Only one thread moves, and ends there.
    let made = std::thread::spawn(move || -> Result<File> {
        // SAFETY: a plain system call on a descriptor that is open; it changes what this thread sees and nothing in its memory.
        let entered = unsafe { libc::setns(namespace.as_raw_fd(), libc::CLONE_NEWNET) };
        ensure!(entered == 0, "setns: {}", std::io::Error::last_os_error());
        let file = OpenOptions::new().read(true).write(true).open("/dev/net/tun").context("/dev/net/tun")?;
        // struct ifreq: a name of 16 bytes, flags, and room up to 40 bytes.
        let mut request = [0u8; 40];
        request[..name.len()].copy_from_slice(name.as_bytes());
        let flags = (libc::IFF_TUN | libc::IFF_NO_PI) as u16;
        request[16..18].copy_from_slice(&flags.to_ne_bytes());
        // SAFETY: the request is as long as the kernel's struct ifreq, and outlives the call.
        let set = unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETIFF as _, request.as_mut_ptr()) };
        ensure!(set == 0, "TUNSETIFF: {}", std::io::Error::last_os_error());
        Ok(file)
    });
    made.join().map_err(|_| anyhow!("a thread panicked"))?
}

/// Carries packets both ways, each after `one_way`.
pub(super) fn join(a: File, b: File, one_way: Duration) -> Result<()> {
    for (from, to) in [(a.try_clone()?, b.try_clone()?), (b, a)] {
        let (send, receive) = channel();
        std::thread::spawn(move || take(from, &send, one_way));
        std::thread::spawn(move || give(to, &receive));
    }
    Ok(())
}

fn take(mut from: File, queue: &Sender<(Instant, Vec<u8>)>, one_way: Duration) {
    let mut buffer = vec![0; PACKET_BYTES_MAX];
    while let Ok(len) = from.read(&mut buffer) {
        let packet = buffer[..len].to_vec();
        if queue.send((Instant::now() + one_way, packet)).is_err() {
            return;
        }
    }
}

fn give(mut to: File, queue: &Receiver<(Instant, Vec<u8>)>) {
    while let Ok((due, packet)) = queue.recv() {
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        // A host that is gone loses packets, as on any line.
        let _ = to.write_all(&packet);
    }
}
