//! `holdfast doctor`: gathers the facts, prints what the checks find.

use std::time::Duration;

use super::{Cli, Exit, Failure, Outcome, print, runtime};
use crate::{
    control::{Client, ClientError, Request, StatusReport},
    doctor::{
        self, DriveFacts, Facts, ProviderFacts, Verdict,
        facts::{Daemon, DealFacts, HomeState, HomeThere},
    },
    home::{Config, Home},
};

/// The daemon asks all its providers for this answer.
const ANSWER_SECONDS_MAX: u64 = 120;

pub fn run(cli: &Cli) -> Outcome {
    let mut facts = Facts {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        machine: doctor::machine(),
        home: doctor::home(&cli.home_path()),
        drive: None,
        providers: Vec::new(),
    };
    if let HomeState::There(there) = &mut facts.home.state {
        let home = Home::open(&cli.home_path())?;
        (facts.drive, facts.providers) = ask(&home, there)?;
    }
    let report = doctor::examine(&facts);
    print(cli.json, &report, &report.render())?;
    let exit = match report.verdict {
        Verdict::Well => return Ok(()),
        Verdict::Warned => Exit::NotSafe,
        Verdict::Damaged => Exit::Damage,
    };
    Err(Failure::new(exit, "something is wrong").silent())
}

/// What the daemon says; without one, what the providers tell a stranger.
fn ask(home: &Home, there: &mut HomeThere) -> Result<(Option<DriveFacts>, Vec<ProviderFacts>), Failure> {
    let socket = home.socket_path();
    let client = || Client::new(&socket).patience(Duration::from_secs(ANSWER_SECONDS_MAX));
    let answer = match client().call::<DriveFacts>(&Request::Doctor {}, |_| {}) {
        // One of an older version knows its status, and not this question.
        Err(ClientError::Refused(_) | ClientError::Format(_)) => {
            client().call::<StatusReport>(&Request::Status {}, |_| {}).map(of_status)
        }
        answer => answer,
    };
    match answer {
        Ok(drive) => {
            there.daemon = Daemon::Answers;
            let providers = drive.providers.clone();
            Ok((Some(drive), providers))
        }
        Err(ClientError::NotRunning(_)) => {
            let asked = runtime()?.block_on(doctor::ask::strangers(home.config()));
            Ok((None, asked.unwrap_or_else(|error| nobody(home.config(), &format!("{error:#}")))))
        }
        Err(_) => {
            there.daemon = Daemon::Silent;
            Ok((None, nobody(home.config(), "its daemon, which would ask it, does not answer")))
        }
    }
}

fn of_status(status: StatusReport) -> DriveFacts {
    let providers = status.providers.iter().enumerate().map(|(domain, provider)| ProviderFacts {
        peer_id: provider.peer_id.clone(),
        said: None,
        silence: None,
        domain,
        barred_until: None,
        reason: provider.reason.clone(),
        bytes: provider.bytes,
    });
    DriveFacts {
        corruption: None,
        open_files: None,
        writers_wait: false,
        quota: None,
        deals: DealFacts::default(),
        providers: providers.collect(),
        status,
    }
}

/// Nobody could be asked.
fn nobody(config: &Config, why: &str) -> Vec<ProviderFacts> {
    let of = |(domain, provider): (usize, &crate::home::ProviderAddr)| ProviderFacts {
        peer_id: provider.peer_id.clone(),
        said: None,
        silence: Some(why.to_owned()),
        domain,
        barred_until: None,
        reason: None,
        bytes: 0,
    };
    config.providers.iter().enumerate().map(of).collect()
}
