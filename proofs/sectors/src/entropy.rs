//! Randomness, given from outside.

use rand::rngs::OsRng;
use rand::{CryptoRng, RngCore};

/// Where secret randomness comes from.
pub trait Rng {
    /// Fills `out`.
    fn fill(&mut self, out: &mut [u8]);
}

/// The operating system's randomness.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemRng;

impl Rng for SystemRng {
    fn fill(&mut self, out: &mut [u8]) {
        OsRng.fill_bytes(out);
    }
}

/// The same for the circuit library.
pub(crate) struct Adapter<'a>(pub(crate) &'a mut dyn Rng);

/// `Rng` is for secrets.
impl CryptoRng for Adapter<'_> {}

impl RngCore for Adapter<'_> {
    fn next_u32(&mut self) -> u32 {
        let mut out = [0; 4];
        self.0.fill(&mut out);
        u32::from_le_bytes(out)
    }

    fn next_u64(&mut self) -> u64 {
        let mut out = [0; 8];
        self.0.fill(&mut out);
        u64::from_le_bytes(out)
    }

    fn fill_bytes(&mut self, out: &mut [u8]) {
        self.0.fill(out);
    }

    fn try_fill_bytes(&mut self, out: &mut [u8]) -> Result<(), rand::Error> {
        self.0.fill(out);
        Ok(())
    }
}
