//! A provider's page.

use super::exposition::Exposition;
use crate::control::{HealthLevel, ProviderStatusReport, SealingReport};

/// Made of the report that `holdfast status` shows.
pub fn page(report: &ProviderStatusReport) -> String {
    let mut out = Exposition::default();
    let number = |is: bool| u8::from(is);
    out.gauge("holdfast_info", "The program that runs; always 1.").labelled("version", &report.version, 1);
    out.gauge("holdfast_start_time_seconds", "When it was started, unix time.").value(report.started_at);
    let level = report.health.level;
    let mut health = out.gauge("holdfast_provider_health", "1 for the verdict that `holdfast status` shows.");
    for (name, this) in
        [("well", HealthLevel::Well), ("warned", HealthLevel::Warned), ("trouble", HealthLevel::Trouble)]
    {
        health = health.labelled("level", name, number(level == this));
    }
    let kept = &report.kept;
    out.gauge("holdfast_provider_capacity_bytes", "What it takes at most.").value(kept.capacity_bytes);
    out.gauge("holdfast_provider_stored_bytes", "Bytes of slots on the disk.").value(kept.stored_bytes);
    out.gauge("holdfast_provider_promised_bytes", "Bytes of slots that are stored or awaited.")
        .value(kept.promised_bytes);
    out.gauge("holdfast_provider_free_bytes", "What it would still take, by capacity and by disk.")
        .value(kept.free_bytes);
    out.gauge("holdfast_provider_deals", "Deals by state; ended ones in their grace are known and stored.")
        .labelled("state", "known", kept.deals)
        .labelled("state", "stored", kept.deals_stored)
        .labelled("state", "damaged", kept.deals_damaged);
    out.gauge("holdfast_provider_slots_damaged", "Slots that were read whole and are not what was stored.")
        .value(kept.slots_damaged);
    out.gauge("holdfast_provider_records", "Heads and keyrings that it keeps for drives.")
        .value(kept.records);
    out.gauge("holdfast_provider_records_bytes", "Bytes of these.").value(kept.records_bytes);
    let served = &report.served;
    out.gauge("holdfast_provider_sessions", "Clients with a session now.").value(served.sessions);
    out.counter("holdfast_provider_served_bytes_total", "Bytes of slots that were read by clients.")
        .value(served.served_bytes);
    out.counter("holdfast_provider_received_bytes_total", "Bytes of slots that came from clients.")
        .value(served.received_bytes);
    out.counter("holdfast_provider_possession_proofs_total", "Proofs of possession that were asked for.")
        .labelled("result", "made", served.proofs_made)
        .labelled("result", "failed", served.proofs_failed);
    if let Some(report) = &report.sealing {
        sealing(&mut out, report);
    }
    out.finish()
}

fn sealing(out: &mut Exposition, report: &SealingReport) {
    out.gauge("holdfast_sealing_up", "1 while the prover answers.").value(u8::from(report.running()));
    out.counter(
        "holdfast_sealing_prover_ended_total",
        "Times that the prover has ended and was started again.",
    )
    .value(report.prover_ended);
    let Some(last) = &report.last else { return };
    let status = &last.status;
    out.gauge("holdfast_sealing_status_age_seconds", "How old the figures below are.")
        .value(last.age_seconds);
    out.gauge("holdfast_sealing_profile", "The profile; 1 only for production strength.").labelled(
        "profile",
        &status.profile,
        u8::from(status.warning.is_none()),
    );
    for (name, help, used, budget) in [
        (
            "holdfast_sealing_cores",
            "Cores that proofs and seals use, and may use.",
            u64::from(status.used.cores),
            u64::from(status.budget.cores),
        ),
        (
            "holdfast_sealing_memory_bytes",
            "Memory that proofs and seals were given, and may be given.",
            status.used.memory_bytes,
            status.budget.memory_bytes,
        ),
    ] {
        out.gauge(name, help).labelled("of", "used", used).labelled("of", "budget", budget);
    }
    out.gauge("holdfast_sealing_accepts", "1 while deals that must be sealed are taken.")
        .value(u8::from(status.accepts));
    out.gauge("holdfast_sealing_pieces", "Pieces of deals by where they stand.")
        .labelled("state", "waiting", status.pieces.waiting)
        .labelled("state", "in_sectors", status.pieces.in_sectors)
        .labelled("state", "too_large", status.pieces.too_large);
    let mut sectors = out.gauge("holdfast_sealing_sectors", "Sectors by their last finished phase.");
    for (phase, count) in &status.phases {
        sectors = sectors.labelled("phase", phase, count);
    }
    out.gauge("holdfast_sealing_sectors_faulty", "Sectors that are declared faulty.")
        .value(status.sectors_faulty);
    out.counter("holdfast_sealing_windows_total", "Windows since the folder was made.")
        .labelled("result", "proven", status.windows.proven)
        .labelled("result", "missed", status.windows.missed);
    tasks(out, status);
}

fn tasks(out: &mut Exposition, status: &holdfast_proofs::sealing::SealingStatus) {
    let mut queue =
        out.gauge("holdfast_sealing_tasks", "Tasks that are queued or run, by what they are for.");
    for class in ["spacetime", "seal", "upkeep"] {
        let count = status.tasks.iter().filter(|task| task.class == class).count();
        queue = queue.labelled("class", class, count);
    }
    out.gauge("holdfast_sealing_tasks_at_risk", "Tasks that may miss their deadlines.")
        .labelled("class", "proof", status.proofs_at_risk().count())
        .labelled("class", "other", status.at_risk().count() - status.proofs_at_risk().count());
    let proofs = || status.tasks.iter().filter(|task| task.class == "spacetime");
    out.gauge(
        "holdfast_sealing_next_deadline_seconds",
        "Seconds until the next proof is due; none without one.",
    )
    .maybe(proofs().map(|task| status.seconds_until(task.deadline)).min());
    let spare = |task: &holdfast_proofs::sealing::TaskLine| {
        let expected = task.expected_finish?;
        Some(task.deadline.cast_signed().saturating_sub(expected.cast_signed()))
    };
    out.gauge(
        "holdfast_sealing_spare_seconds",
        "Seconds between the expected finish of a proof and its deadline, the least of all; below 0 it will be missed.",
    )
    .maybe(proofs().filter_map(spare).min());
    out.gauge(
        "holdfast_sealing_expected_finish_seconds",
        "Seconds until all that is queued is expected to be done.",
    )
    .maybe(status.expected_finish().map(|at| status.seconds_until(at)));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::provider_sample;
    use crate::metrics::exposition::tests::{read, value};

    #[test]
    fn the_page_says_what_the_status_says_and_names_nobody() {
        let report = provider_sample();
        let page = page(&report);
        let samples = read(&page);
        for (name, expected) in [
            ("holdfast_provider_stored_bytes", 3e6),
            ("holdfast_provider_served_bytes_total", 5e6),
            ("holdfast_provider_possession_proofs_total{result=\"made\"}", 120.0),
            ("holdfast_provider_health{level=\"trouble\"}", 1.0),
            ("holdfast_sealing_up", 1.0),
            ("holdfast_sealing_profile{profile=\"test-2k\"}", 0.0),
            ("holdfast_sealing_sectors{phase=\"pre-commit 1\"}", 1.0),
            ("holdfast_sealing_windows_total{result=\"proven\"}", 4.0),
            ("holdfast_sealing_tasks{class=\"spacetime\"}", 1.0),
            ("holdfast_sealing_tasks_at_risk{class=\"proof\"}", 1.0),
            ("holdfast_sealing_next_deadline_seconds", 30.0),
            ("holdfast_sealing_spare_seconds", -10.0),
            ("holdfast_sealing_expected_finish_seconds", 90.0),
        ] {
            assert_eq!(value(&samples, name), expected, "{name}");
        }
        for secret in [&report.provider, "/srv", "4001", "acme"] {
            assert!(!page.contains(secret), "{secret} is in the page");
        }
    }

    #[test]
    fn a_provider_that_does_not_seal_says_nothing_of_sealing() {
        let mut report = provider_sample();
        report.sealing = None;
        assert!(read(&page(&report)).iter().all(|(name, _)| !name.contains("sealing")));
        let report = SealingReport { profile: "test-2k".to_owned(), prover_ended: 2, last: None };
        let report = ProviderStatusReport { sealing: Some(report), ..provider_sample() };
        let samples = read(&page(&report));
        assert_eq!(value(&samples, "holdfast_sealing_up"), 0.0);
        assert_eq!(value(&samples, "holdfast_sealing_prover_ended_total"), 2.0);
    }
}
