//! What a mounted drive says of itself.

use super::{Found, Level, found, running};
use crate::control::render::{age, count, size};
use crate::control::{DriveState, SafetyLevel};
use crate::doctor::facts::Facts;
use crate::worker::State;

/// Changes that are older than this and not safe are late, whatever the line does.
const UNSAFE_SECONDS_MAX: u64 = 3600;
/// A worker that failed so often in a row is in trouble.
const ERRORS_MAX: u64 = 3;

pub(in crate::doctor) fn version(facts: &Facts) -> Vec<Found> {
    let Some(drive) = running(facts).filter(|drive| drive.status.version != facts.version) else {
        return Vec::new();
    };
    found(
        Level::Note,
        format!("the daemon is Holdfast {}, this program is {}", drive.status.version, facts.version),
        "Nothing: both understand the home folder. What is new comes with the next mount.",
        "`holdfast unmount && holdfast mount --background`.",
    )
}

pub(in crate::doctor) fn corruption(facts: &Facts) -> Vec<Found> {
    let Some(what) = running(facts).and_then(|drive| drive.corruption.as_ref()) else { return Vec::new() };
    found(
        Level::Damage,
        format!("the log is damaged: {what}"),
        "The drive is read-only, nothing was thrown away. What is Placed is with the providers; of the newest changes some may not be readable.",
        "Copy what you need from the drive now, and keep the home folder. `holdfast verify --deep` says what is hit; `holdfast restore` into another folder brings back what is Placed.",
    )
}

pub(in crate::doctor) fn read_only(facts: &Facts) -> Vec<Found> {
    let Some(drive) =
        running(facts).filter(|d| d.status.state == DriveState::ReadOnly && d.corruption.is_none())
    else {
        return Vec::new();
    };
    let why = drive.status.state_reason.as_deref().unwrap_or("it does not say why");
    found(
        Level::Warning,
        format!("the drive is read-only: {why}"),
        "Nothing more is written or published from this machine. What is here stays readable.",
        "If another machine has taken the drive over, use it there, and copy from here what is missing there. If the disk is full or failing, see to that, then unmount and mount.",
    )
}

pub(in crate::doctor) fn lost(facts: &Facts) -> Vec<Found> {
    let Some(drive) = running(facts).filter(|drive| drive.status.pieces.lost > 0) else { return Vec::new() };
    found(
        Level::Damage,
        format!("{} have no readable copy left that is known", count(drive.status.pieces.lost, "piece")),
        "Files in them cannot be read, wholly or in part.",
        "Bring back a provider that held them: start it again with its old folder. `holdfast verify --deep` lists what is hit; an older state may be in `.snapshots`.",
    )
}

/// What `status` calls hindered: too few providers, nobody left who may take a copy, ...
pub(in crate::doctor) fn safety(facts: &Facts) -> Vec<Found> {
    let Some(drive) = running(facts).filter(|d| d.status.safety.level == SafetyLevel::Hindered) else {
        return Vec::new();
    };
    let risk = &drive.status.redundancy;
    let survives = risk.at_risk_survives.unwrap_or(0);
    found(
        Level::Warning,
        drive.status.safety.summary.clone(),
        match risk.at_risk_bytes {
            0 => "What was safe before is safe; the newest changes are on this disk alone.".to_owned(),
            bytes => format!(
                "{} survive the loss of {} only, or of this disk.",
                size(bytes),
                count(survives, "provider")
            ),
        },
        drive
            .status
            .safety
            .advice
            .clone()
            .unwrap_or_else(|| "`holdfast status` shows what it waits for.".to_owned()),
    )
}

pub(in crate::doctor) fn unpublished(facts: &Facts) -> Vec<Found> {
    let late = running(facts).and_then(|drive| Some((drive, drive.status.durability.oldest_unsafe_seconds?)));
    let Some((drive, seconds)) = late.filter(|(_, seconds)| *seconds > UNSAFE_SECONDS_MAX) else {
        return Vec::new();
    };
    let published = drive.status.commits.published.as_ref();
    let state = published.map_or_else(
        || "nothing, since no state of it was ever published".to_owned(),
        |commit| format!("the state of {} ago", age(drive.status.now.saturating_sub(commit.at))),
    );
    found(
        Level::Warning,
        format!("changes made {} ago are not safe yet", age(seconds)),
        format!("Without this machine the words would bring back {state}."),
        "`holdfast status` shows what it waits for; `holdfast sync --wait` returns when it is done.",
    )
}

pub(in crate::doctor) fn workers(facts: &Facts) -> Vec<Found> {
    let Some(drive) = running(facts) else { return Vec::new() };
    let ill =
        drive.status.workers.iter().filter(|w| w.errors_in_a_row >= ERRORS_MAX || w.state == State::Crashed);
    let one = |worker: &crate::worker::WorkerReport| {
        let why = worker.last_error.as_ref().map_or("it crashed", |error| error.message.as_str());
        let (crashed, todo) = match worker.state {
            State::Crashed => {
                (true, "`holdfast unmount && holdfast mount --background`; daemon.log says more.")
            }
            _ => (false, "It is tried again by itself; if this stays, see daemon.log."),
        };
        let how = if crashed { "has crashed" } else { "fails again and again" };
        found(
            Level::Warning,
            format!("the worker `{}` {how}: {why}", worker.name),
            "What it does for the drive (see `holdfast status`) is not done meanwhile. Nothing is lost by that alone.",
            todo,
        )
    };
    ill.flat_map(one).collect()
}

pub(in crate::doctor) fn quota(facts: &Facts) -> Vec<Found> {
    let Some(drive) = running(facts).filter(|drive| drive.writers_wait) else { return Vec::new() };
    let limit = drive.quota.map_or(0, |quota| quota.bytes);
    found(
        Level::Warning,
        format!("programs wait for room: the home folder is at its limit of {}", size(limit)),
        "Writes go on at the rate at which providers take the data, and are refused where nothing moves. What was acknowledged is kept.",
        "If the providers answer, it passes by itself. Unpin what need not be here, or raise `limits.quota_bytes` in the home's `config` while the drive is not mounted.",
    )
}

pub(in crate::doctor) fn descriptors(facts: &Facts) -> Vec<Found> {
    let files = running(facts).and_then(|drive| drive.open_files);
    let Some((open, most)) = files.filter(|(open, most)| *open > most.saturating_mul(9) / 10) else {
        return Vec::new();
    };
    found(
        Level::Warning,
        format!("the daemon has {open} of {most} open files"),
        "Soon programs will get \"too many open files\" from the drive; nothing that was written is lost by it.",
        "Raise the hard limit (`LimitNOFILE`, `ulimit -Hn`) and mount again.",
    )
}

pub(in crate::doctor) fn deals(facts: &Facts) -> Vec<Found> {
    let Some(deals) = running(facts).map(|drive| drive.deals).filter(|deals| deals.ending > 0) else {
        return Vec::new();
    };
    found(
        Level::Warning,
        format!(
            "{} should have been renewed, and the first of them ends in {}",
            count(deals.ending, "deal"),
            age(deals.first_in)
        ),
        "A provider may drop a copy when its deal has ended; others of the same data may be left.",
        "Leave the drive mounted: deals are renewed, or the copies made elsewhere, as soon as a provider has room. Add one if none has: `holdfast provider add ADDRESS`.",
    )
}
