//! Who makes a request.

use fuser::Request;

use crate::rows::Ino;
use crate::vfs::{Caller, Vfs, is_acl};

pub(super) fn caller(req: &Request) -> Caller {
    // Capabilities are not in a request; root has them.
    Caller { uid: req.uid(), gid: req.gid(), privileged: req.uid() == 0 }
}

/// The caller of a setxattr. Setting an ACL takes setgid away from a file whose group its owner is not in, and a request
/// names only one group of its caller: where the file's is among the others, the caller comes as of that group.
pub(super) fn acl_caller(mut caller: Caller, pid: u32, vfs: &Vfs, ino: Ino, name: &[u8]) -> Caller {
    if caller.privileged || !is_acl(name) {
        return caller;
    }
    if let Ok(attr) = vfs.getattr(ino)
        && attr.gid != caller.gid
        && attr.perm & 0o2000 != 0
        && groups(pid).contains(&attr.gid)
    {
        caller.gid = attr.gid;
    }
    caller
}

/// Supplementary groups of a process. None of one that is gone or is not to be seen from here.
fn groups(pid: u32) -> Vec<u32> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("Groups:")).unwrap_or_default();
    line.split_ascii_whitespace().filter_map(|group| group.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn our_own_groups_are_those_that_the_system_names() {
        let mut ours: Vec<u32> =
            nix::unistd::getgroups().unwrap().into_iter().map(|group| group.as_raw()).collect();
        let mut read = groups(std::process::id());
        ours.sort_unstable();
        read.sort_unstable();
        assert_eq!(read, ours);
        assert!(groups(u32::MAX).is_empty());
    }
}
