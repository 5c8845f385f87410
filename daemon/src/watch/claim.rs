//! Whose a lost slot is to place: intents, said before the fellows' are read; and how a log is left with providers.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use futures::StreamExt;
use holdfast_content::watch::{CapabilityId, part};
use holdfast_net::{RecordKey, RecordKind};

use super::bundle::Bundle;
use super::log::SlotName;
use super::picture::{Seen, Wanted};
use super::watcher::{Answers, INTENT, Watcher};
use crate::drive::ledger::{Peer, PieceId};
use crate::drive::peers::peer_short;

/// Providers that are told at once.
const AT_ONCE: usize = 16;

impl Watcher {
    /// Says what it is about to do, and hears what the fellows are: gives those that are this watcher's to place. `judged` is
    /// how far each fellow's log was known when the slots were found lost.
    pub(super) async fn claim(
        &mut self,
        chosen: &[(Wanted, Peer)],
        judged: &BTreeMap<CapabilityId, u64>,
        answers: &BTreeMap<Peer, Answers>,
    ) -> anyhow::Result<BTreeSet<SlotName>> {
        let intents: Vec<SlotName> = chosen.iter().map(|(wanted, _)| wanted.slot).collect();
        if intents.is_empty() {
            if !std::mem::take(&mut self.intents).is_empty() {
                self.say(answers.keys(), None).await?;
            }
            return Ok(BTreeSet::new());
        }
        if intents != self.intents {
            self.intents = intents.clone();
            if let Err(error) = self.say(answers.keys(), None).await {
                // It was not said: the next look says it again.
                self.intents.clear();
                return Err(error);
            }
        }
        // From here on only what is read after it was said counts.
        for fellow in &self.fellows() {
            let key = RecordKey::new(RecordKind::WatchLog, part::name(&fellow.log, 0));
            let peers: Vec<Peer> = answers.keys().cloned().collect();
            let values = futures::stream::iter(&peers)
                .map(|peer| self.reach.get(peer, &key))
                .buffer_unordered(AT_ONCE)
                .filter_map(|value| std::future::ready(value.ok().flatten()))
                .collect()
                .await;
            self.renew_fellow(fellow, values, peers).await?;
        }
        let mut mine: BTreeSet<SlotName> = intents.iter().copied().collect();
        let mut yielded = false;
        let weary = self.weary();
        for (id, heard) in &self.fellows {
            // What it has placed meanwhile is judged at the next look.
            let known = judged.get(id).copied().unwrap_or(0);
            let since = heard.log.entries().iter().filter(|entry| entry.body().number >= known);
            // Whole pieces: two slots that are placed side by side, each unseen by the other, could go to one provider.
            let placed: BTreeSet<PieceId> = since.map(|entry| entry.body().piece).collect();
            let live = heard.since.elapsed() < INTENT;
            let intends = |slot: &SlotName| heard.head.intents.iter().any(|other| other.piece == slot.piece);
            let theirs = |slot: &&SlotName| (live && intends(slot)) || placed.contains(&slot.piece);
            for slot in intents.iter().filter(|slot| theirs(slot) && !weary.contains(slot)) {
                mine.remove(slot);
                self.left.entry(*slot).or_insert_with(Instant::now);
                if *id < self.capability.id {
                    self.intents.retain(|intent| intent != slot);
                    yielded = true;
                }
            }
        }
        if yielded {
            self.say(answers.keys(), None).await?;
        }
        Ok(mine)
    }

    /// Slots that were left to fellows for long enough: whatever they say, nobody has shown that he keeps one of these.
    pub(super) fn weary(&self) -> BTreeSet<SlotName> {
        self.left.iter().filter(|(_, since)| since.elapsed() >= INTENT).map(|(slot, _)| *slot).collect()
    }

    /// Puts down which slots are left to fellows by what these say they placed; what somebody keeps is not.
    pub(super) fn leave(&mut self, bundle: &Bundle, seen: &mut Seen) {
        let unkept = self.picture(bundle).unkept(seen);
        self.left.retain(|slot, _| unkept.contains_key(slot));
        for slot in unkept.into_iter().filter_map(|(slot, said)| said.then_some(slot)) {
            self.left.entry(slot).or_insert_with(Instant::now);
        }
        seen.weary = self.weary();
    }

    /// Leaves the log with everybody who answers: its head, and the parts with entries from `from` on.
    pub(super) async fn say(
        &mut self,
        peers: impl Iterator<Item = &Peer>,
        from: Option<u64>,
    ) -> anyhow::Result<()> {
        let Some(shared) = self.bundle.as_ref().map(|bundle| bundle.head.shared.clone()) else {
            return Ok(());
        };
        let mut plain = match from {
            Some(from) => self.log.parts(from)?,
            None => Vec::new(),
        };
        // The head last: whoever reads it finds the parts that it names.
        plain.push((0, self.log.head(self.intents.clone(), self.state.places.clone())?));
        let mut values = Vec::new();
        for (n, plain) in plain {
            self.state.number += 1;
            values.push((
                self.log_name(n),
                part::write(&self.keys.log, n, self.state.number, &shared, &plain)?,
            ));
        }
        self.folder.save(&self.state)?;
        let (values, reach) = (&values, &self.reach);
        let said: Vec<bool> = futures::stream::iter(peers)
            .map(|peer| async move {
                for (key, value) in values {
                    if let Err(error) = reach.put(peer, key, value).await {
                        tracing::debug!(peer = %peer_short(peer), %error, "the log was not taken");
                        return false;
                    }
                }
                true
            })
            .buffer_unordered(AT_ONCE)
            .collect()
            .await;
        anyhow::ensure!(said.contains(&true), "no provider takes this watcher's log");
        Ok(())
    }
}
