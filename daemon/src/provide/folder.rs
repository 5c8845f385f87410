//! A provider's folder: its configuration, and the lock that makes it one process's.
//!
//! Promises: what was given is remembered once the provider runs with it, so that what is refused (a profile that cannot be
//! sealed, a port in use) does not refuse the next start as well; a folder that holds something else, or is of a newer format,
//! is refused and left as it is. Also tells a provider's folder from a drive's home.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use holdfast_net::{
    Multiaddr, PeerAddrs,
    node::{DhtRole, Discovery},
    provider::ProviderConfig,
    tags::Tags,
};
use serde::{Deserialize, Serialize};

use super::{ProvideError, known_peers, listen, lists::Lists};
use crate::{
    home::{HomeError, LockGuard, ProviderAddr, create_private_dir, read_limited, write_atomically},
    local_network::LOG_FILE,
    sealing::SealConfig,
};

pub(super) const IDENTITY_FILE: &str = "identity";
const CONFIG_FILE: &str = "config";
const SOCKET_FILE: &str = "control.sock";
/// Not `lock`: that is the net room's, for the slots.
const LOCK_FILE: &str = "provider.lock";
/// What a drive's home has and a provider's folder never.
const KEYFILE: &str = "keyfile";
const CONFIG_VERSION: u64 = 1;
const CONFIG_BYTES_MAX: u64 = 1 << 20;
const CAPACITY_DEFAULT: u64 = 100 << 30;
const DAY_SECONDS: u64 = 86_400;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct FolderConfig {
    version: u64,
    capacity_bytes: u64,
    /// What one drive may store; without it, as much as there is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    client_bytes_max: Option<u64>,
    listen: Vec<String>,
    /// Peers of the DHT to begin with.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    bootstrap: Vec<ProviderAddr>,
    /// Not on the local network.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    no_mdns: bool,
    /// Neither a port of the router's nor relays are asked for, and none is given.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    no_nat: bool,
    /// Files that say whose deals are taken, and who is not let in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    allow: Option<PathBuf>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    block: Option<PathBuf>,
    /// Where it belongs, for its clients.
    #[serde(default, skip_serializing_if = "Tags::is_empty")]
    tags: Tags,
    /// How its pieces are sealed; without it, they are not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    seal: Option<SealConfig>,
    /// Where its metrics are offered; without it, nowhere.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    metrics: Option<SocketAddr>,
    /// Disk for the trees of slots, in thousandths of the slots; without it, as the net room has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    tree_permille: Option<u16>,
    /// All slots are read whole once in so many days, with 0 never; without it, as the net room has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    scrub_days: Option<u16>,
    /// Where it gives public blocks by HTTP; without it, it does not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    gateway: Option<SocketAddr>,
    /// It takes no public data.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    private_only: bool,
}

impl FolderConfig {
    fn new() -> FolderConfig {
        FolderConfig {
            version: CONFIG_VERSION,
            capacity_bytes: CAPACITY_DEFAULT,
            client_bytes_max: None,
            listen: listen::LISTEN_DEFAULT.map(str::to_owned).to_vec(),
            bootstrap: Vec::new(),
            no_mdns: false,
            no_nat: false,
            allow: None,
            block: None,
            tags: Tags::default(),
            seal: None,
            metrics: None,
            tree_permille: None,
            scrub_days: None,
            gateway: None,
            private_only: false,
        }
    }

    fn with(mut self, wishes: Wishes) -> FolderConfig {
        if !wishes.tags.is_empty() {
            self.tags = wishes.tags;
        }
        if !wishes.listen.is_empty() {
            self.listen = wishes.listen;
        }
        if !wishes.bootstrap.is_empty() {
            self.bootstrap.clear();
            ProviderAddr::merge(&mut self.bootstrap, wishes.bootstrap);
        }
        self.no_mdns = wishes.mdns.map_or(self.no_mdns, |on| !on);
        self.no_nat = wishes.nat.map_or(self.no_nat, |on| !on);
        wishes.allow.apply(&mut self.allow);
        wishes.block.apply(&mut self.block);
        self.capacity_bytes = wishes.capacity.unwrap_or(self.capacity_bytes);
        self.client_bytes_max = wishes.client_quota.or(self.client_bytes_max);
        self.tree_permille = wishes.tree_permille.or(self.tree_permille);
        self.scrub_days = wishes.scrub_days.or(self.scrub_days);
        wishes.seal.apply(&mut self.seal);
        wishes.metrics.apply(&mut self.metrics);
        wishes.gateway.apply(&mut self.gateway);
        self.private_only = wishes.public.map_or(self.private_only, |public| !public);
        self
    }
}

/// What is to become of something that the folder remembers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Change<T> {
    #[default]
    Keep,
    Off,
    On(T),
}

impl<T> Change<T> {
    fn apply(self, to: &mut Option<T>) {
        match self {
            Change::Keep => {}
            Change::Off => *to = None,
            Change::On(value) => *to = Some(value),
        }
    }
}

/// What is asked for this time; what is not given stays as it was.
#[derive(Debug, Clone, Default)]
pub struct Wishes {
    pub capacity: Option<u64>,
    /// What one drive may store.
    pub client_quota: Option<u64>,
    pub listen: Vec<String>,
    /// Peers of the DHT to begin with.
    pub bootstrap: Vec<ProviderAddr>,
    /// Whether it calls and answers on the local network.
    pub mdns: Option<bool>,
    /// Whether it finds its way out from behind a NAT, and helps others to.
    pub nat: Option<bool>,
    /// Files of peers and networks.
    pub allow: Change<PathBuf>,
    pub block: Change<PathBuf>,
    pub tags: Tags,
    pub seal: Change<SealConfig>,
    pub metrics: Change<SocketAddr>,
    pub tree_permille: Option<u16>,
    pub scrub_days: Option<u16>,
    pub gateway: Change<SocketAddr>,
    /// Whether it takes public data.
    pub public: Option<bool>,
}

/// Whether a folder is a provider's, and no drive's.
pub fn is_provider(dir: &Path) -> bool {
    dir.join(LOCK_FILE).exists() && dir.join(CONFIG_FILE).exists() && !dir.join(KEYFILE).exists()
}

/// Where a running provider is asked.
pub fn socket_path(dir: &Path) -> PathBuf {
    dir.join(SOCKET_FILE)
}

/// What the provider of a folder would take.
pub fn capacity_of(dir: &Path) -> Result<u64, HomeError> {
    let path = dir.join(CONFIG_FILE);
    Ok(parse_config(&read_limited(&path, CONFIG_BYTES_MAX)?, &path)?.capacity_bytes)
}

/// A provider's folder, taken by this process.
pub struct Folder {
    pub(super) dir: PathBuf,
    config: FolderConfig,
    /// What the file says.
    on_disk: FolderConfig,
    pub(super) listen: Vec<Multiaddr>,
    _lock: LockGuard,
}

impl Folder {
    /// Opens or makes the folder.
    pub fn open(dir: &Path, wishes: Wishes) -> Result<Folder, ProvideError> {
        create_private_dir(dir)?;
        let dir = dir.canonicalize().map_err(|error| HomeError::io("open", dir, error))?;
        let path = dir.join(CONFIG_FILE);
        let known = read_config(&dir, &path)?;
        let lock = LockGuard::take(&dir.join(LOCK_FILE)).map_err(|error| match error {
            HomeError::InUse { path, pid } => ProvideError::InUse { dir: path, pid },
            other => other.into(),
        })?;
        let is_new = known.is_none();
        let on_disk = known.unwrap_or_else(FolderConfig::new);
        let config = on_disk.clone().with(wishes);
        if !config.tags.is_valid() {
            return Err(ProvideError::Tags);
        }
        let listen = listen::parse(&config.listen)?;
        let mut folder = Folder { dir, config, on_disk, listen, _lock: lock };
        if is_new {
            // Before anything else is in it: without a configuration it would be a stranger's folder.
            let first = FolderConfig {
                seal: None,
                metrics: None,
                gateway: None,
                allow: None,
                block: None,
                ..folder.config.clone()
            };
            folder.write(first)?;
        }
        Ok(folder)
    }

    /// Remembers what it runs with now.
    pub(super) fn remember(&mut self) -> Result<(), ProvideError> {
        if self.config == self.on_disk { Ok(()) } else { self.write(self.config.clone()) }
    }

    fn write(&mut self, config: FolderConfig) -> Result<(), ProvideError> {
        let mut bytes = serde_json::to_vec_pretty(&config).map_err(std::io::Error::from)?;
        bytes.push(b'\n');
        write_atomically(&self.dir.join(CONFIG_FILE), &bytes)?;
        self.on_disk = config;
        Ok(())
    }

    /// A port that the system drew is kept: drives remember the address.
    pub(super) fn keep_ports(&mut self, bound: &[Multiaddr]) {
        for (text, wanted) in self.config.listen.iter_mut().zip(&self.listen) {
            if let Some(kept) = listen::with_port(wanted, bound) {
                *text = kept.to_string();
            }
        }
    }

    pub(super) fn capacity_bytes(&self) -> u64 {
        self.config.capacity_bytes
    }

    pub(super) fn seal(&self) -> Option<&SealConfig> {
        self.config.seal.as_ref()
    }

    pub(super) fn metrics(&self) -> Option<SocketAddr> {
        self.config.metrics
    }

    pub(super) fn gateway(&self) -> Option<SocketAddr> {
        self.config.gateway
    }

    /// A port that the system drew is kept, as the others are.
    pub(super) fn keep_gateway(&mut self, bound: SocketAddr) {
        self.config.gateway = Some(bound);
    }

    pub(super) fn tags(&self) -> &Tags {
        &self.config.tags
    }

    pub(super) fn addrs(&self) -> String {
        self.config.listen.join(", ")
    }

    /// How the node finds others, and is found.
    pub(super) fn discovery(&self) -> Discovery {
        let given = self.config.bootstrap.iter().filter_map(|known| known.parts().ok());
        let mut bootstrap: Vec<PeerAddrs> = given.map(|(peer, addrs)| PeerAddrs::new(peer, addrs)).collect();
        bootstrap.extend(known_peers::read(&self.dir));
        let alone = listen::is_private_to_machine(&self.listen);
        let (mdns, nat) = (!self.config.no_mdns && !alone, !self.config.no_nat && !alone);
        Discovery { dht: DhtRole::Server, bootstrap, mdns, nat, ..Discovery::default() }
    }

    /// Whose deals are taken, and who is not let in.
    pub(super) fn lists(&self) -> Result<Lists, ProvideError> {
        Lists::read(&self.config.allow, &self.config.block)
    }

    /// What the net room is told.
    pub(super) fn provider_config(&self) -> ProviderConfig {
        let mut config = ProviderConfig::with_capacity(self.config.capacity_bytes);
        config.tags = self.config.tags.clone();
        config.public = !self.config.private_only;
        config.limits.key_bytes_max = self.config.client_bytes_max.unwrap_or(config.limits.key_bytes_max);
        config.limits.tree_permille = self.config.tree_permille.unwrap_or(config.limits.tree_permille);
        if let Some(days) = self.config.scrub_days {
            config.limits.scrub_seconds = u64::from(days) * DAY_SECONDS;
        }
        config
    }
}

fn read_config(dir: &Path, path: &Path) -> Result<Option<FolderConfig>, HomeError> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return check_new(dir).map(|()| None),
        Err(error) => return Err(HomeError::io("read", path, error)),
    };
    parse_config(&bytes, path).map(Some)
}

/// From the file's bytes; `path` is for messages.
pub(crate) fn parse_config(bytes: &[u8], path: &Path) -> Result<FolderConfig, HomeError> {
    let damaged = |reason: String| HomeError::Damaged { path: path.to_owned(), reason };
    let value: serde_json::Value = serde_json::from_slice(bytes).map_err(|e| damaged(e.to_string()))?;
    match value.get("version").and_then(serde_json::Value::as_u64) {
        Some(found) if found > CONFIG_VERSION => {
            Err(HomeError::NewerFormat { path: path.to_owned(), found, known: CONFIG_VERSION })
        }
        _ => serde_json::from_value(value).map_err(|e| damaged(e.to_string())),
    }
}

/// A folder without a configuration must be empty, but for what an earlier start may have left.
fn check_new(dir: &Path) -> Result<(), HomeError> {
    let ours = [LOG_FILE, LOCK_FILE, "config.new", IDENTITY_FILE];
    for entry in fs::read_dir(dir).map_err(|error| HomeError::io("read", dir, error))? {
        let name = entry.map_err(|error| HomeError::io("read", dir, error))?.file_name();
        if !ours.iter().any(|known| name == *known) {
            return Err(HomeError::NotEmpty(dir.to_owned()));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn seal() -> SealConfig {
        SealConfig {
            profile: "test-2k".to_owned(),
            cores: 1,
            memory_bytes: 1 << 30,
            period_seconds: 60,
            deadline_seconds: 30,
            gather_seconds: 1,
            synthetic: false,
            drop_unsealed: false,
            parameters: None,
        }
    }

    fn on_disk(dir: &Path) -> FolderConfig {
        parse_config(&fs::read(dir.join(CONFIG_FILE)).unwrap(), dir).unwrap()
    }

    #[test]
    fn what_it_runs_with_is_remembered_and_what_was_refused_is_not() {
        let dir = tempfile::tempdir().unwrap();
        assert!(!is_provider(dir.path()));
        let wishes = Wishes {
            capacity: Some(7),
            seal: Change::On(seal()),
            metrics: Change::On("127.0.0.1:9".parse().unwrap()),
            tree_permille: Some(3),
            scrub_days: Some(0),
            allow: Change::On("/nowhere/friends".into()),
            nat: Some(false),
            ..Wishes::default()
        };
        // Opened, and never run: it could not be sealed, say.
        let folder = Folder::open(dir.path(), wishes.clone()).unwrap();
        assert!(folder.seal().is_some() && folder.provider_config().limits.tree_permille == 3);
        assert_eq!(folder.provider_config().limits.scrub_seconds, 0);
        drop(folder);
        assert!(is_provider(dir.path()));
        let before = on_disk(dir.path());
        assert_eq!((before.capacity_bytes, &before.seal, before.metrics), (7, &None, None));
        assert_eq!((before.allow, before.no_nat), (None, true));

        let mut folder = Folder::open(dir.path(), wishes).unwrap();
        folder.remember().unwrap();
        drop(folder);
        assert_eq!(on_disk(dir.path()).seal, Some(seal()));
        assert_eq!(on_disk(dir.path()).allow, Some("/nowhere/friends".into()));
        assert_eq!(capacity_of(dir.path()).unwrap(), 7);
        // Nothing is asked for: all stays.
        let mut folder = Folder::open(dir.path(), Wishes::default()).unwrap();
        folder.remember().unwrap();
        assert_eq!((folder.seal(), folder.metrics().unwrap().port()), (Some(&seal()), 9));
        drop(folder);
        let (seal, metrics, allow) = (Change::Off, Change::Off, Change::Off);
        let off = Wishes { seal, metrics, allow, nat: Some(true), ..Wishes::default() };
        Folder::open(dir.path(), off).unwrap().remember().unwrap();
        let after = on_disk(dir.path());
        assert_eq!((after.seal, after.metrics, after.tree_permille), (None, None, Some(3)));
        assert_eq!(after.scrub_days, Some(0));
        assert_eq!((after.allow, after.no_nat), (None, false));
    }

    #[test]
    fn drives_and_strangers_are_not_providers() {
        let dir = tempfile::tempdir().unwrap();
        drop(Folder::open(dir.path(), Wishes::default()).unwrap());
        assert!(is_provider(dir.path()));
        fs::write(dir.path().join(KEYFILE), "").unwrap();
        assert!(!is_provider(dir.path()));
        let other = tempfile::tempdir().unwrap();
        fs::write(other.path().join("photo"), "").unwrap();
        assert!(!is_provider(other.path()));
        let refused = Folder::open(other.path(), Wishes::default());
        assert!(matches!(refused, Err(ProvideError::Folder(HomeError::NotEmpty(_)))));
    }
}
