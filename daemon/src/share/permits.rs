//! Which ranges of which slots a link's holder may read: what its blocks lie in, and no more than a permit has room for.
//!
//! Promises: every block of the index is within the ranges, at each holder of a copy and, where its piece is in a stripe, within the
//! same range of every other slot, so that it can be decoded. Ranges begin and end at multiples of 64, as codes need it. What stands
//! between two ranges is left out as far as the permit's length allows.

use std::collections::{BTreeMap, HashMap};

use holdfast_content::block::PieceId;
use holdfast_content::share::index::ShareIndex;
use holdfast_net::codec::CodecError;
use holdfast_net::permit::{PERMIT_SUITE, PERMIT_VERSION_RANGES, PermitBody, PermitDeal};
use holdfast_net::{SignedPermit, SigningKey};
use serde_bytes::{ByteArray, ByteBuf};

use crate::watch::bundle::Piece;

/// Codes work on so many bytes.
const ALIGNED: u64 = 64;
/// What may lie between two ranges that become one; the next where the permit grew too long.
const GAPS: [u64; 6] = [0, 4 << 10, 64 << 10, 1 << 20, 16 << 20, u64::MAX];

/// First bytes and ends, ascending, apart from each other.
type Ranges = Vec<(u64, u64)>;
/// By provider's number: deals and what may be read of each.
type Reads = BTreeMap<u16, BTreeMap<[u8; 32], Ranges>>;

/// What is read of each piece.
fn wanted(index: &ShareIndex) -> HashMap<PieceId, Ranges> {
    let mut all: HashMap<PieceId, Ranges> = HashMap::new();
    for at in index.chunks().filter_map(|chunk| index.place(chunk)) {
        let from = at.offset - at.offset % ALIGNED;
        let end = at.offset.saturating_add(at.len.into()).next_multiple_of(ALIGNED);
        all.entry(at.piece).or_default().push((from, end));
    }
    all.values_mut().for_each(|ranges| *ranges = merged(std::mem::take(ranges), 0));
    all
}

/// In order, those that overlap or are no further apart than `gap` as one.
fn merged(mut ranges: Ranges, gap: u64) -> Ranges {
    ranges.sort_unstable();
    let mut out: Ranges = Vec::new();
    for (from, end) in ranges {
        match out.last_mut() {
            Some((_, last)) if from <= last.saturating_add(gap) => *last = end.max(*last),
            _ => out.push((from, end)),
        }
    }
    out
}

/// What is read of each deal.
fn reads(index: &ShareIndex, pieces: &[Piece]) -> Reads {
    let wanted = wanted(index);
    let mut all = Reads::new();
    for piece in pieces {
        let own = std::iter::once(piece.id).filter(|_| piece.shards.is_empty());
        let of = own.chain(piece.shards.iter().map(|shard| shard.id));
        let ranges = merged(of.filter_map(|id| wanted.get(&id)).flatten().copied().collect(), 0);
        for (slot, n) in piece.slots.iter().zip(0u16..) {
            let (Some(held), len) = (&slot.held, piece.slot_len(n)) else { continue };
            let within = ranges.iter().filter(|(from, _)| *from < len);
            let within: Ranges = within.map(|(from, end)| (*from, (*end).min(len))).collect();
            if !within.is_empty() {
                let deals = all.entry(held.provider).or_default();
                deals.entry(held.deal).or_default().extend(within);
            }
        }
    }
    all
}

/// For whom, and until when.
pub struct Terms {
    /// The link's key.
    pub holder: [u8; 32],
    /// Unix seconds.
    pub until: u64,
}

/// Permits for one provider: one of each key that its deals may belong to.
fn sign(
    terms: &Terms,
    deals: &BTreeMap<[u8; 32], Ranges>,
    provider: &[u8],
    clients: &[SigningKey],
) -> Result<Vec<SignedPermit>, CodecError> {
    let mut refused = CodecError::Inconsistent("no client");
    for gap in GAPS {
        let named = |(deal, ranges): (&[u8; 32], &Ranges)| PermitDeal {
            deal: ByteArray::new(*deal),
            ranges: merged(ranges.clone(), gap).into_iter().map(|(from, end)| (from, end - from)).collect(),
        };
        let deals: Vec<PermitDeal> = deals.iter().map(named).collect();
        let signed = clients.iter().map(|client| {
            let body = PermitBody {
                client: client.verifying_key().to_bytes(),
                deals: Some(deals.clone()),
                holder: terms.holder,
                place: None,
                provider: Some(ByteBuf::from(provider)),
                suite: PERMIT_SUITE,
                until: terms.until,
                v: PERMIT_VERSION_RANGES,
            };
            body.sign(client)
        });
        match signed.collect::<Result<Vec<_>, _>>() {
            Err(error @ CodecError::TooLong { .. }) => refused = error,
            other => return other,
        }
    }
    Err(refused)
}

/// Permits by provider's number; `provider` tells peer id and client keys of each.
pub fn permits(
    terms: &Terms,
    index: &ShareIndex,
    pieces: &[Piece],
    provider: impl Fn(u16) -> Option<(Vec<u8>, Vec<SigningKey>)>,
) -> BTreeMap<u16, Vec<SignedPermit>> {
    let mut out = BTreeMap::new();
    for (number, deals) in reads(index, pieces) {
        let Some((peer, clients)) = provider(number) else { continue };
        match sign(terms, &deals, &peer, &clients) {
            Ok(permits) => drop(out.insert(number, permits)),
            Err(error) => tracing::warn!(%error, "a provider is left out of a link"),
        }
    }
    out
}

#[cfg(test)]
pub(in crate::share) mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::watch::bundle::{Held, Shard, Slot};
    use holdfast_content::keys::SecretKey32;
    use holdfast_content::share::index::{EntryKind, SharedChunk, SharedEntry};

    /// A file of blocks that lie there: piece, offset, length.
    pub(in crate::share) fn index(blocks: &[(u8, u64, u32)]) -> ShareIndex {
        let mut index = ShareIndex::default();
        let chunks = blocks.iter().zip(0..).map(|((piece, offset, len), n)| {
            let piece = index.piece(&[*piece; 16]);
            let (digest, key) = (ByteArray::new([n as u8; 32]), SecretKey32::from_bytes([9; 32]));
            SharedChunk(n, digest, key, 0, 4096, piece, *offset, *len)
        });
        let chunks: Vec<SharedChunk> = chunks.collect();
        index.entries.push(SharedEntry {
            kind: EntryKind::File,
            name: ByteBuf::from("f"),
            parent: 0,
            mode: 0,
            mtime: (0, 0),
            size: 4096 * blocks.len() as u64,
            chunk_log2: 12,
            target: ByteBuf::new(),
            chunks,
        });
        index
    }

    fn slot(provider: u16, deal: u8) -> Slot {
        let held = Some(Held { provider, deal: [deal; 32], ends: 1 });
        Slot { cid: ByteBuf::new(), seed: None, held }
    }

    fn of(permits: &BTreeMap<u16, Vec<SignedPermit>>, provider: u16) -> &PermitBody {
        permits[&provider][0].body()
    }

    fn peer(n: u16) -> (Vec<u8>, Vec<SigningKey>) {
        let peer = holdfast_net::identity::keypair([n as u8 + 50; 32]).unwrap().public().to_peer_id();
        (peer.to_bytes(), vec![SigningKey::from_bytes(&[n as u8 + 1; 32])])
    }

    const TERMS: Terms = Terms { holder: [7; 32], until: 9 };

    #[test]
    fn copies_and_the_slots_of_a_stripe_are_reached_where_the_blocks_lie() {
        let index = index(&[(1, 100, 100), (1, 200, 50), (1, 5000, 10), (2, 1000, 30)]);
        let copies =
            Piece { id: [1; 16], len: 5010, shards: Vec::new(), slots: vec![slot(0, 1), slot(1, 2)] };
        let shard = |n: u8, len| Shard { id: [n; 16], len };
        let stripe = Piece {
            id: [8; 16],
            len: 6016,
            shards: vec![shard(1, 5010), shard(2, 6000), shard(3, 1010)],
            slots: vec![slot(0, 3), slot(1, 4), slot(2, 5), slot(3, 6)],
        };
        let all = permits(&TERMS, &index, &[copies, stripe], |n| Some(peer(n)));
        assert_eq!(all.len(), 4);
        let read = |provider, deal: u8, offset, len| of(&all, provider).reaches(&[deal; 32], offset, len);
        assert!(read(0, 1, 100, 150) && read(1, 2, 5000, 10));
        assert!(read(0, 1, 64, 192) && !read(0, 1, 63, 1) && !read(0, 1, 256, 1) && !read(0, 1, 1000, 1));
        // Both shared pieces' ranges of every slot, as far as it goes.
        assert!(read(0, 3, 64, 192) && read(0, 3, 960, 128) && read(3, 6, 4992, 64));
        assert!(read(2, 5, 960, 50) && !read(2, 5, 960, 51) && !read(3, 6, 2000, 1));
        assert!(!read(0, 4, 100, 10), "another's deal");
    }

    #[test]
    fn a_permit_is_for_one_holder_at_one_provider_until_the_link_ends() {
        let index = index(&[(1, 100, 100)]);
        let piece = Piece { id: [1; 16], len: 500, shards: Vec::new(), slots: vec![slot(0, 1), slot(1, 2)] };
        let two_keys =
            |n: u16| (peer(n).0, vec![SigningKey::from_bytes(&[1; 32]), SigningKey::from_bytes(&[2; 32])]);
        let all = permits(&TERMS, &index, &[piece], |n| Some(two_keys(n)));
        for n in 0..2 {
            let clients: Vec<[u8; 32]> = all[&n].iter().map(|permit| permit.body().client).collect();
            let keys: Vec<[u8; 32]> =
                two_keys(n).1.iter().map(|key| key.verifying_key().to_bytes()).collect();
            assert_eq!(clients, keys, "one of each key that the deals may belong to");
            for body in all[&n].iter().map(SignedPermit::body) {
                assert_eq!((body.holder, body.until), (TERMS.holder, TERMS.until));
                assert_eq!(body.provider.as_ref().map(|peer| peer.to_vec()), Some(peer(n).0));
                assert!(body.place.is_none(), "nothing may be placed by it");
            }
        }
    }

    #[test]
    fn what_is_scattered_is_joined_until_it_fits() {
        let blocks: Vec<(u8, u64, u32)> = (0..20_000).map(|n| (1, n * 3000, 100)).collect();
        let index = index(&blocks);
        let piece = Piece { id: [1; 16], len: 64 << 20, shards: Vec::new(), slots: vec![slot(0, 1)] };
        let all = permits(&TERMS, &index, &[piece], |n| Some(peer(n)));
        let body = of(&all, 0);
        assert!(blocks.iter().all(|(_, offset, len)| body.reaches(&[1; 32], *offset, *len)));
        assert!(!body.reaches(&[1; 32], 60_001_000, 1), "behind the last block");
    }
}
