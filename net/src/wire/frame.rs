//! Frames: a length, a kind, a request's number, a payload.
//!
//! ```text
//! 0        4      5          9
//! | length | kind | request  | payload ...        length counts what follows it: 5 to 5 + 1 MiB
//! ```

use bytes::Bytes;
use futures::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::limits::FRAME_PAYLOAD_BYTES_MAX;

/// Bytes before the payload.
pub const HEADER_BYTES: usize = 9;
/// Of the header, those that `length` counts.
const COUNTED: usize = 5;

/// What a frame is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum FrameKind {
    /// A request.
    Request = 1,
    /// The answer; ends the request.
    Reply = 2,
    /// A refusal; ends the request.
    Error = 3,
    /// Raw bytes.
    Data = 4,
    /// No more data; from the provider it ends the request.
    End = 5,
    /// The client lost interest.
    Cancel = 6,
    /// A push may begin.
    Go = 7,
}

impl FrameKind {
    fn from_number(number: u8) -> Option<FrameKind> {
        Some(match number {
            1 => FrameKind::Request,
            2 => FrameKind::Reply,
            3 => FrameKind::Error,
            4 => FrameKind::Data,
            5 => FrameKind::End,
            6 => FrameKind::Cancel,
            7 => FrameKind::Go,
            _ => return None,
        })
    }

    /// The length that this kind allows.
    fn allows(self, payload: usize) -> bool {
        match self {
            FrameKind::End | FrameKind::Cancel => payload == 0,
            _ => (1..=FRAME_PAYLOAD_BYTES_MAX).contains(&payload),
        }
    }
}

/// A frame's first nine bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// What it is.
    pub kind: FrameKind,
    /// Whose.
    pub request: u32,
    /// Bytes of payload that follow.
    pub payload: usize,
}

impl Header {
    /// A header; `None` when the kind does not allow the length.
    pub fn new(kind: FrameKind, request: u32, payload: usize) -> Option<Header> {
        kind.allows(payload).then_some(Header { kind, request, payload })
    }

    /// As on the wire.
    pub fn encode(&self) -> [u8; HEADER_BYTES] {
        // `allows` keeps the payload at 1 MiB at most.
        let [a, b, c, d] = ((self.payload + COUNTED) as u32).to_be_bytes();
        let [e, f, g, h] = self.request.to_be_bytes();
        [a, b, c, d, self.kind as u8, e, f, g, h]
    }

    /// Reads nine bytes.
    pub fn decode(bytes: &[u8; HEADER_BYTES]) -> Result<Header, FrameError> {
        let [a, b, c, d, kind, e, f, g, h] = *bytes;
        let length = u32::from_be_bytes([a, b, c, d]) as usize;
        let kind = FrameKind::from_number(kind).ok_or(FrameError::Kind(kind))?;
        let payload = length.checked_sub(COUNTED).ok_or(FrameError::Length(length))?;
        Header::new(kind, u32::from_be_bytes([e, f, g, h]), payload).ok_or(FrameError::Length(length))
    }
}

/// Why a stream is given up.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// The stream ended between two frames.
    #[error("the stream ended")]
    Ended,
    /// The stream broke, or ended in the middle of a frame.
    #[error("the stream broke: {0}")]
    Io(std::io::Error),
    /// No frame began in time.
    #[error("the stream was idle")]
    Idle,
    /// A frame that had begun did not end in time, or could not be written.
    #[error("the stream stalled")]
    TooSlow,
    /// A kind of frame that does not exist.
    #[error("frame of unknown kind {0}")]
    Kind(u8),
    /// A length that its kind does not allow.
    #[error("frame of length {0}")]
    Length(usize),
}

/// A whole frame, encoded: header and payload in one buffer, so that it is one write.
#[derive(Debug, Clone)]
pub struct Frame {
    header: Header,
    encoded: Bytes,
}

impl Frame {
    /// A frame with this payload; `None` when the kind does not allow its length.
    pub fn new(kind: FrameKind, request: u32, payload: &[u8]) -> Option<Frame> {
        let mut buffer = Frame::buffer(payload.len());
        buffer.extend_from_slice(payload);
        Frame::finish(kind, request, buffer)
    }

    /// A buffer for [`Frame::finish`], with the header's place left at its beginning.
    pub fn buffer(payload: usize) -> Vec<u8> {
        let mut buffer = Vec::with_capacity(HEADER_BYTES + payload);
        buffer.resize(HEADER_BYTES, 0);
        buffer
    }

    /// Writes the header into a buffer whose payload begins at [`HEADER_BYTES`].
    pub fn finish(kind: FrameKind, request: u32, mut buffer: Vec<u8>) -> Option<Frame> {
        let header = Header::new(kind, request, buffer.len().checked_sub(HEADER_BYTES)?)?;
        buffer.get_mut(..HEADER_BYTES)?.copy_from_slice(&header.encode());
        Some(Frame { header, encoded: Bytes::from(buffer) })
    }

    /// What it is.
    pub fn kind(&self) -> FrameKind {
        self.header.kind
    }

    /// Whose.
    pub fn request(&self) -> u32 {
        self.header.request
    }

    /// The payload.
    pub fn payload(&self) -> Bytes {
        self.encoded.slice(HEADER_BYTES..)
    }

    /// As on the wire.
    pub fn encoded(&self) -> &Bytes {
        &self.encoded
    }
}

/// Reads a header. Waits as long as the stream does: deadlines are the caller's.
pub async fn read_header<R: AsyncRead + Unpin>(stream: &mut R) -> Result<Header, FrameError> {
    let mut bytes = [0u8; HEADER_BYTES];
    let (first, rest) = bytes.split_at_mut(1);
    if stream.read(first).await.map_err(FrameError::Io)? == 0 {
        return Err(FrameError::Ended);
    }
    stream.read_exact(rest).await.map_err(FrameError::Io)?;
    Header::decode(&bytes)
}

/// Reads a whole frame.
pub async fn read_frame<R: AsyncRead + Unpin>(stream: &mut R) -> Result<Frame, FrameError> {
    let header = read_header(stream).await?;
    let mut buffer = Frame::buffer(header.payload);
    buffer.extend_from_slice(&header.encode());
    buffer.drain(..HEADER_BYTES);
    buffer.resize(HEADER_BYTES + header.payload, 0);
    stream.read_exact(buffer.split_at_mut(HEADER_BYTES).1).await.map_err(FrameError::Io)?;
    Ok(Frame { header, encoded: Bytes::from(buffer) })
}

/// Writes a frame; flushing is the caller's.
pub async fn write_frame<W: AsyncWrite + Unpin>(stream: &mut W, frame: &Frame) -> std::io::Result<()> {
    stream.write_all(frame.encoded()).await
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use futures::executor::block_on;
    use futures::io::Cursor;
    use proptest::prelude::*;

    #[test]
    fn golden() {
        let frame = Frame::new(FrameKind::Data, 0x01020304, b"abc").unwrap();
        assert_eq!(frame.encoded().as_ref(), [0, 0, 0, 8, 4, 1, 2, 3, 4, b'a', b'b', b'c']);
        let frame = Frame::new(FrameKind::End, 7, b"").unwrap();
        assert_eq!(frame.encoded().as_ref(), [0, 0, 0, 5, 5, 0, 0, 0, 7]);
    }

    #[test]
    fn lengths_are_held() {
        assert!(Frame::new(FrameKind::End, 1, b"x").is_none());
        assert!(Frame::new(FrameKind::Data, 1, b"").is_none());
        assert!(Frame::new(FrameKind::Data, 1, &vec![0; FRAME_PAYLOAD_BYTES_MAX]).is_some());
        assert!(Frame::new(FrameKind::Data, 1, &vec![0; FRAME_PAYLOAD_BYTES_MAX + 1]).is_none());
        let huge = [0xff, 0xff, 0xff, 0xff, 4, 0, 0, 0, 1];
        assert!(matches!(Header::decode(&huge), Err(FrameError::Length(_))));
        assert!(matches!(Header::decode(&[0, 0, 0, 4, 1, 0, 0, 0, 0]), Err(FrameError::Length(4))));
        assert!(matches!(Header::decode(&[0, 0, 0, 6, 8, 0, 0, 0, 0]), Err(FrameError::Kind(8))));
    }

    proptest! {
        #[test]
        fn round_trip(request: u32, payload in proptest::collection::vec(any::<u8>(), 1..3000)) {
            for kind in [FrameKind::Request, FrameKind::Reply, FrameKind::Error, FrameKind::Data, FrameKind::Go] {
                let frame = Frame::new(kind, request, &payload).unwrap();
                let back = block_on(read_frame(&mut Cursor::new(frame.encoded()))).unwrap();
                prop_assert_eq!(back.kind(), kind);
                prop_assert_eq!(back.request(), request);
                prop_assert_eq!(back.payload(), payload.as_slice());
                prop_assert_eq!(back.encoded(), frame.encoded());
                // A frame cut short is an error, at every place.
                for cut in [0, 1, 8, 9, frame.encoded().len() - 1] {
                    prop_assert!(block_on(read_frame(&mut Cursor::new(&frame.encoded()[..cut]))).is_err());
                }
            }
        }

        #[test]
        fn any_bytes_are_a_frame_or_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            let _ = block_on(read_frame(&mut Cursor::new(bytes)));
        }
    }
}
