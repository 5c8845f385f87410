//! Pushing a slot: from where the provider has it, until it signs for it.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};

use super::carrier::PushTimes;
use super::lane::{Lane, PushEvent, Submitted};
use super::link::{Link, unexpected};
use super::session::{Session, verified_receipt};
use crate::codec;
use crate::deal::{PieceSource, SignedProposal, SignedReceipt};
use crate::error::{ErrorCode, NetError};
use crate::wire::frame::Frame;
use crate::wire::limits::DATA_FRAME_BYTES;
use crate::wire::message::{self, DataRequest, Reply};

/// Pieces read ahead of the stream.
const READ_AHEAD_FRAMES: usize = 4;
/// Between two attempts that were cut off.
const RETRY_PAUSE: Duration = Duration::from_millis(250);

/// How one attempt ended.
enum Attempt {
    Receipt(SignedReceipt),
    /// Cut off after the provider had so much.
    Cut(NetError),
}

impl Session {
    /// Sends the slot of a taken deal and returns the verified receipt. Goes on where the provider stands, across
    /// broken connections and restarts of either side; a slot that is already there costs nothing.
    /// `progress` is told how many bytes the provider was sent or had.
    pub async fn push(
        &self,
        proposal: &SignedProposal,
        source: Arc<dyn PieceSource>,
        progress: impl Fn(u64) + Send + Sync,
    ) -> Result<SignedReceipt, NetError> {
        if source.len() != proposal.proposal().raw_len {
            return Err(NetError::Invalid("the source is not as long as the deal's slot".into()));
        }
        let config = &self.inner.config;
        let mut furthest = 0;
        let mut cuts = 0;
        let mut mismatches = 0;
        loop {
            let mut reached = 0;
            let note = |at: u64, reached: &mut u64| {
                *reached = (*reached).max(at);
                progress(at);
            };
            let error = match self.push_once(proposal, &source, &mut |at| note(at, &mut reached)).await {
                Ok(Attempt::Receipt(receipt)) => return Ok(receipt),
                Ok(Attempt::Cut(error)) | Err(error) => error,
            };
            match &error {
                // Perhaps what a power cut left of an earlier attempt; from zero it is ours alone.
                NetError::Refused { code: ErrorCode::PieceMismatch, .. } if mismatches == 0 => {
                    mismatches += 1
                }
                // The provider has not noticed yet that our last connection is gone, or it is going down (which ends the
                // session that the push belongs to) and may come back.
                NetError::Disconnected(_)
                | NetError::Refused {
                    code:
                        ErrorCode::PushRunning
                        | ErrorCode::Busy
                        | ErrorCode::Cancelled
                        | ErrorCode::ShuttingDown
                        | ErrorCode::TooSlow,
                    ..
                } => {
                    if reached > furthest {
                        furthest = reached;
                        cuts = 0;
                    }
                    cuts += 1;
                    if cuts >= config.push_attempts_max {
                        return Err(error);
                    }
                    tokio::time::sleep(RETRY_PAUSE * cuts).await;
                }
                _ => return Err(error),
            }
        }
    }

    async fn push_once(
        &self,
        proposal: &SignedProposal,
        source: &Arc<dyn PieceSource>,
        progress: &mut (dyn FnMut(u64) + Send),
    ) -> Result<Attempt, NetError> {
        let config = &self.inner.config;
        let times = PushTimes { stall: config.push_stall_timeout, receipt: config.receipt_timeout };
        let link = self.link(Instant::now() + config.connect_timeout, config.connect_timeout).await?;
        match link.push(proposal, source, times, progress).await {
            Ok(receipt) => Ok(Attempt::Receipt(verified_receipt(&receipt, proposal)?)),
            Err(NetError::Disconnected(why)) => Ok(Attempt::Cut(NetError::Disconnected(why))),
            Err(error) => Err(error),
        }
    }
}

/// One attempt on a lane of its own.
pub(super) async fn push_on(
    link: &Link,
    proposal: &SignedProposal,
    source: &Arc<dyn PieceSource>,
    times: PushTimes,
    progress: &mut (dyn FnMut(u64) + Send),
) -> Result<Vec<u8>, NetError> {
    let (lane, _permit) = link.push_lane().await?;
    let over = push_over(&lane, proposal, source, (times.stall, times.receipt), progress).await;
    // A request that was refused ended in order, and the stream is good. Any other stream ends here; the others, and the session,
    // do not suffer for one push.
    if matches!(over, Ok(_) | Err(NetError::Refused { .. })) {
        link.give_back(lane);
    }
    over
}

/// One push on one lane; returns the receipt's bytes.
async fn push_over(
    lane: &Lane,
    proposal: &SignedProposal,
    source: &Arc<dyn PieceSource>,
    (stall, receipt_time): (Duration, Duration),
    progress: &mut (dyn FnMut(u64) + Send),
) -> Result<Vec<u8>, NetError> {
    let request = codec::encode(&DataRequest::Push { deal: proposal.deal_id() });
    let (submitted, mut events) =
        timeout(stall, lane.push(request)).await.map_err(|_| NetError::Timeout(stall))??;
    let len = proposal.proposal().raw_len;
    // A provider that resumes hashes what it has before it says go.
    let offset = match next_event(&mut events, receipt_time).await? {
        PushEvent::Go(payload) => match message::decode(&payload)? {
            Reply::Go { offset } if offset <= len => offset,
            Reply::Go { .. } => return Err(NetError::Protocol("wants more than the slot has".into())),
            _ => return Err(unexpected("push")),
        },
        PushEvent::Over(result) => {
            let receipt = receipt_of(&result?)?;
            submitted.over();
            progress(len);
            return Ok(receipt);
        }
    };
    progress(offset);
    match send_rest(&submitted, source, (offset, len), stall, &mut events, progress).await? {
        Some(early) => {
            submitted.over();
            return receipt_of(&early);
        }
        None => submitted.end().await?,
    }
    let last = match next_event(&mut events, receipt_time).await? {
        PushEvent::Over(result) => {
            submitted.over();
            result?
        }
        PushEvent::Go(_) => return Err(NetError::Protocol("a second go".into())),
    };
    receipt_of(&last)
}

/// Sends everything from the offset; an answer that comes before the end stops it.
async fn send_rest(
    submitted: &Submitted<'_>,
    source: &Arc<dyn PieceSource>,
    (offset, len): (u64, u64),
    stall: Duration,
    events: &mut mpsc::Receiver<PushEvent>,
    progress: &mut (dyn FnMut(u64) + Send),
) -> Result<Option<Bytes>, NetError> {
    let mut frames = read_ahead(source.clone(), offset, len);
    let mut sent = offset;
    loop {
        let step = async {
            match frames.recv().await {
                Some(Ok(buffer)) => {
                    let bytes = buffer.len().saturating_sub(crate::wire::frame::HEADER_BYTES);
                    submitted.data(buffer).await?;
                    Ok(Some(bytes as u64))
                }
                Some(Err(e)) => Err(NetError::Local(format!("cannot read the piece: {e}"))),
                None => Ok(None),
            }
        };
        tokio::select! {
            biased;
            event = events.recv() => return match event {
                Some(PushEvent::Over(Ok(payload))) => Ok(Some(payload)),
                Some(PushEvent::Over(Err(e))) => Err(e),
                Some(PushEvent::Go(_)) => Err(NetError::Protocol("a second go".into())),
                None => Err(NetError::Disconnected("the stream was closed".into())),
            },
            step = timeout(stall, step) => match step.map_err(|_| NetError::Timeout(stall))?? {
                Some(bytes) => {
                    sent += bytes;
                    progress(sent);
                }
                None => return Ok(None),
            },
        }
    }
}

/// Reads the source on a blocking thread, a few frames ahead.
fn read_ahead(
    source: Arc<dyn PieceSource>,
    offset: u64,
    len: u64,
) -> mpsc::Receiver<std::io::Result<Vec<u8>>> {
    let (sender, receiver) = mpsc::channel(READ_AHEAD_FRAMES);
    tokio::task::spawn_blocking(move || {
        let mut at = offset;
        while at < len {
            let want = usize::try_from(len - at).unwrap_or(usize::MAX).min(DATA_FRAME_BYTES);
            let mut buffer = Frame::buffer(want);
            let from = buffer.len();
            buffer.resize(from + want, 0);
            let read = source.read_at(at, buffer.split_at_mut(from).1).map(|()| buffer);
            let failed = read.is_err();
            // The pusher may have left.
            if sender.blocking_send(read).is_err() || failed {
                return;
            }
            at += want as u64;
        }
    });
    receiver
}

async fn next_event(events: &mut mpsc::Receiver<PushEvent>, wait: Duration) -> Result<PushEvent, NetError> {
    match timeout(wait, events.recv()).await {
        Err(_) => Err(NetError::Timeout(wait)),
        Ok(None) => Err(NetError::Disconnected("the stream was closed".into())),
        Ok(Some(event)) => Ok(event),
    }
}

fn receipt_of(payload: &[u8]) -> Result<Vec<u8>, NetError> {
    match message::decode(payload)? {
        Reply::Receipt { receipt } => Ok(receipt),
        _ => Err(unexpected("push")),
    }
}
