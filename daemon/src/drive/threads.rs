//! Where work that blocks (disk, hashing, coding) is done.
//!
//! A daemon has threads for it. In a simulation nothing may happen beside what happens: there it is done by who asks, and takes
//! no time.

use anyhow::Context as _;

/// See the module.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Threads {
    /// On threads beside the runtime's.
    #[default]
    Others,
    /// By who asks.
    Caller,
}

impl Threads {
    /// Runs what blocks.
    pub async fn run<T: Send + 'static>(
        self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, tokio::task::JoinError> {
        match self {
            Threads::Others => tokio::task::spawn_blocking(work).await,
            Threads::Caller => Ok(work()),
        }
    }

    /// Runs what takes long on a thread of its own that everybody else comes before. Not at idle priority: on a machine that is
    /// never idle it would never end.
    pub async fn unhurried<T: Send + 'static>(
        self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> anyhow::Result<T> {
        if self == Threads::Caller {
            return Ok(work());
        }
        let (done, result) = tokio::sync::oneshot::channel();
        std::thread::Builder::new().name("unhurried".to_owned()).spawn(move || {
            // SAFETY: it takes and returns integers; 0 is the calling thread.
            let lowered = unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, 19) };
            if lowered != 0 {
                tracing::debug!("the priority of long work could not be lowered");
            }
            let _ = done.send(work());
        })?;
        result.await.context("long work ended badly")
    }
}
