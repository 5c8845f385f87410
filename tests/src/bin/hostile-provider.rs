//! A provider that went bad: it has a real provider's identity and address, and of each request makes nothing good.
//!
//! ```text
//! silent     takes streams and reads what comes; answers nothing
//! garbage    answers each frame with random bytes, some of them shaped like frames
//! liar       answers in valid frames that say nothing true: empty replies, data that was not asked for
//! two-faced  keeps, answers and proves everything as a real provider does, and gives other bytes to who reads
//! refusing   the same, and refuses whoever reads
//! ```
//!
//! The last two stand between the owner and a real provider over the same folder, to which they speak as the owner: under the owner's
//! network identity, which a real one does not have.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use clap::{Parser, ValueEnum};
use futures::io::{ReadHalf, WriteHalf};
use futures::{AsyncReadExt as _, AsyncWriteExt as _, StreamExt as _};
use holdfast::records::DriveRecords;
use holdfast_net::node::{Node, NodeConfig};
use holdfast_net::provider::{Provider, ProviderConfig};
use holdfast_net::settlement::NoSettlement;
use holdfast_net::wire::message::{self, error_frame};
use holdfast_net::wire::{
    CONTROL_PROTOCOL, DATA_PROTOCOL, DataRequest, Frame, FrameKind, WireError, read_frame, write_frame,
};
use holdfast_net::{Env, ErrorCode, Keypair, identity};
use libp2p::swarm::SwarmEvent;
use libp2p::swarm::dial_opts::DialOpts;
use libp2p::{Multiaddr, PeerId, Stream, StreamProtocol, noise, tcp, yamux};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};
use tokio::sync::Mutex;

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
    /// The folder of the provider that it stands in for, which it keeps going.
    #[arg(long)]
    folder: Option<PathBuf>,
    /// The seed of the owner's network identity.
    #[arg(long)]
    owner: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Mode {
    Silent,
    Garbage,
    Liar,
    TwoFaced,
    Refusing,
}

const GARBAGE_BYTES: usize = 3000;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let keypair = identity::load_or_create(&args.identity, &Env::system())?;
    let behind = match (&args.folder, &args.owner) {
        (Some(folder), Some(owner)) => Some(Behind::start(keypair.clone(), folder, owner).await?),
        _ => None,
    };
    let mut swarm = libp2p::SwarmBuilder::with_existing_identity(keypair)
        .with_tokio()
        .with_tcp(tcp::Config::default().nodelay(true), noise::Config::new, yamux::Config::default)?
        .with_behaviour(|_| libp2p_stream::Behaviour::new())?
        .build();
    let mut control = swarm.behaviour().new_control();
    for protocol in [CONTROL_PROTOCOL, DATA_PROTOCOL] {
        let mut incoming = control.accept(protocol.clone())?;
        let (mode, behind) = (args.mode, behind.clone());
        tokio::spawn(async move {
            let mut number = 0;
            while let Some((peer, stream)) = incoming.next().await {
                number += 1;
                match &behind {
                    None => drop(tokio::spawn(misbehave(stream, mode, number))),
                    // It can pass itself off as the owner alone; of others it takes nothing.
                    Some(behind) if behind.owner == peer => {
                        let (behind, protocol) = (behind.clone(), protocol.clone());
                        tokio::spawn(async move {
                            if let Err(error) = behind.relay(stream, protocol, mode).await {
                                println!("a stream ended: {error:#}");
                            }
                        });
                    }
                    Some(_) => {}
                }
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
        Mode::TwoFaced | Mode::Refusing => Ok(()),
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

/// The real provider behind a false one, and the way to it.
#[derive(Clone)]
struct Behind {
    owner: PeerId,
    real: PeerId,
    control: libp2p_stream::Control,
}

impl Behind {
    async fn start(keypair: Keypair, folder: &Path, owner: &str) -> anyhow::Result<Behind> {
        let seed = data_encoding::HEXLOWER.decode(owner.as_bytes())?;
        let owner = identity::keypair(seed.as_slice().try_into()?)?;
        let node = Node::start(NodeConfig::listening(keypair, vec!["/ip4/127.0.0.1/tcp/0".parse()?])).await?;
        let (config, env) = (ProviderConfig::with_capacity(40 << 30), Env::system());
        let (records, money) = (Arc::new(DriveRecords), Arc::new(NoSettlement));
        let provider = Provider::open(folder, config, node.clone(), env, records, money).await?;
        tokio::spawn(async move {
            if let Err(error) = provider.run().await {
                println!("the provider behind ended: {error}");
            }
        });
        let (real, owner_id) = (node.peer_id(), owner.public().to_peer_id());
        let mut swarm = libp2p::SwarmBuilder::with_existing_identity(owner)
            .with_tokio()
            .with_tcp(tcp::Config::default().nodelay(true), noise::Config::new, yamux::Config::default)?
            .with_behaviour(|_| libp2p_stream::Behaviour::new())?
            .with_swarm_config(|config| config.with_idle_connection_timeout(Duration::from_secs(3600)))
            .build();
        let control = swarm.behaviour().new_control();
        let addresses = node.listeners();
        swarm.dial(DialOpts::peer_id(real).addresses(addresses).build())?;
        loop {
            match swarm.select_next_some().await {
                SwarmEvent::ConnectionEstablished { .. } => break,
                SwarmEvent::OutgoingConnectionError { error, .. } => return Err(error.into()),
                _ => {}
            }
        }
        tokio::spawn(async move {
            loop {
                swarm.select_next_some().await;
            }
        });
        Ok(Behind { owner: owner_id, real, control })
    }

    /// Every frame goes on as it is, but for those of reads.
    async fn relay(&self, front: Stream, protocol: StreamProtocol, mode: Mode) -> anyhow::Result<()> {
        let data = protocol == DATA_PROTOCOL;
        let back = self.control.clone().open_stream(self.real, protocol).await?;
        let (from_owner, to_owner) = front.split();
        let (from_real, to_real) = back.split();
        let to_owner = Mutex::new(to_owner);
        tokio::select! {
            ended = ask(from_owner, to_real, &to_owner, data && mode == Mode::Refusing) => ended,
            ended = answer(from_real, &to_owner, data && mode == Mode::TwoFaced) => ended,
        }
    }
}

/// What the owner asks goes on; reads are refused, if that is how it is bad.
async fn ask(
    mut from_owner: ReadHalf<Stream>,
    mut to_real: WriteHalf<Stream>,
    to_owner: &Mutex<WriteHalf<Stream>>,
    refuses: bool,
) -> anyhow::Result<()> {
    loop {
        let frame = read_frame(&mut from_owner).await?;
        if refuses && is_read(&frame) {
            let refusal = WireError::new(ErrorCode::NotFound, "no such deal");
            give(to_owner, &error_frame(frame.request(), &refusal)).await?;
            continue;
        }
        write_frame(&mut to_real, &frame).await?;
        to_real.flush().await?;
    }
}

/// What the real one answers goes back; data with other bytes, if that is how it is bad.
async fn answer(
    mut from_real: ReadHalf<Stream>,
    to_owner: &Mutex<WriteHalf<Stream>>,
    other_bytes: bool,
) -> anyhow::Result<()> {
    loop {
        let mut frame = read_frame(&mut from_real).await?;
        if other_bytes && frame.kind() == FrameKind::Data {
            let mut bytes = frame.payload().to_vec();
            bytes.iter_mut().step_by(20).for_each(|byte| *byte ^= 1);
            let other = Frame::new(FrameKind::Data, frame.request(), &bytes);
            frame = other.context("a frame that was one before")?;
        }
        give(to_owner, &frame).await?;
    }
}

async fn give(to_owner: &Mutex<WriteHalf<Stream>>, frame: &Frame) -> anyhow::Result<()> {
    let mut to_owner = to_owner.lock().await;
    write_frame(&mut *to_owner, frame).await?;
    Ok(to_owner.flush().await?)
}

fn is_read(frame: &Frame) -> bool {
    let request = message::decode::<DataRequest>(&frame.payload());
    frame.kind() == FrameKind::Request && matches!(request, Ok(DataRequest::Read { .. }))
}
