//! A piece's class: how many losses it has to survive, and what a placement entry says of it.
//!
//! ```text
//! class   u8     bit 7: as many as the drive's policy asks, whatever that is now; bits 0-3: at least so many; others 0
//! note           version u8 = 1 | class u8 | u8: the losses that the drive's own policy asked for then
//! ```
//!
//! Promises: [`Class::join`] is the least class that is as safe as both, so that joining in any order gives the same. A piece of which nothing is said
//! has [`Class::DRIVE`]: whatever was packed before there were classes.

use crate::dagcbor::FormatError;

const WHAT: &str = "class of a piece";
const VERSION: u8 = 1;
const FOLLOWS: u8 = 0x80;
/// No policy asks for more losses than this to be survived.
pub const SURVIVE_MAX: u8 = 9;

/// See the module.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub struct Class {
    follows: bool,
    least: u8,
}

impl Class {
    /// What the drive's policy asks for.
    pub const DRIVE: Class = Class { follows: true, least: 0 };

    /// So many losses, whatever the drive's policy asks for.
    pub fn of(losses: u8) -> Class {
        Class { follows: false, least: losses.min(SURVIVE_MAX) }
    }

    /// As safe as both.
    #[must_use]
    pub fn join(self, other: Class) -> Class {
        Class { follows: self.follows || other.follows, least: self.least.max(other.least) }
    }

    /// Whether it is as safe as `other`, whatever the drive's policy is or will be.
    pub fn covers(self, other: Class) -> bool {
        self.join(other) == self
    }

    /// The losses to survive where the drive's policy asks for `drive`.
    pub fn losses(self, drive: u8) -> u8 {
        if self.follows { self.least.max(drive) } else { self.least }
    }

    /// As it stands at rest.
    pub fn to_byte(self) -> u8 {
        if self.follows { FOLLOWS | self.least } else { self.least }
    }

    /// From rest.
    pub fn from_byte(byte: u8) -> Option<Class> {
        let (follows, least) = (byte & FOLLOWS != 0, byte & !FOLLOWS);
        (least <= SURVIVE_MAX).then_some(Class { follows, least })
    }
}

/// What a placement entry says of a piece's class.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ClassNote {
    /// Of the piece.
    pub class: Class,
    /// What the drive's own policy asked for when it was said: a restored drive has no other word of it.
    pub drive: u8,
}

impl ClassNote {
    /// As an entry has it.
    pub fn encode(self) -> Vec<u8> {
        vec![VERSION, self.class.to_byte(), self.drive]
    }

    /// From an entry.
    pub fn decode(bytes: &[u8]) -> Result<ClassNote, FormatError> {
        match *bytes {
            [VERSION, class, drive] if drive <= SURVIVE_MAX => {
                let class = Class::from_byte(class);
                class
                    .map(|class| ClassNote { class, drive })
                    .ok_or_else(|| FormatError::malformed(WHAT, "no class"))
            }
            [found, ..] if found > VERSION => {
                Err(FormatError::Newer { what: WHAT, found: found.into(), known: VERSION.into() })
            }
            _ => Err(FormatError::malformed(WHAT, "its length")),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn all() -> impl Iterator<Item = Class> {
        (0..=255).filter_map(Class::from_byte)
    }

    #[test]
    fn joining_is_as_safe_as_both_and_no_safer() {
        assert_eq!(all().count(), 2 * (usize::from(SURVIVE_MAX) + 1));
        for a in all() {
            assert_eq!(Class::from_byte(a.to_byte()), Some(a));
            for b in all() {
                let joined = a.join(b);
                assert!(joined == b.join(a) && joined.covers(a) && joined.covers(b));
                for drive in 0..=SURVIVE_MAX {
                    assert_eq!(
                        joined.losses(drive),
                        a.losses(drive).max(b.losses(drive)),
                        "{a:?} {b:?} {drive}"
                    );
                }
            }
        }
        assert!(!Class::of(3).covers(Class::DRIVE), "the drive's policy may come to ask for more");
        assert!(!Class::DRIVE.covers(Class::of(1)), "or for less");
        assert_eq!((Class::of(0).losses(2), Class::DRIVE.losses(2), Class::of(4).losses(2)), (0, 2, 4));
    }

    #[test]
    fn notes_come_back_and_nothing_else_does() {
        let note = ClassNote { class: Class::DRIVE.join(Class::of(3)), drive: 1 };
        assert_eq!(ClassNote::decode(&note.encode()), Ok(note));
        assert!(matches!(ClassNote::decode(&[2, 0, 0]), Err(FormatError::Newer { .. })));
        for bad in [&[][..], &[1], &[1, 10, 0], &[1, 0x90, 0], &[1, 3, 10], &[1, 3, 1, 0], &[0, 3, 1]] {
            assert!(ClassNote::decode(bad).is_err(), "{bad:?}");
        }
    }
}
