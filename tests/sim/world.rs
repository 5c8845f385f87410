//! The network between the providers and whoever asks them (the owner, watchers, who has a link): who hears whom, after how long, and what is remembered of it.
//!
//! Owns every provider, the dice of the network, and the trace: a hash over all that happened, by which two runs of one seed are
//! compared. Requests that were sent arrive even if who sent them does not wait any more.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use holdfast_net::wire::message::{Reply, Request};
use holdfast_net::{ByteRange, DealId, ErrorCode, NetError};
use parking_lot::Mutex;

use crate::machine::{self, Dice};
use crate::permitted::Shown;
use crate::planted::Bug;
use crate::provider::{Provider, refuse};
use crate::truth::answers_with;

/// A message's way, milliseconds, besides the disk's time.
const WAY_MS: u64 = 15;
/// Bytes that a provider takes in a millisecond.
pub const BYTES_PER_MS: u64 = 4096;

/// What the checker is told of what went over the network.
#[derive(Default)]
pub struct Traffic {
    /// Bytes of slots that providers took.
    pub pushed: u64,
    /// Bytes of slots that providers gave.
    pub read: u64,
    pub requests: u64,
}

/// Who asks providers.
pub type Who = u64;
/// The first of them; the others are numbered as they come.
pub const OWNER: Who = 0;

pub struct State {
    pub providers: Vec<Provider>,
    pub traffic: Traffic,
    /// How many processes everybody who asks had; connections of an earlier one lead nowhere.
    lives: BTreeMap<Who, u64>,
    /// Deals that a rogue made and told nobody of: copies that are no use to anybody.
    pub untold: BTreeSet<DealId>,
    /// Messages take no time: somebody waits without letting time go on.
    pub immediate: bool,
    trace: blake3::Hasher,
    events: u64,
}

impl State {
    /// The process that somebody is.
    pub fn life(&self, who: Who) -> u64 {
        self.lives.get(&who).copied().unwrap_or(0)
    }

    /// It is gone, and its connections with it.
    pub fn dies(&mut self, who: Who) {
        *self.lives.entry(who).or_default() += 1;
    }
}

/// See the module.
pub struct World {
    pub state: Mutex<State>,
    pub dice: Dice,
    pub bug: Option<Bug>,
    told: bool,
}

/// Whether a message arrives.
#[derive(PartialEq, Eq)]
pub enum Reach {
    Yes,
    /// The connection is no more.
    Broken,
    /// It lies on its way.
    Held,
}

/// Where a connection leads, and from whom.
#[derive(Clone, Copy)]
pub struct Way {
    pub who: Who,
    pub life: u64,
    pub to: usize,
    pub incarnation: u64,
}

impl World {
    pub fn new(seed: u64, bug: Option<Bug>, told: bool) -> Arc<World> {
        let state = State {
            providers: Vec::new(),
            traffic: Traffic::default(),
            lives: BTreeMap::new(),
            untold: BTreeSet::new(),
            immediate: false,
            trace: blake3::Hasher::new(),
            events: 0,
        };
        Arc::new(World { state: Mutex::new(state), dice: Dice::new(seed, "network"), bug, told })
    }

    /// Puts down what happened.
    pub fn note(&self, what: &str) {
        let mut state = self.state.lock();
        let line = format!("{:>9}.{:03} {what}", machine::elapsed_ms() / 1000, machine::elapsed_ms() % 1000);
        state.trace.update(line.as_bytes());
        state.events += 1;
        if self.told {
            println!("{line}");
        }
    }

    /// The trace so far.
    pub fn trace(&self) -> String {
        let state = self.state.lock();
        format!("{}-{}", state.trace.finalize().to_hex().get(..16).unwrap_or_default(), state.events)
    }

    pub fn find(&self, peer: &[u8]) -> Option<usize> {
        self.state.lock().providers.iter().position(|p| p.peer == peer)
    }

    /// How long a message is on its way, with the disk's time at one of the ends.
    pub fn way_ms(&self, to: usize) -> u64 {
        let disk = self.state.lock().providers.get(to).map_or(0, |p| p.disk_ms);
        WAY_MS / 2 + self.dice.below(WAY_MS) + disk
    }

    pub fn reach(&self, way: Way) -> Reach {
        let state = self.state.lock();
        match state.providers.get(way.to) {
            Some(_) if state.life(way.who) != way.life => Reach::Broken,
            Some(p) if p.cut.contains(&way.who) => Reach::Held,
            Some(p) if p.destroyed && self.bug == Some(Bug::GhostsAnswer) => Reach::Yes,
            Some(p) if p.up && !p.destroyed && p.incarnation == way.incarnation => Reach::Yes,
            _ => Reach::Broken,
        }
    }

    /// A connection to a provider, if it is there.
    pub fn way(&self, (who, life): (Who, u64), to: usize) -> Result<Way, Reach> {
        let incarnation = self.state.lock().providers.get(to).map_or(0, |p| p.incarnation);
        let way = Way { who, life, to, incarnation };
        match self.reach(way) {
            Reach::Yes => Ok(way),
            other => Err(other),
        }
    }

    /// What the identities behind one disk have of each piece between them.
    fn siblings(state: &State, to: usize) -> BTreeMap<[u8; 16], Vec<u8>> {
        let Some(who) = state.providers.get(to) else { return BTreeMap::new() };
        answers_with(&state.providers, who).into_iter().map(|(of, bytes)| (of, bytes.clone())).collect()
    }

    /// A request arrives, and is answered.
    pub fn deliver(
        &self,
        way: Way,
        auditor: &[u8],
        shown: &Shown,
        request: Request,
    ) -> Result<Reply, NetError> {
        let name = name(&request);
        let answer = {
            let mut state = self.state.lock();
            state.traffic.requests += 1;
            let siblings = World::siblings(&state, way.to);
            let Some(provider) = state.providers.get_mut(way.to) else {
                return refuse(ErrorCode::ShuttingDown, "gone");
            };
            provider.answer(auditor, shown, request, &siblings)
        };
        let said = match &answer {
            Ok(_) => "yes".to_owned(),
            Err(NetError::Refused { code, .. }) => format!("{code:?}"),
            Err(error) => error.to_string(),
        };
        self.note(&format!("{}p{} {name}: {said}", by(way), way.to));
        // As it travels: a provider's own errors are refusals.
        answer.map_err(|error| match error {
            refused @ NetError::Refused { .. } => refused,
            other => NetError::Refused { code: ErrorCode::Malformed, message: other.to_string() },
        })
    }

    pub fn read(
        &self,
        way: Way,
        shown: &Shown,
        deal: &DealId,
        ranges: &[ByteRange],
    ) -> Result<Vec<u8>, NetError> {
        let mut state = self.state.lock();
        let siblings = World::siblings(&state, way.to);
        let Some(provider) = state.providers.get_mut(way.to) else {
            return refuse(ErrorCode::ShuttingDown, "gone");
        };
        let bytes = provider.read(shown, deal, ranges, &siblings)?;
        state.traffic.read += bytes.len() as u64;
        drop(state);
        self.note(&format!("{}p{} read {} bytes of {}", by(way), way.to, bytes.len(), short(deal)));
        Ok(bytes)
    }
}

/// Who asks, for the trace: where nobody is named, the owner.
pub fn by(way: Way) -> String {
    if way.who == OWNER { String::new() } else { format!("{}: ", way.who) }
}

pub fn short(deal: &DealId) -> String {
    deal.to_string().get(..6).unwrap_or_default().to_owned()
}

fn name(request: &Request) -> String {
    match request {
        Request::Info {} => "info".into(),
        Request::Tags {} => "tags".into(),
        Request::Propose { .. } => "propose".into(),
        Request::Audit(audit) => format!("audit {}", short(&audit.deal)),
        Request::Put { key, value } => format!("put {:?} of {} bytes", key.kind, value.len()),
        Request::Get { key } => format!("get {:?}", key.kind),
        Request::Claim { .. } => "claim".into(),
        Request::Release { deal } => format!("release {}", short(deal)),
        Request::Receipt { deal } => format!("receipt {}", short(deal)),
        Request::Permit { .. } => "permit".into(),
        _ => "something else".into(),
    }
}
