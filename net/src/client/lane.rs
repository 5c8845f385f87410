//! One stream of a client: many requests at once, each with its number.
//!
//! A reader task hands each frame to whoever waits for it; a writer task sends what comes through a short channel.
//! Whoever stops waiting leaves a cancelled entry behind until the provider has ended the request, so that late
//! frames are known for what they are. Any other frame that nobody waits for breaks the protocol and the lane.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::{AsyncRead, AsyncReadExt, AsyncWrite};
use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use crate::codec;
use crate::error::NetError;
use crate::node::Counters;
use crate::wire::frame::{Frame, FrameError, FrameKind, Header};
use crate::wire::io::{self, Outgoing};
use crate::wire::message::{self, WireError};

/// Frames waiting to be written: enough to keep the stream busy, few enough that a request has its turn soon.
const OUTGOING_FRAMES_MAX: usize = 4;
/// Replies of a push that nobody has taken yet: a go and its end.
const PUSH_EVENTS_MAX: usize = 4;

/// What somebody waits for.
enum Waiting {
    /// One reply.
    Reply(oneshot::Sender<Result<Bytes, NetError>>),
    /// Data, exactly as much as there is place for, then an end.
    Data { places: Places, done: oneshot::Sender<Result<Vec<Bytes>, NetError>> },
    /// A push: perhaps a go, then a reply.
    Push(mpsc::Sender<PushEvent>),
    /// Nobody any more.
    Cancelled,
}

/// Where the data of a read goes: memory of its own for each range, so that whoever unmasks and opens it can do so where it is.
#[derive(Default)]
struct Places {
    /// The first of them are full.
    buffers: Vec<Vec<u8>>,
    wants: Vec<usize>,
    full: usize,
    missing: usize,
}

impl Places {
    fn new(wants: &[usize]) -> Places {
        Places {
            buffers: wants.iter().map(|want| Vec::with_capacity(*want)).collect(),
            wants: wants.to_vec(),
            full: 0,
            missing: wants.iter().sum(),
        }
    }

    /// Reads so many bytes, which are not more than are missing.
    async fn fill<R: AsyncRead + Unpin>(&mut self, reader: &mut R, bytes: usize) -> Result<(), FrameError> {
        let mut left = bytes;
        while left > 0
            && let (Some(buffer), Some(want)) = (self.buffers.get_mut(self.full), self.wants.get(self.full))
        {
            let from = buffer.len();
            let n = left.min(*want - from);
            buffer.resize(from + n, 0);
            io::read_exact(reader, buffer.split_at_mut(from).1).await?;
            left -= n;
            self.missing -= n;
            self.full += usize::from(from + n == *want);
        }
        Ok(())
    }

    fn finish(self) -> Result<Vec<Bytes>, NetError> {
        match self.missing {
            0 => Ok(self.buffers.into_iter().map(Bytes::from).collect()),
            missing => Err(NetError::Protocol(format!("{missing} bytes of a read were not sent"))),
        }
    }
}

/// What a provider says during a push.
pub(super) enum PushEvent {
    /// Begin (a payload to decode).
    Go(Bytes),
    /// It is over.
    Over(Result<Bytes, NetError>),
}

struct Entry {
    waiting: Waiting,
    // Given back when the provider ended the request, not when the caller left: the provider counts likewise.
    _permit: OwnedSemaphorePermit,
}

struct Table {
    entries: HashMap<u32, Entry>,
    next: u32,
    failed: Option<NetError>,
}

/// A stream with requests under way.
pub(super) struct Lane {
    frames: mpsc::Sender<Outgoing<()>>,
    table: Arc<Mutex<Table>>,
    inflight: Arc<Semaphore>,
    stop: CancellationToken,
}

impl Drop for Lane {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Lane {
    /// Takes over a stream whose first exchange is done; it ends with the way that it was opened on.
    pub(super) fn start<S>(stream: S, way: CancellationToken, inflight: u16, counters: Arc<Counters>) -> Lane
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (frames, mut outgoing) = mpsc::channel(OUTGOING_FRAMES_MAX);
        let table = Arc::new(Mutex::new(Table { entries: HashMap::new(), next: 1, failed: None }));
        let stop = CancellationToken::new();
        let (mut reader, mut writer) = stream.split();
        let lane = Lane {
            frames,
            table: table.clone(),
            inflight: Arc::new(Semaphore::new(usize::from(inflight.max(1)))),
            stop: stop.clone(),
        };
        tokio::spawn(async move {
            let read = read_loop(&mut reader, &table, &counters);
            let write = io::write_all(&mut writer, &mut outgoing, &counters);
            let error = tokio::select! {
                () = stop.cancelled() => NetError::Disconnected("closed".into()),
                () = way.cancelled() => way_ended(),
                error = read => error,
                result = write => match result {
                    Ok(()) => NetError::Disconnected("closed".into()),
                    Err(e) => stream_error(e),
                },
            };
            stop.cancel();
            fail_all(&table, &error);
        });
        lane
    }

    /// Whether it still works.
    pub(super) fn is_open(&self) -> bool {
        !self.stop.is_cancelled()
    }

    /// Gives it up; whoever waits gets an error.
    pub(super) fn close(&self) {
        self.stop.cancel();
    }

    /// A request with one reply.
    pub(super) async fn call(&self, request: Vec<u8>) -> Result<Bytes, NetError> {
        let (done, answer) = oneshot::channel();
        let guard = self.submit(request, Waiting::Reply(done)).await?;
        let result = answer.await.unwrap_or_else(|_| Err(self.error()));
        guard.over();
        result
    }

    /// A read of ranges that are exactly so long.
    pub(super) async fn read(&self, request: Vec<u8>, wants: &[usize]) -> Result<Vec<Bytes>, NetError> {
        let (done, answer) = oneshot::channel();
        let waiting = Waiting::Data { places: Places::new(wants), done };
        let guard = self.submit(request, waiting).await?;
        let result = answer.await.unwrap_or_else(|_| Err(self.error()));
        guard.over();
        result
    }

    /// A push; its data is sent with [`Submitted::data`].
    pub(super) async fn push(
        &self,
        request: Vec<u8>,
    ) -> Result<(Submitted<'_>, mpsc::Receiver<PushEvent>), NetError> {
        let (sender, events) = mpsc::channel(PUSH_EVENTS_MAX);
        Ok((self.submit(request, Waiting::Push(sender)).await?, events))
    }

    async fn submit(&self, request: Vec<u8>, waiting: Waiting) -> Result<Submitted<'_>, NetError> {
        let permit = tokio::select! {
            permit = self.inflight.clone().acquire_owned() => permit.map_err(|_| self.error())?,
            () = self.stop.cancelled() => return Err(self.error()),
        };
        let id = {
            let mut table = self.table.lock();
            if let Some(error) = &table.failed {
                return Err(error.clone());
            }
            // Numbers come around after 2^32 requests; one may still be in use by then.
            while table.entries.contains_key(&table.next) {
                table.next = table.next.wrapping_add(1);
            }
            let id = table.next;
            table.next = id.wrapping_add(1);
            table.entries.insert(id, Entry { waiting, _permit: permit });
            id
        };
        let mut guard = Submitted { lane: self, id, sent: false, over: false };
        let frame = Frame::new(FrameKind::Request, id, &request)
            .ok_or_else(|| NetError::Invalid("the request is too long".into()));
        match frame {
            Ok(frame) => self.send(frame).await?,
            Err(e) => return Err(e),
        }
        guard.sent = true;
        Ok(guard)
    }

    async fn send(&self, frame: Frame) -> Result<(), NetError> {
        tokio::select! {
            result = self.frames.send(Outgoing { frame, _held: () }) => result.map_err(|_| self.error()),
            () = self.stop.cancelled() => Err(self.error()),
        }
    }

    fn error(&self) -> NetError {
        self.table
            .lock()
            .failed
            .clone()
            .unwrap_or_else(|| NetError::Disconnected("the stream was closed".into()))
    }
}

/// A request under way. Dropped before it is over, it is cancelled.
pub(super) struct Submitted<'a> {
    lane: &'a Lane,
    id: u32,
    sent: bool,
    over: bool,
}

impl Submitted<'_> {
    /// Sends a piece of a push; `buffer` came from [`Frame::buffer`].
    pub(super) async fn data(&self, buffer: Vec<u8>) -> Result<(), NetError> {
        let frame = Frame::finish(FrameKind::Data, self.id, buffer)
            .ok_or_else(|| NetError::Invalid("a piece of a push is empty or too long".into()))?;
        self.lane.send(frame).await
    }

    /// Says that a push is complete.
    pub(super) async fn end(&self) -> Result<(), NetError> {
        let frame = Frame::new(FrameKind::End, self.id, &[]);
        self.lane.send(frame.ok_or(NetError::Closed)?).await
    }

    /// The answer was taken.
    pub(super) fn over(mut self) {
        self.over = true;
    }
}

impl Drop for Submitted<'_> {
    fn drop(&mut self) {
        if self.over {
            return;
        }
        let mut table = self.lane.table.lock();
        let Some(entry) = table.entries.get_mut(&self.id) else { return };
        if !self.sent {
            table.entries.remove(&self.id);
            return;
        }
        entry.waiting = Waiting::Cancelled;
        drop(table);
        if let Some(frame) = Frame::new(FrameKind::Cancel, self.id, &[]) {
            // With a full channel the cancel is lost, which costs the bytes and nothing else.
            let _ = self.lane.frames.try_send(Outgoing { frame, _held: () });
        }
    }
}

/// The connection under a stream is gone or going.
pub(super) fn way_ended() -> NetError {
    NetError::Disconnected("the connection ended".into())
}

async fn read_loop<R: AsyncRead + Unpin>(
    reader: &mut R,
    table: &Mutex<Table>,
    counters: &Counters,
) -> NetError {
    loop {
        let step = async {
            let header = io::read_header(reader, None).await.map_err(stream_error)?;
            on_frame(reader, table, &header).await?;
            counters.add_received(header.payload + crate::wire::frame::HEADER_BYTES);
            Ok(())
        };
        if let Err(error) = step.await {
            return error;
        }
    }
}

async fn on_frame<R: AsyncRead + Unpin>(
    reader: &mut R,
    table: &Mutex<Table>,
    header: &Header,
) -> Result<(), NetError> {
    let broken = |what: &str| NetError::Protocol(format!("{what} (request {})", header.request));
    if header.kind == FrameKind::Data {
        return on_data(reader, table, header).await;
    }
    let payload = Bytes::from(io::read_payload(reader, header).await.map_err(stream_error)?);
    let mut table = table.lock();
    let Some(entry) = table.entries.get_mut(&header.request) else {
        return Err(broken("a frame that nobody asked for"));
    };
    if header.kind == FrameKind::Go {
        return match &entry.waiting {
            Waiting::Cancelled => Ok(()),
            Waiting::Push(events) => {
                events.try_send(PushEvent::Go(payload)).or_else(|e| match e {
                    // The pusher has just left.
                    mpsc::error::TrySendError::Closed(_) => Ok(()),
                    mpsc::error::TrySendError::Full(_) => Err(broken("more than one go")),
                })
            }
            _ => Err(broken("a go outside a push")),
        };
    }
    let Some(entry) = table.entries.remove(&header.request) else { return Ok(()) };
    drop(table);
    let result = match header.kind {
        FrameKind::Reply | FrameKind::End => Ok(payload),
        FrameKind::Error => Err(decode_error(&payload)?),
        _ => return Err(broken("a frame that only a client sends")),
    };
    finish(entry.waiting, header.kind, result).map_err(broken)
}

/// Ends a request; says what is wrong when it ends in a way that its kind does not allow.
fn finish(waiting: Waiting, kind: FrameKind, result: Result<Bytes, NetError>) -> Result<(), &'static str> {
    match waiting {
        Waiting::Cancelled => {}
        Waiting::Reply(done) => {
            if kind == FrameKind::End {
                return Err("an end in place of a reply");
            }
            let _ = done.send(result);
        }
        Waiting::Push(events) => {
            if kind == FrameKind::End {
                return Err("an end in place of a receipt");
            }
            let _ = events.try_send(PushEvent::Over(result));
        }
        Waiting::Data { places, done } => {
            let result = match result {
                Err(e) => Err(e),
                Ok(_) if kind == FrameKind::Reply => return Err("a reply in place of data"),
                Ok(_) => places.finish(),
            };
            let _ = done.send(result);
        }
    }
    Ok(())
}

/// Reads a data frame straight into the memory of whoever asked.
async fn on_data<R: AsyncRead + Unpin>(
    reader: &mut R,
    table: &Mutex<Table>,
    header: &Header,
) -> Result<(), NetError> {
    let broken = |what: &str| NetError::Protocol(format!("{what} (request {})", header.request));
    let taken = match table.lock().entries.get_mut(&header.request).map(|e| &mut e.waiting) {
        None => return Err(broken("data that nobody asked for")),
        Some(Waiting::Reply(_) | Waiting::Push(_)) => return Err(broken("data in place of a reply")),
        Some(Waiting::Cancelled) => None,
        Some(Waiting::Data { places, .. }) => {
            if header.payload > places.missing {
                return Err(broken("more data than was asked for"));
            }
            Some(std::mem::take(places))
        }
    };
    // A cancelled request's bytes are read and forgotten.
    let mut filled = taken.unwrap_or_else(|| Places::new(&[header.payload]));
    filled.fill(reader, header.payload).await.map_err(stream_error)?;
    if let Some(Waiting::Data { places, .. }) =
        table.lock().entries.get_mut(&header.request).map(|e| &mut e.waiting)
    {
        *places = filled;
    }
    Ok(())
}

fn decode_error(payload: &[u8]) -> Result<NetError, NetError> {
    let error: WireError = message::decode(payload)?;
    Ok(error.into_net_error())
}

fn fail_all(table: &Mutex<Table>, error: &NetError) {
    let entries = {
        let mut table = table.lock();
        table.failed = Some(error.clone());
        std::mem::take(&mut table.entries)
    };
    for (_, entry) in entries {
        // The kind is of no matter for an error.
        let _ = finish(entry.waiting, FrameKind::Error, Err(error.clone()));
    }
}

pub(super) fn stream_error(error: FrameError) -> NetError {
    match error {
        FrameError::Ended => NetError::Disconnected("the peer closed the stream".into()),
        FrameError::Io(e) => NetError::Disconnected(codec::shorten(&e.to_string())),
        FrameError::Idle | FrameError::TooSlow => NetError::Disconnected("the stream stalled".into()),
        e @ (FrameError::Kind(_) | FrameError::Length(_)) => NetError::Protocol(e.to_string()),
    }
}

/// The first exchange on a stream, before it becomes a lane.
pub(super) async fn first_exchange<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut S,
    request: &[u8],
    wait: Duration,
    counters: &Counters,
) -> Result<Bytes, NetError> {
    let frame = Frame::new(FrameKind::Request, 0, request).ok_or(NetError::Closed)?;
    io::write_flush(stream, &frame, counters).await.map_err(stream_error)?;
    let header = io::read_header(stream, Some(wait)).await.map_err(|e| match e {
        FrameError::Idle => NetError::Timeout(wait),
        e => stream_error(e),
    })?;
    let payload = io::read_payload(stream, &header).await.map_err(stream_error)?;
    match (header.kind, header.request) {
        (FrameKind::Reply, 0) => Ok(Bytes::from(payload)),
        (FrameKind::Error, 0) => Err(decode_error(&payload)?),
        _ => Err(NetError::Protocol("a stream that begins with something else than an answer".into())),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[tokio::test]
    async fn each_range_comes_in_memory_of_its_own_however_frames_lie() {
        let bytes: Vec<u8> = (0..9).collect();
        for frames in [[9, 0, 0], [1, 7, 1], [3, 5, 1], [4, 4, 1], [2, 2, 5]] {
            let (mut places, mut reader) = (Places::new(&[3, 5, 1]), bytes.as_slice());
            let mut rest = 9;
            for frame in frames {
                places.fill(&mut reader, frame).await.unwrap();
                rest -= frame;
                assert_eq!(places.missing, rest);
            }
            let parts = places.finish().unwrap();
            assert_eq!(parts, [&bytes[..3], &bytes[3..8], &bytes[8..]]);
            assert!(parts.iter().all(Bytes::is_unique), "or whoever unmasks a block copies it first");
        }
        let mut places = Places::new(&[3, 5]);
        places.fill(&mut bytes.as_slice(), 7).await.unwrap();
        assert!(matches!(places.finish(), Err(NetError::Protocol(_))), "one byte is missing");
    }
}
