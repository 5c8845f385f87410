#![allow(clippy::unwrap_used)]
use super::facts::{Daemon, HomeState, HomeThere, Machine, Mount, Quota, Said, Unusable};
use super::*;
use crate::control::{DriveState, SafetyLevel, StatusReport, render};
use crate::worker::State;

fn provider(n: usize) -> ProviderFacts {
    ProviderFacts {
        peer_id: format!("12D3KooWabcdefgh{n}"),
        said: Some(Said { ahead_seconds: 2, free: 100 << 30, accepting: Some(true) }),
        silence: None,
        domain: n,
        barred_until: None,
        reason: None,
        bytes: 5 << 20,
    }
}

fn status() -> StatusReport {
    let mut status = render::tests::sample();
    status.judge();
    status
}

/// A drive that is well.
fn well() -> Facts {
    let providers: Vec<ProviderFacts> = (1..=4).map(provider).collect();
    let there = HomeThere {
        free: 100 << 30,
        free_min: 1 << 30,
        free_files: Some(1 << 20),
        mountpoint: Some("/m".into()),
        mount: Mount::Drive,
        daemon: Daemon::Answers,
        copies_wanted: 3,
        ..HomeThere::default()
    };
    Facts {
        version: "0.1.0".into(),
        machine: Machine { no_fuse: None, open_files_max: Some(65_536) },
        home: HomeFacts { path: "/h".into(), state: HomeState::There(Box::new(there)) },
        drive: Some(DriveFacts {
            status: status(),
            corruption: None,
            open_files: Some((100, 65_536)),
            writers_wait: false,
            quota: None,
            deals: facts::DealFacts::default(),
            providers: providers.clone(),
        }),
        providers,
    }
}

fn home(facts: &mut Facts) -> &mut HomeThere {
    match &mut facts.home.state {
        HomeState::There(there) => there,
        HomeState::Unusable { .. } => panic!("no home"),
    }
}

fn drive(facts: &mut Facts) -> &mut DriveFacts {
    facts.drive.as_mut().unwrap()
}

/// What is wrong with a drive of which only this is not well: one finding, by this check.
fn finding(check: &str, harm: impl FnOnce(&mut Facts)) -> Finding {
    let mut facts = well();
    harm(&mut facts);
    let report = examine(&facts);
    assert_eq!(report.findings.len(), 1, "{check}: {:#?}", report.findings);
    let found = report.findings.into_iter().next().unwrap();
    assert_eq!(found.check, check);
    for text in [&found.what, &found.means, &found.todo] {
        assert!(text.len() > 10, "{found:#?}");
    }
    found
}

#[test]
fn a_drive_that_is_well_has_no_findings() {
    let report = examine(&well());
    assert_eq!((report.verdict, report.findings.len(), report.mounted), (Verdict::Well, 0, true));
    assert!(report.render().starts_with("Nothing is wrong."), "{}", report.render());
    let names: std::collections::BTreeSet<&String> = report.checks.iter().collect();
    assert_eq!(names.len(), checks::ALL.len(), "names are names");
}

#[test]
fn this_machine() {
    let found = finding("fuse", |f| f.machine.no_fuse = Some("there is no /dev/fuse".into()));
    assert_eq!((found.level, found.what.as_str()), (Level::Warning, "there is no /dev/fuse"));
    assert!(finding("open_files", |f| f.machine.open_files_max = Some(1024)).what.contains("1024"));
}

#[test]
fn the_home_folder() {
    let unusable = |why| {
        let mut facts = well();
        (facts.drive, facts.providers) = (None, Vec::new());
        facts.home.state = HomeState::Unusable { what: "it is what it is".into(), why };
        let report = examine(&facts);
        assert_eq!((report.findings.len(), report.mounted), (1, false));
        report.verdict
    };
    assert_eq!(unusable(Unusable::Missing), Verdict::Warned);
    assert_eq!(unusable(Unusable::Newer), Verdict::Warned);
    assert_eq!(unusable(Unusable::Other), Verdict::Warned);
    assert_eq!(unusable(Unusable::Damaged), Verdict::Damaged);
    assert!(
        finding("permissions", |f| home(f).open_to_others = vec!["/h/keyfile".into()])
            .todo
            .contains("chmod 700")
    );
    finding("owner", |f| home(f).foreign = Some(1000));
    finding("writable", |f| home(f).unwritable = Some("Read-only file system".into()));
    assert!(finding("space", |f| home(f).free = 1 << 30).what.contains("1.0 GiB"));
    assert!(finding("space", |f| home(f).free_files = Some(3)).what.contains("3 more files"));
    finding("space", |f| (home(f).free, home(f).free_files) = (1 << 30, Some(3)));
    assert_eq!(finding("keyfile", |f| home(f).keyfile_length = Some(0)).level, Level::Damage);
    assert_eq!(finding("log", |f| home(f).log_missing = true).level, Level::Damage);
    assert_eq!(
        finding("set_aside", |f| home(f).set_aside = vec!["index.damaged-1".into()]).level,
        Level::Note
    );
    finding("restore", |f| home(f).restore_pending = true);
}

#[test]
fn what_is_mounted_and_by_whom() {
    let unmounted = |mount| {
        finding("mount", |f| {
            f.drive = None;
            (home(f).daemon, home(f).mount) = (Daemon::Absent, mount);
        })
    };
    assert_eq!(unmounted(Mount::Nothing).level, Level::Note);
    assert!(unmounted(Mount::Drive).what.contains("dead mount"));
    assert!(unmounted(Mount::Files).means.contains("on this disk only"));
    for daemon in [Daemon::Deaf, Daemon::Silent] {
        finding("daemon", |f| (f.drive, home(f).daemon) = (None, daemon));
    }
    finding("mount", |f| home(f).mount = Mount::Nothing);
}

#[test]
fn the_drive() {
    assert_eq!(finding("version", |f| f.version = "9.9.9".into()).level, Level::Note);
    let damaged = finding("corruption", |f| {
        drive(f).corruption = Some("record 7".into());
        drive(f).status.state = DriveState::ReadOnly;
    });
    assert_eq!(damaged.level, Level::Damage);
    let told = finding("read_only", |f| {
        drive(f).status.state = DriveState::ReadOnly;
        drive(f).status.state_reason = Some("another machine has it".into());
    });
    assert!(told.what.contains("another machine has it"));
    assert_eq!(finding("lost", |f| drive(f).status.pieces.lost = 2).level, Level::Damage);
    let hindered = finding("safety", |f| {
        drive(f).status.safety.level = SafetyLevel::Hindered;
        drive(f).status.safety.summary = "no provider is left".into();
        drive(f).status.redundancy.at_risk_bytes = 1 << 20;
    });
    assert!(hindered.means.contains("1.0 MiB survive the loss of 0 providers"), "{hindered:?}");
    let late = finding("unpublished", |f| drive(f).status.durability.oldest_unsafe_seconds = Some(7201));
    assert!(late.means.contains("the state of"), "{late:?}");
    finding("unpublished", |f| {
        drive(f).status.durability.oldest_unsafe_seconds = Some(7201);
        drive(f).status.commits.published = None;
    });
    assert!(
        finding("workers", |f| drive(f).status.workers[0].errors_in_a_row = 3)
            .what
            .contains("again and again")
    );
    assert!(
        finding("workers", |f| drive(f).status.workers[0].state = State::Crashed).what.contains("crashed")
    );
    let waits = finding("quota", |f| {
        drive(f).writers_wait = true;
        drive(f).quota = Some(Quota { bytes: 1 << 30, free: 0 });
    });
    assert!(waits.what.contains("1.0 GiB"));
    finding("descriptors", |f| drive(f).open_files = Some((950, 1000)));
    let deals = finding("deals", |f| drive(f).deals = facts::DealFacts { ending: 3, first_in: 90_000 });
    assert!(deals.what.contains("3 deals") && deals.what.contains("25 h"), "{deals:?}");
}

#[test]
fn the_providers() {
    fn silence(f: &mut Facts, n: usize) {
        let provider = f.providers.get_mut(n).unwrap();
        (provider.said, provider.silence) = (None, Some("connection refused".into()));
    }
    let found = finding("silent", |f| silence(f, 1));
    assert!(found.what.contains("..bcdefgh2") && found.means.contains("5.0 MiB"), "{found:?}");
    let all = finding("silent", |f| (0..4).for_each(|n| silence(f, n)));
    assert!(all.what.contains("none of the 4"), "{all:?}");
    let few = finding("provider_count", |f| f.providers.truncate(2));
    assert!(few.what.contains("2 providers and needs 3"), "{few:?}");
    let barred = finding("barred", |f| {
        let now = drive(f).status.now;
        f.providers[0].barred_until = Some(now + 7200);
        f.providers[0].reason = Some("its proof is wrong".into());
    });
    assert!(barred.what.contains("another 2 h: its proof is wrong"), "{barred:?}");
    let one_domain = finding("domains", |f| f.providers.iter_mut().for_each(|p| p.domain = 0));
    assert!(one_domain.what.contains("1 failure domain"), "{one_domain:?}");

    fn fill(f: &mut Facts, n: usize) {
        f.providers[n].said.as_mut().unwrap().free = 1 << 20;
    }
    assert_eq!(finding("room", |f| fill(f, 0)).level, Level::Note, "three others have room");
    let full = finding("room", |f| (0..2).for_each(|n| fill(f, n)));
    assert!(full.level == Level::Warning && full.means.starts_with("2 providers left"), "{full:?}");
    finding("room", |f| f.providers[0].said.as_mut().unwrap().accepting = Some(false));
}

#[test]
fn the_clocks() {
    fn set(f: &mut Facts, ahead: [i64; 4]) {
        for (provider, ahead) in f.providers.iter_mut().zip(ahead) {
            provider.said.as_mut().unwrap().ahead_seconds = ahead;
        }
    }
    let ours = finding("clock", |f| set(f, [-7300, -7301, -7299, 10]));
    assert!(ours.level == Level::Warning && ours.what.contains("2 h ahead of the providers'"), "{ours:?}");
    let theirs = finding("clock", |f| set(f, [0, 1, -2, 86_400]));
    assert!(theirs.level == Level::Note && theirs.what.contains("..bcdefgh4"), "{theirs:?}");
    // With two nobody can say whose is wrong.
    let mut facts = well();
    set(&mut facts, [9000, 9000, 0, 0]);
    facts.providers.truncate(2);
    home(&mut facts).copies_wanted = 2;
    drive(&mut facts).status.policy.survive_losses_most = 1;
    let report = examine(&facts);
    assert!(report.findings.len() == 1 && report.findings[0].what.contains("few providers"), "{report:?}");
}

#[test]
fn the_gravest_comes_first() {
    let mut facts = well();
    home(&mut facts).set_aside = vec!["index.damaged-1".into()];
    facts.machine.open_files_max = Some(10);
    drive(&mut facts).status.pieces.lost = 1;
    let report = examine(&facts);
    let levels: Vec<Level> = report.findings.iter().map(|finding| finding.level).collect();
    assert_eq!(levels, [Level::Damage, Level::Warning, Level::Note]);
    assert_eq!(report.verdict, Verdict::Damaged);
    let text = report.render();
    assert!(text.starts_with("There is damage.") && text.contains("\nDAMAGE  1 piece"), "{text}");
    let again: DoctorReport = serde_json::from_str(&serde_json::to_string(&report).unwrap()).unwrap();
    assert_eq!(again, report);
}

#[test]
fn this_home_is_looked_at_as_it_lies_there() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("home");
    let missing = super::home(&path);
    assert!(matches!(missing.state, HomeState::Unusable { why: Unusable::Missing, .. }));
    std::fs::create_dir(&path).unwrap();
    std::fs::write(path.join("keyfile"), b"").unwrap();
    let config = |text: &str| std::fs::write(path.join("config"), text).unwrap();
    config(r#"{"version":99,"drive":"d"}"#);
    assert!(matches!(super::home(&path).state, HomeState::Unusable { why: Unusable::Newer, .. }));
    config("{");
    assert!(matches!(super::home(&path).state, HomeState::Unusable { why: Unusable::Damaged, .. }));
    let mountpoint = dir.path().join("m");
    std::fs::create_dir(&mountpoint).unwrap();
    std::fs::write(mountpoint.join("backup"), b"").unwrap();
    config(&format!(r#"{{"version":1,"drive":"d","mountpoint":{:?}}}"#, mountpoint));
    for name in ["index", "index.damaged-1"] {
        std::fs::create_dir(path.join(name)).unwrap();
    }
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    let HomeState::There(there) = super::home(&path).state else { panic!("it is there") };
    assert_eq!((there.keyfile_length, there.log_missing, there.mount), (Some(0), true, Mount::Files));
    assert_eq!((there.set_aside.clone(), there.daemon), (vec!["index.damaged-1".to_owned()], Daemon::Absent));
    assert!(there.open_to_others.contains(&path.canonicalize().unwrap()) && there.unwritable.is_none());
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o700)).unwrap();
    let HomeState::There(there) = super::home(&path).state else { panic!("it is there") };
    assert!(there.open_to_others.is_empty(), "what is in a closed folder is closed");
    assert!(there.free > 0 && there.foreign.is_none());
}
