#![allow(clippy::unwrap_used)]
use super::*;
use proptest::prelude::*;

pub(crate) fn signing_key(seed: u8) -> SigningKey {
    SigningKey::from_bytes(&[seed; 32])
}

pub(crate) fn provider_key(seed: u8) -> Keypair {
    crate::identity::keypair([seed; 32]).unwrap()
}

/// The name of some slot of 1 MiB.
pub(crate) fn piece_cid(seed: u8) -> Cid {
    piece_cid_of(1 << 20, seed)
}

fn piece_cid_of(len: u64, seed: u8) -> Cid {
    // The root's last byte has two bits to spare.
    PieceCid::new(len, [seed & 0x3f; 32]).unwrap().to_cid().unwrap()
}

fn proposal() -> DealProposal {
    DealProposal {
        version: DEAL_VERSION,
        suite: DEAL_SUITE,
        client: signing_key(1).verifying_key().to_bytes(),
        provider: provider_key(2).public().to_peer_id().to_bytes(),
        piece_cid: piece_cid(1),
        raw_len: 1 << 20,
        manifest: [3; 32],
        start: 1_000,
        end: 2_000,
        price: vec![1, 0],
        settlement: 0,
        settlement_data: vec![],
        nonce: [4; 16],
    }
}

fn answer(deal: DealId) -> AnswerBody {
    AnswerBody { version: DEAL_VERSION, suite: DEAL_SUITE, deal, accepted_at: 5, push_until: 6 }
}

fn receipt(signed: &SignedProposal) -> ReceiptBody {
    let p = signed.proposal();
    ReceiptBody {
        version: DEAL_VERSION,
        suite: DEAL_SUITE,
        deal: signed.deal_id(),
        piece_cid: p.piece_cid,
        raw_len: p.raw_len,
        client: p.client,
        provider: p.provider.clone(),
        stored_at: 7,
    }
}

#[test]
fn the_three_steps_round_trip() {
    let signed = proposal().sign(&signing_key(1)).unwrap();
    let again = SignedProposal::from_bytes(&signed.to_bytes()).unwrap();
    assert_eq!(signed, again);
    assert_eq!(signed.deal_id(), again.deal_id());
    assert_eq!(signed.deal_id().to_string().parse::<DealId>().unwrap(), signed.deal_id());

    let answered = SignedAnswer::sign(answer(signed.deal_id()), &provider_key(2)).unwrap();
    assert_eq!(SignedAnswer::from_bytes(&answered.to_bytes(), &signed).unwrap(), answered);

    let received = SignedReceipt::sign(receipt(&signed), &provider_key(2)).unwrap();
    let back = SignedReceipt::from_bytes(&received.to_bytes()).unwrap();
    assert_eq!(back, received);
    back.matches(&signed).unwrap();
}

#[test]
fn a_signature_by_another_key_or_for_another_deal_is_refused() {
    assert!(proposal().sign(&signing_key(9)).is_err());
    let signed = proposal().sign(&signing_key(1)).unwrap();
    let forged = SignedAnswer::sign(answer(signed.deal_id()), &provider_key(9)).unwrap();
    assert!(matches!(
        SignedAnswer::from_bytes(&forged.to_bytes(), &signed),
        Err(CodecError::BadSignature("answer"))
    ));
    let other = SignedAnswer::sign(answer(DealId([0; 32])), &provider_key(2)).unwrap();
    assert!(SignedAnswer::from_bytes(&other.to_bytes(), &signed).is_err());
    let forged = SignedReceipt::sign(receipt(&signed), &provider_key(9)).unwrap();
    assert!(SignedReceipt::from_bytes(&forged.to_bytes()).is_err());
    let mut short = receipt(&signed);
    short.raw_len -= 1;
    let short = SignedReceipt::sign(short, &provider_key(2)).unwrap();
    assert!(SignedReceipt::from_bytes(&short.to_bytes()).unwrap().matches(&signed).is_err());
}

#[test]
fn an_answer_is_not_a_receipt() {
    let signed = proposal().sign(&signing_key(1)).unwrap();
    let answered = SignedAnswer::sign(answer(signed.deal_id()), &provider_key(2)).unwrap();
    assert!(SignedReceipt::from_bytes(&answered.to_bytes()).is_err());
    assert!(SignedProposal::from_bytes(&answered.to_bytes()).is_err());
}

#[test]
fn every_flipped_bit_is_noticed() {
    let signed = proposal().sign(&signing_key(1)).unwrap();
    let bytes = signed.to_bytes();
    for at in 0..bytes.len() {
        for bit in 0..8 {
            let mut bad = bytes.clone();
            bad[at] ^= 1 << bit;
            assert!(SignedProposal::from_bytes(&bad).is_err(), "byte {at} bit {bit}");
        }
    }
    for cut in 0..bytes.len() {
        assert!(SignedProposal::from_bytes(&bytes[..cut]).is_err());
    }
}

#[test]
fn newer_versions_and_contradictions_are_refused() {
    let key = signing_key(1);
    let change = |f: fn(&mut DealProposal)| {
        let mut p = proposal();
        f(&mut p);
        p.sign(&key)
    };
    assert_eq!(change(|p| p.version = 2).unwrap_err(), CodecError::Newer { found: 2, known: 1 });
    assert_eq!(change(|p| p.suite = 7).unwrap_err(), CodecError::UnknownSuite(7));
    assert!(change(|p| p.end = 1).is_err());
    assert!(change(|p| p.raw_len = 0).is_err());
    assert!(change(|p| p.raw_len -= 1).is_err());
    assert!(change(|p| p.piece_cid = Cid::default()).is_err());
    assert!(change(|p| p.price = vec![0, 1]).is_err());
    assert!(change(|p| p.price = vec![1; 33]).is_err());
    assert!(change(|p| p.provider = vec![1, 2, 3]).is_err());
    assert!(change(|p| p.settlement_data = vec![0; SETTLEMENT_DATA_BYTES_MAX + 1]).is_err());
}

#[test]
fn a_bytes_source_reads_whole_or_not_at_all() {
    let source = Bytes::from_static(b"0123456789");
    let mut buf = [0u8; 4];
    source.read_at(6, &mut buf).unwrap();
    assert_eq!(&buf, b"6789");
    assert!(source.read_at(7, &mut buf).is_err());
    assert!(source.read_at(u64::MAX, &mut buf).is_err());
    assert_eq!(PieceSource::len(&source), 10);
}

proptest! {
    #[test]
    fn decoders_are_total(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
        let _ = SignedProposal::from_bytes(&bytes);
        let _ = SignedReceipt::from_bytes(&bytes);
        let _ = crate::manifest::SignedManifest::from_bytes(&bytes);
    }

    #[test]
    fn proposals_round_trip(raw_len in 1u64..(1 << 38), start in any::<u32>(), length in any::<u32>(),
                            annex in proptest::collection::vec(any::<u8>(), 0..200), nonce: [u8; 16]) {
        let mut p = proposal();
        p.raw_len = raw_len;
        p.piece_cid = piece_cid_of(raw_len, 1);
        p.start = u64::from(start);
        p.end = u64::from(start) + u64::from(length);
        p.settlement_data = annex;
        p.nonce = nonce;
        let signed = p.sign(&signing_key(1)).unwrap();
        prop_assert_eq!(SignedProposal::from_bytes(&signed.to_bytes()).unwrap(), signed);
    }
}
