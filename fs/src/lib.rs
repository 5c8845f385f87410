//! The drive as a file system: namespace rows over one log, POSIX on top, FUSE at the edge, sealing behind.
//!
//! - [`rows`]: every namespace row at rest, and the one way to read and change them.
//! - [`vfs`]: POSIX semantics over rows, as a library; knows neither FUSE nor the network.
//! - [`fuse`]: the thin edge to the kernel.
//! - [`snapshots`]: the commits as read-only trees; [`retention`]: which of them stay, and what is given up with the others.
//! - [`policy`]: folders whose data has to survive more, or fewer, losses than the drive's.
//! - `drive`, `seal`, `pieces`, `restore`, `durability`, `check`: what turns the log into encrypted pieces and back.
//!
//! Imports `holdfast-store` and `holdfast-content`; never the network, never proofs.

pub mod check;
pub mod drive;
pub mod durability;
pub mod fuse;
#[doc(hidden)]
pub mod fuzzing;
pub mod pieces;
pub mod policy;
pub mod restore;
pub mod retention;
pub mod rows;
pub mod seal;
pub mod snapshots;
pub mod vfs;
