//! Who is asked how a provider stands: `holdfast status` by the control socket, Prometheus by the metrics' page.
//!
//! Both get the same report. Asking never waits for the network nor for the prover.

use std::{path::PathBuf, sync::Arc};

use async_trait::async_trait;
use holdfast_net::{provider::Provider, tags::Tags};
use parking_lot::Mutex;

use super::Folder;
use crate::{
    control::{
        Answers, ControlError, ErrorKind, Health, ProgressSink, ProviderRun, ProviderStatusReport, Request,
        STATUS_SCHEMA, ServedReport, StoresReport,
    },
    home::ProviderAddr,
    metrics::{self, Page},
    sealing::SealingView,
    worker::unix_now,
};

/// See the module.
pub(super) struct Desk {
    provider: Provider,
    sealing: Option<SealingView>,
    dir: PathBuf,
    address: ProviderAddr,
    tags: Tags,
    started_at: u64,
    metrics: Mutex<Option<String>>,
}

impl Desk {
    pub(super) fn new(
        folder: &Folder,
        address: &ProviderAddr,
        provider: Provider,
        sealing: Option<SealingView>,
    ) -> Arc<Desk> {
        Arc::new(Desk {
            provider,
            sealing,
            dir: folder.dir.clone(),
            address: address.clone(),
            tags: folder.tags().clone(),
            started_at: unix_now(),
            metrics: Mutex::new(None),
        })
    }

    /// Where the metrics are, once that is known.
    pub(super) fn set_metrics(&self, url: Option<String>) {
        *self.metrics.lock() = url;
    }

    /// Looks at the disk's free space, so it may block.
    fn report(&self) -> ProviderStatusReport {
        let status = self.provider.status();
        let mut report = ProviderStatusReport {
            schema: STATUS_SCHEMA,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            now: unix_now(),
            started_at: self.started_at,
            provider: self.address.peer_id.clone(),
            dir: self.dir.clone(),
            addrs: self.address.addrs.clone(),
            tags: self.tags.clone(),
            state: ProviderRun::Providing,
            health: Health::default(),
            kept: StoresReport {
                capacity_bytes: status.capacity_bytes,
                stored_bytes: status.store.stored_bytes,
                promised_bytes: status.store.committed_bytes,
                free_bytes: status.free_bytes,
                deals: status.store.deals,
                deals_stored: status.store.deals_stored,
                deals_damaged: status.store.damaged_rows,
                slots_damaged: status.store.slots_damaged,
                records: status.records,
                records_bytes: status.store.records_bytes,
            },
            served: ServedReport {
                sessions: status.sessions,
                served_bytes: status.served_bytes,
                received_bytes: status.received_bytes,
                proofs_made: status.audits_answered,
                proofs_failed: status.audits_failed,
            },
            sealing: self.sealing.as_ref().map(SealingView::report),
            metrics: self.metrics.lock().clone(),
        };
        report.judge();
        report
    }

    async fn ask(self: Arc<Self>) -> Result<ProviderStatusReport, ControlError> {
        tokio::task::spawn_blocking(move || self.report()).await.map_err(ControlError::internal)
    }

    /// For the metrics.
    pub(super) fn page(self: &Arc<Self>) -> Page {
        let desk = self.clone();
        Arc::new(move || {
            let desk = desk.clone();
            Box::pin(async move { desk.ask().await.ok().map(|report| metrics::provider_page(&report)) })
        })
    }
}

#[async_trait]
impl Answers for Desk {
    async fn answer(
        self: Arc<Self>,
        request: Request,
        _: ProgressSink,
    ) -> Result<serde_json::Value, ControlError> {
        let Request::Status {} = request else {
            let message = "this is a provider, not a drive: it answers `status` only";
            return Err(ControlError::new(ErrorKind::Invalid, message));
        };
        serde_json::to_value(self.ask().await?).map_err(ControlError::internal)
    }
}
