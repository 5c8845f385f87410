//! The least that the way over the network costs: one libp2p stream (TCP, Noise, Yamux) between two processes, bytes
//! pushed through, nothing done with them.

use std::process::Stdio;

use anyhow::{Context as _, Result};
use futures::{AsyncReadExt as _, AsyncWriteExt as _, StreamExt as _};
use libp2p::swarm::SwarmEvent;
use libp2p::{Multiaddr, StreamProtocol, Swarm, noise, tcp, yamux};
use tokio::io::{AsyncBufReadExt as _, BufReader};

use crate::measure::{Cost, measure as measured};

const PROTOCOL: StreamProtocol = StreamProtocol::new("/holdfast/bench/raw/1");
const BUFFER_BYTES: usize = 256 << 10;

fn swarm() -> Result<Swarm<libp2p_stream::Behaviour>> {
    Ok(libp2p::SwarmBuilder::with_new_identity()
        .with_tokio()
        .with_tcp(tcp::Config::default().nodelay(true), noise::Config::new, yamux::Config::default)?
        .with_behaviour(|_| libp2p_stream::Behaviour::new())?
        .build())
}

fn runtime() -> Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?)
}

/// The receiving process: prints its address at this IP, counts what comes, answers with one byte.
pub fn serve(ip: &str) -> Result<()> {
    let listen = format!("/ip4/{ip}/tcp/0");
    runtime()?.block_on(async {
        let mut swarm = swarm()?;
        let mut incoming = swarm.behaviour().new_control().accept(PROTOCOL)?;
        swarm.listen_on(listen.parse()?)?;
        tokio::spawn(async move {
            while let Some((_, mut stream)) = incoming.next().await {
                let mut buffer = vec![0; BUFFER_BYTES];
                while matches!(stream.read(&mut buffer).await, Ok(n) if n > 0) {}
                // Who asked may be gone; then nobody waits for the answer.
                let _ = stream.write_all(&[1]).await;
                let _ = stream.close().await;
            }
        });
        loop {
            if let SwarmEvent::NewListenAddr { address, .. } = swarm.select_next_some().await {
                println!("{address}/p2p/{}", swarm.local_peer_id());
            }
        }
    })
}

/// `server`: the program that serves, wherever it runs.
pub fn measure(bytes: u64, server: std::process::Command) -> Result<Cost> {
    runtime()?.block_on(async {
        let mut server =
            tokio::process::Command::from(server).stdout(Stdio::piped()).kill_on_drop(true).spawn()?;
        let mut lines = BufReader::new(server.stdout.take().context("no output")?).lines();
        let address: Multiaddr = lines.next_line().await?.context("no address")?.parse()?;
        let peer = address.iter().find_map(|part| match part {
            libp2p::multiaddr::Protocol::P2p(peer) => Some(peer),
            _ => None,
        });
        let peer = peer.context("an address without identity")?;
        let mut swarm = swarm()?;
        let mut control = swarm.behaviour().new_control();
        swarm.dial(address)?;
        tokio::spawn(async move {
            loop {
                swarm.select_next_some().await;
            }
        });
        let mut stream =
            control.open_stream(peer, PROTOCOL).await.map_err(|error| anyhow::anyhow!("{error}"))?;
        let pid = server.id().context("it ended")?;
        let buffer = vec![7; BUFFER_BYTES];
        let handle = tokio::runtime::Handle::current();
        let cost = tokio::task::block_in_place(|| {
            measured(&[pid], || {
                handle.block_on(async {
                    for _ in 0..bytes / BUFFER_BYTES as u64 {
                        stream.write_all(&buffer).await?;
                    }
                    stream.close().await?;
                    stream.read_exact(&mut [0]).await?;
                    Ok(())
                })
            })
        })?;
        server.kill().await?;
        Ok(cost)
    })
}
