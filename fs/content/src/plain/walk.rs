//! Walking a DAG: a file's bytes, a folder's entries, a path's end.
//!
//! Iterative and bounded: a DAG may share nodes so that a few blocks claim more files than there are atoms, nest them without
//! end, or claim sizes that its leaves do not have. Depth, nodes and sizes are checked as they are met.

use super::node::{Node, Shard, Slot};
use super::{Blocks, PlainError, load};
use cid::Cid;
use std::ops::Range;

/// Levels of a file's or a sharded folder's nodes, at most.
pub const DEPTH_MAX: u32 = 64;
/// Nodes of one folder, at most: 65,536 shards of 256 entries are sixteen million entries.
pub const DIRECTORY_NODES_MAX: u64 = 65_536;

/// Takes bytes in order.
pub type Take<'a> = dyn FnMut(&[u8]) -> Result<(), PlainError> + 'a;

/// Gives the bytes of `range` (cut to the file) of a file's node to `take`, in order.
pub fn read_file(
    blocks: &dyn Blocks,
    cid: &Cid,
    node: Node,
    range: Range<u64>,
    take: &mut Take<'_>,
) -> Result<(), PlainError> {
    visit_file(blocks, cid, node, range, &mut |_| {}, take)
}

/// The same, which also tells the CID of every node on the way, the first one left out, before its bytes.
pub fn visit_file(
    blocks: &dyn Blocks,
    cid: &Cid,
    node: Node,
    range: Range<u64>,
    seen: &mut dyn FnMut(&Cid),
    take: &mut Take<'_>,
) -> Result<(), PlainError> {
    // What is still to be read, the next on top: a node or its CID, where its bytes begin, what it must hold, how deep it is.
    let mut todo: Vec<(Cid, Option<Node>, u64, Option<u64>, u32)> = vec![(*cid, Some(node), 0, None, 0)];
    while let Some((cid, node, start, said, depth)) = todo.pop() {
        if depth > DEPTH_MAX {
            return Err(PlainError::Limit { what: "levels", max: DEPTH_MAX.into() });
        }
        let node = match node {
            Some(node) => node,
            None => {
                seen(&cid);
                load(blocks, &cid)?
            }
        };
        let Node::File { data, children, size } = node else {
            return Err(PlainError::malformed(&cid, "a part of a file that is none"));
        };
        if said.is_some_and(|said| said != size) {
            return Err(PlainError::malformed(&cid, "it is not as long as the node above it says"));
        }
        let mut at = start.saturating_add(data.len() as u64);
        let below = todo.len();
        for child in children {
            let end = at.saturating_add(child.size);
            // Empty parts are left out: there may be any number of them.
            if child.size > 0 && end > range.start && at < range.end {
                todo.push((child.cid, None, at, Some(child.size), depth + 1));
            }
            at = end;
        }
        if let Some(children) = todo.get_mut(below..) {
            children.reverse();
        }
        let from = range.start.saturating_sub(start).min(data.len() as u64);
        let to = range.end.saturating_sub(start).min(data.len() as u64);
        if let Some(part) = data.get(from as usize..to as usize).filter(|part| !part.is_empty()) {
            take(part)?;
        }
    }
    Ok(())
}

/// Gives each entry of a folder's node to `take`.
pub fn entries(
    blocks: &dyn Blocks,
    cid: &Cid,
    node: Node,
    take: &mut dyn FnMut(&str, &Cid) -> Result<(), PlainError>,
) -> Result<(), PlainError> {
    visit_directory(blocks, cid, node, &mut |_| {}, take)
}

/// The same, which also tells the CID of every further node of the folder itself.
pub fn visit_directory(
    blocks: &dyn Blocks,
    cid: &Cid,
    node: Node,
    seen: &mut dyn FnMut(&Cid),
    take: &mut dyn FnMut(&str, &Cid) -> Result<(), PlainError>,
) -> Result<(), PlainError> {
    let mut todo: Vec<(Cid, Option<Node>, u32)> = vec![(*cid, Some(node), 0)];
    let mut nodes = 0u64;
    while let Some((cid, node, depth)) = todo.pop() {
        nodes += 1;
        if nodes > DIRECTORY_NODES_MAX {
            return Err(PlainError::Limit { what: "nodes in one folder", max: DIRECTORY_NODES_MAX });
        }
        if depth > DEPTH_MAX {
            return Err(PlainError::Limit { what: "levels", max: DEPTH_MAX.into() });
        }
        let node = match node {
            Some(node) => node,
            None => {
                seen(&cid);
                load(blocks, &cid)?
            }
        };
        match node {
            Node::Directory { entries } if depth == 0 => {
                entries.iter().try_for_each(|(name, cid)| take(name, cid))?;
            }
            Node::Shard(shard) => {
                let below = todo.len();
                for slot in shard.slots {
                    match slot {
                        Slot::Entry { name, cid, .. } => take(&name, &cid)?,
                        Slot::Shard { cid, .. } => todo.push((cid, None, depth + 1)),
                    }
                }
                if let Some(shards) = todo.get_mut(below..) {
                    shards.reverse();
                }
            }
            _ => return Err(PlainError::malformed(&cid, "a part of a folder that is none")),
        }
    }
    Ok(())
}

/// Where a path leads.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Resolved {
    /// What stands at its end.
    pub cid: Cid,
    /// Every node that was read on the way, from the root on; the end is not among them.
    pub way: Vec<Cid>,
}

/// Follows names from a root. Links on the way are not followed: they mean something on a disk only.
pub fn resolve<'a>(
    blocks: &dyn Blocks,
    root: &Cid,
    path: impl IntoIterator<Item = &'a str>,
) -> Result<Resolved, PlainError> {
    let mut resolved = Resolved { cid: *root, way: Vec::new() };
    for name in path {
        resolved.way.push(resolved.cid);
        resolved.cid = match load(blocks, &resolved.cid)? {
            Node::Directory { entries } => {
                let found = entries.iter().find(|(entry, _)| entry == name).map(|(_, cid)| *cid);
                found.ok_or_else(|| PlainError::NotFound(name.to_owned()))?
            }
            Node::Shard(shard) => lookup(blocks, shard, name, &mut resolved.way)?,
            Node::File { .. } | Node::Symlink { .. } => {
                return Err(PlainError::NotDirectory(name.to_owned()));
            }
        };
    }
    Ok(resolved)
}

/// Finds a name in a sharded folder, by the bits of its hash.
fn lookup(blocks: &dyn Blocks, mut shard: Shard, name: &str, way: &mut Vec<Cid>) -> Result<Cid, PlainError> {
    let not_found = || PlainError::NotFound(name.to_owned());
    let hash = name_hash(name);
    let mut used = 0;
    loop {
        let after = used + shard.bits;
        if after > u64::BITS {
            return Err(not_found());
        }
        let wanted = (hash >> (u64::BITS - after)) & ((1 << shard.bits) - 1);
        used = after;
        let mut below = None;
        for slot in &shard.slots {
            match slot {
                Slot::Entry { bucket, name: found, cid } if *bucket == wanted && found == name => {
                    return Ok(*cid);
                }
                Slot::Shard { bucket, cid } if *bucket == wanted => below = Some(*cid),
                _ => {}
            }
        }
        let next = below.ok_or_else(not_found)?;
        way.push(next);
        shard = match load(blocks, &next)? {
            Node::Shard(shard) => shard,
            _ => return Err(PlainError::malformed(&next, "a part of a folder that is none")),
        };
    }
}

/// The first half of murmur3-x64-128, whose bits choose the buckets, the highest first.
fn name_hash(name: &str) -> u64 {
    // Reading from memory does not fail.
    murmur3::murmur3_x64_128(&mut name.as_bytes(), 0).map_or(0, |hash| hash as u64)
}
