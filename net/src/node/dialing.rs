//! Dialling one peer over several ways.
//!
//! ```text
//!   TCP ──────────────► at once
//!   QUIC ─────────────► after QUIC_HEAD_START, or when TCP has failed
//!   through a relay ──► after RELAY_HEAD_START, or when both have failed
//! ```
//!
//! All addresses of one way are tried at once, and the first connection that stands is the one. TCP comes first since it
//! carries two to three times as much for each CPU second (`net/examples/transports.rs`); where nothing answers over it,
//! the wait for QUIC is shorter than a person notices. Promises: a caller gets an answer when a way stands or all have
//! failed, with what was said of each address; connections that stand later are closed again, and whoever stopped
//! waiting leaves no further attempts behind.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::time::Duration;

use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use futures::{FutureExt, StreamExt};
use libp2p::multiaddr::Protocol;
use libp2p::swarm::dial_opts::{DialOpts, PeerCondition};
use libp2p::swarm::{ConnectionId, DialError, NetworkBehaviour};
use libp2p::{Multiaddr, PeerId, Swarm};
use tokio::sync::oneshot;

use super::text::dial_text;
use crate::addresses::{Way, way};
use crate::error::NetError;

/// TCP's time alone: a handshake over 80 ms of round trip, or many on a LAN.
const QUIC_HEAD_START: Duration = Duration::from_millis(250);
/// What stands through a relay is slow, and a burden to another one.
const RELAY_HEAD_START: Duration = Duration::from_millis(2000);
/// Until the ports that were asked for are there: a dial before that comes from another port.
const LISTEN_HEAD_START: Duration = Duration::from_millis(100);
/// Until relays have told what they see of this node.
const PUNCH_HEAD_START: Duration = Duration::from_millis(1000);
/// Where a node that listens nowhere listens for those who dial back.
const PUNCH_LISTEN: [&str; 2] = ["/ip4/0.0.0.0/udp/0/quic-v1", "/ip4/0.0.0.0/tcp/0"];
/// Where TCP was refused, QUIC has so long to show that the peer runs all the same.
const REFUSED_PATIENCE: Duration = Duration::from_millis(1500);
/// The system's words.
const REFUSED: &str = "Connection refused";
/// Callers that wait for one peer.
const WAITERS_MAX: usize = 256;
/// Peers that are dialled at once.
const ATTEMPTS_MAX: usize = 256;

type Waiter = oneshot::Sender<Result<(), NetError>>;

struct Attempt {
    number: u64,
    waiters: Vec<Waiter>,
    under_way: HashSet<ConnectionId>,
    later: VecDeque<Vec<Multiaddr>>,
    /// Relays were shown the port that a hole through NATs would lead to.
    shown: bool,
    /// The host is there and nobody listens at its port.
    refused: bool,
    said: Vec<String>,
}

/// A pause that is over.
pub(super) struct Due {
    peer: PeerId,
    number: u64,
    then: Then,
}

enum Then {
    NextWay,
    GiveUp,
}

/// Who is being dialled.
#[derive(Default)]
pub(super) struct Dialing {
    attempts: HashMap<PeerId, Attempt>,
    /// Dials that a better one has overtaken.
    surplus: HashSet<ConnectionId>,
    timers: FuturesUnordered<BoxFuture<'static, Due>>,
    next: u64,
    /// Ports for holes through NATs were asked for.
    opened: bool,
}

impl Dialing {
    /// Connects to a peer that is not connected; `done` hears of it.
    pub(super) fn dial<B: NetworkBehaviour>(
        &mut self,
        swarm: &mut Swarm<B>,
        peer: PeerId,
        addrs: Vec<Multiaddr>,
        done: Waiter,
    ) {
        if let Some(attempt) = self.attempts.get_mut(&peer) {
            attempt.waiters.retain(|waiter| !waiter.is_closed());
            if attempt.waiters.len() >= WAITERS_MAX {
                let _ = done.send(Err(NetError::Unreachable("too many wait for this peer".into())));
            } else {
                attempt.waiters.push(done);
            }
            return;
        }
        let mut ways: BTreeMap<Way, Vec<Multiaddr>> = BTreeMap::new();
        for addr in addrs {
            if let Some(way) = way(&addr) {
                ways.entry(way).or_default().push(addr);
            }
        }
        let later: VecDeque<Vec<Multiaddr>> = ways.into_values().collect();
        if later.is_empty() || self.attempts.len() >= ATTEMPTS_MAX {
            let why = if later.is_empty() {
                "no address that can be dialled"
            } else {
                "too many peers are dialled"
            };
            let _ = done.send(Err(NetError::Unreachable(why.into())));
            return;
        }
        self.next += 1;
        let attempt = Attempt {
            number: self.next,
            waiters: vec![done],
            under_way: HashSet::new(),
            later,
            shown: false,
            refused: false,
            said: Vec::new(),
        };
        self.attempts.insert(peer, attempt);
        self.go_on(swarm, peer);
    }

    /// The next way; with none left and nothing under way it is over.
    fn go_on<B: NetworkBehaviour>(&mut self, swarm: &mut Swarm<B>, peer: PeerId) {
        let Some(attempt) = self.attempts.get_mut(&peer) else { return };
        while let Some(addrs) = attempt.later.pop_front() {
            if addrs.first().and_then(way) == Some(Way::Relayed) && !attempt.shown {
                let pause = if has_port_to_punch(swarm, &mut self.opened) {
                    attempt.shown = true;
                    show_to_relays(swarm, &addrs);
                    PUNCH_HEAD_START
                } else {
                    LISTEN_HEAD_START
                };
                attempt.later.push_front(addrs);
                let due = Due { peer, number: attempt.number, then: Then::NextWay };
                self.timers.push(after(pause, due));
                return;
            }
            let opts = DialOpts::peer_id(peer).condition(PeerCondition::Always).addresses(addrs).build();
            let id = opts.connection_id();
            match swarm.dial(opts) {
                Ok(()) => {
                    attempt.under_way.insert(id);
                    break;
                }
                Err(e) => attempt.said.push(dial_text(&e)),
            }
        }
        if let Some(next) = attempt.later.front() {
            let relayed = next.first().and_then(way) == Some(Way::Relayed);
            let pause = if relayed { RELAY_HEAD_START } else { QUIC_HEAD_START };
            let due = Due { peer, number: attempt.number, then: Then::NextWay };
            self.timers.push(after(pause, due));
        } else if attempt.under_way.is_empty() {
            self.give_up(&peer);
        } else if attempt.refused {
            // A closed port of QUIC's says nothing at all.
            let due = Due { peer, number: attempt.number, then: Then::GiveUp };
            self.timers.push(after(REFUSED_PATIENCE, due));
        }
    }

    fn give_up(&mut self, peer: &PeerId) {
        let said = self.attempts.get(peer).map(|attempt| attempt.said.join("; ")).unwrap_or_default();
        self.answer(peer, &Err(NetError::Unreachable(crate::codec::shorten(&said))));
    }

    fn answer(&mut self, peer: &PeerId, result: &Result<(), NetError>) {
        let Some(attempt) = self.attempts.remove(peer) else { return };
        for waiter in attempt.waiters {
            let _ = waiter.send(result.clone());
        }
        self.surplus.extend(attempt.under_way);
    }

    /// When some way's head start is over; never, where none is.
    pub(super) async fn due(&mut self) -> Due {
        match self.timers.next().await {
            Some(due) => due,
            None => std::future::pending().await,
        }
    }

    /// A head start is over.
    pub(super) fn on_due<B: NetworkBehaviour>(&mut self, swarm: &mut Swarm<B>, due: Due) {
        let Due { peer, number, then } = due;
        let Some(attempt) = self.attempts.get_mut(&peer).filter(|attempt| attempt.number == number) else {
            return;
        };
        attempt.waiters.retain(|waiter| !waiter.is_closed());
        if attempt.waiters.is_empty() {
            attempt.later.clear();
        }
        match then {
            Then::NextWay => self.go_on(swarm, peer),
            Then::GiveUp => self.give_up(&peer),
        }
    }

    /// A connection stands. Whether it is one too many.
    pub(super) fn established(&mut self, peer: &PeerId, id: ConnectionId) -> bool {
        if self.surplus.remove(&id) {
            return true;
        }
        if let Some(attempt) = self.attempts.get_mut(peer) {
            attempt.under_way.remove(&id);
            self.answer(peer, &Ok(()));
        }
        false
    }

    /// A dial has failed.
    pub(super) fn failed<B: NetworkBehaviour>(
        &mut self,
        swarm: &mut Swarm<B>,
        peer: &PeerId,
        id: ConnectionId,
        error: &DialError,
    ) {
        self.surplus.remove(&id);
        let Some(attempt) = self.attempts.get_mut(peer) else { return };
        if attempt.under_way.remove(&id) {
            let said = dial_text(error);
            attempt.refused |= said.contains(REFUSED);
            attempt.said.push(said);
            if attempt.under_way.is_empty() {
                self.go_on(swarm, *peer);
            }
        }
    }
}

fn after<T: Send + 'static>(pause: Duration, what: T) -> BoxFuture<'static, T> {
    let timer = async move {
        tokio::time::sleep(pause).await;
        what
    };
    timer.boxed()
}

/// A hole through two NATs needs a port that both directions use: whether this node listens at one. Where none was asked for
/// yet, it is; one that cannot be had is not waited for.
fn has_port_to_punch<B: NetworkBehaviour>(swarm: &mut Swarm<B>, opened: &mut bool) -> bool {
    if swarm.listeners().next().is_some() || *opened {
        return true;
    }
    *opened = true;
    for addr in PUNCH_LISTEN.iter().filter_map(|addr| addr.parse().ok()) {
        if let Err(e) = swarm.listen_on(addr) {
            tracing::debug!("no port to be reached at: {e}");
        }
    }
    false
}

/// Somebody outside has to see that port: the relays are dialled once more from it, and tell what they see.
fn show_to_relays<B: NetworkBehaviour>(swarm: &mut Swarm<B>, relayed: &[Multiaddr]) {
    for addr in relayed {
        let relay: Multiaddr = addr.iter().take_while(|part| !matches!(part, Protocol::P2pCircuit)).collect();
        let Some(Protocol::P2p(peer)) = relay.iter().last() else { continue };
        let opts = DialOpts::peer_id(peer).condition(PeerCondition::Always).addresses(vec![relay]).build();
        if let Err(e) = swarm.dial(opts) {
            tracing::debug!(relay = %peer, "cannot be dialled: {e}");
        }
    }
}
