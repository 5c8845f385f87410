//! Public pieces: which rows move together when something is published, and when it is withdrawn.
//!
//! ```text
//! published   piece/<piece> + "public" in the log, for each piece            the place worker fills their slots
//! withdrawn   "remove" for each slot and the piece itself + rel/<deal>, piece/<piece> gone
//! ```
//!
//! The parts of a large publication are several batches; one that a crash cut short lacks pieces, says so, and can be withdrawn.

use holdfast_content::placement::STRIPE_ITSELF;

use super::stripes::{Batch, Said, Sign};
use super::{Ledger, LedgerError, PIECE, PieceId, PieceRow, encode, hex, key};

/// Pieces in one batch.
const BATCH_PIECES: usize = 256;

/// A piece that is to be public.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewPublic {
    /// Its random name.
    pub id: PieceId,
    /// Its bytes.
    pub raw_len: u64,
    /// Of which publication it is, encoded.
    pub note: Vec<u8>,
}

impl Ledger {
    /// Takes note of public pieces, each of which wants `copies` slots.
    pub fn add_public(
        &self,
        pieces: &[NewPublic],
        copies: u16,
        sign: &mut Sign<'_>,
    ) -> Result<(), LedgerError> {
        for part in pieces.chunks(BATCH_PIECES) {
            let _w = self.writer.lock();
            let chain = {
                let state = self.state.read();
                if let Some(known) = part.iter().find(|piece| state.pieces.contains_key(&piece.id)) {
                    return Err(LedgerError::BadRow(hex(&known.id), "a piece of this name is there".into()));
                }
                state.chain
            };
            let mut batch = Batch { rows: Vec::new(), chain };
            let mut rows = Vec::new();
            for new in part {
                let row = PieceRow::public(new.raw_len, copies, new.note.clone());
                let said = Said { id: new.id, row: &row, slot: STRIPE_ITSELF, holder: None };
                batch.entry(said, sign)?;
                batch.rows.push((key(PIECE, &new.id), Some(encode(&row))));
                rows.push((new.id, row));
            }
            let (changes, end) = batch.finish();
            self.rows.commit(changes)?;
            let mut state = self.state.write();
            rows.into_iter().for_each(|(id, row)| state.put(id, row));
            state.chain = end;
            drop(state);
            self.bump();
        }
        Ok(())
    }

    /// Gives public pieces up; their deals are ended once a published head says so.
    pub fn withdraw_public(&self, ids: &[PieceId], sign: &mut Sign<'_>) -> Result<(), LedgerError> {
        for part in ids.chunks(BATCH_PIECES) {
            let _w = self.writer.lock();
            let (rows, chain) = {
                let state = self.state.read();
                let rows = part.iter().filter_map(|id| Some((*id, state.pieces.get(id)?.clone())));
                (rows.filter(|(_, row)| row.public.is_some()).collect::<Vec<_>>(), state.chain)
            };
            let mut batch = Batch { rows: Vec::new(), chain };
            for (id, row) in &rows {
                batch.remove_holders(*id, row, sign)?;
                batch.entry(Said { id: *id, row, slot: STRIPE_ITSELF, holder: None }, sign)?;
                batch.rows.push((key(PIECE, id), None));
            }
            let (changes, end) = batch.finish();
            self.rows.commit(changes)?;
            let mut state = self.state.write();
            for (id, _) in &rows {
                state.forget(id);
                state.given_up.insert(*id);
            }
            state.chain = end;
            drop(state);
            self.bump();
        }
        Ok(())
    }

    /// The public pieces as they stand.
    pub fn public_pieces(&self) -> Vec<(PieceId, PieceRow)> {
        let state = self.state.read();
        let public = state.pieces.iter().filter(|(_, row)| row.public.is_some());
        public.map(|(id, row)| (*id, row.clone())).collect()
    }
}
