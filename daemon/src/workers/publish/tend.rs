//! Whether a head counts as published, and who its anchors are to be.

use std::collections::BTreeSet;
use std::time::Duration;

use holdfast_net::client::Said;
use holdfast_net::term::{Anchors, Standing};

use super::PublishWorker;
use crate::drive::anchors::{self, Fit};
use crate::drive::events::Level;
use crate::drive::head::Published;
use crate::drive::ledger::{Peer, ProviderState};
use crate::drive::peers::peer_short;
use crate::drive::term;
use crate::records::HeadValue;

/// One provider's answer.
const PATIENCE: Duration = Duration::from_secs(10);

impl PublishWorker {
    /// What the providers that keep `published` are worth: without a majority of its anchors nobody counts, for whoever takes the
    /// drive over need not be shown it.
    pub(super) async fn count(&mut self, published: &Published) -> anyhow::Result<()> {
        let engine = self.engine.clone();
        let value = HeadValue::verify(&published.pair, &engine.head_name())?;
        let mut keepers = self.with.clone();
        if let Some(standing) = value.standing() {
            let anchors = &standing.anchors;
            let keeping = |set: &BTreeSet<Peer>| set.intersection(&self.with).count();
            engine.term.note_keeping(
                [anchors.now(), anchors.former()].map(|set| u32::try_from(keeping(set)).unwrap_or(u32::MAX)),
            );
            if anchors.is_majority(|peer| self.with.contains(peer)) {
                self.note_known(published).await?;
            } else {
                keepers.clear();
            }
            if engine.overtaken().is_none() && !anchors.is_majority(|peer| !self.outvoting.contains(peer)) {
                engine.outvoted().await;
            }
        }
        engine.ledger.set_published(published.log_next, keepers);
        Ok(())
    }

    /// Whoever takes the drive over from here on knows the commit.
    async fn note_known(&self, published: &Published) -> anyhow::Result<()> {
        let (engine, sequence) = (self.engine.clone(), published.commit_sequence);
        if published.taken_over {
            return Ok(());
        }
        engine.blocking(move |e| term::note_known(&e.ledger, sequence)).await?
    }

    /// Chooses other anchors where it is time. `true`: the next head names them.
    pub(super) async fn tend_anchors(&mut self) -> anyhow::Result<bool> {
        let engine = self.engine.clone();
        let Some(standing) = engine.term.standing() else { return Ok(false) };
        let shown = engine.head.published().is_some_and(|p| p.stands(&standing));
        if engine.overtaken().is_some() || !shown {
            return Ok(false);
        }
        let now = engine.now();
        let fit = |peer: &[u8]| match engine.ledger.provider(&peer.to_vec()) {
            None => Fit::Gone,
            Some(row) if matches!(row.state, ProviderState::Removed) => Fit::Gone,
            Some(row) if matches!(row.state, ProviderState::Failed { .. }) || row.is_barred(now) => {
                Fit::Failing
            }
            Some(_) => Fit::Well,
        };
        let wanted = anchors::wanted(engine.highest_losses());
        let well = standing.anchors.now().iter().filter(|peer| fit(peer) == Fit::Well).count();
        if well < wanted && standing.anchors.former().is_empty() {
            self.ask_to_join(&standing, wanted - well).await;
        }
        let ready: Vec<Peer> =
            engine.may_anchor().into_iter().filter(|peer| self.joined.get(peer) == Some(&true)).collect();
        let keeps = |peer: &[u8]| self.with.contains(peer);
        let Some(next) = anchors::next(&standing.anchors, wanted, fit, &ready, keeps) else {
            return Ok(false);
        };
        tell(&standing.anchors, &next, |text| engine.events.add(now, Level::Info, text));
        let standing = Standing { anchors: next, ..standing };
        engine.blocking(move |e| e.term.set(&e.ledger, standing)).await??;
        Ok(true)
    }

    /// Asks providers that answer to grant the term that is held: who does can be an anchor.
    async fn ask_to_join(&mut self, standing: &Standing, open: usize) {
        let engine = self.engine.clone();
        let Some(claim) = engine.own_claim() else { return };
        let asked: Vec<Peer> = engine
            .may_anchor()
            .into_iter()
            .filter(|peer| {
                let answers =
                    engine.ledger.provider(peer).is_some_and(|row| row.answers() && row.last_ok > 0);
                answers && !standing.anchors.contains(peer) && !self.joined.contains_key(peer)
            })
            .take(open)
            .collect();
        let asking = asked.into_iter().map(|peer| async {
            let asking = async {
                let session = engine.peers.session(&engine.ledger, &peer).await?;
                session.claim(&claim, None).await
            };
            let said = tokio::time::timeout(PATIENCE, asking).await;
            (peer, said)
        });
        for (peer, said) in futures::future::join_all(asking).await {
            match said {
                Ok(Ok(answer)) => {
                    self.joined.insert(peer, matches!(answer.said, Said::Granted(_)));
                }
                // One of an older version, until the next start.
                Ok(Err(error)) if error.code().is_some_and(|code| !code.is_retryable()) => {
                    self.joined.insert(peer, false);
                }
                Ok(Err(error)) => tracing::debug!(%error, "not asked to be an anchor"),
                Err(_) => tracing::debug!(peer = %peer_short(&peer), "does not answer to be an anchor"),
            }
        }
    }
}

fn tell(before: &Anchors, next: &Anchors, say: impl Fn(String)) {
    let names = |from: &Anchors, to: &Anchors| -> Vec<String> {
        from.now().difference(to.now()).map(peer_short).collect()
    };
    let (out, new) = (names(before, next), names(next, before));
    if !out.is_empty() {
        say(format!("{} no longer decide who writes the drive", out.join(", ")));
    }
    if !new.is_empty() {
        say(format!("{} take part in deciding who writes the drive", new.join(", ")));
    }
}
