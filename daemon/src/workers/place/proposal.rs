//! The deal that a slot is placed under: proposed once, and again with the same bytes after a crash.

use holdfast_net::deal::{DEAL_SUITE, DEAL_VERSION, manifest_digest};
use holdfast_net::manifest::ManifestPiece;
use holdfast_net::stripe::StripeError;
use holdfast_net::{DealProposal, Manifest, SignedProposal};

use super::Claim;
use crate::drive::Engine;
use crate::drive::ledger::{Intent, PieceId, StripeRow};

/// A signed proposal, and the manifest that goes with it.
pub(super) struct Proposal {
    pub(super) signed: SignedProposal,
    pub(super) manifest: Vec<u8>,
}

/// The deal that the intent names, or a new one, committed before it is sent.
pub(super) fn proposal(
    engine: &Engine,
    id: PieceId,
    claim: &Claim,
    raw_len: u64,
    cids: &[cid::Cid],
) -> anyhow::Result<Proposal> {
    let key = engine.peers.key_for(&claim.peer);
    let client = key.verifying_key().to_bytes();
    let row = engine.ledger.piece(&id);
    let stripe = row.as_ref().and_then(|row| row.stripe.as_ref());
    let public = row.as_ref().is_some_and(|row| row.public.is_some());
    let manifest = match (stripe, cids.first()) {
        (Some(stripe), _) => striped(id, stripe, cids.to_vec(), client)?,
        (None, Some(cid)) if public => Manifest::published(id, raw_len, *cid, cids.len(), client),
        (None, _) => Manifest::replicas(id, raw_len, cids.to_vec(), client),
    };
    let manifest = manifest.sign(&key)?;
    let intent =
        row.as_ref().and_then(|r| r.slots.get(usize::from(claim.slot))).and_then(|s| s.intent.clone());
    if let Some(intent) = intent.filter(|i| i.provider == claim.peer && !i.proposal.is_empty())
        && let Ok(signed) = SignedProposal::from_bytes(&intent.proposal)
        && signed.proposal().manifest == manifest_digest(manifest.as_bytes())
    {
        return Ok(Proposal { signed, manifest: manifest.as_bytes().to_vec() });
    }
    let piece_cid =
        *cids.get(usize::from(claim.slot)).ok_or_else(|| anyhow::anyhow!("slot without a piece CID"))?;
    let mut nonce = [0; 16];
    engine.env.rng.fill(&mut nonce);
    let now = engine.deal_now();
    let signed = DealProposal {
        version: DEAL_VERSION,
        suite: DEAL_SUITE,
        client,
        provider: claim.peer.clone(),
        piece_cid,
        raw_len,
        manifest: manifest_digest(manifest.as_bytes()),
        start: now,
        end: now.saturating_add(engine.policy.deal_seconds),
        price: Vec::new(),
        settlement: 0,
        settlement_data: Vec::new(),
        nonce,
    }
    .sign(&key)?;
    let intent = Intent { provider: claim.peer.clone(), proposal: signed.to_bytes(), since: now };
    engine.ledger.set_intent(id, claim.slot, Some(intent))?;
    Ok(Proposal { signed, manifest: manifest.as_bytes().to_vec() })
}

/// The manifest of a stripe, to be signed by `signer`.
pub(crate) fn striped(
    id: PieceId,
    stripe: &StripeRow,
    cids: Vec<cid::Cid>,
    signer: [u8; 32],
) -> Result<Manifest, StripeError> {
    let pieces = stripe.pieces.iter().map(|piece| ManifestPiece { id: piece.id, raw_len: piece.len });
    Manifest::stripe(id, pieces.collect(), stripe.parity, cids, signer)
}
