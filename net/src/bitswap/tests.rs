#![allow(clippy::unwrap_used)]

use super::message::{ENTRIES_MAX, Entry, MESSAGE_BYTES_MAX, Message, WantKind, prefix_of, read, write};
use super::*;
use crate::node::{Node, NodeConfig};
use futures::StreamExt;
use futures::future::BoxFuture;
use futures::io::Cursor;
use multihash_codetable::{Code, MultihashDigest};
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

pub(crate) fn cid(bytes: &[u8]) -> Cid {
    Cid::new_v1(0x55, Code::Sha2_256.digest(bytes))
}

pub(crate) fn sample() -> Message {
    let want = |bytes: &[u8], kind| Entry { cid: cid(bytes), kind, cancel: false, say_dont_have: true };
    let v0 = Cid::new_v0(Code::Sha2_256.digest(b"v0")).unwrap();
    let cancelled = Entry { cid: v0, kind: WantKind::Block, cancel: true, say_dont_have: false };
    Message {
        wants: vec![want(b"a", WantKind::Block), want(b"b", WantKind::Have), cancelled],
        full: true,
        blocks: vec![
            (prefix_of(&v0), Bytes::from_static(b"v0")),
            (prefix_of(&cid(b"x")), Bytes::from_static(b"x")),
        ],
        presences: vec![(cid(b"c"), true), (v0, false)],
    }
}

#[test]
fn messages_come_back() {
    let message = sample();
    let bytes = Bytes::from(message.encode());
    assert_eq!(Message::decode(&bytes).unwrap(), message);
    // As every implementation writes it: field 1 of a wantlist's entry is the CID, 5 asks for an answer in any case.
    let one = Message {
        wants: vec![Entry { cid: cid(b"a"), kind: WantKind::Block, cancel: false, say_dont_have: true }],
        ..Message::default()
    };
    let encoded = one.encode();
    let expected = [&[0x0a, 44, 0x0a, 42, 0x0a, 36][..], &cid(b"a").to_bytes(), &[0x10, 1, 0x28, 1]].concat();
    assert_eq!(encoded, expected);
    assert_eq!(prefix_of(&cid(b"a")), [1, 0x55, 0x12, 32]);
    for cut in 0..bytes.len() {
        let _ = Message::decode(&bytes.slice(..cut));
    }
}

#[test]
fn what_is_not_known_is_passed_over_and_lists_are_bounded() {
    // Unknown fields of every kind, a CID that is none, and a block that is too long.
    let odd = [0x48, 7, 0x51, 1, 2, 3, 4, 5, 6, 7, 8, 0x5d, 1, 2, 3, 4, 0x62, 2, 9, 9];
    let bad_entry = [0x0a, 4, 0x0a, 2, 0x0a, 0];
    let bytes = Bytes::from([&odd[..], &bad_entry].concat());
    assert!(Message::decode(&bytes).unwrap().is_empty());
    let mut many = Message::default();
    let want = Entry { cid: cid(b"a"), kind: WantKind::Block, cancel: false, say_dont_have: true };
    many.wants = vec![want; ENTRIES_MAX + 10];
    assert_eq!(Message::decode(&many.encode().into()).unwrap().wants.len(), ENTRIES_MAX);
    let large = Message {
        blocks: vec![(prefix_of(&cid(b"a")), Bytes::from(vec![0; BLOCK_BYTES_MAX + 1]))],
        ..Message::default()
    };
    assert!(Message::decode(&large.encode().into()).unwrap().blocks.is_empty());
    assert!(Message::decode(&Bytes::from(vec![0; MESSAGE_BYTES_MAX + 1])).is_err());
    for bad in [&[0x0a, 5][..], &[0x0b], &[0xff; 11], &[0x0a, 0xff, 0xff, 0xff, 0xff, 0x0f]] {
        assert!(Message::decode(&Bytes::copy_from_slice(bad)).is_err(), "{bad:?}");
    }
}

#[tokio::test]
async fn streams_carry_messages_and_end() {
    let mut bytes = Vec::new();
    for _ in 0..2 {
        write(&mut bytes, &sample()).await.unwrap();
    }
    let mut stream = Cursor::new(bytes.clone());
    for _ in 0..2 {
        assert_eq!(
            read(&mut stream, MESSAGE_BYTES_MAX, Duration::from_secs(1)).await.unwrap(),
            Some(sample())
        );
    }
    assert!(read(&mut stream, MESSAGE_BYTES_MAX, Duration::from_secs(1)).await.unwrap().is_none());
    bytes.truncate(bytes.len() - 1);
    let mut stream = Cursor::new(bytes);
    read(&mut stream, MESSAGE_BYTES_MAX, Duration::from_secs(1)).await.unwrap();
    assert!(read(&mut stream, MESSAGE_BYTES_MAX, Duration::from_secs(1)).await.is_err());
    // A length of 5 MiB, and one that does not end.
    let short = read(&mut Cursor::new(sample().encode()), 3, Duration::from_secs(1)).await;
    assert!(short.is_err(), "longer than is allowed here");
    for bad in [&[0x80, 0x80, 0xc0, 0x02][..], &[0xff, 0xff, 0xff, 0xff, 0xff]] {
        assert!(read(&mut Cursor::new(bad), MESSAGE_BYTES_MAX, Duration::from_secs(1)).await.is_err());
    }
}

struct Memory(HashMap<Cid, Bytes>);

impl PublicBlocks for Memory {
    fn len_of(&self, cid: &Cid) -> Option<u32> {
        self.0.get(cid).map(|bytes| bytes.len() as u32)
    }
    fn get(&self, cid: &Cid) -> Option<Bytes> {
        self.0.get(cid).cloned()
    }
    fn settled(&self) -> BoxFuture<'_, ()> {
        Box::pin(std::future::ready(()))
    }
}

/// Knows its block only after somebody waited for what was stored.
struct Late(Bytes, AtomicBool);

impl PublicBlocks for Late {
    fn len_of(&self, cid: &Cid) -> Option<u32> {
        self.get(cid).map(|bytes| bytes.len() as u32)
    }
    fn get(&self, cid: &Cid) -> Option<Bytes> {
        (self.1.load(Ordering::Relaxed) && matches(cid, &self.0)).then(|| self.0.clone())
    }
    fn settled(&self) -> BoxFuture<'_, ()> {
        Box::pin(async {
            tokio::time::sleep(Duration::from_millis(50)).await;
            self.1.store(true, Ordering::Relaxed);
        })
    }
}

#[tokio::test]
async fn what_was_just_stored_is_not_denied() {
    let key = |n| crate::identity::keypair([n; 32]).unwrap();
    let listen = vec!["/ip4/127.0.0.1/tcp/0".parse().unwrap()];
    let node = Node::start(NodeConfig::listening(key(3), listen).with_bitswap()).await.unwrap();
    let (block, stop) = (Bytes::from_static(b"just stored"), CancellationToken::new());
    let incoming = node.take_incoming(BITSWAP_PROTOCOL).unwrap();
    let late = Arc::new(Late(block.clone(), AtomicBool::new(false)));
    tokio::spawn(serve(node.streams(), incoming, late, ServerLimits::default(), stop.clone()));
    let client = BitswapClient::new(Node::start(NodeConfig::client(key(4))).await.unwrap()).unwrap();
    client.connect(node.peer_id(), &node.listeners(), Duration::from_secs(10)).await.unwrap();
    let fetched = client.fetch(node.peer_id(), cid(&block), Duration::from_secs(10)).await;
    assert_eq!(fetched.ok(), Some(block));
    let other = client.fetch(node.peer_id(), cid(b"never stored"), Duration::from_secs(10)).await;
    assert!(matches!(other, Err(FetchError::NotThere)), "{other:?}");
    stop.cancel();
}

#[tokio::test]
async fn blocks_go_from_one_node_to_another() {
    let key = |n| crate::identity::keypair([n; 32]).unwrap();
    let listen = vec!["/ip4/127.0.0.1/tcp/0".parse().unwrap()];
    let node = Node::start(NodeConfig::listening(key(1), listen).with_bitswap()).await.unwrap();
    let blocks: Vec<Bytes> =
        (0..200u32).map(|n| Bytes::from(n.to_le_bytes().repeat(1 + 9_000 * n as usize))).collect();
    let store = blocks.iter().filter(|b| b.len() <= BLOCK_BYTES_MAX).map(|b| (cid(b), b.clone())).collect();
    let stop = CancellationToken::new();
    let incoming = node.take_incoming(BITSWAP_PROTOCOL).unwrap();
    let limits = ServerLimits { bytes_max: 4 << 20, ..ServerLimits::default() };
    let server = tokio::spawn(serve(node.streams(), incoming, Arc::new(Memory(store)), limits, stop.clone()));

    let client = BitswapClient::new(Node::start(NodeConfig::client(key(2))).await.unwrap()).unwrap();
    let peer = node.peer_id();
    client.connect(peer, &node.listeners(), Duration::from_secs(10)).await.unwrap();
    let wanted = blocks.iter().filter(|b| b.len() <= BLOCK_BYTES_MAX);
    let fetching = wanted.map(|block| {
        let client = client.clone();
        async move { (block, client.fetch(peer, cid(block), Duration::from_secs(30)).await) }
    });
    let fetched: Vec<_> = futures::stream::iter(fetching).buffer_unordered(40).collect().await;
    assert!(fetched.len() > 50);
    for (block, answer) in fetched {
        assert!(answer.unwrap() == *block);
    }
    let missing = client.fetch(peer, cid(b"nobody has this"), Duration::from_secs(10)).await;
    assert!(matches!(missing, Err(FetchError::NotThere)), "{missing:?}");
    // A peer that is not there.
    let nobody = key(9).public().to_peer_id();
    let gone = client.fetch(nobody, cid(b"x"), Duration::from_secs(10)).await;
    assert!(matches!(gone, Err(FetchError::Unreachable(_))), "{gone:?}");
    stop.cancel();
    server.await.unwrap();
}
