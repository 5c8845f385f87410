//! The owner is away for long: providers die one after another, newcomers join, watchers repair, one of them may lie; then the owner
//! comes back to what they left.

use anyhow::{Result, anyhow, bail};

use crate::faults::Fault;
use crate::history::{History, STEP_SECONDS};
use crate::machine;
use crate::provider::{LIES, Lie};
use crate::watching;
use crate::world::OWNER;

/// For how long something befalls them.
const FAULTS_SECONDS: u64 = 3_000;
/// A fault every so many seconds, on average.
const FAULT_EACH_SECONDS: u64 = 120;
/// Everything is to be with as many as it was to be within so long after the last fault.
const REST_SECONDS_MAX: u64 = 3 * 3600;
/// How long a capability may take to be made: the owner's process may be gone.
const APPOINT_SECONDS_MAX: u64 = 2 * 3600;
/// Lies that a provider begins to tell while nobody but watchers looks. What gives nothing to readers is found within hours by them
/// (proofs/SOUNDNESS.md, section 3), longer than a history has.
const LIES_AWAY: [Lie; 3] = [Lie::StoresNothing, Lie::FalseReceipts, Lie::ReplaysProofs];

impl History {
    /// See the module.
    pub async fn away(&mut self, betrayed: bool) -> Result<()> {
        self.appoint(betrayed).await?;
        self.calm(true).await?;
        // What the owner shared before it went leads there when it is back, where watchers placed it.
        self.share().await?;
        self.calm(true).await?;
        self.leave().await?;
        let until = machine::elapsed_ms() / 1000 + FAULTS_SECONDS;
        while machine::elapsed_ms() / 1000 < until {
            self.step().await?;
            if self.dice.once_in(FAULT_EACH_SECONDS / STEP_SECONDS)
                && let Some(fault) = self.draw_away()
            {
                self.faults += 1;
                self.world.note(&format!("fault: {fault:?}"));
                self.befall(fault).await?;
            }
        }
        self.world.note("faults are over, and the owner is still away");
        self.all_over().await?;
        self.enough()?;
        let begun = machine::elapsed_ms() / 1000;
        let mut quiet = 0;
        while quiet < 60 {
            self.step().await?;
            quiet = if self.whole { quiet + STEP_SECONDS } else { 0 };
            let waited = machine::elapsed_ms() / 1000 - begun;
            if waited > REST_SECONDS_MAX {
                let lacking = &self.checker.lacking;
                bail!(
                    "watchers did not make everything whole within {waited} s after the last fault: {lacking}"
                );
            }
        }
        self.come_back()
    }

    /// Capabilities are made, and their holders begin.
    async fn appoint(&mut self, betrayed: bool) -> Result<()> {
        let seats = if betrayed { 2 } else { 1 + self.dice.below(2) };
        let seats = if self.world.bug.is_some() { 2 } else { seats };
        let silent_seconds = 120 + 60 * self.dice.below(5);
        let mut waited = 0;
        while (self.seats.len() as u64) < seats {
            self.step().await?;
            waited += STEP_SECONDS;
            if waited > APPOINT_SECONDS_MAX {
                bail!("no capability could be made within {waited} s");
            }
            let Some(engine) = self.daemon.as_ref().map(|daemon| daemon.engine.clone()) else { continue };
            if engine.read_only().is_some() || engine.head.published_sequence().is_none() {
                continue;
            }
            let who = OWNER + 1 + self.seats.len() as u64;
            // Whose word comes first is decided by ids, which are drawn: the rogue has the better one in some histories.
            let rogue = betrayed && self.seats.is_empty();
            match watching::grant(&engine, self.folder_of_watchers.path(), who, silent_seconds, rogue).await {
                Ok(seat) => {
                    if rogue {
                        self.checker.rogues.insert(seat.holder);
                    }
                    self.seats.push(seat);
                    self.checker.asking += 1;
                }
                Err(error) => self.world.note(&format!("no capability yet: {error:#}")),
            }
        }
        (0..self.seats.len()).try_for_each(|n| self.watcher_starts(n))
    }

    async fn leave(&mut self) -> Result<()> {
        let Some(daemon) = self.daemon.take() else { bail!("no daemon that could leave") };
        self.left = Some(self.checker.leave(&self.world, &daemon.engine).map_err(|why| anyhow!(why))?);
        let power = self.dice.once_in(2);
        self.world.note("the owner goes away");
        self.home.crash(daemon, power).await;
        Ok(())
    }

    fn come_back(&mut self) -> Result<()> {
        self.world.note("the owner comes back");
        self.left = None;
        // Where none of its providers is left, nobody but a watcher's owner can say where its data is.
        let left = self.world.state.lock();
        let mut known = left.providers.iter().enumerate().filter(|(n, _)| !self.hidden.contains(n));
        let strangers_only = known.all(|(_, provider)| provider.destroyed || provider.deals.is_empty());
        drop(left);
        if self.dice.once_in(2) || strangers_only {
            self.hidden.clear();
        }
        // Others go on beside it.
        if self.dice.once_in(2) {
            (0..self.seats.len()).for_each(|n| self.watcher_dies(n));
        }
        self.start()
    }

    pub fn watcher_dies(&mut self, n: usize) {
        let Some(seat) = self.seats.get_mut(n) else { return };
        seat.dies(&self.world);
        self.checker.broken_off(&self.world.state.lock().providers, &seat.holder);
    }

    pub fn watcher_starts(&mut self, n: usize) -> Result<()> {
        match self.seats.get_mut(n) {
            Some(seat) if seat.running.is_none() => seat.start(&self.world, self.seed),
            _ => Ok(()),
        }
    }

    /// A provider that the owner does not know: one watcher is told of it, and tells the others.
    pub fn tell_a_watcher(&mut self, peer: &[u8]) -> Result<()> {
        let honest: Vec<usize> =
            self.seats.iter().enumerate().filter(|(_, seat)| !seat.rogue).map(|(n, _)| n).collect();
        match self.dice.pick(&honest).and_then(|n| self.seats.get(n)) {
            Some(seat) => seat.tell(peer),
            None => Ok(()),
        }
    }

    fn draw_away(&mut self) -> Option<Fault> {
        let n = self.any()?;
        let of = self.domain_of(n)?;
        let seconds = self.some_seconds();
        let watcher = usize::try_from(self.dice.below(self.seats.len() as u64)).ok()?;
        let rogue = self.seats.get(watcher)?.rogue;
        let fault = match self.dice.below(16) {
            0..=4 => Fault::Destroyed(of),
            5 => Fault::BitRot(n),
            6 => Fault::Wiped(n),
            7 | 8 => Fault::Crash(n, seconds),
            9 => Fault::AllRestart,
            10 => Fault::Slow(n, 500 + self.dice.below(8_000), seconds),
            11 => Fault::ProviderClock(n, self.wrong_by(), seconds),
            12 if !rogue => Fault::WatcherDies(watcher, seconds),
            13 => Fault::WatcherCut(watcher, n, seconds),
            14 => Fault::Newcomer,
            _ => Fault::Turns(n, self.dice.pick(&LIES_AWAY)?),
        };
        let loses = match fault {
            Fault::Destroyed(of) => Some(of),
            Fault::BitRot(n) | Fault::Wiped(n) => self.domain_of(n),
            _ => None,
        };
        loses.is_none_or(|of| self.may_lose(of)).then_some(fault)
    }

    /// What a newcomer is: most are honest.
    pub fn newcomer(&self) -> Option<Lie> {
        let lies = self.left.is_some() && self.dice.once_in(4);
        if lies { self.dice.pick(&LIES) } else { None }
    }
}
