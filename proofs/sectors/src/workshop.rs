//! The folders and the environment that the circuit library needs in its process.
//!
//! ```text
//! workshop/parameters/   see `params`; may be elsewhere
//! workshop/parents/      the library's table of graph parents, checked against its digest at each use
//! workshop/run/          the working folder of workers; empty, so that no settings file of others is read
//! ```
//!
//! The library reads its settings once for a process, from the environment and from the working folder.
//! Setting them is therefore the work of whoever starts the process: `environment` says what they are and
//! `enter` refuses to work in a process that has others.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use storage_proofs_core::settings::SETTINGS;
use thiserror::Error;

use crate::durable;
use crate::params::ParameterStore;

const PARENTS: &str = "parents";
const PARAMETERS: &str = "parameters";
const RUN: &str = "run";

/// Why work cannot begin in this process.
#[derive(Debug, Error)]
pub enum WorkshopError {
    #[error("this process was not started for the workshop {}: sealing runs in a worker", dir.display())]
    NotPrepared { dir: PathBuf },
    #[error("{}: {source}", path.display())]
    Io { path: PathBuf, source: io::Error },
}

/// A folder tree that sealing works in.
#[derive(Debug, Clone)]
pub struct Workshop {
    dir: PathBuf,
    parameters: PathBuf,
}

impl Workshop {
    /// Makes the folders. The path becomes absolute, since workers run elsewhere.
    ///
    /// # Errors
    /// `Io`.
    pub fn create(dir: &Path) -> Result<Self, WorkshopError> {
        let io = |source| WorkshopError::Io { path: dir.to_owned(), source };
        for name in [PARENTS, PARAMETERS, RUN] {
            fs::create_dir_all(dir.join(name)).map_err(io)?;
        }
        durable::sync_dir(dir).map_err(io)?;
        let dir = dir.canonicalize().map_err(io)?;
        Ok(Self { parameters: dir.join(PARAMETERS), dir })
    }

    /// The same with parameters elsewhere, in a folder that several workshops share.
    #[must_use]
    pub fn with_parameters(self, parameters: PathBuf) -> Self {
        Self { parameters, ..self }
    }

    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    #[must_use]
    pub fn parameters(&self) -> ParameterStore {
        ParameterStore::new(&self.parameters)
    }

    /// Bytes of the tables of graph parents that are there already.
    pub(crate) fn parents_bytes(&self) -> u64 {
        let Ok(entries) = fs::read_dir(self.dir.join(PARENTS)) else { return 0 };
        entries.filter_map(|entry| entry.ok()?.metadata().ok()).map(|meta| meta.len()).sum()
    }

    /// The folder that workers run in.
    #[must_use]
    pub fn run_dir(&self) -> PathBuf {
        self.dir.join(RUN)
    }

    /// What a process must have in its environment before it starts to work here.
    #[must_use]
    pub fn environment(&self) -> Vec<(&'static str, PathBuf)> {
        vec![
            ("FIL_PROOFS_PARENT_CACHE", self.dir.join(PARENTS)),
            ("FIL_PROOFS_PARAMETER_CACHE", self.parameters.clone()),
            ("FIL_PROOFS_VERIFY_CACHE", PathBuf::from("true")),
        ]
    }

    /// Confirms that this process works with this workshop's folders.
    ///
    /// # Errors
    /// `NotPrepared`.
    pub(crate) fn enter(&self) -> Result<(), WorkshopError> {
        let ours = Path::new(&SETTINGS.parent_cache) == self.dir.join(PARENTS) && SETTINGS.verify_cache;
        if ours { Ok(()) } else { Err(WorkshopError::NotPrepared { dir: self.dir.clone() }) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_that_was_not_prepared_does_no_work() {
        let dir = tempfile::tempdir().unwrap();
        let workshop = Workshop::create(dir.path()).unwrap();
        assert!(matches!(workshop.enter(), Err(WorkshopError::NotPrepared { .. })));
        assert!(workshop.run_dir().is_dir());
        assert!(workshop.environment().iter().all(|(name, _)| name.starts_with("FIL_PROOFS_")));
    }
}
