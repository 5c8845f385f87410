//! Changes from copies to stripes and back: which rows move together.
//!
//! ```text
//! made       piece/<stripe> + "stripe" in the log          its slots are open; the place worker fills them
//! surplus    "remove" for each copy + rel/<deal> + piece/<piece> without slots      while the stripe alone is enough
//! dissolved  "remove" for each slot and the stripe + rel/<deal>, piece/<stripe> gone  while copies alone are enough
//! ```
//!
//! Each line is one batch, decided under the writer's lock by the same count as everything else ([`super::survival`]): so the
//! last good form of a piece is never given up, whatever the caller believed. Deals are ended later ([`super::release`]), when
//! a published head says that they no longer count. A piece stays reachable throughout: nothing that refers to it changes.

use holdfast_content::placement::{ChainEnd, STRIPE_ITSELF};
use holdfast_net::SignedProposal;

use super::release::RELEASE;
use super::{
    CHAIN, Form, Holder, Intent, LOG, Ledger, LedgerError, LogRow, PIECE, PieceId, PieceRow, Release,
    SlotRow, StripeRow, encode, hex, key,
};

/// What an entry says of a row: which slot, and who held it (nobody, where it is about a stripe itself).
pub struct Said<'a> {
    /// The piece or stripe.
    pub id: PieceId,
    /// Its row.
    pub row: &'a PieceRow,
    /// The slot, or [`STRIPE_ITSELF`].
    pub slot: u16,
    /// Who held it.
    pub holder: Option<&'a Holder>,
}

/// Signs an entry that follows the given end of the chain; gives its bytes and the new end.
pub type Sign<'a> = dyn FnMut(Said<'_>, &ChainEnd) -> Result<(Vec<u8>, ChainEnd), String> + 'a;

/// Rows of a batch that adds entries to the log.
pub(super) struct Batch {
    pub(super) rows: Vec<LogRow>,
    pub(super) chain: ChainEnd,
}

impl Batch {
    pub(super) fn entry(&mut self, said: Said<'_>, sign: &mut Sign<'_>) -> Result<(), LedgerError> {
        let number = self.chain.length;
        if let Some(holder) = said.holder {
            self.rows.push(Release::of(holder, number).row());
        }
        let (bytes, end) = sign(said, &self.chain).map_err(LedgerError::Entry)?;
        self.rows.push((key(LOG, &number.to_be_bytes()), Some(bytes)));
        self.chain = end;
        Ok(())
    }

    /// "Removed" for every holder of a row, and the deals that are to be ended.
    pub(super) fn remove_holders(
        &mut self,
        id: PieceId,
        row: &PieceRow,
        sign: &mut Sign<'_>,
    ) -> Result<(), LedgerError> {
        for (slot, holder) in row.holders() {
            self.entry(Said { id, row, slot, holder: Some(holder) }, sign)?;
        }
        let intents = row.slots.iter().filter_map(|slot| slot.intent.as_ref());
        self.rows.extend(intents.filter_map(Release::of_intent).map(|release| release.row()));
        Ok(())
    }

    pub(super) fn finish(mut self) -> (Vec<LogRow>, ChainEnd) {
        self.rows.push((CHAIN.to_vec(), Some(encode(&self.chain))));
        (self.rows, self.chain)
    }
}

impl Ledger {
    /// Takes note of a stripe; its slots, with these piece CIDs, are to be placed. Every piece must be known and in no stripe.
    pub fn add_stripe(
        &self,
        id: PieceId,
        mut stripe: StripeRow,
        cids: Vec<Vec<u8>>,
        sign: &mut Sign<'_>,
    ) -> Result<(), LedgerError> {
        let _w = self.writer.lock();
        let unfit = |why: &str| LedgerError::Stripe(hex(&id), why.to_owned());
        let chain = {
            let state = self.state.read();
            let fits = |piece: &super::StripePiece| {
                let row = state.pieces.get(&piece.id);
                row.is_some_and(|row| {
                    row.stripe.is_none() && row.public.is_none() && row.raw_len == piece.len
                }) && !state.striped.contains_key(&piece.id)
            };
            if state.pieces.contains_key(&id) || !stripe.pieces.iter().all(fits) {
                return Err(unfit("a piece that is not there, or is in a stripe already"));
            }
            state.chain
        };
        stripe.entry = chain.length;
        let row = PieceRow::striped(stripe, cids).ok_or_else(|| unfit("its shape"))?;
        let mut batch = Batch { rows: vec![(key(PIECE, &id), Some(encode(&row)))], chain };
        batch.entry(Said { id, row: &row, slot: STRIPE_ITSELF, holder: None }, sign)?;
        let (rows, end) = batch.finish();
        self.rows.commit(rows)?;
        let mut state = self.state.write();
        state.put(id, row);
        state.chain = end;
        drop(state);
        self.bump();
        Ok(())
    }

    /// Gives up a piece's copies, if its stripe alone survives all but the last of the losses that its class wants, where the drive's policy wants
    /// `wanted`. Says whether it did.
    pub fn drop_copies(&self, id: PieceId, wanted: usize, sign: &mut Sign<'_>) -> Result<bool, LedgerError> {
        let _w = self.writer.lock();
        let wanted = self.wanted(&id, wanted);
        let (row, chain) = {
            let state = self.state.read();
            let Some(row) = state.pieces.get(&id).filter(|row| row.stripe.is_none()) else {
                return Ok(false);
            };
            (row.clone(), state.chain)
        };
        if row.slots.is_empty() || self.counting_as(&id, Form::Stripe) < wanted.max(1) {
            return Ok(false);
        }
        let mut batch = Batch { rows: Vec::new(), chain };
        batch.remove_holders(id, &row, sign)?;
        let after = PieceRow { slots: Vec::new(), ..row };
        batch.rows.push((key(PIECE, &id), Some(encode(&after))));
        let (rows, end) = batch.finish();
        self.rows.commit(rows)?;
        let mut state = self.state.write();
        state.put(id, after);
        state.chain = end;
        drop(state);
        self.bump();
        Ok(true)
    }

    /// Gives up a stripe, if each of its pieces is gone or survives by its copies alone all but the last of the losses that its class wants, where the
    /// drive's policy wants `wanted`.
    /// Says whether it did.
    pub fn dissolve(&self, id: PieceId, wanted: usize, sign: &mut Sign<'_>) -> Result<bool, LedgerError> {
        let _w = self.writer.lock();
        let (row, chain) = {
            let state = self.state.read();
            let Some(row) = state.pieces.get(&id) else { return Ok(false) };
            (row.clone(), state.chain)
        };
        let Some(stripe) = &row.stripe else { return Ok(false) };
        let safe = |piece: &super::StripePiece| {
            self.piece(&piece.id).is_none()
                || self.counting_as(&piece.id, Form::Copies) >= self.wanted(&piece.id, wanted).max(1)
        };
        if !stripe.pieces.iter().all(safe) {
            return Ok(false);
        }
        let mut batch = Batch { rows: vec![(key(PIECE, &id), None)], chain };
        batch.remove_holders(id, &row, sign)?;
        batch.entry(Said { id, row: &row, slot: STRIPE_ITSELF, holder: None }, sign)?;
        let (rows, end) = batch.finish();
        self.rows.commit(rows)?;
        let mut state = self.state.write();
        state.forget(&id);
        state.chain = end;
        drop(state);
        self.bump();
        Ok(true)
    }

    /// A piece wants at least so many copies.
    pub fn want_copies(&self, id: PieceId, copies: u16) -> Result<(), LedgerError> {
        let enough = |row: &PieceRow| row.stripe.is_some() || row.slots.len() >= usize::from(copies);
        if self.piece(&id).is_none_or(|row| enough(&row)) {
            return Ok(());
        }
        self.change_piece(id, |row| {
            if !enough(row) {
                row.slots.resize(copies.into(), SlotRow::default());
            }
            Ok(Vec::new())
        })
    }

    /// Every stripe as it stands.
    pub fn stripes(&self) -> Vec<(PieceId, PieceRow)> {
        let state = self.state.read();
        let stripes = state.pieces.iter().filter(|(_, row)| row.stripe.is_some());
        stripes.map(|(id, row)| (*id, row.clone())).collect()
    }
}

impl Release {
    /// The deal that was proposed and is not gone on with: its provider may have taken it, and may keep the slot. No head ever
    /// named it.
    pub(super) fn of_intent(intent: &Intent) -> Option<Self> {
        let signed = SignedProposal::from_bytes(&intent.proposal).ok()?;
        let (provider, deal) = (intent.provider.clone(), signed.deal_id().0.to_vec());
        Some(Self { v: 1, provider, deal, entry: 0, ends_at: signed.proposal().end })
    }

    /// The holder's deal, which the log's entry of this number ends.
    pub(super) fn of(holder: &Holder, entry: u64) -> Self {
        let (provider, deal) = (holder.provider.clone(), holder.deal.clone());
        Self { v: 1, provider, deal, entry, ends_at: holder.ends_at }
    }

    /// As it is kept.
    pub(super) fn row(&self) -> LogRow {
        (key(RELEASE, &self.deal), Some(encode(self)))
    }
}
