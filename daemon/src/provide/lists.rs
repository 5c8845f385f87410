//! Whose deals are taken, and who is not let in: two files of the operator's, read again when they change.
//!
//! Promises: a list that cannot be read at the start is told and nothing is served; one that becomes unreadable later stays
//! in force as it was, with a word in the log: a slip of the pen opens no door.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use holdfast_net::peer_set::PEER_SET_BYTES_MAX;
use holdfast_net::provider::{Allow, Provider};
use holdfast_net::{Node, PeerSet};
use tokio_util::sync::CancellationToken;

use super::ProvideError;
use crate::home::read_limited;

const LOOK: Duration = Duration::from_secs(2);

/// By which a change is seen.
type Mark = (SystemTime, u64);

struct List {
    path: PathBuf,
    set: Arc<PeerSet>,
    mark: Option<Mark>,
}

impl List {
    fn read(path: &Path) -> Result<List, ProvideError> {
        let list = |reason: String| ProvideError::List { path: path.to_owned(), reason };
        // Before the text: a change in between is seen at the next look.
        let mark = mark(path);
        let bytes = read_limited(path, PEER_SET_BYTES_MAX as u64).map_err(|e| list(e.to_string()))?;
        let text = String::from_utf8(bytes).map_err(|e| list(e.to_string()))?;
        let set = PeerSet::parse(&text).map_err(|e| list(e.to_string()))?;
        Ok(List { path: path.to_owned(), set: Arc::new(set), mark })
    }

    /// Reads it again if it has changed; whether it says something else now.
    fn renew(&mut self) -> bool {
        let now = mark(&self.path);
        if now == self.mark {
            return false;
        }
        self.mark = now;
        match List::read(&self.path) {
            Ok(read) if read.set == self.set => false,
            Ok(read) => {
                tracing::info!(list = %self.path.display(), entries = read.set.len(), "the list has changed");
                self.set = read.set;
                true
            }
            Err(error) => {
                tracing::warn!("{error}; it stays in force as it was");
                false
            }
        }
    }
}

fn mark(path: &Path) -> Option<Mark> {
    let meta = std::fs::metadata(path).ok()?;
    Some((meta.modified().ok()?, meta.len()))
}

/// Both lists; what is absent allows everybody, or blocks nobody.
pub(super) struct Lists {
    allow: Option<List>,
    block: Option<List>,
}

impl Lists {
    pub(super) fn read(allow: &Option<PathBuf>, block: &Option<PathBuf>) -> Result<Lists, ProvideError> {
        let read = |path: &Option<PathBuf>| path.as_deref().map(List::read).transpose();
        Ok(Lists { allow: read(allow)?, block: read(block)? })
    }

    pub(super) async fn apply(&self, provider: &Provider, node: &Node) -> Result<(), ProvideError> {
        provider.set_allow(match &self.allow {
            None => Allow::Anyone,
            Some(list) => Allow::Listed(list.set.clone()),
        });
        let blocked = self.block.as_ref().map(|list| PeerSet::clone(&list.set)).unwrap_or_default();
        let closed = node.block(blocked).await?;
        if closed > 0 {
            tracing::info!(closed, "connections of blocked peers are closed");
        }
        Ok(())
    }

    /// Until the provider stops.
    pub(super) async fn watch(mut self, provider: Provider, node: Node, stop: CancellationToken) {
        if self.allow.is_none() && self.block.is_none() {
            return;
        }
        while stop.run_until_cancelled(tokio::time::sleep(LOOK)).await.is_some() {
            let changed =
                [&mut self.allow, &mut self.block].into_iter().flatten().fold(false, |changed, list| {
                    let renewed = list.renew();
                    changed || renewed
                });
            if changed && let Err(error) = self.apply(&provider, &node).await {
                tracing::warn!("the changed list is not in force: {error}");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_slip_of_the_pen_leaves_a_list_as_it_was() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("block");
        assert!(matches!(List::read(&path), Err(ProvideError::List { .. })));
        std::fs::write(&path, "10.0.0.0/8\n").unwrap();
        let mut list = List::read(&path).unwrap();
        assert!(!list.renew());
        std::fs::write(&path, "10.0.0.0/8\n192.0.2.0/24\n").unwrap();
        assert!(list.renew());
        assert!(list.set.has_address("192.0.2.7".parse().unwrap()));
        std::fs::write(&path, "everybody\n").unwrap();
        assert!(!list.renew());
        std::fs::remove_file(&path).unwrap();
        assert!(!list.renew());
        assert!(list.set.has_address("192.0.2.7".parse().unwrap()));
        std::fs::write(&path, "\n").unwrap();
        assert!(list.renew() && list.set.is_empty());
    }
}
