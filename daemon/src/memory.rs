//! Keys and swap; and how much memory there is.

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
