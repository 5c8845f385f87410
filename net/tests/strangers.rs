//! Many strangers at once: connections that lead nowhere, bytes that mean nothing, and who is not let in.
#![allow(clippy::unwrap_used)]

mod common;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use common::{Running, SOON, Slot, config, key, loopback, noise, session};
use futures::{AsyncReadExt, AsyncWriteExt, StreamExt};
use holdfast_net::client::Priority;
use holdfast_net::wire::{CONTROL_PROTOCOL, DATA_PROTOCOL};
use holdfast_net::{ByteRange, Discovery, ErrorCode, Multiaddr, NetError, PeerSet};
use libp2p::multiaddr::Protocol;
use tokio::net::{TcpSocket, UdpSocket};
use tokio::time::Instant;

const CONNECTIONS: usize = 10_000;
/// Sockets that the test holds open at once.
const AT_ONCE: usize = 200;
const STRANGERS: u8 = 24;
/// The strangers themselves are in this process too.
const MEMORY_GROWTH_BYTES_MAX: u64 = 512 << 20;
/// A read beside all this, on a machine that has other work too.
const READ_MAX: Duration = Duration::from_secs(10);

fn port_of(addr: &Multiaddr) -> u16 {
    let port = addr.iter().find_map(|part| match part {
        Protocol::Tcp(port) | Protocol::Udp(port) => Some(port),
        _ => None,
    });
    port.unwrap()
}

fn memory_bytes() -> u64 {
    let pages: u64 =
        std::fs::read_to_string("/proc/self/statm").unwrap().split(' ').nth(1).unwrap().parse().unwrap();
    pages * 4096
}

/// A connection from another address of this machine, which begins with junk or with nothing.
async fn knock(n: usize, port: u16) {
    let socket = TcpSocket::new_v4().unwrap();
    let from = Ipv4Addr::new(127, 0, 1, u8::try_from(n % 8).unwrap() + 1);
    socket.bind(SocketAddr::new(from.into(), 0)).unwrap();
    let Ok(stream) = socket.connect(SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port)).await else { return };
    if !n.is_multiple_of(3) {
        let junk = noise(1 + n % 3000, u8::try_from(n % 251).unwrap());
        let _ = stream.writable().await;
        let _ = stream.try_write(&junk);
    }
    if n.is_multiple_of(5) {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// A peer that speaks libp2p and nothing of ours: garbage, lengths that never come, frames out of turn.
async fn misbehave(seed: u8, addr: Multiaddr, peer: holdfast_net::PeerId, stop: Arc<AtomicBool>) -> usize {
    let mut streams_made = 0;
    while !stop.load(Ordering::Relaxed) {
        let client = common::client().await;
        let dialled = client.node().unwrap().dial(peer, std::slice::from_ref(&addr), SOON).await;
        if dialled.is_err() {
            tokio::time::sleep(Duration::from_millis(20)).await;
            continue;
        }
        let mut control = client.node().unwrap().streams();
        let mut held = Vec::new();
        for n in 0..40u8 {
            let protocol = if n % 2 == 0 { CONTROL_PROTOCOL } else { DATA_PROTOCOL };
            let Ok(Ok(mut stream)) = tokio::time::timeout(SOON, control.open_stream(peer, protocol)).await
            else {
                break;
            };
            streams_made += 1;
            let bytes = match n % 4 {
                0 => noise(900, seed.wrapping_add(n)).to_vec(),
                // A mebibyte is promised, a few bytes come.
                1 => [&[0, 0x10, 0, 5, 1, 0, 0, 0, 1][..], &[7; 30]].concat(),
                // Longer than a frame may be.
                2 => vec![0xff; 64],
                // A request in good form that is none.
                _ => [&[0, 0, 0, 6, 1, 0, 0, 0, 1][..], &[0xa0]].concat(),
            };
            let _ = tokio::time::timeout(SOON, async {
                stream.write_all(&bytes).await?;
                stream.flush().await?;
                if n % 4 == 3 {
                    // An answer or the end: either will do.
                    let _ = stream.read(&mut [0; 64]).await?;
                }
                std::io::Result::Ok(())
            })
            .await;
            held.push(stream);
        }
        client.node().unwrap().shutdown().await;
    }
    streams_made
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_connections_and_malformed_frames_leave_a_provider_serving() {
    let dir = tempfile::tempdir().unwrap();
    let listen = vec![loopback(), "/ip4/127.0.0.1/udp/0/quic-v1".parse().unwrap()];
    let running =
        Running::finding(dir.path(), 7, listen, Discovery::default(), config(), Arc::default()).await;
    let addrs = running.whereabouts().addrs;
    let (tcp, quic) = (port_of(&addrs[0]), port_of(&addrs[1]));
    let owner = common::client().await;
    let served = session(&owner, &running, &key(1)).await;
    let slot = Arc::new(Slot::new(1 << 20, 1, &key(1), running.peer()));
    slot.store(&served).await;
    let before = memory_bytes();

    let stop = Arc::new(AtomicBool::new(false));
    let strangers: Vec<_> = (0..STRANGERS)
        .map(|n| tokio::spawn(misbehave(n, addrs[usize::from(n % 2)].clone(), running.peer(), stop.clone())))
        .collect();
    let datagrams = {
        let stop = stop.clone();
        tokio::spawn(async move {
            let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
            let mut n = 0u64;
            while !stop.load(Ordering::Relaxed) {
                let junk = noise(1200, (n % 251) as u8);
                let _ = socket.send_to(&junk, (IpAddr::V4(Ipv4Addr::LOCALHOST), quic)).await;
                n += 1;
                tokio::time::sleep(Duration::from_micros(200)).await;
            }
            n
        })
    };
    let reads = Arc::new(AtomicUsize::new(0));
    let reading = {
        let (stop, served, slot, reads) = (stop.clone(), served.clone(), slot.clone(), reads.clone());
        tokio::spawn(async move {
            let (deal, mut worst) = (slot.proposal.deal_id(), Duration::ZERO);
            while !stop.load(Ordering::Relaxed) {
                let n = reads.fetch_add(1, Ordering::Relaxed);
                let from = (n * 7919) % (slot.bytes.len() - 4096);
                let range = ByteRange::new(from as u64, 4096);
                let start = Instant::now();
                let read = served.read(deal, &[range], Priority::Interactive, SOON).await.unwrap();
                assert_eq!(read[0], slot.bytes[from..from + 4096]);
                if n.is_multiple_of(20) {
                    served.audit(deal, &slot.audit(), SOON).await.unwrap();
                }
                worst = worst.max(start.elapsed());
            }
            worst
        })
    };
    let knocks = futures::stream::iter(0..CONNECTIONS).for_each_concurrent(AT_ONCE, |n| knock(n, tcp));
    let start = Instant::now();
    knocks.await;
    let took = start.elapsed();

    // Whoever comes new is served as well.
    let newcomer = common::client().await;
    let fresh = session(&newcomer, &running, &key(2)).await;
    Slot::new(10_000, 2, &key(2), running.peer()).store(&fresh).await;

    stop.store(true, Ordering::Relaxed);
    let worst = reading.await.unwrap();
    let mut streams = 0;
    for stranger in strangers {
        streams += stranger.await.unwrap();
    }
    let datagrams = datagrams.await.unwrap();
    let (reads, grown) = (reads.load(Ordering::Relaxed), memory_bytes().saturating_sub(before));
    println!(
        "{CONNECTIONS} connections in {took:.1?}, {streams} streams of garbage, {datagrams} datagrams; {reads} reads \
         meanwhile, the slowest in {worst:.1?}; {} MiB more memory",
        grown >> 20
    );
    assert!(reads > 50 && streams > 100, "{reads} reads, {streams} streams");
    assert!(worst < READ_MAX, "the slowest read took {worst:?}");
    assert!(grown < MEMORY_GROWTH_BYTES_MAX, "{} MiB more memory", grown >> 20);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_blocked_is_cut_off_and_kept_out() {
    let dir = tempfile::tempdir().unwrap();
    let running = Running::start(dir.path()).await;
    let (good, bad) = (common::client().await, common::client().await);
    let (kept, cut) = (session(&good, &running, &key(1)).await, session(&bad, &running, &key(2)).await);
    let closed = running.node.block(PeerSet::of_peers([bad.node().unwrap().peer_id()])).await.unwrap();
    assert_eq!(closed, 1);
    kept.info().await.unwrap();
    let refused = cut.info().await.unwrap_err();
    assert!(matches!(refused, NetError::Unreachable(_) | NetError::Disconnected(_)), "{refused}");
    running.node.block(PeerSet::parse("127.0.0.0/8\n").unwrap()).await.unwrap();
    assert!(kept.info().await.is_err());
    running.node.block(PeerSet::default()).await.unwrap();
    kept.ensure_connected().await.unwrap();
    kept.info().await.unwrap();
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deals_are_taken_of_those_who_are_listed_and_what_was_taken_is_served_on() {
    use holdfast_net::provider::Allow;
    let dir = tempfile::tempdir().unwrap();
    let running = Running::start(dir.path()).await;
    let client = common::client().await;
    let live = session(&client, &running, &key(1)).await;
    let old = Slot::new(5_000, 1, &key(1), running.peer());
    old.store(&live).await;
    let propose = async |slot: Slot| live.propose(&slot.proposal, slot.manifest.as_bytes()).await.map(drop);
    let list = |text: &str| Allow::Listed(Arc::new(PeerSet::parse(text).unwrap()));

    running.provider.set_allow(list("192.0.2.0/24"));
    let refused = propose(Slot::new(5_000, 2, &key(1), running.peer())).await.unwrap_err();
    assert_eq!(refused.code(), Some(ErrorCode::NotAllowed));
    assert!(!live.info().await.unwrap().accepting);
    let range = [ByteRange::new(0, 100)];
    live.read(old.proposal.deal_id(), &range, Priority::Bulk, SOON).await.unwrap();

    running.provider.set_allow(list("127.0.0.1"));
    propose(Slot::new(5_000, 2, &key(1), running.peer())).await.unwrap();
    running.provider.set_allow(list(&client.node().unwrap().peer_id().to_string()));
    propose(Slot::new(5_000, 3, &key(1), running.peer())).await.unwrap();
    running.stop().await;
}
