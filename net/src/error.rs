//! What can go wrong between two peers, and what to do about it.

use std::time::Duration;

use crate::codec::CodecError;

/// Why a peer refused or failed a request. The numbers are the wire's, fixed for ever.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u16)]
pub enum ErrorCode {
    /// The request could not be understood.
    Malformed = 1,
    /// Not a request that this version knows.
    Unsupported = 2,
    /// Over one of the peer's limits; try later or with less.
    Busy = 3,
    /// The key was not proven in this session, or does not own the deal.
    Unauthorized = 4,
    /// No such deal or record, and no telling whether there ever was one.
    NotFound = 5,
    /// The deal was taken, but its slot has not been stored.
    NotStored = 6,
    /// A range outside the slot.
    OutOfRange = 7,
    /// The peer's disk or its share is full.
    NoSpace = 8,
    /// The client's quota is used up.
    Quota = 9,
    /// Below the asking price, or the wrong settlement.
    Price = 10,
    /// Start, end or length outside what the peer takes.
    Terms = 11,
    /// The peer's policy does not take this client.
    NotAllowed = 12,
    /// A signature does not verify.
    BadSignature = 13,
    /// The pushed bytes do not have the deal's piece CID.
    PieceMismatch = 14,
    /// The deal ended or was released.
    Ended = 15,
    /// A record that its rules reject.
    BadRecord = 16,
    /// The peer cannot read or write its own disk.
    Storage = 17,
    /// The stored bytes are not those of the deal any more.
    Corrupt = 18,
    /// Settlement says no.
    Settlement = 19,
    /// The peer is going down.
    ShuttingDown = 20,
    /// Another push of this deal is running.
    PushRunning = 21,
    /// The client cancelled the request.
    Cancelled = 22,
    /// The push came in more slowly than a push may, and makes room for others. What came stays: it goes on from there.
    TooSlow = 23,
    /// A head of a term below one that the peer granted to another.
    Overtaken = 24,
}

impl ErrorCode {
    /// Every code, in order.
    pub const ALL: [ErrorCode; 24] = [
        ErrorCode::Malformed,
        ErrorCode::Unsupported,
        ErrorCode::Busy,
        ErrorCode::Unauthorized,
        ErrorCode::NotFound,
        ErrorCode::NotStored,
        ErrorCode::OutOfRange,
        ErrorCode::NoSpace,
        ErrorCode::Quota,
        ErrorCode::Price,
        ErrorCode::Terms,
        ErrorCode::NotAllowed,
        ErrorCode::BadSignature,
        ErrorCode::PieceMismatch,
        ErrorCode::Ended,
        ErrorCode::BadRecord,
        ErrorCode::Storage,
        ErrorCode::Corrupt,
        ErrorCode::Settlement,
        ErrorCode::ShuttingDown,
        ErrorCode::PushRunning,
        ErrorCode::Cancelled,
        ErrorCode::TooSlow,
        ErrorCode::Overtaken,
    ];

    /// The number on the wire.
    pub fn number(self) -> u16 {
        self as u16
    }

    /// The code of a number; `None` for one of a later version.
    pub fn from_number(number: u16) -> Option<ErrorCode> {
        ErrorCode::ALL.get(usize::from(number).checked_sub(1)?).copied()
    }

    /// Whether the same request may succeed later.
    pub fn is_retryable(self) -> bool {
        matches!(
            self,
            ErrorCode::Busy
                | ErrorCode::NoSpace
                | ErrorCode::Quota
                | ErrorCode::Storage
                | ErrorCode::ShuttingDown
                | ErrorCode::PushRunning
                | ErrorCode::TooSlow
        )
    }

    /// Whether it counts against a provider that holds the deal in question.
    ///
    /// A provider that signed a receipt owes the bytes: refusing them, or not knowing the deal, is a fault like a
    /// missed proof.
    pub fn is_fault(self) -> bool {
        matches!(
            self,
            ErrorCode::NotFound
                | ErrorCode::NotStored
                | ErrorCode::Storage
                | ErrorCode::Corrupt
                | ErrorCode::OutOfRange
        )
    }
}

/// Everything that a call into this crate can fail with.
#[derive(Debug, Clone, thiserror::Error)]
pub enum NetError {
    /// Nobody answers under the given addresses.
    #[error("cannot reach the peer: {0}")]
    Unreachable(String),
    /// The connection or stream broke.
    #[error("the connection was lost: {0}")]
    Disconnected(String),
    /// The deadline passed.
    #[error("no answer within {0:?}")]
    Timeout(Duration),
    /// The peer answered with a refusal.
    #[error("the peer refused ({code:?}): {message}")]
    Refused {
        /// Why.
        code: ErrorCode,
        /// In the peer's words, shortened.
        message: String,
    },
    /// The peer answered with what the protocol does not allow: garbage, a wrong length, a signature that fails.
    #[error("the peer broke the protocol: {0}")]
    Protocol(String),
    /// The peer speaks no protocol that we speak.
    #[error("the peer does not speak {0}")]
    UnsupportedProtocol(String),
    /// The caller asked for something outside the protocol's limits.
    #[error("invalid request: {0}")]
    Invalid(String),
    /// Our own disk.
    #[error("local storage: {0}")]
    Local(String),
    /// Node, client or provider was shut down.
    #[error("shut down")]
    Closed,
}

impl NetError {
    /// Whether the same call may succeed later, unchanged.
    pub fn is_retryable(&self) -> bool {
        match self {
            NetError::Unreachable(_) | NetError::Disconnected(_) | NetError::Timeout(_) => true,
            NetError::Refused { code, .. } => code.is_retryable(),
            NetError::Protocol(_)
            | NetError::UnsupportedProtocol(_)
            | NetError::Invalid(_)
            | NetError::Local(_)
            | NetError::Closed => false,
        }
    }

    /// Whether the provider is to blame, so that its standing should suffer. Being unreachable is counted by the
    /// caller, who knows whether the own network is up.
    pub fn is_fault_of_provider(&self) -> bool {
        match self {
            NetError::Protocol(_) => true,
            NetError::Refused { code, .. } => code.is_fault(),
            _ => false,
        }
    }

    /// The refusal's code, if it is one.
    pub fn code(&self) -> Option<ErrorCode> {
        match self {
            NetError::Refused { code, .. } => Some(*code),
            _ => None,
        }
    }
}

impl From<CodecError> for NetError {
    fn from(error: CodecError) -> NetError {
        NetError::Protocol(error.to_string())
    }
}
