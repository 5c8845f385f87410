//! Groth16 parameters: where they lie, whose they are, and whether they are what they claim.
//!
//! ```text
//! v28-<circuit id>.params        proving key, Filecoin's file name and layout
//! v28-<circuit id>.vk            verifying key
//! v28-<circuit id>.local.json    stamp of a pair that was made on this machine
//! ```
//!
//! Promises: nothing is loaded before its hash was compared, in full, with Filecoin's published manifest or
//! with the stamp of its making; a production profile takes published files only and says which of missing,
//! wrong or locally made it met. Whoever makes parameters can forge proofs under them: a local pair is of test
//! strength whatever the circuit, and its stamp says so.
//! Refuses: to fetch anything, to make parameters for production, to load a file of unknown origin.

mod circuit;
mod draft;
mod generate;
mod key;
mod report;
mod stamp;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use bellperson::groth16;
use blake2b_simd::Params as Blake2b;
use blstrs::Bls12;
use serde::{Deserialize, Serialize};
use storage_proofs_core::parameter_cache::{Bls12GrothParams, PARAMETERS, parameter_id, verifying_key_id};
use thiserror::Error;

use crate::durable;
use crate::profile::Profile;

pub use circuit::Circuit;
pub(crate) use draft::decode_any as decode_any_making;
#[cfg(test)]
pub(crate) use draft::sample as sample_making;
pub use generate::{GenerateProgress, GenerateStage};
pub use key::{KEY_BYTES_MAX, Key, KeyError, KeyTrust};
pub use report::{FileReport, FileState, ParamsReport};
pub use stamp::Stamp;
pub(crate) use stamp::decode_any as decode_any_stamp;
#[cfg(test)]
pub(crate) use stamp::sample as sample_stamp;

/// Hexadecimal digits of a manifest digest: BLAKE2b-512 cut to 128 bits, as Filecoin publishes it.
const MANIFEST_DIGITS: usize = 32;

/// Who made a pair of parameters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Origin {
    /// Filecoin's ceremony: the hash is in the published manifest.
    Published,
    /// This machine: whoever ran it could forge. Test strength.
    Local,
}

/// Why parameters cannot be used.
#[derive(Debug, Error)]
pub enum ParamsError {
    #[error("{} is missing (published digest {expected})", file.display())]
    Missing { file: PathBuf, expected: String },
    #[error("{} is missing; for test profiles it can be made on this machine", file.display())]
    NotGenerated { file: PathBuf },
    #[error("{} has digest {found}, the published one is {expected}", file.display())]
    WrongHash { file: PathBuf, expected: String, found: String },
    #[error("{} was made on this machine: no production proof may rest on it", file.display())]
    LocallyMade { file: PathBuf },
    #[error("{} is neither published by Filecoin nor stamped as made on this machine", file.display())]
    UnknownOrigin { file: PathBuf },
    #[error("{} is damaged: it is not what its stamp says was made", file.display())]
    Damaged { file: PathBuf },
    #[error("{} cannot be read as a stamp: {reason}", file.display())]
    Stamp { file: PathBuf, reason: String },
    #[error("parameters for {0} are never made locally: they must be Filecoin's published ones")]
    NeverLocal(Profile),
    #[error("another process is making parameters in {}", dir.display())]
    Busy { dir: PathBuf },
    #[error("{}: {source}", file.display())]
    Io { file: PathBuf, source: io::Error },
    #[error(transparent)]
    Key(#[from] KeyError),
    #[error("the circuit library failed: {0}")]
    Library(String),
}

impl ParamsError {
    /// Whether trying again without somebody's help is useless.
    #[must_use]
    pub fn is_permanent(&self) -> bool {
        !matches!(self, Self::Busy { .. } | Self::Io { .. })
    }

    fn io(file: &Path) -> impl FnOnce(io::Error) -> Self {
        let file = file.to_owned();
        move |source| Self::Io { file, source }
    }
}

/// A pair whose files were hashed and found right.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checked {
    profile: Profile,
    circuit: Circuit,
    params: PathBuf,
    key: PathBuf,
    origin: Origin,
}

impl Checked {
    #[must_use]
    pub fn origin(&self) -> Origin {
        self.origin
    }

    /// Maps the proving key. Its bytes were hashed, so that their layout is what was written.
    ///
    /// # Errors
    /// `Io`, or what `Key` finds wrong with the verifying key.
    pub(crate) fn load(&self) -> Result<Loaded, ParamsError> {
        let params = groth16::Parameters::<Bls12>::build_mapped_parameters(self.params.clone(), false)
            .map_err(ParamsError::io(&self.params))?;
        let bytes = fs::read(&self.key).map_err(ParamsError::io(&self.key))?;
        let key = Key::parse(self.profile, self.circuit, bytes)?;
        Ok(Loaded { params, key })
    }
}

/// A pair in memory, ready to prove.
pub(crate) struct Loaded {
    pub(crate) params: Bls12GrothParams,
    pub(crate) key: Key,
}

/// A folder of parameters.
#[derive(Debug, Clone)]
pub struct ParameterStore {
    dir: PathBuf,
}

impl ParameterStore {
    /// The folder need not exist yet.
    #[must_use]
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self { dir: dir.into() }
    }

    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    #[must_use]
    pub fn params_path(&self, profile: Profile, circuit: Circuit) -> PathBuf {
        self.dir.join(parameter_id(&circuit.id(profile)))
    }

    #[must_use]
    pub fn key_path(&self, profile: Profile, circuit: Circuit) -> PathBuf {
        self.dir.join(verifying_key_id(&circuit.id(profile)))
    }

    #[must_use]
    pub fn stamp_path(&self, profile: Profile, circuit: Circuit) -> PathBuf {
        self.params_path(profile, circuit).with_extension("local.json")
    }

    /// Hashes a pair in full and says whose it is.
    ///
    /// # Errors
    /// Production: `Missing`, `WrongHash`, `LocallyMade`. Test: `NotGenerated`, `UnknownOrigin`, `Damaged`,
    /// `Stamp`. Both: `Io`.
    pub fn check(&self, profile: Profile, circuit: Circuit) -> Result<Checked, ParamsError> {
        let (params, key) = (self.params_path(profile, circuit), self.key_path(profile, circuit));
        let stamp = self.stamp_path(profile, circuit);
        let origin = if profile.is_production() {
            // Before 50 GiB are hashed: a stamp beside the file already settles it.
            if stamp.exists() {
                return Err(ParamsError::LocallyMade { file: params });
            }
            self.published(&params)?;
            self.published(&key)?;
            Origin::Published
        } else if stamp.exists() {
            Stamp::read(&stamp)?.compare(&params, &key)?;
            Origin::Local
        } else {
            for file in [&params, &key] {
                match self.published(file) {
                    Ok(()) => {}
                    Err(ParamsError::Missing { file, .. }) => return Err(ParamsError::NotGenerated { file }),
                    Err(ParamsError::WrongHash { file, .. }) => {
                        return Err(ParamsError::UnknownOrigin { file });
                    }
                    Err(other) => return Err(other),
                }
            }
            Origin::Published
        };
        Ok(Checked { profile, circuit, params, key, origin })
    }

    /// Whether a stamp here says that this key was made here.
    pub(crate) fn stamps_key(&self, profile: Profile, circuit: Circuit, sha256: &[u8; 32]) -> bool {
        Stamp::read(&self.stamp_path(profile, circuit))
            .is_ok_and(|stamp| stamp.key_sha256 == durable::hex(sha256))
    }

    /// Compares a file with the manifest that Filecoin's own crate carries.
    fn published(&self, file: &Path) -> Result<(), ParamsError> {
        let name = file.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let expected = published_digest(name)
            .ok_or_else(|| ParamsError::UnknownOrigin { file: file.to_owned() })?
            .to_owned();
        if !file.exists() {
            return Err(ParamsError::Missing { file: file.to_owned(), expected });
        }
        let found = manifest_digest_file(file).map_err(ParamsError::io(file))?;
        if found == expected {
            Ok(())
        } else {
            Err(ParamsError::WrongHash { file: file.to_owned(), expected, found })
        }
    }
}

/// What the manifest says of a file name.
fn published_digest(name: &str) -> Option<&'static str> {
    PARAMETERS.get(name).map(|entry| entry.digest.as_str())
}

fn manifest_digest_file(file: &Path) -> io::Result<String> {
    let mut state = Blake2b::new().to_state();
    durable::digest_file(file, |bytes| {
        state.update(bytes);
    })?;
    Ok(cut(&state.finalize()))
}

/// The manifest's digest of bytes in memory.
fn manifest_digest(bytes: &[u8]) -> String {
    cut(&Blake2b::new().hash(bytes))
}

fn cut(hash: &blake2b_simd::Hash) -> String {
    hash.to_hex().chars().take(MANIFEST_DIGITS).collect()
}

#[cfg(test)]
mod tests;
