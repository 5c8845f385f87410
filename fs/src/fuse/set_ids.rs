//! Setuid and setgid bits that a stranger's write takes away, and what the kernel believes of them.
//!
//! The kernel leaves it to us to take the bits away, and does not ask for the mode afterwards: for as long as it
//! believes its attributes it would show the bits, and honour them when the changed file is executed. So it is told
//! that they are old, after the bits are gone and before the call is answered.

use std::sync::{Arc, OnceLock};

use fuser::{INodeNo, Notifier};

use crate::rows::Ino;
use crate::vfs::Vfs;

/// A change of a file that may have had the bits.
pub(super) struct SetIds(Option<(Arc<OnceLock<Notifier>>, Ino)>);

impl SetIds {
    /// Before the change. Costs nothing but a look at the inode, which whoever changes it needs anyway.
    pub(super) fn before(vfs: &Vfs, notifier: &Arc<OnceLock<Notifier>>, ino: Ino, kills: bool) -> Self {
        Self((kills && vfs.has_set_ids(ino)).then(|| (notifier.clone(), ino)))
    }

    /// After it, with its result.
    pub(super) fn after<T>(self, result: T) -> T {
        if let Some((notifier, ino)) = self.0
            // A negative offset: the attributes only, no page is touched.
            && let Some(Err(error)) = notifier.get().map(|kernel| kernel.inval_inode(INodeNo(ino), -1, 0))
            // It may have forgotten the inode.
            && error.kind() != std::io::ErrorKind::NotFound
        {
            tracing::warn!(%error, "the kernel could not be told that setuid bits are gone");
        }
        result
    }
}
