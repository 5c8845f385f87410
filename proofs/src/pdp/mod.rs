//! Possession: that someone can produce a piece's bytes at randomly drawn places, in time.
//!
//! ```text
//! seed = SHA-256(nonce, auditor, prover, deal, epoch)        fresh for every audit
//! positions = SHA-256(seed, piece, i) mod leaves             over exactly the leaves with data
//! proof = those leaves, and each tree node that they do not imply, once
//! ```
//!
//! Verification is SHA-256 and integer arithmetic only, so a contract can mirror it line by line;
//! `verify` is that mirror's reference. `../../SOUNDNESS.md` says what a proof shows.

mod beside;
mod challenge;
mod plan;
mod proof;
mod prove;
mod set;
mod verify;

pub use beside::{Beside, beside};
pub use challenge::{CHALLENGES_MAX, Challenge, DEFAULT_CHALLENGES, SeedInputs};
pub use proof::{PROOF_BYTES_MAX, PossessionProof, ProofError};
pub use prove::{ProveError, prove, rebuild_cache, rebuild_cache_into};
pub use set::{ProvingSet, SET_PIECES_MAX, SetVerdict, prove_set, verify_set};
pub use verify::{Verdict, verify};
