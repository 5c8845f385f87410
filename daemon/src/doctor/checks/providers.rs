//! The providers: how many, who answers, what keeps them from taking data, and their clocks.

use std::collections::BTreeSet;

use super::{Found, Level, found, running, there};
use crate::control::render::{age, count, short_peer, size};
use crate::doctor::facts::{Facts, ProviderFacts};

/// One with less room than this is nearly full: a few pieces.
const ROOM_BYTES_MIN: u64 = 1 << 30;
/// Clocks that are corrected step a little.
const CLOCK_SECONDS_MAX: u64 = 300;
/// With fewer clocks nobody can say whose is wrong.
const CLOCKS_MIN: usize = 3;

fn names<'a>(providers: impl Iterator<Item = &'a ProviderFacts>) -> String {
    providers.map(|provider| short_peer(&provider.peer_id)).collect::<Vec<_>>().join(", ")
}

/// Providers that the drive's policy asks for, or that of the folder that asks for most.
fn wanted(facts: &Facts) -> usize {
    let of_drive = there(facts).map_or(0, |there| usize::from(there.copies_wanted));
    let of_folders =
        running(facts).map_or(0, |drive| usize::from(drive.status.policy.survive_losses_most) + 1);
    if of_drive == 0 { 0 } else { of_drive.max(of_folders) }
}

pub(in crate::doctor) fn enough(facts: &Facts) -> Vec<Found> {
    let (have, want) = (facts.providers.len(), wanted(facts));
    if have >= want {
        return Vec::new();
    }
    found(
        Level::Warning,
        format!("the drive has {} and needs {want}", count(have as u64, "provider")),
        "With so few nothing can survive as many losses as you asked for.",
        "`holdfast provider add ADDRESS`; for a trial on this machine `holdfast local-network start --dir DIR`.",
    )
}

pub(in crate::doctor) fn silent(facts: &Facts) -> Vec<Found> {
    let one = |provider: &ProviderFacts| {
        let why = provider.silence.as_ref()?;
        let keeps = match provider.bytes {
            0 => String::new(),
            bytes => format!(" Of this drive it keeps {}.", size(bytes)),
        };
        Some(Found {
            level: Level::Warning,
            what: format!("provider {} does not answer: {why}", short_peer(&provider.peer_id)),
            means: format!("What it keeps does not count now; while others answer it is made anew elsewhere after a time.{keeps}"),
            todo: "See that it runs and where it is; at a new address: `holdfast provider add ADDRESS`. If it is gone for good: `holdfast provider remove`."
                .to_owned(),
        })
    };
    let silent: Vec<Found> = facts.providers.iter().filter_map(one).collect();
    if silent.len() > 1 && silent.len() == facts.providers.len() {
        return found(
            Level::Warning,
            format!("none of the {} providers answers", silent.len()),
            "Nothing goes to them and nothing comes from them; nothing is given up because of it, since so much silence is this machine's.",
            "See whether this machine has a network: addresses, routes, a firewall.",
        );
    }
    silent
}

pub(in crate::doctor) fn barred(facts: &Facts) -> Vec<Found> {
    let now = facts.drive.as_ref().map_or(0, |drive| drive.status.now);
    let one = |provider: &ProviderFacts| {
        let until = provider.barred_until?;
        let why = provider.reason.as_deref().unwrap_or("a fault was proven");
        Some(Found {
            level: Level::Warning,
            what: format!("provider {} gets nothing new for another {}: {why}", short_peer(&provider.peer_id), age(until.saturating_sub(now))),
            means: "A copy of yours was not there, or not right. It is made anew with another provider; what else this one keeps is asked for."
                .to_owned(),
            todo: "Ask whoever runs it to look at its disk. If it happens again: `holdfast provider remove`, after `holdfast verify --remote` has read what it keeps."
                .to_owned(),
        })
    };
    facts.providers.iter().filter_map(one).collect()
}

pub(in crate::doctor) fn room(facts: &Facts) -> Vec<Found> {
    let answering: Vec<(&ProviderFacts, bool)> = facts
        .providers
        .iter()
        .filter_map(|provider| {
            let said = provider.said.as_ref()?;
            Some((provider, said.free < ROOM_BYTES_MIN || said.accepting == Some(false)))
        })
        .collect();
    let full = || answering.iter().filter(|(_, full)| *full).map(|(provider, _)| *provider);
    if full().next().is_none() {
        return Vec::new();
    }
    let left = answering.iter().filter(|(_, full)| !full).count();
    let want = wanted(facts).max(1);
    let (level, means) = if left < want {
        (
            Level::Warning,
            format!(
                "{} left with room, and new data wants {want}: it stays on this disk, or survives fewer losses.",
                count(left as u64, "provider")
            ),
        )
    } else {
        (Level::Note, format!("New data goes to the other {left}, which are enough."))
    };
    found(
        level,
        format!("nearly full, or taking nothing new: {}", names(full())),
        means,
        "Give them more capacity (`holdfast provide --capacity`), or add another one: `holdfast provider add ADDRESS`.",
    )
}

pub(in crate::doctor) fn domains(facts: &Facts) -> Vec<Found> {
    let want = wanted(facts);
    let domains: BTreeSet<usize> = facts.providers.iter().map(|provider| provider.domain).collect();
    // Where there are too few providers that is said already.
    if domains.len() >= want || facts.providers.len() < want {
        return Vec::new();
    }
    found(
        Level::Warning,
        format!(
            "the {} providers are {} by their tags (operator, network, place), and {want} are needed",
            facts.providers.len(),
            count(domains.len() as u64, "failure domain")
        ),
        "What fails together counts once: data gets fewer copies than you asked for, and one failure may take several.",
        "Add a provider that belongs to nobody of the others: `holdfast provider add ADDRESS --operator NAME --place NAME`.",
    )
}

pub(in crate::doctor) fn clock(facts: &Facts) -> Vec<Found> {
    let mut ahead: Vec<i64> =
        facts.providers.iter().filter_map(|p| Some(p.said.as_ref()?.ahead_seconds)).collect();
    ahead.sort_unstable();
    let Some(&median) = ahead.get(ahead.len() / 2) else { return Vec::new() };
    if median.unsigned_abs() > CLOCK_SECONDS_MAX && ahead.len() >= CLOCKS_MIN {
        let way = if median > 0 { "behind" } else { "ahead of" };
        return found(
            Level::Warning,
            format!("this machine's clock is {} {way} the providers'", age(median.unsigned_abs())),
            "Deals go by theirs, so that no copy is lost by it. Times of files and commits are wrong, and a proof that seems to be from the future is asked for again.",
            "Set the clock (`timedatectl set-ntp true`).",
        );
    }
    let distance = |p: &&ProviderFacts| {
        p.said.as_ref().is_some_and(|said| said.ahead_seconds.abs_diff(median) > CLOCK_SECONDS_MAX)
    };
    let off: Vec<&ProviderFacts> = facts.providers.iter().filter(distance).collect();
    let all_agree = off.is_empty() && (median.unsigned_abs() <= CLOCK_SECONDS_MAX);
    if all_agree {
        return Vec::new();
    }
    let (what, todo) = match off.is_empty() {
        false if ahead.len() >= CLOCKS_MIN => (
            format!("the clock of {} differs from the others'", names(off.into_iter())),
            "Whoever runs it should set it (`timedatectl set-ntp true`).",
        ),
        _ => (
            "this machine's clock and those of its few providers differ by more than 5 minutes".to_owned(),
            "Set the clock of each (`timedatectl set-ntp true`).",
        ),
    };
    found(
        Level::Note,
        what,
        "A deal may end earlier or later than both sides think. Nothing is lost by it now.",
        todo,
    )
}
