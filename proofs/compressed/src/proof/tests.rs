use proptest::prelude::*;

use super::*;
use crate::testing::proven;

#[test]
fn a_proof_has_one_spelling_and_its_length() {
    let (_, proof) = proven();
    let bytes = proof.encode();
    assert_eq!(bytes.len(), 194);
    assert_eq!(&CompressedProof::decode(&bytes).unwrap(), proof);
    assert_eq!(CompressedProof::decode(&bytes[..193]), Err(DecodeError::Length(193)));
    assert_eq!(CompressedProof::decode(&[&bytes[..], &[0]].concat()), Err(DecodeError::Length(195)));
    let mut newer = bytes;
    newer[1] = 2;
    assert_eq!(CompressedProof::decode(&newer), Err(DecodeError::Newer { version: 1, suite: 2 }));
    let inside = serde_ipld_dagcbor::to_vec(proof).unwrap();
    assert_eq!(&serde_ipld_dagcbor::from_slice::<CompressedProof>(&inside).unwrap(), proof);
}

/// The neutral element of each group, where a proof has a point.
#[test]
fn neutral_elements_are_refused() {
    let (_, proof) = proven();
    for (at, len, name) in [(2, 48, 'A'), (50, 96, 'B'), (146, 48, 'C')] {
        let mut bytes = proof.encode();
        bytes[at..at + len].fill(0);
        bytes[at] = 0xc0;
        assert_eq!(CompressedProof::decode(&bytes), Err(DecodeError::Point(name)));
    }
}

proptest! {
    #[test]
    fn decoding_is_total(bytes in proptest::collection::vec(any::<u8>(), 194..=194), flags in any::<[u8; 3]>()) {
        let mut bytes = bytes;
        bytes[..2].copy_from_slice(&[1, 1]);
        for (at, flag) in [2, 50, 146].into_iter().zip(flags) {
            bytes[at] = bytes[at] & 0x1f | flag & 0xe0;
        }
        let _ = CompressedProof::decode(&bytes);
    }
}
