//! What a mounted drive answers on its control socket.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use holdfast_content::head::PROVIDERS_MAX;
use tokio::sync::mpsc;

use crate::control::{
    ControlError, ControlHandler, ErrorKind, KeepRequest, ProgressLine, ProgressSink, ProvidersReport,
    PublicRequest, RemoteReport, SealReport, ShareRequest, StatusReport, SyncReport, UnmountReport,
    VerifyReport, WatchRequest,
};
use crate::doctor::DriveFacts;
use crate::drive::Engine;
use crate::drive::ledger::ProviderState;
use crate::home::ProviderAddr;
use crate::status;

/// How often a waiting `sync` looks and reports.
const LOOK: Duration = Duration::from_millis(500);
/// How often a waiting `sync` tries again what could not be sealed whole.
const PENDING_LOOK: Duration = Duration::from_secs(5);
/// Problems in one `verify` report.
const PROBLEMS_MAX: usize = 1000;

type Answer<T> = Result<T, ControlError>;

/// Asks the main loop to unmount; it answers when the drive is closed.
pub struct UnmountRequest {
    /// Detach even while files are open.
    pub lazy: bool,
    /// Gets what the main loop found.
    pub done: tokio::sync::oneshot::Sender<Answer<UnmountReport>>,
}

/// Changes to the list of providers are written into the home's configuration by whoever holds it.
pub trait ProviderList: Send + Sync {
    /// Puts it there, or renews its addresses.
    fn add(&self, provider: &ProviderAddr) -> anyhow::Result<()>;
    /// Takes it out.
    fn remove(&self, peer_id: &str) -> anyhow::Result<()>;
    /// As configured.
    fn list(&self) -> Vec<ProviderAddr>;
}

/// See the module.
pub struct Handler {
    engine: Arc<Engine>,
    unmount: mpsc::Sender<UnmountRequest>,
    list: Arc<dyn ProviderList>,
}

impl Handler {
    /// Answers for `engine`; unmounting is the main loop's.
    pub fn new(
        engine: Arc<Engine>,
        unmount: mpsc::Sender<UnmountRequest>,
        list: Arc<dyn ProviderList>,
    ) -> Self {
        Self { engine, unmount, list }
    }

    fn read_only(&self) -> Answer<()> {
        match self.engine.read_only() {
            Some(reason) => Err(ControlError::new(ErrorKind::ReadOnly, reason)),
            None => Ok(()),
        }
    }

    async fn providers(&self) -> ProvidersReport {
        ProvidersReport { configured: self.list.list(), live: status::providers(&self.engine) }
    }
}

/// How far the way from the log to the providers is behind one commit.
pub struct Behind {
    /// Pieces of the commit, and of them those with all their copies.
    pub pieces: (u64, u64),
    /// Bytes that do not survive what the policy asks for.
    pub unsafe_bytes: u64,
    /// Losses that everything of the commit survives now.
    pub survives: u8,
    /// Folders and files whose data may be less safe than they ask.
    pub walks: u64,
    /// A published head names the commit or a later one, and enough providers keep that head.
    pub published: bool,
    /// What it waits for.
    pub note: Option<String>,
}

impl Engine {
    /// How far commit `sequence` is from being Placed up to the policy.
    pub fn behind(&self, sequence: u64) -> anyhow::Result<Behind> {
        self.adopt_classes()?;
        let wanted = self.head_wanted();
        let head_copies = self.ledger.head_copies();
        let mut b = Behind {
            pieces: (0, 0),
            unsafe_bytes: 0,
            survives: u8::MAX,
            walks: self.drive.walks()?,
            published: false,
            note: None,
        };
        for piece in self.all_pieces()? {
            if piece.checkpoint || piece.commit_sequence == 0 || piece.commit_sequence > sequence {
                continue;
            }
            let (counting, _) = self.ledger.counting(&piece.id);
            b.pieces.0 += 1;
            b.survives =
                b.survives.min(u8::try_from(counting.min(head_copies).saturating_sub(1)).unwrap_or(u8::MAX));
            if counting >= self.wanted(&piece.id) {
                b.pieces.1 += 1;
            } else {
                b.unsafe_bytes = b.unsafe_bytes.saturating_add(piece.raw_len);
            }
        }
        if b.survives == u8::MAX {
            b.survives = 0;
        }
        b.published = self.head.published_sequence().is_some_and(|p| p >= sequence) && head_copies >= wanted;
        let answering = self.ledger.providers().iter().filter(|(_, r)| r.answers() && r.last_ok > 0).count();
        if answering < wanted {
            b.note = Some(format!("{answering} providers answer, and {wanted} are needed"));
        }
        Ok(b)
    }
}

/// What is with the providers, as `verify` found it.
pub struct Remote {
    /// Present where everything was read.
    read: Option<RemoteReport>,
    problems: Vec<String>,
}

impl Engine {
    /// Reads every copy whole, or challenges it.
    pub async fn verify_remote(
        self: &Arc<Self>,
        whole: bool,
        progress: &ProgressSink,
    ) -> anyhow::Result<Remote> {
        if whole {
            let (read, problems) = self.read_everything(progress).await?;
            return Ok(Remote { read: Some(read), problems });
        }
        progress.send(ProgressLine {
            phase: "challenging".into(),
            unit: "copies".into(),
            ..ProgressLine::default()
        });
        let (_, _, problems) = self.audit_everything().await?;
        Ok(Remote { read: None, problems })
    }
}

/// What the checker and the challenges found, as one report.
pub fn verify_report(local: holdfast_fs::check::Report, remote: Remote) -> VerifyReport {
    let mut problems: Vec<String> = local.problems.iter().map(ToString::to_string).collect();
    problems.extend(remote.problems);
    problems.truncate(PROBLEMS_MAX);
    VerifyReport {
        ok: problems.is_empty(),
        inodes: local.inodes,
        entries: local.entries,
        chunks: local.chunks,
        blocks: local.blocks,
        pieces: local.pieces,
        bytes_read: local.bytes_read,
        remote: remote.read,
        problems,
    }
}

#[async_trait]
impl ControlHandler for Handler {
    async fn status(&self) -> StatusReport {
        let gathered = self.engine.blocking(status::gather).await;
        match gathered.map_err(anyhow::Error::from).and_then(|r| r) {
            Ok(report) => {
                if report.redundancy.to_place_bytes > 0 {
                    // For the next time that somebody asks.
                    self.engine.ask_room_soon();
                }
                report
            }
            Err(error) => {
                status::unreadable(&self.engine, format!("the drive's index cannot be read: {error:#}"))
            }
        }
    }

    async fn sync(&self, wait: bool, progress: ProgressSink) -> Answer<SyncReport> {
        let started = Instant::now();
        let engine = &self.engine;
        engine
            .blocking(|e| e.drive.sync_all())
            .await
            .map_err(ControlError::internal)?
            .map_err(ControlError::internal)?;
        let mut report = SyncReport {
            synced: true,
            placed: false,
            commit: None,
            unsafe_bytes: 0,
            survives: 0,
            seconds: started.elapsed().as_secs(),
        };
        if !wait {
            report.unsafe_bytes = self.status().await.durability.unsafe_bytes();
            return Ok(report);
        }
        progress.send(ProgressLine { phase: "sealing".into(), ..ProgressLine::default() });
        engine.seal_now(true).await.map_err(ControlError::internal)?;
        engine.supervisor.poke_all();
        let commit = engine.drive.latest_commit().map_err(ControlError::internal)?;
        let Some(mut commit) = commit else {
            // Nothing was ever written.
            report.placed = true;
            return Ok(report);
        };
        report.commit = Some(status::commit_report(&commit));
        loop {
            self.read_only()?;
            let seen = *engine.ledger.watch().borrow();
            let sequence = commit.sequence;
            let b = engine.blocking(move |e| e.behind(sequence)).await.map_err(ControlError::internal)?;
            let b = b.map_err(ControlError::internal)?;
            report.unsafe_bytes = b.unsafe_bytes;
            report.survives = b.survives;
            report.seconds = started.elapsed().as_secs();
            if b.published && b.pieces.0 == b.pieces.1 && b.walks == 0 {
                let unsealed =
                    engine.blocking(|e| e.drive.unsealed_files()).await.map_err(ControlError::internal)?;
                let unsealed = unsealed.map_err(ControlError::internal)?;
                if commit.pending.is_empty() || unsealed == 0 {
                    report.placed = true;
                    return Ok(report);
                }
                // Parts of these files are out of reach, so that they could not be sealed whole: once more.
                let note = format!("{unsealed} files wait for parts of them that are out of reach");
                progress.send(ProgressLine {
                    phase: "sealing".into(),
                    note: Some(note),
                    ..ProgressLine::default()
                });
                tokio::time::sleep(PENDING_LOOK).await;
                engine.seal_now(true).await.map_err(ControlError::internal)?;
                if let Some(newer) = engine.drive.latest_commit().map_err(ControlError::internal)? {
                    report.commit = Some(status::commit_report(&newer));
                    commit = newer;
                }
                continue;
            }
            let phase = match b.pieces.1 < b.pieces.0 {
                true => "placing",
                false if b.walks > 0 => "raising",
                false => "publishing",
            };
            progress.send(ProgressLine {
                phase: phase.into(),
                done: b.pieces.1,
                total: b.pieces.0,
                unit: "pieces".into(),
                note: b.note,
            });
            engine.changed_since(seen, LOOK).await;
        }
    }

    async fn seal(&self) -> Answer<SealReport> {
        let sealed = self.engine.seal_now(true).await.map_err(ControlError::internal)?;
        Ok(SealReport {
            commit: sealed.as_ref().map(status::commit_report),
            new_pieces: sealed.map_or(0, |c| c.new_pieces.len() as u64),
        })
    }

    async fn unmount(&self, lazy: bool) -> Answer<UnmountReport> {
        let (done, answer) = tokio::sync::oneshot::channel();
        let request = UnmountRequest { lazy, done };
        let gone = || ControlError::new(ErrorKind::Unavailable, "the drive is being unmounted already");
        self.unmount.send(request).await.map_err(|_| gone())?;
        answer.await.map_err(|_| gone())?
    }

    async fn verify(&self, deep: bool, remote: bool, progress: ProgressSink) -> Answer<VerifyReport> {
        let engine = &self.engine;
        progress.send(ProgressLine {
            phase: "checking".into(),
            unit: "rows".into(),
            ..ProgressLine::default()
        });
        let local = engine.blocking(move |e| e.drive.check(holdfast_fs::check::CheckOptions { deep })).await;
        let local = local.map_err(ControlError::internal)?.map_err(ControlError::internal)?;
        let remote = engine.verify_remote(remote, &progress).await.map_err(ControlError::internal)?;
        Ok(verify_report(local, remote))
    }

    async fn doctor(&self) -> Answer<DriveFacts> {
        let mut status = self.status().await;
        status.judge();
        self.engine.doctor_facts(status).await.map_err(ControlError::internal)
    }

    async fn keep(&self, what: KeepRequest) -> Answer<serde_json::Value> {
        crate::keep::answer(&self.engine, what).await
    }

    async fn public(&self, what: PublicRequest) -> Answer<serde_json::Value> {
        crate::public::answer(&self.engine, what).await
    }

    async fn watch(&self, what: WatchRequest) -> Answer<serde_json::Value> {
        crate::watch::owner::answer(&self.engine, what).await
    }

    async fn share(&self, what: ShareRequest) -> Answer<serde_json::Value> {
        crate::share::owner::answer(&self.engine, what).await
    }

    async fn provider_list(&self) -> Answer<ProvidersReport> {
        Ok(self.providers().await)
    }

    async fn provider_add(&self, provider: ProviderAddr) -> Answer<ProvidersReport> {
        let invalid = |e: &dyn std::fmt::Display| ControlError::new(ErrorKind::Invalid, e.to_string());
        let (peer, _) = provider.parts().map_err(|e| invalid(&e))?;
        let known = self.engine.ledger.providers();
        let there = known.iter().filter(|(_, row)| !matches!(row.state, ProviderState::Removed));
        if !there.clone().any(|(known, _)| *known == peer.to_bytes()) && there.count() >= PROVIDERS_MAX {
            return Err(invalid(&format!(
                "a drive has at most {PROVIDERS_MAX} providers: its head names no more"
            )));
        }
        self.list.add(&provider).map_err(ControlError::internal)?;
        let now = self.engine.now();
        self.engine
            .ledger
            .add_provider(peer.to_bytes(), provider.addrs.clone(), now)
            .map_err(ControlError::internal)?;
        if let Some(tags) = provider.tags {
            self.engine
                .ledger
                .update_provider(&peer.to_bytes(), |row| row.tagged = tags)
                .map_err(ControlError::internal)?;
        }
        self.engine.peers.forget(&peer.to_bytes());
        self.engine.supervisor.poke_all();
        Ok(self.providers().await)
    }

    async fn provider_remove(&self, peer_id: String) -> Answer<ProvidersReport> {
        let known: HashSet<String> =
            self.engine.ledger.providers().iter().map(|(p, _)| crate::drive::peers::peer_text(p)).collect();
        let peer: holdfast_net::PeerId = peer_id
            .parse()
            .map_err(|_| ControlError::new(ErrorKind::Invalid, format!("`{peer_id}` is no peer id")))?;
        if !known.contains(&peer.to_string()) {
            return Err(ControlError::new(ErrorKind::Invalid, format!("the drive has no provider {peer}")));
        }
        self.list.remove(&peer.to_string()).map_err(ControlError::internal)?;
        self.engine
            .ledger
            .update_provider(&peer.to_bytes(), |row| {
                row.state = ProviderState::Removed;
                row.reason = Some("taken out by the owner".into());
            })
            .map_err(ControlError::internal)?;
        self.engine.supervisor.poke_all();
        Ok(self.providers().await)
    }
}
