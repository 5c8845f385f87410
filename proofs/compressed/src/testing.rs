//! What the tests of several modules share: slots made up from a number, and parameters of a small shape.

use std::ops::ControlFlow;
use std::sync::OnceLock;

use holdfast_proofs::{CommpHasher, PieceCid, TreeCache, TreeLevel};
use rand_chacha::ChaCha20Rng;
use rand_core::{RngCore, SeedableRng};

use crate::draw::Audit;
use crate::params::LocalParameters;
use crate::proof::CompressedProof;
use crate::prove::{CompressError, Way, prove, ways};
use crate::set::{SlotEntry, SlotSet};
use crate::shape::Shape;
use crate::tree::{SlotCommitment, SlotTree, SlotTreeBuilder, StoredLevel};

/// Two levels of slots, one draw: 5,000 constraints.
pub(crate) fn small() -> Shape {
    Shape::new(2, 1).unwrap()
}

pub(crate) fn rng(seed: u8) -> ChaCha20Rng {
    ChaCha20Rng::from_seed([seed; 32])
}

/// Parameters of the small shape, made once.
pub(crate) fn parameters() -> &'static LocalParameters {
    static PARAMETERS: OnceLock<LocalParameters> = OnceLock::new();
    PARAMETERS.get_or_init(|| {
        LocalParameters::generate(small(), &mut rng(77), 2, |_| ControlFlow::Continue(())).unwrap()
    })
}

/// Lengths of slots: one leaf group, some, many, few.
pub(crate) const LENS: [usize; 4] = [127, 5_000, 40_000, 300];

/// An audit (of the fresh bytes 7, 7, …) and its proof, made once.
pub(crate) fn proven() -> &'static (Audit, CompressedProof) {
    static PROVEN: OnceLock<(Audit, CompressedProof)> = OnceLock::new();
    PROVEN.get_or_init(|| {
        let slots = slots(&LENS);
        let set = set_of(small(), &slots);
        let audit = Audit::new(small(), &set.root(), &[7; 32]);
        let open = |index: usize, _: &SlotEntry| {
            Ok::<_, CompressError>((slots[index].payload.as_slice(), slots[index].tree()))
        };
        let proof = prove(parameters(), &set, &audit, open, &mut rng(8)).unwrap();
        (audit, proof)
    })
}

pub(crate) fn payload(len: usize, seed: u8) -> Vec<u8> {
    let mut out = vec![0; len];
    rng(seed).fill_bytes(&mut out);
    out
}

/// A slot with both its trees.
pub(crate) struct TestSlot {
    pub(crate) payload: Vec<u8>,
    pub(crate) piece: PieceCid,
    pub(crate) commitment: SlotCommitment,
    cache: Vec<u8>,
    pub(crate) tree: Vec<u8>,
}

impl TestSlot {
    pub(crate) fn new(payload: Vec<u8>, level: StoredLevel) -> Self {
        let mut hasher = CommpHasher::with_cache(TreeLevel::MIN);
        hasher.update(&payload);
        let mut cache = hasher.drain_cache();
        let (piece, rest) = hasher.finish_with_cache();
        cache.extend(rest);
        let mut builder = SlotTreeBuilder::new(level);
        builder.update(&payload, 1);
        let mut tree = builder.drain();
        let (commitment, rest) = builder.finish(&piece).unwrap();
        tree.extend(rest);
        Self { payload, piece, commitment, cache, tree }
    }

    pub(crate) fn cache(&self) -> TreeCache<&[u8]> {
        TreeCache::open(self.cache.as_slice(), &self.piece).unwrap()
    }

    pub(crate) fn tree(&self) -> SlotTree<&[u8]> {
        SlotTree::open(self.tree.as_slice(), &self.commitment).unwrap()
    }
}

/// Slots of these lengths, each with other bytes.
pub(crate) fn slots(lens: &[usize]) -> Vec<TestSlot> {
    let slot = |(seed, len): (u8, &usize)| TestSlot::new(payload(*len, seed), StoredLevel::DEFAULT);
    (1..).zip(lens).map(slot).collect()
}

pub(crate) fn set_of(shape: Shape, slots: &[TestSlot]) -> SlotSet {
    SlotSet::new(shape, slots.iter().map(|slot| SlotEntry::from(&slot.commitment)).collect()).unwrap()
}

/// The ways that a prover who has all of these slots opens.
pub(crate) fn open_ways(set: &SlotSet, slots: &[TestSlot], audit: &Audit) -> Vec<Way> {
    let open = |index: usize, _: &SlotEntry| -> Result<_, CompressError> {
        Ok((slots[index].payload.as_slice(), slots[index].tree()))
    };
    ways(set, audit, &mut { open }).unwrap()
}
