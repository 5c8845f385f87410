//! What is stored, for whoever does more with slots than keep them.

use std::path::PathBuf;

use holdfast_proofs::PieceCid;

use super::{DealState, Store};
use crate::deal::DealId;

/// A deal whose slot is on the disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredDeal {
    /// Which.
    pub deal: DealId,
    /// The slot's name.
    pub piece: PieceCid,
    /// The slot is a CAR of plain blocks, which anybody may have.
    pub public: bool,
    /// Unix seconds of the deal's end.
    pub end: u64,
    /// The slot's file: not to be changed.
    pub slot: PathBuf,
}

impl Store {
    /// Grows whenever a deal comes, changes or goes.
    pub(in crate::provider) fn changes(&self) -> u64 {
        self.index.lock().changes
    }

    /// All deals whose slots are stored.
    pub(in crate::provider) fn stored_deals(&self) -> Vec<StoredDeal> {
        let index = self.index.lock();
        let stored = index.deals.iter().filter(|(_, entry)| entry.state == DealState::Stored);
        stored
            .map(|(id, entry)| StoredDeal {
                deal: *id,
                piece: entry.piece,
                public: entry.public,
                end: entry.end,
                slot: self.slots.join(id.to_string()),
            })
            .collect()
    }
}
