//! What a bound slot and a series of compressed audits imply, as numbers.
//!
//! A cheater that keeps the fraction f of a slot's leaves may have committed to a tree in which the
//! fraction d (at most 1 - f) differs from the slot, in leaves that cost it nothing to keep. It passes n
//! openings in both trees with (1 - d)^n and K draws afterwards with (f + d)^K. It chooses d before
//! either is known:
//!
//! ```text
//! unnoticed(f, n, K) = max over d in [0, 1 - f] of (1 - d)^n (f + d)^K
//!                      at d = (K - n f) / (n + K), cut to the interval
//! ```
//!
//! With no draws it is 1 (nothing was asked), with ever more it tends to f^n: what the openings never
//! noticed, no audit of the wrong tree will. `SOUNDNESS.md` draws the consequences.

/// Openings and draws that a slot (or a set, for losses that are spread over it alike) has passed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BoundAudits {
    /// Leaves opened in both trees, over all binding checks of this commitment.
    pub openings: u64,
    /// Draws answered by compressed proofs since.
    pub draws: u64,
}

impl BoundAudits {
    /// The largest probability with which someone who keeps only the fraction `kept` has passed all of
    /// it; 1 for fractions that are none.
    #[must_use]
    pub fn unnoticed(self, kept: f64) -> f64 {
        if !(0.0..1.0).contains(&kept) {
            return 1.0;
        }
        let differing = self.best_difference(kept);
        power(1.0 - differing, self.openings) * power(kept + differing, self.draws)
    }

    /// The fraction of wrong leaves that serves such a cheater best.
    #[must_use]
    pub fn best_difference(self, kept: f64) -> f64 {
        let (openings, draws) = (self.openings as f64, self.draws as f64);
        if openings + draws == 0.0 {
            return 0.0;
        }
        ((draws - openings * kept) / (openings + draws)).clamp(0.0, 1.0 - kept)
    }

    /// The largest fraction of wrong leaves that these openings let pass with probability `chance`.
    #[must_use]
    pub fn differing_at_most(self, chance: f64) -> f64 {
        if self.openings == 0 {
            return 1.0;
        }
        1.0 - chance.clamp(0.0, 1.0).powf(1.0 / self.openings as f64)
    }
}

fn power(base: f64, exponent: u64) -> f64 {
    base.powf(exponent as f64)
}

#[cfg(test)]
mod tests;
