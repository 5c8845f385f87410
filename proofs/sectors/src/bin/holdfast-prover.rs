//! The prover: seals, proves and verifies for Holdfast in a process of its own.

use std::process::ExitCode;

fn main() -> ExitCode {
    holdfast_sectors::cli::main()
}
