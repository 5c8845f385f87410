//! What the kernel believes of a file, and is told that it is old.
//!
//! Attributes stay valid in the kernel for as long as nobody but the kernel changes them. Two it leaves to us, and does not ask
//! for afterwards: setuid and setgid bits that a stranger's write takes away, which it would go on to show, and honour when
//! the changed file is executed; and the room that a file takes once pages that the kernel had gathered are written, of which
//! it would show nothing before the file is closed. (`tar` takes a file that takes no room for one that holds nothing.) So it
//! is told, after the change and before the call is answered.

use std::sync::{Arc, OnceLock};

use fuser::{INodeNo, Notifier};

use crate::rows::Ino;
use crate::vfs::Vfs;

type Kernel = Arc<OnceLock<Notifier>>;

/// A change of a file that may have had the bits.
pub(super) struct SetIds(Option<(Kernel, Ino)>);

impl SetIds {
    /// Before the change. Costs nothing but a look at the inode, which whoever changes it needs anyway.
    pub(super) fn before(vfs: &Vfs, notifier: &Kernel, ino: Ino, kills: bool) -> Self {
        Self((kills && vfs.has_set_ids(ino)).then(|| (notifier.clone(), ino)))
    }

    /// After it, with its result.
    pub(super) fn after<T>(self, result: T) -> T {
        if let Some((notifier, ino)) = self.0 {
            attributes_are_old(&notifier, ino);
        }
        result
    }
}

/// A write of pages that the kernel had gathered.
pub(super) struct Blocks(Option<(Kernel, Ino, Option<u64>)>);

impl Blocks {
    pub(super) fn before(vfs: &Vfs, notifier: &Kernel, ino: Ino, gathered: bool) -> Self {
        Self(gathered.then(|| (notifier.clone(), ino, vfs.allocated(ino))))
    }

    pub(super) fn after<T>(self, vfs: &Vfs, result: T) -> T {
        if let Some((notifier, ino, before)) = self.0
            && (before.is_none() || vfs.allocated(ino) != before)
        {
            attributes_are_old(&notifier, ino);
        }
        result
    }
}

fn attributes_are_old(notifier: &OnceLock<Notifier>, ino: Ino) {
    // A negative offset: the attributes only, no page is touched.
    if let Some(Err(error)) = notifier.get().map(|kernel| kernel.inval_inode(INodeNo(ino), -1, 0))
        // It may have forgotten the inode.
        && error.kind() != std::io::ErrorKind::NotFound
    {
        tracing::warn!(%error, "the kernel could not be told that attributes are old");
    }
}
