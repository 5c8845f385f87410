//! Private links: what was shared, and what was taken back.
//!
//! ```text
//! made, taken back      share/<id> + "share" in the log
//! ```

use holdfast_content::placement::ChainEnd;
use holdfast_content::share::{ShareId, ShareNote};
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

use super::{CHAIN, LOG, Ledger, LedgerError, decode_versioned, encode, key};

pub(super) const SHARE: &[u8] = b"share/";
const VERSION: u8 = 1;

/// A link's row.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShareRow {
    /// Version of this row.
    pub v: u8,
    /// As the entry in the placement log says it ([`ShareNote`]).
    pub note: ByteBuf,
}

impl ShareRow {
    /// Of a note.
    pub fn new(note: Vec<u8>) -> Self {
        Self { v: VERSION, note: ByteBuf::from(note) }
    }

    /// What it says; of a row that was read it can be.
    pub fn said(&self) -> Option<ShareNote> {
        ShareNote::decode(&self.note).ok()
    }
}

/// From its row.
pub(crate) fn decode_share(key: &[u8], bytes: &[u8]) -> Result<ShareRow, LedgerError> {
    let row: ShareRow = decode_versioned(key, bytes, VERSION)?;
    match row.said() {
        Some(_) => Ok(row),
        None => Err(LedgerError::BadRow(data_encoding::HEXLOWER.encode(key), "its note".into())),
    }
}

impl Ledger {
    /// Every link that was ever made.
    pub fn shares(&self) -> Vec<(ShareId, ShareNote)> {
        let state = self.state.read();
        state.shares.iter().filter_map(|(id, row)| Some((*id, row.said()?))).collect()
    }

    /// Makes a link, or says something else of it.
    pub fn set_share(
        &self,
        id: ShareId,
        note: &ShareNote,
        entry: impl FnOnce(&[u8], &ChainEnd) -> Result<(Vec<u8>, ChainEnd), String>,
    ) -> Result<(), LedgerError> {
        let _w = self.writer.lock();
        let chain = self.state.read().chain;
        let note = note.encode().map_err(|error| LedgerError::Entry(error.to_string()))?;
        let (bytes, end) = entry(&note, &chain).map_err(LedgerError::Entry)?;
        let row = ShareRow::new(note);
        self.rows.commit(vec![
            (key(SHARE, &id), Some(encode(&row))),
            (key(LOG, &chain.length.to_be_bytes()), Some(bytes)),
            (CHAIN.to_vec(), Some(encode(&end))),
        ])?;
        let mut state = self.state.write();
        state.shares.insert(id, row);
        state.chain = end;
        drop(state);
        self.bump();
        Ok(())
    }
}
