//! Repair capabilities: what was granted, and which of their holders' entries were seen to.
//!
//! ```text
//! granted, taken back   watch/<capability> + "watch" in the log
//! seen to               watch/<capability>                        up to where the watcher's chain is adopted or dismissed
//! ```

use std::collections::HashMap;

use holdfast_content::placement::ChainEnd;
use holdfast_content::watch::{CapabilityId, GrantNote};
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

use super::{CHAIN, Holder, LOG, Ledger, LedgerError, PieceId, decode_versioned, encode, key};

pub(super) const WATCH: &[u8] = b"watch/";
const VERSION: u8 = 1;

/// A capability's row.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GrantRow {
    /// Version of this row.
    pub v: u8,
    /// As the entry in the placement log says it ([`GrantNote`]).
    pub note: ByteBuf,
    /// Entries of the watcher before this were seen to.
    pub taken: ChainEnd,
}

impl GrantRow {
    /// Of a note, nothing of whose holder was seen to.
    pub fn new(note: Vec<u8>) -> Self {
        Self { v: VERSION, note: ByteBuf::from(note), taken: ChainEnd::default() }
    }

    /// What it says; of a row that was read it can be.
    pub fn said(&self) -> Option<GrantNote> {
        GrantNote::decode(&self.note).ok()
    }
}

/// From its row.
pub(crate) fn decode_grant(key: &[u8], bytes: &[u8]) -> Result<GrantRow, LedgerError> {
    let row: GrantRow = decode_versioned(key, bytes, VERSION)?;
    match row.said() {
        Some(_) => Ok(row),
        None => Err(LedgerError::BadRow(data_encoding::HEXLOWER.encode(key), "its note".into())),
    }
}

/// Somebody who is said to keep a slot: asked for its bytes, and counting for nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hearsay {
    /// Piece or stripe.
    pub piece: PieceId,
    /// The slot.
    pub slot: u16,
    /// Who.
    pub holder: Holder,
}

impl Ledger {
    /// Who is said to keep slots; not written down.
    pub fn set_hearsay(&self, said: Vec<Hearsay>) {
        let mut by_piece: HashMap<PieceId, Vec<(u16, Holder)>> = HashMap::new();
        for Hearsay { piece, slot, holder } in said {
            by_piece.entry(piece).or_default().push((slot, holder));
        }
        self.state.write().hearsay = by_piece;
    }

    /// Who is said to keep slots of a piece, or of a stripe.
    pub fn hearsay(&self, id: &PieceId) -> Vec<(u16, Holder)> {
        self.state.read().hearsay.get(id).cloned().unwrap_or_default()
    }

    /// Every capability that was ever granted.
    pub fn grants(&self) -> Vec<(CapabilityId, GrantRow)> {
        self.state.read().grants.iter().map(|(id, row)| (*id, row.clone())).collect()
    }

    /// Grants a capability, or says something else of it.
    pub fn set_grant(
        &self,
        id: CapabilityId,
        note: &GrantNote,
        entry: impl FnOnce(&[u8], &ChainEnd) -> Result<(Vec<u8>, ChainEnd), String>,
    ) -> Result<(), LedgerError> {
        let _w = self.writer.lock();
        let (before, chain) = {
            let state = self.state.read();
            (state.grants.get(&id).cloned(), state.chain)
        };
        let note = note.encode().map_err(|error| LedgerError::Entry(error.to_string()))?;
        let (bytes, end) = entry(&note, &chain).map_err(LedgerError::Entry)?;
        let taken = before.map(|row| row.taken).unwrap_or_default();
        let row = GrantRow { taken, ..GrantRow::new(note) };
        self.rows.commit(vec![
            (key(WATCH, &id), Some(encode(&row))),
            (key(LOG, &chain.length.to_be_bytes()), Some(bytes)),
            (CHAIN.to_vec(), Some(encode(&end))),
        ])?;
        let mut state = self.state.write();
        state.grants.insert(id, row);
        state.chain = end;
        drop(state);
        self.bump();
        Ok(())
    }

    /// Entries of its holder before `taken` were seen to.
    pub fn set_taken(&self, id: &CapabilityId, taken: ChainEnd) -> Result<(), LedgerError> {
        let _w = self.writer.lock();
        let Some(mut row) = self.state.read().grants.get(id).cloned() else { return Ok(()) };
        if row.taken == taken {
            return Ok(());
        }
        row.taken = taken;
        self.rows.commit(vec![(key(WATCH, id), Some(encode(&row)))])?;
        self.state.write().grants.insert(*id, row);
        self.bump();
        Ok(())
    }
}
