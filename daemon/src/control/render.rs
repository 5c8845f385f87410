//! Reports for people: what happened, what it means for the data, what to do. Pure text, no terminal codes.

use std::fmt::Write;

use super::report::*;
use crate::worker::{State, WorkerReport};

/// Lines of the story that a status shows.
const EVENTS_SHOWN: usize = 8;
/// So long after a start the newest head is with a majority, if it can be.
const HEAD_SECONDS: u64 = 60;

impl StatusReport {
    /// The losses that all that is safe survives, in words.
    fn losses(&self) -> String {
        let classes = &self.redundancy.classes;
        let least =
            classes.iter().map(|class| class.survive_losses).min().unwrap_or(self.policy.survive_losses);
        let most = classes.iter().map(|class| class.survive_losses).max().unwrap_or(least);
        match least == most {
            true => count(u64::from(least), "provider"),
            false => format!(
                "{} (some of it, as its folder's policy asks, of {most})",
                count(u64::from(least), "provider")
            ),
        }
    }

    /// Fills `safety` from the other fields; the one place where the verdict is made.
    pub fn judge(&mut self) {
        let unsafe_bytes = self.durability.unsafe_bytes();
        let sequence = |c: &Option<CommitReport>| c.as_ref().map_or(0, |c| c.sequence);
        // Names and attributes have no bytes of their own, but they are not safe either before they are published.
        let unpublished = self.durability.oldest_unsafe_seconds.is_some()
            || sequence(&self.commits.latest) > sequence(&self.commits.published);
        let reachable = self.providers.iter().filter(|p| p.state == ProviderState::Ok && p.connected).count();
        let most = self.policy.survive_losses_most.max(self.policy.survive_losses);
        let wanted = usize::from(most) + 1;
        let failing = self.workers.iter().find(|w| w.errors_in_a_row >= 3 || w.state == State::Crashed);
        let (level, summary, advice);
        if self.policy.copies_wanted == 0 {
            level = SafetyLevel::Hindered;
            let why = self.state_reason.as_deref().unwrap_or("its state cannot be read");
            summary = format!("What is safe cannot be told: {why}.");
            advice = Some(
                "Keep the home folder as it is, unmount, and run `holdfast verify`; what was safe before is still with \
                 the providers."
                    .to_owned(),
            );
        } else if let Some(name) = &self.conflict_snapshot {
            level = SafetyLevel::Hindered;
            summary = format!(
                "Another machine writes this drive now; what only this one has is in the snapshot {name}."
            );
            let place =
                self.mountpoint.as_ref().map_or_else(|| "MOUNTPOINT".into(), |p| p.display().to_string());
            advice = Some(format!(
                "Copy it out: `cp -a {place}/.snapshots/{name} WHERE`. Then restore the drive into a new home folder."
            ));
        } else if self.pieces.lost > 0 {
            level = SafetyLevel::Lost;
            summary =
                format!("{} have no readable copy left that is known.", count(self.pieces.lost, "piece"));
            advice = Some(
                "Bring back a provider that held them: start it again with its old folder. What is lost is listed by \
                 `holdfast verify --deep`."
                    .to_owned(),
            );
        } else if unsafe_bytes == 0
            && !unpublished
            && self.pieces.degraded == 0
            && self.redundancy.to_raise == 0
        {
            level = SafetyLevel::Safe;
            summary = match self.durability.safe_bytes() {
                0 => "Nothing has been written yet.".to_owned(),
                bytes => format!(
                    "Safe: all {} would survive the loss of this machine and of any {}.",
                    size(bytes),
                    self.losses()
                ),
            };
            advice = None;
        } else {
            let unasked = unsafe_bytes > 0 && unsafe_bytes == self.pieces.unasked_bytes;
            let what = if unasked {
                format!(
                    "{} are with enough providers, as the drive's head says, and not asked for by this machine yet",
                    size(unsafe_bytes)
                )
            } else if unsafe_bytes > 0 {
                format!(
                    "{} of {} are not safe yet",
                    size(unsafe_bytes),
                    size(unsafe_bytes.saturating_add(self.durability.safe_bytes()))
                )
            } else if self.pieces.degraded > 0 {
                format!("{} have fewer copies than wanted", count(self.pieces.degraded, "piece"))
            } else if self.redundancy.to_raise > 0 {
                "Data below folders with a policy of their own is being looked at: some of it may be less safe than they ask".to_owned()
            } else {
                "The newest changes are not published yet".to_owned()
            };
            if reachable < wanted {
                level = SafetyLevel::Hindered;
                summary = format!("{what}: {wanted} providers are needed and {reachable} answer.");
                advice = Some(
                    "Start the missing providers or add others: `holdfast provider add ADDRESS`.".to_owned(),
                );
            } else if self.redundancy.stuck_slots > 0 {
                level = SafetyLevel::Hindered;
                let slots = count(self.redundancy.stuck_slots, "slot");
                let why = self.redundancy.stuck_reasons.join("; ");
                summary = format!(
                    "{what}: no provider is left that may take {slots} of it. Of those of this drive, {why}."
                );
                advice = Some(
                    "Until one may, this data survives fewer losses than you asked for. Add a provider that belongs to \
                     nobody of the others: `holdfast provider add ADDRESS`."
                        .to_owned(),
                );
            } else if let Some(worker) = failing {
                level = SafetyLevel::Hindered;
                let why = worker.last_error.as_ref().map_or("it crashed", |e| e.message.as_str());
                summary = format!("{what}, and `{}` has trouble: {why}", worker.name);
                advice = Some("It is tried again by itself; if this stays, look into daemon.log.".to_owned());
            } else if let Some((keeping, of)) = self.unheard() {
                level = SafetyLevel::Hindered;
                summary = format!(
                    "{what}: {keeping} of the {of} providers that decide who writes the drive keep the newest head, and a majority has to."
                );
                advice = Some(
                    "Start the missing ones, or take those that will not come back out: `holdfast provider remove PEER_ID`."
                        .to_owned(),
                );
            } else {
                level = SafetyLevel::Working;
                let now = if unasked { "they are asked for proof" } else { "being placed with providers" };
                summary = format!("{what}; {now} now.");
                advice = Some("`holdfast sync --wait` returns when everything is safe.".to_owned());
            }
        }
        self.safety = Safety { level, summary, advice };
    }

    /// How many of how many anchors keep the newest head, if these are too few, and have had the time to.
    fn unheard(&self) -> Option<(u32, usize)> {
        let late = self.now.saturating_sub(self.started_at) > HEAD_SECONDS;
        let lacks = self.term.as_ref()?.lacks()?;
        (late && self.commits.published_with == 0).then_some(lacks)
    }

    /// What `holdfast status` prints.
    pub fn render(&self) -> String {
        let mut out = String::new();
        self.head(&mut out);
        self.ladder(&mut out);
        self.redundancy_lines(&mut out);
        self.provider_lines(&mut out);
        self.worker_lines(&mut out);
        self.story(&mut out);
        out
    }

    fn head(&self, out: &mut String) {
        let place = self.mountpoint.as_ref().map_or_else(|| "-".into(), |p| p.display().to_string());
        let state = match self.state {
            DriveState::Starting => "starting",
            DriveState::Mounted => "mounted",
            DriveState::ReadOnly => "READ-ONLY",
            DriveState::Unmounting => "unmounting",
        };
        let reason = self.state_reason.as_ref().map_or_else(String::new, |r| format!(" ({r})"));
        line(out, format_args!("{}", self.safety.summary));
        if let Some(advice) = &self.safety.advice {
            line(out, format_args!("  {advice}"));
        }
        line(out, format_args!(""));
        line(out, format_args!("drive       {}", self.drive));
        line(
            out,
            format_args!(
                "mount       {place}, {state}{reason}, for {}",
                age(self.now.saturating_sub(self.started_at))
            ),
        );
        if let Some(restored) = &self.restored {
            line(
                out,
                format_args!(
                    "restored    commit {}, {} ago; {} of {} providers were asked for a newer one",
                    restored.sequence,
                    age(self.now.saturating_sub(restored.at)),
                    restored.answered,
                    restored.asked
                ),
            );
            if restored.missing_files > 0 {
                line(
                    out,
                    format_args!(
                        "            {} files were not sealed whole then: reading them fails; .snapshots has the newest commit with all",
                        restored.missing_files
                    ),
                );
            }
        }
        if let Some(term) = &self.term {
            let by = if term.forced { "by your word" } else { "by a majority" };
            let of = term.anchors.len();
            let former = match term.former.len() {
                0 => String::new(),
                of => format!(", and {} of the {of} whose place they take", term.keeping_former),
            };
            line(
                out,
                format_args!(
                    "term        {}, granted {by}; {} of {of} keep the newest head{former}",
                    term.number, term.keeping
                ),
            );
        }
        let s = &self.storage;
        line(
            out,
            format_args!(
                "on disk     {} of pieces, {} of log ({} exist only there), {} free",
                size(s.pieces_bytes),
                size(s.log_bytes),
                size(s.staging_bytes),
                size(s.disk_free_bytes)
            ),
        );
    }

    fn ladder(&self, out: &mut String) {
        let d = &self.durability;
        let losses = self.losses();
        line(out, format_args!("\nwhere the data stands"));
        let mut rung = |name: &str, amount: &Amount, meaning: &str| {
            if amount.bytes > 0 || amount.files.unwrap_or(0) > 0 {
                let files = amount.files.map_or_else(String::new, |n| format!(" in {}", count(n, "file")));
                line(out, format_args!("  {name:<9} {:>10}{files}   {meaning}", size(amount.bytes)));
            }
        };
        rung("Staged", &d.staged, "in the local log: survives a power cut, not the loss of this disk");
        rung("Sealed", &d.sealed, "encrypted blocks, on this disk only");
        rung("Packed", &d.packed, "in pieces, on this disk only");
        rung("Placed", &d.placed_below_policy, "with providers, but with fewer copies than the policy wants");
        rung("Placed", &d.placed, &format!("survives the loss of any {losses}"));
        rung("Proven", &d.proven, "the same, and every holder passed its last audit");
        if let Some(seconds) = d.oldest_unsafe_seconds {
            line(out, format_args!("  the oldest change that is not safe yet was made {} ago", age(seconds)));
        }
        let c = &self.commits;
        let at = |c: &CommitReport| format!("{} ({} ago)", c.sequence, age(self.now.saturating_sub(c.at)));
        let latest = c.latest.as_ref().map_or_else(|| "none".into(), at);
        let published = c.published.as_ref().map_or_else(|| "none".into(), at);
        line(
            out,
            format_args!(
                "commits     newest {latest}; a restore would bring {published}, known to {}",
                count(u64::from(c.published_with), "provider")
            ),
        );
        let p = &self.pieces;
        line(
            out,
            format_args!(
                "pieces      {} ({}): {} with all {}copies, {} with fewer, {} lost",
                p.total,
                size(p.bytes),
                p.full,
                match self.redundancy.classes.is_empty() {
                    true => format!("{} ", self.policy.copies_wanted),
                    false => String::new(),
                },
                p.degraded,
                p.lost
            ),
        );
    }

    fn redundancy_lines(&self, out: &mut String) {
        let r = &self.redundancy;
        if let Some(expansion) = r.expansion {
            let stripes = match r.stripes {
                0 => "all of it as copies".to_owned(),
                n if n == r.stripes_full => {
                    format!("{} of it in {}", size(r.striped_bytes), count(n, "stripe"))
                }
                n => format!(
                    "{} of it in {}, {} of which lack slots",
                    size(r.striped_bytes),
                    count(n, "stripe"),
                    n - r.stripes_full
                ),
            };
            let stored = size(r.stored_bytes);
            line(
                out,
                format_args!("stored      {stored} with providers, {expansion:.2} times the data; {stripes}"),
            );
        }
        for class in &r.classes {
            let asked = count(u64::from(class.survive_losses), "provider");
            let (pieces, bytes) = (count(class.pieces, "piece"), size(class.bytes));
            let stored = class.expansion.map_or_else(String::new, |n| format!(", stored {n:.2} times"));
            let state = match (class.at_risk_bytes, class.survives) {
                (0, _) => "all of it does".to_owned(),
                (risk, Some(n)) => format!("{} do not yet, some only {n}", size(risk)),
                (risk, None) => format!("{} do not yet", size(risk)),
            };
            line(
                out,
                format_args!("  loss of {asked}: {bytes} in {pieces} have to survive it{stored}; {state}"),
            );
        }
        if r.to_raise > 0 {
            let left = r.to_raise;
            line(
                out,
                format_args!("policies    {left} to be looked at: what is below may be less safe than asked"),
            );
        }
        if r.at_risk_bytes > 0 {
            let survives = match r.at_risk_survives {
                Some(0) | None => "some of it no loss of a provider".to_owned(),
                Some(n) => format!("all of it the loss of {}", count(n, "provider")),
            };
            let when = match r.safe_in_seconds {
                Some(seconds) => format!("safe in about {}", age(seconds.max(1))),
                None => "when it will be safe is not known yet".to_owned(),
            };
            let (risk, to_place) = (size(r.at_risk_bytes), size(r.to_place_bytes));
            line(out, format_args!("at risk     {risk} ({survives}); {to_place} to be placed, {when}"));
        }
    }

    fn provider_lines(&self, out: &mut String) {
        line(out, format_args!("\nproviders"));
        if self.redundancy.stored_bytes > 0 && !self.audits.in_words.is_empty() {
            line(out, format_args!("  every copy is asked for {}", self.audits.in_words));
        }
        if self.providers.is_empty() {
            line(
                out,
                format_args!(
                    "  none: nothing leaves this machine. Add some with `holdfast provider add ADDRESS`."
                ),
            );
        }
        for p in &self.providers {
            let state = match p.state {
                ProviderState::New => "new",
                ProviderState::Ok => "ok",
                ProviderState::Suspect => "suspect",
                ProviderState::Failed => "FAILED",
                ProviderState::Leaving => "leaving",
            };
            let audit = match (p.last_audit_at, p.last_audit_passed) {
                (Some(at), passed) => {
                    let verdict = if passed == Some(false) { "failed" } else { "passed" };
                    format!("audit {verdict} {} ago", age(self.now.saturating_sub(at)))
                }
                (None, _) => "not audited yet".to_owned(),
            };
            let link = if p.connected { "connected" } else { "not connected" };
            line(
                out,
                format_args!(
                    "  {} {state:<8} {:>5} copies {:>10}   {link}, {audit}",
                    short_peer(&p.peer_id),
                    p.copies,
                    size(p.bytes)
                ),
            );
            if !p.tags.is_empty() {
                line(out, format_args!("      {}", p.tags.join(", ")));
            }
            if let Some(reason) = &p.reason {
                line(out, format_args!("      {reason}"));
            }
        }
    }

    fn worker_lines(&self, out: &mut String) {
        line(out, format_args!("\nin the background"));
        for w in &self.workers {
            line(out, format_args!("  {:<9} {}", w.name, worker_words(w)));
            if let Some(error) = w.last_error.as_ref().filter(|_| w.errors_in_a_row > 0) {
                let times = count(w.errors_in_a_row, "time");
                line(
                    out,
                    format_args!(
                        "      failed {times}, last {} ago: {}",
                        age(self.now.saturating_sub(error.at)),
                        error.message
                    ),
                );
            }
        }
    }

    fn story(&self, out: &mut String) {
        if self.events.is_empty() {
            return;
        }
        line(out, format_args!("\nlately"));
        for event in self.events.iter().skip(self.events.len().saturating_sub(EVENTS_SHOWN)) {
            let mark = if event.level == "info" { "" } else { "! " };
            line(
                out,
                format_args!("  {:>7} ago  {mark}{}", age(self.now.saturating_sub(event.at)), event.text),
            );
        }
    }
}

impl UnmountReport {
    /// What `holdfast unmount` prints.
    pub fn render(&self) -> String {
        let place = self.mountpoint.as_ref().map_or_else(|| "the drive".into(), |p| p.display().to_string());
        if self.unknown {
            return format!(
                "Unmounted {place}. What is safe could not be told, see daemon.log in the home folder; run `holdfast verify`.\n"
            );
        }
        if self.unsafe_bytes == 0 && self.oldest_unsafe_seconds.is_none() {
            return format!("Unmounted {place}. Everything on it is safe with its providers.\n");
        }
        if self.unsafe_bytes > 0 && self.unsafe_bytes == self.unasked_bytes {
            return format!(
                "Unmounted {place}. Nothing of it is on this machine alone: {} are with enough providers, as the drive's head \
                 says; they were not all asked by this machine yet.\n",
                size(self.unsafe_bytes)
            );
        }
        if self.unsafe_bytes > 0 && self.unsafe_bytes == self.below_policy_bytes {
            return format!(
                "Unmounted {place}. All of it is with providers, but {} of it with fewer than the policy asks for; \
                 more copies are made when the drive is mounted again.\n",
                size(self.unsafe_bytes)
            );
        }
        let oldest = self
            .oldest_unsafe_seconds
            .map_or_else(String::new, |s| format!(", the oldest change made {} ago", age(s)));
        format!(
            "Unmounted {place}.\nNot yet safe: {}{oldest}. It is kept in the home folder on this disk and goes to the \
             providers when the drive is mounted again; until then a loss of this disk loses it.\n",
            size(self.unsafe_bytes.saturating_sub(self.below_policy_bytes))
        )
    }
}

impl SyncReport {
    pub fn render(&self, waited: bool) -> String {
        if self.placed && self.unsafe_bytes == 0 {
            return format!(
                "Everything is safe: it survives the loss of any {}.\n",
                count(u64::from(self.survives), "provider")
            );
        }
        if self.placed {
            return format!(
                "All that was written before is safe (survives the loss of any {}); {} came since.\n",
                count(u64::from(self.survives), "provider"),
                size(self.unsafe_bytes)
            );
        }
        let more = if waited { "" } else { " `holdfast sync --wait` waits for the providers." };
        format!("Synced to this disk; {} are not with the providers yet.{more}\n", size(self.unsafe_bytes))
    }
}

impl VerifyReport {
    pub fn render(&self) -> String {
        let mut out = format!(
            "checked {} with {} names, {} chunks in {} blocks, {}",
            count(self.inodes, "file"),
            self.entries,
            self.chunks,
            self.blocks,
            count(self.pieces, "piece")
        );
        if self.bytes_read > 0 {
            let _ = write!(out, "; {} read and hashed", size(self.bytes_read));
        }
        if let Some(r) = &self.remote {
            let _ = write!(
                out,
                "\nread from the providers {} of {} copies, {} of {}; {} are not what they should be; {} hashed",
                r.read_copies,
                r.copies,
                size(r.read_bytes),
                size(r.bytes),
                r.damaged,
                count(r.blocks, "block")
            );
        }
        out.push('\n');
        for problem in &self.problems {
            line(&mut out, format_args!("  {problem}"));
        }
        line(&mut out, format_args!("{}", if self.ok { "No damage found." } else { "DAMAGE FOUND." }));
        out
    }
}

fn worker_words(w: &WorkerReport) -> String {
    let state = match w.state {
        State::Working => "working",
        State::Idle => "idle",
        State::Waiting => "waiting",
        State::Retrying => "will try again",
        State::Stopped => "stopped",
        State::Crashed => "CRASHED: restart the daemon",
    };
    let mut text = state.to_owned();
    if !w.detail.doing.is_empty() {
        let _ = write!(text, ": {}", w.detail.doing);
    }
    if let Some(progress) = w.detail.progress.as_ref().filter(|p| p.total > 0) {
        if progress.unit == "bytes" {
            let _ = write!(text, " ({} of {})", size(progress.done), size(progress.total));
        } else {
            let _ = write!(text, " ({} of {} {})", progress.done, progress.total, progress.unit);
        }
    }
    if w.detail.queue > 0 {
        let _ = write!(text, ", {} waiting", w.detail.queue);
    }
    text
}

fn line(out: &mut String, text: std::fmt::Arguments<'_>) {
    let _ = writeln!(out, "{text}");
}

/// `12D3Koo..`'s last 8 characters tell peers apart; the first ones are the same for all.
pub fn short_peer(peer_id: &str) -> String {
    let tail: Vec<char> = peer_id.chars().rev().take(8).collect();
    format!("..{}", tail.into_iter().rev().collect::<String>())
}

/// `1 piece`, `2 pieces`.
pub fn count(n: u64, what: &str) -> String {
    format!("{n} {what}{}", if n == 1 { "" } else { "s" })
}

/// Bytes with a binary unit.
pub fn size(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut value = bytes as f64 / 1024.0;
    let mut unit = UNITS[0];
    for next in &UNITS[1..] {
        if value < 1023.95 {
            break;
        }
        value /= 1024.0;
        unit = next;
    }
    format!("{value:.1} {unit}")
}

/// A time span, to its largest unit.
pub fn age(seconds: u64) -> String {
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7200 => format!("{} min", seconds / 60),
        7200..172_800 => format!("{} h", seconds / 3600),
        _ => format!("{} days", seconds / 86_400),
    }
}

#[cfg(test)]
pub(crate) mod tests;
