//! Parameters, made here: their types, their files, and the mark that they carry everywhere.
//!
//! Groth16 is sound only for parameters whose secrets nobody kept. That takes a ceremony of many, and
//! there has been none for this circuit. So every type that touches parameters is called `Local…`, the
//! files say it in words, their names say `LOCAL`, every verdict says it, and no other kind of file is
//! read. Parameters of a ceremony will be another type, with their hash in this source.
//!
//! ```text
//! 0        version 1 | suite 1 | "HFCP" | origin 1 (made locally) | shape [3] | 22 zeros
//! 32       the mark, in words, 64 bytes
//! 96       the verifying key and the five lists, as bellperson writes them
//! end-32   SHA-256 of all before it; its first half is in the file's name
//! ```

mod file;
mod key;

use std::io;
use std::ops::ControlFlow;

use bellpepper_core::SynthesisError;
use bellperson::groth16::Parameters;
use blstrs::Bls12;
use holdfast_setup::{Secrets, Setup, SetupError};
use rand_core::{CryptoRng, RngCore};
use thiserror::Error;

use crate::circuit::AuditCircuit;
use crate::shape::Shape;

pub use holdfast_setup::Progress;
pub use key::{LocalVerifyingKey, VERIFYING_KEY_LEN};

const VERSION: u8 = 1;
const SUITE: u8 = 1;
/// The only origin that there is.
const ORIGIN_LOCAL: u8 = 1;
/// What every file says to whoever looks into it.
const MARK: [u8; 64] = *b"MADE LOCALLY - ITS MAKER CAN FORGE PROOFS - NO MONEY MAY REST ON";

/// Why there are no parameters.
#[derive(Debug, Error)]
pub enum ParamsError {
    #[error("the circuit cannot be laid out: {0}")]
    Synthesis(#[from] SynthesisError),
    #[error("the random source gave a zero")]
    Secrets,
    #[error("cancelled")]
    Cancelled,
    #[error("the parameters cannot be read or written: {0}")]
    Io(#[from] io::Error),
    #[error("not a file of parameters of this kind")]
    Header,
    #[error("parameters of version {version}, suite {suite}: newer than this program")]
    Newer { version: u8, suite: u8 },
    #[error("the parameters are damaged: their hash is not the one that they carry")]
    Damaged,
    #[error("the file's name is not that of its content: {0}")]
    Name(String),
    #[error("the parameters are of another circuit")]
    OtherCircuit,
}

impl From<SetupError> for ParamsError {
    fn from(error: SetupError) -> Self {
        match error {
            SetupError::Synthesis(error) => Self::Synthesis(error),
            SetupError::Secrets => Self::Secrets,
            SetupError::Cancelled => Self::Cancelled,
            SetupError::Key(error) => Self::Io(error),
        }
    }
}

/// Parameters that this or another machine made alone: whoever made them can forge proofs.
#[derive(Clone)]
pub struct LocalParameters {
    shape: Shape,
    groth: Parameters<Bls12>,
}

impl LocalParameters {
    /// Makes parameters on `threads` threads from randomness that nobody may learn. `progress` is
    /// asked between portions of a tenth of a second and may break off.
    ///
    /// # Errors
    /// `Cancelled`; others only where the random source is broken.
    pub fn generate<R: RngCore + CryptoRng>(
        shape: Shape,
        rng: &mut R,
        threads: usize,
        mut progress: impl FnMut(Progress) -> ControlFlow<()>,
    ) -> Result<Self, ParamsError> {
        let setup = Setup::new(|| AuditCircuit::blank(shape), &Secrets::new(rng), threads)?;
        Ok(Self { shape, groth: setup.parameters(&mut progress)? })
    }

    #[must_use]
    pub fn shape(&self) -> Shape {
        self.shape
    }

    /// What verifies the proofs that these make.
    #[must_use]
    pub fn verifying_key(&self) -> LocalVerifyingKey {
        LocalVerifyingKey::new(self.shape, self.groth.vk.clone())
    }

    pub(crate) fn groth(&self) -> &Parameters<Bls12> {
        &self.groth
    }
}

#[cfg(test)]
mod tests;
