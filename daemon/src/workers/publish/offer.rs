//! Giving a head to every provider.
//!
//! Owns: who was asked and has not answered. Promises: a head counts as soon as a majority of its anchors keeps it; who does not answer holds
//! neither that up nor the next head, and is given the newest one when he has answered, or not answered for [`PATIENCE`].

use std::sync::Arc;
use std::time::Duration;

use holdfast_content::keys::DriveName;
use holdfast_net::client::{self, PutOutcome};
use holdfast_net::{ErrorCode, NetError};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::PublishWorker;
use crate::drive::Engine;
use crate::drive::head::Published;
use crate::drive::ledger::{Peer, ProviderState};
use crate::drive::peers::peer_short;
use crate::records::{HeadValue, head_key, keyring_key};

/// Providers that are given a head at once.
const AT_ONCE: usize = 16;
/// One provider's answer.
const PATIENCE: Duration = Duration::from_secs(15);
/// When a head counts, the others have this long to answer before the worker goes on.
const STRAGGLERS: Duration = Duration::from_secs(1);

/// What one provider said to a head.
pub(super) enum Said {
    Keeps,
    /// It keeps a higher one, or one by another writer of the same term.
    Higher(Vec<u8>),
    /// It granted this higher term to another.
    Granted(u64),
    Silent(String),
}

/// What came of giving one provider the head of this sequence.
pub(super) struct Given {
    peer: Peer,
    sequence: u64,
    said: Said,
}

impl PublishWorker {
    /// Gives the head to everybody who does not keep it yet.
    pub(super) async fn offer(&mut self, published: &Published) -> anyhow::Result<()> {
        let shown = Arc::new(published.clone());
        let value = HeadValue::verify(&published.pair, &self.engine.head_name())?;
        let anchors = value.standing();
        let mut counts_since: Option<Instant> = None;
        self.tried.clear();
        self.offered_at = Some(Instant::now());
        loop {
            self.begin(&shown);
            let counts = anchors
                .as_ref()
                .is_some_and(|standing| standing.anchors.is_majority(|peer| self.with.contains(peer)));
            if counts && counts_since.is_none() {
                self.count(published).await?;
                counts_since = Some(Instant::now());
            }
            let done = match counts_since {
                Some(since) => tokio::time::timeout_at(since + STRAGGLERS, self.giving.join_next()).await,
                None => Ok(self.giving.join_next().await),
            };
            let Ok(Some(given)) = done else { break };
            // A task that panicked cannot say whom it asked: everybody is asked anew.
            let given = given.inspect_err(|_| {
                self.giving.abort_all();
                self.giving = JoinSet::new();
                self.asked.clear();
            })?;
            self.asked.remove(&given.peer);
            if given.sequence == published.sequence {
                self.hear(published, given).await?;
            }
        }
        self.count(published).await
    }

    /// Asks those that lack the head and are not being asked.
    fn begin(&mut self, published: &Arc<Published>) {
        for (peer, row) in self.engine.ledger.providers() {
            let open = !self.with.contains(&peer) && !self.asked.contains(&peer);
            if self.giving.len() >= AT_ONCE || !open || matches!(row.state, ProviderState::Removed) {
                continue;
            }
            // Once for each head: who refused or did not answer is asked again by the next round.
            if !self.tried.insert(peer.clone()) {
                continue;
            }
            let keyring = (!self.keyring_with.contains(&peer)).then(|| self.keyring.clone());
            let (engine, published) = (self.engine.clone(), published.clone());
            self.asked.insert(peer.clone());
            self.giving.spawn(async move {
                let said = give(&engine, &peer, &published, keyring.as_ref()).await;
                Given { peer, sequence: published.sequence, said }
            });
        }
    }

    async fn hear(&mut self, published: &Published, given: Given) -> anyhow::Result<()> {
        let (engine, peer) = (self.engine.clone(), given.peer);
        match given.said {
            Said::Keeps => {
                self.with.insert(peer.clone());
                self.keyring_with.insert(peer.clone());
                engine.provider_greeted(&peer)?;
            }
            Said::Higher(pair) => {
                if let Some(higher) = self.higher(&peer, published, &pair) {
                    engine.overtaken_by(&higher).await;
                }
            }
            Said::Granted(term) => {
                tracing::warn!(peer = %peer_short(&peer), term, "granted a higher term to another");
                self.outvoting.insert(peer);
            }
            Said::Silent(why) => tracing::debug!(peer = %peer_short(&peer), why, "head not taken"),
        }
        Ok(())
    }

    /// A provider keeps a head that ends this machine's writing: a higher one, or one of the same term by another writer.
    fn higher(&self, peer: &Peer, ours: &Published, pair: &[u8]) -> Option<HeadValue> {
        let Ok(theirs) = HeadValue::verify(pair, &self.engine.head_name()) else {
            tracing::warn!(peer = %peer_short(peer), "answered with a head that is not ours");
            return None;
        };
        let own = HeadValue::verify(&ours.pair, &self.engine.head_name()).ok()?;
        // As high as ours and other bytes is another writer, too.
        if theirs.rank() < own.rank() && !theirs.rivals(&own) {
            tracing::warn!(peer = %peer_short(peer), "refused our head for one that is lower");
            return None;
        }
        Some(theirs)
    }
}

async fn give(engine: &Engine, peer: &Peer, published: &Published, keyring: Option<&Vec<u8>>) -> Said {
    let name = engine.head_name();
    let giving = async {
        let session = engine.peers.session(&engine.ledger, peer).await?;
        if let Some(keyring) = keyring {
            session.put_record(&keyring_key(&DriveName::from_bytes(engine.drive_key)), keyring).await?;
        }
        let put = session.put_record(&head_key(&name), &published.pair).await;
        // Its word alone ends nothing: it has the claim that it granted.
        if put.as_ref().is_err_and(|error| error.code() == Some(ErrorCode::Overtaken))
            && let Some(own) = engine.own_claim()
            && let client::Said::Taken(other) = session.claim(&own, None).await?.said
            && other.term > published.term
        {
            return Ok(Err(other.term));
        }
        put.map(Ok)
    };
    match tokio::time::timeout(PATIENCE, giving).await {
        Ok(Ok(Ok(PutOutcome::Stored))) => Said::Keeps,
        Ok(Ok(Ok(PutOutcome::Superseded(kept)))) if kept.as_ref() == published.pair.as_slice() => Said::Keeps,
        Ok(Ok(Ok(PutOutcome::Superseded(kept)))) => Said::Higher(kept.to_vec()),
        Ok(Ok(Err(term))) => Said::Granted(term),
        Ok(Err(error)) => {
            if matches!(error, NetError::Unreachable(_) | NetError::Disconnected(_)) {
                engine.peers.failed(peer);
            }
            Said::Silent(error.to_string())
        }
        Err(_) => Said::Silent("no answer in time".into()),
    }
}
