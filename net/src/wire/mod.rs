//! The wire: frames and the messages in them, as PROTOCOL.md says.
//!
//! Public, so that tests can build a peer of any character. Nothing here keeps state or knows a peer.

pub mod frame;
pub(crate) mod io;
pub(crate) mod life;
pub mod message;

pub use frame::{Frame, FrameError, FrameKind, read_frame, read_header, write_frame};
pub use message::{DataRequest, Lane, Reply, Request, Ticket, WireError};

use libp2p::StreamProtocol;

/// Small requests.
pub const CONTROL_PROTOCOL: StreamProtocol = StreamProtocol::new("/holdfast/control/1");
/// Bytes.
pub const DATA_PROTOCOL: StreamProtocol = StreamProtocol::new("/holdfast/data/1");
/// The version in `hello`.
pub const WIRE_VERSION: u8 = 1;

/// Limits of the protocol itself; a peer's own may be tighter.
pub mod limits {
    use std::time::Duration;

    /// A frame's payload.
    pub const FRAME_PAYLOAD_BYTES_MAX: usize = 1 << 20;
    /// Data frames that this program sends: small enough that a cancel or another read soon has its turn.
    pub const DATA_FRAME_BYTES: usize = 256 << 10;
    /// Requests under way on one stream.
    pub const INFLIGHT_MAX: u16 = 64;
    /// Ranges in one read.
    pub const RANGES_MAX: u16 = 1024;
    /// Bytes of one read.
    pub const READ_BYTES_MAX: u32 = 16 << 20;
    /// Keys proven in a session.
    pub const KEYS_MAX: usize = 16;
    /// Permits in force in a session.
    pub const PERMITS_MAX: usize = 64;
    /// Deals in one page of holdings.
    pub const HOLDINGS_MAX: u16 = 256;
    /// Characters of an agent string or an error text.
    pub const TEXT_CHARS_MAX: usize = 200;
    /// From a stream's opening to its first request.
    pub const HELLO_TIMEOUT: Duration = Duration::from_secs(10);
    /// From a frame's first byte to its last, and for a write without progress.
    pub const FRAME_TIMEOUT: Duration = Duration::from_secs(30);
    /// A stream with nothing under way.
    pub const IDLE_TIMEOUT: Duration = Duration::from_secs(15 * 60);
    /// A push that sends nothing.
    pub const PUSH_STALL_TIMEOUT: Duration = Duration::from_secs(60);
    /// Over each window of waiting for a push, so many bytes must have come for each second of it.
    pub const PUSH_BYTES_PER_SECOND_MIN: u64 = 8 << 10;
    /// The window.
    pub const PUSH_WINDOW: Duration = Duration::from_secs(5 * 60);
}
