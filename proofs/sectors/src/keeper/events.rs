//! What the engine says, and what follows from it.

use super::{Doing, Keeper, KeeperError, STUCK_SECONDS};
use crate::engine::{Clock, Event, Executor, Output};
use crate::sector::glance;
use crate::work::JobResult;

impl Doing {
    /// Whether it works on a sector's files.
    pub(super) fn seals(&self, number: u64) -> bool {
        matches!(self, Self::Fill(of) | Self::Seal(of) | Self::Copy(of) if *of == number)
    }

    /// Whether it needs a sector's files.
    pub(super) fn is_about(&self, number: u64) -> bool {
        match self {
            Self::Window(window) => window.sectors.contains_key(&number),
            other => other.seals(number),
        }
    }
}

impl<E: Executor, C: Clock + Clone> Keeper<E, C> {
    pub(super) fn heard(&mut self, event: Event) -> Result<(), KeeperError> {
        match event {
            Event::Started(_) => Ok(()),
            Event::Progress(id, _) => {
                // A phase was finished: its files have moved.
                if let Some(Doing::Seal(number)) = self.tasks.get(&id).cloned() {
                    self.look(number)?;
                }
                Ok(())
            }
            Event::Retried { id, reason } => {
                if reason != "stopped" {
                    self.tell(true, format!("task {} is tried again: {reason}", id.0));
                }
                Ok(())
            }
            Event::AtRisk { id, deadline, expected } => {
                let late = expected.saturating_sub(deadline) / 1_000;
                self.tell(true, format!("task {} may miss its deadline by {late} s", id.0));
                Ok(())
            }
            Event::Done(task, output) => match (self.tasks.remove(&task.id), output) {
                (Some(doing), Output::Worker(result)) => self.done(doing, result),
                _ => Ok(()),
            },
            Event::Failed { task, reason } => match self.tasks.remove(&task.id) {
                Some(doing) => self.failed(doing, &reason),
                None => Ok(()),
            },
            Event::Missed(task) => {
                if let Some(Doing::Window(window)) = self.tasks.remove(&task.id) {
                    self.missed(&window, "its deadline has passed");
                }
                Ok(())
            }
        }
    }

    fn look(&mut self, number: u64) -> Result<(), KeeperError> {
        let dir = self.sector_dir(number);
        if let (Some(glance), Some(kept)) = (glance(&dir)?, self.sectors.get_mut(&number)) {
            kept.look(glance);
        }
        Ok(())
    }

    fn done(&mut self, doing: Doing, result: JobResult) -> Result<(), KeeperError> {
        match (doing, result) {
            (Doing::Fill(number), JobResult::Fill { pieces, refused }) => {
                for piece in &refused {
                    self.tell(true, format!("piece {} is not sealed: {}", piece.cid, piece.reason));
                }
                let Some(kept) = self.sectors.get_mut(&number) else { return Ok(()) };
                kept.mended = true;
                let before = std::mem::take(&mut kept.pieces);
                self.look(number)?;
                for cid in before.iter().filter(|cid| !pieces.contains(cid)) {
                    self.places.remove(cid);
                    self.pieces.refuse(cid);
                }
                if pieces.is_empty() {
                    self.end_sector(number)?;
                }
                Ok(())
            }
            (Doing::Seal(number), JobResult::Seal { phase, setbacks, .. }) => {
                for setback in setbacks {
                    self.tell(true, format!("sector {number}: {setback}"));
                }
                self.look(number)?;
                let from = self.window() + 1;
                if let Some(kept) = self.sectors.get_mut(&number)
                    && kept.seed_from.is_none()
                {
                    kept.seed_from = Some(from);
                }
                if phase == crate::sector::Phase::Cleared {
                    self.tell(false, format!("sector {number} is sealed"));
                }
                Ok(())
            }
            (Doing::Copy(number), _) => self.look(number),
            (Doing::Parameters, _) => {
                self.parameters_doubted = false;
                Ok(())
            }
            (Doing::Window(window), JobResult::WindowPost { proven, faults }) => {
                self.answered(window, proven, &faults)
            }
            _ => Ok(()),
        }
    }

    fn failed(&mut self, doing: Doing, reason: &str) -> Result<(), KeeperError> {
        let until = self.now() + STUCK_SECONDS;
        match doing {
            Doing::Parameters => {
                self.parameters_from = until;
                self.tell(true, format!("parameters cannot be made: {reason}"));
            }
            Doing::Window(window) => {
                self.parameters_doubted = true;
                self.missed(&window, reason);
            }
            Doing::Fill(number) | Doing::Seal(number) | Doing::Copy(number) => {
                self.tell(true, format!("sector {number} is stuck: {reason}"));
                if let Some(kept) = self.sectors.get_mut(&number) {
                    // What failed for good is looked at from the ground up the next time.
                    kept.mended = false;
                    kept.stuck = Some((reason.to_owned(), until));
                }
            }
        }
        Ok(())
    }
}
