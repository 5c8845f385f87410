//! Which of a large file's chunks lie in which of the pieces that are filled side by side.

use crate::drive::types::DriveOptions;
use crate::pieces::writer::{LANES, Lane};

/// Runs of chunks in a piece: a read of one run asks one provider once.
const RUNS_OF_PIECE: u64 = 64;

/// The first chunks of a file's in a round go, a run each in turn, to the pieces side by side; the others come one after the other.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Lanes {
    /// Chunks that are to go side by side.
    chunks: u64,
    run: u64,
    given: u64,
}

impl Lanes {
    /// So much data that lanes are thought of at all. `None`: never. Under a quota each piece has to be whole, placed and given up before there is room
    /// for the next.
    pub(crate) fn bytes_min(options: &DriveOptions) -> Option<u64> {
        let group = options.piece_bytes_max.saturating_mul(LANES).max(1);
        options.quota_bytes.is_none().then_some(group)
    }

    /// Of a file of which `bytes` are to be sealed: as many as fill whole groups of pieces, so that none is left small.
    pub(crate) fn of(bytes: u64, chunk_bytes: u64, options: &DriveOptions) -> Lanes {
        let Some(group) = Self::bytes_min(options) else { return Lanes::default() };
        let chunk_bytes = chunk_bytes.max(1);
        let run = (options.piece_bytes_max / RUNS_OF_PIECE / chunk_bytes).max(1);
        Lanes { chunks: bytes / group * group / chunk_bytes, run, given: 0 }
    }

    /// Where the file's next chunk goes.
    pub(crate) fn next(&mut self) -> Lane {
        let n = self.given;
        self.given += 1;
        match n.checked_div(self.run) {
            // Less than LANES, which is small.
            Some(run) if n < self.chunks => 1 + (run % LANES) as Lane,
            _ => 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_groups_go_side_by_side_and_the_rest_in_order() {
        const MIB: u64 = 1 << 20;
        let options =
            DriveOptions { piece_bytes_max: 64 * MIB, quota_bytes: None, ..DriveOptions::default() };
        let lanes = |bytes, options: &DriveOptions| -> Vec<Lane> {
            let mut lanes = Lanes::of(bytes, MIB / 4, options);
            (0..bytes.div_ceil(MIB / 4)).map(|_| lanes.next()).collect()
        };
        assert!(lanes(255 * MIB, &options).iter().all(|lane| *lane == 0));
        let some = lanes(600 * MIB, &options);
        assert_eq!(some.get(..20), Some(&[1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3, 4, 4, 4, 4, 1, 1, 1, 1][..]));
        let (laned, rest) = some.split_at(512 * 4);
        assert!((1..=4).all(|lane| laned.iter().filter(|l| **l == lane).count() == 512));
        assert!(rest.iter().all(|lane| *lane == 0));
        let quota = DriveOptions { piece_bytes_max: 64 * MIB, ..options.with_quota(8 << 30) };
        assert!(lanes(600 * MIB, &quota).iter().all(|lane| *lane == 0), "under a quota");
    }
}
