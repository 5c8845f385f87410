//! Connections over the modelled network: what a client's sessions stand on here (`holdfast_net::client::Carrier`).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use holdfast_net::client::{Carrier, PushTimes, Wire, WireLimits};
use holdfast_net::wire::message::{DataRequest, Lane, Reply, Request};
use holdfast_net::{
    Multiaddr, NetError, PeerId, PieceSource, SignedPermit, SignedProposal, SigningKey, identity,
};
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::permitted::Shown;
use crate::provider::Lie;
use crate::world::{BYTES_PER_MS, Reach, Way, Who, World, by, short};

/// Bytes of a push between two looks at whether the network is still there.
const STEP_BYTES: usize = 64 << 10;
/// How often a message that is held up looks again.
const HELD: Duration = Duration::from_millis(500);

/// One process of somebody's, as a peer.
pub struct SimCarrier {
    world: Arc<World>,
    process: (Who, u64),
    me: PeerId,
}

impl SimCarrier {
    /// The process that `who` is now.
    pub fn new(world: Arc<World>, who: Who) -> Result<SimCarrier, NetError> {
        let life = world.state.lock().life(who);
        SimCarrier::of(world, (who, life))
    }

    fn of(world: Arc<World>, process: (Who, u64)) -> Result<SimCarrier, NetError> {
        let mut seed = [0; 32];
        world.dice.bytes(&mut seed);
        Ok(SimCarrier { world, process, me: identity::keypair(seed)?.public().to_peer_id() })
    }
}

fn broken() -> NetError {
    NetError::Disconnected("the other end is gone".into())
}

#[async_trait]
impl Carrier for SimCarrier {
    fn peer_id(&self) -> PeerId {
        self.me
    }

    async fn dial(
        &self,
        peer: PeerId,
        _: &[Multiaddr],
        timeout: Duration,
    ) -> Result<Option<Multiaddr>, NetError> {
        let unreachable = || NetError::Unreachable("nobody is there".into());
        let to = self.world.find(&peer.to_bytes()).ok_or_else(unreachable)?;
        pass(&self.world, self.world.way_ms(to) * 3).await;
        match self.world.way(self.process, to) {
            Ok(_) => Ok(None),
            Err(Reach::Held) => {
                pass(&self.world, u64::try_from(timeout.as_millis()).unwrap_or(0)).await;
                Err(NetError::Timeout(timeout))
            }
            Err(_) => Err(unreachable()),
        }
    }

    async fn is_connected(&self, peer: PeerId) -> Result<bool, NetError> {
        let to = self.world.find(&peer.to_bytes());
        Ok(to.is_some_and(|to| self.world.way(self.process, to).is_ok()))
    }

    async fn disconnect(&self, _: PeerId) -> Result<(), NetError> {
        Ok(())
    }

    async fn open(&self, peer: PeerId) -> Result<Arc<dyn Wire>, NetError> {
        let to = self.world.find(&peer.to_bytes()).ok_or_else(broken)?;
        pass(&self.world, self.world.way_ms(to) * 2).await;
        let way = self.world.way(self.process, to).map_err(|_| broken())?;
        Ok(Arc::new(SimWire {
            world: self.world.clone(),
            way,
            me: self.me,
            open: AtomicBool::new(true),
            shown: Mutex::default(),
            asked: Mutex::new(None),
        }))
    }

    async fn fresh(&self) -> Result<Arc<dyn Carrier>, NetError> {
        Ok(Arc::new(SimCarrier::of(self.world.clone(), self.process)?))
    }
}

async fn pass(world: &World, ms: u64) {
    if !world.state.lock().immediate {
        tokio::time::sleep(Duration::from_millis(ms)).await;
    }
}

/// One session.
struct SimWire {
    world: Arc<World>,
    way: Way,
    me: PeerId,
    open: AtomicBool,
    shown: Mutex<Shown>,
    /// Since when an answer is waited for.
    asked: Mutex<Option<Instant>>,
}

impl SimWire {
    /// A message goes one way.
    async fn travel(&self) -> Result<(), NetError> {
        travel(&self.world, self.way).await.inspect_err(|_| self.close())
    }

    fn heard(&self) {
        *self.asked.lock() = None;
    }

    fn shown(&self) -> Shown {
        self.shown.lock().clone()
    }
}

async fn travel(world: &World, way: Way) -> Result<(), NetError> {
    pass(world, world.way_ms(way.to)).await;
    loop {
        match world.reach(way) {
            Reach::Yes => return Ok(()),
            Reach::Broken => return Err(broken()),
            Reach::Held if world.state.lock().immediate => return Err(NetError::Timeout(HELD)),
            Reach::Held => tokio::time::sleep(HELD).await,
        }
    }
}

#[async_trait]
impl Wire for SimWire {
    fn limits(&self) -> WireLimits {
        WireLimits { inflight: 64, ranges: 1024, read_bytes: 4 << 20 }
    }

    fn is_open(&self) -> bool {
        self.open.load(Ordering::Relaxed)
    }

    fn close(&self) {
        self.open.store(false, Ordering::Relaxed);
    }

    fn asked(&self) {
        self.asked.lock().get_or_insert_with(Instant::now);
    }

    fn silent(&self) -> Duration {
        self.asked.lock().map_or(Duration::ZERO, |since| since.elapsed())
    }

    async fn call(&self, request: &Request) -> Result<Reply, NetError> {
        let (world, way, me, shown) = (self.world.clone(), self.way, self.me.to_bytes(), self.shown());
        let asked = request.clone();
        let asking = async move {
            travel(&world, way).await?;
            Ok::<_, NetError>(world.deliver(way, &me, &shown, asked))
        };
        // Whoever stops waiting does not call the message back.
        let answer = match self.world.state.lock().immediate {
            true => None,
            false => Some(tokio::spawn(asking)),
        };
        let answer = match answer {
            Some(answer) => answer.await.map_err(|e| NetError::Local(e.to_string()))?,
            None => return Err(NetError::Timeout(HELD)),
        };
        let answer = answer.inspect_err(|_| self.close())?;
        self.travel().await?;
        self.heard();
        if let (Ok(_), Request::Permit { permit }) = (&answer, request) {
            let permit = SignedPermit::from_bytes(permit)?;
            self.shown.lock().permits.insert(permit.body().client, permit);
        }
        answer
    }

    async fn authenticate(&self, key: &SigningKey) -> Result<(), NetError> {
        self.travel().await?;
        self.travel().await?;
        self.heard();
        self.shown.lock().keys.insert(key.verifying_key().to_bytes());
        Ok(())
    }

    async fn read(&self, _: Lane, request: &DataRequest, wants: &[usize]) -> Result<Vec<Bytes>, NetError> {
        let want: usize = wants.iter().sum();
        let DataRequest::Read { deal, ranges } = request else {
            return Err(NetError::Invalid("no read".into()));
        };
        self.travel().await?;
        let read = self.world.read(self.way, &self.shown(), deal, ranges);
        pass(&self.world, want as u64 / BYTES_PER_MS).await;
        self.travel().await?;
        self.heard();
        let bytes = read?;
        if bytes.len() != want {
            return Err(NetError::Protocol("more or less than was asked for".into()));
        }
        let mut rest = Bytes::from(bytes);
        Ok(wants.iter().map(|want| rest.split_to(*want)).collect())
    }

    async fn push(
        &self,
        proposal: &SignedProposal,
        source: &Arc<dyn PieceSource>,
        times: PushTimes,
        progress: &mut (dyn FnMut(u64) + Send),
    ) -> Result<Vec<u8>, NetError> {
        let deal = proposal.deal_id();
        let stalled = |_| NetError::Timeout(times.stall);
        tokio::time::timeout(times.stall, self.travel()).await.map_err(stalled)??;
        let shown = self.shown();
        let begun = self.change(|provider| provider.begin_push(&shown, &deal))??;
        let len = proposal.proposal().raw_len;
        let mut at = match begun {
            Ok(at) => at,
            Err(receipt) => {
                let from = by(self.way);
                self.world.note(&format!("{from}p{} has {} already", self.way.to, short(&deal)));
                self.travel().await?;
                progress(len);
                return Ok(receipt);
            }
        };
        tokio::time::timeout(times.stall, self.travel()).await.map_err(stalled)??;
        progress(at);
        while at < len {
            let mut part = vec![0; usize::try_from(len - at).unwrap_or(STEP_BYTES).min(STEP_BYTES)];
            source
                .read_at(at, &mut part)
                .map_err(|e| NetError::Local(format!("cannot read the piece: {e}")))?;
            pass(&self.world, part.len() as u64 / BYTES_PER_MS).await;
            tokio::time::timeout(times.stall, self.travel()).await.map_err(stalled)??;
            at += part.len() as u64;
            self.world.state.lock().traffic.pushed += part.len() as u64;
            let more = self.change(|provider| match provider.deals.get_mut(&deal) {
                Some(deal)
                    if deal.stored.is_none() && deal.partial.len() as u64 + part.len() as u64 == at =>
                {
                    deal.partial.extend_from_slice(&part);
                    true
                }
                Some(_) => provider.lie == Some(Lie::StoresNothing),
                None => false,
            })?;
            if !more {
                self.close();
                return Err(NetError::Disconnected("the push came to nothing".into()));
            }
            progress(at);
        }
        let receipt = self.change(|provider| {
            let bytes = provider.deals.get_mut(&deal).map(|deal| std::mem::take(&mut deal.partial));
            provider.finish_push(&deal, bytes.unwrap_or_default())
        })?;
        let said = if receipt.is_ok() { "signed for" } else { "refused" };
        let from = by(self.way);
        self.world.note(&format!("{from}p{} {said} {} with {len} bytes", self.way.to, short(&deal)));
        tokio::time::timeout(times.receipt, self.travel())
            .await
            .map_err(|_| NetError::Timeout(times.receipt))??;
        receipt
    }
}

impl SimWire {
    fn change<T>(&self, what: impl FnOnce(&mut crate::provider::Provider) -> T) -> Result<T, NetError> {
        self.world.state.lock().providers.get_mut(self.way.to).map(what).ok_or_else(broken)
    }
}
