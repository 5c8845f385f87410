//! The phase journal: one small file that says which phases of a sector are finished, and with what outputs.
//!
//! Must: a phase's outputs are synced and under their final names before the journal names them (else a power
//! cut could leave a record of bytes that are not there). Must: files are removed only after the journal no
//! longer needs them. Should: every output is hashed, so that what a disk lost later is noticed and made again; and so is
//! the journal itself, from version 2 on.

use std::fs;
use std::path::{Component, Path};

use serde::{Deserialize, Serialize};

use super::SectorError;
use crate::durable;
use crate::packing::{Layout, PieceRoot};
use crate::profile::{Profile, SealMode};
use crate::types::Bytes32;
use holdfast_proofs::PieceCid;

pub(super) const JOURNAL: &str = "journal.json";
const VERSION: u32 = 2;
/// Journals of the first version carry no sum of themselves; they are read, and written as of the newest.
const UNSUMMED: u32 = 1;
/// A sector of the smallest pieces: 2^28 of them would be refused long before, by the deals that pay for them.
const JOURNAL_BYTES_MAX: u64 = 64 << 20;

/// What a sector is, fixed when it is created.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SectorSpec {
    pub profile: Profile,
    pub mode: SealMode,
    /// Who seals: a hash that names the provider, bound into the replica.
    pub prover: Bytes32,
    /// The prover's own number for it, never used twice.
    pub number: u64,
}

/// The steps of a sealing, in their order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    /// Pieces are taken.
    Filling,
    /// No more pieces; the unsealed bytes are hashed.
    Packed,
    PreCommit1,
    PreCommit2,
    /// All candidate challenges answered, layers dropped (synthetic seals only).
    Synthetic,
    Commit1,
    Commit2,
    /// Only what later proofs and retrieval need is kept.
    Cleared,
}

impl Phase {
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Filling => "filling",
            Self::Packed => "packed",
            Self::PreCommit1 => "pre-commit 1",
            Self::PreCommit2 => "pre-commit 2",
            Self::Synthetic => "synthetic proofs",
            Self::Commit1 => "commit 1",
            Self::Commit2 => "commit 2",
            Self::Cleared => "cleared",
        }
    }

    /// The phase after this one.
    #[must_use]
    pub fn next(self, mode: SealMode) -> Option<Self> {
        Some(match self {
            Self::Filling => Self::Packed,
            Self::Packed => Self::PreCommit1,
            Self::PreCommit1 => Self::PreCommit2,
            Self::PreCommit2 if mode == SealMode::Synthetic => Self::Synthetic,
            Self::PreCommit2 | Self::Synthetic => Self::Commit1,
            Self::Commit1 => Self::Commit2,
            Self::Commit2 => Self::Cleared,
            Self::Cleared => return None,
        })
    }

    /// The phase before this one.
    fn previous(self, mode: SealMode) -> Option<Self> {
        let mut phase = Self::Filling;
        loop {
            let next = phase.next(mode)?;
            if next == self {
                return Some(phase);
            }
            phase = next;
        }
    }
}

/// One file that a phase made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Output {
    /// Relative to the sector's folder.
    pub(super) name: String,
    pub(super) bytes: u64,
    pub(super) sha256: Bytes32,
}

impl Output {
    pub(super) fn of(dir: &Path, name: String) -> std::io::Result<Self> {
        let (bytes, sha256) = durable::sha256_file(&dir.join(&name))?;
        Ok(Self { name, bytes, sha256: Bytes32(sha256) })
    }

    /// Outputs of every file in a folder of the sector, in the order of their names.
    pub(super) fn of_folder(dir: &Path, folder: &str) -> std::io::Result<Vec<Self>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(dir.join(folder))? {
            names.push(format!("{folder}/{}", entry?.file_name().to_string_lossy()));
        }
        names.sort_unstable();
        names.into_iter().map(|name| Self::of(dir, name)).collect()
    }

    /// Whether the file is still what was made; its length is compared before its bytes are hashed.
    pub(super) fn is_intact(&self, dir: &Path) -> bool {
        let path = dir.join(&self.name);
        let length = fs::metadata(&path).is_ok_and(|meta| meta.is_file() && meta.len() == self.bytes);
        length && durable::sha256_file(&path).is_ok_and(|now| now == (self.bytes, self.sha256.0))
    }
}

/// A finished phase.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Finished {
    pub(super) phase: Phase,
    pub(super) outputs: Vec<Output>,
}

/// A piece of the sector.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Piece {
    pub(super) cid: PieceCid,
    /// Where it begins, in padded bytes.
    pub(super) offset: u64,
}

/// Everything about a sector that is not in a file of its own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Journal {
    version: u32,
    /// "test strength" or "production strength", for whoever opens the file.
    strength: String,
    pub(super) spec: SectorSpec,
    pub(super) pieces: Vec<Piece>,
    pub(super) ticket: Option<Bytes32>,
    pub(super) seed: Option<Bytes32>,
    pub(super) comm_r: Option<Bytes32>,
    pub(super) finished: Vec<Finished>,
    /// The unsealed bytes were dropped on purpose.
    pub(super) unsealed_dropped: bool,
    /// Of all the rest.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    sum: String,
}

/// Why bytes are no journal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Unread {
    Newer(u32),
    Bad(String),
}

/// As far as any version goes.
#[derive(Deserialize)]
struct Versioned {
    version: u32,
}

impl Journal {
    pub(super) fn new(spec: SectorSpec) -> Self {
        Self {
            version: VERSION,
            strength: spec.profile.strength().to_owned(),
            spec,
            pieces: Vec::new(),
            ticket: None,
            seed: None,
            comm_r: None,
            finished: Vec::new(),
            unsealed_dropped: false,
            sum: String::new(),
        }
    }

    pub(super) fn load(dir: &Path) -> Result<Self, SectorError> {
        let path = dir.join(JOURNAL);
        let bad = |reason: String| SectorError::Journal { path: path.clone(), reason };
        let bytes = fs::metadata(&path).map_err(SectorError::io(&path))?.len();
        if bytes > JOURNAL_BYTES_MAX {
            return Err(bad(format!("{bytes} bytes are too many")));
        }
        let text = fs::read(&path).map_err(SectorError::io(&path))?;
        Self::parse(&text).map_err(|unread| match unread {
            Unread::Newer(version) => SectorError::Newer { path: path.clone(), version },
            Unread::Bad(reason) => bad(reason),
        })
    }

    /// Reads a journal's bytes.
    pub(super) fn parse(text: &[u8]) -> Result<Self, Unread> {
        let bad = |error: serde_json::Error| Unread::Bad(error.to_string());
        // What a newer version may have beside is not ours to judge.
        let Versioned { version } = serde_json::from_slice(text).map_err(bad)?;
        if version > VERSION {
            return Err(Unread::Newer(version));
        }
        let journal: Self = serde_json::from_slice(text).map_err(bad)?;
        let sum = if version == UNSUMMED { String::new() } else { journal.own_sum().map_err(bad)? };
        if version < UNSUMMED || journal.sum != sum {
            return Err(Unread::Bad("its sum is wrong".to_owned()));
        }
        journal.check().map_err(Unread::Bad)?;
        Ok(journal)
    }

    fn own_sum(&self) -> serde_json::Result<String> {
        durable::json_sum(&Self { sum: String::new(), ..self.clone() })
    }

    /// Its bytes, as of the newest version.
    pub(super) fn encode(&self) -> serde_json::Result<Vec<u8>> {
        let mut newest = Self { version: VERSION, ..self.clone() };
        newest.sum = newest.own_sum()?;
        serde_json::to_vec_pretty(&newest)
    }

    pub(super) fn store(&self, dir: &Path) -> Result<(), SectorError> {
        let path = dir.join(JOURNAL);
        let bad =
            |error: serde_json::Error| SectorError::Journal { path: path.clone(), reason: error.to_string() };
        durable::replace(&path, &self.encode().map_err(bad)?).map_err(SectorError::io(&path))
    }

    /// That it is a journal which this program could have written.
    fn check(&self) -> Result<(), String> {
        let mut phase = Phase::Filling;
        for finished in &self.finished {
            if phase.next(self.spec.mode) != Some(finished.phase) {
                return Err(format!("{} does not follow {}", finished.phase.name(), phase.name()));
            }
            phase = finished.phase;
            let is_ours =
                |name: &str| Path::new(name).components().all(|part| matches!(part, Component::Normal(_)));
            if let Some(output) = finished.outputs.iter().find(|output| !is_ours(&output.name)) {
                return Err(format!("{} is not in the sector's folder", output.name));
            }
        }
        let layout = self.layout().map_err(|error| error.to_string())?;
        let placed = layout.pieces().iter().map(|(_, offset)| *offset);
        if !placed.eq(self.pieces.iter().map(|piece| piece.offset)) {
            return Err("pieces do not lie where they must".to_owned());
        }
        let missing = [
            (Phase::PreCommit1, self.ticket.is_none(), "ticket"),
            (Phase::PreCommit2, self.comm_r.is_none(), "replica commitment"),
            (Phase::Commit1, self.seed.is_none(), "seed"),
        ];
        match missing.into_iter().find(|(after, missing, _)| phase >= *after && *missing) {
            Some((_, _, what)) => Err(format!("{} without its {what}", phase.name())),
            None => Ok(()),
        }
    }

    pub(super) fn phase(&self) -> Phase {
        self.finished.last().map_or(Phase::Filling, |finished| finished.phase)
    }

    pub(super) fn layout(&self) -> Result<Layout, crate::packing::PackingError> {
        Layout::of(self.spec.profile, self.pieces.iter().map(|piece| PieceRoot::of(&piece.cid)))
    }

    /// The first finished phase whose outputs are needed and are not what was made.
    pub(super) fn first_damage(&self, dir: &Path) -> Option<(Phase, String)> {
        let at = self.phase();
        self.finished
            .iter()
            .filter(|finished| needs(self.spec.mode, at, finished.phase))
            .flat_map(|finished| finished.outputs.iter().map(move |output| (finished.phase, output)))
            .find(|(_, output)| !output.is_intact(dir))
            .map(|(phase, output)| (phase, output.name.clone()))
    }

    /// Forgets this phase and all after it. The replica's commitment stays: a replica that is made again must be
    /// the same one.
    pub(super) fn roll_back(&mut self, phase: Phase) {
        self.finished.retain(|finished| finished.phase < phase);
        debug_assert_eq!(Some(self.phase()), phase.previous(self.spec.mode));
    }
}

/// Whether a sector that has finished `at` still needs the outputs of `phase` to go on. The unsealed bytes are
/// needed until the replica is made; after that they are a copy for reading (`Sector::check_unsealed`).
fn needs(mode: SealMode, at: Phase, phase: Phase) -> bool {
    match phase {
        Phase::Filling => false,
        Phase::Packed => at < Phase::PreCommit2,
        Phase::PreCommit1 | Phase::PreCommit2 if mode == SealMode::Synthetic => at < Phase::Synthetic,
        Phase::PreCommit1 | Phase::PreCommit2 | Phase::Synthetic | Phase::Commit1 => at < Phase::Cleared,
        Phase::Commit2 | Phase::Cleared => true,
    }
}

/// Any bytes as a journal, for fuzzing: what is understood comes back, and every phase of it can be gone back to.
pub(crate) fn decode_any(bytes: &[u8]) {
    let Ok(journal) = Journal::parse(bytes) else { return };
    let again = journal.encode().ok().and_then(|bytes| Journal::parse(&bytes).ok());
    let again = again.map(|again| Journal { version: journal.version, sum: journal.sum.clone(), ..again });
    assert_eq!(again.as_ref(), Some(&journal), "another journal comes back");
    for finished in &journal.finished {
        let mut back = journal.clone();
        back.roll_back(finished.phase);
        assert_eq!(back.check(), Ok(()), "what was gone back to is no journal");
    }
    let _ = (journal.layout().map(|layout| layout.comm_d()), journal.first_damage(Path::new("/nowhere")));
}

/// The bytes of the journal of a sector that was sealed up to pre-commit 2.
#[cfg(test)]
pub(crate) fn sample() -> Vec<u8> {
    let prover = Bytes32([1; 32]);
    let spec = SectorSpec { profile: Profile::Test2k, mode: SealMode::Synthetic, prover, number: 4 };
    let pieces = [(500, 0), (1_000, 1_024)].map(|(len, offset)| {
        let cid = PieceCid::new(len, [3; 32]).unwrap();
        Piece { cid, offset }
    });
    let outputs = vec![Output { name: "pc1/sealed".to_owned(), bytes: 9, sha256: Bytes32([2; 32]) }];
    let finished = [Phase::Packed, Phase::PreCommit1, Phase::PreCommit2]
        .map(|phase| Finished { phase, outputs: outputs.clone() });
    let (ticket, comm_r) = (Some(Bytes32([4; 32])), Some(Bytes32([5; 32])));
    let (pieces, finished) = (pieces.to_vec(), finished.to_vec());
    let journal = Journal { pieces, finished, ticket, comm_r, ..Journal::new(spec) };
    journal.check().unwrap();
    journal.encode().unwrap()
}
