//! POSIX ACLs: the kernel checks them, this keeps them in step with the mode and hands them down to new inodes.
//!
//! An ACL at rest is the xattr as Linux passes it:
//!
//!     version u32 = 2 | entries: tag u16, perm u16, id u32     (little-endian)

use bytes::Bytes;

use crate::rows::{Ino, InodeRow, Kind, RowTxn, XattrRow, inode_flags};

use super::create::NewNode;
use super::error::FsError;
use super::node::State;
use super::{Caller, Vfs};

pub(crate) const ACCESS: &[u8] = b"system.posix_acl_access";
pub(crate) const DEFAULT: &[u8] = b"system.posix_acl_default";

const VERSION: u32 = 2;
const USER_OBJ: u16 = 0x01;
const USER: u16 = 0x02;
const GROUP_OBJ: u16 = 0x04;
const GROUP: u16 = 0x08;
const MASK: u16 = 0x10;
const OTHER: u16 = 0x20;

pub(crate) fn is_acl(name: &[u8]) -> bool {
    name == ACCESS || name == DEFAULT
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Entry {
    tag: u16,
    perm: u16,
    id: u32,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Acl(Vec<Entry>);

impl Acl {
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let (version, rest) = bytes.split_first_chunk::<4>()?;
        if u32::from_le_bytes(*version) != VERSION || rest.len() % 8 != 0 {
            return None;
        }
        let mut entries = Vec::new();
        for entry in rest.chunks_exact(8) {
            let [t0, t1, p0, p1, a, b, c, d] = <[u8; 8]>::try_from(entry).ok()?;
            let entry = Entry {
                tag: u16::from_le_bytes([t0, t1]),
                perm: u16::from_le_bytes([p0, p1]),
                id: u32::from_le_bytes([a, b, c, d]),
            };
            if entry.perm > 7 {
                return None;
            }
            entries.push(entry);
        }
        let acl = Self(entries);
        acl.is_valid().then_some(acl)
    }

    /// One owner, one group, one other; a mask where anybody else is named; in the order of the tags.
    fn is_valid(&self) -> bool {
        let count = |tag| self.0.iter().filter(|entry| entry.tag == tag).count();
        let known = [USER_OBJ, USER, GROUP_OBJ, GROUP, MASK, OTHER];
        self.0.iter().all(|entry| known.contains(&entry.tag))
            && self.0.is_sorted_by_key(|entry| entry.tag)
            && [USER_OBJ, GROUP_OBJ, OTHER].into_iter().all(|tag| count(tag) == 1)
            && (count(MASK) == 1 || (count(MASK) == 0 && count(USER) + count(GROUP) == 0))
    }

    pub(crate) fn encode(&self) -> Bytes {
        let mut out = VERSION.to_le_bytes().to_vec();
        for entry in &self.0 {
            out.extend_from_slice(&entry.tag.to_le_bytes());
            out.extend_from_slice(&entry.perm.to_le_bytes());
            out.extend_from_slice(&entry.id.to_le_bytes());
        }
        out.into()
    }

    fn perm(&self, tag: u16) -> Option<u16> {
        self.0.iter().find(|entry| entry.tag == tag).map(|entry| entry.perm)
    }

    /// The entry that the group bits of a mode stand for: the mask if there is one.
    fn group_class(&self) -> u16 {
        if self.perm(MASK).is_some() { MASK } else { GROUP_OBJ }
    }

    /// The nine bits that this ACL shows as a mode.
    fn mode(&self) -> u16 {
        let bits = |tag| self.perm(tag).unwrap_or(0);
        bits(USER_OBJ) << 6 | bits(self.group_class()) << 3 | bits(OTHER)
    }

    /// Whether a mode says all that this ACL says.
    fn is_minimal(&self) -> bool {
        self.0.len() == 3
    }

    fn set(&mut self, tag: u16, f: impl Fn(u16) -> u16) {
        self.0.iter_mut().filter(|entry| entry.tag == tag).for_each(|entry| entry.perm = f(entry.perm));
    }

    /// Sets the three classes as chmod does, or (creation) takes away what the mode does not have.
    fn apply_mode(&mut self, mode: u16, narrow: bool) {
        for (tag, bits) in [(USER_OBJ, mode >> 6), (self.group_class(), mode >> 3), (OTHER, mode)] {
            self.set(tag, |old| if narrow { old & bits & 7 } else { bits & 7 });
        }
    }
}

impl Vfs {
    fn acl(&self, ino: Ino, state: &State, name: &[u8]) -> Result<Option<Acl>, FsError> {
        let row = self.read_xattr(ino, state, name)?;
        row.map(|row| Acl::decode(&row.value).ok_or_else(|| FsError::Damaged("an ACL".to_owned())))
            .transpose()
    }

    /// The access ACL that belongs to a new mode, if the inode has one.
    pub(super) fn acl_after_chmod(
        &self,
        ino: Ino,
        state: &State,
        perm: Option<u16>,
    ) -> Result<Option<XattrRow>, FsError> {
        let Some(perm) = perm else { return Ok(None) };
        Ok(self.acl(ino, state, ACCESS)?.map(|mut acl| {
            acl.apply_mode(perm, false);
            XattrRow { name: Bytes::from_static(ACCESS), value: acl.encode() }
        }))
    }

    /// Gives a new inode what its directory's default ACL says; without one the umask applies.
    pub(super) fn inherit_acl(
        &self,
        txn: &mut RowTxn<'_>,
        parent: Ino,
        dir: &State,
        ino: Ino,
        new: &NewNode<'_>,
        row: &mut InodeRow,
    ) -> Result<(), FsError> {
        if new.kind == Kind::Symlink {
            return Ok(());
        }
        let Some(default) = self.acl(parent, dir, DEFAULT)? else {
            row.perm &= !(new.umask & 0o777);
            return Ok(());
        };
        let mut access = default.clone();
        access.apply_mode(row.perm, true);
        row.perm = row.perm & !0o777 | access.mode();
        let mut put = |name, acl: &Acl| {
            txn.put_xattr(ino, &XattrRow { name: Bytes::from_static(name), value: acl.encode() });
            row.flags |= inode_flags::HAS_XATTRS;
        };
        if !access.is_minimal() {
            put(ACCESS, &access);
        }
        if new.kind == Kind::Dir {
            put(DEFAULT, &default);
        }
        Ok(())
    }

    /// setxattr of an ACL: an access ACL changes the mode with it, and is not kept if the mode says it all.
    pub(super) fn set_acl(
        &self,
        caller: &Caller,
        ino: Ino,
        name: &[u8],
        value: &[u8],
    ) -> Result<(), FsError> {
        let acl = Acl::decode(value).ok_or(FsError::Invalid)?;
        let node = self.node(ino)?;
        let mut state = node.write();
        if state.dead {
            return Err(FsError::Stale);
        }
        let mut row = InodeRow { ctime: self.now(), ..state.row.clone() };
        let mut txn = self.rows.begin();
        if name == ACCESS {
            row.perm = row.perm & !0o777 | acl.mode();
            if !caller.privileged && caller.gid != row.gid {
                row.perm &= !0o2000;
            }
        } else if row.kind != Kind::Dir {
            return Err(FsError::Denied);
        }
        if name == ACCESS && acl.is_minimal() {
            if self.read_xattr(ino, &state, name)?.is_some() {
                txn.delete_xattr(ino, name);
            }
        } else {
            txn.put_xattr(ino, &XattrRow { name: Bytes::copy_from_slice(name), value: acl.encode() });
            row.flags |= inode_flags::HAS_XATTRS;
        }
        self.commit_row(txn, ino, &mut state, row)?;
        Ok(())
    }
}
