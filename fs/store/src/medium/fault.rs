//! A wrapper that fails on demand: errors, a full disk, short writes, and syncs that lie.

use std::io;
use std::sync::Arc;

use parking_lot::Mutex;

use super::{MediumFile, StorageMedium};

/// Calls that can be made to fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FaultOp {
    Create,
    Open,
    Rename,
    Remove,
    List,
    SyncDir,
    Read,
    Write,
    Sync,
    SetLen,
}

/// What happens at the chosen call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The call fails with this errno and does nothing.
    Errno(i32),
    /// A write stores only its first half, and says so.
    Short,
    /// A write stores its first half and fails with EIO.
    Torn,
    /// The call does nothing and claims success. What a lying disk does; tests must notice it.
    Lie,
}

#[derive(Debug, Clone, Copy)]
struct Plan {
    op: FaultOp,
    /// Calls of that kind still to let through.
    after: u64,
    /// How many fail from then on.
    times: u64,
    fault: Fault,
}

type Plans = Arc<Mutex<Vec<Plan>>>;

/// See the module's documentation.
pub struct FaultMedium {
    inner: Arc<dyn StorageMedium>,
    plans: Plans,
}

impl FaultMedium {
    pub fn new(inner: Arc<dyn StorageMedium>) -> Self {
        FaultMedium { inner, plans: Plans::default() }
    }

    /// From now on: lets `after` calls of `op` through, then `times` calls meet `fault`.
    pub fn plan(&self, op: FaultOp, after: u64, times: u64, fault: Fault) {
        self.plans.lock().push(Plan { op, after, times, fault });
    }

    /// Failures that the plans have left: fewer than planned say that some were met.
    pub fn left(&self) -> u64 {
        self.plans.lock().iter().fold(0, |sum, plan| sum.saturating_add(plan.times))
    }

    /// Forgets all plans.
    pub fn heal(&self) {
        self.plans.lock().clear();
    }

    fn wrap(&self, file: Arc<dyn MediumFile>) -> Arc<dyn MediumFile> {
        Arc::new(FaultFile { inner: file, plans: self.plans.clone() })
    }
}

fn draw(plans: &Plans, op: FaultOp) -> Option<Fault> {
    let mut hit = None;
    for plan in plans.lock().iter_mut().filter(|plan| plan.op == op) {
        if plan.after > 0 {
            plan.after -= 1;
        } else if plan.times > 0 {
            plan.times -= 1;
            hit = Some(plan.fault);
        }
    }
    hit
}

/// Runs `call` unless a plan says otherwise. Short and torn make sense for writes only, and are errors elsewhere.
fn guarded<T>(plans: &Plans, op: FaultOp, lie: T, call: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    match draw(plans, op) {
        None => call(),
        Some(Fault::Lie) => Ok(lie),
        Some(Fault::Errno(errno)) => Err(io::Error::from_raw_os_error(errno)),
        Some(Fault::Short | Fault::Torn) => Err(io::Error::from_raw_os_error(libc::EIO)),
    }
}

impl StorageMedium for FaultMedium {
    fn create(&self, name: &str) -> io::Result<Arc<dyn MediumFile>> {
        if let Some(Fault::Errno(errno)) = draw(&self.plans, FaultOp::Create) {
            return Err(io::Error::from_raw_os_error(errno));
        }
        Ok(self.wrap(self.inner.create(name)?))
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn MediumFile>> {
        if let Some(Fault::Errno(errno)) = draw(&self.plans, FaultOp::Open) {
            return Err(io::Error::from_raw_os_error(errno));
        }
        Ok(self.wrap(self.inner.open(name)?))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        guarded(&self.plans, FaultOp::Rename, (), || self.inner.rename(from, to))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        guarded(&self.plans, FaultOp::Remove, (), || self.inner.remove(name))
    }

    fn list(&self) -> io::Result<Vec<String>> {
        guarded(&self.plans, FaultOp::List, Vec::new(), || self.inner.list())
    }

    fn sync_dir(&self) -> io::Result<()> {
        guarded(&self.plans, FaultOp::SyncDir, (), || self.inner.sync_dir())
    }

    fn room(&self) -> Option<(u64, u64)> {
        self.inner.room()
    }
}

struct FaultFile {
    inner: Arc<dyn MediumFile>,
    plans: Plans,
}

impl MediumFile for FaultFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        guarded(&self.plans, FaultOp::Read, 0, || self.inner.read_at(buf, offset))
    }

    fn write_at(&self, buf: &[u8], offset: u64) -> io::Result<usize> {
        let half = buf.get(..buf.len().div_ceil(2)).unwrap_or(buf);
        match draw(&self.plans, FaultOp::Write) {
            None => self.inner.write_at(buf, offset),
            Some(Fault::Lie) => Ok(buf.len()),
            Some(Fault::Errno(errno)) => Err(io::Error::from_raw_os_error(errno)),
            Some(Fault::Short) => self.inner.write_at(half, offset),
            Some(Fault::Torn) => {
                self.inner.write_at(half, offset)?;
                Err(io::Error::from_raw_os_error(libc::EIO))
            }
        }
    }

    fn push(&self, offset: u64, len: u64) {
        self.inner.push(offset, len);
    }

    fn sync_data(&self) -> io::Result<()> {
        guarded(&self.plans, FaultOp::Sync, (), || self.inner.sync_data())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        guarded(&self.plans, FaultOp::SetLen, (), || self.inner.set_len(len))
    }

    fn len(&self) -> io::Result<u64> {
        self.inner.len()
    }
}
