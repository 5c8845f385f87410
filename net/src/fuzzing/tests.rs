#![allow(clippy::unwrap_used)]

use super::*;
use crate::deal::tests::{piece_cid, provider_key, signing_key};
use crate::deal::{DealProposal, SignedAnswer};
use crate::error::ErrorCode;
use crate::manifest::{Manifest, ManifestPiece};
use crate::permit::{PermitDeal, Place};
use crate::record::RecordKind;
use crate::wire::frame::{Frame, FrameKind};
use serde_bytes::ByteArray;

/// The first seeds of each decoder are valid values: they must still be among the committed ones, and still be accepted as
/// what they are. `HOLDFAST_BLESS=1` adds what is missing.
fn seed(name: &str, bytes: &[u8]) {
    let path = format!("{}/../tests/fuzz/seeds/{name}.hex", env!("CARGO_MANIFEST_DIR"));
    let line: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    let mut seeds = std::fs::read_to_string(&path).unwrap_or_default();
    if !seeds.lines().any(|seed| seed == line) && std::env::var_os("HOLDFAST_BLESS").is_some() {
        seeds.push_str(&format!("{line}\n"));
        std::fs::write(&path, &seeds).unwrap();
    }
    assert!(seeds.lines().any(|seed| seed == line), "{path} lacks a valid value: its format has changed");
    let decoder = DECODERS.iter().find(|(known, _)| *known == name).unwrap().1;
    decoder(bytes);
}

#[test]
fn valid_values_are_seeds() {
    let frames = [(FrameKind::Request, &b"abc"[..]), (FrameKind::Data, b"d"), (FrameKind::End, b"")];
    let stream: Vec<u8> = frames
        .iter()
        .flat_map(|(kind, payload)| Frame::new(*kind, 7, payload).unwrap().encoded().to_vec())
        .collect();
    seed("net-frame", &stream);
    for request in message::tests::requests() {
        seed("net-request", &codec::encode(&request));
    }
    for reply in message::tests::replies() {
        seed("net-reply", &codec::encode(&reply));
    }
    let read = DataRequest::Read { deal: DealId([1; 32]), ranges: vec![crate::deal::ByteRange::new(1, 2)] };
    seed("net-data-request", &codec::encode(&read));
    seed("net-error", &codec::encode(&WireError::new(ErrorCode::Busy, "no")));
    let audit = AuditBody {
        at: 1_800_000_000,
        count: 24,
        deal: DealId([1; 32]),
        proof: [2; 32],
        record: Some(serde_bytes::ByteArray::new([3; 32])),
        seed: [4; 32],
        v: 1,
    };
    seed("net-audit", &codec::encode(&audit));
    let key = RecordKey::new(RecordKind::Head, [5; 32]);
    seed("net-record-key", &codec::encode(&key));
    for addr in ["/ip4/8.8.8.8/tcp/4001", "/ip6/fe80::1/udp/4001/quic-v1", "/dns4/a.example/tcp/1"] {
        let addr: Multiaddr = addr.parse().unwrap();
        seed("net-address", addr.as_ref());
    }
    let search = "HTTP/1.1 200 OK\r\nLOCATION: http://192.168.1.1:5000/desc.xml\r\n\r\n";
    seed("net-upnp", search.as_bytes());
    let service = "<service><serviceType>urn:schemas-upnp-org:service:WANIPConnection:1</serviceType>\
                   <controlURL>/ctl</controlURL></service>";
    let chunked = format!(
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n{service}\r\n0\r\n\r\n",
        service.len()
    );
    seed("net-upnp", chunked.as_bytes());
    let peer = provider_key(2).public().to_peer_id();
    seed("net-peer-set", format!("# all\n10.0.0.0/8\n2001:db8::1 # one\n{peer}\n").as_bytes());
    seed("net-deal-id", "0a".repeat(32).as_bytes());
    seed("net-bitswap", &crate::bitswap::tests::sample().encode());
    deals();
}

fn deals() {
    let client = signing_key(1);
    let body = DealProposal {
        version: 1,
        suite: 1,
        client: client.verifying_key().to_bytes(),
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
    };
    seed("net-proposal", &codec::encode(&body));
    let signed = body.clone().sign(&client).unwrap();
    seed("net-proposal", &signed.to_bytes());
    let watcher = signing_key(5);
    let permit = PermitBody {
        client: body.client,
        deals: None,
        holder: watcher.verifying_key().to_bytes(),
        place: Some(Place { bytes: 1 << 40, daily: 1 << 36, term: 1_000 }),
        provider: Some(serde_bytes::ByteBuf::from(body.provider.clone())),
        suite: 1,
        until: 2_000_000_000,
        v: 1,
    };
    seed("net-permit", &codec::encode(&permit));
    let ranges = PermitBody {
        deals: Some(vec![PermitDeal { deal: ByteArray::new([7; 32]), ranges: vec![(64, 4096), (9000, 1)] }]),
        place: None,
        v: 2,
        ..permit.clone()
    };
    seed("net-permit", &codec::encode(&ranges));
    seed("net-permit", ranges.sign(&client).unwrap().as_bytes());
    let permit = permit.sign(&client).unwrap();
    seed("net-permit", permit.as_bytes());
    let free = DealProposal { price: vec![], ..body.clone() };
    seed("net-proposal", &free.sign_by(permit, &watcher).unwrap().to_bytes());
    let list = Revocations::new(body.client, [[1; 32], [2; 32]], 3);
    seed("net-revocations", &codec::encode(&list));
    seed("net-revocations", &list.sign(&client).unwrap());
    let answer = AnswerBody { version: 1, suite: 1, deal: signed.deal_id(), accepted_at: 5, push_until: 6 };
    seed("net-answer", &codec::encode(&answer));
    let receipt = ReceiptBody {
        version: 1,
        suite: 1,
        deal: signed.deal_id(),
        piece_cid: body.piece_cid,
        raw_len: body.raw_len,
        client: body.client,
        provider: body.provider.clone(),
        stored_at: 7,
    };
    seed("net-receipt", &codec::encode(&receipt));
    let manifest = Manifest::replicas([1; 16], 1 << 20, vec![piece_cid(1), piece_cid(2)], body.client);
    seed("net-manifest", &codec::encode(&manifest));
    let manifest = manifest.sign(&client).unwrap();
    seed("net-manifest", manifest.as_bytes());
    let pieces = [7, 8].map(|n| ManifestPiece { id: [n; 16], raw_len: 1 << 20 }).to_vec();
    let cids = vec![piece_cid(1), piece_cid(2), piece_cid(3)];
    let stripe = Manifest::stripe([6; 16], pieces, 1, cids, body.client).unwrap();
    seed("net-manifest", &codec::encode(&stripe));
    let public = Manifest::published([9; 16], 1 << 20, piece_cid(1), 3, body.client);
    seed("net-manifest", &codec::encode(&public));
    let answer = SignedAnswer::sign(answer, &provider_key(2)).unwrap();
    let row = DealRow::taken(&signed, manifest.as_bytes().to_vec(), answer.to_bytes());
    seed("net-deal-row", &row.encode());
    let file = records::File {
        by: [1; 32],
        key: RecordKey::new(RecordKind::Head, [5; 32]),
        v: 1,
        value: vec![1; 40],
    };
    seed("net-record-file", &codec::encode(&file));
    seed("net-claim", SignedClaim::sign(7, &client, &signing_key(3)).bytes());
    seed("net-standing", &crate::term::tests::standing().encode());
}
