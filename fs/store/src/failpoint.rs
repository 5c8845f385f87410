//! Failpoints: a name at each durability edge.
//!
//! A test installs a hook in `StoreOptions`; at each edge the hook is called with the edge's name and may take a crash image
//! of the medium right there. A hook belongs to one store, so tests run side by side. Without one an edge costs a test of
//! an `Option`.

use std::sync::Arc;

/// Called at each edge with its name.
pub type FailpointHook = Arc<dyn Fn(&'static str) + Send + Sync>;

/// The hook of one store.
#[derive(Clone, Default)]
pub struct Failpoints(Option<FailpointHook>);

impl Failpoints {
    pub fn with_hook(hook: FailpointHook) -> Self {
        Failpoints(Some(hook))
    }

    #[inline]
    pub(crate) fn hit(&self, name: &'static str) {
        if let Some(hook) = &self.0 {
            hook(name);
        }
    }
}

/// All edges, in the order in which a write meets them. The sweep fails if one of them is never reached.
pub const EDGES: [&str; 18] = [
    "segment.create.before",
    "segment.header.written",
    "segment.header.synced",
    "segment.renamed",
    "segment.ready",
    "payload.write.before",
    "payload.write.after",
    "log.write.before",
    "log.write.after",
    "sync.before",
    "sync.data.done",
    "sync.log.synced",
    "sync.log.done",
    "index.batch.before",
    "index.batch.after",
    "index.flush.after",
    "segment.retire.before",
    "segment.retire.after",
];

macro_rules! failpoint {
    ($points:expr, $name:literal) => {
        $points.hit($name)
    };
}
pub(crate) use failpoint;
