//! Where what a link shows lies: its pieces and the stripes that they are in, who keeps their slots, whether its blocks have moved.
//!
//! Promises: a piece's copies are named, and with its stripe all slots of that, since a lost one is decoded from the others; of slots only those that somebody
//! keeps who was not found to fail, with their seeds and no other's. Blocks are followed once somebody keeps all that they moved to, and looked for until then.

use std::collections::HashMap;
use std::sync::Arc;

use anyhow::Context as _;
use holdfast_content::block::BlockAt;
use holdfast_content::keys::SecretKey32;
use holdfast_content::share::index::ShareIndex;
use serde_bytes::ByteBuf;

use super::Loaded;
use crate::drive::ledger::{Ledger, Peer, PieceId, PieceRow, ProviderRow, ProviderState};
use crate::drive::slots;
use crate::watch::bundle::{Held, Piece, Shard, Slot};

/// See the module.
pub struct Places {
    /// Who keeps slots, in the order of the numbers that the pieces have for them.
    pub providers: Vec<(Peer, ProviderRow)>,
    /// Pieces and stripes.
    pub pieces: Vec<Piece>,
}

impl Places {
    /// Of what an index shows, in a drive with this mask key.
    pub fn of(ledger: &Ledger, mask: &[u8; 32], index: &ShareIndex) -> anyhow::Result<Places> {
        let mut given = Given { ledger, mask, providers: Vec::new(), index: HashMap::new() };
        let mut pieces: Vec<Piece> = Vec::new();
        for piece in index.pieces() {
            if let Some(row) = ledger.piece(&piece) {
                pieces.extend(given.piece(piece, &row)?);
            }
            if let Some((stripe, row, _)) = ledger.stripe_of(&piece)
                && !pieces.iter().any(|known| known.id == stripe)
            {
                pieces.extend(given.piece(stripe, &row)?);
            }
        }
        Ok(Places { providers: given.providers, pieces })
    }
}

/// Providers, as they come up.
struct Given<'a> {
    ledger: &'a Ledger,
    mask: &'a [u8; 32],
    providers: Vec<(Peer, ProviderRow)>,
    index: HashMap<Peer, u16>,
}

impl Given<'_> {
    fn number(&mut self, peer: &Peer) -> anyhow::Result<Option<u16>> {
        if let Some(number) = self.index.get(peer) {
            return Ok(Some(*number));
        }
        let row = self.ledger.provider(peer);
        let Some(row) = row.filter(|row| !matches!(row.state, ProviderState::Removed)) else {
            return Ok(None);
        };
        let number = u16::try_from(self.providers.len()).context("too many providers")?;
        self.providers.push((peer.clone(), row));
        self.index.insert(peer.clone(), number);
        Ok(Some(number))
    }

    /// A piece or a stripe of which somebody keeps a slot: seeds of those slots, and no others.
    fn piece(&mut self, id: PieceId, row: &PieceRow) -> anyhow::Result<Option<Piece>> {
        let mut slots = Vec::new();
        for (slot, n) in row.slots.iter().zip(0u16..) {
            let mut held = None;
            if let Some(holder) = slot.holder.as_ref().filter(|holder| holder.failed.is_none())
                && let Ok(deal) = <[u8; 32]>::try_from(holder.deal.as_slice())
                && let Some(provider) = self.number(&holder.provider)?
            {
                held = Some(Held { provider, deal, ends: holder.ends_at });
            }
            let seed = held.as_ref().map(|_| slots::seed(self.mask, id, n));
            let seed = seed.map(|seed| SecretKey32::from_bytes(*seed.as_bytes()));
            slots.push(Slot { cid: ByteBuf::new(), seed, held });
        }
        let shards = row.stripe.iter().flat_map(|stripe| &stripe.pieces);
        let shards = shards.map(|piece| Shard { id: piece.id, len: piece.len }).collect();
        let any = slots.iter().any(|slot| slot.held.is_some());
        Ok(any.then_some(Piece { id, len: row.raw_len, shards, slots }))
    }
}

/// The blocks that these indices show; nothing where one is not known.
pub fn blocks(indices: impl IntoIterator<Item = Option<Loaded>>) -> Option<Vec<[u8; 32]>> {
    let mut all = Vec::new();
    for loaded in indices {
        all.extend(loaded?.index.chunks().map(|chunk| *chunk.digest()));
    }
    Some(all)
}

/// Where the blocks of a link lie.
pub enum Moved {
    /// Where its index says.
    No,
    /// Elsewhere, and somebody keeps every piece that they moved to: the index as it is now.
    To(Loaded),
    /// Elsewhere, where nobody keeps them yet: to be looked at again.
    NotYet,
}

impl Moved {
    /// The index with its blocks where `locate` finds them, if they moved.
    pub fn look<E>(
        ledger: &Ledger,
        loaded: &Loaded,
        locate: impl FnMut(&[u8; 32]) -> Result<Option<BlockAt>, E>,
    ) -> anyhow::Result<Moved>
    where
        anyhow::Error: From<E>,
    {
        let found = loaded.index.moved(locate)?;
        let Some(index) = found.filter(|index| *index != *loaded.index) else { return Ok(Moved::No) };
        let kept = |id: PieceId| {
            let copies = ledger.piece(&id).is_some_and(|row| row.holders().any(|(_, h)| h.failed.is_none()));
            copies || ledger.stripe_of(&id).is_some()
        };
        if !index.pieces().all(kept) {
            return Ok(Moved::NotYet);
        }
        let bytes = index.encode()?;
        Ok(Moved::To(Loaded { index: Arc::new(index), bytes: Arc::new(bytes) }))
    }

    /// The commit whose places the link has after a look in the time of this one.
    pub fn looked_at(&self, published: Option<u64>) -> Option<u64> {
        match self {
            Moved::NotYet => None,
            Moved::No | Moved::To(_) => published,
        }
    }
}

/// Whether blocks are looked for: those of a link that has the places of `has` (absent: that was never looked at), with this commit published.
pub fn is_to_be_looked_at(has: Option<Option<u64>>, published: Option<u64>) -> bool {
    has.flatten().is_none_or(|has| Some(has) != published)
}

#[cfg(test)]
mod tests;
