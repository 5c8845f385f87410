//! The arguments of `holdfast share` and `holdfast unshare`.

use std::path::PathBuf;

use clap::Args;

#[derive(Debug, Args)]
pub struct ShareArgs {
    /// A file or folder on the mounted drive, as it is now: later changes are not shown
    pub path: PathBuf,
    /// The link ends after so many days
    #[arg(long, value_name = "N", default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=3650))]
    pub days: u64,
    /// The link ends after so many seconds, instead
    #[arg(long = "for", value_name = "SECONDS", conflicts_with = "days", value_parser = clap::value_parser!(u64).range(1..=315_360_000))]
    pub seconds: Option<u64>,
    /// Give up after this many seconds where what was written before is not with the providers yet (exit code 10)
    #[arg(long, value_name = "SECONDS")]
    pub timeout: Option<u64>,
}

#[derive(Debug, Args)]
pub struct UnshareArgs {
    /// The link, the path or the beginning of the id, as `holdfast shares` shows them
    pub which: String,
}
