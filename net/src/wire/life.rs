//! Whether anything moves on the streams of a session.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use futures::{AsyncRead, AsyncWrite};
use tokio::time::Instant;

/// When something moved last, and since when an answer is waited for with nothing coming.
pub(crate) struct Life {
    begun: Instant,
    /// Milliseconds after `begun`.
    moved_ms: AtomicU64,
    /// The same of the first question after that; 0: there was none.
    asked_ms: AtomicU64,
}

impl Life {
    pub(crate) fn new() -> Life {
        Life { begun: Instant::now(), moved_ms: AtomicU64::new(0), asked_ms: AtomicU64::new(0) }
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Bytes moved.
    pub(crate) fn moved(&self) {
        self.moved_ms.store(self.now_ms(), Ordering::Relaxed);
        self.asked_ms.store(0, Ordering::Relaxed);
    }

    /// An answer is waited for from now on.
    pub(crate) fn asked(&self) {
        let now = self.now_ms().max(1);
        let _ = self.asked_ms.compare_exchange(0, now, Ordering::Relaxed, Ordering::Relaxed);
    }

    /// How long nothing has moved.
    pub(crate) fn still(&self) -> Duration {
        Duration::from_millis(self.now_ms().saturating_sub(self.moved_ms.load(Ordering::Relaxed)))
    }

    /// How long an answer has been waited for with nothing moving.
    pub(crate) fn unanswered(&self) -> Duration {
        match self.asked_ms.load(Ordering::Relaxed) {
            0 => Duration::ZERO,
            asked => Duration::from_millis(self.now_ms().saturating_sub(asked)),
        }
    }
}

/// Which way bytes must go to be a sign of life.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Counts {
    /// What comes. A few bytes may leave toward a peer that is long gone.
    Reads,
    /// What leaves as well: where much is sent, the transport soon takes no more for a peer that is gone.
    Both,
}

/// A stream whose bytes are a sign of life.
pub(crate) struct Living<S> {
    stream: S,
    life: Arc<Life>,
    counts: Counts,
}

impl<S> Living<S> {
    pub(crate) fn new(stream: S, life: Arc<Life>, counts: Counts) -> Living<S> {
        Living { stream, life, counts }
    }

    fn note(&self, moved: &Poll<io::Result<usize>>) {
        if matches!(moved, Poll::Ready(Ok(bytes)) if *bytes > 0) {
            self.life.moved();
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Living<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let read = Pin::new(&mut this.stream).poll_read(context, buffer);
        this.note(&read);
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Living<S> {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = Pin::new(&mut this.stream).poll_write(context, buffer);
        if this.counts == Counts::Both {
            this.note(&written);
        }
        written
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(context)
    }

    fn poll_close(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_close(context)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use futures::io::Cursor;
    use futures::{AsyncReadExt, AsyncWriteExt};

    #[tokio::test]
    async fn only_what_counts_is_a_sign_of_life() {
        const PAUSE: Duration = Duration::from_millis(40);
        let life = Arc::new(Life::new());
        tokio::time::sleep(PAUSE).await;
        assert!(life.still() >= PAUSE / 2);
        assert_eq!(life.unanswered(), Duration::ZERO, "nobody asked");
        life.asked();
        tokio::time::sleep(PAUSE).await;
        life.asked();
        assert!(life.unanswered() >= PAUSE / 2, "the first question counts");

        let mut stream = Living::new(Cursor::new(vec![0; 100]), life.clone(), Counts::Reads);
        stream.write_all(&[1; 10]).await.unwrap();
        assert!(life.unanswered() >= PAUSE / 2, "what leaves is not heard");
        stream.read_exact(&mut [0; 10]).await.unwrap();
        assert_eq!(life.unanswered(), Duration::ZERO);
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).await.unwrap();
        life.asked();
        tokio::time::sleep(PAUSE).await;
        assert_eq!(stream.read(&mut [0; 10]).await.unwrap(), 0);
        assert!(life.unanswered() >= PAUSE / 2, "an end is no sign of life");

        let mut stream = Living::new(Cursor::new(vec![0; 100]), life.clone(), Counts::Both);
        stream.write_all(&[1; 10]).await.unwrap();
        assert_eq!(life.unanswered(), Duration::ZERO);
    }
}
