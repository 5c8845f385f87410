#![allow(clippy::unwrap_used)]
use std::{
    io::Write,
    os::unix::net::UnixStream,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;

use super::*;
use crate::home::ProviderAddr;

type Answer<T> = Result<T, ControlError>;

/// Counts the waits that were given up by their clients.
#[derive(Default)]
struct Fake {
    abandoned: AtomicU32,
}

struct OnDrop<'a>(&'a AtomicU32);
impl Drop for OnDrop<'_> {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

#[async_trait]
impl ControlHandler for Fake {
    async fn status(&self) -> StatusReport {
        render::tests::sample()
    }
    async fn sync(&self, wait: bool, progress: ProgressSink) -> Answer<SyncReport> {
        for done in 1..=3 {
            progress.send(ProgressLine { phase: "placing".into(), done, total: 3, ..Default::default() });
        }
        if wait {
            let _abandoned = OnDrop(&self.abandoned);
            std::future::pending::<()>().await;
        }
        Ok(SyncReport { synced: true, placed: false, commit: None, unsafe_bytes: 5, survives: 0, seconds: 0 })
    }
    async fn seal(&self) -> Answer<SealReport> {
        Ok(SealReport { commit: None, new_pieces: 0 })
    }
    async fn unmount(&self, lazy: bool) -> Answer<UnmountReport> {
        if lazy {
            return Ok(UnmountReport {
                mountpoint: None,
                unsafe_bytes: 0,
                unknown: false,
                below_policy_bytes: 0,
                unasked_bytes: 0,
                safe_bytes: 0,
                oldest_unsafe_seconds: None,
            });
        }
        Err(ControlError::new(ErrorKind::Busy, "a file is open"))
    }
    async fn verify(&self, _: bool, _: bool, _: ProgressSink) -> Answer<VerifyReport> {
        Err(ControlError::internal("no"))
    }
    async fn doctor(&self) -> Answer<crate::doctor::DriveFacts> {
        Err(ControlError::internal("no"))
    }
    async fn keep(&self, _: KeepRequest) -> Answer<serde_json::Value> {
        Err(ControlError::internal("no"))
    }
    async fn public(&self, _: PublicRequest) -> Answer<serde_json::Value> {
        Err(ControlError::internal("no"))
    }
    async fn share(&self, _: ShareRequest) -> Answer<serde_json::Value> {
        Err(ControlError::internal("no"))
    }
    async fn watch(&self, _: WatchRequest) -> Answer<serde_json::Value> {
        Err(ControlError::internal("no"))
    }
    async fn provider_list(&self) -> Answer<ProvidersReport> {
        Ok(ProvidersReport { configured: vec![], live: vec![] })
    }
    async fn provider_add(&self, provider: ProviderAddr) -> Answer<ProvidersReport> {
        Ok(ProvidersReport { configured: vec![provider], live: vec![] })
    }
    async fn provider_remove(&self, _: String) -> Answer<ProvidersReport> {
        self.provider_list().await
    }
}

async fn call<T: serde::de::DeserializeOwned + Send + 'static>(
    socket: &Path,
    request: Request,
) -> (Result<T, ClientError>, Vec<u64>) {
    let socket = socket.to_owned();
    tokio::task::spawn_blocking(move || {
        let mut seen = Vec::new();
        let answer = Client::new(&socket).call(&request, |line| seen.push(line.done));
        (answer, seen)
    })
    .await
    .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_are_answered_and_errors_keep_their_kind() {
    let dir = tempfile::tempdir().unwrap();
    // Longer than a socket's path may be.
    let folder = dir.path().join("x".repeat(120));
    std::fs::create_dir(&folder).unwrap();
    let socket = folder.join("control.sock");
    let handler = Arc::new(Fake::default());
    let server = Server::start(&socket, handler.clone()).unwrap();

    let (status, _) = call::<StatusReport>(&socket, Request::Status {}).await;
    assert_eq!(status.unwrap().safety.level, SafetyLevel::Safe, "the server judges");
    let (sync, seen) =
        call::<SyncReport>(&socket, Request::Sync { wait: false, timeout_seconds: None }).await;
    assert_eq!(sync.unwrap().unsafe_bytes, 5);
    assert!(!seen.is_empty() && seen.is_sorted());
    let (busy, _) = call::<UnmountReport>(&socket, Request::Unmount { lazy: false }).await;
    assert!(
        matches!(busy, Err(ClientError::Refused(e)) if e.kind == ErrorKind::Busy && e.message == "a file is open")
    );
    let (late, _) = call::<SyncReport>(&socket, Request::Sync { wait: true, timeout_seconds: Some(1) }).await;
    assert!(matches!(late, Err(ClientError::Refused(e)) if e.kind == ErrorKind::Timeout));
    assert_eq!(handler.abandoned.load(Ordering::SeqCst), 1);

    // A second server at the same place takes over from a dead one; a dropped one leaves nothing.
    drop(server);
    assert!(!socket.exists());
    let (gone, _) = call::<StatusReport>(&socket, Request::Status {}).await;
    assert!(matches!(gone, Err(ClientError::NotRunning(_))));
}

#[tokio::test(flavor = "multi_thread")]
async fn garbage_is_refused_and_a_client_that_leaves_ends_its_wait() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("s");
    let handler = Arc::new(Fake::default());
    let _server = Server::start(&socket, handler.clone()).unwrap();
    for garbage in
        ["\n".to_owned(), "{}\n".into(), r#"{"op":"x"}"#.to_owned() + "\n", "a".repeat(200_000) + "\n"]
    {
        let mut stream = UnixStream::connect(&socket).unwrap();
        // The server may hang up before all of it is written.
        let _ = stream.write_all(garbage.as_bytes());
        let mut answer = String::new();
        let _ = tokio::task::spawn_blocking(move || {
            use std::io::Read;
            let _ = stream.read_to_string(&mut answer);
            assert!(answer.is_empty() || answer.contains("invalid"), "{answer}");
        })
        .await;
    }
    let mut stream = UnixStream::connect(&socket).unwrap();
    stream.write_all(b"{\"op\":\"sync\",\"wait\":true,\"timeout_seconds\":null}\n").unwrap();
    tokio::time::sleep(Duration::from_millis(100)).await;
    drop(stream);
    for _ in 0..100 {
        if handler.abandoned.load(Ordering::SeqCst) == 1 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("the wait goes on without its client");
}
