//! Pieces: the home folder's CAR files, the blocks in them, and the way back to plain chunks.
//!
//! Owns: [`folder`] (files), [`pins`] (who reads one), [`rows`] (layouts), [`writer`] (the sink of a seal), [`places`] (what no commit covers), [`blocks`] (reading by CID or place,
//! falling through to the network), [`chunks`] (decoded cache for readers),
//! [`classes`] (how many losses each has to survive).

pub(crate) mod blocks;
pub(crate) mod chunks;
pub(crate) mod classes;
pub(crate) mod folder;
pub(crate) mod pins;
pub(crate) mod places;
pub(crate) mod rows;
pub(crate) mod writer;

pub use folder::PieceFile;
