//! Bitswap 1.2: public blocks, with the world of IPFS.
//!
//! ```text
//! /ipfs/bitswap/1.2.0     a stream each way: varint length | Message (protobuf), any number of them
//!
//! message     Wantlist { entries: { CID, block or "have", cancel, say when you do not }, full }, payload { prefix, data }, presences
//! server      wants come in on a peer's stream, blocks and presences go out on one that we open to it
//! client      wants go out, blocks come in on streams that peers open to us; only what was asked for and hashes right is taken
//! ```
//!
//! **Owns** the messages ([`message`]), the server ([`server`]) and the client ([`client`]). **Promises**: every message,
//! queue and wait has a limit; what a peer wants is answered once, at once, and not remembered. **Refuses** to know where
//! blocks come from ([`PublicBlocks`]), other hashes than sha2-256, and blocks over 2 MiB.

pub mod client;
pub mod message;
pub mod server;

pub use client::{BitswapClient, FetchError};
pub use server::{ServerLimits, serve};

use bytes::Bytes;
use cid::Cid;
use futures::future::BoxFuture;
use libp2p::StreamProtocol;

/// The protocol's name.
pub const BITSWAP_PROTOCOL: StreamProtocol = StreamProtocol::new("/ipfs/bitswap/1.2.0");
/// No block is larger.
pub const BLOCK_BYTES_MAX: usize = 2 << 20;

/// Who has public blocks. The first two calls may block, and give nothing for what is not there.
pub trait PublicBlocks: Send + Sync {
    /// The block's length.
    fn len_of(&self, cid: &Cid) -> Option<u32>;
    /// Its bytes, hashed just now.
    fn get(&self, cid: &Cid) -> Option<Bytes>;
    /// Ends, within a bound, when all that was stored before the call is known. Who misses a block waits for it and looks once more, so that
    /// nobody is told "not here" of what was just stored.
    fn settled(&self) -> BoxFuture<'_, ()>;
}

/// Whether the bytes are what the CID says; only sha2-256 is known.
pub fn matches(cid: &Cid, bytes: &[u8]) -> bool {
    use sha2::{Digest, Sha256};
    const SHA2_256: u64 = 0x12;
    cid.hash().code() == SHA2_256 && cid.hash().digest() == Sha256::digest(bytes).as_slice()
}

#[cfg(test)]
pub(crate) mod tests;
