//! What is agreed with the kernel when it mounts.

use fuser::{InitFlags, KernelConfig};

/// The largest write request, and reply to a read.
pub(super) const IO_BYTES_MAX: u32 = 1 << 20;
/// Requests that the kernel may have under way in the background (readahead, writeback): slow reads of some files
/// must not keep others from being written.
const BACKGROUND_MAX: u16 = 256;
/// The same where writes may wait for room: what waits is held in memory, at most 1 MiB each.
pub(super) const PACED_BACKGROUND_MAX: u16 = 64;
/// From here on the kernel slows down who fills the background.
const CONGESTION: u16 = 192;

/// Asks for what the edge is written for. What an older kernel lacks is done without.
pub(super) fn negotiate(config: &mut KernelConfig, writeback: bool, max_read: u32, paced: bool) {
    let mut wanted = InitFlags::FUSE_ATOMIC_O_TRUNC
        | InitFlags::FUSE_PARALLEL_DIROPS
        | InitFlags::FUSE_DO_READDIRPLUS
        | InitFlags::FUSE_READDIRPLUS_AUTO
        // Setuid, setgid and capabilities go where POSIX says, without a question before each write.
        | InitFlags::FUSE_HANDLE_KILLPRIV_V2
        // The kernel checks ACLs and leaves the umask to us, since a default ACL takes its place.
        | InitFlags::FUSE_POSIX_ACL
        | InitFlags::FUSE_DONT_MASK
        | InitFlags::FUSE_CACHE_SYMLINKS
        | InitFlags::FUSE_ASYNC_DIO
        | InitFlags::FUSE_DIRECT_IO_ALLOW_MMAP
        | InitFlags::FUSE_NO_OPENDIR_SUPPORT
        | InitFlags::FUSE_EXPORT_SUPPORT;
    if writeback {
        wanted |= InitFlags::FUSE_WRITEBACK_CACHE;
    }
    for flag in wanted.iter() {
        let _ = config.add_capabilities(flag);
    }
    let _ = config.set_max_write(IO_BYTES_MAX);
    if let Err(most) = config.set_max_readahead(max_read) {
        let _ = config.set_max_readahead(most);
    }
    let background = if paced { PACED_BACKGROUND_MAX } else { BACKGROUND_MAX };
    let _ = config.set_max_background(background);
    let _ = config.set_congestion_threshold(CONGESTION.min(background / 4 * 3));
}
