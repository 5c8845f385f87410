//! Where slots lie: entries of the placement log, and their checkpoint.
//!
//! ```text
//! entry    = canonical DAG-CBOR { b: body, s: Ed25519 signature by the author over "holdfast-placement:" || b }
//! body     = canonical DAG-CBOR of [`PlacementBody`]; `prev` = BLAKE3 of the author's entry before, zeros for the first
//! checkpoint: Physical tree, key = piece 16 | slot u16 BE | BLAKE3(holder) first 16, value = the entry that added it
//! ```
//!
//! Entries are chained by author and merged by union. A capability of somebody else's may only add; only the owner
//! removes. An entry alone makes nothing count: a slot counts after a fresh challenge.

use crate::block::PieceId;
use crate::dagcbor::{self, FormatError};
use crate::tree::{Edit, Physical, Tree};
use ed25519_dalek::{Signature, Signer as _, SigningKey, VerifyingKey};
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;
use std::collections::BTreeMap;

const WHAT: &str = "placement entry";
/// Slots that were added or removed.
const VERSION: u64 = 1;
/// Stripes that were declared: a program that knows none of them says so.
const VERSION_STRIPE: u64 = 2;
/// Public pieces that were declared; likewise.
const VERSION_PUBLIC: u64 = 3;
/// Repair capabilities; likewise.
const VERSION_WATCH: u64 = 4;
/// Private links; likewise.
const VERSION_SHARE: u64 = 5;
/// Classes of pieces; likewise.
const VERSION_CLASS: u64 = 6;
const SUITE: u64 = 1;
const SIGNING_DOMAIN: &[u8] = b"holdfast-placement:";
/// No entry is larger: a receipt with both signatures is a few hundred bytes.
pub const ENTRY_BYTES_MAX: usize = 8 << 10;
/// No field of bytes (peer id, CID, deal id) is longer.
const FIELD_BYTES_MAX: usize = 128;
/// No receipt is longer.
pub const RECEIPT_BYTES_MAX: usize = 4 << 10;
/// The slot's number in an entry about a stripe, a public piece, a capability, a link or a class itself: no manifest has so many slots.
pub const STRIPE_ITSELF: u16 = u16::MAX;

/// The checkpoint: keys from [`crate::keys::TreeDomain::Placement`].
pub type PlacementTree = Tree<Physical>;

/// What an entry does.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum PlacementAction {
    /// A holder has the slot, by its receipt.
    #[serde(rename = "add")]
    Add,
    /// It is no longer counted. Only the owner says so.
    #[serde(rename = "remove")]
    Remove,
    /// There is a stripe of this id, and `receipt` is its signed manifest. Only the owner says so.
    #[serde(rename = "stripe")]
    Stripe,
    /// The piece is public, its slots are not masked, and `receipt` says of which publication it is
    /// ([`crate::publication`]). Only the owner says so.
    #[serde(rename = "public")]
    Public,
    /// There is a repair capability of this id, and `receipt` is what the owner says of it ([`crate::watch::GrantNote`]); a
    /// later entry says something else. Only the owner does.
    #[serde(rename = "watch")]
    Watch,
    /// There is a private link of this id, and `receipt` is what the owner says of it ([`crate::share::ShareNote`]); likewise.
    #[serde(rename = "share")]
    Share,
    /// The piece has a class of its own, and `receipt` says which ([`crate::class::ClassNote`]); a later entry says another one.
    /// Only the owner does.
    #[serde(rename = "class")]
    Class,
}

/// What an entry says.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlacementBody {
    version: u64,
    suite: u64,
    /// Added or removed.
    pub action: PlacementAction,
    /// Which piece.
    #[serde(with = "serde_bytes")]
    pub piece: PieceId,
    /// Its raw length.
    pub raw_len: u64,
    /// Which slot of it: the number of the copy, or of the stripe's shard.
    pub slot: u16,
    /// The holder's peer id in binary.
    pub holder: ByteBuf,
    /// The slot's piece CID in binary.
    pub slot_cid: ByteBuf,
    /// The deal's id.
    pub deal: ByteBuf,
    /// The holder's signed receipt, opaque here.
    pub receipt: ByteBuf,
    /// When, unix seconds.
    pub time: u64,
    /// Whose chain this is: an Ed25519 public key.
    #[serde(with = "serde_bytes")]
    pub author: [u8; 32],
    /// Its place in the author's chain, from 0.
    pub number: u64,
    /// The author's entry before.
    #[serde(with = "serde_bytes")]
    pub prev: [u8; 32],
}

/// Which slot at which holder.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct SlotAt {
    /// The piece.
    pub piece: PieceId,
    /// The slot.
    pub slot: u16,
    /// The holder's peer id in binary.
    pub holder: Vec<u8>,
}

/// A signed entry. Only signing and verifying make one.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PlacementEntry {
    body: PlacementBody,
    bytes: Vec<u8>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Envelope {
    b: ByteBuf,
    s: ByteBuf,
}

/// What an author says, before it is chained and signed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PlacementFacts {
    /// Added or removed.
    pub action: PlacementAction,
    /// Which piece.
    pub piece: PieceId,
    /// Its raw length.
    pub raw_len: u64,
    /// Which slot.
    pub slot: u16,
    /// The holder's peer id in binary.
    pub holder: Vec<u8>,
    /// The slot's piece CID in binary.
    pub slot_cid: Vec<u8>,
    /// The deal's id.
    pub deal: Vec<u8>,
    /// The holder's signed receipt.
    pub receipt: Vec<u8>,
    /// When, unix seconds.
    pub time: u64,
}

/// The end of an author's chain: what the next entry follows.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ChainEnd {
    /// How many entries there are.
    pub length: u64,
    /// The digest of the last one; zeros when there is none.
    #[serde(with = "serde_bytes")]
    pub last: [u8; 32],
}

impl PlacementEntry {
    /// Signs the next entry of an author's chain.
    pub fn sign(facts: PlacementFacts, after: &ChainEnd, author: &SigningKey) -> Result<Self, FormatError> {
        let body = PlacementBody {
            version: version_of(facts.action),
            suite: SUITE,
            action: facts.action,
            piece: facts.piece,
            raw_len: facts.raw_len,
            slot: facts.slot,
            holder: ByteBuf::from(facts.holder),
            slot_cid: ByteBuf::from(facts.slot_cid),
            deal: ByteBuf::from(facts.deal),
            receipt: ByteBuf::from(facts.receipt),
            time: facts.time,
            author: author.verifying_key().to_bytes(),
            number: after.length,
            prev: after.last,
        };
        body.check()?;
        let encoded = dagcbor::encode(WHAT, &body)?;
        let signature = author.sign(&signed_message(&encoded)).to_bytes().to_vec();
        let envelope = Envelope { b: ByteBuf::from(encoded), s: ByteBuf::from(signature) };
        let bytes = dagcbor::encode(WHAT, &envelope)?;
        Ok(Self { body, bytes })
    }

    /// Verifies an entry's form and signature. Whether its author may say so is [`Log`]'s matter.
    pub fn verify(bytes: &[u8]) -> Result<Self, FormatError> {
        let not_authentic = FormatError::NotAuthentic { what: WHAT };
        let envelope: Envelope = dagcbor::decode(WHAT, bytes, ENTRY_BYTES_MAX)?;
        let body = PlacementBody::decode(&envelope.b)?;
        let Ok(signature) = Signature::from_slice(&envelope.s) else { return Err(not_authentic) };
        let signed = VerifyingKey::from_bytes(&body.author)
            .is_ok_and(|author| author.verify_strict(&signed_message(&envelope.b), &signature).is_ok());
        if !signed {
            return Err(not_authentic);
        }
        body.check()?;
        Ok(Self { body, bytes: bytes.to_vec() })
    }

    /// What it says.
    pub fn body(&self) -> &PlacementBody {
        &self.body
    }

    /// Its signed bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Its digest, by which the author's next entry names it.
    pub fn digest(&self) -> [u8; 32] {
        blake3::hash(&self.bytes).into()
    }

    /// The chain's end after this entry.
    pub fn chain_end(&self) -> ChainEnd {
        ChainEnd { length: self.body.number.saturating_add(1), last: self.digest() }
    }

    /// Which slot at which holder.
    pub fn slot_at(&self) -> SlotAt {
        SlotAt { piece: self.body.piece, slot: self.body.slot, holder: self.body.holder.to_vec() }
    }
}

impl PlacementBody {
    /// Reads what is signed; `check` comes after the signature.
    pub(crate) fn decode(body: &[u8]) -> Result<Self, FormatError> {
        let found = dagcbor::peek_version(WHAT, body)?;
        dagcbor::check_version(WHAT, found.version, VERSION_CLASS)?;
        dagcbor::check_version(WHAT, found.suite, SUITE)?;
        dagcbor::decode(WHAT, body, ENTRY_BYTES_MAX)
    }

    pub(crate) fn check(&self) -> Result<(), FormatError> {
        let fields = [&self.holder, &self.slot_cid, &self.deal];
        if fields.iter().any(|field| field.len() > FIELD_BYTES_MAX) || self.receipt.len() > RECEIPT_BYTES_MAX
        {
            return Err(FormatError::malformed(WHAT, "a field is too long"));
        }
        if (self.number == 0) != (self.prev == [0; 32]) || self.number == u64::MAX {
            return Err(FormatError::malformed(WHAT, "its place in the chain"));
        }
        if self.version != version_of(self.action) {
            return Err(FormatError::malformed(WHAT, "a version that its action does not have"));
        }
        let itself = self.slot == STRIPE_ITSELF && fields.iter().all(|field| field.is_empty());
        match self.action {
            PlacementAction::Stripe if !itself || self.receipt.is_empty() => {
                Err(FormatError::malformed(WHAT, "a stripe with a holder, or without a manifest"))
            }
            PlacementAction::Public if !itself => {
                Err(FormatError::malformed(WHAT, "a public piece with a holder"))
            }
            PlacementAction::Watch if !itself => {
                Err(FormatError::malformed(WHAT, "a capability with a holder"))
            }
            PlacementAction::Share if !itself => Err(FormatError::malformed(WHAT, "a link with a holder")),
            PlacementAction::Class if !itself => Err(FormatError::malformed(WHAT, "a class with a holder")),
            PlacementAction::Class => crate::class::ClassNote::decode(&self.receipt).map(drop),
            PlacementAction::Share => crate::share::ShareNote::decode(&self.receipt).map(drop),
            PlacementAction::Watch => crate::watch::GrantNote::decode(&self.receipt).map(drop),
            PlacementAction::Public => crate::publication::PublicPiece::decode(&self.receipt).map(drop),
            PlacementAction::Add if self.slot == STRIPE_ITSELF => {
                Err(FormatError::malformed(WHAT, "the number of its slot"))
            }
            _ => Ok(()),
        }
    }
}

fn version_of(action: PlacementAction) -> u64 {
    match action {
        PlacementAction::Add | PlacementAction::Remove => VERSION,
        PlacementAction::Stripe => VERSION_STRIPE,
        PlacementAction::Public => VERSION_PUBLIC,
        PlacementAction::Watch => VERSION_WATCH,
        PlacementAction::Share => VERSION_SHARE,
        PlacementAction::Class => VERSION_CLASS,
    }
}

fn signed_message(body: &[u8]) -> Vec<u8> {
    [SIGNING_DOMAIN, body].concat()
}

/// Why an entry does not join a log.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum LogError {
    /// The author is not the owner and has no capability.
    #[error("the author may not place slots of this drive")]
    UnknownAuthor,
    /// Only the owner removes, and declares stripes and public pieces.
    #[error(
        "only the owner may remove a placement, or declare a stripe, a public piece, a capability, a link or a class"
    )]
    NotOwner,
    /// The author's entry before is missing: merge again when it is there.
    #[error("the author's chain is at {have}, the entry is number {found}")]
    Gap {
        /// The chain's length here.
        have: u64,
        /// The entry's number.
        found: u64,
    },
    /// Two entries with one number: the author has lied to somebody.
    #[error("the author's chain forks at {0}")]
    Fork(u64),
}

/// The entries merged so far, and what they come to.
///
/// The order in which the chains of different authors are merged does not matter; within a chain it is the chain's own.
/// For that, each slot at a holder has one entry in force: the owner's last one, else the adders' one of the highest
/// number and digest. So what the owner has removed stays removed until the owner adds it again; no clock is asked.
#[derive(Clone, Debug)]
pub struct Log {
    owner: [u8; 32],
    adders: Vec<[u8; 32]>,
    chains: BTreeMap<[u8; 32], ChainEnd>,
    in_force: BTreeMap<SlotAt, PlacementEntry>,
}

impl Log {
    /// An empty log of the owner's and of those who may add.
    pub fn new(owner: [u8; 32], adders: Vec<[u8; 32]>) -> Self {
        Self { owner, adders, chains: BTreeMap::new(), in_force: BTreeMap::new() }
    }

    /// Starts from a checkpoint: ends of the chains and the entries in force.
    pub fn from_checkpoint(
        owner: [u8; 32],
        adders: Vec<[u8; 32]>,
        chains: BTreeMap<[u8; 32], ChainEnd>,
        entries: impl IntoIterator<Item = PlacementEntry>,
    ) -> Self {
        let in_force = entries.into_iter().map(|entry| (entry.slot_at(), entry)).collect();
        Self { owner, adders, chains, in_force }
    }

    /// Adds the next entry of a chain. One that is in already changes nothing.
    pub fn merge(&mut self, entry: PlacementEntry) -> Result<(), LogError> {
        let body = entry.body();
        let is_owner = body.author == self.owner;
        if !is_owner && !self.adders.contains(&body.author) {
            return Err(LogError::UnknownAuthor);
        }
        if !is_owner && body.action != PlacementAction::Add {
            return Err(LogError::NotOwner);
        }
        let end = self.chains.get(&body.author).copied().unwrap_or_default();
        if body.number > end.length {
            return Err(LogError::Gap { have: end.length, found: body.number });
        }
        if body.number < end.length {
            let last = body.number.saturating_add(1) == end.length;
            // Older entries cannot be compared any more: what follows them is chained to them.
            return if last && entry.digest() != end.last {
                Err(LogError::Fork(body.number))
            } else {
                Ok(())
            };
        }
        if body.prev != end.last {
            return Err(LogError::Fork(body.number));
        }
        self.chains.insert(body.author, entry.chain_end());
        let at = entry.slot_at();
        // A removal need not be remembered where nobody else could add the slot again.
        let forget = body.action == PlacementAction::Remove && self.adders.is_empty();
        if self.in_force.get(&at).is_none_or(|present| self.rank(&entry) > self.rank(present)) {
            if forget {
                self.in_force.remove(&at)
            } else {
                self.in_force.insert(at, entry)
            };
        }
        Ok(())
    }

    fn rank(&self, entry: &PlacementEntry) -> (bool, u64, [u8; 32]) {
        (entry.body.author == self.owner, entry.body.number, entry.digest())
    }

    /// The slots that are placed, in order.
    pub fn placed(&self) -> impl Iterator<Item = (&SlotAt, &PlacementEntry)> {
        self.in_force.iter().filter(|(_, entry)| entry.body.action == PlacementAction::Add)
    }

    /// The stripes that are declared.
    pub fn stripes(&self) -> impl Iterator<Item = &PlacementEntry> {
        self.in_force.values().filter(|entry| entry.body.action == PlacementAction::Stripe)
    }

    /// The pieces that are declared to be public.
    pub fn public(&self) -> impl Iterator<Item = &PlacementEntry> {
        self.in_force.values().filter(|entry| entry.body.action == PlacementAction::Public)
    }

    /// The repair capabilities, as the owner's last words have them.
    pub fn watches(&self) -> impl Iterator<Item = &PlacementEntry> {
        self.in_force.values().filter(|entry| entry.body.action == PlacementAction::Watch)
    }

    /// The private links, likewise.
    pub fn shares(&self) -> impl Iterator<Item = &PlacementEntry> {
        self.in_force.values().filter(|entry| entry.body.action == PlacementAction::Share)
    }

    /// The pieces that have classes, likewise.
    pub fn classes(&self) -> impl Iterator<Item = &PlacementEntry> {
        self.in_force.values().filter(|entry| entry.body.action == PlacementAction::Class)
    }

    /// Every entry in force, removals that must be remembered included: what a checkpoint holds.
    pub fn in_force(&self) -> impl Iterator<Item = (&SlotAt, &PlacementEntry)> {
        self.in_force.iter()
    }

    /// Where an author's chain ends: the next entry follows this.
    pub fn chain_end(&self, author: &[u8; 32]) -> ChainEnd {
        self.chains.get(author).copied().unwrap_or_default()
    }

    /// The ends of all chains, for a checkpoint.
    pub fn chains(&self) -> &BTreeMap<[u8; 32], ChainEnd> {
        &self.chains
    }
}

/// The checkpoint's key of a slot at a holder.
pub fn checkpoint_key(at: &SlotAt) -> Vec<u8> {
    let mut key = at.piece.to_vec();
    key.extend_from_slice(&at.slot.to_be_bytes());
    key.extend_from_slice(blake3::hash(&at.holder).as_bytes().first_chunk::<16>().unwrap_or(&[0; 16]));
    key
}

/// The edit by which an entry in force enters the checkpoint.
pub fn checkpoint_put(entry: &PlacementEntry) -> Edit {
    Edit::put(checkpoint_key(&entry.slot_at()), entry.bytes().to_vec(), Vec::new())
}

/// The edit by which a removed one leaves it.
pub fn checkpoint_delete(at: &SlotAt) -> Edit {
    Edit::delete(checkpoint_key(at))
}

#[cfg(test)]
mod tests;
