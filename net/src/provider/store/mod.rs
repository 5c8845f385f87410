//! A provider's folder: slots, deals, records. Blocking code; callers run it on blocking threads.
//!
//! **Promises**: what [`Store::take`], [`Incoming::finish`], [`Store::release`] and [`Records::put`] returned
//! survives a power cut; a crash anywhere between their steps repeats at most one of them. The orders are those of
//! PROTOCOL.md, "At rest". Memory holds one small entry for each deal, disk everything else.
//!
//! **Refuses** deals beyond its capacity, quotas and disk, each with its own code, before anything was promised.

mod ballast;
mod damaged;
mod disk;
mod incoming;
mod permitted;
pub(crate) mod records;
pub(crate) mod row;
mod stored;
mod sweep;
mod tree;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::File;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use holdfast_proofs::PieceCid;
use nix::fcntl::{Flock, FlockArg};
use parking_lot::Mutex;

use super::config::{ProviderConfig, TREE_PERMILLE_DEFAULT};
use crate::codec;
use crate::deal::{DealId, SignedProposal};
use crate::error::{ErrorCode, NetError};
use crate::permit::Place;
use crate::wire::message::WireError;

use ballast::Ballast;
pub(super) use damaged::{Part, Progress};
pub(super) use incoming::{Begin, Incoming};
pub(super) use records::{RecordBounds, Records};
pub(crate) use row::DealRow;
pub use row::DealState;
pub use stored::StoredDeal;
pub(super) use tree::{TreeBytes, no_tree};

use row::ROW_BYTES_MAX;

type Outcome<T> = Result<T, WireError>;

/// What tests put between the steps; the product does nothing there.
#[derive(Clone, Default)]
pub(super) struct Steps {
    #[cfg(test)]
    pub(super) hook: Option<std::sync::Arc<dyn Fn(&'static str) -> std::io::Result<()> + Send + Sync>>,
}

impl Steps {
    /// A durability edge: a crash may fall here.
    fn edge(&self, _name: &'static str) -> std::io::Result<()> {
        #[cfg(test)]
        if let Some(hook) = &self.hook {
            return hook(_name);
        }
        Ok(())
    }
}

/// What memory knows of a deal.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub(super) client: [u8; 32],
    pub(super) piece: PieceCid,
    pub(super) raw_len: u64,
    pub(super) state: DealState,
    pub(super) end: u64,
    /// Its blocks may be given to anybody.
    public: bool,
    push_until: u64,
    accepted_at: u64,
    /// Who made it in the client's name.
    by: Option<[u8; 32]>,
    gone: Option<u64>,
    /// Its first row is being written: not to be seen by anybody yet.
    reserving: bool,
    /// Its slot is being received.
    receiving: bool,
    /// Its slot is not what it was: a scrub found that.
    pub(super) damaged: bool,
}

#[derive(Default)]
struct Index {
    deals: HashMap<DealId, Entry>,
    by_client: BTreeMap<[u8; 32], BTreeSet<DealId>>,
    committed_bytes: u64,
    stored_bytes: u64,
    stored: usize,
    damaged: usize,
    damaged_rows: usize,
    changes: u64,
}

impl Index {
    fn insert(&mut self, id: DealId, entry: Entry) {
        self.count(&entry, true);
        self.by_client.entry(entry.client).or_default().insert(id);
        self.deals.insert(id, entry);
    }

    fn remove(&mut self, id: &DealId) {
        let Some(entry) = self.deals.remove(id) else { return };
        self.count(&entry, false);
        if let Some(deals) = self.by_client.get_mut(&entry.client) {
            deals.remove(id);
            if deals.is_empty() {
                self.by_client.remove(&entry.client);
            }
        }
    }

    fn change(&mut self, id: &DealId, change: impl FnOnce(&mut Entry)) {
        let Some(mut entry) = self.deals.remove(id) else { return };
        self.count(&entry, false);
        change(&mut entry);
        self.count(&entry, true);
        self.deals.insert(*id, entry);
    }

    fn count(&mut self, entry: &Entry, add: bool) {
        self.changes += 1;
        let apply = |total: &mut u64| {
            *total =
                if add { total.saturating_add(entry.raw_len) } else { total.saturating_sub(entry.raw_len) };
        };
        if entry.state != DealState::Released {
            apply(&mut self.committed_bytes);
        }
        if entry.state == DealState::Stored {
            apply(&mut self.stored_bytes);
            self.stored = if add { self.stored + 1 } else { self.stored.saturating_sub(1) };
            if entry.damaged {
                self.damaged = if add { self.damaged + 1 } else { self.damaged.saturating_sub(1) };
            }
        }
    }
}

/// Totals.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct StoreUsage {
    /// Deals known, ended ones in their grace included.
    pub deals: usize,
    /// Of these, stored.
    pub deals_stored: usize,
    /// Bytes of stored slots.
    pub stored_bytes: u64,
    /// Bytes promised: stored or awaited.
    pub committed_bytes: u64,
    /// Bytes of records.
    pub records_bytes: u64,
    /// Stored slots that a scrub found to be damaged.
    pub slots_damaged: usize,
    /// Deal files that cannot be read.
    pub damaged_rows: usize,
}

/// The open folder.
pub(super) struct Store {
    slots: PathBuf,
    incoming: PathBuf,
    trees: PathBuf,
    deals: PathBuf,
    damaged: PathBuf,
    root: PathBuf,
    index: Mutex<Index>,
    /// One row is rewritten at a time; two states of a deal never race to its file.
    rows: Mutex<()>,
    pub(super) records: Records,
    /// What a slot's tree cache may take, in thousandths of the slot.
    pub(super) tree_permille: u16,
    ballast: Ballast,
    /// Bytes that lie beside slots and records and count like them.
    pub(super) beside: AtomicU64,
    steps: Steps,
    _lock: Flock<File>,
}

impl Store {
    /// Opens the folder and ends what a crash left half done.
    pub(super) fn open(root: &Path, steps: Steps) -> Result<Store, NetError> {
        let local = |e: std::io::Error| NetError::Local(format!("{}: {e}", root.display()));
        std::fs::create_dir_all(root).map_err(local)?;
        let lock = File::create(root.join("lock")).map_err(local)?;
        let lock = Flock::lock(lock, FlockArg::LockExclusiveNonblock)
            .map_err(|_| NetError::Local(format!("{}: another provider runs here", root.display())))?;
        let dir = |name: &str| root.join(name);
        for name in ["slots", "incoming", "trees", "deals", "damaged", "records"] {
            disk::make_dir(&dir(name)).map_err(local)?;
        }
        let store = Store {
            slots: dir("slots"),
            incoming: dir("incoming"),
            trees: dir("trees"),
            deals: dir("deals"),
            damaged: dir("damaged"),
            root: root.to_path_buf(),
            index: Mutex::default(),
            rows: Mutex::new(()),
            records: Records::open(dir("records"), steps.clone()).map_err(local)?,
            tree_permille: TREE_PERMILLE_DEFAULT,
            ballast: Ballast::new(root),
            beside: AtomicU64::new(0),
            steps,
            _lock: lock,
        };
        store.recover().map_err(local)?;
        store.keep_ballast();
        Ok(store)
    }

    fn recover(&self) -> std::io::Result<()> {
        let mut index = Index::default();
        for name in disk::names(&self.deals)? {
            let Ok(id) = name.parse::<DealId>() else { continue };
            let bytes = match disk::read_limited(&self.deals.join(&name), ROW_BYTES_MAX as u64) {
                Ok(bytes) => bytes,
                // One bad place on the disk must not keep all other deals from being proven.
                Err(e) => {
                    tracing::error!(deal = %id, "the deal's row cannot be read: {e}");
                    index.damaged_rows += 1;
                    continue;
                }
            };
            match DealRow::decode(&bytes).and_then(|row| entry_of(&row).map(|entry| (row, entry))) {
                Ok((row, (found, entry))) if found == id => {
                    if row.state == DealState::Released {
                        self.delete_slot(&id)?;
                    }
                    index.insert(id, entry);
                }
                // Nothing is thrown away on the word of a damaged row: its slot stays as well.
                Ok(_) => index.damaged_rows += 1,
                Err(e) => {
                    tracing::error!(deal = %id, "damaged deal row: {e}");
                    index.damaged_rows += 1;
                }
            }
        }
        for name in disk::names(&self.incoming)? {
            let awaited = name.parse().is_ok_and(|id: DealId| {
                index.deals.get(&id).is_some_and(|entry| entry.state == DealState::Taken)
            });
            if !awaited {
                disk::remove(&self.incoming.join(&name))?;
            }
        }
        disk::names(&self.slots)?;
        for name in disk::names(&self.trees)? {
            if name.parse().is_ok_and(|id: DealId| !index.deals.contains_key(&id)) {
                disk::remove(&self.trees.join(&name))?;
            }
        }
        for name in disk::names(&self.damaged)? {
            let Ok(id) = name.parse::<DealId>() else { continue };
            match index.deals.get(&id).is_some_and(|entry| entry.state == DealState::Stored) {
                true => index.change(&id, |entry| entry.damaged = true),
                false => disk::remove(&self.damaged.join(&name))?,
            }
        }
        *self.index.lock() = index;
        Ok(())
    }

    /// A deal, if it is known.
    pub(super) fn entry(&self, id: &DealId) -> Option<Entry> {
        self.index.lock().deals.get(id).filter(|entry| !entry.reserving).cloned()
    }

    /// A deal's row.
    pub(super) fn row(&self, id: &DealId) -> Outcome<DealRow> {
        let bytes = match disk::read_limited(&self.deals.join(id.to_string()), ROW_BYTES_MAX as u64) {
            Ok(bytes) => bytes,
            Err(e) if e.kind() == ErrorKind::NotFound => {
                return Err(WireError::new(ErrorCode::NotFound, "no such deal"));
            }
            Err(e) => return Err(storage(&e)),
        };
        DealRow::decode(&bytes).map_err(|e| {
            tracing::error!(deal = %id, "damaged deal row: {e}");
            WireError::new(ErrorCode::Storage, "the deal cannot be read")
        })
    }

    /// Ids of a client's deals after `after`, in order.
    pub(super) fn deals_of(&self, clients: &[[u8; 32]], after: Option<DealId>, max: usize) -> Vec<DealId> {
        let index = self.index.lock();
        let mut ids = BTreeSet::new();
        for client in clients {
            let Some(deals) = index.by_client.get(client) else { continue };
            let from = match after {
                Some(after) => (std::ops::Bound::Excluded(after), std::ops::Bound::Unbounded),
                None => (std::ops::Bound::Unbounded, std::ops::Bound::Unbounded),
            };
            let live = |id: &&DealId| {
                index.deals.get(id).is_some_and(|e| !e.reserving && e.state != DealState::Released)
            };
            ids.extend(deals.range(from).filter(live).take(max).copied());
        }
        ids.into_iter().take(max).collect()
    }

    /// Totals.
    pub(super) fn usage(&self) -> StoreUsage {
        let index = self.index.lock();
        StoreUsage {
            deals: index.deals.len(),
            deals_stored: index.stored,
            stored_bytes: index.stored_bytes,
            committed_bytes: index.committed_bytes,
            records_bytes: self.records.bytes(),
            slots_damaged: index.damaged,
            damaged_rows: index.damaged_rows,
        }
    }

    /// Bytes that a new deal could have, by capacity and by disk.
    pub(super) fn room(&self, config: &ProviderConfig) -> u64 {
        let (committed, stored) = {
            let index = self.index.lock();
            (index.committed_bytes, index.stored_bytes)
        };
        // What is promised and not yet written is still free on the disk, in part; counting it as taken errs on the
        // safe side.
        let awaited = committed.saturating_sub(stored);
        let disk = disk::free_bytes(&self.root).unwrap_or(0);
        let disk = disk.saturating_sub(config.disk_reserve_bytes).saturating_sub(awaited);
        let beside = self.records.bytes().saturating_add(self.beside.load(Ordering::Relaxed));
        config.capacity_bytes.saturating_sub(committed).saturating_sub(beside).min(disk)
    }

    /// Takes a deal whose terms are good: sets the space aside, writes the row, returns the answer to send. For a
    /// deal taken before, the answer of then.
    pub(super) fn take(
        &self,
        config: &ProviderConfig,
        proposal: &SignedProposal,
        manifest: &[u8],
        answer: Vec<u8>,
        push_until: u64,
    ) -> Outcome<Vec<u8>> {
        let id = proposal.deal_id();
        if let Some(entry) = self.entry(&id) {
            return match entry.state {
                DealState::Released => Err(ended()),
                _ => Ok(self.row(&id)?.answer),
            };
        }
        let row = DealRow::taken(proposal, manifest.to_vec(), answer);
        let (_, mut entry) =
            entry_of(&row).map_err(|e| WireError::new(ErrorCode::Malformed, e.to_string()))?;
        entry.push_until = push_until;
        entry.reserving = true;
        self.set_aside(config, id, entry, proposal.permit().and_then(|permit| permit.body().place))?;
        let written = self.prepare_incoming(&id, proposal.proposal().raw_len).and_then(|()| {
            self.steps.edge("take.row.before")?;
            self.write_row(&id, &row)?;
            self.steps.edge("take.row.after")
        });
        match written {
            Ok(()) => {
                self.index.lock().change(&id, |entry| entry.reserving = false);
                Ok(row.answer)
            }
            Err(e) => {
                // The row may be there if only the folder's sync failed; it must not outlive this refusal.
                let _ = disk::remove(&self.deals.join(id.to_string()));
                let _ = disk::remove(&self.incoming.join(id.to_string()));
                self.index.lock().remove(&id);
                Err(storage(&e))
            }
        }
    }

    /// Checks every bound and enters the deal, in one step: two deals cannot take the same last byte.
    fn set_aside(
        &self,
        config: &ProviderConfig,
        id: DealId,
        entry: Entry,
        place: Option<Place>,
    ) -> Outcome<()> {
        let room = self.room(config);
        let mut index = self.index.lock();
        if index.deals.contains_key(&id) {
            return Err(WireError::new(ErrorCode::Busy, "the same proposal is being taken"));
        }
        let limits = &config.limits;
        if index.deals.len() >= limits.deals_max {
            return Err(WireError::new(ErrorCode::NoSpace, "too many deals"));
        }
        let of_key = index.by_client.get(&entry.client).into_iter().flatten();
        let of_key: Vec<&Entry> = of_key.filter_map(|id| index.deals.get(id)).collect();
        if let Some(place) = place {
            permitted::check(&entry, &of_key, &place)?;
        }
        let (mut bytes, mut pending) = (0u64, 0usize);
        for other in of_key {
            match other.state {
                DealState::Released => continue,
                DealState::Taken => pending += 1,
                DealState::Stored => {}
            }
            bytes = bytes.saturating_add(other.raw_len);
        }
        if bytes.saturating_add(entry.raw_len) > limits.key_bytes_max {
            return Err(WireError::new(ErrorCode::Quota, "the quota for this client is used up"));
        }
        if pending >= limits.pending_per_key_max {
            return Err(WireError::new(ErrorCode::Busy, "too many deals without their slots"));
        }
        let capacity = config.capacity_bytes.saturating_sub(index.committed_bytes);
        if entry.raw_len > room.min(capacity) {
            return Err(WireError::new(ErrorCode::NoSpace, "no space for this slot"));
        }
        index.insert(id, entry);
        Ok(())
    }

    fn prepare_incoming(&self, id: &DealId, len: u64) -> std::io::Result<()> {
        let file = File::create(self.incoming.join(id.to_string()))?;
        disk::reserve(&file, len)
    }

    fn keep_ballast(&self) {
        if let Err(e) = self.ballast.keep() {
            tracing::warn!("no room is kept for what frees room: {e}");
        }
    }

    fn write_row(&self, id: &DealId, row: &DealRow) -> std::io::Result<()> {
        self.steps.edge("row.write")?;
        disk::write_atomic(&self.deals, &id.to_string(), &row.encode())
    }

    /// Changes a deal's row and then what memory knows of it.
    fn change_row(&self, id: &DealId, change: impl FnOnce(&mut DealRow) -> Outcome<()>) -> Outcome<DealRow> {
        let _one_at_a_time = self.rows.lock();
        let mut row = self.row(id)?;
        change(&mut row)?;
        let frees = row.state == DealState::Released || row.gone.is_some();
        let mut written = self.write_row(id, &row);
        if frees && written.as_ref().is_err_and(disk::is_full) && self.ballast.give_up().unwrap_or(false) {
            tracing::warn!(deal = %id, "the disk is full: the ballast's room is taken to free the deal's");
            written = self.write_row(id, &row);
        }
        written.map_err(|e| storage(&e))?;
        self.index.lock().change(id, |entry| {
            entry.state = row.state;
            entry.gone = row.gone;
        });
        Ok(row)
    }

    /// Opens a stored slot. Only one that is not there is lost: a lack of descriptors or of rights says nothing of its bytes.
    pub(super) fn open_slot(&self, id: &DealId) -> Outcome<File> {
        File::open(self.slots.join(id.to_string())).map_err(|e| {
            tracing::error!(deal = %id, "the slot cannot be opened: {e}");
            match e.kind() {
                ErrorKind::NotFound => WireError::new(ErrorCode::Corrupt, "the slot is gone"),
                _ => not_now(),
            }
        })
    }

    /// Opens a slot's tree cache, making it if need be.
    pub(super) fn open_tree(&self, id: &DealId, piece: &PieceCid, slot: &File) -> Outcome<TreeFile> {
        let path = self.trees.join(id.to_string());
        if let Ok(file) = File::open(&path)
            && let Ok(tree) = TreeFile::open(TreeBytes::File(file), piece)
        {
            return Ok(tree);
        }
        self.rebuild_tree(id, piece, slot)
    }

    /// Gives a deal up: the row first, the slot second. Again: the same.
    pub(super) fn release(&self, id: &DealId) -> Outcome<()> {
        self.change_row(id, |row| {
            row.state = DealState::Released;
            Ok(())
        })?;
        self.steps.edge("release.row.after").map_err(|e| storage(&e))?;
        self.delete_slot(id).map_err(|e| storage(&e))
    }

    fn delete_slot(&self, id: &DealId) -> std::io::Result<()> {
        let name = id.to_string();
        disk::remove(&self.incoming.join(&name))?;
        disk::remove(&self.trees.join(&name))?;
        disk::remove(&self.damaged.join(&name))?;
        disk::remove(&self.slots.join(&name))
    }
}

/// A slot's tree cache.
pub(super) type TreeFile = holdfast_proofs::TreeCache<TreeBytes>;

/// What memory keeps of a row.
fn entry_of(row: &DealRow) -> Result<(DealId, Entry), codec::CodecError> {
    let proposal = SignedProposal::from_bytes(&row.proposal)?;
    let p = proposal.proposal();
    let answer = crate::deal::SignedAnswer::from_bytes(&row.answer, &proposal)?;
    let entry = Entry {
        client: p.client,
        piece: p.piece()?,
        raw_len: p.raw_len,
        state: row.state,
        end: p.end,
        public: crate::manifest::SignedManifest::is_public(&row.manifest),
        push_until: answer.body().push_until,
        accepted_at: answer.body().accepted_at,
        by: proposal.permit().map(|permit| permit.body().holder),
        gone: row.gone,
        reserving: false,
        receiving: false,
        damaged: false,
    };
    Ok((proposal.deal_id(), entry))
}

fn ended() -> WireError {
    WireError::new(ErrorCode::Ended, "the deal was given up or has ended")
}

/// For what says nothing of anybody's bytes, and passes.
pub(super) fn not_now() -> WireError {
    WireError::new(ErrorCode::Busy, "the provider cannot do this now")
}

/// Tells a peer about our disk no more than it must know.
pub(super) fn storage(error: &std::io::Error) -> WireError {
    if disk::is_full(error) {
        return WireError::new(ErrorCode::NoSpace, "the disk is full");
    }
    tracing::error!("the provider's disk: {error}");
    if disk::is_exhausted(error) {
        return not_now();
    }
    WireError::new(ErrorCode::Storage, "the provider cannot use its disk")
}

#[cfg(test)]
mod tests;
