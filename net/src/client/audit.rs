//! Audits: a challenge is drawn, then asked, and its answer verified.
//!
//! The two are apart for whoever wants to do something between them that the provider must not know the challenge for: to read some of
//! the very leaves that it will be asked, as any reader would. [`Audit::beside`] holds what was read against what the proof shows.

use std::time::Duration;

use bytes::Bytes;
use holdfast_proofs::pdp::{Beside, beside};
use holdfast_proofs::{Challenge, PieceCid, PossessionProof, ProofError, SeedInputs, Verdict};

use super::link::unexpected;
use super::session::Session;
use crate::codec;
use crate::deal::DealId;
use crate::error::NetError;
use crate::identity::verify_by_peer;
use crate::record::RecordKey;
use crate::wire::message::{self, AUDIT_BODY_BYTES_MAX, AuditBody, AuditRequest, Reply, Request};

/// An audit to make.
#[derive(Debug, Clone)]
pub struct AuditSpec {
    /// The slot's piece CID.
    pub piece: PieceCid,
    /// Leaves to ask.
    pub count: u16,
    /// Number of the audit within the deal.
    pub epoch: u64,
    /// A record whose digest the provider shall countersign.
    pub record: Option<RecordKey>,
}

/// An audit whose challenge is drawn and that nobody was asked yet: only this side can know its leaves. It is asked once, so that what
/// was learned of it serves nobody.
#[derive(Debug)]
pub struct DrawnAudit {
    deal: DealId,
    spec: AuditSpec,
    nonce: [u8; 32],
    challenge: Challenge,
}

impl DrawnAudit {
    /// The leaves that it asks: ascending, each once.
    pub fn positions(&self) -> Result<Vec<u64>, NetError> {
        self.challenge.positions(&self.spec.piece).map_err(|e| NetError::Invalid(e.to_string()))
    }
}

/// An audit that was passed.
#[derive(Debug, Clone)]
pub struct Audit {
    /// What was verified.
    pub verdict: Verdict,
    /// From the request to the last byte of the answer.
    pub elapsed: Duration,
    /// The proof.
    pub proof: PossessionProof,
    /// What the provider signed, and its signature: evidence for others.
    pub body: Bytes,
    /// See [`body`](Self::body).
    pub signature: Vec<u8>,
    /// Digest ([`message::record_digest`]) of the named record as the provider keeps it.
    pub record: Option<[u8; 32]>,
}

impl Audit {
    /// Holds bytes of the slot that begin at `offset` against the leaves that were shown.
    pub fn beside(&self, offset: u64, bytes: &[u8]) -> Result<Beside, ProofError> {
        beside(&self.verdict, &self.proof, offset, bytes)
    }
}

impl Session {
    /// Challenges the provider with a seed drawn now, and verifies its answer.
    pub async fn audit(&self, deal: DealId, spec: &AuditSpec, deadline: Duration) -> Result<Audit, NetError> {
        self.audit_drawn(self.draw_audit(deal, spec)?, deadline).await
    }

    /// Draws a challenge; nothing is sent.
    pub fn draw_audit(&self, deal: DealId, spec: &AuditSpec) -> Result<DrawnAudit, NetError> {
        let nonce: [u8; 32] = self.inner.env.random();
        let (us, them) = (self.inner.carrier.peer_id().to_bytes(), self.inner.peer.to_bytes());
        let seed = Challenge::seed_from(&SeedInputs {
            nonce,
            auditor: &us,
            prover: &them,
            deal: &deal.0,
            epoch: spec.epoch,
        });
        let challenge = Challenge::new(seed, spec.count).map_err(|e| NetError::Invalid(e.to_string()))?;
        Ok(DrawnAudit { deal, spec: spec.clone(), nonce, challenge })
    }

    /// Asks what was drawn, and verifies the answer.
    pub async fn audit_drawn(&self, drawn: DrawnAudit, deadline: Duration) -> Result<Audit, NetError> {
        let request = Request::Audit(AuditRequest {
            count: drawn.spec.count,
            deal: drawn.deal,
            epoch: drawn.spec.epoch,
            nonce: drawn.nonce,
            record: drawn.spec.record.clone(),
        });
        let started = self.inner.env.clock.monotonic_ms();
        let reply = self.call_within(request, deadline).await?;
        let elapsed = Duration::from_millis(self.inner.env.clock.monotonic_ms().saturating_sub(started));
        let Reply::Audit { body, proof, sig } = reply else { return Err(unexpected("audit")) };
        self.check_audit(&drawn, (body, proof, sig), elapsed)
    }

    fn check_audit(
        &self,
        drawn: &DrawnAudit,
        (body, proof, signature): (Vec<u8>, Vec<u8>, Vec<u8>),
        elapsed: Duration,
    ) -> Result<Audit, NetError> {
        if !verify_by_peer(&self.inner.peer, &message::audit_message(&body), &signature) {
            return Err(NetError::Protocol("bad signature on an audit's answer".into()));
        }
        let said: AuditBody = codec::decode(&body, AUDIT_BODY_BYTES_MAX)?;
        let same = said.v == 1
            && said.deal == drawn.deal
            && said.count == drawn.spec.count
            && said.seed == *drawn.challenge.seed()
            && said.proof == message::proof_digest(&proof);
        if !same {
            return Err(NetError::Protocol("an answer to another audit".into()));
        }
        let failed = |e: ProofError| NetError::Protocol(format!("failed the audit: {e}"));
        let proof = PossessionProof::decode(&proof).map_err(failed)?;
        let verdict = holdfast_proofs::verify(&drawn.spec.piece, &drawn.challenge, &proof).map_err(failed)?;
        let record = said.record.map(serde_bytes::ByteArray::into_array);
        Ok(Audit { verdict, elapsed, proof, body: Bytes::from(body), signature, record })
    }
}
