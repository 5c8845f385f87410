//! Payloads: file data in the log, in frames of 16 KiB that are sealed one by one.
//!
//! ```text
//! place row, also inside records of kind Placed (45 bytes)
//!  0  version (1) = 1
//!  1  segment (8)
//!  9  offset (8)      of the first frame in the segment
//! 17  length (4)      of the plaintext
//! 21  references (4)
//! 25  nonce (12)      base of the frames' nonces
//! 37  record (8)      the payload's name
//! ```
//! A frame's associated data is `segment (8), offset (8), length (4)`, its nonce the base and its number: a frame opens at
//! one place only. The key of the row is the record's number, big endian.

use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;

use crate::cipher::{NONCE_BYTES, TAG_BYTES, framed_len};
use crate::error::Result;
use crate::failpoint::failpoint;
use crate::inner::Inner;
use crate::medium::write_all_at;
use crate::options::check_size;
use crate::segment::{HEADER_BYTES, Kind, Retained, Segment};
use crate::txn::{Payload, PayloadKind};
use crate::{Lsn, StoreError, limits};

pub(crate) const PLACE_BYTES: usize = 45;
const VERSION: u8 = 1;

/// Where a payload lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) segment: u64,
    pub(crate) offset: u64,
    pub(crate) len: u32,
    pub(crate) refs: u32,
    pub(crate) nonce: [u8; NONCE_BYTES],
    pub(crate) lsn: Lsn,
}

impl Place {
    pub(crate) fn encode(&self) -> [u8; PLACE_BYTES] {
        let mut out = [0; PLACE_BYTES];
        out[0] = VERSION;
        out[1..9].copy_from_slice(&self.segment.to_le_bytes());
        out[9..17].copy_from_slice(&self.offset.to_le_bytes());
        out[17..21].copy_from_slice(&self.len.to_le_bytes());
        out[21..25].copy_from_slice(&self.refs.to_le_bytes());
        out[25..37].copy_from_slice(&self.nonce);
        out[37..45].copy_from_slice(&self.lsn.to_le_bytes());
        out
    }

    pub(crate) fn decode(bytes: &[u8]) -> Option<Place> {
        let bytes: &[u8; PLACE_BYTES] = bytes.try_into().ok()?;
        let u64_at =
            |at: usize| bytes[at..at + 8].iter().rev().fold(0u64, |acc, byte| acc << 8 | u64::from(*byte));
        let u32_at =
            |at: usize| bytes[at..at + 4].iter().rev().fold(0u32, |acc, byte| acc << 8 | u32::from(*byte));
        let mut nonce = [0; NONCE_BYTES];
        nonce.copy_from_slice(&bytes[25..37]);
        let place = Place {
            segment: u64_at(1),
            offset: u64_at(9),
            len: u32_at(17),
            refs: u32_at(21),
            nonce,
            lsn: u64_at(37),
        };
        let sane = bytes[0] == VERSION
            && place.len > 0
            && place.len as usize <= limits::PAYLOAD_BYTES_MAX
            && place.offset < 1 << 48;
        sane.then_some(place)
    }

    fn ad(&self) -> [u8; 20] {
        place_ad(self.segment, self.offset, self.len)
    }
}

pub(crate) fn place_ad(segment: u64, offset: u64, len: u32) -> [u8; 20] {
    let mut ad = [0; 20];
    ad[..8].copy_from_slice(&segment.to_le_bytes());
    ad[8..16].copy_from_slice(&offset.to_le_bytes());
    ad[16..].copy_from_slice(&len.to_le_bytes());
    ad
}

/// A payload that lies in a data segment and has no record yet. Holds the segment back from being retired.
pub(crate) struct Staged {
    pub(crate) place: Place,
    segment: Arc<Segment>,
}

impl Drop for Staged {
    fn drop(&mut self) {
        self.segment.in_flight.fetch_sub(1, Ordering::AcqRel);
    }
}

/// Where the next large payload goes.
#[derive(Default)]
pub(crate) struct DataTail {
    pub(crate) active: Option<Arc<Segment>>,
    pub(crate) offset: u64,
    /// Data segments with unsynced payloads.
    pub(crate) dirty: Vec<Arc<Segment>>,
}

thread_local! {
    /// Frames on their way from the medium to a reader. Kept, since fresh memory for each read of 128 KiB costs a fifth of it.
    static SEALED: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// How often a payload is written anew elsewhere before its failure is the caller's.
const STAGE_ATTEMPTS: usize = 3;

impl Inner {
    pub(crate) fn stage_payload(&self, plain: &[u8]) -> Result<Payload> {
        check_size("payload", plain.len(), limits::PAYLOAD_BYTES_MAX)?;
        if plain.is_empty() {
            return Err(StoreError::TooLarge { what: "empty payload", size: 0, max: 0 });
        }
        self.admit_data()?;
        if plain.len() <= limits::INLINE_PAYLOAD_BYTES_MAX {
            return Ok(Payload(PayloadKind::Inline(Bytes::copy_from_slice(plain))));
        }
        self.make_room()?;
        let mut last = StoreError::Closed;
        for _ in 0..STAGE_ATTEMPTS {
            match self.write_data(plain) {
                Ok(staged) => return Ok(Payload(PayloadKind::Staged(Arc::new(staged)))),
                // What a failed write left in the segment is never referred to, and its place is not used again.
                Err(error @ StoreError::Io { .. }) => {
                    tracing::warn!(%error, "writing a payload failed, trying another segment");
                    self.data.lock().active = None;
                    last = error;
                }
                Err(error @ StoreError::NoSpace { .. }) if self.give_recycled() || self.free_dead() => {
                    if self.forge.has_free(Kind::Data, self.options.data_segment_bytes) {
                        // It has its blocks, and the one that was being written gets no more.
                        self.data.lock().active = None;
                    }
                    last = error;
                }
                Err(error) => {
                    if let StoreError::NoSpace { .. } = error {
                        self.ballast.note_full();
                    }
                    return Err(error);
                }
            }
        }
        Err(last)
    }

    /// Refuses data for which there is no room, also when what is dead has been freed.
    fn admit_data(&self) -> Result<()> {
        match self.ballast.check_data(&*self.medium) {
            Err(StoreError::NoSpace { .. }) if self.free_dead() => self.ballast.check_data(&*self.medium),
            other => other,
        }
    }

    fn write_data(&self, plain: &[u8]) -> Result<Staged> {
        let len = framed_len(plain.len());
        let (segment, offset) = self.reserve_data(len as u64)?;
        let nonce = self.nonces.take();
        let place =
            Place { segment: segment.number(), offset, len: plain.len() as u32, refs: 1, nonce, lsn: 0 };
        let staged = Staged { place, segment: segment.clone() };
        let mut sealed = Vec::with_capacity(len);
        segment.cipher.seal_frames(nonce, &place.ad(), plain, &mut sealed);
        failpoint!(self.options.failpoints, "payload.write.before");
        let written = write_all_at(&*segment.file(), &sealed, offset);
        if written.is_ok() {
            segment.retained.lock().push(Retained { offset, bytes: sealed, written: true });
        }
        segment.writers.fetch_sub(1, Ordering::AcqRel);
        written.map_err(|error| StoreError::io("write a payload", &segment.name(), error))?;
        failpoint!(self.options.failpoints, "payload.write.after");
        self.push(&segment.file(), offset, len as u64);
        self.note_data_written(&segment, len as u64);
        Ok(staged)
    }

    /// Takes room in the active data segment. The segment counts as being written and as referred to from here on.
    fn reserve_data(&self, len: u64) -> Result<(Arc<Segment>, u64)> {
        let mut tail = self.data.lock();
        let fits = tail.active.as_ref().is_some_and(|active| tail.offset + len <= active.header.size);
        if !fits {
            let size = self.options.data_segment_bytes.max(len + HEADER_BYTES as u64);
            tail.active = Some(self.make_segment(Kind::Data, size)?);
            tail.offset = HEADER_BYTES as u64;
        }
        let Some(segment) = tail.active.clone() else { return Err(StoreError::Closed) };
        let offset = tail.offset;
        tail.offset += len;
        segment.in_flight.fetch_add(1, Ordering::AcqRel);
        segment.writers.fetch_add(1, Ordering::AcqRel);
        Ok((segment, offset))
    }

    /// Fills `buf` from the payload at `place`, beginning `skip` bytes into it.
    pub(crate) fn read_place(&self, place: &Place, skip: u64, buf: &mut [u8]) -> Result<()> {
        let lsn = place.lsn;
        let end = skip.checked_add(buf.len() as u64);
        if end.is_none_or(|end| end > u64::from(place.len)) {
            return Err(StoreError::PayloadRange { lsn, skip, len: buf.len() });
        }
        if buf.is_empty() {
            return Ok(());
        }
        self.wait_written(lsn)?;
        let segment = self.segment(place.segment).ok_or(StoreError::PayloadGone(lsn))?;
        let frame_bytes = limits::FRAME_BYTES;
        let first = skip as usize / frame_bytes;
        let last = (skip as usize + buf.len() - 1) / frame_bytes;
        let from = first * (frame_bytes + TAG_BYTES);
        let until = ((last + 1) * (frame_bytes + TAG_BYTES)).min(framed_len(place.len as usize));
        SEALED.with_borrow_mut(|scratch| {
            if scratch.len() < until - from {
                scratch.resize(until - from, 0);
            }
            let sealed = &mut scratch[..until - from];
            segment.read(sealed, place.offset + from as u64)?;
            let ad = place.ad();
            let mut cut = skip as usize - first * frame_bytes;
            let mut done = 0;
            for (nth, frame) in sealed.chunks_mut(frame_bytes + TAG_BYTES).enumerate() {
                let number = (first + nth) as u32;
                let plain = segment.cipher.open(place.nonce, number, &ad, frame).ok_or_else(|| {
                    StoreError::corrupt(format!("frame {number} of payload {lsn} in {}", segment.name()))
                })?;
                let rest = plain.get(cut..).unwrap_or_default();
                let len = rest.len().min(buf.len() - done);
                buf[done..done + len].copy_from_slice(&rest[..len]);
                done += len;
                cut = 0;
            }
            Ok(())
        })
    }

    /// Whether every frame of the payload opens.
    pub(crate) fn check_place(&self, place: &Place) -> Result<()> {
        let mut buf = vec![0; place.len as usize];
        self.read_place(place, 0, &mut buf)
    }
}
