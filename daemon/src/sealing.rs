//! A provider's archival tier: `holdfast-prover keep` as a process of its own, told of every deal, and listened to.
//!
//! ```text
//! provider's deals --(once a second where something has changed)--> orders --> prover
//! prover --> status --> gate of the deal maker: whether what would be sealed is promised now
//! ```
//!
//! Promises: a prover that ends is started again, later each time; it is told everything anew; it ends with this process,
//! however that ends. No deal that must be sealed is taken while nobody says that there is room.
//! Refuses: to begin where the prover says that it cannot.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    process::Stdio,
    sync::Arc,
    time::{Duration, Instant},
};

use holdfast_net::{
    deal::DealId,
    provider::{Gate, Provider},
};
use holdfast_proofs::sealing::{
    LINE_BYTES_MAX, Order, STATUS_FILE, SealingStatus, StoredPiece, piece_bytes_max,
};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    process::{Child, ChildStdin, Command},
};
use tokio_util::sync::CancellationToken;

use crate::{control::SealingReport, home::read_limited};

/// The prover's folder within the provider's.
pub const FOLDER: &str = "sealing";
/// The domain of the name under which a provider seals.
const PROVER_DOMAIN: &str = "holdfast 2026-11 provider as prover";
/// A status that is older says nothing about now: the prover tells one every second.
pub const STATUS_SECONDS_MAX: u64 = 15;
const SYNC_EVERY: Duration = Duration::from_secs(1);
/// Walking all deals may take this part of the time, in percent.
const WALK_PERCENT_MAX: u32 = 5;
const RESTART_AFTER: Duration = Duration::from_secs(1);
const RESTART_AFTER_MAX: Duration = Duration::from_secs(60);
/// A prover that ran so long is started again at once.
const RAN_WELL: Duration = Duration::from_secs(300);
/// After its input has ended.
const STOP_SECONDS_MAX: u64 = 5;
/// The end of what it said to standard error, for a failure's text.
const STDERR_LINES_MAX: usize = 20;

/// What a provider has settled for its sectors; remembered in its folder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SealConfig {
    pub profile: String,
    pub cores: u32,
    pub memory_bytes: u64,
    pub period_seconds: u64,
    pub deadline_seconds: u64,
    pub gather_seconds: u64,
    /// New sectors answer all candidate challenges at once.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub synthetic: bool,
    /// A sealed sector gives up its unsealed copy.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub drop_unsealed: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parameters: Option<PathBuf>,
}

/// Why there is no sealing.
#[derive(Debug, thiserror::Error)]
pub enum SealingError {
    #[error("the prover cannot be started: {0}")]
    Start(std::io::Error),
    /// With its exit code, which is one of ours.
    #[error("{message}")]
    Refused { code: i32, message: String },
}

#[derive(Default)]
struct Heard {
    status: Option<SealingStatus>,
    at: Option<Instant>,
    /// Times that a prover has ended, and whether the one that said this has.
    ended: u64,
    is_down: bool,
}

impl Heard {
    /// Takes the prover's newest word, and gives what in it is a warning that was not there before: every one of them is
    /// also written to the log, so that it outlives the status.
    fn take(&mut self, status: SealingStatus) -> Vec<String> {
        let before = self.status.as_ref().map_or(&[][..], |status| &status.events);
        let new = status.events.iter().filter(|event| event.warning && !before.contains(event));
        let new = new.map(|event| event.text.clone()).collect();
        (self.status, self.at, self.is_down) = (Some(status), Some(Instant::now()), false);
        new
    }

    /// Why nothing that must be sealed is promised now.
    fn refuses(&self) -> Option<String> {
        match self.status.as_ref().filter(|_| self.is_fresh()) {
            None => Some("the prover does not answer".to_owned()),
            Some(status) if status.accepts => None,
            Some(status) => Some(format!("sealing is behind: {}", status.reasons.join("; "))),
        }
    }

    /// Whether its newest word is of now.
    fn is_fresh(&self) -> bool {
        !self.is_down && self.at.is_some_and(|at| at.elapsed().as_secs() < STATUS_SECONDS_MAX)
    }
}

/// How the sealing of a running provider stands, for whoever is asked.
#[derive(Clone)]
pub struct SealingView {
    profile: String,
    heard: Arc<Mutex<Heard>>,
}

impl SealingView {
    /// As the prover told it last.
    pub fn report(&self) -> SealingReport {
        let heard = self.heard.lock();
        let last = heard.status.clone().zip(heard.at).map(|(status, at)| {
            let age_seconds = at.elapsed().as_secs();
            LastStatus { running: heard.is_fresh(), age_seconds, status }
        });
        SealingReport { profile: self.profile.clone(), prover_ended: heard.ended, last }
    }
}

/// The prover of a provider.
pub struct Sealer {
    program: PathBuf,
    dir: PathBuf,
    config: SealConfig,
    prover: [u8; 32],
    heard: Arc<Mutex<Heard>>,
}

/// A running prover.
struct Running {
    child: Child,
    input: ChildStdin,
    lines: tokio::sync::mpsc::Receiver<SealingStatus>,
    errors: Arc<Mutex<Vec<String>>>,
    since: Instant,
    /// Deals that it was told, with their ends.
    told: HashMap<DealId, u64>,
    /// The provider's count of changes when it was last told.
    changes: Option<u64>,
    sync_at: Instant,
}

impl Sealer {
    /// For the provider in `folder`, whose peer id is `peer`.
    pub fn new(program: PathBuf, folder: &Path, config: SealConfig, peer: &[u8]) -> Sealer {
        let prover = blake3::derive_key(PROVER_DOMAIN, peer);
        Sealer { program, dir: folder.join(FOLDER), config, prover, heard: Arc::default() }
    }

    /// What a status and the metrics show.
    pub fn view(&self) -> SealingView {
        SealingView { profile: self.config.profile.clone(), heard: self.heard.clone() }
    }

    /// What the deal maker asks before it promises a slot.
    pub fn gate(&self) -> Gate {
        let (heard, sealed_max) = (self.heard.clone(), piece_bytes_max(&self.config.profile).unwrap_or(0));
        // What no sector takes is only kept.
        Gate::new(move |raw_len| if raw_len > sealed_max { None } else { heard.lock().refuses() })
    }

    /// Keeps a prover running until `shutdown`. `began` is told once the first one works, or why it does not.
    pub async fn run(
        self,
        provider: Provider,
        shutdown: CancellationToken,
        began: tokio::sync::oneshot::Sender<Result<(), SealingError>>,
    ) {
        let mut began = Some(began);
        let mut pause = RESTART_AFTER;
        while !shutdown.is_cancelled() {
            let failure = match self.start() {
                Ok(mut running) => {
                    let ended = self.serve(&mut running, &provider, &shutdown, &mut began).await;
                    if running.since.elapsed() > RAN_WELL {
                        pause = RESTART_AFTER;
                    }
                    ended
                }
                Err(error) => Some(error),
            };
            let Some(failure) = failure else { return };
            tracing::error!("the prover has ended: {failure}");
            {
                let mut heard = self.heard.lock();
                (heard.is_down, heard.ended) = (true, heard.ended + 1);
            }
            if let Some(began) = began.take() {
                // Nobody who does not listen any more needs to know.
                let _ = began.send(Err(failure));
                return;
            }
            tokio::select! {
                () = shutdown.cancelled() => {}
                () = tokio::time::sleep(pause) => {}
            }
            pause = (pause * 2).min(RESTART_AFTER_MAX);
        }
    }

    fn start(&self) -> Result<Running, SealingError> {
        let config = &self.config;
        let mut command = Command::new(&self.program);
        command
            .arg("keep")
            .arg(&self.dir)
            .args(["--profile", &config.profile])
            .args(["--prover", &data_encoding::HEXLOWER.encode(&self.prover)])
            .args(["--cores", &config.cores.to_string()])
            .args(["--memory", &config.memory_bytes.to_string()])
            .args(["--period", &config.period_seconds.to_string()])
            .args(["--deadline", &config.deadline_seconds.to_string()])
            .args(["--gather", &config.gather_seconds.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        for (flag, set) in [("--synthetic", config.synthetic), ("--drop-unsealed", config.drop_unsealed)] {
            if set {
                command.arg(flag);
            }
        }
        if let Some(parameters) = &config.parameters {
            command.arg("--parameters").arg(parameters);
        }
        let mut child = command.spawn().map_err(SealingError::Start)?;
        let (Some(input), Some(output), Some(errors)) =
            (child.stdin.take(), child.stdout.take(), child.stderr.take())
        else {
            return Err(SealingError::Start(std::io::ErrorKind::BrokenPipe.into()));
        };
        let (send, lines) = tokio::sync::mpsc::channel(1);
        tokio::spawn(async move {
            let mut reader = BufReader::new(output);
            let mut line = Vec::new();
            loop {
                line.clear();
                let got = (&mut reader).take(LINE_BYTES_MAX as u64).read_until(b'\n', &mut line).await;
                if !matches!(got, Ok(1..)) {
                    break;
                }
                match serde_json::from_slice::<SealingStatus>(&line) {
                    Ok(status) => {
                        if send.send(status).await.is_err() {
                            break;
                        }
                    }
                    Err(error) => tracing::warn!("the prover said what is no status: {error}"),
                }
            }
        });
        let said = Arc::new(Mutex::new(Vec::new()));
        let keep = said.clone();
        tokio::spawn(async move {
            let mut lines = BufReader::new(errors).lines();
            while let Ok(Some(line)) = lines.next_line().await {
                tracing::warn!("{line}");
                let mut said = keep.lock();
                said.push(line);
                let excess = said.len().saturating_sub(STDERR_LINES_MAX);
                said.drain(..excess);
            }
        });
        let now = Instant::now();
        Ok(Running {
            child,
            input,
            lines,
            errors: said,
            since: now,
            told: HashMap::new(),
            changes: None,
            sync_at: now,
        })
    }

    /// Until the prover ends (why), or the provider does (none).
    async fn serve(
        &self,
        running: &mut Running,
        provider: &Provider,
        shutdown: &CancellationToken,
        began: &mut Option<tokio::sync::oneshot::Sender<Result<(), SealingError>>>,
    ) -> Option<SealingError> {
        let mut tick = tokio::time::interval(SYNC_EVERY);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = shutdown.cancelled() => {
                    // Its input ends with `running`, and it with that.
                    let _ = running.input.shutdown().await;
                    let patience = Duration::from_secs(STOP_SECONDS_MAX);
                    let _ = tokio::time::timeout(patience, running.child.wait()).await;
                    return None;
                }
                Some(status) = running.lines.recv() => {
                    let warnings = self.heard.lock().take(status);
                    for warning in warnings {
                        tracing::warn!("sealing: {warning}");
                    }
                    if let Some(began) = began.take() {
                        let _ = began.send(Ok(()));
                    }
                }
                ended = running.child.wait() => return Some(self.ended(running, ended).await),
                _ = tick.tick() => {
                    // A pipe that is gone is a prover that has ended: the next look tells.
                    if let Err(error) = running.sync(provider).await {
                        tracing::debug!("the prover takes no orders: {error}");
                    }
                }
            }
        }
    }

    async fn ended(
        &self,
        running: &Running,
        status: std::io::Result<std::process::ExitStatus>,
    ) -> SealingError {
        // Its last words are on their way through a pipe.
        tokio::time::sleep(Duration::from_millis(100)).await;
        let said = running.errors.lock().join("\n");
        let said = said.trim_start_matches("holdfast-prover: ").to_owned();
        match status {
            Err(error) => SealingError::Start(error),
            Ok(status) => {
                let message = if said.is_empty() { format!("the prover ended: {status}") } else { said };
                SealingError::Refused { code: status.code().unwrap_or(1), message }
            }
        }
    }
}

impl Running {
    /// Tells the prover what has changed among the deals.
    async fn sync(&mut self, provider: &Provider) -> std::io::Result<()> {
        let changes = provider.deals_changes();
        if self.changes == Some(changes) || Instant::now() < self.sync_at {
            return Ok(());
        }
        let walk = Instant::now();
        let all = provider.stored_deals();
        let first = self.changes.is_none();
        let mut lines = Vec::new();
        if first {
            push(&mut lines, &Order::List)?;
        }
        let mut now = HashMap::with_capacity(all.len());
        for deal in all {
            now.insert(deal.deal, deal.end);
            if self.told.get(&deal.deal) != Some(&deal.end) {
                let stored = StoredPiece {
                    deal: deal.deal.to_string(),
                    piece: deal.piece,
                    slot: deal.slot,
                    until: deal.end,
                };
                push(&mut lines, &Order::Stored(stored))?;
            }
        }
        for deal in self.told.keys().filter(|deal| !now.contains_key(*deal)) {
            push(&mut lines, &Order::Ended { deal: deal.to_string() })?;
        }
        if first {
            push(&mut lines, &Order::Listed)?;
        }
        self.sync_at = Instant::now() + walk.elapsed() * (100 / WALK_PERCENT_MAX);
        self.input.write_all(&lines).await?;
        self.input.flush().await?;
        (self.told, self.changes) = (now, Some(changes));
        Ok(())
    }
}

fn push(lines: &mut Vec<u8>, order: &Order) -> std::io::Result<()> {
    serde_json::to_writer(&mut *lines, order)?;
    lines.push(b'\n');
    Ok(())
}

/// A status with what its age says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LastStatus {
    /// Whether it is of now.
    pub running: bool,
    pub age_seconds: u64,
    #[serde(flatten)]
    pub status: SealingStatus,
}

impl LastStatus {
    /// For people.
    pub fn render(&self) -> String {
        let lead = if self.running {
            String::new()
        } else {
            format!("the prover does not run: this was {} s ago\n", self.age_seconds)
        };
        format!("{lead}{}", self.status)
    }
}

/// The newest status of a provider's folder; none where nothing was ever sealed in it. `now` is in unix seconds.
pub fn last_status(folder: &Path, now: u64) -> Result<Option<LastStatus>, crate::home::HomeError> {
    let path = folder.join(FOLDER).join(STATUS_FILE);
    if !path.exists() {
        return Ok(None);
    }
    let bytes = read_limited(&path, LINE_BYTES_MAX as u64)?;
    let status: SealingStatus = serde_json::from_slice(&bytes)
        .map_err(|error| crate::home::HomeError::Damaged { path, reason: error.to_string() })?;
    let age_seconds = now.saturating_sub(status.now);
    Ok(Some(LastStatus { running: age_seconds < STATUS_SECONDS_MAX, age_seconds, status }))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use holdfast_proofs::sealing::SealingEvent;

    #[test]
    fn a_warning_is_told_once_and_an_ended_prover_says_nothing() {
        let mut heard = Heard::default();
        assert_eq!(heard.refuses().unwrap(), "the prover does not answer");
        let mut status = crate::control::provider_sample().sealing.unwrap().last.unwrap().status;
        let event = |at, warning, text: &str| SealingEvent { at, warning, text: text.to_owned() };
        status.events = vec![
            event(1, true, "task 3 may miss its deadline by 2 s"),
            event(2, false, "sector 1 is sealed"),
        ];
        assert_eq!(heard.take(status.clone()), ["task 3 may miss its deadline by 2 s"]);
        assert!(heard.take(status.clone()).is_empty() && heard.is_fresh());
        // The same words at another time are another event; the oldest go when there are too many.
        status.events = vec![event(3, true, "task 3 may miss its deadline by 2 s")];
        assert_eq!(heard.take(status.clone()).len(), 1);
        assert_eq!(heard.refuses(), None);
        (status.accepts, status.reasons) = (false, vec!["the queue is full".to_owned()]);
        heard.take(status.clone());
        assert_eq!(heard.refuses().unwrap(), "sealing is behind: the queue is full");
        status.accepts = true;
        heard.take(status);
        heard.is_down = true;
        assert_eq!(heard.refuses().unwrap(), "the prover does not answer", "an old word is none");
        let view = SealingView { profile: "test-2k".to_owned(), heard: Arc::new(Mutex::new(heard)) };
        let report = view.report();
        assert!(!report.running() && report.last.is_some());
    }
}
