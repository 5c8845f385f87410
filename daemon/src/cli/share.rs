//! The commands about private links: `share`, `shares`, `unshare`, and `get` of one.

use std::time::{Duration, Instant};

use holdfast_net::Env;
use serde::de::DeserializeOwned;

use super::{
    Cli, Exit, Failure, Outcome,
    args::{GetArgs, ShareArgs, Switch, UnshareArgs},
    keep::target,
    plain::telling,
    print, runtime,
};
use crate::{
    control::{Client, ProgressLine, Request, ShareReport, ShareRequest, SharesReport, SyncReport},
    drive::threads::Threads,
    home::Home,
    progress::Progress,
    share::{
        link::PrivateLink,
        reader::{self, Around, ShareError},
    },
};

/// How long providers are waited for before the link is shown.
const KEPT: Duration = Duration::from_secs(30);
const LOOK: Duration = Duration::from_millis(250);

fn call<T: DeserializeOwned>(home: &Home, what: ShareRequest) -> Result<T, Failure> {
    Ok(Client::new(&home.socket_path()).call(&Request::Share { what }, |_| {})?)
}

pub fn share(cli: &Cli, args: &ShareArgs) -> Outcome {
    let home = Home::open(&cli.home_path())?;
    let target = target(&home, &args.path)?;
    let seconds = args.seconds.unwrap_or(args.days.saturating_mul(24 * 3600));
    let mut progress = Progress::new(cli.json);
    // What a link shows, others have to have.
    let sync = Request::Sync { wait: true, timeout_seconds: args.timeout };
    let synced: SyncReport = Client::new(&home.socket_path()).call(&sync, |line| progress.show(line))?;
    if !synced.placed {
        return Err(Failure::new(Exit::NotSafe, "what was written is not with the providers yet")
            .hint("It goes on in the background; try again later."));
    }
    let mut report: ShareReport = call(&home, ShareRequest::Make { target, seconds })?;
    let started = Instant::now();
    let (left_out, link) = (report.left_out, report.link.clone());
    while !report.is_kept() && started.elapsed() < KEPT {
        progress.show(ProgressLine {
            phase: "leaving the link with providers".into(),
            done: report.with,
            total: report.wanted,
            unit: "providers".into(),
            note: None,
        });
        std::thread::sleep(LOOK);
        let all: SharesReport = call(&home, ShareRequest::List {})?;
        let now = all.shares.into_iter().find(|share| share.id == report.id);
        report = now.ok_or_else(|| Failure::new(Exit::Failed, "the link is gone"))?;
    }
    drop(progress);
    // It may be over by now, where it was made for seconds.
    let report = ShareReport { left_out, link: report.link.clone().or(link), ..report };
    let mut text = report.render();
    if left_out > 0 {
        text.push_str(&format!("  {left_out} devices, pipes and sockets are not shown.\n"));
    }
    if report.with == 0 {
        text.push_str("  No provider has it yet: it leads somewhere as soon as one has.\n");
    }
    text.push_str(
        "  Whoever has the link reads this, as it is now, and what was read cannot be recalled; `holdfast unshare` ends it.\n",
    );
    print(cli.json, &report, &text)
}

pub fn shares(cli: &Cli) -> Outcome {
    let home = Home::open(&cli.home_path())?;
    let report: SharesReport = call(&home, ShareRequest::List {})?;
    print(cli.json, &report, &report.render())
}

pub fn unshare(cli: &Cli, args: &UnshareArgs) -> Outcome {
    let home = Home::open(&cli.home_path())?;
    let report: ShareReport = call(&home, ShareRequest::End { which: args.which.clone() })?;
    let text = format!(
        "{} is no longer shared by that link: providers give it no more as soon as they are told. Who has read it has it.\n",
        report.path
    );
    print(cli.json, &report, &text)
}

/// Of somebody else's drive, or of one's own from afar.
pub fn get(cli: &Cli, link: &PrivateLink, args: &GetArgs) -> Outcome {
    if !args.gateways.is_empty() {
        return Err(Failure::new(Exit::Usage, "what is private is not to be had from gateways"));
    }
    let mut progress = Progress::new(cli.json);
    let mut known = link.at.clone();
    known.extend(args.peers.iter().cloned());
    let report = runtime()?.block_on(async {
        let around = Around { env: Env::system(), threads: Threads::Others };
        let mdns = args.mdns == Switch::On;
        let client = reader::client(&known, mdns, around.env.clone()).await.map_err(ShareError::from)?;
        let out = args.destination();
        let mut telling = telling(&mut progress, "fetching");
        reader::get(client, link.clone(), &args.peers, out, &mut telling, around).await
    })?;
    drop(progress);
    print(cli.json, &report, &report.render())
}

impl From<ShareError> for Failure {
    fn from(error: ShareError) -> Failure {
        let message = error.to_string();
        let nothing = "Nothing was written.";
        match error {
            ShareError::NoSource => {
                Failure::new(Exit::Usage, message).hint("--peer names a provider of whoever made the link.")
            }
            ShareError::Unreachable { .. } | ShareError::Net(_) => Failure::new(Exit::Network, message)
                .hint("--peer names another provider of whoever made the link."),
            ShareError::NotKept { .. } => Failure::new(Exit::Network, message)
                .hint("Nothing was written. It may be there again when its owner's machine has run."),
            ShareError::Missing { .. } => Failure::new(Exit::Network, message)
                .hint("The rest is kept, hidden: the same command goes on with it. What is missing may be there again when its owner's machine has run."),
            ShareError::NotWhole => Failure::new(Exit::Network, message).hint("Try again."),
            ShareError::Ended => Failure::new(Exit::Failed, message).hint(nothing),
            ShareError::Format(holdfast_content::FormatError::Newer { .. }) => {
                Failure::new(Exit::NewerFormat, message).hint(nothing)
            }
            ShareError::Format(_) | ShareError::Internal(_) => {
                Failure::new(Exit::Failed, message).hint(nothing)
            }
            ShareError::Tree(error) => error.into(),
        }
    }
}
