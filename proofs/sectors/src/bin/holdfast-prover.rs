//! A worker as a program of its own; the daemon calls the same `worker_main` behind a hidden command.

use std::process::ExitCode;

fn main() -> ExitCode {
    holdfast_sectors::work::worker_main()
}
