//! Giving copies up: the second half of retention.
//!
//! Promises: the entries that say "removed", the deals that are still to be ended and the piece's own row change in one batch; a deal is told to its
//! provider only after a published head says that the copy no longer counts, so that no restore looks for it.

use holdfast_content::placement::{ChainEnd, STRIPE_ITSELF};
use serde::{Deserialize, Serialize};

use super::{
    CHAIN, Holder, LOG, Ledger, LedgerError, PIECE, Peer, PieceId, PieceRow, decode_release, encode, key,
};

pub(super) const RELEASE: &[u8] = b"rel/";

/// A deal that is to be ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Release {
    /// Version of this row.
    pub v: u8,
    /// Who keeps the copy.
    #[serde(with = "serde_bytes")]
    pub provider: Peer,
    /// The deal's id.
    #[serde(with = "serde_bytes")]
    pub deal: Vec<u8>,
    /// The log's entry that says so: a head that covers it was published before the provider is told.
    pub entry: u64,
    /// When the deal ends by itself, unix seconds.
    pub ends_at: u64,
}

impl Ledger {
    /// Whether a piece is here, or was.
    pub(super) fn knows(&self, id: &PieceId) -> bool {
        let state = self.state.read();
        state.pieces.contains_key(id) || state.given_up.contains(id)
    }

    /// Takes a piece out. `entry` signs that a slot's holder no longer counts, or (of nobody) that the piece has no class any more: it gets the end of the
    /// chain that it follows.
    pub fn give_up(
        &self,
        id: PieceId,
        mut entry: impl FnMut(&PieceRow, u16, Option<&Holder>, &ChainEnd) -> Result<(Vec<u8>, ChainEnd), String>,
    ) -> Result<(), LedgerError> {
        let _w = self.writer.lock();
        let (row, mut chain) = {
            let state = self.state.read();
            let Some(row) = state.pieces.get(&id).cloned() else { return Ok(()) };
            (row, state.chain)
        };
        let mut rows = vec![(key(PIECE, &id), None)];
        for (slot, holder) in row.holders() {
            let (bytes, end) = entry(&row, slot, Some(holder), &chain).map_err(LedgerError::Entry)?;
            let release = Release {
                v: 1,
                provider: holder.provider.clone(),
                deal: holder.deal.clone(),
                entry: chain.length,
                ends_at: holder.ends_at,
            };
            rows.push((key(LOG, &chain.length.to_be_bytes()), Some(bytes)));
            rows.push((key(RELEASE, &holder.deal), Some(encode(&release))));
            chain = end;
        }
        if row.class.is_some() {
            let (bytes, end) = entry(&row, STRIPE_ITSELF, None, &chain).map_err(LedgerError::Entry)?;
            rows.push((key(LOG, &chain.length.to_be_bytes()), Some(bytes)));
            chain = end;
        }
        let intents = row.slots.iter().filter_map(|slot| slot.intent.as_ref());
        rows.extend(intents.filter_map(Release::of_intent).map(|release| release.row()));
        rows.push((CHAIN.to_vec(), Some(encode(&chain))));
        self.rows.commit(rows)?;
        let mut state = self.state.write();
        state.forget(&id);
        state.given_up.insert(id);
        state.chain = chain;
        drop(state);
        self.bump();
        Ok(())
    }

    /// Deals that are to be ended and may be: a published head covers them.
    pub fn releases(&self) -> Result<Vec<Release>, LedgerError> {
        let published = self.state.read().log_published;
        let mut all = self.releases_all()?;
        all.retain(|release| release.entry < published);
        Ok(all)
    }

    /// All deals that are to be ended.
    pub fn releases_all(&self) -> Result<Vec<Release>, LedgerError> {
        self.rows.scan(RELEASE)?.iter().map(|(key, value)| decode_release(key, value)).collect()
    }

    /// The provider knows it, or the deal is over.
    pub fn released(&self, deal: &[u8]) -> Result<(), LedgerError> {
        Ok(self.rows.commit(vec![(key(RELEASE, deal), None)])?)
    }
}
