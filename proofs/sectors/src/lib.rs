//! Replication and spacetime: Filecoin's sealed sectors for Holdfast's archival tier, and the engine that keeps a
//! provider's proving deadlines.
//!
//! ```text
//! pieces -> Layout -> Sector: packed -> pre-commit 1, 2 -> (synthetic) -> commit 1, 2 -> cleared     `sector`
//! sectors -> Window PoSt, Winning PoSt -> proof file -> verify_file, by anybody, offline             `sector::post`, `proof`
//! duties with deadlines -> Conductor -> workers, a process each                                      `engine`, `work`
//! deals -> sectors, sealed and proven on schedule, extended, expired, mended                         `keeper`
//! parameters: published by Filecoin, or made here for tests and stamped so                           `params`, `machine`
//! ```
//!
//! Owns: strength profiles, the phases and their journal, parameters and whose they are, the proof file format, the
//! duty scheduler, the worker. Promises: no network and no async; whatever is of test strength says so wherever it
//! is named; no phase's output is used before it was hashed; a proof is handed out only after it was verified.
//! Refuses: to seal or prove for production with parameters that Filecoin did not publish; to run a heavy step in
//! the provider's own process.
//!
//! # Using it
//!
//! ```no_run
//! use std::path::Path;
//! use holdfast_sectors::{MachineReport, Profile, Workshop};
//! use holdfast_sectors::proof::verify_file;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let workshop = Workshop::create(Path::new("/srv/holdfast/proofs"))?;
//! // What is there and what is missing.
//! println!("{}", MachineReport::look(Profile::Test2k, &workshop)?);
//! // Keys that were made here are trusted a little, published ones wholly.
//! println!("{}", verify_file(Path::new("sector.proof"), &workshop.parameters())?);
//! # Ok(())
//! # }
//! ```
//!
//! The program `holdfast-prover` is these commands (`cli`); whatever seals gives its path to `work::Launcher`, which
//! starts it as a worker. `../SOUNDNESS.md` says what each proof shows.

pub mod cli;
mod durable;
pub mod engine;
mod entropy;
pub mod fuzzing;
pub mod keeper;
pub mod machine;
pub mod packing;
pub mod params;
pub mod profile;
pub mod proof;
pub mod sector;
mod types;
pub mod work;
pub mod workshop;

pub use entropy::{Rng, SystemRng};
pub use machine::{MachineError, MachineReport};
pub use params::{Circuit, ParameterStore, ParamsError};
pub use profile::{Profile, SealMode, TEST_STRENGTH};
pub use types::Bytes32;
pub use workshop::{Workshop, WorkshopError};
