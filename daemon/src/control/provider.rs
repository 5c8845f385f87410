//! How a provider stands: what `holdfast status` says of a provider's folder, in figures and in words.
//!
//! Stable as the reports of a drive are, and documented beside them in daemon/CLI.md. A drive's reports have `drive`, these
//! have `provider`.

use std::{fmt::Write as _, path::PathBuf};

use holdfast_net::tags::Tags;
use serde::{Deserialize, Serialize};

use super::{STATUS_SCHEMA, render};
use crate::{home::ProviderAddr, sealing::LastStatus};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProviderRun {
    Providing,
    /// No process serves the folder.
    Stopped,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HealthLevel {
    /// What was promised is kept, and no deadline is in danger.
    #[default]
    Well,
    /// Nothing is lost or late yet, and something is in the way.
    Warned,
    /// Something that was promised is broken, or will be.
    Trouble,
}

/// The verdict over everything else in the report.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Health {
    pub level: HealthLevel,
    /// One sentence for people.
    pub summary: String,
    /// What a person should do, if anything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub advice: Option<String>,
}

/// What it keeps.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoresReport {
    pub capacity_bytes: u64,
    /// Slots on the disk.
    pub stored_bytes: u64,
    /// The same and what is promised and awaited.
    pub promised_bytes: u64,
    /// What it would still take, by capacity and by disk.
    pub free_bytes: u64,
    /// Deals, ended ones in their grace included, and of them those whose slots are stored.
    pub deals: usize,
    pub deals_stored: usize,
    /// Files of deals that cannot be read.
    pub deals_damaged: usize,
    /// Slots that were read whole and are not what was stored.
    #[serde(default)]
    pub slots_damaged: usize,
    pub records: usize,
    pub records_bytes: u64,
}

/// What it did since it was started.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServedReport {
    /// Clients with a session, now.
    pub sessions: usize,
    pub served_bytes: u64,
    pub received_bytes: u64,
    /// Proofs of possession that were asked and given.
    pub proofs_made: u64,
    /// Those that it could not give: the slot is damaged or gone.
    pub proofs_failed: u64,
}

/// `holdfast status --json` of a provider that runs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ProviderStatusReport {
    pub schema: u32,
    /// Of the program that runs.
    pub version: String,
    pub pid: u32,
    pub now: u64,
    pub started_at: u64,
    /// Its peer id.
    pub provider: String,
    pub dir: PathBuf,
    pub addrs: Vec<String>,
    #[serde(default, skip_serializing_if = "Tags::is_empty")]
    pub tags: Tags,
    pub state: ProviderRun,
    pub health: Health,
    pub kept: StoresReport,
    pub served: ServedReport,
    /// Where it seals.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sealing: Option<SealingReport>,
    /// Where its metrics are read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metrics: Option<String>,
}

/// The sealing of a provider that runs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SealingReport {
    pub profile: String,
    /// Times that the prover has ended since the provider was started; it is started again each time.
    pub prover_ended: u64,
    /// The prover's newest word, if it has said any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last: Option<LastStatus>,
}

impl SealingReport {
    /// Whether the prover has said something lately.
    pub fn running(&self) -> bool {
        self.last.as_ref().is_some_and(|last| last.running)
    }
}

/// `holdfast status --json` of a provider's folder that nobody serves: `state` is `"stopped"`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StoppedProviderReport {
    pub schema: u32,
    pub version: String,
    /// Its peer id, where it has listened once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provider: Option<String>,
    pub dir: PathBuf,
    pub addrs: Vec<String>,
    pub state: ProviderRun,
    pub capacity_bytes: u64,
    /// Its prover's last word.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sealing: Option<LastStatus>,
}

impl StoppedProviderReport {
    pub fn new(
        dir: PathBuf,
        address: Option<ProviderAddr>,
        capacity_bytes: u64,
        sealing: Option<LastStatus>,
    ) -> StoppedProviderReport {
        StoppedProviderReport {
            schema: STATUS_SCHEMA,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            provider: address.as_ref().map(|address| address.peer_id.clone()),
            dir,
            addrs: address.map(|address| address.addrs).unwrap_or_default(),
            state: ProviderRun::Stopped,
            capacity_bytes,
            sealing,
        }
    }
}

/// What is wrong, the worst first.
fn complaint(report: &ProviderStatusReport) -> Option<(HealthLevel, String, &'static str)> {
    use HealthLevel::{Trouble, Warned};
    let sealing = report.sealing.as_ref();
    let said = sealing.and_then(|sealing| sealing.last.as_ref()).map(|last| &last.status);
    if let Some(sealing) = sealing.filter(|sealing| !sealing.running()) {
        let summary = format!(
            "The prover does not answer: no sector of {} is proven until it does, and deals that would be sealed are refused.",
            sealing.profile
        );
        return Some((Trouble, summary, "It is started again by itself; provider.log says why it ended."));
    }
    if let Some(task) = said.and_then(|status| status.proofs_at_risk().next()) {
        let left = said.map_or(0, |status| status.seconds_until(task.deadline));
        let summary = format!("A deadline is at risk: {} is due in {left} s ({}).", task.what, task.state);
        return Some((
            Trouble,
            summary,
            "Give it more cores (--seal-cores) or a longer deadline (--seal-deadline), or end what else keeps this machine busy.",
        ));
    }
    let faulty = said.map_or(0, |status| status.sectors_faulty);
    if faulty > 0 {
        let what = render::count(faulty as u64, "sector");
        let summary = format!("{what} could not be proven and is declared faulty; it is being mended.");
        return Some((Trouble, summary, "If this stays, the disk loses data: look at its health."));
    }
    let damaged = report.kept.deals_damaged;
    if damaged > 0 {
        let what = render::count(damaged as u64, "deal");
        let summary = format!("The files of {what} cannot be read: what they promise cannot be proven.");
        return Some((
            Trouble,
            summary,
            "The slots are untouched. provider.log names the files; a copy of the folder deals/ brings them back.",
        ));
    }
    let damaged = report.kept.slots_damaged;
    if damaged > 0 {
        let what = render::count(damaged as u64, "slot");
        let summary = format!("{what} came from the disk with other bytes than were stored.");
        return Some((
            Trouble,
            summary,
            "Their drives are told, and put the copies elsewhere. A disk that damages some damages more: look at its health.",
        ));
    }
    if report.served.proofs_failed > 0 {
        let what = render::count(report.served.proofs_failed, "proof");
        let summary =
            format!("{what} of possession could not be given since the start: a slot is damaged or gone.");
        return Some((
            Trouble,
            summary,
            "provider.log names the deals. Their drives will put the copies elsewhere; look at the disk's health.",
        ));
    }
    if let Some(task) = said.and_then(|status| status.at_risk().next()) {
        let summary = format!("Sealing is late: {}, {}.", task.what, task.state);
        return Some((Warned, summary, "It goes on; more cores (--seal-cores) make it faster."));
    }
    if let Some(status) = said.filter(|status| !status.accepts) {
        let summary = format!("Takes no deals that must be sealed: {}.", status.reasons.join("; "));
        return Some((
            Warned,
            summary,
            "What is there is served and proven; it takes deals again by itself.",
        ));
    }
    if report.kept.free_bytes == 0 {
        let summary = "Full: it takes no more deals.".to_owned();
        return Some((Warned, summary, "Give it more with --capacity, or free the disk."));
    }
    None
}

impl ProviderStatusReport {
    /// Draws the verdict from everything else.
    pub fn judge(&mut self) {
        self.health = match complaint(self) {
            Some((level, summary, advice)) => Health { level, summary, advice: Some(advice.to_owned()) },
            None => Health {
                level: HealthLevel::Well,
                summary: "All is well: what was asked has been proven, and no deadline is at risk."
                    .to_owned(),
                advice: None,
            },
        };
    }

    /// What `holdfast status` prints.
    pub fn render(&self) -> String {
        let mut out = format!("{}\n", self.health.summary);
        if let Some(advice) = &self.health.advice {
            let _ = writeln!(out, "  {advice}");
        }
        let (kept, served) = (&self.kept, &self.served);
        let _ = writeln!(out, "\nprovider    {}", self.provider);
        for (kind, tag) in self.tags.each() {
            let _ = writeln!(out, "            {kind}={tag}");
        }
        let up = render::age(self.now.saturating_sub(self.started_at));
        let _ = writeln!(out, "folder      {}, served by process {} for {up}", self.dir.display(), self.pid);
        for addr in &self.addrs {
            let _ = writeln!(out, "listens     {addr}");
        }
        let _ = writeln!(
            out,
            "stores      {} in {} ({} promised), of {}; takes {} more",
            render::size(kept.stored_bytes),
            render::count(kept.deals_stored as u64, "slot"),
            render::size(kept.promised_bytes),
            render::size(kept.capacity_bytes),
            render::size(kept.free_bytes)
        );
        let _ = writeln!(
            out,
            "since then  {} served, {} received, {} connected",
            render::size(served.served_bytes),
            render::size(served.received_bytes),
            render::count(served.sessions as u64, "client")
        );
        let _ = writeln!(
            out,
            "proofs      {} of possession given, {} that could not be",
            served.proofs_made, served.proofs_failed
        );
        if let Some(url) = &self.metrics {
            let _ = writeln!(out, "metrics     {url}");
        }
        if let Some(sealing) = &self.sealing {
            let _ = writeln!(out);
            out += &sealing.render();
        }
        out
    }
}

impl SealingReport {
    fn render(&self) -> String {
        let ended = match self.prover_ended {
            0 => String::new(),
            n => format!("the prover has ended {} and was started again\n", render::count(n, "time")),
        };
        match &self.last {
            Some(last) => format!("{ended}{}", last.render()),
            None => format!("{ended}sealing {}: the prover has not said anything yet\n", self.profile),
        }
    }
}

#[cfg(test)]
mod tests;
#[cfg(test)]
pub(crate) use tests::sample as provider_sample;
