//! Private links: what somebody may read of a drive without having it (`holdfast share`, `shares`, `unshare`, `get`).
//!
//! ```text
//! owner's daemon                               providers                            whoever has the link
//!   owner: index of a commit, note ── row, placement log
//!   workers/share ── object: places, seeds, permits; index ──► kept, sealed ──────► reader: object, index
//!                    renewed when slots or blocks move         slots ◄─ ranges, by permit ─ blocks, opened
//!   taken back, ended: an empty object, permits revoked ─────► kept                 write: files and folders
//! ```
//!
//! Owns: the formats of the link and the object, what the owner's commands answer, the reader. Promises: what a link shows is as it
//! was when it was made; its blocks stay while it lasts, whatever becomes of the drive's snapshots; it gives the seeds and permits of
//! what it shows and no others, and no key of anything else. Refuses to follow changes: share again.

pub mod link;
pub mod object;
pub mod owner;
pub mod permits;
pub mod places;
pub mod reader;
pub mod write;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use holdfast_content::dagcbor::FormatError;
use holdfast_content::share::index::ShareIndex;
use holdfast_content::share::{LinkKeys, ShareId, ShareKeys};
use holdfast_content::watch::{open, seal};
use parking_lot::Mutex;

use crate::home::files;

/// The home's folder of indices.
const FOLDER: &str = "shares";
const AT_REST: &[u8] = b"holdfast share at rest v1\0";

/// An index and its bytes.
#[derive(Clone)]
pub struct Loaded {
    /// What is shown.
    pub index: Arc<ShareIndex>,
    /// As it is sealed.
    pub bytes: Arc<Vec<u8>>,
}

impl Loaded {
    /// Of bytes that were sealed.
    pub fn of(bytes: Vec<u8>) -> Result<Loaded, FormatError> {
        Ok(Loaded { index: Arc::new(ShareIndex::decode(&bytes)?), bytes: Arc::new(bytes) })
    }
}

/// What is known of one link.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ShareSeen {
    /// Providers that keep its newest object.
    pub with: u64,
    /// How many shall.
    pub wanted: u64,
    /// What is in the way.
    pub problem: Option<String>,
}

/// The links of a running drive: their indices, and how they stand.
pub struct Shared {
    folder: PathBuf,
    loaded: Mutex<HashMap<ShareId, Loaded>>,
    seen: Mutex<HashMap<ShareId, ShareSeen>>,
    /// One link is made at a time.
    pub making: tokio::sync::Mutex<()>,
}

impl Shared {
    /// In the home folder.
    pub fn new(home: &Path) -> Shared {
        Shared {
            folder: home.join(FOLDER),
            loaded: Mutex::default(),
            seen: Mutex::default(),
            making: tokio::sync::Mutex::new(()),
        }
    }

    fn path(&self, id: &ShareId) -> PathBuf {
        self.folder.join(data_encoding::HEXLOWER.encode(id))
    }

    /// The index of a link, if it is here and whole.
    pub fn index(&self, keys: &ShareKeys, id: &ShareId) -> Option<Loaded> {
        if let Some(loaded) = self.loaded.lock().get(id) {
            return Some(loaded.clone());
        }
        let sealed = files::read_limited(&self.path(id), object::SEALED_BYTES_MAX).ok()?;
        let key = LinkKeys::from_secret(&keys.secret(id)).open;
        let plain = open(&key, &[AT_REST, id].concat(), &sealed).ok()?;
        let loaded = Loaded::of(plain.to_vec()).ok()?;
        self.loaded.lock().insert(*id, loaded.clone());
        Some(loaded)
    }

    /// Keeps it: in the home folder before anything refers to it.
    pub fn keep(&self, keys: &ShareKeys, id: &ShareId, loaded: Loaded) -> anyhow::Result<()> {
        files::create_private_dir(&self.folder)?;
        let key = LinkKeys::from_secret(&keys.secret(id)).open;
        let sealed = seal(&key, &[AT_REST, id].concat(), &loaded.bytes);
        files::write_atomically(&self.path(id), &sealed)?;
        self.loaded.lock().insert(*id, loaded);
        Ok(())
    }

    /// It shows nothing any more.
    pub fn forget(&self, id: &ShareId) {
        self.loaded.lock().remove(id);
        match std::fs::remove_file(self.path(id)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                tracing::warn!(%error, "the index of a link that has ended could not be removed");
            }
            _ => {}
        }
    }

    /// How one stands.
    pub fn seen(&self, id: &ShareId) -> ShareSeen {
        self.seen.lock().get(id).cloned().unwrap_or_default()
    }

    /// How one stands from now on.
    pub fn note(&self, id: ShareId, seen: ShareSeen) {
        self.seen.lock().insert(id, seen);
    }
}
