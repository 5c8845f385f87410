//! A mounted file system that loses power on command; see `holdfast_tests::powercut`.

use std::path::PathBuf;
use std::sync::Arc;

use clap::Parser;
use holdfast_tests::powercut::{Disk, serve};
use parking_lot::Mutex;

/// Mounts a file system, held in memory, that on a power cut loses what no fsync covered.
#[derive(Parser)]
struct Args {
    /// Where to mount it.
    #[arg(long)]
    mount: PathBuf,
    /// The Unix socket that takes commands: freeze, cut SEED, sync, stats, quit.
    #[arg(long)]
    control: PathBuf,
    /// Of the choices made while running (which dirty pages are written back early).
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Answer fsync without doing it: a test that does not notice is worth nothing.
    #[arg(long)]
    ignore_fsync: bool,
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let mut disk = Disk::new(args.seed);
    disk.ignore_fsync = args.ignore_fsync;
    serve(Arc::new(Mutex::new(disk)), &args.mount, &args.control)?;
    Ok(())
}
