//! What a look found: `holdfast watch --json`, and the file `status` of a watcher's folder. Stable; documented in daemon/CLI.md.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde::{Deserialize, Serialize};

use super::capability::Capability;
use super::picture::Wanted;
use super::state::State;
use super::watcher;
use crate::control::render::size;
use crate::drive::ledger::Peer;
use crate::drive::peers::{peer_short, peer_text};

/// See the module.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LookReport {
    pub schema: u32,
    /// The capability, 32 hexadecimal digits.
    pub capability: String,
    pub label: String,
    pub at: u64,
    pub until: u64,
    /// When the owner last said what is to be watched; absent: no provider has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bundle_at: Option<u64>,
    pub providers_answered: u64,
    /// Seconds of silence by provider.
    pub silent: BTreeMap<String, u64>,
    /// Slots that are watched.
    pub slots: u64,
    /// Copies or shards that were proven.
    pub well: u64,
    /// Those that are not known to be well or lost.
    pub doubtful: u64,
    /// Slots that nobody keeps, before this look placed any.
    pub lost: u64,
    /// What this look placed.
    pub repaired: Vec<RepairedReport>,
    /// What it could not place.
    pub waiting: Vec<WantedReport>,
    pub moved_today_bytes: u64,
    /// The capability does nothing any more, and why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended: Option<String>,
}

/// A slot that was placed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RepairedReport {
    /// Piece or stripe, and slot.
    pub slot: String,
    pub bytes: u64,
    /// Whose it is now.
    pub provider: String,
    /// Why nobody kept it.
    pub why: String,
}

/// A slot that waits.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WantedReport {
    pub slot: String,
    pub bytes: u64,
    /// Why nobody keeps it.
    pub why: String,
    /// What is in the way.
    pub waits_for: String,
}

impl RepairedReport {
    pub(super) fn new(wanted: &Wanted, peer: &Peer) -> RepairedReport {
        let (slot, why) = (watcher::name(&wanted.slot), wanted.why.clone());
        RepairedReport { slot, bytes: wanted.bytes, provider: peer_text(peer), why }
    }
}

impl WantedReport {
    pub(super) fn new(wanted: &Wanted, waits_for: &str) -> WantedReport {
        let (slot, why) = (watcher::name(&wanted.slot), wanted.why.clone());
        WantedReport { slot, bytes: wanted.bytes, why, waits_for: waits_for.chars().take(300).collect() }
    }
}

impl LookReport {
    pub(super) fn begin(capability: &Capability, state: &State) -> LookReport {
        LookReport {
            schema: 1,
            capability: data_encoding::HEXLOWER.encode(&capability.id),
            label: capability.label.clone(),
            at: state.looked_at,
            until: capability.until,
            moved_today_bytes: state.moved_bytes(),
            ..LookReport::default()
        }
    }

    /// For a person.
    pub fn render(&self) -> String {
        let mut out = String::new();
        let _ = match self.bundle_at {
            None => writeln!(
                out,
                "{} providers answer, and none has what is to be watched",
                self.providers_answered
            ),
            Some(_) => writeln!(
                out,
                "{} providers answer; {} of {} slots lost, {} proven, {} not known",
                self.providers_answered, self.lost, self.slots, self.well, self.doubtful
            ),
        };
        for (peer, seconds) in &self.silent {
            let _ = writeln!(out, "  {peer} is silent for {seconds} s");
        }
        for done in &self.repaired {
            let peer = done.provider.parse::<holdfast_net::PeerId>().map(|peer| peer_short(&peer.to_bytes()));
            let peer = peer.unwrap_or_else(|_| done.provider.clone());
            let _ = writeln!(out, "  placed {} ({}) with {peer}: {}", done.slot, size(done.bytes), done.why);
        }
        for open in &self.waiting {
            let _ = writeln!(
                out,
                "  {} ({}, {}) waits: {}",
                open.slot,
                size(open.bytes),
                open.why,
                open.waits_for
            );
        }
        if let Some(why) = &self.ended {
            let _ = writeln!(out, "  nothing is done any more: {why}");
        }
        out
    }
}
