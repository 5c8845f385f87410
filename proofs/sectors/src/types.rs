//! Small values that stand in journals, jobs and proof files.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::durable::hex;

const LEN: usize = 32;

/// Thirty-two bytes: a commitment, a seed, a digest, a prover. Hexadecimal in text, bytes in CBOR.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Bytes32(pub [u8; LEN]);

impl fmt::Display for Bytes32 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex(&self.0))
    }
}

impl fmt::Debug for Bytes32 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Bytes32 {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const WRONG: &str = "expected 64 hexadecimal digits";
        let digits = text.as_bytes();
        if digits.len() != LEN * 2 {
            return Err(WRONG);
        }
        let mut out = [0; LEN];
        for (byte, pair) in out.iter_mut().zip(digits.chunks_exact(2)) {
            // The sign that the integer parser would take is no digit.
            if !pair.iter().all(u8::is_ascii_hexdigit) {
                return Err(WRONG);
            }
            let pair = std::str::from_utf8(pair).map_err(|_| WRONG)?;
            *byte = u8::from_str_radix(pair, 16).map_err(|_| WRONG)?;
        }
        Ok(Self(out))
    }
}

impl Serialize for Bytes32 {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        if to.is_human_readable() { to.collect_str(self) } else { to.serialize_bytes(&self.0) }
    }
}

impl<'de> Deserialize<'de> for Bytes32 {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        if from.is_human_readable() {
            return String::deserialize(from)?.parse().map_err(de::Error::custom);
        }
        let bytes = serde_bytes::ByteBuf::deserialize(from)?;
        let exact = <[u8; LEN]>::try_from(bytes.as_slice());
        exact.map(Self).map_err(|_| de::Error::invalid_length(bytes.len(), &"32 bytes"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_bytes_round_and_refuse() {
        let value = Bytes32(std::array::from_fn(|i| i as u8));
        assert_eq!(value.to_string().parse(), Ok(value));
        let json = serde_json::to_string(&value).unwrap();
        assert_eq!(serde_json::from_str::<Bytes32>(&json).unwrap(), value);
        let cbor = serde_ipld_dagcbor::to_vec(&value).unwrap();
        assert_eq!(cbor.len(), 34);
        assert_eq!(serde_ipld_dagcbor::from_slice::<Bytes32>(&cbor).unwrap(), value);
        assert!(serde_ipld_dagcbor::from_slice::<Bytes32>(&cbor[..33]).is_err());
        for bad in ["", "00", &"+1".repeat(32), &"g0".repeat(32), &"00".repeat(33)] {
            assert!(bad.parse::<Bytes32>().is_err(), "{bad}");
        }
    }
}
