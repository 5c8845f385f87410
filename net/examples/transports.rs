//! What TCP (with Noise and Yamux) and QUIC carry between two nodes of this machine, and how long a connection takes to
//! stand: why one is dialled before the other.
//!
//!     cargo run --release -p holdfast-net --example transports [MIB]
#![allow(clippy::unwrap_used)]

use std::time::Duration;

use futures::{AsyncReadExt, AsyncWriteExt, StreamExt};
use holdfast_net::identity::keypair;
use holdfast_net::{Multiaddr, Node, NodeConfig};
use libp2p::StreamProtocol;
use tokio::time::Instant;

const PROTOCOL: StreamProtocol = StreamProtocol::new("/holdfast/example/1");
const HANDSHAKES: u32 = 50;
const CHUNK_BYTES: usize = 256 << 10;

fn cpu_seconds() -> f64 {
    let usage = nix::sys::resource::getrusage(nix::sys::resource::UsageWho::RUSAGE_SELF).unwrap();
    let seconds = |t: nix::sys::time::TimeVal| t.tv_sec() as f64 + t.tv_usec() as f64 / 1e6;
    seconds(usage.user_time()) + seconds(usage.system_time())
}

async fn measure(name: &str, listen: &str, mib: usize) {
    let server = Node::start(NodeConfig::listening(keypair([1; 32]).unwrap(), vec![listen.parse().unwrap()]))
        .await
        .unwrap();
    let mut incoming = server.streams().accept(PROTOCOL).unwrap();
    tokio::spawn(async move {
        while let Some((_, mut stream)) = incoming.next().await {
            tokio::spawn(async move {
                let mut buffer = vec![0; CHUNK_BYTES];
                while stream.read(&mut buffer).await.is_ok_and(|n| n > 0) {}
                let _ = stream.write_all(&[1]).await;
                let _ = stream.close().await;
            });
        }
    });
    let addrs: Vec<Multiaddr> = server.listeners();
    let mut handshakes = Vec::new();
    for n in 0..HANDSHAKES {
        let client = Node::start(NodeConfig::client(keypair([n as u8 + 2; 32]).unwrap())).await.unwrap();
        let start = Instant::now();
        client.dial(server.peer_id(), &addrs, Duration::from_secs(10)).await.unwrap();
        handshakes.push(start.elapsed());
        client.shutdown().await;
    }
    handshakes.sort_unstable();
    let client = Node::start(NodeConfig::client(keypair([99; 32]).unwrap())).await.unwrap();
    client.dial(server.peer_id(), &addrs, Duration::from_secs(10)).await.unwrap();
    let mut stream = client.streams().open_stream(server.peer_id(), PROTOCOL).await.unwrap();
    let chunk = vec![7; CHUNK_BYTES];
    let (start, cpu) = (Instant::now(), cpu_seconds());
    for _ in 0..mib * (1 << 20) / CHUNK_BYTES {
        stream.write_all(&chunk).await.unwrap();
    }
    stream.close().await.unwrap();
    stream.read_exact(&mut [0]).await.unwrap();
    let (took, cpu) = (start.elapsed().as_secs_f64(), cpu_seconds() - cpu);
    let rate = mib as f64 * 1.048_576 / took;
    println!(
        "{name:<5} {rate:>6.0} MB/s  {:.2} CPU s for each GiB, both ends  a connection stands after {:?} (median of {HANDSHAKES})",
        cpu * 1024.0 / mib as f64,
        handshakes[handshakes.len() / 2]
    );
    client.shutdown().await;
    server.shutdown().await;
}

#[tokio::main]
async fn main() {
    let mib = std::env::args().nth(1).and_then(|n| n.parse().ok()).unwrap_or(512);
    measure("TCP", "/ip4/127.0.0.1/tcp/0", mib).await;
    measure("QUIC", "/ip4/127.0.0.1/udp/0/quic-v1", mib).await;
}
