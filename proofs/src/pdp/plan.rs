//! Which nodes a multiproof carries, in the order in which it carries them.
//!
//! Prover and verifier both ask here, so they cannot disagree. From the leaves upward, left to right:
//! the sibling of every known node is known as well, or lies beyond the data (a constant), or must be
//! given.

/// Where the sibling of a known node comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sibling {
    /// It is the next known node.
    Known,
    /// Only zeros lie under it.
    Zero,
    /// The proof gives it.
    Given,
}

/// The sibling of the node `index` of a level, where `next` is the next known node and `width` nodes
/// of the level have data under them.
pub(super) fn sibling(index: u64, next: Option<u64>, width: u64) -> Sibling {
    let other = index ^ 1;
    if next == Some(other) {
        Sibling::Known
    } else if other >= width {
        Sibling::Zero
    } else {
        Sibling::Given
    }
}

/// Every `(level, index)` that a proof of these leaves (ascending, distinct) gives, in its order.
pub(super) fn given(positions: &[u64], leaves: u64, height: u8) -> Vec<(u8, u64)> {
    let mut out = Vec::new();
    let mut known = positions.to_vec();
    let mut width = leaves;
    for level in 0..height {
        let mut above = Vec::with_capacity(known.len());
        let mut rest = known.as_slice();
        while let Some((index, tail)) = rest.split_first() {
            rest = match sibling(*index, tail.first().copied(), width) {
                Sibling::Known => tail.get(1..).unwrap_or_default(),
                Sibling::Zero => tail,
                Sibling::Given => {
                    out.push((level, index ^ 1));
                    tail
                }
            };
            above.push(index / 2);
        }
        known = above;
        width = width.div_ceil(2);
    }
    out
}
