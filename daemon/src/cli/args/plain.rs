//! The arguments of commands about public data.

use std::path::PathBuf;

use clap::Args;
use holdfast_content::plain::Profile;

#[derive(Debug, Args)]
pub struct ExportArgs {
    /// A file, folder or link, on the drive or anywhere else
    pub path: PathBuf,
    /// The CAR file, which must not be there yet
    #[arg(long, value_name = "FILE")]
    pub car: PathBuf,
    #[command(flatten)]
    pub add: AddArgs,
}

/// What decides the CID.
#[derive(Debug, Args)]
pub struct AddArgs {
    /// How it is cut and linked: unixfs-v0-2015 (what `ipfs add` does by default) or unixfs-v1-2025
    #[arg(long, value_name = "PROFILE", default_value_t = Profile::V0)]
    pub profile: Profile,
    /// Take along what begins with a dot
    #[arg(long)]
    pub hidden: bool,
}

#[derive(Debug, Args)]
pub struct ImportArgs {
    /// A CAR file of version 1 or 2
    pub car: PathBuf,
    /// Where to write it: what is not there yet
    pub path: PathBuf,
    /// Which of its files and folders [default: its only root]
    #[arg(long, value_name = "CID")]
    pub root: Option<cid::Cid>,
}
