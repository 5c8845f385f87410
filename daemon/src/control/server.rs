//! The daemon's end of the control socket.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use serde::Serialize;
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{UnixListener, UnixStream, unix::OwnedWriteHalf},
    sync::{Semaphore, mpsc},
    task::JoinHandle,
};

use super::{
    ControlError, ErrorKind, KeepRequest, ProgressLine, ProvidersReport, PublicRequest, Request, SealReport,
    ShareRequest, StatusReport, SyncReport, UnmountReport, VerifyReport, WatchRequest,
    protocol::{REQUEST_BYTES_MAX, Response},
};
use crate::doctor::DriveFacts;
use crate::home::ProviderAddr;

/// Requests served at once; waits (`sync --wait`) count, so it is generous.
const CONNECTIONS_MAX: usize = 64;
/// A client that connects and does not ask is let go.
const REQUEST_SECONDS_MAX: u64 = 10;
/// Progress lines that a slow client may leave unread; further ones are dropped, the next one says it all anyway.
const PROGRESS_LINES_MAX: usize = 16;

type Answer<T> = Result<T, ControlError>;

/// What a mounted drive answers. Every method may be called at any time, from several connections at once.
/// Waits are cancelled by dropping the future when the client goes away.
#[async_trait]
pub trait ControlHandler: Send + Sync + 'static {
    /// Cheap and never waiting: it is asked while everything else hangs.
    async fn status(&self) -> StatusReport;
    /// Local durability of all that was written before the call; with `wait`, until it is Placed up to the policy and
    /// published. Reports progress at least once a second while it waits.
    async fn sync(&self, wait: bool, progress: ProgressSink) -> Answer<SyncReport>;
    async fn seal(&self) -> Answer<SealReport>;
    /// Unmounts, seals nothing, closes the store. After `Ok` the daemon's `drive::run` returns.
    async fn unmount(&self, lazy: bool) -> Answer<UnmountReport>;
    async fn verify(&self, deep: bool, remote: bool, progress: ProgressSink) -> Answer<VerifyReport>;
    /// What a person is told of who asks what is wrong.
    async fn doctor(&self) -> Answer<DriveFacts>;
    /// The answer has the shape that the request names.
    async fn keep(&self, what: KeepRequest) -> Answer<serde_json::Value>;
    /// The answer has the shape that the request names.
    async fn public(&self, what: PublicRequest) -> Answer<serde_json::Value>;
    /// The answer has the shape that the request names.
    async fn watch(&self, what: WatchRequest) -> Answer<serde_json::Value>;
    /// The answer has the shape that the request names.
    async fn share(&self, what: ShareRequest) -> Answer<serde_json::Value>;
    async fn provider_list(&self) -> Answer<ProvidersReport>;
    async fn provider_add(&self, provider: ProviderAddr) -> Answer<ProvidersReport>;
    async fn provider_remove(&self, peer_id: String) -> Answer<ProvidersReport>;
}

/// Whoever answers at a control socket: a drive (all requests), or a provider (those that it knows).
#[async_trait]
pub trait Answers: Send + Sync + 'static {
    async fn answer(self: Arc<Self>, request: Request, progress: ProgressSink) -> Answer<serde_json::Value>;
}

/// Where a handler shows how far it is; never blocks.
#[derive(Clone)]
pub struct ProgressSink(Option<mpsc::Sender<ProgressLine>>);

impl ProgressSink {
    /// For callers that do not look.
    pub fn none() -> ProgressSink {
        ProgressSink(None)
    }

    /// For callers that do.
    pub fn channel() -> (ProgressSink, mpsc::Receiver<ProgressLine>) {
        let (sender, lines) = mpsc::channel(PROGRESS_LINES_MAX);
        (ProgressSink(Some(sender)), lines)
    }

    pub fn send(&self, line: ProgressLine) {
        if let Some(sender) = &self.0 {
            // A full channel means a slow reader: it will see a later line.
            let _ = sender.try_send(line);
        }
    }
}

/// Serves until it is dropped; then the socket file is gone as well.
pub struct Server {
    path: PathBuf,
    task: JoinHandle<()>,
}

impl Server {
    /// Listens at `path`. Call it while the folder's lock is held: a socket that is already there is then a dead one.
    pub fn start(path: &Path, handler: Arc<dyn Answers>) -> std::io::Result<Server> {
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = super::short::bind(path)?;
        let task = tokio::spawn(accept(listener, handler));
        Ok(Server { path: path.to_owned(), task })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
        let _ = std::fs::remove_file(&self.path);
    }
}

async fn accept(listener: UnixListener, handler: Arc<dyn Answers>) {
    let slots = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let Ok(slot) = slots.clone().acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, _)) => {
                let handler = handler.clone();
                // A task of its own outlives the server, so that the answer to `unmount` still leaves.
                tokio::spawn(async move {
                    let _slot = slot;
                    if let Err(error) = serve(stream, handler).await {
                        tracing::debug!(%error, "control connection ended");
                    }
                });
            }
            Err(error) => {
                tracing::warn!(%error, "control socket cannot accept");
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        }
    }
}

async fn serve(stream: UnixStream, handler: Arc<dyn Answers>) -> std::io::Result<()> {
    let peer = stream.peer_cred()?.uid();
    if peer != 0 && peer != nix::unistd::geteuid().as_raw() {
        return Err(std::io::Error::from(std::io::ErrorKind::PermissionDenied));
    }
    let (read, mut write) = stream.into_split();
    let mut reader = BufReader::new(read);
    let mut line = String::new();
    let mut limited = (&mut reader).take(REQUEST_BYTES_MAX as u64);
    let asked =
        tokio::time::timeout(Duration::from_secs(REQUEST_SECONDS_MAX), limited.read_line(&mut line)).await;
    asked.map_err(|_| std::io::Error::from(std::io::ErrorKind::TimedOut))??;
    let request = match serde_json::from_str::<Request>(&line) {
        Ok(request) => request,
        Err(error) => {
            let message = format!("this is not a request that this version knows: {error}");
            return send(&mut write, &Response::Error(ControlError::new(ErrorKind::Invalid, message))).await;
        }
    };
    let (progress, mut lines) = ProgressSink::channel();
    let gone = wait_for_eof(&mut reader);
    let answering = handler.answer(request, progress);
    tokio::pin!(answering, gone);
    loop {
        tokio::select! {
            biased;
            Some(line) = lines.recv() => send(&mut write, &Response::Progress(line)).await?,
            answer = &mut answering => {
                let response = answer.map_or_else(Response::Error, Response::Ok);
                while let Ok(line) = lines.try_recv() {
                    send(&mut write, &Response::Progress(line)).await?;
                }
                return send(&mut write, &response).await;
            }
            () = &mut gone => return Ok(()),
        }
    }
}

/// The client sends one line only; the end of its stream means that it went away.
async fn wait_for_eof(reader: &mut (impl AsyncReadExt + Unpin)) {
    let mut rest = [0u8; 256];
    while !matches!(reader.read(&mut rest).await, Ok(0) | Err(_)) {}
}

async fn send(write: &mut OwnedWriteHalf, response: &Response) -> std::io::Result<()> {
    let mut line = serde_json::to_vec(response)?;
    line.push(b'\n');
    write.write_all(&line).await
}

#[async_trait]
impl<T: ControlHandler> Answers for T {
    async fn answer(self: Arc<Self>, request: Request, progress: ProgressSink) -> Answer<serde_json::Value> {
        let handler = self;
        match request {
            Request::Status {} => {
                let mut status = handler.status().await;
                status.judge();
                value(Ok(status))
            }
            Request::Sync { wait, timeout_seconds } => {
                let work = handler.sync(wait, progress);
                value(match timeout_seconds {
                    None => work.await,
                    Some(seconds) => {
                        tokio::time::timeout(Duration::from_secs(seconds), work).await.unwrap_or_else(|_| {
                            let message =
                                format!("not everything is with enough providers after {seconds} s");
                            Err(ControlError::new(ErrorKind::Timeout, message))
                        })
                    }
                })
            }
            Request::Seal {} => value(handler.seal().await),
            // Once begun it is finished, whether or not the client stays to hear of it.
            Request::Unmount { lazy } => value(
                tokio::spawn(async move { handler.unmount(lazy).await })
                    .await
                    .unwrap_or_else(|error| Err(ControlError::internal(error))),
            ),
            Request::Verify { deep, remote } => value(handler.verify(deep, remote, progress).await),
            Request::Doctor {} => value(handler.doctor().await),
            Request::Keep { what } => handler.keep(what).await,
            // Once begun it is finished, whether or not the client stays.
            Request::Public { what } => tokio::spawn(async move { handler.public(what).await })
                .await
                .unwrap_or_else(|error| Err(ControlError::internal(error))),
            Request::Watch { what } => handler.watch(what).await,
            Request::Share { what } => handler.share(what).await,
            Request::ProviderList {} => value(handler.provider_list().await),
            Request::ProviderAdd { provider } => value(handler.provider_add(provider).await),
            Request::ProviderRemove { peer_id } => value(handler.provider_remove(peer_id).await),
        }
    }
}

fn value<T: Serialize>(answer: Answer<T>) -> Answer<serde_json::Value> {
    answer.and_then(|report| serde_json::to_value(report).map_err(ControlError::internal))
}
