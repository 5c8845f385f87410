//! Watchers' logs as the owner reads them, from whoever keeps them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use holdfast_content::keys::DriveKeys;
use holdfast_content::placement::PlacementEntry;
use holdfast_content::watch::part::{self, Part};
use holdfast_content::watch::{CapabilityId, WatcherKeys};
use holdfast_net::{RecordKey, RecordKind};

use super::capability::Known;
use super::log::{Log, LogHead};
use crate::drive::ledger::{Hearsay, Holder, Ledger, Peer};
use crate::drive::peers::Peers;

/// Providers asked at once.
const AT_ONCE: usize = 16;
/// One provider's answer.
const PATIENCE: Duration = Duration::from_secs(15);

/// Who is asked, and with which keys.
#[derive(Clone)]
pub struct Logs {
    /// Sessions.
    pub peers: Arc<Peers>,
    /// Who and where the providers are.
    pub ledger: Arc<Ledger>,
    /// The drive's keys.
    pub keys: Arc<DriveKeys>,
}

impl Logs {
    /// A watcher's log: the newest head of those that these providers keep, and the entries that it names; and how many
    /// of them answered.
    pub async fn read(
        &self,
        id: &CapabilityId,
        from: &[Peer],
    ) -> anyhow::Result<(usize, Option<(LogHead, Log)>)> {
        let watch = self.keys.watch();
        let author = WatcherKeys::from_secret(&watch.secret(id)).log.verifying_key().to_bytes();
        let shared = watch.shared();
        let (answered, head) = self.newest(&author, 0, from).await;
        let Some(head) = head else { return Ok((answered, None)) };
        let head = LogHead::decode(&head.open(&shared)?)?;
        let mut plain = BTreeMap::new();
        for n in head.parts() {
            if let (_, Some(part)) = self.newest(&author, n, from).await {
                plain.insert(n, part.open(&shared)?.to_vec());
            }
        }
        let log = Log::read(author, &head, &plain)?;
        Ok((answered, Some((head, log))))
    }

    async fn newest(&self, author: &[u8; 32], n: u16, from: &[Peer]) -> (usize, Option<Part>) {
        let key = RecordKey::new(RecordKind::WatchLog, part::name(author, n));
        let asking = from.iter().cloned().map(|peer| {
            let (this, key) = (self.clone(), key.clone());
            async move {
                let getting = async {
                    let session = this.peers.session(&this.ledger, &peer).await?;
                    session.get_record(&key).await
                };
                let value = tokio::time::timeout(PATIENCE, getting).await.ok()?.ok()?;
                Some(value.and_then(|value| Part::verify(&key.name, &value).ok()))
            }
        });
        let found: Vec<Option<Option<Part>>> =
            futures::stream::iter(asking).buffer_unordered(AT_ONCE).collect().await;
        let answered = found.iter().flatten().count();
        (answered, found.into_iter().flatten().flatten().max_by_key(|part| part.number))
    }

    /// What watchers say that the ledger does not know yet, and where the providers are that they found: for whoever has to read
    /// before anything can be adopted.
    pub async fn overheard(&self) -> (Vec<Hearsay>, Vec<Known>) {
        let from: Vec<Peer> = self.ledger.providers().into_iter().map(|(peer, _)| peer).collect();
        let (mut said, mut places) = (Vec::new(), Vec::new());
        for (id, row) in self.ledger.grants() {
            if row.said().is_none_or(|note| note.revoked.is_some()) {
                continue;
            }
            match self.read(&id, &from).await {
                Ok((_, Some((head, log)))) => {
                    said.extend(log.entries().iter().map(hearsay));
                    places.extend(head.places);
                }
                Ok((_, None)) => {}
                Err(error) => {
                    tracing::warn!(error = %format!("{error:#}"), "a watcher's log cannot be read");
                }
            }
        }
        (said, places)
    }
}

/// An entry as a holder that may be asked, and counts for nothing.
pub fn hearsay(entry: &PlacementEntry) -> Hearsay {
    let said = entry.body();
    let holder = Holder {
        provider: said.holder.to_vec(),
        deal: said.deal.to_vec(),
        entry: u64::MAX,
        confirmed_at: 0,
        proven_at: 0,
        ends_at: said.time,
        failed: None,
    };
    Hearsay { piece: said.piece, slot: said.slot, holder }
}
