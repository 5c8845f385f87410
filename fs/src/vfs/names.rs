//! Which slots of a large directory are in use, some bytes each.
//!
//! A directory that has outgrown what is kept whole leaves this behind: whoever makes a name there has to know that it does not exist, whoever removes one
//! that no other stands behind it, and to be told so by the index costs more than all else about it. Promises: a slot in use is never said to be free; a
//! free one is said to be in use so rarely that asking the rows then costs nothing. Bounded: [`SLOTS_MAX`], beyond which the rows are asked as before.

use crate::rows::Tag;

/// Slots of one directory at most: some six bytes each.
const SLOTS_MAX: usize = 1 << 22;
/// Parts by the first bits of a tag, which are those of a hash. A power of two; each part is searched and shifted as one.
const PARTS: usize = 1 << 12;
/// Tags have 63 bits.
const PART_SHIFT: u32 = 63 - PARTS.trailing_zeros();
/// So many slots weigh as much as one that is kept whole.
const WEIGHT: usize = 16;

/// The slots in use: of each the part, and the last 32 bits of its tag, which are 25 of the hash and the place in its chain.
pub(crate) struct Names {
    parts: Vec<Vec<u32>>,
    len: usize,
}

impl Names {
    /// `None`: too many.
    pub(crate) fn of(mut tags: impl Iterator<Item = Tag>) -> Option<Self> {
        let mut names = Self { parts: vec![Vec::new(); PARTS], len: 0 };
        tags.all(|tag| names.add(tag)).then_some(names)
    }

    fn split(tag: Tag) -> (usize, u32) {
        ((tag >> PART_SHIFT) as usize % PARTS, tag as u32)
    }

    /// Whether there was room. Of two slots that look alike both are here, so that one stays when the other goes.
    #[must_use]
    pub(crate) fn add(&mut self, tag: Tag) -> bool {
        let (part, rest) = Self::split(tag);
        let Some(part) = self.parts.get_mut(part).filter(|_| self.len < SLOTS_MAX) else { return false };
        part.insert(part.partition_point(|other| *other < rest), rest);
        self.len += 1;
        true
    }

    pub(crate) fn remove(&mut self, tag: Tag) {
        let (part, rest) = Self::split(tag);
        let Some(part) = self.parts.get_mut(part) else { return };
        if let Ok(at) = part.binary_search(&rest) {
            part.remove(at);
            self.len -= 1;
        }
    }

    /// Nothing stands in this slot.
    pub(crate) fn is_free(&self, tag: Tag) -> bool {
        let (part, rest) = Self::split(tag);
        self.parts.get(part).is_some_and(|part| part.binary_search(&rest).is_err())
    }

    /// As how many slots that are kept whole it counts.
    pub(crate) fn weight(&self) -> usize {
        self.len / WEIGHT
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::collections::BTreeSet;

    use super::*;

    fn tag(n: u64) -> Tag {
        let hash = blake3::hash(&n.to_le_bytes());
        u64::from_le_bytes(*hash.as_bytes().first_chunk().unwrap()) >> 8 << 7
    }

    #[test]
    fn a_slot_in_use_is_never_free_and_others_almost_always_are() {
        let mut used: BTreeSet<Tag> = (0..20_000).map(tag).collect();
        let mut names = Names::of(used.iter().copied()).unwrap();
        for n in 20_000..60_000 {
            assert!(names.add(tag(n)));
            used.insert(tag(n));
            if n % 3 == 0 {
                names.remove(tag(n - 20_000));
                used.remove(&tag(n - 20_000));
            }
        }
        assert!(used.iter().all(|tag| !names.is_free(*tag)));
        // The next place of a chain is another slot.
        assert!(used.iter().all(|tag| names.is_free(tag + 1)));
        let wrong = (60_000..160_000).filter(|n| !names.is_free(tag(*n))).count();
        assert!(wrong < 10, "{wrong} of 100,000");
        assert_eq!(names.len, used.len());
        used.iter().for_each(|tag| names.remove(*tag));
        assert_eq!(names.len, 0);
    }

    #[test]
    fn of_two_that_look_alike_one_stays() {
        // They differ in none of the bits that are kept.
        let (one, other) = (tag(7), tag(7) ^ 1 << 40);
        assert_eq!(Names::split(one), Names::split(other));
        let mut names = Names::of([one, other].into_iter()).unwrap();
        names.remove(one);
        assert!(!names.is_free(other));
        names.remove(other);
        assert!(names.is_free(one) && names.is_free(other));
    }

    #[test]
    fn it_is_bounded() {
        let mut names = Names::of(std::iter::empty()).unwrap();
        names.len = SLOTS_MAX;
        assert!(!names.add(tag(1)));
    }
}
