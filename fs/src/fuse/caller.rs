//! Who makes a request.

use fuser::Request;

use crate::rows::Ino;
use crate::vfs::{Caller, Vfs};

/// What lets setuid and setgid bits live through a change; its number is the kernel's.
const CAP_FSETID: u32 = 4;
/// No file is of this group.
const NOBODYS_GROUP: u32 = u32::MAX;

pub(super) fn caller(req: &Request) -> Caller {
    // Capabilities are not in a request; root has them as a rule.
    Caller { uid: req.uid(), gid: req.gid(), privileged: req.uid() == 0 }
}

/// Who makes a request that may take setuid and setgid bits away.
///
/// A request names neither capabilities nor more than one group of its caller, and the kernel leaves the decision to us. For files that have such
/// bits, and no others, the rest is read where the kernel shows it.
#[derive(Clone, Copy)]
pub(super) struct Who {
    caller: Caller,
    pid: u32,
}

impl Who {
    pub(super) fn of(req: &Request) -> Self {
        Self { caller: caller(req), pid: req.pid() }
    }

    /// The caller as far as this file's bits are concerned. Where nothing can be read it is root or nobody, of the one group.
    pub(super) fn towards(self, vfs: &Vfs, ino: Ino) -> Caller {
        self.giving(vfs, ino, None)
    }

    /// The same where the file is given to another group. With setuid, which goes, the kernel sets the whole mode anew, and then counts by the new group.
    pub(super) fn giving(self, vfs: &Vfs, ino: Ino, group: Option<u32>) -> Caller {
        if !vfs.has_set_ids(ino) {
            return self.caller;
        }
        let Some(process) = Process::of(self.pid) else { return self.caller };
        let mut caller = self.caller;
        // A namespace of users has capabilities of its own, which mean nothing here.
        caller.privileged = process.may_keep && (caller.uid == 0 || is_of_our_users(self.pid));
        let member = |group: u32| self.caller.gid == group || process.groups.contains(&group);
        let Some(owned) = vfs.group(ino) else { return caller };
        let counts_anew = group.is_some() && vfs.getattr(ino).is_ok_and(|attr| attr.perm & 0o4000 != 0);
        let keeps = member(owned) && (!counts_anew || group.is_none_or(member));
        caller.gid = if keeps { owned } else { NOBODYS_GROUP };
        caller
    }
}

/// What the kernel shows of who waits for our answer.
struct Process {
    /// Supplementary groups.
    groups: Vec<u32>,
    may_keep: bool,
}

impl Process {
    /// `None` of one that is gone or is not to be seen from here.
    fn of(pid: u32) -> Option<Self> {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name));
        let groups = field("Groups:")?.split_ascii_whitespace();
        let capabilities = u64::from_str_radix(field("CapEff:")?.trim(), 16).ok()?;
        Some(Self {
            groups: groups.filter_map(|group| group.parse().ok()).collect(),
            may_keep: capabilities & (1 << CAP_FSETID) != 0,
        })
    }
}

fn is_of_our_users(pid: u32) -> bool {
    let users = |of: &str| std::fs::read_link(format!("/proc/{of}/ns/user")).ok();
    users("self").is_some_and(|ours| users(&pid.to_string()) == Some(ours))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn our_own_groups_are_those_that_the_system_names() {
        let mut ours: Vec<u32> =
            nix::unistd::getgroups().unwrap().into_iter().map(|group| group.as_raw()).collect();
        let mut read = Process::of(std::process::id()).unwrap().groups;
        ours.sort_unstable();
        read.sort_unstable();
        assert_eq!(read, ours);
        assert!(Process::of(u32::MAX).is_none());
        assert!(is_of_our_users(std::process::id()) && !is_of_our_users(u32::MAX));
    }
}
