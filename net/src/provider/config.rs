//! What a provider takes, from whom, and how much of it.

use std::sync::Arc;

use crate::peer_set::PeerSet;
use crate::tags::Tags;
use crate::wire::limits::IDLE_TIMEOUT;

/// Whose deals are taken. What a deal's key owns is served to whoever proves the key, from anywhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Allow {
    /// Anybody's, within the quotas.
    Anyone,
    /// Only those of these peers, and of peers at these addresses.
    Listed(Arc<PeerSet>),
}

/// Whether a slot of so many bytes may be promised now; if not, why. Asked for every new deal, so it must not wait.
#[derive(Clone)]
pub struct Gate(Arc<dyn Fn(u64) -> Option<String> + Send + Sync>);

impl Gate {
    /// A gate that asks this function.
    pub fn new(ask: impl Fn(u64) -> Option<String> + Send + Sync + 'static) -> Gate {
        Gate(Arc::new(ask))
    }

    pub(super) fn refuses(&self, raw_len: u64) -> Option<String> {
        (self.0)(raw_len)
    }
}

impl Default for Gate {
    fn default() -> Gate {
        Gate::new(|_| None)
    }
}

impl std::fmt::Debug for Gate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Gate")
    }
}

/// A provider's policy.
#[derive(Debug, Clone)]
pub struct ProviderConfig {
    /// Bytes that it takes in all: slots, promised ones included, records, and the index of public blocks. Records may go beyond by
    /// [`ProviderConfig::records_bytes_max`], so that a full provider still takes the newer heads of its drives.
    pub capacity_bytes: u64,
    /// Bytes that stay free on the disk in any case.
    pub disk_reserve_bytes: u64,
    /// Price for each GiB and 30 days, big endian without leading zeros; empty for nothing.
    pub price: Vec<u8>,
    /// Whose deals are taken at the start; [`Provider::set_allow`](super::Provider::set_allow) changes it.
    pub allow: Allow,
    /// Whether it takes public data, which anybody may have from it.
    pub public: bool,
    /// Where it says that it belongs.
    pub tags: Tags,
    /// Back-pressure from what is done with slots beyond keeping them.
    pub gate: Gate,
    /// Bounds on everything that others can cause.
    pub limits: ProviderLimits,
}

impl ProviderConfig {
    /// Takes so many bytes, for nothing, from anybody.
    pub fn with_capacity(capacity_bytes: u64) -> ProviderConfig {
        ProviderConfig {
            capacity_bytes,
            disk_reserve_bytes: 256 << 20,
            price: Vec::new(),
            allow: Allow::Anyone,
            public: true,
            tags: Tags::default(),
            gate: Gate::default(),
            limits: ProviderLimits::default(),
        }
    }

    /// Bytes of records in all.
    pub fn records_bytes_max(&self) -> u64 {
        self.limits.records_bytes_max.min(self.capacity_bytes / RECORDS_SHARE)
    }
}

/// Records take at most this part of the capacity.
const RECORDS_SHARE: u64 = 16;

/// A proof for 32 GiB reads 300 KiB and takes a millisecond with it.
pub(super) const TREE_PERMILLE_DEFAULT: u16 = 10;

/// Bounds of a provider.
#[derive(Debug, Clone)]
pub struct ProviderLimits {
    /// The longest slot.
    pub slot_bytes_max: u64,
    /// The longest term from now.
    pub term_seconds_max: u64,
    /// Bytes of one client key.
    pub key_bytes_max: u64,
    /// Deals in all; each costs about half a KiB of memory.
    pub deals_max: usize,
    /// Deals of one key that were taken and not stored yet.
    pub pending_per_key_max: usize,
    /// How long space is kept for a push that does not come.
    pub pending_seconds_max: u64,
    /// After a deal's end, counted while the provider is up, before its space is freed.
    pub grace_seconds: u64,
    /// Records in all.
    pub records_max: usize,
    /// Bytes of records in all. Keys without a deal here share a quarter of it.
    pub records_bytes_max: u64,
    /// Records that one key may have begun.
    pub records_per_key_max: usize,
    /// Sessions at once.
    pub sessions_max: usize,
    /// Sessions of one peer.
    pub sessions_per_peer_max: usize,
    /// Streams of one peer, over all its connections.
    pub streams_per_peer_max: usize,
    /// Data streams of a session.
    pub streams_per_session_max: usize,
    /// Requests under way on one stream.
    pub inflight_max: u16,
    /// Reads of one stream that are being answered at once; the others wait.
    pub reads_per_stream_max: usize,
    /// Bytes read from disk that wait to be sent, over all streams.
    pub serving_bytes_max: usize,
    /// Bytes of control requests above 1 KiB that are being read or answered, over all sessions.
    pub requests_bytes_max: usize,
    /// Bytes of records and pages of holdings that wait to be sent, over all sessions.
    pub replies_bytes_max: usize,
    /// Bytes of answers to audits that wait to be sent, over all sessions.
    pub proofs_bytes_max: usize,
    /// Seconds after which a stream ends on which nothing is under way; a session's data streams count for its control
    /// stream.
    pub idle_seconds: u64,
    /// Audits that are answered at once. They have their own: proving outranks serving.
    pub audits_max: usize,
    /// Pushes at once.
    pub pushes_max: usize,
    /// Disk for a slot's tree cache, in thousandths of the slot and beside the capacity: with less, a proof reads more
    /// of the slot (proofs/SOUNDNESS.md, section 4). What lies there already stays until it is made again.
    pub tree_permille: u16,
    /// Seconds between looks at ended deals.
    pub sweep_seconds: u64,
    /// Every slot is read whole from the disk once in so many seconds; with 0 never.
    pub scrub_seconds: u64,
    /// At most so many bytes of them a second, whatever that makes of the above.
    pub scrub_bytes_per_second_max: u64,
}

impl Default for ProviderLimits {
    fn default() -> ProviderLimits {
        ProviderLimits {
            slot_bytes_max: 32 << 30,
            term_seconds_max: 5 * 366 * 86_400,
            key_bytes_max: u64::MAX,
            deals_max: 1_000_000,
            pending_per_key_max: 256,
            pending_seconds_max: 3600,
            grace_seconds: 7 * 86_400,
            records_max: 65_536,
            records_bytes_max: 1 << 30,
            records_per_key_max: 256,
            sessions_max: 1024,
            sessions_per_peer_max: 16,
            streams_per_peer_max: 256,
            streams_per_session_max: 12,
            inflight_max: 64,
            reads_per_stream_max: 4,
            serving_bytes_max: 64 << 20,
            requests_bytes_max: 64 << 20,
            replies_bytes_max: 64 << 20,
            proofs_bytes_max: 16 << 20,
            idle_seconds: IDLE_TIMEOUT.as_secs(),
            audits_max: 4,
            pushes_max: 32,
            tree_permille: TREE_PERMILLE_DEFAULT,
            sweep_seconds: 60,
            scrub_seconds: 30 * 86_400,
            scrub_bytes_per_second_max: 32 << 20,
        }
    }
}
