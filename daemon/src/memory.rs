//! Keys and swap; how much memory there is; and what the allocator keeps of it.

use std::ffi::c_void;
use std::ptr::NonNull;

/// Locks the pages that hold `value`, for as long as the process lives; they are shared with what lies beside it. A limit
/// (RLIMIT_MEMLOCK) that is too small is tolerated: SECURITY.md says what that means.
pub fn lock<T>(value: &T) {
    let address = NonNull::from(value).cast::<c_void>();
    // SAFETY: the range is that of a live value, and locking changes neither its bytes nor who may use them.
    if let Err(error) = unsafe { nix::sys::mman::mlock(address, size_of::<T>()) } {
        tracing::debug!(%error, "a key's memory is not locked: it may be written to swap");
    }
}

/// Arenas of the allocator. Each keeps what was freed in it for its own threads; by default there are eight for each core.
const ARENAS_MAX: libc::c_int = 4;
/// Allocations from this size on are returned to the system when they are freed. Left alone, the threshold grows to 32 MiB with the first large one, and
/// batches, buffers and snapshots of maps leave holes that nothing fills.
const MAPPED_BYTES_MIN: libc::c_int = 1 << 20;
/// What may lie free at the end of an arena before it is returned.
const TOP_BYTES_MAX: libc::c_int = 4 << 20;

/// Makes what is resident follow what is used. To be called before there are threads.
pub fn tame_allocator() {
    #[cfg(target_env = "gnu")]
    // SAFETY: settings of the allocator; values out of its range are refused and change nothing.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, ARENAS_MAX);
        libc::mallopt(libc::M_MMAP_THRESHOLD, MAPPED_BYTES_MIN);
        libc::mallopt(libc::M_TRIM_THRESHOLD, TOP_BYTES_MAX);
    }
}

/// Returns free pages to the system: after work that came with much memory of its own.
pub fn give_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: walks the allocator's own lists under its locks.
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
