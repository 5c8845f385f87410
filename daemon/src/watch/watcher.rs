//! A watcher's look: ask everybody, challenge, find what is lost, place it anew, say so.
//!
//! ```text
//! ask       each provider: is it there; the bundle, this watcher's log and its fellows' as it keeps them
//! judge     silence since the last looks, challenges ─► slots that nobody keeps any more
//! claim     intents in the log, left with everybody ─► the fellows' intents read again ─► those that are this watcher's to place
//! place     source, verified ─► rebuilt, verified ─► deal ─► push ─► receipt ─► re-check ─► entry in the log, left with everybody
//! ```
//!
//! Two watchers do not place one slot: each says what it is about to do *before* it reads what the other says, so of two at least
//! one sees the other. Who sees an intent of a lower capability takes its own back; who sees one of a higher waits for that. What
//! stands for longer than [`INTENT`] without a word from its author counts no more.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use futures::StreamExt;
use holdfast_content::placement::PlacementEntry;
use holdfast_content::watch::part;
use holdfast_content::watch::{CapabilityId, WatcherKeys};
use holdfast_net::tags::Tags;
use holdfast_net::{NetError, RecordKey, RecordKind};
use serde_bytes::ByteBuf;

use super::bundle::{Bundle, Fellow};
use super::capability::{Capability, Known};
use super::log::{INTENTS_MAX, Log, LogHead, SlotName};
use super::news::held;
use super::pause::Pause;
use super::picture::{Deal, Health, Picture, Seen, Wanted};
use super::reach::{PATIENCE, Reach};
use super::report::{LookReport, RepairedReport, WantedReport};
use super::state::{Folder, State};
use crate::drive::ledger::Peer;
use crate::drive::peers::{peer_short, peer_text};
use crate::home::ProviderAddr;
use crate::reading::{Readings, Times};
use crate::workers::place::short_id;

/// Providers asked at once.
pub(super) const AT_ONCE: usize = 16;
/// Every slot is challenged this often.
pub(super) const CHALLENGED: Duration = Duration::from_secs(600);
/// An intent that its author has not renewed for so long counts no more.
pub const INTENT: Duration = Duration::from_secs(900);
/// Slots in one look: what was found out is said at least that often.
const PLACED_MAX: usize = 16;
/// A provider that refused a slot, or failed at one, is not asked again for so long, and at most for so long: those whom every draw puts first shall not
/// keep the others from their turn.
const REFUSED: (Duration, Duration) = (Duration::from_secs(60), Duration::from_secs(3600));
/// A slot that was placed and that the owner has where it was is left to it for as long as its silence is borne with, at most for so long: perhaps its
/// holder is silent to this watcher alone.
pub(super) const DISMISSED_MAX: Duration = Duration::from_secs(24 * 3600);

/// Why a watcher waits.
const OWNER_IS_HERE: &str = "the owner's machine was heard lately, and repairs it itself";
const OWNER_KNOWS: &str = "the owner's machine has ended what was placed for it before: its holder may be silent to this watcher alone";

/// What a fellow says.
pub(super) struct Heard {
    pub(super) number: u64,
    pub(super) head: LogHead,
    pub(super) log: Log,
    /// When it said something new.
    pub(super) since: Instant,
}

/// One provider's answers.
#[derive(Default)]
pub(super) struct Answers {
    now: u64,
    tags: Option<Tags>,
    pub(super) bundle: Option<Vec<u8>>,
    pub(super) own: Option<Vec<u8>>,
    pub(super) fellows: Vec<Option<Vec<u8>>>,
}

/// See the module.
pub struct Watcher {
    pub(super) folder: Folder,
    pub(super) capability: Capability,
    pub(super) keys: WatcherKeys,
    pub(super) reach: Reach,
    pub(super) state: State,
    pub(super) log: Log,
    pub(super) bundle: Option<Bundle>,
    pub(super) fellows: BTreeMap<CapabilityId, Heard>,
    pub(super) intents: Vec<SlotName>,
    pub(super) proven: BTreeMap<Deal, Instant>,
    /// What reads of each deal showed.
    pub(super) readings: Readings,
    /// When slots are read, and which are at the next look.
    pub(super) times: Times,
    pub(super) to_read: BTreeSet<Deal>,
    /// Deals that a provider said it does not know, once.
    pub(super) missed: BTreeSet<Deal>,
    /// Since when a slot that nobody keeps has been left to a fellow, who says that it sees to it, or did.
    pub(super) left: BTreeMap<SlotName, Instant>,
    tags: BTreeMap<Peer, Tags>,
    /// Providers that ever answered in this run.
    pub(super) met: BTreeSet<Peer>,
    refused: BTreeMap<Peer, Pause>,
    /// Slots that were placed, and that the owner has by another deal all the same.
    pub(super) dismissed: BTreeMap<SlotName, (Deal, Pause)>,
    pub(super) carried: BTreeSet<Peer>,
    /// Why the owner's permits count no more.
    pub(super) ended: Option<String>,
}

fn own_log(state: &State, keys: &WatcherKeys) -> anyhow::Result<Log> {
    let mut log = Log::new(keys.log.verifying_key().to_bytes(), state.first);
    for bytes in &state.entries {
        log.follow(PlacementEntry::verify(bytes)?)?;
    }
    Ok(log)
}

impl Watcher {
    /// Over an opened folder.
    pub fn new(
        folder: Folder,
        capability: Capability,
        state: State,
        reach: Reach,
    ) -> anyhow::Result<Watcher> {
        let keys = capability.keys();
        let log = own_log(&state, &keys)?;
        let mut watcher = Watcher {
            folder,
            capability,
            keys,
            reach,
            state,
            log,
            bundle: None,
            fellows: BTreeMap::new(),
            intents: Vec::new(),
            proven: BTreeMap::new(),
            readings: Readings::default(),
            times: Times::default(),
            to_read: BTreeSet::new(),
            missed: BTreeSet::new(),
            left: BTreeMap::new(),
            tags: BTreeMap::new(),
            met: BTreeSet::new(),
            refused: BTreeMap::new(),
            dismissed: BTreeMap::new(),
            carried: BTreeSet::new(),
            ended: None,
        };
        watcher.recall_bundle();
        Ok(watcher)
    }

    /// Everybody that may be asked.
    fn find_places(&mut self) {
        let known: Vec<Known> = [&self.capability.providers, &self.state.places]
            .into_iter()
            .flatten()
            .chain(self.fellows.values().flat_map(|heard| &heard.head.places))
            .cloned()
            .collect();
        for known in &known {
            self.reach.add_place(&known.peer, &known.addrs);
        }
        for provider in self.folder.providers() {
            if let Ok((peer, _)) = provider.parts() {
                self.reach.add_place(&peer.to_bytes(), &provider.addrs);
            }
        }
    }

    pub(super) fn fellows(&self) -> Vec<Fellow> {
        self.bundle.as_ref().map(|bundle| bundle.head.fellows.clone()).unwrap_or_default()
    }

    async fn ask(&self, peer: &Peer, fellows: &[Fellow]) -> Result<Answers, NetError> {
        let bundle = self.bundle_name(0);
        let own = self.log_name(0);
        let asking = async {
            let session = self.reach.greeted(peer).await?;
            let now = session.info().await?.now;
            let tags = session.tags().await.ok();
            let mut answers = Answers { now, tags, ..Answers::default() };
            let get = async |key: &RecordKey| {
                session.get_record(key).await.map(|value| value.map(|value| value.to_vec()))
            };
            answers.bundle = get(&bundle).await?;
            answers.own = get(&own).await?;
            for fellow in fellows {
                let key = RecordKey::new(RecordKind::WatchLog, part::name(&fellow.log, 0));
                answers.fellows.push(get(&key).await?);
            }
            Ok(answers)
        };
        tokio::time::timeout(PATIENCE * 2, asking).await.map_err(|_| NetError::Timeout(PATIENCE * 2))?
    }

    /// One look; `Ok` whatever the providers do.
    pub async fn look(&mut self) -> anyhow::Result<LookReport> {
        let now = self.reach.env.clock.unix_seconds();
        let passed = self.state.begin(now);
        self.find_places();
        let fellows = self.fellows();
        let (this, about) = (&*self, fellows.as_slice());
        let asked: Vec<(Peer, Result<Answers, NetError>)> = futures::stream::iter(this.reach.peers())
            .map(|peer| async move {
                let answer = this.ask(&peer, about).await;
                (peer, answer)
            })
            .buffer_unordered(AT_ONCE)
            .collect()
            .await;
        let mut answers: BTreeMap<Peer, Answers> = BTreeMap::new();
        for (peer, answer) in asked {
            match answer {
                Ok(answer) => drop(answers.insert(peer, answer)),
                Err(error) => {
                    self.state.heard(&peer, false, passed);
                    tracing::debug!(peer = %peer_short(&peer), %error, "no answer");
                }
            }
        }
        self.remember_places(&answers);
        self.renew_bundle(&answers).await?;
        self.renew_own(&answers).await?;
        self.renew_fellows(&answers, &fellows).await;
        let mut report = self.judge_and_place(&answers, passed).await?;
        self.folder.save(&self.state)?;
        report.ended = self.ended.clone();
        self.folder.tell(&report)?;
        Ok(report)
    }

    /// Who answered once is asked again after a restart; who was there before is not written down twice.
    fn remember_places(&mut self, answers: &BTreeMap<Peer, Answers>) {
        for (peer, answer) in answers {
            self.met.insert(peer.clone());
            if let Some(tags) = &answer.tags {
                self.tags.insert(peer.clone(), tags.clone());
            }
            let named = self.bundle.as_ref().is_some_and(|bundle| bundle.peers().contains(peer));
            let addrs = self.reach.addrs(peer);
            let known = self.state.places.iter_mut().find(|known| known.peer == *peer);
            match (named, known) {
                (true, _) => self.state.places.retain(|known| known.peer != *peer),
                (false, Some(known)) => known.addrs = addrs,
                (false, None) => self.state.places.push(Known { peer: ByteBuf::from(peer.clone()), addrs }),
            }
        }
    }

    pub(super) fn picture<'a>(&'a self, bundle: &'a Bundle) -> Picture<'a> {
        let others = self.fellows.values().flat_map(|heard| heard.log.entries());
        Picture::new(bundle, self.log.entries(), others)
    }

    fn seen(&self, answers: &BTreeMap<Peer, Answers>, mute: &BTreeSet<Peer>) -> Seen {
        let mut times: Vec<u64> = answers.values().map(|answer| answer.now).collect();
        times.sort_unstable();
        let own = self.reach.env.clock.unix_seconds();
        let now = times.get(times.len() / 2).copied().filter(|_| times.len() > 2).unwrap_or(own);
        let mut tags: BTreeMap<Peer, [Tags; 2]> =
            self.tags.iter().map(|(peer, tags)| (peer.clone(), [tags.clone(), Tags::default()])).collect();
        for provider in self.bundle.iter().flat_map(|bundle| &bundle.head.providers) {
            let said = self.tags.get(provider.known.peer.as_slice());
            let [declared, owners] = provider.tags.clone();
            // What the provider says now stands beside what the owner knows of it: either merges.
            let declared = said.filter(|said| !said.is_empty()).cloned().unwrap_or(declared);
            tags.insert(provider.known.peer.to_vec(), [declared, owners]);
        }
        Seen {
            silent: self.state.silences(),
            answered: answers.keys().filter(|peer| !mute.contains(*peer)).cloned().collect(),
            met: self.met.clone(),
            proven: self.proven.keys().copied().collect(),
            faults: self.state.faults.iter().map(|fault| (fault.deal, fault.why.clone())).collect(),
            tags,
            weary: self.weary(),
            now,
        }
    }

    async fn judge_and_place(
        &mut self,
        answers: &BTreeMap<Peer, Answers>,
        passed: u64,
    ) -> anyhow::Result<LookReport> {
        let mut report = LookReport::begin(&self.capability, &self.state);
        report.providers_answered = answers.len() as u64;
        let bundle = self.bundle.clone();
        let mute = match &bundle {
            Some(bundle) => self.challenge(bundle, answers).await,
            None => BTreeSet::new(),
        };
        for peer in answers.keys() {
            self.state.heard(peer, !mute.contains(peer), passed);
        }
        let silent = self.state.silences();
        report.silent = silent.iter().map(|(peer, seconds)| (peer_text(peer), *seconds)).collect();
        let Some(bundle) = bundle else { return Ok(report) };
        report.bundle_at = Some(bundle.head.time);
        let mut seen = self.seen(answers, &mute);
        self.leave(&bundle, &mut seen);
        let judged: BTreeMap<CapabilityId, u64> =
            self.fellows.iter().map(|(id, heard)| (*id, heard.log.end().length)).collect();
        let wanted = {
            let picture = self.picture(&bundle);
            for (_, keeper) in picture.all() {
                report.count(&picture.health(keeper, &seen));
            }
            report.slots = bundle.pieces.iter().map(|piece| piece.slots.len() as u64).sum();
            picture.wanted(&seen)
        };
        report.lost = wanted.len() as u64;
        if self.ended.is_some() || bundle.head.until <= seen.now {
            self.ended.get_or_insert_with(|| "the capability has ended".to_owned());
            return Ok(report);
        }
        // Two that repair the same slots end each other's copies: what is lost while the owner speaks is the owner's.
        let chosen = if seen.now.abs_diff(bundle.head.time) < bundle.head.silent_seconds {
            report.waiting.extend(wanted.iter().map(|wanted| WantedReport::new(wanted, OWNER_IS_HERE)));
            Vec::new()
        } else {
            self.choose(&bundle, &wanted, &seen, &mut report)
        };
        let mine = self.claim(&chosen, &judged, answers).await?;
        let peers: Vec<Peer> = answers.keys().cloned().collect();
        for (wanted, peer) in chosen.iter().filter(|(wanted, _)| mine.contains(&wanted.slot)).take(PLACED_MAX)
        {
            let placed = match self.prepare(&bundle, wanted, peer, seen.now) {
                Ok(prepared) => {
                    let picture = self.picture(&bundle);
                    self.place(&picture, &seen, wanted, &prepared).await
                }
                Err(error) => Err(error),
            };
            match placed {
                Ok(facts) => {
                    self.refused.remove(peer);
                    self.placed(facts, &peers).await?;
                    report.repaired.push(RepairedReport::new(wanted, peer));
                }
                Err(error) => {
                    tracing::warn!(peer = %peer_short(peer), error = %format!("{error:#}"), "a slot was not placed");
                    self.refused.entry(peer.clone()).or_insert_with(|| Pause::new(REFUSED)).again();
                    report.waiting.push(WantedReport::new(wanted, &format!("{error:#}")));
                }
            }
        }
        // What was placed, or could not be, is no intent any more; what a fellow is at stays one.
        let before = self.intents.len();
        self.intents.retain(|intent| !mine.contains(intent));
        if self.intents.len() < before {
            self.say(peers.iter(), None).await?;
        }
        report.moved_today_bytes = self.state.moved_bytes();
        Ok(report)
    }

    /// Which of the lost slots go where, within what the owner allows.
    fn choose(
        &mut self,
        bundle: &Bundle,
        wanted: &[Wanted],
        seen: &Seen,
        report: &mut LookReport,
    ) -> Vec<(Wanted, Peer)> {
        self.refused.retain(|_, refusal| !refusal.is_forgotten());
        self.dismissed
            .retain(|slot, (deal, pause)| !pause.is_forgotten() && held(bundle, slot) == Some(*deal));
        let kept: u64 = self.log.entries().iter().map(|entry| entry.body().raw_len).sum();
        let mut room = bundle.head.daily.saturating_sub(self.state.moved_bytes());
        room = room.min(bundle.head.bytes.saturating_sub(kept));
        let faulty: BTreeSet<&[u8]> = self.state.faults.iter().map(|fault| fault.peer.as_slice()).collect();
        let fit = |peer: &&Peer| {
            !self.refused.get(*peer).is_some_and(Pause::stands) && self.reach.place_permit(peer).is_some()
        };
        // Who lost a slot once (a rotten sector, say) is better than nobody: it gets another one where nobody else is left.
        let all: Vec<Peer> = seen.answered.iter().filter(fit).cloned().collect();
        let candidates: Vec<Peer> =
            all.iter().filter(|peer| !faulty.contains(peer.as_slice())).cloned().collect();
        let picture = self.picture(bundle);
        let mut taken: BTreeMap<[u8; 16], Vec<Peer>> = BTreeMap::new();
        let mut chosen = Vec::new();
        for wanted in wanted.iter().take(INTENTS_MAX) {
            if self.dismissed.get(&wanted.slot).is_some_and(|(_, pause)| pause.stands()) {
                report.waiting.push(WantedReport::new(wanted, OWNER_KNOWS));
                continue;
            }
            if wanted.bytes > room {
                report.waiting.push(WantedReport::new(wanted, "the owner's limit is used up"));
                continue;
            }
            let others = taken.entry(wanted.slot.piece).or_default();
            let begun = self.state.proposed.iter().find(|p| p.slot == wanted.slot).map(|p| p.peer.to_vec());
            let begun = begun.filter(|peer| candidates.contains(peer));
            let drawn = |from: &[Peer]| picture.draw(&wanted.slot, from, others, seen);
            match begun.or_else(|| drawn(&candidates)).or_else(|| drawn(&all)) {
                Some(peer) => {
                    room -= wanted.bytes;
                    others.push(peer.clone());
                    chosen.push((wanted.clone(), peer));
                }
                None => {
                    report.waiting.push(WantedReport::new(wanted, "no provider is there that could take it"))
                }
            }
        }
        chosen
    }

    /// Providers that whoever runs it names.
    pub fn add_providers(&self, more: &[ProviderAddr]) -> anyhow::Result<()> {
        match more.is_empty() {
            true => Ok(()),
            false => self.folder.add_providers(more),
        }
    }

    /// The connections end.
    pub async fn shutdown(&self) {
        self.reach.shutdown().await;
    }

    /// Whether the next look should come soon: something is under way.
    pub fn is_busy(report: &LookReport) -> bool {
        !report.repaired.is_empty() && report.lost > report.repaired.len() as u64
    }
}

/// For a log line.
pub fn name(slot: &SlotName) -> String {
    format!("{}-{}", short_id(&slot.piece), slot.slot)
}

impl LookReport {
    fn count(&mut self, health: &Health) {
        match health {
            Health::Well => self.well += 1,
            Health::Doubt => self.doubtful += 1,
            Health::Lost(_) => {}
        }
    }
}
