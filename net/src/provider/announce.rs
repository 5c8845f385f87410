//! Telling the DHT whose records are here, so that a drive is found from its words.
//!
//! Only records of clients with a deal are announced: a stranger's cost us room already, and shall not cost the others
//! of the DHT theirs.

use std::sync::Arc;
use std::time::Duration;

use super::Inner;
use crate::node::{ANNOUNCED_MAX, DhtKey, DhtRole};
use crate::record::RecordKind;

/// Records come in bursts.
const GATHER: Duration = Duration::from_secs(1);
/// Deals end without a word: looked at again so often.
const LOOK: Duration = Duration::from_secs(60);

/// Until the provider stops.
pub(super) async fn run(inner: Arc<Inner>) {
    if inner.node.dht_role() != DhtRole::Server {
        return;
    }
    let mut told: Option<Vec<DhtKey>> = None;
    loop {
        let worker = inner.clone();
        let keys = tokio::task::spawn_blocking(move || keys(&worker)).await.unwrap_or_default();
        if told.as_ref() != Some(&keys) {
            if inner.node.announce(keys.clone()).await.is_err() {
                return;
            }
            told = Some(keys);
        }
        tokio::select! {
            () = inner.stop.cancelled() => return,
            () = inner.announcing.notified() => tokio::time::sleep(GATHER).await,
            () = tokio::time::sleep(LOOK) => {}
        }
    }
}

/// In a fixed order, so that the same is announced where it is too much.
fn keys(inner: &Inner) -> Vec<DhtKey> {
    let records = &inner.store.records;
    // Of what a link leads to the first part is enough: its name ends with the part's number.
    let shares =
        records.of_kind(RecordKind::Share).into_iter().filter(|(key, _)| key.name.ends_with(&[0, 0]));
    let mut keys: Vec<DhtKey> = records
        .of_kind(RecordKind::Keyring)
        .into_iter()
        .chain(shares)
        .filter(|(_, by)| !inner.store.deals_of(&[*by], None, 1).is_empty())
        .map(|(key, _)| DhtKey::of_record(&key))
        .collect();
    keys.sort_unstable();
    keys.truncate(ANNOUNCED_MAX);
    keys
}
