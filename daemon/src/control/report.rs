//! The reports of a running drive, as `--json` prints them. Stable: fields are added, never renamed or given another
//! meaning; what would break a reader raises `schema`. Documented in daemon/CLI.md.
//! Times are unix seconds, amounts bytes; an absent optional field means "not known" or "never".

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::{
    home::{Config, ProviderAddr},
    worker::WorkerReport,
};

pub const STATUS_SCHEMA: u32 = 1;

/// `holdfast status --json`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct StatusReport {
    pub schema: u32,
    /// Of the program that runs the drive.
    pub version: String,
    pub pid: u32,
    pub now: u64,
    pub started_at: u64,
    /// The drive's name: its root public key.
    pub drive: String,
    pub home: PathBuf,
    pub mountpoint: Option<PathBuf>,
    pub state: DriveState,
    /// Why it is read-only, or what it waits for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state_reason: Option<String>,
    /// The verdict over everything below; filled in by the control server (`StatusReport::judge`).
    #[serde(default)]
    pub safety: Safety,
    pub policy: PolicyReport,
    pub durability: DurabilityReport,
    pub commits: CommitsReport,
    pub pieces: PiecesReport,
    #[serde(default)]
    pub redundancy: RedundancyReport,
    #[serde(default)]
    pub audits: AuditsReport,
    pub providers: Vec<ProviderReport>,
    pub workers: Vec<WorkerReport>,
    pub storage: StorageReport,
    /// The story: what happened lately, oldest first, at most 50.
    #[serde(default)]
    pub events: Vec<EventReport>,
    /// Present on a drive that was restored from its words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restored: Option<RestoredReport>,
    /// The right to write, once it was granted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub term: Option<TermReport>,
    /// The snapshot with what only this machine has, after another one took the drive over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub conflict_snapshot: Option<String>,
}

/// The right to write the drive.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TermReport {
    pub number: u64,
    /// By the owner's word, and not by a majority.
    pub forced: bool,
    /// Peer ids of the providers that grant the next one.
    pub anchors: Vec<String>,
    /// How many of them keep the newest head; it counts as published when a majority does.
    pub keeping: u32,
    /// Those whose place they take, while these change: a majority of them has to keep that head, too.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub former: Vec<String>,
    /// How many of `former` keep it.
    #[serde(default)]
    pub keeping_former: u32,
}

impl TermReport {
    /// How many of how many keep the newest head, where a majority of them does not.
    pub fn lacks(&self) -> Option<(u32, usize)> {
        let sets = [(self.keeping, self.anchors.len()), (self.keeping_former, self.former.len())];
        let few = |(keeping, of): &(u32, usize)| (*keeping as usize) < holdfast_net::term::majority(*of);
        sets.into_iter().filter(|(_, of)| *of > 0).find(few)
    }
}

/// `holdfast status --json` of a drive that is not mounted: `state` is `"unmounted"`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct UnmountedReport {
    pub schema: u32,
    pub version: String,
    pub drive: String,
    pub home: PathBuf,
    /// Where it was mounted last.
    pub mountpoint: Option<PathBuf>,
    pub state: String,
    pub policy: PolicyReport,
    pub configured_providers: Vec<ProviderAddr>,
    /// A restore was begun and goes on with the next mount.
    pub restore_pending: bool,
}

impl UnmountedReport {
    pub fn new(home: &Path, config: &Config) -> UnmountedReport {
        UnmountedReport {
            schema: STATUS_SCHEMA,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            drive: config.drive.clone(),
            home: home.to_owned(),
            mountpoint: config.mountpoint.clone(),
            state: "unmounted".to_owned(),
            policy: PolicyReport {
                survive_losses: config.policy.survive_losses,
                copies_wanted: config.policy.copies_wanted(),
                survive_losses_most: config.policy.survive_losses,
            },
            configured_providers: config.providers.clone(),
            restore_pending: config.restore_pending,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DriveState {
    Starting,
    Mounted,
    ReadOnly,
    Unmounting,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Safety {
    pub level: SafetyLevel,
    /// One sentence for people.
    pub summary: String,
    /// What a person should do, if anything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub advice: Option<String>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SafetyLevel {
    /// All that was written survives the loss of as many providers as the policy says.
    Safe,
    /// Not yet, and it is being worked on without trouble.
    #[default]
    Working,
    /// Not yet, and something is in the way (too few providers, errors).
    Hindered,
    /// Some data has no copy left anywhere that is known.
    Lost,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyReport {
    /// Data is safe when it survives the loss of any this many providers; it has one more copy than that.
    pub survive_losses: u8,
    pub copies_wanted: u8,
    /// The most losses that any folder's policy, or the drive's own, asks to be survived.
    #[serde(default)]
    pub survive_losses_most: u8,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Amount {
    pub bytes: u64,
    /// Where it is cheap to know.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub files: Option<u64>,
}

/// Every byte stands on exactly one of these rungs.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DurabilityReport {
    pub staged: Amount,
    pub sealed: Amount,
    pub packed: Amount,
    /// With providers, but surviving fewer losses than the policy asks for.
    pub placed_below_policy: Amount,
    pub placed: Amount,
    /// Placed up to the policy, and every holder answered its last audit.
    pub proven: Amount,
    /// Age of the oldest change that is not yet Placed up to the policy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oldest_unsafe_seconds: Option<u64>,
}

impl DurabilityReport {
    /// Bytes that a loss of this machine now would take, or that the policy is not yet met for.
    pub fn unsafe_bytes(&self) -> u64 {
        [&self.staged, &self.sealed, &self.packed, &self.placed_below_policy]
            .iter()
            .fold(0u64, |sum, a| sum.saturating_add(a.bytes))
    }

    pub fn safe_bytes(&self) -> u64 {
        self.placed.bytes.saturating_add(self.proven.bytes)
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommitReport {
    pub sequence: u64,
    pub at: u64,
    pub cid: String,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommitsReport {
    /// The newest local one.
    pub latest: Option<CommitReport>,
    /// The newest that a published head names: what a restore would bring.
    pub published: Option<CommitReport>,
    /// How many providers hold that head.
    #[serde(default)]
    pub published_with: u32,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PiecesReport {
    pub total: u64,
    pub bytes: u64,
    /// With all the copies that the policy wants.
    pub full: u64,
    /// With some copies, here or at providers, but not all that the policy wants.
    pub degraded: u64,
    /// Without any copy that is known to be readable.
    pub lost: u64,
    /// Kept on this machine as well.
    pub local: u64,
    /// Bytes that are not here and, as the published head says, with enough providers, which this machine has not all
    /// asked yet: it was restored a moment ago.
    #[serde(default)]
    pub unasked_bytes: u64,
}

/// How every copy is asked to prove itself.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditsReport {
    /// Leaves of a challenge, and seconds from one to the next.
    pub leaves: u16,
    pub interval_seconds: u64,
    /// What a loss of some size means: how soon it is noticed.
    pub in_words: String,
}

/// What the safety of the pieces costs, and what it lacks.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct RedundancyReport {
    /// Bytes that providers keep of what is in pieces.
    pub stored_bytes: u64,
    /// The same for each byte of the pieces; absent while nobody keeps anything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expansion: Option<f64>,
    /// Stripes, and of them those with all their slots at live providers.
    pub stripes: u64,
    pub stripes_full: u64,
    /// Bytes of pieces that stripes keep, without copies beside them.
    pub striped_bytes: u64,
    /// Bytes of pieces that survive fewer losses than the policy asks for, and the fewest losses that any of it survives.
    pub at_risk_bytes: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at_risk_survives: Option<u64>,
    /// Bytes that have to be placed until nothing is at risk, and how long that takes at the rate of the last minutes.
    pub to_place_bytes: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub safe_in_seconds: Option<u64>,
    /// Slots that no provider may take, and what keeps them from it.
    #[serde(default)]
    pub stuck_slots: u64,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub stuck_reasons: Vec<String>,
    /// Pieces by the losses that they have to survive, fewest first; empty where all have to survive as many.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub classes: Vec<ClassReport>,
    /// Folders and files that are to be looked at, since a policy changed or they were moved: what is below may be less safe than it should be.
    #[serde(default)]
    pub to_raise: u64,
}

/// Pieces that have to survive so many losses.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ClassReport {
    pub survive_losses: u8,
    pub pieces: u64,
    pub bytes: u64,
    /// Of these, pieces with as many copies, or as much parity, at live providers.
    pub full: u64,
    pub at_risk_bytes: u64,
    /// Fewest losses that anything published of it survives.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub survives: Option<u64>,
    pub stored_bytes: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expansion: Option<f64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProviderState {
    /// Not spoken with yet.
    New,
    Ok,
    /// Missed something lately; still counted until it is sure.
    Suspect,
    /// Given up; its copies were or are being replaced.
    Failed,
    /// Removed by the owner; its copies are being moved.
    Leaving,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProviderReport {
    pub peer_id: String,
    pub addrs: Vec<String>,
    pub state: ProviderState,
    pub connected: bool,
    /// Copies of pieces that count, and their bytes.
    pub copies: u64,
    pub bytes: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_audit_at: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_audit_passed: Option<bool>,
    /// Where it belongs, as it says or the owner says.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
    /// Why it is in this state, in plain words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StorageReport {
    /// Payloads in the log that exist nowhere else.
    pub staging_bytes: u64,
    /// Of these, not yet covered by an fsync.
    pub unsynced_bytes: u64,
    pub log_bytes: u64,
    pub index_bytes: u64,
    pub pieces_bytes: u64,
    /// Free on the disk that holds the home folder.
    pub disk_free_bytes: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventReport {
    pub at: u64,
    /// `info`, `warning`, `error`.
    pub level: String,
    pub text: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestoredReport {
    pub at: u64,
    /// The commit that was found.
    pub sequence: u64,
    /// Providers that answered when the newest head was asked for, of those that the head names.
    pub answered: u32,
    pub asked: u32,
    /// Files whose data is not in that commit: they are there, and reading them is an error.
    #[serde(default)]
    pub missing_files: u64,
}

/// `holdfast sync --json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SyncReport {
    /// Everything written before the request survives a power cut.
    pub synced: bool,
    /// Everything written before the request is Placed up to the policy, and a published head reaches it.
    pub placed: bool,
    pub commit: Option<CommitReport>,
    pub unsafe_bytes: u64,
    /// Losses of providers that it survives now.
    pub survives: u8,
    pub seconds: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SealReport {
    /// Absent when nothing was dirty.
    pub commit: Option<CommitReport>,
    pub new_pieces: u64,
}

/// `holdfast unmount --json`: what leaves the machine safe and what not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnmountReport {
    pub mountpoint: Option<PathBuf>,
    /// Below what the policy asks for, in whichever way.
    pub unsafe_bytes: u64,
    /// The figures could not be read; the others are zero then.
    #[serde(default)]
    pub unknown: bool,
    /// Of those, what is with providers all the same, only with too few.
    #[serde(default)]
    pub below_policy_bytes: u64,
    /// Of those, what is with enough providers by the word of the published head, not by answers to this machine.
    #[serde(default)]
    pub unasked_bytes: u64,
    pub safe_bytes: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oldest_unsafe_seconds: Option<u64>,
}

/// `holdfast verify --json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VerifyReport {
    pub ok: bool,
    pub inodes: u64,
    pub entries: u64,
    pub chunks: u64,
    pub blocks: u64,
    pub pieces: u64,
    /// Only with `--deep`: bytes of blocks that were read and hashed.
    pub bytes_read: u64,
    /// Only with `--remote`: what was read of the providers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remote: Option<RemoteReport>,
    /// What is wrong, at most 1,000 lines.
    pub problems: Vec<String>,
}

/// Copies of pieces and slots of stripes, as `verify --remote` read them whole.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RemoteReport {
    /// What there is to be read, and its bytes.
    pub copies: u64,
    pub bytes: u64,
    /// What was read to its end.
    pub read_copies: u64,
    pub read_bytes: u64,
    /// Copies that are not what the provider was given, or that it does not give.
    pub damaged: u64,
    /// Blocks of pieces that were hashed besides, of a few copies.
    pub blocks: u64,
}

/// `holdfast provider list --json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProvidersReport {
    /// As the home folder's configuration names them.
    pub configured: Vec<ProviderAddr>,
    /// As the running drive sees them; empty when it is not mounted.
    pub live: Vec<ProviderReport>,
}
