//! Whether this machine can do what a profile asks, and what it lacks if not.
//!
//! Memory and disk of production profiles are checked before a sector is begun, since pre-commit 1 takes hours
//! and the lack of them shows at its end. Test profiles ask for little and are checked the same way.

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use nix::sys::statvfs::statvfs;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::params::ParamsReport;
use crate::profile::Profile;
use crate::workshop::Workshop;

const GIB: u64 = 1 << 30;
/// Memory for commit 2 and Window PoSt of 32 and 64 GiB sectors: the published recommendation for Filecoin's
/// storage providers (128 GiB of memory "at the very least", with 128 GiB of swap). Not measured by us.
const PRODUCTION_MEMORY_BYTES: u64 = 128 * GIB;
const PRODUCTION_SWAP_BYTES: u64 = 128 * GIB;
/// Measured: commit 2 of a 2 KiB sector; circuits of 8 MiB are a little larger.
const TEST_MEMORY_BYTES: u64 = 3 * GIB;
/// 14 parents of four bytes for each node of 32 bytes.
const PARENT_BYTES_A_NODE: u64 = 14 * 4;
const NODE_BYTES: u64 = 32;

/// Why the machine could not be looked at.
#[derive(Debug, Error)]
#[error("{}: {source}", path.display())]
pub struct MachineError {
    path: PathBuf,
    source: io::Error,
}

/// What sealing a sector takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Needs {
    pub memory_bytes: u64,
    pub swap_bytes: u64,
    /// While a sector is sealed: unsealed copy, replica, layers, three trees.
    pub scratch_bytes: u64,
    /// The table of graph parents, once for all sectors of the profile.
    pub parents_bytes: u64,
}

/// What the machine has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Has {
    pub memory_bytes: u64,
    pub swap_bytes: u64,
    /// Free in the workshop's file system.
    pub disk_bytes: u64,
    pub cores: u32,
    /// Without SHA instructions pre-commit 1 takes several times as long.
    pub sha_instructions: bool,
}

/// The verdict on a machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MachineReport {
    pub profile: Profile,
    pub strength: String,
    pub needs: Needs,
    pub has: Has,
    pub parameters: ParamsReport,
    /// Each thing that is missing, in words. Empty if the profile can be used.
    pub missing: Vec<String>,
}

impl Profile {
    /// What sealing a sector of this profile takes.
    #[must_use]
    pub fn needs(self) -> Needs {
        let sector = self.sector_bytes();
        let trees = sector * 2 + sector / 7 * 8 + sector / 7;
        let (memory_bytes, swap_bytes) = if self.is_production() {
            (PRODUCTION_MEMORY_BYTES, PRODUCTION_SWAP_BYTES)
        } else {
            (TEST_MEMORY_BYTES, 0)
        };
        Needs {
            memory_bytes,
            swap_bytes,
            scratch_bytes: sector * (2 + self.layers()) + trees,
            parents_bytes: sector / NODE_BYTES * PARENT_BYTES_A_NODE,
        }
    }
}

impl Has {
    /// Looks at memory, disk and processor.
    ///
    /// # Errors
    /// Where the system does not tell.
    pub fn look(workshop: &Path) -> Result<Self, MachineError> {
        let at = |path: &Path| {
            let path = path.to_owned();
            move |source| MachineError { path, source }
        };
        let meminfo = Path::new("/proc/meminfo");
        let text = fs::read_to_string(meminfo).map_err(at(meminfo))?;
        let disk_bytes = disk_free(workshop).map_err(at(workshop))?;
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Ok(Self {
            memory_bytes: kilobytes(&text, "MemTotal:"),
            swap_bytes: kilobytes(&text, "SwapTotal:"),
            disk_bytes,
            cores: u32::try_from(cores).unwrap_or(u32::MAX),
            sha_instructions: sha_instructions(),
        })
    }
}

/// Bytes that are free where a folder is.
pub(crate) fn disk_free(dir: &Path) -> io::Result<u64> {
    let disk = statvfs(dir)?;
    Ok(disk.blocks_available().saturating_mul(disk.fragment_size()))
}

fn sha_instructions() -> bool {
    #[cfg(target_arch = "x86_64")]
    return std::arch::is_x86_feature_detected!("sha");
    #[cfg(target_arch = "aarch64")]
    return std::arch::is_aarch64_feature_detected!("sha2");
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    return false;
}

/// A line of the kernel's memory table, in bytes; nothing where there is no such line.
fn kilobytes(text: &str, name: &str) -> u64 {
    text.lines()
        .find_map(|line| line.strip_prefix(name))
        .and_then(|rest| rest.split_whitespace().next())
        .and_then(|number| number.parse::<u64>().ok())
        .map_or(0, |kilobytes| kilobytes.saturating_mul(1_024))
}

impl MachineReport {
    /// Judges what was seen.
    #[must_use]
    pub fn judge(profile: Profile, has: Has, parameters: ParamsReport, parents_there: u64) -> Self {
        let needs = profile.needs();
        let mut missing = Vec::new();
        let mut lack = |what: &str, needed: u64, there: u64| {
            if there < needed {
                missing.push(format!("{what}: {} needed, {} there", size(needed), size(there)));
            }
        };
        lack("memory", needs.memory_bytes, has.memory_bytes);
        lack("swap", needs.swap_bytes, has.swap_bytes);
        let disk = needs.scratch_bytes + needs.parents_bytes.saturating_sub(parents_there);
        lack("free disk", disk, has.disk_bytes);
        if profile.is_production() && !has.sha_instructions {
            missing.push("SHA instructions of the processor".to_owned());
        }
        if !parameters.ready() {
            missing.push("parameters: not all there, or not published ones (see above)".to_owned());
        }
        let strength = profile.strength().to_owned();
        Self { profile, strength, needs, has, parameters, missing }
    }

    /// Looks at this machine and hashes the profile's parameters.
    ///
    /// # Errors
    /// Where the system does not tell.
    pub fn look(profile: Profile, workshop: &Workshop) -> Result<Self, MachineError> {
        let has = Has::look(workshop.dir())?;
        let parents_there = workshop.parents_bytes();
        Ok(Self::judge(profile, has, workshop.parameters().report(profile), parents_there))
    }

    #[must_use]
    pub fn ready(&self) -> bool {
        self.missing.is_empty()
    }
}

pub(crate) fn size(bytes: u64) -> String {
    if bytes >= GIB { format!("{} GiB", bytes / GIB) } else { format!("{} MiB", bytes >> 20) }
}

impl fmt::Display for MachineReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.parameters)?;
        if self.ready() {
            return write!(f, "this machine can seal {}", self.profile);
        }
        write!(f, "this machine cannot seal {}; it lacks", self.profile)?;
        for line in &self.missing {
            write!(f, "\n  {line}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::params::{Circuit, FileReport, FileState, Origin};
    use crate::profile::TEST_STRENGTH;

    fn parameters(profile: Profile, origin: Origin) -> ParamsReport {
        let file = |circuit| FileReport { circuit, file: String::new(), state: FileState::Ready { origin } };
        ParamsReport {
            profile,
            strength: profile.strength().to_owned(),
            folder: String::new(),
            files: Circuit::ALL.map(file).to_vec(),
        }
    }

    const SERVER: Has = Has {
        memory_bytes: 256 * GIB,
        swap_bytes: 128 * GIB,
        disk_bytes: 2_048 * GIB,
        cores: 32,
        sha_instructions: true,
    };

    #[test]
    fn production_is_judged_by_each_need() {
        let judge = |has| {
            let parameters = parameters(Profile::Production32g, Origin::Published);
            MachineReport::judge(Profile::Production32g, has, parameters, 0).missing
        };
        assert!(judge(SERVER).is_empty());
        for (has, word) in [
            (Has { memory_bytes: 24 * GIB, ..SERVER }, "memory: 128 GiB needed, 24 GiB there"),
            (Has { swap_bytes: 0, ..SERVER }, "swap"),
            (Has { disk_bytes: 500 * GIB, ..SERVER }, "free disk"),
            (Has { sha_instructions: false, ..SERVER }, "SHA"),
        ] {
            let missing = judge(has);
            assert_eq!(missing.len(), 1);
            assert!(missing[0].contains(word), "{missing:?}");
        }
    }

    #[test]
    fn needs_are_filecoins() {
        // 32 GiB: two copies, eleven layers, trees of 64, 36.6 and 4.6 GiB; a table of 56 GiB.
        let needs = Profile::Production32g.needs();
        assert_eq!(needs.scratch_bytes / GIB, 521);
        assert_eq!(needs.parents_bytes / GIB, 56);
        assert!(Profile::Production64g.needs().scratch_bytes > needs.scratch_bytes);
    }

    #[test]
    fn this_machine_says_what_it_lacks() {
        let dir = tempfile::tempdir().unwrap();
        let workshop = Workshop::create(dir.path()).unwrap();
        for profile in Profile::ALL {
            let report = MachineReport::look(profile, &workshop).unwrap();
            assert!(report.has.memory_bytes > 0 && report.has.disk_bytes > 0 && report.has.cores > 0);
            // There are no parameters.
            assert!(!report.ready());
            assert_eq!(report.to_string().contains(TEST_STRENGTH), !profile.is_production());
            let json = serde_json::to_string(&report).unwrap();
            assert_eq!(serde_json::from_str::<MachineReport>(&json).unwrap(), report);
        }
    }

    #[test]
    fn the_memory_table_is_read() {
        let text = "MemTotal:       24610000 kB\nSwapTotal: x kB\n";
        assert_eq!(kilobytes(text, "MemTotal:"), 24_610_000 * 1_024);
        assert_eq!(kilobytes(text, "SwapTotal:"), 0);
        assert_eq!(kilobytes(text, "Absent:"), 0);
    }
}
