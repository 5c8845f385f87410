//! Comparing two trees by their differences alone.

use super::{Entry, Node, NodeSource, Tree, TreeError, Variant};
use bytes::Bytes;
use std::ops::ControlFlow;
use std::sync::Arc;

/// A row that differs.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Difference {
    /// Only in the second tree.
    Added(Entry),
    /// Only in the first tree.
    Removed(Entry),
    /// In both, with another value or other links.
    Changed {
        /// The row in the first tree.
        old: Entry,
        /// The row in the second tree.
        new: Entry,
    },
}

/// What lies ahead in one tree.
enum Item<V: Variant> {
    /// A subtree not yet read: its level, first key and reference.
    Subtree(u8, Bytes, V::Ref),
    Row(Entry),
}

impl<V: Variant> Item<V> {
    fn key(&self) -> &Bytes {
        match self {
            Self::Subtree(_, key, _) => key,
            Self::Row(entry) => &entry.key,
        }
    }

    /// Rows are below leaves.
    fn height(&self) -> u8 {
        match self {
            Self::Subtree(level, ..) => level + 1,
            Self::Row(_) => 0,
        }
    }
}

/// One tree, from left to right; a stack, so that memory is a path's.
struct Side<'a, V: Variant> {
    tree: &'a Tree<V>,
    source: &'a dyn NodeSource<V>,
    pending: Vec<Item<V>>,
}

impl<'a, V: Variant> Side<'a, V> {
    fn new(
        tree: &'a Tree<V>,
        source: &'a dyn NodeSource<V>,
        root: Option<&V::Ref>,
    ) -> Result<Self, TreeError> {
        let pending = match root {
            Some(root) => {
                let node = tree.load(source, root)?;
                vec![Item::Subtree(node.level, node.first_key(), root.clone())]
            }
            None => Vec::new(),
        };
        Ok(Self { tree, source, pending })
    }

    /// Replaces the subtree ahead by what is in it.
    fn expand(&mut self) -> Result<(), TreeError> {
        let Some(Item::Subtree(level, key, reference)) = self.pending.pop() else { return Ok(()) };
        let node: Arc<Node> = self.tree.load(self.source, &reference)?;
        if node.level != level || node.first_key() != key {
            return Err(TreeError::Malformed("a child that does not fit its parent".to_owned()));
        }
        for entry in node.entries.iter().rev() {
            self.pending.push(match level.checked_sub(1) {
                Some(below) => Item::Subtree(below, entry.key.clone(), V::from_entry(entry)?),
                None => Item::Row(entry.clone()),
            });
        }
        Ok(())
    }

    fn pop_row(&mut self) -> Option<Entry> {
        match self.pending.pop() {
            Some(Item::Row(entry)) => Some(entry),
            _ => None,
        }
    }
}

/// What to do next.
enum Step {
    End,
    Skip,
    ExpandOld,
    ExpandNew,
    Removed,
    Added,
    Both,
}

fn next_step<V: Variant>(old: Option<&Item<V>>, new: Option<&Item<V>>) -> Step {
    let (a, b) = match (old, new) {
        (None, None) => return Step::End,
        (Some(a), None) => return if a.height() > 0 { Step::ExpandOld } else { Step::Removed },
        (None, Some(b)) => return if b.height() > 0 { Step::ExpandNew } else { Step::Added },
        (Some(a), Some(b)) => (a, b),
    };
    if let (Item::Subtree(_, _, a), Item::Subtree(_, _, b)) = (a, b)
        && V::body(a) == V::body(b)
    {
        return Step::Skip;
    }
    match a.key().cmp(b.key()) {
        std::cmp::Ordering::Less if a.height() > 0 => Step::ExpandOld,
        std::cmp::Ordering::Less => Step::Removed,
        std::cmp::Ordering::Greater if b.height() > 0 => Step::ExpandNew,
        std::cmp::Ordering::Greater => Step::Added,
        // The higher one first, so that equal subtrees meet at their level.
        std::cmp::Ordering::Equal if a.height() > b.height() => Step::ExpandOld,
        std::cmp::Ordering::Equal if b.height() > 0 => Step::ExpandNew,
        std::cmp::Ordering::Equal => Step::Both,
    }
}

impl<V: Variant> Tree<V> {
    /// Tells the rows that differ between two roots, in order of keys, reading O(differences) nodes. `visit` may stop.
    pub fn diff(
        &self,
        source: &dyn NodeSource<V>,
        old: Option<&V::Ref>,
        new: Option<&V::Ref>,
        visit: &mut dyn FnMut(Difference) -> ControlFlow<()>,
    ) -> Result<(), TreeError> {
        let mut old = Side::new(self, source, old)?;
        let mut new = Side::new(self, source, new)?;
        loop {
            let found = match next_step(old.pending.last(), new.pending.last()) {
                Step::End => return Ok(()),
                Step::Skip => {
                    old.pending.pop();
                    new.pending.pop();
                    None
                }
                Step::ExpandOld => {
                    old.expand()?;
                    None
                }
                Step::ExpandNew => {
                    new.expand()?;
                    None
                }
                Step::Removed => old.pop_row().map(Difference::Removed),
                Step::Added => new.pop_row().map(Difference::Added),
                Step::Both => match (old.pop_row(), new.pop_row()) {
                    (Some(old), Some(new)) if old != new => Some(Difference::Changed { old, new }),
                    _ => None,
                },
            };
            if let Some(found) = found
                && visit(found).is_break()
            {
                return Ok(());
            }
        }
    }
}
