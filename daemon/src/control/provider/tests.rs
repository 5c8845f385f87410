#![allow(clippy::unwrap_used)]

use holdfast_proofs::sealing::{
    PieceCounts, Room, SCHEMA, SealingStatus, SectorStatus, TaskLine, WindowCounts,
};
use std::collections::BTreeMap;

use super::*;

fn task(id: u64, class: &str, what: &str, expected: u64, at_risk: bool) -> TaskLine {
    TaskLine {
        id,
        class: class.to_owned(),
        what: what.to_owned(),
        state: "running".to_owned(),
        deadline: 130,
        expected_finish: Some(expected),
        at_risk,
        attempts: 0,
    }
}

/// A provider whose window is late.
pub(crate) fn sample() -> ProviderStatusReport {
    let sector = SectorStatus {
        number: 9,
        phase: "pre-commit 1".to_owned(),
        pieces: 3,
        until: 1_000,
        comm_r: None,
        waits: None,
        faulty_since: None,
        fault: None,
        proven_at: None,
    };
    let status = SealingStatus {
        schema: SCHEMA,
        now: 100,
        pid: 8,
        profile: "test-2k".to_owned(),
        strength: "test strength".to_owned(),
        warning: Some("TEST STRENGTH".to_owned()),
        budget: Room { cores: 2, memory_bytes: 4 << 30 },
        used: Room { cores: 1, memory_bytes: 1 << 30 },
        accepts: true,
        reasons: Vec::new(),
        piece_bytes_max: 2_032,
        pieces: PieceCounts { waiting: 1, in_sectors: 3, too_large: 2 },
        sectors: vec![sector],
        sectors_total: 1,
        sectors_faulty: 0,
        phases: BTreeMap::from([("pre-commit 1".to_owned(), 1)]),
        windows: WindowCounts { proven: 4, ..WindowCounts::default() },
        tasks: vec![
            task(1, "spacetime", "window PoSt of 2 sector(s)", 140, true),
            task(2, "seal", "seal sector 9", 190, false),
        ],
        events: Vec::new(),
    };
    let last = LastStatus { running: true, age_seconds: 1, status };
    let mut report = ProviderStatusReport {
        schema: STATUS_SCHEMA,
        version: "0.1.0".to_owned(),
        pid: 7,
        now: 101,
        started_at: 1,
        provider: "12D3KooWabcdefgh1".to_owned(),
        dir: "/srv/provider".into(),
        addrs: vec!["/ip4/192.0.2.7/tcp/4001".to_owned()],
        tags: Tags { operator: Some("acme".to_owned()), ..Tags::default() },
        state: ProviderRun::Providing,
        health: Health::default(),
        kept: StoresReport {
            capacity_bytes: 100 << 30,
            stored_bytes: 3_000_000,
            promised_bytes: 4_000_000,
            free_bytes: 9 << 30,
            deals: 5,
            deals_stored: 4,
            ..StoresReport::default()
        },
        served: ServedReport {
            sessions: 2,
            served_bytes: 5_000_000,
            received_bytes: 6_000_000,
            proofs_made: 120,
            proofs_failed: 0,
        },
        sealing: Some(SealingReport { profile: "test-2k".to_owned(), prover_ended: 1, last: Some(last) }),
        metrics: Some("http://127.0.0.1:9464/metrics".to_owned()),
    };
    report.judge();
    report
}

fn sealed(report: &mut ProviderStatusReport) -> &mut SealingStatus {
    &mut report.sealing.as_mut().unwrap().last.as_mut().unwrap().status
}

#[test]
fn the_worst_is_said_first() {
    let mut report = sample();
    assert_eq!(report.health.level, HealthLevel::Trouble);
    let words = "A deadline is at risk: window PoSt of 2 sector(s) is due in 30 s (running).";
    assert_eq!(report.health.summary, words);
    assert!(report.health.advice.as_ref().unwrap().contains("--seal-cores"));

    sealed(&mut report).tasks[0].at_risk = false;
    report.judge();
    assert_eq!((report.health.level, &report.health.advice), (HealthLevel::Well, &None));

    let mut late = report.clone();
    sealed(&mut late).tasks[1].at_risk = true;
    late.judge();
    assert_eq!(late.health.level, HealthLevel::Warned, "a late seal breaks no promise");
    assert!(late.health.summary.starts_with("Sealing is late"));

    let mut behind = report.clone();
    (sealed(&mut behind).accepts, sealed(&mut behind).reasons) =
        (false, vec!["the queue is full".to_owned()]);
    behind.judge();
    assert_eq!(behind.health.level, HealthLevel::Warned);
    assert!(behind.health.summary.ends_with("the queue is full."), "{}", behind.health.summary);

    let mut full = report.clone();
    full.kept.free_bytes = 0;
    full.judge();
    assert_eq!(full.health.level, HealthLevel::Warned);

    let troubles: [(fn(&mut ProviderStatusReport), &str); 6] = [
        ((|report| report.served.proofs_failed = 2), "2 proofs of possession"),
        (|report| report.kept.slots_damaged = 1, "1 slot came from the disk"),
        (|report| report.kept.deals_damaged = 1, "The files of 1 deal"),
        (|report| sealed(report).sectors_faulty = 1, "1 sector could not be proven"),
        (
            |report| report.sealing.as_mut().unwrap().last.as_mut().unwrap().running = false,
            "The prover does not answer",
        ),
        (|report| report.sealing.as_mut().unwrap().last = None, "The prover does not answer"),
    ];
    for (change, words) in troubles {
        change(&mut report);
        report.judge();
        assert_eq!(report.health.level, HealthLevel::Trouble);
        assert!(report.health.summary.starts_with(words), "{words}: {}", report.health.summary);
    }
}

#[test]
fn the_text_has_the_figures_and_the_sealing() {
    let text = sample().render();
    for part in [
        "A deadline is at risk",
        "provider    12D3KooWabcdefgh1",
        "operator=acme",
        "folder      /srv/provider, served by process 7 for 100 s",
        "stores      2.9 MiB in 4 slots (3.8 MiB promised), of 100.0 GiB; takes 9.0 GiB more",
        "2 clients connected",
        "120 of possession given, 0 that could not be",
        "metrics     http://127.0.0.1:9464/metrics",
        "the prover has ended 1 time and was started again",
        "TEST STRENGTH",
        "AT RISK  window PoSt of 2 sector(s)",
        "expected in 90 s",
    ] {
        assert!(text.contains(part), "{part} is missing in:\n{text}");
    }
}

#[test]
fn json_keeps_its_shape() {
    let json = serde_json::to_value(sample()).unwrap();
    assert_eq!((&json["schema"], &json["state"]), (&1.into(), &"providing".into()));
    assert_eq!(json["health"]["level"], "trouble");
    assert!(json["drive"].is_null() && json["provider"].is_string());
    assert_eq!(json["sealing"]["last"]["running"], true);
    assert_eq!(json["sealing"]["last"]["tasks"][0]["class"], "spacetime");
    assert_eq!(serde_json::from_value::<ProviderStatusReport>(json).unwrap(), sample());
    let stopped = StoppedProviderReport::new("/srv/provider".into(), None, 7, None);
    let json = serde_json::to_value(stopped).unwrap();
    assert_eq!((&json["state"], &json["capacity_bytes"]), (&"stopped".into(), &7.into()));
}
