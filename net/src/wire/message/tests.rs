#![allow(clippy::unwrap_used)]
use super::*;
use crate::record::RecordKind;
use proptest::prelude::*;

pub(crate) fn requests() -> Vec<Request> {
    vec![
        Request::Hello { agent: "a".into(), v: 1 },
        Request::Auth { key: [1; 32], sig: vec![2; 64] },
        Request::Info {},
        Request::Propose { proposal: vec![1], manifest: vec![2] },
        Request::Receipt { deal: DealId([3; 32]) },
        Request::Audit(AuditRequest {
            count: 24,
            deal: DealId([3; 32]),
            epoch: 1,
            nonce: [4; 32],
            record: Some(RecordKey::new(RecordKind::Head, [5; 32])),
        }),
        Request::Holdings { after: None, max: 10 },
        Request::Put { key: RecordKey::new(RecordKind::Keyring, [5; 32]), value: vec![6; 100] },
        Request::Get { key: RecordKey::new(RecordKind::Head, [5; 32]) },
        Request::Release { deal: DealId([3; 32]) },
        Request::Tags {},
        Request::Claim { claim: vec![7; 9], head: Some(serde_bytes::ByteArray::new([8; 32])) },
        Request::Permit { permit: vec![7; 40] },
    ]
}

pub(crate) fn replies() -> Vec<Reply> {
    vec![
        Reply::Ok {},
        Reply::Hello {
            agent: "b".into(),
            inflight: 64,
            nonce: [1; 32],
            ranges: 10,
            read: 1 << 20,
            ticket: Ticket([2; 16]),
            v: 1,
        },
        Reply::Put { kept: Some(serde_bytes::ByteBuf::from(vec![1, 2])) },
        Reply::Record { value: None },
        Reply::Claimed { claim: None, grant: Some(serde_bytes::ByteBuf::from(vec![9; 64])), head: None },
        Reply::Go { offset: 1 << 40 },
        Reply::Tags(Tags::default()),
        Reply::Tags(Tags { operator: Some("acme".into()), network: None, place: Some("oslo".into()) }),
        Reply::Holdings {
            list: vec![HoldingWire {
                deal: DealId([1; 32]),
                manifest: vec![1],
                proposal: vec![2],
                receipt: None,
            }],
            next: Some(DealId([1; 32])),
        },
    ]
}

#[test]
fn messages_round_trip() {
    for request in requests() {
        let bytes = codec::encode(&request);
        assert_eq!(decode::<Request>(&bytes).unwrap(), request);
    }
    for reply in replies() {
        assert_eq!(decode::<Reply>(&codec::encode(&reply)).unwrap(), reply);
    }
    let read = DataRequest::Read { deal: DealId([1; 32]), ranges: vec![ByteRange::new(1, 2)] };
    assert_eq!(decode::<DataRequest>(&codec::encode(&read)).unwrap(), read);
}

/// The bytes of PROTOCOL.md, spelled out.
#[test]
fn golden() {
    let hex = |bytes: &[u8]| data_encoding::HEXLOWER.encode(bytes);
    assert_eq!(hex(&codec::encode(&Request::Info {})), "a164696e666fa0");
    assert_eq!(hex(&codec::encode(&Request::Tags {})), "a16474616773a0");
    let tags = Tags { operator: Some("a".into()), network: None, place: Some("b".into()) };
    assert_eq!(
        hex(&codec::encode(&Reply::Tags(tags))),
        "a16474616773a265706c6163656162686f70657261746f726161"
    );
    let attach = DataRequest::Attach { lane: Lane::Bulk, ticket: Ticket([0xaa; 16]) };
    assert_eq!(
        hex(&codec::encode(&attach)),
        "a166617474616368a2646c616e6502667469636b657450aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
    );
    let read = DataRequest::Read { deal: DealId([1; 32]), ranges: vec![ByteRange::new(256, 5)] };
    assert_eq!(
        hex(&codec::encode(&read)),
        format!("a16472656164a2646465616c5820{}6672616e67657381a2616c05616f190100", "01".repeat(32))
    );
    assert_eq!(hex(&codec::encode(&Reply::Ok {})), "a1626f6ba0");
    assert_eq!(hex(&codec::encode(&WireError::new(ErrorCode::Busy, "no"))), "a264636f6465036474657874626e6f");
}

#[test]
fn what_is_not_canonical_is_refused() {
    // {"info": {}} with the length of the map in two bytes.
    assert!(decode::<Request>(&[0xb8, 1, 0x64, b'i', b'n', b'f', b'o', 0xa0]).is_err());
    // Trailing bytes.
    assert!(decode::<Request>(&[0xa1, 0x64, b'i', b'n', b'f', b'o', 0xa0, 0]).is_err());
    // An unknown lane, an unknown kind of record, a ticket of the wrong length.
    let attach = |lane: u8, len: u8| {
        let mut bytes = vec![0xa1, 0x66];
        bytes.extend_from_slice(b"attach\xa2\x64lane");
        bytes.push(lane);
        bytes.extend_from_slice(b"\x66ticket");
        bytes.push(0x40 + len);
        bytes.extend(std::iter::repeat_n(0u8, usize::from(len)));
        bytes
    };
    assert!(decode::<DataRequest>(&attach(1, 16)).is_ok());
    assert!(decode::<DataRequest>(&attach(4, 16)).is_err());
    assert!(decode::<DataRequest>(&attach(1, 15)).is_err());
}

#[test]
fn an_unknown_error_code_is_no_proof_of_a_fault() {
    let error = WireError { code: 999, text: "\u{1b}[2Jhi".into() }.into_net_error();
    assert!(error.is_retryable() && !error.is_fault_of_provider() && !error.to_string().contains('\u{1b}'));
    for code in ErrorCode::ALL {
        assert_eq!(ErrorCode::from_number(code.number()), Some(code));
    }
    assert_eq!(ErrorCode::from_number(0), None);
}

#[test]
fn the_session_message_is_injective_in_its_peers() {
    let a = session_key_message(b"ab", b"c", &[0; 32], &[1; 32]);
    let b = session_key_message(b"a", b"bc", &[0; 32], &[1; 32]);
    assert_ne!(a, b);
}

proptest! {
    #[test]
    fn decoders_are_total(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _ = decode::<Request>(&bytes);
        let _ = decode::<DataRequest>(&bytes);
        let _ = decode::<Reply>(&bytes);
        let _ = decode::<WireError>(&bytes);
        let _ = decode::<AuditBody>(&bytes);
    }

    #[test]
    fn mutated_messages_are_total(which in 0usize..12, at in 0usize..400, xor in 1u8..=255) {
        let request = requests().remove(which);
        let mut bytes = codec::encode(&request);
        let at = at % bytes.len();
        bytes[at] ^= xor;
        if let Ok(other) = decode::<Request>(&bytes) {
            prop_assert_ne!(other, request);
        }
    }
}
