//! What is said of parameters: each file, its origin and its state, as text and as JSON.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{Circuit, Origin, ParameterStore, ParamsError};
use crate::profile::Profile;

/// State of one pair.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "kebab-case")]
pub enum FileState {
    /// Hashed and right.
    Ready {
        origin: Origin,
    },
    Missing {
        detail: String,
    },
    /// There, and not to be used.
    Refused {
        detail: String,
    },
}

/// One circuit's line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileReport {
    pub circuit: Circuit,
    pub file: String,
    #[serde(flatten)]
    pub state: FileState,
}

/// The parameters of a profile.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ParamsReport {
    pub profile: Profile,
    pub strength: String,
    pub folder: String,
    pub files: Vec<FileReport>,
}

impl ParamsReport {
    /// Whether every circuit can be proven.
    #[must_use]
    pub fn ready(&self) -> bool {
        self.files.iter().all(|file| matches!(file.state, FileState::Ready { .. }))
    }
}

impl ParameterStore {
    /// Hashes all that is there for a profile.
    #[must_use]
    pub fn report(&self, profile: Profile) -> ParamsReport {
        self.report_of(profile, &Circuit::ALL)
    }

    /// Hashes what is there for some circuits of a profile.
    #[must_use]
    pub fn report_of(&self, profile: Profile, circuits: &[Circuit]) -> ParamsReport {
        let files = circuits
            .iter()
            .map(|&circuit| {
                let state = match self.check(profile, circuit) {
                    Ok(checked) => FileState::Ready { origin: checked.origin() },
                    Err(error @ (ParamsError::Missing { .. } | ParamsError::NotGenerated { .. })) => {
                        FileState::Missing { detail: error.to_string() }
                    }
                    Err(error) => FileState::Refused { detail: error.to_string() },
                };
                let path = self.params_path(profile, circuit);
                let file = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
                FileReport { circuit, file, state }
            })
            .collect();
        ParamsReport {
            profile,
            strength: profile.strength().to_owned(),
            folder: self.dir().display().to_string(),
            files,
        }
    }
}

impl fmt::Display for ParamsReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "parameters for {} in {}", self.profile, self.folder)?;
        for file in &self.files {
            write!(f, "  {:<13}", file.circuit.name())?;
            match &file.state {
                FileState::Ready { origin: Origin::Published } => {
                    writeln!(f, "ready, published by Filecoin, hash verified")?;
                }
                FileState::Ready { origin: Origin::Local } => {
                    writeln!(f, "ready, made on this machine (test strength)")?;
                }
                FileState::Missing { detail } | FileState::Refused { detail } => writeln!(f, "{detail}")?,
            }
        }
        write!(f, "{}", if self.ready() { "all there" } else { "not usable as it is" })
    }
}
