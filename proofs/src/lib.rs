//! What a Holdfast provider proves and how anyone checks it.
//!
//! Owns: piece commitments (`commp`: CommP and its v2 piece CID, FRC-0069), possession proofs
//! (`pdp`: challenge, prove, verify, the on-disk tree cache), and what a series of audits implies
//! (`odds`: the probability that a loss goes unnoticed), the possession proof as a file (`file`), and what a provider and its prover say to
//! each other (`sealing`: types only).
//!
//! Promises: no clock, no randomness, no network, no async; a decoder given hostile bytes answers
//! with an error and never panics; verification is a pure function of public bytes and of SHA-256.
//! `SOUNDNESS.md` beside this crate says what each proof shows and what it does not.
//!
//! Refuses: to own secrets, to choose when an audit happens, to retry.
//!
//! ```text
//! bytes -> CommpHasher -> PieceCid (+ tree cache)            while packing or receiving
//! PieceCid, seed -> Challenge -> prove(bytes, cache)         the provider
//! PieceCid, Challenge, PossessionProof -> verify -> Verdict  anybody
//! ```

pub mod commp;
pub mod file;
pub mod odds;
pub mod pdp;
mod read_at;
pub mod sealing;

pub use commp::{CacheError, CommpHasher, PieceCid, PieceCidError, TreeCache, TreeLevel};
pub use odds::{AuditPlan, ReadPlan};
pub use pdp::{
    Challenge, PossessionProof, ProofError, ProveError, SeedInputs, Verdict, prove, rebuild_cache,
    rebuild_cache_into, verify,
};
pub use read_at::ReadAt;
