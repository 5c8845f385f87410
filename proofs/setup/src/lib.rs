//! Groth16 parameters from secrets that one machine drew: the circuit's polynomials at a secret point, then a multiple of a
//! generator for each.
//!
//! ```text
//! circuit --counted--> domain --Lagrange at tau--> each variable's polynomials --> scalars --> points, portion by portion
//! ```
//!
//! The same parameters as `bellperson`'s own generator from the same secrets (the tests here and of every crate that has
//! circuits compare them), by another way: the values of the Lagrange polynomials at the secret point are computed first, so
//! that a pass over the constraints adds up each variable's polynomials and no matrix is ever held; and multiples come from a
//! table for each window of twelve bits of a scalar.
//!
//! Promises: portions are the same whoever makes them, in whatever order and on however many threads, so that an interrupted
//! making goes on where it was. Refuses: to say that such parameters are worth anything. Whoever drew the secrets can forge.

mod points;
mod polynomials;
mod secrets;
mod size;

use bellpepper_core::SynthesisError;
use thiserror::Error;

pub use points::{Progress, Setup};
pub use secrets::{SECRETS_BYTES, Secrets};
pub use size::{CircuitSize, size_of};

/// The scalar field of BLS12-381.
pub type Fr = blstrs::Scalar;

/// Why there are no parameters.
#[derive(Debug, Error)]
pub enum SetupError {
    #[error("the circuit cannot be laid out: {0}")]
    Synthesis(#[from] SynthesisError),
    #[error("the random source gave a zero")]
    Secrets,
    #[error("cancelled")]
    Cancelled,
    #[error("the verifying key cannot be written: {0}")]
    Key(#[from] std::io::Error),
}

#[cfg(test)]
mod tests;
