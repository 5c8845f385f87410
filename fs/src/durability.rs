//! The ladder: which rung a file or a folder stands on.
//!
//! Owns: [`Durability`]'s order, text and parsing. The walk over a file's rows is in `drive::durability`.
//! Promises: `parse(to_string(x)) == x`; the order is the ladder's, so that the rung of many is their minimum.
//! Refuses: text that this version does not write.

use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;

pub use crate::drive::types::Durability;

impl Durability {
    /// (rung, survives, at): what decides the order.
    fn rank(self) -> (u8, u8, u64) {
        match self {
            Self::Missing => (0, 0, 0),
            Self::Staged => (1, 0, 0),
            Self::Sealed => (2, 0, 0),
            Self::Packed => (3, 0, 0),
            Self::Placed(survives) => (4, survives, 0),
            Self::Proven { survives, at } => (5, survives, at),
        }
    }

    /// The lower of two: for each field on its own, so that a folder never claims more than any file in it.
    pub fn lower(self, other: Self) -> Self {
        match (self, other) {
            (Self::Proven { survives: a, at: s }, Self::Proven { survives: b, at: t }) => {
                Self::Proven { survives: a.min(b), at: s.min(t) }
            }
            (Self::Proven { survives: a, .. }, Self::Placed(b))
            | (Self::Placed(a), Self::Proven { survives: b, .. }) => Self::Placed(a.min(b)),
            _ => self.min(other),
        }
    }
}

impl PartialOrd for Durability {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Durability {
    fn cmp(&self, other: &Self) -> Ordering {
        self.rank().cmp(&other.rank())
    }
}

impl fmt::Display for Durability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing => f.write_str("missing"),
            Self::Staged => f.write_str("staged"),
            Self::Sealed => f.write_str("sealed"),
            Self::Packed => f.write_str("packed"),
            Self::Placed(survives) => write!(f, "placed survives={survives}"),
            Self::Proven { survives, at } => write!(f, "proven survives={survives} at={at}"),
        }
    }
}

/// Text that is no rung.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a rung of the durability ladder")]
pub struct ParseDurabilityError;

impl FromStr for Durability {
    type Err = ParseDurabilityError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut words = text.split(' ');
        let rung = words.next().unwrap_or_default();
        let mut field = |name: &str| -> Result<u64, ParseDurabilityError> {
            let word = words.next().ok_or(ParseDurabilityError)?;
            let digits =
                word.strip_prefix(name).and_then(|w| w.strip_prefix('=')).ok_or(ParseDurabilityError)?;
            digits.parse().map_err(|_| ParseDurabilityError)
        };
        let small = |n: u64| u8::try_from(n).map_err(|_| ParseDurabilityError);
        let parsed = match rung {
            "missing" => Self::Missing,
            "staged" => Self::Staged,
            "sealed" => Self::Sealed,
            "packed" => Self::Packed,
            "placed" => Self::Placed(small(field("survives")?)?),
            "proven" => Self::Proven { survives: small(field("survives")?)?, at: field("at")? },
            _ => return Err(ParseDurabilityError),
        };
        if words.next().is_some() { Err(ParseDurabilityError) } else { Ok(parsed) }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const RUNGS: [Durability; 7] = [
        Durability::Missing,
        Durability::Staged,
        Durability::Sealed,
        Durability::Packed,
        Durability::Placed(0),
        Durability::Placed(2),
        Durability::Proven { survives: 2, at: 1_700_000_000 },
    ];

    #[test]
    fn text_goes_both_ways() {
        for rung in RUNGS {
            assert_eq!(rung.to_string().parse(), Ok(rung));
        }
        for bad in [
            "",
            "Staged",
            "placed",
            "placed survives=256",
            "placed survives=-1",
            "packed x",
            "proven survives=1",
        ] {
            assert_eq!(bad.parse::<Durability>(), Err(ParseDurabilityError), "{bad}");
        }
    }

    #[test]
    fn the_ladder_is_ordered() {
        assert!(RUNGS.is_sorted());
        for a in RUNGS {
            for b in RUNGS {
                let low = a.lower(b);
                assert!(low <= a && low <= b);
                assert_eq!(low, b.lower(a));
            }
        }
        let many = Durability::Proven { survives: 2, at: 5 }.lower(Durability::Proven { survives: 1, at: 9 });
        assert_eq!(many, Durability::Proven { survives: 1, at: 5 });
    }
}
