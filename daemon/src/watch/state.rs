//! A watcher's folder: what it must not forget between two looks.
//!
//! ```text
//!   DIR/ 0700
//!     capability     the owner's file
//!     state          its own log, what it has seen of providers, what it has proposed
//!     bundle-N       the newest bundle's parts as they were fetched: signed and sealed
//!     providers      addresses of further providers, one a line, by whoever runs it; read again at every look
//!     status         what the last look found, JSON
//!     work/          bytes on their way; emptied at the start
//!     lock           held while it runs
//! ```
//!
//! Promises: a number that a part was signed under is never used again, since it is written first; a proposal that was sent is
//! sent again with the same bytes. Refuses a second process in the same folder.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use holdfast_content::dagcbor::{self, FormatError};
use holdfast_content::placement::ChainEnd;
use nix::fcntl::{Flock, FlockArg};
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

use super::capability::{CAPABILITY_BYTES_MAX, Capability, Known};
use super::log::SlotName;
use crate::drive::ledger::Peer;
use crate::home::{ProviderAddr, create_private_dir, read_limited, write_atomically};

const WHAT: &str = "a watcher's state";
const VERSION: u64 = 1;
const SUITE: u64 = 1;
/// Its log with 8,000 entries, and room.
const STATE_BYTES_MAX: usize = 64 << 20;
/// A list that a person writes.
const PROVIDERS_BYTES_MAX: u64 = 256 << 10;
/// Between two looks no more than this counts as silence: the watcher may have been off.
const GAP_SECONDS_MAX: u64 = 600;
const DAY_SECONDS: u64 = 24 * 3600;
const CAPABILITY: &str = "capability";

/// How long a provider has not answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Silence {
    /// Who.
    pub peer: ByteBuf,
    /// Between looks at which it did not answer.
    pub seconds: u64,
}

/// A slot that its holder was found not to keep.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fault {
    /// The deal.
    #[serde(with = "serde_bytes")]
    pub deal: [u8; 32],
    /// Who.
    pub peer: ByteBuf,
    /// As a person reads it.
    pub why: String,
}

/// A deal that was, or is about to be, proposed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Proposed {
    /// For which slot.
    pub slot: SlotName,
    /// To whom.
    pub peer: ByteBuf,
    /// The signed proposal.
    pub proposal: ByteBuf,
}

/// Bytes that were moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Moved {
    /// When, unix seconds.
    pub at: u64,
    /// How many.
    pub bytes: u64,
}

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct State {
    version: u64,
    suite: u64,
    /// The last number of a part of its log.
    pub number: u64,
    /// Where its log begins.
    pub first: ChainEnd,
    /// Its log.
    pub entries: Vec<ByteBuf>,
    /// Providers beyond the bundle's that answered once.
    pub places: Vec<Known>,
    /// Who does not answer.
    pub silent: Vec<Silence>,
    /// Who lost what.
    pub faults: Vec<Fault>,
    /// What was proposed.
    pub proposed: Vec<Proposed>,
    /// What was moved in the last day.
    pub moved: Vec<Moved>,
    /// When it looked last, unix seconds.
    pub looked_at: u64,
}

impl Default for State {
    fn default() -> State {
        State {
            version: VERSION,
            suite: SUITE,
            number: 0,
            first: ChainEnd::default(),
            entries: Vec::new(),
            places: Vec::new(),
            silent: Vec::new(),
            faults: Vec::new(),
            proposed: Vec::new(),
            moved: Vec::new(),
            looked_at: 0,
        }
    }
}

impl State {
    /// From its file.
    pub fn decode(bytes: &[u8]) -> Result<State, FormatError> {
        let found = dagcbor::peek_version(WHAT, bytes)?;
        dagcbor::check_version(WHAT, found.version, VERSION)?;
        dagcbor::check_version(WHAT, found.suite, SUITE)?;
        dagcbor::decode(WHAT, bytes, STATE_BYTES_MAX)
    }

    /// For its file.
    pub fn encode(&self) -> Result<Vec<u8>, FormatError> {
        dagcbor::encode(WHAT, self)
    }

    /// A look begins: how much of the time since the last one counts as silence.
    pub fn begin(&mut self, now: u64) -> u64 {
        let passed = match self.looked_at {
            0 => 0,
            last => now.saturating_sub(last).min(GAP_SECONDS_MAX),
        };
        self.looked_at = now;
        self.moved.retain(|moved| moved.at <= now && moved.at.saturating_add(DAY_SECONDS) > now);
        passed
    }

    /// A provider answered, or did not for so long.
    pub fn heard(&mut self, peer: &Peer, answered: bool, passed: u64) {
        let known = self.silent.iter_mut().find(|silence| silence.peer == *peer);
        match (answered, known) {
            (true, _) => self.silent.retain(|silence| silence.peer != *peer),
            (false, Some(silence)) => silence.seconds = silence.seconds.saturating_add(passed),
            (false, None) => self.silent.push(Silence { peer: ByteBuf::from(peer.clone()), seconds: 0 }),
        }
    }

    /// How long each provider that does not answer has been silent.
    pub fn silences(&self) -> BTreeMap<Peer, u64> {
        self.silent.iter().map(|silence| (silence.peer.to_vec(), silence.seconds)).collect()
    }

    /// Bytes of the last day.
    pub fn moved_bytes(&self) -> u64 {
        self.moved.iter().fold(0, |sum, moved| sum.saturating_add(moved.bytes))
    }
}

/// See the module.
pub struct Folder {
    dir: PathBuf,
    _lock: Flock<File>,
}

impl Folder {
    /// `path` is a capability's file, whose folder is beside it, or a watcher's folder.
    pub fn open(path: &Path) -> anyhow::Result<(Folder, Capability, State)> {
        let path = std::path::absolute(path)?;
        let (dir, file) = match path.is_dir() {
            true => (path.clone(), path.join(CAPABILITY)),
            false => {
                let mut name = path.file_name().context("not a file")?.to_owned();
                name.push(".watch");
                (path.with_file_name(name), path.clone())
            }
        };
        let bytes = read_limited(&file, CAPABILITY_BYTES_MAX as u64)?;
        let capability = Capability::read(&bytes).with_context(|| file.display().to_string())?;
        create_private_dir(&dir)?;
        let lock = File::create(dir.join("lock"))?;
        let lock = Flock::lock(lock, FlockArg::LockExclusiveNonblock)
            .map_err(|_| anyhow::anyhow!("{}: another watcher runs here", dir.display()))?;
        let folder = Folder { dir, _lock: lock };
        let work = folder.work();
        if work.exists() {
            std::fs::remove_dir_all(&work)?;
        }
        create_private_dir(&work)?;
        let path = folder.dir.join("state");
        let state = match path.exists() {
            true => State::decode(&read_limited(&path, STATE_BYTES_MAX as u64)?)
                .with_context(|| path.display().to_string())?,
            false => State::default(),
        };
        Ok((folder, capability, state))
    }

    /// Where it is.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Where bytes are on their way.
    pub fn work(&self) -> PathBuf {
        self.dir.join("work")
    }

    /// Writes the state; durable when it returns.
    pub fn save(&self, state: &State) -> anyhow::Result<()> {
        Ok(write_atomically(&self.dir.join("state"), &state.encode()?)?)
    }

    /// Writes what the last look found.
    pub fn tell(&self, status: &impl Serialize) -> anyhow::Result<()> {
        Ok(write_atomically(&self.dir.join("status"), &serde_json::to_vec_pretty(status)?)?)
    }

    /// Keeps a bundle's parts for a start at which nobody has them.
    pub fn keep_bundle(&self, parts: &BTreeMap<u16, Vec<u8>>) -> anyhow::Result<()> {
        // The first one last: it says how many there are.
        for (n, value) in parts.iter().rev() {
            write_atomically(&self.dir.join(format!("bundle-{n}")), value)?;
        }
        Ok(())
    }

    /// A part that was kept.
    pub fn bundle_part(&self, part: u16) -> Option<Vec<u8>> {
        let path = self.dir.join(format!("bundle-{part}"));
        read_limited(&path, holdfast_content::watch::part::VALUE_BYTES_MAX as u64).ok()
    }

    /// Providers that whoever runs it names; a line that is none is passed over, with a word in the log.
    pub fn providers(&self) -> Vec<ProviderAddr> {
        let Ok(bytes) = read_limited(&self.dir.join("providers"), PROVIDERS_BYTES_MAX) else {
            return Vec::new();
        };
        let text = String::from_utf8_lossy(&bytes);
        let mut all = Vec::new();
        for line in text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
            match line.parse() {
                Ok(provider) => ProviderAddr::merge(&mut all, [provider]),
                Err(error) => tracing::warn!("the list of providers: {error}"),
            }
        }
        all
    }

    /// Adds providers to that list.
    pub fn add_providers(&self, more: &[ProviderAddr]) -> anyhow::Result<()> {
        let mut all = self.providers();
        ProviderAddr::merge(&mut all, more.iter().cloned());
        let lines: Vec<String> = all.iter().flat_map(ProviderAddr::full_addrs).collect();
        Ok(write_atomically(&self.dir.join("providers"), (lines.join("\n") + "\n").as_bytes())?)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    pub(crate) fn sample() -> State {
        let slot = SlotName { piece: [1; 16], slot: 2 };
        State {
            number: 7,
            places: vec![Known {
                peer: ByteBuf::from(vec![1; 38]),
                addrs: vec!["/ip4/192.0.2.7/tcp/1".into()],
            }],
            silent: vec![Silence { peer: ByteBuf::from(vec![2; 38]), seconds: 90 }],
            faults: vec![Fault { deal: [3; 32], peer: ByteBuf::from(vec![4; 38]), why: "it said no".into() }],
            proposed: vec![Proposed {
                slot,
                peer: ByteBuf::from(vec![5; 38]),
                proposal: ByteBuf::from(vec![6; 9]),
            }],
            moved: vec![Moved { at: 1_800_000_000, bytes: 9 }],
            looked_at: 1_800_000_000,
            ..State::default()
        }
    }

    #[test]
    fn silence_is_counted_between_looks_and_no_clock_makes_it_long() {
        let mut state = State::default();
        let peer = vec![1; 38];
        assert_eq!(state.begin(1_000), 0);
        state.heard(&peer, false, 0);
        let passed = state.begin(1_060);
        state.heard(&peer, false, passed);
        assert_eq!(state.silences()[&peer], 60);
        // Off for a month, or a clock that jumped.
        let passed = state.begin(3_000_000);
        state.heard(&peer, false, passed);
        assert_eq!(state.silences()[&peer], 60 + GAP_SECONDS_MAX);
        assert_eq!(state.begin(5), 0);
        state.heard(&peer, true, 0);
        assert!(state.silences().is_empty());
        assert_eq!(State::decode(&sample().encode().unwrap()).unwrap(), sample());
    }

    #[test]
    fn a_folder_is_held_and_remembers() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("attic");
        std::fs::write(&file, super::super::capability::tests::sample()).unwrap();
        let (folder, capability, state) = Folder::open(&file).unwrap();
        assert_eq!((capability.label.as_str(), &state), ("attic", &State::default()));
        assert!(Folder::open(&file).is_err(), "held");
        folder.save(&sample()).unwrap();
        let address = "/ip4/192.0.2.7/tcp/4001/p2p/12D3KooWGzJ3FZnGPJGLjjZ7Xc9oRkQhRhNq5xnYVvaAPkjCBxUM";
        folder.add_providers(&[address.parse().unwrap()]).unwrap();
        std::fs::write(folder.work().join("left"), "behind").unwrap();
        drop(folder);
        let (folder, _, state) = Folder::open(&file).unwrap();
        assert_eq!((state, folder.providers().len()), (sample(), 1));
        assert!(!folder.work().join("left").exists());
    }
}
