//! The code of stripes: `k` data shards and `m` parity shards, of which any `k` give back all.
//!
//! ```text
//! shard_len   the longest piece's length, rounded up to 64
//! shard i<k   piece i, extended with zeros to shard_len        stored without the zeros
//! shard k+j   parity j: Reed-Solomon over GF(2^16), as `reed-solomon-simd` 3 makes it at its high rate
//! ```
//!
//! Bytes `64 b .. 64 b + 64` of every shard form a code word group of their own, so a range that begins and ends at such
//! bounds is coded without the rest: that is what reads and bounded memory rest on. Promises: what is rebuilt equals what
//! was lost, if the given shards are the stripe's. Refuses to guess: a code does not tell which shard was wrong; piece CIDs
//! and block CIDs do. The high rate is chosen for every shape, because the two rates make different parity.

use reed_solomon_simd::engine::DefaultEngine;
use reed_solomon_simd::rate::{HighRateDecoder, HighRateEncoder, RateDecoder, RateEncoder};

/// Shards are whole numbers of these.
pub const SHARD_UNIT_BYTES: u64 = 64;
/// The most data slots of a stripe that this program makes; its manifest fits a placement entry.
pub const STRIPE_DATA_MAX: u16 = 20;
/// The most parity slots.
pub const STRIPE_PARITY_MAX: u16 = 9;

/// Why shards cannot be coded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum StripeError {
    /// No pieces, no parity, too many of either, or an empty piece.
    #[error("no such stripe: {data} data and {parity} parity slots")]
    Shape {
        /// Data slots asked for.
        data: usize,
        /// Parity slots asked for.
        parity: usize,
    },
    /// The pieces are longer than a slot can be.
    #[error("a shard of {0} bytes is too long")]
    TooLong(u64),
    /// Shards of one call differ in length, are empty, or are no whole number of units.
    #[error("shards of one range must have one length, a multiple of {SHARD_UNIT_BYTES} bytes")]
    Lengths,
    /// Fewer than `k` different shards, or one that the stripe does not have.
    #[error("{have} of the {need} shards that are needed")]
    TooFew {
        /// Shards given.
        have: usize,
        /// Data slots of the stripe.
        need: usize,
    },
}

/// How long a stripe's slots are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StripeShape {
    lens: Vec<u64>,
    parity: u16,
    shard_len: u64,
}

impl StripeShape {
    /// A stripe over pieces of these lengths.
    pub fn new(lens: Vec<u64>, parity: u16) -> Result<StripeShape, StripeError> {
        let wrong = StripeError::Shape { data: lens.len(), parity: parity.into() };
        let slots = lens.len().checked_add(parity.into()).ok_or(wrong)?;
        if lens.is_empty() || parity == 0 || slots > crate::manifest::MANIFEST_SLOTS_MAX || lens.contains(&0)
        {
            return Err(wrong);
        }
        let longest = lens.iter().copied().max().unwrap_or(0);
        let shard_len = longest
            .checked_next_multiple_of(SHARD_UNIT_BYTES)
            .filter(|len| *len <= crate::mask::SLOT_BYTES_MAX)
            .ok_or(StripeError::TooLong(longest))?;
        Ok(StripeShape { lens, parity, shard_len })
    }

    /// Data slots.
    pub fn data(&self) -> u16 {
        // The number of slots is bounded by the manifest's.
        u16::try_from(self.lens.len()).unwrap_or(u16::MAX)
    }

    /// Parity slots.
    pub fn parity(&self) -> u16 {
        self.parity
    }

    /// All slots.
    pub fn slots(&self) -> u16 {
        self.data().saturating_add(self.parity)
    }

    /// The length that every shard has for the code.
    pub fn shard_len(&self) -> u64 {
        self.shard_len
    }

    /// The length of a slot as it is stored: a data slot ends where its piece does.
    pub fn slot_len(&self, slot: u16) -> u64 {
        self.lens.get(usize::from(slot)).copied().unwrap_or(self.shard_len)
    }

    /// The smallest range that can be coded by itself and covers this one: where it begins, and its length.
    pub fn aligned(&self, offset: u64, len: u64) -> (u64, u64) {
        let from = offset - offset % SHARD_UNIT_BYTES;
        let end = offset.saturating_add(len).min(self.shard_len);
        let end = end.checked_next_multiple_of(SHARD_UNIT_BYTES).unwrap_or(self.shard_len);
        (from, end.saturating_sub(from))
    }

    /// How many bytes of a range a slot stores; what follows are zeros.
    pub fn stored(&self, slot: u16, offset: u64, len: u64) -> u64 {
        self.slot_len(slot).saturating_sub(offset).min(len)
    }
}

fn check_len(len: usize) -> Result<(), StripeError> {
    if len == 0 || !(len as u64).is_multiple_of(SHARD_UNIT_BYTES) {
        return Err(StripeError::Lengths);
    }
    Ok(())
}

/// The parity of one range: `data` are that range of every data shard, in order, zeros included.
pub fn encode<T: AsRef<[u8]>>(data: &[T], parity: u16) -> Result<Vec<Vec<u8>>, StripeError> {
    let wrong = StripeError::Shape { data: data.len(), parity: parity.into() };
    let len = data.first().map_or(0, |shard| shard.as_ref().len());
    check_len(len)?;
    if data.iter().any(|shard| shard.as_ref().len() != len) {
        return Err(StripeError::Lengths);
    }
    let mut encoder = HighRateEncoder::new(data.len(), parity.into(), len, DefaultEngine::new(), None)
        .map_err(|_| wrong)?;
    for shard in data {
        encoder.add_original_shard(shard).map_err(|_| StripeError::Lengths)?;
    }
    let coded = encoder.encode().map_err(|_| wrong)?;
    Ok(coded.recovery_iter().map(<[u8]>::to_vec).collect())
}

/// One range of the wanted slots, out of the same range of any `data` others.
pub fn rebuild(
    data: u16,
    parity: u16,
    have: &[(u16, &[u8])],
    want: &[u16],
) -> Result<Vec<Vec<u8>>, StripeError> {
    let too_few = StripeError::TooFew { have: have.len(), need: data.into() };
    let len = have.first().map_or(0, |(_, shard)| shard.len());
    check_len(len)?;
    let slots = data.saturating_add(parity);
    if have.len() < usize::from(data) || want.iter().any(|slot| *slot >= slots) {
        return Err(too_few);
    }
    let originals = originals(data, parity, have, len)?;
    let wants_parity = want.iter().any(|slot| *slot >= data);
    let coded = if wants_parity { encode(&originals, parity)? } else { Vec::new() };
    want.iter()
        .map(|slot| {
            let shard = match slot.checked_sub(data) {
                None => originals.get(usize::from(*slot)),
                Some(parity) => coded.get(usize::from(parity)),
            };
            shard.cloned().ok_or(too_few)
        })
        .collect()
}

/// Every data shard's range, decoded where it was not given.
fn originals(data: u16, parity: u16, have: &[(u16, &[u8])], len: usize) -> Result<Vec<Vec<u8>>, StripeError> {
    let wrong = StripeError::Shape { data: data.into(), parity: parity.into() };
    let too_few = StripeError::TooFew { have: have.len(), need: data.into() };
    let mut shards: Vec<Option<Vec<u8>>> = vec![None; data.into()];
    let mut decoder = HighRateDecoder::new(data.into(), parity.into(), len, DefaultEngine::new(), None)
        .map_err(|_| wrong)?;
    for (slot, shard) in have {
        if shard.len() != len {
            return Err(StripeError::Lengths);
        }
        match slot.checked_sub(data) {
            None => {
                decoder.add_original_shard((*slot).into(), shard).map_err(|_| too_few)?;
                if let Some(place) = shards.get_mut(usize::from(*slot)) {
                    *place = Some(shard.to_vec());
                }
            }
            Some(n) => decoder.add_recovery_shard(n.into(), shard).map_err(|_| too_few)?,
        }
    }
    if shards.iter().any(Option::is_none) {
        let decoded = decoder.decode().map_err(|_| too_few)?;
        for (slot, shard) in decoded.restored_original_iter() {
            if let Some(place) = shards.get_mut(slot) {
                *place = Some(shard.to_vec());
            }
        }
    }
    shards.into_iter().collect::<Option<_>>().ok_or(too_few)
}

#[cfg(test)]
mod tests;
