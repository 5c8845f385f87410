//! What a watcher is given: pieces and stripes with their slots' seeds, who keeps them, and permits; renewed by the owner's
//! daemon whenever placements change, left with providers as sealed parts (`holdfast_content::watch::part`).
//!
//! ```text
//! part n    DAG-CBOR { version 1, suite 1, part n, parts, head (of part 0 alone), pieces }
//! ```
//!
//! Parts of one bundle have one number. Promises: a bundle that was joined has all its parts, and every index in it leads
//! somewhere. Refuses nothing for being large: what does not fit is left out, and counted.

use std::collections::BTreeMap;

use holdfast_content::dagcbor::{self, FormatError};
use holdfast_content::keys::SecretKey32;
use holdfast_content::placement::ChainEnd;
use holdfast_content::watch::CapabilityId;
use holdfast_content::watch::part::PLAIN_BYTES_MAX;
use holdfast_net::manifest::{MANIFEST_SLOTS_MAX, ManifestPiece};
use holdfast_net::stripe::StripeShape;
use holdfast_net::tags::Tags;
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

use super::capability::Known;
use crate::drive::ledger::{Peer, PieceId};

const WHAT: &str = "watch bundle";
const VERSION: u64 = 1;
const SUITE: u64 = 1;
/// Parts of a bundle: with about 130 bytes for each slot, 16 MiB are 120,000 slots.
pub const PARTS_MAX: u16 = 32;
/// Providers in a bundle: as many as a head names.
const PROVIDERS_MAX: usize = 512;

/// A provider of the drive.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Provider {
    /// Who and where.
    pub known: Known,
    /// Where it belongs, by itself and by the owner.
    pub tags: [Tags; 2],
    /// Permits to read and audit what the owner, and what watchers placed there; to place as well, where something may go.
    pub permits: Vec<ByteBuf>,
}

/// Another watcher of the drive.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fellow {
    /// Its capability; of two that are about to do the same the lower one does it.
    #[serde(with = "serde_bytes")]
    pub id: CapabilityId,
    /// The key that signs its log.
    #[serde(with = "serde_bytes")]
    pub log: [u8; 32],
}

/// Everything but the pieces.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Head {
    /// When it was made, by the owner's clock.
    pub time: u64,
    /// When the capability ends.
    pub until: u64,
    /// Bytes that its deals may come to, in all and in a day.
    pub bytes: u64,
    /// See `bytes`.
    pub daily: u64,
    /// A provider is lost after so much silence.
    pub silent_seconds: u64,
    /// Deals are made for this time.
    pub deal_seconds: u64,
    /// The permit to place with anybody else; absent: only with those named here.
    pub anybody: Option<ByteBuf>,
    /// Providers of whoever holds the capability.
    pub apart: Vec<ByteBuf>,
    /// The watcher's entries that the owner has seen to.
    pub taken: ChainEnd,
    /// Seals the logs of all watchers.
    pub shared: SecretKey32,
    /// The other watchers.
    pub fellows: Vec<Fellow>,
    /// The head's name with the providers: its records are carried to new ones.
    #[serde(with = "serde_bytes")]
    pub head_name: [u8; 32],
    /// The drive's providers.
    pub providers: Vec<Provider>,
}

/// Who keeps a slot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Held {
    /// Which of the providers.
    pub provider: u16,
    /// The deal.
    #[serde(with = "serde_bytes")]
    pub deal: [u8; 32],
    /// When it ends.
    pub ends: u64,
}

/// A slot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Slot {
    /// Its piece CID.
    pub cid: ByteBuf,
    /// What lies over it; absent: nothing.
    pub seed: Option<SecretKey32>,
    /// Who keeps it, if somebody does.
    pub held: Option<Held>,
}

/// A piece of a stripe.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Shard {
    /// The piece.
    #[serde(with = "serde_bytes")]
    pub id: PieceId,
    /// Its bytes.
    pub len: u64,
}

/// A piece with its copies, or a stripe with its slots.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Piece {
    /// Its name, and the stripe's.
    #[serde(with = "serde_bytes")]
    pub id: PieceId,
    /// Bytes of a copy, or of a shard.
    pub len: u64,
    /// The pieces of a stripe; none: copies.
    pub shards: Vec<Shard>,
    /// In the order of their numbers.
    pub slots: Vec<Slot>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Part {
    version: u64,
    suite: u64,
    part: u16,
    parts: u16,
    head: Option<Head>,
    pieces: Vec<Piece>,
}

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bundle {
    /// Grows with each one.
    pub number: u64,
    /// Everything but the pieces.
    pub head: Head,
    /// Pieces and stripes.
    pub pieces: Vec<Piece>,
}

impl Piece {
    /// The stripe's shape; of a piece that was read and is one there is one.
    pub fn shape(&self) -> Option<StripeShape> {
        let parity = self.slots.len().checked_sub(self.shards.len())?;
        let lens = self.shards.iter().map(|shard| shard.len).collect();
        if self.shards.is_empty() {
            return None;
        }
        StripeShape::new(lens, u16::try_from(parity).ok()?).ok()
    }

    /// The piece CIDs of its slots, in their order.
    pub fn cids(&self) -> Result<Vec<cid::Cid>, cid::Error> {
        self.slots.iter().map(|slot| cid::Cid::try_from(slot.cid.as_slice())).collect()
    }

    /// Bytes of one slot.
    pub fn slot_len(&self, slot: u16) -> u64 {
        self.shards.get(usize::from(slot)).map_or(self.len, |shard| shard.len)
    }

    /// As a manifest names them.
    pub fn manifest_pieces(&self) -> Vec<ManifestPiece> {
        self.shards.iter().map(|shard| ManifestPiece { id: shard.id, raw_len: shard.len }).collect()
    }

    pub(crate) fn is_sound(&self, providers: usize) -> bool {
        let shape = self.shards.is_empty()
            || self.shape().is_some_and(|shape| {
                shape.shard_len() == self.len && usize::from(shape.slots()) == self.slots.len()
            });
        let held = self.slots.iter().filter_map(|slot| slot.held.as_ref());
        shape
            && self.len > 0
            && (1..=MANIFEST_SLOTS_MAX).contains(&self.slots.len())
            && held.into_iter().all(|held| usize::from(held.provider) < providers)
    }
}

impl Bundle {
    /// Plain parts, and how many pieces did not fit.
    pub fn parts(&self) -> Result<(Vec<Vec<u8>>, usize), FormatError> {
        // What stands around the pieces.
        let frame = 256;
        let mut filled = vec![(dagcbor::encode(WHAT, &self.head)?.len() + frame, Vec::new())];
        let mut left = 0;
        for piece in &self.pieces {
            let bytes = dagcbor::encode(WHAT, piece)?.len();
            if filled.last().is_none_or(|(used, _)| used + bytes > PLAIN_BYTES_MAX) {
                if filled.len() >= usize::from(PARTS_MAX) || bytes + frame > PLAIN_BYTES_MAX {
                    left += 1;
                    continue;
                }
                filled.push((frame, Vec::new()));
            }
            if let Some((used, pieces)) = filled.last_mut() {
                *used += bytes;
                pieces.push(piece.clone());
            }
        }
        let parts = u16::try_from(filled.len()).unwrap_or(PARTS_MAX);
        let encode = |((_, pieces), part): ((usize, Vec<Piece>), u16)| {
            let head = (part == 0).then(|| self.head.clone());
            dagcbor::encode(WHAT, &Part { version: VERSION, suite: SUITE, part, parts, head, pieces })
        };
        Ok((filled.into_iter().zip(0..).map(encode).collect::<Result<_, _>>()?, left))
    }

    /// How many parts there are, by the first one.
    pub fn count(first: &[u8]) -> Result<u16, FormatError> {
        Ok(decode(first)?.parts)
    }

    /// From all plain parts, by number.
    pub fn join(number: u64, plain: &BTreeMap<u16, Vec<u8>>) -> Result<Bundle, FormatError> {
        let malformed = |why: &str| FormatError::malformed(WHAT, why);
        let (mut head, mut pieces) = (None, Vec::new());
        for (n, bytes) in plain {
            let part = decode(bytes)?;
            if part.part != *n || usize::from(part.parts) != plain.len() || (*n == 0) != part.head.is_some() {
                return Err(malformed("parts that do not fit each other"));
            }
            head = head.or(part.head);
            pieces.extend(part.pieces);
        }
        let head = head.ok_or_else(|| malformed("without its first part"))?;
        if head.providers.len() > PROVIDERS_MAX {
            return Err(malformed("too many providers"));
        }
        if !pieces.iter().all(|piece| piece.is_sound(head.providers.len())) {
            return Err(malformed("a piece whose parts do not fit each other"));
        }
        Ok(Bundle { number, head, pieces })
    }

    /// The providers' peer ids, in their order.
    pub fn peers(&self) -> Vec<Peer> {
        self.head.providers.iter().map(|provider| provider.known.peer.to_vec()).collect()
    }
}

fn decode(bytes: &[u8]) -> Result<Part, FormatError> {
    let found = dagcbor::peek_version(WHAT, bytes)?;
    dagcbor::check_version(WHAT, found.version, VERSION)?;
    dagcbor::check_version(WHAT, found.suite, SUITE)?;
    let part: Part = dagcbor::decode(WHAT, bytes, PLAIN_BYTES_MAX)?;
    if part.parts > PARTS_MAX || part.part >= part.parts {
        return Err(FormatError::malformed(WHAT, "its number"));
    }
    Ok(part)
}

#[cfg(test)]
pub(crate) mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    pub(crate) fn sample(pieces: u64) -> Bundle {
        let provider = |n: u8| Provider {
            known: Known { peer: ByteBuf::from(vec![n; 38]), addrs: vec!["/ip4/192.0.2.7/tcp/1".into()] },
            tags: [Tags { operator: Some("acme".into()), ..Tags::default() }, Tags::default()],
            permits: vec![ByteBuf::from(vec![1; 200]), ByteBuf::from(vec![n; 200])],
        };
        let head = Head {
            time: 1_800_000_000,
            until: 1_900_000_000,
            bytes: 1 << 40,
            daily: 1 << 36,
            silent_seconds: 1800,
            deal_seconds: 180 * 86_400,
            anybody: None,
            apart: vec![ByteBuf::from(vec![9; 38])],
            taken: ChainEnd { length: 3, last: [3; 32] },
            shared: SecretKey32::from_bytes([4; 32]),
            fellows: vec![Fellow { id: [1; 16], log: [2; 32] }],
            head_name: [5; 32],
            providers: vec![provider(1), provider(2), provider(3)],
        };
        let slot = |n: u16| Slot {
            cid: ByteBuf::from(vec![n as u8; 39]),
            seed: Some(SecretKey32::from_bytes([n as u8; 32])),
            held: (n < 3).then_some(Held { provider: n, deal: [7; 32], ends: 1_850_000_000 }),
        };
        let id = |n: u64| std::array::from_fn(|i| n.to_be_bytes()[i % 8]);
        let mut all = vec![Piece {
            id: [8; 16],
            len: 128,
            shards: vec![Shard { id: [1; 16], len: 128 }, Shard { id: [2; 16], len: 65 }],
            slots: (0..3).map(slot).collect(),
        }];
        all.extend((0..pieces).map(|n| Piece {
            id: id(n),
            len: 64 << 20,
            shards: Vec::new(),
            slots: (0..4).map(slot).collect(),
        }));
        Bundle { number: 9, head, pieces: all }
    }

    fn joined(bundle: &Bundle, parts: Vec<Vec<u8>>) -> Result<Bundle, FormatError> {
        Bundle::join(bundle.number, &(0..).zip(parts).collect())
    }

    #[test]
    fn parts_of_a_large_bundle_come_together_again() {
        let small = sample(2);
        assert_eq!(small.pieces[0].shape().unwrap().slots(), 3);
        let (parts, left) = small.parts().unwrap();
        assert_eq!((parts.len(), left, joined(&small, parts).unwrap()), (1, 0, small));
        let large = sample(5_000);
        let (parts, left) = large.parts().unwrap();
        assert!(parts.len() > 3 && left == 0 && parts.iter().all(|part| part.len() <= PLAIN_BYTES_MAX));
        assert_eq!(usize::from(Bundle::count(&parts[0]).unwrap()), parts.len());
        assert_eq!(joined(&large, parts.clone()).unwrap(), large);
        assert!(joined(&large, parts[1..].to_vec()).is_err());
        assert!(joined(&large, parts[..2].to_vec()).is_err());
    }

    #[test]
    fn what_leads_nowhere_is_refused() {
        let breaks: [fn(&mut Bundle); 5] = [
            |b| b.pieces[1].slots[0].held.as_mut().unwrap().provider = 3,
            |b| b.pieces[1].slots.clear(),
            |b| b.pieces[1].len = 0,
            |b| b.pieces[0].len = 192,
            |b| drop(b.pieces[0].slots.pop()),
        ];
        for change in breaks {
            let mut bundle = sample(1);
            change(&mut bundle);
            let (parts, _) = bundle.parts().unwrap();
            assert!(joined(&bundle, parts).is_err());
        }
    }
}
