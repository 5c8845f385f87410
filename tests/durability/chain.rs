//! One stripe as a Markov chain: how long until more slots are lost than it survives.
//!
//! ```text
//!   state j: j of n slots are lost          j -> j+1   (n - j) L       L: one slot's holder is gone for ever, a year
//!                                           j -> j-1   j / T           T: mean time from a loss to its rebuilt slot, years
//!   absorbing: j = m + 1
//! ```
//!
//! The mean time to absorption is solved exactly (a tridiagonal system), in the form that only adds positive numbers, so
//! that eleven nines are not lost to rounding.

/// How data is spread: any `survives` of `slots` may be lost. Copies are the case of one data slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Code {
    pub data: u32,
    pub parity: u32,
}

impl Code {
    pub const fn copies(count: u32) -> Code {
        Code { data: 1, parity: count - 1 }
    }

    pub const fn stripe(data: u32, parity: u32) -> Code {
        Code { data, parity }
    }

    pub fn slots(self) -> u32 {
        self.data + self.parity
    }

    /// Bytes stored for a byte of data.
    pub fn expansion(self) -> f64 {
        f64::from(self.slots()) / f64::from(self.data)
    }

    /// Bytes moved for a byte of data and year, where slots are lost at the rate `loss` a year: a slot is rebuilt from
    /// `data` others of its size and written once.
    pub fn repair_traffic(self, loss: f64) -> f64 {
        self.expansion() * loss * f64::from(self.data + 1)
    }

    pub fn name(self) -> String {
        match self.data {
            1 => format!("{} copies", self.slots()),
            data => format!("{data}+{}", self.parity),
        }
    }
}

/// Mean years until a stripe is lost. `loss` a year and slot, `repair` years.
pub fn years_to_loss(code: Code, loss: f64, repair: f64) -> f64 {
    // Let h(j) be the mean time from j to j + 1. From the balance at j: h(j) = (1 + down(j) h(j-1)) / up(j).
    let mut from_here = 0.0;
    let mut total = 0.0;
    for lost in 0..=code.parity {
        let up = f64::from(code.slots() - lost) * loss;
        let down = f64::from(lost) / repair;
        from_here = (1.0 + down * from_here) / up;
        total += from_here;
    }
    total
}

/// The chance that a stripe is lost within a year.
pub fn annual_loss(code: Code, loss: f64, repair: f64) -> f64 {
    -(-1.0 / years_to_loss(code, loss, repair)).exp_m1()
}

/// The chance that more than `parity` of the slots are among what is gone, where each holder is with the chance `gone`:
/// a loss if it is for ever, an outage if it is for now.
pub fn beyond(code: Code, gone: f64) -> f64 {
    let n = code.slots();
    (code.parity + 1..=n)
        .map(|k| choose(n, k) * gone.powi(k as i32) * (1.0 - gone).powi((n - k) as i32))
        .sum()
}

fn choose(n: u32, k: u32) -> f64 {
    (1..=k).fold(1.0, |product, i| product * f64::from(n - k + i) / f64::from(i))
}

/// "Nines" of a chance of failure.
pub fn nines(chance: f64) -> f64 {
    if chance <= 0.0 { f64::INFINITY } else { -chance.log10() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn near(a: f64, b: f64) {
        assert!((a / b - 1.0).abs() < 1e-9, "{a} is not {b}");
    }

    #[test]
    fn small_chains_have_their_known_times() {
        // One copy: the holder's own life. Two: (3 L + 1/T) / (2 L^2).
        near(years_to_loss(Code::copies(1), 0.5, 1.0), 2.0);
        near(years_to_loss(Code::copies(2), 0.5, 0.01), (1.5 + 100.0) / (2.0 * 0.25));
        // Without any repair: the sum of the waits.
        near(years_to_loss(Code::stripe(2, 1), 1.0, f64::INFINITY), 1.0 / 3.0 + 1.0 / 2.0);
    }

    #[test]
    fn the_tail_is_the_binomials() {
        near(beyond(Code::copies(3), 0.1), 0.001);
        near(beyond(Code::stripe(2, 1), 0.5), 0.5);
        assert!(beyond(Code::stripe(4, 2), 0.0) == 0.0);
    }

    #[test]
    fn more_parity_and_faster_repair_are_better() {
        let chance = |m, repair| annual_loss(Code::stripe(4, m), 1.0, repair);
        assert!(chance(3, 0.001) < chance(2, 0.001) && chance(2, 0.0001) < chance(2, 0.001));
        assert!(nines(1e-11) > 10.9);
    }
}
