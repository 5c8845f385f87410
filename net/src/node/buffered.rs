//! A connection's bytes, taken from the system many at a time.
//!
//! Noise asks for 8 KiB at once however much has come, and each time the system is called. Owns: one buffer for each connection, which grows with what comes at
//! once, up to [`BUFFER_BYTES_MAX`]. Promises: the bytes in order, and none is held back. What is written passes through.

use std::io::{self, IoSlice};
use std::ops::Range;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures::{AsyncRead, AsyncWrite};

/// What a connection begins with: most never carry more than some messages.
const BUFFER_BYTES_MIN: usize = 8 << 10;
/// Two of Noise's frames.
const BUFFER_BYTES_MAX: usize = 128 << 10;

/// See the module.
pub(super) struct Buffered<S> {
    stream: S,
    buffer: Vec<u8>,
    /// What of the buffer came and was not given yet.
    held: Range<usize>,
}

impl<S> Buffered<S> {
    pub(super) fn new(stream: S) -> Self {
        Self { stream, buffer: Vec::new(), held: 0..0 }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Buffered<S> {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, out: &mut [u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.held.is_empty() {
            if this.held.end == this.buffer.len() {
                // The last one filled it: there may be more.
                let len = (this.buffer.len() * 2).clamp(BUFFER_BYTES_MIN, BUFFER_BYTES_MAX);
                this.buffer.resize(len, 0);
            }
            this.held = 0..0;
            this.held.end = ready!(Pin::new(&mut this.stream).poll_read(context, &mut this.buffer))?;
        }
        let from = this.buffer.get(this.held.clone()).unwrap_or_default();
        let n = from.len().min(out.len());
        let (from, _) = from.split_at(n);
        out.split_at_mut(n).0.copy_from_slice(from);
        this.held.start += n;
        Poll::Ready(Ok(n))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Buffered<S> {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write_vectored(context, parts)
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
    use futures::executor::block_on;
    use futures::task::noop_waker_ref;
    use futures::{AsyncReadExt, AsyncWriteExt};

    /// Gives what it has in parts of these lengths, with a pause before each; notes how much was asked for.
    struct Parts {
        bytes: Vec<u8>,
        lens: Vec<usize>,
        paused: bool,
        asked: Vec<usize>,
        written: Vec<u8>,
    }

    impl Parts {
        fn new(bytes: Vec<u8>, lens: &[usize]) -> Self {
            let lens = lens.iter().rev().copied().collect();
            Self { bytes, lens, paused: false, asked: Vec::new(), written: Vec::new() }
        }
    }

    impl AsyncRead for Parts {
        fn poll_read(
            mut self: Pin<&mut Self>,
            context: &mut Context<'_>,
            out: &mut [u8],
        ) -> Poll<io::Result<usize>> {
            self.paused = !self.paused;
            if self.paused {
                context.waker().wake_by_ref();
                return Poll::Pending;
            }
            self.asked.push(out.len());
            let n = self.lens.pop().unwrap_or(usize::MAX).min(out.len()).min(self.bytes.len());
            out[..n].copy_from_slice(&self.bytes[..n]);
            self.bytes.drain(..n);
            Poll::Ready(Ok(n))
        }
    }

    impl AsyncWrite for Parts {
        fn poll_write(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            bytes: &[u8],
        ) -> Poll<io::Result<usize>> {
            self.written.extend_from_slice(bytes);
            Poll::Ready(Ok(bytes.len()))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    #[test]
    fn bytes_come_in_order_and_the_buffer_grows_with_what_comes_at_once() {
        let bytes: Vec<u8> = (0..900_000u32).map(|n| (n % 251) as u8).collect();
        let mut stream = Buffered::new(Parts::new(bytes.clone(), &[100, 8 << 10, 3]));
        let (mut all, mut part) = (Vec::new(), [0; 5000]);
        loop {
            match block_on(stream.read(&mut part)).unwrap() {
                0 => break,
                n => all.extend_from_slice(&part[..n]),
            }
        }
        assert!(all == bytes, "{} bytes", all.len());
        let asked = &stream.stream.asked;
        // Nothing grew but by a read that filled it, and not beyond the bound.
        assert_eq!(asked[..6], [8 << 10, 8 << 10, 16 << 10, 16 << 10, 32 << 10, 64 << 10]);
        assert!(asked[6..].iter().all(|len| *len == BUFFER_BYTES_MAX));
        assert!(asked.len() < 16, "900 kB in {} reads", asked.len());
        block_on(stream.write_all(b"passes")).unwrap();
        assert_eq!(stream.stream.written, b"passes");
    }

    #[test]
    fn what_came_is_given_at_once() {
        let mut stream = Buffered::new(Parts::new(vec![1; 10], &[7]));
        let mut context = Context::from_waker(noop_waker_ref());
        let mut out = [0; 100];
        let mut read = |stream: &mut Buffered<Parts>| Pin::new(stream).poll_read(&mut context, &mut out);
        assert!(read(&mut stream).is_pending());
        assert!(matches!(read(&mut stream), Poll::Ready(Ok(7))), "not kept until more has come");
        assert!(read(&mut stream).is_pending());
        assert!(matches!(read(&mut stream), Poll::Ready(Ok(3))));
        assert_eq!(stream.buffer.len(), BUFFER_BYTES_MIN, "waiting is no reason to grow");
    }
}
