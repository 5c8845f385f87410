//! Permits: what the owner of a client key lets another key do in its name, and the list by which that is taken back.
//!
//! ```text
//! permit       by the client key   "holdfast permit v1\0" | b       who may (holder), with whom, until when:
//!                                                                   read and audit the client's deals, and, where `place`
//!                                                                   says how much, make deals in its name and push to them;
//!                                                                   of version 2: read these ranges of these deals, no more
//! revocations  by the client key   "holdfast revocations v1\0" | b  holders whose permits count no more
//! ```
//!
//! A permit never lets anybody release a deal, list deals, or put records in the client's name: those need the client key.
//! Providers enforce it alone, each for itself; who holds one cannot widen it or pass it on.

use ed25519_dalek::{Signer, SigningKey};
use serde::{Deserialize, Serialize};
use serde_bytes::{ByteArray, ByteBuf};

use crate::codec::{self, CodecError, check_version};
use crate::deal::{message, verify_key_signature};
use crate::record::{RecordKey, RecordKind};

/// Permits for all deals of a client, and lists of revocations.
pub const PERMIT_VERSION: u8 = 1;
/// Permits for ranges of some deals: a program that knows none of them says so.
pub const PERMIT_VERSION_RANGES: u8 = 2;
/// Ed25519, BLAKE3.
pub const PERMIT_SUITE: u8 = 1;
/// The longest permit.
pub const PERMIT_BYTES_MAX: usize = 1024;
/// The longest permit for ranges.
pub const PERMIT_RANGES_BYTES_MAX: usize = 64 << 10;
/// Holders in one list.
pub const REVOKED_MAX: usize = 256;
/// The longest list.
pub const REVOCATIONS_BYTES_MAX: usize = 16 << 10;

const PERMIT_DOMAIN: &[u8] = b"holdfast permit v1\0";
const REVOCATIONS_DOMAIN: &[u8] = b"holdfast revocations v1\0";

/// Deals that may be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Place {
    /// Bytes that deals of the client may come to at one provider.
    pub bytes: u64,
    /// The same of the last 24 hours.
    pub daily: u64,
    /// The longest term, seconds.
    pub term: u64,
}

/// What of a deal's slot may be read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PermitDeal {
    /// The deal.
    #[serde(rename = "d")]
    pub deal: ByteArray<32>,
    /// First byte and length of each range, ascending, with something between any two.
    #[serde(rename = "r")]
    pub ranges: Vec<(u64, u64)>,
}

impl PermitDeal {
    fn is_sound(&self) -> bool {
        let mut free = 0;
        let mut ranges = self.ranges.iter();
        let fits = ranges.all(|(from, len)| {
            let apart = *from >= free && *len > 0;
            // Of two that touch one is to be made.
            free = from.checked_add(*len).and_then(|end| end.checked_add(1)).unwrap_or(u64::MAX);
            apart && free < u64::MAX
        });
        fits && !self.ranges.is_empty()
    }

    /// Whether a range lies within one of these.
    fn covers(&self, offset: u64, len: u32) -> bool {
        let after = self.ranges.partition_point(|(from, _)| *from <= offset);
        let within = after.checked_sub(1).and_then(|n| self.ranges.get(n));
        let end = offset.checked_add(len.into());
        within.zip(end).is_some_and(|((from, len), end)| end <= from.saturating_add(*len))
    }
}

/// What a permit says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PermitBody {
    /// Whose deals it is about: it signs.
    #[serde(with = "serde_bytes")]
    pub client: [u8; 32],
    /// These alone may be read, and nothing else be done; absent: all of the client's. In the order of their ids.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deals: Option<Vec<PermitDeal>>,
    /// Who may.
    #[serde(with = "serde_bytes")]
    pub holder: [u8; 32],
    /// Whether deals may be made, and how many.
    pub place: Option<Place>,
    /// With this provider alone; absent: with any.
    pub provider: Option<ByteBuf>,
    /// [`PERMIT_SUITE`].
    pub suite: u8,
    /// Unix seconds, by the provider's clock.
    pub until: u64,
    /// [`PERMIT_VERSION`], or [`PERMIT_VERSION_RANGES`] where deals are named.
    pub v: u8,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Envelope {
    #[serde(rename = "b", with = "serde_bytes")]
    body: Vec<u8>,
    #[serde(rename = "s", with = "serde_bytes")]
    signature: [u8; 64],
}

/// A permit whose signature was made or verified here: no other way leads to one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedPermit {
    body: PermitBody,
    bytes: Vec<u8>,
}

impl PermitBody {
    pub(crate) fn validate(&self) -> Result<(), CodecError> {
        check_version(self.v, PERMIT_VERSION_RANGES)?;
        if self.suite != PERMIT_SUITE {
            return Err(CodecError::UnknownSuite(self.suite));
        }
        if self.deals.is_some() != (self.v == PERMIT_VERSION_RANGES) {
            return Err(CodecError::Inconsistent("a permit's version"));
        }
        if let Some(deals) = &self.deals {
            let sorted = deals.is_sorted_by(|a, b| a.deal < b.deal);
            if self.place.is_some() || !sorted || !deals.iter().all(PermitDeal::is_sound) {
                return Err(CodecError::Inconsistent("the deals that a permit is for"));
            }
        }
        if self.client == self.holder {
            return Err(CodecError::Inconsistent("a permit for the client itself"));
        }
        match &self.provider {
            Some(peer) if libp2p::PeerId::from_bytes(peer).is_err() => {
                Err(CodecError::Inconsistent("the provider's peer id"))
            }
            _ => Ok(()),
        }
    }

    /// Signs with the client's key.
    pub fn sign(self, key: &SigningKey) -> Result<SignedPermit, CodecError> {
        self.validate()?;
        if key.verifying_key().to_bytes() != self.client {
            return Err(CodecError::Inconsistent("signed by another key than the client's"));
        }
        let body = codec::encode(&self);
        let signature = key.sign(&message(PERMIT_DOMAIN, &body)).to_bytes();
        let bytes = codec::encode(&Envelope { body, signature });
        self.check_len(bytes.len())?;
        Ok(SignedPermit { body: self, bytes })
    }
}

impl PermitBody {
    fn check_len(&self, len: usize) -> Result<(), CodecError> {
        let max = if self.deals.is_some() { PERMIT_RANGES_BYTES_MAX } else { PERMIT_BYTES_MAX };
        if len > max { Err(CodecError::TooLong { len, max }) } else { Ok(()) }
    }

    /// Of a deal, if this permit is for some alone and for this one among them.
    fn of_deal(&self, deal: &[u8; 32]) -> Option<&PermitDeal> {
        let deals = self.deals.as_ref()?;
        deals.binary_search_by(|named| (*named.deal).cmp(deal)).ok().and_then(|n| deals.get(n))
    }

    /// Whether it is for some deals alone, and for this one among them.
    pub fn names(&self, deal: &[u8; 32]) -> bool {
        self.of_deal(deal).is_some()
    }

    /// Whether this range of this deal's slot may be read by it.
    pub fn reaches(&self, deal: &[u8; 32], offset: u64, len: u32) -> bool {
        self.of_deal(deal).is_some_and(|named| named.covers(offset, len))
    }
}

impl SignedPermit {
    /// Decodes and verifies.
    pub fn from_bytes(bytes: &[u8]) -> Result<SignedPermit, CodecError> {
        let envelope: Envelope = codec::decode(bytes, PERMIT_RANGES_BYTES_MAX)?;
        let body: PermitBody = codec::decode(&envelope.body, PERMIT_RANGES_BYTES_MAX)?;
        body.validate()?;
        body.check_len(bytes.len())?;
        let signed = message(PERMIT_DOMAIN, &envelope.body);
        verify_key_signature(&body.client, &signed, &envelope.signature, "permit")?;
        Ok(SignedPermit { body, bytes: bytes.to_vec() })
    }

    /// What it says.
    pub fn body(&self) -> &PermitBody {
        &self.body
    }

    /// For storage and the wire.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Whether it is for this provider, and has not ended.
    pub fn holds(&self, provider: &[u8], now: u64) -> bool {
        self.body.until > now && self.body.provider.as_ref().is_none_or(|peer| peer.as_slice() == provider)
    }
}

/// Holders whose permits of one client count no more. The list with the higher number is in force.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Revocations {
    /// Whose permits.
    #[serde(with = "serde_bytes")]
    pub client: [u8; 32],
    /// In order, no one twice.
    pub holders: Vec<ByteArray<32>>,
    /// Grows with each list.
    pub number: u64,
    /// [`PERMIT_SUITE`].
    pub suite: u8,
    /// [`PERMIT_VERSION`].
    pub v: u8,
}

impl Revocations {
    /// A list of these.
    pub fn new(client: [u8; 32], holders: impl IntoIterator<Item = [u8; 32]>, number: u64) -> Revocations {
        let sorted: std::collections::BTreeSet<[u8; 32]> = holders.into_iter().collect();
        let holders = sorted.into_iter().map(ByteArray::new).collect();
        Revocations { client, holders, number, suite: PERMIT_SUITE, v: PERMIT_VERSION }
    }

    pub(crate) fn validate(&self) -> Result<(), CodecError> {
        check_version(self.v, PERMIT_VERSION)?;
        if self.suite != PERMIT_SUITE {
            return Err(CodecError::UnknownSuite(self.suite));
        }
        if self.holders.len() > REVOKED_MAX || !self.holders.is_sorted_by(|a, b| a < b) {
            return Err(CodecError::Inconsistent("the list of holders"));
        }
        Ok(())
    }

    /// The record's value, signed by the client's key.
    pub fn sign(&self, key: &SigningKey) -> Result<Vec<u8>, CodecError> {
        self.validate()?;
        if key.verifying_key().to_bytes() != self.client {
            return Err(CodecError::Inconsistent("signed by another key than the client's"));
        }
        let body = codec::encode(self);
        let signature = key.sign(&message(REVOCATIONS_DOMAIN, &body)).to_bytes();
        Ok(codec::encode(&Envelope { body, signature }))
    }

    /// Decodes and verifies a record's value.
    pub fn from_bytes(bytes: &[u8]) -> Result<Revocations, CodecError> {
        let envelope: Envelope = codec::decode(bytes, REVOCATIONS_BYTES_MAX)?;
        let list: Revocations = codec::decode(&envelope.body, REVOCATIONS_BYTES_MAX)?;
        list.validate()?;
        let signed = message(REVOCATIONS_DOMAIN, &envelope.body);
        verify_key_signature(&list.client, &signed, &envelope.signature, "revocations")?;
        Ok(list)
    }

    /// Under which name providers keep the list of a client.
    pub fn key(client: &[u8; 32]) -> RecordKey {
        RecordKey::new(RecordKind::Revocations, *client)
    }

    /// Whether this holder's permits count no more.
    pub fn names(&self, holder: &[u8; 32]) -> bool {
        self.holders.binary_search(&ByteArray::new(*holder)).is_ok()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::deal::tests::signing_key;

    fn permit() -> PermitBody {
        let public = |seed| signing_key(seed).verifying_key().to_bytes();
        PermitBody {
            client: public(1),
            deals: None,
            holder: public(2),
            place: Some(Place { bytes: 9, daily: 5, term: 100 }),
            provider: None,
            suite: 1,
            until: 1_000,
            v: 1,
        }
    }

    #[test]
    fn only_as_it_was_signed_and_only_while_it_lasts() {
        let signed = permit().sign(&signing_key(1)).unwrap();
        assert_eq!(SignedPermit::from_bytes(signed.as_bytes()).unwrap(), signed);
        for at in 0..signed.as_bytes().len() {
            let mut bytes = signed.as_bytes().to_vec();
            bytes[at] ^= 1;
            assert!(SignedPermit::from_bytes(&bytes).is_err(), "byte {at}");
        }
        assert!(permit().sign(&signing_key(2)).is_err());
        assert!(signed.holds(b"anybody", 999) && !signed.holds(b"anybody", 1_000));
        let peer = crate::deal::tests::provider_key(3).public().to_peer_id().to_bytes();
        let one = PermitBody { provider: Some(ByteBuf::from(peer.clone())), ..permit() };
        let one = one.sign(&signing_key(1)).unwrap();
        assert!(one.holds(&peer, 0) && !one.holds(b"another", 0));
        let nobody = PermitBody { provider: Some(ByteBuf::from(vec![1])), ..permit() };
        assert!(nobody.sign(&signing_key(1)).is_err());
        let newer = PermitBody { v: 3, ..permit() };
        assert_eq!(newer.sign(&signing_key(1)), Err(CodecError::Newer { found: 3, known: 2 }));
    }

    #[test]
    fn ranges_reach_no_further_than_they_say() {
        let deal = |n: u8, ranges: &[(u64, u64)]| PermitDeal {
            deal: ByteArray::new([n; 32]),
            ranges: ranges.to_vec(),
        };
        let of = |deals: Vec<PermitDeal>| PermitBody {
            deals: Some(deals),
            place: None,
            v: PERMIT_VERSION_RANGES,
            ..permit()
        };
        let some = of(vec![deal(1, &[(0, 10), (20, 5)]), deal(3, &[(7, 1)])]);
        let signed = some.sign(&signing_key(1)).unwrap();
        assert_eq!(SignedPermit::from_bytes(signed.as_bytes()).unwrap(), signed);
        let reads = |n: u8, offset, len| signed.body().reaches(&[n; 32], offset, len);
        assert!(reads(1, 0, 10) && reads(1, 9, 1) && reads(1, 20, 5) && reads(3, 7, 1));
        for (n, offset, len) in
            [(1, 0, 11), (1, 9, 2), (1, 10, 1), (1, 19, 2), (1, 24, 2), (3, 6, 1), (2, 7, 1)]
        {
            assert!(!reads(n, offset, len), "{n}: {len} bytes at {offset}");
        }
        assert!(!reads(1, u64::MAX, 2) && signed.body().names(&[3; 32]) && !signed.body().names(&[2; 32]));
        let whole = permit().sign(&signing_key(1)).unwrap();
        assert!(!whole.body().names(&[1; 32]), "a permit for all deals is for no ranges");
        let refused = [
            of(vec![deal(3, &[(7, 1)]), deal(1, &[(0, 1)])]),
            of(vec![deal(1, &[(0, 1)]), deal(1, &[(7, 1)])]),
            of(vec![deal(1, &[])]),
            of(vec![deal(1, &[(0, 0)])]),
            of(vec![deal(1, &[(0, 5), (5, 5)])]),
            of(vec![deal(1, &[(9, 5), (2, 1)])]),
            of(vec![deal(1, &[(u64::MAX, 1)])]),
            PermitBody { place: permit().place, ..of(vec![deal(1, &[(0, 1)])]) },
            PermitBody { v: PERMIT_VERSION, ..of(vec![deal(1, &[(0, 1)])]) },
            PermitBody { deals: None, ..of(Vec::new()) },
            of((0..4_000).map(|_| deal(1, &[(0, 1)])).collect()),
        ];
        for (n, body) in refused.into_iter().enumerate() {
            assert!(body.sign(&signing_key(1)).is_err(), "{n}");
        }
    }

    #[test]
    fn lists_name_whom_they_name() {
        let client = signing_key(1).verifying_key().to_bytes();
        let list = Revocations::new(client, [[3; 32], [2; 32], [3; 32]], 7);
        assert!(list.names(&[2; 32]) && list.names(&[3; 32]) && !list.names(&[4; 32]));
        let bytes = list.sign(&signing_key(1)).unwrap();
        assert_eq!(Revocations::from_bytes(&bytes).unwrap(), list);
        assert!(list.sign(&signing_key(2)).is_err());
        let mut other = bytes.clone();
        *other.last_mut().unwrap() ^= 1;
        assert!(Revocations::from_bytes(&other).is_err());
        let mut twice = list;
        twice.holders.push(ByteArray::new([3; 32]));
        assert!(twice.sign(&signing_key(1)).is_err());
    }
}
