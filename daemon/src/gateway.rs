//! A provider's public blocks, for anybody: by HTTP, as a trustless gateway, and by Bitswap (`holdfast_net::bitswap`).
//!
//! - `index`: which public slot holds which block.
//! - `request`: what a URL and its headers ask for.
//! - `respond`: what is answered.
//! - `server`: connections.
//!
//! Promises: a block leaves only after its hash was checked against the CID that was asked for; only slots whose deals say that they
//! are public are looked into; every connection, request and answer has a limit. Refuses to render anything: no HTML, no files put
//! together, no names resolved; who asks gets blocks, and checks them.

pub mod index;
pub mod request;
mod respond;
pub mod server;

pub use index::PublicIndex;
pub use server::Gateway;
