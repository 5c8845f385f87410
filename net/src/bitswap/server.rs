//! Answers what peers want of public blocks.
//!
//! One task for each peer that asks: wants wait in a bounded queue (what does not fit is answered "not here", or not at all), and answers go
//! out on one stream that we open. Blocks are read on threads that may block, a bounded number of bytes at once.

use std::collections::{HashMap, hash_map::Entry as Slot};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use libp2p::{PeerId, Stream};
use libp2p_stream::IncomingStreams;
use parking_lot::Mutex;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::message::{self, Entry, Message, WantKind, prefix_of};
use super::{BITSWAP_PROTOCOL, BLOCK_BYTES_MAX, PublicBlocks};

/// What strangers may cause.
#[derive(Debug, Clone)]
pub struct ServerLimits {
    /// Peers that are answered at once.
    pub peers_max: usize,
    /// Wants of one peer that wait.
    pub wants_per_peer_max: usize,
    /// Streams that are read at once, of all peers and of one.
    pub streams_max: usize,
    pub streams_per_peer_max: usize,
    /// The longest message that is read: a thousand wants.
    pub wants_bytes_max: usize,
    /// Bytes of blocks in memory, of all peers.
    pub bytes_max: usize,
}

impl Default for ServerLimits {
    fn default() -> ServerLimits {
        ServerLimits {
            peers_max: 512,
            wants_per_peer_max: 1024,
            streams_max: 512,
            streams_per_peer_max: 16,
            wants_bytes_max: 256 << 10,
            bytes_max: 64 << 20,
        }
    }
}

/// Blocks of one message: the first one that reaches it is the last.
const MESSAGE_BLOCKS_BYTES: usize = 512 << 10;
/// A stream that brings nothing for so long is closed.
const IDLE: Duration = Duration::from_secs(120);
/// Opening a stream to a peer.
const OPEN: Duration = Duration::from_secs(10);

struct Server {
    control: libp2p_stream::Control,
    blocks: Arc<dyn PublicBlocks>,
    limits: ServerLimits,
    queues: Mutex<HashMap<PeerId, mpsc::Sender<Entry>>>,
    memory: Arc<Semaphore>,
}

/// Serves until `stop`.
pub async fn serve(
    control: libp2p_stream::Control,
    mut incoming: IncomingStreams,
    blocks: Arc<dyn PublicBlocks>,
    limits: ServerLimits,
    stop: CancellationToken,
) {
    let memory = Arc::new(Semaphore::new(limits.bytes_max.max(BLOCK_BYTES_MAX)));
    let server = Arc::new(Server { control, blocks, limits, queues: Mutex::default(), memory });
    let mut tasks = JoinSet::new();
    let mut streams: HashMap<PeerId, usize> = HashMap::new();
    loop {
        tokio::select! {
            () = stop.cancelled() => break,
            Some(Ok(peer)) = tasks.join_next(), if !tasks.is_empty() => {
                if let Slot::Occupied(mut count) = streams.entry(peer) {
                    *count.get_mut() -= 1;
                    if *count.get() == 0 {
                        count.remove();
                    }
                }
            }
            stream = incoming.next() => {
                let Some((peer, stream)) = stream else { break };
                let of_peer = streams.get(&peer).copied().unwrap_or(0);
                if tasks.len() < server.limits.streams_max && of_peer < server.limits.streams_per_peer_max {
                    *streams.entry(peer).or_default() += 1;
                    let (server, stop) = (server.clone(), stop.child_token());
                    tasks.spawn(async move {
                        read(server, peer, stream, stop).await;
                        peer
                    });
                }
            }
        }
    }
    tasks.shutdown().await;
}

/// Reads a peer's wants.
async fn read(server: Arc<Server>, peer: PeerId, mut stream: Stream, stop: CancellationToken) {
    loop {
        let message = tokio::select! {
            () = stop.cancelled() => return,
            message = message::read(&mut stream, server.limits.wants_bytes_max, IDLE) => message,
        };
        match message {
            Ok(Some(message)) => server.take(peer, message.wants, &stop),
            Ok(None) => return,
            Err(error) => {
                tracing::debug!(%peer, %error, "a Bitswap stream ended");
                return;
            }
        }
    }
}

impl Server {
    /// Puts wants into the peer's queue, and begins to answer it if nobody does.
    fn take(self: &Arc<Self>, peer: PeerId, wants: Vec<Entry>, stop: &CancellationToken) {
        // What was to be cancelled was answered, or is about to be: a block more does no harm.
        let mut wants = wants.into_iter().filter(|want| !want.cancel).peekable();
        if wants.peek().is_none() {
            return;
        }
        let mut queues = self.queues.lock();
        let known = queues.get(&peer).filter(|queue| !queue.is_closed()).cloned();
        let queue = match known {
            Some(queue) => queue,
            None => {
                queues.retain(|_, queue| !queue.is_closed());
                if queues.len() >= self.limits.peers_max {
                    tracing::debug!(%peer, "too many peers want blocks");
                    return;
                }
                let (queue, waiting) = mpsc::channel(self.limits.wants_per_peer_max.max(1));
                queues.insert(peer, queue.clone());
                let (server, stop) = (self.clone(), stop.clone());
                tokio::spawn(async move {
                    tokio::select! {
                        () = stop.cancelled() => {}
                        () = server.answer(peer, waiting) => {}
                    }
                });
                queue
            }
        };
        for want in wants {
            // A peer that asks faster than it takes asks again.
            if queue.try_send(want).is_err() {
                tracing::debug!(%peer, "a peer's wants are too many");
                return;
            }
        }
    }

    /// Answers one peer until it wants nothing any more, or does not listen.
    async fn answer(self: Arc<Self>, peer: PeerId, mut waiting: mpsc::Receiver<Entry>) {
        let mut stream: Option<Stream> = None;
        let mut held_back: Option<Entry> = None;
        loop {
            let first = match held_back.take() {
                Some(want) => want,
                None => match tokio::time::timeout(IDLE, waiting.recv()).await {
                    Ok(Some(want)) => want,
                    _ => return,
                },
            };
            let Ok(memory) = self.memory.clone().acquire_many_owned(BLOCK_BYTES_MAX as u32).await else {
                return;
            };
            let mut message = Message::default();
            let mut bytes = 0;
            let mut settled = false;
            let mut next = Some(first);
            while let Some(want) = next {
                bytes += self.add(&mut message, want, &mut settled).await;
                if bytes >= MESSAGE_BLOCKS_BYTES || message.presences.len() >= message::ENTRIES_MAX {
                    break;
                }
                next = waiting.try_recv().ok();
                // The next block may not fit the memory that was asked for.
                if bytes > 0 && next.is_some_and(|want| self.is_large(&want, BLOCK_BYTES_MAX - bytes)) {
                    held_back = next.take();
                }
            }
            if !message.is_empty() && self.send(peer, &mut stream, &message).await.is_err() {
                return;
            }
            drop(memory);
        }
    }

    fn is_large(&self, want: &Entry, room: usize) -> bool {
        want.kind == WantKind::Block && self.blocks.len_of(&want.cid).is_some_and(|len| len as usize > room)
    }

    /// What is wanted, where it is known: the block, or that it is here.
    async fn find(&self, want: Entry) -> Option<Option<Bytes>> {
        let (blocks, cid) = (self.blocks.clone(), want.cid);
        let found = tokio::task::spawn_blocking(move || match want.kind {
            WantKind::Block => blocks.get(&cid).map(Some),
            WantKind::Have => blocks.len_of(&cid).map(|_| None),
        });
        found.await.ok().flatten()
    }

    /// Adds the answer to one want; returns the bytes of its block. What is missed is waited for once a message (`settled`): however much
    /// a peer asks for in vain, it keeps its share of the memory from the others for one such wait.
    async fn add(&self, message: &mut Message, want: Entry, settled: &mut bool) -> usize {
        let mut found = self.find(want).await;
        if found.is_none() && !std::mem::replace(settled, true) {
            self.blocks.settled().await;
            found = self.find(want).await;
        }
        match found {
            Some(Some(block)) => {
                let len = block.len();
                message.blocks.push((prefix_of(&want.cid), block));
                len
            }
            Some(None) => {
                message.presences.push((want.cid, true));
                0
            }
            None => {
                if want.say_dont_have {
                    message.presences.push((want.cid, false));
                }
                0
            }
        }
    }

    /// Sends on the stream that is open, or on a new one.
    async fn send(&self, peer: PeerId, stream: &mut Option<Stream>, message: &Message) -> Result<(), ()> {
        for _ in 0..2 {
            let mut open = match stream.take() {
                Some(open) => open,
                None => {
                    let mut control = self.control.clone();
                    let opening = tokio::time::timeout(OPEN, control.open_stream(peer, BITSWAP_PROTOCOL));
                    match opening.await {
                        Ok(Ok(open)) => open,
                        _ => return Err(()),
                    }
                }
            };
            match message::write(&mut open, message).await {
                Ok(()) => {
                    *stream = Some(open);
                    return Ok(());
                }
                Err(error) => tracing::debug!(%peer, %error, "an answer could not be sent"),
            }
        }
        Err(())
    }
}
