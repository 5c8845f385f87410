//! A running drive: everything that its workers share.
//!
//! Owns [`Engine`]. Promises: workers meet through committed rows (the ledger, the drive's own), never by calling each
//! other; `wake` only says "look again". Refuses to write once a second writer of the same drive was seen.

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use holdfast_content::class::Class;
use holdfast_content::keys::DriveKeys;
use holdfast_content::placement::{ChainEnd, PlacementAction, PlacementEntry, PlacementFacts, STRIPE_ITSELF};
use holdfast_fs::drive::Drive;
use holdfast_fs::drive::types::PieceInfo;
use holdfast_net::{Env, SigningKey};
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::control::{DriveState, RestoredReport};
use crate::retrieve::NetRetriever;
use crate::share::Shared;
use crate::watch::Watched;
use crate::worker::Supervisor;

pub mod anchors;
pub mod claim;
pub mod classes;
pub mod clock;
pub mod domains;
pub mod events;
pub mod head;
pub mod ledger;
pub mod peers;
pub mod policy;
pub mod run;
pub mod select;
pub mod sending;
pub mod slots;
pub mod stripe_plan;
pub mod stuck;
pub mod takeover;
pub mod term;
pub mod threads;

pub use run::{begin, mount_options, run, start_workers, verify_unmounted};

use events::Events;
use head::HeadState;
use ledger::{Ledger, LedgerError};
use peers::Peers;
use policy::Policy;
use term::TermState;
use threads::Threads;

/// A provider's row notes that it answers at least this often, in seconds.
const LAST_OK_SECONDS: u64 = 600;

/// After a start providers have so long to say what time it is, before one that agrees is enough.
const TIME_TOLD_MS: u64 = 45_000;

/// Why this home may not write any more.
const READ_ONLY_NOTE: &str = "read-only";

/// What the workers of one drive share.
pub struct Engine {
    /// The file system side.
    pub drive: Drive,
    /// Where slots lie.
    pub ledger: Arc<Ledger>,
    /// Sessions with providers.
    pub peers: Arc<Peers>,
    /// Blocks from providers.
    pub retriever: Arc<NetRetriever>,
    /// The drive's keys.
    pub keys: Arc<DriveKeys>,
    /// The head as it was last published.
    pub head: HeadState,
    /// The term that this machine holds.
    pub term: TermState,
    /// By which its heads are known from those of other machines.
    pub writer: SigningKey,
    /// Anchors whose countersignature is of another head than the published one.
    pub doubted: Mutex<HashSet<ledger::Peer>>,
    /// The owner's rules.
    pub policy: Policy,
    /// What happened lately.
    pub events: Events,
    /// The workers.
    pub supervisor: Supervisor,
    /// Time and randomness.
    pub env: Env,
    /// The home folder.
    pub home: PathBuf,
    /// The drive's name, as text.
    pub drive_name: String,
    /// The drive's name: its root public key.
    pub drive_key: [u8; 32],
    /// This machine's name in commits and heads.
    pub device: [u8; 16],
    /// Unix seconds.
    pub started_at: u64,
    /// Milliseconds of the monotonic clock.
    started_ms: u64,
    /// Set on a drive that was restored from its words.
    pub restored: Option<RestoredReport>,
    only_read: bool,
    /// Where work that blocks is done.
    pub threads: Threads,
    /// One seal at a time.
    pub sealing: tokio::sync::Mutex<()>,
    /// Bytes that providers took since the start: shows that the drive drains.
    pub sent_bytes: AtomicU64,
    /// How fast that goes.
    pub sending: sending::Sending,
    /// Somebody committed a row that others may want to see.
    pub wake: Notify,
    /// How long providers are silent, and what time they have.
    pub clocks: clock::Clocks,
    /// How much each of them would take.
    pub rooms: stuck::Rooms,
    /// What watchers did, and are given.
    pub watched: Watched,
    /// What private links show.
    pub shared: Shared,
    place: Mutex<Place>,
}

#[derive(Default)]
struct Place {
    mountpoint: Option<PathBuf>,
    unmounting: bool,
    read_only: Option<String>,
    /// Why this machine may not write yet.
    waiting: Option<String>,
}

/// Everything that [`Engine::new`] is given.
pub struct Parts {
    pub drive: Drive,
    pub ledger: Arc<Ledger>,
    pub peers: Arc<Peers>,
    pub retriever: Arc<NetRetriever>,
    pub keys: Arc<DriveKeys>,
    pub head: HeadState,
    pub term: TermState,
    pub writer: SigningKey,
    /// Whether it is mounted to be read only.
    pub only_read: bool,
    pub policy: Policy,
    pub env: Env,
    pub home: PathBuf,
    pub drive_name: String,
    pub drive_key: [u8; 32],
    pub device: [u8; 16],
    pub restored: Option<RestoredReport>,
    pub threads: Threads,
}

impl Engine {
    /// Joins the parts; no worker runs yet.
    pub fn new(parts: Parts) -> Self {
        let started_at = parts.env.clock.unix_seconds();
        let started_ms = parts.env.clock.monotonic_ms();
        let watched = !parts.ledger.grants().is_empty();
        let shared = Shared::new(&parts.home);
        if watched {
            parts.peers.set_watched();
        }
        Self {
            drive: parts.drive,
            ledger: parts.ledger,
            peers: parts.peers,
            retriever: parts.retriever,
            keys: parts.keys,
            head: parts.head,
            term: parts.term,
            writer: parts.writer,
            only_read: parts.only_read,
            threads: parts.threads,
            doubted: Mutex::default(),
            policy: parts.policy,
            events: Events::default(),
            supervisor: Supervisor::new(),
            env: parts.env,
            home: parts.home,
            drive_name: parts.drive_name,
            drive_key: parts.drive_key,
            device: parts.device,
            started_at,
            started_ms,
            restored: parts.restored,
            sealing: tokio::sync::Mutex::new(()),
            sent_bytes: AtomicU64::new(0),
            sending: sending::Sending::default(),
            wake: Notify::new(),
            clocks: clock::Clocks::default(),
            rooms: stuck::Rooms::default(),
            watched: Watched::new(watched),
            shared,
            place: Mutex::default(),
        }
    }

    /// Unix seconds.
    pub fn now(&self) -> u64 {
        self.env.clock.unix_seconds()
    }

    /// The time that deals run by.
    pub fn deal_now(&self) -> u64 {
        self.clocks.deal_now(self.now(), self.env.clock.monotonic_ms())
    }

    /// Whether the time is known well enough for what nothing brings back: links that end by it, old snapshots.
    pub fn knows_time(&self) -> bool {
        let ms = self.env.clock.monotonic_ms();
        let had_their_time = ms.saturating_sub(self.started_ms) >= TIME_TOLD_MS;
        self.clocks.is_known(self.now(), ms, had_their_time)
    }

    /// How long a provider that is silent has been so, by time awake.
    pub fn silent_seconds(&self, peer: &ledger::Peer) -> u64 {
        self.clocks.silent_seconds(peer, self.env.clock.monotonic_ms())
    }

    /// A provider said what time it has. A clock of ours that turns out to be wrong is told once.
    pub fn provider_told_time(&self, peer: &ledger::Peer, seconds: u64) {
        let ms = self.env.clock.monotonic_ms();
        self.clocks.told(peer, seconds, ms);
        if let Some(text) = self.clocks.news(self.now(), ms) {
            self.events.add(self.now(), events::Level::Warning, text);
        }
    }

    /// Runs what blocks (disk, hashing) on a thread that may.
    pub async fn blocking<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce(&Self) -> T + Send + 'static,
    ) -> Result<T, tokio::task::JoinError> {
        let engine = self.clone();
        self.threads.run(move || work(&engine)).await
    }

    /// Takes every finished piece into the ledger; the ones that are there already stay as they are.
    pub async fn adopt_pieces(self: &Arc<Self>) -> anyhow::Result<usize> {
        self.blocking(|e| {
            let mut added = 0;
            let classes = e.drive.classes()?;
            for piece in e.drive.pieces()? {
                match e.ledger.piece(&piece.id) {
                    None => {
                        let class = classes.get(&piece.id).copied().unwrap_or(Class::DRIVE);
                        e.add_classed(piece.id, piece.raw_len, class)?;
                        added += 1;
                    }
                    // The owner asks for more than when it was made.
                    Some(row) if !row.slots.is_empty() => {
                        e.ledger.want_copies(piece.id, e.copies_of(&piece.id))?
                    }
                    Some(_) => {}
                }
            }
            e.adopt_classes()?;
            for (id, _) in e.ledger.public_pieces() {
                e.ledger.want_copies(id, e.policy.copies())?;
            }
            anyhow::Ok(added)
        })
        .await?
    }

    /// Every piece that the drive stands on: those that this machine made, and on a restored drive those that the head's
    /// placements name (what is published reaches them, or nobody would know of them).
    pub fn all_pieces(&self) -> anyhow::Result<Vec<PieceInfo>> {
        let mut all = self.drive.pieces()?;
        let known: HashSet<[u8; 16]> = all.iter().map(|piece| piece.id).collect();
        let since = self.restored.as_ref().map_or(self.started_at, |restored| restored.at);
        let remote = self.ledger.pieces().into_iter();
        // What is public is not what the drive stands on.
        let remote =
            remote.filter(|(id, row)| row.stripe.is_none() && row.public.is_none() && !known.contains(id));
        all.extend(remote.map(|(id, row)| PieceInfo {
            id,
            raw_len: row.raw_len,
            local: false,
            commit_sequence: 1,
            created: since,
            checkpoint: false,
        }));
        Ok(all)
    }

    /// Where it is mounted.
    pub fn mountpoint(&self) -> Option<PathBuf> {
        self.place.lock().mountpoint.clone()
    }

    /// Notes where it is mounted.
    pub fn set_mountpoint(&self, at: Option<PathBuf>) {
        self.place.lock().mountpoint = at;
    }

    /// From now on `status` says so.
    pub fn set_unmounting(&self) {
        self.place.lock().unmounting = true;
    }

    /// Whether it is about to go.
    pub fn is_unmounting(&self) -> bool {
        self.place.lock().unmounting
    }

    /// Unmounting was refused: it is a mounted drive as before.
    pub fn set_mounted_again(&self) {
        self.place.lock().unmounting = false;
    }

    /// Another writer was seen: nothing is published or written any more, now and after every later start; what is here
    /// stays readable. The reason is for a person who reads `status`.
    pub fn set_read_only(&self, reason: &str) {
        self.drive.vfs().set_read_only(true);
        if let Err(error) = self.ledger.set_note(READ_ONLY_NOTE, reason.as_bytes().to_vec()) {
            tracing::error!(%error, "the next start will have to find out again that this drive is read-only");
        }
        self.show_read_only(reason);
    }

    /// What an earlier run found out.
    pub fn recall_read_only(&self) -> Result<(), LedgerError> {
        if let Some(reason) = self.ledger.note(READ_ONLY_NOTE)? {
            self.drive.vfs().set_read_only(true);
            self.show_read_only(&String::from_utf8_lossy(&reason));
        }
        Ok(())
    }

    fn show_read_only(&self, reason: &str) {
        let mut place = self.place.lock();
        if place.read_only.is_none() {
            self.events.add(self.now(), events::Level::Error, reason);
        }
        place.read_only = Some(reason.to_owned());
    }

    /// Nothing is written before this machine holds a term; `None`: it does.
    pub fn set_waiting(&self, why: Option<String>) {
        let mut place = self.place.lock();
        let waits = why.is_some();
        if waits || place.waiting.is_some() {
            place.waiting = why;
            self.drive.vfs().set_read_only(waits || place.read_only.is_some() || self.only_read);
        }
    }

    /// Whether it waits for a term.
    pub fn is_waiting(&self) -> bool {
        self.place.lock().waiting.is_some()
    }

    /// Why nothing of this home is published any more.
    pub fn overtaken(&self) -> Option<String> {
        self.place.lock().read_only.clone()
    }

    /// Why nothing is published any more, if so; or why nothing can be written.
    pub fn read_only(&self) -> Option<String> {
        self.why_read_only(&self.place.lock())
    }

    fn why_read_only(&self, place: &Place) -> Option<String> {
        place.read_only.clone().or_else(|| place.waiting.clone()).or_else(|| self.drive.read_only())
    }

    /// What `status` calls it.
    pub fn state(&self) -> (DriveState, Option<String>) {
        let place = self.place.lock();
        if place.unmounting {
            return (DriveState::Unmounting, None);
        }
        if let Some(reason) = self.why_read_only(&place) {
            return (DriveState::ReadOnly, Some(reason));
        }
        if place.mountpoint.is_some() { (DriveState::Mounted, None) } else { (DriveState::Starting, None) }
    }

    /// Likewise, and at once where rows changed since `seen` of the ledger's versions.
    pub async fn changed_since(&self, seen: u64, at_most: Duration) {
        if *self.ledger.watch().borrow() == seen {
            self.changed(at_most).await;
        }
    }

    /// Returns when a row changed that a worker may want to see, or after `at_most`.
    pub async fn changed(&self, at_most: Duration) {
        let mut ledger = self.ledger.watch();
        let _ = ledger.borrow_and_update();
        tokio::select! {
            () = self.wake.notified() => {}
            _ = ledger.changed() => {}
            () = tokio::time::sleep(at_most) => {}
        }
    }

    /// The signed entry of the placement log that carries a note: what a capability or a private link is.
    pub fn sign_note(
        &self,
        action: PlacementAction,
        id: [u8; 16],
        note: &[u8],
        chain: &ChainEnd,
    ) -> Result<(Vec<u8>, ChainEnd), String> {
        let facts = PlacementFacts {
            action,
            piece: id,
            raw_len: 0,
            slot: STRIPE_ITSELF,
            holder: Vec::new(),
            slot_cid: Vec::new(),
            deal: Vec::new(),
            receipt: note.to_vec(),
            time: self.now(),
        };
        let entry =
            PlacementEntry::sign(facts, chain, self.keys.placement_signing()).map_err(|e| e.to_string())?;
        Ok((entry.bytes().to_vec(), entry.chain_end()))
    }

    /// A provider answered: it counts (again).
    pub fn provider_answered(&self, peer: &ledger::Peer) -> Result<(), LedgerError> {
        let Some(row) = self.ledger.provider(peer) else { return Ok(()) };
        let now = self.now();
        self.peers.heard(peer);
        self.clocks.heard(peer);
        if let Some(addrs) = self.peers.moved(peer) {
            self.provider_moved(peer, addrs)?;
        }
        // The row is written when its state changes or now and then, not for every answer.
        if row.answers() && clock::age(now, row.last_ok) < LAST_OK_SECONDS {
            return Ok(());
        }
        let back = !row.answers() && !matches!(row.state, ledger::ProviderState::Removed);
        if back && !self.anyone_answers() {
            self.forgive_silence()?;
        }
        self.ledger.update_provider(peer, |row| {
            row.last_ok = now;
            if back {
                row.state = ledger::ProviderState::Active;
                row.reason = None;
            }
        })?;
        if back {
            let text = format!("provider {} answers again", peers::peer_short(peer));
            self.events.add(now, events::Level::Info, text);
        }
        Ok(())
    }

    /// A provider answered something that proves nothing. One that is silent when it is challenged stays so until a challenge
    /// is answered; who keeps nothing that could be asked for is there.
    pub fn provider_greeted(&self, peer: &ledger::Peer) -> Result<(), LedgerError> {
        match self.ledger.provider(peer) {
            Some(row) if !row.answers() && self.ledger.keeps_something(peer) => Ok(()),
            _ => self.provider_answered(peer),
        }
    }

    /// A provider was found somewhere else: the row, and with it the next head, name where it is now.
    fn provider_moved(&self, peer: &ledger::Peer, addrs: Vec<String>) -> Result<(), LedgerError> {
        let at = addrs.first().cloned().unwrap_or_default();
        self.ledger.update_provider(peer, |row| row.addrs = addrs)?;
        let text = format!("provider {} is at {at} now", peers::peer_short(peer));
        self.events.add(self.now(), events::Level::Info, text);
        if let Some(finder) = self.peers.client().finder() {
            let listed = self.ledger.providers().into_iter();
            finder.add_bootstrap(listed.filter_map(|(peer, row)| peers::whereabouts(&peer, &row.addrs)));
        }
        Ok(())
    }

    /// How each copy is audited now.
    pub fn audit_plan(&self) -> holdfast_proofs::odds::AuditPlan {
        self.policy.audit_plan(self.ledger.copies())
    }

    /// Seconds between two audits of one copy.
    pub fn audit_interval(&self) -> u64 {
        self.policy.audit_interval(self.ledger.copies())
    }

    /// Whether any provider answers at all. When nobody does, the silence is this machine's.
    fn anyone_answers(&self) -> bool {
        self.ledger.providers().iter().any(|(_, row)| row.answers() && row.last_ok > 0)
    }

    /// Silence begins to count now: this machine was off, asleep or without a network before.
    pub fn forgive_silence(&self) -> Result<(), LedgerError> {
        let now = self.now();
        self.clocks.forgive();
        for (peer, row) in self.ledger.providers() {
            if matches!(row.state, ledger::ProviderState::Suspect { .. }) {
                self.ledger.update_provider(&peer, |row| {
                    row.state = ledger::ProviderState::Suspect { since: now }
                })?;
            }
        }
        Ok(())
    }

    /// A provider did not answer: its copies stop counting now, and are replaced once it was silent for too long.
    pub fn provider_silent(&self, peer: &ledger::Peer, why: &str) -> Result<(), LedgerError> {
        use ledger::ProviderState::{Active, Failed, Suspect};
        let Some(row) = self.ledger.provider(peer) else { return Ok(()) };
        let now = self.now();
        let short = peers::peer_short(peer);
        let silent = self.silent_seconds(peer);
        let (state, level, text) = match row.state {
            Active => (
                Suspect { since: now },
                events::Level::Warning,
                format!("provider {short} does not answer: {why}"),
            ),
            Suspect { .. } if silent >= self.policy.failed_after_seconds && self.anyone_answers() => {
                let text = format!("provider {short} was silent for {silent} s; its copies are placed anew");
                (Failed { since: now }, events::Level::Warning, text)
            }
            _ => return Ok(()),
        };
        self.ledger.update_provider(peer, |row| {
            row.state = state;
            row.reason = Some(text.clone());
        })?;
        self.events.add(now, level, text);
        Ok(())
    }

    /// A provider was caught at something that is proven: no new copies for a while. The slot's own verdict is apart.
    pub fn provider_caught(&self, peer: &ledger::Peer, what: &str) -> Result<(), LedgerError> {
        let now = self.now();
        let until = now.saturating_add(self.policy.barred_seconds);
        let text = format!("provider {} was caught: {what}", peers::peer_short(peer));
        self.ledger.update_provider(peer, |row| {
            row.fault_at = Some(now);
            row.barred_until = until;
            row.reason = Some(text.clone());
        })?;
        self.events.add(now, events::Level::Warning, text);
        Ok(())
    }
}
