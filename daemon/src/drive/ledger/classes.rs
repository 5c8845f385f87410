//! How many losses each piece has to survive: which rows move together when that becomes more.
//!
//! ```text
//! raised      piece/<piece> + "class" in the log; its slots become as many as it wants, where it is not a stripe's
//! ```
//!
//! A class only rises (`holdfast_content::class`); a piece of which nothing is said wants what the drive's policy asks, and a stripe what the piece in
//! it that wants most does.

use holdfast_content::class::Class;
use holdfast_content::placement::ChainEnd;

use super::rows::CLASS_VERSION;
use super::{CHAIN, LOG, Ledger, LedgerError, LogRow, PieceId, PieceRow, SlotRow, State, encode, key};

impl State {
    fn class(&self, id: &PieceId) -> Class {
        let Some(row) = self.pieces.get(id) else { return Class::DRIVE };
        let Some(stripe) = &row.stripe else { return row.class() };
        let pieces = stripe.pieces.iter().filter_map(|piece| self.pieces.get(&piece.id));
        pieces.map(PieceRow::class).reduce(Class::join).unwrap_or(Class::DRIVE)
    }
}

/// Copies of a class where the drive's policy asks for `drive` of them.
pub fn copies(class: Class, drive: u16) -> u16 {
    let losses = u8::try_from(drive.saturating_sub(1)).unwrap_or(u8::MAX);
    u16::from(class.losses(losses)) + 1
}

impl PieceRow {
    /// What it has to survive.
    pub fn class(&self) -> Class {
        self.class.and_then(Class::from_byte).unwrap_or(Class::DRIVE)
    }

    /// The same row of a piece, stripes and public pieces apart, in another class.
    #[must_use]
    pub fn of_class(self, class: Class) -> Self {
        // Once said, it is said of the drive's policy, too: the log has a word of it, which goes with the piece.
        let unsaid = class == Class::DRIVE && self.class.is_none();
        match unsaid || self.stripe.is_some() || self.public.is_some() {
            true => self,
            false => Self { v: CLASS_VERSION, class: Some(class.to_byte()), ..self },
        }
    }
}

impl Ledger {
    /// What a piece has to survive, or a stripe for the pieces in it.
    pub fn class(&self, id: &PieceId) -> Class {
        self.state.read().class(id)
    }

    /// Losses that take a piece which is as safe as it should be, where the drive's policy asks for `drive`: one more than it survives.
    pub fn wanted(&self, id: &PieceId, drive: usize) -> usize {
        let drive = u16::try_from(drive).unwrap_or(u16::MAX);
        copies(self.class(id), drive).into()
    }

    /// The highest class of all pieces, and the drive's policy.
    pub fn highest_class(&self) -> Class {
        let state = self.state.read();
        state.pieces.values().map(PieceRow::class).fold(Class::DRIVE, Class::join)
    }

    /// Pieces that have a class of their own.
    pub fn classes(&self) -> Vec<(PieceId, Class)> {
        let state = self.state.read();
        let classed = state.pieces.iter().filter(|(_, row)| row.class.is_some());
        classed.map(|(id, row)| (*id, row.class())).collect()
    }

    /// Takes note of a finished piece of a class; known pieces are left as they are. `entry` signs what the log says of it.
    pub fn add_classed(
        &self,
        id: PieceId,
        raw_len: u64,
        class: Class,
        drive: u16,
        entry: impl FnOnce(Class, &ChainEnd) -> Result<(Vec<u8>, ChainEnd), String>,
    ) -> Result<(), LedgerError> {
        if class == Class::DRIVE {
            return self.add_piece(id, raw_len, copies(class, drive));
        }
        let _w = self.writer.lock();
        if self.knows(&id) {
            return Ok(());
        }
        let chain = self.state.read().chain;
        let (bytes, end) = entry(class, &chain).map_err(LedgerError::Entry)?;
        let row = PieceRow::new(raw_len, copies(class, drive)).of_class(class);
        self.put_piece(id, row, said(&chain, bytes, &end), Some(end))
    }

    /// The piece is to be as safe as `class` asks, where the drive's policy asks for `drive` copies. `entry` signs what the log says of it. Says whether it
    /// was not before.
    pub fn raise(
        &self,
        id: PieceId,
        class: Class,
        drive: u16,
        entry: impl FnOnce(Class, &ChainEnd) -> Result<(Vec<u8>, ChainEnd), String>,
    ) -> Result<bool, LedgerError> {
        let _w = self.writer.lock();
        let (row, chain, striped) = {
            let state = self.state.read();
            let Some(row) = state.pieces.get(&id).cloned() else { return Ok(false) };
            (row, state.chain, state.striped.contains_key(&id))
        };
        let after = row.class().join(class);
        if after == row.class() || row.stripe.is_some() || row.public.is_some() {
            return Ok(false);
        }
        let (bytes, end) = entry(after, &chain).map_err(LedgerError::Entry)?;
        let mut row = row.of_class(after);
        let wanted = usize::from(copies(after, drive));
        // Of one that a stripe keeps the stripe's own rule sees to it.
        if row.slots.len() < wanted && !(striped && row.slots.is_empty()) {
            row.slots.resize(wanted, SlotRow::default());
        }
        self.put_piece(id, row, said(&chain, bytes, &end), Some(end))?;
        Ok(true)
    }
}

/// An entry of the log, and what the next one follows.
fn said(chain: &ChainEnd, bytes: Vec<u8>, end: &ChainEnd) -> Vec<LogRow> {
    vec![(key(LOG, &chain.length.to_be_bytes()), Some(bytes)), (CHAIN.to_vec(), Some(encode(end)))]
}
