//! `holdfast-prover keep`: a provider's archival tier.

use super::Outcome;
use super::args::KeepArgs;
use super::exit::{Exit, Failure};
use crate::engine::{Budget, SystemClock, WorkerExecutor};
use crate::entropy::SystemRng;
use crate::keeper::{Keeper, KeeperError, Settings, run as keep};
use crate::profile::SealMode;
use crate::sector::SectorError;
use crate::work::Launcher;
use crate::workshop::Workshop;

/// What seals add to their niceness: proofs of spacetime, audits and serving go first.
const SEAL_NICE: u8 = 10;
pub(super) const WORKSHOP: &str = "workshop";

pub fn run(args: &KeepArgs) -> Outcome {
    let settings = Settings {
        profile: args.profile,
        mode: if args.synthetic { SealMode::Synthetic } else { SealMode::Interactive },
        keep_unsealed: !args.drop_unsealed,
        prover: args.prover,
        budget: Budget { cores: args.cores, memory_bytes: args.memory },
        period_seconds: args.period,
        deadline_seconds: args.deadline,
        gather_seconds: args.gather,
        seal_seconds_max: args.seal_within,
    };
    std::fs::create_dir_all(&args.dir)?;
    let dir = args.dir.canonicalize()?;
    let parameters = args.folder.path();
    std::fs::create_dir_all(&parameters)?;
    let workshop =
        Workshop::create(&dir.join(WORKSHOP)).map_err(KeeperError::from)?.with_parameters(parameters);
    let program = std::env::current_exe()?;
    let launcher = Launcher::new(program, vec!["worker".into()], workshop.clone());
    let executor = WorkerExecutor::new(launcher, SEAL_NICE);
    let keeper = Keeper::open(&dir, workshop, settings, executor, SystemClock, &mut SystemRng)?;
    Ok(keep(keeper, &dir, &SystemClock)?)
}

impl From<KeeperError> for Failure {
    fn from(error: KeeperError) -> Self {
        let message = error.to_string();
        match error {
            KeeperError::Io { source, .. } => Self::from(source).worded(message),
            KeeperError::Newer { .. } | KeeperError::Sector(SectorError::Newer { .. }) => {
                Self::new(Exit::NewerFormat, message).hint("Update this program; nothing was changed.")
            }
            KeeperError::Busy(_) => Self::new(Exit::InUse, message),
            KeeperError::Unfit { .. } => Self::new(Exit::Missing, message).hint(
                "`holdfast proofs params --profile ...` says more; the test profiles need next to nothing.",
            ),
            KeeperError::Schedule(_) | KeeperError::Budget { .. } => Self::new(Exit::Usage, message),
            _ => Self::new(Exit::Failed, message),
        }
    }
}
