//! The commands. Each is thin: it reads arguments, calls what does the work, prints, and chooses an exit code.
//!
//! Results go to standard output, everything else (progress, advice, errors) to standard error. With `--json` the
//! output is one JSON object, and so is an error. The shapes are documented in daemon/CLI.md and do not change.

pub(crate) mod args;
mod background;
mod compress;
mod doctor;
mod exit;
mod hardening;
mod init;
mod keep;
mod log;
mod mount;
mod passphrase;
mod plain;
mod policy;
mod proofs;
mod prove;
mod provide;
mod provider;
mod public;
mod restore;
mod running;
mod share;
mod undelete;
mod watch;

use clap::Parser;

pub use args::Cli;
use args::Command;
pub use exit::{Exit, Failure};

type Outcome = Result<(), Failure>;

/// The whole program: parses the arguments, runs the command, returns its exit code.
pub fn main() -> i32 {
    // Taken before anything is forbidden: the background process is this same program.
    let program = std::env::current_exe();
    hardening::harden();
    crate::memory::tame_allocator();
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return not_understood(&error),
    };
    let json = cli.wants_json();
    let outcome = match &cli.command {
        Command::Init(args) => init::run(&cli, args),
        Command::Mount(args) => mount::run(&cli, args, program),
        Command::Unmount(args) => running::unmount(&cli, args),
        Command::Sync(args) => running::sync(&cli, args),
        Command::Status(args) => running::status(&cli, args),
        Command::Evict(args) => keep::evict(&cli, args),
        Command::Pin(args) => keep::pin(&cli, args),
        Command::Unpin(args) => keep::unpin(&cli, args),
        Command::Policy(args) => policy::run(&cli, args),
        Command::Snapshot(args) => keep::snapshot(&cli, args),
        Command::Snapshots => keep::snapshots(&cli),
        Command::Prune(args) => keep::prune(&cli, args),
        Command::Diff(args) => keep::diff(&cli, args),
        Command::Undelete(args) => undelete::run(&cli, args),
        Command::Publish(args) => public::publish(&cli, args),
        Command::Unpublish(args) => public::unpublish(&cli, args),
        Command::Published => public::published(&cli),
        Command::Get(args) => public::get(&cli, args),
        Command::Share(args) => share::share(&cli, args),
        Command::Shares => share::shares(&cli),
        Command::Unshare(args) => share::unshare(&cli, args),
        Command::Export(args) => plain::export(&cli, args),
        Command::Import(args) => plain::import(&cli, args),
        Command::Watch(args) => watch::run(&cli, args),
        Command::Verify(args) => running::verify(&cli, args),
        Command::Doctor => doctor::run(&cli),
        Command::Passphrase(args) => passphrase::run(&cli, args),
        Command::Provider(args) => provider::run(&cli, args),
        Command::Provide(args) => provide::run(json, args, program),
        Command::Proofs(args) => proofs::run(json, args, program),
        Command::Restore(args) => restore::run(&cli, args, program),
        Command::LocalNetwork(args) => provide::local_network(json, args, program),
    };
    match outcome {
        Ok(()) => Exit::Done.code(),
        Err(failure) => {
            failure.print(json);
            failure.exit.code()
        }
    }
}

/// Help, the version, or what is wrong with the arguments; a program gets that as an object too.
fn not_understood(error: &clap::Error) -> i32 {
    if error.use_stderr() && std::env::args_os().any(|argument| argument == "--json") {
        let text = error.to_string();
        let message = text.lines().next().unwrap_or_default().trim_start_matches("error: ");
        println!("{}", Failure::new(Exit::Usage, message).object());
    }
    let _ = error.print();
    error.exit_code()
}

/// Prints a result: for programs, or for people.
fn print(json: bool, value: &impl serde::Serialize, text: &str) -> Outcome {
    use std::io::Write;
    let mut out = std::io::stdout().lock();
    let written = if json {
        let line = serde_json::to_string_pretty(value).map_err(Failure::internal)?;
        writeln!(out, "{line}")
    } else {
        write!(out, "{text}")
    };
    match written.and_then(|()| out.flush()) {
        // `holdfast status | head` is no failure.
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        other => other.map_err(Failure::internal),
    }
}

/// A runtime for commands that speak with the network.
fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(Failure::internal)
}
