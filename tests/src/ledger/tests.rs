#![allow(clippy::unwrap_used)]

use std::time::Duration;

use super::writer::writer_folder;
use super::*;

/// Some work on a plain folder, which loses nothing.
fn worked() -> (tempfile::TempDir, Vec<Ledger>) {
    let dir = tempfile::tempdir().unwrap();
    for n in 0..2 {
        std::fs::create_dir(dir.path().join(writer_folder(n))).unwrap();
    }
    let load = Load::start(dir.path(), vec![Ledger::default(); 2], 7);
    std::thread::sleep(Duration::from_millis(1500));
    let (ledgers, stats, errors) = load.finish();
    assert!(errors.is_empty(), "{errors:?}");
    assert!(stats.operations > 100, "{stats:?}");
    (dir, ledgers)
}

fn audit(ledger: &Ledger, root: &Path, crash: Crash) -> Findings {
    check(&mut ledger.clone(), root, crash).unwrap()
}

#[test]
fn a_file_system_that_loses_nothing_passes() {
    let (dir, ledgers) = worked();
    for (n, ledger) in ledgers.iter().enumerate() {
        for crash in [Crash::Process, Crash::Power] {
            let findings = audit(ledger, &dir.path().join(writer_folder(n)), crash);
            assert_eq!(findings.broken, Vec::<String>::new());
            assert_eq!(findings.rolled_back, 0);
            assert!(findings.paths > 10);
        }
    }
}

#[test]
fn a_second_load_goes_on_with_the_settled_books() {
    let (dir, mut ledgers) = worked();
    for (n, ledger) in ledgers.iter_mut().enumerate() {
        assert!(check(ledger, &dir.path().join(writer_folder(n)), Crash::Power).unwrap().broken.is_empty());
    }
    let load = Load::start(dir.path(), ledgers, 8);
    std::thread::sleep(Duration::from_millis(500));
    let (ledgers, _, errors) = load.finish();
    assert!(errors.is_empty(), "{errors:?}");
    let findings = audit(&ledgers[1], &dir.path().join(writer_folder(1)), Crash::Process);
    assert_eq!(findings.broken, Vec::<String>::new());
}

#[test]
fn each_kind_of_loss_is_found() {
    let (dir, ledgers) = worked();
    let root = dir.path().join(writer_folder(0));
    let caught = |what: &str| {
        let findings = audit(&ledgers[0], &root, Crash::Process);
        assert!(!findings.broken.is_empty(), "{what} was not noticed");
    };
    let log = std::fs::read(root.join("log")).unwrap();
    std::fs::write(root.join("log"), &log[..log.len() / 2]).unwrap();
    caught("a shorter log");
    let mut garbled = log.clone();
    garbled[log.len() / 2] ^= 1;
    std::fs::write(root.join("log"), &garbled).unwrap();
    caught("a flipped bit");
    std::fs::remove_file(root.join("log")).unwrap();
    caught("a missing file");
    std::fs::write(root.join("log"), &log).unwrap();
    assert!(audit(&ledgers[0], &root, Crash::Process).broken.is_empty());
    let mut records = std::fs::read(root.join("records")).unwrap();
    let kept = records.clone();
    records[..RECORD].fill(0);
    std::fs::write(root.join("records"), &records).unwrap();
    let first_written = matches!(&ledgers[0].last(Path::new("records")), State::Records { versions, .. } if versions[0].answered > 0);
    assert_eq!(!audit(&ledgers[0], &root, Crash::Process).broken.is_empty(), first_written);
    std::fs::write(root.join("records"), &kept).unwrap();
    std::fs::write(root.join("stranger"), b"").unwrap();
    caught("a file that nobody wrote");
}

#[test]
fn marks_admit_what_each_crash_may_take() {
    let path = Path::new("p");
    let dir = tempfile::tempdir().unwrap();
    let mut ledger = Ledger::default();
    let len = Marks { answered: 10, synced: 4, issued: 20 };
    ledger.issue(path, State::Bytes { seed: 1, len });
    ledger.answered(path);
    for (size, after_process, after_power) in [
        (None, false, true),
        (Some(3), false, false),
        (Some(4), false, true),
        (Some(10), true, true),
        (Some(21), false, false),
    ] {
        let file = dir.path().join("p");
        match size {
            Some(size) => std::fs::write(&file, stream(1, size)).unwrap(),
            None => drop(std::fs::remove_file(&file)),
        }
        assert_eq!(audit(&ledger, dir.path(), Crash::Process).broken.is_empty(), after_process, "{size:?}");
        assert_eq!(audit(&ledger, dir.path(), Crash::Power).broken.is_empty(), after_power, "{size:?}");
    }
    ledger.file_synced(path);
    std::fs::remove_file(dir.path().join("p")).unwrap();
    assert!(!audit(&ledger, dir.path(), Crash::Power).broken.is_empty());
}
