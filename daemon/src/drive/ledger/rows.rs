//! The ledger's rows, as they stand at rest (canonical DAG-CBOR).

use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

use super::{Peer, Seconds};
use crate::drive::clock::age;

/// One piece and its slots.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PieceRow {
    /// Version of this row.
    pub v: u8,
    /// Bytes of the piece, and so of every slot of it.
    pub raw_len: u64,
    /// One element for each copy that the policy wants.
    pub slots: Vec<SlotRow>,
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
        Self { v: 1, raw_len, slots: vec![SlotRow::default(); slots.into()] }
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
