//! One slot with one provider, by a watcher: under the owner's permit, with the owner's key as the deal's client.
//!
//! The same order as everywhere: proposal written down ─► deal countersigned ─► pushed ─► receipt ─► ranged read and fresh challenge
//! on a new connection ─► entry in the log. A crash repeats at most one step.

use anyhow::Context as _;
use holdfast_content::keys::DriveName;
use holdfast_content::placement::{PlacementAction, PlacementFacts};
use holdfast_net::deal::{DEAL_SUITE, DEAL_VERSION, PieceSource as _, manifest_digest};
use holdfast_net::{DealProposal, Manifest, SignedProposal};
use serde_bytes::ByteBuf;

use super::bundle::{Bundle, Piece};
use super::picture::{Picture, Seen, Wanted};
use super::rebuild;
use super::state::{Moved, Proposed};
use super::watcher::Watcher;
use crate::drive::ledger::Peer;
use crate::drive::peers::peer_short;
use crate::records::{head_key, keyring_key};

/// A deal that is about to be made.
pub(super) struct Prepared {
    signed: SignedProposal,
    manifest: Vec<u8>,
    peer: Peer,
}

impl Watcher {
    /// The deal: the one that was begun with this provider, or a new one, written down before it is sent.
    pub(super) fn prepare(
        &mut self,
        bundle: &Bundle,
        wanted: &Wanted,
        peer: &Peer,
        now: u64,
    ) -> anyhow::Result<Prepared> {
        let piece =
            bundle.pieces.iter().find(|piece| piece.id == wanted.slot.piece).context("no such piece")?;
        let manifest = self.manifest(piece)?;
        let digest = manifest_digest(&manifest);
        let begun = self.state.proposed.iter().find(|p| p.slot == wanted.slot && p.peer == *peer);
        if let Some(signed) = begun.and_then(|begun| SignedProposal::from_bytes(&begun.proposal).ok())
            && signed.proposal().manifest == digest
            && signed.proposal().end > now
        {
            return Ok(Prepared { signed, manifest, peer: peer.clone() });
        }
        let permit = self.reach.place_permit(peer).context("the owner permits nothing there")?;
        let slot = piece.slots.get(usize::from(wanted.slot.slot)).context("no such slot")?;
        let mut nonce = [0; 16];
        self.reach.env.rng.fill(&mut nonce);
        let proposal = DealProposal {
            version: DEAL_VERSION,
            suite: DEAL_SUITE,
            client: permit.body().client,
            provider: peer.clone(),
            piece_cid: cid::Cid::try_from(slot.cid.as_slice())?,
            raw_len: wanted.bytes,
            manifest: digest,
            start: now,
            end: now.saturating_add(bundle.head.deal_seconds),
            price: Vec::new(),
            settlement: 0,
            settlement_data: Vec::new(),
            nonce,
        };
        let signed = proposal.sign_by(permit, &self.keys.holder)?;
        self.state.proposed.retain(|proposed| proposed.slot != wanted.slot);
        let proposal = ByteBuf::from(signed.to_bytes());
        self.state.proposed.push(Proposed { slot: wanted.slot, peer: ByteBuf::from(peer.clone()), proposal });
        self.folder.save(&self.state)?;
        Ok(Prepared { signed, manifest, peer: peer.clone() })
    }

    fn manifest(&self, piece: &Piece) -> anyhow::Result<Vec<u8>> {
        let signer = self.keys.holder.verifying_key().to_bytes();
        let cids = piece.cids()?;
        let public = piece.slots.iter().all(|slot| slot.seed.is_none());
        let manifest = match (piece.shape(), cids.first()) {
            (Some(shape), _) => {
                Manifest::stripe(piece.id, piece.manifest_pieces(), shape.parity(), cids, signer)?
            }
            (None, Some(cid)) if public => {
                Manifest::published(piece.id, piece.len, *cid, piece.slots.len(), signer)
            }
            (None, _) => Manifest::replicas(piece.id, piece.len, cids, signer),
        };
        Ok(manifest.sign(&self.keys.holder)?.as_bytes().to_vec())
    }

    /// From the sources to the re-check; what the log is to say of it.
    pub(super) async fn place(
        &self,
        picture: &Picture<'_>,
        seen: &Seen,
        wanted: &Wanted,
        prepared: &Prepared,
    ) -> anyhow::Result<PlacementFacts> {
        let Prepared { signed, manifest, peer } = prepared;
        let work = self.folder.work();
        let bytes = rebuild::slot(&self.reach, &work, picture, seen, &wanted.slot).await?;
        let session = self.reach.session(peer).await?;
        session.propose(signed, manifest).await?;
        let receipt = session.push(signed, bytes.clone(), |_| {}).await?;
        let (deal, body) = (signed.deal_id().0, signed.proposal());
        let cid = body.piece_cid.to_bytes();
        let expected = |offset: u64, buf: &mut [u8]| bytes.read_at(offset, buf);
        self.reach.recheck(peer, deal, &cid, expected, body.raw_len).await?;
        Ok(PlacementFacts {
            action: PlacementAction::Add,
            piece: wanted.slot.piece,
            raw_len: body.raw_len,
            slot: wanted.slot.slot,
            holder: peer.clone(),
            slot_cid: cid,
            deal: deal.to_vec(),
            receipt: receipt.to_bytes(),
            time: seen.now,
        })
    }

    /// Writes down what was placed, and tells everybody.
    pub(super) async fn placed(&mut self, facts: PlacementFacts, peers: &[Peer]) -> anyhow::Result<()> {
        let (holder, bytes) = (facts.holder.clone(), facts.raw_len);
        let entry = self.log.add(facts, &self.keys.log)?;
        let (number, said) = (entry.body().number, ByteBuf::from(entry.bytes()));
        let slot = (entry.body().piece, entry.body().slot);
        let deal = <[u8; 32]>::try_from(entry.body().deal.as_slice()).unwrap_or_default();
        self.state.entries.push(said);
        self.state.proposed.retain(|proposed| (proposed.slot.piece, proposed.slot.slot) != slot);
        self.state.moved.push(Moved { at: self.reach.env.clock.unix_seconds(), bytes });
        self.proven_now(deal);
        self.folder.save(&self.state)?;
        self.say(peers.iter(), Some(number)).await?;
        self.carry(&holder, peers).await;
        Ok(())
    }

    /// A provider that keeps slots now keeps what leads to them as well: keyring, head, and this watcher's bundle.
    async fn carry(&mut self, holder: &Peer, peers: &[Peer]) {
        let Some(head_name) = self.bundle.as_ref().map(|bundle| bundle.head.head_name) else { return };
        if !self.carried.insert(holder.clone()) {
            return;
        }
        for key in [keyring_key(&DriveName::from_bytes(self.capability.drive)), head_key(&head_name)] {
            let mut given = false;
            for peer in peers.iter().filter(|peer| *peer != holder) {
                // A provider takes only what its owner signed, and keeps the highest: every one that is there is offered.
                if let Ok(Some(value)) = self.reach.get(peer, &key).await {
                    given |= self.reach.put(holder, &key, &value).await.is_ok();
                }
            }
            if !given {
                tracing::warn!(peer = %peer_short(holder), "it keeps slots now, and not what leads to them");
                self.carried.remove(holder);
            }
        }
        for n in 0.. {
            let Some(value) = self.folder.bundle_part(n) else { break };
            let key = self.bundle_name(n);
            if let Err(error) = self.reach.put(holder, &key, &value).await {
                tracing::debug!(peer = %peer_short(holder), %error, "the bundle was not taken");
                break;
            }
        }
    }
}
