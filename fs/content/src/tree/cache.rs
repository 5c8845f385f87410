//! Decoded nodes in memory, those that were used last, up to a number of bytes.

use std::sync::Arc;

use cid::Cid;
use lru::LruCache;

use super::{Entry, Node};
use crate::block::Link;

/// Memory of a node beside its entries: the list's links, the table, the node itself.
const NODE_BYTES: usize = 256;
/// Of an entry's key or value beside its bytes: what the allocator and the sharing take.
const SLICE_BYTES: usize = 32;

pub(super) struct NodeCache {
    nodes: LruCache<Cid, Arc<Node>>,
    bytes: usize,
    bytes_max: usize,
}

impl NodeCache {
    pub(super) fn new(bytes_max: usize) -> Self {
        Self { nodes: LruCache::unbounded(), bytes: 0, bytes_max }
    }

    pub(super) fn get(&mut self, cid: &Cid) -> Option<Arc<Node>> {
        self.nodes.get(cid).cloned()
    }

    pub(super) fn put(&mut self, cid: Cid, node: Arc<Node>) {
        self.bytes += memory(&node);
        if let Some((_, old)) = self.nodes.push(cid, node) {
            self.bytes = self.bytes.saturating_sub(memory(&old));
        }
        while self.bytes > self.bytes_max {
            let Some((_, old)) = self.nodes.pop_lru() else { break };
            self.bytes = self.bytes.saturating_sub(memory(&old));
        }
    }
}

fn memory(node: &Node) -> usize {
    let entry = |entry: &Entry| {
        let heap = entry.key.len() + entry.value.len() + 2 * SLICE_BYTES;
        size_of::<Entry>() + heap + entry.links.len() * size_of::<Link>()
    };
    NODE_BYTES + node.entries.iter().map(entry).sum::<usize>()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::block::Block;
    use bytes::Bytes;

    fn node(value: usize) -> (Cid, Arc<Node>) {
        let entry =
            Entry { key: Bytes::from_static(b"key"), value: Bytes::from(vec![7; value]), links: Vec::new() };
        let cid = *Block::raw(value.to_le_bytes().to_vec()).unwrap().cid();
        (cid, Arc::new(Node { level: 0, entries: vec![entry] }))
    }

    #[test]
    fn what_was_used_last_stays_within_the_bound() {
        let mut cache = NodeCache::new(10_000);
        let nodes: Vec<_> = (3000..3006).map(node).collect();
        for (cid, node) in &nodes {
            cache.put(*cid, node.clone());
            cache.put(*cid, node.clone());
            assert!(cache.get(&nodes[0].0).is_some(), "used all the time");
        }
        assert!(cache.bytes <= 10_000);
        assert_eq!(cache.bytes, cache.nodes.iter().map(|(_, node)| memory(node)).sum::<usize>());
        assert!(cache.get(&nodes[1].0).is_none());
        assert!(cache.get(&nodes[5].0).is_some());
    }
}
