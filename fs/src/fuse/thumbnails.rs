//! Programs that read a whole folder of photographs only to draw small pictures of them.
//!
//! File managers ask by the name of a path, not by its file system, whether a file is local: no type or attribute of a
//! mount keeps them from drawing what lies elsewhere, and opening one folder would bring all of it over the network. So
//! those programs are known by their names (as cloud drives of other systems know them), and what is not on this
//! machine does not open for them: EREMOTE. The file manager shows its plain icon; whoever opens the photograph itself
//! gets it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use holdfast_store::Clock;

/// Threads that are known to be somebody else, by the lowest bits of their numbers.
const OTHERS: usize = 64;
/// How long that is believed: a number may belong to another thread later.
const BELIEVED_SECS: u64 = 1;

pub(super) struct Thumbnailers {
    clock: Arc<dyn Clock>,
    /// `thread << 32 | second`.
    others: [AtomicU64; OTHERS],
}

impl Thumbnailers {
    pub(super) fn new(clock: Arc<dyn Clock>) -> Self {
        Self { clock, others: std::array::from_fn(|_| AtomicU64::new(0)) }
    }

    /// Whether this thread (0: not known) is one of them. A few loads where it was somebody else a moment ago.
    pub(super) fn contain(&self, thread: u32) -> bool {
        let second = self.clock.now().as_secs() & u64::from(u32::MAX);
        let Some(slot) = self.others.get(thread as usize % OTHERS).filter(|_| thread != 0) else {
            return false;
        };
        let seen = slot.load(Ordering::Relaxed);
        if seen >> 32 == u64::from(thread) && second.wrapping_sub(seen & u64::from(u32::MAX)) <= BELIEVED_SECS
        {
            return false;
        }
        let found = read(thread).is_some_and(|names| names.draw());
        if !found {
            slot.store(u64::from(thread) << 32 | second, Ordering::Relaxed);
        }
        found
    }
}

/// What a thread and its process are called: 15 bytes at most, where longer names end.
struct Names {
    thread: String,
    process: String,
    /// Only of processes that are called by what they do for somebody.
    arguments: String,
}

fn read(thread: u32) -> Option<Names> {
    let status = std::fs::read_to_string(format!("/proc/{thread}/status")).ok()?;
    let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
    let process_id: u32 = field("Tgid:")?.parse().ok()?;
    let name = |id: u32| std::fs::read_to_string(format!("/proc/{id}/comm")).map(|n| n.trim_end().to_owned());
    let process = name(process_id).ok()?;
    let arguments = if process.starts_with("kio") {
        let bytes = std::fs::read(format!("/proc/{process_id}/cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    } else {
        String::new()
    };
    Some(Names { thread: field("Name:")?.to_owned(), process, arguments })
}

impl Names {
    fn draw(&self) -> bool {
        let process = self.process.as_str();
        // Xfce; GNOME, Cinnamon and MATE, which start a program for each kind of file.
        process == "tumblerd"
            || process.contains("-thumb")
            || process.contains("thumbnail")
            || matches!(process, "gdk-pixbuf-thum" | "totem-video-thu")
            // KDE: a worker is called by the library that it has loaded.
            || (process.starts_with("kio") && self.arguments.contains("thumbnail"))
            // LXDE: a thread of the file manager that does nothing else.
            || (process.starts_with("pcmanfm") && self.thread == "loader")
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use holdfast_store::SystemClock;

    fn names(process: &str, thread: &str, arguments: &str) -> Names {
        Names { thread: thread.into(), process: process.into(), arguments: arguments.into() }
    }

    #[test]
    fn thumbnailers_are_known_by_name_and_nobody_else_is() {
        for process in
            ["tumblerd", "gdk-pixbuf-thum", "ffmpegthumbnail", "evince-thumbnai", "totem-video-thu"]
        {
            assert!(names(process, process, "").draw(), "{process}");
        }
        assert!(names("pcmanfm", "loader", "").draw());
        assert!(names("kioworker", "kioworker", "kioworker\0/usr/lib/qt6/kf6/kio/thumbnail.so\0").draw());
        for process in ["pcmanfm", "thunar", "nautilus", "cp", "loader", "rsync", "gimp", "kioworker"] {
            assert!(!names(process, process, "/usr/lib/kio/file.so").draw(), "{process}");
        }
    }

    #[test]
    fn a_thread_is_read_as_what_it_is_called() {
        let thumbnailers = Thumbnailers::new(Arc::new(SystemClock::new()));
        let call = |name: &'static str| {
            std::thread::Builder::new().name(name.into()).spawn(|| nix::unistd::gettid().as_raw()).unwrap()
        };
        assert!(!thumbnailers.contain(0));
        assert!(!thumbnailers.contain(std::process::id()));
        // Believed without a second look, and only for that thread.
        assert!(!thumbnailers.contain(std::process::id()));
        assert!(!thumbnailers.contain(call("tumblerd").join().unwrap() as u32), "it has ended");
        let read = std::thread::Builder::new()
            .name("loader".into())
            .spawn(|| read(nix::unistd::gettid().as_raw() as u32).unwrap())
            .unwrap()
            .join()
            .unwrap();
        assert_eq!(read.thread, "loader");
        assert_ne!(read.process, "loader");
    }
}
