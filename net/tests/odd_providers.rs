//! Providers that drop streams, or do not answer: what a session makes of them.
#![allow(clippy::unwrap_used)]

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use common::{Slot, key, loopback, rand32};
use futures::{AsyncWriteExt, StreamExt};
use holdfast_net::client::Priority;
use holdfast_net::identity::keypair;
use holdfast_net::tags::Tags;
use holdfast_net::wire::message::{self, WireError};
use holdfast_net::wire::{
    CONTROL_PROTOCOL, DATA_PROTOCOL, DataRequest, FrameKind, Reply, Request, Ticket, WIRE_VERSION,
    read_frame, write_frame,
};
use holdfast_net::{
    ByteRange, Client, ClientConfig, DealId, Env, ErrorCode, NetError, Node, NodeConfig, Session,
};
use libp2p::Stream;

/// How it behaves, and what was asked of it.
#[derive(Default)]
struct Mood {
    /// So many control streams to come are dropped unanswered.
    drops_control: AtomicUsize,
    /// The same of data streams.
    drops_data: AtomicUsize,
    /// Nothing but hello is answered.
    silent: AtomicBool,
    hellos: AtomicUsize,
}

impl Mood {
    fn drops(&self, control: bool) -> bool {
        let left = if control { &self.drops_control } else { &self.drops_data };
        left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1)).is_ok()
    }
}

async fn start(mood: &Arc<Mood>) -> Node {
    let config = NodeConfig::listening(keypair(rand32()).unwrap(), vec![loopback()]);
    let node = Node::start(config).await.unwrap();
    for (protocol, control) in [(CONTROL_PROTOCOL, true), (DATA_PROTOCOL, false)] {
        let mut incoming = node.take_incoming(protocol).unwrap();
        let mood = mood.clone();
        tokio::spawn(async move {
            while let Some((_, stream)) = incoming.next().await {
                if !mood.drops(control) {
                    let mood = mood.clone();
                    tokio::spawn(async move {
                        if control { answer(stream, &mood).await } else { take(stream).await }
                    });
                }
            }
        });
    }
    node
}

async fn answer(mut stream: Stream, mood: &Mood) {
    while let Ok(frame) = read_frame(&mut stream).await {
        if frame.kind() != FrameKind::Request {
            continue;
        }
        let reply = match message::decode::<Request>(&frame.payload()).unwrap() {
            Request::Hello { .. } => {
                mood.hellos.fetch_add(1, Ordering::SeqCst);
                Reply::Hello {
                    agent: "odd".into(),
                    inflight: 8,
                    nonce: [1; 32],
                    ranges: 8,
                    read: 1 << 20,
                    ticket: Ticket([1; 16]),
                    v: WIRE_VERSION,
                }
            }
            _ if mood.silent.load(Ordering::SeqCst) => continue,
            _ => Reply::Tags(Tags::default()),
        };
        let frame = message::frame_of(FrameKind::Reply, frame.request(), &reply);
        if write_frame(&mut stream, &frame).await.is_err() || stream.flush().await.is_err() {
            return;
        }
    }
}

/// Takes pushes slowly, and has no space for them in the end.
async fn take(mut stream: Stream) {
    while let Ok(frame) = read_frame(&mut stream).await {
        let id = frame.request();
        let said = match frame.kind() {
            FrameKind::Request => match message::decode::<DataRequest>(&frame.payload()).unwrap() {
                DataRequest::Attach { .. } => message::frame_of(FrameKind::Reply, id, &Reply::Ok {}),
                DataRequest::Push { .. } => message::frame_of(FrameKind::Go, id, &Reply::Go { offset: 0 }),
                DataRequest::Read { .. } => {
                    message::error_frame(id, &WireError::new(ErrorCode::NotFound, "no such deal"))
                }
            },
            FrameKind::End => message::error_frame(id, &WireError::new(ErrorCode::Terms, "after all")),
            _ => {
                tokio::time::sleep(Duration::from_millis(25)).await;
                continue;
            }
        };
        if write_frame(&mut stream, &said).await.is_err() || stream.flush().await.is_err() {
            return;
        }
    }
}

async fn session(node: &Node, config: ClientConfig) -> Result<Session, NetError> {
    let own = Node::start(NodeConfig::client(keypair(rand32()).unwrap())).await.unwrap();
    Client::new(own, Env::system(), config).connect(node.peer_id(), node.listeners()).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_that_are_dropped_before_their_first_answer_are_opened_again() {
    let mood = Arc::new(Mood::default());
    let node = start(&mood).await;
    mood.drops_control.store(4, Ordering::SeqCst);
    let live = session(&node, ClientConfig::default()).await.unwrap();
    assert_eq!(mood.hellos.load(Ordering::SeqCst), 1);

    mood.drops_data.store(4, Ordering::SeqCst);
    let read = live.read(DealId([1; 32]), &[ByteRange::new(0, 1)], Priority::Bulk, common::SOON).await;
    assert_eq!(read.unwrap_err().code(), Some(ErrorCode::NotFound), "asked, and answered");
    assert_eq!(mood.drops_data.load(Ordering::SeqCst), 0);
    assert_eq!(mood.hellos.load(Ordering::SeqCst), 1, "in the same session");

    // Not for ever.
    mood.drops_control.store(usize::MAX, Ordering::SeqCst);
    let refused = session(&node, ClientConfig::default()).await.unwrap_err();
    assert!(matches!(refused, NetError::Disconnected(_)), "{refused}");
    node.shutdown().await;
}

/// One control request that is not answered in time costs a push nothing: neither its stream nor the connection.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn silence_beside_a_push_ends_a_call_and_nothing_else() {
    let mood = Arc::new(Mood::default());
    let node = start(&mood).await;
    let config = ClientConfig {
        request_timeout: Duration::from_millis(400),
        silence_timeout: Duration::from_millis(300),
        ..ClientConfig::default()
    };
    let live = session(&node, config).await.unwrap();
    live.tags().await.unwrap();
    let slot = Slot::new(12 << 20, 1, &key(1), node.peer_id());
    let pushing = {
        let (live, slot) = (live.clone(), slot.proposal.clone());
        let bytes = Arc::new(common::noise(12 << 20, 1));
        tokio::spawn(async move { live.push(&slot, bytes, |_| {}).await })
    };
    tokio::time::sleep(Duration::from_millis(100)).await;
    mood.silent.store(true, Ordering::SeqCst);
    assert!(matches!(live.tags().await, Err(NetError::Timeout(_))));
    assert!(!pushing.is_finished(), "the push outlasts the call");
    let refused = pushing.await.unwrap().unwrap_err();
    assert_eq!(refused.code(), Some(ErrorCode::Terms), "{refused}");
    assert_eq!(mood.hellos.load(Ordering::SeqCst), 1, "in one session");

    // With nothing else under way the link and its connection are given up, and the next call finds others.
    assert!(matches!(live.tags().await, Err(NetError::Timeout(_))));
    mood.silent.store(false, Ordering::SeqCst);
    live.tags().await.unwrap();
    assert_eq!(mood.hellos.load(Ordering::SeqCst), 2);
    node.shutdown().await;
}
