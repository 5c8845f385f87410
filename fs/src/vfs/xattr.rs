//! Extended attributes, and the one that tells how safe a file is.

use bytes::Bytes;

use crate::durability::Durability;
use crate::policy::SURVIVE_XATTR;
use crate::rows::values::XATTR_VALUE_BYTES_MAX;
use crate::rows::{Ino, InodeRow, XattrRow, inode_flags};

use super::error::FsError;
use super::node::State;
use super::{Caller, Synced, Vfs, acl};

/// The rung of a file or folder. Never listed, so that no backup copies it; never set.
pub const DURABILITY_XATTR: &[u8] = b"user.holdfast.durability";
/// Longest attribute name (`XATTR_NAME_MAX`).
const XATTR_NAME_BYTES_MAX: usize = 255;

/// What setxattr does about an attribute that is there, or is not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SetMode {
    Either,
    Create,
    Replace,
    /// Both at once, which no attribute meets.
    Both,
}

/// Names that ext4 takes, to set and to ask for.
fn check_namespace(name: &[u8]) -> Result<(), FsError> {
    if acl::is_acl(name) {
        return Ok(());
    }
    let rest =
        ["user.", "trusted.", "security."].iter().find_map(|known| name.strip_prefix(known.as_bytes()));
    match rest {
        Some([]) => Err(FsError::Invalid),
        Some(_) => Ok(()),
        None => Err(FsError::Unsupported),
    }
}

impl Vfs {
    pub fn getxattr(&self, ino: Ino, name: &[u8]) -> Result<Bytes, FsError> {
        if name == DURABILITY_XATTR {
            let node = self.node(ino)?;
            // In snapshots, too, which have no rungs.
            if node.read().row.lacks_data() {
                return Ok(Bytes::from(Durability::Missing.to_string()));
            }
            return self.hooks().durability(ino).map(Bytes::from).ok_or(FsError::NoAttribute);
        }
        check_namespace(name)?;
        let node = self.node(ino)?;
        let state = node.read();
        self.read_xattr(ino, &state, name)?.map(|row| row.value).ok_or(FsError::NoAttribute)
    }

    /// Names of all attributes that the caller may know of.
    pub fn listxattr(&self, caller: &Caller, ino: Ino) -> Result<Vec<Bytes>, FsError> {
        let node = self.node(ino)?;
        let state = node.read();
        if state.dead || !state.row.has_xattrs() {
            return Ok(Vec::new());
        }
        let names = self.rows.live().xattrs(ino)?.into_iter().map(|(_, row)| row.name);
        Ok(names.filter(|name| caller.privileged || !name.starts_with(b"trusted.")).collect())
    }

    pub(super) fn read_xattr(
        &self,
        ino: Ino,
        state: &State,
        name: &[u8],
    ) -> Result<Option<XattrRow>, FsError> {
        if state.dead || !state.row.has_xattrs() {
            return Ok(None);
        }
        // 128 bits of a keyed hash: two names of one inode under one key do not occur.
        Ok(self.rows.live().xattr(ino, name)?.filter(|row| row.name == name))
    }

    pub fn setxattr(
        &self,
        caller: &Caller,
        ino: Ino,
        name: &[u8],
        value: &[u8],
        mode: SetMode,
    ) -> Result<(), FsError> {
        self.put_xattr(caller, ino, name, value, mode)?;
        self.settle((), Synced::All)
    }

    fn put_xattr(
        &self,
        caller: &Caller,
        ino: Ino,
        name: &[u8],
        value: &[u8],
        mode: SetMode,
    ) -> Result<(), FsError> {
        self.require_writable()?;
        if name.is_empty() || name.len() > XATTR_NAME_BYTES_MAX || value.len() > XATTR_VALUE_BYTES_MAX {
            return Err(FsError::Range);
        }
        if name == DURABILITY_XATTR {
            return Err(FsError::NotPermitted);
        }
        if acl::is_acl(name) {
            return self.set_acl(caller, ino, name, value);
        }
        check_namespace(name)?;
        self.require_space(value.len() as u64)?;
        let mut policies = (name == SURVIVE_XATTR).then(|| self.policies_mut()).transpose()?;
        let node = self.node(ino)?;
        let mut state = node.write();
        if state.dead {
            return Err(FsError::Stale);
        }
        let there = self.read_xattr(ino, &state, name)?.is_some();
        match mode {
            SetMode::Create | SetMode::Both if there => return Err(FsError::Exists),
            SetMode::Replace | SetMode::Both if !there => return Err(FsError::NoAttribute),
            _ => {}
        }
        let mut row = InodeRow { ctime: self.now(), ..state.row.clone() };
        row.flags |= inode_flags::HAS_XATTRS;
        let mut txn = self.rows.begin();
        let xattr = XattrRow { name: Bytes::copy_from_slice(name), value: Bytes::copy_from_slice(value) };
        txn.put_xattr(ino, &xattr);
        let Some(Some(policies)) = policies.as_deref_mut().map(Option::as_mut) else {
            return self.commit_row(txn, ino, &mut state, row).map(drop);
        };
        let losses = self.write_policy(policies, &mut txn, (ino, &row), Some(value))?;
        self.commit_row(txn, ino, &mut state, row)?;
        policies.set(ino, losses);
        Ok(())
    }

    pub fn removexattr(&self, ino: Ino, name: &[u8]) -> Result<(), FsError> {
        self.take_xattr(ino, name)?;
        self.settle((), Synced::All)
    }

    fn take_xattr(&self, ino: Ino, name: &[u8]) -> Result<(), FsError> {
        self.require_writable()?;
        if name == DURABILITY_XATTR {
            return Err(FsError::NotPermitted);
        }
        check_namespace(name)?;
        let mut policies = (name == SURVIVE_XATTR).then(|| self.policies_mut()).transpose()?;
        let node = self.node(ino)?;
        let mut state = node.write();
        if self.read_xattr(ino, &state, name)?.is_none() {
            // Taking away an ACL that is not there succeeds, as on ext4: `setfacl -b` relies on it.
            return if acl::is_acl(name) { Ok(()) } else { Err(FsError::NoAttribute) };
        }
        let row = InodeRow { ctime: self.now(), ..state.row.clone() };
        let mut txn = self.rows.begin();
        txn.delete_xattr(ino, name);
        let Some(Some(policies)) = policies.as_deref_mut().map(Option::as_mut) else {
            return self.commit_row(txn, ino, &mut state, row).map(drop);
        };
        let losses = self.write_policy(policies, &mut txn, (ino, &row), None)?;
        self.commit_row(txn, ino, &mut state, row)?;
        policies.set(ino, losses);
        Ok(())
    }
}
