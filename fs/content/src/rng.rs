//! The crate's only door to randomness. Everything that needs random bytes takes an [`Rng`].

/// A source of cryptographically strong random bytes.
pub trait Rng: Send + Sync {
    /// Fills the buffer. Failure of the system's source is fatal to whoever asked: no key is ever made without it.
    fn fill(&self, buffer: &mut [u8]) -> Result<(), RngError>;
}

/// The operating system gave no randomness.
#[derive(Debug, thiserror::Error)]
#[error("no randomness from the system: {0}")]
pub struct RngError(pub String);

/// The operating system's generator.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemRng;

impl Rng for SystemRng {
    // The one place that may ask the system: everything else takes an `Rng`.
    #[allow(clippy::disallowed_methods)]
    fn fill(&self, buffer: &mut [u8]) -> Result<(), RngError> {
        getrandom::fill(buffer).map_err(|error| RngError(error.to_string()))
    }
}

/// An array of random bytes.
pub fn random<const N: usize>(rng: &dyn Rng) -> Result<[u8; N], RngError> {
    let mut bytes = [0; N];
    rng.fill(&mut bytes)?;
    Ok(bytes)
}

/// A generator for tests: the keyed BLAKE3 stream of a seed, so that every run sees the same bytes.
#[derive(Debug)]
pub struct SeededRng(parking_lot::Mutex<blake3::OutputReader>);

impl SeededRng {
    /// The stream of `seed`.
    pub fn new(seed: u64) -> Self {
        let mut hasher = blake3::Hasher::new_derive_key("holdfast 2026 seeded generator for tests");
        hasher.update(&seed.to_le_bytes());
        Self(parking_lot::Mutex::new(hasher.finalize_xof()))
    }
}

impl Rng for SeededRng {
    fn fill(&self, buffer: &mut [u8]) -> Result<(), RngError> {
        self.0.lock().fill(buffer);
        Ok(())
    }
}
