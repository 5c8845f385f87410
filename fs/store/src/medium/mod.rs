//! The storage medium: a flat folder of files with the few calls whose durability we know.
//!
//! Assumptions, which `conformance` checks as far as a running process can, and `CrashMedium` enforces:
//! - what `write_at` returned is seen by every later read, and survives the death of the process;
//! - what was written before `sync_data` began survives a power cut once it returned; of the rest any part may, in any
//!   order, torn at sectors;
//! - names (create, rename, remove) survive once `sync_dir` returned; `rename` replaces atomically;
//! - after `sync_data` failed, nothing is known of what was written since the last one that succeeded.

mod conformance;
mod crash;
mod fault;
mod real;
mod small;

use std::io;
use std::sync::Arc;

pub use conformance::conformance;
pub use crash::CrashMedium;
pub use fault::{Fault, FaultMedium, FaultOp};
pub use real::RealMedium;
pub(crate) use real::make_folder;
pub use small::SmallMedium;

/// A folder of files. Names are single path components.
pub trait StorageMedium: Send + Sync {
    /// A new, empty file; an existing one is an error (`AlreadyExists`).
    fn create(&self, name: &str) -> io::Result<Arc<dyn MediumFile>>;
    /// An existing file, for reading and writing.
    fn open(&self, name: &str) -> io::Result<Arc<dyn MediumFile>>;
    /// Gives `from` the name `to`, replacing what had it.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;
    fn remove(&self, name: &str) -> io::Result<()>;
    /// All names, in no order.
    fn list(&self) -> io::Result<Vec<String>>;
    /// Makes names durable.
    fn sync_dir(&self) -> io::Result<()>;
    /// How many bytes the medium holds in all, and how many more it would take, where it can tell.
    fn room(&self) -> Option<(u64, u64)> {
        None
    }
}

/// A file of a medium. Calls may come from many threads at once.
pub trait MediumFile: Send + Sync {
    /// Reads up to `buf.len()` bytes; fewer only at the end of the file.
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize>;
    /// Writes at least one byte of a non-empty `buf`, maybe fewer than all.
    fn write_at(&self, buf: &[u8], offset: u64) -> io::Result<usize>;
    /// Begins to bring these bytes to the disk, so that the next sync has less to wait for. A hint: it promises nothing and does not fail.
    fn push(&self, _offset: u64, _len: u64) {}
    /// Makes the content and the length durable.
    fn sync_data(&self) -> io::Result<()>;
    fn set_len(&self, len: u64) -> io::Result<()>;
    fn len(&self) -> io::Result<u64>;
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }
}

/// Writes all of `buf`.
pub(crate) fn write_all_at(file: &dyn MediumFile, mut buf: &[u8], mut offset: u64) -> io::Result<()> {
    while !buf.is_empty() {
        let written = file.write_at(buf, offset)?;
        if written == 0 || written > buf.len() {
            return Err(io::ErrorKind::WriteZero.into());
        }
        buf = &buf[written..];
        offset += written as u64;
    }
    Ok(())
}

/// Fills all of `buf`; the end of the file before that is `UnexpectedEof`.
pub(crate) fn read_exact_at(file: &dyn MediumFile, buf: &mut [u8], offset: u64) -> io::Result<()> {
    let mut done = 0;
    while done < buf.len() {
        let read = file.read_at(&mut buf[done..], offset + done as u64)?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        done += read;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
