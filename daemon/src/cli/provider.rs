//! `holdfast provider`: the list of providers, in a mounted drive or in the configuration of one that is not.

use super::{
    Cli, Exit, Failure, Outcome,
    args::{ProviderArgs, ProviderCommand},
    print,
};
use crate::{
    control::{Client, ClientError, ProvidersReport, Request, render::short_peer},
    home::{Home, ProviderAddr},
};
use holdfast_content::head::PROVIDERS_MAX;
use holdfast_net::tags::TAG_BYTES_MAX;

pub fn run(cli: &Cli, args: &ProviderArgs) -> Outcome {
    let mut home = Home::open(&cli.home_path())?;
    let report = match &args.command {
        ProviderCommand::List => ask(&home, &Request::ProviderList {})?,
        ProviderCommand::Add { addresses, tags, untagged } => {
            let tags = tags.tags();
            if !tags.is_valid() {
                let text = format!("a tag has 1 to {TAG_BYTES_MAX} bytes, and no control characters");
                return Err(Failure::new(Exit::Usage, text));
            }
            let said = (*untagged || !tags.is_empty()).then_some(tags);
            let addresses: Vec<ProviderAddr> =
                addresses.iter().map(|a| ProviderAddr { tags: said.clone(), ..a.clone() }).collect();
            let mut last = None;
            for provider in &addresses {
                last = ask(&home, &Request::ProviderAdd { provider: provider.clone() })?;
                if last.is_none() {
                    change(&mut home, |list| ProviderAddr::merge(list, addresses.iter().cloned()))?;
                    break;
                }
            }
            last
        }
        ProviderCommand::Remove { peer } => {
            let peer_id = resolve(&home, peer)?;
            let answer = ask(&home, &Request::ProviderRemove { peer_id: peer_id.clone() })?;
            if answer.is_none() {
                change(&mut home, |list| list.retain(|p| p.peer_id != peer_id))?;
            }
            answer
        }
    };
    let report = report
        .unwrap_or_else(|| ProvidersReport { configured: home.config().providers.clone(), live: Vec::new() });
    print(cli.json, &report, &render(&report))
}

/// `None`: the drive is not mounted, so the configuration is all there is.
fn ask(home: &Home, request: &Request) -> Result<Option<ProvidersReport>, Failure> {
    match Client::new(&home.socket_path()).call(request, |_| {}) {
        Ok(report) => Ok(Some(report)),
        Err(ClientError::NotRunning(_)) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn change(home: &mut Home, change: impl FnOnce(&mut Vec<ProviderAddr>)) -> Outcome {
    home.lock()?;
    let mut providers = home.config().providers.clone();
    let before = providers.len();
    change(&mut providers);
    if providers.len() > before {
        few_enough(&providers)?;
    }
    Ok(home.change_config(|config| config.providers = providers)?)
}

/// A list that a head can name.
pub(super) fn few_enough(providers: &[ProviderAddr]) -> Outcome {
    if providers.len() <= PROVIDERS_MAX {
        return Ok(());
    }
    Err(Failure::new(
        Exit::Usage,
        format!("a drive has at most {PROVIDERS_MAX} providers: its head names no more"),
    ))
}

/// Takes a whole identity, an address that ends with one, or the last characters that `status` shows.
fn resolve(home: &Home, text: &str) -> Result<String, Failure> {
    if let Ok(provider) = text.parse::<ProviderAddr>() {
        return Ok(provider.peer_id);
    }
    let ending = text.trim_start_matches('.');
    let known: Vec<&ProviderAddr> = home
        .config()
        .providers
        .iter()
        .filter(|p| !ending.is_empty() && p.peer_id.ends_with(ending))
        .collect();
    match known.as_slice() {
        [one] => Ok(one.peer_id.clone()),
        [] => Err(Failure::new(Exit::Usage, format!("this drive has no provider `{text}`"))
            .hint("`holdfast provider list` shows them.")),
        _ => Err(Failure::new(Exit::Usage, format!("`{text}` fits several providers; write more of it"))),
    }
}

fn render(report: &ProvidersReport) -> String {
    if report.configured.is_empty() {
        return "No providers. Add some with `holdfast provider add ADDRESS`.\n".to_owned();
    }
    let mut text = String::new();
    for provider in &report.configured {
        let live = report.live.iter().find(|l| l.peer_id == provider.peer_id);
        let state = live.map_or_else(String::new, |l| {
            let link = if l.connected { "connected" } else { "not connected" };
            let reason = l.reason.as_ref().map_or_else(String::new, |r| format!(" ({r})"));
            format!("  {:?}, {link}, {} copies{reason}", l.state, l.copies).to_lowercase()
        });
        text += &format!("{}{state}\n", short_peer(&provider.peer_id));
        for addr in provider.full_addrs() {
            text += &format!("    {addr}\n");
        }
    }
    text
}
