//! The attribute that says how many losses what is below has to survive.
//!
//! Owns: the list of policies in memory. Promises: the attribute, its row in the list and the walk that it makes needed are one record; who moves a name
//! and who sets a policy do not pass each other unseen ([`Vfs::policies`] is held over both records).

use std::sync::atomic::Ordering;

use parking_lot::{RwLock, RwLockReadGuard, RwLockWriteGuard};

use holdfast_content::class::Class;

use crate::policy::{POLICIES_MAX, Policies, parse, walk};
use crate::rows::{Ino, InodeRow, Kind, RowError, RowTxn};

use super::Vfs;
use super::error::FsError;

/// Read when it is first asked for: on a restored drive that may take the network.
pub(crate) type Known = RwLock<Option<Policies>>;

static NONE: Policies = Policies::NONE;

/// The list, which does not change while this is held.
pub(crate) struct Held<'a>(RwLockReadGuard<'a, Option<Policies>>);

impl std::ops::Deref for Held<'_> {
    type Target = Policies;

    fn deref(&self) -> &Policies {
        self.0.as_ref().unwrap_or(&NONE)
    }
}

/// The same, by whoever moves a name.
pub(super) enum Moving<'a> {
    /// Of a file.
    Shared(Held<'a>),
    /// Of a folder, with whose parent the policies of all below change.
    Alone(RwLockWriteGuard<'a, Option<Policies>>),
}

impl std::ops::Deref for Moving<'_> {
    type Target = Policies;

    fn deref(&self) -> &Policies {
        match self {
            Self::Shared(held) => held,
            Self::Alone(held) => held.as_ref().unwrap_or(&NONE),
        }
    }
}

impl Vfs {
    /// The policies as they are, and stay while the answer is held.
    pub(crate) fn policies(&self) -> Result<Held<'_>, RowError> {
        let held = self.policies.read();
        if held.is_some() {
            return Ok(Held(held));
        }
        drop(held);
        drop(self.policies_mut()?);
        Ok(Held(self.policies.read()))
    }

    /// The same, to change them: nobody moves a name meanwhile.
    pub(super) fn policies_mut(&self) -> Result<RwLockWriteGuard<'_, Option<Policies>>, RowError> {
        let mut held = self.policies.write();
        if held.is_none() {
            *held = Some(Policies::read(&self.rows.live())?);
        }
        Ok(held)
    }

    /// Held over the record that moves a name.
    pub(super) fn policies_while_moving(&self, moves_dir: bool) -> Result<Moving<'_>, RowError> {
        let held = self.policies()?;
        if !moves_dir || held.is_empty() {
            return Ok(Moving::Shared(held));
        }
        drop(held);
        Ok(Moving::Alone(self.policies_mut()?))
    }

    /// What a folder asks of the data below it.
    pub(super) fn class_below(&self, policies: &Policies, dir: Ino) -> Result<Class, FsError> {
        policies.class(dir, |ino| Ok(self.node(ino)?.parent.load(Ordering::Relaxed)))
    }

    /// A name moves, or comes: what it stands for may have to be safer than it was. Of data that is not sealed yet the seal sees to it.
    pub(super) fn note_moved(
        &self,
        policies: &Policies,
        txn: &mut RowTxn<'_>,
        (ino, row): (Ino, &InodeRow),
        (before, after): (Class, Class),
    ) {
        let may_hold = match row.kind {
            Kind::Dir => row.size > 0,
            Kind::File => row.has_chunks(),
            _ => false,
        };
        // Whoever has a policy of their own takes it along.
        if may_hold && !policies.contains(ino) && !before.covers(after) {
            walk::begin(txn.raw(), ino);
        }
    }

    /// Writes the row of a policy that is set (or, with `None`, taken away) along with the attribute.
    pub(super) fn write_policy(
        &self,
        policies: &Policies,
        txn: &mut RowTxn<'_>,
        (ino, row): (Ino, &InodeRow),
        value: Option<&[u8]>,
    ) -> Result<Option<u8>, FsError> {
        if !matches!(row.kind, Kind::Dir | Kind::File) {
            return Err(FsError::NotPermitted);
        }
        let losses = value.map(|value| parse(value).ok_or(FsError::Invalid)).transpose()?;
        if losses.is_some() && policies.len() >= POLICIES_MAX && !policies.contains(ino) {
            return Err(FsError::NoSpace);
        }
        txn.put_survive(ino, losses);
        walk::begin(txn.raw(), ino);
        if let Some(losses) = losses
            && !policies.highest().covers(Class::of(losses))
        {
            walk::begin(txn.raw(), walk::TREES);
        }
        Ok(losses)
    }

    /// An inode's last name goes: so does its policy.
    pub(super) fn forget_policy(&self, policies: &Policies, txn: &mut RowTxn<'_>, ino: Ino) {
        if policies.contains(ino) {
            txn.put_survive(ino, None);
        }
    }

    /// The same in memory, once the record is committed. The caller holds no lock: who sets a policy takes the list before the inode.
    pub(super) fn policy_forgotten(&self, ino: Ino) {
        if self.policies.read().as_ref().is_some_and(|policies| policies.contains(ino))
            && let Some(policies) = self.policies.write().as_mut()
        {
            policies.set(ino, None);
        }
    }
}
