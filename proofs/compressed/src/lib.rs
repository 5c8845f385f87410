//! One proof of 192 bytes for many challenges over many slots of a provider.
//!
//! Owns: the Poseidon tree over a slot's leaves and its file (`tree`), the binding of that tree to the
//! slot's piece CID by openings in both trees (`binding`), the tree over a provider's slots (`set`), the
//! draws (`draw`), the circuit and its Groth16 proof (`circuit`, `params`, `prove`, `verify`), and what
//! a series of such audits implies (`odds`).
//!
//! Promises: no clock, no randomness of its own, no network, no async; a decoder given hostile bytes
//! answers with an error; verification costs the same for one slot and for 32,768.
//! `../../SOUNDNESS.md`, section "The compressed possession proof", says what it shows.
//!
//! Refuses: to let money rest on it. Groth16 needs a set-up that nobody can have kept the secrets of;
//! there has been no ceremony, so every type that touches parameters is called `Local…` and there is no
//! other.
//!
//! ```text
//! bytes -> SlotTreeBuilder -> SlotCommitment (+ tree file)                 the provider, at placement
//! PieceCid, SlotCommitment, Challenge -> open_binding -> check_binding     whoever knows the piece CID
//! commitments -> SlotSet -> Audit -> prove -> verify -> LocalVerdict   anybody with the key
//! ```

pub mod binding;
mod circuit;
mod draw;
mod field;
pub mod odds;
mod opening;
mod params;
mod proof;
mod prove;
mod report;
mod set;
mod shape;
#[cfg(test)]
mod testing;
mod tree;
mod verify;

pub use binding::{Binding, BindingError, BindingProof, check_binding, open_binding};
pub use circuit::{CircuitSize, circuit_size};
pub use draw::Audit;
pub use odds::BoundAudits;
pub use opening::{OPENING_BYTES_MAX, OpeningError, OpeningFile};
pub use params::{LocalParameters, LocalVerifyingKey, ParamsError, Progress, VERIFYING_KEY_LEN};
pub use proof::DecodeError;
pub use proof::{CompressedProof, PROOF_LEN};
pub use prove::{CompressError, prove};
pub use report::{AuditReport, REPORT_BYTES_MAX, ReportError};
pub use set::{SetError, SetPath, SetRoot, SlotEntry, SlotSet, SlotShare};
pub use shape::Shape;
pub use tree::{
    SLOT_HEIGHT, SLOT_LEAVES_MAX, SLOT_PAYLOAD_MAX, SlotCommitment, SlotTree, SlotTreeBuilder, StoredLevel,
    TreeError, TreeRoot,
};
pub use verify::{LocalVerdict, Verifier, VerifyError, verify};
