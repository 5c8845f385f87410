//! Answering audits, always from the stored bytes.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use holdfast_proofs::{Challenge, ProveError, SeedInputs};

use super::session::ClientSession;
use super::store::{no_tree, not_now};
use super::{Inner, blocking};
use crate::codec;
use crate::deal::DealId;
use crate::error::ErrorCode;
use crate::wire::message::{self, AuditBody, AuditRequest, Reply, WireError};

/// Proves possession of a deal's slot, and signs the proof with what it answers.
pub(super) async fn answer(
    inner: &Arc<Inner>,
    session: &ClientSession,
    request: AuditRequest,
) -> Result<Reply, WireError> {
    let entry = inner.stored(session, &request.deal)?;
    if entry.damaged {
        inner.tallies.audits_failed.fetch_add(1, Ordering::Relaxed);
        return Err(WireError::new(ErrorCode::Corrupt, "the slot is damaged"));
    }
    let (auditor, prover) = (session.peer.to_bytes(), inner.node.peer_id().to_bytes());
    let seed = Challenge::seed_from(&SeedInputs {
        nonce: request.nonce,
        auditor: &auditor,
        prover: &prover,
        deal: &request.deal.0,
        epoch: request.epoch,
    });
    let challenge = Challenge::new(seed, request.count)
        .map_err(|e| WireError::new(ErrorCode::Malformed, e.to_string()))?;
    let closed = |_| WireError::new(ErrorCode::ShuttingDown, "going down");
    let _permit = inner.audits.clone().acquire_owned().await.map_err(closed)?;
    let worker = inner.clone();
    let result = blocking(move || {
        let proof = prove(&worker, &request.deal, &entry.piece, &challenge)?;
        let record = match &request.record {
            // A record that cannot be read says nothing of the slot.
            Some(key) => {
                let value = worker.store.records.get(key).map_err(beside_the_slot)?;
                value.map(|v| message::record_digest(&v))
            }
            None => None,
        };
        let body = codec::encode(&AuditBody {
            at: worker.env.clock.unix_seconds(),
            count: request.count,
            deal: request.deal,
            proof: message::proof_digest(&proof),
            record: record.map(serde_bytes::ByteArray::new),
            seed,
            v: 1,
        });
        let sig = worker.node.identity().sign(&message::audit_message(&body));
        let sig = sig.map_err(|_| not_now())?;
        Ok(Reply::Audit { body, proof, sig })
    })
    .await;
    let is_fault = |e: &WireError| ErrorCode::from_number(e.code).is_some_and(ErrorCode::is_fault);
    match &result {
        Ok(_) => _ = inner.tallies.audits_answered.fetch_add(1, Ordering::Relaxed),
        Err(e) if is_fault(e) => _ = inner.tallies.audits_failed.fetch_add(1, Ordering::Relaxed),
        Err(_) => {}
    }
    result
}

/// A storage error is a fault in the answer to an audit; this one is none.
fn beside_the_slot(error: WireError) -> WireError {
    match ErrorCode::from_number(error.code) {
        Some(ErrorCode::Storage) => not_now(),
        _ => error,
    }
}

fn prove(
    inner: &Inner,
    deal: &DealId,
    piece: &holdfast_proofs::PieceCid,
    challenge: &Challenge,
) -> Result<Vec<u8>, WireError> {
    let slot = inner.store.open_slot(deal)?;
    let tree = inner.store.open_tree(deal, piece, &slot)?;
    let proof = match holdfast_proofs::prove(&slot, &tree, challenge) {
        // The cache was damaged, not the slot.
        Err(ProveError::Cache(e)) => {
            tracing::warn!(%deal, "the tree cache is made again: {e}");
            let tree = inner.store.rebuild_tree(deal, piece, &slot)?;
            holdfast_proofs::prove(&slot, &tree, challenge)
        }
        result => result,
    };
    let proof = proof.map_err(|e| no_tree(deal, e))?;
    proof.encode().map_err(|_| not_now())
}
