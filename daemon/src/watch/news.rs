//! What a watcher hears from its owner and its fellows: bundles and logs, as providers keep them.
//!
//! Promises: a bundle or a log is taken over whole or not at all, and only a newer one. No provider can invent one; those who
//! answer can withhold the newest.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use holdfast_content::keys::SecretKey32;
use holdfast_content::placement::PlacementEntry;
use holdfast_content::watch::part::{self, Part};
use holdfast_net::{RecordKey, RecordKind};
use serde_bytes::ByteBuf;

use super::bundle::{Bundle, Fellow};
use super::log::{Log, LogHead, SlotName};
use super::pause::Pause;
use super::picture::Deal;
use super::watcher::{Answers, DISMISSED_MAX, Heard, Watcher};
use crate::drive::ledger::Peer;

impl Watcher {
    pub(super) fn recall_bundle(&mut self) {
        let mut values = BTreeMap::new();
        for n in 0.. {
            let Some(value) = self.folder.bundle_part(n) else { break };
            values.insert(n, value);
        }
        if let Ok(bundle) = self.join(&values) {
            self.adopt_bundle(bundle);
        }
    }

    pub(super) fn bundle_name(&self, n: u16) -> RecordKey {
        RecordKey::new(RecordKind::WatchBundle, part::name(&self.capability.bundle, n))
    }

    /// A bundle out of its parts' values; parts of another number are left out.
    fn join(&self, values: &BTreeMap<u16, Vec<u8>>) -> anyhow::Result<Bundle> {
        let first = values.get(&0).context("no first part")?;
        let number = Part::verify(&self.bundle_name(0).name, first)?.number;
        let mut plain = BTreeMap::new();
        for (n, value) in values {
            let part = Part::verify(&self.bundle_name(*n).name, value)?;
            if part.number == number {
                plain.insert(*n, part.open(&self.keys.open)?.to_vec());
            }
        }
        let count = Bundle::count(plain.get(&0).context("no first part")?)?;
        plain.retain(|n, _| *n < count);
        Ok(Bundle::join(number, &plain)?)
    }

    fn adopt_bundle(&mut self, bundle: Bundle) {
        for provider in &bundle.head.providers {
            self.reach.add_place(&provider.known.peer, &provider.known.addrs);
        }
        if let Err(error) = self.reach.set_permits(&bundle) {
            tracing::warn!(%error, "a permit of the bundle is none");
        }
        let taken = bundle.head.taken;
        if self.log.entries().is_empty() && taken.length > self.log.first().length {
            // Its folder is new, and nobody keeps the log: it goes on behind what the owner has seen.
            self.log = Log::new(self.keys.log.verifying_key().to_bytes(), taken);
            self.state.first = taken;
        }
        let before: Vec<(SlotName, Vec<u8>)> = self.log.entries().iter().map(placed_as).collect();
        if self.log.trim(&taken) {
            let seen_to = before.len().saturating_sub(self.log.entries().len());
            self.note_dismissed(&bundle, before.into_iter().take(seen_to));
            self.state.first = self.log.first();
            self.state.entries = self.log.entries().iter().map(|e| ByteBuf::from(e.bytes())).collect();
        }
        // What the owner says it placed since is not what was missed before.
        self.missed.clear();
        self.ended = None;
        self.bundle = Some(bundle);
    }

    /// Of what the owner has seen to, slots that it has with somebody else all the same.
    fn note_dismissed(&mut self, bundle: &Bundle, seen_to: impl Iterator<Item = (SlotName, Vec<u8>)>) {
        let pause = (Duration::from_secs(bundle.head.silent_seconds), DISMISSED_MAX);
        for (name, deal) in seen_to {
            match held(bundle, &name).filter(|held| held.as_slice() != deal) {
                Some(held) => {
                    let known = self.dismissed.entry(name).or_insert_with(|| (held, Pause::new(pause)));
                    known.0 = held;
                    known.1.again();
                }
                None => drop(self.dismissed.remove(&name)),
            }
        }
    }

    pub(super) fn log_name(&self, n: u16) -> RecordKey {
        RecordKey::new(RecordKind::WatchLog, part::name(&self.keys.log.verifying_key().to_bytes(), n))
    }

    pub(super) async fn renew_bundle(&mut self, answers: &BTreeMap<Peer, Answers>) -> anyhow::Result<()> {
        let name = self.bundle_name(0).name;
        let verified = answers.iter().filter_map(|(peer, answer)| {
            let value = answer.bundle.as_ref()?;
            Some((Part::verify(&name, value).ok()?.number, peer, value))
        });
        let mut newest: Vec<(u64, &Peer, &Vec<u8>)> = verified.collect();
        newest.sort_by_key(|(number, ..)| std::cmp::Reverse(*number));
        let have = self.bundle.as_ref().map_or(0, |bundle| bundle.number);
        for (number, _, first) in newest.iter().filter(|(number, ..)| *number > have) {
            let Ok(plain) = Part::verify(&name, first).and_then(|part| part.open(&self.keys.open)) else {
                continue;
            };
            let mut values = BTreeMap::from([(0, (*first).clone())]);
            for n in 1..Bundle::count(&plain)? {
                let key = self.bundle_name(n);
                // Whoever has the first part has the others, as a rule.
                for (_, peer, _) in newest.iter().filter(|(has, ..)| has == number) {
                    let value = self.reach.get(peer, &key).await.ok().flatten();
                    let fits = |value: &Vec<u8>| {
                        Part::verify(&key.name, value).is_ok_and(|part| part.number == *number)
                    };
                    if let Some(value) = value.filter(fits) {
                        values.insert(n, value);
                        break;
                    }
                }
            }
            match self.join(&values) {
                Ok(bundle) => {
                    self.folder.keep_bundle(&values)?;
                    self.adopt_bundle(bundle);
                    return Ok(());
                }
                Err(error) => tracing::warn!(error = %format!("{error:#}"), number, "a bundle is not whole"),
            }
        }
        Ok(())
    }

    /// A newer log of this very watcher: the folder is an older copy, or was lost. It goes on from there.
    pub(super) async fn renew_own(&mut self, answers: &BTreeMap<Peer, Answers>) -> anyhow::Result<()> {
        let Some(shared) = self.bundle.as_ref().map(|bundle| bundle.head.shared.clone()) else {
            return Ok(());
        };
        let name = self.log_name(0).name;
        let author = self.keys.log.verifying_key().to_bytes();
        for answer in answers.values() {
            let Some(part) = answer.own.as_ref().and_then(|value| Part::verify(&name, value).ok()) else {
                continue;
            };
            if part.number <= self.state.number {
                continue;
            }
            let head = LogHead::decode(&part.open(&shared)?)?;
            let log = self.read_log(author, &head, &shared, answers.keys()).await?;
            tracing::info!(entries = log.entries().len(), "went on with the log as the providers keep it");
            self.state.number = part.number;
            self.state.first = log.first();
            self.state.entries = log.entries().iter().map(|e| ByteBuf::from(e.bytes())).collect();
            self.log = log;
            self.folder.save(&self.state)?;
        }
        Ok(())
    }

    async fn read_log(
        &self,
        author: [u8; 32],
        head: &LogHead,
        shared: &SecretKey32,
        peers: impl Iterator<Item = &Peer> + Clone,
    ) -> anyhow::Result<Log> {
        let mut plain: BTreeMap<u16, Vec<u8>> = BTreeMap::new();
        for n in head.parts() {
            let key = RecordKey::new(RecordKind::WatchLog, part::name(&author, n));
            let mut best: Option<Part> = None;
            for peer in peers.clone() {
                let Ok(Some(value)) = self.reach.get(peer, &key).await else { continue };
                let Ok(part) = Part::verify(&key.name, &value) else { continue };
                if best.as_ref().is_none_or(|best| part.number > best.number) {
                    best = Some(part);
                }
            }
            if let Some(part) = best {
                plain.insert(n, part.open(shared)?.to_vec());
            }
        }
        Ok(Log::read(author, head, &plain)?)
    }

    pub(super) async fn renew_fellows(&mut self, answers: &BTreeMap<Peer, Answers>, fellows: &[Fellow]) {
        let heard: BTreeMap<&Peer, &Vec<Option<Vec<u8>>>> =
            answers.iter().map(|(peer, answer)| (peer, &answer.fellows)).collect();
        for (n, fellow) in fellows.iter().enumerate() {
            let values = heard.values().filter_map(|values| values.get(n).cloned().flatten()).collect();
            if let Err(error) = self.renew_fellow(fellow, values, answers.keys().cloned().collect()).await {
                tracing::warn!(error = %format!("{error:#}"), "another watcher's log cannot be read");
            }
        }
        self.fellows.retain(|id, _| fellows.iter().any(|fellow| fellow.id == *id));
    }

    /// Takes over what a fellow said newest.
    pub(super) async fn renew_fellow(
        &mut self,
        fellow: &Fellow,
        values: Vec<Vec<u8>>,
        peers: Vec<Peer>,
    ) -> anyhow::Result<()> {
        let Some(shared) = self.bundle.as_ref().map(|bundle| bundle.head.shared.clone()) else {
            return Ok(());
        };
        let name = part::name(&fellow.log, 0);
        let parts = values.iter().filter_map(|value| Part::verify(&name, value).ok());
        let Some(newest) = parts.max_by_key(|part| part.number) else { return Ok(()) };
        let known = self.fellows.get(&fellow.id);
        if known.is_some_and(|heard| newest.number <= heard.number) {
            return Ok(());
        }
        let head = LogHead::decode(&newest.open(&shared)?)?;
        let log = match known.filter(|heard| heard.log.end() == head.end) {
            Some(heard) => heard.log.clone(),
            None => self.read_log(fellow.log, &head, &shared, peers.iter()).await?,
        };
        let heard = Heard { number: newest.number, head, log, since: Instant::now() };
        self.fellows.insert(fellow.id, heard);
        Ok(())
    }
}

/// The deal by which the owner has a slot.
pub(super) fn held(bundle: &Bundle, name: &SlotName) -> Option<Deal> {
    let piece = bundle.pieces.iter().find(|piece| piece.id == name.piece)?;
    Some(piece.slots.get(usize::from(name.slot))?.held.as_ref()?.deal)
}

fn placed_as(entry: &PlacementEntry) -> (SlotName, Vec<u8>) {
    let body = entry.body();
    (SlotName { piece: body.piece, slot: body.slot }, body.deal.to_vec())
}
