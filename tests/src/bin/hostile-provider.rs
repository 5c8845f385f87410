//! A provider that went bad: it has a real provider's identity and address, and of each request makes nothing good.
//!
//! ```text
//! silent     takes streams and reads what comes; answers nothing
//! garbage    answers each frame with random bytes, some of them shaped like frames
//! liar       answers in valid frames that say nothing true: empty replies, data that was not asked for
//! ```

use std::path::PathBuf;

use clap::{Parser, ValueEnum};
use futures::{AsyncReadExt as _, AsyncWriteExt as _, StreamExt as _};
use holdfast_net::wire::{CONTROL_PROTOCOL, DATA_PROTOCOL, Frame, FrameKind, read_frame, write_frame};
use holdfast_net::{Env, identity};
use libp2p::swarm::SwarmEvent;
use libp2p::{Multiaddr, Stream, noise, tcp, yamux};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};

/// A provider that answers wrongly, or not at all.
#[derive(Parser)]
struct Args {
    /// The identity file of the provider that it stands in for.
    #[arg(long)]
    identity: PathBuf,
    /// Where it listens.
    #[arg(long)]
    listen: Multiaddr,
    #[arg(long)]
    mode: Mode,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Mode {
    Silent,
    Garbage,
    Liar,
}

const GARBAGE_BYTES: usize = 3000;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let keypair = identity::load_or_create(&args.identity, &Env::system())?;
    let mut swarm = libp2p::SwarmBuilder::with_existing_identity(keypair)
        .with_tokio()
        .with_tcp(tcp::Config::default().nodelay(true), noise::Config::new, yamux::Config::default)?
        .with_behaviour(|_| libp2p_stream::Behaviour::new())?
        .build();
    let mut control = swarm.behaviour().new_control();
    for protocol in [CONTROL_PROTOCOL, DATA_PROTOCOL] {
        let mut incoming = control.accept(protocol)?;
        let mode = args.mode;
        tokio::spawn(async move {
            let mut number = 0;
            while let Some((_, stream)) = incoming.next().await {
                number += 1;
                tokio::spawn(misbehave(stream, mode, number));
            }
        });
    }
    swarm.listen_on(args.listen)?;
    loop {
        match swarm.select_next_some().await {
            SwarmEvent::NewListenAddr { address, .. } => println!("{address}/p2p/{}", swarm.local_peer_id()),
            SwarmEvent::ConnectionEstablished { peer_id, .. } => println!("connection of {peer_id}"),
            _ => {}
        }
    }
}

async fn misbehave(mut stream: Stream, mode: Mode, seed: u64) {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    // When the other side has had enough, so have we.
    let _ = match mode {
        Mode::Silent => swallow(&mut stream).await,
        Mode::Garbage => garbage(&mut stream, &mut rng).await,
        Mode::Liar => lie(&mut stream, &mut rng).await,
    };
}

async fn swallow(stream: &mut Stream) -> std::io::Result<()> {
    let mut buffer = vec![0; 64 << 10];
    while stream.read(&mut buffer).await? > 0 {}
    Ok(())
}

async fn garbage(stream: &mut Stream, rng: &mut ChaCha8Rng) -> std::io::Result<()> {
    let mut buffer = vec![0; 64 << 10];
    while stream.read(&mut buffer).await? > 0 {
        let mut noise = vec![0; GARBAGE_BYTES];
        rng.fill_bytes(&mut noise);
        if rng.next_u32().is_multiple_of(2) {
            // A header that promises what does not come.
            noise[..9].copy_from_slice(&[0, 0x0f, 0xff, 0xff, 2, 0, 0, 0, 1]);
        }
        stream.write_all(&noise).await?;
        stream.flush().await?;
    }
    Ok(())
}

async fn lie(stream: &mut Stream, rng: &mut ChaCha8Rng) -> std::io::Result<()> {
    while let Ok(frame) = read_frame(stream).await {
        let mut noise = vec![0; 1 + (rng.next_u32() % 2000) as usize];
        rng.fill_bytes(&mut noise);
        let (kind, payload): (FrameKind, &[u8]) = match rng.next_u32() % 4 {
            // An empty map in CBOR: a reply to nothing.
            0 => (FrameKind::Reply, &[0xa0]),
            1 => (FrameKind::Reply, &noise),
            2 => (FrameKind::Data, &noise),
            _ => (FrameKind::End, &[]),
        };
        if let Some(answer) = Frame::new(kind, frame.request(), payload) {
            write_frame(stream, &answer).await?;
            stream.flush().await?;
        }
    }
    Ok(())
}
