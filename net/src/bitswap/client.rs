//! Fetches blocks from peers that speak Bitswap.
//!
//! A peer is told several wants in one message and answers in its own time, on streams that it opens. A block is taken only while somebody
//! here waits for it, and only if it hashes right; so a peer can neither fill the memory nor pass anything off.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use cid::Cid;
use cid::multihash::Multihash;
use futures::StreamExt;
use libp2p::{Multiaddr, PeerId, Stream};
use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::message::{self, Entry, MESSAGE_BYTES_MAX, Message, WantKind};
use super::{BITSWAP_PROTOCOL, matches};
use crate::error::NetError;
use crate::node::Node;

/// Wants in one message.
const WANTS_AT_ONCE: usize = 32;
/// Wants of one peer that wait to be sent.
const QUEUE_MAX: usize = 1024;
/// Streams that peers have open to us; each may bring a message of 4 MiB.
const STREAMS_MAX: usize = 32;
/// A stream that brings nothing for so long is closed.
const IDLE: Duration = Duration::from_secs(120);
const OPEN: Duration = Duration::from_secs(10);

/// Why a block did not come.
#[derive(Debug, Clone, thiserror::Error)]
pub enum FetchError {
    /// The peer says that it does not have it.
    #[error("the peer does not have it")]
    NotThere,
    /// It did not come in time.
    #[error("the peer did not send it in {} s", .0.as_secs())]
    Timeout(Duration),
    /// The peer cannot be reached, or does not speak Bitswap.
    #[error("{0}")]
    Unreachable(String),
}

type Answer = Result<Bytes, FetchError>;
type Waiting = HashMap<Multihash<64>, Vec<(PeerId, Cid, oneshot::Sender<Answer>)>>;

struct Inner {
    node: Node,
    waiting: Mutex<Waiting>,
    peers: Mutex<HashMap<PeerId, mpsc::Sender<Entry>>>,
    stop: CancellationToken,
}

/// A client over a node that it has for itself. It ends when the last clone is dropped.
#[derive(Clone)]
pub struct BitswapClient {
    inner: Arc<Inner>,
    _stop: Arc<tokio_util::sync::DropGuard>,
}

impl BitswapClient {
    /// Takes what peers send to `node` under Bitswap's name.
    pub fn new(node: Node) -> Result<BitswapClient, NetError> {
        let incoming = node.streams().accept(BITSWAP_PROTOCOL);
        let mut incoming = incoming.map_err(|_| NetError::Local("Bitswap is spoken here already".into()))?;
        let stop = CancellationToken::new();
        let inner =
            Arc::new(Inner { node, waiting: Mutex::default(), peers: Mutex::default(), stop: stop.clone() });
        let (weak, ended) = (Arc::downgrade(&inner), stop.clone());
        tokio::spawn(async move {
            let mut streams = JoinSet::new();
            loop {
                tokio::select! {
                    () = ended.cancelled() => break,
                    _ = streams.join_next(), if !streams.is_empty() => {}
                    stream = incoming.next() => {
                        let (Some((peer, stream)), Some(inner)) = (stream, weak.upgrade()) else { break };
                        if streams.len() < STREAMS_MAX {
                            streams.spawn(listen(inner, peer, stream));
                        }
                    }
                }
            }
        });
        Ok(BitswapClient { inner, _stop: Arc::new(stop.drop_guard()) })
    }

    /// Connects to a peer.
    pub async fn connect(
        &self,
        peer: PeerId,
        addrs: &[Multiaddr],
        timeout: Duration,
    ) -> Result<(), NetError> {
        self.inner.node.dial(peer, addrs, timeout).await
    }

    /// A block of one peer, verified.
    pub async fn fetch(&self, peer: PeerId, cid: Cid, timeout: Duration) -> Answer {
        let (sender, answer) = oneshot::channel();
        {
            let mut waiting = self.inner.waiting.lock();
            let list = waiting.entry(*cid.hash()).or_default();
            list.retain(|(_, _, sender)| !sender.is_closed());
            list.push((peer, cid, sender));
        }
        let want = Entry { cid, kind: WantKind::Block, cancel: false, say_dont_have: true };
        let asking = async {
            let queue = self.inner.queue(peer);
            let closed = || FetchError::Unreachable("the peer takes no more wants".into());
            queue.send(want).await.map_err(|_| closed())?;
            answer.await.unwrap_or_else(|_| Err(closed()))
        };
        let result = tokio::time::timeout(timeout, asking).await.unwrap_or(Err(FetchError::Timeout(timeout)));
        if result.is_err() {
            self.inner.forget(&cid);
        }
        result
    }
}

impl Inner {
    /// Where a peer's wants go; begins to send them if nobody does.
    fn queue(self: &Arc<Self>, peer: PeerId) -> mpsc::Sender<Entry> {
        let mut peers = self.peers.lock();
        if let Some(queue) = peers.get(&peer).filter(|queue| !queue.is_closed()) {
            return queue.clone();
        }
        let (queue, wants) = mpsc::channel(QUEUE_MAX);
        peers.insert(peer, queue.clone());
        let (weak, control, stop) = (Arc::downgrade(self), self.node.streams(), self.stop.clone());
        tokio::spawn(async move {
            let sent = tokio::select! {
                () = stop.cancelled() => return,
                sent = send(peer, control, wants) => sent,
            };
            if let (Err(why), Some(inner)) = (sent, weak.upgrade()) {
                inner.fail(&peer, &why);
            }
        });
        queue
    }

    /// Who waits for this peer waits in vain.
    fn fail(&self, peer: &PeerId, why: &str) {
        let mut waiting = self.waiting.lock();
        for list in waiting.values_mut() {
            let (failed, left): (Vec<_>, Vec<_>) =
                std::mem::take(list).into_iter().partition(|(p, ..)| p == peer);
            *list = left;
            for (_, _, sender) in failed {
                let _ = sender.send(Err(FetchError::Unreachable(why.to_owned())));
            }
        }
        waiting.retain(|_, list| !list.is_empty());
    }

    fn forget(&self, cid: &Cid) {
        let mut waiting = self.waiting.lock();
        if let Some(list) = waiting.get_mut(cid.hash()) {
            list.retain(|(_, _, sender)| !sender.is_closed());
            if list.is_empty() {
                waiting.remove(cid.hash());
            }
        }
    }

    fn take(&self, peer: PeerId, message: Message) {
        for (_, data) in message.blocks {
            use sha2::{Digest, Sha256};
            const SHA2_256: u64 = 0x12;
            let Ok(hash) = Multihash::<64>::wrap(SHA2_256, &Sha256::digest(&data)) else { continue };
            // Whoever sent it: it is what was asked for.
            let Some(list) = self.waiting.lock().remove(&hash) else { continue };
            for (_, cid, sender) in list {
                debug_assert!(matches(&cid, &data));
                let _ = sender.send(Ok(data.clone()));
            }
        }
        for (cid, there) in message.presences {
            if there {
                continue;
            }
            let mut waiting = self.waiting.lock();
            let Some(list) = waiting.get_mut(cid.hash()) else { continue };
            let (told, left): (Vec<_>, Vec<_>) =
                std::mem::take(list).into_iter().partition(|(p, ..)| *p == peer);
            *list = left;
            if list.is_empty() {
                waiting.remove(cid.hash());
            }
            for (_, _, sender) in told {
                let _ = sender.send(Err(FetchError::NotThere));
            }
        }
    }
}

/// Reads what a peer sends.
async fn listen(inner: Arc<Inner>, peer: PeerId, mut stream: Stream) {
    let (weak, stop) = (Arc::downgrade(&inner), inner.stop.clone());
    drop(inner);
    loop {
        let message = tokio::select! {
            () = stop.cancelled() => return,
            message = message::read(&mut stream, MESSAGE_BYTES_MAX, IDLE) => message,
        };
        match (message, weak.upgrade()) {
            (Ok(Some(message)), Some(inner)) => inner.take(peer, message),
            (Err(error), _) => {
                tracing::debug!(%peer, %error, "a Bitswap stream ended");
                return;
            }
            _ => return,
        }
    }
}

/// Tells a peer what is wanted, until nothing was for a while.
async fn send(
    peer: PeerId,
    mut control: libp2p_stream::Control,
    mut wants: mpsc::Receiver<Entry>,
) -> Result<(), String> {
    let mut stream: Option<Stream> = None;
    loop {
        let Ok(Some(first)) = tokio::time::timeout(IDLE, wants.recv()).await else { return Ok(()) };
        let mut message = Message { wants: vec![first], ..Message::default() };
        while message.wants.len() < WANTS_AT_ONCE
            && let Ok(more) = wants.try_recv()
        {
            message.wants.push(more);
        }
        let mut open = match stream.take() {
            Some(open) => open,
            None => open_stream(&mut control, peer).await?,
        };
        if message::write(&mut open, &message).await.is_err() {
            // Peers close streams that were idle: once more on a new one.
            open = open_stream(&mut control, peer).await?;
            message::write(&mut open, &message).await.map_err(|error| error.to_string())?;
        }
        stream = Some(open);
    }
}

async fn open_stream(control: &mut libp2p_stream::Control, peer: PeerId) -> Result<Stream, String> {
    match tokio::time::timeout(OPEN, control.open_stream(peer, BITSWAP_PROTOCOL)).await {
        Ok(Ok(stream)) => Ok(stream),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err("the peer does not answer".to_owned()),
    }
}
