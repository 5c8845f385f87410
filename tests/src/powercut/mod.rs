//! A file system that loses power.
//!
//! Owns: the model of a disk with a live state (what programs see) and a durable one (what survives), its FUSE edge, and
//! the line protocol by which a test commands it.
//!
//! Promises: after a cut, what an answered fsync covered is there. Of the rest each part survives or not by itself, as
//! the seed says:
//!
//! ```text
//! file data       by 4 KiB page: the old bytes, the new ones, one written in between, or 512-byte sectors of both
//! file size       old or new, apart from the pages (a size without its pages reads as zeros)
//! attributes      old or new
//! folder entries  each create, link, unlink and rename by itself; only the history of one name stays in order, and a
//!                 rename happens wholly or not at all
//! ```
//!
//! fsync of a file covers its data, size and attributes, and not its name; fsync of a folder covers the entries of that
//! folder. That is less than any of today's file systems gives, on purpose: code that is right here is right there.
//!
//! Refuses: to keep anything when its process ends (all is in memory), and any change once it is frozen.

mod control;
mod disk;
mod file;
mod fuse;

pub use control::{Client, serve};
pub use disk::{Attributes, CutReport, Disk, Ino, Kind, ROOT};
pub use file::{PAGE, PagedFile};
pub use fuse::{MountedDisk, mount};

#[cfg(test)]
mod tests;
