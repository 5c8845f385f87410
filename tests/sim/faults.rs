//! What befalls owner and providers, and for how long.
//!
//! Destruction is bounded by truth: no failure domain loses anything while as many as the policy survives have lost something since
//! everything was whole last. Everything else (silence, lies, clocks, crashes of the owner's) knows no bound.

use anyhow::Result;

use crate::history::History;
use crate::machine;
use crate::planted::Bug;
use crate::provider::{LIES, Lie};
use crate::truth::{Domain, domain};
use crate::world::{OWNER, Who};

/// See the module.
#[derive(Clone, Copy, Debug)]
pub enum Fault {
    /// A provider's process ends, and comes back.
    Crash(usize, u64),
    /// All of them restart at once.
    AllRestart,
    /// Nothing passes between the owner and this one.
    Cut(usize, u64),
    /// The owner is without a network.
    Offline(u64),
    /// A disk, an operator, a region is gone for ever.
    Destroyed(Domain),
    /// One byte of one slot is another.
    BitRot(usize),
    /// The disk is new and empty, the provider's name the same.
    Wiped(usize),
    /// Every answer takes so many milliseconds more.
    Slow(usize, u64, u64),
    /// A provider's clock is wrong by so many seconds.
    ProviderClock(usize, i64, u64),
    /// The owner's.
    OwnerClock(i64, u64),
    /// The owner's process dies, at once or in the middle of something.
    OwnerCrash {
        at_commit: Option<i64>,
        power: bool,
        seconds: u64,
    },
    Newcomer,
    /// An honest provider begins to lie.
    Turns(usize, Lie),
    /// A watcher's process dies.
    WatcherDies(usize, u64),
    /// Nothing passes between this watcher and this provider.
    WatcherCut(usize, usize, u64),
}

/// What ends by itself.
#[derive(Clone, Copy, Debug)]
pub enum Until {
    ProviderUp(usize),
    Joined(usize, Who),
    Online,
    Fast(usize),
    ProviderClock(usize),
    OwnerClock,
    OwnerDead { power: bool, seconds: u64 },
    OwnerUp,
    WatcherUp(usize),
}

const HOUR: i64 = 3600;
const DAY: i64 = 24 * HOUR;

impl History {
    pub fn any(&self) -> Option<usize> {
        let state = self.world.state.lock();
        let living: Vec<usize> =
            state.providers.iter().enumerate().filter(|(_, p)| !p.destroyed).map(|(n, _)| n).collect();
        drop(state);
        self.dice.pick(&living)
    }

    /// Whether this domain may lose something now, and enough is left if it goes for ever.
    pub fn may_lose(&self, what: Domain) -> bool {
        let mut hurt = self.checker.hurt.clone();
        hurt.insert(what);
        hurt.len() <= usize::from(self.home.policy.survive_losses)
    }

    pub fn domain_of(&self, n: usize) -> Option<Domain> {
        self.world.state.lock().providers.get(n).map(|p| domain(n, p))
    }

    pub fn some_seconds(&self) -> u64 {
        match self.dice.below(4) {
            0 => 1 + self.dice.below(20),
            1 | 2 => 20 + self.dice.below(240),
            _ => 200 + self.dice.below(1000),
        }
    }

    pub fn wrong_by(&self) -> i64 {
        let far = self.dice.pick(&[30, 700, HOUR, 3 * HOUR, DAY, 40 * DAY, 800 * DAY]).unwrap_or(30);
        if self.dice.once_in(2) { -far } else { far }
    }

    /// The next fault, if what was drawn may be.
    pub fn draw(&self) -> Option<Fault> {
        let n = self.any()?;
        let of = self.domain_of(n)?;
        let seconds = self.some_seconds();
        let fault = match self.dice.below(20) {
            0..=2 => Fault::Crash(n, seconds),
            3 => Fault::AllRestart,
            4 | 5 => Fault::Cut(n, seconds),
            6 => Fault::Offline(seconds),
            7 => Fault::Destroyed(of),
            8 | 9 => Fault::BitRot(n),
            10 => Fault::Wiped(n),
            11 | 12 => Fault::Slow(n, 500 + self.dice.below(25_000), seconds),
            13 => Fault::ProviderClock(n, self.wrong_by(), seconds),
            14 => Fault::OwnerClock(self.wrong_by(), seconds),
            15..=17 => {
                let at_commit = self.dice.once_in(2).then(|| i64::try_from(self.dice.below(40)).unwrap_or(0));
                Fault::OwnerCrash { at_commit, power: self.dice.once_in(2), seconds }
            }
            18 => Fault::Newcomer,
            _ => Fault::Turns(n, self.dice.pick(&LIES)?),
        };
        let loses = match fault {
            Fault::Destroyed(of) => Some(of),
            Fault::BitRot(n) | Fault::Wiped(n) => self.domain_of(n),
            Fault::Turns(n, lie) if lie.gives_nothing() => self.domain_of(n),
            // Its deals may end and be swept under such a clock.
            _ => None,
        };
        loses.is_none_or(|of| self.may_lose(of)).then_some(fault)
    }

    pub fn later(&mut self, seconds: u64, what: Until) {
        self.until.push((machine::elapsed_ms() / 1000 + seconds, what));
    }

    pub fn change(&mut self, n: usize, what: impl FnOnce(&mut crate::provider::Provider)) {
        let mut state = self.world.state.lock();
        if let Some(provider) = state.providers.get_mut(n) {
            self.checker.touch(provider);
            what(provider);
        }
    }

    pub fn hurts(&mut self, n: usize) {
        if let Some(of) = self.domain_of(n) {
            self.checker.hurt.insert(of);
        }
    }

    pub async fn befall(&mut self, fault: Fault) -> Result<()> {
        match fault {
            Fault::Crash(n, seconds) => {
                self.change(n, |p| {
                    p.up = false;
                    p.incarnation += 1;
                });
                self.restarts(n);
                self.later(seconds, Until::ProviderUp(n));
            }
            Fault::AllRestart => {
                let count = self.world.state.lock().providers.len();
                for n in 0..count {
                    self.change(n, |p| p.incarnation += 1);
                    self.restarts(n);
                }
            }
            Fault::Cut(n, seconds) => {
                self.change(n, |p| _ = p.cut.insert(OWNER));
                self.later(seconds, Until::Joined(n, OWNER));
            }
            Fault::Offline(seconds) => {
                let count = self.world.state.lock().providers.len();
                (0..count).for_each(|n| self.change(n, |p| _ = p.cut.insert(OWNER)));
                self.later(seconds, Until::Online);
            }
            Fault::Destroyed(of) => {
                let count = self.world.state.lock().providers.len();
                for n in (0..count).filter(|n| self.domain_of(*n) == Some(of)).collect::<Vec<_>>() {
                    self.change(n, |p| {
                        p.destroyed = true;
                        p.up = false;
                        p.incarnation += 1;
                    });
                }
                self.checker.hurt.insert(of);
                self.enough()?;
            }
            Fault::BitRot(n) => {
                let at = self.dice.word();
                self.spoiled.insert(n);
                self.hurts(n);
                self.change(n, |p| {
                    let stored: Vec<_> =
                        p.deals.values_mut().filter_map(|deal| deal.stored.as_mut()).collect();
                    let count = stored.len().max(1) as u64;
                    if let Some(stored) = stored.into_iter().nth(usize::try_from(at % count).unwrap_or(0)) {
                        let len = stored.bytes.len().max(1) as u64;
                        if let Some(byte) =
                            stored.bytes.get_mut(usize::try_from(at / count % len).unwrap_or(0))
                        {
                            *byte ^= 1 << (at % 8);
                            stored.intact = false;
                        }
                    }
                });
            }
            Fault::Wiped(n) => {
                self.hurts(n);
                self.spoiled.insert(n);
                self.change(n, |p| {
                    p.deals.clear();
                    p.incarnation += 1;
                });
            }
            Fault::Slow(n, ms, seconds) => {
                self.change(n, |p| p.disk_ms = ms);
                self.later(seconds, Until::Fast(n));
            }
            Fault::ProviderClock(n, by, seconds) => {
                self.change(n, |p| p.clock_offset = by);
                self.later(seconds, Until::ProviderClock(n));
            }
            Fault::OwnerClock(by, seconds) => {
                machine::set_wall_offset(by);
                self.later(seconds, Until::OwnerClock);
            }
            Fault::OwnerCrash { at_commit, power, seconds } => match (&self.daemon, at_commit) {
                (None, _) => {}
                (Some(daemon), Some(commits)) => {
                    daemon.doom(commits);
                    self.later(30, Until::OwnerDead { power, seconds });
                }
                (Some(_), None) => self.owner_dies(power, seconds).await,
            },
            Fault::Newcomer => {
                let lie = self.newcomer();
                self.join(None, lie)?;
            }
            Fault::Turns(n, lie) => {
                if lie.gives_nothing() {
                    self.hurts(n);
                }
                self.change(n, |p| p.lie = Some(lie));
                self.enough()?;
            }
            Fault::WatcherDies(n, seconds) => {
                self.watcher_dies(n);
                self.later(seconds, Until::WatcherUp(n));
            }
            Fault::WatcherCut(watcher, n, seconds) => {
                let who = self.seats.get(watcher).map_or(OWNER, |seat| seat.who);
                self.change(n, |p| _ = p.cut.insert(who));
                self.later(seconds, Until::Joined(n, who));
            }
        }
        Ok(())
    }

    pub async fn owner_dies(&mut self, power: bool, seconds: u64) {
        let Some(daemon) = self.daemon.take() else { return };
        self.world.note("the owner's daemon is gone");
        let providers = self.world.state.lock().providers.len();
        (0..providers).for_each(|n| self.change(n, |_| {}));
        self.home.crash(daemon, power).await;
        self.later(seconds, Until::OwnerUp);
    }

    /// What a provider with a planted bug forgets.
    fn restarts(&mut self, n: usize) {
        if self.world.bug == Some(Bug::ReceiptsBeforeSync) {
            let now = machine::true_seconds();
            self.change(n, |p| p.forget_since(now.saturating_sub(900)));
        }
    }

    pub async fn end(&mut self, what: Until) -> Result<()> {
        self.world.note(&format!("over: {what:?}"));
        match what {
            Until::ProviderUp(n) => self.change(n, |p| p.up = !p.destroyed),
            Until::Joined(n, who) => self.change(n, |p| _ = p.cut.remove(&who)),
            Until::Online => {
                let count = self.world.state.lock().providers.len();
                (0..count).for_each(|n| self.change(n, |p| _ = p.cut.remove(&OWNER)));
            }
            Until::Fast(n) => self.change(n, |p| p.disk_ms = 2),
            Until::ProviderClock(n) => self.change(n, |p| p.clock_offset = 0),
            Until::OwnerClock => machine::set_wall_offset(0),
            Until::OwnerDead { power, seconds } => self.owner_dies(power, seconds).await,
            Until::WatcherUp(n) => self.watcher_starts(n)?,
            Until::OwnerUp => {
                if self.daemon.is_none() {
                    self.start()?;
                }
            }
        }
        Ok(())
    }
}
