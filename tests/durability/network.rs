//! A whole network, event by event: providers that leave for ever, come anew, and go together; slots that are rebuilt
//! after a delay and no faster than uplinks allow.
//!
//! Real rates of loss are far too small to be seen so; it is here to check the chain where both can be seen, to show what
//! the chain leaves out (bursts, uplinks), and to measure traffic. The same seed gives the same years.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};

use crate::chain::Code;

/// What happens to the network, in years and shares.
#[derive(Debug, Clone, Copy)]
pub struct World {
    pub providers: u32,
    pub stripes: u32,
    pub code: Code,
    /// A provider's mean life.
    pub life: f64,
    /// From a loss until its repair begins.
    pub notice: f64,
    /// A provider's uplink, as slots that it can receive and store in a year; the queue of each is served in order.
    pub slots_a_year: f64,
    /// Disasters of a whole failure domain, a year and domain.
    pub disasters: f64,
    /// Failure domains; a provider lies in one, and of a stripe at most one slot.
    pub domains: u32,
    pub years: f64,
    pub seed: u64,
}

/// What became of it.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Outcome {
    pub lost_stripes: u64,
    pub lost_slots: u64,
    pub rebuilt_slots: u64,
    /// Stripe-years lived.
    pub exposure: f64,
    /// The longest time between a loss and its repair, years.
    pub slowest: f64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Leaves { provider: u32, life: u32 },
    Rebuilt { stripe: u32, slot: u32, turn: u32, provider: u32 },
    Disaster { domain: u32 },
}

/// Times as whole parts of a year, so that events have one order.
const TICKS: f64 = 1e12;

struct Network {
    world: World,
    rng: ChaCha8Rng,
    events: BinaryHeap<Reverse<(u64, Event)>>,
    /// How often a provider's place was taken anew.
    lives: Vec<u32>,
    /// Until when its uplink is taken.
    busy_until: Vec<f64>,
    held: Vec<Vec<(u32, u32)>>,
    /// Holder of each slot, or nobody while it is being rebuilt; how often that has changed.
    holder: Vec<Option<u32>>,
    turn: Vec<u32>,
    missing: Vec<u32>,
    since: Vec<f64>,
    outcome: Outcome,
}

/// Lives through the years.
pub fn live(world: World) -> Outcome {
    let slots = (world.stripes * world.code.slots()) as usize;
    let count = world.providers as usize;
    let mut network = Network {
        world,
        rng: ChaCha8Rng::seed_from_u64(world.seed),
        events: BinaryHeap::new(),
        lives: vec![0; count],
        busy_until: vec![0.0; count],
        held: vec![Vec::new(); count],
        holder: vec![None; slots],
        turn: vec![0; slots],
        missing: vec![0; world.stripes as usize],
        since: vec![0.0; slots],
        outcome: Outcome::default(),
    };
    network.begin();
    network.run();
    network.outcome
}

impl Network {
    fn begin(&mut self) {
        for provider in 0..self.world.providers {
            let at = self.exponential(self.world.life);
            self.schedule(at, Event::Leaves { provider, life: 0 });
        }
        for domain in 0..self.world.domains {
            self.next_disaster(0.0, domain);
        }
        for stripe in 0..self.world.stripes {
            for slot in 0..self.world.code.slots() {
                let provider = self.draw_holder(stripe);
                self.give(stripe, slot, provider);
            }
        }
    }

    fn run(&mut self) {
        while let Some(Reverse((tick, event))) = self.events.pop() {
            let now = tick as f64 / TICKS;
            if now > self.world.years {
                break;
            }
            match event {
                Event::Leaves { provider, life } if self.lives[provider as usize] == life => {
                    self.leaves(now, provider)
                }
                Event::Leaves { .. } => {}
                Event::Disaster { domain } => {
                    for provider in (domain..self.world.providers).step_by(self.world.domains as usize) {
                        self.leaves(now, provider);
                    }
                    self.next_disaster(now, domain);
                }
                Event::Rebuilt { stripe, slot, turn, provider } => {
                    self.rebuilt(now, stripe, slot, turn, provider)
                }
            }
        }
        self.outcome.exposure = f64::from(self.world.stripes) * self.world.years;
    }

    /// A provider goes with all that it holds; a new one takes its place in the network, empty.
    fn leaves(&mut self, now: f64, provider: u32) {
        let index = provider as usize;
        self.lives[index] += 1;
        self.busy_until[index] = now;
        let life = self.lives[index];
        let at = now + self.exponential(self.world.life);
        self.schedule(at, Event::Leaves { provider, life });
        for (stripe, slot) in std::mem::take(&mut self.held[index]) {
            self.lose(now, stripe, slot);
        }
    }

    fn lose(&mut self, now: f64, stripe: u32, slot: u32) {
        let index = self.index(stripe, slot);
        self.outcome.lost_slots += 1;
        self.holder[index] = None;
        self.since[index] = now;
        self.missing[stripe as usize] += 1;
        if self.missing[stripe as usize] > self.world.code.parity {
            self.outcome.lost_stripes += 1;
            self.renew(stripe);
            return;
        }
        self.repair(now, stripe, slot);
    }

    /// The rebuilt slot goes to a new holder; each takes one at a time.
    fn repair(&mut self, now: f64, stripe: u32, slot: u32) {
        let provider = self.draw_holder(stripe);
        let index = self.index(stripe, slot);
        self.turn[index] += 1;
        let turn = self.turn[index];
        let begins = (now + self.world.notice).max(self.busy_until[provider as usize]);
        let ends = begins + 1.0 / self.world.slots_a_year;
        self.busy_until[provider as usize] = ends;
        self.schedule(ends, Event::Rebuilt { stripe, slot, turn, provider });
    }

    fn rebuilt(&mut self, now: f64, stripe: u32, slot: u32, turn: u32, provider: u32) {
        let index = self.index(stripe, slot);
        if self.turn[index] != turn || self.holder[index].is_some() {
            return;
        }
        self.outcome.slowest = self.outcome.slowest.max(now - self.since[index]);
        self.outcome.rebuilt_slots += 1;
        self.missing[stripe as usize] -= 1;
        self.give(stripe, slot, provider);
    }

    /// A lost stripe is counted and begins anew, so that exposure stays what it is.
    fn renew(&mut self, stripe: u32) {
        for slot in 0..self.world.code.slots() {
            let index = self.index(stripe, slot);
            if self.holder[index].is_none() {
                self.turn[index] += 1;
                let provider = self.draw_holder(stripe);
                self.give(stripe, slot, provider);
            }
        }
        self.missing[stripe as usize] = 0;
    }

    fn give(&mut self, stripe: u32, slot: u32, provider: u32) {
        let index = self.index(stripe, slot);
        self.holder[index] = Some(provider);
        self.held[provider as usize].push((stripe, slot));
    }

    /// Anybody in a domain that holds nothing of the stripe.
    fn draw_holder(&mut self, stripe: u32) -> u32 {
        let first = self.index(stripe, 0);
        let slots = self.world.code.slots() as usize;
        loop {
            let provider = (self.rng.next_u64() % u64::from(self.world.providers)) as u32;
            let domain = provider % self.world.domains;
            let holders = &self.holder[first..first + slots];
            if holders.iter().flatten().all(|holder| holder % self.world.domains != domain) {
                return provider;
            }
        }
    }

    fn next_disaster(&mut self, now: f64, domain: u32) {
        if self.world.disasters > 0.0 {
            let at = now + self.exponential(1.0 / self.world.disasters);
            self.schedule(at, Event::Disaster { domain });
        }
    }

    fn schedule(&mut self, at: f64, event: Event) {
        self.events.push(Reverse(((at * TICKS) as u64, event)));
    }

    fn exponential(&mut self, mean: f64) -> f64 {
        let unit = (self.rng.next_u64() >> 11) as f64 / (1u64 << 53) as f64;
        -mean * (1.0 - unit).ln()
    }

    fn index(&self, stripe: u32, slot: u32) -> usize {
        (stripe * self.world.code.slots() + slot) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chain::annual_loss;

    fn world() -> World {
        World {
            providers: 600,
            stripes: 4_000,
            code: Code::stripe(3, 2),
            life: 1.0,
            notice: 0.08,
            slots_a_year: 1e9,
            disasters: 0.0,
            domains: 600,
            years: 10.0,
            seed: 1,
        }
    }

    #[test]
    fn the_same_seed_gives_the_same_years() {
        let small = World { stripes: 300, years: 2.0, ..world() };
        assert_eq!(live(small), live(small));
        assert_ne!(live(small), live(World { seed: 2, ..small }));
    }

    #[test]
    fn the_network_and_the_chain_agree_where_both_can_be_seen() {
        let outcome = live(world());
        let seen = outcome.lost_stripes as f64 / outcome.exposure;
        let foretold = annual_loss(world().code, 1.0 / world().life, world().notice);
        // A fixed delay instead of an exponential one makes a difference of tens of per cent, not more.
        assert!(outcome.lost_stripes > 100, "too few to compare: {outcome:?}");
        assert!((0.4..1.6).contains(&(seen / foretold)), "{seen} a year, foretold {foretold}");
        assert!(outcome.lost_slots >= outcome.rebuilt_slots);
    }

    #[test]
    fn uplinks_and_disasters_make_it_worse() {
        let losses = |world| live(world).lost_stripes;
        let quick = World { notice: 0.01, years: 5.0, ..world() };
        assert!(losses(World { slots_a_year: 40.0, ..quick }) > losses(quick));
        // Domains of ten go together; one slot of a stripe in each keeps that to one loss a disaster.
        let grouped = World { domains: 60, disasters: 1.0, ..quick };
        assert!(losses(grouped) > losses(World { disasters: 0.0, ..grouped }));
    }
}
