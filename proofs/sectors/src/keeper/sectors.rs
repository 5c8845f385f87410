//! Sectors: planned from waiting pieces, driven through their phases, mended where they are faulty, ended with their deals.

use std::fs;
use std::path::PathBuf;

use holdfast_proofs::PieceCid;

use super::{DAMAGED, Doing, Keeper, KeeperError, PIPELINE_MAX, SECTORS, costs};
use crate::durable;
use crate::engine::{Class, Clock, Executor};
use crate::machine;
use crate::params::Circuit;
use crate::profile::SealMode;
use crate::sector::{Glance, Phase, SectorError, SectorSpec, glance};
use crate::work::{FillPiece, Job};

/// What is known of a sector in this run.
#[derive(Debug, Clone)]
pub(super) struct Kept {
    pub(super) phase: Phase,
    mode: SealMode,
    unsealed_dropped: bool,
    pub(super) pieces: Vec<PieceCid>,
    pub(super) comm_r: Option<crate::types::Bytes32>,
    has_ticket: bool,
    has_seed: bool,
    /// The first window whose beacon may be its seed: later than the one in which its replica was committed to.
    pub(super) seed_from: Option<u64>,
    /// A sector that was found faulty, or whose seal failed, was looked at since.
    pub(super) mended: bool,
    /// Grows with everything that moves its files: a window that met a move is asked again.
    pub(super) moves: u64,
    /// Why nothing is done with it now, and until when (unix seconds).
    pub(super) stuck: Option<(String, u64)>,
    /// What it waits for, if not for its turn.
    pub(super) waits: Option<String>,
    /// Unix seconds of its last Window PoSt in this run.
    pub(super) proven_at: Option<u64>,
}

impl Kept {
    fn planned(mode: SealMode, pieces: Vec<PieceCid>) -> Self {
        Self {
            phase: Phase::Filling,
            mode,
            unsealed_dropped: false,
            pieces,
            comm_r: None,
            has_ticket: false,
            has_seed: false,
            seed_from: None,
            mended: true,
            moves: 0,
            stuck: None,
            waits: None,
            proven_at: None,
        }
    }

    /// Takes over what the journal says.
    pub(super) fn look(&mut self, glance: Glance) {
        self.phase = glance.phase;
        self.mode = glance.spec.mode;
        self.unsealed_dropped = glance.unsealed_dropped;
        self.comm_r = glance.comm_r;
        self.has_ticket = glance.has_ticket;
        self.has_seed = glance.has_seed;
        self.pieces = glance.pieces;
        self.moves += 1;
    }

    /// Whether a replica is there to be proven.
    pub(super) fn is_provable(&self) -> bool {
        self.phase >= Phase::PreCommit2
    }

    pub(super) fn in_pipeline(&self) -> bool {
        self.phase < Phase::Commit1 && self.stuck.is_none()
    }
}

impl<E: Executor, C: Clock + Clone> Keeper<E, C> {
    pub(super) fn sector_dir(&self, number: u64) -> PathBuf {
        self.dir.join(SECTORS).join(number.to_string())
    }

    fn spec(&self, number: u64) -> SectorSpec {
        let settings = &self.settings;
        SectorSpec { profile: settings.profile, mode: settings.mode, prover: settings.prover, number }
    }

    /// Whether it was made for this prover at this profile; how it is sealed was settled when it was begun.
    fn is_ours(&self, number: u64, glance: &Glance) -> bool {
        glance.spec == SectorSpec { mode: glance.spec.mode, ..self.spec(number) }
    }

    /// Looks at all sectors' folders. One that was not begun is removed, one that cannot be read is set aside: its pieces
    /// are on the provider's disk and go into another.
    pub(super) fn scan(&mut self) -> Result<(), KeeperError> {
        let folder = self.dir.join(SECTORS);
        let entries = fs::read_dir(&folder).map_err(KeeperError::io(&folder))?;
        for entry in entries {
            let path = entry.map_err(KeeperError::io(&folder))?.path();
            let Some(number) = path.file_name().and_then(|name| number(name.to_str()?)) else { continue };
            self.book.next_sector = self.book.next_sector.max(number + 1);
            match glance(&path) {
                Ok(Some(glance)) if self.is_ours(number, &glance) && !glance.pieces.is_empty() => {
                    let mut kept = Kept::planned(glance.spec.mode, Vec::new());
                    kept.look(glance);
                    // When its replica was committed to is forgotten: any later window is late enough.
                    kept.seed_from = Some(self.window() + 1);
                    kept.mended = !self.book.faults.contains_key(&number);
                    self.places.extend(kept.pieces.iter().map(|cid| (*cid, number)));
                    self.sectors.insert(number, kept);
                }
                Ok(Some(glance)) if glance.pieces.is_empty() => self.remove_folder(number)?,
                Ok(None) => self.remove_folder(number)?,
                // A program that knows more has sealed it; it is not ours to put away.
                Err(error @ SectorError::Newer { .. }) => return Err(error.into()),
                Ok(Some(glance)) => self.set_aside(number, &format!("it is of {}", glance.spec.profile))?,
                Err(error) => self.set_aside(number, &error.to_string())?,
            }
        }
        self.book.faults.retain(|number, _| self.sectors.contains_key(number));
        Ok(())
    }

    fn remove_folder(&self, number: u64) -> Result<(), KeeperError> {
        let path = self.sector_dir(number);
        durable::remove(&path).map_err(KeeperError::io(&path))
    }

    fn set_aside(&mut self, number: u64, reason: &str) -> Result<(), KeeperError> {
        let path = self.sector_dir(number);
        let aside = path.with_extension(DAMAGED);
        durable::remove(&aside).map_err(KeeperError::io(&aside))?;
        fs::rename(&path, &aside).map_err(KeeperError::io(&path))?;
        self.tell(true, format!("sector {number} is set aside as {}: {reason}", aside.display()));
        Ok(())
    }

    /// Makes sectors of what waits, as many as the pipeline takes.
    pub(super) fn plan(&mut self) -> Result<(), KeeperError> {
        while self.in_pipeline().len() < PIPELINE_MAX && self.lacks_disk().is_none() {
            let (profile, now) = (self.settings.profile, self.now());
            let Some(pieces) = self.pieces.plan(profile, now, self.settings.gather_seconds) else { break };
            let number = self.book.next_sector;
            self.book.next_sector += 1;
            // Before the folder is there: its number binds a replica, and two replicas must not share it.
            self.book.store(&self.dir)?;
            for cid in &pieces {
                self.pieces.put(cid, number);
                self.places.insert(*cid, number);
            }
            self.sectors.insert(number, Kept::planned(self.settings.mode, pieces));
        }
        Ok(())
    }

    /// Why the disk does not admit one more seal beside those whose layers and trees are still to be written: it would only fill
    /// it for those, and for whoever shares it. A file system that does not tell is tried.
    pub(super) fn lacks_disk(&self) -> Option<String> {
        let to_come = self.sectors.values().filter(|kept| kept.phase < Phase::PreCommit2).count() as u64;
        let needed = self.settings.profile.needs().scratch_bytes.saturating_mul(to_come + 1);
        let free = (self.disk_free)(&self.dir).ok()?;
        let said = || {
            let (needed, free) = (machine::size(needed), machine::size(free));
            format!("the disk has no room for another seal: {needed} needed, {free} free")
        };
        (free < needed).then(said)
    }

    /// Ends sectors that no deal wants any more.
    pub(super) fn expire(&mut self) -> Result<(), KeeperError> {
        if !self.pieces.is_listed() {
            return Ok(());
        }
        let now = self.now();
        for number in self.sectors.keys().copied().collect::<Vec<_>>() {
            if self.sector_until(number) > now || self.is_busy(|doing| doing.is_about(number)) {
                continue;
            }
            self.end_sector(number)?;
            self.tell(false, format!("sector {number} has expired with its last deal"));
        }
        Ok(())
    }

    /// When the last of a sector's deals ends; never in the past while the provider's list is not known.
    pub(super) fn sector_until(&self, number: u64) -> u64 {
        let pieces = self.sectors.get(&number).map_or(&[][..], |kept| &kept.pieces);
        pieces.iter().map(|cid| self.pieces.until(cid)).max().unwrap_or(0)
    }

    pub(super) fn end_sector(&mut self, number: u64) -> Result<(), KeeperError> {
        self.remove_folder(number)?;
        self.sectors.remove(&number);
        self.book_changed |= self.book.faults.remove(&number).is_some();
        self.places.retain(|_, sector| *sector != number);
        let now = self.now();
        self.pieces.leave(number, now);
        Ok(())
    }

    /// Begins a sector's next step, if it has one and nothing is under way.
    pub(super) fn drive(&mut self, number: u64) -> Result<(), KeeperError> {
        let now = self.now();
        let busy = self.is_busy(|doing| doing.seals(number));
        let Some(kept) = self.sectors.get(&number).cloned().filter(|_| !busy) else { return Ok(()) };
        if kept.stuck.as_ref().is_some_and(|(_, until)| now < *until) {
            return Ok(());
        }
        let (window, seal) = (self.window(), Class::Seal);
        let deadline = now + self.settings.seal_seconds_max;
        let dir = self.sector_dir(number);
        let mut waits = None;
        let refused = if !kept.mended || !kept.has_ticket {
            let slot = |cid: &PieceCid| Some(FillPiece { cid: *cid, slot: self.pieces.slot(cid)?.clone() });
            let pieces: Vec<FillPiece> = kept.pieces.iter().filter_map(slot).collect();
            // Until the provider has told its deals, the slots are not known.
            if pieces.len() < kept.pieces.len() && !self.pieces.is_listed() {
                None
            } else {
                let (spec, ticket) = (self.spec(number), self.beacon.at(window));
                let job = Job::Fill { sector: dir, spec, pieces, ticket };
                self.submit(seal, deadline, costs::fill(&self.settings), job, Doing::Fill(number))?
            }
        } else if kept.phase < Phase::Commit1 {
            let replica = if kept.mode == SealMode::Synthetic { Phase::Synthetic } else { Phase::PreCommit2 };
            let late_enough = kept.seed_from.is_some_and(|from| window >= from);
            if kept.phase >= replica && !kept.has_seed && !late_enough {
                waits = Some("its seed, from the next window's beacon".to_owned());
                None
            } else {
                // Only a replica that was committed to in an earlier window gets its seed.
                let seed = (kept.phase >= replica && late_enough).then(|| self.beacon.at(window));
                let through = if kept.phase < replica { replica } else { Phase::Commit1 };
                let job = Job::Seal { sector: dir, through, seed };
                self.submit(seal, deadline, costs::seal(&self.settings), job, Doing::Seal(number))?
            }
        } else if kept.phase < Phase::Cleared {
            if kept.phase == Phase::Commit1 && !self.has_parameters(Circuit::Porep) {
                let profile = self.settings.profile.name();
                waits = Some(format!(
                    "parameters for its proof: holdfast proofs params --profile {profile} --circuit porep --make"
                ));
                None
            } else {
                let job = Job::Seal { sector: dir, through: Phase::Cleared, seed: None };
                self.submit(seal, deadline, costs::groth(&self.settings), job, Doing::Seal(number))?
            }
        } else if kept.unsealed_dropped == self.settings.keep_unsealed {
            let (job, cost) = match self.settings.keep_unsealed {
                true => (Job::RestoreUnsealed { sector: dir }, costs::unseal(&self.settings)),
                false => (Job::DropUnsealed { sector: dir }, costs::fill(&self.settings)),
            };
            self.submit(Class::Upkeep, deadline, cost, job, Doing::Copy(number))?
        } else {
            None
        };
        if let Some(kept) = self.sectors.get_mut(&number) {
            kept.waits = waits.or(refused);
            kept.stuck = None;
        }
        Ok(())
    }
}

/// The number that a sector's folder has as its name: in its one spelling, so that no other folder is taken for it, and one
/// that another can follow.
fn number(name: &str) -> Option<u64> {
    name.parse().ok().filter(|number: &u64| *number < u64::MAX && number.to_string() == name)
}
