//! Reading the log from where the index stands.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use bytes::Bytes;

use super::{Inventory, Tools, logs};
use crate::checkpoint::IndexState;
use crate::cipher::{TAG_BYTES, framed_len};
use crate::delta::Layer;
use crate::error::Result;
use crate::key::{Key, Span};
use crate::ledger::Ledger;
use crate::limits;
use crate::payload::{PLACE_BYTES, Place};
use crate::record::{
    ALIGN, Change, RECORD_HEADER_BYTES, RecordHeader, RecordKind, check_inline, open_rows, parse_header,
};
use crate::segment::{HEADER_BYTES, Segment};
use crate::{Lsn, RecoveryReport, StoreError, Table};

/// The result of reading the log.
pub(super) struct Replayed {
    pub(super) store_id: [u8; 16],
    pub(super) last_lsn: Lsn,
    pub(super) layer: Layer,
    pub(super) ledger: Ledger,
    /// Segments of replayed records and of their payloads.
    pub(super) touched: BTreeSet<u64>,
}

/// An intact record.
struct Found {
    header: RecordHeader,
    segment: u64,
    place: Option<Place>,
    ranges: Vec<Span>,
    changes: Vec<Change>,
}

/// Where the reading of a segment stopped.
struct Stop {
    segment: Arc<Segment>,
    offset: u64,
}

struct Replay<'a> {
    tools: &'a Tools<'a>,
    inventory: &'a Inventory,
    applied: Lsn,
    /// Everything up to here was durable, as far as is known by now.
    durable: Lsn,
    next: Lsn,
    /// Read, and not known to be durable yet.
    queue: VecDeque<Found>,
    stops: Vec<Stop>,
    closed: bool,
    out: Replayed,
    count: u64,
}

pub(super) fn replay(
    tools: &Tools<'_>,
    inventory: &Inventory,
    state: IndexState,
    report: &mut RecoveryReport,
) -> Result<Replayed> {
    let applied = state.applied;
    let mut replay = Replay {
        tools,
        inventory,
        applied,
        durable: applied.max(inventory.vouched()),
        next: applied + 1,
        queue: VecDeque::new(),
        stops: Vec::new(),
        closed: false,
        out: Replayed {
            store_id: state.store_id,
            last_lsn: applied,
            layer: Layer { last_lsn: applied, ..Layer::default() },
            ledger: state.ledger,
            touched: BTreeSet::new(),
        },
        count: 0,
    };
    let logs = replay.relevant(report.index_rebuilt)?;
    for segment in &logs {
        replay.read_segment(segment)?;
    }
    let end = replay.next;
    let beyond = if replay.closed { None } else { replay.look_beyond()? };
    if end <= replay.durable {
        let durable = replay.durable;
        let damage = format!("record {end} is missing or damaged, but records up to {durable} were durable");
        report.corruption.get_or_insert(damage);
        replay.apply_durable(Lsn::MAX)?;
    } else {
        replay.apply_durable(replay.durable)?;
        let torn = replay.apply_tail()?;
        let cut = replay.out.last_lsn + 1;
        report.torn_tail = match (torn, beyond) {
            (true, _) => Some(format!("the payload of record {cut} is not whole")),
            (false, Some(lsn)) => Some(format!("record {cut} is not whole, record {lsn} after it is")),
            (false, None) => None,
        };
    }
    report.replayed_records = replay.count;
    Ok(replay.out)
}

impl Replay<'_> {
    /// The log segments from the one that holds the next record on.
    fn relevant(&self, rebuilding: bool) -> Result<Vec<Arc<Segment>>> {
        let logs = logs(&self.inventory.segments);
        let mut start = None;
        let mut oldest = None;
        for (nth, segment) in logs.iter().enumerate() {
            let Some(first) = self.first_lsn(segment)? else { continue };
            if first >= self.inventory.void_from(segment.header.epoch) {
                continue;
            }
            oldest = Some(oldest.unwrap_or(first).min(first));
            if first <= self.next {
                start = Some(nth);
            }
        }
        match (start, oldest) {
            (Some(start), _) => Ok(logs.get(start..).unwrap_or_default().to_vec()),
            (None, Some(log_from)) if rebuilding => Err(StoreError::IndexMissing { log_from }),
            (None, Some(log_from)) => Err(StoreError::IndexBehind { applied: self.applied, log_from }),
            (None, None) if rebuilding && self.inventory.vouched() > 0 => {
                Err(StoreError::IndexMissing { log_from: self.inventory.vouched() + 1 })
            }
            (None, None) => Ok(logs),
        }
    }

    fn first_lsn(&self, segment: &Arc<Segment>) -> Result<Option<Lsn>> {
        let found = read_record(segment, HEADER_BYTES as u64)?;
        // A mark that opens a segment carries the number of the record before it.
        Ok(found.map(|found| found.header.lsn + Lsn::from(is_mark(found.header.kind))))
    }

    /// Reads records in order until one is missing.
    fn read_segment(&mut self, segment: &Arc<Segment>) -> Result<()> {
        let void_from = self.inventory.void_from(segment.header.epoch);
        let mut offset = HEADER_BYTES as u64;
        // Only the last segment can say that nothing follows.
        self.closed = false;
        loop {
            let Some(found) = read_record(segment, offset)? else { break };
            let lsn = found.header.lsn;
            let mark = is_mark(found.header.kind);
            if lsn >= void_from
                || (!mark && lsn > self.next)
                || (mark && lsn >= self.next && lsn > self.applied)
            {
                break;
            }
            self.durable = self.durable.max(found.header.durable);
            self.closed = found.header.kind == RecordKind::Close;
            offset += u64::from(found.header.total);
            if !mark && lsn == self.next {
                self.next += 1;
                self.queue.push_back(found);
                self.apply_durable(self.durable)?;
            }
        }
        self.stops.push(Stop { segment: segment.clone(), offset });
        Ok(())
    }

    /// Looks for intact records behind the end: what they say about durability tells damage from a torn tail. Gives the
    /// first that was found.
    fn look_beyond(&mut self) -> Result<Option<Lsn>> {
        let mut first = None;
        for stop in std::mem::take(&mut self.stops) {
            let void_from = self.inventory.void_from(stop.segment.header.epoch);
            let mut window = Window::new(&stop.segment)?;
            let mut offset = stop.offset;
            while let Some(at) = window.find_mark(&stop.segment, offset)? {
                offset = at + ALIGN as u64;
                let Some(found) = read_record(&stop.segment, at)? else { continue };
                offset = at + u64::from(found.header.total);
                if found.header.lsn >= self.next && found.header.lsn < void_from {
                    self.durable = self.durable.max(found.header.durable);
                    first = first.or(Some(found.header.lsn));
                }
            }
        }
        Ok(first)
    }

    fn apply_durable(&mut self, durable: Lsn) -> Result<()> {
        while self.queue.front().is_some_and(|found| found.header.lsn <= durable) {
            if let Some(found) = self.queue.pop_front() {
                self.apply(found)?;
            }
        }
        Ok(())
    }

    /// Applies records that no mark covers, as long as their payloads are whole. Gives whether one was not.
    fn apply_tail(&mut self) -> Result<bool> {
        while let Some(found) = self.queue.pop_front() {
            if found.header.kind == RecordKind::Placed && !self.is_whole(found.place.as_ref())? {
                self.queue.clear();
                return Ok(true);
            }
            self.apply(found)?;
        }
        Ok(false)
    }

    fn is_whole(&self, place: Option<&Place>) -> Result<bool> {
        let Some(place) = place else { return Ok(false) };
        let Some(segment) = self.inventory.segments.get(&place.segment) else { return Ok(false) };
        let mut sealed = vec![0; framed_len(place.len as usize)];
        match segment.read(&mut sealed, place.offset) {
            Ok(()) => {}
            Err(StoreError::Io { source, .. }) if source.kind() == std::io::ErrorKind::UnexpectedEof => {
                return Ok(false);
            }
            Err(error) => return Err(error),
        }
        let ad = crate::payload::place_ad(place.segment, place.offset, place.len);
        let mut frames = sealed.chunks_mut(limits::FRAME_BYTES + TAG_BYTES).enumerate();
        Ok(frames.all(|(nth, frame)| segment.cipher.open(place.nonce, nth as u32, &ad, frame).is_some()))
    }

    fn apply(&mut self, found: Found) -> Result<()> {
        let lsn = found.header.lsn;
        let mut changes = found.changes;
        self.out.ledger.record(found.segment, lsn);
        self.out.touched.insert(found.segment);
        for (key, value) in &changes {
            if value.is_none()
                && key.as_slice().first() == Some(&Table::Payload.tag())
                && let Some(place) = self.old_place(key)?
            {
                self.out.ledger.died(&place, lsn);
            }
        }
        if let Some(place) = found.place {
            self.out.ledger.born(&place);
            self.out.touched.insert(place.segment);
            let row = Bytes::copy_from_slice(&place.encode());
            changes.push((Key::new(Table::Payload, &lsn.to_be_bytes()), Some(row)));
        }
        self.out.layer.apply(lsn, found.ranges, changes);
        self.out.last_lsn = lsn;
        self.count += 1;
        Ok(())
    }

    fn old_place(&self, key: &Key) -> Result<Option<Place>> {
        let row = match self.out.layer.get(key.as_slice()) {
            Some(row) => row,
            None => {
                let open = |sealed: &[u8]| self.tools.values.open(key.as_slice(), sealed);
                self.tools.index.get(key.as_slice(), &open)?
            }
        };
        Ok(row.and_then(|row| Place::decode(&row)))
    }
}

fn is_mark(kind: RecordKind) -> bool {
    matches!(kind, RecordKind::Mark | RecordKind::Close)
}

/// The record at `offset`, if an intact one stands there.
fn read_record(segment: &Arc<Segment>, offset: u64) -> Result<Option<Found>> {
    let mut clear = [0; RECORD_HEADER_BYTES];
    if !read_or_end(segment, &mut clear, offset)? {
        return Ok(None);
    }
    let Some(header) = parse_header(segment, &clear) else { return Ok(None) };
    let total = u64::from(header.total);
    if offset + total > segment.header.size {
        return Ok(None);
    }
    let mut record = vec![0; header.total as usize];
    if !read_or_end(segment, &mut record, offset)? {
        return Ok(None);
    }
    let Some(body) = open_rows(&segment.cipher, &header, &mut record) else { return Ok(None) };
    if header.payload > 0 && !check_inline(segment, &header, &mut record, offset) {
        return Ok(None);
    }
    let inline = (header.payload > 0).then(|| Place {
        segment: segment.number(),
        offset: offset + (RECORD_HEADER_BYTES + header.rows as usize + TAG_BYTES) as u64,
        len: header.payload,
        refs: header.payload_refs,
        nonce: header.nonce,
        lsn: header.lsn,
    });
    let (place, ranges, changes) = (body.place.or(inline), body.ranges, body.changes);
    Ok(Some(Found { header, segment: segment.number(), place, ranges, changes }))
}

/// False at the end of the file.
fn read_or_end(segment: &Arc<Segment>, buf: &mut [u8], offset: u64) -> Result<bool> {
    match segment.read(buf, offset) {
        Ok(()) => Ok(true),
        Err(StoreError::Io { source, .. }) if source.kind() == std::io::ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error),
    }
}

/// A moving view of a segment, for searching.
struct Window {
    bytes: Vec<u8>,
    at: u64,
    end: u64,
}

const WINDOW_BYTES: usize = 1 << 20;

impl Window {
    fn new(segment: &Arc<Segment>) -> Result<Self> {
        let len = segment.file().len().map_err(|error| StoreError::io("measure", &segment.name(), error))?;
        Ok(Window { bytes: Vec::new(), at: 0, end: len.min(segment.header.size) })
    }

    /// The next place at or after `offset` that begins like a record.
    fn find_mark(&mut self, segment: &Arc<Segment>, mut offset: u64) -> Result<Option<u64>> {
        while offset + RECORD_HEADER_BYTES as u64 <= self.end {
            let inside = offset >= self.at && offset + ALIGN as u64 <= self.at + self.bytes.len() as u64;
            if !inside {
                let len = (self.end - offset).min(WINDOW_BYTES as u64) as usize;
                self.bytes.resize(len, 0);
                self.at = offset;
                segment.read(&mut self.bytes, offset)?;
            }
            let from = (offset - self.at) as usize;
            let rest = self.bytes.get(from..).unwrap_or_default();
            let mut places = rest.chunks_exact(ALIGN);
            if let Some(nth) = places.position(|place| place.starts_with(&segment.mark)) {
                return Ok(Some(offset + (nth * ALIGN) as u64));
            }
            offset += (rest.len() / ALIGN * ALIGN) as u64;
        }
        Ok(None)
    }
}

const _: () = assert!(PLACE_BYTES < limits::FRAME_BYTES);
