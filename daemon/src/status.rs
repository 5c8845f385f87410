//! What `holdfast status` says: gathered from the ledger, the drive and the workers; never waits for the network.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use holdfast_fs::drive::types::{DriveUsage, PieceInfo};

use crate::control::{
    Amount, AuditsReport, ClassReport, CommitReport, CommitsReport, DriveState, DurabilityReport,
    PiecesReport, PolicyReport, ProviderReport, ProviderState as Shown, RedundancyReport, STATUS_SCHEMA,
    Safety, StatusReport, StorageReport,
};
use crate::drive::Engine;
use crate::drive::ledger::{Form, Ledger, Peer, PieceId, PieceRow, ProviderRow, ProviderState, Seconds};

use crate::workers::place::open_slots;

/// Where one piece stands, for the totals.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Only here.
    Packed,
    /// With providers, but it survives fewer losses than the policy asks for.
    Below,
    /// As the policy asks for.
    Placed,
    /// The same, and every holder answered its last audit in time.
    Proven,
}

/// What decides over a piece's standing.
#[derive(Clone, Copy, Debug)]
pub struct Evidence {
    /// Copies that count.
    pub counting: usize,
    /// The oldest of their proofs.
    pub proven_at: Option<Seconds>,
    /// A published head reaches the piece.
    pub published: bool,
    /// Copies that the policy wants.
    pub wanted: usize,
    /// An audit older than that is overdue.
    pub proven_since: Seconds,
}

/// The ladder's upper rungs for one piece. Pure.
pub fn standing(e: Evidence) -> Standing {
    if !e.published || e.counting == 0 {
        return Standing::Packed;
    }
    if e.counting < e.wanted {
        return Standing::Below;
    }
    if e.proven_at.is_some_and(|t| t >= e.proven_since) { Standing::Proven } else { Standing::Placed }
}

/// Totals over all pieces.
#[derive(Clone, Debug, Default)]
pub struct Totals {
    /// Bytes by rung.
    pub durability: DurabilityReport,
    /// Counts.
    pub pieces: PiecesReport,
    /// Fewest losses that anything published survives.
    pub survives: Option<usize>,
    /// When the oldest piece that is not safe was finished.
    pub oldest_unsafe: Option<Seconds>,
    /// Fewest losses that a piece survives of those that are below the policy.
    pub at_risk_survives: Option<usize>,
    /// The same by how many losses pieces have to survive.
    pub classes: BTreeMap<u8, ClassReport>,
}

fn add(amount: &mut Amount, bytes: u64) {
    amount.bytes = amount.bytes.saturating_add(bytes);
}

/// Adds up `pieces`; `usage` brings what is not in pieces yet.
pub fn totals(engine: &Engine, pieces: &[PieceInfo], usage: &DriveUsage) -> Totals {
    let ledger = &engine.ledger;
    let published = engine.head.published_sequence().unwrap_or(0);
    let proven_since = engine.now().saturating_sub(engine.audit_interval().saturating_mul(2));
    let head_copies = ledger.head_copies();
    let mut t = Totals::default();
    t.durability.staged.bytes = usage.staged_bytes;
    for piece in pieces {
        let wanted = engine.wanted(&piece.id);
        let (counting, proven_at) = ledger.counting(&piece.id);
        let counting = counting.min(head_copies);
        let reached = piece.checkpoint || (piece.commit_sequence != 0 && piece.commit_sequence <= published);
        let at = standing(Evidence { counting, proven_at, published: reached, wanted, proven_since });
        let rung = match at {
            Standing::Packed => &mut t.durability.packed,
            Standing::Below => &mut t.durability.placed_below_policy,
            Standing::Placed => &mut t.durability.placed,
            Standing::Proven => &mut t.durability.proven,
        };
        add(rung, piece.raw_len);
        if matches!(at, Standing::Packed | Standing::Below) {
            t.oldest_unsafe = Some(t.oldest_unsafe.map_or(piece.created, |o| o.min(piece.created)));
            let survives = counting.saturating_sub(1);
            t.at_risk_survives = Some(t.at_risk_survives.map_or(survives, |s| s.min(survives)));
        }
        let short = matches!(at, Standing::Packed | Standing::Below);
        let losses = u8::try_from(wanted.saturating_sub(1)).unwrap_or(u8::MAX);
        let class = t.classes.entry(losses).or_default();
        class.survive_losses = losses;
        class.pieces += 1;
        class.bytes = class.bytes.saturating_add(piece.raw_len);
        class.full += u64::from(ledger.live_copies(&piece.id) >= wanted);
        class.at_risk_bytes = class.at_risk_bytes.saturating_add(if short { piece.raw_len } else { 0 });
        if reached {
            let survives = counting.saturating_sub(1) as u64;
            class.survives = Some(class.survives.map_or(survives, |s| s.min(survives)));
        }
        count(&mut t.pieces, ledger, piece, wanted);
        if short && reached && !piece.local && ledger.live_copies(&piece.id) >= wanted {
            t.pieces.unasked_bytes = t.pieces.unasked_bytes.saturating_add(piece.raw_len);
        }
        if reached {
            let survives = counting.saturating_sub(1);
            t.survives = Some(t.survives.map_or(survives, |s| s.min(survives)));
        }
    }
    t
}

fn count(report: &mut PiecesReport, ledger: &Ledger, piece: &PieceInfo, wanted: usize) {
    let live = ledger.live_copies(&piece.id);
    report.total += 1;
    report.bytes = report.bytes.saturating_add(piece.raw_len);
    report.local += u64::from(piece.local);
    if live >= wanted {
        report.full += 1;
    } else if live > 0 || piece.local {
        report.degraded += 1;
    } else {
        report.lost += 1;
    }
}

/// What the pieces' safety costs and lacks. `totals` has what is at risk.
fn redundancy(engine: &Engine, totals: &Totals) -> anyhow::Result<RedundancyReport> {
    let ledger = &engine.ledger;
    let mut classes = totals.classes.clone();
    let mut report = RedundancyReport::default();
    for (id, row) in ledger.pieces() {
        let kept = row.holders().filter(|(_, h)| h.failed.is_none());
        let stored: u64 = kept.map(|(slot, _)| row.slot_len(slot)).sum();
        report.stored_bytes = report.stored_bytes.saturating_add(stored);
        let wanted = engine.wanted(&id);
        let losses = u8::try_from(wanted.saturating_sub(1)).unwrap_or(u8::MAX);
        if let Some(class) = classes.get_mut(&losses).filter(|_| row.public.is_none()) {
            class.stored_bytes = class.stored_bytes.saturating_add(stored);
        }
        let live = ledger.live_copies(&id);
        if let Some(stripe) = &row.stripe {
            report.stripes += 1;
            report.stripes_full += u64::from(live > usize::from(stripe.parity));
        } else if row.slots.is_empty() {
            report.striped_bytes = report.striped_bytes.saturating_add(row.raw_len);
        }
        // A piece's copies are not made while its stripe is enough.
        if live < wanted && ledger.counting_as(&id, Form::Stripe) < wanted {
            let open: u64 = open_slots(&row).map(|slot| row.slot_len(slot)).sum();
            report.to_place_bytes = report.to_place_bytes.saturating_add(open);
        }
    }
    let bytes = totals.pieces.bytes;
    report.expansion = expansion(report.stored_bytes, bytes);
    if classes.len() > 1 {
        let with_expansion = |class: ClassReport| ClassReport {
            expansion: expansion(class.stored_bytes, class.bytes),
            ..class
        };
        report.classes = classes.into_values().map(with_expansion).collect();
    }
    report.to_raise = engine.drive.walks()?;
    report.at_risk_bytes = totals.durability.packed.bytes + totals.durability.placed_below_policy.bytes;
    report.at_risk_survives = totals.at_risk_survives.map(|n| n as u64);
    let rate = engine.sending.bytes_per_second();
    report.safe_in_seconds =
        (report.to_place_bytes > 0 && rate > 0).then(|| report.to_place_bytes.div_ceil(rate));
    let stuck = crate::drive::stuck::look(engine);
    report.stuck_slots = stuck.slots;
    if stuck.slots > 0 {
        report.stuck_reasons = stuck.words();
    }
    Ok(report)
}

/// Bytes with providers for each byte of data, to two digits.
fn expansion(stored: u64, bytes: u64) -> Option<f64> {
    (bytes > 0 && stored > 0).then(|| (stored as f64 / bytes as f64 * 100.0).round() / 100.0)
}

fn audits(engine: &Engine) -> AuditsReport {
    let plan = engine.audit_plan();
    let reads = engine.policy.read_plan(engine.ledger.copies());
    let in_words = format!("{}; {}", plan.in_words(), reads.in_words());
    AuditsReport { leaves: plan.challenges, interval_seconds: plan.period_seconds, in_words }
}

/// Where a provider belongs, from either source, once each.
fn tags(row: &ProviderRow) -> Vec<String> {
    let both = row.declared.each().chain(row.tagged.each());
    both.map(|(kind, tag)| format!("{kind}={tag}")).collect::<BTreeSet<_>>().into_iter().collect()
}

fn provider(
    peer: &Peer,
    row: &ProviderRow,
    kept: (u64, u64, Option<u64>),
    connected: bool,
    now: Seconds,
) -> ProviderReport {
    let state = match row.state {
        // Caught at a fault that is proven: it gets nothing new, and what it lost is placed elsewhere.
        ProviderState::Active | ProviderState::Suspect { .. } if row.is_barred(now) => Shown::Failed,
        ProviderState::Active if row.last_ok == 0 => Shown::New,
        ProviderState::Active => Shown::Ok,
        ProviderState::Suspect { .. } => Shown::Suspect,
        ProviderState::Failed { .. } => Shown::Failed,
        ProviderState::Removed => Shown::Leaving,
    };
    ProviderReport {
        peer_id: crate::drive::peers::peer_text(peer),
        addrs: row.addrs.clone(),
        state,
        connected,
        copies: kept.0,
        bytes: kept.1,
        last_audit_at: kept.2,
        last_audit_passed: kept.2.map(|at| row.fault_at.is_none_or(|f| f < at)),
        tags: tags(row),
        reason: row.reason.clone(),
    }
}

/// Copies, bytes and the newest proof for each provider.
fn kept(pieces: &[(PieceId, PieceRow)]) -> HashMap<Peer, (u64, u64, Option<u64>)> {
    let mut all: HashMap<Peer, (u64, u64, Option<u64>)> = HashMap::new();
    for (_, row) in pieces {
        for (slot, h) in row.holders().filter(|(_, h)| h.failed.is_none()) {
            let entry = all.entry(h.provider.clone()).or_default();
            entry.0 += 1;
            entry.1 = entry.1.saturating_add(row.slot_len(slot));
            entry.2 = entry.2.max((h.proven_at > 0).then_some(h.proven_at));
        }
    }
    all
}

/// Every provider as a person sees it.
pub fn providers(engine: &Engine) -> Vec<ProviderReport> {
    let kept = kept(&engine.ledger.pieces());
    let rows = engine.ledger.providers();
    rows.iter()
        .map(|(peer, row)| {
            let kept = kept.get(peer).cloned().unwrap_or_default();
            provider(peer, row, kept, engine.peers.is_connected(peer), engine.now())
        })
        .collect()
}

/// A commit as reports show it.
pub fn commit_report(c: &holdfast_fs::drive::types::CommitInfo) -> CommitReport {
    CommitReport { sequence: c.sequence, at: c.time, cid: c.commit.root.to_string() }
}

/// The whole report. Reads memory and the local index only.
pub fn gather(engine: &Engine) -> anyhow::Result<StatusReport> {
    let usage = engine.drive.usage()?;
    let pieces = engine.all_pieces()?;
    let dirty = engine.drive.dirty()?;
    let totals = totals(engine, &pieces, &usage);
    let redundancy = redundancy(engine, &totals)?;
    let mut durability = totals.durability;
    let now = engine.now();
    let dirty_age = dirty.oldest_change_age.map(|a| a.as_secs());
    let piece_age = totals.oldest_unsafe.map(|at| now.saturating_sub(at));
    durability.oldest_unsafe_seconds = dirty_age.max(piece_age);
    durability.staged.files = Some(dirty.inodes);
    let commits = CommitsReport {
        latest: engine.drive.latest_commit()?.as_ref().map(commit_report),
        published: engine.head.published_report(),
        published_with: u32::try_from(engine.ledger.head_copies()).unwrap_or(u32::MAX),
    };
    let (state, state_reason) = engine.state();
    Ok(StatusReport {
        schema: STATUS_SCHEMA,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        pid: std::process::id(),
        now,
        started_at: engine.started_at,
        drive: engine.drive_name.clone(),
        home: engine.home.clone(),
        mountpoint: engine.mountpoint(),
        state,
        state_reason,
        safety: Safety::default(),
        policy: PolicyReport {
            survive_losses: engine.policy.survive_losses,
            copies_wanted: u8::try_from(engine.policy.copies()).unwrap_or(u8::MAX),
            survive_losses_most: engine.highest_losses(),
        },
        durability,
        commits,
        pieces: totals.pieces,
        redundancy,
        audits: audits(engine),
        providers: providers(engine),
        workers: engine.supervisor.reports(),
        storage: StorageReport {
            staging_bytes: usage.staged_bytes,
            unsynced_bytes: usage.unsynced_bytes,
            log_bytes: usage.log_bytes,
            index_bytes: folder_bytes(&engine.home.join("index")),
            pieces_bytes: usage.piece_bytes_local,
            disk_free_bytes: disk_free(&engine.home),
        },
        events: engine.events.list(),
        restored: engine.restored.clone(),
        term: engine.term_report(),
        conflict_snapshot: engine.conflict(),
    })
}

/// What a drive that cannot be asked says: the state and the reason, and nothing that could be mistaken for safety.
pub fn unreadable(engine: &Engine, reason: String) -> StatusReport {
    StatusReport {
        schema: STATUS_SCHEMA,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        pid: std::process::id(),
        now: engine.now(),
        started_at: engine.started_at,
        drive: engine.drive_name.clone(),
        home: engine.home.clone(),
        mountpoint: engine.mountpoint(),
        state: DriveState::ReadOnly,
        state_reason: Some(reason),
        safety: Safety::default(),
        policy: PolicyReport {
            survive_losses: engine.policy.survive_losses,
            copies_wanted: 0,
            survive_losses_most: engine.highest_losses(),
        },
        durability: DurabilityReport::default(),
        commits: CommitsReport::default(),
        pieces: PiecesReport::default(),
        redundancy: RedundancyReport::default(),
        audits: audits(engine),
        providers: providers(engine),
        workers: engine.supervisor.reports(),
        storage: StorageReport::default(),
        events: engine.events.list(),
        restored: engine.restored.clone(),
        term: engine.term_report(),
        conflict_snapshot: engine.conflict(),
    }
}

fn folder_bytes(folder: &std::path::Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(folder) else { return 0 };
    entries.flatten().filter_map(|e| e.metadata().ok()).map(|m| m.len()).sum()
}

fn disk_free(folder: &std::path::Path) -> u64 {
    nix::sys::statvfs::statvfs(folder).map_or(0, |s| s.blocks_available().saturating_mul(s.fragment_size()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_piece_climbs_rung_by_rung_and_falls_again() {
        let e = Evidence { counting: 3, proven_at: Some(50), published: true, wanted: 3, proven_since: 40 };
        assert_eq!(standing(e), Standing::Proven);
        assert_eq!(standing(Evidence { proven_at: Some(39), ..e }), Standing::Placed);
        assert_eq!(standing(Evidence { counting: 2, ..e }), Standing::Below);
        assert_eq!(standing(Evidence { counting: 0, ..e }), Standing::Packed);
        assert_eq!(standing(Evidence { published: false, ..e }), Standing::Packed);
    }
}
