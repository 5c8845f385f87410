//! The seal worker: decides when the drive is cut into a commit, and runs the cut on a thread of its own.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use holdfast_fs::drive::types::DirtyState;

use crate::drive::Engine;
use crate::drive::events::Level;
use crate::drive::policy::Policy;
use crate::worker::{Context, Detail, Next, Worker};

/// How often dirtiness is looked at; asking costs microseconds.
const LOOK: Duration = Duration::from_secs(1);
/// The same under a quota, which a fast writer fills in seconds.
const LOOK_QUOTA: Duration = Duration::from_millis(200);

/// Seals when the drive was idle for long enough, dirty for too long, or holds too much.
pub struct SealWorker {
    engine: Arc<Engine>,
    detail: Detail,
}

impl SealWorker {
    /// A worker over the drive of `engine`.
    pub fn new(engine: Arc<Engine>) -> Self {
        Self { engine, detail: Detail::default() }
    }
}

/// Whether a seal is due. Pure, so that simulation runs the same rule.
pub fn due(dirty: &DirtyState, waiting: bool, policy: &Policy) -> bool {
    let Some(oldest) = dirty.oldest_change_age else { return false };
    let idle = dirty.newest_change_age.unwrap_or(oldest);
    idle >= Duration::from_secs(policy.seal_idle_seconds)
        || oldest >= Duration::from_secs(policy.seal_age_seconds_max)
        || dirty.bytes >= policy.seal_bytes(waiting)
}

#[async_trait]
impl Worker for SealWorker {
    fn name(&self) -> &'static str {
        "seal"
    }

    fn status(&self) -> Detail {
        self.detail.clone()
    }

    async fn work(&mut self, context: &Context) -> anyhow::Result<Next> {
        let (dirty, pressure) = self.engine.blocking(|e| (e.drive.dirty(), e.drive.pressure())).await?;
        let dirty = dirty?;
        self.detail = Detail { doing: String::new(), queue: dirty.inodes, progress: None };
        if !due(&dirty, pressure.waiting, &self.engine.policy) {
            return Ok(Next::After(if self.engine.policy.quota_bytes.is_some() { LOOK_QUOTA } else { LOOK }));
        }
        let doing = format!("sealing {} changed files and folders", dirty.inodes);
        context.report(Detail { doing, queue: dirty.inodes, progress: None });
        self.engine.seal_now(pressure.waiting).await?;
        Ok(Next::After(if pressure.waiting { LOOK_QUOTA } else { LOOK }))
    }

    async fn wait(&mut self) {
        tokio::time::sleep(LOOK).await;
    }
}

impl Engine {
    /// Cuts a commit now, notes its pieces, and wakes whoever goes on from there. `None`: nothing had changed. `hurry`:
    /// somebody waits.
    pub async fn seal_now(
        self: &Arc<Self>,
        hurry: bool,
    ) -> anyhow::Result<Option<holdfast_fs::drive::types::CommitInfo>> {
        let hasten = || {
            if hurry {
                self.drive.hurry();
            }
        };
        // The one that runs, and then our own: each forgets the hurry at its end.
        hasten();
        let _one = self.sealing.lock().await;
        hasten();
        let sealed = self
            .blocking(|e| {
                let sealed = e.drive.seal();
                crate::memory::give_back();
                sealed
            })
            .await??;
        if let Some(commit) = &sealed {
            self.adopt_pieces().await?;
            let text =
                format!("sealed commit {} into {} new pieces", commit.sequence, commit.new_pieces.len());
            self.events.add(self.now(), Level::Info, text);
            if let Ok(unsealed) = self.blocking(|e| e.drive.unsealed_files()).await?
                && unsealed > 0
            {
                let text = format!(
                    "{unsealed} files could not be sealed whole, since parts of them are out of reach or cannot be read; they are tried again"
                );
                self.events.add(self.now(), Level::Warning, text);
            }
            self.wake.notify_waiters();
        }
        Ok(sealed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dirty(oldest: u64, newest: u64, bytes: u64) -> DirtyState {
        DirtyState {
            oldest_change_age: Some(Duration::from_secs(oldest)),
            newest_change_age: Some(Duration::from_secs(newest)),
            bytes,
            inodes: 1,
        }
    }

    #[test]
    fn idle_old_or_large_is_due_and_clean_is_not() {
        let policy = Policy::default();
        assert!(!due(&DirtyState::default(), true, &policy));
        assert!(!due(&dirty(9, 9, 1), false, &policy));
        assert!(due(&dirty(10, 10, 1), false, &policy));
        assert!(!due(&dirty(40, 1, 1), false, &policy));
        assert!(due(&dirty(60, 1, 1), false, &policy));
        assert!(due(&dirty(1, 0, 1 << 30), false, &policy));
    }

    #[test]
    fn under_a_quota_a_seal_starts_early_and_earlier_while_somebody_waits() {
        let policy = Policy { quota_bytes: Some(1 << 30), ..Policy::default() };
        assert!(!due(&dirty(1, 0, 63 << 20), false, &policy));
        assert!(due(&dirty(1, 0, 64 << 20), false, &policy));
        assert!(!due(&dirty(1, 0, 1 << 20), true, &policy));
        assert!(due(&dirty(1, 0, 16 << 20), true, &policy));
    }
}
