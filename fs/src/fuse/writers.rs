//! Which files are open for writing.
//!
//! With writeback the kernel holds dirty pages of these, and of no others: it writes them out before it releases a file.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::rows::Ino;

/// Counts of open files that may write, by inode.
#[derive(Clone, Default)]
pub(super) struct Writers(Arc<Mutex<HashMap<Ino, u32>>>);

fn may_write(open_flags: i32) -> bool {
    open_flags & libc::O_ACCMODE != libc::O_RDONLY
}

impl Writers {
    pub(super) fn opened(&self, ino: Ino, open_flags: i32) {
        if may_write(open_flags) {
            *self.0.lock().entry(ino).or_default() += 1;
        }
    }

    /// The other end; `open_flags` are those of the open.
    pub(super) fn closed(&self, ino: Ino, open_flags: i32) {
        if !may_write(open_flags) {
            return;
        }
        let mut counts = self.0.lock();
        if let Some(count) = counts.get_mut(&ino) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                counts.remove(&ino);
            }
        }
    }

    pub(super) fn any(&self, ino: Ino) -> bool {
        self.0.lock().contains_key(&ino)
    }

    pub(super) fn all(&self) -> Vec<Ino> {
        self.0.lock().keys().copied().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_those_who_may_write_count_and_the_last_one_out_ends_it() {
        let writers = Writers::default();
        writers.opened(7, libc::O_RDONLY);
        assert!(!writers.any(7));
        writers.opened(7, libc::O_RDWR);
        writers.opened(7, libc::O_WRONLY | libc::O_APPEND);
        writers.closed(7, libc::O_RDONLY);
        writers.closed(7, libc::O_RDWR);
        assert!(writers.any(7) && !writers.any(8));
        assert_eq!(writers.all(), [7]);
        writers.closed(7, libc::O_WRONLY | libc::O_APPEND);
        assert!(!writers.any(7));
    }
}
