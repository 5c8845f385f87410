//! What sessions stand on: a node's connections to providers, or a model of them.
//!
//! This is the whole of what a client asks of a network. Everything above it (pauses after failures, repeated calls, proofs
//! and signatures that are verified) is the same over either, so that a simulation in which time is not the machine's runs
//! what the product runs.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use ed25519_dalek::SigningKey;
use libp2p::{Multiaddr, PeerId};

use super::link::Link;
use crate::deal::{PieceSource, SignedProposal};
use crate::env::Env;
use crate::error::NetError;
use crate::identity;
use crate::node::{Node, NodeConfig};
use crate::wire::message::{DataRequest, Lane, Reply, Request};

/// Makes connections, as one peer.
#[async_trait]
pub trait Carrier: Send + Sync {
    /// As which.
    fn peer_id(&self) -> PeerId;
    /// Sees to it that a connection stands; where, if it was dialled.
    async fn dial(
        &self,
        peer: PeerId,
        addrs: &[Multiaddr],
        timeout: Duration,
    ) -> Result<Option<Multiaddr>, NetError>;
    /// Whether one stands.
    async fn is_connected(&self, peer: PeerId) -> Result<bool, NetError>;
    /// Ends it.
    async fn disconnect(&self, peer: PeerId) -> Result<(), NetError>;
    /// Says hello over the connection that stands.
    async fn open(&self, peer: PeerId) -> Result<Arc<dyn Wire>, NetError>;
    /// Another one, as a peer that nobody knows, and that is forgotten with it.
    async fn fresh(&self) -> Result<Arc<dyn Carrier>, NetError>;
}

/// What a provider allows in a session.
#[derive(Debug, Clone, Copy)]
pub struct WireLimits {
    /// Requests under way on one stream.
    pub inflight: u16,
    /// Ranges in a read.
    pub ranges: usize,
    /// Bytes of a read.
    pub read_bytes: usize,
}

/// How long a push waits: for a byte to leave or a word to come, and for the receipt.
#[derive(Debug, Clone, Copy)]
pub struct PushTimes {
    /// While it sends.
    pub stall: Duration,
    /// While the provider hashes and syncs.
    pub receipt: Duration,
}

/// One session with one provider, after hello. It never heals: when it breaks, another one is opened.
#[async_trait]
pub trait Wire: Send + Sync {
    /// As hello told.
    fn limits(&self) -> WireLimits;
    /// Whether it did not break yet.
    fn is_open(&self) -> bool;
    /// Breaks it.
    fn close(&self);
    /// An answer is waited for from now on.
    fn asked(&self);
    /// How long an answer has been waited for while nothing at all moved.
    fn silent(&self) -> Duration;
    /// A control request.
    async fn call(&self, request: &Request) -> Result<Reply, NetError>;
    /// Proves a key, unless it was proven here.
    async fn authenticate(&self, key: &SigningKey) -> Result<(), NetError>;
    /// A read of ranges that are so long; each comes in memory of its own.
    async fn read(&self, lane: Lane, request: &DataRequest, wants: &[usize]) -> Result<Vec<Bytes>, NetError>;
    /// One attempt to push the slot of a deal, from where the provider has it; the receipt's bytes, to be verified by the caller.
    async fn push(
        &self,
        proposal: &SignedProposal,
        source: &Arc<dyn PieceSource>,
        times: PushTimes,
        progress: &mut (dyn FnMut(u64) + Send),
    ) -> Result<Vec<u8>, NetError>;
}

/// A node's connections.
pub(super) struct NodeCarrier {
    pub(super) node: Node,
    pub(super) env: Env,
}

#[async_trait]
impl Carrier for NodeCarrier {
    fn peer_id(&self) -> PeerId {
        self.node.peer_id()
    }

    async fn dial(
        &self,
        peer: PeerId,
        addrs: &[Multiaddr],
        timeout: Duration,
    ) -> Result<Option<Multiaddr>, NetError> {
        self.node.dial(peer, addrs, timeout).await?;
        self.node.dialled_at(peer).await
    }

    async fn is_connected(&self, peer: PeerId) -> Result<bool, NetError> {
        self.node.is_connected(peer).await
    }

    async fn disconnect(&self, peer: PeerId) -> Result<(), NetError> {
        self.node.disconnect(peer).await
    }

    async fn open(&self, peer: PeerId) -> Result<Arc<dyn Wire>, NetError> {
        Ok(Arc::new(Link::open(&self.node, &self.env, peer).await?))
    }

    async fn fresh(&self) -> Result<Arc<dyn Carrier>, NetError> {
        let identity = identity::keypair(self.env.random())?;
        let node = Node::start(NodeConfig::client(identity)).await?;
        Ok(Arc::new(NodeCarrier { node, env: self.env.clone() }))
    }
}
