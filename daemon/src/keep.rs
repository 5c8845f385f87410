//! What a mounted drive answers about local copies and snapshots: thin, over the drive and its workers' rules.

use std::sync::Arc;

use holdfast_fs::drive::DriveError;
use holdfast_fs::policy::ask::Origin;
use holdfast_fs::retention::rule::RetentionRule;
use holdfast_fs::snapshots::SnapshotInfo;
use holdfast_fs::snapshots::diff::ChangeKind;
use holdfast_fs::vfs::FsError;
use serde::Serialize;

use crate::control::{
    ChangeReport, ChangeWord, ControlError, DiffReport, ErrorKind, KeepRequest, PathPolicyReport, PinReport,
    PinsReport, PolicyChange, PolicyFrom, SnapshotReport, SnapshotsReport, Target,
};
use crate::drive::Engine;
use crate::home::SURVIVE_LOSSES_MAX;
use crate::workers::{evict, pin, retain};

/// Lines of one `diff`.
const DIFF_LINES_MAX: usize = 20_000;
/// Bytes of their paths: an answer is one line of bounded length.
const DIFF_BYTES_MAX: usize = 2 << 20;

type Answer<T> = Result<T, ControlError>;

/// One request.
pub async fn answer(engine: &Arc<Engine>, what: KeepRequest) -> Answer<serde_json::Value> {
    match what {
        KeepRequest::Evict { targets } => {
            let inos: Vec<u64> = targets.into_iter().map(|target| target.ino).collect();
            run(engine, move |e| evict::evict_now(e, &inos)).await
        }
        KeepRequest::Pin { target } => {
            let pinned = run(engine, move |e| {
                e.drive.pin(target.ino, &target.path)?;
                pins(e)
            });
            let answer = pinned.await?;
            engine.supervisor.poke_all();
            Ok(answer)
        }
        KeepRequest::Unpin { target } => {
            let ino = target.ino;
            let known = engine.blocking(move |e| e.drive.unpin(ino)).await.map_err(ControlError::internal)?;
            if !known.map_err(ControlError::internal)? {
                let text = format!("{} is not pinned", target.path);
                return Err(ControlError::new(ErrorKind::Invalid, text));
            }
            run(engine, pins).await
        }
        KeepRequest::Pins {} => run(engine, pins).await,
        KeepRequest::Snapshot { name } => {
            let latest = commit_now(engine).await?;
            let named = move |e: &Engine| {
                if let Some(name) = &name {
                    e.drive.name_snapshot(name, latest)?;
                }
                one_snapshot(e, latest)
            };
            run(engine, named).await
        }
        KeepRequest::ForgetSnapshot { name } => run(engine, move |e| forget(e, &name)).await,
        KeepRequest::Snapshots {} => run(engine, snapshots).await,
        KeepRequest::Prune { rule } => {
            if let Some(reason) = engine.read_only() {
                return Err(ControlError::new(ErrorKind::ReadOnly, reason));
            }
            let kept = &engine.policy.retention;
            let rule = RetentionRule {
                all_hours: rule.all_hours.unwrap_or(kept.all_hours),
                hourly: rule.hourly.unwrap_or(kept.hourly),
                daily: rule.daily.unwrap_or(kept.daily),
                weekly: rule.weekly.unwrap_or(kept.weekly),
            };
            let report = retain::prune_now(engine, rule).await.map_err(ControlError::internal)?;
            serde_json::to_value(report).map_err(ControlError::internal)
        }
        KeepRequest::Policy { target, change } => policy(engine, target, change).await,
        KeepRequest::Diff { from, to } => {
            let latest = match to {
                Some(_) => None,
                None => Some(commit_now(engine).await?),
            };
            run(engine, move |e| diff(e, &from, to.as_deref(), latest)).await
        }
    }
}

async fn policy(
    engine: &Arc<Engine>,
    target: Option<Target>,
    change: Option<PolicyChange>,
) -> Answer<serde_json::Value> {
    if let (Some(_), Some(reason)) = (change, engine.read_only()) {
        return Err(ControlError::new(ErrorKind::ReadOnly, reason));
    }
    if matches!(change, Some(PolicyChange::Survive(losses)) if losses > SURVIVE_LOSSES_MAX) {
        let text = format!("no more than {SURVIVE_LOSSES_MAX} losses");
        return Err(ControlError::new(ErrorKind::Invalid, text));
    }
    let answer = run(engine, move |e| {
        let drive = e.policy.survive_losses;
        let mut report = PathPolicyReport {
            path: target.as_ref().map(|target| target.path.clone()),
            survive_losses: drive,
            from: PolicyFrom::Drive,
            folder: None,
            drive_survive_losses: drive,
            survive_losses_most: drive,
            to_raise: 0,
        };
        if let Some(target) = &target {
            match change {
                Some(PolicyChange::Survive(losses)) => _ = e.drive.set_policy(target.ino, Some(losses))?,
                Some(PolicyChange::Inherit) => _ = e.drive.set_policy(target.ino, None)?,
                None => {}
            }
            let holding = e.drive.policy_of(target.ino)?;
            report.survive_losses = holding.class.losses(drive);
            (report.from, report.folder) = match holding.from {
                Origin::Itself => (PolicyFrom::Itself, None),
                Origin::Folder(levels) => (PolicyFrom::Folder, Some(levels.to_string())),
                Origin::Drive => (PolicyFrom::Drive, None),
                Origin::Anywhere => (PolicyFrom::Anywhere, None),
            };
        }
        report.survive_losses_most = e.drive.highest_class()?.losses(drive);
        report.to_raise = e.drive.walks()?;
        Ok(report)
    });
    let answer = answer.await?;
    if change.is_some() {
        engine.supervisor.poke_all();
    }
    Ok(answer)
}

/// Everything up to now becomes a commit, if anything changed; the newest one's sequence.
async fn commit_now(engine: &Arc<Engine>) -> Answer<u64> {
    engine.drive.hurry();
    engine.seal_now(true).await.map_err(ControlError::internal)?;
    let latest = engine.drive.latest_commit().map_err(ControlError::internal)?;
    let latest =
        latest.ok_or_else(|| ControlError::new(ErrorKind::Unavailable, "nothing could be sealed"))?;
    Ok(latest.sequence)
}

fn snapshots(engine: &Engine) -> anyhow::Result<SnapshotsReport> {
    let report = |at: SnapshotInfo| SnapshotReport {
        sequence: at.sequence,
        at: at.time,
        label: at.label,
        cid: at.cid,
        bytes: at.bytes,
        names: at.names,
    };
    Ok(SnapshotsReport { snapshots: engine.drive.snapshots()?.into_iter().map(report).collect() })
}

fn one_snapshot(engine: &Engine, sequence: u64) -> anyhow::Result<SnapshotReport> {
    let all = snapshots(engine)?.snapshots;
    let found = all.into_iter().find(|at| at.sequence == sequence);
    found.ok_or_else(|| DriveError::Fs(FsError::NotFound).into())
}

fn forget(engine: &Engine, name: &str) -> anyhow::Result<SnapshotReport> {
    let kept = engine.drive.snapshot_names()?;
    let (_, sequence) =
        kept.into_iter().find(|(known, _)| known == name).ok_or(DriveError::Fs(FsError::NotFound))?;
    engine.drive.forget_snapshot_name(name)?;
    one_snapshot(engine, sequence)
}

fn diff(engine: &Engine, from: &str, to: Option<&str>, latest: Option<u64>) -> anyhow::Result<DiffReport> {
    let resolve = |name: &str| -> anyhow::Result<u64> {
        Ok(engine.drive.resolve_snapshot(name)?.ok_or(DriveError::Fs(FsError::NotFound))?)
    };
    let from = resolve(from)?;
    let to = match (to, latest) {
        (Some(name), _) => resolve(name)?,
        (None, Some(latest)) => latest,
        (None, None) => anyhow::bail!("nothing to compare with"),
    };
    let (changes, mut truncated) = engine.drive.diff(from, to, DIFF_LINES_MAX)?;
    let text = |path: &[u8]| String::from_utf8_lossy(path).into_owned();
    let mut bytes = 0;
    let mut reports = Vec::new();
    for change in &changes {
        bytes += change.path.len() + change.from.as_ref().map_or(0, Vec::len);
        if bytes > DIFF_BYTES_MAX {
            truncated = true;
            break;
        }
        reports.push(ChangeReport {
            kind: match change.kind {
                ChangeKind::Added => ChangeWord::Added,
                ChangeKind::Removed => ChangeWord::Removed,
                ChangeKind::Changed => ChangeWord::Changed,
                ChangeKind::Moved => ChangeWord::Moved,
            },
            path: text(&change.path),
            from: change.from.as_deref().map(text),
        });
    }
    Ok(DiffReport { from, to, changes: reports, truncated })
}

fn pins(engine: &Engine) -> anyhow::Result<PinsReport> {
    let all = engine.drive.pins()?;
    Ok(PinsReport {
        pins: all.into_iter().map(|pin| PinReport { ino: pin.ino, path: pin.path }).collect(),
        missing_pieces: pin::missing(engine)?.len() as u64,
    })
}

/// Runs what blocks, and makes an answer of it.
async fn run<T: Serialize + Send + 'static>(
    engine: &Arc<Engine>,
    work: impl FnOnce(&Engine) -> anyhow::Result<T> + Send + 'static,
) -> Answer<serde_json::Value> {
    let done = engine.blocking(work).await.map_err(ControlError::internal)?;
    let value = done.map_err(|error| match error.downcast_ref::<DriveError>() {
        Some(DriveError::Fs(FsError::NotFound)) => {
            ControlError::new(ErrorKind::Invalid, "the drive has no such file, folder or snapshot")
        }
        Some(DriveError::Fs(FsError::Exists)) => {
            ControlError::new(ErrorKind::Invalid, "another snapshot is kept under this name")
        }
        Some(DriveError::Fs(FsError::Invalid)) => {
            ControlError::new(ErrorKind::Invalid, "a snapshot cannot be kept under this name")
        }
        _ => ControlError::internal(error),
    })?;
    serde_json::to_value(value).map_err(ControlError::internal)
}
