//! From twenty-four words to every key of a drive.
//!
//! ```text
//! words (BIP39, 256 bit) -- BIP39 seed --> RootKey ---> DriveName (its Ed25519 public half)
//!                                             |-------> keyring signature
//!                                             '-- n --> Generation n -> DriveKeys { one key for each purpose }
//! ```
//!
//! Owns the derivations and the signed [`Keyring`]. Promises that every key has one purpose (a BLAKE3 `derive_key`
//! context of its own), that secrets are wiped when dropped and never printed. The root key stays on no machine: a home
//! keeps a generation's secret only, which opens the drive but cannot name another head key.

mod derive;
mod keyring;
mod words;

pub use derive::{
    ConvergenceKey, DedupKey, DriveKeys, Generation, MaskKey, NameTagKey, ProviderAuthKey, SecretKey32,
    TreeDomain, TreeKeys,
};
pub use keyring::{GENERATIONS_MAX, KEYRING_BYTES_MAX, Keyring, KeyringGeneration, RetiredHead};
pub use words::{DriveName, Mnemonic, RootKey, WORD_COUNT, WordsError, ipns_name};

#[cfg(test)]
mod tests;
