//! The arguments of `holdfast proofs`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::data_folder;

#[derive(Debug, Args)]
pub struct ProofsArgs {
    #[command(subcommand)]
    pub command: ProofsCommand,
}

#[derive(Debug, Subcommand)]
pub enum ProofsCommand {
    /// Check a proof file from the public data in it
    Verify(ProofsVerifyArgs),
    /// Show, or make, the parameters of a profile, and say what this machine lacks for it (by holdfast-prover)
    Params(ProofsParamsArgs),
    /// Name the bytes of a file, or of several, and prove possession of them
    Prove(ProofsProveArgs),
    /// Prove the sealed sector that a beacon draws from a provider's, at 66 places: Winning PoSt (by holdfast-prover)
    Winning(ProofsWinningArgs),
    /// Read a piece, or a range of it, from the sealed sector that it is in (by holdfast-prover)
    Unseal(ProofsUnsealArgs),
    /// Prove possession of many files in one proof of 192 bytes, under parameters of this machine's own: TEST STRENGTH
    Compress(ProofsCompressArgs),
    /// Open leaves of a file in its two trees, so that whoever knows its piece CID can rely on the second one
    Open(ProofsOpenArgs),
    /// Show how a provider's sealing stands: sectors, windows, tasks, deadlines at risk
    Status {
        /// The provider's folder
        dir: PathBuf,
    },
}

#[derive(Debug, Args)]
pub struct ParameterFolder {
    /// The folder of parameters [default: ~/.local/share/holdfast-parameters]
    #[arg(long, env = "HOLDFAST_PARAMETERS", value_name = "DIR")]
    pub parameters: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub struct ProofsVerifyArgs {
    /// Possession of a piece or of a set, compressed possession, openings, seal, Window PoSt or Winning PoSt (`-`: standard input)
    pub file: PathBuf,
    #[command(flatten)]
    pub folder: ParameterFolder,
}

#[derive(Debug, Args)]
pub struct ProofsParamsArgs {
    /// test-2k, test-8m (both of TEST STRENGTH), production-32g or production-64g
    #[arg(long, value_name = "PROFILE")]
    pub profile: String,
    /// Only this circuit: porep, window-post or winning-post; may be given several times
    #[arg(long = "circuit", value_name = "CIRCUIT")]
    pub circuits: Vec<String>,
    /// Make what is missing (test profiles only; what is whole already stays, so that it can be gone on with)
    #[arg(long)]
    pub make: bool,
    #[command(flatten)]
    pub folder: ParameterFolder,
}

#[derive(Debug, Args)]
pub struct ProofsProveArgs {
    /// The bytes to be proven; of several files one set is proven, in this order
    #[arg(required = true, value_name = "FILE")]
    pub files: Vec<PathBuf>,
    /// What the leaves are drawn with, 64 hexadecimal digits: from who asks, or from a beacon
    #[arg(long, value_name = "HEX")]
    pub seed: String,
    /// How many leaves are drawn
    #[arg(long, value_name = "N", default_value_t = holdfast_proofs::pdp::DEFAULT_CHALLENGES)]
    pub count: u16,
    /// Where the proof file goes
    #[arg(long, value_name = "FILE")]
    pub out: PathBuf,
}

#[derive(Debug, Args)]
pub struct ProofsWinningArgs {
    /// The provider's folder
    pub dir: PathBuf,
    /// What draws the sector and its places, 64 hexadecimal digits: from a beacon
    #[arg(long, value_name = "HEX")]
    pub beacon: String,
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
pub struct ProofsUnsealArgs {
    /// The provider's folder
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
pub struct ProofsCompressArgs {
    /// The slots, in the order of the set
    #[arg(required = true, value_name = "FILE")]
    pub files: Vec<PathBuf>,
    /// Where their trees are kept: minutes of a core for each GiB the first time (made where it is missing)
    #[arg(long, value_name = "DIR")]
    pub trees: PathBuf,
    /// Bytes that nobody could foresee, 64 hexadecimal digits: from who asks, or from a beacon
    #[arg(long, value_name = "HEX")]
    pub fresh: String,
    /// Where the report goes
    #[arg(long, value_name = "FILE")]
    pub out: PathBuf,
    #[command(flatten)]
    pub folder: ParameterFolder,
}

#[derive(Debug, Args)]
pub struct ProofsOpenArgs {
    /// The slot
    pub file: PathBuf,
    /// Where its tree is kept (made where it is missing)
    #[arg(long, value_name = "DIR")]
    pub trees: PathBuf,
    /// What the leaves are drawn with, 64 hexadecimal digits: from who asks
    #[arg(long, value_name = "HEX")]
    pub seed: String,
    /// How many leaves are drawn
    #[arg(long, value_name = "N", default_value_t = holdfast_proofs::pdp::DEFAULT_CHALLENGES)]
    pub count: u16,
    /// Where the openings go
    #[arg(long, value_name = "FILE")]
    pub out: PathBuf,
}

impl ParameterFolder {
    /// The folder that was asked for, or the one that the prover takes as well.
    pub fn path(&self) -> PathBuf {
        self.parameters.clone().unwrap_or_else(|| data_folder().join("holdfast-parameters"))
    }
}
