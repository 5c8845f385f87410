//! What every holdfast process does first: keys are in its memory, so none of it may end up in a core file, and what it
//! writes is for its owner alone.

use nix::sys::{
    resource::{Resource, getrlimit, setrlimit},
    stat::{Mode, umask},
};

/// RocksDB, segments, pieces and FUSE handles each hold descriptors.
const OPEN_FILES_WANTED: u64 = 65_536;

/// Failures are tolerated: a container may forbid any of these, and none is needed to be correct.
pub fn harden() {
    umask(Mode::from_bits_truncate(0o077));
    let _ = setrlimit(Resource::RLIMIT_CORE, 0, 0);
    // Neither core dumps nor ptrace by the same user's other processes.
    let _ = nix::sys::prctl::set_dumpable(false);
    if let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE)
        && soft < OPEN_FILES_WANTED
    {
        let _ = setrlimit(Resource::RLIMIT_NOFILE, OPEN_FILES_WANTED.min(hard), hard);
    }
}
