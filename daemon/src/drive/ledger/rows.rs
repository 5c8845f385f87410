//! The ledger's rows, as they stand at rest (canonical DAG-CBOR).

use holdfast_content::class::Class;
use holdfast_content::publication::PublicPiece;
use holdfast_net::stripe::StripeShape;
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

use super::{Peer, PieceId, Seconds};
use crate::drive::clock::age;
use crate::drive::domains::Tags;

/// Rows of pieces with copies; a stripe's are one higher, a public piece's two, those with a class three, so that a program that knows none of them says so.
const PIECE_VERSION: u8 = 1;
const STRIPE_VERSION: u8 = 2;
const PUBLIC_VERSION: u8 = 3;
pub(super) const CLASS_VERSION: u8 = 4;

/// One piece and its slots, or a stripe and its slots.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PieceRow {
    /// Version of this row.
    pub v: u8,
    /// Bytes of the piece, and so of every slot of it; of a stripe, the length of its shards.
    pub raw_len: u64,
    /// One element for each copy that the policy wants (none while a stripe keeps the piece), or for each slot of the stripe.
    pub slots: Vec<SlotRow>,
    /// What a stripe is made of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stripe: Option<StripeRow>,
    /// Its slots are not masked, and anybody may have its blocks: of which publication it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub public: Option<PublicRow>,
    /// What it has to survive, where that is not just what the drive's policy asks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub class: Option<u8>,
}

/// Of which publication a public piece is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PublicRow {
    /// As the entry in the placement log says it ([`PublicPiece`]).
    pub note: ByteBuf,
}

impl PublicRow {
    /// What it says; of a row that is sound it can be read.
    pub fn piece(&self) -> Option<PublicPiece> {
        PublicPiece::decode(&self.note).ok()
    }
}

/// What a stripe is made of: the data slots are these pieces, in this order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StripeRow {
    /// Parity slots, behind the data slots.
    pub parity: u16,
    /// The pieces.
    pub pieces: Vec<StripePiece>,
    /// Sequence of the entry in the placement log that declares it.
    pub entry: u64,
}

/// A piece in a stripe.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StripePiece {
    /// Which.
    #[serde(with = "serde_bytes")]
    pub id: PieceId,
    /// Its bytes.
    pub len: u64,
}

/// One slot: a masked copy that one provider keeps.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlotRow {
    /// Piece CID (v2) of the masked bytes, once they were hashed.
    pub cid: Option<ByteBuf>,
    /// Who keeps it.
    pub holder: Option<Holder>,
    /// Who is being asked to keep it.
    pub intent: Option<Intent>,
    /// Set while the holder is to be replaced: why.
    pub lost: Option<Lost>,
}

/// A copy that has to be made anew.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lost {
    /// Since when.
    pub at: Seconds,
    /// As a person reads it, after "the copy that".
    pub why: String,
}

/// A provider that keeps a slot, and the evidence.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    /// The provider.
    #[serde(with = "serde_bytes")]
    pub provider: Peer,
    /// The deal's id.
    #[serde(with = "serde_bytes")]
    pub deal: Vec<u8>,
    /// Sequence of the entry in the placement log.
    pub entry: u64,
    /// When it answered a ranged read and a challenge after its receipt.
    pub confirmed_at: Seconds,
    /// The last time that it proved possession.
    pub proven_at: Seconds,
    /// When the deal ends.
    pub ends_at: Seconds,
    /// Set once it is known not to keep the slot: why.
    pub failed: Option<String>,
}

/// A deal that was, or is about to be, proposed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Intent {
    /// The provider.
    #[serde(with = "serde_bytes")]
    pub provider: Peer,
    /// The signed proposal: asking again with the same bytes gives the same deal.
    #[serde(with = "serde_bytes")]
    pub proposal: Vec<u8>,
    /// Since when.
    pub since: Seconds,
}

/// What the drive knows of a provider.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProviderRow {
    /// Version of this row.
    pub v: u8,
    /// Multiaddresses, tried in order.
    pub addrs: Vec<String>,
    /// When it became known.
    pub since: Seconds,
    /// The last time that it answered anything.
    pub last_ok: Seconds,
    /// Where it stands.
    pub state: ProviderState,
    /// Until then it gets no new slots, after a fault that was proven.
    pub barred_until: Seconds,
    /// When it was last caught at a fault that is proven.
    pub fault_at: Option<Seconds>,
    /// The last fault, as a person reads it.
    pub reason: Option<String>,
    /// Where it says that it belongs.
    #[serde(default, skip_serializing_if = "Tags::is_empty")]
    pub declared: Tags,
    /// Where the owner says that it belongs.
    #[serde(default, skip_serializing_if = "Tags::is_empty")]
    pub tagged: Tags,
}

/// Where a provider stands. `Suspect` copies do not count; `Failed` ones are replaced.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ProviderState {
    /// It answers.
    Active,
    /// It stopped answering; its copies wait for it.
    Suspect {
        /// Since when.
        since: Seconds,
    },
    /// It did not come back in time; its copies are replaced.
    Failed {
        /// Since when.
        since: Seconds,
    },
    /// The owner took it out; its copies are replaced.
    Removed,
}

impl PieceRow {
    /// A piece of which no copy is placed yet.
    pub fn new(raw_len: u64, slots: u16) -> Self {
        let slots = vec![SlotRow::default(); slots.into()];
        Self { v: PIECE_VERSION, raw_len, slots, stripe: None, public: None, class: None }
    }

    /// A public piece of which no copy is placed yet.
    pub fn public(raw_len: u64, slots: u16, note: Vec<u8>) -> Self {
        let public = Some(PublicRow { note: ByteBuf::from(note) });
        Self { v: PUBLIC_VERSION, public, ..Self::new(raw_len, slots) }
    }

    /// A stripe of which no slot is placed yet; `None` when there is no such stripe.
    pub fn striped(stripe: StripeRow, cids: Vec<Vec<u8>>) -> Option<Self> {
        let shape = stripe.shape()?;
        if cids.len() != usize::from(shape.slots()) {
            return None;
        }
        let slots =
            cids.into_iter().map(|cid| SlotRow { cid: Some(ByteBuf::from(cid)), ..SlotRow::default() });
        let raw_len = shape.shard_len();
        let (slots, stripe) = (slots.collect(), Some(stripe));
        Some(Self { v: STRIPE_VERSION, raw_len, slots, stripe, public: None, class: None })
    }

    /// Whether the parts fit each other.
    pub fn is_sound(&self) -> bool {
        if let Some(class) = self.class {
            let known = Class::from_byte(class).is_some();
            return self.v == CLASS_VERSION && known && self.stripe.is_none() && self.public.is_none();
        }
        match (&self.stripe, &self.public) {
            (None, None) => self.v == PIECE_VERSION,
            (None, Some(public)) => self.v == PUBLIC_VERSION && public.piece().is_some(),
            (Some(_), Some(_)) => false,
            (Some(stripe), None) => {
                self.v == STRIPE_VERSION
                    && stripe.shape().is_some_and(|shape| {
                        shape.shard_len() == self.raw_len && self.slots.len() == usize::from(shape.slots())
                    })
            }
        }
    }

    /// The bytes of one slot.
    pub fn slot_len(&self, slot: u16) -> u64 {
        let data = self.stripe.as_ref().and_then(|stripe| stripe.pieces.get(usize::from(slot)));
        data.map_or(self.raw_len, |piece| piece.len)
    }

    /// The slot, to be changed.
    pub fn slot_mut(&mut self, slot: u16) -> Option<&mut SlotRow> {
        self.slots.get_mut(usize::from(slot))
    }

    /// The slots that somebody keeps, with their numbers.
    pub fn holders(&self) -> impl Iterator<Item = (u16, &Holder)> {
        self.slots.iter().zip(0u16..).filter_map(|(s, n)| s.holder.as_ref().map(|h| (n, h)))
    }
}

impl StripeRow {
    /// Its shape; of a row that is sound there is one.
    pub fn shape(&self) -> Option<StripeShape> {
        StripeShape::new(self.pieces.iter().map(|piece| piece.len).collect(), self.parity).ok()
    }

    /// Data slots.
    pub fn data(&self) -> u16 {
        u16::try_from(self.pieces.len()).unwrap_or(u16::MAX)
    }
}

impl ProviderRow {
    /// A provider just heard of.
    pub fn new(now: Seconds) -> Self {
        let state = ProviderState::Active;
        Self {
            v: 1,
            addrs: Vec::new(),
            since: now,
            last_ok: 0,
            state,
            barred_until: 0,
            fault_at: None,
            reason: None,
            declared: Tags::default(),
            tagged: Tags::default(),
        }
    }

    /// Whether it gets nothing new, after a fault that was proven. A fault in the future was seen under a wrong clock.
    pub fn is_barred(&self, now: Seconds) -> bool {
        self.barred_until > now && self.fault_at.is_none_or(|at| age(now, at) != u64::MAX)
    }

    /// Whether its copies count.
    pub fn answers(&self) -> bool {
        matches!(self.state, ProviderState::Active)
    }

    /// Whether its copies have to be replaced.
    pub fn lost(&self) -> bool {
        matches!(self.state, ProviderState::Failed { .. } | ProviderState::Removed)
    }
}
