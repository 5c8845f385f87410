//! Bitswap's messages, written and read by hand: the protobuf reader that is in the tree panics on lengths that lie.
//!
//! ```text
//! Message       1 Wantlist   3 Block (any number)   4 BlockPresence (any number)   5 pendingBytes (not read)
//! Wantlist      1 Entry (any number)   2 full
//! Entry         1 CID   2 priority (not read)   3 cancel   4 wantType: 0 block, 1 have   5 sendDontHave
//! Block         1 prefix: version | codec | hash code | hash length, varints   2 data
//! BlockPresence 1 CID   2 type: 0 have, 1 do not have
//! ```
//!
//! Field 2 of a Message (blocks without their CIDs, version 1.0) is passed over, and so is every unknown field. A CID that is none is
//! passed over with its entry: another program may know more of them.

use bytes::Bytes;
use cid::Cid;
use futures::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use std::time::Duration;
use unsigned_varint::encode as varint;

use super::BLOCK_BYTES_MAX;

/// No message is longer: what other implementations allow.
pub const MESSAGE_BYTES_MAX: usize = 4 << 20;
/// Entries of one message, at most; a longer list is cut.
pub const ENTRIES_MAX: usize = 1024;
/// A CID of other programs' is at most this long.
const CID_BYTES_MAX: usize = 128;

/// What a peer wants of a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WantKind {
    /// Its bytes.
    Block,
    /// Whether it is there.
    Have,
}

/// One line of a wantlist.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    /// Which block.
    pub cid: Cid,
    /// What of it.
    pub kind: WantKind,
    /// No longer.
    pub cancel: bool,
    /// An answer is wanted also where it is not there.
    pub say_dont_have: bool,
}

/// What one stream carries, one after the other.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Message {
    /// What is wanted.
    pub wants: Vec<Entry>,
    /// What was wanted before counts no more.
    pub full: bool,
    /// Blocks, each with the prefix of its CID.
    pub blocks: Vec<(Vec<u8>, Bytes)>,
    /// What is there and what is not.
    pub presences: Vec<(Cid, bool)>,
}

/// Why bytes are no message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("malformed Bitswap message")]
pub struct Malformed;

/// Why a message did not come or go.
#[derive(Debug, thiserror::Error)]
pub enum StreamError {
    /// The stream failed.
    #[error("{0}")]
    Io(#[from] std::io::Error),
    /// Too slow.
    #[error("the peer is too slow")]
    TooSlow,
    /// What came is no message.
    #[error(transparent)]
    Malformed(#[from] Malformed),
}

/// A message that was begun, or is written, goes on at this rate at least, after a grace.
const BYTES_PER_SECOND_MIN: usize = 8 << 10;
const GRACE: Duration = Duration::from_secs(30);

fn time_for(bytes: usize) -> Duration {
    GRACE + Duration::from_secs((bytes / BYTES_PER_SECOND_MIN) as u64)
}

impl Message {
    /// Whether it says nothing.
    pub fn is_empty(&self) -> bool {
        self.wants.is_empty() && !self.full && self.blocks.is_empty() && self.presences.is_empty()
    }

    /// Its bytes, without their length.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        if !self.wants.is_empty() || self.full {
            let mut list = Vec::new();
            for want in &self.wants {
                let mut entry = Vec::new();
                bytes_field(&mut entry, 1, &want.cid.to_bytes());
                number_field(&mut entry, 2, 1);
                number_field(&mut entry, 3, want.cancel.into());
                number_field(&mut entry, 4, (want.kind == WantKind::Have).into());
                number_field(&mut entry, 5, want.say_dont_have.into());
                bytes_field(&mut list, 1, &entry);
            }
            number_field(&mut list, 2, self.full.into());
            bytes_field(&mut out, 1, &list);
        }
        for (prefix, data) in &self.blocks {
            let mut block = Vec::with_capacity(data.len() + 16);
            bytes_field(&mut block, 1, prefix);
            bytes_field(&mut block, 2, data);
            bytes_field(&mut out, 3, &block);
        }
        for (cid, there) in &self.presences {
            let mut presence = Vec::new();
            bytes_field(&mut presence, 1, &cid.to_bytes());
            number_field(&mut presence, 2, (!there).into());
            bytes_field(&mut out, 4, &presence);
        }
        out
    }

    /// From its bytes.
    pub fn decode(bytes: &Bytes) -> Result<Message, Malformed> {
        if bytes.len() > MESSAGE_BYTES_MAX {
            return Err(Malformed);
        }
        let mut message = Message::default();
        each_field(bytes, |field, value| {
            match (field, value) {
                (1, Value::Bytes(list)) => message.read_wants(list)?,
                (3, Value::Bytes(block)) => {
                    let (mut prefix, mut data) = (Vec::new(), Bytes::new());
                    each_field(block, |field, value| {
                        match (field, value) {
                            (1, Value::Bytes(found)) if found.len() <= CID_BYTES_MAX => {
                                prefix = found.to_vec()
                            }
                            (2, Value::Bytes(found)) => data = bytes.slice_ref(found),
                            _ => {}
                        }
                        Ok(())
                    })?;
                    if data.len() <= BLOCK_BYTES_MAX && message.blocks.len() < ENTRIES_MAX {
                        message.blocks.push((prefix, data));
                    }
                }
                (4, Value::Bytes(presence)) if message.presences.len() < ENTRIES_MAX => {
                    let (mut cid, mut there) = (None, true);
                    each_field(presence, |field, value| {
                        match (field, value) {
                            (1, Value::Bytes(found)) => cid = cid_of(found),
                            (2, Value::Number(kind)) => there = kind == 0,
                            _ => {}
                        }
                        Ok(())
                    })?;
                    message.presences.extend(cid.map(|cid| (cid, there)));
                }
                _ => {}
            }
            Ok(())
        })?;
        Ok(message)
    }

    fn read_wants(&mut self, list: &[u8]) -> Result<(), Malformed> {
        each_field(list, |field, value| {
            match (field, value) {
                (1, Value::Bytes(entry)) if self.wants.len() < ENTRIES_MAX => {
                    let mut cid = None;
                    let (mut kind, mut cancel, mut say_dont_have) = (WantKind::Block, false, false);
                    each_field(entry, |field, value| {
                        match (field, value) {
                            (1, Value::Bytes(found)) => cid = cid_of(found),
                            (3, Value::Number(yes)) => cancel = yes != 0,
                            (4, Value::Number(1)) => kind = WantKind::Have,
                            (5, Value::Number(yes)) => say_dont_have = yes != 0,
                            _ => {}
                        }
                        Ok(())
                    })?;
                    self.wants.extend(cid.map(|cid| Entry { cid, kind, cancel, say_dont_have }));
                }
                (2, Value::Number(yes)) => self.full = yes != 0,
                _ => {}
            }
            Ok(())
        })
    }
}

/// What a block's CID begins with: all but the digest.
pub fn prefix_of(cid: &Cid) -> Vec<u8> {
    let mut out = Vec::new();
    let version = match cid.version() {
        cid::Version::V0 => 0,
        cid::Version::V1 => 1,
    };
    for number in [version, cid.codec(), cid.hash().code(), u64::from(cid.hash().size())] {
        push_number(&mut out, number);
    }
    out
}

fn cid_of(bytes: &[u8]) -> Option<Cid> {
    Some(bytes).filter(|bytes| bytes.len() <= CID_BYTES_MAX).and_then(|bytes| Cid::try_from(bytes).ok())
}

enum Value<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

/// Calls `read` for every field of a message.
fn each_field<'a>(
    mut rest: &'a [u8],
    mut read: impl FnMut(u64, Value<'a>) -> Result<(), Malformed>,
) -> Result<(), Malformed> {
    while !rest.is_empty() {
        let tag = take_number(&mut rest)?;
        let value = match tag & 7 {
            0 => Value::Number(take_number(&mut rest)?),
            1 => {
                rest = rest.get(8..).ok_or(Malformed)?;
                continue;
            }
            2 => {
                let len = usize::try_from(take_number(&mut rest)?).map_err(|_| Malformed)?;
                let (value, after) = rest.split_at_checked(len).ok_or(Malformed)?;
                rest = after;
                Value::Bytes(value)
            }
            5 => {
                rest = rest.get(4..).ok_or(Malformed)?;
                continue;
            }
            _ => return Err(Malformed),
        };
        read(tag >> 3, value)?;
    }
    Ok(())
}

/// protobuf allows padded numbers; they are only read here, and compared with nothing.
fn take_number(rest: &mut &[u8]) -> Result<u64, Malformed> {
    let mut value = 0u64;
    for shift in (0..70).step_by(7) {
        let (&byte, after) = rest.split_first().ok_or(Malformed)?;
        *rest = after;
        let group = u64::from(byte & 0x7f);
        value |= group.checked_shl(shift).unwrap_or(0);
        if byte & 0x80 == 0 {
            return Ok(value);
        }
    }
    Err(Malformed)
}

fn push_number(out: &mut Vec<u8>, number: u64) {
    out.extend_from_slice(varint::u64(number, &mut varint::u64_buffer()));
}

/// A number; zero is what is not there.
fn number_field(out: &mut Vec<u8>, field: u64, number: u64) {
    if number != 0 {
        push_number(out, field << 3);
        push_number(out, number);
    }
}

fn bytes_field(out: &mut Vec<u8>, field: u64, bytes: &[u8]) {
    push_number(out, field << 3 | 2);
    push_number(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// Reads the next message of at most `bytes_max` bytes; waits `idle` for its first byte. Nothing at the stream's end.
pub async fn read<R: AsyncRead + Unpin>(
    stream: &mut R,
    bytes_max: usize,
    idle: Duration,
) -> Result<Option<Message>, StreamError> {
    let mut len = 0usize;
    // Four groups of seven bits are more than a message may have.
    for shift in [0, 7, 14, 21] {
        let mut byte = [0u8];
        let wait = if shift == 0 { idle } else { GRACE };
        let got =
            tokio::time::timeout(wait, stream.read(&mut byte)).await.map_err(|_| StreamError::TooSlow)??;
        if got == 0 {
            return if shift == 0 { Ok(None) } else { Err(Malformed.into()) };
        }
        let [byte] = byte;
        len |= usize::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            break;
        }
        if shift == 21 {
            return Err(Malformed.into());
        }
    }
    if len > bytes_max.min(MESSAGE_BYTES_MAX) {
        return Err(Malformed.into());
    }
    // Memory comes with the bytes, not with the promise of them.
    let mut bytes = Vec::new();
    let body = async {
        let taken = (&mut *stream).take(len as u64).read_to_end(&mut bytes).await?;
        Ok::<_, std::io::Error>(taken)
    };
    let taken = tokio::time::timeout(time_for(len), body).await.map_err(|_| StreamError::TooSlow)??;
    if taken != len {
        return Err(Malformed.into());
    }
    Ok(Some(Message::decode(&Bytes::from(bytes))?))
}

/// Writes a message and flushes.
pub async fn write<W: AsyncWrite + Unpin>(stream: &mut W, message: &Message) -> Result<(), StreamError> {
    let body = message.encode();
    let mut head = Vec::with_capacity(4);
    push_number(&mut head, body.len() as u64);
    let writing = async {
        stream.write_all(&head).await?;
        stream.write_all(&body).await?;
        stream.flush().await
    };
    tokio::time::timeout(time_for(body.len()), writing).await.map_err(|_| StreamError::TooSlow)??;
    Ok(())
}
