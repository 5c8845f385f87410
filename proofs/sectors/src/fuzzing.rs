//! Every decoder of what the prover reads from a disk, hears from another process or is given by anybody, as a function of any
//! bytes: what fuzzing (tests/fuzz/prover) and the seeds in tests/fuzz/seeds call. A violated promise panics.

use std::sync::OnceLock;

use filecoin_proofs::{SealPreCommitPhase1Output, SectorShapeBase};

use crate::params::Circuit;
use crate::params::Key;
use crate::profile::Profile;
use crate::proof::{ProofFile, ProofFileError};
use crate::types::Bytes32;
use crate::work::{Assignment, Message};

/// A decoder: its name, and what takes any bytes.
pub type Decoder = (&'static str, fn(&[u8]));

/// Every decoder of the prover.
pub const DECODERS: &[Decoder] = &[
    ("prover-assignment", assignment),
    ("prover-book", crate::keeper::decode_any_book),
    ("prover-bytes32", bytes32),
    ("prover-handover", |bytes| {
        drop(serde_json::from_slice::<SealPreCommitPhase1Output<SectorShapeBase>>(bytes))
    }),
    ("prover-key", key),
    ("prover-making", crate::params::decode_any_making),
    ("prover-message", message),
    ("prover-orders", crate::keeper::take_any_orders),
    ("prover-proof", proof),
    ("prover-queue", crate::engine::replay_any),
    ("prover-queue-event", crate::engine::replay_any_event),
    ("prover-sector-journal", crate::sector::decode_any_journal),
    ("prover-stamp", crate::params::decode_any_stamp),
];

/// Proofs of every kind that the tests made and committed, with their keys.
const COMMITTED: [&[u8]; 4] = [
    include_bytes!("../vectors/seal-2k.proof"),
    include_bytes!("../vectors/seal-2k-synthetic.proof"),
    include_bytes!("../vectors/window-2k.proof"),
    include_bytes!("../vectors/winning-2k.proof"),
];

/// The committed proofs and their keys, read once: preparing a key takes longer than most of what is fuzzed.
fn committed() -> &'static [(ProofFile, Key)] {
    static READ: OnceLock<Vec<(ProofFile, Key)>> = OnceLock::new();
    READ.get_or_init(|| {
        let read = |bytes: &&[u8]| {
            let file = ProofFile::decode(bytes).ok()?;
            let key = file.own_key().ok()??;
            Some((file.without_key(), key))
        };
        COMMITTED.iter().filter_map(read).collect()
    })
}

/// Any bytes as a proof file. What is one has one spelling; and whatever it says, the circuits' library is asked without a
/// panic, under the key that a committed proof of its kind has, and says yes to nothing but the committed statements.
fn proof(bytes: &[u8]) {
    let Ok(file) = ProofFile::decode(bytes) else { return };
    assert!(file.encode().is_ok_and(|again| again == bytes), "two encodings of one proof file");
    let Some((profile, circuit)) = file.statement().circuit() else {
        let _ = file.verify(&crate::proof::NoKeys);
        return;
    };
    let known = |file: &ProofFile| committed().iter().any(|(known, _)| known.statement() == file.statement());
    for (_, key) in committed() {
        if (key.profile(), key.circuit()) != (profile, circuit) {
            continue;
        }
        let file = file.clone().without_key().with_key(key);
        match file.verify_with(key) {
            Ok(()) => assert!(known(&file), "a false statement was accepted"),
            Err(ProofFileError::Library(reason)) => {
                panic!("the library was asked what it does not know: {reason}")
            }
            Err(_) => {}
        }
    }
}

/// A profile and a circuit, then any bytes as its key: those of a committed one, but for what is given of them.
fn key(bytes: &[u8]) {
    let Some(((which, at), given)) = bytes
        .split_first_chunk::<3>()
        .map(|([which, high, low], given)| ((*which, usize::from(u16::from_be_bytes([*high, *low]))), given))
    else {
        return;
    };
    let keys = committed();
    let Some((_, known)) = keys.get(usize::from(which) % keys.len().max(1)) else { return };
    let mut changed = known.bytes().to_vec();
    for (to, from) in changed.iter_mut().skip(at).zip(given) {
        *to = *from;
    }
    for (profile, circuit) in [(known.profile(), known.circuit()), (Profile::Test8m, Circuit::WindowPost)] {
        for bytes in [&changed[..], given] {
            if let Ok(key) = Key::parse(profile, circuit, bytes.to_vec()) {
                assert_eq!(key.bytes(), bytes, "two spellings of one key");
            }
        }
    }
}

fn bytes32(bytes: &[u8]) {
    let text = std::str::from_utf8(bytes).unwrap_or_default();
    if let Ok(value) = text.parse::<Bytes32>() {
        assert_eq!(value.to_string(), text.to_ascii_lowercase(), "other bytes come back");
    }
    let _ = (text.parse::<Profile>(), text.parse::<Circuit>());
}

fn assignment(bytes: &[u8]) {
    if let Ok(assignment) = serde_json::from_slice::<Assignment>(bytes) {
        let again = serde_json::to_vec(&assignment).ok();
        let again = again.and_then(|bytes| serde_json::from_slice(&bytes).ok());
        assert_eq!(again, Some(assignment), "another assignment comes back");
    }
}

fn message(bytes: &[u8]) {
    if let Ok(message) = serde_json::from_slice::<Message>(bytes) {
        crate::engine::tell_any(message);
    }
}

#[cfg(test)]
mod tests;
