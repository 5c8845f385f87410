//! The commands about published data: `publish`, `unpublish`, `published`, `get`.
//!
//! The folder is read here, as any program reads it; blocks go through a batch in the home folder to the daemon, which hashes them
//! again and takes them over.

use std::time::{Duration, Instant};

use holdfast_content::plain::PlainError;
use serde::de::DeserializeOwned;

use super::{
    Cli, Exit, Failure, Outcome,
    args::{GetArgs, PublishArgs, UnpublishArgs},
    plain::telling,
    print, runtime,
};
use crate::{
    control::{Client, ProgressLine, PublicRequest, PublicationReport, PublicationsReport, Request},
    get::{GetError, SourcesFailed, get as fetch},
    home::Home,
    link::AnyLink,
    plain::{
        TreeError,
        add::{AddOptions, add_path},
        hidden_words,
    },
    progress::Progress,
    public::BatchWriter,
};

/// How often a waiting `publish` looks.
const LOOK: Duration = Duration::from_millis(500);

fn call<T: DeserializeOwned>(home: &Home, what: PublicRequest) -> Result<T, Failure> {
    Ok(Client::new(&home.socket_path()).call(&Request::Public { what }, |_| {})?)
}

pub fn publish(cli: &Cli, args: &PublishArgs) -> Outcome {
    let home = Home::open(&cli.home_path())?;
    // Said before a large folder is read.
    let _: PublicationsReport = call(&home, PublicRequest::List {})?;
    let mut random = [0; 16];
    getrandom::fill(&mut random).map_err(Failure::internal)?;
    let mut batch = BatchWriter::begin(home.path(), random)?;
    let mut progress = Progress::new(cli.json);
    let about = batch.dir().symlink_metadata().map_err(Failure::internal)?;
    let avoid =
        Some((std::os::unix::fs::MetadataExt::dev(&about), std::os::unix::fs::MetadataExt::ino(&about)));
    let options = AddOptions { profile: args.add.profile, hidden: args.add.hidden, avoid };
    let added = add_path(
        &args.path,
        &options,
        &mut |block| batch.put(&block),
        &mut telling(&mut progress, "reading"),
    )?;
    let (name, _) = batch.finish()?;
    progress.show(ProgressLine { phase: "handing over".into(), ..ProgressLine::default() });
    let path = std::path::absolute(&args.path).unwrap_or_else(|_| args.path.clone());
    let request = PublicRequest::Publish {
        batch: name,
        root: added.root.cid,
        name: path.display().to_string(),
        profile: args.add.profile.name().to_owned(),
        size: added.root.size,
    };
    let mut report: PublicationReport = call(&home, request)?;
    batch.keep();
    let started = Instant::now();
    while args.wait && !report.is_placed() {
        if args.timeout.is_some_and(|seconds| started.elapsed().as_secs() >= seconds) {
            let text = format!("{} of {} providers have it so far", report.copies, report.copies_wanted);
            return Err(Failure::new(Exit::NotSafe, text)
                .hint("It goes on in the background; `holdfast published` shows how far it is."));
        }
        let (done, total) = (report.copies, report.copies_wanted);
        progress.show(ProgressLine {
            phase: "placing".into(),
            done,
            total,
            unit: "copies".into(),
            note: None,
        });
        std::thread::sleep(LOOK);
        let all: PublicationsReport = call(&home, PublicRequest::List {})?;
        let now = all.publications.into_iter().find(|it| it.root == report.root && it.at == report.at);
        report = now.ok_or_else(|| Failure::new(Exit::Failed, "it was unpublished meanwhile"))?;
    }
    drop(progress);
    let text = report.render() + &hidden_words(added.hidden_left_out);
    print(cli.json, &report, &text)
}

pub fn unpublish(cli: &Cli, args: &UnpublishArgs) -> Outcome {
    let home = Home::open(&cli.home_path())?;
    let report: PublicationReport = call(&home, PublicRequest::Unpublish { which: args.which.clone() })?;
    let text = format!(
        "{} is no longer published. Its providers drop it as soon as the next head is out; who has it may keep it.\n",
        report.root
    );
    print(cli.json, &report, &text)
}

pub fn published(cli: &Cli) -> Outcome {
    let home = Home::open(&cli.home_path())?;
    let report: PublicationsReport = call(&home, PublicRequest::List {})?;
    print(cli.json, &report, &report.render())
}

pub fn get(cli: &Cli, args: &GetArgs) -> Outcome {
    let link = match &args.link {
        AnyLink::Public(link) => link,
        AnyLink::Private(link) => return super::share::get(cli, link, args),
    };
    let out = args.destination();
    let out =
        out.ok_or_else(|| Failure::new(Exit::Usage, "where to write it is not said: DEST, or --out PATH"))?;
    let mut progress = Progress::new(cli.json);
    let runtime = runtime()?;
    let report =
        fetch(&runtime, link, &args.peers, &args.gateways, out, &mut telling(&mut progress, "fetching"))?;
    drop(progress);
    print(cli.json, &report, &report.render())
}

impl From<GetError> for Failure {
    fn from(error: GetError) -> Failure {
        let message = error.to_string();
        match error {
            GetError::NoSource => Failure::new(Exit::Usage, message)
                .hint("--peer names a provider or another peer, --gateway a gateway; links of `holdfast publish` name providers."),
            GetError::Url(_) => Failure::new(Exit::Usage, message),
            GetError::Unreachable(_) => Failure::new(Exit::Network, message).hint("Nothing was written."),
            GetError::Net(_) => Failure::new(Exit::Network, message),
            GetError::Tree(TreeError::Dag { source: PlainError::NotFound(_) | PlainError::NotDirectory(_), .. }) => {
                Failure::new(Exit::Failed, message)
            }
            GetError::Tree(TreeError::Dag { source: PlainError::Missing(_), .. }) => Failure::new(Exit::Network, message)
                .hint("Those who were asked do not have it. What came is kept, hidden: the same command goes on with it, with other sources too."),
            GetError::Tree(TreeError::Dag { source: PlainError::Other(error), .. })
                if error.downcast_ref::<SourcesFailed>().is_some() =>
            {
                Failure::new(Exit::Network, message).hint("What came is kept, hidden: the same command goes on with it.")
            }
            GetError::Tree(error) => error.into(),
        }
    }
}
