//! A workshop with real workers, and sectors of 2 KiB to work on.
#![allow(dead_code)]

use std::path::{Path, PathBuf};

use holdfast_proofs::{CommpHasher, PieceCid};
use holdfast_sectors::sector::{Phase, Sector, SectorSpec};
use holdfast_sectors::work::{ChildEnd, Job, JobResult, Launcher, Limits, Waits};
use holdfast_sectors::{Bytes32, Profile, SealMode, Workshop};

pub const LIMITS: Limits = Limits { memory_bytes: 8 << 30, cores: 2, nice: 0 };
pub const PROVER: Bytes32 = Bytes32([0x61; 32]);
pub const TICKET: Bytes32 = Bytes32([0x62; 32]);
pub const SEED: Bytes32 = Bytes32([0x63; 32]);

pub struct Rig {
    pub dir: tempfile::TempDir,
    pub launcher: Launcher,
}

impl Rig {
    pub fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let workshop = Workshop::create(dir.path()).unwrap();
        let prover = PathBuf::from(env!("CARGO_BIN_EXE_holdfast-prover"));
        Self { launcher: Launcher::new(prover, vec!["worker".into()], workshop), dir }
    }

    pub fn end(&self, job: Job) -> ChildEnd {
        self.launcher.start(job, LIMITS).unwrap().wait().unwrap()
    }

    pub fn run(&self, job: Job) -> JobResult {
        match self.end(job) {
            ChildEnd::Done(result) => result,
            other => panic!("{other:?}"),
        }
    }

    /// Seals as far as asked; what it says of setbacks.
    pub fn seal(&self, sector: &Path, through: Phase) -> (Phase, Option<Waits>, Vec<String>) {
        match self.run(Job::Seal { sector: sector.to_owned(), through, seed: None }) {
            JobResult::Seal { phase, waits, setbacks, .. } => (phase, waits, setbacks),
            other => panic!("{other:?}"),
        }
    }

    pub fn sector(&self, name: &str, number: u64, mode: SealMode, payloads: &[Vec<u8>]) -> PathBuf {
        let path = self.dir.path().join(name);
        let spec = SectorSpec { profile: Profile::Test2k, mode, prover: PROVER, number };
        let mut sector = Sector::create(&path, spec).unwrap();
        for payload in payloads {
            sector.add_piece(cid(payload), payload.as_slice()).unwrap();
        }
        sector.set_ticket(TICKET).unwrap();
        path
    }
}

/// Payloads of three pieces that leave a gap and a tail.
pub fn payloads() -> Vec<Vec<u8>> {
    let bytes = |len: usize, by: usize| (0..len).map(|i| (i * by % 251) as u8).collect();
    vec![bytes(500, 7), bytes(100, 11), bytes(1_000, 13)]
}

pub fn cid(payload: &[u8]) -> PieceCid {
    let mut hasher = CommpHasher::new();
    hasher.update(payload);
    hasher.finish()
}

/// Where `HOLDFAST_KEEP_VECTORS` is set, puts a proof among the committed ones.
#[allow(clippy::disallowed_methods)]
pub fn keep_vector(name: &str, proof: &Path) {
    if std::env::var("HOLDFAST_KEEP_VECTORS").is_ok() {
        let vectors = Path::new(env!("CARGO_MANIFEST_DIR")).join("vectors");
        std::fs::create_dir_all(&vectors).unwrap();
        std::fs::copy(proof, vectors.join(name)).unwrap();
    }
}
