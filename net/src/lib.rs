//! Peers, deals, and the bytes between them.
//!
//! **Owns** every byte that leaves the machine ([PROTOCOL.md](../PROTOCOL.md)): the libp2p node, the wire codec, the
//! client's sessions, the provider and its folder, deals and receipts, audits, records, slot masks, and the
//! [`Settlement`] seam.
//!
//! **Promises**: every wait ends (each request has a deadline, each stream a stall limit); every buffer is bounded
//! by a named limit; a receipt is signed only after the slot, its folder and the deal row were synced; whatever a
//! peer sends, the answer is a value or an `Err`, never a panic. Slots are served only to whoever proved the deal's
//! client key in this session.
//!
//! **Refuses** to know what is in a slot, what a record means ([`RecordRules`] tells), or anything of `fs`.
//!
//! # The API at a glance
//!
//! ```text
//! identity::load_or_create(path, &env) -> Keypair                        // ed25519, file mode 0600
//! Node::start(NodeConfig{identity, listen, limits}).await -> Node       // Clone; bound when it returns
//!   node.peer_id() listeners() dial(peer, addrs, timeout) disconnect(peer) traffic() shutdown()
//!
//!   node.find_peer(peer) -> addrs  find_holders(key, max) -> peers  announce(keys)       // its part in the DHT
//! Finder::new(Env, bootstrap, mdns) -> Finder                           // look-ups under throw-away identities
//!
//! Client::new(node, Env, ClientConfig) -> Client                        // Clone; with_finder(..) follows who moves
//!   client.session(peer, addrs) -> Session                              // no I/O; one shared session per peer
//!   client.connect(peer, addrs).await -> Session                        // the same, connected
//!   client.connect_fresh(peer, addrs).await -> Session                  // a new connection under a throw-away peer id
//!
//! Session (Clone; reconnects by itself, proves its keys again; every call has a deadline)
//!   info() -> ProviderInfo                authenticate(SigningKey)      // remembered for reconnects
//!   present(SignedPermit)                                               // another client's deals; remembered likewise
//!   propose(&SignedProposal, manifest: Bytes) -> SignedAnswer           // countersigned and verified
//!   push(&SignedProposal, Arc<dyn PieceSource>, progress: impl Fn(u64)) -> SignedReceipt   // resumes; verified
//!   receipt(&SignedProposal) -> Option<SignedReceipt>                   // asking again gives the same
//!   read(DealId, &[ByteRange], Priority, Duration) -> Vec<Bytes>        // slot bytes, still masked
//!   fetch(DealId, offset, len, sink: impl FnMut(u64, Bytes))            // long sequential reads, in order
//!   audit(DealId, AuditSpec{piece_cid, raw_len, count}, Duration) -> Audit{challenge seed, proof, elapsed}
//!   holdings(Option<DealId>) -> HoldingsPage{holdings, next}            // for every key proven in this session
//!   put_record(RecordKey, Bytes) -> PutOutcome{Stored | Superseded(Bytes)}    get_record(&RecordKey) -> Option<Bytes>
//!   claim(&SignedClaim, have) -> ClaimAnswer{said: Said, head}          // a term: granted, taken, or passed
//!   release(DealId)                       state() set_addrs() close()
//!
//! Provider::open(dir, ProviderConfig, node, Env, Arc<dyn RecordRules>, Arc<dyn Settlement>).await -> Provider
//!   provider.run().await  stop()  status() -> ProviderStatus  sweep().await
//!
//! bitswap::serve(control, incoming, Arc<dyn PublicBlocks>, limits, stop).await      BitswapClient::fetch(peer, cid, timeout)
//!
//! SignedClaim::sign(term, &head_key, &writer_key)      Standing{certificate, anchors}.encode() decode()    term::Round // who may write
//!
//! DealProposal{..}.sign(&SigningKey) -> SignedProposal{deal_id(), verify(), to_bytes(), from_bytes()}
//! Manifest{..}.sign(&SigningKey) -> SignedManifest      mask::slot_seed(..) -> SlotSeed   mask::apply(seed, off, buf)
//! stripe::encode(data, parity) -> parity shards         stripe::rebuild(k, m, have, want) -> lost shards
//! ```
//!
//! [`Settlement`]: settlement::Settlement
//! [`RecordRules`]: record::RecordRules

pub mod addresses;
pub mod bitswap;
pub mod client;
pub mod codec;
pub mod deal;
pub mod env;
pub mod error;
pub mod finder;
#[doc(hidden)]
pub mod fuzzing;
pub mod identity;
pub mod manifest;
pub mod mask;
pub mod node;
pub mod peer_set;
pub mod permit;
pub mod provider;
pub mod record;
pub mod settlement;
pub mod stripe;
pub mod tags;
pub mod term;
pub mod upnp;
pub mod wire;

pub use addresses::PeerAddrs;
pub use client::{Client, ClientConfig, Session};
pub use deal::{ByteRange, DealId, DealProposal, PieceSource, SignedAnswer, SignedProposal, SignedReceipt};
pub use ed25519_dalek::{Signer, SigningKey, VerifyingKey};
pub use env::{Clock, Env, Rng};
pub use error::{ErrorCode, NetError};
pub use finder::Finder;
pub use libp2p::{Multiaddr, PeerId, identity::Keypair};
pub use manifest::{Manifest, SignedManifest};
pub use node::{DhtKey, DhtRole, Discovery, Node, NodeConfig};
pub use peer_set::PeerSet;
pub use permit::SignedPermit;
pub use provider::{Provider, ProviderConfig};
pub use record::{RecordKey, RecordKind, RecordRules, RecordVerdict};
