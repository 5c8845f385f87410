//! Whose a lost slot is to place: intents, said before the fellows' are read; and how a log is left with providers.

use std::collections::{BTreeMap, BTreeSet};

use futures::StreamExt;
use holdfast_content::watch::part;
use holdfast_net::{RecordKey, RecordKind};

use super::log::SlotName;
use super::picture::{Deal, Wanted};
use super::watcher::{Answers, Heard, INTENT, Watcher};
use crate::drive::ledger::Peer;
use crate::drive::peers::peer_short;

/// Providers that are told at once.
const AT_ONCE: usize = 16;

impl Watcher {
    /// Says what it is about to do, and hears what the fellows are: gives those that are this watcher's to place.
    pub(super) async fn claim(
        &mut self,
        chosen: &[(Wanted, Peer)],
        answers: &BTreeMap<Peer, Answers>,
    ) -> anyhow::Result<BTreeSet<SlotName>> {
        let intents: Vec<SlotName> = chosen.iter().map(|(wanted, _)| wanted.slot).collect();
        let fellows = self.fellows();
        if intents.is_empty() || fellows.is_empty() {
            self.intents = intents.clone();
            return Ok(intents.into_iter().collect());
        }
        if intents != self.intents {
            self.intents = intents.clone();
            self.say(answers.keys(), None).await?;
        }
        // From here on only what is read after it was said counts.
        for fellow in &fellows {
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
        for (id, heard) in &self.fellows {
            let placed = heard
                .log
                .entries()
                .iter()
                .map(|entry| SlotName { piece: entry.body().piece, slot: entry.body().slot });
            // What it has placed meanwhile is judged at the next look.
            let entries: BTreeSet<SlotName> = placed.filter(|slot| self.is_news(heard, slot)).collect();
            let live = heard.since.elapsed() < INTENT;
            for slot in intents
                .iter()
                .filter(|slot| (live && heard.head.intents.contains(slot)) || entries.contains(slot))
            {
                mine.remove(slot);
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

    /// Whether a fellow's word on a slot came after this watcher judged it: its holder is not known to be lost.
    fn is_news(&self, heard: &Heard, slot: &SlotName) -> bool {
        heard.log.entries().iter().any(|entry| {
            let body = entry.body();
            let deal = Deal::try_from(body.deal.as_slice()).unwrap_or_default();
            let same = body.piece == slot.piece && body.slot == slot.slot;
            let judged = self.proven.contains_key(&deal)
                || self.state.faults.iter().any(|fault| fault.deal == deal)
                || self.state.silent.iter().any(|silence| silence.peer == body.holder);
            same && !judged
        })
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
