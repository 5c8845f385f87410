//! Making segments: header, key, name, in the order that a crash at any point leaves harmless.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use crate::ambient::NoncePool;
use crate::cipher::{LongCipher, Suite};
use crate::error::Result;
use crate::failpoint::{Failpoints, failpoint};
use crate::medium::{StorageMedium, write_all_at};
use crate::segment::{self, HEADER_BYTES, Header, Kind, Segment};
use crate::{Lsn, StoreError};

/// All that a new segment needs.
pub(crate) struct Forge {
    pub(crate) medium: Arc<dyn StorageMedium>,
    pub(crate) nonces: Arc<NoncePool>,
    /// Wraps segment keys.
    pub(crate) wrap: LongCipher,
    pub(crate) store_id: [u8; 16],
    pub(crate) epoch: u64,
    pub(crate) epoch_first_lsn: Lsn,
    pub(crate) next_number: AtomicU64,
    /// Files of dead segments.
    pub(crate) free: Mutex<Vec<FreeSegment>>,
    pub(crate) failpoints: Failpoints,
}

/// A dead segment's file.
pub(crate) struct FreeSegment {
    pub(crate) kind: Kind,
    pub(crate) name: String,
    pub(crate) size: u64,
}

impl Forge {
    /// A new segment, durable with its name, ready for its first byte.
    pub(crate) fn make(&self, kind: Kind, size: u64) -> Result<Arc<Segment>> {
        let number = self.next_number.fetch_add(1, Ordering::Relaxed);
        let temporary = segment::new_name(kind, number);
        let made = self.fill(kind, number, size, &temporary);
        if made.is_err() {
            segment::remove_quietly(&*self.medium, &temporary);
        }
        made
    }

    fn fill(&self, kind: Kind, number: u64, size: u64, temporary: &str) -> Result<Arc<Segment>> {
        let name = segment::file_name(kind, number);
        let failed = |op| {
            let name = name.clone();
            move |error| StoreError::io(op, &name, error)
        };
        failpoint!(self.failpoints, "segment.create.before");
        let file = match self.take_free(kind, size) {
            Some(free) => {
                self.medium.rename(&free.name, temporary).map_err(failed("reuse a segment"))?;
                self.medium.open(temporary).map_err(failed("open a reused segment"))?
            }
            None => {
                let file = self.medium.create(temporary).map_err(failed("create a segment"))?;
                if kind == Kind::Log {
                    let zeros = segment::write_zeros(&*file, HEADER_BYTES as u64, size);
                    zeros.map_err(failed("preallocate a segment"))?;
                }
                file
            }
        };
        let header = Header {
            version: segment::VERSION,
            kind,
            suite: Suite::best(),
            store_id: self.store_id,
            number,
            epoch: self.epoch,
            epoch_first_lsn: self.epoch_first_lsn,
            size,
        };
        let (bytes, key) = segment::seal_header(&header, &self.wrap, &self.nonces)?;
        write_all_at(&*file, &bytes, 0).map_err(failed("write a segment's header"))?;
        failpoint!(self.failpoints, "segment.header.written");
        file.sync_data().map_err(failed("sync a segment's header"))?;
        failpoint!(self.failpoints, "segment.header.synced");
        self.medium.rename(temporary, &name).map_err(failed("name a segment"))?;
        failpoint!(self.failpoints, "segment.renamed");
        self.medium.sync_dir().map_err(failed("sync the name of a segment"))?;
        failpoint!(self.failpoints, "segment.ready");
        Ok(Arc::new(segment::assemble(header, key, file)))
    }

    fn take_free(&self, kind: Kind, size: u64) -> Option<FreeSegment> {
        let mut free = self.free.lock();
        let found = free.iter().position(|free| free.kind == kind && free.size == size)?;
        Some(free.swap_remove(found))
    }

    pub(crate) fn has_free(&self, kind: Kind, size: u64) -> bool {
        self.free.lock().iter().any(|free| free.kind == kind && free.size == size)
    }
}
