//! Which class a file's data has at a cut, and whether a seal has to look at that at all.
//!
//! Promises: answers are those of the cut, O(depth) for the first file of a folder and one look-up for the next ones. On a drive where nobody ever set a
//! policy nothing is looked up.

use std::collections::HashMap;

use holdfast_content::class::Class;
use holdfast_store::{Reads, Snapshot, Store};

use super::data::Cut;
use crate::drive::error::DriveError;
use crate::pieces::classes;
use crate::policy::Policies;
use crate::rows::{Ino, InodeRow, View};

/// Folders whose class is remembered.
const FOLDERS_MAX: usize = 1 << 16;

/// See the module.
pub(crate) struct Classes {
    policies: Policies,
    folders: HashMap<Ino, Class>,
    any: bool,
}

impl Classes {
    pub(crate) fn at(cut: &Cut<'_>, store: &Store) -> Result<Self, DriveError> {
        let policies = Policies::read(&cut.view)?;
        let any = !policies.is_empty() || classes::any(store)?;
        Ok(Self { policies, folders: HashMap::new(), any })
    }

    /// Of the trees, and of all else that leads to files.
    pub(crate) fn highest(&self) -> Class {
        self.policies.highest()
    }

    /// Whether there is anything but the drive's policy.
    pub(crate) fn any(&self) -> bool {
        self.any
    }

    /// Of a file.
    pub(crate) fn of_file(
        &mut self,
        view: &View<'_, Snapshot>,
        ino: Ino,
        row: &InodeRow,
    ) -> Result<Class, DriveError> {
        if self.policies.is_empty() {
            return Ok(Class::DRIVE);
        }
        let folder = row.parent;
        let known = self.folders.get(&folder).copied();
        if let Some(class) = known.filter(|_| row.nlink == 1 && !self.policies.contains(ino)) {
            return Ok(class);
        }
        let parent_of = |ino| Ok::<_, DriveError>(view.inode(ino)?.map_or(0, |row| row.parent));
        let class = self.policies.class_of_file(ino, row, parent_of)?;
        if row.nlink == 1 && folder != 0 && !self.policies.contains(ino) {
            if self.folders.len() >= FOLDERS_MAX {
                self.folders.clear();
            }
            self.folders.insert(folder, class);
        }
        Ok(class)
    }
}

/// How safe the trees are to be made, outside of a seal's cut.
pub(crate) fn highest<S: Reads>(view: &View<'_, S>) -> Result<Class, DriveError> {
    Ok(Policies::read(view)?.highest())
}
