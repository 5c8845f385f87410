//! Recovery: from the files to the state of the last whole prefix.
//!
//! 1. `inventory` reads the headers of all segments.
//! 2. The index says up to which record it stands; `replay` reads the log from there on, record by record.
//! 3. Where no further record follows, the log ends. If anything says that more was durable (a mark in an intact record
//!    beyond, a later epoch, the index), records are missing: corruption, the store opens read-only and touches no file.
//!    Else what follows is a torn tail, which no sync had covered, and is left behind for ever.
//! 4. Records above the last mark count only if their payloads in data segments are whole, too.
//! 5. What was recovered is synced, then a new epoch begins, whose headers say at which record: everything older from
//!    there on is void, intact or not.

mod inventory;
mod replay;

use std::collections::HashMap;
use std::sync::Arc;

pub(crate) use inventory::Inventory;

use crate::ambient::NoncePool;
use crate::checkpoint::IndexState;
use crate::cipher::{LongCipher, ValueCipher};
use crate::delta::Layer;
use crate::error::Result;
use crate::forge::FreeSegment;
use crate::index::{Index, STATE_KEY, Write};
use crate::ledger::Ledger;
use crate::medium::StorageMedium;
use crate::segment::{self, Kind, Segment};
use crate::{Lsn, RecoveryReport, StoreError};

/// What recovery works with.
pub(crate) struct Tools<'a> {
    pub(crate) medium: &'a dyn StorageMedium,
    pub(crate) index: &'a dyn Index,
    pub(crate) wrap: &'a LongCipher,
    pub(crate) nonces: &'a NoncePool,
    pub(crate) values: &'a ValueCipher,
}

/// What the store starts with.
pub(crate) struct Recovered {
    pub(crate) store_id: [u8; 16],
    pub(crate) segments: HashMap<u64, Arc<Segment>>,
    pub(crate) free: Vec<FreeSegment>,
    pub(crate) next_segment: u64,
    pub(crate) epoch: u64,
    pub(crate) last_lsn: Lsn,
    pub(crate) applied: Lsn,
    pub(crate) layer: Layer,
    pub(crate) ledger: Ledger,
    pub(crate) report: RecoveryReport,
}

/// Why a store is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// To go on with it.
    Normal,
    /// To read what is there, without writing a byte.
    Reading,
}

pub(crate) fn recover(tools: &Tools<'_>, purpose: Purpose) -> Result<Recovered> {
    let mut inventory = inventory::take(tools)?;
    let state = read_state(tools)?;
    let no_room = purpose == Purpose::Reading;
    let mut report =
        RecoveryReport { corruption: inventory.damage.take(), no_room, ..RecoveryReport::default() };
    let state = match (state, inventory.store_id) {
        (None, None) if inventory.segments.is_empty() => create(tools, &mut report)?,
        // An earlier start made the index and died before its first segment.
        (Some(state), None) if state.applied == 0 => state,
        (Some(state), None) => return Err(StoreError::LogMissing { applied: state.applied }),
        (None, Some(store_id)) => {
            report.index_rebuilt = true;
            IndexState { store_id, applied: 0, ledger: Ledger::default() }
        }
        (Some(state), Some(store_id)) if state.store_id == store_id => state,
        (Some(_), Some(_)) => return Err(StoreError::IndexForeign),
        (None, None) => return Err(StoreError::WrongKey),
    };
    report.applied_lsn = state.applied;
    let replayed = replay::replay(tools, &inventory, state, &mut report)?;
    if report.index_rebuilt && report.corruption.is_none() && !no_room {
        write_state(tools, inventory.store_id.unwrap_or_default(), 0)?;
    }
    check_missing(&inventory, &replayed.ledger, &mut report);
    report.last_lsn = replayed.last_lsn;
    if report.corruption.is_none() && !no_room {
        settle(tools, &inventory, &replayed)?;
    }
    let mut ledger = replayed.ledger;
    ledger.0.retain(|segment, _| inventory.segments.contains_key(segment));
    Ok(Recovered {
        store_id: replayed.store_id,
        next_segment: inventory.next_number,
        epoch: inventory.epoch_max + 1,
        last_lsn: replayed.last_lsn,
        applied: report.applied_lsn,
        layer: replayed.layer,
        ledger,
        free: std::mem::take(&mut inventory.free),
        segments: inventory.segments,
        report,
    })
}

fn read_state(tools: &Tools<'_>) -> Result<Option<IndexState>> {
    match tools.index.get(&STATE_KEY, &|sealed| tools.values.open(&STATE_KEY, sealed)) {
        Ok(row) => row.map(|row| IndexState::decode(&row)).transpose(),
        // The first row that is ever opened: another key is the likelier cause than damage to a checksummed file.
        Err(StoreError::Corrupt { .. }) => Err(StoreError::WrongKey),
        Err(error) => Err(error),
    }
}

/// Whether there is any log, so that opening makes no new one.
pub(crate) fn has_segments(medium: &dyn StorageMedium) -> Result<bool> {
    let names = medium.list().map_err(|error| StoreError::io("list", "the folder of the log", error))?;
    let is_segment = |name: &String| matches!(segment::parse_name(name), segment::FileName::Segment(..));
    Ok(names.iter().any(is_segment))
}

/// A store that never was: the index gets its identity before the log exists.
fn create(tools: &Tools<'_>, report: &mut RecoveryReport) -> Result<IndexState> {
    let store_id = tools.nonces.take();
    write_state(tools, store_id, 0)?;
    report.created = true;
    Ok(IndexState { store_id, applied: 0, ledger: Ledger::default() })
}

fn write_state(tools: &Tools<'_>, store_id: [u8; 16], applied: Lsn) -> Result<()> {
    let row = IndexState { store_id, applied, ledger: Ledger::default() }.encode();
    let sealed = tools.values.seal(&STATE_KEY, &row)?;
    let bytes = sealed.len();
    tools.index.write(&mut std::iter::once(Ok(Write::Put(&STATE_KEY, sealed))), bytes)?;
    tools.index.flush()
}

/// A segment with live payloads that is not there is damage, found now and not when it is read.
fn check_missing(inventory: &Inventory, ledger: &Ledger, report: &mut RecoveryReport) {
    let missing = ledger
        .0
        .iter()
        .find(|(number, account)| account.live_payloads > 0 && !inventory.segments.contains_key(number));
    if let (Some((number, account)), None) = (missing, &report.corruption) {
        report.corruption =
            Some(format!("segment {number:016x} with {} live payloads is missing", account.live_payloads));
    }
}

/// Makes durable what the new epoch will vouch for, and clears leftovers.
fn settle(tools: &Tools<'_>, inventory: &Inventory, replayed: &replay::Replayed) -> Result<()> {
    for number in &replayed.touched {
        let Some(segment) = inventory.segments.get(number) else { continue };
        let synced = segment.file().sync_data();
        synced.map_err(|error| StoreError::io("sync a recovered segment", &segment.name(), error))?;
    }
    for name in &inventory.unfinished {
        crate::segment::remove_quietly(tools.medium, name);
    }
    Ok(())
}

/// Log segments in the order of their records.
pub(crate) fn logs(segments: &HashMap<u64, Arc<Segment>>) -> Vec<Arc<Segment>> {
    let mut logs: Vec<_> = segments.values().filter(|s| s.header.kind == Kind::Log).cloned().collect();
    logs.sort_by_key(|segment| segment.number());
    logs
}
