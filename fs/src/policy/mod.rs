//! Folders with a policy of their own: how many losses what is below them has to survive.
//!
//! Owns: the meaning of `user.holdfast.survive`, which class a file has ([`Policies`]), and the walk that raises what was there before (`walk`). Promises:
//! every block of a file's present data lies in a piece whose class covers the file's, as soon as a commit has it and no walk is left; the trees that lead
//! to it cover the highest of all. Refuses: to lower a piece. What was packed for more stays so until it is packed anew.
//!
//! ```text
//! attribute ─► row ns.survive/<inode> ─► class of a file: its own, else its nearest folder's, else the drive's
//!                                           ├─► seal: packs new chunks by class, raises the pieces of chunks it finds
//!                                           └─► change of an attribute, move of a name: walk/<inode> ─► raises, page by page
//! ```
//!
//! A file says in its row which folder has its only name (namespace.md). Of a file with several names, and of one from before rows said so, that is not
//! known, and it gets the highest class in use: never less than it should have.
//!
//! Orderings that *must* hold: the row of a walk is in the record that makes it needed; a walk looks only while no seal runs, so that what a seal of an
//! older cut brought in is seen; a page's pieces are raised before the row says that the page is done.

pub mod ask;
pub(crate) mod walk;

use std::collections::BTreeMap;

use holdfast_content::class::{Class, SURVIVE_MAX};
use holdfast_store::Reads;

use crate::rows::{Ino, InodeRow, ROOT_INO, RowError, View};

/// The losses that what is at and below an inode has to survive, in decimal digits.
pub const SURVIVE_XATTR: &[u8] = b"user.holdfast.survive";
/// Inodes with a policy of their own. A seal reads the list.
pub const POLICIES_MAX: usize = 1024;
/// No path is deeper; what seems to be is damaged.
const DEPTH_MAX: usize = 1 << 16;

/// What the attribute's value says: a number without signs, spaces or leading zeros, no larger than [`SURVIVE_MAX`].
pub fn parse(value: &[u8]) -> Option<u8> {
    match *value {
        [digit @ b'0'..=b'9'] => Some(digit - b'0').filter(|losses| *losses <= SURVIVE_MAX),
        _ => None,
    }
}

/// Every policy but the drive's own.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Policies(BTreeMap<Ino, u8>);

impl Policies {
    pub(crate) const NONE: Policies = Policies(BTreeMap::new());

    pub(crate) fn read<S: Reads>(view: &View<'_, S>) -> Result<Self, RowError> {
        Ok(Self(view.survive()?.into_iter().collect()))
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// What an inode itself asks.
    pub(crate) fn of(&self, ino: Ino) -> Option<u8> {
        self.0.get(&ino).copied()
    }

    pub(crate) fn contains(&self, ino: Ino) -> bool {
        self.0.contains_key(&ino)
    }

    pub(crate) fn inodes(&self) -> impl Iterator<Item = Ino> + '_ {
        self.0.keys().copied()
    }

    pub(crate) fn set(&mut self, ino: Ino, losses: Option<u8>) {
        match losses {
            Some(losses) => self.0.insert(ino, losses),
            None => self.0.remove(&ino),
        };
    }

    /// Of what leads to everything: as safe as the drive and as each folder.
    pub(crate) fn highest(&self) -> Class {
        self.0.values().fold(Class::DRIVE, |class, losses| class.join(Class::of(*losses)))
    }

    /// Of a folder, or of a file by its own attribute: the nearest on the way up.
    pub(crate) fn class<E>(
        &self,
        ino: Ino,
        mut parent_of: impl FnMut(Ino) -> Result<Ino, E>,
    ) -> Result<Class, E> {
        if self.is_empty() {
            return Ok(Class::DRIVE);
        }
        let mut at = ino;
        for _ in 0..DEPTH_MAX {
            if let Some(losses) = self.0.get(&at) {
                return Ok(Class::of(*losses));
            }
            if at == ROOT_INO {
                return Ok(Class::DRIVE);
            }
            match parent_of(at)? {
                0 => break,
                up if up == at => break,
                up => at = up,
            }
        }
        Ok(self.highest())
    }

    /// Of a file.
    pub(crate) fn class_of_file<E>(
        &self,
        ino: Ino,
        row: &InodeRow,
        parent_of: impl FnMut(Ino) -> Result<Ino, E>,
    ) -> Result<Class, E> {
        match (self.0.get(&ino), row.nlink) {
            (Some(losses), _) => Ok(Class::of(*losses)),
            (None, 1) if row.parent != 0 => self.class(row.parent, parent_of),
            (None, _) => Ok(self.highest()),
        }
    }
}

#[cfg(test)]
mod tests;
