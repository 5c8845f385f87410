//! A drive's page.

use super::exposition::Exposition;
use crate::control::{ProviderState, SafetyLevel, StatusReport};

/// Made of the report that `holdfast status` shows.
pub fn page(report: &StatusReport) -> String {
    let mut out = Exposition::default();
    out.gauge("holdfast_info", "The program that runs; always 1.").labelled("version", &report.version, 1);
    out.gauge("holdfast_start_time_seconds", "When it was mounted, unix time.").value(report.started_at);
    let mut safety = out.gauge("holdfast_drive_safety", "1 for the verdict that `holdfast status` shows.");
    for (name, level) in [
        ("safe", SafetyLevel::Safe),
        ("working", SafetyLevel::Working),
        ("hindered", SafetyLevel::Hindered),
        ("lost", SafetyLevel::Lost),
    ] {
        safety = safety.labelled("level", name, u8::from(report.safety.level == level));
    }
    let rungs = &report.durability;
    out.gauge("holdfast_drive_bytes", "Bytes by the rung of the ladder on which they stand.")
        .labelled("rung", "staged", rungs.staged.bytes)
        .labelled("rung", "sealed", rungs.sealed.bytes)
        .labelled("rung", "packed", rungs.packed.bytes)
        .labelled("rung", "placed_below_policy", rungs.placed_below_policy.bytes)
        .labelled("rung", "placed", rungs.placed.bytes)
        .labelled("rung", "proven", rungs.proven.bytes);
    out.gauge(
        "holdfast_drive_oldest_unsafe_seconds",
        "Age of the oldest change that is not safe; none without one.",
    )
    .maybe(rungs.oldest_unsafe_seconds);
    let mut commits = out.gauge("holdfast_drive_commit_time_seconds", "When a commit was made, unix time.");
    for (which, commit) in [("latest", &report.commits.latest), ("published", &report.commits.published)] {
        if let Some(commit) = commit {
            commits = commits.labelled("which", which, commit.at);
        }
    }
    let pieces = &report.pieces;
    out.gauge("holdfast_drive_pieces", "Pieces by how many copies or slots they have.")
        .labelled("state", "full", pieces.full)
        .labelled("state", "degraded", pieces.degraded)
        .labelled("state", "lost", pieces.lost);
    let cost = &report.redundancy;
    out.gauge("holdfast_drive_stored_bytes", "Bytes that providers keep.").value(cost.stored_bytes);
    out.gauge("holdfast_drive_at_risk_bytes", "Bytes that survive fewer losses than the policy asks for.")
        .value(cost.at_risk_bytes);
    out.gauge(
        "holdfast_drive_to_place_bytes",
        "Bytes that have to reach providers until nothing is at risk.",
    )
    .value(cost.to_place_bytes);
    out.gauge(
        "holdfast_drive_safe_in_seconds",
        "Seconds until nothing is at risk, at the rate of the last minutes.",
    )
    .maybe(cost.safe_in_seconds);
    let mut providers = out.gauge("holdfast_drive_providers", "Providers by state.");
    for (name, state) in [
        ("new", ProviderState::New),
        ("ok", ProviderState::Ok),
        ("suspect", ProviderState::Suspect),
        ("failed", ProviderState::Failed),
        ("leaving", ProviderState::Leaving),
    ] {
        let count = report.providers.iter().filter(|provider| provider.state == state).count();
        providers = providers.labelled("state", name, count);
    }
    let disk = &report.storage;
    out.gauge(
        "holdfast_drive_disk_bytes",
        "Bytes of the home folder by what they are, and what the disk has left.",
    )
    .labelled("what", "staging", disk.staging_bytes)
    .labelled("what", "unsynced", disk.unsynced_bytes)
    .labelled("what", "log", disk.log_bytes)
    .labelled("what", "index", disk.index_bytes)
    .labelled("what", "pieces", disk.pieces_bytes)
    .labelled("what", "free", disk.disk_free_bytes);
    workers(&mut out, report);
    out.finish()
}

fn workers(out: &mut Exposition, report: &StatusReport) {
    let mut steps =
        out.counter("holdfast_drive_worker_steps_total", "Steps that a background worker has done.");
    for worker in &report.workers {
        steps = steps.labelled("worker", &worker.name, worker.steps);
    }
    let mut queues = out.gauge("holdfast_drive_worker_queue", "Units of work that wait for a worker.");
    for worker in &report.workers {
        queues = queues.labelled("worker", &worker.name, worker.detail.queue);
    }
    let mut errors = out.gauge("holdfast_drive_worker_errors", "Steps of a worker that failed in a row.");
    for worker in &report.workers {
        errors = errors.labelled("worker", &worker.name, worker.errors_in_a_row);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::render::tests::sample;
    use crate::metrics::exposition::tests::{read, value};

    #[test]
    fn the_page_says_what_the_status_says_and_names_nobody() {
        let mut report = sample();
        report.redundancy.at_risk_bytes = 77;
        report.judge();
        let page = page(&report);
        let samples = read(&page);
        for (name, expected) in [
            ("holdfast_drive_bytes{rung=\"proven\"}", f64::from(5 << 20)),
            ("holdfast_drive_pieces{state=\"full\"}", 1.0),
            ("holdfast_drive_providers{state=\"failed\"}", 1.0),
            ("holdfast_drive_providers{state=\"ok\"}", 3.0),
            ("holdfast_drive_at_risk_bytes", 77.0),
            ("holdfast_drive_commit_time_seconds{which=\"published\"}", 900.0),
            ("holdfast_drive_worker_steps_total{worker=\"place\"}", 1.0),
        ] {
            assert_eq!(value(&samples, name), expected, "{name}");
        }
        let verdicts = samples.iter().filter(|(name, value)| name.contains("_safety{") && *value == 1.0);
        assert_eq!(verdicts.count(), 1);
        for secret in [report.drive.as_str(), "12D3KooW", "127.0.0.1", "\"/m\"", "acme"] {
            assert!(!page.contains(secret), "{secret} is in the page");
        }
    }
}
