//! `holdfast-prover params`: what is there, what is missing, and making it for test profiles.

use std::io::{self, IsTerminal, Write};

use super::args::ParamsArgs;
use super::exit::{Exit, Failure};
use super::{Outcome, print};
use crate::entropy::SystemRng;
use crate::machine::{Has, MachineReport};
use crate::params::{Circuit, GenerateProgress, GenerateStage, ParameterStore};
use crate::profile::Profile;

pub fn run(json: bool, args: &ParamsArgs) -> Outcome {
    let store = ParameterStore::new(args.folder.path());
    std::fs::create_dir_all(store.dir()).map_err(|error| {
        let failure = Failure::from(error);
        let message = format!("{}: {}", store.dir().display(), failure.message);
        failure.worded(message)
    })?;
    let circuits = if args.circuits.is_empty() { &Circuit::ALL[..] } else { &args.circuits };
    if args.make {
        make(&store, args.profile, circuits)?;
    }
    let has = Has::look(store.dir()).map_err(|error| Failure::new(Exit::Failed, error.to_string()))?;
    let report = MachineReport::judge(args.profile, has, store.report_of(args.profile, circuits), 0);
    print(json, &report, &format!("{report}\n"))?;
    if report.ready() {
        return Ok(());
    }
    if !json && !args.make && !args.profile.is_production() {
        eprintln!("  the same with --make makes what is missing of the parameters");
    }
    Err(Failure::silent(Exit::Missing))
}

/// Every circuit that is asked for, one after the other: what is whole and stamped is hashed and kept.
fn make(store: &ParameterStore, profile: Profile, circuits: &[Circuit]) -> Outcome {
    let mut told = Told { terminal: io::stderr().is_terminal(), last: None };
    for circuit in circuits {
        store.generate(profile, *circuit, &mut SystemRng, &mut |progress| told.tell(progress))?;
    }
    Ok(())
}

/// Progress on standard error: one line that is written over on a terminal, one for each tenth of a step elsewhere.
struct Told {
    terminal: bool,
    last: Option<(Circuit, GenerateStage, Option<u64>)>,
}

impl Told {
    fn tell(&mut self, progress: GenerateProgress) {
        let tenth = (progress.points * 10).checked_div(progress.points_total);
        let step = (progress.circuit, progress.stage, tenth);
        if !self.terminal && self.last == Some(step) {
            return;
        }
        let doing = match progress.stage {
            GenerateStage::Checking => "looking at what is there",
            GenerateStage::LayingOut => "laying out the circuit",
            GenerateStage::Computing => "computing (can be interrupted at any time)",
            GenerateStage::Stamping => "hashing what was written",
            GenerateStage::Done => "done",
        };
        let mut line = format!("{}, {}: {doing}", progress.circuit, progress.profile);
        if let Some(percent) = (progress.points * 100).checked_div(progress.points_total) {
            line += &format!(", {percent} %");
        }
        if progress.cpu_seconds >= 1.0 {
            line += &format!(", {:.0} CPU s", progress.cpu_seconds);
        }
        let mut out = io::stderr().lock();
        let end = match (self.terminal, progress.stage) {
            (true, GenerateStage::Done) | (false, _) => "\n",
            (true, _) => "",
        };
        let start = if self.terminal { "\r\x1b[K" } else { "" };
        // Who closed our error output wants no progress.
        let _ = write!(out, "{start}{line}{end}").and_then(|()| out.flush());
        self.last = Some(step);
    }
}
