//! What holds for one file or folder, and where that comes from.

use holdfast_content::class::Class;

use super::SURVIVE_XATTR;
use crate::drive::{Drive, DriveError};
use crate::rows::{Ino, Kind};
use crate::vfs::{Caller, FsError, SetMode};

/// Where a policy comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// Its own attribute.
    Itself,
    /// The attribute of a folder so many levels above, 1 being the one that holds it.
    Folder(u32),
    /// Nobody on the way up says anything.
    Drive,
    /// A file with several names, or of which it is not known which folder has it: as safe as anything on the drive.
    Anywhere,
}

/// See the module.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Holding {
    /// What its data has to survive.
    pub class: Class,
    /// Where that comes from.
    pub from: Origin,
}

impl Drive {
    /// What holds for a file or folder.
    pub fn policy_of(&self, ino: Ino) -> Result<Holding, DriveError> {
        let parts = &self.inner.parts;
        let policies = parts.vfs.policies()?;
        let live = parts.rows().live();
        let row = live.inode(ino)?.ok_or(DriveError::Fs(FsError::NotFound))?;
        if policies.of(ino).is_some() {
            return Ok(Holding {
                class: Class::of(policies.of(ino).unwrap_or_default()),
                from: Origin::Itself,
            });
        }
        if policies.is_empty() {
            return Ok(Holding { class: Class::DRIVE, from: Origin::Drive });
        }
        if row.kind != Kind::Dir && (row.nlink != 1 || row.parent == 0) {
            return Ok(Holding { class: policies.highest(), from: Origin::Anywhere });
        }
        let mut levels = 0;
        let class = policies.class(ino, |at| {
            levels += 1;
            Ok::<_, DriveError>(live.inode(at)?.map_or(0, |row| row.parent))
        })?;
        let from = if class == Class::DRIVE { Origin::Drive } else { Origin::Folder(levels) };
        Ok(Holding { class, from })
    }

    /// Sets the policy of a file or folder, or (`None`) leaves it to what is above. Says whether anything changed.
    pub fn set_policy(&self, ino: Ino, losses: Option<u8>) -> Result<bool, DriveError> {
        let vfs = &self.inner.parts.vfs;
        let set = match losses {
            Some(losses) => {
                let value = losses.to_string();
                vfs.setxattr(&Caller::root(), ino, SURVIVE_XATTR, value.as_bytes(), SetMode::Either)
            }
            None => vfs.removexattr(ino, SURVIVE_XATTR),
        };
        match set {
            Err(FsError::NoAttribute) => Ok(false),
            other => Ok(other.map(|()| true)?),
        }
    }
}
