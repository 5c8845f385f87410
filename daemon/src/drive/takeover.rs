//! Taking a drive over: the newest head, and the term after it.
//!
//! Promises: what is attached is the highest head that a majority of its anchors keeps, where they grant the term; where too few do
//! the drive is attached all the same, to be read. With the owner's word (`restore --minority`) those that granted are enough.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use holdfast_content::keys::DriveKeys;
use holdfast_net::term::{Anchors, Standing};
use holdfast_net::{Env, Multiaddr, NetError, PeerId, SigningKey};

use super::claim::{Claimant, Claimed};
use super::ledger::Peer;
use super::peers::Peers;
use super::term::base_of;
use crate::home::{Config, ProviderAddr};
use crate::restore::{self, Newest};

/// One round of answers: some have to be found first.
const PATIENCE: Duration = Duration::from_secs(30);
/// A head that an anchor shows may name other anchors, and so on.
const HEADS_FOLLOWED_MAX: usize = 4;

/// The newest head, and the term after it, if it was granted.
pub async fn take_over(
    config: &Config,
    peers: &Arc<Peers>,
    keys: &Arc<DriveKeys>,
    writer: &SigningKey,
    env: &Env,
) -> anyhow::Result<(Newest, Option<Standing>)> {
    let mut newest = restore::newest(peers.client(), keys, &config.providers).await?;
    if !config.restore_minority {
        newest.enough(config.policy.survive_losses)?;
    }
    let claimant = Claimant { keys, writer, env, patience: PATIENCE, force: config.restore_minority };
    for _ in 0..HEADS_FOLLOWED_MAX {
        let Some(base) = base_of(newest.value.clone(), &newest.head, Some(&newest.body)) else { break };
        let known = whereabouts(&config.providers, &newest);
        let session = |peer: Peer| {
            let at = known.get(&peer).cloned();
            async move {
                let (id, addrs) = at.ok_or_else(|| NetError::Unreachable("no address is known".into()))?;
                let session = peers.client().connect(id, addrs).await?;
                session.authenticate(peers.key_for(&peer)).await?;
                Ok(session)
            }
        };
        match claimant.claim(&base, session).await {
            Claimed::Held(certificate) => {
                let anchors = match certificate.is_forced() {
                    true => Anchors::new(certificate.granted_by().cloned(), [])?,
                    false => base.anchors,
                };
                return Ok((newest, Some(Standing { certificate, anchors })));
            }
            Claimed::Newer(head) => newest = newest.follow(*head, keys)?,
            Claimed::TooFew(few) => {
                tracing::warn!("{few}");
                break;
            }
        }
    }
    Ok((newest, None))
}

/// Where the providers are that the head names: where they were found, and where it says.
fn whereabouts(configured: &[ProviderAddr], newest: &Newest) -> BTreeMap<Peer, (PeerId, Vec<Multiaddr>)> {
    let mut all: BTreeMap<Peer, (PeerId, Vec<Multiaddr>)> = BTreeMap::new();
    for provider in configured.iter().cloned().chain(restore::providers(&newest.body)) {
        let Ok((peer, addrs)) = provider.parts() else { continue };
        let known = &mut all.entry(peer.to_bytes()).or_insert_with(|| (peer, Vec::new())).1;
        let new: Vec<Multiaddr> = addrs.into_iter().filter(|addr| !known.contains(addr)).collect();
        known.extend(new);
    }
    all
}
