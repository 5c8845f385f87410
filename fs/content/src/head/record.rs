//! IPNS v2 records: what signs a head.
//!
//! ```text
//! protobuf IpnsEntry { 8: signatureV2, 9: data }            (fields 1-6 of version 1 are read and checked, never written)
//! data = canonical DAG-CBOR { TTL, Value, Sequence, Validity, ValidityType, _holdfast-term, _holdfast-version, _holdfast-standing }
//! signatureV2 = Ed25519 over "ipns-signature:" || data
//! Value = "/ipfs/<CID>", Validity = RFC 3339 in UTC with nanoseconds, TTL in nanoseconds
//! ```
//!
//! Version 2 has the digest of the standing that goes with the head: by whose grants its writer holds the term. Version 1 has none.
//!
//! Any IPNS implementation verifies and republishes our records: the fields of ours begin with an underscore, as the
//! specification wants of extensions. IPNS selects by sequence alone, so sequences count on over terms.

use crate::block::check_cid;
use crate::dagcbor;
use cid::Cid;
use ed25519_dalek::{Signature, Signer as _, SigningKey, VerifyingKey};
use serde::{Deserialize, Serialize};
use serde_bytes::{ByteArray, ByteBuf};
use std::cmp::Ordering;

const WHAT: &str = "head record";
const SIGNING_DOMAIN: &[u8] = b"ipns-signature:";
const VERSION: u64 = 2;
const VERSION_WITHOUT_STANDING: u64 = 1;
/// The specification's limit.
pub const RECORD_BYTES_MAX: usize = 10 << 10;
/// How long resolvers may cache a record: a minute.
const TTL_NANOSECONDS: u64 = 60_000_000_000;

/// Why a record was refused.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum RecordError {
    /// Not a record of version 2.
    #[error("malformed IPNS record: {0}")]
    Malformed(String),
    /// Signed by somebody else, or changed.
    #[error("the IPNS record is not signed by this name")]
    NotAuthentic,
    /// Its validity has ended.
    #[error("the IPNS record was valid until {0}")]
    Expired(String),
    /// It belongs to a newer version of this program.
    #[error("the head record is of version {0}, which is newer than this program; update Holdfast")]
    Newer(u64),
    /// A proper IPNS record, but not a drive's head.
    #[error("the IPNS record is not a drive's head: {0}")]
    NotAHead(&'static str),
}

/// The signed data. Fields are ordered by DAG-CBOR's rule when encoded.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Data {
    #[serde(rename = "TTL")]
    ttl: u64,
    #[serde(rename = "Value")]
    value: ByteBuf,
    #[serde(rename = "Sequence")]
    sequence: u64,
    #[serde(rename = "Validity")]
    validity: ByteBuf,
    #[serde(rename = "ValidityType")]
    validity_type: u64,
    #[serde(rename = "_holdfast-term", default, skip_serializing_if = "Option::is_none")]
    term: Option<u64>,
    #[serde(rename = "_holdfast-version", default, skip_serializing_if = "Option::is_none")]
    version: Option<u64>,
    #[serde(rename = "_holdfast-standing", default, skip_serializing_if = "Option::is_none")]
    standing: Option<ByteArray<32>>,
}

/// A verified IPNS record of anyone.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct IpnsRecord {
    data: Data,
}

impl IpnsRecord {
    /// Verifies by the specification's rules for an Ed25519 name: the signature of version 2 counts, and fields of
    /// version 1 that are there say the same. Expiry is checked against `now` (unix seconds).
    pub fn verify(bytes: &[u8], name: &[u8; 32], now: u64) -> Result<Self, RecordError> {
        if bytes.len() > RECORD_BYTES_MAX {
            return Err(malformed("too long"));
        }
        let fields = Fields::parse(bytes)?;
        let (Some(signature), Some(data_bytes)) = (fields.signature_v2, fields.data) else {
            return Err(malformed("no signature of version 2"));
        };
        let signature = Signature::from_slice(signature).map_err(|_| RecordError::NotAuthentic)?;
        let key = VerifyingKey::from_bytes(name).map_err(|_| RecordError::NotAuthentic)?;
        key.verify_strict(&signed_message(data_bytes), &signature).map_err(|_| RecordError::NotAuthentic)?;
        if fields.public_key.is_some_and(|key| key.strip_prefix(&[8, 1, 18, 32]) != Some(name)) {
            return Err(malformed("another public key"));
        }
        let data: Data = dagcbor::decode(WHAT, data_bytes, RECORD_BYTES_MAX)
            .map_err(|error| RecordError::Malformed(error.to_string()))?;
        fields.agree_with(&data)?;
        if data.validity_type != 0 {
            return Err(malformed("an unknown kind of validity"));
        }
        let record = Self { data };
        let until = record.valid_until()?;
        if until < now {
            return Err(RecordError::Expired(String::from_utf8_lossy(&record.data.validity).into_owned()));
        }
        Ok(record)
    }

    /// What the name points at.
    pub fn value(&self) -> &[u8] {
        &self.data.value
    }

    /// Counts up with every record of the name.
    pub fn sequence(&self) -> u64 {
        self.data.sequence
    }

    /// End of validity, unix seconds.
    pub fn valid_until(&self) -> Result<u64, RecordError> {
        let text = std::str::from_utf8(&self.data.validity).ok();
        text.and_then(parse_rfc3339).ok_or_else(|| malformed("validity is no time"))
    }
}

/// A drive's head record. Only signing and verifying make one.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HeadRecord {
    value: Cid,
    sequence: u64,
    term: u64,
    valid_until: u64,
    standing: Option<[u8; 32]>,
    bytes: Vec<u8>,
}

impl HeadRecord {
    /// Signs a record that names a sealed head, and the digest of its standing, if it has one.
    pub fn sign(
        sealed: &Cid,
        sequence: u64,
        term: u64,
        standing: Option<[u8; 32]>,
        valid_until: u64,
        head_key: &SigningKey,
    ) -> Result<Self, RecordError> {
        let data = Data {
            ttl: TTL_NANOSECONDS,
            value: ByteBuf::from(format!("/ipfs/{sealed}").into_bytes()),
            sequence,
            validity: ByteBuf::from(format_rfc3339(valid_until).into_bytes()),
            validity_type: 0,
            term: Some(term),
            version: Some(if standing.is_some() { VERSION } else { VERSION_WITHOUT_STANDING }),
            standing: standing.map(ByteArray::new),
        };
        let data = dagcbor::encode(WHAT, &data).map_err(|error| RecordError::Malformed(error.to_string()))?;
        let bytes = sign_data(&data, head_key);
        Ok(Self { value: *sealed, sequence, term, valid_until, standing, bytes })
    }

    /// Verifies a record from anyone under a head key that the keyring names.
    pub fn verify(bytes: &[u8], head_key: &[u8; 32], now: u64) -> Result<Self, RecordError> {
        let record = IpnsRecord::verify(bytes, head_key, now)?;
        let version = record.data.version.ok_or(RecordError::NotAHead("no version"))?;
        if version > VERSION {
            return Err(RecordError::Newer(version));
        }
        let standing = record.data.standing.map(ByteArray::into_array);
        if standing.is_some() != (version == VERSION) {
            return Err(RecordError::NotAHead("a standing of another version"));
        }
        let term = record.data.term.ok_or(RecordError::NotAHead("no term"))?;
        let value = std::str::from_utf8(record.value()).ok().and_then(|value| value.strip_prefix("/ipfs/"));
        let value =
            value.and_then(|value| Cid::try_from(value).ok()).ok_or(RecordError::NotAHead("no CID"))?;
        check_cid(&value).map_err(|_| RecordError::NotAHead("an unknown kind of CID"))?;
        let valid_until = record.valid_until()?;
        let sequence = record.sequence();
        Ok(Self { value, sequence, term, valid_until, standing, bytes: bytes.to_vec() })
    }

    /// The CID of the sealed head.
    pub fn value(&self) -> &Cid {
        &self.value
    }

    /// Whether this record names these sealed bytes.
    pub fn names(&self, sealed: &[u8]) -> bool {
        super::sealed_cid(sealed) == self.value
    }

    /// Counts up over all terms.
    pub fn sequence(&self) -> u64 {
        self.sequence
    }

    /// The writer's term.
    pub fn term(&self) -> u64 {
        self.term
    }

    /// The digest of the standing that goes with it; none in version 1.
    pub fn standing(&self) -> Option<&[u8; 32]> {
        self.standing.as_ref()
    }

    /// End of validity, unix seconds.
    pub fn valid_until(&self) -> u64 {
        self.valid_until
    }

    /// The record as it travels.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Which of two heads is newer: the higher term, then the higher sequence. Two records that are equal in both but
    /// not in bytes are a conflict: two writers in one term.
    pub fn compare(&self, other: &Self) -> Ordering {
        (self.term, self.sequence).cmp(&(other.term, other.sequence))
    }
}

/// The record over encoded data.
pub(crate) fn sign_data(data: &[u8], head_key: &SigningKey) -> Vec<u8> {
    let signature = head_key.sign(&signed_message(data)).to_bytes();
    let mut bytes = Vec::with_capacity(data.len() + 80);
    put_field(&mut bytes, 8, &signature);
    put_field(&mut bytes, 9, data);
    bytes
}

fn signed_message(data: &[u8]) -> Vec<u8> {
    [SIGNING_DOMAIN, data].concat()
}

fn malformed(why: &str) -> RecordError {
    RecordError::Malformed(why.to_owned())
}

/// The protobuf's fields, each at most once.
#[derive(Default)]
struct Fields<'a> {
    value: Option<&'a [u8]>,
    validity: Option<&'a [u8]>,
    validity_type: Option<u64>,
    sequence: Option<u64>,
    ttl: Option<u64>,
    public_key: Option<&'a [u8]>,
    signature_v1: Option<&'a [u8]>,
    signature_v2: Option<&'a [u8]>,
    data: Option<&'a [u8]>,
}

impl<'a> Fields<'a> {
    fn parse(mut rest: &'a [u8]) -> Result<Self, RecordError> {
        let mut fields = Self::default();
        while !rest.is_empty() {
            let tag = take_varint(&mut rest)?;
            match (tag >> 3, tag & 7) {
                (number, 0) => {
                    let value = take_varint(&mut rest)?;
                    let slot = match number {
                        3 => &mut fields.validity_type,
                        5 => &mut fields.sequence,
                        6 => &mut fields.ttl,
                        _ => continue,
                    };
                    set_once(slot, value)?;
                }
                (number, 2) => {
                    let len = usize::try_from(take_varint(&mut rest)?).map_err(|_| malformed("a length"))?;
                    let (value, after) = rest.split_at_checked(len).ok_or_else(|| malformed("truncated"))?;
                    rest = after;
                    let slot = match number {
                        1 => &mut fields.value,
                        2 => &mut fields.signature_v1,
                        4 => &mut fields.validity,
                        7 => &mut fields.public_key,
                        8 => &mut fields.signature_v2,
                        9 => &mut fields.data,
                        _ => continue,
                    };
                    set_once(slot, value)?;
                }
                _ => return Err(malformed("a field's type")),
            }
        }
        Ok(fields)
    }

    /// Fields of version 1, if there are any, say what the signed data says.
    fn agree_with(&self, data: &Data) -> Result<(), RecordError> {
        let is_v1 = self.signature_v1.is_some() || self.value.is_some();
        let agrees = self.value.is_none_or(|value| value == data.value.as_slice())
            && self.validity.is_none_or(|validity| validity == data.validity.as_slice())
            && self.validity_type.is_none_or(|kind| kind == data.validity_type)
            && self.sequence.is_none_or(|sequence| sequence == data.sequence)
            && self.ttl.is_none_or(|ttl| ttl == data.ttl)
            && (!is_v1 || (self.value.is_some() && self.validity.is_some()));
        if agrees { Ok(()) } else { Err(malformed("fields of version 1 differ from the signed data")) }
    }
}

fn set_once<T>(slot: &mut Option<T>, value: T) -> Result<(), RecordError> {
    match slot.replace(value) {
        None => Ok(()),
        Some(_) => Err(malformed("a field twice")),
    }
}

fn take_varint(rest: &mut &[u8]) -> Result<u64, RecordError> {
    let (value, after) = crate::varint::take(rest).ok_or_else(|| malformed("a varint"))?;
    *rest = after;
    Ok(value)
}

fn put_field(out: &mut Vec<u8>, number: u8, bytes: &[u8]) {
    let mut buffer = unsigned_varint::encode::usize_buffer();
    out.push(number << 3 | 2);
    out.extend_from_slice(unsigned_varint::encode::usize(bytes.len(), &mut buffer));
    out.extend_from_slice(bytes);
}

const DAY_SECONDS: u64 = 86_400;
/// Days of 400 years, after which the calendar repeats.
const ERA_DAYS: u64 = 146_097;
/// Days from 0000-03-01, where eras begin, to 1970-01-01.
const EPOCH_DAYS: u64 = 719_468;
/// 9999-12-31T23:59:59Z: what four digits can say.
const LAST_SECOND: u64 = 253_402_300_799;

/// Unix seconds as RFC 3339 in UTC, with nine digits of nothing. Times beyond the year 9999 become its last second.
pub fn format_rfc3339(unix: u64) -> String {
    let unix = unix.min(LAST_SECOND);
    let days = unix / DAY_SECONDS + EPOCH_DAYS;
    let (era, day) = (days / ERA_DAYS, days % ERA_DAYS);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let (month, carry) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    let year = era * 400 + year + carry;
    let second = unix % DAY_SECONDS;
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.000000000Z")
}

/// Reads RFC 3339 in UTC, with or without a fraction, from 1970 on; whole seconds.
pub fn parse_rfc3339(text: &str) -> Option<u64> {
    let (date, time) = text.strip_suffix('Z')?.split_once('T')?;
    let (time, fraction) = time.split_once('.').unwrap_or((time, "0"));
    let digits = |text: &str, len: usize| {
        (text.len() == len && text.bytes().all(|byte| byte.is_ascii_digit()))
            .then(|| text.parse::<u64>().ok())?
    };
    let three = |text: &str, separator: char, first: usize| {
        let mut parts = text.split(separator);
        let values = (digits(parts.next()?, first)?, digits(parts.next()?, 2)?, digits(parts.next()?, 2)?);
        parts.next().is_none().then_some(values)
    };
    let (year, month, day) = three(date, '-', 4)?;
    let (hour, minute, second) = three(time, ':', 2)?;
    let fraction_fits =
        (1..=9).contains(&fraction.len()) && fraction.bytes().all(|byte| byte.is_ascii_digit());
    let fits =
        (1..=12).contains(&month) && (1..=31).contains(&day) && hour < 24 && minute < 60 && second < 60;
    if !fits || !fraction_fits || year < 1970 {
        return None;
    }
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let (era, of_era) = (year / 400, year % 400);
    let day_of_era = 365 * of_era + of_era / 4 - of_era / 100 + (153 * month + 2) / 5 + day - 1;
    let days = era * ERA_DAYS + day_of_era - EPOCH_DAYS;
    Some(days * DAY_SECONDS + hour * 3600 + minute * 60 + second)
}
