//! What a private link leads to: records that the owner's daemon leaves with providers, sealed under the link's key.
//!
//! ```text
//! part n    DAG-CBOR { version 1, suite 1, part n, parts, ended, bytes }             (`holdfast_content::watch::part`)
//! object    the bytes of parts 0 to 15: DAG-CBOR { version 1, suite 1, at, until, providers [{known, permits}], pieces, index }
//!   pieces  as a watcher's bundle has them, without piece CIDs; a slot has a seed where somebody keeps it
//!   index   { len, digest 32, number, parts, inline or null }
//! index     the bytes of parts 16 to 32, where it is not inline (`holdfast_content::share::index`)
//! ```
//!
//! Parts of one object have one number, those of an index another, which the object names: slots move often, an index hardly ever.
//! Promises: an object that was joined has all its parts, every index in it leads somewhere, and its index is the one that it names.

use std::collections::BTreeMap;

use holdfast_content::dagcbor::{self, FormatError};
use holdfast_content::share::index::INDEX_BYTES_MAX;
use holdfast_content::watch::part::PLAIN_BYTES_MAX;
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

use crate::watch::bundle::Piece;
use crate::watch::capability::Known;

const WHAT: &str = "what a link leads to";
const VERSION: u64 = 1;
const SUITE: u64 = 1;
/// Parts of an object.
pub const OBJECT_PARTS_MAX: u16 = 16;
/// The first part of an index that is not inline.
pub const INDEX_FIRST: u16 = OBJECT_PARTS_MAX;
/// Its parts.
pub const INDEX_PARTS_MAX: u16 = 17;
/// Around a part's bytes.
const AROUND_BYTES: usize = 256;
const PART_BYTES: usize = PLAIN_BYTES_MAX - AROUND_BYTES;
/// An index of this length fits into the object.
const INLINE_BYTES_MAX: usize = 256 << 10;
/// An index in the home folder.
pub const SEALED_BYTES_MAX: u64 = INDEX_BYTES_MAX as u64 + 1024;
const PROVIDERS_MAX: usize = 512;
const DIGEST: &str = "holdfast 2026 share index digest v1";

/// One part, as it is sealed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Part {
    version: u64,
    suite: u64,
    part: u16,
    parts: u16,
    /// The link leads nowhere any more.
    pub ended: bool,
    bytes: ByteBuf,
}

/// A provider, and what may be read there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Reached {
    /// Who and where.
    pub known: Known,
    /// Permits for ranges.
    pub permits: Vec<ByteBuf>,
}

/// Where the index is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IndexAt {
    /// Its bytes.
    pub len: u64,
    /// Their digest.
    #[serde(with = "serde_bytes")]
    pub digest: [u8; 32],
    /// The number that its parts have.
    pub number: u64,
    /// How many.
    pub parts: u16,
    /// It is here.
    pub inline: Option<ByteBuf>,
}

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Object {
    version: u64,
    suite: u64,
    /// What is shown is as it was then, unix seconds.
    pub at: u64,
    /// When the link ends.
    pub until: u64,
    /// Who keeps slots of it.
    pub providers: Vec<Reached>,
    /// Pieces, and stripes that they are in.
    pub pieces: Vec<Piece>,
    /// What is shown.
    pub index: IndexAt,
}

impl IndexAt {
    /// For an index of these bytes whose parts, where it takes any, have this number.
    pub fn of(bytes: &[u8], number: u64) -> IndexAt {
        let inline = bytes.len() <= INLINE_BYTES_MAX;
        let parts =
            if inline { 0 } else { u16::try_from(bytes.len().div_ceil(PART_BYTES)).unwrap_or(u16::MAX) };
        IndexAt {
            len: bytes.len() as u64,
            digest: blake3::derive_key(DIGEST, bytes),
            number: if inline { 0 } else { number },
            parts,
            inline: inline.then(|| ByteBuf::from(bytes)),
        }
    }

    /// Whether these bytes are it.
    pub fn names(&self, bytes: &[u8]) -> bool {
        self.len == bytes.len() as u64 && self.digest == blake3::derive_key(DIGEST, bytes)
    }
}

impl Object {
    /// A new one.
    pub fn new(
        (at, until): (u64, u64),
        providers: Vec<Reached>,
        pieces: Vec<Piece>,
        index: IndexAt,
    ) -> Object {
        Object { version: VERSION, suite: SUITE, at, until, providers, pieces, index }
    }

    /// Its plain parts.
    pub fn parts(&self) -> Result<Vec<Vec<u8>>, FormatError> {
        self.check()?;
        split(&dagcbor::encode(WHAT, self)?, OBJECT_PARTS_MAX)
    }

    /// Out of all its plain parts, in order.
    pub fn join(parts: &[Vec<u8>]) -> Result<Object, FormatError> {
        let bytes = join(parts, OBJECT_PARTS_MAX)?;
        let found = dagcbor::peek_version(WHAT, &bytes)?;
        dagcbor::check_version(WHAT, found.version, VERSION)?;
        dagcbor::check_version(WHAT, found.suite, SUITE)?;
        let object: Object = dagcbor::decode(WHAT, &bytes, usize::from(OBJECT_PARTS_MAX) * PART_BYTES)?;
        object.check()?;
        Ok(object)
    }

    fn check(&self) -> Result<(), FormatError> {
        let bad = |why: &str| Err(FormatError::malformed(WHAT, why));
        if self.providers.len() > PROVIDERS_MAX {
            return bad("too many providers");
        }
        if !self.pieces.iter().all(|piece| piece.is_sound(self.providers.len())) {
            return bad("a piece whose parts do not fit each other");
        }
        let ids: std::collections::HashSet<_> = self.pieces.iter().map(|piece| piece.id).collect();
        let seeded =
            |piece: &Piece| piece.slots.iter().all(|slot| slot.held.is_none() || slot.seed.is_some());
        if ids.len() != self.pieces.len() || !self.pieces.iter().all(seeded) {
            return bad("a piece that stands twice, or a slot without a seed");
        }
        let index = &self.index;
        let fits = match &index.inline {
            Some(bytes) => index.parts == 0 && index.number == 0 && index.names(bytes),
            None => (1..=INDEX_PARTS_MAX).contains(&index.parts),
        };
        if index.len > INDEX_BYTES_MAX as u64 || !fits {
            return bad("where its index is");
        }
        Ok(())
    }
}

/// The plain parts of an index.
pub fn index_parts(bytes: &[u8]) -> Result<Vec<Vec<u8>>, FormatError> {
    split(bytes, INDEX_PARTS_MAX)
}

/// An index out of all its plain parts.
pub fn join_index(parts: &[Vec<u8>]) -> Result<Vec<u8>, FormatError> {
    join(parts, INDEX_PARTS_MAX)
}

/// The part that says that there is nothing any more.
pub fn ended() -> Result<Vec<u8>, FormatError> {
    let bytes = ByteBuf::new();
    dagcbor::encode(WHAT, &Part { version: VERSION, suite: SUITE, part: 0, parts: 1, ended: true, bytes })
}

impl Part {
    /// From what was sealed.
    pub fn decode(bytes: &[u8]) -> Result<Part, FormatError> {
        let found = dagcbor::peek_version(WHAT, bytes)?;
        dagcbor::check_version(WHAT, found.version, VERSION)?;
        dagcbor::check_version(WHAT, found.suite, SUITE)?;
        let part: Part = dagcbor::decode(WHAT, bytes, PLAIN_BYTES_MAX)?;
        if part.part >= part.parts || part.parts > OBJECT_PARTS_MAX.max(INDEX_PARTS_MAX) {
            return Err(FormatError::malformed(WHAT, "its number"));
        }
        Ok(part)
    }

    /// How many there are.
    pub fn parts(&self) -> u16 {
        self.parts
    }
}

fn split(bytes: &[u8], parts_max: u16) -> Result<Vec<Vec<u8>>, FormatError> {
    let chunks: Vec<&[u8]> = bytes.chunks(PART_BYTES).collect();
    let max = usize::from(parts_max);
    if chunks.len() > max {
        return Err(FormatError::TooLarge { what: WHAT, len: bytes.len(), max: max * PART_BYTES });
    }
    let parts = u16::try_from(chunks.len()).unwrap_or(u16::MAX);
    let part = |(part, bytes): (u16, &&[u8])| {
        let bytes = ByteBuf::from(*bytes);
        dagcbor::encode(WHAT, &Part { version: VERSION, suite: SUITE, part, parts, ended: false, bytes })
    };
    (0..).zip(&chunks).map(part).collect()
}

fn join(parts: &[Vec<u8>], parts_max: u16) -> Result<Vec<u8>, FormatError> {
    let mut bytes = Vec::new();
    for (n, plain) in parts.iter().enumerate() {
        let part = Part::decode(plain)?;
        let fits =
            usize::from(part.part) == n && usize::from(part.parts) == parts.len() && part.parts <= parts_max;
        if !fits || part.ended {
            return Err(FormatError::malformed(WHAT, "a part that does not belong to the others"));
        }
        bytes.extend_from_slice(&part.bytes);
    }
    Ok(bytes)
}

/// As if it were all there is: for fuzzing.
pub(crate) fn decode_any(bytes: &[u8]) {
    if let Ok(object) = Object::join(&[bytes.to_vec()]) {
        assert!(object.parts().is_ok_and(|parts| parts == [bytes]), "two encodings of one object");
        for piece in &object.pieces {
            assert!(piece.shards.is_empty() || piece.shape().is_some(), "a stripe without a shape");
        }
        let _ = super::reader::placements(&object);
    }
    let _ = (join_index(&[bytes.to_vec()]), Part::decode(bytes));
}

/// By their numbers, those of one kind.
pub type Parts = BTreeMap<u16, Vec<u8>>;

#[cfg(test)]
pub(crate) mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use holdfast_content::keys::SecretKey32;

    pub(crate) fn sample(index: &[u8]) -> Object {
        let bundle = crate::watch::bundle::tests::sample(2);
        let mut pieces = bundle.pieces;
        for slot in pieces.iter_mut().flat_map(|piece| &mut piece.slots) {
            slot.cid = ByteBuf::new();
            slot.seed = slot.held.as_ref().map(|_| SecretKey32::from_bytes([4; 32]));
        }
        let reached = |known| Reached { known, permits: vec![ByteBuf::from(vec![1; 99])] };
        let providers = bundle.head.providers.into_iter().map(|provider| reached(provider.known)).collect();
        Object::new((1_800_000_000, 1_900_000_000), providers, pieces, IndexAt::of(index, 9))
    }

    #[test]
    fn parts_come_together_again_and_nothing_else_does() {
        let small = sample(b"index");
        let parts = small.parts().unwrap();
        assert_eq!((parts.len(), Object::join(&parts).unwrap()), (1, small));
        let mut large = sample(&vec![7; 1 << 20]);
        assert_eq!((large.index.parts, large.index.number), (3, 9));
        let one = large.pieces[1].clone();
        large.pieces.extend((0..9_000u64).map(|n| {
            let id = std::array::from_fn(|i| (n + 1000).to_be_bytes()[i % 8]);
            Piece { id, ..one.clone() }
        }));
        let parts = large.parts().unwrap();
        assert!(parts.len() > 3);
        assert_eq!(Object::join(&parts).unwrap(), large);
        assert!(Object::join(&parts[1..]).is_err() && Object::join(&parts[..2]).is_err());
        let index = vec![7; INDEX_BYTES_MAX];
        let parts = index_parts(&index).unwrap();
        assert!(parts.len() <= usize::from(INDEX_PARTS_MAX));
        assert!(join_index(&parts).unwrap() == index && IndexAt::of(&index, 1).names(&index));
        assert!(index_parts(&vec![0; 18 * PART_BYTES]).is_err());
        let ended = ended().unwrap();
        assert!(Part::decode(&ended).unwrap().ended && Object::join(&[ended]).is_err());
    }

    #[test]
    fn what_leads_nowhere_is_refused() {
        let breaks: [fn(&mut Object); 7] = [
            |o| o.pieces[1].slots[0].held.as_mut().unwrap().provider = 3,
            |o| o.pieces[1].slots[0].seed = None,
            |o| o.pieces[1].id = o.pieces[2].id,
            |o| o.index.len += 1,
            |o| o.index.digest[0] ^= 1,
            |o| o.index.inline = None,
            |o| o.index.parts = 1,
        ];
        for (n, change) in breaks.iter().enumerate() {
            let mut object = sample(b"index");
            change(&mut object);
            assert!(object.parts().is_err(), "{n}");
        }
    }
}
