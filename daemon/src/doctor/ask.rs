//! What only the daemon knows of its drive, and what providers tell somebody who is none of theirs.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use holdfast_net::tags::Tags;
use holdfast_net::{Env, Finder};
use nix::sys::resource::{Resource, getrlimit};

use super::facts::{DealFacts, DriveFacts, ProviderFacts, Quota, Said};
use crate::control::StatusReport;
use crate::drive::Engine;
use crate::drive::domains;
use crate::drive::ledger::{Peer, ProviderRow, ProviderState};
use crate::drive::peers::peer_text;
use crate::home::{Config, ProviderAddr};
use crate::restore;

/// Deals are renewed in their last third; one with less than this part of its time was not.
const RENEWED_BY: u64 = 6;
/// One provider's answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// Providers asked side by side.
const AT_ONCE: usize = 16;

fn ahead(theirs: u64, ours: u64) -> i64 {
    let distance = i64::try_from(theirs.abs_diff(ours)).unwrap_or(i64::MAX);
    if theirs >= ours { distance } else { -distance }
}

impl Engine {
    /// The daemon's part: rows, limits, and what each provider says now.
    pub async fn doctor_facts(self: &Arc<Self>, status: StatusReport) -> anyhow::Result<DriveFacts> {
        let said = self.ask_info().await;
        let peers: Vec<&Peer> = said.iter().map(|(peer, _)| peer).collect();
        let domains = self.ledger.domains(&peers);
        let now = self.now();
        let providers = said
            .iter()
            .zip(domains)
            .map(|((peer, answer), domain)| {
                let row = self.ledger.provider(peer);
                let peer_id = peer_text(peer);
                let barred = |row: &ProviderRow| row.is_barred(now).then_some(row.barred_until);
                ProviderFacts {
                    said: answer.as_ref().ok().map(|(info, at)| Said {
                        ahead_seconds: ahead(info.now, *at),
                        free: info.free,
                        accepting: Some(info.accepting),
                    }),
                    silence: answer.as_ref().err().cloned(),
                    domain,
                    barred_until: row.as_ref().and_then(barred),
                    reason: row.and_then(|row| row.reason),
                    bytes: status.providers.iter().find(|p| p.peer_id == peer_id).map_or(0, |p| p.bytes),
                    peer_id,
                }
            })
            .collect();
        let (deals, pressure) = self.blocking(|e| (e.deals_ending(), e.drive.pressure())).await?;
        Ok(DriveFacts {
            corruption: self.drive.recovery().corruption.clone(),
            open_files: open_files(),
            writers_wait: pressure.waiting,
            quota: self.policy.quota_bytes.map(|bytes| Quota { bytes, free: pressure.free_bytes }),
            deals,
            providers,
            status,
        })
    }

    fn deals_ending(&self) -> DealFacts {
        let (now, soon) = (self.deal_now(), self.policy.deal_seconds / RENEWED_BY);
        let mut found = DealFacts { ending: 0, first_in: u64::MAX };
        for (_, row) in self.ledger.pieces() {
            for (_, holder) in row.holders().filter(|(_, holder)| holder.failed.is_none()) {
                let left = holder.ends_at.saturating_sub(now);
                let stays = self.ledger.provider(&holder.provider);
                let stays = stays.is_some_and(|row| !matches!(row.state, ProviderState::Removed));
                if stays && left < soon {
                    found.ending += 1;
                    found.first_in = found.first_in.min(left);
                }
            }
        }
        if found.ending == 0 { DealFacts::default() } else { found }
    }
}

/// Open files of this process, and how many it may have.
fn open_files() -> Option<(u64, u64)> {
    let open = std::fs::read_dir("/proc/self/fd").ok()?.count() as u64;
    Some((open, getrlimit(Resource::RLIMIT_NOFILE).ok()?.0))
}

/// Asks the providers of a drive that is not mounted, where they were last, under an identity that is thrown away.
pub async fn strangers(config: &Config) -> anyhow::Result<Vec<ProviderFacts>> {
    let env = Env::system();
    let client = restore::searcher(&env, Finder::new(env.clone(), Vec::new(), false)).await?;
    let asked: Vec<(ProviderAddr, Result<(Said, Tags), String>)> =
        futures::stream::iter(config.providers.clone())
            .map(|provider| {
                let (client, env) = (&client, &env);
                async move {
                    let asking = async {
                        let (peer, addrs) = provider.parts().map_err(|error| error.to_string())?;
                        let session = client.session(peer, addrs);
                        let info = session.info().await.map_err(|error| error.to_string())?;
                        let ahead_seconds = ahead(info.now, env.clock.unix_seconds());
                        // An older one does not know the question.
                        let tags = session.tags().await.unwrap_or_default();
                        Ok::<_, String>((Said { ahead_seconds, free: info.free, accepting: None }, tags))
                    };
                    let said = match tokio::time::timeout(PATIENCE, asking).await {
                        Ok(said) => said,
                        Err(_) => Err("no answer in time".to_owned()),
                    };
                    (provider, said)
                }
            })
            .buffered(AT_ONCE)
            .collect()
            .await;
    client.shutdown().await;
    let none = Tags::default();
    let tags: Vec<[&Tags; 2]> = asked
        .iter()
        .map(|(provider, said)| {
            let declared = said.as_ref().map_or(&none, |(_, tags)| tags);
            [declared, provider.tags.as_ref().unwrap_or(&none)]
        })
        .collect();
    let domains = domains::group(&tags);
    Ok(asked
        .iter()
        .zip(domains)
        .map(|((provider, said), domain)| ProviderFacts {
            peer_id: provider.peer_id.clone(),
            said: said.as_ref().ok().map(|(said, _)| said.clone()),
            silence: said.as_ref().err().cloned(),
            domain,
            barred_until: None,
            reason: None,
            bytes: 0,
        })
        .collect())
}
