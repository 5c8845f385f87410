#![allow(clippy::unwrap_used)]

use proptest::prelude::*;

use super::*;

fn proof() -> PossessionProof {
    PossessionProof { leaves: vec![[1; 32], [2; 32]], siblings: vec![[3; 32]] }
}

#[test]
fn bytes() {
    let expected = [&[0x83, 1, 0x58, 64], [1; 32].as_slice(), &[2; 32], &[0x58, 32], &[3; 32]].concat();
    assert_eq!(proof().encode().unwrap(), expected);
    assert_eq!(PossessionProof::decode(&expected).unwrap(), proof());
    let nested = serde_ipld_dagcbor::to_vec(&(7, proof())).unwrap();
    assert_eq!(serde_ipld_dagcbor::from_slice::<(u8, PossessionProof)>(&nested).unwrap(), (7, proof()));
}

#[test]
fn refused() {
    let good = proof().encode().unwrap();
    let with = |at: usize, byte: u8| {
        let mut bytes = good.clone();
        bytes[at] = byte;
        PossessionProof::decode(&bytes)
    };
    assert_eq!(with(1, 2), Err(ProofError::Newer(2)));
    assert!(matches!(with(1, 0), Err(ProofError::Malformed(_))));
    assert!(matches!(with(0, 0x82), Err(ProofError::Malformed(_))));
    assert!(matches!(PossessionProof::decode(&[]), Err(ProofError::Malformed(_))));
    assert!(matches!(PossessionProof::decode(&good[..good.len() - 1]), Err(ProofError::Malformed(_))));
    assert!(matches!(
        PossessionProof::decode(&[good.as_slice(), &[0]].concat()),
        Err(ProofError::Malformed(_))
    ));
    assert_eq!(
        PossessionProof::decode(&vec![0; PROOF_BYTES_MAX + 1]),
        Err(ProofError::TooLong(PROOF_BYTES_MAX + 1))
    );
    // Nodes of 31 bytes; a length in two bytes that fits one; an array without end; 4 GiB promised.
    let short = [&[0x83, 1, 0x58, 31], [1; 31].as_slice(), &[0x40]].concat();
    let long_form = [&[0x83, 1, 0x59, 0, 64], &good[4..]].concat();
    let endless = [&[0x9f], &good[1..], &[0xff]].concat();
    let promised = [0x83, 1, 0x5a, 0xff, 0xff, 0xff, 0xff];
    for bytes in [short.as_slice(), &long_form, &endless, &promised] {
        assert!(matches!(PossessionProof::decode(bytes), Err(ProofError::Malformed(_))), "{bytes:?}");
    }
}

proptest! {
    #[test]
    fn any_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        if let Ok(proof) = PossessionProof::decode(&bytes) {
            prop_assert_eq!(proof.encode().unwrap(), bytes);
        }
    }

    /// Mutations of a real proof reach deeper than random bytes.
    #[test]
    fn mutated(at in 0_usize..102, byte: u8, cut in 0_usize..110) {
        let mut bytes = proof().encode().unwrap();
        let end = bytes.len();
        bytes[at % end] = byte;
        bytes.truncate(cut);
        if let Ok(proof) = PossessionProof::decode(&bytes) {
            prop_assert_eq!(proof.encode().unwrap(), bytes);
        }
    }
}
