//! Repair with the owner's machine off: capabilities, and the watchers that hold them (`holdfast watch`).
//!
//! ```text
//! owner's daemon                              providers                         watcher
//!   grant ───────────── the capability's file, once, by hand ─────────────────►  capability
//!   owner, workers/watch ── bundle: seeds, CIDs, holders, permits ──► kept ───►  news
//!                                                                               picture: who keeps what, what is lost
//!                             fellows' logs: kept ◄──── intents ◄────────────── claim
//!                             slots ◄──── rebuilt, under the owner's permit ◄── rebuild, place
//!   workers/watch ◄──────────  log: kept ◄──── entries with receipts ◄───────── log
//! ```
//!
//! Owns: the formats of the capability, the bundle and the log, the watcher, and what `watch grant | list | revoke` answer.
//! Promises: a watcher adds, and does nothing else; what it says counts with nobody before a challenge of their own. Refuses:
//! to know a key that decrypts (`owner::compose` gives it none).

pub mod bundle;
pub mod capability;
mod challenge;
mod claim;
pub mod log;
pub mod logs;
mod news;
pub mod owner;
mod pause;
pub mod picture;
mod place;
pub mod reach;
mod reads;
mod rebuild;
pub mod report;
pub mod state;
pub mod watcher;

pub use owner::Watched;
