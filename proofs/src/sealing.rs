//! What a provider and its prover say to each other, and how sealing stands: lines of JSON over the prover's standard
//! input and output.
//!
//! ```text
//! provider -> prover   "list", {"stored": ...} for every deal, "listed"; then {"stored": ...} and {"ended": ...} as they come
//! prover -> provider   a `SealingStatus` after every change, once a second at most
//! the provider closes the prover's input: the prover ends, and its workers with it
//! ```
//!
//! Promises: every line may be repeated; what is not told between "list" and "listed" has ended. The types are here, away
//! from Filecoin's circuits, so that the provider's program needs none of them.
//! Refuses: lines longer than `LINE_BYTES_MAX`, in either direction.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::commp::PieceCid;

/// The longest line: a status with all the sectors and events that it shows.
pub const LINE_BYTES_MAX: usize = 4 << 20;
/// Version of the status.
pub const SCHEMA: u32 = 1;
/// Where the prover keeps its newest status, within its folder.
pub const STATUS_FILE: &str = "status.json";
/// Deals that a prover knows at once.
pub const DEALS_MAX: usize = 1 << 17;
/// Sectors that a status shows; those in trouble come first.
pub const SECTORS_SHOWN_MAX: usize = 1_000;
/// Events that a status shows, the newest.
pub const EVENTS_SHOWN_MAX: usize = 50;

/// Profiles and the bytes of their sectors, for those who do not have the circuits.
pub const PROFILES: [(&str, u64); 4] =
    [("test-2k", 1 << 11), ("test-8m", 1 << 23), ("production-32g", 1 << 35), ("production-64g", 1 << 36)];

/// The longest piece that goes into a sector of a profile: fr32 spends two bits in 256. None for a name that is none.
#[must_use]
pub fn piece_bytes_max(profile: &str) -> Option<u64> {
    PROFILES.iter().find(|(name, _)| *name == profile).map(|(_, bytes)| bytes / 128 * 127)
}

/// A line of the provider.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Order {
    /// Everything that is stored follows.
    List,
    Stored(StoredPiece),
    /// That was everything.
    Listed,
    Ended {
        deal: String,
    },
}

/// A deal whose slot is on the provider's disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StoredPiece {
    pub deal: String,
    pub piece: PieceCid,
    /// The slot's file: the unsealed copy, which the provider keeps as long as the deal runs.
    pub slot: PathBuf,
    /// Unix seconds of the deal's end.
    pub until: u64,
}

/// Cores and memory, as a budget or as what is used of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Room {
    pub cores: u32,
    pub memory_bytes: u64,
}

/// Pieces by where they stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct PieceCounts {
    /// Not in a sector yet.
    pub waiting: usize,
    /// In a sector, replica made or not.
    pub in_sectors: usize,
    /// Longer than a sector: stored and audited, never sealed.
    pub too_large: usize,
}

/// One sector.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SectorStatus {
    pub number: u64,
    /// The last finished phase.
    pub phase: String,
    pub pieces: usize,
    /// Unix seconds of the last deal's end.
    pub until: u64,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub comm_r: Option<String>,
    /// What it waits for, if not for its turn.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub waits: Option<String>,
    /// Declared faulty since (unix seconds), and why.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub faulty_since: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub fault: Option<String>,
    /// Unix seconds of its last Window PoSt.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub proven_at: Option<u64>,
}

/// One task of the engine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskLine {
    pub id: u64,
    /// "spacetime", "seal" or "upkeep".
    #[serde(default)]
    pub class: String,
    pub what: String,
    pub state: String,
    /// Unix seconds.
    pub deadline: u64,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub expected_finish: Option<u64>,
    pub at_risk: bool,
    pub attempts: u32,
}

/// Windows: in each the sectors of one slot of the period are proven.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct WindowCounts {
    pub period_seconds: u64,
    pub deadline_seconds: u64,
    /// Since the folder was made.
    pub proven: u64,
    pub missed: u64,
    /// The newest proof file.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub newest_proof: Option<PathBuf>,
}

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SealingEvent {
    /// Unix seconds.
    pub at: u64,
    pub warning: bool,
    pub text: String,
}

/// How sealing stands: what `holdfast proofs status` shows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SealingStatus {
    pub schema: u32,
    /// Unix seconds.
    pub now: u64,
    pub pid: u32,
    pub profile: String,
    /// "test strength" or "production strength".
    pub strength: String,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub warning: Option<String>,
    pub budget: Room,
    pub used: Room,
    /// Whether deals that must be sealed may be made now; why not.
    pub accepts: bool,
    pub reasons: Vec<String>,
    /// Pieces of more bytes are not sealed.
    pub piece_bytes_max: u64,
    pub pieces: PieceCounts,
    pub sectors: Vec<SectorStatus>,
    pub sectors_total: usize,
    pub sectors_faulty: usize,
    /// All sectors, counted by their last finished phase.
    #[serde(default)]
    pub phases: BTreeMap<String, usize>,
    pub windows: WindowCounts,
    pub tasks: Vec<TaskLine>,
    pub events: Vec<SealingEvent>,
}

impl SealingStatus {
    /// Deadlines that may be missed.
    pub fn at_risk(&self) -> impl Iterator<Item = &TaskLine> {
        self.tasks.iter().filter(|task| task.at_risk)
    }

    /// Proofs that may miss their deadlines: a seal that is late costs time, a proof that is late is worth nothing.
    pub fn proofs_at_risk(&self) -> impl Iterator<Item = &TaskLine> {
        self.at_risk().filter(|task| task.class == "spacetime")
    }

    /// Unix seconds at which everything that is queued is expected to be done; none with an empty queue.
    #[must_use]
    pub fn expected_finish(&self) -> Option<u64> {
        self.tasks.iter().filter_map(|task| task.expected_finish).max()
    }

    /// Seconds until a moment, by the prover's clock when it said this.
    #[must_use]
    pub fn seconds_until(&self, at: u64) -> i64 {
        at.cast_signed().saturating_sub(self.now.cast_signed())
    }
}

impl fmt::Display for SealingStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(warning) = &self.warning {
            writeln!(f, "{warning}")?;
        }
        writeln!(
            f,
            "sealing {} ({}): {} of {} cores, {} of {} MiB",
            self.profile,
            self.strength,
            self.used.cores,
            self.budget.cores,
            self.used.memory_bytes >> 20,
            self.budget.memory_bytes >> 20
        )?;
        writeln!(
            f,
            "pieces   {} waiting, {} in sectors, {} longer than a sector and not sealed",
            self.pieces.waiting, self.pieces.in_sectors, self.pieces.too_large
        )?;
        write!(f, "sectors  {}, {} of them faulty", self.sectors_total, self.sectors_faulty)?;
        for (phase, sectors) in &self.phases {
            write!(f, "; {sectors} past {phase}")?;
        }
        writeln!(f)?;
        writeln!(
            f,
            "windows  {} proven, {} missed; each sector every {} s, within {} s",
            self.windows.proven,
            self.windows.missed,
            self.windows.period_seconds,
            self.windows.deadline_seconds
        )?;
        if let Some(expected) = self.expected_finish() {
            let (tasks, left) = (self.tasks.len(), self.seconds_until(expected).max(0));
            writeln!(f, "queue    {tasks} task(s), expected to be done in {left} s")?;
        }
        if !self.accepts {
            writeln!(f, "takes no deals that must be sealed: {}", self.reasons.join("; "))?;
        }
        for task in self.at_risk() {
            let left = self.seconds_until(task.deadline);
            writeln!(f, "AT RISK  {}: due in {left} s, {}", task.what, task.state)?;
        }
        for sector in &self.sectors {
            write!(f, "  sector {:>4}  past {}, {} piece(s)", sector.number, sector.phase, sector.pieces)?;
            if let Some(fault) = &sector.fault {
                write!(f, ", FAULTY: {fault}")?;
            }
            if let Some(waits) = &sector.waits {
                write!(f, ", waits for {waits}")?;
            }
            if let Some(at) = sector.proven_at {
                write!(f, ", proven {} s ago", self.seconds_until(at).saturating_neg())?;
            }
            writeln!(f)?;
        }
        for task in &self.tasks {
            let due = self.seconds_until(task.deadline);
            write!(f, "  task   {:>4}  {}: {}, due in {due} s", task.id, task.what, task.state)?;
            if let Some(expected) = task.expected_finish {
                write!(f, ", expected in {} s", self.seconds_until(expected))?;
            }
            writeln!(f)?;
        }
        for event in &self.events {
            let ago = self.seconds_until(event.at).saturating_neg();
            let mark = if event.warning { "warning: " } else { "" };
            writeln!(f, "  {ago:>6} s ago  {mark}{}", event.text)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_are_lines_and_come_back() {
        let stored = StoredPiece {
            deal: "d1".to_owned(),
            piece: PieceCid::new(1_000, [3; 32]).unwrap(),
            slot: PathBuf::from("/srv/slots/d1"),
            until: 1_900_000_000,
        };
        for order in
            [Order::List, Order::Stored(stored), Order::Listed, Order::Ended { deal: "d1".to_owned() }]
        {
            let line = serde_json::to_string(&order).unwrap();
            assert!(!line.contains('\n'));
            assert_eq!(serde_json::from_str::<Order>(&line).unwrap(), order);
        }
        for bad in ["\"dance\"", "{}", "{\"stored\":{}}", "{\"ended\":{}}", "7"] {
            assert!(serde_json::from_str::<Order>(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn what_is_in_trouble_is_said_in_words() {
        let task = TaskLine {
            id: 4,
            class: "spacetime".to_owned(),
            what: "window PoSt of 2 sector(s)".to_owned(),
            state: "running".to_owned(),
            deadline: 130,
            expected_finish: Some(140),
            at_risk: true,
            attempts: 0,
        };
        let sector = SectorStatus {
            number: 9,
            phase: "cleared".to_owned(),
            pieces: 3,
            until: 1_000,
            comm_r: None,
            waits: None,
            faulty_since: Some(90),
            fault: Some("the replica is cut".to_owned()),
            proven_at: Some(80),
        };
        let status = SealingStatus {
            schema: SCHEMA,
            now: 100,
            pid: 1,
            profile: "test-2k".to_owned(),
            strength: "test strength".to_owned(),
            warning: Some("TEST STRENGTH".to_owned()),
            budget: Room { cores: 2, memory_bytes: 4 << 30 },
            used: Room::default(),
            accepts: false,
            reasons: vec!["the queue is full".to_owned()],
            piece_bytes_max: 2_032,
            pieces: PieceCounts { waiting: 1, in_sectors: 3, too_large: 2 },
            sectors: vec![sector],
            sectors_total: 1,
            sectors_faulty: 1,
            phases: BTreeMap::from([("cleared".to_owned(), 1)]),
            windows: WindowCounts::default(),
            tasks: vec![task],
            events: vec![SealingEvent { at: 95, warning: true, text: "sector 9 is faulty".to_owned() }],
        };
        let text = status.to_string();
        for words in [
            "TEST STRENGTH\n",
            "takes no deals that must be sealed: the queue is full",
            "AT RISK  window PoSt of 2 sector(s): due in 30 s",
            "FAULTY: the replica is cut, proven 20 s ago",
            "expected in 40 s",
            "queue    1 task(s), expected to be done in 40 s",
            "sectors  1, 1 of them faulty; 1 past cleared",
            "5 s ago  warning: sector 9 is faulty",
        ] {
            assert!(text.contains(words), "{words} in\n{text}");
        }
        assert_eq!(status.proofs_at_risk().count(), 1);
        let json = serde_json::to_string(&status).unwrap();
        assert_eq!(serde_json::from_str::<SealingStatus>(&json).unwrap(), status);
    }
}
