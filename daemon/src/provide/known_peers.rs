//! The peers of the DHT that a provider knew last: its way back in when the ones that it was given are gone.
//!
//! ```text
//!   DIR/peers    JSON: a list of addresses as people exchange them
//! ```
//!
//! A damaged file is as good as none.

use std::path::{Path, PathBuf};
use std::time::Duration;

use holdfast_net::{Node, PeerAddrs};
use tokio_util::sync::CancellationToken;

use crate::home::{ProviderAddr, write_atomically};

const FILE: &str = "peers";
/// Peers that are written down.
const PEERS_MAX: usize = 32;
const FILE_BYTES_MAX: u64 = 256 << 10;
/// Soon after the start once, then so often.
const FIRST: Duration = Duration::from_secs(30);
const EVERY: Duration = Duration::from_secs(600);

/// What the folder remembers.
pub(super) fn read(dir: &Path) -> Vec<PeerAddrs> {
    let path = dir.join(FILE);
    let small = std::fs::metadata(&path).is_ok_and(|meta| meta.len() <= FILE_BYTES_MAX);
    let bytes = if small { std::fs::read(&path).unwrap_or_default() } else { Vec::new() };
    parse(&bytes)
}

/// From the file's bytes.
pub(crate) fn parse(bytes: &[u8]) -> Vec<PeerAddrs> {
    let known: Vec<ProviderAddr> = serde_json::from_slice(bytes).unwrap_or_default();
    let parts = known.iter().take(PEERS_MAX).filter_map(|known| known.parts().ok());
    parts.map(|(peer, addrs)| PeerAddrs::new(peer, addrs)).collect()
}

/// Writes down who is known, from time to time and at the end.
pub(super) async fn keep(node: Node, dir: PathBuf, stop: CancellationToken) {
    let mut pause = FIRST;
    while stop.run_until_cancelled(tokio::time::sleep(pause)).await.is_some() {
        pause = EVERY;
        save(&node, &dir).await;
    }
    save(&node, &dir).await;
}

async fn save(node: &Node, dir: &Path) {
    let Ok(known) = node.known_peers(PEERS_MAX).await else { return };
    // An empty list would forget the way back at the moment when it is needed.
    if known.is_empty() {
        return;
    }
    let known: Vec<ProviderAddr> = known.iter().map(|p| ProviderAddr::new(p.peer, &p.addrs)).collect();
    let written = serde_json::to_vec_pretty(&known)
        .map_err(|e| e.to_string())
        .and_then(|bytes| write_atomically(&dir.join(FILE), &bytes).map_err(|e| e.to_string()));
    if let Err(error) = written {
        tracing::warn!(error, "the peers that are known now are not remembered");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_damaged_file_is_none() {
        for bad in [&b""[..], b"x", b"{}", b"[{}]", br#"[{"peer_id":"x","addrs":[]}]"#] {
            assert!(parse(bad).is_empty());
        }
    }
}
