//! Which circuit: how many slots a set has room for, and how many draws a proof answers.
//!
//! The height of a slot's tree is no part of it: it is one constant, so that the root of a slot never
//! depends on the set in which it is proven.

/// The sizes that the circuit is built for. Every shape has parameters of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Shape {
    set_depth: u8,
    draws: u16,
}

impl Shape {
    /// The product's: 32,768 slots (2 TiB in slots of 64 MiB), 32 draws. Their constraints fill nine
    /// tenths of an evaluation domain of 2^18; a thirty-sixth draw would double it.
    pub const V1: Self = Self { set_depth: 5, draws: 32 };
    /// Levels of the set's tree; eight of them hold 16 million slots.
    pub const SET_DEPTH_MAX: u8 = 8;
    /// More draws belong into a second proof: the prover's memory grows with them.
    pub const DRAWS_MAX: u16 = 512;

    /// A shape, where it is allowed: at least one level and one draw.
    #[must_use]
    pub fn new(set_depth: u8, draws: u16) -> Option<Self> {
        let depth = (1..=Self::SET_DEPTH_MAX).contains(&set_depth);
        (depth && (1..=Self::DRAWS_MAX).contains(&draws)).then_some(Self { set_depth, draws })
    }

    /// Levels of the tree over the slots.
    #[must_use]
    pub fn set_depth(self) -> u8 {
        self.set_depth
    }

    /// Groups of leaves that one proof opens.
    #[must_use]
    pub fn draws(self) -> u16 {
        self.draws
    }

    /// Slots that a set has room for.
    #[must_use]
    pub fn slots_max(self) -> usize {
        1 << (3 * self.set_depth)
    }

    /// Depth, then draws big-endian: what files and seeds contain.
    #[must_use]
    pub fn to_bytes(self) -> [u8; 3] {
        let [high, low] = self.draws.to_be_bytes();
        [self.set_depth, high, low]
    }

    /// The shape of these bytes, where it is one.
    #[must_use]
    pub fn from_bytes([depth, high, low]: [u8; 3]) -> Option<Self> {
        Self::new(depth, u16::from_be_bytes([high, low]))
    }
}

#[cfg(test)]
mod tests;
