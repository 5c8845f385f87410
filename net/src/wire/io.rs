//! Frames over a stream, with time.
//!
//! A frame that has begun must go on at 8 KiB/s on average after a grace of 30 s: a slow link manages, a peer that
//! feeds a byte now and then does not.

use std::time::Duration;

use futures::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, FutureExt};
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::frame::{Frame, FrameError, HEADER_BYTES, Header};
use super::limits::FRAME_TIMEOUT;
use crate::node::Counters;

const BYTES_PER_SECOND_MIN: usize = 8 << 10;

/// How long a frame of this length may take.
pub(crate) fn frame_time(payload: usize) -> Duration {
    FRAME_TIMEOUT + Duration::from_secs((payload / BYTES_PER_SECOND_MIN) as u64)
}

/// Reads a header; waits `idle` for its first byte (`None`: as long as the stream lives).
pub(crate) async fn read_header<R: AsyncRead + Unpin>(
    stream: &mut R,
    idle: Option<Duration>,
) -> Result<Header, FrameError> {
    let mut bytes = [0u8; HEADER_BYTES];
    let (first, rest) = bytes.split_at_mut(1);
    let got = match idle {
        Some(idle) => timeout(idle, stream.read(first)).await.map_err(|_| FrameError::Idle)?,
        None => stream.read(first).await,
    };
    if got.map_err(FrameError::Io)? == 0 {
        return Err(FrameError::Ended);
    }
    read_exact(stream, rest).await?;
    Header::decode(&bytes)
}

/// Fills `buf`, in time.
pub(crate) async fn read_exact<R: AsyncRead + Unpin>(
    stream: &mut R,
    buf: &mut [u8],
) -> Result<(), FrameError> {
    match timeout(frame_time(buf.len()), stream.read_exact(buf)).await {
        Err(_) => Err(FrameError::TooSlow),
        Ok(result) => result.map_err(FrameError::Io),
    }
}

/// Reads a frame's payload.
pub(crate) async fn read_payload<R: AsyncRead + Unpin>(
    stream: &mut R,
    header: &Header,
) -> Result<Vec<u8>, FrameError> {
    let mut payload = vec![0u8; header.payload];
    read_exact(stream, &mut payload).await?;
    Ok(payload)
}

/// Writes one frame and flushes it, in time.
pub(crate) async fn write_flush<W: AsyncWrite + Unpin>(
    stream: &mut W,
    frame: &Frame,
    counters: &Counters,
) -> Result<(), FrameError> {
    let write = async {
        stream.write_all(frame.encoded()).await?;
        stream.flush().await
    };
    timeout(frame_time(frame.encoded().len()), write)
        .await
        .map_err(|_| FrameError::TooSlow)?
        .map_err(FrameError::Io)?;
    counters.add_sent(frame.encoded().len());
    Ok(())
}

/// A frame on its way out; what it carries beside is dropped once it was written.
pub(crate) struct Outgoing<T> {
    pub(crate) frame: Frame,
    pub(crate) _held: T,
}

/// Writes what comes through the channel until it closes or a write fails; flushes when there is nothing more to
/// write at once.
pub(crate) async fn write_all<W: AsyncWrite + Unpin, T>(
    stream: &mut W,
    frames: &mut mpsc::Receiver<Outgoing<T>>,
    counters: &Counters,
) -> Result<(), FrameError> {
    while let Some(mut out) = frames.recv().await {
        loop {
            let len = out.frame.encoded().len();
            timeout(frame_time(len), stream.write_all(out.frame.encoded()))
                .await
                .map_err(|_| FrameError::TooSlow)?
                .map_err(FrameError::Io)?;
            counters.add_sent(len);
            match frames.recv().now_or_never() {
                Some(Some(next)) => out = next,
                // Closed or empty: what was written must leave now.
                _ => break,
            }
        }
        timeout(FRAME_TIMEOUT, stream.flush())
            .await
            .map_err(|_| FrameError::TooSlow)?
            .map_err(FrameError::Io)?;
    }
    let _ = timeout(FRAME_TIMEOUT, stream.close()).await;
    Ok(())
}
