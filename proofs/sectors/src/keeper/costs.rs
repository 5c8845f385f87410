//! What each kind of task is reckoned to take. Test profiles were measured (`../SOUNDNESS.md`, section 10); production was
//! not run: its figures are Filecoin's recommendations and only bound what is begun.

use super::Settings;
use crate::engine::{Budget, Cost};
use crate::profile::Profile;

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
const MINUTE: u64 = 60_000;
/// Copying, expanding and hashing a sector's bytes.
const FILL_BYTES_A_MILLI: u64 = 50_000;

/// Cores of one proof of spacetime: they are left free by seals, so that a window stops none.
fn proof_cores(budget: Budget) -> u32 {
    (budget.cores / 2).max(1)
}

fn seal_cores(budget: Budget) -> u32 {
    budget.cores.saturating_sub(proof_cores(budget)).max(1)
}

pub(super) fn fill(settings: &Settings) -> Cost {
    let cpu_millis = 200 + settings.profile.sector_bytes() / FILL_BYTES_A_MILLI;
    Cost { cpu_millis, memory_bytes: 256 * MIB, cores: 1 }
}

/// All phases up to commit 1.
pub(super) fn seal(settings: &Settings) -> Cost {
    let (cpu_millis, memory_bytes) = match settings.profile {
        Profile::Test2k => (500, GIB),
        Profile::Test8m => (17_000, 2 * GIB),
        production => (40 * 60 * MINUTE, production.needs().memory_bytes),
    };
    Cost { cpu_millis, memory_bytes, cores: seal_cores(settings.budget) }
}

/// Commit 2.
pub(super) fn groth(settings: &Settings) -> Cost {
    let (cpu_millis, memory_bytes) = match settings.profile {
        Profile::Test2k => (110_000, 4 * GIB),
        Profile::Test8m => (150_000, 5 * GIB),
        production => (30 * 60 * MINUTE, production.needs().memory_bytes),
    };
    Cost { cpu_millis, memory_bytes, cores: seal_cores(settings.budget) }
}

pub(super) fn window(settings: &Settings, sectors: usize) -> Cost {
    let partitions = sectors.div_ceil(settings.profile.window_sectors()) as u64;
    let (cpu_millis, memory_bytes) = match settings.profile {
        Profile::Test2k => (4_000, GIB),
        Profile::Test8m => (8_000, GIB),
        production => (10 * MINUTE, production.needs().memory_bytes),
    };
    Cost { cpu_millis: cpu_millis * partitions, memory_bytes, cores: proof_cores(settings.budget) }
}

/// Working the layers of a sector once more.
pub(super) fn unseal(settings: &Settings) -> Cost {
    Cost { cores: 1, ..seal(settings) }
}

/// Making parameters for Window PoSt, of a test profile.
pub(super) fn parameters(settings: &Settings) -> Cost {
    Cost { cpu_millis: 3_000, memory_bytes: GIB, cores: settings.budget.cores }
}
