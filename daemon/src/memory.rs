//! Keys and swap; how much memory there is; the allocator, and what it keeps.

use std::ffi::c_void;
use std::ptr::{NonNull, null_mut};

/// Locks the pages that hold `value`, for as long as the process lives; they are shared with what lies beside it. A limit
/// (RLIMIT_MEMLOCK) that is too small is tolerated: SECURITY.md says what that means.
pub fn lock<T>(value: &T) {
    let address = NonNull::from(value).cast::<c_void>();
    // SAFETY: the range is that of a live value, and locking changes neither its bytes nor who may use them.
    if let Err(error) = unsafe { nix::sys::mman::mlock(address, size_of::<T>()) } {
        tracing::debug!(%error, "a key's memory is not locked: it may be written to swap");
    }
}

/// Of all that is written in Rust. The rows of a million files are allocations by the ten million, made and freed in another order: looking
/// for places among their gaps took the system's allocator a third of a large commit's time. RocksDB stays with the system's: an allocator in the place
/// of `malloc` hangs at the start below tools that stand in for the clock by `LD_PRELOAD` (libfaketime), and we want to be tried with those.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// So that what is resident follows what is used: few arenas, since each keeps what was freed in it for its own threads (by default there are four for each
/// core), and free pages go back to the system after half a second (by default ten).
// SAFETY: the allocator reads this symbol as a pointer to a C string, and the first word of a reference to a slice is that; no other symbol has the name.
#[unsafe(export_name = "_rjem_malloc_conf")]
pub static SETTINGS: &[u8] = b"narenas:4,dirty_decay_ms:500,muzzy_decay_ms:0\0";

/// Arenas of the system's allocator. Each keeps what was freed in it for its own threads; by default there are eight for each core.
const ARENAS_MAX: libc::c_int = 4;
/// Allocations from this size on are returned to the system when they are freed. Left alone, the threshold grows to 32 MiB with the first large one, and
/// batches, buffers and snapshots of maps leave holes that nothing fills.
const MAPPED_BYTES_MIN: libc::c_int = 1 << 20;
/// What may lie free at the end of an arena before it is returned.
const TOP_BYTES_MAX: libc::c_int = 4 << 20;

/// Makes what is resident follow what is used, with the system's allocator as well. To be called before there are threads.
pub fn tame_allocator() {
    #[cfg(target_env = "gnu")]
    // SAFETY: settings of the allocator; values out of its range are refused and change nothing.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, ARENAS_MAX);
        libc::mallopt(libc::M_MMAP_THRESHOLD, MAPPED_BYTES_MIN);
        libc::mallopt(libc::M_TRIM_THRESHOLD, TOP_BYTES_MAX);
    }
}

/// The number by which the allocator knows all arenas together (`MALLCTL_ARENAS_ALL`), in the name of what is asked of them.
const PURGE_ALL: &std::ffi::CStr = c"arena.4096.purge";

/// Returns free pages to the system: after work that came with much memory of its own.
pub fn give_back() {
    // SAFETY: a name that takes and gives nothing, as the missing buffers say.
    let failed =
        unsafe { tikv_jemalloc_sys::mallctl(PURGE_ALL.as_ptr(), null_mut(), null_mut(), null_mut(), 0) };
    if failed != 0 {
        tracing::debug!(failed, "the allocator keeps its free pages");
    }
    #[cfg(target_env = "gnu")]
    // SAFETY: walks the system's allocator's own lists under its locks.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// All memory of this machine, where the system tells.
pub fn total_bytes() -> Option<u64> {
    let table = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = table.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    line.split_whitespace().next()?.parse::<u64>().ok()?.checked_mul(1_024)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// Bytes of this process that are locked, as the kernel counts them.
    fn locked_kib() -> u64 {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find(|line| line.starts_with("VmLck:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }

    /// MiB of this process that are resident.
    fn resident_mib() -> u64 {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() >> 10
    }

    /// The allocator is the one of this file, by its settings, and gives back what is free.
    #[test]
    fn the_allocator_is_set_and_gives_back() {
        let (mut arenas, mut len) = (0u32, size_of::<u32>());
        let to = std::ptr::from_mut(&mut arenas).cast();
        // SAFETY: the buffer is as long as it says, and what is asked for has that type.
        let failed =
            unsafe { tikv_jemalloc_sys::mallctl(c"opt.narenas".as_ptr(), to, &mut len, null_mut(), 0) };
        assert_eq!((failed, arenas), (0, 4));
        let pieces: Vec<Vec<u8>> = (0..100_000).map(|n| vec![n as u8; 1000]).collect();
        let most = resident_mib();
        drop(pieces);
        give_back();
        let left = resident_mib();
        assert!(left + 60 < most, "{left} MiB of {most} after 95 were freed");
    }

    #[test]
    fn this_machine_has_memory() {
        assert!(total_bytes().unwrap() > 1 << 20);
    }

    #[test]
    fn the_pages_of_a_value_are_locked() {
        let value = Box::new([7u8; 32]);
        lock(&*value);
        let limit = nix::sys::resource::getrlimit(nix::sys::resource::Resource::RLIMIT_MEMLOCK).unwrap().0;
        assert!(locked_kib() > 0 || limit < 8192, "nothing is locked under a limit of {limit}");
        assert_eq!(*value, [7; 32]);
    }
}
