//! Windows: when which sectors are proven.
//!
//! ```text
//! window w   = unix seconds / deadline            slot of a sector = its number mod (period / deadline)
//! w proves the sectors of slot w mod (period / deadline), with the beacon's value at w, before w + 1 begins
//! ```
//!
//! Must: a window is written down as opened before its proof is begun, so that one that passed while nobody kept the folder
//! is counted as missed. A clock that ran ahead and was set back must not leave every sector unproven until that time comes:
//! who finds a window opened that is still to come reckons anew. A sector that cannot be proven is declared faulty at once and mended; a window that met a sector
//! in the middle of a move is asked again.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::book::Declared;
use super::{Doing, Keeper, KeeperError, PROOFS, costs};
use crate::engine::{Class, Clock, Executor};
use crate::proof::WindowStatement;
use crate::sector::post::Fault;
use crate::work::Job;

/// Times that a window is asked again because sectors moved.
const RETRIES_MAX: u32 = 3;
/// Proof files that are kept, the newest.
const PROOFS_KEPT: u64 = 1_000;
/// Windows that are looked back at after an absence: what is older is one long absence.
const LOOK_BACK_MAX: u64 = 100_000;

/// A window that is being proven.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Window {
    pub(super) number: u64,
    /// The sectors asked, with their moves at that time.
    pub(super) sectors: BTreeMap<u64, u64>,
    retries: u32,
}

impl<E: Executor, C: Clock + Clone> Keeper<E, C> {
    /// The window of now.
    pub(super) fn window(&self) -> u64 {
        self.now() / self.settings.deadline_seconds
    }

    fn slots(&self) -> u64 {
        (self.settings.period_seconds / self.settings.deadline_seconds).max(1)
    }

    pub(super) fn proof_path(&self, window: u64) -> PathBuf {
        self.dir.join(PROOFS).join(format!("window-{window}.proof"))
    }

    /// The sectors that a window must prove.
    fn due(&self, window: u64) -> BTreeMap<u64, u64> {
        let slots = self.slots();
        let in_slot = |number: &u64| number % slots == window % slots;
        self.sectors
            .iter()
            .filter(|(number, kept)| in_slot(number) && kept.is_provable())
            .map(|(number, kept)| (*number, kept.moves))
            .collect()
    }

    /// Opens the window of now, if it was not, and counts those that passed unseen.
    pub(super) fn open_windows(&mut self) -> Result<(), KeeperError> {
        let now = self.window();
        let last = self.book.last_window.unwrap_or(now.saturating_sub(1));
        if let Some(seconds) = self.clock_set_back() {
            // Pauses and deadlines of this run are of the same clock: who begins again derives them all.
            return Err(KeeperError::Clock { seconds });
        }
        if now <= last {
            return Ok(());
        }
        let first = (last + 1).max(now.saturating_sub(LOOK_BACK_MAX));
        let unseen = (first..now).filter(|window| !self.due(*window).is_empty()).count() as u64;
        if unseen > 0 {
            self.book.missed += unseen;
            self.tell(true, format!("{unseen} window(s) passed unproven while nobody kept the folder"));
        }
        self.book.last_window = Some(now);
        self.book.store(&self.dir)?;
        let sectors = self.due(now);
        if sectors.is_empty() {
            return Ok(());
        }
        self.prove(Window { number: now, sectors, retries: 0 })
    }

    /// By how much the clock was set back since a window was opened. A step to and fro over the edge of one is none.
    fn clock_set_back(&self) -> Option<u64> {
        let last = self.book.last_window?;
        let ahead = last.saturating_sub(self.window());
        (ahead > 1).then(|| ahead.saturating_mul(self.settings.deadline_seconds))
    }

    /// Forgets windows that were opened by a clock that ran ahead.
    pub(super) fn check_clock(&mut self) {
        if let Some(seconds) = self.clock_set_back() {
            self.book.last_window = None;
            self.tell(true, KeeperError::Clock { seconds }.to_string());
        }
    }

    fn prove(&mut self, window: Window) -> Result<(), KeeperError> {
        let number = window.number;
        let statement = WindowStatement {
            profile: self.settings.profile,
            prover: self.settings.prover,
            beacon: self.beacon.at(number),
            epoch: number,
            sectors: Vec::new(),
        };
        let sectors = window.sectors.keys().map(|number| self.sector_dir(*number)).collect();
        let job = Job::WindowPost { statement, sectors, out: self.proof_path(number) };
        let cost = costs::window(&self.settings, window.sectors.len());
        let deadline = (number + 1) * self.settings.deadline_seconds;
        let refused = self.submit(Class::Spacetime, deadline, cost, job, Doing::Window(window.clone()))?;
        if let Some(reason) = refused {
            self.missed(&window, &reason);
        }
        Ok(())
    }

    /// A window's deadline passed, or it cannot be proven at all.
    pub(super) fn missed(&mut self, window: &Window, reason: &str) {
        self.book.missed += 1;
        self.book_changed = true;
        let (number, sectors) = (window.number, window.sectors.len());
        self.tell(true, format!("window {number} of {sectors} sector(s) was missed: {reason}"));
    }

    /// A window's answer: the proven are proven, the others declared, unless they moved meanwhile.
    pub(super) fn answered(
        &mut self,
        window: Window,
        proven: bool,
        faults: &[Fault],
    ) -> Result<(), KeeperError> {
        let moved = |fault: &&Fault| {
            let before = window.sectors.get(&fault.number);
            let kept = self.sectors.get(&fault.number);
            kept.is_some_and(|kept| before != Some(&kept.moves))
                || self.is_busy(|doing| doing.seals(fault.number))
        };
        if faults.iter().any(|fault| moved(&fault)) && window.retries < RETRIES_MAX {
            let sectors = self.due(window.number);
            return self.prove(Window { sectors, retries: window.retries + 1, ..window });
        }
        let now = self.now();
        for fault in faults {
            let declared = Declared { since: now, reason: fault.reason.clone() };
            if self.book.faults.insert(fault.number, declared).is_none() {
                self.tell(true, format!("sector {} is declared faulty: {}", fault.number, fault.reason));
            }
            if let Some(kept) = self.sectors.get_mut(&fault.number) {
                kept.mended = false;
                kept.stuck = None;
            }
        }
        let good = window.sectors.keys().filter(|number| faults.iter().all(|fault| fault.number != **number));
        for number in good.copied().collect::<Vec<_>>() {
            if let Some(kept) = self.sectors.get_mut(&number) {
                kept.proven_at = Some(now);
            }
            if self.book.faults.remove(&number).is_some() {
                self.tell(false, format!("sector {number} is recovered"));
            }
        }
        if proven {
            self.book.proven += 1;
        }
        self.book_changed = true;
        if let Some(old) = window.number.checked_sub(PROOFS_KEPT) {
            // Removing what is not there is no failure, and what cannot be removed takes a few kilobytes.
            let _ = std::fs::remove_file(self.proof_path(old));
        }
        Ok(())
    }
}
