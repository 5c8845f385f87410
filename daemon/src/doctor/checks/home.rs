//! The home folder, its disk, and what is mounted from it.

use super::{Found, Level, found, there};
use crate::control::render::size;
use crate::doctor::facts::{Daemon, Facts, HomeState, Mount, Unusable};

/// What the disk has to have beside the reserve for a drive to be written to without a pause.
const SPACE_AHEAD_BYTES: u64 = 512 << 20;
/// New segments and pieces are files.
const FREE_FILES_MIN: u64 = 1000;

pub(in crate::doctor) fn usable(facts: &Facts) -> Vec<Found> {
    let HomeState::Unusable { what, why } = &facts.home.state else { return Vec::new() };
    let (level, means, todo) = match why {
        Unusable::Missing => (
            Level::Warning,
            "No drive of this folder can be looked at, so only this machine was.",
            "`--home` names another folder; `holdfast init` makes a drive, `holdfast restore` brings one back from its words.",
        ),
        Unusable::Newer => (
            Level::Warning,
            "This program is older than the one that wrote it, and touches nothing. The data is as it was.",
            "Update Holdfast.",
        ),
        Unusable::Damaged => (
            Level::Damage,
            "The drive cannot be mounted from this folder. What is Placed is with the providers; what was not yet is in the log of this folder, which is untouched.",
            "Keep a copy of the whole folder. A copy of the damaged file from a backup brings it back; else `holdfast restore` with the words into another folder.",
        ),
        Unusable::Other => (
            Level::Warning,
            "The drive cannot be looked at or mounted by this user. The data is as it was.",
            "Run it as the user whose drive it is, or give that user the folder back (`chown -R`).",
        ),
    };
    found(level, what.clone(), means, todo)
}

pub(in crate::doctor) fn permissions(facts: &Facts) -> Vec<Found> {
    let open = match there(facts) {
        Some(there) if !there.open_to_others.is_empty() => &there.open_to_others,
        _ => return Vec::new(),
    };
    let names: Vec<String> = open.iter().map(|path| path.display().to_string()).collect();
    found(
        Level::Warning,
        format!("other users of this machine may open {}", names.join(", ")),
        "Contents are encrypted all the same; a passphrase can be guessed at by whoever has the keyfile, and providers and the mountpoint are named in the configuration.",
        format!("chmod 700 {}", facts.home.path.display()),
    )
}

pub(in crate::doctor) fn owner(facts: &Facts) -> Vec<Found> {
    let Some(uid) = there(facts).and_then(|there| there.foreign) else { return Vec::new() };
    found(
        Level::Warning,
        format!("{} belongs to user {uid}", facts.home.path.display()),
        "The drive may not open here, or leave files that its owner cannot change. Nothing is lost by that.",
        "Use it as that user, or `chown -R` the folder as root.",
    )
}

pub(in crate::doctor) fn writable(facts: &Facts) -> Vec<Found> {
    let Some(why) = there(facts).and_then(|there| there.unwritable.as_ref()) else { return Vec::new() };
    found(
        Level::Warning,
        format!("nothing can be written in {}: {why}", facts.home.path.display()),
        "The drive cannot be mounted, or turns read-only. What is there stays readable.",
        "See whether its disk was mounted read-only after an error (`dmesg`, `mount`), and who owns the folder.",
    )
}

pub(in crate::doctor) fn space(facts: &Facts) -> Vec<Found> {
    let Some(there) = there(facts) else { return Vec::new() };
    let at = facts.home.path.display();
    if there.free < there.free_min.saturating_add(SPACE_AHEAD_BYTES) {
        return found(
            Level::Warning,
            format!(
                "{} are free on the disk of {at}, of which {} are kept free in any case",
                size(there.free),
                size(there.free_min)
            ),
            "Programs that write to the drive are told that the disk is full, or soon will be. What was acknowledged is kept.",
            "Make room on that disk, or `holdfast evict`, which drops local copies of what is safe with the providers.",
        );
    }
    match there.free_files {
        Some(files) if files < FREE_FILES_MIN => found(
            Level::Warning,
            format!("the disk of {at} has room for {files} more files only (inodes)"),
            "The log and pieces are files: writing to the drive stops when there is none left. What was acknowledged is kept.",
            "Remove files that are not needed from that disk; `df -i` shows it.",
        ),
        _ => Vec::new(),
    }
}

pub(in crate::doctor) fn keyfile(facts: &Facts) -> Vec<Found> {
    let Some(len) = there(facts).and_then(|there| there.keyfile_length) else { return Vec::new() };
    found(
        Level::Damage,
        format!("the keyfile has {len} bytes, and is damaged"),
        "No passphrase opens this home folder any more. What is Placed comes back with the words; what was not yet, only with the keyfile.",
        "Put the keyfile back from a backup of the home folder; else `holdfast restore` with the words into another folder. Keep this one.",
    )
}

pub(in crate::doctor) fn log(facts: &Facts) -> Vec<Found> {
    if !there(facts).is_some_and(|there| there.log_missing) {
        return Vec::new();
    }
    found(
        Level::Damage,
        format!("{}/log is missing, and the index is there", facts.home.path.display()),
        "What was written and not yet Placed was in the log alone. What is Placed is with the providers.",
        "Put the folder back from wherever it went. Else `holdfast restore` with the words into another folder, and keep this one.",
    )
}

pub(in crate::doctor) fn set_aside(facts: &Facts) -> Vec<Found> {
    let names = match there(facts) {
        Some(there) if !there.set_aside.is_empty() => there.set_aside.join(", "),
        _ => return Vec::new(),
    };
    found(
        Level::Note,
        format!("a damaged index was set aside: {names}"),
        "It was made again from the log, and nothing is lost. A disk that damages one file may damage others.",
        "Look at the disk's own report (`smartctl -a`, `dmesg`); then the folder may be removed.",
    )
}

pub(in crate::doctor) fn daemon(facts: &Facts) -> Vec<Found> {
    let Some(there) = there(facts) else { return Vec::new() };
    let what = match there.daemon {
        Daemon::Absent | Daemon::Answers => return Vec::new(),
        Daemon::Deaf => "the drive's daemon runs and does not listen",
        Daemon::Silent => "the drive's daemon does not answer",
    };
    found(
        Level::Warning,
        what,
        "Programs may hang on the drive. What was acknowledged is in the home folder, and is lost by nothing that follows.",
        "It may be just starting or ending: try again in a minute. Else see daemon.log, then `holdfast unmount --force` and `holdfast mount`.",
    )
}

pub(in crate::doctor) fn mount(facts: &Facts) -> Vec<Found> {
    let Some(there) = there(facts) else { return Vec::new() };
    let at = there.mountpoint.as_ref().map_or_else(|| "-".to_owned(), |path| path.display().to_string());
    match (there.daemon, there.mount) {
        (Daemon::Absent, Mount::Drive) => found(
            Level::Warning,
            format!("a dead mount is on {at}: its daemon was killed"),
            "Programs get \"transport endpoint is not connected\". What was acknowledged is in the home folder.",
            "`holdfast unmount` takes it away, `holdfast mount` goes on.",
        ),
        (Daemon::Absent, Mount::Files) => found(
            Level::Warning,
            format!("the drive is not mounted, and there are files in its bare mountpoint {at}"),
            "Those files are on this disk only, not on the drive; a backup that wrote them believes otherwise.",
            "Move them elsewhere, `holdfast mount`, and copy them in.",
        ),
        (Daemon::Absent, Mount::Nothing) => found(
            Level::Note,
            "the drive is not mounted",
            "Nothing more goes to the providers, copies are neither audited nor repaired, and deals are not renewed until it is.",
            "`holdfast mount`.",
        ),
        (_, Mount::Nothing | Mount::Files) if facts.drive.is_some() => found(
            Level::Warning,
            format!("the daemon runs, and nothing is mounted on {at}"),
            "Programs that write there write to this disk. It may be just starting or ending.",
            "Try again in a minute; then `holdfast unmount --force` and `holdfast mount`.",
        ),
        _ => Vec::new(),
    }
}

pub(in crate::doctor) fn restore(facts: &Facts) -> Vec<Found> {
    if !there(facts).is_some_and(|there| there.restore_pending) {
        return Vec::new();
    }
    found(
        Level::Warning,
        "a restore was begun here and is not finished",
        "The drive's data is with its providers, and not readable here yet.",
        "`holdfast mount FOLDER` goes on with it.",
    )
}
