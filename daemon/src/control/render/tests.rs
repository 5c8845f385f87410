#![allow(clippy::unwrap_used)]
use super::*;
use crate::worker::{Detail, LastError};

pub fn sample() -> StatusReport {
    let provider = |n: u8, state, connected| ProviderReport {
        peer_id: format!("12D3KooWabcdefgh{n}"),
        addrs: vec![format!("/ip4/127.0.0.1/tcp/400{n}")],
        state,
        connected,
        copies: 3,
        bytes: 3 << 20,
        last_audit_at: Some(990),
        last_audit_passed: Some(connected),
        tags: if n == 2 { vec!["operator=acme".into()] } else { Vec::new() },
        reason: (!connected)
            .then(|| "did not answer 3 audits; its 3 pieces were copied to ..efgh2".to_owned()),
    };
    StatusReport {
        schema: STATUS_SCHEMA,
        version: "0.1.0".into(),
        pid: 7,
        now: 1000,
        started_at: 100,
        drive: "hf1abc".into(),
        home: "/h".into(),
        mountpoint: Some("/m".into()),
        state: DriveState::Mounted,
        state_reason: None,
        safety: Safety::default(),
        policy: PolicyReport { survive_losses: 2, copies_wanted: 3, survive_losses_most: 2 },
        durability: DurabilityReport {
            proven: Amount { bytes: 5 << 20, files: Some(3) },
            ..Default::default()
        },
        commits: CommitsReport {
            latest: Some(CommitReport { sequence: 4, at: 900, cid: "b".into() }),
            published: Some(CommitReport { sequence: 4, at: 900, cid: "b".into() }),
            published_with: 4,
        },
        pieces: PiecesReport { total: 1, bytes: 5 << 20, full: 1, ..Default::default() },
        redundancy: RedundancyReport {
            stored_bytes: 9 << 20,
            expansion: Some(1.8),
            stripes: 2,
            stripes_full: 1,
            striped_bytes: 4 << 20,
            ..Default::default()
        },
        audits: AuditsReport {
            leaves: 64,
            interval_seconds: 600,
            in_words: "64 places every 10 minutes; noticed with 99 %: a loss of 1 % within 80 minutes".into(),
        },
        providers: vec![
            provider(1, ProviderState::Failed, false),
            provider(2, ProviderState::Ok, true),
            provider(3, ProviderState::Ok, true),
            provider(4, ProviderState::Ok, true),
        ],
        workers: vec![WorkerReport {
            name: "place".into(),
            state: State::Idle,
            detail: Detail::default(),
            steps: 1,
            errors_in_a_row: 0,
            last_error: None,
        }],
        storage: StorageReport::default(),
        events: vec![EventReport {
            at: 940,
            level: "warning".into(),
            text: "provider ..efgh1 was given up".into(),
        }],
        restored: None,
        term: None,
        conflict_snapshot: None,
    }
}

#[test]
fn the_verdict_follows_the_figures() {
    let mut status = sample();
    status.judge();
    assert_eq!(status.safety.level, SafetyLevel::Safe);
    assert!(status.safety.summary.contains("any 2 providers"), "{}", status.safety.summary);

    status.commits.published = None;
    status.judge();
    assert_eq!(status.safety.level, SafetyLevel::Working);
    assert!(status.safety.summary.starts_with("The newest changes"), "{}", status.safety.summary);

    status.durability.staged.bytes = 1024;
    status.judge();
    assert_eq!(status.safety.level, SafetyLevel::Working);

    status.redundancy.stuck_slots = 2;
    status.redundancy.stuck_reasons = vec!["1 has no room".into(), "3 have another slot".into()];
    status.judge();
    assert_eq!(status.safety.level, SafetyLevel::Hindered);
    let said = &status.safety.summary;
    assert!(
        said.ends_with("may take 2 slots of it. Of those of this drive, 1 has no room; 3 have another slot."),
        "{said}"
    );
    assert!(status.safety.advice.as_ref().unwrap().contains("provider add"));
    status.redundancy.stuck_slots = 0;

    status.workers[0].errors_in_a_row = 3;
    status.workers[0].last_error = Some(LastError { message: "no space".into(), at: 999 });
    status.judge();
    assert_eq!(status.safety.level, SafetyLevel::Hindered);
    assert!(status.safety.summary.contains("no space"));

    status.providers[1].connected = false;
    status.judge();
    assert!(
        status.safety.summary.contains("3 providers are needed and 2 answer"),
        "{}",
        status.safety.summary
    );

    status.pieces.lost = 1;
    status.judge();
    assert_eq!(status.safety.level, SafetyLevel::Lost);
}

#[test]
fn folders_that_ask_for_more_are_told() {
    let class = |survive_losses, at_risk_bytes| ClassReport {
        survive_losses,
        pieces: 2,
        bytes: 2 << 20,
        full: 2,
        at_risk_bytes,
        survives: Some(1),
        stored_bytes: 6 << 20,
        expansion: Some(3.0),
    };
    let mut status = sample();
    status.policy.survive_losses_most = 4;
    status.redundancy.classes = vec![class(2, 0), class(4, 0)];
    status.judge();
    assert_eq!(status.safety.level, SafetyLevel::Safe);
    assert!(
        status.safety.summary.contains("any 2 providers (some of it, as its folder's policy asks, of 4)")
    );
    status.redundancy.to_raise = 3;
    status.policy.survive_losses_most = 2;
    status.judge();
    assert_eq!(status.safety.level, SafetyLevel::Working);
    assert!(status.render().contains("3 to be looked at"), "{}", status.render());
    status.policy.survive_losses_most = 4;
    // Enough for the drive, and not for the folder.
    status.redundancy.classes = vec![class(2, 0), class(4, 1 << 20)];
    status.durability.placed_below_policy.bytes = 1 << 20;
    status.judge();
    assert_eq!(status.safety.level, SafetyLevel::Hindered);
    assert!(
        status.safety.summary.contains("5 providers are needed and 3 answer"),
        "{}",
        status.safety.summary
    );
    let text = status.render();
    assert!(text.contains("loss of 4 providers: 2.0 MiB in 2 pieces"), "{text}");
    assert!(text.contains("1.0 MiB do not yet, some only 1"), "{text}");
}

#[test]
fn who_may_write_is_told() {
    let mut status = sample();
    let anchors = ["a", "b", "c"].map(str::to_owned).to_vec();
    let (former, keeping_former) = (Vec::new(), 0);
    status.term = Some(TermReport { number: 3, forced: false, anchors, keeping: 3, former, keeping_former });
    status.judge();
    assert_eq!(status.safety.level, SafetyLevel::Safe);
    assert!(status.render().contains("term        3, granted by a majority; 3 of 3 keep the newest head"));

    status.durability.packed.bytes = 1024;
    status.commits.published_with = 0;
    status.term.as_mut().unwrap().keeping = 1;
    status.judge();
    assert_eq!(status.safety.level, SafetyLevel::Hindered);
    assert!(status.safety.summary.contains("1 of the 3 providers"), "{}", status.safety.summary);
    assert!(status.safety.advice.as_ref().unwrap().contains("provider remove"));
    // While anchors change those before count as well.
    let term = status.term.as_mut().unwrap();
    term.keeping = 3;
    term.former = ["a", "b", "c", "d", "e", "f"].map(str::to_owned).to_vec();
    term.keeping_former = 3;
    status.judge();
    assert_eq!(status.safety.level, SafetyLevel::Hindered);
    assert!(status.safety.summary.contains("3 of the 6 providers"), "{}", status.safety.summary);
    assert!(status.render().contains("3 of 3 keep the newest head, and 3 of the 6 whose place they take"));
    status.term.as_mut().unwrap().keeping_former = 4;
    status.judge();
    assert_eq!(status.safety.level, SafetyLevel::Working, "a majority of both");
    status.term.as_mut().unwrap().keeping_former = 3;
    status.started_at = status.now - 10;
    status.judge();
    assert_eq!(status.safety.level, SafetyLevel::Working, "it has just begun");

    status.conflict_snapshot = Some("conflict-00-x".into());
    status.judge();
    assert_eq!(status.safety.level, SafetyLevel::Hindered);
    let advice = status.safety.advice.unwrap();
    assert!(advice.contains("cp -a /m/.snapshots/conflict-00-x "), "{advice}");
}

#[test]
fn the_text_tells_the_story() {
    let mut status = sample();
    status.judge();
    let text = status.render();
    for part in [
        "Safe:",
        "Proven",
        "3 files",
        "FAILED",
        "copied to ..efgh2",
        "given up",
        "newest 4",
        "1 with all 3 copies",
        "operator=acme",
        "every copy is asked for 64 places every 10 minutes; noticed with 99 %: a loss of 1 % within 80 minutes",
        "9.0 MiB with providers, 1.80 times the data; 4.0 MiB of it in 2 stripes, 1 of which lack slots",
    ] {
        assert!(text.contains(part), "{part} is missing in:\n{text}");
    }
}

#[test]
fn what_a_restored_machine_has_not_asked_for_is_not_said_to_be_here() {
    let mut status = sample();
    status.durability.packed.bytes = 5 << 20;
    status.pieces.unasked_bytes = 5 << 20;
    status.judge();
    assert_eq!(status.safety.level, SafetyLevel::Working);
    assert!(status.safety.summary.contains("as the drive's head says"), "{}", status.safety.summary);

    let mut report = UnmountReport {
        mountpoint: Some("/m".into()),
        unsafe_bytes: 5 << 20,
        unknown: false,
        below_policy_bytes: 1 << 20,
        unasked_bytes: 5 << 20,
        safe_bytes: 0,
        oldest_unsafe_seconds: None,
    };
    let text = report.render();
    assert!(text.contains("5.0 MiB are with enough providers") && !text.contains("Not yet safe"), "{text}");
    // A byte that is only here changes the verdict.
    report.unsafe_bytes += 1;
    assert!(report.render().contains("Not yet safe"), "{}", report.render());
}

#[test]
fn what_is_at_risk_is_told_with_the_time_it_takes() {
    let mut status = sample();
    assert!(!status.render().contains("at risk"));
    status.redundancy.at_risk_bytes = 5 << 20;
    status.redundancy.at_risk_survives = Some(1);
    status.redundancy.to_place_bytes = 2 << 20;
    status.redundancy.safe_in_seconds = Some(90);
    let text = status.render();
    assert!(
        text.contains("5.0 MiB (all of it the loss of 1 provider); 2.0 MiB to be placed, safe in about 90 s"),
        "{text}"
    );
    status.redundancy.at_risk_survives = Some(0);
    status.redundancy.safe_in_seconds = None;
    let text = status.render();
    assert!(text.contains("some of it no loss of a provider") && text.contains("not known yet"), "{text}");
}

#[test]
fn json_keeps_its_shape() {
    let json = serde_json::to_value(sample()).unwrap();
    assert_eq!(json["schema"], 1);
    assert_eq!(json["state"], "mounted");
    assert_eq!(json["providers"][0]["state"], "failed");
    assert_eq!(json["workers"][0]["state"], "idle");
    assert_eq!(json["durability"]["proven"]["bytes"], 5 << 20);
    assert!(serde_json::from_value::<StatusReport>(json).is_ok());
}

#[test]
fn amounts_read_well() {
    assert_eq!(size(1023), "1023 B");
    assert_eq!(size(1024), "1.0 KiB");
    assert_eq!(size((1 << 20) - 1), "1.0 MiB");
    assert_eq!(size(u64::MAX), "16384.0 PiB");
    assert_eq!(count(1, "piece"), "1 piece");
    assert_eq!(age(119), "119 s");
    assert_eq!(age(7200), "2 h");
}
