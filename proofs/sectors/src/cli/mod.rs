//! The commands of `holdfast-prover`. Each is thin: it reads arguments, calls what does the work, prints, and chooses
//! an exit code.
//!
//! Results go to standard output, everything else to standard error. With `--json` the output is one JSON object, and
//! so is an error. Shapes and codes are those of `holdfast proofs` and stand in `daemon/CLI.md`; they do not change.

mod args;
mod exit;
mod keep;
mod params;
mod sectors;
mod verify;

use std::io::{self, Write};
use std::process::ExitCode;

use clap::Parser;
use serde::Serialize;

use args::{Cli, Command};
use exit::{Exit, Failure};

type Outcome = Result<(), Failure>;

/// The whole program.
#[must_use]
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return not_understood(&error),
    };
    let outcome = match &cli.command {
        Command::Verify(args) => verify::run(cli.json, args),
        Command::Params(args) => params::run(cli.json, args),
        Command::Winning(args) => sectors::winning(cli.json, args),
        Command::Unseal(args) => sectors::unseal(cli.json, args),
        Command::Keep(args) => keep::run(args),
        Command::Worker => return crate::work::worker_main(),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            failure.print(cli.json);
            ExitCode::from(failure.exit.code())
        }
    }
}

/// Help, the version, or what is wrong with the arguments; a program gets that as an object too.
fn not_understood(error: &clap::Error) -> ExitCode {
    if error.use_stderr() && std::env::args_os().any(|argument| argument == "--json") {
        let text = error.to_string();
        let message = text.lines().next().unwrap_or_default().trim_start_matches("error: ");
        println!("{}", Failure::new(Exit::Usage, message).object());
    }
    let _ = error.print();
    ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(1))
}

/// Prints a result: for programs, or for people.
fn print(json: bool, value: &impl Serialize, text: &str) -> Outcome {
    let mut out = io::stdout().lock();
    let written = if json {
        let line = serde_json::to_string_pretty(value)
            .map_err(|error| Failure::new(Exit::Failed, error.to_string()))?;
        writeln!(out, "{line}")
    } else {
        write!(out, "{text}")
    };
    match written.and_then(|()| out.flush()) {
        // `holdfast-prover params | head` is no failure.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => other.map_err(Failure::from),
    }
}
