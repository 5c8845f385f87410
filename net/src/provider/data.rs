//! Data streams: ranged reads and pushes.

use std::collections::HashMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use futures::{AsyncRead, AsyncReadExt};
use libp2p::{PeerId, Stream};
use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::session::ClientSession;
use super::store::{Begin, Entry, Incoming};
use super::{Inner, blocking};
use crate::deal::{ByteRange, DealId};
use crate::error::ErrorCode;
use crate::wire::frame::{Frame, FrameError, FrameKind, HEADER_BYTES, Header};
use crate::wire::io::{self, Outgoing};
use crate::wire::life::{Counts, Living};
use crate::wire::limits::{
    DATA_FRAME_BYTES, HELLO_TIMEOUT, PUSH_BYTES_PER_SECOND_MIN, PUSH_STALL_TIMEOUT, PUSH_WINDOW, RANGES_MAX,
    READ_BYTES_MAX,
};
use crate::wire::message::{self, DataRequest, Reply, WireError};

/// Of a read so much is taken from disk at once, by one thread, into several frames: going there and back costs as much as reading some 100 KiB.
const TAKEN_BYTES: usize = 1 << 20;
/// Frames read from disk ahead of the stream.
const OUTGOING_FRAMES_MAX: usize = 4;
/// Frames of a push ahead of the disk.
const INCOMING_FRAMES_MAX: usize = 8;
/// How long a push waits for an older one of the same deal to leave.
const PREEMPT_TIMEOUT: Duration = Duration::from_secs(10);
const PREEMPT_POLL: Duration = Duration::from_millis(20);

type Held = Option<OwnedSemaphorePermit>;
type Replies = mpsc::Sender<Outgoing<Held>>;

/// A request under way.
struct UnderWay {
    cancel: CancellationToken,
    /// Of a push: where its data goes; `None` in it is the end.
    data: Option<mpsc::Sender<Option<Bytes>>>,
}

type Table = Arc<Mutex<HashMap<u32, UnderWay>>>;

/// Serves one data stream until it ends.
pub(super) async fn serve(inner: &Arc<Inner>, peer: PeerId, mut stream: Stream) -> Result<(), FrameError> {
    let counters = inner.node.counters();
    let header = io::read_header(&mut stream, Some(HELLO_TIMEOUT)).await?;
    let payload = io::read_payload(&mut stream, &header).await?;
    let attach = (header.kind == FrameKind::Request).then(|| message::decode::<DataRequest>(&payload));
    let refuse = |code, text: &str| message::error_frame(header.request, &WireError::new(code, text));
    let session = match attach {
        Some(Ok(DataRequest::Attach { ticket, .. })) => inner.sessions.find(&peer, &ticket),
        _ => {
            let frame = refuse(ErrorCode::Malformed, "a data stream begins with attach");
            return io::write_flush(&mut stream, &frame, &counters).await;
        }
    };
    let Some(session) = session else {
        let frame = refuse(ErrorCode::Unauthorized, "no such session");
        return io::write_flush(&mut stream, &frame, &counters).await;
    };
    let Ok(_permit) = session.streams.clone().try_acquire_owned() else {
        let frame = refuse(ErrorCode::Busy, "too many streams in one session");
        return io::write_flush(&mut stream, &frame, &counters).await;
    };
    io::write_flush(
        &mut stream,
        &message::frame_of(FrameKind::Reply, header.request, &Reply::Ok {}),
        &counters,
    )
    .await?;
    let stream = Living::new(stream, session.life.clone(), Counts::Both);
    tokio::select! {
        result = serve_attached(inner, &session, stream) => result,
        () = session.ended.cancelled() => Ok(()),
    }
}

async fn serve_attached(
    inner: &Arc<Inner>,
    session: &Arc<ClientSession>,
    stream: Living<Stream>,
) -> Result<(), FrameError> {
    let counters = inner.node.counters();
    let (mut reader, mut writer) = stream.split();
    let (replies, mut outgoing) = mpsc::channel::<Outgoing<Held>>(OUTGOING_FRAMES_MAX);
    let stream = DataStream {
        inner: inner.clone(),
        session: session.clone(),
        replies,
        table: Table::default(),
        inflight: Arc::new(Semaphore::new(usize::from(inner.config.limits.inflight_max))),
        reads: Arc::new(Semaphore::new(inner.config.limits.reads_per_stream_max.max(1))),
    };
    let idle = Duration::from_secs(inner.config.limits.idle_seconds.max(1));
    let read = async {
        let mut tasks = JoinSet::new();
        loop {
            while tasks.try_join_next().is_some() {}
            let header = match io::read_header(&mut reader, Some(idle)).await {
                Err(FrameError::Idle) if !tasks.is_empty() => continue,
                result => result?,
            };
            stream.on_frame(&mut reader, &header, &mut tasks).await?;
            counters.add_received(header.payload + HEADER_BYTES);
        }
    };
    tokio::select! {
        result = read => result,
        result = io::write_all(&mut writer, &mut outgoing, &counters) => result,
    }
}

struct DataStream {
    inner: Arc<Inner>,
    session: Arc<ClientSession>,
    replies: Replies,
    table: Table,
    inflight: Arc<Semaphore>,
    reads: Arc<Semaphore>,
}

impl DataStream {
    async fn on_frame<R: AsyncRead + Unpin>(
        &self,
        reader: &mut R,
        header: &Header,
        tasks: &mut JoinSet<()>,
    ) -> Result<(), FrameError> {
        let payload = Bytes::from(io::read_payload(reader, header).await?);
        match header.kind {
            FrameKind::Request => self.on_request(header.request, &payload, tasks).await,
            FrameKind::Cancel => {
                if let Some(request) = self.table.lock().get(&header.request) {
                    request.cancel.cancel();
                }
                Ok(())
            }
            FrameKind::Data | FrameKind::End => {
                let sink = match self.table.lock().get(&header.request) {
                    Some(request) => Some(request.data.clone().ok_or(FrameError::Kind(header.kind as u8))?),
                    // A push that was refused while its data was on the way.
                    None => None,
                };
                if let Some(sink) = sink {
                    // A full channel holds up the stream: that is the push's back-pressure. A closed one is a push
                    // that has just ended.
                    let _ = sink.send((header.kind == FrameKind::Data).then_some(payload)).await;
                }
                Ok(())
            }
            kind => Err(FrameError::Kind(kind as u8)),
        }
    }

    async fn on_request(&self, id: u32, payload: &[u8], tasks: &mut JoinSet<()>) -> Result<(), FrameError> {
        let Ok(permit) = self.inflight.clone().acquire_owned().await else { return Ok(()) };
        let request = message::decode::<DataRequest>(payload);
        let cancel = self.session.ended.child_token();
        let (sender, receiver) = mpsc::channel(INCOMING_FRAMES_MAX);
        let is_push = matches!(request, Ok(DataRequest::Push { .. }));
        {
            let mut table = self.table.lock();
            if table.contains_key(&id) {
                // Two requests under one number cannot be told apart.
                return Err(FrameError::Kind(FrameKind::Request as u8));
            }
            table.insert(id, UnderWay { cancel: cancel.clone(), data: is_push.then_some(sender) });
        }
        let (inner, session, replies) = (self.inner.clone(), self.session.clone(), self.replies.clone());
        let (table, reads) = (self.table.clone(), self.reads.clone());
        tasks.spawn(async move {
            let work = async {
                match request {
                    Ok(DataRequest::Read { deal, ranges }) => {
                        let _turn = reads.acquire().await;
                        read(&inner, &session, &replies, id, deal, ranges).await
                    }
                    Ok(DataRequest::Push { deal }) => {
                        push(&inner, &session, &replies, id, deal, receiver).await
                    }
                    Ok(DataRequest::Attach { .. }) => {
                        Err(WireError::new(ErrorCode::Malformed, "the stream is attached"))
                    }
                    Err(e) => Err(WireError::new(ErrorCode::Malformed, e.to_string())),
                }
            };
            let result = tokio::select! {
                biased;
                () = cancel.cancelled() => Err(WireError::new(ErrorCode::Cancelled, "cancelled")),
                result = work => result,
            };
            let frame = match result {
                Ok(frame) => frame,
                Err(e) => message::error_frame(id, &e),
            };
            // The number is free again before the client can learn that.
            table.lock().remove(&id);
            let _ = replies.send(Outgoing { frame, _held: None }).await;
            drop(permit);
        });
        Ok(())
    }
}

/// Sends the ranges' bytes; returns the end.
async fn read(
    inner: &Arc<Inner>,
    session: &ClientSession,
    replies: &Replies,
    id: u32,
    deal: DealId,
    ranges: Vec<ByteRange>,
) -> Result<Frame, WireError> {
    let entry = inner.readable(session, &deal, &ranges)?;
    check_ranges(&entry, &ranges)?;
    let room_max = inner.config.limits.serving_bytes_max;
    let mut file = None;
    let mut rest = Rest { ranges: ranges.into(), first: 0, skip: 0 };
    loop {
        let frames = rest.frames(frames_at_once(inner.serving.available_permits(), room_max));
        let bytes = frames.iter().map(|parts| bytes_of(parts)).sum::<usize>();
        if bytes == 0 {
            break;
        }
        let held = inner.serving.clone().acquire_many_owned(bytes as u32).await;
        let mut held = held.map_err(|_| WireError::new(ErrorCode::ShuttingDown, "going down"))?;
        let (worker, opened) = (inner.clone(), file.take());
        let taken = blocking(move || {
            let source = opened.map_or_else(|| worker.store.open_slot(&deal), Ok)?;
            let frames = frames.iter().map(|parts| read_parts(&source, id, parts));
            Ok((frames.collect::<Result<Vec<Frame>, _>>()?, source))
        });
        let (frames, source) = taken.await?;
        file = Some(source);
        inner.tallies.served.fetch_add(bytes as u64, Ordering::Relaxed);
        for frame in frames {
            let own = held.split(frame.encoded().len() - HEADER_BYTES);
            let closed = |_| WireError::new(ErrorCode::Cancelled, "the stream ended");
            replies.send(Outgoing { frame, _held: own }).await.map_err(closed)?;
        }
    }
    Frame::new(FrameKind::End, id, &[]).ok_or_else(|| WireError::new(ErrorCode::Storage, "no end"))
}

fn check_ranges(entry: &Entry, ranges: &[ByteRange]) -> Result<(), WireError> {
    if ranges.is_empty() || ranges.len() > usize::from(RANGES_MAX) {
        return Err(WireError::new(ErrorCode::Malformed, "no ranges, or too many"));
    }
    if ranges.iter().any(|r| r.len == 0 || r.end().is_none_or(|end| end > entry.raw_len)) {
        return Err(WireError::new(ErrorCode::OutOfRange, "a range outside the slot"));
    }
    let bytes: u64 = ranges.iter().map(|r| u64::from(r.len)).sum();
    if bytes > u64::from(READ_BYTES_MAX) {
        return Err(WireError::new(ErrorCode::Malformed, "too many bytes in one read"));
    }
    Ok(())
}

/// What of a read has not been sent.
struct Rest {
    ranges: Box<[ByteRange]>,
    first: usize,
    skip: u32,
}

/// Frames that a read takes from disk at once: where much of the room for what is on its way is taken, no more than it needs to go on.
fn frames_at_once(free: usize, room: usize) -> usize {
    if free > room / 2 { (TAKEN_BYTES.min(room / 2) / DATA_FRAME_BYTES).max(1) } else { 1 }
}

impl Rest {
    /// The next frames' parts, so many frames at most.
    fn frames(&mut self, most: usize) -> Vec<Vec<ByteRange>> {
        let next = std::iter::repeat_with(|| self.take(DATA_FRAME_BYTES));
        next.take(most).take_while(|parts| !parts.is_empty()).collect()
    }

    /// The next parts, at most `max` bytes.
    fn take(&mut self, max: usize) -> Vec<ByteRange> {
        let mut out = Vec::new();
        let mut room = u32::try_from(max).unwrap_or(u32::MAX);
        while room > 0
            && let Some(range) = self.ranges.get(self.first)
        {
            let len = (range.len - self.skip).min(room);
            out.push(ByteRange::new(range.offset + u64::from(self.skip), len));
            room -= len;
            self.skip += len;
            if self.skip == range.len {
                self.first += 1;
                self.skip = 0;
            }
        }
        out
    }
}

fn bytes_of(parts: &[ByteRange]) -> usize {
    parts.iter().map(|part| part.len as usize).sum()
}

/// Reads parts of a slot straight into a frame.
fn read_parts(file: &File, id: u32, parts: &[ByteRange]) -> Result<Frame, WireError> {
    let bytes = bytes_of(parts);
    let mut buffer = Frame::buffer(bytes);
    buffer.resize(HEADER_BYTES + bytes, 0);
    let mut rest = buffer.split_at_mut(HEADER_BYTES).1;
    for part in parts {
        let (place, after) = rest.split_at_mut(part.len as usize);
        file.read_exact_at(place, part.offset).map_err(|e| match e.kind() {
            std::io::ErrorKind::UnexpectedEof => WireError::new(ErrorCode::Corrupt, "the slot is cut short"),
            _ => super::store::storage(&e),
        })?;
        rest = after;
    }
    Frame::finish(FrameKind::Data, id, buffer).ok_or_else(|| WireError::new(ErrorCode::Storage, "no frame"))
}

/// Receives a slot; returns the receipt.
async fn push(
    inner: &Arc<Inner>,
    session: &ClientSession,
    replies: &Replies,
    id: u32,
    deal: DealId,
    data: mpsc::Receiver<Option<Bytes>>,
) -> Result<Frame, WireError> {
    inner.permitted(session, &deal, true)?;
    let Ok(_permit) = inner.pushes.clone().try_acquire_owned() else {
        return Err(WireError::new(ErrorCode::Busy, "too many pushes"));
    };
    let turn = PushTurn::take(inner, deal).await?;
    let receive = async {
        match begin(inner, deal).await? {
            Begin::Receipt(receipt) => Ok(receipt),
            Begin::Receive(incoming) => {
                let go = message::frame_of(FrameKind::Go, id, &Reply::Go { offset: incoming.offset() });
                let closed = |_| WireError::new(ErrorCode::Cancelled, "the stream ended");
                replies.send(Outgoing { frame: go, _held: None }).await.map_err(closed)?;
                receive(inner, deal, incoming, data).await
            }
        }
    };
    let receipt = tokio::select! {
        biased;
        () = turn.cancel.cancelled() => Err(WireError::new(ErrorCode::PushRunning, "a newer push took over")),
        result = receive => result,
    }?;
    Ok(message::frame_of(FrameKind::Reply, id, &Reply::Receipt { receipt }))
}

/// Opens what there is of the slot. The thread of a push that has just been ended may hold it for a moment.
async fn begin(inner: &Arc<Inner>, deal: DealId) -> Result<Begin, WireError> {
    let patience = Instant::now() + PREEMPT_TIMEOUT;
    loop {
        let worker = inner.clone();
        let begun = blocking(move || worker.store.begin(&deal, &|entry| worker.receipt(deal, entry))).await;
        match begun {
            Err(e) if e.code == ErrorCode::PushRunning.number() && Instant::now() < patience => {
                tokio::time::sleep(PREEMPT_POLL).await;
            }
            result => return result,
        }
    }
}

/// The only push of its deal.
struct PushTurn {
    inner: Arc<Inner>,
    deal: DealId,
    cancel: CancellationToken,
}

impl PushTurn {
    /// Ends an older push of the deal, whose client is perhaps long gone, and takes its place.
    async fn take(inner: &Arc<Inner>, deal: DealId) -> Result<PushTurn, WireError> {
        let patience = async {
            loop {
                {
                    let mut pushing = inner.pushing.lock();
                    match pushing.get(&deal) {
                        None => {
                            let cancel = inner.stop.child_token();
                            pushing.insert(deal, cancel.clone());
                            return PushTurn { inner: inner.clone(), deal, cancel };
                        }
                        Some(older) => older.cancel(),
                    }
                }
                tokio::time::sleep(PREEMPT_POLL).await;
            }
        };
        let busy = |_| WireError::new(ErrorCode::PushRunning, "another push of this deal is running");
        tokio::time::timeout(PREEMPT_TIMEOUT, patience).await.map_err(busy)
    }
}

impl Drop for PushTurn {
    fn drop(&mut self) {
        self.inner.pushing.lock().remove(&self.deal);
    }
}

/// How fast a push comes in. Only waiting for the client counts, not for the own disk.
#[derive(Default)]
struct Pace {
    waited: Duration,
    bytes: u64,
}

impl Pace {
    fn came(&mut self, waited: Duration, bytes: usize) -> Result<(), WireError> {
        self.waited += waited;
        self.bytes = self.bytes.saturating_add(bytes as u64);
        if self.waited < PUSH_WINDOW {
            return Ok(());
        }
        let least = self.waited.as_secs().saturating_mul(PUSH_BYTES_PER_SECOND_MIN);
        if self.bytes < least {
            let text = format!("{} bytes in {} s are too slow for a push", self.bytes, self.waited.as_secs());
            return Err(WireError::new(ErrorCode::TooSlow, text));
        }
        *self = Pace::default();
        Ok(())
    }
}

/// Moves frames to a thread that writes and hashes them.
async fn receive(
    inner: &Arc<Inner>,
    deal: DealId,
    mut incoming: Incoming,
    mut data: mpsc::Receiver<Option<Bytes>>,
) -> Result<Vec<u8>, WireError> {
    let (to_disk, mut from_stream) = mpsc::channel::<Bytes>(INCOMING_FRAMES_MAX);
    let worker = inner.clone();
    let disk = blocking(move || {
        while let Some(bytes) = from_stream.blocking_recv() {
            incoming.write(&bytes)?;
            worker.tallies.received.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        }
        Ok(incoming)
    });
    let mut pace = Pace::default();
    let feed = async move {
        loop {
            let waiting = Instant::now();
            let next = tokio::time::timeout(PUSH_STALL_TIMEOUT, data.recv()).await;
            if let Ok(Some(Some(bytes))) = &next {
                pace.came(waiting.elapsed(), bytes.len())?;
            }
            match next {
                Err(_) => return Err(WireError::new(ErrorCode::Cancelled, "the push stalled")),
                Ok(None) => return Err(WireError::new(ErrorCode::Cancelled, "the stream ended")),
                Ok(Some(None)) => return Ok(()),
                Ok(Some(Some(bytes))) => {
                    // The disk's own error is told by its thread.
                    if to_disk.send(bytes).await.is_err() {
                        return Ok(());
                    }
                }
            }
        }
    };
    let (incoming, ()) = tokio::try_join!(disk, feed)?;
    let worker = inner.clone();
    blocking(move || incoming.finish(&|entry| worker.receipt(deal, entry))).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_read_takes_several_frames_at_once_unless_much_is_on_its_way() {
        const ROOM: usize = 64 << 20;
        assert_eq!(frames_at_once(ROOM, ROOM), 4);
        assert_eq!(frames_at_once(ROOM / 2, ROOM), 1, "others wait for room");
        // However little room there is, what is taken fits into it.
        for room in [DATA_FRAME_BYTES, 3 * DATA_FRAME_BYTES, 5 * DATA_FRAME_BYTES] {
            assert!(frames_at_once(room, room) * DATA_FRAME_BYTES <= room);
        }
        let ranges = Box::new([ByteRange::new(9, 300 << 10), ByteRange::new(1 << 30, 900 << 10)]);
        let mut rest = Rest { ranges, first: 0, skip: 0 };
        let lens = |frames: Vec<Vec<ByteRange>>| -> Vec<usize> {
            frames.iter().map(|f| bytes_of(f) >> 10).collect()
        };
        assert_eq!(lens(rest.frames(4)), [256; 4]);
        assert_eq!(lens(rest.frames(4)), [176]);
        assert!(rest.frames(4).is_empty());
    }

    #[test]
    fn a_push_must_come_at_a_pace() {
        const FRAME: usize = 256 << 10;
        let frames = |every: Duration, count: u32| {
            let mut pace = Pace::default();
            (0..count).find_map(|n| pace.came(every, FRAME).err().map(|e| (n, e.code)))
        };
        // 8 KiB/s is a frame in 32 s; a frame a minute once held a push's place for as long as its client liked.
        assert_eq!(frames(Duration::from_secs(30), 1000), None);
        assert_eq!(frames(Duration::from_secs(59), 1000), Some((5, ErrorCode::TooSlow.number())));
        // What was fast before is no credit, and one slow window is not made good later.
        let mut pace = Pace::default();
        for _ in 0..1000 {
            assert!(pace.came(Duration::from_secs(1), FRAME).is_ok());
        }
        let slow = (0..20).find_map(|_| pace.came(Duration::from_secs(59), 1).err());
        assert_eq!(slow.map(|e| e.code), Some(ErrorCode::TooSlow.number()));
        // The own disk is no matter: nothing was waited for.
        assert!((0..1000).all(|_| Pace::default().came(Duration::ZERO, 1).is_ok()));
    }
}
