//! Every decoder of what a peer sends and of what a provider's folder holds, as a function of any bytes: what fuzzing and
//! the seeds of `tests/fuzz` call. Bodies are decoded as if their signatures were right. A violated promise panics.

use futures::executor::block_on;
use futures::io::Cursor;
use libp2p::multihash::Multihash;
use libp2p::{Multiaddr, PeerId};

use crate::addresses::{believable, reach, way};
use crate::bitswap::message::{MESSAGE_BYTES_MAX, Message};
use crate::codec;
use crate::deal::{
    AnswerBody, DEAL_BYTES_MAX, DealId, DealProposal, ReceiptBody, SignedProposal, SignedReceipt,
};
use crate::manifest::{MANIFEST_BYTES_MAX, Manifest, SignedManifest};
use crate::peer_set::PeerSet;
use crate::permit::{PERMIT_RANGES_BYTES_MAX, PermitBody, REVOCATIONS_BYTES_MAX, Revocations, SignedPermit};
use crate::provider::store::{records, row::DealRow};
use crate::record::RecordKey;
use crate::term::{SignedClaim, Standing};
use crate::wire::frame::read_frame;
use crate::wire::message::{self, AUDIT_BODY_BYTES_MAX, AuditBody, DataRequest, Reply, Request, WireError};

/// Name and entry of each decoder.
pub const DECODERS: &[(&str, fn(&[u8]))] = &[
    ("net-frame", frame),
    ("net-request", |bytes| drop(message::decode::<Request>(bytes))),
    ("net-reply", |bytes| drop(message::decode::<Reply>(bytes))),
    ("net-data-request", |bytes| drop(message::decode::<DataRequest>(bytes))),
    ("net-error", error),
    ("net-audit", |bytes| drop(codec::decode::<AuditBody>(bytes, AUDIT_BODY_BYTES_MAX))),
    ("net-proposal", proposal),
    ("net-permit", permit),
    ("net-revocations", revocations),
    ("net-answer", |bytes| drop(codec::decode::<AnswerBody>(bytes, DEAL_BYTES_MAX))),
    ("net-receipt", receipt),
    ("net-manifest", manifest),
    ("net-record-key", record_key),
    ("net-deal-id", deal_id),
    ("net-deal-row", |bytes| drop(DealRow::decode(bytes))),
    ("net-bitswap", bitswap),
    ("net-address", address),
    ("net-peer-set", peer_set),
    ("net-upnp", upnp),
    ("net-record-file", |bytes| drop(records::decode(bytes))),
    ("net-claim", |bytes| drop(SignedClaim::from_bytes(bytes))),
    ("net-standing", standing),
];

/// What is understood of a message comes back.
fn bitswap(bytes: &[u8]) {
    if let Ok(message) = Message::decode(&bytes::Bytes::copy_from_slice(bytes)) {
        let again = bytes::Bytes::from(message.encode());
        assert!(again.len() > MESSAGE_BYTES_MAX || Message::decode(&again) == Ok(message));
    }
}

/// A stream of frames: each one comes back byte for byte.
fn frame(bytes: &[u8]) {
    let mut stream = Cursor::new(bytes);
    let mut read = 0;
    while let Ok(frame) = block_on(read_frame(&mut stream)) {
        let end = read + frame.encoded().len();
        assert_eq!(bytes.get(read..end), Some(frame.encoded().as_ref()));
        read = end;
    }
}

fn standing(bytes: &[u8]) {
    if let Ok(standing) = Standing::decode(bytes) {
        assert_eq!(standing.encode(), bytes, "two encodings of one standing");
    }
}

fn error(bytes: &[u8]) {
    if let Ok(error) = message::decode::<WireError>(bytes) {
        let _ = error.into_net_error().to_string();
    }
}

fn proposal(bytes: &[u8]) {
    let _ = SignedProposal::from_bytes(bytes);
    if let Ok(body) = codec::decode::<DealProposal>(bytes, DEAL_BYTES_MAX)
        && body.validate().is_ok()
    {
        assert!(body.piece().is_ok(), "a valid proposal names a piece");
    }
}

fn permit(bytes: &[u8]) {
    if let Ok(permit) = SignedPermit::from_bytes(bytes) {
        assert_eq!(permit.as_bytes(), bytes, "two encodings of one permit");
    }
    if let Ok(body) = codec::decode::<PermitBody>(bytes, PERMIT_RANGES_BYTES_MAX) {
        let named = body.deals.iter().flatten();
        let reads = named.map(|deal| (deal.deal, deal.ranges.first().copied().unwrap_or_default()));
        let reads: Vec<_> = reads.collect();
        if body.validate().is_ok() {
            for (deal, (from, len)) in reads {
                let len = u32::try_from(len).unwrap_or(u32::MAX);
                assert!(body.reaches(&deal, from, len), "a permit that does not reach what it names");
            }
        }
    }
}

fn revocations(bytes: &[u8]) {
    let _ = Revocations::from_bytes(bytes);
    if let Ok(list) = codec::decode::<Revocations>(bytes, REVOCATIONS_BYTES_MAX)
        && list.validate().is_ok()
    {
        assert!(list.holders.iter().all(|holder| list.names(holder)), "a list that misses its own");
    }
}

fn receipt(bytes: &[u8]) {
    let _ = SignedReceipt::from_bytes(bytes);
    if let Ok(body) = codec::decode::<ReceiptBody>(bytes, DEAL_BYTES_MAX) {
        let _ = PeerId::from_bytes(&body.provider);
    }
}

fn manifest(bytes: &[u8]) {
    let _ = SignedManifest::from_bytes(bytes);
    if let Ok(body) = codec::decode::<Manifest>(bytes, MANIFEST_BYTES_MAX) {
        let _ = body.validate();
    }
}

fn record_key(bytes: &[u8]) {
    if let Ok(key) = codec::decode::<RecordKey>(bytes, 1024) {
        let _ = key.validate();
    }
}

fn deal_id(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Ok(id) = text.parse::<DealId>() {
        assert_eq!(id.to_string().parse::<DealId>().ok(), Some(id));
    }
}

/// Whatever a router, or somebody who poses as one, answers.
fn upnp(bytes: &[u8]) {
    let _ = crate::upnp::location(&String::from_utf8_lossy(bytes));
    if let Ok(body) = crate::upnp::body_of(bytes) {
        let _ = crate::upnp::control(&body);
    }
}

fn peer_set(bytes: &[u8]) {
    if let Ok(set) = PeerSet::parse(std::str::from_utf8(bytes).unwrap_or_default()) {
        let _ = (set.len(), set.has_address([10, 0, 0, 1].into()));
    }
}

/// What a peer says where it is.
fn address(bytes: &[u8]) {
    let Ok(addr) = Multiaddr::try_from(bytes.to_vec()) else { return };
    let Some(peer) = Multihash::wrap(0, &[1; 36]).ok().and_then(|hash| PeerId::from_multihash(hash).ok())
    else {
        return;
    };
    for seen in ["/ip4/127.0.0.1/tcp/1", "/ip4/10.0.0.1/tcp/1", "/ip4/8.8.8.8/tcp/1"] {
        let Ok(seen) = seen.parse() else { continue };
        for kept in believable([addr.clone()], &seen, peer).addrs {
            assert!(
                way(&kept).is_some() && reach(&kept) >= reach(&seen),
                "an address that nobody may be sent to"
            );
        }
    }
}

#[cfg(test)]
mod tests;
