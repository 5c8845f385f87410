//! One established session with a provider: its control lane and the data lanes opened under its ticket.
//!
//! A link never heals: when its control lane breaks, or a data lane broke the protocol, the session makes a new one.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use ed25519_dalek::{Signer, SigningKey};
use libp2p::{PeerId, Stream, StreamProtocol};
use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

use super::carrier::{PushTimes, Wire, WireLimits};
use super::lane::{Lane, first_exchange, way_ended};
use super::push;
use crate::codec;
use crate::deal::{PieceSource, SignedProposal};
use crate::env::Env;
use crate::error::{ErrorCode, NetError};
use crate::node::{AGENT, Node};
use crate::wire::life::{Counts, Life, Living};
use crate::wire::limits::{HELLO_TIMEOUT, INFLIGHT_MAX, RANGES_MAX, READ_BYTES_MAX};
use crate::wire::message::{self, DataRequest, Lane as LaneKind, Reply, Request, Ticket};
use crate::wire::{CONTROL_PROTOCOL, DATA_PROTOCOL, WIRE_VERSION};

/// Pushes at once to one provider, each on a stream of its own: while one waits for the provider's sync, another
/// sends.
const PUSH_LANES_MAX: usize = 4;

pub(super) struct Link {
    node: Node,
    env: Env,
    peer: PeerId,
    life: Arc<Life>,
    control: Lane,
    nonce: [u8; 32],
    ticket: Ticket,
    limits: WireLimits,
    interactive: tokio::sync::Mutex<Option<Arc<Lane>>>,
    bulk: tokio::sync::Mutex<Option<Arc<Lane>>>,
    push_idle: Mutex<Vec<Lane>>,
    push_permits: Arc<Semaphore>,
    proven: Mutex<HashSet<[u8; 32]>>,
}

impl Link {
    /// Says hello over an existing connection.
    pub(super) async fn open(node: &Node, env: &Env, peer: PeerId) -> Result<Link, NetError> {
        let hello = codec::encode(&Request::Hello { agent: AGENT.into(), v: WIRE_VERSION });
        let Begun { stream, way, payload } =
            begin(node, env, peer, CONTROL_PROTOCOL, &hello, || true).await?;
        let Reply::Hello { inflight, nonce, ranges, read, ticket, v, .. } = message::decode(&payload)? else {
            return Err(NetError::Protocol("something else than hello".into()));
        };
        if v != WIRE_VERSION {
            return Err(NetError::UnsupportedProtocol(format!("version {WIRE_VERSION}, but {v}")));
        }
        // A peer's limits above ours gain nothing; of zero, nothing could be asked.
        let limits = WireLimits {
            inflight: inflight.clamp(1, INFLIGHT_MAX),
            ranges: usize::from(ranges.clamp(1, RANGES_MAX)),
            read_bytes: read.clamp(1, READ_BYTES_MAX) as usize,
        };
        let life = Arc::new(Life::new());
        let control = Living::new(stream, life.clone(), Counts::Reads);
        Ok(Link {
            node: node.clone(),
            env: env.clone(),
            peer,
            life,
            control: Lane::start(control, way, limits.inflight, node.counters()),
            nonce,
            ticket,
            limits,
            interactive: tokio::sync::Mutex::default(),
            bulk: tokio::sync::Mutex::default(),
            push_idle: Mutex::default(),
            push_permits: Arc::new(Semaphore::new(PUSH_LANES_MAX)),
            proven: Mutex::default(),
        })
    }

    async fn read_lane(&self, kind: LaneKind) -> Result<Arc<Lane>, NetError> {
        let slot = match kind {
            LaneKind::Interactive => &self.interactive,
            LaneKind::Bulk | LaneKind::Push => &self.bulk,
        };
        let mut slot = slot.lock().await;
        if let Some(lane) = slot.as_ref().filter(|lane| lane.is_open()) {
            return Ok(lane.clone());
        }
        let lane = Arc::new(self.open_lane(kind).await?);
        *slot = Some(lane.clone());
        Ok(lane)
    }

    /// A lane for one push; given back with [`Link::give_back`] when the push ended in order.
    pub(super) async fn push_lane(&self) -> Result<(Lane, OwnedSemaphorePermit), NetError> {
        let permit = self.push_permits.clone().acquire_owned().await.map_err(|_| NetError::Closed)?;
        let idle = {
            let mut idle = self.push_idle.lock();
            idle.retain(Lane::is_open);
            idle.pop()
        };
        let lane = match idle {
            Some(lane) => lane,
            None => self.open_lane(LaneKind::Push).await?,
        };
        Ok((lane, permit))
    }

    pub(super) fn give_back(&self, lane: Lane) {
        if lane.is_open() && self.is_open() {
            self.push_idle.lock().push(lane);
        }
    }

    async fn open_lane(&self, kind: LaneKind) -> Result<Lane, NetError> {
        if !self.is_open() {
            return Err(NetError::Disconnected("the session ended".into()));
        }
        let attach = codec::encode(&DataRequest::Attach { lane: kind, ticket: self.ticket });
        let lasts = || self.is_open();
        let begun = begin(&self.node, &self.env, self.peer, DATA_PROTOCOL, &attach, lasts).await;
        let begun = begun.map_err(|error| match error.code() {
            // The provider has ended the session, and its word of that went another way or is still to come.
            Some(ErrorCode::Unauthorized) => {
                self.control.close();
                NetError::Disconnected("the provider has ended the session".into())
            }
            _ => error,
        });
        let Begun { stream, way, payload } = begun?;
        match message::decode(&payload)? {
            Reply::Ok {} => {
                let counts = if kind == LaneKind::Push { Counts::Both } else { Counts::Reads };
                let stream = Living::new(stream, self.life.clone(), counts);
                Ok(Lane::start(stream, way, self.limits.inflight, self.node.counters()))
            }
            _ => Err(unexpected("attach")),
        }
    }
}

#[async_trait]
impl Wire for Link {
    fn limits(&self) -> WireLimits {
        self.limits
    }

    fn is_open(&self) -> bool {
        self.control.is_open()
    }

    fn close(&self) {
        self.control.close();
        self.push_idle.lock().clear();
        for slot in [&self.interactive, &self.bulk] {
            if let Ok(mut lane) = slot.try_lock() {
                *lane = None;
            }
        }
    }

    fn asked(&self) {
        self.life.asked();
    }

    // A push may be waiting for the provider's disk: while one is under way there is no telling.
    fn silent(&self) -> Duration {
        match self.push_permits.available_permits() < PUSH_LANES_MAX {
            true => Duration::ZERO,
            false => self.life.unanswered(),
        }
    }

    async fn call(&self, request: &Request) -> Result<Reply, NetError> {
        let payload = self.control.call(codec::encode(request)).await?;
        Ok(message::decode(&payload)?)
    }

    async fn authenticate(&self, key: &SigningKey) -> Result<(), NetError> {
        let public = key.verifying_key().to_bytes();
        if self.proven.lock().contains(&public) {
            return Ok(());
        }
        let (us, them) = (self.node.peer_id().to_bytes(), self.peer.to_bytes());
        let signed = message::session_key_message(&us, &them, &self.nonce, &public);
        let request = Request::Auth { key: public, sig: key.sign(&signed).to_bytes().to_vec() };
        match self.call(&request).await? {
            Reply::Ok {} => {
                self.proven.lock().insert(public);
                Ok(())
            }
            _ => Err(unexpected("auth")),
        }
    }

    async fn read(
        &self,
        kind: LaneKind,
        request: &DataRequest,
        wants: &[usize],
    ) -> Result<Vec<Bytes>, NetError> {
        let lane = self.read_lane(kind).await?;
        let result = lane.read(codec::encode(request), wants).await;
        if let Err(NetError::Protocol(_)) = result {
            lane.close();
        }
        result
    }

    async fn push(
        &self,
        proposal: &SignedProposal,
        source: &Arc<dyn PieceSource>,
        times: PushTimes,
        progress: &mut (dyn FnMut(u64) + Send),
    ) -> Result<Vec<u8>, NetError> {
        push::push_on(self, proposal, source, times, progress).await
    }
}

/// Streams that come in a burst are dropped by the provider's libp2p after they were negotiated, so it shows only when the
/// first answer does not come. Nothing was done by then: the same is asked on another stream.
const OPEN_TRIES: u32 = 5;
/// The first pause between two tries; it doubles.
const OPEN_PAUSE: Duration = Duration::from_millis(20);

/// A stream after its first exchange.
struct Begun {
    stream: Stream,
    /// What it was opened on.
    way: CancellationToken,
    payload: Bytes,
}

/// Opens a stream and makes its first exchange, several times if it is cut off before the answer, while `wanted`.
async fn begin(
    node: &Node,
    env: &Env,
    peer: PeerId,
    protocol: StreamProtocol,
    request: &[u8],
    wanted: impl Fn() -> bool,
) -> Result<Begun, NetError> {
    let counters = node.counters();
    let mut attempt = 0;
    loop {
        let way = node.way(peer);
        let once = async {
            let mut stream = open_stream(node, peer, protocol.clone()).await?;
            let payload = first_exchange(&mut stream, request, HELLO_TIMEOUT, &counters).await?;
            Ok::<_, NetError>((stream, payload))
        };
        let once = tokio::select! {
            once = once => once,
            () = way.cancelled() => Err(way_ended()),
        };
        match once {
            Ok((stream, payload)) => return Ok(Begun { stream, way, payload }),
            Err(NetError::Disconnected(_)) if attempt + 1 < OPEN_TRIES && wanted() => {
                tokio::time::sleep(open_pause(attempt, env.random())).await;
                attempt += 1;
            }
            Err(error) => return Err(error),
        }
    }
}

/// Once to twice the attempt's pause: whoever was dropped with others shall not come back with them.
fn open_pause(attempt: u32, [drawn]: [u8; 1]) -> Duration {
    let pause = OPEN_PAUSE * (1 << attempt.min(OPEN_TRIES));
    pause + pause * u32::from(drawn) / 256
}

async fn open_stream(node: &Node, peer: PeerId, protocol: StreamProtocol) -> Result<Stream, NetError> {
    let opening = async { node.streams().open_stream(peer, protocol).await };
    match tokio::time::timeout(HELLO_TIMEOUT, opening).await {
        Ok(Ok(stream)) => Ok(stream),
        Ok(Err(libp2p_stream::OpenStreamError::UnsupportedProtocol(p))) => {
            Err(NetError::UnsupportedProtocol(p.to_string()))
        }
        Ok(Err(e)) => Err(NetError::Disconnected(codec::shorten(&e.to_string()))),
        Err(_) => Err(NetError::Timeout(HELLO_TIMEOUT)),
    }
}

pub(super) fn unexpected(to: &str) -> NetError {
    NetError::Protocol(format!("an answer of another kind to {to}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_and_differ() {
        let mut before = Duration::ZERO;
        for attempt in 0..OPEN_TRIES {
            let (least, most) = (open_pause(attempt, [0]), open_pause(attempt, [255]));
            assert!(before < least && least < most && most < least * 2, "{attempt}: {least:?} to {most:?}");
            before = least;
        }
        // All of them leave most of the time for connecting to the exchanges themselves.
        let all: Duration = (0..OPEN_TRIES - 1).map(|attempt| open_pause(attempt, [255])).sum();
        assert!(all < Duration::from_secs(1));
    }
}
