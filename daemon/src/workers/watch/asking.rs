//! What the watch worker asks of providers, and checks of what they and watchers say.

use std::time::Duration;

use holdfast_content::placement::PlacementEntry;
use holdfast_content::watch::part::Part;
use holdfast_net::client::{AuditSpec, Priority, PutOutcome};
use holdfast_net::{ByteRange, DealId, NetError, RecordKey, SignedReceipt};
use holdfast_proofs::PieceCid;

use crate::drive::Engine;
use crate::drive::ledger::Peer;

/// Providers asked at once.
pub(super) const AT_ONCE: usize = 16;
/// One provider's answer.
pub(super) const PATIENCE: Duration = Duration::from_secs(15);
/// A challenge or a read.
pub(super) const CHALLENGE: Duration = Duration::from_secs(20);
/// Bytes of the ranged read.
const RANGE_BYTES: u64 = 4096;

pub(super) fn deal_of(entry: &PlacementEntry) -> Option<DealId> {
    <[u8; 32]>::try_from(entry.body().deal.as_slice()).ok().map(DealId)
}

/// Whether the holder signed for these bytes, under the key of this drive's watchers.
pub(super) fn receipt_fits(engine: &Engine, entry: &PlacementEntry) -> bool {
    let said = entry.body();
    SignedReceipt::from_bytes(&said.receipt).is_ok_and(|receipt| {
        let body = receipt.body();
        body.deal.0[..] == said.deal[..]
            && body.piece_cid.to_bytes() == *said.slot_cid
            && body.provider == *said.holder
            && body.client == engine.keys.watch().client().verifying_key().to_bytes()
    })
}

/// A ranged read and a fresh challenge, over a connection of their own.
pub(super) async fn check(
    engine: &Engine,
    peer: &Peer,
    deal: DealId,
    cid: &[u8],
    len: u64,
) -> Result<(), NetError> {
    let session = engine.peers.fresh(&engine.ledger, peer).await?;
    let mut random = [0; 8];
    engine.env.rng.fill(&mut random);
    let take = len.min(RANGE_BYTES);
    let offset = u64::from_le_bytes(random).checked_rem(len - take + 1).unwrap_or(0);
    let range = ByteRange::new(offset, u32::try_from(take).unwrap_or(u32::MAX));
    session.read(deal, &[range], Priority::Interactive, CHALLENGE).await?;
    let piece = PieceCid::from_bytes(cid).map_err(|e| NetError::Invalid(e.to_string()))?;
    let spec = AuditSpec { piece, count: engine.policy.audit_leaves, epoch: engine.now(), record: None };
    session.audit(deal, &spec, CHALLENGE).await?;
    session.close().await;
    Ok(())
}

/// Leaves records with one provider; the number of what it keeps instead, if that is higher.
pub(super) async fn give(
    engine: &Engine,
    peer: &Peer,
    records: Vec<(RecordKey, Vec<u8>)>,
) -> Result<Option<u64>, NetError> {
    let giving = async {
        let session = engine.peers.session(&engine.ledger, peer).await?;
        let mut higher = None;
        for (key, value) in records {
            match session.put_record(&key, &value).await? {
                PutOutcome::Superseded(kept) if kept.as_ref() != value.as_slice() => {
                    let number = Part::verify(&key.name, &kept).map(|part| part.number).ok();
                    higher = higher.max(number);
                }
                _ => {}
            }
        }
        Ok(higher)
    };
    tokio::time::timeout(PATIENCE, giving).await.map_err(|_| NetError::Timeout(PATIENCE))?
}
