//! Several providers on this machine, each a real `holdfast provide` process with an identity and a folder of its own.
//!
//! ```text
//!   DIR/provider-1/ ... provider-N/     provider folders, as `holdfast provide` makes them
//!       provider.pid                    which process serves it, written by that process
//!       address                         where it listens, JSON of ProviderAddr
//!       provider.log
//! ```
//!
//! Promises: starting twice starts nothing twice; a provider keeps its identity and port over restarts; stopping ends
//! exactly these processes. Refuses: to touch what it did not begin.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use serde::{Deserialize, Serialize};

use crate::{
    home::{HomeError, ProviderAddr},
    process::{ProcessHandle, ProcessRecord},
};

pub const PID_FILE: &str = "provider.pid";
pub const ADDRESS_FILE: &str = "address";
pub const LOG_FILE: &str = "provider.log";
const FOLDER_PREFIX: &str = "provider-";
/// A provider ends within this time after SIGTERM, or it is killed (which loses nothing that it has signed for).
const STOP_SECONDS_MAX: u64 = 15;

/// One provider of the network, for `--json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LocalProvider {
    pub number: u16,
    pub dir: PathBuf,
    pub running: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pid: Option<u32>,
    /// Known once it has listened for the first time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<ProviderAddr>,
}

/// The folder of the provider of this number.
pub fn provider_dir(dir: &Path, number: u16) -> PathBuf {
    dir.join(format!("{FOLDER_PREFIX}{number}"))
}

/// The process that serves the folder, if one does.
pub fn process(provider: &Path) -> Option<ProcessHandle> {
    ProcessRecord::read(&provider.join(PID_FILE))?.find()
}

/// Where the provider of this folder listens, or listened last.
pub fn address(provider: &Path) -> Option<ProviderAddr> {
    serde_json::from_slice(&fs::read(provider.join(ADDRESS_FILE)).ok()?).ok()
}

/// The state of one provider.
pub fn provider(dir: &Path, number: u16) -> LocalProvider {
    let path = provider_dir(dir, number);
    let running = process(&path).is_some();
    let pid = ProcessRecord::read(&path.join(PID_FILE)).filter(|_| running).map(|record| record.pid);
    LocalProvider { number, running, pid, address: address(&path), dir: path }
}

/// All providers that have a folder, by number.
pub fn list(dir: &Path) -> Result<Vec<LocalProvider>, HomeError> {
    let failed = |error| HomeError::io("read", dir, error);
    let mut numbers = Vec::new();
    match fs::read_dir(dir) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(failed(error)),
        Ok(entries) => {
            for entry in entries {
                let name = entry.map_err(failed)?.file_name();
                let number = name.to_str().and_then(|n| n.strip_prefix(FOLDER_PREFIX)?.parse::<u16>().ok());
                numbers.extend(number);
            }
        }
    }
    numbers.sort_unstable();
    Ok(numbers.into_iter().map(|number| provider(dir, number)).collect())
}

/// The addresses of all providers that have ever listened.
pub fn addresses(dir: &Path) -> Result<Vec<ProviderAddr>, HomeError> {
    Ok(list(dir)?.into_iter().filter_map(|provider| provider.address).collect())
}

/// Ends the providers, all at once; returns the numbers of those that ran.
pub fn stop(dir: &Path, only: Option<u16>) -> Result<Vec<u16>, HomeError> {
    let mut running = Vec::new();
    for known in list(dir)?.into_iter().filter(|p| only.is_none_or(|n| n == p.number)) {
        if let Some(handle) = process(&known.dir) {
            running.push((known, handle));
        }
    }
    // First all are asked, so that they end side by side.
    let failed = |known: &LocalProvider, error| HomeError::io("stop the provider in", &known.dir, error);
    for (known, handle) in &running {
        handle.signal(nix::sys::signal::Signal::SIGTERM).map_err(|e| failed(known, e))?;
    }
    for (known, handle) in &running {
        handle.end(Duration::from_secs(STOP_SECONDS_MAX)).map_err(|e| failed(known, e))?;
    }
    Ok(running.into_iter().map(|(known, _)| known.number).collect())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn folders_are_listed_by_number_and_strangers_ignored() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["provider-10", "provider-2", "provider-x", "else"] {
            fs::create_dir(dir.path().join(name)).unwrap();
        }
        let peer = "/ip4/127.0.0.1/tcp/4001/p2p/12D3KooWEyoppNCUx8Yx66oV9fJnriXwCcXwDDUA2kj6vnc6iDEp";
        let addr: ProviderAddr = peer.parse().unwrap();
        fs::write(dir.path().join("provider-2/address"), serde_json::to_vec(&addr).unwrap()).unwrap();
        let known = list(dir.path()).unwrap();
        assert_eq!(known.iter().map(|p| p.number).collect::<Vec<_>>(), [2, 10]);
        assert!(known.iter().all(|p| !p.running && p.pid.is_none()));
        assert_eq!(addresses(dir.path()).unwrap(), [addr]);
        assert!(stop(dir.path(), None).unwrap().is_empty());
        assert!(list(&dir.path().join("absent")).unwrap().is_empty());
    }
}
