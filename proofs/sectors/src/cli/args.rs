//! The arguments of every command, and the help that goes with them.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::params::Circuit;
use crate::profile::Profile;
use crate::types::Bytes32;

const AFTER: &str = "\
Anything of the profiles test-2k and test-8m is of TEST STRENGTH: it shows that the program works, and nothing else.

Exit codes: 0 done, 1 failed, 2 wrong usage, 8 in use, 11 the proof is refused, 12 disk full, 13 no permission,
14 written by a newer version, 15 something that is needed is missing (parameters, memory, disk).";

/// Seals sectors, proves and verifies with Filecoin's circuits; `holdfast` starts it where it is needed.
#[derive(Debug, Parser)]
#[command(name = "holdfast-prover", version, after_help = AFTER, propagate_version = true)]
pub struct Cli {
    /// Print the result, or the error, as JSON
    #[arg(long, global = true)]
    pub json: bool,
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Check a proof file from the public data in it, offline
    Verify(VerifyArgs),
    /// Show, or make, the parameters of a profile, and say what this machine lacks for it
    Params(ParamsArgs),
    /// Prove the sector that a beacon draws, at 66 places (Winning PoSt)
    Winning(WinningArgs),
    /// Read a piece, or a range of it, from the sector that it is sealed in
    Unseal(UnsealArgs),
    /// Keep a provider's archival tier: seal its pieces, prove the sectors on schedule (started by `holdfast provide --seal`)
    Keep(KeepArgs),
    /// Do one job from standard input (started by a provider's prover, never by hand)
    Worker,
}

#[derive(Debug, Args)]
pub struct ParameterFolder {
    /// The folder of parameters [default: ~/.local/share/holdfast-parameters]
    #[arg(long, env = "HOLDFAST_PARAMETERS", value_name = "DIR")]
    pub parameters: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub struct VerifyArgs {
    /// A proof file: possession, seal, Window PoSt or Winning PoSt (`-`: standard input)
    pub file: PathBuf,
    #[command(flatten)]
    pub folder: ParameterFolder,
}

#[derive(Debug, Args)]
pub struct ParamsArgs {
    /// test-2k, test-8m, production-32g or production-64g
    #[arg(long, value_name = "PROFILE")]
    pub profile: Profile,
    /// Only this circuit: porep, window-post or winning-post; may be given several times
    #[arg(long = "circuit", value_name = "CIRCUIT")]
    pub circuits: Vec<Circuit>,
    /// Make what is missing (test profiles only; what is whole already stays, so that it can be gone on with)
    #[arg(long)]
    pub make: bool,
    #[command(flatten)]
    pub folder: ParameterFolder,
}

#[derive(Debug, Args)]
pub struct WinningArgs {
    /// The folder of sectors
    pub dir: PathBuf,
    /// What draws the sector and its places, 64 hexadecimal digits: from a beacon
    #[arg(long, value_name = "HEX")]
    pub beacon: Bytes32,
    /// When: bound into the proof
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub epoch: u64,
    /// Prove this sector, instead of the one that the beacon draws
    #[arg(long, value_name = "N")]
    pub sector: Option<u64>,
    /// Where the proof file goes
    #[arg(long, value_name = "FILE")]
    pub out: PathBuf,
    #[command(flatten)]
    pub folder: ParameterFolder,
}

#[derive(Debug, Args)]
pub struct UnsealArgs {
    /// The folder of sectors
    pub dir: PathBuf,
    /// The piece CID
    pub piece: String,
    /// Where to begin
    #[arg(long, value_name = "BYTES", default_value_t = 0)]
    pub offset: u64,
    /// How much [default: to the end of the piece]
    #[arg(long, value_name = "BYTES")]
    pub length: Option<u64>,
    /// Where the bytes go
    #[arg(long, value_name = "FILE")]
    pub out: PathBuf,
}

#[derive(Debug, Args)]
pub struct KeepArgs {
    /// The folder of sectors and proofs (made where it is missing)
    pub dir: PathBuf,
    /// test-2k, test-8m, production-32g or production-64g
    #[arg(long, value_name = "PROFILE")]
    pub profile: Profile,
    /// Who seals: 64 hexadecimal digits, bound into every replica
    #[arg(long, value_name = "HEX")]
    pub prover: Bytes32,
    /// Cores that sealing and proving may use
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=4096))]
    pub cores: u32,
    /// Bytes of memory that they may use
    #[arg(long, value_name = "BYTES")]
    pub memory: u64,
    /// Seconds in which every sector is proven once
    #[arg(long, value_name = "SECONDS", default_value_t = 86_400)]
    pub period: u64,
    /// Seconds from a challenge to the end of its window; the period is a multiple of it
    #[arg(long, value_name = "SECONDS", default_value_t = 1_800)]
    pub deadline: u64,
    /// Seconds that a piece waits for others to fill a sector with
    #[arg(long, value_name = "SECONDS", default_value_t = 3_600)]
    pub gather: u64,
    /// Seconds that a new seal may take before no more deals are taken
    #[arg(long, value_name = "SECONDS", default_value_t = 172_800)]
    pub seal_within: u64,
    /// Answer all candidate challenges of a seal at once, so that its layers can go early (FIP-0059)
    #[arg(long)]
    pub synthetic: bool,
    /// Give up the unsealed copy of a sector once it is sealed: pieces are then read from the deals' slots, or unsealed
    #[arg(long)]
    pub drop_unsealed: bool,
    #[command(flatten)]
    pub folder: ParameterFolder,
}

impl ParameterFolder {
    /// The folder that was asked for, made absolute: workers run elsewhere.
    pub fn path(&self) -> PathBuf {
        let path = self.parameters.clone().unwrap_or_else(default_folder);
        std::path::absolute(&path).unwrap_or(path)
    }
}

fn default_folder() -> PathBuf {
    let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    variable("XDG_DATA_HOME")
        .filter(|path| path.is_absolute())
        .or_else(|| variable("HOME").map(|home| home.join(".local/share")))
        .unwrap_or_else(|| PathBuf::from("."))
        .join("holdfast-parameters")
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_definitions_hold_together() {
        Cli::command().debug_assert();
        let cli =
            Cli::try_parse_from(["x", "params", "--profile", "test-2k", "--circuit", "window-post"]).unwrap();
        let Command::Params(args) = cli.command else { panic!() };
        assert_eq!((args.profile, args.circuits), (Profile::Test2k, vec![Circuit::WindowPost]));
        assert!(Cli::try_parse_from(["x", "params", "--profile", "test-3k"]).is_err());
    }
}
