#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use super::{CrashMedium, Fault, FaultMedium, FaultOp, RealMedium, StorageMedium, conformance, write_all_at};
use crate::StoreError;

#[test]
fn every_medium_conforms() {
    let folder = tempfile::tempdir().unwrap();
    let real = RealMedium::open(folder.path().join("new/log")).unwrap();
    conformance(&real);
    let second = RealMedium::open(folder.path().join("new/log"));
    assert!(matches!(second, Err(StoreError::InUse(_))), "one process at a time");
    conformance(&CrashMedium::new());
    let faulty = FaultMedium::new(Arc::new(CrashMedium::new()));
    conformance(&faulty);
    faulty.plan(FaultOp::Write, 0, u64::MAX, Fault::Short);
    conformance(&faulty);
}

#[test]
fn a_cut_keeps_what_was_synced_and_tears_the_rest() {
    let medium = CrashMedium::new();
    let kept = medium.create("kept").unwrap();
    write_all_at(&*kept, &[1; 4096], 0).unwrap();
    kept.sync_data().unwrap();
    medium.sync_dir().unwrap();
    write_all_at(&*kept, &[2; 4096], 0).unwrap();
    medium.create("unsynced").unwrap();
    let (mut torn, mut names) = (0, 0);
    for seed in 0..200 {
        let after = medium.power_cut(seed).contents();
        let bytes = &after["kept"];
        assert_eq!(bytes.len(), 4096);
        assert!(bytes.chunks(512).all(|sector| sector == [1; 512] || sector == [2; 512]));
        torn += usize::from(bytes.contains(&1) && bytes.contains(&2));
        names += usize::from(after.contains_key("unsynced"));
    }
    assert!(torn > 20, "sectors tear: {torn}");
    assert!((20..180).contains(&names), "an unsynced name may be lost or kept: {names}");
    assert_eq!(medium.killed().contents()["kept"], vec![2; 4096]);
}

#[test]
fn faults_come_when_planned() {
    let medium = FaultMedium::new(Arc::new(CrashMedium::new()));
    let file = medium.create("file").unwrap();
    medium.plan(FaultOp::Sync, 1, 1, Fault::Errno(libc::EIO));
    assert!(file.sync_data().is_ok());
    assert!(file.sync_data().is_err());
    assert!(file.sync_data().is_ok());
    medium.plan(FaultOp::Write, 0, 1, Fault::Torn);
    assert!(file.write_at(&[1; 10], 0).is_err());
    assert_eq!(file.len().unwrap(), 5);
    medium.plan(FaultOp::Write, 0, 1, Fault::Errno(libc::ENOSPC));
    assert!(file.write_at(&[1; 10], 0).is_err_and(|error| crate::error::is_no_space(&error)));
}
