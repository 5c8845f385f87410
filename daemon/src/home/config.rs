//! `home/config`: JSON that a person may read, without any secret. The daemon is its only writer.

use std::path::{Path, PathBuf};

use holdfast_fs::drive::DriveOptions;
use holdfast_net::stripe::STRIPE_DATA_MAX;
use serde::{Deserialize, Serialize};

use super::{
    HomeError, ProviderAddr,
    files::{read_limited, write_atomically},
};

/// The format of the home folder that this version writes: 2 since marks of changes stand under cuts (fs/format/namespace.md).
pub const CONFIG_VERSION: u64 = 2;
const CONFIG_BYTES_MAX: u64 = 4 << 20;
/// More copies than this are never wanted.
pub const SURVIVE_LOSSES_MAX: u8 = holdfast_content::class::SURVIVE_MAX;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    pub version: u64,
    /// The drive's name (root public key), as `holdfast status` shows it.
    pub drive: String,
    /// Where the drive was mounted last: `holdfast mount` without a folder mounts it there again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mountpoint: Option<PathBuf>,
    #[serde(default)]
    pub providers: Vec<ProviderAddr>,
    #[serde(default)]
    pub policy: Policy,
    #[serde(default)]
    pub limits: Limits,
    /// Addresses that the client side listens at; none by default, since it only dials.
    #[serde(default)]
    pub listen: Vec<String>,
    /// How providers are found that are not where they were.
    #[serde(default)]
    pub discovery: Discovery,
    /// Set by `holdfast restore` until the store holds the restored commit: an interrupted restore goes on with the
    /// next mount.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub restore_pending: bool,
    /// That restore may take the newest state that a minority of the providers shows.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub restore_minority: bool,
}

/// Where somebody is asked who knows where others are. The drive's own providers are asked in any case.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Discovery {
    /// Further peers of the DHT.
    pub bootstrap: Vec<ProviderAddr>,
    /// Whether the local network is asked (mDNS).
    pub mdns: bool,
}

impl Default for Discovery {
    fn default() -> Discovery {
        Discovery { bootstrap: Vec::new(), mdns: true }
    }
}

/// What the owner wants.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Policy {
    /// Survive the loss of any this many providers.
    pub survive_losses: u8,
    /// Data slots of a stripe, at most; with 0 or 1 everything is kept as copies.
    pub stripe_data_max: u16,
    /// Which commits stay as snapshots.
    pub retention: Retention,
}

impl Default for Policy {
    fn default() -> Policy {
        Policy { survive_losses: 2, stripe_data_max: 8, retention: Retention::default() }
    }
}

/// Which commits stay; what only the others reached is given up, here and with the providers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Retention {
    /// All commits of the last so many hours.
    pub all_hours: u64,
    /// The newest commit of each of so many hours, days and weeks.
    pub hourly: u64,
    pub daily: u64,
    pub weekly: u64,
    /// How long what nothing reaches is still kept with the providers.
    pub grace_hours: u64,
}

impl Default for Retention {
    fn default() -> Retention {
        Retention { all_hours: 24, hourly: 48, daily: 30, weekly: 52, grace_hours: 24 }
    }
}

impl Policy {
    pub fn copies_wanted(&self) -> u8 {
        self.survive_losses.saturating_add(1)
    }
}

/// Bounds on what the daemon uses of this machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Local pieces beyond this are evicted when they are Proven. 0 means: no limit but the disk's.
    pub local_pieces_bytes_max: u64,
    /// What the home folder may hold: log, index and local pieces. 0 means: what the disk has.
    pub quota_bytes: u64,
    /// Left free on the disk whatever happens.
    pub disk_free_bytes_min: u64,
    /// Resident memory that a mounted drive's process keeps within.
    pub memory_bytes: u64,
    /// Idle data is sealed after this long.
    pub seal_after_idle_seconds: u64,
    /// Data that never becomes idle is sealed after this long.
    pub seal_after_seconds_max: u64,
    /// Every holder of every piece is asked for a proof at least this often.
    pub audit_interval_seconds: u64,
    /// A provider that is silent for longer, while others answer, is given up and its copies are placed with others.
    pub provider_silent_seconds_max: u64,
    /// Pieces older than this go into stripes.
    pub stripe_after_seconds: u64,
    /// Copies that a stripe makes surplus (or the other way round) are given up after this long.
    pub surplus_grace_seconds: u64,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            local_pieces_bytes_max: 0,
            quota_bytes: 0,
            disk_free_bytes_min: 1 << 30,
            memory_bytes: DriveOptions::MEMORY_BYTES_DEFAULT,
            seal_after_idle_seconds: 15,
            seal_after_seconds_max: 120,
            audit_interval_seconds: 600,
            provider_silent_seconds_max: 180,
            stripe_after_seconds: 900,
            surplus_grace_seconds: 3600,
        }
    }
}

impl Config {
    pub fn new(drive: String) -> Config {
        Config {
            version: CONFIG_VERSION,
            drive,
            mountpoint: None,
            providers: Vec::new(),
            policy: Policy::default(),
            limits: Limits::default(),
            listen: Vec::new(),
            discovery: Discovery::default(),
            restore_pending: false,
            restore_minority: false,
        }
    }

    pub fn read(path: &Path) -> Result<Config, HomeError> {
        Config::parse(&read_limited(path, CONFIG_BYTES_MAX)?, path)
    }

    /// From a file's bytes; `path` is for messages.
    pub fn parse(bytes: &[u8], path: &Path) -> Result<Config, HomeError> {
        #[derive(Deserialize)]
        struct VersionOnly {
            version: u64,
        }
        let damaged =
            |e: serde_json::Error| HomeError::Damaged { path: path.to_owned(), reason: e.to_string() };
        let VersionOnly { version } = serde_json::from_slice(bytes).map_err(damaged)?;
        if version > CONFIG_VERSION {
            return Err(HomeError::NewerFormat {
                path: path.to_owned(),
                found: version,
                known: CONFIG_VERSION,
            });
        }
        let config: Config = serde_json::from_slice(bytes).map_err(damaged)?;
        if config.policy.survive_losses > SURVIVE_LOSSES_MAX {
            let reason = format!("survive_losses is above {SURVIVE_LOSSES_MAX}");
            return Err(HomeError::Damaged { path: path.to_owned(), reason });
        }
        if config.policy.stripe_data_max > STRIPE_DATA_MAX {
            let reason = format!("stripe_data_max is above {STRIPE_DATA_MAX}");
            return Err(HomeError::Damaged { path: path.to_owned(), reason });
        }
        let quota = config.limits.quota_bytes;
        if quota > 0 && quota < DriveOptions::QUOTA_BYTES_MIN {
            let reason = format!("quota_bytes is below {}", DriveOptions::QUOTA_BYTES_MIN);
            return Err(HomeError::Damaged { path: path.to_owned(), reason });
        }
        if config.limits.memory_bytes < DriveOptions::MEMORY_BYTES_MIN {
            let reason = format!("memory_bytes is below {}", DriveOptions::MEMORY_BYTES_MIN);
            return Err(HomeError::Damaged { path: path.to_owned(), reason });
        }
        Ok(config)
    }

    pub fn write(&self, path: &Path) -> Result<(), HomeError> {
        let mut bytes = serde_json::to_vec_pretty(self)
            .map_err(|e| HomeError::Damaged { path: path.to_owned(), reason: e.to_string() })?;
        bytes.push(b'\n');
        write_atomically(path, &bytes)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn round_trip_defaults_and_newer_versions() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config");
        let mut config = Config::new("drive".into());
        config.restore_pending = true;
        config.write(&path).unwrap();
        assert_eq!(Config::read(&path).unwrap(), config);
        std::fs::write(&path, r#"{"version":1,"drive":"d"}"#).unwrap();
        assert_eq!(Config::read(&path).unwrap(), Config { version: 1, ..Config::new("d".into()) });
        std::fs::write(&path, r#"{"version":2,"drive":"d","limits":{"memory_bytes":1000}}"#).unwrap();
        assert!(matches!(Config::read(&path), Err(HomeError::Damaged { .. })));
        std::fs::write(&path, r#"{"version":9,"drive":"d","else":1}"#).unwrap();
        assert!(matches!(Config::read(&path), Err(HomeError::NewerFormat { found: 9, .. })));
        std::fs::write(&path, r#"{"version":1,"drive":"d","limits":{"quota_bytes":1000}}"#).unwrap();
        assert!(matches!(Config::read(&path), Err(HomeError::Damaged { .. })));
        std::fs::write(&path, r#"{"version":1,"drive":"d","else":1}"#).unwrap();
        assert!(matches!(Config::read(&path), Err(HomeError::Damaged { .. })));
    }
}
