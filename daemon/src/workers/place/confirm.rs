//! The last steps of a placement: the re-check that makes a copy count, and the row that says so.

use std::sync::Arc;

use bytes::Bytes;
use holdfast_content::placement::{PlacementAction, PlacementEntry, PlacementFacts};
use holdfast_net::client::{AuditSpec, Priority};
use holdfast_net::{ByteRange, NetError, SignedProposal};
use holdfast_proofs::PieceCid;

use super::Placed;
use crate::drive::Engine;
use crate::drive::events::Level;
use crate::drive::ledger::{Peer, PieceId};
use crate::drive::peers::peer_short;
use crate::drive::slots::{Cover, PieceBytes};

/// Bytes of the ranged read in the re-check.
const RANGE_BYTES: u64 = 4096;
/// One read or challenge in the re-check.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(20);

/// Reads a range and asks a fresh challenge over a connection that shares nothing with the push. Returns when.
pub(super) async fn recheck(
    engine: &Arc<Engine>,
    peer: &Peer,
    signed: &SignedProposal,
    piece: Arc<dyn PieceBytes>,
    cover: &Cover,
) -> Result<u64, NetError> {
    let session = engine.peers.fresh(&engine.ledger, peer).await?;
    let body = signed.proposal();
    let range = random_range(engine, body.raw_len);
    let parts = session.read(signed.deal_id(), &[range], Priority::Interactive, PATIENCE).await?;
    let mut expected = vec![0; range.len as usize];
    let local = |e: std::io::Error| NetError::Local(format!("reading the piece: {e}"));
    let offset = range.offset;
    let cover = cover.clone();
    let reading = engine.threads.run(move || {
        // Of a renewed deal the challenge below says that the bytes are these.
        if piece.is_here() {
            piece.read_at(offset, &mut expected)?;
            cover.apply(offset, &mut expected).map_err(std::io::Error::other)?;
            return Ok(Some(expected));
        }
        Ok(None)
    });
    let expected = reading.await.map_err(|e| NetError::Local(e.to_string()))?.map_err(local)?;
    let right = |part: &Bytes| match &expected {
        Some(expected) => part.as_ref() == expected.as_slice(),
        None => part.len() as u64 == u64::from(range.len),
    };
    if parts.len() != 1 || !parts.first().is_some_and(right) {
        return Err(NetError::Protocol("it answered a read of what it just stored with other bytes".into()));
    }
    let piece =
        PieceCid::from_bytes(&body.piece_cid.to_bytes()).map_err(|e| NetError::Invalid(e.to_string()))?;
    let spec = AuditSpec { piece, count: engine.policy.audit_leaves, epoch: engine.now(), record: None };
    session.audit(signed.deal_id(), &spec, PATIENCE).await?;
    session.close().await;
    Ok(engine.now())
}

fn random_range(engine: &Engine, raw_len: u64) -> ByteRange {
    let mut random = [0; 8];
    engine.env.rng.fill(&mut random);
    let len = raw_len.min(RANGE_BYTES);
    let offset = u64::from_le_bytes(random).checked_rem(raw_len - len + 1).unwrap_or(0);
    ByteRange::new(offset, u32::try_from(len).unwrap_or(u32::MAX))
}

/// The placement row and its signed entry, in one commit.
pub(super) fn record(engine: &Engine, id: PieceId, slot: u16, placed: Placed) -> anyhow::Result<()> {
    let before = engine.ledger.piece(&id).and_then(|r| r.slots.get(usize::from(slot)).cloned());
    let peer = placed.holder.provider.clone();
    let holder = placed.holder.clone();
    engine.ledger.set_holder(id, slot, placed.holder, |chain| {
        let facts = PlacementFacts {
            action: PlacementAction::Add,
            piece: id,
            raw_len: placed.raw_len,
            slot,
            holder: holder.provider,
            slot_cid: placed.piece_cid,
            deal: holder.deal,
            receipt: placed.receipt,
            time: holder.confirmed_at,
        };
        let entry =
            PlacementEntry::sign(facts, chain, engine.keys.placement_signing()).map_err(|e| e.to_string())?;
        Ok((entry.bytes().to_vec(), entry.chain_end()))
    })?;
    if let Some(lost) = before.and_then(|s| s.lost) {
        let text = format!(
            "repaired: the copy of piece {} that {} is with provider {} now",
            short_id(&id),
            lost.why,
            peer_short(&peer)
        );
        engine.events.add(engine.now(), Level::Info, text);
    }
    Ok(())
}

/// A piece id short enough for a sentence.
pub fn short_id(id: &PieceId) -> String {
    data_encoding::HEXLOWER.encode(id.get(..4).unwrap_or_default())
}
