//! Failpoints of sealing: a name at each durability edge.
//!
//! A test installs a hook and takes a crash image of the media at each edge. Without one an edge costs a test of an `Option`.

use holdfast_store::FailpointHook;

/// The hook of one drive.
#[derive(Clone, Default)]
pub struct Edges(Option<FailpointHook>);

/// All edges, in the order in which a seal meets them; the sweep fails if one is never reached.
pub const EDGES: [&str; 20] = [
    "seal.cut",
    "piece.sync.before",
    "piece.rows.before",
    "piece.rows.after",
    "seal.install.before",
    "seal.install.after",
    "seal.commit.before",
    "seal.commit.after",
    "seal.sync.after",
    "seal.sweep.after",
    "evict.row.after",
    "prune.commits.after",
    "prune.orphans.after",
    "compact.blocks.after",
    "compact.commit.after",
    "condemn.after",
    "forget.row.after",
    "walk.page.before",
    "walk.page.after",
    "walk.trees.before",
];

impl Edges {
    /// Calls `hook` at each edge.
    pub fn with_hook(hook: FailpointHook) -> Self {
        Self(Some(hook))
    }

    #[inline]
    pub(crate) fn hit(&self, name: &'static str) {
        if let Some(hook) = &self.0 {
            hook(name);
        }
    }
}

impl std::fmt::Debug for Edges {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if self.0.is_some() { "Edges(hooked)" } else { "Edges" })
    }
}
